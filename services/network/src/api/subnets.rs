//! `/v2.0/subnets`.

use super::input::{self, In, Shape, kind};
use super::list::{self, Col, Listed, Shown, standard, with};
use crate::Network;
use crate::err::{attribute, bad, invalid};
use crate::logic::publish::Touched;
use crate::logic::{quotas, subnets};
use crate::model::{Net, Pool, Subnet};
use crate::policy;
use crate::policy::action::{CreateSubnet, DeleteSubnet, GetSubnet, UpdateSubnet};
use haneul_auth::{Ctx, Secured, allow_create, fetch};
use haneul_core::{Error, Result, id};
use haneul_http::{Body, FieldKind as K, Reply, Req, f};
use haneul_store::{Query, Stored, Tx};
use ipnet::IpNet;
use serde_json::{Value, json};
use std::net::IpAddr;
use std::sync::Arc;

const MODES: &[&str] = &["slaac", "dhcpv6-stateful", "dhcpv6-stateless"];

static POOL: Body = Body {
    open: false,
    fields: &[f("start", kind::IP).req(), f("end", kind::IP).req()],
};
static ROUTE: Body = Body {
    open: false,
    fields: &[f("destination", kind::CIDR).req(), f("nexthop", kind::IP).req()],
};

pub(crate) static SHAPE: Shape = Shape {
    one: "subnet",
    many: "subnets",
    create: &Body {
        open: false,
        fields: &[
            f("network_id", K::Uuid).req(),
            f("ip_version", K::Int { min: 0, max: 99 }),
            f("cidr", kind::CIDR).null(),
            f("name", kind::TEXT).null(),
            f("description", kind::TEXT).null(),
            f("tenant_id", kind::PROJECT),
            f("project_id", kind::PROJECT),
            f("gateway_ip", kind::IP).null(),
            f(
                "allocation_pools",
                K::List {
                    of: &K::Obj(&POOL),
                    max: 100,
                },
            )
            .null(),
            f("enable_dhcp", K::Bool),
            f(
                "dns_nameservers",
                K::List {
                    of: &kind::IP,
                    max: 100,
                },
            )
            .null(),
            f(
                "host_routes",
                K::List {
                    of: &K::Obj(&ROUTE),
                    max: 100,
                },
            )
            .null(),
            f("ipv6_ra_mode", K::OneOf(MODES)).null(),
            f("ipv6_address_mode", K::OneOf(MODES)).null(),
            f("subnetpool_id", K::Uuid).null(),
            f("prefixlen", K::Int { min: 0, max: 128 }).null(),
            f("tags", kind::TAGS),
        ],
    },
    update: &Body {
        open: false,
        fields: &[
            f("name", kind::TEXT).null(),
            f("description", kind::TEXT).null(),
            f("gateway_ip", kind::IP).null(),
            f(
                "allocation_pools",
                K::List {
                    of: &K::Obj(&POOL),
                    max: 100,
                },
            )
            .null(),
            f("enable_dhcp", K::Bool),
            f(
                "dns_nameservers",
                K::List {
                    of: &kind::IP,
                    max: 100,
                },
            )
            .null(),
            f(
                "host_routes",
                K::List {
                    of: &K::Obj(&ROUTE),
                    max: 100,
                },
            )
            .null(),
        ],
    },
    read_only: &["id", "created_at", "updated_at", "revision_number", "shared"],
};

/// Nameservers and routes of a subnet at the most (Neutron's `max_dns_nameservers`, `max_subnet_host_routes`).
const MAX_DNS: usize = 5;
const MAX_ROUTES: usize = 20;

impl Listed for Subnet {
    const MANY: &'static str = "subnets";
    const ONE: &'static str = "subnet";
    const GET: &'static str = "get_subnet";
    const COLUMNS_OF: &'static [(&'static str, &'static str, Col)] = &[
        ("network_id", "network_id", Col::Text),
        ("shared", "shared", Col::Bool),
        ("router:external", "external", Col::Bool),
    ];
    const ATTRIBUTES: &'static [&'static str] = &[
        "id",
        "name",
        "project_id",
        "description",
        "network_id",
        "ip_version",
        "cidr",
        "gateway_ip",
        "enable_dhcp",
        "allocation_pools",
        "dns_nameservers",
        "host_routes",
        "ipv6_ra_mode",
        "ipv6_address_mode",
        "subnetpool_id",
        "created_at",
        "updated_at",
        "revision_number",
    ];
    fn scope(ctx: &Ctx, query: Query) -> Query {
        if ctx.is_admin() {
            return query;
        }
        query.any_eq(vec![
            ("project_id", ctx.project_id().into()),
            ("network_project_id", ctx.project_id().into()),
            ("shared", true.into()),
        ])
    }
    async fn show(_app: &Network, _tx: &mut Tx, rows: &[Stored<Self>]) -> Result<Vec<Shown>> {
        Ok(rows.iter().map(view).collect())
    }
}

