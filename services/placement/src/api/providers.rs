//! Resource providers, their aggregates and traits.

use super::{allow, body_for, known_query, whole};
use crate::names::Names;
use crate::{Placement, ResourceProvider, policy};
use haneul_auth::{Target, allow_create, fetch};
use haneul_core::{Error, Result, id};
use haneul_http::fields::Field;
use haneul_http::{Body, FieldKind as K, Reply, Req, Ver, f, fields};
use haneul_store::{Dir, Query, System, Tx};
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
const UUIDS: K = K::List {
    of: &K::Uuid,
    max: 1000,
};
static AGGREGATES: Body = Body {
    open: false,
    fields: &[
        f("aggregates", UUIDS).req(),
        f("resource_provider_generation", GENERATION).req(),
    ],
};
static TRAITS: Body = Body {
    open: false,
    fields: &[
        f(
            "traits",
            K::List {
                of: &K::Str { min: 1, max: 255 },
                max: 1000,
            },
        )
        .req(),
        f("resource_provider_generation", GENERATION).req(),
    ],
};

pub(super) fn strings(v: &Value) -> Vec<String> {
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
        "resource provider generation conflict: {} is at generation {}, and the request says {said}. Read it again and repeat.",
        p.uuid, p.provider_generation
    ))
    .with_code("placement.concurrent_update"))
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

/// The root of each provider's tree, by id.
fn root_of<'a>(all: &'a [ResourceProvider], p: &'a ResourceProvider) -> &'a str {
    let mut here = p;
    for _ in 0..all.len() {
        match here.parent.as_ref().and_then(|up| all.iter().find(|x| &x.uuid == up)) {
            Some(up) => here = up,
            None => break,
        }
    }
    &here.uuid
}

/// `VCPU:2,MEMORY_MB:512`
pub(super) fn resources(text: &str) -> Result<Vec<(String, i64)>> {
    let bad = || {
        Error::field(
            "resources",
            format!(
                "Badly formed resources parameter. Expected resources query string parameter in form: ?resources=VCPU:2,MEMORY_MB:1024. Got: {text}."
            ),
        )
    };
    let mut out: Vec<(String, i64)> = Vec::new();
    for part in text.split(',') {
        let (class, amount) = part.split_once(':').ok_or_else(bad)?;
        let amount: i64 = amount.parse().map_err(|_| bad())?;
        if class.is_empty() || amount < 1 {
            return Err(Error::field(
                "resources",
                format!("Requested resource {class} expected positive integer amount. Got: {amount}."),
            ));
        }
        if out.iter().any(|(c, _)| c == class) {
            return Err(bad());
        }
        out.push((class.to_owned(), amount));
    }
    Ok(out)
}

/// `HW_A,HW_B`
pub(super) async fn required(tx: &mut Tx, text: &str) -> Result<Vec<String>> {
    let names: Vec<String> = text.split(',').map(|s| s.trim().to_owned()).collect();
    if names.iter().any(String::is_empty) {
        return Err(Error::field(
            "required",
            format!(
                "Invalid query string parameters: Expected 'required' parameter value of the form: HW_CPU_X86_VMX,CUSTOM_MAGIC. Got: {text}"
            ),
        ));
    }
    Names::Trait.demand(tx, &names.iter().cloned().collect()).await?;
    Ok(names)
}

impl Placement {
    pub(crate) async fn snapshot_providers(&self, tx: &mut Tx) -> Result<Vec<ResourceProvider>> {
        let q = Query::new().order("created_at", Dir::Asc).order("id", Dir::Asc);
        Ok(tx
            .list::<ResourceProvider>(&q)
            .await?
            .into_iter()
            .map(|s| s.value)
            .collect())
    }
}

