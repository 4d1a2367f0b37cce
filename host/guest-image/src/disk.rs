//! The disk: MBR, a small FAT partition that syslinux boots from, and the root partition last, so that it can grow.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use haneul_core::Result;

use crate::mbr::{self, Holds, Partition};
use crate::overlay;
use crate::packages::Unpacked;
use crate::run::{at, command, unexpected};

const MIB: u64 = 1 << 20;

/// Where the first partition starts.
const BOOT_START: u64 = MIB;

/// The root partition as built; the initramfs makes it as large as the disk.
pub(crate) const ROOT_BYTES: u64 = 64 * MIB;

/// In the MBR: the initramfs knows its disk by it.
const SIGNATURE: [u8; 4] = *b"HNGI";

/// What goes onto the disk.
pub(crate) struct Parts<'a> {
    pub(crate) scratch: &'a Path,
    pub(crate) unpacked: &'a Unpacked,
    pub(crate) kernel_image: &'a Path,
    pub(crate) initrd: &'a Path,
    pub(crate) root: &'a Path,
}

/// Makes the raw disk image and returns its path.
pub(crate) fn assemble(parts: &Parts<'_>) -> Result<PathBuf> {
    let boot = boot_partition(parts)?;
    let root = root_partition(parts)?;
    let boot_bytes = length(&boot)?;
    let root_start = BOOT_START + boot_bytes;

    let code_path = parts.unpacked.all.join("usr/lib/SYSLINUX/mbr.bin");
    let code = fs::read(&code_path).map_err(at("read", &code_path))?;
    let partition = |start: u64, bytes: u64, holds, active| {
        Some(Partition {
            start: u32::try_from(start / 512).ok()?,
            sectors: u32::try_from(bytes / 512).ok()?,
            holds,
            active,
        })
    };
    let table = partition(BOOT_START, boot_bytes, Holds::Fat16, true).zip(partition(
        root_start,
        ROOT_BYTES,
        Holds::Linux,
        false,
    ));
    let sector = table
        .and_then(|(b, r)| mbr::sector(&code, SIGNATURE, &[b, r]))
        .ok_or_else(|| unexpected("syslinux's boot code is larger than a boot sector"))?;

    let path = parts.scratch.join("disk.raw");
    let mut disk = File::create(&path).map_err(at("create", &path))?;
    disk.set_len(root_start + ROOT_BYTES).map_err(at("write", &path))?;
    disk.write_all(&sector).map_err(at("write", &path))?;
    copy_sparse(&boot, &mut disk, BOOT_START, &path)?;
    copy_sparse(&root, &mut disk, root_start, &path)?;
    Ok(path)
}

fn length(path: &Path) -> Result<u64> {
    Ok(fs::metadata(path).map_err(at("read", path))?.len())
}

fn blank(path: &Path, bytes: u64) -> Result<()> {
    File::create(path)
        .and_then(|f| f.set_len(bytes))
        .map_err(at("create", path))
}

/// FAT16 with kernel, initramfs and syslinux, made with the packages' own tools: they need no mount.
fn boot_partition(parts: &Parts<'_>) -> Result<PathBuf> {
    let path = parts.scratch.join("boot.img");
    // Room for the FATs, syslinux itself and rounding.
    let bytes = (length(parts.kernel_image)? + length(parts.initrd)?).next_multiple_of(MIB) + 2 * MIB;
    blank(&path, bytes)?;
    let tool = |name: &str| -> Result<PathBuf> {
        let candidates: Vec<String> = ["usr/bin", "usr/sbin", "bin", "sbin"]
            .iter()
            .map(|d| format!("{d}/{name}"))
            .collect();
        parts
            .unpacked
            .first(&candidates)
            .ok_or_else(|| unexpected(format_args!("{name} is in none of them")))
    };
    // One sector to a cluster would not fit FAT16's table; four read faster through the BIOS as well.
    command(tool("mkfs.fat")?)
        .args(["-F", "16", "-s", "4", "-i", "484e4749", "-n", "HANEULBOOT"])
        .arg(&path)
        .run()?;
    let config = parts.scratch.join("syslinux.cfg");
    let text = overlay::part("boot")
        .find(|(p, _)| *p == "syslinux.cfg")
        .map(|(_, f)| f.data)
        .unwrap_or_default();
    fs::write(&config, text).map_err(at("write", &config))?;

    let mcopy = tool("mcopy")?;
    // Kernel first: it lies in one piece, right behind the tables.
    for (from, to) in [
        (parts.kernel_image, "::vmlinuz"),
        (parts.initrd, "::initrd"),
        (&config, "::syslinux.cfg"),
    ] {
        command(&mcopy)
            .env("MTOOLSRC", "/dev/null")
            .env("MTOOLS_SKIP_CHECK", "1")
            .arg("-i")
            .arg(&path)
            .arg(from)
            .arg(to)
            .run()?;
    }
    // syslinux calls mtools by name.
    let mut path_variable = mcopy
        .parent()
        .map(Path::to_path_buf)
        .unwrap_or_default()
        .into_os_string();
    path_variable.push(":/usr/bin:/bin");
    command(tool("syslinux")?)
        .env("PATH", path_variable)
        .env("MTOOLSRC", "/dev/null")
        .arg("--install")
        .arg(&path)
        .run()?;
    Ok(path)
}

/// ext4 filled from the tree, without a mount.
fn root_partition(parts: &Parts<'_>) -> Result<PathBuf> {
    let path = parts.scratch.join("root.img");
    blank(&path, ROOT_BYTES)?;
    command("mke2fs")
        .args([
            "-q",
            "-F",
            "-t",
            "ext4",
            "-b",
            "4096",
            "-I",
            "256",
            "-m",
            "0",
            "-N",
            "4096",
            "-L",
            "haneul-root",
        ])
        // A journal, because servers are also switched off hard; the smallest one.
        .args(["-J", "size=4"])
        // No crc32c of metadata: it costs an emulated guest more than it tells. The same identity in every build.
        .args(["-O", "^metadata_csum", "-U", "68616e65-756c-4775-8573-74726f6f7421"])
        .args([
            "-E",
            "hash_seed=68616e65-756c-4775-8573-74726f6f7421,root_owner=0:0,lazy_itable_init=0,lazy_journal_init=1",
        ])
        .env("SOURCE_DATE_EPOCH", "0")
        .arg("-d")
        .arg(parts.root)
        .arg(&path)
        .run()?;
    Ok(path)
}

/// Copies without writing zeros, so that the disk stays sparse.
fn copy_sparse(from: &Path, disk: &mut File, start: u64, disk_path: &Path) -> Result<()> {
    let mut file = File::open(from).map_err(at("open", from))?;
    let mut buffer = vec![0; 1 << 16];
    let mut offset = start;
    loop {
        let n = file.read(&mut buffer).map_err(at("read", from))?;
        if n == 0 {
            return Ok(());
        }
        if buffer[..n].iter().any(|b| *b != 0) {
            disk.seek(SeekFrom::Start(offset))
                .and_then(|_| disk.write_all(&buffer[..n]))
                .map_err(at("write", disk_path))?;
        }
        offset += n as u64;
    }
}
