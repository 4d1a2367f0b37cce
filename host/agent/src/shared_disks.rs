//! The directory for disks that this host shares with others (`agent.shared_disks`).
//!
//! A file in it, the marker, says which one it is: two hosts have the same directory when they read the same marker,
//! whatever its path is on each. A host remembers the marker that it has seen, so that a file system that is not mounted
//! is never taken for a new, empty one.

use crate::journal::write_durably;
use haneul_blockdev::BlockDriver;
use haneul_core::config::Config;
use haneul_core::durable::sync_dir;
use haneul_core::{Error, Result};
use haneul_lease::MARKER;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use uuid::Uuid;

/// See the module.
#[derive(Clone)]
pub struct SharedDisks {
    pub marker: Uuid,
    pub block: Arc<dyn BlockDriver>,
}

/// Opens the directory that the configuration names.
///
/// # Errors
/// It is not there, cannot be written to, or is another one than before.
pub(crate) fn open(config: &Config, host: Uuid) -> Result<Option<SharedDisks>> {
    let Some(dir) = &config.agent.shared_disks else {
        return Ok(None);
    };
    let remembered = config.agent_dir().join("shared-disks");
    let marker = mark(dir, host, &remembered)?;
    let opened: io::Result<Arc<dyn BlockDriver>> = match config.agent.hypervisor.as_str() {
        "fake" => haneul_blockdev::fake::Fake::open_shared(dir).map(|d| Arc::new(d) as _),
        _ => haneul_blockdev::file::File::open_shared(dir, host).map(|d| Arc::new(d) as _),
    };
    let block = opened.map_err(|e| unusable(dir, &e))?;
    tracing::info!(%marker, dir = %dir.display(), "disks of new guests lie in a directory that hosts share");
    Ok(Some(SharedDisks { marker, block }))
}

fn unusable(dir: &Path, e: &io::Error) -> Error {
    let why = match e.kind() {
        io::ErrorKind::NotFound => "there is no such directory".to_owned(),
        io::ErrorKind::PermissionDenied => {
            "root of this host may not write there (of NFS, export it with no_root_squash)".to_owned()
        }
        io::ErrorKind::ReadOnlyFilesystem => "it is mounted read-only".to_owned(),
        _ => e.to_string(),
    };
    Error::unavailable(format!(
        "agent.shared_disks = \"{}\" cannot be used: {why}. Mount it there before the agent starts, or take the setting out: then new guests get disks of this host's own.",
        dir.display()
    ))
    .with_private(e)
}

/// The directory's marker, made when it has none and this host has never seen one.
fn mark(dir: &Path, host: Uuid, remembered: &Path) -> Result<Uuid> {
    // Also shows that it can be written to.
    let part = dir.join(format!("{MARKER}.{host}.tmp"));
    let made = Uuid::new_v4();
    write_part(&part, made).map_err(|e| unusable(dir, &e))?;
    let known = read(remembered)?;
    let there = read(&dir.join(MARKER))?;
    let marker = match (there, known) {
        (there, Some(known)) if there != Some(known) => Err(Error::conflict(format!(
            "agent.shared_disks = \"{}\" holds {}, and the disks of this host's guests are in the directory {known}: is the right file system mounted there? When it shall be another one from now on, remove {} first; guests whose disks are in the old one are refused then.",
            dir.display(),
            there.map_or_else(|| "no disks of hosts".into(), |m| format!("the disks {m}")),
            remembered.display()
        ))),
        (Some(there), _) => Ok(there),
        (None, _) => publish(dir, &part).map_err(|e| unusable(dir, &e)).and_then(|()| {
            read(&dir.join(MARKER))?.ok_or_else(|| Error::internal("a marker that was just written is not there"))
        }),
    };
    let _ = fs::remove_file(&part);
    let marker = marker?;
    if known.is_none() {
        write_durably(remembered, format!("{marker}\n").as_bytes())?;
    }
    Ok(marker)
}

fn write_part(part: &Path, marker: Uuid) -> io::Result<()> {
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(part)?;
    file.write_all(format!("{marker}\n").as_bytes())?;
    file.sync_all()
}

/// Gives the marker its name, unless another host was quicker: then that one's counts.
fn publish(dir: &Path, part: &Path) -> io::Result<()> {
    match fs::hard_link(part, dir.join(MARKER)) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(e),
        _ => sync_dir(dir),
    }
}

fn read(path: &Path) -> Result<Option<Uuid>> {
    match fs::read_to_string(path) {
        Ok(text) => Uuid::try_parse(text.trim())
            .map(Some)
            .map_err(|e| Error::unavailable(format!("{} names no directory of disks: {e}", path.display()))),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::unavailable(format!("{} cannot be read: {e}", path.display()))),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Hosts that start at once agree on one marker, and each finds it again.
    #[test]
    fn one_marker_for_all_who_start_at_once() {
        let top = std::env::temp_dir().join(format!("haneul-shared-{}", haneul_core::id::hex()));
        for round in 0..50 {
            let dir = top.join(format!("disks-{round}"));
            fs::create_dir_all(&dir).unwrap();
            let hosts: Vec<Uuid> = (0..4).map(|_| Uuid::new_v4()).collect();
            let at = |host: &Uuid| mark(&dir, *host, &top.join(format!("{round}-{host}"))).unwrap();
            let seen: Vec<Uuid> = std::thread::scope(|s| {
                let all: Vec<_> = hosts.iter().map(|h| s.spawn(move || at(h))).collect();
                all.into_iter().map(|t| t.join().unwrap()).collect()
            });
            assert!(seen.iter().all(|m| *m == seen[0]), "{seen:?}");
            assert_eq!(at(&hosts[0]), seen[0]);
            assert_eq!(fs::read_dir(&dir).unwrap().count(), 1, "only the marker is left");
        }
        fs::remove_dir_all(top).unwrap();
    }

    #[test]
    fn what_is_not_mounted_is_never_taken_for_new() {
        let top = std::env::temp_dir().join(format!("haneul-shared-{}", haneul_core::id::hex()));
        let dir = top.join("disks");
        let (host, remembered) = (Uuid::new_v4(), top.join("remembered"));
        let why = |e: Error| e.public().to_owned();
        fs::create_dir_all(&top).unwrap();
        let none = why(mark(&dir, host, &remembered).unwrap_err());
        assert!(none.contains("there is no such directory"), "{none}");
        fs::create_dir(&dir).unwrap();
        let marker = mark(&dir, host, &remembered).unwrap();
        fs::remove_file(dir.join(MARKER)).unwrap();
        let empty = why(mark(&dir, host, &remembered).unwrap_err());
        assert!(
            empty.contains("no disks of hosts") && empty.contains(&marker.to_string()) && empty.contains("mounted"),
            "{empty}"
        );
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
        let other = Uuid::new_v4();
        fs::write(dir.join(MARKER), other.to_string()).unwrap();
        let swapped = why(mark(&dir, host, &remembered).unwrap_err());
        assert!(swapped.contains(&other.to_string()), "{swapped}");
        fs::remove_file(&remembered).unwrap();
        assert_eq!(mark(&dir, host, &remembered).unwrap(), other);
        fs::remove_dir_all(top).unwrap();
    }
}
