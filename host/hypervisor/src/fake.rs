//! A hypervisor that runs nothing: for tests, bench and the breadth lane, allowed only with `lab = true`
//! and shown as type `fake` everywhere. It keeps records on disk like the real one, so that adoption
//! and kill points are the same.

use crate::{BoxFuture, Hold, Hypervisor, OnProgress, Resources};
use haneul_agent_api::{Failure, FailureCode, Guest, GuestState, HypervisorInfo, ObservedGuest, Power};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::mpsc;
use uuid::Uuid;

#[derive(Clone, Serialize, Deserialize)]
struct Record {
    epoch: u64,
    generation: u64,
    guest: Guest,
    state: GuestState,
    started_at: i64,
}

/// See the module.
pub struct Fake {
    dir: PathBuf,
    records: Mutex<HashMap<Uuid, Record>>,
}

fn failure(message: String) -> Failure {
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
        Ok(Self {
            dir: dir.to_path_buf(),
            records: Mutex::new(records),
        })
    }

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
        let have = self
            .lock()
            .get(&desired.id)
            .is_some_and(|r| has_process(r.state) && r.guest.rebuilds == desired.rebuilds);
        let want = matches!(desired.power, Power::Running | Power::Paused);
        Box::pin(async move { want && !have })
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
            let record = Record {
                epoch,
                generation,
                guest: desired.clone(),
                state: match desired.power {
                    Power::Running => GuestState::Running,
                    Power::Paused => GuestState::Paused,
                    Power::Suspended => GuestState::Suspended,
                    Power::Stopped => GuestState::Stopped,
                },
                started_at: std::time::UNIX_EPOCH.elapsed().map_or(0, |d| d.as_micros() as i64),
            };
            self.save(&record)?;
            let now = observed(&record);
            self.lock().insert(desired.id, record);
            Ok(now)
        })
    }

    fn remove(&self, id: Uuid) -> BoxFuture<'_, Result<(), Failure>> {
        Box::pin(async move {
            match std::fs::remove_file(self.path(id)) {
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
                self.save(&record)?;
                self.lock().insert(id, record);
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
        None
    }
}
