//! /v3/OS-OAUTH1 beside its consumers (API reference: Identity API v3 extensions, "OS-OAUTH1"): a consumer gets a
//! request token, a user authorizes it, the consumer changes it for an access token.
//!
//! What is delegated authorizes nothing, and neither sees nor removes access tokens.

use super::common::{self, Listing};
use crate::logic::oauth1::Signed;
use crate::logic::remove;
use crate::model::{AccessToken, Consumer, Project, RequestToken, Role, TargetKind, missing, of_user};
use crate::policy::{
    AuthorizeRequestToken, DeleteAccessToken, GetAccessToken, GetAccessTokenRole, ListAccessTokenRoles,
};
use crate::store::{RoleBook, assigned, blob_of, drop_blob, role_by_name, set_blob};
use crate::{Delegation, Identity};
use haneul_auth::{Target, fetch};
use haneul_core::clock::{SECOND, iso_micros};
use haneul_core::{Error, Result, clock, id};
use haneul_http::{Reply, Req};
use haneul_store::{Actor, Query, System, Tx};
use http::StatusCode;
use serde_json::{Value, json};
use std::sync::Arc;

/// keystone.conf `[oauth1]`: how long a request token and an access token live.
const REQUEST_SECONDS: i64 = 28_800;
const ACCESS_SECONDS: i64 = 86_400;
/// Of what verifiers consist, and how much of it.
const VERIFIER: &[u8] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
const VERIFIER_LENGTH: usize = 8;

fn wrong(why: &str) -> Error {
    Error::unauthorized().with_private(why)
}

fn signed(req: &Req) -> Result<Signed> {
    Signed::of(req).ok_or_else(|| {
        Error::field(
            "Authorization",
            "Cannot retrieve Authorization headers: the request needs the header Authorization of type OAuth.",
        )
    })
}

fn form(id: &str, secret: &str, expires_at: i64) -> Reply {
    let text = format!(
        "oauth_token={id}&oauth_token_secret={secret}&oauth_expires_at={}",
        iso_micros(expires_at)
    );
    Reply::bytes(StatusCode::CREATED, "application/x-www-form-urlencoded", text)
}

/// What is sealed of a request token.
fn inside(secret: &str, verifier: Option<&str>) -> String {
    json!({"secret": secret, "verifier": verifier}).to_string()
}

/// POST /v3/OS-OAUTH1/request_token: the signature is the permission.
pub(crate) async fn request_token(app: Arc<Identity>, req: Req) -> Result<Reply> {
    let signed = signed(&req)?;
    let consumer = signed.need("consumer_key")?.to_owned();
    let project = req
        .header("requested-project-id")
        .filter(|p| !p.is_empty())
        .ok_or_else(|| {
            Error::field(
                "Requested-Project-Id",
                "Expecting to find Requested-Project-Id in request: the header has to name the project.",
            )
        })?
        .to_owned();
    let actor = Actor {
        user: format!("consumer:{consumer}"),
        project: String::new(),
        request_id: req.request_id.to_string(),
    };
    drop(req);
    let mut tx = app.db.read().await?;
    if tx.find::<Consumer>(&consumer).await?.is_none() {
        return Err(wrong("no such consumer"));
    }
    let secret = app.unseal(&blob_of(&mut tx, &consumer).await?)?;
    drop(tx);
    app.check_signed(&signed, &secret, "").await?;
    let token = RequestToken {
        id: id::hex(),
        consumer_id: consumer,
        project_id: project,
        user_id: None,
        roles: vec![],
        expires_at: Some(clock::now() + REQUEST_SECONDS * SECOND),
    };
    let secret = id::hex();
    let sealed = app.seal(&inside(&secret, None))?;
    let (id, end) = (token.id.clone(), token.expires_at.unwrap_or_default());
    app.db
        .write(&actor, async move |tx| {
            if tx.find::<Project>(&token.project_id).await?.is_none() {
                return Err(missing("project", &token.project_id).with_field("Requested-Project-Id"));
            }
            if tx.find::<Consumer>(&token.consumer_id).await?.is_none() {
                return Err(wrong("no such consumer"));
            }
            remove::ended_request_tokens(tx, &token.consumer_id).await?;
            set_blob(tx, &token.id, &sealed).await?;
            tx.insert(&System::create(), &token).await?;
            Ok(())
        })
        .await?;
    Ok(form(&id, &secret, end))
}

