//! Hosts: a row each, made by the first greeting.

use crate::Fleet;
use haneul_agent_api::{Greeting, HypervisorInfo, Inventory, Report, Underlay};
use haneul_core::{Error, Result};
use haneul_store::{Dir, Query, Resource, System, Tx, V};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// A machine with an agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Host {
    /// The UUID in its state directory.
    pub id: String,
    /// Its host name: shown to administrators, never used to find it.
    pub name: String,
    /// Whether its agent's stream is open.
    pub up: bool,
    pub boot_id: String,
    pub release: String,
    pub inventory: Inventory,
    pub hypervisor: HypervisorInfo,
    /// Where other hosts reach it.
    #[serde(default)]
    pub underlay: Option<Underlay>,
    /// The newest grant of its lease; 0: it shares no disks with others, and needs none.
    #[serde(default)]
    pub lease: u64,
    /// The process of the control plane that its stream is to, while it is up.
    #[serde(default)]
    pub process: Option<String>,
    /// What it had when it joined, or when an operator last accepted it. A release before this one forgets it.
    #[serde(default)]
    pub accepted: Option<Inventory>,
}

impl Host {
    /// What of the host is more than an operator has accepted: what, how many those are, how many it says there are. One that
    /// says so to be given more servers shall not do so unseen. Another kernel, or firmware, leaves a machine a little more or
    /// less of its memory.
    pub fn more(&self) -> Vec<(&'static str, u64, u64)> {
        let (now, accepted) = (&self.inventory, self.accepted.as_ref().unwrap_or(&self.inventory));
        let all = [
            ("VCPU", u64::from(accepted.vcpus), u64::from(now.vcpus), 0),
            (
                "MiB of memory",
                accepted.memory_mib,
                now.memory_mib,
                accepted.memory_mib / 32,
            ),
            ("GiB of disk", accepted.disk_gib, now.disk_gib, 0),
        ];
        // What could not be measured then was nothing that somebody has accepted.
        let more = all
            .into_iter()
            .filter(|(_, accepted, now, slack)| *accepted > 0 && *now > accepted + slack);
        more.map(|(what, accepted, now, _)| (what, accepted, now)).collect()
    }
}

impl Resource for Host {
    const KIND: &'static str = "host";
    const TABLE: &'static str = "host";
    const COLUMNS: &'static [&'static str] = &["up"];
    fn id(&self) -> &str {
        &self.id
    }
    fn project_id(&self) -> Option<&str> {
        None
    }
    fn name(&self) -> &str {
        &self.name
    }
    fn columns(&self) -> Vec<V> {
        vec![self.up.into()]
    }
}

impl Fleet {
    /// All hosts, oldest first.
    pub async fn hosts(&self, tx: &mut Tx) -> Result<Vec<Host>> {
        let query = Query::new().order("created_at", Dir::Asc).order("id", Dir::Asc);
        Ok(tx.list::<Host>(&query).await?.into_iter().map(|s| s.value).collect())
    }

    /// One host.
    pub async fn host(&self, tx: &mut Tx, id: &str) -> Result<Option<Host>> {
        Ok(tx.find::<Host>(id).await?.map(|s| s.value))
    }

    /// Removes a host: its membership, and what is kept of it. Nothing on the machine is touched.
    ///
    /// # Errors
    /// Not found; conflict, with numbers, while something of the cloud is on it.
    pub async fn remove_host(self: &Arc<Self>, tx: &mut Tx, id: &str) -> Result<Host> {
        let stored = tx.find::<Host>(id).await?;
        let stored = stored.ok_or_else(|| Error::not_found(format!("There is no host {id}.")))?;
        let host = stored.value.clone();
        for o in self.observers() {
            o.host_leaving(tx, &host).await?;
        }
        for table in ["fleet_desired", "fleet_observed", "fleet_session"] {
            tx.exec(&format!("DELETE FROM {table} WHERE host_id = $1"), &[id.into()])
                .await?;
        }
        self.forget_fence(tx, id).await?;
        self.expel(tx, id).await?;
        tx.delete(&System::of(stored)).await?;
        Ok(host)
    }

