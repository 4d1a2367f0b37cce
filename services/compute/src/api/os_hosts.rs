//! Old operators' resources: os-hosts (until 2.42), the log of usage audits, external events (Nova API reference, the
//! sections of these names).

use super::admin::{nodes, service_change};
use super::input;
use crate::Compute;
use crate::logic::zones::Zones;
use crate::model::Server;
use crate::policy;
use haneul_auth::Target;
use haneul_core::{Error, Kind, Result, clock};
use haneul_http::{Body, FieldKind as K, Reply, Req, f};
use haneul_store::Query;
use http::StatusCode;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// `GET /os-hosts`
pub(crate) async fn index(app: Arc<Compute>, req: Req) -> Result<Reply> {
    req.ctx()?.enforce(policy::HOSTS, &Target::default())?;
    let mut tx = app.db.read().await?;
    let zones = Zones::read(&mut tx).await?;
    let list: Vec<Value> = nodes(&app, &mut tx)
        .await?
        .iter()
        .map(|n| (n, zones.of(&n.service.host_id, &app.config.availability_zone)))
        .filter(|(_, zone)| req.q("zone").filter(|z| !z.is_empty()).is_none_or(|z| z == *zone))
        .map(|(n, zone)| json!({"host_name": n.service.host_name, "service": "compute", "zone": zone}))
        .collect();
    Ok(Reply::ok(&json!({"hosts": list})))
}

fn no_host(name: &str) -> Error {
    Error::not_found(format!("Compute host {name} could not be found."))
}

/// `GET /os-hosts/{name}`: what the host has, what is taken of it, and what by which project.
pub(crate) async fn show(app: Arc<Compute>, req: Req) -> Result<Reply> {
    req.ctx()?.enforce(policy::HOST_SHOW, &Target::default())?;
    let name = req.param("id");
    let mut tx = app.db.read().await?;
    let all = nodes(&app, &mut tx).await?;
    let n = all
        .iter()
        .find(|n| n.service.host_name == name)
        .ok_or_else(|| no_host(name))?;
    let mut of: BTreeMap<String, [i64; 3]> = BTreeMap::new();
    let query = Query::new().eq("host_id", n.service.host_id.as_str());
    for s in tx.list::<Server>(&query).await? {
        let sums = of.entry(s.project_id.clone()).or_default();
        for (sum, (_, amount)) in sums.iter_mut().zip(s.amounts()) {
            *sum += amount;
        }
    }
    let row = |project: &str, [cpu, ram, disk]: [i64; 3]| json!({"resource": {"host": name, "project": project, "cpu": cpu, "memory_mb": ram, "disk_gb": disk}});
    let all = of.values().fold([0; 3], |a, b| [a[0] + b[0], a[1] + b[1], a[2] + b[2]]);
    let mut list = vec![
        row("(total)", n.stock.map(|(_, total)| total)),
        row("(used_now)", n.stock.map(|(used, _)| used)),
        row("(used_max)", all),
    ];
    list.extend(of.iter().map(|(project, sums)| row(project, *sums)));
    Ok(Reply::ok(&json!({"host": list})))
}

const SWITCH: K = K::OneOf(&["enable", "disable", "Enable", "Disable", "ENABLE", "DISABLE"]);
static UPDATE: Body = Body {
    open: false,
    fields: &[f("status", SWITCH), f("maintenance_mode", SWITCH)],
};

/// `PUT /os-hosts/{name}`: whether new servers go there, which is its service's to say.
pub(crate) async fn update(app: Arc<Compute>, mut req: Req) -> Result<Reply> {
    req.ctx()?.enforce(policy::HOST_UPDATE, &Target::default())?;
    let name = req.param("id").to_owned();
    let body = req.json().await?;
    haneul_http::fields::check(&UPDATE, &body, req.version, "host")?;
    let mut tx = app.db.read().await?;
    if !nodes(&app, &mut tx).await?.iter().any(|n| n.service.host_name == name) {
        return Err(no_host(&name));
    }
    drop(tx);
    if body.get("maintenance_mode").is_some() {
        return Err(Error::new(
            Kind::NotImplemented,
            format!(
                "This hypervisor has no maintenance mode. `haneul host drain {name}` keeps new servers away from the host and moves away those that are there, while they run; status: disable only keeps new ones away."
            ),
        ));
    }
    let Some(status) = input::text(&body, "status") else {
        return Err(Error::field(
            "status",
            "Invalid input for field/attribute status. It is needed: enable or disable.",
        ));
    };
    let off = status.eq_ignore_ascii_case("disable");
    service_change(&app, &req, ("name", name.clone()), move |s| {
        s.disabled = off;
        s.disabled_reason = None;
    })
    .await?;
    let status = if off { "disabled" } else { "enabled" };
    Ok(Reply::ok(&json!({"host": name, "status": status})))
}

/// `GET /os-hosts/{name}/{startup,shutdown,reboot}`: no host is switched on or off from here.
pub(crate) async fn power(app: Arc<Compute>, req: Req) -> Result<Reply> {
    let what = req.uri_path.rsplit('/').next().unwrap_or_default().to_owned();
    let rule = match what.as_str() {
        "startup" => policy::HOST_START,
        "shutdown" => policy::HOST_SHUTDOWN,
        _ => policy::HOST_REBOOT,
    };
    req.ctx()?.enforce(rule, &Target::default())?;
    let name = req.param("id");
    let mut tx = app.db.read().await?;
    if !nodes(&app, &mut tx).await?.iter().any(|n| n.service.host_name == name) {
        return Err(no_host(name));
    }
    Err(Error::new(
        Kind::NotImplemented,
        format!("This hypervisor cannot {what} its host; do it on the host itself."),
    ))
}

