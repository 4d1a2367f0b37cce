//! Hand-made images: the smallest that a correct parser accepts, for tests to bend.

pub const CLUSTER: usize = 64 << 10;
pub const MIB: usize = 1 << 20;

/// Bytes with setters for fields.
#[derive(Clone)]
pub struct Bytes(pub Vec<u8>);

impl Bytes {
    pub fn zeros(len: usize) -> Self {
        Self(vec![0; len])
    }
    pub fn put(mut self, at: usize, bytes: &[u8]) -> Self {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }
    pub fn be32(self, at: usize, n: u32) -> Self {
        self.put(at, &n.to_be_bytes())
    }
    pub fn be64(self, at: usize, n: u64) -> Self {
        self.put(at, &n.to_be_bytes())
    }
    pub fn le32(self, at: usize, n: u32) -> Self {
        self.put(at, &n.to_le_bytes())
    }
    pub fn le64(self, at: usize, n: u64) -> Self {
        self.put(at, &n.to_le_bytes())
    }
    pub fn le16(self, at: usize, n: u16) -> Self {
        self.put(at, &n.to_le_bytes())
    }
}

/// qcow2 version 3 of 4 MiB: header, refcount table, refcount block, L1, L2 and one data cluster.
pub fn qcow2() -> Bytes {
    let c = CLUSTER as u64;
    Bytes::zeros(6 * CLUSTER)
        .put(0, b"QFI\xfb")
        .be32(4, 3)
        .be32(20, 16)
        .be64(24, 4 << 20)
        .be32(36, 1)
        .be64(40, 3 * c)
        .be64(48, c)
        .be32(56, 1)
        .be32(96, 4)
        .be32(100, 112)
        .be64(CLUSTER, 2 * c)
        .be64(3 * CLUSTER, (4 * c) | (1 << 63))
        .be64(4 * CLUSTER, (5 * c) | (1 << 63))
}

/// qcow2 version 2, otherwise the same.
pub fn qcow2_v2() -> Bytes {
    qcow2().be32(4, 2).put(72, &[0; 40])
}

pub const VMDK_TEXT: &str = "# Disk DescriptorFile\nversion=1\nCID=2f7a1b00\nparentCID=ffffffff\n\
     createType=\"monolithicSparse\"\n\n# Extent description\n\
     RW 8192 SPARSE \"disk.vmdk\"\n\n# The Disk Data Base\n#DDB\n\n\
     ddb.virtualHWVersion = \"4\"\nddb.geometry.cylinders = \"8\"\n";

/// vmdk of 4 MiB with this descriptor.
pub fn vmdk(text: &str) -> Bytes {
    Bytes::zeros(128 * 512)
        .put(0, b"KDMV")
        .le32(4, 1)
        .le32(8, 3)
        .le64(12, 8192)
        .le64(20, 128)
        .le64(28, 1)
        .le64(36, 20)
        .le32(44, 512)
        .le64(48, 21)
        .le64(56, 26)
        .le64(64, 128)
        .put(73, b"\n \r\n")
        .put(512, text.as_bytes())
}

/// vmdk, stream-optimized: the same with a footer that holds the true grain directory.
pub fn vmdk_stream() -> Bytes {
    let text = VMDK_TEXT.replace("monolithicSparse", "streamOptimized");
    let body = vmdk(&text).le32(4, 3).le16(77, 1);
    let header = body.0[..512].to_vec();
    let mut all = Bytes(body.le64(56, u64::MAX).0);
    let at = all.0.len();
    all.0.resize(at + 1536, 0);
    all.le32(at + 12, 3).put(at + 512, &header)
}

/// vdi, dynamic, 4 blocks of 1 MiB, one of them allocated.
pub fn vdi() -> Bytes {
    Bytes::zeros(2 * MIB)
        .put(0, b"<<< Oracle VM VirtualBox Disk Image >>>\n")
        .le32(0x40, 0xbeda_107f)
        .le32(0x44, 0x0001_0001)
        .le32(0x48, 0x190)
        .le32(0x4c, 1)
        .le32(0x154, 512)
        .le32(0x158, MIB as u32)
        .le32(0x168, 512)
        .le64(0x170, 4 << 20)
        .le32(0x178, 1 << 20)
        .le32(0x180, 4)
        .le32(0x184, 1)
        .put(0x188, &[7; 16])
        .put(512, &[0xff; 16])
        .le32(512, 0)
}

pub fn ones_complement(bytes: &mut [u8], field: usize) {
    bytes[field..field + 4].fill(0);
    let sum: u32 = bytes.iter().map(|&b| u32::from(b)).sum();
    bytes[field..field + 4].copy_from_slice(&(!sum).to_be_bytes());
}

fn vhd_footer(kind: u32, size: u64) -> Vec<u8> {
    Bytes::zeros(512)
        .put(0, b"conectix")
        .be32(8, 2)
        .be32(12, 0x0001_0000)
        .be64(16, if kind == 2 { u64::MAX } else { 512 })
        .be64(40, size)
        .be64(48, size)
        .be32(60, kind)
        .0
}

