//! The serial log. QEMU appends to `console.log` itself, so nothing is lost while our processes are dead;
//! we keep it bounded by looking at its size every few seconds: past [`LIMIT`] it becomes `console.log.old`
//! (one is kept) and starts anew. While no agent lives the log can grow; the next one cuts it at once.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

/// Bytes after which the log is rotated; at the most about twice this is kept.
pub(crate) const LIMIT: u64 = 1 << 20;
const NAME: &str = "console.log";
const OLD: &str = "console.log.old";

/// Opens the log for QEMU.
pub(crate) fn open(dir: &Path) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(dir.join(NAME))
}

/// Cheap look whether [`rotate`] has work.
pub(crate) fn is_full(dir: &Path) -> bool {
    past_limit(&dir.join(NAME))
}

fn past_limit(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|m| m.len() > LIMIT)
}

/// Empties QEMU's own log when it has grown past [`LIMIT`]: what a start wrote is long read by then, and a
/// guest may be able to make QEMU complain without end.
pub(crate) fn bound_log(dir: &Path, name: &str) -> io::Result<()> {
    let path = dir.join(name);
    if past_limit(&path) {
        OpenOptions::new().write(true).open(path)?.set_len(0)?;
    }
    Ok(())
}

/// Moves the last [`LIMIT`] bytes aside and empties the log. QEMU has the file open for appending, so
/// it goes on at the new end; bytes written between copy and cut are lost, which a log can bear.
pub(crate) fn rotate(dir: &Path) -> io::Result<()> {
    let log = OpenOptions::new().read(true).write(true).open(dir.join(NAME))?;
    let size = log.metadata()?.len();
    let mut keep = vec![0_u8; size.min(LIMIT) as usize];
    let from = size - keep.len() as u64;
    let n = log.read_at(&mut keep, from)?;
    keep.truncate(n);
    let tmp = dir.join("console.log.tmp");
    let mut old = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&tmp)?;
    old.write_all(&keep)?;
    fs::rename(&tmp, dir.join(OLD))?;
    log.set_len(0)
}

/// The end of the log: the last `lines` lines, or all that is kept.
pub(crate) fn tail(dir: &Path, lines: Option<u32>) -> io::Result<Vec<u8>> {
    let mut all = Vec::new();
    for name in [OLD, NAME] {
        match File::open(dir.join(name)) {
            Ok(mut f) => {
                let size = f.metadata()?.len();
                f.seek(SeekFrom::Start(size.saturating_sub(LIMIT)))?;
                f.take(LIMIT).read_to_end(&mut all)?;
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
    }
    if let Some(wanted) = lines {
        let body = all.strip_suffix(b"\n").unwrap_or(&all);
        let mut seen = 0_u32;
        let from = body
            .iter()
            .rposition(|b| {
                seen += u32::from(*b == b'\n');
                seen == wanted.max(1)
            })
            .map_or(0, |i| i + 1);
        if wanted == 0 {
            all.clear();
        } else {
            all.drain(..from);
        }
    }
    Ok(all)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn bounded_and_by_lines() {
        let dir = std::env::temp_dir().join(format!("hnc-{}", uuid::Uuid::new_v4().simple()));
        fs::create_dir(&dir).unwrap();
        let mut log = open(&dir).unwrap();
        for n in 0..200_000 {
            writeln!(log, "line {n}").unwrap();
        }
        assert!(is_full(&dir));
        rotate(&dir).unwrap();
        assert!(!is_full(&dir));
        writeln!(log, "after").unwrap();
        let text = String::from_utf8(tail(&dir, Some(2)).unwrap()).unwrap();
        assert_eq!(text, "line 199999\nafter\n");
        assert_eq!(tail(&dir, Some(0)).unwrap(), b"");
        assert!(tail(&dir, None).unwrap().len() as u64 <= 2 * LIMIT);
        assert_eq!(tail(&dir, Some(u32::MAX)).unwrap(), tail(&dir, None).unwrap());
        fs::remove_dir_all(&dir).unwrap();
    }
}
