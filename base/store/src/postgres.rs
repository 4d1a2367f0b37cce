//! The PostgreSQL writers: a few threads with a connection each, SERIALIZABLE, repeated with jitter until a deadline on
//! 40001 and 40P01, and when PostgreSQL went away. A commit whose answer was lost is asked after, and never repeated
//! blindly.

use crate::db::Work;
use crate::processes::{self, Own};
use crate::tx::{Conn, LOST, Tx};
use haneul_core::{Error, Result, fault_point, id};
use sqlx::Connection;
use sqlx::postgres::PgConnectOptions;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, mpsc, watch};
use tokio::time::Instant;

const QUEUE: usize = 4096;
/// Writing connections: more only conflict more.
const WRITERS: usize = 4;
/// The lock of those that repeat a write, in all processes: they conflict with those that come for the first time, and
/// not with each other, or the longest of them would never get through.
const AGAIN: i64 = 0x4841_4e45_554e;
/// How long a client waits for a database that is away or busy before it gets 503.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) async fn connect(options: &PgConnectOptions) -> Result<sqlx::PgConnection> {
    let options = options.clone().options([("lock_timeout", "10s")]);
    sqlx::PgConnection::connect_with(&options).await.map_err(|e| {
        Error::unavailable("PostgreSQL cannot be reached. Check database.url and that the server runs.")
            .with_private(e)
            .with_code(LOST)
            .retryable()
    })
}

/// PostgreSQL must order text by bytes as SQLite does, or the two page differently.
pub(crate) async fn check_collation(tx: &mut Tx) -> Result<()> {
    let row = tx
        .row(
            "SELECT datcollate::text FROM pg_database WHERE datname = current_database()",
            &[],
        )
        .await?;
    let collation = row.ok_or_else(|| Error::internal("no pg_database row"))?.str(0)?;
    if collation == "C" || collation == "C.UTF-8" || collation == "POSIX" {
        return Ok(());
    }
    Err(Error::bad_request(format!(
        "the PostgreSQL database has collation {collation}, and C is needed: create it with TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'"
    )))
}

