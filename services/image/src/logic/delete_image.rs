//! Delete an image: the row goes in a transaction that notes the file, and the file follows.

use crate::Images;
use crate::policy::DeleteImage;
use crate::store::{image_delete, image_fetch, trash_put};
use haneul_auth::Ctx;
use haneul_core::{Error, Result, fault_point};
use std::sync::Arc;

/// Deletes the row and removes the bytes. An upload that is under way finds the row gone and cleans up.
pub(crate) async fn run(app: &Arc<Images>, ctx: &Ctx, id: &str) -> Result<()> {
    let (ctx_, id) = (ctx.clone(), id.to_owned());
    let file = app
        .db
        .write(&ctx.actor(), async move |tx| {
            let found = image_fetch(tx, &ctx_, DeleteImage, &id).await?;
            if found.protected {
                return Err(Error::forbidden(format!(
                    "Image {id} is protected and cannot be deleted. Set protected to false first."
                ))
                .with_field("protected"));
            }
            let file = found.file.clone();
            if let Some(file) = &file {
                trash_put(tx, file).await?;
            }
            image_delete(tx, &found).await?;
            Ok(file)
        })
        .await?;
    fault_point!("image.delete.committed");
    if let Some(file) = file {
        // The image is deleted whatever happens to its file; the reconciler tries again.
        if let Err(e) = app.discard(&file).await {
            tracing::warn!(file, error = %e, "removing the bytes of a deleted image failed; trying again");
            app.mend_later();
        }
    }
    Ok(())
}
