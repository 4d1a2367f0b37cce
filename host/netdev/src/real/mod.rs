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
mod round;
mod router;
mod rules;
mod serve;
mod service;
mod tap;
mod uplink;
mod view;
mod vxlan;

use crate::{BoxFuture, MetadataSource, NetDriver, NetObserved, Troubles};
use err::{Context, failure};
use haneul_agent_api::{Failure, FailureCode, Kind, NetDesired, Uplink, Whereabouts};
use haneul_core::clock::{Micros, SECOND};
use known::Known;
use model::Model;
use names::Names;
use ns::Ns;
use serve::{Tasks, dns, metadata};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::runtime::Handle;
use uuid::Uuid;
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
    /// Where packets to other hosts come from; until that is known, networks cannot span hosts.
    pub underlay: Whereabouts,
    /// UDP port of the tunnels between hosts; the same on all.
    pub vxlan_port: u16,
    /// The first round after so long compares unchanged routers and tunnels with the kernel, too.
    pub sweep: Micros,
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
            underlay: Whereabouts::default(),
            vxlan_port: 4789,
            sweep: 60 * SECOND,
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
    /// The rules as the kernel has them, with what they do not allow cut; `None` when that is not sure.
    rules: Option<Model>,
    services: HashMap<Uuid, service::Standing>,
    routers: HashMap<Uuid, router::Standing>,
    adverts: HashMap<Uuid, (Vec<view::Advert>, Tasks)>,
    uplink: uplink::Standing,
    tunnels: HashMap<Uuid, vxlan::Standing>,
    midstream: Tasks,
    /// When everything was compared last, not only what was told to have changed; `None` when the last round or removal
    /// did not end well.
    swept: Option<Micros>,
}

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
                    .get()
                    .map_or_else(|| "none".into(), |u| u.address.to_string()),
            ),
        ]
        .into_iter()
        .map(|(k, v)| (k.into(), v))
        .collect()
    }

    fn apply<'a>(&'a self, desired: &'a NetDesired) -> BoxFuture<'a, Result<Troubles, Failure>> {
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
