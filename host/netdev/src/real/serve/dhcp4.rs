//! DHCP for IPv4 (RFC 2131). There are no leases to keep: the answer to a MAC is the address of its
//! port, always. A client that nobody knows gets no answer.

use crate::real::packet::{Raw, udp4};
use crate::real::view::{View, host_name};
use dhcproto::v4::{DhcpOption, Message, MessageType, Opcode, OptionCode, UnknownOption};
use dhcproto::{Decodable, Decoder, Encodable, Encoder};
use haneul_agent_api::{Port, Subnet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use tokio::net::UdpSocket;
use tokio::sync::watch;

/// Where the metadata service listens.
pub const METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);

/// An answer and how it travels.
#[derive(Debug)]
pub struct Reply {
    /// The message, encoded.
    pub bytes: Vec<u8>,
    /// Its source: the service address.
    pub server: Ipv4Addr,
    /// Its destination.
    pub to: Ipv4Addr,
    /// The client's MAC, or broadcast.
    pub mac: [u8; 6],
}

/// Answers on one link of the service namespace until the view's sender goes away.
pub async fn run(socket: UdpSocket, raw: Raw, view: watch::Receiver<Arc<View>>, lease: u32) {
    let mut buf = vec![0u8; 2048];
    loop {
        let (n, from) = match socket.recv_from(&mut buf).await {
            Ok(x) => x,
            Err(e) => {
                tracing::debug!(error = %e, "DHCP socket");
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                continue;
            }
        };
        let v = view.borrow().clone();
        let SocketAddr::V4(from) = from else { continue };
        let Some(reply) = answer(&v, buf.get(..n).unwrap_or_default(), *from.ip(), lease) else {
            continue;
        };
        let packet = udp4(
            SocketAddrV4::new(reply.server, 67),
            SocketAddrV4::new(reply.to, 68),
            &reply.bytes,
        );
        if let Err(e) = raw.send(reply.mac, 0x0800, &packet) {
            tracing::warn!(error = %e, "a DHCP answer could not be sent");
        }
    }
}

/// What to say to one message. Pure, so that the protocol is tested without sockets.
pub fn answer(v: &View, bytes: &[u8], from: Ipv4Addr, lease: u32) -> Option<Reply> {
    let m = Message::decode(&mut Decoder::new(bytes)).ok()?;
    if m.opcode() != Opcode::BootRequest || m.hlen() != 6 || !m.giaddr().is_unspecified() {
        return None;
    }
    let mac: [u8; 6] = m.chaddr().try_into().ok()?;
    let port = v.by_mac.get(&mac)?;
    let (subnet, ip, server) = place(v, port)?;
    let asked = match m.opts().get(OptionCode::RequestedIpAddress) {
        Some(DhcpOption::RequestedIpAddress(ip)) => Some(*ip),
        _ => None,
    };
    let other_server = match m.opts().get(OptionCode::ServerIdentifier) {
        Some(DhcpOption::ServerIdentifier(s)) => *s != server,
        _ => false,
    };
    let kind = match m.opts().msg_type()? {
        MessageType::Discover => MessageType::Offer,
        MessageType::Request if other_server => return None,
        MessageType::Request => {
            let wants = asked.unwrap_or(m.ciaddr());
            if wants == ip {
                MessageType::Ack
            } else {
                MessageType::Nak
            }
        }
        MessageType::Inform => MessageType::Ack,
        MessageType::Decline => {
            tracing::warn!(port = %port.id, %ip, "a guest found its address in use by somebody else");
            return None;
        }
        // The address is the port's, with or without a lease.
        _ => return None,
    };
    let inform = m.opts().msg_type() == Some(MessageType::Inform);
    let mut r = Message::new_with_id(
        m.xid(),
        Ipv4Addr::UNSPECIFIED,
        Ipv4Addr::UNSPECIFIED,
        Ipv4Addr::UNSPECIFIED,
        m.giaddr(),
        &mac,
    );
    r.set_opcode(Opcode::BootReply).set_flags(m.flags());
    if kind != MessageType::Nak {
        r.set_siaddr(server);
        if inform {
            r.set_ciaddr(m.ciaddr());
        } else {
            r.set_yiaddr(ip).set_ciaddr(m.ciaddr());
        }
        options(
            &mut r,
            v,
            port,
            subnet,
            ip,
            server,
            if inform { None } else { Some(lease) },
        );
    }
    r.opts_mut().insert(DhcpOption::MessageType(kind));
    r.opts_mut().insert(DhcpOption::ServerIdentifier(server));
    let mut out = vec![];
    r.encode(&mut Encoder::new(&mut out)).ok()?;
    // BOOTP's smallest message: some clients and switches drop shorter ones.
    out.resize(out.len().max(300), 0);
    let broadcast = m.flags().broadcast() || kind == MessageType::Nak;
    let (to, mac) = if !m.ciaddr().is_unspecified() && kind != MessageType::Nak && from == m.ciaddr() {
        (m.ciaddr(), mac)
    } else if broadcast {
        (Ipv4Addr::BROADCAST, [0xff; 6])
    } else {
        (ip, mac)
    };
    Some(Reply {
        bytes: out,
        server,
        to,
        mac,
    })
}

/// The first address of a port on a subnet with DHCP, and the service address there.
fn place<'a>(v: &'a View, port: &Port) -> Option<(&'a Subnet, Ipv4Addr, Ipv4Addr)> {
    port.fixed_ips.iter().find_map(|f| {
        let s = v.subnet(f.subnet_id).filter(|s| s.enable_dhcp)?;
        match (f.ip, s.service.as_ref()?.ip) {
            (IpAddr::V4(ip), IpAddr::V4(server)) => Some((s, ip, server)),
            _ => None,
        }
    })
}

