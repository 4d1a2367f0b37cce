//! Versions, schemas and what this site offers.

use crate::Images;
use crate::model;
use haneul_core::{Error, Result};
use haneul_http::{Reply, Req};
use http::StatusCode;
use serde_json::{Value, json};
use std::sync::Arc;

/// Newest first. 2.8 and 2.10 to 2.14 need several stores, 2.15 and up imports, caches and locations; Glance
/// leaves them out, too, where these are off.
const VERSIONS: &[&str] = &["2.9", "2.7", "2.6", "2.5", "2.4", "2.3", "2.2", "2.1", "2.0"];

fn document(req: &Req) -> Value {
    let versions: Vec<Value> = VERSIONS
        .iter()
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
pub(super) async fn choices(_app: Arc<Images>, req: Req) -> Result<Reply> {
    Ok(Reply::json(StatusCode::MULTIPLE_CHOICES, &document(&req)))
}

/// `/versions`: the same, asked for by name.
pub(super) async fn versions(_app: Arc<Images>, req: Req) -> Result<Reply> {
    Ok(Reply::ok(&document(&req)))
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

pub(super) async fn import_info(_app: Arc<Images>, _req: Req) -> Result<Reply> {
    Ok(Reply::ok(&json!({
        "import-methods": {"description": "Import methods available.", "type": "array", "value": []},
    })))
}

/// Glance's answer where there is one store.
pub(super) async fn stores_info(_app: Arc<Images>, _req: Req) -> Result<Reply> {
    Err(Error::not_found("Multi backend is not supported at this site."))
}
