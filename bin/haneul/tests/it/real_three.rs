//! The real lane's three hosts, with a guest on each: what is done to them, and what must be true of them then.

use crate::real_crash::marked;
use crate::real_hosts::{COUNT, Counting, ECHO, ECHO_PORT, FIRST, Machines, Stream, only};
use crate::real_lab::Real;
use crate::setup::{Shared, id};
use haneul_testkit::{Client, Cloud, eventually};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub const HOSTS: [&str; 3] = ["one", "two", "three"];

/// Whether a process of this machine runs the guest for that agent.
pub fn has_process(dir: &Path, server: &str) -> bool {
    marked(dir).iter().any(|(_, id)| id == server)
}

/// A guest that is looked after.
pub struct Guest {
    pub name: String,
    pub id: String,
    pub fixed: String,
    pub floating: String,
}

/// CPUs, memory in KiB, disk in sectors.
const SIZES: &str = "nproc; awk '/MemTotal/ { print $2 }' /proc/meminfo; cat /sys/block/vda/size";

/// The same in CPUs, MiB and GiB; of the memory a kernel keeps some for itself.
fn sizes(said: &str) -> (u64, u64, u64) {
    let all: Vec<u64> = said.lines().map(|l| l.trim().parse().expect("a number")).collect();
    (all[0], all[1] >> 10, all[2] >> 21)
}

/// A guest that is logged in to and has a stream.
pub struct InUse {
    counting: Counting,
    stream: Stream,
}

impl InUse {
    /// Neither has ended, and nothing was lost; answers the stream's longest silence since this was asked last.
    pub fn goes_on(&mut self) -> Duration {
        self.counting.goes_on();
        self.stream.goes_on()
    }

    pub fn end(self) {
        self.stream.end();
        println!("the session's longest silence: {:?}", self.counting.longest);
    }
}

/// See the module.
pub struct Three {
    /// Before the cloud, so that they go before it.
    pub machines: Machines,
    pub r: Real,
    pub disks: Shared,
    /// Hosts that have the directory.
    pub sharing: Vec<&'static str>,
    pub admin: Client,
    pub c: Client,
    router: String,
    pub guests: Vec<Guest>,
    /// A lost host's guests run on another one after so long at the most.
    pub elsewhere_within: Duration,
}

