//! Router advertisements (RFC 4861, 8106), from the router's namespace: at once when something
//! changed, when a guest asks, and every now and then.

use crate::real::serve::dns::encode_name;
use crate::real::view::Advert;
use nix::sys::socket::{MsgFlags, SockaddrIn6, recvfrom, sendto};
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddrV6};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;
use tokio::io::unix::AsyncFd;

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
const SOLICIT: u8 = 133;
const LIFETIME: u16 = 1800;
/// Well below the lifetime, so that two lost ones do no harm.
const PERIOD: Duration = Duration::from_secs(200);

/// A raw ICMPv6 socket on one interface; call inside the namespace.
pub fn open(index: u32, dev: &str) -> io::Result<OwnedFd> {
    use socket2::{Domain, Protocol, Socket, Type};
    let s = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?;
    s.set_nonblocking(true)?;
    s.bind_device(Some(dev.as_bytes()))?;
    s.set_multicast_hops_v6(255)?;
    s.set_unicast_hops_v6(255)?;
    s.set_multicast_loop_v6(false)?;
    s.set_multicast_if_v6(index)?;
    s.join_multicast_v6(&ALL_ROUTERS, index)?;
    Ok(s.into())
}

/// The advertisement's bytes; the kernel fills the checksum in. With `lifetime` 0 it takes back what
/// was said.
pub fn message(a: &Advert, lifetime: u16) -> Vec<u8> {
    let mode = |m: &str| a.subnets.iter().any(|s| s.ipv6_ra_mode.as_deref() == Some(m));
    let mut flags = 0;
    if mode("dhcpv6-stateful") {
        flags |= 0xc0;
    } else if mode("dhcpv6-stateless") {
        flags |= 0x40;
    }
    let mut m = vec![134, 0, 0, 0, 64, flags];
    m.extend(lifetime.to_be_bytes());
    m.extend([0; 8]);
    m.extend([1, 1]);
    m.extend(a.mac);
    m.extend([5, 1, 0, 0]);
    m.extend(a.mtu.to_be_bytes());
    for s in &a.subnets {
        let ipnet::IpNet::V6(n) = s.cidr else { continue };
        let auto = s.ipv6_ra_mode.as_deref() != Some("dhcpv6-stateful");
        m.extend([3, 4, n.prefix_len(), if auto { 0xc0 } else { 0x80 }]);
        m.extend(86_400u32.to_be_bytes());
        m.extend(14_400u32.to_be_bytes());
        m.extend([0; 4]);
        m.extend(n.network().octets());
        for (dst, via) in &s.host_routes {
            // Only routes through this router can be told this way (RFC 4191).
            if let (ipnet::IpNet::V6(d), Some(g)) = (dst, s.gateway)
                && *via == g
                && d.prefix_len() > 0
            {
                m.extend([24, 3, d.prefix_len(), 0]);
                m.extend(u32::from(LIFETIME).to_be_bytes());
                m.extend(d.network().octets());
            }
        }
    }
    let dns: Vec<Ipv6Addr> = a
        .dns
        .iter()
        .filter_map(|d| match d {
            IpAddr::V6(x) => Some(*x),
            IpAddr::V4(_) => None,
        })
        .collect();
    if !dns.is_empty() {
        m.extend([25, (1 + 2 * dns.len()) as u8, 0, 0]);
        m.extend(u32::from(LIFETIME).to_be_bytes());
        m.extend(dns.iter().flat_map(Ipv6Addr::octets));
    }
    if !a.domain.is_empty() {
        let mut d = encode_name(&a.domain);
        d.resize(d.len().next_multiple_of(8), 0);
        m.extend([31, (1 + d.len() / 8) as u8, 0, 0]);
        m.extend(u32::from(LIFETIME).to_be_bytes());
        m.extend(d);
    }
    m
}

fn send(fd: &OwnedFd, m: &[u8], to: Ipv6Addr, index: u32) -> io::Result<()> {
    let to = SockaddrIn6::from(SocketAddrV6::new(to, 0, 0, index));
    sendto(fd.as_raw_fd(), m, &to, MsgFlags::empty())?;
    Ok(())
}

#[allow(unsafe_code)]
fn register(fd: OwnedFd) -> Option<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd keeps the same descriptor open until it is dropped, and AsyncFd owns it.
    unsafe { AsyncFd::register(fd) }.ok()
}

/// Advertises until aborted.
pub async fn run(fd: OwnedFd, index: u32, a: Advert) {
    let Some(fd) = register(fd) else { return };
    let m = message(&a, LIFETIME);
    let mut buf = [0u8; 1500];
    // Three quick ones: the port of a fresh veth may not forward for a moment.
    let mut quick = 3u32;
    loop {
        if let Err(e) = send(fd.get_ref(), &m, ALL_NODES, index) {
            tracing::debug!(dev = a.dev, error = %e, "router advertisement");
        }
        let pause = if quick > 0 {
            quick -= 1;
            Duration::from_millis(1500)
        } else {
            PERIOD
        };
        let until = tokio::time::sleep(pause);
        tokio::pin!(until);
        loop {
            tokio::select! {
                () = &mut until => break,
                ready = fd.readable() => {
                    let Ok(mut ready) = ready else { return };
                    let got = ready.try_io(|fd| {
                        recvfrom::<SockaddrIn6>(fd.get_ref().as_raw_fd(), &mut buf).map_err(io::Error::from)
                    });
                    if let Ok(Ok((n, from))) = got
                        && n >= 8
                        && buf[0] == SOLICIT
                    {
                        // To the one who asked, if it has an address; else to all.
                        let to = from.map(|f| f.ip()).filter(|ip| !ip.is_unspecified());
                        let _ = send(fd.get_ref(), &m, to.unwrap_or(ALL_NODES), index);
                    }
                }
            }
        }
    }
}
