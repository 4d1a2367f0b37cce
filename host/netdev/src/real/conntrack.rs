//! Cutting connections that no rule allows any more.
//!
//! Taking a rule away stops new connections only; open ones live in the kernel's table. After rules
//! went, every entry is asked again (the same question that the rules answer for a first packet) and
//! deleted when the answer is no: what is still allowed is not disturbed. Mid-stream pick-up is off in
//! our namespaces (`nf_conntrack_tcp_loose`), or the guest's next segment would open a cut TCP
//! connection again from the inside. A guest that arrives from another host brings connections that this kernel has
//! never seen: for their sake it is on for a while.

use super::known::Known;
use super::netlink::{F_DUMP, Msg, NESTED, Socket, attrs};
use super::ns::Ns;
use super::rules::{Flow, Numbers, allows, identities};
use super::serve::Tasks;
use haneul_agent_api::{Direction, Port, Router};
use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::time::Duration;
use tokio::runtime::Handle;
use uuid::Uuid;

/// Whether TCP that is under way becomes a connection here.
pub const MIDSTREAM: &str = "netfilter/nf_conntrack_tcp_loose";
/// So long a guest that arrives, and whom it talks to, have to say something.
const ARRIVAL: Duration = Duration::from_secs(120);

const GET: u16 = 0x0101;
const DELETE: u16 = 0x0102;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_STATUS: u16 = 3;
const CTA_ZONE: u16 = 18;
const SRC_NAT: u32 = 1 << 4;
const DST_NAT: u32 = 1 << 5;

/// One tracked connection.
#[derive(Clone, Debug)]
pub struct Entry {
    family: u8,
    zone: u16,
    status: u32,
    orig: Flow,
    reply: Flow,
    raw_orig: Vec<u8>,
}

