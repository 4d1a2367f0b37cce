//! The real lane: a host that is cut off, with guests whose disks another host reaches.

use crate::real_hosts::{Second, only};
use crate::real_lab::{Real, cannot};
use haneul_testkit::{Cloud, eventually};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

struct Shared(PathBuf);

impl Drop for Shared {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Whether a process of this machine runs the guest for that agent: its directory is named by the monitor's socket.
fn has_process(dir: &Path, server: &str) -> bool {
    let lock = dir.join("agent/qemu/guests").join(server).join("lock");
    let Ok(file) = std::fs::File::open(lock) else {
        return false;
    };
    // Held by a guest's process for its whole life.
    nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockExclusiveNonblock).is_err()
}

/// The wire to a host is cut; all of its processes live. Its supervisor ends the guest, and the other host starts it from the
/// same disk; nobody ever runs it beside. When the wire is mended, the host comes back without it.
#[tokio::test(flavor = "multi_thread")]
async fn real_lost_host_ends_its_guest_and_the_other_starts_it() {
    if let Some(why) = cannot() {
        println!("SKIPPED: {why}");
        return;
    }
    let wire = Second::wire();
    let shared = Shared(std::env::temp_dir().join(format!("haneul-disks-{}", haneul_core::id::hex())));
    std::fs::create_dir(&shared.0).unwrap();
    let disks = format!("agent.shared_disks={}", shared.0.display());
    let listen = Cloud::fleet_listen().replace("127.0.0.1", "10.98.7.1");
    let sets = [
        "agent.underlay=10.98.7.1",
        &listen,
        &disks,
        "agent.lease_term_s=3",
        "ha.lost_after_s=1",
    ];
    let r = Real::with("172.31.223.0/24", sets.map(str::to_owned).to_vec()).await;
    let mut two = wire;
    two.start(&r.cloud, &[&disks, "agent.lease_term_s=3"]).await;
    let there = two.member.as_ref().unwrap().dir.clone();
    let admin = r.admin.at("compute 2.53");
    let c = r.project("alpha").await;
    let (net, _) = r.network(&c).await;
    r.group(&c).await;
    only(&admin, "two").await;
    let server = r.server(&c, "one", &net, "10.9.0.10").await;
    r.wait(&c, &server, "ACTIVE").await;
    let (_, address) = r.floating(&c, &server).await;
    let login = async |command: &str| {
        eventually(&format!("{command} on {address}"), Duration::from_secs(90), || async {
            let outside = r.ssh(&address, command).output().unwrap();
            outside
                .status
                .success()
                .then(|| String::from_utf8_lossy(&outside.stdout).trim().to_owned())
        })
        .await
    };
    assert!(has_process(&there, &server));
    login("echo kept > /root/kept && sync").await;
    let services = admin
        .get("/compute/v2.1/os-services?binary=nova-compute")
        .await
        .expect(200);
    let services = services["services"].as_array().unwrap();
    let here = services.iter().find(|s| s["host"] != "two").unwrap()["host"]
        .as_str()
        .unwrap();
    only(&admin, here).await;

    two.cut();
    let cut = Instant::now();
    eventually("the guest runs here", Duration::from_secs(60), || async {
        assert!(
            !(has_process(&there, &server) && has_process(&r.cloud.dir, &server)),
            "the guest runs on both hosts"
        );
        has_process(&r.cloud.dir, &server).then_some(())
    })
    .await;
    println!("the guest was started on the other host after {:?}", cut.elapsed());
    r.wait(&c, &server, "ACTIVE").await;
    assert_eq!(login("cat /root/kept").await, "kept");
    println!("somebody was logged in to it after {:?}", cut.elapsed());
    assert!(!has_process(&there, &server));

    two.mend();
    let member = two.member.as_mut().unwrap();
    // The supervisor ended the agent with the lease; systemd would start it.
    member.kill_agent();
    member.start_agent();
    member.is(&r.cloud, "up").await;
    eventually(
        "nothing of the guest is left there",
        Duration::from_secs(30),
        || async { (!there.join("agent/qemu/guests").join(&server).exists()).then_some(()) },
    )
    .await;
    assert_eq!(login("cat /root/kept").await, "kept");
    r.cloud.audit().await;
}
