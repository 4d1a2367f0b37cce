//! Every limit of the image parsers, in one place.
//!
//! Where QEMU has a limit we use the same one, so that what we accept QEMU opens; the other limits are
//! far above what tools write and far below what would hurt the machine.

/// Bytes kept from the start of an upload: the ISO 9660 descriptor ends at 16 * 2048 + 2048.
pub const HEAD: usize = 17 * 2048;
/// The largest single read; a table beyond it is walked in pieces.
pub const MAX_READ: u64 = 4 << 20;
/// The piece in which tables are walked.
pub const WALK_STEP: u64 = 64 << 10;
/// Bytes of second-level tables (qcow2 L2, vmdk grain tables) that one inspection reads. In qcow2 with
/// clusters of 64 KiB they describe 2 TiB of data; beyond it the rest is taken on trust, for QEMU checks
/// each entry again when it uses it.
pub const MAX_TABLE_WALK: u64 = 256 << 20;
/// The largest virtual disk: 64 TiB, which is also VHDX's own limit.
pub const MAX_VIRTUAL_SIZE: u64 = 64 << 40;

/// qcow2: cluster_bits, as QEMU allows them (512 bytes to 2 MiB).
pub const QCOW2_CLUSTER_BITS: std::ops::RangeInclusive<u32> = 9..=21;
/// qcow2: size of an L1 table in bytes (QEMU: 32 MiB).
pub const QCOW2_MAX_L1_BYTES: u64 = 32 << 20;
/// qcow2: size of the refcount table in bytes (QEMU: 8 MiB).
pub const QCOW2_MAX_REFTABLE_BYTES: u64 = 8 << 20;
/// qcow2: internal snapshots (QEMU: 65,536).
pub const QCOW2_MAX_SNAPSHOTS: u32 = 65_536;
/// qcow2: bytes of the snapshot table (QEMU: 1 KiB each on average).
pub const QCOW2_MAX_SNAPSHOT_TABLE_BYTES: u64 = 64 << 20;
/// qcow2: extra data of one snapshot (QEMU: 1 KiB).
pub const QCOW2_MAX_SNAPSHOT_EXTRA: u32 = 1024;
/// qcow2: header extensions; each takes 8 bytes at least and tools write about five.
pub const QCOW2_MAX_EXTENSIONS: usize = 256;
/// qcow2: dirty bitmaps (QEMU: 65,535).
pub const QCOW2_MAX_BITMAPS: u32 = 65_535;
/// vmdk: the descriptor text (QEMU: 1 MiB - 1; tools write 20 sectors).
pub const VMDK_MAX_DESCRIPTOR: u64 = (1 << 20) - 512;
/// vmdk: lines in a descriptor.
pub const VMDK_MAX_LINES: usize = 4096;
/// vmdk: sectors in a grain (QEMU: 1 GiB).
pub const VMDK_MAX_GRAIN_SECTORS: u64 = 0x20_0000;
/// vmdk: entries in a grain table (QEMU: 512).
pub const VMDK_MAX_GTES: u32 = 512;
/// vmdk: entries of the grain directory (QEMU: 32 Mi).
pub const VMDK_MAX_GRAIN_DIRECTORY: u64 = 32 << 20;

/// vdi: blocks in an image (QEMU: 2^30 - 1).
pub const VDI_MAX_BLOCKS: u32 = 0x3fff_ffff;
/// vhd: sectors by the largest geometry (65535 * 255 * 255).
pub const VHD_MAX_SECTORS: u64 = 65_535 * 255 * 255;

/// vhdx: entries in the region table and in the metadata table.
pub const VHDX_MAX_ENTRIES: u32 = 2047;
/// vhdx: size of a metadata item.
pub const VHDX_MAX_ITEM: u32 = 1 << 20;

/// iso9660: sectors that may be missing at the end. Burned discs carry 150 sectors of run-out, which the
/// volume size counts and copies of the disc often lack.
pub const ISO_RUN_OUT_SECTORS: u64 = 300;
