//! /v3/credentials (API reference: Identity API v3, "Credentials") and /v3/users/{user_id}/credentials/OS-EC2.
//!
//! A token of an application credential or a trust only reaches credentials of its own project and user: with more
//! it could take itself what it was not given. What it makes notes where it came from, whatever the blob says.

use super::common::{self, Kind, Listing, TEXT, Take};
use super::ec2::chain_of;
use crate::model::{Credential, EC2, Project, TOTP, User, missing, of_user};
use crate::policy::{
    CreateCredential, CreateEc2, DeleteCredential, DeleteEc2, GetCredential, GetEc2, UpdateCredential,
};
use crate::store::{blob_of, drop_blob, revoke, set_blob};
use crate::{Delegation, Identity};
use haneul_auth::{Action, Authorized, Ctx, Target, allow_create, fetch};
use haneul_core::{Error, Result, clock, id};
use haneul_http::{Body, FieldKind, Reply, Req, f};
use haneul_store::{Query, Tx};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::sync::Arc;

const KIND: FieldKind = FieldKind::Str { min: 1, max: 255 };
static CREATE: Body = Body {
    open: true,
    fields: &[
        f("blob", TEXT).req(),
        f("type", KIND).req(),
        f("user_id", TEXT).req(),
        f("project_id", TEXT).null(),
    ],
};
static UPDATE: Body = Body {
    open: true,
    fields: &[
        f("blob", TEXT),
        f("type", KIND),
        f("user_id", TEXT),
        f("project_id", TEXT).null(),
    ],
};

/// The id of the credential with this access key.
pub(crate) fn ec2_id(access: &str) -> String {
    Sha256::digest(access.as_bytes())
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect()
}

/// The access key in a blob of type `ec2`.
fn access_key(blob: &str) -> Result<String> {
    let wrong = |why: &str| {
        Err(Error::field(
            "credential.blob",
            format!("Invalid blob in credential: {why}"),
        ))
    };
    match serde_json::from_str::<Value>(blob) {
        Ok(Value::Object(map)) => match map.get("access").and_then(Value::as_str) {
            Some(a) if !a.is_empty() => Ok(a.to_owned()),
            _ => wrong("of type ec2 it needs the member access, a string."),
        },
        _ => wrong("of type ec2 it must be a JSON object, as text, with the members access and secret."),
    }
}

fn view(app: &Identity, base: &str, c: &Credential, sealed: &str) -> Result<Value> {
    let mut doc = common::view(base, "credentials", c);
    for own in ["blob_set_at", "trust_id", "app_cred_id", "access_token_id"] {
        common::remove(&mut doc, own);
    }
    common::put(&mut doc, "blob", app.unseal(sealed)?.into());
    Ok(doc)
}

/// Whether a token may touch a credential of this kind, user and project. One-time passwords log a user in: what is
/// delegated neither makes nor reads them, for no project. A system-scoped token gives no other scope, and so none of
/// the credentials with which its user would get one either.
fn in_bounds(ctx: &Ctx, by: &Delegation, kind: &str, user: &str, project: Option<&str>) -> bool {
    let logs_in = kind.eq_ignore_ascii_case(TOTP);
    if ctx.is_system() && user == ctx.user_id && (logs_in || kind.eq_ignore_ascii_case(EC2)) {
        return false;
    }
    !by.any() || (!logs_in && project == Some(ctx.project_id()) && user == ctx.user_id)
}

fn check_bounds(ctx: &Ctx, by: &Delegation, kind: &str, user: &str, project: Option<&str>) -> Result<()> {
    match in_bounds(ctx, by, kind, user, project) {
        true => Ok(()),
        false => Err(Error::forbidden(
            "You are not authorized to perform the requested action: Credential project does not match the project scope of the token. A token of a trust, an application credential or an OAuth access token reaches its own user's credentials for its own project, and none of type totp; a system-scoped one no credentials of type ec2 or totp of its own user.",
        )),
    }
}

/// Ends the tokens that were given for signatures with this credential.
async fn end_tokens(app: &Identity, tx: &mut Tx, c: &Credential) -> Result<()> {
    if c.kind == EC2 {
        revoke(tx, "chain", &chain_of(&c.id), app.config.token_seconds).await?;
        app.invalidate(tx).await?;
    }
    Ok(())
}

/// A token of a restricted application credential makes no credentials: they could outlive it.
fn check_unrestricted(by: &Delegation) -> Result<()> {
    match by.restricted {
        false => Ok(()),
        true => Err(Error::forbidden(
            "You are not authorized to perform the requested action: Using method 'application_credential' is not allowed for managing additional credentials.",
        )),
    }
}

