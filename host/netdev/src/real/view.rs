//! What the responders of one network know: who is on it, at which address, and what to tell.

use super::link::{link_local, parse_mac};
use haneul_agent_api::{Neighbour, Network, Port, Router, Subnet};
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use uuid::Uuid;

/// A network with its ports, as one immutable picture: `apply` replaces it, responders read it.
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    /// The network.
    pub network: Network,
    /// Ports of this host on it, by MAC.
    pub by_mac: HashMap<[u8; 6], Arc<Port>>,
    /// The same by address, link-local ones included.
    pub by_ip: HashMap<IpAddr, Arc<Port>>,
    /// Addresses of ports of all hosts, by DNS name in lower case.
    pub by_name: HashMap<String, Vec<IpAddr>>,
    /// Their DNS names.
    pub names: HashMap<IpAddr, String>,
    /// Domain of the guests' names, without a closing dot.
    pub domain: String,
}

impl View {
    /// Takes the picture.
    pub fn of(network: &Network, ports: &[&Port], neighbours: &[&Neighbour], default_domain: &str) -> View {
        let domain = match network.dns_domain.trim_matches('.') {
            "" => default_domain.trim_matches('.'),
            d => d,
        };
        let mut v = View {
            network: network.clone(),
            by_mac: HashMap::new(),
            by_ip: HashMap::new(),
            by_name: HashMap::new(),
            names: HashMap::new(),
            domain: domain.to_ascii_lowercase(),
        };
        for p in ports {
            let p = Arc::new((*p).clone());
            if let Some(mac) = parse_mac(&p.mac) {
                v.by_mac.insert(mac, p.clone());
                v.by_ip.insert(IpAddr::V6(link_local(mac)), p.clone());
            }
            for f in &p.fixed_ips {
                v.by_ip.insert(f.ip, p.clone());
            }
            v.name(host_name(&p), p.fixed_ips.iter().map(|f| f.ip).collect());
        }
        for n in neighbours {
            v.name(
                named(&n.dns_name, n.id, n.addresses.iter().copied()),
                n.addresses.clone(),
            );
        }
        v
    }

    fn name(&mut self, name: String, addresses: Vec<IpAddr>) {
        self.names.extend(addresses.iter().map(|ip| (*ip, name.clone())));
        self.by_name.insert(name, addresses);
    }

    /// The subnet with this id.
    pub fn subnet(&self, id: Uuid) -> Option<&Subnet> {
        self.network.subnets.iter().find(|s| s.id == id)
    }

    /// Whether `ip` is of one of the network's subnets.
    pub fn holds(&self, ip: IpAddr) -> bool {
        self.network.subnets.iter().any(|s| s.cidr.contains(&ip))
    }

    /// Name servers told to the guests of `s`: the subnet's own, else our forwarder.
    pub fn dns_servers(&self, s: &Subnet) -> Vec<IpAddr> {
        let own: Vec<IpAddr> = s
            .dns_servers
            .iter()
            .copied()
            .filter(|d| d.is_ipv4() == s.cidr.addr().is_ipv4())
            .collect();
        // 0.0.0.0 and :: are Neutron's way to say "tell none".
        if own.iter().any(IpAddr::is_unspecified) {
            return vec![];
        }
        if !own.is_empty() {
            return own;
        }
        s.service.iter().map(|x| x.ip).collect()
    }
}

/// A port's name: its own, or one made from its first address as Neutron does.
pub fn host_name(p: &Port) -> String {
    named(&p.dns_name, p.id, p.fixed_ips.iter().map(|f| f.ip))
}

fn named(own: &str, id: Uuid, addresses: impl Iterator<Item = IpAddr>) -> String {
    if !own.is_empty() {
        return own.trim_matches('.').to_ascii_lowercase();
    }
    match addresses.min_by_key(IpAddr::is_ipv6) {
        Some(ip) => format!("host-{}", ip.to_string().replace([':', '.'], "-")),
        None => format!("port-{}", id.simple()),
    }
}

/// What a router advertises on one of its interfaces.
#[derive(Clone, Debug, PartialEq)]
pub struct Advert {
    /// The interface in the router's namespace.
    pub dev: String,
    /// The router's MAC there.
    pub mac: [u8; 6],
    /// MTU of the network.
    pub mtu: u32,
    /// The IPv6 subnets that it stands for.
    pub subnets: Vec<Subnet>,
    /// Name servers.
    pub dns: Vec<IpAddr>,
    /// Domain.
    pub domain: String,
}

/// The advertisements of a router.
pub fn adverts<'a>(r: &Router, network: impl Fn(Uuid) -> Option<&'a Network>, default_domain: &str) -> Vec<Advert> {
    if !r.admin_state_up {
        return vec![];
    }
    let mut out = vec![];
    for i in &r.interfaces {
        let (Some(net), Some(mac)) = (network(i.network_id), parse_mac(&i.mac)) else {
            continue;
        };
        let view = View::of(net, &[], &[], default_domain);
        let subnets: Vec<Subnet> = net
            .subnets
            .iter()
            .filter(|s| s.cidr.addr().is_ipv6() && s.ipv6_ra_mode.is_some())
            .filter(|s| i.addresses.iter().any(|a| s.cidr.contains(&a.addr())))
            .cloned()
            .collect();
        if subnets.is_empty() || !net.admin_state_up {
            continue;
        }
        out.push(Advert {
            dev: super::names::router_if(i.index),
            mac,
            mtu: net.mtu,
            dns: subnets.iter().flat_map(|s| view.dns_servers(s)).collect(),
            domain: view.domain,
            subnets,
        });
    }
    out
}
