//! GET /v3/OS-REVOKE/events (API reference: Identity API v3 extensions, "OS-REVOKE").

use crate::Identity;
use crate::store::revocations;
use haneul_auth::Target;
use haneul_core::clock::iso_micros;
use haneul_core::{Error, Result, clock};
use haneul_http::{Reply, Req};
use serde_json::{Value, json};
use std::sync::Arc;

/// GET /v3/OS-REVOKE/events
pub(crate) async fn events(app: Arc<Identity>, req: Req) -> Result<Reply> {
    req.ctx()?.enforce("identity:list_revoke_events", &Target::default())?;
    let since = match req.q("since").filter(|s| !s.is_empty()) {
        None => 0,
        Some(text) => clock::parse(text).ok_or_else(|| {
            Error::field(
                "since",
                format!("invalidate date format {text} in since: write a time such as 2027-01-31T12:00:00Z."),
            )
        })?,
    };
    let link = format!("{}/v3/OS-REVOKE/events", req.base);
    drop(req);
    let found = revocations(&mut app.db.read().await?, since).await?;
    let events: Vec<Value> = found
        .into_iter()
        .filter_map(|r| {
            let name = match r.kind.as_str() {
                "audit" => "audit_id",
                "chain" => "audit_chain_id",
                "user" => "user_id",
                "project" => "project_id",
                "domain" => "domain_id",
                _ => return None,
            };
            let at = iso_micros(r.issued_before);
            Some(json!({name: r.value, "issued_before": at, "revoked_at": at}))
        })
        .collect();
    Ok(Reply::ok(
        &json!({"events": events, "links": {"next": null, "self": link, "previous": null}}),
    ))
}
