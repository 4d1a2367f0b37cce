//! `/v2.0/floatingips`.

use super::input::{self, In, Shape, kind};
use super::list::{self, Col, Listed, Shown, standard, with};
use crate::Network;
use crate::err::bad;
use crate::logic::floating_ips;
use crate::logic::publish::Touched;
use crate::model::{FloatingIp, Port};
use crate::policy;
use crate::policy::action::{CreateFloatingIp, DeleteFloatingIp, GetFloatingIp, UpdateFloatingIp};
use haneul_auth::{Ctx, Target, allow_create, fetch};
use haneul_core::Result;
use haneul_http::{Body, FieldKind as K, Reply, Req, f};
use haneul_store::{Query, Stored, Tx};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub(crate) static SHAPE: Shape = Shape {
    one: "floatingip",
    many: "floatingips",
    create: &Body {
        open: false,
        fields: &[
            f("floating_network_id", K::Uuid).req(),
            f("floating_ip_address", kind::IP).null(),
            f("subnet_id", K::Uuid).null(),
            f("port_id", K::Uuid).null(),
            f("fixed_ip_address", kind::IP).null(),
            f("description", kind::TEXT).null(),
            f("tenant_id", kind::PROJECT),
            f("project_id", kind::PROJECT),
            f("dns_name", kind::HOST),
            f("dns_domain", kind::HOST),
            f("tags", kind::TAGS),
        ],
    },
    update: &Body {
        open: false,
        fields: &[
            f("port_id", K::Uuid).null(),
            f("fixed_ip_address", kind::IP).null(),
            f("description", kind::TEXT).null(),
        ],
    },
    read_only: &[
        "id",
        "status",
        "router_id",
        "port_details",
        "created_at",
        "updated_at",
        "revision_number",
    ],
};

impl Listed for FloatingIp {
    const MANY: &'static str = "floatingips";
    const ONE: &'static str = "floatingip";
    const GET: &'static str = "get_floatingip";
    const COLUMNS_OF: &'static [(&'static str, &'static str, Col)] = &[
        ("floating_network_id", "floating_network_id", Col::Text),
        ("floating_ip_address", "floating_ip_address", Col::Text),
        ("fixed_ip_address", "fixed_ip_address", Col::Text),
        ("port_id", "port_id", Col::Text),
        ("router_id", "router_id", Col::Text),
        ("status", "status", Col::Text),
    ];
    const ATTRIBUTES: &'static [&'static str] = &[
        "id",
        "project_id",
        "description",
        "floating_network_id",
        "floating_ip_address",
        "fixed_ip_address",
        "port_id",
        "router_id",
        "status",
        "port_details",
        "dns_name",
        "dns_domain",
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
    async fn show(_app: &Network, tx: &mut Tx, rows: &[Stored<Self>]) -> Result<Vec<Shown>> {
        let ids: BTreeSet<String> = rows.iter().filter_map(|r| r.port_id.clone()).collect();
        let mut ports: BTreeMap<String, Stored<Port>> = BTreeMap::new();
        let ids: Vec<String> = ids.into_iter().collect();
        for chunk in ids.chunks(500) {
            for p in tx
                .list::<Port>(&Query::new().is_in("id", chunk.iter().map(String::as_str)))
                .await?
            {
                ports.insert(p.id.clone(), p);
            }
        }
        Ok(rows
            .iter()
            .map(|r| view(r, r.port_id.as_ref().and_then(|p| ports.get(p))))
            .collect())
    }
}

fn view(x: &Stored<FloatingIp>, port: Option<&Stored<Port>>) -> Shown {
    let details = port.map_or(Value::Null, |p| {
        json!({
            "name": p.name,
            "network_id": p.network_id,
            "mac_address": p.mac,
            "admin_state_up": p.admin_state_up,
            "status": p.status,
            "device_id": p.device_id,
            "device_owner": p.device_owner,
        })
    });
    let mut shown = with(
        standard(x),
        json!({
            "floating_network_id": x.floating_network_id,
            "floating_ip_address": x.floating_ip,
            "fixed_ip_address": x.fixed_ip,
            "port_id": x.port_id,
            "router_id": x.router_id,
            "status": x.status,
            "port_details": details,
            "dns_name": x.dns_name,
            "dns_domain": x.dns_domain,
        }),
    );
    shown.remove("name");
    shown
}

/// `GET /v2.0/floatingips`
pub async fn index(app: Arc<Network>, req: Req) -> Result<Reply> {
    list::list::<FloatingIp>(app, req).await
}

/// `GET /v2.0/floatingips/{id}`
pub async fn show(app: Arc<Network>, req: Req) -> Result<Reply> {
    let ctx = req.ctx()?.clone();
    let mut tx = app.db.read().await?;
    let fip = fetch(&mut tx, &ctx, GetFloatingIp, super::id(&req)).await?;
    let mut shown = [list::one(&app, &mut tx, &ctx, &fip).await?];
    list::pick(&req, &mut shown);
    Ok(Reply::ok(&json!({"floatingip": shown[0]})))
}

