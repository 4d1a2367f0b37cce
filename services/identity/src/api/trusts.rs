//! /v3/OS-TRUST/trusts (API reference: Identity API v3 extensions, "OS-TRUST").
//!
//! A trust is always for a project here: one without, which Keystone allows, would lend nothing but a name.
//! Tokens of application credentials and OAuth access tokens neither see nor make trusts. A token of a trust makes one only where that trust
//! allows it, and removes only its own and those that were made from it.

use super::common::{self, Kind, Listing, TEXT, Take};
use super::roles;
use crate::logic::trusts::{self, MAX_REDELEGATIONS};
use crate::model::{Project, Role, TargetKind, Trust, User, between, missing};
use crate::policy::{CreateTrust, DeleteTrust, GetTrust, GetTrustRole, ListTrustRoles};
use crate::store::{RoleBook, assigned, role_by_name};
use crate::{Delegation, Identity};
use haneul_auth::{Action, Authorized, Ctx, Target, allow_create, fetch};
use haneul_core::clock::iso_micros;
use haneul_core::{Error, Result, clock, id};
use haneul_http::{Body, FieldKind, Reply, Req, f};
use haneul_store::{Query, System, Tx};
use serde_json::{Value, json};
use std::sync::Arc;

static ROLE: Body = Body {
    open: true,
    fields: &[f("id", TEXT), f("name", TEXT)],
};
const ROLES: FieldKind = FieldKind::List {
    of: &FieldKind::Obj(&ROLE),
    max: 100,
};
/// A JSON number: a string is none here.
const USES: FieldKind = FieldKind::Check(|v| match v.as_i64() {
    Some(n) if n >= 1 => Ok(()),
    _ => Err("remaining_uses must be a positive integer or null.".into()),
});
const COUNT: FieldKind = FieldKind::Check(|v| match v.as_i64() {
    Some(n) if n >= 0 => Ok(()),
    _ => Err("It must be an integer from 0.".into()),
});
static CREATE: Body = Body {
    open: true,
    fields: &[
        f("trustor_user_id", TEXT).req(),
        f("trustee_user_id", TEXT).req(),
        f("impersonation", common::STRICT_BOOL).req(),
        f("project_id", TEXT).req(),
        f("roles", ROLES),
        f("expires_at", common::EXPIRES).null(),
        f("remaining_uses", USES).null(),
        f("allow_redelegation", common::STRICT_BOOL).null(),
        f("redelegation_count", COUNT).null(),
    ],
};

fn view(base: &str, t: &Trust, book: Option<&RoleBook>) -> Value {
    let mut doc = common::view(base, "OS-TRUST/trusts", t);
    common::put(&mut doc, "expires_at", t.expires_at.map(iso_micros).into());
    common::put(&mut doc, "deleted_at", Value::Null);
    common::remove(&mut doc, "roles");
    if let Some(book) = book {
        common::put(&mut doc, "roles", roles_of(base, t, book).into());
        let links = json!({"self": roles_link(base, t), "next": null, "previous": null});
        common::put(&mut doc, "roles_links", links);
    }
    doc
}

fn roles_link(base: &str, t: &Trust) -> String {
    format!("{base}/v3/OS-TRUST/trusts/{}/roles", t.id)
}

fn roles_of(base: &str, t: &Trust, book: &RoleBook) -> Vec<Value> {
    let found = t.roles.iter().filter_map(|id| book.roles.get(id));
    found.map(|r| roles::show_view(base, r)).collect()
}

fn no_app_cred(by: &Delegation) -> Result<()> {
    if by.access_token_id.is_some() {
        return Err(Error::forbidden(
            "You are not authorized to perform the requested action: Redelegation allowed for delegated by trust only.",
        ));
    }
    match by.app_cred_id {
        None => Ok(()),
        Some(_) => Err(Error::forbidden(
            "You are not authorized to perform the requested action: Using method 'application_credential' is not allowed for managing trusts.",
        )),
    }
}

