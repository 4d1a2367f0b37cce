//! DHCP for IPv6 (RFC 8415): addresses where the subnet is `dhcpv6-stateful`, settings only where it
//! is `dhcpv6-stateless`. As with IPv4, the answer is the port's address, always.

use crate::real::serve::dns::encode_name;
use crate::real::view::View;
use dhcproto::v6::{DhcpOption, Message, MessageType};
use dhcproto::{Decodable, Decoder};
use haneul_agent_api::Port;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use tokio::net::UdpSocket;
use tokio::sync::watch;

const CLIENT_ID: u16 = 1;
const SERVER_ID: u16 = 2;
const IA_NA: u16 = 3;
const IA_ADDR: u16 = 5;
const STATUS: u16 = 13;
const RAPID_COMMIT: u16 = 14;
const DNS: u16 = 23;
const DOMAIN_SEARCH: u16 = 24;
const NO_ADDRS: u16 = 2;
const NOT_ON_LINK: u16 = 4;

/// Answers on one link of the service namespace.
pub async fn run(socket: UdpSocket, mac: [u8; 6], view: watch::Receiver<Arc<View>>, lease: u32) {
    let mut buf = vec![0u8; 2048];
    loop {
        let Ok((n, from)) = socket.recv_from(&mut buf).await else {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            continue;
        };
        let SocketAddr::V6(peer) = from else { continue };
        let v = view.borrow().clone();
        let bytes = buf.get(..n).unwrap_or_default();
        if let Some(a) = answer(&v, bytes, *peer.ip(), mac, lease)
            && let Err(e) = socket.send_to(&a, from).await
        {
            tracing::warn!(error = %e, "a DHCPv6 answer could not be sent");
        }
    }
}

/// The port that asks: by its link-local address, which anti-spoofing vouches for, else by the MAC in
/// its identifier (open ports may use any address).
fn who<'a>(v: &'a View, from: Ipv6Addr, duid: &[u8]) -> Option<&'a Arc<Port>> {
    v.by_ip.get(&IpAddr::V6(from)).or_else(|| {
        let mac = match duid.get(..4)? {
            [0, 1, 0, 1] => duid.get(8..14)?,
            [0, 3, 0, 1] => duid.get(4..10)?,
            _ => return None,
        };
        v.by_mac.get(<&[u8; 6]>::try_from(mac).ok()?)
    })
}

fn put(out: &mut Vec<u8>, code: u16, data: &[u8]) {
    out.extend(code.to_be_bytes());
    out.extend((data.len() as u16).to_be_bytes());
    out.extend(data);
}

fn status(code: u16, text: &str) -> Vec<u8> {
    let mut d = code.to_be_bytes().to_vec();
    d.extend(text.as_bytes());
    d
}

/// What to say to one message.
pub fn answer(v: &View, bytes: &[u8], from: Ipv6Addr, mac: [u8; 6], lease: u32) -> Option<Vec<u8>> {
    let m = Message::decode(&mut Decoder::new(bytes)).ok()?;
    let mut duid = None;
    let mut server = None;
    let mut rapid = false;
    let mut ias = vec![];
    for o in m.opts().iter() {
        match o {
            DhcpOption::ClientId(d) => duid = Some(d.clone()),
            DhcpOption::ServerId(d) => server = Some(d.clone()),
            DhcpOption::RapidCommit => rapid = true,
            DhcpOption::IANA(ia) => ias.push(ia.clone()),
            _ => {}
        }
    }
    // DUID-LL of the service port.
    let mut own = vec![0, 3, 0, 1];
    own.extend(mac);
    if server.is_some_and(|s| s != own) {
        return None;
    }
    let port = who(v, from, duid.as_deref().unwrap_or_default())?;
    let kind = match m.msg_type() {
        MessageType::Solicit if rapid => MessageType::Reply,
        MessageType::Solicit => MessageType::Advertise,
        MessageType::Request
        | MessageType::Renew
        | MessageType::Rebind
        | MessageType::Confirm
        | MessageType::Release
        | MessageType::Decline
        | MessageType::InformationRequest => MessageType::Reply,
        _ => return None,
    };
    let mine: Vec<Ipv6Addr> = port
        .fixed_ips
        .iter()
        .filter(|f| {
            v.subnet(f.subnet_id)
                .is_some_and(|s| s.enable_dhcp && s.ipv6_address_mode.as_deref() == Some("dhcpv6-stateful"))
        })
        .filter_map(|f| match f.ip {
            IpAddr::V6(a) => Some(a),
            IpAddr::V4(_) => None,
        })
        .collect();
    let mut out = vec![u8::from(kind)];
    out.extend(m.xid());
    if let Some(d) = &duid {
        put(&mut out, CLIENT_ID, d);
    }
    put(&mut out, SERVER_ID, &own);
    if rapid && m.msg_type() == MessageType::Solicit {
        put(&mut out, RAPID_COMMIT, &[]);
    }
    match m.msg_type() {
        MessageType::Release | MessageType::Decline => {
            put(&mut out, STATUS, &status(0, "ok"));
            return Some(out);
        }
        MessageType::Confirm => {
            let asked: Vec<Ipv6Addr> = ias.iter().flat_map(|ia| addresses(&ia.opts)).collect();
            let ok = asked.iter().all(|a| mine.contains(a));
            put(&mut out, STATUS, &status(if ok { 0 } else { NOT_ON_LINK }, ""));
            return Some(out);
        }
        _ => {}
    }
    for (nth, ia) in ias.iter().enumerate() {
        let mut body = ia.id.to_be_bytes().to_vec();
        body.extend((lease / 2).to_be_bytes());
        body.extend((lease / 5 * 4).to_be_bytes());
        // The first association gets the addresses; a guest has one interface here.
        let give: &[Ipv6Addr] = if nth == 0 { &mine } else { &[] };
        for a in give {
            let mut d = a.octets().to_vec();
            d.extend(lease.to_be_bytes());
            d.extend(lease.to_be_bytes());
            put(&mut body, IA_ADDR, &d);
        }
        for old in addresses(&ia.opts).filter(|a| !give.contains(a)) {
            // Lifetime 0: the client drops an address that is not its own any more.
            let mut d = old.octets().to_vec();
            d.extend([0; 8]);
            put(&mut body, IA_ADDR, &d);
        }
        if give.is_empty() {
            put(&mut body, STATUS, &status(NO_ADDRS, "this port has no further address"));
        }
        put(&mut out, IA_NA, &body);
    }
    let dns: Vec<u8> = v
        .network
        .subnets
        .iter()
        .filter(|s| s.enable_dhcp && s.cidr.addr().is_ipv6())
        .filter(|s| port.fixed_ips.iter().any(|f| f.subnet_id == s.id))
        .flat_map(|s| v.dns_servers(s))
        .filter_map(|d| match d {
            IpAddr::V6(a) => Some(a.octets()),
            IpAddr::V4(_) => None,
        })
        .flatten()
        .collect();
    if !dns.is_empty() {
        put(&mut out, DNS, &dns);
    }
    if !v.domain.is_empty() {
        put(&mut out, DOMAIN_SEARCH, &encode_name(&v.domain));
    }
    Some(out)
}

fn addresses(o: &dhcproto::v6::DhcpOptions) -> impl Iterator<Item = Ipv6Addr> {
    o.iter().filter_map(|o| match o {
        DhcpOption::IAAddr(a) => Some(a.addr),
        _ => None,
    })
}
