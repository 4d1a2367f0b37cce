//! vhdx ([MS-VHDX]): two headers, a region table, and metadata found through it.

use super::refusal::{InspectError, Refusal, RefusalKind};
use super::source::{Image, le16, le32, le64, part};
use super::{Details, limits};

const BLOCK: u64 = 64 << 10;
const MIB: u64 = 1 << 20;

/// GUIDs in the byte order in which they stand in the file.
pub(super) const REGION_BAT: [u8; 16] = guid(0x2dc2_7766, 0xf623, 0x4200, 0x9d64_115e_9bfd_4a08);
pub(super) const REGION_METADATA: [u8; 16] = guid(0x8b7c_a206, 0x4790, 0x4b9a, 0xb8fe_575f_050f_886e);
pub(super) const FILE_PARAMETERS: [u8; 16] = guid(0xcaa1_6737, 0xfa36, 0x4d43, 0xb3b6_33f0_aa44_e76b);
pub(super) const DISK_SIZE: [u8; 16] = guid(0x2fa5_4224, 0xcd1b, 0x4876, 0xb211_5dbe_d83b_f4b8);
pub(super) const PAGE_83: [u8; 16] = guid(0xbeca_12ab, 0xb2e6, 0x4523, 0x93ef_c309_e000_c746);
pub(super) const LOGICAL_SECTOR: [u8; 16] = guid(0x8141_bf1d, 0xa96f, 0x4709, 0xba47_f233_a8fa_ab5f);
pub(super) const PHYSICAL_SECTOR: [u8; 16] = guid(0xcda3_48c7, 0x445d, 0x4471, 0x9cc9_e988_5251_c556);
const PARENT_LOCATOR: [u8; 16] = guid(0xa8d3_5f2d, 0xb30b, 0x454d, 0xabf7_d3d8_4834_ab0c);

const fn guid(a: u32, b: u16, c: u16, d: u64) -> [u8; 16] {
    let (a, b, c, d) = (a.to_le_bytes(), b.to_le_bytes(), c.to_le_bytes(), d.to_be_bytes());
    [
        a[0], a[1], a[2], a[3], b[0], b[1], c[0], c[1], d[0], d[1], d[2], d[3], d[4], d[5], d[6], d[7],
    ]
}

/// CRC-32C with the four bytes of the checksum itself taken as zero.
pub(super) fn crc32c(bytes: &[u8], field: usize) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0_u32; 256];
        let mut i = 0;
        while i < 256 {
            let mut crc = i as u32;
            let mut bit = 0;
            while bit < 8 {
                crc = if crc & 1 == 1 {
                    (crc >> 1) ^ 0x82f6_3b78
                } else {
                    crc >> 1
                };
                bit += 1;
            }
            table[i] = crc;
            i += 1;
        }
        table
    };
    !bytes.iter().enumerate().fold(u32::MAX, |crc, (i, &b)| {
        let b = if (field..field + 4).contains(&i) { 0 } else { b };
        let [low, ..] = (crc ^ u32::from(b)).to_le_bytes();
        (crc >> 8) ^ TABLE.get(usize::from(low)).copied().unwrap_or(0)
    })
}

pub(super) fn inspect(image: &mut Image<'_>) -> Result<(u64, Details), InspectError> {
    check_header(image)?;
    let (metadata_at, metadata_len, bat) = regions(image)?;
    let items = metadata(image, metadata_at, metadata_len)?;
    let parameters = items.required(image, "file parameters", items.parameters, 8)?;
    let block_size = le32(&parameters, 0);
    if le32(&parameters, 4) & 2 != 0 || items.parent.is_some() {
        return Err(Refusal::new(
            RefusalKind::BackingFile,
            "The vhdx image is a differencing disk and takes data from a parent.",
            "Merge it into its parent first (Merge-VHD), or: qemu-img convert -O qcow2 IN OUT.",
        )
        .into());
    }
    if !block_size.is_power_of_two() || !(1 << 20..=256 << 20).contains(&block_size) {
        return Err(Refusal::corrupt(format!(
            "The vhdx image has a block size of {block_size} bytes; 1 to 256 MiB are possible."
        ))
        .into());
    }
    let sector = items.required(image, "logical sector size", items.logical_sector, 4)?;
    let logical_sector_size = le32(&sector, 0);
    if !matches!(logical_sector_size, 512 | 4096) {
        return Err(Refusal::corrupt(format!(
            "The vhdx image has sectors of {logical_sector_size} bytes; 512 and 4096 are possible."
        ))
        .into());
    }
    let size = items.required(image, "virtual disk size", items.disk_size, 8)?;
    let size = le64(&size, 0);
    if size > limits::MAX_VIRTUAL_SIZE {
        return Err(Refusal::too_large("virtual disk size", size, limits::MAX_VIRTUAL_SIZE, "bytes").into());
    }
    check_bat(image, bat, size, block_size, logical_sector_size)?;
    let details = Details::Vhdx {
        block_size,
        logical_sector_size,
    };
    Ok((size, details))
}

