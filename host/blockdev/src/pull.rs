//! One pull of one image: stream to a temporary file, size and SHA-512 checked on the way, converted where QEMU is not
//! given the format, then renamed.

use crate::{ImageStream, OpenImage, cached_format, disk_full, failure, io_failure, is_converted, qcow2};
use haneul_agent_api::{Failure, FailureCode, ImageRef};
use haneul_core::fault_point;
use haneul_disk::{ConvertError, DiskFormat};
use sha2::{Digest, Sha512};
use std::fs::{File, OpenOptions};
use std::io::{Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::sync::{mpsc, watch};

/// Longest silence of the source before the pull is given up.
const STALL: Duration = Duration::from_secs(60);
const CHUNK: usize = 1 << 18;

/// What waiters see of a pull.
#[derive(Clone, Debug, Default)]
pub(crate) struct State {
    pub bytes: u64,
    pub done: Option<Result<(), Failure>>,
}

/// Removes a temporary file unless it was kept: a failed or aborted pull leaves nothing.
struct Temporary(Option<PathBuf>);

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Some(path) = self.0.take() {
            let _ = std::fs::remove_file(path);
        }
    }
}

pub(crate) fn free_space(dir: &Path) -> u64 {
    nix::sys::statvfs::statvfs(dir).map_or(0, |s| s.blocks_available() * s.fragment_size())
}

/// Makes names in `dir` durable.
pub(crate) fn sync_dir(dir: &Path) -> std::io::Result<()> {
    File::open(dir)?.sync_all()
}

/// The files of pulls and conversions that are under way here. In a directory that hosts share each has names of its own.
#[derive(Clone, Debug)]
pub(crate) struct Parts {
    pub dir: PathBuf,
    pub ending: String,
}

impl Parts {
    fn pulled(&self, image: &ImageRef) -> PathBuf {
        self.dir.join(format!(".{}.{}", image.id, self.ending))
    }

    fn converted(&self, image: &ImageRef) -> PathBuf {
        self.dir.join(format!(".{}.raw.{}", image.id, self.ending))
    }

    /// Gives a whole file its name. One that another host has put there stays, for guests may have it open: a file that is
    /// replaced is gone for those who have it open over a network.
    fn publish(&self, part: &Path, image: &ImageRef) -> std::io::Result<()> {
        let name = self.dir.join(image.id.to_string());
        match std::fs::hard_link(part, &name) {
            Ok(()) => std::fs::remove_file(part),
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
                if std::fs::metadata(part)?.len() == std::fs::metadata(&name)?.len() {
                    return std::fs::remove_file(part);
                }
                // Damaged: the same image always has the same size.
                std::fs::rename(part, &name)
            }
            Err(e) => Err(e),
        }
    }
}

pub(crate) async fn run(
    parts: Parts,
    image: ImageRef,
    open: OpenImage,
    state: watch::Sender<State>,
) -> Result<(), Failure> {
    let free = free_space(&parts.dir);
    if free < image.size {
        return Err(disk_full(
            "store the image",
            image.size,
            free,
            "checked before the pull",
        ));
    }
    let stream = tokio::time::timeout(STALL, open())
        .await
        .map_err(|_| unavailable("the image's source did not answer", &image))??;
    let (send, receive) = mpsc::channel::<Vec<u8>>(8);
    let writer = tokio::task::spawn_blocking({
        let image = image.clone();
        move || write(&parts, &image, receive, &state)
    });
    let fed = feed(stream, &image, send).await;
    let written = writer
        .await
        .map_err(|e| failure(FailureCode::Internal, "storing the image failed", e))?;
    // The writer's own error first: when it stops, the feeder only sees a closed channel.
    match (written, fed) {
        (Err(Stopped::Failed(e)), _) | (_, Err(e)) => Err(e),
        (Err(Stopped::Short), Ok(())) => Err(unavailable("the image's stream broke off", &image)),
        (Ok(()), Ok(())) => Ok(()),
    }
}

fn unavailable(why: &str, image: &ImageRef) -> Failure {
    failure(
        FailureCode::ImageUnavailable,
        why,
        format!("image {}, {} bytes", image.id, image.size),
    )
}

/// Moves the stream into the channel. An empty chunk says "that was all".
async fn feed(mut stream: ImageStream, image: &ImageRef, send: mpsc::Sender<Vec<u8>>) -> Result<(), Failure> {
    let mut total = 0_u64;
    loop {
        let mut chunk = Vec::with_capacity(CHUNK);
        let n = tokio::time::timeout(STALL, stream.read_buf(&mut chunk))
            .await
            .map_err(|_| unavailable("the image's stream stands still", image))?
            .map_err(|e| failure(FailureCode::ImageUnavailable, "the image's stream broke off", e))?;
        total += n as u64;
        if total > image.size {
            return Err(failure(
                FailureCode::ImageCorrupt,
                format!("the image is larger than the {} bytes it should have", image.size),
                image.id,
            ));
        }
        if n == 0 {
            if total < image.size {
                return Err(failure(
                    FailureCode::ImageUnavailable,
                    format!("the image's stream ended after {total} of {} bytes", image.size),
                    image.id,
                ));
            }
            let _ = send.send(Vec::new()).await;
            return Ok(());
        }
        if send.send(chunk).await.is_err() {
            return Ok(());
        }
    }
}

