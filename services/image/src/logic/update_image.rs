//! Change an image: patches, tags, and the switch that keeps its bytes from being fetched.

use super::create_image::editor;
use crate::Images;
use crate::model::{Change, Image, MAX_EXTRAS, Status, apply, limit_exceeded};
use crate::policy::{Deactivate, ModifyImage, Reactivate};
use crate::store::{image_fetch, image_update};
use haneul_auth::{Ctx, Secured};
use haneul_core::{Error, Result};
use haneul_store::Stored;

/// Applies a patch; nothing is written when it changes nothing.
pub(crate) async fn patch(app: &Images, ctx: &Ctx, id: &str, changes: Vec<Change>) -> Result<Stored<Image>> {
    change(app, ctx, id, move |_| Ok(changes.clone())).await
}

/// The same with a patch that depends on what the image is.
pub(crate) async fn change(
    app: &Images,
    ctx: &Ctx,
    id: &str,
    changes: impl Fn(&Image) -> Result<Vec<Change>> + Send + 'static,
) -> Result<Stored<Image>> {
    let (ctx_, id) = (ctx.clone(), id.to_owned());
    app.db
        .write(&ctx.actor(), async move |tx| {
            let found = image_fetch(tx, &ctx_, ModifyImage, &id).await?;
            let mut image = found.edit();
            apply(&mut image, &changes(&found)?, editor(&ctx_, &found.target()))?;
            if image == found.value {
                return Ok(Stored::clone(&found));
            }
            image_update(tx, &found, &image).await
        })
        .await
}

/// Adds or removes one tag.
pub(crate) async fn tag(app: &Images, ctx: &Ctx, id: &str, tag: &str, add: bool) -> Result<()> {
    let (ctx_, id, tag) = (ctx.clone(), id.to_owned(), tag.to_owned());
    app.db
        .write(&ctx.actor(), async move |tx| {
            let found = image_fetch(tx, &ctx_, ModifyImage, &id).await?;
            let mut image = found.edit();
            let changed = if add {
                image.tags.insert(tag.clone())
            } else {
                image.tags.remove(&tag)
            };
            match (add, changed) {
                (true, false) => return Ok(()),
                (false, false) => {
                    return Err(Error::not_found(format!("Image {id} has no tag {tag}.")).with_field("tag"));
                }
                _ => {}
            }
            if image.tags.len() > MAX_EXTRAS {
                return Err(limit_exceeded("tags", image.tags.len()));
            }
            image_update(tx, &found, &image).await.map(|_| ())
        })
        .await
}

/// `actions/deactivate` and `actions/reactivate`. Doing it twice is fine.
pub(crate) async fn activate(app: &Images, ctx: &Ctx, id: &str, active: bool) -> Result<()> {
    let (ctx_, id) = (ctx.clone(), id.to_owned());
    app.db
        .write(&ctx.actor(), async move |tx| {
            // The two actions have a rule each, so the look-ups differ in type.
            if active {
                let found = image_fetch(tx, &ctx_, Reactivate, &id).await?;
                match switched(&found, active)? {
                    Some(image) => image_update(tx, &found, &image).await.map(|_| ()),
                    None => Ok(()),
                }
            } else {
                let found = image_fetch(tx, &ctx_, Deactivate, &id).await?;
                match switched(&found, active)? {
                    Some(image) => image_update(tx, &found, &image).await.map(|_| ()),
                    None => Ok(()),
                }
            }
        })
        .await
}

fn switched(image: &Image, active: bool) -> Result<Option<Image>> {
    let (goal, verb) = if active {
        (Status::Active, "reactivate")
    } else {
        (Status::Deactivated, "deactivate")
    };
    if image.status == goal {
        return Ok(None);
    }
    if !image.status.has_data() {
        return Err(Error::forbidden(format!(
            "Not allowed to {verb} image in status '{}'. It must be active or deactivated.",
            image.status
        ))
        .with_field("status"));
    }
    let mut image = image.clone();
    image.status = goal;
    Ok(Some(image))
}
