//! What administrators do to a server's record: os-resetState says what it is, injectNetworkInfo tells its host again
//! (Nova API reference, "Servers - run an administrative action").

use super::check_lock;
use crate::Compute;
use crate::model::{Task, VmState};
use crate::policy::acts;
use haneul_auth::{Ctx, fetch};
use haneul_core::{Error, Result};
use std::sync::Arc;

impl Compute {
    /// Its host hears of the guest again, with its network cards (202).
    pub(crate) async fn inject_network_info(self: &Arc<Self>, ctx: &Ctx, id: &str) -> Result<()> {
        let (app, c, id) = (self.clone(), ctx.clone(), id.to_owned());
        self.db
            .write(&ctx.actor(), async move |tx| {
                let old = fetch(tx, &c, acts::InjectNetworkInfo, &id).await?;
                check_lock(&c, &old, acts::InjectNetworkInfo)?;
                if old.task_state == Some(Task::Deleting) {
                    return Err(Error::conflict(format!(
                        "Cannot 'inject_network_info' instance {id} while it is in task_state deleting"
                    )));
                }
                let mut s = old.edit();
                app.push_guest(tx, &mut s).await?;
                tx.update(&old, &s).await?;
                Ok(())
            })
            .await
    }

    /// To ACTIVE or ERROR. What was going on is given up, so that no job speaks about another state.
    pub(crate) async fn reset_server_state(self: &Arc<Self>, ctx: &Ctx, id: &str, active: bool) -> Result<()> {
        let (app, c, id) = (self.clone(), ctx.clone(), id.to_owned());
        self.db
            .write(&ctx.actor(), async move |tx| {
                let old = fetch(tx, &c, acts::ResetState, &id).await?;
                let gave_way = app.jobs.supersede(tx, ("server", &id)).await?;
                app.give_image_up(tx, gave_way.as_ref()).await?;
                let mut s = old.edit();
                if s.snapshot.take().is_some() {
                    app.push_guest(tx, &mut s).await?;
                }
                s.vm_state = if active { VmState::Active } else { VmState::Error };
                s.task_state = None;
                if active {
                    s.fault = None;
                }
                tx.update(&old, &s).await?;
                Ok(())
            })
            .await
    }
}
