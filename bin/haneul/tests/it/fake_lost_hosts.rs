//! Hosts that are lost, and hosts that only seem so: what others can reach of their servers starts there, once, and not a
//! moment before the lost one has provably ended it.

use crate::setup::{Ready, Shared, id, options, record, runs_on};
use haneul_testkit::{Cloud, Member, Wire, eventually};
use http::Method;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);

/// Fault points on the way of an evacuation, and whether control passes them, or the host that takes the servers.
pub const POINTS: [(&str, bool); 5] = [
    ("fleet.host.watched", true),
    ("agent.fence.seen", false),
    ("fleet.host.ended", true),
    ("compute.evacuate.committed", true),
    ("agent.guest.bound", false),
];

/// Control with a host of its own, and two hosts that share disks; `one` is connected by a wire that can be cut.
pub struct Lab {
    pub r: Ready,
    pub one: Member,
    pub two: Member,
    pub wire: Wire,
    shared: Shared,
    /// Where `one` has the shared directory: a link, which a test can turn away from it.
    mount: PathBuf,
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.mount);
    }
}

impl Lab {
    pub async fn new() -> Lab {
        Lab::with(&[], &[]).await
    }

    /// The same, with these settings for hosts `one` and `two`.
    pub async fn with(one: &[&str], two: &[&str]) -> Lab {
        let mut options = options();
        options.sets.push(Cloud::fleet_listen());
        options.sets.push("agent.underlay=192.0.2.1".into());
        options.sets.push("ha.lost_after_s=1".into());
        let r = Ready::new(options).await;
        let shared = Shared::new();
        let mount = shared.0.with_extension("mount");
        std::os::unix::fs::symlink(&shared.0, &mount).unwrap();
        let disks = [&mount, &shared.0].map(|d| format!("agent.shared_disks={}", d.display()));
        let (url, token) = r.cloud.host_token(json!({})).await;
        let wire = Wire::to(url.trim_start_matches("https://")).await;
        let [one, two] = [(&disks[0], one), (&disks[1], two)]
            .map(|(disks, more)| [&[disks.as_str(), "agent.lease_term_s=2"], more].concat());
        let one = Member::join_by(&r.cloud, "one", None, &one, (&wire.url(), &token)).await;
        let two = Member::join(&r.cloud, "two", None, &two).await;
        Lab {
            r,
            one,
            two,
            wire,
            shared,
            mount,
        }
    }

    /// Host `one` loses its storage, as one whose NFS was unmounted under it, or has it again.
    pub fn storage(&self, there: bool) {
        let empty = self.one.dir.join("empty");
        std::fs::create_dir_all(&empty).unwrap();
        let next = self.mount.with_extension("next");
        std::os::unix::fs::symlink(if there { &self.shared.0 } else { &empty }, &next).unwrap();
        std::fs::rename(&next, &self.mount).unwrap();
    }

    /// A server that runs on host `one`.
    pub async fn server(&self, name: &str) -> String {
        self.server_of(name, "tiny").await
    }

    async fn server_of(&self, name: &str, flavor: &str) -> String {
        let mut body = self.r.server(name, flavor);
        body["server"]["availability_zone"] = "nova:one".into();
        let made = self.r.admin.post("/compute/v2.1/servers", &body).await.expect(202);
        let server = id(&made, "/server/id");
        self.r.wait(&server, "ACTIVE").await;
        server
    }

    /// Waits until the server is ACTIVE on a host.
    pub async fn is_on(&self, server: &str, host: &str) {
        eventually(&format!("{server} runs on {host}"), LIMIT, || async {
            let s = self.r.show(server).await?;
            let there = s["OS-EXT-SRV-ATTR:host"] == host && s["status"] == "ACTIVE";
            assert!(self.running(server).len() < 2, "the guest runs twice");
            there.then_some(())
        })
        .await;
        assert_eq!(self.running(server), [host]);
    }

