//! Live migration (Nova API reference, "Live-Migrate Server"; docs/adr/0009, "Moving"): the decision, and what is
//! written when one begins. What follows is [`crate::jobs`]' `moving`.

use crate::Compute;
use crate::logic::actions::{check_lock, check_state};
use crate::logic::cold::filled_up;
use crate::logic::decide::Request;
use crate::logic::guest::desired;
use crate::logic::hosts::lacks_disks;
use crate::model::{ComputeService, Migration, MigrationKind, Server, Task, VmState, power};
use crate::policy::acts;
use data_encoding::HEXLOWER;
use haneul_agent_api::{Arriving, Kind, Layout, MoveKey, Object};
use haneul_auth::{Ctx, fetch};
use haneul_core::{Error, Result, fault_point};
use haneul_fleet::Host;
use haneul_store::{Grant, Query, Stored, Tx};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use uuid::Uuid;

/// Kind of the job that moves a server.
pub(crate) const MOVE: &str = "server.live-migration";
/// Kind of the one that takes a move back.
pub(crate) const MOVE_BACK: &str = "server.live-migration-back";

/// What is asked for.
#[derive(Clone, Debug)]
pub(crate) struct LiveMigration {
    /// By name; none: the scheduler chooses.
    pub host: Option<String>,
    /// Whether disks are copied; none: as is needed.
    pub block_migration: Option<bool>,
}

/// Between looking and writing another may take what was free.
const TRIES: u32 = 3;

/// Why a host cannot take over a guest that runs on another.
pub(crate) fn unfit(from: &Host, to: &Host, layout: Option<&Layout>) -> Option<String> {
    let (a, b) = (&from.hypervisor, &to.hypervisor);
    if !b.moves {
        // It would start the guest anew beside the one that runs.
        return Some(format!(
            "its agent, of release {}, takes no servers from other hosts; update it",
            to.release
        ));
    }
    if a.kind != b.kind || a.arch != b.arch {
        return Some(format!(
            "it has {} on {}, and the server runs on {} on {}",
            b.kind, b.arch, a.kind, a.arch
        ));
    }
    if a.accelerator != b.accelerator {
        return Some(format!(
            "it runs servers by {}, and the server runs by {}",
            b.accelerator, a.accelerator
        ));
    }
    if b.version < a.version {
        return Some(format!(
            "its hypervisor has version {}, and the server runs on version {}: a move goes to the same or a newer one",
            b.version, a.version
        ));
    }
    // Emulated CPUs are the same everywhere, and so are named models where the host has their features.
    if layout.is_some_and(|l| l.accelerator == "kvm" && l.cpu.starts_with("host")) {
        if a.cpu_vendor != b.cpu_vendor {
            return Some(format!(
                "its CPU is of {}, and the server's of {}",
                b.cpu_vendor, a.cpu_vendor
            ));
        }
        let has: BTreeSet<&String> = b.cpu_features.iter().collect();
        let lacks: Vec<&str> = a
            .cpu_features
            .iter()
            .filter(|f| !has.contains(f))
            .map(String::as_str)
            .collect();
        if !lacks.is_empty() {
            return Some(format!(
                "its CPU lacks {} features of the server's: {}",
                lacks.len(),
                lacks.join(", ")
            ));
        }
    }
    None
}

impl Compute {
    /// Begins it (202). Refused with what is in the way before anything is changed.
    pub(crate) async fn live_migrate(self: &Arc<Self>, ctx: &Ctx, id: &str, r: LiveMigration) -> Result<()> {
        for _ in 0..TRIES {
            let to = self.choose(ctx, id, &r).await?;
            let (app, c, id) = (self.clone(), ctx.clone(), id.to_owned());
            let begun = self
                .db
                .write(&ctx.actor(), async move |tx| {
                    let old = fetch(tx, &c, acts::LiveMigrate, &id).await?;
                    check_may_move(&c, &old)?;
                    app.move_server(tx, &old, &to).await
                })
                .await?;
            self.snapshot.drop_it();
            if begun {
                fault_point!("compute.live-migration.committed");
                return Ok(());
            }
        }
        Err(filled_up())
    }

