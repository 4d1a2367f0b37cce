//! /v3/OS-EP-FILTER (API reference: Identity API v3 extensions, "OS-EP-FILTER"): which endpoints the catalog of a
//! project shows. A project with no filter sees all, as Keystone's default is.

use super::catalog::endpoint_view;
use super::common::{self, Kind, Listing, NAME, TEXT, Take};
use super::projects;
use crate::Identity;
use crate::logic::catalog::{Filters, in_group};
use crate::logic::remove;
use crate::model::{Endpoint, EndpointFilter, EndpointGroup, Project, missing};
use crate::policy::{
    AddEndpointFilter, AddGroupFilter, CreateEndpointGroup, DeleteEndpointGroup, GetEndpointGroup,
    RemoveEndpointFilter, RemoveGroupFilter, UpdateEndpointGroup,
};
use haneul_auth::{Target, allow_create, authorize, fetch};
use haneul_core::{Error, Result, id};
use haneul_http::{Body, FieldKind, Reply, Req, f};
use haneul_store::{Query, Tx};
use serde_json::{Value, json};
use std::sync::Arc;

const PATH: &str = "OS-EP-FILTER/endpoint_groups";
static FILTERS: Body = Body {
    open: false,
    fields: &[
        f("service_id", TEXT),
        f("region_id", TEXT),
        f("interface", FieldKind::OneOf(&["admin", "internal", "public"])),
    ],
};
static CREATE: Body = Body {
    open: false,
    fields: &[
        f("name", NAME).req(),
        f("description", TEXT).null(),
        f("filters", FieldKind::Obj(&FILTERS)).req(),
    ],
};
static UPDATE: Body = Body {
    open: false,
    fields: &[
        f("id", TEXT),
        f("name", NAME),
        f("description", TEXT).null(),
        f("filters", FieldKind::Obj(&FILTERS)),
    ],
};

fn view(base: &str, g: &EndpointGroup) -> Value {
    common::view(base, PATH, g)
}

/// GET /v3/OS-EP-FILTER/endpoint_groups
pub(crate) async fn groups(app: Arc<Identity>, req: Req) -> Result<Reply> {
    req.ctx()?
        .enforce("identity:list_endpoint_groups", &Target::default())?;
    let listing = Listing::of(&req, &[("name", Kind::Column)])?;
    drop(req);
    let base = listing.base.clone();
    let mut tx = app.db.read().await?;
    let rows = listing
        .run::<EndpointGroup>(&mut tx, Query::new(), None, &|g| view(&base, g))
        .await?;
    Ok(listing.reply("endpoint_groups", rows))
}

fn group_id(req: &Req) -> String {
    req.param("endpoint_group_id").to_owned()
}

/// GET and HEAD /v3/OS-EP-FILTER/endpoint_groups/{endpoint_group_id}
pub(crate) async fn group(app: Arc<Identity>, req: Req) -> Result<Reply> {
    let (ctx, id, base) = (req.ctx()?.clone(), group_id(&req), req.base.clone());
    let found = fetch(&mut app.db.read().await?, &ctx, GetEndpointGroup, &id).await?;
    Ok(Reply::ok(&json!({"endpoint_group": view(&base, &found)})))
}

/// POST /v3/OS-EP-FILTER/endpoint_groups
pub(crate) async fn create_group(app: Arc<Identity>, mut req: Req) -> Result<Reply> {
    let (ctx, base) = (req.ctx()?.clone(), req.base.clone());
    ctx.enforce("identity:create_endpoint_group", &Target::default())?;
    let mut body = common::body(&mut req, "endpoint_group", &CREATE).await?;
    let group = EndpointGroup {
        id: id::hex(),
        name: body.text("name").unwrap_or_default(),
        description: body.text("description"),
        filters: body.object("filters").unwrap_or_default(),
    };
    let asker = ctx.clone();
    let made = app
        .db
        .write(&ctx.actor(), async move |tx| {
            let grant = allow_create(&asker, CreateEndpointGroup, &Target::default())?;
            tx.insert(&grant, &group)
                .await?
                .ok_or_else(|| Error::internal("a new endpoint group's id is taken"))
        })
        .await?;
    Ok(Reply::created(&json!({"endpoint_group": view(&base, &made)})))
}

