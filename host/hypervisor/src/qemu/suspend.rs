//! Suspend and resume: QEMU writes the guest's memory and devices into a file of the guest's directory, which it
//! gets open; the process ends, and a later one reads it.
//!
//! The file counts only while the record says so. It is made durable before the record does, and the record
//! forgets it before a CPU of the guest runs again: memory that is older than the disk is never loaded.

use super::live::{Live, Run};
use super::ops::{QMP_DEADLINE, qmp_failure};
use super::qmp::QmpError;
use super::record::Saved;
use super::{Entry, Inner, disk_error, hypervisor_error, internal, launch};
use haneul_agent_api::{Failure, FailureCode};
use haneul_core::{clock, fault_point};
use serde_json::{Value, json};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const FILE: &str = "memory";
const PART: &str = "memory.part";
/// Number of the file for QEMU; those of the command line count from 1.
const FDSET: u32 = 900;
const TAKE: &str = "take the server's memory";
/// Room for what is saved beside the guest's memory, MiB: its devices, its screen, the format itself.
const BESIDE: u64 = 64;
/// How long to wait for the next sign of progress before asking.
const STEP: Duration = Duration::from_secs(1);

/// How saving or loading went.
#[derive(PartialEq, Eq)]
enum Outcome {
    Done,
    Failed(String),
}

impl Inner {
    /// Writes the guest's memory to disk and ends its process. Refused before anything is changed when the disk has
    /// no room; a guest whose memory could not be written goes on.
    pub(super) async fn suspend(self: &Arc<Self>, entry: &Arc<Entry>, live: &Live) -> Result<(), Failure> {
        self.known(entry, live).await?;
        if !entry.record().is_some_and(|r| r.saving) {
            room(entry)?;
        }
        match live.run() {
            Run::Broken => {
                return Err(hypervisor_error(
                    "the server's kernel panicked or its CPU failed; reboot it hard",
                    "",
                ));
            }
            // About to switch off, and countermanded.
            Run::Shutdown => self.reset(live).await?,
            Run::Running => self.halt(entry, live).await?,
            Run::Paused | Run::NoSpace | Run::Unknown => {}
        }
        fault_point!("hypervisor.qemu.halted", internal("fault point"));
        if let Err(e) = self.save_memory(entry, live).await {
            let _ = self.cancel_saving(entry, live).await;
            let _ = self.go(entry, live).await;
            return Err(e);
        }
        fault_point!("hypervisor.qemu.memory-saved", internal("fault point"));
        self.end(entry, live).await
    }

    async fn save_memory(&self, entry: &Arc<Entry>, live: &Live) -> Result<(), Failure> {
        // What an apply began that was dropped, or an agent that died, goes on by itself.
        let begun =
            entry.record().is_some_and(|r| r.saving) && status(live).await?.is_some_and(|s| !s.starts_with("failed"));
        if !begun {
            let file = write_only(&entry.dir).map_err(|e| disk_error("save the server's memory", &e))?;
            self.save(entry, |r| r.saving = true).await?;
            prepare(live).await?;
            hand_over(live, FDSET, file, TAKE).await?;
            live.execute("migrate", json!({"uri": uri()}), QMP_DEADLINE)
                .await
                .map_err(|e| qmp_failure("save the server's memory", &e))?;
        }
        fault_point!("hypervisor.qemu.memory-begun", internal("fault point"));
        match outcome(live).await? {
            Outcome::Done => {}
            Outcome::Failed(why) => {
                // QEMU says only that it failed.
                room(entry)?;
                return Err(hypervisor_error("the server's memory could not be saved", why));
            }
        }
        let dir = entry.dir.clone();
        let turn = Arc::clone(&entry.writing).lock_owned().await;
        let kept = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            keep(&dir)
        });
        let bytes = kept
            .await
            .map_err(internal)?
            .map_err(|e| disk_error("save the server's memory", &e))?;
        fault_point!("hypervisor.qemu.memory-written", internal("fault point"));
        self.save(entry, |r| {
            r.saving = false;
            r.saved = Some(Saved {
                bytes,
                at: clock::now(),
            });
        })
        .await
    }

    /// The process shall stay after all: what it was writing is given up.
    pub(super) async fn cancel_saving(&self, entry: &Arc<Entry>, live: &Live) -> Result<(), Failure> {
        // Refused when nothing is being saved.
        let _ = live.execute("migrate_cancel", Value::Null, QMP_DEADLINE).await;
        if status(live).await?.is_some() {
            outcome(live).await?;
        }
        let _ = live
            .execute("remove-fd", json!({"fdset-id": FDSET}), QMP_DEADLINE)
            .await;
        give_up(&entry.dir).map_err(|e| disk_error("remove the server's memory", &e))?;
        self.save(entry, |r| r.saving = false).await
    }

    /// Reads the saved memory into a process that waits for it. Afterwards it is gone from the disk, and the guest
    /// has not run yet.
    pub(super) async fn load_memory(&self, entry: &Arc<Entry>, live: &Live) -> Result<(), Failure> {
        let loaded = async {
            let file = File::open(entry.dir.join(FILE)).map_err(|e| disk_error("read the server's memory", &e))?;
            prepare(live).await?;
            hand_over(live, FDSET, file, TAKE).await?;
            live.execute("migrate-incoming", json!({"uri": uri()}), QMP_DEADLINE)
                .await
                .map_err(|e| qmp_failure("load the server's memory", &e))?;
            match outcome(live).await? {
                Outcome::Done => Ok(()),
                Outcome::Failed(why) => Err(hypervisor_error("the server's memory could not be loaded", why)),
            }
        }
        .await;
        fault_point!("hypervisor.qemu.memory-loaded", internal("fault point"));
        match loaded {
            Ok(()) => self.drop_memory(entry).await,
            Err(mut e) => {
                // It stays suspended. QEMU says in its log what it did not like.
                if live.is_gone() {
                    e.detail = format!("{}; {}", e.detail, launch::log_tail(entry));
                }
                e.message.push_str("; a hard reboot starts the server without it");
                self.end(entry, live).await?;
                Err(e)
            }
        }
    }

    /// Forgets the saved memory, if there is any: first in the record, then on the disk.
    pub(super) async fn drop_memory(&self, entry: &Arc<Entry>) -> Result<(), Failure> {
        if !super::ops::is_saved(entry) {
            return Ok(());
        }
        self.save(entry, |r| r.saved = None).await?;
        fault_point!("hypervisor.qemu.memory-forgotten", internal("fault point"));
        remove(&entry.dir, FILE).map_err(|e| disk_error("remove the server's memory", &e))
    }
}

