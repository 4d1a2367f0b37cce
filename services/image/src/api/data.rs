//! `/v2/images/{id}/file`, staging and import, and the copies in stores.

use super::media_type;
use crate::Images;
use crate::logic::{download as fetching, import as importing, stage as staging, stores, upload as receiving};
use crate::model::Status;
use crate::model::import::parse_import;
use crate::policy::{AddLocation, FetchLocation};
use crate::store::image_fetch;
use haneul_core::{Error, Kind, Result};
use haneul_http::{Reply, Req};
use http::StatusCode;
use serde_json::{Value, json};
use std::sync::Arc;

const BYTES: &str = "application/octet-stream";

pub(super) async fn upload(app: Arc<Images>, mut req: Req) -> Result<Reply> {
    let ctx = req.ctx()?.clone();
    must_be_bytes(&req)?;
    let announced = announced_size(&req)?;
    let store = req.header("x-image-meta-store").map(str::to_owned);
    let body = req.take_body();
    receiving::run(app, ctx, req.param("image_id").to_owned(), body, announced, store).await?;
    Ok(Reply::no_content())
}

fn must_be_bytes(req: &Req) -> Result<()> {
    if media_type(req) == BYTES {
        return Ok(());
    }
    Err(Error::new(
        Kind::UnsupportedMediaType,
        format!("Image data is uploaded with Content-Type {BYTES}."),
    )
    .with_field("content-type"))
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

pub(super) async fn stage(app: Arc<Images>, mut req: Req) -> Result<Reply> {
    let ctx = req.ctx()?.clone();
    must_be_bytes(&req)?;
    let announced = announced_size(&req)?;
    let body = req.take_body();
    staging::run(app, ctx, req.param("image_id").to_owned(), body, announced).await?;
    Ok(Reply::no_content())
}

pub(super) async fn import(app: Arc<Images>, mut req: Req) -> Result<Reply> {
    let ctx = req.ctx()?.clone();
    let body = super::json_body(&mut req).await?;
    let request = parse_import(&body, req.header("x-image-meta-store"), &app.import_methods())?;
    let token = req.header("x-auth-token").unwrap_or_default().to_owned();
    importing::run(&app, &ctx, req.param("image_id"), request, &token).await?;
    Ok(Reply::empty(StatusCode::ACCEPTED))
}

pub(super) async fn delete_from_store(app: Arc<Images>, req: Req) -> Result<Reply> {
    let (store, image) = (req.param("store_id"), req.param("image_id"));
    stores::delete_from_store(&app, req.ctx()?, store, image).await?;
    Ok(Reply::no_content())
}

/// Where the copies are: for services, which may read a store by themselves.
pub(super) async fn locations(app: Arc<Images>, req: Req) -> Result<Reply> {
    let mut tx = app.db.read().await?;
    let image = image_fetch(&mut tx, req.ctx()?, FetchLocation, req.param("image_id")).await?;
    let key = image.file.as_deref().unwrap_or_default();
    let all: Vec<_> = image
        .places()
        .iter()
        .filter_map(|id| app.stores.get(id))
        .map(|s| json!({"url": format!("file://{}", s.directory.join(key).display()), "metadata": {"store": s.id}}))
        .collect();
    Ok(Reply::ok(&all))
}

/// Stores here are directories of our own; bytes elsewhere become an image by an import, which checks them.
pub(super) async fn add_location(app: Arc<Images>, mut req: Req) -> Result<Reply> {
    let ctx = req.ctx()?.clone();
    let body = super::json_body(&mut req).await?;
    check_location(&body)?;
    let mut tx = app.db.read().await?;
    let image = image_fetch(&mut tx, &ctx, AddLocation, req.param("image_id")).await?;
    if image.status != Status::Queued {
        return Err(Error::conflict(format!(
            "It's not allowed to add locations if image status is {}.",
            image.status
        ))
        .with_field("status"));
    }
    if !ctx.has_role("service") {
        return Err(Error::forbidden(
            "http store must be enabled to use location API by normal user. Use the import method web-download instead.",
        ));
    }
    Err(Error::field(
        "url",
        "No store of this site takes data by its location: all stores are directories of the image service. Use the \
         import method web-download instead.",
    ))
}

/// `{"url": ..., "validation_data": {"os_hash_algo": ..., "os_hash_value": ...}}`.
fn check_location(body: &Value) -> Result<()> {
    let wrong = |field: &str, why: &str| Err(Error::field(field, why.to_owned()));
    if body
        .get("url")
        .and_then(Value::as_str)
        .is_none_or(|u| u.is_empty() || u.len() > 2048)
    {
        return wrong("url", "'url' is required: a text of 1 to 2048 characters.");
    }
    let Some(data) = body.get("validation_data") else {
        return Ok(());
    };
    let text = |name: &str| data.get(name).and_then(Value::as_str);
    let Some(value) = text("os_hash_value") else {
        return wrong(
            "validation_data",
            "'validation_data' needs os_hash_algo and os_hash_value.",
        );
    };
    let bytes = match text("os_hash_algo") {
        Some("sha512" | "blake2b") => 64,
        Some("sha384") => 48,
        Some("sha256") => 32,
        _ => {
            return wrong(
                "validation_data.os_hash_algo",
                "os_hash_algo is one of sha256, sha384, sha512 and blake2b.",
            );
        }
    };
    if value.len() != bytes * 2 || !value.bytes().all(|b| b.is_ascii_hexdigit()) {
        return wrong(
            "validation_data.os_hash_value",
            &format!("os_hash_value is not the correct size (should be ({bytes}) bytes)"),
        );
    }
    Ok(())
}
