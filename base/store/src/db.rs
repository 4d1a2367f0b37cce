//! The database: opening, migrations, and the two ways in.

use crate::tx::{Conn, Tx, db_error};
use crate::{Actor, postgres, sqlite};
use haneul_core::{Error, Result};
use sqlx::postgres::PgPoolOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::str::FromStr;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};

/// A step of the schema. Migrations only add; removal waits a release (architecture 8).
#[derive(Clone, Copy)]
pub struct Migration {
    /// The crate that owns the tables.
    pub owner: &'static str,
    /// From 1, without gaps, per owner.
    pub number: i64,
    /// Statements; `{{serial}}` is an ascending integer primary key, `{{blob}}` the type of bytes.
    pub sql: &'static str,
}

/// How to open a database.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    /// `sqlite:PATH` or `postgres://...`.
    pub url: String,
    /// Reading connections.
    pub readers: u32,
}

/// A handle; cloning is cheap.
#[derive(Clone)]
pub struct Db {
    read: Readers,
    write: mpsc::Sender<Box<dyn Work>>,
    /// Ticks after each commit that appended to the change log.
    changed: watch::Sender<u64>,
}

#[derive(Clone)]
enum Readers {
    Sqlite(sqlx::SqlitePool),
    Postgres(sqlx::PgPool),
}

/// The store's own tables.
pub(crate) const STORE: &[Migration] = &[Migration {
    owner: "store",
    number: 1,
    sql: "CREATE TABLE counter(name TEXT PRIMARY KEY, value BIGINT NOT NULL);
          CREATE TABLE change_log(sequence {{serial}}, time BIGINT NOT NULL, project_id TEXT, kind TEXT NOT NULL,
              id TEXT NOT NULL, generation BIGINT NOT NULL, actor TEXT NOT NULL, request_id TEXT NOT NULL,
              operation TEXT NOT NULL, state TEXT NOT NULL);
          CREATE INDEX change_log_by_id ON change_log(id, sequence);
          CREATE INDEX change_log_by_request ON change_log(request_id)",
}];

/// A queued write.
pub(crate) trait Work: Send {
    fn actor(&self) -> &Actor;
    /// Runs the closure once more. The answer is kept until [`Work::finish`].
    fn run<'t>(&'t mut self, tx: &'t mut Tx) -> Pin<Box<dyn Future<Output = Result<()>> + 't>>;
    /// Tells the caller: what the closure answered, or why the commit failed.
    fn finish(self: Box<Self>, commit: Result<()>);
}

struct Job<T, F> {
    actor: Actor,
    f: F,
    out: Option<Result<T>>,
    reply: oneshot::Sender<Result<T>>,
}

impl<T, F> Work for Job<T, F>
where
    T: Send + 'static,
    F: for<'t> AsyncFn(&'t mut Tx) -> Result<T> + Send + 'static,
{
    fn actor(&self) -> &Actor {
        &self.actor
    }
    fn run<'t>(&'t mut self, tx: &'t mut Tx) -> Pin<Box<dyn Future<Output = Result<()>> + 't>> {
        Box::pin(async move {
            let result = (self.f)(tx).await;
            let result = match result {
                Ok(v) => tx.flush_changes().await.map(|()| v),
                Err(e) => Err(e),
            };
            let status = result.as_ref().map(|_| ()).map_err(Clone::clone);
            self.out = Some(result);
            status
        })
    }
    fn finish(self: Box<Self>, commit: Result<()>) {
        let answer = match (commit, self.out) {
            (Ok(()), Some(out)) => out,
            (Err(e), Some(Ok(_))) => Err(e),
            (_, Some(Err(own))) => Err(own),
            (Err(e), None) => Err(e),
            (Ok(()), None) => Err(Error::internal("a write was committed without having run")),
        };
        // The caller may have gone away; the write counts all the same.
        let _ = self.reply.send(answer);
    }
}

impl Db {
    /// Opens the database, brings its schema up to date and starts the writer.
    pub async fn open(options: &OpenOptions, migrations: &[Migration]) -> Result<Db> {
        let all: Vec<Migration> = STORE.iter().chain(migrations).copied().collect();
        Db::open_as(options, &all).await
    }

