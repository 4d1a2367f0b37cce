//! Queries of tasks.

use crate::model::{Task, TaskStatus};
use haneul_auth::{Action, Authorized, Ctx, Secured, fetch};
use haneul_core::{Result, clock};
use haneul_store::{Dir, Query, Stored, Tx};

/// A task that has not expired, with permission.
pub(crate) async fn task_fetch<A: Action<On = Task>>(
    tx: &mut Tx,
    ctx: &Ctx,
    action: A,
    id: &str,
) -> Result<Authorized<Task, A>> {
    if id.contains('\0') {
        return Err(Task::not_found(id));
    }
    let task = fetch(tx, ctx, action, &id.to_ascii_lowercase()).await?;
    match task.expires_at {
        Some(end) if end <= clock::now() => Err(Task::not_found(id)),
        _ => Ok(task),
    }
}

/// A page of tasks that have not expired. The query carries the caller's scope.
pub(crate) async fn task_list(tx: &mut Tx, query: Query) -> Result<Vec<Stored<Task>>> {
    tx.list(&query.gt("expires_at", clock::now())).await
}

/// Tasks about an image.
pub(crate) async fn tasks_of_image(tx: &mut Tx, image_id: &str) -> Result<Vec<Stored<Task>>> {
    let query = Query::new().eq("image_id", image_id);
    task_list(tx, query.order("created_at", Dir::Desc).order("id", Dir::Desc)).await
}

/// How many a project has that have not expired.
pub(crate) async fn task_count(tx: &mut Tx, owner: Option<&str>) -> Result<i64> {
    let query = match owner {
        Some(o) => Query::new().eq("project_id", o),
        None => Query::new().is_null("project_id"),
    };
    tx.count::<Task>(&query.gt("expires_at", clock::now())).await
}

/// Some of the tasks whose time is over.
pub(crate) async fn tasks_expired(tx: &mut Tx, limit: i64) -> Result<Vec<Stored<Task>>> {
    let query = Query::new().le("expires_at", clock::now());
    tx.list(&query.order("expires_at", Dir::Asc).limit(limit)).await
}

/// Ids of the tasks that have not ended.
pub(crate) async fn tasks_open(tx: &mut Tx) -> Result<Vec<String>> {
    let open = [TaskStatus::Pending, TaskStatus::Processing].map(TaskStatus::as_str);
    let query = Query::new().is_in("status", open).order("id", Dir::Asc);
    let rows = tx.columns_of::<Task>("id", &query).await?;
    rows.iter().map(|r| r.str(0)).collect()
}
