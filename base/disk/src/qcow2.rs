//! qcow2, versions 2 and 3 (QEMU's docs/interop/qcow2).

use super::refusal::{Refusal, RefusalKind, quoted};
use super::source::{Image, be16, be32, be64, part};
use super::{Details, InspectError, limits};

const DIRTY: u64 = 1 << 0;
const CORRUPT: u64 = 1 << 1;
const DATA_FILE: u64 = 1 << 2;
const COMPRESSION_TYPE: u64 = 1 << 3;
const EXTENDED_L2: u64 = 1 << 4;
const KNOWN_INCOMPATIBLE: u64 = DIRTY | CORRUPT | DATA_FILE | COMPRESSION_TYPE | EXTENDED_L2;
const AUTOCLEAR_DATA_FILE_RAW: u64 = 1 << 1;

const EXT_END: u32 = 0;
const EXT_CRYPTO: u32 = 0x0537_be77;
const EXT_BITMAPS: u32 = 0x2385_2875;
const EXT_DATA_FILE: u32 = 0x4441_5441;

/// Bytes of the header that [`Header::parse`] needs: 104, and the compression type behind them.
pub(super) const HEADER_LEN: usize = 112;

const FLATTEN: &str = "Flatten it first: qemu-img convert -O qcow2 IN OUT.";

/// The fixed part of the header, checked as far as that goes without the rest of the file.
#[derive(Debug)]
pub(super) struct Header {
    version: u32,
    cluster_bits: u32,
    virtual_size: u64,
    l1_entries: u64,
    l1_offset: u64,
    reftable_offset: u64,
    reftable_bytes: u64,
    snapshots: u32,
    snapshots_offset: u64,
    incompatible: u64,
    header_length: u64,
}

impl Header {
    fn cluster_size(&self) -> u64 {
        1 << self.cluster_bits
    }

    fn l2_entry_size(&self) -> u64 {
        if self.incompatible & EXTENDED_L2 == 0 { 8 } else { 16 }
    }

    /// Checks the header in `head` (at least [`HEADER_LEN`] bytes, or the whole of a shorter file).
    /// The streaming probe calls it on the first bytes; `inspect` calls it again on the complete file.
    pub fn parse(head: &[u8]) -> Result<Self, Refusal> {
        let header = Self::parse_layer(head)?;
        Self::refuse_backing_file(head)?;
        Ok(header)
    }

    /// The same for a layer: what it says of a backing file is not looked at.
    fn parse_layer(head: &[u8]) -> Result<Self, Refusal> {
        let len = head.len() as u64;
        if len < 72 {
            return Err(Refusal::out_of_file("qcow2 header", 0, 72, len));
        }
        let version = be32(head, 4);
        if !matches!(version, 2 | 3) {
            return Err(Refusal::new(
                RefusalKind::SubformatRefused,
                format!("The qcow2 image has version {version}; versions 2 and 3 are known."),
                "Write it again with: qemu-img convert -O qcow2 -o compat=1.1 IN OUT.",
            ));
        }
        if version == 3 && len < 104 {
            return Err(Refusal::out_of_file("qcow2 header", 0, 104, len));
        }
        let (incompatible, autoclear, refcount_order, header_length) = if version == 2 {
            (0, 0, 4, 72)
        } else {
            (be64(head, 72), be64(head, 88), be32(head, 96), be32(head, 100))
        };
        Self::refuse_features(incompatible, autoclear)?;
        let cluster_bits = be32(head, 20);
        if !limits::QCOW2_CLUSTER_BITS.contains(&cluster_bits) {
            return Err(Refusal::new(
                RefusalKind::TooLarge,
                format!("The qcow2 image has cluster_bits {cluster_bits}; 9 to 21 are possible."),
                "Write it again with: qemu-img convert -O qcow2 IN OUT.",
            ));
        }
        let header = Self {
            version,
            cluster_bits,
            virtual_size: be64(head, 24),
            l1_entries: u64::from(be32(head, 36)),
            l1_offset: be64(head, 40),
            reftable_offset: be64(head, 48),
            reftable_bytes: u64::from(be32(head, 56)) << cluster_bits,
            snapshots: be32(head, 60),
            snapshots_offset: be64(head, 64),
            incompatible,
            header_length: u64::from(header_length),
        };
        match be32(head, 32) {
            0 => {}
            method => {
                return Err(Refusal::new(
                    RefusalKind::Encrypted,
                    format!("The qcow2 image is encrypted (crypt_method {method})."),
                    "Upload the decrypted image: qemu-img convert with its secret writes one.",
                ));
            }
        }
        if refcount_order > 6 {
            return Err(Refusal::corrupt(format!(
                "The qcow2 image has refcount_order {refcount_order}; at most 6 is possible."
            )));
        }
        header.check_length(head)?;
        header.check_tables()?;
        Ok(header)
    }

