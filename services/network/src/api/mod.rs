//! The route table: one line per method and path.

mod agents;
mod floating_ips;
mod input;
mod list;
mod meta;
mod networks;
mod ports;
mod quotas;
mod routers;
mod security_groups;
mod subnets;
pub(crate) mod tags;

use crate::Network;
use crate::err::bad;
use haneul_core::Result;
use haneul_http::{Reply, Req, Routes, Service};
use http::Method;
use list::Shown;
use serde_json::json;
use std::sync::Arc;

/// Lists and creates of a collection, and show, update, delete of one; with and without `.json`.
macro_rules! resource {
    ($routes:expr, $path:literal, $handlers:ident, $one:literal) => {
        $routes
            .get(concat!("/v2.0/", $path), $handlers::index, concat!("get_", $one))
            .get(
                concat!("/v2.0/", $path, ".json"),
                $handlers::index,
                concat!("get_", $one),
            )
            .post(concat!("/v2.0/", $path), $handlers::create, concat!("create_", $one))
            .post(
                concat!("/v2.0/", $path, ".json"),
                $handlers::create,
                concat!("create_", $one),
            )
            .get(
                concat!("/v2.0/", $path, "/{id}"),
                $handlers::show,
                concat!("get_", $one),
            )
            .put(
                concat!("/v2.0/", $path, "/{id}"),
                $handlers::update,
                concat!("update_", $one),
            )
            .delete(
                concat!("/v2.0/", $path, "/{id}"),
                $handlers::delete,
                concat!("delete_", $one),
            )
    };
}

pub(crate) fn routes(app: &Arc<Network>) -> Routes<Network> {
    let r = Routes::new(Service::Network, app.clone())
        .public(Method::GET, "", meta::versions)
        .public(Method::GET, "/", meta::versions)
        .public(Method::GET, "/v2.0", meta::resources)
        .public(Method::GET, "/v2.0/", meta::resources)
        .get("/v2.0/extensions", meta::extensions, "own")
        .get("/v2.0/extensions.json", meta::extensions, "own")
        .get("/v2.0/extensions/{id}", meta::extension, "own")
        .get(
            "/v2.0/availability_zones",
            meta::availability_zones,
            "get_availability_zone",
        )
        .get("/v2.0/agents", agents::index, "get_agent")
        .get("/v2.0/agents/{id}", agents::show, "get_agent")
        .get("/v2.0/agents/{id}/l3-routers", agents::routers, "get_l3-routers")
        .get("/v2.0/agents/{id}/dhcp-networks", agents::networks, "get_dhcp-networks")
        .get("/v2.0/routers/{id}/l3-agents", agents::of_router, "get_l3-agents")
        .get("/v2.0/networks/{id}/dhcp-agents", agents::of_network, "get_dhcp-agents")
        .get(
            "/v2.0/network-ip-availabilities",
            meta::ip_availabilities,
            "get_network_ip_availability",
        )
        .get(
            "/v2.0/network-ip-availabilities/{id}",
            meta::ip_availability,
            "get_network_ip_availability",
        );
    let r = resource!(r, "networks", networks, "network");
    let r = resource!(r, "subnets", subnets, "subnet");
    let r = resource!(r, "ports", ports, "port");
    let r = resource!(r, "routers", routers, "router")
        .put(
            "/v2.0/routers/{id}/add_router_interface",
            routers::add_interface,
            "add_router_interface",
        )
        .put(
            "/v2.0/routers/{id}/remove_router_interface",
            routers::remove_interface,
            "remove_router_interface",
        )
        .put(
            "/v2.0/routers/{id}/add_extraroutes",
            routers::add_routes,
            "add_extraroutes",
        )
        .put(
            "/v2.0/routers/{id}/remove_extraroutes",
            routers::remove_routes,
            "remove_extraroutes",
        );
    let r = resource!(r, "floatingips", floating_ips, "floatingip");
    let r = resource!(r, "security-groups", security_groups, "security_group")
        .get(
            "/v2.0/security-group-rules",
            security_groups::rule_index,
            "get_security_group_rule",
        )
        .get(
            "/v2.0/security-group-rules.json",
            security_groups::rule_index,
            "get_security_group_rule",
        )
        .post(
            "/v2.0/security-group-rules",
            security_groups::rule_create,
            "create_security_group_rule",
        )
        .post(
            "/v2.0/security-group-rules.json",
            security_groups::rule_create,
            "create_security_group_rule",
        )
        .get(
            "/v2.0/security-group-rules/{id}",
            security_groups::rule_show,
            "get_security_group_rule",
        )
        .delete(
            "/v2.0/security-group-rules/{id}",
            security_groups::rule_delete,
            "delete_security_group_rule",
        );
    r.get("/v2.0/quotas", quotas::index, "get_quota")
        .get("/v2.0/quotas/{id}", quotas::show, "get_quota")
        .put("/v2.0/quotas/{id}", quotas::update, "update_quota")
        .delete("/v2.0/quotas/{id}", quotas::delete, "delete_quota")
        .get("/v2.0/quotas/{id}/default", quotas::default, "get_quota")
        .get("/v2.0/quotas/{id}/details", quotas::details, "get_quota")
        .get("/v2.0/quotas/{id}/details.json", quotas::details, "get_quota")
        .get("/v2.0/{collection}/{id}/tags", tags::index, "own")
        .put("/v2.0/{collection}/{id}/tags", tags::replace, "own")
        .delete("/v2.0/{collection}/{id}/tags", tags::clear, "own")
        .get("/v2.0/{collection}/{id}/tags/{tag}", tags::has, "own")
        .put("/v2.0/{collection}/{id}/tags/{tag}", tags::add, "own")
        .delete("/v2.0/{collection}/{id}/tags/{tag}", tags::remove, "own")
}

/// The id of the path, without the `.json` that old clients add.
pub(crate) fn id(req: &Req) -> &str {
    let id = req.param("id");
    id.strip_suffix(".json").unwrap_or(id)
}

/// 201 with what was made: one object, or the list that was asked for.
fn created(one: &str, many: &str, mut shown: Vec<Shown>, bulk: bool) -> Reply {
    if bulk {
        return Reply::created(&json!({ many: shown }));
    }
    Reply::created(&json!({ one: shown.pop() }))
}

/// Availability zones of a request must exist.
fn zones(app: &Network, body: input::In<'_>) -> Result<()> {
    for z in body.strings("availability_zone_hints").unwrap_or_default() {
        if z != app.settings.availability_zone {
            return Err(bad(
                "AvailabilityZoneNotFound",
                "availability_zone_hints",
                format!(
                    "AvailabilityZone {z} could not be found. There is: {}.",
                    app.settings.availability_zone
                ),
            ));
        }
    }
    Ok(())
}
