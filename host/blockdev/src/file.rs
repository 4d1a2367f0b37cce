//! Disks as files: qcow2 layers over cached images.
//!
//! `images/ID` is a cached image, `images/.ID.part` a pull and `images/.ID.raw.part` a conversion that is under way
//! or was cut off (removed at start). `disks/GUEST/root-N.qcow2` is the root disk for rebuild counter N, `root-N.json` our note on
//! the image below it. The note is written first, so that an image with a disk always has a note. Local disks lie beside
//! it ([`crate::local`]), and what becomes an image ([`snapshot`]).
//!
//! In a directory that hosts share, `disks` is called `servers`, a pull's file has the name of its host in it, and nothing
//! is removed at start but our own pulls: the rest may be another host's work. A guest's directory has one writer, the host
//! whose guest it is.

use crate::pull::{self, Parts, State, free_space, sync_dir};
use crate::{
    BlockDriver, BoxFuture, Disk, DiskInfo, OnProgress, OpenImage, Usage, cached_format, disk_full, failure,
    io_failure, is_converted, local, qcow2, snapshot, wanted_size,
};
use haneul_agent_api::{Failure, FailureCode, ImageRef, LocalDisk, RootDisk};
use haneul_core::fault_point;
use haneul_disk::{ConvertError, DiskFormat};
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet};
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;
use uuid::Uuid;

type Pulls = Arc<Mutex<HashMap<Uuid, watch::Receiver<State>>>>;
/// Who works on a guest's files holds the guest's lock, in the thread that works.
type Turns = Arc<Mutex<HashMap<Uuid, Arc<Mutex<()>>>>>;

/// See the module.
pub struct File {
    images: PathBuf,
    disks: PathBuf,
    /// How names of pulls end.
    ending: String,
    shared: bool,
    pulls: Pulls,
    turns: Turns,
}

/// What we know about a root disk, beside it.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    version: u32,
    image: Uuid,
    image_format: String,
    /// Bytes at creation.
    size: u64,
}

const NOTE_VERSION: u32 = 1;

impl File {
    /// Opens (and makes) the directories below `dir`, and removes what cut-off writes left.
    pub fn open(dir: &Path) -> io::Result<Self> {
        let new = Self::at(dir, "disks", None)?;
        for guest in fs::read_dir(&new.disks)? {
            for entry in fs::read_dir(guest?.path())? {
                let entry = entry?;
                if entry.file_name().to_string_lossy().ends_with(".tmp") {
                    fs::remove_file(entry.path())?;
                }
            }
        }
        Ok(new)
    }

    /// Opens a directory that other hosts use too; `host` is this one.
    pub fn open_shared(dir: &Path, host: Uuid) -> io::Result<Self> {
        Self::at(dir, "servers", Some(host))
    }

    fn at(dir: &Path, disks: &str, host: Option<Uuid>) -> io::Result<Self> {
        for d in [dir, &dir.join("images"), &dir.join(disks)] {
            DirBuilder::new().recursive(true).mode(0o700).create(d)?;
        }
        let dir = dir.canonicalize()?;
        let new = Self {
            images: dir.join("images"),
            disks: dir.join(disks),
            ending: host.map_or_else(|| "part".into(), |h| format!("{h}.part")),
            shared: host.is_some(),
            pulls: Pulls::default(),
            turns: Turns::default(),
        };
        for entry in fs::read_dir(&new.images)? {
            let entry = entry?;
            if entry
                .file_name()
                .to_string_lossy()
                .ends_with(&format!(".{}", new.ending))
            {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(new)
    }

    /// Runs `f` on a thread for blocking work, one at a time for each guest. A caller that goes away does not stop
    /// what has begun, unless `f` looks at what it is given: whoever comes next waits for it. What has not begun then
    /// never does.
    fn in_turn<T: Send + 'static>(
        &self,
        guest: Uuid,
        f: impl FnOnce(&AtomicBool) -> Result<T, Failure> + Send + 'static,
    ) -> BoxFuture<'static, Result<T, Failure>> {
        let turns = Arc::clone(&self.turns);
        let turn = Arc::clone(hold(&turns).entry(guest).or_default());
        let given_up = GivenUp::default();
        let seen = Arc::clone(&given_up.0);
        let work = blocking(move || {
            let mine = hold(&turn);
            let out = if seen.load(Ordering::SeqCst) {
                Err(internal("nobody waits for it any more"))
            } else {
                f(&seen)
            };
            drop(mine);
            let mut turns = hold(&turns);
            // The table's and ours: nobody waits, and under this lock nobody comes.
            if Arc::strong_count(&turn) == 2 {
                turns.remove(&guest);
            }
            out
        });
        Box::pin(async move {
            let _given_up = given_up;
            work.await
        })
    }

