//! Allocations (Placement API reference, "Allocations").

use super::providers::{GENERATION, bump, dashed};
use super::{allow, cached, check, json_only, quoted, whole};
use crate::names::Names;
use crate::{Placement, ResourceProvider, policy};
use haneul_auth::fetch;
use haneul_core::{Error, Result, clock, id};
use haneul_http::{Body, FieldKind as K, Reply, Req, Ver, f};
use haneul_store::Tx;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const ID: K = K::Str { min: 1, max: 255 };
static BODY: Body = Body {
    open: false,
    fields: &[
        f("allocations", K::Free).req(),
        f("project_id", ID).since(1, 8).req(),
        f("user_id", ID).since(1, 8).req(),
        f("consumer_generation", K::Check(whole::<{ i64::MIN }, { i64::MAX }>))
            .null()
            .since(1, 28)
            .req(),
        f("mappings", K::Check(mappings)).since(1, 34),
        f("consumer_type", K::Check(consumer_type)).since(1, 38).req(),
    ],
};

/// What stands under a provider's id, from 1.12 on.
static UNDER: Body = Body {
    open: false,
    fields: &[f("generation", GENERATION), f("resources", K::Free).req()],
};
/// An item of the list that there was before.
static ITEM: Body = Body {
    open: false,
    fields: &[
        f("resource_provider", K::Obj(&PROVIDER)).req(),
        f("resources", K::Free).req(),
    ],
};
static PROVIDER: Body = Body {
    open: false,
    fields: &[f("uuid", K::Uuid).req()],
};

/// Names of resource classes and of types of consumers.
pub(super) fn is_name(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_';
    !text.is_empty() && text.bytes().all(allowed)
}

fn consumer_type(v: &Value) -> Result<(), String> {
    match v.as_str() {
        None => Err(format!("{} is not of type 'string'.", quoted(v))),
        Some(s) if s.len() > 255 => Err("It is too long: at most 255 characters are allowed.".into()),
        Some("") => Err("'' is too short, should be non-empty.".into()),
        Some(s) if is_name(s) => Ok(()),
        Some(s) => Err(format!("'{s}' does not match '^[A-Z0-9_]+$'.")),
    }
}

/// The groups of the candidate that was taken: looked at, and not kept.
fn mappings(v: &Value) -> Result<(), String> {
    let Some(map) = v.as_object() else {
        return Err(format!("{} is not of type 'object'.", quoted(v)));
    };
    if map.is_empty() {
        return Err("{} does not have enough properties, should be non-empty.".into());
    }
    for (suffix, list) in map.iter().filter(|(s, _)| !s.is_empty()) {
        let uuids = list
            .as_array()
            .ok_or_else(|| format!("{} is not of type 'array': group {suffix}.", quoted(list)))?;
        if uuids.is_empty() {
            return Err(format!("[] should be non-empty: group {suffix}."));
        }
        if let Some(bad) = uuids.iter().find(|u| !u.as_str().is_some_and(id::is_uuid)) {
            return Err(format!("{} is not a 'uuid': group {suffix}.", quoted(bad)));
        }
    }
    Ok(())
}

/// By provider: class and amount.
type Wanted = BTreeMap<String, BTreeMap<String, i64>>;

/// What one consumer shall hold.
pub(super) struct Claim {
    consumer: String,
    project: String,
    user: String,
    /// From 1.28 on: what the client saw, and `Some(None)` for "there is none".
    #[allow(clippy::option_option)]
    saw: Option<Option<i64>>,
    kind: Option<String>,
    wanted: Wanted,
}

fn amounts(v: &Value, path: &str) -> Result<BTreeMap<String, i64>> {
    let bad = |why: &str| Error::field(path, format!("JSON does not validate: {why} At {path}."));
    let map = v
        .as_object()
        .ok_or_else(|| bad("resources must be an object with at least one class."))?;
    if map.is_empty() {
        return Err(bad(
            "{} does not have enough properties, should be non-empty: at least one class is needed.",
        ));
    }
    map.iter()
        .map(|(c, n)| match n.as_i64() {
            _ if !is_name(c) => Err(bad(&format!("'{c}' does not match any of the regexes: '^[A-Z0-9_]+$'."))),
            Some(n) if n >= 1 => Ok((c.clone(), n)),
            Some(n) => Err(bad(&format!(
                "{n} is less than the minimum of 1: {c} must be an integer of at least 1. Failed validating 'minimum' in schema."
            ))),
            None => Err(bad(&format!("{c} must be an integer of at least 1."))),
        })
        .collect()
}

