//! After a crash, and now and then: no image stays in `saving` without an upload, no file of a deleted image stays
//! on the disk, and no task stays without an end.

use crate::Images;
use crate::model::{Image, Status};
use crate::store::{image_update, images_coming_in, parse_note, tasks_open, trash_list, trash_remove};
use haneul_core::{Result, fault_point};
use haneul_store::{Actor, Signal, System};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Between two tries of a clean-up that failed.
const MEND_AGAIN: Duration = Duration::from_secs(5);

impl Images {
    /// Removes a file that [`crate::store::trash_put`] noted, and then the note. False: somebody is at work on it, who
    /// does it in the end.
    pub(crate) async fn discard(&self, note: &str) -> Result<bool> {
        if self.is_held(parse_note(note).1) || self.others_import().await? {
            return Ok(false);
        }
        self.remove_file(note).await?;
        fault_point!("image.delete.removed");
        let note = note.to_owned();
        self.db
            .write(&Actor::system("image-trash"), async move |tx| {
                trash_remove(tx, &note).await
            })
            .await?;
        Ok(true)
    }

    /// Whether another process of ours is at work on an import. It may hold files, and removes what is left in the end.
    async fn others_import(&self) -> Result<bool> {
        if !self.db.is_shared() {
            return Ok(false);
        }
        let mut tx = self.db.read().await?;
        for task in tasks_open(&mut tx).await? {
            if tx.is_claimed_elsewhere(&worker_of(&task)).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The file of a key wherever it is, or that of a note.
    pub(crate) async fn remove_file(&self, note: &str) -> Result<()> {
        let (stores, note) = (self.stores.clone(), note.to_owned());
        let cache = (self.cache.limit > 0).then(|| self.cache.files.clone());
        blocking(move || {
            stores.remove(&note)?;
            match (cache, parse_note(&note)) {
                (Some(files), (None, key)) => files.remove(key),
                _ => Ok(()),
            }
        })
        .await
    }

    /// Puts an image whose upload ended without success back to `queued`. Only the upload with this key
    /// is undone: a delete, or a later upload, wins.
    pub(crate) async fn requeue(&self, actor: &Actor, id: &str, key: &str) -> Result<()> {
        let (id, key) = (id.to_owned(), key.to_owned());
        self.db
            .write(actor, async move |tx| {
                let Some(stored) = tx.find::<Image>(&id).await? else {
                    return Ok(());
                };
                if coming_in(&stored) != Some(key.as_str()) {
                    return Ok(());
                }
                tx.let_go(&upload_of(&key)).await?;
                let mut image = stored.value.clone();
                image.forget_data();
                image_update(tx, &System::of(stored), &image).await.map(|_| ())
            })
            .await
    }

    /// A clean-up failed (the database or the disk did): tries again until it succeeds, one task at a time.
    pub(crate) fn mend_later(self: &Arc<Self>) {
        if self.mending.swap(true, Ordering::AcqRel) {
            return;
        }
        let app = self.clone();
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(MEND_AGAIN).await;
                // Cleared first: what fails from here on asks for another round.
                app.mending.store(false, Ordering::Release);
                match app.reconcile().await {
                    Ok(_) => return,
                    Err(e) => {
                        tracing::error!(error = %e, "cleaning up images failed; trying again")
                    }
                }
                app.mending.store(true, Ordering::Release);
            }
        });
    }

    /// Cleans up what processes of ours leave behind that are gone, for ever.
    pub async fn follow_others(self: Arc<Self>) {
        let mut others = self.db.signals();
        loop {
            if matches!(others.next().await, Signal::Gone(_))
                && let Err(e) = self.reconcile().await
            {
                tracing::error!(error = %e, "cleaning up images failed; trying again");
                self.mend_later();
            }
        }
    }

    /// One round; answers how many things it mended. Call it once at start, before requests are served; a
    /// clean-up that fails later calls it by itself.
    ///
    /// # Errors
    /// When the database or the disk fails; the next round tries again.
    pub async fn reconcile(&self) -> Result<usize> {
        let mut tx = self.db.read().await?;
        let saving = images_coming_in(&mut tx).await?;
        let trash = trash_list(&mut tx).await?;
        let tasks = tasks_open(&mut tx).await?;
        let mut lost = Vec::new();
        for image in saving {
            if let Some(key) = coming_in(&image)
                && !self.is_live(key)
                && !tx.is_claimed_elsewhere(&upload_of(key)).await?
            {
                lost.push((image.id.clone(), key.to_owned()));
            }
        }
        drop(tx);
        let mut mended = 0;
        for (image, key) in lost {
            // File first: when this is cut off, the row still says what to remove.
            self.remove_file(&key).await?;
            self.requeue(&Actor::system("image-upload-lost"), &image, &key).await?;
            tracing::info!(image, "an upload that had been cut off is undone");
            mended += 1;
        }
        for file in trash {
            mended += usize::from(self.discard(&file).await?);
        }
        for task in tasks {
            mended += usize::from(self.finish_task(&task).await?);
        }
        self.fill_cache().await?;
        Ok(mended)
    }
}

/// What a process claims that receives bytes under this key.
pub(super) fn upload_of(key: &str) -> String {
    format!("image-upload:{key}")
}

/// What a process claims that works on this task.
pub(super) fn worker_of(task: &str) -> String {
    format!("image-task:{task}")
}

/// The key under which bytes come in: an upload's, or of what is not yet staged.
fn coming_in(image: &Image) -> Option<&str> {
    match (image.status, &image.staged) {
        (Status::Saving, _) => image.file.as_deref(),
        (Status::Uploading, Some(staged)) if staged.size.is_none() => Some(&staged.key),
        _ => None,
    }
}

/// Runs blocking work; a panic in it becomes our error.
pub(crate) async fn blocking<T, F>(f: F) -> Result<T>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T> + Send + 'static,
{
    tokio::task::spawn_blocking(f)
        .await
        .map_err(|e| haneul_core::Error::internal(format!("blocking task: {e}")))?
}
