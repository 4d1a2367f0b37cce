//! Which of the hosts that are left: each weigher scores them from 0 to 1, by the multiplier that it has in Nova
//! (negative: the other way round, so `ram_weight_multiplier = -1.0` packs); the largest sum wins, and the id decides
//! among equals, so that the answer is always the same.

use super::{HostState, Request, Seat};
use haneul_core::config::Scheduler;
use std::collections::BTreeMap;

/// See the module.
pub struct Weigher {
    /// Nova's name.
    pub name: &'static str,
    /// The setting of section `scheduler`, and the key of an aggregate's metadata that takes its place.
    pub multiplier: &'static str,
    of: fn(&Seat, &Request) -> f64,
    configured: fn(&Scheduler) -> f64,
}

/// How many there are.
const N: usize = 8;

macro_rules! weigher {
    ($name:literal, $field:ident, $of:expr) => {
        Weigher {
            name: $name,
            multiplier: stringify!($field),
            of: $of,
            configured: |c| c.$field,
        }
    };
}

/// All of them.
pub const WEIGHERS: [Weigher; N] = [
    weigher!("RAMWeigher", ram_weight_multiplier, |s, r| free(s, r, 1)),
    weigher!("CPUWeigher", cpu_weight_multiplier, |s, r| free(s, r, 0)),
    weigher!("DiskWeigher", disk_weight_multiplier, |s, r| free(s, r, 2)),
    weigher!("IoOpsWeigher", io_ops_weight_multiplier, |s, _| (s.host.busy + s.taken)
        as f64),
    weigher!(
        "ServerGroupSoftAffinityWeigher",
        soft_affinity_weight_multiplier,
        |s, r| { members(s, r, "soft-affinity") }
    ),
    weigher!(
        "ServerGroupSoftAntiAffinityWeigher",
        soft_anti_affinity_weight_multiplier,
        |s, r| { -members(s, r, "soft-anti-affinity") }
    ),
    weigher!("BuildFailureWeigher", build_failure_weight_multiplier, |s, _| {
        -(s.host.failed_builds as f64)
    }),
    weigher!(
        "HypervisorVersionWeigher",
        hypervisor_version_weight_multiplier,
        |s, _| { s.host.facts.version as f64 }
    ),
];

fn free(s: &Seat, r: &Request, class: usize) -> f64 {
    let stock = s.stock(class, r);
    (stock.capacity() - stock.used) as f64
}

fn members(s: &Seat, r: &Request, policy: &str) -> f64 {
    match r.group.as_ref().filter(|g| g.policy == policy) {
        Some(g) => s.members(g).0 as f64,
        None => 0.0,
    }
}

/// Multipliers, in the order of [`WEIGHERS`].
#[derive(Clone, Debug, PartialEq)]
pub struct Weights([f64; N]);

impl Default for Weights {
    fn default() -> Self {
        Self::from(&Scheduler::default())
    }
}

impl From<&Scheduler> for Weights {
    fn from(c: &Scheduler) -> Self {
        Weights(WEIGHERS.map(|w| (w.configured)(c)))
    }
}

impl Weights {
    /// With what the metadata of a host's aggregates say in their place, the least of them; none: they say nothing.
    pub fn of_aggregates(&self, aggregates: &[BTreeMap<String, String>]) -> Option<Weights> {
        let mut own = self.clone();
        let mut any = false;
        for (weight, w) in own.0.iter_mut().zip(WEIGHERS) {
            let said = aggregates
                .iter()
                .filter_map(|a| a.get(w.multiplier)?.trim().parse::<f64>().ok())
                .filter(|x| x.is_finite())
                .min_by(f64::total_cmp);
            if let Some(said) = said {
                (*weight, any) = (said, true);
            }
        }
        any.then_some(own)
    }
}

/// Why a host was chosen.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    /// Its place in the snapshot, and its id.
    pub number: usize,
    pub host: String,
    pub name: String,
    /// How many hosts were weighed.
    pub of: usize,
    /// The sum, and that of the host after it.
    pub weight: f64,
    pub next: Option<f64>,
    /// By weigher: multiplier, and score from 0 to 1. Only what counted.
    pub parts: Vec<(&'static str, f64, f64)>,
}

impl Choice {
    /// For administrators.
    pub fn message(&self) -> String {
        let Some(next) = self.next else {
            return format!("{}: the only host that passed all filters.", self.name);
        };
        let parts: Vec<String> = self
            .parts
            .iter()
            .map(|(name, by, score)| format!("{name} {by} x {score:.3}"))
            .collect();
        let sum = if parts.is_empty() {
            "all are alike, and its id comes first".to_owned()
        } else {
            parts.join(" + ")
        };
        format!(
            "{}: of {} hosts that passed all filters it has the largest weight, {:.3} ({sum}); the next has {next:.3}.",
            self.name, self.of, self.weight
        )
    }
}

/// The best of these, by its number.
pub(super) fn choose(weights: &Weights, open: &[(usize, Seat)], r: &Request) -> Option<Choice> {
    let multipliers = |h: &HostState| h.facts.weights.as_ref().unwrap_or(weights).0;
    let mut sums = vec![0.0; open.len()];
    let mut spans = [(0.0, 0.0); N];
    for (i, (w, span)) in WEIGHERS.iter().zip(&mut spans).enumerate() {
        let raw: Vec<f64> = open.iter().map(|(_, s)| (w.of)(s, r)).collect();
        let low = raw.iter().copied().fold(f64::INFINITY, f64::min);
        let high = raw.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        *span = (low, high);
        if high > low {
            for ((sum, x), (_, s)) in sums.iter_mut().zip(raw).zip(open) {
                *sum += multipliers(s.host)[i] * (x - low) / (high - low);
            }
        }
    }
    let better = |a: &usize, b: &usize| {
        let id = |i: usize| open.get(i).map(|(_, s)| s.host.id.as_str());
        sums[*a].total_cmp(&sums[*b]).then_with(|| id(*b).cmp(&id(*a)))
    };
    let best = (0..open.len()).max_by(better)?;
    let next = (0..open.len())
        .filter(|i| *i != best)
        .map(|i| sums[i])
        .max_by(f64::total_cmp);
    let (number, seat) = open.get(best)?;
    let by = multipliers(seat.host);
    let parts = WEIGHERS
        .iter()
        .zip(by)
        .zip(spans)
        .filter(|((_, by), (low, high))| high > low && *by != 0.0)
        .map(|((w, by), (low, high))| (w.name, by, ((w.of)(seat, r) - low) / (high - low)))
        .collect();
    Some(Choice {
        number: *number,
        host: seat.host.id.clone(),
        name: seat.host.name.clone(),
        of: open.len(),
        weight: sums[best],
        next,
        parts,
    })
}
