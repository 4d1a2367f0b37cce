//! The processes that serve one database: which of them live, what is whose, and what they tell each other
//! (docs/adr/0010).
//!
//! A process is a row. On PostgreSQL it lives as long as a session of it holds the advisory lock of its number, which
//! PostgreSQL lets go the moment the process is gone; no clock decides, and an idle process writes nothing. With SQLite
//! there is one, and a lock on a file says so.
//!
//! Invariant: who was given up writes nothing any more. The row of a process that is given up goes in a transaction of
//! its own, and every write of a process looks for its row: SERIALIZABLE puts the one before the other.

use crate::tx::db_error;
use crate::{Actor, Db, Tx};
use haneul_core::{Error, Result, clock, id};
use serde::{Deserialize, Serialize};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgListener, PgPoolOptions};
use sqlx::{AssertSqlSafe, Row as _};
use std::collections::HashMap;
use std::fs::File;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tokio::sync::{broadcast, watch};

/// Locks of processes: this number and the process' own.
const LOCKS: i64 = 0x4841_4e50 << 32;
/// The channel of PostgreSQL that news go by.
const CHANNEL: &str = "haneul";
/// PostgreSQL takes payloads of less than 8,000 bytes.
const PAYLOAD: usize = 7_500;
/// Between looks for processes that are gone.
const LOOK: Duration = Duration::from_secs(1);
/// How long a lock must be free: time to take it again after PostgreSQL was started anew.
const GIVEN_UP_AFTER: Duration = Duration::from_secs(3);
/// Until a lost session is opened again.
const AGAIN: Duration = Duration::from_millis(200);
/// News that may wait for a slow reader, who hears [`Signal::Missed`] then.
const WAITING: usize = 4096;
/// The topic of a process that was given up.
const GONE: &str = "process.gone";

/// A process that serves.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Process {
    /// Another one at each start.
    pub id: String,
    /// Ascending: the lowest of those that live is the one that does what only one should.
    pub number: i64,
    /// What it says of itself; see the caller of [`Db::enlist`].
    pub about: serde_json::Value,
    /// Microseconds since 1970.
    pub started_at: i64,
}

/// What other processes say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Told in a transaction that is committed.
    News { topic: String, about: String },
    /// This process is gone, and what it had is nobody's.
    Gone(String),
    /// News may have been lost: anything may have happened.
    Missed,
}

/// What a handle of the database knows of its own process.
pub(crate) struct Own {
    id: OnceLock<Arc<str>>,
    signals: broadcast::Sender<Signal>,
    given_up: watch::Sender<bool>,
    /// With SQLite: nobody else serves this file.
    file: OnceLock<File>,
}

impl Own {
    pub fn new() -> Arc<Own> {
        Arc::new(Own {
            id: OnceLock::new(),
            signals: broadcast::channel(WAITING).0,
            given_up: watch::channel(false).0,
            file: OnceLock::new(),
        })
    }

    pub fn id(&self) -> Option<Arc<str>> {
        self.id.get().cloned()
    }

    /// The others have given this process up.
    pub fn give_up(&self) {
        self.given_up.send_replace(true);
    }
}

/// Code of the error of a process that was given up.
pub(crate) const GIVEN_UP: &str = "process-given-up";

/// Why it can do nothing more.
fn given_up() -> Error {
    Error::unavailable(
        "This process of the control plane was cut off from its database, and starts anew. Repeat the request.",
    )
    .with_code(GIVEN_UP)
}

