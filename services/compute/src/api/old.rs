//! Routes of what Nova was before other services were: those that lead to them now, and those that it answers with 410.

use super::{OWN, addresses, images, security_groups};
use crate::{Compute, policy};
use haneul_core::{Error, Kind, Result};
use haneul_http::{Reply, Req, Routes};
use std::sync::Arc;

/// What was removed from Nova (its routes.py still names it), path and methods.
const REMOVED: &[(&str, &[&str])] = &[
    ("/os-agents", &["GET", "POST"]),
    ("/os-agents/{id}", &["PUT", "DELETE"]),
    ("/os-cells", &["GET", "POST"]),
    ("/os-cells/capacities", &["GET"]),
    ("/os-cells/detail", &["GET"]),
    ("/os-cells/info", &["GET"]),
    ("/os-cells/sync_instances", &["POST"]),
    ("/os-cells/{id}", &["GET", "PUT", "DELETE"]),
    ("/os-cells/{id}/capacities", &["GET"]),
    ("/os-certificates", &["POST"]),
    ("/os-certificates/{id}", &["GET"]),
    ("/os-cloudpipe", &["GET", "POST"]),
    ("/os-cloudpipe/{id}", &["PUT"]),
    ("/os-fixed-ips/{id}", &["GET"]),
    ("/os-fixed-ips/{id}/action", &["POST"]),
    ("/os-floating-ip-dns", &["GET"]),
    ("/os-floating-ip-dns/{id}", &["PUT", "DELETE"]),
    ("/os-floating-ip-dns/{id}/entries/{entry}", &["GET", "PUT", "DELETE"]),
    ("/os-floating-ips-bulk", &["GET", "POST"]),
    ("/os-floating-ips-bulk/{id}", &["GET", "PUT"]),
    ("/os-fping", &["GET"]),
    ("/os-fping/{id}", &["GET"]),
    ("/os-networks", &["POST"]),
    ("/os-networks/add", &["POST"]),
    ("/os-networks/{id}", &["DELETE"]),
    ("/os-networks/{id}/action", &["POST"]),
    ("/os-security-group-default-rules", &["GET", "POST"]),
    ("/os-security-group-default-rules/{id}", &["GET", "DELETE"]),
    ("/os-tenant-networks", &["POST"]),
    ("/os-tenant-networks/{id}", &["DELETE"]),
    ("/servers/{id}/consoles", &["GET", "POST"]),
    ("/servers/{id}/consoles/{console}", &["GET", "DELETE"]),
    ("/servers/{id}/os-virtual-interfaces", &["GET"]),
];

/// See [`REMOVED`].
pub(super) fn removed(r: Routes<Compute>) -> Routes<Compute> {
    REMOVED.iter().fold(r, |r, (path, methods)| {
        let path = format!("/v2.1{path}");
        methods.iter().fold(r, |r, method| match *method {
            "GET" => r.get(&path, gone, OWN),
            "POST" => r.post(&path, gone, OWN),
            "PUT" => r.put(&path, gone, OWN),
            _ => r.delete(&path, gone, OWN),
        })
    })
}

/// 410, whoever asks for whatever: it was of services that are no more (nova-network, cells, nova-cert, xvp).
async fn gone(_app: Arc<Compute>, _req: Req) -> Result<Reply> {
    Err(Error::new(
        Kind::Gone,
        "This API was removed from Nova with the service that it belonged to. Networks and addresses are the network \
         service's, consoles are /servers/{id}/remote-consoles.",
    ))
}

/// What the network and the image service do, as compute did it before them: gone since 2.36, images' metadata since 2.39.
pub(super) fn proxies(r: Routes<Compute>) -> Routes<Compute> {
    r.all_until(2, 35, |r| {
        r.get(
            "/v2.1/os-security-groups",
            security_groups::index,
            policy::SECURITY_GROUPS,
        )
        .post(
            "/v2.1/os-security-groups",
            security_groups::create,
            policy::SECURITY_GROUP_CREATE,
        )
        .get(
            "/v2.1/os-security-groups/{id}",
            security_groups::show,
            policy::SECURITY_GROUP_SHOW,
        )
        .put(
            "/v2.1/os-security-groups/{id}",
            security_groups::update,
            policy::SECURITY_GROUP_UPDATE,
        )
        .delete(
            "/v2.1/os-security-groups/{id}",
            security_groups::delete,
            policy::SECURITY_GROUP_DELETE,
        )
        .post(
            "/v2.1/os-security-group-rules",
            security_groups::rule_create,
            policy::SECURITY_GROUP_RULE_CREATE,
        )
        .delete(
            "/v2.1/os-security-group-rules/{id}",
            security_groups::rule_delete,
            policy::SECURITY_GROUP_RULE_DELETE,
        )
        .get("/v2.1/os-networks", addresses::networks, policy::NETWORKS)
        .get("/v2.1/os-networks/{id}", addresses::network, policy::NETWORK_SHOW)
        .get(
            "/v2.1/os-tenant-networks",
            addresses::tenant_networks,
            policy::TENANT_NETWORKS,
        )
        .get(
            "/v2.1/os-tenant-networks/{id}",
            addresses::tenant_network,
            policy::TENANT_NETWORK_SHOW,
        )
        .get(
            "/v2.1/os-floating-ip-pools",
            addresses::pools,
            policy::FLOATING_IP_POOLS,
        )
        .get("/v2.1/os-floating-ips", addresses::index, policy::FLOATING_IPS)
        .post("/v2.1/os-floating-ips", addresses::create, policy::FLOATING_IP_CREATE)
        .get("/v2.1/os-floating-ips/{id}", addresses::show, policy::FLOATING_IP_SHOW)
        .delete(
            "/v2.1/os-floating-ips/{id}",
            addresses::delete,
            policy::FLOATING_IP_DELETE,
        )
        .get("/v2.1/images", images::index, OWN)
        .get("/v2.1/images/detail", images::detail, OWN)
        .get("/v2.1/images/{id}", images::show, OWN)
        .delete("/v2.1/images/{id}", images::delete, OWN)
    })
    .all_until(2, 38, |r| {
        r.get("/v2.1/images/{id}/metadata", images::metadata, OWN)
            .post("/v2.1/images/{id}/metadata", images::metadata_create, OWN)
            .put("/v2.1/images/{id}/metadata", images::metadata_replace, OWN)
            .get("/v2.1/images/{id}/metadata/{key}", images::metadata_item, OWN)
            .put("/v2.1/images/{id}/metadata/{key}", images::metadata_item_set, OWN)
            .delete("/v2.1/images/{id}/metadata/{key}", images::metadata_item_delete, OWN)
    })
}
