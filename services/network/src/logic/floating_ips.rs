//! Floating IPs: an address on an external network, held by a port of its own, that leads through a router
//! to a port's fixed address.

use crate::err::{bad, conflict, invalid, not_found};
use crate::logic::ports::{self, Ask, Wish};
use crate::logic::publish::Touched;
use crate::logic::quotas;
use crate::model::{FloatingIp, Net, Port, Router, Subnet, owner};
use haneul_auth::{Ctx, Secured};
use haneul_core::{Error, Kind, Result, id};
use haneul_store::{CreateGrant, Grant, Query, Stored, System, Tx};
use std::net::IpAddr;

/// What a floating IP leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub port_id: String,
    pub fixed_ip: IpAddr,
    pub router_id: String,
}

/// Finds the way from a port's address to the external network.
pub(crate) async fn target(tx: &mut Tx, fip: &FloatingIp, port: &Port, wanted: Option<IpAddr>) -> Result<Target> {
    if port.device_owner == owner::FLOATING_IP || port.device_owner == owner::ROUTER_GATEWAY {
        return Err(invalid(
            "port_id",
            format!(
                "Port {} is owned by {} and cannot be associated with a floating IP.",
                port.id, port.device_owner
            ),
        ));
    }
    let v4: Vec<_> = port.fixed_ips.iter().filter(|f| f.ip.is_ipv4()).collect();
    let fixed = match wanted {
        Some(ip) => {
            if ip.is_ipv6() {
                return Err(bad(
                    "BadRequest",
                    "fixed_ip_address",
                    format!(
                        "Bad floatingip request: Cannot process floating IP association with {ip}, since that is not an IPv4 address."
                    ),
                ));
            }
            v4.iter().find(|f| f.ip == ip).ok_or_else(|| {
                bad(
                    "BadRequest",
                    "fixed_ip_address",
                    format!("Bad floatingip request: Port {} does not have fixed ip {ip}.", port.id),
                )
            })?
        }
        None => match v4.as_slice() {
            [] => {
                return Err(bad(
                    "BadRequest",
                    "port_id",
                    format!(
                        "Bad floatingip request: Cannot add floating IP to port {} that has no fixed IPv4 addresses.",
                        port.id
                    ),
                ));
            }
            [one] => one,
            many => {
                let all: Vec<String> = many.iter().map(|f| f.ip.to_string()).collect();
                return Err(bad(
                    "BadRequest",
                    "fixed_ip_address",
                    format!(
                        "Bad floatingip request: Port {} has multiple fixed IPv4 addresses ({}). Must provide a specific IPv4 address when assigning a floating IP.",
                        port.id,
                        all.join(", ")
                    ),
                ));
            }
        },
    };
    let router_id = way(tx, &fixed.subnet_id, &fip.floating_network_id).await?.ok_or_else(|| {
        not_found(
            "ExternalGatewayForFloatingIPNotFound",
            format!(
                "External network {} is not reachable from subnet {}.  Therefore, cannot associate Port {} with a Floating IP. Add a router with its gateway on that network and an interface on this subnet.",
                fip.floating_network_id, fixed.subnet_id, port.id
            ),
        )
        .with_field("port_id")
    })?;
    let clash = Query::new()
        .eq("port_id", port.id.as_str())
        .eq("fixed_ip_address", fixed.ip.to_string())
        .eq("floating_network_id", fip.floating_network_id.as_str())
        .ne("id", fip.id.as_str());
    if let Some(other) = tx.list::<FloatingIp>(&clash).await?.first() {
        return Err(conflict(
            "FloatingIPPortAlreadyAssociated",
            format!(
                "Cannot associate floating IP {} ({}) with port {} using fixed IP {}, as that fixed IP already has a floating IP on external network {}: {}.",
                fip.floating_ip, fip.id, port.id, fixed.ip, fip.floating_network_id, other.floating_ip
            ),
        )
        .with_field("port_id"));
    }
    Ok(Target {
        port_id: port.id.clone(),
        fixed_ip: fixed.ip,
        router_id,
    })
}

