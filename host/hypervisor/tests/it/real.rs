//! The driver against real QEMU.

use crate::support::{DEAF, Host, OBEYS, SWITCHES_OFF, UID, cannot, eventually, resources};
use haneul_agent_api::{FailureCode, Guest, GuestState, Power};
use haneul_hypervisor::Hypervisor;
use haneul_hypervisor::qemu::qmp::{Event, Qmp};
use haneul_hypervisor::qemu::{Config, Qemu};
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

macro_rules! needs_qemu {
    () => {
        if let Some(why) = cannot() {
            println!("SKIPPED: {why}");
            return;
        }
    };
}

fn signal(pid: i32, s: nix::sys::signal::Signal) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), s).unwrap();
}

fn boots(q: &Qemu, g: &Guest) -> usize {
    let log = futures(q.console_log(g.id, None)).unwrap();
    log.iter().filter(|b| **b == b'B').count()
}

/// Blocks on a short future inside a multi-threaded test.
fn futures<T>(f: impl std::future::Future<Output = T>) -> T {
    tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(f))
}

#[tokio::test(flavor = "multi_thread")]
async fn life_of_a_guest() {
    needs_qemu!();
    let host = Host::new(DEAF);
    let q = host.open();
    let mut g = host.guest.clone();
    assert!(q.observe(g.id).await.is_none());
    assert!(q.needs_start(&g).await);

    let start = Instant::now();
    let seen = q.apply(1, 1, &g, host.resources()).await.unwrap();
    println!("apply until running: {:?}", start.elapsed());
    assert_eq!(
        (seen.state, seen.settled, seen.generation),
        (GuestState::Running, true, 1)
    );
    assert!(!q.needs_start(&g).await);

    // Without rights, in a session and cgroups of its own, with nothing open that it shall not have.
    let pid = host.pid();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let field = |name: &str| {
        let line = status.lines().find(|l| l.starts_with(name)).unwrap();
        line.split_whitespace().skip(1).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(field("Uid:"), vec![UID.to_string(); 4]);
    assert_eq!(field("Gid:"), vec![UID.to_string(); 4]);
    assert!(field("Groups:").is_empty());
    assert_eq!(field("CapEff:"), ["0000000000000000"]);
    assert_eq!(field("CapPrm:"), ["0000000000000000"]);
    assert_eq!(field("NoNewPrivs:"), ["1"]);
    assert_eq!(field("Seccomp:"), ["2"]);
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let session = stat
        .rsplit_once(')')
        .unwrap()
        .1
        .split_whitespace()
        .nth(3)
        .unwrap()
        .to_owned();
    assert_eq!(session, pid.to_string());
    if host.cgroups().is_empty() {
        println!("SKIPPED the part about cgroups: none to be had");
    } else {
        let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
        // Also where systemd (v1's name=systemd, v2's empty name) looks for what belongs to a unit.
        let ours = |l: &&str| ["cpu", "memory", "pids", "name=systemd", ""].contains(&l.split(':').nth(1).unwrap());
        assert!(groups.lines().filter(ours).count() > 0, "{groups}");
        for line in groups.lines().filter(ours) {
            assert!(line.ends_with(&format!("/{}", g.id)), "{groups}");
        }
    }
    for fd in fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten() {
        let target = fs::read_link(fd.path()).unwrap_or_default();
        assert!(!target.ends_with("hv/lock"), "{target:?}");
    }
    println!("resident: {} KiB", field("VmRSS:")[0]);

    // An older order changes nothing.
    let mut old = g.clone();
    old.power = Power::Stopped;
    assert_eq!(
        q.apply(1, 0, &old, host.resources()).await.unwrap().state,
        GuestState::Running
    );

    // Another agent takes over.
    drop(q);
    let q = host.open();
    let all = q.observe_all().await.unwrap();
    assert_eq!(all.len(), 1);
    assert_eq!(
        (all[0].state, all[0].settled, all[0].failure.clone()),
        (GuestState::Running, true, None)
    );
    assert_eq!(host.pid(), pid);
    assert_eq!(q.processes(), [g.id]);
    let mut events = q.events().unwrap();

    g.power = Power::Paused;
    assert_eq!(
        q.apply(1, 2, &g, host.resources()).await.unwrap().state,
        GuestState::Paused
    );
    g.power = Power::Running;
    assert_eq!(
        q.apply(1, 3, &g, host.resources()).await.unwrap().state,
        GuestState::Running
    );
    assert_eq!(host.pid(), pid);

    // The disk grows while it runs, and the size is kept.
    g.root.size_gib = 1;
    q.apply(1, 4, &g, host.resources()).await.unwrap();
    assert_eq!(host.pid(), pid);
    let mut header = fs::read(host.dir.join("root.qcow2")).unwrap();
    header.truncate(32);
    assert_eq!(header[24..32], (1_u64 << 30).to_be_bytes());

    g.hard_reboots = 1;
    assert!(q.needs_start(&g).await);
    let start = Instant::now();
    let seen = q.apply(1, 5, &g, host.resources()).await.unwrap();
    println!("hard reboot: {:?}", start.elapsed());
    assert_eq!((seen.state, seen.hard_reboots), (GuestState::Running, 1));
    assert_ne!(host.pid(), pid);
    let pid = host.pid();
    // The same again is no second reboot.
    q.apply(1, 5, &g, host.resources()).await.unwrap();
    assert_eq!(host.pid(), pid);

    g.vcpus = 2;
    g.memory_mib = 96;
    g.stop_timeout_s = 0;
    let seen = q.apply(1, 6, &g, host.resources()).await.unwrap();
    assert_eq!((seen.vcpus, seen.memory_mib), (2, 96));
    assert_eq!(host.record()["machine"], "pc-i440fx-10.0");

    // A process that dies is told, and started again by the next apply.
    signal(host.pid(), nix::sys::signal::Signal::SIGKILL);
    let told = tokio::time::timeout(Duration::from_secs(60), events.recv())
        .await
        .unwrap();
    assert_eq!(told, Some(g.id));
    let seen = q.observe(g.id).await.unwrap();
    assert_eq!((seen.state, seen.settled), (GuestState::Stopped, false));
    assert!(q.needs_start(&g).await);
    assert_eq!(
        q.apply(1, 6, &g, host.resources()).await.unwrap().state,
        GuestState::Running
    );

    // Stop keeps the record, remove leaves nothing.
    let start = Instant::now();
    q.stop(g.id, true).await.unwrap();
    println!("hard stop: {:?}", start.elapsed());
    assert!(host.processes().is_empty());
    assert_eq!(
        q.apply(1, 6, &g, host.resources()).await.unwrap().state,
        GuestState::Running
    );
    q.remove(g.id).await.unwrap();
    q.remove(g.id).await.unwrap();
    assert!(q.observe(g.id).await.is_none());
    assert!(host.processes().is_empty());
    assert!(!host.guest_dir().exists());
    q.purge();
    assert!(host.cgroups().is_empty(), "{:?}", host.cgroups());
}

#[tokio::test(flavor = "multi_thread")]
async fn acpi_power_button() {
    needs_qemu!();
    let host = Host::new(OBEYS);
    let q = host.open();
    let mut g = host.guest.clone();
    q.apply(1, 1, &g, host.resources()).await.unwrap();
    let pid = host.pid();
    eventually("the guest boots", || boots(&q, &g) == 1).await;

    g.soft_reboots = 1;
    let seen = q.apply(1, 2, &g, host.resources()).await.unwrap();
    assert_eq!((seen.state, seen.soft_reboots), (GuestState::Running, 1));
    assert_eq!(host.pid(), pid, "a soft reboot keeps the process");
    eventually("the guest boots again", || boots(&q, &g) == 2).await;

    // Asked to stop, and told otherwise before it has: it comes back by itself or stays.
    g.power = Power::Paused;
    q.apply(1, 3, &g, host.resources()).await.unwrap();
    g.power = Power::Running;
    q.apply(1, 4, &g, host.resources()).await.unwrap();

    g.power = Power::Stopped;
    let start = Instant::now();
    let seen = q.apply(1, 5, &g, host.resources()).await.unwrap();
    println!("soft stop: {:?}", start.elapsed());
    assert_eq!((seen.state, seen.settled), (GuestState::Stopped, true));
    assert!(host.processes().is_empty());
    q.remove(g.id).await.unwrap();
    q.purge();
}

#[tokio::test(flavor = "multi_thread")]
async fn deaf_guest_is_rebooted_hard() {
    needs_qemu!();
    // Sockets' addresses are limited to 107 bytes, directories are not.
    let host = Host::below(DEAF, &"-long".repeat(30));
    let q = host.open();
    let mut g = host.guest.clone();
    g.stop_timeout_s = 1;
    q.apply(1, 1, &g, host.resources()).await.unwrap();
    let pid = host.pid();
    g.soft_reboots = 1;
    assert!(q.needs_start(&g).await, "it may turn hard");
    let seen = q.apply(1, 2, &g, host.resources()).await.unwrap();
    assert_eq!((seen.state, seen.soft_reboots), (GuestState::Running, 1));
    assert_ne!(host.pid(), pid);
    q.remove(g.id).await.unwrap();
    q.purge();
}

/// A stop that was begun and then countermanded: the guest, which switches off all the same, is let go on.
#[tokio::test(flavor = "multi_thread")]
async fn countermanded_stop() {
    needs_qemu!();
    let host = Host::new(OBEYS);
    let q = host.open();
    let mut events = q.events().unwrap();
    let mut g = host.guest.clone();
    q.apply(1, 1, &g, host.resources()).await.unwrap();
    // Before the guest has booted nobody sees the button; the future is dropped in the middle.
    g.power = Power::Stopped;
    let dropped = tokio::time::timeout(Duration::from_millis(200), q.apply(1, 2, &g, host.resources())).await;
    assert!(dropped.is_err());
    g.power = Power::Running;
    let seen = q.apply(1, 3, &g, host.resources()).await.unwrap();
    assert_eq!(seen.state, GuestState::Running);
    eventually("the guest boots", || boots(&q, &g) == 1).await;
    let mut monitor = Monitor::through(&host, q).await;
    monitor.execute("system_powerdown").await;
    let q = monitor.give_back(&host).await;
    let _ = events.try_recv();
    let mut events = q.events().unwrap();
    let seen = q.observe_all().await.unwrap();
    if seen[0].state == GuestState::Running {
        tokio::time::timeout(Duration::from_secs(60), events.recv())
            .await
            .unwrap();
    }
    let seen = q.observe(g.id).await.unwrap();
    assert_eq!(
        (seen.state, seen.settled),
        (GuestState::Stopped, false),
        "our button, not its own wish"
    );
    let pid = host.pid();
    let seen = q.apply(1, 3, &g, host.resources()).await.unwrap();
    assert_eq!(seen.state, GuestState::Running);
    assert_eq!(host.pid(), pid);
    eventually("the guest boots again", || boots(&q, &g) == 2).await;
    q.remove(g.id).await.unwrap();
    q.purge();
}

/// The monitor by hand, while no driver holds it.
struct Monitor(Qmp, #[allow(dead_code)] tokio::sync::mpsc::Receiver<Event>);
impl Monitor {
    async fn through(host: &Host, q: Qemu) -> Self {
        drop(q);
        let path = host.guest_dir().join("qmp");
        let (qmp, events) = Qmp::connect(&path, Duration::from_secs(5)).await.unwrap();
        Self(qmp, events)
    }
    async fn execute(&mut self, command: &str) {
        self.0
            .execute(command, serde_json::Value::Null, Duration::from_secs(5))
            .await
            .unwrap();
    }
    async fn give_back(self, host: &Host) -> Qemu {
        drop(self);
        host.open()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn guest_switches_itself_off() {
    needs_qemu!();
    let host = Host::new(SWITCHES_OFF);
    let q = host.open();
    let mut events = q.events().unwrap();
    let g = host.guest.clone();
    q.apply(1, 1, &g, host.resources()).await.unwrap();
    let told = tokio::time::timeout(Duration::from_secs(60), events.recv())
        .await
        .unwrap();
    assert_eq!(told, Some(g.id));
    let seen = q.observe(g.id).await.unwrap();
    assert_eq!((seen.state, seen.settled), (GuestState::Stopped, true));
    assert!(host.processes().is_empty());
    // The same desired state does not bring it back, not even in another agent; a newer one does.
    assert_eq!(
        q.apply(1, 1, &g, host.resources()).await.unwrap().state,
        GuestState::Stopped
    );
    drop(q);
    let q = host.open();
    assert_eq!(q.observe_all().await.unwrap()[0].state, GuestState::Stopped);
    assert_eq!(
        q.apply(1, 1, &g, host.resources()).await.unwrap().state,
        GuestState::Stopped
    );
    assert_eq!(
        q.apply(1, 2, &g, host.resources()).await.unwrap().state,
        GuestState::Running
    );

    // It switches off while no agent lives: the next one sees that it did.
    drop(q);
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(host.processes().len(), 1, "the process waits");
    let q = host.open();
    let mut events = q.events().unwrap();
    q.observe_all().await.unwrap();
    tokio::time::timeout(Duration::from_secs(60), events.recv())
        .await
        .unwrap();
    let seen = q.observe(g.id).await.unwrap();
    assert_eq!((seen.state, seen.settled), (GuestState::Stopped, true));
    assert!(host.processes().is_empty());
    q.remove(g.id).await.unwrap();
    q.purge();
}

#[tokio::test(flavor = "multi_thread")]
async fn hung_monitor() {
    needs_qemu!();
    let host = Host::new(DEAF);
    let q = host.open();
    let mut g = host.guest.clone();
    q.apply(1, 1, &g, host.resources()).await.unwrap();
    let pid = host.pid();
    signal(pid, nix::sys::signal::Signal::SIGSTOP);

    // To pause is no reason to kill.
    g.power = Power::Paused;
    let e = q.apply(1, 2, &g, host.resources()).await.unwrap_err();
    assert_eq!(e.code, FailureCode::HypervisorHung);
    assert_eq!(host.processes(), [pid]);
    drop(q);
    let q = host.open();
    let seen = q.observe_all().await.unwrap();
    assert_eq!(
        seen[0].failure.as_ref().map(|f| f.code),
        Some(FailureCode::HypervisorHung)
    );
    assert_eq!(host.processes(), [pid]);

    // A reboot is.
    g.power = Power::Running;
    g.hard_reboots = 1;
    let start = Instant::now();
    let seen = q.apply(1, 3, &g, host.resources()).await.unwrap();
    println!("hard reboot of a hung guest: {:?}", start.elapsed());
    assert_eq!((seen.state, seen.failure), (GuestState::Running, None));
    assert_ne!(host.pid(), pid);
    signal(host.pid(), nix::sys::signal::Signal::SIGSTOP);
    q.remove(g.id).await.unwrap();
    assert!(host.processes().is_empty());
    q.purge();
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_starts() {
    needs_qemu!();
    let host = Host::new(DEAF);
    let q = host.open();
    let mut g = host.guest.clone();
    g.cpu_model = Some("NoSuchModel".into());
    let e = q.apply(1, 1, &g, host.resources()).await.unwrap_err();
    assert_eq!(e.code, FailureCode::HypervisorError);
    assert!(e.detail.contains("NoSuchModel"), "{e:?}");
    assert!(!e.message.contains('/'), "{e:?}");
    assert!(host.processes().is_empty());
    g.cpu_model = None;
    let mut r = host.resources();
    r.uid = 0;
    assert!(q.apply(1, 2, &g, r).await.is_err());
    assert_eq!(
        q.apply(1, 2, &g, host.resources()).await.unwrap().state,
        GuestState::Running
    );
    // The host reboots: pids of another boot mean nothing, and the guest is started again.
    let pid = host.pid();
    drop(q);
    let mut record = host.record();
    record["process"]["boot_id"] = "another".into();
    fs::write(host.guest_dir().join("record.json"), record.to_string()).unwrap();
    signal(pid, nix::sys::signal::Signal::SIGKILL);
    eventually("the process ends", || host.processes().is_empty()).await;
    let q = host.open();
    let seen = q.observe_all().await.unwrap();
    assert_eq!((seen[0].state, seen[0].settled), (GuestState::Stopped, false));
    assert_eq!(
        q.apply(1, 2, &g, host.resources()).await.unwrap().state,
        GuestState::Running
    );
    // A second driver on the directory is refused.
    let second = tokio::task::spawn_blocking({
        let dir = host.dir.join("hv");
        move || {
            Qemu::open(Config {
                dir,
                ..Config::default()
            })
            .map(|_| ())
        }
    });
    assert!(second.await.unwrap().is_err());
    q.remove(g.id).await.unwrap();
    q.purge();
}

/// Where the kernel emulates every instruction this boots nothing in time, but it starts.
#[tokio::test(flavor = "multi_thread")]
async fn kvm_starts() {
    needs_qemu!();
    let works = haneul_hypervisor::kvm::probe_accelerator();
    println!("{works:?}");
    if fs::metadata("/dev/kvm").is_err() || works.reason.contains("does not work") {
        println!("SKIPPED: no KVM");
        return;
    }
    let host = Host::new(DEAF);
    let q = Qemu::open(Config {
        dir: host.dir.join("hv"),
        accelerator: Some("kvm".into()),
        // `host` asserts on a kernel that only plays KVM.
        cpu_model: Some("qemu64-v1".into()),
        ..Config::default()
    })
    .unwrap();
    let seen = q.apply(1, 1, &host.guest, host.resources()).await.unwrap();
    assert_eq!(seen.state, GuestState::Running);
    assert_eq!(host.record()["accelerator"], "kvm");
    q.remove(host.guest.id).await.unwrap();
    q.purge();
}

/// Runs in a child process that is killed at a fault point; does nothing when run as a test.
#[test]
fn child() {
    let (Ok(dir), Ok(guest), Ok(faults)) = (
        std::env::var("HNH_DIR"),
        std::env::var("HNH_GUEST"),
        std::env::var("HNH_FAULTS"),
    ) else {
        return;
    };
    let generation: u64 = std::env::var("HNH_GENERATION").unwrap().parse().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let dir = std::path::PathBuf::from(dir);
        let q = Qemu::open(Config {
            dir: dir.join("hv"),
            accelerator: Some("tcg".into()),
            ..Config::default()
        })
        .unwrap();
        q.observe_all().await.unwrap();
        let file = dir.join("faults");
        fs::write(&file, faults).unwrap();
        haneul_core::fault::enable(file);
        if std::env::var("HNH_REMOVE").is_ok() {
            let id = serde_json::from_str::<Guest>(&guest).unwrap().id;
            q.remove(id).await.unwrap();
        } else {
            let guest: Guest = serde_json::from_str(&guest).unwrap();
            q.apply(1, generation, &guest, resources(&dir)).await.unwrap();
        }
    });
}

fn killed_at(host: &Host, g: &Guest, generation: u64, faults: &str, remove: bool) {
    let mut c = Command::new(std::env::current_exe().unwrap());
    c.args(["real::child", "--exact"])
        .env("HNH_DIR", &host.dir)
        .env("HNH_GUEST", serde_json::to_string(g).unwrap())
        .env("HNH_GENERATION", generation.to_string())
        .env("HNH_FAULTS", faults)
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null());
    if remove {
        c.env("HNH_REMOVE", "1");
    }
    use std::os::unix::process::ExitStatusExt;
    assert_eq!(c.status().unwrap().signal(), Some(9), "{faults} was not reached");
}

/// kill -9 at every durable step: the next agent finds one process or none, never a stray, and goes on.
#[tokio::test(flavor = "multi_thread")]
async fn killed_anywhere() {
    needs_qemu!();
    let host = Host::new(DEAF);
    let mut g = host.guest.clone();
    let mut generation = 1;
    let create = [
        "hypervisor.record.before-rename=kill",
        "hypervisor.record.saved=kill",
        "hypervisor.qemu.before-exec=kill",
        "hypervisor.qemu.after-exec=kill",
        "hypervisor.record.before-rename=kill:1",
        "hypervisor.record.saved=kill:1",
    ];
    let reboot = [
        "hypervisor.qemu.before-end=kill",
        "hypervisor.qemu.ended=kill",
        "hypervisor.record.saved=kill",
        "hypervisor.record.saved=kill:1",
        "hypervisor.qemu.before-exec=kill",
        "hypervisor.qemu.after-exec=kill",
    ];
    let remove = [
        "hypervisor.qemu.ended=kill",
        "hypervisor.qemu.before-remove=kill",
        "hypervisor.qemu.record-removed=kill",
    ];
    for fault in create {
        killed_at(&host, &g, generation, fault, false);
        let q = host.open();
        q.observe_all().await.unwrap();
        let seen = q.apply(1, generation, &g, host.resources()).await.unwrap();
        assert_eq!((seen.state, seen.settled), (GuestState::Running, true), "{fault}");
        assert_eq!(host.processes(), [host.pid()], "{fault}");
        q.remove(g.id).await.unwrap();
        assert!(host.processes().is_empty() && !host.guest_dir().exists(), "{fault}");
        generation += 1;
    }
    {
        let q = host.open();
        q.apply(1, generation, &g, host.resources()).await.unwrap();
    }
    for fault in reboot {
        let before = host.pid();
        g.hard_reboots += 1;
        generation += 1;
        killed_at(&host, &g, generation, fault, false);
        let q = host.open();
        q.observe_all().await.unwrap();
        let seen = q.apply(1, generation, &g, host.resources()).await.unwrap();
        assert_eq!(
            (seen.state, seen.hard_reboots),
            (GuestState::Running, g.hard_reboots),
            "{fault}"
        );
        assert_eq!(host.processes(), [host.pid()], "{fault}");
        assert_ne!(host.pid(), before, "{fault}: it was rebooted");
    }
    for fault in remove {
        killed_at(&host, &g, generation, fault, true);
        let q = host.open();
        q.observe_all().await.unwrap();
        q.remove(g.id).await.unwrap();
        assert!(host.processes().is_empty() && !host.guest_dir().exists(), "{fault}");
        assert!(q.observe_all().await.unwrap().is_empty());
        q.apply(1, generation, &g, host.resources()).await.unwrap();
    }
    let q = host.open();
    q.remove(g.id).await.unwrap();
    q.purge();
    assert!(host.cgroups().is_empty());
}
