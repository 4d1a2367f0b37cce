//! What `up` did to this host, written down as it does it, so that `down --purge` can undo exactly that.

use crate::{Result, Trouble};
use haneul_core::config::Config;
use haneul_core::durable;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// `state_dir/up.json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Deeds {
    /// Packages that were not there before. They stay after a purge, which names them.
    pub packages: BTreeSet<String>,
    /// Package sources that we added.
    pub sources: BTreeSet<PathBuf>,
    /// We made the account.
    pub account: bool,
    /// systemd units that we installed.
    pub units: BTreeSet<PathBuf>,
    /// Files outside the state directory that we wrote (clouds.yaml, the key of the first server).
    pub files: BTreeSet<PathBuf>,
}

impl Deeds {
    fn path(config: &Config) -> PathBuf {
        config.state_dir.0.join("up.json")
    }

    /// What is written down; nothing when there is no such file.
    pub fn load(config: &Config) -> Result<Self> {
        let path = Self::path(config);
        match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).at(&path),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(e) => Err(e).at(&path),
        }
    }

    /// Changes and saves it, when there is something to change.
    pub fn note(config: &Config, change: impl FnOnce(&mut Self)) -> Result<()> {
        let old = Self::load(config)?;
        let mut new = old.clone();
        change(&mut new);
        if new == old {
            return Ok(());
        }
        let path = Self::path(config);
        let text = serde_json::to_vec_pretty(&new).at(&path)?;
        replace(&path, &text, 0o600)
    }
}

/// Writes a secret that only its owner may read (the admin's password, at the first start of serve).
pub fn write_secret(path: &Path, secret: &str) -> Result<()> {
    replace(path, format!("{secret}\n").as_bytes(), 0o600)
}

/// Writes a file whole or not at all, and durably: who reads the password today has it after a power cut, too.
pub fn replace(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    let _ = std::fs::remove_file(&new);
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&new)
        .at(&new)?;
    file.write_all(bytes).at(&new)?;
    file.sync_all().at(&new)?;
    std::fs::rename(&new, path).at(path)?;
    durable::sync_dir(durable::parent(path)).at(path)
}