/// A router with an interface on the subnet and its gateway on the external network; the one that holds the
/// subnet's gateway address first.
async fn way(tx: &mut Tx, subnet_id: &str, network_id: &str) -> Result<Option<String>> {
    let rows = tx
        .rows(
            "SELECT r.id, a.ip FROM ip_allocation a JOIN port p ON p.id = a.port_id JOIN router r ON r.id = p.device_id
             WHERE a.subnet_id = $1 AND p.device_owner = $2 AND r.gateway_network_id = $3 ORDER BY r.id",
            &[subnet_id.into(), owner::ROUTER_INTERFACE.into(), network_id.into()],
        )
        .await?;
    let gateway = tx
        .find::<Subnet>(subnet_id)
        .await?
        .and_then(|s| s.gateway_ip)
        .map(|g| g.to_string());
    let mut first = None;
    for r in &rows {
        let id = r.str(0)?;
        if Some(r.str(1)?) == gateway {
            return Ok(Some(id));
        }
        first.get_or_insert(id);
    }
    Ok(first)
}

/// What a new floating IP shall be: an address or a range of the network, and where it leads.
#[derive(Default)]
pub(crate) struct Wanted<'a> {
    pub subnet_id: Option<String>,
    pub address: Option<IpAddr>,
    pub leads_to: Option<(&'a Port, Option<IpAddr>)>,
}

/// The port that a request names; it must be of the floating IP's project, unless an administrator asks.
pub(crate) async fn port(tx: &mut Tx, ctx: &Ctx, project_id: &str, id: &str) -> Result<Stored<Port>> {
    let port = tx
        .find::<Port>(id)
        .await?
        .filter(|p| p.visible(ctx))
        .ok_or_else(|| Port::not_found(id).with_field("port_id"))?;
    if port.project_id != project_id && !ctx.is_admin() {
        return Err(bad(
            "BadRequest",
            "port_id",
            format!(
                "Bad floatingip request: Port {id} is associated with a different tenant than Floating IP and therefore cannot be bound."
            ),
        ));
    }
    Ok(port)
}

/// A new floating IP on a network that the caller sees, within the project's quota.
pub(crate) async fn create(
    tx: &mut Tx,
    ctx: &Ctx,
    grant: &impl CreateGrant<FloatingIp>,
    fip: FloatingIp,
    wanted: Wanted<'_>,
    touched: &mut Touched,
) -> Result<Stored<FloatingIp>> {
    let net = tx
        .find::<Net>(&fip.floating_network_id)
        .await?
        .filter(|n| n.visible(ctx))
        .ok_or_else(|| Net::not_found(&fip.floating_network_id).with_field("floating_network_id"))?;
    quotas::take(tx, &fip.project_id, "floatingip", 1).await?;
    insert(tx, grant, &net, fip, wanted, touched).await
}

/// Stores a new floating IP.
async fn insert(
    tx: &mut Tx,
    grant: &impl CreateGrant<FloatingIp>,
    net: &Net,
    mut fip: FloatingIp,
    wanted: Wanted<'_>,
    touched: &mut Touched,
) -> Result<Stored<FloatingIp>> {
    if !net.external {
        return Err(bad(
            "BadRequest",
            "floating_network_id",
            format!(
                "Bad floatingip request: Network {} is not a valid external network.",
                net.id
            ),
        ));
    }
    let v4: Vec<Stored<Subnet>> = ports::subnets_of(tx, &net.id)
        .await?
        .into_iter()
        .filter(|s| !s.is_v6())
        .collect();
    if v4.is_empty() {
        return Err(bad(
            "BadRequest",
            "floating_network_id",
            format!(
                "Bad floatingip request: Network {} does not contain any IPv4 subnet.",
                net.id
            ),
        ));
    }
    let asks = match (&wanted.subnet_id, wanted.address) {
        (None, None) => Wish::Auto,
        (s, ip) => Wish::Asked(vec![Ask {
            subnet_id: s.clone(),
            ip,
        }]),
    };
    // The address stays with the floating IP, so its port belongs to nobody's project.
    let mut port = ports::blank(net, "");
    port.device_owner = owner::FLOATING_IP.into();
    port.device_id.clone_from(&fip.id);
    port.port_security = false;
    port.status = "N/A".into();
    let port = ports::add(tx, &System::create(), net, port, v4_only(asks, &v4), touched)
        .await
        .map_err(|e| match e.code() {
            "IpAddressGenerationFailure" => Error::new(Kind::Conflict, e.public())
                .with_code("IpAddressGenerationFailure")
                .with_field("floating_network_id"),
            _ => e,
        })?;
    touched.ports.remove(&port.id);
    fip.own_port_id = port.id.clone();
    fip.floating_ip = port
        .fixed_ips
        .iter()
        .map(|f| f.ip)
        .find(IpAddr::is_ipv4)
        .ok_or_else(|| Error::internal("a floating IP's port got no IPv4 address"))?;
    fip.name = fip.floating_ip.to_string();
    if let Some((port, fixed)) = wanted.leads_to {
        let t = target(tx, &fip, port, fixed).await?;
        touched.routers.insert(t.router_id.clone());
        fip.port_id = Some(t.port_id);
        fip.fixed_ip = Some(t.fixed_ip);
        fip.router_id = Some(t.router_id);
    }
    tx.insert(grant, &fip)
        .await?
        .ok_or_else(|| crate::err::address_in_use("floating_ip_address", &net.id, fip.floating_ip))
}

