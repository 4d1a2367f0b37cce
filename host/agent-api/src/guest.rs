//! What a guest (a server, in Nova's words) shall be, and what it is.

use crate::{Arriving, Layout, Leaving, ObservedMove};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// What the power state shall be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Power {
    Running,
    Paused,
    /// No process, and the memory on the host's disk: `Running` goes on where the guest was.
    Suspended,
    /// Stopped: first an ACPI power-down, and after `stop_timeout_s` a hard stop.
    Stopped,
}

/// Network cards that a guest can have at the most: slots of the machine that are free for them.
pub const MAX_NICS: usize = 25;

/// The desired state of one guest on one host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Guest {
    pub id: Uuid,
    /// What the user calls it; for logs and the process name only.
    pub name: String,
    pub project_id: String,
    /// The request that last changed it (`req-...`): goes into the agent's and QEMU's log names.
    #[serde(default)]
    pub request_id: String,
    pub vcpus: u32,
    pub memory_mib: u64,
    pub root: RootDisk,
    /// The directory that hosts share in which its disks are, by its marker; none: they are the host's own. A host that
    /// does not have it refuses the guest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared_disks: Option<Uuid>,
    /// Empty disks of its own beside the root disk, in the order in which the guest sees them.
    #[serde(default)]
    pub local_disks: Vec<LocalDisk>,
    #[serde(default)]
    pub nics: Vec<Nic>,
    pub power: Power,
    /// Seconds that a soft stop may take before the guest is stopped hard.
    #[serde(default = "default_stop_timeout")]
    pub stop_timeout_s: u32,
    /// After a boot of the host, guests with smaller numbers start first.
    #[serde(default = "default_start_order")]
    pub start_order: u32,
    /// Goes up by one for each soft reboot (ACPI; falls back to hard after the time-out).
    #[serde(default)]
    pub soft_reboots: u64,
    /// Goes up by one for each hard reboot.
    #[serde(default)]
    pub hard_reboots: u64,
    /// Goes up by one for each rebuild: the root disk is made anew from `root.image`.
    #[serde(default)]
    pub rebuilds: u64,
    /// Goes up by one each time the password that the guest posted is cleared: what it posted before counts no more.
    #[serde(default)]
    pub password_clears: u64,
    /// Whether the guest gets a config drive.
    #[serde(default)]
    pub config_drive: bool,
    /// What the metadata service and the config drive say; complete, so that the agent serves it while
    /// control is down.
    pub metadata: Metadata,
    /// Wanted CPU model; `None`: the agent's default for its accelerator.
    #[serde(default)]
    pub cpu_model: Option<String>,
    /// Flavor extra specs and image properties that the hypervisor understands (`hw:...`, `hw_...`).
    #[serde(default)]
    pub hints: std::collections::BTreeMap<String, String>,
    /// The image that shall be made of its root disk, as that is at one instant. While it stands the host keeps a
    /// qcow2 file of that name, which [`crate::Ask::Snapshot`] reads; without it the host keeps none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<Uuid>,
    /// It comes from another host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arriving: Option<Box<Arriving>>,
    /// It goes to another host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leaving: Option<Box<Leaving>>,
}

/// See [`Guest::start_order`].
pub const START_ORDER: u32 = 100;

fn default_start_order() -> u32 {
    START_ORDER
}

fn default_stop_timeout() -> u32 {
    60
}

/// The root disk: a copy-on-write layer over a cached image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RootDisk {
    pub image: ImageRef,
    /// GiB; 0 means the image's own virtual size. The disk only grows, never shrinks.
    pub size_gib: u64,
}

/// An empty disk that a guest has beside its root disk; what is on it is gone with a rebuild.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalDisk {
    pub kind: LocalKind,
    /// MiB. An ephemeral disk only grows; a swap disk of another size is another disk.
    pub mib: u64,
}

/// What is on a local disk when the guest gets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LocalKind {
    /// An empty ext4 file system with the label `ephemeral0`.
    Ephemeral,
    /// A swap area.
    Swap,
}

/// An image as the agent needs it: pulled by stream from control, checked by hash, cached by id.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ImageRef {
    pub id: Uuid,
    /// `raw`, `qcow2`, `vmdk`, `vdi`, `vhd` or `vhdx`; pinned at upload, never guessed again.
    pub format: String,
    /// Bytes of the stored file.
    pub size: u64,
    /// Bytes of the disk inside.
    pub virtual_size: u64,
    /// Hex SHA-512 of the stored file.
    pub sha512: String,
}

