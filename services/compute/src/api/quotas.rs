//! Quotas, limits and usage (Nova API reference, "Quota sets", "Limits", "Usage reports").

use super::input::{self, BOOL, check_query};
use crate::Compute;
use crate::logic::quota as q;
use crate::model::{Server, ServerGroup};
use crate::policy;
use haneul_auth::{Target, quota};
use haneul_core::{Error, Result, clock};
use haneul_http::{Body, FieldKind as K, Page, Reply, Req, Ver, f};
use haneul_store::{Dir, Query, Stored, Tx};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Name, versions in which it is shown, whether it can be set here.
const RESOURCES: &[(&str, u16, bool)] = &[
    ("instances", 999, true),
    ("cores", 999, true),
    ("ram", 999, true),
    ("metadata_items", 999, false),
    ("key_pairs", 999, true),
    ("server_groups", 999, true),
    ("server_group_members", 999, true),
    ("injected_files", 56, false),
    ("injected_file_content_bytes", 56, false),
    ("injected_file_path_bytes", 56, false),
    ("floating_ips", 35, false),
    ("fixed_ips", 35, false),
    ("security_groups", 35, false),
    ("security_group_rules", 35, false),
];
const LIMIT: K = K::Int {
    min: -1,
    max: i32::MAX as i64,
};
static UPDATE: Body = Body {
    open: false,
    fields: &[
        f("instances", LIMIT),
        f("cores", LIMIT),
        f("ram", LIMIT),
        f("metadata_items", LIMIT),
        f("key_pairs", LIMIT),
        f("server_groups", LIMIT),
        f("server_group_members", LIMIT),
        f("force", BOOL),
        f("injected_files", LIMIT).until(2, 56),
        f("injected_file_content_bytes", LIMIT).until(2, 56),
        f("injected_file_path_bytes", LIMIT).until(2, 56),
        f("floating_ips", LIMIT).until(2, 35),
        f("fixed_ips", LIMIT).until(2, 35),
        f("security_groups", LIMIT).until(2, 35),
        f("security_group_rules", LIMIT).until(2, 35),
    ],
};

impl Compute {
    fn default_limit(&self, name: &str) -> i64 {
        match name {
            "instances" => self.config.quota_instances,
            "cores" => self.config.quota_cores,
            "ram" => self.config.quota_ram_mib,
            "metadata_items" => 128,
            "key_pairs" => 100,
            "server_groups" | "server_group_members" => 10,
            // Files are not injected; the network service has its own quotas.
            n if n.starts_with("injected_") => 0,
            _ => -1,
        }
    }

    /// A limit of a project.
    pub(crate) async fn limit(&self, tx: &mut Tx, project: &str, name: &str) -> Result<i64> {
        Ok(self.quota(tx, project, name).await?.limit)
    }

    async fn quota(&self, tx: &mut Tx, project: &str, name: &str) -> Result<quota::Quota> {
        let mut found = quota::show(tx, project, &format!("compute.{name}"), self.default_limit(name)).await?;
        if name == "server_groups" {
            found.used = tx.count::<ServerGroup>(&Query::new().eq("project_id", project)).await?;
        }
        Ok(found)
    }
}

fn shown(v: Ver) -> impl Iterator<Item = &'static str> {
    RESOURCES
        .iter()
        .filter(move |(_, until, _)| v <= Ver(2, *until))
        .map(|(n, _, _)| *n)
}

