//! Ports: addresses, MACs, groups; making, changing and deleting them. Used by the API, by compute's facade
//! and by routers, floating IPs and DHCP.

use crate::Network;
use crate::err::{address_in_use, bad, conflict, invalid};
use crate::logic::publish::Touched;
use crate::logic::{groups, ipam, quotas};
use crate::model::{FixedIp, FloatingIp, Net, Port, Subnet, owner};
use haneul_core::{Error, Result, id};
use haneul_store::{CreateGrant, Dir, Grant, Query, Stored, System, Tx};
use std::net::IpAddr;

/// Addresses of a port at the most, beside those that guests make themselves.
const MAX_FIXED_IPS: usize = 5;

/// What addresses a port shall have.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Wish {
    /// One of each family that the network has.
    Auto,
    /// These.
    Asked(Vec<Ask>),
}

/// One wanted address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ask {
    pub subnet_id: Option<String>,
    pub ip: Option<IpAddr>,
}

/// A port that starts out as Neutron's defaults say. The id and the number are given by [`add`].
pub(crate) fn blank(net: &Net, project_id: &str) -> Port {
    Port {
        id: id::uuid(),
        project_id: project_id.to_owned(),
        network_id: net.id.clone(),
        network_project_id: net.project_id.clone(),
        admin_state_up: true,
        port_security: net.port_security,
        vnic_type: "normal".into(),
        status: "DOWN".into(),
        ..Port::default()
    }
}

/// Subnets of a network, oldest first.
pub(crate) async fn subnets_of(tx: &mut Tx, network_id: &str) -> Result<Vec<Stored<Subnet>>> {
    let query = Query::new()
        .eq("network_id", network_id)
        .order("created_at", Dir::Asc)
        .order("id", Dir::Asc);
    tx.list::<Subnet>(&query).await
}

async fn mac_taken(tx: &mut Tx, network_id: &str, mac: &str) -> Result<bool> {
    Ok(tx
        .row(
            "SELECT 1 FROM port WHERE network_id = $1 AND mac = $2",
            &[network_id.into(), mac.into()],
        )
        .await?
        .is_some())
}

async fn new_mac(tx: &mut Tx, network_id: &str) -> Result<String> {
    for _ in 0..16 {
        let b = id::random_bytes(3);
        let hex: Vec<String> = b.iter().map(|b| format!("{b:02x}")).collect();
        let mac = format!("fa:16:3e:{}", hex.join(":"));
        if !mac_taken(tx, network_id, &mac).await? {
            return Ok(mac);
        }
    }
    Err(
        Error::unavailable(format!("Unable to generate unique mac on network {network_id}."))
            .with_code("NetworkMacAddressGenerationFailure"),
    )
}

/// A MAC is already used on the network.
pub(crate) fn mac_in_use(network_id: &str, mac: &str) -> Error {
    conflict(
        "MacAddressInUse",
        format!("Unable to complete operation for network {network_id}. The mac address {mac} is in use. Choose another one, or leave mac_address out."),
    )
    .with_field("mac_address")
}

/// Stores a new port with its addresses and groups. Quota is the caller's.
pub(crate) async fn add(
    tx: &mut Tx,
    grant: &impl CreateGrant<Port>,
    net: &Net,
    port: Port,
    wish: Wish,
    touched: &mut Touched,
) -> Result<Stored<Port>> {
    add_with(tx, grant, net, port, wish, touched, |_| Ok(())).await
}

/// As [`add`]; `last` completes the port when its MAC is known.
pub(crate) async fn add_with(
    tx: &mut Tx,
    grant: &impl CreateGrant<Port>,
    net: &Net,
    mut port: Port,
    wish: Wish,
    touched: &mut Touched,
    last: impl FnOnce(&mut Port) -> Result<()>,
) -> Result<Stored<Port>> {
    if port.mac.is_empty() {
        port.mac = new_mac(tx, &net.id).await?;
    } else if mac_taken(tx, &net.id, &port.mac).await? {
        return Err(mac_in_use(&net.id, &port.mac));
    }
    let subnets = subnets_of(tx, &net.id).await?;
    port.index = u32::try_from(tx.next_number("port.index").await?).map_err(Error::internal)?;
    port.fixed_ips = address_port(tx, net, &subnets, &port, wish).await?;
    last(&mut port)?;
    groups::join(tx, &port.id, &port.security_groups).await?;
    touched.members.extend(port.security_groups.iter().cloned());
    touched.ports.insert(port.id.clone());
    match tx.insert(grant, &port).await? {
        Some(stored) => Ok(stored),
        None => Err(mac_in_use(&net.id, &port.mac).retryable()),
    }
}

