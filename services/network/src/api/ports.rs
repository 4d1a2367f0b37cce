//! `/v2.0/ports`.

use super::input::{self, In, Shape, kind};
use super::list::{self, Col, Listed, Shown, standard, with};
use crate::Network;
use crate::err::{attribute, bad, conflict, invalid};
use crate::logic::ports::{self, Ask, Wish};
use crate::logic::publish::Touched;
use crate::logic::{groups, quotas};
use crate::model::{AddressPair, DhcpOption, Net, Port, owner};
use crate::policy;
use crate::policy::action::{CreatePort, DeletePort, GetPort, UpdatePort};
use haneul_auth::{Ctx, Secured, allow_create, fetch};
use haneul_core::{Error, Result};
use haneul_http::{Body, FieldKind as K, Reply, Req, f};
use haneul_store::{Query, Stored, Tx, V};
use ipnet::IpNet;
use serde_json::{Value, json};
use std::net::IpAddr;
use std::sync::Arc;

static FIXED_IP: Body = Body {
    open: false,
    fields: &[f("subnet_id", K::Uuid), f("ip_address", kind::IP)],
};
static PAIR: Body = Body {
    open: false,
    fields: &[f("ip_address", kind::CIDR), f("mac_address", kind::MAC)],
};
static OPTION: Body = Body {
    open: false,
    fields: &[
        f("opt_name", K::Str { min: 1, max: 64 }).req(),
        f("opt_value", K::Str { min: 0, max: 255 }).req().null(),
        f("ip_version", K::Int { min: 4, max: 6 }),
    ],
};
const VNIC: &[&str] = &["normal"];

pub(crate) static SHAPE: Shape = Shape {
    one: "port",
    many: "ports",
    create: &Body {
        open: false,
        fields: &[
            f("network_id", K::Uuid).req(),
            f("name", kind::TEXT).null(),
            f("description", kind::TEXT).null(),
            f("tenant_id", kind::PROJECT),
            f("project_id", kind::PROJECT),
            f("admin_state_up", K::Bool),
            f("mac_address", kind::MAC).null(),
            f(
                "fixed_ips",
                K::List {
                    of: &K::Obj(&FIXED_IP),
                    max: 100,
                },
            )
            .null(),
            f("device_id", kind::TEXT).null(),
            f("device_owner", kind::TEXT).null(),
            f("security_groups", K::List { of: &K::Uuid, max: 100 }).null(),
            f(
                "allowed_address_pairs",
                K::List {
                    of: &K::Obj(&PAIR),
                    max: 100,
                },
            )
            .null(),
            f("port_security_enabled", K::Bool),
            f(
                "extra_dhcp_opts",
                K::List {
                    of: &K::Obj(&OPTION),
                    max: 50,
                },
            )
            .null(),
            f("dns_name", kind::HOST),
            f("binding:host_id", kind::TEXT).null(),
            f("binding:vnic_type", kind::TEXT),
            f("binding:profile", K::Free).null(),
            f("tags", kind::TAGS),
        ],
    },
    update: &Body {
        open: false,
        fields: &[
            f("name", kind::TEXT).null(),
            f("description", kind::TEXT).null(),
            f("admin_state_up", K::Bool),
            f("mac_address", kind::MAC),
            f(
                "fixed_ips",
                K::List {
                    of: &K::Obj(&FIXED_IP),
                    max: 100,
                },
            )
            .null(),
            f("device_id", kind::TEXT).null(),
            f("device_owner", kind::TEXT).null(),
            f("security_groups", K::List { of: &K::Uuid, max: 100 }).null(),
            f(
                "allowed_address_pairs",
                K::List {
                    of: &K::Obj(&PAIR),
                    max: 100,
                },
            )
            .null(),
            f("port_security_enabled", K::Bool),
            f(
                "extra_dhcp_opts",
                K::List {
                    of: &K::Obj(&OPTION),
                    max: 50,
                },
            )
            .null(),
            f("dns_name", kind::HOST),
            f("binding:host_id", kind::TEXT).null(),
            f("binding:vnic_type", kind::TEXT),
            f("binding:profile", K::Free).null(),
        ],
    },
    read_only: &[
        "id",
        "status",
        "created_at",
        "updated_at",
        "revision_number",
        "binding:vif_type",
        "binding:vif_details",
        "dns_assignment",
    ],
};

