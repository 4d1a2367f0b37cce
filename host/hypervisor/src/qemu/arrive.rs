//! A guest that comes from another host (docs/adr/0009, "Moving"): a process with the source's machine waits, stopped,
//! for its memory, and its disks are written through an NBD export; both connections are made by the source, over TLS.
//!
//! The process never runs by itself. That all of the memory is there means that the source will not run it again
//! ([`super::leave`]): then, and only then, it is let go here. An attempt whose process ends before has failed, and nothing is
//! started in its place; from then on the guest is this host's, and one whose process ends has ended as any other. So that it
//! has come is on disk before its CPUs run, and what fails afterwards is tried again, never answered as a failure of the move.

use super::live::{Live, Run};
use super::ops::{QMP_DEADLINE, qmp_failure};
use super::qmp::QmpError;
use super::record::{Arrival, MoveEnd};
use super::{Entry, Inner, disk_error, hypervisor_error, internal, launch, suspend, tls};
use crate::Resources;
use haneul_agent_api::{Arriving, Failure, FailureCode, Guest, Layout, MoveAddress, ObservedGuest, Power};
use haneul_core::fault_point;
use serde_json::{Value, json};
use std::fs::OpenOptions;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OwnedMutexGuard;

/// What a config drive is written through while it comes: its own node is the guest's, and read-only.
const CONFIG: &str = "config-arriving";
const FDSET: u32 = 903;
/// Another process may take a port between our look and QEMU's.
const PORT_TRIES: u32 = 8;
/// Between two tries to let a guest go that has come.
const AGAIN: Duration = Duration::from_secs(1);
/// Activating disks may have to write to them.
const STOP_DEADLINE: Duration = Duration::from_secs(10);

/// Nodes that come along, by the names that both hosts know them by.
pub(super) fn carried(devices: &[haneul_agent_api::Device], shared_disks: bool) -> Vec<String> {
    let name = |d: &haneul_agent_api::Device| match d.kind.as_str() {
        "disk" if !shared_disks => Some("root".to_owned()),
        super::args::LOCAL if !shared_disks => d.id.strip_prefix("disk").map(|n| format!("local{n}")),
        // Lies beside the agent, never with the disks.
        "config-drive" => Some("config".to_owned()),
        _ => None,
    };
    devices.iter().filter_map(name).collect()
}

fn unsupported(message: String) -> Failure {
    Failure {
        code: FailureCode::Unsupported,
        message,
        detail: String::new(),
    }
}

/// Whether all of a guest that was to arrive is here.
pub(super) fn is_here(entry: &Entry, arriving: &Arriving) -> bool {
    let arrival = entry.record().and_then(|r| r.arriving);
    arrival.is_some_and(|a| a.id == arriving.id && a.end == Some(MoveEnd::Done))
}

impl Inner {
    /// Makes ready for a guest and answers where this host listens; or, when it has come, what it is.
    pub(super) async fn arrive(
        self: &Arc<Self>,
        entry: &Arc<Entry>,
        guard: OwnedMutexGuard<()>,
        order: (u64, u64),
        desired: &Guest,
        resources: Resources,
        arriving: &Arriving,
    ) -> Result<ObservedGuest, Failure> {
        if !arriving.key.is_well_formed() {
            return Err(internal("the key of a move is no key"));
        }
        let arrival = entry.record().and_then(|r| r.arriving).filter(|a| a.id == arriving.id);
        let mut live = entry.live();
        match (&arrival, &live) {
            // Over, one way or the other.
            (Some(Arrival { end: Some(_), .. }), _) => return Ok(self.answer(entry)),
            (Some(Arrival { listens: Some(_), .. }), None) => {
                self.lost(entry).await?;
                return Ok(self.answer(entry));
            }
            // It may listen, and nobody knows where: begun anew.
            (_, Some(process)) if arrival.as_ref().is_none_or(|a| a.listens.is_none()) => {
                self.end(entry, process).await?;
                live = None;
            }
            _ => {}
        }
        let mut guard = Some(guard);
        let live = match (live, guard.take()) {
            (Some(live), held) => {
                guard = held;
                live
            }
            (None, Some(held)) => {
                // What came, or failed, before a change of this host is told all the same.
                self.builds(&arriving.layout)?;
                let uid = resources.uid;
                let config = resources.config_drive.clone();
                let (held, live) = self.launch(entry, held, order, desired, resources).await?;
                guard = Some(held);
                fault_point!("hypervisor.qemu.arrival-launched", internal("fault point"));
                self.await_start(entry, &live).await?;
                self.listen(entry, &live, uid, config.as_deref(), arriving).await?;
                tracing::info!(guest = %entry.id, "a guest that comes from another host is expected");
                live
            }
            (None, None) => return Err(internal("the guest's lock is lost")),
        };
        if let Err(e) = self.look_for_arrival(entry, &live).await {
            tracing::warn!(guest = %entry.id, message = e.message, detail = e.detail, "whether a guest has come is looked for again");
            tokio::spawn(Arc::clone(self).after_migration(Arc::clone(entry), live.pid));
        }
        drop(guard);
        Ok(self.answer(entry))
    }

