//! `/v2/images/{id}/members`.

use super::{json_body, view};
use crate::Images;
use crate::logic::members;
use crate::model::MemberStatus;
use haneul_core::{Error, Result};
use haneul_http::{Reply, Req};
use std::sync::Arc;

pub(super) async fn index(app: Arc<Images>, req: Req) -> Result<Reply> {
    let list = members::list(&app, req.ctx()?, req.param("image_id")).await?;
    Ok(Reply::ok(&view::members(&list)))
}

pub(super) async fn create(app: Arc<Images>, mut req: Req) -> Result<Reply> {
    let ctx = req.ctx()?.clone();
    let body = json_body(&mut req).await?;
    let member = match body.get("member") {
        None => return Err(Error::field("member", "Member to be added not specified")),
        Some(m) => m.as_str().unwrap_or_default(),
    };
    if member.is_empty() || member.len() > 255 || member.contains('\0') {
        return Err(Error::field(
            "member",
            "Member can't be empty: it must be the id of a project, of at most 255 characters.",
        ));
    }
    let made = members::add(&app, &ctx, req.param("image_id"), member).await?;
    Ok(Reply::ok(&view::member(&made)))
}

pub(super) async fn show(app: Arc<Images>, req: Req) -> Result<Reply> {
    let found = members::show(&app, req.ctx()?, req.param("image_id"), req.param("member_id")).await?;
    Ok(Reply::ok(&view::member(&found)))
}

pub(super) async fn update(app: Arc<Images>, mut req: Req) -> Result<Reply> {
    let ctx = req.ctx()?.clone();
    let body = json_body(&mut req).await?;
    let Some(status) = body.get("status") else {
        return Err(Error::field("status", "Status not specified"));
    };
    let Some(status) = status.as_str().and_then(MemberStatus::parse) else {
        return Err(Error::field(
            "status",
            "Incorrect request: Status must be \"pending\", \"accepted\" or \"rejected\".",
        ));
    };
    let changed = members::set(&app, &ctx, req.param("image_id"), req.param("member_id"), status).await?;
    Ok(Reply::ok(&view::member(&changed)))
}

pub(super) async fn delete(app: Arc<Images>, req: Req) -> Result<Reply> {
    members::remove(&app, req.ctx()?, req.param("image_id"), req.param("member_id")).await?;
    Ok(Reply::no_content())
}
