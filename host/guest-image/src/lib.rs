//! Builds the small guest image: a bootable qcow2 of about 20 MB from Debian packages and the scripts in
//! `overlay/`, for first servers, for tests and for trying networks. It takes host name, ssh keys and user-data from
//! a config drive or the metadata service, addresses from DHCP and router advertisements, and has no password.
//!
//! Invariants: nothing is fetched but Debian packages, by apt with its signatures; nothing is mounted; everything but
//! the package cache in [`Options::work_dir`] is removed; an image whose inputs did not change is not built again.
//!
//! Map: `packages` (what, download, unpack), `elf` and `modules` (libraries and kernel modules that are needed),
//! `overlay` (our own files), `rootfs` (the tree), `cpio` (initramfs), `mbr` and `disk` (the disk), `stamp` (cache).

pub mod cpio;
mod disk;
mod elf;
pub mod mbr;
mod modules;
pub mod overlay;
mod packages;
mod rootfs;
mod run;
pub mod stamp;

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use haneul_core::{Error, Kind, Result};

use run::{Scratch, at};

/// Debian packages that must be installed on the host for [`build`]; the rest is part of every Debian.
pub const REQUIRED_PACKAGES: &[&str] = &["e2fsprogs", "qemu-utils"];

/// The least memory in MiB that the guest starts with.
pub const MIN_RAM_MIB: u64 = 96;

/// The guest's ordinary user beside root; both take the server's ssh keys.
pub const USER: &str = "haneul";

/// Where to work and where to put the image.
#[derive(Clone, Debug)]
pub struct Options {
    /// Keeps the downloaded packages (about 45 MB); needs about 300 MB more while building.
    pub work_dir: PathBuf,
    /// The qcow2 to write. A stamp is kept beside it, named `<out>.stamp`.
    pub out: PathBuf,
}

/// A finished image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Built {
    /// [`Options::out`].
    pub path: PathBuf,
    /// SHA-256 of the file, in hexadecimal.
    pub sha256: String,
    /// Size of the file.
    pub bytes: u64,
    /// Size of the disk that the guest sees at least.
    pub virtual_bytes: u64,
    /// What it was made from: `name=version`, sorted.
    pub packages: Vec<String>,
    /// True when an earlier result was still right and nothing was built.
    pub cached: bool,
}

/// Builds the image, or returns the one that is there when its packages and scripts are still the same. Blocking;
/// about 10 s with packages at hand. Needs root, because the files in the image belong to their owners.
pub fn build(opts: &Options, progress: &mut dyn FnMut(&str)) -> Result<Built> {
    check_host()?;
    fs::create_dir_all(&opts.work_dir).map_err(at("create", &opts.work_dir))?;
    let work = fs::canonicalize(&opts.work_dir).map_err(at("open", &opts.work_dir))?;
    let lock_path = work.join("lock");
    let lock = File::create(&lock_path).map_err(at("create", &lock_path))?;
    // Two builds would share the package cache: the second waits and then finds the first one's result.
    lock.lock().map_err(at("lock", &lock_path))?;

    progress("looking up packages");
    let mut debs = match packages::resolve() {
        Ok(debs) => debs,
        Err(first) => {
            // A bare machine has no package lists; and offline a result that is there may still serve.
            if let Some(built) = stamp::reuse(&opts.out, None) {
                return Ok(built);
            }
            progress("fetching package lists (apt-get update)");
            packages::update_lists().map_err(|e| {
                let both = format!("{first}; then {}", e.private());
                e.with_private(both)
            })?;
            packages::resolve()?
        }
    };
    if let Some(built) = stamp::reuse(&opts.out, Some(&names(&debs))) {
        return Ok(built);
    }

    let cache = work.join("packages");
    if packages::download(&debs, &cache, progress).is_err() {
        // The mirror has moved on since the lists were fetched, or one connection broke: once more, from the lists on.
        progress("fetching package lists (apt-get update) and trying again");
        packages::update_lists()?;
        debs = packages::resolve()?;
        packages::download(&debs, &cache, progress)?;
    }

    let scratch = Scratch::create(&work)?;
    progress("unpacking packages");
    let unpacked = packages::unpack(&debs, &cache, &scratch.path().join("unpacked"))?;
    let kernel = modules::Kernel::find(&unpacked)?;
    progress("making the root file system");
    let root = scratch.path().join("root");
    rootfs::populate(&root, &unpacked, &kernel)?;
    progress("making the initramfs");
    let initrd = rootfs::initramfs(&unpacked, &kernel, scratch.path())?;
    progress("making the disk");
    let raw = disk::assemble(&disk::Parts {
        scratch: scratch.path(),
        unpacked: &unpacked,
        kernel_image: &kernel.image,
        initrd: &initrd,
        root: &root,
    })?;
    let virtual_bytes = fs::metadata(&raw).map_err(at("read", &raw))?.len();
    progress("compressing");
    publish(&raw, &opts.out)?;

    let (sha256, bytes) = stamp::hash_file(&opts.out)?;
    let built = Built {
        path: opts.out.clone(),
        sha256,
        bytes,
        virtual_bytes,
        packages: names(&debs),
        cached: false,
    };
    stamp::write(&built)?;
    packages::forget_others(&debs, &cache)?;
    Ok(built)
}

fn names(debs: &[packages::Deb]) -> Vec<String> {
    let mut list: Vec<String> = debs.iter().map(|d| format!("{}={}", d.name, d.version)).collect();
    list.sort();
    list
}

fn check_host() -> Result<()> {
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        return Err(Error::new(
            Kind::NotImplemented,
            "The guest image can be built on x86-64 Linux only. Build it on such a machine and copy the file.",
        ));
    }
    for (program, package) in [
        ("apt-get", "apt"),
        ("apt-cache", "apt"),
        ("dpkg-deb", "dpkg"),
        ("gzip", "gzip"),
        ("mke2fs", "e2fsprogs"),
        ("qemu-img", "qemu-utils"),
    ] {
        run::require(program, package)?;
    }
    if !run::is_root()? {
        return Err(Error::forbidden(
            "Building the guest image needs root, because the files in it belong to root. Run it as root.",
        ));
    }
    Ok(())
}

/// Converts to the place itself under another name, then renames: a reader never sees half an image.
fn publish(raw: &Path, out: &Path) -> Result<()> {
    if let Some(dir) = out.parent().filter(|d| !d.as_os_str().is_empty()) {
        fs::create_dir_all(dir).map_err(at("create", dir))?;
    }
    let mut new = out.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    let converted = run::command("qemu-img")
        .args(["convert", "-q", "-c", "-f", "raw", "-O", "qcow2"])
        .arg(raw)
        .arg(&new)
        .run();
    if let Err(e) = converted {
        let _ = fs::remove_file(&new);
        return Err(e);
    }
    fs::rename(&new, out).map_err(at("write", out))
}
