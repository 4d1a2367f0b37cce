//! What hosts have heard of what is written. An answer to a client comes before they hear of what it says, so that a test
//! which looked at a host at once would look too early: each answer of the lab waits for its hosts.

use super::{FakeHost, Lab};
use haneul_agent_api::{Desired, Guest, Object};
use haneul_store::Db;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// A host that does not listen is not waited for again.
const PATIENCE: Duration = Duration::from_secs(2);

impl Lab {
    /// Waits until all hosts that listen have heard of all that is written by now.
    pub(super) async fn heard(&self) {
        let hosts = self.hosts.lock().unwrap().clone();
        for host in hosts {
            let start = Instant::now();
            while !host.inner.deaf.load(Ordering::Relaxed) && !host.has_heard(&self.db).await {
                if start.elapsed() > PATIENCE {
                    host.inner.deaf.store(true, Ordering::Relaxed);
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    }
}

impl FakeHost {
    async fn has_heard(&self, db: &Db) -> bool {
        let sql = "SELECT id, generation FROM fleet_desired WHERE host_id = $1 AND kind = 'guest' AND removed = 0";
        let mut tx = db.read().await.unwrap();
        let rows = tx.rows(sql, &[self.id().into()]).await.unwrap();
        rows.iter().all(|r| {
            let held = self.held(&r.str(0).unwrap());
            held.is_some_and(|d| d.generation >= r.i64(1).unwrap() as u64)
        })
    }

    pub(super) fn held(&self, id: &str) -> Option<Desired> {
        let held = self.inner.held.lock().unwrap();
        held.get(&Uuid::try_parse(id).unwrap()).cloned()
    }

    /// What it is asked for, once that is so: an answer to a client comes before the host has heard of what it says.
    pub async fn comes_to(&self, id: &str, what: impl Fn(&Guest) -> bool) -> Guest {
        let start = Instant::now();
        loop {
            match self.guest(id) {
                Some(guest) if what(&guest) => return guest,
                last => assert!(
                    start.elapsed() < Duration::from_secs(60),
                    "the host is asked for {last:?}"
                ),
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// What the host was last asked for.
    pub fn guest(&self, id: &str) -> Option<Guest> {
        match self.held(id)?.object {
            Object::Guest(g) => Some(*g),
            _ => None,
        }
    }
}
