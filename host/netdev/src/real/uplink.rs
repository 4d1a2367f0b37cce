//! The way between the external networks and the user's host.
//!
//! - `nat`: a veth holds the external subnet's gateway address; one nft table masquerades what
//!   leaves by any other interface; `ip_forward` is on.
//! - `isolated`: the veth only; nothing is forwarded.
//! - `bridge:IF`: the interface itself moves into the switch namespace as a port of the external
//!   bridge. It must be a spare one: an interface that holds an address or a route is refused.
//!
//! Guests reach the host's own addresses by ping only: new connections from the veth to the host are
//! dropped (what the host runs is for its user, and DNS is answered inside the network's namespace).
//!
//! What is changed on the host is written down first, in the state directory, so that `purge` takes
//! back exactly that. The former value of a sysctl is kept once for all data planes of the host's namespace
//! (below /run, which a reboot empties as it resets sysctls): the last one to go restores it.

use super::err::{Context, failure};
use super::known::Known;
use super::link::{Links, Route, Set};
use super::model::{self, Model};
use super::names::{self, Names};
use super::ns::Ns;
use crate::{Troubles, trouble};
use haneul_agent_api::{Failure, Kind, Network, Router, Uplink};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// What this data plane changed on the host.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Veths.
    pub devices: BTreeSet<String>,
    /// Interfaces moved into the switch.
    pub moved: BTreeSet<String>,
    /// Sysctls and what they were before any of our data planes.
    pub sysctls: BTreeMap<String, String>,
    /// Whether the nft table was made.
    pub table: bool,
}

/// The uplink as it stands.
#[derive(Default)]
pub struct Standing {
    record: Record,
    rules: Option<Model>,
    loaded: bool,
    sysctls_done: bool,
}

const FORWARD: &[&str] = &["ipv4/ip_forward", "ipv6/conf/all/forwarding"];

fn file(dir: &Path) -> PathBuf {
    dir.join("uplink.json")
}

fn shared_file(tag: &str) -> PathBuf {
    Path::new("/run/haneul").join(format!("sysctl-before{tag}.json"))
}

impl Standing {
    fn load(&mut self, dir: &Path) {
        if self.loaded {
            return;
        }
        self.loaded = true;
        if let Ok(b) = std::fs::read(file(dir)) {
            self.record = serde_json::from_slice(&b).unwrap_or_default();
        }
    }

    fn save(&self, dir: &Path) -> Result<(), Failure> {
        let b = serde_json::to_vec(&self.record).context(|| "uplink record".into())?;
        super::write_file(&file(dir), &b)
    }
}

fn rules(names: &Names, uplink: &Uplink, nets: &[&Network]) -> Model {
    let mut m = Model::default();
    let t = m.table(&format!("inet {}", names.table()));
    t.set("veths", "type ifname;")
        .base("in", "type filter hook input priority 0; policy accept;")
        .base("fw", "type filter hook forward priority 0; policy accept;")
        .base("post", "type nat hook postrouting priority 100; policy accept;")
        .rule("in", "iifname @veths ct state established,related accept")
        .rule("in", "iifname @veths meta l4proto { 1, 58 } accept")
        .rule("in", "iifname @veths drop");
    for n in nets {
        t.element("veths", format!("\"{}\"", names.uplink(n.index)));
    }
    if *uplink == Uplink::Nat {
        // Forwarding itself needs no rule of ours: an "accept" here would not lift a "drop" elsewhere.
        t.rule("post", "iifname @veths oifname != @veths masquerade");
    } else {
        t.rule("fw", "iifname @veths drop");
        t.rule("fw", "oifname @veths drop");
    }
    m
}

/// What the host is, for the uplink.
pub struct Host<'a> {
    /// Names.
    pub names: &'a Names,
    /// The host's namespace.
    pub ns: &'a Ns,
    /// Set where the host is not the machine's own namespace: tells its shared file apart.
    pub tag: &'a str,
    /// State directory.
    pub dir: &'a Path,
    /// The setting.
    pub uplink: &'a Uplink,
}

