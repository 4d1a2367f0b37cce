//! Observations on their way to control: the newest per object wins, and nothing is lost while control is
//! away.

use haneul_agent_api::{
    Failure, Kind, Layout, MAX_ITEMS, MAX_TEXT, ObservedFence, ObservedGuest, ObservedNet, ObservedSnapshot,
    PostedPassword, Report, Tombstone,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use uuid::Uuid;

#[derive(Default)]
struct Pending {
    guests: BTreeMap<Uuid, ObservedGuest>,
    nets: BTreeMap<(Kind, Uuid), ObservedNet>,
    passwords: BTreeMap<Uuid, PostedPassword>,
    fences: BTreeMap<Uuid, ObservedFence>,
    gone: BTreeMap<(Kind, Uuid), Tombstone>,
}

impl Pending {
    /// Takes as much as one report may say.
    fn report(&mut self, host_id: Uuid) -> Report {
        let mut room = MAX_ITEMS;
        let mut report = Report {
            host_id,
            guests: some(&mut self.guests, &mut room).map(|(_, g)| g).collect(),
            ..Report::default()
        };
        for ((kind, _), o) in some(&mut self.nets, &mut room) {
            match kind {
                Kind::Port => report.ports.push(o),
                Kind::Router => report.routers.push(o),
                Kind::Network => report.networks.push(o),
                // Of these control needs no word.
                _ => {}
            }
        }
        report.passwords = some(&mut self.passwords, &mut room).map(|(_, p)| p).collect();
        report.fences = some(&mut self.fences, &mut room).map(|(_, f)| f).collect();
        report.gone = some(&mut self.gone, &mut room).map(|(_, t)| t).collect();
        report
    }
}

/// Takes the first of them, as many as there is room for.
fn some<K: Ord, V>(all: &mut BTreeMap<K, V>, room: &mut usize) -> impl Iterator<Item = (K, V)> {
    let n = (*room).min(all.len());
    *room -= n;
    (0..n).map_while(|_| all.pop_first())
}

/// What a failure says is bounded.
fn clip(failure: Option<&mut Failure>) {
    for text in failure.into_iter().flat_map(|f| [&mut f.message, &mut f.detail]) {
        text.truncate(text.floor_char_boundary(MAX_TEXT));
    }
}

#[derive(Default)]
pub(crate) struct Reports {
    pending: Mutex<Pending>,
    wake: Notify,
    /// Images of guests' disks; part of whatever is said about their guests.
    snapshots: Mutex<BTreeMap<Uuid, ObservedSnapshot>>,
    /// Machines of guests, as last seen: what only says how far a guest is does not make control forget it.
    layouts: Mutex<BTreeMap<Uuid, Box<Layout>>>,
    /// Guests and counts of clears of passwords that control has not acknowledged.
    untold: Mutex<BTreeSet<(Uuid, u64)>>,
    /// Rung when one is acknowledged.
    told: Condvar,
}

impl Reports {
    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn guest(&self, mut seen: ObservedGuest) {
        seen.snapshot = self.lock_snapshots().get(&seen.id).cloned();
        clip(seen.failure.as_mut());
        let mut layouts = self.layouts.lock().unwrap_or_else(PoisonError::into_inner);
        match &seen.layout {
            Some(layout) => drop(layouts.insert(seen.id, layout.clone())),
            None => seen.layout = layouts.get(&seen.id).cloned(),
        }
        drop(layouts);
        self.lock().guests.insert(seen.id, seen);
        self.wake.notify_one();
    }

    /// How far the image of a guest's disk is, for the next report on that guest.
    pub fn snapshot(&self, guest: Uuid, seen: Option<ObservedSnapshot>) {
        let mut all = self.lock_snapshots();
        match seen {
            Some(seen) => all.insert(guest, seen),
            None => all.remove(&guest),
        };
    }

    fn lock_snapshots(&self) -> MutexGuard<'_, BTreeMap<Uuid, ObservedSnapshot>> {
        self.snapshots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn password(&self, posted: PostedPassword) {
        self.lock_untold().insert((posted.guest, posted.clears));
        self.lock().passwords.insert(posted.guest, posted);
        self.wake.notify_one();
    }

    /// Blocks until control knows the password, or so long.
    pub fn wait_for_password(&self, guest: Uuid, clears: u64, most: Duration) {
        let _ = self
            .told
            .wait_timeout_while(self.lock_untold(), most, |all| all.contains(&(guest, clears)));
    }

    /// Control has taken the report.
    pub fn arrived(&self, r: &Report) {
        let mut untold = self.lock_untold();
        for posted in &r.passwords {
            untold.remove(&(posted.guest, posted.clears));
        }
        untold.retain(|(guest, _)| !r.gone.iter().any(|t| t.id == *guest));
        drop(untold);
        self.told.notify_all();
    }

    fn lock_untold(&self) -> MutexGuard<'_, BTreeSet<(Uuid, u64)>> {
        self.untold.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn net(&self, kind: Kind, mut seen: ObservedNet) {
        clip(seen.failure.as_mut());
        self.lock().nets.insert((kind, seen.id), seen);
        self.wake.notify_one();
    }

    pub fn fence(&self, seen: ObservedFence) {
        self.lock().fences.insert(seen.id, seen);
        self.wake.notify_one();
    }

    pub fn gone(&self, t: Tombstone) {
        let mut p = self.lock();
        if t.kind == Kind::Fence {
            p.fences.remove(&t.id);
        }
        if t.kind == Kind::Guest {
            p.guests.remove(&t.id);
            p.passwords.remove(&t.id);
            self.layouts
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .remove(&t.id);
        }
        p.nets.remove(&(t.kind, t.id));
        p.gone.insert((t.kind, t.id), t);
        drop(p);
        self.wake.notify_one();
    }

    /// Waits until there is something, and takes it.
    pub async fn take(&self, host_id: Uuid) -> Report {
        loop {
            let report = self.lock().report(host_id);
            if report.items() > 0 {
                return report;
            }
            self.wake.notified().await;
        }
    }

    /// A report that did not arrive: its parts are pending again, unless there is newer news.
    pub fn put_back(&self, r: Report) {
        let mut p = self.lock();
        for g in r.guests {
            p.guests.entry(g.id).or_insert(g);
        }
        for (kind, list) in [
            (Kind::Port, r.ports),
            (Kind::Router, r.routers),
            (Kind::Network, r.networks),
        ] {
            for o in list {
                p.nets.entry((kind, o.id)).or_insert(o);
            }
        }
        for posted in r.passwords {
            p.passwords.entry(posted.guest).or_insert(posted);
        }
        for f in r.fences {
            p.fences.entry(f.id).or_insert(f);
        }
        for t in r.gone {
            p.gone.entry((t.kind, t.id)).or_insert(t);
        }
        drop(p);
        self.wake.notify_one();
    }
}
