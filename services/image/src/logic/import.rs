//! Import: the request is one transaction that leaves a task, a job and an image in `importing`. The bytes are moved
//! by [`super::import_run`], which can be killed at any point: it begins where the rows say that it stood.

use super::fetch::Remote;
use super::tasks::new_task;
use crate::Images;
use crate::model::import::{ImportRequest, Method, task_input};
use crate::model::task::TIME_TO_LIVE;
use crate::model::{Image, Import, Staged, Status, Task, TaskStatus};
use crate::policy::{CopyImage, ModifyImage};
use crate::store::{STAGING, image_fetch, image_update, trash_put};
use haneul_auth::Ctx;
use haneul_core::{Error, Kind, Result, clock, fault_point, id};
use haneul_jobs::{BoxFuture, Job, Next, Saga, Step};
use haneul_store::{Stored, System, Tx};
use serde_json::json;
use std::sync::{Arc, Weak};

/// The kind of the job.
pub(crate) const JOB: &str = "image.import";
/// The interfaces under which a catalog names a service.
const INTERFACES: &[&str] = &["public", "internal", "admin"];

/// Asks for an import.
pub(crate) async fn run(
    app: &Arc<Images>,
    ctx: &Ctx,
    image_id: &str,
    request: ImportRequest,
    token: &str,
) -> Result<()> {
    if let Method::Web { uri } = &request.method {
        app.rules.admits(uri).map_err(|why| {
            Error::field(
                "method.uri",
                format!("URI for web-download does not pass filtering: {uri}: {why}."),
            )
        })?;
    }
    let remote = remote(app, &request, token);
    let (app_, ctx_, id) = (app.clone(), ctx.clone(), image_id.to_owned());
    let task = app
        .db
        .write(&ctx.actor(), async move |tx| {
            // Copying is an administrator's, and needs no hold on the image itself.
            if request.method == Method::Copy {
                let found = image_fetch(tx, &ctx_, CopyImage, &id).await?;
                begin(&app_, tx, &ctx_, &found, &request).await
            } else {
                let found = image_fetch(tx, &ctx_, ModifyImage, &id).await?;
                begin(&app_, tx, &ctx_, &found, &request).await
            }
        })
        .await?;
    fault_point!("image.import.begun");
    if let Some(task) = task {
        app.work_on(&task, remote);
    }
    Ok(())
}

/// Another region's service, with the token of this request. The token is kept in memory only: an import that a
/// restart interrupts has to be asked for again.
fn remote(app: &Images, request: &ImportRequest, token: &str) -> Option<Remote> {
    let Method::Remote { region, interface, .. } = &request.method else {
        return None;
    };
    if !INTERFACES.contains(&interface.as_str()) {
        return None;
    }
    app.regions.iter().find(|r| r.name == *region).map(|r| Remote {
        url: r.url.clone(),
        token: token.to_owned(),
    })
}

/// Whether the region is this one.
pub(crate) fn is_here(app: &Images, region: &str, interface: &str) -> bool {
    region == app.region && INTERFACES.contains(&interface)
}

/// Everything that the request changes. `None`: there is nothing to do.
async fn begin(
    app: &Images,
    tx: &mut Tx,
    ctx: &Ctx,
    found: &Stored<Image>,
    request: &ImportRequest,
) -> Result<Option<String>> {
    may_begin(found, request)?;
    if found.import.as_ref().is_some_and(|i| i.task.is_some()) {
        return Err(Error::conflict(format!(
            "New operation on image '{}' is not permitted as prior operation is still in progress",
            found.id
        )));
    }
    let there = found.places();
    let mut stores = match (request.all_stores, request.stores.is_empty()) {
        (true, _) => app.stores.writable_ids(),
        (false, true) => app.stores.of_imports(),
        (false, false) => request.stores.clone(),
    };
    for store in &stores {
        app.stores.writable(store)?;
    }
    if request.method == Method::Copy {
        if request.all_stores {
            stores.retain(|s| !there.contains(s));
        } else if let Some(store) = stores.iter().find(|s| there.contains(s)) {
            return Err(Error::field(
                "stores",
                format!("Image is already present at store '{store}'"),
            ));
        }
        if stores.is_empty() {
            return Ok(None);
        }
    }
    let input = task_input(&found.id, request, &stores);
    let task = new_task(
        tx,
        ctx,
        "api_image_import",
        input,
        Some(found.id.clone()),
        &System::create(),
    )
    .await?;
    let mut image = found.value.clone();
    image.caller_member = None;
    image.import = Some(Import {
        task: Some(task.id.clone()),
        to: stores,
        failed: Vec::new(),
        done: Vec::new(),
    });
    if request.method != Method::Copy {
        image.status = Status::Importing;
        image.file = Some(id::hex());
    }
    if matches!(request.method, Method::Web { .. } | Method::Remote { .. }) {
        image.staged = Some(Staged {
            key: id::hex(),
            size: None,
            converted: None,
        });
    }
    // Permission was given by the look-up of the caller, in this transaction.
    image_update(tx, &System::of(found.clone()), &image).await?;
    let state = json!({"v": 1, "task": task.id});
    app.jobs.start(tx, JOB, ("image", &found.id), state).await?;
    Ok(Some(task.id.clone()))
}