/// Pairs of a port at the most (Neutron's `max_allowed_address_pair`).
const MAX_PAIRS: usize = 10;

impl Listed for Port {
    const MANY: &'static str = "ports";
    const ONE: &'static str = "port";
    const GET: &'static str = "get_port";
    const COLUMNS_OF: &'static [(&'static str, &'static str, Col)] = &[
        ("network_id", "network_id", Col::Text),
        ("device_id", "device_id", Col::Text),
        ("device_owner", "device_owner", Col::Text),
        ("mac_address", "mac", Col::Text),
        ("status", "status", Col::Text),
        ("binding:host_id", "host_id", Col::Text),
    ];
    const ATTRIBUTES: &'static [&'static str] = &[
        "id",
        "name",
        "project_id",
        "description",
        "network_id",
        "mac_address",
        "fixed_ips",
        "admin_state_up",
        "status",
        "device_id",
        "device_owner",
        "security_groups",
        "allowed_address_pairs",
        "port_security_enabled",
        "extra_dhcp_opts",
        "dns_name",
        "dns_assignment",
        "binding:host_id",
        "binding:vnic_type",
        "binding:vif_type",
        "binding:vif_details",
        "binding:profile",
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
        ])
    }
    fn special(query: Query, name: &str, values: &[String]) -> (Query, bool) {
        let holes = |n: usize| vec!["{}"; n].join(", ");
        match name {
            "fixed_ips" => {
                let of = |key: &str| -> Vec<V> {
                    values
                        .iter()
                        .filter_map(|v| v.strip_prefix(key)?.strip_prefix('='))
                        .map(|v| {
                            v.parse::<IpAddr>()
                                .map_or_else(|_| v.to_owned(), |ip| ip.to_string())
                                .into()
                        })
                        .collect()
                };
                let (ips, subnets) = (of("ip_address"), of("subnet_id"));
                if ips.is_empty() && subnets.is_empty() {
                    return (query.raw("1 = 0", vec![]), true);
                }
                let mut conditions = Vec::new();
                let mut args = Vec::new();
                for (column, list) in [("ip", ips), ("subnet_id", subnets)] {
                    if !list.is_empty() {
                        conditions.push(format!("{column} IN ({})", holes(list.len())));
                        args.extend(list);
                    }
                }
                let sql = format!(
                    "id IN (SELECT port_id FROM ip_allocation WHERE {})",
                    conditions.join(" AND ")
                );
                (query.raw(&sql, args), true)
            }
            "security_groups" | "security_group_ids" => {
                if values.is_empty() {
                    return (query, true);
                }
                let sql = format!(
                    "id IN (SELECT port_id FROM port_security_group WHERE security_group_id IN ({}))",
                    holes(values.len())
                );
                (query.raw(&sql, values.iter().map(V::from).collect()), true)
            }
            _ => (query, false),
        }
    }
    async fn show(app: &Network, _tx: &mut Tx, rows: &[Stored<Self>]) -> Result<Vec<Shown>> {
        Ok(rows.iter().map(|p| view(app, p)).collect())
    }
}

fn view(app: &Network, p: &Stored<Port>) -> Shown {
    let domain = app.settings.dns_domain.trim_end_matches('.');
    let bound = !p.host_id.is_empty();
    let assignment: Vec<Value> = p
        .fixed_ips
        .iter()
        .map(|x| {
            let host = match p.dns_name.as_str() {
                "" => format!("host-{}", x.ip.to_string().replace(['.', ':'], "-")),
                name => name.trim_end_matches('.').to_owned(),
            };
            json!({"ip_address": x.ip, "hostname": host, "fqdn": format!("{host}.{domain}.")})
        })
        .collect();
    with(
        standard(p),
        json!({
            "network_id": p.network_id,
            "mac_address": p.mac,
            "fixed_ips": p.fixed_ips,
            "admin_state_up": p.admin_state_up,
            "status": p.status,
            "device_id": p.device_id,
            "device_owner": p.device_owner,
            "security_groups": p.security_groups,
            "allowed_address_pairs": p.allowed_address_pairs.iter().map(|a| json!({"ip_address": a.shown, "mac_address": a.mac})).collect::<Vec<_>>(),
            "port_security_enabled": p.port_security,
            "extra_dhcp_opts": p.extra_dhcp_opts,
            "dns_name": p.dns_name,
            "dns_assignment": assignment,
            "binding:host_id": p.host_id,
            "binding:vnic_type": p.vnic_type,
            "binding:vif_type": if bound { "tap" } else { "unbound" },
            "binding:vif_details": if bound { json!({"port_filter": true}) } else { json!({}) },
            "binding:profile": p.profile,
        }),
    )
}

