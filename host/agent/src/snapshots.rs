//! The image of a guest's root disk: made in a task of its own beside the guest's, so that a newer desired state, which
//! may want the same image, does not begin it anew.

use crate::Shared;
use haneul_agent_api::{Failure, Guest, ObservedSnapshot, SnapshotState};
use haneul_core::fault_point;
use std::sync::Arc;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use uuid::Uuid;

/// An image that is made, or was made since the agent's start. Dropping it gives it up.
pub(crate) struct Making {
    pub image: Uuid,
    state: watch::Receiver<SnapshotState>,
    task: AbortHandle,
}

impl Drop for Making {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Making {
    /// Begins, or finds what an agent before has made.
    pub fn begin(shared: &Arc<Shared>, guest: &Guest, image: Uuid) -> Making {
        let (send, state) = watch::channel(SnapshotState::Making(0));
        let (s, g) = (shared.clone(), guest.clone());
        let tell = move |state: SnapshotState| {
            let seen = ObservedSnapshot {
                id: image,
                state: state.clone(),
            };
            s.reports.snapshot(g.id, Some(seen));
            send.send_if_modified(|now| std::mem::replace(now, state.clone()) != state);
        };
        tell(SnapshotState::Making(0));
        let (s, g) = (shared.clone(), guest.clone());
        let task = tokio::spawn(async move {
            let tell = Arc::new(tell);
            let percent = tell.clone();
            let progress = Arc::new(move |p| percent(SnapshotState::Making(p)));
            let made = make(&s, &g, image, progress).await;
            tell(made.map_or_else(
                |f| {
                    tracing::error!(guest = %g.id, %image, code = ?f.code, message = f.message, detail = f.detail, "the image of a guest could not be made");
                    SnapshotState::Failed(f)
                },
                SnapshotState::Ready,
            ));
        });
        let task = task.abort_handle();
        Making { image, state, task }
    }

    /// Waits for news; true when it is the last.
    pub async fn step(making: &mut Option<Making>) -> bool {
        if let Some(making) = making
            && making.state.changed().await.is_ok()
        {
            return !matches!(*making.state.borrow_and_update(), SnapshotState::Making(_));
        }
        std::future::pending().await
    }
}

/// Makes the file; answers its size.
async fn make(
    shared: &Arc<Shared>,
    guest: &Guest,
    image: Uuid,
    progress: Arc<dyn Fn(u8) + Send + Sync>,
) -> Result<u64, Failure> {
    let (drivers, block) = (&shared.drivers, shared.drivers.block_of(guest)?);
    if let Some((_, size)) = block.snapshot(guest.id, image).await? {
        return Ok(size);
    }
    let (id, rebuilds) = (guest.id, guest.rebuilds);
    let file = block.snapshot_begin(id, rebuilds, &guest.root, image).await?;
    let hold = drivers.hypervisor.copy_disk(id, &file, progress.clone()).await?;
    if hold.is_some() {
        block.snapshot_copy(id, rebuilds, &guest.root, image, progress).await?;
    }
    drop(hold);
    fault_point!("agent.snapshot.copied");
    let size = block.snapshot_keep(id, image).await?;
    fault_point!("agent.snapshot.kept");
    Ok(size)
}
