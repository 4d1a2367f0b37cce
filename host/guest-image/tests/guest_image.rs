//! What can be checked without packages and without a boot.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use haneul_guest_image::cpio::Archive;
use haneul_guest_image::mbr::{self, Holds, Partition};
use haneul_guest_image::{Built, overlay, stamp};

fn overlay_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("overlay")
}

fn files_below(dir: &Path, into: &mut BTreeSet<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files_below(&path, into)
        } else {
            assert!(into.insert(path))
        }
    }
}

/// Runs a guest awk script on `input` with whatever awk there is.
fn awk(script: &str, input: &str) -> Option<(bool, String)> {
    let mut child = Command::new("awk")
        .arg("-f")
        .arg(overlay_dir().join("rootfs/usr/lib/haneul").join(script))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .ok()?;
    child.stdin.take()?.write_all(input.as_bytes()).ok()?;
    let out = child.wait_with_output().ok()?;
    Some((out.status.success(), String::from_utf8(out.stdout).unwrap()))
}

#[test]
fn every_overlay_file_is_compiled_in() {
    let mut on_disk = BTreeSet::new();
    files_below(&overlay_dir(), &mut on_disk);
    let compiled: BTreeSet<PathBuf> = overlay::FILES.iter().map(|f| overlay_dir().join(f.path)).collect();
    assert_eq!(on_disk, compiled);
}

#[test]
fn overlay_scripts_parse() {
    let mut seen = 0;
    for f in overlay::FILES.iter().filter(|f| f.data.starts_with(b"#!/bin/sh")) {
        let out = Command::new("sh")
            .arg("-n")
            .arg(overlay_dir().join(f.path))
            .output()
            .unwrap();
        assert!(
            out.status.success(),
            "{}: {}",
            f.path,
            String::from_utf8_lossy(&out.stderr)
        );
        assert_eq!(f.mode, 0o755, "{} must be executable", f.path);
        seen += 1;
    }
    assert!(seen > 10);
}

#[test]
fn no_account_has_a_password() {
    let shadow = overlay::FILES.iter().find(|f| f.path == "rootfs/etc/shadow").unwrap();
    assert_eq!(shadow.mode, 0o600);
    for line in std::str::from_utf8(shadow.data).unwrap().lines() {
        assert_eq!(line.split(':').nth(1), Some("*"), "{line}");
    }
    let sshd = overlay::FILES.iter().find(|f| f.path.ends_with("haneul/sshd")).unwrap();
    assert!(std::str::from_utf8(sshd.data).unwrap().contains("dropbear -s "));
}

#[test]
fn cpio_as_the_kernel_reads_it() {
    let mut a = Archive::new();
    a.directory("bin", 0o755);
    a.file("bin/hello", 0o755, b"hello");
    a.symlink("bin/hi", "hello");
    a.character_device("console", 0o600, 5, 1);
    let bytes = a.finish();
    assert_eq!(bytes.len() % 512, 0);
    // An independent reader of the format.
    let mut at = 0;
    let mut seen = Vec::new();
    loop {
        assert_eq!(&bytes[at..at + 6], b"070701");
        let field = |n: usize| {
            usize::from_str_radix(
                std::str::from_utf8(&bytes[at + 6 + n * 8..at + 14 + n * 8]).unwrap(),
                16,
            )
            .unwrap()
        };
        let (mode, size, name_size) = (field(1), field(6), field(11));
        let name = std::str::from_utf8(&bytes[at + 110..at + 110 + name_size - 1])
            .unwrap()
            .to_owned();
        let data = (at + 110 + name_size).next_multiple_of(4);
        if name == "TRAILER!!!" {
            break;
        }
        seen.push((name, mode, bytes[data..data + size].to_vec(), (field(9), field(10))));
        at = (data + size).next_multiple_of(4);
    }
    assert_eq!(
        seen,
        [
            ("bin".to_owned(), 0o040_755, vec![], (0, 0)),
            ("bin/hello".to_owned(), 0o100_755, b"hello".to_vec(), (0, 0)),
            ("bin/hi".to_owned(), 0o120_777, b"hello".to_vec(), (0, 0)),
            ("console".to_owned(), 0o020_600, vec![], (5, 1)),
        ]
    );
}