    /// Hosts that run the guest at one instant, as their fake hypervisors have it on record.
    pub fn running(&self, server: &str) -> Vec<&str> {
        let members = [&self.one, &self.two];
        let at = runs_on(&members.map(|m| m.dir.as_path()), server);
        at.into_iter().map(|n| members[n].name.as_str()).collect()
    }

    /// Host `one` is back, and keeps nothing of a server that runs on `two` by now.
    async fn one_comes_back_without(&mut self, server: &str, when: &str) {
        self.one.start_lease();
        self.one.start_agent();
        self.one_is_back_without(server, when).await;
    }

    /// The supervisor of a host that was cut off has ended its agent with the lease.
    pub async fn one_is_connected_without(&mut self, server: &str, when: &str) {
        self.wire.mend();
        self.one.kill_agent();
        self.one.start_agent();
        self.one_is_back_without(server, when).await;
    }

    async fn one_is_back_without(&mut self, server: &str, when: &str) {
        self.one.is(&self.r.cloud, "up").await;
        eventually("nothing of it is left on the first host", LIMIT, || async {
            state(&self.one.dir, server).is_none().then_some(())
        })
        .await;
        assert_eq!(self.running(server), ["two"], "{when}");
        self.r.cloud.audit().await;
    }

    /// What control says of the lost host, once it says this.
    async fn said(&self, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        eventually(what, LIMIT, || async {
            let v = self.r.cloud.admin(Method::GET, "/admin/v1/hosts/one").await?;
            is(&v["host"]["watched"]).then(|| v["host"].clone())
        })
        .await
    }
}

pub fn state(dir: &Path, server: &str) -> Option<String> {
    record(dir, server)?["state"].as_str().map(str::to_owned)
}

/// The machine is gone, with all its processes: its servers run on the other one. When it is back it has nothing of them,
/// and may run servers again.
#[tokio::test(flavor = "multi_thread")]
async fn fake_lost_hosts_servers_start_elsewhere_once() {
    let mut lab = Lab::new().await;
    let (running, off) = (lab.server("running").await, lab.server("off").await);
    lab.r.action(&off, json!({"os-stop": null})).await.expect(202);
    lab.r.wait(&off, "SHUTOFF").await;
    // All servers can; of what else is lost with a host it says what it is.
    let check = lab.r.cloud.command().args(["ha", "check"]).output().unwrap();
    let said = String::from_utf8_lossy(&check.stdout);
    assert!(check.status.success(), "{said}");
    let can = |host: &str| {
        let line = said.lines().find(|l| l.starts_with(host));
        line.and_then(|l| l.split_whitespace().nth(1)).map(str::to_owned)
    };
    let control = lab.r.admin.get("/compute/v2.1/os-hypervisors").await.expect(200);
    let names = control["hypervisors"].as_array().unwrap().iter();
    for name in names.map(|h| h["hypervisor_hostname"].as_str().unwrap()) {
        let is = ["one", "two"].contains(&name);
        assert_eq!(can(name).as_deref(), Some(if is { "yes" } else { "no" }), "{said}");
        let line = format!("The only control plane is on {name}:");
        assert_eq!(said.contains(&line), !is, "{said}");
    }

    lab.one.kill();
    // A power cut: the guest's process is gone with the machine.
    end_guest(&lab.one.dir, &running);
    lab.is_on(&running, "two").await;
    let moved = lab.r.wait(&off, "SHUTOFF").await;
    assert_eq!(moved["OS-EXT-SRV-ATTR:host"], "two");
    let list = lab
        .r
        .admin
        .at("compute 2.96")
        .get("/compute/v2.1/os-migrations")
        .await
        .expect(200);
    let kinds: Vec<&Value> = list["migrations"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| &m["migration_type"])
        .collect();
    assert_eq!(kinds, ["evacuation", "evacuation"]);
    let host = lab.said("the lease has ended", |w| w["ended"] == true).await;
    let before = host["lease"].as_u64().unwrap();

    lab.one.start_lease();
    lab.one.start_agent();
    lab.one.is(&lab.r.cloud, "up").await;
    eventually("nothing of them is left on the first host", LIMIT, || async {
        (state(&lab.one.dir, &running).is_none() && state(&lab.one.dir, &off).is_none()).then_some(())
    })
    .await;
    assert_eq!(lab.running(&running), ["two"]);
    let host = lab.r.cloud.admin(Method::GET, "/admin/v1/hosts/one").await.unwrap();
    assert!(host["host"]["lease"].as_u64().unwrap() > before, "{host}");
    lab.server("new").await;
    lab.r.cloud.audit().await;
}

