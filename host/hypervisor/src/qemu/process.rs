//! Processes of guests: start without privileges, name without doubt, find again, kill.
//!
//! A guest's lock (`guests/ID/lock`, flock) is taken before the start and inherited by the process, which
//! holds it for its whole life. So at any later moment, whatever was killed in between, a free lock means
//! that no process of this guest exists, and a second one cannot be started beside a first.

// fork, exec and pidfds have no safe form that does what is needed here.
#![allow(unsafe_code)]

use super::record::Process;
use haneul_core::clock;
use nix::fcntl::{Flock, FlockArg};
use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The identity of this boot of the host.
pub(crate) fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// Start time in clock ticks; `None` when there is no such process or it is dead already (zombie).
pub(crate) fn start_ticks(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may contain anything but ends at the last parenthesis.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X" | "x") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// A handle that cannot come to mean another process.
pub(crate) fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: plain system call; the result is checked and owned once.
    unsafe {
        let fd = libc::syscall(libc::SYS_pidfd_open, pid, 0);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(OwnedFd::from_raw_fd(fd as RawFd))
    }
}

/// SIGKILL by handle. A process that is gone already is fine.
pub(crate) fn kill(pidfd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: plain system call on a descriptor that we hold.
    let r = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            libc::SIGKILL,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    match io::Error::last_os_error() {
        _ if r == 0 => Ok(()),
        e if e.raw_os_error() == Some(libc::ESRCH) => Ok(()),
        e => Err(e),
    }
}

/// Takes a dead child's status so that it does not stay as a zombie. Not ours after an adoption: fine.
pub(crate) fn reap(pidfd: BorrowedFd<'_>) {
    let _ = nix::sys::wait::waitid(
        nix::sys::wait::Id::PIDFd(pidfd),
        nix::sys::wait::WaitPidFlag::WEXITED | nix::sys::wait::WaitPidFlag::WNOHANG,
    );
}

/// Opens a recorded process if it is still that process.
pub(crate) fn open_recorded(process: &Process, boot_id: &str) -> Option<OwnedFd> {
    if process.boot_id != boot_id {
        return None;
    }
    let fd = pidfd_open(process.pid).ok()?;
    // Compared after the handle exists: the pid cannot change hands any more.
    (start_ticks(process.pid) == Some(process.start_ticks)).then_some(fd)
}

fn lock_file(dir: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(dir.join("lock"))
}

/// Takes the guest's lock; `None` when a process of the guest lives.
pub(crate) fn take_lock(dir: &Path) -> io::Result<Option<Flock<File>>> {
    match Flock::lock(lock_file(dir)?, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(Some(lock)),
        Err((_, nix::errno::Errno::EWOULDBLOCK)) => Ok(None),
        Err((_, e)) => Err(e.into()),
    }
}

/// The lock's identity.
fn lock_id(dir: &Path) -> Option<(u64, u64)> {
    let lock = fs::metadata(dir.join("lock")).ok()?;
    Some((lock.dev(), lock.ino()))
}

/// Locks that a process has open. Files of other names are not looked at: a guest's disk may be on a file system that
/// does not answer, and whoever asks would hang with it.
fn locks_of(pid: i32) -> impl Iterator<Item = (u64, u64)> {
    let fds = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    fds.filter(|fd| fs::read_link(fd.path()).is_ok_and(|l| l.ends_with("lock")))
        .filter_map(|fd| fs::metadata(fd.path()).ok())
        .map(|m| (m.dev(), m.ino()))
}

/// Whether the process holds the guest's lock.
pub(crate) fn holds_lock(pid: i32, dir: &Path) -> bool {
    lock_id(dir).is_some_and(|lock| locks_of(pid).any(|l| l == lock))
}

/// Processes that hold locks of these guests and are not us: found by their open files, so that they are found even
/// between fork and exec. Needs root.
pub(crate) fn lock_holders(dirs: &[PathBuf]) -> Vec<(&Path, i32)> {
    let locks: HashMap<_, &Path> = dirs.iter().filter_map(|d| Some((lock_id(d)?, d.as_path()))).collect();
    let me = std::process::id() as i32;
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else {
            continue;
        };
        if pid != me {
            let held = locks_of(pid).filter_map(|l| locks.get(&l)).map(|dir| (*dir, pid));
            found.extend(held.filter(|_| start_ticks(pid).is_some()));
        }
    }
    found
}

