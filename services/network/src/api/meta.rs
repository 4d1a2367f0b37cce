//! Versions, extensions, availability zones, usage of addresses.

use crate::Network;
use crate::err::not_found;
use crate::logic::networks;
use crate::model::Net;
use haneul_auth::Secured;
use haneul_core::{Error, Result};
use haneul_http::{Reply, Req};
use haneul_store::{Dir, Query};
use serde_json::{Value, json};
use std::sync::Arc;

/// Extensions that are served, and no others: alias, name, date, description.
const EXTENSIONS: &[(&str, &str, &str, &str)] = &[
    (
        "agent",
        "agent",
        "2013-02-03T10:00:00-00:00",
        "The hosts of the cloud, to administrators.",
    ),
    (
        "allowed-address-pairs",
        "Allowed Address Pairs",
        "2013-07-23T10:00:00-00:00",
        "Further addresses that a port may use.",
    ),
    (
        "availability_zone",
        "Availability Zone",
        "2015-01-01T10:00:00-00:00",
        "Availability zones.",
    ),
    (
        "binding",
        "Port Binding",
        "2014-02-03T10:00:00-00:00",
        "Where a port is bound, to administrators.",
    ),
    (
        "dns-integration",
        "DNS Integration",
        "2015-08-15T18:00:00-00:00",
        "DNS names of ports, networks and floating IPs.",
    ),
    (
        "empty-string-filtering",
        "Empty String Filtering Extension",
        "2018-05-01T10:00:00-00:00",
        "Filters may ask for empty values.",
    ),
    (
        "ext-gw-mode",
        "Neutron L3 Configurable external gateway mode",
        "2013-03-28T10:00:00-00:00",
        "enable_snat of gateways.",
    ),
    (
        "external-net",
        "Neutron external network",
        "2013-01-14T10:00:00-00:00",
        "router:external of networks.",
    ),
    (
        "extra_dhcp_opt",
        "Neutron Extra DHCP options",
        "2013-03-17T12:00:00-00:00",
        "DHCP options of a port.",
    ),
    (
        "extraroute",
        "Neutron Extra Route",
        "2013-02-01T10:00:00-00:00",
        "Static routes of routers.",
    ),
    (
        "extraroute-atomic",
        "Atomically add/remove extra routes",
        "2019-07-10T00:00:00+00:00",
        "Single routes, added and removed.",
    ),
    (
        "filter-validation",
        "Filter parameters validation",
        "2018-07-04T10:00:00-00:00",
        "Unknown filters are refused.",
    ),
    (
        "fip-port-details",
        "Floating IP Port Details Extension",
        "2018-04-09T10:00:00-00:00",
        "port_details of floating IPs.",
    ),
    (
        "net-mtu",
        "Network MTU",
        "2015-03-25T10:00:00-00:00",
        "mtu of networks.",
    ),
    (
        "net-mtu-writable",
        "Network MTU (writable)",
        "2017-07-12T00:00:00-00:00",
        "mtu of networks can be set.",
    ),
    (
        "network-ip-availability",
        "Network IP Availability",
        "2015-09-24T00:00:00-00:00",
        "Used and free addresses.",
    ),
    (
        "network_availability_zone",
        "Network Availability Zone",
        "2015-01-01T10:00:00-00:00",
        "Availability zones of networks.",
    ),
    (
        "pagination",
        "Pagination support",
        "2016-06-12T00:00:00-00:00",
        "Pages with links.",
    ),
    (
        "port-security",
        "Port Security",
        "2012-07-23T10:00:00-00:00",
        "Anti-spoofing can be switched off.",
    ),
    (
        "port-security-groups-filtering",
        "Port filtering on security groups",
        "2018-01-09T09:00:00-00:00",
        "Ports by security group.",
    ),
    (
        "project-id",
        "project_id field enabled",
        "2016-09-09T09:09:09-09:09",
        "project_id beside tenant_id.",
    ),
    (
        "provider",
        "Provider Network",
        "2012-09-07T10:00:00-00:00",
        "How a network is carried, to administrators.",
    ),
    (
        "quota-check-limit",
        "Quota engine limit check",
        "2021-09-08T16:00:00-00:00",
        "check_limit when setting quotas.",
    ),
    (
        "quota_details",
        "Quota details management support",
        "2017-02-10T10:00:00-00:00",
        "Usage beside limits.",
    ),
    (
        "quotas",
        "Quota management support",
        "2012-07-29T10:00:00-00:00",
        "Quotas by project.",
    ),
    (
        "revision-if-match",
        "If-Match constraints based on revision_number",
        "2016-12-11T00:00:00-00:00",
        "If-Match: revision_number=N.",
    ),
    (
        "router",
        "Neutron L3 Router",
        "2012-07-20T10:00:00-00:00",
        "Routers and floating IPs.",
    ),
    (
        "router_availability_zone",
        "Router Availability Zone",
        "2015-01-01T10:00:00-00:00",
        "Availability zones of routers.",
    ),
    (
        "security-group",
        "security-group",
        "2012-10-05T10:00:00-00:00",
        "Security groups and rules.",
    ),
    (
        "security-groups-normalized-cidr",
        "Normalized CIDR field for security group rules",
        "2020-07-28T10:00:00-00:00",
        "normalized_cidr of rules.",
    ),
    (
        "sort-key-validation",
        "Sort keys validation",
        "2018-07-04T10:00:00-00:00",
        "Unknown sort keys are refused.",
    ),
    (
        "sorting",
        "Sorting support",
        "2016-06-12T00:00:00-00:00",
        "sort_key and sort_dir.",
    ),
    (
        "standard-attr-description",
        "standard-attr-description",
        "2016-02-10T10:00:00-00:00",
        "Descriptions.",
    ),
    (
        "standard-attr-revisions",
        "Resource revision numbers",
        "2016-04-11T10:00:00-00:00",
        "revision_number.",
    ),
    (
        "standard-attr-tag",
        "Tag support for resources with standard attribute: network, subnet, port, router, floatingip, security_group",
        "2017-01-01T00:00:00-00:00",
        "Tags.",
    ),
    (
        "standard-attr-timestamp",
        "Resource timestamps",
        "2016-09-12T10:00:00-00:00",
        "created_at and updated_at.",
    ),
    (
        "stateful-security-group",
        "Stateful security group",
        "2019-11-26T09:00:00-00:00",
        "Groups that track no connections.",
    ),
    (
        "tag-creation",
        "Tag creation extension",
        "2024-07-23T10:00:00-00:00",
        "Tags when creating.",
    ),
    (
        "tag-ports-during-bulk-creation",
        "Tag Ports During Bulk Creation",
        "2019-12-29T19:00:00-00:00",
        "Tags when creating ports.",
    ),
];

