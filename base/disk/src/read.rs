//! Reads the disk inside an image that [`super::inspect`] passed: where the next bytes of the guest's disk are.
//!
//! Entries of tables are checked again when they are used: an inspection stops at
//! [`limits::MAX_TABLE_WALK`], and what lies beyond must not be trusted for it.

use super::refusal::{InspectError, Refusal, RefusalKind};
use super::source::{Image, be32, be64, le32, le64};
use super::{Details, DiskFormat, Inspection, limits, qcow2, vhd, vhdx, vmdk};

const SECTOR: u64 = 512;
/// The largest unit that is inflated at once: qcow2's largest cluster, and 32 times what vmdk tools write.
const MAX_INFLATED: u64 = 2 << 20;
/// Tables are read in pieces of this size.
const PAGE: u64 = 16 << 10;

/// What stands at a place of the disk.
pub(super) enum Extent {
    /// So many zeros.
    Zeros(u64),
    /// So many bytes, from here on in the file.
    File { at: u64, len: u64 },
    /// These bytes: they were compressed in the file.
    Inflated(Vec<u8>),
    /// So many bytes of the disk below this layer.
    Below(u64),
}

enum Layout {
    Plain,
    Vdi { map_at: u64, data_at: u64, block_size: u64 },
    Vhd(vhd::Layout),
    Vhdx(vhdx::Layout),
    Vmdk(vmdk::Layout),
    Qcow2(qcow2::Layout),
}

/// A disk.
pub(super) struct Disk<'i, 's> {
    image: &'i mut Image<'s>,
    size: u64,
    layout: Layout,
    /// What is not there is in the disk below.
    layer: bool,
    /// The piece of a table that was read last, and where it stands.
    page: (u64, Vec<u8>),
}

impl<'i, 's> Disk<'i, 's> {
    /// Opens what `inspection` was made of.
    pub fn open(image: &'i mut Image<'s>, inspection: &Inspection) -> Result<Self, InspectError> {
        let layout = match (&inspection.format, &inspection.details) {
            (DiskFormat::Vdi, Details::Vdi { block_size, .. }) => {
                let h = image.bytes("vdi header", 0, 512)?;
                Layout::Vdi {
                    map_at: le32(&h, 0x154).into(),
                    data_at: le32(&h, 0x158).into(),
                    block_size: u64::from(*block_size).max(SECTOR),
                }
            }
            (DiskFormat::Vhd, Details::Vhd { fixed: false }) => Layout::Vhd(vhd::layout(image)?),
            (DiskFormat::Vhdx, _) => Layout::Vhdx(vhdx::layout(image)?),
            (DiskFormat::Vmdk, _) => Layout::Vmdk(vmdk::layout(image)?),
            (DiskFormat::Qcow2, _) => Layout::Qcow2(qcow2::layout(image)?),
            _ => Layout::Plain,
        };
        Ok(Self {
            image,
            size: inspection.virtual_size,
            layout,
            layer: false,
            page: (0, Vec::new()),
        })
    }

    /// Opens a layer over another disk.
    pub fn open_layer(image: &'i mut Image<'s>, inspection: &Inspection) -> Result<Self, InspectError> {
        let disk = Self::open(image, inspection)?;
        Ok(Self { layer: true, ..disk })
    }

    fn nothing(&self, len: u64) -> Extent {
        if self.layer {
            Extent::Below(len)
        } else {
            Extent::Zeros(len)
        }
    }

    /// What stands at `at`, which is below the disk's size; the extent ends with the disk at the latest.
    pub fn extent(&mut self, at: u64) -> Result<Extent, InspectError> {
        let left = self.size.saturating_sub(at);
        match self.layout {
            Layout::Plain => self.in_file(at, left),
            Layout::Vdi {
                map_at,
                data_at,
                block_size,
            } => {
                let (block, inside) = (at / block_size, at % block_size);
                let len = (block_size - inside).min(left);
                let entry = le32(&self.entry("vdi block map", map_at + block * 4, 4)?, 0);
                if entry >= 0xffff_fffe {
                    return Ok(Extent::Zeros(len));
                }
                self.in_file(data_at + u64::from(entry) * block_size + inside, len)
            }
            Layout::Vhd(ref l) => {
                let (block, inside) = (at / l.block_size, at % l.block_size);
                let (len, bitmap) = ((l.block_size - inside).min(left), l.bitmap);
                let place = l.table_at.saturating_add(block * 4);
                let sector = be32(&self.entry("vhd block table", place, 4)?, 0);
                if sector == u32::MAX {
                    return Ok(Extent::Zeros(len));
                }
                self.in_file(u64::from(sector) * SECTOR + bitmap + inside, len)
            }
            Layout::Vhdx(ref l) => {
                let (block, inside) = (at / l.block_size, at % l.block_size);
                let len = (l.block_size - inside).min(left);
                let place = l.bat_at.saturating_add((block + block / l.per_chunk) * 8);
                let entry = le64(&self.entry("vhdx block table", place, 8)?, 0);
                match entry & 7 {
                    6 => self.in_file((entry >> 20 << 20).saturating_add(inside), len),
                    7 => Err(Refusal::new(
                        RefusalKind::BackingFile,
                        "A block of the vhdx image is there in parts only: it takes data from a parent.",
                        "Merge it into its parent first (Merge-VHD).",
                    )
                    .into()),
                    _ => Ok(Extent::Zeros(len)),
                }
            }
            Layout::Vmdk(_) => self.vmdk(at, left),
            Layout::Qcow2(_) => self.qcow2(at, left),
        }
    }

