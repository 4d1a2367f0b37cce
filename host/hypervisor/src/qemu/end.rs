//! Ends guests' processes without the driver: for the supervisor, when this host may not run them any more.

use super::process::{kill, lock_holder, pidfd_open, take_lock};
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// A process that was killed may take so long to be gone.
const PATIENCE: Duration = Duration::from_secs(2);

/// Kills the processes of these guests in the directory of a [`super::Qemu`], and answers how many there were. Afterwards
/// none of them has one, but by a driver that is still at work there. Records stay, and say so when they are looked at.
///
/// # Errors
/// A process is still there after two seconds.
pub fn end(dir: &Path, guests: &[Uuid]) -> io::Result<usize> {
    let mut ended = 0;
    for id in guests {
        let dir = dir.join("guests").join(id.to_string());
        if dir.exists() && end_one(&dir)? {
            ended += 1;
        }
    }
    Ok(ended)
}

/// The guest's lock says when nothing of it is left, and by whom it is held.
fn end_one(dir: &Path) -> io::Result<bool> {
    let start = Instant::now();
    let mut ended = false;
    while take_lock(dir)?.is_none() {
        if let Some(pid) = lock_holder(dir)
            && let Ok(pidfd) = pidfd_open(pid)
            // The handle pins the process: is it still the one that was found?
            && lock_holder(dir) == Some(pid)
        {
            kill(pidfd.as_fd())?;
            ended = true;
        }
        if start.elapsed() > PATIENCE {
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("a process of {} does not end", dir.display()),
            ));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(ended)
}
