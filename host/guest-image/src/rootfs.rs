//! The guest's file system tree, and the initramfs that finds it.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use haneul_core::Result;

use crate::cpio::Archive;
use crate::disk::ROOT_BYTES;
use crate::modules::Kernel;
use crate::packages::Unpacked;
use crate::run::{at, command, unexpected};
use crate::{elf, overlay};

const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";

/// Programs from packages: where they are there (either side of the merge of / and /usr), and where in the guest.
const PROGRAMS: &[(&str, &str)] = &[
    ("bin/busybox", "usr/bin/busybox"),
    ("usr/sbin/dropbear", "usr/bin/dropbear"),
    ("usr/bin/dropbearkey", "usr/bin/dropbearkey"),
    ("usr/bin/dbclient", "usr/bin/ssh"),
    ("usr/lib/openssh/sftp-server", "usr/lib/sftp-server"),
    ("usr/sbin/qemu-ga", "usr/bin/qemu-ga"),
    ("sbin/resize2fs", "usr/bin/resize2fs"),
    ("sbin/mke2fs", "usr/bin/mke2fs"),
    ("sbin/e2fsck", "usr/bin/e2fsck"),
    ("sbin/blkid", "usr/bin/blkid"),
    ("bin/lsblk", "usr/bin/lsblk"),
    ("usr/sbin/dhcpcd", "usr/bin/dhcpcd"),
    ("usr/bin/doas", "usr/bin/doas"),
    (
        "lib/x86_64-linux-gnu/security/pam_permit.so",
        "usr/lib/x86_64-linux-gnu/security/pam_permit.so",
    ),
];

/// Plain files from packages.
const DATA: &[(&str, &str)] = &[("etc/mke2fs.conf", "etc/mke2fs.conf")];

/// Directories with their modes, parents first. The guest has everything merged into /usr/bin, so that every absolute
/// path that a script may name is right.
const DIRECTORIES: &[(&str, u32)] = &[
    ("dev", 0o755),
    ("etc", 0o755),
    ("etc/dropbear", 0o700),
    ("home", 0o755),
    ("home/haneul", 0o755),
    ("mnt", 0o755),
    ("proc", 0o755),
    ("root", 0o700),
    ("run", 0o755),
    ("sys", 0o755),
    ("tmp", 0o1777),
    ("usr", 0o755),
    ("usr/bin", 0o755),
    ("usr/lib", 0o755),
    ("usr/lib64", 0o755),
    ("usr/local", 0o755),
    ("usr/local/bin", 0o755),
    ("usr/share", 0o755),
    ("var", 0o755),
    ("var/lib", 0o755),
    ("var/lib/dhcpcd", 0o755),
    ("var/lib/haneul", 0o700),
    ("var/log", 0o755),
    ("var/tmp", 0o1777),
];

const LINKS: &[(&str, &str)] = &[
    ("bin", "usr/bin"),
    ("sbin", "usr/bin"),
    ("lib", "usr/lib"),
    ("lib64", "usr/lib64"),
    ("usr/sbin", "bin"),
    ("var/run", "/run"),
    ("linuxrc", "usr/bin/busybox"),
    ("usr/bin/mkfs.ext2", "mke2fs"),
    ("usr/bin/mkfs.ext3", "mke2fs"),
    ("usr/bin/mkfs.ext4", "mke2fs"),
    ("usr/bin/mkfs.vfat", "busybox"),
    ("usr/bin/dbclient", "ssh"),
    ("usr/bin/fsck.ext4", "e2fsck"),
    ("init", "usr/bin/init"),
];

/// Applets that only lead astray in this image.
const NO_APPLETS: &[&str] = &["busybox", "dpkg", "dpkg-deb", "linuxrc", "rpm", "rpm2cpio"];

/// setuid: lets the ordinary user become root, as `sudo` does elsewhere.
const SETUID: &str = "usr/bin/doas";

/// Uid and gid of the ordinary user.
const USER_ID: u32 = 1000;

/// Writes the whole tree below `root`.
pub(crate) fn populate(root: &Path, unpacked: &Unpacked, kernel: &Kernel) -> Result<()> {
    fs::create_dir_all(root).map_err(at("create", root))?;
    let modules_dir = format!("usr/lib/modules/{}", kernel.release);
    let made = [
        (LIBRARIES, 0o755),
        ("usr/lib/x86_64-linux-gnu/security", 0o755),
        ("usr/lib/modules", 0o755),
        (&*modules_dir, 0o755),
    ];
    for (dir, mode) in DIRECTORIES.iter().chain(&made) {
        let path = root.join(dir);
        fs::create_dir(&path).map_err(at("create", &path))?;
        set_mode(&path, *mode)?;
    }
    for (link, target) in LINKS {
        let path = root.join(link);
        symlink(target, &path).map_err(at("create", &path))?;
    }
    for (from, to) in PROGRAMS {
        install(
            &source(unpacked, from)?,
            &root.join(to),
            if *to == SETUID { 0o4755 } else { 0o755 },
        )?;
    }
    for (from, to) in DATA {
        install(&source(unpacked, from)?, &root.join(to), 0o644)?;
    }
    libraries(root, unpacked)?;
    for (name, data) in kernel.all() {
        write(&root.join(&modules_dir).join(name), &data, 0o644)?;
    }
    for (path, file) in overlay::part("rootfs") {
        let path = root.join(path);
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir).map_err(at("create", dir))?;
        }
        write(&path, file.data, file.mode)?;
    }
    write(&root.join("etc/hostname"), b"haneul\n", 0o644)?;
    // What the guest compares its partition with: without growth there is nothing to do.
    write(
        &root.join("var/lib/haneul/grown-to"),
        format!("{}\n", ROOT_BYTES / 512).as_bytes(),
        0o644,
    )?;
    applets(root)?;
    let home = root.join("home/haneul");
    chown(&home, Some(USER_ID), Some(USER_ID)).map_err(at("change the owner of", &home))
}