/// What a reader of the blocks needs.
pub(super) struct Layout {
    pub bat_at: u64,
    pub block_size: u64,
    /// Payload entries between two bitmap entries.
    pub per_chunk: u64,
}

/// The layout of an image that [`inspect`] passed.
pub(super) fn layout(image: &mut Image<'_>) -> Result<Layout, InspectError> {
    let (at, len, bat) = regions(image)?;
    let items = metadata(image, at, len)?;
    let parameters = items.required(image, "file parameters", items.parameters, 8)?;
    let sector = items.required(image, "logical sector size", items.logical_sector, 4)?;
    let block_size = u64::from(le32(&parameters, 0)).max(MIB);
    Ok(Layout {
        bat_at: bat.0,
        block_size,
        per_chunk: ((u64::from(le32(&sector, 0)) << 23) / block_size).max(1),
    })
}

/// [MS-VHDX] 2.2.2: of the two headers the valid one with the higher sequence number counts.
fn check_header(image: &mut Image<'_>) -> Result<(), InspectError> {
    let mut current: Option<Vec<u8>> = None;
    for n in [1, 2] {
        let h = image.bytes("vhdx header", n * BLOCK, 4096)?;
        if !h.starts_with(b"head") || le32(&h, 4) != crc32c(&h, 4) {
            continue;
        }
        if current.as_ref().is_none_or(|c| le64(c, 8) < le64(&h, 8)) {
            current = Some(h);
        }
    }
    let Some(h) = current else {
        return Err(Refusal::corrupt("Both headers of the vhdx image are damaged.").into());
    };
    let version = le16(&h, 66);
    if version != 1 {
        return Err(Refusal::new(
            RefusalKind::SubformatRefused,
            format!("The vhdx image has version {version}; version 1 is known."),
            "Convert it: qemu-img convert -O qcow2 IN OUT.",
        )
        .into());
    }
    if part(&h, 48, 16).iter().any(|&b| b != 0) {
        return Err(Refusal::new(
            RefusalKind::Corrupt,
            "The vhdx image was not closed cleanly: its log has to be replayed.",
            "Mount it once where it came from, or repair it: qemu-img check -r all FILE.",
        )
        .into());
    }
    Ok(())
}

type Region = (u64, u64);

/// [MS-VHDX] 2.2.3: gives the place of the metadata and of the block table.
fn regions(image: &mut Image<'_>) -> Result<(u64, u64, Region), InspectError> {
    let mut table = image.bytes("vhdx region table", 3 * BLOCK, BLOCK)?;
    if !table.starts_with(b"regi") || le32(&table, 4) != crc32c(&table, 4) {
        table = image.bytes("vhdx region table", 4 * BLOCK, BLOCK)?;
    }
    if !table.starts_with(b"regi") || le32(&table, 4) != crc32c(&table, 4) {
        return Err(Refusal::corrupt("Both region tables of the vhdx image are damaged.").into());
    }
    let count = entry_count("region table of the vhdx image", le32(&table, 8))?;
    let (mut metadata, mut bat) = (None, None);
    for entry in part(&table, 16, count * 32).chunks_exact(32) {
        let place = (le64(entry, 16), u64::from(le32(entry, 24)));
        let slot = match part(entry, 0, 16) {
            id if id == REGION_METADATA => &mut metadata,
            id if id == REGION_BAT => &mut bat,
            // Bit 0 says that a reader must know the region.
            _ if le32(entry, 28) & 1 != 0 => return Err(unknown("region").into()),
            _ => continue,
        };
        if slot.replace(place).is_some() {
            return Err(Refusal::corrupt("The vhdx image lists a region twice.").into());
        }
        if place.0 < MIB || !place.0.is_multiple_of(MIB) {
            return Err(Refusal::corrupt(format!(
                "A region of the vhdx image starts at byte {}, which is not a whole MiB behind \
                 the headers.",
                place.0
            ))
            .into());
        }
        image.must_contain("vhdx region", place.0, place.1)?;
    }
    match (metadata, bat) {
        (Some((at, len)), Some(bat)) => Ok((at, len, bat)),
        _ => Err(Refusal::corrupt("The vhdx image lacks its metadata or its block table.").into()),
    }
}

