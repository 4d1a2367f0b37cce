//! kill -9 of the agent at chosen fault points of the real drivers: QEMU, its records, disks and the data plane. A
//! guest counts as there when it runs; nothing waits for it to boot, and its disk is empty.

use crate::real_lab::cannot;
use crate::setup::{Ready, options};
use haneul_testkit::{Cloud, Options, eventually};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// QEMU processes of this guest.
pub fn qemus(guest: &str) -> Vec<i32> {
    std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter(|entry| {
            let arguments = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let text = String::from_utf8_lossy(&arguments);
            text.contains("qemu-system") && text.contains(guest)
        })
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

/// Processes of guests of the host with this state: each with the guest's id.
pub fn marked(dir: &Path) -> Vec<(i32, String)> {
    let Ok(tag) = std::fs::read_to_string(dir.join("agent/qemu/tag")) else {
        return vec![];
    };
    let mark = format!("guest=haneul:{}:", tag.trim());
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let all = entries.filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        // Of one that has ended there is no command line.
        let arguments = std::fs::read(entry.path().join("cmdline")).ok()?;
        let text = String::from_utf8_lossy(&arguments).into_owned();
        let id = text.split_once(&mark)?.1.get(..36)?.to_owned();
        Some((pid, id))
    });
    all.collect()
}