/// Gives a new port its addresses.
async fn address_port(
    tx: &mut Tx,
    net: &Net,
    subnets: &[Stored<Subnet>],
    port: &Port,
    wish: Wish,
) -> Result<Vec<FixedIp>> {
    let mut out = Vec::new();
    match wish {
        Wish::Auto => {
            for v6 in [false, true] {
                let family: Vec<&Subnet> = subnets
                    .iter()
                    .map(|s| &s.value)
                    .filter(|s| s.is_v6() == v6 && !s.is_auto())
                    .collect();
                if family.is_empty() {
                    continue;
                }
                let mut found = None;
                for s in &family {
                    if let Some(ip) = ipam::next(tx, s, &port.id).await? {
                        found = Some(FixedIp {
                            subnet_id: s.id.clone(),
                            ip,
                        });
                        break;
                    }
                }
                match found {
                    Some(f) => out.push(f),
                    None => return Err(ipam::exhausted(tx, &net.id, &family).await?),
                }
            }
        }
        Wish::Asked(asks) => {
            for ask in &asks {
                out.push(take(tx, net, subnets, port, ask).await?);
            }
        }
    }
    // Guests make these themselves, asked or not.
    if port.device_owner != owner::ROUTER_INTERFACE && port.device_owner != owner::ROUTER_GATEWAY {
        for s in subnets.iter().filter(|s| s.is_auto()) {
            if out.iter().all(|f| f.subnet_id != s.id) {
                out.push(take_auto(tx, s, port).await?);
            }
        }
    }
    Ok(out)
}

/// Takes the address that a guest makes itself in this subnet.
pub(crate) async fn take_auto(tx: &mut Tx, s: &Subnet, port: &Port) -> Result<FixedIp> {
    let ip = ipam::eui64(&s.cidr, &port.mac).ok_or_else(|| Error::internal(format!("no EUI-64 of {}", port.mac)))?;
    if !ipam::claim(tx, s, ip, &port.id).await? {
        return Err(address_in_use("mac_address", &s.network_id, ip));
    }
    Ok(FixedIp {
        subnet_id: s.id.clone(),
        ip,
    })
}

/// Takes one asked address.
async fn take(tx: &mut Tx, net: &Net, subnets: &[Stored<Subnet>], port: &Port, ask: &Ask) -> Result<FixedIp> {
    let subnet = match (&ask.subnet_id, ask.ip) {
        (Some(sid), _) => subnets.iter().find(|s| &s.id == sid).ok_or_else(|| {
            invalid(
                "fixed_ips",
                format!("Failed to create port on network {}, because fixed_ips included invalid subnet {sid}", net.id),
            )
        })?,
        (None, Some(ip)) => subnets.iter().find(|s| s.cidr.contains(&ip)).ok_or_else(|| {
            let ranges: Vec<String> = subnets.iter().map(|s| s.cidr.to_string()).collect();
            bad(
                "InvalidIpForNetwork",
                "fixed_ips",
                format!(
                    "IP address {ip} is not a valid IP for any of the subnets on the specified network. Its subnets are: {}.",
                    ranges.join(", ")
                ),
            )
        })?,
        (None, None) => return Err(invalid("fixed_ips", "IP allocation requires subnet_id or ip_address")),
    };
    let router = port.device_owner == owner::ROUTER_INTERFACE || port.device_owner == owner::ROUTER_GATEWAY;
    let Some(ip) = ask.ip else {
        if subnet.is_auto() && !router {
            return take_auto(tx, subnet, port).await;
        }
        return match ipam::next(tx, subnet, &port.id).await? {
            Some(ip) => Ok(FixedIp {
                subnet_id: subnet.id.clone(),
                ip,
            }),
            None => Err(ipam::exhausted(tx, &net.id, &[&subnet.value]).await?),
        };
    };
    if !usable(subnet, ip) {
        return Err(bad(
            "InvalidIpForSubnet",
            "fixed_ips",
            format!(
                "IP address {ip} is not a valid IP for the specified subnet {} ({}).",
                subnet.id, subnet.cidr
            ),
        ));
    }
    if subnet.is_auto() && !router && ipam::eui64(&subnet.cidr, &port.mac) != Some(ip) {
        return Err(invalid(
            "fixed_ips",
            format!(
                "IPv6 address {ip} can not be directly assigned to a port on subnet {} since the subnet is configured for automatic addresses",
                subnet.id
            ),
        ));
    }
    // The gateway of an external network is the host itself.
    if (net.external && subnet.gateway_ip == Some(ip)) || !ipam::claim(tx, subnet, ip, &port.id).await? {
        return Err(address_in_use("fixed_ips", &net.id, ip));
    }
    Ok(FixedIp {
        subnet_id: subnet.id.clone(),
        ip,
    })
}

/// Inside the subnet, and neither its network nor its broadcast address.
pub(crate) fn usable(s: &Subnet, ip: IpAddr) -> bool {
    if !s.cidr.contains(&ip) {
        return false;
    }
    let free = s.cidr.max_prefix_len() - s.cidr.prefix_len();
    if free <= 1 {
        return true;
    }
    ip != s.cidr.network() && (s.is_v6() || ip != s.cidr.broadcast())
}

