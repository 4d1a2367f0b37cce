//! A hypervisor that runs nothing: for tests, bench and the breadth lane, allowed only with `lab = true`
//! and shown as type `fake` everywhere. It keeps records on disk like the real one, so that adoption
//! and kill points are the same.

use crate::{BoxFuture, Hold, Hypervisor, OnProgress, Resources, fake_move};
use haneul_agent_api::{
    Failure, FailureCode, Guest, GuestState, HypervisorInfo, Layout, ObservedGuest, ObservedMove, Power,
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use uuid::Uuid;

#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    epoch: u64,
    generation: u64,
    pub guest: Guest,
    pub state: GuestState,
    started_at: i64,
    /// When this was last made sure of.
    #[serde(default)]
    applied_at: i64,
    /// How far its move is.
    #[serde(default)]
    pub moving: Option<ObservedMove>,
    /// Whether it may have been handed over.
    #[serde(default)]
    pub switching: bool,
}

/// See the module.
pub struct Fake {
    shared: Arc<Shared>,
    events: Mutex<Option<mpsc::UnboundedReceiver<Uuid>>>,
}

/// What tasks that wait for guests from other hosts have too.
pub(crate) struct Shared {
    dir: PathBuf,
    records: Mutex<HashMap<Uuid, Record>>,
    /// Who waits for a guest, and for which move.
    listeners: Mutex<HashMap<Uuid, (Uuid, AbortHandle)>>,
    events: mpsc::UnboundedSender<Uuid>,
}

pub(crate) fn failure(message: String) -> Failure {
    Failure {
        code: FailureCode::DiskError,
        message: "the host could not write the server's record".into(),
        detail: message,
    }
}

