//! Any format into any other: the bytes of the disk stay the same, by our own reading and by qemu-img's.

use crate::testing::*;
use crate::{ConvertError, DiskFormat as F, OUTPUTS, RefusalKind, convert, flatten, inspect};
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

/// A layer and the disk below it become one file: written, zeroed and untouched places, and what a larger layer has
/// beyond the end of the disk below. What the layer says of its backing file is not looked at.
#[test]
fn a_layer_and_the_disk_below_become_one() {
    if Command::new("qemu-img").arg("--version").output().is_err() {
        eprintln!("skipped: qemu-img is not installed (package qemu-utils)");
        return;
    }
    let dir = Dir::new("layer");
    disk(&dir.file("disk.raw"), 42);
    let run = |program: &str, args: &[&str]| {
        let out = Command::new(program).args(args).current_dir(&dir.0).output().unwrap();
        assert!(
            out.status.success(),
            "{args:?}: {}{}",
            String::from_utf8_lossy(&out.stdout),
            String::from_utf8_lossy(&out.stderr)
        );
    };
    run(
        "qemu-img",
        &["convert", "-f", "raw", "-O", "qcow2", "disk.raw", "disk.qcow2"],
    );
    for (below, format) in [("disk.raw", F::Raw), ("disk.qcow2", F::Qcow2)] {
        run(
            "qemu-img",
            &[
                "create",
                "-q",
                "-f",
                "qcow2",
                "-b",
                below,
                "-F",
                format.name(),
                "layer.qcow2",
                "64M",
            ],
        );
        for (what, at, len) in [
            ("write -P 7", "0", "1k"),
            ("write -P 8", "41M", "3M"),
            ("write -z", "3M", "64k"),
            ("discard", "8323072", "64k"),
            ("write -P 9", "60M", "1M"),
        ] {
            run(
                "qemu-io",
                &["-f", "qcow2", "-c", &format!("{what} {at} {len}"), "layer.qcow2"],
            );
        }
        run(
            "qemu-img",
            &["convert", "-f", "qcow2", "-O", "raw", "layer.qcow2", "seen.raw"],
        );
        // From here on its header names what is not there.
        run(
            "qemu-img",
            &[
                "rebase",
                "-u",
                "-f",
                "qcow2",
                "-b",
                "/etc/shadow",
                "-F",
                "raw",
                "layer.qcow2",
            ],
        );
        let mut layer = File::open(dir.0.join("layer.qcow2")).unwrap();
        let mut under = File::open(dir.0.join(below)).unwrap();
        let made = flatten(&mut layer, &mut under, format, dir.file("whole.qcow2"), &mut |_| true).unwrap();
        assert_eq!(made.virtual_size, 64 << 20);
        run("qemu-img", &["check", "-q", "whole.qcow2"]);
        run(
            "qemu-img",
            &["compare", "-f", "qcow2", "-F", "raw", "whole.qcow2", "seen.raw"],
        );
        let mut whole = File::open(dir.0.join("whole.qcow2")).unwrap();
        assert_eq!(inspect(&mut whole, Some(F::Qcow2)).unwrap().virtual_size, 64 << 20);
    }
}
