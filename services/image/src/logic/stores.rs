//! Images in several stores: one copy removed, and the cache.

use super::reconcile::blocking;
use crate::Images;
use crate::model::{Image, Status};
use crate::policy::{CacheClean, CacheDelete, CacheImage, CacheList, CachePrune, DeleteLocation};
use crate::store::{
    CachedImage, cache_bytes, cache_delete, cache_list, cache_put, image_fetch, image_update, trash_put,
};
use haneul_auth::{Action, Ctx, Target};
use haneul_core::{Error, Kind, Result, id};
use haneul_store::Actor;
use std::collections::HashSet;
use std::io::Read;
use std::sync::Arc;

/// `DELETE /v2/stores/{store}/{image}`: the copy goes, the image stays.
pub(crate) async fn delete_from_store(app: &Arc<Images>, ctx: &Ctx, store: &str, image_id: &str) -> Result<()> {
    let (stores, ctx_, store, id) = (app.stores.clone(), ctx.clone(), store.to_owned(), image_id.to_owned());
    let note = app
        .db
        .write(&ctx.actor(), async move |tx| {
            let found = image_fetch(tx, &ctx_, DeleteLocation, &id).await?;
            match stores.get(&store) {
                None => {
                    let why = format!("The selected store {store} is not available on this node.");
                    return Err(Error::conflict(why).with_field("store"));
                }
                Some(s) if s.read_only => {
                    return Err(Error::forbidden(format!("Store {store} is read-only.")).with_field("store"));
                }
                Some(_) => {}
            }
            if found.status != Status::Active {
                return Err(Error::conflict(format!(
                    "It's not allowed to remove image data from store if image status is not 'active'; it is {}.",
                    found.status
                ))
                .with_field("status"));
            }
            let places = found.places();
            if !places.contains(&store) {
                return Err(Error::not_found(format!("Image {id} is not stored in store {store}.")));
            }
            if places.len() == 1 {
                return Err(Error::forbidden(
                    "Cannot delete image data from the only store containing it. Consider deleting the image instead.",
                ));
            }
            let mut image = found.edit();
            image.stores = places.into_iter().filter(|s| *s != store).collect();
            let note = format!("{store}:{}", image.file.as_deref().unwrap_or_default());
            trash_put(tx, &note).await?;
            image_update(tx, &found, &image).await?;
            Ok(note)
        })
        .await?;
    if let Err(e) = app.discard(&note).await {
        tracing::warn!(note, error = %e, "removing a copy failed; trying again");
        app.mend_later();
    }
    Ok(())
}

fn cache_on(app: &Images) -> Result<()> {
    if app.cache.limit > 0 {
        return Ok(());
    }
    // Glance's answer where caching is off.
    Err(Error::not_found(
        "Caching via API is not supported at this site: image.cache_bytes is 0.",
    ))
}

/// What is in the cache and what waits.
pub(crate) async fn cache_state(app: &Images, ctx: &Ctx) -> Result<Vec<CachedImage>> {
    ctx.enforce(CacheList::RULE, &Target::own(ctx))?;
    cache_on(app)?;
    let mut tx = app.db.read().await?;
    cache_list(&mut tx).await
}

/// Queues an image; it is copied in the background.
pub(crate) async fn cache_queue(app: &Arc<Images>, ctx: &Ctx, image_id: &str) -> Result<()> {
    ctx.enforce(CacheImage::RULE, &Target::own(ctx))?;
    cache_on(app)?;
    let not_here = || Error::not_found(format!("Image {image_id} not found."));
    if !id::is_uuid(image_id) {
        return Err(not_here());
    }
    let (ctx_, id, limit) = (ctx.clone(), image_id.to_owned(), app.cache.limit);
    app.db
        .write(&ctx.actor(), async move |tx| {
            let found = image_fetch(tx, &ctx_, CacheImage, &id).await?;
            if found.status != Status::Active {
                return Err(Error::field(
                    "status",
                    format!(
                        "Only images with status active can be targeted for queueing; it is {}.",
                        found.status
                    ),
                ));
            }
            let held = u64::try_from(cache_bytes(tx).await?).unwrap_or(0);
            let size = super::download::size_of(&found);
            if held.saturating_add(size) > limit {
                return Err(Error::new(
                    Kind::TooLarge,
                    format!(
                        "The image has {size} bytes; the cache holds {held} of at most {limit} (image.cache_bytes)."
                    ),
                ));
            }
            cache_put(tx, &found, false).await
        })
        .await?;
    let app = app.clone();
    tokio::spawn(async move {
        if let Err(e) = app.fill_cache().await {
            tracing::warn!(error = %e, "an image could not be cached; it stays queued");
        }
    });
    Ok(())
}

/// Completes what waits, and removes the copies of images that are gone.
pub(crate) async fn cache_clean(app: &Images, ctx: &Ctx) -> Result<()> {
    ctx.enforce(CacheClean::RULE, &Target::own(ctx))?;
    cache_on(app)?;
    app.fill_cache().await
}

