//! Use cases, one file each.

pub(crate) mod accounts;
pub(crate) mod bootstrap;
pub(crate) mod catalog;
pub(crate) mod hashing;
pub(crate) mod login;
pub(crate) mod remove;
pub(crate) mod resolve;
pub(crate) mod trusts;
