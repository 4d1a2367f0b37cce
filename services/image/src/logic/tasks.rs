//! Tasks (Glance API reference, "Tasks"): made in one transaction, ended in the next, and after a crash by the
//! reconciler, so that none stays `pending`.

use crate::Images;
use crate::model::task::{MAX_TASKS, TIME_TO_LIVE, refusal};
use crate::model::{Task, TaskStatus};
use crate::policy::TasksAccess;
use crate::store::{task_count, tasks_expired};
use haneul_auth::{Ctx, Target, allow_create};
use haneul_core::{Error, Kind, Result, clock, fault_point, id};
use haneul_store::{Actor, CreateGrant, Stored, System, Tx};
use serde_json::Value;
use std::sync::Arc;

/// Expired tasks that a new one takes along.
const SWEEP: i64 = 100;

/// A new row, which is `pending`; expired ones go along.
pub(crate) async fn new_task(
    tx: &mut Tx,
    ctx: &Ctx,
    kind: &str,
    input: Value,
    image_id: Option<String>,
    grant: &impl CreateGrant<Task>,
) -> Result<Stored<Task>> {
    for old in tasks_expired(tx, SWEEP).await? {
        tx.delete(&System::of(old)).await?;
    }
    let owner = Some(ctx.project_id().to_owned()).filter(|p| !p.is_empty());
    if task_count(tx, owner.as_deref()).await? >= MAX_TASKS {
        return Err(Error::new(
            Kind::TooLarge,
            format!("The project has {MAX_TASKS} tasks, and no more are allowed until some have expired."),
        ));
    }
    let task = Task {
        v: 1,
        id: id::uuid(),
        kind: kind.to_owned(),
        status: TaskStatus::Pending,
        owner,
        user_id: ctx.user_id.clone(),
        request_id: ctx.request_id.to_string(),
        image_id,
        input,
        result: None,
        message: String::new(),
        expires_at: None,
    };
    let stored = tx.insert(grant, &task).await?;
    stored.ok_or_else(|| Error::internal("a new task's id was taken"))
}

/// A new task, which is answered as `pending`.
pub(crate) async fn create(app: &Arc<Images>, ctx: &Ctx, kind: String, input: Value) -> Result<Stored<Task>> {
    let ctx_ = ctx.clone();
    let stored = app
        .db
        .write(&ctx.actor(), async move |tx| {
            let grant = allow_create(&ctx_, TasksAccess, &Target::own(&ctx_))?;
            let image = input.get("image_id").and_then(Value::as_str).map(str::to_owned);
            new_task(tx, &ctx_, &kind, input.clone(), image, &grant).await
        })
        .await?;
    let (app, id) = (app.clone(), stored.id.clone());
    tokio::spawn(async move {
        fault_point!("image.task.created");
        if let Err(e) = app.finish_task(&id).await {
            tracing::warn!(task = id, error = %e, "ending a task failed; trying again");
            app.mend_later();
        }
    });
    Ok(stored)
}

impl Images {
    /// Brings a task to its end, unless a job does. Doing it twice is fine.
    pub(crate) async fn finish_task(&self, id: &str) -> Result<bool> {
        let id = id.to_owned();
        self.db
            .write(&Actor::system("image-task"), async move |tx| {
                let Some(stored) = tx.find::<Task>(&id).await?.filter(|t| t.status.open()) else {
                    return Ok(false);
                };
                if stored.is_import() {
                    // It has a job, which ends it.
                    return Ok(false);
                }
                let mut task = stored.value.clone();
                let stored = if task.status == TaskStatus::Pending {
                    task.status = TaskStatus::Processing;
                    tx.update(&System::of(stored), &task).await?
                } else {
                    stored
                };
                task.status = TaskStatus::Failure;
                task.message = refusal(&task);
                task.expires_at = Some(clock::now() + TIME_TO_LIVE);
                tx.update(&System::of(stored), &task).await.map(|_| true)
            })
            .await
    }
}
