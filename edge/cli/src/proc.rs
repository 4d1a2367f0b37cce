//! Processes of ours, found again by pid, start time and boot: a recycled pid is never signalled.

use crate::{Result, Trouble, failed};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Time that only goes forward, and also while the host sleeps.
pub fn monotonic() -> Duration {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::new(
        u64::try_from(t.tv_sec).unwrap_or(0),
        u32::try_from(t.tv_nsec).unwrap_or(0),
    )
}

/// Clock ticks in a second, as the kernel tells them to programs of every architecture that we run on.
const TICKS: u64 = 100;

/// A process for all time: no other one on this host ever has the same three values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ident {
    pub pid: i32,
    /// Field 22 of `/proc/PID/stat`: clock ticks since boot.
    pub start: u64,
    pub boot: String,
}

impl Ident {
    /// The process that has this pid now; `None` when there is none, or only its corpse.
    pub fn of(pid: i32) -> Option<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name in parentheses may hold blanks and parentheses itself.
        let rest: Vec<&str> = stat.get(stat.rfind(')')? + 1..)?.split_whitespace().collect();
        if matches!(rest.first(), Some(&"Z" | &"X")) {
            return None;
        }
        Some(Self {
            pid,
            start: rest.get(19)?.parse().ok()?,
            boot: boot_id(),
        })
    }

    /// When it was started, on the clock of [`monotonic`], rounded down.
    pub fn started(&self) -> Duration {
        Duration::from_millis(self.start.saturating_mul(1000 / TICKS))
    }

    /// Whether it still runs.
    pub fn alive(&self) -> bool {
        Self::of(self.pid).as_ref() == Some(self)
    }

    /// Sends a signal; false when the process is gone.
    pub fn signal(&self, signal: Signal) -> bool {
        let Some(pid) = Pid::from_raw(self.pid) else {
            return false;
        };
        // The descriptor pins the process, then the start time says whether it is the one that is meant.
        let Ok(fd) = pidfd_open(pid, PidfdFlags::empty()) else {
            return false;
        };
        self.alive() && pidfd_send_signal(&fd, signal).is_ok()
    }

    /// TERM, then KILL after `patience`. True when it ended by itself.
    pub fn terminate(&self, patience: Duration) -> bool {
        if !self.signal(Signal::TERM) || self.wait_gone(patience) {
            return true;
        }
        self.signal(Signal::KILL);
        self.wait_gone(Duration::from_secs(5));
        false
    }

    /// Waits until it is gone; false when it is still there after `patience`.
    pub fn wait_gone(&self, patience: Duration) -> bool {
        let end = monotonic() + patience;
        while self.alive() {
            if monotonic() > end {
                return false;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        true
    }

    /// Resident memory, bytes.
    pub fn resident(&self) -> Option<u64> {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.pid)).ok()?;
        let line = text.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
        Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
    }
}

fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|s| s.trim().to_owned())
        .unwrap_or_default()
}

/// `run/NAME.pid`: written by the supervisor, or by a process of ours that systemd or a person started.
pub struct PidFile(PathBuf);

impl PidFile {
    pub fn new(run_dir: &Path, name: &str) -> Self {
        Self(run_dir.join(format!("{name}.pid")))
    }

    /// The process that the file names, when it is alive. A file that belongs to somebody else is not
    /// believed: user haneul can create files in the run directory, and what is read here gets killed by root.
    pub fn live(&self) -> Option<Ident> {
        let meta = std::fs::symlink_metadata(&self.0).ok()?;
        let me = rustix::process::geteuid().as_raw();
        if !meta.is_file() || (me == 0 && meta.uid() != 0) {
            return None;
        }
        let text = std::fs::read_to_string(&self.0).ok()?;
        let mut words = text.split_whitespace();
        let ident = Ident {
            pid: words.next()?.parse().ok()?,
            start: words.next()?.parse().ok()?,
            boot: words.next()?.to_owned(),
        };
        ident.alive().then_some(ident)
    }

    pub fn write(&self, ident: &Ident) -> Result<()> {
        let new = self.0.with_extension("pid.new");
        let _ = std::fs::remove_file(&new);
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o644)
            .open(&new)
            .at(&new)?;
        writeln!(file, "{} {} {}", ident.pid, ident.start, ident.boot).at(&new)?;
        std::fs::rename(&new, &self.0).at(&self.0)
    }

    pub fn remove(&self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// How long a lock may still be held by a child of a killed process: from its fork to its exec it has a copy of the
/// lock.
const LAST_BREATH: std::time::Duration = std::time::Duration::from_secs(1);

/// A lock that is held as long as the value (and the process) lives. It does not pass to children.
pub struct Lock(#[allow(dead_code, reason = "held for its destructor")] File);

impl Lock {
    /// Takes `run/NAME.lock`, or says who seems to hold it.
    pub fn take(run_dir: &Path, name: &str) -> Result<Self> {
        let path = run_dir.join(format!("{name}.lock"));
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(nix::libc::O_NOFOLLOW | nix::libc::O_CLOEXEC)
            .open(&path)
            .at(&path)?;
        let start = std::time::Instant::now();
        let taken = loop {
            match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
                // There is no lock with a time-out to wait for.
                Err(rustix::io::Errno::WOULDBLOCK) if start.elapsed() < LAST_BREATH => {
                    std::thread::sleep(std::time::Duration::from_millis(5));
                }
                other => break other,
            }
        };
        match taken {
            Ok(()) => Ok(Self(file)),
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let who = PidFile::new(run_dir, name)
                    .live()
                    .map_or_else(String::new, |i| format!(" (pid {})", i.pid));
                Err(failed(format!(
                    "haneul {name} already runs here{who}: {} is locked. Stop it with `haneul down`, or choose another state_dir",
                    path.display()
                )))
            }
            Err(e) => Err(failed(format!("{}: {e}", path.display()))),
        }
    }
}

/// What a single `haneul serve` or `haneul agent` holds while it runs.
pub struct Claim {
    _lock: Lock,
    pid_file: PidFile,
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.pid_file.remove();
    }
}

/// Makes sure that this is the only process of its name on the state directory. `serve` and `agent` call it
/// first thing, whoever started them (the supervisor, systemd or a person).
pub fn claim(config: &haneul_core::config::Config, name: &str) -> Result<Claim> {
    let claim = Claim {
        _lock: Lock::take(&config.run_dir(), name)?,
        pid_file: PidFile::new(&config.run_dir(), name),
    };
    if let Some(me) = i32::try_from(std::process::id()).ok().and_then(Ident::of)
        && claim.pid_file.live().as_ref() != Some(&me)
    {
        claim.pid_file.write(&me)?;
    }
    Ok(claim)
}

/// Whether a program is on the search path (and in the sbin directories, which a user's path often lacks).
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':')
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin"])
        .filter(|d| !d.is_empty())
        .map(|d| Path::new(d).join(name))
        .find(|p| p.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_alive_and_a_stranger_with_its_pid_is_not() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let me = Ident::of(pid).unwrap();
        assert!(me.alive());
        let stranger = Ident {
            start: me.start + 1,
            ..me.clone()
        };
        assert!(!stranger.alive());
        assert!(!stranger.signal(Signal::TERM), "a recycled pid must not be signalled");
        let before_reboot = Ident {
            boot: "other".into(),
            ..me
        };
        assert!(!before_reboot.alive());
    }
}
