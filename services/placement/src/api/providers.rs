//! Resource providers, their aggregates and traits.

use super::{CONCURRENT, allow, body_for, cached, check, json_only, known_query, quoted, strings_that, whole};
use crate::logic::query;
use crate::names::Names;
use crate::{Placement, ResourceProvider, policy};
use haneul_auth::{Target, allow_create, fetch};
use haneul_core::{Error, Kind, Result, clock, id};
use haneul_http::fields::Field;
use haneul_http::{Body, FieldKind as K, Reply, Req, Ver, f, fields};
use haneul_store::{System, Tx};
use http::StatusCode;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;

const NAME: Field = f("name", K::Str { min: 1, max: 200 }).req();
const PARENT: Field = f("parent_provider_uuid", K::Uuid).null().since(1, 14);
static CREATE: Body = Body {
    open: false,
    fields: &[NAME, f("uuid", K::Uuid), PARENT],
};
static UPDATE: Body = Body {
    open: false,
    fields: &[NAME, PARENT],
};
pub(super) const GENERATION: K = K::Check(whole::<0, { i64::MAX }>);
static AGGREGATES: Body = Body {
    open: false,
    fields: &[
        f("aggregates", K::Check(uuids)).req(),
        f("resource_provider_generation", GENERATION).req(),
    ],
};
static TRAITS: Body = Body {
    open: false,
    fields: &[
        f("traits", K::Check(trait_names)).req(),
        f("resource_provider_generation", GENERATION).req(),
    ],
};

fn uuids(v: &Value) -> Result<(), String> {
    strings_that(v, |s| match id::is_uuid(s) {
        true => Ok(()),
        false => Err(format!("{} is not a 'uuid'.", quoted(&s.into()))),
    })
}

fn trait_names(v: &Value) -> Result<(), String> {
    strings_that(v, |s| match s.chars().count() {
        0 => Err("'' is too short, should be non-empty.".into()),
        256.. => Err("It is too long: at most 255 characters are allowed.".into()),
        _ => Ok(()),
    })
}

fn strings(v: &Value) -> Vec<String> {
    v.as_array()
        .map(|l| l.iter().filter_map(|x| x.as_str().map(str::to_owned)).collect())
        .unwrap_or_default()
}

/// Refuses a write that saw another generation (error code placement.concurrent_update).
pub(super) fn same_generation(p: &ResourceProvider, said: i64) -> Result<()> {
    if p.provider_generation == said {
        return Ok(());
    }
    Err(Error::conflict(format!(
        "resource provider generation conflict: {} is at generation {}, and the request says {said}. Resource provider's generation already changed. Please update the generation and try again.",
        p.uuid, p.provider_generation
    ))
    .with_code(CONCURRENT))
}

fn view(req: &Req, p: &ResourceProvider, root: &str) -> Value {
    let base = format!("/placement/resource_providers/{}", p.uuid);
    let mut rels = vec!["inventories", "usages"];
    if req.version >= Ver(1, 1) {
        rels.push("aggregates");
    }
    if req.version >= Ver(1, 6) {
        rels.push("traits");
    }
    if req.version >= Ver(1, 11) {
        rels.push("allocations");
    }
    let mut links = vec![json!({"rel": "self", "href": base})];
    links.extend(rels.iter().map(|r| json!({"rel": r, "href": format!("{base}/{r}")})));
    let mut v = json!({"uuid": p.uuid, "name": p.name, "generation": p.provider_generation, "links": links});
    if req.version >= Ver(1, 14)
        && let Some(map) = v.as_object_mut()
    {
        map.insert("parent_provider_uuid".into(), json!(p.parent));
        map.insert("root_provider_uuid".into(), json!(root));
    }
    v
}

/// The root of a provider's tree.
async fn root_of(tx: &mut Tx, p: &ResourceProvider) -> Result<String> {
    let mut here = p.clone();
    while let Some(up) = &here.parent
        && *up != p.uuid
        && let Some(next) = tx.find::<ResourceProvider>(up).await?
    {
        here = next.value;
    }
    Ok(here.uuid)
}