    /// Bytes of the file, which must all be there; the last block of an image may be shorter.
    fn in_file(&mut self, at: u64, len: u64) -> Result<Extent, InspectError> {
        self.image.must_contain("data block of the image", at, len.min(1))?;
        let there = self.image.size().saturating_sub(at);
        if there == 0 || len == 0 {
            return Ok(Extent::Zeros(len));
        }
        Ok(Extent::File {
            at,
            len: len.min(there),
        })
    }

    /// Bytes of the file, into `buf`.
    pub fn read(&mut self, at: u64, len: u64) -> Result<Vec<u8>, InspectError> {
        self.image.bytes("data block of the image", at, len)
    }

    /// An entry of a table. Tables are walked in order, so the piece that was read last usually has it.
    fn entry(&mut self, what: &str, at: u64, len: u64) -> Result<Vec<u8>, InspectError> {
        self.image.must_contain(what, at, len)?;
        let start = at - at % len;
        let start = start - start % PAGE;
        let end = at + len;
        let (held, ref bytes) = self.page;
        if bytes.is_empty() || held != start || end > held + bytes.len() as u64 {
            let want = (end - start).max(PAGE).min(self.image.size() - start);
            self.page = (start, self.image.bytes(what, start, want)?);
        }
        let from = usize::try_from(at - start).unwrap_or(usize::MAX);
        let to = from.saturating_add(usize::try_from(len).unwrap_or(0));
        Ok(self.page.1.get(from..to).unwrap_or(&[]).to_vec())
    }

    fn vmdk(&mut self, at: u64, left: u64) -> Result<Extent, InspectError> {
        let Layout::Vmdk(ref l) = self.layout else {
            return Ok(Extent::Zeros(left));
        };
        let grain_size = l.grain_sectors * SECTOR;
        let (compressed, markers, gtes, gd_at) = (l.compressed, l.markers, l.gtes, l.gd_at * SECTOR);
        let (grain, inside) = (at / grain_size, at % grain_size);
        let len = (grain_size - inside).min(left);
        let table = le32(
            &self.entry("vmdk grain directory", gd_at.saturating_add(grain / gtes * 4), 4)?,
            0,
        );
        if table == 0 {
            // A whole table's worth of nothing.
            let covered = grain_size * gtes;
            return Ok(Extent::Zeros((covered - at % covered).min(left)));
        }
        let place = u64::from(table) * SECTOR + grain % gtes * 4;
        let sector = u64::from(le32(&self.entry("vmdk grain table", place, 4)?, 0));
        if sector < 2 {
            return Ok(Extent::Zeros(len));
        }
        let place = sector * SECTOR;
        if !compressed {
            return self.in_file(place + inside, len);
        }
        if grain_size > MAX_INFLATED {
            return Err(
                Refusal::too_large("compressed grain of the vmdk image", grain_size, MAX_INFLATED, "bytes").into(),
            );
        }
        let (data_at, data_len) = if markers {
            let marker = self.image.bytes("vmdk grain marker", place, 12)?;
            if le64(&marker, 0) != grain * (grain_size / SECTOR) {
                return Err(Refusal::corrupt(format!(
                    "A grain of the vmdk image is marked as sector {} and stands in the table for sector {}.",
                    le64(&marker, 0),
                    grain * (grain_size / SECTOR)
                ))
                .into());
            }
            (place + 12, u64::from(le32(&marker, 8)))
        } else {
            (place, grain_size.min(self.image.size().saturating_sub(place)))
        };
        let packed = self.image.bytes("vmdk grain", data_at, data_len)?;
        let most = usize::try_from(grain_size).unwrap_or(0);
        let plain = miniz_oxide::inflate::decompress_to_vec_zlib_with_limit(&packed, most)
            .map_err(|_| Refusal::corrupt("A compressed grain of the vmdk image is damaged."))?;
        Ok(Extent::Inflated(cut(plain, inside, len)))
    }

