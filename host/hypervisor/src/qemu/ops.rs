//! What is done to a guest: bring it to its desired state, reboot, stop, remove; and what follows when it
//! ends by itself. Every function here may be dropped at any await: the record says how far it came, and
//! the next apply goes on from there.

use super::live::{Live, Run};
use super::qmp::QmpError;
use super::record::{MoveEnd, Phase, Record, VERSION};
use super::{Entry, Inner, arrive, disk_error, hung, hypervisor_error, internal, launch, observed, process, suspend};
use crate::Resources;
use haneul_agent_api::{Failure, FailureCode, Guest, MAX_NICS, ObservedGuest, Power};
use haneul_core::{clock, fault_point};
use serde_json::{Value, json};
use std::fs::{self, File};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use uuid::Uuid;

/// Deadline of a monitor command on a guest that should be well.
pub(super) const QMP_DEADLINE: Duration = Duration::from_secs(3);
/// From exec to the first answer of the monitor; 30 ms on a quiet host.
const START_DEADLINE: Duration = Duration::from_secs(30);
/// `quit` may take this long before the process is killed.
const QUIT_DEADLINE: Duration = Duration::from_secs(3);
/// The power button is pressed again after this long: a guest that was still booting did not see it.
const PRESS_AGAIN: Duration = Duration::from_secs(10);
/// A power-down that we asked for counts as ours for this long, microseconds.
const POWERDOWN_OURS: i64 = 15 * 60 * clock::SECOND;

/// Whether `desired` needs another process than the one that `record` is about.
pub(crate) fn wants_new_process(record: &Record, desired: &Guest) -> bool {
    desired.hard_reboots > record.hard_reboots || desired.rebuilds != record.rebuilds || resized(record, desired)
}

fn resized(record: &Record, desired: &Guest) -> bool {
    desired.vcpus != record.vcpus || desired.memory_mib != record.memory_mib
}

pub(super) fn qmp_failure(what: &str, e: &QmpError) -> Failure {
    match e {
        QmpError::Timeout => hung(format!("{what}: {e}")),
        _ => hypervisor_error(format!("the hypervisor refused to {what}"), e),
    }
}

impl Inner {
    pub(crate) async fn apply(
        self: &Arc<Self>,
        epoch: u64,
        generation: u64,
        desired: &Guest,
        resources: Resources,
    ) -> Result<ObservedGuest, Failure> {
        let order = (epoch, generation);
        self.check(desired, &resources)?;
        let entry = self.find_or_make(desired.id);
        let mut guard = Arc::clone(&entry.op).lock_owned().await;
        // What an apply that was dropped is still writing comes first.
        drop(entry.writing.lock().await);
        self.adopt(&entry).await?;
        let record = entry.record();
        if let Some(r) = &record
            && order < (r.epoch, r.generation)
        {
            // Something newer was carried out already.
            return Ok(self.answer(&entry));
        }
        if let Some(leaving) = &desired.leaving {
            let seen = self.leave(&entry, order, desired, leaving).await;
            drop(guard);
            return seen;
        }
        self.take_back(&entry).await?;
        match &desired.arriving {
            Some(arriving) if !arrive::is_here(&entry, arriving) => {
                return self.arrive(&entry, guard, order, desired, resources, arriving).await;
            }
            Some(_) => {}
            // Its disks are whole only when all of it has come.
            None if record
                .as_ref()
                .and_then(|r| r.arriving.as_ref())
                .is_some_and(|a| a.end != Some(MoveEnd::Done)) =>
            {
                return Err(internal("the guest has not arrived"));
            }
            None => self.save(&entry, |r| r.arriving = None).await?,
        }
        let mut live = entry.live();
        if let (Some(process), true) = (&live, is_saved(&entry)) {
            // A suspend or a resume that was cut off. Its memory is on disk, and its CPUs have not run since.
            self.end(&entry, process).await?;
            live = None;
        }
        if let (Some(process), None) = (&live, desired.snapshot) {
            self.drop_copy(&entry, process).await?;
        }
        if desired.power == Power::Stopped {
            match live {
                Some(live) => self.stop(&entry, &live, desired.stop_timeout_s).await?,
                None => self.drop_memory(&entry).await?,
            }
            self.note(&entry, order, desired, &resources).await?;
            drop(guard);
            return Ok(self.answer(&entry));
        }
        if desired.power == Power::Suspended {
            match live {
                Some(live) => self.suspend(&entry, &live).await?,
                None if is_saved(&entry) => {}
                None => {
                    return Err(hypervisor_error(
                        "the server did not run any more, so there was no memory to save",
                        "",
                    ));
                }
            }
            self.note(&entry, order, desired, &resources).await?;
            drop(guard);
            return Ok(self.answer(&entry));
        }
        match (live, record) {
            (Some(live), Some(r)) => {
                if desired.hard_reboots > r.hard_reboots || desired.rebuilds != r.rebuilds {
                    self.end(&entry, &live).await?;
                } else if resized(&r, desired) {
                    self.stop(&entry, &live, desired.stop_timeout_s).await?;
                } else if desired.soft_reboots > r.soft_reboots && r.epoch == epoch {
                    if self.soft_reboot(&entry, &live, desired).await? {
                        return self.settle(&entry, &live, order, desired, &resources).await;
                    }
                    self.end(&entry, &live).await?;
                } else {
                    return self.settle(&entry, &live, order, desired, &resources).await;
                }
            }
            (None, Some(r))
                if r.phase == Phase::PoweredOff
                    && (r.epoch, r.generation) == order
                    && !wants_new_process(&r, desired) =>
            {
                return Ok(self.answer(&entry));
            }
            _ => {}
        }
        if entry.record().is_some_and(|r| wants_new_process(&r, desired)) {
            self.drop_memory(&entry).await?;
        }
        let live;
        (guard, live) = self.launch(&entry, guard, order, desired, resources).await?;
        self.await_start(&entry, &live).await?;
        if is_saved(&entry) {
            self.load_memory(&entry, &live).await?;
            if desired.power == Power::Running {
                self.go(&entry, &live).await?;
            }
        }
        self.fit_disk(&entry, &live, desired).await?;
        drop(guard);
        Ok(self.answer(&entry))
    }

