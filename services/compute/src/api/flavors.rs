//! Flavors, their access and extra specs (Nova API reference, "Flavors").

use super::input::{self, FLAVOR_CREATE, LONG_DESCRIPTION};
use super::view;
use crate::Compute;
use crate::logic::list_servers::regex;
use crate::model::Flavor;
use crate::policy::acts;
use crate::store::flavor_access_set;
use haneul_auth::{Action, Ctx, Target, allow_create, fetch};
use haneul_core::{Error, Result, id};
use haneul_http::{Body, FieldKind as K, Page, Reply, Req, Ver, f};
use haneul_store::{Dir, Query, Stored, V};
use http::StatusCode;
use serde_json::{Value, json};
use std::sync::Arc;

const QUERY: &[&str] = &[
    "limit",
    "marker",
    "is_public",
    "minRam",
    "minDisk",
    "sort_key",
    "sort_dir",
    NAME,
];
/// Since 2.102.
const NAME: &str = "name";

fn specs_shown(ctx: &Ctx) -> bool {
    ctx.may(acts::SpecsList::RULE, &Target::own(ctx))
}

fn sort_key(asked: &str) -> Error {
    Error::field(
        "sort_key",
        format!(
            "Invalid input for query parameters sort_key. Value: {asked}. Known: name, flavorid, memory_mb, root_gb, vcpus, is_public, created_at, updated_at."
        ),
    )
}

async fn list(app: Arc<Compute>, req: Req, detail: bool) -> Result<Reply> {
    let ctx = req.ctx()?;
    ctx.enforce(acts::FlavorShow::RULE, &Target::own(ctx))?;
    let named = req.version >= Ver(2, 102);
    let known: Vec<&str> = QUERY.iter().copied().filter(|q| named || *q != NAME).collect();
    input::check_query(&req, &known)?;
    let name = req.q("name").filter(|_| named).map(|t| regex("name", t)).transpose()?;
    let page = Page::of(&req)?;
    let column = match req.q("sort_key") {
        None | Some("flavorid") => "id",
        Some("name") => "name",
        Some("memory_mb") => "ram",
        Some("root_gb") => "disk",
        Some("vcpus") => "vcpus",
        Some("is_public") => "is_public",
        Some("updated_at") => "updated_at",
        Some("created_at" | "id") => "created_at",
        // The same for all, or seldom ordered by: the id decides.
        Some("rxtx_factor") if named => return Err(sort_key("rxtx_factor")),
        Some("description" | "disabled" | "ephemeral_gb" | "rxtx_factor" | "swap" | "vcpu_weight") => "id",
        Some(other) => return Err(sort_key(other)),
    };
    let dir = match req.q("sort_dir") {
        None | Some("asc") => Dir::Asc,
        Some("desc") => Dir::Desc,
        Some(other) => {
            return Err(Error::field(
                "sort_dir",
                format!("Invalid input for query parameters sort_dir. Value: {other}. Write asc or desc."),
            ));
        }
    };
    let mut query = Query::new();
    // Only administrators choose; everybody else sees the public ones.
    let public = match req.q("is_public").filter(|_| ctx.is_admin()) {
        None => Some(true),
        Some(t) if t.eq_ignore_ascii_case("none") => None,
        Some(t) => Some(
            haneul_http::request::parse_bool(t)
                .ok_or_else(|| Error::field("is_public", format!("Invalid is_public filter [{t}]")))?,
        ),
    };
    query = match public {
        // A project's list has the private ones that it was given.
        Some(true) => query.raw(
            "is_public = {} OR id IN (SELECT flavor_id FROM flavor_access WHERE project_id = {})",
            vec![true.into(), ctx.project_id().into()],
        ),
        Some(false) => query.eq("is_public", false),
        None => query,
    };
    for (name, column) in [("minRam", "ram"), ("minDisk", "disk")] {
        if let Some(t) = req.q(name) {
            let n: i64 = t
                .parse()
                .map_err(|_| Error::field(name, format!("Invalid {name} filter [{t}]")))?;
            query = query.ge(column, n);
        }
    }
    query = query.order(column, dir);
    if column != "id" {
        query = query.order("id", dir);
    }
    let mut tx = app.db.read().await?;
    if let Some(m) = &page.marker {
        let at = tx
            .find::<Flavor>(m)
            .await?
            .ok_or_else(|| Error::field("marker", format!("marker [{m}] not found")))?;
        let value: V = match column {
            "name" => at.name.as_str().into(),
            "ram" => at.ram.into(),
            "disk" => at.disk.into(),
            "vcpus" => at.vcpus.into(),
            "is_public" => at.is_public.into(),
            "created_at" => at.created_at.into(),
            "updated_at" => at.updated_at.into(),
            _ => at.id.as_str().into(),
        };
        query = query.after(if column == "id" {
            vec![value]
        } else {
            vec![value, at.id.as_str().into()]
        });
    }
    let mut rows = match name {
        None => tx.list::<Flavor>(&query.limit(page.fetch())).await?,
        // The database knows no regular expressions that both of them understand alike.
        Some(name) => {
            let mut all = tx.list::<Flavor>(&query).await?;
            all.retain(|x| name.is_match(&x.name));
            all
        }
    };
    let more = page.cut(&mut rows);
    let specs = specs_shown(ctx);
    let mut body = json!({"flavors": rows.iter().map(|x| view::flavor(x, req.version, &req.base, detail, specs)).collect::<Vec<_>>()});
    if let (true, Some(last), Some(m)) = (more, rows.last(), body.as_object_mut()) {
        let path = if detail {
            "/v2.1/flavors/detail"
        } else {
            "/v2.1/flavors"
        };
        m.insert("flavors_links".into(), Page::next_link(&req, path, &last.id));
    }
    Ok(Reply::ok(&body))
}