fn uri() -> String {
    format!("file:/dev/fdset/{FDSET}")
}

/// Refuses with numbers when the disk cannot take the guest's memory.
fn room(entry: &Entry) -> Result<(), Failure> {
    let memory = entry.record().map_or(0, |r| r.memory_mib);
    let fs = nix::sys::statvfs::statvfs(&entry.dir).map_err(|e| disk_error("look at its disk", &e.into()))?;
    #[allow(clippy::useless_conversion)]
    let free = u64::from(fs.blocks_available()).saturating_mul(u64::from(fs.fragment_size())) >> 20;
    let need = memory + BESIDE;
    if free >= need {
        return Ok(());
    }
    Err(Failure {
        code: FailureCode::DiskFull,
        message: format!(
            "the host's disk has {free} MiB free, and suspending a server with {memory} MiB of memory needs {need} MiB"
        ),
        detail: String::new(),
    })
}

fn write_only(dir: &Path) -> io::Result<File> {
    give_up(dir)?;
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(dir.join(PART))
}

/// Makes what QEMU wrote durable, under its name; answers its size.
fn keep(dir: &Path) -> io::Result<u64> {
    let file = match File::open(dir.join(PART)) {
        Ok(file) => {
            file.sync_all()?;
            fs::rename(dir.join(PART), dir.join(FILE))?;
            file
        }
        // An agent that died here has renamed it.
        Err(e) if e.kind() == io::ErrorKind::NotFound => File::open(dir.join(FILE))?,
        Err(e) => return Err(e),
    };
    File::open(dir)?.sync_all()?;
    Ok(file.metadata()?.len())
}

/// Removes memory that was not written to its end.
pub(super) fn give_up(dir: &Path) -> io::Result<()> {
    remove(dir, PART)
}

fn remove(dir: &Path, name: &str) -> io::Result<()> {
    match fs::remove_file(dir.join(name)) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

pub(super) async fn prepare(live: &Live) -> Result<(), Failure> {
    let failed = |e: QmpError| qmp_failure("prepare for the server's memory", &e);
    let on = json!({"capabilities": [{"capability": "events", "state": true}]});
    live.execute("migrate-set-capabilities", on, QMP_DEADLINE)
        .await
        .map_err(failed)?;
    // As fast as the disk or the network: nothing else waits meanwhile.
    live.execute(
        "migrate-set-parameters",
        json!({"max-bandwidth": 1_u64 << 40}),
        QMP_DEADLINE,
    )
    .await
    .map_err(failed)?;
    Ok(())
}

/// Gives QEMU an open file, as `/dev/fdset/SET`.
pub(super) async fn hand_over(live: &Live, set: u32, file: File, what: &str) -> Result<(), Failure> {
    let named = json!({"fdset-id": set});
    // One may be left of an attempt before.
    let _ = live.execute("remove-fd", named.clone(), QMP_DEADLINE).await;
    live.execute_with("add-fd", named, Some(file.into()), QMP_DEADLINE)
        .await
        .map_err(|e| qmp_failure(what, &e))?;
    Ok(())
}

/// Whether and how saving or loading has ended; `None`: nothing was begun, or it was given up.
pub(super) async fn status(live: &Live) -> Result<Option<String>, Failure> {
    let seen = live
        .execute("query-migrate", Value::Null, QMP_DEADLINE)
        .await
        .map_err(|e| qmp_failure("tell about the server's memory", &e))?;
    let text = |name: &str| seen.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    Ok(match text("status").as_str() {
        "" | "none" | "cancelled" => None,
        "failed" => Some(format!("failed: {}", text("error-desc"))),
        other => Some(other.to_owned()),
    })
}

/// Waits for the end.
async fn outcome(live: &Live) -> Result<Outcome, Failure> {
    loop {
        let step = live.memory_steps();
        match status(live).await? {
            None => return Ok(Outcome::Failed("it was given up".into())),
            Some(s) if s == "completed" => return Ok(Outcome::Done),
            Some(s) if s.starts_with("failed") => return Ok(Outcome::Failed(s)),
            Some(_) => {}
        }
        live.until(STEP, |s| s.gone || s.memory_steps != step).await;
    }
}
