//! Image and membership as JSON (Glance API reference). Links are paths without the service's prefix, as
//! Glance writes them: clients join them with the endpoint.

use crate::model::{Image, Member};
use haneul_core::clock;
use haneul_store::Stored;
use serde_json::{Map, Value, json};

pub(super) fn image(image: &Stored<Image>) -> Value {
    let href = format!("/v2/images/{}", image.id);
    let base = json!({
        "id": image.id,
        "name": image.name,
        "status": image.status,
        "visibility": image.visibility,
        "protected": image.protected,
        "os_hidden": image.os_hidden,
        "owner": image.owner,
        "disk_format": image.disk_format,
        "container_format": image.container_format,
        "min_disk": image.min_disk,
        "min_ram": image.min_ram,
        "size": image.size,
        "virtual_size": image.virtual_size,
        "checksum": image.checksum,
        "os_hash_algo": image.os_hash_algo,
        "os_hash_value": image.os_hash_value,
        "created_at": clock::iso(image.created_at),
        "updated_at": clock::iso(image.updated_at),
        "tags": image.tags,
        "self": href,
        "file": format!("{href}/file"),
        "schema": "/v2/schemas/image",
    });
    let mut base = base;
    if let Some(map) = base.as_object_mut() {
        let places = image.places();
        if !places.is_empty() {
            map.insert("stores".into(), places.join(",").into());
        }
        if let Some(import) = &image.import {
            map.insert("os_glance_importing_to_stores".into(), import.to.join(",").into());
            map.insert("os_glance_failed_import".into(), import.failed.join(",").into());
            if let Some(task) = &import.task {
                map.insert("os_glance_import_task".into(), task.as_str().into());
            }
        }
    }
    // Properties stand beside the attributes; no property can have an attribute's name.
    let mut all: Map<String, Value> = image
        .properties
        .iter()
        .map(|(k, v)| (k.clone(), Value::from(v.as_str())))
        .collect();
    if let Value::Object(base) = base {
        all.extend(base);
    }
    Value::Object(all)
}

pub(super) fn member(member: &Stored<Member>) -> Value {
    json!({
        "member_id": member.member_id,
        "image_id": member.image_id,
        "status": member.status,
        "created_at": clock::iso(member.created_at),
        "updated_at": clock::iso(member.updated_at),
        "schema": "/v2/schemas/member",
    })
}

pub(super) fn members(list: &[Stored<Member>]) -> Value {
    json!({
        "members": list.iter().map(member).collect::<Vec<_>>(),
        "schema": "/v2/schemas/members",
    })
}

/// A page of images with Glance's links. `query` is the request's, without the marker.
pub(super) fn images(list: &[Stored<Image>], query: &[(String, String)], next: Option<&str>) -> Value {
    let encode = haneul_http::request::percent_encode;
    let mut pairs: Vec<String> = query
        .iter()
        .filter(|(k, _)| k != "marker")
        .map(|(k, v)| format!("{}={}", encode(k), encode(v)))
        .collect();
    let link = |pairs: &[String]| {
        if pairs.is_empty() {
            "/v2/images".to_owned()
        } else {
            format!("/v2/images?{}", pairs.join("&"))
        }
    };
    let mut body = json!({
        "images": list.iter().map(image).collect::<Vec<_>>(),
        "first": link(&pairs),
        "schema": "/v2/schemas/images",
    });
    if let (Some(id), Some(map)) = (next, body.as_object_mut()) {
        pairs.push(format!("marker={}", encode(id)));
        map.insert("next".into(), link(&pairs).into());
    }
    body
}
