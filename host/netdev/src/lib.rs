//! Network drivers: one trait, the kernel-native driver and a fake behind it; OVN comes later.
//!
//! A driver gets networks, ports, routers and rules ([`NetDesired`]), never bridges. It is
//! declarative: `apply` brings the host to the whole desired set and may be repeated at any time.
//!
//! Invariants: absence from the set is never delete (only [`NetDriver::remove`] takes away); the
//! data plane has its own namespaces; the user's host gets one veth and one nft table.

use haneul_agent_api::{Failure, Kind, Metadata, NetDesired};
use std::collections::BTreeMap;
use std::future::Future;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use uuid::Uuid;

pub mod fake;
pub mod real;

/// A boxed future, so that the driver can be chosen at start (`Arc<dyn NetDriver>`).
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Where the metadata responder finds the documents of the guest behind a port.
pub trait MetadataSource: Send + Sync {
    /// Guest id, project id and documents of the guest that holds `port`.
    fn by_port(&self, port: Uuid) -> Option<(Uuid, String, Metadata)>;
    /// The password that this guest has posted.
    fn password(&self, guest: Uuid) -> Option<String>;
    /// Takes the password that a guest posts. It is durable when this answers; blocks for the disk.
    fn set_password(&self, guest: Uuid, password: &str) -> Result<(), PasswordRefused>;
}

/// Why a posted password was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PasswordRefused {
    /// There is one already, and nobody has cleared it.
    Taken,
    /// The guest is on its way out.
    Gone,
    /// The host could not store it.
    Failed,
}

/// What exists on the host now, by id.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NetObserved {
    pub networks: Vec<Uuid>,
    pub ports: Vec<Uuid>,
    pub routers: Vec<Uuid>,
    /// Devices, namespaces or rules that belong to this host's data plane and to no known object.
    pub strays: Vec<String>,
}

/// What could not be brought about, by object.
pub type Troubles = BTreeMap<(Kind, Uuid), Failure>;

/// Notes what failed for an object; the first failure says most.
pub fn trouble(all: &mut Troubles, kind: Kind, id: Uuid, why: Failure) {
    all.entry((kind, id)).or_insert(why);
}

/// A driver for the data plane of this host.
pub trait NetDriver: Send + Sync {
    /// Name and features, for `doctor` and logs.
    fn capabilities(&self) -> Vec<(String, String)>;

    /// Brings the host to `desired`: devices, rules, responders. Established connections that no rule
    /// allows any more are cut. Idempotent; after a host's reboot it builds everything anew. Answers what failed for
    /// single objects: the others are there. An error is the host's own, and says nothing of what is there.
    fn apply<'a>(&'a self, desired: &'a NetDesired) -> BoxFuture<'a, Result<Troubles, Failure>>;

    /// Takes away one object that a tombstone named. Removing what is not there is fine.
    fn remove(&self, kind: Kind, id: Uuid) -> BoxFuture<'_, Result<(), Failure>>;

    /// Opens the tap of a guest port (made by `apply`), to be handed to QEMU.
    fn open_tap(&self, port: Uuid) -> Result<OwnedFd, Failure>;

    /// What is there.
    fn observe(&self) -> BoxFuture<'_, Result<NetObserved, Failure>>;

    /// Where documents for guests come from; set once before the first `apply`.
    fn set_metadata(&self, source: Arc<dyn MetadataSource>);

    /// Takes away every trace of this host's data plane (`down --purge`).
    fn purge(&self) -> BoxFuture<'_, Result<(), Failure>>;
}
