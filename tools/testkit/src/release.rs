//! A build of the next release, made of this one's.

use haneul_core::release::{name, stamp};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// Copies the binary into `dir`, marked one release newer.
pub fn next_release(binary: &Path, dir: &Path) -> PathBuf {
    let copy = dir.join("haneul-next");
    std::fs::copy(binary, &copy).expect("a copy of the binary");
    let mut file = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(&copy)
        .expect("the copy");
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).expect("the copy's bytes");
    let mut numbers = name().split('.').map(|n| n.parse::<u32>().expect("a number"));
    let (major, minor) = (numbers.next().expect("major"), numbers.next().expect("minor"));
    let (old, new) = (stamp(name(), 0), stamp(&format!("{major}.{}.0", minor + 1), 1));
    let first = old.first().copied().expect("a stamp");
    let found: Vec<usize> = bytes
        .windows(old.len())
        .enumerate()
        .filter(|(_, w)| w.first() == Some(&first) && *w == old)
        .map(|(at, _)| at)
        .collect();
    assert_eq!(found.len(), 1, "places in the binary that bear the release's stamp");
    file.seek(SeekFrom::Start(found[0] as u64)).expect("seek");
    file.write_all(&new).expect("written");
    copy
}
