//! What stands on the host: what is known, and what nobody knows of.

use super::err::Context;
use super::link::Links;
use super::{Core, names, ns};
use crate::NetObserved;
use haneul_agent_api::{Failure, Uplink};

impl Core {
    pub(super) fn observe(&self) -> Result<NetObserved, Failure> {
        let st = self.lock();
        let mut seen = NetObserved::default();
        let sw = ns::Ns::open(&self.names.switch()).context(|| "the switch".into())?;
        let mut links = match &sw {
            Some(ns) => ns.links().context(|| "listing links".into())?,
            None => Links::new(),
        };
        links.remove("lo");
        let mut take = |name: &str| links.remove(name).is_some();
        let mut spaces = ns::list(&format!("{}-", self.names.prefix()));
        spaces.retain(|s| *s != self.names.switch());
        let mut host_devs: Vec<String> = self
            .host
            .links()
            .context(|| "listing the host's links".into())?
            .into_keys()
            .filter(|d| d.starts_with(&format!("{}u", self.names.prefix())))
            .collect();
        for n in st.known.networks.values() {
            if take(&names::bridge(n.index)) {
                seen.networks.push(n.id);
            }
            let spans = st.known.neighbours.values().any(|x| x.network_id == n.id);
            if take(&names::vxlan(n.index)) && !spans {
                seen.strays.push(names::vxlan(n.index));
            }
            for i in 0..n.subnets.len().max(1) {
                take(&names::service_peer(n.index, i));
            }
            if n.external {
                take(&names::uplink_peer(n.index));
                if let Uplink::Bridge(dev) = &self.config.uplink {
                    take(dev);
                }
                host_devs.retain(|d| *d != self.names.uplink(n.index));
            }
            spaces.retain(|s| *s != self.names.service(n.index));
        }
        for p in st.known.ports.values() {
            if take(&names::tap(p.index)) {
                seen.ports.push(p.id);
            }
            spaces.retain(|s| *s != self.names.guest(p.index));
        }
        for r in st.known.routers.values() {
            let name = self.names.router(r.index);
            if spaces.contains(&name) {
                seen.routers.push(r.id);
            }
            spaces.retain(|s| *s != name);
            let inner = r.interfaces.iter().map(|i| i.index);
            for i in inner.chain(r.gateway.iter().map(|g| g.index)) {
                take(&names::router_peer(i));
            }
        }
        // The kernel's own fall-back devices that some kernels put into every namespace.
        links.retain(|name, _| name.starts_with('h'));
        seen.strays.extend(links.into_keys().chain(spaces).chain(host_devs));
        seen.strays.sort();
        Ok(seen)
    }
}
