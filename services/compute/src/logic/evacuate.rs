//! Servers of a host that is lost start on others (Nova API reference, "Evacuate Server"; docs/adr/0009, "Fencing").
//!
//! By themselves those do whose disks other hosts reach, as soon as the fleet says that the lost host's lease has ended;
//! an operator's word that the host is off counts as well. A server whose disks were that host's own is made anew from its
//! image, and only when somebody asks for it.

use crate::Compute;
use crate::logic::actions::rebuild::Rebuild;
use crate::logic::actions::{HostAction, check_lock, memory};
use crate::logic::decide::{CLASSES, Request, Snapshot, decide};
use crate::logic::guest::start_order;
use crate::logic::hosts::lacks_disks;
use crate::logic::moving::MOVE_BACK;
use crate::model::{ComputeService, Fault, MigrationKind, MigrationStatus, Server, Task, VmState, power};
use crate::policy::acts;
use haneul_agent_api::{Kind, ObservedGuest, Power, START_ORDER};
use haneul_auth::{Ctx, fetch};
use haneul_core::{Error, Result, config, fault_point};
use haneul_fleet::{BoxFuture, Host, HostFence};
use haneul_jobs::Job;
use haneul_store::{Actor, Grant, Query, Stored, System, Tx};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Servers for which no host was found are tried again so often: a host may have come up, or become emptier.
const AGAIN: Duration = Duration::from_secs(5);

/// See the module.
pub(crate) struct Evacuate;

/// What is asked for by hand.
#[derive(Clone, Debug)]
pub(crate) struct Evacuation {
    /// By name; none: the scheduler chooses.
    pub host: Option<String>,
    /// Whether the caller takes its disks for shared (before 2.14).
    pub shared: Option<bool>,
    /// It stays off there (since 2.95).
    pub stop: bool,
}

/// A server that stays on a lost host, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stranded {
    pub id: String,
    pub name: String,
    pub why: String,
}

impl Compute {
    /// Starts the servers of lost hosts elsewhere, for ever.
    pub async fn evacuate_lost_hosts(self: Arc<Self>) {
        loop {
            let told = self.lost.notified();
            let left = match self.evacuate_all().await {
                Ok(left) => left,
                Err(e) => {
                    tracing::error!(error = %e, "the servers of lost hosts could not be looked at");
                    true
                }
            };
            if left {
                let _ = tokio::time::timeout(AGAIN, told).await;
            } else {
                told.await;
            }
        }
    }

    /// One round over all lost hosts; true when servers are left there.
    async fn evacuate_all(self: &Arc<Self>) -> Result<bool> {
        let mut tx = self.db.read().await?;
        let ended = self.fleet.ended_hosts(&mut tx).await?;
        let mut all = Vec::new();
        for fence in &ended {
            let mut servers = tx
                .list::<Server>(&Query::new().eq("host_id", fence.id.as_str()))
                .await?;
            servers.sort_by_key(in_order);
            all.extend(servers.into_iter().map(|s| (fence, s)));
        }
        let coming = self.coming_back(&mut tx, &ended).await?;
        drop(tx);
        let mut left = !coming.is_empty();
        for id in &coming {
            self.poke_server(id).await?;
        }
        for (fence, s) in all {
            let id = s.id.clone();
            match self.leave_lost(fence, s).await {
                Ok(done) => left |= !done,
                // The others need not wait for it.
                Err(e) => {
                    tracing::error!(error = %e, server = id, "a server of a lost host could not be looked at");
                    left = true;
                }
            }
        }
        Ok(left)
    }

    /// Does for a server of a lost host what can be done now; true when that is all.
    async fn leave_lost(self: &Arc<Self>, fence: &HostFence, mut s: Stored<Server>) -> Result<bool> {
        if s.shared_disks.is_none() {
            if let Err(why) = check_by_itself(&s) {
                self.strand(&s.id, &fence.id, why).await?;
            }
            return Ok(true);
        }
        match s.task_state {
            // Nobody has to wait for the host: another one may do it.
            Some(Task::Deleting) => return self.poke_server(&s.id).await.map(|()| false),
            Some(task) if task.moves() => {
                let (app, id, host) = (self.clone(), s.id.clone(), fence.id.clone());
                let lost = async move |tx: &mut Tx| app.move_lost(tx, &id, &host).await;
                return self.db.write(&Actor::system("evacuate"), lost).await.map(|()| false);
            }
            _ => {}
        }
        if s.vm_state == VmState::Resized && check_by_itself(&s).is_ok() {
            s = match self.keep_resized(&s.id, &fence.id).await? {
                Some(kept) => kept,
                None => return Ok(true),
            };
        }
        if check_by_itself(&s).is_err() {
            // What is under way there fails with its host, and sooner or later by its deadline.
            return Ok(false);
        }
        match self.evacuate_by_itself(fence, &s).await {
            Ok(done) => Ok(done),
            Err(e) => self.strand(&s.id, &fence.id, e).await.map(|()| false),
        }
    }

