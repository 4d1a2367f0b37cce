//! Jobs: each waits for what a host observes. What an action does to a server, and how it is taken back,
//! stands in the action's own file in [`crate::logic::actions`]; this is the waiting.

mod create_image;
mod interfaces;
mod moving;

use crate::Compute;
use crate::logic::actions::{self, HostAction};
use crate::model::{Fault, Server, Task};
use haneul_agent_api::{Failure, FailureCode, GuestState, ObservedGuest};
use haneul_core::{Error, Kind, Result};
use haneul_jobs::{BoxFuture, Job, Next, Saga, Step};
use haneul_store::{System, Tx};
use std::marker::PhantomData;
use std::sync::Arc;

/// A host that is away may take a day to come back before a delete gives up; the tombstone stays.
const DELETE_DEADLINE_S: u64 = 24 * 3600;

/// All of them.
pub(crate) fn all(app: &Arc<Compute>) -> Vec<Arc<dyn Saga>> {
    let mut all = interfaces::InterfaceSaga::all(app);
    all.extend(moving::all(app));
    all.extend([
        HostSaga::<actions::create::Create>::of(app),
        HostSaga::<actions::power::Start>::of(app),
        HostSaga::<actions::power::Stop>::of(app),
        HostSaga::<actions::power::Pause>::of(app),
        HostSaga::<actions::power::Unpause>::of(app),
        HostSaga::<actions::power::Suspend>::of(app),
        HostSaga::<actions::power::Resume>::of(app),
        HostSaga::<actions::reboot::Reboot>::of(app),
        HostSaga::<actions::rebuild::Rebuild>::of(app),
        HostSaga::<actions::resize::Resize>::of(app),
        HostSaga::<actions::revert_resize::RevertResize>::of(app),
        HostSaga::<crate::logic::evacuate::Evacuate>::of(app),
        create_image::ImageSaga::of(app),
        Arc::new(DeleteSaga { app: app.clone() }),
    ]);
    all
}

/// Waits until the host has done what the desired guest asks for.
struct HostSaga<A> {
    app: Arc<Compute>,
    steps: &'static [Step],
    action: PhantomData<fn() -> A>,
}

impl<A: HostAction> HostSaga<A> {
    fn of(app: &Arc<Compute>) -> Arc<dyn Saga> {
        // Once per process and kind: the deadline comes from the configuration.
        let steps = Box::leak(Box::new([Step {
            name: "await-host",
            deadline_s: A::deadline_s(&app.config),
        }]));
        Arc::new(Self {
            app: app.clone(),
            steps,
            action: PhantomData,
        })
    }
}

/// What a job says while it waits.
fn progress(seen: Option<&ObservedGuest>) -> String {
    match seen.and_then(|s| s.progress.as_ref()) {
        Some(p) => match p.percent {
            Some(n) => format!("{} ({n} %)", p.what),
            None => p.what.clone(),
        },
        None => "waiting for the host".into(),
    }
}

fn failure(seen: &ObservedGuest) -> Error {
    match &seen.failure {
        Some(f) => of_failure(f),
        None => Error::new(Kind::Internal, "The guest failed on its host."),
    }
}

fn of_failure(f: &Failure) -> Error {
    let kind = match f.code {
        FailureCode::DiskFull => Kind::InsufficientStorage,
        _ => Kind::Internal,
    };
    Error::new(kind, f.message.clone()).with_private(&f.detail)
}

/// What the host sees of a server's guest, once that is of what is wanted now and not of something before.
async fn seen_now(app: &Compute, tx: &mut Tx, host: &str, s: &Server) -> Result<Option<ObservedGuest>> {
    let seen = app.fleet.observed_guest(tx, host, &s.id).await?;
    Ok(seen.filter(|o| o.epoch >= app.fleet.epoch() && o.generation as i64 >= s.desired_generation))
}

