//! The list of images.

use crate::Images;
use crate::model::{Image, ListRequest};
use crate::policy::{GetImage, GetImages};
use crate::store::{image_fetch, image_list};
use haneul_auth::{Action, Ctx, Secured, Target};
use haneul_core::{Error, Result};
use haneul_store::Stored;

/// A page of what the caller sees of a query, and the marker of the next page when there is one.
pub(crate) async fn images(
    app: &Images,
    ctx: &Ctx,
    query: &[(String, String)],
    max_limit: i64,
) -> Result<(Vec<Stored<Image>>, Option<String>)> {
    ctx.enforce(GetImages::RULE, &Target::own(ctx))?;
    let request = ListRequest::parse(query, max_limit)?;
    let mut tx = app.db.read().await?;
    let marker = match &request.marker {
        None => None,
        Some(id) => Some(image_fetch(&mut tx, ctx, GetImage, id).await.map_err(|_| {
            Error::field(
                "marker",
                format!("No image found with ID {id}: the marker must be an image of the list."),
            )
        })?),
    };
    let query = request.query(ctx, marker.as_deref());
    let mut images = image_list(&mut tx, &query).await?;
    drop(tx);
    let page = usize::try_from(request.limit).unwrap_or(0);
    let more = images.len() > page && page > 0;
    images.truncate(page);
    let next = images.last().filter(|_| more).map(|i| i.id.clone());
    // The WHERE is the scope; an operator's own rule for get_image narrows it further.
    images.retain(|i| may_show(ctx, i));
    Ok((images, next))
}

/// The WHERE let the row pass, so for a shared image of another project the caller is a member.
fn may_show(ctx: &Ctx, image: &Stored<Image>) -> bool {
    let mut image = image.value.clone();
    if image.owner.as_deref() != Some(ctx.project_id()) {
        image.caller_member = Some(ctx.project_id().to_owned());
    }
    ctx.may(GetImage::RULE, &image.target())
}
