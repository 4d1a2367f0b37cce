//! The route table. Paths are below /compute.

mod actions;
mod addresses;
mod admin;
mod aggregates;
mod consoles;
mod extensions;
mod flavors;
mod groups;
mod images;
mod input;
mod instance_actions;
mod interfaces;
mod keypairs;
mod migrations;
mod old;
mod os_hosts;
mod quotas;
mod security_groups;
mod servers;
mod sub;
mod versions;
mod view;

pub(crate) use input::check_query;

use crate::Compute;
use haneul_http::{Routes, Service, Ver};
use http::Method;
use std::sync::Arc;

const OWN: &str = "own";

/// Paths that take query parameters; since 2.102 all others refuse them, as these do unknown ones since 2.75.
const WITH_QUERY: &[&str] = &[
    "/v2.1/flavors",
    "/v2.1/flavors/detail",
    "/v2.1/limits",
    "/v2.1/os-hypervisors",
    "/v2.1/os-hypervisors/detail",
    "/v2.1/os-hypervisors/{id}",
    "/v2.1/os-keypairs",
    "/v2.1/os-keypairs/{name}",
    "/v2.1/os-migrations",
    "/v2.1/os-quota-sets/{id}",
    "/v2.1/os-quota-sets/{id}/detail",
    "/v2.1/os-server-groups",
    "/v2.1/os-services",
    "/v2.1/os-simple-tenant-usage",
    "/v2.1/os-simple-tenant-usage/{id}",
    "/v2.1/servers",
    "/v2.1/servers/detail",
    "/v2.1/servers/{id}/os-instance-actions",
    "/v2.1/servers/{id}/os-volume_attachments",
];

/// All routes of this service.
pub(crate) fn routes(app: &Arc<Compute>) -> Routes<Compute> {
    let r = Routes::new(Service::Compute, app.clone()).versions(versions::VERSIONS);
    let r = versions_routes(r);
    let r = flavor_routes(r);
    let r = server_routes(r);
    let r = sub_routes(r);
    let r = user_routes(r);
    let r = old::proxies(r);
    let r = old::removed(r);
    admin_routes(r)
        .legacy("/v2.1", "/v2")
        .no_query_since(Ver(2, 102), WITH_QUERY)
}

fn versions_routes(r: Routes<Compute>) -> Routes<Compute> {
    r.public(Method::GET, "", versions::root)
        .public(Method::GET, "/", versions::root)
        .public(Method::GET, "/v2", versions::v20)
        .public(Method::GET, "/v2/", versions::v20)
        .public(Method::GET, "/v2.1", versions::v21)
        .public(Method::GET, "/v2.1/", versions::v21)
}

fn flavor_routes(r: Routes<Compute>) -> Routes<Compute> {
    r.get("/v2.1/flavors", flavors::index, "os_compute_api:flavors")
        .post(
            "/v2.1/flavors",
            flavors::create,
            "os_compute_api:os-flavor-manage:create",
        )
        .get("/v2.1/flavors/detail", flavors::detail, "os_compute_api:flavors")
        .get("/v2.1/flavors/{id}", flavors::show, "os_compute_api:flavors")
        .put(
            "/v2.1/flavors/{id}",
            flavors::update,
            "os_compute_api:os-flavor-manage:update",
        )
        .since(2, 55)
        .delete(
            "/v2.1/flavors/{id}",
            flavors::delete,
            "os_compute_api:os-flavor-manage:delete",
        )
        .post("/v2.1/flavors/{id}/action", flavors::action, OWN)
        .get(
            "/v2.1/flavors/{id}/os-flavor-access",
            flavors::access,
            "os_compute_api:os-flavor-access",
        )
        .get(
            "/v2.1/flavors/{id}/os-extra_specs",
            flavors::specs,
            "os_compute_api:os-flavor-extra-specs:index",
        )
        .post(
            "/v2.1/flavors/{id}/os-extra_specs",
            flavors::specs_create,
            "os_compute_api:os-flavor-extra-specs:create",
        )
        .get(
            "/v2.1/flavors/{id}/os-extra_specs/{key}",
            flavors::spec,
            "os_compute_api:os-flavor-extra-specs:show",
        )
        .put(
            "/v2.1/flavors/{id}/os-extra_specs/{key}",
            flavors::spec_update,
            "os_compute_api:os-flavor-extra-specs:update",
        )
        .delete(
            "/v2.1/flavors/{id}/os-extra_specs/{key}",
            flavors::spec_delete,
            "os_compute_api:os-flavor-extra-specs:delete",
        )
}

