//! THE route table of the image service, one line per method and path, and what its handlers share.

mod actions;
mod data;
mod discovery;
pub(crate) mod errors;
mod images;
mod members;
mod tags;
mod view;

use crate::Images;
use haneul_core::{Error, Result};
use haneul_http::{Req, Routes, Service};
use http::Method;
use serde_json::Value;
use std::sync::Arc;

pub(crate) fn routes(app: &Arc<Images>) -> Routes<Images> {
    Routes::new(Service::Image, app.clone())
        .public(Method::GET, "", discovery::choices)
        .public(Method::GET, "/", discovery::choices)
        .public(Method::GET, "/versions", discovery::versions)
        .get("/v2/schemas/image", discovery::image_schema, "own")
        .get("/v2/schemas/images", discovery::images_schema, "own")
        .get("/v2/schemas/member", discovery::member_schema, "own")
        .get("/v2/schemas/members", discovery::members_schema, "own")
        .get("/v2/info/import", discovery::import_info, "own")
        .get("/v2/info/stores", discovery::stores_info, "own")
        .get("/v2/images", images::index, "get_images")
        .post("/v2/images", images::create, "add_image")
        .get("/v2/images/{image_id}", images::show, "get_image")
        .patch("/v2/images/{image_id}", images::update, "modify_image")
        .delete("/v2/images/{image_id}", images::delete, "delete_image")
        .get("/v2/images/{image_id}/tasks", images::tasks, "get_image")
        .get("/v2/images/{image_id}/file", data::download, "download_image")
        .put("/v2/images/{image_id}/file", data::upload, "upload_image")
        .put("/v2/images/{image_id}/stage", data::stage, "modify_image")
        .post("/v2/images/{image_id}/import", data::import, "modify_image")
        .post(
            "/v2/images/{image_id}/actions/deactivate",
            actions::deactivate,
            "deactivate",
        )
        .post(
            "/v2/images/{image_id}/actions/reactivate",
            actions::reactivate,
            "reactivate",
        )
        .put("/v2/images/{image_id}/tags/{tag}", tags::add, "modify_image")
        .delete("/v2/images/{image_id}/tags/{tag}", tags::remove, "modify_image")
        .get("/v2/images/{image_id}/members", members::index, "get_members")
        .post("/v2/images/{image_id}/members", members::create, "add_member")
        .get("/v2/images/{image_id}/members/{member_id}", members::show, "get_member")
        .put(
            "/v2/images/{image_id}/members/{member_id}",
            members::update,
            "modify_member",
        )
        .delete(
            "/v2/images/{image_id}/members/{member_id}",
            members::delete,
            "delete_member",
        )
}

/// The JSON body, with Glance's own words for what is wrong with it.
async fn json_body(req: &mut Req) -> Result<Value> {
    let bytes = req.bytes().await?;
    if bytes.is_empty() {
        return Err(Error::bad_request("Body expected in request."));
    }
    let value: Value = serde_json::from_slice(&bytes).map_err(|e| {
        Error::bad_request(format!(
            "Malformed JSON in request body: line {}, column {}.",
            e.line(),
            e.column()
        ))
        .with_private(e)
    })?;
    if value.is_object() || value.is_array() {
        Ok(value)
    } else {
        Err(Error::bad_request("Unexpected body type. Expected list/dict."))
    }
}

/// The media type of a request, without parameters, in lower case.
fn media_type(req: &Req) -> String {
    let text = req.header("content-type").unwrap_or_default();
    text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}
