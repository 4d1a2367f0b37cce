//! The Debian packages: which, their versions, download, unpacking.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use haneul_core::{Error, Kind, Result};

use crate::run::{at, command, unexpected};
use crate::stamp;

/// The kernel for virtual machines; a name without version that depends on the newest one.
const KERNEL: &str = "linux-image-cloud-amd64";

/// For the guest, with the libraries that its programs need, and (last line) for making the boot partition.
const PACKAGES: &[&str] = &[
    "busybox",
    "dropbear-bin",
    "openssh-sftp-server",
    "qemu-guest-agent",
    "e2fsprogs",
    "util-linux",
    "dhcpcd-base",
    "opendoas",
    "libaudit1",
    "libblkid1",
    "libc6",
    "libcap-ng0",
    "libcom-err2",
    "libcrypt1",
    "libext2fs2",
    "libglib2.0-0",
    "libgmp10",
    "libmount1",
    "libnuma1",
    "libpam0g",
    "libpam-modules",
    "libpcre2-8-0",
    "libselinux1",
    "libsmartcols1",
    "libtomcrypt1",
    "libtommath1",
    "libudev1",
    "liburing2",
    "libuuid1",
    "zlib1g",
    STATIC_BUSYBOX,
    "dosfstools",
    "mtools",
    "syslinux",
    "syslinux-common",
];

/// For the initramfs. It has the same paths as busybox and is unpacked beside the others.
const STATIC_BUSYBOX: &str = "busybox-static";

/// One package as apt would download it.
pub(crate) struct Deb {
    pub(crate) name: String,
    pub(crate) version: String,
    /// File name as apt writes it.
    file: String,
    bytes: u64,
    sha256: Option<String>,
}

/// Directories with unpacked packages.
pub(crate) struct Unpacked {
    /// All packages but one.
    pub(crate) all: PathBuf,
    /// [`STATIC_BUSYBOX`].
    pub(crate) static_busybox: PathBuf,
}

impl Unpacked {
    /// The first of these paths that exists.
    pub(crate) fn first(&self, candidates: &[String]) -> Option<PathBuf> {
        candidates.iter().map(|c| self.all.join(c)).find(|p| p.exists())
    }
}

/// Asks apt's lists for the present version of every package; no network.
pub(crate) fn resolve() -> Result<Vec<Deb>> {
    let depends = command("apt-cache")
        .args(["depends", "--important", KERNEL])
        .run()
        .map_err(|e| lists_lack(KERNEL).with_private(e))?;
    let depends = String::from_utf8_lossy(&depends).into_owned();
    let kernel = depends
        .lines()
        .filter_map(|l| l.trim().strip_prefix("Depends: "))
        .find(|p| p.starts_with("linux-image-"))
        .ok_or_else(|| lists_lack(KERNEL))?;
    let uris = command("apt-get")
        .args(["-qq", "download", "--print-uris", kernel])
        .args(PACKAGES)
        .run()
        .map_err(|e| lists_lack("for one of the guest's programs").with_private(e))?;
    let debs: Vec<Deb> = String::from_utf8_lossy(&uris).lines().filter_map(parse_uri).collect();
    for wanted in PACKAGES {
        if !debs.iter().any(|d| d.name == *wanted) {
            return Err(lists_lack(wanted));
        }
    }
    Ok(debs)
}

fn lists_lack(package: &str) -> Error {
    Error::new(
        Kind::Unavailable,
        format!(
            "apt knows no package {package}. Check this machine's network, run apt-get update, and check that /etc/apt has the sources of Debian 12 (main) for amd64."
        ),
    )
}

/// `'URL' name_version_arch.deb bytes SHA256:hex`
fn parse_uri(line: &str) -> Option<Deb> {
    let mut fields = line.strip_prefix('\'')?.split_once("' ")?.1.split(' ');
    let file = fields.next()?;
    let bytes = fields.next()?.parse().ok()?;
    let sha256 = fields.next().and_then(|h| h.strip_prefix("SHA256:")).map(str::to_owned);
    let mut parts = file.strip_suffix(".deb")?.split('_');
    let name = parts.next()?.to_owned();
    let version = parts.next()?.replace("%3a", ":");
    // The name becomes a path below the cache.
    if file.contains('/') {
        return None;
    }
    Some(Deb {
        name,
        version,
        file: file.to_owned(),
        bytes,
        sha256,
    })
}

