//! /v3/regions, /v3/services and /v3/endpoints (API reference: Identity API v3, "Regions", "Service catalog
//! and endpoints"). Each change ends what was cached of the catalog: the next token shows it.

use super::common::{self, Kind, Listing, STRICT_BOOL, TEXT, Take};
use crate::Identity;
use crate::logic::remove;
use crate::model::{CatalogService, Endpoint, Region, missing};
use crate::policy::{
    CreateEndpoint, CreateRegion, CreateService, DeleteEndpoint, DeleteRegion, DeleteService, GetEndpoint, GetRegion,
    GetService, UpdateEndpoint, UpdateRegion, UpdateService,
};
use haneul_auth::{Target, allow_create, fetch};
use haneul_core::{Error, Result, id};
use haneul_http::{Body, FieldKind, Reply, Req, f};
use haneul_store::{Query, Stored, System, Tx};
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// keystone/api/validation/parameter_types.py, `region_id`.
const REGION_ID: FieldKind = FieldKind::Str { min: 1, max: 255 };
const NAME: FieldKind = FieldKind::Str { min: 1, max: 255 };
const INTERFACE: FieldKind = FieldKind::OneOf(&["admin", "internal", "public"]);
/// keystone/catalog/schema.py: a scheme, a colon, something; keystone/common/utils.py, `check_endpoint_url`: only
/// substitutions that a catalog fills in.
const URL: FieldKind = FieldKind::Check(|v| match v.as_str() {
    None => Err("It must be a string.".into()),
    Some(s) if s.chars().count() > 225 => Err(format!(
        "It is too long: {} characters, and at most 225 are allowed.",
        s.chars().count()
    )),
    Some(s) => {
        let scheme = |c: char| c.is_ascii_alphanumeric() || "+.-".contains(c);
        match s.split_once(':') {
            Some((head, rest)) if !head.is_empty() && head.chars().all(scheme) && !rest.is_empty() => {
                crate::logic::catalog::check_template(s)
            }
            _ => Err("It must be a URL: a scheme, a colon, and what it leads to.".into()),
        }
    }
});

static REGION: Body = Body {
    open: true,
    fields: &[
        f("id", REGION_ID).null(),
        f("description", TEXT).null(),
        f("parent_region_id", REGION_ID).null(),
    ],
};
/// A service or an endpoint gets an id of its own, whichever the body names.
static SERVICE_CREATE: Body = Body {
    open: true,
    fields: &[
        f("id", TEXT),
        f("type", NAME).req(),
        f("name", NAME),
        f("description", TEXT).null(),
        f("enabled", STRICT_BOOL),
    ],
};
static SERVICE_UPDATE: Body = Body {
    open: true,
    fields: &[
        f("type", NAME),
        f("name", NAME),
        f("description", TEXT).null(),
        f("enabled", STRICT_BOOL),
    ],
};
static ENDPOINT_CREATE: Body = Body {
    open: true,
    fields: &[
        f("id", TEXT),
        f("interface", INTERFACE).req(),
        f("service_id", TEXT).req(),
        f("url", URL).req(),
        f("region_id", REGION_ID).null(),
        f("region", REGION_ID).null(),
        f("enabled", STRICT_BOOL),
        f("name", TEXT),
        f("description", TEXT).null(),
    ],
};
static ENDPOINT_UPDATE: Body = Body {
    open: true,
    fields: &[
        f("interface", INTERFACE),
        f("service_id", TEXT),
        f("url", URL),
        f("region_id", REGION_ID).null(),
        f("region", REGION_ID).null(),
        f("enabled", STRICT_BOOL),
        f("name", TEXT),
        f("description", TEXT).null(),
    ],
};

