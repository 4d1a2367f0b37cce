//! Plain bytes of a disk.

use super::source::{Image, le32, part};
use super::{Details, InspectError, limits};

/// A partition table found at the start of a raw disk. It is told to the user and changes nothing else:
/// a disk with a partition table is raw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartitionTable {
    /// UEFI specification 2.10, chapter 5: header "EFI PART" in the second sector.
    Gpt,
    /// Boot signature 55 AA and four plausible entries.
    Mbr,
}

/// The partition table in the first bytes of a disk, for sectors of 512 and of 4096 bytes.
pub(super) fn partition_table(head: &[u8]) -> Option<PartitionTable> {
    const GPT: &[u8] = b"EFI PART";
    if part(head, 512, GPT.len()) == GPT || part(head, 4096, GPT.len()) == GPT {
        return Some(PartitionTable::Gpt);
    }
    if part(head, 510, 2) != [0x55, 0xaa] {
        return None;
    }
    // A FAT or NTFS boot sector ends in the same two bytes; only a table has entries whose first
    // byte is 00 or 80, and at least one of them with a type and a length.
    let mut used = false;
    for entry in part(head, 446, 64).chunks_exact(16) {
        if !matches!(entry.first(), Some(0 | 0x80)) {
            return None;
        }
        let kind = entry.get(4).copied().unwrap_or(0);
        used |= kind != 0 && le32(entry, 12) != 0;
    }
    used.then_some(PartitionTable::Mbr)
}

pub(super) fn inspect(image: &mut Image<'_>) -> Result<(u64, Details), InspectError> {
    let head = image.head(limits::HEAD)?;
    let details = Details::Raw {
        partition_table: partition_table(&head),
    };
    Ok((image.size(), details))
}
