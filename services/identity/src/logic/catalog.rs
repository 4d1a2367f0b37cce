//! The catalog, as it stands in tokens and at /v3/auth/catalog.

use crate::model::{CatalogService, Endpoint};
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

/// Enabled services with their enabled endpoints, and whether it is the same for everybody.
pub(crate) async fn catalog(tx: &mut Tx, reader: Reader<'_>) -> Result<(Value, bool)> {
    let mut endpoints = tx.list::<Endpoint>(&Query::new()).await?;
    endpoints.sort_by(|a, b| a.interface.cmp(&b.interface).then(a.id.cmp(&b.id)));
    let mut services = tx.list::<CatalogService>(&Query::new()).await?;
    services.sort_by(|a, b| a.kind.cmp(&b.kind).then(a.id.cmp(&b.id)));
    let shared = !endpoints.iter().any(|e| e.url.contains("$(") || e.url.contains('%'));
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
