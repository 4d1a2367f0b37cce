//! /v3/users/{user_id}/application_credentials (API reference: Identity API v3, "Application credentials").

use super::common::{self, EXPIRES, Kind, Listing, NAME, TEXT, Take};
use crate::logic::resolve::rule_view;
use crate::model::{AccessRule, AppCred, TargetKind, missing};
use crate::policy::{CreateAppCred, DeleteAppCred, GetAppCred};
use crate::store::{RoleBook, assigned, drop_secret, role_by_name, set_secret};
use crate::{Delegation, Identity};
use haneul_auth::{Ctx, RoleRef, Target, allow_create, fetch};
use haneul_core::clock::naive_micros;
use haneul_core::{Error, Result, clock, id};
use haneul_http::{Body, FieldKind, Reply, Req, f};
use haneul_store::{Query, System, Tx};
use serde_json::{Value, json};
use std::sync::Arc;

static ROLE: Body = Body {
    open: false,
    fields: &[f("id", TEXT), f("name", TEXT)],
};
const ROLES: FieldKind = FieldKind::List {
    of: &FieldKind::Obj(&ROLE),
    max: 100,
};
/// keystone/application_credential/schema.py: a rule of one's own by its id, or a new one.
static RULE: Body = Body {
    open: false,
    fields: &[
        f("id", TEXT),
        f("service", FieldKind::Str { min: 1, max: 255 }),
        f(
            "path",
            FieldKind::Check(|v| match v.as_str() {
                Some(s) if s.starts_with('/') && s.chars().count() <= 225 => Ok(()),
                _ => Err("It must be a path: a slash, and up to 225 characters.".into()),
            }),
        ),
        f(
            "method",
            FieldKind::OneOf(&["DELETE", "GET", "HEAD", "PATCH", "POST", "PUT"]),
        ),
    ],
};
const RULES: FieldKind = FieldKind::List {
    of: &FieldKind::Obj(&RULE),
    max: 100,
};
static CREATE: Body = Body {
    open: false,
    fields: &[
        f("name", NAME).req(),
        f("description", TEXT).null(),
        f("secret", FieldKind::Str { min: 1, max: 4096 }).null(),
        f("expires_at", EXPIRES).null(),
        f("roles", ROLES),
        f("unrestricted", FieldKind::Bool).null(),
        f("access_rules", RULES).null(),
        // Accepted and without effect, as in Keystone: the token says which project.
        f("project_id", TEXT),
        f("id", TEXT),
    ],
};

/// The longest list of roles aside, Keystone has no limit by default; a secret's hash is dear to check.
const MAX_PER_USER: i64 = 100;

fn show_view(base: &str, c: &AppCred, book: &RoleBook, rules: &[AccessRule]) -> Value {
    let mut doc = common::view(base, &format!("users/{}/application_credentials", c.user_id), c);
    let roles: Vec<Value> = c
        .roles
        .iter()
        .filter_map(|id| book.roles.get(id))
        .map(|r| {
            json!({"id": r.id, "name": r.name, "domain_id": r.domain_id, "description": r.description, "options": r.options})
        })
        .collect();
    common::put(&mut doc, "roles", roles.into());
    common::put(&mut doc, "expires_at", c.expires_at.map(naive_micros).into());
    common::put(&mut doc, "system", Value::Null);
    common::remove(&mut doc, "access_rules");
    if let Some(ids) = &c.access_rules {
        let found = ids.iter().filter_map(|id| rules.iter().find(|r| r.id == *id));
        common::put(&mut doc, "access_rules", found.map(rule_view).collect());
    }
    doc
}