/// PATCH /v3/OS-EP-FILTER/endpoint_groups/{endpoint_group_id}
pub(crate) async fn update_group(app: Arc<Identity>, mut req: Req) -> Result<Reply> {
    let (ctx, id, base) = (req.ctx()?.clone(), group_id(&req), req.base.clone());
    let body = common::body(&mut req, "endpoint_group", &UPDATE).await?;
    common::check_change(&body, &id, "endpoint group")?;
    let (this, asker) = (app.clone(), ctx.clone());
    let now = app
        .db
        .write(&ctx.actor(), async move |tx| {
            let found = fetch(tx, &asker, UpdateEndpointGroup, &id).await?;
            let (mut body, mut value) = (body.clone(), found.edit());
            if let Some(name) = body.text("name") {
                value.name = name;
            }
            if let Some(d) = body.nullable("description") {
                value.description = d;
            }
            if let Some(filters) = body.object("filters") {
                value.filters = filters;
            }
            this.invalidate(tx).await?;
            tx.update(&found, &value).await
        })
        .await?;
    Ok(Reply::ok(&json!({"endpoint_group": view(&base, &now)})))
}

/// DELETE /v3/OS-EP-FILTER/endpoint_groups/{endpoint_group_id}
pub(crate) async fn delete_group(app: Arc<Identity>, req: Req) -> Result<Reply> {
    let (ctx, id) = (req.ctx()?.clone(), group_id(&req));
    common::delete(
        app,
        &ctx,
        id,
        DeleteEndpointGroup,
        async |tx: &mut Tx, e: &EndpointGroup| remove::filters(tx, "target_id", &e.id).await,
    )
    .await
}

/// What a path is about: its project, the kind of its filter, and the endpoint or group.
fn named(req: &Req) -> (String, &'static str, String) {
    let project = req.param("project_id").to_owned();
    match req.param("endpoint_id") {
        "" => (project, "group", group_id(req)),
        e => (project, "endpoint", e.to_owned()),
    }
}

async fn check_parts(tx: &mut Tx, project: &str, kind: &str, target: &str) -> Result<()> {
    if tx.find::<Project>(project).await?.is_none() {
        return Err(missing("project", project));
    }
    match kind {
        "group" if tx.find::<EndpointGroup>(target).await?.is_none() => Err(missing("Endpoint Group", target)),
        "endpoint" if tx.find::<Endpoint>(target).await?.is_none() => Err(missing("endpoint", target)),
        _ => Ok(()),
    }
}

fn not_associated(project: &str, target: &str) -> Error {
    Error::not_found(format!(
        "Could not find an association of {target} with project {project}."
    ))
}

/// PUT .../projects/{project_id}/endpoints/{endpoint_id}, .../endpoint_groups/{endpoint_group_id}/projects/{project_id}
pub(crate) async fn add(app: Arc<Identity>, req: Req) -> Result<Reply> {
    let (ctx, (project, kind, target)) = (req.ctx()?.clone(), named(&req));
    let (this, asker) = (app.clone(), ctx.clone());
    app.db
        .write(&ctx.actor(), async move |tx| {
            let filter = EndpointFilter::new(&project, kind, &target);
            let grant = match kind {
                "group" => allow_create(&asker, AddGroupFilter, &Target::default())?,
                _ => allow_create(&asker, AddEndpointFilter, &Target::default())?,
            };
            check_parts(tx, &project, kind, &target).await?;
            if tx.find::<EndpointFilter>(&filter.id).await?.is_none() {
                this.invalidate(tx).await?;
                tx.insert(&grant, &filter).await?;
            }
            Ok(())
        })
        .await?;
    Ok(Reply::no_content())
}

/// GET and HEAD of the same.
pub(crate) async fn check(app: Arc<Identity>, req: Req) -> Result<Reply> {
    let (ctx, (project, kind, target), base) = (req.ctx()?.clone(), named(&req), req.base.clone());
    ctx.enforce(
        match kind {
            "group" => "identity:get_endpoint_group_in_project",
            _ => "identity:check_endpoint_in_project",
        },
        &Target::default(),
    )?;
    drop(req);
    let mut tx = app.db.read().await?;
    check_parts(&mut tx, &project, kind, &target).await?;
    let filter = EndpointFilter::new(&project, kind, &target);
    if tx.find::<EndpointFilter>(&filter.id).await?.is_none() {
        return Err(not_associated(&project, &target));
    }
    if kind == "endpoint" {
        return Ok(Reply::no_content());
    }
    let link = format!("{base}/v3/{PATH}/{target}/projects/{project}");
    Ok(Reply::ok(&json!({"project_endpoint_group":
        {"endpoint_group_id": target, "project_id": project, "links": {"self": link}}})))
}

