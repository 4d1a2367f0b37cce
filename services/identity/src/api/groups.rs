//! /v3/groups (API reference: Identity API v3, "Groups").

use super::common::{self, ID, Kind, Listing, NAME, TEXT, Take};
use super::users;
use crate::Identity;
use crate::logic::remove;
use crate::model::{Domain, Group, Membership, User, missing};
use crate::policy::{
    AddUserToGroup, CheckUserInGroup, CreateGroup, DeleteGroup, GetGroup, ListGroupsForUser, ListUsersInGroup,
    RemoveUserFromGroup, UpdateGroup,
};
use crate::store::groups_of;
use haneul_auth::{Ctx, Secured, Target, allow_create, authorize, fetch};
use haneul_core::{Error, Result, id};
use haneul_http::{Body, Reply, Req, f};
use haneul_store::{Query, Tx, V};
use serde_json::{Value, json};
use std::sync::Arc;

static CREATE: Body = Body {
    open: true,
    fields: &[f("name", NAME).req(), f("domain_id", ID), f("description", TEXT).null()],
};
static UPDATE: Body = Body {
    open: true,
    fields: &[
        f("name", NAME),
        f("domain_id", ID).null(),
        f("description", TEXT).null(),
    ],
};

fn show_view(base: &str, g: &Group) -> Value {
    common::view(base, "groups", g)
}

const FILTERS: &[(&str, Kind)] = &[
    ("name", Kind::Column),
    ("domain_id", Kind::Column),
    ("description", Kind::Member),
];

/// GET /v3/groups
pub(crate) async fn list(app: Arc<Identity>, req: Req) -> Result<Reply> {
    let ctx = req.ctx()?.clone();
    let mut target = common::list_target(&ctx);
    if let Some(own) = ctx.domain_scope() {
        target = target.with("target.group.domain_id", own);
    }
    ctx.enforce("identity:list_groups", &target)?;
    let listing = Listing::of(&req, FILTERS)?;
    drop(req);
    let mut query = Query::new();
    if let Some(own) = ctx.domain_scope() {
        query = query.eq("domain_id", own);
    }
    let base = listing.base.clone();
    let mut tx = app.db.read().await?;
    let rows = listing
        .run::<Group>(&mut tx, query, None, &|g| show_view(&base, g))
        .await?;
    Ok(listing.reply("groups", rows))
}

/// GET /v3/users/{user_id}/groups
pub(crate) async fn list_of_user(app: Arc<Identity>, req: Req) -> Result<Reply> {
    let (ctx, user) = (req.ctx()?.clone(), req.param("user_id").to_owned());
    let listing = Listing::of(&req, FILTERS)?;
    drop(req);
    let mut tx = app.db.read().await?;
    let user = fetch(&mut tx, &ctx, ListGroupsForUser, &user).await?;
    let ids = groups_of(&mut tx, &user.id).await?;
    let base = listing.base.clone();
    let rows = listing
        .run::<Group>(&mut tx, Query::new().is_in("id", ids), None, &|g| show_view(&base, g))
        .await?;
    Ok(listing.reply("groups", rows))
}

/// GET /v3/groups/{group_id}
pub(crate) async fn show(app: Arc<Identity>, req: Req) -> Result<Reply> {
    let (ctx, id, base) = (req.ctx()?.clone(), req.param("group_id").to_owned(), req.base.clone());
    let group = fetch(&mut app.db.read().await?, &ctx, GetGroup, &id).await?;
    Ok(Reply::ok(&json!({"group": show_view(&base, &group)})))
}

fn clash(name: &str) -> Error {
    common::conflict("group", format!("Duplicate entry found with name {name} at domain"))
}

/// POST /v3/groups
pub(crate) async fn create(app: Arc<Identity>, mut req: Req) -> Result<Reply> {
    let ctx = req.ctx()?.clone();
    let mut body = common::body(&mut req, "group", &CREATE).await?;
    let base = req.base.clone();
    let group = Group {
        id: id::hex(),
        name: body.text("name").unwrap_or_default().trim().to_owned(),
        domain_id: body.text("domain_id").unwrap_or_else(|| common::own_domain(&ctx)),
        description: body.nullable("description").unwrap_or_else(|| Some(String::new())),
        extra: body.rest(),
    };
    let asker = ctx.clone();
    let made = app
        .db
        .write(&ctx.actor(), async move |tx| {
            let grant = allow_create(&asker, CreateGroup, &group.target())?;
            if tx.find::<Domain>(&group.domain_id).await?.is_none() {
                return Err(missing("domain", &group.domain_id).with_field("group.domain_id"));
            }
            tx.insert(&grant, &group).await?.ok_or_else(|| clash(&group.name))
        })
        .await?;
    Ok(Reply::created(&json!({"group": show_view(&base, &made)})))
}

/// PATCH /v3/groups/{group_id}
pub(crate) async fn update(app: Arc<Identity>, mut req: Req) -> Result<Reply> {
    let ctx = req.ctx()?.clone();
    let id = req.param("group_id").to_owned();
    let body = common::body(&mut req, "group", &UPDATE).await?;
    common::check_change(&body, &id, "group")?;
    let base = req.base.clone();
    let asker = ctx.clone();
    let now = app
        .db
        .write(&ctx.actor(), async move |tx| {
            let found = fetch(tx, &asker, UpdateGroup, &id).await?;
            common::same_domain(&body, &found.domain_id, "group")?;
            let mut body = body.clone();
            let mut value = found.edit();
            if let Some(name) = body.text("name").map(|n| n.trim().to_owned()) {
                let same = Query::new()
                    .eq("domain_id", found.domain_id.as_str())
                    .eq("name", name.as_str())
                    .ne("id", id.as_str());
                if tx.count::<Group>(&same).await? > 0 {
                    return Err(clash(&name));
                }
                value.name = name;
            }
            if let Some(d) = body.nullable("description") {
                value.description = d;
            }
            value.extra.extend(body.rest());
            tx.update(&found, &value).await
        })
        .await?;
    Ok(Reply::ok(&json!({"group": show_view(&base, &now)})))
}