/// vhd, dynamic, 2 blocks of 2 MiB, none allocated; `bend` changes footer and dynamic header.
pub fn vhd_dynamic(bend: impl Fn(&mut [u8], &mut [u8])) -> Bytes {
    let mut footer = vhd_footer(3, 4 << 20);
    let mut header = Bytes::zeros(1024)
        .put(0, b"cxsparse")
        .be64(8, u64::MAX)
        .be64(16, 1536)
        .be32(24, 0x0001_0000)
        .be32(28, 2)
        .be32(32, 2 << 20)
        .0;
    bend(&mut footer, &mut header);
    ones_complement(&mut footer, 64);
    ones_complement(&mut header, 36);
    Bytes::zeros(2560)
        .put(0, &footer)
        .put(512, &header)
        .put(1536, &[0xff; 512])
        .put(2048, &footer)
}

/// vhd, fixed, 1 MiB.
pub fn vhd_fixed() -> Bytes {
    let mut footer = vhd_footer(2, MIB as u64);
    ones_complement(&mut footer, 64);
    Bytes::zeros(MIB + 512).put(MIB, &footer)
}

/// CRC-32C, bit by bit: the slow twin of the one under test.
pub fn crc32c(bytes: &mut [u8], field: usize) {
    bytes[field..field + 4].fill(0);
    let mut crc = u32::MAX;
    for &b in bytes.iter() {
        crc ^= u32::from(b);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0x82f6_3b78 * (crc & 1));
        }
    }
    bytes[field..field + 4].copy_from_slice(&(!crc).to_le_bytes());
}

fn guid(text: &str) -> [u8; 16] {
    let hex: String = text.chars().filter(|c| *c != '-').collect();
    let mut id: [u8; 16] = std::array::from_fn(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).expect("a GUID"));
    // Its first three parts are numbers and stand little endian.
    id[..4].reverse();
    id[4..6].reverse();
    id[6..8].reverse();
    id
}

pub const PARENT_LOCATOR: &str = "a8d35f2d-b30b-454d-abf7-d3d84834ab0c";

/// vhdx of 4 MiB in one block of 32 MiB. `bend` changes header, region table and metadata; `real_crc`
/// mends the checksums afterwards.
pub fn vhdx(bend: impl Fn(&mut Bytes)) -> Bytes {
    let meta = 2 * MIB;
    let item = meta + (64 << 10);
    let mut b = Bytes::zeros(4 * MIB)
        .put(0, b"vhdxfile")
        .put(65536, b"head")
        .le64(65536 + 8, 5)
        .le16(65536 + 66, 1)
        .le32(65536 + 68, MIB as u32)
        .le64(65536 + 72, MIB as u64)
        .put(196_608, b"regi")
        .le32(196_608 + 8, 2)
        .put(196_624, &guid("2dc27766-f623-4200-9d64-115e9bfd4a08"))
        .le64(196_640, 3 * MIB as u64)
        .le32(196_648, MIB as u32)
        .le32(196_652, 1)
        .put(196_656, &guid("8b7ca206-4790-4b9a-b8fe-575f050f886e"))
        .le64(196_672, meta as u64)
        .le32(196_680, MIB as u32)
        .le32(196_684, 1)
        .put(meta, b"metadata")
        .le16(meta + 10, 3);
    let items = [
        ("caa16737-fa36-4d43-b3b6-33f0aa44e76b", 8_u32),
        ("2fa54224-cd1b-4876-b211-5dbed83bf4b8", 8),
        ("8141bf1d-a96f-4709-ba47-f233a8faab5f", 4),
    ];
    for (i, (id, len)) in items.iter().enumerate() {
        let at = meta + 32 + i * 32;
        b = b
            .put(at, &guid(id))
            .le32(at + 16, 65536 + i as u32 * 16)
            .le32(at + 20, *len)
            .le32(at + 24, 4);
    }
    b = b.le32(item, 32 << 20).le64(item + 16, 4 << 20).le32(item + 32, 512);
    bend(&mut b);
    crc32c(&mut b.0[65536..65536 + 4096], 4);
    crc32c(&mut b.0[196_608..196_608 + 65536], 4);
    b
}

pub fn guid_of(text: &str) -> [u8; 16] {
    guid(text)
}

/// iso9660 of 20 sectors.
pub fn iso() -> Bytes {
    let d = 16 * 2048;
    Bytes::zeros(20 * 2048)
        .put(d, b"\x01CD001\x01")
        .put(d + 40, b"HANEUL CD                       ")
        .le32(d + 80, 20)
        .be32(d + 84, 20)
        .le16(d + 128, 2048)
        .put(d + 130, &2048_u16.to_be_bytes())
        .put(d + 2048, b"\xffCD001\x01")
}

/// A disk with a partition table and one Linux partition.
pub fn mbr() -> Bytes {
    Bytes::zeros(MIB)
        .put(0, &[0xfa, 0x33, 0xc0])
        .put(446 + 4, &[0x83])
        .le32(446 + 8, 2048)
        .le32(446 + 12, 100)
        .put(510, &[0x55, 0xaa])
}

pub fn gpt() -> Bytes {
    mbr().put(450, &[0xee]).put(512, b"EFI PART")
}
