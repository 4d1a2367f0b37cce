//! `/v2/tasks` (Glance API reference, "Tasks"; glance/api/v2/tasks.py). One rule opens or shuts all of it.

use super::listing::Listing;
use super::{errors, json_body, metadef_view};
use crate::Images;
use crate::logic::tasks;
use crate::model::task::{TYPES, parse_task, task_schema, tasks_schema};
use crate::model::{Task, TaskStatus};
use crate::policy::TasksAccess;
use crate::store::{task_fetch, task_list};
use haneul_auth::{Action, Target};
use haneul_core::{Error, Kind, Result, clock, id};
use haneul_http::{Reply, Req};
use haneul_store::{Query, Stored};
use serde_json::{Map, Value, json};
use std::sync::Arc;

const SORT_KEYS: &[(&str, &str)] = &[
    ("type", "name"),
    ("status", "status"),
    ("created_at", "created_at"),
    ("updated_at", "updated_at"),
    ("expires_at", "expires_at"),
    ("id", "id"),
];

fn path(task: &Task) -> String {
    format!("/v2/tasks/{}", task.id)
}

/// As lists show it.
fn stub(task: &Stored<Task>) -> Map<String, Value> {
    let all = json!({
        "id": task.id,
        "type": task.kind,
        "status": task.status,
        "owner": task.owner,
        "created_at": clock::iso(task.created_at),
        "updated_at": clock::iso(task.updated_at),
        "self": path(task),
        "schema": "/v2/schemas/task",
    });
    let mut map = all.as_object().cloned().unwrap_or_default();
    if let Some(end) = task.expires_at {
        map.insert("expires_at".into(), clock::iso(end).into());
    }
    map
}

/// The whole task.
pub(super) fn view(task: &Stored<Task>) -> Value {
    let mut map = stub(task);
    map.insert("input".into(), task.input.clone());
    map.insert("result".into(), task.result.clone().unwrap_or_default());
    map.insert("message".into(), task.message.as_str().into());
    map.insert("request_id".into(), task.request_id.as_str().into());
    map.insert("user_id".into(), task.user_id.as_str().into());
    if let Some(image) = &task.image_id {
        map.insert("image_id".into(), image.as_str().into());
    }
    Value::Object(map)
}

/// Who has no access is told so before anything is looked at.
fn access(req: &Req) -> Result<()> {
    let ctx = req.ctx()?;
    ctx.enforce(TasksAccess::RULE, &Target::own(ctx))
}

pub(super) async fn create(app: Arc<Images>, mut req: Req) -> Result<Reply> {
    access(&req)?;
    let ctx = req.ctx()?.clone();
    let (kind, input) = parse_task(&json_body(&mut req).await?)?;
    let made = tasks::create(&app, &ctx, kind, input).await?;
    Ok(Reply::created(&view(&made)).header("location", path(&made)))
}

fn filtered(req: &Req) -> Result<Query> {
    let ctx = req.ctx()?;
    let mut query = Query::new();
    if !ctx.is_admin() {
        query = query.eq("project_id", ctx.project_id());
    }
    for (name, column, known) in [("status", "status", TaskStatus::NAMES), ("type", "name", TYPES)] {
        let Some(value) = req.q(name).filter(|v| !v.is_empty()) else {
            continue;
        };
        if !known.contains(&value) {
            return Err(Error::field(
                name,
                format!("Invalid {name} value: {value}. It must be one of {}.", known.join(", ")),
            ));
        }
        query = query.eq(column, value);
    }
    Ok(query)
}

pub(super) async fn index(app: Arc<Images>, req: Req) -> Result<Reply> {
    access(&req)?;
    let ctx = req.ctx()?;
    let listing = Listing::of(&req, SORT_KEYS)?;
    let query = filtered(&req)?;
    let mut tx = app.db.read().await?;
    let marker = match &listing.marker {
        None => None,
        Some(text) if !id::is_uuid(text) => {
            return Err(Error::field(
                "marker",
                "Invalid marker format: it must be the id of a task.",
            ));
        }
        // Glance answers 400 here, where other lists answer 404.
        Some(text) => Some(
            task_fetch(&mut tx, ctx, TasksAccess, text)
                .await
                .map_err(|e| Error::field("marker", e.public().to_owned()))?,
        ),
    };
    let query = listing
        .order::<Task>(query, marker.as_deref())
        .limit(listing.limit() + 1);
    let mut found = task_list(&mut tx, query).await?;
    drop(tx);
    let page = usize::try_from(listing.limit()).unwrap_or(0);
    let more = page > 0 && found.len() > page;
    found.truncate(page);
    let next = found.last().filter(|_| more).map(|t| t.id.clone());
    let items = found.iter().map(|t| Value::Object(stub(t))).collect();
    Ok(Reply::ok(&metadef_view::page(
        "tasks",
        "/v2/tasks",
        "/v2/schemas/tasks",
        items,
        &req.query,
        next.as_deref(),
    )))
}

pub(super) async fn show(app: Arc<Images>, req: Req) -> Result<Reply> {
    access(&req)?;
    let mut tx = app.db.read().await?;
    let found = task_fetch(&mut tx, req.ctx()?, TasksAccess, req.param("task_id")).await?;
    Ok(Reply::ok(&view(&found)))
}

/// Tasks go by themselves; Glance refuses this whether there is such a task or not.
pub(super) async fn delete(_app: Arc<Images>, req: Req) -> Result<Reply> {
    access(&req)?;
    let e = Error::new(
        Kind::MethodNotAllowed,
        "Tasks cannot be deleted: each is removed by itself some time after its expires_at.",
    );
    Ok(errors::reply(&e, &req.request_id).header("allow", "GET"))
}

pub(super) async fn schema(_app: Arc<Images>, _req: Req) -> Result<Reply> {
    Ok(Reply::ok(&task_schema()))
}

pub(super) async fn list_schema(_app: Arc<Images>, _req: Req) -> Result<Reply> {
    Ok(Reply::ok(&tasks_schema()))
}
