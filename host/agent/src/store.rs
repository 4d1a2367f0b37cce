//! The desired set on disk: what is wanted, and tombstones until they are carried out, with the user id of each guest.
//!
//! What control sends together is made durable together, by one flush, before anything is done about it.

use crate::journal::Journal;
use crate::uids::{RANGE, Uids};
use haneul_agent_api::{Desired, Guest, Kind, Metadata, NetDesired, Object, PostedPassword, Tombstone};
use haneul_core::{Error, Result};
use haneul_netdev::PasswordRefused;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use uuid::Uuid;

/// What is known under one kind and id. Both halves: wanted, and then removed or the other way round.
#[derive(Clone, Debug, Default)]
pub(crate) struct Entry {
    pub desired: Option<Desired>,
    pub tombstone: Option<Tombstone>,
}

impl Entry {
    fn newest(&self) -> Option<(u64, u64)> {
        let desired = self.desired.as_ref().map(|d| (d.epoch, d.generation));
        desired.max(self.tombstone.as_ref().map(|t| (t.epoch, t.generation)))
    }
}

/// A line of the journal. Names and meanings are for good: the next release reads them.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    /// Wanted.
    Put(Box<Desired>),
    /// Not wanted any more.
    Bury(Tombstone),
    /// The tombstone was carried out.
    Buried(Tombstone),
    /// The guest has this user id.
    Uid(Uuid, u32),
    /// It has none any more.
    NoUid(Uuid),
    /// The guest has posted this.
    Password(PostedPassword),
}

/// News from control.
#[derive(Debug)]
pub(crate) enum News {
    Put(Box<Desired>),
    Bury(Tombstone),
}

/// What became of a piece of news that counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stored {
    Desired,
    Tombstone,
}

/// Removals that are remembered after they were carried out, at the least.
const GRAVES: usize = 5_000;

#[derive(Default)]
struct State {
    entries: BTreeMap<(Kind, Uuid), Entry>,
    /// What was removed last: nothing of before brings it back.
    graves: BTreeMap<(Kind, Uuid), (u64, u64)>,
    /// The newest epoch of all that was heard.
    epoch: u64,
    uids: Uids,
    passwords: BTreeMap<Uuid, PostedPassword>,
}

pub(crate) struct Store {
    /// Held while something is made durable, also during the flush: what is appended is in the state only afterwards,
    /// and a file that was written anew from the state in between would lack it.
    taking: Mutex<()>,
    journal: Mutex<Journal>,
    /// Never held while the disk works. Taken after `journal` by who needs both.
    state: Mutex<State>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    /// The newest that is known of it.
    fn newest(&self, key: (Kind, Uuid)) -> Option<(u64, u64)> {
        let known = self.entries.get(&key).and_then(Entry::newest);
        known.max(self.graves.get(&key).copied())
    }

    fn bury(&mut self, key: (Kind, Uuid), order: (u64, u64)) {
        self.graves.insert(key, order);
        if self.graves.len() > 2 * GRAVES {
            let mut all: Vec<_> = self.graves.values().copied().collect();
            all.sort_unstable();
            let oldest = all.get(all.len() - GRAVES).copied();
            self.graves.retain(|_, order| Some(*order) >= oldest);
        }
    }

