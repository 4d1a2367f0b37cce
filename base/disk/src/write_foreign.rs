//! Writers of vmdk (monolithicSparse), vdi, vhd (dynamic) and vhdx (dynamic): the layouts that the makers' own tools
//! write, and nothing that points outside the file.

use super::vhd::checksum;
use super::vhdx;
use super::write::{Target, too_large};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

const MIB: u64 = 1 << 20;
const SECTOR: u64 = 512;

/// Units of one size, laid out behind each other in the order in which they are first written to.
struct Units {
    size: u64,
    /// Where each unit stands, counted from 0; none while it has no data.
    map: Vec<Option<u32>>,
    used: u32,
}

impl Units {
    fn new(disk: u64, size: u64, most: u64, what: &str) -> io::Result<Self> {
        let count = disk.div_ceil(size);
        if count > most {
            return Err(too_large(what));
        }
        Ok(Self {
            size,
            map: vec![None; usize::try_from(count).map_err(|_| too_large(what))?],
            used: 0,
        })
    }

    /// Cuts bytes at the units' borders: (number of the unit in the file, place inside it, bytes).
    fn each(&mut self, at: u64, bytes: &[u8], mut f: impl FnMut(u32, u64, &[u8]) -> io::Result<()>) -> io::Result<()> {
        let (mut at, mut rest) = (at, bytes);
        while !rest.is_empty() {
            let inside = at % self.size;
            let room = usize::try_from(self.size - inside)
                .unwrap_or(usize::MAX)
                .min(rest.len());
            let (now, later) = rest.split_at(room);
            let next = self.used;
            let slot = usize::try_from(at / self.size).ok().and_then(|n| self.map.get_mut(n));
            let slot = slot.ok_or_else(|| io::Error::other("data beyond the disk"))?;
            let unit = *slot.get_or_insert(next);
            if unit == next {
                self.used += 1;
            }
            f(unit, inside, now)?;
            at += room as u64;
            rest = later;
        }
        Ok(())
    }
}

fn put(block: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(slot) = block.get_mut(at..at + bytes.len()) {
        slot.copy_from_slice(bytes);
    }
}

/// VirtualBox, version 1.1, dynamic, blocks of 1 MiB.
pub(super) struct Vdi {
    out: File,
    size: u64,
    units: Units,
    data_at: u64,
}

impl Vdi {
    pub fn begin(out: File, size: u64) -> io::Result<Self> {
        let size = size.next_multiple_of(SECTOR);
        // 16 TiB: a map of 64 MiB.
        let units = Units::new(size, MIB, 1 << 24, "vdi")?;
        let data_at = (512 + units.map.len() as u64 * 4).next_multiple_of(MIB);
        Ok(Self {
            out,
            size,
            units,
            data_at,
        })
    }
}

impl Target for Vdi {
    fn data(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        let (out, data_at) = (&self.out, self.data_at);
        self.units.each(at, bytes, |unit, inside, bytes| {
            out.write_all_at(bytes, data_at + u64::from(unit) * MIB + inside)
        })
    }

    fn finish(self: Box<Self>) -> io::Result<u64> {
        let blocks = u32::try_from(self.units.map.len()).map_err(|_| too_large("vdi"))?;
        let mut h = [0_u8; 512];
        put(&mut h, 0, b"<<< Haneul virtual disk image >>>\n");
        for (at, value) in [
            (0x40, 0xbeda_107f), // signature
            (0x44, 0x0001_0001), // version
            (0x48, 0x190),       // length of the header
            (0x4c, 1),           // dynamic
            (0x154, 512),        // block map
            (0x158, u32::try_from(self.data_at).map_err(|_| too_large("vdi"))?),
            (0x168, 512), // sector
            (0x178, 1 << 20),
            (0x180, blocks),
            (0x184, self.units.used),
        ] {
            put(&mut h, at, &u32::to_le_bytes(value));
        }
        put(&mut h, 0x170, &self.size.to_le_bytes());
        // Its id, and that of its last change: derived from what it holds, so that the same disk gives the same file.
        put(&mut h, 0x188, &id_of(self.size, u64::from(self.units.used), 1));
        put(&mut h, 0x198, &id_of(self.size, u64::from(self.units.used), 2));
        let map = self.units.map.iter().flat_map(|u| u.unwrap_or(u32::MAX).to_le_bytes());
        self.out.write_all_at(&map.collect::<Vec<u8>>(), 512)?;
        self.out.write_all_at(&h, 0)?;
        self.out.set_len(self.data_at + u64::from(self.units.used) * MIB)?;
        Ok(self.size)
    }
}

