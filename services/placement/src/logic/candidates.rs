//! Allocation candidates (Placement API reference, "Allocation candidates"): every way in which one tree, with the
//! providers that share with it, gives all that is asked for.

use super::forest::Forest;
use super::query::{Group, Wanted};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// Most candidates of one answer, and most combinations that are looked at for it: a request with many groups has
/// more than anybody reads.
const MAX_CANDIDATES: usize = 100_000;
const MAX_STEPS: usize = 2_000_000;

/// What one way takes: by provider and class.
pub type Amounts<'a> = BTreeMap<(usize, &'a str), i64>;
/// Which providers serve which group, by suffix.
pub type Mapping<'a> = BTreeMap<&'a str, BTreeSet<usize>>;

/// One way to give all.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Candidate<'a> {
    pub amounts: Amounts<'a>,
    pub mappings: Mapping<'a>,
}

/// One way to give what a group asks for.
struct Part<'a> {
    takes: Vec<(usize, &'a str, i64)>,
    providers: BTreeSet<usize>,
}

/// Parts by the root of the tree that they belong to.
type Parts<'a> = BTreeMap<usize, Vec<Part<'a>>>;

/// All candidates, at most `limit`, in the order in which the providers were made. `nested` is false for
/// microversions that know no trees: then no two providers of one tree stand in one candidate.
pub fn decide<'a>(forest: &Forest, wanted: &'a Wanted, nested: bool) -> Vec<Candidate<'a>> {
    let Some(anchors) = anchors(forest, wanted) else {
        return vec![];
    };
    let sharing = forest.places(|n| n.shares());
    let trees = forest.nested();
    let mut by_group: Vec<(&Group, Parts)> = Vec::new();
    for group in &wanted.groups {
        let parts = if group.same_provider() || (sharing.is_empty() && !trees) {
            from_one(forest, group, anchors.as_ref())
        } else {
            from_tree(forest, group, &sharing, anchors.as_ref())
        };
        if parts.is_empty() {
            return vec![];
        }
        by_group.push((group, parts));
    }
    let mut search = Search {
        forest,
        wanted,
        nested: nested || !trees,
        most: wanted.limit.unwrap_or(MAX_CANDIDATES).min(MAX_CANDIDATES),
        steps: 0,
        seen: HashSet::new(),
        found: vec![],
    };
    let Some((_, first)) = by_group.first() else {
        return vec![];
    };
    for anchor in first.keys() {
        let lists: Option<Vec<(&Group, &[Part])>> = by_group
            .iter()
            .map(|(g, parts)| Some((*g, parts.get(anchor)?.as_slice())))
            .collect();
        if let Some(lists) = lists {
            search.walk(
                &lists,
                &mut Candidate {
                    amounts: Amounts::new(),
                    mappings: Mapping::new(),
                },
            );
        }
    }
    search.found
}

/// The roots that may anchor a candidate; `Some(None)` when all may, `None` when none may.
#[allow(clippy::option_option)]
fn anchors(forest: &Forest, wanted: &Wanted) -> Option<Option<BTreeSet<usize>>> {
    if wanted.root.names().next().is_none() {
        return Some(None);
    }
    let roots = forest.places(|n| n.parent.is_none() && wanted.root.fit(|t| n.has_trait(t)));
    (!roots.is_empty()).then_some(Some(roots))
}

fn may(anchors: Option<&BTreeSet<usize>>, root: usize) -> bool {
    anchors.is_none_or(|a| a.contains(&root))
}

/// The tree that a group is bound to. `Err` when it names a provider that is not there.
fn tree(forest: &Forest, group: &Group) -> Result<Option<usize>, ()> {
    match &group.in_tree {
        None => Ok(None),
        Some(uuid) => forest.place(uuid).map(|p| Some(forest.root(p))).ok_or(()),
    }
}

