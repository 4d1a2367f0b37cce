//! A server on its way to another host (docs/adr/0009, "Moving"), and its way back when that fails.
//!
//! The server is the source's until a host says that it was handed over; the same transaction gives it to the target. A
//! move that fails takes the target's guest away first, and only when nothing of it is left there, or the source knows that
//! it never let go, or the target is lost and has been fenced, does the source have it for good: at no instant may two hosts
//! run it. Once it was handed over, only the target's word that it never ran there sends it back as it was: for no time-out is
//! a guest put back to the memory of before. After the loss of the target it starts anew, from the disks that both reach.
//!
//! A server that moves stopped ([`crate::logic::cold`]) goes the same way, with two steps before, in which its guest is
//! stopped and gets a process that never runs, and one behind, in which it is started on the target. Once that is asked for,
//! nothing is left on the source, and nothing goes back by itself.

use super::{of_failure, seen_now};
use crate::Compute;
use crate::logic::cold::{COLD, Cold};
use crate::logic::moving::{MOVE, MOVE_BACK};
use crate::model::{Fault, Migration, MigrationStatus, Server, Task, VmState};
use haneul_agent_api::{
    Guest, GuestState, Kind as Object, Leaving, MoveAddress, MoveState, Object as Desired, ObservedGuest, Power,
};
use haneul_core::{Error, Result};
use haneul_jobs::{BoxFuture, Job, Next, Saga, Step};
use haneul_store::{System, Tx};
use std::sync::Arc;
use uuid::Uuid;

const HALT: &str = "halt";
const HOLD: &str = "hold";
const PREPARE: &str = "prepare";
const SEND: &str = "send";
const FINISH: &str = "finish";
const LAND: &str = "land";
const AWAIT_GONE: &str = "await-gone";
const RESTORE: &str = "restore";
/// A host that is away may take a day to come back before it is given up.
const AWAIT_HOST_S: u64 = 24 * 3600;
/// In a job's state: the target was handed the guest, and may have run it.
const STARTED: &str = "started";

/// Both ways.
pub(super) fn all(app: &Arc<Compute>) -> Vec<Arc<dyn Saga>> {
    let step = |name, deadline_s| Step { name, deadline_s };
    let c = &app.config;
    // Once per process: the deadlines come from the configuration.
    let there = Box::leak(Box::new([
        step(PREPARE, c.build_timeout_s),
        step(SEND, c.live_migration_timeout_s),
        step(FINISH, AWAIT_HOST_S),
    ]));
    let cold = Box::leak(Box::new([
        step(HALT, c.action_timeout_s),
        step(HOLD, c.build_timeout_s),
        step(PREPARE, c.build_timeout_s),
        step(SEND, c.live_migration_timeout_s),
        step(FINISH, AWAIT_HOST_S),
        step(LAND, c.build_timeout_s),
    ]));
    let back = Box::leak(Box::new([
        step(AWAIT_GONE, AWAIT_HOST_S),
        step(RESTORE, c.action_timeout_s),
    ]));
    vec![
        Arc::new(There {
            app: app.clone(),
            kind: MOVE,
            steps: there,
        }),
        Arc::new(There {
            app: app.clone(),
            kind: COLD,
            steps: cold,
        }),
        Arc::new(Back {
            app: app.clone(),
            steps: back,
        }),
    ]
}

struct There {
    app: Arc<Compute>,
    kind: &'static str,
    steps: &'static [Step],
}

struct Back {
    app: Arc<Compute>,
    steps: &'static [Step],
}

/// A move with all that both hosts say of it.
struct Moving {
    migration: Migration,
    /// This attempt, by which both hosts call it.
    id: String,
    from: String,
    to: String,
    cold: Option<Cold>,
    source: Option<ObservedGuest>,
    target: Option<ObservedGuest>,
}

