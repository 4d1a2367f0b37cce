//! Hosts as administrators see them.

use crate::Compute;
use crate::model::ComputeService;
use haneul_core::Result;
use haneul_store::{Query, Tx};
use std::collections::HashMap;

/// `host_status` of servers: UP, MAINTENANCE (switched off by an operator), DOWN.
pub(crate) fn status(service: &ComputeService, up: bool) -> &'static str {
    match (service.disabled, up && !service.forced_down) {
        (true, _) => "MAINTENANCE",
        (false, true) => "UP",
        (false, false) => "DOWN",
    }
}

impl Compute {
    /// Host id to (name, status).
    pub(crate) async fn host_states(&self, tx: &mut Tx) -> Result<HashMap<String, (String, &'static str)>> {
        let up: HashMap<String, bool> = self.fleet.hosts(tx).await?.into_iter().map(|h| (h.id, h.up)).collect();
        Ok(tx
            .list::<ComputeService>(&Query::new())
            .await?
            .into_iter()
            .map(|s| {
                let st = status(&s, up.get(&s.host_id).copied().unwrap_or(false));
                (s.host_id.clone(), (s.host_name.clone(), st))
            })
            .collect())
    }
}
