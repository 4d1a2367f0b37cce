//! Quotas, limits and usage (Nova API reference, "Quota sets", "Limits", "Usage reports").

use super::input::{self, BOOL, check_query};
use crate::Compute;
use crate::logic::quota::COUNTED;
use crate::model::Server;
use crate::policy;
use haneul_auth::Target;
use haneul_core::{Error, Result, clock};
use haneul_http::fields::Field;
use haneul_http::{Body, FieldKind as K, Page, Reply, Req, Ver, f};
use haneul_store::{Dir, Query, Stored, Tx};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Name, and the last version in which it is shown.
const RESOURCES: &[(&str, u16)] = &[
    ("instances", 999),
    ("cores", 999),
    ("ram", 999),
    ("metadata_items", 999),
    ("key_pairs", 999),
    ("server_groups", 999),
    ("server_group_members", 999),
    ("injected_files", 56),
    ("injected_file_content_bytes", 56),
    ("injected_file_path_bytes", 56),
    ("floating_ips", 35),
    ("fixed_ips", 35),
    ("security_groups", 35),
    ("security_group_rules", 35),
];
const LIMIT: K = K::Int {
    min: -1,
    max: i32::MAX as i64,
};
/// The limits of a body: server groups since 2.`groups`, the network's things until 2.`network`, and `force` until 2.`force`.
const fn limit_fields(groups: u16, network: u16, force: u16) -> [Field; 15] {
    [
        f("instances", LIMIT),
        f("cores", LIMIT),
        f("ram", LIMIT),
        f("metadata_items", LIMIT),
        f("key_pairs", LIMIT),
        f("server_groups", LIMIT).since(2, groups),
        f("server_group_members", LIMIT).since(2, groups),
        f("injected_files", LIMIT).until(2, 56),
        f("injected_file_content_bytes", LIMIT).until(2, 56),
        f("injected_file_path_bytes", LIMIT).until(2, 56),
        f("floating_ips", LIMIT).until(2, network),
        f("fixed_ips", LIMIT).until(2, network),
        f("security_groups", LIMIT).until(2, network),
        f("security_group_rules", LIMIT).until(2, network),
        f("force", BOOL).until(2, force),
    ]
}
static UPDATE: Body = Body {
    open: false,
    fields: &limit_fields(1, 35, 999),
};
static CLASS_UPDATE: Body = Body {
    open: false,
    fields: &limit_fields(50, 49, 0),
};

/// The limits of a checked body.
fn limits_in(body: &Value) -> Vec<(&'static str, i64)> {
    RESOURCES
        .iter()
        .filter_map(|(n, _)| Some((*n, input::int(body, n)?)))
        .collect()
}

fn shown(v: Ver) -> impl Iterator<Item = &'static str> {
    RESOURCES
        .iter()
        .filter(move |(_, until)| v <= Ver(2, *until))
        .map(|(n, _)| *n)
}

/// The quotas of a project, or of one user in it.
async fn set_of(
    app: &Compute,
    tx: &mut Tx,
    project: &str,
    user: Option<&str>,
    v: Ver,
    detail: bool,
) -> Result<Map<String, Value>> {
    let mut out = Map::new();
    for name in shown(v) {
        let found = match user {
            Some(u) => app.user_quota(tx, project, u, name).await?,
            None => app.quota(tx, project, name).await?,
        };
        let value = if detail {
            json!({"limit": found.limit, "in_use": found.used, "reserved": 0})
        } else {
            found.limit.into()
        };
        out.insert(name.into(), value);
    }
    Ok(out)
}

async fn show_any(app: Arc<Compute>, req: Req, rule: &str, detail: bool) -> Result<Reply> {
    let project = req.param("id");
    req.ctx()?.enforce(rule, &Target::project(project))?;
    check_query(&req, &["user_id"])?;
    let mut tx = app.db.read().await?;
    let mut set = set_of(&app, &mut tx, project, req.q("user_id"), req.version, detail).await?;
    set.insert("id".into(), project.into());
    Ok(Reply::ok(&json!({"quota_set": set})))
}

/// `GET /os-quota-sets/{project}`
pub(crate) async fn show(app: Arc<Compute>, req: Req) -> Result<Reply> {
    show_any(app, req, policy::QUOTA_SHOW, false).await
}

/// `GET /os-quota-sets/{project}/detail`
pub(crate) async fn detail(app: Arc<Compute>, req: Req) -> Result<Reply> {
    show_any(app, req, policy::QUOTA_DETAIL, true).await
}

