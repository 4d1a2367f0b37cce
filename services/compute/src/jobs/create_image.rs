//! Waiting for the image of a server: first for the host that makes its file, then for the bytes. See
//! [`crate::logic::actions::create_image`].

use super::{failure, seen_now};
use crate::Compute;
use crate::logic::actions::create_image::{JOB, Memory};
use crate::model::{Fault, Server, Task};
use haneul_agent_api::{GuestState, ObservedGuest, SnapshotState};
use haneul_core::{Error, Result};
use haneul_jobs::{BoxFuture, Job, Next, Saga, Step};
use haneul_store::{System, Tx};
use serde_json::json;
use std::sync::Arc;

const UPLOAD: &str = "upload";

/// See the module.
pub(super) struct ImageSaga {
    app: Arc<Compute>,
    steps: &'static [Step],
}

impl ImageSaga {
    pub(super) fn of(app: &Arc<Compute>) -> Arc<dyn Saga> {
        let step = |name| Step {
            name,
            deadline_s: app.config.image_timeout_s,
        };
        // Once per process: the deadline comes from the configuration.
        let steps = Box::leak(Box::new([step("await-host"), step(UPLOAD)]));
        let app = app.clone();
        Arc::new(ImageSaga { app, steps })
    }

    /// What the host says of the file.
    fn heard(s: &mut Server, job: &mut Job, seen: &ObservedGuest) -> Next {
        let about = seen.snapshot.as_ref();
        match about
            .filter(|o| o.id.to_string() == Memory(job).image())
            .map(|o| &o.state)
        {
            Some(SnapshotState::Making(percent)) => {
                if s.task_state == Some(Task::ImageSnapshotPending) {
                    s.task_state = Some(Task::ImageSnapshot);
                }
                job.progress = format!("copying the disk ({percent} %)");
                Next::Wait
            }
            Some(SnapshotState::Ready(size)) => {
                s.task_state = Some(Task::ImagePendingUpload);
                if let Some(state) = job.state.as_object_mut() {
                    state.insert("size".into(), json!(size));
                }
                job.progress = "waiting for the bytes".into();
                Next::Go(UPLOAD)
            }
            Some(SnapshotState::Failed(f)) => Next::Fail(super::of_failure(f)),
            None if seen.settled && (seen.failure.is_some() || seen.state == GuestState::Failed) => {
                Next::Fail(failure(seen))
            }
            None => Next::Wait,
        }
    }
}

impl Saga for ImageSaga {
    fn kind(&self) -> &'static str {
        JOB
    }
    fn steps(&self) -> &'static [Step] {
        self.steps
    }
    fn act<'t>(&'t self, tx: &'t mut Tx, job: &'t mut Job) -> BoxFuture<'t, Result<Next>> {
        Box::pin(async move {
            let app = &self.app;
            let Some(stored) = tx.find::<Server>(&job.subject_id).await? else {
                return Ok(Next::Done);
            };
            let mut s = stored.value.clone();
            let next = match app.image.is_complete(tx, Memory(job).image()).await? {
                None => Next::Fail(Error::conflict("The image was deleted while it was made.")),
                Some(true) => {
                    app.image_made(tx, &mut s, job).await?;
                    Next::Done
                }
                Some(false) if job.step == UPLOAD => match app.uploads.failure(job) {
                    Some(e) => Next::Fail(e),
                    None => {
                        let (app, j, host) = (app.clone(), job.clone(), s.host_id.clone().unwrap_or_default());
                        tx.after_commit(move || app.fetch_image(&j, host));
                        Next::Wait
                    }
                },
                Some(false) => {
                    let host = s.host_id.clone().unwrap_or_default();
                    match seen_now(app, tx, &host, &stored).await? {
                        Some(seen) => Self::heard(&mut s, job, &seen),
                        None => Next::Wait,
                    }
                }
            };
            if !matches!(next, Next::Fail(_)) && s != stored.value {
                tx.update(&System::of(stored), &s).await?;
            }
            Ok(next)
        })
    }
    /// There is no image, and the server is as it was.
    fn undo<'t>(
        &'t self,
        tx: &'t mut Tx,
        job: &'t mut Job,
        step: &'static str,
        cause: &'t Error,
    ) -> BoxFuture<'t, Result<()>> {
        Box::pin(async move {
            if step == UPLOAD {
                // What the first step began is all that there is to take back.
                return Ok(());
            }
            self.app.image.give_up(tx, Memory(job).image()).await?;
            let Some(stored) = tx.find::<Server>(&job.subject_id).await? else {
                return Ok(());
            };
            let mut s = stored.value.clone();
            s.fault = Some(Fault::of(cause));
            self.app.let_image_go(tx, &mut s, job).await?;
            tx.update(&System::of(stored), &s).await?;
            Ok(())
        })
    }
    fn failed<'t>(&'t self, _tx: &'t mut Tx, _job: &'t mut Job, _cause: &'t Error) -> BoxFuture<'t, Result<()>> {
        // The undo has put everything back.
        Box::pin(async { Ok(()) })
    }
}