    /// Refuses what this QEMU does not build in the same way.
    fn builds(&self, layout: &Layout) -> Result<(), Failure> {
        if layout.accelerator != self.accelerator.kind {
            return Err(unsupported(format!(
                "the server runs by {} where it is, and this host runs servers by {}",
                layout.accelerator, self.accelerator.kind
            )));
        }
        if !self.machines.contains(&layout.machine) {
            return Err(unsupported(format!(
                "the server's machine is {}, which this host's QEMU {} does not have",
                layout.machine, self.version
            )));
        }
        if !super::args::cpu_name_ok(&layout.cpu) {
            return Err(unsupported(format!("the server's CPU model {} is none", layout.cpu)));
        }
        Ok(())
    }

    async fn listen(
        self: &Arc<Self>,
        entry: &Arc<Entry>,
        live: &Live,
        uid: u32,
        config: Option<&Path>,
        arriving: &Arriving,
    ) -> Result<(), Failure> {
        tls::give(live, &entry.dir, uid, tls::End::Target, &arriving.key).await?;
        suspend::prepare(live).await?;
        live.execute(
            "migrate-set-parameters",
            json!({"tls-creds": tls::CREDENTIALS}),
            QMP_DEADLINE,
        )
        .await
        .map_err(|e| qmp_failure("protect the server's memory on its way", &e))?;
        let nodes = carried(&arriving.layout.devices, arriving.shared_disks);
        let disks_port = match nodes.is_empty() {
            true => None,
            false => Some(self.export(live, config, &nodes).await?),
        };
        let memory_port = self
            .at_a_port(live, "migrate-incoming", |at| json!({"uri": format!("tcp:{at}")}))
            .await?;
        let listens = MoveAddress {
            address: self.move_address()?,
            memory_port,
            disks_port,
        };
        fault_point!("hypervisor.qemu.arrival-listens", internal("fault point"));
        self.save(entry, |r| {
            if let Some(a) = &mut r.arriving {
                a.listens = Some(listens);
            }
        })
        .await
    }

    /// Lets the source write to the disks; answers the port.
    async fn export(&self, live: &Live, config: Option<&Path>, nodes: &[String]) -> Result<u16, Failure> {
        let failed = |e: QmpError| qmp_failure("take the server's disks", &e);
        if let (true, Some(path)) = (nodes.iter().any(|n| n == "config"), config) {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .custom_flags(libc::O_NOFOLLOW)
                .open(path)
                .map_err(|e| disk_error("open the config drive", &e))?;
            suspend::hand_over(live, FDSET, file, "take the server's config drive").await?;
            let node = json!({
                "driver": "raw", "node-name": CONFIG,
                "file": {"driver": "file", "filename": format!("/dev/fdset/{FDSET}"), "locking": "off"},
            });
            live.execute("blockdev-add", node, QMP_DEADLINE).await.map_err(failed)?;
        }
        let port = self
            .at_a_port(live, "nbd-server-start", |at| {
                let (host, port) = (at.ip().to_string(), at.port().to_string());
                json!({"addr": {"type": "inet", "data": {"host": host, "port": port}}, "tls-creds": tls::CREDENTIALS})
            })
            .await?;
        for name in nodes {
            let node = if name == "config" { CONFIG } else { name };
            let export =
                json!({"type": "nbd", "id": format!("move-{name}"), "node-name": node, "name": name, "writable": true});
            live.execute("block-export-add", export, QMP_DEADLINE)
                .await
                .map_err(failed)?;
        }
        Ok(port)
    }

    fn move_address(&self) -> Result<IpAddr, Failure> {
        let none = || unsupported("the host has no address at which other hosts reach it (agent.underlay)".into());
        self.underlay.get().map(|u| u.address).ok_or_else(none)
    }