/// An id in the form of a random UUID; the formats want one that is not zero.
fn id_of(size: u64, used: u64, salt: u64) -> [u8; 16] {
    let mut id = [0; 16];
    let mix = |n: u64| n.wrapping_add(salt).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    put(&mut id, 0, &mix(size).to_be_bytes());
    put(&mut id, 8, &mix(used ^ 0x5bd1_e995).to_be_bytes());
    if let Some(b) = id.get_mut(6) {
        *b = *b & 0x0f | 0x40;
    }
    if let Some(b) = id.get_mut(8) {
        *b = *b & 0x3f | 0x80;
    }
    id
}

/// Virtual PC, dynamic, blocks of 2 MiB with a bitmap of one sector.
pub(super) struct Vhd {
    out: File,
    size: u64,
    units: Units,
    data_at: u64,
}

const VHD_BLOCK: u64 = 2 * MIB;

impl Vhd {
    pub fn begin(out: File, size: u64) -> io::Result<Self> {
        let size = size.next_multiple_of(SECTOR);
        // 2,040 GiB is the format's own limit.
        let units = Units::new(size, VHD_BLOCK, 2040 << 9, "vhd")?;
        let table = (units.map.len() as u64 * 4).next_multiple_of(SECTOR);
        Ok(Self {
            out,
            size,
            units,
            data_at: 1536 + table,
        })
    }

    fn footer(&self) -> [u8; 512] {
        let mut f = [0_u8; 512];
        put(&mut f, 0, b"conectix");
        put(&mut f, 8, &2_u32.to_be_bytes()); // reserved, always set
        put(&mut f, 12, &0x0001_0000_u32.to_be_bytes());
        put(&mut f, 16, &512_u64.to_be_bytes()); // dynamic header
        // Readers take the size from the field and not from the geometry when they know the creator.
        put(&mut f, 28, b"win ");
        put(&mut f, 32, &0x0006_0001_u32.to_be_bytes());
        put(&mut f, 36, b"Wi2k");
        put(&mut f, 40, &self.size.to_be_bytes());
        put(&mut f, 48, &self.size.to_be_bytes());
        let (cylinders, heads, sectors) = geometry(self.size / SECTOR);
        put(&mut f, 56, &cylinders.to_be_bytes());
        put(&mut f, 58, &[heads, sectors]);
        put(&mut f, 60, &3_u32.to_be_bytes()); // dynamic
        put(&mut f, 68, &id_of(self.size, u64::from(self.units.used), 3));
        let sum = checksum(&f, 64);
        put(&mut f, 64, &sum.to_be_bytes());
        f
    }
}

/// Cylinders, heads and sectors as the specification's appendix computes them.
fn geometry(sectors: u64) -> (u16, u8, u8) {
    let total = sectors.min(65535 * 16 * 255);
    let (mut per_track, mut heads, mut cylinder_heads);
    if total >= 65535 * 16 * 63 {
        (per_track, heads) = (255, 16);
        cylinder_heads = total / per_track;
    } else {
        per_track = 17;
        cylinder_heads = total / per_track;
        heads = cylinder_heads.div_ceil(1024).max(4);
        if cylinder_heads >= heads * 1024 || heads > 16 {
            (per_track, heads) = (31, 16);
            cylinder_heads = total / per_track;
        }
        if cylinder_heads >= heads * 1024 {
            (per_track, heads) = (63, 16);
            cylinder_heads = total / per_track;
        }
    }
    let cylinders = u16::try_from(cylinder_heads / heads).unwrap_or(u16::MAX);
    (
        cylinders,
        u8::try_from(heads).unwrap_or(16),
        u8::try_from(per_track).unwrap_or(255),
    )
}

