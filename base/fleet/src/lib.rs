//! The hosts of the cloud: what they shall hold (desired), what they hold (observed), and the listener
//! that their agents dial.
//!
//! Services write desired objects in their own transactions ([`Fleet::put`], [`Fleet::remove`]) and hear
//! observations through an [`Observer`], again inside a transaction. Nobody calls a host.
//!
//! Invariants: order is (epoch, generation), and a generation never comes twice; absence is never delete;
//! messages carry ids and values only; byte streams are opened by the agent with one-time ids.

mod desired;
mod fencing;
mod host;
mod hub;
mod listener;
mod members;
mod peers;

pub use fencing::{HostFence, Patience};
pub use host::Host;
pub use hub::{ImageSource, ImageStream, Tunnel};
pub use listener::{serve, serve_hosts};
pub use members::MAX_TOKEN_MINUTES;
pub use peers::Door;

use haneul_agent_api::{Greeting, Kind, ObservedGuest, ObservedNet, PostedPassword};
use haneul_core::{Error, Result, id};
use haneul_store::{Actor, Db, Migration, Tx};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use uuid::Uuid;

/// A boxed, sendable future.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Tables.
pub const MIGRATIONS: &[Migration] = &[
    Migration {
        owner: "fleet",
        number: 1,
        sql: "CREATE TABLE fleet_cloud(id TEXT PRIMARY KEY, epoch BIGINT NOT NULL);
          CREATE TABLE host(id TEXT PRIMARY KEY, project_id TEXT, name TEXT NOT NULL, generation BIGINT NOT NULL,
              created_at BIGINT NOT NULL, updated_at BIGINT NOT NULL, doc TEXT NOT NULL, up BIGINT NOT NULL);
          CREATE TABLE fleet_desired(host_id TEXT NOT NULL, kind TEXT NOT NULL, id TEXT NOT NULL, generation BIGINT NOT NULL,
              removed BIGINT NOT NULL, doc TEXT NOT NULL, PRIMARY KEY(host_id, kind, id));
          CREATE INDEX fleet_desired_by_generation ON fleet_desired(host_id, generation);
          CREATE TABLE fleet_observed(host_id TEXT NOT NULL, kind TEXT NOT NULL, id TEXT NOT NULL, epoch BIGINT NOT NULL,
              generation BIGINT NOT NULL, doc TEXT NOT NULL, PRIMARY KEY(host_id, kind, id));
          CREATE INDEX fleet_observed_by_id ON fleet_observed(kind, id)",
    },
    Migration {
        owner: "fleet",
        number: 2,
        sql: "CREATE TABLE fleet_authority(id TEXT PRIMARY KEY, certificate TEXT NOT NULL, key TEXT NOT NULL);
          CREATE TABLE fleet_token(id TEXT PRIMARY KEY, hash TEXT NOT NULL, host_id TEXT NOT NULL, expires_at BIGINT NOT NULL,
              used_at BIGINT NOT NULL, used_by TEXT NOT NULL, used_key TEXT NOT NULL);
          CREATE TABLE fleet_member(host_id TEXT PRIMARY KEY, membership BIGINT NOT NULL, joined_at BIGINT NOT NULL)",
    },
    Migration {
        owner: "fleet",
        number: 3,
        sql: "CREATE TABLE host_fence(id TEXT PRIMARY KEY, project_id TEXT, name TEXT NOT NULL, generation BIGINT NOT NULL,
              created_at BIGINT NOT NULL, updated_at BIGINT NOT NULL, doc TEXT NOT NULL, ended BIGINT NOT NULL);
          CREATE INDEX host_by_up ON host(up)",
    },
    Migration {
        owner: "fleet",
        number: 4,
        sql: "CREATE TABLE fleet_session(host_id TEXT PRIMARY KEY, session BIGINT NOT NULL, number BIGINT NOT NULL)",
    },
];