fn view(s: &Stored<Subnet>) -> Shown {
    with(
        standard(s),
        json!({
            "network_id": s.network_id,
            "ip_version": if s.is_v6() { 6 } else { 4 },
            "cidr": s.cidr.to_string(),
            "gateway_ip": s.gateway_ip,
            "enable_dhcp": s.enable_dhcp,
            "allocation_pools": s.allocation_pools,
            "dns_nameservers": s.dns_nameservers,
            "host_routes": s.host_routes.iter().map(|(d, n)| json!({"destination": d.to_string(), "nexthop": n})).collect::<Vec<_>>(),
            "ipv6_ra_mode": s.ipv6_ra_mode,
            "ipv6_address_mode": s.ipv6_address_mode,
            "subnetpool_id": Value::Null,
        }),
    )
}

/// `GET /v2.0/subnets`
pub async fn index(app: Arc<Network>, req: Req) -> Result<Reply> {
    list::list::<Subnet>(app, req).await
}

/// `GET /v2.0/subnets/{id}`
pub async fn show(app: Arc<Network>, req: Req) -> Result<Reply> {
    let ctx = req.ctx()?.clone();
    let mut tx = app.db.read().await?;
    let subnet = fetch(&mut tx, &ctx, GetSubnet, super::id(&req)).await?;
    let mut shown = [list::one(&app, &mut tx, &ctx, &subnet).await?];
    list::pick(&req, &mut shown);
    Ok(Reply::ok(&json!({"subnet": shown[0]})))
}

/// `POST /v2.0/subnets`, one or a list.
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
                let subnet = make(tx, &ctx, In(item), &mut touched).await?;
                out.push(list::one(&app, tx, &ctx, &subnet).await?);
            }
            app.publish(tx, touched).await?;
            Ok(out)
        })
        .await?;
    Ok(super::created("subnet", "subnets", shown, bulk))
}

fn pools(body: In<'_>) -> Option<Vec<Pool>> {
    body.list("allocation_pools").map(|l| {
        l.iter()
            .filter_map(|p| {
                Some(Pool {
                    start: In(p).ip("start")?,
                    end: In(p).ip("end")?,
                })
            })
            .collect()
    })
}

fn nameservers(body: In<'_>) -> Result<Vec<IpAddr>> {
    let all: Vec<IpAddr> = body
        .strings("dns_nameservers")
        .unwrap_or_default()
        .iter()
        .filter_map(|s| s.trim().parse().ok())
        .collect();
    for (i, ip) in all.iter().enumerate() {
        if all.iter().take(i).any(|o| o == ip) {
            return Err(attribute("dns_nameservers", format!("Duplicate nameserver '{ip}'")));
        }
    }
    if all.len() > MAX_DNS {
        return Err(bad(
            "DNSNameServersExhausted",
            "dns_nameservers",
            format!(
                "Unable to complete operation. The number of DNS nameservers exceeds the limit {MAX_DNS}: {} asked.",
                all.len()
            ),
        ));
    }
    Ok(all)
}

fn host_routes(body: In<'_>, v6: bool) -> Result<Vec<(IpNet, IpAddr)>> {
    let mut all: Vec<(IpNet, IpAddr)> = Vec::new();
    for item in body.list("host_routes").into_iter().flatten() {
        let r = In(item);
        let text = r.str("destination").unwrap_or_default();
        let destination: IpNet = text
            .parse()
            .map_err(|_| attribute("host_routes", format!("'{text}' isn't a recognized IP subnet cidr")))?;
        let nexthop = r
            .ip("nexthop")
            .ok_or_else(|| attribute("host_routes", "nexthop is not an IP address"))?;
        if matches!(destination, IpNet::V6(_)) != v6 || nexthop.is_ipv6() != v6 {
            return Err(invalid(
                "host_routes",
                format!("route {destination} via {nexthop} is not of the subnet's ip_version"),
            ));
        }
        if all.contains(&(destination, nexthop)) {
            return Err(attribute(
                "host_routes",
                format!("Duplicate hostroute '{destination} via {nexthop}'"),
            ));
        }
        all.push((destination, nexthop));
    }
    if all.len() > MAX_ROUTES {
        return Err(bad(
            "HostRoutesExhausted",
            "host_routes",
            format!(
                "Unable to complete operation. The number of host routes exceeds the limit {MAX_ROUTES}: {} asked.",
                all.len()
            ),
        ));
    }
    Ok(all)
}

