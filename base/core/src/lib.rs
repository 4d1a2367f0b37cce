//! What everything else stands on: errors with two halves, ids, the clock, randomness, fault points,
//! configuration.
//!
//! Invariants: no IO but reading the configuration and making directories durable; knows nothing of any
//! service; times are integer microseconds from [`clock`]; ids and random numbers come from [`id`] and nowhere
//! else.

pub mod clock;
pub mod config;
pub mod durable;
pub mod error;
pub mod fault;
pub mod id;
pub mod release;

pub use error::{Error, Kind, Result};
