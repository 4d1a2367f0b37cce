//! The QEMU driver: one process per guest, started by us and driven over QMP.
//!
//! `DIR/guests/ID/` holds a guest's [`record`], its lock (held by its process), its monitor and serial
//! sockets, its serial log and QEMU's own log. A process needs no right to any file: disks, sockets, logs and
//! taps are opened here and handed over.
//!
//! Invariants: a record is on disk before a process starts; a process lives exactly as long as its
//! guest's lock is held, so none is ever lost or started twice; only reboot, stop and remove kill, never
//! a look; a guest that switched itself off stays off until something newer is desired.
//!
//! After an [`Hypervisor::events`] entry: observe, and apply the desired state again (a power-down that was
//! asked for and then countermanded ends there).

use crate::kvm::{Accelerator, probe_accelerator};
use crate::{BoxFuture, Hold, Hypervisor, OnProgress, Resources};
use haneul_agent_api::{Failure, FailureCode, Guest, HypervisorInfo, MoveProgress, ObservedGuest, Power, Whereabouts};
use live::Live;
use nix::fcntl::{Flock, FlockArg};
use observe::{blank, observed};
use record::Record;
use std::collections::HashMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::ops::RangeInclusive;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::mpsc;
use uuid::Uuid;

pub mod args;
mod arrive;
mod cgroup;
mod console;
mod copy;
mod end;
mod launch;
mod leave;
mod live;
mod nics;
mod observe;
mod ops;
mod process;
pub mod qmp;
pub mod record;
mod suspend;
mod tls;
mod vnc;

pub use end::end;

/// Settings of the driver.
#[derive(Clone, Debug)]
pub struct Config {
    /// The driver's own directory; nobody else writes there.
    pub dir: PathBuf,
    /// QEMU's program; `None`: `qemu-system-x86_64` from the usual places.
    pub program: Option<PathBuf>,
    /// `kvm` or `tcg` instead of what the probe says.
    pub accelerator: Option<String>,
    /// Guests that are started have no display.
    pub no_vnc: bool,
    /// CPU model instead of [`args::KVM_CPU`] or [`args::TCG_CPU`].
    pub cpu_model: Option<String>,
    /// Where other hosts reach this one: guests arrive from them there, and none while that is not known.
    pub underlay: Whereabouts,
    /// Ports for that, two for each guest; 0 stands for any that is free.
    pub move_ports: RangeInclusive<u16>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            dir: PathBuf::new(),
            program: None,
            accelerator: None,
            no_vnc: false,
            cpu_model: None,
            underlay: Whereabouts::default(),
            move_ports: 0..=0,
        }
    }
}

/// See the module.
pub struct Qemu {
    inner: Arc<Inner>,
    events: Mutex<Option<mpsc::UnboundedReceiver<Uuid>>>,
}

pub(crate) struct Inner {
    dir: PathBuf,
    /// Random mark of this directory, on every command line.
    tag: String,
    boot_id: String,
    program: PathBuf,
    /// `10.0.2`.
    version: String,
    machines: Vec<String>,
    accelerator: Accelerator,
    cpu: String,
    io_uring: bool,
    vnc: bool,
    cgroups: cgroup::Cgroups,
    underlay: Whereabouts,
    move_ports: RangeInclusive<u16>,
    guests: Mutex<HashMap<Uuid, Arc<Entry>>>,
    events: mpsc::UnboundedSender<Uuid>,
    /// One driver per directory; goes with us.
    _lock: Flock<File>,
}

/// One guest. `op` is held by whoever changes something; `view` is for looks and never across an await.
pub(crate) struct Entry {
    id: Uuid,
    dir: PathBuf,
    op: Arc<tokio::sync::Mutex<()>>,
    /// Held by what writes to the guest's directory, which runs to its end even when the caller gives up.
    writing: Arc<tokio::sync::Mutex<()>>,
    view: Mutex<View>,
}