impl Db {
    /// Becomes one of the processes that serve this database; once, and before it serves.
    ///
    /// # Errors
    /// Conflict when another one serves this SQLite file.
    pub async fn enlist(&self, about: serde_json::Value) -> Result<Process> {
        if let Some(file) = &self.file {
            let lock = File::create(file.with_added_extension("lock"))?;
            lock.try_lock().map_err(|e| {
                Error::conflict(format!(
                    "{}: another process serves it, and SQLite has room for one ({e}). End that one, or move to PostgreSQL for several: `haneul store move`",
                    file.display()
                ))
            })?;
            let _ = self.own.file.set(lock);
        }
        let me: Arc<str> = id::uuid().into();
        let (mine, said) = (me.clone(), about.to_string());
        let started_at = clock::now();
        let number = self
            .write(&Actor::system("start"), async move |tx| {
                if !tx.is_postgres() {
                    tx.exec("DELETE FROM process", &[]).await?;
                    tx.exec("DELETE FROM process_claim", &[]).await?;
                }
                let number = tx.next_number("process").await?;
                tx.exec(
                    "INSERT INTO process(id, number, about, started_at) VALUES($1, $2, $3, $4)",
                    &[(&*mine).into(), number.into(), said.as_str().into(), started_at.into()],
                )
                .await?;
                Ok(number)
            })
            .await?;
        if let Some(options) = &self.postgres {
            let mut session = Session::open(options, number).await?;
            let now = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint";
            clock::steady_as(one(&mut session.0, now).await?);
            let keeper = Keeper {
                db: self.clone(),
                me: me.clone(),
                number,
                options: options.clone(),
            };
            tokio::spawn(keeper.keep(session));
            tokio::spawn(listen(self.clone(), options.clone(), me.clone()));
        }
        let _ = self.own.id.set(me.clone());
        Ok(Process {
            id: me.to_string(),
            number,
            about,
            started_at,
        })
    }

    /// The id of this process, once it has enlisted.
    pub fn me(&self) -> Option<Arc<str>> {
        self.own.id()
    }

    /// Whether others may serve the same database.
    pub fn is_shared(&self) -> bool {
        self.postgres.is_some() && self.own.id.get().is_some()
    }

    /// What other processes say from now on.
    pub fn signals(&self) -> Signals {
        Signals(self.own.signals.subscribe())
    }

    /// Resolves when the others have given this process up: it can do nothing more, and should end.
    pub async fn given_up(&self) {
        let mut given_up = self.own.given_up.subscribe();
        let _ = given_up.wait_for(|g| *g).await;
    }

    /// Whether this process is the one of all that does what only one should do. Two may think so for a moment.
    pub async fn leads(&self) -> Result<bool> {
        if !self.is_shared() {
            return Ok(true);
        }
        let mut tx = self.read().await?;
        let first = tx.row("SELECT id FROM process ORDER BY number LIMIT 1", &[]).await?;
        let first = first.map(|r| r.str(0)).transpose()?;
        Ok(first.as_deref() == self.me().as_deref())
    }

    /// Gives a process up: what it had is nobody's. True when it was there.
    async fn bury(&self, process: &str) -> Result<bool> {
        let gone = process.to_owned();
        let was = self
            .write(&Actor::system("process"), async move |tx| {
                for table in ["process_claim", "process_writer"] {
                    let sql = format!("DELETE FROM {table} WHERE process_id = $1");
                    tx.exec(&sql, &[gone.as_str().into()]).await?;
                }
                let n = tx
                    .exec("DELETE FROM process WHERE id = $1", &[gone.as_str().into()])
                    .await?;
                tx.tell(GONE, &gone);
                Ok(n == 1)
            })
            .await?;
        if was {
            tracing::warn!(process, "a process of the control plane is gone");
            let _ = self.own.signals.send(Signal::Gone(process.to_owned()));
        }
        Ok(was)
    }
}

/// See [`Db::signals`].
pub struct Signals(broadcast::Receiver<Signal>);

impl Signals {
    /// The next one.
    pub async fn next(&mut self) -> Signal {
        match self.0.recv().await {
            Ok(signal) => signal,
            Err(broadcast::error::RecvError::Lagged(_)) => Signal::Missed,
            Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
        }
    }
}

impl Tx {
    /// All processes that serve, by number.
    pub async fn processes(&mut self) -> Result<Vec<Process>> {
        let rows = self
            .rows("SELECT id, number, about, started_at FROM process ORDER BY number", &[])
            .await?;
        rows.iter()
            .map(|r| {
                Ok(Process {
                    id: r.str(0)?,
                    number: r.i64(1)?,
                    about: serde_json::from_str(&r.str(2)?)?,
                    started_at: r.i64(3)?,
                })
            })
            .collect()
    }

    /// Those of the others that live, on PostgreSQL: a row alone may be of one that died a moment ago.
    pub async fn other_processes(&mut self) -> Result<Vec<Process>> {
        if !self.is_postgres() {
            return Ok(Vec::new());
        }
        let mut others = self.processes().await?;
        let me = self.me.clone();
        others.retain(|p| me.as_deref() != Some(&*p.id));
        let mut living = Vec::new();
        for process in others {
            let sql = "SELECT pg_try_advisory_xact_lock($1)::int::bigint";
            let free = self.row(sql, &[(LOCKS + process.number).into()]).await?;
            if free.is_some_and(|r| r.i64(0).is_ok_and(|free| free == 0)) {
                living.push(process);
            }
        }
        Ok(living)
    }

