//! What an image is, told from its bytes.
//!
//! Everything here treats its input as hostile: no `unsafe`, no indexing that can panic, no allocation
//! sized by the image, every limit in [`limits`]. No tool (`qemu-img`) sees a file before it has passed
//! [`inspect`], and the format found is pinned: nothing later guesses it again (CVE-2024-32498,
//! CVE-2024-4467 and their like came from guessing twice).
//!
//! - [`Probe`] watches an upload as it streams and refuses early, from the first bytes.
//! - [`detect`] names the format of a complete file.
//! - [`inspect`] checks a complete file against its declared format and refuses whatever reaches
//!   outside the file, exceeds a limit or contradicts itself.
//! - [`convert`] reads what [`inspect`] passed and writes the same disk in another format; [`flatten`] does so for a
//!   layer and the disk below it.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod limits;
#[cfg(any(test, feature = "testing"))]
#[allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]
pub mod testing;

mod convert;
mod iso;
mod probe;
mod qcow2;
mod raw;
mod read;
mod refusal;
mod signature;
mod source;
mod vdi;
mod vhd;
mod vhdx;
mod vmdk;
mod write;
mod write_foreign;

#[cfg(test)]
mod tests;

use std::fmt;
use std::io;

pub use convert::{ConvertError, Converted, OUTPUTS, convert, flatten};
pub use probe::Probe;
pub use raw::PartitionTable;
pub use refusal::{InspectError, Refusal, RefusalKind};
pub use source::Source;

use source::Image;

/// A format of disk images: those with a name in Glance's `disk_format`, and those that we recognise
/// only to refuse them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DiskFormat {
    /// The plain bytes of a disk, with or without a partition table.
    Raw,
    /// QEMU copy on write, versions 2 and 3.
    Qcow2,
    /// VMware: sparse extent, stream-optimized extent or descriptor.
    Vmdk,
    /// VirtualBox.
    Vdi,
    /// Virtual PC, also called vpc.
    Vhd,
    /// Hyper-V.
    Vhdx,
    /// ISO 9660.
    Iso,
    /// Parallels and OpenVZ.
    Ploop,
    /// Amazon machine image: raw bytes by another name.
    Ami,
    /// Amazon ramdisk.
    Ari,
    /// Amazon kernel.
    Aki,
    /// LUKS container.
    Luks,
    /// The first qcow format; no Glance name.
    Qcow1,
    /// QEMU enhanced disk; no Glance name.
    Qed,
    /// Bochs growing disk; no Glance name.
    Bochs,
    /// Compressed loop device; no Glance name.
    Cloop,
}

impl DiskFormat {
    /// Every format that has a Glance name.
    pub const GLANCE: [Self; 12] = [
        Self::Ami,
        Self::Ari,
        Self::Aki,
        Self::Vhd,
        Self::Vhdx,
        Self::Vmdk,
        Self::Raw,
        Self::Qcow2,
        Self::Vdi,
        Self::Iso,
        Self::Ploop,
        Self::Luks,
    ];

    /// The value of Glance's `disk_format`, when there is one.
    #[must_use]
    pub fn glance_name(self) -> Option<&'static str> {
        match self {
            Self::Qcow1 | Self::Qed | Self::Bochs | Self::Cloop => None,
            _ => Some(self.name()),
        }
    }

    /// The name for messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
            Self::Vmdk => "vmdk",
            Self::Vdi => "vdi",
            Self::Vhd => "vhd",
            Self::Vhdx => "vhdx",
            Self::Iso => "iso",
            Self::Ploop => "ploop",
            Self::Ami => "ami",
            Self::Ari => "ari",
            Self::Aki => "aki",
            Self::Luks => "luks",
            Self::Qcow1 => "qcow (version 1)",
            Self::Qed => "qed",
            Self::Bochs => "bochs",
            Self::Cloop => "cloop",
        }
    }

    /// The format with this Glance name.
    #[must_use]
    pub fn from_glance_name(name: &str) -> Option<Self> {
        Self::GLANCE.into_iter().find(|f| f.name() == name)
    }

    /// Recognised only to be refused, whatever was declared.
    #[must_use]
    pub fn is_never_accepted(self) -> bool {
        matches!(
            self,
            Self::Ploop | Self::Luks | Self::Qcow1 | Self::Qed | Self::Bochs | Self::Cloop
        )
    }

    /// Declares bytes without a structure of their own: the contents must not look like anything else.
    #[must_use]
    pub fn is_plain(self) -> bool {
        matches!(self, Self::Raw | Self::Ami | Self::Ari | Self::Aki)
    }
}

/// Formats from which guests start: QEMU is given raw and qcow2 as they are, hosts convert the others to raw.
pub const BOOTABLE: [DiskFormat; 6] = [
    DiskFormat::Raw,
    DiskFormat::Qcow2,
    DiskFormat::Vmdk,
    DiskFormat::Vdi,
    DiskFormat::Vhd,
    DiskFormat::Vhdx,
];

impl fmt::Display for DiskFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a complete, accepted image is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspection {
    /// The format to pin: the declared one where it fits the contents.
    pub format: DiskFormat,
    /// The size of the disk that a guest sees, in bytes.
    pub virtual_size: u64,
    /// The length of the file.
    pub file_size: u64,
    /// What else the format tells.
    pub details: Details,
}

