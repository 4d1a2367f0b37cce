//! The cache: copies of image files on this machine's own disk, for stores that are far away. An administrator queues
//! images (Glance API reference, "Cache manage"); downloads and hosts are served from the copy when there is one.

use super::Files;
use crate::Images;
use crate::model::Image;
use haneul_core::config::Config;
use haneul_core::{Result, clock};
use haneul_store::{Actor, Migration, Row, Tx};
use std::fs::File;

pub(super) const MIGRATION: Migration = Migration {
    owner: "image",
    number: 3,
    sql: "CREATE TABLE image_cache(image_id TEXT PRIMARY KEY, file TEXT NOT NULL, size BIGINT NOT NULL,
              cached BIGINT NOT NULL, hits BIGINT NOT NULL, last_accessed BIGINT NOT NULL,
              last_modified BIGINT NOT NULL)",
};

/// The directory.
#[derive(Debug)]
pub(crate) struct Cache {
    pub files: Files,
    /// The most bytes that it holds; 0: there is none.
    pub limit: u64,
}

/// A row: an image that is in the cache, or waits to be.
#[derive(Clone, Debug)]
pub(crate) struct CachedImage {
    pub image_id: String,
    pub file: String,
    pub size: i64,
    pub cached: bool,
    pub hits: i64,
    pub last_accessed: i64,
    pub last_modified: i64,
}

impl Cache {
    pub fn open(config: &Config) -> Result<Self> {
        let dir = config.control_dir().join("image-cache");
        let (limit, reserve) = (config.image.cache_bytes, config.image.reserve_bytes);
        let files = if limit == 0 {
            Files::at(dir, reserve)
        } else {
            Files::open(dir, reserve)?
        };
        Ok(Self { files, limit })
    }

    /// The copy of an image, when there is one.
    pub async fn open_copy(&self, app: &Images, image: &Image) -> Option<File> {
        let key = image.file.clone().filter(|_| self.limit > 0)?;
        let files = self.files.clone();
        let file = tokio::task::spawn_blocking(move || {
            files.has(&key).ok().filter(|h| *h).and_then(|_| files.read(&key).ok())
        })
        .await
        .ok()??;
        let (db, id) = (app.db.clone(), image.id.clone());
        // Statistics: nobody waits for them.
        tokio::spawn(async move {
            let _ = db
                .write(&Actor::system("image-cache"), async move |tx| cache_use(tx, &id).await)
                .await;
        });
        Some(file)
    }
}

fn row(r: &Row) -> Result<CachedImage> {
    Ok(CachedImage {
        image_id: r.str(0)?,
        file: r.str(1)?,
        size: r.i64(2)?,
        cached: r.i64(3)? != 0,
        hits: r.i64(4)?,
        last_accessed: r.i64(5)?,
        last_modified: r.i64(6)?,
    })
}

/// All rows, in the order in which they were queued.
pub(crate) async fn cache_list(tx: &mut Tx) -> Result<Vec<CachedImage>> {
    tx.rows(
        "SELECT image_id, file, size, cached, hits, last_accessed, last_modified FROM image_cache
         ORDER BY last_modified, image_id",
        &[],
    )
    .await?
    .iter()
    .map(row)
    .collect()
}

/// Queues an image, or says that its copy is complete. One that is cached stays so.
pub(crate) async fn cache_put(tx: &mut Tx, image: &Image, cached: bool) -> Result<()> {
    tx.exec(
        "INSERT INTO image_cache(image_id, file, size, cached, hits, last_accessed, last_modified)
         VALUES($1, $2, $3, $4, 0, 0, $5)
         ON CONFLICT(image_id) DO UPDATE SET
             cached = CASE WHEN excluded.cached = 1 THEN 1 ELSE image_cache.cached END",
        &[
            image.id.as_str().into(),
            image.file.clone().unwrap_or_default().into(),
            image.size.unwrap_or(0).into(),
            i64::from(cached).into(),
            clock::now().into(),
        ],
    )
    .await
    .map(|_| ())
}

/// Removes a row. False when there was none.
pub(crate) async fn cache_delete(tx: &mut Tx, image_id: &str) -> Result<bool> {
    let n = tx
        .exec("DELETE FROM image_cache WHERE image_id = $1", &[image_id.into()])
        .await?;
    Ok(n > 0)
}

/// Somebody was served from the copy.
pub(crate) async fn cache_use(tx: &mut Tx, image_id: &str) -> Result<()> {
    tx.exec(
        "UPDATE image_cache SET hits = hits + 1, last_accessed = $2 WHERE image_id = $1 AND cached = 1",
        &[image_id.into(), clock::now().into()],
    )
    .await
    .map(|_| ())
}

/// Bytes of all rows.
pub(crate) async fn cache_bytes(tx: &mut Tx) -> Result<i64> {
    let row = tx
        .row("SELECT CAST(COALESCE(SUM(size), 0) AS BIGINT) FROM image_cache", &[])
        .await?;
    row.map_or(Ok(0), |r| r.i64(0))
}