/// Brings the uplink about for all external networks. A router whose way out fails has failed.
pub fn ensure(h: &Host<'_>, known: &Known, sw: &Ns, links: &Links, st: &mut Standing, troubles: &mut Troubles) {
    st.load(h.dir);
    let nets: Vec<&Network> = known.networks.values().filter(|n| n.external).collect();
    if nets.is_empty() {
        return;
    }
    let common = match h.uplink {
        Uplink::Bridge(dev) => bridge(h, dev, &nets, sw, links, st),
        Uplink::Nat | Uplink::Isolated => table(h, &nets, st),
    };
    for n in nets {
        let done = match (&common, h.uplink) {
            (Err(e), _) => Err(e.clone()),
            (Ok(()), Uplink::Bridge(_)) => Ok(()),
            (Ok(()), _) => veth(h, known, n, sw, links, st),
        };
        let Err(e) = done else { continue };
        let outside = |r: &&Router| r.gateway.as_ref().is_some_and(|g| g.network_id == n.id);
        for r in known.routers.values().filter(outside) {
            trouble(troubles, Kind::Router, r.id, e.clone());
        }
        trouble(troubles, Kind::Network, n.id, e);
    }
}

/// The host's own table, and its forwarding.
fn table(h: &Host<'_>, nets: &[&Network], st: &mut Standing) -> Result<(), Failure> {
    let want = rules(h.names, h.uplink, nets);
    if st.rules.as_ref() != Some(&want) {
        st.record.table = true;
        st.save(h.dir)?;
        haneul_core::fault_point!("netdev.real.uplink.table");
        let script = match &st.rules {
            Some(old) => want.diff(old),
            None => want.full(),
        };
        st.rules = None;
        model::run(h.ns, &script).context(|| "the host's table".into())?;
        st.rules = Some(want);
    }
    if *h.uplink == Uplink::Nat && !st.sysctls_done {
        forwarding(h, st)?;
        st.sysctls_done = true;
    }
    Ok(())
}

fn veth(h: &Host<'_>, known: &Known, n: &Network, sw: &Ns, links: &Links, st: &mut Standing) -> Result<(), Failure> {
    let (dev, peer) = (h.names.uplink(n.index), names::uplink_peer(n.index));
    let master = links
        .get(&names::bridge(n.index))
        .map(|l| l.index)
        .ok_or_else(|| failure("an external network is not there", n.id))?;
    let have = h.ns.link_index(&dev).context(|| dev.clone())?;
    let peer_there = links.get(&peer).is_some_and(|l| l.master == master);
    if have.is_none() || !peer_there {
        st.record.devices.insert(dev.clone());
        st.save(h.dir)?;
        haneul_core::fault_point!("netdev.real.uplink.veth");
        h.ns.link_del(&dev).context(|| dev.clone())?;
        sw.link_del(&peer).context(|| peer.clone())?;
        let set = Set {
            master: Some(master),
            mtu: Some(n.mtu),
            up: Some(true),
            mac: None,
        };
        sw.veth_add(&peer, set, h.ns, &dev, None)
            .context(|| format!("making {dev}"))?;
        let quiet = [
            (format!("ipv6/conf/{dev}/accept_ra"), "0"),
            (format!("ipv6/conf/{dev}/accept_dad"), "0"),
        ];
        let quiet: Vec<(&str, &str)> = quiet.iter().map(|(k, v)| (k.as_str(), *v)).collect();
        h.ns.sysctl(&quiet, true).context(|| dev.clone())?;
    }
    let index = h.ns.need_index(&dev).context(|| dev.clone())?;
    let set = Set {
        mtu: Some(n.mtu),
        up: Some(n.admin_state_up),
        ..Set::default()
    };
    h.ns.link_set(index, set).context(|| dev.clone())?;
    let want: Vec<IpNet> = n
        .subnets
        .iter()
        .filter_map(|s| IpNet::new(s.gateway?, s.cidr.prefix_len()).ok())
        .collect();
    h.ns.addrs_exact(index, &want)
        .context(|| format!("addresses of {dev}"))?;
    tenant_routes(h, known, n, index).context(|| format!("routes of {dev}"))
}

