//! The rule set of the switch namespace: anti-spoofing, security groups, zones.
//!
//! Two tables. `bridge guard` sees ports: in prerouting it lets only a port's own addresses pass and
//! marks the packet with the number of the port it came **from**; in forward it marks it with the
//! number of the port it goes **to**. `inet groups` sees connections (br_netfilter hands bridged
//! packets to it): egress rules in prerouting, by the first mark, ingress rules in forward, by the
//! second. Bridge-family `ct`, which would make this one table, is missing on many kernels.
//!
//! What comes out of a tunnel (`vxlan`) meets the same ingress rules as any other frame; what our responders say
//! and what is said to them stays on the host, for each host has its own.
//!
//! Invariants: a tap that no rule knows passes nothing; every bridge is its own conntrack zone, so
//! that tenants with the same addresses do not meet; nothing is delivered to the namespace itself.

use super::known::Known;
use super::link::{link_local, parse_mac, show_mac};
use super::model::{Model, Table};
use super::names;
use super::serve::dhcp4;
use haneul_agent_api::{Direction, EtherType, Port, Rule, SecurityGroup};
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};
use uuid::Uuid;

/// Numbers that the kernel needs small: conntrack zones of networks, marks of ports.
#[derive(Clone, Debug, Default)]
pub struct Numbers {
    /// Network id to conntrack zone.
    pub zones: BTreeMap<Uuid, u16>,
}

impl Numbers {
    /// A zone is the network's index where that fits into 16 bits and is free, else the next free one:
    /// the same after a restart, so that connections live on.
    pub fn of(known: &Known) -> Numbers {
        let mut by_index: Vec<_> = known.networks.values().map(|n| (n.index, n.id)).collect();
        by_index.sort();
        let mut used = BTreeSet::new();
        let mut zones = BTreeMap::new();
        for (index, id) in by_index {
            let mut z = (index % 65535).max(1) as u16;
            while !used.insert(z) {
                z = if z == u16::MAX { 1 } else { z + 1 };
                if used.len() >= usize::from(u16::MAX) {
                    break;
                }
            }
            zones.insert(id, z);
        }
        Numbers { zones }
    }
}

const ND: &str = "icmpv6 type { mld-listener-query, mld-listener-report, mld-listener-done, nd-router-solicit, nd-neighbor-solicit, nd-neighbor-advert, mld2-listener-report }";