#[test]
fn mbr_layout() {
    let parts = [
        Partition {
            start: 2048,
            sectors: 40_960,
            holds: Holds::Fat16,
            active: true,
        },
        Partition {
            start: 43_008,
            sectors: 131_072,
            holds: Holds::Linux,
            active: false,
        },
    ];
    let s = mbr::sector(&[0x90; 440], *b"HNGI", &parts).unwrap();
    assert_eq!(&s[440..446], b"HNGI\0\0");
    assert_eq!(
        s[446..462],
        [
            0x80, 0xfe, 0xff, 0xff, 0x0e, 0xfe, 0xff, 0xff, 0, 8, 0, 0, 0, 0xa0, 0, 0
        ]
    );
    assert_eq!(s[462], 0);
    assert_eq!(s[466], 0x83);
    // The initramfs writes the new size of partition 2 here.
    assert_eq!(s[474..478], 131_072_u32.to_le_bytes());
    assert_eq!(s[478..510], [0; 32]);
    assert_eq!(s[510..], [0x55, 0xaa]);
    assert!(mbr::sector(&[0; 441], *b"HNGI", &parts).is_none());
}

#[test]
fn stamp_takes_the_same_and_refuses_another() {
    let dir = std::env::temp_dir().join(format!("haneul-guest-image-{}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    let out = dir.join("guest.qcow2");
    fs::write(&out, b"an image").unwrap();
    let (sha256, bytes) = stamp::hash_file(&out).unwrap();
    let packages = vec!["busybox=1:1.35".to_owned(), "libc6=2.36".to_owned()];
    assert_eq!(stamp::reuse(&out, Some(&packages)), None);
    let built = Built {
        path: out.clone(),
        sha256,
        bytes,
        virtual_bytes: 99,
        packages: packages.clone(),
        cached: false,
    };
    stamp::write(&built).unwrap();
    let again = Built { cached: true, ..built };
    assert_eq!(stamp::reuse(&out, Some(&packages)), Some(again.clone()));
    assert_eq!(stamp::reuse(&out, None), Some(again));
    assert_eq!(stamp::reuse(&out, Some(&packages[..1])), None);
    // Same length, other content.
    fs::write(&out, b"an imagf").unwrap();
    assert_eq!(stamp::reuse(&out, Some(&packages)), None);
    fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn json_is_flattened() {
    let doc = r#"{"meta": {"hostname": "wrong", "n": [1, {"x": true}, null]}, "public_keys": {"my key": "ssh-ed25519 AAAA me\n"},
      "hostname": "vm-one.novalocal", "admin_pass": "a\"b\\c\u0026", "empty": {}, "none": [], "uuid": "83679162"}"#;
    let Some((ok, out)) = awk("json.awk", doc) else { return };
    assert!(ok, "{out}");
    let want = ".meta.hostname\twrong\n.meta.n[0]\t1\n.meta.n[1].x\ttrue\n.public_keys.my key\tssh-ed25519 AAAA me\n\
                .hostname\tvm-one.novalocal\n.admin_pass\ta\"b\\c&\n.uuid\t83679162\n";
    assert_eq!(out, want);
    assert!(!awk("json.awk", "{\"a\": ").unwrap().0);
    assert!(!awk("json.awk", "<html>").unwrap().0);
}

#[test]
fn cloud_config_becomes_a_script() {
    let dir = std::env::temp_dir().join(format!("haneul-cloud-config-{}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    let d = dir.display();
    let config = format!(
        "#cloud-config\npackage_update: true\nwrite_files:\n- path: {d}/sub/a\n  permissions: '0640'\n  content: |\n    one 'q'\n      two\n\n    three\n\
         - content: plain\n  path: {d}/b\nruncmd:\n  - echo \"x y\" > {d}/c\n  - [ sh, -c, \"echo 'l, m' > {d}/d\" ]\n  - |\n    echo multi > {d}/e\n    echo line >> {d}/e\n"
    );
    let Some((ok, script)) = awk("cloud-config.awk", &config) else {
        return;
    };
    assert!(ok);
    let out = Command::new("sh").arg("-c").arg(&script).output().unwrap();
    assert!(
        out.status.success(),
        "{script}\n{}",
        String::from_utf8_lossy(&out.stderr)
    );
    let said = String::from_utf8(out.stdout).unwrap();
    assert_eq!(said, "cloud-config: package_update is not supported here; skipped\n");
    let read = |n: &str| fs::read_to_string(dir.join(n)).unwrap_or_else(|_| panic!("{n}: {script}"));
    assert_eq!(read("sub/a"), "one 'q'\n  two\n\nthree\n");
    assert_eq!(read("b"), "plain");
    assert_eq!(read("c"), "x y\n");
    assert_eq!(read("d"), "l, m\n");
    assert_eq!(read("e"), "multi\nline\n");
    fs::remove_dir_all(&dir).unwrap();
}
