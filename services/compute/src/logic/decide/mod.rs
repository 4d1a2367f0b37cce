//! Which host: a pure function of a snapshot and a request (architecture 5).
//!
//! [`filters`] say whether a host may be used at all, each host is refused by the first that does; then the amounts,
//! and there one host may be refused for several. Of the hosts that are left, [`weighers`] choose. A refusal carries,
//! per filter, how many hosts it refused, what was needed and the largest that is free anywhere, and the smallest
//! change of the request that would fit; a choice carries its weights.

mod filters;
mod refusal;
mod specs;
mod weighers;

pub use refusal::{Change, FilterCount, Refusal};
pub use weighers::{Choice, WEIGHERS, Weights};

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

/// Resource classes, in this order everywhere.
pub const CLASSES: [&str; 3] = ["VCPU", "MEMORY_MB", "DISK_GB"];

/// One resource class of a host, as placement has it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Stock {
    pub total: i64,
    pub reserved: i64,
    pub ratio: f64,
    pub used: i64,
    pub max_unit: i64,
}

impl Stock {
    /// What may be given out in all.
    pub fn capacity(&self) -> i64 {
        ((self.total - self.reserved) as f64 * self.ratio).floor() as i64
    }

    /// What one more consumer can get.
    pub fn free(&self) -> i64 {
        (self.capacity() - self.used).min(self.max_unit).max(0)
    }
}

/// A host in the snapshot.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HostState {
    pub id: String,
    pub name: String,
    pub up: bool,
    pub enabled: bool,
    pub zone: String,
    pub stock: [Stock; 3],
    /// Servers on it to which something is being done.
    pub busy: i64,
    /// Creates that failed on it, one after the other.
    pub failed_builds: i64,
    pub facts: Arc<Facts>,
}

impl HostState {
    /// As it is with `n` servers of this size more.
    pub fn takes(&mut self, amounts: &[i64; 3], n: i64) {
        for (s, a) in self.stock.iter_mut().zip(amounts) {
            s.used += a * n;
        }
    }
}

/// What of a host changes seldom.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facts {
    /// Why an operator has switched it off.
    pub disabled_reason: String,
    /// `x86_64`.
    pub arch: String,
    /// `QEMU`, `kvm`, 10000002.
    pub hypervisor: String,
    pub accelerator: String,
    pub version: u64,
    pub cpu_features: Vec<String>,
    /// Where other hosts reach it.
    pub address: Option<IpAddr>,
    /// Of its provider in placement.
    pub traits: BTreeSet<String>,
    /// Metadata of each aggregate that it is in.
    pub aggregates: Vec<BTreeMap<String, String>>,
    /// Its own weights, where an aggregate has them.
    pub weights: Option<Weights>,
}

/// What there is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    pub hosts: Vec<HostState>,
    pub weights: Weights,
}

/// A server group's wish, with the members that each host holds.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupWish {
    pub policy: String,
    pub max_per_host: i64,
    pub members: BTreeMap<String, i64>,
}

impl GroupWish {
    /// Whether a host that has `here` of the members, and others `elsewhere`, may take one more.
    pub fn allows(&self, here: i64, all: i64) -> bool {
        match self.policy.as_str() {
            "anti-affinity" => here < self.max_per_host.max(1),
            "affinity" => all == 0 || here > 0,
            _ => true,
        }
    }
}

/// What is asked for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Request {
    /// By [`CLASSES`].
    pub amounts: [i64; 3],
    pub count: usize,
    pub zone: Option<String>,
    /// Administrators may name the host, by name or id.
    pub host: Option<String>,
    pub group: Option<GroupWish>,
    /// Hosts to keep away from, or to stay on (scheduler hints).
    pub avoid: Vec<String>,
    pub only: Option<Vec<String>>,
    /// Hosts that cannot run this very server, and why.
    pub unfit: BTreeMap<String, String>,
    pub project: String,
    /// Extra specs of the flavor.
    pub extra_specs: BTreeMap<String, String>,
    /// Properties of the image.
    pub image: BTreeMap<String, String>,
    /// Hosts near this address, and the length of the prefix that is near.
    pub near: Option<(IpAddr, u8)>,
}

/// A host for each server, in order, and why this one.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    pub hosts: Vec<String>,
    pub why: Vec<Choice>,
}

/// A host with what this very request has put on it already.
#[derive(Clone, Copy)]
pub(crate) struct Seat<'a> {
    pub host: &'a HostState,
    /// Servers of this request on it, and on all hosts.
    pub taken: i64,
    pub placed: i64,
}

impl Seat<'_> {
    /// One of [`CLASSES`], as it is by now.
    pub fn stock(&self, class: usize, r: &Request) -> Stock {
        let mut s = self.host.stock.get(class).copied().unwrap_or_default();
        s.used += r.amounts.get(class).map_or(0, |a| a * self.taken);
        s
    }

    /// Members of the request's group here, and everywhere.
    pub fn members(&self, g: &GroupWish) -> (i64, i64) {
        let here = g.members.get(&self.host.id).copied().unwrap_or(0);
        (here + self.taken, g.members.values().sum::<i64>() + self.placed)
    }

    fn fits(&self, r: &Request) -> bool {
        (0..CLASSES.len()).all(|i| r.amounts[i] <= self.stock(i, r).free())
    }
}

/// The hosts with what has been placed on them.
struct Board<'a> {
    snapshot: &'a Snapshot,
    request: &'a Request,
    /// By host: why it is out whatever is placed.
    out: Vec<bool>,
    taken: Vec<i64>,
    placed: i64,
}

impl<'a> Board<'a> {
    fn new(snapshot: &'a Snapshot, request: &'a Request) -> Self {
        let mut board = Board {
            snapshot,
            request,
            out: vec![],
            taken: vec![0; snapshot.hosts.len()],
            placed: 0,
        };
        board.out = board
            .seats()
            .map(|s| filters::refuses(&s, request, false).is_some())
            .collect();
        board
    }

    fn seats(&self) -> impl Iterator<Item = Seat<'a>> {
        self.snapshot.hosts.iter().zip(self.taken.clone()).map({
            let placed = self.placed;
            move |(host, taken)| Seat { host, taken, placed }
        })
    }

    /// Places one more server; false when no host is left for it.
    fn place(&mut self) -> Option<Choice> {
        let r = self.request;
        let open: Vec<(usize, Seat<'a>)> = self
            .seats()
            .enumerate()
            .filter(|(i, s)| {
                !self.out.get(*i).copied().unwrap_or(true) && filters::refuses(s, r, true).is_none() && s.fits(r)
            })
            .collect();
        let choice = weighers::choose(&self.snapshot.weights, &open, r)?;
        *self.taken.get_mut(choice.number)? += 1;
        self.placed += 1;
        Some(choice)
    }
}

/// Decides.
pub fn decide(snapshot: &Snapshot, r: &Request) -> Result<Plan, Box<Refusal>> {
    let mut board = Board::new(snapshot, r);
    let mut plan = Plan {
        hosts: Vec::with_capacity(r.count),
        why: Vec::with_capacity(r.count),
    };
    while plan.hosts.len() < r.count {
        let Some(choice) = board.place() else {
            return Err(Box::new(refusal::refuse(&board)));
        };
        plan.hosts.push(choice.host.clone());
        plan.why.push(choice);
    }
    Ok(plan)
}