/// `GET /`: the versions document.
pub async fn versions(_app: Arc<Network>, req: Req) -> Result<Reply> {
    Ok(Reply::ok(&json!({"versions": [{
        "id": "v2.0",
        "status": "CURRENT",
        "links": [{"rel": "self", "href": format!("{}/v2.0/", req.base)}],
    }]})))
}

/// `GET /v2.0`: the resources.
pub async fn resources(_app: Arc<Network>, req: Req) -> Result<Reply> {
    const ALL: &[(&str, &str)] = &[
        ("network", "networks"),
        ("subnet", "subnets"),
        ("port", "ports"),
        ("router", "routers"),
        ("floatingip", "floatingips"),
        ("security_group", "security-groups"),
        ("security_group_rule", "security-group-rules"),
        ("quota", "quotas"),
        ("extension", "extensions"),
        ("agent", "agents"),
        ("availability_zone", "availability_zones"),
        ("network_ip_availability", "network-ip-availabilities"),
    ];
    let list: Vec<Value> = ALL
        .iter()
        .map(|(one, path)| {
            json!({
                "name": one,
                "collection": path.replace('-', "_"),
                "links": [{"rel": "self", "href": format!("{}/v2.0/{path}", req.base)}],
            })
        })
        .collect();
    Ok(Reply::ok(&json!({"resources": list})))
}

fn extension_shown((alias, name, updated, description): &(&str, &str, &str, &str)) -> Value {
    json!({"alias": alias, "name": name, "description": description, "updated": updated, "links": []})
}

/// `GET /v2.0/extensions`
pub async fn extensions(_app: Arc<Network>, _req: Req) -> Result<Reply> {
    let all: Vec<Value> = EXTENSIONS.iter().map(extension_shown).collect();
    Ok(Reply::ok(&json!({"extensions": all})))
}

