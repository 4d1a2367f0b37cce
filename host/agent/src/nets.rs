//! The network's reconciler: one task, the whole desired set each time, then the tombstones.

use crate::Shared;
use haneul_agent_api::{Failure, ObservedNet};
use haneul_core::fault_point;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

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
    if let Some(f) = &failure {
        tracing::error!(code = ?f.code, message = f.message, detail = f.detail, "the data plane could not be brought to what is desired");
    }
    let mut ready = HashMap::new();
    for (kind, id, epoch, generation) in order {
        ready.insert(id, generation);
        shared.reports.net(
            kind,
            ObservedNet {
                id,
                epoch,
                generation,
                up: failure.is_none(),
                failure: failure.clone(),
            },
        );
    }
    if failure.is_none() {
        shared.net_ready.send_replace(ready);
    }
    let mut again = failure.is_some();
    for t in shared.store.net_tombstones() {
        match shared.drivers.net.remove(t.kind, t.id).await {
            Ok(()) => {
                fault_point!("agent.net.removed");
                if let Err(e) = shared.store.buried(&t) {
                    tracing::error!(error = %e, "a tombstone could not be laid down");
                    again = true;
                    continue;
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
