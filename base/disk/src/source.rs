//! Bounded access to the bytes of an image.

use std::io::{self, Read, Seek, SeekFrom};

use super::limits;
use super::refusal::{InspectError, Refusal};

/// Where the parsers read from: random access and a known length, nothing else. Every `Read + Seek`
/// is one (a `File`, a `Cursor` over bytes in tests).
pub trait Source {
    /// The length in bytes.
    ///
    /// # Errors
    /// When the underlying file cannot tell.
    fn size(&mut self) -> io::Result<u64>;
    /// Fills `buf` from `offset`.
    ///
    /// # Errors
    /// When the bytes cannot be read, the end of the file included.
    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<()>;
}

impl<T: Read + Seek> Source for T {
    fn size(&mut self) -> io::Result<u64> {
        self.seek(SeekFrom::End(0))
    }

    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.seek(SeekFrom::Start(offset))?;
        self.read_exact(buf)
    }
}

/// A source with its length, through which the parsers read. All reads are checked against the length
/// and against [`limits::MAX_READ`], so that a number from a header never becomes an allocation.
pub(super) struct Image<'a> {
    source: &'a mut dyn Source,
    size: u64,
}

impl<'a> Image<'a> {
    pub fn open(source: &'a mut dyn Source) -> io::Result<Self> {
        let size = source.size()?;
        Ok(Self { source, size })
    }

    pub fn size(&self) -> u64 {
        self.size
    }

    /// Up to `len` bytes from the start, fewer when the file is shorter.
    pub fn head(&mut self, len: usize) -> io::Result<Vec<u8>> {
        let len = usize::try_from(self.size).unwrap_or(usize::MAX).min(len);
        let mut buf = vec![0; len];
        self.source.read_at(0, &mut buf)?;
        Ok(buf)
    }

    /// Exactly `len` bytes at `offset`; `what` names the structure in the refusal.
    pub fn bytes(&mut self, what: &str, offset: u64, len: u64) -> Result<Vec<u8>, InspectError> {
        self.must_contain(what, offset, len)?;
        if len > limits::MAX_READ {
            return Err(Refusal::too_large(what, len, limits::MAX_READ, "bytes").into());
        }
        let mut buf = vec![0; usize::try_from(len).unwrap_or(0)];
        self.source.read_at(offset, &mut buf)?;
        Ok(buf)
    }

    /// Refuses when the range is not wholly inside the file.
    pub fn must_contain(&self, what: &str, offset: u64, len: u64) -> Result<(), Refusal> {
        match offset.checked_add(len) {
            Some(end) if end <= self.size => Ok(()),
            _ => Err(Refusal::out_of_file(what, offset, len, self.size)),
        }
    }

    /// Reads a table in pieces and hands each piece with its offset in the table to `f`, so that a
    /// table of any allowed size needs one small buffer.
    pub fn walk(
        &mut self,
        what: &str,
        offset: u64,
        len: u64,
        mut f: impl FnMut(u64, &[u8]) -> Result<(), Refusal>,
    ) -> Result<(), InspectError> {
        self.must_contain(what, offset, len)?;
        let mut done = 0;
        while done < len {
            let step = (len - done).min(limits::WALK_STEP);
            let piece = self.bytes(what, offset + done, step)?;
            f(done, &piece)?;
            done += step;
        }
        Ok(())
    }
}

/// Declares readers of fixed-width numbers. A reader returns 0 beyond the end of the slice: callers
/// hold slices of a checked length, and a mistake there must not become a panic on a stranger's bytes.
macro_rules! number {
    ($name:ident, $ty:ty, $from:ident) => {
        pub(super) fn $name(bytes: &[u8], at: usize) -> $ty {
            const N: usize = std::mem::size_of::<$ty>();
            at.checked_add(N)
                .and_then(|end| bytes.get(at..end))
                .and_then(|s| <[u8; N]>::try_from(s).ok())
                .map_or(0, <$ty>::$from)
        }
    };
}
number!(be16, u16, from_be_bytes);
number!(be32, u32, from_be_bytes);
number!(be64, u64, from_be_bytes);
number!(le16, u16, from_le_bytes);
number!(le32, u32, from_le_bytes);
number!(le64, u64, from_le_bytes);

/// The part of `bytes` in `at..at+len`, clipped to what is there.
pub(super) fn part(bytes: &[u8], at: usize, len: usize) -> &[u8] {
    let start = at.min(bytes.len());
    let end = start.saturating_add(len).min(bytes.len());
    bytes.get(start..end).unwrap_or(&[])
}
