//! os-resetState: an administrator says what a server is (Nova API reference, "Reset Server State").

use crate::Compute;
use crate::model::VmState;
use crate::policy::acts;
use haneul_auth::{Ctx, fetch};
use haneul_core::Result;
use std::sync::Arc;

impl Compute {
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
