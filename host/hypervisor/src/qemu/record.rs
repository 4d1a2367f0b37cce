//! The record of a guest: what the next agent needs to find it again (architecture 7).
//!
//! `guests/ID/record.json` is written before a process starts, again when its pid is known, and whenever
//! something durable changed; always whole (temporary file, fsync, rename, fsync of the directory).
//! Fields are only ever added, with defaults: release N reads what N-1 wrote.

pub use haneul_agent_api::Device;
use haneul_agent_api::{Failure, MoveAddress, Power};
use haneul_core::fault_point;
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use uuid::Uuid;

/// Version of the record's format that this release writes.
pub const VERSION: u32 = 1;
/// Of a record of a guest that moves: a release that knows nothing of that leaves the guest alone.
const VERSION_MOVING: u32 = 2;
pub(crate) const NAME: &str = "record.json";

/// Where the guest's process is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// About to be started: a process may exist that we do not know the pid of. The guest's lock tells.
    Starting,
    /// Started; `process` names it.
    Up,
    /// No process, by our doing or by an accident.
    Off,
    /// No process because the guest switched itself off: it stays off until something newer is desired.
    PoweredOff,
}

/// A process that cannot be mistaken for another one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    pub pid: i32,
    /// Clock ticks since boot (field 22 of `/proc/PID/stat`).
    pub start_ticks: u64,
    pub boot_id: String,
    /// Microseconds since 1970.
    pub started_at: i64,
}

/// The guest's memory, on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    pub bytes: u64,
    /// Microseconds since 1970.
    pub at: i64,
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    pub version: u32,
    pub id: Uuid,
    pub name: String,
    /// Order of the desired state that was last carried out (or is being carried out).
    pub epoch: u64,
    pub generation: u64,
    pub request_id: String,
    pub power: Power,
    pub vcpus: u32,
    pub memory_mib: u64,
    pub disk_gib: u64,
    pub soft_reboots: u64,
    pub hard_reboots: u64,
    pub rebuilds: u64,
    pub uid: u32,
    #[serde(default)]
    pub stop_timeout_s: u32,
    /// Versioned (`pc-i440fx-10.0`); kept over restarts of the guest.
    pub machine: String,
    pub cpu: String,
    /// The wish that `cpu` came from; while it stays, so does `cpu`, whatever a newer release would take.
    #[serde(default)]
    pub cpu_model: Option<String>,
    /// `kvm` or `tcg`.
    pub accelerator: String,
    /// QEMU's version at the last start, as it names itself.
    pub qemu: String,
    /// The monitor's socket, relative to the guest's directory.
    pub qmp: String,
    /// QEMU's own log, in the same place.
    #[serde(default)]
    pub log: String,
    pub devices: Vec<Device>,
    pub phase: Phase,
    #[serde(default)]
    pub process: Option<Process>,
    /// When we last pressed the guest's power button (microseconds since 1970): what it does then is not
    /// its own wish.
    #[serde(default)]
    pub powerdown_at: Option<i64>,
    /// The process may be writing the guest's memory to disk.
    #[serde(default)]
    pub saving: bool,
    /// The process may be copying its disk.
    #[serde(default)]
    pub copying: bool,
    /// While this stands the file with the guest's memory is whole, and its CPUs have not run since.
    #[serde(default)]
    pub saved: Option<Saved>,
    /// It comes from another host, or came.
    #[serde(default)]
    pub arriving: Option<Arrival>,
    /// It goes to another host, or went.
    #[serde(default)]
    pub leaving: Option<Departure>,
}

/// How a move ended on this host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MoveEnd {
    /// The guest is the target's.
    Done,
    /// It is the source's still.
    Failed(Failure),
    /// The source's process ended in the instant between: only the target knows.
    Lost,
}

/// A guest that comes from another host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arrival {
    /// The move.
    pub id: Uuid,
    /// Where its process waits for it, once it does.
    #[serde(default)]
    pub listens: Option<MoveAddress>,
    /// All of it is here, and its CPUs may have run: it is this host's, whatever becomes of its process.
    #[serde(default)]
    pub came: bool,
    #[serde(default)]
    pub end: Option<MoveEnd>,
}

/// A guest that goes to another host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Departure {
    /// The move.
    pub id: Uuid,
    /// Its disks were the same on both sides, and its memory was about to be sent: without its process only the target
    /// knows who has it.
    pub begun: bool,
    #[serde(default)]
    pub end: Option<MoveEnd>,
}

impl Record {
    /// Writes it to the guest's directory.
    pub fn save(&self, dir: &Path) -> io::Result<()> {
        let mut whole = self.clone();
        let moves = self.leaving.is_some() || self.arriving.as_ref().is_some_and(|a| a.end != Some(MoveEnd::Done));
        whole.version = if moves { VERSION_MOVING } else { VERSION };
        let bytes = serde_json::to_vec_pretty(&whole)?;
        let tmp = dir.join("record.tmp");
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&tmp)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fault_point!("hypervisor.record.before-rename", io::Error::other("fault point"));
        std::fs::rename(&tmp, dir.join(NAME))?;
        File::open(dir)?.sync_all()?;
        fault_point!("hypervisor.record.saved", io::Error::other("fault point"));
        Ok(())
    }

    /// Reads it; `None` when there is none. A record of a newer version than ours is refused: only a
    /// newer release may touch that guest.
    pub fn load(dir: &Path) -> io::Result<Option<Self>> {
        let bytes = match std::fs::read(dir.join(NAME)) {
            Ok(b) => b,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        let record: Self = serde_json::from_slice(&bytes)?;
        if record.version > VERSION_MOVING {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                format!(
                    "the record has version {}, this release reads up to {VERSION_MOVING}",
                    record.version
                ),
            ));
        }
        Ok(Some(record))
    }
}