impl Target for Vhd {
    fn data(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        let (out, data_at) = (&self.out, self.data_at);
        self.units.each(at, bytes, |unit, inside, bytes| {
            let place = data_at + u64::from(unit) * (VHD_BLOCK + SECTOR);
            // All sectors of a block that is there are valid: those without data are zeros.
            out.write_all_at(&[0xff; 512], place)?;
            out.write_all_at(bytes, place + SECTOR + inside)
        })
    }

    fn finish(self: Box<Self>) -> io::Result<u64> {
        let footer = self.footer();
        let mut h = [0_u8; 1024];
        put(&mut h, 0, b"cxsparse");
        put(&mut h, 8, &u64::MAX.to_be_bytes());
        put(&mut h, 16, &1536_u64.to_be_bytes());
        put(&mut h, 24, &0x0001_0000_u32.to_be_bytes());
        let entries = u32::try_from(self.units.map.len()).map_err(|_| too_large("vhd"))?;
        put(&mut h, 28, &entries.to_be_bytes());
        put(&mut h, 32, &(2_u32 << 20).to_be_bytes());
        let sum = checksum(&h, 36);
        put(&mut h, 36, &sum.to_be_bytes());
        let sector_of = |u: u32| (self.data_at + u64::from(u) * (VHD_BLOCK + SECTOR)) / SECTOR;
        let place = |u: &Option<u32>| u.map_or(u32::MAX, |u| u32::try_from(sector_of(u)).unwrap_or(u32::MAX));
        let mut table: Vec<u8> = self.units.map.iter().flat_map(|u| place(u).to_be_bytes()).collect();
        table.resize(table.len().next_multiple_of(512), 0xff);
        self.out.write_all_at(&footer, 0)?;
        self.out.write_all_at(&h, 512)?;
        self.out.write_all_at(&table, 1536)?;
        let end = self.data_at + u64::from(self.units.used) * (VHD_BLOCK + SECTOR);
        self.out.write_all_at(&footer, end)?;
        Ok(self.size)
    }
}

/// VMware, monolithicSparse: grains of 64 KiB, both grain directories.
pub(super) struct Vmdk {
    out: File,
    size: u64,
    units: Units,
    data_at: u64,
}

const GRAIN: u64 = 128 * SECTOR;
const GTES: u64 = 512;
/// Sectors of the descriptor.
const DESCRIPTOR: u64 = 20;

impl Vmdk {
    pub fn begin(out: File, size: u64) -> io::Result<Self> {
        let size = size.next_multiple_of(GRAIN);
        // 2 TiB: sectors are counted in 32 bits.
        let units = Units::new(size, GRAIN, 1 << 25, "vmdk")?;
        let mut this = Self {
            out,
            size,
            units,
            data_at: 0,
        };
        let (_, _, end) = this.directory(1);
        this.data_at = (end * SECTOR).next_multiple_of(GRAIN);
        Ok(this)
    }

    fn tables(&self) -> u64 {
        (self.units.map.len() as u64).div_ceil(GTES)
    }

    /// Sectors of a directory, of its first table, and of what follows; 0 is the redundant one.
    fn directory(&self, which: u64) -> (u64, u64, u64) {
        let entries = (self.tables() * 4).div_ceil(SECTOR);
        let len = entries + self.tables() * (GTES * 4 / SECTOR);
        let at = 1 + DESCRIPTOR + which * len;
        (at, at + entries, at + len)
    }

    fn descriptor(&self) -> String {
        let sectors = self.size / SECTOR;
        format!(
            "# Disk DescriptorFile\nversion=1\nCID={:08x}\nparentCID=ffffffff\ncreateType=\"monolithicSparse\"\n\n\
             # Extent description\nRW {sectors} SPARSE \"disk.vmdk\"\n\n# The Disk Data Base\n#DDB\n\n\
             ddb.virtualHWVersion = \"4\"\nddb.geometry.cylinders = \"{}\"\nddb.geometry.heads = \"16\"\n\
             ddb.geometry.sectors = \"63\"\nddb.adapterType = \"ide\"\n",
            0x4841_4e00_u32 | self.units.used & 0xff,
            sectors / (16 * 63),
        )
    }
}

