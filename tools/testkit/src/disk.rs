//! A disk whose power can be cut: ext4 in a file, on a loop device.
//!
//! [`Disk::cut`] shuts the file system down without flushing its log. What was written and not made durable is lost, as
//! on a machine that loses its power. The log is not committed by time either (`commit=`), so that what nobody asked
//! to be durable is not so by luck. A disk that reorders writes, or lies about flushes, is not modelled.

use crate::eventually;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

nix::ioctl_read!(
    /// `EXT4_IOC_SHUTDOWN`: reads what of the log shall be flushed.
    shutdown, b'X', 125, u32
);
/// Nothing of it.
const NO_LOG_FLUSH: u32 = 2;

/// Begins the names of all directories of such disks; the process that made them follows.
const NAME: &str = "haneul-disk-";

/// See the module. Unmounts and removes everything when it is dropped; whatever uses it has to end before.
pub struct Disk {
    dir: PathBuf,
}

impl Disk {
    /// Why there can be no such disk here, if there cannot.
    pub fn cannot() -> Option<String> {
        if !nix::unistd::geteuid().is_root() {
            return Some("a disk to cut the power of needs root".into());
        }
        let probes: [(&str, &[&str]); 2] = [("losetup", &["--find"]), ("mkfs.ext4", &["-V"])];
        for (program, args) in probes {
            match tool(program).args(args).output() {
                Ok(o) if o.status.success() => {}
                Ok(o) => return Some(format!("{program} {}: {}", args.join(" "), said(&o))),
                Err(e) => return Some(format!("{program}: {e}")),
            }
        }
        None
    }

    /// A new one, mounted and empty. The file is sparse: it costs what is written.
    pub fn new(mib: u64) -> Disk {
        sweep();
        let name = format!("{NAME}{}-{}", std::process::id(), &haneul_core::id::hex()[..8]);
        let disk = Disk {
            dir: std::env::temp_dir().join(name),
        };
        std::fs::create_dir_all(disk.path()).expect("a directory");
        let file = std::fs::File::create(disk.file()).expect("a file");
        file.set_len(mib << 20).expect("a sparse file");
        run(tool("mkfs.ext4")
            .args(["-q", "-F", "-m", "0", "-E", "lazy_itable_init=1,lazy_journal_init=1"])
            .arg(disk.file()));
        disk.mount();
        disk
    }

    fn file(&self) -> PathBuf {
        self.dir.join("disk")
    }

    /// Where it is mounted.
    pub fn path(&self) -> PathBuf {
        self.dir.join("m")
    }

    fn mount(&self) {
        run(tool("mount")
            .args(["-t", "ext4", "-o", "loop,commit=600"])
            .arg(self.file())
            .arg(self.path()));
    }

    /// Cuts the power: from here on every write and flush fails, and what was not flushed is lost.
    pub fn cut(&self) {
        let root = std::fs::File::open(self.path()).expect("the mounted disk");
        let mut how = NO_LOG_FLUSH;
        #[allow(unsafe_code)]
        // SAFETY: the descriptor is open, and the call reads one u32 that outlives it.
        let done = unsafe { shutdown(std::os::fd::AsRawFd::as_raw_fd(&root), &mut how) };
        done.expect("the file system is shut down");
    }

    /// Brings it back after a cut, with what had been made durable. Whoever had files open has ended.
    pub async fn restart(&self) {
        eventually("the disk is unmounted", Duration::from_secs(5), || async {
            // A process that was just reaped may be letting go of its files still.
            let done = tool("umount").arg(self.path()).output().expect("umount");
            done.status.success().then_some(())
        })
        .await;
        // A command in a mount namespace of its own (`ip netns exec` beside us) may hold a copy of the mount. While it
        // does the file system that was shut down lives on, and would be what is mounted again.
        eventually("nobody has the disk mounted", Duration::from_secs(30), || async {
            let loops = tool("losetup")
                .arg("--associated")
                .arg(self.file())
                .output()
                .expect("losetup");
            loops.stdout.is_empty().then_some(())
        })
        .await;
        self.mount();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        discard(&self.dir);
    }
}

/// Unmounts, and thereby frees the loop device, also under a process that still has files open there.
fn discard(dir: &std::path::Path) {
    let mounted = dir.join("m");
    let plain = tool("umount").arg(&mounted).output();
    if !plain.is_ok_and(|o| o.status.success()) {
        let _ = tool("umount").arg("--lazy").arg(&mounted).output();
    }
    // Never into a file system that could not be unmounted.
    let _ = std::fs::remove_dir(&mounted);
    let _ = std::fs::remove_file(dir.join("disk"));
    let _ = std::fs::remove_dir(dir);
}

/// Takes away what a killed test left: its process is gone.
fn sweep() {
    for entry in std::fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name.strip_prefix(NAME).and_then(|rest| rest.split_once('-'));
        if let Some((pid, _)) = owner
            && !std::path::Path::new("/proc").join(pid).exists()
        {
            discard(&entry.path());
        }
    }
}

/// A program of the system's administrator, which a user's search path often lacks.
fn tool(name: &str) -> Command {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new(name);
    command
        .env("PATH", format!("{path}:/usr/sbin:/sbin"))
        .env("LC_ALL", "C");
    command
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).trim().to_owned()
}

fn run(command: &mut Command) {
    let output = command.output().expect("the program starts");
    assert!(output.status.success(), "{command:?}: {}", said(&output));
}