    fn qcow2(&mut self, at: u64, left: u64) -> Result<Extent, InspectError> {
        const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
        const COMPRESSED: u64 = 1 << 62;
        let Layout::Qcow2(ref l) = self.layout else {
            return Ok(Extent::Zeros(left));
        };
        let (bits, extended, zero_flag, zstd) = (l.cluster_bits, l.extended, l.zero_flag, l.zstd);
        let (cluster, width) = (1_u64 << bits, if extended { 16 } else { 8 });
        let (index, inside) = (at / cluster, at % cluster);
        let per_table = cluster / width;
        let (l1_at, l1_entries) = (l.l1_at, l.l1_entries);
        if index / per_table >= l1_entries {
            return Err(Refusal::corrupt("The L1 table of the qcow2 image is too short for its disk.").into());
        }
        let l1 = be64(&self.entry("qcow2 L1 table", l1_at + index / per_table * 8, 8)?, 0);
        let covered = cluster * per_table;
        if l1 & OFFSET == 0 {
            return Ok(self.nothing((covered - at % covered).min(left)));
        }
        let len = (cluster - inside).min(left);
        let place = (l1 & OFFSET) + index % per_table * width;
        let entry = self.entry("qcow2 L2 table", place, width)?;
        let l2 = be64(&entry, 0);
        if l2 & COMPRESSED != 0 {
            if zstd {
                return Err(Refusal::new(
                    RefusalKind::SubformatRefused,
                    "The qcow2 image is compressed with zstd, which is not converted here.",
                    "Write it again with: qemu-img convert -c -O qcow2 -o compression_type=zlib IN OUT.",
                )
                .into());
            }
            let offset_bits = 62 - (bits - 8);
            let offset = l2 & ((1 << offset_bits) - 1);
            let sectors = ((l2 & (COMPRESSED - 1)) >> offset_bits) + 1;
            let end = (offset - offset % SECTOR + sectors * SECTOR).min(self.image.size());
            let packed = self
                .image
                .bytes("qcow2 compressed cluster", offset, end.saturating_sub(offset))?;
            let plain = inflate_cluster(&packed, usize::try_from(cluster).unwrap_or(0))?;
            return Ok(Extent::Inflated(cut(plain, inside, len)));
        }
        let data = l2 & OFFSET;
        if extended {
            let part = cluster / 32;
            let (n, within) = (inside / part, inside % part);
            let len = (part - within).min(left);
            let bitmap = be64(&entry, 8);
            let (allocated, zero) = (bitmap >> n & 1 != 0, bitmap >> (32 + n) & 1 != 0);
            if zero {
                return Ok(Extent::Zeros(len));
            }
            if !allocated || data == 0 {
                return Ok(self.nothing(len));
            }
            return self.in_file(data + inside, len);
        }
        if zero_flag && l2 & 1 != 0 {
            return Ok(Extent::Zeros(len));
        }
        if data == 0 {
            return Ok(self.nothing(len));
        }
        self.in_file(data + inside, len)
    }
}

/// A cluster is a raw deflate stream, followed by whatever filled the last sector.
fn inflate_cluster(packed: &[u8], cluster: usize) -> Result<Vec<u8>, Refusal> {
    use miniz_oxide::inflate::TINFLStatus;
    use miniz_oxide::inflate::core::{DecompressorOxide, decompress, inflate_flags};
    let mut out = vec![0; cluster];
    let mut state = DecompressorOxide::new();
    let flags = inflate_flags::TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
    let (status, _, written) = decompress(&mut state, packed, &mut out, 0, flags);
    let whole = written == cluster && matches!(status, TINFLStatus::Done | TINFLStatus::HasMoreOutput);
    if whole {
        Ok(out)
    } else {
        Err(Refusal::corrupt("A compressed cluster of the qcow2 image is damaged."))
    }
}

/// `len` bytes of a unit, from `inside` on; what is missing at its end reads as zeros.
fn cut(mut unit: Vec<u8>, inside: u64, len: u64) -> Vec<u8> {
    let (from, len) = (usize::try_from(inside).unwrap_or(0), usize::try_from(len).unwrap_or(0));
    unit.resize(unit.len().max(from.saturating_add(len)), 0);
    unit.drain(..from);
    unit.truncate(len);
    unit
}

/// Bytes of a compressed image may be many more than those of the file; of all others they may not.
pub(super) fn inflates(inspection: &Inspection) -> bool {
    match inspection.details {
        Details::Vmdk { stream_optimized } => stream_optimized,
        Details::Qcow2 { .. } => true,
        _ => false,
    }
}

/// Kept beside [`limits::MAX_READ`]: what one step of a conversion reads.
pub(super) const STEP: u64 = limits::MAX_READ / 4;
