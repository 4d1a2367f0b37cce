//! The desired set on disk: one file per object, and one per tombstone until it is carried out.

use haneul_agent_api::{Desired, Guest, Kind, Metadata, NetDesired, Object, Tombstone};
use haneul_core::{Error, Result};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use uuid::Uuid;

/// What is known under one kind and id. Both halves: wanted, and then removed or the other way round.
#[derive(Clone, Debug, Default)]
pub(crate) struct Entry {
    pub desired: Option<Desired>,
    pub tombstone: Option<Tombstone>,
}

pub(crate) struct Store {
    dir: PathBuf,
    entries: Mutex<BTreeMap<(Kind, Uuid), Entry>>,
}

/// Writes a file so that it is there whole or not at all, also after a power cut.
pub(crate) fn write_durably(path: &Path, bytes: &[u8]) -> Result<()> {
    let dir = path
        .parent()
        .ok_or_else(|| Error::internal("a file without a directory"))?;
    std::fs::create_dir_all(dir)?;
    let tmp = path.with_extension("tmp");
    let mut file = std::fs::File::create(&tmp)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&tmp, path)?;
    std::fs::File::open(dir)?.sync_all()?;
    Ok(())
}

fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e.into()),
        _ => Ok(()),
    }
}

impl Store {
    pub fn open(dir: &Path) -> Result<Self> {
        let mut entries: BTreeMap<(Kind, Uuid), Entry> = BTreeMap::new();
        for kind in Kind::ALL {
            let sub = dir.join(kind.as_str());
            std::fs::create_dir_all(&sub)?;
            for file in std::fs::read_dir(&sub)? {
                let path = file?.path();
                let name = path
                    .file_name()
                    .map(|n| n.to_string_lossy().into_owned())
                    .unwrap_or_default();
                let bytes = std::fs::read(&path)?;
                let read = |e: serde_json::Error| Error::internal(format!("{}: {e}", path.display()));
                if let Some(id) = name.strip_suffix(".json").and_then(|n| Uuid::try_parse(n).ok()) {
                    entries.entry((kind, id)).or_default().desired =
                        Some(serde_json::from_slice(&bytes).map_err(read)?);
                } else if let Some(id) = name.strip_suffix(".gone").and_then(|n| Uuid::try_parse(n).ok()) {
                    entries.entry((kind, id)).or_default().tombstone =
                        Some(serde_json::from_slice(&bytes).map_err(read)?);
                }
            }
        }
        Ok(Self {
            dir: dir.to_path_buf(),
            entries: Mutex::new(entries),
        })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(Kind, Uuid), Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, kind: Kind, id: Uuid, what: &str) -> PathBuf {
        self.dir.join(kind.as_str()).join(format!("{id}.{what}"))
    }

    /// Takes a desired object; false when it is not newer than what is known.
    pub fn put(&self, new: Desired) -> Result<bool> {
        let key = (new.object.kind(), new.object.id());
        let mut entries = self.lock();
        let entry = entries.entry(key).or_default();
        let newest = entry
            .desired
            .as_ref()
            .map(|d| (d.epoch, d.generation))
            .max(entry.tombstone.as_ref().map(|t| (t.epoch, t.generation)));
        if newest.is_some_and(|n| n >= (new.epoch, new.generation)) {
            return Ok(false);
        }
        write_durably(&self.path(key.0, key.1, "json"), &serde_json::to_vec(&new)?)?;
        entry.desired = Some(new);
        Ok(true)
    }

    /// Takes a tombstone; false when it is older than what is known. The desired object stays until the
    /// tombstone is carried out: it says what there is to remove.
    pub fn bury(&self, t: Tombstone) -> Result<bool> {
        let mut entries = self.lock();
        let entry = entries.entry((t.kind, t.id)).or_default();
        if entry
            .desired
            .as_ref()
            .is_some_and(|d| (d.epoch, d.generation) > (t.epoch, t.generation))
        {
            return Ok(false);
        }
        if entry.tombstone.as_ref().is_none_or(|old| old != &t) {
            write_durably(&self.path(t.kind, t.id, "gone"), &serde_json::to_vec(&t)?)?;
            entry.tombstone = Some(t);
        }
        Ok(true)
    }