async fn moving(app: &Compute, tx: &mut Tx, job: &Job) -> Result<Moving> {
    let of = |name: &str| {
        job.state
            .get(name)
            .and_then(|v| v.as_str())
            .unwrap_or_default()
            .to_owned()
    };
    let migration = tx
        .find::<Migration>(&of("migration"))
        .await?
        .ok_or_else(|| Error::internal("a move without its migration"))?
        .value;
    let or = |text: String, other: &str| if text.is_empty() { other.to_owned() } else { text };
    let (id, from, to) = (
        or(of("move"), &migration.id),
        or(of("from"), &migration.host_id),
        of("to"),
    );
    let cold = job.state.get("cold").cloned().map(serde_json::from_value).transpose()?;
    let least = job.state.get("target_generation").and_then(|v| v.as_u64()).unwrap_or(0);
    let seen = app.fleet.observed_guest(tx, &to, &job.subject_id).await?;
    let target = seen.filter(|o| o.epoch >= app.fleet.epoch() && o.generation >= least);
    let source = app.fleet.observed_guest(tx, &from, &job.subject_id).await?;
    Ok(Moving {
        migration,
        id,
        from,
        to,
        cold,
        source,
        target,
    })
}

impl Moving {
    fn state<'a>(&self, seen: &'a Option<ObservedGuest>) -> Option<&'a MoveState> {
        let m = seen.as_ref()?.moving.as_ref()?;
        (m.id.to_string() == self.id).then_some(&m.state)
    }
    fn on_source(&self) -> Option<&MoveState> {
        self.state(&self.source)
    }
    fn on_target(&self) -> Option<&MoveState> {
        self.state(&self.target)
    }
    /// Why the target cannot take it.
    fn refused(&self) -> Option<Error> {
        if let Some(MoveState::Failed(f)) = self.on_target() {
            return Some(of_failure(f));
        }
        let seen = self.target.as_ref()?;
        let failure = seen.failure.as_ref().filter(|_| seen.settled)?;
        Some(of_failure(failure))
    }
}

/// What the source is told: where the guest goes.
fn leave(app: &Compute, m: &Moving, there: &Guest, mut guest: Guest, to: MoveAddress) -> Result<Guest> {
    let arriving = there
        .arriving
        .as_ref()
        .ok_or_else(|| Error::internal("the target expects nobody"))?;
    let before = guest.leaving.take();
    guest.leaving = Some(Box::new(Leaving {
        id: Uuid::try_parse(&m.id).map_err(Error::internal)?,
        key: arriving.key.clone(),
        to,
        shared_disks: arriving.shared_disks,
        downtime_ms: app.config.live_migration_downtime_ms,
        abort: before.as_ref().is_some_and(|l| l.abort),
        force: before.as_ref().is_some_and(|l| l.force),
    }));
    Ok(guest)
}

async fn guest_on(app: &Compute, tx: &mut Tx, host: &str, id: &str) -> Result<Option<Guest>> {
    Ok(match app.fleet.desired(tx, host, Object::Guest, id).await? {
        Some((_, Desired::Guest(g))) => Some(*g),
        _ => None,
    })
}

impl There {
    /// Tells the source where the target listens; also when that has changed.
    async fn tell_source(&self, tx: &mut Tx, m: &Moving, id: &str, at: MoveAddress) -> Result<()> {
        let (source, to) = (&m.from, &m.to);
        let there = guest_on(&self.app, tx, to, id).await?;
        let here = guest_on(&self.app, tx, source, id).await?;
        let (Some(there), Some(here)) = (there, here) else {
            return Err(Error::internal("a guest that moves is not on both hosts"));
        };
        let guest = leave(&self.app, m, &there, here, at)?;
        self.app.fleet.put(tx, source, &Desired::Guest(Box::new(guest))).await?;
        Ok(())
    }

    /// The guest is the target's from now on.
    async fn hand_over(&self, tx: &mut Tx, m: &Moving, job: &Job) -> Result<()> {
        let Some(stored) = tx.find::<Server>(&job.subject_id).await? else {
            return Ok(());
        };
        let mut s = stored.value.clone();
        s.host_id = Some(m.to.clone());
        s.desired_generation = job.state.get("target_generation").and_then(|v| v.as_i64()).unwrap_or(0);
        self.app.network.server_moved(tx, &s.id, &m.to).await?;
        tx.update(&System::of(stored), &s).await?;
        Ok(())
    }

