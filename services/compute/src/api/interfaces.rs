//! Interfaces of a server (Nova API reference, "Port interfaces"), and the actions on its addresses.

use super::actions::find;
use super::input::{self, IP, TAG};
use super::sub::ports;
use crate::Compute;
use crate::logic::deps::{NicRequest, ServerPort};
use crate::policy::acts;
use haneul_auth::Ctx;
use haneul_core::{Error, Result};
use haneul_http::{Body, FieldKind as K, Reply, Req, Ver, f, fields};
use serde_json::{Value, json};
use std::sync::Arc;

static FIXED_IP: Body = Body {
    open: false,
    fields: &[f("ip_address", IP).req()],
};
static ATTACH: Body = Body {
    open: false,
    fields: &[
        f("net_id", K::Uuid),
        f("port_id", K::Uuid),
        f(
            "fixed_ips",
            K::List {
                of: &K::Obj(&FIXED_IP),
                max: 1,
            },
        ),
        f("tag", TAG).since(2, 49),
    ],
};
static ADD_FIXED_IP: Body = Body {
    open: false,
    fields: &[f(
        "networkId",
        K::Any(&[K::Str { min: 1, max: 255 }, K::Int { min: 1, max: i64::MAX }]),
    )
    .req()],
};
static REMOVE_FIXED_IP: Body = Body {
    open: false,
    fields: &[f("address", IP).req()],
};

fn view(p: &ServerPort, v: Ver) -> Value {
    let fixed: Vec<Value> = p
        .fixed_ips
        .iter()
        .map(|(s, ip)| json!({"subnet_id": s, "ip_address": ip}))
        .collect();
    let mut out = json!({"net_id": p.network_id, "port_id": p.port_id, "mac_addr": p.mac, "port_state": p.status, "fixed_ips": fixed});
    if let (true, Some(m)) = (v >= Ver(2, 70), out.as_object_mut()) {
        m.insert("tag".into(), json!(p.tag));
    }
    out
}

/// `GET /servers/{id}/os-interface`
pub(crate) async fn list(app: Arc<Compute>, req: Req) -> Result<Reply> {
    let s = find(&app, req.ctx()?, acts::Interfaces, req.param("id")).await?;
    let all = ports(&app, &s.id).await?;
    let list: Vec<Value> = all.iter().map(|p| view(p, req.version)).collect();
    Ok(Reply::ok(&json!({"interfaceAttachments": list})))
}

async fn shown(app: &Compute, server: &str, port: &str, v: Ver) -> Result<Reply> {
    match ports(app, server).await?.iter().find(|p| p.port_id == port) {
        Some(p) => Ok(Reply::ok(&json!({"interfaceAttachment": view(p, v)}))),
        None => Err(Error::not_found(format!(
            "Instance {server} does not have a port with id {port}"
        ))),
    }
}

/// `GET /servers/{id}/os-interface/{port}`
pub(crate) async fn show(app: Arc<Compute>, req: Req) -> Result<Reply> {
    let s = find(&app, req.ctx()?, acts::InterfaceShow, req.param("id")).await?;
    shown(&app, &s.id, req.param("port"), req.version).await
}

/// `POST /servers/{id}/os-interface`: answers when the guest has the card.
pub(crate) async fn create(app: Arc<Compute>, mut req: Req) -> Result<Reply> {
    let ctx = req.ctx()?.clone();
    let body = req.json().await?;
    let none = json!({});
    let arg = match body.as_object() {
        // Nothing said: the project's only network.
        Some(o) if o.is_empty() => Some(&none),
        Some(o) if o.len() == 1 => o.get("interfaceAttachment"),
        _ => None,
    };
    let arg = arg.ok_or_else(|| {
        Error::field(
            "interfaceAttachment",
            "The request body must be an object with no other key than 'interfaceAttachment'.",
        )
    })?;
    fields::check(&ATTACH, arg, req.version, "interfaceAttachment")?;
    let nic = NicRequest {
        network_id: input::text(arg, "net_id"),
        port_id: input::text(arg, "port_id"),
        fixed_ip: arg.pointer("/fixed_ips/0").and_then(|f| input::ip(f, "ip_address")),
        tag: input::text(arg, "tag"),
    };
    let id = req.param("id").to_owned();
    // Seen first: what is wrong with the wishes is said to nobody who may not attach.
    find(&app, &ctx, acts::InterfaceCreate, &id).await?;
    if nic.network_id.is_some() && nic.port_id.is_some() {
        return Err(Error::field(
            "port_id",
            "Must not input both network_id and port_id. Leave one of net_id and port_id out.",
        ));
    }
    if nic.fixed_ip.is_some() && nic.network_id.is_none() {
        return Err(Error::field(
            "fixed_ips",
            "Must input network_id when request IP address. Name the network of the address in net_id.",
        ));
    }
    if arg
        .get("fixed_ips")
        .and_then(Value::as_array)
        .is_some_and(Vec::is_empty)
    {
        return Err(Error::field(
            "fixed_ips",
            "Invalid input for field/attribute fixed_ips: it has no entries, and must have one. Leave it out to be given an address.",
        ));
    }
    let port = app.attach_interface(&ctx, &id, &nic).await?;
    shown(&app, &id, &port, req.version).await
}

/// `DELETE /servers/{id}/os-interface/{port}`
pub(crate) async fn delete(app: Arc<Compute>, req: Req) -> Result<Reply> {
    app.detach_interface(req.ctx()?, req.param("id"), req.param("port"))
        .await?;
    Ok(Reply::empty(http::StatusCode::ACCEPTED))
}

/// The action `addFixedIp`.
pub(crate) async fn add_fixed_ip(app: &Arc<Compute>, ctx: &Ctx, id: &str, arg: &Value, v: Ver) -> Result<()> {
    fields::check(&ADD_FIXED_IP, arg, v, "addFixedIp")?;
    let network = input::loose_id(arg, "networkId").unwrap_or_default();
    app.add_fixed_ip(ctx, id, &network).await
}

/// The action `removeFixedIp`.
pub(crate) async fn remove_fixed_ip(app: &Arc<Compute>, ctx: &Ctx, id: &str, arg: &Value, v: Ver) -> Result<()> {
    fields::check(&REMOVE_FIXED_IP, arg, v, "removeFixedIp")?;
    let address = input::ip(arg, "address").ok_or_else(|| Error::field("address", "It must be an IP address."))?;
    app.remove_fixed_ip(ctx, id, address).await
}