/// IPv6 is routed without translation: the host has to know that tenants' prefixes lie behind their
/// routers' outer addresses.
fn tenant_routes(h: &Host<'_>, known: &Known, n: &Network, dev: u32) -> std::io::Result<()> {
    let mut want = vec![];
    for r in known.routers.values().filter(|r| r.admin_state_up) {
        let Some(g) = r.gateway.as_ref().filter(|g| g.network_id == n.id) else {
            continue;
        };
        let Some(via) = g.addresses.iter().map(|a| a.addr()).find(|a| a.is_ipv6()) else {
            continue;
        };
        let inner = r.interfaces.iter().flat_map(|i| &i.addresses);
        for net in inner.filter(|a| a.addr().is_ipv6()) {
            want.push(Route {
                dst: net.trunc(),
                via: Some(via),
                dev,
            });
        }
    }
    let have: Vec<Route> = h.ns.routes()?.into_iter().filter(|r| r.dev == dev).collect();
    for r in have.iter().filter(|r| !want.contains(r)) {
        h.ns.route_del(r)?;
    }
    for r in want.iter().filter(|r| !have.contains(r)) {
        h.ns.route_add(r)?;
    }
    Ok(())
}

fn forwarding(h: &Host<'_>, st: &mut Standing) -> Result<(), Failure> {
    let path = shared_file(h.tag);
    let mut before: BTreeMap<String, String> = std::fs::read(&path)
        .ok()
        .and_then(|b| serde_json::from_slice(&b).ok())
        .unwrap_or_default();
    let mut set = vec![];
    for key in FORWARD {
        let Ok(now) = h.ns.sysctl_get(key) else {
            continue;
        };
        let was = before.entry((*key).into()).or_insert_with(|| now.clone());
        st.record.sysctls.insert((*key).into(), was.clone());
        if now != "1" {
            set.push((*key, "1"));
        }
    }
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).context(|| "a directory in /run".into())?;
    }
    let b = serde_json::to_vec(&before).context(|| "sysctl record".into())?;
    super::write_file(&path, &b)?;
    st.save(h.dir)?;
    haneul_core::fault_point!("netdev.real.uplink.sysctl");
    // IPv4 alone is what floating addresses need; IPv6 forwarding would stop the host from taking
    // router advertisements itself (accept_ra=1 counts only without forwarding), so where the host
    // relies on them it is left alone.
    set.retain(|(k, _)| !k.starts_with("ipv6") || !h.takes_ra());
    h.ns.sysctl(&set, true).context(|| "forwarding".into())
}

impl Host<'_> {
    /// Whether the host has an IPv6 default route from a router advertisement.
    fn takes_ra(&self) -> bool {
        self.ns
            .enter(|| std::fs::read_to_string("/proc/net/ipv6_route").unwrap_or_default())
            .unwrap_or_default()
            .lines()
            .any(|l| {
                // RTF_ADDRCONF in the flags column of the default route.
                let f: Vec<&str> = l.split_whitespace().collect();
                f.first().is_some_and(|d| d.chars().all(|c| c == '0'))
                    && f.get(8)
                        .and_then(|x| u32::from_str_radix(x, 16).ok())
                        .is_some_and(|x| x & 0x0004_0000 != 0)
            })
    }
}

