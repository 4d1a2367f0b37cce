//! Microversions: what each changed, and how it is served here. "Refused" means: as the real service
//! refuses when an operator has switched the feature off.

use crate::Compute;
use haneul_core::Result;
use haneul_http::version::Versions;
use haneul_http::{Reply, Req, Ver};
use serde_json::{Value, json};
use std::sync::Arc;

/// The largest N for which every one up to N stands in [`TABLE`].
pub(crate) const MAX: Ver = Ver(2, TABLE[TABLE.len() - 1].0);

pub(crate) const VERSIONS: Versions = Versions {
    name: "compute",
    min: Ver(2, 1),
    max: MAX,
    legacy_header: Some("x-openstack-nova-api-version"),
};

/// How a microversion is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Served {
    /// What it changed is there.
    Yes,
    /// It changed a feature that is switched off here: refused by policy (403), or not found (404) where the
    /// thing that it acts on never exists.
    Refused,
    /// It changed nothing that this cloud has (cells, Cyborg, internals of the reference).
    Nothing,
}

/// Minor version, what it changed, how it is served.
pub(crate) const TABLE: &[(u16, &str, Served)] = &[
    (
        1,
        "the base; of it the proxies to image and network (until 2.35)",
        Served::Yes,
    ),
    (2, "keypairs: type; 201 on create, 204 on delete", Served::Yes),
    (
        3,
        "servers: hostname, kernel_id, launch_index, ramdisk_id, reservation_id, root_device_name, user_data; volumes: delete_on_termination",
        Served::Yes,
    ),
    (4, "os-fixed-ips: reserved", Served::Refused),
    (5, "servers: ip6 filter for everyone", Served::Yes),
    (6, "remote-consoles", Served::Yes),
    (7, "flavors: no access to add to a public one (409)", Served::Yes),
    (8, "remote-consoles: mks", Served::Refused),
    (9, "servers: locked", Served::Yes),
    (10, "keypairs of other users: user_id", Served::Yes),
    (11, "os-services: forced_down", Served::Yes),
    (12, "os-virtual-interfaces: net_id", Served::Refused),
    (13, "server groups: project_id, user_id", Served::Yes),
    (14, "evacuate: no onSharedStorage", Served::Refused),
    (15, "server groups: soft policies", Served::Yes),
    (16, "servers: host_status", Served::Yes),
    (17, "trigger_crash_dump", Served::Refused),
    (18, "project id in URLs optional", Served::Yes),
    (19, "servers: description", Served::Yes),
    (20, "volumes of shelved servers", Served::Refused),
    (21, "instance actions of deleted servers", Served::Yes),
    (22, "live migration: force_complete", Served::Refused),
    (23, "migrations: type, links; servers' migrations", Served::Yes),
    (24, "live migration: abort", Served::Refused),
    (25, "live migration: block_migration auto", Served::Refused),
    (26, "server tags", Served::Yes),
    (27, "header OpenStack-API-Version", Served::Yes),
    (28, "hypervisors: cpu_info as an object", Served::Yes),
    (29, "evacuate: host with force", Served::Refused),
    (30, "live migration: force", Served::Refused),
    (31, "os-console-auth-tokens for all consoles", Served::Refused),
    (32, "device tags at create", Served::Yes),
    (33, "hypervisors: paging", Served::Yes),
    (34, "live migration: checks afterwards", Served::Refused),
    (35, "keypairs: paging", Served::Yes),
    (36, "network, image and volume proxies are gone", Served::Yes),
    (37, "servers: networks required, auto and none", Served::Yes),
    (38, "servers: 400 for an unknown status filter", Served::Yes),
    (
        39,
        "image metadata proxy is gone; limits without maxImageMeta",
        Served::Yes,
    ),
    (40, "usage: paging", Served::Yes),
    (41, "aggregates: uuid", Served::Yes),
    (42, "device tags again", Served::Yes),
    (43, "os-hosts is gone", Served::Yes),
    (
        44,
        "fixed and floating IP actions, os-virtual-interfaces are gone",
        Served::Yes,
    ),
    (45, "createImage, createBackup: image_id in the body", Served::Yes),
    (46, "request id header", Served::Yes),
    (47, "servers: flavor embedded", Served::Yes),
    (48, "diagnostics in one form", Served::Yes),
    (49, "device tags at attach", Served::Refused),
    (50, "quota classes: server groups; no network quotas", Served::Yes),
    (
        51,
        "external event volume-extended; action updated_at, events for everyone",
        Served::Yes,
    ),
    (52, "tags at create", Served::Yes),
    (53, "services and hypervisors by UUID", Served::Yes),
    (54, "rebuild: key_name", Served::Yes),
    (55, "flavors: description", Served::Yes),
    (56, "migrate: host", Served::Yes),
    (
        57,
        "no personality; rebuild: user_data; no injected file quotas",
        Served::Yes,
    ),
    (58, "instance actions: paging, updated_at", Served::Yes),
    (59, "migrations: paging, uuid", Served::Yes),
    (60, "volumes: multi-attach", Served::Refused),
    (61, "flavors: extra_specs", Served::Yes),
    (62, "action events: host, hostId", Served::Yes),
    (63, "trusted_image_certificates", Served::Yes),
    (64, "server groups: policy and rules", Served::Yes),
    (65, "live migration: abort while queued", Served::Refused),
    (66, "changes-before", Served::Yes),
    (67, "block devices: volume_type", Served::Refused),
    (68, "evacuate, live migration: no force", Served::Refused),
    (69, "answers while cells are down", Served::Nothing),
    (70, "tags of interfaces and volumes", Served::Yes),
    (71, "servers: server_groups", Served::Yes),
    (72, "ports with resource requests", Served::Nothing),
    (73, "lock: reason; locked filter", Served::Yes),
    (74, "servers: host, hypervisor_hostname at create", Served::Yes),
    (
        75,
        "unknown query parameters are 400; full server after update and rebuild; swap 0",
        Served::Yes,
    ),
    (76, "external event power-update", Served::Yes),
    (77, "unshelve: availability_zone", Served::Refused),
    (78, "servers' topology", Served::Yes),
    (79, "volumes: delete_on_termination at attach", Served::Refused),
    (80, "migrations: user_id, project_id", Served::Yes),
    (81, "aggregates: cache images", Served::Refused),
    (82, "external event accelerator-request-bound", Served::Yes),
    (83, "servers: more filters for everyone", Served::Yes),
    (84, "action events: details", Served::Yes),
    (85, "volumes: update of delete_on_termination", Served::Refused),
    (86, "extra specs are checked", Served::Yes),
    (87, "rescue of servers booted from volumes", Served::Refused),
    (
        88,
        "hypervisors: no statistics, uptime in show, fewer fields",
        Served::Yes,
    ),
    (89, "volumes: attachment_id, bdm_uuid", Served::Yes),
    (90, "servers: hostname", Served::Yes),
    (91, "unshelve: host", Served::Refused),
    (92, "keypairs: import only, @ and . in names", Served::Yes),
    (93, "rebuild of servers booted from volumes", Served::Refused),
    (94, "hostname: FQDN", Served::Yes),
    (95, "evacuate: stopped at the destination", Served::Refused),
    (96, "servers: pinned_availability_zone", Served::Yes),
    (97, "shares", Served::Refused),
    (98, "servers: properties of the image", Served::Yes),
    (99, "remote-consoles: spice-direct", Served::Refused),
    (100, "servers: scheduler_hints", Served::Yes),
    (101, "volumes: attaching answers 202", Served::Refused),
    (
        102,
        "flavors: name filter, no rxtx_factor, no disabled; unknown query parameters are 400 everywhere",
        Served::Yes,
    ),
    (103, "os-volumes_boot is gone", Served::Nothing),
    (104, "servers: update of pinned_availability_zone", Served::Yes),
];