/// The list of before 1.12, or the object by provider.
fn wanted(v: &Value, version: Ver) -> Result<Wanted> {
    let mut out = Wanted::new();
    let mut add = |uuid: &str, resources: &Value| -> Result<()> {
        if !id::is_uuid(uuid) {
            return Err(Error::field(
                "allocations",
                format!("JSON does not validate: '{uuid}' is not a 'uuid' and does not match any of the regexes"),
            ));
        }
        out.insert(uuid.to_owned(), amounts(resources, &format!("allocations.{uuid}"))?);
        Ok(())
    };
    if version < Ver(1, 12) {
        let list = v.as_array().ok_or_else(|| {
            Error::field(
                "allocations",
                "JSON does not validate: allocations must be a list, and is not of type 'array'.",
            )
        })?;
        for a in list {
            check(&ITEM, a, version, "allocations")?;
            add(
                a["resource_provider"]["uuid"].as_str().unwrap_or_default(),
                &a["resources"],
            )?;
        }
    } else {
        let map = v.as_object().ok_or_else(|| {
            Error::field(
                "allocations",
                "JSON does not validate: allocations must be an object by resource provider, and is not of type 'object'.",
            )
        })?;
        for (uuid, a) in map {
            check(&UNDER, a, version, &format!("allocations.{uuid}"))?;
            add(uuid, &a["resources"])?;
        }
    }
    Ok(out)
}

/// A consumer's part of a body.
fn claim(consumer: &str, v: &Value, version: Ver, path: &str) -> Result<Claim> {
    check(&BODY, v, version, path)?;
    let none = "00000000-0000-0000-0000-000000000000";
    let text = |name: &str| v[name].as_str().unwrap_or(none).to_owned();
    Ok(Claim {
        consumer: consumer.to_owned(),
        project: text("project_id"),
        user: text("user_id"),
        saw: (version >= Ver(1, 28)).then(|| v["consumer_generation"].as_i64()),
        kind: v["consumer_type"].as_str().map(str::to_owned),
        wanted: wanted(&v["allocations"], version)?,
    })
}

/// The consumers of a body that names many.
pub(super) fn claims(v: &Value, version: Ver, may_be_empty: bool) -> Result<Vec<Claim>> {
    let bad = |why: &str| Error::field("allocations", format!("JSON does not validate: {why}"));
    let map = v
        .as_object()
        .ok_or_else(|| bad("The body must be an object by consumer."))?;
    if map.is_empty() && !may_be_empty {
        return Err(bad(
            "{} does not have enough properties, should be non-empty: the body must be an object by consumer, with at least one.",
        ));
    }
    map.iter()
        .map(|(consumer, v)| {
            if !id::is_uuid(consumer) {
                return Err(bad(&format!(
                    "'{consumer}' is not a 'uuid' and does not match any of the regexes: '^[0-9a-fA-F-]{{36}}$'"
                )));
            }
            claim(consumer, v, version, consumer)
        })
        .collect()
}

impl Placement {
    /// Refuses a write that saw another generation of its consumer.
    async fn saw_consumers(&self, tx: &mut Tx, all: &[Claim]) -> Result<()> {
        for c in all {
            let Some(saw) = c.saw else { continue };
            let is = self.consumer_generation(tx, &c.consumer).await?;
            if saw == is {
                continue;
            }
            let text = |g: Option<i64>| g.map_or_else(|| "null".to_owned(), |g| g.to_string());
            return Err(Error::conflict(format!(
                "consumer generation conflict - expected {} but got {}",
                text(is),
                saw.map_or_else(|| "None".to_owned(), |g| g.to_string())
            ))
            .with_code(super::CONCURRENT));
        }
        Ok(())
    }

