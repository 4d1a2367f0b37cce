//! Hosts, as Neutron's clients see them: a host's one agent does the work of three, and is listed as such.

use super::list::{self, Shown};
use crate::Network;
use crate::err::not_found;
use crate::logic::publish::{hosts_of_network, service_port};
use crate::model::{Net, Router, owner};
use haneul_auth::{Secured, Target};
use haneul_core::{Result, clock};
use haneul_fleet::Host;
use haneul_http::{Reply, Req};
use haneul_store::{Dir, Query, Stored, Tx};
use serde_json::{Map, Value, json};
use std::sync::Arc;
use uuid::Uuid;

/// A part of what the agent does, by Neutron's names.
#[derive(Clone, Copy, PartialEq)]
enum Part {
    Bridge,
    Dhcp,
    Router,
}

impl Part {
    const ALL: [Part; 3] = [Part::Bridge, Part::Dhcp, Part::Router];

    fn kind(self) -> &'static str {
        match self {
            Part::Bridge => "Linux bridge agent",
            Part::Dhcp => "DHCP agent",
            Part::Router => "L3 agent",
        }
    }

    /// The first is the host itself; the others have ids that follow from it.
    fn id(self, host: &str) -> String {
        match (self, Uuid::try_parse(host)) {
            (Part::Dhcp | Part::Router, Ok(host)) => Uuid::new_v5(&host, self.kind().as_bytes()).to_string(),
            _ => host.to_owned(),
        }
    }
}

fn time(at: clock::Micros) -> Value {
    json!(clock::iso(at).replace('T', " ").trim_end_matches('Z'))
}

fn shown(app: &Network, h: &Stored<Host>, part: Part) -> Shown {
    let zone = match part {
        Part::Bridge => Value::Null,
        Part::Dhcp | Part::Router => json!(app.settings.availability_zone),
    };
    let underlay = h.underlay.map(|u| u.address.to_string());
    let configurations = json!({"release": h.release, "tunnel_types": ["vxlan"], "tunneling_ip": underlay});
    let mut m = Map::new();
    for (k, v) in [
        ("id", json!(part.id(&h.id))),
        ("agent_type", json!(part.kind())),
        ("binary", json!("haneul-agent")),
        ("host", json!(h.name)),
        ("availability_zone", zone),
        ("topic", json!("N/A")),
        ("admin_state_up", json!(true)),
        ("alive", json!(h.up)),
        ("created_at", time(h.created_at)),
        ("started_at", time(h.updated_at)),
        (
            "heartbeat_timestamp",
            time(if h.up { clock::now() } else { h.updated_at }),
        ),
        ("configurations", configurations),
        ("resources_synced", Value::Null),
        ("description", Value::Null),
    ] {
        m.insert(k.into(), v);
    }
    m
}

async fn hosts(tx: &mut Tx) -> Result<Vec<Stored<Host>>> {
    let query = Query::new().order("created_at", Dir::Asc).order("id", Dir::Asc);
    tx.list::<Host>(&query).await
}

async fn all(app: &Network, req: &Req) -> Result<Vec<Shown>> {
    // A list of what may be seen: nothing for who may see none.
    if !req.ctx()?.may("get_agent", &Target::default()) {
        return Ok(vec![]);
    }
    let mut tx = app.db.read().await?;
    let hosts = hosts(&mut tx).await?;
    let parts = |h| Part::ALL.map(|p| shown(app, h, p));
    Ok(hosts.iter().flat_map(parts).collect())
}

/// `GET /v2.0/agents`
pub async fn index(app: Arc<Network>, req: Req) -> Result<Reply> {
    let mut all = all(&app, &req).await?;
    for (name, value) in &req.query {
        if name != "fields" {
            all.retain(|a| match a.get(name) {
                Some(Value::Bool(b)) => haneul_http::request::parse_bool(value) == Some(*b),
                Some(Value::String(s)) => s == value,
                _ => false,
            });
        }
    }
    list::pick(&req, &mut all);
    Ok(Reply::ok(&json!({"agents": all})))
}

