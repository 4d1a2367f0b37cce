//! One disk, from any format that is accepted into any that is written.
//!
//! The source is inspected first and read by our own code, whose numbers are checked where they are used; no tool
//! sees it. The target is written front to back, so memory does not grow with the disk, and holes stay holes.

use super::read::{Disk, Extent, STEP, inflates};
use super::refusal::{InspectError, Refusal};
use super::source::{Image, Source};
use super::write::{Qcow2, Raw, Target};
use super::write_foreign::{Vdi, Vhd, Vhdx, Vmdk};
use super::{DiskFormat, Inspection, inspect, inspect_layer};
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
    let target = begin(out, to, inspection.virtual_size)?;
    let mut image = Image::open(source).map_err(ConvertError::Read)?;
    let size = inspection.virtual_size;
    let mut from = Reading::new(&mut image, &inspection, false)?;
    let mut copy = Copy { target, step, data: 0 };
    copy.range(&mut from, None, 0, size)?;
    copy.finish(inspection)
}

/// Writes the disk that a guest sees in `layer`, a qcow2 file over the disk `below` of format `format`, into the empty
/// file `out`, as qcow2 without anything below. The layer's own word on what is below it is not looked at. `step` as in
/// [`convert`]; it may stop a layer that holds more than its file can.
///
/// # Errors
/// See [`ConvertError`]; `out` is then without meaning.
pub fn flatten(
    layer: &mut dyn Source,
    below: &mut dyn Source,
    format: DiskFormat,
    out: File,
    step: &mut dyn FnMut(u64) -> bool,
) -> Result<Converted, ConvertError> {
    let inspection = inspect_layer(layer)?;
    let size = inspection.virtual_size;
    let under = inspect(below, Some(format))?;
    let target = begin(out, DiskFormat::Qcow2, size)?;
    let mut top = Image::open(layer).map_err(ConvertError::Read)?;
    let mut bottom = Image::open(below).map_err(ConvertError::Read)?;
    let mut top = Reading::new(&mut top, &inspection, true)?;
    let mut bottom = Reading::new(&mut bottom, &under, false)?;
    let mut copy = Copy { target, step, data: 0 };
    copy.range(&mut top, Some(&mut bottom), 0, size)?;
    copy.finish(inspection)
}

fn begin(out: File, to: DiskFormat, size: u64) -> Result<Box<dyn Target>, ConvertError> {
    Ok(match to {
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
    })
}

/// A disk that is being read.
struct Reading<'i, 's> {
    disk: Disk<'i, 's>,
    size: u64,
    /// Each block of an honest image stands for one place of the disk. One that is named twice would let a small
    /// file become a large one.
    most: u64,
    read: u64,
}

impl<'i, 's> Reading<'i, 's> {
    fn new(image: &'i mut Image<'s>, inspection: &Inspection, layer: bool) -> Result<Self, InspectError> {
        let most = if inflates(inspection) { u64::MAX } else { image.size() };
        let disk = if layer {
            Disk::open_layer(image, inspection)
        } else {
            Disk::open(image, inspection)
        };
        Ok(Self {
            disk: disk?,
            size: inspection.virtual_size,
            most,
            read: 0,
        })
    }
}

/// A copy under way.
struct Copy<'a> {
    target: Box<dyn Target>,
    step: &'a mut dyn FnMut(u64) -> bool,
    /// Bytes that were not zero.
    data: u64,
}

impl Copy<'_> {
    /// A part of a disk, with what is below it.
    fn range(
        &mut self,
        from: &mut Reading<'_, '_>,
        mut below: Option<&mut Reading<'_, '_>>,
        start: u64,
        end: u64,
    ) -> Result<(), ConvertError> {
        let mut at = start;
        while at < end {
            match from.disk.extent(at)? {
                // Never 0: an extent reaches to the end of its block.
                Extent::Zeros(len) => at += len.max(1),
                Extent::Below(len) => {
                    let next = at.saturating_add(len.max(1));
                    if let Some(below) = below.as_deref_mut() {
                        // What is beyond its end reads as zeros.
                        let end = next.min(end).min(below.size);
                        self.range(below, None, at, end)?;
                    }
                    at = next;
                }
                Extent::Inflated(bytes) => {
                    let len = (end - at).min(bytes.len() as u64);
                    let part = usize::try_from(len).ok().and_then(|n| bytes.get(..n)).unwrap_or(&[]);
                    self.put(at, part)?;
                    at += (bytes.len() as u64).max(1);
                }
                Extent::File { at: place, len } => {
                    let len = len.clamp(1, STEP).min(end - at);
                    from.read += len;
                    if from.read > from.most {
                        return Err(ConvertError::Refused(Refusal::corrupt(
                            "The image names the same block for several places of its disk.",
                        )));
                    }
                    let bytes = from.disk.read(place, len)?;
                    self.put(at, &bytes)?;
                    at += len;
                }
            }
        }
        Ok(())
    }

    fn finish(self, source: Inspection) -> Result<Converted, ConvertError> {
        Ok(Converted {
            source,
            virtual_size: self.target.finish().map_err(ConvertError::Write)?,
            data: self.data,
        })
    }

    /// Hands over what is not zero.
    fn put(&mut self, at: u64, bytes: &[u8]) -> Result<(), ConvertError> {
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
                    self.flush(at, bytes, start, place)?;
                    run = None;
                }
                _ => {}
            }
            place = next;
            next = (next + GRANULE).min(bytes.len());
        }
        if let Some(start) = run {
            self.flush(at, bytes, start, place)?;
        }
        Ok(())
    }

    fn flush(&mut self, at: u64, bytes: &[u8], start: usize, end: usize) -> Result<(), ConvertError> {
        let piece = bytes.get(start..end).unwrap_or(&[]);
        if !(self.step)(piece.len() as u64) {
            return Err(ConvertError::Stopped);
        }
        self.target
            .data(at + start as u64, piece)
            .map_err(ConvertError::Write)?;
        self.data += piece.len() as u64;
        Ok(())
    }
}
