//! The file that becomes an image: `snapshot-IMAGE.qcow2` in a directory of its guest, `.tmp` behind it until it is whole.
//! What a kill leaves half-done is removed at start and made anew.

use crate::pull::{free_space, sync_dir};
use crate::{disk_full, io_failure, qcow2};
use haneul_agent_api::{Failure, FailureCode};
use haneul_core::fault_point;
use nix::fcntl::{FallocateFlags, fallocate};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use uuid::Uuid;

const WHAT: &str = "store the image of the server";
/// Bytes beside a disk's data: tables, at one part in a thousand, and the ends of clusters.
const BESIDE: u64 = 16 << 20;

fn name(id: Uuid) -> String {
    format!("snapshot-{id}.qcow2")
}

fn part(dir: &Path, id: Uuid) -> PathBuf {
    dir.join(name(id) + ".tmp")
}

/// Whether a file of this name is an image other than the one to keep.
pub(crate) fn is_old(file: &str, keep: Option<Uuid>) -> bool {
    file.starts_with("snapshot-") && !keep.is_some_and(|id| file.starts_with(&name(id)))
}

/// Makes the file, as an empty qcow2 disk of one sector, with room for `data` bytes that are kept for it.
pub(crate) fn begin(dir: &Path, id: Uuid, data: u64) -> Result<PathBuf, Failure> {
    let need = data + data / 1000 + BESIDE;
    let io = |e: io::Error| io_failure(WHAT, need, free_space(dir), &e);
    let path = part(dir, id);
    // QEMU may have one of an attempt before open, and be writing to it.
    match fs::remove_file(&path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(io(e)),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)
        .map_err(io)?;
    let free = free_space(dir);
    if free < need {
        let _ = fs::remove_file(&path);
        return Err(disk_full(WHAT, need, free, "checked before the copy"));
    }
    let length = i64::try_from(need).unwrap_or(i64::MAX);
    // Not every file system has it; what counts is only "no space".
    if fallocate(&file, FallocateFlags::FALLOC_FL_KEEP_SIZE, 0, length) == Err(nix::errno::Errno::ENOSPC) {
        let _ = fs::remove_file(&path);
        return Err(io(nix::errno::Errno::ENOSPC.into()));
    }
    qcow2::write_empty(&mut file, 512).map_err(io)?;
    fault_point!("blockdev.snapshot.begun", failed("fault point"));
    Ok(path)
}

/// The file that [`begin`] made, empty, for whoever writes all of it.
pub(crate) fn rewrite(dir: &Path, id: Uuid) -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).open(part(dir, id))?;
    file.set_len(0)?;
    Ok(file)
}

/// It is whole: makes it durable, and gives it its name; answers its size.
pub(crate) fn keep(dir: &Path, id: Uuid) -> Result<u64, Failure> {
    let io = |e: io::Error| io_failure(WHAT, 0, free_space(dir), &e);
    let file = OpenOptions::new().write(true).open(part(dir, id)).map_err(io)?;
    let size = file.metadata().map_err(io)?.len();
    // Gives back the room that was kept for it and not needed.
    file.set_len(size).map_err(io)?;
    file.sync_all().map_err(io)?;
    fault_point!("blockdev.snapshot.before-rename", failed("fault point"));
    fs::rename(part(dir, id), dir.join(name(id))).map_err(io)?;
    sync_dir(dir).map_err(io)?;
    fault_point!("blockdev.snapshot.kept", failed("fault point"));
    Ok(size)
}

/// The whole file and its size, if there is one.
pub(crate) fn open(dir: &Path, id: Uuid) -> Result<Option<(File, u64)>, Failure> {
    let opened = match File::open(dir.join(name(id))) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.and_then(|f| f.metadata().map(|m| (f, m.len()))),
    };
    opened
        .map(Some)
        .map_err(|e| io_failure("read the image of the server", 0, 0, &e))
}

/// Removes the files of a directory for which `gone` says so; nothing there is fine.
pub(crate) fn remove(dir: &Path, gone: impl Fn(&str) -> bool) -> io::Result<()> {
    let entries = match fs::read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    for entry in entries {
        let entry = entry?;
        if gone(&entry.file_name().to_string_lossy()) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// What went wrong with the copy itself.
pub(crate) fn failed(detail: impl std::fmt::Display) -> Failure {
    crate::failure(
        FailureCode::DiskError,
        "the host could not copy the server's disk",
        detail,
    )
}
