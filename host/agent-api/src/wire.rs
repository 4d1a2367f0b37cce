//! Envelope: greeting, watch stream, reports, byte streams.

use crate::{
    Fence, Guest, Lease, Neighbour, Network, ObservedFence, ObservedGuest, ObservedNet, Port, PostedPassword, Router,
    SecurityGroup, Underlay,
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Newest protocol version spoken by this release; N and N-1 are understood.
pub const PROTOCOL: u32 = 2;
/// Longest line on a watch stream, bytes.
pub const MAX_LINE: usize = 1 << 20;
/// Observations in one report, at the most; an agent that has more says them one report after the other.
pub const MAX_ITEMS: usize = 2000;
/// Longest text of a failure that an agent reports, bytes.
pub const MAX_TEXT: usize = 16 << 10;
/// Seconds between pings on a quiet watch stream; three missed mean that the peer is gone.
pub const PING_SECONDS: u64 = 5;

/// Paths of the protocol, all below the agent socket. The agent always dials.
pub mod path {
    /// `POST` [`crate::Join`] -> [`crate::Joined`]; the only one that asks for no certificate.
    pub const JOIN: &str = "/agent/v1/join";
    /// `POST` [`crate::Renew`] -> [`crate::Renewed`].
    pub const RENEW: &str = "/agent/v1/certificate";
    /// `POST` [`crate::Greeting`] -> [`crate::Welcome`].
    pub const GREET: &str = "/agent/v1/greet";
    /// `GET ?host=UUID&since=SEQUENCE` -> lines of [`crate::ToAgent`]; 410 means: list again.
    pub const WATCH: &str = "/agent/v1/watch";
    /// `POST` [`crate::Report`] -> [`crate::Ack`].
    pub const REPORT: &str = "/agent/v1/report";
    /// `GET /agent/v1/images/{id}` -> the image's bytes.
    pub const IMAGE: &str = "/agent/v1/images/";
    /// `POST /agent/v1/streams/{one-time id}`: the bytes that control asked for by [`crate::ToAgent::Ask`].
    pub const STREAM: &str = "/agent/v1/streams/";
    /// `POST /agent/v1/tunnels/{one-time id}`: bytes both ways, for as long as both sides keep it open. An agent that
    /// cannot open one says why on [`STREAM`].
    pub const TUNNEL: &str = "/agent/v1/tunnels/";
}

/// First message of an agent.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Greeting {
    pub protocol: u32,
    pub release: String,
    /// The UUID in the agent's state directory; never the host name.
    pub host_id: Uuid,
    pub host_name: String,
    /// Changes with every boot of the host.
    pub boot_id: String,
    pub inventory: Inventory,
    pub hypervisor: HypervisorInfo,
    /// Since 2. None: the host has no address at which others could reach it.
    #[serde(default)]
    pub underlay: Option<Underlay>,
}

/// What the host has, before overcommit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Inventory {
    pub vcpus: u32,
    pub memory_mib: u64,
    /// GiB on the file system that holds the disks of new guests: of a directory that hosts share, each counts all.
    pub disk_gib: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HypervisorInfo {
    /// `QEMU`, or `fake` in a lab.
    pub kind: String,
    /// Nova's number form: 10.0.2 is 10000002.
    pub version: u64,
    /// `kvm`, `tcg` or `fake`.
    pub accelerator: String,
    pub arch: String,
    pub cpu_model: String,
    pub cpu_vendor: String,
    #[serde(default)]
    pub cpu_features: Vec<String>,
    #[serde(default)]
    pub sockets: u32,
    #[serde(default)]
    pub cores: u32,
    #[serde(default)]
    pub threads: u32,
    /// Guests can come here from other hosts.
    #[serde(default)]
    pub moves: bool,
    /// Marker of the directory for disks that this host shares with others: hosts with equal markers have the same one.
    #[serde(default)]
    pub shared_disks: Option<Uuid>,
}

/// Answer to a [`Greeting`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Welcome {
    pub protocol: u32,
    pub release: String,
    pub cloud_id: Uuid,
    pub epoch: u64,
    /// Number of this greeting, for the reports that follow it. 0: control is of before it counted.
    #[serde(default)]
    pub session: u64,
    /// `HOST:PORT` of each process of the control plane that hosts can dial.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub controls: Vec<String>,
}

/// One desired object.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "doc", rename_all = "snake_case")]
pub enum Object {
    Guest(Box<Guest>),
    Network(Network),
    Port(Port),
    SecurityGroup(SecurityGroup),
    Router(Router),
    Neighbour(Neighbour),
    Lease(Lease),
    Fence(Fence),
}

/// Where other hosts reach this one, from when that is known on: a host may be there before its address.
pub type Whereabouts = std::sync::Arc<std::sync::OnceLock<Underlay>>;

/// The kind of a desired object, as stored and as named in tombstones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Network,
    SecurityGroup,
    Router,
    Port,
    Guest,
    Neighbour,
    Lease,
    Fence,
}