    fn cached(&self, image: &ImageRef) -> bool {
        let size = if is_converted(image) {
            image.virtual_size
        } else {
            image.size
        };
        fs::metadata(self.images.join(image.id.to_string())).is_ok_and(|m| m.is_file() && m.len() == size)
    }

    /// Joins the pull of an image or starts one, in a task of its own: the guest that asked first may be
    /// told something else meanwhile, and the others still wait.
    /// `None`: it is in the cache (looked up under the lock, so that a pull that just ended is seen).
    fn join_pull(&self, image: &ImageRef, open: OpenImage) -> Option<watch::Receiver<State>> {
        let mut pulls = self.pulls.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(running) = pulls.get(&image.id) {
            return Some(running.clone());
        }
        if self.cached(image) {
            return None;
        }
        let (send, receive) = watch::channel(State::default());
        pulls.insert(image.id, receive.clone());
        let parts = Parts {
            dir: self.images.clone(),
            ending: self.ending.clone(),
        };
        let (image, pulls) = (image.clone(), Arc::clone(&self.pulls));
        tokio::spawn(async move {
            let id = image.id;
            let result = pull::run(parts, image, open, send.clone()).await;
            if let Err(e) = &result {
                tracing::warn!(image = %id, code = ?e.code, message = e.message, detail = e.detail, "pulling an image failed");
            }
            // First out of the table, then the answer: who comes now looks into the cache.
            pulls.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
            send.send_modify(|s| s.done = Some(result));
        });
        Some(receive)
    }
}

/// Dropped with the future that asked for some work.
#[derive(Default)]
struct GivenUp(Arc<AtomicBool>);

impl Drop for GivenUp {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

fn hold<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn internal(e: impl std::fmt::Display) -> Failure {
    failure(FailureCode::Internal, "the host's disk driver failed", e)
}

async fn blocking<T: Send + 'static>(f: impl FnOnce() -> Result<T, Failure> + Send + 'static) -> Result<T, Failure> {
    tokio::task::spawn_blocking(f).await.map_err(internal)?
}

/// Writes `bytes` under `name` so that it is there whole or not at all.
pub(crate) fn put(dir: &Path, name: &str, write: impl FnOnce(&mut fs::File) -> io::Result<()>) -> io::Result<()> {
    let tmp = dir.join(format!("{name}.tmp"));
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&tmp)?;
    let done = write(&mut file)
        .and_then(|()| file.sync_all())
        .and_then(|()| fs::rename(&tmp, dir.join(name)));
    if done.is_err() {
        let _ = fs::remove_file(&tmp);
    }
    done
}

/// A root disk that is there.
struct Existing {
    layer: PathBuf,
    image: PathBuf,
    note: Note,
}

fn existing(images: &Path, disks: &Path, guest: Uuid, rebuilds: u64) -> Result<Existing, Failure> {
    let dir = disks.join(guest.to_string());
    let note: Note = fs::read(dir.join(format!("root-{rebuilds}.json")))
        .map_err(|e| io_failure("read the note on the root disk", 0, 0, &e))
        .and_then(|bytes| serde_json::from_slice(&bytes).map_err(internal))?;
    Ok(Existing {
        layer: dir.join(format!("root-{rebuilds}.qcow2")),
        image: images.join(note.image.to_string()),
        note,
    })
}

impl Existing {
    /// Bytes that the disk holds at the most.
    fn data(&self, root: &RootDisk) -> Result<u64, Failure> {
        let held = |path: &Path| fs::metadata(path).map(|m| m.blocks() * 512);
        let below = match self.note.image_format.as_str() {
            "raw" => held(&self.image),
            // It may be compressed.
            _ => Ok(root.image.virtual_size),
        };
        let all = held(&self.layer).and_then(|n| Ok(n.saturating_add(below?)));
        all.map_err(|e| io_failure("look at the root disk", 0, 0, &e))
    }

