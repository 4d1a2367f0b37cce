//! /v3/projects (API reference: Identity API v3, "Projects"). A domain shows itself here as a project with
//! `is_domain`.

use super::common::{self, ID, Kind, Listing, NAME64, OPTIONS, TAGS, TEXT, Take};
use super::domains;
use crate::Identity;
use crate::logic::limits::STRICT;
use crate::logic::remove;
use crate::model::{Domain, Project, TargetKind, missing};
use crate::policy::{
    CreateDomain, CreateProject, DeleteProject, GetDomain, GetProject, ListUserProjects, UpdateProject,
};
use crate::store::{parents, project_by_name, revoke, subtree, targets_of};
use haneul_auth::{Secured, Target, allow_create, fetch};
use haneul_core::{Error, Result, id};
use haneul_http::request::parse_bool;
use haneul_http::{Body, Reply, Req, f};
use haneul_store::{Query, Stored, Tx};
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// Levels below the domain (keystone.conf `max_project_tree_depth`).
const MAX_DEPTH: usize = 5;

static CREATE: Body = Body {
    open: true,
    fields: &[
        f("name", NAME64).req(),
        f("domain_id", ID).null(),
        f("parent_id", ID).null(),
        f("is_domain", common::STRICT_BOOL),
        f("description", TEXT).null(),
        f("enabled", common::STRICT_BOOL),
        f("tags", TAGS),
        f("options", OPTIONS),
    ],
};
static UPDATE: Body = Body {
    open: true,
    fields: &[
        f("name", NAME64),
        f("domain_id", ID).null(),
        f("parent_id", ID).null(),
        f("is_domain", common::STRICT_BOOL),
        f("description", TEXT).null(),
        f("enabled", common::STRICT_BOOL),
        f("tags", TAGS),
        f("options", OPTIONS),
    ],
};

pub(crate) fn show_view(base: &str, p: &Project) -> Value {
    let mut doc = common::view(base, "projects", p);
    common::put(&mut doc, "is_domain", false.into());
    doc
}

/// A domain as a project.
fn domain_view(base: &str, d: &Domain) -> Value {
    let mut doc = common::view(base, "projects", d);
    common::put(&mut doc, "is_domain", true.into());
    common::put(&mut doc, "domain_id", Value::Null);
    common::put(&mut doc, "parent_id", Value::Null);
    doc
}

const FILTERS: &[(&str, Kind)] = &[
    ("name", Kind::Column),
    ("domain_id", Kind::Column),
    ("parent_id", Kind::Column),
    ("enabled", Kind::Flag),
    ("description", Kind::Member),
];