/// What the other host has no room for stays, and says why, with numbers, before the loss and after it; it runs again when
/// its host is back.
#[tokio::test(flavor = "multi_thread")]
async fn fake_lost_hosts_servers_without_room_say_so() {
    // Room for one of 128 MiB beside what is reserved.
    let mut lab = Lab::with(&[], &["agent.fake_memory_mib=700"]).await;
    let servers = [lab.server("first").await, lab.server("second").await];
    let check = lab.r.cloud.command().args(["ha", "check"]).output().unwrap();
    let said = String::from_utf8_lossy(&check.stdout);
    assert!(!check.status.success(), "{said}");
    let line = said
        .lines()
        .find(|l| l.starts_with("second"))
        .unwrap_or_else(|| panic!("{said}"));
    assert!(
        line.contains("needed 128 MiB of memory, the most that is free on one host is 60"),
        "{line}"
    );

    lab.one.kill();
    for server in &servers {
        end_guest(&lab.one.dir, server);
    }
    lab.is_on(&servers[0], "two").await;
    let fault = eventually("the other one is in ERROR", LIMIT, || async {
        let s = lab.r.show(&servers[1]).await?;
        (s["status"] == "ERROR").then(|| s["fault"]["message"].as_str().unwrap().to_owned())
    })
    .await;
    assert!(fault.contains("host is lost") && fault.contains("60"), "{fault}");
    assert_eq!(lab.running(&servers[1]), [""; 0]);

    lab.one.start_lease();
    lab.one.start_agent();
    lab.one.is(&lab.r.cloud, "up").await;
    lab.is_on(&servers[1], "one").await;
    assert_eq!(lab.running(&servers[0]), ["two"]);
    lab.r.cloud.audit().await;
}

/// Who deletes a server of a lost host does not wait for that host where another one reaches its disks; and nothing of it is
/// left when the host is back.
#[tokio::test(flavor = "multi_thread")]
async fn fake_lost_hosts_servers_are_deleted_without_them() {
    // No room for any server there.
    let mut lab = Lab::with(&[], &["agent.fake_memory_mib=600"]).await;
    let (early, late) = (lab.server("early").await, lab.server("late").await);
    let delete = async |lab: &Lab, server: &str| {
        let path = format!("/compute/v2.1/servers/{server}");
        assert_eq!(lab.r.admin.delete(&path).await.status, 204);
    };
    lab.one.kill();
    for server in [&early, &late] {
        end_guest(&lab.one.dir, server);
        assert!(lab.shared.0.join("servers").join(server).exists());
    }
    // Before anybody knows that the host is lost, and when everybody does.
    delete(&lab, &early).await;
    eventually("it is stranded", LIMIT, || async {
        (lab.r.show(&late).await?["status"] == "ERROR").then_some(())
    })
    .await;
    delete(&lab, &late).await;
    for server in [&early, &late] {
        lab.r.wait_gone(server).await;
        assert!(!lab.shared.0.join("servers").join(server).exists());
    }
    lab.one.start_lease();
    lab.one.start_agent();
    lab.one.is(&lab.r.cloud, "up").await;
    eventually("nothing of them is left on the host", LIMIT, || async {
        [&early, &late]
            .iter()
            .all(|s| record(&lab.one.dir, s).is_none())
            .then_some(())
    })
    .await;
    lab.r.cloud.audit().await;
}

