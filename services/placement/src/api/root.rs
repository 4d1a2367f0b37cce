//! Version document (Placement API reference, "API Versions").

use super::{MAX, cached};
use crate::Placement;
use haneul_core::{Result, clock};
use haneul_http::{Reply, Req};
use serde_json::json;
use std::sync::Arc;

/// GET /placement
pub async fn versions(_app: Arc<Placement>, req: Req) -> Result<Reply> {
    let reply = Reply::ok(&json!({"versions": [{
        "id": "v1.0", "status": "CURRENT", "min_version": "1.0", "max_version": MAX.to_string(),
        "links": [{"rel": "self", "href": ""}]
    }]}));
    Ok(cached(&req, reply, clock::now()))
}
