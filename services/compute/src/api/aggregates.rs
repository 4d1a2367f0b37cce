//! Host aggregates (Nova API reference, "Host aggregates (os-aggregates)").

use super::actions::{one_key, unknown};
use super::input;
use crate::Compute;
use crate::model::{Aggregate, ComputeService, aggregate::ZONE};
use crate::policy::{self, acts};
use haneul_auth::{Action, Target, allow_create, fetch};
use haneul_core::{Error, Kind, Result, clock, id};
use haneul_http::{Body, FieldKind as K, Reply, Req, Ver, f, fields};
use haneul_store::{Dir, Query, Stored, Tx};
use serde_json::{Value, json};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

const NAME: K = K::Str { min: 1, max: 255 };
const ZONE_NAME: K = K::Check(|v| match v {
    Value::Null => Ok(()),
    Value::String(s) if s.is_empty() || s.chars().count() > 255 => {
        Err("It must be a string of 1 to 255 characters.".into())
    }
    // A colon parts zone and host where servers are created.
    Value::String(s) if s.contains(':') => Err("A zone's name cannot hold a colon.".into()),
    Value::String(_) => Ok(()),
    _ => Err("It must be a string or null.".into()),
});
static CREATE: Body = Body {
    open: false,
    fields: &[f("name", NAME).req(), f("availability_zone", ZONE_NAME).null()],
};
static UPDATE: Body = Body {
    open: false,
    fields: &[f("name", NAME), f("availability_zone", ZONE_NAME).null()],
};
static HOST: Body = Body {
    open: false,
    fields: &[f("host", K::Str { min: 1, max: 255 }).req()],
};
static METADATA: Body = Body {
    open: false,
    fields: &[f("metadata", K::Check(|v| input::metadata_ok(v, true))).req()],
};

/// Names of hosts, by id.
async fn names(tx: &mut Tx) -> Result<HashMap<String, String>> {
    let all = tx.list::<ComputeService>(&Query::new()).await?;
    Ok(all
        .into_iter()
        .map(|s| (s.host_id.clone(), s.host_name.clone()))
        .collect())
}

fn view(a: &Stored<Aggregate>, names: &HashMap<String, String>, v: Ver, whole: bool) -> Value {
    // Never changed: no time, as in Nova.
    let updated = (a.updated_at != a.created_at).then(|| clock::naive_micros(a.updated_at));
    let mut out = json!({
        "id": a.id.parse::<i64>().unwrap_or_default(), "name": a.name, "availability_zone": a.zone(),
        "created_at": clock::naive_micros(a.created_at), "updated_at": updated, "deleted": false, "deleted_at": null,
    });
    let Some(m) = out.as_object_mut() else { return out };
    if whole {
        let mut hosts: Vec<&str> = a
            .hosts
            .iter()
            .filter_map(|h| names.get(h).map(String::as_str))
            .collect();
        hosts.sort_unstable();
        m.insert("hosts".into(), json!(hosts));
        m.insert("metadata".into(), json!(a.metadata));
    }
    if v >= Ver(2, 41) {
        m.insert("uuid".into(), a.uuid.as_str().into());
    }
    out
}

/// The number in the path.
fn number(req: &Req) -> Result<String> {
    let asked = req.param("id");
    match asked.parse::<i64>() {
        Ok(n) => Ok(n.to_string()),
        Err(_) => Err(Error::field("id", format!("id must be an integer, and is '{asked}'"))),
    }
}

fn taken(name: &str) -> Error {
    Error::conflict(format!("Aggregate {name} already exists."))
}

/// `GET /os-aggregates`
pub(crate) async fn index(app: Arc<Compute>, req: Req) -> Result<Reply> {
    req.ctx()?.enforce(policy::AGGREGATES, &Target::default())?;
    let mut tx = app.db.read().await?;
    let names = names(&mut tx).await?;
    let query = Query::new().order("created_at", Dir::Asc).order("id", Dir::Asc);
    let all = tx.list::<Aggregate>(&query).await?;
    let list: Vec<Value> = all.iter().map(|a| view(a, &names, req.version, true)).collect();
    Ok(Reply::ok(&json!({"aggregates": list})))
}