#[derive(Default)]
struct View {
    record: Option<Record>,
    /// Set when the record cannot be read: then nothing is done to this guest.
    unreadable: Option<String>,
    live: Option<Live>,
    /// Whether a process of a former agent has been looked for.
    adopted: bool,
    /// A command that halts the guest or lets it go on is on its way, and its answer may have been given up.
    run_changes: bool,
    /// Whether the root disk's size was compared with what is wanted, since the process started.
    disk_checked: bool,
    /// How far the guest's move to another host is.
    progress: Option<MoveProgress>,
    /// This driver began to send the guest's memory, and has (or has not) told QEMU to hand it over.
    sending: Option<HandingOver>,
}

/// See [`View::sending`]. A former agent may have done either.
#[derive(Clone, Copy, PartialEq, Eq)]
enum HandingOver {
    NotYet,
    Told,
}

impl Entry {
    fn new(id: Uuid, dir: PathBuf, view: View) -> Arc<Self> {
        Arc::new(Self {
            id,
            dir,
            op: Arc::default(),
            writing: Arc::default(),
            view: Mutex::new(view),
        })
    }
    fn view(&self) -> MutexGuard<'_, View> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// The process, unless it has ended.
    fn live(&self) -> Option<Live> {
        self.view().live.clone().filter(|l| !l.is_gone())
    }
    fn record(&self) -> Option<Record> {
        self.view().record.clone()
    }
}

fn hypervisor_error(message: impl Into<String>, detail: impl std::fmt::Display) -> Failure {
    Failure {
        code: FailureCode::HypervisorError,
        message: message.into(),
        detail: detail.to_string(),
    }
}

fn hung(detail: impl std::fmt::Display) -> Failure {
    Failure {
        code: FailureCode::HypervisorHung,
        message: "the server's hypervisor does not answer; a hard reboot starts it anew".into(),
        detail: detail.to_string(),
    }
}

fn disk_error(what: &str, e: &io::Error) -> Failure {
    let full = matches!(e.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT));
    Failure {
        code: if full {
            FailureCode::DiskFull
        } else {
            FailureCode::DiskError
        },
        message: if full {
            format!("the host's disk is too full to {what}")
        } else {
            format!("the host could not {what}")
        },
        detail: e.to_string(),
    }
}

fn internal(e: impl std::fmt::Display) -> Failure {
    Failure {
        code: FailureCode::Internal,
        message: "the host's hypervisor driver failed".into(),
        detail: e.to_string(),
    }
}

impl Qemu {
    /// Opens the directory, asks QEMU what it is and probes KVM. Takes about 0.1 s and blocks; guests of a
    /// former agent are adopted later, by [`Hypervisor::observe_all`] or the first call that needs them.
    ///
    /// Fails when QEMU is missing or another driver has the directory.
    pub fn open(config: Config) -> io::Result<Self> {
        let guests_dir = config.dir.join("guests");
        DirBuilder::new().recursive(true).mode(0o700).create(&guests_dir)?;
        let dir = config.dir.canonicalize()?;
        let lock = own(&dir)?;
        let tag = tag(&dir)?;
        let program = find_program(config.program)?;
        let (version, machines, accelerator) = std::thread::scope(|s| {
            let version = s.spawn(|| version(&program));
            let machines = s.spawn(|| machines(&program));
            let accelerator = match config.accelerator.as_deref() {
                None => probe_accelerator(),
                Some(kind) => Accelerator {
                    kind: kind.to_owned(),
                    reason: "set by the configuration".into(),
                },
            };
            let lost = || Err(io::Error::other("asking QEMU failed"));
            (
                version.join().unwrap_or_else(|_| lost()),
                machines
                    .join()
                    .unwrap_or_else(|_| Err(io::Error::other("asking QEMU failed"))),
                accelerator,
            )
        });
        let (version, machines) = (version?, machines?);
        tracing::info!(
            version,
            accelerator = accelerator.kind,
            reason = accelerator.reason,
            "QEMU is there"
        );
        let cpu = config.cpu_model.unwrap_or_else(|| {
            if accelerator.kind == "kvm" {
                args::KVM_CPU
            } else {
                args::TCG_CPU
            }
            .to_owned()
        });
        let cgroups = cgroup::Cgroups::open(&tag);
        let guests = load(&dir.join("guests"))?;
        let (send, receive) = mpsc::unbounded_channel();
        Ok(Self {
            inner: Arc::new(Inner {
                tag,
                boot_id: process::boot_id()?,
                program,
                version,
                machines,
                accelerator,
                cpu,
                io_uring: io_uring(),
                vnc: !config.no_vnc,
                cgroups,
                underlay: config.underlay,
                move_ports: config.move_ports,
                guests: Mutex::new(guests),
                events: send,
                dir,
                _lock: lock,
            }),
            events: Mutex::new(Some(receive)),
        })
    }

