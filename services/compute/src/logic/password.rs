//! The password that a guest posts to the metadata service (Nova API reference, "Servers password"). The host takes it
//! and reports it, again after each greeting; clearing it is a counter in the desired guest, so that a report which was
//! under way cannot bring back what was cleared.

use crate::Compute;
use crate::model::Server;
use crate::policy::acts;
use haneul_agent_api::{MAX_PASSWORD, PostedPassword};
use haneul_auth::{Ctx, fetch};
use haneul_core::Result;
use haneul_store::{System, Tx};
use std::sync::Arc;

impl Compute {
    /// A host tells what its guest has posted.
    pub(crate) async fn password_posted(&self, tx: &mut Tx, host: &str, posted: &PostedPassword) -> Result<()> {
        let Some(stored) = tx.find::<Server>(&posted.guest.to_string()).await? else {
            return Ok(());
        };
        let mine = stored.host_id.as_deref() == Some(host) && stored.password_clears == posted.clears;
        let known = stored.password.as_deref() == Some(posted.password.as_str());
        if !mine || known || posted.password.is_empty() || posted.password.len() > MAX_PASSWORD {
            return Ok(());
        }
        let mut s = stored.value.clone();
        s.password = Some(posted.password.clone());
        tx.update(&System::of(stored), &s).await?;
        Ok(())
    }

    /// Forgets it, here and on the host; the guest may post another one.
    pub(crate) async fn clear_password(self: &Arc<Self>, ctx: &Ctx, id: &str) -> Result<()> {
        let (app, c, id) = (self.clone(), ctx.clone(), id.to_owned());
        self.db
            .write(&ctx.actor(), async move |tx| {
                let old = fetch(tx, &c, acts::PasswordClear, &id).await?;
                if old.password.is_none() {
                    return Ok(());
                }
                let mut s = old.edit();
                s.password = None;
                s.password_clears += 1;
                if s.host_id.is_some() {
                    app.push_guest(tx, &mut s).await?;
                }
                tx.update(&old, &s).await?;
                Ok(())
            })
            .await
    }
}
