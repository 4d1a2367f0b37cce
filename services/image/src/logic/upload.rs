//! Upload: bytes stream into a file, are checked on the way and as a whole, and only then belong to the
//! image. Whatever goes wrong, nothing is left behind and the image is `queued` again.
//!
//! The order is what makes it safe: the row says `saving` and names the key before the first byte; the file
//! is synced, checked and renamed before the row says `active`. A crash between any two of these is undone by
//! the reconciler, which finds the key in the row.

use super::reconcile::{blocking, upload_of};
use super::refused;
use crate::format::{DiskFormat, Inspection, Probe, Refusal, RefusalKind};
use crate::model::{Image, Status};
use crate::policy::UploadImage;
use crate::store::{Bytes, Files, Sink, image_fetch, image_update};
use crate::{Images, LiveUpload};
use axum::body::{Body, BodyDataStream};
use futures_util::StreamExt;
use futures_util::stream::Fuse;
use haneul_auth::Ctx;
use haneul_core::{Error, Kind, Result, fault_point, id};
use haneul_store::{Actor, System};
use std::sync::Arc;
use std::time::Duration;

/// Bytes that are handed to the disk at once.
const BATCH: usize = 1 << 20;
/// Longest silence of the client.
const STALL: Duration = Duration::from_secs(120);
/// After a refusal the rest of the request is read and thrown away, up to these, so that clients which
/// send everything before they read still get the answer instead of a reset connection.
const DRAIN_BYTES: u64 = 256 << 20;
const DRAIN_TIME: Duration = Duration::from_secs(10);

pub(super) type Data = Fuse<BodyDataStream>;

/// Receives the bytes of an image. Runs as a task of its own: when the client goes away, the task sees the
/// stream end and cleans up, instead of being dropped half-way.
pub(crate) async fn run(
    app: Arc<Images>,
    ctx: Ctx,
    id: String,
    body: Body,
    announced: Option<u64>,
    store: Option<String>,
) -> Result<()> {
    tokio::spawn(async move {
        // Fused, for what follows a failed upload looks at it again.
        let mut stream = body.into_data_stream().fuse();
        let result = upload(&app, &ctx, &id, &mut stream, announced, store.as_deref()).await;
        if result.is_err() {
            drain(&mut stream).await;
        }
        result
    })
    .await
    .map_err(|e| Error::internal(format!("upload task: {e}")))?
}

async fn upload(
    app: &Arc<Images>,
    ctx: &Ctx,
    id: &str,
    stream: &mut Data,
    announced: Option<u64>,
    store: Option<&str>,
) -> Result<()> {
    let store = match store {
        None => app.stores.default(),
        // Glance answers 400 here and 409 elsewhere.
        Some(id) => app
            .stores
            .writable(id)
            .map_err(|e| Error::field("x-image-meta-store", e.public().to_owned()))?,
    };
    // Known as live before the row names it, or a reconciler in between would undo it.
    let live = app.begin_live();
    let image = begin(app, ctx, id, live.key(), &store.id).await?;
    take(app, &ctx.actor(), &image, &live, &store.files, stream, announced).await
}

/// Receives the bytes of an image that is `saving` under the key of `live`; when that fails, it is `queued` again.
pub(super) async fn take(
    app: &Arc<Images>,
    actor: &Actor,
    image: &Image,
    live: &LiveUpload<'_>,
    files: &Files,
    stream: &mut Data,
    announced: Option<u64>,
) -> Result<()> {
    fault_point!("image.upload.begun");
    let id = &image.id;
    let format = must_be_accepted(image)?;
    let received = async {
        let sink = receive(app, files, Some(format), live, stream, announced).await?;
        blocking(move || sink.finish(format)).await
    };
    match received.await {
        Ok((bytes, inspection)) => {
            let kept = commit(app, actor, id, live.key(), bytes, inspection).await;
            if !matches!(kept, Ok(true)) {
                undo(app, actor, id, live.key()).await;
            }
            fault_point!("image.upload.committed");
            match kept {
                Ok(true) => Ok(()),
                Ok(false) => Err(gone(id)),
                Err(e) => Err(e),
            }
        }
        Err(e) => {
            undo(app, actor, id, live.key()).await;
            // The delete took the file away before it was complete.
            Err(if e.kind() == Kind::Gone { gone(id) } else { e })
        }
    }
}

pub(super) fn gone(id: &str) -> Error {
    Error::new(
        Kind::Gone,
        format!(
            "Image {id} could not be found after upload. The image may have been deleted during the upload, \
             cleaning up the chunks uploaded."
        ),
    )
}

/// Marks the image as `saving` under this key.
async fn begin(app: &Images, ctx: &Ctx, id: &str, key: &str, store: &str) -> Result<Image> {
    let (ctx_, id, key, store) = (ctx.clone(), id.to_owned(), key.to_owned(), store.to_owned());
    app.db
        .write(&ctx.actor(), async move |tx| {
            let found = image_fetch(tx, &ctx_, UploadImage, &id).await?;
            let mut image = found.edit();
            image.begin_upload(&key, &store)?;
            must_be_accepted(&image)?;
            tx.claim(&upload_of(&key)).await?;
            image_update(tx, &found, &image).await.map(|s| s.value)
        })
        .await
}