/// `GET /os-aggregates/{id}`
pub(crate) async fn show(app: Arc<Compute>, req: Req) -> Result<Reply> {
    req.ctx()?.enforce(acts::AggregateShow::RULE, &Target::default())?;
    let id = number(&req)?;
    let mut tx = app.db.read().await?;
    let a = fetch(&mut tx, req.ctx()?, acts::AggregateShow, &id).await?;
    let names = names(&mut tx).await?;
    Ok(Reply::ok(&json!({"aggregate": view(&a, &names, req.version, true)})))
}

/// `POST /os-aggregates`
pub(crate) async fn create(app: Arc<Compute>, mut req: Req) -> Result<Reply> {
    let ctx = req.ctx()?.clone();
    ctx.enforce(acts::AggregateCreate::RULE, &Target::default())?;
    let body = req.fields("aggregate", &CREATE).await?;
    let name = trimmed(&body)?.unwrap_or_default();
    let zone = input::text(&body, "availability_zone").map(|z| (ZONE.to_owned(), z));
    let c = ctx.clone();
    let made = app
        .db
        .write(&ctx.actor(), async move |tx| {
            let grant = allow_create(&c, acts::AggregateCreate, &Target::default())?;
            let new = Aggregate {
                id: tx.next_number("compute.aggregate").await?.to_string(),
                uuid: id::uuid(),
                name: name.clone(),
                metadata: zone.clone().into_iter().collect(),
                hosts: BTreeSet::new(),
            };
            tx.insert(&grant, &new).await?.ok_or_else(|| taken(&name))
        })
        .await?;
    Ok(Reply::ok(
        &json!({"aggregate": view(&made, &HashMap::new(), req.version, false)}),
    ))
}

/// The name, without white space around it.
fn trimmed(body: &Value) -> Result<Option<String>> {
    match input::text(body, "name").map(|n| n.trim().to_owned()) {
        Some(n) if n.is_empty() => Err(Error::field(
            "name",
            "Invalid input for field/attribute name. It is empty.",
        )),
        other => Ok(other),
    }
}

/// What is to be done to an aggregate.
#[derive(Clone, Debug)]
enum Change {
    /// Name and zone; `None` stays, a zone of `None` goes.
    Update(Option<String>, Option<Option<String>>),
    Add(String),
    Remove(String),
    /// `None` removes the key.
    Metadata(Vec<(String, Option<String>)>),
}

/// A host's id by its name.
async fn host_id(tx: &mut Tx, name: &str) -> Result<String> {
    let found = tx.list::<ComputeService>(&Query::new().eq("name", name)).await?;
    found
        .first()
        .map(|s| s.host_id.clone())
        .ok_or_else(|| Error::not_found(format!("Compute host {name} could not be found.")))
}

async fn make(tx: &mut Tx, a: &mut Aggregate, change: &Change) -> Result<()> {
    let zone = |a: &mut Aggregate, z: &Option<String>| match z {
        Some(z) => drop(a.metadata.insert(ZONE.into(), z.clone())),
        None => drop(a.metadata.remove(ZONE)),
    };
    match change {
        Change::Update(name, wanted) => {
            if let Some(n) = name.as_ref().filter(|n| **n != a.name) {
                if tx.count::<Aggregate>(&Query::new().eq("name", n.as_str())).await? > 0 {
                    return Err(taken(n));
                }
                a.name.clone_from(n);
            }
            if let Some(z) = wanted {
                zone(a, z);
            }
        }
        Change::Add(name) => {
            if !a.hosts.insert(host_id(tx, name).await?) {
                return Err(Error::conflict(format!("Aggregate {} already has host {name}.", a.id)));
            }
        }
        Change::Remove(name) => {
            if !a.hosts.remove(&host_id(tx, name).await?) {
                return Err(Error::not_found(format!("Aggregate {} has no host {name}.", a.id)));
            }
        }
        Change::Metadata(pairs) => {
            for (k, v) in pairs {
                match v {
                    Some(v) => drop(a.metadata.insert(k.clone(), v.clone())),
                    None => drop(a.metadata.remove(k)),
                }
            }
        }
    }
    Ok(())
}

