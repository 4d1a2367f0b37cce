//! Live migration between two agents, with kill -9 at every point of the way: at the end one of them runs the guest, and it
//! is the one that the server says.

use crate::setup::{Ready, id, options, record, runs_on};
use haneul_testkit::{Options, eventually};
use http::Method;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);

struct Two {
    r: Ready,
    /// State of both hosts.
    dirs: [PathBuf; 2],
    /// The directory for disks that both share.
    shared: Option<PathBuf>,
}

impl Drop for Two {
    fn drop(&mut self) {
        if let Some(dir) = &self.shared {
            let _ = std::fs::remove_dir_all(dir);
        }
    }
}

fn live() -> Value {
    json!({"os-migrateLive": {"host": null, "block_migration": "auto"}})
}

impl Two {
    async fn new() -> Two {
        Two::start(options(), None).await
    }

    async fn sharing() -> Two {
        let dir = std::env::temp_dir().join(format!("haneul-disks-{}", haneul_core::id::hex()));
        std::fs::create_dir(&dir).unwrap();
        let mut options = options();
        options.sets.push(format!("agent.shared_disks={}", dir.display()));
        Two::start(options, Some(dir)).await
    }

    async fn start(options: Options, shared: Option<PathBuf>) -> Two {
        let mut r = Ready::new(options).await;
        r.cloud.start_other_agent();
        let dirs = [r.cloud.dir.clone(), r.cloud.other_dir()];
        let two = Two { r, dirs, shared };
        two.both_up().await;
        two
    }

    /// What the hosts have of the server's disks: each of its own, and in the directory that they share.
    fn disks(&self, server: &str) -> ([bool; 2], bool) {
        let own = self
            .dirs
            .each_ref()
            .map(|d| d.join("agent/block/disks").join(server).exists());
        let shared = self
            .shared
            .as_ref()
            .is_some_and(|d| d.join("servers").join(server).exists());
        (own, shared)
    }

    async fn both_up(&self) {
        eventually("both hosts are up", LIMIT, || async {
            let all = self.r.admin.get("/compute/v2.1/os-services").await;
            let all = all.body["services"].as_array().cloned().unwrap_or_default();
            (all.iter().filter(|s| s["state"] == "up").count() == 2).then_some(())
        })
        .await;
    }

    /// Hosts on which the guest runs.
    fn runs(&self, server: &str) -> Vec<usize> {
        runs_on(&self.dirs.each_ref().map(PathBuf::as_path), server)
    }

    async fn migrate(&self, server: &str) -> Option<u16> {
        self.asked(server, live()).await
    }

    async fn asked(&self, server: &str, body: Value) -> Option<u16> {
        let answer = self
            .r
            .admin
            .at("compute 2.96")
            .try_send(
                Method::POST,
                &format!("/compute/v2.1/servers/{server}/action"),
                &[("content-type", "application/json")],
                body.to_string().into_bytes(),
            )
            .await;
        answer.map(|a| a.status)
    }

    /// A move during which a process dies and comes back.
    async fn killed(&mut self, server: &str, armed: &str) {
        self.killed_in(server, armed, live()).await;
    }

    async fn killed_in(&mut self, server: &str, armed: &str, body: Value) {
        self.r.cloud.arm(armed);
        let answer = self.asked(server, body).await;
        eventually(&format!("a process died at {armed}"), LIMIT, || {
            let revived = self.r.cloud.revive();
            async move { revived.then_some(()) }
        })
        .await;
        // The other agent may have come there too.
        self.r.cloud.disarm();
        self.r.cloud.revive();
        self.r.cloud.ready().await;
        self.both_up().await;
        assert!(answer.is_none_or(|s| s == 202), "{armed}: {answer:?}");
    }