/// GET /v3/users/{user_id}/application_credentials
pub(crate) async fn list(app: Arc<Identity>, req: Req) -> Result<Reply> {
    let (ctx, user) = (req.ctx()?.clone(), req.param("user_id").to_owned());
    ctx.enforce("identity:list_application_credentials", &Target::user(&user))?;
    no_trust(&app.delegation(&req).await?)?;
    let listing = Listing::of(&req, &[("name", Kind::Column)])?;
    drop(req);
    let mut tx = app.db.read().await?;
    let book = RoleBook::load(&mut tx).await?;
    let rules = rules_of(&mut tx, &user).await?;
    let base = listing.base.clone();
    let rows = listing
        .run::<AppCred>(&mut tx, Query::new().eq("user_id", user), None, &|c| {
            show_view(&base, c, &book, &rules)
        })
        .await?;
    Ok(listing.reply("application_credentials", rows))
}

/// GET /v3/users/{user_id}/application_credentials/{id}
pub(crate) async fn show(app: Arc<Identity>, req: Req) -> Result<Reply> {
    let (ctx, base) = (req.ctx()?.clone(), req.base.clone());
    let (user, id) = (
        req.param("user_id").to_owned(),
        req.param("application_credential_id").to_owned(),
    );
    let by = app.delegation(&req).await?;
    drop(req);
    let mut tx = app.db.read().await?;
    // The rule is checked against the credential's own user, not the one in the path.
    let cred = find(&mut tx, &ctx, GetAppCred, &user, &id).await?;
    no_trust(&by)?;
    let book = RoleBook::load(&mut tx).await?;
    let rules = rules_of(&mut tx, &user).await?;
    Ok(Reply::ok(
        &json!({"application_credential": show_view(&base, &cred, &book, &rules)}),
    ))
}

async fn find<A: haneul_auth::Action<On = AppCred>>(
    tx: &mut Tx,
    ctx: &Ctx,
    action: A,
    user: &str,
    id: &str,
) -> Result<haneul_auth::Authorized<AppCred, A>> {
    if tx.find::<AppCred>(id).await?.is_none() {
        ctx.enforce(A::RULE, &Target::user(user))?;
        return Err(missing("Application Credential", id));
    }
    let cred = fetch(tx, ctx, action, id).await?;
    if cred.user_id != user {
        return Err(missing("Application Credential", id));
    }
    Ok(cred)
}

/// A token of a trust or an OAuth access token neither sees nor makes credentials: they would outlive it.
pub(crate) fn no_trust(by: &Delegation) -> Result<()> {
    match by.trust_id.is_some() || by.access_token_id.is_some() {
        false => Ok(()),
        true => Err(Error::forbidden(
            "Cannot manage application credentials with a token issued via delegation.",
        )),
    }
}

/// A token of a restricted credential may not make or remove credentials: it could outlive itself.
async fn check_unrestricted(tx: &mut Tx, ctx: &Ctx) -> Result<()> {
    let Some(id) = &ctx.application_credential_id else {
        return Ok(());
    };
    match tx.find::<AppCred>(id).await? {
        // What it may ask for is listed; a new one would have no such list.
        Some(c) if c.unrestricted && c.access_rules.is_none() => Ok(()),
        _ => Err(Error::forbidden(
            "You are not authorized to perform the requested action: Using method 'application_credential' is not allowed for managing additional application credentials.",
        )),
    }
}

async fn rules_of(tx: &mut Tx, user: &str) -> Result<Vec<AccessRule>> {
    let rules = tx.list::<AccessRule>(&Query::new().eq("user_id", user)).await?;
    Ok(rules.into_iter().map(|r| r.value).collect())
}