/// The trust of a path. One that has ended is not there; that it is not is told to everybody, as Keystone does.
async fn find<A: Action<On = Trust>>(tx: &mut Tx, ctx: &Ctx, action: A, id: &str) -> Result<Authorized<Trust, A>> {
    let good = match tx.find::<Trust>(id).await? {
        Some(t) if t.remaining_uses.is_none_or(|n| n > 0) => trusts::chain(tx, t).await?.is_ok(),
        _ => false,
    };
    if !good {
        return Err(missing("trust", id));
    }
    fetch(tx, ctx, action, id).await
}

/// GET /v3/OS-TRUST/trusts
pub(crate) async fn list(app: Arc<Identity>, req: Req) -> Result<Reply> {
    let (ctx, by) = (req.ctx()?.clone(), app.delegation(&req).await?);
    let target = Target::default();
    match (req.q("trustor_user_id"), req.q("trustee_user_id")) {
        (Some(u), _) if !u.is_empty() => ctx.enforce(
            "identity:list_trusts_for_trustor",
            &target.with("target.trust.trustor_user_id", u),
        )?,
        (_, Some(u)) if !u.is_empty() => ctx.enforce(
            "identity:list_trusts_for_trustee",
            &target.with("target.trust.trustee_user_id", u),
        )?,
        _ => ctx.enforce("identity:list_trusts", &target)?,
    }
    no_app_cred(&by)?;
    let listing = Listing::of(
        &req,
        &[("trustor_user_id", Kind::Column), ("trustee_user_id", Kind::Column)],
    )?;
    drop(req);
    let base = listing.base.clone();
    let mut tx = app.db.read().await?;
    let rows = listing
        .run::<Trust>(&mut tx, Query::new(), None, &|t| view(&base, t, None))
        .await?;
    Ok(listing.reply("trusts", rows))
}

/// GET /v3/OS-TRUST/trusts/{trust_id}
pub(crate) async fn show(app: Arc<Identity>, req: Req) -> Result<Reply> {
    let (ctx, by, base) = (req.ctx()?.clone(), app.delegation(&req).await?, req.base.clone());
    let id = req.param("trust_id").to_owned();
    drop(req);
    let mut tx = app.db.read().await?;
    let trust = find(&mut tx, &ctx, GetTrust, &id).await?;
    no_app_cred(&by)?;
    let book = RoleBook::load(&mut tx).await?;
    Ok(Reply::ok(&json!({"trust": view(&base, &trust, Some(&book))})))
}

/// GET /v3/OS-TRUST/trusts/{trust_id}/roles
pub(crate) async fn list_roles(app: Arc<Identity>, req: Req) -> Result<Reply> {
    let (ctx, by, base) = (req.ctx()?.clone(), app.delegation(&req).await?, req.base.clone());
    let id = req.param("trust_id").to_owned();
    drop(req);
    let mut tx = app.db.read().await?;
    let trust = find(&mut tx, &ctx, ListTrustRoles, &id).await?;
    no_app_cred(&by)?;
    let book = RoleBook::load(&mut tx).await?;
    Ok(Reply::ok(&json!({
        "roles": roles_of(&base, &trust, &book),
        "links": {"self": roles_link(&base, &trust), "next": null, "previous": null},
    })))
}

/// GET and HEAD /v3/OS-TRUST/trusts/{trust_id}/roles/{role_id}
pub(crate) async fn role(app: Arc<Identity>, req: Req) -> Result<Reply> {
    let (ctx, by, base) = (req.ctx()?.clone(), app.delegation(&req).await?, req.base.clone());
    let (id, role) = (req.param("trust_id").to_owned(), req.param("role_id").to_owned());
    drop(req);
    let mut tx = app.db.read().await?;
    let trust = find(&mut tx, &ctx, GetTrustRole, &id).await?;
    no_app_cred(&by)?;
    match tx.find::<Role>(&role).await? {
        Some(r) if trust.roles.contains(&r.id) => Ok(Reply::ok(&json!({"role": roles::show_view(&base, &r)}))),
        _ => Err(missing("role", &role)),
    }
}

