//! Everything at once, at random: what was acknowledged is there, nothing runs twice or is held twice, and when nothing
//! breaks any more all comes to rest, with nothing left over (see [`crate::chaos`]).
//!
//! `HANEUL_TEST_CHAOS_SEED` plays another seed, and `HANEUL_TEST_CHAOS_FAULTS` so many faults.

use crate::chaos::World;
use crate::chaos::client::{Chaotic, SLOW};
use crate::chaos::faults::{Chaos, Joined};
use crate::chaos::truth::{self, addresses_are_held_once, watch_for_twins};
use crate::setup::{Ready, options};
use haneul_testkit::postgres::{self, Postgres};
use haneul_testkit::{Cloud, Member, Options, Wire};
use serde_json::json;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

const CLIENTS: usize = 4;
/// Faults between two rests.
const ROUND: usize = 25;

fn setting(name: &str, otherwise: u64) -> u64 {
    let wanted = std::env::var(name).ok();
    wanted.map_or(otherwise, |n| {
        n.parse().unwrap_or_else(|_| panic!("{name} is a number"))
    })
}

/// Removed when the run is over.
struct Shared(PathBuf);

impl Drop for Shared {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Control with a host, two that share disks, and one more.
async fn start(world: &Arc<World>, mut options: Options, shared: &Shared) -> (Ready, Vec<Joined>) {
    options.sets.extend(
        [
            Cloud::fleet_listen().as_str(),
            "agent.name=zero",
            "agent.underlay=192.0.2.1",
            "ha.lost_after_s=1",
        ]
        .map(str::to_owned),
    );
    let r = Ready::new(options).await;
    std::fs::create_dir(&shared.0).unwrap();
    let disks = format!("agent.shared_disks={}", shared.0.display());
    let mut hosts = Vec::new();
    for (name, shares) in [("one", true), ("two", true), ("three", false)] {
        let (url, token) = r.cloud.host_token(json!({})).await;
        let wire = Wire::to(url.trim_start_matches("https://")).await;
        let sets: &[&str] = if shares { &[&disks, "agent.lease_term_s=2"] } else { &[] };
        let member = Member::join_by(&r.cloud, name, None, sets, (&wire.url(), &token)).await;
        hosts.push(Joined::new(member, wire, shares));
    }
    let flavor = json!({"flavor": {"name": SLOW, "id": SLOW, "vcpus": 1, "ram": 128, "disk": 1}});
    r.admin.post("/compute/v2.1/flavors", &flavor).await.expect(200);
    let path = format!("/compute/v2.1/flavors/{SLOW}/os-extra_specs");
    let specs = json!({"extra_specs": {"hw:lab_move": "slow"}});
    r.admin.post(&path, &specs).await.expect(200);
    world.say("all hosts are up");
    (r, hosts)
}

/// With `postgres` instead of SQLite, that dies as well.
async fn run(seed: u64, faults: usize, postgres: Option<Postgres>) {
    let seed = setting("HANEUL_TEST_CHAOS_SEED", seed);
    let faults = setting("HANEUL_TEST_CHAOS_FAULTS", faults as u64) as usize;
    let world = Arc::new(World::new(seed));
    let shared = Shared(std::env::temp_dir().join(format!("haneul-disks-{}", haneul_core::id::hex())));
    let database = postgres.as_ref().map(|p| p.create_database("cloud").unwrap());
    let options = Options { database, ..options() };
    let (r, hosts) = start(&world, options, &shared).await;
    let mut clients: Vec<Chaotic> = (0..CLIENTS).map(|n| Chaotic::new(&world, n, &r)).collect();
    let admin = r.admin.at("compute 2.96");
    let mut chaos = Chaos::new(&world, r.cloud, hosts, postgres);
    let places = chaos.places();
    let (w, a) = (world.clone(), admin.clone());
    let looking = tokio::spawn(async move {
        loop {
            // While control is down there is no list.
            let _ = addresses_are_held_once(&w, &a).await;
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    });
    let _twins = watch_for_twins(world.clone(), places.clone());
    while chaos.faults < faults {
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let running: Vec<_> = clients
            .drain(..)
            .map(|c| tokio::spawn(c.run(stopped.clone())))
            .collect();
        chaos.rage(ROUND.min(faults - chaos.faults)).await;
        stop.send_replace(true);
        chaos.heal();
        for client in running {
            clients.push(client.await.unwrap());
        }
        // What was armed may have killed somebody in the last instant.
        chaos.heal();
        truth::rest(&world, &chaos.cloud, &admin, &places, &shared.0).await;
        for client in &mut clients {
            client.check().await;
        }
        world.check();
    }
    for client in &mut clients {
        client.end().await;
    }
    truth::rest(&world, &chaos.cloud, &admin, &places, &shared.0).await;
    for client in &mut clients {
        client.check().await;
    }
    looking.abort();
    truth::nothing_is_held(&world, &admin).await;
    world.check();
    println!("{} faults, {} acts", chaos.faults, world.acts());
}

#[tokio::test(flavor = "multi_thread")]
async fn fake_chaos_first_seed() {
    run(1, 100, None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fake_chaos_second_seed() {
    run(2, 100, None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fake_chaos_with_postgresql() {
    if !postgres::installed() {
        println!("SKIPPED: PostgreSQL is not installed");
        return;
    }
    run(4, 50, Some(Postgres::start().unwrap())).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "minutes: `cargo xtask test --full` runs it"]
async fn fake_chaos_at_length() {
    run(3, 500, None).await;
}
