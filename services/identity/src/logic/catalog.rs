//! The catalog, as it stands in tokens and at /v3/auth/catalog.

use crate::model::{CatalogService, Endpoint};
use haneul_core::Result;
use haneul_store::{Query, Tx};
use serde_json::{Value, json};

/// Enabled services with their enabled endpoints.
pub(crate) async fn catalog(tx: &mut Tx) -> Result<Value> {
    let mut endpoints = tx.list::<Endpoint>(&Query::new()).await?;
    endpoints.sort_by(|a, b| a.interface.cmp(&b.interface).then(a.id.cmp(&b.id)));
    let mut services = tx.list::<CatalogService>(&Query::new()).await?;
    services.sort_by(|a, b| a.kind.cmp(&b.kind).then(a.id.cmp(&b.id)));
    Ok(services
        .iter()
        .filter(|s| s.enabled)
        .map(|s| {
            let own: Vec<Value> = endpoints
                .iter()
                .filter(|e| e.enabled && e.service_id == s.id)
                .map(|e| {
                    json!({
                        "id": e.id, "interface": e.interface, "url": e.url,
                        "region": e.region_id, "region_id": e.region_id,
                    })
                })
                .collect();
            json!({"id": s.id, "type": s.kind, "name": s.name, "endpoints": own})
        })
        .collect())
}
