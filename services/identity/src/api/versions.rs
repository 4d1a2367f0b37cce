//! Version documents (API reference: Identity API v3, "API versions").

use crate::Identity;
use haneul_core::Result;
use haneul_http::{Reply, Req};
use http::StatusCode;
use serde_json::{Value, json};
use std::sync::Arc;

fn v3(base: &str) -> Value {
    json!({
        "id": "v3.14",
        "status": "stable",
        "updated": "2020-04-07T00:00:00Z",
        "links": [{"rel": "self", "href": format!("{base}/v3/")}],
        "media-types": [{"base": "application/json", "type": "application/vnd.openstack.identity-v3+json"}],
    })
}

/// GET /identity/
pub(crate) async fn all(_app: Arc<Identity>, req: Req) -> Result<Reply> {
    let doc = json!({"versions": {"values": [v3(&req.base)]}});
    Ok(Reply::json(StatusCode::MULTIPLE_CHOICES, &doc).header("location", format!("{}/v3/", req.base)))
}

/// GET /identity/v3
pub(crate) async fn three(_app: Arc<Identity>, req: Req) -> Result<Reply> {
    Ok(Reply::ok(&json!({"version": v3(&req.base)})))
}
