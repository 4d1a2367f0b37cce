//! The first sector of the disk: boot code, disk signature and partition table.

/// What a partition holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holds {
    /// FAT16, found by sector number.
    Fat16,
    /// A Linux file system.
    Linux,
}

/// One primary partition, in sectors of 512 bytes.
#[derive(Clone, Copy, Debug)]
pub struct Partition {
    /// First sector.
    pub start: u32,
    /// Number of sectors.
    pub sectors: u32,
    /// Type.
    pub holds: Holds,
    /// Whether the boot code starts this one.
    pub active: bool,
}

/// The sector. Boot code beyond 440 bytes and partitions beyond four are refused with `None`.
pub fn sector(boot_code: &[u8], signature: [u8; 4], partitions: &[Partition]) -> Option<[u8; 512]> {
    if boot_code.len() > 440 || partitions.len() > 4 {
        return None;
    }
    let mut out = [0; 512];
    out[..boot_code.len()].copy_from_slice(boot_code);
    out[440..444].copy_from_slice(&signature);
    for (p, entry) in partitions.iter().zip(out[446..510].chunks_exact_mut(16)) {
        // Cylinder, head and sector say "use the sector number" (FE FF FF).
        entry[..8].copy_from_slice(&[0, 0xfe, 0xff, 0xff, 0, 0xfe, 0xff, 0xff]);
        entry[0] = if p.active { 0x80 } else { 0 };
        entry[4] = match p.holds {
            Holds::Fat16 => 0x0e,
            Holds::Linux => 0x83,
        };
        entry[8..12].copy_from_slice(&p.start.to_le_bytes());
        entry[12..].copy_from_slice(&p.sectors.to_le_bytes());
    }
    out[510..].copy_from_slice(&[0x55, 0xaa]);
    Some(out)
}