/// A virtual network card: the port's data is in [`crate::Port`] under the same id.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Nic {
    pub port_id: Uuid,
    /// `fa:16:3e:...`, lower case.
    pub mac: String,
    pub mtu: u32,
}

/// The metadata documents of a guest. Network data is made by the agent from the ports.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Metadata {
    /// Host name inside the guest, without domain.
    pub hostname: String,
    /// The flavor's name, for EC2's `instance-type`.
    #[serde(default)]
    pub instance_type: String,
    /// EC2-style id `i-%08x` is derived from this number.
    #[serde(default)]
    pub ec2_number: u64,
    #[serde(default)]
    pub availability_zone: String,
    /// Key name and OpenSSH public key lines.
    #[serde(default)]
    pub public_keys: Vec<PublicKey>,
    /// The server's own metadata pairs (`meta` in meta_data.json).
    #[serde(default)]
    pub meta: std::collections::BTreeMap<String, String>,
    /// Base64 of the user data.
    #[serde(default)]
    pub user_data: Option<String>,
    #[serde(default)]
    pub launch_index: u64,
    /// Local disks by the names that EC2's `block-device-mapping` has for them, e.g. `ephemeral0` and `/dev/vdb`.
    #[serde(default)]
    pub block_devices: std::collections::BTreeMap<String, String>,
    /// Names of the security groups (EC2 `security-groups`).
    #[serde(default)]
    pub security_groups: Vec<String>,
    /// Only in the desired state, never in a log: the admin password, when the user asked for one.
    #[serde(default)]
    pub admin_pass: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PublicKey {
    pub name: String,
    /// `ssh` or `x509`.
    #[serde(rename = "type")]
    pub kind: String,
    pub key: String,
}

/// What a guest is, as the agent sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GuestState {
    /// On its way (image, disk, network, process).
    Building,
    Running,
    Paused,
    /// No process; its memory is on disk.
    Suspended,
    Stopped,
    /// The hypervisor refused or the process died in a way that the agent cannot mend.
    Failed,
    /// A tombstone was carried out: nothing of it is left on this host.
    Gone,
}

/// Observed state of one guest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ObservedGuest {
    pub id: Uuid,
    pub epoch: u64,
    /// The desired generation that this observation is about. For an unknown guest, the one on its record.
    pub generation: u64,
    /// True when the agent has done all that `generation` asks for.
    pub settled: bool,
    pub state: GuestState,
    #[serde(default)]
    pub failure: Option<Failure>,
    #[serde(default)]
    pub soft_reboots: u64,
    #[serde(default)]
    pub hard_reboots: u64,
    #[serde(default)]
    pub rebuilds: u64,
    /// What it is doing and how far it is, e.g. `pulling image` and 40.
    #[serde(default)]
    pub progress: Option<Progress>,
    /// Whether the agent found it without a desired state (an unknown guest is left running).
    #[serde(default)]
    pub unknown: bool,
    /// Microseconds since 1970 at which the process started.
    #[serde(default)]
    pub started_at: Option<i64>,
    #[serde(default)]
    pub vcpus: u32,
    #[serde(default)]
    pub memory_mib: u64,
    #[serde(default)]
    pub disk_gib: u64,
    /// How far the image of its root disk is.
    #[serde(default)]
    pub snapshot: Option<ObservedSnapshot>,
    /// The machine that it has, while it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layout: Option<Box<Layout>>,
    /// How far its move is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moving: Option<Box<ObservedMove>>,
}

/// The image that is made of a guest's root disk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ObservedSnapshot {
    /// The image.
    pub id: Uuid,
    pub state: SnapshotState,
}

/// See [`ObservedSnapshot`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SnapshotState {
    /// So many percent of the disk are copied.
    Making(u8),
    /// The file is whole and durable, and has so many bytes.
    Ready(u64),
    /// It is not tried again.
    Failed(Failure),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    pub what: String,
    /// 0 to 100 where it is known.
    pub percent: Option<u8>,
}

/// A typed failure: `code` is for programs, `message` is public (no paths, no host names), `detail` is
/// for administrators.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    pub code: FailureCode,
    pub message: String,
    #[serde(default)]
    pub detail: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureCode {
    ImageUnavailable,
    ImageCorrupt,
    DiskFull,
    DiskError,
    NetworkError,
    HypervisorError,
    /// The monitor socket does not answer.
    HypervisorHung,
    Unsupported,
    Internal,
}
