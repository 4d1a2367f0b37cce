//! What this host was told to hold and has not been told to drop.
//!
//! Absence is never delete: the set given to `apply` is merged into this one, and only `remove` takes
//! out. It is on disk because, after a restart, a port that the desired set has lost still needs its
//! rules (without them its tap would be shut). No fsync: a process crash loses nothing that was
//! written, and a crash of the machine takes the kernel state along that this file describes.

use super::err::{Context, failure};
use crate::{Troubles, trouble};
use haneul_agent_api::{Failure, Kind, Neighbour, NetDesired, Network, Port, Router, SecurityGroup};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// The merged desired set, by id.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Known {
    /// Networks.
    pub networks: BTreeMap<Uuid, Network>,
    /// Guest ports.
    pub ports: BTreeMap<Uuid, Port>,
    /// Security groups.
    pub groups: BTreeMap<Uuid, SecurityGroup>,
    /// Routers.
    pub routers: BTreeMap<Uuid, Router>,
    /// Ports on other hosts.
    #[serde(default)]
    pub neighbours: BTreeMap<Uuid, Neighbour>,
    /// Networks and addresses that ports had and have no more, until their connections are cut.
    #[serde(default)]
    pub uncut: BTreeSet<(Uuid, IpAddr)>,
}

fn file(dir: &Path) -> PathBuf {
    dir.join("netdev.json")
}

impl Known {
    /// Reads it; what cannot be read counts as empty, and `apply` fills it again.
    pub fn load(dir: &Path) -> Known {
        match std::fs::read(file(dir)) {
            Ok(b) => serde_json::from_slice(&b).unwrap_or_else(|e| {
                tracing::warn!(error = %e, "the record of the data plane is damaged; starting from the desired set");
                Known::default()
            }),
            Err(_) => Known::default(),
        }
    }

    /// Writes it: to a file beside, then renamed over.
    pub fn save(&self, dir: &Path) -> Result<(), Failure> {
        let bytes = serde_json::to_vec(self).context(|| "the record could not be written".into())?;
        super::write_file(&file(dir), &bytes)
    }

    /// Takes in `desired`. An object whose index already belongs to another one is refused, and the
    /// others are taken.
    pub fn merge(&mut self, desired: &NetDesired, refused: &mut Troubles) {
        for g in &desired.security_groups {
            self.groups.insert(g.id, g.clone());
        }
        for n in &desired.networks {
            let taken = self.networks.values().find(|x| x.index == n.index && x.id != n.id);
            match taken.map(|x| x.id) {
                Some(other) => trouble(refused, Kind::Network, n.id, clash("network", n.id, other, n.index)),
                None => {
                    self.networks.insert(n.id, n.clone());
                }
            }
        }
        let mut by_index: std::collections::HashMap<u32, Uuid> = self.ports.values().map(|p| (p.index, p.id)).collect();
        for p in &desired.ports {
            match by_index.get(&p.index) {
                Some(other) if *other != p.id => {
                    trouble(refused, Kind::Port, p.id, clash("port", p.id, *other, p.index));
                }
                _ => {
                    by_index.insert(p.index, p.id);
                    let old = self.ports.insert(p.id, p.clone());
                    self.gone(old, Some(p));
                }
            }
        }
        for n in &desired.neighbours {
            self.neighbours.insert(n.id, n.clone());
        }
        for r in &desired.routers {
            let taken = self.routers.values().find(|x| x.index == r.index && x.id != r.id);
            match taken.map(|x| x.id) {
                Some(other) => trouble(refused, Kind::Router, r.id, clash("router", r.id, other, r.index)),
                None => {
                    self.routers.insert(r.id, r.clone());
                }
            }
        }
    }

    /// Notes the addresses that a port had and has no more.
    fn gone(&mut self, old: Option<Port>, new: Option<&Port>) {
        if let Some(old) = old.filter(|old| Some(old) != new) {
            let kept =
                |ip| new.is_some_and(|n| n.network_id == old.network_id && n.fixed_ips.iter().any(|f| f.ip == ip));
            let gone = old.fixed_ips.iter().map(|f| f.ip).filter(|ip| !kept(*ip));
            self.uncut.extend(gone.map(|ip| (old.network_id, ip)));
        }
    }

    /// Ports on other hosts, by network.
    pub fn neighbours_of(&self) -> BTreeMap<Uuid, Vec<&Neighbour>> {
        let mut out: BTreeMap<Uuid, Vec<&Neighbour>> = BTreeMap::new();
        for n in self.neighbours.values() {
            out.entry(n.network_id).or_default().push(n);
        }
        out
    }

    /// Takes one object out.
    pub fn remove(&mut self, kind: Kind, id: Uuid) -> bool {
        match kind {
            Kind::Network => self.networks.remove(&id).is_some(),
            Kind::SecurityGroup => self.groups.remove(&id).is_some(),
            Kind::Router => self.routers.remove(&id).is_some(),
            Kind::Port => {
                let old = self.ports.remove(&id);
                let known = old.is_some();
                self.gone(old, None);
                known
            }
            Kind::Neighbour => self.neighbours.remove(&id).is_some(),
            Kind::Guest | Kind::Lease | Kind::Fence => false,
        }
    }
}

fn clash(what: &str, id: Uuid, other: Uuid, index: u32) -> Failure {
    failure(
        format!("the {what}'s short number is in use on this host"),
        format!("{what} {id} and {other} both have index {index}"),
    )
}