    /// As [`Db::open`], with exactly these migrations.
    pub(crate) async fn open_as(options: &OpenOptions, all: &[Migration]) -> Result<Db> {
        let (changed, _) = watch::channel(0);
        if let Some(path) = options.url.strip_prefix("sqlite:") {
            let path = PathBuf::from(path);
            let connect = sqlite_options(&path);
            let writer = sqlite::connect(&connect).await?;
            let mut tx = Tx::new(Conn::SqliteWriter(writer));
            migrate(&mut tx, all).await?;
            let pool = SqlitePoolOptions::new()
                .max_connections(options.readers.max(1))
                .acquire_timeout(Duration::from_secs(30))
                .connect_with(connect.read_only(true))
                .await
                .map_err(|e| db_error("connect", e))?;
            let write = sqlite::start(tx, changed.clone())?;
            Ok(Db {
                read: Readers::Sqlite(pool),
                write,
                changed,
            })
        } else if options.url.starts_with("postgres:") || options.url.starts_with("postgresql:") {
            let connect = sqlx::postgres::PgConnectOptions::from_str(&options.url)
                .map_err(|e| Error::bad_request("database.url is not a PostgreSQL URL").with_private(e))?
                .statement_cache_capacity(1000);
            let mut tx = Tx::new(Conn::PostgresWriter(postgres::connect(&connect).await?));
            postgres::check_collation(&mut tx).await?;
            migrate(&mut tx, all).await?;
            drop(tx);
            let pool = PgPoolOptions::new()
                .max_connections(options.readers.max(1))
                .acquire_timeout(Duration::from_secs(30))
                .connect_with(connect.clone())
                .await
                .map_err(|e| db_error("connect", e))?;
            let write = postgres::start(connect, changed.clone())?;
            Ok(Db {
                read: Readers::Postgres(pool),
                write,
                changed,
            })
        } else {
            Err(Error::bad_request("database.url must begin with sqlite: or postgres:"))
        }
    }

    /// A snapshot to read from. It ends when it is dropped.
    pub async fn read(&self) -> Result<Tx> {
        let conn = match &self.read {
            Readers::Sqlite(p) => Conn::SqliteReader(p.begin().await.map_err(|e| db_error("BEGIN", e))?),
            Readers::Postgres(p) => {
                let mut tx = Tx::new(Conn::PostgresReader(p.begin().await.map_err(|e| db_error("BEGIN", e))?));
                tx.raw("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
                    .await?;
                return Ok(tx);
            }
        };
        Ok(Tx::new(conn))
    }

    /// The only way to write. `f` may run again: it awaits only its own queries and has no side effects
    /// but [`Tx::after_commit`]. When the caller goes away the write still happens.
    pub async fn write<T, F>(&self, actor: &Actor, f: F) -> Result<T>
    where
        T: Send + 'static,
        F: for<'t> AsyncFn(&'t mut Tx) -> Result<T> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        self.write
            .send(Box::new(Job {
                actor: actor.clone(),
                f,
                out: None,
                reply,
            }))
            .await
            .map_err(|_| Error::unavailable("The cloud is shutting down. Repeat the request."))?;
        answer
            .await
            .map_err(|_| Error::unavailable("The cloud is shutting down. Repeat the request."))?
    }

    /// Ticks after each commit that changed something.
    pub fn watch_changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}

fn sqlite_options(path: &std::path::Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        // FULL: an answered write survives a power cut.
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(false)
        .busy_timeout(Duration::from_secs(10))
        .statement_cache_capacity(1000)
        .pragma("cache_size", "-8000")
        .pragma("wal_autocheckpoint", "2000")
}

async fn migrate(tx: &mut Tx, migrations: &[Migration]) -> Result<()> {
    crate::dump::check_whole(tx).await?;
    tx.raw(
        "CREATE TABLE IF NOT EXISTS schema_migration(owner TEXT NOT NULL, number BIGINT NOT NULL, PRIMARY KEY(owner, number))",
    )
    .await?;
    for m in migrations {
        let done = tx
            .row(
                "SELECT number FROM schema_migration WHERE owner = $1 AND number = $2",
                &[m.owner.into(), m.number.into()],
            )
            .await?;
        if done.is_some() {
            continue;
        }
        let (serial, blob) = if tx.is_postgres() {
            ("BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY", "BYTEA")
        } else {
            ("INTEGER PRIMARY KEY AUTOINCREMENT", "BLOB")
        };
        let sql = m.sql.replace("{{serial}}", serial).replace("{{blob}}", blob);
        tx.raw("BEGIN").await?;
        let step = async {
            tx.raw(&sql).await?;
            tx.exec(
                "INSERT INTO schema_migration(owner, number) VALUES($1, $2)",
                &[m.owner.into(), m.number.into()],
            )
            .await
        };
        if let Err(e) = step.await {
            tx.raw("ROLLBACK").await?;
            return Err(Error::internal(format!("migration {} {}: {e}", m.owner, m.number)));
        }
        tx.raw("COMMIT").await?;
    }
    Ok(())
}
