//! resize: another flavor, on the host that the server is on, or on another one where that has no room (Nova API reference,
//! "Resize Server").
//!
//! Until it is confirmed or reverted the server holds the larger of both flavors in every class, so that
//! going back always fits.

use super::{HostAction, check_lock, check_state, memory};
use crate::Compute;
use crate::logic::cold::{ColdMove, filled_up};
use crate::logic::create_server::find_flavor;
use crate::logic::decide::{CLASSES, Stock};
use crate::logic::delete_server::counted;
use crate::model::{Fault, FlavorShot, MigrationKind, MigrationStatus, Server, Task, VmState, power};
use crate::policy::acts;
use haneul_agent_api::{GuestState, ObservedGuest, Power};
use haneul_auth::{Ctx, fetch};
use haneul_core::{Error, Result, fault_point};
use haneul_jobs::{BoxFuture, Job};
use haneul_store::Tx;
use std::sync::Arc;

/// See the module.
pub(crate) struct Resize;

/// Code of the error that means: not on the host that it is on.
const NO_ROOM: &str = "no-room";
/// Between looking and writing another may take what was free.
const TRIES: u32 = 3;

/// The flavor that is asked for, if the server can be resized to it.
async fn new_flavor(tx: &mut Tx, ctx: &Ctx, s: &Server, flavor: &str) -> Result<FlavorShot> {
    check_lock(ctx, s, acts::Resize)?;
    check_state(s, "resize", &[VmState::Active, VmState::Stopped])?;
    let to = FlavorShot::from(&find_flavor(tx, ctx, flavor).await?);
    let refuse = |why: String| {
        Err(Error::field(
            "flavorRef",
            format!("Server disk was unable to be resized because: {why}"),
        ))
    };
    if to == s.flavor {
        return Err(Error::field(
            "flavorRef",
            "When resizing, instances must change flavor!",
        ));
    }
    if to.disk == 0 && s.flavor.disk != 0 {
        return refuse(format!(
            "Resize to zero disk flavor is not allowed, and {} has no disk.",
            to.name
        ));
    }
    let gib = s.image.gib();
    if to.root_gib(gib) < s.flavor.root_gib(gib) {
        return refuse(format!(
            "it has {} GiB and the flavor {} gives {}; a disk only grows.",
            s.flavor.root_gib(gib),
            to.name,
            to.root_gib(gib)
        ));
    }
    if to.ephemeral < s.flavor.ephemeral {
        return refuse(format!(
            "its ephemeral disk has {} GiB and the flavor {} gives {}; a disk only grows.",
            s.flavor.ephemeral, to.name, to.ephemeral
        ));
    }
    Ok(to)
}

impl Compute {
    /// Begins it (202): on the server's host, which costs no copy, or where there is room.
    pub(crate) async fn resize_server(
        self: &Arc<Self>,
        ctx: &Ctx,
        id: &str,
        flavor: &str,
        auto_disk_config: Option<bool>,
    ) -> Result<()> {
        match self.resize_here(ctx, id, flavor, auto_disk_config).await {
            Err(e) if e.code() == NO_ROOM => {
                self.resize_elsewhere(ctx, id, flavor, auto_disk_config, e.public())
                    .await
            }
            done => done,
        }
    }

    async fn resize_here(
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
                let to = new_flavor(tx, &c, &old, &flavor).await?;
                let mut s = old.edit();
                let before = memory(&s);
                s.old_flavor = Some(s.change_flavor(to));
                s.auto_disk_config = auto_disk_config.unwrap_or(s.auto_disk_config);
                let (cores, ram) = counted(&s);
                app.quota_change(tx, s.owner(), 0, cores - old.flavor.vcpus, ram - old.flavor.ram)
                    .await?;
                app.claim_growth(tx, &s, &old.amounts()).await?;
                app.begin::<Resize>(tx, &mut s, Task::ResizePrep, before).await?;
                app.migration_begin(tx, &s, MigrationKind::Resize, None, [&old.flavor, &s.flavor])
                    .await?;
                tx.update(&old, &s).await?;
                Ok(())
            })
            .await?;
        fault_point!("compute.resize.committed");
        Ok(())
    }

    /// `here`: why it cannot be on the server's host.
    async fn resize_elsewhere(
        self: &Arc<Self>,
        ctx: &Ctx,
        id: &str,
        flavor: &str,
        auto_disk_config: Option<bool>,
        here: &str,
    ) -> Result<()> {
        let refused = |e: Error| Error::field("flavorRef", format!("{here} Elsewhere: {}", e.public()));
        for _ in 0..TRIES {
            let (request, to) = {
                let mut tx = self.db.read().await?;
                let s = fetch(&mut tx, ctx, acts::Resize, id).await?;
                let to = new_flavor(&mut tx, ctx, &s, flavor).await?;
                let mut request = self.move_request(&mut tx, &s, None).await.map_err(refused)?;
                request.amounts = to.amounts(s.image.gib()).map(|(_, n)| n);
                request.extra_specs.clone_from(&to.extra_specs);
                (request, to)
            };
            let host = self.chosen(&request, false).await.map_err(refused)?;
            let (app, c, id) = (self.clone(), ctx.clone(), id.to_owned());
            let (flavor, auto) = (flavor.to_owned(), auto_disk_config);
            let begun = self
                .db
                .write(&ctx.actor(), async move |tx| {
                    let old = fetch(tx, &c, acts::Resize, &id).await?;
                    if new_flavor(tx, &c, &old, &flavor).await? != to {
                        return Ok(false);
                    }
                    let how = ColdMove {
                        to: &host,
                        flavor: Some(to.clone()),
                        auto_disk_config: auto,
                        confirmed: false,
                    };
                    app.cold_begin(tx, &old, how).await
                })
                .await?;
            self.snapshot.drop_it();
            if begun {
                fault_point!("compute.resize.committed");
                return Ok(());
            }
        }
        Err(filled_up())
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
        )
        .with_code(NO_ROOM))
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
            if s.old_flavor.is_some() {
                s.swap_flavors();
                app.drop_other_flavor(tx, s).await?;
                app.push_guest(tx, s).await?;
            }
            s.power_state = power::NOSTATE;
            s.fail(fault.clone());
            app.migration_is(tx, &s.id, MigrationStatus::Error).await
        })
    }
}