/// `POST /v2.0/floatingips`, one or a list.
pub async fn create(app: Arc<Network>, mut req: Req) -> Result<Reply> {
    let ctx = req.ctx()?.clone();
    let (items, bulk) = input::create(&mut req, &SHAPE).await?;
    let actor = ctx.actor();
    let (db, network) = (app.db.clone(), app.clone());
    let (shown, routers) = db
        .write(&actor, async move |tx| {
            let mut out = Vec::new();
            let mut touched = Touched::default();
            for item in &items {
                let fip = make(tx, &ctx, In(item), &mut touched).await?;
                out.push(list::one(&app, tx, &ctx, &fip).await?);
            }
            let routers = touched.routers.clone();
            app.publish(tx, touched).await?;
            Ok((out, routers))
        })
        .await?;
    network.carried(&routers).await;
    Ok(super::created("floatingip", "floatingips", shown, bulk))
}

fn fixed_without_port(body: In<'_>, has_port: bool) -> Result<()> {
    if body.get("fixed_ip_address").is_some() && !has_port {
        return Err(bad(
            "BadRequest",
            "fixed_ip_address",
            "Bad floatingip request: fixed_ip_address cannot be specified without a port_id.",
        ));
    }
    Ok(())
}

async fn make(tx: &mut Tx, ctx: &Ctx, body: In<'_>, touched: &mut Touched) -> Result<Stored<FloatingIp>> {
    let project_id = input::project(ctx, body)?;
    let target = Target::project(&project_id);
    let grant = allow_create(ctx, CreateFloatingIp, &target)?;
    policy::check(ctx, "create_floatingip", body.map(), &target)?;
    let network_id = body.str("floating_network_id").unwrap_or_default();
    fixed_without_port(body, body.get("port_id").is_some())?;
    let mut fip = floating_ips::blank(&project_id, &network_id);
    fip.description = body.str("description").unwrap_or_default();
    fip.tags = super::tags::clean(body.strings("tags").unwrap_or_default());
    fip.dns_name = body.str("dns_name").unwrap_or_default();
    fip.dns_domain = body.str("dns_domain").unwrap_or_default();
    let to = match body.str("port_id") {
        Some(id) => Some(floating_ips::port(tx, ctx, &project_id, &id).await?),
        None => None,
    };
    let wanted = floating_ips::Wanted {
        subnet_id: body.str("subnet_id"),
        address: body.ip("floating_ip_address"),
        leads_to: to.as_ref().map(|p| (&p.value, body.ip("fixed_ip_address"))),
    };
    floating_ips::create(tx, ctx, &grant, fip, wanted, touched).await
}

/// `PUT /v2.0/floatingips/{id}`: associates, disassociates (`port_id: null`), describes.
pub async fn update(app: Arc<Network>, mut req: Req) -> Result<Reply> {
    let ctx = req.ctx()?.clone();
    let id = super::id(&req).to_owned();
    let revision = input::if_match(&req)?;
    let item = input::update(&mut req, &SHAPE).await?;
    let actor = ctx.actor();
    let (db, network) = (app.db.clone(), app.clone());
    let (shown, routers) = db
        .write(&actor, async move |tx| {
            let body = In(&item);
            let old = fetch(tx, &ctx, UpdateFloatingIp, &id).await?;
            input::check_revision(revision, old.generation, &id)?;
            let mut fip = old.edit();
            let mut touched = Touched::default();
            body.set_str("description", &mut fip.description);
            match (body.has("port_id"), body.str("port_id")) {
                (true, Some(p)) => {
                    let p = floating_ips::port(tx, &ctx, &fip.project_id, &p).await?;
                    floating_ips::lead(
                        tx,
                        &mut fip,
                        Some((&p.value, body.ip("fixed_ip_address"))),
                        &mut touched,
                    )
                    .await?;
                }
                (true, None) => {
                    fixed_without_port(body, false)?;
                    floating_ips::lead(tx, &mut fip, None, &mut touched).await?;
                }
                (false, _) => {
                    fixed_without_port(body, fip.port_id.is_some())?;
                    if let (Some(ip), Some(p)) = (body.ip("fixed_ip_address"), fip.port_id.clone()) {
                        let p = floating_ips::port(tx, &ctx, &fip.project_id, &p).await?;
                        floating_ips::lead(tx, &mut fip, Some((&p.value, Some(ip))), &mut touched).await?;
                    }
                }
            }
            let stored = tx.update(&old, &fip).await?;
            let routers = touched.routers.clone();
            app.publish(tx, touched).await?;
            Ok((list::one(&app, tx, &ctx, &stored).await?, routers))
        })
        .await?;
    network.carried(&routers).await;
    Ok(Reply::ok(&json!({"floatingip": shown})))
}

/// `DELETE /v2.0/floatingips/{id}`
pub async fn delete(app: Arc<Network>, req: Req) -> Result<Reply> {
    let ctx = req.ctx()?.clone();
    let id = super::id(&req).to_owned();
    let revision = input::deletion(&req)?;
    let actor = ctx.actor();
    let (db, network) = (app.db.clone(), app.clone());
    let routers = db
        .write(&actor, async move |tx| {
            let fip = fetch(tx, &ctx, DeleteFloatingIp, &id).await?;
            input::check_revision(revision, fip.generation, &id)?;
            let mut touched = Touched::default();
            floating_ips::remove(tx, &fip, &mut touched).await?;
            let routers = touched.routers.clone();
            app.publish(tx, touched).await?;
            Ok(routers)
        })
        .await?;
    network.carried(&routers).await;
    Ok(Reply::no_content())
}