/// Ids of the roles that a body names.
async fn named_roles(tx: &mut Tx, asked: &[Value]) -> Result<Vec<String>> {
    let mut out = Vec::new();
    for (n, role) in asked.iter().enumerate() {
        let text = |key: &str| role.get(key).and_then(Value::as_str);
        let id = match (text("id"), text("name")) {
            (Some(id), _) => id.to_owned(),
            (None, Some(name)) => match role_by_name(tx, "", name).await? {
                Some(r) => r.value.id,
                None => return Err(missing("role", name).with_field(format!("trust.roles.{n}"))),
            },
            (None, None) => {
                return Err(Error::field(
                    format!("trust.roles.{n}"),
                    "A role is named by its id or its name.",
                ));
            }
        };
        if !out.contains(&id) {
            out.push(id);
        }
    }
    Ok(out)
}

/// How long a chain may follow the new trust.
fn depth(asked: Option<i64>, allow: bool, uses: Option<i64>, parent: Option<&Trust>) -> Result<i64> {
    if !allow || asked == Some(0) {
        return Ok(0);
    }
    if uses.is_some() {
        return Err(Error::field(
            "trust.remaining_uses",
            "remaining_uses must not be set if redelegation is allowed",
        ));
    }
    if let Some(n) = asked.filter(|n| *n > MAX_REDELEGATIONS) {
        return Err(Error::forbidden(format!(
            "Requested redelegation depth of {n} is greater than allowed {MAX_REDELEGATIONS}"
        )));
    }
    match parent {
        None => Ok(asked.unwrap_or(MAX_REDELEGATIONS)),
        Some(p) => match asked {
            Some(n) if n != p.redelegation_count - 1 => Err(Error::forbidden(
                "Modifying \"redelegation_count\" upon redelegation is forbidden. Omitting this parameter is advised.",
            )),
            _ => Ok((p.redelegation_count - 1).max(0)),
        },
    }
}