    /// Servers on shared disks that come back from one of these hosts to where they moved from: nobody has to wait for it.
    async fn coming_back(&self, tx: &mut Tx, ended: &[HostFence]) -> Result<Vec<String>> {
        let mut out = Vec::new();
        if ended.is_empty() {
            return Ok(out);
        }
        for s in tx.list::<Server>(&Query::new().ne("task_state", "")).await? {
            if s.shared_disks.is_none() || !s.task_state.is_some_and(Task::moves) {
                continue;
            }
            let job = self.jobs.running(tx, ("server", &s.id)).await?;
            let from = job.filter(|j| j.kind == MOVE_BACK).map(|j| j.state["to"].clone());
            if from.is_some_and(|from| ended.iter().any(|f| from == f.id)) {
                out.push(s.id.clone());
            }
        }
        Ok(out)
    }

    /// Lets the server's job look again.
    async fn poke_server(&self, id: &str) -> Result<()> {
        let (jobs, id) = (self.jobs.clone(), id.to_owned());
        let poke = async move |tx: &mut Tx| jobs.poke(tx, ("server", &id)).await;
        self.db.write(&Actor::system("evacuate"), poke).await
    }

    /// Losing the host of a server that waits to be confirmed confirms it: it starts elsewhere as what it is now, for the way
    /// back began on that host.
    async fn keep_resized(self: &Arc<Self>, id: &str, host: &str) -> Result<Option<Stored<Server>>> {
        let (app, id, host) = (self.clone(), id.to_owned(), host.to_owned());
        self.db
            .write(&Actor::system("evacuate"), async move |tx| {
                let Some(old) = tx.find::<Server>(&id).await? else {
                    return Ok(None);
                };
                let waits = old.vm_state == VmState::Resized && old.task_state.is_none();
                if waits && old.host_id.as_ref() == Some(&host) {
                    let mut s = old.value.clone();
                    app.confirm(tx, &mut s).await?;
                    tx.update(&System::of(old), &s).await?;
                }
                tx.find::<Server>(&id).await
            })
            .await
    }

    async fn evacuate_by_itself(self: &Arc<Self>, fence: &HostFence, s: &Server) -> Result<bool> {
        let mut tx = self.db.read().await?;
        let request = self.elsewhere(&mut tx, s, &fence.id, None).await?;
        drop(tx);
        let to = self.find_place(&request).await?;
        let (app, id, from) = (self.clone(), s.id.clone(), fence.id.clone());
        let done = self
            .db
            .write(&Actor::system("evacuate"), async move |tx| {
                let Some(old) = tx.find::<Server>(&id).await? else {
                    return Ok(true);
                };
                if old.host_id.as_ref() != Some(&from) || check_by_itself(&old).is_err() {
                    return Ok(true);
                }
                if old.vm_state == VmState::Resized {
                    return Ok(false);
                }
                app.evacuate_to(tx, &System::of(old), &to, false).await
            })
            .await?;
        fault_point!("compute.evacuate.committed");
        // What was decided is counted already: a host with many servers is read about once.
        if !done {
            self.snapshot.drop_it();
        }
        Ok(done)
    }

    /// What keeps it where it is is the server's fault, for its owner to read; written once. It does not run: ERROR until it
    /// is started elsewhere, or its host is back.
    async fn strand(self: &Arc<Self>, id: &str, host: &str, why: Error) -> Result<()> {
        let (id, host) = (id.to_owned(), host.to_owned());
        let why = Error::new(
            why.kind(),
            format!(
                "The server's host is lost, and it was not started elsewhere: {}",
                why.public()
            ),
        )
        .with_private(why.private());
        let fault = Fault::of(&why);
        self.db
            .write(&Actor::system("evacuate"), async move |tx| {
                let Some(old) = tx.find::<Server>(&id).await? else {
                    return Ok(());
                };
                let said = old.fault.as_ref().is_some_and(|f| f.message == fault.message);
                if said || old.host_id.as_ref() != Some(&host) {
                    return Ok(());
                }
                let mut s = old.value.clone();
                match s.vm_state {
                    VmState::Active | VmState::Paused => {
                        s.fail(fault.clone());
                        s.power_state = power::CRASHED;
                    }
                    _ => s.fault = Some(fault.clone()),
                }
                tx.update(&System::of(old), &s).await.map(|_| ())
            })
            .await
    }

