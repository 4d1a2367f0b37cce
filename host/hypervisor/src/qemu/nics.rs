//! Network cards that come and go while a guest runs.
//!
//! The record names a card from before it is plugged until after it is gone, so that it never names less than QEMU has:
//! whoever was cut off in between, the next apply compares record, QEMU and what is desired, and goes on from there.

use super::args::{self, NicFd};
use super::live::{Live, Run};
use super::qmp::QmpError;
use super::record::{Device, Record};
use super::{Entry, Inner, hypervisor_error, internal};
use crate::Resources;
use haneul_agent_api::{Failure, FailureCode, Guest, Nic};
use haneul_core::fault_point;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use uuid::Uuid;

const QMP_DEADLINE: Duration = Duration::from_secs(3);
/// A guest has so long to let go of a card. It does so in some 0.2 s, unless it is still booting.
const UNPLUG_DEADLINE: Duration = Duration::from_secs(60);
/// QEMU forgets a request that the guest has not answered after 5 s; then it may be made again.
const ASK_AGAIN: Duration = Duration::from_secs(6);

/// Whether a running guest lacks cards that it shall have.
pub(crate) fn lacks(record: &Record, desired: &Guest) -> bool {
    let has: HashSet<Uuid> = record.devices.iter().filter_map(|d| d.port).collect();
    desired.nics.iter().any(|n| !has.contains(&n.port_id))
}

/// Slots for the cards of a guest that is about to start: the one it had, or else the lowest free one.
pub(crate) fn slots(before: &[Device], nics: &[Nic]) -> Vec<u8> {
    let had = |n: &Nic| {
        let card = before.iter().find(|d| d.port == Some(n.port_id))?;
        (card.slot >= args::SLOT_NIC).then_some(card.slot)
    };
    let mut taken: HashSet<u8> = nics.iter().filter_map(had).collect();
    nics.iter()
        .map(|n| had(n).unwrap_or_else(|| free_slot(&mut taken)))
        .collect()
}

/// The lowest free slot, which is taken from now on. There are as many as a guest may have cards.
fn free_slot(taken: &mut HashSet<u8>) -> u8 {
    let slot = (args::SLOT_NIC..32).find(|s| !taken.contains(s)).unwrap_or(31);
    taken.insert(slot);
    slot
}

impl Inner {
    /// Brings the cards of a running guest to what is desired.
    pub(crate) async fn fit_nics(
        &self,
        entry: &Arc<Entry>,
        live: &Live,
        desired: &Guest,
        resources: &Resources,
    ) -> Result<(), Failure> {
        let recorded = |entry: &Entry| -> Vec<Device> {
            let all = entry.record().map(|r| r.devices).unwrap_or_default();
            all.into_iter().filter(|d| d.port.is_some()).collect()
        };
        let cards = recorded(entry);
        let wanted = |d: &Device| desired.nics.iter().any(|n| Some(n.port_id) == d.port);
        if cards.is_empty() && desired.nics.is_empty() {
            return Ok(());
        }
        let plugged = peripherals(live).await?;
        for card in cards.iter().filter(|c| !wanted(c)) {
            self.unplug(entry, live, card).await?;
        }
        for nic in &desired.nics {
            let card = cards.iter().find(|c| c.port == Some(nic.port_id));
            if !card.is_some_and(|c| plugged.contains(&c.id)) {
                let slot = card.map(|c| c.slot).unwrap_or_else(|| {
                    let mut taken = recorded(entry).iter().map(|d| d.slot).collect();
                    free_slot(&mut taken)
                });
                self.plug(entry, live, nic, slot, resources).await?;
            }
        }
        Ok(())
    }

