//! reboot, soft and hard (Nova API reference, "Reboot Server").

use super::{HostAction, check_lock, check_state, memory};
use crate::Compute;
use crate::model::{Fault, Server, Task, VmState, power};
use crate::policy::acts;
use haneul_agent_api::{GuestState, ObservedGuest, Power};
use haneul_auth::{Ctx, fetch};
use haneul_core::{Result, fault_point};
use haneul_jobs::{BoxFuture, Job};
use haneul_store::Tx;
use std::sync::Arc;

/// See the module.
pub(crate) struct Reboot;

impl Compute {
    /// Begins it (202). A hard reboot is also the way out of ERROR and SHUTOFF.
    pub(crate) async fn reboot_server(self: &Arc<Self>, ctx: &Ctx, id: &str, hard: bool) -> Result<()> {
        let (app, c, id) = (self.clone(), ctx.clone(), id.to_owned());
        self.db
            .write(&ctx.actor(), async move |tx| {
                let old = fetch(tx, &c, acts::Reboot, &id).await?;
                check_lock(&c, &old, acts::Reboot)?;
                let from: &[VmState] = if hard {
                    &[
                        VmState::Active,
                        VmState::Stopped,
                        VmState::Paused,
                        VmState::Suspended,
                        VmState::Error,
                    ]
                } else {
                    &[VmState::Active]
                };
                check_state(&old, "reboot", from)?;
                let mut s = old.edit();
                let before = memory(&s);
                s.wanted = Power::Running;
                let task = if hard {
                    s.hard_reboots += 1;
                    Task::RebootingHard
                } else {
                    s.soft_reboots += 1;
                    Task::Rebooting
                };
                app.begin::<Reboot>(tx, &mut s, task, before).await?;
                tx.update(&old, &s).await?;
                Ok(())
            })
            .await?;
        fault_point!("compute.reboot.committed");
        Ok(())
    }
}

impl HostAction for Reboot {
    const KIND: &'static str = "server.reboot";
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
    /// A reboot cannot be taken back: the server is in ERROR with the cause, and a hard reboot may mend it.
    fn undo<'t>(
        _app: &'t Compute,
        _tx: &'t mut Tx,
        s: &'t mut Server,
        _job: &'t Job,
        fault: &'t Fault,
    ) -> BoxFuture<'t, Result<()>> {
        s.fail(fault.clone());
        Box::pin(async { Ok(()) })
    }
}
