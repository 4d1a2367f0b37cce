//! `/v2.0/routers`.

use super::input::{self, In, Shape, kind};
use super::list::{self, Col, Listed, Shown, standard, with};
use crate::Network;
use crate::err::{attribute, bad};
use crate::logic::ports::Ask;
use crate::logic::publish::Touched;
use crate::logic::quotas;
use crate::logic::routers::{WantedGateway, route};
use crate::model::{Port, Route, Router};
use crate::policy;
use crate::policy::action::{
    AddExtraroutes, AddRouterInterface, CreateRouter, DeleteRouter, GetRouter, RemoveExtraroutes,
    RemoveRouterInterface, UpdateRouter,
};
use haneul_auth::{Ctx, Secured, Target, allow_create, fetch};
use haneul_core::{Error, Result, id};
use haneul_http::{Body, FieldKind as K, Reply, Req, f, fields};
use haneul_store::{Query, Stored, Tx};
use serde_json::{Value, json};
use std::sync::Arc;

static EXTERNAL_IP: Body = Body {
    open: false,
    fields: &[f("subnet_id", K::Uuid), f("ip_address", kind::IP)],
};
static GATEWAY: Body = Body {
    open: false,
    fields: &[
        f("network_id", K::Uuid),
        f("enable_snat", K::Bool),
        f(
            "external_fixed_ips",
            K::List {
                of: &K::Obj(&EXTERNAL_IP),
                max: 20,
            },
        )
        .null(),
    ],
};
static ROUTE: Body = Body {
    open: false,
    fields: &[f("destination", kind::CIDR).req(), f("nexthop", kind::IP).req()],
};

pub(crate) static SHAPE: Shape = Shape {
    one: "router",
    many: "routers",
    create: &Body {
        open: false,
        fields: &[
            f("name", kind::TEXT).null(),
            f("description", kind::TEXT).null(),
            f("tenant_id", kind::PROJECT),
            f("project_id", kind::PROJECT),
            f("admin_state_up", K::Bool),
            f("external_gateway_info", K::Obj(&GATEWAY)).null(),
            f(
                "availability_zone_hints",
                K::List {
                    of: &kind::TEXT,
                    max: 16,
                },
            ),
            f("distributed", K::Bool).null(),
            f("ha", K::Bool).null(),
            f("tags", kind::TAGS),
        ],
    },
    update: &Body {
        open: false,
        fields: &[
            f("name", kind::TEXT).null(),
            f("description", kind::TEXT).null(),
            f("admin_state_up", K::Bool),
            f("external_gateway_info", K::Obj(&GATEWAY)).null(),
            f(
                "routes",
                K::List {
                    of: &K::Obj(&ROUTE),
                    max: 100,
                },
            )
            .null(),
            f("distributed", K::Bool),
            f("ha", K::Bool),
        ],
    },
    read_only: &[
        "id",
        "status",
        "routes",
        "created_at",
        "updated_at",
        "revision_number",
        "availability_zones",
    ],
};

impl Listed for Router {
    const MANY: &'static str = "routers";
    const ONE: &'static str = "router";
    const GET: &'static str = "get_router";
    const COLUMNS_OF: &'static [(&'static str, &'static str, Col)] = &[];
    const ATTRIBUTES: &'static [&'static str] = &[
        "id",
        "name",
        "project_id",
        "description",
        "status",
        "admin_state_up",
        "external_gateway_info",
        "routes",
        "availability_zone_hints",
        "availability_zones",
        "created_at",
        "updated_at",
        "revision_number",
    ];
    fn scope(ctx: &Ctx, query: Query) -> Query {
        if ctx.is_admin() {
            query
        } else {
            query.eq("project_id", ctx.project_id())
        }
    }
    async fn show(app: &Network, _tx: &mut Tx, rows: &[Stored<Self>]) -> Result<Vec<Shown>> {
        Ok(rows.iter().map(|r| view(app, r)).collect())
    }
}

fn view(app: &Network, r: &Stored<Router>) -> Shown {
    let zones = if r.host_id.is_empty() {
        vec![]
    } else {
        vec![app.settings.availability_zone.as_str()]
    };
    with(
        standard(r),
        json!({
            "status": "ACTIVE",
            "admin_state_up": r.admin_state_up,
            "external_gateway_info": r.gateway.as_ref().map(|g| json!({
                "network_id": g.network_id,
                "enable_snat": g.enable_snat,
                "external_fixed_ips": g.fixed_ips,
            })),
            "routes": routes_shown(r),
            "availability_zone_hints": r.availability_zone_hints,
            "availability_zones": zones,
            "distributed": false,
            "ha": false,
        }),
    )
}

