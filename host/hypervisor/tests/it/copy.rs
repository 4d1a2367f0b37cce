//! Copies of the disk of a guest that writes to it, against real QEMU.

use crate::support::{Host, WRITES, cannot, eventually};
use haneul_agent_api::{Failure, Guest, GuestState, Power};
use haneul_hypervisor::qemu::Qemu;
use haneul_hypervisor::{Hold, Hypervisor};
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use tokio::sync::Notify;

macro_rules! needs_qemu {
    () => {
        if let Some(why) = cannot() {
            println!("SKIPPED: {why}");
            return;
        }
    };
}

const MIB: u64 = 1 << 20;
const DISK: u64 = 300 * MIB;
/// Where the guest writes its number first, and where second.
const FIRST: u64 = 512;
const SECOND: u64 = 0x8_0000 * 512;

struct Lab {
    host: Host,
    guest: Guest,
    generation: u64,
}

impl Lab {
    fn new() -> Lab {
        let host = Host::new(WRITES);
        // 128 MiB that are not zeros: a copy takes a moment.
        let image = File::options().write(true).open(host.dir.join("image.raw")).unwrap();
        let data = vec![0x55; MIB as usize];
        for n in 1..128 {
            std::os::unix::fs::FileExt::write_all_at(&image, &data, n * MIB).unwrap();
        }
        let mut root = File::create(host.dir.join("root.qcow2")).unwrap();
        haneul_blockdev::qcow2::write_overlay(&mut root, &host.dir.join("image.raw"), "raw", DISK).unwrap();
        let guest = host.guest.clone();
        Lab {
            host,
            guest,
            generation: 0,
        }
    }

    async fn bring(&mut self, q: &Qemu, power: Power) -> GuestState {
        self.guest.power = power;
        self.generation += 1;
        let seen = q
            .apply(1, self.generation, &self.guest, self.host.resources())
            .await
            .unwrap();
        assert!(seen.settled, "{seen:?}");
        seen.state
    }

    fn target(&self) -> PathBuf {
        let path = self.host.dir.join("copy.qcow2");
        // Another file: QEMU may be writing to the one before.
        let _ = fs::remove_file(&path);
        haneul_blockdev::qcow2::write_empty(&mut File::create(&path).unwrap(), 512).unwrap();
        path
    }

    async fn copy(&self, q: &Qemu) -> Result<Option<Hold>, Failure> {
        q.copy_disk(self.guest.id, &self.target(), Arc::new(|_| {})).await
    }

    /// A copy that is dropped at the first word on how far it is.
    async fn dropped(&self, q: &Qemu) {
        let (told, target) = (Arc::new(Notify::new()), self.target());
        let bell = told.clone();
        tokio::select! {
            biased;
            () = told.notified() => {}
            r = q.copy_disk(self.guest.id, &target, Arc::new(move |_| bell.notify_one())) => {
                panic!("the copy ended: {:?}", r.map(|_| ()));
            }
        }
    }

    /// The two numbers of a disk.
    fn numbers(&self, file: &str) -> (u32, u32) {
        let run = |args: &[&str]| {
            let out = Command::new("qemu-img")
                .args(args)
                .current_dir(&self.host.dir)
                .output()
                .unwrap();
            assert!(
                out.status.success(),
                "{args:?}: {}",
                String::from_utf8_lossy(&out.stderr)
            );
        };
        run(&["check", "-q", "-f", "qcow2", file]);
        run(&["convert", "-f", "qcow2", "-O", "raw", file, "seen.raw"]);
        let seen = File::open(self.host.dir.join("seen.raw")).unwrap();
        assert_eq!(seen.metadata().unwrap().len(), DISK);
        let at = |place| {
            let mut bytes = [0; 4];
            std::os::unix::fs::FileExt::read_exact_at(&seen, &mut bytes, place).unwrap();
            u32::from_le_bytes(bytes)
        };
        assert_eq!(at(100 * MIB), 0x5555_5555, "what the image below holds");
        (at(FIRST), at(SECOND))
    }

    /// The copy is of one instant, and has nothing below it.
    fn whole(&self) -> u32 {
        let (first, second) = self.numbers("copy.qcow2");
        assert!(first == second || first == second + 1, "{first} and {second}");
        assert!(first > 0);
        first
    }

    /// The guest goes on writing.
    async fn writes(&self) {
        let layer = self.host.dir.join("root.qcow2");
        let changed = || fs::metadata(&layer).unwrap().modified().unwrap();
        let before = changed();
        eventually("the guest writes", || changed() > before).await;
    }
}

