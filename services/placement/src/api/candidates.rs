//! GET /allocation_candidates (Placement API reference, "Allocation candidates").

use super::{allow, cached, json_only};
use crate::logic::candidates::{Candidate, decide, summarized};
use crate::logic::forest::{Forest, Node, Stock};
use crate::logic::query;
use crate::names::Names;
use crate::{Placement, policy};
use haneul_core::{Result, clock};
use haneul_http::{Reply, Req, Ver};
use serde::ser::{Serialize, SerializeMap, Serializer};
use std::collections::BTreeSet;
use std::sync::Arc;

/// GET /allocation_candidates
pub async fn list(app: Arc<Placement>, req: Req) -> Result<Reply> {
    allow(&req, policy::Candidates)?;
    json_only(&req)?;
    let wanted = query::candidates(&req)?;
    let groups = || wanted.groups.iter();
    let classes: BTreeSet<String> = groups().flat_map(|g| &g.resources).map(|(c, _)| c.clone()).collect();
    let traits = groups().flat_map(|g| g.traits.names()).chain(wanted.root.names());
    let traits: BTreeSet<String> = traits.cloned().collect();
    let mut tx = app.db.read().await?;
    Names::Class
        .demand(&mut tx, "Invalid resource class in resources parameter: ", &classes)
        .await?;
    Names::Trait.demand(&mut tx, "", &traits).await?;
    let forest = app.forest(&mut tx).await?;
    drop(tx);
    // Before 1.29 there were no trees.
    let nested = req.version >= Ver(1, 29);
    let found = decide(&forest, &wanted, nested);
    let summaries = summarized(&forest, &found, nested || !forest.nested());
    let answer = Answer {
        version: req.version,
        forest: &forest,
        found: &found,
        summaries: &summaries,
        classes: &classes,
    };
    Ok(cached(&req, Reply::ok(&answer), clock::now()))
}

/// What is answered, written as it goes: with a thousand hosts it is half a megabyte.
struct Answer<'a> {
    version: Ver,
    forest: &'a Forest,
    found: &'a [Candidate<'a>],
    summaries: &'a [usize],
    /// What was asked for.
    classes: &'a BTreeSet<String>,
}

impl Serialize for Answer<'_> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let mut map = s.serialize_map(Some(2))?;
        let requests = Seq(|| {
            self.found.iter().map(|c| Request {
                all: self,
                candidate: c,
            })
        });
        map.serialize_entry("allocation_requests", &requests)?;
        let nodes = || self.summaries.iter().filter_map(|p| self.forest.node(*p));
        let summaries = Pairs(|| nodes().map(|n| (n.provider.uuid.as_str(), Summary { all: self, node: n })));
        map.serialize_entry("provider_summaries", &summaries)?;
        map.end()
    }
}

/// An iterator as a list, made anew each time that it is written.
struct Seq<F>(F);
impl<I: IntoIterator<Item: Serialize>, F: Fn() -> I> Serialize for Seq<F> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_seq((self.0)())
    }
}

/// And as an object.
struct Pairs<F>(F);
impl<K: Serialize, V: Serialize, I: IntoIterator<Item = (K, V)>, F: Fn() -> I> Serialize for Pairs<F> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_map((self.0)())
    }
}

/// An object with one field.
struct One<T>(&'static str, T);
impl<T: Serialize> Serialize for One<T> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_map([(self.0, &self.1)])
    }
}

struct Request<'a> {
    all: &'a Answer<'a>,
    candidate: &'a Candidate<'a>,
}

/// What one provider gives in a candidate.
type Given<'a> = Vec<(usize, &'a str, i64)>;

impl Serialize for Request<'_> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let Answer { version, forest, .. } = *self.all;
        let amounts = self.candidate.amounts.iter();
        let given: Given = amounts.map(|((place, class), n)| (*place, *class, *n)).collect();
        let by_provider = || {
            given.chunk_by(|a, b| a.0 == b.0).map(|part| {
                let uuid = part.first().map_or("", |(place, ..)| forest.uuid(*place));
                (uuid, Pairs(|| part.iter().map(|(_, class, n)| (*class, *n))))
            })
        };
        let mut map = s.serialize_map(None)?;
        if version < Ver(1, 12) {
            let list = Seq(|| {
                by_provider().map(|(uuid, resources)| {
                    let mut one = serde_json::Map::new();
                    one.insert("resource_provider".into(), serde_json::json!({ "uuid": uuid }));
                    one.insert("resources".into(), serde_json::json!(resources));
                    one
                })
            });
            map.serialize_entry("allocations", &list)?;
            return map.end();
        }
        let all = Pairs(|| by_provider().map(|(uuid, r)| (uuid, One("resources", r))));
        map.serialize_entry("allocations", &all)?;
        if version >= Ver(1, 34) {
            let groups = || self.candidate.mappings.iter();
            let mappings = Pairs(|| groups().map(|(s, places)| (*s, Seq(|| places.iter().map(|p| forest.uuid(*p))))));
            map.serialize_entry("mappings", &mappings)?;
        }
        map.end()
    }
}

struct Summary<'a> {
    all: &'a Answer<'a>,
    node: &'a Node,
}

#[derive(serde::Serialize)]
struct Use {
    capacity: i64,
    used: i64,
}

impl Serialize for Summary<'_> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let Answer {
            version,
            forest,
            classes,
            ..
        } = *self.all;
        let node = self.node;
        let mut map = s.serialize_map(None)?;
        // Before 1.27 only what was asked for is shown.
        let shown = || {
            let all = node.inventories.iter();
            all.filter(|(c, _)| version >= Ver(1, 27) || classes.contains(*c))
        };
        let resources = Pairs(|| {
            shown().map(|(c, s)| {
                let Stock { capacity, used, .. } = *s;
                (c, Use { capacity, used })
            })
        });
        map.serialize_entry("resources", &resources)?;
        if version >= Ver(1, 17) {
            map.serialize_entry("traits", &node.provider.traits)?;
        }
        if version >= Ver(1, 29) {
            map.serialize_entry("parent_provider_uuid", &node.provider.parent)?;
            map.serialize_entry("root_provider_uuid", forest.uuid(node.root))?;
        }
        map.end()
    }
}