impl Fake {
    /// Opens the records in `dir`, which is made when missing.
    pub fn open(dir: &Path) -> std::io::Result<Self> {
        std::fs::create_dir_all(dir)?;
        let mut records = HashMap::new();
        for entry in std::fs::read_dir(dir)? {
            let path = entry?.path();
            if path.extension().is_some_and(|e| e == "json")
                && let Ok(record) = serde_json::from_slice::<Record>(&std::fs::read(&path)?)
            {
                records.insert(record.guest.id, record);
            }
        }
        let (events, receive) = mpsc::unbounded_channel();
        let shared = Shared {
            dir: dir.to_path_buf(),
            records: Mutex::new(records),
            listeners: Mutex::default(),
            events,
        };
        Ok(Self {
            shared: Arc::new(shared),
            events: Mutex::new(Some(receive)),
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Uuid, Record>> {
        self.shared.lock()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        for (_, task) in self.shared.waiting().values() {
            task.abort();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, HashMap<Uuid, Record>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, id: Uuid) -> PathBuf {
        self.dir.join(format!("{id}.json"))
    }

    fn save(&self, record: &Record) -> Result<(), Failure> {
        let bytes = serde_json::to_vec(record).map_err(|e| failure(e.to_string()))?;
        let tmp = self.dir.join(format!("{}.tmp", record.guest.id));
        std::fs::write(&tmp, bytes)
            .and_then(|()| std::fs::rename(&tmp, self.path(record.guest.id)))
            .map_err(|e| failure(e.to_string()))
    }

    pub fn get(&self, id: Uuid) -> Option<Record> {
        self.lock().get(&id).cloned()
    }

    pub fn put(&self, record: &Record) -> Result<(), Failure> {
        let mut records = self.lock();
        self.save(record)?;
        records.insert(record.guest.id, record.clone());
        Ok(())
    }

    /// Something changed without being asked for.
    pub fn tell(&self, id: Uuid) {
        let _ = self.events.send(id);
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<Uuid, (Uuid, AbortHandle)>> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether somebody waits for the guest of this move.
    pub fn listens(&self, id: Uuid, of: Uuid) -> bool {
        self.waiting().get(&id).is_some_and(|(m, _)| *m == of)
    }

    pub fn listen(&self, id: Uuid, of: Uuid, task: AbortHandle) {
        self.hush(id);
        self.waiting().insert(id, (of, task));
    }

    /// Nobody waits for the guest any more.
    fn hush(&self, id: Uuid) {
        if let Some((_, task)) = self.waiting().remove(&id) {
            task.abort();
        }
    }
}

/// What [`crate::qemu::end`] does, for the guests of a fake whose process is gone.
pub fn end(dir: &Path, guests: &[Uuid]) -> std::io::Result<usize> {
    let end_one = |id: &Uuid| {
        let path = dir.join(format!("{id}.json"));
        let Ok(bytes) = std::fs::read(&path) else { return Ok(0) };
        let mut record: Record = serde_json::from_slice(&bytes)?;
        if !has_process(record.state) {
            return Ok(0);
        }
        record.state = GuestState::Stopped;
        std::fs::write(&path, serde_json::to_vec(&record)?).map(|()| 1)
    };
    // One that cannot be ended keeps no other alive.
    let each: Vec<_> = guests.iter().map(end_one).collect();
    each.into_iter().sum()
}

/// What a guest is that is as it shall be.
pub(crate) fn state_of(power: Power) -> GuestState {
    match power {
        Power::Running => GuestState::Running,
        Power::Paused => GuestState::Paused,
        Power::Suspended => GuestState::Suspended,
        Power::Stopped => GuestState::Stopped,
    }
}

fn has_process(state: GuestState) -> bool {
    !matches!(state, GuestState::Stopped | GuestState::Suspended)
}

fn observed(r: &Record) -> ObservedGuest {
    ObservedGuest {
        id: r.guest.id,
        epoch: r.epoch,
        generation: r.generation,
        settled: true,
        state: r.state,
        failure: None,
        soft_reboots: r.guest.soft_reboots,
        hard_reboots: r.guest.hard_reboots,
        rebuilds: r.guest.rebuilds,
        progress: None,
        unknown: false,
        started_at: has_process(r.state).then_some(r.started_at),
        vcpus: r.guest.vcpus,
        memory_mib: r.guest.memory_mib,
        disk_gib: r.guest.root.size_gib,
        snapshot: None,
        layout: Some(Box::new(Layout {
            machine: "fake".into(),
            cpu: "fake".into(),
            accelerator: "fake".into(),
            devices: vec![],
        })),
        moving: r.moving.clone().map(Box::new),
    }
}

impl Hypervisor for Fake {
    fn info(&self) -> HypervisorInfo {
        HypervisorInfo {
            kind: "fake".into(),
            version: 1_000_000,
            accelerator: "fake".into(),
            arch: "x86_64".into(),
            cpu_model: "fake".into(),
            cpu_vendor: "fake".into(),
            cpu_features: vec![],
            sockets: 1,
            cores: 1,
            threads: 1,
            moves: true,
            shared_disks: None,
        }
    }

    fn observe_all(&self) -> BoxFuture<'_, Result<Vec<ObservedGuest>, Failure>> {
        let all = self.lock().values().map(observed).collect();
        Box::pin(async move { Ok(all) })
    }

    fn observe(&self, id: Uuid) -> BoxFuture<'_, Option<ObservedGuest>> {
        let found = self.lock().get(&id).map(observed);
        Box::pin(async move { found })
    }

    fn needs_start(&self, desired: &Guest) -> BoxFuture<'_, bool> {
        let records = self.lock();
        let record = records.get(&desired.id);
        let arrives = desired
            .arriving
            .as_ref()
            .is_some_and(|a| !fake_move::is_here(record, a));
        let have = record.is_some_and(|r| has_process(r.state) && r.guest.rebuilds == desired.rebuilds);
        let want = matches!(desired.power, Power::Running | Power::Paused);
        let stays = desired.leaving.is_none();
        Box::pin(async move { stays && (arrives || (want && !have)) })
    }

    fn needs_taps(&self, desired: &Guest) -> BoxFuture<'_, bool> {
        let ports = |g: &Guest| g.nics.iter().map(|n| n.port_id).collect::<BTreeSet<_>>();
        let records = self.lock();
        let running = records.get(&desired.id).filter(|r| has_process(r.state));
        let lacks = running.is_some_and(|r| !ports(&r.guest).is_superset(&ports(desired)));
        let want = matches!(desired.power, Power::Running | Power::Paused);
        Box::pin(async move { want && lacks })
    }

    fn apply<'a>(
        &'a self,
        epoch: u64,
        generation: u64,
        desired: &'a Guest,
        resources: Resources,
    ) -> BoxFuture<'a, Result<ObservedGuest, Failure>> {
        Box::pin(async move {
            drop(resources);
            // A name that asks for it makes this guest fail, so that tests reach every failure path.
            if let Some(code) = desired.hints.get("lab:fail") {
                return Err(Failure {
                    code: FailureCode::HypervisorError,
                    message: format!("the fake hypervisor was told to fail: {code}"),
                    detail: String::new(),
                });
            }
            let known = self.shared.get(desired.id);
            // Its process is the one that it had, unless something asks for another.
            let counts = |g: &Guest| (g.soft_reboots, g.hard_reboots, g.rebuilds);
            let same = known
                .as_ref()
                .filter(|k| has_process(k.state) && counts(&k.guest) == counts(desired));
            let now = std::time::UNIX_EPOCH.elapsed().map_or(0, |d| d.as_micros() as i64);
            let mut record = Record {
                epoch,
                generation,
                guest: desired.clone(),
                state: state_of(desired.power),
                started_at: same.map_or(now, |k| k.started_at),
                applied_at: now,
                moving: None,
                switching: false,
            };
            let seen = |shared: &Shared| {
                let now = shared.get(desired.id).as_ref().map(observed);
                now.ok_or_else(|| failure("no record".into()))
            };
            if let Some(leaving) = &desired.leaving {
                let Some(known) = known else {
                    return Err(failure("a guest that was never here shall leave".into()));
                };
                (record.state, record.started_at) = (known.state, known.started_at);
                (record.moving, record.switching) = (known.moving, known.switching);
                fake_move::leave(&self.shared, record, leaving).await?;
                return seen(&self.shared);
            }
            if let Some(arriving) = &desired.arriving {
                if !fake_move::is_here(known.as_ref(), arriving) {
                    fake_move::arrive(&self.shared, record, arriving).await?;
                    return seen(&self.shared);
                }
                record.moving = known.and_then(|r| r.moving);
            }
            self.shared.put(&record)?;
            seen(&self.shared)
        })
    }

    fn remove(&self, id: Uuid) -> BoxFuture<'_, Result<(), Failure>> {
        Box::pin(async move {
            self.shared.hush(id);
            match std::fs::remove_file(self.shared.path(id)) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    return Err(failure(e.to_string()));
                }
                _ => {}
            }
            self.lock().remove(&id);
            Ok(())
        })
    }

    fn stop(&self, id: Uuid, gently: bool) -> BoxFuture<'_, Result<(), Failure>> {
        let _ = gently;
        Box::pin(async move {
            let record = self.lock().get(&id).cloned();
            if let Some(mut record) = record.filter(|r| has_process(r.state)) {
                record.state = GuestState::Stopped;
                self.shared.put(&record)?;
            }
            Ok(())
        })
    }

    fn console_log(&self, id: Uuid, lines: Option<u32>) -> BoxFuture<'_, Result<Vec<u8>, Failure>> {
        let known = self.lock().contains_key(&id);
        Box::pin(async move {
            if !known {
                return Err(Failure {
                    code: FailureCode::Internal,
                    message: "the server has no console on this host".into(),
                    detail: String::new(),
                });
            }
            let all: Vec<String> = (0..30).map(|n| format!("FAKE CONSOLE OUTPUT {n}\n")).collect();
            let from = lines.map_or(0, |n| all.len().saturating_sub(n as usize));
            Ok(all.get(from..).unwrap_or(&[]).concat().into_bytes())
        })
    }

    fn vnc(&self, id: Uuid) -> BoxFuture<'_, Result<tokio::net::UnixStream, Failure>> {
        let runs = self.lock().get(&id).is_some_and(|r| has_process(r.state));
        Box::pin(async move {
            if !runs {
                return Err(crate::no_screen(""));
            }
            let (ours, theirs) = tokio::net::UnixStream::pair().map_err(|e| failure(e.to_string()))?;
            tokio::spawn(crate::fake_rfb::serve(theirs));
            Ok(ours)
        })
    }

    fn copy_disk<'a>(
        &'a self,
        _id: Uuid,
        _target: &'a Path,
        _progress: OnProgress,
    ) -> BoxFuture<'a, Result<Option<Hold>, Failure>> {
        // Nothing runs that would write to a disk.
        Box::pin(async { Ok(Some(Box::new(()) as Hold)) })
    }

    fn events(&self) -> Option<mpsc::UnboundedReceiver<Uuid>> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}
