//! The catalog, as it stands in tokens and at /v3/auth/catalog.

use crate::model::{CatalogService, Endpoint, EndpointFilter, EndpointGroup};
use haneul_core::Result;
use haneul_store::{Query, Tx};
use serde_json::{Value, json};

/// What an endpoint's URL may have filled in (keystone/common/utils.py, `WHITELISTED_PROPERTIES`, what is of a
/// request there).
const PROPERTIES: [&str; 3] = ["tenant_id", "project_id", "user_id"];

/// The substitutions of a URL, `$(name)s` or `%(name)s`: text before each, and its name; then the rest.
fn parts(url: &str) -> Option<(Vec<(String, String)>, String)> {
    let url = url.replace("$(", "%(");
    let (mut out, mut rest) = (Vec::new(), url.as_str());
    while let Some(i) = rest.find('%') {
        let (head, tail) = rest.split_at(i);
        let (name, after) = tail.strip_prefix("%(")?.split_once(')')?;
        out.push((head.to_owned(), name.to_owned()));
        rest = after.strip_prefix('s')?;
    }
    Some((out, rest.to_owned()))
}

/// Why a URL cannot be of an endpoint: what it wants filled in that nobody fills in.
pub(crate) fn check_template(url: &str) -> Result<(), String> {
    let good = match parts(url) {
        Some((parts, _)) => parts.iter().all(|(_, name)| PROPERTIES.contains(&name.as_str())),
        None => false,
    };
    match good {
        true => Ok(()),
        false => Err(format!(
            "Only $({})s can be filled in, and % stands for nothing else.",
            PROPERTIES.join(")s, $(")
        )),
    }
}

/// Whom a catalog is for.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'a> {
    pub user: &'a str,
    /// `None`: a scope without a project.
    pub project: Option<&'a str>,
}

/// The URL for a reader; `None` when it needs a project and there is none.
fn filled(url: &str, reader: Reader<'_>) -> Option<String> {
    let (parts, rest) = parts(url)?;
    let mut out = String::new();
    for (head, name) in parts {
        out.push_str(&head);
        out.push_str(match name.as_str() {
            "user_id" => reader.user,
            _ => reader.project?,
        });
    }
    Some(out + &rest)
}

/// Whether an endpoint is of a group.
pub(crate) fn in_group(e: &Endpoint, group: &EndpointGroup) -> bool {
    group.filters.iter().all(|(key, value)| {
        let own = match key.as_str() {
            "service_id" => Some(e.service_id.as_str()),
            "region_id" => e.region_id.as_deref(),
            "interface" => Some(e.interface.as_str()),
            _ => None,
        };
        own == value.as_str()
    })
}

/// What a project's catalog is narrowed to.
pub(crate) struct Filters {
    endpoints: Vec<String>,
    groups: Vec<EndpointGroup>,
}

impl Filters {
    pub(crate) async fn of(tx: &mut Tx, project: &str) -> Result<Self> {
        let (mut endpoints, mut groups) = (Vec::new(), Vec::new());
        for f in tx
            .list::<EndpointFilter>(&Query::new().eq("project_id", project))
            .await?
        {
            match f.kind.as_str() {
                "group" => groups.extend(tx.find::<EndpointGroup>(&f.target_id).await?.map(|g| g.value)),
                _ => endpoints.push(f.value.target_id),
            }
        }
        Ok(Self { endpoints, groups })
    }
    pub(crate) fn names(&self, e: &Endpoint) -> bool {
        self.endpoints.contains(&e.id) || self.groups.iter().any(|g| in_group(e, g))
    }
}

/// Enabled services with their enabled endpoints, and whether it is the same for everybody.
pub(crate) async fn catalog(tx: &mut Tx, reader: Reader<'_>) -> Result<(Value, bool)> {
    let mut endpoints = tx.list::<Endpoint>(&Query::new()).await?;
    endpoints.sort_by(|a, b| a.interface.cmp(&b.interface).then(a.id.cmp(&b.id)));
    let filtered = tx.count::<EndpointFilter>(&Query::new()).await? > 0;
    if let (true, Some(project)) = (filtered, reader.project) {
        let filters = Filters::of(tx, project).await?;
        // Filters that name nothing narrow nothing: keystone.conf `[endpoint_filter] return_all_endpoints_if_no_filter`.
        if endpoints.iter().any(|e| filters.names(e)) {
            endpoints.retain(|e| filters.names(e));
        }
    }
    let mut services = tx.list::<CatalogService>(&Query::new()).await?;
    services.sort_by(|a, b| a.kind.cmp(&b.kind).then(a.id.cmp(&b.id)));
    let shared = !filtered && !endpoints.iter().any(|e| e.url.contains("$(") || e.url.contains('%'));
    let catalog = services
        .iter()
        .filter(|s| s.enabled)
        .map(|s| {
            let own: Vec<Value> = endpoints
                .iter()
                .filter(|e| e.enabled && e.service_id == s.id)
                .filter_map(|e| {
                    Some(json!({
                        "id": e.id, "interface": e.interface, "url": filled(&e.url, reader)?,
                        "region": e.region_id, "region_id": e.region_id,
                    }))
                })
                .collect();
            json!({"id": s.id, "type": s.kind, "name": s.name, "endpoints": own})
        })
        .collect();
    Ok((catalog, shared))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_filled_in() {
        let reader = Reader {
            user: "u",
            project: Some("p"),
        };
        for (url, made) in [
            ("http://x/v1", "http://x/v1"),
            ("http://x/v1/$(tenant_id)s", "http://x/v1/p"),
            ("http://x/%(project_id)s/%(user_id)s/", "http://x/p/u/"),
        ] {
            assert_eq!(check_template(url), Ok(()));
            assert_eq!(filled(url, reader).as_deref(), Some(made));
        }
        let none = Reader {
            user: "u",
            project: None,
        };
        assert_eq!(filled("http://x/$(tenant_id)s", none), None);
        for bad in [
            "http://x/$(admin_token)s",
            "http://x/%20",
            "http://x/%(user_id)",
            "http://x/$(",
            "http://%",
        ] {
            assert!(check_template(bad).is_err(), "{bad}");
        }
    }
}