/// `GET /flavors`
pub(crate) async fn index(app: Arc<Compute>, req: Req) -> Result<Reply> {
    list(app, req, false).await
}

/// `GET /flavors/detail`
pub(crate) async fn detail(app: Arc<Compute>, req: Req) -> Result<Reply> {
    list(app, req, true).await
}

/// `GET /flavors/{id}`
pub(crate) async fn show(app: Arc<Compute>, req: Req) -> Result<Reply> {
    let ctx = req.ctx()?;
    let mut tx = app.db.read().await?;
    let found = fetch(&mut tx, ctx, acts::FlavorShow, req.param("id")).await?;
    Ok(Reply::ok(
        &json!({"flavor": view::flavor(&found, req.version, &req.base, true, specs_shown(ctx))}),
    ))
}

/// `POST /flavors`
pub(crate) async fn create(app: Arc<Compute>, mut req: Req) -> Result<Reply> {
    let ctx = req.ctx()?.clone();
    ctx.enforce(acts::FlavorCreate::RULE, &Target::default())?;
    let v = req.fields("flavor", &FLAVOR_CREATE).await?;
    let flavor = Flavor {
        id: input::loose_id(&v, "id")
            .filter(|i| i != "auto")
            .unwrap_or_else(id::uuid),
        name: input::text(&v, "name").unwrap_or_default(),
        vcpus: input::int(&v, "vcpus").unwrap_or(1),
        ram: input::int(&v, "ram").unwrap_or(1),
        disk: input::int(&v, "disk").unwrap_or(0),
        ephemeral: input::int(&v, "OS-FLV-EXT-DATA:ephemeral").unwrap_or(0),
        swap: input::int(&v, "swap").unwrap_or(0),
        rxtx_factor: v.get("rxtx_factor").and_then(input::number).unwrap_or(1.0),
        is_public: input::boolean(&v, "os-flavor-access:is_public").unwrap_or(true),
        disabled: false,
        description: input::text(&v, "description"),
        extra_specs: Default::default(),
        // Not even the project of who makes a private one may use it, until it is told so.
        access: vec![],
    };
    let (c, new) = (ctx.clone(), flavor);
    let stored = app
        .db
        .write(&ctx.actor(), async move |tx| {
            let grant = allow_create(&c, acts::FlavorCreate, &Target::default())?;
            if !tx
                .list::<Flavor>(&Query::new().eq("name", new.name.as_str()))
                .await?
                .is_empty()
            {
                return Err(
                    Error::conflict(format!("Flavor with name {} already exists.", new.name)).with_field("name"),
                );
            }
            tx.insert(&grant, &new)
                .await?
                .ok_or_else(|| Error::conflict(format!("Flavor with ID {} already exists.", new.id)).with_field("id"))
        })
        .await?;
    Ok(Reply::ok(
        &json!({"flavor": view::flavor(&stored, req.version, &req.base, true, specs_shown(&ctx))}),
    ))
}