pub async fn list(app: Arc<Placement>, req: Req) -> Result<Reply> {
    req.ctx()?
        .enforce("placement:resource_providers:list", &Target::default())?;
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
    let mut tx = app.db.read().await?;
    let all = app.snapshot_providers(&mut tx).await?;
    let mut shown: Vec<&ResourceProvider> = all.iter().collect();
    if let Some(n) = req.q("name") {
        shown.retain(|p| p.name == n);
    }
    if let Some(u) = req.q("uuid") {
        shown.retain(|p| p.uuid == u);
    }
    if let Some(m) = req.q("member_of") {
        let wanted: Vec<&str> = m.strip_prefix("in:").unwrap_or(m).split(',').collect();
        if let Some(bad) = wanted.iter().find(|w| !id::is_uuid(w)) {
            return Err(Error::field(
                "member_of",
                format!(
                    "Invalid query string parameters: Expected 'member_of' parameter to contain valid UUID(s). Got: {bad}"
                ),
            ));
        }
        shown.retain(|p| p.aggregates.iter().any(|a| wanted.contains(&a.as_str())));
    }
    if let Some(root) = req.q("in_tree") {
        let wanted = all.iter().find(|p| p.uuid == root).map(|p| root_of(&all, p).to_owned());
        shown.retain(|p| wanted.as_deref() == Some(root_of(&all, p)));
    }
    if let Some(text) = req.q("required") {
        let wanted = required(&mut tx, text).await?;
        shown.retain(|p| wanted.iter().all(|t| p.traits.contains(t)));
    }
    if let Some(text) = req.q("resources") {
        let wanted = resources(text)?;
        Names::Class
            .demand(&mut tx, &wanted.iter().map(|(c, _)| c.clone()).collect())
            .await?;
        let states = app.snapshot(&mut tx).await?;
        shown.retain(|p| {
            states
                .iter()
                .find(|s| s.uuid == p.uuid)
                .is_some_and(|s| s.fits(&wanted))
        });
    }
    let views: Vec<Value> = shown.iter().map(|p| view(&req, p, root_of(&all, p))).collect();
    Ok(Reply::ok(&json!({"resource_providers": views})))
}

pub async fn create(app: Arc<Placement>, mut req: Req) -> Result<Reply> {
    allow(&req, policy::Create)?;
    let body = req.json().await?;
    fields::check(&CREATE, &body, req.version, "body")?;
    let ctx = req.ctx()?.clone();
    let new = ResourceProvider {
        uuid: body["uuid"].as_str().map_or_else(id::uuid, str::to_owned),
        name: body["name"].as_str().unwrap_or_default().to_owned(),
        provider_generation: 0,
        parent: body["parent_provider_uuid"].as_str().map(str::to_owned),
        traits: vec![],
        aggregates: vec![],
    };
    let stored = new.clone();
    app.db
        .write(&ctx.actor(), async move |tx| {
            let grant = allow_create(&ctx, policy::Create, &Target::default())?;
            if let Some(parent) = &stored.parent
                && (*parent == stored.uuid || tx.find::<ResourceProvider>(parent).await?.is_none())
            {
                return Err(Error::field(
                    "parent_provider_uuid",
                    format!("parent provider UUID does not exist: {parent}"),
                ));
            }
            if tx.insert(&grant, &stored).await?.is_none() {
                return Err(Error::conflict(format!(
                    "Conflicting resource provider name: {} already exists, or its uuid {}.",
                    stored.name, stored.uuid
                ))
                .with_code("placement.duplicate_name"));
            }
            Ok(())
        })
        .await?;
    let location = format!("/placement/resource_providers/{}", new.uuid);
    if req.version >= Ver(1, 20) {
        let root = new.parent.clone().unwrap_or_else(|| new.uuid.clone());
        return Ok(Reply::ok(&view(&req, &new, &root)).header("location", location));
    }
    Ok(Reply::empty(StatusCode::CREATED).header("location", location))
}

pub async fn show(app: Arc<Placement>, req: Req) -> Result<Reply> {
    let mut tx = app.db.read().await?;
    let p = fetch(&mut tx, req.ctx()?, policy::Show, req.param("uuid")).await?;
    let all = app.snapshot_providers(&mut tx).await?;
    Ok(Reply::ok(&view(&req, &p, root_of(&all, &p))))
}

pub async fn update(app: Arc<Placement>, mut req: Req) -> Result<Reply> {
    let body = body_for(&app, &mut req, policy::Update).await?;
    fields::check(&UPDATE, &body, req.version, "body")?;
    let (ctx, uuid) = (req.ctx()?.clone(), req.param("uuid").to_owned());
    let this = app.clone();
    let (p, root) = app
        .db
        .write(&ctx.actor(), async move |tx| {
            let p = fetch(tx, &ctx, policy::Update, &uuid).await?;
            let mut new = p.edit();
            new.name = body["name"].as_str().unwrap_or_default().to_owned();
            if let Some(parent) = body.get("parent_provider_uuid") {
                let parent = parent.as_str().map(str::to_owned);
                if p.parent.is_some() && p.parent != parent {
                    return Err(Error::field(
                        "parent_provider_uuid",
                        "re-parenting a provider is not currently allowed.",
                    ));
                }
                if let Some(up) = &parent
                    && (*up == uuid || tx.find::<ResourceProvider>(up).await?.is_none())
                {
                    return Err(Error::field(
                        "parent_provider_uuid",
                        format!("parent provider UUID does not exist: {up}"),
                    ));
                }
                new.parent = parent;
            }
            let all = this.snapshot_providers(tx).await?;
            if all.iter().any(|o| o.name == new.name && o.uuid != uuid) {
                return Err(Error::conflict(format!(
                    "Conflicting resource provider name: {} already exists.",
                    new.name
                ))
                .with_code("placement.duplicate_name"));
            }
            let done = tx.update(&p, &new).await?;
            let root = root_of(&all, &done.value).to_owned();
            Ok((done.value, root))
        })
        .await?;
    Ok(Reply::ok(&view(&req, &p, &root)))
}

