//! Runs jobs: started and poked inside transactions, recovered at start, failed at their deadlines.

use crate::{COLUMNS, Job, Next, Saga, job};
use haneul_core::{Error, Kind, Result, clock, fault, id};
use haneul_store::{Actor, Db, Signal, Tx};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::Notify;

/// A boxed, sendable future.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Steps that one poke may run before the rest waits for the next; a saga that goes in circles ends here.
const MAX_STEPS: usize = 32;
/// Jobs of other processes of ours ring no bell here: their deadlines are looked for this often.
const LOOK: Duration = Duration::from_secs(5);
/// After a restart hosts need a moment to report again before a deadline may fail a job.
const GRACE: i64 = 30 * clock::SECOND;

/// The engine; cloning is cheap.
#[derive(Clone)]
pub struct Jobs {
    inner: Arc<Inner>,
}

struct Inner {
    db: Db,
    sagas: OnceLock<HashMap<&'static str, Arc<dyn Saga>>>,
    wake: Notify,
}

impl Jobs {
    pub fn new(db: Db) -> Self {
        Self {
            inner: Arc::new(Inner {
                db,
                sagas: OnceLock::new(),
                wake: Notify::new(),
            }),
        }
    }

    /// Registers all sagas; once, before [`Jobs::run`].
    pub fn register(&self, sagas: Vec<Arc<dyn Saga>>) {
        let _ = self.inner.sagas.set(sagas.into_iter().map(|s| (s.kind(), s)).collect());
    }

    /// Names of the fault points that the registered sagas bring: one per kind and step.
    pub fn points(&self) -> Vec<String> {
        let mut all: Vec<String> = self
            .inner
            .sagas
            .get()
            .into_iter()
            .flat_map(HashMap::values)
            .flat_map(|s| s.steps().iter().map(|step| point(s.kind(), step.name)))
            .collect();
        all.sort();
        all
    }

    fn saga(&self, kind: &str) -> Result<&Arc<dyn Saga>> {
        self.inner
            .sagas
            .get()
            .and_then(|s| s.get(kind))
            .ok_or_else(|| Error::internal(format!("no saga of kind {kind}")))
    }

    /// Starts a job in the caller's transaction, at the saga's first step. One subject has one running
    /// job: a second is a conflict.
    pub async fn start(&self, tx: &mut Tx, kind: &str, subject: (&str, &str), state: Value) -> Result<String> {
        let saga = self.saga(kind)?;
        let first = saga
            .steps()
            .first()
            .ok_or_else(|| Error::internal(format!("{kind} has no steps")))?;
        let now = clock::now();
        let new = id::uuid();
        let actor = serde_json::to_string(tx.actor())?;
        let n = tx
            .exec(
                "INSERT INTO job(id, kind, subject_kind, subject_id, actor, step, state, status, deadline, progress, created_at, updated_at)
                 VALUES($1,$2,$3,$4,$5,$6,$7,'running',$8,'',$9,$9) ON CONFLICT DO NOTHING",
                &[
                    new.as_str().into(),
                    kind.into(),
                    subject.0.into(),
                    subject.1.into(),
                    actor.into(),
                    first.name.into(),
                    state.to_string().into(),
                    (clock::steady() + first.deadline_s as i64 * clock::SECOND).into(),
                    now.into(),
                ],
            )
            .await?;
        if n == 0 {
            return Err(Error::conflict(format!(
                "The {} {} is busy with another action. Wait until it is done.",
                subject.0, subject.1
            )));
        }
        let inner = self.inner.clone();
        tx.after_commit(move || inner.wake.notify_one());
        Ok(new)
    }

    /// The running job of a subject.
    pub async fn running(&self, tx: &mut Tx, subject: (&str, &str)) -> Result<Option<Job>> {
        tx.row(
            &format!("SELECT {COLUMNS} FROM job WHERE subject_kind = $1 AND subject_id = $2 AND status = 'running'"),
            &[subject.0.into(), subject.1.into()],
        )
        .await?
        .as_ref()
        .map(job)
        .transpose()
    }

    /// Ends the subject's running job without undoing it, because another takes its place in this very
    /// transaction (a delete over whatever was going on). Answers the job that gave way.
    pub async fn supersede(&self, tx: &mut Tx, subject: (&str, &str)) -> Result<Option<Job>> {
        let Some(mut j) = self.running(tx, subject).await? else {
            return Ok(None);
        };
        j.status = "cancelled".into();
        j.error = Some("Another action took its place.".into());
        self.save(tx, &mut j).await?;
        Ok(Some(j))
    }

    /// All jobs of a subject, newest first.
    pub async fn history(&self, tx: &mut Tx, subject: (&str, &str)) -> Result<Vec<Job>> {
        tx.rows(
            &format!(
                "SELECT {COLUMNS} FROM job WHERE subject_kind = $1 AND subject_id = $2 ORDER BY created_at DESC, id"
            ),
            &[subject.0.into(), subject.1.into()],
        )
        .await?
        .iter()
        .map(job)
        .collect()
    }