/// Builds the whole rule set.
pub fn switch(known: &Known) -> Model {
    let mut m = Model::default();
    let numbers = Numbers::of(known);
    let guard = m.table("bridge guard");
    guard
        .map("from", "type ifname : verdict;")
        .map("to", "type ifname : mark;")
        .set("open", "type ifname;")
        .base("pre", "type filter hook prerouting priority -300; policy accept;")
        .rule("pre", "iifname vmap @from")
        .rule("pre", "iifname \"ht*\" drop")
        .base("fw", "type filter hook forward priority -200; policy accept;");
    if !known.neighbours.is_empty() {
        tunnels(guard, known);
    }
    guard
        .rule("fw", "meta mark set 0")
        .rule("fw", "oifname != \"ht*\" accept")
        .rule("fw", "meta mark set oifname map @to")
        .rule("fw", "meta mark 0 goto unmarked")
        .rule("fw", "iifname \"hs*\" jump service")
        .rule("fw", "ether type { arp, ip, ip6 } accept")
        .rule("fw", "drop")
        .rule("unmarked", "oifname @open accept")
        .rule("unmarked", "drop")
        // Answers of our own DHCP responders need no rule of the guest's groups.
        .rule("service", "udp sport 67 udp dport 68 meta mark set 0 accept")
        .rule("service", "udp sport 547 udp dport 546 meta mark set 0 accept")
        .base("in", "type filter hook input priority -200; policy drop;");
    for p in known.ports.values() {
        let tap = format!("\"{}\"", names::tap(p.index));
        let net_up = known.networks.get(&p.network_id).is_some_and(|n| n.admin_state_up);
        if !p.admin_state_up || !net_up {
            guard.pair("from", tap, "drop");
        } else if !p.port_security {
            guard.pair("from", tap.clone(), "accept").element("open", tap);
        } else if guard_port(guard, p) {
            guard
                .pair("from", tap.clone(), format!("jump {}", port_chain('g', p)))
                .pair("to", tap, mark(p));
        }
    }
    let groups = m.table("inet groups");
    groups
        .map("zone", "typeof iifname : ct zone;")
        .map("egress", "type mark : verdict;")
        .map("ingress", "type mark : verdict;")
        .base("zones", "type filter hook prerouting priority -310; policy accept;")
        .rule("zones", "ct zone set iifname map @zone");
    // Ports with stateless groups go without the table of connections: rules speak for both ways.
    let stateless = known.ports.values().any(|p| is_stateless(known, p));
    if stateless {
        groups.set("stateless", "type mark;");
        for (chain, map) in [("loose_out", "egress"), ("loose_in", "ingress")] {
            groups.rule(chain, format!("{ND} accept"));
            if map == "egress" {
                groups
                    .rule(chain, "udp sport 68 udp dport 67 accept")
                    .rule(chain, "udp sport 546 udp dport 547 accept");
            } else {
                groups.rule(chain, "icmpv6 type nd-router-advert accept");
            }
            groups.rule(chain, format!("meta mark vmap @{map}")).rule(chain, "drop");
        }
    }
    for (chain, hook, map) in [
        ("out", "prerouting priority -150", "egress"),
        ("in", "forward priority 0", "ingress"),
    ] {
        groups
            .base(chain, &format!("type filter hook {hook}; policy accept;"))
            .rule(chain, "meta mark 0 accept");
        if stateless {
            groups.rule(chain, format!("meta mark @stateless goto loose_{chain}"));
        }
        groups
            .rule(chain, "ct state established,related accept")
            // Neighbour discovery has no connections; whose addresses it may speak of is the guard's.
            .rule(chain, format!("{ND} accept"));
        if chain == "out" {
            groups
                .rule(chain, "udp sport 68 udp dport 67 accept")
                .rule(chain, "udp sport 546 udp dport 547 accept");
        } else {
            groups.rule(chain, "icmpv6 type nd-router-advert accept");
        }
        groups
            .rule(chain, "ct state invalid drop")
            .rule(chain, format!("meta mark vmap @{map}"))
            .rule(chain, "drop");
    }
    for (id, zone) in &numbers.zones {
        if let Some(n) = known.networks.get(id) {
            groups.pair("zone", format!("\"{}\"", names::bridge(n.index)), zone.to_string());
        }
    }
    let used: BTreeSet<Uuid> = known
        .ports
        .values()
        .filter(|p| p.port_security)
        .flat_map(|p| p.security_groups.iter().copied())
        .collect();
    for id in &used {
        if let Some(g) = known.groups.get(id) {
            group(groups, known, g);
        }
    }
    for p in known.ports.values() {
        if !p.port_security {
            continue;
        }
        for (way, map, letter) in [('i', "ingress", 'i'), ('e', "egress", 'e')] {
            let chain = port_chain(letter, p);
            groups.chain(&chain);
            for g in &p.security_groups {
                // A group not told yet opens nothing.
                if known.groups.contains_key(g) {
                    groups.rule(&chain, format!("jump s{way}_{}", g.simple()));
                }
            }
            groups.rule(&chain, "drop");
            groups.pair(map, mark(p), format!("jump {chain}"));
        }
        if is_stateless(known, p) {
            groups.element("stateless", mark(p));
        }
    }
    m
}

/// What must not cross between hosts.
fn tunnels(guard: &mut Table, known: &Known) {
    guard
        .set("local", "type ifname . ether_addr;")
        .set("own4", "type ifname . ipv4_addr;")
        .set("own6", "type ifname . ipv6_addr;")
        .set("served", "type ifname;")
        // Nobody else has a MAC of this host.
        .rule("pre", "iifname \"hv*\" iifname . ether saddr @local drop")
        .rule("fw", "iifname \"hv*\" oifname \"hs*\" drop")
        .rule("fw", "oifname \"hv*\" jump leaving")
        .rule("leaving", "iifname \"hs*\" drop")
        .rule("leaving", "oifname @served udp dport { 67, 547 } drop")
        // Who has an address of this host? Nobody elsewhere knows better.
        .rule("leaving", "oifname . arp daddr ip @own4 drop")
        .rule(
            "leaving",
            "oifname . ip6 daddr @own6 icmpv6 type nd-neighbor-solicit drop",
        );
    let mut own = |network: Uuid, mac: &str, addresses: &mut dyn Iterator<Item = IpAddr>| {
        let Some(n) = known.networks.get(&network) else { return };
        let dev = format!("\"{}\"", names::vxlan(n.index));
        let mut macs = vec![];
        macs.extend(parse_mac(mac));
        guard.elements("local", macs.iter().map(|m| format!("{dev} . {}", show_mac(*m))));
        let lls = macs.iter().map(|m| IpAddr::from(link_local(*m)));
        for ip in addresses.chain(lls) {
            match ip {
                IpAddr::V4(ip) => guard.element("own4", format!("{dev} . {ip}")),
                IpAddr::V6(ip) => guard.element("own6", format!("{dev} . {}", solicited(ip))),
            };
        }
    };
    // A port that is arriving is still elsewhere.
    let here = known.ports.values().filter(|p| !known.neighbours.contains_key(&p.id));
    for p in here {
        own(p.network_id, &p.mac, &mut p.fixed_ips.iter().map(|f| f.ip));
    }
    for i in known.routers.values().flat_map(|r| &r.interfaces) {
        own(i.network_id, &i.mac, &mut i.addresses.iter().map(IpNet::addr));
    }
    let mut served = vec![];
    for n in known.networks.values() {
        for s in n.subnets.iter().filter(|s| s.enable_dhcp) {
            let Some(service) = &s.service else { continue };
            let metadata = [dhcp4::METADATA.into(), super::service::METADATA6.into()];
            own(n.id, &service.mac, &mut metadata.into_iter().chain([service.ip]));
            served.push(format!("\"{}\"", names::vxlan(n.index)));
        }
    }
    guard.elements("served", served);
}

