//! The key of a move, in QEMU: a file that only the guest's uid reads, in a directory that QEMU gets open. Its name
//! says nothing outside that process, and neither key nor path ever stand on a command line.

use super::live::Live;
use super::ops::{QMP_DEADLINE, qmp_failure};
use super::{disk_error, hypervisor_error};
use haneul_agent_api::{Failure, MoveKey};
use serde_json::{Value, json};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, chown};
use std::path::Path;

/// QEMU's name of the credentials.
pub(super) const CREDENTIALS: &str = "move";
/// Number of the directory for QEMU.
const FDSET: u32 = 902;
const DIR: &str = "tls";

/// Which end of a connection.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// Connects.
    Source,
    /// Listens.
    Target,
}

/// Gives the process the key. What an attempt before left is taken away first.
pub(super) async fn give(live: &Live, dir: &Path, uid: u32, end: End, key: &MoveKey) -> Result<(), Failure> {
    take(live, dir).await?;
    let open = write(dir, uid, key).map_err(|e| disk_error("write the key of the move", &e))?;
    let named = json!({"fdset-id": FDSET});
    let added = live
        .execute_with("add-fd", named, Some(open.into()), QMP_DEADLINE)
        .await
        .map_err(|e| qmp_failure("take the key of the move", &e))?;
    let fd = added
        .get("fd")
        .and_then(Value::as_u64)
        .ok_or_else(|| hypervisor_error("the hypervisor did not take the key of the move", ""))?;
    let dir_there = format!("/proc/self/fd/{fd}");
    let object = match end {
        End::Source => json!({
            "qom-type": "tls-creds-psk", "id": CREDENTIALS, "dir": dir_there, "endpoint": "client", "username": "haneul",
        }),
        // A server knows all that its file names.
        End::Target => {
            json!({"qom-type": "tls-creds-psk", "id": CREDENTIALS, "dir": dir_there, "endpoint": "server"})
        }
    };
    live.execute("object-add", object, QMP_DEADLINE)
        .await
        .map_err(|e| qmp_failure("take the key of the move", &e))?;
    if end == End::Source {
        // It was read at once; a server reads it for each connection.
        remove(dir).map_err(|e| disk_error("remove the key of the move", &e))?;
    }
    Ok(())
}

/// Takes the key away. Nothing may use it any more; what is not there is fine.
pub(super) async fn take(live: &Live, dir: &Path) -> Result<(), Failure> {
    let _ = live
        .execute("object-del", json!({"id": CREDENTIALS}), QMP_DEADLINE)
        .await;
    let _ = live
        .execute("remove-fd", json!({"fdset-id": FDSET}), QMP_DEADLINE)
        .await;
    remove(dir).map_err(|e| disk_error("remove the key of the move", &e))
}

/// Removes it from the disk.
pub(super) fn remove(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir.join(DIR)) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn write(dir: &Path, uid: u32, key: &MoveKey) -> io::Result<File> {
    let dir = dir.join(DIR);
    DirBuilder::new().mode(0o700).create(&dir)?;
    let path = dir.join("keys.psk");
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)?;
    writeln!(file, "haneul:{}", key.0)?;
    if nix::unistd::geteuid().is_root() {
        chown(&path, Some(uid), Some(uid))?;
        chown(&dir, Some(uid), Some(uid))?;
    }
    File::open(dir)
}
