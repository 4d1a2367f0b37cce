//! THE route table.

mod allocations;
mod candidates;
mod classes;
mod inventories;
mod providers;
mod reshaper;
mod root;
mod usages;

use crate::{Placement, ResourceProvider};
use haneul_auth::{Action, Target, fetch};
use haneul_core::{Error, Kind, Result, clock};
use haneul_http::version::Versions;
use haneul_http::{Body, FieldKind, Reply, Req, Routes, Service, Ver, fields};
use http::Method;
use serde_json::Value;
use std::sync::Arc;

/// Newest microversion: everything up to it is served.
pub(crate) const MAX: Ver = Ver(1, 39);

/// Error codes and texts that more than one resource gives.
const CONCURRENT: &str = "placement.concurrent_update";

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
            .post("/reshaper", reshaper::reshape, "placement:reshaper:reshape")
            .since(1, 30)
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
    req.must_be_sent_as_json()?;
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

/// Refuses who takes no JSON: there is nothing else.
fn json_only(req: &Req) -> Result<()> {
    let Some(accept) = req.header("accept") else {
        return Ok(());
    };
    let takes = |part: &str| {
        let mut words = part.split(';').map(str::trim);
        let kind = words.next().unwrap_or_default();
        let refused = words.any(|w| w.strip_prefix("q=").is_some_and(|q| q.parse::<f64>() == Ok(0.0)));
        matches!(kind, "application/json" | "application/*" | "*/*") && !refused
    };
    if accept.trim().is_empty() || accept.split(',').any(takes) {
        return Ok(());
    }
    Err(Error::new(Kind::NotAcceptable, "Only application/json is provided").with_field("accept"))
}

/// From 1.15 on answers say how old they are, and that no cache may keep them.
fn cached(req: &Req, reply: Reply, modified: clock::Micros) -> Reply {
    if req.version < Ver(1, 15) {
        return reply;
    }
    reply
        .header("last-modified", clock::http(modified))
        .header("cache-control", "no-cache")
}

/// Checks a body against its table; what is wrong is said with the rule of the schema that it breaks.
fn check(table: &Body, value: &Value, version: Ver, path: &str) -> Result<()> {
    fields::check(table, value, version, path).map_err(|e| {
        let name = e.field_name().unwrap_or(path).to_owned();
        let last = name.rsplit('.').next().unwrap_or_default();
        let field = table.fields.iter().find(|f| f.name == last);
        let known = field.and_then(|f| broken(&f.kind, last, value.get(last)));
        // What nobody knows is said as it stands, from where the reason begins.
        let said = e.public();
        let reason = said.find("Additional properties").and_then(|i| said.get(i..));
        let text = match (reason, known) {
            (Some(reason), _) => format!("{reason} at {path}"),
            (None, Some((reason, rule))) => {
                format!("{reason} Failed validating '{rule}' in schema['properties']['{last}']: {name}")
            }
            (None, None) => said.to_owned(),
        };
        Error::field(name, format!("JSON does not validate: {text}"))
    })
}

/// What is wrong with a value, and the rule of a JSON schema that it breaks.
fn broken(kind: &FieldKind, name: &str, value: Option<&Value>) -> Option<(String, &'static str)> {
    let Some(value) = value else {
        return Some((format!("'{name}' is a required property."), "required"));
    };
    let shown = quoted(value);
    match (kind, value.as_str()) {
        (FieldKind::Str { max, .. }, Some(s)) if s.chars().count() > *max => Some((
            format!(
                "It is too long: {} characters, and at most {max} are allowed.",
                s.chars().count()
            ),
            "maxLength",
        )),
        (FieldKind::Str { min, .. }, Some(s)) if s.chars().count() < *min => {
            Some((format!("{shown} is too short, should be non-empty."), "minLength"))
        }
        (FieldKind::Uuid, Some(s)) if !haneul_core::id::is_uuid(s) => {
            Some((format!("{shown} is not a 'uuid'."), "format"))
        }
        (FieldKind::Str { .. } | FieldKind::Uuid, None) => Some((format!("{shown} is not of type 'string'."), "type")),
        (FieldKind::Check(check), _) => {
            let why = check(value).err()?;
            let rule = RULES.iter().find(|(words, _)| why.contains(words));
            Some((why, rule.map_or("type", |(_, rule)| rule)))
        }
        _ => None,
    }
}

/// How a reason tells its rule.
const RULES: [(&str, &str); 8] = [
    ("less than the minimum", "minimum"),
    ("greater than the maximum", "maximum"),
    ("is not a 'uuid'", "format"),
    ("non-unique", "uniqueItems"),
    ("does not match", "pattern"),
    ("too long", "maxLength"),
    ("is too short", "minLength"),
    ("should be non-empty", "minProperties"),
];

/// A value as Placement's messages show it.
fn quoted(v: &Value) -> String {
    match v.as_str() {
        Some(s) => format!("'{}'", s.chars().take(120).collect::<String>()),
        None => v.to_string().chars().take(120).collect(),
    }
}

/// A number that is one in JSON as well: Placement takes none in quotes.
fn whole<const MIN: i64, const MAX: i64>(v: &Value) -> Result<(), String> {
    match v.as_i64() {
        Some(n) if n < MIN => Err(format!("{n} is less than the minimum of {MIN}.")),
        Some(n) if n > MAX => Err(format!("{n} is greater than the maximum of {MAX}.")),
        Some(_) => Ok(()),
        None => Err(format!(
            "{} is not of type 'integer'. It must be from {MIN} to {MAX}.",
            quoted(v)
        )),
    }
}

/// A list of strings, none of them twice, that a check lets pass.
fn strings_that(v: &Value, check: impl Fn(&str) -> Result<(), String>) -> Result<(), String> {
    const MOST: usize = 1000;
    let list = v
        .as_array()
        .ok_or_else(|| format!("{} is not of type 'array'.", quoted(v)))?;
    if list.len() > MOST {
        return Err(format!(
            "It is too long: {} items, and at most {MOST} are allowed.",
            list.len()
        ));
    }
    let mut seen = std::collections::BTreeSet::new();
    for item in list {
        let text = item
            .as_str()
            .ok_or_else(|| format!("{} is not of type 'string'.", quoted(item)))?;
        check(text)?;
        if !seen.insert(text) {
            return Err(format!("{} has non-unique elements.", quoted(v)));
        }
    }
    Ok(())
}
