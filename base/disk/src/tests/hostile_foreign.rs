//! The malicious corpus, second half: the formats that other programs write.

use super::refused;
use crate::testing::*;
use crate::{DiskFormat, RefusalKind as K};

#[test]
fn vmdk_s() {
    let text = |from: &str, to: &str| vmdk(&VMDK_TEXT.replace(from, to));
    let extent = |line: &str| text("RW 8192 SPARSE \"disk.vmdk\"", line);
    let rows: Vec<(&str, Bytes, K, &str)> = vec![
        (
            "descriptor alone",
            Bytes(VMDK_TEXT.as_bytes().to_vec()),
            K::ExternalData,
            "descriptor without a disk",
        ),
        (
            "flat type",
            text("monolithicSparse", "monolithicFlat"),
            K::SubformatRefused,
            "monolithicflat",
        ),
        (
            "raw device",
            text("monolithicSparse", "fullDevice"),
            K::SubformatRefused,
            "fulldevice",
        ),
        ("no type", text("createType", "made"), K::Corrupt, "no createType"),
        (
            "two types",
            text("CID=2f", "createType=\"monolithicFlat\"\nCID=2f"),
            K::Corrupt,
            "more than once",
        ),
        (
            "type in a comment",
            text("# Extent", "# createType=\"monolithicFlat\""),
            K::Corrupt,
            "comment",
        ),
        (
            "type in a value",
            text("\"4\"", "\"createType=\"vmfs\"\""),
            K::Corrupt,
            "value",
        ),
        (
            "absolute path",
            extent("RW 8192 SPARSE \"/etc/shadow\""),
            K::ExternalData,
            "/etc/shadow",
        ),
        (
            "path traversal",
            extent("RW 8192 SPARSE \"../../other.vmdk\""),
            K::ExternalData,
            "points at a path",
        ),
        (
            "backslashes",
            extent("RW 8192 SPARSE \"..\\other.vmdk\""),
            K::ExternalData,
            "points at a path",
        ),
        (
            "protocol",
            extent("RW 8192 SPARSE \"nbd:localhost:10809\""),
            K::ExternalData,
            "points at a path",
        ),
        (
            "flat extent",
            extent("RW 8192 FLAT \"other.vmdk\" 0"),
            K::ExternalData,
            "type 'flat'",
        ),
        (
            "two extents",
            extent("RW 4096 SPARSE \"a.vmdk\"\nRW 4096 SPARSE \"b.vmdk\""),
            K::ExternalData,
            "2 extents",
        ),
        ("no extent", extent(""), K::ExternalData, "0 extents"),
        (
            "parent",
            text("parentCID=ffffffff", "parentCID=12345678"),
            K::BackingFile,
            "parent",
        ),
        (
            "parent by name",
            text("CID=2f7a1b00\n", "CID=2f7a1b00\nparentFileNameHint=\"/etc/passwd\"\n"),
            K::BackingFile,
            "/etc/passwd",
        ),
        (
            "unknown line",
            text("# Extent description", "exec rm"),
            K::Corrupt,
            "not understood: 'exec rm'",
        ),
        (
            "text behind the end",
            vmdk(VMDK_TEXT).put(512 * 20, b"RW 1 FLAT \"/etc/shadow\" 0"),
            K::Corrupt,
            "hides bytes",
        ),
        ("not text", text("ddb.", "\u{e9}\u{e9}."), K::Corrupt, "not ASCII"),
        (
            "no capacity",
            vmdk(VMDK_TEXT).le64(12, 0),
            K::ExternalData,
            "capacity of 0",
        ),
        (
            "huge capacity",
            vmdk(VMDK_TEXT).le64(12, u64::MAX),
            K::TooLarge,
            "grain directory",
        ),
        (
            "no descriptor",
            vmdk(VMDK_TEXT).le64(28, 0),
            K::ExternalData,
            "split disk",
        ),
        (
            "descriptor elsewhere",
            vmdk(VMDK_TEXT).le64(28, 5),
            K::Corrupt,
            "at sector 5",
        ),
        (
            "endless descriptor",
            vmdk(VMDK_TEXT).le64(36, u64::MAX),
            K::TooLarge,
            "descriptor",
        ),
        (
            "descriptor longer than the file",
            vmdk(VMDK_TEXT).le64(36, 2000),
            K::OutOfFile,
            "descriptor",
        ),
        (
            "version 9",
            vmdk(VMDK_TEXT).le32(4, 9),
            K::SubformatRefused,
            "version 9",
        ),
        ("no grain", vmdk(VMDK_TEXT).le64(20, 0), K::TooLarge, "grain"),
        ("huge grain", vmdk(VMDK_TEXT).le64(20, 1 << 40), K::TooLarge, "grain"),
        (
            "no grain tables",
            vmdk(VMDK_TEXT).le32(44, 0),
            K::TooLarge,
            "grain table",
        ),
        (
            "huge grain tables",
            vmdk(VMDK_TEXT).le32(44, 9999),
            K::TooLarge,
            "grain table",
        ),
        (
            "directory outside",
            vmdk(VMDK_TEXT).le64(56, 1 << 60),
            K::OutOfFile,
            "grain directory",
        ),
        (
            "grain table outside",
            vmdk(VMDK_TEXT).le32(26 * 512, u32::MAX),
            K::OutOfFile,
            "grain table",
        ),
        (
            "grain outside",
            vmdk(VMDK_TEXT).le32(26 * 512, 30).le32(30 * 512, 128),
            K::OutOfFile,
            "vmdk grain",
        ),
        (
            "redundant directory outside",
            vmdk(VMDK_TEXT).le64(48, 1 << 60),
            K::OutOfFile,
            "redundant grain directory",
        ),
        (
            "compression",
            vmdk(VMDK_TEXT).le16(77, 7),
            K::UnknownFeature,
            "compression 7",
        ),
        (
            "footer missing",
            vmdk(VMDK_TEXT).le64(56, u64::MAX),
            K::OutOfFile,
            "footer",
        ),
        (
            "footer that tells another disk",
            vmdk_stream().le64(65536 + 512 + 12, 1 << 30),
            K::Corrupt,
            "contradict",
        ),
        (
            "footer with another descriptor",
            vmdk_stream().le64(65536 + 512 + 28, 3),
            K::Corrupt,
            "contradict",
        ),
        (
            "cut off",
            Bytes(vmdk(VMDK_TEXT).0[..600].to_vec()),
            K::OutOfFile,
            "descriptor",
        ),
        (
            "ESX extent",
            Bytes::zeros(4096).put(0, b"COWD"),
            K::SubformatRefused,
            "ESX",
        ),
    ];
    for (name, image, kind, says) in rows {
        refused(name, &image, DiskFormat::Vmdk, kind, says);
    }
}

