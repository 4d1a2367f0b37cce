//! Resource classes and traits (Placement API reference, "Resource Classes", "Traits").

use super::{allow, known_query};
use crate::names::Names;
use crate::{Placement, policy};
use haneul_core::{Error, Result};
use haneul_http::{Body, FieldKind as K, Reply, Req, Ver, f};
use http::StatusCode;
use serde_json::{Value, json};
use std::sync::Arc;

static NEW: Body = Body {
    open: false,
    fields: &[f("name", K::Str { min: 1, max: 255 }).req()],
};

fn class_view(req: &Req, name: &str) -> Value {
    let base = format!("/placement/resource_classes/{name}");
    let mut links = vec![json!({"rel": "self", "href": base})];
    if req.version < Ver(1, 7) {
        links.truncate(1);
    }
    json!({"name": name, "links": links})
}

pub async fn list(app: Arc<Placement>, req: Req) -> Result<Reply> {
    allow(&req, policy::ClassesList)?;
    let mut tx = app.db.read().await?;
    let all = Names::Class.all(&mut tx).await?;
    let views: Vec<Value> = all.iter().map(|n| class_view(&req, n)).collect();
    Ok(Reply::ok(&json!({"resource_classes": views})))
}

pub async fn create(app: Arc<Placement>, mut req: Req) -> Result<Reply> {
    allow(&req, policy::ClassesCreate)?;
    let body = req.json().await?;
    haneul_http::fields::check(&NEW, &body, req.version, "body")?;
    let name = body["name"].as_str().unwrap_or_default().to_owned();
    let stored = name.clone();
    let new = app
        .db
        .write(&req.ctx()?.actor(), async move |tx| Names::Class.add(tx, &stored).await)
        .await?;
    if !new {
        return Err(Error::conflict(format!(
            "Conflicting resource class already exists: {name}"
        )));
    }
    Ok(Reply::empty(StatusCode::CREATED).header("location", format!("/placement/resource_classes/{name}")))
}

pub async fn show(app: Arc<Placement>, req: Req) -> Result<Reply> {
    allow(&req, policy::ClassesShow)?;
    let name = req.param("name");
    let mut tx = app.db.read().await?;
    if !Names::Class.known(&mut tx, name).await? {
        return Err(Error::not_found(format!("No such resource class {name}.")));
    }
    Ok(Reply::ok(&class_view(&req, name)))
}

pub async fn put(app: Arc<Placement>, req: Req) -> Result<Reply> {
    allow(&req, policy::ClassesUpdate)?;
    if req.version < Ver(1, 7) {
        return Err(Error::bad_request(
            "Renaming resource classes is not supported; use microversion 1.7, which makes sure that a class exists.",
        ));
    }
    let name = req.param("name").to_owned();
    let location = format!("/placement/resource_classes/{name}");
    let new = app
        .db
        .write(&req.ctx()?.actor(), async move |tx| Names::Class.add(tx, &name).await)
        .await?;
    Ok(Reply::empty(if new {
        StatusCode::CREATED
    } else {
        StatusCode::NO_CONTENT
    })
    .header("location", location))
}

pub async fn delete(app: Arc<Placement>, req: Req) -> Result<Reply> {
    allow(&req, policy::ClassesDelete)?;
    let name = req.param("name").to_owned();
    Names::Class.must_be_custom(&name)?;
    app.db
        .write(&req.ctx()?.actor(), async move |tx| {
            let used = tx
                .row(
                    "SELECT 1 FROM placement_inventory WHERE class = $1 LIMIT 1",
                    &[name.as_str().into()],
                )
                .await?;
            if used.is_some() {
                return Err(Error::conflict(format!(
                    "Cannot delete resource class {name}. Class is in use in inventory."
                )));
            }
            Names::Class.remove(tx, &name).await
        })
        .await?;
    Ok(Reply::no_content())
}

pub async fn traits(app: Arc<Placement>, req: Req) -> Result<Reply> {
    allow(&req, policy::TraitsList)?;
    known_query(&req, &[("name", Ver(1, 6)), ("associated", Ver(1, 6))])?;
    let mut tx = app.db.read().await?;
    let mut all = Names::Trait.all(&mut tx).await?;
    if let Some(filter) = req.q("name") {
        if let Some(prefix) = filter.strip_prefix("startswith:") {
            all.retain(|n| n.starts_with(prefix));
        } else if let Some(names) = filter.strip_prefix("in:") {
            all.retain(|n| names.split(',').any(|x| x == n));
        } else {
            return Err(Error::field(
                "name",
                "Badly formatted name parameter. Expected name query string parameter in form: ?name=[in|startswith]:[name1,name2|prefix].",
            ));
        }
    }
    if req.q_bool("associated")? == Some(true) {
        let used: Vec<String> = app
            .snapshot_providers(&mut tx)
            .await?
            .into_iter()
            .flat_map(|p| p.traits)
            .collect();
        all.retain(|n| used.contains(n));
    }
    Ok(Reply::ok(&json!({"traits": all})))
}

pub async fn show_trait(app: Arc<Placement>, req: Req) -> Result<Reply> {
    allow(&req, policy::TraitsShow)?;
    let mut tx = app.db.read().await?;
    if !Names::Trait.known(&mut tx, req.param("name")).await? {
        return Err(Error::not_found(format!("No such trait {}.", req.param("name"))));
    }
    Ok(Reply::no_content())
}

pub async fn put_trait(app: Arc<Placement>, req: Req) -> Result<Reply> {
    allow(&req, policy::TraitsUpdate)?;
    let name = req.param("name").to_owned();
    let location = format!("/placement/traits/{name}");
    let new = app
        .db
        .write(&req.ctx()?.actor(), async move |tx| Names::Trait.add(tx, &name).await)
        .await?;
    Ok(Reply::empty(if new {
        StatusCode::CREATED
    } else {
        StatusCode::NO_CONTENT
    })
    .header("location", location))
}

pub async fn delete_trait(app: Arc<Placement>, req: Req) -> Result<Reply> {
    allow(&req, policy::TraitsDelete)?;
    let name = req.param("name").to_owned();
    Names::Trait.must_be_custom(&name)?;
    let this = app.clone();
    app.db
        .write(&req.ctx()?.actor(), async move |tx| {
            if this
                .snapshot_providers(tx)
                .await?
                .iter()
                .any(|p| p.traits.contains(&name))
            {
                return Err(Error::conflict(format!(
                    "The trait {name} is in use by a resource provider."
                )));
            }
            Names::Trait.remove(tx, &name).await
        })
        .await?;
    Ok(Reply::no_content())
}