fn server_routes(r: Routes<Compute>) -> Routes<Compute> {
    r.get("/v2.1/servers", servers::index, "os_compute_api:servers:index")
        .post("/v2.1/servers", servers::create, "os_compute_api:servers:create")
        .get("/v2.1/servers/detail", servers::detail, "os_compute_api:servers:detail")
        .get("/v2.1/servers/{id}", servers::show, "os_compute_api:servers:show")
        .put("/v2.1/servers/{id}", sub::update, "os_compute_api:servers:update")
        .delete("/v2.1/servers/{id}", servers::delete, "os_compute_api:servers:delete")
        .post("/v2.1/servers/{id}/action", actions::action, OWN)
}

fn sub_routes(r: Routes<Compute>) -> Routes<Compute> {
    r.get(
        "/v2.1/servers/{id}/metadata",
        sub::metadata,
        "os_compute_api:server-metadata:index",
    )
    .post(
        "/v2.1/servers/{id}/metadata",
        sub::metadata_create,
        "os_compute_api:server-metadata:create",
    )
    .put(
        "/v2.1/servers/{id}/metadata",
        sub::metadata_replace,
        "os_compute_api:server-metadata:update_all",
    )
    .get(
        "/v2.1/servers/{id}/metadata/{key}",
        sub::metadata_item,
        "os_compute_api:server-metadata:show",
    )
    .put(
        "/v2.1/servers/{id}/metadata/{key}",
        sub::metadata_item_set,
        "os_compute_api:server-metadata:update",
    )
    .delete(
        "/v2.1/servers/{id}/metadata/{key}",
        sub::metadata_item_delete,
        "os_compute_api:server-metadata:delete",
    )
    .get(
        "/v2.1/servers/{id}/tags",
        sub::tags,
        "os_compute_api:os-server-tags:index",
    )
    .since(2, 26)
    .put(
        "/v2.1/servers/{id}/tags",
        sub::tags_replace,
        "os_compute_api:os-server-tags:update_all",
    )
    .since(2, 26)
    .delete(
        "/v2.1/servers/{id}/tags",
        sub::tags_delete,
        "os_compute_api:os-server-tags:delete_all",
    )
    .since(2, 26)
    .get(
        "/v2.1/servers/{id}/tags/{tag}",
        sub::tag,
        "os_compute_api:os-server-tags:show",
    )
    .since(2, 26)
    .put(
        "/v2.1/servers/{id}/tags/{tag}",
        sub::tag_set,
        "os_compute_api:os-server-tags:update",
    )
    .since(2, 26)
    .delete(
        "/v2.1/servers/{id}/tags/{tag}",
        sub::tag_delete,
        "os_compute_api:os-server-tags:delete",
    )
    .since(2, 26)
    .get("/v2.1/servers/{id}/ips", sub::ips, "os_compute_api:ips:index")
    .get(
        "/v2.1/servers/{id}/ips/{network}",
        sub::ips_of,
        "os_compute_api:ips:show",
    )
    .get(
        "/v2.1/servers/{id}/os-interface",
        interfaces::list,
        "os_compute_api:os-attach-interfaces:list",
    )
    .post(
        "/v2.1/servers/{id}/os-interface",
        interfaces::create,
        "os_compute_api:os-attach-interfaces:create",
    )
    .get(
        "/v2.1/servers/{id}/os-interface/{port}",
        interfaces::show,
        "os_compute_api:os-attach-interfaces:show",
    )
    .delete(
        "/v2.1/servers/{id}/os-interface/{port}",
        interfaces::delete,
        "os_compute_api:os-attach-interfaces:delete",
    )
    .get(
        "/v2.1/servers/{id}/os-volume_attachments",
        sub::volumes,
        "os_compute_api:os-volumes-attachments:index",
    )
    .post(
        "/v2.1/servers/{id}/os-volume_attachments",
        sub::volume_attach,
        "os_compute_api:os-volumes-attachments:create",
    )
    .get(
        "/v2.1/servers/{id}/os-volume_attachments/{volume}",
        sub::volume,
        "os_compute_api:os-volumes-attachments:show",
    )
    .put(
        "/v2.1/servers/{id}/os-volume_attachments/{volume}",
        sub::volume_update,
        "os_compute_api:os-volumes-attachments:update",
    )
    .delete(
        "/v2.1/servers/{id}/os-volume_attachments/{volume}",
        sub::volume_detach,
        "os_compute_api:os-volumes-attachments:delete",
    )
    .get(
        "/v2.1/servers/{id}/os-security-groups",
        security_groups::of_server,
        "os_compute_api:os-security-groups:list",
    )
    .get(
        "/v2.1/servers/{id}/os-instance-actions",
        instance_actions::index,
        "os_compute_api:os-instance-actions:list",
    )
    .get(
        "/v2.1/servers/{id}/os-instance-actions/{request}",
        instance_actions::show,
        "os_compute_api:os-instance-actions:show",
    )
    .get(
        "/v2.1/servers/{id}/topology",
        sub::topology,
        "compute:server:topology:index",
    )
    .since(2, 78)
    .get(
        "/v2.1/servers/{id}/diagnostics",
        sub::diagnostics,
        "os_compute_api:os-server-diagnostics",
    )
    .get(
        "/v2.1/servers/{id}/os-server-password",
        sub::server_password,
        "os_compute_api:os-server-password:show",
    )
    .delete(
        "/v2.1/servers/{id}/os-server-password",
        sub::server_password_clear,
        "os_compute_api:os-server-password:clear",
    )
    .post(
        "/v2.1/servers/{id}/remote-consoles",
        consoles::remote_consoles,
        "os_compute_api:os-remote-consoles",
    )
    .since(2, 6)
    .get(
        "/v2.1/servers/{id}/migrations",
        migrations::of_server,
        "os_compute_api:servers:migrations:index",
    )
    .since(2, 23)
    .get(
        "/v2.1/servers/{id}/migrations/{migration}",
        migrations::of_server_one,
        "os_compute_api:servers:migrations:show",
    )
    .since(2, 23)
    .post(
        "/v2.1/servers/{id}/migrations/{migration}/action",
        migrations::force_complete,
        "os_compute_api:servers:migrations:force_complete",
    )
    .since(2, 22)
    .delete(
        "/v2.1/servers/{id}/migrations/{migration}",
        migrations::abort,
        "os_compute_api:servers:migrations:delete",
    )
    .since(2, 24)
}

