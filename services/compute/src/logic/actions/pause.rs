//! pause: the guest keeps its memory and gets no time (Nova API reference, "Pause Server").

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
pub(crate) struct Pause;

impl Compute {
    /// Begins it (202).
    pub(crate) async fn pause_server(self: &Arc<Self>, ctx: &Ctx, id: &str) -> Result<()> {
        let (app, c, id) = (self.clone(), ctx.clone(), id.to_owned());
        self.db
            .write(&ctx.actor(), async move |tx| {
                let old = fetch(tx, &c, acts::Pause, &id).await?;
                check_lock(&c, &old, acts::Pause)?;
                check_state(&old, "pause", &[VmState::Active])?;
                let mut s = old.edit();
                let before = memory(&s);
                s.wanted = Power::Paused;
                app.begin::<Pause>(tx, &mut s, Task::Pausing, before).await?;
                tx.update(&old, &s).await?;
                Ok(())
            })
            .await?;
        fault_point!("compute.pause.committed");
        Ok(())
    }
}

impl HostAction for Pause {
    const KIND: &'static str = "server.pause";
    fn met(_s: &Server, seen: &ObservedGuest) -> bool {
        seen.state == GuestState::Paused
    }
    fn done<'t>(
        _app: &'t Compute,
        _tx: &'t mut Tx,
        s: &'t mut Server,
        _job: &'t Job,
        _seen: &'t ObservedGuest,
    ) -> BoxFuture<'t, Result<()>> {
        s.settle(VmState::Paused, power::PAUSED);
        Box::pin(async { Ok(()) })
    }
}