    fn apply(&mut self, line: Line) {
        match line {
            Line::Put(d) => {
                self.epoch = self.epoch.max(d.epoch);
                self.graves.remove(&(d.object.kind(), d.object.id()));
                let entry = self.entries.entry((d.object.kind(), d.object.id())).or_default();
                if entry.newest().is_none_or(|n| n < (d.epoch, d.generation)) {
                    if d.object.kind().is_net() {
                        // The data plane is brought to what is wanted now. A removal of before could wait for ever: for the
                        // ports of guests that use what is wanted again.
                        entry.tombstone = None;
                    }
                    entry.desired = Some(*d);
                }
            }
            Line::Bury(t) => {
                self.epoch = self.epoch.max(t.epoch);
                let key = (t.kind, t.id);
                self.entries.entry(key).or_default().tombstone = Some(t);
            }
            Line::Buried(t) => {
                if t.kind == Kind::Guest {
                    self.passwords.remove(&t.id);
                }
                let order = (t.epoch, t.generation);
                let Some(entry) = self.entries.get_mut(&(t.kind, t.id)) else {
                    return self.bury((t.kind, t.id), order);
                };
                if entry.desired.as_ref().is_some_and(|d| (d.epoch, d.generation) < order) {
                    entry.desired = None;
                }
                if entry.tombstone.as_ref() == Some(&t) {
                    entry.tombstone = None;
                }
                if entry.desired.is_none() && entry.tombstone.is_none() {
                    self.entries.remove(&(t.kind, t.id));
                    self.bury((t.kind, t.id), order);
                }
            }
            Line::Uid(guest, uid) => self.uids.set(guest, uid),
            Line::NoUid(guest) => self.uids.free(guest),
            Line::Password(posted) => {
                self.passwords.insert(posted.guest, posted);
            }
        }
    }

    /// How often a password of this guest was cleared; none when it is not wanted here.
    fn clears(&self, guest: Uuid) -> Option<u64> {
        let entry = self.entries.get(&(Kind::Guest, guest))?;
        match &entry.desired.as_ref().filter(|_| entry.tombstone.is_none())?.object {
            Object::Guest(g) => Some(g.password_clears),
            _ => None,
        }
    }

    /// What the guest has posted since the last clearing.
    fn password(&self, guest: Uuid) -> Option<&PostedPassword> {
        let clears = self.clears(guest)?;
        self.passwords.get(&guest).filter(|p| p.clears == clears)
    }

    /// Everything, as lines that lead to it.
    fn lines(&self) -> Vec<Line> {
        let uids = self.uids.all().map(|(guest, uid)| Line::Uid(guest, uid));
        let entries = self.entries.values().flat_map(|e| {
            let put = e.desired.clone().map(|d| Line::Put(Box::new(d)));
            put.into_iter().chain(e.tombstone.clone().map(Line::Bury))
        });
        let passwords = self.passwords.values().cloned().map(Line::Password);
        let graves = self.graves.iter().map(|((kind, id), (epoch, generation))| {
            Line::Buried(Tombstone {
                kind: *kind,
                id: *id,
                epoch: *epoch,
                generation: *generation,
                disks: false,
            })
        });
        graves.chain(uids).chain(entries).chain(passwords).collect()
    }
}

