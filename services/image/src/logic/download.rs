//! Download: the bytes of an image, or a range of them, as a stream.

use super::reconcile::blocking;
use crate::Images;
use crate::model::{Image, Span, Status, span_of};
use crate::policy::DownloadImage;
use crate::store::image_fetch;
use axum::body::Body;
use haneul_auth::Ctx;
use haneul_core::{Error, Result};
use std::collections::HashSet;
use std::io::{Seek, SeekFrom};
use tokio::io::AsyncReadExt;
use tokio_util::io::ReaderStream;

const CHUNK: usize = 256 << 10;

/// What to send.
pub(crate) struct Download {
    pub body: Body,
    pub size: u64,
    /// The part that was asked for; `None` is everything.
    pub span: Option<Span>,
    pub checksum: Option<String>,
}

/// `None` when there are no bytes yet.
pub(crate) async fn run(
    app: &Images,
    ctx: &Ctx,
    id: &str,
    range: Option<&str>,
    content_range: Option<&str>,
) -> Result<Option<Download>> {
    let mut tx = app.db.read().await?;
    let image = image_fetch(&mut tx, ctx, DownloadImage, id).await?;
    drop(tx);
    if image.status == Status::Deactivated && !ctx.is_admin() {
        return Err(
            Error::forbidden("The requested image has been deactivated. Image data download is forbidden.")
                .with_field("status"),
        );
    }
    if !image.status.has_data() {
        return Ok(None);
    }
    let size = size_of(&image);
    let span = span_of(range, content_range, size)?;
    let body = open(app, &image, span.unwrap_or(Span { start: 0, len: size })).await?;
    Ok(Some(Download {
        body,
        size,
        span,
        checksum: image.checksum.clone(),
    }))
}

pub(crate) fn size_of(image: &Image) -> u64 {
    image.size.and_then(|n| u64::try_from(n).ok()).unwrap_or(0)
}

/// All bytes of an image.
pub(crate) async fn whole(app: &Images, image: &Image) -> Result<Body> {
    let len = size_of(image);
    open(app, image, Span { start: 0, len }).await
}

/// A stream over part of an image's file.
pub(crate) async fn open(app: &Images, image: &Image, span: Span) -> Result<Body> {
    let key = image
        .file
        .clone()
        .ok_or_else(|| Error::internal(format!("image {} is {} without a file", image.id, image.status)))?;
    let (stores, places) = (app.stores.clone(), image.places());
    let cached = app.cache.open_copy(app, image).await;
    let file = blocking(move || {
        let mut file = match cached {
            Some(file) => file,
            None => stores.read(&places, &key, &HashSet::new())?.1,
        };
        file.seek(SeekFrom::Start(span.start))?;
        Ok(file)
    })
    .await?;
    let reader = tokio::fs::File::from_std(file).take(span.len);
    Ok(Body::from_stream(ReaderStream::with_capacity(reader, CHUNK)))
}
