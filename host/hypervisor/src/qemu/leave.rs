//! A guest that goes to another host (docs/adr/0009, "Moving"). QEMU mirrors the disks to the target, then sends the
//! memory while the guest runs, stops the guest just before the end and waits for us ("pre-switchover"). There the mirrors
//! are completed, and QEMU is told to go on to the end.
//!
//! Who has the guest? Until we tell QEMU to go on after that stop, the source: nothing ends a migration by itself. From then
//! on nothing here cancels; QEMU says `failed` only when the target cannot have all of the memory, and goes on with the
//! guest, or `completed`, after which it never runs it again by itself. A process that ended in between leaves the question
//! to control, which knows whether the target has it; nothing is started here while the guest is leaving.
//!
//! Every step looks first at what QEMU does, so that whoever comes after one who was cut off goes on from there.

use super::arrive::carried;
use super::live::{Live, Run};
use super::ops::{QMP_DEADLINE, qmp_failure};
use super::qmp::QmpError;
use super::record::{Departure, MoveEnd};
use super::{Entry, HandingOver, Inner, hypervisor_error, internal, suspend, tls};
use haneul_agent_api::{Failure, Guest, Leaving, MoveProgress, ObservedGuest, Power};
use haneul_core::fault_point;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long to wait for the next sign of progress before asking.
const STEP: Duration = Duration::from_secs(1);
/// Connecting to the target, with TLS.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);
/// How long a guest may stand still when its memory has been sent once; twice as long after each further time, up to what
/// is allowed. One that writes little is hardly seen to move, and one that writes much comes to an end.
const FIRST_DOWNTIME_MS: u64 = 25;
/// The guest stands still while its mirrors are completed.
const MIRRORS_DEADLINE: Duration = Duration::from_secs(10);
/// Ending a migration or a job whose connection hangs.
const END_DEADLINE: Duration = Duration::from_secs(20);

/// QEMU's name of a disk's job, and of the node of its copy on the target.
fn job(node: &str) -> String {
    format!("move-{node}")
}

/// A job as QEMU tells it.
struct JobSeen {
    status: String,
    error: Option<String>,
    total: u64,
    done: u64,
}

impl Inner {
    /// Sends the guest. Ends when it is handed over or has failed; both are in the answer. May be dropped and called again
    /// at any time.
    pub(super) async fn leave(
        self: &Arc<Self>,
        entry: &Arc<Entry>,
        (epoch, generation): (u64, u64),
        desired: &Guest,
        leaving: &Leaving,
    ) -> Result<ObservedGuest, Failure> {
        if entry.record().is_none() {
            return Err(internal("a guest that was never here shall leave"));
        }
        if !leaving.key.is_well_formed() {
            return Err(internal("the key of a move is no key"));
        }
        let known = entry.record().and_then(|r| r.leaving);
        if known.as_ref().is_some_and(|d| d.id != leaving.id) {
            self.take_back(entry).await?;
        }
        self.save(entry, |r| {
            (r.epoch, r.generation) = (epoch, generation);
            r.request_id.clone_from(&desired.request_id);
            r.arriving = None;
            r.leaving.get_or_insert(Departure {
                id: leaving.id,
                begun: false,
                end: None,
            });
        })
        .await?;
        fault_point!("hypervisor.qemu.leave-recorded", internal("fault point"));
        if entry.record().and_then(|r| r.leaving).is_some_and(|d| d.end.is_some()) {
            return Ok(self.answer(entry));
        }
        let end = match entry.live() {
            None if begun(entry) => MoveEnd::Lost,
            None => MoveEnd::Failed(hypervisor_error(
                "the server's process ended while it was moved",
                super::launch::log_tail(entry),
            )),
            Some(live) => match self.send(entry, &live, leaving).await {
                Ok(()) => MoveEnd::Done,
                Err(_) if live.is_gone() && begun(entry) => MoveEnd::Lost,
                Err(e) if live.is_gone() => MoveEnd::Failed(e),
                Err(e) => match self.give_up(entry, &live, desired.power).await? {
                    true => MoveEnd::Failed(e),
                    false => MoveEnd::Done,
                },
            },
        };
        let done = end == MoveEnd::Done;
        self.save(entry, |r| {
            if let Some(d) = &mut r.leaving {
                d.end = Some(end);
            }
        })
        .await?;
        fault_point!("hypervisor.qemu.left", internal("fault point"));
        if let (true, Some(live)) = (done, entry.live()) {
            // Whoever sends packets to the guest waits for this.
            let _ = self.events.send(entry.id);
            self.tidy(entry, &live).await;
        }
        Ok(self.answer(entry))
    }

