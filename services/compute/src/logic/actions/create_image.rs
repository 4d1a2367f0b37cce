//! createImage and createBackup: an image of a server's root disk, as that is at one instant (Nova API reference,
//! "Create Image" and "Create Server Back Up"). Locked servers are not left out, as in Nova: nothing about them changes.
//!
//! The image is registered, the desired guest asks for its file and a job begins, in one transaction. The host makes
//! the file ([`crate::jobs`] waits for it), its bytes are sent to the image service, and then the file is wanted no more.

use super::check_state;
use crate::Compute;
use crate::logic::deps::NewImage;
use crate::logic::observe::power_sync;
use crate::model::{Server, Task, VmState};
use haneul_agent_api::Ask;
use haneul_auth::{Action, Ctx, fetch};
use haneul_core::{Error, Kind, Result, fault_point};
use haneul_image::format::DiskFormat;
use haneul_jobs::Job;
use haneul_store::{Actor, System, Tx};
use serde_json::json;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::task::AbortHandle;

/// Kind of the job, of both actions.
pub(crate) const JOB: &str = "server.createImage";
const STATES: &[VmState] = &[VmState::Active, VmState::Stopped, VmState::Paused, VmState::Suspended];
/// What an image of a server does not take over from the image that the server was made from: Nova's
/// `non_inheritable_image_properties`, and what is about the very bytes of that image.
const NOT_INHERITED: &[&str] = &[
    "cache_in_nova",
    "bittorrent",
    "cinder_encryption_key_id",
    "cinder_encryption_key_deletion_policy",
    "img_signature",
    "img_signature_hash_method",
    "img_signature_key_type",
    "img_signature_certificate_uuid",
];
/// Longest wait for a host to open the stream: one that died over it is asked again.
const OPEN: Duration = Duration::from_secs(4);
/// Between two tries to get the bytes.
const AGAIN: Duration = Duration::from_millis(500);

/// Code of the error that says: another process fetches it.
const ELSEWHERE: &str = "image-elsewhere";
/// Who writes down how far the bytes are.
const ACTOR: &str = "image-of-server";

/// What is asked for.
#[derive(Clone, Debug)]
pub(crate) struct ImageRequest {
    pub name: String,
    pub metadata: BTreeMap<String, String>,
    /// Of a backup: its type, and how many of that type shall be there afterwards.
    pub backup: Option<(String, usize)>,
}

/// What the job remembers.
pub(crate) struct Memory<'a>(pub &'a Job);

impl<'a> Memory<'a> {
    fn text(&self, name: &str) -> &'a str {
        self.0.state.get(name).and_then(|v| v.as_str()).unwrap_or_default()
    }
    /// The image.
    pub fn image(&self) -> &'a str {
        self.text("image")
    }
    /// Bytes of the file that the host has made.
    pub fn size(&self) -> u64 {
        self.0.state.get("size").and_then(|v| v.as_u64()).unwrap_or(0)
    }
}

impl Compute {
    /// Begins it (202); answers the image's id.
    pub(crate) async fn create_image<A>(
        self: &Arc<Self>,
        ctx: &Ctx,
        action: A,
        id: &str,
        r: ImageRequest,
    ) -> Result<String>
    where
        A: Action<On = Server> + Copy,
    {
        let (app, c, id) = (self.clone(), ctx.clone(), id.to_owned());
        let image = self
            .db
            .write(&ctx.actor(), async move |tx| {
                let old = fetch(tx, &c, action, &id).await?;
                let (what, task) = match r.backup {
                    None => ("createImage", Task::ImageSnapshotPending),
                    Some(_) => ("createBackup", Task::ImageBackup),
                };
                check_state(&old, what, STATES)?;
                let image = app.image.register(tx, &c, &new_image(&c, &old, &r)).await?;
                let mut s = old.edit();
                s.snapshot = Some(image.clone());
                s.task_state = Some(task);
                s.fault = None;
                s.note(what, &c.request_id);
                app.push_guest(tx, &mut s).await?;
                let (kind, rotation) = r.backup.clone().unzip();
                let state = json!({"v": 1, "image": image, "backup_type": kind, "rotation": rotation});
                app.jobs.start(tx, JOB, ("server", &id), state).await?;
                tx.update(&old, &s).await?;
                Ok(image)
            })
            .await?;
        fault_point!("compute.create-image.committed");
        Ok(image)
    }

