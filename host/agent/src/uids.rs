//! One user id per guest, from a recorded range.

use haneul_core::{Error, Result};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use uuid::Uuid;

const RANGE: u32 = 65_536;

pub(crate) struct Uids {
    path: PathBuf,
    first: u32,
    taken: Mutex<BTreeMap<u32, Uuid>>,
}

impl Uids {
    pub fn open(path: &Path, first: u32) -> Result<Self> {
        let taken = match std::fs::read(path) {
            Ok(bytes) => serde_json::from_slice(&bytes)?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => BTreeMap::new(),
            Err(e) => return Err(e.into()),
        };
        Ok(Self {
            path: path.to_path_buf(),
            first,
            taken: Mutex::new(taken),
        })
    }

    /// The guest's user id; given on first use and kept until [`Uids::free`].
    pub fn of(&self, guest: Uuid) -> Result<u32> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((uid, _)) = taken.iter().find(|(_, g)| **g == guest) {
            return Ok(*uid);
        }
        let uid = (self.first..self.first.saturating_add(RANGE))
            .find(|u| !taken.contains_key(u))
            .ok_or_else(|| Error::unavailable(format!("all {RANGE} user ids for guests are taken on this host")))?;
        taken.insert(uid, guest);
        crate::store::write_durably(&self.path, &serde_json::to_vec(&*taken)?)?;
        Ok(uid)
    }

    pub fn free(&self, guest: Uuid) -> Result<()> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let before = taken.len();
        taken.retain(|_, g| *g != guest);
        if taken.len() != before {
            crate::store::write_durably(&self.path, &serde_json::to_vec(&*taken)?)?;
        }
        Ok(())
    }
}