async fn make(tx: &mut Tx, ctx: &Ctx, body: In<'_>, touched: &mut Touched) -> Result<Stored<Subnet>> {
    let network_id = body.str("network_id").unwrap_or_default();
    let net = tx
        .find::<Net>(&network_id)
        .await?
        .filter(|n| n.visible(ctx))
        .ok_or_else(|| Net::not_found(&network_id).with_field("network_id"))?;
    let project_id = match body.has("project_id") || body.has("tenant_id") {
        true => input::project(ctx, body)?,
        // A subnet goes with its network, also when an administrator makes it.
        false => net.project_id.clone(),
    };
    let target = net.policy(&project_id);
    let grant = allow_create(ctx, CreateSubnet, &target)?;
    policy::check(ctx, "create_subnet", body.map(), &target)?;
    let Some(version) = body.int("ip_version") else {
        return Err(bad(
            "HTTPBadRequest",
            "ip_version",
            "Failed to parse request. Required attribute 'ip_version' not specified",
        ));
    };
    if version != 4 && version != 6 {
        return Err(attribute("ip_version", format!("'{version}' is not in [4, 6]")));
    }
    if body.str("subnetpool_id").is_some() {
        return Err(bad(
            "SubnetPoolNotFound",
            "subnetpool_id",
            "There are no subnet pools in this cloud: write a cidr instead of subnetpool_id.",
        ));
    }
    let Some(text) = body.str("cidr") else {
        return Err(bad(
            "BadRequest",
            "cidr",
            "Bad subnets request: a subnetpool must be specified in the absence of a cidr. There are no subnet pools in this cloud: write a cidr.",
        ));
    };
    let enable_dhcp = body.bool("enable_dhcp").unwrap_or(true);
    let cidr = subnets::check_cidr(text.trim(), version, enable_dhcp)?;
    let asked_pools = pools(body);
    if let Some(p) = &asked_pools {
        subnets::check_pools(&cidr, p)?;
    }
    let gateway_ip = match (body.has("gateway_ip"), body.ip("gateway_ip")) {
        (true, given) => given,
        (false, _) => subnets::default_gateway(&cidr),
    };
    if let Some(gateway) = gateway_ip {
        subnets::check_gateway(&cidr, gateway, asked_pools.as_deref().unwrap_or_default())?;
    }
    let mut subnet = Subnet {
        id: id::uuid(),
        project_id,
        name: body.str("name").unwrap_or_default(),
        description: body.str("description").unwrap_or_default(),
        tags: super::tags::clean(body.strings("tags").unwrap_or_default()),
        network_id,
        network_project_id: String::new(),
        shared: false,
        external: false,
        cidr,
        gateway_ip,
        enable_dhcp,
        allocation_pools: asked_pools.unwrap_or_else(|| subnets::default_pools(&cidr, gateway_ip)),
        dns_nameservers: nameservers(body)?,
        host_routes: host_routes(body, version == 6)?,
        ipv6_ra_mode: body.str("ipv6_ra_mode"),
        ipv6_address_mode: body.str("ipv6_address_mode"),
    };
    subnet.follow(&net);
    subnets::check_modes(&subnet)?;
    quotas::take(tx, &subnet.project_id, "subnet", 1).await?;
    subnets::insert(tx, &grant, &net, &subnet, touched).await
}

/// `PUT /v2.0/subnets/{id}`
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
            let old = fetch(tx, &ctx, UpdateSubnet, &id).await?;
            input::check_revision(revision, old.generation, &id)?;
            policy::check(&ctx, "update_subnet", body.map(), &old.target())?;
            let net = tx
                .find::<Net>(&old.network_id)
                .await?
                .ok_or_else(|| Error::internal(format!("subnet {id} has no network")))?;
            let mut s = old.edit();
            body.set_str("name", &mut s.name);
            body.set_str("description", &mut s.description);
            if body.has("dns_nameservers") {
                s.dns_nameservers = nameservers(body)?;
            }
            if body.has("host_routes") {
                s.host_routes = host_routes(body, s.is_v6())?;
            }
            if let Some(dhcp) = body.bool("enable_dhcp") {
                if !dhcp && (s.ipv6_ra_mode.is_some() || s.ipv6_address_mode.is_some()) {
                    return Err(invalid(
                        "enable_dhcp",
                        "Cannot disable enable_dhcp with ipv6 attributes set",
                    ));
                }
                s.enable_dhcp = dhcp;
                subnets::check_cidr(&s.cidr.to_string(), if s.is_v6() { 6 } else { 4 }, dhcp)?;
            }
            if let Some(p) = pools(body) {
                subnets::check_pools(&s.cidr, &p)?;
                s.allocation_pools = p;
            }
            if body.has("gateway_ip") {
                s.gateway_ip = body.ip("gateway_ip");
            }
            if let Some(gateway) = s.gateway_ip
                && (body.has("gateway_ip") || body.has("allocation_pools"))
            {
                subnets::check_gateway(&s.cidr, gateway, &s.allocation_pools)?;
            }
            let mut touched = Touched::default();
            let stored = subnets::update(tx, &old, &net, &s, &mut touched).await?;
            app.publish(tx, touched).await?;
            list::one(&app, tx, &ctx, &stored).await
        })
        .await?;
    Ok(Reply::ok(&json!({"subnet": shown})))
}

/// `DELETE /v2.0/subnets/{id}`
pub async fn delete(app: Arc<Network>, req: Req) -> Result<Reply> {
    let ctx = req.ctx()?.clone();
    let id = super::id(&req).to_owned();
    let revision = input::deletion(&req)?;
    let actor = ctx.actor();
    let db = app.db.clone();
    db.write(&actor, async move |tx| {
        let subnet = fetch(tx, &ctx, DeleteSubnet, &id).await?;
        input::check_revision(revision, subnet.generation, &id)?;
        let mut touched = Touched::default();
        app.subnet_delete(tx, &subnet, &mut touched).await?;
        app.publish(tx, touched).await
    })
    .await?;
    Ok(Reply::no_content())
}
