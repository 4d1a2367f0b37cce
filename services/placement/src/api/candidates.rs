//! Allocation candidates (Placement API reference, "Allocation candidates"): providers that could take a request
//! whole. Each provider is a tree of its own for now.

use super::known_query;
use super::providers::{required, resources};
use crate::names::Names;
use crate::{Placement, ProviderState};
use haneul_auth::Target;
use haneul_core::{Error, Result};
use haneul_http::{Reply, Req, Ver};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

impl ProviderState {
    /// Whether all amounts fit into what is free.
    pub fn fits(&self, wanted: &[(String, i64)]) -> bool {
        wanted.iter().all(|(class, n)| {
            self.inventories
                .get(class)
                .is_some_and(|(i, used)| i.refuses(*n).is_none() && used + n <= i.capacity())
        })
    }
}

pub async fn list(app: Arc<Placement>, req: Req) -> Result<Reply> {
    req.ctx()?
        .enforce("placement:allocation_candidates:list", &Target::default())?;
    known_query(
        &req,
        &[
            ("resources", Ver(1, 10)),
            ("limit", Ver(1, 16)),
            ("required", Ver(1, 17)),
        ],
    )?;
    let text = req.q("resources").ok_or_else(|| {
        Error::field(
            "resources",
            "Invalid query string parameters: 'resources' is a required property",
        )
    })?;
    let wanted = resources(text)?;
    let limit = match req.q("limit") {
        None => usize::MAX,
        Some(l) => l.parse::<usize>().ok().filter(|n| *n > 0).ok_or_else(|| {
            Error::field(
                "limit",
                format!("Invalid query string parameters: limit must be an integer of at least 1, not '{l}'"),
            )
        })?,
    };
    let mut tx = app.db.read().await?;
    Names::Class
        .demand(&mut tx, &wanted.iter().map(|(c, _)| c.clone()).collect())
        .await?;
    let traits = match req.q("required") {
        Some(t) => required(&mut tx, t).await?,
        None => vec![],
    };
    let providers = app.snapshot_providers(&mut tx).await?;
    let states = app.snapshot(&mut tx).await?;
    let mut requests = Vec::new();
    let mut summaries: BTreeMap<String, Value> = BTreeMap::new();
    for state in states.iter().filter(|s| s.fits(&wanted)) {
        let Some(p) = providers.iter().find(|p| p.uuid == state.uuid) else {
            continue;
        };
        if !traits.iter().all(|t| p.traits.contains(t)) || requests.len() >= limit {
            continue;
        }
        let amounts: BTreeMap<&str, i64> = wanted.iter().map(|(c, n)| (c.as_str(), *n)).collect();
        requests.push(if req.version < Ver(1, 12) {
            json!({"allocations": [{"resource_provider": {"uuid": p.uuid}, "resources": amounts}]})
        } else {
            json!({"allocations": {p.uuid.as_str(): {"resources": amounts}}})
        });
        let resources: BTreeMap<&str, Value> = state
            .inventories
            .iter()
            .filter(|(c, _)| amounts.contains_key(c.as_str()))
            .map(|(c, (i, used))| (c.as_str(), json!({"capacity": i.capacity(), "used": used})))
            .collect();
        let mut summary = json!({"resources": resources});
        if req.version >= Ver(1, 17)
            && let Some(map) = summary.as_object_mut()
        {
            map.insert("traits".into(), json!(p.traits));
        }
        summaries.insert(p.uuid.clone(), summary);
    }
    Ok(Reply::ok(
        &json!({"allocation_requests": requests, "provider_summaries": summaries}),
    ))
}
