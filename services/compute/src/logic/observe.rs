//! What hosts say: hosts that come and go, guests that change, tombstones that were carried out. All of it
//! inside the transaction that records it.

use crate::Compute;
use crate::model::{Aggregate, ComputeService, Fault, Server, VmState, power};
use haneul_agent_api::{Greeting, GuestState, Kind, ObservedGuest, PostedPassword, Power};
use haneul_core::{Error, Result, clock, id};
use haneul_fleet::{BoxFuture, Host, Observer};
use haneul_placement::Inventory;
use haneul_store::{Query, System, Tx};

impl Observer for Compute {
    fn host_up<'t>(&'t self, tx: &'t mut Tx, greeting: &'t Greeting) -> BoxFuture<'t, Result<()>> {
        Box::pin(self.host_joined(tx, greeting))
    }
    fn host_down<'t>(&'t self, tx: &'t mut Tx, _host: &'t str) -> BoxFuture<'t, Result<()>> {
        let cache = self.snapshot.clone();
        tx.after_commit(move || cache.drop_it());
        Box::pin(async { Ok(()) })
    }
    fn host_ended<'t>(&'t self, tx: &'t mut Tx, _host: &'t str) -> BoxFuture<'t, Result<()>> {
        let lost = self.lost.clone();
        tx.after_commit(move || lost.notify_one());
        Box::pin(async { Ok(()) })
    }
    fn host_leaving<'t>(&'t self, tx: &'t mut Tx, host: &'t Host) -> BoxFuture<'t, Result<()>> {
        Box::pin(self.host_left(tx, host))
    }
    fn guest<'t>(&'t self, tx: &'t mut Tx, host: &'t str, guest: &'t ObservedGuest) -> BoxFuture<'t, Result<()>> {
        Box::pin(self.guest_seen(tx, host, guest))
    }
    fn password<'t>(&'t self, tx: &'t mut Tx, host: &'t str, posted: &'t PostedPassword) -> BoxFuture<'t, Result<()>> {
        Box::pin(self.password_posted(tx, host, posted))
    }
    fn gone<'t>(&'t self, tx: &'t mut Tx, _host: &'t str, kind: Kind, id: &'t str) -> BoxFuture<'t, Result<()>> {
        Box::pin(async move {
            if kind == Kind::Guest {
                self.jobs.poke(tx, ("server", id)).await?;
            }
            Ok(())
        })
    }
}

impl Compute {
    /// A host greeted: its service, its provider and what it has.
    async fn host_joined(&self, tx: &mut Tx, g: &Greeting) -> Result<()> {
        let host = g.host_id.to_string();
        let known = tx
            .list::<ComputeService>(&Query::new().eq("host_id", host.as_str()))
            .await?
            .into_iter()
            .next();
        match known {
            None => {
                let service = ComputeService {
                    id: id::uuid(),
                    number: tx.next_number("compute.service").await?,
                    host_id: host.clone(),
                    host_name: g.host_name.clone(),
                    disabled: false,
                    disabled_reason: None,
                    forced_down: false,
                };
                tx.insert(&System::create(), &service).await?;
            }
            Some(old) if old.host_name != g.host_name => {
                let mut service = old.value.clone();
                service.host_name = g.host_name.clone();
                tx.update(&System::of(old), &service).await?;
            }
            Some(_) => {}
        }
        self.placement.provider_upsert(tx, &host, &g.host_name).await?;
        self.host_traits(tx, &host, &g.hypervisor).await?;
        let (c, have) = (&self.config, &g.inventory);
        let known = self.placement.inventories(tx, &host).await?;
        let classes = [
            (
                "VCPU",
                i64::from(have.vcpus),
                0,
                c.cpu_allocation_ratio,
                c.initial_cpu_allocation_ratio,
            ),
            (
                "MEMORY_MB",
                have.memory_mib as i64,
                c.reserved_memory_mib as i64,
                c.ram_allocation_ratio,
                c.initial_ram_allocation_ratio,
            ),
            (
                "DISK_GB",
                have.disk_gib as i64,
                c.reserved_disk_gib as i64,
                c.disk_allocation_ratio,
                c.initial_disk_allocation_ratio,
            ),
        ];
        for (class, total, reserved, always, initial) in classes {
            let known = known.get(class).map(|(i, _)| i);
            // What an operator has written into placement stays, unless the configuration speaks for all hosts.
            let ratio = always.or(known.map(|i| i.allocation_ratio)).unwrap_or(initial);
            let inventory = Inventory::new(total, reserved.min(total), ratio);
            if known != Some(&inventory) {
                self.placement.set_inventory(tx, &host, class, &inventory).await?;
            }
        }
        let cache = self.snapshot.clone();
        tx.after_commit(move || cache.drop_it());
        Ok(())
    }

