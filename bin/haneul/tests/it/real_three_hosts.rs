//! The real lane: three hosts, and all that becomes of them. What it proves: guests on different hosts reach each other,
//! move while they are used and stopped, leave a host that is emptied, and come back elsewhere when theirs is lost and
//! their disks are reached there; no guest ever runs twice, and after each step the audit finds nothing.

use crate::real_crash::{end_guests, marked};
use crate::real_lab::{cannot, speaks_ssh};
use crate::real_three::{HOSTS, InUse, Three, has_process};
use crate::setup::id;
use haneul_testkit::{eventually, next_release};
use http::Method;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// How a host is lost.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Loss {
    /// All of its processes are killed, and its wire is cut.
    Killed,
    /// Its wire is cut; all of it lives.
    CutOff,
}

impl Three {
    /// Control, and everything of the host `two`, is replaced by another release under its guest `b` and under the router;
    /// its process, its system and what is open to it go on.
    async fn replace(&mut self, binary: &Path, release: &str, used: &mut InUse) {
        let (b, two) = (self.guest("b").id.clone(), self.dir("two"));
        let process = || {
            marked(&two)
                .into_iter()
                .find(|(_, id)| *id == b)
                .expect("it runs on two")
        };
        let before = process();
        let cloud = &mut self.r.cloud;
        cloud.options.binary = binary.to_owned();
        cloud.stop_serve();
        cloud.start_serve();
        cloud.ready().await;
        let member = self.machines.other("two").member();
        member.binary = binary.to_owned();
        member.kill_lease();
        member.start_lease();
        member.stop_agent();
        member.start_agent();
        // It is up by the agent of before until that one's end is noticed.
        let what = format!("the agent of release {release} is connected");
        eventually(&what, Duration::from_secs(60), || async {
            let seen = cloud.admin(Method::GET, "/admin/v1/hosts/two").await?;
            let host = &seen["host"];
            (host["release"] == release && host["state"] == "up").then_some(())
        })
        .await;
        used.goes_on();
        assert_eq!(process(), before, "it is the same process");
    }

    /// There and back; with the newer release the guest moves to a host of the older one, and back.
    async fn upgrade(&mut self) {
        let (begun, old) = (Instant::now(), self.r.cloud.options.binary.clone());
        let new = next_release(&old, &self.r.cloud.dir);
        let mut used = self.begin_use("b").await;
        self.replace(&new, "0.2.0", &mut used).await;
        for to in ["three", "two"] {
            self.live("b", to).await;
            used.goes_on();
        }
        self.replace(&old, haneul_core::release::name(), &mut used).await;
        used.end();
        println!("a release came and went in {:?}", begun.elapsed());
    }

