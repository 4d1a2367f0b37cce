//! A router: a namespace with a veth into each of its networks, forwarding, translation.

use super::conntrack;
use super::err::{Context, failure};
use super::known::Known;
use super::link::{Links, Route, Set, parse_mac};
use super::model::{self, Model};
use super::names::{self, Names};
use super::ns::{self, Ns};
use super::packet;
use haneul_agent_api::{Failure, Router};
use ipnet::IpNet;
use std::net::IpAddr;
use uuid::Uuid;

/// A router that stands.
pub struct Standing {
    /// Its namespace.
    pub ns: Ns,
    /// As it was applied last; `None` after an attempt that failed half-way.
    pub applied: Option<Router>,
    rules: Option<Model>,
    /// Subnets without interface, until their connections are cut.
    uncut: Vec<IpNet>,
}

struct Nic {
    index: u32,
    name: String,
    network: Uuid,
    mac: [u8; 6],
    addresses: Vec<IpNet>,
}

fn nics(r: &Router) -> Result<Vec<Nic>, Failure> {
    let mac = |s: &str| parse_mac(s).ok_or_else(|| failure("a router's MAC address is malformed", s));
    let mut out = vec![];
    for i in &r.interfaces {
        out.push(Nic {
            index: i.index,
            name: names::router_if(i.index),
            network: i.network_id,
            mac: mac(&i.mac)?,
            addresses: i.addresses.clone(),
        });
    }
    if let Some(g) = &r.gateway {
        let mut addresses = g.addresses.clone();
        // The router answers ARP for its floating addresses because it holds them.
        for f in &r.floating_ips {
            let net = IpNet::from(f.floating);
            if !addresses.iter().any(|a| a.addr() == f.floating) && !addresses.contains(&net) {
                addresses.push(net);
            }
        }
        out.push(Nic {
            index: g.index,
            name: names::router_gw(g.index),
            network: g.network_id,
            mac: mac(&g.mac)?,
            addresses,
        });
    }
    Ok(out)
}

/// Rules of a router's namespace.
pub fn rules(r: &Router) -> Model {
    let mut m = Model::default();
    let t = m.table("inet router");
    t.map("floating", "type ipv4_addr : ipv4_addr;")
        .map("fixed", "type ipv4_addr : ipv4_addr;")
        .base("pre", "type nat hook prerouting priority -100; policy accept;")
        .base("local", "type nat hook output priority -100; policy accept;")
        .base("post", "type nat hook postrouting priority 100; policy accept;")
        .base("fw", "type filter hook forward priority 0; policy accept;")
        .base("in", "type filter hook input priority 0; policy drop;")
        .rule("pre", "dnat ip to ip daddr map @floating")
        .rule("local", "dnat ip to ip daddr map @floating")
        // The router itself answers pings and speaks neighbour discovery; no more.
        .rule("in", "iifname \"lo\" accept")
        .rule("in", "ct state established,related accept")
        .rule("in", "meta l4proto { 1, 58 } accept")
        .rule("fw", "ct state established,related accept")
        // Metadata is each network's own: it never crosses a router.
        .rule("fw", "ip daddr 169.254.0.0/16 drop")
        .rule("fw", "ip saddr 169.254.0.0/16 drop");
    for f in &r.floating_ips {
        if let (IpAddr::V4(a), IpAddr::V4(b)) = (f.floating, f.fixed) {
            t.pair("floating", a.to_string(), b.to_string());
            t.pair("fixed", b.to_string(), a.to_string());
        }
    }
    if let Some(g) = &r.gateway {
        let gw = names::router_gw(g.index);
        t.rule("post", format!("oifname \"{gw}\" snat ip to ip saddr map @fixed"));
        // A guest that calls a neighbour by its floating address has to see the answer come from there.
        t.rule(
            "post",
            format!("iifname != \"{gw}\" ct status dnat snat ip to ip saddr map @fixed"),
        );
        let own = g.addresses.iter().find(|a| a.addr().is_ipv4());
        if let (true, Some(own)) = (g.enable_snat, own) {
            let own = own.addr();
            t.rule("post", format!("iifname != \"{gw}\" ct status dnat snat ip to {own}"));
            t.rule("post", format!("oifname \"{gw}\" meta nfproto ipv4 snat ip to {own}"));
            // Untranslatable packets must not leave with inner addresses.
            t.rule(
                "fw",
                format!("oifname \"{gw}\" meta nfproto ipv4 ct state invalid drop"),
            );
            t.rule("fw", format!("iifname \"{gw}\" ct status dnat accept"));
            t.rule("fw", format!("iifname \"{gw}\" meta nfproto ipv4 drop"));
        }
    }
    m
}