/// What a format tells beyond the size of the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Details {
    /// Plain bytes.
    Raw {
        /// The partition table at the start, if any.
        partition_table: Option<PartitionTable>,
    },
    /// qcow2.
    Qcow2 {
        /// 2 or 3.
        version: u32,
        /// Bytes of a cluster.
        cluster_size: u64,
        /// Internal snapshots.
        snapshots: u32,
        /// Compressed clusters use zstd instead of zlib.
        zstd: bool,
        /// Extended L2 entries (subclusters).
        extended_l2: bool,
        /// The refcounts need a repair before the image is written to.
        dirty: bool,
        /// All L2 tables were read; false beyond [`limits::MAX_TABLE_WALK`].
        all_tables_checked: bool,
    },
    /// vmdk.
    Vmdk {
        /// Stream-optimized rather than monolithic sparse.
        stream_optimized: bool,
    },
    /// vdi.
    Vdi {
        /// All blocks are allocated.
        fixed: bool,
        /// Bytes of a block.
        block_size: u32,
    },
    /// vhd.
    Vhd {
        /// A fixed disk: raw bytes with a footer.
        fixed: bool,
    },
    /// vhdx.
    Vhdx {
        /// Bytes of a block.
        block_size: u32,
        /// 512 or 4096.
        logical_sector_size: u32,
    },
    /// iso9660.
    Iso {
        /// Carries a partition table too, so that it also starts from a disk.
        hybrid: bool,
        /// The volume's name.
        volume_id: String,
    },
}

/// What [`detect`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Detected {
    /// The format by signature; [`DiskFormat::Raw`] where there is none.
    pub format: DiskFormat,
    /// An ISO 9660 image that also has a partition table: acceptable as iso and as raw.
    pub hybrid_iso: bool,
}

/// Names the format of a complete file. A signature at the start decides; only where there is none do the
/// ISO descriptor (at 32 KiB) and the VHD footer (the last 512 bytes) count.
///
/// # Errors
/// Only when reading fails.
pub fn detect(source: &mut dyn Source) -> io::Result<Detected> {
    let mut image = Image::open(source)?;
    detect_in(&mut image)
}

fn detect_in(image: &mut Image<'_>) -> io::Result<Detected> {
    let head = image.head(limits::HEAD)?;
    if let Some(format) = signature::at_start(&head) {
        return Ok(Detected {
            format,
            hybrid_iso: false,
        });
    }
    if iso::is_iso(&head) {
        return Ok(Detected {
            format: DiskFormat::Iso,
            hybrid_iso: raw::partition_table(&head).is_some(),
        });
    }
    let format = if vhd::has_footer(image)? {
        DiskFormat::Vhd
    } else {
        DiskFormat::Raw
    };
    Ok(Detected {
        format,
        hybrid_iso: false,
    })
}

/// Settles what was declared with what was found, and gives the format to pin.
fn settle(declared: Option<DiskFormat>, found: Detected) -> Result<DiskFormat, Refusal> {
    if found.format.is_never_accepted() {
        return Err(Refusal::never_accepted(found.format));
    }
    match declared {
        None => Ok(found.format),
        Some(d) if d == found.format => Ok(d),
        // ami and its like are names for plain bytes. A hybrid ISO really is a disk as well.
        Some(d) if d.is_plain() && found.format == DiskFormat::Raw => Ok(d),
        Some(DiskFormat::Raw) if found.hybrid_iso => Ok(DiskFormat::Raw),
        Some(d) => Err(Refusal::mismatch(d, found.format)),
    }
}

/// Checks a complete image. `declared` is what its owner says it is; without it the signature alone
/// decides.
///
/// # Errors
/// [`InspectError::Refused`] when the image must not be used, [`InspectError::Io`] when it cannot be
/// read.
pub fn inspect(source: &mut dyn Source, declared: Option<DiskFormat>) -> Result<Inspection, InspectError> {
    let mut image = Image::open(source)?;
    let found = detect_in(&mut image)?;
    let format = settle(declared, found)?;
    let (virtual_size, details) = match format {
        DiskFormat::Qcow2 => qcow2::inspect(&mut image)?,
        DiskFormat::Vmdk => vmdk::inspect(&mut image)?,
        DiskFormat::Vdi => vdi::inspect(&mut image)?,
        DiskFormat::Vhd => vhd::inspect(&mut image)?,
        DiskFormat::Vhdx => vhdx::inspect(&mut image)?,
        DiskFormat::Iso => iso::inspect(&mut image)?,
        DiskFormat::Raw | DiskFormat::Ami | DiskFormat::Ari | DiskFormat::Aki => raw::inspect(&mut image)?,
        DiskFormat::Ploop
        | DiskFormat::Luks
        | DiskFormat::Qcow1
        | DiskFormat::Qed
        | DiskFormat::Bochs
        | DiskFormat::Cloop => return Err(Refusal::never_accepted(format).into()),
    };
    checked(&image, format, virtual_size, details)
}

/// Checks a qcow2 layer; what it says of a backing file is not looked at.
fn inspect_layer(source: &mut dyn Source) -> Result<Inspection, InspectError> {
    let mut image = Image::open(source)?;
    let format = settle(Some(DiskFormat::Qcow2), detect_in(&mut image)?)?;
    let (virtual_size, details) = qcow2::inspect_layer(&mut image)?;
    checked(&image, format, virtual_size, details)
}

fn checked(
    image: &Image<'_>,
    format: DiskFormat,
    virtual_size: u64,
    details: Details,
) -> Result<Inspection, InspectError> {
    if virtual_size > limits::MAX_VIRTUAL_SIZE {
        return Err(Refusal::too_large("virtual disk size", virtual_size, limits::MAX_VIRTUAL_SIZE, "bytes").into());
    }
    Ok(Inspection {
        format,
        virtual_size,
        file_size: image.size(),
        details,
    })
}
