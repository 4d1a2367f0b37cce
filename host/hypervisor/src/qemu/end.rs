//! Ends guests' processes without the driver: for the supervisor, when this host may not run them any more.

use super::process::{holds_lock, kill, lock_holders, pidfd_open, take_lock};
use std::collections::BTreeSet;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use uuid::Uuid;

/// Processes that were killed may take so long to be gone, all of them together.
const PATIENCE: Duration = Duration::from_secs(2);
/// Between looks at what is left.
const LOOK: Duration = Duration::from_millis(10);

/// Kills the processes of these guests in the directory of a [`super::Qemu`], and answers how many there were. Afterwards
/// none of them has one, but by a driver that is still at work there. Records stay, and say so when they are looked at.
/// All are killed before any is waited for: one that hangs on its disk keeps no other alive.
///
/// # Errors
/// A process is still there after two seconds, or a guest's lock cannot be used, which says whether there is one. All
/// others are gone.
pub fn end(dir: &Path, guests: &[Uuid]) -> io::Result<usize> {
    let start = Instant::now();
    let dirs = guests.iter().map(|id| dir.join("guests").join(id.to_string()));
    let mut left: Vec<PathBuf> = dirs.filter(|d| d.exists()).collect();
    let mut ended = BTreeSet::new();
    let mut trouble = None;
    loop {
        // A guest's lock says when nothing of it is left.
        left.retain(|dir| match take_lock(dir) {
            Ok(lock) => lock.is_none(),
            Err(e) => {
                trouble.get_or_insert_with(|| io::Error::new(e.kind(), format!("{}: {e}", dir.display())));
                true
            }
        });
        let Some(one) = left.first() else {
            return Ok(ended.len());
        };
        for (dir, pid) in lock_holders(&left) {
            match end_one(dir, pid) {
                Ok(true) => {
                    ended.insert(dir.to_owned());
                }
                Ok(false) => {}
                Err(e) => {
                    trouble.get_or_insert(e);
                }
            }
        }
        if start.elapsed() > PATIENCE {
            let late = || {
                let text = format!("{} guests do not end, one of them {}", left.len(), one.display());
                io::Error::new(io::ErrorKind::TimedOut, text)
            };
            return Err(trouble.unwrap_or_else(late));
        }
        std::thread::sleep(LOOK);
    }
}

/// Kills the process, if it is still the one that was found.
fn end_one(dir: &Path, pid: i32) -> io::Result<bool> {
    let Ok(pidfd) = pidfd_open(pid) else { return Ok(false) };
    // The handle pins the process.
    let same = holds_lock(pid, dir);
    if same {
        kill(pidfd.as_fd())?;
    }
    Ok(same)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::process::{Child, Command};

    /// A process that holds the guest's lock, as QEMU does.
    fn process(dir: &Path, guest: Uuid) -> Child {
        let dir = dir.join("guests").join(guest.to_string());
        std::fs::create_dir_all(&dir).unwrap();
        let script = "exec 9>lock; flock 9; touch started; exec sleep 1000";
        let child = Command::new("sh").args(["-c", script]).current_dir(&dir).spawn();
        while !dir.join("started").exists() {
            std::thread::sleep(LOOK);
        }
        child.unwrap()
    }

    #[test]
    fn one_that_cannot_be_ended_keeps_no_other_alive() {
        let dir = std::env::temp_dir().join(format!("haneul-end-{}", Uuid::new_v4()));
        let guests = [Uuid::new_v4(), Uuid::new_v4(), Uuid::new_v4()];
        std::fs::create_dir_all(dir.join("guests").join(guests[0].to_string()).join("lock")).unwrap();
        let mut others = [process(&dir, guests[1]), process(&dir, guests[2])];
        let refused = end(&dir, &guests).unwrap_err();
        assert!(refused.to_string().contains(&guests[0].to_string()), "{refused}");
        let gone = others.each_mut().map(|other| {
            let gone = other.try_wait().unwrap().is_some();
            other.kill().unwrap();
            other.wait().unwrap();
            gone
        });
        assert_eq!(gone, [true, true], "guests behind it run on");
        assert_eq!(end(&dir, &guests[1..]).unwrap(), 0);
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