pub(crate) fn endpoint_view(base: &str, e: &Endpoint) -> Value {
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

/// Refuses a parent that is not there, or below the region itself.
async fn check_parent(tx: &mut Tx, id: &str, parent: Option<&str>) -> Result<()> {
    let mut at = parent.map(str::to_owned);
    let mut seen = 0;
    while let Some(above) = at.take() {
        // The bound is against a damaged table.
        if above == id || seen > 1000 {
            return Err(Error::field(
                "region.parent_region_id",
                format!(
                    "The specified parent region {} would create a circular region hierarchy.",
                    parent.unwrap_or_default()
                ),
            ));
        }
        let Some(region) = tx.find::<Region>(&above).await? else {
            return Err(missing("region", &above).with_field("region.parent_region_id"));
        };
        at = region.value.parent_region_id;
        seen += 1;
    }
    Ok(())
}

async fn make_region(app: Arc<Identity>, mut req: Req, asked: Option<String>) -> Result<Reply> {
    let (ctx, base) = (req.ctx()?.clone(), req.base.clone());
    ctx.enforce("identity:create_region", &Target::default())?;
    let mut body = common::body(&mut req, "region", &REGION).await?;
    let named = body.text("id").filter(|s| !s.is_empty());
    if let (Some(url), Some(body)) = (&asked, &named)
        && url != body
    {
        return Err(Error::field(
            "region.id",
            format!("Conflicting region IDs specified: \"{url}\" != \"{body}\". Leave the one in the body out."),
        ));
    }
    let id = asked.or(named).unwrap_or_else(id::hex);
    if id.chars().count() > 255 {
        return Err(Error::field(
            "region.id",
            "The id of a region has at most 255 characters.",
        ));
    }
    let region = Region {
        id,
        description: body.text("description").unwrap_or_default(),
        parent_region_id: body.text("parent_region_id"),
        extra: body.rest(),
    };
    let (this, asker) = (app.clone(), ctx.clone());
    let made = app
        .db
        .write(&ctx.actor(), async move |tx| {
            let grant = allow_create(&asker, CreateRegion, &Target::default())?;
            if tx.find::<Region>(&region.id).await?.is_none() {
                check_parent(tx, &region.id, region.parent_region_id.as_deref()).await?;
            }
            this.invalidate(tx).await?;
            tx.insert(&grant, &region)
                .await?
                .ok_or_else(|| common::conflict("region", format!("Duplicate ID, {}", region.id)))
        })
        .await?;
    Ok(Reply::created(
        &json!({"region": common::view(&base, "regions", &made.value)}),
    ))
}

/// POST /v3/regions
pub(crate) async fn create_region(app: Arc<Identity>, req: Req) -> Result<Reply> {
    make_region(app, req, None).await
}

/// PUT /v3/regions/{region_id}
pub(crate) async fn put_region(app: Arc<Identity>, req: Req) -> Result<Reply> {
    let id = req.param("region_id").to_owned();
    make_region(app, req, Some(id)).await
}

/// PATCH /v3/regions/{region_id}
pub(crate) async fn update_region(app: Arc<Identity>, mut req: Req) -> Result<Reply> {
    let (ctx, id, base) = (req.ctx()?.clone(), req.param("region_id").to_owned(), req.base.clone());
    let body = common::body(&mut req, "region", &REGION).await?;
    common::check_change(&body, &id, "region")?;
    let (this, asker) = (app.clone(), ctx.clone());
    let now = app
        .db
        .write(&ctx.actor(), async move |tx| {
            let found = fetch(tx, &asker, UpdateRegion, &id).await?;
            let (mut body, mut value) = (body.clone(), found.edit());
            if let Some(d) = body.nullable("description") {
                value.description = d.unwrap_or_default();
            }
            if let Some(p) = body.nullable("parent_region_id") {
                check_parent(tx, &id, p.as_deref()).await?;
                value.parent_region_id = p;
            }
            value.extra.extend(body.rest());
            this.invalidate(tx).await?;
            tx.update(&found, &value).await
        })
        .await?;
    Ok(Reply::ok(
        &json!({"region": common::view(&base, "regions", &now.value)}),
    ))
}

/// The regions below one, with those further down.
async fn below(tx: &mut Tx, id: &str) -> Result<Vec<Stored<Region>>> {
    let all = tx.list::<Region>(&Query::new()).await?;
    let mut out: Vec<Stored<Region>> = Vec::new();
    let mut todo = vec![id.to_owned()];
    while let Some(at) = todo.pop() {
        for r in all.iter().filter(|r| r.parent_region_id.as_deref() == Some(&at)) {
            if r.id != id && !out.iter().any(|o| o.id == r.id) {
                todo.push(r.id.clone());
                out.push(r.clone());
            }
        }
    }
    Ok(out)
}

/// DELETE /v3/regions/{region_id}. The regions below it go with it; none of them may have an endpoint.
pub(crate) async fn delete_region(app: Arc<Identity>, req: Req) -> Result<Reply> {
    let (ctx, id) = (req.ctx()?.clone(), req.param("region_id").to_owned());
    common::delete(app, &ctx, id, DeleteRegion, async |tx: &mut Tx, r: &Region| {
        let id = &r.id;
        let below = below(tx, id).await?;
        let ids: Vec<&str> = below.iter().map(|r| r.id.as_str()).chain([id.as_str()]).collect();
        let held = tx.count::<Endpoint>(&Query::new().is_in("region_id", ids)).await?;
        if held > 0 {
            return Err(Error::forbidden(format!(
                "Unable to delete region {id} because it or its child regions have associated endpoints: {held}. Delete or move these first."
            )));
        }
        for r in below {
            remove::associations(tx, "region_id", &r.id).await?;
            remove::registered_limits(tx, "region_id", &r.id).await?;
            tx.delete(&System::of(r)).await?;
        }
        remove::associations(tx, "region_id", id).await?;
        remove::registered_limits(tx, "region_id", id).await
    })
    .await
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

/// POST /v3/services
pub(crate) async fn create_service(app: Arc<Identity>, mut req: Req) -> Result<Reply> {
    let (ctx, base) = (req.ctx()?.clone(), req.base.clone());
    ctx.enforce("identity:create_service", &Target::default())?;
    let mut body = common::body(&mut req, "service", &SERVICE_CREATE).await?;
    let service = CatalogService {
        id: id::hex(),
        name: body.text("name").unwrap_or_default(),
        kind: body.text("type").unwrap_or_default(),
        enabled: body.flag("enabled").unwrap_or(true),
        description: body.text("description"),
        extra: body.rest(),
    };
    let (this, asker) = (app.clone(), ctx.clone());
    let made = app
        .db
        .write(&ctx.actor(), async move |tx| {
            let grant = allow_create(&asker, CreateService, &Target::default())?;
            this.invalidate(tx).await?;
            tx.insert(&grant, &service)
                .await?
                .ok_or_else(|| Error::internal("a new service's id is taken"))
        })
        .await?;
    Ok(Reply::created(&json!({"service": service_view(&base, &made)})))
}

/// PATCH /v3/services/{service_id}
pub(crate) async fn update_service(app: Arc<Identity>, mut req: Req) -> Result<Reply> {
    let (ctx, id, base) = (req.ctx()?.clone(), req.param("service_id").to_owned(), req.base.clone());
    let body = common::body(&mut req, "service", &SERVICE_UPDATE).await?;
    common::check_change(&body, &id, "service")?;
    let (this, asker) = (app.clone(), ctx.clone());
    let now = app
        .db
        .write(&ctx.actor(), async move |tx| {
            let found = fetch(tx, &asker, UpdateService, &id).await?;
            let (mut body, mut value) = (body.clone(), found.edit());
            if let Some(name) = body.text("name") {
                value.name = name;
            }
            if let Some(kind) = body.text("type") {
                value.kind = kind;
            }
            if let Some(d) = body.nullable("description") {
                value.description = d;
            }
            if let Some(enabled) = body.flag("enabled") {
                value.enabled = enabled;
            }
            value.extra.extend(body.rest());
            this.invalidate(tx).await?;
            tx.update(&found, &value).await
        })
        .await?;
    Ok(Reply::ok(&json!({"service": service_view(&base, &now)})))
}

/// DELETE /v3/services/{service_id}. Its endpoints go with it.
pub(crate) async fn delete_service(app: Arc<Identity>, req: Req) -> Result<Reply> {
    let (ctx, id) = (req.ctx()?.clone(), req.param("service_id").to_owned());
    common::delete(app, &ctx, id, DeleteService, async |tx: &mut Tx, c: &CatalogService| {
        for e in tx
            .list::<Endpoint>(&Query::new().eq("service_id", c.id.as_str()))
            .await?
        {
            remove::filters(tx, "target_id", &e.id).await?;
            remove::associations(tx, "endpoint_id", &e.id).await?;
            tx.delete(&System::of(e)).await?;
        }
        remove::associations(tx, "service_id", &c.id).await?;
        remove::registered_limits(tx, "service_id", &c.id).await
    })
    .await
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

/// The region that a body names. One that is named by the old word `region` is made when it is not there, as
/// Keystone does for clients of the second version.
async fn named_region(tx: &mut Tx, body: &mut Map<String, Value>) -> Result<Option<Option<String>>> {
    let (id, old) = (body.nullable("region_id"), body.text("region"));
    match (id, old) {
        (Some(Some(id)), _) => match tx.find::<Region>(&id).await? {
            Some(_) => Ok(Some(Some(id))),
            None => Err(Error::field(
                "endpoint.region_id",
                format!(
                    "Expecting to find endpoint region_id in region table: there is no region {id}. Make it first, or name one of GET /v3/regions."
                ),
            )),
        },
        (_, Some(name)) => {
            if tx.find::<Region>(&name).await?.is_none() {
                let region = Region {
                    id: name.clone(),
                    description: String::new(),
                    parent_region_id: None,
                    extra: Map::new(),
                };
                tx.insert(&System::create(), &region).await?;
            }
            Ok(Some(Some(name)))
        }
        (Some(None), None) => Ok(Some(None)),
        (None, None) => Ok(None),
    }
}

async fn check_service(tx: &mut Tx, id: &str) -> Result<()> {
    match tx.find::<CatalogService>(id).await? {
        Some(_) => Ok(()),
        None => Err(Error::field(
            "endpoint.service_id",
            format!(
                "Expecting to find endpoint service_id in service table: there is no service {id}. Name one of GET /v3/services."
            ),
        )),
    }
}

/// What is left of a body: an endpoint's name and description are attributes of its own, as in Keystone.
fn endpoint_extra(mut body: Map<String, Value>) -> Map<String, Value> {
    let own: Vec<(String, Value)> = ["name", "description"]
        .into_iter()
        .filter_map(|n| Some((n.to_owned(), body.remove(n)?)))
        .collect();
    let mut out = body.rest();
    out.extend(own);
    out
}

/// POST /v3/endpoints
pub(crate) async fn create_endpoint(app: Arc<Identity>, mut req: Req) -> Result<Reply> {
    let (ctx, base) = (req.ctx()?.clone(), req.base.clone());
    ctx.enforce("identity:create_endpoint", &Target::default())?;
    let body = common::body(&mut req, "endpoint", &ENDPOINT_CREATE).await?;
    let new = id::hex();
    let (this, asker) = (app.clone(), ctx.clone());
    let made = app
        .db
        .write(&ctx.actor(), async move |tx| {
            let grant = allow_create(&asker, CreateEndpoint, &Target::default())?;
            let mut body = body.clone();
            let service_id = body.text("service_id").unwrap_or_default();
            check_service(tx, &service_id).await?;
            let endpoint = Endpoint {
                id: new.clone(),
                service_id,
                region_id: named_region(tx, &mut body).await?.flatten(),
                interface: body.text("interface").unwrap_or_default(),
                url: body.text("url").unwrap_or_default(),
                enabled: body.flag("enabled").unwrap_or(true),
                extra: endpoint_extra(body),
            };
            this.invalidate(tx).await?;
            tx.insert(&grant, &endpoint)
                .await?
                .ok_or_else(|| Error::internal("a new endpoint's id is taken"))
        })
        .await?;
    Ok(Reply::created(&json!({"endpoint": endpoint_view(&base, &made)})))
}

/// PATCH /v3/endpoints/{endpoint_id}
pub(crate) async fn update_endpoint(app: Arc<Identity>, mut req: Req) -> Result<Reply> {
    let (ctx, id, base) = (
        req.ctx()?.clone(),
        req.param("endpoint_id").to_owned(),
        req.base.clone(),
    );
    let body = common::body(&mut req, "endpoint", &ENDPOINT_UPDATE).await?;
    common::check_change(&body, &id, "endpoint")?;
    let (this, asker) = (app.clone(), ctx.clone());
    let now = app
        .db
        .write(&ctx.actor(), async move |tx| {
            let found = fetch(tx, &asker, UpdateEndpoint, &id).await?;
            let (mut body, mut value) = (body.clone(), found.edit());
            if let Some(s) = body.text("service_id") {
                check_service(tx, &s).await?;
                value.service_id = s;
            }
            if let Some(r) = named_region(tx, &mut body).await? {
                value.region_id = r;
            }
            if let Some(i) = body.text("interface") {
                value.interface = i;
            }
            if let Some(u) = body.text("url") {
                value.url = u;
            }
            if let Some(e) = body.flag("enabled") {
                value.enabled = e;
            }
            value.extra.extend(endpoint_extra(body));
            this.invalidate(tx).await?;
            tx.update(&found, &value).await
        })
        .await?;
    Ok(Reply::ok(&json!({"endpoint": endpoint_view(&base, &now)})))
}

/// DELETE /v3/endpoints/{endpoint_id}
pub(crate) async fn delete_endpoint(app: Arc<Identity>, req: Req) -> Result<Reply> {
    let (ctx, id) = (req.ctx()?.clone(), req.param("endpoint_id").to_owned());
    common::delete(app, &ctx, id, DeleteEndpoint, async |tx: &mut Tx, e: &Endpoint| {
        remove::filters(tx, "target_id", &e.id).await?;
        remove::associations(tx, "endpoint_id", &e.id).await
    })
    .await
}
