//! A transaction: statements with `$1`, the changes it appends, what happens after its commit.

use crate::value::{Row, V};
use crate::{Actor, Change};
use haneul_core::{Error, Kind, Result};
use sqlx::{AssertSqlSafe, Postgres, Sqlite};
use std::sync::Arc;

pub(crate) enum Conn {
    SqliteWriter(sqlx::SqliteConnection),
    SqliteReader(sqlx::Transaction<'static, Sqlite>),
    PostgresWriter(sqlx::PgConnection),
    PostgresReader(sqlx::Transaction<'static, Postgres>),
}

type Hook = Box<dyn FnOnce() + Send>;

/// A transaction. A writing one comes from [`crate::Db::write`], a reading one from [`crate::Db::read`].
pub struct Tx {
    pub(crate) conn: Conn,
    pub(crate) actor: Actor,
    pub(crate) changes: Vec<Change>,
    pub(crate) hooks: Vec<Hook>,
    /// What other processes are told when this is committed.
    pub(crate) news: Vec<(String, String)>,
    /// The process that this is a transaction of; none before it has enlisted.
    pub(crate) me: Option<Arc<str>>,
    /// Whether a change row was written since the last commit.
    pub(crate) logged: bool,
    /// Statements run so far, for tests and bench.
    pub(crate) statements: u64,
}

impl Tx {
    pub(crate) fn new(conn: Conn) -> Self {
        Self {
            conn,
            actor: Actor::default(),
            changes: Vec::new(),
            hooks: Vec::new(),
            news: Vec::new(),
            me: None,
            logged: false,
            statements: 0,
        }
    }

    /// Who acts in this transaction.
    pub fn actor(&self) -> &Actor {
        &self.actor
    }

    /// Whether this is PostgreSQL. Only base/store and the tests of both databases need to know.
    pub fn is_postgres(&self) -> bool {
        matches!(self.conn, Conn::PostgresWriter(_) | Conn::PostgresReader(_))
    }

    /// Runs `hook` after the commit, and only then. For wake-ups; a hook must not block.
    pub fn after_commit(&mut self, hook: impl FnOnce() + Send + 'static) {
        self.hooks.push(Box::new(hook));
    }

    /// Rows of a query.
    pub async fn rows(&mut self, sql: &str, args: &[V]) -> Result<Vec<Row>> {
        self.statements += 1;
        macro_rules! all {
            ($db:ty, $conn:expr, $row:expr) => {{
                let mut q = sqlx::query::<$db>(AssertSqlSafe(sql.to_owned()));
                for v in args {
                    q = match v {
                        V::I(x) => q.bind(*x),
                        V::F(x) => q.bind(*x),
                        V::T(x) => q.bind(x.clone()),
                        V::B(x) => q.bind(x.clone()),
                        V::NullT => q.bind(None::<String>),
                        V::NullI => q.bind(None::<i64>),
                        V::NullF => q.bind(None::<f64>),
                        V::NullB => q.bind(None::<Vec<u8>>),
                    };
                }
                let rows = q.fetch_all($conn).await.map_err(|e| db_error(sql, e))?;
                Ok(rows.into_iter().map($row).collect())
            }};
        }
        match &mut self.conn {
            Conn::SqliteWriter(c) => all!(Sqlite, &mut *c, Row::Sqlite),
            Conn::SqliteReader(c) => all!(Sqlite, &mut **c, Row::Sqlite),
            Conn::PostgresWriter(c) => all!(Postgres, &mut *c, Row::Postgres),
            Conn::PostgresReader(c) => all!(Postgres, &mut **c, Row::Postgres),
        }
    }

    /// The first row of a query, if there is one.
    pub async fn row(&mut self, sql: &str, args: &[V]) -> Result<Option<Row>> {
        Ok(self.rows(sql, args).await?.into_iter().next())
    }

    /// Runs a statement for its effect; answers how many rows it touched. For tables that are not
    /// resources (sagas, heartbeats, counters); a resource is changed by [`Tx::insert`], [`Tx::update`]
    /// and [`Tx::delete`] only.
    pub async fn exec(&mut self, sql: &str, args: &[V]) -> Result<u64> {
        self.statements += 1;
        macro_rules! run {
            ($db:ty, $conn:expr) => {{
                let mut q = sqlx::query::<$db>(AssertSqlSafe(sql.to_owned()));
                for v in args {
                    q = match v {
                        V::I(x) => q.bind(*x),
                        V::F(x) => q.bind(*x),
                        V::T(x) => q.bind(x.clone()),
                        V::B(x) => q.bind(x.clone()),
                        V::NullT => q.bind(None::<String>),
                        V::NullI => q.bind(None::<i64>),
                        V::NullF => q.bind(None::<f64>),
                        V::NullB => q.bind(None::<Vec<u8>>),
                    };
                }
                q.execute($conn)
                    .await
                    .map(|r| r.rows_affected())
                    .map_err(|e| db_error(sql, e))
            }};
        }
        match &mut self.conn {
            Conn::SqliteWriter(c) => run!(Sqlite, &mut *c),
            Conn::PostgresWriter(c) => run!(Postgres, &mut *c),
            Conn::SqliteReader(_) | Conn::PostgresReader(_) => {
                Err(Error::internal("a statement that writes in a reading transaction"))
            }
        }
    }

    /// Runs text that is not a prepared statement (BEGIN, migrations).
    pub(crate) async fn raw(&mut self, sql: &str) -> Result<()> {
        let text = sqlx::raw_sql(AssertSqlSafe(sql.to_owned()));
        match &mut self.conn {
            Conn::SqliteWriter(c) => text.execute(&mut *c).await.map(|_| ()),
            Conn::PostgresWriter(c) => text.execute(&mut *c).await.map(|_| ()),
            Conn::SqliteReader(c) => text.execute(&mut **c).await.map(|_| ()),
            Conn::PostgresReader(c) => text.execute(&mut **c).await.map(|_| ()),
        }
        .map_err(|e| db_error(sql, e))
    }

    /// The next number of a named counter, from 1: device indexes, VNIs, EC2 ids.
    pub async fn next_number(&mut self, counter: &str) -> Result<i64> {
        self.row(
            "INSERT INTO counter(name, value) VALUES($1, 1)
             ON CONFLICT(name) DO UPDATE SET value = counter.value + 1 RETURNING value",
            &[counter.into()],
        )
        .await?
        .ok_or_else(|| Error::internal("counter gave no row"))?
        .i64(0)
    }
}

/// Code of the errors that mean: the connection is gone, and what was not committed with it.
pub(crate) const LOST: &str = "database-lost";

/// Whether a connection is good for nothing more: PostgreSQL ends, starts, cannot be reached, or has ended a write that
/// stood still.
fn is_lost(e: &sqlx::Error) -> bool {
    match e {
        sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_) => true,
        sqlx::Error::Database(d) => d
            .code()
            .is_some_and(|c| c.starts_with("57P0") || c.starts_with("08") || c == "25P03"),
        _ => false,
    }
}

/// Turns a database error into ours; serialization failures and lost connections become retryable.
pub(crate) fn db_error(sql: &str, e: sqlx::Error) -> Error {
    let head: String = sql.split_whitespace().take(12).collect::<Vec<_>>().join(" ");
    if is_lost(&e) {
        return Error::unavailable(
            "The cloud's database cannot be reached at the moment. Nothing was changed; repeat the request.",
        )
        .with_private(format!("{head}: {e}"))
        .with_code(LOST)
        .retryable();
    }
    if let sqlx::Error::Database(d) = &e {
        let code = d.code().unwrap_or_default().into_owned();
        match code.as_str() {
            // PostgreSQL: serialization failure, deadlock, a lock that was waited for too long.
            "40001" | "40P01" | "55P03" => {
                return Error::unavailable("The cloud is busy with conflicting changes. Repeat the request.")
                    .with_private(format!("{head}: {e}"))
                    .retryable();
            }
            // A unique column taken by an update (inserts say so without an error): SQLite's two codes, and
            // PostgreSQL's.
            "2067" | "1555" | "23505" => {
                return Error::conflict("Another resource has this name or key already.")
                    .with_private(format!("{head}: {e}"));
            }
            // SQLITE_FULL; PostgreSQL disk_full.
            "13" | "53100" => {
                return Error::new(
                    Kind::InsufficientStorage,
                    "The disk that holds the cloud's database is full. Free space there; nothing was changed.",
                )
                .with_private(format!("{head}: {e}"));
            }
            _ => {}
        }
    }
    Error::internal(format!("{head}: {e}"))
}