impl Target for Vmdk {
    fn data(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        let (out, data_at) = (&self.out, self.data_at);
        self.units.each(at, bytes, |unit, inside, bytes| {
            out.write_all_at(bytes, data_at + u64::from(unit) * GRAIN + inside)
        })
    }

    fn finish(self: Box<Self>) -> io::Result<u64> {
        let sector = |n: u64| u32::try_from(n).map_err(|_| too_large("vmdk"));
        let first = self.data_at / SECTOR;
        for which in [0, 1] {
            let (directory_at, tables_at, _) = self.directory(which);
            let mut directory = Vec::new();
            for n in 0..self.tables() {
                directory.extend(sector(tables_at + n * (GTES * 4 / SECTOR))?.to_le_bytes());
            }
            self.out.write_all_at(&directory, directory_at * SECTOR)?;
            let mut entries = Vec::with_capacity(self.units.map.len() * 4);
            for unit in &self.units.map {
                let at = unit.map_or(Ok(0), |u| sector(first + u64::from(u) * (GRAIN / SECTOR)))?;
                entries.extend(at.to_le_bytes());
            }
            self.out.write_all_at(&entries, tables_at * SECTOR)?;
        }
        let mut h = [0_u8; 512];
        put(&mut h, 0, b"KDMV");
        put(&mut h, 4, &1_u32.to_le_bytes());
        put(&mut h, 8, &3_u32.to_le_bytes()); // newlines are checked, redundant directory
        for (at, value) in [
            (12, self.size / SECTOR),
            (20, GRAIN / SECTOR),
            (28, 1),
            (36, DESCRIPTOR),
            (48, self.directory(0).0),
            (56, self.directory(1).0),
            (64, first),
        ] {
            put(&mut h, at, &u64::to_le_bytes(value));
        }
        put(&mut h, 44, &512_u32.to_le_bytes());
        put(&mut h, 73, b"\n \r\n");
        self.out.write_all_at(&h, 0)?;
        self.out.write_all_at(self.descriptor().as_bytes(), SECTOR)?;
        self.out.set_len(self.data_at + u64::from(self.units.used) * GRAIN)?;
        Ok(self.size)
    }
}

/// Hyper-V, dynamic, blocks of 8 MiB, sectors of 512 bytes.
pub(super) struct Vhdx {
    out: File,
    size: u64,
    units: Units,
    data_at: u64,
}

const VHDX_BLOCK: u64 = 8 * MIB;
const K64: u64 = 64 << 10;
/// Log, metadata and block table: a MiB each, the last one more where it is long.
const LOG: u64 = MIB;
const METADATA: u64 = 2 * MIB;
const BAT: u64 = 3 * MIB;

impl Vhdx {
    pub fn begin(out: File, size: u64) -> io::Result<Self> {
        let size = size.next_multiple_of(SECTOR);
        let units = Units::new(size, VHDX_BLOCK, (64 << 40) / VHDX_BLOCK, "vhdx")?;
        let data_at = BAT + Self::table_len(units.map.len() as u64);
        Ok(Self {
            out,
            size,
            units,
            data_at,
        })
    }

    /// Payload entries between two entries for bitmaps.
    const PER_CHUNK: u64 = (SECTOR << 23) / VHDX_BLOCK;

    fn table_len(blocks: u64) -> u64 {
        ((blocks + blocks / Self::PER_CHUNK + 1) * 8).next_multiple_of(MIB)
    }
}

impl Target for Vhdx {
    fn data(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        let (out, data_at) = (&self.out, self.data_at);
        self.units.each(at, bytes, |unit, inside, bytes| {
            out.write_all_at(bytes, data_at + u64::from(unit) * VHDX_BLOCK + inside)
        })
    }