/// The group in which the holder of an address hears questions for it (RFC 4291).
fn solicited(ip: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = ip.octets();
    Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c])
}

fn is_stateless(known: &Known, p: &Port) -> bool {
    let mut groups = p.security_groups.iter().filter_map(|g| known.groups.get(g));
    p.port_security && groups.any(|g| !g.stateful)
}

fn port_chain(letter: char, p: &Port) -> String {
    format!("{letter}{}", p.index)
}

/// The packet mark of a port: its index, which the registry keeps unique; 0 means "no guest port".
fn mark(p: &Port) -> String {
    format!("{:#010x}", p.index.wrapping_add(1))
}

/// A guest's addresses: MAC and network it may speak for.
pub fn identities(p: &Port) -> Vec<([u8; 6], IpNet)> {
    let mut out = vec![];
    if let Some(mac) = parse_mac(&p.mac) {
        out.extend(p.fixed_ips.iter().map(|f| (mac, IpNet::from(f.ip))));
        out.push((mac, IpNet::from(IpAddr::V6(link_local(mac)))));
    }
    for pair in &p.allowed_address_pairs {
        if let Some(mac) = parse_mac(&pair.mac) {
            out.push((mac, pair.ip.trunc()));
            let ll = (mac, IpNet::from(IpAddr::V6(link_local(mac))));
            if !out.contains(&ll) {
                out.push(ll);
            }
        }
    }
    out
}

