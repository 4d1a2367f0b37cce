//! What the agent keeps on disk: one file of lines, appended to and flushed once for all that came together, and
//! written anew when most of it is old.
//!
//! Invariants:
//! - What [`Journal::append`] wrote is durable when [`Journal::flush`] has returned: whole, and behind everything that
//!   was appended before it.
//! - The file grows by written zeros ahead of the lines, so that a flush changes no size and is one write of the disk
//!   and not a transaction of the file system.
//! - Each line carries a checksum. After a power cut the last flush may be torn; what is torn was never acted upon and
//!   counts as not written.

use haneul_core::{Error, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Zeros that are written ahead at a time.
const AHEAD: u64 = 1 << 20;
/// A smaller file is not worth writing anew.
const SMALL: u64 = 4 << 20;

/// Writes a file so that it is there whole or not at all, also after a power cut.
pub(crate) fn write_durably(path: &Path, bytes: &[u8]) -> Result<()> {
    let dir = path
        .parent()
        .ok_or_else(|| Error::internal("a file without a directory"))?;
    std::fs::create_dir_all(dir)?;
    let tmp = path.with_extension("tmp");
    let mut file = File::options()
        .create(true)
        .write(true)
        .truncate(true)
        .mode(0o600)
        .open(&tmp)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&tmp, path)?;
    File::open(dir)?.sync_all()?;
    Ok(())
}

pub(crate) struct Journal {
    path: PathBuf,
    file: Arc<File>,
    /// Where the next line goes.
    end: u64,
    /// Up to where there are zeros or lines.
    size: u64,
    /// How long it was when it was last written anew.
    fresh: u64,
    /// A flush failed. The kernel may have dropped what it could not write and call the next flush good: what is
    /// appended here now may stand behind a hole.
    failed: bool,
}

impl Journal {
    /// Reads the lines of the file, oldest first. What does not pass its checksum is left out.
    pub fn read<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>> {
        let bytes = match std::fs::read(path) {
            Ok(b) => b,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(vec![]),
            Err(e) => return Err(e.into()),
        };
        let mut out = Vec::new();
        let used = bytes.split(|b| *b == 0).next().unwrap_or_default();
        for line in used.split(|b| *b == b'\n').filter(|l| !l.is_empty()) {
            let whole = line
                .split_at_checked(9)
                .filter(|(sum, text)| *sum == format!("{:08x} ", crc32(text)).as_bytes());
            match whole {
                Some((_, text)) => out.push(
                    serde_json::from_slice(text).map_err(|e| Error::internal(format!("{}: {e}", path.display())))?,
                ),
                None => tracing::warn!(file = %path.display(), bytes = line.len(), "a torn line was left out"),
            }
        }
        Ok(out)
    }

    /// Begins a file with these lines, in place of the old one, durably.
    pub fn create<'a, T: Serialize + 'a>(path: &Path, lines: impl Iterator<Item = &'a T>) -> Result<Self> {
        let mut bytes = Vec::new();
        for line in lines {
            push(&mut bytes, line)?;
        }
        let end = bytes.len() as u64;
        bytes.resize(bytes.len() + AHEAD as usize, 0);
        write_durably(path, &bytes)?;
        Ok(Self {
            path: path.to_path_buf(),
            file: Arc::new(File::options().write(true).open(path)?),
            end,
            size: bytes.len() as u64,
            fresh: end,
            failed: false,
        })
    }

    /// Whether it is to be written anew before more is appended: most of it is old, or a flush failed.
    pub fn is_stale(&self) -> bool {
        self.failed || self.end > SMALL.max(self.fresh * 4)
    }

    /// To be called when a flush failed.
    pub fn distrust(&mut self) {
        self.failed = true;
    }

    /// The same file, written anew with these lines.
    pub fn renew<'a, T: Serialize + 'a>(&mut self, lines: impl Iterator<Item = &'a T>) -> Result<()> {
        *self = Self::create(&self.path, lines)?;
        Ok(())
    }

