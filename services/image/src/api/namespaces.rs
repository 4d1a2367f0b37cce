//! `/v2/metadefs/namespaces` (Glance API reference, "Metadata definition namespaces") and
//! `/v2/schemas/metadefs`.

use super::listing::Listing;
use super::{json_body, metadef_view as view};
use crate::Images;
use crate::logic::namespaces;
use crate::model::metadef::Openness;
use crate::model::metadef_fields::parse_namespace;
use crate::model::metadef_schema;
use crate::policy::{GetNamespace, GetNamespaces, ListResourceTypes};
use crate::store::{associations_of, namespace_list, namespace_seen};
use haneul_auth::{Action, Ctx, Secured, Target};
use haneul_core::{Error, Result};
use haneul_http::{Reply, Req};
use haneul_store::Query;
use std::sync::Arc;

/// Resource types that one list may ask for.
const MAX_FILTER: usize = 100;

/// What a list may be sorted by.
const SORT_KEYS: &[(&str, &str)] = &[
    ("namespace", "name"),
    ("visibility", "visibility"),
    ("created_at", "created_at"),
    ("updated_at", "updated_at"),
    ("id", "id"),
];

/// The filters, and what the caller's project may see. Unknown filters are passed over, as in Glance.
fn filtered(ctx: &Ctx, req: &Req) -> Result<Query> {
    let mut query = Query::new();
    if !ctx.is_admin() {
        query = query.raw(
            "project_id IS NULL OR project_id = {} OR visibility = 'public'",
            vec![ctx.project_id().into()],
        );
    }
    if let Some(v) = req.q("visibility").filter(|v| !v.is_empty()) {
        if Openness::parse(v).is_none() {
            return Err(Error::field(
                "visibility",
                format!("Invalid visibility value: {v}. It must be public or private."),
            ));
        }
        query = query.eq("visibility", v);
    }
    if let Some(types) = req.q("resource_types") {
        let types: Vec<&str> = types.split(',').collect();
        if types.len() > MAX_FILTER {
            return Err(Error::field(
                "resource_types",
                format!(
                    "It names {} resource types, and at most {MAX_FILTER} are allowed.",
                    types.len()
                ),
            ));
        }
        let places = vec!["{}"; types.len()].join(", ");
        query = query.raw(
            &format!("id IN (SELECT namespace_id FROM metadef_association WHERE name IN ({places}))"),
            types.into_iter().map(Into::into).collect(),
        );
    }
    Ok(query)
}

pub(super) async fn index(app: Arc<Images>, req: Req) -> Result<Reply> {
    let ctx = req.ctx()?;
    let listing = Listing::of(&req, SORT_KEYS)?;
    let query = filtered(ctx, &req)?;
    for rule in [GetNamespaces::RULE, ListResourceTypes::RULE] {
        ctx.enforce(rule, &Target::own(ctx))?;
    }
    let mut tx = app.db.read().await?;
    let marker = match &listing.marker {
        Some(name) => Some(namespace_seen(&mut tx, ctx, name).await?),
        None => None,
    };
    let query = listing.order(query, marker.as_ref()).limit(listing.limit() + 1);
    let mut found = namespace_list(&mut tx, &query).await?;
    let page = usize::try_from(listing.limit()).unwrap_or(0);
    let more = page > 0 && found.len() > page;
    found.truncate(page);
    let next = found.last().filter(|_| more).map(|n| n.name.clone());
    // The WHERE is the scope; an operator's own rule narrows it further.
    found.retain(|n| ctx.may(GetNamespace::RULE, &n.target()));
    let associations = associations_of(&mut tx, &found).await?;
    drop(tx);
    let next = next.as_deref();
    Ok(Reply::ok(&view::namespaces(&found, &associations, &req.query, next)))
}

pub(super) async fn create(app: Arc<Images>, mut req: Req) -> Result<Reply> {
    let ctx = req.ctx()?.clone();
    let request = parse_namespace(&json_body(&mut req).await?)?;
    let made = namespaces::create(&app, &ctx, request).await?;
    let location = format!("{}{}", req.base, view::namespace_path(&made.namespace.name));
    Ok(Reply::created(&view::whole(&made, None)).header("location", location))
}

pub(super) async fn show(app: Arc<Images>, req: Req) -> Result<Reply> {
    let found = namespaces::show(&app, req.ctx()?, req.param("namespace")).await?;
    Ok(Reply::ok(&view::whole(&found, req.q("resource_type"))))
}

pub(super) async fn update(app: Arc<Images>, mut req: Req) -> Result<Reply> {
    let ctx = req.ctx()?.clone();
    let request = parse_namespace(&json_body(&mut req).await?)?;
    let changed = namespaces::update(&app, &ctx, req.param("namespace"), request).await?;
    Ok(Reply::ok(&view::namespace(&changed)))
}

pub(super) async fn delete(app: Arc<Images>, req: Req) -> Result<Reply> {
    namespaces::delete(&app, req.ctx()?, req.param("namespace")).await?;
    Ok(Reply::no_content())
}

/// One of the ten documents.
pub(super) async fn schema(_app: Arc<Images>, req: Req) -> Result<Reply> {
    let name = req.uri_path.rsplit('/').next().unwrap_or_default();
    metadef_schema(name)
        .map(|s| Reply::ok(&s))
        .ok_or_else(|| Error::not_found(format!("There is no schema metadefs/{name}.")))
}