    /// One that serves.
    pub async fn process(&mut self, id: &str) -> Result<Option<Process>> {
        Ok(self.processes().await?.into_iter().find(|p| p.id == id))
    }

    /// Makes something this process' own until it lets go or ends; false: it is another one's, who lives.
    pub async fn claim(&mut self, what: &str) -> Result<bool> {
        let Some(me) = self.me.clone() else { return Ok(true) };
        let sql = "INSERT INTO process_claim(what, process_id) VALUES($1, $2)
                   ON CONFLICT(what) DO UPDATE SET process_id = excluded.process_id
                   WHERE process_claim.process_id = excluded.process_id
                      OR NOT EXISTS (SELECT 1 FROM process WHERE process.id = process_claim.process_id)";
        Ok(self.exec(sql, &[what.into(), (&*me).into()]).await? == 1)
    }

    /// Lets go of what [`Tx::claim`] took.
    pub async fn let_go(&mut self, what: &str) -> Result<()> {
        self.exec("DELETE FROM process_claim WHERE what = $1", &[what.into()])
            .await?;
        Ok(())
    }

    /// Whether something is another process' own, who lives.
    pub async fn is_claimed_elsewhere(&mut self, what: &str) -> Result<bool> {
        let Some(me) = self.me.clone() else { return Ok(false) };
        let sql =
            "SELECT 1 FROM process_claim c JOIN process p ON p.id = c.process_id WHERE c.what = $1 AND p.id <> $2";
        Ok(self.row(sql, &[what.into(), (&*me).into()]).await?.is_some())
    }

    /// Tells the other processes, when this is committed. In this one [`Tx::after_commit`] does it.
    pub fn tell(&mut self, topic: &str, about: &str) {
        let news = (topic.to_owned(), about.to_owned());
        if self.is_postgres() && !self.news.contains(&news) {
            self.news.push(news);
        }
    }

    /// Sends what was told; called once, just before the commit.
    pub(crate) async fn flush_news(&mut self) -> Result<()> {
        let from = self.me.clone();
        let mut part: Vec<(String, String)> = Vec::new();
        let mut length = 0;
        let mut news = std::mem::take(&mut self.news).into_iter().peekable();
        while let Some(one) = news.next() {
            length += one.0.len() + one.1.len() + 16;
            part.push(one);
            let full = news.peek().is_none_or(|n| length + n.0.len() + n.1.len() > PAYLOAD);
            if full {
                let text = serde_json::to_string(&Told {
                    from: from.as_deref().map(str::to_owned),
                    news: std::mem::take(&mut part),
                })?;
                self.rows("SELECT pg_notify($1, $2)::text", &[CHANNEL.into(), text.into()])
                    .await?;
                length = 0;
            }
        }
        Ok(())
    }

    /// Leaves a mark of this write in the row of its writer, by which it is known later whether it was committed; answers
    /// the number of the transaction. An error when this process was given up.
    pub(crate) async fn mark(&mut self, writer: &str, mark: &str) -> Result<String> {
        let me = self.me.clone();
        let lives = match me {
            Some(_) => "EXISTS (SELECT 1 FROM process WHERE process.id = $2)",
            None => "TRUE",
        };
        let sql = format!(
            "INSERT INTO process_writer(id, process_id, mark) SELECT $1, $2, $3 WHERE {lives}
             ON CONFLICT(id) DO UPDATE SET process_id = excluded.process_id, mark = excluded.mark
             RETURNING pg_current_xact_id()::text"
        );
        let me = me.as_deref().unwrap_or_default();
        let row = self.row(&sql, &[writer.into(), me.into(), mark.into()]).await?;
        row.ok_or_else(given_up)?.str(0)
    }
}

/// What goes by the channel.
#[derive(Serialize, Deserialize)]
struct Told {
    from: Option<String>,
    news: Vec<(String, String)>,
}

/// Keeps this process alive in the eyes of the others, and looks after them.
struct Keeper {
    db: Db,
    me: Arc<str>,
    number: i64,
    options: PgConnectOptions,
}

