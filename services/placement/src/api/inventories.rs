//! Inventories (Placement API reference, "Resource provider inventories").

use super::providers::{GENERATION, bump, same_generation};
use super::{body_for, whole};
use crate::names::Names;
use crate::{Inventory, Placement, policy};
use haneul_auth::fetch;
use haneul_core::{Error, Kind, Result};
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
        Some(r) if r > 0.0 && r <= 3.4e38 => Ok(()),
        _ => Err("It must be a number above 0.".into()),
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

fn inventory_of(v: &Value, path: &str) -> Result<Inventory> {
    let i: Inventory = serde_json::from_value(v.clone())
        .map_err(|e| Error::field(path, format!("Invalid input for field/attribute {path}. {e}")))?;
    // Reserving everything is allowed from 1.26 on; before, something must be left.
    if i.capacity() < 1 {
        return Err(Error::field(
            path,
            format!(
                "Invalid inventory for {path}: of total {}, reserved {} and allocation_ratio {} a capacity of {} is left, and it must be at least 1.",
                i.total,
                i.reserved,
                i.allocation_ratio,
                i.capacity()
            ),
        ));
    }
    Ok(i)
}

fn view(i: &Inventory) -> Value {
    json!({"total": i.total, "reserved": i.reserved, "min_unit": i.min_unit, "max_unit": i.max_unit,
           "step_size": i.step_size, "allocation_ratio": i.allocation_ratio})
}

fn all_view(generation: i64, all: &BTreeMap<String, (Inventory, i64)>) -> Value {
    let map: BTreeMap<&str, Value> = all.iter().map(|(c, (i, _))| (c.as_str(), view(i))).collect();
    json!({"resource_provider_generation": generation, "inventories": map})
}

const IN_USE: &str = "placement.inventory.inuse";
const CONCURRENT: &str = "placement.concurrent_update";

/// Refuses while somebody holds of it. The code differs from call to call, as it does in Placement.
async fn in_use(tx: &mut Tx, uuid: &str, class: &str, code: &'static str) -> Result<()> {
    let used = tx
        .row(
            "SELECT used FROM placement_inventory WHERE provider_id = $1 AND class = $2 AND used > 0",
            &[uuid.into(), class.into()],
        )
        .await?;
    match used {
        Some(r) => Err(Error::conflict(format!(
            "Inventory for '{class}' on resource provider '{uuid}' in use: {} of it are allocated.",
            r.i64(0)?
        ))
        .with_code(code)),
        None => Ok(()),
    }
}

async fn drop_class(tx: &mut Tx, uuid: &str, class: &str, code: &'static str) -> Result<u64> {
    in_use(tx, uuid, class, code).await?;
    tx.exec(
        "DELETE FROM placement_inventory WHERE provider_id = $1 AND class = $2",
        &[uuid.into(), class.into()],
    )
    .await
}

pub async fn list(app: Arc<Placement>, req: Req) -> Result<Reply> {
    let mut tx = app.db.read().await?;
    let p = fetch(&mut tx, req.ctx()?, policy::InventoriesList, req.param("uuid")).await?;
    let all = app.inventories(&mut tx, &p.uuid).await?;
    Ok(Reply::ok(&all_view(p.provider_generation, &all)))
}

pub async fn replace(app: Arc<Placement>, mut req: Req) -> Result<Reply> {
    let body = body_for(&app, &mut req, policy::InventoriesUpdate).await?;
    fields::check(&ALL, &body, req.version, "body")?;
    let map = body["inventories"]
        .as_object()
        .ok_or_else(|| Error::field("inventories", "inventories must be an object by resource class."))?;
    let mut wanted = BTreeMap::new();
    for (class, v) in map {
        fields::check(&RECORD, v, req.version, &format!("inventories.{class}"))?;
        wanted.insert(class.clone(), inventory_of(v, class)?);
    }
    let said = fields::int(&body["resource_provider_generation"]).unwrap_or(-1);
    let (ctx, uuid, this) = (req.ctx()?.clone(), req.param("uuid").to_owned(), app.clone());
    let (generation, all) = app
        .db
        .write(&ctx.actor(), async move |tx| {
            let p = fetch(tx, &ctx, policy::InventoriesUpdate, &uuid).await?;
            same_generation(&p, said)?;
            Names::Class.demand(tx, &wanted.keys().cloned().collect()).await?;
            for class in this.inventories(tx, &uuid).await?.keys() {
                if !wanted.contains_key(class) {
                    drop_class(tx, &uuid, class, IN_USE).await?;
                }
            }
            for (class, i) in &wanted {
                this.set_inventory(tx, &uuid, class, i).await?;
            }
            let generation = bump(tx, &uuid).await?;
            Ok((generation, this.inventories(tx, &uuid).await?))
        })
        .await?;
    Ok(Reply::ok(&all_view(generation, &all)))
}

pub async fn create(app: Arc<Placement>, mut req: Req) -> Result<Reply> {
    let body = body_for(&app, &mut req, policy::InventoriesCreate).await?;
    fields::check(&NEW, &body, req.version, "body")?;
    let class = body["resource_class"].as_str().unwrap_or_default().to_owned();
    let new = inventory_of(&body, &class)?;
    let (ctx, uuid, this) = (req.ctx()?.clone(), req.param("uuid").to_owned(), app.clone());
    let location = format!("/placement/resource_providers/{uuid}/inventories/{class}");
    let generation = app
        .db
        .write(&ctx.actor(), async move |tx| {
            fetch(tx, &ctx, policy::InventoriesCreate, &uuid).await?;
            Names::Class.demand(tx, &BTreeSet::from([class.clone()])).await?;
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
    Ok(Reply::json(StatusCode::CREATED, &v).header("location", location))
}

pub async fn show(app: Arc<Placement>, req: Req) -> Result<Reply> {
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
    Ok(Reply::ok(&v))
}

pub async fn put(app: Arc<Placement>, mut req: Req) -> Result<Reply> {
    let body = body_for(&app, &mut req, policy::InventoriesUpdate).await?;
    fields::check(&ONE, &body, req.version, "body")?;
    let said = fields::int(&body["resource_provider_generation"]).unwrap_or(-1);
    let class = req.param("class").to_owned();
    let new = inventory_of(&body, &class)?;
    let (ctx, uuid, this) = (req.ctx()?.clone(), req.param("uuid").to_owned(), app.clone());
    let generation = app
        .db
        .write(&ctx.actor(), async move |tx| {
            let p = fetch(tx, &ctx, policy::InventoriesUpdate, &uuid).await?;
            same_generation(&p, said)?;
            if !this.inventories(tx, &uuid).await?.contains_key(&class) {
                return Err(Error::bad_request(format!(
                    "No inventory record with resource class {class} on {uuid}: make it by POST."
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
    Ok(Reply::ok(&v))
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
            if drop_class(tx, &uuid, &class, CONCURRENT).await? == 0 {
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
            for class in this.inventories(tx, &uuid).await?.keys() {
                drop_class(tx, &uuid, class, IN_USE).await?;
            }
            bump(tx, &uuid).await
        })
        .await?;
    Ok(Reply::no_content())
}
