//! /v3/registered_limits (API reference: Identity API v3, "Unified Limits").

use super::common::{self, Kind, Listing, NAME, TEXT, Take};
use crate::Identity;
use crate::model::{CatalogService, Limit, Region, RegisteredLimit};
use crate::policy::{CreateRegisteredLimits, DeleteRegisteredLimit, GetRegisteredLimit, UpdateRegisteredLimit};
use haneul_auth::{Target, allow_create, fetch};
use haneul_core::{Error, Result, id};
use haneul_http::{Body, FieldKind, Reply, Req, Ver, f, fields};
use haneul_store::{Query, Tx};
use http::StatusCode;
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// keystone/limit/schema.py: a whole number from -1, which is no limit.
pub(super) const AMOUNT: FieldKind = FieldKind::Check(|v| match v.as_i64() {
    Some(n) if (-1..=0x7fff_ffff).contains(&n) => Ok(()),
    _ => Err("It must be an integer from -1 (no limit) to 2147483647.".into()),
});
const PATH: &str = "registered_limits";
/// More are not made at once.
const MOST: usize = 1000;

static CREATE: Body = Body {
    open: false,
    fields: &[
        f("service_id", TEXT).req(),
        f("region_id", TEXT).null(),
        f("resource_name", NAME).req(),
        f("default_limit", AMOUNT).req(),
        f("description", TEXT).null(),
    ],
};
static UPDATE: Body = Body {
    open: false,
    fields: &[
        f("service_id", TEXT),
        f("region_id", TEXT).null(),
        f("resource_name", NAME),
        f("default_limit", AMOUNT),
        f("description", TEXT).null(),
    ],
};

/// The objects of a list under `wrapper`, each checked against its table.
pub(super) async fn list_body(req: &mut Req, wrapper: &str, table: &Body) -> Result<Vec<Map<String, Value>>> {
    let mut value = req.json().await?;
    let Some(Value::Array(items)) = value.get_mut(wrapper).map(Value::take) else {
        return Err(Error::field(
            wrapper,
            format!("Invalid input for field '{wrapper}': the request body must have the key '{wrapper}' with a list."),
        ));
    };
    if items.is_empty() || items.len() > MOST {
        return Err(Error::field(
            wrapper,
            format!(
                "Invalid input for field '{wrapper}': it has {} items, and 1 to {MOST} are allowed.",
                items.len()
            ),
        ));
    }
    let mut out = Vec::new();
    for (n, item) in items.into_iter().enumerate() {
        fields::check(table, &item, Ver(0, 0), &format!("{wrapper}.{n}"))?;
        if let Value::Object(map) = item {
            out.push(map);
        }
    }
    Ok(out)
}

/// Refuses a service or region that there is not. Keystone answers 400.
pub(super) async fn check_place(tx: &mut Tx, what: &str, service: &str, region: Option<&str>) -> Result<()> {
    let expecting = |name: &str, value: &str| {
        Err(Error::field(
            format!("{what}.{name}"),
            format!("Expecting to find {name} in {what}: there is no such one: {value}."),
        ))
    };
    if tx.find::<CatalogService>(service).await?.is_none() {
        return expecting("service_id", service);
    }
    if let Some(r) = region
        && tx.find::<Region>(r).await?.is_none()
    {
        return expecting("region_id", r);
    }
    Ok(())
}

/// The registered limit of a resource.
pub(super) async fn registered(
    tx: &mut Tx,
    service: &str,
    region: Option<&str>,
    resource: &str,
) -> Result<Option<RegisteredLimit>> {
    let query = Query::new()
        .eq("service_id", service)
        .eq("region_id", region.unwrap_or_default())
        .eq("resource_name", resource);
    Ok(tx
        .list::<RegisteredLimit>(&query)
        .await?
        .into_iter()
        .next()
        .map(|l| l.value))
}

fn clash() -> Error {
    common::conflict("registered_limit", "Duplicate entry")
}

/// GET /v3/registered_limits
pub(crate) async fn list(app: Arc<Identity>, req: Req) -> Result<Reply> {
    req.ctx()?
        .enforce("identity:list_registered_limits", &Target::default())?;
    let listing = Listing::of(
        &req,
        &[
            ("service_id", Kind::Column),
            ("region_id", Kind::Column),
            ("resource_name", Kind::Column),
        ],
    )?;
    drop(req);
    let base = listing.base.clone();
    let mut tx = app.db.read().await?;
    let rows = listing
        .run::<RegisteredLimit>(&mut tx, Query::new(), None, &|l| common::view(&base, PATH, l))
        .await?;
    Ok(listing.reply(PATH, rows))
}

