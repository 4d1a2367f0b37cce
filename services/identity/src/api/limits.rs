//! /v3/limits (API reference: Identity API v3, "Unified Limits").

use super::common::{self, Kind, Listing, NAME, TEXT, Take};
use super::registered_limits::{AMOUNT, check_place, list_body, reference};
use crate::Identity;
use crate::logic::limits::{MODELS, STRICT, check_strict};
use crate::model::{Domain, Limit, Project};
use crate::policy::{CreateLimits, DeleteLimit, GetLimit, UpdateLimit};
use haneul_auth::{Ctx, ScopeKind, Target, allow_create, fetch};
use haneul_core::{Error, Result, id};
use haneul_http::{Body, Reply, Req, f};
use haneul_store::{Query, Tx};
use http::StatusCode;
use serde_json::{Value, json};
use std::sync::Arc;

const PATH: &str = "limits";
static CREATE: Body = Body {
    open: false,
    fields: &[
        f("project_id", TEXT).null(),
        f("domain_id", TEXT).null(),
        f("service_id", TEXT).req(),
        f("region_id", TEXT).null(),
        f("resource_name", NAME).req(),
        f("resource_limit", AMOUNT).req(),
        f("description", TEXT).null(),
    ],
};
static UPDATE: Body = Body {
    open: false,
    fields: &[f("resource_limit", AMOUNT), f("description", TEXT).null()],
};

fn view(base: &str, l: &Limit) -> Value {
    let mut doc = common::view(base, PATH, l);
    for own in ["registered_limit_id", "project_domain_id"] {
        common::remove(&mut doc, own);
    }
    doc
}

/// GET /v3/limits/model
pub(crate) async fn model(app: Arc<Identity>, req: Req) -> Result<Reply> {
    req.ctx()?.enforce("identity:get_limit_model", &Target::default())?;
    let (name, description) = MODELS
        .into_iter()
        .find(|(name, _)| *name == app.config.limit_model)
        .ok_or_else(|| Error::internal("identity.limit_model is none of the models"))?;
    Ok(Reply::ok(&json!({"model": {"name": name, "description": description}})))
}

/// Whether the caller sees a limit in lists: who manages the cloud, all; others those of their scope.
fn sees(ctx: &Ctx, l: &Limit) -> bool {
    if ctx.is_system() || ctx.is_admin() || ctx.has_role("service") {
        return true;
    }
    match &ctx.scope {
        ScopeKind::Domain { id, .. } => l.domain_id.as_ref() == Some(id) || l.project_domain_id.as_ref() == Some(id),
        ScopeKind::Project { id, .. } => l.project_id.as_ref() == Some(id),
        _ => false,
    }
}

/// GET /v3/limits
pub(crate) async fn list(app: Arc<Identity>, req: Req) -> Result<Reply> {
    let ctx = req.ctx()?.clone();
    ctx.enforce("identity:list_limits", &Target::default())?;
    let listing = Listing::of(
        &req,
        &[
            ("service_id", Kind::Member),
            ("region_id", Kind::Member),
            ("resource_name", Kind::Member),
            ("project_id", Kind::Column),
            ("domain_id", Kind::Column),
        ],
    )?;
    drop(req);
    let base = listing.base.clone();
    let mut tx = app.db.read().await?;
    let keep = |l: &Limit| sees(&ctx, l);
    let rows = listing
        .run::<Limit>(&mut tx, Query::new(), Some(&keep), &|l| view(&base, l))
        .await?;
    Ok(listing.reply(PATH, rows))
}

/// GET /v3/limits/{limit_id}
pub(crate) async fn show(app: Arc<Identity>, req: Req) -> Result<Reply> {
    let (ctx, id, base) = (req.ctx()?.clone(), req.param("limit_id").to_owned(), req.base.clone());
    let found = fetch(&mut app.db.read().await?, &ctx, GetLimit, &id).await?;
    Ok(Reply::ok(&json!({"limit": view(&base, &found)})))
}