    /// Lets the subject's running job go on, inside the transaction that changed what it waits for.
    pub async fn poke(&self, tx: &mut Tx, subject: (&str, &str)) -> Result<()> {
        match self.running(tx, subject).await? {
            Some(mut j) => self.advance(tx, &mut j).await,
            None => Ok(()),
        }
    }

    async fn advance(&self, tx: &mut Tx, j: &mut Job) -> Result<()> {
        let saga = self.saga(&j.kind)?.clone();
        for _ in 0..MAX_STEPS {
            let before = (j.step.clone(), j.state.clone(), j.progress.clone());
            if fault::hit(&point(&j.kind, &j.step)) {
                return self
                    .fail(tx, j, &Error::unavailable("The lab made this step fail."))
                    .await;
            }
            match saga.act(tx, j).await? {
                Next::Go(step) => {
                    let spec = saga
                        .steps()
                        .iter()
                        .find(|s| s.name == step)
                        .ok_or_else(|| Error::internal(format!("{} has no step {step}", j.kind)))?;
                    j.step = step.to_owned();
                    j.deadline = clock::steady() + spec.deadline_s as i64 * clock::SECOND;
                    self.save(tx, j).await?;
                }
                Next::Wait => {
                    if before != (j.step.clone(), j.state.clone(), j.progress.clone()) {
                        self.save(tx, j).await?;
                    }
                    return Ok(());
                }
                Next::Done => {
                    j.status = "done".into();
                    return self.save(tx, j).await;
                }
                Next::Fail(cause) => return self.fail(tx, j, &cause).await,
            }
        }
        Err(Error::internal(format!("job {} ran {MAX_STEPS} steps at once", j.id)))
    }

    /// Undoes backwards and ends the job in error.
    async fn fail(&self, tx: &mut Tx, j: &mut Job, cause: &Error) -> Result<()> {
        let saga = self.saga(&j.kind)?.clone();
        tracing::warn!(job = j.id, kind = j.kind, step = j.step, request_id = j.actor.request_id, cause = %cause, "job failed");
        let steps = saga.steps();
        let reached = steps.iter().position(|s| s.name == j.step).unwrap_or(0);
        for step in steps.iter().take(reached + 1).rev() {
            saga.undo(tx, j, step.name, cause).await?;
        }
        saga.failed(tx, j, cause).await?;
        j.status = "error".into();
        j.error = Some(cause.public().to_owned());
        self.save(tx, j).await
    }

    async fn save(&self, tx: &mut Tx, j: &mut Job) -> Result<()> {
        j.updated_at = clock::now();
        tx.exec(
            "UPDATE job SET step = $2, state = $3, status = $4, deadline = $5, progress = $6, error = $7, updated_at = $8 WHERE id = $1",
            &[
                j.id.as_str().into(),
                j.step.as_str().into(),
                j.state.to_string().into(),
                j.status.as_str().into(),
                j.deadline.into(),
                j.progress.as_str().into(),
                (&j.error).into(),
                j.updated_at.into(),
            ],
        )
        .await?;
        let inner = self.inner.clone();
        tx.after_commit(move || inner.wake.notify_one());
        Ok(())
    }