/// Ways to serve a group from a single provider, which must have all traits and aggregates itself.
fn from_one<'a>(forest: &Forest, group: &'a Group, anchors: Option<&BTreeSet<usize>>) -> Parts<'a> {
    let mut out = Parts::new();
    let Ok(tree) = tree(forest, group) else {
        return out;
    };
    // Who asks for nothing must say by traits or aggregates which provider is meant.
    if group.resources.is_empty() && group.traits.required.is_empty() && group.member_of.required.is_empty() {
        return out;
    }
    let fits = forest.places(|n| {
        tree.is_none_or(|t| t == n.root)
            && group.resources.iter().all(|(class, amount)| n.gives(class, *amount))
            && group.traits.fit(|t| n.has_trait(t))
            && n.in_aggregates(&group.member_of.required)
            && !n.in_any(&group.member_of.forbidden)
    });
    let sharing = fits
        .iter()
        .copied()
        .filter(|p| forest.node(*p).is_some_and(|n| n.shares()))
        .collect();
    let shared_with = forest.anchors(&sharing);
    for place in fits {
        let mut roots = BTreeSet::from([forest.root(place)]);
        roots.extend(shared_with.get(&place).into_iter().flatten());
        for root in roots.into_iter().filter(|r| may(anchors, *r)) {
            out.entry(root).or_default().push(Part {
                takes: group.resources.iter().map(|(c, n)| (place, c.as_str(), *n)).collect(),
                providers: BTreeSet::from([place]),
            });
        }
    }
    out
}

/// Ways to serve a group from a tree and what is shared with it; together they must have all traits.
fn from_tree<'a>(
    forest: &Forest,
    group: &'a Group,
    sharing: &BTreeSet<usize>,
    anchors: Option<&BTreeSet<usize>>,
) -> Parts<'a> {
    let mut out = Parts::new();
    let Ok(tree) = tree(forest, group) else {
        return out;
    };
    let in_aggregates = forest.places(|n| n.in_aggregates(&group.member_of.required));
    let bad = forest.places(|n| n.in_any(&group.member_of.forbidden));
    // For each class: who could give it, by root.
    let mut classes: Vec<BTreeMap<usize, BTreeSet<usize>>> = Vec::new();
    for (class, amount) in &group.resources {
        let givers = forest.places(|n| tree.is_none_or(|t| t == n.root) && n.gives(class, *amount));
        let mut by_root: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
        for place in &givers {
            by_root.entry(forest.root(*place)).or_default().insert(*place);
        }
        if tree.is_none() {
            let shared = givers
                .iter()
                .copied()
                .filter(|p| sharing.contains(p) && in_aggregates.contains(p))
                .collect();
            for (place, roots) in forest.anchors(&shared) {
                for root in roots {
                    by_root.entry(root).or_default().insert(place);
                }
            }
        }
        // An aggregate of the root is one of its whole tree.
        for (root, places) in &mut by_root {
            places.retain(|p| {
                (in_aggregates.contains(p) || in_aggregates.contains(root)) && !bad.contains(p) && !bad.contains(root)
            });
        }
        by_root.retain(|root, places| !places.is_empty() && may(anchors, *root));
        classes.push(by_root);
    }
    let Some(first) = classes.first() else {
        return out;
    };
    for root in first.keys() {
        let lists: Option<Vec<&BTreeSet<usize>>> = classes.iter().map(|by_root| by_root.get(root)).collect();
        let Some(lists) = lists else { continue };
        let mut ways: Vec<Vec<usize>> = vec![vec![]];
        for list in lists {
            let mut longer = Vec::new();
            for way in &ways {
                for place in list {
                    if longer.len() < MAX_CANDIDATES {
                        longer.push([way.as_slice(), &[*place]].concat());
                    }
                }
            }
            ways = longer;
        }
        for way in ways {
            let nodes: Vec<_> = way.iter().filter_map(|p| forest.node(*p)).collect();
            if !group.traits.fit(|t| nodes.iter().any(|n| n.has_trait(t))) {
                continue;
            }
            let takes = way.iter().zip(&group.resources);
            out.entry(*root).or_default().push(Part {
                takes: takes.map(|(p, (class, n))| (*p, class.as_str(), *n)).collect(),
                providers: way.iter().copied().collect(),
            });
        }
    }
    out
}

