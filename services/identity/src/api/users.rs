//! /v3/users (API reference: Identity API v3, "Users").

use super::common::{self, ID, Kind, Listing, NAME, PASSWORD, TEXT, Take};
use crate::Identity;
use crate::logic::compliance::By;
use crate::logic::issue::still_the_secret;
use crate::logic::remove;
use crate::logic::resolve::enabled_user;
use crate::model::{Domain, Project, User, missing};
use crate::policy::{CreateUser, DeleteUser, GetUser, UpdateUser};
use crate::store::{forget_failures, forget_last_login, revoke, user_by_name};
use haneul_auth::{Secured, allow_create, fetch};
use haneul_core::clock::naive_micros;
use haneul_core::{Error, Result, id};
use haneul_http::{Body, FieldKind, Reply, Req, f};
use haneul_store::{Actor, Query, System, Tx};
use serde_json::{Value, json};
use std::sync::Arc;

/// keystone/identity/backends/resource_options.py. Null takes an option away.
const USER_OPTIONS: FieldKind = FieldKind::Check(|v| {
    const NAMES: [&str; 7] = [
        "ignore_change_password_upon_first_use",
        "ignore_password_expiry",
        "ignore_lockout_failure_attempts",
        "lock_password",
        "ignore_user_inactivity",
        "multi_factor_auth_enabled",
        "multi_factor_auth_rules",
    ];
    let Some(options) = v.as_object() else {
        return Err("It must be an object.".into());
    };
    if let Some(name) = options.keys().find(|name| !NAMES.contains(&name.as_str())) {
        return Err(format!("There is no option {name}: there are {}.", NAMES.join(", ")));
    }
    for (name, value) in options.iter().filter(|(_, v)| !v.is_null()) {
        match name.as_str() {
            "multi_factor_auth_rules" if !is_rules(value) => {
                return Err(
                    "The option multi_factor_auth_rules must be a list of lists comprised of strings, none of them empty and none twice."
                        .into(),
                );
            }
            "multi_factor_auth_rules" => {}
            _ if !value.is_boolean() => return Err(format!("The option {name} must be true, false or null.")),
            _ => {}
        }
    }
    Ok(())
});

/// Users of identity providers (keystone/identity/schema.py, `federated`). There are no providers here, and so none that
/// a user could be of.
const FEDERATED: FieldKind = FieldKind::Check(|v| {
    let Some(list) = v.as_array() else {
        return Err("It must be a list.".into());
    };
    match list.first().map(|one| one.get("idp_id").and_then(Value::as_str)) {
        None => Ok(()),
        Some(None) => Err("Each of them must be an object with a string idp_id and a list of protocols.".into()),
        Some(Some(id)) => Err(format!(
            "Could not find Identity Provider: {id}. This cloud has none: leave the list empty."
        )),
    }
});

fn is_rules(value: &Value) -> bool {
    fn distinct(list: &[Value]) -> bool {
        list.iter()
            .enumerate()
            .all(|(n, v)| !list.iter().skip(n + 1).any(|o| o == v))
    }
    let rule = |v: &Value| {
        v.as_array()
            .is_some_and(|r| !r.is_empty() && r.iter().all(Value::is_string) && distinct(r))
    };
    value
        .as_array()
        .is_some_and(|rules| rules.iter().all(rule) && distinct(rules))
}

static CREATE: Body = Body {
    open: true,
    fields: &[
        f("name", NAME).req(),
        f("domain_id", ID),
        f("default_project_id", ID).null(),
        f("description", TEXT).null(),
        f("enabled", common::STRICT_BOOL),
        f("password", PASSWORD).null(),
        f("options", USER_OPTIONS),
        f("federated", FEDERATED),
    ],
};
static UPDATE: Body = Body {
    open: true,
    fields: &[
        f("name", NAME),
        f("domain_id", ID),
        f("default_project_id", ID).null(),
        f("description", TEXT).null(),
        f("enabled", common::STRICT_BOOL),
        f("password", PASSWORD).null(),
        f("options", USER_OPTIONS),
        f("federated", FEDERATED),
    ],
};
static CHANGE_PASSWORD: Body = Body {
    open: true,
    fields: &[f("password", PASSWORD).req(), f("original_password", PASSWORD).req()],
};