/// A server that waits for its resize to be confirmed starts elsewhere, as what it is now: on the host that it came from, or
/// on another.
#[tokio::test(flavor = "multi_thread")]
async fn fake_lost_hosts_servers_that_wait_to_be_confirmed_start_elsewhere() {
    // Room for one of 160 MiB, if nothing is kept beside it.
    let mut lab = Lab::with(&[], &["agent.fake_memory_mib=700"]).await;
    let server = lab.server("resized").await;
    lab.r.action(&server, json!({"migrate": null})).await.expect(202);
    let shown = lab.r.wait(&server, "VERIFY_RESIZE").await;
    assert_eq!(shown["OS-EXT-SRV-ATTR:host"], "two");
    lab.two.kill();
    end_guest(&lab.two.dir, &server);
    lab.is_on(&server, "one").await;
    lab.two.start_lease();
    lab.two.start_agent();
    lab.two.is(&lab.r.cloud, "up").await;
    eventually("nothing of it is left on the second host", LIMIT, || async {
        state(&lab.two.dir, &server).is_none().then_some(())
    })
    .await;
    lab.r.cloud.audit().await;

    let larger = json!({"flavor": {"name": "larger", "id": "larger", "vcpus": 1, "ram": 160, "disk": 1}});
    lab.r.admin.post("/compute/v2.1/flavors", &larger).await.expect(200);
    let body = json!({"resize": {"flavorRef": "larger"}});
    lab.r.action(&server, body).await.expect(202);
    let shown = lab.r.wait(&server, "VERIFY_RESIZE").await;
    assert_eq!(shown["OS-EXT-SRV-ATTR:host"], "one");
    let check = lab.r.cloud.command().args(["ha", "check"]).output().unwrap();
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stdout));
    lab.one.kill();
    end_guest(&lab.one.dir, &server);
    lab.is_on(&server, "two").await;
    let shown = lab.r.show(&server).await.unwrap();
    assert_eq!(shown["flavor"]["id"], "larger", "{shown}");
    let refused = lab.r.action(&server, json!({"revertResize": null})).await;
    assert_eq!(refused.status, 409, "{}", refused.text);
    lab.one_comes_back_without(&server, "after a resize").await;

    // What is kept for its way back is room for it, too.
    lab.r.action(&server, json!({"migrate": null})).await.expect(202);
    let shown = lab.r.wait(&server, "VERIFY_RESIZE").await;
    assert_eq!(shown["OS-EXT-SRV-ATTR:host"], "one");
    let check = lab.r.cloud.command().args(["ha", "check"]).output().unwrap();
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stdout));
}

/// A server whose host is lost in the middle of its move does not wait until the move is given up.
#[tokio::test(flavor = "multi_thread")]
async fn fake_lost_hosts_servers_on_their_way_start_elsewhere() {
    for body in [
        json!({"os-migrateLive": {"host": "two", "block_migration": "auto"}}),
        json!({"migrate": null}),
    ] {
        let mut lab = Lab::new().await;
        lab.r.slow_flavor().await;
        let server = lab.server_of("moves", "slow").await;
        let path = format!("/compute/v2.1/servers/{server}/action");
        lab.r.admin.at("compute 2.96").post(&path, &body).await.expect(202);
        eventually("it is being sent", LIMIT, || async {
            let record = record(&lab.one.dir, &server)?;
            record["moving"]["state"]["moving"].is_object().then_some(())
        })
        .await;
        lab.one.kill();
        end_guest(&lab.one.dir, &server);
        lab.is_on(&server, "two").await;
        lab.one_comes_back_without(&server, &format!("{body}")).await;
    }
}

