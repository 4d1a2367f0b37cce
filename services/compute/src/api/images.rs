//! Images as compute shows them, until 2.35, and their metadata, until 2.38 (Nova API reference, "Images", "Image
//! metadata"). They are the image service's, in Nova's words.

use super::sub::{METADATA, checked, no_item};
use super::view::Links;
use crate::Compute;
use crate::logic::deps::SeenImage;
use crate::logic::quota::metadata_within;
use haneul_core::{Error, Kind, Result, clock};
use haneul_http::request::parse_bool;
use haneul_http::{Page, Reply, Req};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

fn links(base: &str, id: &str) -> Result<Value> {
    let mut links = serde_json::to_value(Links {
        base,
        kind: "images",
        id,
    })?;
    let service = base.strip_suffix("/compute").unwrap_or(base);
    if let Some(list) = links.as_array_mut() {
        list.push(json!({
            "rel": "alternate", "type": "application/vnd.openstack.image", "href": format!("{service}/image/images/{id}"),
        }));
    }
    Ok(links)
}

/// nova/api/openstack/compute/views/images.py, _get_status and _get_progress.
fn state(status: &str) -> (&'static str, i64) {
    match status {
        "active" => ("ACTIVE", 100),
        "queued" => ("SAVING", 25),
        "saving" => ("SAVING", 50),
        "deleted" | "pending_delete" => ("DELETED", 0),
        "killed" => ("ERROR", 0),
        _ => ("UNKNOWN", 0),
    }
}

fn view(base: &str, i: &SeenImage) -> Result<Value> {
    let (status, progress) = state(&i.status);
    let mut out = json!({
        "id": i.id, "name": i.name, "minRam": i.min_ram, "minDisk": i.min_disk, "metadata": i.properties,
        "created": clock::iso(i.created_at), "updated": clock::iso(i.updated_at), "status": status,
        "progress": progress, "OS-EXT-IMG-SIZE:size": i.size.unwrap_or(0), "links": links(base, &i.id)?,
    });
    if let Some(id) = i.properties.get("instance_uuid") {
        let links = serde_json::to_value(Links {
            base,
            kind: "servers",
            id,
        })?;
        out["server"] = json!({"id": id, "links": links});
    }
    if let Some(auto) = i.properties.get("auto_disk_config") {
        let auto = parse_bool(auto).unwrap_or(false);
        out["OS-DCF:diskConfig"] = if auto { "AUTO" } else { "MANUAL" }.into();
    }
    Ok(out)
}

/// Nova's names for what Glance's list takes.
fn query(req: &Req) -> Vec<(String, String)> {
    let mut out = vec![];
    for (name, value) in &req.query {
        let (name, value) = match name.as_str() {
            "name" | "marker" | "limit" => (name.as_str(), value.clone()),
            "status" => ("status", value.to_ascii_lowercase()),
            "changes-since" => ("updated_at", format!("gte:{value}")),
            // An id, or a link that ends in it.
            "server" => ("instance_uuid", value.rsplit('/').next().unwrap_or_default().to_owned()),
            "type" => ("image_type", value.clone()),
            "minRam" => ("min_ram", value.clone()),
            "minDisk" => ("min_disk", value.clone()),
            other => match other.strip_prefix("property-") {
                Some(property) => (property, value.clone()),
                None => continue,
            },
        };
        out.push((name.to_owned(), value));
    }
    if req.q("limit").is_none() {
        out.push(("limit".into(), req.max_limit.to_string()));
    }
    out
}

async fn list(app: &Compute, req: &Req, detail: bool) -> Result<Reply> {
    let (images, next) = app.image.see_all(req.ctx()?, &query(req), req.max_limit).await?;
    let shown = |i: &SeenImage| match detail {
        true => view(&req.base, i),
        false => Ok(json!({"id": i.id, "name": i.name, "links": links(&req.base, &i.id)?})),
    };
    let mut body = json!({"images": images.iter().map(shown).collect::<Result<Vec<_>>>()?});
    if let Some(last) = next {
        let path = if detail { "/v2.1/images/detail" } else { "/v2.1/images" };
        body["images_links"] = Page::next_link(req, path, &last);
    }
    Ok(Reply::ok(&body))
}

