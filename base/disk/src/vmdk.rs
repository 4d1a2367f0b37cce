//! vmdk (VMware's "Virtual Disk Format 1.1"): sparse extents with an embedded descriptor, and the
//! descriptor as a file of its own.
//!
//! A descriptor is text that may name other files. Only the two kinds that keep everything in one file
//! pass, and every line of the descriptor must be one that we know.

use super::refusal::{Refusal, RefusalKind, quoted};
use super::source::{Image, le16, le32, le64, part};
use super::{Details, InspectError, limits};

const SECTOR: u64 = 512;
const SPARSE: &[u8] = b"KDMV";
const COWD: &[u8] = b"COWD";
/// seSparse: magic and version of its constant header, little endian.
const SE_SPARSE: &[u8] = &[0xbe, 0xba, 0xfe, 0xca, 0, 0, 0, 0];
const GD_AT_END: u64 = u64::MAX;
const FLAG_REDUNDANT_GD: u32 = 1 << 1;
const FLAG_MARKERS: u32 = 1 << 17;
const MARKER_FOOTER: u32 = 3;

const ONE_FILE: &str = "Write one self-contained file: qemu-img convert -O qcow2 IN OUT.";

/// True for a sparse extent, an ESX extent or a descriptor text.
pub(super) fn is_vmdk(head: &[u8]) -> bool {
    head.starts_with(SPARSE) || head.starts_with(COWD) || head.starts_with(SE_SPARSE) || is_descriptor(head)
}

/// True when the text reads as a vmdk descriptor: comments and blank lines, then a `version=` line. QEMU
/// probes the same way, in the first 512 bytes only.
pub(super) fn is_descriptor(head: &[u8]) -> bool {
    if starts_with_ignore_case(head, b"# disk descriptorfile") {
        return true;
    }
    for line in head.split(|&b| b == b'\n') {
        let line = line.trim_ascii();
        if line.is_empty() || line.starts_with(b"#") {
            continue;
        }
        return starts_with_ignore_case(line, b"version=") && line.get(8).is_some_and(u8::is_ascii_digit);
    }
    false
}

fn starts_with_ignore_case(bytes: &[u8], prefix: &[u8]) -> bool {
    bytes
        .get(..prefix.len())
        .is_some_and(|b| b.eq_ignore_ascii_case(prefix))
}

pub(super) fn external_extents(what: &str) -> Refusal {
    Refusal::new(RefusalKind::ExternalData, format!("The vmdk {what}."), ONE_FILE)
}

struct SparseHeader {
    version: u32,
    flags: u32,
    capacity: u64,
    grain_sectors: u64,
    descriptor_at: u64,
    descriptor_len: u64,
    gtes: u32,
    redundant_gd_at: u64,
    gd_at: u64,
    overhead: u64,
    compression: u16,
}

impl SparseHeader {
    fn parse(b: &[u8]) -> Self {
        Self {
            version: le32(b, 4),
            flags: le32(b, 8),
            capacity: le64(b, 12),
            grain_sectors: le64(b, 20),
            descriptor_at: le64(b, 28),
            descriptor_len: le64(b, 36),
            gtes: le32(b, 44),
            redundant_gd_at: le64(b, 48),
            gd_at: le64(b, 56),
            overhead: le64(b, 64),
            compression: le16(b, 77),
        }
    }
}

pub(super) fn inspect(image: &mut Image<'_>) -> Result<(u64, Details), InspectError> {
    let head = image.head(limits::HEAD)?;
    if !head.starts_with(SPARSE) {
        return Err(if is_descriptor(&head) {
            external_extents("file is a descriptor without a disk: its contents are in other files")
        } else {
            Refusal::new(
                RefusalKind::SubformatRefused,
                "The vmdk image is an ESX extent (COWD or seSparse).",
                "Export the disk as monolithicSparse or streamOptimized.",
            )
        }
        .into());
    }
    let first = image.bytes("vmdk header", 0, SECTOR)?;
    let header = SparseHeader::parse(&first);
    check_descriptor_place(&header)?;
    let text = image.bytes(
        "vmdk descriptor",
        header.descriptor_at * SECTOR,
        header.descriptor_len * SECTOR,
    )?;
    let stream_optimized = check_descriptor(&text)?;
    let header = if header.gd_at == GD_AT_END {
        footer(image, &header)?
    } else {
        header
    };
    check_geometry(image, &header)?;
    check_grains(image, &header)?;
    let virtual_size = header.capacity.checked_mul(SECTOR).ok_or_else(|| {
        Refusal::too_large(
            "capacity of the vmdk image",
            header.capacity,
            limits::MAX_VIRTUAL_SIZE / SECTOR,
            "sectors",
        )
    })?;
    Ok((virtual_size, Details::Vmdk { stream_optimized }))
}