/// The guest writes all the while; the copy is of one instant.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_is_of_one_instant_and_the_guest_goes_on() {
    needs_qemu!();
    let mut lab = Lab::new();
    let mut q = lab.host.open();
    assert_eq!(lab.bring(&q, Power::Running).await, GuestState::Running);
    lab.writes().await;
    let start = std::time::Instant::now();
    assert!(lab.copy(&q).await.unwrap().is_none());
    println!("copied in {:?}", start.elapsed());
    let first = lab.whole();
    lab.writes().await;

    // Dropped in the middle, by this driver or with it: the next begins anew, and is later.
    for agent_dies in [false, true] {
        lab.dropped(&q).await;
        assert_eq!(lab.host.record()["copying"], true);
        if agent_dies {
            drop(q);
            q = lab.host.open();
            q.observe_all().await.unwrap();
        }
        assert!(lab.copy(&q).await.unwrap().is_none());
        assert_eq!(lab.host.record()["copying"], false);
        assert!(lab.whole() > first);
        lab.writes().await;
    }

    // What wants no copy ends one: a suspend would be refused beside it.
    lab.dropped(&q).await;
    assert_eq!(lab.bring(&q, Power::Paused).await, GuestState::Paused);
    assert_eq!(lab.host.record()["copying"], false);
    assert!(lab.copy(&q).await.unwrap().is_none());
    let paused = lab.whole();
    assert_eq!(lab.bring(&q, Power::Suspended).await, GuestState::Suspended);

    // Without a process there is nothing to ask: its files hold still until we let go.
    let hold = lab.copy(&q).await.unwrap().expect("no process");
    lab.guest.power = Power::Running;
    let start = q.apply(1, 99, &lab.guest, lab.host.resources());
    let early = tokio::time::timeout(std::time::Duration::from_millis(300), start).await;
    assert!(
        early.is_err(),
        "a process was started beside somebody who reads its disk"
    );
    assert_eq!(lab.numbers("root.qcow2").0, paused);
    drop(hold);
    lab.generation = 99;
    assert_eq!(lab.bring(&q, Power::Running).await, GuestState::Running);
    q.remove(lab.guest.id).await.unwrap();
    q.purge();
}

/// A process that dies in the middle ends the copy, says so, and its disk is sound.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_whose_guest_dies_ends_and_harms_nothing() {
    needs_qemu!();
    let mut lab = Lab::new();
    let q = lab.host.open();
    lab.bring(&q, Power::Running).await;
    lab.writes().await;
    let pid = nix::unistd::Pid::from_raw(lab.host.pid());
    let killed = std::sync::Once::new();
    let kill = move |_| {
        killed.call_once(|| nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap());
    };
    let target = lab.target();
    let e = q.copy_disk(lab.guest.id, &target, Arc::new(kill)).await.map(|_| ());
    assert!(
        e.as_ref()
            .is_err_and(|e| e.message.contains("ended while its disk was copied")),
        "{e:?}"
    );
    eventually("that is noticed", || lab.host.record()["process"].is_null()).await;
    assert_eq!(lab.host.record()["copying"], false);
    let (first, second) = lab.numbers("root.qcow2");
    assert!(first == second || first == second + 1, "{first} and {second}");
    drop(lab.copy(&q).await.unwrap().expect("no process"));
    q.remove(lab.guest.id).await.unwrap();
    q.purge();
}

struct Mount(PathBuf);

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH);
    }
}

/// A disk that becomes full ends the copy, and the guest goes on, whatever it wrote meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_without_room_ends_and_the_guest_goes_on() {
    needs_qemu!();
    let mut lab = Lab::new();
    let at = lab.host.dir.join("small");
    fs::create_dir(&at).unwrap();
    let (none, flags): (Option<&str>, _) = (None, nix::mount::MsFlags::empty());
    nix::mount::mount(none, &at, Some("tmpfs"), flags, Some("size=20m")).unwrap();
    let _mount = Mount(at.clone());
    let q = lab.host.open();
    lab.bring(&q, Power::Running).await;
    lab.writes().await;
    let path = at.join("copy.qcow2");
    haneul_blockdev::qcow2::write_empty(&mut File::create(&path).unwrap(), 512).unwrap();
    let e = q.copy_disk(lab.guest.id, &path, Arc::new(|_| {})).await.map(|_| ());
    let e = e.unwrap_err();
    assert_eq!(e.code, haneul_agent_api::FailureCode::DiskFull, "{e:?}");
    assert_eq!(lab.bring(&q, Power::Running).await, GuestState::Running);
    lab.writes().await;
    q.remove(lab.guest.id).await.unwrap();
    q.purge();
}
