//! What a correct image gives.

use super::look;
use crate::testing::*;
use crate::{Details, DiskFormat, PartitionTable, RefusalKind, detect};
use std::io::Cursor;

fn every_kind() -> Vec<(DiskFormat, Bytes)> {
    vec![
        (DiskFormat::Qcow2, qcow2()),
        (DiskFormat::Qcow2, qcow2_v2()),
        (DiskFormat::Vmdk, vmdk(VMDK_TEXT)),
        (DiskFormat::Vmdk, vmdk_stream()),
        (DiskFormat::Vdi, vdi()),
        (DiskFormat::Vhd, vhd_dynamic(|_, _| {})),
        (DiskFormat::Vhd, vhd_fixed()),
        (DiskFormat::Vhdx, vhdx(|_| {})),
        (DiskFormat::Iso, iso()),
        (DiskFormat::Raw, mbr()),
        (DiskFormat::Raw, gpt()),
        (DiskFormat::Raw, Bytes::zeros(1024)),
    ]
}

#[test]
fn every_format_is_detected_and_passes_under_its_own_name() {
    for (format, bytes) in every_kind() {
        let found = detect(&mut Cursor::new(&bytes.0)).expect("a cursor reads");
        assert_eq!(found.format, format);
        let seen = look(&bytes.0, Some(format)).unwrap_or_else(|r| panic!("{format}: {r}"));
        assert_eq!(seen.format, format);
        assert_eq!(seen.file_size, bytes.0.len() as u64);
        let guessed = look(&bytes.0, None).unwrap_or_else(|r| panic!("{format}: {r}"));
        assert_eq!(guessed, seen);
    }
}

#[test]
fn every_format_is_refused_under_every_other_name() {
    for (format, bytes) in every_kind() {
        for declared in DiskFormat::GLANCE {
            if declared == format || (declared.is_plain() && format == DiskFormat::Raw) {
                continue;
            }
            let refusal = look(&bytes.0, Some(declared)).expect_err("a lie about the format");
            assert_eq!(refusal.kind, RefusalKind::FormatMismatch, "{format} as {declared}");
            assert!(refusal.problem.contains(declared.name()));
        }
    }
}

#[test]
fn the_virtual_size_is_the_guest_s() {
    let size = |b: Bytes| look(&b.0, None).expect("accepted").virtual_size;
    for image in [
        qcow2(),
        vmdk(VMDK_TEXT),
        vmdk_stream(),
        vdi(),
        vhd_dynamic(|_, _| {}),
        vhdx(|_| {}),
    ] {
        assert_eq!(size(image), 4 << 20);
    }
    assert_eq!(size(vhd_fixed()), 1 << 20);
    assert_eq!(size(iso()), 20 * 2048);
    assert_eq!(size(Bytes::zeros(1000)), 1000);
    assert_eq!(size(Bytes::zeros(0)), 0);
}

#[test]
fn a_partition_table_changes_no_format() {
    let table = |b: Bytes| match look(&b.0, Some(DiskFormat::Raw)).expect("raw").details {
        Details::Raw { partition_table } => partition_table,
        other => panic!("{other:?}"),
    };
    assert_eq!(table(mbr()), Some(PartitionTable::Mbr));
    assert_eq!(table(gpt()), Some(PartitionTable::Gpt));
    assert_eq!(table(Bytes::zeros(4096)), None);
    // A boot sector of a file system ends like an MBR but has no table.
    let fat = Bytes(vec![0x41; 512]).put(510, &[0x55, 0xaa]);
    assert_eq!(table(fat), None);
}

#[test]
fn a_hybrid_iso_is_an_iso_and_a_disk_but_nothing_else() {
    let hybrid = iso().put(450, &[0x17]).le32(458, 100).put(510, &[0x55, 0xaa]);
    let as_iso = look(&hybrid.0, Some(DiskFormat::Iso)).expect("an iso");
    assert!(matches!(as_iso.details, Details::Iso { hybrid: true, .. }));
    let as_raw = look(&hybrid.0, Some(DiskFormat::Raw)).expect("a disk");
    assert_eq!(as_raw.format, DiskFormat::Raw);
    look(&hybrid.0, Some(DiskFormat::Qcow2)).expect_err("not a qcow2");
}

#[test]
fn a_zero_cluster_may_lie_beyond_the_file() {
    let far = 100 * CLUSTER as u64;
    let zero = qcow2().be64(4 * CLUSTER, far | (1 << 63) | 1);
    look(&zero.0, Some(DiskFormat::Qcow2)).expect("reads as zeros");
    let data = qcow2().be64(4 * CLUSTER, far | (1 << 63));
    let refusal = look(&data.0, Some(DiskFormat::Qcow2)).expect_err("data that is not there");
    assert_eq!(refusal.kind, RefusalKind::OutOfFile);
}

#[test]
fn names_go_there_and_back() {
    for format in DiskFormat::GLANCE {
        assert_eq!(DiskFormat::from_glance_name(format.name()), Some(format));
    }
    assert_eq!(DiskFormat::from_glance_name("qed"), None);
    assert_eq!(DiskFormat::Qed.glance_name(), None);
}
