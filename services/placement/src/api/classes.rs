//! Resource classes and traits (Placement API reference, "Resource Classes", "Traits").

use super::{allow, cached, check, json_only, known_query};
use crate::names::Names;
use crate::{Placement, policy};
use haneul_core::{Error, Result, clock};
use haneul_http::{Body, FieldKind as K, Reply, Req, Ver, f};
use http::StatusCode;
use serde_json::{Value, json};
use std::sync::Arc;

static NEW: Body = Body {
    open: false,
    fields: &[f("name", K::Str { min: 1, max: 255 }).req()],
};

fn class_view(name: &str) -> Value {
    let base = format!("/placement/resource_classes/{name}");
    json!({"name": name, "links": [{"rel": "self", "href": base}]})
}

pub async fn list(app: Arc<Placement>, req: Req) -> Result<Reply> {
    allow(&req, policy::ClassesList)?;
    json_only(&req)?;
    let mut tx = app.db.read().await?;
    let all = Names::Class.all(&mut tx).await?;
    let views: Vec<Value> = all.iter().map(|n| class_view(n)).collect();
    let reply = Reply::ok(&json!({"resource_classes": views}));
    Ok(cached(&req, reply, clock::now()))
}

pub async fn create(app: Arc<Placement>, mut req: Req) -> Result<Reply> {
    allow(&req, policy::ClassesCreate)?;
    let body = req.json().await?;
    check(&NEW, &body, req.version, "body")?;
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
    Ok(Reply::empty(StatusCode::CREATED).header("location", format!("{}/resource_classes/{name}", req.base)))
}

pub async fn show(app: Arc<Placement>, req: Req) -> Result<Reply> {
    allow(&req, policy::ClassesShow)?;
    json_only(&req)?;
    let name = req.param("name");
    let mut tx = app.db.read().await?;
    if !Names::Class.known(&mut tx, name).await? {
        return Err(Names::Class.none(name));
    }
    Ok(cached(&req, Reply::ok(&class_view(name)), clock::now()))
}

/// Before 1.7, PUT gave a custom class another name.
async fn rename(app: Arc<Placement>, mut req: Req) -> Result<Reply> {
    let old = req.param("name").to_owned();
    let body = req.json().await?;
    check(&NEW, &body, req.version, "body")?;
    let name = body["name"].as_str().unwrap_or_default().to_owned();
    let shown = name.clone();
    app.db
        .write(&req.ctx()?.actor(), async move |tx| {
            Names::Class.must_be_valid(&name)?;
            if !Names::Class.known(tx, &old).await? {
                return Err(Names::Class.none(&old));
            }
            if Names::Class.must_be_custom(&old).is_err() {
                return Err(Error::bad_request(format!(
                    "Cannot update standard resource class {old}"
                )));
            }
            if name == old {
                return Ok(());
            }
            if !Names::Class.add(tx, &name).await? {
                return Err(Error::conflict(format!("Resource class already exists: {name}")));
            }
            for table in ["placement_inventory", "placement_allocation"] {
                tx.exec(
                    &format!("UPDATE {table} SET class = $1 WHERE class = $2"),
                    &[name.as_str().into(), old.as_str().into()],
                )
                .await?;
            }
            Names::Class.remove(tx, &old).await
        })
        .await?;
    Ok(Reply::ok(&class_view(&shown)))
}

pub async fn put(app: Arc<Placement>, req: Req) -> Result<Reply> {
    allow(&req, policy::ClassesUpdate)?;
    if req.version < Ver(1, 7) {
        return rename(app, req).await;
    }
    let name = req.param("name").to_owned();
    let location = format!("{}/resource_classes/{name}", req.base);
    let new = app
        .db
        .write(&req.ctx()?.actor(), async move |tx| Names::Class.add(tx, &name).await)
        .await?;
    let status = if new {
        StatusCode::CREATED
    } else {
        StatusCode::NO_CONTENT
    };
    let reply = Reply::empty(status).header("location", location);
    Ok(reply)
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
                    "Error in delete resource class: Cannot delete resource class {name}. Class is in use in inventory."
                )));
            }
            Names::Class.remove(tx, &name).await
        })
        .await?;
    Ok(Reply::no_content())
}

pub async fn traits(app: Arc<Placement>, req: Req) -> Result<Reply> {
    allow(&req, policy::TraitsList)?;
    json_only(&req)?;
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
                format!(
                    "Badly formatted name parameter. Expected name query string parameter in form: ?name=[in|startswith]:[name1,name2|prefix]. Got: \"{filter}\""
                ),
            ));
        }
    }
    let associated = match req.q("associated").map(str::to_ascii_lowercase).as_deref() {
        None => None,
        Some("true") => Some(true),
        Some("false") => Some(false),
        Some(_) => {
            return Err(Error::field(
                "associated",
                "The query parameter \"associated\" only accepts \"true\" or \"false\"",
            ));
        }
    };
    if let Some(wanted) = associated {
        let used: Vec<String> = app
            .snapshot_providers(&mut tx)
            .await?
            .into_iter()
            .flat_map(|p| p.traits)
            .collect();
        all.retain(|n| used.contains(n) == wanted);
    }
    let reply = Reply::ok(&json!({"traits": all}));
    Ok(cached(&req, reply, clock::now()))
}

pub async fn show_trait(app: Arc<Placement>, req: Req) -> Result<Reply> {
    allow(&req, policy::TraitsShow)?;
    let mut tx = app.db.read().await?;
    if !Names::Trait.known(&mut tx, req.param("name")).await? {
        return Err(Names::Trait.none(req.param("name")));
    }
    Ok(cached(&req, Reply::no_content(), clock::now()))
}

pub async fn put_trait(app: Arc<Placement>, req: Req) -> Result<Reply> {
    allow(&req, policy::TraitsUpdate)?;
    let name = req.param("name").to_owned();
    let location = format!("{}/traits/{name}", req.base);
    let new = app
        .db
        .write(&req.ctx()?.actor(), async move |tx| Names::Trait.add(tx, &name).await)
        .await?;
    let status = if new {
        StatusCode::CREATED
    } else {
        StatusCode::NO_CONTENT
    };
    let reply = Reply::empty(status).header("location", location);
    Ok(cached(&req, reply, clock::now()))
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