fn bridge(
    h: &Host<'_>,
    dev: &str,
    nets: &[&Network],
    sw: &Ns,
    links: &Links,
    st: &mut Standing,
) -> Result<(), Failure> {
    let [n] = nets else {
        return Err(failure(
            "one interface carries one external network",
            format!("{} external networks", nets.len()),
        ));
    };
    let master = links
        .get(&names::bridge(n.index))
        .map(|l| l.index)
        .ok_or_else(|| failure("an external network is not there", n.id))?;
    if let Some(l) = links.get(dev) {
        if l.master == master && l.up {
            return Ok(());
        }
    } else {
        let index =
            h.ns.link_index(dev)
                .context(|| dev.into())?
                .ok_or_else(|| failure("the uplink interface does not exist", dev))?;
        let global = |a: &IpNet| match a {
            IpNet::V4(_) => true,
            IpNet::V6(n) => !n.addr().is_unicast_link_local(),
        };
        if h.ns.addrs(index).context(|| dev.into())?.iter().any(global) {
            return Err(failure(
                "the uplink interface is in use by the host: give one without addresses",
                dev,
            ));
        }
        st.record.moved.insert(dev.into());
        st.save(h.dir)?;
        haneul_core::fault_point!("netdev.real.uplink.move");
        h.ns.link_move(index, sw).context(|| dev.into())?;
    }
    let index = sw.need_index(dev).context(|| dev.into())?;
    let set = Set {
        master: Some(master),
        up: Some(true),
        ..Set::default()
    };
    sw.link_set(index, set).context(|| dev.into())
}

/// Takes the veth of one external network away.
pub fn remove(h: &Host<'_>, n: &Network, st: &mut Standing) -> Result<(), Failure> {
    st.load(h.dir);
    let dev = h.names.uplink(n.index);
    h.ns.link_del(&dev).context(|| dev.clone())?;
    if st.record.devices.remove(&dev) {
        st.save(h.dir)?;
    }
    Ok(())
}

/// Undoes everything on the host, by the record.
pub fn purge(h: &Host<'_>, sw: Option<&Ns>, st: &mut Standing) -> Result<(), Failure> {
    st.load(h.dir);
    for dev in &st.record.devices {
        h.ns.link_del(dev).context(|| dev.clone())?;
    }
    for dev in &st.record.moved {
        if let Some(sw) = sw
            && let Some(index) = sw.link_index(dev).context(|| dev.clone())?
        {
            sw.link_move(index, h.ns).context(|| dev.clone())?;
        }
    }
    haneul_core::fault_point!("netdev.real.uplink.purge");
    if st.record.table {
        let t = format!("inet {}", h.names.table());
        model::run(h.ns, &format!("add table {t}\ndelete table {t}\n")).context(|| "the host's table".into())?;
    }
    let others = model::nft(h.ns, &["list", "tables"], "").unwrap_or_default();
    if !st.record.sysctls.is_empty() && !others.contains(" haneul-") {
        for (key, value) in &st.record.sysctls {
            h.ns.sysctl(&[(key, value)], true).context(|| key.clone())?;
        }
        let path = shared_file(h.tag);
        let _ = std::fs::remove_file(&path);
        if let Some(dir) = path.parent() {
            // Only when it is empty.
            let _ = std::fs::remove_dir(dir);
        }
    }
    *st = Standing::default();
    let _ = std::fs::remove_file(file(h.dir));
    Ok(())
}

/// Chains of others that would drop what we forward (Docker sets FORWARD to drop): for `doctor`.
pub fn foreign_drops(ns: &Ns) -> Vec<String> {
    let Ok(text) = model::nft(ns, &["list", "chains"], "") else {
        return vec![];
    };
    let (mut table, mut chain, mut out) = (String::new(), String::new(), vec![]);
    for line in text.lines().map(str::trim) {
        if let Some(t) = line.strip_prefix("table ") {
            table = t.trim_end_matches(['{', ' ']).to_string();
        } else if let Some(c) = line.strip_prefix("chain ") {
            chain = c.trim_end_matches(['{', ' ']).to_string();
        } else if line.contains("hook forward") && line.contains("policy drop") && !table.contains("haneul-") {
            out.push(format!("{table} {chain}"));
        }
    }
    out
}
