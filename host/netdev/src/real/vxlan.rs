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
use std::collections::{BTreeSet, HashMap};
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

/// How closely the tables of a network are looked at whose devices are the same as at the last call.
#[derive(Clone, Copy)]
pub enum Look<'a> {
    /// The neighbours are the same, too.
    Nothing,
    /// Against what was set last.
    Changes,
    /// Against what the kernel has.
    Kernel(&'a HashMap<u32, BTreeSet<Entry>>),
}

/// Brings about the way of one network to its neighbours; without any, there is none.
pub fn ensure(
    (host, end): (&Ns, End),
    sw: &Ns,
    links: &Links,
    net: &Network,
    neighbours: &[&Neighbour],
    look: Look<'_>,
    slot: &mut Option<Standing>,
) -> Result<(), Failure> {
    let name = names::vxlan(net.index);
    // Kept only by a call that ends well.
    let stood = slot.take();
    if neighbours.is_empty() {
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
    let changes = right.is_none_or(|l| l.up != net.admin_state_up);
    if changes {
        let set = Set {
            up: Some(net.admin_state_up),
            ..Set::default()
        };
        sw.link_set(device, set).context(|| name.clone())?;
    }
    // What goes down forgets its neighbours.
    let stands = stood.filter(|s| s.device == device && s.bridge == bridge && !changes);
    let entries = plan(net, neighbours, local)?;
    let have = match (stands, look) {
        (Some(s), Look::Nothing) => {
            *slot = Some(s);
            return Ok(());
        }
        (Some(s), Look::Changes) => s.entries,
        (Some(_), Look::Kernel(tables)) => standing(tables, device, bridge),
        (None, _) => {
            neighbours_v6(sw, net)?;
            let fixed = names::bridge_mac(net.index);
            if mac != fixed {
                let set = Set {
                    mac: Some(fixed),
                    ..Set::default()
                };
                sw.link_set(bridge, set).context(|| names::bridge(net.index))?;
            }
            let tables = tables(sw).context(|| format!("reading what {name} knows"))?;
            standing(&tables, device, bridge)
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

/// What the kernel has, by device.
pub fn tables(sw: &Ns) -> std::io::Result<HashMap<u32, BTreeSet<Entry>>> {
    let mut out: HashMap<u32, BTreeSet<Entry>> = HashMap::new();
    for (index, e) in sw.entries()? {
        out.entry(index).or_default().insert(e);
    }
    Ok(out)
}

/// Of these, what is a network's: neighbours are its bridge's, all else its tunnel's.
fn standing(tables: &HashMap<u32, BTreeSet<Entry>>, device: u32, bridge: u32) -> BTreeSet<Entry> {
    let of = |index, neighbours| {
        let all = tables.get(&index).into_iter().flatten().copied();
        all.filter(move |e| matches!(e, Entry::Neighbour(..)) == neighbours)
    };
    of(device, false).chain(of(bridge, true)).collect()
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