/// Says what is wrong with a list of wanted addresses in itself.
pub(crate) fn check_asks(asks: &[Ask]) -> Result<()> {
    if asks.len() > MAX_FIXED_IPS {
        return Err(invalid(
            "fixed_ips",
            format!(
                "Exceeded maximum amount of fixed ips per port: {} asked, at most {MAX_FIXED_IPS}.",
                asks.len()
            ),
        ));
    }
    for (i, a) in asks.iter().enumerate() {
        if let Some(ip) = a.ip
            && asks.iter().take(i).any(|b| b.ip == Some(ip))
        {
            return Err(bad(
                "HTTPBadRequest",
                "fixed_ips",
                format!("Invalid input for fixed_ips. Reason: Duplicate IP address '{ip}'."),
            ));
        }
    }
    Ok(())
}

/// Changes the addresses of a port to what is asked: keeps what fits, gives back the rest, takes what is missing.
pub(crate) async fn readdress(tx: &mut Tx, net: &Net, port: &Port, asks: &[Ask]) -> Result<Vec<FixedIp>> {
    let subnets = subnets_of(tx, &net.id).await?;
    let mut old = port.fixed_ips.clone();
    let mut kept: Vec<Option<FixedIp>> = vec![None; asks.len()];
    // Exact addresses first, so that "some address of this subnet" does not take them away.
    for exact in [true, false] {
        for (ask, slot) in asks.iter().zip(kept.iter_mut()) {
            if slot.is_some() || exact != ask.ip.is_some() {
                continue;
            }
            let fits = |f: &FixedIp| {
                ask.ip.is_none_or(|ip| ip == f.ip) && ask.subnet_id.as_ref().is_none_or(|s| s == &f.subnet_id)
            };
            if let Some(i) = old.iter().position(fits) {
                *slot = Some(old.remove(i));
            }
        }
    }
    let auto: Vec<&Stored<Subnet>> = subnets.iter().filter(|s| s.is_auto()).collect();
    let router = port.device_owner == owner::ROUTER_INTERFACE || port.device_owner == owner::ROUTER_GATEWAY;
    let mut out = Vec::new();
    for f in old {
        if !router && auto.iter().any(|s| s.id == f.subnet_id) {
            out.push(f);
        } else {
            ipam::release(tx, &f.subnet_id, f.ip).await?;
        }
    }
    let mut first = Vec::new();
    for (ask, slot) in asks.iter().zip(kept) {
        match slot {
            Some(f) => first.push(f),
            None => first.push(take(tx, net, &subnets, port, ask).await?),
        }
    }
    first.extend(out.into_iter().filter(|f| !first.contains(f)).collect::<Vec<_>>());
    Ok(first)
}

/// Deletes a port: addresses, groups, floating IPs that lead to it (disassociated), quota.
pub(crate) async fn remove(tx: &mut Tx, grant: &impl Grant<Port>, touched: &mut Touched) -> Result<()> {
    let port = grant.stored().value.clone();
    for f in tx
        .list::<FloatingIp>(&Query::new().eq("port_id", port.id.as_str()))
        .await?
    {
        crate::logic::floating_ips::disassociate(tx, f, touched).await?;
    }
    ipam::release_all(tx, &port.id).await?;
    groups::leave(tx, &port.id).await?;
    quotas::give_back(tx, &port.project_id, "port", 1).await?;
    touched.port_gone(&port);
    tx.delete(grant).await
}

impl Network {
    /// Deletes what a user may not delete by the ports API is refused here, with who holds it.
    pub(crate) async fn port_delete(&self, tx: &mut Tx, grant: &impl Grant<Port>, touched: &mut Touched) -> Result<()> {
        let port = grant.stored();
        let how = match port.device_owner.as_str() {
            owner::ROUTER_INTERFACE => "Remove the interface from its router instead.",
            owner::ROUTER_GATEWAY => "Clear the gateway of its router instead.",
            owner::FLOATING_IP => "Delete the floating IP instead.",
            owner::DHCP => "It goes when DHCP of the network's subnets is switched off.",
            _ => "",
        };
        if !how.is_empty() {
            return Err(conflict(
                "ServicePortInUse",
                format!(
                    "Port {} cannot be deleted directly via the port API: has device owner {}. {how}",
                    port.id, port.device_owner
                ),
            ));
        }
        remove(tx, grant, touched).await
    }

    /// Loads a port and deletes it as the cloud itself.
    pub(crate) async fn port_remove_by_id(&self, tx: &mut Tx, id: &str, touched: &mut Touched) -> Result<()> {
        if let Some(port) = tx.find::<Port>(id).await? {
            remove(tx, &System::of(port), touched).await?;
        }
        Ok(())
    }
}
