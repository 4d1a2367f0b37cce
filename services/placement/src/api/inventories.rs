//! Inventories (Placement API reference, "Resource provider inventories").

use super::allocations::is_name;
use super::providers::{GENERATION, bump, same_generation};
use super::{CONCURRENT, body_for, cached, check, json_only, quoted, whole};
use crate::names::{CLASSES, Names};
use crate::{Inventory, Placement, policy};
use haneul_auth::fetch;
use haneul_core::{Error, Kind, Result, clock};
use haneul_http::{Body, FieldKind as K, Reply, Req, Ver, f, fields};
use haneul_store::Tx;
use http::StatusCode;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const MAX: i64 = i32::MAX as i64;
const UNIT: K = K::Check(whole::<1, MAX>);

fn ratio(v: &Value) -> Result<(), String> {
    match v.as_f64() {
        Some(r) if r <= 0.0 => Err(format!("{r} is less than the minimum of what is above 0.")),
        Some(r) if r > 3.402_82e38 => Err(format!("{r} is greater than the maximum of 3.40282e+38.")),
        Some(_) if v.is_number() => Ok(()),
        _ => Err(format!("{} is not of type 'number'.", quoted(v))),
    }
}

macro_rules! inventory {
    ($($more:expr),*) => {
        Body {
            open: false,
            fields: &[
                f("total", UNIT).req(),
                f("reserved", K::Check(whole::<0, MAX>)),
                f("min_unit", UNIT),
                f("max_unit", UNIT),
                f("step_size", UNIT),
                f("allocation_ratio", K::Check(ratio)),
                $($more),*
            ],
        }
    };
}
static NEW: Body = inventory!(
    f("resource_provider_generation", GENERATION),
    f("resource_class", K::Str { min: 1, max: 255 }).req()
);
static ONE: Body = inventory!(f("resource_provider_generation", GENERATION).req());
/// One of [`ALL`].
static RECORD: Body = inventory!(f("resource_provider_generation", GENERATION));
static ALL: Body = Body {
    open: false,
    fields: &[
        f("resource_provider_generation", GENERATION).req(),
        f("inventories", K::Free).req(),
    ],
};

pub(super) fn inventory_of(v: &Value, path: &str) -> Result<Inventory> {
    serde_json::from_value(v.clone())
        .map_err(|e| Error::field(path, format!("Invalid input for field/attribute {path}. {e}")))
}

/// Refuses what leaves nothing to give. Reserving everything is allowed from 1.26 on.
fn leaves_some(about: &str, uuid: &str, class: &str, i: &Inventory, version: Ver) -> Result<()> {
    let (least, why) = if version < Ver(1, 26) {
        (1, "greater than or equal to total")
    } else {
        (0, "greater than total")
    };
    if i.capacity() >= least {
        return Ok(());
    }
    Err(Error::field(
        class,
        format!(
            "{about} {uuid}: Invalid inventory for '{class}' on resource provider '{uuid}'. The reserved value is {why}: of total {}, reserved {} and allocation_ratio {} a capacity of {} is left, and it must be at least {least}.",
            i.total,
            i.reserved,
            i.allocation_ratio,
            i.capacity()
        ),
    ))
}

/// The records of a body that replaces all inventories of a provider.
pub(super) fn many(body: &Value, version: Ver, path: &str) -> Result<BTreeMap<String, Value>> {
    check(&ALL, body, version, path)?;
    let bad = |why: &str| Error::field("inventories", format!("JSON does not validate: inventories {why}"));
    let map = body["inventories"]
        .as_object()
        .ok_or_else(|| bad("must be an object by resource class, and is not of type 'object'."))?;
    for (class, v) in map {
        if !is_name(class) {
            return Err(bad(&format!(
                "'{class}' does not match any of the regexes: '^[A-Z0-9_]+$'"
            )));
        }
        check(&RECORD, v, version, &format!("inventories.{class}"))?;
    }
    Ok(map.iter().map(|(c, v)| (c.clone(), v.clone())).collect())
}

fn view(i: &Inventory) -> Value {
    json!({"total": i.total, "reserved": i.reserved, "min_unit": i.min_unit, "max_unit": i.max_unit,
           "step_size": i.step_size, "allocation_ratio": i.allocation_ratio})
}

fn all_view(generation: i64, all: &BTreeMap<String, (Inventory, i64)>) -> Value {
    let map: BTreeMap<&str, Value> = all.iter().map(|(c, (i, _))| (c.as_str(), view(i))).collect();
    json!({"resource_provider_generation": generation, "inventories": map})
}

const CREATE: &str = "Unable to create inventory for resource provider";
const UPDATE: &str = "Unable to update inventory for resource provider";
pub(super) const IN_USE: &str = "placement.inventory.inuse";

