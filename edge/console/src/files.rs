//! noVNC's files, as Debian's package `novnc` has them.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

/// Largest file that is served, bytes; noVNC's largest has 100 KB.
const LARGEST: u64 = 4 << 20;

/// Content type and bytes of a file; `None` when there is none, or its name is not one that noVNC has.
pub(crate) fn read(dirs: &[PathBuf], name: &str) -> Option<(&'static str, Vec<u8>)> {
    let plain = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
    };
    if !name.split('/').all(plain) {
        return None;
    }
    let kind = match name.rsplit_once('.')?.1 {
        "js" => "text/javascript",
        "css" => "text/css",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        _ => return None,
    };
    let file = dirs.iter().find_map(|d| File::open(d.join(name)).ok())?;
    let mut bytes = Vec::new();
    file.take(LARGEST + 1).read_to_end(&mut bytes).ok()?;
    (bytes.len() as u64 <= LARGEST).then_some((kind, bytes))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_below() {
        let dir = std::env::temp_dir().join(format!("haneul-novnc-{}", haneul_core::id::hex()));
        std::fs::create_dir_all(dir.join("in/core")).unwrap();
        std::fs::write(dir.join("in/core/rfb.js"), "x").unwrap();
        std::fs::write(dir.join("secret.js"), "x").unwrap();
        std::fs::write(dir.join("in/key"), "x").unwrap();
        let at = [dir.join("none"), dir.join("in")];
        assert_eq!(read(&at, "core/rfb.js"), Some(("text/javascript", b"x".to_vec())));
        for name in [
            "../secret.js",
            "core/../../secret.js",
            "/etc/passwd",
            "key",
            "core//rfb.js",
            ".x.js",
            "",
        ] {
            assert_eq!(read(&at, name), None, "{name}");
        }
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
