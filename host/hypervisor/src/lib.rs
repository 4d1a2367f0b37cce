//! Hypervisor drivers: one trait, QEMU and a fake behind it.
//!
//! A driver is declarative: [`Hypervisor::apply`] brings one guest to what it shall be and may be
//! repeated at any time; it is also how an interrupted apply goes on. The driver keeps one record per
//! guest on disk (architecture 7) and finds every guest again from the records and the processes, so
//! that the death of our own processes never touches a guest.
//!
//! Invariants: knows nothing of control, sockets to control or networks (a NIC is an open tap);
//! never guesses an image's format; never deletes what it was not told to [`Hypervisor::remove`].

use haneul_agent_api::{Failure, FailureCode, Guest, HypervisorInfo, ObservedGuest};
use std::future::Future;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use tokio::sync::mpsc;
use uuid::Uuid;

pub mod fake;
mod fake_move;
mod fake_rfb;
pub mod iso;
pub mod kvm;
pub mod qemu;

/// A boxed future, so that the driver can be chosen at start (`Arc<dyn Hypervisor>`).
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Told how far a copy is, 0 to 100.
pub type OnProgress = Arc<dyn Fn(u8) + Send + Sync>;

/// While it is held, its guest gets no process.
pub type Hold = Box<dyn Send>;

/// What the agent has made ready for a guest before the driver is asked.
pub struct Resources {
    /// The guest's root disk (a qcow2 layer or raw file made by blockdev). Nothing, of a guest that leaves: its process has
    /// its disks open, and no other is started.
    pub root: PathBuf,
    /// `qcow2` or `raw`.
    pub root_format: String,
    /// File and format of the read-only image below a layer, as blockdev noted it: the layer's own header
    /// is what a guest may have written, and is never believed.
    pub backing: Option<(PathBuf, String)>,
    /// Raw files of its local disks, in their order.
    pub local: Vec<PathBuf>,
    /// ISO image with the config drive, when the guest wants one.
    pub config_drive: Option<PathBuf>,
    /// Gives the open tap of a port, when the driver starts a process or plugs a card; called only then.
    pub taps: Arc<dyn Fn(Uuid) -> Result<OwnedFd, Failure> + Send + Sync>,
    /// UID and GID that this guest's process runs as.
    pub uid: u32,
}

/// Why a guest that does not run, or has no display, shows none.
pub(crate) fn no_screen(detail: impl std::fmt::Display) -> Failure {
    Failure {
        code: FailureCode::Unsupported,
        message: "the server shows no screen: it does not run, or it was started while consoles were switched off, and a hard reboot gives it one".into(),
        detail: detail.to_string(),
    }
}

/// A driver for guests on this host.
pub trait Hypervisor: Send + Sync {
    /// What this hypervisor is, for `doctor` and the hypervisor's type in Nova.
    fn info(&self) -> HypervisorInfo;

    /// All guests that have a record on this host, as they are now. Called at start: adopts what runs.
    fn observe_all(&self) -> BoxFuture<'_, Result<Vec<ObservedGuest>, Failure>>;

    /// One guest, or `None` when there is no record of it.
    fn observe(&self, id: Uuid) -> BoxFuture<'_, Option<ObservedGuest>>;

    /// Whether [`Hypervisor::apply`] would have to start a process for `desired`: then the agent makes
    /// the disk, taps and config drive ready first.
    fn needs_start(&self, desired: &Guest) -> BoxFuture<'_, bool>;

    /// Whether [`Hypervisor::apply`] would plug a network card into a guest that runs: then the agent waits for its port
    /// first.
    fn needs_taps(&self, desired: &Guest) -> BoxFuture<'_, bool>;

    /// Brings the guest to what it shall be (power, reboots, size, network cards) and answers what it is then.
    fn apply<'a>(
        &'a self,
        epoch: u64,
        generation: u64,
        desired: &'a Guest,
        resources: Resources,
    ) -> BoxFuture<'a, Result<ObservedGuest, Failure>>;

    /// Stops the process if there is one and forgets the record. Removing what is not there is fine.
    fn remove(&self, id: Uuid) -> BoxFuture<'_, Result<(), Failure>>;

    /// Stops the process (when `gently` by ACPI first, then hard) and keeps the record, so that the next [`Hypervisor::apply`]
    /// starts it again: `haneul down`.
    fn stop(&self, id: Uuid, gently: bool) -> BoxFuture<'_, Result<(), Failure>>;

    /// Removes what the driver made outside its directory, once no guest is left (`down --purge`).
    fn purge(&self) {}

    /// The end of the guest's serial log.
    fn console_log(&self, id: Uuid, lines: Option<u32>) -> BoxFuture<'_, Result<Vec<u8>, Failure>>;

    /// A connection to the guest's screen, keyboard and pointer, which speaks RFB (RFC 6143) without a password.
    fn vnc(&self, id: Uuid) -> BoxFuture<'_, Result<tokio::net::UnixStream, Failure>>;

    /// Copies the root disk of a guest that has a process into `target`, an empty qcow2 file: as it is at one instant,
    /// while the guest goes on. For a guest without one it answers what keeps it so: its files can be read then.
    /// Ends with what was begun before; dropped, it leaves its end to the next call, or to an [`Hypervisor::apply`] that
    /// wants no copy.
    fn copy_disk<'a>(
        &'a self,
        id: Uuid,
        target: &'a Path,
        progress: OnProgress,
    ) -> BoxFuture<'a, Result<Option<Hold>, Failure>>;

    /// Guests whose state changed by itself (powered off from inside, died). One receiver.
    fn events(&self) -> Option<mpsc::UnboundedReceiver<Uuid>>;
}