async fn set_of(app: &Compute, tx: &mut Tx, project: &str, v: Ver, detail: bool) -> Result<Map<String, Value>> {
    let mut out = Map::new();
    for name in shown(v) {
        let found = app.quota(tx, project, name).await?;
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
    let mut set = set_of(&app, &mut tx, project, req.version, detail).await?;
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
    let mut set: Map<String, Value> = shown(req.version)
        .map(|n| (n.to_owned(), app.default_limit(n).into()))
        .collect();
    set.insert("id".into(), project.into());
    Ok(Reply::ok(&json!({"quota_set": set})))
}

/// `PUT /os-quota-sets/{project}`
pub(crate) async fn update(app: Arc<Compute>, mut req: Req) -> Result<Reply> {
    let (v, ctx, project) = (req.version, req.ctx()?.clone(), req.param("id").to_owned());
    ctx.enforce(policy::QUOTA_UPDATE, &Target::project(&project))?;
    check_query(&req, &["user_id"])?;
    if req.q("user_id").is_some() {
        return Err(Error::field(
            "user_id",
            "Quotas of single users are not kept. Set the project's, without user_id.",
        ));
    }
    let body = req.fields("quota_set", &UPDATE).await?;
    let force = input::boolean(&body, "force").unwrap_or(false);
    let wanted: Vec<(&'static str, i64)> = RESOURCES
        .iter()
        .filter_map(|(n, _, _)| Some((*n, input::int(&body, n)?)))
        .collect();
    for (name, _) in &wanted {
        if RESOURCES.iter().any(|(n, _, settable)| n == name && !settable) {
            return Err(Error::field(
                *name,
                format!("The quota {name} is not kept by compute and cannot be set."),
            ));
        }
    }
    let a = app.clone();
    let set = app
        .db
        .write(&ctx.actor(), async move |tx| {
            for (name, limit) in &wanted {
                let now = a.quota(tx, &project, name).await?;
                if !force && *limit >= 0 && *limit < now.used {
                    return Err(Error::field(
                        *name,
                        format!("Quota limit {limit} for {name} must be greater than or equal to already used and reserved {}.", now.used),
                    ));
                }
                quota::set(tx, &project, &format!("compute.{name}"), Some(*limit)).await?;
            }
            set_of(&a, tx, &project, v, false).await
        })
        .await?;
    Ok(Reply::ok(&json!({"quota_set": set})))
}

/// `DELETE /os-quota-sets/{project}`: back to the defaults.
pub(crate) async fn delete(app: Arc<Compute>, req: Req) -> Result<Reply> {
    let (ctx, project) = (req.ctx()?, req.param("id").to_owned());
    ctx.enforce(policy::QUOTA_DELETE, &Target::project(&project))?;
    app.db
        .write(&ctx.actor(), async move |tx| {
            for (name, _, _) in RESOURCES.iter().filter(|(_, _, s)| *s) {
                quota::set(tx, &project, &format!("compute.{name}"), None).await?;
            }
            Ok(())
        })
        .await?;
    Ok(Reply::empty(http::StatusCode::ACCEPTED))
}

/// `GET /os-quota-class-sets/{class}`: the defaults, as class `default`.
pub(crate) async fn class_show(app: Arc<Compute>, req: Req) -> Result<Reply> {
    req.ctx()?.enforce(policy::QUOTA_CLASS_SHOW, &Target::default())?;
    let v = req.version;
    let hidden = |n: &str| {
        n.starts_with("server_group") && v < Ver(2, 50)
            || (n.ends_with("_ips") || n.starts_with("security_")) && v >= Ver(2, 50)
    };
    let mut set: Map<String, Value> = shown(v)
        .filter(|n| !hidden(n))
        .map(|n| (n.to_owned(), app.default_limit(n).into()))
        .collect();
    set.insert("id".into(), req.param("id").into());
    Ok(Reply::ok(&json!({"quota_class_set": set})))
}

/// `PUT /os-quota-class-sets/{class}`: defaults are configuration.
pub(crate) async fn class_update(_app: Arc<Compute>, req: Req) -> Result<Reply> {
    req.ctx()?.enforce(policy::QUOTA_CLASS_UPDATE, &Target::default())?;
    Err(Error::forbidden(
        "The default quotas are set in the configuration (section compute).",
    ))
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
    debug_assert_eq!(q::RAM, "compute.ram");
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
