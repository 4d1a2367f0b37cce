//! The network's reconciler: one task, the whole desired set each time, then the tombstones.

use crate::Shared;
use haneul_agent_api::{Failure, Kind, ObservedNet};
use haneul_core::fault_point;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use uuid::Uuid;

/// Epoch, generation and failure, by object.
type Said = HashMap<(Kind, Uuid), (u64, u64, Option<Failure>)>;

/// What guests wait for.
#[derive(Default)]
pub(crate) struct Ready {
    /// Ports that are plugged, with the generation of each.
    pub ports: HashMap<Uuid, u64>,
    /// Why the last round failed.
    pub failure: Option<Failure>,
}

/// What control has been told.
#[derive(Default)]
pub(crate) struct Told(Mutex<Said>);

impl Told {
    fn lock(&self) -> MutexGuard<'_, Said> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new link: everything is said anew.
    pub fn forget(&self) {
        self.lock().clear();
    }
}

/// Pause after a failed round; the next change wakes it at once.
const RETRY: Duration = Duration::from_secs(2);

pub(crate) async fn run(shared: Arc<Shared>) {
    loop {
        shared.net_dirty.notified().await;
        let failed = round(&shared).await;
        if failed {
            // notify_one keeps a permit, so that a change during the pause is not lost.
            tokio::select! {
                () = tokio::time::sleep(RETRY) => shared.net_dirty.notify_one(),
                () = shared.net_dirty.notified() => shared.net_dirty.notify_one(),
            }
        }
    }
}

async fn round(shared: &Arc<Shared>) -> bool {
    let (desired, order) = shared.store.net_desired();
    let applied = shared.drivers.net.apply(&desired).await;
    fault_point!("agent.net.applied");
    let failure: Option<Failure> = applied.err();
    // Once, not with every attempt.
    if let Some(f) = failure
        .as_ref()
        .filter(|f| shared.net_ready.borrow().failure.as_ref() != Some(*f))
    {
        tracing::error!(code = ?f.code, message = f.message, detail = f.detail, "the data plane could not be brought to what is desired");
    }
    let ready = tell(shared, order, failure.as_ref());
    let mut again = failure.is_some();
    shared.net_ready.send_modify(|net| {
        // What was there stays there when a round fails.
        if failure.is_none() {
            net.ports = ready;
        }
        net.failure = failure;
    });
    for t in shared.store.net_tombstones() {
        match shared.drivers.net.remove(t.kind, t.id).await {
            Ok(()) => {
                fault_point!("agent.net.removed");
                if let Err(e) = shared.store.buried(&t) {
                    tracing::error!(error = %e, "a tombstone could not be laid down");
                    again = true;
                    continue;
                }
                shared.net_told.lock().remove(&(t.kind, t.id));
                if shared.store.get(t.kind, t.id).desired.is_some() {
                    // It is wanted again since: this round has left it out.
                    shared.net_dirty.notify_one();
                }
                shared.reports.gone(t);
            }
            Err(f) => {
                tracing::error!(kind = ?t.kind, id = %t.id, message = f.message, detail = f.detail, "could not be removed");
                again = true;
            }
        }
    }
    again
}

/// Reports what control does not know yet: a round is about everything, a report only about news. Answers the ports that
/// are there.
fn tell(shared: &Shared, order: Vec<(Kind, Uuid, u64, u64)>, failure: Option<&Failure>) -> HashMap<Uuid, u64> {
    let mut ready = HashMap::with_capacity(order.len());
    let mut told = shared.net_told.lock();
    for (kind, id, epoch, generation) in order {
        // A port has its id also as another host's neighbour.
        if kind == Kind::Port {
            ready.insert(id, generation);
        }
        let now = (epoch, generation, failure.cloned());
        if told.get(&(kind, id)) == Some(&now) {
            continue;
        }
        told.insert((kind, id), now);
        shared.reports.net(
            kind,
            ObservedNet {
                id,
                epoch,
                generation,
                up: failure.is_none(),
                failure: failure.cloned(),
            },
        );
    }
    ready
}
