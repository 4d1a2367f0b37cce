//! Random damage never panics, never reads without bound, and never makes a file pass that reaches
//! outside itself.

use proptest::prelude::*;
use std::io::Cursor;

use crate::testing::*;
use crate::{DiskFormat, Probe, detect, inspect};

fn corpus() -> Vec<Vec<u8>> {
    vec![
        qcow2().0,
        qcow2_v2().0,
        qcow2().be32(60, 1).be64(64, 5 * CLUSTER as u64).0,
        vmdk(VMDK_TEXT).0,
        vmdk_stream().0,
        VMDK_TEXT.as_bytes().to_vec(),
        vdi().0,
        vhd_dynamic(|_, _| {}).0,
        vhd_fixed().0,
        vhdx(|_| {}).0,
        iso().0,
        gpt().0,
    ]
}

/// Where formats keep their numbers: damage there is worth more than in the zeros between.
const HOT: &[(usize, usize)] = &[
    (0, 640),
    (1024, 1600),
    (32768, 33000),
    (65536, 65700),
    (3 * CLUSTER, 3 * CLUSTER + 64),
    (4 * CLUSTER, 4 * CLUSTER + 64),
    (5 * CLUSTER, 5 * CLUSTER + 64),
    (2 * MIB, 2 * MIB + 256),
    (2 * MIB + 65536, 2 * MIB + 65536 + 64),
    (3 * MIB, 3 * MIB + 64),
];

fn all_ways(bytes: &[u8]) {
    detect(&mut Cursor::new(bytes)).expect("a cursor reads");
    for declared in [None].into_iter().chain(DiskFormat::GLANCE.into_iter().map(Some)) {
        let _ = inspect(&mut Cursor::new(bytes), declared);
    }
    let mut probe = Probe::new(None);
    let _ = bytes.chunks(4096).try_for_each(|c| probe.push(c));
}

/// What still passes is also read to its end, or until it wants to write more than a few blocks.
fn read_through(bytes: &[u8]) {
    let out = std::env::temp_dir().join(format!("haneul-disk-mutate-{}", std::process::id()));
    for format in [
        DiskFormat::Qcow2,
        DiskFormat::Vmdk,
        DiskFormat::Vdi,
        DiskFormat::Vhd,
        DiskFormat::Vhdx,
    ] {
        if inspect(&mut Cursor::new(bytes), Some(format)).is_ok() {
            let mut left = 64_u64 << 20;
            let file = std::fs::File::create(&out).unwrap();
            let _ = crate::convert(&mut Cursor::new(bytes), format, file, DiskFormat::Raw, &mut |n| {
                left = left.saturating_sub(n);
                left > 0
            });
        }
    }
    let _ = std::fs::remove_file(&out);
}

/// Mends the checksums of vhd and vhdx, so that damage reaches what stands behind them.
fn mend(bytes: &mut [u8]) {
    if bytes.starts_with(b"conectix") && bytes.len() >= 2560 {
        ones_complement(&mut bytes[..512], 64);
        ones_complement(&mut bytes[512..1536], 36);
        let copy = bytes[..512].to_vec();
        let end = bytes.len() - 512;
        bytes[end..].copy_from_slice(&copy);
    }
    if bytes.starts_with(b"vhdxfile") && bytes.len() >= 262_144 {
        crc32c(&mut bytes[65536..65536 + 4096], 4);
        crc32c(&mut bytes[196_608..262_144], 4);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn damage_never_panics(
        which in 0..12_usize,
        edits in prop::collection::vec(
            (0..HOT.len(), any::<prop::sample::Index>(), prop_oneof![
                Just(0_u8), Just(0xff), Just(0x7f), Just(0x80), any::<u8>()
            ], 1..9_usize),
            1..6,
        ),
        cut in prop::option::weighted(0.3, any::<prop::sample::Index>()),
    ) {
        let mut bytes = corpus().swap_remove(which);
        for (range, index, value, len) in edits {
            let (from, to) = HOT[range];
            let at = from + index.index(to - from);
            for b in bytes.iter_mut().skip(at).take(len) {
                *b = value;
            }
        }
        if let Some(cut) = cut {
            let len = cut.index(bytes.len());
            bytes.truncate(len);
        }
        mend(&mut bytes);
        all_ways(&bytes);
        read_through(&bytes);
    }

    #[test]
    fn noise_never_panics(mut bytes in prop::collection::vec(any::<u8>(), 0..2048), magic in 0..8_usize) {
        const MAGICS: [&[u8]; 8] = [
            b"", b"QFI\xfb\0\0\0\x03", b"KDMV\x01\0\0\0", b"conectix", b"vhdxfile", b"QED\0",
            b"# Disk DescriptorFile\n", b"COWD",
        ];
        let magic = MAGICS[magic];
        if bytes.len() >= magic.len() {
            bytes[..magic.len()].copy_from_slice(magic);
        }
        all_ways(&bytes);
    }

    #[test]
    fn text_never_panics(text in "(# |createType=|parentCID=|RW |SPARSE |\"|=|\n|[a-z/.\\\\]){0,60}") {
        all_ways(&vmdk(&format!("version=1\n{text}")).0);
        all_ways(text.as_bytes());
    }
}

#[test]
fn every_length_of_every_image_is_survived() {
    for bytes in corpus() {
        for len in (0..bytes.len().min(1600)).chain([4096, 34_000, 65_600, 200_000, 262_143]) {
            all_ways(&bytes[..len.min(bytes.len())]);
        }
    }
}
