//! One disk, from any format that is accepted into any that is written.
//!
//! The source is inspected first and read by our own code, whose numbers are checked where they are used; no tool
//! sees it. The target is written front to back, so memory does not grow with the disk, and holes stay holes.

use super::read::{Disk, Extent, STEP, inflates};
use super::refusal::{InspectError, Refusal};
use super::source::{Image, Source};
use super::write::{Qcow2, Raw, Target};
use super::write_foreign::{Vdi, Vhd, Vhdx, Vmdk};
use super::{DiskFormat, Inspection, inspect};
use std::fmt;
use std::fs::File;
use std::io;

/// Formats that [`convert`] writes.
pub const OUTPUTS: &[DiskFormat] = &[
    DiskFormat::Raw,
    DiskFormat::Qcow2,
    DiskFormat::Vmdk,
    DiskFormat::Vdi,
    DiskFormat::Vhd,
    DiskFormat::Vhdx,
];

/// Zeros are looked for in pieces of this size.
const GRANULE: usize = 4096;

/// What a conversion did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Converted {
    /// What the source was.
    pub source: Inspection,
    /// Bytes of the disk inside the target. Larger than the source's where the format counts in larger units.
    pub virtual_size: u64,
    /// Bytes of the disk that are not zero.
    pub data: u64,
}

/// Why there is no target.
#[derive(Debug)]
pub enum ConvertError {
    /// The image is at fault: tell the user.
    Refused(Refusal),
    /// Reading our copy of it failed.
    Read(io::Error),
    /// Writing the target failed.
    Write(io::Error),
    /// The caller's `step` said so.
    Stopped,
}

impl From<InspectError> for ConvertError {
    fn from(e: InspectError) -> Self {
        match e {
            InspectError::Refused(r) => Self::Refused(r),
            InspectError::Io(e) => Self::Read(e),
        }
    }
}

impl fmt::Display for ConvertError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(r) => r.fmt(f),
            Self::Read(e) => write!(f, "reading the image failed: {e}"),
            Self::Write(e) => write!(f, "writing the converted image failed: {e}"),
            Self::Stopped => f.write_str("the conversion was stopped"),
        }
    }
}

impl std::error::Error for ConvertError {}

/// Writes the disk inside `source`, which must be of format `from`, into the empty file `out`.
///
/// `step` is told how many bytes of data are about to be written; when it answers false, the conversion stops
/// ([`ConvertError::Stopped`]): for progress, a full disk, or a job that was cancelled.
///
/// # Errors
/// See [`ConvertError`]; `out` is then without meaning.
pub fn convert(
    source: &mut dyn Source,
    from: DiskFormat,
    out: File,
    to: DiskFormat,
    step: &mut dyn FnMut(u64) -> bool,
) -> Result<Converted, ConvertError> {
    let inspection = inspect(source, Some(from))?;
    let size = inspection.virtual_size;
    let mut target: Box<dyn Target> = match to {
        DiskFormat::Raw => Box::new(Raw::begin(out, size).map_err(ConvertError::Write)?),
        DiskFormat::Qcow2 => Box::new(Qcow2::begin(out, size).map_err(ConvertError::Write)?),
        DiskFormat::Vmdk => Box::new(Vmdk::begin(out, size).map_err(ConvertError::Write)?),
        DiskFormat::Vdi => Box::new(Vdi::begin(out, size).map_err(ConvertError::Write)?),
        DiskFormat::Vhd => Box::new(Vhd::begin(out, size).map_err(ConvertError::Write)?),
        DiskFormat::Vhdx => Box::new(Vhdx::begin(out, size).map_err(ConvertError::Write)?),
        other => {
            return Err(ConvertError::Refused(Refusal::new(
                super::RefusalKind::SubformatRefused,
                format!("Images are not written in the {other} format."),
                "Choose raw, qcow2, vmdk, vdi, vhd or vhdx.",
            )));
        }
    };
    let mut image = Image::open(source).map_err(ConvertError::Read)?;
    // Each block of an honest image stands for one place of the disk. One that is named twice would let a small
    // file become a large one.
    let most = if inflates(&inspection) { u64::MAX } else { image.size() };
    let mut disk = Disk::open(&mut image, &inspection)?;
    let (mut at, mut read, mut data) = (0, 0_u64, 0);
    while at < size {
        match disk.extent(at)? {
            // Never 0: an extent reaches to the end of its block.
            Extent::Zeros(len) => at += len.max(1),
            Extent::Inflated(bytes) => {
                data += put(target.as_mut(), at, &bytes, step)?;
                at += (bytes.len() as u64).max(1);
            }
            Extent::File { at: place, len } => {
                let len = len.clamp(1, STEP);
                read += len;
                if read > most {
                    return Err(ConvertError::Refused(Refusal::corrupt(
                        "The image names the same block for several places of its disk.",
                    )));
                }
                let bytes = disk.read(place, len)?;
                data += put(target.as_mut(), at, &bytes, step)?;
                at += len;
            }
        }
    }
    let virtual_size = target.finish().map_err(ConvertError::Write)?;
    Ok(Converted {
        source: inspection,
        virtual_size,
        data,
    })
}

/// Hands over what is not zero; answers how much that was.
fn put(target: &mut dyn Target, at: u64, bytes: &[u8], step: &mut dyn FnMut(u64) -> bool) -> Result<u64, ConvertError> {
    let mut written = 0;
    let mut place = 0;
    let zero = |b: &[u8]| b.iter().all(|&b| b == 0);
    // Pieces end where granules of the disk end, whatever `at` is.
    let first = GRANULE - usize::try_from(at % GRANULE as u64).unwrap_or(0);
    let mut next = first.min(bytes.len());
    let mut run: Option<usize> = None;
    while place < bytes.len() {
        let piece = bytes.get(place..next).unwrap_or(&[]);
        match (zero(piece), run) {
            (false, None) => run = Some(place),
            (true, Some(start)) => {
                written += flush(target, at, bytes, start, place, step)?;
                run = None;
            }
            _ => {}
        }
        place = next;
        next = (next + GRANULE).min(bytes.len());
    }
    if let Some(start) = run {
        written += flush(target, at, bytes, start, place, step)?;
    }
    Ok(written)
}

fn flush(
    target: &mut dyn Target,
    at: u64,
    bytes: &[u8],
    start: usize,
    end: usize,
    step: &mut dyn FnMut(u64) -> bool,
) -> Result<u64, ConvertError> {
    let piece = bytes.get(start..end).unwrap_or(&[]);
    if !step(piece.len() as u64) {
        return Err(ConvertError::Stopped);
    }
    target.data(at + start as u64, piece).map_err(ConvertError::Write)?;
    Ok(piece.len() as u64)
}