/// Glance's refusals, in its order.
fn may_begin(image: &Image, request: &ImportRequest) -> Result<()> {
    let refused = |why: String| Err(Error::conflict(why).with_field("status"));
    let status = image.status;
    match &request.method {
        Method::Copy if status != Status::Active => refused(format!(
            "Only images with status active can be targeted for copying; the image is {status}."
        )),
        Method::Copy => Ok(()),
        _ if status == Status::Active => refused("Image with status active cannot be target for import".into()),
        Method::Web { .. } | Method::Remote { .. } if status != Status::Queued => refused(format!(
            "Image needs to be in 'queued' state to use '{}' method; it is {status}.",
            request.method.name()
        )),
        Method::Direct if status != Status::Uploading || image.staged.as_ref().is_none_or(|s| s.size.is_none()) => {
            refused(format!(
                "Image needs to be staged before 'glance-direct' method can be used; it is {status}. Send its bytes to \
                 PUT /v2/images/{}/stage first.",
                image.id
            ))
        }
        _ => Ok(()),
    }?;
    for (name, value) in [
        ("container_format", &image.container_format),
        ("disk_format", &image.disk_format),
    ] {
        if value.is_none() {
            return Err(Error::conflict(format!("'{name}' needs to be set before import")).with_field(name));
        }
    }
    Ok(())
}

/// The job: one step, which waits for what the worker writes into the task.
pub(crate) struct ImportSaga {
    pub app: Weak<Images>,
    pub steps: [Step; 1],
}

impl ImportSaga {
    fn task(job: &Job) -> &str {
        job.state
            .get("task")
            .and_then(serde_json::Value::as_str)
            .unwrap_or_default()
    }
}

impl Saga for ImportSaga {
    fn kind(&self) -> &'static str {
        JOB
    }

    fn steps(&self) -> &'static [Step] {
        // Its deadline is a setting, and there is one service in a process.
        static STEPS: std::sync::OnceLock<[Step; 1]> = std::sync::OnceLock::new();
        STEPS.get_or_init(|| self.steps)
    }

    fn act<'t>(&'t self, tx: &'t mut Tx, job: &'t mut Job) -> BoxFuture<'t, Result<Next>> {
        Box::pin(async move {
            let Some(task) = tx.find::<Task>(Self::task(job)).await? else {
                return Ok(Next::Fail(Error::not_found("The import's task is gone.")));
            };
            job.progress.clone_from(&task.message);
            Ok(match task.status {
                TaskStatus::Success => Next::Done,
                TaskStatus::Failure => Next::Fail(Error::conflict(task.message.clone())),
                TaskStatus::Pending | TaskStatus::Processing => {
                    // After a restart, or a retry: somebody must be at work.
                    if let Some(app) = self.app.upgrade() {
                        let id = task.id.clone();
                        tx.after_commit(move || app.work_on(&id, None));
                    }
                    Next::Wait
                }
            })
        })
    }

    fn undo<'t>(&'t self, _: &'t mut Tx, _: &'t mut Job, _: &'static str, _: &'t Error) -> BoxFuture<'t, Result<()>> {
        Box::pin(async { Ok(()) })
    }

    fn failed<'t>(&'t self, tx: &'t mut Tx, job: &'t mut Job, cause: &'t Error) -> BoxFuture<'t, Result<()>> {
        Box::pin(async move {
            let task = Self::task(job).to_owned();
            end_task(tx, &task, Err(cause)).await?;
            if let Some(stored) = tx.find::<Image>(&job.subject_id).await? {
                give_up(tx, stored, &task).await?;
            }
            if let Some(app) = self.app.upgrade() {
                tx.after_commit(move || app.stop_work(&task));
            }
            Ok(())
        })
    }
}

/// Ends a task that is open; one that has ended stays as it is.
pub(crate) async fn end_task(
    tx: &mut Tx,
    id: &str,
    how: std::result::Result<serde_json::Value, &Error>,
) -> Result<bool> {
    let Some(stored) = tx.find::<Task>(id).await?.filter(|t| t.status.open()) else {
        return Ok(false);
    };
    let mut task = stored.value.clone();
    match how {
        Ok(result) => {
            task.status = TaskStatus::Success;
            task.result = Some(result);
            task.message.clear();
        }
        Err(e) => {
            task.status = TaskStatus::Failure;
            task.message = e.public().to_owned();
        }
    }
    task.expires_at = Some(clock::now() + TIME_TO_LIVE);
    tx.update(&System::of(stored), &task).await?;
    Ok(true)
}

/// Takes back what the import of this task did to its image.
async fn give_up(tx: &mut Tx, stored: Stored<Image>, task: &str) -> Result<()> {
    let mut image = stored.value.clone();
    let Some(import) = image.import.as_mut().filter(|i| i.task.as_deref() == Some(task)) else {
        return Ok(());
    };
    import.task = None;
    import.failed.append(&mut import.to);
    let done = std::mem::take(&mut import.done);
    let failed = import.failed.clone();
    if let Some(key) = &image.file {
        for store in done.iter().chain(&failed) {
            trash_put(tx, &format!("{store}:{key}")).await?;
        }
    }
    if let Some(staged) = &image.staged {
        for key in [Some(&staged.key), staged.converted.as_ref()].into_iter().flatten() {
            trash_put(tx, &format!("{STAGING}:{key}")).await?;
        }
    }
    if image.status == Status::Importing {
        image.forget_data();
    } else {
        image.stores.retain(|s| !done.contains(s));
    }
    image_update(tx, &System::of(stored), &image).await.map(|_| ())
}

/// The image goes while it is imported: the task fails, and the worker stops.
pub(crate) async fn abandon(app: &Arc<Images>, tx: &mut Tx, image: &Image) -> Result<()> {
    let Some(task) = image.import.as_ref().and_then(|i| i.task.clone()) else {
        return Ok(());
    };
    app.jobs.supersede(tx, ("image", &image.id)).await?;
    let cause = Error::new(Kind::Gone, "The image was deleted while it was imported.");
    end_task(tx, &task, Err(&cause)).await?;
    let app = app.clone();
    tx.after_commit(move || app.stop_work(&task));
    Ok(())
}
