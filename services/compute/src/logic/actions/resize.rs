//! resize: another flavor, on the host that the server is on (Nova API reference, "Resize Server").
//!
//! Until it is confirmed or reverted the server holds the larger of both flavors in every class, so that
//! going back always fits.

use super::{HostAction, check_lock, check_state, memory};
use crate::Compute;
use crate::logic::create_server::find_flavor;
use crate::logic::decide::{CLASSES, Stock};
use crate::logic::delete_server::counted;
use crate::model::{Fault, FlavorShot, MigrationStatus, Server, Task, VmState, power};
use crate::policy::acts;
use haneul_agent_api::{GuestState, ObservedGuest, Power};
use haneul_auth::{Ctx, fetch};
use haneul_core::{Error, Result, fault_point};
use haneul_jobs::{BoxFuture, Job};
use haneul_store::Tx;
use std::sync::Arc;

/// See the module.
pub(crate) struct Resize;

impl Compute {
    /// Begins it (202).
    pub(crate) async fn resize_server(
        self: &Arc<Self>,
        ctx: &Ctx,
        id: &str,
        flavor: &str,
        auto_disk_config: Option<bool>,
    ) -> Result<()> {
        let (app, c, id, flavor) = (self.clone(), ctx.clone(), id.to_owned(), flavor.to_owned());
        self.db
            .write(&ctx.actor(), async move |tx| {
                let old = fetch(tx, &c, acts::Resize, &id).await?;
                check_lock(&c, &old, acts::Resize)?;
                check_state(&old, "resize", &[VmState::Active, VmState::Stopped])?;
                let to = FlavorShot::from(&find_flavor(tx, &c, &flavor).await?);
                if to == old.flavor {
                    return Err(Error::field("flavorRef", "When resizing, instances must change flavor!"));
                }
                if to.disk == 0 && old.flavor.disk != 0 {
                    return Err(Error::field(
                        "flavorRef",
                        format!(
                            "Server disk was unable to be resized because: Resize to zero disk flavor is not allowed, and {} has no disk.",
                            to.name
                        ),
                    ));
                }
                let gib = old.image.gib();
                if to.root_gib(gib) < old.flavor.root_gib(gib) {
                    return Err(Error::field(
                        "flavorRef",
                        format!(
                            "Server disk was unable to be resized because: it has {} GiB and the flavor {} gives {}; a disk only grows.",
                            old.flavor.root_gib(gib), to.name, to.root_gib(gib)
                        ),
                    ));
                }
                if to.ephemeral < old.flavor.ephemeral {
                    return Err(Error::field(
                        "flavorRef",
                        format!(
                            "Server disk was unable to be resized because: its ephemeral disk has {} GiB and the flavor {} gives {}; a disk only grows.",
                            old.flavor.ephemeral, to.name, to.ephemeral
                        ),
                    ));
                }
                let mut s = old.edit();
                let before = memory(&s);
                s.old_flavor = Some(std::mem::replace(&mut s.flavor, to));
                s.auto_disk_config = auto_disk_config.unwrap_or(s.auto_disk_config);
                let (cores, ram) = counted(&s);
                app.quota_change(tx, s.owner(), 0, cores - old.flavor.vcpus, ram - old.flavor.ram).await?;
                app.claim_growth(tx, &s, &old.amounts()).await?;
                app.begin::<Resize>(tx, &mut s, Task::ResizePrep, before).await?;
                app.migration_begin(tx, &s, &old.flavor).await?;
                tx.update(&old, &s).await?;
                Ok(())
            })
            .await?;
        fault_point!("compute.resize.committed");
        Ok(())
    }

    /// Claims what the new flavor has more of, or refuses with numbers.
    async fn claim_growth(&self, tx: &mut Tx, s: &Server, held: &[(&'static str, i64); 3]) -> Result<()> {
        let Some(host) = s.host_id.as_deref() else {
            return Ok(());
        };
        let mut more = s.amounts();
        for (m, (_, h)) in more.iter_mut().zip(held) {
            m.1 = (m.1 - h).max(0);
        }
        let have = self.placement.inventories(tx, host).await?;
        // One server never gets more than the host has, whatever is overcommitted.
        let too_large = s
            .amounts()
            .iter()
            .any(|(class, n)| have.get(*class).is_some_and(|(i, _)| *n > i.max_unit));
        if !too_large
            && self
                .placement
                .allocate(tx, &s.id, &s.project_id, &s.user_id, host, &more)
                .await?
        {
            return Ok(());
        }
        let lacks: Vec<String> = CLASSES
            .iter()
            .zip(more.iter().zip(s.amounts()))
            .filter_map(|(class, ((_, n), (_, whole)))| {
                let (i, used) = have.get(*class)?;
                let stock = Stock {
                    total: i.total,
                    reserved: i.reserved,
                    ratio: i.allocation_ratio,
                    used: *used,
                    max_unit: i.max_unit,
                };
                let free = stock.free().min(i.max_unit - (whole - n));
                (*n > free).then(|| format!("{class} (needed {n} more, free {free})"))
            })
            .collect();
        Err(Error::field(
            "flavorRef",
            format!(
                "No valid host was found. The host of the server has too little {}. A smaller flavor, or other servers deleted or moved away, would make it fit.",
                lacks.join(", ")
            ),
        ))
    }

    /// The server holds just this flavor from now on; the quota counts it.
    pub(crate) async fn drop_other_flavor(&self, tx: &mut Tx, s: &mut Server) -> Result<()> {
        let (cores, ram) = counted(s);
        s.old_flavor = None;
        if let Some(host) = s.host_id.as_deref() {
            self.placement.reduce(tx, &s.id, host, &s.amounts()).await?;
        }
        self.quota_change(tx, s.owner(), 0, s.flavor.vcpus - cores, s.flavor.ram - ram)
            .await
    }
}

impl HostAction for Resize {
    const KIND: &'static str = "server.resize";
    fn met(s: &Server, seen: &ObservedGuest) -> bool {
        match s.wanted {
            Power::Stopped => seen.state == GuestState::Stopped,
            _ => seen.state == GuestState::Running,
        }
    }
    fn done<'t>(
        app: &'t Compute,
        tx: &'t mut Tx,
        s: &'t mut Server,
        _job: &'t Job,
        _seen: &'t ObservedGuest,
    ) -> BoxFuture<'t, Result<()>> {
        s.settle_as_wanted();
        s.vm_state = VmState::Resized;
        Box::pin(app.migration_is(tx, &s.id, MigrationStatus::Finished))
    }
    /// The old flavor again, on the host and in the books.
    fn undo<'t>(
        app: &'t Compute,
        tx: &'t mut Tx,
        s: &'t mut Server,
        _job: &'t Job,
        fault: &'t Fault,
    ) -> BoxFuture<'t, Result<()>> {
        Box::pin(async move {
            if let Some(old) = s.old_flavor.take() {
                s.old_flavor = Some(std::mem::replace(&mut s.flavor, old));
                app.drop_other_flavor(tx, s).await?;
                app.push_guest(tx, s).await?;
            }
            s.power_state = power::NOSTATE;
            s.fail(fault.clone());
            app.migration_is(tx, &s.id, MigrationStatus::Error).await
        })
    }
}
