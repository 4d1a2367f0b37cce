//! Which host: a pure function of a snapshot and a request (architecture 5).
//!
//! Filters that say whether a host may be used at all come first, each host is refused by the first that
//! does; then the amounts, and there one host may be refused for several. A refusal carries, per filter, how
//! many hosts it refused, what was needed and the largest that is free anywhere, and the smallest change of
//! the request that would fit.

use std::collections::BTreeMap;

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
    /// What one more consumer can get.
    pub fn free(&self) -> i64 {
        let capacity = ((self.total - self.reserved) as f64 * self.ratio).floor() as i64;
        (capacity - self.used).min(self.max_unit).max(0)
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
}

/// What there is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    pub hosts: Vec<HostState>,
}

/// A server group's wish, with the members that each host holds.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupWish {
    pub policy: String,
    pub max_per_host: i64,
    pub members: BTreeMap<String, i64>,
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
}

/// A host for each server, in order.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    pub hosts: Vec<String>,
}

/// What one filter refused.
#[derive(Clone, Debug, PartialEq)]
pub struct FilterCount {
    pub filter: &'static str,
    pub refused: usize,
    /// Numbers, for the filters that have any.
    pub needed: Option<i64>,
    pub largest: Option<i64>,
    /// What it means, for people.
    pub meaning: &'static str,
}

/// The smallest change that would fit.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// Fewer servers at once.
    Fewer(usize),
    /// One server, of at most these amounts.
    Smaller([i64; 3]),
    /// Nothing about amounts helps: leave this part of the request out.
    Without(&'static str),
    /// No change of the request helps.
    MoreHosts,
}

/// Why nothing fits.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    pub hosts: usize,
    pub filters: Vec<FilterCount>,
    pub change: Change,
    /// For administrators: host name and why.
    pub per_host: Vec<(String, String)>,
}

const HARD: [(&str, &str); 7] = [
    ("ComputeFilter", "not up, or disabled"),
    ("AvailabilityZoneFilter", "in another availability zone"),
    ("HostNameFilter", "not the host that was asked for"),
    ("SameHostFilter", "not one of the hosts to stay on"),
    ("DifferentHostFilter", "one of the hosts to keep away from"),
    ("ServerGroupFilter", "against the policy of the server group"),
    ("CompatibilityFilter", "unable to run the server as it is"),
];
const AMOUNT_MEANING: [&str; 3] = ["VCPUs", "MiB of memory", "GiB of disk"];

/// The first hard filter that refuses the host, as an index into [`HARD`]; `extra` are servers of this very
/// request that are on it already.
fn hard(h: &HostState, r: &Request, taken: &BTreeMap<String, i64>) -> Option<usize> {
    if !h.up || !h.enabled {
        return Some(0);
    }
    if r.zone.as_ref().is_some_and(|z| *z != h.zone) {
        return Some(1);
    }
    if r.host.as_ref().is_some_and(|n| *n != h.name && *n != h.id) {
        return Some(2);
    }
    if r.only.as_ref().is_some_and(|o| !o.contains(&h.id)) {
        return Some(3);
    }
    if r.avoid.contains(&h.id) {
        return Some(4);
    }
    if r.unfit.contains_key(&h.id) {
        return Some(6);
    }
    if let Some(g) = &r.group {
        let own = |id: &str| g.members.get(id).copied().unwrap_or(0) + taken.get(id).copied().unwrap_or(0);
        let all: i64 = g.members.values().sum::<i64>() + taken.values().sum::<i64>();
        match g.policy.as_str() {
            "anti-affinity" if own(&h.id) >= g.max_per_host.max(1) => return Some(5),
            "affinity" if all > 0 && own(&h.id) == 0 => return Some(5),
            _ => {}
        }
    }
    None
}