impl Three {
    /// Three hosts, and a guest on each: `a` on one, `b` on two, `c` on three. The router is on two. They are less patient
    /// with each other than others are.
    pub async fn start(range: &str, sharing: &[&'static str]) -> Three {
        Three::start_with(range, sharing, vec![]).await
    }

    /// The same with more settings of control's.
    pub async fn start_with(range: &str, sharing: &[&'static str], mut more: Vec<String>) -> Three {
        more.push("ha.lost_after_s=1".into());
        Three::start_by(range, sharing, &["agent.lease_term_s=4"], more).await
    }

    /// The same with these settings of hosts that share disks, and of control's.
    pub async fn start_by(range: &str, sharing: &[&'static str], leases: &[&str], more: Vec<String>) -> Three {
        let disks = Shared::new();
        let mut machines = Machines::beside(&HOSTS[1..]);
        let sets = |host: &str| match sharing.contains(&host) {
            true => {
                let mut all = vec![format!("agent.shared_disks={}", disks.0.display())];
                all.extend(leases.iter().map(|s| (*s).to_owned()));
                all
            }
            false => vec![],
        };
        let mut first = sets("one");
        first.extend(more);
        first.extend([
            Cloud::fleet_listen().replace("127.0.0.1", FIRST),
            format!("agent.underlay={FIRST}"),
            "agent.name=one".into(),
        ]);
        let r = Real::with(range, first).await;
        for machine in &mut machines.others {
            let sets = sets(&machine.name);
            machine.join(&r.cloud, &sets).await;
        }
        let admin = r.admin.at("compute 2.96");
        let c = r.project("alpha").await;
        let wide = json!({"flavor": {"name": "wide", "id": "wide", "vcpus": 2, "ram": 192, "disk": 2}});
        admin.post("/compute/v2.1/flavors", &wide).await.expect(200);
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
            elsewhere_within: Duration::from_secs(60),
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
    pub fn haneul(&self, arguments: &[&str]) -> String {
        let out = self.r.cloud.command().args(arguments).output().unwrap();
        let said = String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned();
        assert!(out.status.success(), "{arguments:?}: {said}\n{}", self.r.cloud.tail());
        said
    }

    pub fn guest(&self, name: &str) -> &Guest {
        self.guests.iter().find(|g| g.name == name).expect("a guest")
    }

    pub fn dir(&self, host: &str) -> PathBuf {
        match host {
            "one" => self.r.cloud.dir.clone(),
            other => self.machines.others.iter().find(|m| m.name == other).unwrap().dir(),
        }
    }

    pub async fn show(&self, id: &str) -> Value {
        let s = self.admin.get(&format!("/compute/v2.1/servers/{id}")).await.expect(200);
        s["server"].clone()
    }

    pub async fn host_of(&self, id: &str) -> String {
        crate::setup::id(&self.show(id).await, "/OS-EXT-SRV-ATTR:host")
    }

    pub async fn router(&self) -> Value {
        let path = format!("/network/v2.0/routers/{}", self.router);
        self.admin.get(&path).await.expect(200)["router"].clone()
    }

    pub async fn routers_host(&self) -> String {
        let path = format!("/network/v2.0/routers/{}/l3-agents", self.router);
        id(&self.admin.get(&path).await.expect(200), "/agents/0/host")
    }

    /// What a command says in the guest, through its floating IP at the router's host.
    pub async fn login(&self, name: &str, command: &str) -> String {
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

    /// The guest reaches all of these addresses.
    pub async fn reaches(&self, name: &str, addresses: &[&str]) {
        let ping = format!(
            "for to in {}; do ping -c1 -W2 $to > /dev/null || echo $to; done",
            addresses.join(" ")
        );
        let begun = Instant::now();
        loop {
            let missed = self.login(name, &ping).await;
            if missed.is_empty() {
                return;
            }
            if begun.elapsed() > Duration::from_secs(90) {
                let seen = self.consoles(&missed).await;
                panic!("{name} does not reach {missed}\n{seen}{}", self.r.cloud.tail());
            }
        }
    }

    /// Where the servers with these addresses are and what they wrote last: one that is not reached may not be up yet.
    async fn consoles(&self, addresses: &str) -> String {
        let mut said = String::new();
        let all = self
            .admin
            .get("/compute/v2.1/servers/detail?all_tenants=1")
            .await
            .expect(200);
        for s in all["servers"].as_array().into_iter().flatten() {
            let of = s["addresses"].to_string();
            if !addresses.split_whitespace().any(|a| of.contains(&format!("\"{a}\""))) {
                continue;
            }
            let path = format!("/compute/v2.1/servers/{}/action", id(s, "/id"));
            let body = json!({"os-getConsoleOutput": {"length": 8}});
            let console = self.admin.post(&path, &body).await;
            said += &format!(
                "{} is {} ({}) on {}, changed {}:\n{}\n",
                s["id"],
                s["status"],
                s["OS-EXT-STS:task_state"],
                s["OS-EXT-SRV-ATTR:host"],
                s["updated"],
                console.body["output"].as_str().unwrap_or(&console.text)
            );
        }
        said
    }

    /// Nothing disagrees, each guest runs where the server says and nowhere else, and all reach each other.
    pub async fn all_is_well(&self, after: &str) {
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
            let others: Vec<&str> = others.map(|g| g.fixed.as_str()).collect();
            self.reaches(&from.name, &others).await;
        }
        self.r.cloud.audit().await;
    }

    pub async fn act(&self, name: &str, body: Value, status: u16) {
        let path = format!("/compute/v2.1/servers/{}/action", self.guest(name).id);
        self.admin.post(&path, &body).await.expect(status);
    }

    /// A live migration; answers how long it took.
    pub async fn live(&self, name: &str, to: &str) -> Duration {
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

    /// Somebody logs in and a stream goes there and back, both through the floating IP.
    pub async fn begin_use(&self, name: &str) -> InUse {
        let address = &self.guest(name).floating;
        self.login(name, ECHO).await;
        let router = self.routers_host().await;
        let counting = Counting::start(self.machines.on(&router, self.r.ssh(address, COUNT)));
        let stream = Stream::start(self.machines.dial(&router, &format!("{address}:{ECHO_PORT}")));
        stream.goes_on();
        InUse { counting, stream }
    }

    /// Live migrations of a guest in use. Figures are for reading: a busy machine is no broken promise, the session that
    /// lives and the stream that is whole are. Answers how long each took, and the stream's longest silence meanwhile.
    pub async fn live_in_use(&self, name: &str, hosts: &[&str]) -> Vec<(Duration, Duration)> {
        let (mut used, mut moves) = (self.begin_use(name).await, Vec::new());
        for to in hosts {
            let quiet = used.goes_on();
            let took = self.live(name, to).await;
            let longest = used.goes_on();
            let kind = if self.shares(name) { "shared" } else { "local" };
            println!(
                "live migration of {name} to {to}, {kind} disks: {took:?}; the stream's longest silence {longest:?}, {quiet:?} before"
            );
            moves.push((took, longest));
        }
        used.end();
        moves
    }

    /// Whether its disks are in the directory.
    pub fn shares(&self, name: &str) -> bool {
        self.disks.0.join("servers").join(&self.guest(name).id).exists()
    }

    /// A migration of what is stopped for it: what was written is there after. It is confirmed, or taken back.
    pub async fn cold(&self, name: &str, to: &str, confirm: bool) {
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

    /// A resize for which the guest's host has no room: what it has on the other host is what the flavor says, and what was
    /// written is there. It is confirmed, or taken back; nothing of it is left on the host where it is not.
    pub async fn resize(&self, name: &str, confirm: bool) {
        let server = self.guest(name).id.clone();
        let from = self.host_of(&server).await;
        self.login(name, &format!("echo {from} > /root/sized && sync")).await;
        let before = sizes(&self.login(name, SIZES).await);
        let ratio = self.cpu_ratio(&from, 0.5).await;
        self.act(name, json!({"resize": {"flavorRef": "wide"}}), 202).await;
        self.r.wait(&self.c, &server, "VERIFY_RESIZE").await;
        self.cpu_ratio(&from, ratio).await;
        let to = self.host_of(&server).await;
        assert_ne!(to, from, "its host has room for one CPU alone");
        assert_eq!(self.login(name, "cat /root/sized").await, from);
        let (cpus, mib, disk_gib) = sizes(&self.login(name, SIZES).await);
        assert_eq!((cpus, disk_gib), (2, 2));
        // A kernel keeps more of more memory.
        assert!(
            (56..=64).contains(&(mib - before.1)),
            "{mib} MiB of 192, {} of 128",
            before.1
        );
        let mut left = &from;
        if confirm {
            self.act(name, json!({"confirmResize": null}), 204).await;
        } else {
            self.login(name, "echo there >> /root/sized && sync").await;
            self.act(name, json!({"revertResize": null}), 202).await;
            left = &to;
        }
        self.r.wait(&self.c, &server, "ACTIVE").await;
        if !confirm {
            assert_eq!(self.host_of(&server).await, from);
            assert_eq!(self.login(name, "cat /root/sized").await, format!("{from}\nthere"));
            let is = sizes(&self.login(name, SIZES).await);
            // A disk that grew stays so.
            assert_eq!((is.0, is.2), (before.0, 2));
            assert!(is.1.abs_diff(before.1) < 2, "{} MiB, {} before", is.1, before.1);
        }
        let dir = self.dir(left);
        eventually(
            &format!("nothing of {name} is left on {left}"),
            Duration::from_secs(20),
            || async {
                let of = ["agent/qemu/guests", "agent/block/disks"].map(|d| dir.join(d).join(&server).exists());
                (!of.contains(&true) && !has_process(&dir, &server)).then_some(())
            },
        )
        .await;
        println!(
            "{name} was resized from {from} to {to}, and {}",
            if confirm { "stays" } else { "is back" }
        );
    }

    /// Sets how many servers' CPUs a CPU of the host is; answers what it was.
    async fn cpu_ratio(&self, host: &str, ratio: f64) -> f64 {
        let all = self.admin.get("/placement/resource_providers").await.expect(200);
        let all = all["resource_providers"].as_array().unwrap().clone();
        let provider = all.iter().find(|p| p["name"] == host).expect("the host's provider");
        let path = format!(
            "/placement/resource_providers/{}/inventories/VCPU",
            provider["uuid"].as_str().unwrap()
        );
        let mut inventory = self.admin.get(&path).await.expect(200);
        let before = inventory["allocation_ratio"].as_f64().unwrap();
        inventory["allocation_ratio"] = ratio.into();
        self.admin.put(&path, &inventory).await.expect(200);
        before
    }

    /// Empties the host, and lets servers come again.
    pub async fn drain(&self, host: &str) {
        let begun = Instant::now();
        let said = self.haneul(&["host", "drain", host]);
        println!("{} in {:?}", said.trim(), begun.elapsed());
        for g in &self.guests {
            assert_ne!(self.host_of(&g.id).await, host, "{said}");
        }
        self.haneul(&["host", "enable", host]);
    }

    /// Deletes its guests.
    pub async fn end(&mut self) {
        for g in self.guests.drain(..) {
            let path = format!("/compute/v2.1/servers/{}", g.id);
            assert_eq!(self.c.delete(&path).await.status, 204);
        }
    }
}