    /// Runs until the process ends: goes on with what was running when the last process died, then fails
    /// what passes its deadline.
    pub async fn run(&self) {
        self.recover().await;
        let longest = if self.inner.db.is_shared() {
            LOOK
        } else {
            Duration::from_secs(60)
        };
        let mut others = self.inner.db.signals();
        loop {
            let pause = match self.expire().await {
                Ok(next) => next.map_or(longest, |t| {
                    Duration::from_micros((t - clock::steady()).clamp(10_000, 60_000_000) as u64).min(longest)
                }),
                Err(e) => {
                    tracing::error!(error = %e, "deadlines could not be checked");
                    Duration::from_secs(1)
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.inner.wake.notified() => {}
                // What it was at is gone on with here.
                signal = others.next() => if matches!(signal, Signal::Gone(_)) {
                    self.recover().await;
                }
            }
        }
    }

    /// Goes on with everything that is under way.
    async fn recover(&self) {
        while let Err(e) = self.recover_all().await {
            tracing::error!(error = %e, "jobs could not be recovered; trying again");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    async fn recover_all(&self) -> Result<()> {
        let mut tx = self.inner.db.read().await?;
        let ids: Vec<String> = tx
            .rows("SELECT id FROM job WHERE status = 'running' ORDER BY created_at", &[])
            .await?
            .iter()
            .map(|r| r.str(0))
            .collect::<Result<_>>()?;
        drop(tx);
        for id in ids {
            let this = self.clone();
            let done = self
                .inner
                .db
                .write(&Actor::system("recovery"), async move |tx| {
                    let Some(mut j) = this.get(tx, &id).await? else {
                        return Ok(());
                    };
                    if j.status != "running" {
                        return Ok(());
                    }
                    j.deadline = j.deadline.max(clock::steady() + GRACE);
                    this.save(tx, &mut j).await?;
                    this.advance(tx, &mut j).await
                })
                .await;
            if let Err(e) = done {
                tracing::error!(error = %e, "a job could not be recovered; its deadline will end it");
            }
        }
        Ok(())
    }

    /// Fails jobs past their deadline; answers the next deadline.
    async fn expire(&self) -> Result<Option<i64>> {
        let mut tx = self.inner.db.read().await?;
        let late: Vec<String> = tx
            .rows(
                "SELECT id FROM job WHERE status = 'running' AND deadline <= $1",
                &[clock::steady().into()],
            )
            .await?
            .iter()
            .map(|r| r.str(0))
            .collect::<Result<_>>()?;
        drop(tx);
        for id in late {
            let ended = self
                .end(&id, |j| {
                    Error::unavailable(format!(
                        "The step '{}' did not finish within its deadline.{}",
                        j.step,
                        if j.progress.is_empty() {
                            String::new()
                        } else {
                            format!(" It was at: {}.", j.progress)
                        }
                    ))
                })
                .await;
            // One that cannot be undone now must not keep the others from their ends; it is tried again.
            if let Err(e) = ended {
                // Otherwise another process of ours was faster.
                if self.postpone(&id).await? {
                    tracing::error!(job = id, error = %e, "a job past its deadline could not be ended");
                }
            }
        }
        let mut tx = self.inner.db.read().await?;
        tx.row("SELECT MIN(deadline) FROM job WHERE status = 'running'", &[])
            .await?
            .map_or(Ok(None), |r| r.opt_i64(0))
    }

    /// Tries again later, if the job is running still; says whether it is.
    async fn postpone(&self, id: &str) -> Result<bool> {
        let id = id.to_owned();
        let n = self
            .inner
            .db
            .write(&Actor::system("deadline"), async move |tx| {
                tx.exec(
                    "UPDATE job SET deadline = $2 WHERE id = $1 AND status = 'running'",
                    &[id.as_str().into(), (clock::steady() + GRACE).into()],
                )
                .await
            })
            .await?;
        Ok(n > 0)
    }

    async fn end(&self, id: &str, cause: fn(&Job) -> Error) -> Result<()> {
        let (this, id) = (self.clone(), id.to_owned());
        self.inner
            .db
            .write(&Actor::system("deadline"), async move |tx| {
                let Some(mut j) = this.get(tx, &id).await? else {
                    return Err(Error::not_found(format!("There is no job {id}.")));
                };
                if j.status != "running" {
                    return Err(Error::conflict(format!("Job {id} is {} already.", j.status)));
                }
                let cause = cause(&j);
                this.fail(tx, &mut j, &cause).await
            })
            .await
    }

    /// Cancels a running job: undone like a failure.
    pub async fn cancel(&self, id: &str) -> Result<()> {
        self.end(id, |_| {
            Error::new(Kind::Conflict, "The job was cancelled by an administrator.")
        })
        .await
    }

    /// Lets a running job try its step again, with a new deadline.
    pub async fn retry(&self, id: &str) -> Result<()> {
        let (this, id) = (self.clone(), id.to_owned());
        self.inner
            .db
            .write(&Actor::system("retry"), async move |tx| {
                let Some(mut j) = this.get(tx, &id).await? else {
                    return Err(Error::not_found(format!("There is no job {id}.")));
                };
                if j.status != "running" {
                    return Err(Error::conflict(format!(
                        "Job {id} is {}: only a running job can be retried. Repeat the user's request instead.",
                        j.status
                    )));
                }
                j.deadline = clock::steady() + GRACE;
                this.save(tx, &mut j).await?;
                this.advance(tx, &mut j).await
            })
            .await
    }

    /// One job.
    pub async fn get(&self, tx: &mut Tx, id: &str) -> Result<Option<Job>> {
        tx.row(&format!("SELECT {COLUMNS} FROM job WHERE id = $1"), &[id.into()])
            .await?
            .as_ref()
            .map(job)
            .transpose()
    }

    /// The newest jobs, running ones first.
    pub async fn list(&self, tx: &mut Tx, limit: i64) -> Result<Vec<Job>> {
        tx.rows(
            &format!("SELECT {COLUMNS} FROM job ORDER BY CASE WHEN status = 'running' THEN 0 ELSE 1 END, created_at DESC LIMIT $1"),
            &[limit.into()],
        )
        .await?
        .iter()
        .map(job)
        .collect()
    }
}

/// One fault point per kind and step, named after them: `job.server.create.await-host`.
fn point(kind: &str, step: &str) -> String {
    format!("job.{kind}.{step}")
}

impl Job {
    /// For `haneul jobs`.
    pub fn view(&self) -> Value {
        json!({
            "id": self.id, "kind": self.kind, "subject": {"kind": self.subject_kind, "id": self.subject_id},
            "step": self.step, "status": self.status, "progress": self.progress, "error": self.error,
            "deadline": clock::iso(self.deadline), "created_at": clock::iso(self.created_at),
            "updated_at": clock::iso(self.updated_at), "user_id": self.actor.user, "request_id": self.actor.request_id,
        })
    }
}