fn routes_shown(r: &Router) -> Vec<Value> {
    r.routes
        .iter()
        .map(|x| json!({"destination": x.destination.to_string(), "nexthop": x.nexthop}))
        .collect()
}

/// `GET /v2.0/routers`
pub async fn index(app: Arc<Network>, req: Req) -> Result<Reply> {
    list::list::<Router>(app, req).await
}

/// `GET /v2.0/routers/{id}`
pub async fn show(app: Arc<Network>, req: Req) -> Result<Reply> {
    let ctx = req.ctx()?.clone();
    let mut tx = app.db.read().await?;
    let router = fetch(&mut tx, &ctx, GetRouter, super::id(&req)).await?;
    let mut shown = [list::one(&app, &mut tx, &ctx, &router).await?];
    list::pick(&req, &mut shown);
    Ok(Reply::ok(&json!({"router": shown[0]})))
}

/// What the body wants of the gateway: nothing said, cleared, or set.
fn gateway(body: In<'_>) -> Result<Option<Option<WantedGateway>>> {
    if !body.has("external_gateway_info") {
        return Ok(None);
    }
    let Some(info) = body.get("external_gateway_info").map(In) else {
        return Ok(Some(None));
    };
    if info.map().is_empty() {
        return Ok(Some(None));
    }
    let Some(network_id) = info.str("network_id") else {
        return Err(attribute(
            "external_gateway_info",
            "network_id is required to set a gateway; write null or {} to clear it",
        ));
    };
    let fixed_ips = info.list("external_fixed_ips").map(|l| {
        l.iter()
            .map(|x| Ask {
                subnet_id: In(x).str("subnet_id"),
                ip: In(x).ip("ip_address"),
            })
            .collect()
    });
    Ok(Some(Some(WantedGateway {
        network_id,
        enable_snat: info.bool("enable_snat"),
        fixed_ips,
    })))
}

fn plain_only(body: In<'_>) -> Result<()> {
    for name in ["distributed", "ha"] {
        if body.bool(name) == Some(true) {
            return Err(bad(
                "HTTPBadRequest",
                name,
                format!(
                    "Invalid input for {name}. Reason: this cloud has plain routers only: leave {name} out or false."
                ),
            ));
        }
    }
    Ok(())
}

/// `POST /v2.0/routers`, one or a list.
pub async fn create(app: Arc<Network>, mut req: Req) -> Result<Reply> {
    let ctx = req.ctx()?.clone();
    let (items, bulk) = input::create(&mut req, &SHAPE).await?;
    let actor = ctx.actor();
    let db = app.db.clone();
    let shown = db
        .write(&actor, async move |tx| {
            let mut out = Vec::new();
            let mut touched = Touched::default();
            for item in &items {
                let router = make(&app, tx, &ctx, In(item), &mut touched).await?;
                out.push(list::one(&app, tx, &ctx, &router).await?);
            }
            app.publish(tx, touched).await?;
            Ok(out)
        })
        .await?;
    Ok(super::created("router", "routers", shown, bulk))
}

async fn make(app: &Network, tx: &mut Tx, ctx: &Ctx, body: In<'_>, touched: &mut Touched) -> Result<Stored<Router>> {
    let project_id = input::project(ctx, body)?;
    let target = Target::project(&project_id);
    let grant = allow_create(ctx, CreateRouter, &target)?;
    policy::check(ctx, "create_router", body.map(), &target)?;
    plain_only(body)?;
    super::zones(app, body)?;
    quotas::take(tx, &project_id, "router", 1).await?;
    let mut router = Router {
        id: id::uuid(),
        name: body.str("name").unwrap_or_default(),
        description: body.str("description").unwrap_or_default(),
        tags: super::tags::clean(body.strings("tags").unwrap_or_default()),
        project_id,
        admin_state_up: body.bool("admin_state_up").unwrap_or(true),
        gateway: None,
        routes: vec![],
        index: u32::try_from(tx.next_number("router.index").await?).map_err(Error::internal)?,
        host_id: app.router_host(tx).await?,
        availability_zone_hints: body.strings("availability_zone_hints").unwrap_or_default(),
    };
    touched.routers.insert(router.id.clone());
    if let Some(Some(wanted)) = gateway(body)? {
        app.set_gateway(tx, ctx, &mut router, Some(wanted), touched).await?;
    }
    tx.insert(&grant, &router)
        .await?
        .ok_or_else(|| Error::internal("the id of a router was taken"))
}

