//! Allocations (Placement API reference, "Allocations").

use super::allow;
use super::providers::{GENERATION, bump};
use crate::names::Names;
use crate::{Placement, ResourceProvider, policy};
use haneul_auth::fetch;
use haneul_core::{Error, Result, id};
use haneul_http::{Body, FieldKind as K, Reply, Req, Ver, f, fields};
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

/// By provider: class and amount.
type Wanted = BTreeMap<String, BTreeMap<String, i64>>;

fn amounts(v: &Value, path: &str) -> Result<BTreeMap<String, i64>> {
    let bad = |why: &str| Error::field(path, format!("Invalid input for field/attribute {path}. {why}"));
    let map = v
        .as_object()
        .filter(|m| !m.is_empty())
        .ok_or_else(|| bad("resources must be an object with at least one class."))?;
    map.iter()
        .map(|(c, n)| match n.as_i64() {
            Some(n) if n >= 1 => Ok((c.clone(), n)),
            _ => Err(bad(&format!("{c} must be an integer of at least 1."))),
        })
        .collect()
}

/// The list of before 1.12, or the object by provider.
fn wanted(v: &Value, version: Ver) -> Result<Wanted> {
    let mut out = Wanted::new();
    let mut add = |uuid: &str, resources: &Value| -> Result<()> {
        if !id::is_uuid(uuid) {
            return Err(Error::field("allocations", format!("'{uuid}' is not a 'uuid'")));
        }
        out.insert(uuid.to_owned(), amounts(resources, &format!("allocations.{uuid}"))?);
        Ok(())
    };
    if version < Ver(1, 12) {
        let list = v
            .as_array()
            .ok_or_else(|| Error::field("allocations", "allocations must be a list."))?;
        for a in list {
            fields::check(&ITEM, a, version, "allocations")?;
            add(
                a["resource_provider"]["uuid"].as_str().unwrap_or_default(),
                &a["resources"],
            )?;
        }
    } else {
        let map = v
            .as_object()
            .ok_or_else(|| Error::field("allocations", "allocations must be an object by resource provider."))?;
        for (uuid, a) in map {
            fields::check(&UNDER, a, version, &format!("allocations.{uuid}"))?;
            add(uuid, &a["resources"])?;
        }
    }
    Ok(out)
}

impl Placement {
    /// Replaces all that a consumer holds. All or nothing: the caller's transaction is rolled back on an error.
    async fn replace(&self, tx: &mut Tx, consumer: &str, project: &str, user: &str, wanted: &Wanted) -> Result<()> {
        self.release(tx, consumer, None).await?;
        for (provider, resources) in wanted {
            if tx.find::<ResourceProvider>(provider).await?.is_none() {
                return Err(Error::field(
                    "allocations",
                    format!("Allocation for resource provider '{provider}' that does not exist."),
                ));
            }
            Names::Class
                .demand(tx, &resources.keys().cloned().collect::<BTreeSet<_>>())
                .await?;
            let inventories = self.inventories(tx, provider).await?;
            for (class, amount) in resources {
                let Some((i, used)) = inventories.get(class) else {
                    return Err(Error::conflict(format!(
                        "Unable to allocate inventory: Unable to create allocation for '{class}' on resource provider '{provider}': it has no such inventory."
                    )));
                };
                if let Some(why) = i.refuses(*amount) {
                    return Err(Error::conflict(format!(
                        "Unable to allocate inventory: Unable to create allocation for '{class}' on resource provider '{provider}'. The requested amount {amount} is {why}."
                    )));
                }
                if used + amount > i.capacity() {
                    return Err(Error::conflict(format!(
                        "Unable to allocate inventory: Unable to create allocation for '{class}' on resource provider '{provider}'. The requested amount would exceed the capacity: {amount} asked, {used} used of {}.",
                        i.capacity()
                    )));
                }
            }
            let list: Vec<(&str, i64)> = resources.iter().map(|(c, n)| (c.as_str(), *n)).collect();
            if !self.allocate(tx, consumer, project, user, provider, &list).await? {
                return Err(
                    Error::conflict("Unable to allocate inventory: another request was faster.")
                        .with_code("placement.concurrent_update"),
                );
            }
            bump(tx, provider).await?;
        }
        Ok(())
    }
}