    /// Has QEMU listen at a free port of the range.
    async fn at_a_port(&self, live: &Live, command: &str, arguments: fn(SocketAddr) -> Value) -> Result<u16, Failure> {
        let mut last = None;
        for _ in 0..PORT_TRIES {
            let port = free_port(self)?;
            let at = arguments((self.move_address()?, port).into());
            match live.execute(command, at, QMP_DEADLINE).await {
                Ok(_) => return Ok(port),
                Err(e @ QmpError::Refused { .. }) => last = Some(e),
                Err(e) => return Err(qmp_failure("listen for the server", &e)),
            }
        }
        let last = last.map(|e| e.to_string()).unwrap_or_default();
        Err(hypervisor_error("the hypervisor could not listen for the server", last))
    }

    /// When all has come, lets the guest go on here.
    pub(super) async fn look_for_arrival(self: &Arc<Self>, entry: &Arc<Entry>, live: &Live) -> Result<(), Failure> {
        let Some(record) = entry.record() else {
            return Ok(());
        };
        if record.arriving.as_ref().is_none_or(|a| a.end.is_some()) {
            return Ok(());
        }
        match suspend::status(live).await?.as_deref() {
            Some("completed") => {}
            _ => return Ok(()),
        }
        // The source has let go of the disks, and nobody else may write to them now.
        let _ = live.execute("nbd-server-stop", Value::Null, STOP_DEADLINE).await;
        fault_point!("hypervisor.qemu.arrival-complete", internal("fault point"));
        self.save(entry, |r| {
            if let Some(a) = &mut r.arriving {
                a.came = true;
            }
        })
        .await?;
        if record.power == Power::Running && live.run() != Run::Running {
            self.go(entry, live).await?;
        }
        tracing::info!(guest = %entry.id, "a guest has come from another host");
        fault_point!("hypervisor.qemu.arrival-runs", internal("fault point"));
        for (command, arguments) in [
            ("blockdev-del", json!({"node-name": CONFIG})),
            ("remove-fd", json!({"fdset-id": FDSET})),
            ("migrate-set-parameters", json!({"tls-creds": ""})),
        ] {
            let _ = live.execute(command, arguments, QMP_DEADLINE).await;
        }
        tls::take(live, &entry.dir).await?;
        self.save(entry, |r| {
            if let Some(a) = &mut r.arriving {
                a.end = Some(MoveEnd::Done);
            }
        })
        .await
    }

    /// The watcher heard that a migration came to an end. What the process does not answer is asked again for as long as it
    /// lives: the guest is nowhere else.
    pub(crate) async fn after_migration(self: Arc<Self>, entry: Arc<Entry>, pid: i32) {
        loop {
            if entry.record().is_none_or(|r| r.arriving.is_none()) {
                return;
            }
            let guard = Arc::clone(&entry.op).lock_owned().await;
            let Some(live) = entry.live().filter(|l| l.pid == pid) else {
                return;
            };
            let looked = self.look_for_arrival(&entry, &live).await;
            drop(guard);
            let _ = self.events.send(entry.id);
            let Err(e) = looked else {
                return;
            };
            tracing::error!(guest = %entry.id, message = e.message, detail = e.detail, "a guest that has arrived could not be let go");
            live.until(AGAIN, |s| s.gone).await;
        }
    }

    /// The process that waited, or had the guest already, has ended.
    pub(super) async fn lost(&self, entry: &Arc<Entry>) -> Result<(), Failure> {
        let failure = hypervisor_error(
            "the process that waited for the server on its new host has ended",
            launch::log_tail(entry),
        );
        tls::remove(&entry.dir).map_err(|e| disk_error("remove the key of the move", &e))?;
        self.save(entry, |r| {
            if let Some(a) = &mut r.arriving
                && a.end.is_none()
            {
                a.end = Some(match a.came {
                    true => MoveEnd::Done,
                    false => MoveEnd::Failed(failure),
                });
            }
        })
        .await
    }
}

/// A port of the range at which nobody listens.
fn free_port(inner: &Inner) -> Result<u16, Failure> {
    let address = inner.move_address()?;
    let listen = |port: u16| TcpListener::bind((address, port)).and_then(|l| l.local_addr());
    let mut why = io::Error::from(io::ErrorKind::AddrInUse);
    for port in inner.move_ports.clone() {
        match listen(port) {
            Ok(at) => return Ok(at.port()),
            Err(e) => why = e,
        }
    }
    let (from, to) = (inner.move_ports.start(), inner.move_ports.end());
    Err(hypervisor_error(
        format!("the host has no free port from {from} to {to} to listen for the server"),
        why,
    ))
}