/// A server that was handed over to a host that is lost before it could say so starts where it came from: not with what its
/// process there remembers, for it ran on the other host, and not before that has ended it.
#[tokio::test(flavor = "multi_thread")]
async fn fake_lost_hosts_servers_handed_over_to_them_start_where_they_came_from() {
    let mut lab = Lab::new().await;
    lab.r.slow_flavor().await;
    let mut body = lab.r.server("moves", "slow");
    body["server"]["availability_zone"] = "nova:two".into();
    let made = lab.r.admin.post("/compute/v2.1/servers", &body).await.expect(202);
    let server = id(&made, "/server/id");
    lab.is_on(&server, "two").await;

    let admin = lab.r.admin.at("compute 2.96");
    let path = format!("/compute/v2.1/servers/{server}");
    let body = json!({"os-migrateLive": {"host": "one", "block_migration": "auto"}});
    admin.post(&format!("{path}/action"), &body).await.expect(202);
    eventually("it is being sent", LIMIT, || async {
        let record = record(&lab.two.dir, &server)?;
        record["moving"]["state"]["moving"].is_object().then_some(())
    })
    .await;
    let all = admin.get(&format!("{path}/migrations")).await.expect(200);
    let number = all["migrations"][0]["id"].clone();
    lab.wire.cut();
    let force = format!("{path}/migrations/{number}/action");
    admin.post(&force, &json!({"force_complete": null})).await.expect(202);
    eventually("it runs on the first host", LIMIT, || async {
        (record(&lab.one.dir, &server)?["moving"]["state"] == "arrived").then_some(())
    })
    .await;
    lab.is_on(&server, "two").await;
    assert_eq!(record(&lab.two.dir, &server).unwrap()["guest"]["hard_reboots"], 1);
    lab.one_is_connected_without(&server, "after a move").await;
}

/// A host that comes back and knows nothing yet of what has happened touches no disk that is another host's by now: not that
/// of a server that is off, and rebuilt elsewhere; and when the server was deleted meanwhile, nothing of it is left.
#[tokio::test(flavor = "multi_thread")]
async fn fake_lost_hosts_leave_disks_of_others_alone() {
    let mut lab = Lab::new().await;
    let (rebuilt, deleted) = (lab.server("rebuilt").await, lab.server("deleted").await);
    for server in [&rebuilt, &deleted] {
        lab.r.action(server, json!({"os-stop": null})).await.expect(202);
        lab.r.wait(server, "SHUTOFF").await;
    }
    lab.one.kill();
    for server in [&rebuilt, &deleted] {
        eventually("it is the other host's", LIMIT, || async {
            let s = lab.r.show(server).await?;
            (s["OS-EXT-SRV-ATTR:host"] == "two" && s["OS-EXT-STS:task_state"].is_null()).then_some(())
        })
        .await;
    }
    let image = lab.r.image.clone();
    let body = json!({"rebuild": {"imageRef": image}});
    lab.r.action(&rebuilt, body).await.expect(202);
    lab.r.wait(&rebuilt, "SHUTOFF").await;
    lab.r.action(&rebuilt, json!({"os-start": null})).await.expect(202);
    lab.is_on(&rebuilt, "two").await;
    let disks = |server: &str| {
        let dir = std::fs::read_dir(lab.shared.0.join("servers").join(server));
        let mut all: Vec<_> = dir.into_iter().flatten().map(|e| e.unwrap().file_name()).collect();
        all.sort();
        all
    };
    let before = disks(&rebuilt);
    assert_eq!(before.len(), 1);
    let path = format!("/compute/v2.1/servers/{deleted}");
    assert_eq!(lab.r.admin.delete(&path).await.status, 204);

    lab.wire.cut();
    let trace = lab.one.dir.join("run/fault-trace");
    std::fs::write(&trace, "").unwrap();
    lab.one.start_agent();
    eventually("the first host has looked at both", LIMIT, || async {
        let text = std::fs::read_to_string(&trace).unwrap();
        (text.matches("agent.guest.applied").count() >= 2).then_some(())
    })
    .await;
    assert_eq!(disks(&rebuilt), before);
    lab.wire.mend();
    lab.one.start_lease();
    lab.r.wait_gone(&deleted).await;
    assert!(!lab.shared.0.join("servers").join(&deleted).exists());
    lab.one.is(&lab.r.cloud, "up").await;
    lab.is_on(&rebuilt, "two").await;
    assert_eq!(disks(&rebuilt), before);
    lab.r.cloud.audit().await;
}