    fn check(&self, desired: &Guest, resources: &Resources) -> Result<(), Failure> {
        let refuse = |message: String| {
            Err(Failure {
                code: FailureCode::Unsupported,
                message,
                detail: String::new(),
            })
        };
        if desired.nics.len() > MAX_NICS {
            return refuse(format!("a server can have {MAX_NICS} network cards at the most"));
        }
        if desired.leaving.is_none() && !matches!(resources.root_format.as_str(), "raw" | "qcow2") {
            return refuse(format!(
                "root disks of format {} are not supported",
                resources.root_format
            ));
        }
        if resources.uid == 0 && nix::unistd::geteuid().is_root() {
            return Err(internal("a guest shall never run as root"));
        }
        Ok(())
    }

    pub(super) fn answer(&self, entry: &Entry) -> ObservedGuest {
        let mut o = observed(entry)
            .unwrap_or_else(|| super::blank(entry.id, haneul_agent_api::GuestState::Stopped, internal("no record")));
        o.settled = o.failure.is_none();
        o
    }

    /// Changes the record, on disk and in memory.
    pub(super) async fn save(&self, entry: &Arc<Entry>, change: impl FnOnce(&mut Record)) -> Result<(), Failure> {
        let turn = Arc::clone(&entry.writing).lock_owned().await;
        let Some(mut record) = entry.record() else {
            return Ok(());
        };
        let before = record.clone();
        change(&mut record);
        if record == before {
            return Ok(());
        }
        let (e, r) = (Arc::clone(entry), record.clone());
        tokio::task::spawn_blocking(move || {
            let _turn = turn;
            r.save(&e.dir)?;
            e.view().record = Some(r);
            Ok::<_, io::Error>(())
        })
        .await
        .map_err(internal)?
        .map_err(|e| disk_error("write the server's record", &e))
    }