fn live(token: &RequestToken) -> Result<()> {
    match token.expires_at {
        Some(end) if end <= clock::now() => Err(wrong("the request token has expired")),
        _ => Ok(()),
    }
}

fn not_delegated(by: &Delegation, what: &str) -> Result<()> {
    match by.any() {
        false => Ok(()),
        true => Err(Error::forbidden(format!(
            "Cannot {what} with a token issued via delegation."
        ))),
    }
}

/// Ids of the roles that a body names.
async fn named_roles(tx: &mut Tx, asked: &[Value]) -> Result<Vec<String>> {
    let mut out = Vec::new();
    for (n, role) in asked.iter().enumerate() {
        let text = |key: &str| role.get(key).and_then(Value::as_str);
        let one = role.as_object().is_some_and(|map| map.len() == 1);
        let id = match (text("id"), text("name")) {
            (Some(id), None) if one => id.to_owned(),
            (None, Some(name)) if one => match role_by_name(tx, "", name).await? {
                Some(r) => r.value.id,
                None => return Err(missing("role", name).with_field(format!("roles.{n}"))),
            },
            _ => {
                return Err(Error::field(
                    format!("roles.{n}"),
                    format!(
                        "Invalid input for field roles.{n}: a role is named by its id or by its name, and nothing else."
                    ),
                ));
            }
        };
        if !out.contains(&id) {
            out.push(id);
        }
    }
    Ok(out)
}

/// PUT /v3/OS-OAUTH1/authorize/{request_token_id}
pub(crate) async fn authorize(app: Arc<Identity>, mut req: Req) -> Result<Reply> {
    let (ctx, by) = (req.ctx()?.clone(), app.delegation(&req).await?);
    ctx.enforce("identity:authorize_request_token", &Target::default())?;
    not_delegated(&by, "authorize a request token")?;
    if ctx.is_system() {
        return Err(Error::forbidden(
            "You are not authorized to perform the requested action: Using a system-scoped token to authorize access to a project is not allowed.",
        ));
    }
    let id = req.param("request_token_id").to_owned();
    let Some(Value::Array(asked)) = req.json().await?.get_mut("roles").map(Value::take) else {
        return Err(Error::field(
            "roles",
            "Invalid input for field 'roles': the body must have the key 'roles' with a list of roles.",
        ));
    };
    if asked.is_empty() {
        return Err(Error::field(
            "roles",
            "Invalid input for field 'roles': name at least one role.",
        ));
    }
    let verifier: String = (0..VERIFIER_LENGTH)
        .filter_map(|_| VERIFIER.get(id::below(VERIFIER.len() as u64) as usize))
        .map(|b| char::from(*b))
        .collect();
    let (this, asker, told) = (app.clone(), ctx.clone(), verifier.clone());
    app.db
        .write(&ctx.actor(), async move |tx| {
            if tx.find::<RequestToken>(&id).await?.is_none() {
                return Err(Error::not_found("Request token not found"));
            }
            let found = fetch(tx, &asker, AuthorizeRequestToken, &id).await?;
            live(&found)?;
            if found.user_id.as_ref().is_some_and(|u| *u != asker.user_id) {
                return Err(common::conflict("request token", "It was authorized by another user"));
            }
            let roles = named_roles(tx, &asked).await?;
            let book = RoleBook::load(tx).await?;
            let held = assigned(tx, &asker.user_id, TargetKind::Project, &found.project_id).await?;
            let held = book.expand(held.iter().map(String::as_str));
            if roles.iter().any(|r| !held.contains(r)) {
                return Err(wrong("authorizing user does not have role required"));
            }
            let old: Value = serde_json::from_str(&this.unseal(&blob_of(tx, &id).await?)?)?;
            let secret = old.get("secret").and_then(Value::as_str).unwrap_or_default();
            set_blob(tx, &id, &this.seal(&inside(secret, Some(&told)))?).await?;
            let mut value = found.edit();
            value.user_id = Some(asker.user_id.clone());
            value.roles = roles;
            tx.update(&found, &value).await?;
            Ok(())
        })
        .await?;
    Ok(Reply::ok(&json!({"token": {"oauth_verifier": verifier}})))
}