/// Changes a flavor that the caller may `A`.
async fn change<A>(
    app: &Compute,
    ctx: &Ctx,
    action: A,
    id: &str,
    f: impl Fn(&mut Flavor) -> Result<()> + Send + 'static,
) -> Result<Stored<Flavor>>
where
    A: Action<On = Flavor> + Copy,
{
    let (c, id) = (ctx.clone(), id.to_owned());
    app.db
        .write(&ctx.actor(), async move |tx| {
            let old = fetch(tx, &c, action, &id).await?;
            let mut new = old.edit();
            f(&mut new)?;
            if new == old.value {
                return Ok(Stored::clone(&old));
            }
            if new.access != old.access {
                flavor_access_set(tx, &new.id, &new.access).await?;
            }
            tx.update(&old, &new).await
        })
        .await
}

/// `PUT /flavors/{id}`
pub(crate) async fn update(app: Arc<Compute>, mut req: Req) -> Result<Reply> {
    static UPDATE: Body = Body {
        open: false,
        fields: &[f("description", LONG_DESCRIPTION).req()],
    };
    let ctx = req.ctx()?.clone();
    let v = req.fields("flavor", &UPDATE).await?;
    let description = input::text(&v, "description");
    let stored = change(&app, &ctx, acts::FlavorUpdate, req.param("id"), move |x| {
        x.description.clone_from(&description);
        Ok(())
    })
    .await?;
    Ok(Reply::ok(
        &json!({"flavor": view::flavor(&stored, req.version, &req.base, true, specs_shown(&ctx))}),
    ))
}

/// `DELETE /flavors/{id}`: servers keep what they took from it.
pub(crate) async fn delete(app: Arc<Compute>, req: Req) -> Result<Reply> {
    let (ctx, id) = (req.ctx()?.clone(), req.param("id").to_owned());
    app.db
        .write(&req.ctx()?.actor(), async move |tx| {
            let old = fetch(tx, &ctx, acts::FlavorDelete, &id).await?;
            flavor_access_set(tx, &old.id, &[]).await?;
            tx.delete(&old).await
        })
        .await?;
    Ok(Reply::empty(StatusCode::ACCEPTED))
}

fn access_view(x: &Flavor) -> Value {
    json!({"flavor_access": x.access.iter().map(|p| json!({"flavor_id": x.id, "tenant_id": p})).collect::<Vec<_>>()})
}

/// `GET /flavors/{id}/os-flavor-access`
pub(crate) async fn access(app: Arc<Compute>, req: Req) -> Result<Reply> {
    let mut tx = app.db.read().await?;
    let found = fetch(&mut tx, req.ctx()?, acts::FlavorAccess, req.param("id")).await?;
    if found.is_public {
        return Err(Error::not_found("Access list not available for public flavors."));
    }
    Ok(Reply::ok(&access_view(&found)))
}

