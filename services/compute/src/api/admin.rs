//! Hypervisors, services, zones (Nova API reference, the sections of these names).

use super::input::{self, BOOL, check_query};
use crate::Compute;
use crate::logic::zones::Zones;
use crate::model::{ComputeService, Server};
use crate::policy::{self, acts};
use haneul_auth::{Action, Target, authorize};
use haneul_core::{Error, Result, clock, id};
use haneul_fleet::Host;
use haneul_http::{Body, FieldKind as K, Page, Reply, Req, Ver, f};
use haneul_store::{Dir, Query, Stored, Tx};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;

const BINARY: &str = "nova-compute";

/// A host with all that is shown of it.
pub(super) struct Node {
    pub service: Stored<ComputeService>,
    host: Option<Host>,
    /// used, total per class: VCPU, MEMORY_MB, DISK_GB.
    pub stock: [(i64, i64); 3],
}

impl Node {
    fn up(&self) -> bool {
        self.host.as_ref().is_some_and(|h| h.up) && !self.service.forced_down
    }
    fn id(&self, v: Ver) -> Value {
        if v >= Ver(2, 53) {
            self.service.host_id.as_str().into()
        } else {
            self.service.number.into()
        }
    }
    /// The id as text, for markers.
    fn key(&self, v: Ver) -> String {
        if v >= Ver(2, 53) {
            self.service.host_id.clone()
        } else {
            self.service.number.to_string()
        }
    }
    fn basic(&self, v: Ver) -> Value {
        json!({
            "id": self.id(v),
            "hypervisor_hostname": self.service.host_name,
            "state": if self.up() { "up" } else { "down" },
            "status": if self.service.disabled { "disabled" } else { "enabled" },
        })
    }
    fn detail(&self, v: Ver, running: i64, building: i64) -> Value {
        let mut out = self.basic(v);
        let (Some(m), h) = (out.as_object_mut(), self.host.as_ref()) else {
            return json!({});
        };
        let info = h.map(|h| &h.hypervisor);
        m.insert("hypervisor_type".into(), info.map_or("", |i| i.kind.as_str()).into());
        m.insert("hypervisor_version".into(), info.map_or(0, |i| i.version).into());
        m.insert("host_ip".into(), "127.0.0.1".into());
        let id: Value = if v >= Ver(2, 53) {
            self.service.id.as_str().into()
        } else {
            self.service.number.into()
        };
        m.insert(
            "service".into(),
            json!({"id": id, "host": self.service.host_name, "disabled_reason": self.service.disabled_reason}),
        );
        if v >= Ver(2, 88) {
            m.insert("uptime".into(), Value::Null);
            return out;
        }
        let [(vcpus_used, vcpus), (ram_used, ram), (disk_used, disk)] = self.stock;
        for (name, n) in [
            ("vcpus", vcpus),
            ("vcpus_used", vcpus_used),
            ("memory_mb", ram),
            ("memory_mb_used", ram_used),
            ("local_gb", disk),
            ("local_gb_used", disk_used),
            ("free_ram_mb", ram - ram_used),
            ("free_disk_gb", disk - disk_used),
            ("disk_available_least", disk - disk_used),
            ("running_vms", running),
            ("current_workload", building),
        ] {
            m.insert(name.into(), n.into());
        }
        let cpu = info.map_or_else(
            || json!({}),
            |i| {
                json!({"arch": i.arch, "model": i.cpu_model, "vendor": i.cpu_vendor, "features": i.cpu_features,
                    "topology": {"sockets": i.sockets, "cores": i.cores, "threads": i.threads}})
            },
        );
        m.insert(
            "cpu_info".into(),
            if v >= Ver(2, 28) { cpu } else { cpu.to_string().into() },
        );
        out
    }
}