    /// Copies it into the file of the image `id`.
    fn flatten(
        &self,
        dir: &Path,
        root: &RootDisk,
        id: Uuid,
        given_up: &AtomicBool,
        progress: &OnProgress,
    ) -> Result<(), Failure> {
        /// Between two looks at the space that is left, and words on how far it is.
        const LOOK: u64 = 64 << 20;
        let what = "copy the server's disk";
        let data = self.data(root)?;
        let io = |e: io::Error| io_failure(what, data, free_space(dir), &e);
        let mut layer = fs::File::open(&self.layer).map_err(io)?;
        let mut image = fs::File::open(&self.image).map_err(io)?;
        let format = DiskFormat::from_glance_name(&self.note.image_format)
            .ok_or_else(|| internal(format!("a note on an image of format {}", self.note.image_format)))?;
        let out = snapshot::rewrite(dir, id).map_err(io)?;
        let (mut done, mut next, mut full, mut more) = (0, 0, false, false);
        let mut step = |n: u64| {
            done += n;
            if done >= next {
                next = done + LOOK;
                progress((done * 100).checked_div(data).unwrap_or(100).min(100) as u8);
                full = free_space(dir) < LOOK;
            }
            // A guest that has taken over its QEMU may have written a layer that names one block for many places.
            more = done > data;
            !full && !more && !given_up.load(Ordering::SeqCst)
        };
        let copied = haneul_disk::flatten(&mut layer, &mut image, format, out, &mut step);
        match copied {
            Ok(_) => Ok(()),
            Err(ConvertError::Stopped) if more => Err(failure(
                FailureCode::DiskError,
                "the server's disk cannot be copied: it would be larger than all that was ever written to it",
                id,
            )),
            Err(ConvertError::Stopped) if full => Err(disk_full(what, data, free_space(dir), "stopped half-way")),
            Err(ConvertError::Stopped) => Err(internal("nobody waits for it any more")),
            Err(ConvertError::Read(e) | ConvertError::Write(e)) => Err(io(e)),
            Err(ConvertError::Refused(r)) => Err(failure(
                FailureCode::DiskError,
                format!("the server's disk cannot be copied: {r}"),
                id,
            )),
        }
    }
}

fn make_root(images: &Path, disks: &Path, guest: Uuid, rebuilds: u64, root: &RootDisk) -> Result<Disk, Failure> {
    let dir = disks.join(guest.to_string());
    let (name, note_name) = (format!("root-{rebuilds}.qcow2"), format!("root-{rebuilds}.json"));
    let path = dir.join(&name);
    let io = |e: io::Error| io_failure("make the root disk", 1 << 20, free_space(disks), &e);
    if path.try_exists().map_err(io)? {
        let found = existing(images, disks, guest, rebuilds)?;
        return Ok(Disk {
            path,
            format: "qcow2".into(),
            backing: Some((found.image, found.note.image_format)),
        });
    }
    let backing = images.join(root.image.id.to_string());
    if !backing.try_exists().map_err(io)? {
        return Err(failure(
            FailureCode::ImageUnavailable,
            "the image is not on the host yet",
            root.image.id,
        ));
    }
    let format = cached_format(&root.image)?;
    let created = match DirBuilder::new().mode(0o700).create(&dir) {
        Ok(()) => true,
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => false,
        Err(e) => return Err(io(e)),
    };
    let note = Note {
        version: NOTE_VERSION,
        image: root.image.id,
        image_format: format.into(),
        size: wanted_size(root),
    };
    let bytes = serde_json::to_vec(&note).map_err(internal)?;
    put(&dir, &note_name, |f| f.write_all(&bytes)).map_err(io)?;
    fault_point!("blockdev.root.noted", internal("fault point"));
    put(&dir, &name, |f| qcow2::write_overlay(f, &backing, format, note.size)).map_err(io)?;
    sync_dir(&dir).map_err(io)?;
    if created {
        sync_dir(disks).map_err(io)?;
    }
    fault_point!("blockdev.root.made", internal("fault point"));
    Ok(Disk {
        path,
        format: "qcow2".into(),
        backing: Some((backing, format.into())),
    })
}

/// `root-N.qcow2`, `root-N.json` and the name of a local disk give N.
fn rebuilds_of(name: &str) -> Option<u64> {
    let Some(rest) = name.strip_prefix("root-") else {
        return local::rebuilds_of(name);
    };
    let (n, extension) = rest.split_once('.')?;
    matches!(extension, "qcow2" | "json").then(|| n.parse().ok())?
}

