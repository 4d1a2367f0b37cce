//! THE route table.

mod allocations;
mod candidates;
mod classes;
mod inventories;
mod providers;
mod root;
mod usages;

use crate::{Placement, ResourceProvider};
use haneul_auth::{Action, Target, fetch};
use haneul_core::{Error, Result};
use haneul_http::version::Versions;
use haneul_http::{Req, Routes, Service, Ver};
use http::Method;
use serde_json::Value;
use std::sync::Arc;

/// Newest microversion: everything up to it is served. 1.21 (member_of on candidates) and what follows come later.
pub(crate) const MAX: Ver = Ver(1, 20);

impl Placement {
    /// All routes below /placement.
    pub fn routes(self: &Arc<Self>) -> Routes<Placement> {
        Routes::new(Service::Placement, self.clone())
            .versions(Versions {
                name: "placement",
                min: Ver(1, 0),
                max: MAX,
                legacy_header: None,
            })
            .public(Method::GET, "", root::versions)
            .public(Method::GET, "/", root::versions)
            .get("/resource_classes", classes::list, "placement:resource_classes:list")
            .since(1, 2)
            .post(
                "/resource_classes",
                classes::create,
                "placement:resource_classes:create",
            )
            .since(1, 2)
            .get(
                "/resource_classes/{name}",
                classes::show,
                "placement:resource_classes:show",
            )
            .since(1, 2)
            .put(
                "/resource_classes/{name}",
                classes::put,
                "placement:resource_classes:update",
            )
            .since(1, 2)
            .delete(
                "/resource_classes/{name}",
                classes::delete,
                "placement:resource_classes:delete",
            )
            .since(1, 2)
            .get("/traits", classes::traits, "placement:traits:list")
            .since(1, 6)
            .get("/traits/{name}", classes::show_trait, "placement:traits:show")
            .since(1, 6)
            .put("/traits/{name}", classes::put_trait, "placement:traits:update")
            .since(1, 6)
            .delete("/traits/{name}", classes::delete_trait, "placement:traits:delete")
            .since(1, 6)
            .get(
                "/resource_providers",
                providers::list,
                "placement:resource_providers:list",
            )
            .post(
                "/resource_providers",
                providers::create,
                "placement:resource_providers:create",
            )
            .get(
                "/resource_providers/{uuid}",
                providers::show,
                "placement:resource_providers:show",
            )
            .put(
                "/resource_providers/{uuid}",
                providers::update,
                "placement:resource_providers:update",
            )
            .delete(
                "/resource_providers/{uuid}",
                providers::delete,
                "placement:resource_providers:delete",
            )
            .get(
                "/resource_providers/{uuid}/inventories",
                inventories::list,
                "placement:resource_providers:inventories:list",
            )
            .put(
                "/resource_providers/{uuid}/inventories",
                inventories::replace,
                "placement:resource_providers:inventories:update",
            )
            .post(
                "/resource_providers/{uuid}/inventories",
                inventories::create,
                "placement:resource_providers:inventories:create",
            )
            .delete(
                "/resource_providers/{uuid}/inventories",
                inventories::delete_all,
                "placement:resource_providers:inventories:delete",
            )
            .get(
                "/resource_providers/{uuid}/inventories/{class}",
                inventories::show,
                "placement:resource_providers:inventories:show",
            )
            .put(
                "/resource_providers/{uuid}/inventories/{class}",
                inventories::put,
                "placement:resource_providers:inventories:update",
            )
            .delete(
                "/resource_providers/{uuid}/inventories/{class}",
                inventories::delete,
                "placement:resource_providers:inventories:delete",
            )
            .get(
                "/resource_providers/{uuid}/usages",
                usages::of_provider,
                "placement:resource_providers:usages",
            )
            .get(
                "/resource_providers/{uuid}/allocations",
                allocations::of_provider,
                "placement:resource_providers:allocations:list",
            )
            .get(
                "/resource_providers/{uuid}/aggregates",
                providers::aggregates,
                "placement:resource_providers:aggregates:list",
            )
            .since(1, 1)
            .put(
                "/resource_providers/{uuid}/aggregates",
                providers::set_aggregates,
                "placement:resource_providers:aggregates:update",
            )
            .since(1, 1)
            .get(
                "/resource_providers/{uuid}/traits",
                providers::traits,
                "placement:resource_providers:traits:list",
            )
            .since(1, 6)
            .put(
                "/resource_providers/{uuid}/traits",
                providers::set_traits,
                "placement:resource_providers:traits:update",
            )
            .since(1, 6)
            .delete(
                "/resource_providers/{uuid}/traits",
                providers::clear_traits,
                "placement:resource_providers:traits:delete",
            )
            .since(1, 6)
            .get(
                "/allocations/{consumer}",
                allocations::show,
                "placement:allocations:list",
            )
            .put(
                "/allocations/{consumer}",
                allocations::put,
                "placement:allocations:update",
            )
            .delete(
                "/allocations/{consumer}",
                allocations::delete,
                "placement:allocations:delete",
            )
            .post("/allocations", allocations::post, "placement:allocations:manage")
            .since(1, 13)
            .get(
                "/allocation_candidates",
                candidates::list,
                "placement:allocation_candidates:list",
            )
            .since(1, 10)
            .get("/usages", usages::of_project, "placement:usages")
            .since(1, 9)
    }
}

/// Permission that does not depend on what is asked for. Placement looks at it before it looks at the body.
fn allow<A: Action>(req: &Req, _action: A) -> Result<()> {
    req.ctx()?.enforce(A::RULE, &Target::default())
}

/// The body of a request that changes a provider. Whoever may not, or names a provider that is not there, hears
/// that first, whatever the body says.
async fn body_for<A: Action<On = ResourceProvider>>(app: &Placement, req: &mut Req, action: A) -> Result<Value> {
    let mut tx = app.db.read().await?;
    fetch(&mut tx, req.ctx()?, action, req.param("uuid")).await?;
    drop(tx);
    req.json().await
}

/// Refuses query parameters that there are not at the request's microversion: each stands with its first one.
fn known_query(req: &Req, known: &[(&str, Ver)]) -> Result<()> {
    let is_known = |name: &str| known.iter().any(|(n, since)| *n == name && req.version >= *since);
    match req.query.iter().find(|(name, _)| !is_known(name)) {
        None => Ok(()),
        Some((name, _)) => Err(Error::field(
            name.clone(),
            format!("Invalid query string parameters: Additional properties are not allowed ('{name}' was unexpected)"),
        )),
    }
}

/// A number that is one in JSON as well: Placement takes none in quotes.
fn whole<const MIN: i64, const MAX: i64>(v: &Value) -> Result<(), String> {
    match v.as_i64() {
        Some(n) if (MIN..=MAX).contains(&n) => Ok(()),
        _ => Err(format!("It must be an integer from {MIN} to {MAX}.")),
    }
}