pub(super) async fn nodes(app: &Compute, tx: &mut Tx) -> Result<Vec<Node>> {
    let mut hosts: HashMap<String, Host> = app
        .fleet
        .hosts(tx)
        .await?
        .into_iter()
        .map(|h| (h.id.clone(), h))
        .collect();
    let mut stock: HashMap<String, [(i64, i64); 3]> = HashMap::new();
    for p in app.placement.snapshot(tx).await? {
        let of = |class: &str| p.inventories.get(class).map_or((0, 0), |(i, used)| (*used, i.total));
        stock.insert(p.uuid.clone(), [of("VCPU"), of("MEMORY_MB"), of("DISK_GB")]);
    }
    let query = Query::new().order("created_at", Dir::Asc).order("id", Dir::Asc);
    Ok(tx
        .list::<ComputeService>(&query)
        .await?
        .into_iter()
        .map(|service| Node {
            host: hosts.remove(&service.host_id),
            stock: stock.remove(&service.host_id).unwrap_or_default(),
            service,
        })
        .collect())
}

/// Servers per host: (id, name), and how many are on their way.
struct OnHosts(HashMap<String, Vec<(String, String, bool)>>);

async fn on_hosts(tx: &mut Tx) -> Result<OnHosts> {
    let query = Query::new()
        .ne("host_id", "")
        .order("created_at", Dir::Asc)
        .order("id", Dir::Asc);
    let mut out: HashMap<String, Vec<(String, String, bool)>> = HashMap::new();
    for r in tx.columns_of::<Server>("host_id, id, ec2, task_state", &query).await? {
        out.entry(r.str(0)?).or_default().push((
            r.str(1)?,
            format!("instance-{:08x}", r.i64(2)?),
            !r.str(3)?.is_empty(),
        ));
    }
    Ok(OnHosts(out))
}

impl OnHosts {
    fn running(&self, host: &str) -> i64 {
        self.0.get(host).map_or(0, Vec::len) as i64
    }
    fn building(&self, host: &str) -> i64 {
        self.0.get(host).map_or(0, |v| v.iter().filter(|(_, _, b)| *b).count()) as i64
    }
    fn list(&self, host: &str) -> Vec<Value> {
        self.0
            .get(host)
            .into_iter()
            .flatten()
            .map(|(id, name, _)| json!({"uuid": id, "name": name}))
            .collect()
    }
}

async fn hypervisors(app: Arc<Compute>, req: Req, detail: bool) -> Result<Reply> {
    let (v, ctx) = (req.version, req.ctx()?);
    let rule = if detail {
        policy::HYPERVISORS_DETAIL
    } else {
        policy::HYPERVISORS
    };
    ctx.enforce(rule, &Target::default())?;
    check_query(
        &req,
        &["limit", "marker", "hypervisor_hostname_pattern", "with_servers"],
    )?;
    let mut tx = app.db.read().await?;
    let mut all = nodes(&app, &mut tx).await?;
    let on = on_hosts(&mut tx).await?;
    let mut links = None;
    let mut with_servers = false;
    if v >= Ver(2, 53) {
        with_servers = req.q_bool("with_servers")?.unwrap_or(false);
        if let Some(p) = req.q("hypervisor_hostname_pattern") {
            if req.q("limit").is_some() || req.q("marker").is_some() {
                return Err(Error::field(
                    "hypervisor_hostname_pattern",
                    "Paging over hypervisors with the hypervisor_hostname_pattern query parameter is not supported.",
                ));
            }
            all.retain(|n| n.service.host_name.contains(p));
            if all.is_empty() {
                return Err(Error::not_found(format!(
                    "No hypervisor matching '{p}' could be found."
                )));
            }
        }
    }
    if v >= Ver(2, 33) {
        let page = Page::of(&req)?;
        if let Some(m) = &page.marker {
            let at = all
                .iter()
                .position(|n| n.key(v) == *m)
                .ok_or_else(|| Error::field("marker", format!("marker [{m}] not found")))?;
            all.drain(..=at);
        }
        let more = page.cut(&mut all);
        let path = if detail {
            "/v2.1/os-hypervisors/detail"
        } else {
            "/v2.1/os-hypervisors"
        };
        links = all
            .last()
            .filter(|_| more)
            .map(|n| Page::next_link(&req, path, &n.key(v)));
    }
    let list: Vec<Value> = all
        .iter()
        .map(|n| {
            let host = &n.service.host_id;
            let mut out = if detail {
                n.detail(v, on.running(host), on.building(host))
            } else {
                n.basic(v)
            };
            let servers = on.list(host);
            if let (true, Some(m)) = (
                with_servers && (v >= Ver(2, 75) || !servers.is_empty()),
                out.as_object_mut(),
            ) {
                m.insert("servers".into(), servers.into());
            }
            out
        })
        .collect();
    let mut body = json!({"hypervisors": list});
    if let (Some(l), Some(m)) = (links, body.as_object_mut()) {
        m.insert("hypervisors_links".into(), l);
    }
    Ok(Reply::ok(&body))
}