    async fn send(self: &Arc<Self>, entry: &Arc<Entry>, live: &Live, leaving: &Leaving) -> Result<(), Failure> {
        self.known(entry, live).await?;
        let record = entry.record().ok_or_else(|| internal("the record is gone"))?;
        let nodes = carried(&record.devices, leaving.shared_disks);
        if !begun(entry) {
            if let Run::Broken | Run::Shutdown | Run::NoSpace = live.run() {
                return Err(hypervisor_error(
                    "the server has switched off or its disk is full: it cannot be moved while it runs",
                    "",
                ));
            }
            self.drop_copy(entry, live).await?;
            if leaving.abort {
                return Err(aborted());
            }
            self.begin_mirrors(entry, live, record.uid, leaving, &nodes).await?;
            fault_point!("hypervisor.qemu.mirrors-begun", internal("fault point"));
            self.mirrored(entry, live, &nodes, leaving).await?;
            // What never changes is over already, and need not be ended while the guest stands still.
            self.drop_ended(live).await?;
            fault_point!("hypervisor.qemu.mirrored", internal("fault point"));
            self.save(entry, |r| {
                if let Some(d) = &mut r.leaving {
                    d.begun = true;
                }
            })
            .await?;
            entry.view().sending = Some(HandingOver::NotYet);
            self.begin_memory(live, leaving).await?;
        }
        fault_point!("hypervisor.qemu.memory-leaves", internal("fault point"));
        let mirrors: Vec<String> = nodes.iter().filter(|n| *n != "config").cloned().collect();
        // What a former agent has allowed is not known.
        let mut allowed = 0;
        loop {
            let step = live.memory_steps();
            let seen = live
                .execute("query-migrate", Value::Null, QMP_DEADLINE)
                .await
                .map_err(|e| qmp_failure("tell about the server's move", &e))?;
            let status = seen.get("status").and_then(Value::as_str).unwrap_or("none");
            let why = seen.get("error-desc").and_then(Value::as_str).unwrap_or_default();
            let told = told(entry, status);
            match status {
                "completed" => {
                    say_how_long(entry, &seen);
                    return Ok(());
                }
                "cancelled" | "none" if leaving.abort => return Err(aborted()),
                "failed" | "cancelled" | "none" => {
                    return Err(hypervisor_error(
                        "the server's memory did not reach the other host",
                        why,
                    ));
                }
                "pre-switchover" if leaving.abort && !told => return Err(aborted()),
                // What waits at its end here would be a dead machine there.
                _ if !told && matches!(live.run(), Run::Shutdown | Run::Broken) => {
                    return Err(hypervisor_error("the server switched off while it was moved", ""));
                }
                "pre-switchover" => {
                    fault_point!("hypervisor.qemu.pre-switchover", internal("fault point"));
                    self.complete_mirrors(live, &mirrors).await?;
                    fault_point!("hypervisor.qemu.switching", internal("fault point"));
                    entry.view().sending = Some(HandingOver::Told);
                    match live
                        .execute("migrate-continue", json!({"state": "pre-switchover"}), QMP_DEADLINE)
                        .await
                    {
                        // Refused when it has gone on already.
                        Ok(_) | Err(QmpError::Refused { .. }) => {}
                        Err(e) => return Err(qmp_failure("hand the server over", &e)),
                    }
                    fault_point!("hypervisor.qemu.continued", internal("fault point"));
                    continue;
                }
                _ if told => {}
                _ if leaving.abort => return Err(aborted()),
                _ => {
                    if leaving.force && live.run() == Run::Running {
                        // What does not change any more does come to an end.
                        self.halt(entry, live).await?;
                    }
                    let jobs = self.jobs(live).await?;
                    if let Some(why) = nodes.iter().find_map(|n| jobs.get(&job(n))?.error.clone()) {
                        return Err(mirror_failed(&why));
                    }
                    self.tell(entry, Some(&seen), jobs.values());
                    let now = downtime(&seen, leaving.downtime_ms);
                    if now != allowed {
                        self.allow_downtime(live, now).await?;
                        allowed = now;
                    }
                }
            }
            live.until(STEP, |s| s.gone || s.memory_steps != step).await;
            if live.is_gone() {
                return Err(hypervisor_error("the server's process ended while it was moved", ""));
            }
        }
    }