    /// Checks what can be checked before anything is written, and gives back what these consumers hold.
    pub(super) async fn start_replace(&self, tx: &mut Tx, all: &[Claim]) -> Result<()> {
        self.saw_consumers(tx, all).await?;
        for provider in all.iter().flat_map(|c| c.wanted.keys()) {
            if tx.find::<ResourceProvider>(provider).await?.is_none() {
                return Err(Error::field(
                    "allocations",
                    format!("Allocation for resource provider '{provider}' that does not exist."),
                ));
            }
        }
        for c in all {
            let classes: BTreeSet<String> = c.wanted.values().flat_map(|r| r.keys().cloned()).collect();
            let about = format!("Unable to allocate inventory for consumer {}: ", c.consumer);
            Names::Class.demand(tx, &about, &classes).await?;
        }
        // What is given back may be taken by another consumer of the same request.
        for c in all {
            self.give_back(tx, &c.consumer).await?;
        }
        Ok(())
    }

    /// Takes what they want. All or nothing: the caller's transaction is rolled back on an error.
    pub(super) async fn finish_replace(&self, tx: &mut Tx, all: &[Claim]) -> Result<()> {
        let mut touched = BTreeSet::new();
        for c in all {
            for (provider, resources) in &c.wanted {
                self.must_fit(tx, provider, resources).await?;
                let list: Vec<(&str, i64)> = resources.iter().map(|(c, n)| (c.as_str(), *n)).collect();
                if !self.take(tx, &c.consumer, provider, &list).await? {
                    return Err(
                        Error::conflict("Unable to allocate inventory: another request was faster.")
                            .with_code(super::CONCURRENT),
                    );
                }
                touched.insert(provider);
            }
            self.consumer_set(
                tx,
                &c.consumer,
                &c.project,
                &c.user,
                c.kind.as_deref(),
                c.wanted.is_empty(),
            )
            .await?;
        }
        for provider in touched {
            bump(tx, provider).await?;
        }
        Ok(())
    }

    /// Says which of these amounts a provider cannot give, and why.
    async fn must_fit(&self, tx: &mut Tx, provider: &str, resources: &BTreeMap<String, i64>) -> Result<()> {
        let inventories = self.inventories(tx, provider).await?;
        for (class, amount) in resources {
            let refuse = |why: String| {
                Err(Error::conflict(format!(
                    "Unable to allocate inventory: Unable to create allocation for '{class}' on resource provider '{provider}'. {why}"
                )))
            };
            let Some((i, used)) = inventories.get(class) else {
                return refuse(format!(
                    "Inventory for '{class}' on resource provider '{provider}' invalid: it has none."
                ));
            };
            if let Some(why) = i.refuses(*amount) {
                return refuse(format!(
                    "The requested amount would violate inventory constraints: {amount} is {why}."
                ));
            }
            if used + amount > i.capacity() {
                return refuse(format!(
                    "The requested amount would exceed the capacity: {amount} asked, {used} used of {}.",
                    i.capacity()
                ));
            }
        }
        Ok(())
    }

    async fn replace(&self, tx: &mut Tx, all: &[Claim]) -> Result<()> {
        self.start_replace(tx, all).await?;
        self.finish_replace(tx, all).await
    }
}

pub async fn show(app: Arc<Placement>, req: Req) -> Result<Reply> {
    allow(&req, policy::AllocationsList)?;
    json_only(&req)?;
    let mut tx = app.db.read().await?;
    let consumer = req.param("consumer");
    let mut by: BTreeMap<String, BTreeMap<String, i64>> = BTreeMap::new();
    for (p, c, n) in app.allocations(&mut tx, consumer).await? {
        by.entry(p).or_default().insert(c, n);
    }
    let mut all = serde_json::Map::new();
    for (p, resources) in by {
        let generation = tx
            .find::<ResourceProvider>(&p)
            .await?
            .map_or(0, |s| s.provider_generation);
        all.insert(p, json!({"generation": generation, "resources": resources}));
    }
    let held = !all.is_empty();
    let mut v = json!({"allocations": all});
    if req.version >= Ver(1, 12)
        && held
        && let Some(row) = tx
            .row(
                "SELECT project_id, user_id, generation, type FROM placement_consumer WHERE id = $1",
                &[consumer.into()],
            )
            .await?
        && let Some(map) = v.as_object_mut()
    {
        map.insert("project_id".into(), row.str(0)?.into());
        map.insert("user_id".into(), row.str(1)?.into());
        if req.version >= Ver(1, 28) {
            map.insert("consumer_generation".into(), row.i64(2)?.into());
        }
        if req.version >= Ver(1, 38) {
            map.insert("consumer_type".into(), row.str(3)?.into());
        }
    }
    Ok(cached(&req, Reply::ok(&v), clock::now()))
}

