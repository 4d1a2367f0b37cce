//! The directory of image files.
//!
//! Bytes come in under `KEY.part` and are renamed to `KEY` when they are complete, checked and on the disk.
//! A key names one upload, and the image's row names the key before the first byte is written, so that
//! after a crash the rows say which files to remove. A file that no row knows is left alone: absence is
//! never delete, for the database may be a restored older one.

use crate::format::{DiskFormat, InspectError, Inspection, inspect};
use haneul_core::durable::make_dir;
use haneul_core::{Error, Kind, Result, fault_point};
use md5::Md5;
use sha2::{Digest, Sha512};
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Files {
    dir: PathBuf,
    /// Room that stays free on the file system.
    reserve: u64,
}

impl Files {
    /// Opens the directory, made on first use and readable by its owner only.
    pub fn open(dir: PathBuf, reserve: u64) -> Result<Self> {
        make_dir(&dir, 0o700).map_err(|e| Error::internal(format!("{}: {e}", dir.display())))?;
        Ok(Self { dir, reserve })
    }

    /// A directory that may not be there.
    pub fn at(dir: PathBuf, reserve: u64) -> Self {
        Self { dir, reserve }
    }

    fn path(&self, key: &str) -> Result<PathBuf> {
        // Keys come from our own rows; a row that was tampered with must not reach another file.
        if key.is_empty() || !key.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(Error::internal(format!("image file key {key:?}")));
        }
        Ok(self.dir.join(key))
    }

    fn part(&self, key: &str) -> Result<PathBuf> {
        Ok(self.path(key)?.with_extension("part"))
    }

    /// Refuses when `more` bytes would leave less than the reserve. `written` is for the message.
    pub fn must_fit(&self, written: u64, more: u64) -> Result<()> {
        let stat = rustix::fs::statvfs(&self.dir)
            .map_err(|e| Error::internal(format!("statvfs {}: {e}", self.dir.display())))?;
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        if more.saturating_add(self.reserve) <= free {
            return Ok(());
        }
        Err(self.full(written, more, free))
    }

    fn full(&self, written: u64, more: u64, free: u64) -> Error {
        let short = more.saturating_add(self.reserve).saturating_sub(free);
        Error::new(
            Kind::InsufficientStorage,
            format!(
                "Image storage media is full: {more} more bytes are needed after {written} that were \
                 written, {free} are free, and {} of these stay reserved. Free at least {short} bytes on \
                 the host of the image service (delete images, or enlarge its disk), or upload a smaller \
                 image; the image is queued again.",
                self.reserve
            ),
        )
        .with_details(serde_json::json!({
            "needed": more, "written": written, "free": free, "reserved": self.reserve, "short": short,
        }))
    }

    /// Turns a failed write into what the user can act on.
    fn failed(&self, written: u64, more: u64, e: &std::io::Error) -> Error {
        if matches!(
            e.kind(),
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge
        ) {
            let free = rustix::fs::statvfs(&self.dir).map_or(0, |s| s.f_bavail.saturating_mul(s.f_frsize));
            return self.full(written, more, free).with_private(e);
        }
        Error::internal(format!("{}: {e}", self.dir.display()))
    }

    /// Starts a new file. Blocking.
    pub fn create(&self, key: &str) -> Result<Sink> {
        let part = self.part(key)?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&part)
            .map_err(|e| self.failed(0, 0, &e))?;
        Ok(Sink {
            files: self.clone(),
            key: key.to_owned(),
            file,
            written: 0,
            md5: Md5::new(),
            sha512: Sha512::new(),
        })
    }

    /// Whether a complete file is there. Blocking.
    pub fn has(&self, key: &str) -> Result<bool> {
        Ok(self.path(key)?.is_file())
    }

    /// A file that something else than an upload writes: [`Files::complete`] gives it its name. Blocking.
    pub fn create_plain(&self, key: &str) -> Result<File> {
        OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(self.part(key)?)
            .map_err(|e| self.failed(0, 0, &e))
    }

    /// Makes a file and its name durable. Blocking.
    pub fn complete(&self, key: &str, file: &File) -> Result<()> {
        file.sync_all().map_err(|e| self.failed(0, 0, &e))?;
        fault_point!("image.upload.synced");
        let (part, path) = (self.part(key)?, self.path(key)?);
        std::fs::rename(&part, &path).map_err(|e| match e.kind() {
            // Somebody deleted the image meanwhile.
            ErrorKind::NotFound => Error::new(Kind::Gone, "The image was deleted.").with_private(e),
            _ => Error::internal(format!("{}: {e}", part.display())),
        })?;
        sync_dir(&self.dir)?;
        fault_point!("image.upload.renamed");
        Ok(())
    }

    /// Opens a complete file for reading. Blocking.
    pub fn read(&self, key: &str) -> Result<File> {
        let path = self.path(key)?;
        File::open(&path).map_err(|e| Error::internal(format!("{}: {e}", path.display())))
    }

    /// Removes whatever there is under a key; nothing is fine. Blocking.
    pub fn remove(&self, key: &str) -> Result<()> {
        let mut removed = false;
        for path in [self.part(key)?, self.path(key)?] {
            match std::fs::remove_file(&path) {
                Ok(()) => removed = true,
                Err(e) if e.kind() == ErrorKind::NotFound => {}
                Err(e) => return Err(Error::internal(format!("{}: {e}", path.display()))),
            }
        }
        if removed {
            sync_dir(&self.dir)?;
        }
        Ok(())
    }

    /// Names of all files, for audit and tests.
    pub fn names(&self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.dir)? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        names.sort();
        Ok(names)
    }
}