/// `GET /os-instance_usage_audit_log`: Nova's hosts count their servers each month when they are told to. These do
/// not: usage is read off the change log, so nothing has run for any period.
pub(crate) async fn audit_log(app: Arc<Compute>, req: Req) -> Result<Reply> {
    let before = req.param("before");
    let rule = if before.is_empty() {
        policy::AUDIT_LOG
    } else {
        policy::AUDIT_LOG_SHOW
    };
    req.ctx()?.enforce(rule, &Target::default())?;
    let end = match before {
        "" => clock::now(),
        text => clock::parse(text).ok_or_else(|| {
            Error::bad_request(format!(
                "Invalid timestamp for date {text}: write it as 2026-11-30 12:00:00."
            ))
        })?,
    };
    let mut tx = app.db.read().await?;
    let hosts: Vec<String> = nodes(&app, &mut tx)
        .await?
        .iter()
        .map(|n| n.service.host_name.clone())
        .collect();
    let (begin, end) = last_month(end);
    let name = if before.is_empty() {
        "instance_usage_audit_logs"
    } else {
        "instance_usage_audit_log"
    };
    Ok(Reply::ok(&json!({name: {
        "hosts_not_run": hosts, "log": {}, "num_hosts": hosts.len(), "num_hosts_done": 0,
        "num_hosts_not_run": hosts.len(), "num_hosts_running": 0,
        "overall_status": format!("0 of {} hosts done. 0 errors.", hosts.len()),
        "period_beginning": begin, "period_ending": end, "total_errors": 0, "total_instances": 0,
    }})))
}

/// The whole month before this one, in Nova's form.
fn last_month(now: clock::Micros) -> (String, String) {
    let text = clock::iso(now);
    let part = |a: usize, b: usize| text.get(a..b).and_then(|t| t.parse::<i64>().ok()).unwrap_or(1);
    let (y, m) = (part(0, 4), part(5, 7));
    let (py, pm) = if m == 1 { (y - 1, 12) } else { (y, m - 1) };
    let of = |y: i64, m: i64| format!("{y:04}-{m:02}-01 00:00:00");
    (of(py, pm), of(y, m))
}

const NAMES_1: &[&str] = &[
    "network-changed",
    "network-vif-plugged",
    "network-vif-unplugged",
    "network-vif-deleted",
];
const NAMES_51: &[&str] = &[
    "network-changed",
    "network-vif-plugged",
    "network-vif-unplugged",
    "network-vif-deleted",
    "volume-extended",
];
const NAMES_76: &[&str] = &[
    "network-changed",
    "network-vif-plugged",
    "network-vif-unplugged",
    "network-vif-deleted",
    "volume-extended",
    "power-update",
];
const NAMES_82: &[&str] = &[
    "network-changed",
    "network-vif-plugged",
    "network-vif-unplugged",
    "network-vif-deleted",
    "volume-extended",
    "power-update",
    "accelerator-request-bound",
];
static EVENT: Body = Body {
    open: false,
    fields: &[
        f("server_uuid", K::Uuid).req(),
        f("name", K::OneOf(NAMES_1)).req().until(2, 50),
        f("name", K::OneOf(NAMES_51)).req().since(2, 51).until(2, 75),
        f("name", K::OneOf(NAMES_76)).req().since(2, 76).until(2, 81),
        f("name", K::OneOf(NAMES_82)).req().since(2, 82),
        f("status", K::OneOf(&["failed", "completed", "in-progress"])),
        f("tag", K::Str { min: 0, max: 255 }),
    ],
};
static EVENTS: Body = Body {
    open: false,
    fields: &[f(
        "events",
        K::List {
            of: &K::Obj(&EVENT),
            max: 1000,
        },
    )
    .req()],
};

/// `POST /os-server-external-events`: what other services tell Nova. The network service tells hosts itself, in the
/// transaction of the change, so an event of a server that runs here has nothing left to do.
pub(crate) async fn external_events(app: Arc<Compute>, mut req: Req) -> Result<Reply> {
    req.ctx()?.enforce(policy::EXTERNAL_EVENTS, &Target::default())?;
    let body = req.json().await?;
    haneul_http::fields::check(&EVENTS, &body, req.version, "events")?;
    let mut tx = app.db.read().await?;
    let (mut out, mut taken) = (Vec::new(), 0);
    let asked = body.get("events").and_then(Value::as_array);
    for event in asked.into_iter().flatten() {
        let id = input::text(event, "server_uuid").unwrap_or_default();
        let found = tx.find::<Server>(&id).await?;
        // nova/api/openstack/compute/server_external_events.py: 404 without a server, 422 without a host.
        let (code, status) = match found.map(|s| s.host_id.is_some()) {
            Some(true) => (200, input::text(event, "status").unwrap_or_else(|| "completed".into())),
            Some(false) => (422, "failed".into()),
            None => (404, "failed".into()),
        };
        taken += usize::from(code == 200);
        let mut e = event.clone();
        if let Some(m) = e.as_object_mut() {
            m.insert("code".into(), code.into());
            m.insert("status".into(), status.into());
        }
        out.push(e);
    }
    if taken == 0 {
        return Err(Error::not_found("No instances found for any event"));
    }
    let status = if taken == out.len() {
        StatusCode::OK
    } else {
        StatusCode::MULTI_STATUS
    };
    Ok(Reply::json(status, &json!({"events": out})))
}

#[cfg(test)]
mod tests {
    #[test]
    fn months() {
        let at = haneul_core::clock::parse("2026-01-15T10:00:00Z").unwrap_or_default();
        let (a, b) = super::last_month(at);
        assert_eq!((a.as_str(), b.as_str()), ("2025-12-01 00:00:00", "2026-01-01 00:00:00"));
    }
}
