//! Frames that we build ourselves: gratuitous ARP, its like of IPv6, and DHCP answers to clients without an address
//! (the kernel would ask by ARP for an address that its holder does not know yet).

// System calls that no safe wrapper in the tree offers; each says why it is sound.
#![allow(unsafe_code)]

use super::ns::Ns;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// An AF_PACKET socket for sending on one link.
pub struct Raw {
    fd: OwnedFd,
    index: u32,
}

impl Raw {
    /// Opens it; call inside the namespace.
    pub fn open(index: u32) -> io::Result<Raw> {
        // SAFETY: plain system call; protocol 0 means that the socket receives nothing.
        let fd = unsafe {
            libc::socket(
                libc::AF_PACKET,
                libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK,
                0,
            )
        };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just made and belongs to nobody else.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Raw { fd, index })
    }

    /// Sends `payload` of `ethertype` to `mac`. The kernel writes the Ethernet header.
    pub fn send(&self, mac: [u8; 6], ethertype: u16, payload: &[u8]) -> io::Result<()> {
        // SAFETY: sockaddr_ll is plain data for which all zeroes is a valid value.
        let mut to: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        to.sll_family = libc::AF_PACKET as u16;
        to.sll_protocol = ethertype.to_be();
        to.sll_ifindex = self.index as i32;
        to.sll_halen = 6;
        for (a, b) in to.sll_addr.iter_mut().zip(mac) {
            *a = b;
        }
        // SAFETY: `payload` and `to` are valid for the lengths given and live through the call.
        let n = unsafe {
            libc::sendto(
                self.fd.as_raw_fd(),
                payload.as_ptr().cast(),
                payload.len(),
                0,
                (&raw const to).cast(),
                size_of::<libc::sockaddr_ll>() as u32,
            )
        };
        if n < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }
}

/// Tells all of a link that `ip` is at `mac`.
pub fn gratuitous_arp(ns: &Ns, dev: &str, mac: [u8; 6], ip: Ipv4Addr) -> io::Result<()> {
    let index = ns.need_index(dev)?;
    let mut p = vec![0, 1, 8, 0, 6, 4, 0, 1];
    p.extend(mac);
    p.extend(ip.octets());
    p.extend([0; 6]);
    p.extend(ip.octets());
    ns.enter(|| Raw::open(index)?.send([0xff; 6], 0x0806, &p))?
}

/// The same of an IPv6 address: an unsolicited advertisement of a router that overrides what is remembered (RFC 4861).
pub fn unsolicited_na(ns: &Ns, dev: &str, mac: [u8; 6], ip: Ipv6Addr) -> io::Result<()> {
    let index = ns.need_index(dev)?;
    let all = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    let mut na = vec![136, 0, 0, 0, 0xa0, 0, 0, 0];
    na.extend(ip.octets());
    na.extend([2, 1]);
    na.extend(mac);
    let len = na.len() as u16;
    let mut pseudo = vec![];
    pseudo.extend(ip.octets());
    pseudo.extend(all.octets());
    pseudo.extend(u32::from(len).to_be_bytes());
    pseudo.extend([0, 0, 0, 58]);
    pseudo.extend(&na);
    na[2..4].copy_from_slice(&checksum(&pseudo).to_be_bytes());
    let mut p = vec![0x60, 0, 0, 0];
    p.extend(len.to_be_bytes());
    p.extend([58, 255]);
    p.extend(ip.octets());
    p.extend(all.octets());
    p.extend(na);
    ns.enter(|| Raw::open(index)?.send([0x33, 0x33, 0, 0, 0, 1], 0x86dd, &p))?
}

/// An IPv4 UDP packet with both checksums.
pub fn udp4(src: SocketAddrV4, dst: SocketAddrV4, data: &[u8]) -> Vec<u8> {
    let len = (8 + data.len()) as u16;
    let mut udp = Vec::with_capacity(usize::from(len));
    udp.extend(src.port().to_be_bytes());
    udp.extend(dst.port().to_be_bytes());
    udp.extend(len.to_be_bytes());
    udp.extend([0, 0]);
    udp.extend(data);
    let mut pseudo = vec![];
    pseudo.extend(src.ip().octets());
    pseudo.extend(dst.ip().octets());
    pseudo.extend([0, 17]);
    pseudo.extend(len.to_be_bytes());
    pseudo.extend(&udp);
    let sum = match checksum(&pseudo) {
        0 => 0xffff,
        s => s,
    };
    udp[6..8].copy_from_slice(&sum.to_be_bytes());
    let mut ip = vec![0x45, 0xc0];
    ip.extend((20 + len).to_be_bytes());
    ip.extend([0, 0, 0, 0, 64, 17, 0, 0]);
    ip.extend(src.ip().octets());
    ip.extend(dst.ip().octets());
    let sum = checksum(&ip);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    ip.extend(udp);
    ip
}

fn checksum(b: &[u8]) -> u16 {
    let mut sum: u32 = b
        .chunks(2)
        .map(|c| u32::from(u16::from_be_bytes([c[0], c.get(1).copied().unwrap_or(0)])))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_checks_itself() {
        let p = udp4("10.0.0.2:67".parse().unwrap(), "10.0.0.5:68".parse().unwrap(), b"hello");
        assert_eq!(checksum(&p[..20]), 0);
        assert_eq!(p.len(), 20 + 8 + 5);
    }
}