/// A file of the packages, whether they have merged / and /usr or not.
fn source(unpacked: &Unpacked, path: &str) -> Result<PathBuf> {
    let other = path
        .strip_prefix("usr/")
        .map_or_else(|| format!("usr/{path}"), str::to_owned);
    unpacked
        .first(&[path.to_owned(), other])
        .ok_or_else(|| unexpected(format_args!("/{path} is in none of them")))
}

/// Copies the content behind links.
fn install(from: &Path, to: &Path, mode: u32) -> Result<()> {
    let data = fs::read(from).map_err(at("read", from))?;
    write(to, &data, mode)
}

fn write(path: &Path, data: &[u8], mode: u32) -> Result<()> {
    fs::write(path, data).map_err(at("write", path))?;
    set_mode(path, mode)
}

fn set_mode(path: &Path, mode: u32) -> Result<()> {
    fs::set_permissions(path, Permissions::from_mode(mode)).map_err(at("set permissions of", path))
}

/// Brings exactly the libraries that the installed programs name, and those that these name.
fn libraries(root: &Path, unpacked: &Unpacked) -> Result<()> {
    let mut todo: Vec<String> = Vec::new();
    let mut seen = BTreeSet::new();
    for (_, to) in PROGRAMS {
        todo.extend(needs(&root.join(to))?);
    }
    while let Some(name) = todo.pop() {
        if !seen.insert(name.clone()) {
            continue;
        }
        // The loader has a place of its own, named in every program.
        let dir = if name.starts_with("ld-linux") {
            "usr/lib64"
        } else {
            LIBRARIES
        };
        let to = root.join(dir).join(&name);
        let from = source(unpacked, &format!("lib/x86_64-linux-gnu/{name}"))?;
        install(&from, &to, 0o755)?;
        todo.extend(needs(&to)?);
    }
    Ok(())
}

fn needs(program: &Path) -> Result<Vec<String>> {
    let data = fs::read(program).map_err(at("read", program))?;
    elf::needed(&data).ok_or_else(|| unexpected(format_args!("{} is not a program for x86-64", program.display())))
}

/// Links for every busybox applet that no real program stands for.
fn applets(root: &Path) -> Result<()> {
    let busybox = root.join("usr/bin/busybox");
    let list = command(&busybox).arg("--list").run()?;
    for name in String::from_utf8_lossy(&list)
        .lines()
        .filter(|n| !NO_APPLETS.contains(n) && !n.contains('/'))
    {
        let path = root.join("usr/bin").join(name);
        if fs::symlink_metadata(&path).is_err() {
            symlink("busybox", &path).map_err(at("create", &path))?;
        }
    }
    Ok(())
}

/// The compressed initramfs.
pub(crate) fn initramfs(unpacked: &Unpacked, kernel: &Kernel, scratch: &Path) -> Result<PathBuf> {
    let mut cpio = Archive::new();
    for dir in ["bin", "dev", "lib", "lib/modules", "new", "proc", "sys"] {
        cpio.directory(dir, 0o755);
    }
    // The kernel opens the console before our init can mount anything.
    cpio.character_device("dev/console", 0o600, 5, 1);
    let busybox = unpacked.static_busybox.join("bin/busybox");
    cpio.file("bin/busybox", 0o755, &fs::read(&busybox).map_err(at("read", &busybox))?);
    for name in [
        "blockdev",
        "cat",
        "dd",
        "modprobe",
        "mount",
        "printf",
        "reboot",
        "sh",
        "sleep",
        "switch_root",
        "usleep",
    ] {
        cpio.symlink(&format!("bin/{name}"), "busybox");
    }
    for (path, file) in overlay::part("initramfs") {
        cpio.file(path, file.mode, file.data);
    }
    let modules = format!("lib/modules/{}", kernel.release);
    cpio.directory(&modules, 0o755);
    for (name, data) in kernel.early() {
        cpio.file(&format!("{modules}/{name}"), 0o644, &data);
    }
    let path = scratch.join("initrd");
    let packed = command("gzip").args(["-9", "-n", "-c"]).stdin(cpio.finish()).run()?;
    fs::write(&path, packed).map_err(at("write", &path))?;
    Ok(path)
}
