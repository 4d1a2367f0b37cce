//! Starting a guest's process and finding one that a former agent started.

use super::args::{self, DiskFd, NicFd, Spec};
use super::live::Live;
use super::process::{self, Launch};
use super::record::{self, Arrival, Phase, Process, Record};
use super::{Entry, Inner, arrive, cgroup, console, disk_error, hypervisor_error, internal};
use crate::Resources;
use haneul_agent_api::{Failure, FailureCode, Guest, Power};
use haneul_core::fault_point;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OwnedMutexGuard;

const QMP: &str = "qmp";
const SERIAL: &str = "serial";
/// QEMU's own logs that are kept per guest.
const LOGS: usize = 3;

/// A path to a socket in `dir` that fits into an address (107 bytes), with what must stay open meanwhile.
pub(crate) fn socket_path(dir: &Path, name: &str) -> io::Result<(PathBuf, Option<File>)> {
    let path = dir.join(name);
    if path.as_os_str().len() < 100 {
        return Ok((path, None));
    }
    let open = File::open(dir)?;
    let path = PathBuf::from(format!("/proc/self/fd/{}/{name}", open.as_raw_fd()));
    Ok((path, Some(open)))
}

/// A listening socket for QEMU to inherit. Bound before the process exists, so that we can connect at
/// once instead of asking until it is there; only root can reach it.
fn listen(dir: &Path, name: &str) -> io::Result<OwnedFd> {
    match fs::remove_file(dir.join(name)) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let (path, _open) = socket_path(dir, name)?;
    Ok(UnixListener::bind(path)?.into())
}

/// Opens a disk for reading and writing, past the page cache where the file system can do that.
pub(super) fn open_disk(path: &Path) -> io::Result<(File, bool)> {
    let open = |flags| {
        OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NOFOLLOW | flags)
            .open(path)
    };
    match open(libc::O_DIRECT) {
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => Ok((open(0)?, false)),
        other => Ok((other?, true)),
    }
}

fn open_read(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(path)
}

/// QEMU's log for one start, named by the request that caused it; older ones are removed.
fn open_log(dir: &Path, request_id: &str) -> io::Result<(File, String)> {
    let mut logs: Vec<(std::time::SystemTime, PathBuf)> = fs::read_dir(dir)?
        .flatten()
        .filter(|e| e.file_name().to_string_lossy().starts_with("qemu-"))
        .filter_map(|e| Some((e.metadata().ok()?.modified().ok()?, e.path())))
        .collect();
    logs.sort();
    while logs.len() >= LOGS {
        fs::remove_file(logs.remove(0).1)?;
    }
    // The id comes from control and becomes a file's name.
    let safe: String = request_id
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || *c == '-')
        .take(64)
        .collect();
    let name = format!("qemu-{safe}.log");
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(dir.join(&name))?;
    Ok((file, name))
}

/// The end of QEMU's log of the last start, for the administrator.
pub(crate) fn log_tail(entry: &Entry) -> String {
    let name = entry.record().map_or_else(String::new, |r| r.log);
    let text = fs::read(entry.dir.join(name)).unwrap_or_default();
    let from = text.len().saturating_sub(2000);
    String::from_utf8_lossy(text.get(from..).unwrap_or_default())
        .trim()
        .to_owned()
}

/// Makes the guest's directory durable before anything is put there.
pub(crate) fn make_dir(dir: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(dir) {
        Ok(()) => match dir.parent() {
            Some(up) => File::open(up)?.sync_all(),
            None => Ok(()),
        },
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(e) => Err(e),
    }
}

impl Inner {
    /// Starts a process for `desired`. Runs to its end even when the caller gives up: the guard of the
    /// guest moves along, so that the next caller waits and finds what was started.
    pub(crate) async fn launch(
        self: &Arc<Self>,
        entry: &Arc<Entry>,
        guard: OwnedMutexGuard<()>,
        order: (u64, u64),
        desired: &Guest,
        resources: Resources,
    ) -> Result<(OwnedMutexGuard<()>, Live), Failure> {
        let (inner, entry, desired) = (Arc::clone(self), Arc::clone(entry), desired.clone());
        tokio::task::spawn_blocking(move || {
            let live = inner.launch_now(&entry, order, &desired, &resources)?;
            Ok((guard, live))
        })
        .await
        .map_err(internal)?
    }

