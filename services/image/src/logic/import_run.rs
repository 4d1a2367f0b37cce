//! The bytes of an import: fetched or staged, inspected, converted where the site wants that, copied into each store.
//!
//! Each step writes what it has done into the image's row before the next one begins, and names a file there before
//! it makes it. So a worker that was killed is followed by one that begins with the first step that is not written
//! down, and removes the file of that step first. What a worker finds out goes into the task; the job takes it from
//! there ([`super::import::ImportSaga`]).

use super::fetch::Remote;
use super::import::{end_task, is_here};
use super::reconcile::{blocking, worker_of};
use super::upload::{must_be_accepted, receive};
use crate::format::{ConvertError, DiskFormat, convert};
use crate::model::import::{self, Method, parse_import};
use crate::model::{Image, Status, Task, TaskStatus};
use crate::store::{Bytes, STAGING, image_update, inspected, trash_list, trash_put};
use crate::{Images, LiveUpload};
use axum::body::Body;
use futures_util::StreamExt;
use haneul_core::{Error, Kind, Result, fault_point, id};
use haneul_store::{Actor, System, Tx};
use serde_json::json;
use std::collections::HashSet;
use std::fs::File;
use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

/// Bytes that are copied at once.
const BATCH: usize = 1 << 20;
/// Between two notes of how far it is.
const TOLD: u64 = 256 << 20;
/// Between two tries to write down how an import ended.
const AGAIN: Duration = Duration::from_secs(5);
/// Code of [`elsewhere`].
const ELSEWHERE: &str = "import-elsewhere";
/// Properties that come along from another region's image (Glance's `glance_download_properties`).
const COPIED: &[&str] = &["hw_", "trait:", "os_distro", "os_secure_boot", "os_type"];

/// A worker's place in the list of those at work.
struct AtWork {
    app: Arc<Images>,
    task: String,
    stop: Arc<AtomicBool>,
}

impl Drop for AtWork {
    fn drop(&mut self) {
        let mut all = self.app.workers.lock().unwrap_or_else(PoisonError::into_inner);
        all.remove(&self.task);
    }
}

/// Why a worker does not begin: another process of ours has one. When that process is gone, the job asks again.
fn elsewhere() -> Error {
    Error::new(Kind::Conflict, "Another process works on this import.").with_code(ELSEWHERE)
}

/// Why a worker ends early: somebody else has ended the task.
fn ended() -> Error {
    Error::new(Kind::Gone, "The import has been ended.")
}

impl Images {
    /// Makes sure that somebody is at work on this task. Doing it twice is fine.
    pub(crate) fn work_on(self: &Arc<Self>, task: &str, remote: Option<Remote>) {
        let stop = Arc::new(AtomicBool::new(false));
        {
            let mut all = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
            if all.contains_key(task) {
                return;
            }
            all.insert(task.to_owned(), stop.clone());
        }
        let at_work = AtWork {
            app: self.clone(),
            task: task.to_owned(),
            stop,
        };
        tokio::spawn(async move {
            let app = at_work.app.clone();
            let task = at_work.task.clone();
            let result = work(&at_work, remote).await;
            if !matches!(&result, Err(e) if e.code() == ELSEWHERE) {
                settle(&app, &task, result).await;
            }
            drop(at_work);
            if let Err(e) = app.sweep().await {
                tracing::warn!(error = %e, "removing files of an import failed; trying again");
                app.mend_later();
            }
        });
    }

    /// Asks the worker of this task to end.
    pub(crate) fn stop_work(&self, task: &str) {
        let all = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(stop) = all.get(task) {
            stop.store(true, Ordering::Release);
        } else {
            drop(all);
        }
    }

    /// Removes what committed transactions left to remove.
    pub(crate) async fn sweep(&self) -> Result<usize> {
        let mut tx = self.db.read().await?;
        let trash = trash_list(&mut tx).await?;
        drop(tx);
        let mut removed = 0;
        for note in trash {
            removed += usize::from(self.discard(&note).await?);
        }
        Ok(removed)
    }
}

