//! THE route table of the image service, one line per method and path, and what its handlers share.

mod actions;
mod cache;
mod data;
mod definitions;
mod discovery;
pub(crate) mod errors;
mod images;
mod listing;
mod members;
mod metadef_view;
mod namespaces;
mod tags;
mod tasks;
mod view;

use crate::Images;
use crate::model::METADEF_SCHEMAS;
use haneul_core::{Error, Result};
use haneul_http::{Req, Routes, Service};
use http::Method;
use serde_json::Value;
use std::sync::Arc;

pub(crate) fn routes(app: &Arc<Images>) -> Routes<Images> {
    let images = images_routes(Routes::new(Service::Image, app.clone()));
    cache_routes(tasks_routes(metadefs_routes(images)))
}

fn cache_routes(routes: Routes<Images>) -> Routes<Images> {
    routes
        .get("/v2/cache", cache::index, "cache_list")
        .delete("/v2/cache", cache::clear, "cache_delete")
        .post("/v2/cache/clean", cache::clean, "cache_clean")
        .post("/v2/cache/prune", cache::prune, "cache_prune")
        .get("/v2/cache/nodes/{image_id}", cache::nodes, "list_cached_nodes")
        .put("/v2/cache/{image_id}", cache::queue, "cache_image")
        .delete("/v2/cache/{image_id}", cache::remove, "cache_delete")
}

fn images_routes(routes: Routes<Images>) -> Routes<Images> {
    routes
        .public(Method::GET, "", discovery::choices)
        .public(Method::GET, "/", discovery::choices)
        .public(Method::GET, "/versions", discovery::versions)
        .get("/v2/schemas/image", discovery::image_schema, "own")
        .get("/v2/schemas/images", discovery::images_schema, "own")
        .get("/v2/schemas/member", discovery::member_schema, "own")
        .get("/v2/schemas/members", discovery::members_schema, "own")
        .get("/v2/info/import", discovery::import_info, "own")
        .get("/v2/info/stores", discovery::stores_info, "own")
        .get("/v2/info/usage", discovery::usage, "own")
        .get("/v2/info/stores/detail", discovery::stores_detail, "stores_info_detail")
        .delete(
            "/v2/stores/{store_id}/{image_id}",
            data::delete_from_store,
            "delete_image_location",
        )
        .get(
            "/v2/images/{image_id}/locations",
            data::locations,
            "fetch_image_location",
        )
        .post(
            "/v2/images/{image_id}/locations",
            data::add_location,
            "add_image_location",
        )
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

fn metadefs_routes(routes: Routes<Images>) -> Routes<Images> {
    const ALL: &str = "/v2/metadefs/namespaces";
    const NS: &str = "/v2/metadefs/namespaces/{namespace}";
    let at = |rest: &str| format!("{NS}/{rest}");
    METADEF_SCHEMAS
        .iter()
        .fold(routes, |routes, name| {
            routes.get(&format!("/v2/schemas/metadefs/{name}"), namespaces::schema, "own")
        })
        .get(
            "/v2/metadefs/resource_types",
            definitions::types,
            "list_metadef_resource_types",
        )
        .get(ALL, namespaces::index, "get_metadef_namespaces")
        .post(ALL, namespaces::create, "add_metadef_namespace")
        .get(NS, namespaces::show, "get_metadef_namespace")
        .put(NS, namespaces::update, "modify_metadef_namespace")
        .delete(NS, namespaces::delete, "delete_metadef_namespace")
        .get(&at("objects"), definitions::objects, "get_metadef_objects")
        .post(&at("objects"), definitions::create_object, "add_metadef_object")
        .delete(&at("objects"), definitions::delete_objects, "delete_metadef_namespace")
        .get(
            &at("objects/{object_name}"),
            definitions::show_object,
            "get_metadef_object",
        )
        .put(
            &at("objects/{object_name}"),
            definitions::update_object,
            "modify_metadef_object",
        )
        .delete(
            &at("objects/{object_name}"),
            definitions::delete_object,
            "delete_metadef_object",
        )
        .get(&at("properties"), definitions::properties, "get_metadef_properties")
        .post(&at("properties"), definitions::create_property, "add_metadef_property")
        .delete(
            &at("properties"),
            definitions::delete_properties,
            "delete_metadef_namespace",
        )
        .get(
            &at("properties/{property_name}"),
            definitions::show_property,
            "get_metadef_property",
        )
        .put(
            &at("properties/{property_name}"),
            definitions::update_property,
            "modify_metadef_property",
        )
        .delete(
            &at("properties/{property_name}"),
            definitions::delete_property,
            "remove_metadef_property",
        )
        .get(&at("tags"), definitions::tags, "get_metadef_tags")
        .post(&at("tags"), definitions::create_tags, "add_metadef_tags")
        .delete(&at("tags"), definitions::delete_tags, "delete_metadef_tags")
        .get(&at("tags/{tag_name}"), definitions::show_tag, "get_metadef_tag")
        .post(&at("tags/{tag_name}"), definitions::create_tag, "add_metadef_tag")
        .put(&at("tags/{tag_name}"), definitions::update_tag, "modify_metadef_tag")
        .delete(&at("tags/{tag_name}"), definitions::delete_tag, "delete_metadef_tag")
        .get(
            &at("resource_types"),
            definitions::associations,
            "list_metadef_resource_types",
        )
        .post(
            &at("resource_types"),
            definitions::associate,
            "add_metadef_resource_type_association",
        )
        .delete(
            &at("resource_types/{resource_type}"),
            definitions::dissociate,
            "remove_metadef_resource_type_association",
        )
}

fn tasks_routes(routes: Routes<Images>) -> Routes<Images> {
    routes
        .get("/v2/schemas/task", tasks::schema, "own")
        .get("/v2/schemas/tasks", tasks::list_schema, "own")
        .get("/v2/tasks", tasks::index, "tasks_api_access")
        .post("/v2/tasks", tasks::create, "tasks_api_access")
        .get("/v2/tasks/{task_id}", tasks::show, "tasks_api_access")
        .delete("/v2/tasks/{task_id}", tasks::delete, "tasks_api_access")
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
