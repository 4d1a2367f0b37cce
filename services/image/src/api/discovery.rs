//! Versions, schemas and what this site offers.

use crate::Images;
use crate::model::{self, Image, Status};
use crate::policy::StoresDetail;
use crate::store::{Store, image_list};
use haneul_auth::{Action, Target};
use haneul_core::Result;
use haneul_http::{Reply, Req};
use haneul_store::{Query, Stored};
use http::StatusCode;
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// Newest first. 2.14 is the cache, and left out where it is off, as in Glance; 2.16 and 2.18 are caches on several
/// nodes.
const VERSIONS: &[&str] = &[
    "2.17", "2.15", "2.14", "2.13", "2.12", "2.11", "2.10", "2.9", "2.8", "2.7", "2.6", "2.5", "2.4", "2.3", "2.2",
    "2.1", "2.0",
];

fn document(app: &Images, req: &Req) -> Value {
    let versions: Vec<Value> = VERSIONS
        .iter()
        .filter(|v| **v != "2.14" || app.cache.limit > 0)
        .enumerate()
        .map(|(i, v)| {
            json!({
                "id": format!("v{v}"),
                "status": if i == 0 { "CURRENT" } else { "SUPPORTED" },
                "links": [{"rel": "self", "href": format!("{}/v2/", req.base)}],
            })
        })
        .collect();
    json!({"versions": versions})
}

/// `/`: a choice, with the status that says so.
pub(super) async fn choices(app: Arc<Images>, req: Req) -> Result<Reply> {
    Ok(Reply::json(StatusCode::MULTIPLE_CHOICES, &document(&app, &req)))
}

/// `/versions`: the same, asked for by name.
pub(super) async fn versions(app: Arc<Images>, req: Req) -> Result<Reply> {
    Ok(Reply::ok(&document(&app, &req)))
}

pub(super) async fn image_schema(_app: Arc<Images>, _req: Req) -> Result<Reply> {
    Ok(Reply::ok(&model::image_schema()))
}

pub(super) async fn images_schema(_app: Arc<Images>, _req: Req) -> Result<Reply> {
    Ok(Reply::ok(&model::images_schema()))
}

pub(super) async fn member_schema(_app: Arc<Images>, _req: Req) -> Result<Reply> {
    Ok(Reply::ok(&model::member_schema()))
}

pub(super) async fn members_schema(_app: Arc<Images>, _req: Req) -> Result<Reply> {
    Ok(Reply::ok(&model::members_schema()))
}

pub(super) async fn import_info(app: Arc<Images>, _req: Req) -> Result<Reply> {
    let value = json!({"description": "Import methods available.", "type": "array", "value": app.import_methods()});
    Ok(Reply::ok(&json!({"import-methods": value})))
}

/// Glance writes its flags as text here, and leaves out what does not hold.
fn store(app: &Images, s: &Store) -> Map<String, Value> {
    let mut map = Map::new();
    map.insert("id".into(), s.id.as_str().into());
    if !s.description.is_empty() {
        map.insert("description".into(), s.description.as_str().into());
    }
    if s.id == app.stores.default().id {
        map.insert("default".into(), "true".into());
    }
    if s.read_only {
        map.insert("read-only".into(), "true".into());
    }
    map
}

pub(super) async fn stores_info(app: Arc<Images>, _req: Req) -> Result<Reply> {
    let all: Vec<_> = app.stores.all().iter().map(|s| store(&app, s)).collect();
    Ok(Reply::ok(&json!({"stores": all})))
}

/// What the caller's project has. There are no limits here, which Keystone's limits write as -1.
pub(super) async fn usage(app: Arc<Images>, req: Req) -> Result<Reply> {
    let project = req.ctx()?.project_id().to_owned();
    let mut tx = app.db.read().await?;
    let images = image_list(&mut tx, &Query::new().eq("project_id", project)).await?;
    drop(tx);
    let size = |i: &&Stored<Image>| i.size.unwrap_or(0);
    let coming = |i: &&Stored<Image>| matches!(i.status, Status::Saving | Status::Uploading | Status::Importing);
    let stored: i64 = images
        .iter()
        .filter(|i| i.status.has_data())
        .map(|i| size(&i) * i64::try_from(i.places().len()).unwrap_or(1))
        .sum();
    let staged: i64 = images.iter().filter(coming).map(|i| size(&i)).sum();
    let entry = |usage: i64| json!({"usage": usage, "limit": -1});
    let count = |n: usize| entry(i64::try_from(n).unwrap_or(i64::MAX));
    Ok(Reply::ok(&json!({"usage": {
        "image_size_total": entry(stored >> 20),
        "image_stage_total": entry(staged >> 20),
        "image_count_total": count(images.len()),
        "image_count_uploading": count(images.iter().filter(coming).count()),
    }})))
}

pub(super) async fn stores_detail(app: Arc<Images>, req: Req) -> Result<Reply> {
    let ctx = req.ctx()?;
    ctx.enforce(StoresDetail::RULE, &Target::own(ctx))?;
    let detail = |s: &Store| {
        let mut map = store(&app, s);
        map.insert("type".into(), "file".into());
        map.insert("weight".into(), 0.into());
        let dir = s.directory.display().to_string();
        map.insert(
            "properties".into(),
            json!({"data_dir": dir, "chunk_size": 1 << 20, "thin_provisioning": false}),
        );
        map
    };
    let all: Vec<_> = app.stores.all().iter().map(detail).collect();
    Ok(Reply::ok(&json!({"stores": all})))
}