    /// A host is removed: not while servers are on it; its service, its provider and its places in aggregates go.
    async fn host_left(&self, tx: &mut Tx, host: &Host) -> Result<()> {
        let on_it = Query::new().eq("host_id", host.id.as_str());
        let count = tx.count::<Server>(&on_it).await?;
        if count > 0 {
            let some = tx.list::<Server>(&on_it.limit(5)).await?;
            let names: Vec<String> = some.iter().map(|s| format!("{} ({})", s.name, s.id)).collect();
            return Err(Error::conflict(format!(
                "Host {} holds {count} servers: {}{}. `haneul host drain {}` moves them to other hosts; what cannot move must be deleted first.",
                host.name,
                names.join(", "),
                if count > 5 { " and more" } else { "" },
                host.name
            )));
        }
        for service in tx
            .list::<ComputeService>(&Query::new().eq("host_id", host.id.as_str()))
            .await?
        {
            tx.delete(&System::of(service)).await?;
        }
        for aggregate in tx.list::<Aggregate>(&Query::new()).await? {
            if aggregate.hosts.contains(&host.id) {
                let mut value = aggregate.value.clone();
                value.hosts.remove(&host.id);
                tx.update(&System::of(aggregate), &value).await?;
            }
        }
        self.placement.provider_remove(tx, &host.id).await?;
        let cache = self.snapshot.clone();
        tx.after_commit(move || cache.drop_it());
        Ok(())
    }

    /// A guest was seen. A running job decides what it means; without one, the guest's own doings count.
    async fn guest_seen(&self, tx: &mut Tx, host: &str, seen: &ObservedGuest) -> Result<()> {
        if seen.unknown {
            return Ok(());
        }
        let id = seen.id.to_string();
        if self.jobs.running(tx, ("server", &id)).await?.is_some() {
            return self.jobs.poke(tx, ("server", &id)).await;
        }
        let Some(stored) = tx.find::<Server>(&id).await? else {
            return Ok(());
        };
        if stored.host_id.as_deref() != Some(host)
            || (seen.generation as i64) < stored.desired_generation
            || !seen.settled
        {
            return Ok(());
        }
        let mut s = stored.value.clone();
        power_sync(&mut s, seen);
        if s == stored.value {
            return Ok(());
        }
        if s.wanted != stored.wanted {
            // A guest that switched itself off shall stay off, and not be started again by its host.
            self.push_guest(tx, &mut s).await?;
        }
        tx.update(&System::of(stored), &s).await?;
        Ok(())
    }
}

/// What an observation outside any job says about a server, as Nova's periodic comparison of power states.
pub(crate) fn power_sync(s: &mut Server, seen: &ObservedGuest) {
    let failed_on_host = s.vm_state == VmState::Error && s.power_state == power::CRASHED;
    match seen.state {
        GuestState::Running => {
            s.power_state = power::RUNNING;
            if failed_on_host && s.wanted == Power::Running {
                s.vm_state = VmState::Active;
                s.fault = None;
            }
        }
        GuestState::Paused => s.power_state = power::PAUSED,
        GuestState::Suspended => s.power_state = power::SUSPENDED,
        GuestState::Stopped => {
            s.power_state = power::SHUTDOWN;
            if matches!(s.vm_state, VmState::Active | VmState::Paused) && s.wanted != Power::Stopped {
                s.vm_state = VmState::Stopped;
                s.wanted = Power::Stopped;
            }
        }
        GuestState::Failed => {
            if !failed_on_host && s.vm_state != VmState::Error {
                let (message, details) = seen.failure.as_ref().map_or_else(
                    || ("The guest failed on its host.".to_owned(), String::new()),
                    |f| (f.message.clone(), f.detail.clone()),
                );
                s.fail(Fault {
                    code: 500,
                    message,
                    details,
                    created: clock::now(),
                });
            }
            s.power_state = power::CRASHED;
        }
        GuestState::Building | GuestState::Gone => {}
    }
}