    /// The host that the server goes to.
    async fn choose(&self, ctx: &Ctx, id: &str, r: &LiveMigration) -> Result<String> {
        let mut tx = self.db.read().await?;
        let s = fetch(&mut tx, ctx, acts::LiveMigrate, id).await?;
        check_may_move(ctx, &s)?;
        let why = match (r.block_migration, &s.shared_disks) {
            (Some(true), Some(_)) => Some(
                "Block migration can not be used with shared storage: the server's disks are in a directory that hosts share, and nothing is copied. Ask for block_migration false or auto.",
            ),
            (Some(false), None) => Some(
                "The server's disks are on its host alone and share no directory with others, so they have to be copied: ask for block_migration true or auto.",
            ),
            _ => None,
        };
        if let Some(why) = why {
            return Err(Error::field("block_migration", why));
        }
        let request = self.move_request(&mut tx, &s, r.host.as_deref()).await?;
        drop(tx);
        // Who moves servers knows the hosts.
        self.chosen(&request, true).await
    }

    /// What the scheduler is asked for to move a server away from its host.
    pub(crate) async fn move_request(&self, tx: &mut Tx, s: &Stored<Server>, host: Option<&str>) -> Result<Request> {
        let source = s.host_id.clone().unwrap_or_default();
        let hosts = self.fleet.hosts(tx).await?;
        let from = hosts.iter().find(|h| h.id == source && h.up).ok_or_else(|| {
            Error::bad_request(format!(
                "The host of server {} is not up, so the server cannot be moved. An administrator has to bring it back first.",
                s.id
            ))
        })?;
        if let Some(name) = host {
            let services = tx.list::<ComputeService>(&Query::new()).await?;
            let named = services.iter().find(|x| x.host_name == name || x.host_id == name);
            let named =
                named.ok_or_else(|| Error::field("host", format!("Compute host {name} could not be found.")))?;
            if named.host_id == source {
                return Err(Error::field(
                    "host",
                    format!("Unable to migrate instance ({}) to current host ({name}).", s.id),
                ));
            }
        }
        // Of one that does not run none is needed.
        let layout = match s.power_state {
            power::SHUTDOWN => None,
            _ => Some(self.layout(tx, s).await?),
        };
        let mut unfit_hosts = BTreeMap::new();
        for to in hosts.iter().filter(|h| h.id != source) {
            if let Some(why) = lacks_disks(s, to).or_else(|| unfit(from, to, layout.as_ref())) {
                unfit_hosts.insert(to.id.clone(), why);
            }
        }
        let mut request = self.scheduled(tx, s).await?;
        request.host = host.map(str::to_owned);
        request.avoid.push(source);
        request.unfit = unfit_hosts;
        Ok(request)
    }

    /// The machine that the server has, as its host tells.
    async fn layout(&self, tx: &mut Tx, s: &Server) -> Result<Layout> {
        let host = s.host_id.as_deref().unwrap_or_default();
        let seen = self.fleet.observed_guest(tx, host, &s.id).await?;
        let layout = seen.and_then(|o| o.layout).ok_or_else(|| {
            Error::conflict(format!(
                "The host of server {} does not tell what machine the server has: its agent is of an older release, or has not reported yet. Update it, and try again.",
                s.id
            ))
        })?;
        Ok(*layout)
    }

    /// Writes a move: claim, ports, the guest on its target, migration, job. False: the target is full by now.
    pub(crate) async fn move_server(self: &Arc<Self>, tx: &mut Tx, old: &impl Grant<Server>, to: &str) -> Result<bool> {
        let mut s = old.stored().value.clone();
        if !self.group_allows(tx, &s, to).await? {
            return Ok(false);
        }
        if !self
            .placement
            .allocate(tx, &s.id, &s.project_id, &s.user_id, to, &s.amounts())
            .await?
        {
            return Ok(false);
        }
        let m = self
            .migration_begin(tx, &s, MigrationKind::Live, Some(to), [&s.flavor, &s.flavor])
            .await?;
        let request_id = tx.actor().request_id.clone();
        s.task_state = Some(Task::Migrating);
        s.fault = None;
        s.note("live-migration", &request_id);
        let generation = self.arrives(tx, &s, to, &m.id).await?;
        let state = json!({"v": 1, "migration": m.id, "target_generation": generation, "to": to});
        self.jobs.start(tx, MOVE, ("server", &s.id), state).await?;
        tx.update(old, &s).await?;
        Ok(true)
    }