/// GET /v3/registered_limits/{registered_limit_id}
pub(crate) async fn show(app: Arc<Identity>, req: Req) -> Result<Reply> {
    let (ctx, base) = (req.ctx()?.clone(), req.base.clone());
    let id = req.param("registered_limit_id").to_owned();
    let found = fetch(&mut app.db.read().await?, &ctx, GetRegisteredLimit, &id).await?;
    Ok(Reply::ok(
        &json!({"registered_limit": common::view(&base, PATH, &found.value)}),
    ))
}

/// POST /v3/registered_limits: all of the list, or none.
pub(crate) async fn create(app: Arc<Identity>, mut req: Req) -> Result<Reply> {
    let (ctx, base) = (req.ctx()?.clone(), req.base.clone());
    ctx.enforce("identity:create_registered_limits", &Target::default())?;
    let new: Vec<RegisteredLimit> = list_body(&mut req, PATH, &CREATE)
        .await?
        .into_iter()
        .map(|mut m| RegisteredLimit {
            id: id::hex(),
            default_limit: m.get("default_limit").and_then(Value::as_i64).unwrap_or(0),
            service_id: m.text("service_id").unwrap_or_default(),
            region_id: m.text("region_id"),
            resource_name: m.text("resource_name").unwrap_or_default(),
            description: m.text("description"),
        })
        .collect();
    let asker = ctx.clone();
    let made = app
        .db
        .write(&ctx.actor(), async move |tx| {
            let grant = allow_create(&asker, CreateRegisteredLimits, &Target::default())?;
            let mut made = Vec::new();
            for l in &new {
                check_place(tx, "registered_limit", &l.service_id, l.region_id.as_deref()).await?;
                made.push(tx.insert(&grant, l).await?.ok_or_else(clash)?.value);
            }
            Ok(made)
        })
        .await?;
    let made: Vec<Value> = made.iter().map(|l| common::view(&base, PATH, l)).collect();
    Ok(Reply::json(StatusCode::CREATED, &json!({ PATH: made })))
}

/// Refuses what would change under a limit that stands on it.
async fn unused(tx: &mut Tx, id: &str) -> Result<()> {
    match tx.count::<Limit>(&Query::new().eq("registered_limit_id", id)).await? {
        0 => Ok(()),
        n => Err(Error::forbidden(format!(
            "Unable to update or delete registered limit {id} because there are project limits associated with it: {n}. Delete these first."
        ))),
    }
}

/// PATCH /v3/registered_limits/{registered_limit_id}
pub(crate) async fn update(app: Arc<Identity>, mut req: Req) -> Result<Reply> {
    let (ctx, base) = (req.ctx()?.clone(), req.base.clone());
    let id = req.param("registered_limit_id").to_owned();
    let body = common::body(&mut req, "registered_limit", &UPDATE).await?;
    let asker = ctx.clone();
    let now = app
        .db
        .write(&ctx.actor(), async move |tx| {
            let found = fetch(tx, &asker, UpdateRegisteredLimit, &id).await?;
            unused(tx, &id).await?;
            let (mut body, mut value) = (body.clone(), found.edit());
            if let Some(s) = body.text("service_id") {
                value.service_id = s;
            }
            if let Some(r) = body.nullable("region_id") {
                value.region_id = r;
            }
            if let Some(n) = body.text("resource_name") {
                value.resource_name = n;
            }
            if let Some(n) = body.get("default_limit").and_then(Value::as_i64) {
                value.default_limit = n;
            }
            if let Some(d) = body.nullable("description") {
                value.description = d;
            }
            check_place(tx, "registered_limit", &value.service_id, value.region_id.as_deref()).await?;
            let same = registered(tx, &value.service_id, value.region_id.as_deref(), &value.resource_name).await?;
            if same.is_some_and(|l| l.id != id) {
                return Err(clash());
            }
            tx.update(&found, &value).await
        })
        .await?;
    Ok(Reply::ok(
        &json!({"registered_limit": common::view(&base, PATH, &now.value)}),
    ))
}

/// DELETE /v3/registered_limits/{registered_limit_id}
pub(crate) async fn delete(app: Arc<Identity>, req: Req) -> Result<Reply> {
    let (ctx, id) = (req.ctx()?.clone(), req.param("registered_limit_id").to_owned());
    let asker = ctx.clone();
    app.db
        .write(&ctx.actor(), async move |tx| {
            let found = fetch(tx, &asker, DeleteRegisteredLimit, &id).await?;
            unused(tx, &id).await?;
            tx.delete(&found).await
        })
        .await?;
    Ok(Reply::no_content())
}

/// What a new limit is registered as, or Keystone's refusal.
pub(super) async fn reference(
    tx: &mut Tx,
    service: &str,
    region: Option<&str>,
    resource: &str,
) -> Result<RegisteredLimit> {
    registered(tx, service, region, resource).await?.ok_or_else(|| {
        Error::forbidden(format!(
            "Unable to create a limit that has no corresponding registered limit: register {resource} of service {service} first."
        ))
    })
}