fn user_routes(r: Routes<Compute>) -> Routes<Compute> {
    r.get("/v2.1/os-keypairs", keypairs::index, "os_compute_api:os-keypairs:index")
        .post(
            "/v2.1/os-keypairs",
            keypairs::create,
            "os_compute_api:os-keypairs:create",
        )
        .get(
            "/v2.1/os-keypairs/{name}",
            keypairs::show,
            "os_compute_api:os-keypairs:show",
        )
        .delete(
            "/v2.1/os-keypairs/{name}",
            keypairs::delete,
            "os_compute_api:os-keypairs:delete",
        )
        .get(
            "/v2.1/os-server-groups",
            groups::index,
            "os_compute_api:os-server-groups:index",
        )
        .post(
            "/v2.1/os-server-groups",
            groups::create,
            "os_compute_api:os-server-groups:create",
        )
        .get(
            "/v2.1/os-server-groups/{id}",
            groups::show,
            "os_compute_api:os-server-groups:show",
        )
        .delete(
            "/v2.1/os-server-groups/{id}",
            groups::delete,
            "os_compute_api:os-server-groups:delete",
        )
        .get("/v2.1/limits", quotas::limits, "os_compute_api:limits")
        .get(
            "/v2.1/os-quota-sets/{id}",
            quotas::show,
            "os_compute_api:os-quota-sets:show",
        )
        .put(
            "/v2.1/os-quota-sets/{id}",
            quotas::update,
            "os_compute_api:os-quota-sets:update",
        )
        .delete(
            "/v2.1/os-quota-sets/{id}",
            quotas::delete,
            "os_compute_api:os-quota-sets:delete",
        )
        .get(
            "/v2.1/os-quota-sets/{id}/detail",
            quotas::detail,
            "os_compute_api:os-quota-sets:detail",
        )
        .get(
            "/v2.1/os-quota-sets/{id}/defaults",
            quotas::defaults,
            "os_compute_api:os-quota-sets:defaults",
        )
        .get(
            "/v2.1/os-quota-class-sets/{id}",
            quotas::class_show,
            "os_compute_api:os-quota-class-sets:show",
        )
        .put(
            "/v2.1/os-quota-class-sets/{id}",
            quotas::class_update,
            "os_compute_api:os-quota-class-sets:update",
        )
        .get(
            "/v2.1/os-simple-tenant-usage",
            quotas::usage_list,
            "os_compute_api:os-simple-tenant-usage:list",
        )
        .get(
            "/v2.1/os-simple-tenant-usage/{id}",
            quotas::usage_show,
            "os_compute_api:os-simple-tenant-usage:show",
        )
        .get(
            "/v2.1/os-availability-zone",
            admin::zones,
            "os_compute_api:os-availability-zone:list",
        )
        .get(
            "/v2.1/os-availability-zone/detail",
            admin::zones_detail,
            "os_compute_api:os-availability-zone:detail",
        )
        .get("/v2.1/extensions", extensions::index, "os_compute_api:extensions")
        .get(
            "/v2.1/extensions/{alias}",
            extensions::show,
            "os_compute_api:extensions",
        )
}

