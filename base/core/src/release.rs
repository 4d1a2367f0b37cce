//! Which release this build is.
//!
//! It stands behind a mark in the binary and is read from there, so that a test makes a build of the next release by
//! writing over a copy's stamp ([`stamp`]), and upgrades to it and back. A build that is `ahead` speaks a newer protocol
//! with hosts by as much, too.

use crate::{Error, Result};
use std::sync::OnceLock;

const MARK: &str = "haneul-build-stamp ";
/// Bytes behind the mark: release, `ahead`, spaces.
const ROOM: usize = 32;

const fn stamped(release: &str) -> [u8; MARK.len() + ROOM] {
    let mut out = [b' '; MARK.len() + ROOM];
    let mut n = 0;
    while n < MARK.len() {
        out[n] = MARK.as_bytes()[n];
        n += 1;
    }
    let mut m = 0;
    while m < release.len() {
        out[n + m] = release.as_bytes()[m];
        m += 1;
    }
    out[n + m + 1] = b'0';
    out
}

#[used]
static STAMP: [u8; MARK.len() + ROOM] = stamped(env!("CARGO_PKG_VERSION"));

/// The bytes of a build's stamp: what to look for in a binary, and what to write over it.
pub fn stamp(release: &str, ahead: u32) -> Vec<u8> {
    format!("{MARK}{:ROOM$}", format!("{release} {ahead}")).into_bytes()
}

fn read() -> &'static (String, u32) {
    static READ: OnceLock<(String, u32)> = OnceLock::new();
    READ.get_or_init(|| {
        // Not what the compiler knows of it: a copy of this binary may say something else.
        let bytes = std::hint::black_box(&STAMP);
        let text = String::from_utf8_lossy(bytes.get(MARK.len()..).unwrap_or_default()).into_owned();
        let mut words = text.split_whitespace();
        let release = words.next().unwrap_or_default().to_owned();
        (release, words.next().and_then(|n| n.parse().ok()).unwrap_or(0))
    })
}

/// This build's release, `MAJOR.MINOR.PATCH`.
pub fn name() -> &'static str {
    &read().0
}

/// By how much this build's protocol is newer than its sources say; 0 but in the upgrade test.
pub fn ahead() -> u32 {
    read().1
}

fn parts(release: &str) -> Option<(u64, u64)> {
    let mut numbers = release.split('.').map(|n| n.parse().ok());
    Some((numbers.next()??, numbers.next()??))
}

/// Refuses what a release wrote that is more than one newer than this one.
///
/// # Errors
/// Conflict, with both releases.
pub fn check_wrote(theirs: &str) -> Result<()> {
    let ours = name();
    let fits = match (parts(theirs), parts(ours)) {
        (Some((major, minor)), Some((our_major, our_minor))) => {
            major < our_major || (major == our_major && minor <= our_minor + 1)
        }
        _ => false,
    };
    if fits {
        return Ok(());
    }
    Err(Error::conflict(format!(
        "release {theirs} has written here, and this is {ours}: a release goes back by one, not by more. Use {theirs}, or the one before it"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_goes_back_by_one() {
        assert_eq!(name(), env!("CARGO_PKG_VERSION"));
        assert_eq!(STAMP.to_vec(), stamp(name(), 0));
        let (major, minor) = parts(name()).unwrap_or_default();
        for (ahead, fits) in [(0, true), (1, true), (2, false)] {
            let theirs = format!("{major}.{}.7", minor + ahead);
            assert_eq!(check_wrote(&theirs).is_ok(), fits, "{theirs}");
        }
        assert!(check_wrote(&format!("{}.0.0", major + 1)).is_err() && check_wrote("new").is_err());
    }
}
