//! Hosts as administrators see them.

use crate::Compute;
use crate::model::{ComputeService, Server};
use haneul_core::{Error, Result};
use haneul_fleet::Host;
use haneul_store::{Query, Stored, System, Tx};
use std::collections::{BTreeMap, HashMap};

/// `host_status` of servers: UP, MAINTENANCE (switched off by an operator), DOWN.
pub(crate) fn status(service: &ComputeService, up: bool) -> &'static str {
    match (service.disabled, up && !service.forced_down) {
        (true, _) => "MAINTENANCE",
        (false, true) => "UP",
        (false, false) => "DOWN",
    }
}

/// What an operator sees of a host beside what the fleet knows of it.
pub struct HostUse {
    pub servers: i64,
    /// Why nothing new comes here, when an operator has said so.
    pub disabled: Option<String>,
    /// Class to (used, total).
    pub stock: BTreeMap<String, (i64, i64)>,
}

/// Why a host cannot have a server: its disks are where the host does not see them.
pub(crate) fn lacks_disks(s: &Server, to: &Host) -> Option<String> {
    let disks = s.shared_disks.as_ref()?;
    let has = to.hypervisor.shared_disks.map(|m| m.to_string());
    (has.as_ref() != Some(disks)).then(|| {
        format!(
            "the server's disks are in the shared directory {disks}, and it has {} (agent.shared_disks)",
            has.map_or_else(|| "none".into(), |m| format!("the directory {m}"))
        )
    })
}

impl Compute {
    /// What is on a host, and whether servers may come to it.
    pub async fn host_use(&self, tx: &mut Tx, host: &str) -> Result<HostUse> {
        let service = self.service_of(tx, host).await?;
        let used = self.placement.inventories(tx, host).await?;
        Ok(HostUse {
            servers: tx.count::<Server>(&Query::new().eq("host_id", host)).await?,
            disabled: service
                .filter(|s| s.disabled)
                .map(|s| s.disabled_reason.clone().unwrap_or_default()),
            stock: used
                .into_iter()
                .map(|(class, (i, used))| (class, (used, i.total)))
                .collect(),
        })
    }

    /// Lets servers come to a host, or, with the reason, not.
    pub async fn set_host_disabled(&self, tx: &mut Tx, host: &str, reason: Option<&str>) -> Result<()> {
        let service = self.service_of(tx, host).await?;
        let service = service.ok_or_else(|| Error::not_found(format!("There is no host {host}.")))?;
        let mut new = service.value.clone();
        new.disabled = reason.is_some();
        new.disabled_reason = reason.map(str::to_owned);
        if new != service.value {
            tx.update(&System::of(service), &new).await?;
            self.service_changed(tx, &new).await?;
        }
        Ok(())
    }

    /// The directory for disks that a host shares with others, by its marker.
    pub(crate) async fn shared_disks(&self, tx: &mut Tx, host: &str) -> Result<Option<String>> {
        let host = self.fleet.host(tx, host).await?;
        Ok(host.and_then(|h| h.hypervisor.shared_disks).map(|m| m.to_string()))
    }

    async fn service_of(&self, tx: &mut Tx, host: &str) -> Result<Option<Stored<ComputeService>>> {
        let services = tx.list::<ComputeService>(&Query::new().eq("host_id", host)).await?;
        Ok(services.into_iter().next())
    }

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
