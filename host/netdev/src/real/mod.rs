//! The kernel-native driver: bridges, taps, nftables and namespaces.
//!
//! - One **switch** namespace holds the bridges and taps of all networks; its rules are in `rules`.
//! - One namespace per **router**, joined by veths to its networks' bridges (`router`).
//! - One small namespace per network with DHCP for our own **responders** (`service`, `serve`).
//! - The user's host gets one veth per external network and one nft table (`uplink`).
//!
//! Everything is idempotent and compared with what stands before it is touched: after a crash, a
//! reboot or a deleted namespace the next `apply` repairs. Blocking work runs off the runtime; one
//! `apply` runs at a time.

mod conntrack;
mod err;
mod fdb;
mod known;
pub mod link;
mod model;
mod names;
mod netlink;
mod ns;
mod observe;
mod packet;
mod router;
mod rules;
mod serve;
mod service;
mod tap;
mod uplink;
mod view;
mod vxlan;

use crate::{BoxFuture, MetadataSource, NetDriver, NetObserved};
use err::{Context, failure};
use haneul_agent_api::{Failure, FailureCode, Kind, Neighbour, NetDesired, Network, Port, Uplink};
use known::Known;
use link::{Links, Set, parse_mac};
use model::Model;
use names::Names;
use ns::Ns;
use serve::{Tasks, dns, metadata, ra};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::runtime::Handle;
use uuid::Uuid;
use view::View;
pub use vxlan::underlay;

/// Settings of the driver.
#[derive(Clone, Debug)]
pub struct RealConfig {
    /// The host's id: all visible names start with `h` and its first six hex digits.
    pub host_id: Uuid,
    /// How external networks reach the host. Their ranges come with the networks' subnets.
    pub uplink: Uplink,
    /// Directory of the agent for records (what was changed on the host, what stands).
    pub state_dir: PathBuf,
    /// Resolvers for guests; `None`: the host's /etc/resolv.conf, read again at each question.
    pub dns_upstream: Option<Vec<SocketAddr>>,
    /// DHCP lease time in seconds.
    pub lease_time: u32,
    /// Domain of guests on networks without one.
    pub dns_domain: String,
    /// Where packets to other hosts come from; none: networks cannot span hosts.
    pub underlay: Option<IpAddr>,
    /// UDP port of the tunnels between hosts; the same on all.
    pub vxlan_port: u16,
    /// Lab: ports are veths whose far end `eth0` lies in a namespace `hXXXXXX-gINDEX`.
    pub lab_ports: bool,
    /// Lab: this namespace plays the user's host.
    pub lab_host_ns: Option<String>,
}

impl RealConfig {
    /// The ordinary settings.
    pub fn new(host_id: Uuid, uplink: Uplink, state_dir: impl Into<PathBuf>) -> Self {
        RealConfig {
            host_id,
            uplink,
            state_dir: state_dir.into(),
            dns_upstream: None,
            lease_time: 86_400,
            dns_domain: "openstacklocal".into(),
            underlay: None,
            vxlan_port: 4789,
            lab_ports: false,
            lab_host_ns: None,
        }
    }
}

/// See the module.
pub struct Real {
    core: Arc<Core>,
}

struct Core {
    config: RealConfig,
    names: Names,
    rt: Handle,
    host: Ns,
    /// Tells the host's namespace apart from others of the machine; empty for the machine's own.
    tag: String,
    upstream: dns::Upstream,
    shared: Arc<metadata::Shared>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    known: Known,
    switch: Option<Ns>,
    /// The rules as the kernel has them; `None` when that is not sure.
    rules: Option<Model>,
    services: HashMap<Uuid, service::Standing>,
    routers: HashMap<Uuid, router::Standing>,
    adverts: HashMap<Uuid, (Vec<view::Advert>, Tasks)>,
    uplink: uplink::Standing,
    tunnels: HashMap<Uuid, vxlan::Standing>,
    midstream: Tasks,
    /// When everything was compared last, not only what was told to have changed.
    swept: Option<haneul_core::clock::Micros>,
}

/// Unchanged routers and tunnels are compared with the kernel at least this often.
const SWEEP: haneul_core::clock::Micros = 60 * haneul_core::clock::SECOND;