    async fn finished(&self, tx: &mut Tx, m: &Moving, job: &Job) -> Result<()> {
        let Some(stored) = tx.find::<Server>(&job.subject_id).await? else {
            return Ok(());
        };
        let mut s = stored.value.clone();
        s.task_state = None;
        if let Some(seen) = &m.target {
            crate::logic::observe::power_sync(&mut s, seen);
        }
        self.app.fleet.remove(tx, &m.from, Object::Guest, &s.id).await?;
        self.app.placement.release(tx, &s.id, Some(&m.from)).await?;
        // The key's life ends.
        self.app.push_guest(tx, &mut s).await?;
        tx.update(&System::of(stored), &s).await?;
        self.app
            .migration_change(tx, &m.migration.id, |m| m.status = MigrationStatus::Completed)
            .await?;
        let cache = self.app.snapshot.clone();
        tx.after_commit(move || cache.drop_it());
        Ok(())
    }
}

/// What a server that moves stopped does beside.
impl There {
    /// The steps before: its guest is stopped, then it gets a process that never runs.
    async fn made_ready(&self, tx: &mut Tx, m: &Moving, job: &mut Job) -> Result<Next> {
        let Some(stored) = tx.find::<Server>(&job.subject_id).await? else {
            return Ok(Next::Done);
        };
        let Some(seen) = seen_now(&self.app, tx, &m.from, &stored).await? else {
            job.progress = super::progress(None);
            return Ok(Next::Wait);
        };
        if seen.state == GuestState::Failed || (seen.settled && seen.failure.is_some()) {
            return Ok(Next::Fail(super::failure(&seen)));
        }
        let mut s = stored.value.clone();
        let next = match (job.step.as_str(), seen.state) {
            (HALT, GuestState::Stopped) if seen.settled => {
                s.wanted = Power::Paused;
                self.app.push_guest(tx, &mut s).await?;
                HOLD
            }
            (HOLD, GuestState::Paused) if seen.settled => {
                let generation = self.app.arrives(tx, &s, &m.to, &m.id).await?;
                if let Some(state) = job.state.as_object_mut() {
                    state.insert("target_generation".into(), generation.into());
                }
                PREPARE
            }
            _ => {
                job.progress = super::progress(Some(&seen));
                return Ok(Next::Wait);
            }
        };
        tx.update(&System::of(stored), &s).await?;
        Ok(Next::Go(next))
    }

    /// All of it is on the target: there it is started anew, as what it shall be. The source lets go.
    async fn lands(&self, tx: &mut Tx, m: &Moving, cold: &Cold, job: &Job) -> Result<Next> {
        let Some(stored) = tx.find::<Server>(&job.subject_id).await? else {
            return Ok(Next::Done);
        };
        let mut s = stored.value.clone();
        s.swap_flavors();
        s.old_host_id = Some(m.from.clone());
        s.wanted = cold.wanted;
        if s.wanted == Power::Running {
            s.hard_reboots += 1;
        }
        self.app.fleet.remove(tx, &m.from, Object::Guest, &s.id).await?;
        // Written as nothing that is under way: it comes from nowhere any more.
        let task = s.task_state.take();
        self.app.push_guest(tx, &mut s).await?;
        s.task_state = match task {
            Some(Task::ResizeMigrating) => Some(Task::ResizeFinish),
            other => other,
        };
        tx.update(&System::of(stored), &s).await?;
        Ok(Next::Go(LAND))
    }

    /// It is there, and is what it was.
    async fn landed(&self, tx: &mut Tx, m: &Moving, cold: &Cold, job: &mut Job) -> Result<Next> {
        let Some(stored) = tx.find::<Server>(&job.subject_id).await? else {
            return Ok(Next::Done);
        };
        let Some(seen) = seen_now(&self.app, tx, &m.to, &stored).await?.filter(|o| o.settled) else {
            job.progress = super::progress(None);
            return Ok(Next::Wait);
        };
        if seen.state == GuestState::Failed || seen.failure.is_some() {
            return Ok(Next::Fail(super::failure(&seen)));
        }
        let mut s = stored.value.clone();
        let status = if cold.reverts {
            MigrationStatus::Reverted
        } else if cold.confirmed {
            MigrationStatus::Confirmed
        } else {
            MigrationStatus::Finished
        };
        if cold.reverts || cold.confirmed {
            self.app.drop_other_flavor(tx, &mut s).await?;
            self.app.drop_other_host(tx, &mut s).await?;
        }
        s.settle_as_wanted();
        if status == MigrationStatus::Finished {
            s.vm_state = VmState::Resized;
        }
        tx.update(&System::of(stored), &s).await?;
        self.app
            .migration_change(tx, &m.migration.id, |m| m.status = status)
            .await?;
        Ok(Next::Done)
    }