fn routes(body: &[Value]) -> Result<Vec<Route>> {
    let mut out: Vec<Route> = Vec::new();
    for item in body {
        let r = route(
            &In(item).str("destination").unwrap_or_default(),
            &In(item).str("nexthop").unwrap_or_default(),
        )?;
        if out.contains(&r) {
            return Err(attribute(
                "routes",
                format!("Duplicate hostroute '{} via {}'", r.destination, r.nexthop),
            ));
        }
        out.push(r);
    }
    Ok(out)
}

/// `PUT /v2.0/routers/{id}`
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
            let old = fetch(tx, &ctx, UpdateRouter, &id).await?;
            input::check_revision(revision, old.generation, &id)?;
            policy::check(&ctx, "update_router", body.map(), &old.target())?;
            plain_only(body)?;
            let mut router = old.edit();
            let mut touched = Touched::default();
            touched.routers.insert(id.clone());
            body.set_str("name", &mut router.name);
            body.set_str("description", &mut router.description);
            body.set_bool("admin_state_up", &mut router.admin_state_up);
            if let Some(wanted) = gateway(body)? {
                app.set_gateway(tx, &ctx, &mut router, wanted, &mut touched).await?;
            }
            if body.has("routes") {
                let wanted = routes(body.list("routes").map_or(&[][..], Vec::as_slice))?;
                app.check_routes(tx, &router, &wanted).await?;
                router.routes = wanted;
            }
            let stored = tx.update(&old, &router).await?;
            app.publish(tx, touched).await?;
            list::one(&app, tx, &ctx, &stored).await
        })
        .await?;
    Ok(Reply::ok(&json!({"router": shown})))
}

/// `DELETE /v2.0/routers/{id}`
pub async fn delete(app: Arc<Network>, req: Req) -> Result<Reply> {
    let ctx = req.ctx()?.clone();
    let id = super::id(&req).to_owned();
    let revision = input::deletion(&req)?;
    let actor = ctx.actor();
    let db = app.db.clone();
    db.write(&actor, async move |tx| {
        let router = fetch(tx, &ctx, DeleteRouter, &id).await?;
        input::check_revision(revision, router.generation, &id)?;
        let mut touched = Touched::default();
        app.router_delete(tx, &router, &mut touched).await?;
        app.publish(tx, touched).await
    })
    .await?;
    Ok(Reply::no_content())
}

static INTERFACE: Body = Body {
    open: false,
    fields: &[f("subnet_id", K::Uuid), f("port_id", K::Uuid)],
};

async fn interface(req: &mut Req) -> Result<(Option<String>, Option<String>)> {
    let body = req.json().await?;
    fields::check(&INTERFACE, &body, haneul_http::Ver(0, 0), "router_interface")
        .map_err(|e| e.with_code("BadRequest"))?;
    let b = In(&body);
    match (b.str("port_id"), b.str("subnet_id")) {
        (None, None) => Err(bad(
            "BadRequest",
            "subnet_id",
            "Bad router request: Either subnet_id or port_id must be specified.",
        )),
        both => Ok(both),
    }
}

fn interface_shown(router: &Router, port: &Port, subnet_id: &str) -> Value {
    let all: Vec<&str> = port.fixed_ips.iter().map(|x| x.subnet_id.as_str()).collect();
    json!({
        "id": router.id,
        "project_id": router.project_id,
        "tenant_id": router.project_id,
        "port_id": port.id,
        "network_id": port.network_id,
        "subnet_id": subnet_id,
        "subnet_ids": all,
    })
}

