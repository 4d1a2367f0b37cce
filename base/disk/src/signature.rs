//! The signatures at the start of a file.

use super::DiskFormat;
use super::source::{be32, part};
use super::vmdk;

/// Bytes after which every signature at offset 0 is decided (not VDI, not the vmdk text).
pub(super) const MAGIC_LEN: usize = 32;
/// Bytes after which every signature of [`at_start`] is decided, except a vmdk descriptor that begins
/// with long comments.
pub(super) const DECIDED: usize = 512;

const QCOW: &[u8] = b"QFI\xfb";
const VDI_AT: usize = 0x40;
const VDI: &[u8] = &[0x7f, 0x10, 0xda, 0xbe];

/// The format whose signature stands at the start of `head`, which may be shorter than a whole header.
///
/// The set is a superset of what QEMU's own probing recognises, because the danger is a file that
/// somebody declares as raw and QEMU later takes for something else.
pub(super) fn at_start(head: &[u8]) -> Option<DiskFormat> {
    if head.starts_with(QCOW) {
        // docs/interop/qcow2: versions 2 and 3 share the magic with the older qcow format.
        return Some(if head.len() >= 8 && be32(head, 4) == 1 {
            DiskFormat::Qcow1
        } else {
            DiskFormat::Qcow2
        });
    }
    const STARTS: &[(&[u8], DiskFormat)] = &[
        (b"QED\0", DiskFormat::Qed),
        (b"LUKS\xba\xbe", DiskFormat::Luks),
        (b"WithoutFreeSpace", DiskFormat::Ploop),
        (b"WithouFreSpacExt", DiskFormat::Ploop),
        (b"Bochs Virtual HD Image", DiskFormat::Bochs),
        (b"#!/bin/sh\n#V2.0 Format\n", DiskFormat::Cloop),
        (b"conectix", DiskFormat::Vhd),
        (b"vhdxfile", DiskFormat::Vhdx),
    ];
    if let Some((_, format)) = STARTS.iter().find(|(magic, _)| head.starts_with(magic)) {
        return Some(*format);
    }
    if part(head, VDI_AT, VDI.len()) == VDI {
        return Some(DiskFormat::Vdi);
    }
    if vmdk::is_vmdk(head) {
        return Some(DiskFormat::Vmdk);
    }
    None
}
