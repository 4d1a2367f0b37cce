//! /v3/projects/{project_id}/tags (API reference: Identity API v3, "Project tags").

use super::common::{self, TAGS};
use crate::Identity;
use crate::model::{Project, missing};
use crate::policy::{
    CreateProjectTag, DeleteProjectTag, DeleteProjectTags, GetProjectTag, ListProjectTags, UpdateProjectTags,
};
use haneul_auth::{Action, fetch};
use haneul_core::{Error, Result};
use haneul_http::{Body, Reply, Req, Ver, f, fields};
use serde_json::{Value, json};
use std::sync::Arc;

static PUT: Body = Body {
    open: false,
    fields: &[f("tags", TAGS).req()],
};

/// The most tags that a project has.
const MAX: usize = 80;

/// GET /v3/projects/{project_id}/tags
pub(crate) async fn list(app: Arc<Identity>, req: Req) -> Result<Reply> {
    let (ctx, id, base) = (req.ctx()?.clone(), req.param("project_id").to_owned(), req.base.clone());
    let p = fetch(&mut app.db.read().await?, &ctx, ListProjectTags, &id).await?;
    Ok(Reply::ok(&all(&base, &p)))
}

fn all(base: &str, p: &Project) -> Value {
    json!({"tags": p.tags, "links": {"next": null, "previous": null, "self": format!("{base}/v3/projects/{}/tags", p.id)}})
}

/// GET and HEAD /v3/projects/{project_id}/tags/{value}
pub(crate) async fn check(app: Arc<Identity>, req: Req) -> Result<Reply> {
    let (ctx, id, tag) = (
        req.ctx()?.clone(),
        req.param("project_id").to_owned(),
        req.param("value").to_owned(),
    );
    let p = fetch(&mut app.db.read().await?, &ctx, GetProjectTag, &id).await?;
    if !p.tags.contains(&tag) {
        return Err(missing("project tag", &tag));
    }
    Ok(Reply::no_content())
}

async fn change<A: Action<On = Project> + Copy>(
    app: &Arc<Identity>,
    ctx: haneul_auth::Ctx,
    action: A,
    id: String,
    change: impl Fn(&mut Vec<String>) -> Result<()> + Send + Sync + 'static,
) -> Result<Project> {
    let asker = ctx.clone();
    app.db
        .write(&ctx.actor(), async move |tx| {
            let found = fetch(tx, &asker, action, &id).await?;
            let mut value = found.edit();
            change(&mut value.tags)?;
            if value.tags == found.tags {
                return Ok(value);
            }
            Ok(tx.update(&found, &value).await?.value)
        })
        .await
}

/// PUT /v3/projects/{project_id}/tags/{value}
pub(crate) async fn add(app: Arc<Identity>, req: Req) -> Result<Reply> {
    let (ctx, id, tag) = (
        req.ctx()?.clone(),
        req.param("project_id").to_owned(),
        req.param("value").to_owned(),
    );
    common::tag(&tag).map_err(|why| Error::field("value", format!("Invalid input for field 'value': {why}")))?;
    let link = format!(
        "{}/v3/projects/{id}/tags/{}",
        req.base,
        haneul_http::request::percent_encode(&tag)
    );
    change(&app, ctx, CreateProjectTag, id, move |tags| {
        if !tags.contains(&tag) {
            if tags.len() >= MAX {
                return Err(Error::field(
                    "value",
                    format!("Invalid input for field 'tags': the project has {MAX} tags, and no more are allowed."),
                ));
            }
            tags.push(tag.clone());
        }
        Ok(())
    })
    .await?;
    Ok(Reply::empty(http::StatusCode::CREATED).header("location", link))
}

/// PUT /v3/projects/{project_id}/tags
pub(crate) async fn replace(app: Arc<Identity>, mut req: Req) -> Result<Reply> {
    let (ctx, id, base) = (req.ctx()?.clone(), req.param("project_id").to_owned(), req.base.clone());
    let body = req.json().await?;
    fields::check(&PUT, &body, Ver(0, 0), "body")?;
    let mut wanted: Vec<String> = Vec::new();
    for tag in body
        .get("tags")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
    {
        if !wanted.iter().any(|t| t == tag) {
            wanted.push(tag.to_owned());
        }
    }
    let p = change(&app, ctx, UpdateProjectTags, id, move |tags| {
        tags.clone_from(&wanted);
        Ok(())
    })
    .await?;
    Ok(Reply::ok(&all(&base, &p)))
}

/// DELETE /v3/projects/{project_id}/tags/{value}
pub(crate) async fn remove(app: Arc<Identity>, req: Req) -> Result<Reply> {
    let (ctx, id, tag) = (
        req.ctx()?.clone(),
        req.param("project_id").to_owned(),
        req.param("value").to_owned(),
    );
    change(&app, ctx, DeleteProjectTag, id, move |tags| {
        let before = tags.len();
        tags.retain(|t| *t != tag);
        if tags.len() == before {
            Err(missing("project tag", &tag))
        } else {
            Ok(())
        }
    })
    .await?;
    Ok(Reply::no_content())
}

/// DELETE /v3/projects/{project_id}/tags
pub(crate) async fn clear(app: Arc<Identity>, req: Req) -> Result<Reply> {
    let (ctx, id) = (req.ctx()?.clone(), req.param("project_id").to_owned());
    change(&app, ctx, DeleteProjectTags, id, |tags| {
        tags.clear();
        Ok(())
    })
    .await?;
    Ok(Reply::no_content())
}