#[test]
fn vdi_s() {
    let rows: Vec<(&str, Bytes, K, &str)> = vec![
        ("differencing", vdi().le32(0x4c, 4), K::BackingFile, "differencing"),
        ("undo", vdi().le32(0x4c, 3), K::BackingFile, "undo"),
        ("parent", vdi().put(0x1b8, &[1]), K::BackingFile, "parent"),
        ("link", vdi().put(0x1a8, &[1]), K::BackingFile, "parent"),
        ("old version", vdi().le32(0x44, 1), K::SubformatRefused, "version 0.1"),
        ("huge map", vdi().le32(0x180, u32::MAX), K::TooLarge, "block map"),
        ("map outside", vdi().le32(0x180, 1 << 20), K::OutOfFile, "block map"),
        (
            "map far away",
            vdi().le32(0x154, 0x4000_0000),
            K::OutOfFile,
            "block map",
        ),
        ("block outside", vdi().le32(512, 3), K::OutOfFile, "vdi block"),
        ("block beyond the map", vdi().le32(512, 4), K::OutOfFile, "vdi block"),
        ("disk beyond the map", vdi().le64(0x170, 1 << 40), K::Corrupt, "too few"),
        ("no block size", vdi().le32(0x178, 0), K::Corrupt, "block size of 0"),
        ("odd block size", vdi().le32(0x178, 1_000_000), K::Corrupt, "block size"),
        ("odd sectors", vdi().le32(0x168, 4096), K::Corrupt, "sectors"),
        ("cut off", Bytes(vdi().0[..300].to_vec()), K::OutOfFile, "vdi header"),
    ];
    for (name, image, kind, says) in rows {
        refused(name, &image, DiskFormat::Vdi, kind, says);
    }
}

