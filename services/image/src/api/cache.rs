//! `/v2/cache` (Glance API reference, "Cache manage").

use crate::Images;
use crate::logic::stores;
use crate::policy::CachedNodes;
use haneul_auth::{Action, Target};
use haneul_core::{Error, Result};
use haneul_http::{Reply, Req};
use http::StatusCode;
use serde_json::json;
use std::sync::Arc;

/// Glance writes seconds here, with their fractions.
#[allow(clippy::cast_precision_loss)]
fn seconds(micros: i64) -> f64 {
    micros as f64 / 1e6
}

pub(super) async fn index(app: Arc<Images>, req: Req) -> Result<Reply> {
    let rows = stores::cache_state(&app, req.ctx()?).await?;
    let (cached, queued): (Vec<_>, Vec<_>) = rows.into_iter().partition(|r| r.cached);
    let cached: Vec<_> = cached
        .iter()
        .map(|r| {
            json!({
                "image_id": r.image_id, "hits": r.hits, "last_accessed": seconds(r.last_accessed),
                "last_modified": seconds(r.last_modified), "size": r.size,
            })
        })
        .collect();
    let queued: Vec<_> = queued.iter().map(|r| r.image_id.as_str()).collect();
    Ok(Reply::ok(&json!({"cached_images": cached, "queued_images": queued})))
}

pub(super) async fn queue(app: Arc<Images>, req: Req) -> Result<Reply> {
    stores::cache_queue(&app, req.ctx()?, req.param("image_id")).await?;
    Ok(Reply::empty(StatusCode::ACCEPTED))
}

pub(super) async fn remove(app: Arc<Images>, req: Req) -> Result<Reply> {
    stores::cache_remove(&app, req.ctx()?, req.param("image_id")).await?;
    Ok(Reply::no_content())
}

pub(super) async fn clean(app: Arc<Images>, req: Req) -> Result<Reply> {
    stores::cache_clean(&app, req.ctx()?).await?;
    Ok(Reply::empty(StatusCode::OK))
}

pub(super) async fn prune(app: Arc<Images>, req: Req) -> Result<Reply> {
    let (files, bytes) = stores::cache_prune(&app, req.ctx()?).await?;
    Ok(Reply::ok(
        &json!({"total_files_pruned": files, "total_bytes_pruned": bytes}),
    ))
}

/// There is one cache: Glance's answer where nodes do not share theirs.
pub(super) async fn nodes(_app: Arc<Images>, req: Req) -> Result<Reply> {
    let ctx = req.ctx()?;
    ctx.enforce(CachedNodes::RULE, &Target::own(ctx))?;
    Err(Error::conflict("Centralized caching is not enabled"))
}

pub(super) async fn clear(app: Arc<Images>, req: Req) -> Result<Reply> {
    let target = req.header("x-image-cache-clear-target").unwrap_or_default().to_owned();
    stores::cache_clear(&app, req.ctx()?, &target).await?;
    Ok(Reply::no_content())
}
