//! Disks for the fake hypervisor: sparse empty files of the right size and no images. Same names on
//! disk, same answers, so that audits and kill points are the same.

use crate::{
    BlockDriver, BoxFuture, Disk, DiskInfo, OnProgress, OpenImage, Usage, io_failure, qcow2, snapshot, wanted_size,
};
use haneul_agent_api::{Failure, ImageRef, LocalDisk, RootDisk};
use haneul_core::fault_point;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use uuid::Uuid;

/// See the module.
pub struct Fake {
    dir: PathBuf,
    /// Images of disks, in a directory for each guest.
    snapshots: PathBuf,
    disks: Mutex<BTreeMap<(Uuid, u64), Uuid>>,
}

impl Fake {
    /// Opens `dir/disks` and `dir/snapshots`, which are made when missing.
    pub fn open(dir: &Path) -> io::Result<Self> {
        let (dir, snapshots) = (dir.join("disks"), dir.join("snapshots"));
        fs::create_dir_all(&dir)?;
        fs::create_dir_all(&snapshots)?;
        for guest in fs::read_dir(&snapshots)? {
            snapshot::remove(&guest?.path(), |name| name.ends_with(".tmp"))?;
        }
        let mut disks = BTreeMap::new();
        for entry in fs::read_dir(&dir)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            let mut parts = name.split('.');
            if let (Some(Ok(guest)), Some(Ok(rebuilds)), Some(Ok(image))) = (
                parts.next().map(Uuid::try_parse),
                parts.next().map(str::parse),
                parts.next().map(Uuid::try_parse),
            ) {
                disks.insert((guest, rebuilds), image);
            }
        }
        let disks = Mutex::new(disks);
        Ok(Self { dir, snapshots, disks })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(Uuid, u64), Uuid>> {
        self.disks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, guest: Uuid, rebuilds: u64, image: Uuid) -> PathBuf {
        // The image's id is in the name: the fake has nothing else to remember.
        self.dir.join(format!("{guest}.{rebuilds}.{image}"))
    }

    fn make(&self, guest: Uuid, rebuilds: u64, root: &RootDisk) -> io::Result<Disk> {
        let mut disks = self.lock();
        let image = *disks.entry((guest, rebuilds)).or_insert(root.image.id);
        let path = self.path(guest, rebuilds, image);
        fault_point!("blockdev.fake.root", io::Error::other("fault point"));
        let file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)?;
        if file.metadata()?.len() < wanted_size(root) {
            file.set_len(wanted_size(root))?;
        }
        Ok(Disk {
            path,
            format: "raw".into(),
            backing: None,
        })
    }

    fn forget(&self, guest: Uuid, keep: Option<Uuid>) -> Result<(), Failure> {
        let dir = self.snapshots.join(guest.to_string());
        snapshot::remove(&dir, |name| snapshot::is_old(name, keep)).map_err(|e| io_failure("remove an image", 0, 0, &e))
    }

    fn remove(&self, guest: Uuid, gone: impl Fn(u64) -> bool) -> Result<(), Failure> {
        let mut disks = self.lock();
        let found: Vec<(u64, Uuid)> = disks
            .range((guest, 0)..=(guest, u64::MAX))
            .map(|((_, n), image)| (*n, *image))
            .filter(|(n, _)| gone(*n))
            .collect();
        for (n, image) in found {
            match fs::remove_file(self.path(guest, n, image)) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => {
                    return Err(io_failure("remove the disks", 0, 0, &e));
                }
                _ => {}
            }
            disks.remove(&(guest, n));
        }
        Ok(())
    }
}

impl BlockDriver for Fake {
    fn capabilities(&self) -> Vec<(String, String)> {
        vec![("driver".into(), "fake".into())]
    }