/// `GET /os-quota-sets/{project}/defaults`
pub(crate) async fn defaults(app: Arc<Compute>, req: Req) -> Result<Reply> {
    let project = req.param("id");
    req.ctx()?.enforce(policy::QUOTA_DEFAULTS, &Target::project(project))?;
    let mut tx = app.db.read().await?;
    let mut set = class_set(&app, &mut tx, "default", shown(req.version)).await?;
    set.insert("id".into(), project.into());
    Ok(Reply::ok(&json!({"quota_set": set})))
}

/// What is wrong with a limit of a user: the whole project's bounds it, and only what servers take is counted.
fn check_users(name: &str, limit: i64, of_project: i64) -> Result<()> {
    if !COUNTED.contains(&name) {
        return Err(Error::field(
            name,
            format!(
                "The quota {name} is not kept for single users, only {} are. Set the project's, without user_id.",
                COUNTED.join(", ")
            ),
        ));
    }
    if of_project >= 0 && !(0..=of_project).contains(&limit) {
        return Err(Error::field(
            name,
            format!("Quota limit {limit} for {name} must be less than or equal to {of_project}."),
        ));
    }
    Ok(())
}

/// `PUT /os-quota-sets/{project}`, of one user with `user_id`.
pub(crate) async fn update(app: Arc<Compute>, mut req: Req) -> Result<Reply> {
    let (v, ctx, project) = (req.version, req.ctx()?.clone(), req.param("id").to_owned());
    ctx.enforce(policy::QUOTA_UPDATE, &Target::project(&project))?;
    check_query(&req, &["user_id"])?;
    let user = req.q("user_id").map(str::to_owned);
    let body = req.fields("quota_set", &UPDATE).await?;
    let force = input::boolean(&body, "force").unwrap_or(false);
    let wanted = limits_in(&body);
    let a = app.clone();
    let set = app
        .db
        .write(&ctx.actor(), async move |tx| {
            let user = user.as_deref();
            for (name, limit) in &wanted {
                let of_project = a.quota(tx, &project, name).await?;
                let used = match user {
                    None => of_project.used,
                    Some(u) => {
                        check_users(name, *limit, of_project.limit)?;
                        a.user_quota(tx, &project, u, name).await?.used
                    }
                };
                if !force && *limit >= 0 && *limit < used {
                    return Err(Error::field(
                        *name,
                        format!("Quota limit {limit} for {name} must be greater than or equal to already used and reserved {used}."),
                    ));
                }
                a.limit_set(tx, &project, user, name, Some(*limit)).await?;
            }
            set_of(&a, tx, &project, user, v, false).await
        })
        .await?;
    Ok(Reply::ok(&json!({"quota_set": set})))
}

/// `DELETE /os-quota-sets/{project}`, of one user with `user_id`: back to the defaults.
pub(crate) async fn delete(app: Arc<Compute>, req: Req) -> Result<Reply> {
    let (ctx, project) = (req.ctx()?, req.param("id").to_owned());
    ctx.enforce(policy::QUOTA_DELETE, &Target::project(&project))?;
    check_query(&req, &["user_id"])?;
    let user = req.q("user_id").map(str::to_owned);
    let a = app.clone();
    app.db
        .write(&ctx.actor(), async move |tx| {
            for (name, _) in RESOURCES {
                a.limit_set(tx, &project, user.as_deref(), name, None).await?;
            }
            Ok(())
        })
        .await?;
    Ok(Reply::empty(http::StatusCode::ACCEPTED))
}

/// What a class shows: the network's numbers until 2.49, server groups since 2.50.
fn of_class(v: Ver) -> impl Iterator<Item = &'static str> {
    shown(v).filter(move |n| match *n {
        "server_groups" | "server_group_members" => v >= Ver(2, 50),
        n => v < Ver(2, 50) || !(n.ends_with("_ips") || n.starts_with("security_")),
    })
}

async fn class_set(
    app: &Compute,
    tx: &mut Tx,
    class: &str,
    names: impl Iterator<Item = &'static str>,
) -> Result<Map<String, Value>> {
    let mut out = Map::new();
    for name in names {
        out.insert(name.into(), app.class_limit(tx, class, name).await?.into());
    }
    Ok(out)
}

/// `GET /os-quota-class-sets/{class}`
pub(crate) async fn class_show(app: Arc<Compute>, req: Req) -> Result<Reply> {
    req.ctx()?.enforce(policy::QUOTA_CLASS_SHOW, &Target::default())?;
    let mut tx = app.db.read().await?;
    let mut set = class_set(&app, &mut tx, req.param("id"), of_class(req.version)).await?;
    set.insert("id".into(), req.param("id").into());
    Ok(Reply::ok(&json!({"quota_class_set": set})))
}