/// `apt-get update`.
pub(crate) fn update_lists() -> Result<()> {
    command("apt-get").args(["-qq", "-o", "Acquire::Retries=2", "-o", "DPkg::Lock::Timeout=60", "update"]).run().map(drop).map_err(|e| {
        Error::new(
            Kind::Unavailable,
            "The package lists of Debian could not be fetched. Check this machine's network and /etc/apt, run apt-get update, and try again.",
        )
        .with_private(e)
    })
}

/// Brings every package into `cache`, each with its checksum from the signed lists.
pub(crate) fn download(debs: &[Deb], cache: &Path, progress: &mut dyn FnMut(&str)) -> Result<()> {
    fs::create_dir_all(cache).map_err(at("create", cache))?;
    let missing: Vec<&Deb> = debs.iter().filter(|d| !is_there(d, cache)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let bytes: u64 = missing.iter().map(|d| d.bytes).sum();
    progress(&format!(
        "downloading {} packages, {} MB",
        missing.len(),
        bytes.div_ceil(1_000_000)
    ));
    command("apt-get")
        // As root there is no use in apt's own user, which may not write here.
        .args(["-qq", "-o", "APT::Sandbox::User=root", "-o", "Acquire::Retries=2", "-o", "Acquire::http::Timeout=30", "download"])
        .args(missing.iter().map(|d| format!("{}={}", d.name, d.version)))
        .dir(cache)
        .run()
        .map_err(|e| {
            Error::new(
                Kind::Unavailable,
                "The Debian packages of the guest image could not be downloaded. Check this machine's network, run apt-get update, and try again.",
            )
            .with_private(e)
        })?;
    match debs.iter().find(|d| !is_there(d, cache)) {
        None => Ok(()),
        Some(bad) => Err(Error::new(
            Kind::Unavailable,
            format!(
                "Package {} was downloaded, but its size or checksum is not the one in the lists. Try again.",
                bad.file
            ),
        )),
    }
}

fn is_there(deb: &Deb, cache: &Path) -> bool {
    let path = cache.join(&deb.file);
    if fs::metadata(&path).is_ok_and(|m| m.len() == deb.bytes) {
        match &deb.sha256 {
            None => return true,
            Some(want) if stamp::hash_file(&path).is_ok_and(|(have, _)| have == *want) => return true,
            Some(_) => {}
        }
    }
    // What is broken would make apt believe that it is done.
    let _ = fs::remove_file(&path);
    false
}

/// Removes packages of earlier versions from the cache.
pub(crate) fn forget_others(debs: &[Deb], cache: &Path) -> Result<()> {
    let keep: HashSet<&str> = debs.iter().map(|d| d.file.as_str()).collect();
    for entry in fs::read_dir(cache).map_err(at("read", cache))? {
        let path = entry.map_err(at("read", cache))?.path();
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        if name.ends_with(".deb") && !keep.contains(name) {
            fs::remove_file(&path).map_err(at("remove", &path))?;
        }
    }
    Ok(())
}

/// Unpacks without running anything of the packages.
pub(crate) fn unpack(debs: &[Deb], cache: &Path, into: &Path) -> Result<Unpacked> {
    let unpacked = Unpacked {
        all: into.join("all"),
        static_busybox: into.join("static"),
    };
    for dir in [&unpacked.all, &unpacked.static_busybox] {
        fs::create_dir_all(dir).map_err(at("create", dir))?;
    }
    for deb in debs {
        let dir = if deb.name == STATIC_BUSYBOX {
            &unpacked.static_busybox
        } else {
            &unpacked.all
        };
        let file = cache.join(&deb.file);
        command("dpkg-deb")
            .arg("--extract")
            .arg(&file)
            .arg(dir)
            .run()
            .map_err(|e| unexpected(format_args!("{} could not be unpacked", deb.file)).with_private(e))?;
    }
    Ok(unpacked)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn uri_lines() {
        let d =
            parse_uri("'http://x/pool/b/busybox_1.35.0-4_amd64.deb' busybox_1%3a1.35.0-4_amd64.deb 452120 SHA256:ab12")
                .unwrap();
        assert_eq!(
            (d.name.as_str(), d.version.as_str(), d.bytes),
            ("busybox", "1:1.35.0-4", 452_120)
        );
        assert_eq!(d.sha256.as_deref(), Some("ab12"));
        assert!(parse_uri("Reading package lists...").is_none());
        assert!(parse_uri("'http://x/' ../../etc/x_1_amd64.deb 1 SHA256:00").is_none());
    }
}