/// The four filters by tags: all of, any of, and their opposites.
struct TagFilter(Vec<(&'static str, Vec<String>)>);

impl TagFilter {
    fn of(req: &Req) -> Self {
        Self(
            ["tags", "tags-any", "not-tags", "not-tags-any"]
                .into_iter()
                .filter_map(|name| {
                    let list = req.q(name)?.split(',').map(str::to_owned).collect();
                    Some((name, list))
                })
                .collect(),
        )
    }
    fn keeps(&self, tags: &[String]) -> bool {
        self.0.iter().all(|(name, list)| {
            let all = list.iter().all(|t| tags.contains(t));
            let any = list.iter().any(|t| tags.contains(t));
            match *name {
                "tags" => all,
                "tags-any" => any,
                "not-tags" => !all,
                _ => !any,
            }
        })
    }
}

/// GET /v3/projects
pub(crate) async fn list(app: Arc<Identity>, req: Req) -> Result<Reply> {
    let ctx = req.ctx()?.clone();
    ctx.enforce("identity:list_projects", &common::list_target(&ctx))?;
    let listing = Listing::of(&req, FILTERS)?;
    let tags = TagFilter::of(&req);
    let base = listing.base.clone();
    let is_domain = req.q("is_domain").map(|v| v.is_empty() || parse_bool(v) == Some(true));
    drop(req);
    let mut tx = app.db.read().await?;
    if is_domain == Some(true) {
        let mut query = Query::new();
        if let Some(own) = ctx.domain_scope() {
            query = query.eq("id", own);
        }
        if listing.filters_by(&["domain_id", "parent_id"]) {
            // A domain is in none and below nothing.
            return Ok(listing.reply("projects", vec![]));
        }
        let rows = listing
            .run::<Domain>(&mut tx, query, Some(&|d| tags.keeps(&d.tags)), &|d| {
                domain_view(&base, d)
            })
            .await?;
        return Ok(listing.reply("projects", rows));
    }
    let mut query = Query::new();
    if let Some(own) = ctx.domain_scope() {
        query = query.eq("domain_id", own);
    }
    let by_tags = |p: &Project| tags.keeps(&p.tags);
    let keep: Option<&(dyn Fn(&Project) -> bool + Sync)> = if tags.0.is_empty() { None } else { Some(&by_tags) };
    let rows = listing
        .run::<Project>(&mut tx, query, keep, &|p| show_view(&base, p))
        .await?;
    Ok(listing.reply("projects", rows))
}

/// GET /v3/users/{user_id}/projects
pub(crate) async fn list_of_user(app: Arc<Identity>, req: Req) -> Result<Reply> {
    let (ctx, user) = (req.ctx()?.clone(), req.param("user_id").to_owned());
    let listing = Listing::of(&req, FILTERS)?;
    drop(req);
    let mut tx = app.db.read().await?;
    let user = fetch(&mut tx, &ctx, ListUserProjects, &user).await?;
    let ids = targets_of(&mut tx, &user.id, TargetKind::Project).await?;
    let base = listing.base.clone();
    let rows = listing
        .run::<Project>(&mut tx, Query::new().is_in("id", ids), None, &|p| show_view(&base, p))
        .await?;
    Ok(listing.reply("projects", rows))
}

/// GET /v3/projects/{project_id}, with `parents_as_list`, `parents_as_ids`, `subtree_as_list`,
/// `subtree_as_ids`.
pub(crate) async fn show(app: Arc<Identity>, req: Req) -> Result<Reply> {
    let (ctx, id, base) = (req.ctx()?.clone(), req.param("project_id").to_owned(), req.base.clone());
    let [up_list, up_ids, down_list, down_ids] =
        ["parents_as_list", "parents_as_ids", "subtree_as_list", "subtree_as_ids"]
            .map(|name| req.q(name).is_some_and(|v| v != "0"));
    if up_list && up_ids {
        return Err(Error::field(
            "parents_as_list",
            "Cannot use parents_as_list and parents_as_ids query params at the same time.",
        ));
    }
    if down_list && down_ids {
        return Err(Error::field(
            "subtree_as_list",
            "Cannot use subtree_as_list and subtree_as_ids query params at the same time.",
        ));
    }
    drop(req);
    let mut tx = app.db.read().await?;
    if tx.find::<Domain>(&id).await?.is_some() {
        let domain = fetch(&mut tx, &ctx, GetDomain, &id).await?;
        return Ok(Reply::ok(&json!({"project": domain_view(&base, &domain)})));
    }
    let project = fetch(&mut tx, &ctx, GetProject, &id).await?;
    let mut doc = show_view(&base, &project);
    // Relatives are listed as far as the caller may see them.
    let seen = |p: &Project| ctx.may("identity:get_project", &p.target());
    if up_list || up_ids {
        let above = parents(&mut tx, &project).await?;
        if up_list {
            let list: Vec<Value> = above
                .iter()
                .filter(|p| seen(p))
                .map(|p| json!({"project": show_view(&base, p)}))
                .collect();
            common::put(&mut doc, "parents", list.into());
        } else {
            let mut ids = json!({ project.domain_id.clone(): null });
            for p in above.iter().rev() {
                ids = json!({ p.id.clone(): ids });
            }
            common::put(&mut doc, "parents", ids);
        }
    }
    if down_list || down_ids {
        let below = subtree(&mut tx, &id).await?;
        if down_list {
            let list: Vec<Value> = below
                .iter()
                .filter(|p| seen(p))
                .map(|p| json!({"project": show_view(&base, p)}))
                .collect();
            common::put(&mut doc, "subtree", list.into());
        } else {
            common::put(&mut doc, "subtree", ids_below(&id, &below));
        }
    }
    Ok(Reply::ok(&json!({"project": doc})))
}

fn ids_below(id: &str, all: &[Stored<Project>]) -> Value {
    let map: Map<String, Value> = all
        .iter()
        .filter(|p| p.parent_id == id)
        .map(|p| (p.id.clone(), ids_below(&p.id, all)))
        .collect();
    if map.is_empty() { Value::Null } else { map.into() }
}

fn clash(p: &Project) -> Error {
    common::conflict(
        "project",
        format!(
            "it is not permitted to have two projects with either the same name or same id in the same domain: name is {}, project id {}",
            p.name, p.id
        ),
    )
}

/// POST /v3/projects
pub(crate) async fn create(app: Arc<Identity>, mut req: Req) -> Result<Reply> {
    let ctx = req.ctx()?.clone();
    let mut body = common::body(&mut req, "project", &CREATE).await?;
    let base = req.base.clone();
    let parent_id = body.text("parent_id");
    if body.flag("is_domain") == Some(true) {
        return create_domain(app, &ctx, body, parent_id, &base).await;
    }
    let project = Project {
        id: id::hex(),
        name: body.text("name").unwrap_or_default().trim().to_owned(),
        domain_id: body.text("domain_id").unwrap_or_default(),
        parent_id: parent_id.unwrap_or_default(),
        description: body.nullable("description").unwrap_or_else(|| Some(String::new())),
        enabled: body.flag("enabled").unwrap_or(true),
        tags: body.texts("tags").unwrap_or_default(),
        options: common::new_options(&mut body),
        extra: body.rest(),
    };
    // keystone/limit/models/strict_two_level.py: the domain is the first level.
    let deepest = match app.config.limit_model == STRICT {
        true => 1,
        false => MAX_DEPTH,
    };
    let asker = ctx.clone();
    let made = app
        .db
        .write(&ctx.actor(), async move |tx| {
            let mut project = project.clone();
            place(tx, &mut project, &common::own_domain(&asker)).await?;
            let grant = allow_create(&asker, CreateProject, &project.target())?;
            check_place(tx, &project, deepest).await?;
            tx.insert(&grant, &project).await?.ok_or_else(|| clash(&project))
        })
        .await?;
    Ok(Reply::created(&json!({"project": show_view(&base, &made)})))
}

async fn create_domain(
    app: Arc<Identity>,
    ctx: &haneul_auth::Ctx,
    body: Map<String, Value>,
    parent: Option<String>,
    base: &str,
) -> Result<Reply> {
    if parent.is_some() || body.get("domain_id").is_some_and(|d| !d.is_null()) {
        return Err(Error::field(
            "project.parent_id",
            "only root projects are allowed to act as domains: leave parent_id and domain_id out.",
        ));
    }
    let domain = domains::from_body(body);
    let asker = ctx.clone();
    let made = app
        .db
        .write(&ctx.actor(), async move |tx| {
            let grant = allow_create(&asker, CreateDomain, &Target::default())?;
            tx.insert(&grant, &domain).await?.ok_or_else(|| domains::clash(&domain))
        })
        .await?;
    Ok(Reply::created(&json!({"project": domain_view(base, &made)})))
}

/// Fills in domain and parent where the body has none: the parent's domain, the domain as the parent, the
/// caller's own domain.
async fn place(tx: &mut Tx, p: &mut Project, own: &str) -> Result<()> {
    if p.domain_id.is_empty() {
        p.domain_id = if p.parent_id.is_empty() {
            own.to_owned()
        } else if let Some(parent) = tx.find::<Project>(&p.parent_id).await? {
            parent.domain_id.clone()
        } else {
            p.parent_id.clone()
        };
    }
    if p.parent_id.is_empty() {
        p.parent_id.clone_from(&p.domain_id);
    }
    Ok(())
}

/// Keystone's rules for where a project may stand (keystone/resource/core.py).
async fn check_place(tx: &mut Tx, p: &Project, deepest: usize) -> Result<()> {
    let Some(domain) = tx.find::<Domain>(&p.domain_id).await? else {
        // As Keystone: a parent that is missing is told as the project that it would be.
        let what = if p.parent_id == p.domain_id {
            "domain"
        } else {
            "project"
        };
        return Err(missing(what, &p.domain_id).with_field("project.domain_id"));
    };
    let mut branch = vec![(domain.id.clone(), domain.enabled)];
    if p.parent_id != p.domain_id {
        let parent = match tx.find::<Project>(&p.parent_id).await? {
            Some(parent) => parent,
            None if tx.find::<Domain>(&p.parent_id).await?.is_some() => {
                return Err(Error::field(
                    "project.parent_id",
                    format!(
                        "Cannot create project, the parent ({}) is acting as a domain, but this project's domain id ({}) does not match the parent's id.",
                        p.parent_id, p.domain_id
                    ),
                ));
            }
            None => return Err(missing("project", &p.parent_id).with_field("project.parent_id")),
        };
        if parent.domain_id != p.domain_id {
            return Err(Error::field(
                "project.parent_id",
                format!(
                    "Cannot create project, since it specifies its domain_id {}, but specifies a parent (parent_id) in a different domain ({}).",
                    p.domain_id, parent.domain_id
                ),
            ));
        }
        let above = parents(tx, &parent).await?;
        if above.len() + 2 > deepest {
            return Err(Error::forbidden(format!(
                "Max hierarchy depth reached for {} branch: the parent (parent_id) stands on level {}, and {deepest} are allowed.",
                p.parent_id,
                above.len() + 1
            )));
        }
        branch.push((parent.id.clone(), parent.enabled));
        branch.extend(above.iter().map(|a| (a.id.clone(), a.enabled)));
    }
    if let Some((id, _)) = branch.iter().find(|(_, enabled)| !enabled) {
        return Err(Error::field(
            "project.parent_id",
            format!("cannot create a project in a branch containing a disabled project: {id} (parent_id)"),
        ));
    }
    Ok(())
}

/// PATCH /v3/projects/{project_id}
pub(crate) async fn update(app: Arc<Identity>, mut req: Req) -> Result<Reply> {
    let ctx = req.ctx()?.clone();
    let id = req.param("project_id").to_owned();
    let body = common::body(&mut req, "project", &UPDATE).await?;
    common::check_change(&body, &id, "project")?;
    let base = req.base.clone();
    if app.db.read().await?.find::<Domain>(&id).await?.is_some() {
        if body.get("is_domain").and_then(haneul_http::fields::boolean) == Some(false) {
            return Err(Error::field(
                "project.is_domain",
                "Update of `is_domain` is not allowed.",
            ));
        }
        let now = domains::apply(&app, &ctx, id, body).await?;
        return Ok(Reply::ok(&json!({"project": domain_view(&base, &now)})));
    }
    let (this, asker) = (app.clone(), ctx.clone());
    let now = app
        .db
        .write(&ctx.actor(), async move |tx| {
            let found = fetch(tx, &asker, UpdateProject, &id).await?;
            common::same_domain(&body, &found.domain_id, "project")?;
            common::check_immutable(&found.options, &body, "project", &id)?;
            let mut body = body.clone();
            let mut value = found.edit();
            if body
                .nullable("parent_id")
                .is_some_and(|p| p.as_deref() != Some(found.parent_id.as_str()))
            {
                return Err(Error::forbidden("Update of `parent_id` is not allowed.").with_field("project.parent_id"));
            }
            if body.flag("is_domain") == Some(true) {
                return Err(Error::field(
                    "project.is_domain",
                    "Update of `is_domain` is not allowed.",
                ));
            }
            if let Some(name) = body.text("name").map(|n| n.trim().to_owned()) {
                if project_by_name(tx, &found.domain_id, &name)
                    .await?
                    .is_some_and(|p| p.id != id)
                {
                    return Err(clash(&Project { name, ..value }));
                }
                value.name = name;
            }
            if let Some(d) = body.nullable("description") {
                value.description = d;
            }
            if let Some(e) = body.flag("enabled") {
                value.enabled = e;
            }
            if let Some(t) = body.texts("tags") {
                value.tags = t;
            }
            if let Some(o) = body.object("options") {
                common::merge_options(&mut value.options, o);
            }
            value.extra.extend(body.rest());
            if value.enabled && !found.enabled && parents(tx, &found).await?.iter().any(|p| !p.enabled) {
                return Err(Error::forbidden(format!(
                    "Cannot enable project {id} since it has disabled parents."
                )));
            }
            if found.enabled && !value.enabled {
                if subtree(tx, &id).await?.iter().any(|p| p.enabled) {
                    return Err(Error::forbidden(format!(
                        "Cannot disable project {id} since its subtree contains enabled projects."
                    )));
                }
                revoke(tx, "project", &id, this.config.token_seconds).await?;
            }
            this.invalidate(tx).await?;
            tx.update(&found, &value).await
        })
        .await?;
    Ok(Reply::ok(&json!({"project": show_view(&base, &now)})))
}

/// DELETE /v3/projects/{project_id}
pub(crate) async fn delete(app: Arc<Identity>, req: Req) -> Result<Reply> {
    let ctx = req.ctx()?.clone();
    let id = req.param("project_id").to_owned();
    drop(req);
    if app.db.read().await?.find::<Domain>(&id).await?.is_some() {
        return domains::remove_one(&app, &ctx, id).await;
    }
    let (this, asker) = (app.clone(), ctx.clone());
    app.db
        .write(&ctx.actor(), async move |tx| {
            let found = fetch(tx, &asker, DeleteProject, &id).await?;
            common::check_deletable(&found.options, "project", &id)?;
            if tx.count::<Project>(&Query::new().eq("parent_id", id.as_str())).await? > 0 {
                return Err(Error::forbidden(format!(
                    "Cannot delete the project {id} since it is not a leaf in the hierarchy. Delete the projects below it first."
                )));
            }
            remove::project_parts(tx, &id).await?;
            this.invalidate(tx).await?;
            tx.delete(&found).await
        })
        .await?;
    Ok(Reply::no_content())
}
