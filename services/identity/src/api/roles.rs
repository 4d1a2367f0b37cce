//! /v3/roles and /v3/role_inferences (API reference: Identity API v3, "Roles").

use super::common::{self, ID, Kind, Listing, NAME, OPTIONS, TEXT, Take};
use crate::Identity;
use crate::logic::remove;
use crate::model::{Domain, ImpliedRole, Role, missing};
use crate::policy::{
    CreateDomainRole, CreateImpliedRole, CreateRole, DeleteDomainRole, DeleteImpliedRole, DeleteRole, GetDomainRole,
    GetImpliedRole, GetRole, UpdateDomainRole, UpdateRole,
};
use crate::store::{RoleBook, role_by_name};
use haneul_auth::{Action, Authorized, Ctx, Secured, Target, allow_create, authorize, fetch};
use haneul_core::{Error, Result, id};
use haneul_http::{Body, Reply, Req, f};
use haneul_store::{Query, Tx};
use serde_json::{Value, json};
use std::sync::Arc;

static CREATE: Body = Body {
    open: true,
    fields: &[
        f("name", NAME).req(),
        f("domain_id", ID).null(),
        f("description", TEXT).null(),
        f("options", OPTIONS),
    ],
};
static UPDATE: Body = Body {
    open: true,
    fields: &[
        f("name", NAME),
        f("domain_id", ID).null(),
        f("description", TEXT).null(),
        f("options", OPTIONS),
    ],
};

pub(crate) fn show_view(base: &str, r: &Role) -> Value {
    common::view(base, "roles", r)
}

/// GET /v3/roles
pub(crate) async fn list(app: Arc<Identity>, req: Req) -> Result<Reply> {
    let ctx = req.ctx()?.clone();
    let listing = Listing::of(&req, &[("name", Kind::Column), ("description", Kind::Member)])?;
    let domain = req.q("domain_id").filter(|d| !d.is_empty()).map(str::to_owned);
    drop(req);
    ctx.enforce(
        if domain.is_some() {
            "identity:list_domain_roles"
        } else {
            "identity:list_roles"
        },
        &common::list_target(&ctx),
    )?;
    // Global roles, or those of the one domain that is asked for.
    let query = Query::new().eq("domain_id", domain.unwrap_or_default());
    let base = listing.base.clone();
    let mut tx = app.db.read().await?;
    let rows = listing
        .run::<Role>(&mut tx, query, None, &|r| show_view(&base, r))
        .await?;
    Ok(listing.reply("roles", rows))
}

/// A role under the rule for global roles or the one for those of a domain.
async fn fetch_either<G: Action<On = Role>, D: Action<On = Role>, T>(
    tx: &mut Tx,
    ctx: &Ctx,
    id: &str,
    global: (G, impl FnOnce(Authorized<Role, G>) -> T),
    domain: (D, impl FnOnce(Authorized<Role, D>) -> T),
) -> Result<T> {
    match tx.find::<Role>(id).await? {
        Some(r) if r.domain_id.is_some() => Ok(domain.1(authorize(ctx, domain.0, r, id)?)),
        Some(r) => Ok(global.1(authorize(ctx, global.0, r, id)?)),
        None => Ok(global.1(fetch(tx, ctx, global.0, id).await?)),
    }
}

/// GET /v3/roles/{role_id}
pub(crate) async fn show(app: Arc<Identity>, req: Req) -> Result<Reply> {
    let (ctx, id, base) = (req.ctx()?.clone(), req.param("role_id").to_owned(), req.base.clone());
    let role = fetch_either(
        &mut app.db.read().await?,
        &ctx,
        &id,
        (GetRole, |r| r.edit()),
        (GetDomainRole, |r| r.edit()),
    )
    .await?;
    Ok(Reply::ok(&json!({"role": show_view(&base, &role)})))
}

fn clash(name: &str) -> Error {
    common::conflict("role", format!("Duplicate entry found with name {name}"))
}

/// POST /v3/roles
pub(crate) async fn create(app: Arc<Identity>, mut req: Req) -> Result<Reply> {
    let ctx = req.ctx()?.clone();
    let mut body = common::body(&mut req, "role", &CREATE).await?;
    let base = req.base.clone();
    let role = Role {
        id: id::hex(),
        name: body.text("name").unwrap_or_default().trim().to_owned(),
        domain_id: body.text("domain_id"),
        description: body.text("description"),
        options: common::new_options(&mut body),
        extra: body.rest(),
    };
    let asker = ctx.clone();
    let made = app
        .db
        .write(&ctx.actor(), async move |tx| {
            let grant = match &role.domain_id {
                Some(_) => allow_create(&asker, CreateDomainRole, &role.target())?,
                None => allow_create(&asker, CreateRole, &role.target())?,
            };
            if let Some(d) = &role.domain_id
                && tx.find::<Domain>(d).await?.is_none()
            {
                return Err(missing("domain", d).with_field("role.domain_id"));
            }
            tx.insert(&grant, &role).await?.ok_or_else(|| clash(&role.name))
        })
        .await?;
    Ok(Reply::created(&json!({"role": show_view(&base, &made)})))
}

