//! Block devices of guests on this host: the image cache and root disks.
//!
//! [`BlockDriver`] is the trait; [`file::File`] keeps qcow2 layers over cached images, [`fake::Fake`]
//! keeps sparse empty files for the fake hypervisor.
//!
//! Who may open what: all directories are 0700 and all files 0600, owned by root. A guest's process runs
//! under a uid of its own that can open none of them by name; the hypervisor driver opens them and hands
//! the process the open files. So a guest that has taken over its QEMU cannot reach another guest's disk
//! or image, and the state directory may lie below any path.
//!
//! Invariants: a format is never guessed; what a guest has written to its disk is read by base/disk only, for an image
//! of it, and the image behind a layer is known from our own note beside it, never from the layer's header; what
//! exists under its final name is complete and on the platter.

use haneul_agent_api::{Failure, FailureCode, ImageRef, LocalDisk, RootDisk};
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use tokio::io::AsyncRead;
use uuid::Uuid;

pub mod fake;
pub mod file;
mod local;
mod pull;
pub mod qcow2;
mod snapshot;

/// A boxed future, so that the driver can be chosen at start (`Arc<dyn BlockDriver>`).
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The bytes of an image on their way.
pub type ImageStream = Pin<Box<dyn AsyncRead + Send>>;

/// Opens the stream of an image at its source; called only when the cache does not have it.
pub type OpenImage = Box<dyn FnOnce() -> BoxFuture<'static, Result<ImageStream, Failure>> + Send>;

/// Told how far a pull is, 0 to 100, each value once.
pub type OnProgress = Arc<dyn Fn(u8) + Send + Sync>;

/// A disk as the hypervisor needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    pub path: PathBuf,
    /// `qcow2` or `raw`.
    pub format: String,
    /// File and format of the read-only image below, when `path` is a layer.
    pub backing: Option<(PathBuf, String)>,
}

/// A root disk that exists on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskInfo {
    pub guest: Uuid,
    /// The rebuild counter that it was made for.
    pub rebuilds: u64,
    /// The image below.
    pub image: Uuid,
    /// Bytes that it and the local disks beside it take on the host now.
    pub allocated: u64,
}

/// Space on the file system that holds disks and images; bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub total: u64,
    pub free: u64,
    /// Allocated by guests' disks.
    pub disks: u64,
    /// Allocated by cached images.
    pub images: u64,
}

/// A driver for block devices on this host.
pub trait BlockDriver: Send + Sync {
    /// Name and features, for `doctor` and logs.
    fn capabilities(&self) -> Vec<(String, String)>;