    /// The image has its bytes: the server is as it was, and of its backups the newest stay.
    pub(crate) async fn image_made(&self, tx: &mut Tx, s: &mut Server, job: &Job) -> Result<()> {
        self.let_image_go(tx, s, job).await?;
        let rotation = job.state.get("rotation").and_then(|v| v.as_u64());
        if let Some(rotation) = rotation {
            let properties = [
                ("instance_uuid", s.id.as_str()),
                ("image_type", "backup"),
                ("backup_type", Memory(job).text("backup_type")),
            ];
            let keep = usize::try_from(rotation).unwrap_or(usize::MAX);
            self.image.keep_newest(tx, &s.project_id, &properties, keep).await?;
        }
        Ok(())
    }

    /// The host shall not hold the file any more, whatever became of the image.
    pub(crate) async fn let_image_go(&self, tx: &mut Tx, s: &mut Server, job: &Job) -> Result<()> {
        if let Some(host) = s.host_id.clone()
            && let Some(seen) = self.fleet.observed_guest(tx, &host, &s.id).await?
            && seen.settled
            && seen.generation as i64 >= s.desired_generation
        {
            // What the guest did by itself meanwhile must not be undone by the new desired state.
            power_sync(s, &seen);
        }
        s.snapshot = None;
        s.task_state = None;
        self.push_guest(tx, s).await?;
        self.uploads.end(tx, job);
        Ok(())
    }

    /// A job that gave way to another: when it was about an image, that is not made any more.
    pub(crate) async fn give_image_up(&self, tx: &mut Tx, job: Option<&Job>) -> Result<()> {
        let Some(job) = job.filter(|j| j.kind == JOB) else {
            return Ok(());
        };
        self.uploads.end(tx, job);
        self.image.give_up(tx, Memory(job).image()).await
    }

    /// Makes sure that somebody fetches the bytes. Doing it twice is fine.
    pub(crate) fn fetch_image(self: &Arc<Self>, job: &Job, host: String) {
        let mut all = self.uploads.lock();
        if all.contains_key(&job.id) {
            return;
        }
        let (app, j) = (self.clone(), job.clone());
        let task = tokio::spawn(async move {
            match app.fetched(&j, &host).await {
                Ok(()) => {}
                // When that process is gone, the job asks again.
                Err(e) if e.code() == ELSEWHERE => {
                    app.uploads.lock().remove(&j.id);
                    return;
                }
                Err(e) => {
                    tracing::warn!(job = j.id, error = %e, "the image of a server could not be fetched");
                    app.uploads.lock().insert(j.id.clone(), Upload::Failed(e));
                }
            }
            app.go_on(&j).await;
        });
        all.insert(job.id.clone(), Upload::Running(task.abort_handle()));
    }

    /// Tries until it has the bytes, or cannot have them. The job's deadline ends it at the latest.
    async fn fetched(self: &Arc<Self>, job: &Job, host: &str) -> Result<()> {
        let image = Memory(job).image();
        let claim = claim_of(&job.id);
        let actor = Actor::system(ACTOR);
        if !self.db.write(&actor, async move |tx| tx.claim(&claim).await).await? {
            return Err(Error::conflict("Another process fetches this image.").with_code(ELSEWHERE));
        }
        loop {
            let result = self.fetch_once(job, host, image).await;
            fault_point!("compute.create-image.fetched");
            match result {
                // The host went away, or the stream broke off.
                Err(e) if matches!(e.kind(), Kind::Unavailable | Kind::BadRequest) => {
                    tracing::info!(image, error = %e, "the bytes of a server's image did not come; trying again");
                    tokio::time::sleep(AGAIN).await;
                }
                other => return other,
            }
        }
    }

