//! Copies of root disks. QEMU copies the disk of a guest that runs or is paused, as it is at the instant at which that
//! begins: before the guest changes a place that is not copied yet, the copy gets what stood there. The target is a
//! file that QEMU gets open. The record says when a copy may be under way, so that what a dropped call or a dead agent
//! left is ended before the next begins.

use super::launch::open_disk;
use super::live::{Live, Run};
use super::ops::{QMP_DEADLINE, qmp_failure};
use super::qmp::QmpError;
use super::{Entry, Inner, disk_error, hypervisor_error, internal, suspend};
use crate::{Hold, OnProgress};
use haneul_agent_api::{Failure, FailureCode, Power};
use haneul_core::fault_point;
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// QEMU's name of the job, and of the target's node.
const NAME: &str = "snapshot";
/// Number of the target for QEMU.
const FDSET: u32 = 901;
/// How long to wait for the next sign of progress before asking.
const STEP: Duration = Duration::from_secs(1);
/// How long closing the target may take: its last tables are written then.
const CLOSE_DEADLINE: Duration = Duration::from_secs(60);

impl Inner {
    pub(crate) async fn copy_disk(
        self: &Arc<Self>,
        id: Uuid,
        target: &Path,
        progress: OnProgress,
    ) -> Result<Option<Hold>, Failure> {
        let entry = self.find(id).ok_or_else(|| internal("no record of the guest"))?;
        let guard = Arc::clone(&entry.op).lock_owned().await;
        drop(entry.writing.lock().await);
        self.adopt(&entry).await?;
        let Some(live) = entry.live() else {
            return Ok(Some(Box::new(guard)));
        };
        self.known(&entry, &live).await?;
        self.drop_copy(&entry, &live).await?;
        self.save(&entry, |r| r.copying = true).await?;
        if let Err(e) = self.begin_copy(&live, target).await {
            self.drop_copy(&entry, &live).await?;
            return Err(e);
        }
        // The guest may be told other things meanwhile.
        drop(guard);
        fault_point!("hypervisor.qemu.copy-begun", internal("fault point"));
        let copied = concluded(&live, progress).await;
        let _guard = Arc::clone(&entry.op).lock_owned().await;
        if live.is_gone() {
            return Err(hypervisor_error(
                "the server's process ended while its disk was copied",
                "",
            ));
        }
        self.drop_copy(&entry, &live).await?;
        if copied.is_err() && live.run() == Run::NoSpace && entry.record().is_some_and(|r| r.power == Power::Running) {
            // It waited for room in the copy, which is given up.
            self.go(&entry, &live).await?;
        }
        copied?;
        fault_point!("hypervisor.qemu.copied", internal("fault point"));
        Ok(None)
    }

    async fn begin_copy(&self, live: &Live, target: &Path) -> Result<(), Failure> {
        let failed = |e: QmpError| qmp_failure("copy the server's disk", &e);
        let (file, direct) = open_disk(target).map_err(|e| disk_error("open the copy of the disk", &e))?;
        suspend::hand_over(live, FDSET, file, "take the copy of the disk").await?;
        let cache = json!({"direct": direct, "no-flush": false});
        let aio = if self.io_uring { "io_uring" } else { "threads" };
        let node = json!({
            "driver": "qcow2", "node-name": NAME, "cache": cache, "discard": "unmap", "detect-zeroes": "unmap",
            "backing": null,
            "file": {
                "driver": "file", "filename": format!("/dev/fdset/{FDSET}"), "aio": aio, "discard": "unmap",
                "cache": cache,
            },
        });
        live.execute("blockdev-add", node, QMP_DEADLINE).await.map_err(failed)?;
        let size = self.root_size(live).await?;
        live.execute("block_resize", json!({"node-name": NAME, "size": size}), QMP_DEADLINE)
            .await
            .map_err(failed)?;
        let job = json!({
            "job-id": NAME, "device": "root", "target": NAME, "sync": "full", "auto-dismiss": false,
        });
        live.execute("blockdev-backup", job, QMP_DEADLINE)
            .await
            .map_err(failed)?;
        Ok(())
    }

    /// Ends a copy that may be under way, and closes its target.
    pub(super) async fn drop_copy(&self, entry: &Arc<Entry>, live: &Live) -> Result<(), Failure> {
        if !entry.record().is_some_and(|r| r.copying) {
            return Ok(());
        }
        // What is not there is refused, and that is as good.
        let _ = live.execute("job-cancel", json!({"id": NAME}), QMP_DEADLINE).await;
        let _ = tokio::time::timeout(CLOSE_DEADLINE, concluded(live, Arc::new(|_| {}))).await;
        for (command, arguments) in [
            ("job-dismiss", json!({"id": NAME})),
            ("blockdev-del", json!({"node-name": NAME})),
            ("remove-fd", json!({"fdset-id": FDSET})),
        ] {
            match live.execute(command, arguments, CLOSE_DEADLINE).await {
                Ok(_) | Err(QmpError::Refused { .. } | QmpError::Closed) => {}
                Err(e) => return Err(qmp_failure("end the copy of the disk", &e)),
            }
        }
        self.save(entry, |r| r.copying = false).await
    }
}

/// Waits for the end of the job.
async fn concluded(live: &Live, progress: OnProgress) -> Result<(), Failure> {
    loop {
        let step = live.job_steps();
        let jobs = live.execute("query-jobs", Value::Null, QMP_DEADLINE).await;
        let jobs = jobs.map_err(|e| qmp_failure("tell about the copy of the disk", &e))?;
        let text = |job: &Value, name: &str| job.get(name).and_then(Value::as_str).map(str::to_owned);
        let number = |job: &Value, name: &str| job.get(name).and_then(Value::as_u64).unwrap_or(0);
        let ours = |j: &&Value| text(j, "id").as_deref() == Some(NAME);
        let Some(job) = jobs.as_array().into_iter().flatten().find(ours) else {
            return Err(hypervisor_error("the copy of the server's disk was given up", ""));
        };
        if text(job, "status").as_deref() == Some("concluded") {
            return text(job, "error").map_or(Ok(()), |why| Err(failed(&why)));
        }
        let done = number(job, "current-progress").saturating_mul(100);
        progress(done.checked_div(number(job, "total-progress")).unwrap_or(0).min(99) as u8);
        live.until(STEP, |s| s.gone || s.job_steps != step).await;
    }
}

fn failed(why: &str) -> Failure {
    // QEMU hands on what the system says.
    let full = why.contains("No space left on device") || why.contains("quota exceeded");
    Failure {
        code: if full {
            FailureCode::DiskFull
        } else {
            FailureCode::DiskError
        },
        message: if full {
            "the host's disk became full while the server's disk was copied".into()
        } else {
            "the host could not copy the server's disk".into()
        },
        detail: why.to_owned(),
    }
}
