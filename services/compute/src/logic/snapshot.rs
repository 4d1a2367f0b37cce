//! The snapshot that decisions are made on: cached, corrected by our own decisions, read again when it is
//! old or when a guarded update says that it lied.

use crate::Compute;
use crate::logic::decide::{CLASSES, Facts, HostState, Plan, Refusal, Request, Snapshot, Stock, decide};
use crate::logic::zones::Zones;
use crate::model::{Aggregate, ComputeService, Server};
use haneul_core::Result;
use haneul_fleet::Host;
use haneul_store::{Query, Tx};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a snapshot is trusted. A wrong one costs a repetition, never a wrong placement.
const FRESH: Duration = Duration::from_secs(2);

#[derive(Clone, Default)]
pub(crate) struct Cache {
    held: Arc<Mutex<Option<Held>>>,
    /// Creates that failed on a host since the last that did not.
    failed: Arc<Mutex<HashMap<String, i64>>>,
    /// One reads, and all who wait decide on what it read.
    reading: Arc<tokio::sync::Mutex<()>>,
}

struct Held {
    /// When its reading began.
    at: Instant,
    snapshot: Snapshot,
}

impl Cache {
    /// Decides on what is held, if it was read after `since`; a plan's servers are on their hosts from then on.
    fn take(&self, r: &Request, since: Instant) -> Option<Result<Plan, Box<Refusal>>> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let held = held.as_mut().filter(|h| h.at >= since)?;
        let answer = decide(&held.snapshot, r);
        for choice in answer.iter().flat_map(|plan| &plan.why) {
            if let Some(h) = held.snapshot.hosts.get_mut(choice.number) {
                h.takes(&r.amounts, 1);
            }
        }
        Some(answer)
    }

    /// The next decision reads again.
    pub fn drop_it(&self) {
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// A create ended on a host.
    pub fn built(&self, host: &str, well: bool) {
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        if well {
            failed.remove(host);
        } else {
            *failed.entry(host.to_owned()).or_default() += 1;
        }
    }

    fn failed(&self) -> HashMap<String, i64> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Compute {
    /// Decides on the cached snapshot; a refusal is only believed from one that was read since it was asked for.
    pub(crate) async fn decide(&self, r: &Request) -> Result<std::result::Result<Plan, Box<Refusal>>> {
        let asked = Instant::now();
        if let Some(Ok(plan)) = self.snapshot.take(r, asked.checked_sub(FRESH).unwrap_or(asked)) {
            return Ok(Ok(plan));
        }
        let _only = self.snapshot.reading.lock().await;
        if let Some(answer) = self.snapshot.take(r, asked) {
            return Ok(answer);
        }
        let at = Instant::now();
        let snapshot = self.read_snapshot().await?;
        *self.snapshot.held.lock().unwrap_or_else(PoisonError::into_inner) = Some(Held { at, snapshot });
        match self.snapshot.take(r, at) {
            Some(answer) => Ok(answer),
            // Dropped in this very moment: something has changed again.
            None => Ok(decide(&self.read_snapshot().await?, r)),
        }
    }

    /// A create ended, well or not: the next ones keep away from a host on which they fail.
    pub(crate) fn built(&self, tx: &mut Tx, s: &Server, well: bool) {
        if let Some(host) = s.host_id.clone() {
            let cache = self.snapshot.clone();
            tx.after_commit(move || cache.built(&host, well));
        }
    }

    pub(crate) async fn read_snapshot(&self) -> Result<Snapshot> {
        let mut tx = self.db.read().await?;
        let known: HashMap<String, Host> = self
            .fleet
            .hosts(&mut tx)
            .await?
            .into_iter()
            .map(|h| (h.id.clone(), h))
            .collect();
        let services: HashMap<String, ComputeService> = tx
            .list::<ComputeService>(&Query::new())
            .await?
            .into_iter()
            .map(|s| (s.host_id.clone(), s.value))
            .collect();
        let aggregates = tx.list::<Aggregate>(&Query::new()).await?;
        let zones = Zones::read(&mut tx).await?;
        let busy = busy(&mut tx).await?;
        let failed = self.snapshot.failed();
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
            let mut facts = Facts {
                disabled_reason: service.disabled_reason.clone().unwrap_or_default(),
                traits: p.traits.into_iter().collect(),
                aggregates: aggregates
                    .iter()
                    .filter(|a| a.hosts.contains(&p.uuid))
                    .map(|a| a.metadata.clone())
                    .collect(),
                ..Facts::default()
            };
            facts.weights = self.weights.of_aggregates(&facts.aggregates);
            let host = known.get(&p.uuid);
            if let Some(h) = host {
                facts.arch.clone_from(&h.hypervisor.arch);
                facts.hypervisor.clone_from(&h.hypervisor.kind);
                facts.accelerator.clone_from(&h.hypervisor.accelerator);
                facts.version = h.hypervisor.version;
                facts.cpu_features.clone_from(&h.hypervisor.cpu_features);
                facts.address = h.underlay.map(|u| u.address);
            }
            hosts.push(HostState {
                up: host.is_some_and(|h| h.up) && !service.forced_down,
                enabled: !service.disabled,
                name: service.host_name.clone(),
                zone: zones.of(&p.uuid, &self.config.availability_zone).to_owned(),
                stock,
                busy: busy.get(&p.uuid).copied().unwrap_or(0),
                failed_builds: failed.get(&p.uuid).copied().unwrap_or(0),
                facts: Arc::new(facts),
                id: p.uuid,
            });
        }
        Ok(Snapshot {
            hosts,
            weights: self.weights.clone(),
        })
    }
}

/// Servers to which something is being done, by host: an index of these alone answers it.
async fn busy(tx: &mut Tx) -> Result<HashMap<String, i64>> {
    let rows = tx
        .rows(
            "SELECT host_id, COUNT(*) FROM server WHERE task_state <> '' GROUP BY host_id",
            &[],
        )
        .await?;
    rows.iter().map(|r| Ok((r.str(0)?, r.i64(1)?))).collect()
}
