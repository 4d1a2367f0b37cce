//! The PostgreSQL writers: a few threads with a connection each. One transaction of all processes writes at a time, and
//! begins when its turn has come, so that it sees all that came before; it is repeated when PostgreSQL went away, until a
//! deadline. A commit whose answer was lost is asked after, and never repeated blindly.

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
/// Writing connections: while one waits for the answer to its commit, the next one has its turn.
const WRITERS: usize = 2;
/// Begins a write. LOCK takes no snapshot, so that the one of SERIALIZABLE is made when the turn has come.
const BEGIN: &str = "BEGIN ISOLATION LEVEL SERIALIZABLE; LOCK TABLE process_turn IN EXCLUSIVE MODE";
/// How long a client waits for a database that is away or busy before it gets 503.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// How long PostgreSQL waits for the next statement of a write before it ends it: a process that was frozen, or whose
/// machine is gone, does not keep the turn.
const IDLE: &str = "4s";

pub(crate) async fn connect(options: &PgConnectOptions) -> Result<sqlx::PgConnection> {
    let options = options
        .clone()
        .options([("lock_timeout", "10s"), ("idle_in_transaction_session_timeout", IDLE)]);
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
            id: id::uuid(),
            options: options.clone(),
            changed: changed.clone(),
            own: own.clone(),
            open: None,
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
    /// The name of its row.
    id: String,
    options: PgConnectOptions,
    changed: watch::Sender<u64>,
    own: Arc<Own>,
    open: Option<Tx>,
}

impl Writer {
    /// Repeats one write until it is committed, is refused, or has taken too long.
    async fn run(&mut self, work: &mut dyn Work) -> Result<()> {
        let deadline = Instant::from_std(work.since()) + PATIENCE;
        let mut pause = 2;
        loop {
            let e = match self.once(work, deadline).await {
                Ok(()) => return Ok(()),
                Err(e) => e,
            };
            let usable = match &mut self.open {
                Some(tx) if e.code() != LOST => tx.raw("ROLLBACK").await.is_ok(),
                _ => false,
            };
            if !usable {
                self.open = None;
                pause = pause.max(50);
            }
            if !e.is_retryable() || Instant::now() > deadline {
                return Err(e);
            }
            tracing::debug!(error = %e, "a write is repeated");
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
        let mark = id::hex();
        let number = attempt(tx, work, &self.id, &mark).await.inspect_err(|e| {
            if e.code() == processes::GIVEN_UP {
                self.own.give_up();
            }
        })?;
        fault_point!(
            "store.before-commit",
            Error::unavailable("the lab made this commit fail")
        );
        let committed = tx.raw("COMMIT").await;
        if let Err(e) = &committed
            && e.code() == LOST
        {
            // Whether it was done or not, PostgreSQL knows.
            let sent = Sent {
                writer: &self.id,
                mark: &mark,
                number: &number,
            };
            sent.was_committed(&self.options, deadline, e).await?;
            self.committed();
            self.open = None;
            return Ok(());
        }
        committed?;
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
}

/// A write whose COMMIT was sent, and not answered.
struct Sent<'a> {
    writer: &'a str,
    mark: &'a str,
    number: &'a str,
}

impl Sent<'_> {
    /// Asks over another connection what became of it: an error when it is undone, or when nobody can tell.
    async fn was_committed(&self, options: &PgConnectOptions, deadline: Instant, lost: &Error) -> Result<()> {
        loop {
            match self.is_there(options).await {
                Ok(Some(true)) => return Ok(()),
                Ok(Some(false)) => return Err(lost.clone()),
                Ok(None) | Err(_) if Instant::now() < deadline => tokio::time::sleep(Duration::from_millis(50)).await,
                _ => {
                    return Err(Error::unavailable(
                        "The cloud's database went away while this was written, and whether it was done is not known. Look before you repeat the request.",
                    )
                    .with_private(lost.private()));
                }
            }
        }
    }

    /// None while it may yet come to be. The mark says it, and not the number: what PostgreSQL had not written to its log
    /// when it was killed leaves no trace, and the number goes to another transaction.
    async fn is_there(&self, options: &PgConnectOptions) -> Result<Option<bool>> {
        let mut tx = Tx::new(Conn::PostgresWriter(connect(options).await?));
        let row = tx.row("SELECT pg_xact_status($1::xid8)", &[self.number.into()]).await?;
        let status = row.map_or(Ok(None), |r| r.opt_str(0))?;
        let row = tx
            .row("SELECT mark FROM process_writer WHERE id = $1", &[self.writer.into()])
            .await?;
        let there = row.map_or(Ok(false), |r| r.str(0).map(|mark| mark == self.mark))?;
        Ok((there || status.as_deref() != Some("in progress")).then_some(there))
    }
}

/// Runs the closure, and all that belongs to its commit; answers the transaction's number.
async fn attempt(tx: &mut Tx, work: &mut dyn Work, writer: &str, mark: &str) -> Result<String> {
    tx.actor = work.actor().clone();
    tx.changes.clear();
    tx.hooks.clear();
    tx.news.clear();
    tx.raw(BEGIN).await?;
    work.run(tx).await?;
    tx.flush_news().await?;
    tx.mark(writer, mark).await
}
