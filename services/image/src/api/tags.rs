//! `/v2/images/{id}/tags/{tag}`.

use crate::Images;
use crate::logic::update_image::tag;
use crate::model::check_properties;
use haneul_core::Result;
use haneul_http::{Reply, Req};
use serde_json::json;
use std::sync::Arc;

pub(super) async fn add(app: Arc<Images>, req: Req) -> Result<Reply> {
    check_properties(&json!({"tags": [req.param("tag")]}))?;
    tag(&app, req.ctx()?, req.param("image_id"), req.param("tag"), true).await?;
    Ok(Reply::no_content())
}

pub(super) async fn remove(app: Arc<Images>, req: Req) -> Result<Reply> {
    tag(&app, req.ctx()?, req.param("image_id"), req.param("tag"), false).await?;
    Ok(Reply::no_content())
}
