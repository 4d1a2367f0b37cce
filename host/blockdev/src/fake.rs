//! Disks for the fake hypervisor: sparse empty files of the right size and no images. Same names on
//! disk, same answers, so that audits and kill points are the same.

use crate::{BlockDriver, BoxFuture, Disk, DiskInfo, OnProgress, OpenImage, Usage, io_failure, wanted_size};
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
    disks: Mutex<BTreeMap<(Uuid, u64), Uuid>>,
}

impl Fake {
    /// Opens `dir/disks`, which is made when missing.
    pub fn open(dir: &Path) -> io::Result<Self> {
        let dir = dir.join("disks");
        fs::create_dir_all(&dir)?;
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
        Ok(Self { dir, disks })
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

    fn prune(&self, guest: Uuid, rebuilds: u64) -> BoxFuture<'_, Result<(), Failure>> {
        let done = self.remove(guest, |n| n != rebuilds);
        Box::pin(async move { done })
    }

    fn delete(&self, guest: Uuid) -> BoxFuture<'_, Result<(), Failure>> {
        let done = self.remove(guest, |_| true);
        Box::pin(async move { done })
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