    async fn plug(
        &self,
        entry: &Arc<Entry>,
        live: &Live,
        nic: &Nic,
        slot: u8,
        resources: &Resources,
    ) -> Result<(), Failure> {
        let tap = (resources.taps)(nic.port_id)?;
        let card = NicFd {
            fd: -1,
            port: nic.port_id,
            mac: nic.mac.clone(),
            mtu: nic.mtu,
            slot,
        };
        let device = args::nic_device(&card);
        let known = device.clone();
        self.save(entry, move |r| {
            r.devices.retain(|d| d.port != known.port);
            r.devices.push(known);
        })
        .await?;
        fault_point!("hypervisor.qemu.nic-recorded", internal("fault point"));
        let backend = args::netdev_id(slot);
        // Left by one who was cut off between the two.
        let _ = live.execute("netdev_del", json!({"id": backend}), QMP_DEADLINE).await;
        let done = async {
            let name = json!({"fdname": backend});
            live.execute_with("getfd", name, Some(tap), QMP_DEADLINE).await?;
            let netdev = json!({"type": "tap", "id": backend, "fd": backend, "vhost": false});
            live.execute("netdev_add", netdev, QMP_DEADLINE).await?;
            fault_point!("hypervisor.qemu.netdev-added", QmpError::Closed);
            live.execute("device_add", args::nic_model(&card), QMP_DEADLINE).await
        };
        let Err(e) = done.await else {
            fault_point!("hypervisor.qemu.nic-plugged", internal("fault point"));
            return Ok(());
        };
        let _ = live.execute("netdev_del", json!({"id": backend}), QMP_DEADLINE).await;
        self.save(entry, |r| r.devices.retain(|d| d.port != device.port))
            .await?;
        Err(hypervisor_error("the hypervisor refused to plug the network card", e))
    }

    async fn unplug(&self, entry: &Arc<Entry>, live: &Live, card: &Device) -> Result<(), Failure> {
        let end = Instant::now() + UNPLUG_DEADLINE;
        loop {
            let before = live.deletions();
            if !peripherals(live).await?.contains(&card.id) {
                break;
            }
            if live.run() != Run::Running {
                return Err(busy("the server is paused and cannot let go of its network card"));
            }
            // It may have been asked already.
            match live.execute("device_del", json!({"id": card.id}), QMP_DEADLINE).await {
                Ok(_) | Err(QmpError::Refused { .. }) => {}
                Err(e) => {
                    return Err(hypervisor_error("the hypervisor refused to unplug the network card", e));
                }
            }
            let left = end.saturating_duration_since(Instant::now());
            let gone = |s: &super::live::State| s.gone || s.deletions != before;
            if !live.until(left.min(ASK_AGAIN), gone).await && Instant::now() >= end {
                return Err(busy("the server did not let go of its network card"));
            }
        }
        fault_point!("hypervisor.qemu.nic-unplugged", internal("fault point"));
        let backend = args::netdev_id(card.slot);
        // Gone already when somebody was cut off here.
        let _ = live.execute("netdev_del", json!({"id": backend}), QMP_DEADLINE).await;
        self.save(entry, |r| r.devices.retain(|d| d.port != card.port)).await
    }
}

fn busy(message: &str) -> Failure {
    Failure {
        code: FailureCode::HypervisorError,
        message: format!("{message}; its system must be up for that"),
        detail: String::new(),
    }
}

/// Ids of the devices that QEMU has.
async fn peripherals(live: &Live) -> Result<HashSet<String>, Failure> {
    let list = live
        .execute("qom-list", json!({"path": "/machine/peripheral"}), QMP_DEADLINE)
        .await
        .map_err(|e| hypervisor_error("the hypervisor does not tell its devices", e))?;
    let names = list.as_array().into_iter().flatten();
    Ok(names
        .filter_map(|d| d.get("name").and_then(Value::as_str))
        .map(str::to_owned)
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A card stays where the guest saw it, whatever became of the others.
    #[test]
    fn cards_keep_their_slots() {
        let nic = |n: u128| Nic {
            port_id: Uuid::from_u128(n),
            mac: String::new(),
            mtu: 1500,
        };
        assert_eq!(slots(&[], &[nic(1), nic(2), nic(3)]), [7, 8, 9]);
        let card = |n: u128, slot: u8| {
            args::nic_device(&NicFd {
                fd: -1,
                port: Uuid::from_u128(n),
                mac: String::new(),
                mtu: 1500,
                slot,
            })
        };
        let before = [card(1, 7), card(2, 8), card(3, 9)];
        assert_eq!(slots(&before, &[nic(3), nic(4), nic(1), nic(5)]), [9, 8, 7, 10]);
    }
}
