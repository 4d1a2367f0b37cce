//! One task per guest: the newest desired state wins over the one that is being carried out.

use crate::snapshots::Making;
use crate::{Shared, failed, lease};
use haneul_agent_api::{
    Failure, FailureCode, Guest, GuestState, Kind, MoveState, Nic, Object, ObservedGuest, Power, Progress, Tombstone,
    documents,
};
use haneul_blockdev::BlockDriver;
use haneul_core::{Result, fault_point};
use haneul_hypervisor::Resources;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use uuid::Uuid;

/// How long a guest waits for its ports before it is a failure.
const PORTS_DEADLINE: Duration = Duration::from_secs(30);
/// Pause before a pull that control could not serve is tried again.
const PULL_RETRY: Duration = Duration::from_millis(500);
const PULL_ATTEMPTS: u32 = 60;
/// Bytes. What goes into one is limited by control to far less.
const MAX_CONFIG_DRIVE: u64 = 64 << 20;

/// The tasks, by guest.
#[derive(Clone)]
pub(crate) struct Guests {
    shared: Arc<Shared>,
    tasks: Arc<Mutex<HashMap<Uuid, watch::Sender<u64>>>>,
}

impl Guests {
    /// Adopts what runs, starts a task for each desired guest, and reports the rest as unknown.
    pub async fn start(shared: Arc<Shared>) -> Guests {
        let guests = Guests {
            shared: shared.clone(),
            tasks: Arc::default(),
        };
        match shared.drivers.hypervisor.observe_all().await {
            Ok(all) => {
                let known = shared.store.ids(Kind::Guest);
                for mut seen in all {
                    if !known.contains(&seen.id) {
                        // Left running: an empty or restored control plane must not kill guests.
                        seen.unknown = true;
                        tracing::warn!(guest = %seen.id, "a guest that nobody desires was found and left as it is");
                        shared.reports.guest(seen);
                    }
                }
            }
            Err(f) => tracing::error!(message = f.message, detail = f.detail, "guests could not be adopted"),
        }
        for id in shared.store.ids(Kind::Guest) {
            guests.poke(id);
        }
        tokio::spawn(lease::end_with_it(shared.clone(), guests.clone()));
        if let Some(mut events) = shared.drivers.hypervisor.events() {
            tokio::spawn(async move {
                while let Some(id) = events.recv().await {
                    look_again(&shared, id).await;
                }
            });
        }
        guests
    }

    /// The guest's desired state changed.
    pub fn poke(&self, id: Uuid) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(task) = tasks.get(&id)
            && !task.is_closed()
        {
            task.send_modify(|n| *n += 1);
            return;
        }
        let (send, receive) = watch::channel(0);
        tasks.insert(id, send);
        tokio::spawn(task(self.shared.clone(), id, receive));
    }

    /// Everything known about guests is reported again (after a greeting).
    pub async fn report_all(&self) {
        for id in self.shared.store.ids(Kind::Guest) {
            self.poke(id);
        }
    }
}

/// Reports a guest of which something changed without a new desired state.
async fn look_again(shared: &Arc<Shared>, id: Uuid) {
    if lease::ended(shared, id) {
        // That is why it has no process; its task says so.
        return;
    }
    let Some(mut seen) = shared.drivers.hypervisor.observe(id).await else {
        return;
    };
    if let Some((epoch, generation, _)) = shared.store.guest(id) {
        (seen.epoch, seen.generation) = (epoch, generation);
        // What says how far it is with its move has not done all yet.
        seen.settled = !seen
            .moving
            .as_ref()
            .is_some_and(|m| matches!(m.state, MoveState::Moving(_)));
        shared.reports.guest(seen);
    }
}