/// The session that holds the lock of a process.
struct Session(PgConnection);

impl Session {
    async fn open(options: &PgConnectOptions, number: i64) -> Result<Session> {
        let mut connection = crate::postgres::connect(options).await?;
        // Of a machine that vanished PostgreSQL shall not think for hours that it is there.
        let keepalive = "SET tcp_keepalives_idle = 5; SET tcp_keepalives_interval = 2; SET tcp_keepalives_count = 3";
        sqlx::raw_sql(keepalive)
            .execute(&mut connection)
            .await
            .map_err(|e| db_error("SET", e))?;
        loop {
            let sql = format!("SELECT pg_try_advisory_lock({})", LOCKS + number);
            let mine: bool = one(&mut connection, &sql).await?;
            if mine {
                return Ok(Session(connection));
            }
            // Our own session of before, or somebody who looks at this moment.
            tokio::time::sleep(AGAIN).await;
        }
    }
}

async fn one<T>(connection: &mut PgConnection, sql: &str) -> Result<T>
where
    T: for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
{
    let row = sqlx::query(AssertSqlSafe(sql.to_owned()))
        .fetch_one(connection)
        .await
        .map_err(|e| db_error(sql, e))?;
    row.try_get(0).map_err(|e| db_error(sql, e))
}

impl Keeper {
    async fn keep(self, first: Session) {
        let mut session = Some(first);
        loop {
            let open = match session.take() {
                Some(open) => Ok(open),
                None => Session::open(&self.options, self.number).await,
            };
            let ended = match open {
                Ok(open) => self.look_after(open).await,
                Err(e) => Err(e),
            };
            match ended {
                Ok(()) => {
                    tracing::error!("the other processes have given this one up");
                    return self.db.own.give_up();
                }
                Err(e) => tracing::warn!(error = %e, "the session of this process is lost; opening it again"),
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Returns when this process was given up.
    async fn look_after(&self, mut session: Session) -> Result<()> {
        let mut free: HashMap<String, Instant> = HashMap::new();
        loop {
            let sql =
                "SELECT id, CASE WHEN id = $1 THEN FALSE ELSE pg_try_advisory_xact_lock($2 + number) END FROM process";
            let rows = sqlx::query(sql)
                .bind(&*self.me)
                .bind(LOCKS)
                .fetch_all(&mut session.0)
                .await
                .map_err(|e| db_error(sql, e))?;
            let mut all = Vec::new();
            for row in &rows {
                let (id, dead): (String, bool) = (
                    row.try_get(0).map_err(|e| db_error(sql, e))?,
                    row.try_get(1).map_err(|e| db_error(sql, e))?,
                );
                if dead {
                    free.entry(id.clone()).or_insert_with(Instant::now);
                } else {
                    free.remove(&id);
                }
                all.push(id);
            }
            if !all.iter().any(|id| **id == *self.me) {
                return Ok(());
            }
            free.retain(|id, _| all.contains(id));
            for (id, since) in &free {
                if since.elapsed() >= GIVEN_UP_AFTER {
                    self.db.bury(id).await?;
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// Hears what other processes tell.
async fn listen(db: Db, options: PgConnectOptions, me: Arc<str>) {
    let mut first = true;
    loop {
        if let Err(e) = listen_once(&db, &options, &me, &mut first).await {
            tracing::warn!(error = %e, "the news of other processes do not come; trying again");
        }
        tokio::time::sleep(AGAIN).await;
    }
}

async fn listen_once(db: &Db, options: &PgConnectOptions, me: &str, first: &mut bool) -> Result<(), sqlx::Error> {
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .connect_with(options.clone())
        .await?;
    let mut listener = PgListener::connect_with(&pool).await?;
    listener.listen(CHANNEL).await?;
    // What came before the first of it concerns nobody: whoever starts reads everything.
    if !std::mem::take(first) {
        let _ = db.own.signals.send(Signal::Missed);
    }
    while let Some(note) = listener.try_recv().await? {
        let Ok(told) = serde_json::from_str::<Told>(note.payload()) else {
            continue;
        };
        if told.from.as_deref() == Some(me) {
            continue;
        }
        for (topic, about) in told.news {
            let signal = match topic.as_str() {
                GONE => Signal::Gone(about),
                _ => Signal::News { topic, about },
            };
            let _ = db.own.signals.send(signal);
        }
    }
    Ok(())
}