pub fn end_guest(dir: &Path, server: &str) {
    let path = dir.join("agent/guests").join(format!("{server}.json"));
    let mut record = record(dir, server).unwrap();
    record["state"] = "stopped".into();
    std::fs::write(&path, record.to_string()).unwrap();
}

/// Only the agent is dead: its guests run, and stay where they are.
#[tokio::test(flavor = "multi_thread")]
async fn fake_lost_hosts_with_a_dead_agent_keep_their_servers() {
    let mut lab = Lab::new().await;
    let server = lab.server("stays").await;
    lab.one.kill_agent();
    let host = lab
        .said("the other host sees its supervisor", |w| {
            w["said"]["alive"]["agent"] == false
        })
        .await;
    assert_eq!(host["state"], "down");
    let means = host["watched"]["means"].as_str().unwrap();
    assert!(means.contains("its agent does not run"), "{means}");
    // By hand neither, and the refusal says what would make it possible.
    let refused = lab
        .r
        .action(&server, json!({"evacuate": {"onSharedStorage": true}}))
        .await;
    assert_eq!(refused.status, 400, "{}", refused.text);
    assert!(refused.text.contains("haneul host fence one"), "{}", refused.text);
    assert_eq!(lab.running(&server), ["one"]);
    lab.one.start_agent();
    lab.one.is(&lab.r.cloud, "up").await;
    lab.is_on(&server, "one").await;
    lab.r.cloud.audit().await;
}

/// The host is cut off from control and lives: its supervisor ends the guests before the other host starts them, with its
/// agent or without.
#[tokio::test(flavor = "multi_thread")]
async fn fake_lost_hosts_that_are_cut_off_end_their_servers_first() {
    for agent in [true, false] {
        let mut lab = Lab::new().await;
        let server = lab.server("moves").await;
        lab.wire.cut();
        if !agent {
            lab.one.kill_agent();
        }
        lab.is_on(&server, "two").await;
        assert_eq!(state(&lab.one.dir, &server).as_deref(), Some("stopped"));
        lab.one_is_connected_without(&server, "after a cut").await;
        lab.server("new").await;
        lab.r.cloud.audit().await;
    }
}

/// Whoever dies on the way, the server runs on the other host afterwards, and nowhere else.
#[tokio::test(flavor = "multi_thread")]
async fn fake_lost_hosts_whoever_dies_on_the_way() {
    for (point, control) in POINTS {
        let mut lab = Lab::new().await;
        let server = lab.server("survives").await;
        let armed = format!("{point}=kill");
        if control {
            lab.r.cloud.arm(&armed);
        } else {
            lab.two.arm(&armed);
        }
        lab.one.kill();
        end_guest(&lab.one.dir, &server);
        eventually(&format!("a process died at {point}"), LIMIT, || {
            let revived = if control {
                lab.r.cloud.revive()
            } else {
                lab.two.revive()
            };
            async move { revived.then_some(()) }
        })
        .await;
        lab.r.cloud.disarm();
        lab.r.cloud.revive();
        lab.r.cloud.ready().await;
        lab.is_on(&server, "two").await;
        lab.one_comes_back_without(&server, &format!("after {point}")).await;
    }
}