    async fn begin_mirrors(
        &self,
        entry: &Arc<Entry>,
        live: &Live,
        uid: u32,
        leaving: &Leaving,
        nodes: &[String],
    ) -> Result<(), Failure> {
        let jobs = self.jobs(live).await?;
        // Left by one who was cut off between a node and its job.
        let loose: Vec<String> = nodes.iter().filter(|n| !jobs.contains_key(&job(n))).cloned().collect();
        self.drop_nodes(live, &loose).await;
        if jobs.is_empty() {
            tls::give(live, &entry.dir, uid, tls::End::Source, &leaving.key).await?;
        }
        for node in nodes {
            let name = job(node);
            if jobs.contains_key(&name) {
                continue;
            }
            let port = leaving
                .to
                .disks_port
                .ok_or_else(|| internal("the target listens for no disks"))?;
            let target = json!({
                "driver": "nbd", "node-name": name, "export": node, "tls-creds": tls::CREDENTIALS,
                "server": {"type": "inet", "host": leaving.to.address.to_string(), "port": port.to_string()},
            });
            live.execute("blockdev-add", target, CONNECT_DEADLINE)
                .await
                .map_err(|e| hypervisor_error("the other host could not be reached for the server's disks", e))?;
            // A config drive never changes. Of a layer only what is in it: the image below is there already.
            let (command, job) = if node == "config" {
                (
                    "blockdev-backup",
                    json!({"job-id": name, "device": node, "target": name, "sync": "full", "auto-dismiss": false}),
                )
            } else {
                (
                    "blockdev-mirror",
                    json!({"job-id": name, "device": node, "target": name, "sync": "top", "auto-dismiss": false}),
                )
            };
            live.execute(command, job, CONNECT_DEADLINE)
                .await
                .map_err(|e| qmp_failure("copy the server's disks", &e))?;
        }
        Ok(())
    }

    /// Waits until all disks are the same on both sides, and stay so.
    async fn mirrored(
        &self,
        entry: &Arc<Entry>,
        live: &Live,
        nodes: &[String],
        leaving: &Leaving,
    ) -> Result<(), Failure> {
        loop {
            let step = live.job_steps();
            let jobs = self.jobs(live).await?;
            let mut ready = true;
            for node in nodes {
                match jobs.get(&job(node)) {
                    None => return Err(mirror_failed("it was given up")),
                    Some(JobSeen { error: Some(why), .. }) => return Err(mirror_failed(why)),
                    Some(j) => ready &= j.status == "ready" || (node == "config" && j.status == "concluded"),
                }
            }
            self.tell(entry, None, jobs.values());
            if ready {
                return Ok(());
            }
            if leaving.abort {
                return Err(aborted());
            }
            live.until(STEP, |s| s.gone || s.job_steps != step).await;
            if live.is_gone() {
                return Err(hypervisor_error("the server's process ended while it was moved", ""));
            }
        }
    }

    async fn begin_memory(&self, live: &Live, leaving: &Leaving) -> Result<(), Failure> {
        let failed = |e: QmpError| qmp_failure("prepare for the server's move", &e);
        suspend::prepare(live).await?;
        let on = ["pause-before-switchover", "auto-converge"].map(|c| json!({"capability": c, "state": true}));
        live.execute("migrate-set-capabilities", json!({"capabilities": on}), QMP_DEADLINE)
            .await
            .map_err(failed)?;
        live.execute(
            "migrate-set-parameters",
            json!({"tls-creds": tls::CREDENTIALS}),
            QMP_DEADLINE,
        )
        .await
        .map_err(failed)?;
        self.allow_downtime(live, downtime(&Value::Null, leaving.downtime_ms))
            .await?;
        let to = leaving.to.memory();
        live.execute("migrate", json!({"uri": format!("tcp:{to}")}), CONNECT_DEADLINE)
            .await
            .map_err(failed)?;
        Ok(())
    }

    async fn allow_downtime(&self, live: &Live, ms: u64) -> Result<(), Failure> {
        live.execute("migrate-set-parameters", json!({"downtime-limit": ms}), QMP_DEADLINE)
            .await
            .map(|_| ())
            .map_err(|e| qmp_failure("prepare for the server's move", &e))
    }

    /// The guest stands still: what its mirrors still lack is written, and they end.
    async fn complete_mirrors(&self, live: &Live, nodes: &[String]) -> Result<(), Failure> {
        if nodes.is_empty() {
            return Ok(());
        }
        for node in nodes {
            // For a job that is ready this is its good end. One that has ended already is refused.
            let _ = live
                .execute("block-job-cancel", json!({"device": job(node)}), QMP_DEADLINE)
                .await;
        }
        let end = Instant::now() + MIRRORS_DEADLINE;
        loop {
            let step = live.job_steps();
            let jobs = self.jobs(live).await?;
            if let Some(why) = jobs.values().find_map(|j| j.error.clone()) {
                return Err(mirror_failed(&why));
            }
            if jobs.values().all(|j| j.status == "concluded") {
                break;
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(mirror_failed("the last of it did not arrive in time"));
            }
            live.until(left.min(STEP), |s| s.gone || s.job_steps != step).await;
            if live.is_gone() {
                return Err(hypervisor_error("the server's process ended while it was moved", ""));
            }
        }
        self.drop_ended(live).await
    }