    fn refuse_backing_file(head: &[u8]) -> Result<(), Refusal> {
        let offset = be64(head, 8);
        if offset == 0 {
            return Ok(());
        }
        let len = usize::try_from(be32(head, 16)).unwrap_or(0).min(1023);
        // The name is shown when it is at hand; a made-up offset shows nothing.
        let name = usize::try_from(offset).map(|at| part(head, at, len)).unwrap_or(&[]);
        let named = if name.is_empty() {
            String::new()
        } else {
            format!(" ({})", quoted(name))
        };
        Err(Refusal::new(
            RefusalKind::BackingFile,
            format!("The qcow2 image takes data from a backing file{named}."),
            FLATTEN,
        ))
    }

    fn refuse_features(incompatible: u64, autoclear: u64) -> Result<(), Refusal> {
        if incompatible & DATA_FILE != 0 || autoclear & AUTOCLEAR_DATA_FILE_RAW != 0 {
            return Err(external_data_file());
        }
        let unknown = incompatible & !KNOWN_INCOMPATIBLE;
        if unknown != 0 {
            return Err(Refusal::new(
                RefusalKind::UnknownFeature,
                format!(
                    "The qcow2 image has incompatible feature bit {} set, which is unknown.",
                    unknown.trailing_zeros()
                ),
                "Write it again without that feature: qemu-img convert -O qcow2 IN OUT.",
            ));
        }
        if incompatible & CORRUPT != 0 {
            return Err(Refusal::new(
                RefusalKind::Corrupt,
                "The qcow2 image is marked as corrupt.",
                "Repair it first: qemu-img check -r all FILE.",
            ));
        }
        Ok(())
    }

    fn check_length(&self, head: &[u8]) -> Result<(), Refusal> {
        if self.version == 3
            && (self.header_length < 104
                || !self.header_length.is_multiple_of(8)
                || self.header_length > self.cluster_size())
        {
            return Err(Refusal::corrupt(format!(
                "The qcow2 header gives its own length as {}; a multiple of 8 from 104 to the \
                 cluster size {} is possible.",
                self.header_length,
                self.cluster_size()
            )));
        }
        let compression = if self.header_length > 104 {
            part(head, 104, 1).first().copied().unwrap_or(0)
        } else {
            0
        };
        let declared = self.incompatible & COMPRESSION_TYPE != 0;
        match (declared, compression) {
            (false, 0) | (true, 1) => Ok(()),
            (true, n) if n > 1 => Err(Refusal::new(
                RefusalKind::UnknownFeature,
                format!("The qcow2 image uses compression type {n}, which is unknown."),
                "Write it again with: qemu-img convert -O qcow2 -o compression_type=zlib IN OUT.",
            )),
            _ => Err(Refusal::corrupt(
                "The compression type of the qcow2 image contradicts its feature bit.",
            )),
        }
    }