/// Removes the guest's files for which `gone` says so; the directory too when it is empty then.
fn remove_files(disks: &Path, guest: Uuid, gone: impl Fn(&str) -> bool) -> io::Result<()> {
    let dir = disks.join(guest.to_string());
    let mut names: Vec<String> = match fs::read_dir(&dir) {
        Ok(entries) => entries
            .map(|e| e.map(|e| e.file_name().to_string_lossy().into_owned()))
            .collect::<io::Result<_>>()?,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e),
    };
    // Disks before their notes: a note without a disk is harmless, the other way round is not.
    names.sort_by_key(|n| n.ends_with(".json"));
    let mut left = false;
    for name in &names {
        if gone(name) {
            match fs::remove_file(dir.join(name)) {
                // A guest that is deleted on its way is removed by both hosts.
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
            fault_point!("blockdev.file.removed", io::Error::other("fault point"));
        } else {
            left = true;
        }
    }
    if !left {
        match fs::remove_dir(&dir) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => return sync_dir(disks),
        }
    }
    sync_dir(&dir)
}

fn list(disks: &Path) -> io::Result<Vec<DiskInfo>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(disks)? {
        let entry = entry?;
        let Ok(guest) = Uuid::try_parse(&entry.file_name().to_string_lossy()) else {
            continue;
        };
        match list_of(guest, &entry.path()) {
            Ok(disks) => found.extend(disks),
            // Somebody removes it in this moment: of a shared directory that may be another host.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
    }
    Ok(found)
}

/// The root disks of one guest.
fn list_of(guest: Uuid, dir: &Path) -> io::Result<Vec<DiskInfo>> {
    let (mut roots, mut allocated) = (Vec::new(), HashMap::new());
    for file in fs::read_dir(dir)? {
        let file = file?;
        let name = file.file_name().to_string_lossy().into_owned();
        if let Some(rebuilds) = rebuilds_of(&name) {
            *allocated.entry(rebuilds).or_default() += file.metadata()?.blocks() * 512;
            if name.ends_with(".qcow2") {
                roots.push(rebuilds);
            }
        }
    }
    let mut found = Vec::new();
    for rebuilds in roots {
        let note = fs::read(dir.join(format!("root-{rebuilds}.json")))?;
        let note: Note = serde_json::from_slice(&note)?;
        found.push(DiskInfo {
            guest,
            rebuilds,
            image: note.image,
            allocated: allocated.remove(&rebuilds).unwrap_or_default(),
        });
    }
    Ok(found)
}

/// Images that some note names, disk or not.
fn images_in_use(disks: &Path) -> io::Result<HashSet<Uuid>> {
    let mut used = HashSet::new();
    for guest in fs::read_dir(disks)? {
        for file in fs::read_dir(guest?.path())? {
            let path = file?.path();
            if path.extension().is_some_and(|e| e == "json") {
                let note: Note = serde_json::from_slice(&fs::read(path)?)?;
                used.insert(note.image);
            }
        }
    }
    Ok(used)
}

impl BlockDriver for File {
    fn capabilities(&self) -> Vec<(String, String)> {
        vec![
            ("driver".into(), "file".into()),
            ("root disk".into(), "qcow2 layer over a cached image".into()),
        ]
    }