    fn launch_now(
        self: &Arc<Self>,
        entry: &Arc<Entry>,
        (epoch, generation): (u64, u64),
        desired: &Guest,
        resources: &Resources,
    ) -> Result<Live, Failure> {
        let dir = &entry.dir;
        let io = |e: io::Error| disk_error("start the server", &e);
        make_dir(dir).map_err(io)?;
        let before = entry.record();
        let arriving = desired.arriving.as_ref().filter(|a| !arrive::is_here(entry, a));
        let same_accelerator = before.as_ref().is_some_and(|r| r.accelerator == self.accelerator.kind);
        let cpu = match &before {
            _ if arriving.is_some() => arriving.map(|a| a.layout.cpu.clone()).unwrap_or_default(),
            Some(r) if same_accelerator && r.cpu_model == desired.cpu_model => r.cpu.clone(),
            _ => self.cpu_for(desired.cpu_model.as_deref()),
        };
        // The memory of a suspended guest fits the process that it was saved from.
        let saved = before.as_ref().and_then(|r| r.saved.clone());
        let mut record = Record {
            version: record::VERSION,
            id: desired.id,
            name: desired.name.clone(),
            epoch,
            generation,
            request_id: desired.request_id.clone(),
            power: desired.power,
            vcpus: desired.vcpus,
            memory_mib: desired.memory_mib,
            disk_gib: desired.root.size_gib,
            soft_reboots: desired.soft_reboots,
            hard_reboots: desired.hard_reboots,
            rebuilds: desired.rebuilds,
            uid: resources.uid,
            stop_timeout_s: desired.stop_timeout_s,
            machine: self.machine(match arriving {
                Some(a) => Some(a.layout.machine.as_str()),
                None => before.as_ref().map(|r| r.machine.as_str()),
            }),
            cpu,
            cpu_model: desired.cpu_model.clone(),
            accelerator: self.accelerator.kind.clone(),
            qemu: self.version.clone(),
            qmp: QMP.into(),
            log: String::new(),
            devices: Vec::new(),
            phase: Phase::Starting,
            process: None,
            powerdown_at: None,
            saving: false,
            copying: false,
            saved,
            arriving: match arriving {
                Some(a) => Some(Arrival {
                    id: a.id,
                    listens: None,
                    came: false,
                    end: None,
                }),
                None => before.as_ref().and_then(|r| r.arriving.clone()),
            },
            leaving: None,
        };
        let lock = process::take_lock(dir)
            .map_err(io)?
            .ok_or_else(|| internal("a process of this guest lives that no record knows"))?;

        // Everything that can be refused comes before the record.
        let qmp = listen(dir, QMP).map_err(io)?;
        let serial = listen(dir, SERIAL).map_err(io)?;
        let console: OwnedFd = console::open(dir).map_err(io)?.into();
        let (root, direct) = open_disk(&resources.root).map_err(|e| disk_error("open the root disk", &e))?;
        let backing = match &resources.backing {
            Some((path, format)) => {
                let file = open_read(path).map_err(|e| disk_error("open the image", &e))?;
                Some((OwnedFd::from(file), format.as_str()))
            }
            None => None,
        };
        let local = resources
            .local
            .iter()
            .map(|path| open_disk(path).map_err(|e| disk_error("open a local disk", &e)))
            .collect::<Result<Vec<_>, Failure>>()?;
        let config = match &resources.config_drive {
            Some(path) => {
                let opened = open_read(path).and_then(|file| Ok((file.metadata()?.len(), OwnedFd::from(file))));
                let (size, file) = opened.map_err(|e| disk_error("open the config drive", &e))?;
                Some((file, size))
            }
            None => None,
        };
        let kvm = (self.accelerator.kind == "kvm")
            .then(|| OpenOptions::new().read(true).write(true).open("/dev/kvm"))
            .transpose()
            .map_err(|e| hypervisor_error("the host's virtualization is not to be had", e))?
            .map(OwnedFd::from);
        let mut taps = Vec::new();
        let mut nics = Vec::new();
        let had = match (arriving, &before) {
            (Some(a), _) => a.layout.devices.as_slice(),
            (None, Some(r)) => r.devices.as_slice(),
            (None, None) => &[],
        };
        // A process that takes up memory has the devices of the one before.
        let incoming = record.saved.is_some() || arriving.is_some();
        for (nic, slot) in desired.nics.iter().zip(super::nics::slots(had, &desired.nics)) {
            let tap = (resources.taps)(nic.port_id)?;
            nics.push(NicFd {
                fd: tap.as_raw_fd(),
                port: nic.port_id,
                mac: nic.mac.clone(),
                mtu: nic.mtu,
                slot,
            });
            taps.push(tap);
        }
        let mut local_fds: Vec<_> = local.iter().map(|(file, direct)| (file.as_raw_fd(), *direct)).collect();
        if incoming {
            local_fds.truncate(had.iter().filter(|d| d.kind == args::LOCAL).count());
        }
        let (args, devices) = args::build(&Spec {
            id: desired.id,
            tag: &self.tag,
            machine: &record.machine,
            cpu: &record.cpu,
            accelerator: &record.accelerator,
            kvm: kvm.as_ref().map(AsRawFd::as_raw_fd),
            vcpus: desired.vcpus,
            memory_mib: desired.memory_mib,
            paused: desired.power == Power::Paused,
            incoming,
            io_uring: self.io_uring,
            vnc: match incoming {
                true => had.iter().any(|d| d.kind == "vga"),
                false => self.vnc,
            },
            qmp: qmp.as_raw_fd(),
            serial: serial.as_raw_fd(),
            console_log: console.as_raw_fd(),
            root: DiskFd {
                fd: root.as_raw_fd(),
                direct,
                format: &resources.root_format,
                backing: backing.as_ref().map(|(fd, format)| (fd.as_raw_fd(), *format)),
            },
            local: &local_fds,
            config_drive: config.as_ref().map(|(file, size)| (file.as_raw_fd(), *size)),
            nics: &nics,
        });
        record.devices = devices;
        let (mut log, name) = open_log(dir, &desired.request_id).map_err(io)?;
        record.log = name;
        let _ = writeln!(log, "haneul: start of {} for {}", desired.id, desired.request_id);

        record.save(dir).map_err(io)?;
        {
            let mut view = entry.view();
            view.record = Some(record.clone());
            view.adopted = true;
            view.disk_checked = false;
        }
        let cgroups = self.cgroups.make(
            desired.id,
            cgroup::Limits {
                vcpus: desired.vcpus,
                memory: memory_limit(desired.memory_mib, &record.accelerator),
                threads: 256 + desired.vcpus,
            },
        );
        let mut keep = vec![qmp, serial, console, root.into()];
        keep.extend(backing.map(|(fd, _)| fd));
        keep.extend(local.into_iter().map(|(file, _)| OwnedFd::from(file)));
        keep.extend(config.map(|(file, _)| file));
        keep.extend(kvm);
        keep.extend(taps);
        fault_point!("hypervisor.qemu.before-exec", internal("fault point"));
        let (process, pidfd) = process::spawn(Launch {
            program: self.program.clone(),
            args: args.into_iter().map(Into::into).collect(),
            keep,
            lock,
            cgroups,
            log,
            uid: resources.uid,
        })
        .map_err(|e| hypervisor_error("the hypervisor could not be started", e))?;
        fault_point!("hypervisor.qemu.after-exec", internal("fault point"));
        let live = Live::watch(process.pid, pidfd, dir, &record, self.watch(entry)).map_err(internal)?;
        record.process = Some(process);
        record.phase = Phase::Up;
        {
            let mut view = entry.view();
            view.record = Some(record.clone());
            view.live = Some(live.clone());
        }
        // QEMU starts up meanwhile. Without this write the process is found by its lock.
        if let Err(e) = record.save(dir) {
            tracing::warn!(guest = %entry.id, error = %e, "a record could not be completed");
        }
        Ok(live)
    }