impl Store {
    pub fn open(path: &Path, first_uid: u32) -> Result<Self> {
        let mut state = State {
            uids: Uids::new(first_uid),
            ..State::default()
        };
        for line in Journal::read::<Line>(path)? {
            state.apply(line);
        }
        Ok(Self {
            taking: Mutex::new(()),
            journal: Mutex::new(Journal::create(path, state.lines().iter())?),
            state: Mutex::new(state),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Takes news: what is not newer than what is known changes nothing. Answers what is to be looked at, when all of
    /// it is durable. Blocks for the disk. The desired object of a tombstone stays until that is carried out: it says
    /// what there is to remove.
    pub fn take(&self, news: Vec<News>) -> Result<Vec<(Kind, Uuid, Stored)>> {
        let _one_at_a_time = lock(&self.taking);
        let (mut lines, mut touched) = (Vec::new(), Vec::new());
        let written = {
            let mut journal = lock(&self.journal);
            self.renew_stale(&mut journal)?;
            let mut state = self.lock();
            // What is newer within the news itself.
            let mut newest: BTreeMap<(Kind, Uuid), (u64, u64)> = BTreeMap::new();
            for n in news {
                match n {
                    News::Put(d) => {
                        let key = (d.object.kind(), d.object.id());
                        let known = newest.get(&key).copied().max(state.newest(key));
                        if d.epoch < state.epoch || known.is_some_and(|n| n >= (d.epoch, d.generation)) {
                            continue;
                        }
                        newest.insert(key, (d.epoch, d.generation));
                        if key.0 == Kind::Guest
                            && let Some(uid) = state.uids.give(key.1)
                        {
                            lines.push(Line::Uid(key.1, uid));
                        }
                        touched.push((key.0, key.1, Stored::Desired));
                        lines.push(Line::Put(d));
                    }
                    News::Bury(t) => {
                        let key = (t.kind, t.id);
                        let known = newest.get(&key).copied().max(state.newest(key));
                        if t.epoch < state.epoch || known.is_some_and(|n| n > (t.epoch, t.generation)) {
                            continue;
                        }
                        // The same again is carried out again, and said: the word of it may have been lost.
                        touched.push((key.0, key.1, Stored::Tombstone));
                        let entry = state.entries.get(&key);
                        if entry.and_then(|e| e.tombstone.as_ref()) != Some(&t) {
                            newest.insert(key, (t.epoch, t.generation));
                            lines.push(Line::Bury(t));
                        }
                    }
                }
            }
            drop(state);
            if lines.is_empty() {
                return Ok(touched);
            }
            journal.append(lines.iter()).map(|()| journal.flush())
        };
        let durable = written.and_then(|flush| flush());
        if durable.is_err() {
            lock(&self.journal).distrust();
        }
        let mut state = self.lock();
        for line in lines {
            match (&durable, &line) {
                (Ok(()), _) => state.apply(line),
                (Err(_), Line::Uid(guest, _)) => state.uids.free(*guest),
                (Err(_), _) => {}
            }
        }
        durable.map(|()| touched)
    }

    /// To be called with `taking` held.
    fn renew_stale(&self, journal: &mut Journal) -> Result<()> {
        if journal.is_stale() {
            let all = self.lock().lines();
            journal.renew(all.iter())?;
        }
        Ok(())
    }

    /// Notes what may be lost in a power cut, because it would only be done again.
    fn note(&self, line: Line) -> Result<()> {
        let mut journal = lock(&self.journal);
        journal.append(std::iter::once(&line))?;
        self.lock().apply(line);
        Ok(())
    }

    /// The tombstone was carried out: forget it and the object it removed.
    pub fn buried(&self, t: &Tombstone) -> Result<()> {
        self.note(Line::Buried(t.clone()))
    }

    /// The guest's user id, durable before anything runs under it. It came with the desired guest, unless that is
    /// wanted again after it was removed.
    pub fn uid(&self, guest: Uuid) -> Result<u32> {
        let given = || self.lock().uids.get(guest);
        if let Some(uid) = given() {
            return Ok(uid);
        }
        let _one_at_a_time = lock(&self.taking);
        if let Some(uid) = given() {
            return Ok(uid);
        }
        let mut journal = lock(&self.journal);
        self.renew_stale(&mut journal)?;
        let uid = self
            .lock()
            .uids
            .give(guest)
            .ok_or_else(|| Error::unavailable(format!("all {RANGE} user ids for guests are taken on this host")))?;
        let durable = journal
            .append(std::iter::once(&Line::Uid(guest, uid)))
            .and_then(|()| journal.flush()());
        if durable.is_err() {
            journal.distrust();
            self.lock().uids.free(guest);
        }
        durable.map(|()| uid)
    }

    /// The guest is gone. Whoever gets its user id next is noted behind this, so no order can be wrong.
    pub fn free_uid(&self, guest: Uuid) -> Result<()> {
        self.note(Line::NoUid(guest))
    }

    /// Takes a guest's password, durably; nothing new for an empty one.
    pub fn set_password(
        &self,
        guest: Uuid,
        password: &str,
    ) -> std::result::Result<Option<PostedPassword>, PasswordRefused> {
        let _one_at_a_time = lock(&self.taking);
        let clears = self.lock().clears(guest).ok_or(PasswordRefused::Gone)?;
        if self.lock().password(guest).is_some() {
            return Err(PasswordRefused::Taken);
        }
        if password.is_empty() {
            return Ok(None);
        }
        let posted = PostedPassword {
            guest,
            clears,
            password: password.to_owned(),
        };
        let mut journal = lock(&self.journal);
        let line = Line::Password(posted.clone());
        let durable = self.renew_stale(&mut journal).and_then(|()| {
            journal.append(std::iter::once(&line))?;
            journal.flush()()
        });
        if let Err(e) = durable {
            journal.distrust();
            tracing::error!(%guest, error = %e, "a guest's password could not be stored");
            return Err(PasswordRefused::Failed);
        }
        self.lock().apply(line);
        Ok(Some(posted))
    }

    /// What a guest has posted, unless it was cleared.
    pub fn password(&self, guest: Uuid) -> Option<String> {
        self.lock().password(guest).map(|p| p.password.clone())
    }

    /// All posted passwords that were not cleared, for control.
    pub fn passwords(&self) -> Vec<PostedPassword> {
        let state = self.lock();
        let ids = state.passwords.keys();
        ids.filter_map(|g| state.password(*g).cloned()).collect()
    }

    pub fn get(&self, kind: Kind, id: Uuid) -> Entry {
        self.lock().entries.get(&(kind, id)).cloned().unwrap_or_default()
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
            .entries
            .keys()
            .filter(|(k, _)| *k == kind)
            .map(|(_, id)| *id)
            .collect()
    }

    /// Tombstones of the network's kinds that may be carried out now: a port stays while its guest does, and so does the
    /// port's network.
    pub fn net_tombstones(&self) -> Vec<Tombstone> {
        let state = self.lock();
        let entries = &state.entries;
        let mut all: Vec<Tombstone> = entries
            .iter()
            .filter(|((k, _), _)| k.is_net())
            .filter_map(|(_, e)| e.tombstone.clone())
            .collect();
        if all.is_empty() {
            return all;
        }
        let held: HashSet<Uuid> = entries
            .iter()
            .filter(|((k, _), _)| *k == Kind::Guest)
            .filter_map(|(_, e)| match e.desired.as_ref().map(|d| &d.object) {
                Some(Object::Guest(g)) => Some(g.nics.iter().map(|n| n.port_id)),
                _ => None,
            })
            .flatten()
            .collect();
        let networks: HashSet<Uuid> = held
            .iter()
            .filter_map(|id| match &entries.get(&(Kind::Port, *id))?.desired.as_ref()?.object {
                Object::Port(p) => Some(p.network_id),
                _ => None,
            })
            .collect();
        all.retain(|t| match t.kind {
            Kind::Port => !held.contains(&t.id),
            Kind::Network => !networks.contains(&t.id),
            _ => true,
        });
        // Ports before routers before groups before networks: what hangs on something goes first.
        all.sort_by_key(|t| std::cmp::Reverse(t.kind));
        all
    }

    /// Everything that the data plane shall hold, with each object's order.
    pub fn net_desired(&self) -> (NetDesired, Vec<(Kind, Uuid, u64, u64)>) {
        let mut all = NetDesired::default();
        let mut order = Vec::new();
        for ((kind, id), e) in self.lock().entries.iter() {
            let Some(d) = e.desired.as_ref().filter(|_| e.tombstone.is_none()) else {
                continue;
            };
            match &d.object {
                Object::Network(x) => all.networks.push(x.clone()),
                Object::Port(x) => all.ports.push(x.clone()),
                Object::SecurityGroup(x) => all.security_groups.push(x.clone()),
                Object::Router(x) => all.routers.push(x.clone()),
                Object::Neighbour(x) => all.neighbours.push(x.clone()),
                Object::Guest(_) | Object::Lease(_) | Object::Fence(_) => continue,
            }
            order.push((*kind, *id, d.epoch, d.generation));
        }
        (all, order)
    }

    /// The guest behind a port, for metadata.
    pub fn guest_of_port(&self, port: Uuid) -> Option<(Uuid, String, Metadata)> {
        self.lock()
            .entries
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn network(id: u128, generation: u64, mtu: u32) -> News {
        News::Put(Box::new(Desired {
            epoch: 1,
            generation,
            object: Object::Network(haneul_agent_api::Network {
                id: Uuid::from_u128(id),
                index: 1,
                mtu,
                subnets: vec![],
                external: false,
                admin_state_up: true,
                dns_domain: String::new(),
            }),
        }))
    }

    fn grave(id: u128, generation: u64) -> Tombstone {
        Tombstone {
            kind: Kind::Network,
            id: Uuid::from_u128(id),
            epoch: 1,
            generation,
            disks: false,
        }
    }

    fn look(s: &Store, id: u128) -> (Option<u64>, Option<u64>) {
        let e = s.get(Kind::Network, Uuid::from_u128(id));
        (e.desired.map(|d| d.generation), e.tombstone.map(|t| t.generation))
    }

    #[test]
    fn newer_wins_within_news_and_over_restarts() {
        let path = std::env::temp_dir().join(format!("haneul-store-{}", haneul_core::id::hex()));
        let s = Store::open(&path, 100).unwrap();
        let n = |touched: Vec<_>| touched.len();
        assert_eq!(
            n(s.take(vec![network(1, 5, 1), network(1, 4, 2), network(2, 6, 1)])
                .unwrap()),
            2
        );
        assert_eq!(n(s.take(vec![network(1, 5, 3)]).unwrap()), 0);
        // An older tombstone removes nothing; a newer one waits until it is carried out.
        assert_eq!(
            n(s.take(vec![News::Bury(grave(1, 4)), News::Bury(grave(2, 7))]).unwrap()),
            1
        );
        let check = |s: &Store| {
            assert_eq!(look(s, 1), (Some(5), None));
            assert_eq!(look(s, 2), (Some(6), Some(7)));
        };
        check(&s);
        let s = Store::open(&path, 100).unwrap();
        check(&s);
        // Wanted again before the tombstone was carried out: that removes the old one only.
        s.take(vec![network(2, 8, 1)]).unwrap();
        s.buried(&grave(2, 7)).unwrap();
        assert_eq!(look(&s, 2), (Some(8), None));
        s.take(vec![News::Bury(grave(2, 9))]).unwrap();
        s.buried(&grave(2, 9)).unwrap();
        let s = Store::open(&path, 100).unwrap();
        assert_eq!((look(&s, 1), look(&s, 2)), ((Some(5), None), (None, None)));
        let guest = Uuid::from_u128(7);
        assert_eq!(s.uid(guest).unwrap(), 100);
        let s = Store::open(&path, 100).unwrap();
        assert_eq!(s.uid(Uuid::from_u128(8)).unwrap(), 101);
        s.free_uid(guest).unwrap();
        assert_eq!(Store::open(&path, 100).unwrap().uid(Uuid::from_u128(9)).unwrap(), 100);
        std::fs::remove_file(&path).unwrap();
    }

    /// What was said before changes nothing, in whatever order it comes again: not what is wanted, not a newer removal, and
    /// not what was removed long ago; nor does anything of an older epoch. Over a restart, too.
    #[test]
    fn what_was_said_before_changes_nothing() {
        let path = std::env::temp_dir().join(format!("haneul-store-{}", haneul_core::id::hex()));
        let s = Store::open(&path, 100).unwrap();
        let with_disks = Tombstone {
            disks: true,
            ..grave(1, 9)
        };
        let said = || {
            vec![
                network(1, 5, 1),
                network(2, 6, 1),
                network(3, 10, 1),
                News::Bury(grave(1, 7)),
                News::Bury(grave(2, 8)),
            ]
        };
        s.take(said()).unwrap();
        s.take(vec![News::Bury(with_disks.clone())]).unwrap();
        s.buried(&grave(2, 8)).unwrap();
        let check = |s: &Store| {
            assert_eq!(look(s, 1), (Some(5), Some(9)));
            let kept = s.get(Kind::Network, Uuid::from_u128(1)).tombstone;
            assert_eq!(kept, Some(with_disks.clone()));
            assert_eq!(look(s, 2).0, None, "what was removed is back");
            assert_eq!(look(s, 3), (Some(10), None));
        };
        check(&s);
        s.take(said()).unwrap();
        check(&s);
        s.take(said().into_iter().rev().collect()).unwrap();
        check(&s);
        let s = Store::open(&path, 100).unwrap();
        s.take(said()).unwrap();
        check(&s);
        let of_epoch = |epoch, id, generation| {
            let News::Put(mut d) = network(id, generation, 1) else {
                unreachable!()
            };
            d.epoch = epoch;
            News::Put(d)
        };
        s.take(vec![of_epoch(2, 4, 1)]).unwrap();
        let older = Tombstone {
            epoch: 1,
            ..grave(3, 99)
        };
        let touched = s.take(vec![of_epoch(1, 5, 99), News::Bury(older)]).unwrap();
        assert!(touched.is_empty(), "{touched:?}");
        assert_eq!(look(&s, 5), (None, None));
        check(&s);
        // Wanted again while its removal waits: it is there, and nothing is removed.
        s.take(vec![of_epoch(2, 3, 21)]).unwrap();
        let removal = Tombstone {
            epoch: 2,
            ..grave(3, 22)
        };
        s.take(vec![News::Bury(removal)]).unwrap();
        assert_eq!(look(&s, 3), (Some(21), Some(22)));
        s.take(vec![of_epoch(2, 3, 23)]).unwrap();
        assert_eq!(look(&s, 3), (Some(23), None));
        std::fs::remove_file(&path).unwrap();
    }

    /// The memory of removals is bounded, and of the newest.
    #[test]
    fn graves_are_bounded() {
        let mut state = State::default();
        for n in 0..3 * GRAVES as u64 {
            state.apply(Line::Buried(grave(n.into(), n)));
        }
        assert!(state.graves.len() <= 2 * GRAVES);
        let last = 3 * GRAVES as u64 - 1;
        for n in [last, last - GRAVES as u64 + 1] {
            let key = (Kind::Network, Uuid::from_u128(n.into()));
            assert_eq!(state.graves.get(&key), Some(&(1, n)));
        }
    }

    fn guest(id: u128, generation: u64, password_clears: u64) -> News {
        guest_with(id, generation, password_clears, serde_json::json!([]))
    }

    fn guest_with(id: u128, generation: u64, password_clears: u64, nics: serde_json::Value) -> News {
        let guest = serde_json::json!({
            "id": Uuid::from_u128(id), "name": "g", "project_id": "p", "vcpus": 1, "memory_mib": 1, "power": "running", "metadata": {"hostname": "g"},
            "root": {"image": {"id": Uuid::nil(), "format": "raw", "size": 1, "virtual_size": 1, "sha512": ""}, "size_gib": 1},
            "password_clears": password_clears, "nics": nics,
        });
        News::Put(Box::new(Desired {
            epoch: 1,
            generation,
            object: Object::Guest(Box::new(serde_json::from_value(guest).unwrap())),
        }))
    }

    /// What hangs on something goes first, and nothing is tried that must fail: a guest that lets go late keeps its port
    /// and that port's network.
    #[test]
    fn a_network_waits_for_the_ports_of_guests() {
        let path = std::env::temp_dir().join(format!("haneul-store-{}", haneul_core::id::hex()));
        let s = Store::open(&path, 100).unwrap();
        let port = News::Put(Box::new(Desired {
            epoch: 1,
            generation: 2,
            object: serde_json::from_value(serde_json::json!({
                "kind": "port", "doc": {"id": Uuid::from_u128(2), "index": 1, "network_id": Uuid::from_u128(1), "mac": "fa:16:3e:00:00:01",
                "fixed_ips": [], "port_security": true, "security_groups": [], "admin_state_up": true},
            }))
            .unwrap(),
        }));
        let nics = serde_json::json!([{"port_id": Uuid::from_u128(2), "mac": "fa:16:3e:00:00:01", "mtu": 1450}]);
        s.take(vec![network(1, 1, 1450), port, guest_with(7, 3, 0, nics)])
            .unwrap();
        let of = |kind, id, generation| Tombstone {
            kind,
            ..grave(id, generation)
        };
        let (port, guest) = (of(Kind::Port, 2, 5), of(Kind::Guest, 7, 6));
        let all = [grave(1, 4), port.clone(), guest.clone()];
        s.take(all.map(News::Bury).into()).unwrap();
        assert_eq!(s.net_tombstones(), []);
        s.buried(&guest).unwrap();
        assert_eq!(s.net_tombstones(), [port, grave(1, 4)]);
        std::fs::remove_file(&path).unwrap();
    }

    /// A guest posts once; what it posted is there after a restart and is told to control again; a clearing makes room
    /// for another; nothing of it outlives the guest.
    #[test]
    fn a_posted_password_is_kept_until_it_is_cleared() {
        let path = std::env::temp_dir().join(format!("haneul-store-{}", haneul_core::id::hex()));
        let id = Uuid::from_u128(7);
        let s = Store::open(&path, 100).unwrap();
        assert_eq!(s.set_password(id, "x"), Err(PasswordRefused::Gone));
        s.take(vec![guest(7, 1, 0)]).unwrap();
        assert_eq!(s.set_password(id, ""), Ok(None));
        assert_eq!(s.set_password(id, "one").unwrap().unwrap().clears, 0);
        assert_eq!(s.set_password(id, "two"), Err(PasswordRefused::Taken));
        let s = Store::open(&path, 100).unwrap();
        assert_eq!(s.password(id).as_deref(), Some("one"));
        assert_eq!(s.passwords().len(), 1);
        s.take(vec![guest(7, 2, 1)]).unwrap();
        assert_eq!((s.password(id), s.passwords()), (None, vec![]));
        assert_eq!(s.set_password(id, "two").unwrap().unwrap().clears, 1);
        let t = Tombstone {
            kind: Kind::Guest,
            ..grave(7, 3)
        };
        s.take(vec![News::Bury(t.clone())]).unwrap();
        assert_eq!((s.password(id), s.passwords()), (None, vec![]));
        s.buried(&t).unwrap();
        let s = Store::open(&path, 100).unwrap();
        assert!(s.lock().passwords.is_empty());
        assert!(
            !format!(
                "{:?}",
                Line::Password(PostedPassword {
                    guest: id,
                    clears: 0,
                    password: "secret".into()
                })
            )
            .contains("secret")
        );
        std::fs::remove_file(&path).unwrap();
    }

    /// After a flush that failed nothing is appended to that file any more: what it holds is not known.
    #[test]
    fn a_failed_flush_begins_a_new_file() {
        let path = std::env::temp_dir().join(format!("haneul-store-{}", haneul_core::id::hex()));
        let s = Store::open(&path, 100).unwrap();
        s.take(vec![network(1, 5, 1)]).unwrap();
        lock(&s.journal).lose().unwrap();
        assert!(s.take(vec![network(2, 6, 1)]).is_err());
        assert_eq!(look(&s, 2), (None, None), "refused, and not acted upon");
        s.take(vec![network(2, 6, 1), network(3, 7, 1)]).unwrap();
        lock(&s.journal).lose().unwrap();
        let guest = Uuid::from_u128(7);
        assert!(s.uid(guest).is_err());
        assert_eq!(s.uid(guest).unwrap(), 100);
        let s = Store::open(&path, 100).unwrap();
        let all = [1, 2, 3].map(|id| look(&s, id).0);
        assert_eq!(all, [Some(5), Some(6), Some(7)]);
        assert_eq!(s.uid(Uuid::from_u128(8)).unwrap(), 101);
        std::fs::remove_file(&path).unwrap();
    }
}