    /// Appends lines. They survive the end of this process at once, and a power cut after the next [`Journal::flush`].
    pub fn append<'a, T: Serialize + 'a>(&mut self, lines: impl Iterator<Item = &'a T>) -> Result<()> {
        let mut bytes = Vec::new();
        for line in lines {
            push(&mut bytes, line)?;
        }
        let end = self.end + bytes.len() as u64;
        if end > self.size {
            // Behind the lines, so that a full disk is found out before anything is half written.
            let zeros = vec![0; (end - self.size + AHEAD) as usize];
            self.file.write_all_at(&zeros, self.size)?;
            self.size += zeros.len() as u64;
        }
        self.file.write_all_at(&bytes, self.end)?;
        self.end = end;
        Ok(())
    }

    /// Lets every flush from now on fail, and loses what is appended.
    #[cfg(test)]
    pub fn lose(&mut self) -> Result<()> {
        self.file = Arc::new(File::options().write(true).open("/dev/null")?);
        Ok(())
    }

    /// What makes durable all that was appended until now; to be called without holding anybody up.
    pub fn flush(&self) -> impl FnOnce() -> Result<()> + use<> {
        let file = self.file.clone();
        move || Ok(file.sync_data()?)
    }
}

fn push(out: &mut Vec<u8>, line: &impl Serialize) -> Result<()> {
    let text = serde_json::to_vec(line)?;
    out.extend_from_slice(format!("{:08x} ", crc32(&text)).as_bytes());
    out.extend_from_slice(&text);
    out.push(b'\n');
    Ok(())
}

/// CRC-32 as in zip and Ethernet.
fn crc32(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut i = 0;
        while i < 256 {
            let mut c = i as u32;
            let mut k = 0;
            while k < 8 {
                c = if c & 1 == 1 { (c >> 1) ^ 0xedb8_8320 } else { c >> 1 };
                k += 1;
            }
            table[i] = c;
            i += 1;
        }
        table
    };
    !bytes
        .iter()
        .fold(!0, |c, b| (c >> 8) ^ TABLE[usize::from((c as u8) ^ b)])
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn path() -> PathBuf {
        std::env::temp_dir().join(format!("haneul-journal-{}", haneul_core::id::hex()))
    }

    #[test]
    fn sums() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn keeps_order_across_growth_and_renewal() {
        let path = path();
        let mut j = Journal::create(&path, std::iter::empty::<&String>()).unwrap();
        let lines: Vec<String> = (0..40_000).map(|i| format!("{i} {}", "x".repeat(i % 90))).collect();
        for some in lines.chunks(7) {
            j.append(some.iter()).unwrap();
        }
        j.flush()().unwrap();
        assert!(j.size > 2 * AHEAD && j.size >= j.end);
        assert_eq!(std::fs::metadata(&path).unwrap().len(), j.size);
        assert_eq!(Journal::read::<String>(&path).unwrap(), lines);
        j.renew(lines.iter().take(3)).unwrap();
        j.append(lines.iter().skip(10).take(1)).unwrap();
        assert_eq!(
            Journal::read::<String>(&path).unwrap(),
            [0, 1, 2, 10].map(|i: usize| lines[i].clone())
        );
        std::fs::remove_file(&path).unwrap();
    }

    /// A power cut in the middle of the last flush: any part of its bytes may be missing, or still zeros.
    #[test]
    fn a_torn_end_is_as_if_not_written() {
        let path = path();
        let mut j = Journal::create(&path, std::iter::empty::<&String>()).unwrap();
        j.append([&"first".to_owned(), &"second".to_owned()].into_iter())
            .unwrap();
        let safe = j.end as usize;
        j.append([&"third".to_owned(), &"fourth".to_owned()].into_iter())
            .unwrap();
        let whole = std::fs::read(&path).unwrap();
        for at in safe..j.end as usize {
            for mut torn in [whole[..at].to_vec(), whole.clone()] {
                if let Some(b) = torn.get_mut(at) {
                    *b = 0;
                }
                std::fs::write(&path, torn).unwrap();
                let read = Journal::read::<String>(&path).unwrap();
                assert_eq!(read[..2], ["first", "second"], "{at}");
                assert!(read[2..].iter().all(|l| l == "third" || l == "fourth"), "{at} {read:?}");
            }
        }
        std::fs::remove_file(&path).unwrap();
    }
}