    fn check_tables(&self) -> Result<(), Refusal> {
        if self.virtual_size > limits::MAX_VIRTUAL_SIZE {
            return Err(Refusal::too_large(
                "virtual disk size",
                self.virtual_size,
                limits::MAX_VIRTUAL_SIZE,
                "bytes",
            ));
        }
        if self.incompatible & EXTENDED_L2 != 0 && self.cluster_bits < 14 {
            return Err(Refusal::corrupt(
                "The qcow2 image has extended L2 entries with clusters below 16 KiB.",
            ));
        }
        let l1_bytes = self.l1_entries * 8;
        if l1_bytes > limits::QCOW2_MAX_L1_BYTES {
            return Err(Refusal::too_large(
                "L1 table of the qcow2 image",
                l1_bytes,
                limits::QCOW2_MAX_L1_BYTES,
                "bytes",
            ));
        }
        let covered_by_one = self.cluster_size() * (self.cluster_size() / self.l2_entry_size());
        let needed = self.virtual_size.div_ceil(covered_by_one);
        if self.l1_entries < needed {
            return Err(Refusal::corrupt(format!(
                "The L1 table of the qcow2 image has {} entries; its virtual size of {} bytes \
                 needs {needed}.",
                self.l1_entries, self.virtual_size
            )));
        }
        if self.reftable_bytes > limits::QCOW2_MAX_REFTABLE_BYTES {
            return Err(Refusal::too_large(
                "refcount table of the qcow2 image",
                self.reftable_bytes,
                limits::QCOW2_MAX_REFTABLE_BYTES,
                "bytes",
            ));
        }
        if self.reftable_bytes == 0 {
            return Err(Refusal::corrupt("The qcow2 image has no refcount table."));
        }
        if self.snapshots > limits::QCOW2_MAX_SNAPSHOTS {
            return Err(Refusal::too_large(
                "number of snapshots in the qcow2 image",
                u64::from(self.snapshots),
                u64::from(limits::QCOW2_MAX_SNAPSHOTS),
                "snapshots",
            ));
        }
        if self.l1_entries > 0 {
            self.must_be_aligned("L1 table", self.l1_offset)?;
        }
        self.must_be_aligned("refcount table", self.reftable_offset)?;
        if self.snapshots > 0 {
            self.must_be_aligned("snapshot table", self.snapshots_offset)?;
        }
        Ok(())
    }

    fn must_be_aligned(&self, what: &str, offset: u64) -> Result<(), Refusal> {
        if offset != 0 && offset.is_multiple_of(self.cluster_size()) {
            Ok(())
        } else {
            Err(Refusal::corrupt(format!(
                "The {what} of the qcow2 image starts at byte {offset}, which is not the start of \
                 a cluster behind the header."
            )))
        }
    }
}

fn external_data_file() -> Refusal {
    Refusal::new(
        RefusalKind::ExternalData,
        "The qcow2 image keeps its contents in an external data file.",
        "Write one self-contained file: qemu-img convert -O qcow2 IN OUT.",
    )
}

pub(super) fn inspect(image: &mut Image<'_>) -> Result<(u64, Details), InspectError> {
    let head = image.head(1 << 16)?;
    Header::parse(&head)?;
    inspect_layer(image)
}

/// The same for a layer, whose backing file is known from elsewhere.
pub(super) fn inspect_layer(image: &mut Image<'_>) -> Result<(u64, Details), InspectError> {
    // One cluster holds the header, its extensions and a backing file's name; 2 MiB at most.
    let head = image.head(1 << 21)?;
    let header = Header::parse_layer(&head)?;
    check_extensions(image, &header, &head)?;
    must_touch(
        image,
        &header,
        "qcow2 refcount table",
        header.reftable_offset,
        header.reftable_bytes,
    )?;
    check_snapshots(image, &header)?;
    let l2_tables = check_l1(image, &header, "qcow2 L1 table", header.l1_offset, header.l1_entries)?;
    let all_tables_checked = check_l2(image, &header, &l2_tables)?;
    let details = Details::Qcow2 {
        version: header.version,
        cluster_size: header.cluster_size(),
        snapshots: header.snapshots,
        zstd: header.incompatible & COMPRESSION_TYPE != 0,
        extended_l2: header.incompatible & EXTENDED_L2 != 0,
        dirty: header.incompatible & DIRTY != 0,
        all_tables_checked,
    };
    Ok((header.virtual_size, details))
}

/// What a reader of the clusters needs.
pub(super) struct Layout {
    pub cluster_bits: u32,
    pub l1_at: u64,
    pub l1_entries: u64,
    /// Entries of 16 bytes, with subclusters.
    pub extended: bool,
    /// Bit 0 of an entry says that the cluster reads as zeros.
    pub zero_flag: bool,
    pub zstd: bool,
}

/// The layout of an image that [`inspect`] passed.
pub(super) fn layout(image: &mut Image<'_>) -> Result<Layout, InspectError> {
    let header = Header::parse_layer(&image.head(1 << 21)?)?;
    let extended = header.incompatible & EXTENDED_L2 != 0;
    Ok(Layout {
        cluster_bits: header.cluster_bits,
        l1_at: header.l1_offset,
        l1_entries: header.l1_entries,
        extended,
        zero_flag: header.version == 3 && !extended,
        zstd: header.incompatible & COMPRESSION_TYPE != 0,
    })
}