/// Ends all guests of that host, as a power cut does.
pub fn end_guests(dir: &Path) {
    for (pid, _) in marked(dir) {
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
}

fn processes(guest: &str) -> usize {
    qemus(guest).len()
}

/// Network namespaces and links of this host of a test.
fn left_in_the_kernel(host: &str) -> Vec<String> {
    let prefix = format!("h{}", &host[..6]);
    let mut all = Vec::new();
    for what in ["netns", "-o link"] {
        let out = Command::new("ip").args(what.split(' ')).output().unwrap();
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        all.extend(text.lines().filter(|l| l.contains(&prefix)).map(str::to_owned));
    }
    all
}

struct Lab {
    r: Ready,
    kills: usize,
}

impl Lab {
    /// Arms the point, does it, and brings the agent back from its death there.
    async fn killed<T>(&mut self, point: &str, it: impl AsyncFnOnce(&Ready) -> T) -> T {
        self.r.cloud.arm(&format!("{point}=kill"));
        let out = it(&self.r).await;
        eventually(
            &format!("the agent dies at {point}\n{}", self.r.cloud.tail()),
            Duration::from_secs(30),
            || {
                let revived = self.r.cloud.revive();
                async move { revived.then_some(()) }
            },
        )
        .await;
        assert_eq!(self.r.cloud.armed(), "", "{point}");
        self.r.cloud.ready().await;
        self.kills += 1;
        out
    }

    /// Waits until the server runs, in one process.
    async fn runs(&self, server: &str, what: &str) {
        let s = self.r.wait(server, "ACTIVE").await;
        assert_eq!(s["OS-EXT-STS:power_state"], 1, "{what}: {s}");
        assert_eq!(processes(server), 1, "{what}: QEMU processes of {server}");
        self.r.cloud.audit().await;
    }

    async fn act(&mut self, point: &str, server: &str, body: Value) {
        let ask = async |r: &Ready| r.action(server, body).await;
        let a = self.killed(point, ask).await;
        assert_eq!(a.status, 202, "{point}: {}", a.text);
        self.runs(server, point).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn real_crash_of_the_agent_at_a_dozen_points() {
    if let Some(why) = cannot() {
        println!("SKIPPED: {why}");
        return;
    }
    let cloud = Cloud::start(Options {
        real: true,
        sets: vec!["network.external_cidr=172.31.209.0/24".into()],
        ..options()
    })
    .await;
    let mut lab = Lab {
        r: Ready::on(cloud).await,
        kills: 0,
    };
    let mut servers = Vec::new();
    for point in [
        "agent.desired.stored",
        "netdev.real.port",
        "blockdev.root.made",
        "hypervisor.qemu.before-exec",
        "hypervisor.qemu.after-exec",
        "agent.guest.applied",
    ] {
        let new = lab.killed(point, async |r| r.create(point).await).await;
        lab.runs(&new, point).await;
        servers.push(new);
    }
    let first = servers[0].clone();
    for point in [
        "hypervisor.qemu.before-end",
        "hypervisor.qemu.ended",
        "hypervisor.record.saved",
    ] {
        lab.act(point, &first, json!({"reboot": {"type": "HARD"}})).await;
    }
    let second = servers[1].clone();
    for point in ["blockdev.root.noted", "hypervisor.qemu.ended"] {
        let image = lab.r.image.clone();
        lab.act(point, &second, json!({"rebuild": {"imageRef": image}})).await;
    }
    // A suspend or a resume that is cut off anywhere is carried on by the next agent.
    let third = servers[2].clone();
    for (suspend, resume) in [
        ("hypervisor.qemu.halted", "hypervisor.qemu.memory-loaded"),
        ("hypervisor.qemu.memory-begun", "hypervisor.qemu.memory-forgotten"),
        ("hypervisor.qemu.memory-written", "hypervisor.qemu.after-exec"),
        ("hypervisor.qemu.memory-saved", "hypervisor.record.saved"),
    ] {
        let a = lab
            .killed(suspend, async |r| r.action(&third, json!({"suspend": null})).await)
            .await;
        assert_eq!(a.status, 202, "{suspend}: {}", a.text);
        lab.r.wait(&third, "SUSPENDED").await;
        assert_eq!(processes(&third), 0, "{suspend}");
        lab.r.cloud.audit().await;
        lab.act(resume, &third, json!({"resume": null})).await;
    }
    // And so is an image of a guest's disk, while the guest runs on.
    for point in [
        "blockdev.snapshot.begun",
        "hypervisor.qemu.copy-begun",
        "hypervisor.qemu.copied",
        "blockdev.snapshot.before-rename",
        "agent.snapshot.kept",
    ] {
        let before = qemus(&third);
        lab.act(point, &third, json!({"createImage": {"name": point}})).await;
        let images = format!("/image/v2/images?instance_uuid={third}&status=active&name={point}");
        eventually(&format!("the image after {point}"), Duration::from_secs(30), || async {
            let found = lab.r.admin.get(&images).await.expect(200);
            (found["images"].as_array()?.len() == 1).then_some(())
        })
        .await;
        assert_eq!(qemus(&third), before, "{point}: the guest goes on");
    }
    for (server, point) in servers.iter().zip([
        "agent.tombstone.stored",
        "hypervisor.qemu.ended",
        "hypervisor.qemu.before-remove",
        "hypervisor.qemu.record-removed",
        "agent.guest.disk-deleted",
        "netdev.real.remove",
    ]) {
        let a = lab
            .killed(point, async |r| {
                r.admin.delete(&format!("/compute/v2.1/servers/{server}")).await
            })
            .await;
        assert_eq!(a.status, 204, "{point}: {}", a.text);
        lab.r.wait_gone(server).await;
        assert_eq!(processes(server), 0, "{point}: QEMU is left");
        lab.r.cloud.audit().await;
    }
    println!("{} kills", lab.kills);
    let dir = lab.r.cloud.dir.clone();
    let disks: Vec<_> = std::fs::read_dir(dir.join("agent/block/disks"))
        .unwrap()
        .flatten()
        .collect();
    assert!(disks.is_empty(), "{disks:?}");
    let host = std::fs::read_to_string(dir.join("agent/host-id")).unwrap();
    assert!(
        !left_in_the_kernel(&host).is_empty(),
        "the test looks for names that nothing has"
    );
    // Its end is `haneul down --purge`.
    drop(lab);
    assert_eq!(left_in_the_kernel(&host), Vec::<String>::new());
}