/// `GET /v2.0/ports`
pub async fn index(app: Arc<Network>, req: Req) -> Result<Reply> {
    list::list::<Port>(app, req).await
}

/// `GET /v2.0/ports/{id}`
pub async fn show(app: Arc<Network>, req: Req) -> Result<Reply> {
    let ctx = req.ctx()?.clone();
    let mut tx = app.db.read().await?;
    let port = fetch(&mut tx, &ctx, GetPort, super::id(&req)).await?;
    let mut shown = [list::one(&app, &mut tx, &ctx, &port).await?];
    list::pick(&req, &mut shown);
    Ok(Reply::ok(&json!({"port": shown[0]})))
}

/// `POST /v2.0/ports`, one or a list.
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
                let port = make(tx, &ctx, In(item), &mut touched).await?;
                out.push(list::one(&app, tx, &ctx, &port).await?);
            }
            app.publish(tx, touched).await?;
            Ok(out)
        })
        .await?;
    Ok(super::created("port", "ports", shown, bulk))
}

fn asks(body: In<'_>) -> Result<Option<Vec<Ask>>> {
    let Some(list) = body.list("fixed_ips") else {
        return Ok(None);
    };
    let asks: Vec<Ask> = list
        .iter()
        .map(|x| Ask {
            subnet_id: In(x).str("subnet_id"),
            ip: In(x).ip("ip_address"),
        })
        .collect();
    ports::check_asks(&asks)?;
    Ok(Some(asks))
}

fn pairs(body: In<'_>, own_mac: &str) -> Result<Vec<AddressPair>> {
    let mut out: Vec<AddressPair> = Vec::new();
    for item in body.list("allowed_address_pairs").into_iter().flatten() {
        let Some(text) = In(item).str("ip_address") else {
            return Err(bad(
                "AllowedAddressPairsMissingIP",
                "allowed_address_pairs",
                "AllowedAddressPair must contain ip_address",
            ));
        };
        let ip = text
            .parse::<IpNet>()
            .ok()
            .or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
            .ok_or_else(|| {
                attribute(
                    "allowed_address_pairs",
                    format!("'{text}' is neither an IP address nor a range"),
                )
            })?;
        let mac = In(item)
            .str("mac_address")
            .unwrap_or_else(|| own_mac.to_owned())
            .to_lowercase();
        if out.iter().any(|p| p.ip == ip && p.mac == mac) {
            return Err(bad(
                "DuplicateAddressPairInRequest",
                "allowed_address_pairs",
                format!("Request contains duplicate address pair: mac_address {mac} ip_address {text}."),
            ));
        }
        out.push(AddressPair { ip, shown: text, mac });
    }
    if out.len() > MAX_PAIRS {
        return Err(bad(
            "AllowedAddressPairExhausted",
            "allowed_address_pairs",
            format!(
                "The number of allowed address pair exceeds the maximum {MAX_PAIRS}: {} asked.",
                out.len()
            ),
        ));
    }
    Ok(out)
}

fn dhcp_options(body: In<'_>, mut old: Vec<DhcpOption>) -> Vec<DhcpOption> {
    for item in body.list("extra_dhcp_opts").into_iter().flatten() {
        let name = In(item).str("opt_name").unwrap_or_default();
        let version = if In(item).int("ip_version") == Some(6) { 6 } else { 4 };
        old.retain(|o| !(o.opt_name == name && o.ip_version == version));
        // A null value takes the option away.
        if let Some(value) = In(item).str("opt_value") {
            old.push(DhcpOption {
                opt_name: name,
                opt_value: value,
                ip_version: version,
            });
        }
    }
    old
}

