//! The malicious corpus: each row is an image that would reach outside its file, exhaust the host or
//! confuse a later reader, with the kind of refusal and a word that the message must hold.

use super::{look, refused};
use crate::testing::*;
use crate::{DiskFormat, RefusalKind as K};

const PASSWD: &[u8] = b"/etc/passwd";

/// A header extension behind a version 3 header.
fn with_extension(image: Bytes, kind: u32, data: &[u8]) -> Bytes {
    image.be32(112, kind).be32(116, data.len() as u32).put(120, data)
}

#[test]
fn qcow2() {
    let c = CLUSTER as u64;
    let q = crate::testing::qcow2;
    let with_snapshot = |l1_at: u64, l1: u32, extra: u32| {
        q().be32(60, 1)
            .be64(64, 5 * c)
            .be64(5 * CLUSTER, l1_at)
            .be32(5 * CLUSTER + 8, l1)
            .be32(5 * CLUSTER + 36, extra)
    };
    let rows: Vec<(&str, Bytes, K, &str)> = vec![
        (
            "backing file",
            q().be64(8, 512).be32(16, PASSWD.len() as u32).put(512, PASSWD),
            K::BackingFile,
            "/etc/passwd",
        ),
        (
            "backing file in version 2",
            qcow2_v2().be64(8, 512).be32(16, 11).put(512, PASSWD),
            K::BackingFile,
            "/etc/passwd",
        ),
        (
            "backing file whose name is not there",
            q().be64(8, u64::MAX).be32(16, u32::MAX),
            K::BackingFile,
            "backing file",
        ),
        (
            "backing name that writes to a terminal",
            q().be64(8, 512).be32(16, 4).put(512, b"\x1b[2J"),
            K::BackingFile,
            "'?[2J'",
        ),
        ("data file", q().be64(72, 4), K::ExternalData, "external data file"),
        ("raw data file", q().be64(88, 2), K::ExternalData, "external data file"),
        (
            "data file name without its bit",
            with_extension(q(), 0x4441_5441, PASSWD),
            K::ExternalData,
            "external data file",
        ),
        ("unknown bit", q().be64(72, 1 << 5), K::UnknownFeature, "bit 5"),
        ("unknown high bit", q().be64(72, 1 << 63), K::UnknownFeature, "bit 63"),
        ("corrupt bit", q().be64(72, 2), K::Corrupt, "marked as corrupt"),
        ("encrypted", q().be32(32, 2), K::Encrypted, "crypt_method 2"),
        (
            "encryption header without encryption",
            with_extension(q(), 0x0537_be77, &[0; 16]),
            K::Corrupt,
            "encryption header",
        ),
        ("version 4", q().be32(4, 4), K::SubformatRefused, "version 4"),
        ("version 0", q().be32(4, 0), K::SubformatRefused, "version 0"),
        ("no clusters", q().be32(20, 0), K::TooLarge, "cluster_bits 0"),
        ("shift overflow", q().be32(20, u32::MAX), K::TooLarge, "cluster_bits"),
        ("clusters of 4 MiB", q().be32(20, 22), K::TooLarge, "cluster_bits 22"),
        ("huge disk", q().be64(24, u64::MAX), K::TooLarge, "virtual disk size"),
        ("huge L1", q().be32(36, u32::MAX), K::TooLarge, "L1 table"),
        (
            "L1 of the largest size, not there",
            q().be32(36, 4 << 20),
            K::OutOfFile,
            "L1 table",
        ),
        ("L1 too small", q().be64(24, 1 << 40), K::Corrupt, "needs 2048"),
        ("L1 unaligned", q().be64(40, 3 * c + 8), K::Corrupt, "L1 table"),
        ("L1 on the header", q().be64(40, 0), K::Corrupt, "L1 table"),
        ("L1 far away", q().be64(40, 1 << 62), K::OutOfFile, "L1 table"),
        (
            "L1 at the end of numbers",
            q().be64(40, u64::MAX - c + 1),
            K::OutOfFile,
            "L1 table",
        ),
        ("L2 outside", q().be64(3 * CLUSTER, 600 * c), K::OutOfFile, "L2 table"),
        (
            "L2 unaligned",
            q().be64(3 * CLUSTER, 4 * c + 512),
            K::Corrupt,
            "L1 table",
        ),
        (
            "data cluster unaligned",
            q().be64(4 * CLUSTER, 5 * c + 512),
            K::Corrupt,
            "L2 entry",
        ),
        (
            "compressed cluster outside",
            q().be64(4 * CLUSTER, (1 << 62) | (1 << 50)),
            K::OutOfFile,
            "compressed cluster",
        ),
        ("huge refcount table", q().be32(56, 129), K::TooLarge, "refcount table"),
        (
            "most of all refcounts",
            q().be32(56, u32::MAX),
            K::TooLarge,
            "refcount table",
        ),
        ("no refcount table", q().be32(56, 0), K::Corrupt, "no refcount table"),
        (
            "refcount table outside",
            q().be64(48, 99 * c),
            K::OutOfFile,
            "refcount table",
        ),
        ("wide refcounts", q().be32(96, 7), K::Corrupt, "refcount_order 7"),
        ("short header", q().be32(100, 96), K::Corrupt, "own length"),
        ("odd header", q().be32(100, 109), K::Corrupt, "own length"),
        ("endless header", q().be32(100, u32::MAX), K::Corrupt, "own length"),
        (
            "compression without its bit",
            q().put(104, &[1]),
            K::Corrupt,
            "compression type",
        ),
        (
            "unknown compression",
            q().be64(72, 8).put(104, &[9]),
            K::UnknownFeature,
            "compression type 9",
        ),
        (
            "subclusters in small clusters",
            q().be32(20, 13).be64(72, 16),
            K::Corrupt,
            "extended L2",
        ),
        (
            "too many snapshots",
            q().be32(60, u32::MAX).be64(64, 5 * c),
            K::TooLarge,
            "number of snapshots",
        ),
        (
            "snapshot table outside",
            q().be32(60, 1).be64(64, 50 * c),
            K::OutOfFile,
            "snapshot table",
        ),
        (
            "snapshots without a table",
            q().be32(60, 3).be64(64, 0),
            K::Corrupt,
            "snapshot table",
        ),
        (
            "more snapshots than the file holds",
            q().be32(60, 65_536).be64(64, 5 * c),
            K::OutOfFile,
            "snapshot table",
        ),
        (
            "snapshot with a huge L1",
            with_snapshot(3 * c, u32::MAX, 0),
            K::TooLarge,
            "snapshot 0",
        ),
        (
            "snapshot with an L1 outside",
            with_snapshot(90 * c, 1, 0),
            K::OutOfFile,
            "snapshot's L1",
        ),
        (
            "snapshot with endless extra data",
            with_snapshot(3 * c, 1, u32::MAX),
            K::TooLarge,
            "extra data of snapshot 0",
        ),
        (
            "extension that runs out",
            q().be32(112, 0x1234).be32(116, u32::MAX),
            K::OutOfFile,
            "header extension",
        ),
        (
            "bitmap directory outside",
            with_extension(q(), 0x2385_2875, &[0xff; 24]).be32(120, 1),
            K::OutOfFile,
            "bitmap directory",
        ),
        (
            "too many bitmaps",
            with_extension(q(), 0x2385_2875, &[0xff; 24]),
            K::TooLarge,
            "dirty bitmaps",
        ),
        (
            "cut off in the header",
            Bytes(q().0[..50].to_vec()),
            K::OutOfFile,
            "qcow2 header",
        ),
        (
            "cut off in version 3's header",
            Bytes(q().0[..80].to_vec()),
            K::OutOfFile,
            "qcow2 header",
        ),
        (
            "cut off in the data",
            Bytes(q().0[..5 * CLUSTER].to_vec()),
            K::OutOfFile,
            "data cluster",
        ),
    ];
    for (name, image, kind, says) in rows {
        refused(name, &image, DiskFormat::Qcow2, kind, says);
    }
    let many = (0..300).fold(q(), |b, i| b.be32(112 + i * 8, 0x1234));
    refused(
        "endless extensions",
        &many,
        DiskFormat::Qcow2,
        K::TooLarge,
        "header extensions",
    );
}

