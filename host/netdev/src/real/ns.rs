//! Network namespaces: made, opened, entered, deleted.
//!
//! A namespace is entered by a thread that ends afterwards, never by a thread of the runtime: what a
//! thread opens or starts in there (sockets, `nft`) stays in there.

use super::netlink::Socket;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Where `ip netns` looks too, so that people can look around with the tool they know.
pub const DIR: &str = "/run/netns";

/// An open namespace. Clones share the descriptor.
#[derive(Clone)]
pub struct Ns {
    inner: Arc<Inner>,
}

struct Inner {
    name: Option<String>,
    file: File,
    inode: (u64, u64),
    route: Mutex<Option<Socket>>,
}

fn path(name: &str) -> PathBuf {
    Path::new(DIR).join(name)
}

/// Names in [`DIR`] that start with `prefix`.
pub fn list(prefix: &str) -> Vec<String> {
    let Ok(dir) = std::fs::read_dir(DIR) else {
        return vec![];
    };
    let mut names: Vec<String> = dir
        .flatten()
        .filter_map(|e| e.file_name().into_string().ok())
        .filter(|n| n.starts_with(prefix))
        .collect();
    names.sort();
    names
}

impl Ns {
    /// The namespace that this process is in: the user's host.
    pub fn own() -> io::Result<Ns> {
        Self::from_file(None, File::open("/proc/self/ns/net")?)
    }

    /// Opens a named namespace; `None` when there is none.
    pub fn open(name: &str) -> io::Result<Option<Ns>> {
        if !is_namespace(name) {
            return Ok(None);
        }
        match File::open(path(name)) {
            Ok(f) => Ok(Some(Self::from_file(Some(name.into()), f)?)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Opens a namespace, making it first when it is not there; true when it was made now.
    pub fn ensure(name: &str) -> io::Result<(Ns, bool)> {
        if let Some(ns) = Self::open(name)? {
            return Ok((ns, false));
        }
        create(name)?;
        match Self::open(name)? {
            Some(ns) => Ok((ns, true)),
            None => Err(io::Error::other("the new namespace vanished")),
        }
    }

    fn from_file(name: Option<String>, file: File) -> io::Result<Ns> {
        let meta = file.metadata()?;
        Ok(Ns {
            inner: Arc::new(Inner {
                name,
                inode: (meta.dev(), meta.ino()),
                file,
                route: Mutex::new(None),
            }),
        })
    }

    /// Its name; the host's own has none.
    pub fn name(&self) -> &str {
        self.inner.name.as_deref().unwrap_or("(host)")
    }

    /// A word for this namespace that no other of the machine has; empty for the machine's own (that of process 1).
    pub fn beside_the_machines(&self) -> String {
        let (dev, inode) = self.inner.inode;
        let first = std::fs::metadata("/proc/1/ns/net");
        if first.is_ok_and(|m| (m.dev(), m.ino()) == (dev, inode)) {
            return String::new();
        }
        format!("-{inode}")
    }

    /// Whether the name still leads to this very namespace. After somebody deleted it, our
    /// descriptor keeps a ghost alive that no packet reaches.
    pub fn is_current(&self) -> bool {
        match &self.inner.name {
            None => true,
            Some(n) => std::fs::metadata(path(n)).is_ok_and(|m| (m.dev(), m.ino()) == self.inner.inode),
        }
    }

    /// The descriptor, for netlink's "move there".
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.inner.file.as_fd()
    }

    /// Runs `f` on a thread inside the namespace.
    pub fn enter<T: Send>(&self, f: impl FnOnce() -> T + Send) -> io::Result<T> {
        std::thread::scope(|s| {
            let worker = std::thread::Builder::new().name("netns".into()).spawn_scoped(s, || {
                setns(self.fd(), CloneFlags::CLONE_NEWNET)?;
                Ok::<T, nix::Error>(f())
            })?;
            match worker.join() {
                Ok(r) => r.map_err(io::Error::from),
                Err(_) => Err(io::Error::other("the thread in the namespace panicked")),
            }
        })
    }

    /// Runs `f` with this namespace's rtnetlink socket, opened once and kept.
    pub fn route<T>(&self, f: impl FnOnce(&mut Socket) -> io::Result<T>) -> io::Result<T> {
        let mut slot = self.inner.route.lock().unwrap_or_else(PoisonError::into_inner);
        let socket = match &mut *slot {
            Some(s) => s,
            None => slot.insert(self.enter(Socket::route)??),
        };
        f(socket)
    }

    /// Writes sysctls below `/proc/sys/net/`; the kernel resolves that path by the writing thread's
    /// namespace. A missing key is passed over when `optional`.
    pub fn sysctl(&self, keys: &[(&str, &str)], optional: bool) -> io::Result<()> {
        self.enter(|| {
            for (key, value) in keys {
                match std::fs::write(Path::new("/proc/sys/net").join(key), value) {
                    Err(e) if optional && e.kind() == io::ErrorKind::NotFound => {}
                    Err(e) => return Err(io::Error::other(format!("{key}: {e}"))),
                    Ok(()) => {}
                }
            }
            Ok(())
        })?
    }

    /// Reads one sysctl below `/proc/sys/net/`.
    pub fn sysctl_get(&self, key: &str) -> io::Result<String> {
        self.enter(|| std::fs::read_to_string(Path::new("/proc/sys/net").join(key)).map(|s| s.trim().to_string()))?
    }
}

/// An empty file is left when a creator died between making it and mounting on it.
fn is_namespace(name: &str) -> bool {
    nix::sys::statfs::statfs(&path(name)).is_ok_and(|s| s.filesystem_type() == nix::sys::statfs::NSFS_MAGIC)
}

fn create(name: &str) -> io::Result<()> {
    let dir = Path::new(DIR);
    std::fs::create_dir_all(dir)?;
    // As `ip netns` does: the directory is a shared mount, so that namespaces made here are seen in
    // mount namespaces made earlier.
    if mount(
        None::<&str>,
        dir,
        None::<&str>,
        MsFlags::MS_SHARED | MsFlags::MS_REC,
        None::<&str>,
    )
    .is_err()
    {
        mount(
            Some(dir),
            dir,
            None::<&str>,
            MsFlags::MS_BIND | MsFlags::MS_REC,
            None::<&str>,
        )?;
        mount(
            None::<&str>,
            dir,
            None::<&str>,
            MsFlags::MS_SHARED | MsFlags::MS_REC,
            None::<&str>,
        )?;
    }
    let target = path(name);
    std::fs::OpenOptions::new().create(true).append(true).open(&target)?;
    let made = std::thread::scope(|s| {
        s.spawn(|| -> io::Result<()> {
            unshare(CloneFlags::CLONE_NEWNET)?;
            mount(
                Some("/proc/thread-self/ns/net"),
                &target,
                None::<&str>,
                MsFlags::MS_BIND,
                None::<&str>,
            )?;
            Ok(())
        })
        .join()
    });
    match made {
        Ok(Ok(())) => Ok(()),
        Ok(Err(e)) => {
            let _ = std::fs::remove_file(&target);
            Err(e)
        }
        Err(_) => Err(io::Error::other("the thread that makes namespaces panicked")),
    }
}

/// Deletes a named namespace; none there is fine.
pub fn delete(name: &str) -> io::Result<()> {
    let target = path(name);
    match umount2(&target, MntFlags::MNT_DETACH) {
        Ok(()) | Err(nix::Error::EINVAL | nix::Error::ENOENT) => {}
        Err(e) => return Err(e.into()),
    }
    match std::fs::remove_file(&target) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}
