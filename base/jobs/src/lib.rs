//! Long work in the control plane: sagas whose steps are transactions, with deadlines and undo.
//!
//! A job is a row. Each step runs inside a `db.write` closure and moves the row in the same commit, so
//! there is no instant at which a step is half done. A step that needs a host writes desired state and
//! then waits: whoever commits the observation pokes the job in the same transaction. A step past its
//! deadline, or one that fails, is undone backwards and ends the job in `error` with the cause.
//!
//! "Never stuck": a resource in a transitional state has a running job, and a running job has a deadline.

mod engine;

pub use engine::{BoxFuture, Jobs};

use haneul_core::{Error, Result};
use haneul_store::{Actor, Migration, Row};
use serde_json::Value;

/// Tables.
pub const MIGRATIONS: &[Migration] = &[Migration {
    owner: "jobs",
    number: 1,
    sql: "CREATE TABLE job(id TEXT PRIMARY KEY, kind TEXT NOT NULL, subject_kind TEXT NOT NULL, subject_id TEXT NOT NULL,
              actor TEXT NOT NULL, step TEXT NOT NULL, state TEXT NOT NULL, status TEXT NOT NULL, deadline BIGINT NOT NULL,
              progress TEXT NOT NULL, error TEXT, created_at BIGINT NOT NULL, updated_at BIGINT NOT NULL);
          CREATE UNIQUE INDEX job_one_per_subject ON job(subject_kind, subject_id) WHERE status = 'running';
          CREATE INDEX job_by_deadline ON job(status, deadline)",
}, Migration {
    owner: "jobs",
    number: 2,
    sql: "CREATE INDEX job_by_subject ON job(subject_kind, subject_id, created_at)",
}];

/// A step of a saga.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    pub name: &'static str,
    /// Seconds from when the step begins until it is given up.
    pub deadline_s: u64,
}

/// What a step answers.
#[derive(Debug)]
pub enum Next {
    /// Done: go on with the step of this name.
    Go(&'static str),
    /// Not yet: run again when somebody pokes the job.
    Wait,
    /// The whole job is done.
    Done,
    /// It cannot be done. Nothing was written by this step; undo what the earlier ones did.
    Fail(Error),
}

/// A kind of job. The step's action stands beside its undo; both may run more than once.
pub trait Saga: Send + Sync + 'static {
    fn kind(&self) -> &'static str;
    /// In order; the first is where a job begins.
    fn steps(&self) -> &'static [Step];
    /// Runs `job.step` inside a transaction.
    fn act<'t>(&'t self, tx: &'t mut haneul_store::Tx, job: &'t mut Job) -> BoxFuture<'t, Result<Next>>;
    /// Takes back what `step` did. Called for the failed step and then for those before it.
    fn undo<'t>(
        &'t self,
        tx: &'t mut haneul_store::Tx,
        job: &'t mut Job,
        step: &'static str,
        cause: &'t Error,
    ) -> BoxFuture<'t, Result<()>>;
    /// After all undos: puts the subject into its error state, with the cause.
    fn failed<'t>(
        &'t self,
        tx: &'t mut haneul_store::Tx,
        job: &'t mut Job,
        cause: &'t Error,
    ) -> BoxFuture<'t, Result<()>>;
}

/// A job as stored.
#[derive(Clone, Debug)]
pub struct Job {
    pub id: String,
    pub kind: String,
    pub subject_kind: String,
    pub subject_id: String,
    /// Who asked; jobs act under this actor, never with a stored token.
    pub actor: Actor,
    pub step: String,
    /// The saga's own data, with a version in it (`v`).
    pub state: Value,
    /// `running`, `done`, `error`, `cancelled`.
    pub status: String,
    /// Of the current step, microseconds since 1970.
    pub deadline: i64,
    /// What it is doing, for people.
    pub progress: String,
    pub error: Option<String>,
    pub created_at: i64,
    pub updated_at: i64,
}

const COLUMNS: &str =
    "id, kind, subject_kind, subject_id, actor, step, state, status, deadline, progress, error, created_at, updated_at";

fn job(r: &Row) -> Result<Job> {
    Ok(Job {
        id: r.str(0)?,
        kind: r.str(1)?,
        subject_kind: r.str(2)?,
        subject_id: r.str(3)?,
        actor: serde_json::from_str(&r.str(4)?)?,
        step: r.str(5)?,
        state: serde_json::from_str(&r.str(6)?)?,
        status: r.str(7)?,
        deadline: r.i64(8)?,
        progress: r.str(9)?,
        error: r.opt_str(10)?,
        created_at: r.i64(11)?,
        updated_at: r.i64(12)?,
    })
}