/// Refuses while somebody holds of one of these classes. The code differs from call to call, as it does in Placement.
async fn in_use(tx: &mut Tx, uuid: &str, classes: &[&str], about: &str, code: &'static str) -> Result<()> {
    let used = tx
        .rows(
            "SELECT class FROM placement_inventory WHERE provider_id = $1 AND used > 0",
            &[uuid.into()],
        )
        .await?;
    let mut used: Vec<String> = used.iter().map(|r| r.str(0)).collect::<Result<_>>()?;
    used.retain(|c| classes.contains(&c.as_str()));
    used.sort_by_key(|c| CLASSES.iter().position(|s| s == c).unwrap_or(usize::MAX));
    if used.is_empty() {
        return Ok(());
    }
    Err(Error::conflict(format!(
        "{about}Inventory for '{}' on resource provider '{uuid}' in use.",
        used.join(", ")
    ))
    .with_code(code))
}

/// Takes classes away from a provider. Nobody may hold of them.
pub(super) async fn drop_classes(
    tx: &mut Tx,
    uuid: &str,
    classes: &[&str],
    about: &str,
    code: &'static str,
) -> Result<u64> {
    in_use(tx, uuid, classes, about, code).await?;
    let mut n = 0;
    for class in classes {
        n += tx
            .exec(
                "DELETE FROM placement_inventory WHERE provider_id = $1 AND class = $2",
                &[uuid.into(), (*class).into()],
            )
            .await?;
    }
    Ok(n)
}

/// Takes all classes away that are not `wanted`.
pub(super) async fn drop_others(
    app: &Placement,
    tx: &mut Tx,
    uuid: &str,
    wanted: &BTreeMap<String, Inventory>,
    about: &str,
) -> Result<()> {
    let have = app.inventories(tx, uuid).await?;
    let gone: Vec<&str> = have
        .keys()
        .map(String::as_str)
        .filter(|c| !wanted.contains_key(*c))
        .collect();
    drop_classes(tx, uuid, &gone, about, IN_USE).await.map(|_| ())
}

pub async fn list(app: Arc<Placement>, req: Req) -> Result<Reply> {
    json_only(&req)?;
    let mut tx = app.db.read().await?;
    let p = fetch(&mut tx, req.ctx()?, policy::InventoriesList, req.param("uuid")).await?;
    let all = app.inventories(&mut tx, &p.uuid).await?;
    Ok(cached(
        &req,
        Reply::ok(&all_view(p.provider_generation, &all)),
        p.updated_at,
    ))
}

pub async fn replace(app: Arc<Placement>, mut req: Req) -> Result<Reply> {
    let body = body_for(&app, &mut req, policy::InventoriesUpdate).await?;
    let mut wanted = BTreeMap::new();
    for (class, v) in many(&body, req.version, "body")? {
        let i = inventory_of(&v, &class)?;
        leaves_some(UPDATE, req.param("uuid"), &class, &i, req.version)?;
        wanted.insert(class, i);
    }
    let said = fields::int(&body["resource_provider_generation"]).unwrap_or(-1);
    let (ctx, uuid, this) = (req.ctx()?.clone(), req.param("uuid").to_owned(), app.clone());
    let (generation, all) = app
        .db
        .write(&ctx.actor(), async move |tx| {
            let p = fetch(tx, &ctx, policy::InventoriesUpdate, &uuid).await?;
            same_generation(&p, said)?;
            let about = format!("Unknown resource class in inventory for resource provider {uuid}: ");
            Names::Class
                .demand(tx, &about, &wanted.keys().cloned().collect())
                .await?;
            drop_others(&this, tx, &uuid, &wanted, "update conflict: ").await?;
            for (class, i) in &wanted {
                this.set_inventory(tx, &uuid, class, i).await?;
            }
            let generation = bump(tx, &uuid).await?;
            Ok((generation, this.inventories(tx, &uuid).await?))
        })
        .await?;
    Ok(cached(&req, Reply::ok(&all_view(generation, &all)), clock::now()))
}