    /// [`Inner::adopt`] under the guest's own lock, which is taken here.
    pub(crate) async fn adopt_locked(self: &Arc<Self>, entry: &Arc<Entry>) -> Result<(), Failure> {
        let _guard = Arc::clone(&entry.op).lock_owned().await;
        self.adopt(entry).await
    }

    /// Looks once for a process that a former agent started, and connects to it. The caller holds `op`.
    pub(crate) async fn adopt(self: &Arc<Self>, entry: &Arc<Entry>) -> Result<(), Failure> {
        if let Some(why) = &entry.view().unreadable {
            return Err(Failure {
                code: FailureCode::Unsupported,
                message: "the server's record on the host cannot be used by this release".into(),
                detail: why.clone(),
            });
        }
        if entry.view().adopted {
            return Ok(());
        }
        let (inner, e) = (Arc::clone(self), Arc::clone(entry));
        let live = tokio::task::spawn_blocking(move || inner.adopt_now(&e))
            .await
            .map_err(internal)?
            .map_err(|e| disk_error("find the server's process", &e))?;
        if let Some(live) = live
            && !live.until(Duration::from_secs(3), |s| s.gone || s.qmp.is_some()).await
        {
            tracing::warn!(guest = %entry.id, pid = live.pid, "an adopted guest's monitor does not answer");
        }
        Ok(())
    }

