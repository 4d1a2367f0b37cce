//! When a lost host's guests may start elsewhere (docs/adr/0009, "Fencing").
//!
//! Control decides nothing by its own silence or a clock: a host that shares the lost one's disks watches its beats, ends
//! its lease, and says when it has ended. Only then may anything of it that is reachable elsewhere be started there. A host
//! that comes back gets another grant, behind the tombstones of whatever was started elsewhere.

use crate::Fleet;
use crate::host::Host;
use haneul_agent_api::{Fence, FenceState, Kind, Lease, Object, ObservedFence};
use haneul_core::clock::{self, Micros};
use haneul_core::{Error, Result, fault_point};
use haneul_store::{Actor, Query, Resource, Stored, System, Tx, V};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// Between looks for hosts that are down.
const LOOK: Duration = Duration::from_secs(1);

/// What is done about a host that is down. It goes when the host is back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HostFence {
    /// The host.
    pub id: String,
    pub name: String,
    /// The grant that ends.
    pub token: u64,
    /// The host that watches it; none is there while nobody else who is up has its disks.
    pub watcher: Option<String>,
    /// Its supervisor was told to end its guests on shared disks.
    pub at_once: bool,
    /// Its lease has ended: what others can reach of it may start there.
    pub ended: bool,
    /// What was last said of it.
    pub said: Option<FenceState>,
    pub since: Micros,
}

impl Resource for HostFence {
    const KIND: &'static str = "host-fence";
    const TABLE: &'static str = "host_fence";
    const COLUMNS: &'static [&'static str] = &["ended"];
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
        vec![self.ended.into()]
    }
}

/// How patient the cloud is with its hosts.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// A host that was down for so long is watched.
    pub lost_after: Duration,
    /// Whether the guests of a host end there when its supervisor lives, but neither it nor its agent reaches control.
    pub end_cut_off: bool,
}

impl Fleet {
    /// Watches over the hosts that are down, for ever.
    pub async fn watch_over_hosts(self: Arc<Self>, patience: Patience) {
        let _ = self.patience.set(patience);
        // By this process' own time: whoever takes over waits anew.
        let mut down = HashMap::new();
        loop {
            tokio::time::sleep(LOOK).await;
            if let Err(e) = self.look_for_lost(&mut down, patience.lost_after).await {
                tracing::error!(error = %e, "hosts that are down could not be looked at");
            }
        }
    }

    async fn look_for_lost(self: &Arc<Self>, down: &mut HashMap<String, Instant>, after: Duration) -> Result<()> {
        let mut tx = self.db.read().await?;
        let hosts = tx.list::<Host>(&Query::new().eq("up", false)).await?;
        let lost: Vec<&Host> = hosts.iter().map(|h| &h.value).filter(|h| h.lease > 0).collect();
        down.retain(|id, _| lost.iter().any(|h| h.id == *id));
        let mut due = Vec::new();
        for host in lost {
            let since = *down.entry(host.id.clone()).or_insert_with(Instant::now);
            if since.elapsed() >= after && !self.is_watched(&mut tx, &host.id).await? {
                due.push(host.id.clone());
            }
        }
        drop(tx);
        for id in due {
            let fleet = self.clone();
            self.db
                .write(&Actor::system("fencing"), async move |tx| {
                    fleet.watch_host(tx, &id, false).await
                })
                .await?;
        }
        Ok(())
    }

    /// Whether somebody who is up watches it, or nobody needs to any more.
    async fn is_watched(&self, tx: &mut Tx, id: &str) -> Result<bool> {
        let Some(f) = tx.find::<HostFence>(id).await? else {
            return Ok(false);
        };
        if f.ended && !f.at_once {
            return Ok(true);
        }
        match &f.watcher {
            None => Ok(f.ended),
            Some(w) => Ok(self.host(tx, w).await?.is_some_and(|h| h.up)),
        }
    }

    /// Has a host that is down watched by one that shares its disks. `at_once`: what runs there shall end, whatever is
    /// known of it.
    async fn watch_host(self: &Arc<Self>, tx: &mut Tx, id: &str, at_once: bool) -> Result<()> {
        let Some(host) = self.host(tx, id).await?.filter(|h| !h.up) else {
            return Ok(());
        };
        let old = tx.find::<HostFence>(id).await?;
        let mut fence = old.as_ref().map_or_else(
            || HostFence {
                id: host.id.clone(),
                name: host.name.clone(),
                token: host.lease,
                watcher: None,
                at_once,
                ended: false,
                said: None,
                since: clock::now(),
            },
            |old| old.value.clone(),
        );
        fence.at_once |= at_once;
        let watcher = self.hosts(tx).await?.into_iter().find(|h| {
            h.up && h.id != host.id
                && h.hypervisor
                    .shared_disks
                    .is_some_and(|m| Some(m) == host.hypervisor.shared_disks)
        });
        let watcher = watcher.map(|h| h.id);
        if fence.watcher != watcher {
            if let Some(before) = fence.watcher.take() {
                self.remove(tx, &before, Kind::Fence, id).await?;
            }
            fence.said = None;
            fence.watcher = watcher;
        }
        self.tell_watcher(tx, &fence).await?;
        fault_point!("fleet.host.watched");
        match old {
            Some(old) if old.value == fence => Ok(()),
            Some(old) => tx.update(&System::of(old), &fence).await.map(|_| ()),
            None => tx.insert(&System::create(), &fence).await.map(|_| ()),
        }
    }

