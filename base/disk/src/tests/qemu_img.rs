//! The parsers against images that qemu-img wrote: what it calls sound we accept, with its sizes; what
//! it writes with a backing or data file we refuse. Without qemu-img the tests say so and pass.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{Details, DiskFormat as F, InspectError, Inspection, RefusalKind as K, inspect};

struct Lab {
    dir: PathBuf,
}

impl Lab {
    fn open(test: &str) -> Option<Self> {
        if Command::new("qemu-img").arg("--version").output().is_err() {
            eprintln!("skipped: qemu-img is not installed (package qemu-utils)");
            return None;
        }
        let dir = std::env::temp_dir().join(format!("haneul-image-{}-{test}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a directory for images");
        Some(Self { dir })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn run(&self, args: &[&str]) -> bool {
        let out = Command::new("qemu-img")
            .args(args)
            .current_dir(&self.dir)
            .output()
            .expect("qemu-img runs");
        if !out.status.success() {
            eprintln!("qemu-img {args:?}: {}", String::from_utf8_lossy(&out.stderr));
        }
        out.status.success()
    }

    fn look(&self, name: &str, declared: F) -> Result<Inspection, InspectError> {
        let mut file = File::open(self.path(name)).expect("qemu-img wrote it");
        inspect(&mut file, Some(declared))
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// A disk of 8 MiB that holds data in its middle.
fn write_source(path: &Path) {
    let mut bytes = vec![0_u8; 8 << 20];
    for (i, b) in bytes[3 << 20..5 << 20].iter_mut().enumerate() {
        *b = (i * 7 + i / 251) as u8;
    }
    std::fs::write(path, bytes).expect("writes");
}

#[test]
fn what_it_writes_is_accepted() {
    let Some(lab) = Lab::open("accepts") else {
        return;
    };
    write_source(&lab.path("src.raw"));
    let rows: &[(&str, &str, F, &[&str])] = &[
        ("a.raw", "raw", F::Raw, &[]),
        ("a.qcow2", "qcow2", F::Qcow2, &[]),
        ("b.qcow2", "qcow2", F::Qcow2, &["-o", "compat=0.10"]),
        ("c.qcow2", "qcow2", F::Qcow2, &["-c"]),
        ("d.qcow2", "qcow2", F::Qcow2, &["-c", "-o", "compression_type=zstd"]),
        (
            "e.qcow2",
            "qcow2",
            F::Qcow2,
            &["-o", "extended_l2=on,cluster_size=128k"],
        ),
        ("f.qcow2", "qcow2", F::Qcow2, &["-o", "cluster_size=512"]),
        ("g.qcow2", "qcow2", F::Qcow2, &["-o", "cluster_size=2M"]),
        (
            "h.qcow2",
            "qcow2",
            F::Qcow2,
            &["-o", "lazy_refcounts=on,refcount_bits=1"],
        ),
        ("i.qcow2", "qcow2", F::Qcow2, &["-o", "preallocation=metadata"]),
        ("j.qcow2", "qcow2", F::Qcow2, &["-o", "preallocation=full"]),
        ("a.vmdk", "vmdk", F::Vmdk, &["-o", "subformat=monolithicSparse"]),
        ("b.vmdk", "vmdk", F::Vmdk, &["-o", "subformat=streamOptimized"]),
        ("a.vdi", "vdi", F::Vdi, &[]),
        ("b.vdi", "vdi", F::Vdi, &["-o", "static=on"]),
        ("a.vhd", "vpc", F::Vhd, &["-o", "subformat=dynamic,force_size=on"]),
        ("b.vhd", "vpc", F::Vhd, &["-o", "subformat=fixed,force_size=on"]),
        ("a.vhdx", "vhdx", F::Vhdx, &["-o", "subformat=dynamic"]),
        ("b.vhdx", "vhdx", F::Vhdx, &["-o", "subformat=fixed"]),
    ];
    for (name, format, expected, options) in rows {
        let mut args = vec!["convert", "-f", "raw", "-O", format];
        args.extend(*options);
        args.extend(["src.raw", name]);
        assert!(lab.run(&args), "{name}");
        let seen = lab.look(name, *expected).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(seen.format, *expected, "{name}");
        assert_eq!(seen.virtual_size, 8 << 20, "{name}");
        if let Details::Qcow2 { all_tables_checked, .. } = seen.details {
            assert!(all_tables_checked, "{name}");
        }
        // Half of it was never whole: each format but raw must notice.
        if *expected != F::Raw {
            let bytes = std::fs::read(lab.path(name)).expect("reads");
            std::fs::write(lab.path("half"), &bytes[..bytes.len() / 2]).expect("writes");
            lab.look("half", *expected)
                .expect_err(&format!("{name}: half of it passed"));
        }
    }
}

#[test]
fn empty_large_and_snapshotted_disks_are_accepted() {
    let Some(lab) = Lab::open("large") else {
        return;
    };
    for (name, format, expected, size) in [
        ("a.qcow2", "qcow2", F::Qcow2, "60T"),
        ("a.vmdk", "vmdk", F::Vmdk, "1T"),
        ("a.vdi", "vdi", F::Vdi, "1T"),
        ("a.vhd", "vpc", F::Vhd, "100G"),
        ("a.vhdx", "vhdx", F::Vhdx, "10T"),
        ("a.raw", "raw", F::Raw, "1T"),
    ] {
        assert!(lab.run(&["create", "-q", "-f", format, name, size]), "{name}");
        lab.look(name, expected).unwrap_or_else(|e| panic!("{name}: {e}"));
    }
    assert!(lab.run(&["create", "-q", "-f", "qcow2", "s.qcow2", "1G"]));
    for snapshot in ["one", "two", "three"] {
        assert!(lab.run(&["snapshot", "-c", snapshot, "s.qcow2"]));
    }
    assert!(lab.run(&["bitmap", "--add", "s.qcow2", "dirty"]));
    let seen = lab.look("s.qcow2", F::Qcow2).expect("accepted");
    assert!(matches!(seen.details, Details::Qcow2 { snapshots: 3, .. }));
}

#[test]
fn what_reaches_outside_is_refused() {
    let Some(lab) = Lab::open("refuses") else {
        return;
    };
    let create = |args: &[&str]| {
        let mut all = vec!["create", "-q", "-f"];
        all.extend(args);
        lab.run(&all)
    };
    assert!(create(&["raw", "base.raw", "8M"]));
    let refused = |name: &str, declared: F, kind: K, says: &str| {
        let error = lab.look(name, declared).expect_err(name);
        let refusal = error.refusal().expect("a refusal").clone();
        assert_eq!(refusal.kind, kind, "{name}: {refusal}");
        assert!(refusal.problem.contains(says), "{name}: {refusal}");
    };
    assert!(create(&["qcow2", "-b", "base.raw", "-F", "raw", "child.qcow2"]));
    refused("child.qcow2", F::Qcow2, K::BackingFile, "'base.raw'");
    refused("child.qcow2", F::Raw, K::FormatMismatch, "qcow2");
    assert!(create(&["qcow2", "-o", "data_file=data.raw", "ext.qcow2", "8M"]));
    refused("ext.qcow2", F::Qcow2, K::ExternalData, "data file");
    let raw_data = "data_file=data2.raw,data_file_raw=on";
    assert!(create(&["qcow2", "-o", raw_data, "ext2.qcow2", "8M"]));
    refused("ext2.qcow2", F::Qcow2, K::ExternalData, "data file");
    let secret = "secret,id=s,data=abc";
    let luks = "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10";
    if lab.run(&[
        "create",
        "-q",
        "--object",
        secret,
        "-f",
        "qcow2",
        "-o",
        luks,
        "enc.qcow2",
        "8M",
    ]) {
        refused("enc.qcow2", F::Qcow2, K::Encrypted, "crypt_method 2");
    }
    if lab.run(&[
        "create",
        "-q",
        "--object",
        secret,
        "-f",
        "luks",
        "-o",
        "key-secret=s,iter-time=10",
        "a.luks",
        "8M",
    ]) {
        refused("a.luks", F::Raw, K::FormatRefused, "luks");
        refused("a.luks", F::Luks, K::FormatRefused, "luks");
    }
    for (subformat, name, kind) in [
        ("monolithicFlat", "flat.vmdk", K::ExternalData),
        ("twoGbMaxExtentSparse", "split.vmdk", K::ExternalData),
        ("twoGbMaxExtentFlat", "splitflat.vmdk", K::ExternalData),
    ] {
        let option = format!("subformat={subformat}");
        assert!(create(&["vmdk", "-o", &option, name, "8M"]), "{name}");
        refused(name, F::Vmdk, kind, "descriptor");
        refused(name, F::Raw, K::FormatMismatch, "vmdk");
    }
    assert!(create(&["vmdk", "base.vmdk", "8M"]));
    assert!(create(&["vmdk", "-b", "base.vmdk", "-F", "vmdk", "child.vmdk"]));
    refused("child.vmdk", F::Vmdk, K::BackingFile, "parent");
    for (format, name, says) in [
        ("qed", "a.qed", "qed"),
        ("parallels", "a.hdd", "ploop"),
        ("qcow", "a.qcow", "qcow (version 1)"),
    ] {
        if create(&[format, name, "8M"]) {
            refused(name, F::Raw, K::FormatRefused, says);
            refused(name, F::Qcow2, K::FormatRefused, says);
        }
    }
}
