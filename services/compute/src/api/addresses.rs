//! Networks and floating IPs as compute shows them, until 2.35, and the actions that lead a floating IP to a server,
//! until 2.43 (Nova API reference, the sections of these names). They are the network service's, in Nova's words.

use super::input::{self, IP, allowed};
use crate::Compute;
use crate::logic::deps::{NamedNetwork, PooledIp};
use crate::policy::{self, acts};
use haneul_auth::{Ctx, fetch};
use haneul_core::{Error, Kind, Result};
use haneul_http::{Body, FieldKind as K, Reply, Req, Ver, f, fields};
use http::StatusCode;
use serde_json::{Map, Value, json};
use std::sync::Arc;

static CREATE: Body = Body {
    open: true,
    fields: &[f("pool", K::Str { min: 0, max: 255 }).null()],
};
static ADD: Body = Body {
    open: false,
    fields: &[f("address", IP).req(), f("fixed_address", IP)],
};
static REMOVE: Body = Body {
    open: false,
    fields: &[f("address", IP).req()],
};

/// Of what networks had here once, two fields are left (nova/api/openstack/compute/networks.py).
fn network_view(ctx: &Ctx, n: &NamedNetwork) -> Value {
    const EVERYONE: &[&str] = &[
        "cidr",
        "netmask",
        "gateway",
        "broadcast",
        "dns1",
        "dns2",
        "cidr_v6",
        "gateway_v6",
        "netmask_v6",
    ];
    const ADMIN: &[&str] = &[
        "created_at",
        "updated_at",
        "deleted_at",
        "deleted",
        "injected",
        "bridge",
        "vlan",
        "vpn_public_address",
        "vpn_public_port",
        "vpn_private_address",
        "dhcp_start",
        "project_id",
        "host",
        "bridge_interface",
        "multi_host",
        "priority",
        "rxtx_base",
        "mtu",
        "dhcp_server",
        "enable_dhcp",
        "share_address",
    ];
    let more = if ctx.is_admin() { ADMIN } else { &[] };
    let mut out: Map<String, Value> = EVERYONE
        .iter()
        .chain(more)
        .map(|name| ((*name).to_owned(), Value::Null))
        .collect();
    out.insert("id".into(), n.id.as_str().into());
    out.insert("label".into(), n.name.as_str().into());
    Value::Object(out)
}

/// `GET /os-networks`
pub(crate) async fn networks(app: Arc<Compute>, req: Req) -> Result<Reply> {
    let ctx = allowed(&req, policy::NETWORKS)?;
    let found = app.network.networks(&mut app.db.read().await?, &ctx).await?;
    let list: Vec<Value> = found.iter().map(|n| network_view(&ctx, n)).collect();
    Ok(Reply::ok(&json!({"networks": list})))
}

/// `GET /os-networks/{id}`
pub(crate) async fn network(app: Arc<Compute>, req: Req) -> Result<Reply> {
    let ctx = allowed(&req, policy::NETWORK_SHOW)?;
    let found = app
        .network
        .network(&mut app.db.read().await?, &ctx, req.param("id"))
        .await?;
    Ok(Reply::ok(&json!({"network": network_view(&ctx, &found)})))
}

/// Clients have always got this `cidr` (nova/api/openstack/compute/tenant_networks.py).
fn tenant_network_view(n: &NamedNetwork) -> Value {
    json!({"id": n.id, "label": n.name, "cidr": "None"})
}

/// `GET /os-tenant-networks`
pub(crate) async fn tenant_networks(app: Arc<Compute>, req: Req) -> Result<Reply> {
    let ctx = allowed(&req, policy::TENANT_NETWORKS)?;
    let found = app.network.networks(&mut app.db.read().await?, &ctx).await?;
    let list: Vec<Value> = found.iter().map(tenant_network_view).collect();
    Ok(Reply::ok(&json!({"networks": list})))
}

/// `GET /os-tenant-networks/{id}`
pub(crate) async fn tenant_network(app: Arc<Compute>, req: Req) -> Result<Reply> {
    let ctx = allowed(&req, policy::TENANT_NETWORK_SHOW)?;
    let found = app
        .network
        .network(&mut app.db.read().await?, &ctx, req.param("id"))
        .await?;
    Ok(Reply::ok(&json!({"network": tenant_network_view(&found)})))
}

/// `GET /os-floating-ip-pools`
pub(crate) async fn pools(app: Arc<Compute>, req: Req) -> Result<Reply> {
    let ctx = allowed(&req, policy::FLOATING_IP_POOLS)?;
    let found = app.network.networks(&mut app.db.read().await?, &ctx).await?;
    let name = |n: &NamedNetwork| json!({"name": if n.name.is_empty() { &n.id } else { &n.name }});
    let list: Vec<Value> = found.iter().filter(|n| n.external).map(name).collect();
    Ok(Reply::ok(&json!({"floating_ip_pools": list})))
}

fn view(ip: &PooledIp) -> Value {
    json!({"id": ip.id, "ip": ip.address, "fixed_ip": ip.fixed, "instance_id": ip.server_id, "pool": ip.pool})
}