async fn check_owner(tx: &mut Tx, user: &str, project: Option<&str>) -> Result<()> {
    if tx.find::<User>(user).await?.is_none() {
        return Err(missing("user", user).with_field("credential.user_id"));
    }
    if let Some(p) = project
        && tx.find::<Project>(p).await?.is_none()
    {
        return Err(missing("project", p).with_field("credential.project_id"));
    }
    Ok(())
}

/// GET /v3/credentials
pub(crate) async fn list(app: Arc<Identity>, req: Req) -> Result<Reply> {
    let (ctx, by) = (req.ctx()?.clone(), app.delegation(&req).await?);
    let target = match ctx.is_system() {
        true => Target::default(),
        false => of_user(&ctx.user_id),
    };
    ctx.enforce("identity:list_credentials", &target)?;
    let listing = Listing::of(&req, &[("user_id", Kind::Column), ("type", Kind::Member)])?;
    drop(req);
    let base = listing.base.clone();
    let mut tx = app.db.read().await?;
    let keep = |c: &Credential| {
        ctx.may("identity:get_credential", &of_user(&c.user_id))
            && in_bounds(&ctx, &by, &c.kind, &c.user_id, c.project_id.as_deref())
    };
    let rows = listing
        .run::<Credential>(&mut tx, Query::new(), Some(&keep), &|c| {
            common::view(&base, "credentials", c)
        })
        .await?;
    let mut out = Vec::new();
    for mut doc in rows {
        let id = doc.get("id").and_then(Value::as_str).unwrap_or_default().to_owned();
        for own in ["blob_set_at", "trust_id", "app_cred_id", "access_token_id"] {
            common::remove(&mut doc, own);
        }
        common::put(&mut doc, "blob", app.unseal(&blob_of(&mut tx, &id).await?)?.into());
        out.push(doc);
    }
    Ok(listing.reply("credentials", out))
}

/// GET /v3/credentials/{credential_id}
pub(crate) async fn show(app: Arc<Identity>, req: Req) -> Result<Reply> {
    let (ctx, by) = (req.ctx()?.clone(), app.delegation(&req).await?);
    let (id, base) = (req.param("credential_id").to_owned(), req.base.clone());
    drop(req);
    let mut tx = app.db.read().await?;
    let found = fetch(&mut tx, &ctx, GetCredential, &id).await?;
    check_bounds(&ctx, &by, &found.kind, &found.user_id, found.project_id.as_deref())?;
    let sealed = blob_of(&mut tx, &id).await?;
    Ok(Reply::ok(&json!({"credential": view(&app, &base, &found, &sealed)?})))
}

/// POST /v3/credentials
pub(crate) async fn create(app: Arc<Identity>, mut req: Req) -> Result<Reply> {
    let (ctx, by, base) = (req.ctx()?.clone(), app.delegation(&req).await?, req.base.clone());
    let mut body = common::body(&mut req, "credential", &CREATE).await?;
    let user_id = body.text("user_id").unwrap_or_default();
    ctx.enforce("identity:create_credential", &of_user(&user_id))?;
    let (kind, blob) = (
        body.text("type").unwrap_or_default(),
        body.text("blob").unwrap_or_default(),
    );
    let project_id = body.text("project_id").filter(|p| !p.is_empty());
    let id = if kind.eq_ignore_ascii_case(EC2) {
        check_unrestricted(&by)?;
        if project_id.is_none() {
            return Err(Error::field(
                "credential.project_id",
                "'project_id' is a required property: a credential of type ec2 is for one project.",
            ));
        }
        ec2_id(&access_key(&blob)?)
    } else {
        id::hex()
    };
    check_bounds(&ctx, &by, &kind, &user_id, project_id.as_deref())?;
    let credential = Credential {
        id,
        user_id,
        project_id,
        kind,
        blob_set_at: clock::now(),
        trust_id: by.trust_id.clone(),
        app_cred_id: by.app_cred_id.clone(),
        access_token_id: by.access_token_id.clone(),
        extra: body.rest(),
    };
    let sealed = app.seal(&blob)?;
    let (asker, stored) = (ctx.clone(), sealed.clone());
    let made = app
        .db
        .write(&ctx.actor(), async move |tx| {
            let grant = allow_create(&asker, CreateCredential, &of_user(&credential.user_id))?;
            check_owner(tx, &credential.user_id, credential.project_id.as_deref()).await?;
            let Some(made) = tx.insert(&grant, &credential).await? else {
                return Err(common::conflict(
                    "credential",
                    "Duplicate entry: the access key is taken",
                ));
            };
            set_blob(tx, &credential.id, &stored).await?;
            Ok(made)
        })
        .await?;
    Ok(Reply::created(
        &json!({"credential": view(&app, &base, &made, &sealed)?}),
    ))
}

