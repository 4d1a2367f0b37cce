//! `/v2/images/{id}/actions/...`.

use crate::Images;
use crate::logic::update_image::activate;
use haneul_core::Result;
use haneul_http::{Reply, Req};
use std::sync::Arc;

pub(super) async fn deactivate(app: Arc<Images>, req: Req) -> Result<Reply> {
    activate(&app, req.ctx()?, req.param("image_id"), false).await?;
    Ok(Reply::no_content())
}

pub(super) async fn reactivate(app: Arc<Images>, req: Req) -> Result<Reply> {
    activate(&app, req.ctx()?, req.param("image_id"), true).await?;
    Ok(Reply::no_content())
}
