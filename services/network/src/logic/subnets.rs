//! Subnets: what a range must be like, pools, the gateway, the network's DHCP port.

use crate::Network;
use crate::err::{attribute, bad, conflict, invalid};
use crate::logic::publish::{Touched, service_device, service_port};
use crate::logic::{ipam, networks, ports, quotas};
use crate::model::{Net, Pool, Port, Subnet, owner};
use haneul_core::{Error, Result};
use haneul_store::{CreateGrant, Grant, Query, Stored, System, Tx};
use ipnet::IpNet;
use serde_json::json;
use std::net::IpAddr;

/// Checks a range in itself.
pub(crate) fn check_cidr(text: &str, ip_version: i64, dhcp: bool) -> Result<IpNet> {
    let Ok(net) = text.parse::<IpNet>() else {
        return Err(attribute(
            "cidr",
            format!(
                "'{text}' isn't a recognized IP subnet cidr. Write an address and a prefix length, for example 192.0.2.0/24."
            ),
        ));
    };
    if net.trunc() != net {
        return Err(attribute(
            "cidr",
            format!(
                "'{text}' isn't a recognized IP subnet cidr, '{}' is recommended",
                net.trunc()
            ),
        ));
    }
    let v6 = matches!(net, IpNet::V6(_));
    if v6 != (ip_version == 6) {
        return Err(invalid(
            "cidr",
            format!("cidr '{text}' does not match the ip_version '{ip_version}'"),
        ));
    }
    let address = net.network();
    if net.prefix_len() == 0 || address.is_unspecified() {
        return Err(invalid(
            "cidr",
            format!("the range {text} is not a subnet: its prefix length must be at least 1 and its address not 0"),
        ));
    }
    if address.is_multicast() {
        return Err(invalid(
            "cidr",
            format!("Multicast IP subnet is not supported: {text}. Choose a unicast range."),
        ));
    }
    if dhcp && address.is_loopback() {
        return Err(invalid(
            "cidr",
            "Loopback IP subnet is not supported if enable_dhcp is True.",
        ));
    }
    let longest = if v6 { 126 } else { 30 };
    if dhcp && net.prefix_len() > longest {
        return Err(invalid(
            "cidr",
            format!(
                "Subnet has a prefix length that is incompatible with DHCP service enabled: /{}, and at most /{longest} is possible. Set enable_dhcp to false, or choose a larger range.",
                net.prefix_len()
            ),
        ));
    }
    Ok(net)
}

/// The first address that can be given to a host.
fn first_host(cidr: &IpNet) -> IpAddr {
    let n = ipam::number(cidr.network());
    let small = cidr.max_prefix_len() - cidr.prefix_len() <= 1;
    ipam::address(if small { n } else { n + 1 }, matches!(cidr, IpNet::V6(_)))
}

/// The gateway when the request names none: the first address.
pub(crate) fn default_gateway(cidr: &IpNet) -> Option<IpAddr> {
    (cidr.max_prefix_len() - cidr.prefix_len() > 0).then(|| first_host(cidr))
}

/// Everything but network, broadcast and gateway.
pub(crate) fn default_pools(cidr: &IpNet, gateway: Option<IpAddr>) -> Vec<Pool> {
    let v6 = matches!(cidr, IpNet::V6(_));
    let first = ipam::number(first_host(cidr));
    let mut last = ipam::number(cidr.broadcast());
    if !v6 && cidr.max_prefix_len() - cidr.prefix_len() > 1 {
        last -= 1;
    }
    let ranges = match gateway.map(ipam::number).filter(|g| (first..=last).contains(g)) {
        None => vec![(first, last)],
        Some(g) => vec![(first, g.wrapping_sub(1)), (g + 1, last)],
    };
    ranges
        .into_iter()
        .filter(|(a, b)| a <= b && *a >= first && *b <= last)
        .map(|(a, b)| Pool {
            start: ipam::address(a, v6),
            end: ipam::address(b, v6),
        })
        .collect()
}

fn shown(p: &Pool) -> String {
    format!("{}-{}", p.start, p.end)
}

