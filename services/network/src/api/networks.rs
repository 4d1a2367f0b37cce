//! `/v2.0/networks`.

use super::input::{self, In, Shape, kind};
use super::list::{self, Col, Listed, Shown, standard, with};
use crate::Network;
use crate::err::invalid;
use crate::logic::publish::Touched;
use crate::logic::{networks, quotas};
use crate::model::{Net, Subnet};
use crate::policy;
use crate::policy::action::{CreateNetwork, DeleteNetwork, GetNetwork, UpdateNetwork};
use haneul_auth::{Ctx, Target, allow_create, fetch};
use haneul_core::{Result, id};
use haneul_http::{Body, Field, FieldKind as K, Reply, Req, f};
use haneul_store::{Query, Stored, Tx};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

const NAME: Field = f("name", kind::TEXT).null();
const DESCRIPTION: Field = f("description", kind::TEXT).null();

pub(crate) static SHAPE: Shape = Shape {
    one: "network",
    many: "networks",
    create: &Body {
        open: false,
        fields: &[
            NAME,
            DESCRIPTION,
            f("tenant_id", kind::PROJECT),
            f("project_id", kind::PROJECT),
            f("admin_state_up", K::Bool),
            f("shared", K::Bool),
            f("router:external", K::Bool),
            f("is_default", K::Bool),
            f("mtu", K::Int { min: 0, max: 65535 }),
            f("port_security_enabled", K::Bool),
            f("dns_domain", kind::HOST).null(),
            f(
                "availability_zone_hints",
                K::List {
                    of: &kind::TEXT,
                    max: 16,
                },
            ),
            f("provider:network_type", kind::TEXT).null(),
            f("provider:physical_network", kind::TEXT).null(),
            f(
                "provider:segmentation_id",
                K::Int {
                    min: 1,
                    max: 16_777_215,
                },
            )
            .null(),
            f("tags", kind::TAGS),
        ],
    },
    update: &Body {
        open: false,
        fields: &[
            NAME,
            DESCRIPTION,
            f("admin_state_up", K::Bool),
            f("shared", K::Bool),
            f("router:external", K::Bool),
            f("is_default", K::Bool),
            f("mtu", K::Int { min: 0, max: 65535 }),
            f("port_security_enabled", K::Bool),
            f("dns_domain", kind::HOST).null(),
        ],
    },
    read_only: &[
        "id",
        "status",
        "subnets",
        "created_at",
        "updated_at",
        "revision_number",
        "availability_zones",
        "ipv4_address_scope",
        "ipv6_address_scope",
    ],
};

impl Listed for Net {
    const MANY: &'static str = "networks";
    const ONE: &'static str = "network";
    const GET: &'static str = "get_network";
    const COLUMNS_OF: &'static [(&'static str, &'static str, Col)] = &[
        ("shared", "shared", Col::Bool),
        ("router:external", "external", Col::Bool),
    ];
    const ATTRIBUTES: &'static [&'static str] = &[
        "id",
        "name",
        "project_id",
        "description",
        "status",
        "admin_state_up",
        "shared",
        "router:external",
        "is_default",
        "mtu",
        "port_security_enabled",
        "dns_domain",
        "subnets",
        "availability_zone_hints",
        "availability_zones",
        "provider:network_type",
        "provider:physical_network",
        "provider:segmentation_id",
        "created_at",
        "updated_at",
        "revision_number",
    ];
    fn scope(ctx: &Ctx, query: Query) -> Query {
        networks::scope(ctx, query)
    }
    async fn show(app: &Network, tx: &mut Tx, rows: &[Stored<Self>]) -> Result<Vec<Shown>> {
        let mut subnets: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for chunk in rows.chunks(500) {
            let query = Query::new().is_in("network_id", chunk.iter().map(|n| n.id.as_str()));
            for s in tx.list::<Subnet>(&query).await? {
                subnets.entry(s.network_id.clone()).or_default().push(s.id.clone());
            }
        }
        Ok(rows
            .iter()
            .map(|n| view(app, n, &subnets.remove(&n.id).unwrap_or_default()))
            .collect())
    }
}

fn view(app: &Network, n: &Stored<Net>, subnets: &[String]) -> Shown {
    let mut shown = with(
        standard(n),
        json!({
            "status": "ACTIVE",
            "admin_state_up": n.admin_state_up,
            "shared": n.shared,
            "router:external": n.external,
            "mtu": n.mtu,
            "port_security_enabled": n.port_security,
            "dns_domain": n.dns_domain,
            "subnets": subnets,
            "availability_zone_hints": n.availability_zone_hints,
            "availability_zones": if subnets.is_empty() { vec![] } else { vec![app.settings.availability_zone.as_str()] },
            "provider:network_type": "haneul",
            "provider:physical_network": Value::Null,
            "provider:segmentation_id": n.index,
        }),
    );
    if n.external {
        shown.insert("is_default".into(), n.is_default.into());
    }
    shown
}

/// `GET /v2.0/networks`
pub async fn index(app: Arc<Network>, req: Req) -> Result<Reply> {
    list::list::<Net>(app, req).await
}

/// `GET /v2.0/networks/{id}`
pub async fn show(app: Arc<Network>, req: Req) -> Result<Reply> {
    let ctx = req.ctx()?.clone();
    let mut tx = app.db.read().await?;
    let net = fetch(&mut tx, &ctx, GetNetwork, super::id(&req)).await?;
    let mut shown = [list::one(&app, &mut tx, &ctx, &net).await?];
    list::pick(&req, &mut shown);
    Ok(Reply::ok(&json!({"network": shown[0]})))
}