    fn ensure_image<'a>(
        &'a self,
        _image: &'a ImageRef,
        _open: OpenImage,
        progress: OnProgress,
    ) -> BoxFuture<'a, Result<(), Failure>> {
        Box::pin(async move {
            progress(100);
            Ok(())
        })
    }

    fn root<'a>(&'a self, guest: Uuid, rebuilds: u64, root: &'a RootDisk) -> BoxFuture<'a, Result<Disk, Failure>> {
        let made = self
            .make(guest, rebuilds, root)
            .map_err(|e| io_failure("make the root disk", 0, 0, &e));
        Box::pin(async move { made })
    }

    /// A guest of the fake hypervisor looks at no disk, and nothing lists these.
    fn local<'a>(&'a self, _: Uuid, _: u64, _: &'a [LocalDisk]) -> BoxFuture<'a, Result<Vec<PathBuf>, Failure>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn prune(&self, guest: Uuid, rebuilds: u64, snapshot: Option<Uuid>) -> BoxFuture<'_, Result<(), Failure>> {
        let done = self.remove(guest, |n| n != rebuilds);
        let done = done.and_then(|()| self.forget(guest, snapshot));
        Box::pin(async move { done })
    }

    fn delete(&self, guest: Uuid) -> BoxFuture<'_, Result<(), Failure>> {
        let done = self.remove(guest, |_| true);
        let done = done.and_then(|()| self.forget(guest, None));
        let _ = fs::remove_dir(self.snapshots.join(guest.to_string()));
        Box::pin(async move { done })
    }

    fn snapshot_begin<'a>(
        &'a self,
        guest: Uuid,
        _rebuilds: u64,
        _root: &'a RootDisk,
        id: Uuid,
    ) -> BoxFuture<'a, Result<PathBuf, Failure>> {
        let dir = self.snapshots.join(guest.to_string());
        let made = fs::create_dir_all(&dir).map_err(snapshot::failed);
        Box::pin(async move { made.and_then(|()| snapshot::begin(&dir, id, 0)) })
    }

    fn snapshot_copy<'a>(
        &'a self,
        guest: Uuid,
        rebuilds: u64,
        root: &'a RootDisk,
        id: Uuid,
        progress: OnProgress,
    ) -> BoxFuture<'a, Result<(), Failure>> {
        Box::pin(async move {
            // All that is ever in a disk of the fake's.
            let disk = self.root(guest, rebuilds, root).await?;
            let copy = || {
                let size = fs::metadata(&disk.path)?.len();
                let mut out = snapshot::rewrite(&self.snapshots.join(guest.to_string()), id)?;
                qcow2::write_empty(&mut out, size)
            };
            progress(50);
            copy().map_err(snapshot::failed)
        })
    }

    fn snapshot_keep(&self, guest: Uuid, id: Uuid) -> BoxFuture<'_, Result<u64, Failure>> {
        let dir = self.snapshots.join(guest.to_string());
        Box::pin(async move { snapshot::keep(&dir, id) })
    }

    fn snapshot(&self, guest: Uuid, id: Uuid) -> BoxFuture<'_, Result<Option<(fs::File, u64)>, Failure>> {
        let found = snapshot::open(&self.snapshots.join(guest.to_string()), id);
        Box::pin(async move { found })
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<DiskInfo>, Failure>> {
        let all = self
            .lock()
            .iter()
            .map(|((guest, rebuilds), image)| DiskInfo {
                guest: *guest,
                rebuilds: *rebuilds,
                image: *image,
                allocated: 0,
            })
            .collect();
        Box::pin(async move { Ok(all) })
    }

    fn usage(&self) -> BoxFuture<'_, Result<Usage, Failure>> {
        Box::pin(async move {
            Ok(Usage {
                total: 1 << 50,
                free: 1 << 50,
                ..Usage::default()
            })
        })
    }

    fn collect<'a>(&'a self, _keep: &'a [Uuid]) -> BoxFuture<'a, Result<Vec<Uuid>, Failure>> {
        Box::pin(async move { Ok(Vec::new()) })
    }
}