/// After a boot of the host its servers start in the order that their metadata say, whichever was made first.
#[tokio::test(flavor = "multi_thread")]
async fn fake_boot_starts_servers_in_their_order() {
    let mut r = Ready::new(options()).await;
    let mut servers = Vec::new();
    for order in ["900", "", "50", "7", "0"] {
        let mut body = r.server(&format!("order-{order}"), "tiny");
        if !order.is_empty() {
            body["server"]["metadata"] = json!({"haneul:start_order": order});
        }
        let made = r.admin.post("/compute/v2.1/servers", &body).await.expect(202);
        let server = id(&made, "/server/id");
        r.wait(&server, "ACTIVE").await;
        servers.push(server);
    }
    let path = format!("/compute/v2.1/servers/{}/metadata", servers[0]);
    let body = json!({"metadata": {"haneul:start_order": "soon"}});
    let refused = r.admin.post(&path, &body).await;
    assert_eq!(refused.status, 400, "{}", refused.text);
    assert!(refused.text.contains("a number from 0 to 999"), "{}", refused.text);

    r.cloud.kill_agent();
    let dir = r.cloud.dir.clone();
    for server in &servers {
        end_guest(&dir, server);
    }
    std::fs::write(dir.join("agent/boot-id"), "the boot before").unwrap();
    r.cloud.start_agent();
    let mut started = Vec::new();
    for server in &servers {
        let at = eventually("it runs", LIMIT, || async {
            let record = record(&dir, server)?;
            (record["state"] == "running").then(|| record["started_at"].as_i64().unwrap())
        })
        .await;
        started.push(at);
    }
    let mut last_first = started.clone();
    last_first.sort_unstable_by(|a, b| b.cmp(a));
    assert_eq!(started, last_first, "the last one that was made starts first");
    r.cloud.audit().await;
}

/// Everybody's clock jumps, each by another amount: nobody takes anybody for dead, no deadline passes, and who is dead is
/// missed as soon as ever.
#[tokio::test(flavor = "multi_thread")]
async fn fake_clocks_that_jump_decide_nothing() {
    let mut lab = Lab::new().await;
    let (stays, waits) = (lab.server("stays").await, lab.server("waits").await);
    let dirs = [lab.r.cloud.dir.clone(), lab.one.dir.clone(), lab.two.dir.clone()];
    let jump = |hours: [i64; 3]| {
        for (dir, hours) in dirs.iter().zip(hours) {
            let off = hours * 3_600_000_000;
            std::fs::write(dir.join("run/clock"), off.to_string()).unwrap();
        }
    };
    // A job is under way all the time: its host's agent is dead, and its lease is kept.
    lab.one.kill_agent();
    lab.one.is(&lab.r.cloud, "down").await;
    lab.r.action(&waits, json!({"os-stop": null})).await.expect(202);
    let token = async || lab.r.cloud.admin_client().await;
    for hours in [[3, -2, 5], [-4, 6, 0], [1000, 3, -1]] {
        jump(hours);
        // More than a term, and than what a lost host is given.
        tokio::time::sleep(Duration::from_secs(4)).await;
        // Tokens are what they are: of the time that the cloud thinks it is.
        let admin = token().await;
        let shown = admin.get(&format!("/compute/v2.1/servers/{waits}")).await.expect(200);
        let s = &shown["server"];
        assert_eq!(
            (&s["OS-EXT-STS:task_state"], &s["status"]),
            (&json!("powering-off"), &json!("ACTIVE")),
            "{s}"
        );
        assert_eq!(lab.running(&stays), ["one"]);
        let host = lab.r.cloud.admin(Method::GET, "/admin/v1/hosts/one").await.unwrap();
        assert_ne!(host["host"]["watched"]["ended"], true, "{host}");
    }
    assert!(lab.one.revive());
    lab.r.admin = token().await;
    lab.r.wait(&waits, "SHUTOFF").await;
    jump([-7, 8, -9]);
    lab.r.admin = token().await;
    lab.one.kill();
    end_guest(&lab.one.dir, &stays);
    lab.is_on(&stays, "two").await;
}
