//! ISO 9660 (ECMA-119): a volume descriptor in sector 16, sectors of 2048 bytes.

use super::refusal::Refusal;
use super::source::{Image, be16, be32, le16, le32, part};
use super::{Details, InspectError, limits, raw};

const SECTOR: u64 = 2048;
const DESCRIPTOR_AT: usize = 16 * 2048;
const ID: &[u8] = b"CD001";

/// True when any volume descriptor stands in sector 16; a boot record may come before the primary one.
pub(super) fn is_iso(head: &[u8]) -> bool {
    part(head, DESCRIPTOR_AT + 1, ID.len()) == ID
}

pub(super) fn inspect(image: &mut Image<'_>) -> Result<(u64, Details), InspectError> {
    // ECMA-119 8.4: the descriptors follow each other and end with type 255. The primary one (type 1)
    // gives the size; the standard asks for it first, and nobody needs more than a few before it.
    const SEARCHED: u64 = 16;
    for sector in 16..16 + SEARCHED {
        let d = image.bytes("ISO 9660 volume descriptor", sector * SECTOR, SECTOR)?;
        if part(&d, 1, ID.len()) != ID {
            break;
        }
        match d.first() {
            Some(1) => return primary(image, &d),
            Some(255) => break,
            _ => {}
        }
    }
    Err(Refusal::corrupt("The ISO 9660 image has no primary volume descriptor.").into())
}

fn primary(image: &mut Image<'_>, d: &[u8]) -> Result<(u64, Details), InspectError> {
    // Numbers stand twice, in both byte orders (ECMA-119 7.3.3); a polyglot that fakes the magic
    // seldom bothers with both.
    let blocks = le32(d, 80);
    let block_size = le16(d, 128);
    if blocks != be32(d, 84) || block_size != be16(d, 130) {
        return Err(Refusal::corrupt("The two copies of the volume size in the ISO 9660 descriptor differ.").into());
    }
    if !matches!(block_size, 512 | 1024 | 2048) {
        return Err(Refusal::corrupt(format!(
            "The logical block size of the ISO 9660 image is {block_size}; 512, 1024 and 2048 \
             are possible."
        ))
        .into());
    }
    let volume = u64::from(blocks) * u64::from(block_size);
    let run_out = limits::ISO_RUN_OUT_SECTORS * SECTOR;
    if volume > image.size().saturating_add(run_out) {
        return Err(Refusal::out_of_file("ISO 9660 volume", 0, volume, image.size()).into());
    }
    let head = image.head(limits::HEAD)?;
    let volume_id = part(d, 40, 32)
        .iter()
        .map(|&b| if (0x20..0x7f).contains(&b) { char::from(b) } else { '?' })
        .collect::<String>()
        .trim_end()
        .to_owned();
    let details = Details::Iso {
        hybrid: raw::partition_table(&head).is_some(),
        volume_id,
    };
    Ok((image.size(), details))
}