/// Changes one, answers it whole.
async fn apply<A>(app: &Arc<Compute>, req: &Req, action: A, what: Change) -> Result<Reply>
where
    A: Action<On = Aggregate> + Copy + Send + Sync + 'static,
{
    let (a, c, id) = (app.clone(), req.ctx()?.clone(), number(req)?);
    // nova/api/openstack/compute/aggregates.py: a clash of zones is 409 for a host, and 400 for what is said of all.
    let clash = if matches!(what, Change::Add(_)) {
        Kind::Conflict
    } else {
        Kind::BadRequest
    };
    let (stored, names) = app
        .db
        .write(&req.ctx()?.actor(), async move |tx| {
            let old = fetch(tx, &c, action, &id).await?;
            let mut new = old.edit();
            make(tx, &mut new, &what).await?;
            if let Some(why) = a.check_zone(tx, &new).await? {
                return Err(Error::new(
                    clash,
                    format!("Cannot change aggregate {id}. Reason: {why}"),
                ));
            }
            let hosts: BTreeSet<String> = old.hosts.union(&new.hosts).cloned().collect();
            let moved = old.zone() != new.zone() || old.hosts != new.hosts;
            let stored = if new == old.value {
                Stored::clone(&old)
            } else {
                tx.update(&old, &new).await?
            };
            if moved {
                a.rezone(tx, &hosts).await?;
            }
            Ok((stored, names(tx).await?))
        })
        .await?;
    Ok(Reply::ok(
        &json!({"aggregate": view(&stored, &names, req.version, true)}),
    ))
}

/// `PUT /os-aggregates/{id}`
pub(crate) async fn update(app: Arc<Compute>, mut req: Req) -> Result<Reply> {
    req.ctx()?.enforce(acts::AggregateUpdate::RULE, &Target::default())?;
    let body = req.fields("aggregate", &UPDATE).await?;
    if body.as_object().is_none_or(serde_json::Map::is_empty) {
        return Err(Error::field(
            "aggregate",
            "Invalid input for field/attribute aggregate. Name or availability_zone is needed.",
        ));
    }
    let what = Change::Update(trimmed(&body)?, input::resettable(&body, "availability_zone"));
    apply(&app, &req, acts::AggregateUpdate, what).await
}

/// `DELETE /os-aggregates/{id}`: only an empty one.
pub(crate) async fn delete(app: Arc<Compute>, req: Req) -> Result<Reply> {
    req.ctx()?.enforce(acts::AggregateDelete::RULE, &Target::default())?;
    let (c, id) = (req.ctx()?.clone(), number(&req)?);
    app.db
        .write(&req.ctx()?.actor(), async move |tx| {
            let a = fetch(tx, &c, acts::AggregateDelete, &id).await?;
            if !a.hosts.is_empty() {
                return Err(Error::bad_request(format!(
                    "Cannot delete aggregate {id}. Reason: Host aggregate is not empty: it has {} hosts. Remove them first.",
                    a.hosts.len()
                )));
            }
            tx.delete(&a).await
        })
        .await?;
    Ok(Reply::empty(http::StatusCode::OK))
}

/// `POST /os-aggregates/{id}/action`
pub(crate) async fn action(app: Arc<Compute>, mut req: Req) -> Result<Reply> {
    let ctx = req.ctx()?.clone();
    let body = req.json().await?;
    let (name, arg) = one_key(&body)?;
    let check = |table: &Body| fields::check(table, arg, req.version, name);
    let host = || input::text(arg, "host").unwrap_or_default();
    match name {
        "add_host" => {
            ctx.enforce(acts::AggregateAddHost::RULE, &Target::default())?;
            check(&HOST)?;
            apply(&app, &req, acts::AggregateAddHost, Change::Add(host())).await
        }
        "remove_host" => {
            ctx.enforce(acts::AggregateRemoveHost::RULE, &Target::default())?;
            check(&HOST)?;
            apply(&app, &req, acts::AggregateRemoveHost, Change::Remove(host())).await
        }
        "set_metadata" => {
            ctx.enforce(acts::AggregateSetMetadata::RULE, &Target::default())?;
            check(&METADATA)?;
            let pairs: Vec<(String, Option<String>)> = arg
                .get("metadata")
                .and_then(Value::as_object)
                .into_iter()
                .flatten()
                .map(|(k, v)| (k.clone(), v.as_str().map(str::to_owned)))
                .collect();
            if pairs.iter().any(|(k, v)| k == ZONE && v.as_deref() == Some("")) {
                return Err(Error::field(
                    "availability_zone",
                    "The availability zone cannot be empty.",
                ));
            }
            apply(&app, &req, acts::AggregateSetMetadata, Change::Metadata(pairs)).await
        }
        other => Err(unknown(other)),
    }
}