fn check_descriptor_place(header: &SparseHeader) -> Result<(), Refusal> {
    if !(1..=3).contains(&header.version) {
        return Err(Refusal::new(
            RefusalKind::SubformatRefused,
            format!(
                "The vmdk image has version {}; versions 1 to 3 are known.",
                header.version
            ),
            ONE_FILE,
        ));
    }
    // With a capacity of 0 QEMU takes the descriptor for the whole truth and opens what it names.
    if header.capacity == 0 {
        return Err(external_extents(
            "header gives a capacity of 0 and leaves the disk to its descriptor",
        ));
    }
    if header.descriptor_at == 0 || header.descriptor_len == 0 {
        return Err(external_extents(
            "extent has no descriptor of its own: it is a part of a split disk",
        ));
    }
    if header.descriptor_at != 1 {
        return Err(Refusal::corrupt(format!(
            "The descriptor of the vmdk image is at sector {}; all tools write it at sector 1.",
            header.descriptor_at
        )));
    }
    let max = limits::VMDK_MAX_DESCRIPTOR / SECTOR;
    if header.descriptor_len > max {
        return Err(Refusal::too_large(
            "descriptor of the vmdk image",
            header.descriptor_len,
            max,
            "sectors",
        ));
    }
    Ok(())
}

/// Reads a descriptor line by line; gives whether it is stream-optimized.
fn check_descriptor(text: &[u8]) -> Result<bool, Refusal> {
    // The text is padded with NUL to whole sectors; nothing but NUL may follow the first one, for a
    // reader that goes on behind it would see other lines than we do.
    let end = text.iter().position(|&b| b == 0).unwrap_or(text.len());
    let (text, padding) = text.split_at(end);
    if padding.iter().any(|&b| b != 0) {
        return Err(Refusal::corrupt(
            "The descriptor of the vmdk image hides bytes behind its end.",
        ));
    }
    if !text.is_ascii() {
        return Err(Refusal::corrupt("The descriptor of the vmdk image is not ASCII text."));
    }
    let text = text.to_ascii_lowercase();
    let mut create_type: Option<Vec<u8>> = None;
    let mut extents = 0_usize;
    for (number, line) in text.split(|&b| b == b'\n').enumerate() {
        if number >= limits::VMDK_MAX_LINES {
            return Err(Refusal::too_large(
                "descriptor of the vmdk image",
                number as u64 + 1,
                limits::VMDK_MAX_LINES as u64,
                "lines",
            ));
        }
        let line = line.trim_ascii();
        if line.is_empty() || line.starts_with(b"#") {
            // QEMU finds keys by searching the text, comments included.
            if contains(line, b"createtype") || contains(line, b"parentfilenamehint") {
                return Err(Refusal::corrupt(
                    "A comment in the vmdk descriptor holds a key that a reader may take up.",
                ));
            }
            continue;
        }
        if is_extent(line) {
            check_extent(line)?;
            extents += 1;
            continue;
        }
        let Some((key, value)) = key_value(line) else {
            return Err(Refusal::corrupt(format!(
                "Line {} of the vmdk descriptor is not understood: {}.",
                number + 1,
                quoted(line)
            )));
        };
        if contains(value, b"createtype=") || contains(value, b"parentfilenamehint=") {
            return Err(Refusal::corrupt(
                "A value in the vmdk descriptor holds a key that a reader may take up.",
            ));
        }
        match key {
            b"createtype" if create_type.is_some() => {
                return Err(Refusal::corrupt("The vmdk descriptor gives createType more than once."));
            }
            b"createtype" => create_type = Some(value.to_vec()),
            b"parentcid" if value != b"ffffffff" => return Err(has_parent(value)),
            b"parentfilenamehint" => return Err(has_parent(value)),
            _ => {}
        }
    }
    if extents != 1 {
        return Err(external_extents(&format!(
            "descriptor lists {extents} extents; a single file has one"
        )));
    }
    match create_type.as_deref() {
        Some(b"monolithicsparse") => Ok(false),
        Some(b"streamoptimized") => Ok(true),
        Some(other) => Err(Refusal::new(
            RefusalKind::SubformatRefused,
            format!(
                "The vmdk image has createType {}; monolithicSparse and streamOptimized are \
                 known.",
                quoted(other)
            ),
            ONE_FILE,
        )),
        None => Err(Refusal::corrupt("The vmdk descriptor has no createType.")),
    }
}