    /// It cannot be started where it is now. Its disks are there, and nowhere else.
    async fn crashed(&self, tx: &mut Tx, m: &Moving, job: &Job, cause: &Error) -> Result<()> {
        let Some(stored) = tx.find::<Server>(&job.subject_id).await? else {
            return Ok(());
        };
        let mut s = stored.value.clone();
        self.app.drop_other_flavor(tx, &mut s).await?;
        self.app.drop_other_host(tx, &mut s).await?;
        s.fail(Fault::of(cause));
        tx.update(&System::of(stored), &s).await?;
        let failed = |m: &mut Migration| m.status = MigrationStatus::Error;
        self.app.migration_change(tx, &m.migration.id, failed).await
    }
}

impl Saga for There {
    fn kind(&self) -> &'static str {
        self.kind
    }
    fn steps(&self) -> &'static [Step] {
        self.steps
    }
    fn act<'t>(&'t self, tx: &'t mut Tx, job: &'t mut Job) -> BoxFuture<'t, Result<Next>> {
        Box::pin(async move {
            let m = moving(&self.app, tx, job).await?;
            let id = job.subject_id.clone();
            if let Some(cold) = m.cold.clone() {
                match (job.step.as_str(), m.on_target()) {
                    (HALT | HOLD, _) => return self.made_ready(tx, &m, job).await,
                    (FINISH, Some(MoveState::Arrived)) => return self.lands(tx, &m, &cold, job).await,
                    (LAND, _) => return self.landed(tx, &m, &cold, job).await,
                    _ => {}
                }
            }
            match (job.step.as_str(), m.on_source(), m.on_target()) {
                (PREPARE, _, Some(MoveState::Listening(at))) => {
                    self.tell_source(tx, &m, &id, *at).await?;
                    if m.cold.is_none() {
                        let running = |m: &mut Migration| m.status = MigrationStatus::Running;
                        self.app.migration_change(tx, &m.migration.id, running).await?;
                    }
                    Ok(Next::Go(SEND))
                }
                (SEND, Some(MoveState::HandedOver), _) | (SEND, _, Some(MoveState::Arrived)) => {
                    self.hand_over(tx, &m, job).await?;
                    Ok(Next::Go(FINISH))
                }
                (FINISH, _, Some(MoveState::Arrived)) => {
                    self.finished(tx, &m, job).await?;
                    Ok(Next::Done)
                }
                (FINISH, _, Some(MoveState::Failed(f))) => Ok(Next::Fail(of_failure(f))),
                (FINISH, _, _) => {
                    job.progress =
                        "waiting for the new host, which has the server, to say that it goes on there".into();
                    Ok(Next::Wait)
                }
                (_, Some(MoveState::Failed(f)), _) => Ok(Next::Fail(of_failure(f))),
                (_, _, _) if m.refused().is_some() => Ok(Next::Fail(
                    m.refused().unwrap_or_else(|| Error::internal("the target refused")),
                )),
                (SEND, Some(MoveState::Lost), Some(MoveState::Listening(_))) => Ok(Next::Fail(Error::unavailable(
                    "The server's process ended while the server was moved.",
                ))),
                (SEND, seen, there) => {
                    if let Some(MoveState::Listening(at)) = there {
                        // Its agent may have come back with another address.
                        self.tell_source(tx, &m, &id, *at).await?;
                    }
                    if let Some(MoveState::Moving(p)) = seen {
                        let p = *p;
                        self.app
                            .migration_change(tx, &m.migration.id, |m| m.progress = p)
                            .await?;
                        job.progress = format!("moving ({} %)", p.percent());
                    } else if let Some(f) = m.source.as_ref().filter(|o| o.settled).and_then(|o| o.failure.as_ref()) {
                        return Ok(Next::Fail(of_failure(f)));
                    }
                    Ok(Next::Wait)
                }
                _ => {
                    job.progress = super::progress(m.target.as_ref());
                    Ok(Next::Wait)
                }
            }
        })
    }
    fn undo<'t>(
        &'t self,
        _tx: &'t mut Tx,
        _job: &'t mut Job,
        _step: &'static str,
        _cause: &'t Error,
    ) -> BoxFuture<'t, Result<()>> {
        // It has to wait for hosts: a job of its own does it.
        Box::pin(async { Ok(()) })
    }
    fn failed<'t>(&'t self, tx: &'t mut Tx, job: &'t mut Job, cause: &'t Error) -> BoxFuture<'t, Result<()>> {
        Box::pin(async move {
            if job.step == LAND {
                let m = moving(&self.app, tx, job).await?;
                return self.crashed(tx, &m, job, cause).await;
            }
            self.app.move_back(tx, job, cause).await
        })
    }
}