/// `GET /os-hypervisors`
pub(crate) async fn hypervisors_index(app: Arc<Compute>, req: Req) -> Result<Reply> {
    hypervisors(app, req, false).await
}

/// `GET /os-hypervisors/detail`
pub(crate) async fn hypervisors_detail(app: Arc<Compute>, req: Req) -> Result<Reply> {
    hypervisors(app, req, true).await
}

fn no_hypervisor(id: &str) -> Error {
    Error::not_found(format!("Hypervisor with ID '{id}' could not be found."))
}

/// By UUID since 2.53, by number before.
async fn node(app: &Compute, tx: &mut Tx, v: Ver, asked: &str) -> Result<Node> {
    if v >= Ver(2, 53) && !id::is_uuid(asked) {
        return Err(Error::field("id", format!("Invalid uuid {asked}")));
    }
    nodes(app, tx)
        .await?
        .into_iter()
        .find(|n| {
            if v >= Ver(2, 53) {
                n.service.host_id == asked
            } else {
                n.service.number.to_string() == asked
            }
        })
        .ok_or_else(|| no_hypervisor(asked))
}

/// `GET /os-hypervisors/{id}`
pub(crate) async fn hypervisor(app: Arc<Compute>, req: Req) -> Result<Reply> {
    let v = req.version;
    req.ctx()?.enforce(policy::HYPERVISOR_SHOW, &Target::default())?;
    check_query(&req, &["with_servers"])?;
    let with_servers = v >= Ver(2, 53) && req.q_bool("with_servers")?.unwrap_or(false);
    let mut tx = app.db.read().await?;
    let n = node(&app, &mut tx, v, req.param("id")).await?;
    let on = on_hosts(&mut tx).await?;
    let host = &n.service.host_id;
    let mut out = n.detail(v, on.running(host), on.building(host));
    let servers = on.list(host);
    if let (true, Some(m)) = (
        with_servers && (v >= Ver(2, 75) || !servers.is_empty()),
        out.as_object_mut(),
    ) {
        m.insert("servers".into(), servers.into());
    }
    Ok(Reply::ok(&json!({"hypervisor": out})))
}

/// `GET /os-hypervisors/statistics` (until 2.87)
pub(crate) async fn statistics(app: Arc<Compute>, req: Req) -> Result<Reply> {
    req.ctx()?.enforce(policy::HYPERVISOR_STATISTICS, &Target::default())?;
    let mut tx = app.db.read().await?;
    let on = on_hosts(&mut tx).await?;
    let mut sums = [(0i64, 0i64); 3];
    let (mut count, mut running, mut building) = (0, 0, 0);
    for n in nodes(&app, &mut tx).await?.iter().filter(|n| !n.service.disabled) {
        count += 1;
        running += on.running(&n.service.host_id);
        building += on.building(&n.service.host_id);
        for (s, x) in sums.iter_mut().zip(n.stock) {
            s.0 += x.0;
            s.1 += x.1;
        }
    }
    let [(vu, v), (ru, r), (du, d)] = sums;
    Ok(Reply::ok(&json!({"hypervisor_statistics": {
        "count": count, "current_workload": building, "running_vms": running, "vcpus": v, "vcpus_used": vu, "memory_mb": r,
        "memory_mb_used": ru, "free_ram_mb": r - ru, "local_gb": d, "local_gb_used": du, "free_disk_gb": d - du,
        "disk_available_least": d - du,
    }})))
}

