//! The database: opening, migrations, and the two ways in.

use crate::processes::Own;
use crate::tx::{Conn, Tx, db_error};
use crate::{Actor, postgres, sqlite};
use haneul_core::{Error, Result, clock, release};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};
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

/// The lock of PostgreSQL under which the schema is brought up to date.
const MIGRATING: i64 = 0x4841_4e45_554d;

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
    pub(crate) own: Arc<Own>,
    /// Where PostgreSQL is.
    pub(crate) postgres: Option<PgConnectOptions>,
    /// The file of SQLite.
    pub(crate) file: Option<PathBuf>,
}

#[derive(Clone)]
pub(crate) enum Readers {
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
}, Migration {
    owner: "store",
    number: 2,
    sql: "CREATE TABLE process(id TEXT PRIMARY KEY, number BIGINT NOT NULL, about TEXT NOT NULL, started_at BIGINT NOT NULL);
          CREATE TABLE process_claim(what TEXT PRIMARY KEY, process_id TEXT NOT NULL);
          CREATE INDEX process_claim_by_process ON process_claim(process_id);
          CREATE TABLE process_writer(id TEXT PRIMARY KEY, process_id TEXT NOT NULL, mark TEXT NOT NULL)",
}, Migration {
    owner: "store",
    number: 3,
    // Without rows: who writes to PostgreSQL locks it.
    sql: "CREATE TABLE process_turn(nobody BIGINT)",
}];

/// A queued write.
pub(crate) trait Work: Send {
    fn actor(&self) -> &Actor;
    /// When the caller asked for it.
    fn since(&self) -> Instant;
    /// Runs the closure once more. The answer is kept until [`Work::finish`].
    fn run<'t>(&'t mut self, tx: &'t mut Tx) -> Pin<Box<dyn Future<Output = Result<()>> + 't>>;
    /// Tells the caller: what the closure answered, or why the commit failed.
    fn finish(self: Box<Self>, commit: Result<()>);
}

struct Job<T, F> {
    actor: Actor,
    since: Instant,
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
    fn since(&self) -> Instant {
        self.since
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
        let own = Own::new();
        if let Some(path) = options.url.strip_prefix("sqlite:") {
            let path = PathBuf::from(path);
            let connect = sqlite_options(&path);
            let writer = sqlite::connect(&connect).await?;
            let mut tx = Tx::new(Conn::SqliteWriter(writer));
            migrate(&mut tx, all).await?;
            let file = Some(path);
            let pool = SqlitePoolOptions::new()
                .max_connections(options.readers.max(1))
                .acquire_timeout(Duration::from_secs(30))
                .connect_with(connect.read_only(true))
                .await
                .map_err(|e| db_error("connect", e))?;
            let write = sqlite::start(tx, changed.clone(), own.clone())?;
            Ok(Db {
                read: Readers::Sqlite(pool),
                write,
                changed,
                own,
                postgres: None,
                file,
            })
        } else if options.url.starts_with("postgres:") || options.url.starts_with("postgresql:") {
            let connect = PgConnectOptions::from_str(&options.url)
                .map_err(|e| Error::bad_request("database.url is not a PostgreSQL URL").with_private(e))?
                .statement_cache_capacity(1000);
            let mut tx = Tx::new(Conn::PostgresWriter(postgres::connect(&connect).await?));
            postgres::check_collation(&mut tx).await?;
            // Two processes may start at the same time; the lock goes with the connection.
            tx.rows("SELECT pg_advisory_lock($1)::text", &[MIGRATING.into()])
                .await?;
            migrate(&mut tx, all).await?;
            drop(tx);
            let pool = PgPoolOptions::new()
                .max_connections(options.readers.max(1))
                .acquire_timeout(postgres::PATIENCE)
                .connect_with(connect.clone())
                .await
                .map_err(|e| db_error("connect", e))?;
            let write = postgres::start(connect.clone(), changed.clone(), own.clone())?;
            Ok(Db {
                read: Readers::Postgres(pool),
                write,
                changed,
                own,
                postgres: Some(connect),
                file: None,
            })
        } else {
            Err(Error::bad_request("database.url must begin with sqlite: or postgres:"))
        }
    }

    /// A snapshot to read from. It ends when it is dropped.
    pub async fn read(&self) -> Result<Tx> {
        let mut tx = match &self.read {
            Readers::Sqlite(p) => Tx::new(Conn::SqliteReader(p.begin().await.map_err(|e| db_error("BEGIN", e))?)),
            Readers::Postgres(p) => {
                let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
                let begun = p.begin_with(begin).await.map_err(|e| db_error(begin, e))?;
                Tx::new(Conn::PostgresReader(begun))
            }
        };
        tx.me = self.own.id();
        Ok(tx)
    }

    /// What a counter is at, of all commits that were answered before this is asked; 0: it was never raised.
    pub async fn counter(&self, name: &str) -> Result<i64> {
        const SQL: &str = "SELECT value FROM counter WHERE name = $1";
        let value: Option<i64> = match &self.read {
            Readers::Sqlite(p) => sqlx::query_scalar(SQL).bind(name).fetch_optional(p).await,
            Readers::Postgres(p) => sqlx::query_scalar(SQL).bind(name).fetch_optional(p).await,
        }
        .map_err(|e| db_error(SQL, e))?;
        Ok(value.unwrap_or(0))
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
                since: Instant::now(),
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
    tx.raw("CREATE TABLE IF NOT EXISTS schema_release(release TEXT PRIMARY KEY, since BIGINT NOT NULL)")
        .await?;
    for row in tx.rows("SELECT release FROM schema_release", &[]).await? {
        release::check_wrote(&row.str(0)?)?;
    }
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
    tx.exec(
        "INSERT INTO schema_release(release, since) VALUES($1, $2) ON CONFLICT DO NOTHING",
        &[release::name().into(), clock::now().into()],
    )
    .await?;
    Ok(())
}
