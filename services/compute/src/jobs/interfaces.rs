//! Waiting for a card to come or go; see [`crate::logic::interfaces`].

use super::{failure, seen_now};
use crate::Compute;
use crate::logic::interfaces::{ATTACH, DETACH};
use crate::model::{Fault, Server};
use haneul_core::{Error, Result};
use haneul_jobs::{BoxFuture, Job, Next, Saga, Step};
use haneul_store::{System, Tx};
use std::sync::Arc;

/// Both; they differ in what becomes of the port.
pub(super) struct InterfaceSaga {
    app: Arc<Compute>,
    kind: &'static str,
    steps: &'static [Step],
}

impl InterfaceSaga {
    pub(super) fn all(app: &Arc<Compute>) -> Vec<Arc<dyn Saga>> {
        // Once per process: the deadline comes from the configuration.
        let steps: &'static [Step] = Box::leak(Box::new([Step {
            name: "await-host",
            deadline_s: app.config.action_timeout_s,
        }]));
        [ATTACH, DETACH]
            .map(|kind| {
                let app = app.clone();
                Arc::new(InterfaceSaga { app, kind, steps }) as Arc<dyn Saga>
            })
            .to_vec()
    }

    /// The port is not the server's any more.
    async fn let_go(&self, tx: &mut Tx, job: &Job) -> Result<()> {
        let port = job.state.get("port").and_then(|p| p.as_str()).unwrap_or_default();
        self.app.network.detach_port(tx, &job.subject_id, port).await?;
        Ok(())
    }
}

impl Saga for InterfaceSaga {
    fn kind(&self) -> &'static str {
        self.kind
    }
    fn steps(&self) -> &'static [Step] {
        self.steps
    }
    fn act<'t>(&'t self, tx: &'t mut Tx, job: &'t mut Job) -> BoxFuture<'t, Result<Next>> {
        Box::pin(async move {
            let Some(stored) = tx.find::<Server>(&job.subject_id).await? else {
                return Ok(Next::Done);
            };
            let host = stored.host_id.clone().unwrap_or_default();
            let seen = seen_now(&self.app, tx, &host, &stored).await?;
            let Some(seen) = seen.filter(|o| o.settled) else {
                if job.progress.is_empty() {
                    job.progress = "waiting for the host".into();
                }
                return Ok(Next::Wait);
            };
            if seen.failure.is_some() {
                return Ok(Next::Fail(failure(&seen)));
            }
            if self.kind == DETACH {
                self.let_go(tx, job).await?;
            }
            let mut s = stored.value.clone();
            s.task_state = None;
            tx.update(&System::of(stored), &s).await?;
            self.app.interfaces.after(tx);
            Ok(Next::Done)
        })
    }
    /// The server has the cards that it had before.
    fn undo<'t>(
        &'t self,
        tx: &'t mut Tx,
        job: &'t mut Job,
        _step: &'static str,
        cause: &'t Error,
    ) -> BoxFuture<'t, Result<()>> {
        Box::pin(async move {
            self.app.interfaces.after(tx);
            if self.kind == ATTACH {
                self.let_go(tx, job).await?;
            }
            let Some(stored) = tx.find::<Server>(&job.subject_id).await? else {
                return Ok(());
            };
            let mut s = stored.value.clone();
            s.task_state = None;
            s.fault = Some(Fault::of(cause));
            self.app.restore_nics(tx, &mut s).await?;
            tx.update(&System::of(stored), &s).await?;
            Ok(())
        })
    }
    fn failed<'t>(&'t self, _tx: &'t mut Tx, _job: &'t mut Job, _cause: &'t Error) -> BoxFuture<'t, Result<()>> {
        // The undo of the only step has put everything back.
        Box::pin(async { Ok(()) })
    }
}
