//! All providers at once: trees, aggregates, traits and what is free.

use crate::ResourceProvider;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Its inventory may be used by all trees that share an aggregate with it.
const SHARES: &str = "MISC_SHARES_VIA_AGGREGATE";

/// How much of a class a provider has.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stock {
    pub min_unit: i64,
    pub max_unit: i64,
    pub step_size: i64,
    pub capacity: i64,
    pub used: i64,
}

impl Stock {
    /// Whether so much can be had at once.
    pub fn gives(&self, amount: i64) -> bool {
        amount >= self.min_unit && amount % self.step_size.max(1) == 0 && self.holds(amount)
    }
    /// Whether so much can be had in several parts.
    pub fn holds(&self, amount: i64) -> bool {
        amount <= self.max_unit && self.used + amount <= self.capacity
    }
}

/// One provider; others of the same [`Forest`] are meant by their places in it.
#[derive(Clone, Debug)]
pub struct Node {
    pub provider: ResourceProvider,
    pub parent: Option<usize>,
    pub root: usize,
    /// By resource class.
    pub inventories: BTreeMap<String, Stock>,
}

impl Node {
    /// Whether it can give this much of a class at once.
    pub fn gives(&self, class: &str, amount: i64) -> bool {
        self.inventories.get(class).is_some_and(|s| s.gives(amount))
    }
    pub fn has_trait(&self, name: &str) -> bool {
        self.provider.traits.iter().any(|t| t == name)
    }
    pub fn shares(&self) -> bool {
        self.has_trait(SHARES)
    }
    /// Whether it is in one aggregate of each set.
    pub fn in_aggregates(&self, sets: &[BTreeSet<String>]) -> bool {
        sets.iter().all(|set| self.in_any(set))
    }
    pub fn in_any(&self, aggregates: &BTreeSet<String>) -> bool {
        self.provider.aggregates.iter().any(|a| aggregates.contains(a))
    }
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Forest {
    pub nodes: Vec<Node>,
    places: HashMap<String, usize>,
}

impl Forest {
    /// Of all providers and their inventories.
    pub fn new(providers: Vec<ResourceProvider>, mut inventories: HashMap<&str, BTreeMap<String, Stock>>) -> Self {
        let places: HashMap<String, usize> = providers.iter().enumerate().map(|(i, p)| (p.uuid.clone(), i)).collect();
        let parents: Vec<Option<usize>> = providers
            .iter()
            .map(|p| p.parent.as_ref().and_then(|up| places.get(up)).copied())
            .collect();
        let up = |i: usize| parents.get(i).copied().flatten();
        let nodes = providers
            .into_iter()
            .enumerate()
            .map(|(i, provider)| {
                let mut root = i;
                // No deeper than there are providers, whatever the rows say.
                for _ in 0..parents.len() {
                    match up(root) {
                        Some(parent) => root = parent,
                        None => break,
                    }
                }
                Node {
                    inventories: inventories.remove(provider.uuid.as_str()).unwrap_or_default(),
                    provider,
                    parent: up(i),
                    root,
                }
            })
            .collect();
        Self { nodes, places }
    }

    pub fn place(&self, uuid: &str) -> Option<usize> {
        self.places.get(uuid).copied()
    }
    pub fn node(&self, place: usize) -> Option<&Node> {
        self.nodes.get(place)
    }
    pub fn root(&self, place: usize) -> usize {
        self.node(place).map_or(place, |n| n.root)
    }
    pub fn uuid(&self, place: usize) -> &str {
        self.node(place).map_or("", |n| n.provider.uuid.as_str())
    }
    /// Whether any provider has a parent.
    pub fn nested(&self) -> bool {
        self.nodes.iter().any(|n| n.parent.is_some())
    }
    /// The places of those for which `keep` holds.
    pub fn places(&self, keep: impl Fn(&Node) -> bool) -> BTreeSet<usize> {
        let all = self.nodes.iter().enumerate();
        all.filter(|(_, n)| keep(n)).map(|(i, _)| i).collect()
    }
    /// The roots of the trees that share an aggregate with each of these providers.
    pub fn anchors(&self, sharing: &BTreeSet<usize>) -> BTreeMap<usize, BTreeSet<usize>> {
        let mut roots: HashMap<&str, BTreeSet<usize>> = HashMap::new();
        if !sharing.is_empty() {
            for n in &self.nodes {
                for a in &n.provider.aggregates {
                    roots.entry(a).or_default().insert(n.root);
                }
            }
        }
        let of = |place: &usize| {
            let aggregates = self.node(*place).map(|n| n.provider.aggregates.iter());
            aggregates
                .into_iter()
                .flatten()
                .filter_map(|a| roots.get(a.as_str()))
                .flatten()
                .copied()
                .collect()
        };
        sharing.iter().map(|place| (*place, of(place))).collect()
    }
    /// A provider and all above it.
    pub fn line(&self, place: usize) -> BTreeSet<usize> {
        let mut out = BTreeSet::from([place]);
        let mut here = place;
        while let Some(up) = self.node(here).and_then(|n| n.parent)
            && out.insert(up)
        {
            here = up;
        }
        out
    }
}