async fn task(shared: Arc<Shared>, id: Uuid, mut changed: watch::Receiver<u64>) {
    let mut making: Option<Making> = None;
    loop {
        changed.borrow_and_update();
        let entry = shared.store.get(Kind::Guest, id);
        if let Some(t) = entry.tombstone {
            making = None;
            shared.reports.snapshot(id, None);
            if let Err(e) = bury(&shared, &t).await {
                tracing::error!(guest = %id, error = %e, "the guest could not be removed");
                tokio::select! {
                    () = tokio::time::sleep(Duration::from_secs(2)) => continue,
                    r = changed.changed() => if r.is_err() { return } else { continue },
                }
            }
            if shared.store.get(Kind::Guest, id).desired.is_some() {
                // It is wanted again since, and whoever said so may have been heard before this.
                continue;
            }
        } else if let Some((epoch, generation, guest)) = shared.store.guest(id) {
            if making.as_ref().is_none_or(|m| Some(m.image) != guest.snapshot) {
                making = None;
                shared.reports.snapshot(id, None);
            }
            // A newer desired state drops what is under way: every driver call is cancel-safe.
            let brought = tokio::select! {
                brought = close_gap(&shared, epoch, generation, &guest) => brought,
                r = changed.changed() => if r.is_err() { return } else { continue },
            };
            if brought && making.is_none() {
                making = guest.snapshot.map(|image| Making::begin(&shared, &guest, image));
            }
        }
        loop {
            tokio::select! {
                r = changed.changed() => if r.is_err() { return } else { break },
                last = Making::step(&mut making) => {
                    if last {
                        // A copy that failed may have left the guest waiting.
                        break;
                    }
                    look_again(&shared, id).await;
                }
            }
        }
    }
}

async fn bury(shared: &Arc<Shared>, t: &Tombstone) -> Result<()> {
    shared.drivers.hypervisor.remove(t.id).await.map_err(failed)?;
    fault_point!("agent.guest.removed");
    delete_disks(shared, t).await.map_err(failed)?;
    let _ = std::fs::remove_file(config_drive_path(shared, t.id));
    shared.store.free_uid(t.id)?;
    lease::local(&shared.config).unbind(t.id);
    fault_point!("agent.guest.disk-deleted");
    shared.store.buried(t)?;
    fault_point!("agent.guest.buried");
    shared.reports.gone(t.clone());
    // Its ports may go now.
    shared.net_dirty.notify_one();
    Ok(())
}

/// The host's own, and those that hosts share when no host shall have the guest any more.
async fn delete_disks(shared: &Arc<Shared>, t: &Tombstone) -> Result<(), Failure> {
    let drivers = &shared.drivers;
    drivers.block.delete(t.id).await?;
    if !t.disks {
        return Ok(());
    }
    match shared.store.get(Kind::Guest, t.id).desired.map(|d| d.object) {
        Some(Object::Guest(g)) => drivers.block_of(&g)?.delete(t.id).await,
        // It never heard of the guest, which has left its disks there on other hosts.
        _ => drivers.newest_block().delete(t.id).await,
    }
}

fn observed(guest: &Guest, epoch: u64, generation: u64, state: GuestState) -> ObservedGuest {
    ObservedGuest {
        id: guest.id,
        epoch,
        generation,
        settled: false,
        state,
        failure: None,
        soft_reboots: 0,
        hard_reboots: 0,
        rebuilds: 0,
        progress: None,
        unknown: false,
        started_at: None,
        vcpus: guest.vcpus,
        memory_mib: guest.memory_mib,
        disk_gib: guest.root.size_gib,
        snapshot: None,
        layout: None,
        moving: None,
    }
}

/// What is said of a guest that this host may not run now.
fn refused(guest: &Guest, epoch: u64, generation: u64, f: Failure) -> ObservedGuest {
    ObservedGuest {
        settled: true,
        failure: Some(f),
        ..observed(guest, epoch, generation, GuestState::Failed)
    }
}

/// False when it could not be done.
async fn close_gap(shared: &Arc<Shared>, epoch: u64, generation: u64, guest: &Guest) -> bool {
    fault_point!("agent.guest.desired");
    let result = bring(shared, epoch, generation, guest).await;
    fault_point!("agent.guest.applied");
    let seen = match result {
        Ok(mut seen) => {
            (seen.epoch, seen.generation, seen.settled) = (epoch, generation, true);
            seen
        }
        Err(f) => {
            tracing::error!(guest = %guest.id, request_id = guest.request_id, code = ?f.code, message = f.message, detail = f.detail, "the guest could not be brought to what is desired");
            let mut seen = shared
                .drivers
                .hypervisor
                .observe(guest.id)
                .await
                .unwrap_or_else(|| observed(guest, epoch, generation, GuestState::Failed));
            (seen.epoch, seen.generation, seen.settled) = (epoch, generation, true);
            seen.failure = Some(f);
            seen
        }
    };
    let brought = seen.failure.is_none();
    shared.reports.guest(seen);
    shared.turns.brought(guest.id);
    brought
}

fn progress(shared: &Arc<Shared>, epoch: u64, generation: u64, guest: &Guest, what: &str, percent: Option<u8>) {
    let mut seen = observed(guest, epoch, generation, GuestState::Building);
    seen.progress = Some(Progress {
        what: what.into(),
        percent,
    });
    shared.reports.guest(seen);
}