/// `POST /flavors/{id}/action`: addTenantAccess, removeTenantAccess.
pub(crate) async fn action(app: Arc<Compute>, mut req: Req) -> Result<Reply> {
    static TENANT: Body = Body {
        open: false,
        fields: &[f("tenant", K::Str { min: 1, max: 255 }).req()],
    };
    let ctx = req.ctx()?.clone();
    let (ver, id) = (req.version, req.param("id").to_owned());
    let body = req.json().await?;
    let (name, inner) = super::actions::one_key(&body)?;
    haneul_http::fields::check(&TENANT, inner, ver, name)?;
    let tenant = input::text(inner, "tenant").unwrap_or_default();
    // Whoever may not do it is told so before the flavor, which that person may not see, is looked for.
    let stored = match name {
        "addTenantAccess" => {
            ctx.enforce(acts::FlavorAccessAdd::RULE, &Target::default())?;
            change(&app, &ctx, acts::FlavorAccessAdd, &id, move |x| {
                if x.is_public && ver >= Ver(2, 7) {
                    return Err(Error::conflict("Can not add access to a public flavor."));
                }
                if x.access.contains(&tenant) {
                    return Err(Error::conflict(format!(
                        "Flavor access already exists for flavor {} and project {tenant} combination.",
                        x.id
                    )));
                }
                x.access.push(tenant.clone());
                Ok(())
            })
            .await?
        }
        "removeTenantAccess" => {
            ctx.enforce(acts::FlavorAccessRemove::RULE, &Target::default())?;
            change(&app, &ctx, acts::FlavorAccessRemove, &id, move |x| {
                let before = x.access.len();
                x.access.retain(|p| *p != tenant);
                if x.access.len() == before {
                    return Err(Error::not_found(format!(
                        "Flavor access not found for {} / {tenant} combination.",
                        x.id
                    )));
                }
                Ok(())
            })
            .await?
        }
        other => return Err(super::actions::unknown(other)),
    };
    Ok(Reply::ok(&access_view(&stored)))
}

/// Extra specs that start with a known name space are checked from 2.86 on.
fn check_specs(v: &Value, ver: Ver) -> Result<()> {
    let Some(map) = v.as_object().filter(|m| !m.is_empty()) else {
        return Err(Error::field(
            "extra_specs",
            "Invalid input for field/attribute extra_specs. It must be an object with at least one item.",
        ));
    };
    for (k, x) in map {
        if k.is_empty()
            || k.chars().count() > 255
            || !k.chars().all(|c| c.is_ascii_alphanumeric() || "-_:. ".contains(c))
        {
            return Err(Error::field(
                format!("extra_specs.{k}"),
                format!(
                    "Invalid input for field/attribute extra_specs. The key '{k}' is not one of 1 to 255 letters, digits, blanks, and - _ : ."
                ),
            ));
        }
        let text = match x {
            Value::String(s) if s.chars().count() <= 255 => s.clone(),
            Value::Number(n) => n.to_string(),
            _ => {
                return Err(Error::field(
                    format!("extra_specs.{k}"),
                    format!(
                        "Invalid input for field/attribute {k}. Value: {x}. It must be a string of at most 255 characters."
                    ),
                ));
            }
        };
        if ver >= Ver(2, 86) {
            check_spec_value(k, &text)?;
        }
    }
    Ok(())
}

fn check_spec_value(key: &str, value: &str) -> Result<()> {
    let wrong = |why: &str| {
        Err(Error::field(
            key,
            format!("Validation failed; extra spec '{key}' has the value '{value}': {why}"),
        ))
    };
    let one_of = |known: &[&str]| {
        if known.contains(&value) {
            Ok(())
        } else {
            wrong(&format!("it must be one of {}", known.join(", ")))
        }
    };
    match key {
        "hw:cpu_policy" => one_of(&["dedicated", "mixed", "shared"]),
        "hw:cpu_thread_policy" => one_of(&["isolate", "prefer", "require"]),
        "hw:numa_nodes" | "hw:cpu_sockets" | "hw:cpu_cores" | "hw:cpu_threads" | "hw:cpu_max_sockets"
        | "hw:cpu_max_cores" | "hw:cpu_max_threads" => match value.parse::<u32>() {
            Ok(n) if n >= 1 => Ok(()),
            _ => wrong("it must be an integer of at least 1"),
        },
        "hw:boot_menu" | "hw:mem_encryption" | "hw:pmu" | "hw_rng:allowed" => {
            match haneul_http::request::parse_bool(value) {
                Some(_) => Ok(()),
                None => wrong("it must be true or false"),
            }
        }
        k if k.starts_with("hw:numa_cpus.")
            || k.starts_with("hw:numa_mem.")
            || k.starts_with("hw_")
            || !k.contains(':') =>
        {
            Ok(())
        }
        k if k.starts_with("hw:") => {
            const KNOWN: &[&str] = &[
                "hw:mem_page_size",
                "hw:pci_numa_affinity_policy",
                "hw:watchdog_action",
                "hw:emulator_threads_policy",
                "hw:cpu_realtime",
                "hw:cpu_realtime_mask",
                "hw:cpu_dedicated_mask",
                "hw:serial_port_count",
                "hw:tpm_model",
                "hw:tpm_version",
                "hw:vif_multiqueue_enabled",
                "hw:virtio_packed_ring",
                "hw:maxphysaddr_mode",
                "hw:maxphysaddr_bits",
                "hw:viommu_model",
                "hw:locked_memory",
                "hw:ephemeral_encryption",
                "hw:ephemeral_encryption_format",
                "hw:hide_hypervisor_id",
            ];
            if KNOWN.contains(&k) {
                Ok(())
            } else {
                wrong("the name space 'hw' has no such extra spec")
            }
        }
        _ => Ok(()),
    }
}

