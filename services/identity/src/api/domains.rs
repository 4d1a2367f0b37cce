//! /v3/domains (API reference: Identity API v3, "Domains").

use super::common::{self, ID, Kind, Listing, NAME64, OPTIONS, TAGS, TEXT, Take};
use crate::Identity;
use crate::logic::remove;
use crate::model::Domain;
use crate::policy::{CreateDomain, DeleteDomain, GetDomain, UpdateDomain};
use crate::store::{domain_by_name, revoke};
use haneul_auth::{Ctx, Target, allow_create, fetch};
use haneul_core::{Error, Result, id};
use haneul_http::{Body, Reply, Req, f};
use haneul_store::Query;
use serde_json::{Value, json};
use std::sync::Arc;

static CREATE: Body = Body {
    open: true,
    fields: &[
        f("name", NAME64).req(),
        f("explicit_domain_id", ID),
        f("description", TEXT).null(),
        f("enabled", common::STRICT_BOOL),
        f("tags", TAGS),
        f("options", OPTIONS),
    ],
};
static UPDATE: Body = Body {
    open: true,
    fields: &[
        f("name", NAME64),
        f("description", TEXT).null(),
        f("enabled", common::STRICT_BOOL),
        f("tags", TAGS),
        f("options", OPTIONS),
    ],
};

pub(crate) fn show_view(base: &str, d: &Domain) -> Value {
    common::view(base, "domains", d)
}

/// GET /v3/domains
pub(crate) async fn list(app: Arc<Identity>, req: Req) -> Result<Reply> {
    let ctx = req.ctx()?.clone();
    ctx.enforce("identity:list_domains", &common::list_target(&ctx))?;
    let listing = Listing::of(
        &req,
        &[
            ("name", Kind::Column),
            ("enabled", Kind::Flag),
            ("description", Kind::Member),
        ],
    )?;
    let mut query = Query::new();
    if let Some(own) = ctx.domain_scope() {
        query = query.eq("id", own);
    }
    let base = listing.base.clone();
    let mut tx = app.db.read().await?;
    let rows = listing
        .run::<Domain>(&mut tx, query, None, &|d| show_view(&base, d))
        .await?;
    Ok(listing.reply("domains", rows))
}

/// GET /v3/domains/{domain_id}
pub(crate) async fn show(app: Arc<Identity>, req: Req) -> Result<Reply> {
    let (ctx, id, base) = (req.ctx()?.clone(), req.param("domain_id").to_owned(), req.base.clone());
    let domain = fetch(&mut app.db.read().await?, &ctx, GetDomain, &id).await?;
    Ok(Reply::ok(&json!({"domain": show_view(&base, &domain)})))
}

/// The new domain of a body. Also made by POST /v3/projects with `is_domain`.
pub(crate) fn from_body(mut body: serde_json::Map<String, Value>) -> Domain {
    Domain {
        id: body.text("explicit_domain_id").unwrap_or_else(id::hex),
        name: body.text("name").unwrap_or_default().trim().to_owned(),
        description: body.nullable("description").unwrap_or_else(|| Some(String::new())),
        enabled: body.flag("enabled").unwrap_or(true),
        tags: body.texts("tags").unwrap_or_default(),
        options: common::new_options(&mut body),
        extra: body.rest(),
    }
}

pub(crate) fn clash(d: &Domain) -> Error {
    common::conflict(
        "project",
        format!(
            "it is not permitted to have two domains with the same name or id: name is {}, id {}",
            d.name, d.id
        ),
    )
}

/// POST /v3/domains
pub(crate) async fn create(app: Arc<Identity>, mut req: Req) -> Result<Reply> {
    let ctx = req.ctx()?.clone();
    let domain = from_body(common::body(&mut req, "domain", &CREATE).await?);
    let base = req.base.clone();
    let asker = ctx.clone();
    let made = app
        .db
        .write(&ctx.actor(), async move |tx| {
            let grant = allow_create(&asker, CreateDomain, &Target::default())?;
            tx.insert(&grant, &domain).await?.ok_or_else(|| clash(&domain))
        })
        .await?;
    Ok(Reply::created(&json!({"domain": show_view(&base, &made)})))
}

/// PATCH /v3/domains/{domain_id}
pub(crate) async fn update(app: Arc<Identity>, mut req: Req) -> Result<Reply> {
    let ctx = req.ctx()?.clone();
    let id = req.param("domain_id").to_owned();
    let body = common::body(&mut req, "domain", &UPDATE).await?;
    common::check_change(&body, &id, "domain")?;
    let base = req.base.clone();
    let now = apply(&app, &ctx, id, body).await?;
    Ok(Reply::ok(&json!({"domain": show_view(&base, &now)})))
}

/// Changes a domain by a checked body. Also done by PATCH /v3/projects/{project_id}.
pub(crate) async fn apply(
    app: &Arc<Identity>,
    ctx: &Ctx,
    id: String,
    body: serde_json::Map<String, Value>,
) -> Result<Domain> {
    let (this, asker) = (app.clone(), ctx.clone());
    app.db
        .write(&ctx.actor(), async move |tx| {
            let found = fetch(tx, &asker, UpdateDomain, &id).await?;
            common::check_immutable(&found.options, &body, "domain", &id)?;
            let mut body = body.clone();
            let mut value = found.edit();
            if let Some(name) = body.text("name").map(|n| n.trim().to_owned()) {
                if domain_by_name(tx, &name).await?.is_some_and(|d| d.id != id) {
                    return Err(clash(&Domain { name, ..value }));
                }
                value.name = name;
            }
            if let Some(d) = body.nullable("description") {
                value.description = d;
            }
            if let Some(e) = body.flag("enabled") {
                value.enabled = e;
            }
            if let Some(t) = body.texts("tags") {
                value.tags = t;
            }
            if let Some(o) = body.object("options") {
                common::merge_options(&mut value.options, o);
            }
            value.extra.extend(body.rest());
            if found.enabled && !value.enabled {
                revoke(tx, "domain", &id, this.config.token_seconds).await?;
            }
            this.invalidate(tx).await?;
            Ok(tx.update(&found, &value).await?.value)
        })
        .await
}

/// DELETE /v3/domains/{domain_id}
pub(crate) async fn delete(app: Arc<Identity>, req: Req) -> Result<Reply> {
    let ctx = req.ctx()?.clone();
    let id = req.param("domain_id").to_owned();
    drop(req);
    remove_one(&app, &ctx, id).await
}

/// Removes a domain. Also done by DELETE /v3/projects/{project_id}.
pub(crate) async fn remove_one(app: &Arc<Identity>, ctx: &Ctx, id: String) -> Result<Reply> {
    let (this, asker) = (app.clone(), ctx.clone());
    app.db
        .write(&ctx.actor(), async move |tx| {
            let found = fetch(tx, &asker, DeleteDomain, &id).await?;
            common::check_deletable(&found.options, "domain", &id)?;
            if found.enabled {
                return Err(Error::forbidden(
                    "You are not authorized to perform the requested action: Cannot delete a domain that is enabled, please disable it first (enabled: false).",
                ));
            }
            remove::domain_contents(tx, &id).await?;
            this.invalidate(tx).await?;
            tx.delete(&found).await
        })
        .await?;
    Ok(Reply::no_content())
}
