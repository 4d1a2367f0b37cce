//! Register an image: no bytes yet.

use crate::Images;
use crate::model::{Editor, Image, check_name, check_properties, limit_exceeded, set};
use crate::model::{MAX_EXTRAS, Visibility};
use crate::policy::{AddImage, CommunitizeImage, PublicizeImage};
use crate::store;
use haneul_auth::{Action, Ctx, Target, allow_create};
use haneul_core::{Error, Result, id};
use haneul_store::Stored;
use serde_json::Value;

/// What the caller may do with an image of this owner beyond changing it.
pub(crate) fn editor(ctx: &Ctx, target: &Target) -> Editor {
    Editor {
        admin: ctx.is_admin(),
        may_publicize: ctx.may(PublicizeImage::RULE, target),
        may_communitize: ctx.may(CommunitizeImage::RULE, target),
    }
}

/// `body` is the whole request body.
pub(crate) async fn run(app: &Images, ctx: &Ctx, body: &Value) -> Result<Stored<Image>> {
    let Some(fields) = body.as_object() else {
        return Err(Error::bad_request(
            "The request body must be an object with the fields of the image.",
        ));
    };
    check_properties(body)?;
    for name in fields.keys() {
        check_name(name, true)?;
    }
    let owner = match fields.get("owner") {
        None => Some(ctx.project_id().to_owned()).filter(|p| !p.is_empty()),
        Some(v) => v.as_str().map(str::to_owned),
    };
    let mut image = Image::new(id::uuid(), owner.clone());
    let target = Target {
        project_id: owner.clone(),
        ..Target::default()
    };
    let who = editor(ctx, &target);
    for (name, value) in fields {
        if name != "owner" {
            set(&mut image, name, value, who)?;
        }
    }
    let target = target.with("visibility", image.visibility.as_str());
    let own = owner.as_deref() == Some(ctx.project_id());
    if !own && !ctx.is_admin() {
        return Err(Error::forbidden(format!(
            "You are not permitted to create images owned by '{}'.",
            owner.unwrap_or_default()
        ))
        .with_field("owner"));
    }
    for (what, n) in [("properties", image.properties.len()), ("tags", image.tags.len())] {
        if n > MAX_EXTRAS {
            return Err(limit_exceeded(what, n));
        }
    }
    debug_assert!(image.visibility != Visibility::Public || who.may_publicize);
    let grant_ctx = ctx.clone();
    app.db
        .write(&ctx.actor(), async move |tx| {
            let grant = allow_create(&grant_ctx, AddImage, &target)?;
            store::image_insert(tx, &grant, &image)
                .await?
                .ok_or_else(|| Error::conflict(format!("Image ID {} already exists!", image.id)).with_field("id"))
        })
        .await
}
