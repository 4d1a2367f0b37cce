//! Share an image with projects (Glance API reference, "Sharing").
//!
//! The owner offers, the other project accepts or rejects; only then does the image show in its lists. What a
//! caller may not know of is not found; memberships of images that are not `shared` are refused.

use crate::Images;
use crate::model::{Image, MAX_EXTRAS, Member, MemberStatus, Visibility, limit_exceeded};
use crate::policy::{AddMember, DeleteMember, GetImage, GetMember, GetMembers, ModifyMember};
use crate::store::{image_fetch, member_find, member_list};
use haneul_auth::{Action, Ctx, Secured, allow_create};
use haneul_core::{Error, Result};
use haneul_store::{Stored, Tx};

/// The image, which the caller must see and which must be shared.
async fn shared(tx: &mut Tx, ctx: &Ctx, id: &str) -> Result<Image> {
    let image = image_fetch(tx, ctx, GetImage, id).await?;
    if image.visibility == Visibility::Shared {
        return Ok(image.edit());
    }
    Err(Error::forbidden(format!(
        "Only shared images have members. Image {id} is {}; set its visibility to shared first.",
        image.visibility.as_str()
    ))
    .with_field("visibility"))
}

/// The memberships that the caller may see: all for the owner, their own for a member.
pub(crate) async fn list(app: &Images, ctx: &Ctx, id: &str) -> Result<Vec<Stored<Member>>> {
    let mut tx = app.db.read().await?;
    let image = shared(&mut tx, ctx, id).await?;
    ctx.enforce(GetMembers::RULE, &image.target())?;
    let mut members = member_list(&mut tx, &image.id).await?;
    members.retain(|m| m.visible(ctx) && ctx.may(GetMember::RULE, &m.target()));
    Ok(members)
}

pub(crate) async fn show(app: &Images, ctx: &Ctx, id: &str, member: &str) -> Result<Stored<Member>> {
    let mut tx = app.db.read().await?;
    let image = shared(&mut tx, ctx, id).await.map_err(|e| match e.kind() {
        // Glance hides here what it refuses elsewhere.
        haneul_core::Kind::Forbidden => Member::not_found(&Member::key(id, member)),
        _ => e,
    })?;
    let found = member_find(&mut tx, ctx, GetMember, &image.id, member).await?;
    Ok(Stored::clone(&found))
}

pub(crate) async fn add(app: &Images, ctx: &Ctx, id: &str, member: &str) -> Result<Stored<Member>> {
    let (ctx_, id, member) = (ctx.clone(), id.to_owned(), member.to_owned());
    app.db
        .write(&ctx.actor(), async move |tx| {
            let image = shared(tx, &ctx_, &id).await?;
            let grant = allow_create(&ctx_, AddMember, &image.target())?;
            let n = member_list(tx, &image.id).await?.len();
            if n >= MAX_EXTRAS {
                return Err(limit_exceeded("members for this image", n + 1));
            }
            let new = Member::new(&image.id, &member, image.owner.clone());
            tx.insert(&grant, &new).await?.ok_or_else(|| {
                Error::conflict(format!("Member {member} is duplicated for image {id}")).with_field("member")
            })
        })
        .await
}

pub(crate) async fn set(
    app: &Images,
    ctx: &Ctx,
    id: &str,
    member: &str,
    status: MemberStatus,
) -> Result<Stored<Member>> {
    let (ctx_, id, member) = (ctx.clone(), id.to_owned(), member.to_owned());
    app.db
        .write(&ctx.actor(), async move |tx| {
            let image = shared(tx, &ctx_, &id).await?;
            let found = member_find(tx, &ctx_, ModifyMember, &image.id, &member).await?;
            let mut changed = found.edit();
            changed.status = status;
            tx.update(&found, &changed).await
        })
        .await
}

pub(crate) async fn remove(app: &Images, ctx: &Ctx, id: &str, member: &str) -> Result<()> {
    let (ctx_, id, member) = (ctx.clone(), id.to_owned(), member.to_owned());
    app.db
        .write(&ctx.actor(), async move |tx| {
            let image = shared(tx, &ctx_, &id).await?;
            let found = member_find(tx, &ctx_, DeleteMember, &image.id, &member).await?;
            tx.delete(&found).await
        })
        .await
}