/// Checks pools: inside the range, in order, apart from each other.
pub(crate) fn check_pools(cidr: &IpNet, pools: &[Pool]) -> Result<()> {
    for p in pools {
        if p.start.is_ipv4() != p.end.is_ipv4() || p.start.is_ipv4() != cidr.addr().is_ipv4() || p.end < p.start {
            return Err(bad(
                "InvalidAllocationPool",
                "allocation_pools",
                format!(
                    "The allocation pool {} is not valid: its start must not come after its end, and both must be of the subnet's IP version.",
                    shown(p)
                ),
            ));
        }
        let first = ipam::number(first_host(cidr));
        let last = ipam::number(cidr.broadcast());
        let broadcast = cidr.addr().is_ipv4() && cidr.max_prefix_len() - cidr.prefix_len() > 1;
        let last = if broadcast { last - 1 } else { last };
        if ipam::number(p.start) < first || ipam::number(p.end) > last {
            return Err(bad(
                "OutOfBoundsAllocationPool",
                "allocation_pools",
                format!("The allocation pool {} spans beyond the subnet cidr {cidr}.", shown(p)),
            ));
        }
    }
    for (i, a) in pools.iter().enumerate() {
        for b in pools.iter().skip(i + 1) {
            if a.start <= b.end && b.start <= a.end {
                return Err(conflict(
                    "OverlappingAllocationPools",
                    format!(
                        "Found overlapping allocation pools: {} {} for subnet {cidr}.",
                        shown(a),
                        shown(b)
                    ),
                )
                .with_field("allocation_pools"));
            }
        }
    }
    Ok(())
}

/// The gateway must be an address of the range, and in no pool.
pub(crate) fn check_gateway(cidr: &IpNet, gateway: IpAddr, pools: &[Pool]) -> Result<()> {
    if gateway.is_ipv4() != cidr.addr().is_ipv4() {
        return Err(invalid(
            "gateway_ip",
            format!("gateway_ip '{gateway}' does not match the ip_version of {cidr}"),
        ));
    }
    let size = cidr.max_prefix_len() - cidr.prefix_len();
    let edge = size > 1 && (gateway == cidr.network() || (gateway.is_ipv4() && gateway == cidr.broadcast()));
    if edge || !cidr.contains(&gateway) {
        return Err(invalid(
            "gateway_ip",
            format!("Gateway is not valid on subnet: {gateway} is no host address of {cidr}."),
        ));
    }
    check_gateway_pools(gateway, pools)
}

fn check_gateway_pools(gateway: IpAddr, pools: &[Pool]) -> Result<()> {
    match pools.iter().find(|p| p.start <= gateway && gateway <= p.end) {
        Some(p) => Err(conflict(
            "GatewayConflictWithAllocationPools",
            format!("Gateway ip {gateway} conflicts with allocation pool {}.", shown(p)),
        )
        .with_field("gateway_ip")),
        None => Ok(()),
    }
}

/// IPv6 modes must agree with the range, DHCP and each other.
pub(crate) fn check_modes(s: &Subnet) -> Result<()> {
    let (ra, address) = (s.ipv6_ra_mode.as_deref(), s.ipv6_address_mode.as_deref());
    if ra.is_none() && address.is_none() {
        return Ok(());
    }
    if !s.is_v6() {
        return Err(invalid(
            "ipv6_ra_mode",
            "ipv6_ra_mode or ipv6_address_mode is only for subnets of ip_version 6.",
        ));
    }
    if !s.enable_dhcp {
        return Err(invalid(
            "ipv6_ra_mode",
            "ipv6_ra_mode or ipv6_address_mode cannot be set when enable_dhcp is set to False",
        ));
    }
    if let (Some(r), Some(a)) = (ra, address)
        && r != a
    {
        return Err(invalid(
            "ipv6_address_mode",
            format!(
                "ipv6_ra_mode set to '{r}' with ipv6_address_mode set to '{a}' is not valid. If both attributes are set, they must be the same value"
            ),
        ));
    }
    if s.is_auto() && s.cidr.prefix_len() != 64 {
        return Err(invalid(
            "cidr",
            format!(
                "Invalid CIDR {} for IPv6 address mode. OpenStack uses the EUI-64 address format, which requires the prefix to be /64",
                s.cidr
            ),
        ));
    }
    Ok(())
}