    /// A host is lost, and is back: those of its guests whose disks others reach start there, the others wait for it.
    async fn lose(&mut self, host: &str, how: Loss) {
        let (mut leave, mut stay) = (Vec::new(), Vec::new());
        for g in &self.guests {
            if self.host_of(&g.id).await == host {
                let list = if self.shares(&g.name) { &mut leave } else { &mut stay };
                list.push((g.name.clone(), g.id.clone()));
            }
        }
        let elsewhere = self.sharing.iter().any(|h| *h != host);
        assert!(leave.is_empty() || elsewhere);
        for (name, _) in leave.iter().chain(&stay) {
            self.login(name, &format!("echo {host} > /root/lost && sync")).await;
        }
        let had_router = self.routers_host().await == host;
        let there = self.dir(host);
        let outer = self.outer().await;
        if had_router {
            let what = format!("{host} answers for its router");
            eventually(&what, Duration::from_secs(20), || async {
                self.answers(host, &outer).then_some(())
            })
            .await;
        }
        let gone = Instant::now();
        let machine = self.machines.other(host);
        machine.cut();
        if how == Loss::Killed {
            machine.member().kill();
            end_guests(&there);
        }
        if had_router {
            self.router_moves(host, gone).await;
            if how == Loss::CutOff && self.sharing.contains(&host) {
                self.router_ends(host, &outer, gone).await;
            }
        }
        for (name, id) in &leave {
            let what = format!("{name} runs on another host\n{}", self.r.cloud.tail());
            let left = self.elsewhere_within.saturating_sub(gone.elapsed());
            let now = eventually(&what, left, || async {
                let all = HOSTS.map(|h| (h, has_process(&self.dir(h), id)));
                let on: Vec<&str> = all.into_iter().filter(|h| h.1).map(|h| h.0).collect();
                assert!(on.len() < 2, "{name} runs on {on:?}");
                on.into_iter().find(|h| *h != host)
            })
            .await;
            self.r.wait(&self.c, id, "ACTIVE").await;
            println!("{host} was {how:?}: {name} runs on {now} after {:?}", gone.elapsed());
        }
        for (name, _) in &leave {
            assert_eq!(self.login(name, "cat /root/lost").await, host);
            println!("somebody was logged in to {name} after {:?}", gone.elapsed());
        }
        for (_, id) in &stay {
            assert_eq!(self.host_of(id).await, host, "its disks are there alone");
        }
        for (name, id) in &leave {
            assert!(!has_process(&there, id), "{name} runs on the lost host");
        }
        // What is on it cannot be compared; nothing else is wrong.
        eventually(
            "the audit finds the lost host alone",
            Duration::from_secs(10),
            || async {
                let found = self.r.cloud.admin(Method::GET, "/admin/v1/audit").await?;
                let found = found["findings"].as_array()?;
                let what = format!("host {host} (");
                (found.len() == 1 && found[0]["what"].as_str()?.starts_with(&what)).then_some(())
            },
        )
        .await;
        let machine = self.machines.other(host);
        machine.mend();
        let member = machine.member();
        // What ended would be started again by systemd: of a host that was cut off that is the agent, if anything.
        if how == Loss::Killed {
            member.start_lease();
            member.start_agent();
        } else {
            member.revive();
        }
        member.is(&self.r.cloud, "up").await;
        for (name, id) in &leave {
            let left = there.join("agent/qemu/guests").join(id);
            let what = format!("nothing of {name} is left on {host}");
            eventually(&what, Duration::from_secs(30), || async {
                (!left.exists()).then_some(())
            })
            .await;
        }
        for (name, id) in &stay {
            self.r.wait(&self.c, id, "ACTIVE").await;
            assert_eq!(self.login(name, "cat /root/lost").await, host);
        }
    }

    /// The router's outer address.
    async fn outer(&self) -> String {
        let router = self.router().await;
        id(&router, "/external_gateway_info/external_fixed_ips/0/ip_address")
    }

    /// Whether somebody answers at this address in the network of a host.
    fn answers(&self, host: &str, address: &str) -> bool {
        let mut ping = Command::new("ping");
        ping.args(["-c1", "-W1", address]);
        self.machines.on(host, ping).output().unwrap().status.success()
    }

    /// The host that was cut off answers no more for the router that another one has: its lease has ended, and its agent
    /// with it, which systemd starts again.
    async fn router_ends(&mut self, host: &str, outer: &str, gone: Instant) {
        let this: &Three = self;
        eventually("the router's new host answers", Duration::from_secs(20), || async {
            let now = this.routers_host().await;
            this.answers(&now, outer).then_some(())
        })
        .await;
        // One that is lost on a busy machine is no end.
        let mut missed = 0;
        while missed < 5 {
            missed = if self.answers(host, outer) { 0 } else { missed + 1 };
            assert!(
                gone.elapsed() < Duration::from_secs(90),
                "{host} answers for the router still"
            );
            self.machines.other(host).member().revive();
        }
        println!("{host} answered no more for its router after {:?}", gone.elapsed());
    }

    /// The routers of a host that is gone answer at another one.
    async fn router_moves(&self, gone_from: &str, gone: Instant) {
        let survivor = "a";
        let at = eventually("the router is elsewhere", Duration::from_secs(20), || async {
            let now = self.routers_host().await;
            (now != gone_from).then_some(now)
        })
        .await;
        // Not its guest: that one is reached by nobody now.
        if self.host_of(&self.guest(survivor).id).await == gone_from {
            return;
        }
        if at == "one" {
            let address = self.guest(survivor).floating.clone();
            eventually("it answers", Duration::from_secs(20), || async {
                speaks_ssh(&address).then_some(())
            })
            .await;
        } else {
            self.login(survivor, "true").await;
        }
        println!("{survivor} was reached through {at} after {:?}", gone.elapsed());
    }
}

