//! GET /servers and /servers/detail: filters, order and pages. What is a column is filtered by the database;
//! names by regular expression, addresses and tags are filtered here, page by page.

use crate::Compute;
use crate::model::{Server, state};
use crate::policy::{self, acts};
use haneul_auth::{Ctx, Target, scope};
use haneul_core::{Error, Result, clock, id};
use haneul_http::{Page, Req, Ver};
use haneul_store::{Dir, Query, Row, Stored, Tx, V};
use regex::{Regex, RegexBuilder};

/// Filters that everybody may use; others are ignored from who is not an administrator.
const FREE: &[&str] = &[
    "reservation_id",
    "name",
    "display_name",
    "status",
    "image",
    "image_ref",
    "flavor",
    "ip",
    "changes-since",
    "all_tenants",
    "tags",
    "tags-any",
    "not-tags",
    "not-tags-any",
    "changes-before",
    "locked",
];
/// Further ones for everybody since 2.83.
const FREE_83: &[&str] = &[
    "availability_zone",
    "config_drive",
    "key_name",
    "created_at",
    "launched_at",
    "terminated_at",
    "power_state",
    "task_state",
    "vm_state",
    "progress",
    "user_id",
];
/// Everything that Nova knows in the query of this list; from 2.75 on others are refused.
const KNOWN: &[&str] = &[
    "user_id",
    "project_id",
    "tenant_id",
    "launch_index",
    "image_ref",
    "image",
    "kernel_id",
    "ramdisk_id",
    "hostname",
    "key_name",
    "power_state",
    "vm_state",
    "task_state",
    "host",
    "node",
    "flavor",
    "reservation_id",
    "launched_at",
    "terminated_at",
    "availability_zone",
    "name",
    "display_name",
    "description",
    "display_description",
    "locked_by",
    "uuid",
    "root_device_name",
    "config_drive",
    "access_ip_v4",
    "access_ip_v6",
    "auto_disk_config",
    "progress",
    "sort_key",
    "sort_dir",
    "all_tenants",
    "soft_deleted",
    "deleted",
    "status",
    "changes-since",
    "ip",
    "ip6",
    "created_at",
    "tags",
    "tags-any",
    "not-tags",
    "not-tags-any",
    "changes-before",
    "locked",
    "limit",
    "marker",
];
/// Never filtered by, although they are columns of the reference's joined tables.
const INTERNAL: &[&str] = &[
    "block_device_mapping",
    "services",
    "metadata",
    "system_metadata",
    "info_cache",
    "security_groups",
    "pci_devices",
];
const SORT: &[(&str, &str)] = &[
    ("created_at", "created_at"),
    ("updated_at", "updated_at"),
    ("display_name", "name"),
    ("uuid", "id"),
    ("vm_state", "vm_state"),
    ("task_state", "task_state"),
    ("image_ref", "image_id"),
    ("instance_type_id", "flavor_id"),
    ("user_id", "user_id"),
    ("project_id", "project_id"),
    ("key_name", "key_name"),
    ("host", "host_id"),
    ("node", "host_id"),
    ("hostname", "hostname"),
    ("display_description", "description"),
    ("power_state", "power_state"),
    ("launched_at", "launched_at"),
    ("launch_index", "launch_index"),
    ("availability_zone", "zone"),
    ("config_drive", "config_drive"),
    ("locked", "locked"),
    ("access_ip_v4", "access_ip_v4"),
    ("access_ip_v6", "access_ip_v6"),
];
/// Keys that order nothing here, because they are the same for all servers, or that Nova ignores.
const SORT_IGNORED: &[&str] = &[
    "auto_disk_config",
    "kernel_id",
    "ramdisk_id",
    "root_device_name",
    "progress",
    "terminated_at",
    "locked_by",
    "architecture",
    "cell_name",
    "cleaned",
    "default_ephemeral_device",
    "default_swap_device",
    "deleted",
    "deleted_at",
    "disable_terminate",
    "ephemeral_gb",
    "ephemeral_key_uuid",
    "id",
    "key_data",
    "launched_on",
    "memory_mb",
    "os_type",
    "reservation_id",
    "root_gb",
    "shutdown_terminate",
    "user_data",
    "vcpus",
    "vm_mode",
];
/// Rows that are read at a time when rows are filtered here.
const CHUNK: i64 = 500;