/// Version 2.0 is 2.1 for clients of before microversions: see `Routes::legacy`.
fn v20_document() -> Value {
    json!({"id": "v2.0", "status": "DEPRECATED", "version": "", "min_version": "", "updated": "2025-07-04T12:00:00Z"})
}

fn v21_document() -> Value {
    json!({
        "id": "v2.1", "status": "CURRENT", "version": MAX.to_string(), "min_version": "2.1",
        "updated": "2013-07-23T11:33:21Z",
    })
}

fn with(mut document: Value, more: Value) -> Value {
    if let (Some(d), Value::Object(more)) = (document.as_object_mut(), more) {
        d.extend(more);
    }
    document
}

/// `GET /` (Nova API reference, "List All Major Versions"). Clients rely on the order.
pub(crate) async fn root(_app: Arc<Compute>, req: Req) -> Result<Reply> {
    let of = |document, path: &str| {
        let href = format!("{}/{path}/", req.base);
        with(document, json!({"links": [{"rel": "self", "href": href}]}))
    };
    Ok(Reply::ok(
        &json!({"versions": [of(v20_document(), "v2"), of(v21_document(), "v2.1")]}),
    ))
}

fn one(document: Value, base: &str, path: &str, media: &str) -> Reply {
    let kind = format!("application/vnd.openstack.compute+json;version={media}");
    let more = json!({
        "media-types": [{"base": "application/json", "type": kind}],
        "links": [
            {"rel": "self", "href": format!("{base}/{path}/")},
            {"rel": "describedby", "type": "text/html", "href": "http://docs.openstack.org/"},
        ],
    });
    Reply::ok(&json!({"version": with(document, more)}))
}

/// `GET /v2` (Nova API reference, "Show Details of Specific API Version").
pub(crate) async fn v20(_app: Arc<Compute>, req: Req) -> Result<Reply> {
    Ok(one(v20_document(), &req.base, "v2", "2"))
}

/// `GET /v2.1` (Nova API reference, "Show Details of Specific API Version").
pub(crate) async fn v21(_app: Arc<Compute>, req: Req) -> Result<Reply> {
    Ok(one(v21_document(), &req.base, "v2.1", "2.1"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_no_gap() {
        for (i, (minor, _, _)) in TABLE.iter().enumerate() {
            assert_eq!(usize::from(*minor), i + 1);
        }
        assert_eq!(TABLE.last().map(|(n, _, _)| *n), Some(MAX.1));
        assert!(TABLE.iter().any(|(_, _, s)| *s == Served::Nothing));
    }
}