    /// Has the target make ready for the guest, as it is on its host; answers the generation of that.
    pub(crate) async fn arrives(&self, tx: &mut Tx, s: &Server, to: &str, id: &str) -> Result<i64> {
        let layout = self.layout(tx, s).await?;
        // A guest's cards are plugged when it is made ready.
        self.network.server_arrives(tx, &s.id, to).await?;
        let source = s.host_id.clone().unwrap_or_default();
        let Some((_, Object::Guest(mut guest))) = self.fleet.desired(tx, &source, Kind::Guest, &s.id).await? else {
            return Err(Error::internal("a server without a desired guest shall move"));
        };
        let nics = std::mem::take(&mut guest.nics);
        let mut there = desired(s, &[], &tx.actor().request_id.clone())?;
        there.nics = nics;
        there.metadata.admin_pass = guest.metadata.admin_pass;
        there.arriving = Some(Box::new(Arriving {
            id: Uuid::try_parse(id).map_err(Error::internal)?,
            key: MoveKey(HEXLOWER.encode(&haneul_core::id::random_bytes(32))),
            layout,
            shared_disks: s.shared_disks.is_some(),
        }));
        self.fleet.put(tx, to, &Object::Guest(Box::new(there))).await
    }

    /// What shall become of a move that is under way: an abort, or a forced end.
    pub(crate) async fn move_told(
        self: &Arc<Self>,
        ctx: &Ctx,
        server: &str,
        number: &str,
        what: MoveWish,
    ) -> Result<()> {
        let (app, c, id, number) = (self.clone(), ctx.clone(), server.to_owned(), number.to_owned());
        self.db
            .write(&ctx.actor(), async move |tx| {
                let old = match what {
                    MoveWish::Abort => fetch(tx, &c, acts::ServerMigrationDelete, &id).await?.edit(),
                    MoveWish::Force => fetch(tx, &c, acts::ServerMigrationForce, &id).await?.edit(),
                };
                let m = server_migration(tx, &id, &number).await?.ok_or_else(|| {
                    Error::not_found(format!("Migration {number} not found for instance {id}"))
                })?;
                let action = what.action();
                if old.task_state != Some(Task::Migrating) {
                    let task = old.task_state.map_or("None", Task::as_str);
                    return Err(Error::conflict(format!(
                        "Cannot '{action}' instance {id} while it is in task_state {task}"
                    )));
                }
                let source = m.host_id.clone();
                let guest = app.fleet.desired(tx, &source, Kind::Guest, &id).await?;
                let told = match guest {
                    Some((_, Object::Guest(mut g))) if m.is_under_way() => match &mut g.leaving {
                        Some(l) if l.id.to_string() == m.id => {
                            match what {
                                MoveWish::Abort => l.abort = true,
                                MoveWish::Force => l.force = true,
                            }
                            app.fleet.put(tx, &source, &Object::Guest(g)).await?;
                            true
                        }
                        _ => false,
                    },
                    _ => false,
                };
                match what {
                    _ if told => Ok(()),
                    // Nothing was sent yet: there is only something to take back.
                    MoveWish::Abort if m.is_under_way() => app.move_aborted(tx, &id).await,
                    _ => Err(Error::bad_request(format!(
                        "Migration {number} state of instance {id} is {}. Cannot {} while the migration is in this state.",
                        m.status.as_str(),
                        action
                    ))),
                }
            })
            .await
    }
}

/// See [`Compute::move_told`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MoveWish {
    Abort,
    Force,
}

impl MoveWish {
    fn action(self) -> &'static str {
        match self {
            MoveWish::Abort => "abort live migration",
            MoveWish::Force => "force_complete",
        }
    }
}

/// A live migration of a server, by its number.
pub(crate) async fn server_migration(tx: &mut Tx, server: &str, number: &str) -> Result<Option<Stored<Migration>>> {
    let Ok(number) = number.parse::<i64>() else {
        return Ok(None);
    };
    let query = Query::new().eq("server_id", server).eq("number", number);
    Ok(tx.list::<Migration>(&query).await?.pop())
}

fn check_may_move(ctx: &Ctx, s: &Server) -> Result<()> {
    check_lock(ctx, s, acts::LiveMigrate)?;
    check_state(s, "os-migrateLive", &[VmState::Active, VmState::Paused])
}
