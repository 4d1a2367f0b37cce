//! The check that runs while an upload is still coming in.

use super::{Detected, DiskFormat, Refusal, iso, limits, qcow2, raw, settle, signature, vmdk};

/// Watches the first bytes of an upload and refuses as soon as they rule the declared format out, or
/// show something that [`super::inspect`] would refuse anyway. It saves the user the rest of a large
/// upload; it never replaces the inspection of the complete file.
#[derive(Debug)]
pub struct Probe {
    declared: Option<DiskFormat>,
    head: Vec<u8>,
    /// The next length of `head` at which there is something new to decide.
    next_check: usize,
    refusal: Option<Refusal>,
}

/// Lengths at which a decision becomes possible.
const CHECKS: [usize; 4] = [signature::MAGIC_LEN, signature::DECIDED, 4096, limits::HEAD];

impl Probe {
    /// A probe for an upload whose owner declares this format.
    #[must_use]
    pub fn new(declared: Option<DiskFormat>) -> Self {
        Self {
            declared,
            head: Vec::new(),
            next_check: CHECKS[0],
            refusal: None,
        }
    }

    /// Takes the next bytes of the upload.
    ///
    /// # Errors
    /// The refusal, as soon as one is certain; the same again on every later call.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        if let Some(refusal) = &self.refusal {
            return Err(refusal.clone());
        }
        let room = limits::HEAD.saturating_sub(self.head.len());
        if room == 0 {
            return Ok(());
        }
        self.head.extend(bytes.iter().take(room));
        if self.head.len() < self.next_check {
            return Ok(());
        }
        self.next_check = CHECKS.into_iter().find(|&n| n > self.head.len()).unwrap_or(usize::MAX);
        let result = self.check();
        if let Err(refusal) = &result {
            self.refusal = Some(refusal.clone());
        }
        result
    }

    fn check(&self) -> Result<(), Refusal> {
        let head = &self.head;
        if let Some(format) = signature::at_start(head) {
            settle(self.declared, plain(format))?;
            if format == DiskFormat::Qcow2 && head.len() >= qcow2::HEADER_LEN {
                qcow2::Header::parse(head)?;
            }
            if format == DiskFormat::Vmdk && vmdk::is_descriptor(head) {
                return Err(vmdk::external_extents(
                    "file is a descriptor without a disk: its contents are in other files",
                ));
            }
            return Ok(());
        }
        let complete = head.len() >= limits::HEAD;
        if complete && iso::is_iso(head) {
            let found = Detected {
                format: DiskFormat::Iso,
                hybrid_iso: raw::partition_table(head).is_some(),
            };
            return settle(self.declared, found).map(|_| ());
        }
        let ruled_out = match self.declared {
            Some(DiskFormat::Qcow2 | DiskFormat::Vhdx | DiskFormat::Ploop | DiskFormat::Luks) => true,
            Some(DiskFormat::Vdi | DiskFormat::Vmdk) => head.len() >= 4096,
            Some(DiskFormat::Iso) => complete,
            // A fixed vhd has its signature at the end.
            _ => false,
        };
        if ruled_out {
            settle(self.declared, plain(DiskFormat::Raw))?;
        }
        Ok(())
    }
}

fn plain(format: DiskFormat) -> Detected {
    Detected {
        format,
        hybrid_iso: false,
    }
}