/// Formats that are recognised but not taken yet are refused before a byte is stored.
pub(super) fn must_be_accepted(image: &Image) -> Result<DiskFormat> {
    let name = image.disk_format.as_deref().unwrap_or_default();
    let Some(format) = DiskFormat::from_glance_name(name) else {
        return Err(Error::field("disk_format", format!("disk_format {name} is not known.")));
    };
    if format.is_never_accepted() {
        return Err(refused(&Refusal::new(
            RefusalKind::FormatRefused,
            format!("Images in the {name} format are not accepted."),
            "Convert it (qemu-img convert -O qcow2 IN OUT), set disk_format to qcow2 and upload the result.",
        )));
    }
    let container = image.container_format.as_deref().unwrap_or_default();
    if !matches!(container, "bare" | "ami" | "ari" | "aki") {
        return Err(refused(&Refusal::new(
            RefusalKind::SubformatRefused,
            format!("Images in a container of format {container} are not accepted yet."),
            "Unpack it, set container_format to bare and upload the disk inside.",
        ))
        .with_field("container_format"));
    }
    Ok(format)
}

/// Writes a stream into a new file; `declared` lets a wrong format end it early.
pub(super) async fn receive(
    app: &Images,
    files: &Files,
    declared: Option<DiskFormat>,
    live: &LiveUpload<'_>,
    stream: &mut Data,
    announced: Option<u64>,
) -> Result<Sink> {
    if let Some(size) = announced {
        must_be_small(app, size)?;
        files.must_fit(0, size)?;
    }
    let mut probe = declared.map(|f| Probe::new(Some(f)));
    let (files, key) = (files.clone(), live.key().to_owned());
    let mut sink = blocking(move || files.create(&key)).await?;
    let mut total = 0_u64;
    let mut batch: Vec<bytes::Bytes> = Vec::new();
    let mut waiting = 0;
    loop {
        let next = tokio::time::timeout(STALL, stream.next()).await.map_err(|_| {
            Error::bad_request(format!(
                "The upload stalled: no data for {} seconds after {total} bytes. Upload the image again.",
                STALL.as_secs()
            ))
        })?;
        let end = match next {
            Some(Ok(bytes)) => {
                if let Some(probe) = &mut probe {
                    probe.push(&bytes).map_err(|r| refused(&r))?;
                }
                total += bytes.len() as u64;
                must_be_small(app, total)?;
                waiting += bytes.len();
                batch.push(bytes);
                false
            }
            Some(Err(e)) => {
                return Err(Error::bad_request(format!(
                    "The upload was cut off after {total} bytes. Upload the image again."
                ))
                .with_private(e));
            }
            None => true,
        };
        if waiting >= BATCH || (end && waiting > 0) {
            let full = std::mem::take(&mut batch);
            waiting = 0;
            sink = blocking(move || sink.write(&full)).await?;
        }
        if end {
            break;
        }
    }
    if announced.is_some_and(|n| n != total) {
        return Err(Error::field(
            "x-openstack-image-size",
            format!(
                "{} bytes were announced and {total} came: the upload was cut off, or the announced size is \
                 wrong. Upload the image again.",
                announced.unwrap_or_default()
            ),
        ));
    }
    Ok(sink)
}

fn must_be_small(app: &Images, size: u64) -> Result<()> {
    if size <= app.max_bytes {
        return Ok(());
    }
    Err(Error::new(
        Kind::TooLarge,
        format!(
            "The incoming image is too large: at least {size} bytes, and the limit is {} (image.max_bytes).",
            app.max_bytes
        ),
    )
    .with_field("size"))
}

/// Makes the bytes the image's. False when the image is gone or no longer waits for this upload.
pub(crate) async fn commit(
    app: &Images,
    actor: &Actor,
    id: &str,
    key: &str,
    bytes: Bytes,
    inspection: Inspection,
) -> Result<bool> {
    let (id, key) = (id.to_owned(), key.to_owned());
    app.db
        .write(actor, async move |tx| {
            let Some(stored) = tx.find::<Image>(&id).await? else {
                return Ok(false);
            };
            if stored.status != Status::Saving || stored.file.as_deref() != Some(key.as_str()) {
                return Ok(false);
            }
            tx.let_go(&upload_of(&key)).await?;
            let mut image = stored.value.clone();
            image.status = Status::Active;
            image.describe(&bytes.md5, &bytes.sha512, bytes.size, inspection.virtual_size);
            // Permission was given when the upload began; it may have outlived the token.
            image_update(tx, &System::of(stored), &image).await?;
            Ok(true)
        })
        .await
}

/// Removes the bytes and puts the image back. What fails here the reconciler does later.
pub(super) async fn undo(app: &Arc<Images>, actor: &Actor, id: &str, key: &str) {
    let result = async {
        app.remove_file(key).await?;
        fault_point!("image.upload.undone", Error::internal("armed"));
        app.requeue(actor, id, key).await
    };
    if let Err(e) = result.await {
        tracing::error!(image = id, error = %e, "undoing an upload failed; trying again");
        app.mend_later();
    }
}

pub(super) async fn drain(stream: &mut Data) {
    let mut left = DRAIN_BYTES;
    let all = async {
        while let Some(Ok(bytes)) = stream.next().await {
            left = left.saturating_sub(bytes.len() as u64);
            if left == 0 {
                break;
            }
        }
    };
    let _ = tokio::time::timeout(DRAIN_TIME, all).await;
}

/// A key for a new upload.
pub(crate) fn new_key() -> String {
    id::hex()
}
