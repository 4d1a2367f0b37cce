//! Availability zones: what aggregates say of their hosts. A host is in one zone at the most; without one it is in
//! the default zone of the configuration.

use crate::Compute;
use crate::model::{Aggregate, Server};
use haneul_core::{Error, Result};
use haneul_store::{Query, System, Tx};
use std::collections::{BTreeSet, HashMap};

/// Zone by host; the default zone is not in it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Zones(HashMap<String, String>);

impl Zones {
    pub(crate) async fn read(tx: &mut Tx) -> Result<Zones> {
        let mut out = HashMap::new();
        for a in tx.list::<Aggregate>(&Query::new()).await? {
            if let Some(z) = a.zone() {
                out.extend(a.hosts.iter().map(|h| (h.clone(), z.to_owned())));
            }
        }
        Ok(Zones(out))
    }

    /// The zone of a host.
    pub(crate) fn of<'a>(&'a self, host: &str, default: &'a str) -> &'a str {
        self.0.get(host).map_or(default, String::as_str)
    }

    /// Whether a host is in this zone by an aggregate.
    pub(crate) fn has(&self, zone: &str) -> bool {
        self.0.values().any(|z| z == zone)
    }
}

impl Compute {
    /// Refuses (the reason) hosts that another aggregate has put into another zone.
    pub(crate) async fn check_zone(&self, tx: &mut Tx, a: &Aggregate) -> Result<Option<String>> {
        let Some(zone) = a.zone() else { return Ok(None) };
        let others: BTreeSet<String> = tx
            .list::<Aggregate>(&Query::new())
            .await?
            .iter()
            .filter(|o| o.id != a.id && !o.hosts.is_disjoint(&a.hosts))
            .filter_map(|o| o.zone().filter(|z| *z != zone).map(str::to_owned))
            .collect();
        let names: Vec<String> = others.into_iter().collect();
        Ok((!names.is_empty()).then(|| {
            format!(
                "One or more hosts already in availability zone(s) {}. A host is in one zone at the most.",
                names.join(", ")
            )
        }))
    }

    /// Servers are where their hosts are: after hosts have changed zones. The next decision sees it.
    pub(crate) async fn rezone(&self, tx: &mut Tx, hosts: &BTreeSet<String>) -> Result<()> {
        let zones = Zones::read(tx).await?;
        for host in hosts {
            let zone = zones.of(host, &self.config.availability_zone).to_owned();
            let query = Query::new().eq("host_id", host.as_str()).ne("zone", zone.as_str());
            for stored in tx.list::<Server>(&query).await? {
                let mut s = stored.value.clone();
                s.availability_zone.clone_from(&zone);
                tx.update(&System::of(stored), &s).await?;
            }
        }
        let cache = self.snapshot.clone();
        tx.after_commit(move || cache.drop_it());
        Ok(())
    }

    /// Refuses a zone that no host is in.
    pub(crate) async fn known_zone(&self, zone: &str) -> Result<()> {
        if zone == self.config.availability_zone {
            return Ok(());
        }
        let mut tx = self.db.read().await?;
        if Zones::read(&mut tx).await?.has(zone) {
            return Ok(());
        }
        Err(Error::field(
            "availability_zone",
            format!("The requested availability zone is not available: there is no zone '{zone}' with hosts."),
        ))
    }
}
