//! Links, addresses and routes of one namespace, over rtnetlink.

use super::netlink::{F_CREATE, F_DUMP, F_REPLACE, Msg, NESTED, attrs, int};
use super::ns::Ns;
use ipnet::IpNet;
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd;

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_GETROUTE: u16 = 26;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_INFO_SLAVE_KIND: u16 = 4;
const IFLA_INFO_SLAVE_DATA: u16 = 5;
const VETH_INFO_PEER: u16 = 1;
const IFLA_VXLAN_ID: u16 = 1;
const IFLA_VXLAN_LOCAL: u16 = 4;
const IFLA_VXLAN_LEARNING: u16 = 7;
const IFLA_VXLAN_PORT: u16 = 15;
const IFLA_VXLAN_LOCAL6: u16 = 17;
const IFLA_BRPORT_LEARNING: u16 = 8;
const IFLA_BRPORT_UNICAST_FLOOD: u16 = 9;
const IFLA_BRPORT_NEIGH_SUPPRESS: u16 = 32;
/// A bridge's port that learns nothing, gets no frame for a MAC that nobody knows, and no question that the bridge
/// can answer.
const QUIET_PORT: [(u16, u8); 3] = [
    (IFLA_BRPORT_LEARNING, 0),
    (IFLA_BRPORT_UNICAST_FLOOD, 0),
    (IFLA_BRPORT_NEIGH_SUPPRESS, 1),
];
const IFLA_BR_FORWARD_DELAY: u16 = 1;
const IFLA_BR_STP_STATE: u16 = 5;
const IFLA_BR_MCAST_SNOOPING: u16 = 23;
const IFF_UP: u32 = 1;
/// Routes that we set carry "static", so that the kernel's own are told apart.
const RTPROT_STATIC: u8 = 4;
const RT_TABLE_MAIN: u8 = 254;

/// A link as the kernel lists it.
#[derive(Clone, Debug, Default)]
pub struct Link {
    /// Interface index.
    pub index: u32,
    /// Index of the bridge that it is in, 0 for none.
    pub master: u32,
    /// MTU.
    pub mtu: u32,
    /// Administratively up.
    pub up: bool,
    /// Hardware address.
    pub mac: [u8; 6],
    /// Of a VXLAN device.
    pub vxlan: Option<Vxlan>,
    /// A port of a bridge that is as [`Ns::quiet_port`] makes it.
    pub quiet_port: bool,
}

/// What a VXLAN device is for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vxlan {
    /// Network identifier.
    pub vni: u32,
    /// Address that its packets come from.
    pub local: Option<IpAddr>,
    /// UDP port.
    pub port: u16,
}

/// All links by name.
pub type Links = HashMap<String, Link>;

fn ifinfo(index: u32, flags: u32, change: u32) -> Vec<u8> {
    let mut b = vec![0u8; 4];
    b.extend(index.to_ne_bytes());
    b.extend(flags.to_ne_bytes());
    b.extend(change.to_ne_bytes());
    b
}

/// What the kernel says of a device's own kind, and of its being a bridge's port.
fn link_info(info: &[u8]) -> (Option<Vxlan>, bool) {
    let of = |wanted: u16| attrs(info).find(|(k, _)| *k == wanted).map(|(_, d)| d);
    let kind = of(IFLA_INFO_KIND).unwrap_or_default();
    let vxlan = kind.starts_with(b"vxlan").then(|| {
        let mut v = Vxlan {
            vni: 0,
            local: None,
            port: 0,
        };
        for (k, d) in attrs(of(IFLA_INFO_DATA).unwrap_or_default()) {
            match k {
                IFLA_VXLAN_ID => v.vni = int(d, 0) as u32,
                IFLA_VXLAN_LOCAL | IFLA_VXLAN_LOCAL6 => v.local = bytes_ip(d),
                IFLA_VXLAN_PORT => v.port = d.try_into().map_or(0, u16::from_be_bytes),
                _ => {}
            }
        }
        v
    });
    let port = of(IFLA_INFO_SLAVE_DATA).unwrap_or_default();
    let quiet = |(kind, value): &(u16, u8)| attrs(port).any(|(k, d)| k == *kind && d == [*value]);
    (vxlan, QUIET_PORT.iter().all(quiet))
}

