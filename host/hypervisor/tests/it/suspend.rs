//! Suspend and resume against real QEMU: the guest counts in its memory, and must not miss a number.

use crate::support::{COUNTS, Host, cannot, eventually};
use haneul_agent_api::{FailureCode, Guest, GuestState, Power};
use haneul_hypervisor::Hypervisor;
use haneul_hypervisor::qemu::Qemu;
use std::fs;
use std::time::{Duration, Instant};

macro_rules! needs_qemu {
    () => {
        if let Some(why) = cannot() {
            println!("SKIPPED: {why}");
            return;
        }
    };
}

fn log(host: &Host) -> String {
    fs::read_to_string(host.guest_dir().join("console.log")).unwrap_or_default()
}

/// Waits for `n` more letters.
async fn counts_on(host: &Host, n: usize) {
    let before = log(host).len();
    eventually("the guest counts", || log(host).len() > before + n).await;
}

/// Every letter since the `boots`th boot follows the one before.
fn whole(host: &Host, boots: usize) {
    let log = log(host);
    assert_eq!(log.matches('B').count(), boots, "boots in {log}");
    let letters: Vec<u8> = log.rsplit('B').next().unwrap().bytes().collect();
    for (n, pair) in letters.windows(2).enumerate() {
        let next = if pair[0] == b'z' { b'a' } else { pair[0] + 1 };
        assert_eq!(pair[1], next, "letter {n} of {log}");
    }
}

async fn bring(q: &Qemu, host: &Host, g: &mut Guest, power: Power, generation: u64) -> GuestState {
    g.power = power;
    let seen = q.apply(1, generation, g, host.resources()).await.unwrap();
    assert!(seen.settled, "{seen:?}");
    seen.state
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_guest_goes_on_with_its_memory() {
    needs_qemu!();
    let host = Host::new(COUNTS);
    let q = host.open();
    let mut g = host.guest.clone();
    bring(&q, &host, &mut g, Power::Running, 1).await;
    counts_on(&host, 5).await;

    let start = Instant::now();
    assert_eq!(
        bring(&q, &host, &mut g, Power::Suspended, 2).await,
        GuestState::Suspended
    );
    println!("suspend: {:?}, {}", start.elapsed(), host.record()["saved"]);
    assert!(host.processes().is_empty());
    assert!(host.guest_dir().join("memory").exists() && !host.guest_dir().join("memory.part").exists());
    let then = log(&host);
    // Another agent finds it so, and leaves it so.
    drop(q);
    let q = host.open();
    let seen = q.observe_all().await.unwrap().remove(0);
    assert_eq!(
        (seen.state, seen.settled, seen.started_at),
        (GuestState::Suspended, true, None)
    );
    assert!(!q.needs_start(&g).await);
    bring(&q, &host, &mut g, Power::Suspended, 2).await;
    q.stop(g.id, true).await.unwrap();
    assert_eq!(q.observe(g.id).await.unwrap().state, GuestState::Suspended);
    assert_eq!(log(&host), then);

    g.power = Power::Running;
    assert!(q.needs_start(&g).await);
    let start = Instant::now();
    assert_eq!(bring(&q, &host, &mut g, Power::Running, 3).await, GuestState::Running);
    println!("resume: {:?}", start.elapsed());
    counts_on(&host, 30).await;
    whole(&host, 1);
    assert!(!host.guest_dir().join("memory").exists(), "older than the disk by now");

    // A hard reboot and a stop forget the memory; the next start boots.
    bring(&q, &host, &mut g, Power::Suspended, 4).await;
    g.hard_reboots = 1;
    bring(&q, &host, &mut g, Power::Running, 5).await;
    counts_on(&host, 5).await;
    whole(&host, 2);
    bring(&q, &host, &mut g, Power::Suspended, 6).await;
    assert_eq!(bring(&q, &host, &mut g, Power::Stopped, 7).await, GuestState::Stopped);
    assert!(!host.guest_dir().join("memory").exists());
    bring(&q, &host, &mut g, Power::Running, 8).await;
    counts_on(&host, 5).await;
    whole(&host, 3);

    // Without a process there is nothing to save.
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(host.pid()),
        nix::sys::signal::Signal::SIGKILL,
    )
    .unwrap();
    eventually("the process ends", || host.processes().is_empty()).await;
    eventually("that is noticed", || host.record()["process"].is_null()).await;
    g.power = Power::Suspended;
    let e = q.apply(1, 9, &g, host.resources()).await.unwrap_err();
    assert!(e.message.contains("no memory to save"), "{e:?}");
    q.remove(g.id).await.unwrap();
    q.purge();
}

/// Whenever an apply is dropped or countermanded, the guest counts on without a gap.
#[tokio::test(flavor = "multi_thread")]
async fn a_suspend_that_is_dropped_or_countermanded_loses_nothing() {
    needs_qemu!();
    let host = Host::new(COUNTS);
    let mut q = host.open();
    let mut g = host.guest.clone();
    bring(&q, &host, &mut g, Power::Running, 1).await;
    counts_on(&host, 5).await;
    let mut generation = 1;
    let (mut cut, mut done) = (0, 0);
    for ms in [1_u64, 4, 8, 12, 16, 20, 25, 30, 40, 60, 90, 140] {
        for power in [Power::Suspended, Power::Running] {
            generation += 1;
            g.power = power;
            let it = q.apply(1, generation, &g, host.resources());
            match tokio::time::timeout(Duration::from_millis(ms), it).await {
                Ok(seen) => {
                    seen.unwrap();
                    done += 1;
                }
                Err(_) => cut += 1,
            }
            if ms % 8 == 0 {
                // The next one is another agent's.
                drop(q);
                q = host.open();
                q.observe_all().await.unwrap();
            }
        }
        generation += 1;
        bring(&q, &host, &mut g, Power::Running, generation).await;
        counts_on(&host, 2).await;
        whole(&host, 1);
    }
    println!("{cut} applies were dropped, {done} came to their end");
    assert!(cut > 3, "nothing was dropped: the test is too slow");
    q.remove(g.id).await.unwrap();
    q.purge();
}

struct Mount(std::path::PathBuf);

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH);
    }
}

/// A disk without room refuses with numbers, and the guest counts on.
#[tokio::test(flavor = "multi_thread")]
async fn a_disk_without_room_refuses_a_suspend() {
    needs_qemu!();
    let host = Host::new(COUNTS);
    let at = host.dir.join("hv");
    fs::create_dir(&at).unwrap();
    let none: Option<&str> = None;
    nix::mount::mount(
        none,
        &at,
        Some("tmpfs"),
        nix::mount::MsFlags::empty(),
        Some("size=100m"),
    )
    .unwrap();
    let _mount = Mount(at);
    let q = host.open();
    let mut g = host.guest.clone();
    bring(&q, &host, &mut g, Power::Running, 1).await;
    counts_on(&host, 5).await;
    g.power = Power::Suspended;
    let e = q.apply(1, 2, &g, host.resources()).await.unwrap_err();
    assert_eq!(e.code, FailureCode::DiskFull);
    assert!(
        e.message.contains("64 MiB of memory needs 128 MiB") && e.message.contains("MiB free"),
        "{e:?}"
    );
    assert_eq!(q.observe(g.id).await.unwrap().state, GuestState::Running);
    counts_on(&host, 5).await;
    whole(&host, 1);
    q.remove(g.id).await.unwrap();
    q.purge();
}