fn write_file(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let tmp = path.with_extension("new");
    std::fs::write(&tmp, bytes).context(|| format!("writing {}", tmp.display()))?;
    haneul_core::fault_point!("netdev.real.record");
    std::fs::rename(&tmp, path).context(|| format!("writing {}", path.display()))
}

impl Real {
    /// Opens the driver; nothing is touched before the first `apply`, except that br_netfilter is
    /// loaded where it is a module. Call inside a runtime: responders run there.
    pub fn open(config: RealConfig) -> Result<Real, Failure> {
        let unsupported = |message: &str, detail: String| Failure {
            code: FailureCode::Unsupported,
            message: message.into(),
            detail,
        };
        std::fs::create_dir_all(&config.state_dir).context(|| "state directory".into())?;
        if !Path::new("/proc/sys/net/bridge").exists() {
            load_br_netfilter();
        }
        if !Path::new("/proc/sys/net/bridge/bridge-nf-call-iptables").exists() {
            return Err(unsupported(
                "this kernel cannot filter bridged traffic (br_netfilter is missing)",
                "modprobe br_netfilter".into(),
            ));
        }
        let rt = Handle::try_current().context(|| "the driver needs a runtime".into())?;
        let host = match &config.lab_host_ns {
            None => Ns::own().context(|| "opening the host's namespace".into())?,
            Some(n) => Ns::open(n)
                .context(|| n.clone())?
                .ok_or_else(|| unsupported("the lab's host namespace is missing", n.clone()))?,
        };
        let tag = match &config.lab_host_ns {
            Some(n) => n.clone(),
            None => host.beside_the_machines(),
        };
        let fixed = config.dns_upstream.clone();
        let upstream: dns::Upstream = Arc::new(move || match &fixed {
            Some(f) => f.clone(),
            None => dns::resolv_conf(&std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default()),
        });
        let state = State {
            known: Known::load(&config.state_dir),
            ..State::default()
        };
        Ok(Real {
            core: Arc::new(Core {
                names: Names::new(config.host_id),
                config,
                rt,
                host,
                tag,
                upstream,
                shared: Arc::default(),
                state: Mutex::new(state),
            }),
        })
    }

    /// Facts for `doctor`: name and finding. Only reads.
    pub fn facts(&self) -> Vec<(String, String)> {
        let drops = uplink::foreign_drops(&self.core.host);
        let mut out = self.capabilities();
        if !drops.is_empty() && self.core.config.uplink == Uplink::Nat {
            out.push((
                "foreign_forward_drop".into(),
                format!(
                    "{}: guests will not reach the internet; allow forwarding for {}u* there (Docker: chain DOCKER-USER)",
                    drops.join(", "),
                    self.core.names.prefix()
                ),
            ));
        }
        out
    }

    /// Lab: the namespace that plays the guest of the port with this index.
    pub fn lab_guest(&self, index: u32) -> String {
        self.core.names.guest(index)
    }

    /// Names of the switch namespace and of a router's, for people and tests that look around.
    pub fn namespaces(&self, router: u32) -> (String, String) {
        (self.core.names.switch(), self.core.names.router(router))
    }

    async fn blocking<T: Send + 'static>(
        &self,
        f: impl FnOnce(&Core) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let core = self.core.clone();
        match tokio::task::spawn_blocking(move || f(&core)).await {
            Ok(r) => r,
            Err(e) => Err(failure("the network driver stopped unexpectedly", e)),
        }
    }
}

/// Loading the module switches filtering of bridged traffic on for bridges of the host itself; those
/// are not ours, so it is switched off again there (our namespaces have switches of their own).
fn load_br_netfilter() {
    let loaded = std::process::Command::new("modprobe")
        .arg("br_netfilter")
        .output()
        .is_ok_and(|o| o.status.success());
    if loaded {
        for key in ["iptables", "ip6tables", "arptables"] {
            let path = format!("/proc/sys/net/bridge/bridge-nf-call-{key}");
            if let Err(e) = std::fs::write(&path, "0") {
                tracing::warn!(path, error = %e, "could not leave the host's own bridges alone");
            }
        }
    }
}

