//! Delete an image: the row goes in a transaction that notes the file, and the file follows.

use super::import::abandon;
use crate::Images;
use crate::model::Image;
use crate::policy::DeleteImage;
use crate::store::{cache_delete, image_delete, image_fetch, trash_put};
use haneul_auth::Ctx;
use haneul_core::{Error, Result, fault_point};
use haneul_store::{Grant, Tx};
use std::sync::Arc;

/// Deletes the row and removes the bytes. An upload that is under way finds the row gone and cleans up.
pub(crate) async fn run(app: &Arc<Images>, ctx: &Ctx, id: &str) -> Result<()> {
    let (app_, ctx_, id) = (app.clone(), ctx.clone(), id.to_owned());
    let files = app
        .db
        .write(&ctx.actor(), async move |tx| {
            let found = image_fetch(tx, &ctx_, DeleteImage, &id).await?;
            if found.protected {
                return Err(Error::forbidden(format!(
                    "Image {id} is protected and cannot be deleted. Set protected to false first."
                ))
                .with_field("protected"));
            }
            remove(&app_, tx, &found).await
        })
        .await?;
    fault_point!("image.delete.committed");
    discard(app, files).await;
    Ok(())
}

/// Removes the row; answers what names its files, which are noted as rubbish.
pub(super) async fn remove(app: &Arc<Images>, tx: &mut Tx, grant: &impl Grant<Image>) -> Result<Vec<String>> {
    let image = &grant.stored().value;
    abandon(app, tx, image).await?;
    let staged = image
        .staged
        .iter()
        .flat_map(|s| [Some(s.key.clone()), s.converted.clone()]);
    let files: Vec<String> = staged.chain([image.file.clone()]).flatten().collect();
    for file in &files {
        trash_put(tx, file).await?;
    }
    cache_delete(tx, &image.id).await?;
    image_delete(tx, grant).await?;
    Ok(files)
}

/// After the commit.
pub(super) async fn discard(app: &Arc<Images>, files: Vec<String>) {
    for file in files {
        // The image is deleted whatever happens to its file; the reconciler tries again.
        if let Err(e) = app.discard(&file).await {
            tracing::warn!(file, error = %e, "removing the bytes of a deleted image failed; trying again");
            app.mend_later();
        }
    }
}