pub(crate) fn show_view(base: &str, u: &User) -> Value {
    let mut doc = common::view(base, "users", u);
    common::remove(&mut doc, "password_set_at");
    common::remove(&mut doc, "password_self_service");
    // Keystone leaves out what was never set.
    if u.default_project_id.is_none() {
        common::remove(&mut doc, "default_project_id");
    }
    if u.description.is_none() {
        common::remove(&mut doc, "description");
    }
    common::put(
        &mut doc,
        "password_expires_at",
        u.password_expires_at.map(naive_micros).into(),
    );
    doc
}

/// GET /v3/users
pub(crate) async fn list(app: Arc<Identity>, req: Req) -> Result<Reply> {
    let ctx = req.ctx()?.clone();
    ctx.enforce("identity:list_users", &common::list_target(&ctx))?;
    let listing = Listing::of(
        &req,
        &[
            ("name", Kind::Column),
            ("domain_id", Kind::Column),
            ("enabled", Kind::Flag),
            ("email", Kind::Member),
            ("description", Kind::Member),
            ("password_expires_at", Kind::Time),
        ],
    )?;
    let mut query = Query::new();
    if let Some(own) = ctx.domain_scope() {
        query = query.eq("domain_id", own);
    }
    let base = listing.base.clone();
    let mut tx = app.db.read().await?;
    let rows = listing
        .run::<User>(&mut tx, query, None, &|u| show_view(&base, u))
        .await?;
    Ok(listing.reply("users", rows))
}

/// GET /v3/users/{user_id}
pub(crate) async fn show(app: Arc<Identity>, req: Req) -> Result<Reply> {
    let (ctx, id, base) = (req.ctx()?.clone(), req.param("user_id").to_owned(), req.base.clone());
    let user = fetch(&mut app.db.read().await?, &ctx, GetUser, &id).await?;
    Ok(Reply::ok(&json!({"user": show_view(&base, &user)})))
}

fn clash(name: &str) -> Error {
    common::conflict("user", format!("Duplicate entry found with name {name} at domain"))
}

/// A default project must be one, and not a domain; that the user has no role there is no error.
async fn check_default(tx: &mut Tx, id: Option<&str>) -> Result<()> {
    let Some(id) = id else { return Ok(()) };
    if tx.find::<Domain>(id).await?.is_some() {
        return Err(Error::field(
            "user.default_project_id",
            format!("User's default project ID cannot be a domain ID: {id} (default_project_id)"),
        ));
    }
    if tx.find::<Project>(id).await?.is_none() {
        return Err(missing("project", id).with_field("user.default_project_id"));
    }
    Ok(())
}

/// POST /v3/users
pub(crate) async fn create(app: Arc<Identity>, mut req: Req) -> Result<Reply> {
    let ctx = req.ctx()?.clone();
    let mut body = common::body(&mut req, "user", &CREATE).await?;
    let base = req.base.clone();
    let password = body.text("password");
    let mut user = User {
        id: id::hex(),
        name: body.text("name").unwrap_or_default().trim().to_owned(),
        domain_id: body.text("domain_id").unwrap_or_else(|| common::own_domain(&ctx)),
        enabled: body.flag("enabled").unwrap_or(true),
        default_project_id: body.text("default_project_id"),
        description: body.text("description"),
        options: common::new_options(&mut body),
        password_set_at: None,
        password_expires_at: None,
        password_self_service: false,
        extra: body.rest(),
    };
    // Who may not create does not make us hash.
    allow_create(&ctx, CreateUser, &user.target())?;
    let hash = match password {
        Some(p) => {
            app.compliance.check(&p)?;
            app.compliance.note(&mut user, By::Other);
            Some(app.hasher.hash(&p).await?)
        }
        None => None,
    };
    let (compliance, asker) = (app.compliance.clone(), ctx.clone());
    let made = app
        .db
        .write(&ctx.actor(), async move |tx| {
            let grant = allow_create(&asker, CreateUser, &user.target())?;
            if tx.find::<Domain>(&user.domain_id).await?.is_none() {
                return Err(missing("domain", &user.domain_id).with_field("user.domain_id"));
            }
            check_default(tx, user.default_project_id.as_deref()).await?;
            let made = tx.insert(&grant, &user).await?.ok_or_else(|| clash(&user.name))?;
            if let Some(hash) = &hash {
                compliance.set(tx, &user.id, Some(hash)).await?;
            }
            Ok(made)
        })
        .await?;
    Ok(Reply::created(&json!({"user": show_view(&base, &made)})))
}

