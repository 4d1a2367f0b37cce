//! A randomized run: clients that ask for all that can be done to servers, while whatever can die dies and comes back.
//!
//! A run has a seed, from which each client and the sequence of faults draw their numbers; so it is the same again as far
//! as processes that run beside each other allow. What was asked and what was broken is in a journal, with the time,
//! which a run that went wrong prints.

pub mod client;
pub mod faults;
pub mod truth;

use std::fmt::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// What all parts of a run share.
pub struct World {
    pub seed: u64,
    begun: Instant,
    journal: Mutex<Vec<String>>,
    wrong: Mutex<Vec<String>>,
    /// Held to read by who asks for something, and to write while all is let come to rest.
    pub gate: tokio::sync::RwLock<()>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl World {
    pub fn new(seed: u64) -> World {
        World {
            seed,
            begun: Instant::now(),
            journal: Mutex::default(),
            wrong: Mutex::default(),
            gate: tokio::sync::RwLock::new(()),
        }
    }

    /// Puts something into the journal.
    pub fn say(&self, what: impl std::fmt::Display) {
        let line = format!("{:9.3} {what}", self.begun.elapsed().as_secs_f64());
        lock(&self.journal).push(line);
    }

    /// Something that may never be.
    pub fn wrong(&self, what: impl std::fmt::Display) {
        self.say(format!("WRONG: {what}"));
        lock(&self.wrong).push(what.to_string());
    }

    /// Ends the run when something was wrong.
    pub fn check(&self) {
        let wrong = lock(&self.wrong).clone();
        assert!(wrong.is_empty(), "{wrong:#?}\n{}", self.journal());
    }

    /// What was asked for, and broken.
    pub fn acts(&self) -> usize {
        lock(&self.journal).len()
    }

    /// The journal, to be read beside the processes' logs.
    pub fn journal(&self) -> String {
        let mut out = format!("seed {}\n", self.seed);
        for line in lock(&self.journal).iter() {
            let _ = writeln!(out, "{line}");
        }
        out
    }
}