    /// What runs guests here, and why.
    pub fn accelerator(&self) -> &Accelerator {
        &self.inner.accelerator
    }

    /// Name and value of what the driver found and chose, for `doctor`.
    pub fn describe(&self) -> Vec<(String, String)> {
        let i = &self.inner;
        vec![
            ("QEMU".into(), i.version.clone()),
            (
                "accelerator".into(),
                format!("{}: {}", i.accelerator.kind, i.accelerator.reason),
            ),
            ("CPU model".into(), i.cpu.clone()),
            ("machine".into(), i.machine(None)),
            ("cgroups".into(), i.cgroups.describe()),
            ("disk IO".into(), if i.io_uring { "io_uring" } else { "threads" }.into()),
        ]
    }

    /// Guests of this directory that have a process, found by the processes themselves; for audits.
    pub fn processes(&self) -> Vec<Uuid> {
        process::marked(&self.inner.tag).into_iter().map(|(id, _)| id).collect()
    }
}

/// One driver per directory. A child of a killed agent may hold the lock until it has become QEMU.
fn own(dir: &Path) -> io::Result<Flock<File>> {
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(dir.join("lock"))?;
    for _ in 0..40 {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((f, _)) => file = f,
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Err(io::Error::new(
        io::ErrorKind::ResourceBusy,
        format!("{} is in use by another agent", dir.display()),
    ))
}

/// The directory's random mark, made once.
fn tag(dir: &Path) -> io::Result<String> {
    let path = dir.join("tag");
    if let Ok(tag) = fs::read_to_string(&path)
        && tag.len() == 8
        && tag.chars().all(|c| c.is_ascii_hexdigit())
    {
        return Ok(tag);
    }
    let mut tag = Uuid::new_v4().simple().to_string();
    tag.truncate(8);
    let tmp = dir.join("tag.tmp");
    let mut file = File::create(&tmp)?;
    file.write_all(tag.as_bytes())?;
    file.sync_all()?;
    fs::rename(&tmp, &path)?;
    File::open(dir)?.sync_all()?;
    Ok(tag)
}

fn find_program(given: Option<PathBuf>) -> io::Result<PathBuf> {
    let candidates = match given {
        Some(p) => vec![p],
        None => ["/usr/bin", "/usr/local/bin", "/usr/libexec", "/bin"]
            .iter()
            .map(|d| Path::new(d).join("qemu-system-x86_64"))
            .collect(),
    };
    candidates.into_iter().find(|p| p.is_file()).ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::NotFound,
            "qemu-system-x86_64 is not installed (Debian: qemu-system-x86)",
        )
    })
}