fn contains(text: &[u8], what: &[u8]) -> bool {
    text.windows(what.len()).any(|w| w == what)
}

fn has_parent(name: &[u8]) -> Refusal {
    Refusal::new(
        RefusalKind::BackingFile,
        format!("The vmdk image takes data from a parent ({}).", quoted(name)),
        "Consolidate its snapshots first, or: qemu-img convert -O qcow2 IN OUT.",
    )
}

/// `key = "value"`: the key is one word, quotes are optional.
fn key_value(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let eq = line.iter().position(|&b| b == b'=')?;
    let (key, value) = line.split_at(eq);
    let key = key.trim_ascii_end();
    let ok = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    if key.is_empty() || !key.iter().all(ok) {
        return None;
    }
    let value = value.get(1..).unwrap_or(&[]).trim_ascii();
    let value = value.strip_prefix(b"\"").unwrap_or(value);
    let value = value.strip_suffix(b"\"").unwrap_or(value);
    Some((key, value))
}

fn is_extent(line: &[u8]) -> bool {
    [&b"rw "[..], b"rdonly ", b"noaccess "]
        .iter()
        .any(|access| line.starts_with(access))
}

/// An extent line reads `access sectors type "name" [offset]`.
fn check_extent(line: &[u8]) -> Result<(), Refusal> {
    let name = line.split(|&b| b == b'"').nth(1).unwrap_or(&[]);
    // A name with a separator, a drive or a protocol would be opened as such by a reader.
    let points_away = name.iter().any(|b| matches!(b, b'/' | b'\\' | b':'))
        || line.iter().any(|b| matches!(b, b'/' | b'\\'))
        || name == b".."
        || name.is_empty();
    if points_away {
        return Err(external_extents(&format!(
            "descriptor points at a path: {}",
            quoted(line)
        )));
    }
    let kind = line
        .split(u8::is_ascii_whitespace)
        .filter(|w| !w.is_empty())
        .nth(2)
        .unwrap_or(&[]);
    if kind != b"sparse" {
        return Err(external_extents(&format!(
            "descriptor lists an extent of type {}, which is another file",
            quoted(kind)
        )));
    }
    Ok(())
}

/// The footer of a stream-optimized file: marker, header and end-of-stream in the last three sectors.
/// It takes precedence over the header, so it must agree with it.
fn footer(image: &mut Image<'_>, header: &SparseHeader) -> Result<SparseHeader, InspectError> {
    const LEN: u64 = 3 * SECTOR;
    let at = image.size().saturating_sub(LEN);
    let bytes = image.bytes("vmdk footer", at, LEN)?;
    let sector = usize::try_from(SECTOR).unwrap_or(512);
    let copy = part(&bytes, sector, sector);
    let end = part(&bytes, 2 * sector, sector);
    let marks_ok = le32(&bytes, 8) == 0
        && le32(&bytes, 12) == MARKER_FOOTER
        && copy.starts_with(SPARSE)
        && part(end, 0, 16).iter().all(|&b| b == 0);
    if !marks_ok {
        return Err(Refusal::out_of_file("vmdk footer", at, LEN, image.size()).into());
    }
    let footer = SparseHeader::parse(copy);
    let agrees = footer.version == header.version
        && footer.capacity == header.capacity
        && footer.descriptor_at == header.descriptor_at
        && footer.descriptor_len == header.descriptor_len
        && footer.gd_at != GD_AT_END;
    if !agrees {
        return Err(Refusal::corrupt("Header and footer of the vmdk image contradict.").into());
    }
    Ok(footer)
}