fn no_agent(id: &str) -> haneul_core::Error {
    not_found("AgentNotFound", format!("Agent {id} could not be found."))
}

/// `GET /v2.0/agents/{id}`
pub async fn show(app: Arc<Network>, req: Req) -> Result<Reply> {
    let id = super::id(&req).to_owned();
    let found = all(&app, &req).await?.into_iter();
    let mut found = found.filter(|a| a.get("id").and_then(Value::as_str) == Some(&id));
    match found.next() {
        Some(a) => Ok(Reply::ok(&json!({"agent": a}))),
        None => Err(no_agent(&id)),
    }
}

/// These hosts' agents of a kind.
async fn of(app: &Network, tx: &mut Tx, ids: &[String], part: Part) -> Result<Reply> {
    let hosts = hosts(tx).await?;
    let held = hosts.iter().filter(|h| ids.contains(&h.id));
    let all: Vec<Shown> = held.map(|h| shown(app, h, part)).collect();
    Ok(Reply::ok(&json!({"agents": all})))
}

/// `GET /v2.0/routers/{id}/l3-agents`: the gateway host.
pub async fn of_router(app: Arc<Network>, req: Req) -> Result<Reply> {
    req.ctx()?.enforce("get_l3-agents", &Target::default())?;
    let id = super::id(&req);
    let mut tx = app.db.read().await?;
    let router = tx.find::<Router>(id).await?.ok_or_else(|| Router::not_found(id))?;
    of(&app, &mut tx, std::slice::from_ref(&router.host_id), Part::Router).await
}

/// `GET /v2.0/networks/{id}/dhcp-agents`: every host that has a port in it.
pub async fn of_network(app: Arc<Network>, req: Req) -> Result<Reply> {
    req.ctx()?.enforce("get_dhcp-agents", &Target::default())?;
    let id = super::id(&req);
    let mut tx = app.db.read().await?;
    tx.find::<Net>(id).await?.ok_or_else(|| Net::not_found(id))?;
    let hosts = match service_port(&mut tx, id).await? {
        Some(_) => hosts_of_network(&mut tx, id).await?,
        None => vec![],
    };
    of(&app, &mut tx, &hosts, Part::Dhcp).await
}

/// The host behind an agent of this kind.
async fn host_of(tx: &mut Tx, id: &str, part: Part) -> Result<String> {
    let hosts = hosts(tx).await?;
    let host = hosts.iter().find(|h| part.id(&h.id) == id);
    host.map(|h| h.id.clone()).ok_or_else(|| no_agent(id))
}

/// `GET /v2.0/agents/{id}/l3-routers`
pub async fn routers(app: Arc<Network>, req: Req) -> Result<Reply> {
    req.ctx()?.enforce("get_l3-routers", &Target::default())?;
    let mut tx = app.db.read().await?;
    let host = host_of(&mut tx, super::id(&req), Part::Router).await?;
    let query = Query::new().eq("host_id", host).order("id", Dir::Asc);
    let mut all = Vec::new();
    for router in tx.list::<Router>(&query).await? {
        all.push(list::one(&app, &mut tx, req.ctx()?, &router).await?);
    }
    Ok(Reply::ok(&json!({"routers": all})))
}

/// `GET /v2.0/agents/{id}/dhcp-networks`
pub async fn networks(app: Arc<Network>, req: Req) -> Result<Reply> {
    req.ctx()?.enforce("get_dhcp-networks", &Target::default())?;
    let mut tx = app.db.read().await?;
    let host = host_of(&mut tx, super::id(&req), Part::Dhcp).await?;
    let sql = "SELECT DISTINCT h.network_id FROM port_host h JOIN port p ON p.network_id = h.network_id
               WHERE h.host_id = $1 AND p.device_owner = $2 ORDER BY h.network_id";
    let mut all = Vec::new();
    for row in tx.rows(sql, &[host.into(), owner::DHCP.into()]).await? {
        if let Some(net) = tx.find::<Net>(&row.str(0)?).await? {
            all.push(list::one(&app, &mut tx, req.ctx()?, &net).await?);
        }
    }
    Ok(Reply::ok(&json!({"networks": all})))
}