/// What to make of or change on a link.
#[derive(Clone, Copy, Debug, Default)]
pub struct Set {
    /// Interface index of the bridge.
    pub master: Option<u32>,
    /// MTU.
    pub mtu: Option<u32>,
    /// Up or down.
    pub up: Option<bool>,
    /// Hardware address.
    pub mac: Option<[u8; 6]>,
}

impl Ns {
    /// Lists the links.
    pub fn links(&self) -> io::Result<Links> {
        let found = self.route(|s| s.call(RTM_GETLINK, F_DUMP, &Msg::new(&ifinfo(0, 0, 0))))?;
        let mut links = Links::new();
        for m in found {
            let mut link = Link {
                index: int(&m, 4) as u32,
                up: int(&m, 8) as u32 & IFF_UP != 0,
                ..Link::default()
            };
            let mut name = String::new();
            for (kind, data) in attrs(m.get(16..).unwrap_or_default()) {
                match kind {
                    IFLA_IFNAME => {
                        name = String::from_utf8_lossy(data).trim_end_matches('\0').to_string();
                    }
                    IFLA_MASTER => link.master = int(data, 0) as u32,
                    IFLA_MTU => link.mtu = int(data, 0) as u32,
                    IFLA_ADDRESS => link.mac = data.try_into().unwrap_or_default(),
                    IFLA_LINKINFO => (link.vxlan, link.quiet_port) = link_info(data),
                    _ => {}
                }
            }
            links.insert(name, link);
        }
        Ok(links)
    }