const SWITCH_SYSCTLS: &[(&str, &str)] = &[
    ("bridge/bridge-nf-call-iptables", "1"),
    ("bridge/bridge-nf-call-ip6tables", "1"),
    ("bridge/bridge-nf-call-arptables", "0"),
    ("ipv4/ip_forward", "0"),
];
const SWITCH_SYSCTLS_OPTIONAL: &[(&str, &str)] = &[
    ("ipv6/conf/all/disable_ipv6", "1"),
    ("ipv6/conf/default/disable_ipv6", "1"),
];
/// Written after the rules: where connection tracking is a module, the first rule loads it.
const TRACKING_SYSCTLS: &[(&str, &str)] = &[(conntrack::MIDSTREAM, "0")];

impl Core {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn uplink_host(&self) -> uplink::Host<'_> {
        uplink::Host {
            names: &self.names,
            ns: &self.host,
            tag: &self.tag,
            dir: &self.config.state_dir,
            uplink: &self.config.uplink,
        }
    }

    /// The switch namespace with its base rules; what depended on an old one is forgotten.
    fn switch(&self, st: &mut State) -> Result<Ns, Failure> {
        if let Some(ns) = st.switch.as_ref().filter(|n| n.is_current()) {
            return Ok(ns.clone());
        }
        if let Some(ghost) = st.switch.take() {
            // Its tunnels' sockets live in the host's namespace and would keep the new ones out.
            vxlan::delete_all(&ghost)?;
        }
        st.rules = None;
        st.services.clear();
        st.routers.clear();
        st.adverts.clear();
        st.tunnels.clear();
        let (ns, fresh) = Ns::ensure(&self.names.switch()).context(|| "making the switch namespace".into())?;
        haneul_core::fault_point!("netdev.real.switch");
        // Also on an old one: a crash may have come between.
        let _ = fresh;
        ns.sysctl(SWITCH_SYSCTLS, false).context(|| "switch sysctl".into())?;
        ns.sysctl(SWITCH_SYSCTLS_OPTIONAL, true)
            .context(|| "switch sysctl".into())?;
        st.switch = Some(ns.clone());
        Ok(ns)
    }

    fn apply(&self, desired: &NetDesired) -> Result<(), Failure> {
        let mut st = self.lock();
        let st = &mut *st;
        let mut errors = vec![];
        let before = st.known.clone();
        st.known.merge(desired, &mut errors);
        if st.known != before {
            st.known.save(&self.config.state_dir)?;
        }
        self.share(&st.known);
        let now = haneul_core::clock::now();
        let sweep = st.swept.is_none_or(|t| now - t > SWEEP);
        let sw = self.switch(st)?;
        // Rules and devices are independent: a tap that no rule knows passes nothing.
        let known = &st.known;
        let rules = &mut st.rules;
        let mut links = Links::new();
        let (ruled, devices) = std::thread::scope(|s| {
            let ruling = s.spawn(|| self.apply_rules(&sw, known, rules));
            let devices = self.devices(&sw, known, &mut links, &mut errors);
            let ruled = ruling
                .join()
                .unwrap_or_else(|_| Err(failure("applying rules panicked", "")));
            (ruled, devices)
        });
        devices?;
        let took_away = ruled?;
        haneul_core::fault_point!("netdev.real.cut");
        if took_away {
            conntrack::cut_disallowed(&sw, known).context(|| "cutting connections".into())?;
        }
        if known.ports.keys().any(|id| known.neighbours.contains_key(id)) {
            st.midstream = conntrack::let_in(&sw, &self.rt).context(|| "connection tracking".into())?;
        }
        let gone = gone_addresses(&before, known);
        if !gone.is_empty() {
            conntrack::cut_addresses(&sw, &gone).context(|| "cutting connections".into())?;
        }
        let around = service::Around {
            rt: &self.rt,
            shared: &self.shared,
            upstream: &self.upstream,
            lease: self.config.lease_time,
        };
        let mut by_net: HashMap<Uuid, Vec<&Port>> = HashMap::new();
        for p in known.ports.values() {
            by_net.entry(p.network_id).or_default().push(p);
        }
        let elsewhere = known.neighbours_of();
        let same = !sweep && before.neighbours == known.neighbours && before.networks == known.networks;
        for n in known.networks.values() {
            let ports = by_net.remove(&n.id).unwrap_or_default();
            let neighbours = elsewhere.get(&n.id).map(Vec::as_slice).unwrap_or_default();
            let tunnel = self.tunnel(&sw, &links, n, neighbours, same, &mut st.tunnels);
            errors.extend(tunnel.err());
            let view = View::of(n, &ports, neighbours, &self.config.dns_domain);
            let mut slot = st.services.remove(&n.id);
            if let Err(e) = service::ensure(&self.names, &sw, &links, view, &around, &mut slot) {
                errors.push(e);
            }
            if let Some(s) = slot {
                st.services.insert(n.id, s);
            }
        }
        for r in st.known.routers.values() {
            let mut slot = st.routers.remove(&r.id);
            // A changed network (MTU, state) counts as a change of its routers.
            let same = slot.as_ref().is_some_and(|s| {
                s.ns.is_current()
                    && s.applied.as_ref() == Some(r)
                    && r.interfaces
                        .iter()
                        .map(|i| i.network_id)
                        .chain(r.gateway.iter().map(|g| g.network_id))
                        .all(|id| before.networks.get(&id) == st.known.networks.get(&id))
            });
            if !same || sweep {
                let done = router::ensure(&self.names, &st.known, &sw, &links, r, &mut slot);
                errors.extend(done.err());
            }
            if let Some(s) = &slot
                && let Err(e) = self.advertise(&st.known, r, &s.ns, &mut st.adverts)
            {
                errors.push(e);
            }
            if let Some(s) = slot {
                st.routers.insert(r.id, s);
            }
        }
        let host = self.uplink_host();
        let up = uplink::ensure(&host, &st.known, &sw, &links, &mut st.uplink);
        errors.extend(up.err());
        haneul_core::fault_point!("netdev.real.applied");
        if errors.is_empty() {
            if sweep {
                st.swept = Some(now);
            }
            return Ok(());
        }
        st.swept = None;
        for e in &errors {
            tracing::warn!(message = e.message, detail = e.detail, "network");
        }
        Err(errors.swap_remove(0))
    }

    fn tunnel(
        &self,
        sw: &Ns,
        links: &Links,
        n: &Network,
        neighbours: &[&Neighbour],
        same: bool,
        tunnels: &mut HashMap<Uuid, vxlan::Standing>,
    ) -> Result<(), Failure> {
        let end = vxlan::End {
            local: self.config.underlay,
            port: self.config.vxlan_port,
        };
        let mut slot = tunnels.remove(&n.id);
        let done = vxlan::ensure((&self.host, end), sw, links, n, neighbours, same, &mut slot);
        if let Some(s) = slot {
            tunnels.insert(n.id, s);
        }
        done
    }

    fn share(&self, known: &Known) {
        let mut slot = self.shared.known.write().unwrap_or_else(PoisonError::into_inner);
        if **slot != *known {
            *slot = Arc::new(known.clone());
        }
    }

    /// Brings the switch's rules about; true when something was taken away.
    fn apply_rules(&self, sw: &Ns, known: &Known, have: &mut Option<Model>) -> Result<bool, Failure> {
        let want = rules::switch(known);
        let (script, away) = match have {
            Some(old) => (want.diff(old), want.takes_away(old)),
            None => (want.full(), true),
        };
        let partial = have.take().is_some();
        haneul_core::fault_point!("netdev.real.rules");
        if let Err(e) = model::run(sw, &script) {
            if !partial {
                return Err(failure("the host could not set up its filters", e));
            }
            tracing::warn!(error = %e, "rules did not apply; making them anew");
            model::run(sw, &want.full()).context(|| "rules".into())?;
        }
        if !partial {
            sw.sysctl(TRACKING_SYSCTLS, false)
                .context(|| "connection tracking".into())?;
        }
        *have = Some(want);
        Ok(away)
    }

    /// Bridges and port devices. `links` is what the switch has afterwards.
    fn devices(&self, sw: &Ns, known: &Known, links: &mut Links, errors: &mut Vec<Failure>) -> Result<(), Failure> {
        *links = sw.links().context(|| "listing links".into())?;
        for n in known.networks.values() {
            let name = names::bridge(n.index);
            match links.get(&name) {
                None => {
                    sw.bridge_add(&name, n.mtu, names::bridge_mac(n.index))
                        .context(|| format!("making {name}"))?;
                    haneul_core::fault_point!("netdev.real.bridge");
                    if !n.admin_state_up {
                        let index = sw.need_index(&name).context(|| name.clone())?;
                        let down = Set {
                            up: Some(false),
                            ..Set::default()
                        };
                        sw.link_set(index, down).context(|| name.clone())?;
                    }
                }
                Some(l) if l.mtu != n.mtu || l.up != n.admin_state_up => {
                    let set = Set {
                        mtu: Some(n.mtu),
                        up: Some(n.admin_state_up),
                        ..Set::default()
                    };
                    sw.link_set(l.index, set).context(|| name.clone())?;
                    continue;
                }
                Some(_) => continue,
            }
            if let Some(index) = sw.link_index(&name).context(|| name.clone())? {
                links.insert(
                    name,
                    link::Link {
                        index,
                        mtu: n.mtu,
                        mac: names::bridge_mac(n.index),
                        ..link::Link::default()
                    },
                );
            }
        }
        for p in known.ports.values() {
            if let Err(e) = self.port(sw, known, links, p) {
                errors.push(e);
            }
        }
        Ok(())
    }

    fn port(&self, sw: &Ns, known: &Known, links: &mut Links, p: &Port) -> Result<(), Failure> {
        let net = known
            .networks
            .get(&p.network_id)
            .ok_or_else(|| failure("a port's network is not known to the host", p.id))?;
        let master = links
            .get(&names::bridge(net.index))
            .map(|l| l.index)
            .ok_or_else(|| failure("a port's network is not there", p.id))?;
        let name = names::tap(p.index);
        let up = p.admin_state_up && net.admin_state_up;
        let set = Set {
            master: Some(master),
            mtu: Some(net.mtu),
            up: Some(up),
            mac: None,
        };
        if self.config.lab_ports {
            let guest = self.names.guest(p.index);
            if links.contains_key(&name) && Ns::open(&guest).ok().flatten().is_none() {
                sw.link_del(&name).context(|| name.clone())?;
                links.remove(&name);
            }
        }
        match links.get(&name) {
            Some(l) if l.master == master && l.mtu == net.mtu && l.up == up => return Ok(()),
            Some(_) => {}
            None if self.config.lab_ports => {
                let (guest, _) = Ns::ensure(&self.names.guest(p.index)).context(|| "making a lab guest".into())?;
                guest.link_del("eth0").context(|| "eth0".into())?;
                let lo = guest.need_index("lo").context(|| "lo".into())?;
                let lo_up = Set {
                    up: Some(true),
                    ..Set::default()
                };
                guest.link_set(lo, lo_up).context(|| "lo".into())?;
                sw.veth_add(&name, set, &guest, "eth0", parse_mac(&p.mac))
                    .context(|| format!("making {name}"))?;
            }
            None => tap::make(sw, &name).context(|| format!("making {name}"))?,
        }
        haneul_core::fault_point!("netdev.real.port");
        let index = sw.need_index(&name).context(|| name.clone())?;
        sw.link_set(index, set).context(|| name.clone())?;
        let link = link::Link {
            index,
            master,
            mtu: net.mtu,
            up,
            ..link::Link::default()
        };
        links.insert(name, link);
        Ok(())
    }

    /// Starts, changes or stops a router's advertisements.
    fn advertise(
        &self,
        known: &Known,
        r: &haneul_agent_api::Router,
        ns: &Ns,
        running: &mut HashMap<Uuid, (Vec<view::Advert>, Tasks)>,
    ) -> Result<(), Failure> {
        let want = view::adverts(r, |id| known.networks.get(&id), &self.config.dns_domain);
        if running.get(&r.id).map_or(want.is_empty(), |(have, _)| *have == want) {
            return Ok(());
        }
        running.remove(&r.id);
        let mut tasks = Tasks::default();
        for a in &want {
            let index = ns.need_index(&a.dev).context(|| a.dev.clone())?;
            let socket = ns
                .enter(|| ra::open(index, &a.dev))
                .and_then(|r| r)
                .context(|| "opening a router's advertiser".into())?;
            tasks.spawn(&self.rt, ra::run(socket, index, a.clone()));
        }
        running.insert(r.id, (want, tasks));
        Ok(())
    }

    fn remove(&self, kind: Kind, id: Uuid) -> Result<(), Failure> {
        let mut st = self.lock();
        let st = &mut *st;
        let before = st.known.clone();
        let sw = Ns::open(&self.names.switch()).context(|| "the switch".into())?;
        // The record goes last: until then a repetition after a crash still knows the names.
        match kind {
            Kind::Router => {
                let Some(r) = before.routers.get(&id) else {
                    return Ok(());
                };
                st.adverts.remove(&id);
                st.routers.remove(&id);
                router::remove(&self.names, sw.as_ref(), r)?;
            }
            Kind::Network => {
                let Some(n) = before.networks.get(&id) else {
                    return Ok(());
                };
                if let Some(p) = before.ports.values().find(|p| p.network_id == id) {
                    return Err(failure("a network with ports on this host cannot go", p.id));
                }
                st.services.remove(&id);
                service::remove(&self.names, sw.as_ref(), n)?;
                if n.external {
                    uplink::remove(&self.uplink_host(), n, &mut st.uplink)?;
                }
                st.tunnels.remove(&id);
                if let Some(sw) = &sw {
                    for name in [names::vxlan(n.index), names::bridge(n.index)] {
                        sw.link_del(&name).context(|| name.clone())?;
                    }
                }
            }
            Kind::Neighbour => {
                let Some(gone) = before.neighbours.get(&id) else {
                    return Ok(());
                };
                if let (Some(sw), Some(n)) = (&sw, before.networks.get(&gone.network_id)) {
                    let mut left = before.neighbours_of().remove(&n.id).unwrap_or_default();
                    left.retain(|x| x.id != id);
                    let links = sw.links().context(|| "listing links".into())?;
                    self.tunnel(sw, &links, n, &left, false, &mut st.tunnels)?;
                }
            }
            Kind::Port => {
                let Some(p) = before.ports.get(&id) else { return Ok(()) };
                if let Some(sw) = &sw {
                    let name = names::tap(p.index);
                    sw.link_del(&name).context(|| name.clone())?;
                }
                if self.config.lab_ports {
                    ns::delete(&self.names.guest(p.index)).context(|| "a lab guest".into())?;
                }
            }
            Kind::SecurityGroup => {
                if !before.groups.contains_key(&id) {
                    return Ok(());
                }
            }
            Kind::Guest | Kind::Lease | Kind::Fence => return Ok(()),
        }
        haneul_core::fault_point!("netdev.real.remove");
        st.known.remove(kind, id);
        if let Some(sw) = sw.filter(|_| st.switch.as_ref().is_some_and(Ns::is_current)) {
            let away = self.apply_rules(&sw, &st.known, &mut st.rules)?;
            if away && kind == Kind::SecurityGroup {
                conntrack::cut_disallowed(&sw, &st.known).context(|| "cutting".into())?;
            }
            let gone = gone_addresses(&before, &st.known);
            if !gone.is_empty() {
                conntrack::cut_addresses(&sw, &gone).context(|| "cutting".into())?;
            }
        }
        self.share(&st.known);
        st.known.save(&self.config.state_dir)
    }

    fn purge(&self) -> Result<(), Failure> {
        let mut st = self.lock();
        let st = &mut *st;
        st.adverts.clear();
        st.services.clear();
        st.routers.clear();
        let sw = Ns::open(&self.names.switch()).context(|| "the switch".into())?;
        uplink::purge(&self.uplink_host(), sw.as_ref(), &mut st.uplink)?;
        if let Some(sw) = &sw {
            vxlan::delete_all(sw)?;
        }
        st.tunnels.clear();
        // Also what no record knows: the prefix is this host's alone.
        let prefix = self.names.prefix();
        for (dev, _) in self.host.links().context(|| "listing links".into())? {
            if dev.starts_with(&format!("{prefix}u")) {
                self.host.link_del(&dev).context(|| dev.clone())?;
            }
        }
        st.switch = None;
        st.rules = None;
        for name in ns::list(&format!("{prefix}-")) {
            ns::delete(&name).context(|| name.clone())?;
        }
        haneul_core::fault_point!("netdev.real.purge");
        st.known = Known::default();
        st.swept = None;
        self.share(&st.known);
        let _ = std::fs::remove_file(self.config.state_dir.join("netdev.json"));
        Ok(())
    }
}

