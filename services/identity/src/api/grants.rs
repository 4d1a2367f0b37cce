//! Role assignments by path: `/v3/{projects,domains,system}/.../{users,groups}/.../roles/...`, and the same
//! under `/v3/OS-INHERIT` for those that hold for the projects below (API reference: Identity API v3,
//! "System role assignments", "Roles", "OS-INHERIT").

use super::roles;
use crate::Identity;
use crate::logic::remove;
use crate::model::{ActorKind, Assignment, Domain, Group, Project, Role, TargetKind, User, missing};
use crate::policy::{
    CheckGrant, CheckSystemGrantForGroup, CheckSystemGrantForUser, CreateGrant, CreateSystemGrantForGroup,
    CreateSystemGrantForUser, RevokeGrant, RevokeSystemGrantForGroup, RevokeSystemGrantForUser,
};
use crate::store::RoleBook;
use haneul_auth::{Action, Ctx, Target, allow_create, authorize};
use haneul_core::{Error, Result};
use haneul_http::{Reply, Req};
use haneul_store::{Query, Tx};
use serde_json::{Value, json};
use std::sync::Arc;

/// What a path names.
#[derive(Clone)]
struct Named {
    actor: (ActorKind, String),
    target: (TargetKind, String),
    role: String,
    inherited: bool,
}

impl Named {
    fn of(req: &Req) -> Self {
        let id = |name: &str| Some(req.param(name).to_owned()).filter(|s| !s.is_empty());
        let actor = match id("user_id") {
            Some(u) => (ActorKind::User, u),
            None => (ActorKind::Group, id("group_id").unwrap_or_default()),
        };
        let target = match (id("project_id"), id("domain_id")) {
            (Some(p), _) => (TargetKind::Project, p),
            (None, Some(d)) => (TargetKind::Domain, d),
            (None, None) => (TargetKind::System, "all".to_owned()),
        };
        Self {
            actor,
            target,
            role: req.param("role_id").to_owned(),
            inherited: req.uri_path.starts_with("/v3/OS-INHERIT/"),
        }
    }

    fn assignment(&self) -> Assignment {
        Assignment::new(
            (self.actor.0, &self.actor.1),
            (self.target.0, &self.target.1),
            &self.role,
            self.inherited,
        )
    }

    fn is_system(&self) -> bool {
        self.target.0 == TargetKind::System
    }

    /// Actor, target and role for the rules, and the first of them that is not there. A missing part is left
    /// out of the target, so that only who may act on all is told that it is missing.
    async fn about(&self, tx: &mut Tx, with_role: bool) -> Result<(Target, Option<Error>)> {
        let mut about = Target::default();
        let mut lacks = None;
        let mut lack = |what: &str, id: &str| lacks = lacks.take().or_else(|| Some(missing(what, id)));
        let mut role_domain = None;
        if with_role {
            match tx.find::<Role>(&self.role).await? {
                Some(r) => {
                    about = about
                        .with("target.role.name", &r.name)
                        .with("target.role.domain_id", r.domain_id.as_deref().unwrap_or("None"));
                    role_domain.clone_from(&r.domain_id);
                }
                None => lack("role", &self.role),
            }
        }
        let id = self.actor.1.as_str();
        match self.actor.0 {
            ActorKind::User => match tx.find::<User>(id).await? {
                Some(u) => {
                    about = about
                        .with("target.user.id", &u.id)
                        .with("target.user.domain_id", &u.domain_id);
                }
                None => lack("user", id),
            },
            ActorKind::Group => match tx.find::<Group>(id).await? {
                Some(g) => about = about.with("target.group.domain_id", &g.domain_id),
                None => lack("group", id),
            },
        }
        let id = self.target.1.as_str();
        match self.target.0 {
            TargetKind::System => {}
            TargetKind::Domain => match tx.find::<Domain>(id).await? {
                Some(d) => about = about.with("target.domain.id", &d.id),
                None => lack("domain", id),
            },
            TargetKind::Project => match tx.find::<Project>(id).await? {
                Some(p) => {
                    about = about
                        .with("target.project.id", &p.id)
                        .with("target.project.domain_id", &p.domain_id);
                    if role_domain.as_ref().is_some_and(|d| *d != p.domain_id) {
                        lacks = lacks.take().or_else(|| {
                            Some(Error::forbidden(format!(
                                "Project {} must be in the same domain as the role {} being assigned.",
                                p.id, self.role
                            )))
                        });
                    }
                }
                None => lack("project", id),
            },
        }
        Ok((about, lacks))
    }

    fn not_assigned(&self) -> Error {
        Error::not_found(format!(
            "Could not find role assignment with role: {}, user or group: {}, project, domain, or system: {}.",
            self.role, self.actor.1, self.target.1
        ))
    }
}

/// The assignment under the rule of `A`, or why not.
async fn find<A: Action<On = Assignment>>(
    tx: &mut Tx,
    ctx: &Ctx,
    action: A,
    named: &Named,
) -> Result<haneul_auth::Authorized<Assignment, A>> {
    let (about, lacks) = named.about(tx, true).await?;
    ctx.enforce(A::RULE, &about)?;
    if let Some(e) = lacks {
        return Err(e);
    }
    let id = named.assignment().id;
    let mut stored = tx.find::<Assignment>(&id).await?.ok_or_else(|| named.not_assigned())?;
    stored.value.about = about;
    authorize(ctx, action, stored, &id)
}