/// Fills in what the limit is for, or refuses.
async fn place(tx: &mut Tx, l: &mut Limit) -> Result<()> {
    check_place(tx, "limit", &l.service_id, l.region_id.as_deref()).await?;
    let expecting = |name: &str, value: &str| {
        Err(Error::field(
            format!("limit.{name}"),
            format!("Expecting to find {name} in limit: there is no such one: {value}."),
        ))
    };
    // A domain is a project, too.
    if let Some(id) = l.project_id.clone() {
        match tx.find::<Project>(&id).await? {
            Some(p) => l.project_domain_id = Some(p.domain_id.clone()),
            None if tx.find::<Domain>(&id).await?.is_some() => l.domain_id = l.project_id.take(),
            None => return expecting("project_id", &id),
        }
    }
    if let Some(id) = &l.domain_id
        && tx.find::<Domain>(id).await?.is_none()
    {
        return expecting("domain_id", id);
    }
    let registered = reference(tx, &l.service_id, l.region_id.as_deref(), &l.resource_name).await?;
    l.registered_limit_id = registered.id;
    Ok(())
}

/// POST /v3/limits: all of the list, or none.
pub(crate) async fn create(app: Arc<Identity>, mut req: Req) -> Result<Reply> {
    let (ctx, base) = (req.ctx()?.clone(), req.base.clone());
    ctx.enforce("identity:create_limits", &Target::default())?;
    let mut new = Vec::new();
    for (n, mut m) in list_body(&mut req, PATH, &CREATE).await?.into_iter().enumerate() {
        let limit = Limit {
            id: id::hex(),
            registered_limit_id: String::new(),
            resource_limit: m.get("resource_limit").and_then(Value::as_i64).unwrap_or(0),
            project_id: m.text("project_id"),
            domain_id: m.text("domain_id"),
            project_domain_id: None,
            service_id: m.text("service_id").unwrap_or_default(),
            region_id: m.text("region_id"),
            resource_name: m.text("resource_name").unwrap_or_default(),
            description: m.text("description"),
        };
        if limit.project_id.is_some() == limit.domain_id.is_some() {
            return Err(Error::field(
                format!("limits.{n}"),
                format!(
                    "Invalid input for field 'limits.{n}': a limit is for a project or for a domain: give project_id or domain_id, and not both."
                ),
            ));
        }
        new.push(limit);
    }
    let strict = app.config.limit_model == STRICT;
    let asker = ctx.clone();
    let made = app
        .db
        .write(&ctx.actor(), async move |tx| {
            let grant = allow_create(&asker, CreateLimits, &Target::default())?;
            let mut made = Vec::new();
            for l in &new {
                let mut l = l.clone();
                place(tx, &mut l).await?;
                let stored = tx.insert(&grant, &l).await?;
                made.push(
                    stored
                        .ok_or_else(|| common::conflict("limit", "Duplicate entry"))?
                        .value,
                );
            }
            if strict {
                for l in &made {
                    check_strict(tx, l).await?;
                }
            }
            Ok(made)
        })
        .await?;
    let made: Vec<Value> = made.iter().map(|l| view(&base, l)).collect();
    Ok(Reply::json(StatusCode::CREATED, &json!({ PATH: made })))
}

/// PATCH /v3/limits/{limit_id}
pub(crate) async fn update(app: Arc<Identity>, mut req: Req) -> Result<Reply> {
    let (ctx, id, base) = (req.ctx()?.clone(), req.param("limit_id").to_owned(), req.base.clone());
    let body = common::body(&mut req, "limit", &UPDATE).await?;
    let strict = app.config.limit_model == STRICT;
    let asker = ctx.clone();
    let now = app
        .db
        .write(&ctx.actor(), async move |tx| {
            let found = fetch(tx, &asker, UpdateLimit, &id).await?;
            let (mut body, mut value) = (body.clone(), found.edit());
            if let Some(n) = body.get("resource_limit").and_then(Value::as_i64) {
                value.resource_limit = n;
            }
            if let Some(d) = body.nullable("description") {
                value.description = d;
            }
            if strict {
                check_strict(tx, &value).await?;
            }
            tx.update(&found, &value).await
        })
        .await?;
    Ok(Reply::ok(&json!({"limit": view(&base, &now)})))
}

/// DELETE /v3/limits/{limit_id}
pub(crate) async fn delete(app: Arc<Identity>, req: Req) -> Result<Reply> {
    let (ctx, id) = (req.ctx()?.clone(), req.param("limit_id").to_owned());
    let asker = ctx.clone();
    app.db
        .write(&ctx.actor(), async move |tx| {
            let found = fetch(tx, &asker, DeleteLimit, &id).await?;
            tx.delete(&found).await
        })
        .await?;
    Ok(Reply::no_content())
}
