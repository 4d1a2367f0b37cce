//! os-start: a stopped server runs again (Nova API reference, "Start Server").

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
pub(crate) struct Start;

impl Compute {
    /// Begins it (202).
    pub(crate) async fn start_server(self: &Arc<Self>, ctx: &Ctx, id: &str) -> Result<()> {
        let (app, c, id) = (self.clone(), ctx.clone(), id.to_owned());
        self.db
            .write(&ctx.actor(), async move |tx| {
                let old = fetch(tx, &c, acts::Start, &id).await?;
                check_lock(&c, &old, acts::Start)?;
                check_state(&old, "start", &[VmState::Stopped])?;
                let mut s = old.edit();
                let before = memory(&s);
                s.wanted = Power::Running;
                app.begin::<Start>(tx, &mut s, Task::PoweringOn, before).await?;
                tx.update(&old, &s).await?;
                Ok(())
            })
            .await?;
        fault_point!("compute.start.committed");
        Ok(())
    }
}

impl HostAction for Start {
    const KIND: &'static str = "server.start";
    fn met(_s: &Server, seen: &ObservedGuest) -> bool {
        seen.state == GuestState::Running
    }
    fn done<'t>(
        _app: &'t Compute,
        _tx: &'t mut Tx,
        s: &'t mut Server,
        _job: &'t Job,
        _seen: &'t ObservedGuest,
    ) -> BoxFuture<'t, Result<()>> {
        s.settle(VmState::Active, power::RUNNING);
        Box::pin(async { Ok(()) })
    }
}