pub async fn put(app: Arc<Placement>, mut req: Req) -> Result<Reply> {
    allow(&req, policy::AllocationsUpdate)?;
    let consumer = req.param("consumer").to_owned();
    if !id::is_uuid(&consumer) {
        return Err(Error::bad_request(format!("Malformed consumer_uuid: {consumer}")));
    }
    let consumer = dashed(&consumer);
    let body = req.json().await?;
    let claim = claim(&consumer, &body, req.version, "body")?;
    if claim.wanted.is_empty() && req.version < Ver(1, 28) {
        return Err(Error::field(
            "allocations",
            "JSON does not validate: allocations does not have enough properties, should be non-empty: it must name at least one resource provider; DELETE removes them. Failed validating 'minItems'",
        ));
    }
    let this = app.clone();
    app.db
        .write(&req.ctx()?.actor(), async move |tx| {
            this.replace(tx, std::slice::from_ref(&claim)).await
        })
        .await?;
    Ok(Reply::no_content())
}

pub async fn post(app: Arc<Placement>, mut req: Req) -> Result<Reply> {
    allow(&req, policy::AllocationsManage)?;
    let body = req.json().await?;
    let all = claims(&body, req.version, false)?;
    let this = app.clone();
    app.db
        .write(&req.ctx()?.actor(), async move |tx| this.replace(tx, &all).await)
        .await?;
    Ok(Reply::no_content())
}

pub async fn delete(app: Arc<Placement>, req: Req) -> Result<Reply> {
    allow(&req, policy::AllocationsDelete)?;
    let consumer = req.param("consumer").to_owned();
    let this = app.clone();
    app.db
        .write(&req.ctx()?.actor(), async move |tx| {
            if this.allocations(tx, &consumer).await?.is_empty() {
                return Err(Error::not_found(format!("No allocations for consumer '{consumer}'")));
            }
            this.release(tx, &consumer, None).await
        })
        .await?;
    Ok(Reply::no_content())
}

pub async fn of_provider(app: Arc<Placement>, req: Req) -> Result<Reply> {
    json_only(&req)?;
    let mut tx = app.db.read().await?;
    let p = fetch(&mut tx, req.ctx()?, policy::ProviderAllocations, req.param("uuid")).await?;
    let mut by: BTreeMap<String, (BTreeMap<String, i64>, i64)> = BTreeMap::new();
    for r in tx
        .rows(
            "SELECT a.consumer_id, a.class, a.amount, c.generation FROM placement_allocation a
             JOIN placement_consumer c ON c.id = a.consumer_id WHERE a.provider_id = $1 ORDER BY a.consumer_id",
            &[p.uuid.as_str().into()],
        )
        .await?
    {
        let one = by.entry(r.str(0)?).or_default();
        one.0.insert(r.str(1)?, r.i64(2)?);
        one.1 = r.i64(3)?;
    }
    let view = |resources: &BTreeMap<String, i64>, generation: i64| {
        let mut v = json!({"resources": resources});
        if req.version >= Ver(1, 28)
            && let Some(map) = v.as_object_mut()
        {
            map.insert("consumer_generation".into(), generation.into());
        }
        v
    };
    let all: BTreeMap<&String, Value> = by.iter().map(|(c, (r, g))| (c, view(r, *g))).collect();
    let v = json!({"resource_provider_generation": p.provider_generation, "allocations": all});
    Ok(cached(&req, Reply::ok(&v), clock::now()))
}
