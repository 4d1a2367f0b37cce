//! The real lane: three hosts, and all that becomes of them. What it proves: guests on different hosts reach each other,
//! move while they are used and stopped, leave a host that is emptied, and come back elsewhere when theirs is lost and
//! their disks are reached there; no guest ever runs twice, and after each step the audit finds nothing.

use crate::real_crash::qemus;
use crate::real_hosts::{COUNT, Counting, ECHO, ECHO_PORT, FIRST, Machines, Stream, only};
use crate::real_lab::{Real, cannot, speaks_ssh};
use crate::setup::id;
use haneul_testkit::{Client, Cloud, eventually};
use http::Method;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const HOSTS: [&str; 3] = ["one", "two", "three"];

/// A directory that hosts share.
struct Shared(PathBuf);

impl Drop for Shared {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Whether a process of this machine runs the guest for that agent.
fn has_process(dir: &Path, server: &str) -> bool {
    let Ok(file) = std::fs::File::open(dir.join("agent/qemu/guests").join(server).join("lock")) else {
        return false;
    };
    // Held by a guest's process for its whole life.
    nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockExclusiveNonblock).is_err()
}

struct Guest {
    name: String,
    id: String,
    fixed: String,
    floating: String,
}

/// How a host is lost.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Loss {
    /// All of its processes are killed, and its wire is cut.
    Killed,
    /// Its wire is cut; all of it lives.
    CutOff,
}

struct Three {
    /// Before the cloud, so that they go before it.
    machines: Machines,
    r: Real,
    disks: Shared,
    /// Hosts that have the directory.
    sharing: Vec<&'static str>,
    admin: Client,
    c: Client,
    router: String,
    guests: Vec<Guest>,
}