fn vnic(body: In<'_>) -> Result<Option<String>> {
    match body.str("binding:vnic_type") {
        Some(v) if !VNIC.contains(&v.as_str()) => Err(attribute(
            "binding:vnic_type",
            format!("'{v}' is not in {VNIC:?}: this cloud has no hardware that could give others"),
        )),
        other => Ok(other),
    }
}

/// Groups and pairs need port security.
fn check_security(port: &Port) -> Result<()> {
    if !port.port_security && !port.security_groups.is_empty() {
        return Err(conflict(
            "PortSecurityPortHasSecurityGroup",
            "Port has security group associated. Cannot disable port security or IP address until security group is removed.",
        )
        .with_field("port_security_enabled"));
    }
    if !port.port_security && !port.allowed_address_pairs.is_empty() {
        return Err(conflict(
            "AddressPairAndPortSecurityRequired",
            "Port Security must be enabled in order to have allowed address pairs on a port.",
        )
        .with_field("allowed_address_pairs"));
    }
    Ok(())
}

async fn make(tx: &mut Tx, ctx: &Ctx, body: In<'_>, touched: &mut Touched) -> Result<Stored<Port>> {
    let network_id = body.str("network_id").unwrap_or_default();
    let net = tx
        .find::<Net>(&network_id)
        .await?
        .filter(|n| n.visible(ctx))
        .ok_or_else(|| Net::not_found(&network_id).with_field("network_id"))?;
    let project_id = input::project(ctx, body)?;
    let target = net.policy(&project_id);
    let grant = allow_create(ctx, CreatePort, &target)?;
    // On another project's network that is external only, addresses come as floating IPs and gateways.
    if !ctx.is_admin() && net.external && !net.shared && net.project_id != ctx.project_id() {
        return Err(Error::forbidden(format!(
            "(rule:create_port) is disallowed by policy: network {network_id} is external and not shared. Use a floating IP or a router's gateway."
        ))
        .with_code("PolicyNotAuthorized")
        .with_field("network_id"));
    }
    policy::check(ctx, "create_port", body.map(), &target)?;
    refuse_service_owner(&body.str("device_owner").unwrap_or_default())?;
    let mut port = ports::blank(&net, &project_id);
    port.name = body.str("name").unwrap_or_default();
    port.description = body.str("description").unwrap_or_default();
    port.tags = super::tags::clean(body.strings("tags").unwrap_or_default());
    body.set_bool("admin_state_up", &mut port.admin_state_up);
    port.mac = body.str("mac_address").unwrap_or_default().to_lowercase();
    port.device_id = body.str("device_id").unwrap_or_default();
    port.device_owner = body.str("device_owner").unwrap_or_default();
    body.set_bool("port_security_enabled", &mut port.port_security);
    port.extra_dhcp_opts = dhcp_options(body, vec![]);
    port.dns_name = body.str("dns_name").unwrap_or_default();
    port.host_id = body.str("binding:host_id").unwrap_or_default();
    port.vnic_type = vnic(body)?.unwrap_or_else(|| "normal".into());
    port.profile = profile(body)?.unwrap_or_default();
    let service = port.is_service();
    port.security_groups = match body.strings("security_groups") {
        Some(ids) => {
            let ids = super::tags::clean(ids);
            groups::check_ids(tx, &project_id, ctx.is_admin(), &ids).await?;
            ids
        }
        None if service || !port.port_security => vec![],
        None => vec![groups::ensure_default(tx, &project_id).await?],
    };
    let wish = asks(body)?.map_or(Wish::Auto, Wish::Asked);
    if !port.port_security && !port.security_groups.is_empty() {
        return Err(bad(
            "PortSecurityAndIPRequiredForSecurityGroups",
            "security_groups",
            "Port security must be enabled and port must have an IP address in order to use security groups.",
        ));
    }
    quotas::take(tx, &project_id, "port", 1).await?;
    if !port.port_security && body.list("allowed_address_pairs").is_some_and(|l| !l.is_empty()) {
        return Err(conflict(
            "AddressPairAndPortSecurityRequired",
            "Port Security must be enabled in order to have allowed address pairs on a port.",
        )
        .with_field("allowed_address_pairs"));
    }
    ports::add_with(tx, &grant, &net, port, wish, touched, |p| {
        // Pairs without a MAC get the port's own.
        p.allowed_address_pairs = pairs(body, &p.mac)?;
        Ok(())
    })
    .await
}