/// POST /v3/OS-OAUTH1/access_token: the signature and the verifier are the permission.
pub(crate) async fn access_token(app: Arc<Identity>, req: Req) -> Result<Reply> {
    let signed = signed(&req)?;
    let consumer = signed.need("consumer_key")?.to_owned();
    let id = signed.need("token")?.to_owned();
    let verifier = signed.need("verifier")?.to_owned();
    let request_id = req.request_id.to_string();
    drop(req);
    let mut tx = app.db.read().await?;
    let token = tx
        .find::<RequestToken>(&id)
        .await?
        .ok_or_else(|| wrong("no such request token"))?;
    if token.consumer_id != consumer || tx.find::<Consumer>(&consumer).await?.is_none() {
        return Err(wrong("Provided consumer key does not match stored consumer key"));
    }
    let key = app.unseal(&blob_of(&mut tx, &consumer).await?)?;
    let own: Value = serde_json::from_str(&app.unseal(&blob_of(&mut tx, &id).await?)?)?;
    drop(tx);
    let part = |name: &str| own.get(name).and_then(Value::as_str).unwrap_or_default();
    app.check_signed(&signed, &key, part("secret")).await?;
    live(&token)?;
    let Some(user) = token.user_id.clone() else {
        return Err(wrong("Request Token does not have an authorizing user id"));
    };
    if part("verifier").is_empty() || !crate::logic::ec2::same(&verifier, part("verifier")) {
        return Err(wrong("Provided verifier does not match stored verifier"));
    }
    let made = AccessToken {
        id: id::hex(),
        consumer_id: consumer,
        project_id: token.project_id.clone(),
        user_id: user.clone(),
        roles: token.roles.clone(),
        expires_at: Some(clock::now() + ACCESS_SECONDS * SECOND),
    };
    let secret = id::hex();
    let sealed = app.seal(&secret)?;
    let reply = form(&made.id, &secret, made.expires_at.unwrap_or_default());
    let actor = Actor {
        user,
        project: String::new(),
        request_id,
    };
    app.db
        .write(&actor, async move |tx| {
            // Whoever comes second finds it used.
            let used = tx.find::<RequestToken>(&id).await?;
            let used = used.ok_or_else(|| wrong("the request token was used"))?;
            if used.user_id.as_ref() != Some(&made.user_id) || used.roles != made.roles {
                return Err(wrong("the request token was authorized anew meanwhile"));
            }
            drop_blob(tx, &id).await?;
            tx.delete(&System::of(used)).await?;
            set_blob(tx, &made.id, &sealed).await?;
            tx.insert(&System::create(), &made).await?;
            Ok(())
        })
        .await?;
    Ok(reply)
}

fn path_of(t: &AccessToken) -> String {
    format!("users/{}/OS-OAUTH1/access_tokens", t.user_id)
}

fn view(base: &str, t: &AccessToken) -> Value {
    let mut doc = common::view(base, &path_of(t), t);
    common::remove(&mut doc, "roles");
    common::remove(&mut doc, "user_id");
    common::put(&mut doc, "authorizing_user_id", t.user_id.as_str().into());
    common::put(&mut doc, "expires_at", t.expires_at.map(iso_micros).into());
    if let Some(links) = doc.get_mut("links") {
        let roles = format!("{base}/v3/{}/{}/roles", path_of(t), t.id);
        common::put(links, "roles", roles.into());
    }
    doc
}

/// The access token of a path.
async fn find<A: haneul_auth::Action<On = AccessToken>>(
    tx: &mut Tx,
    ctx: &haneul_auth::Ctx,
    action: A,
    user: &str,
    id: &str,
) -> Result<haneul_auth::Authorized<AccessToken, A>> {
    match tx.find::<AccessToken>(id).await? {
        Some(t) if t.user_id == user => fetch(tx, ctx, action, id).await,
        _ => {
            ctx.enforce(A::RULE, &of_user(user))?;
            Err(missing("Access token", id))
        }
    }
}

const MANAGE: &str = "manage OAuth access tokens";

