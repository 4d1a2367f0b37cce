//! Leases of hosts whose guests' disks are reachable from other hosts, and their end (docs/adr/0009, "Fencing").

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The grant of a lease: with it, the host may run guests on shared disks again after a [`Fence`] of an older token. It
/// comes behind the tombstones of whatever was started elsewhere in between.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The host itself.
    pub id: Uuid,
    pub token: u64,
}

/// Watch over another host that control has lost, and end its lease when that can be proved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fence {
    /// The other host.
    pub id: Uuid,
    /// The grant that shall end.
    pub token: u64,
    /// Its supervisor lives, and shall end its guests on shared disks now.
    #[serde(default)]
    pub at_once: bool,
}

/// What is known of a host that is watched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FenceState {
    /// Nothing was seen of it since the watch began, or since its last beat: its lease may run still.
    Silent,
    /// Its supervisor is at work.
    Alive {
        /// Whether its agent runs.
        agent: bool,
        /// Whether it can reach control.
        cut: bool,
    },
    /// Its lease has ended, provably, and cannot begin anew without a newer grant.
    Ended,
    /// The watching host cannot tell: why.
    Blind(String),
}

/// News of a [`Fence`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedFence {
    /// The other host.
    pub id: Uuid,
    pub epoch: u64,
    pub generation: u64,
    pub token: u64,
    pub state: FenceState,
}