    fn ensure_image<'a>(
        &'a self,
        image: &'a ImageRef,
        open: OpenImage,
        progress: OnProgress,
    ) -> BoxFuture<'a, Result<(), Failure>> {
        Box::pin(async move {
            let Some(mut state) = self.join_pull(image, open) else {
                return Ok(());
            };
            let mut shown = None;
            loop {
                let now = state.borrow_and_update().clone();
                if let Some(result) = now.done {
                    return result;
                }
                let percent = (now.bytes * 100).checked_div(image.size).unwrap_or(100).min(100) as u8;
                if shown != Some(percent) {
                    shown = Some(percent);
                    progress(percent);
                }
                if state.changed().await.is_err() {
                    // The task is gone: its answer, if it gave one, is the last value.
                    return state
                        .borrow()
                        .done
                        .clone()
                        .unwrap_or_else(|| Err(internal("the pull's task ended without an answer")));
                }
            }
        })
    }

    fn root<'a>(&'a self, guest: Uuid, rebuilds: u64, root: &'a RootDisk) -> BoxFuture<'a, Result<Disk, Failure>> {
        let (images, disks, root) = (self.images.clone(), self.disks.clone(), root.clone());
        self.in_turn(guest, move |_| make_root(&images, &disks, guest, rebuilds, &root))
    }

    fn local<'a>(
        &'a self,
        guest: Uuid,
        rebuilds: u64,
        wanted: &'a [LocalDisk],
    ) -> BoxFuture<'a, Result<Vec<PathBuf>, Failure>> {
        let (disks, wanted) = (self.disks.clone(), wanted.to_vec());
        self.in_turn(guest, move |_| local::make(&disks, guest, rebuilds, &wanted))
    }

    fn prune(&self, guest: Uuid, rebuilds: u64, keep: Option<Uuid>) -> BoxFuture<'_, Result<(), Failure>> {
        let disks = self.disks.clone();
        self.in_turn(guest, move |_| {
            let gone = |name: &str| rebuilds_of(name).is_some_and(|n| n != rebuilds) || snapshot::is_old(name, keep);
            remove_files(&disks, guest, gone).map_err(|e| io_failure("remove an old root disk", 0, 0, &e))
        })
    }

    fn snapshot_begin<'a>(
        &'a self,
        guest: Uuid,
        rebuilds: u64,
        root: &'a RootDisk,
        id: Uuid,
    ) -> BoxFuture<'a, Result<PathBuf, Failure>> {
        let (images, disks, root) = (self.images.clone(), self.disks.clone(), root.clone());
        self.in_turn(guest, move |_| {
            let disk = existing(&images, &disks, guest, rebuilds)?;
            snapshot::begin(&disks.join(guest.to_string()), id, disk.data(&root)?)
        })
    }

    fn snapshot_copy<'a>(
        &'a self,
        guest: Uuid,
        rebuilds: u64,
        root: &'a RootDisk,
        id: Uuid,
        progress: OnProgress,
    ) -> BoxFuture<'a, Result<(), Failure>> {
        let (images, disks, root) = (self.images.clone(), self.disks.clone(), root.clone());
        self.in_turn(guest, move |given_up| {
            let disk = existing(&images, &disks, guest, rebuilds)?;
            disk.flatten(&disks.join(guest.to_string()), &root, id, given_up, &progress)
        })
    }

    fn snapshot_keep(&self, guest: Uuid, id: Uuid) -> BoxFuture<'_, Result<u64, Failure>> {
        let dir = self.disks.join(guest.to_string());
        self.in_turn(guest, move |_| snapshot::keep(&dir, id))
    }

    fn snapshot(&self, guest: Uuid, id: Uuid) -> BoxFuture<'_, Result<Option<(fs::File, u64)>, Failure>> {
        let dir = self.disks.join(guest.to_string());
        self.in_turn(guest, move |_| snapshot::open(&dir, id))
    }

    fn delete(&self, guest: Uuid) -> BoxFuture<'_, Result<(), Failure>> {
        let disks = self.disks.clone();
        self.in_turn(guest, move |_| {
            remove_files(&disks, guest, |_| true).map_err(|e| io_failure("remove the disks", 0, 0, &e))
        })
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<DiskInfo>, Failure>> {
        let disks = self.disks.clone();
        Box::pin(blocking(move || {
            list(&disks).map_err(|e| io_failure("list the disks", 0, 0, &e))
        }))
    }

    fn usage(&self) -> BoxFuture<'_, Result<Usage, Failure>> {
        let (images, disks) = (self.images.clone(), self.disks.clone());
        Box::pin(blocking(move || {
            let sum = || -> io::Result<Usage> {
                let stat = nix::sys::statvfs::statvfs(&disks)?;
                let mut usage = Usage {
                    total: stat.blocks() * stat.fragment_size(),
                    free: stat.blocks_available() * stat.fragment_size(),
                    disks: list(&disks)?.iter().map(|d| d.allocated).sum(),
                    images: 0,
                };
                for entry in fs::read_dir(&images)? {
                    // A pull that ends is another file in the next moment.
                    usage.images += entry?.metadata().map_or(0, |m| m.blocks() * 512);
                }
                Ok(usage)
            };
            sum().map_err(|e| io_failure("measure its disks", 0, 0, &e))
        }))
    }

    fn collect<'a>(&'a self, keep: &'a [Uuid]) -> BoxFuture<'a, Result<Vec<Uuid>, Failure>> {
        let (images, disks, keep) = (self.images.clone(), self.disks.clone(), keep.to_vec());
        if self.shared {
            // Another host may be about to lay a disk over any of them.
            return Box::pin(async { Ok(Vec::new()) });
        }
        Box::pin(blocking(move || {
            let sweep = || -> io::Result<Vec<Uuid>> {
                let used = images_in_use(&disks)?;
                let mut gone = Vec::new();
                for entry in fs::read_dir(&images)? {
                    let entry = entry?;
                    // Names of pulls under way are no UUIDs.
                    if let Ok(id) = Uuid::try_parse(&entry.file_name().to_string_lossy())
                        && !used.contains(&id)
                        && !keep.contains(&id)
                    {
                        fs::remove_file(entry.path())?;
                        gone.push(id);
                    }
                }
                Ok(gone)
            };
            sweep().map_err(|e| io_failure("remove unused images", 0, 0, &e))
        }))
    }
}