pub async fn list(app: Arc<Placement>, req: Req) -> Result<Reply> {
    allow(&req, policy::List)?;
    json_only(&req)?;
    known_query(
        &req,
        &[
            ("name", Ver(1, 0)),
            ("uuid", Ver(1, 0)),
            ("member_of", Ver(1, 3)),
            ("resources", Ver(1, 4)),
            ("in_tree", Ver(1, 14)),
            ("required", Ver(1, 18)),
        ],
    )?;
    for name in ["uuid", "in_tree"] {
        if let Some(u) = req.q(name).filter(|u| !id::is_uuid(u)) {
            return Err(Error::field(
                name,
                format!("Invalid query string parameters: {name}: '{u}' is not a 'uuid'"),
            ));
        }
    }
    let member_of = query::member_of(&req, "")?;
    let traits = query::traits(&req, "")?;
    let wanted = req
        .q("resources")
        .map(query::resources)
        .transpose()?
        .unwrap_or_default();
    let mut tx = app.db.read().await?;
    let names: BTreeSet<String> = traits.names().cloned().collect();
    let about = "Invalid trait(s) in \"required\" parameter: ";
    Names::Trait.demand(&mut tx, about, &names).await?;
    let classes: BTreeSet<String> = wanted.iter().map(|(c, _)| c.clone()).collect();
    let about = "Invalid resource class in resources parameter: ";
    Names::Class.demand(&mut tx, about, &classes).await?;
    let forest = app.forest(&mut tx).await?;
    // Of a tree that is not there nobody is.
    let tree = req.q("in_tree").map(|u| forest.place(u).map(|p| forest.root(p)));
    let views: Vec<Value> = forest
        .nodes
        .iter()
        .filter(|n| {
            req.q("name").is_none_or(|name| n.provider.name == name)
                && req.q("uuid").is_none_or(|uuid| same_uuid(&n.provider.uuid, uuid))
                && tree.is_none_or(|t| t == Some(n.root))
                && n.in_aggregates(&member_of.required)
                && !n.in_any(&member_of.forbidden)
                && traits.fit(|t| n.has_trait(t))
                && wanted.iter().all(|(class, amount)| n.gives(class, *amount))
        })
        .map(|n| view(&req, &n.provider, forest.uuid(n.root)))
        .collect();
    let reply = Reply::ok(&json!({"resource_providers": views}));
    Ok(cached(&req, reply, clock::now()))
}

/// With dashes or without.
fn same_uuid(ours: &str, asked: &str) -> bool {
    ours == asked || dashed(asked) == ours
}

/// A UUID as we store it.
pub(super) fn dashed(text: &str) -> String {
    let hex: String = text
        .chars()
        .filter(char::is_ascii_hexdigit)
        .collect::<String>()
        .to_ascii_lowercase();
    match (
        hex.get(..8),
        hex.get(8..12),
        hex.get(12..16),
        hex.get(16..20),
        hex.get(20..),
    ) {
        (Some(a), Some(b), Some(c), Some(d), Some(e)) => format!("{a}-{b}-{c}-{d}-{e}"),
        _ => text.to_owned(),
    }
}

pub async fn create(app: Arc<Placement>, mut req: Req) -> Result<Reply> {
    allow(&req, policy::Create)?;
    let body = req.json().await?;
    check(&CREATE, &body, req.version, "body")?;
    let ctx = req.ctx()?.clone();
    let new = ResourceProvider {
        uuid: body["uuid"].as_str().map_or_else(id::uuid, dashed),
        name: body["name"].as_str().unwrap_or_default().to_owned(),
        provider_generation: 0,
        parent: body["parent_provider_uuid"].as_str().map(str::to_owned),
        traits: vec![],
        aggregates: vec![],
    };
    let stored = new.clone();
    let root = app
        .db
        .write(&ctx.actor(), async move |tx| {
            let grant = allow_create(&ctx, policy::Create, &Target::default())?;
            let about = |why: &str| {
                let why = format!(
                    "Unable to create resource provider \"{}\", {}: {why}",
                    stored.name, stored.uuid
                );
                Error::field("parent_provider_uuid", why)
            };
            if stored.parent.as_ref() == Some(&stored.uuid) {
                return Err(about("parent provider UUID cannot be same as UUID."));
            }
            let mut root = stored.uuid.clone();
            if let Some(parent) = &stored.parent {
                let Some(up) = tx.find::<ResourceProvider>(parent).await? else {
                    return Err(about(&format!("parent provider UUID does not exist: {parent}.")));
                };
                root = root_of(tx, &up).await?;
            }
            if tx.insert(&grant, &stored).await?.is_none() {
                let same = tx.find::<ResourceProvider>(&stored.uuid).await?.is_some();
                let what = if same {
                    format!("uuid: {}", stored.uuid)
                } else {
                    format!("name: {}", stored.name)
                };
                return Err(
                    Error::conflict(format!("Conflicting resource provider {what} already exists."))
                        .with_code("placement.duplicate_name"),
                );
            }
            Ok(root)
        })
        .await?;
    let location = format!("{}/resource_providers/{}", req.base, new.uuid);
    if req.version >= Ver(1, 20) {
        let reply = Reply::ok(&view(&req, &new, &root)).header("location", location);
        return Ok(cached(&req, reply, clock::now()));
    }
    Ok(Reply::empty(StatusCode::CREATED).header("location", location))
}