/// Zone and address of what ports had and have no more.
fn gone_addresses(before: &Known, now: &Known) -> Vec<(u16, IpAddr)> {
    let zones = rules::Numbers::of(before).zones;
    let mut out = vec![];
    for (id, old) in &before.ports {
        let new = now.ports.get(id);
        if new == Some(old) {
            continue;
        }
        let Some(zone) = zones.get(&old.network_id) else {
            continue;
        };
        for f in &old.fixed_ips {
            let kept = new.is_some_and(|n| n.network_id == old.network_id && n.fixed_ips.iter().any(|x| x.ip == f.ip));
            if !kept {
                out.push((*zone, f.ip));
            }
        }
    }
    out
}

impl NetDriver for Real {
    fn capabilities(&self) -> Vec<(String, String)> {
        let uplink = match &self.core.config.uplink {
            Uplink::Nat => "nat".to_string(),
            Uplink::Isolated => "isolated".into(),
            Uplink::Bridge(dev) => format!("bridge:{dev}"),
        };
        [
            ("driver", "kernel".to_string()),
            ("uplink", uplink),
            ("namespaces", format!("{}-*", self.core.names.prefix())),
            ("security_groups", "br_netfilter, nftables".into()),
            ("ipv6", "yes".into()),
            (
                "underlay",
                self.core
                    .config
                    .underlay
                    .map_or_else(|| "none".into(), |ip| ip.to_string()),
            ),
        ]
        .into_iter()
        .map(|(k, v)| (k.into(), v))
        .collect()
    }