/// Combines one part of each group, and keeps what fits together.
struct Search<'s, 'a> {
    forest: &'s Forest,
    wanted: &'a Wanted,
    nested: bool,
    most: usize,
    steps: usize,
    seen: HashSet<Candidate<'a>>,
    found: Vec<Candidate<'a>>,
}

impl<'a> Search<'_, 'a> {
    fn walk(&mut self, lists: &[(&'a Group, &[Part<'a>])], so_far: &mut Candidate<'a>) {
        let Some(((group, parts), rest)) = lists.split_first() else {
            if self.allowed(so_far) && self.seen.insert(so_far.clone()) {
                self.found.push(so_far.clone());
            }
            return;
        };
        for part in *parts {
            self.steps += 1;
            if self.found.len() >= self.most || self.steps > MAX_STEPS {
                return;
            }
            for (place, class, amount) in &part.takes {
                *so_far.amounts.entry((*place, class)).or_default() += amount;
            }
            so_far.mappings.insert(&group.suffix, part.providers.clone());
            // A branch that takes too much already is not followed.
            if self.fits(so_far, part) {
                self.walk(rest, so_far);
            }
            so_far.mappings.remove(group.suffix.as_str());
            for (place, class, amount) in &part.takes {
                if let Some(n) = so_far.amounts.get_mut(&(*place, *class)) {
                    *n -= amount;
                    if *n == 0 {
                        so_far.amounts.remove(&(*place, *class));
                    }
                }
            }
        }
    }

    fn fits(&self, so_far: &Candidate<'a>, part: &Part<'a>) -> bool {
        part.takes.iter().all(|(place, class, _)| {
            let amount = so_far.amounts.get(&(*place, *class)).copied().unwrap_or_default();
            let have = self.forest.node(*place).and_then(|n| n.inventories.get(*class));
            have.is_some_and(|s| s.holds(amount))
        })
    }

    fn allowed(&self, c: &Candidate<'a>) -> bool {
        let alone = || c.mappings.iter().filter(|(suffix, _)| !suffix.is_empty());
        if self.wanted.isolate {
            let different: BTreeSet<&usize> = alone().flat_map(|(_, p)| p).collect();
            if different.len() != alone().count() {
                return false;
            }
        }
        if !self
            .wanted
            .same_subtree
            .iter()
            .all(|suffixes| self.one_subtree(c, suffixes))
        {
            return false;
        }
        if !self.nested {
            let taken: BTreeSet<usize> = c.amounts.keys().map(|(p, _)| *p).collect();
            let roots: BTreeSet<usize> = taken.iter().map(|p| self.forest.root(*p)).collect();
            return taken.len() == roots.len();
        }
        true
    }

    /// Whether one of the groups' providers is above all the others.
    fn one_subtree(&self, c: &Candidate<'a>, suffixes: &BTreeSet<String>) -> bool {
        let places: BTreeSet<usize> = suffixes
            .iter()
            .filter_map(|s| c.mappings.get(s.as_str()))
            .flatten()
            .copied()
            .collect();
        let mut common: Option<BTreeSet<usize>> = None;
        for p in &places {
            let line = self.forest.line(*p);
            common = Some(match common {
                None => line,
                Some(c) => c.intersection(&line).copied().collect(),
            });
        }
        common.is_some_and(|c| !c.is_disjoint(&places))
    }
}

/// The providers that a list of candidates is explained with: all of the trees that give something; before trees
/// were known, the givers alone.
pub fn summarized(forest: &Forest, found: &[Candidate], nested: bool) -> Vec<usize> {
    let givers: BTreeSet<usize> = found.iter().flat_map(|c| c.amounts.keys().map(|(p, _)| *p)).collect();
    if !nested {
        return givers.into_iter().collect();
    }
    let roots: HashMap<usize, ()> = givers.iter().map(|p| (forest.root(*p), ())).collect();
    forest.places(|n| roots.contains_key(&n.root)).into_iter().collect()
}
