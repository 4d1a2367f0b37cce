//! The PostgreSQL writers: a few threads with a connection each, SERIALIZABLE, repeated on 40001 and
//! 40P01 with jitter until a deadline.

use crate::db::Work;
use crate::tx::{Conn, Tx};
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
/// How long a write is repeated before the client gets 503.
const DEADLINE: Duration = Duration::from_secs(10);

pub(crate) async fn connect(options: &PgConnectOptions) -> Result<sqlx::PgConnection> {
    sqlx::PgConnection::connect_with(options).await.map_err(|e| {
        Error::unavailable("PostgreSQL cannot be reached. Check database.url and that the server runs.").with_private(e)
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

pub(crate) fn start(options: PgConnectOptions, changed: watch::Sender<u64>) -> Result<mpsc::Sender<Box<dyn Work>>> {
    let (send, queue) = mpsc::channel::<Box<dyn Work>>(QUEUE);
    let queue = Arc::new(Mutex::new(queue));
    for n in 0..WRITERS {
        let (queue, options, changed) = (queue.clone(), options.clone(), changed.clone());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::thread::Builder::new()
            .name(format!("db-writer-{n}"))
            .spawn(move || {
                runtime.block_on(async move {
                    let mut tx = None;
                    loop {
                        let work = queue.lock().await.recv().await;
                        let Some(work) = work else { break };
                        run(&mut tx, &options, work, &changed).await;
                    }
                });
            })?;
    }
    Ok(send)
}

async fn run(slot: &mut Option<Tx>, options: &PgConnectOptions, mut work: Box<dyn Work>, changed: &watch::Sender<u64>) {
    let deadline = Instant::now() + DEADLINE;
    let mut pause = 2;
    loop {
        let tx = match slot {
            Some(tx) => tx,
            None => match connect(options).await {
                Ok(c) => slot.insert(Tx::new(Conn::PostgresWriter(c))),
                Err(e) => return work.finish(Err(e)),
            },
        };
        match attempt(tx, &mut *work).await {
            Ok(()) => {
                fault_point!("store.after-commit");
                let hooks = std::mem::take(&mut tx.hooks);
                if std::mem::take(&mut tx.logged) {
                    changed.send_modify(|n| *n += 1);
                }
                // Before the answer: who hears that a token is revoked finds every cache without it.
                for hook in hooks {
                    hook();
                }
                work.finish(Ok(()));
                return;
            }
            Err(e) => {
                if tx.raw("ROLLBACK").await.is_err() {
                    // The connection is gone; the next attempt opens another one.
                    *slot = None;
                }
                if !e.is_retryable() || Instant::now() > deadline {
                    return work.finish(Err(e));
                }
                tokio::time::sleep(Duration::from_millis(1 + id::below(pause))).await;
                pause = (pause * 2).min(100);
            }
        }
    }
}

async fn attempt(tx: &mut Tx, work: &mut dyn Work) -> Result<()> {
    tx.actor = work.actor().clone();
    tx.changes.clear();
    tx.hooks.clear();
    tx.raw("BEGIN ISOLATION LEVEL SERIALIZABLE").await?;
    work.run(tx).await?;
    fault_point!(
        "store.before-commit",
        Error::unavailable("the lab made this commit fail")
    );
    tx.raw("COMMIT").await
}