#[test]
fn one_l2_table_named_a_million_times_is_read_once() {
    let entries = 4 << 20;
    let c = CLUSTER as u64;
    let l1_clusters = entries * 8 / CLUSTER;
    let mut image = crate::testing::qcow2().be32(36, entries as u32).be64(40, 6 * c);
    image.0.resize((6 + l1_clusters) * CLUSTER, 0);
    for i in 0..entries {
        let at = 6 * CLUSTER + i * 8;
        image.0[at..at + 8].copy_from_slice(&(4 * c).to_be_bytes());
    }
    let started = std::time::Instant::now();
    look(&image.0, Some(DiskFormat::Qcow2)).expect("large, not wrong");
    assert!(started.elapsed().as_secs() < 20);
}

#[test]
fn declared_raw_but_something_that_qemu_would_follow() {
    let backing = crate::testing::qcow2().be64(8, 512).be32(16, 11).put(512, PASSWD);
    let rows: Vec<(&str, Bytes, K, &str)> = vec![
        (
            "qcow2 (CVE-2024-32498)",
            backing,
            K::FormatMismatch,
            "contents are qcow2",
        ),
        (
            "only the magic",
            Bytes(b"QFI\xfb".to_vec()),
            K::FormatMismatch,
            "contents are qcow2",
        ),
        (
            "qcow version 1",
            Bytes(b"QFI\xfb\0\0\0\x01".to_vec()),
            K::FormatRefused,
            "qcow (version 1)",
        ),
        (
            "vmdk descriptor",
            Bytes(b"# Disk DescriptorFile\nversion=1\n".to_vec()),
            K::FormatMismatch,
            "contents are vmdk",
        ),
        (
            "vmdk descriptor without its first line",
            Bytes(b"#\n  \r\n\nversion=3\r\nRW 1 FLAT \"/etc/shadow\" 0\n".to_vec()),
            K::FormatMismatch,
            "contents are vmdk",
        ),
        ("vmdk", vmdk(VMDK_TEXT), K::FormatMismatch, "contents are vmdk"),
        (
            "vmdk of ESX",
            Bytes::zeros(4096).put(0, b"COWD"),
            K::FormatMismatch,
            "contents are vmdk",
        ),
        ("vdi", vdi(), K::FormatMismatch, "contents are vdi"),
        ("vhd", vhd_dynamic(|_, _| {}), K::FormatMismatch, "contents are vhd"),
        ("fixed vhd", vhd_fixed(), K::FormatMismatch, "contents are vhd"),
        ("vhdx", vhdx(|_| {}), K::FormatMismatch, "contents are vhdx"),
        ("iso", iso(), K::FormatMismatch, "contents are iso"),
        ("qed", Bytes(b"QED\0rest".to_vec()), K::FormatRefused, "qed"),
        ("luks", Bytes(b"LUKS\xba\xbe\0\x02".to_vec()), K::FormatRefused, "luks"),
        (
            "parallels",
            Bytes(b"WithoutFreeSpace".to_vec()),
            K::FormatRefused,
            "ploop",
        ),
        ("ploop", Bytes(b"WithouFreSpacExt".to_vec()), K::FormatRefused, "ploop"),
        (
            "bochs",
            Bytes(b"Bochs Virtual HD Image".to_vec()),
            K::FormatRefused,
            "bochs",
        ),
        (
            "cloop",
            Bytes(b"#!/bin/sh\n#V2.0 Format\nmodprobe cloop".to_vec()),
            K::FormatRefused,
            "cloop",
        ),
    ];
    for (name, image, kind, says) in rows {
        refused(name, &image, DiskFormat::Raw, kind, says);
    }
}