/// `PUT /os-quota-class-sets/{class}`: those of `default` hold for every project without its own.
pub(crate) async fn class_update(app: Arc<Compute>, mut req: Req) -> Result<Reply> {
    let (v, ctx, class) = (req.version, req.ctx()?.clone(), req.param("id").to_owned());
    ctx.enforce(policy::QUOTA_CLASS_UPDATE, &Target::default())?;
    if class.chars().count() > 255 {
        return Err(Error::field(
            "id",
            format!(
                "The name of a quota class has at most 255 characters, and this one {}.",
                class.chars().count()
            ),
        ));
    }
    let wanted = limits_in(&req.fields("quota_class_set", &CLASS_UPDATE).await?);
    let a = app.clone();
    let set = app
        .db
        .write(&ctx.actor(), async move |tx| {
            for (name, limit) in &wanted {
                a.class_limit_set(tx, &class, name, *limit).await?;
            }
            class_set(&a, tx, &class, of_class(v)).await
        })
        .await?;
    Ok(Reply::ok(&json!({"quota_class_set": set})))
}

/// `GET /limits`
pub(crate) async fn limits(app: Arc<Compute>, req: Req) -> Result<Reply> {
    let (v, ctx) = (req.version, req.ctx()?);
    check_query(&req, &["reserved", "tenant_id"])?;
    ctx.enforce(policy::LIMITS, &Target::own(ctx))?;
    let project = match req.q("tenant_id").filter(|p| *p != ctx.project_id()) {
        Some(other) => {
            ctx.enforce(policy::LIMITS_OTHER, &Target::project(other))?;
            other
        }
        None => ctx.project_id(),
    };
    let mut tx = app.db.read().await?;
    let mut absolute = Map::new();
    for (name, resource, until) in [
        ("maxTotalRAMSize", "ram", 999),
        ("maxTotalInstances", "instances", 999),
        ("maxTotalCores", "cores", 999),
        ("maxTotalKeypairs", "key_pairs", 999),
        ("maxServerMeta", "metadata_items", 999),
        ("maxServerGroups", "server_groups", 999),
        ("maxServerGroupMembers", "server_group_members", 999),
        ("maxImageMeta", "metadata_items", 38),
        ("maxPersonality", "injected_files", 56),
        ("maxPersonalitySize", "injected_file_content_bytes", 56),
        ("maxTotalFloatingIps", "floating_ips", 35),
        ("maxSecurityGroups", "security_groups", 35),
        ("maxSecurityGroupRules", "security_group_rules", 35),
    ] {
        if v <= Ver(2, until) {
            absolute.insert(name.into(), app.limit(&mut tx, project, resource).await?.into());
        }
    }
    for (name, resource, until) in [
        ("totalRAMUsed", "ram", 999),
        ("totalCoresUsed", "cores", 999),
        ("totalInstancesUsed", "instances", 999),
        ("totalServerGroupsUsed", "server_groups", 999),
        ("totalFloatingIpsUsed", "floating_ips", 35),
        ("totalSecurityGroupsUsed", "security_groups", 35),
    ] {
        if v <= Ver(2, until) {
            absolute.insert(name.into(), app.quota(&mut tx, project, resource).await?.used.into());
        }
    }
    Ok(Reply::ok(&json!({"limits": {"rate": [], "absolute": absolute}})))
}

struct Window {
    start: i64,
    stop: i64,
}

fn window(req: &Req) -> Result<Window> {
    let of = |name: &str| {
        req.q(name)
            .map(|t| clock::parse(t).ok_or_else(|| Error::field(name, format!("Datetime is in invalid format: {t}"))))
            .transpose()
    };
    let stop = of("end")?.unwrap_or_else(clock::now);
    let start = of("start")?.unwrap_or(stop - 28 * 86_400 * clock::SECOND);
    if start >= stop {
        return Err(Error::field(
            "start",
            "Invalid start time. The start time cannot occur after the end time.",
        ));
    }
    Ok(Window { start, stop })
}

