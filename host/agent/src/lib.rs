//! The agent of one host: closes the gap between what control desires and what is there.
//!
//! One task per guest, one for the network, one for the link to control. The desired set is kept on disk,
//! so that guests, DHCP and metadata work, and come back after a reboot of the host, while control is away.
//!
//! Invariants: absence is never delete (only a tombstone with a higher (epoch, generation) removes);
//! an unknown guest is left running and reported; nothing here decides where something shall be.

mod drivers;
mod guests;
mod journal;
mod lease;
mod link;
mod membership;
mod nets;
mod report;
mod shared_disks;
mod snapshots;
mod store;
mod tunnel;
mod turns;
mod uids;

pub use drivers::{Drivers, accelerator, open_drivers};
pub use lease::{end_bound, keep, lease_left};
pub use membership::join;
pub use shared_disks::SharedDisks;

use haneul_core::config::Config;
use haneul_core::{Error, Result};
use haneul_netdev::{MetadataSource, PasswordRefused};
use std::path::Path;
use std::sync::Arc;
use tokio::sync::Notify;
use uuid::Uuid;

/// What all tasks of the agent share.
pub(crate) struct Shared {
    pub config: Config,
    pub host_id: Uuid,
    pub drivers: Drivers,
    pub store: store::Store,
    pub reports: report::Reports,
    /// What control has been told of each network object: order, and what failed. Emptied by a new link.
    pub net_told: nets::Told,
    /// Rung when a network object changed.
    pub net_dirty: Notify,
    /// What the data plane has, for guests that wait for their ports.
    pub net_ready: tokio::sync::watch::Sender<nets::Ready>,
    pub link: link::Handle,
    pub control: membership::Control,
    pub turns: turns::Turns,
}

impl Shared {
    fn open(config: Config, host_id: Uuid, drivers: Drivers) -> Result<Self> {
        let dir = config.agent_dir();
        let (net_ready, _) = tokio::sync::watch::channel(Default::default());
        Ok(Self {
            store: store::Store::open(&dir.join(JOURNAL), config.agent.first_uid)?,
            reports: report::Reports::default(),
            net_told: nets::Told::default(),
            net_dirty: Notify::new(),
            net_ready,
            link: link::Handle::default(),
            control: membership::Control::open(&config)?,
            turns: turns::Turns::new(&dir),
            config,
            host_id,
            drivers,
        })
    }
}

/// What this host is told to hold, in the agent's directory.
pub(crate) const JOURNAL: &str = "desired.journal";

/// The answer to a guest that posts its password waits so long for control, so that whoever has seen the answer finds
/// the password there. It is durable here already: while control is away, the answer does not fail for it.
const PASSWORD_TOLD: std::time::Duration = std::time::Duration::from_secs(3);

/// The data plane's first round is waited for so long, where it must be over before anything else.
const FIRST_ROUND: std::time::Duration = std::time::Duration::from_secs(10);

struct Documents(Arc<Shared>);

impl MetadataSource for Documents {
    fn by_port(&self, port: Uuid) -> Option<(Uuid, String, haneul_agent_api::Metadata)> {
        self.0.store.guest_of_port(port)
    }

    fn password(&self, guest: Uuid) -> Option<String> {
        self.0.store.password(guest)
    }

    fn set_password(&self, guest: Uuid, password: &str) -> std::result::Result<(), PasswordRefused> {
        if let Some(posted) = self.0.store.set_password(guest, password)? {
            let clears = posted.clears;
            self.0.reports.password(posted);
            self.0.reports.wait_for_password(guest, clears, PASSWORD_TOLD);
        }
        Ok(())
    }
}

/// Runs the agent until `stop` resolves. Guests are not touched by its end.
pub async fn run(config: Config, stop: impl Future<Output = ()>) -> Result<()> {
    let dir = config.agent_dir();
    haneul_core::durable::make_dir(&dir, 0o700)?;
    let host_id = host_id(&dir)?;
    let drivers = open_drivers(&config, host_id).await?;
    let shared = Arc::new(Shared::open(config, host_id, drivers)?);
    shared.drivers.net.set_metadata(Arc::new(Documents(shared.clone())));
    let nets = tokio::spawn(nets::run(shared.clone(), nets::LOOK));
    open_shared_disks(&shared).await?;
    lease::granted(&shared)?;
    let guests = guests::Guests::start(shared.clone()).await;
    let fences = lease::Fences::start(shared.clone());
    let called = shared.clone();
    let turns = tokio::spawn(async move {
        if let Err(e) = turns::Turns::give(&called).await {
            tracing::error!(error = %e, "the order of a boot could not be ended");
        }
    });
    let link = tokio::spawn(link::run(shared.clone(), guests.clone(), fences));
    stop.await;
    for task in [link, nets, turns] {
        task.abort();
    }
    Ok(())
}