/// A service that hears what hosts observe. All calls run inside the transaction that records it.
pub trait Observer: Send + Sync {
    /// A host greeted: new, back, or with another inventory.
    fn host_up<'t>(&'t self, tx: &'t mut Tx, greeting: &'t Greeting) -> BoxFuture<'t, Result<()>> {
        let _ = (tx, greeting);
        Box::pin(async { Ok(()) })
    }
    /// Other hosts reach this one at another address than before.
    fn underlay_changed<'t>(&'t self, tx: &'t mut Tx, host: &'t str) -> BoxFuture<'t, Result<()>> {
        let _ = (tx, host);
        Box::pin(async { Ok(()) })
    }
    /// The stream of a host ended. A silent agent is not a dead host: guests go on.
    fn host_down<'t>(&'t self, tx: &'t mut Tx, host: &'t str) -> BoxFuture<'t, Result<()>> {
        let _ = (tx, host);
        Box::pin(async { Ok(()) })
    }
    /// The lease of a host that is down has ended, provably: what is on disks that other hosts reach may start there.
    fn host_ended<'t>(&'t self, tx: &'t mut Tx, host: &'t str) -> BoxFuture<'t, Result<()>> {
        let _ = (tx, host);
        Box::pin(async { Ok(()) })
    }
    /// A host is removed from the cloud. Who still has something on it refuses; who has only notes of it, removes them.
    fn host_leaving<'t>(&'t self, tx: &'t mut Tx, host: &'t Host) -> BoxFuture<'t, Result<()>> {
        let _ = (tx, host);
        Box::pin(async { Ok(()) })
    }
    /// News of a guest.
    fn guest<'t>(&'t self, tx: &'t mut Tx, host: &'t str, guest: &'t ObservedGuest) -> BoxFuture<'t, Result<()>> {
        let _ = (tx, host, guest);
        Box::pin(async { Ok(()) })
    }
    /// News of a network, port or router.
    fn net<'t>(
        &'t self,
        tx: &'t mut Tx,
        host: &'t str,
        kind: Kind,
        seen: &'t ObservedNet,
    ) -> BoxFuture<'t, Result<()>> {
        let _ = (tx, host, kind, seen);
        Box::pin(async { Ok(()) })
    }
    /// A guest has posted a password.
    fn password<'t>(&'t self, tx: &'t mut Tx, host: &'t str, posted: &'t PostedPassword) -> BoxFuture<'t, Result<()>> {
        let _ = (tx, host, posted);
        Box::pin(async { Ok(()) })
    }
    /// A tombstone was carried out: nothing of it is left on the host.
    fn gone<'t>(&'t self, tx: &'t mut Tx, host: &'t str, kind: Kind, id: &'t str) -> BoxFuture<'t, Result<()>> {
        let _ = (tx, host, kind, id);
        Box::pin(async { Ok(()) })
    }
}

/// Raises the epoch, before a restored control plane is served: whatever hosts know of another present is older.
pub async fn raise_epoch(db: &Db) -> Result<u64> {
    db.write(&Actor::system("restore"), async |tx| {
        let row = tx
            .row("UPDATE fleet_cloud SET epoch = epoch + 1 RETURNING epoch", &[])
            .await?;
        let row = row.ok_or_else(|| Error::bad_request("this is no backup of a cloud: it has no id"))?;
        Ok(row.i64(0)? as u64)
    })
    .await
}

/// The facade.
pub struct Fleet {
    pub(crate) db: Db,
    pub(crate) hub: hub::Hub,
    pub(crate) observers: OnceLock<Vec<Arc<dyn Observer>>>,
    pub(crate) images: OnceLock<Arc<dyn ImageSource>>,
    pub(crate) cloud_id: Uuid,
    pub(crate) epoch: u64,
    pub(crate) authority: OnceLock<Arc<haneul_tls::Authority>>,
    pub(crate) patience: OnceLock<Patience>,
    /// What other processes of control show.
    pub(crate) secret: OnceLock<String>,
}

impl Fleet {
    /// Opens the fleet; the first start gives the cloud its id.
    pub async fn open(db: Db) -> Result<Arc<Fleet>> {
        let (cloud_id, epoch) = db
            .write(&Actor::system("start"), async |tx| {
                tx.exec(
                    "INSERT INTO fleet_cloud(id, epoch) SELECT $1, 1 WHERE NOT EXISTS (SELECT 1 FROM fleet_cloud)",
                    &[id::uuid().into()],
                )
                .await?;
                let row = tx
                    .row("SELECT id, epoch FROM fleet_cloud", &[])
                    .await?
                    .ok_or_else(|| Error::internal("the cloud has no id"))?;
                Ok((row.str(0)?, row.i64(1)?))
            })
            .await?;
        let fleet = Arc::new(Fleet {
            db,
            hub: hub::Hub::default(),
            observers: OnceLock::new(),
            images: OnceLock::new(),
            cloud_id: Uuid::try_parse(&cloud_id).map_err(Error::internal)?,
            epoch: epoch as u64,
            authority: OnceLock::new(),
            patience: OnceLock::new(),
            secret: OnceLock::new(),
        });
        // Other processes may have theirs; the hosts of those that are gone say themselves that they are up.
        fleet.leave_nobody_behind().await?;
        Ok(fleet)
    }

    /// Who hears observations, in this order; once, before the listener starts.
    pub fn set_observers(&self, observers: Vec<Arc<dyn Observer>>) {
        let _ = self.observers.set(observers);
    }

    /// Where agents pull images from.
    pub fn set_images(&self, images: Arc<dyn ImageSource>) {
        let _ = self.images.set(images);
    }

    /// The cloud's own id.
    pub fn cloud_id(&self) -> Uuid {
        self.cloud_id
    }

    /// The epoch of desired state; observations of an older one are about a state before a restore.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    pub(crate) fn observers(&self) -> &[Arc<dyn Observer>] {
        self.observers.get().map_or(&[], Vec::as_slice)
    }
}