    fn finish(self: Box<Self>) -> io::Result<u64> {
        let salted = |salt| id_of(self.size, u64::from(self.units.used), salt);
        let mut kind = Vec::from(*b"vhdxfile");
        kind.extend("Haneul".encode_utf16().flat_map(u16::to_le_bytes));
        self.out.write_all_at(&kind, 0)?;
        for (n, sequence) in [(1, 1_u64), (2, 2)] {
            let mut h = vec![0_u8; 4096];
            put(&mut h, 0, b"head");
            put(&mut h, 8, &sequence.to_le_bytes());
            put(&mut h, 16, &salted(4));
            put(&mut h, 32, &salted(5));
            put(&mut h, 66, &1_u16.to_le_bytes()); // version; the log's id is zero: nothing to replay
            put(&mut h, 68, &(MIB as u32).to_le_bytes());
            put(&mut h, 72, &LOG.to_le_bytes());
            let sum = vhdx::crc32c(&h, 4);
            put(&mut h, 4, &sum.to_le_bytes());
            self.out.write_all_at(&h, n * K64)?;
        }
        let table_len = Self::table_len(self.units.map.len() as u64);
        let mut r = vec![0_u8; 64 << 10];
        put(&mut r, 0, b"regi");
        put(&mut r, 8, &2_u32.to_le_bytes());
        for (n, (id, at, len)) in [
            (vhdx::REGION_BAT, BAT, table_len),
            (vhdx::REGION_METADATA, METADATA, MIB),
        ]
        .into_iter()
        .enumerate()
        {
            let entry = 16 + n * 32;
            put(&mut r, entry, &id);
            put(&mut r, entry + 16, &at.to_le_bytes());
            put(&mut r, entry + 24, &(len as u32).to_le_bytes());
            put(&mut r, entry + 28, &1_u32.to_le_bytes()); // required
        }
        let sum = vhdx::crc32c(&r, 4);
        put(&mut r, 4, &sum.to_le_bytes());
        self.out.write_all_at(&r, 3 * K64)?;
        self.out.write_all_at(&r, 4 * K64)?;

        // Items stand behind the table of 64 KiB. Flags: 2 it describes the disk, 4 a reader must know it.
        let items: [([u8; 16], Vec<u8>, u32); 5] = [
            (
                vhdx::FILE_PARAMETERS,
                (VHDX_BLOCK as u32).to_le_bytes().into_iter().chain([0; 4]).collect(),
                4,
            ),
            (vhdx::DISK_SIZE, self.size.to_le_bytes().into(), 6),
            (vhdx::PAGE_83, salted(6).into(), 6),
            (vhdx::LOGICAL_SECTOR, 512_u32.to_le_bytes().into(), 6),
            (vhdx::PHYSICAL_SECTOR, 4096_u32.to_le_bytes().into(), 6),
        ];
        let mut m = vec![0_u8; (64 << 10) + 256];
        put(&mut m, 0, b"metadata");
        put(&mut m, 10, &(items.len() as u16).to_le_bytes());
        let mut at = 64 << 10;
        for (n, (id, bytes, flags)) in items.iter().enumerate() {
            let entry = 32 + n * 32;
            put(&mut m, entry, id);
            put(&mut m, entry + 16, &(at as u32).to_le_bytes());
            put(&mut m, entry + 20, &(bytes.len() as u32).to_le_bytes());
            put(&mut m, entry + 24, &flags.to_le_bytes());
            put(&mut m, at, bytes);
            at += bytes.len();
        }
        self.out.write_all_at(&m, METADATA)?;

        let mut table = Vec::new();
        for (n, unit) in self.units.map.iter().enumerate() {
            if n > 0 && (n as u64).is_multiple_of(Self::PER_CHUNK) {
                table.extend(0_u64.to_le_bytes()); // no bitmap: nothing is there in parts
            }
            // 6: fully present, the place in whole MiB.
            let entry = unit.map_or(0, |u| (self.data_at + u64::from(u) * VHDX_BLOCK) | 6);
            table.extend(entry.to_le_bytes());
        }
        self.out.write_all_at(&table, BAT)?;
        self.out
            .set_len(self.data_at + u64::from(self.units.used) * VHDX_BLOCK)?;
        Ok(self.size)
    }
}