/// `GET /os-floating-ips`
pub(crate) async fn index(app: Arc<Compute>, req: Req) -> Result<Reply> {
    let ctx = allowed(&req, policy::FLOATING_IPS)?;
    let found = app.network.pooled_ips(&mut app.db.read().await?, &ctx).await?;
    Ok(Reply::ok(
        &json!({"floating_ips": found.iter().map(view).collect::<Vec<_>>()}),
    ))
}

/// `GET /os-floating-ips/{id}`
pub(crate) async fn show(app: Arc<Compute>, req: Req) -> Result<Reply> {
    let ctx = allowed(&req, policy::FLOATING_IP_SHOW)?;
    let found = app
        .network
        .pooled_ip(&mut app.db.read().await?, &ctx, req.param("id"))
        .await?;
    Ok(Reply::ok(&json!({"floating_ip": view(&found)})))
}

/// `POST /os-floating-ips`; without a body, of the cloud's own external network.
pub(crate) async fn create(app: Arc<Compute>, mut req: Req) -> Result<Reply> {
    let ctx = allowed(&req, policy::FLOATING_IP_CREATE)?;
    let bytes = req.bytes().await?;
    let body = match bytes.is_empty() {
        true => json!({}),
        false => serde_json::from_slice(&bytes)
            .map_err(|_| Error::bad_request("Malformed request body: it must be a JSON object with the key 'pool'."))?,
    };
    fields::check(&CREATE, &body, req.version, "floating_ip")?;
    let pool = input::text(&body, "pool").filter(|p| !p.is_empty());
    let network = app.network.clone();
    let made = app
        .db
        .write(&ctx.actor(), async move |tx| {
            network.pooled_ip_create(tx, &ctx, pool.as_deref()).await
        })
        .await?;
    Ok(Reply::ok(&json!({"floating_ip": view(&made)})))
}

/// `DELETE /os-floating-ips/{id}`
pub(crate) async fn delete(app: Arc<Compute>, req: Req) -> Result<Reply> {
    let ctx = allowed(&req, policy::FLOATING_IP_DELETE)?;
    let id = req.param("id").to_owned();
    let network = app.network.clone();
    app.db
        .write(&ctx.actor(), async move |tx| {
            network.pooled_ip_delete(tx, &ctx, &id).await
        })
        .await?;
    Ok(Reply::empty(StatusCode::ACCEPTED))
}

/// `addFloatingIp`: to the address that is named, or to the first IPv4 one.
pub(crate) async fn add(app: &Arc<Compute>, ctx: &Ctx, id: &str, arg: &Value, v: Ver) -> Result<()> {
    fields::check(&ADD, arg, v, "addFloatingIp")?;
    let Some(address) = input::ip(arg, "address") else {
        return Ok(());
    };
    let wanted = input::ip(arg, "fixed_address");
    let (network, c, id) = (app.network.clone(), ctx.clone(), id.to_owned());
    app.db
        .write(&ctx.actor(), async move |tx| {
            let s = fetch(tx, &c, acts::AddFloatingIp, &id).await?;
            let ids = [s.id.clone()];
            let ports = network.server_ports(tx, &ids).await?.remove(&id).unwrap_or_default();
            let mut held = ports
                .iter()
                .flat_map(|p| p.fixed_ips.iter().map(move |(_, ip)| (p.port_id.as_str(), *ip)));
            let to = match wanted {
                Some(w) => held.find(|(_, ip)| *ip == w).ok_or_else(|| {
                    Error::field(
                        "fixed_address",
                        format!("Specified fixed address not assigned to instance: no port of {id} has {w}."),
                    )
                })?,
                None => held.find(|(_, ip)| ip.is_ipv4()).ok_or_else(|| {
                    Error::field(
                        "address",
                        format!("Unable to associate floating IP {address} to any fixed IPs for instance {id}. Instance has no fixed IPv4 addresses to associate."),
                    )
                })?,
            };
            let fip = network.pooled_ip_at(tx, &c, address).await?;
            let led = network.pooled_ip_lead(tx, &c, &fip.id, Some(to)).await;
            led.map_err(|e| match e.kind() {
                Kind::Conflict | Kind::NotFound => e.with_kind(Kind::BadRequest),
                _ => e,
            })
        })
        .await
}

/// `removeFloatingIp`
pub(crate) async fn remove(app: &Arc<Compute>, ctx: &Ctx, id: &str, arg: &Value, v: Ver) -> Result<()> {
    fields::check(&REMOVE, arg, v, "removeFloatingIp")?;
    let Some(address) = input::ip(arg, "address") else {
        return Ok(());
    };
    let (network, c, id) = (app.network.clone(), ctx.clone(), id.to_owned());
    app.db
        .write(&ctx.actor(), async move |tx| {
            let s = fetch(tx, &c, acts::RemoveFloatingIp, &id).await?;
            let fip = network.pooled_ip_at(tx, &c, address).await?;
            if fip.server_id.as_ref() != Some(&s.id) {
                return Err(Error::conflict(format!(
                    "Floating IP {address} is not associated with instance {id}."
                )));
            }
            network.pooled_ip_lead(tx, &c, &fip.id, None).await
        })
        .await
}