/// Removes what was used longest ago until the cache is within its limit, which a new setting may have lowered.
pub(crate) async fn cache_prune(app: &Images, ctx: &Ctx) -> Result<(usize, i64)> {
    ctx.enforce(CachePrune::RULE, &Target::own(ctx))?;
    cache_on(app)?;
    let mut tx = app.db.read().await?;
    let mut rows = cache_list(&mut tx).await?;
    drop(tx);
    rows.sort_by_key(|r| r.last_accessed.max(r.last_modified));
    let limit = i64::try_from(app.cache.limit).unwrap_or(i64::MAX);
    let mut over = rows.iter().map(|r| r.size).sum::<i64>() - limit;
    let mut gone = Vec::new();
    for row in rows {
        if over <= 0 {
            break;
        }
        over -= row.size;
        gone.push(row);
    }
    let pruned = (gone.len(), gone.iter().map(|r| r.size).sum());
    drop_rows(app, ctx, gone).await?;
    Ok(pruned)
}

/// Removes one image from cache and queue.
pub(crate) async fn cache_remove(app: &Images, ctx: &Ctx, image_id: &str) -> Result<()> {
    ctx.enforce(CacheDelete::RULE, &Target::own(ctx))?;
    cache_on(app)?;
    let mut tx = app.db.read().await?;
    let rows = cache_list(&mut tx).await?;
    drop(tx);
    let row = rows.into_iter().find(|r| r.image_id == image_id);
    match row {
        Some(row) => drop_rows(app, ctx, vec![row]).await,
        None => {
            let mut tx = app.db.read().await?;
            let known = id::is_uuid(image_id) && tx.find::<Image>(&image_id.to_ascii_lowercase()).await?.is_some();
            if known {
                Ok(())
            } else {
                Err(Error::not_found(format!("Image {image_id} not found.")))
            }
        }
    }
}

/// Removes all that is cached, all that waits, or both.
pub(crate) async fn cache_clear(app: &Images, ctx: &Ctx, target: &str) -> Result<()> {
    ctx.enforce(CacheDelete::RULE, &Target::own(ctx))?;
    cache_on(app)?;
    let wanted: &[bool] = match target.to_ascii_lowercase().as_str() {
        "" => &[true, false],
        "cache" => &[true],
        "queue" => &[false],
        _ => {
            return Err(Error::field(
                "x-image-cache-clear-target",
                "If provided 'x-image-cache-clear-target' must be 'cache', 'queue' or empty string.",
            ));
        }
    };
    let mut tx = app.db.read().await?;
    let rows = cache_list(&mut tx).await?;
    drop(tx);
    drop_rows(
        app,
        ctx,
        rows.into_iter().filter(|r| wanted.contains(&r.cached)).collect(),
    )
    .await
}

async fn drop_rows(app: &Images, ctx: &Ctx, rows: Vec<CachedImage>) -> Result<()> {
    let files = app.cache.files.clone();
    let (ids, keys): (Vec<String>, Vec<String>) = rows.into_iter().map(|r| (r.image_id, r.file)).unzip();
    // The file first: a row that is left says what to remove, a file without one says nothing.
    blocking(move || keys.iter().try_for_each(|k| files.remove(k))).await?;
    app.db
        .write(&ctx.actor(), async move |tx| {
            for id in &ids {
                cache_delete(tx, id).await?;
            }
            Ok(())
        })
        .await
}

impl Images {
    /// Copies what waits into the cache, and removes the copies of images that are gone.
    pub(crate) async fn fill_cache(&self) -> Result<()> {
        if self.cache.limit == 0 {
            return Ok(());
        }
        let _one = self.filling.lock().await;
        let mut tx = self.db.read().await?;
        let rows = cache_list(&mut tx).await?;
        drop(tx);
        for row in rows {
            let mut tx = self.db.read().await?;
            let image = tx.find::<Image>(&row.image_id).await?.map(|s| s.value);
            drop(tx);
            let Some(image) = image.filter(|i| i.file.as_deref() == Some(&row.file)) else {
                self.uncache(&row).await?;
                continue;
            };
            if !row.cached {
                self.copy_to_cache(&image).await?;
                self.db
                    .write(&Actor::system("image-cache"), async move |tx| {
                        cache_put(tx, &image, true).await
                    })
                    .await?;
            }
        }
        Ok(())
    }

    async fn copy_to_cache(&self, image: &Image) -> Result<()> {
        let (stores, files, places) = (self.stores.clone(), self.cache.files.clone(), image.places());
        let (key, want) = (image.file.clone().unwrap_or_default(), image.os_hash_value.clone());
        blocking(move || {
            let mut bad = HashSet::new();
            loop {
                let (from, mut file) = stores.read(&places, &key, &bad)?;
                files.remove(&key)?;
                let mut sink = files.create(&key)?;
                loop {
                    let mut batch = vec![0; 1 << 20];
                    let n = file.read(&mut batch)?;
                    batch.truncate(n);
                    if n == 0 {
                        break;
                    }
                    sink = sink.write(&[batch.into()])?;
                }
                let bytes = sink.keep()?;
                if want.as_ref().is_none_or(|h| *h == bytes.sha512) {
                    return Ok(());
                }
                files.remove(&key)?;
                bad.insert(from);
            }
        })
        .await
    }

    async fn uncache(&self, row: &CachedImage) -> Result<()> {
        let (files, key, id) = (self.cache.files.clone(), row.file.clone(), row.image_id.clone());
        blocking(move || files.remove(&key)).await?;
        self.db
            .write(&Actor::system("image-cache"), async move |tx| {
                cache_delete(tx, &id).await.map(|_| ())
            })
            .await
    }
}
