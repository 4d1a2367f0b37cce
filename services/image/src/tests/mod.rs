//! The service through its router: real database, real files, no network.

mod bad_input;
mod data;
mod harness;
mod images;
mod lists;
mod members;

pub(crate) use harness::Cloud;
