//! A lease that runs out: the guests on shared disks end with it, whoever is left to end them.

use crate::fake_lost_hosts::{Lab, state};
use haneul_testkit::eventually;
use std::path::Path;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);

/// The guest has no process any more.
async fn stopped(dir: &Path, server: &str, why: &str) {
    eventually(&format!("the guest ends: {why}"), LIMIT, || async {
        (state(dir, server).as_deref() == Some("stopped")).then_some(())
    })
    .await;
}

/// The guests have their processes again.
async fn run_again(lab: &Lab, servers: &[&String]) {
    eventually("the guests run again", LIMIT, || async {
        servers.iter().all(|s| lab.running(s) == ["one"]).then_some(())
    })
    .await;
    for server in servers {
        lab.is_on(server, "one").await;
    }
}

/// A record that nobody can read: the guest of it cannot be ended. Answers what it was.
fn spoil(dir: &Path, server: &str) -> (std::path::PathBuf, Vec<u8>) {
    let path = dir.join("agent/guests").join(format!("{server}.json"));
    let before = std::fs::read(&path).unwrap();
    std::fs::write(&path, "{").unwrap();
    (path, before)
}

/// Whether somebody watches over the lease that this machine's supervisor has left.
fn watched_over(dir: &Path) -> bool {
    let dir = dir.to_string_lossy();
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    all.filter_map(|p| std::fs::read(p.path().join("cmdline")).ok())
        .map(|line| String::from_utf8_lossy(&line).into_owned())
        .any(|line| line.contains("lease-end") && line.contains(dir.as_ref()))
}

/// The host has lost control and the shared directory: nobody can tell it anything. Its guests end with its lease before the
/// other host starts them, with its agent or without.
#[tokio::test(flavor = "multi_thread")]
async fn fake_leases_run_out_on_a_host_that_has_lost_everything() {
    for agent in [true, false] {
        let mut lab = Lab::new().await;
        let server = lab.server("moves").await;
        if !agent {
            lab.one.kill_agent();
        }
        lab.wire.cut();
        lab.storage(false);
        lab.is_on(&server, "two").await;
        assert_eq!(state(&lab.one.dir, &server).as_deref(), Some("stopped"));

        lab.storage(true);
        lab.one_is_connected_without(&server, "after it had lost everything")
            .await;
    }
}

/// The supervisor is killed and nobody starts it again: the agent ends the guests. With a supervisor they run again.
#[tokio::test(flavor = "multi_thread")]
async fn fake_leases_end_by_the_agent_when_the_supervisor_is_gone() {
    let mut lab = Lab::new().await;
    let server = lab.server("waits").await;
    lab.one.kill_lease();
    stopped(&lab.one.dir, &server, "by the agent").await;
    // A supervisor that finds the lease ended trusts no agent that was there before: it may have looked earlier.
    lab.storage(false);
    lab.one.start_lease();
    eventually("the agent is ended", LIMIT, || {
        let dead = lab.one.revive();
        async move { dead.then_some(()) }
    })
    .await;
    lab.storage(true);
    lab.one.is(&lab.r.cloud, "up").await;
    run_again(&lab, &[&server]).await;
    lab.r.cloud.audit().await;
}

/// A supervisor that ends by itself leaves somebody: while another one takes the lease up nothing happens; when nobody
/// does, the guests end, and one that cannot be ended at first keeps no other and is not forgotten.
#[tokio::test(flavor = "multi_thread")]
async fn fake_leases_end_when_nobody_takes_them_up() {
    let mut lab = Lab::new().await;
    let (first, second) = (lab.server("first").await, lab.server("second").await);
    lab.one.stop_lease();
    assert!(watched_over(&lab.one.dir));
    lab.one.start_lease();
    eventually("the lease is taken up", LIMIT, || async {
        (!watched_over(&lab.one.dir)).then_some(())
    })
    .await;
    for server in [&first, &second] {
        assert_eq!(lab.running(server), ["one"]);
    }

    for (spoilt, other) in [(&first, &second), (&second, &first)] {
        lab.one.kill_agent();
        let (path, before) = spoil(&lab.one.dir, spoilt);
        lab.one.stop_lease();
        stopped(&lab.one.dir, other, "nobody keeps the lease").await;
        std::fs::write(&path, before).unwrap();
        stopped(&lab.one.dir, spoilt, "it can be ended now").await;
        lab.one.start_lease();
        lab.one.start_agent();
        run_again(&lab, &[&first, &second]).await;
    }
    lab.r.cloud.audit().await;
}

/// The watchdog is written to while all is well, and not while guests without a lease cannot be ended: then it resets the
/// machine. A supervisor that ends by itself disarms it.
#[tokio::test(flavor = "multi_thread")]
async fn fake_leases_are_watched_by_the_watchdog() {
    let file = std::env::temp_dir().join(format!("haneul-watchdog-{}", haneul_core::id::hex()));
    std::fs::write(&file, "").unwrap();
    let set = format!("agent.watchdog={}", file.display());
    let mut lab = Lab::with(&[&set], &[]).await;
    let pats = || std::fs::read_to_string(&file).unwrap();
    let patted = async |when: &str| {
        let before = pats().len();
        eventually(&format!("it is patted {when}"), LIMIT, || async {
            (pats().len() > before + 1).then_some(())
        })
        .await;
    };
    patted("with a lease").await;

    let server = lab.server("stuck").await;
    lab.one.kill_agent();
    let (path, before) = spoil(&lab.one.dir, &server);
    lab.wire.cut();
    lab.storage(false);
    let log = lab.one.dir.join("log/lease.log");
    let failed = async |times: usize| {
        eventually("guests could not be ended", LIMIT, || async {
            let text = std::fs::read_to_string(&log).unwrap();
            (text.matches("could not be ended").count() >= times).then_some(())
        })
        .await;
    };
    failed(1).await;
    let then = pats();
    failed(4).await;
    assert_eq!(pats(), then, "patted while a guest runs without a lease");
    std::fs::write(&path, before).unwrap();
    stopped(&lab.one.dir, &server, "it can be ended now").await;
    patted("without guests").await;

    lab.one.stop_lease();
    let all = pats();
    assert!(
        all.ends_with('V') && all.trim_end_matches('V').chars().all(|c| c == '.'),
        "{all}"
    );
    std::fs::remove_file(&file).unwrap();
}