    /// Evacuates a server by hand (200).
    pub(crate) async fn evacuate_server(self: &Arc<Self>, ctx: &Ctx, id: &str, r: Evacuation) -> Result<()> {
        let mut tx = self.db.read().await?;
        let s = fetch(&mut tx, ctx, acts::Evacuate, id).await?;
        check_lock(ctx, &s, acts::Evacuate)?;
        if let Some(said) = r.shared.filter(|said| *said != s.shared_disks.is_some()) {
            let is = match said {
                true => "on its host alone, and it would be made anew from its image",
                false => "in a directory that hosts share, and stay as they are",
            };
            return Err(Error::field(
                "onSharedStorage",
                format!("onSharedStorage is {said}, and the server's disks are {is}."),
            ));
        }
        let from = self.check_lost(&mut tx, &s).await?;
        let request = self.elsewhere(&mut tx, &s, &from, r.host.as_deref()).await?;
        drop(tx);
        let to = self.find_place(&request).await?;
        let (app, c, id) = (self.clone(), ctx.clone(), id.to_owned());
        let done = self
            .db
            .write(&ctx.actor(), async move |tx| {
                let old = fetch(tx, &c, acts::Evacuate, &id).await?;
                check_lock(&c, &old, acts::Evacuate)?;
                app.check_lost(tx, &old).await?;
                app.evacuate_to(tx, &old, &to, r.stop).await
            })
            .await?;
        self.snapshot.drop_it();
        match done {
            true => Ok(()),
            false => Err(Error::conflict("The host filled up while it was chosen. Try again.")),
        }
    }

    /// Refuses a server that runs, or may run, where it is. Answers its host.
    async fn check_lost(&self, tx: &mut Tx, s: &Server) -> Result<String> {
        check_may_leave(s)?;
        if s.vm_state == VmState::Resized {
            return Err(busy(s, "vm_state resized: confirm its resize first"));
        }
        let from = s.host_id.clone().unwrap_or_default();
        let host = self.fleet.host(tx, &from).await?;
        let name = host.as_ref().map_or(from.as_str(), |h| h.name.as_str()).to_owned();
        if host.is_some_and(|h| h.up) {
            return Err(Error::bad_request(format!(
                "Compute service of {name} is still in use: its agent is connected. `haneul host drain {name}` moves its servers while they run."
            )));
        }
        let fence = self.fleet.fence(tx, &from).await?;
        if fence.as_ref().is_some_and(|f| f.ended) {
            return Ok(from);
        }
        let said = match fence.and_then(|f| f.said) {
            Some(said) => format!("The host that watches it says: {said:?}."),
            None => "Nobody watches it: no other host that is up shares its disks.".into(),
        };
        Err(Error::bad_request(format!(
            "Host {name} is silent, which does not mean that it is off: the server may run there still, and must not run twice. {said} Make sure that the host is off, and say so: `haneul host fence {name}`, or `openstack compute service set --down {name} nova-compute`."
        )))
    }

    /// What the scheduler is asked for to start a server of a lost host on another.
    pub(crate) async fn elsewhere(&self, tx: &mut Tx, s: &Server, from: &str, to: Option<&str>) -> Result<Request> {
        let hosts = self.fleet.hosts(tx).await?;
        let source = hosts.iter().find(|h| h.id == from);
        if let Some(name) = to {
            let services = tx.list::<ComputeService>(&Query::new()).await?;
            let named = services.iter().find(|x| x.host_name == name || x.host_id == name);
            let named = named.ok_or_else(|| Error::bad_request(format!("Compute host {name} not found.")))?;
            if named.host_id == from {
                return Err(Error::bad_request("The target host can't be the same one."));
            }
        }
        let mut request = self.scheduled(tx, s).await?;
        request.host = to.map(str::to_owned);
        request.avoid.push(from.to_owned());
        for h in hosts.iter().filter(|h| h.id != from) {
            let why = lacks_disks(s, h).or_else(|| other_machine(source?, h));
            request.unfit.extend(why.map(|why| (h.id.clone(), why)));
        }
        Ok(request)
    }

    async fn find_place(&self, request: &Request) -> Result<String> {
        match self.decide(request).await? {
            Ok(plan) => plan
                .hosts
                .into_iter()
                .next()
                .ok_or_else(|| Error::internal("a plan without a host")),
            Err(refusal) => {
                let e = Error::bad_request(refusal.message(request));
                Err(e.with_private(refusal.details()))
            }
        }
    }

