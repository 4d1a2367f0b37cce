//! The snapshot that decisions are made on: cached, corrected by our own decisions, read again when it is
//! old or when a guarded update says that it lied.

use crate::Compute;
use crate::logic::decide::{CLASSES, HostState, Plan, Refusal, Request, Snapshot, Stock, decide};
use crate::logic::zones::Zones;
use crate::model::ComputeService;
use haneul_core::{Result, clock};
use haneul_store::Query;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// How long a snapshot is trusted. A wrong one costs a repetition, never a wrong placement.
const FRESH: i64 = 2 * clock::SECOND;

#[derive(Clone, Default)]
pub(crate) struct Cache {
    held: Arc<Mutex<Option<(i64, Snapshot)>>>,
}

impl Cache {
    fn take(&self, r: &Request) -> Option<Plan> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, snapshot) = held.as_mut()?;
        if clock::now() - *at > FRESH {
            return None;
        }
        let plan = decide(snapshot, r).ok()?;
        for id in &plan.hosts {
            if let Some(h) = snapshot.hosts.iter_mut().find(|h| h.id == *id) {
                for (s, a) in h.stock.iter_mut().zip(r.amounts) {
                    s.used += a;
                }
            }
        }
        Some(plan)
    }

    /// The next decision reads again.
    pub fn drop_it(&self) {
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn put(&self, snapshot: Snapshot) {
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = Some((clock::now(), snapshot));
    }
}

impl Compute {
    /// Decides on the cached snapshot; a refusal is only believed from a fresh one.
    pub(crate) async fn decide(&self, r: &Request) -> Result<Result<Plan, Box<Refusal>>> {
        if let Some(plan) = self.snapshot.take(r) {
            return Ok(Ok(plan));
        }
        let snapshot = self.read_snapshot().await?;
        let answer = decide(&snapshot, r);
        self.snapshot.put(snapshot);
        match answer {
            Ok(_) => Ok(match self.snapshot.take(r) {
                Some(plan) => Ok(plan),
                None => answer,
            }),
            Err(refusal) => Ok(Err(refusal)),
        }
    }

    pub(crate) async fn read_snapshot(&self) -> Result<Snapshot> {
        let mut tx = self.db.read().await?;
        let up: HashMap<String, bool> = self
            .fleet
            .hosts(&mut tx)
            .await?
            .into_iter()
            .map(|h| (h.id, h.up))
            .collect();
        let services: HashMap<String, ComputeService> = tx
            .list::<ComputeService>(&Query::new())
            .await?
            .into_iter()
            .map(|s| (s.host_id.clone(), s.value))
            .collect();
        let zones = Zones::read(&mut tx).await?;
        let mut hosts = Vec::new();
        for p in self.placement.snapshot(&mut tx).await? {
            let Some(service) = services.get(&p.uuid) else { continue };
            let mut stock = [Stock::default(); 3];
            for (s, class) in stock.iter_mut().zip(CLASSES) {
                if let Some((have, used)) = p.inventories.get(class) {
                    *s = Stock {
                        total: have.total,
                        reserved: have.reserved,
                        ratio: have.allocation_ratio,
                        used: *used,
                        max_unit: have.max_unit,
                    };
                }
            }
            hosts.push(HostState {
                up: up.get(&p.uuid).copied().unwrap_or(false) && !service.forced_down,
                enabled: !service.disabled,
                name: service.host_name.clone(),
                zone: zones.of(&p.uuid, &self.config.availability_zone).to_owned(),
                id: p.uuid,
                stock,
            });
        }
        Ok(Snapshot { hosts })
    }
}
