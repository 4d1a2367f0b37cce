//! revertResize: back to the old flavor (Nova API reference, "Revert Resized Server").

use super::{HostAction, check_lock, check_state, memory};
use crate::Compute;
use crate::logic::cold::Cold;
use crate::model::{Fault, Migration, MigrationStatus, Server, Task, VmState};
use crate::policy::acts;
use haneul_agent_api::{GuestState, ObservedGuest, Power};
use haneul_auth::{Ctx, fetch};
use haneul_core::{Error, Result, fault_point};
use haneul_jobs::{BoxFuture, Job};
use haneul_store::{Dir, Grant, Query, Tx};
use std::sync::Arc;

/// See the module.
pub(crate) struct RevertResize;

impl Compute {
    /// Begins it (202).
    pub(crate) async fn revert_resize(self: &Arc<Self>, ctx: &Ctx, id: &str) -> Result<()> {
        let (app, c, id) = (self.clone(), ctx.clone(), id.to_owned());
        self.db
            .write(&ctx.actor(), async move |tx| {
                let old = fetch(tx, &c, acts::RevertResize, &id).await?;
                check_lock(&c, &old, acts::RevertResize)?;
                check_state(&old, "revertResize", &[VmState::Resized])?;
                let mut s = old.edit();
                if let (Some(from), Some(to)) = (s.host_id.clone(), s.old_host_id.clone()) {
                    return app.revert_to_host(tx, &old, s, [&from, &to]).await;
                }
                let before = memory(&s);
                s.swap_flavors();
                app.begin::<RevertResize>(tx, &mut s, Task::ResizeReverting, before)
                    .await?;
                tx.update(&old, &s).await?;
                app.migration_is(tx, &s.id, MigrationStatus::Reverting).await
            })
            .await?;
        fault_point!("compute.revert-resize.committed");
        Ok(())
    }
}

impl Compute {
    /// Back to the host that it came from, with what it has written since.
    async fn revert_to_host(
        self: &Arc<Self>,
        tx: &mut Tx,
        old: &impl Grant<Server>,
        mut s: Server,
        hosts: [&str; 2],
    ) -> Result<()> {
        let query = Query::new()
            .eq("server_id", s.id.as_str())
            .order("number", Dir::Desc)
            .limit(1);
        let last = tx.list::<Migration>(&query).await?.pop();
        let last = last.ok_or_else(|| Error::internal("a server has come from another host without a migration"))?;
        let request_id = tx.actor().request_id.clone();
        s.note("revertResize", &request_id);
        let cold = Cold {
            wanted: s.wanted,
            confirmed: false,
            reverts: true,
        };
        self.cold_go(tx, &mut s, Task::ResizeReverting, &last.id, hosts, &cold)
            .await?;
        tx.update(old, &s).await?;
        self.migration_is(tx, &s.id, MigrationStatus::Reverting).await
    }
}

impl HostAction for RevertResize {
    const KIND: &'static str = "server.revertResize";
    fn met(s: &Server, seen: &ObservedGuest) -> bool {
        match s.wanted {
            Power::Stopped => seen.state == GuestState::Stopped,
            _ => seen.state == GuestState::Running,
        }
    }
    fn done<'t>(
        app: &'t Compute,
        tx: &'t mut Tx,
        s: &'t mut Server,
        _job: &'t Job,
        _seen: &'t ObservedGuest,
    ) -> BoxFuture<'t, Result<()>> {
        Box::pin(async move {
            app.drop_other_flavor(tx, s).await?;
            s.settle_as_wanted();
            app.migration_is(tx, &s.id, MigrationStatus::Reverted).await
        })
    }
    /// The host is still asked for the old flavor; the books go with it, and the server is in ERROR.
    fn undo<'t>(
        app: &'t Compute,
        tx: &'t mut Tx,
        s: &'t mut Server,
        _job: &'t Job,
        fault: &'t Fault,
    ) -> BoxFuture<'t, Result<()>> {
        Box::pin(async move {
            app.drop_other_flavor(tx, s).await?;
            s.fail(fault.clone());
            app.migration_is(tx, &s.id, MigrationStatus::Error).await
        })
    }
}