    async fn drop_nodes(&self, live: &Live, nodes: &[String]) {
        for node in nodes {
            let _ = live
                .execute("blockdev-del", json!({"node-name": job(node)}), END_DEADLINE)
                .await;
        }
    }

    /// Forgets jobs that have ended, and closes their connections.
    async fn drop_ended(&self, live: &Live) -> Result<(), Failure> {
        for (name, job) in self.jobs(live).await? {
            if job.status != "concluded" {
                continue;
            }
            for (command, arguments) in [
                ("job-dismiss", json!({"id": name})),
                ("blockdev-del", json!({"node-name": name})),
            ] {
                match live.execute(command, arguments, END_DEADLINE).await {
                    Ok(_) | Err(QmpError::Refused { .. }) => {}
                    Err(e) => return Err(qmp_failure("end the copy of the server's disks", &e)),
                }
            }
        }
        Ok(())
    }

    /// The guest stays: whatever was begun is ended, and it goes on if it shall run. False: it has been handed over already.
    async fn give_up(self: &Arc<Self>, entry: &Arc<Entry>, live: &Live, power: Power) -> Result<bool, Failure> {
        let end = Instant::now() + END_DEADLINE;
        let mut cancelled = false;
        loop {
            let step = live.memory_steps();
            match suspend::status(live).await?.as_deref() {
                Some("completed") if begun(entry) => return Ok(false),
                None | Some("completed") => break,
                Some(s) if s.starts_with("failed") => break,
                Some(s) if !cancelled && !told(entry, s) => {
                    cancelled = true;
                    let _ = live.execute("migrate_cancel", Value::Null, QMP_DEADLINE).await;
                    continue;
                }
                Some(_) => {}
            }
            if Instant::now() >= end {
                return Err(hypervisor_error("the hypervisor does not end the server's move", ""));
            }
            live.until(STEP, |s| s.gone || s.memory_steps != step).await;
        }
        let names: Vec<String> = self.jobs(live).await?.into_keys().collect();
        if !names.is_empty() {
            // A connection that hangs would keep them.
            let hung: Vec<Value> = names
                .iter()
                .map(|n| json!({"type": "block-node", "node-name": n}))
                .collect();
            let _ = live.execute("yank", json!({"instances": hung}), QMP_DEADLINE).await;
        }
        for name in &names {
            let _ = live
                .execute("block-job-cancel", json!({"device": name, "force": true}), QMP_DEADLINE)
                .await;
        }
        let end = Instant::now() + END_DEADLINE;
        loop {
            let step = live.job_steps();
            if self.jobs(live).await?.values().all(|j| j.status == "concluded") {
                break;
            }
            if Instant::now() >= end {
                return Err(hypervisor_error(
                    "the hypervisor does not end the copies of the server's disks",
                    "",
                ));
            }
            live.until(STEP, |s| s.gone || s.job_steps != step).await;
        }
        self.drop_ended(live).await?;
        self.tidy(entry, live).await;
        if power == Power::Running && live.run() == Run::Paused {
            self.go(entry, live).await?;
        }
        Ok(true)
    }

    /// What the process keeps for its next migration is as it was.
    async fn tidy(&self, entry: &Arc<Entry>, live: &Live) {
        let devices = entry.record().map(|r| r.devices).unwrap_or_default();
        self.drop_nodes(live, &carried(&devices, false)).await;
        let off = ["pause-before-switchover", "auto-converge"].map(|c| json!({"capability": c, "state": false}));
        let _ = live
            .execute("migrate-set-parameters", json!({"tls-creds": ""}), QMP_DEADLINE)
            .await;
        let _ = live
            .execute("migrate-set-capabilities", json!({"capabilities": off}), QMP_DEADLINE)
            .await;
        if let Err(e) = tls::take(live, &entry.dir).await {
            tracing::warn!(guest = %entry.id, message = e.message, detail = e.detail, "the key of a move stays");
        }
        let mut view = entry.view();
        (view.progress, view.sending) = (None, None);
    }