impl Three {
    /// Three hosts, and a guest on each: `a` on one, `b` on two, `c` on three. The router is on two.
    async fn start(range: &str, sharing: &[&'static str]) -> Three {
        let disks = Shared(std::env::temp_dir().join(format!("haneul-disks-{}", haneul_core::id::hex())));
        std::fs::create_dir(&disks.0).unwrap();
        let mut machines = Machines::beside(&HOSTS[1..]);
        let sets = |host: &str| match sharing.contains(&host) {
            true => vec![
                format!("agent.shared_disks={}", disks.0.display()),
                "agent.lease_term_s=4".into(),
            ],
            false => vec![],
        };
        let mut first = sets("one");
        first.extend([
            Cloud::fleet_listen().replace("127.0.0.1", FIRST),
            format!("agent.underlay={FIRST}"),
            "agent.name=one".into(),
            "ha.lost_after_s=1".into(),
        ]);
        let r = Real::with(range, first).await;
        for machine in &mut machines.others {
            let sets = sets(&machine.name);
            machine.join(&r.cloud, &sets).await;
        }
        let admin = r.admin.at("compute 2.96");
        let c = r.project("alpha").await;
        // Each goes to the host with the fewest, and the first one's host is the first.
        let body = json!({"router": {"name": "first"}});
        c.post("/network/v2.0/routers", &body).await.expect(201);
        let (net, router) = r.network(&c).await;
        let (group, _) = r.group(&c).await;
        let echo = json!({"security_group_rule": {"security_group_id": group, "direction": "ingress", "ethertype": "IPv4",
            "protocol": "tcp", "port_range_min": ECHO_PORT, "port_range_max": ECHO_PORT}});
        c.post("/network/v2.0/security-group-rules", &echo).await.expect(201);
        let mut guests = Vec::new();
        for (n, (name, host)) in ["a", "b", "c"].into_iter().zip(HOSTS).enumerate() {
            only(&admin, host).await;
            let fixed = format!("10.9.0.{}", 10 + n);
            let id = r.server(&c, name, &net, &fixed).await;
            guests.push((name.to_owned(), id, fixed));
        }
        let mut three = Three {
            machines,
            r,
            disks,
            sharing: sharing.to_vec(),
            admin,
            c,
            router,
            guests: Vec::new(),
        };
        for host in HOSTS {
            three.haneul(&["host", "enable", host]);
        }
        for ((name, id, fixed), host) in guests.into_iter().zip(HOSTS) {
            three.r.wait(&three.c, &id, "ACTIVE").await;
            let (_, floating) = three.r.floating(&three.c, &id).await;
            assert_eq!(three.host_of(&id).await, host);
            three.guests.push(Guest {
                name,
                id,
                fixed,
                floating,
            });
        }
        assert_eq!(three.routers_host().await, "two");
        three
    }

    /// What an operator says to this machine.
    fn haneul(&self, arguments: &[&str]) -> String {
        let out = self.r.cloud.command().args(arguments).output().unwrap();
        let said = String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned();
        assert!(out.status.success(), "{arguments:?}: {said}\n{}", self.r.cloud.tail());
        said
    }

    fn guest(&self, name: &str) -> &Guest {
        self.guests.iter().find(|g| g.name == name).expect("a guest")
    }

    fn dir(&self, host: &str) -> PathBuf {
        match host {
            "one" => self.r.cloud.dir.clone(),
            other => self.machines.others.iter().find(|m| m.name == other).unwrap().dir(),
        }
    }

    async fn show(&self, id: &str) -> Value {
        let s = self.admin.get(&format!("/compute/v2.1/servers/{id}")).await.expect(200);
        s["server"].clone()
    }

    async fn host_of(&self, id: &str) -> String {
        crate::setup::id(&self.show(id).await, "/OS-EXT-SRV-ATTR:host")
    }

    async fn routers_host(&self) -> String {
        let path = format!("/network/v2.0/routers/{}/l3-agents", self.router);
        id(&self.admin.get(&path).await.expect(200), "/agents/0/host")
    }

    /// What a command says in the guest, through its floating IP at the router's host.
    async fn login(&self, name: &str, command: &str) -> String {
        let address = &self.guest(name).floating;
        eventually(&format!("{command} on {name}"), Duration::from_secs(90), || async {
            let host = self.routers_host().await;
            let out = self.machines.on(&host, self.r.ssh(address, command)).output().unwrap();
            out.status
                .success()
                .then(|| String::from_utf8_lossy(&out.stdout).trim().to_owned())
        })
        .await
    }

    /// Nothing disagrees, each guest runs where the server says and nowhere else, and all reach each other.
    async fn all_is_well(&self, after: &str) {
        for g in &self.guests {
            let host = self.host_of(&g.id).await;
            eventually(
                &format!("{} runs on {host} alone after {after}", g.name),
                Duration::from_secs(20),
                || async {
                    // Of one that was moved a process is left on the source for a moment, which runs nothing any more.
                    let on: Vec<&str> = HOSTS.into_iter().filter(|h| has_process(&self.dir(h), &g.id)).collect();
                    (on == [host.as_str()]).then_some(())
                },
            )
            .await;
        }
        for from in &self.guests {
            let others = self.guests.iter().filter(|g| g.name != from.name);
            let pings: Vec<String> = others
                .map(|g| format!("ping -c1 -W2 {} > /dev/null", g.fixed))
                .collect();
            self.login(&from.name, &pings.join(" && ")).await;
        }
        self.r.cloud.audit().await;
    }

    async fn act(&self, name: &str, body: Value, status: u16) {
        let path = format!("/compute/v2.1/servers/{}/action", self.guest(name).id);
        self.admin.post(&path, &body).await.expect(status);
    }

    /// A live migration; answers how long it took.
    async fn live(&self, name: &str, to: &str) -> Duration {
        let server = &self.guest(name).id;
        let begun = Instant::now();
        self.act(
            name,
            json!({"os-migrateLive": {"host": to, "block_migration": "auto"}}),
            202,
        )
        .await;
        eventually(&format!("{name} is on {to}"), Duration::from_secs(60), || async {
            let s = self.show(server).await;
            assert!(s["status"] == "ACTIVE" || s["status"] == "MIGRATING", "{s}");
            (s["OS-EXT-SRV-ATTR:host"] == to && s["OS-EXT-STS:task_state"].is_null()).then_some(())
        })
        .await;
        begun.elapsed()
    }

    /// The same while somebody is logged in and a stream goes there and back, both through the floating IP. Figures are for
    /// reading: a busy machine is no broken promise, the session that lives and the stream that is whole are. Answers how long
    /// each took, and the stream's longest silence meanwhile.
    async fn live_in_use(&self, name: &str, hosts: &[&str]) -> Vec<(Duration, Duration)> {
        let address = &self.guest(name).floating;
        self.login(name, ECHO).await;
        let router = self.routers_host().await;
        let mut counting = Counting::start(self.machines.on(&router, self.r.ssh(address, COUNT)));
        let stream = Stream::start(self.machines.dial(&router, &format!("{address}:{ECHO_PORT}")));
        stream.goes_on();
        let mut moves = Vec::new();
        for to in hosts {
            let quiet = stream.goes_on();
            let took = self.live(name, to).await;
            counting.goes_on();
            let longest = stream.goes_on();
            let kind = if self.shares(name) { "shared" } else { "local" };
            println!(
                "live migration of {name} to {to}, {kind} disks: {took:?}; the stream's longest silence {longest:?}, {quiet:?} before"
            );
            moves.push((took, longest));
        }
        stream.end();
        println!("the session's longest silence: {:?}", counting.longest);
        moves
    }

    /// Whether its disks are in the directory.
    fn shares(&self, name: &str) -> bool {
        self.disks.0.join("servers").join(&self.guest(name).id).exists()
    }

    /// A migration of what is stopped for it: what was written is there after. It is confirmed, or taken back.
    async fn cold(&self, name: &str, to: &str, confirm: bool) {
        let server = self.guest(name).id.clone();
        let from = self.host_of(&server).await;
        self.login(name, &format!("echo {from} > /root/cold && sync")).await;
        let begun = Instant::now();
        self.act(name, json!({"migrate": {"host": to}}), 202).await;
        self.r.wait(&self.c, &server, "VERIFY_RESIZE").await;
        let moved = begun.elapsed();
        assert_eq!(self.host_of(&server).await, to);
        assert_eq!(self.login(name, "cat /root/cold").await, from);
        println!(
            "migration of {name} to {to}: {moved:?}, somebody was logged in after {:?}",
            begun.elapsed()
        );
        if confirm {
            self.act(name, json!({"confirmResize": null}), 204).await;
            self.r.wait(&self.c, &server, "ACTIVE").await;
            return;
        }
        self.login(name, "echo there >> /root/cold && sync").await;
        self.act(name, json!({"revertResize": null}), 202).await;
        self.r.wait(&self.c, &server, "ACTIVE").await;
        assert_eq!(self.host_of(&server).await, from);
        // Nothing is lost on the way back either.
        assert_eq!(self.login(name, "cat /root/cold").await, format!("{from}\nthere"));
    }

    /// Empties the host, and lets servers come again.
    async fn drain(&self, host: &str) {
        let begun = Instant::now();
        let said = self.haneul(&["host", "drain", host]);
        println!("{} in {:?}", said.trim(), begun.elapsed());
        for g in &self.guests {
            assert_ne!(self.host_of(&g.id).await, host, "{said}");
        }
        self.haneul(&["host", "enable", host]);
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
        let gone = Instant::now();
        let machine = self.machines.other(host);
        machine.cut();
        if how == Loss::Killed {
            machine.member().kill();
            for (_, id) in leave.iter().chain(&stay) {
                for pid in qemus(id) {
                    let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
                }
            }
        }
        if had_router {
            self.router_moves(host, gone).await;
        }
        for (name, id) in &leave {
            let what = format!("{name} runs on another host\n{}", self.r.cloud.tail());
            let now = eventually(&what, Duration::from_secs(60), || async {
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
/// ways and twice; once with disks that all share, once with each host's own.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes some ten minutes"]
async fn real_three_hosts_at_length() {
    if let Some(why) = cannot() {
        println!("SKIPPED: {why}");
        return;
    }
    for (range, sharing) in [("172.31.222.0/24", &HOSTS[..]), ("172.31.223.0/24", &[])] {
        let mut t = Three::start(range, sharing).await;
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