/// GET and HEAD .../roles/{role_id}
pub(crate) async fn check(app: Arc<Identity>, req: Req) -> Result<Reply> {
    let (ctx, named) = (req.ctx()?.clone(), Named::of(&req));
    drop(req);
    let mut tx = app.db.read().await?;
    match (named.is_system(), named.actor.0) {
        (false, _) => find(&mut tx, &ctx, CheckGrant, &named).await.map(|_| ())?,
        (true, ActorKind::User) => find(&mut tx, &ctx, CheckSystemGrantForUser, &named).await.map(|_| ())?,
        (true, ActorKind::Group) => find(&mut tx, &ctx, CheckSystemGrantForGroup, &named)
            .await
            .map(|_| ())?,
    }
    Ok(Reply::no_content())
}

async fn give<A: Action<On = Assignment>>(
    app: &Identity,
    tx: &mut Tx,
    ctx: &Ctx,
    action: A,
    named: &Named,
) -> Result<()> {
    let (about, lacks) = named.about(tx, true).await?;
    let grant = allow_create(ctx, action, &about)?;
    if let Some(e) = lacks {
        return Err(e);
    }
    // Given already: nothing to do, and no error.
    if tx.insert(&grant, &named.assignment()).await?.is_some() {
        app.invalidate(tx).await?;
    }
    Ok(())
}

/// PUT .../roles/{role_id}
pub(crate) async fn create(app: Arc<Identity>, req: Req) -> Result<Reply> {
    let (ctx, named) = (req.ctx()?.clone(), Named::of(&req));
    let (this, asker) = (app.clone(), ctx.clone());
    app.db
        .write(&ctx.actor(), async move |tx| match (named.is_system(), named.actor.0) {
            (false, _) => give(&this, tx, &asker, CreateGrant, &named).await,
            (true, ActorKind::User) => give(&this, tx, &asker, CreateSystemGrantForUser, &named).await,
            (true, ActorKind::Group) => give(&this, tx, &asker, CreateSystemGrantForGroup, &named).await,
        })
        .await?;
    Ok(Reply::no_content())
}

async fn take<A: Action<On = Assignment>>(
    app: &Identity,
    tx: &mut Tx,
    ctx: &Ctx,
    action: A,
    named: &Named,
) -> Result<()> {
    let found = find(tx, ctx, action, named).await?;
    if let (ActorKind::User, TargetKind::Project) = (named.actor.0, named.target.0) {
        remove::app_creds_on(tx, &named.actor.1, &named.target.1).await?;
    }
    app.invalidate(tx).await?;
    tx.delete(&found).await
}

/// DELETE .../roles/{role_id}
pub(crate) async fn revoke(app: Arc<Identity>, req: Req) -> Result<Reply> {
    let (ctx, named) = (req.ctx()?.clone(), Named::of(&req));
    let (this, asker) = (app.clone(), ctx.clone());
    app.db
        .write(&ctx.actor(), async move |tx| match (named.is_system(), named.actor.0) {
            (false, _) => take(&this, tx, &asker, RevokeGrant, &named).await,
            (true, ActorKind::User) => take(&this, tx, &asker, RevokeSystemGrantForUser, &named).await,
            (true, ActorKind::Group) => take(&this, tx, &asker, RevokeSystemGrantForGroup, &named).await,
        })
        .await?;
    Ok(Reply::no_content())
}

/// GET .../roles
pub(crate) async fn list(app: Arc<Identity>, req: Req) -> Result<Reply> {
    let (ctx, named) = (req.ctx()?.clone(), Named::of(&req));
    let (base, path) = (req.base.clone(), req.uri_path.clone());
    drop(req);
    let rule = match (named.is_system(), named.actor.0) {
        (false, _) => "identity:list_grants",
        (true, ActorKind::User) => "identity:list_system_grants_for_user",
        (true, ActorKind::Group) => "identity:list_system_grants_for_group",
    };
    let mut tx = app.db.read().await?;
    let (about, lacks) = named.about(&mut tx, false).await?;
    ctx.enforce(rule, &about)?;
    if let Some(e) = lacks {
        return Err(e);
    }
    let query = Query::new()
        .eq("actor_kind", named.actor.0.as_str())
        .eq("actor_id", named.actor.1.as_str())
        .eq("target_kind", named.target.0.as_str())
        .eq("target_id", named.target.1.as_str())
        .eq("inherited", named.inherited);
    let book = RoleBook::load(&mut tx).await?;
    let rows: Vec<Value> = tx
        .list::<Assignment>(&query)
        .await?
        .iter()
        .filter_map(|a| book.roles.get(&a.role_id))
        .map(|r| roles::show_view(&base, r))
        .collect();
    Ok(Reply::ok(&json!({
        "roles": rows,
        "links": {"next": null, "previous": null, "self": format!("{base}{path}")},
    })))
}
