//! confirmResize: the old flavor is given up (Nova API reference, "Confirm Resized Server").

use super::{check_lock, check_state};
use crate::Compute;
use crate::model::{MigrationStatus, Server, VmState};
use crate::policy::acts;
use haneul_auth::{Ctx, fetch};
use haneul_core::{Result, fault_point};
use haneul_store::Tx;
use std::sync::Arc;

impl Compute {
    /// At once (204): the host has nothing to do.
    pub(crate) async fn confirm_resize(self: &Arc<Self>, ctx: &Ctx, id: &str) -> Result<()> {
        let (app, c, id) = (self.clone(), ctx.clone(), id.to_owned());
        self.db
            .write(&ctx.actor(), async move |tx| {
                let old = fetch(tx, &c, acts::ConfirmResize, &id).await?;
                check_lock(&c, &old, acts::ConfirmResize)?;
                check_state(&old, "confirmResize", &[VmState::Resized])?;
                let mut s = old.edit();
                app.confirm(tx, &mut s).await?;
                s.note("confirmResize", &c.request_id);
                tx.update(&old, &s).await.map(|_| ())
            })
            .await?;
        fault_point!("compute.confirm-resize.committed");
        Ok(())
    }

    /// What was kept for the way back is given up.
    pub(crate) async fn confirm(&self, tx: &mut Tx, s: &mut Server) -> Result<()> {
        self.drop_other_flavor(tx, s).await?;
        self.drop_other_host(tx, s).await?;
        s.settle_as_wanted();
        self.migration_is(tx, &s.id, MigrationStatus::Confirmed).await
    }
}
