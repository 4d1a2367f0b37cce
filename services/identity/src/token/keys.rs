//! The Fernet key repository, in Keystone's layout (admin guide, "Fernet - Frequently Asked Questions"):
//! files named by numbers; the highest is the primary key and seals; 0 is the staged one and becomes the
//! primary at the next rotation; the others still open what they sealed.

use fernet::Fernet;
use haneul_core::durable::make_dir;
use haneul_core::{Error, Result, fault_point};
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

/// Keys that are kept at the most (keystone.conf `[fernet_tokens] max_active_keys`).
const MAX_ACTIVE: usize = 3;
/// Between two readings.
const AGAIN: Duration = Duration::from_secs(1);

/// See the module.
pub(crate) struct Keys {
    dir: PathBuf,
    /// Primary first.
    ring: RwLock<Arc<Vec<Fernet>>>,
    /// When it was read again last.
    looked: Mutex<Option<Instant>>,
}

impl Keys {
    /// Reads the repository, and makes it when it is not there.
    pub(crate) fn open(dir: PathBuf) -> Result<Self> {
        make_dir(&dir, 0o700)?;
        if numbers(&dir)?.is_empty() {
            write_key(&dir, 1)?;
            write_key(&dir, 0)?;
        }
        let ring = RwLock::new(Arc::new(read(&dir)?));
        let looked = Mutex::new(None);
        Ok(Self { dir, ring, looked })
    }

    /// The staged key becomes the primary, a new one is staged, and the oldest is forgotten.
    pub(crate) fn rotate(&self) -> Result<()> {
        let mut held = numbers(&self.dir)?;
        let next = held.last().copied().unwrap_or(0) + 1;
        if held.contains(&0) {
            fs::rename(self.dir.join("0"), self.dir.join(next.to_string()))?;
            held.push(next);
        }
        fault_point!("identity.keys.between");
        write_key(&self.dir, 0)?;
        held.retain(|n| *n != 0);
        while held.len() + 1 > MAX_ACTIVE {
            fs::remove_file(self.dir.join(held.remove(0).to_string()))?;
        }
        fs::File::open(&self.dir)?.sync_all()?;
        *self.ring.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(read(&self.dir)?);
        Ok(())
    }

    /// Reads the repository again; says whether it did. Not more often than once a second: anybody may show tokens that no
    /// key opens.
    pub(crate) fn read_again(&self) -> bool {
        {
            let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
            if looked.is_some_and(|t| t.elapsed() < AGAIN) {
                return false;
            }
            *looked = Some(Instant::now());
        }
        match read(&self.dir) {
            Ok(ring) => {
                *self.ring.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(ring);
                true
            }
            Err(_) => false,
        }
    }

    /// When the primary key was written, microseconds since 1970.
    pub(crate) fn primary_since(&self) -> Result<i64> {
        let primary = numbers(&self.dir)?.last().copied().unwrap_or(0);
        let meta = fs::metadata(self.dir.join(primary.to_string()))?;
        // A staged key becomes the primary by a rename, which sets ctime and leaves mtime.
        Ok(meta.ctime() * 1_000_000 + meta.ctime_nsec() / 1000)
    }

    fn ring(&self) -> Arc<Vec<Fernet>> {
        self.ring.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Seals; without the padding, as Keystone's tokens.
    pub(crate) fn seal(&self, bytes: &[u8]) -> Result<String> {
        let ring = self.ring();
        let primary = ring.first().ok_or_else(|| Error::internal("no Fernet key"))?;
        Ok(primary.encrypt(bytes).trim_end_matches('=').to_owned())
    }

    /// Opens a token; `None` for anything that none of our keys sealed.
    pub(crate) fn open_token(&self, token: &str) -> Option<Vec<u8>> {
        // Ours are below 255; longer ones are not worth the work.
        if token.len() > 512 || !token.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_=".contains(&b)) {
            return None;
        }
        self.unseal(token)
    }

    /// As [`Keys::open_token`], of any length: for what lies in our own tables.
    pub(crate) fn unseal(&self, token: &str) -> Option<Vec<u8>> {
        let mut padded = token.trim_end_matches('=').to_owned();
        while !padded.len().is_multiple_of(4) {
            padded.push('=');
        }
        self.ring().iter().find_map(|k| k.decrypt(&padded).ok())
    }
}

/// Numbers of the key files, ascending.
fn numbers(dir: &Path) -> Result<Vec<u64>> {
    let mut out = Vec::new();
    for entry in fs::read_dir(dir)? {
        if let Some(n) = entry?.file_name().to_str().and_then(|n| n.parse().ok()) {
            out.push(n);
        }
    }
    out.sort_unstable();
    Ok(out)
}

fn read(dir: &Path) -> Result<Vec<Fernet>> {
    let mut ring = Vec::new();
    for n in numbers(dir)?.into_iter().rev() {
        let text = fs::read_to_string(dir.join(n.to_string()))?;
        let key = Fernet::new(text.trim())
            .ok_or_else(|| Error::internal(format!("key {n} in {} is not a Fernet key", dir.display())))?;
        ring.push(key);
    }
    if ring.is_empty() {
        return Err(Error::internal(format!("{} holds no Fernet key", dir.display())));
    }
    Ok(ring)
}

/// Writes a new key under another name first: a crash leaves no half of a key.
fn write_key(dir: &Path, n: u64) -> Result<()> {
    let partial = dir.join(format!("{n}.tmp"));
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&partial)?;
    file.write_all(Fernet::generate_key().as_bytes())?;
    file.sync_all()?;
    fault_point!("identity.keys.written");
    fs::rename(&partial, dir.join(n.to_string()))?;
    fs::File::open(dir)?.sync_all()?;
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn rotation_keeps_old_tokens_and_three_keys() {
        let dir = std::env::temp_dir().join(format!("haneul-keys-{}", haneul_core::id::hex()));
        let keys = Keys::open(dir.clone()).unwrap();
        assert_eq!(numbers(&dir).unwrap(), [0, 1]);
        for n in [0, 1] {
            let mode = fs::metadata(dir.join(n.to_string())).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        let token = keys.seal(b"hello").unwrap();
        assert!(!token.contains('='));
        keys.rotate().unwrap();
        assert_eq!(numbers(&dir).unwrap(), [0, 1, 2]);
        assert_eq!(keys.open_token(&token).as_deref(), Some(&b"hello"[..]));
        // Another process that reads the repository agrees.
        assert_eq!(
            Keys::open(dir.clone()).unwrap().open_token(&token).as_deref(),
            Some(&b"hello"[..])
        );
        keys.rotate().unwrap();
        assert_eq!(numbers(&dir).unwrap(), [0, 2, 3]);
        assert_eq!(keys.open_token(&token), None, "its key is forgotten");
        for bad in ["", "x", "gAAAA", &"A".repeat(5000), "ü"] {
            assert_eq!(keys.open_token(bad), None);
        }
        fs::remove_dir_all(dir).unwrap();
    }
}
