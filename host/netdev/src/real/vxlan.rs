//! Networks that span hosts: a VXLAN device for each network that has ports elsewhere.
//!
//! The device is made from the host's namespace into the switch's: its socket, and with it the way to the
//! other hosts, stays with the host. Nothing is learned from the wire: who is where comes from control, as
//! forwarding entries and neighbours. The bridge answers ARP and ND for them, frames for a MAC that nobody
//! told of do not leave the host, and broadcast is copied to each host that has the network.
//!
//! What must not cross (our responders, questions for addresses of this host) is in `rules`.

use super::err::{Context, failure};
use super::fdb::{ALL, Entry};
use super::link::{Link, Links, Set, Vxlan, link_local, parse_mac};
use super::names;
use super::ns::Ns;
use haneul_agent_api::{Failure, Neighbour, Network, Underlay};
use std::collections::BTreeSet;
use std::net::IpAddr;

/// A network's way to other hosts, as it stands.
#[derive(Debug, PartialEq)]
pub struct Standing {
    device: u32,
    bridge: u32,
    entries: BTreeSet<Entry>,
}

/// This host's end of all tunnels.
#[derive(Clone, Copy, Debug)]
pub struct End {
    /// Address; none: the host can have no neighbours.
    pub local: Option<IpAddr>,
    /// UDP port.
    pub port: u16,
}

/// What the tables of a network shall hold.
fn plan(net: &Network, neighbours: &[&Neighbour], local: IpAddr) -> Result<BTreeSet<Entry>, Failure> {
    let mut out = BTreeSet::new();
    for n in neighbours {
        let mac = parse_mac(&n.mac)
            .ok_or_else(|| failure("the MAC address of a port on another host is malformed", &n.mac))?;
        if n.host.is_ipv4() != local.is_ipv4() {
            return Err(failure(
                "this host and another one cannot reach each other: one has an IPv4, the other an IPv6 underlay address",
                format!("{local} here, {} there, network {}", n.host, net.id),
            ));
        }
        out.insert(Entry::Tunnel(ALL, n.host));
        out.insert(Entry::Tunnel(mac, n.host));
        out.insert(Entry::Port(mac));
        out.extend(n.addresses.iter().map(|ip| Entry::Neighbour(*ip, mac)));
        if n.addresses.iter().any(IpAddr::is_ipv6) {
            out.insert(Entry::Neighbour(link_local(mac).into(), mac));
        }
    }
    Ok(out)
}

/// Brings about the way of one network to its neighbours; without any, there is none. `same` says that they are the
/// same as at the last call: then the tables are not looked at, if the devices are the same too.
pub fn ensure(
    (host, end): (&Ns, End),
    sw: &Ns,
    links: &Links,
    net: &Network,
    neighbours: &[&Neighbour],
    same: bool,
    slot: &mut Option<Standing>,
) -> Result<(), Failure> {
    let name = names::vxlan(net.index);
    if neighbours.is_empty() {
        *slot = None;
        if links.contains_key(&name) {
            sw.link_del(&name).context(|| name.clone())?;
        }
        return Ok(());
    }
    let local = end.local.ok_or_else(|| {
        failure(
            "a network has ports on other hosts, and this host has no underlay address: set agent.underlay",
            net.id,
        )
    })?;
    let bridge = links
        .get(&names::bridge(net.index))
        .ok_or_else(|| failure("a network's bridge is not there", net.id))?;
    let (bridge, mac) = (bridge.index, bridge.mac);
    let want = Vxlan {
        vni: net.index,
        local: Some(local),
        port: end.port,
    };
    let have = links.get(&name);
    let fits = |l: &&Link| l.vxlan == Some(want) && l.master == bridge && l.mtu == net.mtu && l.quiet_port;
    let right = have.filter(fits);
    let device = match right {
        Some(l) => l.index,
        None => {
            *slot = None;
            // Another VNI, address or port cannot be given to a device that is there.
            if have.is_some() {
                sw.link_del(&name).context(|| name.clone())?;
            }
            host.vxlan_add(&name, sw, want, net.mtu).map_err(|e| {
                failure(
                    format!(
                        "the tunnel to other hosts could not be made for VNI {} on UDP port {}",
                        net.index, end.port
                    ),
                    e,
                )
            })?;
            haneul_core::fault_point!("netdev.real.vxlan");
            let index = sw.need_index(&name).context(|| name.clone())?;
            let set = Set {
                master: Some(bridge),
                ..Set::default()
            };
            sw.link_set(index, set).context(|| name.clone())?;
            sw.quiet_port(index).context(|| name.clone())?;
            index
        }
    };
    if right.is_none_or(|l| l.up != net.admin_state_up) {
        let set = Set {
            up: Some(net.admin_state_up),
            ..Set::default()
        };
        sw.link_set(device, set).context(|| name.clone())?;
    }
    let stands = slot.take().filter(|s| s.device == device && s.bridge == bridge);
    if same && let Some(s) = stands {
        *slot = Some(s);
        return Ok(());
    }
    let entries = plan(net, neighbours, local)?;
    let have = match stands {
        Some(s) => s.entries,
        None => {
            neighbours_v6(sw, net)?;
            let fixed = names::bridge_mac(net.index);
            if mac != fixed {
                let set = Set {
                    mac: Some(fixed),
                    ..Set::default()
                };
                sw.link_set(bridge, set).context(|| names::bridge(net.index))?;
            }
            standing(sw, device, bridge).context(|| format!("reading what {name} knows"))?
        }
    };
    let at = |e: &Entry| match e {
        Entry::Neighbour(..) => bridge,
        Entry::Tunnel(..) | Entry::Port(_) => device,
    };
    for e in have.difference(&entries) {
        if !entries.iter().any(|new| e.gives_way_to(new)) {
            sw.entry_del(at(e), e).context(|| format!("{name}: {e:?}"))?;
        }
    }
    for e in entries.difference(&have) {
        sw.entry_set(at(e), e).context(|| format!("{name}: {e:?}"))?;
    }
    *slot = Some(Standing {
        device,
        bridge,
        entries,
    });
    Ok(())
}