    /// Records that `desired` has been carried out, for a guest without a process too.
    async fn note(
        &self,
        entry: &Arc<Entry>,
        (epoch, generation): (u64, u64),
        desired: &Guest,
        resources: &Resources,
    ) -> Result<(), Failure> {
        let fill = |r: &mut Record| {
            r.name.clone_from(&desired.name);
            r.epoch = epoch;
            r.generation = generation;
            r.request_id.clone_from(&desired.request_id);
            r.power = desired.power;
            r.stop_timeout_s = desired.stop_timeout_s;
            r.soft_reboots = desired.soft_reboots;
            r.hard_reboots = desired.hard_reboots;
            if desired.power == Power::Stopped {
                r.phase = Phase::Off;
                r.process = None;
                r.powerdown_at = None;
                // The next start takes them.
                r.vcpus = desired.vcpus;
                r.memory_mib = desired.memory_mib;
                r.disk_gib = desired.root.size_gib;
                r.rebuilds = desired.rebuilds;
            }
        };
        if entry.record().is_some() {
            return self.save(entry, fill).await;
        }
        let mut record = Record {
            version: VERSION,
            id: desired.id,
            name: desired.name.clone(),
            epoch,
            generation,
            request_id: desired.request_id.clone(),
            power: desired.power,
            vcpus: desired.vcpus,
            memory_mib: desired.memory_mib,
            disk_gib: desired.root.size_gib,
            soft_reboots: 0,
            hard_reboots: 0,
            rebuilds: desired.rebuilds,
            uid: resources.uid,
            stop_timeout_s: desired.stop_timeout_s,
            machine: self.machine(None),
            cpu: self.cpu_for(desired.cpu_model.as_deref()),
            cpu_model: desired.cpu_model.clone(),
            accelerator: self.accelerator.kind.clone(),
            qemu: self.version.clone(),
            qmp: "qmp".into(),
            log: String::new(),
            devices: Vec::new(),
            phase: Phase::Off,
            process: None,
            powerdown_at: None,
            saving: false,
            copying: false,
            saved: None,
            arriving: None,
            leaving: None,
        };
        fill(&mut record);
        let e = Arc::clone(entry);
        tokio::task::spawn_blocking(move || {
            launch::make_dir(&e.dir)?;
            record.save(&e.dir)?;
            e.view().record = Some(record);
            Ok::<_, io::Error>(())
        })
        .await
        .map_err(internal)?
        .map_err(|e| disk_error("write the server's record", &e))
    }

    /// Waits until a process that was just started answers.
    pub(super) async fn await_start(&self, entry: &Arc<Entry>, live: &Live) -> Result<(), Failure> {
        if live.until(START_DEADLINE, |s| s.gone || s.qmp.is_some()).await && !live.is_gone() {
            return Ok(());
        }
        let gone = live.is_gone();
        let tail = launch::log_tail(entry);
        if !gone {
            live.kill().await;
        }
        self.forget(entry, Phase::Off).await?;
        Err(if gone {
            hypervisor_error("the hypervisor refused to start the server", tail)
        } else {
            hung(format!(
                "no answer within {} s of the start; {tail}",
                START_DEADLINE.as_secs()
            ))
        })
    }

    /// Waits until it is heard what an adopted or dropped process does.
    pub(super) async fn known(&self, entry: &Arc<Entry>, live: &Live) -> Result<(), Failure> {
        if live.run() != Run::Unknown {
            return self.heard(entry, live).await;
        }
        // It may be the start of an apply that was dropped.
        let started = entry.record().and_then(|r| r.process).map_or(0, |p| p.started_at);
        if clock::now() - started < START_DEADLINE.as_micros() as i64 {
            self.await_start(entry, live).await
        } else if live.until(QMP_DEADLINE, |s| s.gone || s.run != Run::Unknown).await {
            Ok(())
        } else {
            Err(hung("the monitor has not answered since the guest was adopted"))
        }
    }

    /// A command of an apply that was dropped may take effect yet: the monitor answers in order, so what it says now
    /// comes after that.
    async fn heard(&self, entry: &Arc<Entry>, live: &Live) -> Result<(), Failure> {
        if !entry.view().run_changes {
            return Ok(());
        }
        let status = live
            .execute("query-status", Value::Null, QMP_DEADLINE)
            .await
            .map_err(|e| qmp_failure("say whether the server runs", &e))?;
        let running = status.get("running").and_then(Value::as_bool) == Some(true);
        live.until(QMP_DEADLINE, |s| s.gone || (s.run == Run::Running) == running)
            .await;
        entry.view().run_changes = false;
        Ok(())
    }

    /// The guest gets no time any more.
    pub(super) async fn halt(&self, entry: &Arc<Entry>, live: &Live) -> Result<(), Failure> {
        entry.view().run_changes = true;
        live.execute("stop", Value::Null, QMP_DEADLINE)
            .await
            .map_err(|e| qmp_failure("pause the server", &e))?;
        if live.until(QMP_DEADLINE, |s| s.gone || s.run != Run::Running).await {
            entry.view().run_changes = false;
        }
        Ok(())
    }