/// PATCH /v3/roles/{role_id}
pub(crate) async fn update(app: Arc<Identity>, mut req: Req) -> Result<Reply> {
    let ctx = req.ctx()?.clone();
    let id = req.param("role_id").to_owned();
    let body = common::body(&mut req, "role", &UPDATE).await?;
    common::check_change(&body, &id, "role")?;
    let base = req.base.clone();
    let (this, asker) = (app.clone(), ctx.clone());
    let now = app
        .db
        .write(&ctx.actor(), async move |tx| {
            let found = fetch_either(
                tx,
                &asker,
                &id,
                (UpdateRole, Either::Global),
                (UpdateDomainRole, Either::Domain),
            )
            .await?;
            let old = match &found {
                Either::Global(g) => g.edit(),
                Either::Domain(d) => d.edit(),
            };
            let domain = old.domain_id.clone().unwrap_or_default();
            common::same_domain(&body, &domain, "role")?;
            common::check_immutable(&old.options, &body, "role", &id)?;
            let mut body = body.clone();
            let mut value = old;
            if let Some(name) = body.text("name").map(|n| n.trim().to_owned()) {
                if role_by_name(tx, &domain, &name).await?.is_some_and(|r| r.id != id) {
                    return Err(clash(&name));
                }
                value.name = name;
            }
            if let Some(d) = body.nullable("description") {
                value.description = d;
            }
            if let Some(o) = body.object("options") {
                common::merge_options(&mut value.options, o);
            }
            value.extra.extend(body.rest());
            this.invalidate(tx).await?;
            match &found {
                Either::Global(g) => tx.update(g, &value).await,
                Either::Domain(d) => tx.update(d, &value).await,
            }
        })
        .await?;
    Ok(Reply::ok(&json!({"role": show_view(&base, &now)})))
}

enum Either<G, D> {
    Global(Authorized<Role, G>),
    Domain(Authorized<Role, D>),
}

/// DELETE /v3/roles/{role_id}
pub(crate) async fn delete(app: Arc<Identity>, req: Req) -> Result<Reply> {
    let ctx = req.ctx()?.clone();
    let id = req.param("role_id").to_owned();
    let (this, asker) = (app.clone(), ctx.clone());
    app.db
        .write(&ctx.actor(), async move |tx| {
            let found = fetch_either(
                tx,
                &asker,
                &id,
                (DeleteRole, Either::Global),
                (DeleteDomainRole, Either::Domain),
            )
            .await?;
            let options = match &found {
                Either::Global(g) => &g.options,
                Either::Domain(d) => &d.options,
            };
            common::check_deletable(options, "role", &id)?;
            remove::role_parts(tx, &id).await?;
            this.invalidate(tx).await?;
            match &found {
                Either::Global(g) => tx.delete(g).await,
                Either::Domain(d) => tx.delete(d).await,
            }
        })
        .await?;
    Ok(Reply::no_content())
}

fn short(base: &str, r: &Role) -> Value {
    json!({"id": r.id, "name": r.name, "links": {"self": format!("{base}/v3/roles/{}", r.id)}})
}

fn pair(base: &str, prior: &Role, implied: &Role) -> Value {
    json!({
        "role_inference": {"prior_role": short(base, prior), "implies": short(base, implied)},
        "links": {"self": format!("{base}/v3/roles/{}/implies/{}", prior.id, implied.id)},
    })
}

fn role<'a>(book: &'a RoleBook, id: &str) -> Result<&'a Role> {
    book.roles.get(id).ok_or_else(|| missing("role", id))
}

/// GET /v3/role_inferences
pub(crate) async fn inferences(app: Arc<Identity>, req: Req) -> Result<Reply> {
    req.ctx()?
        .enforce("identity:list_role_inference_rules", &Target::default())?;
    let base = req.base.clone();
    drop(req);
    let book = RoleBook::load(&mut app.db.read().await?).await?;
    let rows: Vec<Value> = book
        .roles
        .values()
        .filter(|r| !book.implied_by(&r.id).is_empty())
        .map(|r| {
            let implies: Vec<Value> = book
                .implied_by(&r.id)
                .iter()
                .filter_map(|i| book.roles.get(i))
                .map(|i| short(&base, i))
                .collect();
            json!({"prior_role": short(&base, r), "implies": implies})
        })
        .collect();
    Ok(Reply::ok(&json!({
        "role_inferences": rows,
        "links": {"next": null, "previous": null, "self": format!("{base}/v3/role_inferences")},
    })))
}

