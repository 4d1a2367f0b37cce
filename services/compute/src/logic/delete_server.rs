//! DELETE /servers/ID: a tombstone, then patience, then everything that the server held.

use crate::Compute;
use crate::logic::actions::check_lock;
use crate::logic::hosts::lacks_disks;
use crate::model::{Server, Task};
use crate::policy::acts;
use haneul_agent_api::Kind;
use haneul_auth::{Action, Ctx, fetch};
use haneul_core::{Result, fault_point};
use haneul_fleet::Host;
use haneul_store::{Stored, System, Tx};
use serde_json::json;
use std::sync::Arc;

impl Compute {
    /// Begins the delete; allowed in every state. A running job of the server gives way.
    pub(crate) async fn delete_server<A>(self: &Arc<Self>, ctx: &Ctx, action: A, id: &str) -> Result<()>
    where
        A: Action<On = Server> + Copy,
    {
        let (app, c, id) = (self.clone(), ctx.clone(), id.to_owned());
        fault_point!("compute.delete.received");
        self.db
            .write(&ctx.actor(), async move |tx| {
                let s = fetch(tx, &c, action, &id).await?;
                check_lock(&c, &s, acts::Delete)?;
                if s.task_state == Some(Task::Deleting) && app.jobs.running(tx, ("server", &id)).await?.is_some() {
                    return Ok(());
                }
                let gave_way = app.jobs.supersede(tx, ("server", &id)).await?;
                app.give_image_up(tx, gave_way.as_ref()).await?;
                // One that is on its way is on two; one that was may be removed from a host that is away, which then has to
                // know that its disks go, too.
                for host in app.fleet.hosts_with(tx, Kind::Guest, &id).await? {
                    app.fleet.destroy_guest(tx, &host, &id).await?;
                }
                let waits = app.fleet.anywhere(tx, Kind::Guest, &id).await?;
                if !waits {
                    let stored = Stored::clone(&s);
                    return app.bury(tx, stored).await;
                }
                let mut new = s.edit();
                new.note("delete", &tx.actor().request_id.clone());
                new.task_state = Some(Task::Deleting);
                new.progress = 0;
                new.snapshot = None;
                tx.update(&s, &new).await?;
                app.jobs
                    .start(tx, "server.delete", ("server", &id), json!({"v": 1}))
                    .await?;
                Ok(())
            })
            .await?;
        fault_point!("compute.delete.committed");
        Ok(())
    }

    /// What a delete still waits for. A lost host, whose lease has ended, is not waited for where another one reaches the
    /// disks and has removed them (`removed_by`): its tombstone stays for when it is back.
    pub(crate) async fn left_of(
        self: &Arc<Self>,
        tx: &mut Tx,
        s: &Server,
        state: &mut serde_json::Value,
    ) -> Result<Option<String>> {
        let (mut lost, hosts) = (Vec::new(), self.fleet.hosts_with(tx, Kind::Guest, &s.id).await?);
        for host in &hosts {
            if self.fleet.has_ended(tx, host).await? {
                lost.push(host.clone());
            }
        }
        if lost.len() < hosts.len() {
            return Ok(Some("waiting for the host to remove the guest".into()));
        }
        let Some(first) = lost.first() else { return Ok(None) };
        let removed_by = state["removed_by"].as_str().map(str::to_owned);
        if removed_by.is_some_and(|by| !lost.contains(&by)) {
            return Ok(None);
        }
        let reaches = |h: &Host| h.up && s.shared_disks.is_some() && lacks_disks(s, h).is_none();
        let all = self.fleet.hosts(tx).await?;
        let Some(helper) = all.iter().find(|h| reaches(h) && !lost.contains(&h.id)) else {
            return Ok(Some(match &s.shared_disks {
                Some(disks) => {
                    format!("its host is lost; waiting for it, or for another one with the shared directory {disks}")
                }
                None => "its host is lost, and its disks with it; waiting for the host to be back".into(),
            }));
        };
        self.fleet.destroy_guest_for(tx, &helper.id, first, &s.id).await?;
        state["removed_by"] = helper.id.as_str().into();
        Ok(Some(format!(
            "its host is lost; waiting for {} to remove its disks from the directory that they share",
            helper.name
        )))
    }

    /// Gives back what the server held and removes its row. No host that could run it holds anything of it any more.
    pub(crate) async fn bury(&self, tx: &mut Tx, s: Stored<Server>) -> Result<()> {
        self.network.server_gone(tx, &s.id).await?;
        if s.host_id.is_some() {
            self.placement.release(tx, &s.id, None).await?;
        }
        // While a resize waits, cores and memory of the larger flavor are counted.
        let (cores, ram) = counted(&s);
        self.quota_change(tx, s.owner(), -1, -cores, -ram).await?;
        self.migrations_forget(tx, &s.id).await?;
        tx.delete(&System::of(s)).await?;
        let cache = self.snapshot.clone();
        tx.after_commit(move || cache.drop_it());
        Ok(())
    }
}

/// Cores and MiB that the project's quota counts for the server.
pub(crate) fn counted(s: &Server) -> (i64, i64) {
    match &s.old_flavor {
        Some(old) => (old.vcpus.max(s.flavor.vcpus), old.ram.max(s.flavor.ram)),
        None => (s.flavor.vcpus, s.flavor.ram),
    }
}