impl<A: HostAction> Saga for HostSaga<A> {
    fn kind(&self) -> &'static str {
        A::KIND
    }
    fn steps(&self) -> &'static [Step] {
        self.steps
    }
    fn act<'t>(&'t self, tx: &'t mut Tx, job: &'t mut Job) -> BoxFuture<'t, Result<Next>> {
        Box::pin(async move {
            let Some(stored) = tx.find::<Server>(&job.subject_id).await? else {
                return Ok(Next::Done);
            };
            let Some(host) = stored.host_id.clone() else {
                return Ok(Next::Fail(Error::internal("a server without a host waits for one")));
            };
            let Some(seen) = seen_now(&self.app, tx, &host, &stored).await? else {
                if job.progress.is_empty() {
                    job.progress = progress(None);
                }
                return Ok(Next::Wait);
            };
            if seen.state == GuestState::Failed {
                return Ok(Next::Fail(failure(&seen)));
            }
            if !seen.settled || !A::met(&stored, &seen) {
                if seen.settled && seen.failure.is_some() {
                    // The host has tried, and is not going to again; the guest is as it was.
                    return Ok(Next::Fail(failure(&seen)));
                }
                job.progress = progress(Some(&seen));
                return Ok(Next::Wait);
            }
            let mut s = stored.value.clone();
            A::done(&self.app, tx, &mut s, job, &seen).await?;
            tx.update(&System::of(stored), &s).await?;
            Ok(Next::Done)
        })
    }
    fn undo<'t>(
        &'t self,
        tx: &'t mut Tx,
        job: &'t mut Job,
        _step: &'static str,
        cause: &'t Error,
    ) -> BoxFuture<'t, Result<()>> {
        Box::pin(async move {
            let Some(stored) = tx.find::<Server>(&job.subject_id).await? else {
                return Ok(());
            };
            let mut s = stored.value.clone();
            A::undo(&self.app, tx, &mut s, job, &Fault::of(cause)).await?;
            // "Never stuck": whatever the action did, nothing is going on any more.
            s.task_state = None;
            if s != stored.value {
                tx.update(&System::of(stored), &s).await?;
            }
            Ok(())
        })
    }
    fn failed<'t>(&'t self, _tx: &'t mut Tx, _job: &'t mut Job, _cause: &'t Error) -> BoxFuture<'t, Result<()>> {
        // The undo of the only step has put the server into its state.
        Box::pin(async { Ok(()) })
    }
}

/// Waits until nothing of the server is left on any host that could run it, then buries it.
struct DeleteSaga {
    app: Arc<Compute>,
}

impl Saga for DeleteSaga {
    fn kind(&self) -> &'static str {
        "server.delete"
    }
    fn steps(&self) -> &'static [Step] {
        const STEPS: &[Step] = &[Step {
            name: "await-gone",
            deadline_s: DELETE_DEADLINE_S,
        }];
        STEPS
    }
    fn act<'t>(&'t self, tx: &'t mut Tx, job: &'t mut Job) -> BoxFuture<'t, Result<Next>> {
        Box::pin(async move {
            let Some(stored) = tx.find::<Server>(&job.subject_id).await? else {
                return Ok(Next::Done);
            };
            if let Some(waits) = self.app.left_of(tx, &stored, &mut job.state).await? {
                job.progress = waits;
                return Ok(Next::Wait);
            }
            self.app.bury(tx, stored).await?;
            Ok(Next::Done)
        })
    }
    fn undo<'t>(
        &'t self,
        _tx: &'t mut Tx,
        _job: &'t mut Job,
        _step: &'static str,
        _cause: &'t Error,
    ) -> BoxFuture<'t, Result<()>> {
        // A tombstone is not taken back: what the host removed is gone.
        Box::pin(async { Ok(()) })
    }
    fn failed<'t>(&'t self, tx: &'t mut Tx, job: &'t mut Job, cause: &'t Error) -> BoxFuture<'t, Result<()>> {
        Box::pin(async move {
            let Some(stored) = tx.find::<Server>(&job.subject_id).await? else {
                return Ok(());
            };
            let mut s = stored.value.clone();
            debug_assert!(s.task_state == Some(Task::Deleting));
            s.fail(Fault::of(cause));
            tx.update(&System::of(stored), &s).await?;
            Ok(())
        })
    }
}
