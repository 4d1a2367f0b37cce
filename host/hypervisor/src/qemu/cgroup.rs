//! Limits of guests by cgroups, outside our own: v2 where it has the controllers, else v1.
//!
//! Each guest has one group `haneul-TAG/ID` per hierarchy. A host that lets us make none gets a warning
//! once, and guests without limits.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// What a guest may use.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub vcpus: u32,
    /// Bytes of guest memory and all that QEMU needs beside it.
    pub memory: u64,
    pub threads: u32,
}

pub(crate) struct Cgroups {
    /// Directory `haneul-TAG` per hierarchy, with the controllers that are used there: none where the hierarchy
    /// only says what belongs to which of systemd's units.
    roots: Vec<(PathBuf, Vec<&'static str>)>,
    v2: bool,
}

const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];

impl Cgroups {
    /// Finds the hierarchies and makes our directory in each.
    pub(crate) fn open(tag: &str) -> Self {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let mut v1: Vec<(PathBuf, Vec<&'static str>)> = Vec::new();
        for line in mounts.lines() {
            let f: Vec<&str> = line.split(' ').collect();
            let [_, path, kind, options, ..] = f.as_slice() else {
                continue;
            };
            let path = PathBuf::from(path);
            if *kind == "cgroup2" {
                let has = fs::read_to_string(path.join("cgroup.controllers")).unwrap_or_default();
                if !CONTROLLERS.iter().all(|c| has.split_whitespace().any(|h| h == *c)) {
                    v1.push((path, vec![]));
                    continue;
                }
                match open_v2(&path, tag) {
                    Ok(root) => {
                        return Self {
                            roots: vec![(root, CONTROLLERS.to_vec())],
                            v2: true,
                        };
                    }
                    Err(e) => tracing::warn!(error = %e, "cgroup v2 is there but not ours to use"),
                }
            } else if *kind == "cgroup" {
                let here: Vec<&'static str> = CONTROLLERS
                    .into_iter()
                    .filter(|c| options.split(',').any(|o| o == *c))
                    .collect();
                // Guests leave the agent's unit there, too: what systemd does to the unit is not meant for them.
                if options.split(',').any(|o| o == "name=systemd") {
                    v1.push((path, vec![]));
                // A hierarchy may be mounted twice (a link for each of `cpu,cpuacct`).
                } else if !here.is_empty() && !v1.iter().any(|(_, c)| *c == here) {
                    v1.push((path, here));
                }
            }
        }
        let mut roots = Vec::new();
        for (mount, controllers) in v1 {
            let root = mount.join(format!("haneul-{tag}"));
            match make(&root) {
                Ok(()) => roots.push((root, controllers)),
                Err(e) => tracing::warn!(error = %e, ?controllers, "a cgroup hierarchy is not ours to use"),
            }
        }
        if roots.iter().all(|(_, controllers)| controllers.is_empty()) {
            tracing::warn!("no cgroups to be had on this host: guests run without limits");
        }
        Self { roots, v2: false }
    }

    /// For `doctor`.
    pub(crate) fn describe(&self) -> String {
        let all: Vec<&str> = self.roots.iter().flat_map(|(_, c)| c.iter().copied()).collect();
        match (all.is_empty(), self.v2) {
            (true, _) => "none: guests run without limits".into(),
            (false, true) => format!("v2 ({})", all.join(", ")),
            (false, false) => format!("v1 ({})", all.join(", ")),
        }
    }

    /// Makes the guest's groups with their limits and opens them for the process to enter.
    pub(crate) fn make(&self, guest: Uuid, limits: Limits) -> Vec<OwnedFd> {
        let mut procs = Vec::new();
        for (root, controllers) in &self.roots {
            let dir = root.join(guest.to_string());
            let done = make(&dir).and_then(|()| {
                for controller in controllers {
                    self.limit(&dir, controller, limits)?;
                }
                OpenOptions::new().write(true).open(dir.join("cgroup.procs"))
            });
            match done {
                Ok(file) => procs.push(file.into()),
                Err(e) => tracing::warn!(%guest, ?controllers, error = %e, "a guest has no cgroup"),
            }
        }
        procs
    }

    fn limit(&self, dir: &Path, controller: &str, l: Limits) -> io::Result<()> {
        let put = |name: &str, value: String| fs::write(dir.join(name), value);
        let vcpus = u64::from(l.vcpus.max(1));
        // One CPU more than the guest has: QEMU's own threads do its IO.
        let quota = (vcpus + 1) * 100_000;
        match (controller, self.v2) {
            ("cpu", true) => {
                put("cpu.weight", (vcpus * 100).min(10_000).to_string())?;
                put("cpu.max", format!("{quota} 100000"))
            }
            ("cpu", false) => {
                put("cpu.shares", (vcpus * 1024).min(262_144).to_string())?;
                put("cpu.cfs_period_us", "100000".into())?;
                put("cpu.cfs_quota_us", quota.to_string())
            }
            ("memory", true) => put("memory.max", l.memory.to_string()),
            ("memory", false) => put("memory.limit_in_bytes", l.memory.to_string()),
            _ => put("pids.max", l.threads.to_string()),
        }
    }

    /// Removes the guest's groups; they are empty when its process is gone. Later attempts mend what
    /// fails here.
    pub(crate) fn remove(&self, guest: Uuid) {
        for (root, _) in &self.roots {
            let dir = root.join(guest.to_string());
            for _ in 0..20 {
                match fs::remove_dir(&dir) {
                    // The kernel may need a moment after the last process's end.
                    Err(e) if e.raw_os_error() == Some(libc::EBUSY) => {
                        std::thread::sleep(std::time::Duration::from_millis(5));
                    }
                    _ => break,
                }
            }
        }
    }

    /// Removes our directories where they are empty (`down --purge`).
    pub(crate) fn purge(&self) {
        for (root, _) in &self.roots {
            let _ = fs::remove_dir(root);
        }
    }
}

fn make(dir: &Path) -> io::Result<()> {
    match fs::create_dir(dir) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(e),
        _ => Ok(()),
    }
}

fn open_v2(mount: &Path, tag: &str) -> io::Result<PathBuf> {
    let enable = "+cpu +memory +pids";
    // Where somebody else has switched them on already, writing again is harmless.
    fs::write(mount.join("cgroup.subtree_control"), enable)?;
    let root = mount.join(format!("haneul-{tag}"));
    make(&root)?;
    fs::write(root.join("cgroup.subtree_control"), enable)?;
    File::open(&root)?;
    Ok(root)
}