impl Compute {
    /// A move is aborted before anything was sent.
    pub(crate) async fn move_aborted(self: &Arc<Self>, tx: &mut Tx, server: &str) -> Result<()> {
        let Some(job) = self
            .jobs
            .running(tx, ("server", server))
            .await?
            .filter(|j| j.kind == MOVE)
        else {
            return Ok(());
        };
        let cause = Error::conflict("The live migration was aborted.");
        self.move_back(tx, &job, &cause).await
    }

    /// The source of a move is lost, and runs nothing any more: what the target has made ready goes, and then the server starts
    /// elsewhere as one that did not move. Or the target is, after the server was handed over to it: the source has it again.
    pub(crate) async fn move_lost(self: &Arc<Self>, tx: &mut Tx, server: &str, host: &str) -> Result<()> {
        let job = self.jobs.running(tx, ("server", server)).await?;
        let Some(job) = job.filter(|j| [MOVE, COLD].contains(&j.kind.as_str())) else {
            return Ok(());
        };
        let m = moving(self, tx, &job).await?;
        let had = m.from == host || (m.to == host && job.step == FINISH);
        if !had || matches!(m.on_target(), Some(MoveState::Arrived)) {
            return Ok(());
        }
        let cause = Error::unavailable("The server's host was lost while the server was on its way to another.");
        self.move_back(tx, &job, &cause).await
    }

    /// Begins the way back.
    async fn move_back(self: &Arc<Self>, tx: &mut Tx, job: &Job, cause: &Error) -> Result<()> {
        let m = moving(self, tx, job).await?;
        let Some(stored) = tx.find::<Server>(&job.subject_id).await? else {
            return Ok(());
        };
        let (id, source) = (job.subject_id.as_str(), &m.from);
        let mut s = stored.value.clone();
        if s.host_id.as_ref() != Some(source) {
            s.host_id = Some(source.clone());
            self.network.server_moved(tx, id, source).await?;
            tx.update(&System::of(stored), &s).await?;
        } else {
            self.network.server_stays(tx, id).await?;
        }
        self.fleet.remove(tx, &m.to, Object::Guest, id).await?;
        if let Some(mut guest) = guest_on(self, tx, source, id).await?
            && let Some(leaving) = &mut guest.leaving
        {
            leaving.abort = true;
            self.fleet.put(tx, source, &Desired::Guest(Box::new(guest))).await?;
        }
        let fault = Fault::of(cause);
        self.migration_change(tx, &m.migration.id, |m| m.fault = Some(fault))
            .await?;
        self.jobs.supersede(tx, ("server", id)).await?;
        // All that was to be: which hosts, and what the server was before.
        let mut state = job.state.clone();
        if job.step == FINISH && !matches!(m.on_target(), Some(MoveState::Failed(_))) {
            state[STARTED] = true.into();
        }
        self.jobs.start(tx, MOVE_BACK, ("server", id), state).await?;
        // The target may have nothing of it.
        self.jobs.poke(tx, ("server", id)).await
    }
}