pub(crate) fn start(
    options: PgConnectOptions,
    changed: watch::Sender<u64>,
    own: Arc<Own>,
) -> Result<mpsc::Sender<Box<dyn Work>>> {
    let (send, queue) = mpsc::channel::<Box<dyn Work>>(QUEUE);
    let queue = Arc::new(Mutex::new(queue));
    for n in 0..WRITERS {
        let queue = queue.clone();
        let mut writer = Writer {
            options: options.clone(),
            changed: changed.clone(),
            own: own.clone(),
            open: None,
            alone: false,
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::thread::Builder::new()
            .name(format!("db-writer-{n}"))
            .spawn(move || {
                runtime.block_on(async move {
                    loop {
                        let work = queue.lock().await.recv().await;
                        let Some(mut work) = work else { break };
                        let done = writer.run(&mut *work).await;
                        work.finish(done);
                    }
                });
            })?;
    }
    Ok(send)
}

/// A connection that writes; it is opened again when it is lost.
struct Writer {
    options: PgConnectOptions,
    changed: watch::Sender<u64>,
    own: Arc<Own>,
    open: Option<Tx>,
    /// Whether it has the lock of those that repeat something.
    alone: bool,
}

impl Writer {
    /// Repeats one write until it is committed, is refused, or has taken too long.
    async fn run(&mut self, work: &mut dyn Work) -> Result<()> {
        let done = self.repeat(work).await;
        if std::mem::take(&mut self.alone)
            && let Some(tx) = &mut self.open
            && tx
                .rows("SELECT pg_advisory_unlock($1)::text", &[AGAIN.into()])
                .await
                .is_err()
        {
            // With the connection goes the lock.
            self.open = None;
        }
        done
    }

    async fn repeat(&mut self, work: &mut dyn Work) -> Result<()> {
        let deadline = Instant::from_std(work.since()) + PATIENCE;
        let mut pause = 2;
        loop {
            let e = match self.once(work, deadline).await {
                Ok(()) => return Ok(()),
                Err(e) => e,
            };
            if e.code() == LOST {
                self.open = None;
                self.alone = false;
                pause = pause.max(50);
            } else if let Some(tx) = &mut self.open
                && tx.raw("ROLLBACK").await.is_err()
            {
                self.open = None;
            }
            if !e.is_retryable() || Instant::now() > deadline {
                return Err(e);
            }
            tracing::debug!(error = %e, "a write is repeated");
            if let Some(tx) = &mut self.open
                && !self.alone
            {
                self.alone = tx
                    .rows("SELECT pg_advisory_lock($1)::text", &[AGAIN.into()])
                    .await
                    .is_ok();
                continue;
            }
            tokio::time::sleep(Duration::from_millis(1 + id::below(pause))).await;
            pause = (pause * 2).min(100);
        }
    }

    async fn once(&mut self, work: &mut dyn Work, deadline: Instant) -> Result<()> {
        let tx = match &mut self.open {
            Some(tx) => tx,
            none => none.insert(Tx::new(Conn::PostgresWriter(connect(&self.options).await?))),
        };
        tx.me = self.own.id();
        let number = attempt(tx, work).await.inspect_err(|e| {
            if e.code() == processes::GIVEN_UP {
                self.own.give_up();
            }
        })?;
        fault_point!(
            "store.before-commit",
            Error::unavailable("the lab made this commit fail")
        );
        match tx.raw("COMMIT").await {
            // Whether it was done or not, PostgreSQL knows.
            Err(e) if e.code() == LOST => self.was_committed(&number, deadline, e).await?,
            other => other?,
        }
        self.committed();
        Ok(())
    }

    fn committed(&mut self) {
        fault_point!("store.after-commit");
        let Some(tx) = &mut self.open else { return };
        let hooks = std::mem::take(&mut tx.hooks);
        if std::mem::take(&mut tx.logged) {
            self.changed.send_modify(|n| *n += 1);
        }
        // Before the answer: who hears that a token is revoked finds every cache without it.
        for hook in hooks {
            hook();
        }
    }

    /// Asks over a new connection what became of a transaction whose end was not heard.
    async fn was_committed(&mut self, number: &str, deadline: Instant, lost: Error) -> Result<()> {
        let unknown = || {
            Error::unavailable("The cloud's database went away while this was written, and whether it was done is not known. Look before you repeat the request.")
                .with_private(lost.private())
        };
        loop {
            match status(&self.options, number).await {
                Ok(Some(s)) if s == "committed" => {
                    // Its hooks wait in the transaction.
                    let fresh = Conn::PostgresWriter(connect(&self.options).await.map_err(|_| unknown())?);
                    if let Some(tx) = &mut self.open {
                        tx.conn = fresh;
                    }
                    return Ok(());
                }
                Ok(Some(s)) if s == "aborted" => return Err(lost),
                Ok(Some(_)) | Err(_) if Instant::now() < deadline => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                _ => {
                    self.open = None;
                    return Err(unknown());
                }
            }
        }
    }
}

/// `committed`, `aborted` or `in progress`; none for one that PostgreSQL remembers no more.
async fn status(options: &PgConnectOptions, number: &str) -> Result<Option<String>> {
    let mut tx = Tx::new(Conn::PostgresWriter(connect(options).await?));
    let row = tx.row("SELECT pg_xact_status($1::xid8)", &[number.into()]).await?;
    row.map_or(Ok(None), |r| r.opt_str(0))
}

/// Runs the closure, and all that belongs to its commit; answers the transaction's number.
async fn attempt(tx: &mut Tx, work: &mut dyn Work) -> Result<String> {
    tx.actor = work.actor().clone();
    tx.changes.clear();
    tx.hooks.clear();
    tx.news.clear();
    tx.raw("BEGIN ISOLATION LEVEL SERIALIZABLE").await?;
    work.run(tx).await?;
    tx.flush_news().await?;
    tx.number().await
}