    /// Interface index of `name`, by asking for this one link.
    pub fn link_index(&self, name: &str) -> io::Result<Option<u32>> {
        let mut m = Msg::new(&ifinfo(0, 0, 0));
        m.str(IFLA_IFNAME, name);
        match self.route(|s| s.call(RTM_GETLINK, 0, &m)) {
            Ok(found) => Ok(found.first().map(|m| int(m, 4) as u32)),
            Err(e) if e.raw_os_error() == Some(libc::ENODEV) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Index, or an error that names the device.
    pub fn need_index(&self, name: &str) -> io::Result<u32> {
        self.link_index(name)?
            .ok_or_else(|| io::Error::other(format!("{name} is not in {}", self.name())))
    }

    /// Makes a bridge: no spanning tree, no delay, no snooping.
    pub fn bridge_add(&self, name: &str, mtu: u32, mac: [u8; 6]) -> io::Result<()> {
        let mut m = Msg::new(&ifinfo(0, IFF_UP, IFF_UP));
        m.str(IFLA_IFNAME, name).u32(IFLA_MTU, mtu).attr(IFLA_ADDRESS, &mac);
        m.nest(IFLA_LINKINFO | NESTED, &[], |m| {
            m.attr(IFLA_INFO_KIND, b"bridge");
            m.nest(IFLA_INFO_DATA | NESTED, &[], |m| {
                m.u32(IFLA_BR_FORWARD_DELAY, 0);
                m.u32(IFLA_BR_STP_STATE, 0);
                m.attr(IFLA_BR_MCAST_SNOOPING, &[0]);
            });
        });
        self.route(|s| s.call(RTM_NEWLINK, F_CREATE, &m)).map(drop)
    }

    /// Makes a VXLAN device in the namespace `there`, down; its packets come and go here.
    pub fn vxlan_add(&self, name: &str, there: &Ns, of: Vxlan, mtu: u32) -> io::Result<()> {
        let mut m = Msg::new(&ifinfo(0, 0, 0));
        m.str(IFLA_IFNAME, name).u32(IFLA_MTU, mtu);
        m.u32(IFLA_NET_NS_FD, there.fd().as_raw_fd() as u32);
        m.nest(IFLA_LINKINFO | NESTED, &[], |m| {
            m.attr(IFLA_INFO_KIND, b"vxlan");
            m.nest(IFLA_INFO_DATA | NESTED, &[], |m| {
                m.u32(IFLA_VXLAN_ID, of.vni);
                m.attr(IFLA_VXLAN_LEARNING, &[0]);
                m.attr(IFLA_VXLAN_PORT, &of.port.to_be_bytes());
                if let Some(local) = of.local {
                    let kind = if local.is_ipv4() {
                        IFLA_VXLAN_LOCAL
                    } else {
                        IFLA_VXLAN_LOCAL6
                    };
                    m.attr(kind, &ip_bytes(local).1);
                }
            });
        });
        self.route(|s| s.call(RTM_NEWLINK, F_CREATE, &m)).map(drop)
    }

    /// Makes a bridge's port one that learns nothing and floods nothing that has one receiver.
    pub fn quiet_port(&self, index: u32) -> io::Result<()> {
        let mut m = Msg::new(&ifinfo(index, 0, 0));
        m.nest(IFLA_LINKINFO | NESTED, &[], |m| {
            m.attr(IFLA_INFO_SLAVE_KIND, b"bridge");
            m.nest(IFLA_INFO_SLAVE_DATA | NESTED, &[], |m| {
                for (kind, value) in QUIET_PORT {
                    m.attr(kind, &[value]);
                }
            });
        });
        self.route(|s| s.call(RTM_NEWLINK, 0, &m)).map(drop)
    }

    /// Makes a veth pair, `name` here (set by `here`) and `peer` in the namespace `there`; both up.
    pub fn veth_add(&self, name: &str, here: Set, there: &Ns, peer: &str, peer_mac: Option<[u8; 6]>) -> io::Result<()> {
        let up = |u: bool| if u { IFF_UP } else { 0 };
        let mtu = here.mtu.unwrap_or(1500);
        let mut m = Msg::new(&ifinfo(0, up(here.up.unwrap_or(true)), IFF_UP));
        m.str(IFLA_IFNAME, name).u32(IFLA_MTU, mtu);
        if let Some(master) = here.master {
            m.u32(IFLA_MASTER, master);
        }
        if let Some(mac) = here.mac {
            m.attr(IFLA_ADDRESS, &mac);
        }
        let fd = there.fd().as_raw_fd() as u32;
        m.nest(IFLA_LINKINFO | NESTED, &[], |m| {
            m.attr(IFLA_INFO_KIND, b"veth");
            m.nest(IFLA_INFO_DATA | NESTED, &[], |m| {
                m.nest(VETH_INFO_PEER | NESTED, &ifinfo(0, 0, 0), |m| {
                    m.str(IFLA_IFNAME, peer).u32(IFLA_MTU, mtu);
                    m.u32(IFLA_NET_NS_FD, fd);
                    if let Some(mac) = peer_mac {
                        m.attr(IFLA_ADDRESS, &mac);
                    }
                });
            });
        });
        self.route(|s| s.call(RTM_NEWLINK, F_CREATE, &m))?;
        // The kernel makes the peer first, and a lone end cannot come up.
        there.link_set(
            there.need_index(peer)?,
            Set {
                up: Some(true),
                ..Set::default()
            },
        )
    }

    /// Changes a link.
    pub fn link_set(&self, index: u32, set: Set) -> io::Result<()> {
        let (flags, change) = match set.up {
            Some(true) => (IFF_UP, IFF_UP),
            Some(false) => (0, IFF_UP),
            None => (0, 0),
        };
        let mut m = Msg::new(&ifinfo(index, flags, change));
        if let Some(master) = set.master {
            m.u32(IFLA_MASTER, master);
        }
        if let Some(mtu) = set.mtu {
            m.u32(IFLA_MTU, mtu);
        }
        if let Some(mac) = set.mac {
            m.attr(IFLA_ADDRESS, &mac);
        }
        self.route(|s| s.call(RTM_NEWLINK, 0, &m)).map(drop)
    }

    /// Moves a link into another namespace.
    pub fn link_move(&self, index: u32, there: &Ns) -> io::Result<()> {
        let mut m = Msg::new(&ifinfo(index, 0, 0));
        m.u32(IFLA_NET_NS_FD, there.fd().as_raw_fd() as u32);
        self.route(|s| s.call(RTM_NEWLINK, 0, &m)).map(drop)
    }

    /// Deletes a link; none there is fine. Of a veth pair both ends go.
    pub fn link_del(&self, name: &str) -> io::Result<()> {
        let mut m = Msg::new(&ifinfo(0, 0, 0));
        m.str(IFLA_IFNAME, name);
        match self.route(|s| s.call(RTM_DELLINK, 0, &m)) {
            Err(e) if e.raw_os_error() == Some(libc::ENODEV) => Ok(()),
            other => other.map(drop),
        }
    }

    fn addr_call(&self, kind: u16, flags: u16, index: u32, net: IpNet) -> io::Result<()> {
        let (family, bytes) = ip_bytes(net.addr());
        let mut fixed = vec![family, net.prefix_len(), 0, 0];
        fixed.extend(index.to_ne_bytes());
        let mut m = Msg::new(&fixed);
        m.attr(2, &bytes).attr(1, &bytes);
        match net {
            IpNet::V4(n) if n.prefix_len() < 31 => {
                m.attr(4, &n.broadcast().octets());
            }
            IpNet::V4(_) => {}
            // Addresses come from a registry: no duplicate detection, usable at once.
            IpNet::V6(_) => {
                m.u32(8, 0x02);
            }
        }
        self.route(|s| s.call(kind, flags, &m)).map(drop)
    }

    /// The addresses of a link; link-local IPv6 ones that the kernel made itself are left out.
    pub fn addrs(&self, index: u32) -> io::Result<Vec<IpNet>> {
        let found = self.route(|s| s.call(RTM_GETADDR, F_DUMP, &Msg::new(&[0; 8])))?;
        let mut out = vec![];
        for m in found {
            if int(&m, 4) as u32 != index {
                continue;
            }
            let prefix = m.get(1).copied().unwrap_or_default();
            let (mut local, mut address) = (None, None);
            // IFA_FLAGS: PERMANENT is 0x80; IFA_PROTO 11: 2 is the kernel's link-local.
            let mut kernel_ll = false;
            for (kind, data) in attrs(m.get(8..).unwrap_or_default()) {
                match kind {
                    1 => address = bytes_ip(data),
                    2 => local = bytes_ip(data),
                    11 => kernel_ll = data.first() == Some(&2),
                    _ => {}
                }
            }
            let Some(ip) = local.or(address) else { continue };
            if kernel_ll {
                continue;
            }
            out.extend(IpNet::new(ip, prefix));
        }
        Ok(out)
    }

    /// Gives a link exactly `want` (link-local IPv6 addresses made by the kernel stay).
    pub fn addrs_exact(&self, index: u32, want: &[IpNet]) -> io::Result<()> {
        let have = self.addrs(index)?;
        for net in &have {
            if !want.contains(net) && !is_eui64_ll(net) {
                self.addr_call(RTM_DELADDR, 0, index, *net)?;
            }
        }
        for net in want {
            if !have.contains(net) {
                match self.addr_call(RTM_NEWADDR, F_CREATE, index, *net) {
                    Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                    other => other?,
                }
            }
        }
        Ok(())
    }

    /// Static routes of the main table: destination, next hop, interface.
    pub fn routes(&self) -> io::Result<Vec<Route>> {
        let mut out = vec![];
        for family in [libc::AF_INET as u8, libc::AF_INET6 as u8] {
            let mut fixed = [0u8; 12];
            fixed[0] = family;
            for m in self.route(|s| s.call(RTM_GETROUTE, F_DUMP, &Msg::new(&fixed)))? {
                let field = |i: usize| m.get(i).copied().unwrap_or_default();
                if field(4) != RT_TABLE_MAIN || field(5) != RTPROT_STATIC {
                    continue;
                }
                let (mut dst, mut via, mut dev) = (unspecified(family), None, 0);
                for (kind, data) in attrs(m.get(12..).unwrap_or_default()) {
                    match kind {
                        1 => dst = bytes_ip(data).unwrap_or(dst),
                        4 => dev = int(data, 0) as u32,
                        5 => via = bytes_ip(data),
                        _ => {}
                    }
                }
                if let Ok(dst) = IpNet::new(dst, field(1)) {
                    out.push(Route { dst, via, dev });
                }
            }
        }
        Ok(out)
    }

    fn route_call(&self, kind: u16, flags: u16, r: &Route) -> io::Result<()> {
        let (family, dst) = ip_bytes(r.dst.network());
        let onlink: u32 = if r.via.is_some() && r.dev != 0 { 4 } else { 0 };
        let scope = if r.via.is_none() { 253 } else { 0 };
        let mut fixed = vec![family, r.dst.prefix_len(), 0, 0, RT_TABLE_MAIN, RTPROT_STATIC, scope, 1];
        fixed.extend(onlink.to_ne_bytes());
        let mut m = Msg::new(&fixed);
        if r.dst.prefix_len() > 0 {
            m.attr(1, &dst);
        }
        if r.dev != 0 {
            m.u32(4, r.dev);
        }
        if let Some(via) = r.via {
            m.attr(5, &ip_bytes(via).1);
        }
        self.route(|s| s.call(kind, flags, &m)).map(drop)
    }

    /// Sets a route.
    pub fn route_add(&self, r: &Route) -> io::Result<()> {
        self.route_call(RTM_NEWROUTE, F_REPLACE, r)
    }

    /// Takes a route away; none there is fine.
    pub fn route_del(&self, r: &Route) -> io::Result<()> {
        match self.route_call(RTM_DELROUTE, 0, r) {
            Err(e) if e.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            other => other,
        }
    }
}

/// A static route. With both a next hop and a device, the hop counts as on the link: a gateway may
/// lie outside its subnet.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// Destination.
    pub dst: IpNet,
    /// Next hop.
    pub via: Option<IpAddr>,
    /// Interface index; 0 lets the kernel find it by the next hop.
    pub dev: u32,
}

fn unspecified(family: u8) -> IpAddr {
    if i32::from(family) == libc::AF_INET {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    }
}

fn is_eui64_ll(net: &IpNet) -> bool {
    match net {
        IpNet::V6(n) => {
            let o = n.addr().octets();
            o[0] == 0xfe && o[1] == 0x80 && o[11] == 0xff && o[12] == 0xfe
        }
        IpNet::V4(_) => false,
    }
}

/// Family and bytes of an address.
pub fn ip_bytes(ip: IpAddr) -> (u8, Vec<u8>) {
    match ip {
        IpAddr::V4(a) => (libc::AF_INET as u8, a.octets().to_vec()),
        IpAddr::V6(a) => (libc::AF_INET6 as u8, a.octets().to_vec()),
    }
}

/// The address that these bytes are.
pub fn bytes_ip(b: &[u8]) -> Option<IpAddr> {
    match b.len() {
        4 => Some(IpAddr::from(<[u8; 4]>::try_from(b).ok()?)),
        16 => Some(IpAddr::from(<[u8; 16]>::try_from(b).ok()?)),
        _ => None,
    }
}

/// Parses `fa:16:3e:00:00:01`.
pub fn parse_mac(s: &str) -> Option<[u8; 6]> {
    let mut out = [0u8; 6];
    let mut parts = s.split(':');
    for o in &mut out {
        let p = parts.next()?;
        if p.len() != 2 || !p.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        *o = u8::from_str_radix(p, 16).ok()?;
    }
    // A multicast address is nobody's own.
    (parts.next().is_none() && out[0] & 1 == 0 && out != [0; 6]).then_some(out)
}

/// Writes a MAC the way nft reads it.
pub fn show_mac(m: [u8; 6]) -> String {
    let [a, b, c, d, e, f] = m;
    format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
}

/// The link-local address that belongs to a MAC (RFC 4291).
pub fn link_local(m: [u8; 6]) -> Ipv6Addr {
    let [a, b, c, d, e, f] = m;
    Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f])
}
