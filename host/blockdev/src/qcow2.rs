//! The two things about qcow2 that we do ourselves: write an empty layer, and look at the header of an
//! image before any tool does. Format: QEMU's `docs/interop/qcow2.rst`, version 3; all big endian.

use std::io::{self, Read, Write};
use std::path::Path;

const MAGIC: u32 = 0x5146_49fb;
const CLUSTER_BITS: u32 = 16;
const CLUSTER: u64 = 1 << CLUSTER_BITS;
/// Header extension that holds the backing file's format.
const EXT_BACKING_FORMAT: u32 = 0xe279_2aca;
/// Incompatible feature: guest data is in another file.
const EXTERNAL_DATA: u64 = 1 << 2;
const HEADER_LENGTH: u32 = 104;
/// Longest name of a backing file that the format allows.
const MAX_NAME: usize = 1023;

/// Writes an empty layer of `size` bytes (rounded up to 512) over `backing`, whose format is pinned.
///
/// Layout in clusters of 64 KiB: header, refcount table, refcount block, L1 table. Takes one write per
/// cluster and no tool.
pub fn write_overlay(out: &mut impl Write, backing: &Path, format: &str, size: u64) -> io::Result<()> {
    write(out, backing.as_os_str().as_encoded_bytes(), format, size)
}

/// The same over nothing.
pub fn write_empty(out: &mut impl Write, size: u64) -> io::Result<()> {
    write(out, &[], "", size)
}

fn write(out: &mut impl Write, name: &[u8], format: &str, size: u64) -> io::Result<()> {
    if name.len() > MAX_NAME || format.len() > 16 {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "backing file's name is too long",
        ));
    }
    let size = size.next_multiple_of(512);
    // An L1 entry covers one L2 table (8,192 entries) of clusters: 512 MiB.
    let l1_entries = size.div_ceil(CLUSTER * CLUSTER / 8).max(1);
    let l1_clusters = (l1_entries * 8).div_ceil(CLUSTER);
    let clusters = 3 + l1_clusters;
    // One refcount block (16-bit counts) covers 32,768 clusters; 16 TiB and more would need a second.
    if clusters > CLUSTER / 2 || l1_entries > u64::from(u32::MAX) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "disk is too large"));
    }
    let format_padded = format.len().next_multiple_of(8);
    let extension = if name.is_empty() { 0 } else { 8 + format_padded };
    let name_offset = HEADER_LENGTH as usize + extension + 8;

    let mut h = Vec::with_capacity(CLUSTER as usize);
    let u32be = |h: &mut Vec<u8>, v: u32| h.extend_from_slice(&v.to_be_bytes());
    let u64be = |h: &mut Vec<u8>, v: u64| h.extend_from_slice(&v.to_be_bytes());
    u32be(&mut h, MAGIC);
    u32be(&mut h, 3);
    u64be(&mut h, if name.is_empty() { 0 } else { name_offset as u64 });
    u32be(&mut h, name.len() as u32);
    u32be(&mut h, CLUSTER_BITS);
    u64be(&mut h, size);
    u32be(&mut h, 0); // no encryption
    u32be(&mut h, l1_entries as u32);
    u64be(&mut h, 3 * CLUSTER); // L1 table
    u64be(&mut h, CLUSTER); // refcount table
    u32be(&mut h, 1); // clusters of it
    u32be(&mut h, 0); // no snapshots
    u64be(&mut h, 0);
    u64be(&mut h, 0); // incompatible features
    u64be(&mut h, 0); // compatible features
    u64be(&mut h, 0); // autoclear features
    u32be(&mut h, 4); // refcounts of 1 << 4 bits
    u32be(&mut h, HEADER_LENGTH);
    if !name.is_empty() {
        u32be(&mut h, EXT_BACKING_FORMAT);
        u32be(&mut h, format.len() as u32);
        h.extend_from_slice(format.as_bytes());
        h.resize(HEADER_LENGTH as usize + extension, 0);
    }
    u64be(&mut h, 0); // end of extensions
    h.extend_from_slice(name);
    h.resize(CLUSTER as usize, 0);
    out.write_all(&h)?;

    let mut cluster = vec![0_u8; CLUSTER as usize];
    cluster[..8].copy_from_slice(&(2 * CLUSTER).to_be_bytes());
    out.write_all(&cluster)?;

    cluster.fill(0);
    for count in cluster.chunks_exact_mut(2).take(clusters as usize) {
        count.copy_from_slice(&1_u16.to_be_bytes());
    }
    out.write_all(&cluster)?;

    cluster.fill(0);
    for _ in 0..l1_clusters {
        out.write_all(&cluster)?;
    }
    Ok(())
}

/// What the header of an image says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub version: u32,
    /// Bytes of the disk inside.
    pub virtual_size: u64,
}

/// Reads a header and refuses what would make a tool open another file or ask for a key: backing files,
/// external data files, encryption, snapshots. The error says what it was.
pub fn check_image(input: &mut impl Read) -> Result<Header, String> {
    let mut h = [0_u8; 104];
    let mut have = 0;
    while have < h.len() {
        match input.read(h.get_mut(have..).unwrap_or_default()) {
            Ok(0) => break,
            Ok(n) => have += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e.to_string()),
        }
    }
    let u32be = |at: usize| {
        h.get(at..at + 4)
            .and_then(|b| b.try_into().ok())
            .map_or(0, u32::from_be_bytes)
    };
    let u64be = |at: usize| {
        h.get(at..at + 8)
            .and_then(|b| b.try_into().ok())
            .map_or(0, u64::from_be_bytes)
    };
    if have < 72 || u32be(0) != MAGIC {
        return Err("it is not qcow2".into());
    }
    let version = u32be(4);
    if !(2..=3).contains(&version) || (version == 3 && have < 104) {
        return Err(format!("qcow2 version {version} is not supported"));
    }
    if u64be(8) != 0 {
        return Err("it refers to a backing file".into());
    }
    if !(9..=21).contains(&u32be(20)) {
        return Err("its cluster size is out of range".into());
    }
    if u32be(32) != 0 {
        return Err("it is encrypted".into());
    }
    if u32be(60) != 0 {
        return Err("it contains snapshots".into());
    }
    if version == 3 && u64be(72) & EXTERNAL_DATA != 0 {
        return Err("it refers to an external data file".into());
    }
    Ok(Header {
        version,
        virtual_size: u64be(24),
    })
}