/// Writes down how it ended, and lets the job see it. Again and again: a task that says `processing` without a worker
/// would stand there until its deadline.
async fn settle(app: &Arc<Images>, task: &str, result: Result<()>) {
    if let Err(e) = &result {
        tracing::warn!(task, error = %e, "an import failed");
    }
    let result = Arc::new(result);
    loop {
        let (app_, id, how) = (app.clone(), task.to_owned(), result.clone());
        let written = app
            .db
            .write(&Actor::system("image-import"), async move |tx| {
                tx.let_go(&worker_of(&id)).await?;
                let Some(stored) = tx.find::<Task>(&id).await?.filter(|t| t.status.open()) else {
                    return Ok(());
                };
                let image = stored.image_id.clone().unwrap_or_default();
                match &*how {
                    Ok(()) => {
                        finish_image(tx, &image, &id).await?;
                        end_task(tx, &id, Ok(json!({"image_id": image}))).await?;
                    }
                    Err(e) => {
                        end_task(tx, &id, Err(e)).await?;
                    }
                }
                app_.jobs.poke(tx, ("image", &image)).await
            })
            .await;
        match written {
            Ok(()) => return,
            Err(e) => tracing::error!(task, error = %e, "the end of an import could not be written; trying again"),
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// The image after all its bytes are where they belong.
async fn finish_image(tx: &mut Tx, id: &str, task: &str) -> Result<()> {
    let Some(stored) = tx.find::<Image>(id).await? else {
        return Ok(());
    };
    let mut image = stored.value.clone();
    let Some(import) = image.import.as_mut().filter(|i| i.task.as_deref() == Some(task)) else {
        return Ok(());
    };
    import.task = None;
    import.done.clear();
    if image.status == Status::Importing {
        image.status = Status::Active;
    }
    if let Some(staged) = image.staged.take() {
        for key in [Some(&staged.key), staged.converted.as_ref()].into_iter().flatten() {
            trash_put(tx, &format!("{STAGING}:{key}")).await?;
        }
    }
    image_update(tx, &System::of(stored), &image).await.map(|_| ())
}

struct Run<'a> {
    app: &'a Arc<Images>,
    task: &'a str,
    image: String,
    stop: Arc<AtomicBool>,
}

async fn work(at_work: &AtWork, remote: Option<Remote>) -> Result<()> {
    let app = &at_work.app;
    let _slot = app.import_slots.acquire().await.map_err(Error::internal)?;
    let (task, image) = begin(app, &at_work.task).await?;
    fault_point!("image.import.working");
    let run = Run {
        app,
        task: &at_work.task,
        image: image.id.clone(),
        stop: at_work.stop.clone(),
    };
    let body = task.input.get("import_req").cloned().unwrap_or_default();
    let request = parse_import(&body, None, import::METHODS)?;
    // While these are held, nobody removes the files: not a delete either, which leaves that to our end.
    let keys = [image.file.clone(), image.staged.as_ref().map(|s| s.key.clone())];
    let _held: Vec<LiveUpload<'_>> = keys.into_iter().flatten().map(|k| app.hold(k)).collect();
    if request.method == Method::Copy {
        return run.copy_all(Source::Stores, &image, request.must_succeed).await;
    }
    let image = run.fetched(&request.method, image, remote).await?;
    fault_point!("image.import.fetched");
    let (image, virtual_size) = run.checked(image).await?;
    fault_point!("image.import.checked");
    let staged = image.staged.clone().ok_or_else(ended)?;
    let source = Source::Staging(staged.converted.unwrap_or(staged.key), virtual_size);
    run.copy_all(source, &image, request.must_succeed).await
}

/// Marks the task as being worked on.
async fn begin(app: &Images, task: &str) -> Result<(Task, Image)> {
    let id = task.to_owned();
    app.db
        .write(&Actor::system("image-import"), async move |tx| {
            let stored = tx.find::<Task>(&id).await?.filter(|t| t.status.open());
            let stored = stored.ok_or_else(ended)?;
            if !tx.claim(&worker_of(&id)).await? {
                return Err(elsewhere());
            }
            let mut task = stored.value.clone();
            if task.status == TaskStatus::Pending {
                task.status = TaskStatus::Processing;
                tx.update(&System::of(stored), &task).await?;
            }
            let image = tx.find::<Image>(task.image_id.as_deref().unwrap_or_default()).await?;
            let image = image.ok_or_else(ended)?.value;
            if image.import.as_ref().and_then(|i| i.task.as_ref()) != Some(&id) {
                return Err(ended());
            }
            Ok((task, image))
        })
        .await
}

/// Where copies come from.
enum Source {
    /// A file of the staging area, and the size of the disk inside.
    Staging(String, u64),
    /// The stores that have the image.
    Stores,
}

impl Run<'_> {
    fn go_on(&self) -> Result<()> {
        if self.stop.load(Ordering::Acquire) {
            Err(ended())
        } else {
            Ok(())
        }
    }

    /// Changes the image, if this import is still its own.
    async fn change(&self, f: impl Fn(&mut Image) + Send + Sync + 'static) -> Result<Image> {
        let (id, task) = (self.image.clone(), self.task.to_owned());
        self.app
            .db
            .write(&Actor::system("image-import"), async move |tx| {
                let stored = tx.find::<Image>(&id).await?.ok_or_else(ended)?;
                let mut image = stored.value.clone();
                if image.import.as_ref().and_then(|i| i.task.as_ref()) != Some(&task) {
                    return Err(ended());
                }
                f(&mut image);
                if image == stored.value {
                    return Ok(image);
                }
                image_update(tx, &System::of(stored), &image).await.map(|s| s.value)
            })
            .await
    }

    /// Says how far it is.
    async fn tell(&self, text: String) -> Result<()> {
        let (app, id, image) = (self.app.clone(), self.task.to_owned(), self.image.clone());
        self.app
            .db
            .write(&Actor::system("image-import"), async move |tx| {
                let stored = tx
                    .find::<Task>(&id)
                    .await?
                    .filter(|t| t.status.open())
                    .ok_or_else(ended)?;
                let mut task = stored.value.clone();
                task.message.clone_from(&text);
                tx.update(&System::of(stored), &task).await?;
                app.jobs.poke(tx, ("image", &image)).await
            })
            .await
    }

    /// The bytes in the staging area.
    async fn fetched(&self, method: &Method, image: Image, remote: Option<Remote>) -> Result<Image> {
        let staged = image.staged.clone().ok_or_else(ended)?;
        if staged.size.is_some() {
            return Ok(image);
        }
        self.unstage(&staged.key).await?;
        match method {
            Method::Web { uri } => {
                let (length, body) = super::fetch::get(&self.app.rules, uri).await?;
                let size = self.stream(body, length, &staged.key).await?;
                self.staged(size).await
            }
            Method::Remote {
                region,
                image: from,
                interface,
            } => {
                let (about, size) = if is_here(self.app, region, interface) {
                    self.own_image(from, &staged.key).await?
                } else {
                    let remote = remote.ok_or_else(|| not_reachable(self.app, region, interface))?;
                    let about = remote.image(from).await?;
                    let length = about.get("size").and_then(serde_json::Value::as_u64);
                    let body = remote.file(from).await?;
                    (about, self.stream(body, length, &staged.key).await?)
                };
                let image = self.change(move |image| take_over(image, &about)).await?;
                must_be_accepted(&image)?;
                self.staged(size).await
            }
            Method::Direct | Method::Copy => Err(Error::conflict("The staged bytes are gone. Stage the image again.")),
        }
    }

    async fn staged(&self, size: u64) -> Result<Image> {
        self.change(move |image| {
            if let Some(staged) = &mut image.staged {
                staged.size = i64::try_from(size).ok();
            }
        })
        .await
    }

    async fn unstage(&self, key: &str) -> Result<()> {
        let (stores, key) = (self.app.stores.clone(), key.to_owned());
        blocking(move || stores.staging.remove(&key)).await
    }

    /// A stream into the staging area; answers its length.
    async fn stream(&self, body: Body, length: Option<u64>, key: &str) -> Result<u64> {
        let live = self.app.hold(key.to_owned());
        let mut stream = body.into_data_stream().fuse();
        let sink = receive(self.app, &self.app.stores.staging, None, &live, &mut stream, length).await;
        let sink = sink.map_err(|e| match e.kind() {
            Kind::BadRequest => {
                Error::bad_request("The source's stream broke off, or its length was not the one it gave.")
                    .with_private(e)
            }
            _ => e,
        })?;
        self.go_on()?;
        Ok(blocking(move || sink.keep()).await?.size)
    }

    /// An image of this region, which the owner of the import must be allowed to see: its task says who that is.
    async fn own_image(&self, from: &str, key: &str) -> Result<(serde_json::Value, u64)> {
        let mut tx = self.app.db.read().await?;
        let task = tx.find::<Task>(self.task).await?.ok_or_else(ended)?;
        let owner = task.owner.clone().unwrap_or_default();
        let member = crate::model::Member::key(from, &owner);
        let shared = tx.find::<crate::model::Member>(&member).await?.is_some();
        let found = tx
            .find::<Image>(from)
            .await?
            .filter(|i| i.may_be_read_by(&owner, shared));
        drop(tx);
        let found = found.filter(|i| i.status == Status::Active).ok_or_else(|| {
            Error::not_found(format!(
                "No active image found with ID {from} in region {}.",
                self.app.region
            ))
        })?;
        let body = super::download::whole(self.app, &found).await?;
        let size = self.stream(body, Some(super::download::size_of(&found)), key).await?;
        let mut about = json!({"disk_format": found.disk_format, "container_format": found.container_format});
        if let Some(map) = about.as_object_mut() {
            map.extend(found.properties.iter().map(|(k, v)| (k.clone(), json!(v))));
        }
        Ok((about, size))
    }

    /// Inspects what is staged, and converts it where the site wants another format.
    async fn checked(&self, image: Image) -> Result<(Image, u64)> {
        self.go_on()?;
        let format = must_be_accepted(&image)?;
        let staged = image.staged.clone().ok_or_else(ended)?;
        let (stores, key) = (self.app.stores.clone(), staged.key.clone());
        let goal = self
            .app
            .convert_to
            .filter(|_| format != DiskFormat::Iso && image.container_format.as_deref() == Some("bare"));
        // A conversion that was killed when its file was complete.
        if let (Some(done), Some(goal)) = (staged.converted.clone(), goal)
            && self.app.stores.staging.has(&done)?
        {
            let found = blocking(move || inspected(&mut stores.staging.read(&done)?, goal)).await?;
            return Ok((self.now_of(goal).await?, found.virtual_size));
        }
        let found = blocking(move || inspected(&mut stores.staging.read(&key)?, format)).await?;
        let Some(goal) = goal.filter(|g| *g != format) else {
            return Ok((image, found.virtual_size));
        };
        let new = staged.converted.unwrap_or_else(id::hex);
        let name = new.clone();
        self.change(move |image| {
            if let Some(staged) = &mut image.staged {
                staged.converted = Some(name.clone());
            }
        })
        .await?;
        fault_point!("image.import.converting");
        let size = self.converted(&staged.key, format, &new, goal).await?;
        Ok((self.now_of(goal).await?, size))
    }

    async fn now_of(&self, format: DiskFormat) -> Result<Image> {
        self.change(move |image| image.disk_format = Some(format.name().to_owned()))
            .await
    }

    async fn converted(&self, from: &str, format: DiskFormat, new: &str, goal: DiskFormat) -> Result<u64> {
        let (stores, from, new) = (self.app.stores.clone(), from.to_owned(), new.to_owned());
        let stop = self.stop.clone();
        blocking(move || {
            let mut source = stores.staging.read(&from)?;
            let out = stores.staging.create_plain(&new)?;
            let whole = out.try_clone()?;
            let done = convert(&mut source, format, out, goal, &mut |n| {
                !stop.load(Ordering::Acquire) && stores.staging.must_fit(0, n).is_ok()
            });
            let done = done.map_err(|e| match e {
                ConvertError::Refused(r) => super::refused(&r),
                ConvertError::Stopped if stop.load(Ordering::Acquire) => ended(),
                ConvertError::Stopped => Error::new(
                    Kind::InsufficientStorage,
                    "The disk of the image service is too full to convert the image.",
                ),
                ConvertError::Read(e) | ConvertError::Write(e) => Error::internal(format!("converting an image: {e}")),
            })?;
            stores.staging.complete(&new, &whole)?;
            Ok(done.virtual_size)
        })
        .await
    }

    /// Copies into each store that is still to come.
    async fn copy_all(&self, source: Source, image: &Image, must_succeed: bool) -> Result<()> {
        let import = image.import.clone().unwrap_or_default();
        let mut any = !import.done.is_empty();
        for store in import.to {
            self.go_on()?;
            match self.copy(&source, image, &store).await {
                Ok(()) => any = true,
                Err(e) if must_succeed || e.kind() == Kind::Gone => return Err(e),
                Err(e) => {
                    tracing::warn!(task = self.task, store, error = %e, "a store did not take an import; going on");
                    self.change(move |image| {
                        if let Some(import) = &mut image.import {
                            import.to.retain(|s| *s != store);
                            import.failed.push(store.clone());
                        }
                    })
                    .await?;
                }
            }
            fault_point!("image.import.stored");
        }
        // Copies that fail leave the image as it was; without any copy there is no image.
        match (any, &source) {
            (true, _) | (_, Source::Stores) => Ok(()),
            (false, Source::Staging(..)) => Err(Error::unavailable("None of the uploads finished!")),
        }
    }

    async fn copy(&self, source: &Source, image: &Image, store: &str) -> Result<()> {
        let key = image.file.clone().ok_or_else(ended)?;
        let bytes = match source {
            Source::Staging(from, _) => {
                let (stores, from) = (self.app.stores.clone(), from.clone());
                let file = blocking(move || stores.staging.read(&from)).await?;
                self.write_to(store, &key, file).await?
            }
            Source::Stores => self.copy_of_good(image, store, &key).await?,
        };
        let virtual_size = match source {
            Source::Staging(_, size) => Some(*size),
            Source::Stores => None,
        };
        let store = store.to_owned();
        self.change(move |image| {
            if let Some(import) = &mut image.import {
                import.to.retain(|s| *s != store);
                import.done.push(store.clone());
            }
            let there = if image.stores.is_empty() {
                image.places()
            } else {
                image.stores.clone()
            };
            image.stores = there;
            if !image.stores.contains(&store) {
                image.stores.push(store.clone());
            }
            if let Some(size) = virtual_size {
                image.describe(&bytes.md5, &bytes.sha512, bytes.size, size);
            }
        })
        .await
        .map(|_| ())
    }

    /// From the first store that gives the bytes that were recorded.
    async fn copy_of_good(&self, image: &Image, store: &str, key: &str) -> Result<Bytes> {
        let mut bad = HashSet::new();
        loop {
            let (stores, places, k, skip) = (self.app.stores.clone(), image.places(), key.to_owned(), bad.clone());
            let (from, file) = blocking(move || stores.read(&places, &k, &skip)).await?;
            let bytes = self.write_to(store, key, file).await?;
            if image.os_hash_value.as_ref().is_none_or(|h| *h == bytes.sha512) {
                return Ok(bytes);
            }
            tracing::error!(
                image = image.id,
                store = from,
                "a store has other bytes than were put into it"
            );
            let (stores, note) = (self.app.stores.clone(), format!("{store}:{key}"));
            blocking(move || stores.remove(&note)).await?;
            bad.insert(from);
        }
    }

    async fn write_to(&self, store: &str, key: &str, mut file: File) -> Result<Bytes> {
        let files = self.app.stores.writable(store)?.files.clone();
        let size = file.metadata()?.len();
        files.must_fit(0, size)?;
        let k = key.to_owned();
        let mut sink = blocking(move || {
            // What a worker that was killed has left.
            files.remove(&k)?;
            files.create(&k)
        })
        .await?;
        let (mut written, mut told) = (0_u64, 0);
        loop {
            self.go_on()?;
            let (rest, next, n) = blocking(move || {
                let mut batch = vec![0; BATCH];
                let n = file.read(&mut batch)?;
                batch.truncate(n);
                let sink = if n == 0 { sink } else { sink.write(&[batch.into()])? };
                Ok((file, sink, n))
            })
            .await?;
            (file, sink) = (rest, next);
            if n == 0 {
                break;
            }
            written += n as u64;
            if written - told >= TOLD {
                told = written;
                self.tell(format!(
                    "Copied {} of {} MiB to store {store}",
                    written >> 20,
                    size >> 20
                ))
                .await?;
            }
        }
        blocking(move || sink.keep()).await
    }
}

fn not_reachable(app: &Images, region: &str, interface: &str) -> Error {
    let region: String = region.chars().filter(|c| !c.is_control()).take(100).collect();
    if app.regions.iter().any(|r| r.name == region) && matches!(interface, "public" | "internal" | "admin") {
        return Error::conflict(format!(
            "The import from region {region} was interrupted by a restart, and the token it came with is not kept. Ask \
             for the import again."
        ));
    }
    Error::bad_request(format!(
        "There is no {} image service in region {region} that this site fetches from (image.regions).",
        interface
            .chars()
            .filter(|c| !c.is_control())
            .take(32)
            .collect::<String>()
    ))
}

/// What comes along from another region's image.
fn take_over(image: &mut Image, about: &serde_json::Value) {
    let text = |name: &str| about.get(name).and_then(serde_json::Value::as_str).map(str::to_owned);
    for (slot, name) in [
        (&mut image.disk_format, "disk_format"),
        (&mut image.container_format, "container_format"),
    ] {
        if let Some(value) = text(name) {
            *slot = Some(value);
        }
    }
    for (name, value) in about.as_object().into_iter().flatten() {
        let wanted = COPIED.iter().any(|start| name.starts_with(start)) && name.len() <= 255;
        if let (true, Some(value)) = (wanted, value.as_str())
            && (image.properties.len() < crate::model::MAX_EXTRAS || image.properties.contains_key(name))
            && !value.contains('\0')
        {
            image.properties.insert(name.clone(), value.to_owned());
        }
    }
}