fn spec_text(x: &Value) -> String {
    x.as_str().map_or_else(|| x.to_string(), str::to_owned)
}

/// `GET /flavors/{id}/os-extra_specs`
pub(crate) async fn specs(app: Arc<Compute>, req: Req) -> Result<Reply> {
    let mut tx = app.db.read().await?;
    let found = fetch(&mut tx, req.ctx()?, acts::SpecsList, req.param("id")).await?;
    Ok(Reply::ok(&json!({"extra_specs": found.extra_specs})))
}

/// `GET /flavors/{id}/os-extra_specs/{key}`
pub(crate) async fn spec(app: Arc<Compute>, req: Req) -> Result<Reply> {
    let key = req.param("key");
    let mut tx = app.db.read().await?;
    let found = fetch(&mut tx, req.ctx()?, acts::SpecsShow, req.param("id")).await?;
    let value = found.extra_specs.get(key).ok_or_else(|| no_spec(&found.id, key))?;
    Ok(Reply::ok(&json!({ key: value })))
}

fn no_spec(id: &str, key: &str) -> Error {
    Error::not_found(format!("Flavor {id} has no extra specs with key {key}."))
}

/// `POST /flavors/{id}/os-extra_specs`
pub(crate) async fn specs_create(app: Arc<Compute>, mut req: Req) -> Result<Reply> {
    static SPECS: Body = Body {
        open: true,
        fields: &[],
    };
    let ctx = req.ctx()?.clone();
    ctx.enforce(acts::SpecsCreate::RULE, &Target::default())?;
    let v = req.fields("extra_specs", &SPECS).await?;
    check_specs(&v, req.version)?;
    let new = v.clone();
    change(&app, &ctx, acts::SpecsCreate, req.param("id"), move |x| {
        for (k, value) in new.as_object().into_iter().flatten() {
            x.extra_specs.insert(k.clone(), spec_text(value));
        }
        Ok(())
    })
    .await?;
    Ok(Reply::ok(&json!({"extra_specs": v})))
}

/// `PUT /flavors/{id}/os-extra_specs/{key}`
pub(crate) async fn spec_update(app: Arc<Compute>, mut req: Req) -> Result<Reply> {
    let ctx = req.ctx()?.clone();
    ctx.enforce(acts::SpecsUpdate::RULE, &Target::default())?;
    let v = req.json().await?;
    check_specs(&v, req.version)?;
    let key = req.param("key").to_owned();
    let Some(value) = v
        .get(&key)
        .filter(|_| v.as_object().is_some_and(|m| m.len() == 1))
        .map(spec_text)
    else {
        return Err(Error::field(key, "Request body and URI mismatch"));
    };
    let k = key.clone();
    change(&app, &ctx, acts::SpecsUpdate, req.param("id"), move |x| {
        x.extra_specs.insert(k.clone(), value.clone());
        Ok(())
    })
    .await?;
    Ok(Reply::ok(&v))
}

/// `DELETE /flavors/{id}/os-extra_specs/{key}`
pub(crate) async fn spec_delete(app: Arc<Compute>, req: Req) -> Result<Reply> {
    let key = req.param("key").to_owned();
    change(&app, req.ctx()?, acts::SpecsDelete, req.param("id"), move |x| {
        match x.extra_specs.remove(&key) {
            Some(_) => Ok(()),
            None => Err(no_spec(&x.id, &key)),
        }
    })
    .await?;
    Ok(Reply::empty(StatusCode::OK))
}
