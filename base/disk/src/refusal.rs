//! Why an image is refused, in words for the person who uploaded it.

use std::fmt;
use std::io;

use super::DiskFormat;

/// The class of a refusal. Tests and the HTTP layer match on it; people read
/// [`Refusal::problem`] and [`Refusal::remedy`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RefusalKind {
    /// The declared `disk_format` is not what the bytes are.
    FormatMismatch,
    /// The bytes are of a format that is known and never accepted (QED, LUKS, Parallels ...).
    FormatRefused,
    /// A version or subtype of a known format that we do not read.
    SubformatRefused,
    /// The image takes data from another image (qcow2 backing file, vmdk/vdi/vhd/vhdx parent).
    BackingFile,
    /// The image keeps its data in another file (qcow2 data file, vmdk extents).
    ExternalData,
    /// A feature bit or a required item that we do not know.
    UnknownFeature,
    /// The contents are encrypted.
    Encrypted,
    /// A number is beyond the limits in [`super::limits`].
    TooLarge,
    /// A structure lies outside the file: the upload was cut off, or the header lies.
    OutOfFile,
    /// The structures contradict themselves.
    Corrupt,
}

/// A refusal says exactly what is wrong and what would make it right.
///
/// Text taken from the image is shortened and stripped of everything but printable ASCII before it
/// enters a message ([`quoted`]), so that an image cannot write into logs or terminals.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The class, for programs.
    pub kind: RefusalKind,
    /// What is wrong, as one sentence.
    pub problem: String,
    /// What would make it right, as one sentence.
    pub remedy: String,
}

impl Refusal {
    /// A refusal of an image for what it is; also for callers that refuse what the parsers know.
    pub fn new(kind: RefusalKind, problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            kind,
            problem: problem.into(),
            remedy: remedy.into(),
        }
    }

    pub(super) fn mismatch(declared: DiskFormat, found: DiskFormat) -> Self {
        let problem = if found == DiskFormat::Raw {
            format!(
                "The image is declared as {declared}, but its contents carry no {declared} \
                 signature."
            )
        } else {
            format!("The image is declared as {declared}, but its contents are {found}.")
        };
        let remedy = if found == DiskFormat::Raw {
            format!(
                "Upload the {declared} file itself, or declare disk_format=raw if these are the \
                 plain bytes of a disk."
            )
        } else if let Some(name) = found.glance_name() {
            format!("Declare disk_format={name}, or convert the file to {declared} before the upload.")
        } else {
            format!("Convert the file to {declared} before the upload.")
        };
        Self::new(RefusalKind::FormatMismatch, problem, remedy)
    }

    pub(super) fn never_accepted(found: DiskFormat) -> Self {
        let remedy = match found {
            DiskFormat::Luks => "Upload the decrypted disk; a guest can encrypt a partition of it by itself.",
            _ => "Convert it first, for example: qemu-img convert -O qcow2 IN OUT.",
        };
        Self::new(
            RefusalKind::FormatRefused,
            format!("The image is in the {found} format, which is not accepted."),
            remedy,
        )
    }

    pub(super) fn out_of_file(what: &str, offset: u64, len: u64, size: u64) -> Self {
        Self::new(
            RefusalKind::OutOfFile,
            format!(
                "The {what} should lie at byte {offset} with a length of {len}, but the file has \
                 only {size} bytes."
            ),
            "The file is cut off or damaged: compare its size and checksum with the source and \
             upload it again.",
        )
    }

    pub(super) fn too_large(what: &str, value: u64, limit: u64, unit: &str) -> Self {
        Self::new(
            RefusalKind::TooLarge,
            format!("The {what} is {value} {unit}; the limit is {limit}."),
            "Write the image again with a current tool, for example: qemu-img convert -O qcow2 IN \
             OUT.",
        )
    }

    pub(super) fn corrupt(problem: impl Into<String>) -> Self {
        Self::new(
            RefusalKind::Corrupt,
            problem,
            "The file is damaged: check it with its own tool (qemu-img check) or write it again \
             from the source.",
        )
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.problem, self.remedy)
    }
}

impl std::error::Error for Refusal {}

/// The outcome of an inspection that gave no [`super::Inspection`].
#[derive(Debug)]
pub enum InspectError {
    /// The image is at fault: tell the user.
    Refused(Refusal),
    /// Reading our own copy of it failed: that is our fault.
    Io(io::Error),
}

impl InspectError {
    /// The refusal, when it is one.
    #[must_use]
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused(r) => Some(r),
            Self::Io(_) => None,
        }
    }
}

impl From<Refusal> for InspectError {
    fn from(r: Refusal) -> Self {
        Self::Refused(r)
    }
}

impl From<io::Error> for InspectError {
    fn from(e: io::Error) -> Self {
        Self::Io(e)
    }
}

impl fmt::Display for InspectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(r) => r.fmt(f),
            Self::Io(e) => write!(f, "reading the stored image failed: {e}"),
        }
    }
}

impl std::error::Error for InspectError {}

/// Text from inside an image, safe to show: at most 64 characters of printable ASCII.
pub(super) fn quoted(bytes: &[u8]) -> String {
    const SHOWN: usize = 64;
    let mut out = String::from("'");
    for &b in bytes.iter().take(SHOWN) {
        out.push(match b {
            b'\'' => '?',
            0x20..=0x7e => char::from(b),
            _ => '?',
        });
    }
    if bytes.len() > SHOWN {
        out.push_str("...");
    }
    out.push('\'');
    out
}