#[test]
fn vhd_s() {
    let put = |b: &mut [u8], at: usize, n: u32| b[at..at + 4].copy_from_slice(&n.to_be_bytes());
    let rows: Vec<(&str, Bytes, K, &str)> = vec![
        (
            "differencing",
            vhd_dynamic(|f, _| put(f, 60, 4)),
            K::BackingFile,
            "differencing",
        ),
        ("parent's id", vhd_dynamic(|_, h| h[40] = 1), K::BackingFile, "parent"),
        (
            "parent's name",
            vhd_dynamic(|_, h| h[65] = b'c'),
            K::BackingFile,
            "parent",
        ),
        (
            "parent locator",
            vhd_dynamic(|_, h| h[576..580].copy_from_slice(b"W2ku")),
            K::BackingFile,
            "parent",
        ),
        (
            "reserved type",
            vhd_dynamic(|f, _| put(f, 60, 1)),
            K::SubformatRefused,
            "disk type 1",
        ),
        (
            "fixed with a header",
            vhd_dynamic(|f, _| put(f, 60, 2)),
            K::Corrupt,
            "marked as fixed",
        ),
        (
            "huge disk",
            vhd_dynamic(|f, _| f[48..56].fill(0xff)),
            K::TooLarge,
            "virtual disk size",
        ),
        (
            "huge table",
            vhd_dynamic(|_, h| put(h, 28, u32::MAX)),
            K::TooLarge,
            "block table",
        ),
        (
            "table outside",
            vhd_dynamic(|_, h| h[16..24].fill(0xff)),
            K::OutOfFile,
            "block table",
        ),
        (
            "header outside",
            vhd_dynamic(|f, _| f[16..24].fill(0xff)),
            K::OutOfFile,
            "dynamic header",
        ),
        (
            "no block size",
            vhd_dynamic(|_, h| put(h, 32, 0)),
            K::Corrupt,
            "block size",
        ),
        (
            "too few blocks",
            vhd_dynamic(|_, h| put(h, 28, 1)),
            K::Corrupt,
            "too few",
        ),
        (
            "block outside",
            vhd_dynamic(|_, _| {}).be32(1536, 0x00ff_ffff),
            K::OutOfFile,
            "vhd block",
        ),
        (
            "bad checksum",
            vhd_dynamic(|_, _| {}).put(20, &[1]).put(2048 + 20, &[1]),
            K::Corrupt,
            "checksum",
        ),
        (
            "bad header checksum",
            vhd_dynamic(|_, _| {}).put(512 + 900, &[1]),
            K::Corrupt,
            "dynamic disk header",
        ),
        (
            "two footers that differ",
            vhd_dynamic(|_, _| {}).put(2048 + 20, &[1]),
            K::Corrupt,
            "differs",
        ),
        (
            "cut off",
            Bytes(vhd_dynamic(|_, _| {}).0[..2048].to_vec()),
            K::OutOfFile,
            "vhd footer",
        ),
        (
            "fixed, disk cut off at the start",
            Bytes(vhd_fixed().0[4096..].to_vec()),
            K::OutOfFile,
            "vhd disk",
        ),
    ];
    for (name, image, kind, says) in rows {
        refused(name, &image, DiskFormat::Vhd, kind, says);
    }
}

