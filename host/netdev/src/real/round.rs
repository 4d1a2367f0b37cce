//! One round: the host is brought to everything that is known; and the removal of one object.
//!
//! What fails for one object is that object's failure, and the rest is there. A round, or a removal, that was cut short
//! leaves word of it (`swept`, `rules`, `Known::uncut`), so that the next one looks at everything again: what the first
//! one took in does not look like a change any more.

use super::err::{Context, failure};
use super::known::Known;
use super::link::{Links, Set, parse_mac};
use super::model::Model;
use super::ns::Ns;
use super::serve::{Tasks, ra};
use super::view::{self, View};
use super::vxlan::{self, Look};
use super::{Core, State, TRACKING_SYSCTLS, conntrack, link, model, names, ns, router, rules, service, tap, uplink};
use crate::{Troubles, trouble};
use haneul_agent_api::{Failure, Kind, Neighbour, NetDesired, Network, Port};
use std::collections::HashMap;
use std::sync::{Arc, PoisonError};
use uuid::Uuid;

impl Core {
    pub(super) fn apply(&self, desired: &NetDesired) -> Result<Troubles, Failure> {
        let mut st = self.lock();
        let st = &mut *st;
        let mut troubles = Troubles::new();
        // Put back when the round is through.
        let swept = st.swept.take();
        let now = haneul_core::clock::now();
        let sweep = swept.is_none_or(|t| now - t > self.config.sweep);
        let before = st.known.clone();
        st.known.merge(desired, &mut troubles);
        if swept.is_none() || st.known != before {
            st.known.save(&self.config.state_dir)?;
        }
        self.share(&st.known);
        let sw = self.switch(st)?;
        // Rules and devices are independent: a tap that no rule knows passes nothing.
        let known = &st.known;
        let rules = &mut st.rules;
        let mut links = Links::new();
        let (ruled, devices) = std::thread::scope(|s| {
            let ruling = s.spawn(|| self.rule(&sw, known, rules));
            let devices = self.devices(&sw, known, &mut links, &mut troubles);
            let ruled = ruling
                .join()
                .unwrap_or_else(|_| Err(failure("applying rules panicked", "")));
            (ruled, devices)
        });
        ruled?;
        devices?;
        if !std::mem::take(&mut st.known.uncut).is_empty() {
            st.known.save(&self.config.state_dir)?;
        }
        let known = &st.known;
        if known.ports.keys().any(|id| known.neighbours.contains_key(id)) {
            st.midstream = conntrack::let_in(&sw, &self.rt).context(|| "connection tracking".into())?;
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
        let tables = match sweep && !st.tunnels.is_empty() {
            true => vxlan::tables(&sw).context(|| "reading what tunnels know".into())?,
            false => HashMap::new(),
        };
        let look = if sweep {
            Look::Kernel(&tables)
        } else if before.neighbours != known.neighbours || before.networks != known.networks {
            Look::Changes
        } else {
            Look::Nothing
        };
        for n in known.networks.values() {
            let ports = by_net.remove(&n.id).unwrap_or_default();
            let neighbours = elsewhere.get(&n.id).map(Vec::as_slice).unwrap_or_default();
            if let Err(e) = self.tunnel(&sw, &links, n, neighbours, look, &mut st.tunnels) {
                trouble(&mut troubles, Kind::Network, n.id, e);
            }
            let view = View::of(n, &ports, neighbours, &self.config.dns_domain);
            let mut slot = st.services.remove(&n.id);
            if let Err(e) = service::ensure(&self.names, &sw, &links, view, &around, &mut slot) {
                trouble(&mut troubles, Kind::Network, n.id, e);
            }
            if let Some(s) = slot {
                st.services.insert(n.id, s);
            }
        }
        for r in known.routers.values() {
            let mut slot = st.routers.remove(&r.id);
            // A changed network (MTU, state) counts as a change of its routers.
            let same = slot.as_ref().is_some_and(|s| {
                s.ns.is_current()
                    && s.applied.as_ref() == Some(r)
                    && r.interfaces
                        .iter()
                        .map(|i| i.network_id)
                        .chain(r.gateway.iter().map(|g| g.network_id))
                        .all(|id| before.networks.get(&id) == known.networks.get(&id))
            });
            if (!same || sweep)
                && let Err(e) = router::ensure(&self.names, known, &sw, &links, r, &mut slot)
            {
                if let Some(s) = &mut slot {
                    s.applied = None;
                }
                trouble(&mut troubles, Kind::Router, r.id, e);
            }
            if let Some(s) = &slot
                && let Err(e) = self.advertise(known, r, &s.ns, &mut st.adverts)
            {
                trouble(&mut troubles, Kind::Router, r.id, e);
            }
            if let Some(s) = slot {
                st.routers.insert(r.id, s);
            }
        }
        let host = self.uplink_host();
        uplink::ensure(&host, known, &sw, &links, &mut st.uplink, &mut troubles);
        haneul_core::fault_point!("netdev.real.applied");
        st.swept = if sweep { Some(now) } else { swept };
        Ok(troubles)
    }

    fn tunnel(
        &self,
        sw: &Ns,
        links: &Links,
        n: &Network,
        neighbours: &[&Neighbour],
        look: Look<'_>,
        tunnels: &mut HashMap<Uuid, vxlan::Standing>,
    ) -> Result<(), Failure> {
        let end = vxlan::End {
            local: self.config.underlay.get().map(|u| u.address),
            port: self.config.vxlan_port,
        };
        let mut slot = tunnels.remove(&n.id);
        let done = vxlan::ensure((&self.host, end), sw, links, n, neighbours, look, &mut slot);
        if let Some(s) = slot {
            tunnels.insert(n.id, s);
        }
        done
    }

    pub(super) fn share(&self, known: &Known) {
        let mut slot = self.shared.known.write().unwrap_or_else(PoisonError::into_inner);
        if **slot != *known {
            *slot = Arc::new(known.clone());
        }
    }

    /// Brings the switch's rules about and cuts connections that they do not allow any more, or whose addresses are
    /// nobody's. When that fails, both are done anew: what is taken away already does not look taken away.
    fn rule(&self, sw: &Ns, known: &Known, have: &mut Option<Model>) -> Result<(), Failure> {
        let want = rules::switch(known);
        let old = have.take();
        let (script, away) = match &old {
            Some(old) => (want.diff(old), want.takes_away(old)),
            None => (want.full(), true),
        };
        haneul_core::fault_point!("netdev.real.rules");
        if let Err(e) = model::run(sw, &script) {
            if old.is_none() {
                return Err(failure("the host could not set up its filters", e));
            }
            tracing::warn!(error = %e, "rules did not apply; making them anew");
            model::run(sw, &want.full()).context(|| "rules".into())?;
        }
        if old.is_none() {
            sw.sysctl(TRACKING_SYSCTLS, false)
                .context(|| "connection tracking".into())?;
        }
        haneul_core::fault_point!("netdev.real.cut", failure("a fault of the lab", "netdev.real.cut"));
        if away || !known.uncut.is_empty() {
            conntrack::cut_disallowed(sw, known).context(|| "cutting connections".into())?;
        }
        *have = Some(want);
        Ok(())
    }

    /// Bridges and port devices. `links` is what the switch has afterwards.
    fn devices(&self, sw: &Ns, known: &Known, links: &mut Links, troubles: &mut Troubles) -> Result<(), Failure> {
        *links = sw.links().context(|| "listing links".into())?;
        for n in known.networks.values() {
            if let Err(e) = bridge(sw, links, n) {
                trouble(troubles, Kind::Network, n.id, e);
            }
        }
        for p in known.ports.values() {
            if let Err(e) = self.port(sw, known, links, p) {
                trouble(troubles, Kind::Port, p.id, e);
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

    pub(super) fn remove(&self, kind: Kind, id: Uuid) -> Result<(), Failure> {
        let mut st = self.lock();
        let swept = st.swept.take();
        self.take_away(&mut st, kind, id)?;
        st.swept = swept;
        Ok(())
    }

    /// The record goes last, on disk and in memory: until then a repetition still knows what there is to take away.
    fn take_away(&self, st: &mut State, kind: Kind, id: Uuid) -> Result<(), Failure> {
        let before = &st.known;
        let sw = Ns::open(&self.names.switch()).context(|| "the switch".into())?;
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
                    self.tunnel(sw, &links, n, &left, Look::Changes, &mut st.tunnels)?;
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
        let mut left = before.clone();
        left.remove(kind, id);
        if let Some(sw) = sw.filter(|_| st.switch.as_ref().is_some_and(Ns::is_current)) {
            self.rule(&sw, &left, &mut st.rules)?;
            left.uncut.clear();
        }
        left.save(&self.config.state_dir)?;
        self.share(&left);
        st.known = left;
        Ok(())
    }
}

fn bridge(sw: &Ns, links: &mut Links, n: &Network) -> Result<(), Failure> {
    let name = names::bridge(n.index);
    match links.get(&name) {
        None => {
            sw.bridge_add(&name, n.mtu, names::bridge_mac(n.index))
                .context(|| format!("making {name}"))?;
            haneul_core::fault_point!("netdev.real.bridge");
            let index = sw.need_index(&name).context(|| name.clone())?;
            if !n.admin_state_up {
                let down = Set {
                    up: Some(false),
                    ..Set::default()
                };
                sw.link_set(index, down).context(|| name.clone())?;
            }
            let link = link::Link {
                index,
                mtu: n.mtu,
                mac: names::bridge_mac(n.index),
                ..link::Link::default()
            };
            links.insert(name, link);
        }
        Some(l) if l.mtu != n.mtu || l.up != n.admin_state_up => {
            let set = Set {
                mtu: Some(n.mtu),
                up: Some(n.admin_state_up),
                ..Set::default()
            };
            sw.link_set(l.index, set).context(|| name.clone())?;
        }
        Some(_) => {}
    }
    Ok(())
}