fn ask(program: &Path, args: &[&str]) -> io::Result<String> {
    let out = Command::new(program).args(args).env_clear().output()?;
    if !out.status.success() {
        return Err(io::Error::other(String::from_utf8_lossy(&out.stderr).into_owned()));
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

fn version(program: &Path) -> io::Result<String> {
    // "QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2)"
    let text = ask(program, &["--version"])?;
    text.split_whitespace()
        .skip_while(|w| *w != "version")
        .nth(1)
        .map(str::to_owned)
        .ok_or_else(|| io::Error::other("QEMU does not tell its version"))
}

/// Versioned `pc-i440fx` machine types, newest first.
fn machines(program: &Path) -> io::Result<Vec<String>> {
    let text = ask(program, &["-machine", "help"])?;
    let mut found: Vec<(Vec<u32>, String)> = text
        .lines()
        .filter_map(|l| l.split_whitespace().next())
        .filter_map(|name| {
            let v = name.strip_prefix("pc-i440fx-")?;
            let parts = v.split('.').map(str::parse).collect::<Result<_, _>>().ok()?;
            Some((parts, name.to_owned()))
        })
        .collect();
    found.sort_by(|a, b| b.cmp(a));
    if found.is_empty() {
        return Err(io::Error::other("QEMU has no pc-i440fx machine"));
    }
    Ok(found.into_iter().map(|(_, name)| name).collect())
}

/// Whether the kernel gives io_uring to a process without rights.
#[allow(unsafe_code)]
fn io_uring() -> bool {
    if fs::read_to_string("/proc/sys/kernel/io_uring_disabled").is_ok_and(|v| v.trim() != "0") {
        return false;
    }
    let mut params = [0_u8; 120];
    // SAFETY: the kernel fills the structure of 120 bytes that we own; the descriptor is closed at once.
    unsafe {
        let fd = libc::syscall(libc::SYS_io_uring_setup, 1, params.as_mut_ptr());
        if fd >= 0 {
            libc::close(fd as i32);
        }
        fd >= 0
    }
}

/// Reads all records. A directory without one is what a cut-off creation or removal left.
fn load(dir: &Path) -> io::Result<HashMap<Uuid, Arc<Entry>>> {
    let mut guests = HashMap::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let Ok(id) = Uuid::try_parse(&name) else {
            continue;
        };
        let mut view = View::default();
        match Record::load(&path) {
            Ok(Some(record)) => view.record = Some(record),
            Ok(None) => {
                if process::take_lock(&path)?.is_some() {
                    fs::remove_dir_all(&path)?;
                    continue;
                }
                view.unreadable = Some("a process without a record".into());
            }
            Err(e) => {
                tracing::error!(guest = %id, error = %e, "a guest's record cannot be read: it is left alone");
                view.unreadable = Some(e.to_string());
            }
        }
        guests.insert(id, Entry::new(id, path, view));
    }
    Ok(guests)
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, HashMap<Uuid, Arc<Entry>>> {
        self.guests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, id: Uuid) -> Option<Arc<Entry>> {
        self.lock().get(&id).cloned()
    }

    fn find_or_make(&self, id: Uuid) -> Arc<Entry> {
        let dir = self.dir.join("guests").join(id.to_string());
        let view = View {
            adopted: true,
            ..View::default()
        };
        Arc::clone(self.lock().entry(id).or_insert_with(|| Entry::new(id, dir, view)))
    }

    /// The recorded machine type when this QEMU still has it, else ours.
    fn machine(&self, recorded: Option<&str>) -> String {
        let has = |m: &str| self.machines.iter().any(|h| h == m);
        match recorded {
            Some(m) if has(m) => m.to_owned(),
            _ if has(args::MACHINE) => args::MACHINE.to_owned(),
            _ => self
                .machines
                .first()
                .cloned()
                .unwrap_or_else(|| args::MACHINE.to_owned()),
        }
    }

    /// CPU model for a start under `accelerator`.
    fn cpu_for(&self, wish: Option<&str>) -> String {
        let host = |m: &str| matches!(m, "host" | "host-passthrough" | "host-model");
        match wish {
            Some(m) if args::cpu_name_ok(m) && !(host(m) && self.accelerator.kind != "kvm") => {
                if host(m) {
                    "host".into()
                } else {
                    m.to_owned()
                }
            }
            _ => self.cpu.clone(),
        }
    }

    fn watch(self: &Arc<Self>, entry: &Arc<Entry>) -> Arc<dyn live::Watch> {
        Arc::new(Watcher {
            inner: Arc::downgrade(self),
            entry: Arc::downgrade(entry),
        })
    }
}

/// Weak, so that dropping the driver ends the watching and nothing else.
struct Watcher {
    inner: Weak<Inner>,
    entry: Weak<Entry>,
}

impl live::Watch for Watcher {
    fn shutdown(&self, pid: i32) {
        if let (Some(inner), Some(entry)) = (self.inner.upgrade(), self.entry.upgrade()) {
            tokio::spawn(async move { inner.after_shutdown(entry, pid).await });
        }
    }
    fn gone(&self, pid: i32) {
        if let (Some(inner), Some(entry)) = (self.inner.upgrade(), self.entry.upgrade()) {
            tokio::spawn(async move { inner.after_end(entry, pid).await });
        }
    }
    fn migrated(&self, pid: i32) {
        if let (Some(inner), Some(entry)) = (self.inner.upgrade(), self.entry.upgrade()) {
            tokio::spawn(async move { inner.after_migration(entry, pid).await });
        }
    }
    fn changed(&self, _pid: i32) {
        // While somebody changes the guest, its changes are not by itself.
        if let (Some(inner), Some(entry)) = (self.inner.upgrade(), self.entry.upgrade())
            && entry.op.try_lock().is_ok()
        {
            let _ = inner.events.send(entry.id);
        }
    }
}

impl Hypervisor for Qemu {
    fn info(&self) -> HypervisorInfo {
        let i = &self.inner;
        let mut number = i.version.split('.').map(|p| p.parse::<u64>().unwrap_or(0));
        let mut next = || number.next().unwrap_or(0);
        let version = next() * 1_000_000 + next() * 1000 + next();
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let field = |name: &str| {
            cpuinfo
                .lines()
                .find_map(|l| l.split_once(':').filter(|(k, _)| k.trim() == name))
                .map(|(_, v)| v.trim().to_owned())
                .unwrap_or_default()
        };
        let number_of = |name: &str| field(name).parse::<u32>().unwrap_or(1).max(1);
        let cpus = cpuinfo.lines().filter(|l| l.starts_with("processor")).count().max(1) as u32;
        let cores = number_of("cpu cores");
        let threads = (number_of("siblings") / cores).max(1);
        HypervisorInfo {
            kind: "QEMU".into(),
            version,
            accelerator: i.accelerator.kind.clone(),
            arch: "x86_64".into(),
            cpu_model: field("model name"),
            cpu_vendor: field("vendor_id"),
            cpu_features: field("flags").split_whitespace().map(str::to_owned).collect(),
            sockets: (cpus / (cores * threads)).max(1),
            cores,
            threads,
            moves: i.underlay.get().is_some(),
            shared_disks: None,
        }
    }

    fn observe_all(&self) -> BoxFuture<'_, Result<Vec<ObservedGuest>, Failure>> {
        Box::pin(async move {
            let all: Vec<Arc<Entry>> = self.inner.lock().values().cloned().collect();
            let mut tasks = Vec::new();
            for entry in &all {
                if entry.view().adopted {
                    continue;
                }
                // All at once: one hung monitor must not delay the others.
                let (inner, entry) = (Arc::clone(&self.inner), Arc::clone(entry));
                tasks.push(tokio::spawn(async move { inner.adopt_locked(&entry).await }));
            }
            for task in tasks {
                match task.await {
                    Ok(Err(e)) => tracing::error!(message = e.message, detail = e.detail, "adopting a guest failed"),
                    Err(e) => tracing::error!(error = %e, "adopting a guest failed"),
                    Ok(Ok(())) => {}
                }
            }
            Ok(all.iter().filter_map(|e| observed(e)).collect())
        })
    }

    fn observe(&self, id: Uuid) -> BoxFuture<'_, Option<ObservedGuest>> {
        Box::pin(async move {
            let entry = self.inner.find(id)?;
            if !entry.view().adopted {
                let _ = self.inner.adopt_locked(&entry).await;
            }
            observed(&entry)
        })
    }

    fn needs_start<'a>(&'a self, desired: &Guest) -> BoxFuture<'a, bool> {
        let desired = desired.clone();
        Box::pin(async move {
            // A process of a guest that leaves is never started.
            if desired.leaving.is_some() {
                return false;
            }
            let off = matches!(desired.power, Power::Stopped | Power::Suspended);
            let Some(entry) = self.inner.find(desired.id) else {
                return !off || desired.arriving.is_some();
            };
            if !entry.view().adopted {
                let _ = self.inner.adopt_locked(&entry).await;
            }
            if let Some(arriving) = desired.arriving.as_ref().filter(|a| !arrive::is_here(&entry, a)) {
                let arrival = entry.record().and_then(|r| r.arriving);
                return arrival.is_none_or(|a| a.id != arriving.id || a.listens.is_none());
            }
            if off {
                return false;
            }
            match (entry.live(), entry.record()) {
                (Some(_), Some(r)) => {
                    // A soft reboot may turn hard.
                    desired.soft_reboots > r.soft_reboots || ops::wants_new_process(&r, &desired)
                }
                _ => true,
            }
        })
    }

    fn needs_taps<'a>(&'a self, desired: &Guest) -> BoxFuture<'a, bool> {
        let desired = desired.clone();
        Box::pin(async move {
            let entry = self.inner.find(desired.id);
            let record = entry.filter(|e| e.live().is_some()).and_then(|e| e.record());
            desired.leaving.is_none()
                && matches!(desired.power, Power::Running | Power::Paused)
                && record.is_some_and(|r| nics::lacks(&r, &desired))
        })
    }

    fn apply<'a>(
        &'a self,
        epoch: u64,
        generation: u64,
        desired: &'a Guest,
        resources: Resources,
    ) -> BoxFuture<'a, Result<ObservedGuest, Failure>> {
        Box::pin(self.inner.apply(epoch, generation, desired, resources))
    }

    fn remove(&self, id: Uuid) -> BoxFuture<'_, Result<(), Failure>> {
        Box::pin(self.inner.remove(id))
    }

    fn purge(&self) {
        self.inner.cgroups.purge();
    }

    fn stop(&self, id: Uuid, gently: bool) -> BoxFuture<'_, Result<(), Failure>> {
        Box::pin(self.inner.stop_guest(id, gently))
    }

    fn console_log(&self, id: Uuid, lines: Option<u32>) -> BoxFuture<'_, Result<Vec<u8>, Failure>> {
        Box::pin(async move {
            let entry = self.inner.find(id).ok_or_else(|| Failure {
                code: FailureCode::Internal,
                message: "the server has no console on this host".into(),
                detail: String::new(),
            })?;
            let dir = entry.dir.clone();
            tokio::task::spawn_blocking(move || console::tail(&dir, lines))
                .await
                .map_err(internal)?
                .map_err(|e| disk_error("read the server's console", &e))
        })
    }

    fn vnc(&self, id: Uuid) -> BoxFuture<'_, Result<tokio::net::UnixStream, Failure>> {
        Box::pin(async move {
            let live = self.inner.find(id).and_then(|e| e.live());
            let live = live.ok_or_else(|| crate::no_screen("no process"))?;
            self.inner.vnc(&live).await
        })
    }

    fn copy_disk<'a>(
        &'a self,
        id: Uuid,
        target: &'a Path,
        progress: OnProgress,
    ) -> BoxFuture<'a, Result<Option<Hold>, Failure>> {
        Box::pin(self.inner.copy_disk(id, target, progress))
    }

    fn events(&self) -> Option<mpsc::UnboundedReceiver<Uuid>> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}