/// PATCH /v3/credentials/{credential_id}. What it is and whose it is stays: only the blob and attributes of one's own
/// change, and an access key not even then, for the id is made of it.
pub(crate) async fn update(app: Arc<Identity>, mut req: Req) -> Result<Reply> {
    let (ctx, by, base) = (req.ctx()?.clone(), app.delegation(&req).await?, req.base.clone());
    let id = req.param("credential_id").to_owned();
    let body = common::body(&mut req, "credential", &UPDATE).await?;
    common::check_change(&body, &id, "credential")?;
    let blob = body.get("blob").and_then(Value::as_str).map(str::to_owned);
    let sealed = blob.as_deref().map(|b| app.seal(b)).transpose()?;
    let (this, asker) = (app.clone(), ctx.clone());
    let (now, sealed) = app
        .db
        .write(&ctx.actor(), async move |tx| {
            let found = fetch(tx, &asker, UpdateCredential, &id).await?;
            check_bounds(&asker, &by, &found.kind, &found.user_id, found.project_id.as_deref())?;
            let (mut body, mut value) = (body.clone(), found.edit());
            for (name, is) in [
                ("type", Some(value.kind.as_str())),
                ("user_id", Some(value.user_id.as_str())),
                ("project_id", value.project_id.as_deref()),
            ] {
                if let Some(asked) = body.get(name)
                    && asked.as_str() != is
                {
                    return Err(Error::field(
                        format!("credential.{name}"),
                        format!("The field {name} of a credential cannot be changed: delete it and make another one."),
                    ));
                }
            }
            if value.kind.eq_ignore_ascii_case(EC2)
                && let Some(blob) = &blob
            {
                access_key(blob)?;
            }
            if let Some(sealed) = &sealed {
                set_blob(tx, &id, sealed).await?;
                end_tokens(&this, tx, &found).await?;
                value.blob_set_at = clock::now();
            }
            for own in ["blob", "type", "user_id", "project_id"] {
                body.remove(own);
            }
            value.extra.extend(body.rest());
            let now = tx.update(&found, &value).await?;
            Ok((now, blob_of(tx, &id).await?))
        })
        .await?;
    Ok(Reply::ok(&json!({"credential": view(&app, &base, &now, &sealed)?})))
}

/// DELETE /v3/credentials/{credential_id}
pub(crate) async fn delete(app: Arc<Identity>, req: Req) -> Result<Reply> {
    let (ctx, by) = (req.ctx()?.clone(), app.delegation(&req).await?);
    let id = req.param("credential_id").to_owned();
    let (this, asker) = (app.clone(), ctx.clone());
    app.db
        .write(&ctx.actor(), async move |tx| {
            let found = fetch(tx, &asker, DeleteCredential, &id).await?;
            check_bounds(&asker, &by, &found.kind, &found.user_id, found.project_id.as_deref())?;
            end_tokens(&this, tx, &found).await?;
            drop_blob(tx, &id).await?;
            tx.delete(&found).await
        })
        .await?;
    Ok(Reply::no_content())
}

fn ec2_view(app: &Identity, base: &str, c: &Credential, sealed: &str) -> Result<Value> {
    let blob: Value = serde_json::from_str(&app.unseal(sealed)?)?;
    let access = blob.get("access").and_then(Value::as_str).unwrap_or_default();
    let link = haneul_http::request::percent_encode(access);
    Ok(json!({
        "user_id": c.user_id,
        "tenant_id": c.project_id,
        "access": access,
        "secret": blob.get("secret"),
        "trust_id": c.trust_id,
        "links": {"self": format!("{base}/v3/users/{}/credentials/OS-EC2/{link}", c.user_id)},
    }))
}

/// GET /v3/users/{user_id}/credentials/OS-EC2
pub(crate) async fn ec2_list(app: Arc<Identity>, req: Req) -> Result<Reply> {
    let (ctx, by) = (req.ctx()?.clone(), app.delegation(&req).await?);
    let (user, base) = (req.param("user_id").to_owned(), req.base.clone());
    ctx.enforce("identity:ec2_list_credentials", &of_user(&user))?;
    let link = format!("{base}{}", req.uri_path);
    drop(req);
    let mut tx = app.db.read().await?;
    if tx.find::<User>(&user).await?.is_none() {
        return Err(missing("user", &user));
    }
    let query = Query::new().eq("user_id", user.as_str()).eq("kind", EC2);
    let mut out = Vec::new();
    for c in tx.list::<Credential>(&query).await? {
        if in_bounds(&ctx, &by, &c.kind, &c.user_id, c.project_id.as_deref()) {
            let sealed = blob_of(&mut tx, &c.id).await?;
            out.push(ec2_view(&app, &base, &c, &sealed)?);
        }
    }
    Ok(Reply::ok(
        &json!({"credentials": out, "links": {"next": null, "self": link, "previous": null}}),
    ))
}