/// Sums up servers of one project. Deleted servers are not counted: the log of changes is for bills.
fn usage(servers: &[&Stored<Server>], w: &Window, detailed: bool) -> Value {
    let mut list = Vec::new();
    let (mut hours, mut vcpus, mut ram, mut disk) = (0.0, 0.0, 0.0, 0.0);
    let now = clock::now();
    for s in servers {
        let Some(launched) = s.launched_at.filter(|t| *t <= w.stop) else {
            continue;
        };
        let h = (w.stop.min(now) - launched.max(w.start)).max(0) as f64 / (3600.0 * clock::SECOND as f64);
        let gib = s.flavor.root_gib(s.image.gib()) + s.flavor.ephemeral;
        hours += h;
        vcpus += h * s.flavor.vcpus as f64;
        ram += h * s.flavor.ram as f64;
        disk += h * gib as f64;
        if detailed {
            list.push(json!({
                "instance_id": s.id, "name": s.name, "tenant_id": s.project_id, "hours": h, "flavor": s.flavor.name,
                "vcpus": s.flavor.vcpus, "memory_mb": s.flavor.ram, "local_gb": gib, "state": s.vm_state,
                "started_at": clock::naive_micros(launched), "ended_at": null, "uptime": (now - launched) / clock::SECOND,
            }));
        }
    }
    let mut out = json!({
        "start": clock::naive_micros(w.start), "stop": clock::naive_micros(w.stop), "total_hours": hours,
        "total_vcpus_usage": vcpus, "total_memory_mb_usage": ram, "total_local_gb_usage": disk,
    });
    if let (true, Some(m)) = (detailed, out.as_object_mut()) {
        m.insert("server_usages".into(), list.into());
    }
    out
}

const USAGE_QUERY: &[&str] = &["start", "end", "detailed", "limit", "marker"];

/// The servers of a page (since 2.40), and the last id when more follow.
async fn usage_rows(
    app: &Compute,
    req: &Req,
    project: Option<&str>,
    w: &Window,
) -> Result<(Vec<Stored<Server>>, Option<String>)> {
    check_query(req, USAGE_QUERY)?;
    let mut query = Query::new()
        .gt("launched_at", 0i64)
        .le("launched_at", w.stop)
        .order("id", Dir::Asc);
    if let Some(p) = project {
        query = query.eq("project_id", p);
    }
    let mut tx = app.db.read().await?;
    if req.version < Ver(2, 40) {
        return Ok((tx.list::<Server>(&query).await?, None));
    }
    let page = Page::of(req)?;
    if let Some(m) = &page.marker {
        if tx.find::<Server>(m).await?.is_none() {
            return Err(Error::field("marker", format!("marker [{m}] not found")));
        }
        query = query.after(vec![m.into()]);
    }
    let mut rows = tx.list::<Server>(&query.limit(page.fetch())).await?;
    let more = page.cut(&mut rows);
    let last = rows.last().filter(|_| more).map(|s| s.id.clone());
    Ok((rows, last))
}

/// `GET /os-simple-tenant-usage`
pub(crate) async fn usage_list(app: Arc<Compute>, req: Req) -> Result<Reply> {
    req.ctx()?.enforce(policy::USAGE_LIST, &Target::own(req.ctx()?))?;
    let w = window(&req)?;
    let detailed = req.q("detailed") == Some("1");
    let (rows, last) = usage_rows(&app, &req, None, &w).await?;
    let mut by_project: BTreeMap<&str, Vec<&Stored<Server>>> = BTreeMap::new();
    for s in &rows {
        by_project.entry(&s.project_id).or_default().push(s);
    }
    let list: Vec<Value> = by_project
        .iter()
        .map(|(p, servers)| {
            let mut u = usage(servers, &w, detailed);
            if let Some(m) = u.as_object_mut() {
                m.insert("tenant_id".into(), (*p).into());
            }
            u
        })
        .collect();
    let mut body = json!({"tenant_usages": list});
    if let (Some(id), Some(m)) = (last, body.as_object_mut()) {
        m.insert(
            "tenant_usages_links".into(),
            Page::next_link(&req, "/v2.1/os-simple-tenant-usage", &id),
        );
    }
    Ok(Reply::ok(&body))
}

/// `GET /os-simple-tenant-usage/{project}`
pub(crate) async fn usage_show(app: Arc<Compute>, req: Req) -> Result<Reply> {
    let project = req.param("id");
    req.ctx()?.enforce(policy::USAGE_SHOW, &Target::project(project))?;
    let w = window(&req)?;
    let (rows, last) = usage_rows(&app, &req, Some(project), &w).await?;
    let mut u = if rows.is_empty() {
        json!({})
    } else {
        usage(&rows.iter().collect::<Vec<_>>(), &w, true)
    };
    if let Some(m) = u.as_object_mut().filter(|m| !m.is_empty()) {
        m.insert("tenant_id".into(), project.into());
    }
    let mut body = json!({"tenant_usage": u});
    if let (Some(id), Some(m)) = (last, body.as_object_mut()) {
        let path = format!("/v2.1/os-simple-tenant-usage/{project}");
        m.insert("tenant_usage_links".into(), Page::next_link(&req, &path, &id));
    }
    Ok(Reply::ok(&body))
}
