//! `/v2/images` and `/v2/images/{id}`.

use super::{errors, json_body, media_type, view};
use crate::Images;
use crate::logic::{create_image, delete_image, listing, update_image};
use crate::model::{Draft, parse_patch};
use crate::policy::GetImage;
use crate::store::{image_fetch, tasks_of_image};
use haneul_auth::Secured;
use haneul_core::{Error, Kind, Result};
use haneul_http::{Reply, Req};
use serde_json::json;
use std::sync::Arc;

pub(super) async fn index(app: Arc<Images>, req: Req) -> Result<Reply> {
    let (images, next) = listing::images(&app, req.ctx()?, &req.query, req.max_limit).await?;
    Ok(Reply::ok(&view::images(&images, &req.query, next.as_deref())))
}

pub(super) async fn create(app: Arc<Images>, mut req: Req) -> Result<Reply> {
    let ctx = req.ctx()?.clone();
    let body = json_body(&mut req).await?;
    let image = create_image::run(&app, &ctx, &body).await?;
    let location = format!("{}/v2/images/{}", req.base, image.id);
    let stores: Vec<&str> = app.stores.all().iter().map(|s| s.id.as_str()).collect();
    Ok(Reply::created(&view::image(&image))
        .header("location", location)
        .header("openstack-image-import-methods", app.import_methods().join(","))
        .header("openstack-image-store-ids", stores.join(",")))
}

pub(super) async fn show(app: Arc<Images>, req: Req) -> Result<Reply> {
    let mut tx = app.db.read().await?;
    let image = image_fetch(&mut tx, req.ctx()?, GetImage, req.param("image_id")).await?;
    Ok(Reply::ok(&view::image(&image)))
}

pub(super) async fn update(app: Arc<Images>, mut req: Req) -> Result<Reply> {
    let ctx = req.ctx()?.clone();
    let kind = media_type(&req);
    let Some((_, draft)) = Draft::CONTENT_TYPES.iter().find(|(t, _)| *t == kind) else {
        let allowed = Draft::CONTENT_TYPES.map(|(t, _)| t).join(", ");
        let e = Error::new(
            Kind::UnsupportedMediaType,
            format!("Image PATCH expects Content-Type one of: {allowed}"),
        )
        .with_field("content-type");
        return Ok(errors::reply(&e, &req.request_id).header("accept-patch", allowed));
    };
    let body = json_body(&mut req).await?;
    let changes = parse_patch(&body, *draft)?;
    let image = update_image::patch(&app, &ctx, req.param("image_id"), changes).await?;
    Ok(Reply::ok(&view::image(&image)))
}

pub(super) async fn delete(app: Arc<Images>, req: Req) -> Result<Reply> {
    delete_image::run(&app, req.ctx()?, req.param("image_id")).await?;
    Ok(Reply::no_content())
}

/// Tasks about an image that the caller sees.
pub(super) async fn tasks(app: Arc<Images>, req: Req) -> Result<Reply> {
    let ctx = req.ctx()?;
    let mut tx = app.db.read().await?;
    let image = image_fetch(&mut tx, ctx, GetImage, req.param("image_id")).await?;
    let mut found = tasks_of_image(&mut tx, &image.id).await?;
    found.retain(|t| t.visible(ctx));
    let views: Vec<_> = found.iter().map(super::tasks::view).collect();
    Ok(Reply::ok(&json!({"tasks": views})))
}