fn place_one(hosts: &[HostState], r: &Request, taken: &BTreeMap<String, i64>) -> Option<usize> {
    let soft = |h: &HostState| -> i64 {
        let Some(g) = &r.group else { return 0 };
        let own = g.members.get(&h.id).copied().unwrap_or(0) + taken.get(&h.id).copied().unwrap_or(0);
        match g.policy.as_str() {
            "soft-affinity" => own,
            "soft-anti-affinity" => -own,
            _ => 0,
        }
    };
    hosts
        .iter()
        .enumerate()
        .filter(|(_, h)| hard(h, r, taken).is_none() && fits(h, &r.amounts))
        // Most free memory first; the id decides among equals, so that the answer is always the same.
        .max_by(|(_, a), (_, b)| {
            (soft(a), a.stock[1].free())
                .cmp(&(soft(b), b.stock[1].free()))
                .then_with(|| b.id.cmp(&a.id))
        })
        .map(|(i, _)| i)
}

fn fits(h: &HostState, amounts: &[i64; 3]) -> bool {
    h.stock.iter().zip(amounts).all(|(s, a)| *a <= s.free())
}

/// Decides.
pub fn decide(snapshot: &Snapshot, r: &Request) -> Result<Plan, Box<Refusal>> {
    let mut hosts = snapshot.hosts.clone();
    let mut taken: BTreeMap<String, i64> = BTreeMap::new();
    let mut plan = Vec::new();
    while plan.len() < r.count {
        let Some(i) = place_one(&hosts, r, &taken) else {
            return Err(Box::new(refuse(snapshot, r, &hosts, &taken, plan.len())));
        };
        let Some(h) = hosts.get_mut(i) else { break };
        for (s, a) in h.stock.iter_mut().zip(r.amounts) {
            s.used += a;
        }
        *taken.entry(h.id.clone()).or_default() += 1;
        plan.push(h.id.clone());
    }
    Ok(Plan { hosts: plan })
}

/// Counts why, on the hosts as they are after the `placed` servers that did fit.
fn refuse(
    snapshot: &Snapshot,
    r: &Request,
    hosts: &[HostState],
    taken: &BTreeMap<String, i64>,
    placed: usize,
) -> Refusal {
    let mut by_hard = [0usize; 7];
    let mut by_amount = [0usize; 3];
    let mut largest = [0i64; 3];
    let mut eligible = Vec::new();
    let mut per_host = Vec::new();
    for h in hosts {
        if let Some((f, (name, meaning))) = hard(h, r, taken).and_then(|f| Some((f, HARD.get(f)?))) {
            by_hard[f] += 1;
            let why = r.unfit.get(&h.id).filter(|_| f == 6).map_or(*meaning, String::as_str);
            per_host.push((h.name.clone(), format!("{name}: {why}")));
            continue;
        }
        eligible.push(h);
        let mut reasons = Vec::new();
        for (i, s) in h.stock.iter().enumerate() {
            let free = s.free();
            largest[i] = largest[i].max(free);
            if r.amounts[i] > free {
                by_amount[i] += 1;
                reasons.push(format!("{}: needed {}, free {free}", CLASSES[i], r.amounts[i]));
            }
        }
        per_host.push((h.name.clone(), reasons.join("; ")));
    }
    let mut filters = Vec::new();
    for (i, (filter, meaning)) in HARD.iter().enumerate().filter(|(i, _)| by_hard[*i] > 0) {
        filters.push(FilterCount {
            filter,
            refused: by_hard[i],
            needed: None,
            largest: None,
            meaning,
        });
    }
    for (i, filter) in CLASSES.iter().enumerate().filter(|(i, _)| by_amount[*i] > 0) {
        filters.push(FilterCount {
            filter,
            refused: by_amount[i],
            needed: Some(r.amounts[i]),
            largest: Some(largest[i]),
            meaning: AMOUNT_MEANING[i],
        });
    }
    let change = if placed > 0 {
        Change::Fewer(placed)
    } else {
        // The host on which the request shrinks by the smallest share.
        let smaller = eligible
            .iter()
            .map(|h| {
                let mut to = r.amounts;
                for (t, s) in to.iter_mut().zip(&h.stock) {
                    *t = (*t).min(s.free());
                }
                to
            })
            .filter(|to| to.iter().zip(&r.amounts).all(|(t, asked)| *t > 0 || *asked == 0))
            .min_by(|a, b| loss(&r.amounts, a).total_cmp(&loss(&r.amounts, b)));
        match smaller {
            Some(to) => Change::Smaller(to),
            None => without(snapshot, r),
        }
    };
    Refusal {
        hosts: hosts.len(),
        filters,
        change,
        per_host,
    }
}