    fn apply<'a>(&'a self, desired: &'a NetDesired) -> BoxFuture<'a, Result<(), Failure>> {
        let desired = desired.clone();
        Box::pin(self.blocking(move |c| c.apply(&desired)))
    }

    fn remove(&self, kind: Kind, id: Uuid) -> BoxFuture<'_, Result<(), Failure>> {
        Box::pin(self.blocking(move |c| c.remove(kind, id)))
    }

    fn open_tap(&self, port: Uuid) -> Result<OwnedFd, Failure> {
        let st = self.core.lock();
        let p = st
            .known
            .ports
            .get(&port)
            .ok_or_else(|| failure("the port is not on this host", port))?;
        let name = names::tap(p.index);
        let sw = Ns::open(&self.core.names.switch())
            .context(|| "the switch".into())?
            .ok_or_else(|| failure("the host's network is not up", &name))?;
        // Attaching would make the tap when it is missing, outside of any bridge.
        sw.need_index(&name).context(|| name.clone())?;
        let fd = tap::open(&sw, &name);
        // A tap has one queue: while an old QEMU lives, a second one is refused.
        fd.context(|| format!("opening {name}"))
    }

    fn observe(&self) -> BoxFuture<'_, Result<NetObserved, Failure>> {
        Box::pin(self.blocking(Core::observe))
    }

    fn set_metadata(&self, source: Arc<dyn MetadataSource>) {
        *self.core.shared.source.lock().unwrap_or_else(PoisonError::into_inner) = Some(source);
    }

    fn purge(&self) -> BoxFuture<'_, Result<(), Failure>> {
        Box::pin(async move {
            self.blocking(Core::purge).await?;
            // The kernel takes namespaces down behind our back; the veths' far ends go with them.
            tokio::time::sleep(Duration::from_millis(1)).await;
            Ok(())
        })
    }
}
