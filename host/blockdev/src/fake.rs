//! Disks for the fake hypervisor: sparse empty files of the right size and no images. `disks/GUEST/N.IMAGE` is the root
//! disk for rebuild counter N, and images of disks lie beside it: same life on disk, same answers, so that audits and kill
//! points are the same. In a directory that hosts share, `disks` is called `servers`.

use crate::{
    BlockDriver, BoxFuture, Disk, DiskInfo, OnProgress, OpenImage, Usage, io_failure, qcow2, snapshot, wanted_size,
};
use haneul_agent_api::{Failure, ImageRef, LocalDisk, RootDisk};
use haneul_core::fault_point;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// See the module.
pub struct Fake {
    disks: PathBuf,
}

/// The rebuild counter and the image in a root disk's name: the fake has nothing else to remember.
fn parse(name: &str) -> Option<(u64, Uuid)> {
    let (rebuilds, image) = name.split_once('.')?;
    Some((rebuilds.parse().ok()?, Uuid::try_parse(image).ok()?))
}

/// Names in a directory; none when it is not there.
fn names(dir: &Path) -> io::Result<Vec<String>> {
    match fs::read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        other => other?
            .map(|e| Ok(e?.file_name().to_string_lossy().into_owned()))
            .collect(),
    }
}

impl Fake {
    /// Opens `dir/disks`, which is made when missing.
    pub fn open(dir: &Path) -> io::Result<Self> {
        let disks = dir.join("disks");
        fs::create_dir_all(&disks)?;
        for guest in fs::read_dir(&disks)? {
            snapshot::remove(&guest?.path(), |name| name.ends_with(".tmp"))?;
        }
        Ok(Self { disks })
    }

    /// Opens `dir/servers`, where other hosts' guests have their disks too.
    pub fn open_shared(dir: &Path) -> io::Result<Self> {
        let disks = dir.join("servers");
        fs::create_dir_all(&disks)?;
        Ok(Self { disks })
    }

    fn dir(&self, guest: Uuid) -> PathBuf {
        self.disks.join(guest.to_string())
    }

    fn make(&self, guest: Uuid, rebuilds: u64, root: &RootDisk) -> io::Result<Disk> {
        let dir = self.dir(guest);
        fs::create_dir_all(&dir)?;
        let is_it = |name: &String| parse(name).is_some_and(|(n, _)| n == rebuilds);
        let name = names(&dir)?.into_iter().find(is_it);
        let path = dir.join(name.unwrap_or_else(|| format!("{rebuilds}.{}", root.image.id)));
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

    /// All root disks.
    fn all(&self) -> io::Result<Vec<DiskInfo>> {
        let mut all = Vec::new();
        for guest in names(&self.disks)?.iter().filter_map(|n| Uuid::try_parse(n).ok()) {
            for (rebuilds, image) in names(&self.dir(guest))?.iter().filter_map(|n| parse(n)) {
                all.push(DiskInfo {
                    guest,
                    rebuilds,
                    image,
                    allocated: 0,
                });
            }
        }
        Ok(all)
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
        let old = |name: &str| parse(name).is_some_and(|(n, _)| n != rebuilds) || snapshot::is_old(name, snapshot);
        let done = snapshot::remove(&self.dir(guest), old);
        let done = done.map_err(|e| io_failure("remove an old root disk", 0, 0, &e));
        Box::pin(async move { done })
    }

    fn delete(&self, guest: Uuid) -> BoxFuture<'_, Result<(), Failure>> {
        let done = match fs::remove_dir_all(self.dir(guest)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(io_failure("remove the disks", 0, 0, &e)),
            _ => Ok(()),
        };
        Box::pin(async move { done })
    }

    fn snapshot_begin<'a>(
        &'a self,
        guest: Uuid,
        _rebuilds: u64,
        _root: &'a RootDisk,
        id: Uuid,
    ) -> BoxFuture<'a, Result<PathBuf, Failure>> {
        let dir = self.dir(guest);
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
                let mut out = snapshot::rewrite(&self.dir(guest), id)?;
                qcow2::write_empty(&mut out, size)
            };
            progress(50);
            copy().map_err(snapshot::failed)
        })
    }

    fn snapshot_keep(&self, guest: Uuid, id: Uuid) -> BoxFuture<'_, Result<u64, Failure>> {
        let dir = self.dir(guest);
        Box::pin(async move { snapshot::keep(&dir, id) })
    }

    fn snapshot(&self, guest: Uuid, id: Uuid) -> BoxFuture<'_, Result<Option<(fs::File, u64)>, Failure>> {
        let found = snapshot::open(&self.dir(guest), id);
        Box::pin(async move { found })
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<DiskInfo>, Failure>> {
        let all = self.all().map_err(|e| io_failure("list the disks", 0, 0, &e));
        Box::pin(async move { all })
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