    /// Writes it: claim, ports, guest, tombstone, job. False: the target is full by now.
    async fn evacuate_to(
        self: &Arc<Self>,
        tx: &mut Tx,
        old: &impl Grant<Server>,
        to: &str,
        stop: bool,
    ) -> Result<bool> {
        let mut s = old.stored().value.clone();
        let from = s.host_id.clone().unwrap_or_default();
        if !self.fleet.has_ended(tx, &from).await? {
            // It is back: its servers are where they were.
            return Err(Error::conflict("The host is not lost any more."));
        }
        if !self.group_allows(tx, &s, to).await? {
            return Ok(false);
        }
        // A host that has not yet let go of what was made ready there for a move would take this for the same.
        if self.fleet.is_left(tx, to, Kind::Guest, &s.id).await? {
            return Ok(false);
        }
        let amounts = s.amounts();
        if !self
            .placement
            .allocate(tx, &s.id, &s.project_id, &s.user_id, to, &amounts)
            .await?
        {
            return Ok(false);
        }
        self.placement.release(tx, &s.id, Some(&from)).await?;
        self.jobs.supersede(tx, ("server", &s.id)).await?;
        let kind = MigrationKind::Evacuation;
        let m = self
            .migration_begin(tx, &s, kind, Some(to), [&s.flavor, &s.flavor])
            .await?;
        self.network.server_moved(tx, &s.id, to).await?;
        self.fleet.remove(tx, &from, Kind::Guest, &s.id).await?;
        if s.shared_disks.is_none() {
            s.rebuilds += 1;
            s.shared_disks = self.shared_disks(tx, to).await?;
        }
        s.host_id = Some(to.to_owned());
        // The memory of its CPUs is lost with the host.
        match s.wanted {
            Power::Paused => s.wanted = Power::Running,
            Power::Suspended => s.wanted = Power::Stopped,
            Power::Running | Power::Stopped => {}
        }
        if stop {
            s.wanted = Power::Stopped;
        }
        let mut state = memory(&s);
        state["migration"] = m.id.into();
        self.begin::<Evacuate>(tx, &mut s, Task::Rebuilding, state).await?;
        tx.update(old, &s).await?;
        Ok(true)
    }
}

/// Whether it may leave a lost host: nothing is under way that only that host can end.
fn check_may_leave(s: &Server) -> Result<()> {
    match s.task_state {
        // What is wanted of it is wanted of the new host, too.
        None
        | Some(
            Task::Spawning
            | Task::Networking
            | Task::PoweringOn
            | Task::PoweringOff
            | Task::Pausing
            | Task::Unpausing
            | Task::Suspending
            | Task::Resuming
            | Task::Rebooting
            | Task::RebootingHard
            | Task::Rebuilding,
        ) => Ok(()),
        Some(other) => Err(busy(s, &format!("task_state {}", other.as_str()))),
    }
}

fn busy(s: &Server, what: &str) -> Error {
    Error::conflict(format!("Cannot 'evacuate' instance {} while it is in {what}", s.id))
}

/// Whether it leaves one without being asked.
fn check_by_itself(s: &Server) -> Result<()> {
    check_may_leave(s)?;
    if s.shared_disks.is_none() {
        return Err(Error::conflict(
            "its disks are on that host alone; they are back when the host is. `openstack server evacuate` makes the server anew from its image, without them",
        ));
    }
    Ok(())
}

/// The room that is left goes to those first that would start first.
fn in_order(s: &Stored<Server>) -> (u32, i64) {
    let order = start_order(&s.metadata).ok().flatten();
    (order.unwrap_or(START_ORDER), s.created_at)
}

fn other_machine(from: &Host, to: &Host) -> Option<String> {
    let (a, b) = (&from.hypervisor, &to.hypervisor);
    (a.kind != b.kind || a.arch != b.arch).then(|| {
        format!(
            "it has {} on {}, and the server ran on {} on {}",
            b.kind, b.arch, a.kind, a.arch
        )
    })
}

