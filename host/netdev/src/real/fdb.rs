//! Forwarding entries and neighbours of one namespace, over rtnetlink.

use super::link::{bytes_ip, ip_bytes};
use super::netlink::{F_APPEND, F_DUMP, F_REPLACE, Msg, attrs, int};
use super::ns::Ns;
use std::io;
use std::net::IpAddr;

const RTM_NEWNEIGH: u16 = 28;
const RTM_DELNEIGH: u16 = 29;
const RTM_GETNEIGH: u16 = 30;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const NTF_SELF: u8 = 0x02;
const NTF_MASTER: u8 = 0x04;
/// Frames that come from elsewhere do not move the entry.
const NTF_STICKY: u8 = 0x40;
/// Of a bridge's table: set by us, neither learned nor the bridge's own.
const NUD_NOARP: u16 = 0x40;
const NUD_PERMANENT: u16 = 0x80;
const AF_BRIDGE: u8 = 7;
/// Of a VXLAN device: what has no entry, and so all broadcast, goes to these.
pub const ALL: [u8; 6] = [0; 6];

/// An entry on one device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Entry {
    /// A VXLAN device's: frames for the MAC go to this host; for [`ALL`] there may be several.
    Tunnel([u8; 6], IpAddr),
    /// A bridge's: the MAC is behind this port of it.
    Port([u8; 6]),
    /// A bridge's neighbour: the address has this MAC.
    Neighbour(IpAddr, [u8; 6]),
}

impl Entry {
    /// Whether setting `other` takes the place of this one.
    pub fn gives_way_to(&self, other: &Entry) -> bool {
        match (self, other) {
            (Entry::Tunnel(a, _), Entry::Tunnel(b, _)) => a == b && *a != ALL,
            (Entry::Neighbour(a, _), Entry::Neighbour(b, _)) => a == b,
            _ => false,
        }
    }
}

impl Ns {
    /// All entries, each with the index of its device.
    pub fn entries(&self) -> io::Result<Vec<(u32, Entry)>> {
        let mut out = vec![];
        let bridges = [&[AF_BRIDGE][..], &[0; 15]].concat();
        let tables = [(true, bridges), (false, vec![0; 12])];
        for (forwarding, fixed) in tables {
            for m in self.route(|s| s.call(RTM_GETNEIGH, F_DUMP, &Msg::new(&fixed)))? {
                let index = int(&m, 4) as u32;
                let state = int(&m, 8) as u32 as u16;
                let (mut dst, mut mac) = (None, None);
                for (kind, data) in attrs(m.get(12..).unwrap_or_default()) {
                    match kind {
                        NDA_DST => dst = bytes_ip(data),
                        NDA_LLADDR => mac = <[u8; 6]>::try_from(data).ok(),
                        _ => {}
                    }
                }
                let entry = match (forwarding, mac, dst) {
                    (true, Some(mac), Some(host)) => Entry::Tunnel(mac, host),
                    (true, Some(mac), None) if state & NUD_NOARP != 0 => Entry::Port(mac),
                    (false, Some(mac), Some(ip)) if state & NUD_PERMANENT != 0 => Entry::Neighbour(ip, mac),
                    _ => continue,
                };
                out.push((index, entry));
            }
        }
        Ok(out)
    }

    fn entry_call(&self, kind: u16, flags: u16, index: u32, entry: &Entry) -> io::Result<()> {
        let (family, state, ntf, mac, dst) = match entry {
            Entry::Tunnel(mac, host) => (AF_BRIDGE, NUD_PERMANENT, NTF_SELF, mac, Some(*host)),
            Entry::Port(mac) => (AF_BRIDGE, NUD_NOARP, NTF_MASTER | NTF_STICKY, mac, None),
            Entry::Neighbour(ip, mac) => (ip_bytes(*ip).0, NUD_PERMANENT, 0, mac, Some(*ip)),
        };
        let mut fixed = vec![family, 0, 0, 0];
        fixed.extend(index.to_ne_bytes());
        fixed.extend(state.to_ne_bytes());
        fixed.extend([ntf, 0]);
        let mut m = Msg::new(&fixed);
        m.attr(NDA_LLADDR, mac);
        if let Some(ip) = dst {
            m.attr(NDA_DST, &ip_bytes(ip).1);
        }
        self.route(|s| s.call(kind, flags, &m)).map(drop)
    }

    /// Sets an entry on a device.
    pub fn entry_set(&self, index: u32, entry: &Entry) -> io::Result<()> {
        let flags = match entry {
            Entry::Tunnel(mac, _) if *mac == ALL => F_APPEND,
            _ => F_REPLACE,
        };
        self.entry_call(RTM_NEWNEIGH, flags, index, entry)
    }

    /// Takes an entry off a device; none there is fine.
    pub fn entry_del(&self, index: u32, entry: &Entry) -> io::Result<()> {
        match self.entry_call(RTM_DELNEIGH, 0, index, entry) {
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ENODEV)) => Ok(()),
            other => other,
        }
    }
}
