//! /v3/policies (API reference: Identity API v3, "Policies"). Kept for other programs: nothing here looks into one.

use super::common::{self, Kind, Listing, TEXT, Take};
use crate::Identity;
use crate::logic::remove;
use crate::model::PolicyDoc;
use crate::policy::{CreatePolicy, DeletePolicy, GetPolicy, UpdatePolicy};
use haneul_auth::{Target, allow_create, fetch};
use haneul_core::{Error, Result, id};
use haneul_http::{Body, FieldKind, Reply, Req, f};
use haneul_store::Query;
use serde_json::json;
use std::sync::Arc;

const KIND: FieldKind = FieldKind::Str { min: 0, max: 255 };
static CREATE: Body = Body {
    open: true,
    fields: &[f("blob", TEXT).req(), f("type", KIND).req()],
};
static UPDATE: Body = Body {
    open: true,
    fields: &[f("blob", TEXT), f("type", KIND)],
};

/// GET /v3/policies
pub(crate) async fn list(app: Arc<Identity>, req: Req) -> Result<Reply> {
    req.ctx()?.enforce("identity:list_policies", &Target::default())?;
    let listing = Listing::of(&req, &[("type", Kind::Member)])?;
    drop(req);
    let base = listing.base.clone();
    let mut tx = app.db.read().await?;
    let rows = listing
        .run::<PolicyDoc>(&mut tx, Query::new(), None, &|p| common::view(&base, "policies", p))
        .await?;
    Ok(listing.reply("policies", rows))
}

/// GET /v3/policies/{policy_id}
pub(crate) async fn show(app: Arc<Identity>, req: Req) -> Result<Reply> {
    let (ctx, id, base) = (req.ctx()?.clone(), req.param("policy_id").to_owned(), req.base.clone());
    let found = fetch(&mut app.db.read().await?, &ctx, GetPolicy, &id).await?;
    Ok(Reply::ok(
        &json!({"policy": common::view(&base, "policies", &found.value)}),
    ))
}

/// POST /v3/policies
pub(crate) async fn create(app: Arc<Identity>, mut req: Req) -> Result<Reply> {
    let (ctx, base) = (req.ctx()?.clone(), req.base.clone());
    ctx.enforce("identity:create_policy", &Target::default())?;
    let mut body = common::body(&mut req, "policy", &CREATE).await?;
    let policy = PolicyDoc {
        id: id::hex(),
        kind: body.text("type").unwrap_or_default(),
        blob: body.text("blob").unwrap_or_default(),
        extra: body.rest(),
    };
    let asker = ctx.clone();
    let made = app
        .db
        .write(&ctx.actor(), async move |tx| {
            let grant = allow_create(&asker, CreatePolicy, &Target::default())?;
            tx.insert(&grant, &policy)
                .await?
                .ok_or_else(|| Error::internal("a new policy's id is taken"))
        })
        .await?;
    Ok(Reply::created(
        &json!({"policy": common::view(&base, "policies", &made.value)}),
    ))
}

/// PATCH /v3/policies/{policy_id}
pub(crate) async fn update(app: Arc<Identity>, mut req: Req) -> Result<Reply> {
    let (ctx, id, base) = (req.ctx()?.clone(), req.param("policy_id").to_owned(), req.base.clone());
    let body = common::body(&mut req, "policy", &UPDATE).await?;
    common::check_change(&body, &id, "policy")?;
    let asker = ctx.clone();
    let now = app
        .db
        .write(&ctx.actor(), async move |tx| {
            let found = fetch(tx, &asker, UpdatePolicy, &id).await?;
            let (mut body, mut value) = (body.clone(), found.edit());
            if let Some(kind) = body.text("type") {
                value.kind = kind;
            }
            if let Some(blob) = body.text("blob") {
                value.blob = blob;
            }
            value.extra.extend(body.rest());
            tx.update(&found, &value).await
        })
        .await?;
    Ok(Reply::ok(
        &json!({"policy": common::view(&base, "policies", &now.value)}),
    ))
}

/// DELETE /v3/policies/{policy_id}
pub(crate) async fn delete(app: Arc<Identity>, req: Req) -> Result<Reply> {
    let (ctx, id) = (req.ctx()?.clone(), req.param("policy_id").to_owned());
    let asker = ctx.clone();
    app.db
        .write(&ctx.actor(), async move |tx| {
            let found = fetch(tx, &asker, DeletePolicy, &id).await?;
            remove::associations(tx, "policy_id", &id).await?;
            tx.delete(&found).await
        })
        .await?;
    Ok(Reply::no_content())
}
