//! Whole clouds for tests: the built binary with separate processes, in a directory of their own.
//!
//! A [`Cloud`] starts `haneul serve` and `haneul agent` (with fake drivers unless asked otherwise), gives a
//! client with an administrator's token, kills and starts processes again, arms fault points, and at its end
//! stops everything that it started. A [`Disk`] under it can lose its power; a [`Member`] joins it as another machine
//! would.

// A test kit panics where a product would answer an error.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod client;
mod cloud;
mod dice;
mod disk;
mod member;
mod ports;
pub mod postgres;
pub mod record;
mod release;
mod second;
mod wire;

pub use client::{Answer, Client};
pub use cloud::{Cloud, Options};
pub use dice::Dice;
pub use disk::Disk;
pub use member::Member;
pub use release::next_release;
pub use second::Second;
pub use wire::Wire;

use std::time::{Duration, Instant};

/// Waits until `probe` gives something; panics with `what` after `limit`. Polls every 5 ms: there is no event
/// to wait for on another process's HTTP side.
pub async fn eventually<T, F: Future<Output = Option<T>>>(
    what: &str,
    limit: Duration,
    mut probe: impl FnMut() -> F,
) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = probe().await {
            return found;
        }
        assert!(start.elapsed() < limit, "{what}: not after {limit:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