async fn bring(shared: &Arc<Shared>, epoch: u64, generation: u64, guest: &Guest) -> Result<ObservedGuest, Failure> {
    let drivers = &shared.drivers;
    let arrives = arrives(shared, guest).await;
    if guest.power == Power::Stopped && arrives.is_none() && drivers.hypervisor.observe(guest.id).await.is_none() {
        // Never started here and shall not run: nothing to make ready yet, and nothing that a rebuild would have to replace.
        return Ok(ObservedGuest {
            rebuilds: guest.rebuilds,
            ..observed(guest, epoch, generation, GuestState::Stopped)
        });
    }
    if guest.leaving.is_some() {
        // Its disks are another host's, or about to be: nothing is made or removed there any more.
        let nothing = resources(shared, guest, Disks::default())?;
        return drivers.hypervisor.apply(epoch, generation, guest, nothing).await;
    }
    let block = drivers.block_of(guest)?;
    if guest.power == Power::Running && drivers.hypervisor.needs_start(guest).await {
        shared.turns.wait(guest.start_order).await;
    }
    if guest.shared_disks.is_some() {
        if let Some(seen) = rests(shared, guest).await {
            return Ok(seen);
        }
        // From here on the disks are written to, also of one that does not run: they may be another host's by now.
        lease::hold(shared, guest.id, |f| {
            shared.reports.guest(refused(guest, epoch, generation, f))
        })
        .await?;
    }
    pull(shared, block, epoch, generation, guest).await?;
    let disk = block.root(guest.id, guest.rebuilds, &guest.root).await?;
    let local = block.local(guest.id, guest.rebuilds, &guest.local_disks).await?;
    fault_point!("agent.guest.disk-made");
    let starts = drivers.hypervisor.needs_start(guest).await;
    if starts || drivers.hypervisor.needs_taps(guest).await {
        ports(shared, guest).await?;
    }
    if starts && guest.config_drive && !drivers.fake {
        match arrives {
            // The guest has read the one that it has: that comes along.
            Some(bytes) => empty_config_drive(shared, guest, bytes)?,
            None => config_drive(shared, guest)?,
        }
    }
    let disks = Disks {
        root: disk.path,
        format: disk.format,
        backing: disk.backing,
        local,
    };
    let resources = resources(shared, guest, disks)?;
    let seen = drivers.hypervisor.apply(epoch, generation, guest, resources).await?;
    block.prune(guest.id, guest.rebuilds, guest.snapshot).await?;
    Ok(seen)
}

/// A guest that does not run and shall not, and of which nothing else is wanted either: its disks are not touched.
async fn rests(shared: &Arc<Shared>, guest: &Guest) -> Option<ObservedGuest> {
    if lease::lease_left(&shared.config) > Duration::ZERO {
        return None;
    }
    let seen = shared.drivers.hypervisor.observe(guest.id).await?;
    let rests = matches!(
        (guest.power, seen.state),
        (Power::Stopped, GuestState::Stopped) | (Power::Suspended, GuestState::Suspended)
    );
    let is = (seen.rebuilds, seen.vcpus, seen.memory_mib, seen.disk_gib);
    let same = is == (guest.rebuilds, guest.vcpus, guest.memory_mib, guest.root.size_gib);
    let nothing_else = guest.arriving.is_none() && guest.snapshot.is_none();
    (rests && same && nothing_else).then_some(seen)
}

/// Disks that were made ready.
#[derive(Default)]
struct Disks {
    root: std::path::PathBuf,
    format: String,
    backing: Option<(std::path::PathBuf, String)>,
    local: Vec<std::path::PathBuf>,
}

fn resources(shared: &Arc<Shared>, guest: &Guest, disks: Disks) -> Result<Resources, Failure> {
    let uid = shared.store.uid(guest.id).map_err(|e| Failure {
        code: FailureCode::Internal,
        message: e.public().to_owned(),
        detail: e.private().to_owned(),
    })?;
    let net = shared.drivers.net.clone();
    Ok(Resources {
        root: disks.root,
        root_format: disks.format,
        backing: disks.backing,
        local: disks.local,
        config_drive: guest.config_drive.then(|| config_drive_path(shared, guest.id)),
        taps: Arc::new(move |port| net.open_tap(port)),
        uid,
    })
}

