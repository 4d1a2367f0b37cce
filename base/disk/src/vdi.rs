//! vdi (VirtualBox): a 512-byte header with a map of blocks.

use super::refusal::{Refusal, RefusalKind};
use super::source::{Image, le32, le64, part};
use super::{Details, InspectError, limits};

const VERSION_1_1: u32 = 0x0001_0001;
const DYNAMIC: u32 = 1;
const FIXED: u32 = 2;

pub(super) fn inspect(image: &mut Image<'_>) -> Result<(u64, Details), InspectError> {
    let h = image.bytes("vdi header", 0, 512)?;
    let version = le32(&h, 0x44);
    if version != VERSION_1_1 {
        return Err(Refusal::new(
            RefusalKind::SubformatRefused,
            format!(
                "The vdi image has version {}.{}; version 1.1 is known.",
                version >> 16,
                version & 0xffff
            ),
            "Clone the disk with a current VirtualBox.",
        )
        .into());
    }
    let image_type = le32(&h, 0x4c);
    let linked = [0x1a8_usize, 0x1b8]
        .iter()
        .any(|&at| part(&h, at, 16).iter().any(|&b| b != 0));
    if !matches!(image_type, DYNAMIC | FIXED) || linked {
        return Err(Refusal::new(
            RefusalKind::BackingFile,
            "The vdi image is a differencing or undo image and takes data from a parent.",
            "Clone the disk into one file: VBoxManage clonemedium disk IN OUT.",
        )
        .into());
    }
    let map_at = le32(&h, 0x154);
    let data_at = le32(&h, 0x158);
    let disk_size = le64(&h, 0x170);
    let block_size = le32(&h, 0x178);
    let blocks = le32(&h, 0x180);
    let allocated = le32(&h, 0x184);
    if !block_size.is_power_of_two() || !(512..=1 << 30).contains(&block_size) {
        return Err(Refusal::corrupt(format!("The vdi image has a block size of {block_size} bytes.")).into());
    }
    if le32(&h, 0x168) != 512 || !map_at.is_multiple_of(512) || !data_at.is_multiple_of(512) {
        return Err(Refusal::corrupt("The vdi image is not laid out in sectors of 512 bytes.").into());
    }
    if blocks > limits::VDI_MAX_BLOCKS {
        return Err(Refusal::too_large(
            "block map of the vdi image",
            u64::from(blocks),
            u64::from(limits::VDI_MAX_BLOCKS),
            "blocks",
        )
        .into());
    }
    if disk_size > u64::from(blocks) * u64::from(block_size) || allocated > blocks {
        return Err(Refusal::corrupt(format!(
            "The vdi image has {blocks} blocks of {block_size} bytes, too few for a disk of \
             {disk_size} bytes or for {allocated} allocated blocks."
        ))
        .into());
    }
    check_map(image, map_at.into(), data_at.into(), block_size.into(), blocks)?;
    let details = Details::Vdi {
        fixed: image_type == FIXED,
        block_size,
    };
    Ok((disk_size, details))
}

fn check_map(
    image: &mut Image<'_>,
    map_at: u64,
    data_at: u64,
    block_size: u64,
    blocks: u32,
) -> Result<(), InspectError> {
    /// From here on an entry means "not allocated" or "discarded".
    const NOT_ALLOCATED: u32 = 0xffff_fffe;
    let size = image.size();
    image.walk("vdi block map", map_at, u64::from(blocks) * 4, |_, piece| {
        for entry in piece.chunks_exact(4) {
            let entry = le32(entry, 0);
            if entry >= NOT_ALLOCATED {
                continue;
            }
            let at = data_at + u64::from(entry) * block_size;
            if entry >= blocks || at >= size {
                return Err(Refusal::out_of_file("vdi block", at, block_size, size));
            }
        }
        Ok(())
    })
}
