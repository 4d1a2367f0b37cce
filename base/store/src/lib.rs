//! The one place that opens transactions: SQLite by default, PostgreSQL by URL, one set of queries.
//!
//! - [`Db::write`] is the only way to write. On SQLite a writer thread takes what waits, gives each
//!   closure a savepoint and commits the batch once; on PostgreSQL the closure waits until its turn among all
//!   processes has come, and is repeated when the connection was lost.
//! - [`Db::read`] gives a snapshot to read from; it cannot write.
//! - A [`Resource`] is what `show` would show. Changing one appends a row to the change log in the same
//!   transaction: [`Tx::insert`], [`Tx::update`] and [`Tx::delete`] are the only ways, and they demand a
//!   [`Grant`], which base/auth gives after look-up and permission in one call.
//! - Columns are TEXT, BIGINT, DOUBLE PRECISION and BLOB only. `{{serial}}`, `{{blob}}` in migrations are
//!   the two words in which the databases differ.
//!
//! Knows nothing of services, HTTP or permissions.

mod change;
mod db;
mod dump;
mod postgres;
mod processes;
mod query;
mod resource;
mod sqlite;
mod tx;
mod value;

pub use change::{Change, Operation, changes, changes_since};
pub use db::{Db, Migration, OpenOptions};
pub use dump::Copied;
pub use processes::{Process, Signal, Signals};
pub use query::{Dir, Query};
pub use resource::{CreateGrant, Grant, Resource, Stored, System};
pub use tx::Tx;
pub use value::{Row, V};

/// Who acts: goes into every change row, saga and message.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Actor {
    /// User id, `system` for the cloud itself, `agent:UUID` for a host.
    pub user: String,
    #[serde(default)]
    pub project: String,
    /// The request id that the client got.
    #[serde(default)]
    pub request_id: String,
}

impl Actor {
    /// The cloud itself, acting for a reason that the log shows.
    pub fn system(reason: &str) -> Self {
        Self {
            user: format!("system:{reason}"),
            project: String::new(),
            request_id: haneul_core::id::request(),
        }
    }
}