/// DELETE /v3/groups/{group_id}
pub(crate) async fn delete(app: Arc<Identity>, req: Req) -> Result<Reply> {
    let (ctx, id) = (req.ctx()?.clone(), req.param("group_id").to_owned());
    common::delete(app, &ctx, id, DeleteGroup, async |tx: &mut Tx, g: &Group| {
        remove::group_parts(tx, &g.id).await
    })
    .await
}

/// GET /v3/groups/{group_id}/users
pub(crate) async fn users(app: Arc<Identity>, req: Req) -> Result<Reply> {
    let (ctx, id) = (req.ctx()?.clone(), req.param("group_id").to_owned());
    let listing = Listing::of(
        &req,
        &[
            ("name", Kind::Column),
            ("domain_id", Kind::Column),
            ("enabled", Kind::Flag),
            ("password_expires_at", Kind::Time),
        ],
    )?;
    drop(req);
    let mut tx = app.db.read().await?;
    let group = fetch(&mut tx, &ctx, ListUsersInGroup, &id).await?;
    let query = Query::new().raw(
        "id IN (SELECT user_id FROM identity_membership WHERE group_id = {})",
        vec![V::from(group.id.as_str())],
    );
    let base = listing.base.clone();
    let rows = listing
        .run::<User>(&mut tx, query, None, &|u| users::show_view(&base, u))
        .await?;
    Ok(listing.reply("users", rows))
}

/// The membership that a path names, with what the rules are checked against. A group or user that is not
/// there leaves its part of the target out, so that only who may act on all is told so.
async fn named(tx: &mut Tx, ctx: &Ctx, rule: &str, group: &str, user: &str) -> Result<Membership> {
    let mut m = Membership::new(group, user);
    let (g, u) = (tx.find::<Group>(group).await?, tx.find::<User>(user).await?);
    let mut about = Target::default();
    if let Some(g) = &g {
        about = about.with("target.group.domain_id", &g.domain_id);
    }
    if let Some(u) = &u {
        about = about.with("target.user.domain_id", &u.domain_id);
    }
    ctx.enforce(rule, &about)?;
    if g.is_none() {
        return Err(missing("group", group));
    }
    if u.is_none() {
        return Err(missing("user", user));
    }
    m.about = about;
    Ok(m)
}

/// GET and HEAD /v3/groups/{group_id}/users/{user_id}
pub(crate) async fn check_member(app: Arc<Identity>, req: Req) -> Result<Reply> {
    let ctx = req.ctx()?.clone();
    let (group, user) = (req.param("group_id").to_owned(), req.param("user_id").to_owned());
    drop(req);
    let mut tx = app.db.read().await?;
    let m = named(&mut tx, &ctx, "identity:check_user_in_group", &group, &user).await?;
    let mut stored = tx
        .find::<Membership>(&m.id)
        .await?
        .ok_or_else(|| not_member(&group, &user))?;
    stored.value.about = m.about;
    authorize(&ctx, CheckUserInGroup, stored, &m.id)?;
    Ok(Reply::no_content())
}

fn not_member(group: &str, user: &str) -> Error {
    Error::not_found(format!("User '{user}' not found in group '{group}'"))
}

/// PUT /v3/groups/{group_id}/users/{user_id}
pub(crate) async fn add_member(app: Arc<Identity>, req: Req) -> Result<Reply> {
    let ctx = req.ctx()?.clone();
    let (group, user) = (req.param("group_id").to_owned(), req.param("user_id").to_owned());
    let (this, asker) = (app.clone(), ctx.clone());
    app.db
        .write(&ctx.actor(), async move |tx| {
            let m = named(tx, &asker, "identity:add_user_to_group", &group, &user).await?;
            let grant = allow_create(&asker, AddUserToGroup, &m.about)?;
            // A member already: nothing to do, and no error.
            if tx.insert(&grant, &m).await?.is_some() {
                this.invalidate(tx).await?;
            }
            Ok(())
        })
        .await?;
    Ok(Reply::no_content())
}

/// DELETE /v3/groups/{group_id}/users/{user_id}
pub(crate) async fn remove_member(app: Arc<Identity>, req: Req) -> Result<Reply> {
    let ctx = req.ctx()?.clone();
    let (group, user) = (req.param("group_id").to_owned(), req.param("user_id").to_owned());
    let (this, asker) = (app.clone(), ctx.clone());
    app.db
        .write(&ctx.actor(), async move |tx| {
            let m = named(tx, &asker, "identity:remove_user_from_group", &group, &user).await?;
            let mut stored = tx
                .find::<Membership>(&m.id)
                .await?
                .ok_or_else(|| not_member(&group, &user))?;
            stored.value.about = m.about;
            let found = authorize(&asker, RemoveUserFromGroup, stored, &m.id)?;
            this.invalidate(tx).await?;
            tx.delete(&found).await
        })
        .await?;
    Ok(Reply::no_content())
}