    /// The guest shall leave no more. One that was handed over may go on here: who asks for that knows that the target
    /// does not have it.
    pub(super) async fn take_back(self: &Arc<Self>, entry: &Arc<Entry>) -> Result<(), Failure> {
        let Some(record) = entry.record() else {
            return Ok(());
        };
        let Some(departure) = record.leaving else {
            return Ok(());
        };
        if let (Some(live), false) = (entry.live(), matches!(departure.end, Some(MoveEnd::Failed(_)))) {
            self.known(entry, &live).await?;
            if !self.give_up(entry, &live, record.power).await? {
                self.drop_ended(&live).await?;
                self.tidy(entry, &live).await;
            }
        }
        self.save(entry, |r| r.leaving = None).await
    }

    /// The jobs of the move.
    async fn jobs(&self, live: &Live) -> Result<std::collections::BTreeMap<String, JobSeen>, Failure> {
        let jobs = live
            .execute("query-jobs", Value::Null, QMP_DEADLINE)
            .await
            .map_err(|e| qmp_failure("tell about the copy of the server's disks", &e))?;
        let text = |j: &Value, name: &str| j.get(name).and_then(Value::as_str).map(str::to_owned);
        let number = |j: &Value, name: &str| j.get(name).and_then(Value::as_u64).unwrap_or(0);
        let seen = |j: &Value| {
            let id = text(j, "id").filter(|id| id.starts_with("move-"))?;
            let job = JobSeen {
                status: text(j, "status").unwrap_or_default(),
                error: text(j, "error"),
                total: number(j, "total-progress"),
                done: number(j, "current-progress"),
            };
            Some((id, job))
        };
        Ok(jobs.as_array().into_iter().flatten().filter_map(seen).collect())
    }

    /// Tells how far it is.
    fn tell<'a>(&self, entry: &Entry, memory: Option<&Value>, jobs: impl Iterator<Item = &'a JobSeen>) {
        let of = |name: &str| {
            let at = format!("/ram/{name}");
            memory.and_then(|m| m.pointer(&at)).and_then(Value::as_u64).unwrap_or(0)
        };
        let all = entry.record().map_or(0, |r| r.memory_mib << 20);
        let mut now = MoveProgress {
            memory_total: all,
            memory_done: of("transferred"),
            memory_left: memory.map_or(all, |_| of("remaining")),
            ..MoveProgress::default()
        };
        for job in jobs {
            now.disk_total += job.total;
            now.disk_done += job.done;
        }
        now.disk_left = now.disk_total.saturating_sub(now.disk_done);
        if entry.view().progress.replace(now) != Some(now) {
            let _ = self.events.send(entry.id);
        }
    }
}

/// How long a guest may stand still by now, in ms; at most `most`.
fn downtime(seen: &Value, most: u64) -> u64 {
    let passes = seen
        .pointer("/ram/dirty-sync-count")
        .and_then(Value::as_u64)
        .unwrap_or(0);
    let doubled = u32::try_from(passes.saturating_sub(2)).unwrap_or(u32::MAX).min(16);
    (FIRST_DOWNTIME_MS << doubled).min(most).clamp(1, 60_000)
}

/// What QEMU says of a move that is over, for operators.
fn say_how_long(entry: &Entry, seen: &Value) {
    let of = |at: &str| seen.pointer(at).and_then(Value::as_u64).unwrap_or(0);
    tracing::info!(
        guest = %entry.id,
        stood_still_ms = of("/downtime"),
        memory_ms = of("/total-time"),
        memory_mib = of("/ram/transferred") >> 20,
        passes = of("/ram/dirty-sync-count"),
        "a guest was handed over"
    );
}

/// Whether the memory of a guest that leaves was, or was about to be, sent.
fn begun(entry: &Entry) -> bool {
    entry.record().and_then(|r| r.leaving).is_some_and(|d| d.begun)
}

/// Whether QEMU may have been told to hand the guest over; its status follows a little later. From there on a migration
/// that is cancelled could have arrived all the same.
fn told(entry: &Entry, status: &str) -> bool {
    status == "device" || (status == "pre-switchover" && entry.view().sending != Some(HandingOver::NotYet))
}

fn aborted() -> Failure {
    hypervisor_error("the server's move was aborted", "")
}

fn mirror_failed(why: &str) -> Failure {
    hypervisor_error("the server's disks could not be copied to the other host", why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_may_stand_still_for_longer_the_more_it_writes() {
        let after = |passes: u64, most| downtime(&json!({"ram": {"dirty-sync-count": passes}}), most);
        assert_eq!([0, 2, 3, 4, 6].map(|n| after(n, 300)), [25, 25, 50, 100, 300]);
        assert_eq!((after(2, 10), after(u64::MAX, 100_000)), (10, 60_000));
    }
}