pub async fn show(app: Arc<Placement>, req: Req) -> Result<Reply> {
    json_only(&req)?;
    let mut tx = app.db.read().await?;
    let p = fetch(&mut tx, req.ctx()?, policy::Show, req.param("uuid")).await?;
    let root = root_of(&mut tx, &p).await?;
    Ok(cached(&req, Reply::ok(&view(&req, &p, &root)), p.updated_at))
}

pub async fn update(app: Arc<Placement>, mut req: Req) -> Result<Reply> {
    let body = body_for(&app, &mut req, policy::Update).await?;
    check(&UPDATE, &body, req.version, "body")?;
    let (ctx, uuid, version) = (req.ctx()?.clone(), req.param("uuid").to_owned(), req.version);
    let this = app.clone();
    let (p, root) = app
        .db
        .write(&ctx.actor(), async move |tx| {
            let p = fetch(tx, &ctx, policy::Update, &uuid).await?;
            let mut new = p.edit();
            new.name = body["name"].as_str().unwrap_or_default().to_owned();
            if let Some(parent) = body.get("parent_provider_uuid") {
                new.parent = parent.as_str().map(dashed);
                this.may_move(tx, &p, new.parent.as_deref(), version).await?;
            }
            if let Some(other) = this.named(tx, &new.name).await?
                && other != uuid
            {
                return Err(
                    Error::conflict(format!("Conflicting resource provider {} already exists.", new.name))
                        .with_code("placement.duplicate_name"),
                );
            }
            let done = tx.update(&p, &new).await?;
            let root = root_of(tx, &done.value).await?;
            Ok((done.value, root))
        })
        .await?;
    Ok(cached(&req, Reply::ok(&view(&req, &p, &root)), clock::now()))
}

impl Placement {
    /// The id of the provider with this name.
    async fn named(&self, tx: &mut Tx, name: &str) -> Result<Option<String>> {
        let found = tx
            .row("SELECT id FROM placement_provider WHERE name = $1", &[name.into()])
            .await?;
        found.map(|r| r.str(0)).transpose()
    }

    /// Whether a provider may get this parent: before 1.37 only one that has none may, and no tree may become a ring.
    async fn may_move(&self, tx: &mut Tx, p: &ResourceProvider, parent: Option<&str>, version: Ver) -> Result<()> {
        let refuse = |why: &str| {
            let why = format!("Unable to save resource provider {}: {why}", p.uuid);
            Err(Error::field("parent_provider_uuid", why))
        };
        let free = version >= Ver(1, 37);
        let Some(up) = parent else {
            return match p.parent {
                Some(_) if !free => refuse("un-parenting a provider is not currently allowed."),
                _ => Ok(()),
            };
        };
        if up != p.uuid && tx.find::<ResourceProvider>(up).await?.is_none() {
            return refuse(&format!("parent provider UUID does not exist: {up}."));
        }
        if !free && p.parent.as_deref().is_some_and(|old| old != up) {
            return refuse("re-parenting a provider is not currently allowed.");
        }
        let mut here = Some(up.to_owned());
        while let Some(at) = here {
            if at == p.uuid {
                return refuse("creating loop in the provider tree is not allowed.");
            }
            here = tx.find::<ResourceProvider>(&at).await?.and_then(|s| s.value.parent);
        }
        Ok(())
    }
}

pub async fn delete(app: Arc<Placement>, req: Req) -> Result<Reply> {
    let (ctx, uuid) = (req.ctx()?.clone(), req.param("uuid").to_owned());
    let this = app.clone();
    app.db
        .write(&ctx.actor(), async move |tx| {
            let p = fetch(tx, &ctx, policy::Delete, &uuid)
                .await
                .map_err(|e| match e.kind() {
                    Kind::NotFound => {
                        Error::not_found(format!("No resource provider with uuid {uuid} found for delete"))
                    }
                    _ => e,
                })?;
            this.remove_provider(tx, &p).await
        })
        .await?;
    Ok(Reply::no_content())
}

pub async fn aggregates(app: Arc<Placement>, req: Req) -> Result<Reply> {
    json_only(&req)?;
    let mut tx = app.db.read().await?;
    let p = fetch(&mut tx, req.ctx()?, policy::AggregatesList, req.param("uuid")).await?;
    Ok(cached(&req, Reply::ok(&aggregates_view(&req, &p)), clock::now()))
}