    fn adopt_now(self: &Arc<Self>, entry: &Arc<Entry>) -> io::Result<Option<Live>> {
        let Some(mut record) = entry.record() else {
            entry.view().adopted = true;
            return Ok(None);
        };
        let recorded = record
            .process
            .clone()
            .and_then(|p| process::open_recorded(&p, &self.boot_id).map(|fd| (p, fd)));
        let found = match recorded {
            Some(found) => Some(found),
            None => self.find_by_lock(entry)?,
        };
        let live = match found {
            Some((process, pidfd)) => {
                tracing::info!(guest = %entry.id, pid = process.pid, "a running guest was adopted");
                if record.process.as_ref() != Some(&process) || record.phase != Phase::Up {
                    record.process = Some(process.clone());
                    record.phase = Phase::Up;
                    record.save(&entry.dir)?;
                }
                Some(Live::watch(process.pid, pidfd, &entry.dir, &record, self.watch(entry))?)
            }
            None => {
                if record.process.is_some() || record.phase != Phase::PoweredOff {
                    record.process = None;
                    if record.phase != Phase::PoweredOff {
                        record.phase = Phase::Off;
                    }
                    record.save(&entry.dir)?;
                }
                self.cgroups.remove(entry.id);
                None
            }
        };
        let mut view = entry.view();
        view.record = Some(record);
        view.live.clone_from(&live);
        view.adopted = true;
        Ok(live)
    }

    /// The guest's process by its lock: between fork and the second write of the record an agent may die.
    fn find_by_lock(&self, entry: &Entry) -> io::Result<Option<(Process, OwnedFd)>> {
        let mark = format!("haneul:{}:{}", self.tag, entry.id);
        for _ in 0..250 {
            if process::take_lock(&entry.dir)?.is_some() {
                return Ok(None);
            }
            if let Some(pid) = process::lock_holder(&entry.dir)
                && let Ok(pidfd) = process::pidfd_open(pid)
                && let Some(start_ticks) = process::start_ticks(pid)
                // Until exec it is a copy of the dead agent; wait for what it becomes.
                && let Ok(line) = fs::read(format!("/proc/{pid}/cmdline"))
                && String::from_utf8_lossy(&line).contains(&mark)
            {
                return Ok(Some((
                    Process {
                        pid,
                        start_ticks,
                        boot_id: self.boot_id.clone(),
                        started_at: haneul_core::clock::now(),
                    },
                    pidfd,
                )));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Err(io::Error::new(
            io::ErrorKind::ResourceBusy,
            "something holds the guest's lock and is no process of it",
        ))
    }
}

/// Bytes for the guest's memory and QEMU beside it; emulation keeps up to 1 GiB of translated code.
fn memory_limit(memory_mib: u64, accelerator: &str) -> u64 {
    let beside = 256 + memory_mib / 16 + if accelerator == "kvm" { 0 } else { 1024 };
    memory_mib.saturating_add(beside) << 20
}