    /// Nothing is done to the server any more, it runs once, and nothing is left of it elsewhere.
    async fn settled(&self, server: &str, what: &str) -> usize {
        self.r.wait(server, "ACTIVE").await;
        eventually(&format!("one guest after {what}"), LIMIT, || async {
            let records = self.dirs.iter().filter(|d| record(d, server).is_some()).count();
            let runs = self.runs(server);
            assert!(runs.len() < 2, "two guests run after {what}");
            let (own, shared) = self.disks(server);
            assert_eq!(shared, self.shared.is_some(), "after {what}");
            let at = *runs.first()?;
            // Removed after the record.
            let own_are_there = own == [0, 1].map(|n| n == at && self.shared.is_none());
            (records == 1 && own_are_there).then_some(at)
        })
        .await
    }

    /// Its end, and what it leaves: nothing.
    async fn end(&self, server: &str) {
        self.r.delete(server).await;
        assert_eq!(self.disks(server), ([false; 2], false));
        self.r.cloud.audit().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fake_a_server_moves_to_the_other_host_and_back() {
    there_and_back(Two::new().await).await;
}

/// Its disks stay where they are; who had it leaves them, and who deletes it removes them.
#[tokio::test(flavor = "multi_thread")]
async fn fake_a_server_moves_between_hosts_that_share_disks() {
    there_and_back(Two::sharing().await).await;
}

async fn there_and_back(two: Two) {
    let server = two.r.create("mover").await;
    two.r.wait(&server, "ACTIVE").await;
    let mut at = two.settled(&server, "the create").await;
    for n in 0..3 {
        assert_eq!(two.migrate(&server).await, Some(202));
        let before = at;
        at = two.settled(&server, "a move").await;
        assert_ne!(at, before, "move {n}");
        two.r.cloud.audit().await;
    }
    two.end(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fake_kill_anywhere_on_the_way_leaves_one_guest() {
    kill_anywhere(Two::new().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fake_kill_anywhere_on_the_way_leaves_shared_disks() {
    kill_anywhere(Two::sharing().await).await;
}

async fn kill_anywhere(mut two: Two) {
    let server = two.r.create("mover").await;
    two.r.wait(&server, "ACTIVE").await;
    let (mut moved, mut stayed) = (0, 0);
    for point in [
        "compute.live-migration.committed",
        "job.server.live-migration.prepare",
        "job.server.live-migration.send",
        "job.server.live-migration.finish",
        "store.after-commit",
        "fleet.report.received",
        "fleet.report.committed",
        "agent.desired.stored",
        "agent.guest.desired",
        "hypervisor.fake.listens",
        "agent.guest.applied",
        "hypervisor.fake.leaves",
        "hypervisor.fake.switching",
        "hypervisor.fake.arrived",
        "hypervisor.fake.handed-over",
        "agent.report.taken",
        "agent.guest.removed",
        "agent.guest.buried",
    ] {
        let before = two.settled(&server, "the last one").await;
        two.killed(&server, &format!("{point}=kill")).await;
        match two.settled(&server, point).await == before {
            true => stayed += 1,
            false => moved += 1,
        }
        two.r.cloud.audit().await;
    }
    println!("{moved} moved all the same, {stayed} stayed");
    assert!(moved > 7, "{moved} moved, {stayed} stayed");
    two.end(&server).await;
}

/// Also when it was handed over already, and when control dies on the way back.
#[tokio::test(flavor = "multi_thread")]
async fn fake_a_move_that_fails_leaves_the_guest_where_it_was() {
    let mut two = Two::new().await;
    let server = two.r.create("mover").await;
    two.r.wait(&server, "ACTIVE").await;
    // The first pass is in the transaction that fails the move: killed there, nothing of it has happened. The next one may
    // be in the same commit, and then neither has that: the move goes on.
    for (step, back) in [
        ("prepare", "restore=kill:1"),
        ("send", "await-gone=kill:1"),
        ("send", "restore=kill"),
        ("finish", "await-gone=kill:1"),
        ("finish", "restore=kill"),
    ] {
        let before = two.settled(&server, "the last one").await;
        let job = "job.server.live-migration";
        two.killed(&server, &format!("{job}.{step}=fail,{job}-back.{back}"))
            .await;
        let after = two.settled(&server, step).await;
        let path = format!("/compute/v2.1/os-migrations?instance_uuid={server}");
        let all = two.r.admin.at("compute 2.96").get(&path).await.expect(200);
        let all = all["migrations"].as_array().unwrap();
        let newest = all.iter().max_by_key(|m| m["id"].as_i64()).unwrap();
        let failed = newest["status"] == "error" || !back.starts_with("await-gone");
        assert_eq!(after == before, failed, "failed at {step}, and then {back}: {newest}");
        two.r.cloud.audit().await;
    }
    two.end(&server).await;
}

/// A move that does not come to its end is given up in time, and the guest is where it was.
#[tokio::test(flavor = "multi_thread")]
async fn fake_a_move_that_takes_too_long_is_given_up() {
    let mut options = options();
    options.sets.push("compute.live_migration_timeout_s=2".into());
    let two = Two::start(options, None).await;
    let admin = two.r.admin.at("compute 2.96");
    two.r.slow_flavor().await;
    let body = two.r.server("slow", "slow");
    let made = admin.post("/compute/v2.1/servers", &body).await.expect(202);
    let server = id(&made, "/server/id");
    let before = two.r.wait(&server, "ACTIVE").await;
    assert_eq!(two.migrate(&server).await, Some(202));
    two.r.wait(&server, "MIGRATING").await;
    let after = two.r.wait(&server, "ACTIVE").await;
    assert_eq!(after["OS-EXT-SRV-ATTR:host"], before["OS-EXT-SRV-ATTR:host"]);
    two.settled(&server, "it took too long").await;
    let path = format!("/compute/v2.1/os-migrations?instance_uuid={server}");
    let all = admin.get(&path).await.expect(200);
    assert_eq!(all["migrations"][0]["status"], "error", "{all}");
    two.end(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fake_kill_anywhere_in_a_cold_migration_leaves_one_guest() {
    killed_cold(Two::new().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fake_kill_anywhere_in_a_cold_migration_leaves_shared_disks() {
    killed_cold(Two::sharing().await).await;
}

async fn killed_cold(mut two: Two) {
    let server = two.r.create("mover").await;
    two.r.wait(&server, "ACTIVE").await;
    let (mut confirmed, mut reverted, mut stayed) = (0, 0, 0);
    for point in [
        "compute.migrate.committed",
        "job.server.migrate.halt",
        "job.server.migrate.hold",
        "job.server.migrate.prepare",
        "job.server.migrate.send",
        "job.server.migrate.finish",
        "job.server.migrate.land",
        "agent.desired.stored",
        "agent.guest.applied",
        "hypervisor.fake.listens",
        "hypervisor.fake.leaves",
        "hypervisor.fake.switching",
        "hypervisor.fake.arrived",
        "hypervisor.fake.handed-over",
        "agent.guest.removed",
        "agent.guest.buried",
    ] {
        let before = two.settled(&server, "the last one").await;
        two.killed_in(&server, &format!("{point}=kill"), json!({"migrate": null}))
            .await;
        let waits = eventually(&format!("an end after {point}"), LIMIT, || async {
            let s = two.r.show(&server).await?;
            let status = s["status"].as_str()?.to_owned();
            assert_ne!(status, "ERROR", "{point}: {s}");
            s["OS-EXT-STS:task_state"]
                .is_null()
                .then_some(status == "VERIFY_RESIZE")
        })
        .await;
        let revert = waits && (confirmed + reverted) % 2 == 1;
        match (waits, revert) {
            (false, _) => stayed += 1,
            (true, false) => {
                confirmed += 1;
                two.r.action(&server, json!({"confirmResize": null})).await.expect(204);
            }
            (true, true) => {
                reverted += 1;
                two.r.action(&server, json!({"revertResize": null})).await.expect(202);
            }
        }
        let after = two.settled(&server, point).await;
        assert_eq!(after != before, waits && !revert, "{point}");
        two.r.cloud.audit().await;
    }
    println!("{confirmed} confirmed, {reverted} reverted, {stayed} stayed");
    assert!(
        confirmed > 3 && reverted > 3,
        "{confirmed} confirmed, {reverted} reverted"
    );
    two.end(&server).await;
}
