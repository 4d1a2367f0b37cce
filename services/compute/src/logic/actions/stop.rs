//! os-stop: ACPI first, hard after a while (Nova API reference, "Stop Server").

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
pub(crate) struct Stop;

impl Compute {
    /// Begins it (202).
    pub(crate) async fn stop_server(self: &Arc<Self>, ctx: &Ctx, id: &str) -> Result<()> {
        let (app, c, id) = (self.clone(), ctx.clone(), id.to_owned());
        self.db
            .write(&ctx.actor(), async move |tx| {
                let old = fetch(tx, &c, acts::Stop, &id).await?;
                check_lock(&c, &old, acts::Stop)?;
                check_state(&old, "stop", &[VmState::Active, VmState::Error])?;
                let mut s = old.edit();
                let before = memory(&s);
                s.wanted = Power::Stopped;
                app.begin::<Stop>(tx, &mut s, Task::PoweringOff, before).await?;
                tx.update(&old, &s).await?;
                Ok(())
            })
            .await?;
        fault_point!("compute.stop.committed");
        Ok(())
    }
}

impl HostAction for Stop {
    const KIND: &'static str = "server.stop";
    fn met(_s: &Server, seen: &ObservedGuest) -> bool {
        seen.state == GuestState::Stopped
    }
    fn done<'t>(
        _app: &'t Compute,
        _tx: &'t mut Tx,
        s: &'t mut Server,
        _job: &'t Job,
        _seen: &'t ObservedGuest,
    ) -> BoxFuture<'t, Result<()>> {
        s.settle(VmState::Stopped, power::SHUTDOWN);
        Box::pin(async { Ok(()) })
    }
}
