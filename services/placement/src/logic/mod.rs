//! What is asked for, and which providers could give it: pure functions on a snapshot, without a database.

pub mod candidates;
pub mod forest;
pub mod query;