fn tuple(b: &[u8]) -> Option<Flow> {
    let (mut src, mut dst, mut protocol, mut dport, mut code) = (None, None, 0, 0, 0);
    let ip = |d: &[u8]| -> Option<IpAddr> {
        match d.len() {
            4 => Some(IpAddr::from(<[u8; 4]>::try_from(d).ok()?)),
            16 => Some(IpAddr::from(<[u8; 16]>::try_from(d).ok()?)),
            _ => None,
        }
    };
    for (k, d) in attrs(b) {
        match k {
            1 => {
                for (k, d) in attrs(d) {
                    match k {
                        1 | 3 => src = ip(d),
                        2 | 4 => dst = ip(d),
                        _ => {}
                    }
                }
            }
            2 => {
                for (k, d) in attrs(d) {
                    let first = d.first().copied().unwrap_or_default();
                    match k {
                        1 => protocol = first,
                        3 => dport = u16::from_be_bytes(d.try_into().ok()?),
                        5 | 8 => dport = first.into(),
                        6 | 9 => code = first.into(),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    Some(Flow {
        protocol,
        src: src?,
        dst: dst?,
        dport,
        code,
    })
}

fn entry(m: &[u8]) -> Option<Entry> {
    let (mut orig, mut reply, mut status, mut zone, mut raw) = (None, None, 0, 0, vec![]);
    for (k, d) in attrs(m.get(4..)?) {
        match k {
            CTA_TUPLE_ORIG => {
                orig = tuple(d);
                raw = d.to_vec();
            }
            CTA_TUPLE_REPLY => reply = tuple(d),
            CTA_STATUS => status = u32::from_be_bytes(d.try_into().ok()?),
            CTA_ZONE => zone = u16::from_be_bytes(d.try_into().ok()?),
            _ => {}
        }
    }
    Some(Entry {
        family: *m.first()?,
        zone,
        status,
        orig: orig?,
        reply: reply?,
        raw_orig: raw,
    })
}

/// Takes in what is under way, until some time has passed since the last call. What is taken in meets the rules as a
/// first packet does.
pub fn let_in(ns: &Ns, rt: &Handle) -> io::Result<Tasks> {
    ns.sysctl(&[(MIDSTREAM, "1")], false)?;
    let ns = ns.clone();
    let mut end = Tasks::default();
    end.spawn(rt, async move {
        tokio::time::sleep(ARRIVAL).await;
        if let Err(e) = ns.sysctl(&[(MIDSTREAM, "0")], false) {
            tracing::warn!(error = %e, "connections from the middle are still taken in");
        }
    });
    Ok(end)
}

/// Deletes the entries of a namespace for which `doomed` says so; returns how many.
pub fn cut(ns: &Ns, doomed: impl Fn(&Entry) -> bool) -> io::Result<usize> {
    let mut s = ns.enter(Socket::netfilter)??;
    let mut n = 0;
    for m in s.call(GET, F_DUMP, &Msg::new(&[0, 0, 0, 0]))? {
        let Some(e) = entry(&m) else { continue };
        if !doomed(&e) {
            continue;
        }
        let mut del = Msg::new(&[e.family, 0, 0, 0]);
        del.attr(CTA_TUPLE_ORIG | NESTED, &e.raw_orig);
        if e.zone != 0 {
            del.attr(CTA_ZONE, &e.zone.to_be_bytes());
        }
        match s.call(DELETE, 0, &del) {
            // It may have ended by itself meanwhile.
            Err(x) if x.raw_os_error() == Some(libc::ENOENT) => {}
            Err(x) => return Err(x),
            Ok(_) => {
                tracing::debug!(ns = ns.name(), zone = e.zone, flow = ?e.orig, "cut a connection");
                n += 1;
            }
        }
    }
    Ok(n)
}

/// Cuts what the security groups of local ports do not allow, and what addresses took part in that ports have no more.
pub fn cut_disallowed(ns: &Ns, known: &Known) -> io::Result<usize> {
    let zones: HashMap<u16, Uuid> = Numbers::of(known).zones.into_iter().map(|(id, z)| (z, id)).collect();
    let mut exact: HashMap<(Uuid, IpAddr), &Port> = HashMap::new();
    let mut wide = vec![];
    for p in known.ports.values() {
        // A port that is open has no rules; one that is down passes nothing anyway.
        if !p.port_security {
            continue;
        }
        for (_, net) in identities(p) {
            if net.prefix_len() == net.max_prefix_len() {
                exact.insert((p.network_id, net.addr()), p);
            } else {
                wide.push((p.network_id, net, p));
            }
        }
    }
    let holder = |net: Uuid, ip: IpAddr| -> Option<&Port> {
        exact.get(&(net, ip)).copied().or_else(|| {
            wide.iter()
                .find(|(n, w, _)| *n == net && w.contains(&ip))
                .map(|(_, _, p)| *p)
        })
    };
    cut(ns, |e| {
        let Some(net) = zones.get(&e.zone) else {
            return false;
        };
        if [e.orig.src, e.orig.dst]
            .iter()
            .any(|ip| known.uncut.contains(&(*net, *ip)))
        {
            return true;
        }
        let out = holder(*net, e.orig.src).is_none_or(|p| allows(known, p, &e.orig, Direction::Egress));
        let into = holder(*net, e.orig.dst).is_none_or(|p| allows(known, p, &e.orig, Direction::Ingress));
        !(out && into)
    })
}

/// Cuts what a router's translations do not carry any more: floating addresses that went or moved, a
/// gateway address that changed, subnets without interface.
pub fn cut_router(ns: &Ns, router: &Router, gone: &[ipnet::IpNet]) -> io::Result<usize> {
    let fips: HashMap<IpAddr, IpAddr> = router.floating_ips.iter().map(|f| (f.floating, f.fixed)).collect();
    let own: Vec<IpAddr> = router
        .gateway
        .iter()
        .filter(|g| g.enable_snat)
        .flat_map(|g| g.addresses.iter().map(|a| a.addr()))
        .collect();
    cut(ns, |e| {
        if e.status & DST_NAT != 0 && fips.get(&e.orig.dst) != Some(&e.reply.src) {
            return true;
        }
        if e.status & SRC_NAT != 0 {
            let ok = own.contains(&e.reply.dst) || fips.get(&e.reply.dst) == Some(&e.orig.src);
            if !ok {
                return true;
            }
        }
        gone.iter().any(|n| n.contains(&e.orig.src) || n.contains(&e.reply.src))
    })
}