/// On its new host it is what a rebuild is: made there, and then as it is wanted.
impl HostAction for Evacuate {
    const KIND: &'static str = "server.evacuate";
    fn deadline_s(config: &config::Compute) -> u64 {
        Rebuild::deadline_s(config)
    }
    fn met(s: &Server, seen: &ObservedGuest) -> bool {
        Rebuild::met(s, seen)
    }
    fn done<'t>(
        app: &'t Compute,
        tx: &'t mut Tx,
        s: &'t mut Server,
        job: &'t Job,
        seen: &'t ObservedGuest,
    ) -> BoxFuture<'t, Result<()>> {
        Box::pin(async move {
            Rebuild::done(app, tx, s, job, seen).await?;
            app.evacuation_is(tx, job, MigrationStatus::Done).await
        })
    }
    /// It is the new host's, where another attempt (a hard reboot, a rebuild) may mend it.
    fn undo<'t>(
        app: &'t Compute,
        tx: &'t mut Tx,
        s: &'t mut Server,
        job: &'t Job,
        fault: &'t Fault,
    ) -> BoxFuture<'t, Result<()>> {
        Box::pin(async move {
            s.fail(fault.clone());
            app.evacuation_is(tx, job, MigrationStatus::Failed).await
        })
    }
}

impl Compute {
    async fn evacuation_is(&self, tx: &mut Tx, job: &Job, status: MigrationStatus) -> Result<()> {
        let id = job.state.get("migration").and_then(|v| v.as_str()).unwrap_or_default();
        self.migration_change(tx, id, |m| m.status = status).await
    }
}

/// What the loss of a host would mean.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loss {
    /// Servers that would start elsewhere: id, name, and the host that has room for it now.
    pub back: Vec<(String, String, String)>,
    pub stranded: Vec<Stranded>,
}

impl Compute {
    /// What would become of a host's servers if it were lost now, each taking the room of those before. Nothing is
    /// written.
    pub async fn if_lost(&self, host: &str) -> Result<Loss> {
        let snapshot = self.read_snapshot().await?;
        let mut tx = self.db.read().await?;
        let mut servers = tx.list::<Server>(&Query::new().eq("host_id", host)).await?;
        servers.sort_by_key(in_order);
        let mut asked = Vec::new();
        for s in &servers {
            let request = match check_by_itself(s) {
                Ok(()) => Ok(self.elsewhere(&mut tx, s, host, None).await?),
                Err(e) => Err(e.public().to_owned()),
            };
            asked.push(Asked {
                id: s.id.clone(),
                name: s.name.clone(),
                request,
                frees: self.way_back(&mut tx, s).await?,
            });
        }
        Ok(loss(snapshot, asked))
    }

    /// What is kept for a server that waits to be confirmed on the host that it came from, and is free once it is: the loss
    /// of its own host confirms it ([`Compute::keep_resized`]).
    async fn way_back(&self, tx: &mut Tx, s: &Server) -> Result<Option<(String, [i64; 3])>> {
        let Some(other) = s.old_host_id.clone().filter(|h| s.host_id.as_ref() != Some(h)) else {
            return Ok(None);
        };
        let held = self.placement.allocations(tx, &s.id).await?;
        let of = |class: &str| {
            held.iter()
                .find(|(p, c, _)| *p == other && c == class)
                .map_or(0, |a| a.2)
        };
        let amounts = CLASSES.map(of);
        Ok(Some((other, amounts)))
    }
}

/// One of a host's servers, if the host is lost.
struct Asked {
    id: String,
    name: String,
    /// What it needs elsewhere, or why it stays.
    request: std::result::Result<Request, String>,
    /// What it holds on another host, and gives up.
    frees: Option<(String, [i64; 3])>,
}

fn loss(mut snapshot: Snapshot, asked: Vec<Asked>) -> Loss {
    let names: BTreeMap<String, String> = snapshot.hosts.iter().map(|h| (h.id.clone(), h.name.clone())).collect();
    let mut out = Loss::default();
    for Asked {
        id,
        name,
        request,
        frees,
    } in asked
    {
        let takes = |snapshot: &mut Snapshot, host: &str, amounts: &[i64; 3], n: i64| {
            if let Some(h) = snapshot.hosts.iter_mut().find(|h| h.id == host) {
                h.takes(amounts, n);
            }
        };
        if let Some((host, amounts)) = frees.filter(|_| request.is_ok()) {
            takes(&mut snapshot, &host, &amounts, -1);
        }
        let place = request.and_then(|r| match decide(&snapshot, &r) {
            Ok(plan) => Ok((plan.hosts.into_iter().next().unwrap_or_default(), r)),
            Err(refusal) => Err(refusal.message(&r)),
        });
        match place {
            Err(why) => out.stranded.push(Stranded { id, name, why }),
            Ok((to, r)) => {
                takes(&mut snapshot, &to, &r.amounts, 1);
                let to = names.get(&to).cloned().unwrap_or(to);
                out.back.push((id, name, to));
            }
        }
    }
    out
}
