//! Moving a server that is stopped for it, alone (`migrate`) or to another flavor (a resize that its host has no room
//! for): the decision, and what is written when one begins. What follows is [`crate::jobs`]' `moving`.
//!
//! The guest is stopped; then a process of it that never runs goes to the other host by the way of a live migration, with
//! its disks where they are not shared; there it is started anew. Until it is confirmed or reverted the server holds its
//! place on both hosts.

use crate::Compute;
use crate::logic::actions::{check_lock, check_state};
use crate::logic::decide::Request;
use crate::logic::delete_server::counted;
use crate::model::{FlavorShot, MigrationKind, Server, Task, VmState};
use crate::policy::{self, acts};
use haneul_agent_api::Power;
use haneul_auth::{Ctx, Secured, fetch};
use haneul_core::{Error, Result, fault_point, id};
use haneul_store::{Grant, Tx};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Kind of the job that moves a stopped server.
pub(crate) const COLD: &str = "server.migrate";
/// Between looking and writing another may take what was free.
const TRIES: u32 = 3;

/// What the job of such a move remembers beside what every move does.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Cold {
    /// What the power shall be again.
    pub wanted: Power,
    /// It is confirmed by itself.
    pub confirmed: bool,
    /// It is the way back of one before.
    pub reverts: bool,
}

/// What a move that begins is about.
pub(crate) struct ColdMove<'a> {
    pub to: &'a str,
    /// Another flavor.
    pub flavor: Option<FlavorShot>,
    pub auto_disk_config: Option<bool>,
    pub confirmed: bool,
}

impl Compute {
    /// `migrate`: begins it (202).
    pub(crate) async fn migrate_server(self: &Arc<Self>, ctx: &Ctx, id: &str, host: Option<String>) -> Result<()> {
        for _ in 0..TRIES {
            let request = {
                let mut tx = self.db.read().await?;
                let s = fetch(&mut tx, ctx, acts::Migrate, id).await?;
                if host.is_some() {
                    ctx.enforce(policy::MIGRATE_TO_HOST, &s.target())?;
                }
                check_migrate(ctx, &s)?;
                self.move_request(&mut tx, &s, host.as_deref()).await?
            };
            let to = self.chosen(&request, true).await?;
            let (app, c, id) = (self.clone(), ctx.clone(), id.to_owned());
            let begun = self
                .db
                .write(&ctx.actor(), async move |tx| {
                    let old = fetch(tx, &c, acts::Migrate, &id).await?;
                    check_migrate(&c, &old)?;
                    let how = ColdMove {
                        to: &to,
                        flavor: None,
                        auto_disk_config: None,
                        confirmed: false,
                    };
                    app.cold_begin(tx, &old, how).await
                })
                .await?;
            self.snapshot.drop_it();
            if begun {
                fault_point!("compute.migrate.committed");
                return Ok(());
            }
        }
        Err(filled_up())
    }

    /// The host for a request; the refusal names hosts for those who may know them.
    pub(crate) async fn chosen(&self, request: &Request, knows_hosts: bool) -> Result<String> {
        match self.decide(request).await? {
            Ok(plan) => {
                let first = plan.hosts.into_iter().next();
                first.ok_or_else(|| Error::internal("a plan without a host"))
            }
            Err(refusal) => {
                let details = if knows_hosts { refusal.details() } else { String::new() };
                let why = format!("{} {details}", refusal.message(request));
                Err(Error::bad_request(why.trim().to_owned()))
            }
        }
    }

    /// Writes it: claims, quota, the guest's stop, migration, job. False: the target is full by now.
    pub(crate) async fn cold_begin(
        self: &Arc<Self>,
        tx: &mut Tx,
        old: &impl Grant<Server>,
        how: ColdMove<'_>,
    ) -> Result<bool> {
        let mut s = old.stored().value.clone();
        let there = how.flavor.as_ref().unwrap_or(&s.flavor);
        let amounts = there.amounts(s.image.gib());
        if !self.group_allows(tx, &s, how.to).await?
            || !self
                .placement
                .allocate(tx, &s.id, &s.project_id, &s.user_id, how.to, &amounts)
                .await?
        {
            return Ok(false);
        }
        let kind = match how.flavor {
            Some(_) => MigrationKind::Resize,
            None => MigrationKind::Cold,
        };
        let m = self
            .migration_begin(tx, &s, kind, Some(how.to), [&s.flavor, there])
            .await?;
        let before = counted(&s);
        s.auto_disk_config = how.auto_disk_config.unwrap_or(s.auto_disk_config);
        s.old_flavor = how.flavor;
        let (cores, ram) = counted(&s);
        self.quota_change(tx, s.owner(), 0, cores - before.0, ram - before.1)
            .await?;
        s.note(
            if kind == MigrationKind::Cold {
                "migrate"
            } else {
                "resize"
            },
            &tx.actor().request_id.clone(),
        );
        let from = s.host_id.clone().unwrap_or_default();
        let cold = Cold {
            wanted: s.wanted,
            confirmed: how.confirmed,
            reverts: false,
        };
        self.cold_go(tx, &mut s, Task::ResizeMigrating, &m.id, [&from, how.to], &cold)
            .await?;
        tx.update(old, &s).await?;
        Ok(true)
    }

    /// Stops the guest and starts the job, from one host to the other.
    pub(crate) async fn cold_go(
        self: &Arc<Self>,
        tx: &mut Tx,
        s: &mut Server,
        task: Task,
        migration: &str,
        [from, to]: [&str; 2],
        cold: &Cold,
    ) -> Result<()> {
        s.task_state = Some(task);
        s.fault = None;
        s.wanted = Power::Stopped;
        self.push_guest(tx, s).await?;
        let state = serde_json::json!({
            "v": 1, "migration": migration, "move": id::uuid(), "from": from, "to": to, "cold": cold,
        });
        self.jobs.start(tx, COLD, ("server", &s.id), state).await?;
        Ok(())
    }

    /// The server stays where it is: its place on the other host is given up.
    pub(crate) async fn drop_other_host(&self, tx: &mut Tx, s: &mut Server) -> Result<()> {
        let Some(other) = s.old_host_id.take() else {
            return Ok(());
        };
        if s.host_id.as_ref() != Some(&other) {
            self.placement.release(tx, &s.id, Some(&other)).await?;
        }
        let cache = self.snapshot.clone();
        tx.after_commit(move || cache.drop_it());
        Ok(())
    }
}

pub(crate) fn filled_up() -> Error {
    Error::conflict("The hosts filled up while one was chosen. Try again.")
}

fn check_migrate(ctx: &Ctx, s: &Server) -> Result<()> {
    check_lock(ctx, s, acts::Migrate)?;
    check_state(s, "migrate", &[VmState::Active, VmState::Stopped])
}
