//! `/v2/images` and `/v2/images/{id}`.

use super::{errors, json_body, media_type, view};
use crate::Images;
use crate::logic::{create_image, delete_image, update_image};
use crate::model::{Draft, Image, ListRequest, parse_patch};
use crate::policy::{GetImage, GetImages};
use crate::store::{image_fetch, image_list, tasks_of_image};
use haneul_auth::{Action, Secured, Target};
use haneul_core::{Error, Kind, Result};
use haneul_http::{Reply, Req};
use haneul_store::Stored;
use serde_json::json;
use std::sync::Arc;

pub(super) async fn index(app: Arc<Images>, req: Req) -> Result<Reply> {
    let ctx = req.ctx()?;
    ctx.enforce(GetImages::RULE, &Target::own(ctx))?;
    let request = ListRequest::parse(&req.query, req.max_limit)?;
    let mut tx = app.db.read().await?;
    let marker = match &request.marker {
        None => None,
        Some(id) => Some(image_fetch(&mut tx, ctx, GetImage, id).await.map_err(|_| {
            Error::field(
                "marker",
                format!("No image found with ID {id}: the marker must be an image of the list."),
            )
        })?),
    };
    let query = request.query(ctx, marker.as_deref());
    let mut images = image_list(&mut tx, &query).await?;
    drop(tx);
    let page = usize::try_from(request.limit).unwrap_or(0);
    let more = images.len() > page && page > 0;
    images.truncate(page);
    let next = images.last().filter(|_| more).map(|i| i.id.clone());
    // The WHERE is the scope; an operator's own rule for get_image narrows it further.
    images.retain(|i| may_show(ctx, i));
    Ok(Reply::ok(&view::images(&images, &req.query, next.as_deref())))
}

/// The WHERE let the row pass, so for a shared image of another project the caller is a member.
fn may_show(ctx: &haneul_auth::Ctx, image: &Stored<Image>) -> bool {
    let mut image = image.value.clone();
    if image.owner.as_deref() != Some(ctx.project_id()) {
        image.caller_member = Some(ctx.project_id().to_owned());
    }
    ctx.may(GetImage::RULE, &image.target())
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