/// Ids of the access rules of a new credential. One that the user has already is not made twice.
async fn wanted_rules(tx: &mut Tx, user: &str, asked: &[Value]) -> Result<Vec<String>> {
    let mut own = rules_of(tx, user).await?;
    let mut out = Vec::new();
    for (n, rule) in asked.iter().enumerate() {
        let text = |key: &str| rule.get(key).and_then(Value::as_str);
        let id = match (text("id"), text("service"), text("path"), text("method")) {
            (Some(id), None, None, None) => match own.iter().find(|r| r.id == id) {
                Some(r) => r.id.clone(),
                None => {
                    return Err(
                        missing("Access Rule", id).with_field(format!("application_credential.access_rules.{n}"))
                    );
                }
            },
            (None, Some(service), Some(path), Some(method)) => {
                let same = |r: &&AccessRule| r.service == service && r.path == path && r.method == method;
                match own.iter().find(same) {
                    Some(r) => r.id.clone(),
                    None => {
                        let rule = AccessRule {
                            id: id::hex(),
                            user_id: user.to_owned(),
                            service: service.to_owned(),
                            path: path.to_owned(),
                            method: method.to_owned(),
                        };
                        tx.insert(&System::create(), &rule).await?;
                        own.push(rule.clone());
                        rule.id
                    }
                }
            }
            _ => {
                return Err(Error::field(
                    format!("application_credential.access_rules.{n}"),
                    format!(
                        "Invalid input for field access_rules.{n}: an access rule is named by the id of an existing one, or by service, path and method."
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

/// The end of a new credential: not after that of the one whose token makes it.
async fn end(tx: &mut Tx, ctx: &Ctx, asked: Option<i64>) -> Result<Option<i64>> {
    let Some(id) = &ctx.application_credential_id else {
        return Ok(asked);
    };
    let own = tx.find::<AppCred>(id).await?.and_then(|c| c.expires_at);
    match (own, asked) {
        (Some(own), Some(asked)) if asked > own => Err(Error::field(
            "application_credential.expires_at",
            "It must not be after the end of the application credential that is used to make it.",
        )),
        (Some(own), None) => Ok(Some(own)),
        _ => Ok(asked),
    }
}

/// Ids of the roles of a new credential: those of the token where none are named. The user must have each,
/// and so must the token, which may itself be of a credential with less.
async fn wanted_roles(
    tx: &mut Tx,
    ctx: &Ctx,
    asked: Option<&[(Option<String>, Option<String>)]>,
) -> Result<Vec<String>> {
    let held = assigned(tx, &ctx.user_id, TargetKind::Project, ctx.project_id()).await?;
    let book = RoleBook::load(tx).await?;
    let held = book.expand(held.iter().map(String::as_str));
    let has = |id: &str| held.contains(id) && ctx.roles.iter().any(|r: &RoleRef| r.id == id);
    let Some(asked) = asked else {
        return Ok(ctx.roles.iter().map(|r| r.id.clone()).filter(|id| has(id)).collect());
    };
    let mut out = Vec::new();
    for (n, (id, name)) in asked.iter().enumerate() {
        let field = format!("application_credential.roles.{n}");
        let id = match (id, name) {
            (Some(id), None) => id.clone(),
            (None, Some(name)) => match role_by_name(tx, "", name).await? {
                Some(r) => r.value.id,
                None => return Err(missing("role", name).with_field(field)),
            },
            _ => {
                return Err(Error::field(
                    field.clone(),
                    format!("Invalid input for field/attribute {field}. Name the role by id or by name, not both."),
                ));
            }
        };
        if !has(&id) {
            return Err(Error::field(
                field,
                format!(
                    "Invalid application credential: Could not find role assignment with role: {id}, user or group: {}, project, domain, or system: {} (roles).",
                    ctx.user_id,
                    ctx.project_id()
                ),
            ));
        }
        if !out.contains(&id) {
            out.push(id);
        }
    }
    Ok(out)
}

/// POST /v3/users/{user_id}/application_credentials
pub(crate) async fn create(app: Arc<Identity>, mut req: Req) -> Result<Reply> {
    let (ctx, user, base) = (req.ctx()?.clone(), req.param("user_id").to_owned(), req.base.clone());
    // Before the body, for nobody else's business is discussed here.
    allow_create(&ctx, CreateAppCred, &Target::user(&user))?;
    no_trust(&app.delegation(&req).await?)?;
    let mut body = common::body(&mut req, "application_credential", &CREATE).await?;
    if ctx.project_id().is_empty() {
        return Err(Error::field(
            "project_id",
            "Invalid application credential: the token must be scoped to a project (project_id), for which the credential is then made.",
        ));
    }
    let asked: Option<Vec<(Option<String>, Option<String>)>> = body
        .remove("roles")
        .and_then(|roles| {
            Some(
                roles
                    .as_array()?
                    .iter()
                    .map(|r| {
                        let text = |key: &str| r.get(key).and_then(Value::as_str).map(str::to_owned);
                        (text("id"), text("name"))
                    })
                    .collect::<Vec<_>>(),
            )
        })
        .filter(|roles: &Vec<_>| !roles.is_empty());
    // An empty list is what clients send where they have none.
    let rules: Option<Vec<Value>> = body
        .remove("access_rules")
        .and_then(|r| r.as_array().cloned())
        .filter(|r| !r.is_empty());
    let expires_at = body.text("expires_at").as_deref().and_then(clock::parse);
    if expires_at.is_some_and(|t| t <= clock::now()) {
        return Err(Error::field(
            "application_credential.expires_at",
            "The 'expires_at' must not be before now. The server could not comply with the request since it is either malformed or otherwise incorrect. The client is assumed to be in error.",
        ));
    }
    let secret = body.text("secret").unwrap_or_else(|| id::secret(86));
    {
        let mut tx = app.db.read().await?;
        check_unrestricted(&mut tx, &ctx).await?;
        wanted_roles(&mut tx, &ctx, asked.as_deref()).await?;
    }
    let hash = app.hasher.hash(&secret).await?;
    let cred = AppCred {
        id: id::hex(),
        name: body.text("name").unwrap_or_default().trim().to_owned(),
        user_id: user,
        project_id: ctx.project_id().to_owned(),
        description: body.text("description"),
        roles: vec![],
        access_rules: None,
        unrestricted: body.flag("unrestricted").unwrap_or(false),
        expires_at,
    };
    let asker = ctx.clone();
    let mut doc = app
        .db
        .write(&ctx.actor(), async move |tx| {
            let grant = allow_create(&asker, CreateAppCred, &Target::user(&cred.user_id))?;
            check_unrestricted(tx, &asker).await?;
            let mut cred = cred.clone();
            cred.roles = wanted_roles(tx, &asker, asked.as_deref()).await?;
            cred.expires_at = end(tx, &asker, cred.expires_at).await?;
            if let Some(rules) = &rules {
                cred.access_rules = Some(wanted_rules(tx, &cred.user_id, rules).await?);
            }
            let held = tx.count::<AppCred>(&Query::new().eq("user_id", cred.user_id.as_str())).await?;
            if held >= MAX_PER_USER {
                return Err(Error::forbidden(format!(
                    "Unable to create additional application credentials, maximum of {MAX_PER_USER} already exceeded for user."
                )));
            }
            if tx.insert(&grant, &cred).await?.is_none() {
                return Err(common::conflict(
                    "application_credential",
                    format!("Duplicate entry found with name {} for this user", cred.name),
                ));
            }
            set_secret(tx, &cred.id, &hash).await?;
            let book = RoleBook::load(tx).await?;
            let rules = rules_of(tx, &cred.user_id).await?;
            Ok(show_view(&base, &cred, &book, &rules))
        })
        .await?;
    // Shown now and never again.
    common::put(&mut doc, "secret", secret.into());
    Ok(Reply::created(&json!({"application_credential": doc})))
}

/// DELETE /v3/users/{user_id}/application_credentials/{id}
pub(crate) async fn delete(app: Arc<Identity>, req: Req) -> Result<Reply> {
    let ctx = req.ctx()?.clone();
    let (user, id) = (
        req.param("user_id").to_owned(),
        req.param("application_credential_id").to_owned(),
    );
    let (this, asker, by) = (app.clone(), ctx.clone(), app.delegation(&req).await?);
    app.db
        .write(&ctx.actor(), async move |tx| {
            let found = find(tx, &asker, DeleteAppCred, &user, &id).await?;
            no_trust(&by)?;
            check_unrestricted(tx, &asker).await?;
            drop_secret(tx, &id).await?;
            this.invalidate(tx).await?;
            tx.delete(&found).await
        })
        .await?;
    Ok(Reply::no_content())
}
