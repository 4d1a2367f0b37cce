//! `/v2/images/{id}/file`, and the import calls that are switched off.

use super::media_type;
use crate::Images;
use crate::logic::{download as fetching, upload as receiving};
use haneul_core::{Error, Kind, Result};
use haneul_http::{Reply, Req};
use http::StatusCode;
use std::sync::Arc;

const BYTES: &str = "application/octet-stream";

pub(super) async fn upload(app: Arc<Images>, mut req: Req) -> Result<Reply> {
    let ctx = req.ctx()?.clone();
    if media_type(&req) != BYTES {
        return Err(Error::new(
            Kind::UnsupportedMediaType,
            format!("Image data is uploaded with Content-Type {BYTES}."),
        )
        .with_field("content-type"));
    }
    let announced = announced_size(&req)?;
    let body = req.take_body();
    receiving::run(app, ctx, req.param("image_id").to_owned(), body, announced).await?;
    Ok(Reply::no_content())
}

/// How long the image will be, when the client says so.
fn announced_size(req: &Req) -> Result<Option<u64>> {
    for name in ["x-openstack-image-size", "content-length"] {
        if let Some(text) = req.header(name) {
            return text.trim().parse().map(Some).map_err(|_| {
                Error::field(
                    name,
                    format!("Invalid or missing image size in request headers: {name} is {text}."),
                )
            });
        }
    }
    Ok(None)
}

pub(super) async fn download(app: Arc<Images>, req: Req) -> Result<Reply> {
    let found = fetching::run(
        &app,
        req.ctx()?,
        req.param("image_id"),
        req.header("range"),
        req.header("content-range"),
    )
    .await?;
    let Some(download) = found else {
        return Ok(Reply::no_content());
    };
    let mut reply = match download.span {
        None => Reply::stream(StatusCode::OK, BYTES, download.body).header("content-length", download.size.to_string()),
        Some(span) => Reply::stream(StatusCode::PARTIAL_CONTENT, BYTES, download.body)
            .header("content-length", span.len.to_string())
            .header("content-range", span.content_range(download.size)),
    };
    if let Some(md5) = download.checksum {
        // Glance writes the hex digest here, not RFC 1864's base64; its clients compare with that.
        reply = reply.header("content-md5", md5);
    }
    Ok(reply.header("accept-ranges", "bytes"))
}

/// Glance's answer where `glance-direct` is not among the import methods.
pub(super) async fn stage(_app: Arc<Images>, _req: Req) -> Result<Reply> {
    Err(Error::not_found(
        "'glance-direct' method is not available at this site. Upload to /file instead.",
    ))
}

/// Glance's answer to a method that is not enabled; none is.
pub(super) async fn import(_app: Arc<Images>, mut req: Req) -> Result<Reply> {
    let body = super::json_body(&mut req).await?;
    let Some(method) = body.get("method") else {
        return Err(Error::field("method", "Import request requires a 'method' field."));
    };
    let Some(name) = method.get("name").and_then(|n| n.as_str()) else {
        return Err(Error::field("method.name", "Import request requires a 'name' field."));
    };
    Err(Error::field(
        "method.name",
        format!("Unknown import method name '{name}'. No import method is enabled; upload to /file instead."),
    ))
}
