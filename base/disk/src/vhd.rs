//! vhd, also vpc (Microsoft's "Virtual Hard Disk Image Format Specification"): a footer of 512 bytes at
//! the end; dynamic disks also have a copy of it at the start.

use std::io;

use super::refusal::{InspectError, Refusal, RefusalKind};
use super::source::{Image, be32, be64, part};
use super::{Details, limits};

const FOOTER: u64 = 512;
const COOKIE: &[u8] = b"conectix";
const DYNAMIC_COOKIE: &[u8] = b"cxsparse";
const FIXED: u32 = 2;
const DYNAMIC: u32 = 3;
const DIFFERENCING: u32 = 4;

/// True when the last 512 (or, from old tools, 511) bytes are a footer.
pub(super) fn has_footer(image: &mut Image<'_>) -> io::Result<bool> {
    Ok(footer_at_end(image)?.is_some())
}

fn footer_at_end(image: &mut Image<'_>) -> io::Result<Option<Vec<u8>>> {
    for len in [FOOTER, FOOTER - 1] {
        let Some(at) = image.size().checked_sub(len) else {
            continue;
        };
        match image.bytes("vhd footer", at, len) {
            Ok(mut b) if b.starts_with(COOKIE) => {
                b.resize(512, 0);
                return Ok(Some(b));
            }
            Ok(_) | Err(InspectError::Refused(_)) => {}
            Err(InspectError::Io(e)) => return Err(e),
        }
    }
    Ok(None)
}

/// Ones' complement of the sum of all bytes, the checksum itself left out.
pub(super) fn checksum(bytes: &[u8], field: usize) -> u32 {
    !bytes
        .iter()
        .enumerate()
        .filter(|(i, _)| !(field..field + 4).contains(i))
        .fold(0_u32, |sum, (_, &b)| sum.wrapping_add(u32::from(b)))
}

pub(super) fn inspect(image: &mut Image<'_>) -> Result<(u64, Details), InspectError> {
    let start = image.head(512)?;
    let end = footer_at_end(image)?;
    let at_start = start.starts_with(COOKIE);
    let footer = match (at_start, end) {
        // QEMU reads the copy at the start first; what is at the end must be the same.
        (true, Some(end)) => {
            if part(&end, 0, 511) != part(&start, 0, 511) {
                return Err(Refusal::corrupt("The footer of the vhd image differs from its copy at the start.").into());
            }
            start
        }
        (true, None) => {
            let at = image.size().saturating_sub(FOOTER);
            return Err(Refusal::out_of_file("vhd footer", at, FOOTER, image.size()).into());
        }
        (false, Some(end)) => end,
        (false, None) => return Err(Refusal::corrupt("The vhd image has no footer.").into()),
    };
    if be32(&footer, 64) != checksum(&footer, 64) {
        return Err(Refusal::corrupt("The checksum of the vhd footer is wrong.").into());
    }
    let size = be64(&footer, 48);
    if size > limits::VHD_MAX_SECTORS * 512 {
        return Err(Refusal::too_large("virtual disk size", size, limits::VHD_MAX_SECTORS * 512, "bytes").into());
    }
    match be32(&footer, 60) {
        FIXED if at_start => Err(Refusal::corrupt("The vhd image is marked as fixed but starts with a footer.").into()),
        FIXED => {
            if size > image.size().saturating_sub(FOOTER - 1) {
                return Err(Refusal::out_of_file("vhd disk", 0, size, image.size()).into());
            }
            Ok((size, Details::Vhd { fixed: true }))
        }
        DYNAMIC => {
            check_dynamic(image, &footer, size)?;
            Ok((size, Details::Vhd { fixed: false }))
        }
        DIFFERENCING => Err(differencing().into()),
        other => Err(Refusal::new(
            RefusalKind::SubformatRefused,
            format!("The vhd image has disk type {other}; 2 (fixed) and 3 (dynamic) are known."),
            "Convert it: qemu-img convert -O qcow2 IN OUT.",
        )
        .into()),
    }
}

fn differencing() -> Refusal {
    Refusal::new(
        RefusalKind::BackingFile,
        "The vhd image is a differencing disk and takes data from a parent.",
        "Merge it into its parent first (Merge-VHD), or: qemu-img convert -O qcow2 IN OUT.",
    )
}

fn check_dynamic(image: &mut Image<'_>, footer: &[u8], size: u64) -> Result<(), InspectError> {
    const HEADER: u64 = 1024;
    let h = image.bytes("vhd dynamic header", be64(footer, 16), HEADER)?;
    if !h.starts_with(DYNAMIC_COOKIE) || be32(&h, 36) != checksum(&h, 36) {
        return Err(Refusal::corrupt("The dynamic disk header of the vhd image is damaged.").into());
    }
    // Parent's unique id, its name, and eight locators of 24 bytes.
    let has_parent = part(&h, 40, 16).iter().any(|&b| b != 0)
        || part(&h, 64, 512).iter().any(|&b| b != 0)
        || part(&h, 576, 8 * 24).iter().any(|&b| b != 0);
    if has_parent {
        return Err(differencing().into());
    }
    let entries = u64::from(be32(&h, 28));
    let block_size = be32(&h, 32);
    if !block_size.is_power_of_two() || block_size < 512 {
        return Err(Refusal::corrupt(format!("The vhd image has a block size of {block_size} bytes.")).into());
    }
    let most = (limits::VHD_MAX_SECTORS * 512).div_ceil(block_size.into());
    if entries > most {
        return Err(Refusal::too_large("block table of the vhd image", entries, most, "entries").into());
    }
    if entries * u64::from(block_size) < size {
        return Err(Refusal::corrupt(format!(
            "The vhd image has {entries} blocks of {block_size} bytes, too few for a disk of \
             {size} bytes."
        ))
        .into());
    }
    check_blocks(image, be64(&h, 16), entries, block_size.into())
}

/// What a reader of the blocks needs.
pub(super) struct Layout {
    pub table_at: u64,
    pub block_size: u64,
    /// Bytes of the sector bitmap before each block.
    pub bitmap: u64,
}

/// The layout of a dynamic image that [`inspect`] passed.
pub(super) fn layout(image: &mut Image<'_>) -> Result<Layout, InspectError> {
    let footer = image.head(512)?;
    let header = image.bytes("vhd dynamic header", be64(&footer, 16), 1024)?;
    let block_size = u64::from(be32(&header, 32)).max(512);
    Ok(Layout {
        table_at: be64(&header, 16),
        block_size,
        bitmap: (block_size / 512 / 8).next_multiple_of(512).max(512),
    })
}

fn check_blocks(image: &mut Image<'_>, table: u64, entries: u64, block_size: u64) -> Result<(), InspectError> {
    let file = image.size();
    // A sector bitmap stands before each block.
    let bitmap = (block_size / 512 / 8).next_multiple_of(512);
    image.walk("vhd block table", table, entries * 4, |_, piece| {
        for entry in piece.chunks_exact(4) {
            let sector = be32(entry, 0);
            if sector == u32::MAX {
                continue;
            }
            let at = u64::from(sector) * 512;
            if at + bitmap + block_size > file {
                return Err(Refusal::out_of_file("vhd block", at, bitmap + block_size, file));
            }
        }
        Ok(())
    })
}
