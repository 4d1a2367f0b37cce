//! The small namespace of a network where its responders live: a veth per service MAC, the service
//! addresses, 169.254.169.254 and fe80::a9fe:a9fe.

use super::err::{Context, failure};
use super::link::{Links, Set, parse_mac};
use super::names::{self, Names};
use super::ns::{self, Ns};
use super::packet::Raw;
use super::serve::{Tasks, dhcp4, dhcp6, dns, metadata};
use super::view::View;
use haneul_agent_api::{Failure, Network};
use ipnet::IpNet;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::sync::Arc;
use tokio::runtime::Handle;
use tokio::sync::watch;

/// fe80::a9fe:a9fe, the IPv6 face of the metadata service.
pub const METADATA6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0xa9fe, 0xa9fe);

/// A network's responders.
pub struct Standing {
    ns: Ns,
    plan: Vec<Leg>,
    up: bool,
    tasks: Option<Tasks>,
    view: watch::Sender<Arc<View>>,
}

/// One veth: a MAC with its addresses.
#[derive(Clone, Debug, PartialEq)]
struct Leg {
    mac: [u8; 6],
    addresses: Vec<IpNet>,
}

/// What the responders need from their surroundings.
pub struct Around<'a> {
    /// The runtime for tasks.
    pub rt: &'a Handle,
    /// Metadata source and limits.
    pub shared: &'a Arc<metadata::Shared>,
    /// Resolvers.
    pub upstream: &'a dns::Upstream,
    /// Seconds.
    pub lease: u32,
}

fn plan(n: &Network) -> Result<Vec<Leg>, Failure> {
    let mut legs: Vec<Leg> = vec![];
    for s in n.subnets.iter().filter(|s| s.enable_dhcp) {
        let Some(service) = &s.service else { continue };
        let mac = parse_mac(&service.mac)
            .ok_or_else(|| failure("a service port's MAC address is malformed", &service.mac))?;
        let net = IpNet::new(service.ip, s.cidr.prefix_len()).map_err(|e| failure("a subnet is malformed", e))?;
        match legs.iter_mut().find(|l| l.mac == mac) {
            Some(l) => l.addresses.push(net),
            None => legs.push(Leg {
                mac,
                addresses: vec![net],
            }),
        }
    }
    if let Some(first) = legs.first_mut() {
        first.addresses.push(IpNet::from(IpAddr::V4(dhcp4::METADATA)));
        first.addresses.extend(IpNet::new(IpAddr::V6(METADATA6), 64));
    }
    Ok(legs)
}

const SYSCTLS: &[(&str, &str)] = &[
    ("ipv4/ip_forward", "0"),
    ("ipv4/conf/all/rp_filter", "0"),
    ("ipv4/conf/default/rp_filter", "0"),
    ("ipv4/conf/all/arp_ignore", "1"),
    ("ipv4/conf/all/arp_announce", "2"),
];
const SYSCTLS_OPTIONAL: &[(&str, &str)] = &[
    ("ipv6/conf/all/accept_ra", "0"),
    ("ipv6/conf/default/accept_ra", "0"),
    ("ipv6/conf/default/dad_transmits", "0"),
    ("ipv6/conf/default/accept_dad", "0"),
];

