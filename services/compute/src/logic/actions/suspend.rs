//! suspend: the guest's memory goes to its host's disk, and nothing of it runs (Nova API reference, "Suspend Server").

use super::{HostAction, check_lock, check_state, memory};
use crate::Compute;
use crate::model::{Server, Task, VmState, power};
use crate::policy::acts;
use haneul_agent_api::{GuestState, ObservedGuest, Power};
use haneul_auth::{Ctx, fetch};
use haneul_core::{Result, fault_point};
use haneul_jobs::{BoxFuture, Job};
use haneul_store::Tx;
use std::sync::Arc;

/// See the module.
pub(crate) struct Suspend;

impl Compute {
    /// Begins it (202).
    pub(crate) async fn suspend_server(self: &Arc<Self>, ctx: &Ctx, id: &str) -> Result<()> {
        let (app, c, id) = (self.clone(), ctx.clone(), id.to_owned());
        self.db
            .write(&ctx.actor(), async move |tx| {
                let old = fetch(tx, &c, acts::Suspend, &id).await?;
                check_lock(&c, &old, acts::Suspend)?;
                check_state(&old, "suspend", &[VmState::Active])?;
                let mut s = old.edit();
                let before = memory(&s);
                s.wanted = Power::Suspended;
                app.begin::<Suspend>(tx, &mut s, Task::Suspending, before).await?;
                tx.update(&old, &s).await?;
                Ok(())
            })
            .await?;
        fault_point!("compute.suspend.committed");
        Ok(())
    }
}

impl HostAction for Suspend {
    const KIND: &'static str = "server.suspend";
    fn met(_s: &Server, seen: &ObservedGuest) -> bool {
        seen.state == GuestState::Suspended
    }
    fn done<'t>(
        _app: &'t Compute,
        _tx: &'t mut Tx,
        s: &'t mut Server,
        _job: &'t Job,
        _seen: &'t ObservedGuest,
    ) -> BoxFuture<'t, Result<()>> {
        s.settle(VmState::Suspended, power::SUSPENDED);
        Box::pin(async { Ok(()) })
    }
}
