//! The change log: one row for each change of what `show` would show, in the same transaction.
//!
//! Audit, instance actions, notifications, metering, undo and watch streams only read it.

use crate::{Dir, Query, Tx};
use haneul_core::{Result, clock};
use serde_json::Value;

/// What happened to the resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Create,
    Update,
    Delete,
}

impl Operation {
    pub fn as_str(self) -> &'static str {
        match self {
            Operation::Create => "create",
            Operation::Update => "update",
            Operation::Delete => "delete",
        }
    }
}

/// A row of the log.
#[derive(Clone, Debug)]
pub struct Change {
    /// 0 until it is written.
    pub sequence: i64,
    /// Microseconds since 1970.
    pub time: i64,
    pub project_id: Option<String>,
    pub kind: String,
    pub id: String,
    pub generation: i64,
    pub actor: String,
    pub request_id: String,
    pub operation: String,
    /// The new state, versioned by its `v` member, without secrets.
    pub state: Value,
}

impl Tx {
    pub(crate) fn note_change(
        &mut self,
        kind: &str,
        id: &str,
        project_id: Option<&str>,
        generation: i64,
        operation: Operation,
        state: Value,
    ) {
        self.changes.push(Change {
            sequence: 0,
            time: clock::now(),
            project_id: project_id.map(str::to_owned),
            kind: kind.to_owned(),
            id: id.to_owned(),
            generation,
            actor: self.actor.user.clone(),
            request_id: self.actor.request_id.clone(),
            operation: operation.as_str().to_owned(),
            state,
        });
    }

    /// Writes the noted changes; called once, just before the commit or the release of the savepoint.
    pub(crate) async fn flush_changes(&mut self) -> Result<()> {
        if self.changes.is_empty() {
            return Ok(());
        }
        self.logged = true;
        for c in std::mem::take(&mut self.changes) {
            self.exec(
                "INSERT INTO change_log(time, project_id, kind, id, generation, actor, request_id, operation, state)
                 VALUES($1,$2,$3,$4,$5,$6,$7,$8,$9)",
                &[
                    c.time.into(),
                    c.project_id.into(),
                    c.kind.into(),
                    c.id.into(),
                    c.generation.into(),
                    c.actor.into(),
                    c.request_id.into(),
                    c.operation.into(),
                    c.state.to_string().into(),
                ],
            )
            .await?;
        }
        Ok(())
    }
}

/// The log after `sequence`, oldest first, at most `limit` rows.
pub async fn changes_since(tx: &mut Tx, sequence: i64, limit: i64) -> Result<Vec<Change>> {
    let query = Query::new().gt("sequence", sequence).order("sequence", Dir::Asc);
    changes(tx, &query.limit(limit)).await
}

/// The part of the log that a query asks for, by the members of [`Change`] but its state.
pub async fn changes(tx: &mut Tx, query: &Query) -> Result<Vec<Change>> {
    let (sql, args) = query.sql(
        "SELECT sequence, time, project_id, kind, id, generation, actor, request_id, operation, state FROM change_log",
    );
    tx.rows(&sql, &args)
        .await?
        .iter()
        .map(|r| {
            Ok(Change {
                sequence: r.i64(0)?,
                time: r.i64(1)?,
                project_id: r.opt_str(2)?,
                kind: r.str(3)?,
                id: r.str(4)?,
                generation: r.i64(5)?,
                actor: r.str(6)?,
                request_id: r.str(7)?,
                operation: r.str(8)?,
                state: serde_json::from_str(&r.str(9)?)?,
            })
        })
        .collect()
}