/// Opens the directory that hosts share, which may hang, or not be there: what the data plane must take down is down before.
async fn open_shared_disks(shared: &Arc<Shared>) -> Result<()> {
    let mut round = shared.net_ready.subscribe();
    shared.net_dirty.notify_one();
    if lease::routers_may_be_elsewhere(shared).is_some() {
        let _ = tokio::time::timeout(FIRST_ROUND, round.changed()).await;
    }
    let this = shared.clone();
    let opened = tokio::task::spawn_blocking(move || shared_disks::open(&this.config, this.host_id));
    if let Some(disks) = opened.await.map_err(Error::internal)?? {
        let _ = shared.drivers.shared.set(disks);
    }
    Ok(())
}

/// The host's id: a UUID in its state directory, made once, by whichever of the host's processes comes first.
pub fn host_id(dir: &Path) -> Result<Uuid> {
    let path = dir.join("host-id");
    match std::fs::read_to_string(&path) {
        Ok(text) => Uuid::try_parse(text.trim()).map_err(|e| Error::internal(format!("{}: {e}", path.display()))),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            let new = Uuid::new_v4();
            let own = dir.join(format!("host-id-{new}"));
            journal::write_durably(&own, format!("{new}\n").as_bytes())?;
            // A name is given once; who comes second takes what is there.
            let given = std::fs::hard_link(&own, &path);
            std::fs::remove_file(&own)?;
            haneul_core::durable::sync_dir(dir)?;
            match given {
                Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => Err(e.into()),
                _ => host_id(dir),
            }
        }
        Err(e) => Err(e.into()),
    }
}

/// What the machine calls itself; shown to administrators, never used to find it.
fn host_name(config: &Config) -> String {
    if let Some(name) = &config.agent.name {
        return name.clone();
    }
    nix::unistd::gethostname().map_or_else(|_| "host".into(), |n| n.to_string_lossy().into_owned())
}

/// Stops all guests of this host (`haneul down`), asking them by ACPI first when `gently`; says how many ran.
/// Their records stay, and the next start of the agent brings them back. The agent must not run.
pub async fn stop_guests(config: &Config, gently: bool) -> Result<usize> {
    let dir = config.agent_dir();
    if !dir.exists() {
        return Ok(0);
    }
    let drivers = open_drivers(config, host_id(&dir)?).await?;
    let seen = drivers.hypervisor.observe_all().await.map_err(failed)?;
    // All at once: each may take its time to shut down.
    let stops = seen
        .iter()
        .filter(|g| {
            use haneul_agent_api::GuestState::{Stopped, Suspended};
            !matches!(g.state, Stopped | Suspended)
        })
        .map(|g| drivers.hypervisor.stop(g.id, gently));
    let done = futures_util::future::join_all(stops).await;
    let count = done.len();
    done.into_iter()
        .collect::<std::result::Result<Vec<()>, _>>()
        .map_err(failed)?;
    Ok(count)
}

/// Takes away every guest and the whole data plane of this host (`down --purge`). The agent must not run.
pub async fn purge(config: &Config) -> Result<()> {
    let dir = config.agent_dir();
    if !dir.exists() {
        return Ok(());
    }
    let drivers = open_drivers(config, host_id(&dir)?).await?;
    for seen in drivers.hypervisor.observe_all().await.map_err(failed)? {
        drivers.hypervisor.remove(seen.id).await.map_err(failed)?;
    }
    drivers.hypervisor.purge();
    drivers.net.purge().await.map_err(failed)
}

pub(crate) fn failed(f: haneul_agent_api::Failure) -> Error {
    Error::unavailable(f.message).with_private(f.detail)
}
