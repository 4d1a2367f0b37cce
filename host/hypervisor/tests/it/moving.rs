//! Guests that move between two drivers, against real QEMU: one that counts in its memory and misses no number, and one
//! that writes to its disk all the while.

use crate::support::{COUNTS, Host, SCRIBBLES, WRITES, cannot, eventually};
use haneul_agent_api::{
    Arriving, Failure, Guest, GuestState, Leaving, MoveAddress, MoveKey, MoveState, ObservedGuest, Power,
};
use haneul_blockdev::qcow2;
use haneul_hypervisor::qemu::Qemu;
use haneul_hypervisor::{Hypervisor, Resources};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};
use uuid::Uuid;

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

/// Two hosts that know one guest, and a move from the first to the second.
struct Lab {
    source: Host,
    target: Host,
    q: Option<Qemu>,
    p: Option<Qemu>,
    guest: Guest,
    shared: bool,
    key: MoveKey,
    id: Uuid,
    generation: u64,
}

impl Lab {
    async fn new(code: &[u8], shared: bool) -> Lab {
        let source = Host::new(code);
        let mut target = Host::below(code, "-to");
        target.guest = source.guest.clone();
        fs::copy(source.dir.join("image.raw"), target.dir.join("image.raw")).unwrap();
        for host in [&source, &target] {
            let mut root = File::create(host.dir.join("root.qcow2")).unwrap();
            qcow2::write_overlay(&mut root, &host.dir.join("image.raw"), "raw", DISK).unwrap();
            File::create(host.dir.join("local.raw"))
                .unwrap()
                .set_len(8 * MIB)
                .unwrap();
        }
        // What is on them comes along.
        let local = File::options().write(true).open(source.dir.join("local.raw")).unwrap();
        local.write_all_at(b"mine", 4 * MIB).unwrap();
        let bytes = fs::metadata(source.dir.join("config.iso")).unwrap().len();
        File::create(target.dir.join("config.iso"))
            .unwrap()
            .set_len(bytes)
            .unwrap();
        let mut lab = Lab {
            q: Some(source.open()),
            p: Some(target.open()),
            guest: source.guest.clone(),
            source,
            target,
            shared,
            key: MoveKey(format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple())),
            id: Uuid::new_v4(),
            generation: 1,
        };
        let seen = lab.q().apply(1, 1, &lab.guest, lab.at_source()).await.unwrap();
        assert_eq!(seen.state, GuestState::Running);
        lab.guest.power = Power::Running;
        lab
    }

    fn q(&self) -> &Qemu {
        self.q.as_ref().unwrap()
    }

    fn p(&self) -> &Qemu {
        self.p.as_ref().unwrap()
    }

    fn at_source(&self) -> Resources {
        let mut r = self.source.resources();
        r.local = vec![self.source.dir.join("local.raw")];
        r
    }

    fn at_target(&self) -> Resources {
        let mut r = self.target.resources();
        r.local = vec![self.target.dir.join("local.raw")];
        if self.shared {
            let theirs = self.at_source();
            (r.root, r.backing, r.local) = (theirs.root, theirs.backing, theirs.local);
        }
        r
    }

    /// Another agent on a host.
    async fn another(driver: &mut Option<Qemu>, host: &Host) {
        drop(driver.take());
        *driver = Some(host.open());
        driver.as_ref().unwrap().observe_all().await.unwrap();
    }

    fn arriving(&self, layout: &ObservedGuest) -> Guest {
        let mut g = self.guest.clone();
        g.arriving = Some(Box::new(Arriving {
            id: self.id,
            key: self.key.clone(),
            layout: *layout.layout.clone().unwrap(),
            shared_disks: self.shared,
        }));
        g
    }

    async fn arrive(&self) -> Result<MoveAddress, Failure> {
        let seen = self.q().observe(self.guest.id).await.unwrap();
        let seen = self.p().apply(1, 1, &self.arriving(&seen), self.at_target()).await?;
        assert_eq!(seen.state, GuestState::Building, "{seen:?}");
        match seen.moving.unwrap().state {
            MoveState::Listening(at) => Ok(at),
            other => panic!("{other:?}"),
        }
    }

    fn leaving(&self, to: MoveAddress) -> Guest {
        let mut g = self.guest.clone();
        g.leaving = Some(Box::new(Leaving {
            id: self.id,
            key: self.key.clone(),
            to,
            shared_disks: self.shared,
            downtime_ms: 300,
            abort: false,
            force: false,
        }));
        g
    }

    async fn leave(&mut self, to: MoveAddress) -> MoveState {
        self.generation += 1;
        let g = self.leaving(to);
        let seen = self.q().apply(1, self.generation, &g, self.at_source()).await.unwrap();
        seen.moving.unwrap().state
    }

    /// The source shall have it again, as control asks for when nothing is left on the target.
    async fn back(&mut self) -> ObservedGuest {
        self.p().remove(self.guest.id).await.unwrap();
        self.generation += 1;
        let g = self.guest.clone();
        self.q().apply(1, self.generation, &g, self.at_source()).await.unwrap()
    }

    async fn arrived(&self) {
        for _ in 0..6000 {
            let seen = self.p().observe(self.guest.id).await.unwrap();
            if seen.moving.as_ref().is_some_and(|m| m.state == MoveState::Arrived) {
                let wanted = match self.guest.power {
                    Power::Paused => GuestState::Paused,
                    _ => GuestState::Running,
                };
                assert_eq!(seen.state, wanted);
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("it did not arrive: {:?}", self.p().observe(self.guest.id).await);
    }

    fn log(host: &Host) -> String {
        fs::read_to_string(host.guest_dir().join("console.log")).unwrap_or_default()
    }

    async fn counts_on(host: &Host, n: usize) {
        let before = Self::log(host).len();
        eventually("the guest counts", || Self::log(host).len() > before + n).await;
    }

    /// All that it has ever said, first here and then there, is one alphabet after the other.
    fn whole(&self) {
        let all = format!("{}{}", Self::log(&self.source), Self::log(&self.target));
        assert_eq!(all.matches('B').count(), 1, "boots in {all}");
        let letters: Vec<u8> = all.rsplit('B').next().unwrap().bytes().collect();
        for (n, pair) in letters.windows(2).enumerate() {
            let next = if pair[0] == b'z' { b'a' } else { pair[0] + 1 };
            assert_eq!(pair[1], next, "letter {n} of {all}");
        }
    }

    /// Exactly one of the two runs, and it is this one.
    async fn runs_only(&self, there: bool) {
        let (on, off) = if there {
            (&self.target, &self.source)
        } else {
            (&self.source, &self.target)
        };
        Self::counts_on(on, 3).await;
        let before = Self::log(off);
        Self::counts_on(on, 5).await;
        assert_eq!(Self::log(off), before, "it runs twice");
    }

    async fn end(&self) {
        for (q, host) in [(self.q(), &self.source), (self.p(), &self.target)] {
            q.remove(self.guest.id).await.unwrap();
            assert!(host.processes().is_empty());
            q.purge();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_moves_with_all_its_disks() {
    needs_qemu!();
    let mut lab = Lab::new(COUNTS, false).await;
    Lab::counts_on(&lab.source, 5).await;
    let start = Instant::now();
    let at = lab.arrive().await.unwrap();
    assert!(at.disks_port.is_some());
    assert_eq!(lab.arrive().await.unwrap(), at, "asked again, it is the same");
    let key = lab.target.guest_dir().join("tls");
    let mode = std::os::unix::fs::MetadataExt::mode(&fs::metadata(key.join("keys.psk")).unwrap());
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(lab.leave(at).await, MoveState::HandedOver);
    lab.arrived().await;
    println!("moved with its disks in {:?}", start.elapsed());
    lab.runs_only(true).await;
    lab.whole();
    assert!(!key.exists() && !lab.source.guest_dir().join("tls").exists());
    for pid in lab.source.processes().iter().chain(&lab.target.processes()) {
        let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
        assert!(!line.contains(&lab.key.0));
    }
    let mut seen = [0; 4];
    let local = File::open(lab.target.dir.join("local.raw")).unwrap();
    local.read_exact_at(&mut seen, 4 * MIB).unwrap();
    assert_eq!(&seen, b"mine");
    let iso = |host: &Host| fs::read(host.dir.join("config.iso")).unwrap();
    assert!(iso(&lab.source) == iso(&lab.target), "the config drive came along");
    // What is asked of it from now on is asked there; a newer agent there knows that it is whole.
    Lab::another(&mut lab.p, &lab.target).await;
    let seen = lab.q().observe(lab.guest.id).await.unwrap();
    let arriving = lab.arriving(&seen);
    let seen = lab.p().apply(1, 2, &arriving, lab.at_target()).await.unwrap();
    assert_eq!((seen.state, seen.settled), (GuestState::Running, true), "{seen:?}");
    lab.q().remove(lab.guest.id).await.unwrap();
    let mut g = lab.guest.clone();
    g.power = Power::Paused;
    let seen = lab.p().apply(1, 3, &g, lab.at_target()).await.unwrap();
    assert_eq!((seen.state, seen.moving), (GuestState::Paused, None));
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_moves_between_hosts_that_share_its_disks() {
    needs_qemu!();
    let mut lab = Lab::new(COUNTS, true).await;
    Lab::counts_on(&lab.source, 5).await;
    let start = Instant::now();
    let at = lab.arrive().await.unwrap();
    let ready = start.elapsed();
    let still = std::thread::spawn(silence(&lab));
    assert_eq!(lab.leave(at).await, MoveState::HandedOver);
    lab.arrived().await;
    let whole = start.elapsed();
    let still = still.join().unwrap();
    println!("moved with a shared disk in {whole:?}, of which {ready:?} to make ready; it stood still for {still:?}");
    assert!(still < Duration::from_secs(2), "{still:?}");
    lab.runs_only(true).await;
    lab.whole();
    // Nothing here starts or goes on by itself, whatever is asked, for as long as it has left.
    Lab::another(&mut lab.q, &lab.source).await;
    assert_eq!(lab.leave(at).await, MoveState::HandedOver);
    let seen = lab.q().observe(lab.guest.id).await.unwrap();
    assert_eq!(seen.state, GuestState::Paused);
    lab.runs_only(true).await;
    lab.end().await;
}

/// One that moves stopped: its process here never runs a CPU, and there it is started anew, with more memory.
#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_guest_moves_and_is_started_anew() {
    needs_qemu!();
    for shared in [false, true] {
        let mut lab = Lab::new(COUNTS, shared).await;
        Lab::counts_on(&lab.source, 3).await;
        lab.guest.stop_timeout_s = 0;
        for (power, state) in [
            (Power::Stopped, GuestState::Stopped),
            (Power::Paused, GuestState::Paused),
        ] {
            lab.guest.power = power;
            lab.generation += 1;
            let seen = lab
                .q()
                .apply(1, lab.generation, &lab.guest, lab.at_source())
                .await
                .unwrap();
            assert_eq!((seen.state, seen.settled), (state, true));
        }
        let before = Lab::log(&lab.source);
        let at = lab.arrive().await.unwrap();
        assert_eq!(lab.leave(at).await, MoveState::HandedOver);
        lab.arrived().await;
        assert_eq!((Lab::log(&lab.source), Lab::log(&lab.target)), (before, String::new()));
        lab.q().remove(lab.guest.id).await.unwrap();
        let mut g = lab.guest.clone();
        (g.power, g.memory_mib) = (Power::Running, lab.guest.memory_mib + 32);
        g.hard_reboots += 1;
        let seen = lab.p().apply(1, 2, &g, lab.at_target()).await.unwrap();
        assert_eq!((seen.state, seen.memory_mib), (GuestState::Running, g.memory_mib));
        Lab::counts_on(&lab.target, 3).await;
        let mut seen = [0; 4];
        let local = File::open(&lab.at_target().local[0]).unwrap();
        local.read_exact_at(&mut seen, 4 * MIB).unwrap();
        assert_eq!(&seen, b"mine");
        lab.end().await;
    }
}

/// From the last letter here to the first there.
fn silence(lab: &Lab) -> impl FnOnce() -> Duration + Send + 'static {
    let logs = [&lab.source, &lab.target].map(|h| h.guest_dir().join("console.log"));
    let len = |p: &PathBuf| fs::metadata(p).map_or(0, |m| m.len());
    move || {
        let (mut last, mut seen) = (Instant::now(), 0);
        let (before, end) = (len(&logs[1]), Instant::now() + Duration::from_secs(20));
        while Instant::now() < end {
            if len(&logs[0]) != seen {
                (last, seen) = (Instant::now(), len(&logs[0]));
            }
            if len(&logs[1]) > before {
                break;
            }
            std::thread::sleep(Duration::from_micros(500));
        }
        last.elapsed()
    }
}

/// Whoever dies in between, one guest runs: there, or here.
#[tokio::test(flavor = "multi_thread")]
async fn agents_that_die_in_between_go_on_or_give_up() {
    needs_qemu!();
    let (mut cut, mut moved) = (0, 0);
    for ms in [5_u64, 20, 60, 120, 250, 500] {
        let mut lab = Lab::new(COUNTS, false).await;
        Lab::counts_on(&lab.source, 3).await;
        let at = lab.arrive().await.unwrap();
        if tokio::time::timeout(Duration::from_millis(ms), lab.leave(at))
            .await
            .is_err()
        {
            cut += 1;
        }
        Lab::another(&mut lab.q, &lab.source).await;
        Lab::another(&mut lab.p, &lab.target).await;
        match lab.leave(at).await {
            MoveState::HandedOver => {
                let seen = lab.q().observe(lab.guest.id).await.unwrap();
                lab.p()
                    .apply(1, 1, &lab.arriving(&seen), lab.at_target())
                    .await
                    .unwrap();
                lab.arrived().await;
                lab.runs_only(true).await;
                moved += 1;
            }
            MoveState::Failed(why) => {
                println!("given up after {ms} ms: {why:?}");
                assert_eq!(lab.back().await.state, GuestState::Running);
                lab.runs_only(false).await;
            }
            other => panic!("{other:?}"),
        }
        lab.whole();
        lab.end().await;
    }
    println!("{cut} were cut off, {moved} moved all the same");
    assert!(cut > 1 && moved > 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_that_fails_or_is_aborted_leaves_the_guest_where_it_was() {
    needs_qemu!();
    let kill = |host: &Host| {
        let pid = nix::unistd::Pid::from_raw(host.pid());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    };
    // The target's process dies before anything was sent.
    let mut lab = Lab::new(COUNTS, false).await;
    Lab::counts_on(&lab.source, 3).await;
    let at = lab.arrive().await.unwrap();
    kill(&lab.target);
    assert!(matches!(lab.leave(at).await, MoveState::Failed(_)));
    eventually("that is noticed", || lab.target.record()["process"].is_null()).await;
    let seen = lab.p().observe(lab.guest.id).await.unwrap();
    assert!(matches!(seen.moving.unwrap().state, MoveState::Failed(_)));
    assert_eq!(lab.back().await.state, GuestState::Running);
    lab.runs_only(false).await;
    lab.whole();

    // A key that is not the move's opens nothing.
    lab.id = Uuid::new_v4();
    let at = lab.arrive().await.unwrap();
    let key = std::mem::replace(&mut lab.key, MoveKey("ab".repeat(32)));
    assert!(matches!(lab.leave(at).await, MoveState::Failed(_)));
    lab.key = key;
    assert_eq!(lab.back().await.state, GuestState::Running);
    lab.runs_only(false).await;

    // Aborted while it sends.
    lab.id = Uuid::new_v4();
    let at = lab.arrive().await.unwrap();
    let _ = tokio::time::timeout(Duration::from_millis(30), lab.leave(at)).await;
    let mut g = lab.leaving(at);
    g.leaving.as_mut().unwrap().abort = true;
    lab.generation += 1;
    let seen = lab.q().apply(1, lab.generation, &g, lab.at_source()).await.unwrap();
    let MoveState::Failed(why) = seen.moving.unwrap().state else {
        panic!("it was not aborted")
    };
    assert!(why.message.contains("aborted"), "{why:?}");
    assert_eq!(lab.back().await.state, GuestState::Running);
    lab.runs_only(false).await;

    // The target's process dies after it was handed the guest, and before that ran: the source has it still.
    lab.id = Uuid::new_v4();
    let at = lab.arrive().await.unwrap();
    let p = lab.p.take();
    drop(p);
    assert_eq!(lab.leave(at).await, MoveState::HandedOver);
    kill(&lab.target);
    lab.p = Some(lab.target.open());
    lab.p().observe_all().await.unwrap();
    assert_eq!(lab.back().await.state, GuestState::Running);
    lab.runs_only(false).await;
    lab.whole();

    // The same, and it may have run there: it has come, and has ended.
    lab.id = Uuid::new_v4();
    let at = lab.arrive().await.unwrap();
    drop(lab.p.take());
    assert_eq!(lab.leave(at).await, MoveState::HandedOver);
    let mut record = lab.target.record();
    assert_eq!(record["arriving"]["came"], false);
    record["arriving"]["came"] = true.into();
    fs::write(lab.target.guest_dir().join("record.json"), record.to_string()).unwrap();
    kill(&lab.target);
    lab.p = Some(lab.target.open());
    lab.p().observe_all().await.unwrap();
    eventually("its end is noticed", || lab.target.record()["process"].is_null()).await;
    let layout = lab.q().observe(lab.guest.id).await.unwrap();
    let arriving = lab.arriving(&layout);
    let seen = lab.p().apply(1, 1, &arriving, lab.at_target()).await.unwrap();
    assert_eq!(seen.moving.unwrap().state, MoveState::Arrived);
    assert_eq!(seen.state, GuestState::Stopped);
    lab.end().await;
}

/// A guest that writes faster than it may stand still moves only when that is forced; it goes on meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_writes_all_its_memory_moves_when_it_is_forced() {
    needs_qemu!();
    let lab = Lab::new(SCRIBBLES, true).await;
    Lab::counts_on(&lab.source, 3).await;
    let at = lab.arrive().await.unwrap();
    let mut g = lab.leaving(at);
    g.leaving.as_mut().unwrap().downtime_ms = 1;
    tokio::select! {
        seen = lab.q().apply(1, 2, &g, lab.at_source()) => panic!("it is over: {seen:?}"),
        // QEMU takes ever more of its time from it.
        () = Lab::counts_on(&lab.source, 3) => {}
    }
    let seen = lab.q().observe(lab.guest.id).await.unwrap();
    let state = seen.moving.map(|m| m.state);
    assert!(matches!(state, Some(MoveState::Moving(_))), "{state:?}");
    g.leaving.as_mut().unwrap().force = true;
    let seen = lab.q().apply(1, 3, &g, lab.at_source()).await.unwrap();
    assert_eq!(seen.moving.unwrap().state, MoveState::HandedOver);
    lab.arrived().await;
    lab.runs_only(true).await;
    lab.whole();
    lab.end().await;
}

/// The two numbers that the guest of [`WRITES`] writes one after the other.
fn numbers(layer: &PathBuf, seen: &PathBuf) -> (u32, u32) {
    let out = Command::new("qemu-img")
        .args(["convert", "-f", "qcow2", "-O", "raw"])
        .args([layer, seen])
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let seen = File::open(seen).unwrap();
    let at = |place| {
        let mut bytes = [0; 4];
        seen.read_exact_at(&mut bytes, place).unwrap();
        u32::from_le_bytes(bytes)
    };
    (at(512), at(0x8_0000 * 512))
}

#[tokio::test(flavor = "multi_thread")]
async fn no_write_of_a_busy_guest_is_lost() {
    needs_qemu!();
    let mut lab = Lab::new(WRITES, false).await;
    let layer = lab.source.dir.join("root.qcow2");
    let changed = || fs::metadata(&layer).unwrap().modified().unwrap();
    let before = changed();
    eventually("the guest writes", || changed() > before).await;
    let at = lab.arrive().await.unwrap();
    assert_eq!(lab.leave(at).await, MoveState::HandedOver);
    lab.arrived().await;
    lab.q().remove(lab.guest.id).await.unwrap();
    let (there, seen) = (lab.target.dir.join("root.qcow2"), lab.target.dir.join("seen.raw"));
    let (first, _) = numbers(&layer, &lab.source.dir.join("seen.raw"));
    let changed = || fs::metadata(&there).unwrap().modified().unwrap();
    let before = changed();
    eventually("the guest writes there", || changed() > before).await;
    let mut g = lab.guest.clone();
    g.power = Power::Suspended;
    lab.p().apply(1, 2, &g, lab.at_target()).await.unwrap();
    let (a, b) = numbers(&there, &seen);
    assert!(
        a > first && (a == b || a == b + 1),
        "{first} here, then {a} and {b} there"
    );
    lab.end().await;
}