/// Brings the responders of one network about, and tells them `view`.
pub fn ensure(
    names: &Names,
    sw: &Ns,
    links: &Links,
    view: View,
    around: &Around<'_>,
    slot: &mut Option<Standing>,
) -> Result<(), Failure> {
    let n = view.network.clone();
    let legs = plan(&n)?;
    if legs.is_empty() {
        if slot.take().is_some() || !ns::list(&names.service(n.index)).is_empty() {
            remove(names, Some(sw), &n)?;
        }
        return Ok(());
    }
    let whole = slot.as_ref().is_some_and(|s| {
        s.ns.is_current()
            && s.tasks.is_some()
            && s.plan == legs
            && s.up == n.admin_state_up
            && (0..legs.len()).all(|i| {
                links
                    .get(&names::service_peer(n.index, i))
                    .is_some_and(|l| l.mtu == n.mtu && l.master != 0)
            })
    });
    if let (true, Some(s)) = (whole, slot.as_ref()) {
        s.view.send_if_modified(|v| {
            let new = **v != view;
            if new {
                *v = Arc::new(view);
            }
            new
        });
        return Ok(());
    }
    // The old tasks' sockets hold the addresses and an old namespace.
    if let Some(old) = slot.take()
        && let Some(tasks) = old.tasks
    {
        tasks.end(around.rt);
    }
    let (ns, fresh) = Ns::ensure(&names.service(n.index)).context(|| "making a service namespace".into())?;
    haneul_core::fault_point!("netdev.real.service.namespace");
    if fresh || ns.link_index(&names::service_if(0)).ok().flatten().is_none() {
        ns.sysctl(SYSCTLS, false).context(|| "service sysctl".into())?;
        ns.sysctl(SYSCTLS_OPTIONAL, true).context(|| "service sysctl".into())?;
    }
    let master = links
        .get(&names::bridge(n.index))
        .map(|l| l.index)
        .ok_or_else(|| failure("a network's bridge is not there", n.id))?;
    let inside = ns.links().context(|| "listing service links".into())?;
    for (i, leg) in legs.iter().enumerate() {
        let (peer, dev) = (names::service_peer(n.index, i), names::service_if(i));
        let fits = inside.get(&dev).is_some_and(|l| l.mac == leg.mac);
        let set = Set {
            master: Some(master),
            mtu: Some(n.mtu),
            up: Some(n.admin_state_up),
            mac: None,
        };
        match links.get(&peer).filter(|_| fits) {
            Some(l) => sw.link_set(l.index, set).context(|| peer.clone())?,
            None => {
                ns.link_del(&dev).context(|| dev.clone())?;
                sw.link_del(&peer).context(|| peer.clone())?;
                sw.veth_add(&peer, set, &ns, &dev, Some(leg.mac))
                    .context(|| format!("making {peer}"))?;
            }
        }
        let index = ns.need_index(&dev).context(|| dev.clone())?;
        let set = Set {
            mtu: Some(n.mtu),
            up: Some(true),
            ..Set::default()
        };
        ns.link_set(index, set).context(|| dev.clone())?;
        ns.addrs_exact(index, &leg.addresses)
            .context(|| format!("addresses of {dev}"))?;
    }
    for i in legs.len()..16 {
        let peer = names::service_peer(n.index, i);
        if links.contains_key(&peer) {
            sw.link_del(&peer).context(|| peer.clone())?;
        }
    }
    haneul_core::fault_point!("netdev.real.service.addresses");
    let (tx, rx) = watch::channel(Arc::new(view));
    let up = n.admin_state_up;
    let tasks = start(&ns, &legs, &rx, around).context(|| "opening responders".into())?;
    *slot = Some(Standing {
        ns,
        plan: legs,
        up,
        tasks: Some(tasks),
        view: tx,
    });
    Ok(())
}

/// All sockets of a network, opened in one visit to its namespace.
#[derive(Default)]
struct Open {
    dhcp4: Vec<(std::net::UdpSocket, Raw)>,
    dhcp6: Vec<(std::net::UdpSocket, [u8; 6])>,
    dns_udp: Vec<std::net::UdpSocket>,
    dns_tcp: Vec<std::net::TcpListener>,
    http: Vec<std::net::TcpListener>,
}

fn udp(domain: Domain, dev: Option<&str>, at: SocketAddr) -> io::Result<Socket> {
    let s = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    s.set_nonblocking(true)?;
    s.set_reuse_address(true)?;
    if domain == Domain::IPV6 {
        s.set_only_v6(true)?;
    }
    if let Some(d) = dev {
        s.bind_device(Some(d.as_bytes()))?;
    }
    s.bind(&at.into())?;
    Ok(s)
}