impl Back {
    /// The server is its source's, and nothing is done to it any more.
    async fn settled(&self, tx: &mut Tx, m: &Moving, job: &Job, fault: Option<Fault>) -> Result<()> {
        // A resize that could not be reverted waits as before, and keeps its place.
        let waits = m.cold.as_ref().is_some_and(|c| c.reverts);
        if !waits {
            self.app.placement.release(tx, &job.subject_id, Some(&m.to)).await?;
        }
        let aborted = m
            .migration
            .fault
            .as_ref()
            .is_some_and(|f| f.message.contains("aborted"));
        let status = match aborted {
            _ if waits => MigrationStatus::Finished,
            true => MigrationStatus::Cancelled,
            false => MigrationStatus::Error,
        };
        self.app
            .migration_change(tx, &m.migration.id, |m| m.status = status)
            .await?;
        if let Some(stored) = tx.find::<Server>(&job.subject_id).await? {
            let mut s = stored.value.clone();
            s.task_state = None;
            if m.cold.is_some() {
                s.fault.clone_from(&m.migration.fault);
            }
            if let Some(fault) = fault {
                s.fail(fault);
            }
            tx.update(&System::of(stored), &s).await?;
        }
        let cache = self.app.snapshot.clone();
        tx.after_commit(move || cache.drop_it());
        Ok(())
    }
}

impl Saga for Back {
    fn kind(&self) -> &'static str {
        MOVE_BACK
    }
    fn steps(&self) -> &'static [Step] {
        self.steps
    }
    fn act<'t>(&'t self, tx: &'t mut Tx, job: &'t mut Job) -> BoxFuture<'t, Result<Next>> {
        Box::pin(async move {
            let m = moving(&self.app, tx, job).await?;
            let Some(stored) = tx.find::<Server>(&job.subject_id).await? else {
                return Ok(Next::Done);
            };
            let source = &m.from;
            if job.step == AWAIT_GONE {
                let left = self
                    .app
                    .fleet
                    .is_left(tx, &m.to, Object::Guest, &job.subject_id)
                    .await?;
                let guest = guest_on(&self.app, tx, source, &job.subject_id).await?;
                let never_told = guest.is_some_and(|g| g.leaving.is_none());
                let kept = never_told || matches!(m.on_source(), Some(MoveState::Failed(_)));
                let shared = stored.shared_disks.is_some();
                if left && !kept && !(shared && self.app.fleet.has_ended(tx, &m.to).await?) {
                    job.progress = "waiting for the other host to let go of the guest".into();
                    return Ok(Next::Wait);
                }
                let mut s = stored.value.clone();
                if let Some(cold) = &m.cold {
                    s.wanted = cold.wanted;
                    if !cold.reverts {
                        self.app.drop_other_flavor(tx, &mut s).await?;
                    }
                }
                if shared && job.state.get(STARTED).is_some() {
                    // What its process knows of the disks may not be true any more.
                    s.hard_reboots += 1;
                }
                // Written as nothing that is under way: the source leaves no more.
                let task = s.task_state.take();
                self.app.push_guest(tx, &mut s).await?;
                s.task_state = task;
                tx.update(&System::of(stored), &s).await?;
                return Ok(Next::Go(RESTORE));
            }
            if stored.shared_disks.is_some() && self.app.fleet.has_ended(tx, source).await? {
                // It is lost. The server has come to rest, and may start elsewhere.
                self.settled(tx, &m, job, None).await?;
                let lost = self.app.lost.clone();
                tx.after_commit(move || lost.notify_one());
                return Ok(Next::Done);
            }
            let Some(seen) = seen_now(&self.app, tx, source, &stored).await? else {
                job.progress = "waiting for the host".into();
                return Ok(Next::Wait);
            };
            if !seen.settled {
                job.progress = super::progress(Some(&seen));
                return Ok(Next::Wait);
            }
            let fault = seen.failure.as_ref().map(|f| Fault::of(&of_failure(f)));
            self.settled(tx, &m, job, fault).await?;
            Ok(Next::Done)
        })
    }
    fn undo<'t>(
        &'t self,
        _tx: &'t mut Tx,
        _job: &'t mut Job,
        _step: &'static str,
        _cause: &'t Error,
    ) -> BoxFuture<'t, Result<()>> {
        // It is itself what takes back.
        Box::pin(async { Ok(()) })
    }
    fn failed<'t>(&'t self, tx: &'t mut Tx, job: &'t mut Job, cause: &'t Error) -> BoxFuture<'t, Result<()>> {
        Box::pin(async move {
            let m = moving(&self.app, tx, job).await?;
            self.settled(tx, &m, job, Some(Fault::of(cause))).await
        })
    }
}