pub async fn create(app: Arc<Placement>, mut req: Req) -> Result<Reply> {
    let body = body_for(&app, &mut req, policy::InventoriesCreate).await?;
    check(&NEW, &body, req.version, "body")?;
    let class = body["resource_class"].as_str().unwrap_or_default().to_owned();
    if !is_name(&class) {
        return Err(Error::field(
            "resource_class",
            format!("JSON does not validate: '{class}' does not match '^[A-Z0-9_]+$'. Failed validating 'pattern'"),
        ));
    }
    let new = inventory_of(&body, &class)?;
    leaves_some(CREATE, req.param("uuid"), &class, &new, req.version)?;
    let (ctx, uuid, this) = (req.ctx()?.clone(), req.param("uuid").to_owned(), app.clone());
    let location = format!("{}/resource_providers/{uuid}/inventories/{class}", req.base);
    let generation = app
        .db
        .write(&ctx.actor(), async move |tx| {
            fetch(tx, &ctx, policy::InventoriesCreate, &uuid).await?;
            let about = format!("{CREATE} {uuid}: ");
            Names::Class
                .demand(tx, &about, &BTreeSet::from([class.clone()]))
                .await?;
            if this.inventories(tx, &uuid).await?.contains_key(&class) {
                return Err(Error::conflict(format!(
                    "Update conflict: inventory of {class} exists already on {uuid}."
                ))
                .with_code(CONCURRENT));
            }
            this.set_inventory(tx, &uuid, &class, &new).await?;
            bump(tx, &uuid).await
        })
        .await?;
    let mut v = view(&new);
    if let Some(map) = v.as_object_mut() {
        map.insert("resource_provider_generation".into(), generation.into());
    }
    let reply = Reply::json(StatusCode::CREATED, &v).header("location", location);
    Ok(cached(&req, reply, clock::now()))
}

pub async fn show(app: Arc<Placement>, req: Req) -> Result<Reply> {
    json_only(&req)?;
    let mut tx = app.db.read().await?;
    let p = fetch(&mut tx, req.ctx()?, policy::InventoriesShow, req.param("uuid")).await?;
    let class = req.param("class");
    let all = app.inventories(&mut tx, &p.uuid).await?;
    let Some((i, _)) = all.get(class) else {
        return Err(Error::not_found(format!(
            "No inventory of class {class} for {}",
            p.uuid
        )));
    };
    let mut v = view(i);
    if let Some(map) = v.as_object_mut() {
        map.insert("resource_provider_generation".into(), p.provider_generation.into());
    }
    Ok(cached(&req, Reply::ok(&v), p.updated_at))
}

pub async fn put(app: Arc<Placement>, mut req: Req) -> Result<Reply> {
    let body = body_for(&app, &mut req, policy::InventoriesUpdate).await?;
    check(&ONE, &body, req.version, "body")?;
    let said = fields::int(&body["resource_provider_generation"]).unwrap_or(-1);
    let class = req.param("class").to_owned();
    let new = inventory_of(&body, &class)?;
    leaves_some(UPDATE, req.param("uuid"), &class, &new, req.version)?;
    let (ctx, uuid, this) = (req.ctx()?.clone(), req.param("uuid").to_owned(), app.clone());
    let generation = app
        .db
        .write(&ctx.actor(), async move |tx| {
            let p = fetch(tx, &ctx, policy::InventoriesUpdate, &uuid).await?;
            same_generation(&p, said)?;
            if !this.inventories(tx, &uuid).await?.contains_key(&class) {
                return Err(Error::bad_request(format!(
                    "{UPDATE} {uuid}: No inventory record with resource class {class} on it; POST makes one."
                )));
            }
            this.set_inventory(tx, &uuid, &class, &new).await?;
            bump(tx, &uuid).await
        })
        .await?;
    let mut v = view(&new);
    if let Some(map) = v.as_object_mut() {
        map.insert("resource_provider_generation".into(), generation.into());
    }
    Ok(cached(&req, Reply::ok(&v), clock::now()))
}

pub async fn delete(app: Arc<Placement>, req: Req) -> Result<Reply> {
    let (ctx, uuid, class) = (
        req.ctx()?.clone(),
        req.param("uuid").to_owned(),
        req.param("class").to_owned(),
    );
    app.db
        .write(&ctx.actor(), async move |tx| {
            fetch(tx, &ctx, policy::InventoriesDelete, &uuid).await?;
            let about = format!("Unable to delete inventory of class {class}: ");
            if drop_classes(tx, &uuid, &[&class], &about, CONCURRENT).await? == 0 {
                return Err(Error::not_found(format!(
                    "No inventory of class {class} found for delete on {uuid}"
                )));
            }
            bump(tx, &uuid).await
        })
        .await?;
    Ok(Reply::no_content())
}

pub async fn delete_all(app: Arc<Placement>, req: Req) -> Result<Reply> {
    if req.version < Ver(1, 5) {
        return Err(Error::new(
            Kind::MethodNotAllowed,
            "DELETE is allowed for this resource from microversion 1.5 on.",
        ));
    }
    let (ctx, uuid, this) = (req.ctx()?.clone(), req.param("uuid").to_owned(), app.clone());
    app.db
        .write(&ctx.actor(), async move |tx| {
            fetch(tx, &ctx, policy::InventoriesDelete, &uuid).await?;
            drop_others(&this, tx, &uuid, &BTreeMap::new(), "").await?;
            bump(tx, &uuid).await
        })
        .await?;
    Ok(Reply::no_content())
}