/// Filters that look at the document.
#[derive(Default)]
struct Late {
    name: Option<Regex>,
    others: Vec<(&'static str, Regex)>,
    ip: Option<Regex>,
    ip6: Option<Regex>,
    tags: Vec<String>,
    tags_any: Vec<String>,
    not_tags: Vec<String>,
    not_tags_any: Vec<String>,
}

impl Late {
    fn any(&self) -> bool {
        self.name.is_some()
            || !self.others.is_empty()
            || self.ip.is_some()
            || self.ip6.is_some()
            || !(self.tags.is_empty()
                && self.tags_any.is_empty()
                && self.not_tags.is_empty()
                && self.not_tags_any.is_empty())
    }

    fn keeps(&self, s: &Server, ports: Option<&Vec<crate::logic::deps::ServerPort>>) -> bool {
        let has = |t: &String| s.tags.contains(t);
        let addresses = |v4: bool, r: &Regex| {
            ports.is_some_and(|ps| {
                ps.iter()
                    .flat_map(|p| {
                        p.fixed_ips
                            .iter()
                            .map(|(_, a)| a)
                            .chain(p.floating.iter().map(|(_, a)| a))
                    })
                    .any(|a| a.is_ipv4() == v4 && r.is_match(&a.to_string()))
            })
        };
        self.name.as_ref().is_none_or(|r| r.is_match(&s.name))
            && self.others.iter().all(|(f, r)| match *f {
                "hostname" => r.is_match(&s.hostname),
                "description" => r.is_match(s.description.as_deref().unwrap_or_default()),
                "reservation_id" => r.is_match(&s.reservation_id),
                "locked_by" => r.is_match(s.locked_by.as_deref().unwrap_or_default()),
                _ => true,
            })
            && (self.ip.is_none() && self.ip6.is_none()
                || self.ip.as_ref().is_some_and(|r| addresses(true, r))
                || self.ip6.as_ref().is_some_and(|r| addresses(false, r)))
            && self.tags.iter().all(has)
            && (self.tags_any.is_empty() || self.tags_any.iter().any(has))
            && (self.not_tags.is_empty() || !self.not_tags.iter().all(has))
            && !self.not_tags_any.iter().any(has)
    }
}

/// A regular expression of a user: linear time, bounded size.
pub(crate) fn regex(name: &str, text: &str) -> Result<Regex> {
    RegexBuilder::new(text)
        .size_limit(1 << 18)
        .nest_limit(32)
        .case_insensitive(true)
        .build()
        .map_err(|_| {
            Error::field(
                name,
                format!("Invalid value '{text}' for {name}: it is not a regular expression, or too large a one."),
            )
        })
}

/// A page and whether more follow.
pub(crate) struct Found<T> {
    pub rows: Vec<T>,
    pub more: bool,
}

struct Plan {
    query: Query,
    late: Late,
    /// Columns of the order, for markers.
    order: Vec<(&'static str, Dir)>,
    /// Nothing can match.
    nothing: bool,
}

fn time(name: &str, text: &str) -> Result<i64> {
    clock::parse(text).ok_or_else(|| {
        Error::field(
            name,
            format!("Invalid input for query parameters {name}. Value: {text}. '{text}' is not a 'date-time'"),
        )
    })
}

fn plan(app: &Compute, ctx: &Ctx, req: &Req, detail: bool) -> Result<Plan> {
    let v = req.version;
    super::super::api::check_query(req, KNOWN)?;
    if let Some((k, _)) = req
        .query
        .iter()
        .find(|(k, _)| INTERNAL.contains(&k.as_str()) || k.starts_with('_'))
    {
        return Err(Error::field(k.clone(), format!("Invalid filter field: {k}.")));
    }
    let all = match req.q("all_tenants") {
        None => false,
        Some("") => true,
        Some(text) => haneul_http::request::parse_bool(text)
            .ok_or_else(|| Error::field("all_tenants", format!("Unrecognized value '{text}', acceptable values are: '0', 'f', 'false', 'n', 'no', 'off', '1', 't', 'true', 'y', 'yes', 'on'")))?,
    };
    let mut query = if detail {
        scope(ctx, acts::Detail, all, policy::ALL_DETAIL)?.apply(Query::new())
    } else {
        scope(ctx, acts::List, all, policy::ALL_INDEX)?.apply(Query::new())
    };
    let everything = ctx.may(policy::FILTERS_ALL, &Target::own(ctx));
    let allowed = |name: &str| {
        everything
            || FREE.contains(&name)
            || (v >= Ver(2, 5) && name == "ip6")
            || (v >= Ver(2, 83) && FREE_83.contains(&name))
    };
    let q = |name: &str| req.q(name).filter(|_| allowed(name));
    let mut nothing = false;

    if let Some(project) = q("project_id").or(q("tenant_id")).filter(|_| all) {
        query = query.eq("project_id", project);
    }
    for (name, column) in [
        ("user_id", "user_id"),
        ("uuid", "id"),
        ("image", "image_id"),
        ("image_ref", "image_id"),
        ("flavor", "flavor_id"),
        ("key_name", "key_name"),
        ("availability_zone", "zone"),
        ("access_ip_v4", "access_ip_v4"),
        ("access_ip_v6", "access_ip_v6"),
    ] {
        if let Some(value) = q(name) {
            query = query.eq(column, value);
        }
    }
    if let Some(host) = q("host").or(q("node")) {
        query = query.raw(
            "host_id = {} OR host_id IN (SELECT host_id FROM compute_service WHERE name = {})",
            vec![host.into(), host.into()],
        );
    }
    if let Some(vm) = q("vm_state") {
        query = query.eq("vm_state", vm);
    }
    if let Some(task) = q("task_state") {
        query = query.eq("task_state", if task == "None" { "" } else { task });
    }
    for (name, column) in [("power_state", "power_state"), ("launch_index", "launch_index")] {
        if let Some(text) = q(name) {
            match text.parse::<i64>() {
                Ok(n) => query = query.eq(column, n),
                Err(_) => nothing = true,
            }
        }
    }
    for (name, column) in [("config_drive", "config_drive"), ("locked", "locked")] {
        if name == "locked" && v < Ver(2, 73) {
            continue;
        }
        if let Some(text) = q(name) {
            let b = match text {
                "" => false,
                t => haneul_http::request::parse_bool(t).ok_or_else(|| {
                    Error::field(name, format!("Unrecognized value '{t}', acceptable values are: '0', 'f', 'false', 'n', 'no', 'off', '1', 't', 'true', 'y', 'yes', 'on'"))
                })?,
            };
            query = query.eq(column, b);
        }
    }
    for (name, column) in [("created_at", "created_at"), ("launched_at", "launched_at")] {
        if let Some(text) = q(name) {
            query = query.eq(column, time(name, text)?);
        }
    }
    if q("terminated_at").is_some() {
        nothing = true;
    }
    if let Some(text) = q("progress") {
        nothing |= text != "0";
    }
    if req.q("status").is_some() {
        query = by_status(req, v, query, &mut nothing)?;
    }
    let since = q("changes-since").map(|t| time("changes-since", t)).transpose()?;
    let before = if v >= Ver(2, 66) {
        q("changes-before").map(|t| time("changes-before", t)).transpose()?
    } else {
        None
    };
    if let (Some(s), Some(b)) = (since, before)
        && s > b
    {
        return Err(Error::field(
            "changes-since",
            "The value of changes-since must be less than or equal to changes-before.",
        ));
    }
    if let Some(t) = since {
        query = query.ge("updated_at", t);
    }
    if let Some(t) = before {
        query = query.le("updated_at", t);
    }
    // Deleted servers are not kept.
    for name in ["deleted", "soft_deleted"] {
        nothing |= q(name).and_then(haneul_http::request::parse_bool) == Some(true);
    }

    let list = |name: &str| -> Vec<String> {
        if v < Ver(2, 26) {
            return vec![];
        }
        q(name).map_or_else(Vec::new, |t| t.split(',').map(str::to_owned).collect())
    };
    let mut late = Late {
        tags: list("tags"),
        tags_any: list("tags-any"),
        not_tags: list("not-tags"),
        not_tags_any: list("not-tags-any"),
        ..Late::default()
    };
    if let Some(text) = q("name").or(q("display_name")) {
        late.name = Some(regex("name", text)?);
    }
    for (name, field) in [
        ("hostname", "hostname"),
        ("description", "description"),
        ("display_description", "description"),
        ("reservation_id", "reservation_id"),
        ("locked_by", "locked_by"),
    ] {
        if let Some(text) = q(name) {
            late.others.push((field, regex(name, text)?));
        }
    }
    if let Some(text) = q("ip") {
        late.ip = Some(regex("ip", text)?);
    }
    if let Some(text) = q("ip6") {
        late.ip6 = Some(regex("ip6", text)?);
    }
    let _ = app;
    let order = order(req, ctx, v)?;
    for (c, d) in &order {
        query = query.order(c, *d);
    }
    Ok(Plan {
        query,
        late,
        order,
        nothing,
    })
}

fn by_status(req: &Req, v: Ver, query: Query, nothing: &mut bool) -> Result<Query> {
    let mut conds = Vec::new();
    let mut args: Vec<V> = Vec::new();
    let mut known = false;
    for name in req.qs("status") {
        let Some((vms, tasks)) = state::of_status(name) else {
            continue;
        };
        known = true;
        if vms == ["deleted"] && !req.ctx()?.is_admin() {
            return Err(Error::forbidden("Only administrators may list deleted instances"));
        }
        let holes = |n: usize| vec!["{}"; n].join(", ");
        let tasks_sql = match tasks {
            Some(t) => format!("task_state IN ({})", holes(t.len())),
            None => format!("task_state NOT IN ({})", holes(state::TASKS_WITH_STATUS.len())),
        };
        conds.push(format!("(vm_state IN ({}) AND {tasks_sql})", holes(vms.len())));
        args.extend(vms.iter().map(|s| V::from(*s)));
        args.extend(tasks.unwrap_or(state::TASKS_WITH_STATUS).iter().map(|s| V::from(*s)));
    }
    if !known {
        if v >= Ver(2, 38) {
            return Err(Error::field("status", "Invalid status value"));
        }
        *nothing = true;
        return Ok(query);
    }
    Ok(query.raw(&conds.join(" OR "), args))
}

fn order(req: &Req, ctx: &Ctx, v: Ver) -> Result<Vec<(&'static str, Dir)>> {
    let dirs: Vec<&str> = req.qs("sort_dir").collect();
    let mut order: Vec<(&'static str, Dir)> = Vec::new();
    let mut last = Dir::Desc;
    for (i, key) in req.qs("sort_key").enumerate() {
        if let Some(d) = dirs
            .get(i)
            .copied()
            .or(dirs.first().copied().filter(|_| dirs.len() == 1))
        {
            last = match d {
                "asc" => Dir::Asc,
                "desc" => Dir::Desc,
                other => {
                    return Err(Error::field(
                        "sort_dir",
                        format!("Unknown sort direction '{other}', must be 'desc' or 'asc'."),
                    ));
                }
            };
        }
        match SORT.iter().find(|(n, _)| *n == key) {
            Some(_) if ["host", "node"].contains(&key) && !ctx.is_admin() => {
                return Err(Error::forbidden("Only administrators can sort servers by host or node"));
            }
            Some(_) if key == "locked" && v < Ver(2, 73) => {}
            Some((_, column)) => {
                if !order.iter().any(|(c, _)| c == column) {
                    order.push((column, last));
                }
            }
            None if SORT_IGNORED.contains(&key)
                && (v < Ver(2, 75)
                    || [
                        "auto_disk_config",
                        "kernel_id",
                        "ramdisk_id",
                        "root_device_name",
                        "progress",
                        "terminated_at",
                        "locked_by",
                    ]
                    .contains(&key)) => {}
            None => {
                return Err(Error::field(
                    "sort_key",
                    format!(
                        "Invalid input for query parameters sort_key. Value: {key}. It must be one of {}.",
                        SORT.iter().map(|(n, _)| *n).collect::<Vec<_>>().join(", ")
                    ),
                ));
            }
        }
    }
    if let Some(bad) = dirs.iter().find(|d| !["asc", "desc"].contains(*d)) {
        return Err(Error::field(
            "sort_dir",
            format!("Unknown sort direction '{bad}', must be 'desc' or 'asc'."),
        ));
    }
    if order.is_empty() {
        order.push(("created_at", last));
    }
    if !order.iter().any(|(c, _)| *c == "id") {
        order.push(("id", last));
    }
    Ok(order)
}

/// The marker's values of the order.
async fn after(tx: &mut Tx, ctx: &Ctx, marker: &str, order: &[(&'static str, Dir)]) -> Result<Vec<V>> {
    let missing = || Error::field("marker", format!("marker [{marker}] not found"));
    if !id::is_uuid(marker) {
        return Err(missing());
    }
    let columns: Vec<&str> = order.iter().map(|(c, _)| *c).collect();
    let row = tx
        .row(
            &format!("SELECT project_id, {} FROM server WHERE id = $1", columns.join(", ")),
            &[marker.into()],
        )
        .await?
        .ok_or_else(missing)?;
    if row.opt_str(0)?.as_deref() != Some(ctx.project_id()) && !ctx.is_admin() {
        return Err(missing());
    }
    order
        .iter()
        .enumerate()
        .map(|(i, (c, _))| {
            Ok(match *c {
                "created_at" | "updated_at" | "power_state" | "launched_at" | "launch_index" | "config_drive"
                | "locked" => V::I(row.i64(i + 1)?),
                _ => V::T(row.str(i + 1)?),
            })
        })
        .collect()
}

impl Compute {
    /// Servers in full.
    pub(crate) async fn list_servers(
        &self,
        tx: &mut Tx,
        req: &Req,
        page: &Page,
        detail: bool,
    ) -> Result<Found<Stored<Server>>> {
        let ctx = req.ctx()?;
        let p = plan(self, ctx, req, detail)?;
        if p.nothing {
            return Ok(Found {
                rows: vec![],
                more: false,
            });
        }
        let mut query = p.query;
        if let Some(m) = &page.marker {
            query = query.after(after(tx, ctx, m, &p.order).await?);
        }
        if !p.late.any() {
            let mut rows = tx.list::<Server>(&query.limit(page.fetch())).await?;
            let more = page.cut(&mut rows);
            return Ok(Found { rows, more });
        }
        let mut out: Vec<Stored<Server>> = Vec::new();
        let base = query;
        let mut at: Option<Vec<V>> = None;
        while out.len() < page.fetch() as usize {
            let mut query = base.clone();
            if let Some(values) = &at {
                query = query.after(values.clone());
            }
            let rows = tx.list::<Server>(&query.limit(CHUNK)).await?;
            let Some(last) = rows.last() else { break };
            at = Some(after(tx, ctx, &last.id, &p.order).await?);
            let whole = rows.len() as i64 == CHUNK;
            let ports = if p.late.ip.is_some() || p.late.ip6.is_some() {
                let ids: Vec<String> = rows.iter().map(|s| s.id.clone()).collect();
                self.network.server_ports(tx, &ids).await?
            } else {
                Default::default()
            };
            out.extend(rows.into_iter().filter(|s| p.late.keeps(s, ports.get(&s.id))));
            if !whole {
                break;
            }
        }
        let more = page.cut(&mut out);
        Ok(Found { rows: out, more })
    }

    /// Ids and names only.
    pub(crate) async fn list_server_names(
        &self,
        tx: &mut Tx,
        req: &Req,
        page: &Page,
    ) -> Result<Found<(String, String)>> {
        let ctx = req.ctx()?;
        let p = plan(self, ctx, req, false)?;
        if p.late.any() || p.nothing {
            let found = self.list_servers(tx, req, page, false).await?;
            return Ok(Found {
                more: found.more,
                rows: found.rows.into_iter().map(|s| (s.value.id, s.value.name)).collect(),
            });
        }
        let mut query = p.query;
        if let Some(m) = &page.marker {
            query = query.after(after(tx, ctx, m, &p.order).await?);
        }
        let rows: Vec<Row> = tx.columns_of::<Server>("id, name", &query.limit(page.fetch())).await?;
        let mut rows = rows
            .iter()
            .map(|r| Ok((r.str(0)?, r.str(1)?)))
            .collect::<Result<Vec<_>>>()?;
        let more = page.cut(&mut rows);
        Ok(Found { rows, more })
    }
}
