//! Staging (Glance API reference, "Stage binary image data"): bytes come in as in an upload, and wait for an import.
//! They are checked by the import: what waits belongs to nobody but the image's owner.

use super::reconcile::{blocking, upload_of};
use super::upload::{Data, drain, gone, receive, undo};
use crate::model::{Image, Status};
use crate::policy::ModifyImage;
use crate::store::{image_fetch, image_update};
use crate::{Images, LiveUpload};
use axum::body::Body;
use futures_util::StreamExt;
use haneul_auth::Ctx;
use haneul_core::{Error, Kind, Result, fault_point};
use haneul_store::System;
use std::sync::Arc;

/// Receives bytes into the staging area. A task of its own, for the same reason as an upload.
pub(crate) async fn run(app: Arc<Images>, ctx: Ctx, id: String, body: Body, announced: Option<u64>) -> Result<()> {
    tokio::spawn(async move {
        let mut stream = body.into_data_stream().fuse();
        let result = stage(&app, &ctx, &id, &mut stream, announced).await;
        if result.is_err() {
            drain(&mut stream).await;
        }
        result
    })
    .await
    .map_err(|e| Error::internal(format!("staging task: {e}")))?
}

async fn stage(app: &Arc<Images>, ctx: &Ctx, id: &str, stream: &mut Data, announced: Option<u64>) -> Result<()> {
    let live = app.begin_live();
    let image = begin(app, ctx, id, live.key()).await?;
    fault_point!("image.stage.begun");
    let received = async {
        let sink = receive(app, &app.stores.staging, None, &live, stream, announced).await?;
        blocking(move || sink.keep()).await
    };
    let kept = match received.await {
        Ok(bytes) => commit(app, ctx, &image.id, &live, bytes.size).await,
        Err(e) => Err(e),
    };
    fault_point!("image.stage.committed");
    match kept {
        Ok(true) => Ok(()),
        other => {
            undo(app, &ctx.actor(), &image.id, live.key()).await;
            match other {
                Err(e) if e.kind() != Kind::Gone => Err(e),
                _ => Err(gone(id)),
            }
        }
    }
}

async fn begin(app: &Images, ctx: &Ctx, id: &str, key: &str) -> Result<Image> {
    let (ctx_, id, key) = (ctx.clone(), id.to_owned(), key.to_owned());
    app.db
        .write(&ctx.actor(), async move |tx| {
            let found = image_fetch(tx, &ctx_, ModifyImage, &id).await?;
            let mut image = found.edit();
            image.begin_staging(&key)?;
            tx.claim(&upload_of(&key)).await?;
            image_update(tx, &found, &image).await.map(|s| s.value)
        })
        .await
}

/// All bytes are there. False when the image is gone or does not wait for them.
async fn commit(app: &Images, ctx: &Ctx, id: &str, live: &LiveUpload<'_>, size: u64) -> Result<bool> {
    let (id, key) = (id.to_owned(), live.key().to_owned());
    app.db
        .write(&ctx.actor(), async move |tx| {
            let Some(stored) = tx.find::<Image>(&id).await? else {
                return Ok(false);
            };
            let mut image = stored.value.clone();
            let (Status::Uploading, Some(staged)) = (image.status, &mut image.staged) else {
                return Ok(false);
            };
            if staged.key != key {
                return Ok(false);
            }
            tx.let_go(&upload_of(&key)).await?;
            staged.size = i64::try_from(size).ok();
            image.size = staged.size;
            image_update(tx, &System::of(stored), &image).await?;
            Ok(true)
        })
        .await
}