const SYSCTLS: &[(&str, &str)] = &[
    ("ipv4/ip_forward", "1"),
    ("ipv4/conf/all/rp_filter", "0"),
    ("ipv4/conf/default/rp_filter", "0"),
    // An address is answered for on its own interface only.
    ("ipv4/conf/all/arp_ignore", "1"),
    ("ipv4/conf/all/arp_announce", "2"),
    ("ipv4/conf/all/send_redirects", "0"),
    ("ipv4/conf/default/send_redirects", "0"),
    ("ipv4/conf/all/accept_redirects", "0"),
];
const SYSCTLS_OPTIONAL: &[(&str, &str)] = &[
    ("ipv6/conf/all/forwarding", "1"),
    ("ipv6/conf/all/accept_ra", "0"),
    ("ipv6/conf/default/accept_ra", "0"),
    ("ipv6/conf/default/dad_transmits", "0"),
    ("ipv6/conf/default/accept_dad", "0"),
];

/// Brings one router about. `links` are the switch's; new ends are made there.
pub fn ensure(
    names: &Names,
    known: &Known,
    sw: &Ns,
    links: &Links,
    r: &Router,
    slot: &mut Option<Standing>,
) -> Result<(), Failure> {
    let (ns, fresh) = Ns::ensure(&names.router(r.index)).context(|| "making a router's namespace".into())?;
    if slot.as_ref().is_none_or(|s| fresh || !s.ns.is_current()) {
        ns.sysctl(SYSCTLS, false).context(|| "router sysctl".into())?;
        ns.sysctl(SYSCTLS_OPTIONAL, true).context(|| "router sysctl".into())?;
        let lo = ns.need_index("lo").context(|| "router lo".into())?;
        ns.link_set(
            lo,
            Set {
                up: Some(true),
                ..Set::default()
            },
        )
        .context(|| "router lo".into())?;
        *slot = Some(Standing {
            ns,
            applied: None,
            rules: None,
            uncut: vec![],
        });
    }
    let Some(standing) = slot else {
        return Err(failure("a router could not be kept", r.id));
    };
    let before = standing.applied.take();
    let had = before.iter().flat_map(|b| &b.interfaces);
    let gone = had.filter(|i| !r.interfaces.iter().any(|j| j.port_id == i.port_id));
    standing
        .uncut
        .extend(gone.flat_map(|i| i.addresses.iter().map(IpNet::trunc)));
    let ns = standing.ns.clone();
    haneul_core::fault_point!("netdev.real.router.namespace");
    // Rules first: no packet crosses a router that does not translate yet.
    let want = rules(r);
    let script = match &standing.rules {
        Some(old) => want.diff(old),
        None => want.full(),
    };
    if let Err(e) = model::run(&ns, &script) {
        tracing::warn!(router = %r.id, error = %e, "rules did not apply; making them anew");
        standing.rules = None;
        model::run(&ns, &want.full()).context(|| "router rules".into())?;
    }
    if standing.rules.replace(want).is_none() {
        ns.sysctl(super::TRACKING_SYSCTLS, false)
            .context(|| "connection tracking".into())?;
    }
    haneul_core::fault_point!("netdev.real.router.rules");
    let mut inside = ns.links().context(|| "listing a router's links".into())?;
    let nics = nics(r)?;
    for name in inside.keys() {
        let ours = name.starts_with("hi") || name.starts_with("hg");
        if ours && !nics.iter().any(|n| n.name == *name) {
            ns.link_del(name).context(|| format!("removing {name}"))?;
        }
    }
    let mut first = None;
    for nic in &nics {
        if let Err(e) = nic_ensure(known, sw, links, &ns, &mut inside, r, nic) {
            first.get_or_insert(e);
        }
    }
    if let Err(e) = routes(&ns, r).context(|| "router routes".into()) {
        first.get_or_insert(e);
    }
    announce(&ns, r, before.as_ref());
    haneul_core::fault_point!("netdev.real.router.cut");
    conntrack::cut_router(&ns, r, &standing.uncut).context(|| "cutting connections".into())?;
    standing.uncut.clear();
    if let Some(e) = first {
        return Err(e);
    }
    standing.applied = Some(r.clone());
    Ok(())
}

