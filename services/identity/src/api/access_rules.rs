//! /v3/users/{user_id}/access_rules (API reference: Identity API v3, "Application credentials"). They are made with
//! application credentials, and outlive them until they are deleted.

use super::app_creds::no_trust;
use super::common::{self, Kind, Listing};
use crate::Identity;
use crate::model::{AccessRule, AppCred, missing, of_owner};
use crate::policy::{DeleteAccessRule, GetAccessRule};
use haneul_auth::{Action, Authorized, Ctx, fetch};
use haneul_core::{Error, Result};
use haneul_http::{Reply, Req};
use haneul_store::{Query, Tx};
use serde_json::{Value, json};
use std::sync::Arc;

fn view(base: &str, r: &AccessRule) -> Value {
    let mut doc = common::view(base, &format!("users/{}/access_rules", r.user_id), r);
    common::remove(&mut doc, "user_id");
    doc
}

/// GET /v3/users/{user_id}/access_rules
pub(crate) async fn list(app: Arc<Identity>, req: Req) -> Result<Reply> {
    let (ctx, user) = (req.ctx()?.clone(), req.param("user_id").to_owned());
    ctx.enforce("identity:list_access_rules", &of_owner(&user))?;
    no_trust(&app.delegation(&req).await?)?;
    let listing = Listing::of(
        &req,
        &[
            ("service", Kind::Member),
            ("path", Kind::Member),
            ("method", Kind::Member),
        ],
    )?;
    drop(req);
    let base = listing.base.clone();
    let mut tx = app.db.read().await?;
    let rows = listing
        .run::<AccessRule>(&mut tx, Query::new().eq("user_id", user), None, &|r| view(&base, r))
        .await?;
    Ok(listing.reply("access_rules", rows))
}

/// The rule of a path: another user's is not there.
async fn find<A: Action<On = AccessRule>>(
    tx: &mut Tx,
    ctx: &Ctx,
    action: A,
    user: &str,
    id: &str,
) -> Result<Authorized<AccessRule, A>> {
    ctx.enforce(A::RULE, &of_owner(user))?;
    match tx.find::<AccessRule>(id).await? {
        Some(r) if r.user_id == user => fetch(tx, ctx, action, id).await,
        _ => Err(missing("Access Rule", id)),
    }
}

/// GET /v3/users/{user_id}/access_rules/{access_rule_id}
pub(crate) async fn show(app: Arc<Identity>, req: Req) -> Result<Reply> {
    let (ctx, by, base) = (req.ctx()?.clone(), app.delegation(&req).await?, req.base.clone());
    let (user, id) = (req.param("user_id").to_owned(), req.param("access_rule_id").to_owned());
    drop(req);
    let rule = find(&mut app.db.read().await?, &ctx, GetAccessRule, &user, &id).await?;
    no_trust(&by)?;
    Ok(Reply::ok(&json!({"access_rule": view(&base, &rule)})))
}

/// DELETE /v3/users/{user_id}/access_rules/{access_rule_id}
pub(crate) async fn delete(app: Arc<Identity>, req: Req) -> Result<Reply> {
    let (ctx, by) = (req.ctx()?.clone(), app.delegation(&req).await?);
    let (user, id) = (req.param("user_id").to_owned(), req.param("access_rule_id").to_owned());
    let asker = ctx.clone();
    app.db
        .write(&ctx.actor(), async move |tx| {
            let found = find(tx, &asker, DeleteAccessRule, &user, &id).await?;
            no_trust(&by)?;
            let creds = tx.list::<AppCred>(&Query::new().eq("user_id", user.as_str())).await?;
            if let Some(c) = creds.iter().find(|c| c.access_rules.iter().flatten().any(|r| *r == id)) {
                return Err(Error::forbidden(format!(
                    "You are not authorized to perform the requested action: access rule {id} is in use by application credential {}.",
                    c.id
                )));
            }
            tx.delete(&found).await
        })
        .await?;
    Ok(Reply::no_content())
}