enum Stopped {
    /// The feeder went away without saying that this was all; it knows why.
    Short,
    Failed(Failure),
}

/// Makes the raw disk of an image that QEMU is not given. Our own code reads it, after it has been inspected once more:
/// control may be taken over, and no tool shall meet a stranger's structures.
fn convert(dir: &Path, image: &ImageRef, mut file: File, raw: &Path) -> Result<File, Stopped> {
    /// Between two looks at the space that is left.
    const LOOK: u64 = 64 << 20;
    let what = "convert the image";
    let io = |e: std::io::Error| Stopped::Failed(io_failure(what, image.virtual_size, free_space(dir), &e));
    let Some(format) = DiskFormat::from_glance_name(&image.format) else {
        return Err(Stopped::Failed(failure(
            FailureCode::Internal,
            "no such format",
            &image.format,
        )));
    };
    let out = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(raw)
        .map_err(io)?;
    let target = out.try_clone().map_err(io)?;
    let mut since = LOOK;
    let done = haneul_disk::convert(&mut file, format, target, DiskFormat::Raw, &mut |n| {
        since += n;
        if since < LOOK {
            return true;
        }
        since = 0;
        free_space(dir) > 2 * LOOK
    });
    let converted = done.map_err(|e| match e {
        ConvertError::Refused(r) => Stopped::Failed(failure(
            FailureCode::ImageCorrupt,
            format!("the image cannot be converted: {r}"),
            image.id,
        )),
        ConvertError::Read(e) | ConvertError::Write(e) => io(e),
        ConvertError::Stopped => {
            Stopped::Failed(disk_full(what, image.virtual_size, free_space(dir), "stopped half-way"))
        }
    })?;
    if converted.virtual_size != image.virtual_size {
        return Err(Stopped::Failed(failure(
            FailureCode::ImageCorrupt,
            format!(
                "the image is damaged: its disk has {} bytes, {} were recorded at upload",
                converted.virtual_size, image.virtual_size
            ),
            image.id,
        )));
    }
    Ok(out)
}

fn write(
    parts: &Parts,
    image: &ImageRef,
    mut receive: mpsc::Receiver<Vec<u8>>,
    state: &watch::Sender<State>,
) -> Result<(), Stopped> {
    let (dir, path) = (parts.dir.as_path(), parts.pulled(image));
    let io = |e: std::io::Error| Stopped::Failed(io_failure("store the image", image.size, free_space(dir), &e));
    let corrupt = |why: String| {
        Stopped::Failed(failure(
            FailureCode::ImageCorrupt,
            format!("the image is damaged: {why}"),
            image.id,
        ))
    };
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&path)
        .map_err(io)?;
    let mut temporary = Temporary(Some(path.clone()));
    // Space is taken at once, so that a full disk shows before the bytes are moved.
    if image.size > 0 {
        let all = i64::try_from(image.size).unwrap_or(i64::MAX);
        let taken = nix::fcntl::fallocate(&file, nix::fcntl::FallocateFlags::empty(), 0, all);
        // Not every file system has it; what counts is only "no space".
        if taken == Err(nix::errno::Errno::ENOSPC) {
            return Err(io(nix::errno::Errno::ENOSPC.into()));
        }
    }
    let mut hash = Sha512::new();
    let mut bytes = 0;
    loop {
        match receive.blocking_recv() {
            None => return Err(Stopped::Short),
            Some(chunk) if chunk.is_empty() => break,
            Some(chunk) => {
                file.write_all(&chunk).map_err(io)?;
                hash.update(&chunk);
                bytes += chunk.len() as u64;
                state.send_modify(|s| s.bytes = bytes);
            }
        }
    }
    let hex: String = hash.finalize().iter().map(|b| format!("{b:02x}")).collect();
    if !hex.eq_ignore_ascii_case(&image.sha512) {
        return Err(corrupt("its SHA-512 is not the one that was recorded at upload".into()));
    }
    let mut path = path;
    if cached_format(image).map_err(Stopped::Failed)? == "qcow2" {
        file.rewind().map_err(io)?;
        let header = qcow2::check_image(&mut file).map_err(corrupt)?;
        if header.virtual_size != image.virtual_size {
            return Err(corrupt(format!(
                "its disk has {} bytes, {} were recorded at upload",
                header.virtual_size, image.virtual_size
            )));
        }
    } else if is_converted(image) {
        let raw = parts.converted(image);
        let pulled = std::mem::replace(&mut temporary, Temporary(Some(raw.clone())));
        file = convert(dir, image, file, &raw)?;
        drop(pulled);
        path = raw;
    }
    file.sync_all().map_err(io)?;
    fault_point!(
        "blockdev.image.before-rename",
        Stopped::Failed(failure(
            FailureCode::DiskError,
            "the host could not store the image",
            "fault point"
        ))
    );
    parts.publish(&path, image).map_err(io)?;
    temporary.0 = None;
    sync_dir(dir).map_err(io)?;
    fault_point!("blockdev.image.stored");
    Ok(())
}
