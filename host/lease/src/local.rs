//! The files on the host itself, through which its agent and its supervisor speak.

use crate::{boot_id, boottime};
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use uuid::Uuid;

/// How the lease is, as the supervisor last wrote it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Life {
    pub boot_id: String,
    /// Milliseconds since boot at which it ends when it is not renewed.
    pub until_ms: u64,
    /// Ended by others, up to this grant.
    #[serde(default)]
    pub fenced: Option<u64>,
    /// Why it is not renewed.
    #[serde(default)]
    pub trouble: String,
}

impl Life {
    /// What is left of the lease.
    ///
    /// # Errors
    /// Why there is none.
    pub fn left(&self) -> Result<Duration, String> {
        if let Some(token) = self.fenced {
            return Err(format!(
                "other hosts were allowed to start this host's servers (fence {token}); control renews the lease when the host is connected"
            ));
        }
        let until = match self.boot_id == boot_id() {
            true => Duration::from_millis(self.until_ms),
            false => Duration::ZERO,
        };
        let left = until.saturating_sub(boottime());
        match (left.is_zero(), self.trouble.as_str()) {
            (false, _) => Ok(left),
            (true, "") => Err("the host's supervisor (`haneul run`), which keeps the lease, does not run".into()),
            (true, trouble) => Err(trouble.to_owned()),
        }
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Local {
    /// Only root writes here.
    dir: PathBuf,
}

impl Local {
    /// In the agent's directory.
    pub fn of(agent_dir: &Path) -> Self {
        Self {
            dir: agent_dir.join("lease"),
        }
    }

    /// What control has granted last. 0: nothing yet.
    pub fn grant(&self) -> io::Result<u64> {
        match std::fs::read_to_string(self.dir.join("grant")) {
            Ok(text) => text.trim().parse().map_err(io::Error::other),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(e) => Err(e),
        }
    }

    /// Written by the agent when it hears of it, durably. An older one changes nothing.
    pub fn set_grant(&self, token: u64) -> io::Result<()> {
        if self.grant()? >= token {
            return Ok(());
        }
        self.replace("grant", format!("{token}\n").as_bytes(), true)
    }

    pub fn life(&self) -> Life {
        std::fs::read(self.dir.join("life"))
            .ok()
            .and_then(|b| serde_json::from_slice(&b).ok())
            .unwrap_or_default()
    }

    /// Written by the supervisor.
    pub fn set_life(&self, life: &Life) -> io::Result<()> {
        self.replace("life", &serde_json::to_vec(life)?, false)
    }

    /// Noted by whoever sees that there is no lease: what does not end by its own process must not go on, or come back, before
    /// control has said what is whose by now.
    pub fn lapse(&self) -> io::Result<()> {
        std::fs::create_dir_all(&self.dir)?;
        File::create(self.dir.join("lapsed")).map(drop)
    }

    /// Whether there was no lease for a while, and control has not been heard since.
    pub fn has_lapsed(&self) -> bool {
        self.dir.join("lapsed").exists()
    }

    /// Control was heard, and there is a lease.
    pub fn mend(&self) {
        let _ = std::fs::remove_file(self.dir.join("lapsed"));
    }

    /// From now on the guest ends with the lease. Durable, and before its process starts.
    pub fn bind(&self, guest: Uuid) -> io::Result<()> {
        let dir = self.dir.join("bound");
        let path = dir.join(guest.to_string());
        if path.exists() {
            return Ok(());
        }
        std::fs::create_dir_all(&dir)?;
        File::create(&path)?;
        File::open(&dir)?.sync_all()
    }

    /// Nothing of the guest is left on this host.
    pub fn unbind(&self, guest: Uuid) {
        let _ = std::fs::remove_file(self.dir.join("bound").join(guest.to_string()));
    }

    pub fn is_bound(&self, guest: Uuid) -> bool {
        self.dir.join("bound").join(guest.to_string()).exists()
    }

    /// Guests that end with the lease.
    pub fn bound(&self) -> io::Result<Vec<Uuid>> {
        let entries = match std::fs::read_dir(self.dir.join("bound")) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(vec![]),
            other => other?,
        };
        let mut all = Vec::new();
        for entry in entries {
            if let Ok(id) = Uuid::try_parse(&entry?.file_name().to_string_lossy()) {
                all.push(id);
            }
        }
        Ok(all)
    }

    fn replace(&self, name: &str, bytes: &[u8], durably: bool) -> io::Result<()> {
        let (path, tmp) = (self.dir.join(name), self.dir.join(format!("{name}.tmp")));
        std::fs::create_dir_all(&self.dir)?;
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&tmp)?;
        file.write_all(bytes)?;
        if durably {
            file.sync_all()?;
        }
        std::fs::rename(&tmp, &path)?;
        match durably {
            true => File::open(&self.dir)?.sync_all(),
            false => Ok(()),
        }
    }
}
