//! What follows POST /servers: the host builds the guest.

use super::HostAction;
use crate::Compute;
use crate::model::{Fault, Server, VmState, power};
use haneul_agent_api::{GuestState, ObservedGuest, Power};
use haneul_core::{Result, clock, config};
use haneul_jobs::{BoxFuture, Job};
use haneul_store::Tx;

/// See the module.
pub(crate) struct Create;

impl HostAction for Create {
    const KIND: &'static str = "server.create";
    fn deadline_s(config: &config::Compute) -> u64 {
        config.build_timeout_s
    }
    fn met(_s: &Server, seen: &ObservedGuest) -> bool {
        // A guest that switched itself off in its first moments was built all the same.
        matches!(seen.state, GuestState::Running | GuestState::Stopped)
    }
    fn done<'t>(
        app: &'t Compute,
        tx: &'t mut Tx,
        s: &'t mut Server,
        _job: &'t Job,
        seen: &'t ObservedGuest,
    ) -> BoxFuture<'t, Result<()>> {
        Box::pin(async move {
            s.launched_at = Some(clock::now());
            app.built(tx, s, true);
            s.settle(VmState::Active, power::RUNNING);
            if seen.state == GuestState::Stopped {
                s.settle(VmState::Stopped, power::SHUTDOWN);
                s.wanted = Power::Stopped;
                app.push_guest(tx, s).await?;
            }
            Ok(())
        })
    }
    /// The host forgets the guest; ports, allocation and quota stay until the server is deleted.
    fn undo<'t>(
        app: &'t Compute,
        tx: &'t mut Tx,
        s: &'t mut Server,
        _job: &'t Job,
        fault: &'t Fault,
    ) -> BoxFuture<'t, Result<()>> {
        Box::pin(async move {
            app.built(tx, s, false);
            if let Some(host) = &s.host_id {
                app.fleet.destroy_guest(tx, host, &s.id).await?;
            }
            s.power_state = power::NOSTATE;
            s.fail(fault.clone());
            Ok(())
        })
    }
}
