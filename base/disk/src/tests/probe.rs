//! Refusals from the first bytes of an upload.

use crate::testing::*;
use crate::{DiskFormat as F, Probe, Refusal, RefusalKind as K};

/// Feeds an image in pieces; gives the refusal and how many bytes it took.
fn feed(image: &[u8], declared: F, piece: usize) -> Option<(Refusal, usize)> {
    let mut probe = Probe::new(Some(declared));
    let mut fed = 0;
    for chunk in image.chunks(piece) {
        fed += chunk.len();
        if let Err(refusal) = probe.push(chunk) {
            assert_eq!(probe.push(b"more"), Err(refusal.clone()), "a refusal stays");
            return Some((refusal, fed));
        }
    }
    None
}

#[test]
fn a_wrong_format_is_refused_from_its_first_bytes() {
    let noise = vec![0x41; 1 << 20];
    let rows: Vec<(F, Bytes, K, usize)> = vec![
        (F::Qcow2, Bytes(noise.clone()), K::FormatMismatch, 32),
        (F::Vhdx, Bytes(noise.clone()), K::FormatMismatch, 32),
        (F::Vdi, Bytes(noise.clone()), K::FormatMismatch, 4096),
        (F::Vmdk, Bytes(noise.clone()), K::FormatMismatch, 4096),
        (F::Iso, Bytes(noise.clone()), K::FormatMismatch, 34816),
        (F::Raw, qcow2(), K::FormatMismatch, 32),
        (F::Raw, vhdx(|_| {}), K::FormatMismatch, 32),
        (F::Raw, vdi(), K::FormatMismatch, 512),
        (F::Raw, iso(), K::FormatMismatch, 34816),
        (F::Raw, Bytes::zeros(4096).put(0, b"QED\0"), K::FormatRefused, 32),
        (
            F::Luks,
            Bytes::zeros(4096).put(0, b"LUKS\xba\xbe"),
            K::FormatRefused,
            32,
        ),
        (F::Qcow2, vmdk(VMDK_TEXT), K::FormatMismatch, 32),
        (F::Vmdk, Bytes(VMDK_TEXT.as_bytes().to_vec()), K::ExternalData, 32),
        (F::Qcow2, qcow2().be64(8, 4096).be32(16, 8), K::BackingFile, 512),
        (F::Qcow2, qcow2().be64(72, 4), K::ExternalData, 512),
        (F::Qcow2, qcow2().be32(36, u32::MAX), K::TooLarge, 512),
    ];
    for (declared, image, kind, within) in rows {
        for piece in [1, 7, 512, 65536] {
            let (refusal, fed) = feed(&image.0, declared, piece)
                .unwrap_or_else(|| panic!("{declared} in pieces of {piece}: not refused"));
            assert_eq!(refusal.kind, kind, "{declared}: {refusal}");
            assert!(fed < within + piece, "{declared}: only after {fed} bytes");
        }
    }
}

#[test]
fn a_true_image_passes_in_any_pieces() {
    let rows = [
        (F::Qcow2, qcow2()),
        (F::Qcow2, qcow2_v2()),
        (F::Vmdk, vmdk(VMDK_TEXT)),
        (F::Vmdk, vmdk_stream()),
        (F::Vdi, vdi()),
        (F::Vhd, vhd_dynamic(|_, _| {})),
        (F::Vhd, vhd_fixed()),
        (F::Vhdx, vhdx(|_| {})),
        (F::Iso, iso()),
        (F::Raw, mbr()),
        (F::Raw, gpt()),
        (F::Raw, Bytes::zeros(5)),
        (F::Aki, Bytes::zeros(50_000)),
    ];
    for (declared, image) in rows {
        for piece in [1, 7, 512, 65536] {
            if let Some((refusal, fed)) = feed(&image.0, declared, piece) {
                panic!("{declared} in pieces of {piece}, after {fed} bytes: {refusal}");
            }
        }
    }
}

#[test]
fn it_keeps_no_more_than_the_head() {
    let mut probe = Probe::new(Some(F::Raw));
    for _ in 0..1000 {
        probe.push(&[0x41; 65536]).expect("plain bytes");
    }
    assert!(format!("{probe:?}").len() < 1 << 20);
}
