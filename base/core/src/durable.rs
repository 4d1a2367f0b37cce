//! Directories that are there after a power cut. The flush of a file makes neither its name durable nor the directory
//! that it is in; some file systems do both by the way, others do not.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

/// Makes durable which names are in the directory: what was created, renamed or removed there.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// The directory that holds this one, or this file.
pub fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(up) if !up.as_os_str().is_empty() => up,
        Some(_) => Path::new("."),
        None => path,
    }
}

/// Makes a directory, and those above it that are missing, durably. One that is there is left as it is.
pub fn make_dir(dir: &Path, mode: u32) -> io::Result<()> {
    let make = || DirBuilder::new().mode(mode).create(dir);
    let made = match make() {
        Err(e) if e.kind() == io::ErrorKind::NotFound && parent(dir) != dir => {
            make_dir(parent(dir), mode)?;
            make()
        }
        other => other,
    };
    match made {
        Ok(()) => sync_dir(parent(dir)),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => Ok(()),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn makes_what_is_missing_and_leaves_what_is_there() {
        let top = std::env::temp_dir().join(format!("haneul-durable-{}", crate::id::hex()));
        let dir = top.join("a/b");
        make_dir(&dir, 0o700).unwrap();
        make_dir(&dir, 0o755).unwrap();
        let mode = std::fs::metadata(&dir).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        std::fs::write(top.join("file"), "").unwrap();
        assert!(make_dir(&top.join("file"), 0o700).is_err());
        assert!(make_dir(&top.join("file/in-it"), 0o700).is_err());
        assert_eq!(parent(Path::new("here")), Path::new("."));
        std::fs::remove_dir_all(top).unwrap();
    }
}