/// Refuses a structure that does not start in the file, or ends beyond the file's last cluster: QEMU
/// does not always write the last cluster in full.
fn must_touch(image: &Image<'_>, header: &Header, what: &str, offset: u64, len: u64) -> Result<(), Refusal> {
    let rounded = image.size().next_multiple_of(header.cluster_size());
    match offset.checked_add(len) {
        Some(end) if offset < image.size() && end <= rounded => Ok(()),
        _ => Err(Refusal::out_of_file(what, offset, len, image.size())),
    }
}

fn check_extensions(image: &Image<'_>, header: &Header, head: &[u8]) -> Result<(), Refusal> {
    let cluster = usize::try_from(header.cluster_size()).unwrap_or(usize::MAX);
    let area = part(head, 0, cluster);
    let mut at = usize::try_from(header.header_length).unwrap_or(usize::MAX);
    for _ in 0..limits::QCOW2_MAX_EXTENSIONS {
        // The area may end without an end mark when the cluster is full.
        if area.len().saturating_sub(at) < 8 {
            return Ok(());
        }
        let kind = be32(area, at);
        let len = usize::try_from(be32(area, at + 4)).unwrap_or(usize::MAX);
        if kind == EXT_END {
            return Ok(());
        }
        let data = part(area, at + 8, len);
        if data.len() < len {
            return Err(Refusal::out_of_file(
                "qcow2 header extension",
                at as u64,
                len as u64,
                area.len() as u64,
            ));
        }
        match kind {
            // Without the feature bit the name has no effect today; an honest image has neither.
            EXT_DATA_FILE => return Err(external_data_file()),
            EXT_CRYPTO => {
                return Err(Refusal::corrupt(
                    "The qcow2 image has an encryption header but says that it is not encrypted.",
                ));
            }
            EXT_BITMAPS => check_bitmaps(image, data)?,
            _ => {}
        }
        at = at.saturating_add(8).saturating_add(len.next_multiple_of(8));
    }
    Err(Refusal::too_large(
        "number of header extensions in the qcow2 image",
        limits::QCOW2_MAX_EXTENSIONS as u64 + 1,
        limits::QCOW2_MAX_EXTENSIONS as u64,
        "extensions",
    ))
}

fn check_bitmaps(image: &Image<'_>, data: &[u8]) -> Result<(), Refusal> {
    let count = be32(data, 0);
    if count > limits::QCOW2_MAX_BITMAPS {
        return Err(Refusal::too_large(
            "number of dirty bitmaps in the qcow2 image",
            u64::from(count),
            u64::from(limits::QCOW2_MAX_BITMAPS),
            "bitmaps",
        ));
    }
    image.must_contain("qcow2 bitmap directory", be64(data, 16), be64(data, 8))
}

fn check_snapshots(image: &mut Image<'_>, header: &Header) -> Result<(), InspectError> {
    const FIXED: u64 = 40;
    let mut at = header.snapshots_offset;
    let end_of_table = at.saturating_add(limits::QCOW2_MAX_SNAPSHOT_TABLE_BYTES);
    for index in 0..header.snapshots {
        let entry = image.bytes("qcow2 snapshot table", at, FIXED)?;
        let l1_offset = be64(&entry, 0);
        let l1_entries = u64::from(be32(&entry, 8));
        let extra = be32(&entry, 36);
        let l1_bytes = l1_entries * 8;
        if l1_bytes > limits::QCOW2_MAX_L1_BYTES {
            return Err(Refusal::too_large(
                &format!("L1 table of snapshot {index} of the qcow2 image"),
                l1_bytes,
                limits::QCOW2_MAX_L1_BYTES,
                "bytes",
            )
            .into());
        }
        if extra > limits::QCOW2_MAX_SNAPSHOT_EXTRA {
            return Err(Refusal::too_large(
                &format!("extra data of snapshot {index} of the qcow2 image"),
                u64::from(extra),
                u64::from(limits::QCOW2_MAX_SNAPSHOT_EXTRA),
                "bytes",
            )
            .into());
        }
        if l1_entries > 0 {
            header.must_be_aligned("snapshot's L1 table", l1_offset)?;
            image.must_contain("qcow2 snapshot's L1 table", l1_offset, l1_bytes)?;
        }
        let len = FIXED + u64::from(extra) + u64::from(be16(&entry, 12)) + u64::from(be16(&entry, 14));
        image.must_contain("qcow2 snapshot table", at, len)?;
        at += len.next_multiple_of(8);
        if at > end_of_table {
            return Err(Refusal::too_large(
                "snapshot table of the qcow2 image",
                at - header.snapshots_offset,
                limits::QCOW2_MAX_SNAPSHOT_TABLE_BYTES,
                "bytes",
            )
            .into());
        }
    }
    Ok(())
}