fn admin_routes(r: Routes<Compute>) -> Routes<Compute> {
    r.get(
        "/v2.1/os-hypervisors",
        admin::hypervisors_index,
        "os_compute_api:os-hypervisors:list",
    )
    .get(
        "/v2.1/os-hypervisors/detail",
        admin::hypervisors_detail,
        "os_compute_api:os-hypervisors:list-detail",
    )
    .get(
        "/v2.1/os-hypervisors/statistics",
        admin::statistics,
        "os_compute_api:os-hypervisors:statistics",
    )
    .until(2, 87)
    .get(
        "/v2.1/os-hypervisors/{id}",
        admin::hypervisor,
        "os_compute_api:os-hypervisors:show",
    )
    .get(
        "/v2.1/os-hypervisors/{id}/uptime",
        admin::uptime,
        "os_compute_api:os-hypervisors:uptime",
    )
    .until(2, 87)
    .get(
        "/v2.1/os-hypervisors/{id}/search",
        admin::search,
        "os_compute_api:os-hypervisors:search",
    )
    .until(2, 52)
    .get(
        "/v2.1/os-hypervisors/{id}/servers",
        admin::servers,
        "os_compute_api:os-hypervisors:servers",
    )
    .until(2, 52)
    .get("/v2.1/os-services", admin::services, "os_compute_api:os-services:list")
    .put(
        "/v2.1/os-services/{id}",
        admin::service_update,
        "os_compute_api:os-services:update",
    )
    .delete(
        "/v2.1/os-services/{id}",
        admin::service_delete,
        "os_compute_api:os-services:delete",
    )
    .get(
        "/v2.1/os-aggregates",
        aggregates::index,
        "os_compute_api:os-aggregates:index",
    )
    .post(
        "/v2.1/os-aggregates",
        aggregates::create,
        "os_compute_api:os-aggregates:create",
    )
    .get(
        "/v2.1/os-aggregates/{id}",
        aggregates::show,
        "os_compute_api:os-aggregates:show",
    )
    .put(
        "/v2.1/os-aggregates/{id}",
        aggregates::update,
        "os_compute_api:os-aggregates:update",
    )
    .delete(
        "/v2.1/os-aggregates/{id}",
        aggregates::delete,
        "os_compute_api:os-aggregates:delete",
    )
    .post("/v2.1/os-aggregates/{id}/action", aggregates::action, OWN)
    .post(
        "/v2.1/os-aggregates/{id}/images",
        admin::aggregate_images,
        "compute:aggregates:images",
    )
    .since(2, 81)
    .get("/v2.1/os-hosts", os_hosts::index, "os_compute_api:os-hosts:list")
    .until(2, 42)
    .get("/v2.1/os-hosts/{id}", os_hosts::show, "os_compute_api:os-hosts:show")
    .until(2, 42)
    .put(
        "/v2.1/os-hosts/{id}",
        os_hosts::update,
        "os_compute_api:os-hosts:update",
    )
    .until(2, 42)
    .get(
        "/v2.1/os-hosts/{id}/startup",
        os_hosts::power,
        "os_compute_api:os-hosts:start",
    )
    .until(2, 42)
    .get(
        "/v2.1/os-hosts/{id}/shutdown",
        os_hosts::power,
        "os_compute_api:os-hosts:shutdown",
    )
    .until(2, 42)
    .get(
        "/v2.1/os-hosts/{id}/reboot",
        os_hosts::power,
        "os_compute_api:os-hosts:reboot",
    )
    .until(2, 42)
    .get(
        "/v2.1/os-instance_usage_audit_log",
        os_hosts::audit_log,
        "os_compute_api:os-instance-usage-audit-log:list",
    )
    .get(
        "/v2.1/os-instance_usage_audit_log/{before}",
        os_hosts::audit_log,
        "os_compute_api:os-instance-usage-audit-log:show",
    )
    .get(
        "/v2.1/os-migrations",
        migrations::index,
        "os_compute_api:os-migrations:index",
    )
    .post(
        "/v2.1/os-server-external-events",
        os_hosts::external_events,
        "os_compute_api:os-server-external-events:create",
    )
    .get(
        "/v2.1/os-console-auth-tokens/{token}",
        consoles::console_token,
        "os_compute_api:os-console-auth-tokens",
    )
    .post(
        "/v2.1/os-assisted-volume-snapshots",
        admin::assisted_create,
        "os_compute_api:os-assisted-volume-snapshots:create",
    )
    .delete(
        "/v2.1/os-assisted-volume-snapshots/{id}",
        admin::assisted_delete,
        "os_compute_api:os-assisted-volume-snapshots:delete",
    )
}