    /// A process that stays: power as wanted, disk as large as wanted, cards as wanted, order recorded.
    async fn settle(
        self: &Arc<Self>,
        entry: &Arc<Entry>,
        live: &Live,
        order: (u64, u64),
        desired: &Guest,
        resources: &Resources,
    ) -> Result<ObservedGuest, Failure> {
        let record = entry.record();
        self.known(entry, live).await?;
        if record.as_ref().is_some_and(|r| r.saving) {
            self.cancel_saving(entry, live).await?;
        }
        let newer = record.as_ref().is_none_or(|r| (r.epoch, r.generation) < order);
        if live.run() == Run::Shutdown && !newer && !record.as_ref().is_some_and(powerdown_is_ours) {
            // The guest's own wish, seen before the watcher dealt with it.
            self.power_off(entry, live).await?;
            return Ok(self.answer(entry));
        }
        if live.run() == Run::Shutdown {
            self.reset(live).await?;
        }
        match (live.run(), desired.power) {
            (Run::Running, Power::Running) | (Run::Paused, Power::Paused) => {}
            (Run::Broken, _) => {
                return Err(hypervisor_error(
                    "the server's kernel panicked or its CPU failed; reboot it hard",
                    "",
                ));
            }
            (_, Power::Running) => self.go(entry, live).await?,
            (_, _) => {
                self.halt(entry, live).await?;
            }
        }
        fault_point!("hypervisor.qemu.power-set", internal("fault point"));
        self.fit_disk(entry, live, desired).await?;
        self.fit_nics(entry, live, desired, resources).await?;
        self.note(entry, order, desired, resources).await?;
        Ok(self.answer(entry))
    }

    pub(super) async fn go(&self, entry: &Arc<Entry>, live: &Live) -> Result<(), Failure> {
        entry.view().run_changes = true;
        live.execute("cont", Value::Null, QMP_DEADLINE)
            .await
            .map_err(|e| qmp_failure("resume the server", &e))?;
        if live.until(QMP_DEADLINE, |s| s.gone || s.run == Run::Running).await {
            entry.view().run_changes = false;
        }
        Ok(())
    }

    /// From "switched off, process waiting" to "about to boot", paused.
    pub(super) async fn reset(&self, live: &Live) -> Result<(), Failure> {
        live.execute("system_reset", Value::Null, QMP_DEADLINE)
            .await
            .map_err(|e| qmp_failure("restart the server", &e))?;
        live.until(QMP_DEADLINE, |s| s.gone || s.run != Run::Shutdown).await;
        Ok(())
    }

    /// Grows the root disk to what is wanted; QEMU does it, under the guest's own uid and while it runs.
    async fn fit_disk(&self, entry: &Arc<Entry>, live: &Live, desired: &Guest) -> Result<(), Failure> {
        let (checked, before) = {
            let view = entry.view();
            (view.disk_checked, view.record.as_ref().map(|r| r.disk_gib))
        };
        if checked && before == Some(desired.root.size_gib) {
            return Ok(());
        }
        let wanted = desired
            .root
            .size_gib
            .saturating_mul(1 << 30)
            .max(desired.root.image.virtual_size);
        let size = self.root_size(live).await?;
        if size < wanted {
            live.execute(
                "block_resize",
                json!({"node-name": "root", "size": wanted}),
                Duration::from_secs(30),
            )
            .await
            .map_err(|e| qmp_failure("enlarge the root disk", &e))?;
            fault_point!("hypervisor.qemu.resized", internal("fault point"));
        }
        self.save(entry, |r| r.disk_gib = desired.root.size_gib).await?;
        entry.view().disk_checked = true;
        Ok(())
    }

    /// Bytes of the disk that the guest sees.
    pub(super) async fn root_size(&self, live: &Live) -> Result<u64, Failure> {
        let nodes = live
            .execute("query-named-block-nodes", json!({"flat": true}), QMP_DEADLINE)
            .await
            .map_err(|e| qmp_failure("look at the root disk", &e))?;
        nodes
            .as_array()
            .into_iter()
            .flatten()
            .find(|n| n.get("node-name").and_then(Value::as_str) == Some("root"))
            .and_then(|n| n.pointer("/image/virtual-size"))
            .and_then(Value::as_u64)
            .ok_or_else(|| internal("the root disk has no node"))
    }

