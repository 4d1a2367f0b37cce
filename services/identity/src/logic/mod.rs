//! Use cases, one file each.

pub(crate) mod accounts;
pub(crate) mod bootstrap;
pub(crate) mod catalog;
pub(crate) mod compliance;
pub(crate) mod ec2;
pub(crate) mod hashing;
pub(crate) mod issue;
pub(crate) mod known;
pub(crate) mod limits;
pub(crate) mod login;
pub(crate) mod mfa;
pub(crate) mod oauth1;
pub(crate) mod remove;
pub(crate) mod resolve;
pub(crate) mod totp;
pub(crate) mod trusts;
