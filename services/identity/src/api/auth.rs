//! /v3/auth (API reference: Identity API v3, "Authentication and token management").

use super::common::{self, TEXT};
use super::{domains, projects};
use crate::Identity;
use crate::logic::login::{Beside, Outcome};
use crate::logic::oauth1::Signed;
use crate::model::{Domain, Project, TargetKind};
use crate::store::{assigned, revoke, targets_of};
use haneul_auth::Target;
use haneul_core::{Error, Result};
use haneul_http::{Body, FieldKind, Reply, Req, f};
use haneul_store::Query;
use http::{Method, StatusCode};
use serde_json::{Value, json};
use std::sync::Arc;

const STRING: FieldKind = FieldKind::Str { min: 0, max: 4096 };

static DOMAIN: Body = Body {
    open: true,
    fields: &[f("id", STRING), f("name", STRING)],
};
static USER: Body = Body {
    open: true,
    fields: &[
        f("id", STRING),
        f("name", STRING),
        f("password", STRING),
        f("domain", FieldKind::Obj(&DOMAIN)),
    ],
};
static PASSWORD: Body = Body {
    open: true,
    fields: &[f("user", FieldKind::Obj(&USER))],
};
static TOKEN: Body = Body {
    open: true,
    fields: &[f("id", TEXT).req()],
};
static APP_CRED: Body = Body {
    open: true,
    fields: &[
        f("id", STRING),
        f("name", STRING),
        f("secret", STRING),
        f("user", FieldKind::Obj(&USER)),
    ],
};
static TOTP_USER: Body = Body {
    open: true,
    fields: &[
        f("id", STRING),
        f("name", STRING),
        f("passcode", STRING),
        f("domain", FieldKind::Obj(&DOMAIN)),
    ],
};
static TOTP: Body = Body {
    open: true,
    fields: &[f("user", FieldKind::Obj(&TOTP_USER))],
};
/// What it says is in the header `Authorization`.
static OAUTH1: Body = Body {
    open: true,
    fields: &[],
};
static IDENTITY: Body = Body {
    open: true,
    fields: &[
        f("methods", FieldKind::List { of: &STRING, max: 8 }).req(),
        f("password", FieldKind::Obj(&PASSWORD)),
        f("token", FieldKind::Obj(&TOKEN)),
        f("application_credential", FieldKind::Obj(&APP_CRED)),
        f("totp", FieldKind::Obj(&TOTP)),
        f("oauth1", FieldKind::Obj(&OAUTH1)),
    ],
};
static SCOPE_PROJECT: Body = Body {
    open: true,
    fields: &[f("id", STRING), f("name", STRING), f("domain", FieldKind::Obj(&DOMAIN))],
};
static SCOPE_SYSTEM: Body = Body {
    open: true,
    fields: &[f("all", FieldKind::Bool)],
};
static SCOPE_TRUST: Body = Body {
    open: true,
    fields: &[f("id", STRING)],
};
static SCOPE: Body = Body {
    open: true,
    fields: &[
        f("project", FieldKind::Obj(&SCOPE_PROJECT)),
        f("domain", FieldKind::Obj(&DOMAIN)),
        f("system", FieldKind::Obj(&SCOPE_SYSTEM)),
        f("OS-TRUST:trust", FieldKind::Obj(&SCOPE_TRUST)),
    ],
};
static AUTH: Body = Body {
    open: true,
    fields: &[
        f("identity", FieldKind::Obj(&IDENTITY)).req(),
        f("scope", FieldKind::Any(&[STRING, FieldKind::Obj(&SCOPE)])).null(),
    ],
};

fn wants_catalog(req: &Req) -> bool {
    req.q("nocatalog").is_none()
}

/// POST /v3/auth/tokens
pub(crate) async fn issue(app: Arc<Identity>, mut req: Req) -> Result<Reply> {
    let catalog = wants_catalog(&req);
    let auth = Value::Object(common::body(&mut req, "auth", &AUTH).await?);
    let beside = Beside {
        signed: Signed::of(&req),
        receipt: req.header("openstack-auth-receipt").map(str::to_owned),
    };
    match app.login(&auth, &beside).await? {
        Outcome::Issued(issued) => {
            let body = app.body(&issued.entry, catalog).await?;
            Ok(Reply::bytes(StatusCode::CREATED, "application/json", body).header("x-subject-token", &issued.token))
        }
        Outcome::MoreNeeded { receipt, answer } => {
            Ok(Reply::json(StatusCode::UNAUTHORIZED, &answer).header("openstack-auth-receipt", receipt))
        }
    }
}

