//! Images that a host must never open: the smallest of each kind.

const CLUSTER: usize = 64 << 10;

fn put(mut image: Vec<u8>, at: usize, bytes: &[u8]) -> Vec<u8> {
    image[at..at + bytes.len()].copy_from_slice(bytes);
    image
}

/// qcow2 version 3 of 4 MiB, as it should be: header, refcounts, L1, L2 and one cluster of data.
pub fn qcow2() -> Vec<u8> {
    let c = CLUSTER as u64;
    let mut image = vec![0; 6 * CLUSTER];
    for (at, n) in [(4, 3_u32), (20, 16), (36, 1), (56, 1), (96, 4), (100, 112)] {
        image = put(image, at, &n.to_be_bytes());
    }
    for (at, n) in [
        (24, 4 << 20),
        (40, 3 * c),
        (48, c),
        (CLUSTER, 2 * c),
        (3 * CLUSTER, (4 * c) | (1 << 63)),
        (4 * CLUSTER, (5 * c) | (1 << 63)),
    ] {
        image = put(image, at, &n.to_be_bytes());
    }
    put(image, 0, b"QFI\xfb")
}

/// Takes its data from a file of the host (CVE-2015-5163 and its like).
pub fn backing_file() -> Vec<u8> {
    let name = b"/etc/shadow";
    let image = put(qcow2(), 8, &512_u64.to_be_bytes());
    let image = put(image, 16, &(name.len() as u32).to_be_bytes());
    put(image, 512, name)
}

/// Keeps its data in a file of the host (CVE-2024-32498): the incompatible feature bit and the name.
pub fn data_file() -> Vec<u8> {
    let name = b"/etc/shadow";
    let image = put(qcow2(), 72, &4_u64.to_be_bytes());
    let image = put(image, 112, &0x4441_5441_u32.to_be_bytes());
    let image = put(image, 116, &(name.len() as u32).to_be_bytes());
    put(image, 120, name)
}

/// Names a data file in a header extension, without the feature bit.
pub fn data_file_by_extension() -> Vec<u8> {
    put(data_file(), 72, &0_u64.to_be_bytes())
}

/// Says that the disk is as large as numbers go.
pub fn giant() -> Vec<u8> {
    put(qcow2(), 24, &(1_u64 << 62).to_be_bytes())
}

/// Its L1 table lies beyond the end.
pub fn cut_off() -> Vec<u8> {
    let mut image = qcow2();
    image.truncate(2 * CLUSTER);
    image
}

/// Half a header.
pub fn half_a_header() -> Vec<u8> {
    let mut image = qcow2();
    image.truncate(40);
    image
}

pub fn encrypted() -> Vec<u8> {
    put(qcow2(), 32, &2_u32.to_be_bytes())
}

pub fn unknown_feature() -> Vec<u8> {
    put(qcow2(), 72, &(1_u64 << 40).to_be_bytes())
}

/// A vmdk descriptor whose extent is a file of the host.
pub fn vmdk_extent() -> Vec<u8> {
    let text = "# Disk DescriptorFile\nversion=1\nCID=2f7a1b00\nparentCID=ffffffff\ncreateType=\"monolithicFlat\"\n\
                RW 8192 FLAT \"/etc/shadow\" 0\n";
    text.as_bytes().to_vec()
}

/// The start of a QED image, whose backing file is named in its header.
pub fn qed() -> Vec<u8> {
    put(vec![0; 4096], 0, b"QED\0")
}

pub fn luks() -> Vec<u8> {
    put(vec![0; 4096], 0, b"LUKS\xba\xbe\0\x01")
}