pub async fn show(app: Arc<Placement>, req: Req) -> Result<Reply> {
    allow(&req, policy::AllocationsList)?;
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
    let mut v = json!({"allocations": all});
    if req.version >= Ver(1, 12)
        && let Some(row) = tx
            .row(
                "SELECT project_id, user_id FROM placement_consumer WHERE id = $1",
                &[consumer.into()],
            )
            .await?
        && let Some(map) = v.as_object_mut()
    {
        map.insert("project_id".into(), row.str(0)?.into());
        map.insert("user_id".into(), row.str(1)?.into());
    }
    Ok(Reply::ok(&v))
}

pub async fn put(app: Arc<Placement>, mut req: Req) -> Result<Reply> {
    allow(&req, policy::AllocationsUpdate)?;
    let consumer = req.param("consumer").to_owned();
    if !id::is_uuid(&consumer) {
        return Err(Error::bad_request(format!("Malformed consumer uuid: {consumer}")));
    }
    let body = req.json().await?;
    fields::check(&BODY, &body, req.version, "body")?;
    let wanted = wanted(&body["allocations"], req.version)?;
    if wanted.is_empty() {
        return Err(Error::field(
            "allocations",
            "allocations must name at least one resource provider; DELETE removes them.",
        ));
    }
    let none = "00000000-0000-0000-0000-000000000000";
    let project = body["project_id"].as_str().unwrap_or(none).to_owned();
    let user = body["user_id"].as_str().unwrap_or(none).to_owned();
    let this = app.clone();
    app.db
        .write(&req.ctx()?.actor(), async move |tx| {
            this.replace(tx, &consumer, &project, &user, &wanted).await
        })
        .await?;
    Ok(Reply::no_content())
}

pub async fn post(app: Arc<Placement>, mut req: Req) -> Result<Reply> {
    allow(&req, policy::AllocationsManage)?;
    let body = req.json().await?;
    let map = body
        .as_object()
        .filter(|m| !m.is_empty())
        .ok_or_else(|| Error::bad_request("The body must be an object by consumer, with at least one."))?;
    let mut all = Vec::new();
    for (consumer, v) in map {
        if !id::is_uuid(consumer) {
            return Err(Error::bad_request(format!("'{consumer}' is not a 'uuid'")));
        }
        fields::check(&BODY, v, req.version, consumer)?;
        all.push((
            consumer.clone(),
            v["project_id"].as_str().unwrap_or_default().to_owned(),
            v["user_id"].as_str().unwrap_or_default().to_owned(),
            wanted(&v["allocations"], req.version)?,
        ));
    }
    let this = app.clone();
    app.db
        .write(&req.ctx()?.actor(), async move |tx| {
            // What is given back may be taken by another consumer of the same request.
            for (consumer, ..) in &all {
                this.release(tx, consumer, None).await?;
            }
            for (consumer, project, user, wanted) in &all {
                this.replace(tx, consumer, project, user, wanted).await?;
            }
            Ok(())
        })
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
    let mut tx = app.db.read().await?;
    let p = fetch(&mut tx, req.ctx()?, policy::ProviderAllocations, req.param("uuid")).await?;
    let mut by: BTreeMap<String, BTreeMap<String, i64>> = BTreeMap::new();
    for r in tx
        .rows(
            "SELECT consumer_id, class, amount FROM placement_allocation WHERE provider_id = $1 ORDER BY consumer_id",
            &[p.uuid.as_str().into()],
        )
        .await?
    {
        by.entry(r.str(0)?).or_default().insert(r.str(1)?, r.i64(2)?);
    }
    let all: BTreeMap<&String, Value> = by.iter().map(|(c, r)| (c, json!({"resources": r}))).collect();
    Ok(Reply::ok(
        &json!({"resource_provider_generation": p.provider_generation, "allocations": all}),
    ))
}