fn profile(body: In<'_>) -> Result<Option<serde_json::Map<String, Value>>> {
    match body.get("binding:profile") {
        None => Ok(body.has("binding:profile").then(serde_json::Map::new)),
        Some(Value::Object(o)) if o.len() <= 32 => Ok(Some(o.clone())),
        Some(_) => Err(attribute(
            "binding:profile",
            "it must be an object with at most 32 members",
        )),
    }
}

/// `PUT /v2.0/ports/{id}`
pub async fn update(app: Arc<Network>, mut req: Req) -> Result<Reply> {
    let ctx = req.ctx()?.clone();
    let id = super::id(&req).to_owned();
    let revision = input::if_match(&req)?;
    let item = input::update(&mut req, &SHAPE).await?;
    let actor = ctx.actor();
    let db = app.db.clone();
    let shown = db
        .write(&actor, async move |tx| {
            let mut touched = Touched::default();
            let old = fetch(tx, &ctx, UpdatePort, &id).await?;
            input::check_revision(revision, old.generation, &id)?;
            let net = tx
                .find::<Net>(&old.network_id)
                .await?
                .ok_or_else(|| Error::internal(format!("port {id} has no network")))?;
            let body = In(&item);
            let target = net.policy(&old.project_id);
            policy::check(&ctx, "update_port", body.map(), &target)?;
            let port = change(tx, &ctx, &net, &old.value, body).await?;
            touched.port_changed(&old.value, &port);
            let stored = tx.update(&old, &port).await?;
            if port.device_owner == owner::DHCP {
                touched.networks.insert(port.network_id.clone());
            } else if port.is_service() {
                touched.routers.insert(port.device_id.clone());
            }
            app.publish(tx, touched).await?;
            list::one(&app, tx, &ctx, &stored).await
        })
        .await?;
    Ok(Reply::ok(&json!({"port": shown})))
}

/// The network's own ports are made by routers, floating IPs and DHCP only: a port that said so by itself would
/// become an interface of somebody's router.
fn refuse_service_owner(wanted: &str) -> Result<()> {
    let reserved = [
        owner::DHCP,
        owner::ROUTER_INTERFACE,
        owner::ROUTER_GATEWAY,
        owner::FLOATING_IP,
    ];
    if reserved.contains(&wanted) {
        return Err(conflict(
            "UnsupportedPortDeviceOwner",
            format!("device_owner {wanted} cannot be set by the ports API: use add_router_interface, external_gateway_info, floatingips or enable_dhcp, which make such ports."),
        )
        .with_field("device_owner"));
    }
    Ok(())
}

/// Whom a port belongs to does not change under a device that holds it.
fn refuse_rebinding(old: &Port, body: In<'_>) -> Result<()> {
    let differs = |name: &str, is: &str| body.has(name) && body.str(name).unwrap_or_default() != is;
    if !differs("device_id", &old.device_id) && !differs("device_owner", &old.device_owner) {
        return Ok(());
    }
    let held = !old.device_id.is_empty() && (old.is_service() || old.is_carried());
    if held {
        return Err(conflict(
            "UnsupportedPortDeviceOwner",
            format!(
                "Operation update is not supported for device_owner {} on port {}: it is held by {}. Take it off that device first.",
                old.device_owner, old.id, old.device_id
            ),
        )
        .with_field("device_id"));
    }
    refuse_service_owner(&body.str("device_owner").unwrap_or_default())
}