/// The process that holds a guest's lock and is not us.
pub(crate) fn lock_holder(dir: &Path) -> Option<i32> {
    lock_holders(&[dir.to_owned()]).first().map(|(_, pid)| *pid)
}

/// Guests of this host directory that have a process, by the mark on the command line. For audits:
/// `tag` is the directory's own random mark.
pub(crate) fn marked(tag: &str) -> Vec<(uuid::Uuid, i32)> {
    let mark = format!("haneul:{tag}:");
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else {
            continue;
        };
        let Ok(line) = fs::read(entry.path().join("cmdline")) else {
            continue;
        };
        let line = String::from_utf8_lossy(&line);
        if let Some(at) = line.find(&mark)
            && let Some(id) = line.get(at + mark.len()..at + mark.len() + 36)
            && let Ok(id) = uuid::Uuid::try_parse(id)
        {
            found.push((id, pid));
        }
    }
    found
}

/// Everything that a start needs; see [`spawn`].
pub(crate) struct Launch {
    pub program: PathBuf,
    pub args: Vec<OsString>,
    /// Open files that the process gets under the same numbers.
    pub keep: Vec<OwnedFd>,
    pub lock: Flock<File>,
    /// Open `cgroup.procs` files that it writes itself into.
    pub cgroups: Vec<OwnedFd>,
    pub log: File,
    pub uid: u32,
}

/// Starts the process: a session of its own, its cgroups, uid and gid without groups, no new
/// privileges, no core files, and no open file but those it shall have.
pub(crate) fn spawn(launch: Launch) -> io::Result<(Process, OwnedFd)> {
    let Launch {
        program,
        args,
        keep,
        lock,
        cgroups,
        log,
        uid,
    } = launch;
    let boot_id = boot_id()?;
    // Only root can give up rights; a developer's own agent runs guests as itself.
    let drop_rights = nix::unistd::geteuid().is_root();
    let mut numbers: Vec<RawFd> = keep.iter().map(AsRawFd::as_raw_fd).collect();
    numbers.push(lock.as_raw_fd());
    let groups: Vec<RawFd> = cgroups.iter().map(AsRawFd::as_raw_fd).collect();
    let mut command = Command::new(program);
    command
        .args(args)
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    // SAFETY: between fork and exec only async-signal-safe system calls are made, on memory that was
    // made ready before the fork; nothing allocates or locks.
    unsafe {
        command.pre_exec(move || {
            let check = |r: libc::c_int| if r < 0 { Err(io::Error::last_os_error()) } else { Ok(()) };
            check(libc::setsid())?;
            for fd in &groups {
                // "0" is the writer itself. A guest without limits is better than none: the parent has
                // warned when cgroups are not to be had.
                let _ = libc::write(*fd, b"0".as_ptr().cast(), 1);
            }
            let none = libc::rlimit {
                rlim_cur: 0,
                rlim_max: 0,
            };
            check(libc::setrlimit(libc::RLIMIT_CORE, &none))?;
            libc::umask(0o077);
            if drop_rights {
                check(libc::setgroups(0, std::ptr::null()))?;
                check(libc::setresgid(uid, uid, uid))?;
                check(libc::setresuid(uid, uid, uid))?;
            }
            check(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))?;
            // All that we have open closes on exec, whoever opened it and how; then ours are excepted.
            // Kernels before 5.11 do not have it: there every file of ours is close-on-exec anyway.
            let _ = libc::syscall(libc::SYS_close_range, 3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC);
            for fd in &numbers {
                check(libc::fcntl(*fd, libc::F_SETFD, 0))?;
            }
            Ok(())
        });
    }
    let child = command.spawn()?;
    let pid = child.id() as i32;
    // We are the parent and have not waited: the pid is still this child's, even if it died at once.
    let pidfd = pidfd_open(pid)?;
    release_without_unlock(lock)?;
    drop((keep, cgroups));
    Ok((
        Process {
            pid,
            start_ticks: start_ticks(pid).unwrap_or(0),
            boot_id,
            started_at: clock::now(),
        },
        pidfd,
    ))
}

/// Closes our descriptor of a lock that a child has inherited, without LOCK_UN (which would take it from
/// the child too).
fn release_without_unlock(lock: Flock<File>) -> io::Result<()> {
    let fd = lock.as_raw_fd();
    std::mem::forget(lock);
    // SAFETY: the descriptor was owned by the forgotten lock and is owned here alone now.
    drop(unsafe { OwnedFd::from_raw_fd(fd) });
    Ok(())
}