/// Bytes of the config drive of a guest that is on its way here.
async fn arrives(shared: &Arc<Shared>, guest: &Guest) -> Option<u64> {
    let arriving = guest.arriving.as_ref()?;
    let moving = shared.drivers.hypervisor.observe(guest.id).await.and_then(|o| o.moving);
    if moving.is_some_and(|m| m.id == arriving.id && m.state == MoveState::Arrived) {
        return None;
    }
    let drive = arriving.layout.devices.iter().find_map(|d| d.size);
    Some(drive.unwrap_or(0))
}

/// Pulls the image, again and again while control is away, reporting how far it is.
async fn pull(
    shared: &Arc<Shared>,
    block: &Arc<dyn BlockDriver>,
    epoch: u64,
    generation: u64,
    guest: &Guest,
) -> Result<(), Failure> {
    let image = guest.root.image.clone();
    for attempt in 1.. {
        let (link, id) = (shared.link.clone(), image.id);
        let (s, g) = (shared.clone(), guest.clone());
        let result = block
            .ensure_image(
                &image,
                Box::new(move || Box::pin(async move { link.image(id).await })),
                Arc::new(move |p| progress(&s, epoch, generation, &g, "pulling image", Some(p))),
            )
            .await;
        match result {
            Err(f) if f.code == FailureCode::ImageUnavailable && attempt < PULL_ATTEMPTS => {
                tokio::time::sleep(PULL_RETRY).await;
            }
            other => return other,
        }
    }
    Ok(())
}

/// Waits until the data plane has the guest's ports.
async fn ports(shared: &Arc<Shared>, guest: &Guest) -> Result<(), Failure> {
    let mut ready = shared.net_ready.subscribe();
    let all = ready.wait_for(|net| guest.nics.iter().all(|n| net.up.contains_key(&(Kind::Port, n.port_id))));
    if let Ok(Ok(_)) = tokio::time::timeout(PORTS_DEADLINE, all).await {
        return Ok(());
    }
    let why = {
        let net = shared.net_ready.borrow();
        let of = |n: &Nic| net.troubles.get(&(Kind::Port, n.port_id));
        net.failure.as_ref().or_else(|| guest.nics.iter().find_map(of)).cloned()
    };
    let (why, detail) = why.map_or_else(Default::default, |f| (format!(": {}", f.message), f.detail));
    Err(Failure {
        code: FailureCode::NetworkError,
        message: format!(
            "the host's network had not all of the server's {} ports after {} s{why}",
            guest.nics.len(),
            PORTS_DEADLINE.as_secs()
        ),
        detail,
    })
}

fn config_drive_path(shared: &Arc<Shared>, guest: Uuid) -> std::path::PathBuf {
    shared
        .config
        .agent_dir()
        .join("config-drives")
        .join(format!("{guest}.iso"))
}

fn config_drive(shared: &Arc<Shared>, guest: &Guest) -> Result<(), Failure> {
    let ports = shared.store.ports_of(guest);
    let ports: Vec<_> = ports.iter().map(|(p, n)| (p, n)).collect();
    let files = documents::config_drive(&documents::Source {
        guest_id: guest.id,
        project_id: &guest.project_id,
        metadata: &guest.metadata,
        ports: &ports,
        public_ipv4: None,
        password: "",
        random_seed: &haneul_core::id::random_bytes(512),
    });
    write_config_drive(shared, guest, |path| {
        haneul_hypervisor::iso::write_config_drive(path, &files)
    })
}

/// A file that the config drive of a guest from another host is written into.
fn empty_config_drive(shared: &Arc<Shared>, guest: &Guest, bytes: u64) -> Result<(), Failure> {
    if bytes > MAX_CONFIG_DRIVE {
        return Err(Failure {
            code: FailureCode::Unsupported,
            message: format!("a config drive of {bytes} bytes is larger than the {MAX_CONFIG_DRIVE} that any has"),
            detail: String::new(),
        });
    }
    write_config_drive(shared, guest, |path| std::fs::File::create(path)?.set_len(bytes))
}

fn write_config_drive(
    shared: &Arc<Shared>,
    guest: &Guest,
    write: impl FnOnce(&std::path::Path) -> std::io::Result<()>,
) -> Result<(), Failure> {
    let path = config_drive_path(shared, guest.id);
    let write = || {
        std::fs::create_dir_all(path.parent().unwrap_or(&path))?;
        write(&path)
    };
    write().map_err(|e: std::io::Error| Failure {
        code: FailureCode::DiskError,
        message: "the host could not write the config drive".into(),
        detail: e.to_string(),
    })
}