/// Floating IPs are IPv4: on a network with both families only that one is asked for.
fn v4_only(wish: Wish, v4: &[Stored<Subnet>]) -> Wish {
    match wish {
        Wish::Auto => match v4 {
            [one] => Wish::Asked(vec![Ask {
                subnet_id: Some(one.id.clone()),
                ip: None,
            }]),
            _ => Wish::Auto,
        },
        asked => asked,
    }
}

/// A floating IP with nothing in it yet.
pub(crate) fn blank(project_id: &str, network_id: &str) -> FloatingIp {
    FloatingIp {
        id: id::uuid(),
        project_id: project_id.to_owned(),
        name: String::new(),
        description: String::new(),
        tags: vec![],
        floating_network_id: network_id.to_owned(),
        floating_ip: IpAddr::from([0, 0, 0, 0]),
        own_port_id: String::new(),
        port_id: None,
        fixed_ip: None,
        router_id: None,
        status: "DOWN".into(),
        dns_name: String::new(),
        dns_domain: String::new(),
    }
}

/// Lets it lead to another port, or nowhere.
pub(crate) async fn lead(
    tx: &mut Tx,
    fip: &mut FloatingIp,
    to: Option<(&Port, Option<IpAddr>)>,
    touched: &mut Touched,
) -> Result<()> {
    let old = fip.router_id.clone();
    match to {
        Some((port, wanted)) => {
            let t = target(tx, fip, port, wanted).await?;
            let same = fip.port_id.as_deref() == Some(&t.port_id)
                && fip.fixed_ip == Some(t.fixed_ip)
                && fip.router_id.as_deref() == Some(&t.router_id);
            touched.routers.insert(t.router_id.clone());
            fip.port_id = Some(t.port_id);
            fip.fixed_ip = Some(t.fixed_ip);
            fip.router_id = Some(t.router_id);
            if !same {
                fip.status = "DOWN".into();
            }
        }
        None => {
            fip.port_id = None;
            fip.fixed_ip = None;
            fip.router_id = None;
            fip.status = "DOWN".into();
        }
    }
    touched.routers.extend(old);
    Ok(())
}

/// The port that it led to is going away.
pub(crate) async fn disassociate(tx: &mut Tx, stored: Stored<FloatingIp>, touched: &mut Touched) -> Result<()> {
    let mut fip = stored.value.clone();
    lead(tx, &mut fip, None, touched).await?;
    tx.update(&System::of(stored), &fip).await?;
    Ok(())
}

/// Deletes it with its own port.
pub(crate) async fn remove(tx: &mut Tx, grant: &impl Grant<FloatingIp>, touched: &mut Touched) -> Result<()> {
    let fip = grant.stored().value.clone();
    tx.delete(grant).await?;
    touched.routers.extend(fip.router_id);
    if let Some(port) = tx.find::<Port>(&fip.own_port_id).await? {
        ports::remove(tx, &System::of(port), touched).await?;
    }
    quotas::give_back(tx, &fip.project_id, "floatingip", 1).await
}

/// Floating IPs that pass this router, by the fixed subnet's ports.
pub(crate) async fn through(tx: &mut Tx, router_id: &str) -> Result<Vec<Stored<FloatingIp>>> {
    tx.list::<FloatingIp>(&Query::new().eq("router_id", router_id)).await
}

/// Whether any floating IP needs this router's gateway.
pub(crate) async fn refuse_gateway_change(tx: &mut Tx, router: &Router, network_id: &str) -> Result<()> {
    let users = through(tx, &router.id).await?;
    if users.is_empty() {
        return Ok(());
    }
    let list: Vec<&str> = users.iter().take(5).map(|f| f.name.as_str()).collect();
    Err(conflict(
        "RouterExternalGatewayInUseByFloatingIp",
        format!(
            "Gateway cannot be updated for router {}, since a gateway to external network {network_id} is required by one or more floating IPs: {}. Disassociate them first.",
            router.id,
            list.join(", ")
        ),
    )
    .with_field("external_gateway_info"))
}