impl Kind {
    pub const ALL: [Kind; 8] = [
        Kind::Network,
        Kind::SecurityGroup,
        Kind::Router,
        Kind::Port,
        Kind::Guest,
        Kind::Neighbour,
        Kind::Lease,
        Kind::Fence,
    ];
    /// The protocol version that brought the kind. Older agents are never told of it.
    pub fn since(self) -> u32 {
        match self {
            Kind::Neighbour | Kind::Lease | Kind::Fence => 2,
            _ => 1,
        }
    }
    /// The name in the store and on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Network => "network",
            Kind::SecurityGroup => "security_group",
            Kind::Router => "router",
            Kind::Port => "port",
            Kind::Guest => "guest",
            Kind::Neighbour => "neighbour",
            Kind::Lease => "lease",
            Kind::Fence => "fence",
        }
    }
    /// Whether the data plane carries it out.
    pub fn is_net(self) -> bool {
        !matches!(self, Kind::Guest | Kind::Lease | Kind::Fence)
    }
    pub fn parse(s: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|k| k.as_str() == s)
    }
}

impl Object {
    pub fn kind(&self) -> Kind {
        match self {
            Object::Guest(_) => Kind::Guest,
            Object::Network(_) => Kind::Network,
            Object::Port(_) => Kind::Port,
            Object::SecurityGroup(_) => Kind::SecurityGroup,
            Object::Router(_) => Kind::Router,
            Object::Neighbour(_) => Kind::Neighbour,
            Object::Lease(_) => Kind::Lease,
            Object::Fence(_) => Kind::Fence,
        }
    }
    pub fn id(&self) -> Uuid {
        match self {
            Object::Guest(x) => x.id,
            Object::Network(x) => x.id,
            Object::Port(x) => x.id,
            Object::SecurityGroup(x) => x.id,
            Object::Router(x) => x.id,
            Object::Neighbour(x) => x.id,
            Object::Lease(x) => x.id,
            Object::Fence(x) => x.id,
        }
    }
}

/// A desired object with its order. Order is (epoch, generation): an older one than what the agent has is ignored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Desired {
    pub epoch: u64,
    pub generation: u64,
    pub object: Object,
}

/// Removal, the only way to remove.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tombstone {
    pub kind: Kind,
    pub id: Uuid,
    pub epoch: u64,
    pub generation: u64,
    /// Of a guest: its disks go wherever they are. Otherwise the host only lets go of it, and what is in a directory that
    /// hosts share stays, for it may be another host's guest by now.
    #[serde(default)]
    pub disks: bool,
}

/// One line of the watch stream.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ToAgent {
    Put(Box<Desired>),
    Remove(Tombstone),
    /// The list is complete up to this sequence; resume from it after a cut.
    Bookmark {
        sequence: i64,
    },
    Ping,
    /// Control wants bytes: open `POST /agent/v1/streams/{stream}`.
    Ask {
        stream: Uuid,
        what: Ask,
    },
}

/// What bytes control can ask for.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub enum Ask {
    /// The last `lines` lines of a guest's serial log (all of the bounded log when `None`).
    ConsoleLog { guest: Uuid, lines: Option<u32> },
    /// The screen, keyboard and pointer of a guest, as a tunnel that speaks RFB.
    Vnc { guest: Uuid },
    /// The file that was made for [`crate::Guest::snapshot`], as a tunnel; nothing is sent the other way.
    Snapshot { guest: Uuid, image: Uuid },
    /// Everything on the host that an audit compares, as [`crate::HostAudit`] JSON.
    Audit,
}

/// What the agent found on its host, for `haneul audit`: ids only.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HostAudit {
    /// Guests with a live process.
    pub running: Vec<Uuid>,
    /// Guests with a record.
    pub records: Vec<Uuid>,
    /// Guests with a root disk on the host.
    pub disks: Vec<Uuid>,
    /// Guests of whichever host with a root disk in the directory that this one shares.
    #[serde(default)]
    pub shared_disks: Vec<Uuid>,
    /// Guest ports with a device.
    pub ports: Vec<Uuid>,
    pub networks: Vec<Uuid>,
    pub routers: Vec<Uuid>,
    /// Sentences on what the agent itself found to disagree (stray processes, devices, rules).
    pub findings: Vec<String>,
}

/// Observations, in a batch. Only what changed, but all of it after each greeting.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    pub host_id: Uuid,
    /// The greeting that it follows, and its place among the reports since, from 1 on: an older one than the last that
    /// control has taken changes nothing, however late it comes. 0: the agent is of before they were counted.
    #[serde(default)]
    pub session: u64,
    #[serde(default)]
    pub number: u64,
    /// True for the first report after a greeting: everything the agent has.
    #[serde(default)]
    pub full: bool,
    #[serde(default)]
    pub guests: Vec<ObservedGuest>,
    #[serde(default)]
    pub ports: Vec<ObservedNet>,
    #[serde(default)]
    pub routers: Vec<ObservedNet>,
    #[serde(default)]
    pub networks: Vec<ObservedNet>,
    /// Passwords that guests have posted.
    #[serde(default)]
    pub passwords: Vec<PostedPassword>,
    /// Hosts that this one watches.
    #[serde(default)]
    pub fences: Vec<ObservedFence>,
    /// Tombstones carried out.
    #[serde(default)]
    pub gone: Vec<Tombstone>,
    #[serde(default)]
    pub inventory: Option<Inventory>,
}

impl Report {
    /// How much it says.
    pub fn items(&self) -> usize {
        let nets = self.ports.len() + self.routers.len() + self.networks.len();
        self.guests.len() + nets + self.passwords.len() + self.fences.len() + self.gone.len()
    }
}

/// Answer to a [`Report`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Ack {
    pub ok: bool,
}