/// In short: one host has disks of its own, the other two share theirs.
#[tokio::test(flavor = "multi_thread")]
async fn real_three_hosts() {
    if let Some(why) = cannot() {
        println!("SKIPPED: {why}");
        return;
    }
    let mut t = Three::start("172.31.221.0/24", &["two", "three"]).await;
    let seen = "timeout 20 wget -q -O - http://169.254.169.254/openstack/latest/meta_data.json";
    for g in &t.guests {
        // Its address is from DHCP, its name from its own host.
        assert_eq!(t.login(&g.name, "hostname").await, g.name);
        let seen = t.login(&g.name, seen).await;
        assert!(seen.contains(&g.id), "{seen}");
    }
    t.all_is_well("the start").await;
    t.upgrade().await;
    t.all_is_well("an upgrade, and back").await;
    t.live_in_use("a", &["two"]).await;
    t.all_is_well("a live migration").await;
    t.live_in_use("b", &["three", "two", "three"]).await;
    t.all_is_well("live migrations on shared disks").await;
    t.cold("a", "one", true).await;
    t.all_is_well("a migration").await;
    t.drain("three").await;
    t.all_is_well("the emptying of a host").await;
    t.lose("two", Loss::Killed).await;
    t.all_is_well("the loss of a host").await;
    t.lose("three", Loss::CutOff).await;
    t.all_is_well("a host that was cut off").await;
}

/// At length: every server visits every host in every way, every host is emptied, and those that can be lost are, by both
/// ways and twice; once with disks that all share, once with each host's own. With the settings that everybody has, a lost
/// host's guests run elsewhere within 30 s.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes some ten minutes"]
async fn real_three_hosts_at_length() {
    if let Some(why) = cannot() {
        println!("SKIPPED: {why}");
        return;
    }
    for (range, sharing) in [("172.31.222.0/24", &HOSTS[..]), ("172.31.223.0/24", &[])] {
        let mut t = Three::start_by(range, sharing, &[], vec![]).await;
        t.elsewhere_within = Duration::from_secs(30);
        t.all_is_well("the start").await;
        for round in ["first", "second"] {
            println!("the {round} round; hosts that share their disks: {sharing:?}");
            for name in ["a", "b", "c"] {
                let home = t.host_of(&t.guest(name).id).await;
                t.live_in_use(name, &[after(&home), after(after(&home)), &home]).await;
                t.all_is_well("live migrations").await;
                t.cold(name, after(&home), round == "first").await;
                t.all_is_well("a migration").await;
            }
            t.resize("a", round == "second").await;
            t.all_is_well("a resize").await;
            for host in HOSTS {
                t.drain(host).await;
                t.all_is_well("the emptying of a host").await;
            }
            for (host, how) in [
                ("two", Loss::Killed),
                ("three", Loss::CutOff),
                ("two", Loss::CutOff),
                ("three", Loss::Killed),
            ] {
                t.lose(host, how).await;
                t.all_is_well("the loss of a host").await;
            }
        }
    }
}

/// What `cargo xtask bench --only moving` puts into its table.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "figures, for reading"]
async fn real_live_migration_in_figures() {
    if let Some(why) = cannot() {
        println!("SKIPPED: {why}");
        return;
    }
    let t = Three::start("172.31.224.0/24", &HOSTS).await;
    // The first one makes the network on its new host; from then on both have it.
    let moves = t
        .live_in_use(
            "a",
            &["two", "one", "two", "one", "two", "one", "two", "one", "two", "one"],
        )
        .await;
    let ms = |all: Vec<u128>| all.iter().map(u128::to_string).collect::<Vec<_>>().join(" ");
    println!("samples took {}", ms(moves.iter().map(|m| m.0.as_millis()).collect()));
    println!(
        "samples silence {}",
        ms(moves.iter().map(|m| m.1.as_millis()).collect())
    );
    let mut still = Vec::new();
    for host in ["one", "two"] {
        let log = std::fs::read_to_string(t.dir(host).join("log/agent.log")).unwrap();
        let figures = log.split("stood_still_ms=").skip(1);
        still.extend(figures.filter_map(|rest| rest.split_whitespace().next()?.parse::<u128>().ok()));
    }
    assert_eq!(
        still.len(),
        moves.len(),
        "each host says how long the guests that left it stood still"
    );
    println!("samples still {}", ms(still));
    t.all_is_well("live migrations").await;
}

/// The next host in the round.
fn after(host: &str) -> &'static str {
    let at = HOSTS.iter().position(|h| *h == host).unwrap();
    HOSTS[(at + 1) % HOSTS.len()]
}
