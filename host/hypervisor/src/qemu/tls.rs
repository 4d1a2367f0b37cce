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
/// The group ffdhe2048 of RFC 7919. Without it QEMU looks for a group of its own when it is to listen, for up to some
/// seconds in which its monitor answers nobody; TLS 1.3, which both ends speak, uses none of either.
const GROUP: &str = "-----BEGIN DH PARAMETERS-----
MIIBCAKCAQEA//////////+t+FRYortKmq/cViAnPTzx2LnFg84tNpWp4TZBFGQz
+8yTnc4kmz75fS/jY2MMddj2gbICrsRhetPfHtXV/WVhJDP1H18GbtCFY2VVPe0a
87VXE15/V8k1mE8McODmi3fipona8+/och3xWKE2rec1MKzKT0g6eXq8CrGCsyT7
YdEIqUuyyOP7uWrat2DX9GgdT0Kj3jlN9K5W7edjcrsZCwenyO4KbXCeAvzhzffi
7MA0BM0oNC9hkXL+nOmFg/+OTxIy7vKBg8P+OxtMb61zO7X8vC7CIAXFjvGDfRaD
ssbzSibBsu/6iGtCOGEoXJf//////////wIBAg==
-----END DH PARAMETERS-----
";

/// AES first: by itself GnuTLS takes ChaCha20 for a shared key, which costs five times as much where the CPU knows AES (240 and
/// 1,300 MB/s on each side), and was half of the time of a small guest's move.
const PRIORITY: &str = "NORMAL:-CIPHER-ALL:+AES-128-GCM:+AES-256-GCM:+CHACHA20-POLY1305";

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
    let mut files = vec![("keys.psk", format!("haneul:{}\n", key.0))];
    if end == End::Target {
        files.push(("dh-params.pem", GROUP.to_owned()));
    }
    let open = write(dir, uid, &files).map_err(|e| disk_error("write the key of the move", &e))?;
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
            "qom-type": "tls-creds-psk", "id": CREDENTIALS, "dir": dir_there, "priority": PRIORITY, "endpoint": "client",
            "username": "haneul",
        }),
        // A server knows all that its file names.
        End::Target => {
            json!({
                "qom-type": "tls-creds-psk", "id": CREDENTIALS, "dir": dir_there, "priority": PRIORITY, "endpoint": "server",
            })
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

fn write(dir: &Path, uid: u32, files: &[(&str, String)]) -> io::Result<File> {
    let dir = dir.join(DIR);
    DirBuilder::new().mode(0o700).create(&dir)?;
    let theirs = |path: &Path| match nix::unistd::geteuid().is_root() {
        true => chown(path, Some(uid), Some(uid)),
        false => Ok(()),
    };
    for (name, text) in files {
        let path = dir.join(name);
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        file.write_all(text.as_bytes())?;
        theirs(&path)?;
    }
    theirs(&dir)?;
    File::open(dir)
}