/// PATCH /v3/users/{user_id}
pub(crate) async fn update(app: Arc<Identity>, mut req: Req) -> Result<Reply> {
    let ctx = req.ctx()?.clone();
    let id = req.param("user_id").to_owned();
    let mut body = common::body(&mut req, "user", &UPDATE).await?;
    common::check_change(&body, &id, "user")?;
    let base = req.base.clone();
    let password = body.nullable("password");
    let hash = match &password {
        Some(Some(p)) => {
            fetch(&mut app.db.read().await?, &ctx, UpdateUser, &id).await?;
            app.compliance.check(p)?;
            Some(app.hasher.hash(p).await?)
        }
        _ => None,
    };
    let (this, asker) = (app.clone(), ctx.clone());
    let cleared = password == Some(None);
    let now = app
        .db
        .write(&ctx.actor(), async move |tx| {
            let found = fetch(tx, &asker, UpdateUser, &id).await?;
            common::same_domain(&body, &found.domain_id, "user")?;
            let mut body = body.clone();
            let mut value = found.edit();
            if let Some(name) = body.text("name").map(|n| n.trim().to_owned()) {
                if user_by_name(tx, &found.domain_id, &name)
                    .await?
                    .is_some_and(|u| u.id != id)
                {
                    return Err(clash(&name));
                }
                value.name = name;
            }
            if let Some(p) = body.nullable("default_project_id") {
                check_default(tx, p.as_deref()).await?;
                value.default_project_id = p;
            }
            if let Some(d) = body.nullable("description") {
                value.description = d;
            }
            if let Some(e) = body.flag("enabled") {
                value.enabled = e;
                if e {
                    // It begins anew, whatever locked it.
                    forget_failures(tx, &id).await?;
                    forget_failures(tx, &format!("totp/{id}")).await?;
                    forget_last_login(tx, &id).await?;
                }
            }
            if let Some(o) = body.object("options") {
                common::merge_options(&mut value.options, o);
            }
            value.extra.extend(body.rest());
            if hash.is_some() {
                this.compliance.note(&mut value, By::Other);
            } else if cleared {
                (value.password_set_at, value.password_expires_at) = (None, None);
            }
            if hash.is_some() || cleared {
                this.compliance.set(tx, &id, hash.as_deref()).await?;
            }
            if hash.is_some() || cleared || (found.enabled && !value.enabled) {
                revoke(tx, "user", &id, this.config.token_seconds).await?;
            }
            this.invalidate(tx).await?;
            tx.update(&found, &value).await
        })
        .await?;
    Ok(Reply::ok(&json!({"user": show_view(&base, &now)})))
}

/// DELETE /v3/users/{user_id}
pub(crate) async fn delete(app: Arc<Identity>, req: Req) -> Result<Reply> {
    let (ctx, id) = (req.ctx()?.clone(), req.param("user_id").to_owned());
    common::delete(app, &ctx, id, DeleteUser, async |tx: &mut Tx, u: &User| {
        remove::user_parts(tx, &u.id).await
    })
    .await
}

/// POST /v3/users/{user_id}/password: public, for the old password is the proof.
pub(crate) async fn change_password(app: Arc<Identity>, mut req: Req) -> Result<Reply> {
    let id = req.param("user_id").to_owned();
    let mut body = common::body(&mut req, "user", &CHANGE_PASSWORD).await?;
    let request_id = req.request_id.to_string();
    let old = body.text("original_password").unwrap_or_default();
    let new = body.text("password").unwrap_or_default();
    let known = app.db.read().await?.find::<User>(&id).await?.map(|u| u.value.id);
    let checked = app.check_secret(known.as_deref(), &old).await?;
    let (user, _) = enabled_user(&mut app.db.read().await?, &id).await?;
    app.compliance.check(&new)?;
    app.compliance.may_change(&user)?;
    app.is_new(&id, &old, &new).await?;
    let hash = app.hasher.hash(&new).await?;
    let this = app.clone();
    let actor = Actor {
        user: id.clone(),
        project: String::new(),
        request_id,
    };
    app.db
        .write(&actor, async move |tx| {
            let found = tx.find::<User>(&id).await?.ok_or_else(Error::unauthorized)?;
            // The new hash took its time: whoever knows the old password must not undo a change of it.
            still_the_secret(tx, &id, &checked).await?;
            this.compliance.may_change(&found)?;
            let mut value = found.value.clone();
            this.compliance.note(&mut value, By::User);
            this.compliance.set(tx, &id, Some(&hash)).await?;
            revoke(tx, "user", &id, this.config.token_seconds).await?;
            this.invalidate(tx).await?;
            // The old password was the permission.
            tx.update(&System::of(found), &value).await
        })
        .await?;
    Ok(Reply::no_content())
}