    async fn fetch_once(self: &Arc<Self>, job: &Job, host: &str, image: &str) -> Result<()> {
        let uuid = |id: &str| uuid::Uuid::try_parse(id).map_err(Error::internal);
        let (guest, image_uuid) = (uuid(&job.subject_id)?, uuid(image)?);
        let ask = Ask::Snapshot {
            guest,
            image: image_uuid,
        };
        let tunnel = self.fleet.dial(host, ask, OPEN).await?;
        let (id, mine) = (job.subject_id.clone(), image.to_owned());
        self.db
            .write(&Actor::system(ACTOR), async move |tx| {
                let Some(stored) = tx
                    .find::<Server>(&id)
                    .await?
                    .filter(|s| s.snapshot.as_ref() == Some(&mine))
                else {
                    return Ok(());
                };
                let mut s = stored.value.clone();
                s.task_state = Some(Task::ImageUploading);
                if s != stored.value {
                    tx.update(&System::of(stored), &s).await?;
                }
                Ok(())
            })
            .await?;
        let received = self.image.receive(&job.actor, image, tunnel.from, Memory(job).size());
        let received = received.await;
        drop(tunnel.to);
        received
    }

    /// The job looks at what there is now. Again and again: nobody else would tell it.
    async fn go_on(&self, job: &Job) {
        loop {
            let (jobs, server) = (self.jobs.clone(), job.subject_id.clone());
            let actor = Actor::system(ACTOR);
            let claim = claim_of(&job.id);
            let poked = self.db.write(&actor, async move |tx| {
                tx.let_go(&claim).await?;
                jobs.poke(tx, ("server", &server)).await
            });
            match poked.await {
                Ok(()) => return,
                Err(e) => tracing::error!(error = %e, "the end of an upload could not be told; trying again"),
            }
            tokio::time::sleep(AGAIN).await;
        }
    }
}

/// What a process claims that fetches the image of a job.
fn claim_of(job: &str) -> String {
    format!("server-image:{job}")
}

/// Bytes on their way from hosts, by job.
#[derive(Clone, Default)]
pub(crate) struct Uploads(Arc<Mutex<HashMap<String, Upload>>>);

enum Upload {
    Running(AbortHandle),
    Failed(Error),
}

impl Uploads {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Upload>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why the bytes of a job's image will not come.
    pub fn failure(&self, job: &Job) -> Option<Error> {
        match self.lock().get(&job.id) {
            Some(Upload::Failed(e)) => Some(Error::new(e.kind(), e.public().to_owned()).with_private(e.private())),
            _ => None,
        }
    }

    /// Nothing is fetched any more, after the caller's transaction.
    fn end(&self, tx: &mut Tx, job: &Job) {
        let (all, id) = (self.clone(), job.id.clone());
        tx.after_commit(move || {
            if let Some(Upload::Running(task)) = all.lock().remove(&id) {
                task.abort();
            }
        });
    }
}

/// The image as Nova registers it. What the user says of it comes last.
fn new_image(ctx: &Ctx, s: &Server, r: &ImageRequest) -> NewImage {
    let mut properties = s.image.properties.clone();
    properties.retain(|name, _| !NOT_INHERITED.contains(&name.as_str()) && !name.starts_with("os_glance"));
    let mut put = |name: &str, value: &str| properties.insert(name.to_owned(), value.to_owned());
    put("base_image_ref", &s.image.id);
    put("boot_roles", &s.booted_by.roles.join(","));
    put("owner_user_name", &s.booted_by.user_name);
    put("owner_project_name", &s.booted_by.project_name);
    put("owner_id", &s.project_id);
    put("image_location", "snapshot");
    put("image_state", "available");
    put("instance_uuid", &s.id);
    put("user_id", &ctx.user_id);
    match &r.backup {
        None => put("image_type", "snapshot"),
        Some((kind, _)) => {
            put("image_type", "backup");
            put("backup_type", kind)
        }
    };
    properties.extend(r.metadata.clone());
    NewImage {
        name: r.name.clone(),
        format: Some(DiskFormat::Qcow2),
        min_disk_gib: s.image.min_disk_gib.max(s.flavor.disk),
        min_ram_mib: s.image.min_ram_mib,
        properties,
        // Another project's administrator: the server's owner shall be able to get at it.
        shared: ctx.project_id() != s.project_id,
    }
}