/// Ranges of one network do not overlap.
pub(crate) fn check_overlap(cidr: &IpNet, network_id: &str, others: &[Stored<Subnet>]) -> Result<()> {
    match others.iter().find(|o| o.cidr.contains(cidr) || cidr.contains(&o.cidr)) {
        Some(o) => Err(invalid(
            "cidr",
            format!(
                "Requested subnet with cidr: {cidr} for network: {network_id} overlaps with another subnet: {} ({}). Choose a range apart from it.",
                o.id, o.cidr
            ),
        )),
        None => Ok(()),
    }
}

/// Stores a subnet and brings the network's ports in line. Quota is the caller's.
pub(crate) async fn insert(
    tx: &mut Tx,
    grant: &impl CreateGrant<Subnet>,
    net: &Net,
    subnet: &Subnet,
    touched: &mut Touched,
) -> Result<Stored<Subnet>> {
    let others = ports::subnets_of(tx, &net.id).await?;
    check_overlap(&subnet.cidr, &net.id, &others)?;
    let stored = tx
        .insert(grant, subnet)
        .await?
        .ok_or_else(|| Error::internal("the id of a subnet was taken"))?;
    if subnet.is_auto() {
        auto_addresses(tx, net, subnet, touched).await?;
    }
    sync_service_port(tx, net, touched).await?;
    touched.networks.insert(net.id.clone());
    Ok(stored)
}

/// Ports that were there before make themselves an address in a new SLAAC subnet.
async fn auto_addresses(tx: &mut Tx, net: &Net, subnet: &Subnet, touched: &mut Touched) -> Result<()> {
    let skip = [
        owner::ROUTER_INTERFACE,
        owner::ROUTER_GATEWAY,
        owner::DHCP,
        owner::FLOATING_IP,
    ];
    for p in tx.list::<Port>(&Query::new().eq("network_id", net.id.as_str())).await? {
        if skip.contains(&p.device_owner.as_str()) {
            continue;
        }
        let mut port = p.value.clone();
        port.fixed_ips.push(ports::take_auto(tx, subnet, &port).await?);
        touched.port_changed(&p.value, &port);
        tx.update(&System::of(p), &port).await?;
    }
    Ok(())
}

/// One port of the network holds its addresses for DHCP, DNS and metadata: one in each subnet with DHCP.
pub(crate) async fn sync_service_port(tx: &mut Tx, net: &Net, touched: &mut Touched) -> Result<()> {
    let served: Vec<Stored<Subnet>> = ports::subnets_of(tx, &net.id)
        .await?
        .into_iter()
        .filter(|s| s.enable_dhcp)
        .collect();
    let there = service_port(tx, &net.id).await?;
    let asks: Vec<ports::Ask> = served
        .iter()
        .filter(|s| !s.is_auto())
        .map(|s| ports::Ask {
            subnet_id: Some(s.id.clone()),
            ip: None,
        })
        .collect();
    match there {
        None if served.is_empty() => {}
        None => {
            let mut port = ports::blank(net, &net.project_id);
            port.device_id = service_device(&net.id);
            port.device_owner = owner::DHCP.into();
            port.port_security = false;
            port.status = "ACTIVE".into();
            quotas::count(tx, &port.project_id, "port", 1).await?;
            ports::add(tx, &System::create(), net, port, ports::Wish::Asked(asks), touched).await?;
        }
        Some(p) if served.is_empty() => ports::remove(tx, &System::of(p), touched).await?,
        Some(p) => {
            let mut port = p.value.clone();
            let mut fixed = Vec::new();
            for f in &port.fixed_ips {
                if served.iter().any(|s| s.id == f.subnet_id) {
                    fixed.push(f.clone());
                } else {
                    ipam::release(tx, &f.subnet_id, f.ip).await?;
                }
            }
            for s in &served {
                if fixed.iter().any(|f| f.subnet_id == s.id) {
                    continue;
                }
                if s.is_auto() {
                    fixed.push(ports::take_auto(tx, s, &port).await?);
                } else {
                    match ipam::next(tx, s, &port.id).await? {
                        Some(ip) => fixed.push(crate::model::FixedIp {
                            subnet_id: s.id.clone(),
                            ip,
                        }),
                        None => return Err(ipam::exhausted(tx, &net.id, &[&s.value]).await?),
                    }
                }
            }
            if fixed != port.fixed_ips {
                port.fixed_ips = fixed;
                touched.ports.insert(port.id.clone());
                tx.update(&System::of(p), &port).await?;
            }
        }
    }
    Ok(())
}