fn sync_dir(dir: &Path) -> Result<()> {
    File::open(dir)
        .and_then(|d| d.sync_all())
        .map_err(|e| Error::internal(format!("{}: {e}", dir.display())))
}

/// A file that is being written. Its methods block; the upload moves it to a blocking thread for each
/// batch, so that a slow client holds no thread.
pub(crate) struct Sink {
    files: Files,
    key: String,
    file: File,
    written: u64,
    md5: Md5,
    sha512: Sha512,
}

/// A complete file.
#[derive(Clone, Debug)]
pub(crate) struct Bytes {
    pub size: u64,
    pub md5: String,
    pub sha512: String,
}

/// Checks the contents of a file against its declared format. Blocking.
pub(crate) fn inspected(file: &mut File, declared: DiskFormat) -> Result<Inspection> {
    inspect(file, Some(declared)).map_err(|e| match e {
        InspectError::Refused(r) => crate::logic::refused(&r),
        InspectError::Io(e) => Error::internal(format!("inspecting an image: {e}")),
    })
}

impl Sink {
    /// Appends a batch.
    pub fn write(mut self, batch: &[bytes::Bytes]) -> Result<Self> {
        let more: u64 = batch.iter().map(|b| b.len() as u64).sum();
        fault_point!(
            "image.upload.write",
            self.files.failed(self.written, more, &ErrorKind::StorageFull.into())
        );
        self.files.must_fit(self.written, more)?;
        for bytes in batch {
            self.file
                .write_all(bytes)
                .map_err(|e| self.files.failed(self.written, more, &e))?;
            self.md5.update(bytes);
            self.sha512.update(bytes);
            self.written += bytes.len() as u64;
        }
        Ok(self)
    }

    /// Checks the contents, makes file and name durable.
    pub fn finish(mut self, declared: DiskFormat) -> Result<(Bytes, Inspection)> {
        let inspection = inspected(&mut self.file, declared)?;
        Ok((self.keep()?, inspection))
    }

    /// Makes file and name durable, whatever is in it.
    pub fn keep(self) -> Result<Bytes> {
        self.files.complete(&self.key, &self.file)?;
        Ok(Bytes {
            size: self.written,
            md5: hex(&self.md5.finalize()),
            sha512: hex(&self.sha512.finalize()),
        })
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
