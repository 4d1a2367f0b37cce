//! A randomized run: clients that ask for all that can be done to servers, while whatever can die dies and comes back.
//!
//! A run has a seed, from which each client and the sequence of faults draw their numbers; so it is the same again as far
//! as processes that run beside each other allow. What was asked and what was broken is in a journal, with the time,
//! which a run that went wrong prints.

pub mod client;
pub mod fakes;
pub mod faults;
pub mod guests;
pub mod truth;

use client::{Chaotic, Menu};
use faults::Chaos;
use haneul_testkit::{Cloud, Member, Second};
use std::fmt::Write as _;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use truth::Place;

/// A cloud that is played with: control with a host on its own machine, and hosts that joined.
pub trait Lab {
    /// How many times longer everything takes than with fakes: clients, faults and what lasts go by it.
    const PACE: u32;
    /// Fault points that hosts pass begin with these.
    const POINTS: &'static [&'static str];

    fn cloud(&mut self) -> &mut Cloud;
    /// Another process of control, on a machine of its own, and the cloud that it serves.
    fn second(&mut self) -> Option<(&mut Second, &Cloud)> {
        None
    }
    fn members(&self) -> usize;
    fn member(&mut self, n: usize) -> &mut Member;
    /// Whether this member has a lease.
    fn shares(&self, n: usize) -> bool;
    /// Takes a member's link away, or gives it back.
    fn link(&mut self, n: usize, up: bool);
    /// What a power cut does to the guests of a host whose processes are gone.
    fn lose_guests(dir: &Path);
    /// All hosts.
    fn places(&mut self) -> Vec<Place>;
    /// Where disks are shared.
    fn shared_disks(&self) -> &Path;
    /// Guests that run now, with where they do. A round of looking ends before the next one begins.
    fn who_runs(places: &[Place]) -> truth::Running;
    /// What else is true of servers when all is at rest.
    async fn at_rest(&mut self, world: &World, clients: &[Chaotic]);
}

/// Which seed is played.
const SEED: &str = "HANEUL_TEST_CHAOS_SEED";

/// How long a run is.
pub struct Length {
    pub clients: usize,
    pub faults: usize,
    /// Faults between two rests.
    pub round: usize,
}

/// A whole run; whatever goes wrong ends it.
pub async fn play<L: Lab>(mut chaos: Chaos<L>, menu: Menu, length: Length) -> Chaos<L> {
    let world = chaos.world.clone();
    let _read = Reader(world.clone());
    let mut clients: Vec<Chaotic> = (0..length.clients).map(|n| Chaotic::new(&world, n, &menu)).collect();
    let places = chaos.lab.places();
    let (w, a) = (world.clone(), menu.admin.clone());
    let looking = tokio::spawn(async move {
        loop {
            // While control is down there is no list.
            let _ = truth::addresses_are_held_once(&w, &a).await;
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    });
    let twins = truth::watch_for_twins(world.clone(), places, L::who_runs);
    while chaos.faults < length.faults {
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let running: Vec<_> = clients
            .drain(..)
            .map(|c| tokio::spawn(c.run(stopped.clone())))
            .collect();
        chaos.rage(length.round.min(length.faults - chaos.faults)).await;
        stop.send_replace(true);
        chaos.heal();
        for client in running {
            clients.push(client.await.unwrap());
        }
        // What was armed may have killed somebody in the last instant.
        chaos.heal();
        if let Some((second, _)) = chaos.lab.second() {
            second.answers().await;
        }
        truth::rest(&world, &mut chaos.lab, &menu.admin).await;
        for client in &mut clients {
            client.check().await;
        }
        world.check();
        chaos.lab.at_rest(&world, &clients).await;
        world.check();
    }
    for client in &mut clients {
        client.end().await;
    }
    truth::rest(&world, &mut chaos.lab, &menu.admin).await;
    for client in &mut clients {
        client.check().await;
    }
    world.check();
    looking.abort();
    drop(twins);
    println!("{} faults, {} acts", chaos.faults, world.acts());
    chaos
}

/// Prints the journal of a run that goes wrong, or whose seed somebody has chosen.
struct Reader(Arc<World>);

impl Drop for Reader {
    fn drop(&mut self) {
        if std::thread::panicking() || std::env::var_os(SEED).is_some() {
            println!("{}", self.0.journal());
        }
    }
}

/// A number that the environment may set.
pub fn setting(name: &str, otherwise: u64) -> u64 {
    let wanted = std::env::var(name).ok();
    wanted.map_or(otherwise, |n| {
        n.parse().unwrap_or_else(|_| panic!("{name} is a number"))
    })
}

/// What all parts of a run share.
pub struct World {
    pub seed: u64,
    pub pace: u32,
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
    pub fn new<L: Lab>(seed: u64) -> Arc<World> {
        Arc::new(World {
            seed: setting(SEED, seed),
            pace: L::PACE,
            begun: Instant::now(),
            journal: Mutex::default(),
            wrong: Mutex::default(),
            gate: tokio::sync::RwLock::new(()),
        })
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
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    /// What was asked for, and broken.
    pub fn acts(&self) -> usize {
        lock(&self.journal).len()
    }

    /// The journal, to be read beside the processes' logs.
    fn journal(&self) -> String {
        let mut out = format!("seed {}\n", self.seed);
        for line in lock(&self.journal).iter() {
            let _ = writeln!(out, "{line}");
        }
        out
    }
}