    /// Makes sure that the image is in the cache. Concurrent calls for one image share one pull, which
    /// goes on when a caller drops its future. Fails with `ImageUnavailable` (may be repeated),
    /// `ImageCorrupt` (size, hash or header are not what `image` says), `DiskFull` or `DiskError`.
    fn ensure_image<'a>(
        &'a self,
        image: &'a ImageRef,
        open: OpenImage,
        progress: OnProgress,
    ) -> BoxFuture<'a, Result<(), Failure>>;

    /// The root disk of `guest` for this value of its rebuild counter, made when missing: a layer over
    /// the cached image, of `max(size_gib, virtual size)`. One that exists is returned as it is; the
    /// hypervisor driver grows it (it alone knows whether a process has it open).
    fn root<'a>(&'a self, guest: Uuid, rebuilds: u64, root: &'a RootDisk) -> BoxFuture<'a, Result<Disk, Failure>>;

    /// The local disks of `guest` for this value of its rebuild counter, raw files in the order of `wanted`, made when
    /// missing; an ephemeral disk is grown. Swap disks of other sizes go.
    fn local<'a>(
        &'a self,
        guest: Uuid,
        rebuilds: u64,
        wanted: &'a [LocalDisk],
    ) -> BoxFuture<'a, Result<Vec<PathBuf>, Failure>>;

    /// Removes root disks of rebuild counters other than `rebuilds`, once nothing has them open, and images of the
    /// guest's disk other than `snapshot`.
    fn prune(&self, guest: Uuid, rebuilds: u64, snapshot: Option<Uuid>) -> BoxFuture<'_, Result<(), Failure>>;

    /// Makes the file that the image `id` of the root disk is copied into: a qcow2 disk of one sector, nothing below
    /// it, with room on the host for all that the disk holds. Refused with numbers where there is too little.
    fn snapshot_begin<'a>(
        &'a self,
        guest: Uuid,
        rebuilds: u64,
        root: &'a RootDisk,
        id: Uuid,
    ) -> BoxFuture<'a, Result<PathBuf, Failure>>;

    /// Copies the root disk into that file. Nobody may write to the disk meanwhile. Ends soon when the caller goes away.
    fn snapshot_copy<'a>(
        &'a self,
        guest: Uuid,
        rebuilds: u64,
        root: &'a RootDisk,
        id: Uuid,
        progress: OnProgress,
    ) -> BoxFuture<'a, Result<(), Failure>>;

    /// The file holds the whole disk: makes it durable; answers its size.
    fn snapshot_keep(&self, guest: Uuid, id: Uuid) -> BoxFuture<'_, Result<u64, Failure>>;

    /// A file that was kept, and its size; `None`: there is none.
    fn snapshot(&self, guest: Uuid, id: Uuid) -> BoxFuture<'_, Result<Option<(std::fs::File, u64)>, Failure>>;

    /// Removes all disks of a guest. Removing what is not there is fine.
    fn delete(&self, guest: Uuid) -> BoxFuture<'_, Result<(), Failure>>;

    /// All root disks on this host.
    fn list(&self) -> BoxFuture<'_, Result<Vec<DiskInfo>, Failure>>;

    /// Space taken and left.
    fn usage(&self) -> BoxFuture<'_, Result<Usage, Failure>>;

    /// Removes cached images that no disk here uses and that are not in `keep` (the images of all
    /// desired guests); answers their ids. Where hosts share them, none are.
    fn collect<'a>(&'a self, keep: &'a [Uuid]) -> BoxFuture<'a, Result<Vec<Uuid>, Failure>>;
}

/// Bytes of the disk that `root` asks for.
pub fn wanted_size(root: &RootDisk) -> u64 {
    root.size_gib.saturating_mul(1 << 30).max(root.image.virtual_size)
}

/// The format of an image in the cache. Formats that QEMU is not given are converted when they are pulled: raw, with
/// holes, for it is what all of them can become and what nothing can be hidden in.
///
/// # Errors
/// `Unsupported` for what no guest starts from.
fn cached_format(image: &ImageRef) -> Result<&'static str, Failure> {
    match image.format.as_str() {
        "qcow2" => Ok("qcow2"),
        "raw" | "vmdk" | "vdi" | "vhd" | "vhdx" => Ok("raw"),
        other => Err(failure(
            FailureCode::Unsupported,
            format!("images of format {other} cannot be booted here; raw, qcow2, vmdk, vdi, vhd and vhdx can"),
            image.id,
        )),
    }
}

/// Whether the cache holds another file than was pulled.
fn is_converted(image: &ImageRef) -> bool {
    matches!(image.format.as_str(), "vmdk" | "vdi" | "vhd" | "vhdx")
}

fn failure(code: FailureCode, message: impl Into<String>, detail: impl std::fmt::Display) -> Failure {
    Failure {
        code,
        message: message.into(),
        detail: detail.to_string(),
    }
}

fn mib(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 20)
}

/// An IO error as a failure; a full disk says how much was needed and how much is there.
fn io_failure(what: &str, needed: u64, free: u64, e: &std::io::Error) -> Failure {
    match e.raw_os_error() {
        Some(libc_errno) if libc_errno == nix::libc::ENOSPC || libc_errno == nix::libc::EDQUOT => {
            disk_full(what, needed, free, e)
        }
        _ => failure(FailureCode::DiskError, format!("the host could not {what}"), e),
    }
}

fn disk_full(what: &str, needed: u64, free: u64, detail: impl std::fmt::Display) -> Failure {
    failure(
        FailureCode::DiskFull,
        format!(
            "the host's disk is too full to {what}: {} MiB needed, {} MiB free",
            mib(needed),
            mib(free)
        ),
        detail,
    )
}