/// The token that a request is about.
async fn subject(app: &Identity, req: Option<String>) -> Result<(String, Arc<crate::token::Entry>)> {
    let token =
        req.ok_or_else(|| Error::not_found("No token in the request: the header X-Subject-Token is missing."))?;
    let entry = app.shown(&token).await?;
    Ok((token, entry))
}

/// GET and HEAD /v3/auth/tokens
pub(crate) async fn validate(app: Arc<Identity>, req: Req) -> Result<Reply> {
    let ctx = req.ctx()?.clone();
    let catalog = wants_catalog(&req);
    let rule = if req.method == Method::HEAD {
        "identity:check_token"
    } else {
        "identity:validate_token"
    };
    let (token, entry) = subject(&app, req.header("x-subject-token").map(str::to_owned)).await?;
    // A service that does not say that it keeps to access rules would let such a token do everything.
    if entry.rules.is_some() && req.header("openstack-identity-access-rules").is_none() {
        return Err(Error::not_found("Could not find token.")
            .with_private("it has access rules, and the header OpenStack-Identity-Access-Rules is missing"));
    }
    ctx.enforce(
        rule,
        &Target::default().with("target.token.user_id", &entry.ctx.user_id),
    )?;
    let body = app.body(&entry, catalog).await?;
    Ok(Reply::bytes(StatusCode::OK, "application/json", body).header("x-subject-token", token))
}

/// DELETE /v3/auth/tokens
pub(crate) async fn delete(app: Arc<Identity>, req: Req) -> Result<Reply> {
    let ctx = req.ctx()?.clone();
    let (_, entry) = subject(&app, req.header("x-subject-token").map(str::to_owned)).await?;
    ctx.enforce(
        "identity:revoke_token",
        &Target::default().with("target.token.user_id", &entry.ctx.user_id),
    )?;
    let Some(audit_id) = entry.ctx.audit_ids.first().cloned() else {
        return Err(Error::internal("a token without an audit id"));
    };
    let this = app.clone();
    app.db
        .write(&ctx.actor(), async move |tx| {
            revoke(tx, "audit", &audit_id, this.config.token_seconds).await?;
            this.invalidate(tx).await
        })
        .await?;
    Ok(Reply::no_content())
}

/// GET /v3/auth/catalog
pub(crate) async fn catalog(app: Arc<Identity>, req: Req) -> Result<Reply> {
    let ctx = req.ctx()?.clone();
    if ctx.project_id().is_empty() {
        return Err(Error::forbidden(
            "A project-scoped token is required to produce a service catalog.",
        ));
    }
    let link = format!("{}/v3/auth/catalog", req.base);
    let catalog: Value = serde_json::from_slice(&app.rendered_catalog(&ctx.inner).await?)?;
    Ok(Reply::ok(&json!({"catalog": catalog, "links": {"self": link}})))
}

/// GET /v3/auth/projects
pub(crate) async fn projects(app: Arc<Identity>, req: Req) -> Result<Reply> {
    let user = req.ctx()?.user_id.clone();
    let listing = common::Listing::of(&req, &[])?;
    let mut tx = app.db.read().await?;
    let ids = targets_of(&mut tx, &user, TargetKind::Project).await?;
    let base = listing.base.clone();
    let rows = listing
        .run::<Project>(&mut tx, Query::new().eq("enabled", true).is_in("id", ids), None, &|p| {
            projects::show_view(&base, p)
        })
        .await?;
    Ok(listing.reply("projects", rows))
}

/// GET /v3/auth/domains
pub(crate) async fn domains(app: Arc<Identity>, req: Req) -> Result<Reply> {
    let user = req.ctx()?.user_id.clone();
    let listing = common::Listing::of(&req, &[])?;
    let mut tx = app.db.read().await?;
    let ids = targets_of(&mut tx, &user, TargetKind::Domain).await?;
    let base = listing.base.clone();
    let rows = listing
        .run::<Domain>(&mut tx, Query::new().eq("enabled", true).is_in("id", ids), None, &|d| {
            domains::show_view(&base, d)
        })
        .await?;
    Ok(listing.reply("domains", rows))
}

/// GET /v3/auth/system
pub(crate) async fn system(app: Arc<Identity>, req: Req) -> Result<Reply> {
    let user = req.ctx()?.user_id.clone();
    let link = format!("{}/v3/auth/system", req.base);
    let held = assigned(&mut app.db.read().await?, &user, TargetKind::System, "all").await?;
    let system = if held.is_empty() {
        json!([])
    } else {
        json!([{"all": true}])
    };
    Ok(Reply::ok(&json!({"system": system, "links": {"self": link}})))
}