fn aggregates_view(req: &Req, p: &ResourceProvider) -> Value {
    let mut v = json!({"aggregates": p.aggregates});
    if req.version >= Ver(1, 19)
        && let Some(map) = v.as_object_mut()
    {
        map.insert("resource_provider_generation".into(), p.provider_generation.into());
    }
    v
}

pub async fn set_aggregates(app: Arc<Placement>, mut req: Req) -> Result<Reply> {
    let body = body_for(&app, &mut req, policy::AggregatesUpdate).await?;
    let guarded = req.version >= Ver(1, 19);
    let wanted = if guarded {
        check(&AGGREGATES, &body, req.version, "body")?;
        strings(&body["aggregates"])
    } else {
        // Before 1.19 the body is the list alone.
        if let Err(why) = uuids(&body) {
            let why = format!("JSON does not validate: {why} The body must be a list of UUIDs.");
            return Err(Error::field("aggregates", why));
        }
        strings(&body)
    };
    let said = fields::int(&body["resource_provider_generation"]).unwrap_or(0);
    let (ctx, uuid) = (req.ctx()?.clone(), req.param("uuid").to_owned());
    let p = app
        .db
        .write(&ctx.actor(), async move |tx| {
            let p = fetch(tx, &ctx, policy::AggregatesUpdate, &uuid).await?;
            if guarded {
                same_generation(&p, said)?;
            }
            let mut new = p.edit();
            new.aggregates.clone_from(&wanted);
            if guarded {
                new.provider_generation += 1;
            }
            tx.update(&p, &new).await
        })
        .await?;
    Ok(cached(&req, Reply::ok(&aggregates_view(&req, &p)), clock::now()))
}

fn traits_view(p: &ResourceProvider) -> Value {
    json!({"traits": p.traits, "resource_provider_generation": p.provider_generation})
}

pub async fn traits(app: Arc<Placement>, req: Req) -> Result<Reply> {
    json_only(&req)?;
    let mut tx = app.db.read().await?;
    let p = fetch(&mut tx, req.ctx()?, policy::ProviderTraitsList, req.param("uuid")).await?;
    Ok(cached(&req, Reply::ok(&traits_view(&p)), clock::now()))
}

pub async fn set_traits(app: Arc<Placement>, mut req: Req) -> Result<Reply> {
    allow(&req, policy::ProviderTraitsUpdate)?;
    let body = req.json().await?;
    check(&TRAITS, &body, req.version, "body")?;
    let wanted: BTreeSet<String> = strings(&body["traits"]).into_iter().collect();
    let said = fields::int(&body["resource_provider_generation"]).unwrap_or(0);
    let (ctx, uuid) = (req.ctx()?.clone(), req.param("uuid").to_owned());
    let p = app
        .db
        .write(&ctx.actor(), async move |tx| {
            let p = fetch(tx, &ctx, policy::ProviderTraitsUpdate, &uuid).await?;
            same_generation(&p, said)?;
            Names::Trait.demand(tx, "No such trait: ", &wanted).await?;
            let mut new = p.edit();
            // Standard ones first.
            let (custom, standard): (Vec<_>, Vec<_>) = wanted.iter().cloned().partition(|t| t.starts_with("CUSTOM_"));
            new.traits = [standard, custom].concat();
            new.provider_generation += 1;
            tx.update(&p, &new).await
        })
        .await?;
    Ok(cached(&req, Reply::ok(&traits_view(&p)), clock::now()))
}

pub async fn clear_traits(app: Arc<Placement>, req: Req) -> Result<Reply> {
    let (ctx, uuid) = (req.ctx()?.clone(), req.param("uuid").to_owned());
    app.db
        .write(&ctx.actor(), async move |tx| {
            let p = fetch(tx, &ctx, policy::ProviderTraitsDelete, &uuid).await?;
            let mut new = p.edit();
            new.traits.clear();
            new.provider_generation += 1;
            tx.update(&p, &new).await
        })
        .await?;
    Ok(Reply::no_content())
}

/// Raises the provider's generation, for inventories and allocations that changed under it.
pub(super) async fn bump(tx: &mut Tx, uuid: &str) -> Result<i64> {
    let Some(old) = tx.find::<ResourceProvider>(uuid).await? else {
        return Err(Error::bad_request(format!(
            "Allocation for resource provider '{uuid}' that does not exist."
        )));
    };
    let mut new = old.value.clone();
    new.provider_generation += 1;
    let generation = new.provider_generation;
    tx.update(&System::of(old), &new).await?;
    Ok(generation)
}
