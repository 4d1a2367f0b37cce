//! After a crash, and now and then: no image stays in `saving` without an upload, no file of a deleted image stays
//! on the disk, and no task stays without an end.

use crate::Images;
use crate::model::{Image, Status};
use crate::store::{image_update, images_saving, tasks_open, trash_list, trash_remove};
use haneul_core::{Result, fault_point};
use haneul_store::{Actor, System};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Between two tries of a clean-up that failed.
const MEND_AGAIN: Duration = Duration::from_secs(5);

impl Images {
    /// Removes a file that [`crate::store::trash_put`] noted, and then the note.
    pub(crate) async fn discard(&self, file: &str) -> Result<()> {
        self.remove_file(file).await?;
        fault_point!("image.delete.removed");
        let file = file.to_owned();
        self.db
            .write(&Actor::system("image-trash"), async move |tx| {
                trash_remove(tx, &file).await
            })
            .await
    }

    pub(crate) async fn remove_file(&self, key: &str) -> Result<()> {
        let (files, key) = (self.files.clone(), key.to_owned());
        blocking(move || files.remove(&key)).await
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
                if stored.status != Status::Saving || stored.file.as_deref() != Some(key.as_str()) {
                    return Ok(());
                }
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

    /// One round; answers how many things it mended. Call it once at start, before requests are served; a
    /// clean-up that fails later calls it by itself.
    ///
    /// # Errors
    /// When the database or the disk fails; the next round tries again.
    pub async fn reconcile(&self) -> Result<usize> {
        let mut tx = self.db.read().await?;
        let saving = images_saving(&mut tx).await?;
        let trash = trash_list(&mut tx).await?;
        let tasks = tasks_open(&mut tx).await?;
        drop(tx);
        let mut mended = 0;
        for image in saving {
            let Some(key) = image.file.as_deref() else {
                continue;
            };
            if self.is_live(key) {
                continue;
            }
            // File first: when this is cut off, the row still says what to remove.
            self.remove_file(key).await?;
            self.requeue(&Actor::system("image-upload-lost"), &image.id, key)
                .await?;
            tracing::info!(image = image.id, "an upload that had been cut off is undone");
            mended += 1;
        }
        for file in trash {
            self.discard(&file).await?;
            mended += 1;
        }
        for task in tasks {
            self.finish_task(&task).await?;
            mended += 1;
        }
        Ok(mended)
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