fn check_geometry(image: &Image<'_>, header: &SparseHeader) -> Result<(), Refusal> {
    let grain = header.grain_sectors;
    if grain == 0 || grain > limits::VMDK_MAX_GRAIN_SECTORS {
        return Err(Refusal::too_large(
            "grain of the vmdk image",
            grain,
            limits::VMDK_MAX_GRAIN_SECTORS,
            "sectors",
        ));
    }
    if header.gtes == 0 || header.gtes > limits::VMDK_MAX_GTES {
        return Err(Refusal::too_large(
            "grain table of the vmdk image",
            u64::from(header.gtes),
            u64::from(limits::VMDK_MAX_GTES),
            "entries",
        ));
    }
    if header.compression > 1 {
        return Err(Refusal::new(
            RefusalKind::UnknownFeature,
            format!(
                "The vmdk image uses compression {}, which is unknown.",
                header.compression
            ),
            ONE_FILE,
        ));
    }
    let entries = header.capacity.div_ceil(grain * u64::from(header.gtes));
    if entries > limits::VMDK_MAX_GRAIN_DIRECTORY {
        return Err(Refusal::too_large(
            "grain directory of the vmdk image",
            entries,
            limits::VMDK_MAX_GRAIN_DIRECTORY,
            "entries",
        ));
    }
    let in_file = |what, sector: u64| {
        let at = sector.saturating_mul(SECTOR);
        image.must_contain(what, at, entries * 4)
    };
    in_file("vmdk grain directory", header.gd_at)?;
    if header.flags & FLAG_REDUNDANT_GD != 0 && header.redundant_gd_at != 0 {
        in_file("vmdk redundant grain directory", header.redundant_gd_at)?;
    }
    image.must_contain("vmdk metadata", 0, header.overhead.saturating_mul(SECTOR))
}

/// What a reader of the grains needs; sectors of 512 bytes.
pub(super) struct Layout {
    pub grain_sectors: u64,
    pub gtes: u64,
    pub gd_at: u64,
    /// Grains are deflated and stand behind a marker.
    pub compressed: bool,
    pub markers: bool,
}

/// The layout of an image that [`inspect`] passed.
pub(super) fn layout(image: &mut Image<'_>) -> Result<Layout, InspectError> {
    let header = SparseHeader::parse(&image.bytes("vmdk header", 0, SECTOR)?);
    let header = if header.gd_at == GD_AT_END {
        footer(image, &header)?
    } else {
        header
    };
    check_geometry(image, &header)?;
    Ok(Layout {
        grain_sectors: header.grain_sectors,
        gtes: u64::from(header.gtes),
        gd_at: header.gd_at,
        compressed: header.compression == 1,
        markers: header.flags & FLAG_MARKERS != 0,
    })
}

/// Checks that the grain tables and the grains lie in the file, as far as [`limits::MAX_TABLE_WALK`]
/// allows to read.
fn check_grains(image: &mut Image<'_>, header: &SparseHeader) -> Result<(), InspectError> {
    let size = image.size();
    let table_len = u64::from(header.gtes) * 4;
    let directory_at = header.gd_at * SECTOR;
    let covered = header.grain_sectors * u64::from(header.gtes);
    let directory_len = header.capacity.div_ceil(covered) * 4;
    let mut left = limits::MAX_TABLE_WALK;
    let mut last = 0;
    let mut done = 0;
    while done < directory_len {
        let step = (directory_len - done).min(limits::WALK_STEP);
        let piece = image.bytes("vmdk grain directory", directory_at + done, step)?;
        for table in piece.chunks_exact(4).map(|e| le32(e, 0)) {
            if table == 0 || table == last {
                continue;
            }
            last = table;
            let Some(rest) = left.checked_sub(table_len) else {
                return Ok(());
            };
            left = rest;
            let table_at = u64::from(table) * SECTOR;
            let entries = image.bytes("vmdk grain table", table_at, table_len)?;
            for grain in entries.chunks_exact(4).map(|e| le32(e, 0)) {
                // 0 is not allocated and 1 reads as zeros.
                let at = u64::from(grain) * SECTOR;
                if grain > 1 && at >= size {
                    let len = header.grain_sectors * SECTOR;
                    return Err(Refusal::out_of_file("vmdk grain", at, len, size).into());
                }
            }
        }
        done += step;
    }
    Ok(())
}