    /// Presses the power button until the guest has switched off. False: it did not before the deadline,
    /// or its monitor is hung, or its process ended.
    async fn press(&self, entry: &Arc<Entry>, live: &Live, timeout_s: u32) -> Result<bool, Failure> {
        if live.run() == Run::Shutdown {
            return Ok(true);
        }
        if live.run() != Run::Running || timeout_s == 0 {
            // A paused guest cannot obey.
            return Ok(false);
        }
        self.save(entry, |r| r.powerdown_at = Some(clock::now())).await?;
        fault_point!("hypervisor.qemu.before-powerdown", internal("fault point"));
        let end = Instant::now() + Duration::from_secs(u64::from(timeout_s));
        loop {
            match live.execute("system_powerdown", Value::Null, QMP_DEADLINE).await {
                Ok(_) => {}
                Err(e) => {
                    tracing::warn!(guest = %entry.id, error = %e, "the power button does not work");
                    return Ok(live.run() == Run::Shutdown);
                }
            }
            let left = end.saturating_duration_since(Instant::now());
            if live
                .until(left.min(PRESS_AGAIN), |s| s.gone || s.run == Run::Shutdown)
                .await
            {
                return Ok(!live.is_gone());
            }
            if Instant::now() >= end {
                return Ok(false);
            }
        }
    }

    /// ACPI power-down and a new boot in the same process. False: it has to be done the hard way.
    async fn soft_reboot(&self, entry: &Arc<Entry>, live: &Live, desired: &Guest) -> Result<bool, Failure> {
        if !self.press(entry, live, desired.stop_timeout_s).await? {
            return Ok(false);
        }
        // Counted before the boot: if we die in between, the waiting process is only let go on, not
        // rebooted twice.
        self.save(entry, |r| r.soft_reboots = desired.soft_reboots).await?;
        fault_point!("hypervisor.qemu.before-reset", internal("fault point"));
        if self.reset(live).await.is_err() || self.go(entry, live).await.is_err() {
            return Ok(false);
        }
        self.save(entry, |r| r.powerdown_at = None).await?;
        Ok(true)
    }

    /// Soft, then hard.
    async fn stop(&self, entry: &Arc<Entry>, live: &Live, timeout_s: u32) -> Result<(), Failure> {
        self.press(entry, live, timeout_s).await?;
        self.end(entry, live).await
    }

    /// Ends the process: asks it to flush and quit, and kills it when it does not.
    pub(super) async fn end(&self, entry: &Arc<Entry>, live: &Live) -> Result<(), Failure> {
        fault_point!("hypervisor.qemu.before-end", internal("fault point"));
        let asked = live.execute("quit", Value::Null, QUIT_DEADLINE).await;
        let ended = match asked {
            Ok(_) | Err(QmpError::Closed) => live.until(QUIT_DEADLINE, |s| s.gone).await,
            Err(_) => live.is_gone(),
        };
        if !ended {
            tracing::warn!(guest = %entry.id, pid = live.pid, "a guest's process does not quit: it is killed");
            if !live.kill().await {
                return Err(hung("the process cannot be killed; the host's storage may be stuck"));
            }
        }
        fault_point!("hypervisor.qemu.ended", internal("fault point"));
        self.forget(entry, Phase::Off).await
    }

    /// The process is gone: record it, take its limits away.
    async fn forget(&self, entry: &Arc<Entry>, phase: Phase) -> Result<(), Failure> {
        entry.view().live = None;
        self.cgroups.remove(entry.id);
        if entry.record().is_some_and(|r| r.saving) {
            suspend::give_up(&entry.dir).map_err(|e| disk_error("remove the server's memory", &e))?;
        }
        if entry
            .record()
            .and_then(|r| r.arriving)
            .is_some_and(|a| a.end.is_none() && a.listens.is_some())
        {
            self.lost(entry).await?;
        }
        self.save(entry, |r| {
            r.process = None;
            r.phase = phase;
            r.powerdown_at = None;
            r.saving = false;
            r.copying = false;
        })
        .await
    }

    /// The guest switched itself off: it stays off.
    async fn power_off(&self, entry: &Arc<Entry>, live: &Live) -> Result<(), Failure> {
        // Recorded first: a process that ends now for any reason has been switched off by the guest.
        self.save(entry, |r| r.phase = Phase::PoweredOff).await?;
        fault_point!("hypervisor.qemu.powered-off", internal("fault point"));
        if live.execute("quit", Value::Null, QUIT_DEADLINE).await.is_err()
            || !live.until(QUIT_DEADLINE, |s| s.gone).await
        {
            live.kill().await;
        }
        self.forget(entry, Phase::PoweredOff).await
    }