/// GET /v3/roles/{role_id}/implies
pub(crate) async fn implied(app: Arc<Identity>, req: Req) -> Result<Reply> {
    req.ctx()?.enforce("identity:list_implied_roles", &Target::default())?;
    let (base, prior) = (req.base.clone(), req.param("role_id").to_owned());
    drop(req);
    let book = RoleBook::load(&mut app.db.read().await?).await?;
    let prior = role(&book, &prior)?;
    let implies: Vec<Value> = book
        .implied_by(&prior.id)
        .iter()
        .filter_map(|i| book.roles.get(i))
        .map(|i| short(&base, i))
        .collect();
    Ok(Reply::ok(&json!({
        "role_inference": {"prior_role": short(&base, prior), "implies": implies},
        "links": {"next": null, "previous": null, "self": format!("{base}/v3/roles/{}/implies", prior.id)},
    })))
}

fn no_rule(prior: &str, implied: &str) -> Error {
    Error::not_found(format!("{prior} does not imply {implied}."))
}

/// GET and HEAD /v3/roles/{role_id}/implies/{implied_id}
pub(crate) async fn check_implied(app: Arc<Identity>, req: Req) -> Result<Reply> {
    let (ctx, base) = (req.ctx()?.clone(), req.base.clone());
    let (prior, implied) = (req.param("role_id").to_owned(), req.param("implied_id").to_owned());
    let head = req.method == http::Method::HEAD;
    drop(req);
    let mut tx = app.db.read().await?;
    let key = ImpliedRole::key(&prior, &implied);
    ctx.enforce("identity:get_implied_role", &Target::default())?;
    match tx.find::<ImpliedRole>(&key).await? {
        Some(rule) => authorize(&ctx, GetImpliedRole, rule, &key)?,
        None => return Err(no_rule(&prior, &implied)),
    };
    if head {
        return Ok(Reply::no_content());
    }
    let book = RoleBook::load(&mut tx).await?;
    Ok(Reply::ok(&pair(&base, role(&book, &prior)?, role(&book, &implied)?)))
}

/// PUT /v3/roles/{role_id}/implies/{implied_id}
pub(crate) async fn imply(app: Arc<Identity>, req: Req) -> Result<Reply> {
    let (ctx, base) = (req.ctx()?.clone(), req.base.clone());
    let (prior, implied) = (req.param("role_id").to_owned(), req.param("implied_id").to_owned());
    let (this, asker) = (app.clone(), ctx.clone());
    let doc = app
        .db
        .write(&ctx.actor(), async move |tx| {
            let grant = allow_create(&asker, CreateImpliedRole, &Target::default())?;
            let book = RoleBook::load(tx).await?;
            let (p, i) = (role(&book, &prior)?, role(&book, &implied)?);
            // keystone.conf `prohibited_implied_role`: nothing makes an administrator by the way.
            if i.name.eq_ignore_ascii_case("admin") {
                return Err(Error::forbidden(format!("{implied} cannot be an implied roles.")));
            }
            if p.domain_id.is_none() && i.domain_id.is_some() {
                return Err(Error::forbidden("Global role cannot imply a domain-specific role."));
            }
            if book.expand([implied.as_str()]).contains(&prior) {
                return Err(common::conflict(
                    "role_inference",
                    format!("{implied} already implies {prior}, and a circle is not permitted"),
                ));
            }
            tx.insert(&grant, &ImpliedRole::new(&prior, &implied)).await?;
            this.invalidate(tx).await?;
            Ok(pair(&base, p, i))
        })
        .await?;
    Ok(Reply::created(&doc))
}

/// DELETE /v3/roles/{role_id}/implies/{implied_id}
pub(crate) async fn unimply(app: Arc<Identity>, req: Req) -> Result<Reply> {
    let ctx = req.ctx()?.clone();
    let (prior, implied) = (req.param("role_id").to_owned(), req.param("implied_id").to_owned());
    let (this, asker) = (app.clone(), ctx.clone());
    app.db
        .write(&ctx.actor(), async move |tx| {
            asker.enforce("identity:delete_implied_role", &Target::default())?;
            let key = ImpliedRole::key(&prior, &implied);
            let Some(rule) = tx.find::<ImpliedRole>(&key).await? else {
                return Err(no_rule(&prior, &implied));
            };
            let rule = authorize(&asker, DeleteImpliedRole, rule, &key)?;
            this.invalidate(tx).await?;
            tx.delete(&rule).await
        })
        .await?;
    Ok(Reply::no_content())
}