fn v4s(ips: &[IpAddr]) -> Vec<Ipv4Addr> {
    ips.iter()
        .filter_map(|i| match i {
            IpAddr::V4(a) => Some(*a),
            IpAddr::V6(_) => None,
        })
        .collect()
}

fn options(r: &mut Message, v: &View, port: &Port, s: &Subnet, _ip: Ipv4Addr, server: Ipv4Addr, lease: Option<u32>) {
    let mut put = |code: u8, data: Vec<u8>| {
        // An option's length is one byte; what is longer is left out whole.
        if data.len() <= 255 {
            r.opts_mut()
                .insert(DhcpOption::Unknown(UnknownOption::new(code.into(), data)));
        }
    };
    let many = |l: &[Ipv4Addr]| l.iter().flat_map(|a| a.octets()).collect::<Vec<u8>>();
    if let ipnet::IpNet::V4(n) = s.cidr {
        put(1, n.netmask().octets().to_vec());
        put(28, n.broadcast().octets().to_vec());
    }
    if let Some(IpAddr::V4(g)) = s.gateway {
        put(3, g.octets().to_vec());
    }
    let dns = v4s(&v.dns_servers(s));
    if !dns.is_empty() {
        put(6, many(&dns));
    }
    put(12, host_name(port).into_bytes());
    if !v.domain.is_empty() {
        put(15, v.domain.clone().into_bytes());
    }
    put(26, (v.network.mtu.min(65535) as u16).to_be_bytes().to_vec());
    if let Some(l) = lease {
        put(51, l.to_be_bytes().to_vec());
        put(58, (l / 2).to_be_bytes().to_vec());
        put(
            59,
            (u64::from(l) * 7 / 8).min(u64::from(u32::MAX)).to_be_bytes()[4..].to_vec(),
        );
    }
    put(121, classless(s, server));
    for (name, value, version) in &port.extra_dhcp_opts {
        if *version != 6 {
            extra(r, name, value);
        }
    }
}

/// Option 121. Clients that take it ignore the router option (RFC 3442), so the default route is in it.
fn classless(s: &Subnet, server: Ipv4Addr) -> Vec<u8> {
    let mut out = vec![];
    let mut add = |dst: Ipv4Addr, len: u8, via: Ipv4Addr| {
        out.push(len);
        out.extend(dst.octets().iter().take(usize::from(len).div_ceil(8)));
        out.extend(via.octets());
    };
    add(METADATA, 32, server);
    let mut default = false;
    for (dst, via) in &s.host_routes {
        if let (ipnet::IpNet::V4(d), IpAddr::V4(via)) = (dst, via) {
            default |= d.prefix_len() == 0;
            add(d.network(), d.prefix_len(), *via);
        }
    }
    if let (false, Some(IpAddr::V4(g))) = (default, s.gateway) {
        add(Ipv4Addr::UNSPECIFIED, 0, g);
    }
    out
}

/// Neutron's `extra_dhcp_opts`: dnsmasq's option names or plain numbers.
fn extra(r: &mut Message, name: &str, value: &str) {
    let ip = |v: &str| -> Option<Vec<u8>> {
        v.split(',')
            .map(|x| x.trim().parse::<Ipv4Addr>().ok())
            .collect::<Option<Vec<_>>>()
            .map(|l| l.iter().flat_map(|a| a.octets()).collect())
    };
    let number = name.strip_prefix("option:").unwrap_or(name);
    let (code, data): (u8, Vec<u8>) = match number {
        "bootfile-name" => {
            // In the fixed field too: that is where PXE firmware of old looks.
            if value.len() < 128 {
                r.set_fname_str(value);
            }
            (67, value.into())
        }
        "tftp-server" | "tftp-server-name" => (66, value.into()),
        "server-ip-address" | "tftp-server-address" => {
            if let Ok(ip) = value.parse::<Ipv4Addr>() {
                r.set_siaddr(ip);
            }
            (150, ip(value).unwrap_or_default())
        }
        "router" => (3, ip(value).unwrap_or_default()),
        "dns-server" => (6, ip(value).unwrap_or_default()),
        "ntp-server" => (42, ip(value).unwrap_or_default()),
        "domain-name" => (15, value.into()),
        "hostname" | "host-name" => (12, value.into()),
        "mtu" => (
            26,
            value
                .parse::<u16>()
                .map(|m| m.to_be_bytes().to_vec())
                .unwrap_or_default(),
        ),
        "lease-time" => (
            51,
            value
                .parse::<u32>()
                .map(|m| m.to_be_bytes().to_vec())
                .unwrap_or_default(),
        ),
        n => match n.parse::<u8>() {
            Ok(c) if c > 0 && c < 255 && c != 53 && c != 54 => {
                let hex: Option<Vec<u8>> = value
                    .contains(':')
                    .then(|| value.split(':').map(|b| u8::from_str_radix(b, 16).ok()).collect())
                    .flatten();
                (c, hex.or_else(|| ip(value)).unwrap_or_else(|| value.into()))
            }
            _ => return,
        },
    };
    if !data.is_empty() && data.len() <= 255 {
        r.opts_mut()
            .insert(DhcpOption::Unknown(UnknownOption::new(code.into(), data)));
    }
}
