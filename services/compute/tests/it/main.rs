//! Compute against a real store, a real fleet listener and a host that speaks the protocol.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod bad_input;
mod balance;
mod cold;
mod decide;
mod images;
mod interfaces;
mod lab;
mod lifecycle;
mod moving;
mod proxies;
mod quotas;
mod resources;
mod scheduling;
mod views;