    /// The watcher saw the guest switch off.
    pub(crate) async fn after_shutdown(self: Arc<Self>, entry: Arc<Entry>, pid: i32) {
        let guard = Arc::clone(&entry.op).lock_owned().await;
        let Some(live) = entry.live().filter(|l| l.pid == pid && l.run() == Run::Shutdown) else {
            return;
        };
        if !entry.record().is_some_and(|r| powerdown_is_ours(&r))
            && let Err(e) = self.power_off(&entry, &live).await
        {
            tracing::error!(guest = %entry.id, message = e.message, detail = e.detail, "recording a power-off failed");
        }
        drop(guard);
        let _ = self.events.send(entry.id);
    }

    /// The watcher saw the process end.
    pub(crate) async fn after_end(self: Arc<Self>, entry: Arc<Entry>, pid: i32) {
        let guard = Arc::clone(&entry.op).lock_owned().await;
        // Whoever ended it on purpose has forgotten it already.
        if entry.view().live.as_ref().is_none_or(|l| l.pid != pid) {
            return;
        }
        tracing::warn!(guest = %entry.id, pid, "a guest's process has died");
        if let Err(e) = self.forget(&entry, Phase::Off).await {
            tracing::error!(guest = %entry.id, message = e.message, detail = e.detail, "recording an end failed");
        }
        drop(guard);
        let _ = self.events.send(entry.id);
    }

    /// Stops the guest and leaves its desired state alone.
    pub(crate) async fn stop_guest(self: &Arc<Self>, id: Uuid, gently: bool) -> Result<(), Failure> {
        let Some(entry) = self.find(id) else {
            return Ok(());
        };
        let _guard = Arc::clone(&entry.op).lock_owned().await;
        self.adopt(&entry).await?;
        match entry.live() {
            Some(live) if gently => {
                let timeout_s = entry.record().map_or(0, |r| r.stop_timeout_s);
                self.stop(&entry, &live, timeout_s).await
            }
            Some(live) => self.end(&entry, &live).await,
            None => Ok(()),
        }
    }

    pub(crate) async fn remove(self: &Arc<Self>, id: Uuid) -> Result<(), Failure> {
        let Some(entry) = self.find(id) else {
            return Ok(());
        };
        let _guard = Arc::clone(&entry.op).lock_owned().await;
        self.adopt(&entry).await?;
        if let Some(live) = entry.live() {
            self.end(&entry, &live).await?;
        }
        let (inner, e) = (Arc::clone(self), Arc::clone(&entry));
        tokio::task::spawn_blocking(move || inner.remove_now(&e))
            .await
            .map_err(internal)?
            .map_err(|e| disk_error("remove the server's record", &e))?;
        entry.view().record = None;
        self.lock().remove(&id);
        Ok(())
    }

    fn remove_now(&self, entry: &Entry) -> io::Result<()> {
        let gone = |r: io::Result<()>| match r {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        };
        self.cgroups.remove(entry.id);
        // Nothing goes while a process lives, whatever we believe.
        if entry.dir.is_dir() && process::take_lock(&entry.dir)?.is_none() {
            return Err(io::Error::new(
                io::ErrorKind::ResourceBusy,
                "a process of this guest lives",
            ));
        }
        fault_point!("hypervisor.qemu.before-remove", io::Error::other("fault point"));
        // The record goes first: from then on the directory is litter that the next start takes away.
        gone(fs::remove_file(entry.dir.join(super::record::NAME)))?;
        fault_point!("hypervisor.qemu.record-removed", io::Error::other("fault point"));
        gone(fs::remove_dir_all(&entry.dir))?;
        match entry.dir.parent() {
            Some(up) => File::open(up)?.sync_all(),
            None => Ok(()),
        }
    }
}

/// Whether the guest's memory is on disk.
pub(super) fn is_saved(entry: &Entry) -> bool {
    entry.record().is_some_and(|r| r.saved.is_some())
}

/// Whether a guest that switches off now does so because we pressed its power button.
fn powerdown_is_ours(r: &Record) -> bool {
    r.powerdown_at.is_some_and(|t| clock::now() - t < POWERDOWN_OURS)
}