fn listen(at: SocketAddr) -> io::Result<std::net::TcpListener> {
    let s = Socket::new(Domain::for_address(at), Type::STREAM, Some(Protocol::TCP))?;
    s.set_nonblocking(true)?;
    s.set_reuse_address(true)?;
    if at.is_ipv6() {
        s.set_only_v6(true)?;
    }
    s.bind(&at.into())?;
    s.listen(128)?;
    Ok(s.into())
}

fn open(legs: &[Leg], indices: &[u32]) -> io::Result<Open> {
    let mut o = Open::default();
    for (i, (leg, index)) in legs.iter().zip(indices).enumerate() {
        let dev = names::service_if(i);
        let services = leg
            .addresses
            .iter()
            .map(IpNet::addr)
            .filter(|a| *a != IpAddr::V4(dhcp4::METADATA) && *a != IpAddr::V6(METADATA6));
        let (mut v4, mut v6) = (false, false);
        for ip in services {
            v4 |= ip.is_ipv4();
            v6 |= ip.is_ipv6();
            let at = SocketAddr::new(ip, 53);
            o.dns_udp.push(udp(Domain::for_address(at), None, at)?.into());
            o.dns_tcp.push(listen(at)?);
        }
        if v4 {
            let s = udp(Domain::IPV4, Some(&dev), SocketAddr::from(([0, 0, 0, 0], 67)))?;
            s.set_broadcast(true)?;
            o.dhcp4.push((s.into(), Raw::open(*index)?));
        }
        if v6 {
            let at = SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, 547, 0, 0);
            let s = udp(Domain::IPV6, Some(&dev), at.into())?;
            s.join_multicast_v6(&Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2), *index)?;
            o.dhcp6.push((s.into(), leg.mac));
        }
    }
    o.http.push(listen(SocketAddr::new(dhcp4::METADATA.into(), 80))?);
    if let Some(index) = indices.first() {
        // No IPv6 in this kernel is no reason to go without metadata.
        match listen(SocketAddrV6::new(METADATA6, 80, 0, *index).into()) {
            Ok(l) => o.http.push(l),
            Err(e) => tracing::debug!(error = %e, "no metadata over IPv6"),
        }
    }
    Ok(o)
}

fn start(ns: &Ns, legs: &[Leg], view: &watch::Receiver<Arc<View>>, around: &Around<'_>) -> io::Result<Tasks> {
    let mut indices = vec![];
    for i in 0..legs.len() {
        indices.push(ns.need_index(&names::service_if(i))?);
    }
    let o = ns.enter(|| open(legs, &indices))??;
    let _in_runtime = around.rt.enter();
    let mut t = Tasks::default();
    for (s, raw) in o.dhcp4 {
        let s = tokio::net::UdpSocket::from_std(s)?;
        t.spawn(around.rt, dhcp4::run(s, raw, view.clone(), around.lease));
    }
    for (s, mac) in o.dhcp6 {
        let s = tokio::net::UdpSocket::from_std(s)?;
        t.spawn(around.rt, dhcp6::run(s, mac, view.clone(), around.lease));
    }
    for s in o.dns_udp {
        let s = tokio::net::UdpSocket::from_std(s)?;
        t.spawn(around.rt, dns::udp(s, view.clone(), around.upstream.clone()));
    }
    for s in o.dns_tcp {
        let s = tokio::net::TcpListener::from_std(s)?;
        t.spawn(around.rt, dns::tcp(s, view.clone(), around.upstream.clone()));
    }
    for s in o.http {
        let s = tokio::net::TcpListener::from_std(s)?;
        t.spawn(around.rt, metadata::run(s, view.clone(), around.shared.clone()));
    }
    Ok(t)
}

/// Takes a network's responders' namespace away.
pub fn remove(names: &Names, sw: Option<&Ns>, n: &Network) -> Result<(), Failure> {
    if let Some(sw) = sw {
        for i in 0..n.subnets.len().max(1) {
            let peer = names::service_peer(n.index, i);
            sw.link_del(&peer).context(|| peer.clone())?;
        }
    }
    ns::delete(&names.service(n.index)).context(|| "deleting a service namespace".into())
}