fn loss(asked: &[i64; 3], to: &[i64; 3]) -> f64 {
    asked
        .iter()
        .zip(to)
        .map(|(a, t)| (a - t) as f64 / (*a).max(1) as f64)
        .sum()
}

/// Whether leaving out one wish makes the request fit.
fn without(snapshot: &Snapshot, r: &Request) -> Change {
    type Wish = (&'static str, fn(&mut Request));
    let tries: [Wish; 5] = [
        ("availability_zone", |r| r.zone = None),
        ("host", |r| r.host = None),
        ("same_host", |r| r.only = None),
        ("different_host", |r| r.avoid.clear()),
        ("group", |r| r.group = None),
    ];
    for (name, take_out) in tries {
        let mut changed = r.clone();
        take_out(&mut changed);
        if changed != *r && decide_fits(snapshot, &changed) {
            return Change::Without(name);
        }
    }
    Change::MoreHosts
}

fn decide_fits(snapshot: &Snapshot, r: &Request) -> bool {
    let mut hosts = snapshot.hosts.clone();
    let mut taken: BTreeMap<String, i64> = BTreeMap::new();
    for _ in 0..r.count {
        let Some(h) = place_one(&hosts, r, &taken).and_then(|i| hosts.get_mut(i)) else {
            return false;
        };
        for (s, a) in h.stock.iter_mut().zip(r.amounts) {
            s.used += a;
        }
        *taken.entry(h.id.clone()).or_default() += 1;
    }
    true
}

impl Request {
    /// The request after a change that a refusal named. Fits, on the same snapshot.
    pub fn changed(&self, change: &Change) -> Option<Request> {
        let mut r = self.clone();
        match change {
            Change::Fewer(n) => r.count = *n,
            Change::Smaller(amounts) => {
                r.amounts = *amounts;
                r.count = 1;
            }
            Change::Without("availability_zone") => r.zone = None,
            Change::Without("host") => r.host = None,
            Change::Without("same_host") => r.only = None,
            Change::Without("different_host") => r.avoid.clear(),
            Change::Without(_) => r.group = None,
            Change::MoreHosts => return None,
        }
        Some(r)
    }
}

impl Refusal {
    /// For the tenant: numbers, and no host's name.
    pub fn message(&self, r: &Request) -> String {
        if self.hosts == 0 {
            return "No valid host was found. No host has joined the cloud yet; an administrator has to start an agent.".into();
        }
        let parts: Vec<String> = self
            .filters
            .iter()
            .map(|f| match (f.needed, f.largest) {
                (Some(n), Some(l)) => format!(
                    "{} refused {} (needed {n} {}, the most that is free on one host is {l})",
                    f.filter, f.refused, f.meaning
                ),
                _ => format!("{} refused {} ({})", f.filter, f.refused, f.meaning),
            })
            .collect();
        let change = match &self.change {
            Change::Fewer(n) => format!("ask for {n} instead of {} servers at once", r.count),
            Change::Smaller([v, m, d]) => {
                let one = if r.count > 1 { "one server with " } else { "" };
                format!("{one}a flavor of at most {v} VCPUs, {m} MiB of memory and {d} GiB of disk")
            }
            Change::Without(name) => format!("leave out {name}"),
            Change::MoreHosts => "none of the request; a host has to come up, be enabled or be added".into(),
        };
        format!(
            "No valid host was found. Of {} hosts: {}. The smallest change that would fit: {change}.",
            self.hosts,
            parts.join("; ")
        )
    }

    /// For administrators: each host with its reason.
    pub fn details(&self) -> String {
        let lines: Vec<String> = self.per_host.iter().map(|(h, why)| format!("{h}: {why}")).collect();
        lines.join("\n")
    }
}
