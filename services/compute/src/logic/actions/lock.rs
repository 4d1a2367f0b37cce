//! lock and unlock (Nova API reference, "Lock Server").

use crate::Compute;
use crate::policy::acts;
use haneul_auth::{Action, Ctx, Target, fetch};
use haneul_core::{Error, Result};

impl Compute {
    /// Nobody but administrators changes the server until it is unlocked.
    pub(crate) async fn lock_server(&self, ctx: &Ctx, id: &str, reason: Option<String>) -> Result<()> {
        let (c, id) = (ctx.clone(), id.to_owned());
        self.db
            .write(&ctx.actor(), async move |tx| {
                let old = fetch(tx, &c, acts::Lock, &id).await?;
                let mut s = old.edit();
                s.locked = true;
                let owner = old.project_id == c.project_id();
                s.locked_by = Some(if owner { "owner" } else { "admin" }.into());
                s.locked_reason.clone_from(&reason);
                s.note("lock", &c.request_id);
                tx.update(&old, &s).await?;
                Ok(())
            })
            .await
    }

    /// What an administrator locked, only an administrator unlocks.
    pub(crate) async fn unlock_server(&self, ctx: &Ctx, id: &str) -> Result<()> {
        let (c, id) = (ctx.clone(), id.to_owned());
        self.db
            .write(&ctx.actor(), async move |tx| {
                let old = fetch(tx, &c, acts::Unlock, &id).await?;
                if old.locked_by.as_deref() == Some("admin")
                    && !c.may(acts::UnlockOverride::RULE, &Target::project(&old.project_id))
                {
                    return Err(Error::forbidden(format!(
                        "Policy doesn't allow {} to be performed.",
                        acts::UnlockOverride::RULE
                    )));
                }
                let mut s = old.edit();
                s.locked = false;
                s.locked_by = None;
                s.locked_reason = None;
                s.note("unlock", &c.request_id);
                tx.update(&old, &s).await?;
                Ok(())
            })
            .await
    }
}