/// `POST /v2.0/networks`, one or a list.
pub async fn create(app: Arc<Network>, mut req: Req) -> Result<Reply> {
    let ctx = req.ctx()?.clone();
    let (items, bulk) = input::create(&mut req, &SHAPE).await?;
    let actor = ctx.actor();
    let db = app.db.clone();
    let shown = db
        .write(&actor, async move |tx| {
            let mut out = Vec::new();
            for item in &items {
                let net = make(&app, tx, &ctx, In(item)).await?;
                out.push(list::one(&app, tx, &ctx, &net).await?);
            }
            Ok(out)
        })
        .await?;
    Ok(super::created("network", "networks", shown, bulk))
}

async fn make(app: &Network, tx: &mut Tx, ctx: &Ctx, body: In<'_>) -> Result<Stored<Net>> {
    let project_id = input::project(ctx, body)?;
    let target = Target::project(&project_id);
    let grant = allow_create(ctx, CreateNetwork, &target)?;
    policy::check(ctx, "create_network", body.map(), &target)?;
    networks::check_provider(body.str("provider:network_type").as_deref())?;
    if body.get("provider:segmentation_id").is_some() || body.str("provider:physical_network").is_some() {
        return Err(invalid(
            "provider:segmentation_id",
            "provider:segmentation_id and provider:physical_network are chosen by the cloud. Leave them out.",
        ));
    }
    let external = body.bool("router:external").unwrap_or(false);
    let is_default = body.bool("is_default").unwrap_or(false);
    if is_default && !external {
        return Err(invalid(
            "is_default",
            "only an external network can be the default one: set router:external too.",
        ));
    }
    let mtu = match networks::check_mtu(body.int("mtu").unwrap_or(0))? {
        0 if external => app.settings.mtu,
        0 => app.default_mtu(tx).await?,
        n => n,
    };
    super::zones(app, body)?;
    quotas::take(tx, &project_id, "network", 1).await?;
    let net = Net {
        id: id::uuid(),
        name: body.str("name").unwrap_or_default(),
        description: body.str("description").unwrap_or_default(),
        tags: super::tags::clean(body.strings("tags").unwrap_or_default()),
        project_id,
        admin_state_up: body.bool("admin_state_up").unwrap_or(true),
        shared: body.bool("shared").unwrap_or(false),
        external,
        is_default,
        mtu,
        port_security: body.bool("port_security_enabled").unwrap_or(true),
        dns_domain: body.str("dns_domain").unwrap_or_default(),
        index: 0,
        availability_zone_hints: body.strings("availability_zone_hints").unwrap_or_default(),
    };
    networks::insert(tx, &grant, net).await
}

/// `PUT /v2.0/networks/{id}`
pub async fn update(app: Arc<Network>, mut req: Req) -> Result<Reply> {
    let ctx = req.ctx()?.clone();
    let id = super::id(&req).to_owned();
    let revision = input::if_match(&req)?;
    let item = input::update(&mut req, &SHAPE).await?;
    let actor = ctx.actor();
    let db = app.db.clone();
    let shown = db
        .write(&actor, async move |tx| {
            let body = In(&item);
            let old = fetch(tx, &ctx, UpdateNetwork, &id).await?;
            input::check_revision(revision, old.generation, &id)?;
            policy::check(
                &ctx,
                "update_network",
                body.map(),
                &haneul_auth::Secured::target(&old.value),
            )?;
            let mut net = old.edit();
            body.set_str("name", &mut net.name);
            body.set_str("description", &mut net.description);
            body.set_str("dns_domain", &mut net.dns_domain);
            body.set_bool("admin_state_up", &mut net.admin_state_up);
            body.set_bool("shared", &mut net.shared);
            body.set_bool("router:external", &mut net.external);
            body.set_bool("is_default", &mut net.is_default);
            body.set_bool("port_security_enabled", &mut net.port_security);
            if let Some(mtu) = body.int("mtu") {
                net.mtu = match networks::check_mtu(mtu)? {
                    0 if net.external => app.settings.mtu,
                    0 => app.default_mtu(tx).await?,
                    n => n,
                };
            }
            if net.is_default && !net.external {
                if body.bool("is_default") == Some(true) {
                    return Err(invalid(
                        "is_default",
                        "only an external network can be the default one: set router:external too.",
                    ));
                }
                net.is_default = false;
            }
            let mut touched = Touched::default();
            let stored = networks::update(tx, &old, &net, &mut touched).await?;
            app.publish(tx, touched).await?;
            list::one(&app, tx, &ctx, &stored).await
        })
        .await?;
    Ok(Reply::ok(&json!({"network": shown})))
}

/// `DELETE /v2.0/networks/{id}`
pub async fn delete(app: Arc<Network>, req: Req) -> Result<Reply> {
    let ctx = req.ctx()?.clone();
    let id = super::id(&req).to_owned();
    let revision = input::deletion(&req)?;
    let actor = ctx.actor();
    let db = app.db.clone();
    db.write(&actor, async move |tx| {
        let net = fetch(tx, &ctx, DeleteNetwork, &id).await?;
        input::check_revision(revision, net.generation, &id)?;
        let mut touched = Touched::default();
        app.network_delete(tx, &net, &mut touched).await?;
        app.publish(tx, touched).await
    })
    .await?;
    Ok(Reply::no_content())
}
