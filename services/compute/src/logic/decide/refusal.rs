//! Why nothing fits, in numbers, and what would.

use super::filters::{self, FILTERS};
use super::{Board, CLASSES, Request, Snapshot};

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

const AMOUNT_MEANING: [&str; 3] = ["VCPUs", "MiB of memory", "GiB of disk"];

/// What can be left out of a request, by the name that its sender knows, the least first.
type Wish = (&'static str, fn(&mut Request));
const WISHES: [Wish; 8] = [
    ("availability_zone", |r| r.zone = None),
    ("host", |r| r.host = None),
    ("same_host", |r| r.only = None),
    ("different_host", |r| r.avoid.clear()),
    ("build_near_host_ip", |r| r.near = None),
    ("group", |r| r.group = None),
    ("the properties of the image", |r| r.image.clear()),
    ("the extra specs of the flavor", |r| r.extra_specs.clear()),
];

/// Counts why, on the hosts as they are after the servers that did fit.
pub(super) fn refuse(board: &Board) -> Refusal {
    let r = board.request;
    let mut by_filter = vec![0usize; FILTERS.len()];
    let mut by_amount = [0usize; 3];
    let mut largest = [0i64; 3];
    let mut eligible = Vec::new();
    let mut per_host = Vec::new();
    for seat in board.seats() {
        let name = seat.host.name.clone();
        // As in a decision: what a host is comes before what is placed on it.
        let refused = filters::refuses(&seat, r, false).or_else(|| filters::refuses(&seat, r, true));
        if let Some((i, filter, why)) = refused {
            if let Some(n) = by_filter.get_mut(i) {
                *n += 1;
            }
            per_host.push((name, format!("{}: {why}", filter.name)));
            continue;
        }
        let free: Vec<i64> = (0..CLASSES.len()).map(|i| seat.stock(i, r).free()).collect();
        let mut reasons = Vec::new();
        for (i, free) in free.iter().enumerate() {
            largest[i] = largest[i].max(*free);
            if r.amounts[i] > *free {
                by_amount[i] += 1;
                reasons.push(format!("{}: needed {}, free {free}", CLASSES[i], r.amounts[i]));
            }
        }
        eligible.push(free);
        per_host.push((name, reasons.join("; ")));
    }
    let mut counts = Vec::new();
    for (filter, refused) in FILTERS.iter().zip(by_filter).filter(|(_, n)| *n > 0) {
        counts.push(FilterCount {
            filter: filter.name,
            refused,
            needed: None,
            largest: None,
            meaning: filter.meaning,
        });
    }
    for (i, filter) in CLASSES.iter().enumerate().filter(|(i, _)| by_amount[*i] > 0) {
        counts.push(FilterCount {
            filter,
            refused: by_amount[i],
            needed: Some(r.amounts[i]),
            largest: Some(largest[i]),
            meaning: AMOUNT_MEANING[i],
        });
    }
    Refusal {
        hosts: board.snapshot.hosts.len(),
        filters: counts,
        change: change(board, &eligible),
        per_host,
    }
}

fn change(board: &Board, eligible: &[Vec<i64>]) -> Change {
    let r = board.request;
    if board.placed > 0 {
        return Change::Fewer(board.placed as usize);
    }
    // The host on which the request shrinks by the smallest share.
    let smaller = eligible
        .iter()
        .map(|free| {
            let mut to = r.amounts;
            for (t, f) in to.iter_mut().zip(free) {
                *t = (*t).min(*f);
            }
            to
        })
        .filter(|to| to.iter().zip(&r.amounts).all(|(t, asked)| *t > 0 || *asked == 0))
        .min_by(|a, b| loss(&r.amounts, a).total_cmp(&loss(&r.amounts, b)));
    match smaller {
        Some(to) => Change::Smaller(to),
        None => without(board.snapshot, r),
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
    for (name, take_out) in WISHES {
        let mut changed = r.clone();
        take_out(&mut changed);
        if changed == *r {
            continue;
        }
        let mut board = Board::new(snapshot, &changed);
        if (0..changed.count).all(|_| board.place().is_some()) {
            return Change::Without(name);
        }
    }
    Change::MoreHosts
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
            Change::Without(what) => WISHES.iter().find(|(name, _)| name == what)?.1(&mut r),
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