/// DELETE of the same.
pub(crate) async fn unlink(app: Arc<Identity>, req: Req) -> Result<Reply> {
    let (ctx, (project, kind, target)) = (req.ctx()?.clone(), named(&req));
    let (this, asker) = (app.clone(), ctx.clone());
    app.db
        .write(&ctx.actor(), async move |tx| {
            asker.enforce(
                match kind {
                    "group" => "identity:remove_endpoint_group_from_project",
                    _ => "identity:remove_endpoint_from_project",
                },
                &Target::default(),
            )?;
            check_parts(tx, &project, kind, &target).await?;
            let key = EndpointFilter::new(&project, kind, &target).id;
            let Some(found) = tx.find::<EndpointFilter>(&key).await? else {
                return Err(not_associated(&project, &target));
            };
            this.invalidate(tx).await?;
            match kind {
                "group" => tx.delete(&authorize(&asker, RemoveGroupFilter, found, &key)?).await,
                _ => tx.delete(&authorize(&asker, RemoveEndpointFilter, found, &key)?).await,
            }
        })
        .await?;
    Ok(Reply::no_content())
}

fn listed(req_base: &str, path: &str, name: &str, rows: Vec<Value>) -> Reply {
    Reply::ok(&json!({ name: rows, "links": {"self": format!("{req_base}{path}"), "next": null, "previous": null} }))
}

/// GET .../endpoints/{endpoint_id}/projects, .../endpoint_groups/{endpoint_group_id}/projects
pub(crate) async fn projects_of(app: Arc<Identity>, req: Req) -> Result<Reply> {
    let (ctx, (_, kind, target)) = (req.ctx()?.clone(), named(&req));
    let (base, path) = (req.base.clone(), req.uri_path.clone());
    ctx.enforce(
        match kind {
            "group" => "identity:list_projects_associated_with_endpoint_group",
            _ => "identity:list_projects_for_endpoint",
        },
        &Target::default(),
    )?;
    drop(req);
    let mut tx = app.db.read().await?;
    let there = match kind {
        "group" => tx.find::<EndpointGroup>(&target).await?.is_some(),
        _ => tx.find::<Endpoint>(&target).await?.is_some(),
    };
    if !there {
        return Err(missing(
            if kind == "group" { "Endpoint Group" } else { "endpoint" },
            &target,
        ));
    }
    let mut rows = Vec::new();
    for f in tx
        .list::<EndpointFilter>(&Query::new().eq("target_id", target.as_str()))
        .await?
    {
        if let Some(p) = tx.find::<Project>(&f.project_id).await? {
            rows.push(projects::show_view(&base, &p));
        }
    }
    Ok(listed(&base, &path, "projects", rows))
}

/// GET .../endpoint_groups/{endpoint_group_id}/endpoints
pub(crate) async fn endpoints_of_group(app: Arc<Identity>, req: Req) -> Result<Reply> {
    let (ctx, id) = (req.ctx()?.clone(), group_id(&req));
    let (base, path) = (req.base.clone(), req.uri_path.clone());
    ctx.enforce(
        "identity:list_endpoints_associated_with_endpoint_group",
        &Target::default(),
    )?;
    drop(req);
    let mut tx = app.db.read().await?;
    let group = tx
        .find::<EndpointGroup>(&id)
        .await?
        .ok_or_else(|| missing("Endpoint Group", &id))?;
    let all = tx.list::<Endpoint>(&Query::new()).await?;
    let rows = all
        .iter()
        .filter(|e| in_group(e, &group))
        .map(|e| endpoint_view(&base, e));
    Ok(listed(&base, &path, "endpoints", rows.collect()))
}

/// GET .../projects/{project_id}/endpoints and .../projects/{project_id}/endpoint_groups
pub(crate) async fn of_project(app: Arc<Identity>, req: Req) -> Result<Reply> {
    let (ctx, project) = (req.ctx()?.clone(), req.param("project_id").to_owned());
    let (base, path) = (req.base.clone(), req.uri_path.clone());
    let of_groups = path.ends_with("/endpoint_groups");
    ctx.enforce(
        match of_groups {
            true => "identity:list_endpoint_groups_for_project",
            false => "identity:list_endpoints_for_project",
        },
        &Target::default(),
    )?;
    drop(req);
    let mut tx = app.db.read().await?;
    if tx.find::<Project>(&project).await?.is_none() {
        return Err(missing("project", &project));
    }
    if !of_groups {
        let filters = Filters::of(&mut tx, &project).await?;
        let all = tx.list::<Endpoint>(&Query::new()).await?;
        let rows = all.iter().filter(|e| filters.names(e)).map(|e| endpoint_view(&base, e));
        return Ok(listed(&base, &path, "endpoints", rows.collect()));
    }
    let mut rows = Vec::new();
    for f in tx
        .list::<EndpointFilter>(&Query::new().eq("project_id", project.as_str()))
        .await?
    {
        if let Some(g) = tx.find::<EndpointGroup>(&f.target_id).await? {
            rows.push(view(&base, &g));
        }
    }
    Ok(listed(&base, &path, "endpoint_groups", rows))
}