/// `GET /images`
pub(crate) async fn index(app: Arc<Compute>, req: Req) -> Result<Reply> {
    list(&app, &req, false).await
}

/// `GET /images/detail`
pub(crate) async fn detail(app: Arc<Compute>, req: Req) -> Result<Reply> {
    list(&app, &req, true).await
}

/// `GET /images/{id}`
pub(crate) async fn show(app: Arc<Compute>, req: Req) -> Result<Reply> {
    let image = app.image.see(req.ctx()?, req.param("id")).await?;
    Ok(Reply::ok(&json!({"image": view(&req.base, &image)?})))
}

/// `DELETE /images/{id}`
pub(crate) async fn delete(app: Arc<Compute>, req: Req) -> Result<Reply> {
    app.image.delete(req.ctx()?, req.param("id")).await?;
    Ok(Reply::no_content())
}

type Pairs = BTreeMap<String, String>;

/// Changes the image's properties within the project's quota for metadata.
async fn change(app: &Compute, req: &Req, change: impl Fn(&mut Pairs) -> Result<()> + Send + 'static) -> Result<Pairs> {
    let ctx = req.ctx()?;
    let most = app
        .limit(&mut app.db.read().await?, ctx.project_id(), "metadata_items")
        .await?;
    let image = app
        .image
        .change_properties(ctx, req.param("id"), move |all| {
            change(all)?;
            metadata_within(all.len(), most)
        })
        .await
        .map_err(|e| match e.kind() {
            Kind::Conflict => e.with_kind(Kind::BadRequest),
            _ => e,
        })?;
    Ok(image.properties)
}

/// `GET /images/{id}/metadata`
pub(crate) async fn metadata(app: Arc<Compute>, req: Req) -> Result<Reply> {
    let image = app.image.see(req.ctx()?, req.param("id")).await?;
    Ok(Reply::ok(&json!({"metadata": image.properties})))
}

/// `POST /images/{id}/metadata`: adds and replaces items.
pub(crate) async fn metadata_create(app: Arc<Compute>, mut req: Req) -> Result<Reply> {
    let new = checked(&req.fields("metadata", &METADATA).await?, "metadata")?;
    let all = change(&app, &req, move |all| {
        all.extend(new.clone());
        Ok(())
    })
    .await?;
    Ok(Reply::ok(&json!({"metadata": all})))
}

/// `PUT /images/{id}/metadata`: replaces all.
pub(crate) async fn metadata_replace(app: Arc<Compute>, mut req: Req) -> Result<Reply> {
    let new = checked(&req.fields("metadata", &METADATA).await?, "metadata")?;
    let all = change(&app, &req, move |all| {
        all.clone_from(&new);
        Ok(())
    })
    .await?;
    Ok(Reply::ok(&json!({"metadata": all})))
}

/// `GET /images/{id}/metadata/{key}`
pub(crate) async fn metadata_item(app: Arc<Compute>, req: Req) -> Result<Reply> {
    let key = req.param("key");
    let image = app.image.see(req.ctx()?, req.param("id")).await?;
    let value = image.properties.get(key).ok_or_else(no_item)?;
    Ok(Reply::ok(&json!({"meta": {key: value}})))
}

/// `PUT /images/{id}/metadata/{key}`
pub(crate) async fn metadata_item_set(app: Arc<Compute>, mut req: Req) -> Result<Reply> {
    let new = checked(&req.fields("meta", &METADATA).await?, "meta")?;
    if new.len() != 1 || !new.contains_key(req.param("key")) {
        return Err(Error::field("meta", "Request body and URI mismatch"));
    }
    let shown = new.clone();
    change(&app, &req, move |all| {
        all.extend(new.clone());
        Ok(())
    })
    .await?;
    Ok(Reply::ok(&json!({"meta": shown})))
}

/// `DELETE /images/{id}/metadata/{key}`
pub(crate) async fn metadata_item_delete(app: Arc<Compute>, req: Req) -> Result<Reply> {
    let key = req.param("key").to_owned();
    change(&app, &req, move |all| all.remove(&key).map(|_| ()).ok_or_else(no_item)).await?;
    Ok(Reply::no_content())
}