/// `GET /os-hypervisors/{id}/uptime` (until 2.87)
pub(crate) async fn uptime(app: Arc<Compute>, req: Req) -> Result<Reply> {
    let v = req.version;
    req.ctx()?.enforce(policy::HYPERVISOR_UPTIME, &Target::default())?;
    let mut tx = app.db.read().await?;
    let n = node(&app, &mut tx, v, req.param("id")).await?;
    if !n.up() {
        return Err(Error::field(
            "id",
            format!(
                "Compute service of {} is unavailable at this time.",
                n.service.host_name
            ),
        ));
    }
    let mut out = n.basic(v);
    if let Some(m) = out.as_object_mut() {
        m.insert("uptime".into(), "".into());
    }
    Ok(Reply::ok(&json!({"hypervisor": out})))
}

async fn matching(app: &Compute, tx: &mut Tx, pattern: &str) -> Result<Vec<Node>> {
    let all: Vec<Node> = nodes(app, tx)
        .await?
        .into_iter()
        .filter(|n| n.service.host_name.contains(pattern))
        .collect();
    if all.is_empty() {
        return Err(Error::not_found(format!(
            "No hypervisor matching '{pattern}' could be found."
        )));
    }
    Ok(all)
}

/// `GET /os-hypervisors/{pattern}/search` (until 2.52)
pub(crate) async fn search(app: Arc<Compute>, req: Req) -> Result<Reply> {
    req.ctx()?.enforce(policy::HYPERVISOR_SEARCH, &Target::default())?;
    let mut tx = app.db.read().await?;
    let list: Vec<Value> = matching(&app, &mut tx, req.param("id"))
        .await?
        .iter()
        .map(|n| n.basic(req.version))
        .collect();
    Ok(Reply::ok(&json!({"hypervisors": list})))
}

/// `GET /os-hypervisors/{pattern}/servers` (until 2.52)
pub(crate) async fn servers(app: Arc<Compute>, req: Req) -> Result<Reply> {
    req.ctx()?.enforce(policy::HYPERVISOR_SERVERS, &Target::default())?;
    let mut tx = app.db.read().await?;
    let found = matching(&app, &mut tx, req.param("id")).await?;
    let on = on_hosts(&mut tx).await?;
    let list: Vec<Value> = found
        .iter()
        .map(|n| {
            let mut out = n.basic(req.version);
            let servers = on.list(&n.service.host_id);
            if let (false, Some(m)) = (servers.is_empty(), out.as_object_mut()) {
                m.insert("servers".into(), servers.into());
            }
            out
        })
        .collect();
    Ok(Reply::ok(&json!({"hypervisors": list})))
}

fn service_view(app: &Compute, zones: &Zones, n: &Node, v: Ver) -> Value {
    let s = &n.service;
    let id: Value = if v >= Ver(2, 53) {
        s.id.as_str().into()
    } else {
        s.number.into()
    };
    let mut out = json!({
        "id": id, "binary": BINARY, "host": s.host_name, "zone": zones.of(&s.host_id, &app.config.availability_zone),
        "status": if s.disabled { "disabled" } else { "enabled" }, "state": if n.up() { "up" } else { "down" },
        "updated_at": clock::naive_micros(s.updated_at), "disabled_reason": s.disabled_reason,
    });
    if let (true, Some(m)) = (v >= Ver(2, 11), out.as_object_mut()) {
        m.insert("forced_down".into(), s.forced_down.into());
    }
    out
}