/// `GET /v2.0/extensions/{alias}`
pub async fn extension(_app: Arc<Network>, req: Req) -> Result<Reply> {
    let alias = super::id(&req);
    match EXTENSIONS.iter().find(|e| e.0 == alias) {
        Some(e) => Ok(Reply::ok(&json!({"extension": extension_shown(e)}))),
        None => Err(not_found(
            "ExtensionsNotFound",
            format!("Extensions not found: {alias}."),
        )),
    }
}

/// `GET /v2.0/availability_zones`
pub async fn availability_zones(app: Arc<Network>, req: Req) -> Result<Reply> {
    req.ctx()?
        .enforce("get_availability_zone", &haneul_auth::Target::default())?;
    let name = &app.settings.availability_zone;
    let all: Vec<Value> = ["network", "router"]
        .iter()
        .map(|kind| json!({"name": name, "resource": kind, "state": "available"}))
        .collect();
    Ok(Reply::ok(&json!({"availability_zones": all})))
}

async fn availability(app: &Network, net: &Net, req: &Req) -> Result<Option<Value>> {
    let version = req.q("ip_version").map(|v| v.parse::<u8>());
    let version = match version {
        None => None,
        Some(Ok(v @ (4 | 6))) => Some(v),
        Some(_) => {
            return Err(
                Error::field("ip_version", "Invalid input for ip_version. Reason: it is 4 or 6.")
                    .with_code("HTTPBadRequest"),
            );
        }
    };
    let mut tx = app.db.read().await?;
    let mut subnets = Vec::new();
    let (mut all, mut taken) = (0u128, 0i64);
    for (s, total, used) in networks::usage(&mut tx, &net.id).await? {
        let family = if s.is_v6() { 6 } else { 4 };
        if version.is_some_and(|v| v != family) {
            continue;
        }
        all = all.saturating_add(total);
        taken += used;
        subnets.push(json!({
            "subnet_id": s.id, "subnet_name": s.name, "cidr": s.cidr.to_string(), "ip_version": family,
            "total_ips": number(total), "used_ips": used,
        }));
    }
    if version.is_some() && subnets.is_empty() {
        return Ok(None);
    }
    Ok(Some(json!({
        "network_id": net.id, "network_name": net.name, "project_id": net.project_id, "tenant_id": net.project_id,
        "total_ips": number(all), "used_ips": taken, "subnet_ip_availability": subnets,
    })))
}

/// JSON integers as far as they are exact everywhere; larger ones as the nearest float.
fn number(n: u128) -> Value {
    u64::try_from(n).map_or_else(|_| json!(n as f64), |n| json!(n))
}

/// `GET /v2.0/network-ip-availabilities`
pub async fn ip_availabilities(app: Arc<Network>, req: Req) -> Result<Reply> {
    req.ctx()?
        .enforce("get_network_ip_availability", &haneul_auth::Target::default())?;
    let mut query = Query::new().order("id", Dir::Asc);
    for (filter, column) in [
        ("network_id", "id"),
        ("network_name", "name"),
        ("project_id", "project_id"),
        ("tenant_id", "project_id"),
    ] {
        if req.q(filter).is_some() {
            query = query.is_in(column, req.qs(filter));
        }
    }
    let nets = {
        let mut tx = app.db.read().await?;
        tx.list::<Net>(&query).await?
    };
    let mut all = Vec::new();
    for n in &nets {
        all.extend(availability(&app, n, &req).await?);
    }
    Ok(Reply::ok(&json!({"network_ip_availabilities": all})))
}

/// `GET /v2.0/network-ip-availabilities/{network}`
pub async fn ip_availability(app: Arc<Network>, req: Req) -> Result<Reply> {
    req.ctx()?
        .enforce("get_network_ip_availability", &haneul_auth::Target::default())?;
    let id = super::id(&req).to_owned();
    let net = {
        let mut tx = app.db.read().await?;
        tx.find::<Net>(&id).await?.ok_or_else(|| Net::not_found(&id))?
    };
    let shown = availability(&app, &net, &req).await?;
    Ok(Reply::ok(&json!({"network_ip_availability": shown})))
}