/// Stores a changed subnet.
pub(crate) async fn update(
    tx: &mut Tx,
    grant: &impl Grant<Subnet>,
    net: &Net,
    subnet: &Subnet,
    touched: &mut Touched,
) -> Result<Stored<Subnet>> {
    let old = grant.stored().value.clone();
    if old.gateway_ip != subnet.gateway_ip
        && let Some(gateway) = old.gateway_ip
    {
        refuse_gateway_in_use(tx, &old, gateway).await?;
    }
    let stored = tx.update(grant, subnet).await?;
    if old.allocation_pools != subnet.allocation_pools {
        tx.exec("DELETE FROM ip_cursor WHERE subnet_id = $1", &[(&subnet.id).into()])
            .await?;
    }
    if old.enable_dhcp != subnet.enable_dhcp {
        sync_service_port(tx, net, touched).await?;
    }
    touched.networks.insert(net.id.clone());
    if old.gateway_ip != subnet.gateway_ip {
        // Routers with their gateway here have another next hop now.
        let query = Query::new()
            .eq("network_id", net.id.as_str())
            .eq("device_owner", owner::ROUTER_GATEWAY);
        for p in tx.list::<Port>(&query).await? {
            touched.routers.insert(p.device_id.clone());
        }
    }
    Ok(stored)
}

async fn refuse_gateway_in_use(tx: &mut Tx, subnet: &Subnet, gateway: IpAddr) -> Result<()> {
    let row = tx
        .row(
            "SELECT p.id FROM ip_allocation a JOIN port p ON p.id = a.port_id
             WHERE a.subnet_id = $1 AND a.num = $2 AND p.device_owner = $3",
            &[
                (&subnet.id).into(),
                ipam::key(gateway).into(),
                owner::ROUTER_INTERFACE.into(),
            ],
        )
        .await?;
    match row {
        Some(r) => Err(conflict(
            "GatewayIpInUse",
            format!("Current gateway ip {gateway} already in use by port {}. Unable to update. Remove the router's interface first.", r.str(0)?),
        )
        .with_field("gateway_ip")),
        None => Ok(()),
    }
}

impl Network {
    /// Deletes a subnet; refused while ports have addresses of it.
    pub(crate) async fn subnet_delete(
        &self,
        tx: &mut Tx,
        grant: &impl Grant<Subnet>,
        touched: &mut Touched,
    ) -> Result<()> {
        let subnet = grant.stored().value.clone();
        let rows = tx
            .rows(
                "SELECT DISTINCT p.id, p.device_owner FROM ip_allocation a JOIN port p ON p.id = a.port_id
                 WHERE a.subnet_id = $1 AND p.device_owner <> $2 ORDER BY p.id",
                &[(&subnet.id).into(), owner::DHCP.into()],
            )
            .await?;
        let mut users = Vec::new();
        let mut auto = Vec::new();
        for r in &rows {
            let (id, who) = (r.str(0)?, r.str(1)?);
            if subnet.is_auto() && !who.starts_with("network:") {
                auto.push(id);
            } else {
                users.push(id);
            }
        }
        if !users.is_empty() {
            let first: Vec<&str> = users.iter().take(5).map(String::as_str).collect();
            return Err(conflict(
                "SubnetInUse",
                format!(
                    "Unable to complete operation on subnet {}: One or more ports have an IP allocation from this subnet: {} in all, for example {}. Delete them or take their addresses away first.",
                    subnet.id,
                    users.len(),
                    first.join(", ")
                ),
            )
            .with_details(json!({"ports": first, "count": users.len()})));
        }
        // Addresses that guests made themselves go with the subnet.
        for id in auto {
            if let Some(p) = tx.find::<Port>(&id).await? {
                let mut port = p.value.clone();
                port.fixed_ips.retain(|f| f.subnet_id != subnet.id);
                touched.port_changed(&p.value, &port);
                tx.update(&System::of(p), &port).await?;
            }
        }
        let net = tx
            .find::<Net>(&subnet.network_id)
            .await?
            .ok_or_else(|| Error::internal(format!("subnet {} has no network", subnet.id)))?;
        tx.delete(grant).await?;
        sync_service_port(tx, &net, touched).await?;
        networks::ipam_forget(tx, &subnet.id).await?;
        quotas::give_back(tx, &subnet.project_id, "subnet", 1).await?;
        touched.networks.insert(net.id.clone());
        Ok(())
    }
}
