//! One file per use case.

pub mod actions;
pub mod audit;
pub mod balance;
pub mod cold;
pub mod console;
pub mod create_server;
pub mod decide;
pub mod delete_server;
pub mod deps;
pub mod drain;
pub mod evacuate;
pub mod guest;
pub mod hosts;
pub mod interfaces;
pub mod keys;
pub mod list_servers;
pub mod migrations;
pub mod moving;
pub mod observe;
pub mod password;
pub mod quota;
pub mod scheduling;
pub mod snapshot;
pub mod zones;
