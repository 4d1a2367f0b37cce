//! /v3/regions, /v3/services and /v3/endpoints, to read (API reference: Identity API v3, "Regions",
//! "Service catalog and endpoints"). What is in the catalog follows the configuration.

use super::common::{self, Kind, Listing};
use crate::Identity;
use crate::model::{CatalogService, Endpoint, Region};
use crate::policy::{GetEndpoint, GetRegion, GetService};
use haneul_auth::{Target, fetch};
use haneul_core::Result;
use haneul_http::{Reply, Req};
use haneul_store::Query;
use serde_json::{Value, json};
use std::sync::Arc;

fn endpoint_view(base: &str, e: &Endpoint) -> Value {
    let mut doc = common::view(base, "endpoints", e);
    common::put(&mut doc, "region", e.region_id.clone().into());
    doc
}

fn service_view(base: &str, s: &CatalogService) -> Value {
    let mut doc = common::view(base, "services", s);
    if s.description.is_none() {
        common::remove(&mut doc, "description");
    }
    doc
}

/// GET /v3/regions
pub(crate) async fn regions(app: Arc<Identity>, req: Req) -> Result<Reply> {
    req.ctx()?.enforce("identity:list_regions", &Target::default())?;
    let listing = Listing::of(&req, &[("parent_region_id", Kind::Member)])?;
    drop(req);
    let base = listing.base.clone();
    let mut tx = app.db.read().await?;
    let rows = listing
        .run::<Region>(&mut tx, Query::new(), None, &|r| common::view(&base, "regions", r))
        .await?;
    Ok(listing.reply("regions", rows))
}

/// GET /v3/regions/{region_id}
pub(crate) async fn region(app: Arc<Identity>, req: Req) -> Result<Reply> {
    let (ctx, id, base) = (req.ctx()?.clone(), req.param("region_id").to_owned(), req.base.clone());
    let region = fetch(&mut app.db.read().await?, &ctx, GetRegion, &id).await?;
    Ok(Reply::ok(
        &json!({"region": common::view(&base, "regions", &region.value)}),
    ))
}

/// GET /v3/services
pub(crate) async fn services(app: Arc<Identity>, req: Req) -> Result<Reply> {
    req.ctx()?.enforce("identity:list_services", &Target::default())?;
    let listing = Listing::of(&req, &[("name", Kind::Column), ("type", Kind::Member)])?;
    drop(req);
    let base = listing.base.clone();
    let mut tx = app.db.read().await?;
    let rows = listing
        .run::<CatalogService>(&mut tx, Query::new(), None, &|s| service_view(&base, s))
        .await?;
    Ok(listing.reply("services", rows))
}

/// GET /v3/services/{service_id}
pub(crate) async fn service(app: Arc<Identity>, req: Req) -> Result<Reply> {
    let (ctx, id, base) = (req.ctx()?.clone(), req.param("service_id").to_owned(), req.base.clone());
    let service = fetch(&mut app.db.read().await?, &ctx, GetService, &id).await?;
    Ok(Reply::ok(&json!({"service": service_view(&base, &service)})))
}

/// GET /v3/endpoints
pub(crate) async fn endpoints(app: Arc<Identity>, req: Req) -> Result<Reply> {
    req.ctx()?.enforce("identity:list_endpoints", &Target::default())?;
    let listing = Listing::of(
        &req,
        &[
            ("interface", Kind::Column),
            ("service_id", Kind::Column),
            ("region_id", Kind::Column),
        ],
    )?;
    drop(req);
    let base = listing.base.clone();
    let mut tx = app.db.read().await?;
    let rows = listing
        .run::<Endpoint>(&mut tx, Query::new(), None, &|e| endpoint_view(&base, e))
        .await?;
    Ok(listing.reply("endpoints", rows))
}

/// GET /v3/endpoints/{endpoint_id}
pub(crate) async fn endpoint(app: Arc<Identity>, req: Req) -> Result<Reply> {
    let (ctx, id, base) = (
        req.ctx()?.clone(),
        req.param("endpoint_id").to_owned(),
        req.base.clone(),
    );
    let endpoint = fetch(&mut app.db.read().await?, &ctx, GetEndpoint, &id).await?;
    Ok(Reply::ok(&json!({"endpoint": endpoint_view(&base, &endpoint)})))
}