/// GET /v3/users/{user_id}/OS-OAUTH1/access_tokens
pub(crate) async fn list(app: Arc<Identity>, req: Req) -> Result<Reply> {
    let (ctx, by) = (req.ctx()?.clone(), app.delegation(&req).await?);
    let user = req.param("user_id").to_owned();
    ctx.enforce("identity:list_access_tokens", &of_user(&user))?;
    not_delegated(&by, MANAGE)?;
    let listing = Listing::of(&req, &[])?;
    drop(req);
    let base = listing.base.clone();
    let mut tx = app.db.read().await?;
    let rows = listing
        .run::<AccessToken>(&mut tx, Query::new().eq("user_id", user), None, &|t| view(&base, t))
        .await?;
    Ok(listing.reply("access_tokens", rows))
}

/// GET /v3/users/{user_id}/OS-OAUTH1/access_tokens/{access_token_id}
pub(crate) async fn show(app: Arc<Identity>, req: Req) -> Result<Reply> {
    let (ctx, by, base) = (req.ctx()?.clone(), app.delegation(&req).await?, req.base.clone());
    let (user, id) = (req.param("user_id").to_owned(), req.param("access_token_id").to_owned());
    drop(req);
    let mut tx = app.db.read().await?;
    let found = find(&mut tx, &ctx, GetAccessToken, &user, &id).await?;
    not_delegated(&by, MANAGE)?;
    Ok(Reply::ok(&json!({"access_token": view(&base, &found)})))
}

/// DELETE /v3/users/{user_id}/OS-OAUTH1/access_tokens/{access_token_id}. Its tokens go with it.
pub(crate) async fn delete(app: Arc<Identity>, req: Req) -> Result<Reply> {
    let (ctx, by) = (req.ctx()?.clone(), app.delegation(&req).await?);
    let (user, id) = (req.param("user_id").to_owned(), req.param("access_token_id").to_owned());
    let (this, asker) = (app.clone(), ctx.clone());
    app.db
        .write(&ctx.actor(), async move |tx| {
            let found = find(tx, &asker, DeleteAccessToken, &user, &id).await?;
            not_delegated(&by, MANAGE)?;
            drop_blob(tx, &id).await?;
            this.invalidate(tx).await?;
            tx.delete(&found).await
        })
        .await?;
    Ok(Reply::no_content())
}

fn role_view(base: &str, r: &Role) -> Value {
    json!({"id": r.id, "name": r.name, "links": {"self": format!("{base}/v3/roles/{}", r.id)}})
}

/// GET /v3/users/{user_id}/OS-OAUTH1/access_tokens/{access_token_id}/roles
pub(crate) async fn roles(app: Arc<Identity>, req: Req) -> Result<Reply> {
    let (ctx, base) = (req.ctx()?.clone(), req.base.clone());
    let (user, id) = (req.param("user_id").to_owned(), req.param("access_token_id").to_owned());
    let link = format!("{base}{}", req.uri_path);
    drop(req);
    let mut tx = app.db.read().await?;
    let found = find(&mut tx, &ctx, ListAccessTokenRoles, &user, &id).await?;
    let book = RoleBook::load(&mut tx).await?;
    let roles: Vec<Value> = found
        .roles
        .iter()
        .filter_map(|id| book.roles.get(id))
        .map(|r| role_view(&base, r))
        .collect();
    Ok(Reply::ok(
        &json!({"roles": roles, "links": {"self": link, "next": null, "previous": null}}),
    ))
}

/// GET /v3/users/{user_id}/OS-OAUTH1/access_tokens/{access_token_id}/roles/{role_id}
pub(crate) async fn role(app: Arc<Identity>, req: Req) -> Result<Reply> {
    let (ctx, base) = (req.ctx()?.clone(), req.base.clone());
    let (user, id) = (req.param("user_id").to_owned(), req.param("access_token_id").to_owned());
    let role = req.param("role_id").to_owned();
    drop(req);
    let mut tx = app.db.read().await?;
    let found = find(&mut tx, &ctx, GetAccessTokenRole, &user, &id).await?;
    match tx.find::<Role>(&role).await? {
        Some(r) if found.roles.contains(&r.id) => Ok(Reply::ok(&json!({"role": role_view(&base, &r)}))),
        _ => Err(missing("role", &role)),
    }
}