fn entry_count(what: &str, count: u32) -> Result<usize, Refusal> {
    if count > limits::VHDX_MAX_ENTRIES {
        return Err(Refusal::too_large(
            what,
            u64::from(count),
            u64::from(limits::VHDX_MAX_ENTRIES),
            "entries",
        ));
    }
    Ok(usize::try_from(count).unwrap_or(0))
}

fn unknown(what: &str) -> Refusal {
    Refusal::new(
        RefusalKind::UnknownFeature,
        format!("The vhdx image requires a {what} that is unknown."),
        "Convert it: qemu-img convert -O qcow2 IN OUT.",
    )
}

#[derive(Default)]
struct Items {
    base: u64,
    parameters: Option<Region>,
    disk_size: Option<Region>,
    logical_sector: Option<Region>,
    parent: Option<Region>,
}

impl Items {
    fn required(
        &self,
        image: &mut Image<'_>,
        what: &str,
        item: Option<Region>,
        len: u64,
    ) -> Result<Vec<u8>, InspectError> {
        match item {
            Some((offset, have)) if have >= len => {
                image.bytes("vhdx metadata item", self.base.saturating_add(offset), len)
            }
            _ => Err(Refusal::corrupt(format!("The vhdx image does not give its {what}.")).into()),
        }
    }
}

/// [MS-VHDX] 2.6: the table of metadata items, each relative to the region.
fn metadata(image: &mut Image<'_>, base: u64, len: u64) -> Result<Items, InspectError> {
    let table = image.bytes("vhdx metadata table", base, BLOCK)?;
    if !table.starts_with(b"metadata") {
        return Err(Refusal::corrupt("The metadata table of the vhdx image is damaged.").into());
    }
    let count = entry_count("metadata table of the vhdx image", u32::from(le16(&table, 10)))?;
    let mut items = Items {
        base,
        ..Items::default()
    };
    for entry in part(&table, 32, count * 32).chunks_exact(32) {
        let (offset, size) = (le32(entry, 16), le32(entry, 20));
        if size > limits::VHDX_MAX_ITEM {
            return Err(Refusal::too_large(
                "metadata item of the vhdx image",
                u64::from(size),
                u64::from(limits::VHDX_MAX_ITEM),
                "bytes",
            )
            .into());
        }
        if u64::from(offset) + u64::from(size) > len {
            return Err(Refusal::out_of_file(
                "vhdx metadata item",
                base.saturating_add(offset.into()),
                size.into(),
                image.size(),
            )
            .into());
        }
        let slot = match part(entry, 0, 16) {
            id if id == FILE_PARAMETERS => &mut items.parameters,
            id if id == DISK_SIZE => &mut items.disk_size,
            id if id == LOGICAL_SECTOR => &mut items.logical_sector,
            id if id == PARENT_LOCATOR => &mut items.parent,
            id if id == PAGE_83 || id == PHYSICAL_SECTOR => continue,
            // Bit 2 says that a reader must know the item.
            _ if le32(entry, 24) & 4 != 0 => return Err(unknown("metadata item").into()),
            _ => continue,
        };
        let place = (u64::from(offset), u64::from(size));
        if slot.replace(place).is_some() {
            return Err(Refusal::corrupt("The vhdx image lists a metadata item twice.").into());
        }
    }
    Ok(items)
}

/// [MS-VHDX] 2.5: payload entries with a bitmap entry after each chunk of them.
fn check_bat(
    image: &mut Image<'_>,
    (at, len): Region,
    size: u64,
    block_size: u32,
    sector: u32,
) -> Result<(), InspectError> {
    const FULLY_PRESENT: u64 = 6;
    let block = u64::from(block_size);
    let blocks = size.div_ceil(block);
    let per_chunk = (u64::from(sector) << 23) / block;
    let entries = blocks + blocks.saturating_sub(1) / per_chunk.max(1);
    if entries * 8 > len {
        return Err(Refusal::corrupt(format!(
            "The block table of the vhdx image has {len} bytes, too few for a disk of {size} bytes."
        ))
        .into());
    }
    let file = image.size();
    let stride = per_chunk.max(1) + 1;
    image.walk("vhdx block table", at, entries * 8, |done, piece| {
        for (i, entry) in piece.chunks_exact(8).enumerate() {
            let index = done / 8 + i as u64;
            let entry = le64(entry, 0);
            let is_bitmap = index % stride == stride - 1;
            // The upper 44 bits are the place in MiB.
            let place = (entry >> 20) * MIB;
            if !is_bitmap && entry & 7 == FULLY_PRESENT && place >= file {
                return Err(Refusal::out_of_file("vhdx block", place, block, file));
            }
        }
        Ok(())
    })
}