    /// An operator takes it for right that the host has as much as it says. Answers it as it was.
    ///
    /// # Errors
    /// Not found.
    pub async fn accept_inventory(&self, tx: &mut Tx, id: &str) -> Result<Host> {
        let stored = tx.find::<Host>(id).await?;
        let stored = stored.ok_or_else(|| Error::not_found(format!("There is no host {id}.")))?;
        let before = stored.value.clone();
        let host = Host {
            accepted: Some(before.inventory.clone()),
            ..before.clone()
        };
        if host != before {
            tx.update(&System::of(stored), &host).await?;
        }
        Ok(before)
    }

    /// A host greets. Answers the number of this greeting: what is left of the reports before it changes nothing any more.
    pub(crate) async fn greet(self: &Arc<Self>, tx: &mut Tx, g: &Greeting) -> Result<u64> {
        let mut host = Host {
            id: g.host_id.to_string(),
            name: g.host_name.clone(),
            up: true,
            boot_id: g.boot_id.clone(),
            release: g.release.clone(),
            inventory: g.inventory.clone(),
            hypervisor: g.hypervisor.clone(),
            underlay: g.underlay,
            lease: 0,
            process: self.db.me().map(|me| me.to_string()),
            accepted: None,
        };
        let old = tx.find::<Host>(&host.id).await?;
        self.grant(tx, &mut host, old.as_ref().map_or(0, |h| h.lease)).await?;
        let moved = old.as_ref().is_some_and(|old| old.underlay != host.underlay);
        let before = old.as_ref().map_or(&host.inventory, |o| &o.inventory);
        let accepted = old.as_ref().and_then(|o| o.accepted.as_ref()).unwrap_or(before);
        host.accepted = Some(accepted.clone());
        if host.inventory != *before {
            for (what, accepted, now) in host.more() {
                tracing::warn!(
                    host = host.id,
                    name = host.name,
                    what,
                    accepted,
                    now,
                    "a host says that it has more than before"
                );
            }
        }
        match old {
            None => {
                tx.insert(&System::create(), &host).await?;
            }
            Some(old) if old.value != host => {
                tx.update(&System::of(old), &host).await?;
            }
            Some(_) => {}
        }
        for o in self.observers() {
            o.host_up(tx, g).await?;
            if moved {
                o.underlay_changed(tx, &host.id).await?;
            }
        }
        let session = tx.next_number("fleet.session").await?;
        tx.exec(
            "INSERT INTO fleet_session(host_id, session, number) VALUES($1,$2,0)
             ON CONFLICT(host_id) DO UPDATE SET session = excluded.session, number = 0",
            &[host.id.as_str().into(), session.into()],
        )
        .await?;
        Ok(session as u64)
    }

    /// Refuses a report that is not the next of the host's newest greeting, or a later one of it.
    pub(crate) async fn in_order(&self, tx: &mut Tx, r: &Report) -> Result<()> {
        if r.session == 0 {
            return Ok(());
        }
        let newer = tx
            .exec(
                "UPDATE fleet_session SET number = $3 WHERE host_id = $1 AND session = $2 AND number < $3",
                &[r.host_id.to_string().into(), r.session.into(), r.number.into()],
            )
            .await?;
        match newer {
            0 => Err(Error::conflict(format!(
                "Report {} of greeting {} is older than what this host has said since. It changes nothing; greet anew.",
                r.number, r.session
            ))),
            _ => Ok(()),
        }
    }

    pub(crate) async fn is_up(&self, id: &str) -> Result<bool> {
        let mut tx = self.db.read().await?;
        Ok(self.host(&mut tx, id).await?.is_some_and(|h| h.up))
    }

    /// A stream of the host ended here. When the next is open already, here or to another process, the host is not down.
    pub(crate) async fn stream_ended(&self, tx: &mut Tx, id: &str) -> Result<()> {
        if self.hub.is_open(id) {
            return Ok(());
        }
        let me = self.db.me();
        match tx.find::<Host>(id).await? {
            Some(old) if old.up && old.process.as_deref() == me.as_deref() => self.goes_down(tx, old).await,
            _ => Ok(()),
        }
    }
}