/// POST /v3/OS-TRUST/trusts
pub(crate) async fn create(app: Arc<Identity>, mut req: Req) -> Result<Reply> {
    let (ctx, by, base) = (req.ctx()?.clone(), app.delegation(&req).await?, req.base.clone());
    let mut body = common::body(&mut req, "trust", &CREATE).await?;
    let trustor = body.text("trustor_user_id").unwrap_or_default();
    let trustee = body.text("trustee_user_id").unwrap_or_default();
    let target = between(&trustor, &trustee);
    ctx.enforce("identity:create_trust", &target)?;
    no_app_cred(&by)?;
    // keystone/common/policies/trust.py: made with a token for a project. What else gives one may make one, too.
    if ctx.is_system() {
        return Err(Error::forbidden(
            "You are not authorized to perform the requested action: Using a system-scoped token to lend roles on a project is not allowed.",
        ));
    }
    if ctx.user_id != trustor {
        return Err(Error::forbidden(
            "You are not authorized to perform the requested action: The authenticated user should match the trustor.",
        ));
    }
    let asked: Vec<Value> = body
        .remove("roles")
        .and_then(|r| r.as_array().cloned())
        .unwrap_or_default();
    if asked.is_empty() {
        return Err(Error::forbidden(
            "You are not authorized to perform the requested action: At least one role should be specified.",
        ));
    }
    let expires_at = body.text("expires_at").as_deref().and_then(clock::parse);
    if expires_at.is_some_and(|t| t <= clock::now()) {
        return Err(Error::field(
            "trust.expires_at",
            "The 'expires_at' must not be before now.",
        ));
    }
    let number = |name: &str| body.get(name).and_then(Value::as_i64);
    let (uses, count) = (number("remaining_uses"), number("redelegation_count"));
    let allow = body.flag("allow_redelegation").unwrap_or(false);
    let new = Trust {
        id: id::hex(),
        trustor_user_id: trustor,
        trustee_user_id: trustee,
        project_id: body.text("project_id").unwrap_or_default(),
        impersonation: body.flag("impersonation").unwrap_or(false),
        roles: vec![],
        expires_at,
        remaining_uses: uses,
        redelegation_count: 0,
        redelegated_trust_id: by.trust_id.clone(),
    };
    let asker = ctx.clone();
    let doc = app
        .db
        .write(&ctx.actor(), async move |tx| {
            let grant = allow_create(
                &asker,
                CreateTrust,
                &between(&new.trustor_user_id, &new.trustee_user_id),
            )?;
            let mut trust = new.clone();
            if tx.find::<User>(&trust.trustee_user_id).await?.is_none() {
                return Err(missing("user", &trust.trustee_user_id).with_field("trust.trustee_user_id"));
            }
            if tx.find::<Project>(&trust.project_id).await?.is_none() {
                return Err(missing("project", &trust.project_id).with_field("trust.project_id"));
            }
            trust.roles = named_roles(tx, &asked).await?;
            let mut root = (trust.trustor_user_id.clone(), trust.project_id.clone());
            let parent = match &trust.redelegated_trust_id {
                None => None,
                Some(id) => Some(tx.find::<Trust>(id).await?.ok_or_else(Error::unauthorized)?),
            };
            trust.redelegation_count = depth(count, allow, uses, parent.as_deref())?;
            if let Some(parent) = parent {
                trust.expires_at = trust.expires_at.or(parent.expires_at);
                trusts::within(&parent, &trust).map_err(|why| Error::forbidden(format!("{why}.")))?;
                let chain = trusts::chain(tx, parent).await?;
                let chain = chain.map_err(|why| Error::unauthorized().with_private(why))?;
                if let Some(top) = chain.last() {
                    root = (top.trustor_user_id.clone(), top.project_id.clone());
                }
            }
            let book = RoleBook::load(tx).await?;
            let held = assigned(tx, &root.0, TargetKind::Project, &root.1).await?;
            let held = book.expand(held.iter().map(String::as_str));
            if let Some(lacking) = trust.roles.iter().find(|r| !held.contains(*r)) {
                return Err(missing("role", lacking).with_field("trust.roles"));
            }
            let made = tx
                .insert(&grant, &trust)
                .await?
                .ok_or_else(|| Error::internal("a new trust's id is taken"))?;
            Ok(view(&base, &made, Some(&book)))
        })
        .await?;
    Ok(Reply::created(&json!({"trust": doc})))
}

/// DELETE /v3/OS-TRUST/trusts/{trust_id}. The trusts made from it go with it, and the tokens of them all.
pub(crate) async fn delete(app: Arc<Identity>, req: Req) -> Result<Reply> {
    let (ctx, by) = (req.ctx()?.clone(), app.delegation(&req).await?);
    let id = req.param("trust_id").to_owned();
    let (this, asker) = (app.clone(), ctx.clone());
    app.db
        .write(&ctx.actor(), async move |tx| {
            let found = find(tx, &asker, DeleteTrust, &id).await?;
            no_app_cred(&by)?;
            if by.trust_id.is_some() && by.trust_id != found.redelegated_trust_id && by.trust_id.as_ref() != Some(&id) {
                return Err(Error::forbidden(
                    "You are not authorized to perform the requested action: A token of a trust removes that trust only, and those that were made with it.",
                ));
            }
            for t in trusts::below(tx, &id).await? {
                tx.delete(&System::of(t)).await?;
            }
            this.invalidate(tx).await?;
            tx.delete(&found).await
        })
        .await?;
    Ok(Reply::no_content())
}
