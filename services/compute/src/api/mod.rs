//! The route table. Paths are below /compute.

mod actions;
mod flavors;
mod input;
mod servers;
mod versions;
mod view;

pub(crate) use input::check_query;

use crate::Compute;
use haneul_http::{Routes, Service};
use http::Method;
use std::sync::Arc;

const OWN: &str = "own";

/// All routes of this service.
pub(crate) fn routes(app: &Arc<Compute>) -> Routes<Compute> {
    let r = Routes::new(Service::Compute, app.clone()).versions(versions::VERSIONS);
    let r = versions_routes(r);
    let r = flavor_routes(r);
    server_routes(r)
}

fn versions_routes(r: Routes<Compute>) -> Routes<Compute> {
    r.public(Method::GET, "", versions::root)
        .public(Method::GET, "/", versions::root)
        .public(Method::GET, "/v2.1", versions::v21)
        .public(Method::GET, "/v2.1/", versions::v21)
}

fn flavor_routes(r: Routes<Compute>) -> Routes<Compute> {
    r.get("/v2.1/flavors", flavors::index, "os_compute_api:flavors")
        .post("/v2.1/flavors", flavors::create, "os_compute_api:os-flavor-manage:create")
        .get("/v2.1/flavors/detail", flavors::detail, "os_compute_api:flavors")
        .get("/v2.1/flavors/{id}", flavors::show, "os_compute_api:flavors")
        .put("/v2.1/flavors/{id}", flavors::update, "os_compute_api:os-flavor-manage:update")
        .since(2, 55)
        .delete("/v2.1/flavors/{id}", flavors::delete, "os_compute_api:os-flavor-manage:delete")
        .post("/v2.1/flavors/{id}/action", flavors::action, OWN)
        .get("/v2.1/flavors/{id}/os-flavor-access", flavors::access, "os_compute_api:os-flavor-access")
        .get("/v2.1/flavors/{id}/os-extra_specs", flavors::specs, "os_compute_api:os-flavor-extra-specs:index")
        .post("/v2.1/flavors/{id}/os-extra_specs", flavors::specs_create, "os_compute_api:os-flavor-extra-specs:create")
        .get("/v2.1/flavors/{id}/os-extra_specs/{key}", flavors::spec, "os_compute_api:os-flavor-extra-specs:show")
        .put("/v2.1/flavors/{id}/os-extra_specs/{key}", flavors::spec_update, "os_compute_api:os-flavor-extra-specs:update")
        .delete("/v2.1/flavors/{id}/os-extra_specs/{key}", flavors::spec_delete, "os_compute_api:os-flavor-extra-specs:delete")
}

fn server_routes(r: Routes<Compute>) -> Routes<Compute> {
    r.get("/v2.1/servers", servers::index, "os_compute_api:servers:index")
        .post("/v2.1/servers", servers::create, "os_compute_api:servers:create")
        .get("/v2.1/servers/detail", servers::detail, "os_compute_api:servers:detail")
        .get("/v2.1/servers/{id}", servers::show, "os_compute_api:servers:show")
        .delete("/v2.1/servers/{id}", servers::delete, "os_compute_api:servers:delete")
}