/// Checks the entries of an L1 table; gives the distinct L2 tables that it names. There cannot be more
/// of these than the file has clusters.
fn check_l1(
    image: &mut Image<'_>,
    header: &Header,
    what: &str,
    offset: u64,
    entries: u64,
) -> Result<Vec<u64>, InspectError> {
    const RESERVED: u64 = 0x7f00_0000_0000_01ff;
    const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
    let size = image.size();
    let cluster = header.cluster_size();
    let mut tables = Vec::new();
    image.walk(what, offset, entries * 8, |at, piece| {
        for (i, entry) in piece.chunks_exact(8).enumerate() {
            let entry = be64(entry, 0);
            if entry == 0 {
                continue;
            }
            let table = entry & OFFSET;
            if entry & RESERVED != 0 || !table.is_multiple_of(cluster) {
                return Err(Refusal::corrupt(format!(
                    "Entry {} of the {what} is {entry:#018x}: reserved bits are set or the table \
                     is not aligned.",
                    at / 8 + i as u64
                )));
            }
            if table >= size {
                return Err(Refusal::out_of_file("qcow2 L2 table", table, cluster, size));
            }
            if table != 0 {
                tables.push(table);
            }
        }
        Ok(())
    })?;
    // Entries may share a table (a hostile image names one table four million times).
    tables.sort_unstable();
    tables.dedup();
    Ok(tables)
}

/// Checks that the clusters named by the L2 tables start in the file. Gives false when there were more
/// tables than [`limits::MAX_TABLE_WALK`] allows to read.
fn check_l2(image: &mut Image<'_>, header: &Header, tables: &[u64]) -> Result<bool, InspectError> {
    let size = image.size();
    let cluster = header.cluster_size();
    let step = usize::try_from(header.l2_entry_size()).unwrap_or(8);
    let extended = step == 16;
    let zero_flag = header.version == 3 && !extended;
    let mut left = limits::MAX_TABLE_WALK;
    for &table in tables {
        let Some(rest) = left.checked_sub(cluster) else {
            return Ok(false);
        };
        left = rest;
        image.walk("qcow2 L2 table", table, cluster.min(size - table), |_, piece| {
            for entry in piece.chunks_exact(step) {
                check_l2_entry(be64(entry, 0), header, zero_flag, size)?;
            }
            Ok(())
        })?;
    }
    Ok(true)
}

fn check_l2_entry(entry: u64, header: &Header, zero_flag: bool, size: u64) -> Result<(), Refusal> {
    const COMPRESSED: u64 = 1 << 62;
    const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
    const RESERVED: u64 = 0x3f00_0000_0000_01fe;
    let cluster = header.cluster_size();
    if entry & COMPRESSED != 0 {
        // The width of the offset depends on the cluster size (62 - (cluster_bits - 8) bits).
        let bits = 62 - (header.cluster_bits - 8);
        let offset = entry & ((1 << bits) - 1);
        return if offset < size {
            Ok(())
        } else {
            Err(Refusal::out_of_file("qcow2 compressed cluster", offset, 1, size))
        };
    }
    let offset = entry & OFFSET;
    if entry & RESERVED != 0 || !offset.is_multiple_of(cluster) {
        return Err(Refusal::corrupt(format!(
            "An L2 entry of the qcow2 image is {entry:#018x}: reserved bits are set or the \
             cluster is not aligned."
        )));
    }
    // A cluster that reads as zeros may be reserved beyond the end of the file without harm.
    let reads_zero = zero_flag && entry & 1 != 0;
    if offset >= size && !reads_zero {
        return Err(Refusal::out_of_file("qcow2 data cluster", offset, cluster, size));
    }
    Ok(())
}
