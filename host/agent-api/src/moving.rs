//! Moving a guest from one host to another (docs/adr/0009, "Moving").
//!
//! Nothing moves by command. On the target the desired guest says where it comes from ([`Arriving`]), on the source
//! where it goes ([`Leaving`]); both report how far they are ([`ObservedMove`]). Until the source has handed it over
//! the guest is the source's, and whatever fails leaves it there.

use crate::Failure;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};
use uuid::Uuid;

/// A secret that only the two hosts of one move know, as long as the move lives: TLS's pre-shared key, in hex.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MoveKey(pub String);

impl std::fmt::Debug for MoveKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MoveKey(***)")
    }
}

impl MoveKey {
    /// Whether it is what [`MoveKey`] says: 16 to 64 bytes in hex.
    pub fn is_well_formed(&self) -> bool {
        let text = &self.0;
        (32..=128).contains(&text.len()) && text.len().is_multiple_of(2) && text.bytes().all(|b| b.is_ascii_hexdigit())
    }
}

/// A device as the guest sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// The hypervisor's id of it.
    pub id: String,
    /// `vga`, `disk`, `local-disk`, `config-drive`, `nic`, `rng`, `balloon`.
    pub kind: String,
    /// PCI slot on bus 0.
    pub slot: u8,
    #[serde(default)]
    pub port: Option<Uuid>,
    #[serde(default)]
    pub mac: Option<String>,
    /// Bytes of a config drive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
}

/// The machine that a guest runs in. Another host that takes over its memory builds the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    /// Versioned machine type.
    pub machine: String,
    /// CPU model with its flags.
    pub cpu: String,
    /// `kvm`, `tcg` or `fake`.
    pub accelerator: String,
    pub devices: Vec<Device>,
}

/// On the target: the guest comes from another host. The host makes ready for it and says where it listens; the guest
/// runs here from the moment at which it was handed over, and never before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arriving {
    /// The move. One attempt: what failed is tried again under another id.
    pub id: Uuid,
    pub key: MoveKey,
    /// The source's machine.
    pub layout: Layout,
    /// Both hosts have the guest's disks before them; otherwise they come along.
    #[serde(default)]
    pub shared_disks: bool,
}

/// On the source: the guest goes to another host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leaving {
    /// The move.
    pub id: Uuid,
    pub key: MoveKey,
    /// Where the target listens.
    pub to: MoveAddress,
    #[serde(default)]
    pub shared_disks: bool,
    /// How long the guest may stand still at the end.
    #[serde(default = "default_downtime")]
    pub downtime_ms: u64,
    /// It shall stay after all. Too late once it was handed over.
    #[serde(default)]
    pub abort: bool,
    /// It stands still until it is over there, so that it does come to an end.
    #[serde(default)]
    pub force: bool,
}

fn default_downtime() -> u64 {
    300
}

/// Where a target listens for one move.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MoveAddress {
    pub address: IpAddr,
    /// For memory and devices.
    pub memory_port: u16,
    /// For disks, when they come along.
    #[serde(default)]
    pub disks_port: Option<u16>,
}

impl MoveAddress {
    pub fn memory(&self) -> SocketAddr {
        (self.address, self.memory_port).into()
    }
}

/// How far a move is on one of its hosts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedMove {
    /// The move.
    pub id: Uuid,
    pub state: MoveState,
}

/// See [`ObservedMove`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MoveState {
    /// Target: ready, and waits there.
    Listening(MoveAddress),
    /// Source: under way.
    Moving(MoveProgress),
    /// Source: the guest is the target's. Its process here keeps still; it is ended by a tombstone, or goes on when it
    /// shall leave no more, which control asks for only when nothing of it is left on the target.
    HandedOver,
    /// Source: the process ended while it handed the guest over. Only the target knows whether it has it.
    Lost,
    /// Target: the guest is here.
    Arrived,
    /// It is over. On the source the guest is what it was, or has ended by itself.
    Failed(Failure),
}

/// How much of a guest is over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MoveProgress {
    pub memory_total: u64,
    pub memory_done: u64,
    pub memory_left: u64,
    pub disk_total: u64,
    pub disk_done: u64,
    pub disk_left: u64,
}

impl MoveProgress {
    /// 0 to 100; a guest that writes may make it fall.
    pub fn percent(&self) -> u8 {
        // A host may say any numbers.
        let sum = |a: u64, b: u64| u128::from(a) + u128::from(b);
        let total = sum(self.memory_total, self.disk_total);
        let left = sum(self.memory_left, self.disk_left).min(total);
        ((total - left) * 100).checked_div(total).unwrap_or(0) as u8
    }
}
