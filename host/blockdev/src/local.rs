//! Local disks: empty raw files, sparse, beside the root disk. `ephemeral-N.raw` and `swap-N-MIB.raw` are those for
//! rebuild counter N; the size of a swap disk is in its name, for none is ever changed that a guest may use.

use crate::file::put;
use crate::io_failure;
use crate::pull::{free_space, sync_dir};
use haneul_agent_api::{Failure, LocalDisk, LocalKind};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use uuid::Uuid;

fn name(rebuilds: u64, disk: &LocalDisk) -> String {
    match disk.kind {
        LocalKind::Ephemeral => format!("ephemeral-{rebuilds}.raw"),
        LocalKind::Swap => format!("swap-{rebuilds}-{}.raw", disk.mib),
    }
}

/// The rebuild counter in a local disk's name.
pub(crate) fn rebuilds_of(name: &str) -> Option<u64> {
    let rest = name.strip_prefix("ephemeral-").or_else(|| name.strip_prefix("swap-"))?;
    rest.strip_suffix(".raw")?.split('-').next()?.parse().ok()
}

/// See [`crate::BlockDriver::local`]. The guest's directory is there: its root disk comes first.
pub(crate) fn make(disks: &Path, guest: Uuid, rebuilds: u64, wanted: &[LocalDisk]) -> Result<Vec<PathBuf>, Failure> {
    let dir = disks.join(guest.to_string());
    let needed = wanted.iter().map(|d| d.mib << 20).sum();
    let io = |e: io::Error| io_failure("make the local disks", needed, free_space(disks), &e);
    let mut all = Vec::new();
    for disk in wanted {
        let (name, bytes) = (name(rebuilds, disk), disk.mib << 20);
        let path = dir.join(&name);
        if !path.try_exists().map_err(io)? {
            put(&dir, &name, |f| {
                f.set_len(bytes)?;
                match disk.kind {
                    LocalKind::Ephemeral => ext4(&dir.join(format!("{name}.tmp"))),
                    LocalKind::Swap => swap(f, bytes),
                }
            })
            .map_err(io)?;
            sync_dir(&dir).map_err(io)?;
        } else if fs::metadata(&path).map_err(io)?.len() < bytes {
            let file = OpenOptions::new().write(true).open(&path).map_err(io)?;
            file.set_len(bytes).and_then(|()| file.sync_all()).map_err(io)?;
        }
        all.push(path);
    }
    let old = |name: &str| name.starts_with("swap-") && rebuilds_of(name) == Some(rebuilds);
    for entry in fs::read_dir(&dir).map_err(io)? {
        let path = entry.map_err(io)?.path();
        if path.file_name().is_some_and(|n| old(&n.to_string_lossy())) && !all.contains(&path) {
            fs::remove_file(path).map_err(io)?;
        }
    }
    Ok(all)
}

/// What Nova puts there, and cloud-init mounts at /mnt. No guest has seen the file yet.
fn ext4(path: &Path) -> io::Result<()> {
    let made = Command::new("mkfs.ext4")
        .args(["-q", "-F", "-L", "ephemeral0", "-E", "lazy_itable_init=1,nodiscard"])
        .arg(path)
        .stdin(Stdio::null())
        .output()?;
    if made.status.success() {
        return Ok(());
    }
    let why = String::from_utf8_lossy(&made.stderr).trim().to_owned();
    Err(io::Error::other(format!("mkfs.ext4: {}: {why}", made.status)))
}

/// The head of a swap area of version 1, pages of 4 KiB (mkswap(8), linux/swap.h).
fn swap(file: &File, bytes: u64) -> io::Result<()> {
    const PAGE: u64 = 4096;
    let last_page = u32::try_from(bytes / PAGE).unwrap_or(u32::MAX).saturating_sub(1);
    file.write_all_at(&1u32.to_le_bytes(), 1024)?;
    file.write_all_at(&last_page.to_le_bytes(), 1028)?;
    file.write_all_at(Uuid::new_v4().as_bytes(), 1036)?;
    file.write_all_at(b"SWAPSPACE2", PAGE - 10)
}