/// `GET /os-services`
pub(crate) async fn services(app: Arc<Compute>, req: Req) -> Result<Reply> {
    req.ctx()?.enforce(acts::ServiceList::RULE, &Target::default())?;
    check_query(&req, &["host", "binary"])?;
    let mut tx = app.db.read().await?;
    let zones = Zones::read(&mut tx).await?;
    let list: Vec<Value> = nodes(&app, &mut tx)
        .await?
        .iter()
        .filter(|n| {
            req.q("host")
                .filter(|h| !h.is_empty())
                .is_none_or(|h| h == n.service.host_name)
        })
        .filter(|_| req.q("binary").filter(|b| !b.is_empty()).is_none_or(|b| b == BINARY))
        .map(|n| service_view(&app, &zones, n, req.version))
        .collect();
    Ok(Reply::ok(&json!({"services": list})))
}

/// Changes the service of a host; found by its id, or before 2.53 by the host's name.
pub(super) async fn service_change(
    app: &Arc<Compute>,
    req: &Req,
    key: (&'static str, String),
    change: impl Fn(&mut ComputeService) + Send + 'static,
) -> Result<Stored<ComputeService>> {
    let c = req.ctx()?.clone();
    let app = app.clone();
    let db = app.db.clone();
    db.write(&req.ctx()?.actor(), async move |tx| {
        let (column, value) = (key.0, key.1.as_str());
        let missing = || match column {
            "name" => Error::not_found(format!("Could not find binary {BINARY} on host {value}.")),
            _ => Error::not_found(format!("Service {value} not found.")),
        };
        let stored = tx
            .list::<ComputeService>(&Query::new().eq(column, value))
            .await?
            .into_iter()
            .next()
            .ok_or_else(missing)?;
        let old = authorize(&c, acts::ServiceUpdate, stored, value)?;
        let mut new = old.edit();
        change(&mut new);
        if new == old.value {
            return Ok(Stored::clone(&old));
        }
        app.service_changed(tx, &new).await?;
        if new.forced_down && !old.forced_down {
            // The operator's word that the host is off.
            app.fleet.declare_ended(tx, &new.host_id).await?;
        }
        tx.update(&old, &new).await
    })
    .await
}

static SERVICE_OLD: Body = Body {
    open: false,
    fields: &[
        f("host", K::Str { min: 1, max: 255 }).req(),
        f("binary", K::Str { min: 1, max: 255 }).req(),
        f("disabled_reason", K::Str { min: 1, max: 255 }),
        f("forced_down", BOOL).since(2, 11),
    ],
};
static SERVICE_NEW: Body = Body {
    open: false,
    fields: &[
        f("status", K::OneOf(&["enabled", "disabled"])),
        f("disabled_reason", K::Str { min: 1, max: 255 }),
        f("forced_down", BOOL),
    ],
};

/// `PUT /os-services/{id}`; before 2.53 the last part is what to do (enable, disable, disable-log-reason, force-down).
pub(crate) async fn service_update(app: Arc<Compute>, mut req: Req) -> Result<Reply> {
    let v = req.version;
    req.ctx()?.enforce(acts::ServiceUpdate::RULE, &Target::default())?;
    let body = req.json().await?;
    let asked = req.param("id").to_owned();
    let reason = input::text(&body, "disabled_reason");
    if v >= Ver(2, 53) {
        haneul_http::fields::check(&SERVICE_NEW, &body, v, "service")?;
        if !id::is_uuid(&asked) {
            return Err(Error::field("id", format!("Invalid uuid {asked}")));
        }
        let (status, down) = (input::text(&body, "status"), input::boolean(&body, "forced_down"));
        if status.is_none() && down.is_none() {
            return Err(Error::bad_request(
                "No updates were requested. Fields 'status' or 'forced_down' should be specified.",
            ));
        }
        if reason.is_some() && status.as_deref() != Some("disabled") {
            return Err(Error::field(
                "disabled_reason",
                "Specifying disabled_reason requires that status is specified as 'disabled'.",
            ));
        }
        service_change(&app, &req, ("id", asked.clone()), move |s| {
            if let Some(st) = &status {
                s.disabled = st == "disabled";
                s.disabled_reason.clone_from(&reason);
            }
            s.forced_down = down.unwrap_or(s.forced_down);
        })
        .await?;
        let mut tx = app.db.read().await?;
        let zones = Zones::read(&mut tx).await?;
        let all = nodes(&app, &mut tx).await?;
        let n = all
            .iter()
            .find(|n| n.service.id == asked)
            .ok_or_else(|| Error::not_found(format!("Service {asked} not found.")))?;
        return Ok(Reply::ok(&json!({"service": service_view(&app, &zones, n, v)})));
    }
    haneul_http::fields::check(&SERVICE_OLD, &body, v, "service")?;
    let (host, binary) = (
        input::text(&body, "host").unwrap_or_default(),
        input::text(&body, "binary").unwrap_or_default(),
    );
    if binary != BINARY {
        return Err(Error::field(
            "binary",
            format!("Updating a {binary} service is not supported. Only {BINARY} services can be updated."),
        ));
    }
    let key = ("name", host.clone());
    let mut out = json!({"host": host, "binary": binary});
    let Some(m) = out.as_object_mut() else {
        return Err(Error::internal("an object"));
    };
    match asked.as_str() {
        "enable" => {
            service_change(&app, &req, key, |s| {
                s.disabled = false;
                s.disabled_reason = None;
            })
            .await?;
            m.insert("status".into(), "enabled".into());
        }
        "disable" | "disable-log-reason" => {
            if asked == "disable-log-reason" {
                let Some(r) = &reason else {
                    return Err(Error::field("disabled_reason", "Missing disabled reason field"));
                };
                m.insert("disabled_reason".into(), r.as_str().into());
            }
            let reason = reason.filter(|_| asked == "disable-log-reason");
            service_change(&app, &req, key, move |s| {
                s.disabled = true;
                s.disabled_reason.clone_from(&reason);
            })
            .await?;
            m.insert("status".into(), "disabled".into());
        }
        "force-down" if v >= Ver(2, 11) => {
            let Some(down) = input::boolean(&body, "forced_down") else {
                return Err(Error::field("forced_down", "Missing forced_down field"));
            };
            service_change(&app, &req, key, move |s| s.forced_down = down).await?;
            m.insert("forced_down".into(), down.into());
        }
        _ => return Err(Error::not_found("Unknown action")),
    }
    Ok(Reply::ok(&json!({"service": out})))
}

/// `DELETE /os-services/{id}`: refused while the host has servers or is there.
pub(crate) async fn service_delete(app: Arc<Compute>, req: Req) -> Result<Reply> {
    let (v, asked) = (req.version, req.param("id").to_owned());
    req.ctx()?.enforce(acts::ServiceDelete::RULE, &Target::default())?;
    let mut tx = app.db.read().await?;
    if v >= Ver(2, 53) && !id::is_uuid(&asked) {
        return Err(Error::field("id", format!("Invalid uuid {asked}")));
    }
    if v < Ver(2, 53) && asked.parse::<i64>().is_err() {
        return Err(Error::field("id", format!("id must be an integer, and is '{asked}'")));
    }
    let all = nodes(&app, &mut tx).await?;
    let n = all
        .iter()
        .find(|n| {
            if v >= Ver(2, 53) {
                n.service.id == asked
            } else {
                n.service.number.to_string() == asked
            }
        })
        .ok_or_else(|| Error::not_found(format!("Service {asked} not found.")))?;
    let host = n.service.host_id.clone();
    let up = n.up();
    drop(tx);
    let c = req.ctx()?.clone();
    let (a, service_id) = (app.clone(), n.service.id.clone());
    app.db
        .write(&req.ctx()?.actor(), async move |tx| {
            let count = tx.count::<Server>(&Query::new().eq("host_id", host.as_str())).await?;
            if count > 0 {
                return Err(Error::conflict(format!(
                    "Unable to delete compute service that is hosting instances: there are {count}. Delete them first."
                )));
            }
            if up {
                return Err(Error::conflict(
                    "Unable to delete the compute service of a host that is up. Stop its agent first.",
                ));
            }
            let s = haneul_auth::fetch(tx, &c, acts::ServiceDelete, &service_id).await?;
            tx.delete(&s).await?;
            let hook = a.snapshot.clone();
            tx.after_commit(move || hook.drop_it());
            Ok(())
        })
        .await?;
    Ok(Reply::no_content())
}

/// Zones with their hosts, those that are not switched off; the default zone stands first.
async fn by_zone(app: &Compute, tx: &mut Tx) -> Result<Vec<(String, Vec<Node>)>> {
    let default = &app.config.availability_zone;
    let zones = Zones::read(tx).await?;
    let mut out = vec![(default.clone(), Vec::new())];
    for n in nodes(app, tx).await? {
        let zone = zones.of(&n.service.host_id, default);
        if !out.iter().any(|(z, _)| z == zone) {
            out.push((zone.to_owned(), Vec::new()));
        }
        if let Some((_, hosts)) = out.iter_mut().find(|(z, _)| z == zone).filter(|_| !n.service.disabled) {
            hosts.push(n);
        }
    }
    Ok(out)
}

/// `GET /os-availability-zone`
pub(crate) async fn zones(app: Arc<Compute>, req: Req) -> Result<Reply> {
    req.ctx()?.enforce(policy::ZONES, &Target::default())?;
    let mut tx = app.db.read().await?;
    let list: Vec<Value> = by_zone(&app, &mut tx)
        .await?
        .iter()
        .map(|(z, hosts)| json!({"zoneName": z, "zoneState": {"available": !hosts.is_empty()}, "hosts": null}))
        .collect();
    Ok(Reply::ok(&json!({"availabilityZoneInfo": list})))
}

/// `GET /os-availability-zone/detail`
pub(crate) async fn zones_detail(app: Arc<Compute>, req: Req) -> Result<Reply> {
    req.ctx()?.enforce(policy::ZONES_DETAIL, &Target::default())?;
    let mut tx = app.db.read().await?;
    let list: Vec<Value> = by_zone(&app, &mut tx)
        .await?
        .iter()
        .map(|(z, nodes)| {
            let hosts: serde_json::Map<String, Value> = nodes
                .iter()
                .map(|n| {
                    let at = clock::naive_micros(n.service.updated_at);
                    let seen = json!({"available": n.up(), "active": true, "updated_at": at});
                    (n.service.host_name.clone(), json!({ BINARY: seen }))
                })
                .collect();
            let available = !hosts.is_empty();
            let hosts = if available { Value::Object(hosts) } else { Value::Null };
            json!({"zoneName": z, "zoneState": {"available": available}, "hosts": hosts})
        })
        .collect();
    Ok(Reply::ok(&json!({"availabilityZoneInfo": list})))
}

macro_rules! off {
    ($($(#[$doc:meta])* $name:ident $rule:expr;)*) => {$(
        $(#[$doc])*
        pub(crate) async fn $name(_app: Arc<Compute>, req: Req) -> Result<Reply> {
            req.ctx()?.enforce($rule, &Target::default())?;
            Err(Error::new(haneul_core::Kind::NotImplemented, "This is not served by this cloud."))
        }
    )*};
}
off! {
    /// `POST /os-aggregates/{id}/images`
    aggregate_images policy::AGGREGATE_IMAGES;
    /// `POST /os-assisted-volume-snapshots`
    assisted_create policy::ASSISTED_SNAPSHOT_CREATE;
    /// `DELETE /os-assisted-volume-snapshots/{id}`
    assisted_delete policy::ASSISTED_SNAPSHOT_DELETE;
}
