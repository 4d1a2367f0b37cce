//! Routers: gateways, interfaces, static routes.

use crate::Network;
use crate::err::{bad, conflict, invalid, not_found};
use crate::logic::floating_ips;
use crate::logic::ports::{self, Ask, Wish};
use crate::logic::publish::{Touched, router_ports, subnets_by_id};
use crate::logic::quotas;
use crate::model::{Gateway, Net, Port, Route, Router, Subnet, owner};
use haneul_auth::{Ctx, Secured};
use haneul_core::{Error, Result};
use haneul_store::{Grant, Stored, System, Tx};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Static routes of a router at the most (Neutron's `max_routes`).
const MAX_ROUTES: usize = 30;

/// `external_gateway_info` as asked. `None` parts are left as they are or to the default.
#[derive(Clone, Debug, Default)]
pub(crate) struct WantedGateway {
    pub network_id: String,
    pub enable_snat: Option<bool>,
    pub fixed_ips: Option<Vec<Ask>>,
}

impl Network {
    /// Sets, changes or clears (`None`) the gateway of a router that is about to be stored.
    pub(crate) async fn set_gateway(
        &self,
        tx: &mut Tx,
        ctx: &Ctx,
        router: &mut Router,
        wanted: Option<WantedGateway>,
        touched: &mut Touched,
    ) -> Result<()> {
        touched.routers.insert(router.id.clone());
        let Some(wanted) = wanted else {
            if let Some(old) = router.gateway.take() {
                floating_ips::refuse_gateway_change(tx, router, &old.network_id).await?;
                self.port_remove_by_id(tx, &old.port_id, touched).await?;
            }
            return Ok(());
        };
        let net = tx
            .find::<Net>(&wanted.network_id)
            .await?
            .filter(|n| n.visible(ctx))
            .ok_or_else(|| Net::not_found(&wanted.network_id).with_field("external_gateway_info.network_id"))?;
        if !net.external {
            return Err(bad(
                "BadRequest",
                "external_gateway_info.network_id",
                format!("Bad router request: Network {} is not an external network.", net.id),
            ));
        }
        if let Some(old) = router.gateway.clone() {
            if old.network_id == net.id {
                let mut gateway = old.clone();
                if let Some(snat) = wanted.enable_snat {
                    gateway.enable_snat = snat;
                }
                if let Some(asks) = &wanted.fixed_ips {
                    let port = tx
                        .find::<Port>(&old.port_id)
                        .await?
                        .ok_or_else(|| Error::internal(format!("router {} lost its gateway port", router.id)))?;
                    let mut value = port.value.clone();
                    value.fixed_ips = ports::readdress(tx, &net, &value, asks).await?;
                    gateway.fixed_ips.clone_from(&value.fixed_ips);
                    tx.update(&System::of(port), &value).await?;
                }
                router.gateway = Some(gateway);
                return Ok(());
            }
            floating_ips::refuse_gateway_change(tx, router, &old.network_id).await?;
            self.port_remove_by_id(tx, &old.port_id, touched).await?;
            router.gateway = None;
        }
        let subnets = ports::subnets_of(tx, &net.id).await?;
        if subnets.is_empty() {
            return Err(bad(
                "BadRequest",
                "external_gateway_info.network_id",
                format!("Bad router request: No subnet on external network {}.", net.id),
            ));
        }
        for s in &subnets {
            refuse_overlap(tx, router, s).await?;
        }
        // The gateway port is the cloud's: the tenant does not see it.
        let mut port = ports::blank(&net, "");
        port.device_id.clone_from(&router.id);
        port.device_owner = owner::ROUTER_GATEWAY.into();
        port.host_id.clone_from(&router.host_id);
        port.port_security = false;
        let wish = match wanted.fixed_ips {
            Some(asks) if !asks.is_empty() => {
                ports::check_asks(&asks)?;
                Wish::Asked(asks)
            }
            _ => Wish::Auto,
        };
        let port = ports::add(tx, &System::create(), &net, port, wish, touched).await?;
        router.gateway = Some(Gateway {
            network_id: net.id.clone(),
            port_id: port.id.clone(),
            enable_snat: wanted.enable_snat.unwrap_or(true),
            fixed_ips: port.fixed_ips.clone(),
        });
        Ok(())
    }

    /// Adds an interface on a subnet: the router takes the subnet's gateway address.
    pub(crate) async fn add_interface_by_subnet(
        &self,
        tx: &mut Tx,
        ctx: &Ctx,
        router: &Router,
        subnet_id: &str,
        touched: &mut Touched,
    ) -> Result<Port> {
        let subnet = tx
            .find::<Subnet>(subnet_id)
            .await?
            .filter(|s| s.visible(ctx))
            .ok_or_else(|| Subnet::not_found(subnet_id).with_field("subnet_id"))?;
        let gateway = subnet.gateway_ip.ok_or_else(|| {
            bad(
                "BadRequest",
                "subnet_id",
                format!("Bad router request: Subnet {subnet_id} for router interface must have a gateway IP."),
            )
        })?;
        let net = tx
            .find::<Net>(&subnet.network_id)
            .await?
            .ok_or_else(|| Error::internal(format!("subnet {subnet_id} has no network")))?;
        let own = ctx.is_admin() || net.project_id == ctx.project_id() || net.shared;
        if !own {
            return Err(Subnet::not_found(subnet_id).with_field("subnet_id"));
        }
        self.check_interface(tx, router, &net, &subnet).await?;
        let ask = Ask {
            subnet_id: Some(subnet.id.clone()),
            ip: Some(gateway),
        };
        // IPv6 subnets of one network share the router's port.
        if subnet.is_v6() {
            for p in router_ports(tx, &router.id).await? {
                let v6 = p.fixed_ips.iter().all(|f| f.ip.is_ipv6());
                if p.device_owner == owner::ROUTER_INTERFACE && p.network_id == net.id && v6 {
                    let mut asks: Vec<Ask> = p
                        .fixed_ips
                        .iter()
                        .map(|f| Ask {
                            subnet_id: Some(f.subnet_id.clone()),
                            ip: Some(f.ip),
                        })
                        .collect();
                    asks.push(ask);
                    let mut port = p.value.clone();
                    port.fixed_ips = ports::readdress(tx, &net, &port, &asks).await?;
                    touched.port_changed(&p.value, &port);
                    let stored = tx.update(&System::of(p), &port).await?;
                    touched.routers.insert(router.id.clone());
                    touched.networks.insert(net.id.clone());
                    return Ok(stored.value);
                }
            }
        }
        let mut port = ports::blank(&net, &router.project_id);
        port.device_id.clone_from(&router.id);
        port.device_owner = owner::ROUTER_INTERFACE.into();
        port.host_id.clone_from(&router.host_id);
        port.port_security = false;
        quotas::count(tx, &port.project_id, "port", 1).await?;
        let stored = ports::add(tx, &System::create(), &net, port, Wish::Asked(vec![ask]), touched).await?;
        touched.routers.insert(router.id.clone());
        Ok(stored.value)
    }

    /// Makes an existing port an interface of the router.
    pub(crate) async fn add_interface_by_port(
        &self,
        tx: &mut Tx,
        router: &Router,
        port: Stored<Port>,
        touched: &mut Touched,
    ) -> Result<Port> {
        if !port.device_id.is_empty() {
            return Err(conflict(
                "PortInUse",
                format!(
                    "Unable to complete operation on port {} for network {}. Port already has an attached device {}.",
                    port.id, port.network_id, port.device_id
                ),
            )
            .with_field("port_id"));
        }
        if port.fixed_ips.is_empty() {
            return Err(bad(
                "BadRequest",
                "port_id",
                format!(
                    "Bad router request: Router port {} must have at least one fixed IP.",
                    port.id
                ),
            ));
        }
        if port.fixed_ips.iter().filter(|f| f.ip.is_ipv4()).count() > 1 {
            return Err(bad(
                "BadRequest",
                "port_id",
                "Bad router request: Cannot have multiple IPv4 subnets on router port.",
            ));
        }
        let net = tx
            .find::<Net>(&port.network_id)
            .await?
            .ok_or_else(|| Error::internal(format!("port {} has no network", port.id)))?;
        for f in &port.fixed_ips {
            if let Some(s) = tx.find::<Subnet>(&f.subnet_id).await? {
                self.check_interface(tx, router, &net, &s).await?;
            }
        }
        let mut value = port.value.clone();
        value.device_id.clone_from(&router.id);
        value.device_owner = owner::ROUTER_INTERFACE.into();
        value.host_id.clone_from(&router.host_id);
        if !value.security_groups.is_empty() {
            crate::logic::groups::leave(tx, &value.id).await?;
            value.security_groups.clear();
        }
        touched.port_changed(&port.value, &value);
        let stored = tx.update(&System::of(port), &value).await?;
        touched.routers.insert(router.id.clone());
        Ok(stored.value)
    }

    async fn check_interface(&self, tx: &mut Tx, router: &Router, net: &Net, subnet: &Subnet) -> Result<()> {
        if net.external && router.gateway.as_ref().is_some_and(|g| g.network_id == net.id) {
            return Err(bad(
                "BadRequest",
                "subnet_id",
                format!(
                    "Bad router request: Subnet {} is of external network {}, where the router has its gateway already.",
                    subnet.id, net.id
                ),
            ));
        }
        refuse_overlap(tx, router, subnet).await
    }

    /// Takes an interface away, by port or subnet or both. Answers the port as it was and the subnet.
    pub(crate) async fn remove_interface(
        &self,
        tx: &mut Tx,
        router: &Router,
        port_id: Option<&str>,
        subnet_id: Option<&str>,
        touched: &mut Touched,
    ) -> Result<(Port, String)> {
        let ports = router_ports(tx, &router.id).await?;
        let found = ports.into_iter().find(|p| {
            p.device_owner == owner::ROUTER_INTERFACE
                && port_id.is_none_or(|id| p.id == id)
                && subnet_id.is_none_or(|s| p.fixed_ips.iter().any(|f| f.subnet_id == s))
        });
        let Some(port) = found else {
            return Err(match (port_id, subnet_id) {
                (Some(p), Some(s)) if tx.find::<Port>(p).await?.is_some_and(|x| x.device_id == router.id) => bad(
                    "SubnetMismatchForPort",
                    "subnet_id",
                    format!("Subnet on port {p} does not match the requested subnet {s}."),
                ),
                (Some(p), _) => not_found(
                    "RouterInterfaceNotFound",
                    format!("Router {} does not have an interface with id {p}", router.id),
                )
                .with_field("port_id"),
                (None, Some(s)) => {
                    if tx.find::<Subnet>(s).await?.is_none() {
                        return Err(Subnet::not_found(s).with_field("subnet_id"));
                    }
                    not_found(
                        "RouterInterfaceNotFoundForSubnet",
                        format!("Router {} has no interface on subnet {s}", router.id),
                    )
                    .with_field("subnet_id")
                }
                (None, None) => bad(
                    "BadRequest",
                    "subnet_id",
                    "Bad router request: Either subnet_id or port_id must be specified.",
                ),
            });
        };
        let subnets: Vec<String> = match subnet_id {
            Some(s) => vec![s.to_owned()],
            None => port.fixed_ips.iter().map(|f| f.subnet_id.clone()).collect(),
        };
        for s in &subnets {
            self.refuse_interface_in_use(tx, router, &port, s).await?;
        }
        let first = subnets.first().cloned().unwrap_or_default();
        let shown = port.value.clone();
        if subnets.len() < port.fixed_ips.len() {
            let mut value = port.value.clone();
            for f in value.fixed_ips.iter().filter(|f| subnets.contains(&f.subnet_id)) {
                crate::logic::ipam::release(tx, &f.subnet_id, f.ip).await?;
            }
            value.fixed_ips.retain(|f| !subnets.contains(&f.subnet_id));
            touched.port_changed(&port.value, &value);
            tx.update(&System::of(port), &value).await?;
        } else {
            ports::remove(tx, &System::of(port), touched).await?;
        }
        touched.routers.insert(router.id.clone());
        Ok((shown, first))
    }

    async fn refuse_interface_in_use(&self, tx: &mut Tx, router: &Router, port: &Port, subnet_id: &str) -> Result<()> {
        for f in floating_ips::through(tx, &router.id).await? {
            let Some(target) = &f.port_id else { continue };
            let on = tx.find::<Port>(target).await?.is_some_and(|p| {
                p.fixed_ips
                    .iter()
                    .any(|x| x.subnet_id == subnet_id && Some(x.ip) == f.fixed_ip)
            });
            if on {
                return Err(conflict(
                    "RouterInterfaceInUseByFloatingIP",
                    format!(
                        "Router interface for subnet {subnet_id} on router {} cannot be deleted, as it is required by one or more floating IPs: {}. Disassociate them first.",
                        router.id, f.floating_ip
                    ),
                ));
            }
        }
        if let Some(s) = tx.find::<Subnet>(subnet_id).await? {
            // Another interface may still reach the next hop.
            let others = self.connected(tx, router, Some(&port.id)).await?;
            for r in &router.routes {
                if s.cidr.contains(&r.nexthop) && !others.iter().any(|o| o.cidr.contains(&r.nexthop)) {
                    return Err(conflict(
                        "RouterInterfaceInUseByRoute",
                        format!(
                            "Router interface for subnet {subnet_id} on router {} cannot be deleted, as it is required by one or more routes: {} via {}.",
                            router.id, r.destination, r.nexthop
                        ),
                    ));
                }
            }
        }
        Ok(())
    }

    /// Subnets that the router has an address in.
    async fn connected(&self, tx: &mut Tx, router: &Router, but: Option<&str>) -> Result<Vec<Stored<Subnet>>> {
        let ports = router_ports(tx, &router.id).await?;
        let ids = ports
            .iter()
            .filter(|p| Some(p.id.as_str()) != but)
            .flat_map(|p| p.fixed_ips.iter().map(|f| f.subnet_id.clone()))
            .collect();
        Ok(subnets_by_id(tx, ids).await?.into_values().collect())
    }

    /// Checks static routes: next hops must be reachable, and not the router itself.
    pub(crate) async fn check_routes(&self, tx: &mut Tx, router: &Router, routes: &[Route]) -> Result<()> {
        if routes.len() > MAX_ROUTES {
            return Err(bad(
                "RoutesExhausted",
                "routes",
                format!(
                    "Unable to complete operation for {}. The number of routes exceeds the maximum {MAX_ROUTES}: {} asked.",
                    router.id,
                    routes.len()
                ),
            ));
        }
        if routes.is_empty() {
            return Ok(());
        }
        let subnets = self.connected(tx, router, None).await?;
        let own: Vec<IpAddr> = router_ports(tx, &router.id)
            .await?
            .iter()
            .flat_map(|p| p.fixed_ips.iter().map(|f| f.ip))
            .collect();
        for r in routes {
            let subnet = subnets.iter().find(|s| s.cidr.contains(&r.nexthop));
            let wrong = if let Some(s) = subnet.filter(|s| !ports::usable(s, r.nexthop)) {
                // The router's host refuses it.
                Some(format!(
                    "the nexthop is no host's address: subnet {} has its network address {} and its broadcast address {} for itself",
                    s.cidr,
                    s.cidr.network(),
                    s.cidr.broadcast()
                ))
            } else if subnet.is_none() {
                let reach: Vec<String> = subnets.iter().map(|s| s.cidr.to_string()).collect();
                Some(format!(
                    "the nexthop is not connected with router (its subnets: {})",
                    reach.join(", ")
                ))
            } else if own.contains(&r.nexthop) {
                Some("the nexthop is used by router".to_owned())
            } else if r.destination.addr().is_ipv4() != r.nexthop.is_ipv4() {
                Some("destination and nexthop are of different IP versions".to_owned())
            } else {
                None
            };
            if let Some(reason) = wrong {
                return Err(bad(
                    "InvalidRoutes",
                    "routes",
                    format!(
                        "Invalid format for routes: {} via {}, {reason}",
                        r.destination, r.nexthop
                    ),
                ));
            }
        }
        Ok(())
    }

    /// Deletes a router with its gateway; refused while it has interfaces.
    pub(crate) async fn router_delete(
        &self,
        tx: &mut Tx,
        grant: &impl Grant<Router>,
        touched: &mut Touched,
    ) -> Result<()> {
        let router = grant.stored().value.clone();
        let ports = router_ports(tx, &router.id).await?;
        let interfaces: Vec<&str> = ports
            .iter()
            .filter(|p| p.device_owner == owner::ROUTER_INTERFACE)
            .map(|p| p.id.as_str())
            .collect();
        if !interfaces.is_empty() {
            return Err(conflict(
                "RouterInUse",
                format!(
                    "Router {} still has ports: {}. Remove its interfaces first.",
                    router.id,
                    interfaces.join(", ")
                ),
            ));
        }
        if let Some(g) = &router.gateway {
            floating_ips::refuse_gateway_change(tx, &router, &g.network_id).await?;
            self.port_remove_by_id(tx, &g.port_id.clone(), touched).await?;
        }
        touched.router_gone(&router);
        quotas::give_back(tx, &router.project_id, "router", 1).await?;
        tx.delete(grant).await
    }
}

/// Ranges on one router do not overlap.
async fn refuse_overlap(tx: &mut Tx, router: &Router, subnet: &Subnet) -> Result<()> {
    let ports = router_ports(tx, &router.id).await?;
    let subnets: BTreeMap<String, Stored<Subnet>> = subnets_by_id(
        tx,
        ports
            .iter()
            .flat_map(|p| p.fixed_ips.iter().map(|f| f.subnet_id.clone()))
            .collect(),
    )
    .await?;
    for (id, s) in &subnets {
        if id == &subnet.id {
            return Err(bad(
                "BadRequest",
                "subnet_id",
                format!("Bad router request: Router already has a port on subnet {id}."),
            ));
        }
        if s.cidr.contains(&subnet.cidr) || subnet.cidr.contains(&s.cidr) {
            return Err(bad(
                "BadRequest",
                "subnet_id",
                format!(
                    "Bad router request: Cidr {} of subnet {} overlaps with cidr {} of subnet {id}.",
                    subnet.cidr, subnet.id, s.cidr
                ),
            ));
        }
    }
    Ok(())
}

/// A destination and a next hop from text.
pub(crate) fn route(destination: &str, nexthop: &str) -> Result<Route> {
    let d = destination.parse::<ipnet::IpNet>().map_err(|_| {
        invalid(
            "routes",
            format!("destination '{destination}' is not a range such as 192.0.2.0/24"),
        )
    })?;
    let n = nexthop
        .parse::<IpAddr>()
        .map_err(|_| invalid("routes", format!("nexthop '{nexthop}' is not an IP address")))?;
    Ok(Route {
        destination: d,
        nexthop: n,
    })
}