async fn change(tx: &mut Tx, ctx: &Ctx, net: &Net, old: &Port, body: In<'_>) -> Result<Port> {
    let mut port = old.clone();
    body.set_str("name", &mut port.name);
    body.set_str("description", &mut port.description);
    body.set_str("dns_name", &mut port.dns_name);
    body.set_bool("admin_state_up", &mut port.admin_state_up);
    body.set_bool("port_security_enabled", &mut port.port_security);
    refuse_rebinding(old, body)?;
    body.set_str("device_id", &mut port.device_id);
    body.set_str("device_owner", &mut port.device_owner);
    body.set_str("binding:host_id", &mut port.host_id);
    if let Some(v) = vnic(body)? {
        port.vnic_type = v;
    }
    if let Some(p) = profile(body)? {
        port.profile = p;
    }
    if body.has("extra_dhcp_opts") {
        port.extra_dhcp_opts = dhcp_options(body, port.extra_dhcp_opts);
    }
    if let Some(mac) = body
        .str("mac_address")
        .map(|m| m.to_lowercase())
        .filter(|m| *m != old.mac)
    {
        if old.is_carried() {
            return Err(conflict(
                "PortBound",
                format!("Unable to complete operation on port {}, port is already bound, port type: tap, old_mac {}, new_mac {mac}.", old.id, old.mac),
            )
            .with_field("mac_address"));
        }
        let taken = Query::new().eq("network_id", net.id.as_str()).eq("mac", mac.as_str());
        if tx.count::<Port>(&taken).await? > 0 {
            return Err(ports::mac_in_use(&net.id, &mac));
        }
        port.mac = mac;
    }
    if body.has("fixed_ips") {
        let asks = asks(body)?.unwrap_or_default();
        refuse_lost_floating(tx, old, &asks).await?;
        port.fixed_ips = ports::readdress(tx, net, &port, &asks).await?;
    }
    if body.has("allowed_address_pairs") {
        port.allowed_address_pairs = pairs(body, &port.mac)?;
    }
    if body.has("security_groups") {
        let ids = super::tags::clean(body.strings("security_groups").unwrap_or_default());
        if port.is_service() && !ids.is_empty() {
            return Err(invalid(
                "security_groups",
                "ports of the network itself have no security groups",
            ));
        }
        groups::check_ids(tx, &port.project_id, ctx.is_admin(), &ids).await?;
        port.security_groups = ids;
    }
    check_security(&port)?;
    if port.security_groups != old.security_groups {
        groups::rejoin(tx, &port.id, &port.security_groups).await?;
    }
    Ok(port)
}

/// An address that a floating IP leads to stays.
async fn refuse_lost_floating(tx: &mut Tx, old: &Port, asks: &[Ask]) -> Result<()> {
    for f in tx
        .list::<crate::model::FloatingIp>(&Query::new().eq("port_id", old.id.as_str()))
        .await?
    {
        let kept = asks.iter().any(|a| match (a.ip, &a.subnet_id) {
            (Some(ip), _) => Some(ip) == f.fixed_ip,
            (None, Some(s)) => old
                .fixed_ips
                .iter()
                .any(|x| &x.subnet_id == s && Some(x.ip) == f.fixed_ip),
            (None, None) => false,
        });
        if !kept {
            return Err(conflict(
                "FipAssociated",
                format!(
                    "Unable to complete the operation on port \"{}\" because the port still has an associated floating IP: {} leads to {}. Disassociate it first.",
                    old.id,
                    f.floating_ip,
                    f.fixed_ip.map_or_else(String::new, |ip| ip.to_string())
                ),
            )
            .with_field("fixed_ips"));
        }
    }
    Ok(())
}

/// `DELETE /v2.0/ports/{id}`
pub async fn delete(app: Arc<Network>, req: Req) -> Result<Reply> {
    let ctx = req.ctx()?.clone();
    let id = super::id(&req).to_owned();
    let revision = input::deletion(&req)?;
    let actor = ctx.actor();
    let db = app.db.clone();
    db.write(&actor, async move |tx| {
        let port = fetch(tx, &ctx, DeletePort, &id).await?;
        input::check_revision(revision, port.generation, &id)?;
        let mut touched = Touched::default();
        app.port_delete(tx, &port, &mut touched).await?;
        app.publish(tx, touched).await
    })
    .await?;
    Ok(Reply::no_content())
}
