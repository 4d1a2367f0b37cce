//! The SQLite writer: one thread, BEGIN IMMEDIATE, a savepoint per closure, one COMMIT for all that
//! waited.

use crate::db::Work;
use crate::processes::Own;
use crate::tx::{Conn, Tx, db_error};
use haneul_core::{Error, Result, fault_point};
use sqlx::Connection;
use sqlx::sqlite::SqliteConnectOptions;
use std::sync::Arc;
use tokio::sync::{mpsc, watch};

/// Writes that may wait; more make callers wait.
const QUEUE: usize = 4096;
/// Writes per commit at the most.
const BATCH: usize = 64;

pub(crate) async fn connect(options: &SqliteConnectOptions) -> Result<sqlx::SqliteConnection> {
    sqlx::SqliteConnection::connect_with(options)
        .await
        .map_err(|e| db_error("connect", e))
}

pub(crate) fn start(mut tx: Tx, changed: watch::Sender<u64>, own: Arc<Own>) -> Result<mpsc::Sender<Box<dyn Work>>> {
    let (send, mut queue) = mpsc::channel::<Box<dyn Work>>(QUEUE);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("db-writer".into()).spawn(move || {
        runtime.block_on(async move {
            while let Some(first) = queue.recv().await {
                let mut batch = vec![first];
                while batch.len() < BATCH {
                    match queue.try_recv() {
                        Ok(work) => batch.push(work),
                        Err(_) => break,
                    }
                }
                tx.me = own.id();
                commit_batch(&mut tx, batch, &changed).await;
            }
            if let Conn::SqliteWriter(c) = tx.conn {
                let _ = c.close().await;
            }
        });
    })?;
    Ok(send)
}

async fn commit_batch(tx: &mut Tx, mut batch: Vec<Box<dyn Work>>, changed: &watch::Sender<u64>) {
    let outcome = run_batch(tx, &mut batch).await;
    match outcome {
        Ok(hooks) => {
            fault_point!("store.after-commit");
            if std::mem::take(&mut tx.logged) {
                changed.send_modify(|n| *n += 1);
            }
            // Before the answers: who hears that a token is revoked finds every cache without it.
            for hook in hooks {
                hook();
            }
            for work in batch {
                work.finish(Ok(()));
            }
        }
        Err(e) => {
            tracing::error!(error = %e, "a batch of writes failed as a whole");
            // SQLite may have rolled back by itself already; an error here says no more than that.
            let _ = tx.raw("ROLLBACK").await;
            tx.changes.clear();
            tx.hooks.clear();
            for work in batch {
                work.finish(Err(e.clone()));
            }
        }
    }
}

type Hooks = Vec<Box<dyn FnOnce() + Send>>;

/// An error here undoes the whole batch (SQLITE_FULL and IOERR may have done so already).
async fn run_batch(tx: &mut Tx, batch: &mut [Box<dyn Work>]) -> Result<Hooks> {
    let mut hooks: Hooks = Vec::new();
    tx.raw("BEGIN IMMEDIATE").await?;
    for work in batch.iter_mut() {
        tx.actor = work.actor().clone();
        tx.changes.clear();
        tx.hooks.clear();
        tx.raw("SAVEPOINT w").await?;
        match work.run(tx).await {
            Ok(()) => {
                tx.raw("RELEASE w").await?;
                hooks.append(&mut tx.hooks);
            }
            Err(e) => {
                let fatal = e.kind() == haneul_core::Kind::InsufficientStorage;
                // The savepoint keeps one closure's failure from its neighbours in the batch.
                tx.raw("ROLLBACK TO w").await?;
                tx.raw("RELEASE w").await?;
                if fatal {
                    return Err(e);
                }
            }
        }
    }
    fault_point!(
        "store.before-commit",
        Error::unavailable("the lab made this commit fail")
    );
    tx.raw("COMMIT").await?;
    Ok(hooks)
}