#[test]
fn vhdx_s() {
    let set = |at: usize, bytes: &'static [u8]| vhdx(move |b| b.0[at..at + bytes.len()].copy_from_slice(bytes));
    let meta = 2 * MIB;
    let item = meta + 65536;
    let parent = vhdx(|b| {
        let at = meta + 32 + 3 * 32;
        b.0[meta + 10] = 4;
        b.0[at..at + 16].copy_from_slice(&guid_of(PARENT_LOCATOR));
        b.0[at + 16..at + 20].copy_from_slice(&65600_u32.to_le_bytes());
        b.0[at + 20] = 20;
    });
    let unknown_item = vhdx(|b| {
        b.0[meta + 10] = 4;
        b.0[meta + 128..meta + 144].fill(0xee);
        b.0[meta + 128 + 24] = 4;
    });
    let unknown_region = vhdx(|b| {
        b.0[196_616] = 3;
        b.0[196_688..196_704].fill(0xee);
        b.0[196_716] = 1;
    });
    let rows: Vec<(&str, Bytes, K, &str)> = vec![
        ("has parent", set(item + 4, &[2]), K::BackingFile, "differencing"),
        ("parent locator", parent, K::BackingFile, "parent"),
        ("unknown item", unknown_item, K::UnknownFeature, "metadata item"),
        ("unknown region", unknown_region, K::UnknownFeature, "region"),
        ("log", set(65536 + 48, &[9]), K::Corrupt, "log"),
        ("version 2", set(65536 + 66, &[2]), K::SubformatRefused, "version 2"),
        (
            "headers",
            vhdx(|_| {}).put(65536 + 20, &[1]),
            K::Corrupt,
            "Both headers",
        ),
        (
            "regions",
            vhdx(|_| {}).put(196_700, &[1]),
            K::Corrupt,
            "Both region tables",
        ),
        (
            "too many regions",
            set(196_616, &[0xff; 4]),
            K::TooLarge,
            "region table",
        ),
        ("region outside", set(196_640 + 4, &[1]), K::OutOfFile, "vhdx region"),
        ("region on the headers", set(196_640, &[0; 8]), K::Corrupt, "whole MiB"),
        (
            "same region twice",
            {
                let bat = guid_of("2dc27766-f623-4200-9d64-115e9bfd4a08");
                vhdx(move |b| b.0[196_656..196_672].copy_from_slice(&bat))
            },
            K::Corrupt,
            "twice",
        ),
        ("no regions", set(196_616, &[0]), K::Corrupt, "lacks"),
        ("no metadata", set(meta, b"x"), K::Corrupt, "metadata table"),
        (
            "too many items",
            set(meta + 10, &[0xff; 2]),
            K::TooLarge,
            "metadata table",
        ),
        (
            "huge item",
            set(meta + 32 + 20, &[0xff; 4]),
            K::TooLarge,
            "metadata item",
        ),
        (
            "item outside",
            set(meta + 32 + 16, &[0xff; 4]),
            K::OutOfFile,
            "metadata item",
        ),
        ("no size", set(meta + 10, &[1]), K::Corrupt, "logical sector size"),
        ("block size 0", set(item, &[0; 4]), K::Corrupt, "block size"),
        ("odd sectors", set(item + 32, &[1]), K::Corrupt, "sectors"),
        (
            "huge disk",
            set(item + 16, &[0xff; 8]),
            K::TooLarge,
            "virtual disk size",
        ),
        ("too small a table", set(196_648, &[4, 0, 0, 0]), K::Corrupt, "too few"),
        (
            "block outside",
            set(3 * MIB, &[6, 0, 0, 0, 0, 1, 0, 0]),
            K::OutOfFile,
            "vhdx block",
        ),
        (
            "cut off",
            Bytes(vhdx(|_| {}).0[..100_000].to_vec()),
            K::OutOfFile,
            "vhdx header",
        ),
    ];
    for (name, image, kind, says) in rows {
        refused(name, &image, DiskFormat::Vhdx, kind, says);
    }
}

#[test]
fn iso_s() {
    let d = 16 * 2048;
    let rows: Vec<(&str, Bytes, K, &str)> = vec![
        ("one byte order lies", iso().be32(d + 84, 7), K::Corrupt, "two copies"),
        (
            "volume larger than the file",
            iso().le32(d + 80, 1 << 30).be32(d + 84, 1 << 30),
            K::OutOfFile,
            "volume",
        ),
        (
            "odd blocks",
            iso().le16(d + 128, 7).put(d + 130, &7_u16.to_be_bytes()),
            K::Corrupt,
            "block size",
        ),
        ("no primary descriptor", iso().put(d, &[2]), K::Corrupt, "primary"),
        (
            "cut off",
            Bytes(iso().0[..d + 1000].to_vec()),
            K::OutOfFile,
            "volume descriptor",
        ),
        (
            "qcow2 below an iso",
            iso().put(0, b"QFI\xfb"),
            K::FormatMismatch,
            "qcow2",
        ),
    ];
    for (name, image, kind, says) in rows {
        refused(name, &image, DiskFormat::Iso, kind, says);
    }
}