pub async fn delete(app: Arc<Placement>, req: Req) -> Result<Reply> {
    let (ctx, uuid) = (req.ctx()?.clone(), req.param("uuid").to_owned());
    let this = app.clone();
    app.db
        .write(&ctx.actor(), async move |tx| {
            let p = fetch(tx, &ctx, policy::Delete, &uuid).await?;
            if tx
                .row(
                    "SELECT 1 FROM placement_allocation WHERE provider_id = $1 LIMIT 1",
                    &[uuid.as_str().into()],
                )
                .await?
                .is_some()
            {
                return Err(Error::conflict(format!(
                    "Unable to delete resource provider {uuid}: Resource provider has allocations."
                ))
                .with_code("placement.resource_provider.inuse"));
            }
            if this
                .snapshot_providers(tx)
                .await?
                .iter()
                .any(|o| o.parent.as_deref() == Some(&uuid))
            {
                return Err(Error::conflict(format!(
                    "Unable to delete parent resource provider {uuid}: It has child resource providers."
                ))
                .with_code("placement.resource_provider.cannot_delete_parent"));
            }
            tx.exec(
                "DELETE FROM placement_inventory WHERE provider_id = $1",
                &[uuid.as_str().into()],
            )
            .await?;
            tx.delete(&p).await
        })
        .await?;
    Ok(Reply::no_content())
}

pub async fn aggregates(app: Arc<Placement>, req: Req) -> Result<Reply> {
    let mut tx = app.db.read().await?;
    let p = fetch(&mut tx, req.ctx()?, policy::AggregatesList, req.param("uuid")).await?;
    Ok(Reply::ok(&aggregates_view(&req, &p)))
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
        fields::check(&AGGREGATES, &body, req.version, "body")?;
        strings(&body["aggregates"])
    } else {
        // Before 1.19 the body is the list alone.
        let list = strings(&body);
        if !body.is_array() || list.iter().any(|a| !id::is_uuid(a)) {
            return Err(Error::field("aggregates", "The body must be a list of UUIDs."));
        }
        list
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
            new.aggregates = wanted.iter().cloned().collect::<BTreeSet<_>>().into_iter().collect();
            if guarded {
                new.provider_generation += 1;
            }
            tx.update(&p, &new).await
        })
        .await?;
    Ok(Reply::ok(&aggregates_view(&req, &p)))
}

fn traits_view(p: &ResourceProvider) -> Value {
    json!({"traits": p.traits, "resource_provider_generation": p.provider_generation})
}

pub async fn traits(app: Arc<Placement>, req: Req) -> Result<Reply> {
    let mut tx = app.db.read().await?;
    let p = fetch(&mut tx, req.ctx()?, policy::ProviderTraitsList, req.param("uuid")).await?;
    Ok(Reply::ok(&traits_view(&p)))
}

pub async fn set_traits(app: Arc<Placement>, mut req: Req) -> Result<Reply> {
    allow(&req, policy::ProviderTraitsUpdate)?;
    let body = req.json().await?;
    fields::check(&TRAITS, &body, req.version, "body")?;
    let wanted: BTreeSet<String> = strings(&body["traits"]).into_iter().collect();
    let said = fields::int(&body["resource_provider_generation"]).unwrap_or(0);
    let (ctx, uuid) = (req.ctx()?.clone(), req.param("uuid").to_owned());
    let p = app
        .db
        .write(&ctx.actor(), async move |tx| {
            let p = fetch(tx, &ctx, policy::ProviderTraitsUpdate, &uuid).await?;
            same_generation(&p, said)?;
            Names::Trait.demand(tx, &wanted).await?;
            let mut new = p.edit();
            new.traits = wanted.iter().cloned().collect();
            new.provider_generation += 1;
            tx.update(&p, &new).await
        })
        .await?;
    Ok(Reply::ok(&traits_view(&p)))
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
