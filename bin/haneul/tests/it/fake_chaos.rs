//! Everything at once, at random: what was acknowledged is there, nothing runs twice or is held twice, and when nothing
//! breaks any more all comes to rest, with nothing left over (see [`crate::chaos`]).
//!
//! `HANEUL_TEST_CHAOS_SEED` plays another seed, and `HANEUL_TEST_CHAOS_FAULTS` so many faults.

use crate::chaos::client::Menu;
use crate::chaos::fakes::{Fakes, Joined};
use crate::chaos::faults::Chaos;
use crate::chaos::{Length, World, play, setting, truth};
use crate::setup::{Ready, Shared, options};
use haneul_testkit::postgres::{self, Postgres};
use haneul_testkit::{Cloud, Member, Options, Second, Wire};
use serde_json::json;

/// Control with a host, two that share disks, and one more.
async fn start(world: &World, mut options: Options, shared: &Shared) -> (Fakes, Menu) {
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
    let disks = format!("agent.shared_disks={}", shared.0.display());
    let mut joined = Vec::new();
    for (name, shares) in [("one", true), ("two", true), ("three", false)] {
        let (url, token) = r.cloud.host_token(json!({})).await;
        let wire = Wire::to(url.trim_start_matches("https://")).await;
        let sets: &[&str] = if shares { &[&disks, "agent.lease_term_s=2"] } else { &[] };
        let member = Member::join_by(&r.cloud, name, None, sets, (&wire.url(), &token)).await;
        joined.push(Joined { member, wire, shares });
    }
    r.slow_flavor().await;
    let outside = r.outside().await;
    let admin = r.admin.at("compute 2.96");
    let mut second = None;
    if r.cloud.options.database.is_some() {
        let mut process = Second::prepare(&r.cloud);
        // Hosts keep to the first, whose links can be cut.
        process.set("fleet.url=https://127.0.0.1:1");
        process.start(&r.cloud).await;
        second = Some(process);
    }
    world.say("all hosts are up");
    let menu = Menu {
        second: second.as_ref().map(|s| s.client(&admin)),
        admin,
        create: r.server("", "tiny"),
        image: r.image,
        cards: Some(r.network),
        outside,
        slow: true,
        most: 4,
    };
    let fakes = Fakes {
        second,
        cloud: r.cloud,
        joined,
        shared: shared.0.clone(),
    };
    (fakes, menu)
}

/// With `postgres` instead of SQLite, that dies as well, and there are two processes of control.
async fn run(seed: u64, faults: usize, postgres: Option<Postgres>) {
    let world = World::new::<Fakes>(seed);
    let shared = Shared::new();
    let database = postgres.as_ref().map(|p| p.create_database("cloud").unwrap());
    let options = Options { database, ..options() };
    let (fakes, menu) = start(&world, options, &shared).await;
    let length = Length {
        clients: 4,
        faults: setting("HANEUL_TEST_CHAOS_FAULTS", faults as u64) as usize,
        round: 25,
    };
    let admin = menu.admin.clone();
    let _chaos = play(Chaos::new(&world, fakes, postgres), menu, length).await;
    truth::nothing_is_held(&world, &admin).await;
    world.check();
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