/// Rules of what may come out of a guest. False when the port's MAC is not one: then nothing may.
fn guard_port(t: &mut Table, p: &Port) -> bool {
    if parse_mac(&p.mac).is_none() {
        return false;
    }
    let c = port_chain('g', p);
    let ids = identities(p);
    let macs: BTreeSet<String> = ids.iter().map(|(m, _)| show_mac(*m)).collect();
    let macs = macs.into_iter().collect::<Vec<_>>().join(", ");
    t.rule(&c, format!("meta mark set {}", mark(p)));
    t.rule(&c, format!("ether saddr != {{ {macs} }} drop"));
    // Most packets are TCP from the port's own addresses: nothing below could object to them.
    let own = |v4: bool| -> Vec<String> {
        ids.iter()
            .filter(|(_, n)| n.addr().is_ipv4() == v4 && n.prefix_len() == n.max_prefix_len())
            .map(|(m, n)| format!("{} . {}", show_mac(*m), n.addr()))
            .collect()
    };
    for (ether, field, list) in [("ip", "ip", own(true)), ("ip6", "ip6", own(false))] {
        if !list.is_empty() {
            t.rule(
                &c,
                format!(
                    "ether type {ether} meta l4proto 6 ether saddr . {field} saddr {{ {} }} accept",
                    list.join(", ")
                ),
            );
        }
    }
    // A guest is no DHCP server and no router.
    t.rule(&c, "udp sport 67 udp dport 68 drop");
    t.rule(&c, "udp sport 547 udp dport 546 drop");
    t.rule(&c, "icmpv6 type { nd-router-advert, nd-redirect } drop");
    t.rule(&c, "ip saddr 0.0.0.0 udp sport 68 udp dport 67 accept");
    // Duplicate detection asks with the unspecified address.
    for (mac, _) in dedup_macs(&ids) {
        let m = show_mac(mac);
        t.rule(
            &c,
            format!("ether type arp ether saddr {m} arp saddr ether {m} arp saddr ip 0.0.0.0 accept"),
        );
    }
    t.rule(
        &c,
        "ip6 saddr :: icmpv6 type { nd-neighbor-solicit, nd-router-solicit, mld-listener-report, mld2-listener-report } accept",
    );
    let (mut arp, mut v4, mut v6) = (vec![], vec![], vec![]);
    for (mac, net) in &ids {
        let m = show_mac(*mac);
        match net {
            IpNet::V4(n) if n.prefix_len() == 32 => {
                arp.push(format!("{m} . {m} . {}", n.addr()));
                v4.push(format!("{m} . {}", n.addr()));
            }
            IpNet::V4(n) => {
                let which = |f: &str| {
                    if n.prefix_len() == 0 {
                        String::new()
                    } else {
                        format!(" {f} {n}")
                    }
                };
                t.rule(
                    &c,
                    format!(
                        "ether type arp ether saddr {m} arp saddr ether {m}{} accept",
                        which("arp saddr ip")
                    ),
                );
                t.rule(&c, format!("ether type ip ether saddr {m}{} accept", which("ip saddr")));
            }
            IpNet::V6(n) if n.prefix_len() == 128 => {
                v6.push(format!("{m} . {}", n.addr()));
            }
            IpNet::V6(_) => {}
        }
    }
    if !v4.is_empty() {
        t.rule(
            &c,
            format!(
                "ether type arp ether saddr . arp saddr ether . arp saddr ip {{ {} }} accept",
                arp.join(", ")
            ),
        );
        t.rule(
            &c,
            format!("ether type ip ether saddr . ip saddr {{ {} }} accept", v4.join(", ")),
        );
    }
    // A neighbour advertisement names its target in the payload: nft 1.0.6 has no word for it, so its
    // bits are compared. Targets come before sources, for a good source proves nothing about them.
    let nets: BTreeSet<IpNet> = ids.iter().map(|(_, n)| *n).filter(|n| n.addr().is_ipv6()).collect();
    let na = format!("n{}", p.index);
    for n in &nets {
        let IpNet::V6(n) = n else { continue };
        match n.prefix_len() {
            0 => t.rule(&na, "return"),
            128 => t.rule(&na, format!("@th,64,128 {:#034x} return", u128::from(n.addr()))),
            // Whole bytes only (a wider prefix is compared to its last whole byte; the source check
            // below is exact).
            l => {
                let bits = (l / 8).max(1) * 8;
                let v = u128::from(n.addr()) >> (128 - u32::from(bits));
                t.rule(&na, format!("@th,64,{bits} {v:#x} return"))
            }
        };
    }
    t.rule(&na, "drop");
    t.rule(&c, format!("icmpv6 type nd-neighbor-advert jump {na}"));
    if !v6.is_empty() {
        t.rule(
            &c,
            format!("ether type ip6 ether saddr . ip6 saddr {{ {} }} accept", v6.join(", ")),
        );
    }
    for (mac, net) in &ids {
        if let IpNet::V6(n) = net
            && n.prefix_len() < 128
        {
            let m = show_mac(*mac);
            let which = if n.prefix_len() == 0 {
                String::new()
            } else {
                format!(" ip6 saddr {n}")
            };
            t.rule(&c, format!("ether type ip6 ether saddr {m}{which} accept"));
        }
    }
    t.rule(&c, "drop");
    true
}

fn dedup_macs(ids: &[([u8; 6], IpNet)]) -> BTreeSet<([u8; 6], ())> {
    ids.iter().map(|(m, _)| (*m, ())).collect()
}

/// Chains and member sets of a group.
fn group(t: &mut Table, known: &Known, g: &SecurityGroup) {
    let id = g.id.simple();
    t.chain(&format!("si_{id}")).chain(&format!("se_{id}"));
    for r in &g.rules {
        if let Some(remote) = r.remote_group {
            members(t, remote, known.groups.get(&remote));
        }
        let way = match r.direction {
            Direction::Ingress => 'i',
            Direction::Egress => 'e',
        };
        t.rule(&format!("s{way}_{id}"), rule(r));
    }
}

fn members(t: &mut Table, id: Uuid, g: Option<&SecurityGroup>) {
    let (m4, m6) = (format!("m4_{}", id.simple()), format!("m6_{}", id.simple()));
    t.set(&m4, "type ipv4_addr;").set(&m6, "type ipv6_addr;");
    for ip in g.map(|g| g.members.as_slice()).unwrap_or_default() {
        t.element(if ip.is_ipv4() { &m4 } else { &m6 }, ip.to_string());
    }
}