/// `PUT /v2.0/routers/{id}/add_router_interface`
pub async fn add_interface(app: Arc<Network>, mut req: Req) -> Result<Reply> {
    let ctx = req.ctx()?.clone();
    let id = super::id(&req).to_owned();
    let (port_id, subnet_id) = interface(&mut req).await?;
    if port_id.is_some() && subnet_id.is_some() {
        return Err(bad(
            "BadRequest",
            "subnet_id",
            "Bad router request: Cannot specify both subnet-id and port-id.",
        ));
    }
    let actor = ctx.actor();
    let db = app.db.clone();
    let shown = db
        .write(&actor, async move |tx| {
            let mut touched = Touched::default();
            let router = fetch(tx, &ctx, AddRouterInterface, &id).await?;
            let port = match (&port_id, &subnet_id) {
                (Some(p), _) => {
                    let port = tx
                        .find::<Port>(p)
                        .await?
                        .filter(|x| x.visible(&ctx))
                        .ok_or_else(|| Port::not_found(p).with_field("port_id"))?;
                    app.add_interface_by_port(tx, &router, port, &mut touched).await?
                }
                (None, s) => {
                    let s = s.as_deref().unwrap_or_default();
                    app.add_interface_by_subnet(tx, &ctx, &router, s, &mut touched).await?
                }
            };
            let subnet = subnet_id
                .clone()
                .or_else(|| port.fixed_ips.first().map(|x| x.subnet_id.clone()))
                .unwrap_or_default();
            app.publish(tx, touched).await?;
            Ok(interface_shown(&router, &port, &subnet))
        })
        .await?;
    Ok(Reply::ok(&shown))
}

/// `PUT /v2.0/routers/{id}/remove_router_interface`
pub async fn remove_interface(app: Arc<Network>, mut req: Req) -> Result<Reply> {
    let ctx = req.ctx()?.clone();
    let id = super::id(&req).to_owned();
    let (port_id, subnet_id) = interface(&mut req).await?;
    let actor = ctx.actor();
    let db = app.db.clone();
    let shown = db
        .write(&actor, async move |tx| {
            let mut touched = Touched::default();
            let router = fetch(tx, &ctx, RemoveRouterInterface, &id).await?;
            let (port, subnet) = app
                .remove_interface(tx, &router, port_id.as_deref(), subnet_id.as_deref(), &mut touched)
                .await?;
            app.publish(tx, touched).await?;
            Ok(interface_shown(&router, &port, &subnet))
        })
        .await?;
    Ok(Reply::ok(&shown))
}

static EXTRA: Body = Body {
    open: false,
    fields: &[f(
        "routes",
        K::List {
            of: &K::Obj(&ROUTE),
            max: 100,
        },
    )
    .req()],
};

/// `PUT /v2.0/routers/{id}/add_extraroutes`
pub async fn add_routes(app: Arc<Network>, mut req: Req) -> Result<Reply> {
    let ctx = req.ctx()?.clone();
    let id = super::id(&req).to_owned();
    let body = req.fields("router", &EXTRA).await?;
    let actor = ctx.actor();
    let db = app.db.clone();
    let shown = db
        .write(&actor, async move |tx| {
            let old = fetch(tx, &ctx, AddExtraroutes, &id).await?;
            let mut router = old.edit();
            for r in routes(In(&body).list("routes").map_or(&[][..], Vec::as_slice))? {
                if !router.routes.contains(&r) {
                    router.routes.push(r);
                }
            }
            app.check_routes(tx, &router, &router.routes).await?;
            store_routes(&app, tx, &ctx, &old, router).await
        })
        .await?;
    Ok(Reply::ok(&json!({"router": shown})))
}

/// `PUT /v2.0/routers/{id}/remove_extraroutes`
pub async fn remove_routes(app: Arc<Network>, mut req: Req) -> Result<Reply> {
    let ctx = req.ctx()?.clone();
    let id = super::id(&req).to_owned();
    let body = req.fields("router", &EXTRA).await?;
    let actor = ctx.actor();
    let db = app.db.clone();
    let shown = db
        .write(&actor, async move |tx| {
            let old = fetch(tx, &ctx, RemoveExtraroutes, &id).await?;
            let mut router = old.edit();
            let gone = routes(In(&body).list("routes").map_or(&[][..], Vec::as_slice))?;
            router.routes.retain(|r| !gone.contains(r));
            store_routes(&app, tx, &ctx, &old, router).await
        })
        .await?;
    Ok(Reply::ok(&json!({"router": shown})))
}

async fn store_routes(
    app: &Network,
    tx: &mut Tx,
    ctx: &Ctx,
    old: &impl haneul_store::Grant<Router>,
    router: Router,
) -> Result<Shown> {
    let mut touched = Touched::default();
    touched.routers.insert(router.id.clone());
    let stored = tx.update(old, &router).await?;
    app.publish(tx, touched).await?;
    list::one(app, tx, ctx, &stored).await
}