fn nic_ensure(
    known: &Known,
    sw: &Ns,
    links: &Links,
    ns: &Ns,
    inside: &mut Links,
    r: &Router,
    nic: &Nic,
) -> Result<(), Failure> {
    let net = known
        .networks
        .get(&nic.network)
        .ok_or_else(|| failure("a router's network is not known to the host", nic.network))?;
    let bridge = names::bridge(net.index);
    let master = links
        .get(&bridge)
        .map(|l| l.index)
        .ok_or_else(|| failure("a router's network is not there", &bridge))?;
    let peer = names::router_peer(nic.index);
    let up = r.admin_state_up && net.admin_state_up;
    let here = inside.get(&nic.name).filter(|l| l.mac == nic.mac);
    if here.is_none() || !links.contains_key(&peer) {
        ns.link_del(&nic.name).context(|| nic.name.clone())?;
        sw.link_del(&peer).context(|| peer.clone())?;
        let set = Set {
            master: Some(master),
            mtu: Some(net.mtu),
            up: Some(up),
            mac: None,
        };
        sw.veth_add(&peer, set, ns, &nic.name, Some(nic.mac))
            .context(|| format!("making {peer}"))?;
        haneul_core::fault_point!("netdev.real.router.interface");
        *inside = ns.links().context(|| "listing a router's links".into())?;
    } else if let Some(l) = links.get(&peer)
        && (l.master != master || l.mtu != net.mtu || l.up != up)
    {
        let set = Set {
            master: Some(master),
            mtu: Some(net.mtu),
            up: Some(up),
            mac: None,
        };
        sw.link_set(l.index, set).context(|| peer.clone())?;
    }
    let Some(l) = inside.get(&nic.name) else {
        return Err(failure("a router's interface vanished", &nic.name));
    };
    if l.up != up || l.mtu != net.mtu {
        let set = Set {
            mtu: Some(net.mtu),
            up: Some(up),
            ..Set::default()
        };
        ns.link_set(l.index, set).context(|| nic.name.clone())?;
    }
    ns.addrs_exact(l.index, &nic.addresses)
        .context(|| format!("addresses of {}", nic.name))
}

fn routes(ns: &Ns, r: &Router) -> std::io::Result<()> {
    let mut want = vec![];
    if r.admin_state_up {
        if let Some(g) = &r.gateway {
            let dev = ns.need_index(&names::router_gw(g.index))?;
            for hop in &g.next_hops {
                let dst = match hop {
                    IpAddr::V4(_) => IpNet::V4(ipnet::Ipv4Net::default()),
                    IpAddr::V6(_) => IpNet::V6(ipnet::Ipv6Net::default()),
                };
                want.push(Route {
                    dst,
                    via: Some(*hop),
                    dev,
                });
            }
        }
        for (dst, via) in &r.routes {
            want.push(Route {
                dst: dst.trunc(),
                via: Some(*via),
                dev: 0,
            });
        }
    }
    let have = ns.routes()?;
    for h in &have {
        if !want.iter().any(|w| w.dst == h.dst) {
            ns.route_del(h)?;
        }
    }
    let mut bad = None;
    for w in &want {
        let there = have
            .iter()
            .any(|h| h.dst == w.dst && h.via == w.via && (w.dev == 0 || h.dev == w.dev));
        // A user's route with an unreachable next hop must not keep the others away.
        if !there && let Err(e) = ns.route_add(w) {
            bad.get_or_insert(std::io::Error::other(format!("{}: {e}", w.dst)));
        }
    }
    bad.map_or(Ok(()), Err)
}

/// Tells the segment who holds the outer addresses now: a floating address may have moved here from
/// another router, and neighbours remember for minutes.
fn announce(ns: &Ns, r: &Router, before: Option<&Router>) {
    let Some(g) = &r.gateway else { return };
    let Some(mac) = parse_mac(&g.mac) else { return };
    if !r.admin_state_up {
        return;
    }
    let old: Vec<IpAddr> = before
        .filter(|b| b.admin_state_up && b.gateway.as_ref().is_some_and(|x| x.mac == g.mac))
        .map(outer)
        .unwrap_or_default();
    for ip in outer(r) {
        if old.contains(&ip) {
            continue;
        }
        let dev = names::router_gw(g.index);
        let told = match ip {
            IpAddr::V4(ip) => packet::gratuitous_arp(ns, &dev, mac, ip),
            IpAddr::V6(ip) => packet::unsolicited_na(ns, &dev, mac, ip),
        };
        if let Err(e) = told {
            tracing::warn!(%ip, error = %e, "could not announce an address");
        }
    }
}

fn outer(r: &Router) -> Vec<IpAddr> {
    let own = r.gateway.iter().flat_map(|g| g.addresses.iter().map(|a| a.addr()));
    own.chain(r.floating_ips.iter().map(|f| f.floating)).collect()
}

/// Takes a router away.
pub fn remove(names: &Names, sw: Option<&Ns>, r: &Router) -> Result<(), Failure> {
    if let Some(sw) = sw {
        let inner = r.interfaces.iter().map(|i| i.index);
        for index in inner.chain(r.gateway.iter().map(|g| g.index)) {
            let peer = names::router_peer(index);
            sw.link_del(&peer).context(|| peer.clone())?;
        }
    }
    haneul_core::fault_point!("netdev.real.router.remove");
    ns::delete(&names.router(r.index)).context(|| "deleting a router's namespace".into())
}
