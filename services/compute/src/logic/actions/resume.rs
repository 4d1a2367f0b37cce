//! resume: a suspended server goes on where it was (Nova API reference, "Resume Suspended Server").

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
pub(crate) struct Resume;

impl Compute {
    /// Begins it (202).
    pub(crate) async fn resume_server(self: &Arc<Self>, ctx: &Ctx, id: &str) -> Result<()> {
        let (app, c, id) = (self.clone(), ctx.clone(), id.to_owned());
        self.db
            .write(&ctx.actor(), async move |tx| {
                let old = fetch(tx, &c, acts::Resume, &id).await?;
                check_lock(&c, &old, acts::Resume)?;
                check_state(&old, "resume", &[VmState::Suspended])?;
                let mut s = old.edit();
                let before = memory(&s);
                s.wanted = Power::Running;
                app.begin::<Resume>(tx, &mut s, Task::Resuming, before).await?;
                tx.update(&old, &s).await?;
                Ok(())
            })
            .await?;
        fault_point!("compute.resume.committed");
        Ok(())
    }
}

impl HostAction for Resume {
    const KIND: &'static str = "server.resume";
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
