//! The files in the shared directory.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// Every file is so long, always: it is written in its place by one call, so that a network file system has nothing to look
/// up anew, and an open file sees what others write.
const BYTES: usize = 1024;

/// What a host's supervisor says of itself, again and again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beat {
    /// Goes up by one each time.
    pub number: u64,
    pub boot_id: String,
    /// Milliseconds without a beat after which it lets its guests go on no longer.
    pub term_ms: u64,
    /// Whether its agent runs.
    pub agent: bool,
    /// Milliseconds since control was last reachable from there.
    pub cut_ms: u64,
    /// The fence up to which none of its guests on shared disks has a process any more.
    #[serde(default)]
    pub stopped: u64,
}

/// The end of a host's lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fence {
    /// Grants up to this one are over.
    pub token: u64,
    /// The host that wrote it.
    pub by: Uuid,
}

/// The name of the file that makes a directory the shared one: an empty mount point is not.
pub const MARKER: &str = "haneul-disks";

/// `fence/` of a shared directory.
#[derive(Clone, Debug)]
pub struct Place {
    shared: PathBuf,
}

impl Place {
    /// In this shared directory.
    pub fn of(shared: &Path) -> Self {
        Self {
            shared: shared.to_owned(),
        }
    }

    /// # Errors
    /// The directory is not there, or not mounted.
    fn path(&self, host: Uuid, what: &str) -> io::Result<PathBuf> {
        let marker = self.shared.join(MARKER);
        std::fs::metadata(&marker).map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", marker.display())))?;
        Ok(self.shared.join("fence").join(format!("{host}.{what}")))
    }

    pub fn beat(&self, host: Uuid, beat: &Beat) -> io::Result<()> {
        write(&self.path(host, "beat")?, beat)
    }

    /// `None`: the host never had a lease here.
    pub fn read_beat(&self, host: Uuid) -> io::Result<Option<Beat>> {
        read(&self.path(host, "beat")?)
    }

    /// Ends the lease of a host, up to a grant. One that is ended further stays so.
    pub fn fence(&self, host: Uuid, fence: &Fence) -> io::Result<()> {
        match self.read_fence(host)? {
            Some(f) if f.token >= fence.token => Ok(()),
            _ => write(&self.path(host, "fence")?, fence),
        }
    }

    pub fn read_fence(&self, host: Uuid) -> io::Result<Option<Fence>> {
        read(&self.path(host, "fence")?)
    }
}

fn write(path: &Path, value: &impl Serialize) -> io::Result<()> {
    let mut bytes = serde_json::to_vec(value)?;
    if bytes.len() >= BYTES {
        return Err(io::Error::other(format!(
            "{} bytes do not fit into {BYTES}",
            bytes.len()
        )));
    }
    bytes.resize(BYTES - 1, b' ');
    bytes.push(b'\n');
    let open = || {
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
    };
    let file = match open() {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            // Only the last part: the shared directory itself is not made here.
            DirBuilder::new().mode(0o700).create(path.parent().unwrap_or(path))?;
            open()?
        }
        other => other?,
    };
    file.write_all_at(&bytes, 0)?;
    file.sync_data()
}

fn read<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    let file = match File::open(path) {
        Ok(f) => f,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    let mut bytes = [0; BYTES];
    let n = file.read_at(&mut bytes, 0)?;
    let text = bytes.get(..n).unwrap_or_default();
    Ok(Some(serde_json::from_slice(text)?))
}