    /// The tombstone was carried out: forget it and the object it removed.
    pub fn buried(&self, t: &Tombstone) -> Result<()> {
        let mut entries = self.lock();
        let Some(entry) = entries.get_mut(&(t.kind, t.id)) else {
            return Ok(());
        };
        if entry
            .desired
            .as_ref()
            .is_some_and(|d| (d.epoch, d.generation) < (t.epoch, t.generation))
        {
            remove(&self.path(t.kind, t.id, "json"))?;
            entry.desired = None;
        }
        if entry.tombstone.as_ref() == Some(t) {
            remove(&self.path(t.kind, t.id, "gone"))?;
            entry.tombstone = None;
        }
        if entry.desired.is_none() && entry.tombstone.is_none() {
            entries.remove(&(t.kind, t.id));
        }
        Ok(())
    }

    pub fn get(&self, kind: Kind, id: Uuid) -> Entry {
        self.lock().get(&(kind, id)).cloned().unwrap_or_default()
    }

    /// A guest and its order, when it is wanted and not buried.
    pub fn guest(&self, id: Uuid) -> Option<(u64, u64, Guest)> {
        let entry = self.get(Kind::Guest, id);
        if entry.tombstone.is_some() {
            return None;
        }
        entry.desired.and_then(|d| match d.object {
            Object::Guest(g) => Some((d.epoch, d.generation, *g)),
            _ => None,
        })
    }

    /// All ids of a kind, buried ones too.
    pub fn ids(&self, kind: Kind) -> Vec<Uuid> {
        self.lock()
            .keys()
            .filter(|(k, _)| *k == kind)
            .map(|(_, id)| *id)
            .collect()
    }

    /// Tombstones of the network's kinds that may be carried out now: a port stays while its guest does.
    pub fn net_tombstones(&self) -> Vec<Tombstone> {
        let entries = self.lock();
        let held: Vec<Uuid> = entries
            .iter()
            .filter(|((k, _), _)| *k == Kind::Guest)
            .filter_map(|(_, e)| match e.desired.as_ref().map(|d| &d.object) {
                Some(Object::Guest(g)) => Some(g.nics.iter().map(|n| n.port_id)),
                _ => None,
            })
            .flatten()
            .collect();
        let mut all: Vec<Tombstone> = entries
            .iter()
            .filter(|((k, id), _)| *k != Kind::Guest && !(*k == Kind::Port && held.contains(id)))
            .filter_map(|(_, e)| e.tombstone.clone())
            .collect();
        // Ports before routers before groups before networks: what hangs on something goes first.
        all.sort_by_key(|t| std::cmp::Reverse(t.kind));
        all
    }

    /// Everything that the data plane shall hold, with each object's order.
    pub fn net_desired(&self) -> (NetDesired, Vec<(Kind, Uuid, u64, u64)>) {
        let mut all = NetDesired::default();
        let mut order = Vec::new();
        for ((kind, id), e) in self.lock().iter() {
            let Some(d) = e.desired.as_ref().filter(|_| e.tombstone.is_none()) else {
                continue;
            };
            match &d.object {
                Object::Network(x) => all.networks.push(x.clone()),
                Object::Port(x) => all.ports.push(x.clone()),
                Object::SecurityGroup(x) => all.security_groups.push(x.clone()),
                Object::Router(x) => all.routers.push(x.clone()),
                Object::Guest(_) => continue,
            }
            order.push((*kind, *id, d.epoch, d.generation));
        }
        (all, order)
    }

    /// The guest behind a port, for metadata.
    pub fn guest_of_port(&self, port: Uuid) -> Option<(Uuid, String, Metadata)> {
        self.lock()
            .iter()
            .find_map(|((_, id), e)| match e.desired.as_ref().map(|d| &d.object) {
                Some(Object::Guest(g)) if g.nics.iter().any(|n| n.port_id == port) => {
                    Some((*id, g.project_id.clone(), g.metadata.clone()))
                }
                _ => None,
            })
    }

    /// The ports of a guest with their networks, for its config drive.
    pub fn ports_of(&self, guest: &Guest) -> Vec<(haneul_agent_api::Port, haneul_agent_api::Network)> {
        guest
            .nics
            .iter()
            .filter_map(|n| {
                let Object::Port(p) = self.get(Kind::Port, n.port_id).desired?.object else {
                    return None;
                };
                let Object::Network(net) = self.get(Kind::Network, p.network_id).desired?.object else {
                    return None;
                };
                Some((p, net))
            })
            .collect()
    }
}