/// One security group rule in nft's words.
fn rule(r: &Rule) -> String {
    let v4 = r.ethertype == EtherType::Ipv4;
    let (ip, family) = if v4 { ("ip", "ipv4") } else { ("ip6", "ipv6") };
    let side = match r.direction {
        Direction::Ingress => "saddr",
        Direction::Egress => "daddr",
    };
    let mut s = format!("meta nfproto {family}");
    if let Some(net) = r.remote_prefix {
        if net.addr().is_ipv4() != v4 {
            // A prefix of the other family matches nothing.
            return format!("{s} meta mark 0 accept");
        }
        if net.prefix_len() > 0 {
            s += &format!(" {ip} {side} {}", net.trunc());
        }
    }
    if let Some(g) = r.remote_group {
        s += &format!(" {ip} {side} @m{}_{}", if v4 { 4 } else { 6 }, g.simple());
    }
    match (r.protocol, v4) {
        (None, _) => {}
        (Some(1), true) => {
            s += " meta l4proto 1";
            if let Some(t) = r.port_min {
                s += &format!(" icmp type {t}");
            }
            if let Some(c) = r.port_max {
                s += &format!(" icmp code {c}");
            }
        }
        // "icmp" in an IPv6 rule means ICMPv6, as in Neutron.
        (Some(1 | 58), false) => {
            s += " meta l4proto 58";
            if let Some(t) = r.port_min {
                s += &format!(" icmpv6 type {t}");
            }
            if let Some(c) = r.port_max {
                s += &format!(" icmpv6 code {c}");
            }
        }
        (Some(p), _) => {
            s += &format!(" meta l4proto {p}");
            if has_ports(p) && (r.port_min.is_some() || r.port_max.is_some()) {
                let a = r.port_min.unwrap_or(1);
                let b = r.port_max.unwrap_or(a.max(r.port_min.map_or(65535, |m| m)));
                s += &if a == b {
                    format!(" th dport {a}")
                } else {
                    format!(" th dport {a}-{b}")
                };
            }
        }
    }
    s + " accept"
}

/// TCP, UDP, DCCP, SCTP, UDP-Lite.
pub fn has_ports(protocol: u8) -> bool {
    matches!(protocol, 6 | 17 | 33 | 132 | 136)
}

/// A connection as rules see it: who began it, and how.
#[derive(Clone, Debug)]
pub struct Flow {
    /// Protocol number.
    pub protocol: u8,
    /// Who began it.
    pub src: IpAddr,
    /// Whom it is for.
    pub dst: IpAddr,
    /// Destination port, or ICMP type and code.
    pub dport: u16,
    /// ICMP code.
    pub code: u16,
}

/// Whether any group of `p` allows `flow` in `direction`: the same question that the rule set answers
/// for a first packet, asked again for connections that are open already.
pub fn allows(known: &Known, p: &Port, flow: &Flow, direction: Direction) -> bool {
    let remote = match direction {
        Direction::Ingress => flow.src,
        Direction::Egress => flow.dst,
    };
    if direction == Direction::Egress && flow.protocol == 17 && matches!(flow.dport, 67 | 547) {
        return true;
    }
    p.security_groups
        .iter()
        .filter_map(|g| known.groups.get(g))
        .flat_map(|g| &g.rules)
        .filter(|r| r.direction == direction)
        .any(|r| matches(known, r, flow, remote))
}

fn matches(known: &Known, r: &Rule, flow: &Flow, remote: IpAddr) -> bool {
    let v4 = r.ethertype == EtherType::Ipv4;
    if v4 != remote.is_ipv4() {
        return false;
    }
    if r.remote_prefix.is_some_and(|n| !n.contains(&remote)) {
        return false;
    }
    if let Some(g) = r.remote_group
        && !known.groups.get(&g).is_some_and(|g| g.members.contains(&remote))
    {
        return false;
    }
    let Some(p) = r.protocol else { return true };
    let p = if p == 1 && !v4 { 58 } else { p };
    if p != flow.protocol {
        return false;
    }
    if p == 1 || p == 58 {
        return r.port_min.is_none_or(|t| t == flow.dport) && r.port_max.is_none_or(|c| c == flow.code);
    }
    !has_ports(p) || (r.port_min.is_none_or(|a| flow.dport >= a) && r.port_max.is_none_or(|b| flow.dport <= b))
}