    async fn tell_watcher(self: &Arc<Self>, tx: &mut Tx, fence: &HostFence) -> Result<()> {
        let Some(watcher) = &fence.watcher else { return Ok(()) };
        let object = Object::Fence(Fence {
            id: Uuid::try_parse(&fence.id).map_err(Error::internal)?,
            token: fence.token,
            at_once: fence.at_once,
        });
        self.put(tx, watcher, &object).await.map(|_| ())
    }

    /// A watching host says what it sees.
    pub(crate) async fn fence_seen(self: &Arc<Self>, tx: &mut Tx, watcher: &str, seen: &ObservedFence) -> Result<()> {
        let Some(old) = tx.find::<HostFence>(&seen.id.to_string()).await? else {
            return Ok(());
        };
        // Of another grant, or of one who watched before: it says nothing of now.
        if old.watcher.as_deref() != Some(watcher) || old.token != seen.token || old.ended {
            return Ok(());
        }
        let mut fence = old.value.clone();
        fence.said = Some(seen.state.clone());
        fence.ended = seen.state == FenceState::Ended;
        let patience = self.patience.get();
        if matches!(seen.state, FenceState::Alive { cut: true, .. }) && patience.is_some_and(|p| p.end_cut_off) {
            fence.at_once = true;
        }
        if fence == old.value {
            return Ok(());
        }
        self.tell_watcher(tx, &fence).await?;
        let ended = fence.ended;
        tx.update(&System::of(old), &fence).await?;
        if ended {
            self.tell_ended(tx, &fence).await?;
        }
        Ok(())
    }

    async fn tell_ended(&self, tx: &mut Tx, fence: &HostFence) -> Result<()> {
        tracing::warn!(host = fence.id, name = fence.name, "the lease of a host has ended");
        for o in self.observers() {
            o.host_ended(tx, &fence.id).await?;
        }
        fault_point!("fleet.host.ended");
        Ok(())
    }

    /// An operator says that a host that is down does not run: what is on it may start elsewhere, and where it shares
    /// disks, its lease ends.
    pub async fn declare_ended(self: &Arc<Self>, tx: &mut Tx, id: &str) -> Result<()> {
        self.watch_host(tx, id, true).await?;
        let Some(old) = tx.find::<HostFence>(id).await?.filter(|f| !f.ended) else {
            return Ok(());
        };
        let fence = HostFence {
            ended: true,
            ..old.value.clone()
        };
        tx.update(&System::of(old), &fence).await?;
        self.tell_ended(tx, &fence).await
    }

    /// What is done about a host that is down.
    pub async fn fence(&self, tx: &mut Tx, host: &str) -> Result<Option<HostFence>> {
        Ok(tx.find::<HostFence>(host).await?.map(|f| f.value))
    }

    /// Whether nothing on disks that others reach runs on this host any more.
    pub async fn has_ended(&self, tx: &mut Tx, host: &str) -> Result<bool> {
        Ok(self.fence(tx, host).await?.is_some_and(|f| f.ended))
    }

    /// Hosts whose lease has ended: nothing on disks that others reach runs there.
    pub async fn ended_hosts(&self, tx: &mut Tx) -> Result<Vec<HostFence>> {
        let all = tx.list::<HostFence>(&Query::new().eq("ended", true)).await?;
        Ok(all.into_iter().map(|f| f.value).collect())
    }

    /// The host is back: it gets its lease, another one than what others may have ended meanwhile.
    pub(crate) async fn grant(self: &Arc<Self>, tx: &mut Tx, host: &mut Host, before: u64) -> Result<()> {
        host.lease = before;
        let fence = tx.find::<HostFence>(&host.id).await?;
        if host.hypervisor.shared_disks.is_some() && (before == 0 || fence.is_some()) {
            // A restored control plane has a higher epoch: its grants are newer than any before.
            let number = tx.next_number("fleet.lease").await? as u64;
            host.lease = (self.epoch << 32) + number;
        }
        if let Some(fence) = fence {
            self.unwatch(tx, fence).await?;
        }
        if host.lease > 0 {
            let id = Uuid::try_parse(&host.id).map_err(Error::internal)?;
            let lease = Object::Lease(Lease { id, token: host.lease });
            self.put(tx, &host.id, &lease).await?;
        }
        Ok(())
    }

    /// The host is removed from the cloud.
    pub(crate) async fn forget_fence(self: &Arc<Self>, tx: &mut Tx, host: &str) -> Result<()> {
        match tx.find::<HostFence>(host).await? {
            Some(fence) => self.unwatch(tx, fence).await,
            None => Ok(()),
        }
    }

    /// Nobody needs to watch the host any more.
    async fn unwatch(self: &Arc<Self>, tx: &mut Tx, fence: Stored<HostFence>) -> Result<()> {
        if let Some(watcher) = &fence.watcher {
            self.remove(tx, watcher, Kind::Fence, &fence.id).await?;
        }
        tx.delete(&System::of(fence)).await?;
        Ok(())
    }
}
