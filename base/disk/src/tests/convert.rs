//! Any format into any other: the bytes of the disk stay the same, by our own reading and by qemu-img's.

use crate::testing::*;
use crate::{ConvertError, DiskFormat as F, OUTPUTS, RefusalKind, convert, inspect};
use std::fs::{File, OpenOptions};
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::process::Command;

struct Dir(PathBuf);

impl Dir {
    fn new(test: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("haneul-disk-{}-{test}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }
    fn file(&self, name: &str) -> File {
        let mut all = OpenOptions::new();
        all.read(true).write(true).create(true).truncate(true);
        all.open(self.0.join(name)).unwrap()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A disk with data at its borders, at borders of blocks and in between; nearly all of it holes.
fn disk(file: &File, mib: u64) -> u64 {
    use std::os::unix::fs::FileExt;
    let size = (mib << 20) + 512 * 3;
    file.set_len(size).unwrap();
    let all = [
        0_u64,
        65_000,
        3 << 20,
        (8 << 20) - 7,
        40 << 20,
        300 << 20,
        (512 << 20) - 100,
        600 << 20,
    ];
    for at in all.into_iter().filter(|at| *at < size).chain([size - 513]) {
        let len = 5000.min(size - at);
        let bytes: Vec<u8> = (0..len).map(|i| ((at + i) % 251 + 1) as u8).collect();
        file.write_all_at(&bytes, at).unwrap();
    }
    size
}

/// The disk inside `file`, as our reader sees it, against the raw original.
fn same(original: &Path, file: &mut File, format: F, dir: &Dir) {
    let out = dir.file("back.raw");
    convert(file, format, out, F::Raw, &mut |_| true).unwrap_or_else(|e| panic!("{format}: {e}"));
    let size = std::fs::metadata(original).unwrap().len().to_string();
    let mut equal = Command::new("cmp");
    let equal = equal.args(["-n", &size]).arg(original).arg(dir.0.join("back.raw"));
    let out = equal.output().unwrap();
    assert!(
        out.status.success(),
        "{format}: {}",
        String::from_utf8_lossy(&out.stdout)
    );
}

fn qemu_name(format: F) -> &'static str {
    match format {
        F::Vhd => "vpc",
        other => other.name(),
    }
}

/// G16: each format into each other one, and the disk is the same.
#[test]
fn any_into_any_and_the_disk_is_the_same() {
    let dir = Dir::new("any");
    let original = dir.0.join("disk.raw");
    let size = disk(&dir.file("disk.raw"), 42);
    for &first in OUTPUTS {
        let name = format!("disk.{}", first.name());
        if first != F::Raw {
            let mut source = File::open(&original).unwrap();
            let made = convert(&mut source, F::Raw, dir.file(&name), first, &mut |_| true).unwrap();
            assert!(made.virtual_size >= size && made.data < 1 << 20, "{first}: {made:?}");
        }
        let mut file = File::open(dir.0.join(&name)).unwrap();
        let seen = inspect(&mut file, Some(first)).unwrap_or_else(|e| panic!("{first}: {e}"));
        assert!(
            seen.virtual_size >= size && seen.virtual_size - size < 1 << 20,
            "{first}: {seen:?}"
        );
        same(&original, &mut file, first, &dir);
        for &second in OUTPUTS {
            let other = format!("second.{}", second.name());
            convert(&mut file, first, dir.file(&other), second, &mut |_| true)
                .unwrap_or_else(|e| panic!("{first} into {second}: {e}"));
            let mut file = File::open(dir.0.join(&other)).unwrap();
            same(&original, &mut file, second, &dir);
        }
    }
}

/// Disks with many tables, as qemu-img reads them.
#[test]
fn what_is_written_others_read_byte_for_byte() {
    if Command::new("qemu-img").arg("--version").output().is_err() {
        eprintln!("skipped: qemu-img is not installed (package qemu-utils)");
        return;
    }
    let dir = Dir::new("writes");
    disk(&dir.file("disk.raw"), 601);
    for &format in OUTPUTS {
        let mut source = File::open(dir.0.join("disk.raw")).unwrap();
        let name = format!("image.{}", format.name());
        convert(&mut source, F::Raw, dir.file(&name), format, &mut |_| true).unwrap();
        judged(&dir, &name, format);
        if format == F::Qcow2 {
            let mut file = File::open(dir.0.join(&name)).unwrap();
            same(&dir.0.join("disk.raw"), &mut file, format, &dir);
        }
    }
}

/// qemu-img reads the same disk and finds no fault.
fn judged(dir: &Dir, name: &str, format: F) {
    let run = |args: &[&str]| {
        let out = Command::new("qemu-img")
            .args(args)
            .current_dir(&dir.0)
            .output()
            .unwrap();
        let said = format!(
            "{}{}",
            String::from_utf8_lossy(&out.stdout),
            String::from_utf8_lossy(&out.stderr)
        );
        (out.status.success(), said)
    };
    // Disks that end in the middle of a unit are longer in some formats; what is beyond reads as zeros.
    let (ok, said) = run(&["compare", "-f", "raw", "-F", qemu_name(format), "disk.raw", name]);
    assert!(ok, "{format}: {said}");
    if matches!(format, F::Qcow2 | F::Vdi | F::Vhdx | F::Vmdk) {
        let (ok, said) = run(&["check", "-f", qemu_name(format), name]);
        assert!(ok, "{format}: {said}");
    }
}

/// What qemu-img writes, in all its sub-formats, is read as qemu-img reads it.
#[test]
fn what_qemu_img_writes_is_read_byte_for_byte() {
    if Command::new("qemu-img").arg("--version").output().is_err() {
        eprintln!("skipped: qemu-img is not installed (package qemu-utils)");
        return;
    }
    let dir = Dir::new("reads");
    disk(&dir.file("disk.raw"), 70);
    let rows: &[(F, &[&str])] = &[
        (F::Qcow2, &[]),
        (F::Qcow2, &["-c"]),
        (F::Qcow2, &["-o", "compat=0.10"]),
        (F::Qcow2, &["-o", "cluster_size=2M"]),
        (F::Qcow2, &["-o", "extended_l2=on,cluster_size=128k"]),
        (F::Vmdk, &["-o", "subformat=monolithicSparse"]),
        (F::Vmdk, &["-o", "subformat=streamOptimized"]),
        (F::Vdi, &[]),
        (F::Vhd, &["-o", "subformat=dynamic,force_size=on"]),
        (F::Vhdx, &["-o", "subformat=dynamic"]),
        (F::Vhdx, &["-o", "subformat=dynamic,block_size=1M"]),
    ];
    for (format, options) in rows {
        let mut args = vec!["convert", "-f", "raw", "-O", qemu_name(*format)];
        args.extend(*options);
        args.extend(["disk.raw", "image"]);
        let out = Command::new("qemu-img")
            .args(&args)
            .current_dir(&dir.0)
            .output()
            .unwrap();
        assert!(
            out.status.success(),
            "{args:?}: {}",
            String::from_utf8_lossy(&out.stderr)
        );
        let mut file = File::open(dir.0.join("image")).unwrap();
        same(&dir.0.join("disk.raw"), &mut file, *format, &dir);
    }
}

/// A small file that names one block for every place of a large disk does not become a large file.
#[test]
fn one_block_for_all_places_is_refused() {
    let dir = Dir::new("bomb");
    let blocks = 4096_u32;
    let mut image = vdi()
        .le32(0x180, blocks)
        .le32(0x184, blocks)
        .le64(0x170, u64::from(blocks) << 20);
    image.0.resize(4 << 20, 0x55);
    for n in 0..blocks as usize {
        image = image.le32(512 + n * 4, 0);
    }
    let data = 2 << 20;
    image = image.le32(0x158, data);
    let mut written = 0;
    let e = convert(&mut Cursor::new(image.0), F::Vdi, dir.file("out"), F::Raw, &mut |n| {
        written += n;
        true
    })
    .unwrap_err();
    assert!(
        matches!(&e, ConvertError::Refused(r) if r.kind == RefusalKind::Corrupt),
        "{e}"
    );
    assert!(e.to_string().contains("same block"), "{e}");
    assert!(written <= 4 << 20, "{written}");
}

/// A format that was not declared is not converted, and a caller can stop.
#[test]
fn the_declared_format_counts_and_the_caller_can_stop() {
    let dir = Dir::new("stop");
    let e = convert(
        &mut Cursor::new(qcow2().0),
        F::Raw,
        dir.file("a"),
        F::Qcow2,
        &mut |_| true,
    )
    .unwrap_err();
    assert!(
        matches!(&e, ConvertError::Refused(r) if r.kind == RefusalKind::FormatMismatch),
        "{e}"
    );
    let bytes = vec![7; 1 << 20];
    let e = convert(&mut Cursor::new(bytes), F::Raw, dir.file("b"), F::Qcow2, &mut |_| false).unwrap_err();
    assert!(matches!(e, ConvertError::Stopped));
}
