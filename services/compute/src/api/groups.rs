//! Server groups (Nova API reference, "Server groups (os-server-groups)").

use super::input::{self, check_query, limited};
use crate::Compute;
use crate::model::{Server, ServerGroup};
use crate::policy::{self, acts};
use haneul_auth::{Action, Target, allow_create, fetch};
use haneul_core::{Error, Kind, Result, id};
use haneul_http::{Body, FieldKind as K, Reply, Req, Ver, f};
use haneul_store::{Dir, Query, Tx};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;

const OLD: K = K::OneOf(&["anti-affinity", "affinity"]);
const NEW: K = K::OneOf(&["anti-affinity", "affinity", "soft-anti-affinity", "soft-affinity"]);
static RULES: Body = Body {
    open: false,
    fields: &[f(
        "max_server_per_host",
        K::Int {
            min: 1,
            max: i32::MAX as i64,
        },
    )],
};
static CREATE: Body = Body {
    open: false,
    fields: &[
        f("name", K::Name).req(),
        f("policies", K::List { of: &OLD, max: 1 }).req().until(2, 14),
        f("policies", K::List { of: &NEW, max: 1 })
            .req()
            .since(2, 15)
            .until(2, 63),
        f("policy", NEW).req().since(2, 64),
        f("rules", K::Obj(&RULES)).since(2, 64),
    ],
};

fn view(g: &ServerGroup, members: &[String], v: Ver) -> Value {
    let mut out = json!({"id": g.id, "name": g.name, "members": members});
    let Some(m) = out.as_object_mut() else { return out };
    if v >= Ver(2, 64) {
        m.insert("policy".into(), g.policy.as_str().into());
        let rules = g
            .max_server_per_host
            .map_or_else(|| json!({}), |n| json!({"max_server_per_host": n}));
        m.insert("rules".into(), rules);
    } else {
        m.insert("policies".into(), json!([g.policy]));
        m.insert("metadata".into(), json!({}));
    }
    if v >= Ver(2, 13) {
        m.insert("project_id".into(), g.project_id.as_str().into());
        m.insert("user_id".into(), g.user_id.as_str().into());
    }
    out
}

/// Members of groups, by group.
async fn members(tx: &mut Tx, groups: &[&str]) -> Result<HashMap<String, Vec<String>>> {
    let query = Query::new()
        .is_in("server_group", groups.iter().copied())
        .order("created_at", Dir::Asc)
        .order("id", Dir::Asc);
    let mut out: HashMap<String, Vec<String>> = HashMap::new();
    for r in tx.columns_of::<Server>("server_group, id", &query).await? {
        out.entry(r.str(0)?).or_default().push(r.str(1)?);
    }
    Ok(out)
}

/// `GET /os-server-groups`
pub(crate) async fn index(app: Arc<Compute>, req: Req) -> Result<Reply> {
    let ctx = req.ctx()?;
    check_query(&req, &["all_projects", "limit", "offset"])?;
    ctx.enforce(acts::GroupList::RULE, &Target::own(ctx))?;
    let mut query = Query::new().order("created_at", Dir::Asc).order("id", Dir::Asc);
    // Asked by who may not, it is simply the own project's list.
    if !(req.q("all_projects").is_some() && ctx.is_admin() && ctx.may(policy::GROUPS_ALL, &Target::own(ctx))) {
        query = query.eq("project_id", ctx.project_id());
    }
    let mut tx = app.db.read().await?;
    let rows = limited(&req, tx.list::<ServerGroup>(&query).await?)?;
    let ids: Vec<&str> = rows.iter().map(|g| g.id.as_str()).collect();
    let by_group = members(&mut tx, &ids).await?;
    let list: Vec<Value> = rows
        .iter()
        .map(|g| view(g, by_group.get(&g.id).map_or(&[][..], Vec::as_slice), req.version))
        .collect();
    Ok(Reply::ok(&json!({"server_groups": list})))
}

/// `GET /os-server-groups/{id}`
pub(crate) async fn show(app: Arc<Compute>, req: Req) -> Result<Reply> {
    let mut tx = app.db.read().await?;
    let g = fetch(&mut tx, req.ctx()?, acts::GroupShow, req.param("id")).await?;
    let m = members(&mut tx, &[&g.id]).await?.remove(&g.id).unwrap_or_default();
    Ok(Reply::ok(&json!({"server_group": view(&g, &m, req.version)})))
}

/// `POST /os-server-groups`
pub(crate) async fn create(app: Arc<Compute>, mut req: Req) -> Result<Reply> {
    let (v, ctx) = (req.version, req.ctx()?.clone());
    ctx.enforce(acts::GroupCreate::RULE, &Target::own(&ctx))?;
    let body = req.fields("server_group", &CREATE).await?;
    let policy = if v >= Ver(2, 64) {
        input::text(&body, "policy")
    } else {
        input::strings(&body, "policies").and_then(|p| p.into_iter().next())
    };
    let policy = policy.ok_or_else(|| {
        Error::field(
            "policies",
            "Invalid input for field/attribute policies. One policy is needed.",
        )
    })?;
    let rule = body.get("rules").and_then(|r| input::int(r, "max_server_per_host"));
    if rule.is_some() && policy != "anti-affinity" {
        return Err(Error::field("rules", "Only anti-affinity policy supports rules."));
    }
    let group = ServerGroup {
        id: id::uuid(),
        project_id: ctx.project_id().to_owned(),
        user_id: ctx.user_id.clone(),
        name: input::text(&body, "name").unwrap_or_default(),
        policy,
        max_server_per_host: rule,
    };
    let (a, c) = (app.clone(), ctx.clone());
    let stored = app
        .db
        .write(&ctx.actor(), async move |tx| {
            let grant = allow_create(&c, acts::GroupCreate, &Target::own(&c))?;
            let (limit, used) = (
                a.limit(tx, c.project_id(), "server_groups").await?,
                tx.count::<ServerGroup>(&Query::new().eq("project_id", c.project_id()))
                    .await?,
            );
            if limit >= 0 && used >= limit {
                return Err(Error::new(
                    Kind::OverQuota,
                    format!("Quota exceeded, too many server groups: the project has {used} of {limit}."),
                ));
            }
            tx.insert(&grant, &group)
                .await?
                .ok_or_else(|| Error::internal("a new id is taken"))
        })
        .await?;
    Ok(Reply::ok(&json!({"server_group": view(&stored, &[], v)})))
}

/// `DELETE /os-server-groups/{id}`: members live on without it.
pub(crate) async fn delete(app: Arc<Compute>, req: Req) -> Result<Reply> {
    let (c, id) = (req.ctx()?.clone(), req.param("id").to_owned());
    app.db
        .write(&req.ctx()?.actor(), async move |tx| {
            let g = fetch(tx, &c, acts::GroupDelete, &id).await?;
            tx.delete(&g).await
        })
        .await?;
    Ok(Reply::no_content())
}