/// POST /v3/users/{user_id}/credentials/OS-EC2
pub(crate) async fn ec2_create(app: Arc<Identity>, mut req: Req) -> Result<Reply> {
    let (ctx, by, base) = (req.ctx()?.clone(), app.delegation(&req).await?, req.base.clone());
    let user = req.param("user_id").to_owned();
    ctx.enforce("identity:ec2_create_credential", &of_user(&user))?;
    check_unrestricted(&by)?;
    let body = req.json().await?;
    let Some(project) = body.get("tenant_id").and_then(Value::as_str) else {
        return Err(Error::field(
            "tenant_id",
            "Invalid input for field 'tenant_id': the body must name the project of the credential, a string.",
        ));
    };
    check_bounds(&ctx, &by, EC2, &user, Some(project))?;
    let (access, secret) = (id::hex(), id::hex());
    let credential = Credential {
        id: ec2_id(&access),
        user_id: user,
        project_id: Some(project.to_owned()),
        kind: EC2.into(),
        blob_set_at: clock::now(),
        trust_id: by.trust_id.clone(),
        app_cred_id: by.app_cred_id.clone(),
        access_token_id: by.access_token_id.clone(),
        extra: serde_json::Map::new(),
    };
    let sealed = app.seal(&json!({"access": access, "secret": secret, "trust_id": by.trust_id}).to_string())?;
    let (asker, stored) = (ctx.clone(), sealed.clone());
    let made = app
        .db
        .write(&ctx.actor(), async move |tx| {
            let grant = allow_create(&asker, CreateEc2, &of_user(&credential.user_id))?;
            check_owner(tx, &credential.user_id, credential.project_id.as_deref()).await?;
            set_blob(tx, &credential.id, &stored).await?;
            tx.insert(&grant, &credential)
                .await?
                .ok_or_else(|| Error::internal("a new access key is taken"))
        })
        .await?;
    Ok(Reply::created(
        &json!({"credential": ec2_view(&app, &base, &made, &sealed)?}),
    ))
}

/// The credential of a path. Not there is told to whom the user's credentials are open.
async fn ec2_find<A: Action<On = Credential>>(
    tx: &mut Tx,
    ctx: &Ctx,
    by: &Delegation,
    action: A,
    user: &str,
    access: &str,
) -> Result<Authorized<Credential, A>> {
    let id = ec2_id(access);
    match tx.find::<Credential>(&id).await? {
        Some(c) if c.user_id == user && c.kind == EC2 => {
            let found = fetch(tx, ctx, action, &id).await?;
            check_bounds(ctx, by, &found.kind, &found.user_id, found.project_id.as_deref())?;
            Ok(found)
        }
        _ => {
            ctx.enforce(A::RULE, &of_user(user))?;
            Err(missing("credential", access))
        }
    }
}

/// GET /v3/users/{user_id}/credentials/OS-EC2/{credential_id}
pub(crate) async fn ec2_show(app: Arc<Identity>, req: Req) -> Result<Reply> {
    let (ctx, by, base) = (req.ctx()?.clone(), app.delegation(&req).await?, req.base.clone());
    let (user, access) = (req.param("user_id").to_owned(), req.param("credential_id").to_owned());
    drop(req);
    let mut tx = app.db.read().await?;
    let found = ec2_find(&mut tx, &ctx, &by, GetEc2, &user, &access).await?;
    let sealed = blob_of(&mut tx, &found.id).await?;
    Ok(Reply::ok(
        &json!({"credential": ec2_view(&app, &base, &found, &sealed)?}),
    ))
}

/// DELETE /v3/users/{user_id}/credentials/OS-EC2/{credential_id}
pub(crate) async fn ec2_delete(app: Arc<Identity>, req: Req) -> Result<Reply> {
    let (ctx, by) = (req.ctx()?.clone(), app.delegation(&req).await?);
    let (user, access) = (req.param("user_id").to_owned(), req.param("credential_id").to_owned());
    let (this, asker) = (app.clone(), ctx.clone());
    app.db
        .write(&ctx.actor(), async move |tx| {
            let found = ec2_find(tx, &asker, &by, DeleteEc2, &user, &access).await?;
            end_tokens(&this, tx, &found).await?;
            drop_blob(tx, &found.id).await?;
            tx.delete(&found).await
        })
        .await?;
    Ok(Reply::no_content())
}