/// Takes all tunnels away: the kernel takes a namespace down at leisure, and until then the tunnels in it hold their numbers.
pub fn delete_all(sw: &Ns) -> Result<(), Failure> {
    for (name, link) in sw.links().context(|| "listing links".into())? {
        if link.vxlan.is_some() {
            sw.link_del(&name).context(|| name.clone())?;
        }
    }
    Ok(())
}

fn standing(sw: &Ns, device: u32, bridge: u32) -> std::io::Result<BTreeSet<Entry>> {
    let ours = |(index, e): (u32, Entry)| match e {
        Entry::Neighbour(..) => (index == bridge).then_some(e),
        Entry::Tunnel(..) | Entry::Port(_) => (index == device).then_some(e),
    };
    Ok(sw.entries()?.into_iter().filter_map(ours).collect())
}

/// A bridge holds IPv6 neighbours only while IPv6 is on there. It gets no address of its own for that.
fn neighbours_v6(sw: &Ns, net: &Network) -> Result<(), Failure> {
    let bridge = names::bridge(net.index);
    let keys = [("addr_gen_mode", "1"), ("accept_ra", "0"), ("disable_ipv6", "0")];
    let keys = keys.map(|(k, v)| (format!("ipv6/conf/{bridge}/{k}"), v));
    let keys: Vec<(&str, &str)> = keys.iter().map(|(k, v)| (k.as_str(), *v)).collect();
    sw.sysctl(&keys, true).context(|| format!("IPv6 of {bridge}"))
}

/// Where other hosts reach this one: `asked`, else the source address of the way to `towards`; with the MTU of the
/// interface that has it.
pub fn underlay(asked: Option<IpAddr>, towards: IpAddr) -> Result<Option<Underlay>, Failure> {
    let found = asked.or_else(|| {
        let any: IpAddr = match towards {
            IpAddr::V4(_) => [0, 0, 0, 0].into(),
            IpAddr::V6(_) => [0u8; 16].into(),
        };
        // Connecting a datagram socket sends nothing; the kernel only chooses the way.
        let s = std::net::UdpSocket::bind((any, 0)).ok()?;
        s.connect((towards, 9)).ok()?;
        s.local_addr().ok().map(|a| a.ip()).filter(|ip| !ip.is_loopback())
    });
    let Some(address) = found else { return Ok(None) };
    let host = Ns::own().context(|| "opening the host's namespace".into())?;
    for link in host.links().context(|| "listing the host's links".into())?.values() {
        let addrs = host
            .addrs(link.index)
            .context(|| "listing the host's addresses".into())?;
        if addrs.iter().any(|a| a.addr() == address) {
            return Ok(Some(Underlay { address, mtu: link.mtu }));
        }
    }
    Err(failure(
        "agent.underlay: no interface of this host has this address",
        address,
    ))
}
