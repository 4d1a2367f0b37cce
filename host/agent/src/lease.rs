//! The agent's side of leases (docs/adr/0009, "Fencing"): takes control's grants, starts no guest on shared disks without a
//! lease, and watches over hosts that control has lost. The lease itself is the supervisor's, which outlives the agent.

use crate::guests::Guests;
use crate::{Shared, membership};
use haneul_agent_api::{Failure, FailureCode, Fence, FenceState, Kind, Object, ObservedFence};
use haneul_core::config::Config;
use haneul_core::{Error, Result, fault_point};
use haneul_lease::{Keeper, Local, Place, Seen, Settings, Watch, boottime};
use std::collections::HashMap;
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use uuid::Uuid;

/// Left of the lease when a guest is started, at the least.
const ROOM: Duration = Duration::from_secs(1);
/// A guest waits so long before that is said: the lease may begin in this moment, with the host's first beat or the next.
const GRACE: Duration = Duration::from_secs(5);
/// Between looks at the lease while a guest waits for it.
const LOOK: Duration = Duration::from_millis(200);
/// Between looks at the beats of another host.
const WATCH: Duration = Duration::from_secs(1);
/// Longest time that control may take to accept a connection.
const REACH: Duration = Duration::from_secs(1);
/// A host that was cut off for so long is not about to come back by itself in the next moment.
const CUT: Duration = Duration::from_secs(5);

/// This host's files of its lease.
pub(crate) fn local(config: &Config) -> Local {
    Local::of(&config.agent_dir())
}

/// Begins to keep this host's lease, for the supervisor; `None` where no disks are shared.
///
/// # Errors
/// The agent's directory cannot be used.
pub fn keep(config: &Config, wake: Box<dyn Fn() + Send>) -> Result<Option<Keeper>> {
    let Some(shared) = &config.agent.shared_disks else {
        return Ok(None);
    };
    let dir = config.agent_dir();
    haneul_core::durable::make_dir(&dir, 0o700)?;
    let settings = Settings {
        host: crate::host_id(&dir)?,
        place: Place::of(shared),
        local: local(config),
        term: Duration::from_secs(config.agent.lease_term_s),
        reach: reach(config),
        wake,
    };
    Ok(Some(Keeper::start(settings)?))
}

/// What is left of this host's lease.
pub fn lease_left(config: &Config) -> Duration {
    local(config).life().left().unwrap_or_default()
}

/// Ends the guests that end with the lease, without the agent; answers how many had a process.
///
/// # Errors
/// A process is still there.
pub fn end_bound(config: &Config) -> Result<usize> {
    let (dir, local) = (config.agent_dir(), local(config));
    // For the next agent.
    local.lapse()?;
    let bound = local.bound()?;
    Ok(match config.agent.hypervisor.as_str() {
        "fake" => haneul_hypervisor::fake::end(&dir.join("guests"), &bound)?,
        _ => haneul_hypervisor::qemu::end(&dir.join("qemu"), &bound)?,
    })
}

/// Whether control can be reached. The agent's link says so where it is open; otherwise whoever listens there does.
fn reach(config: &Config) -> Box<dyn Fn() -> bool + Send> {
    let (link, membership) = (config.link_file(), config.membership_file());
    Box::new(move || {
        if std::fs::read_to_string(&link).is_ok_and(|said| said.starts_with(crate::link::CONNECTED)) {
            return true;
        }
        // Control that is on this machine is not cut off from it.
        let Some(controls) = membership::controls_of(&membership) else {
            return true;
        };
        let addresses = controls.iter().filter_map(|c| c.to_socket_addrs().ok());
        addresses
            .flatten()
            .any(|a| TcpStream::connect_timeout(&a, REACH).is_ok())
    })
}

fn failure(why: &str) -> Failure {
    Failure {
        code: FailureCode::Unsupported,
        message: format!(
            "the server's disks can be reached from other hosts, and its host has no lease to run it: {why}"
        ),
        detail: String::new(),
    }
}

/// Waits until the host has a lease to start the guest with, and binds it to that. `waits` is told why it must wait.
pub(crate) async fn hold(shared: &Shared, guest: Uuid, waits: impl Fn(Failure)) -> std::result::Result<(), Failure> {
    let local = local(&shared.config);
    let (mut told, begun) = (None, boottime());
    loop {
        let why = match local.life().left() {
            Ok(left) if left > ROOM => break,
            Ok(_) => "it is about to end".to_owned(),
            Err(why) => why,
        };
        if boottime() > begun + GRACE && told.as_ref() != Some(&why) {
            tracing::warn!(%guest, why, "a server waits for the host's lease");
            waits(failure(&why));
            told = Some(why);
        }
        tokio::time::sleep(LOOK).await;
    }
    let bound = tokio::task::spawn_blocking(move || local.bind(guest)).await;
    fault_point!("agent.guest.bound");
    bound.map_err(std::io::Error::other).flatten().map_err(|e| Failure {
        code: FailureCode::DiskError,
        message: "the host could not note that the server ends with its lease".into(),
        detail: e.to_string(),
    })
}

/// Whether a guest ends with the lease, and that has ended.
pub(crate) fn ended(shared: &Shared, guest: Uuid) -> bool {
    let local = local(&shared.config);
    local.is_bound(guest) && local.life().left().is_err()
}

/// Why routers must not run here: this host had no lease for a while, in which control may have given them to another host,
/// whose addresses they would answer for.
pub(crate) fn routers_may_be_elsewhere(shared: &Shared) -> Option<Failure> {
    shared.config.agent.shared_disks.as_ref()?;
    let why = lapsed(&local(&shared.config))?;
    Some(Failure {
        code: FailureCode::NetworkError,
        message: format!("the router may be on another host by now: {why}"),
        detail: String::new(),
    })
}

/// Why what this host carried before may be another's.
fn lapsed(local: &Local) -> Option<String> {
    let life = local.life();
    let left = life.left();
    if left.is_err()
        && let Err(e) = local.lapse()
    {
        tracing::error!(error = %e, "the end of the lease could not be noted");
    }
    match left {
        Err(why) => Some(format!("this host has no lease: {why}")),
        Ok(_) if local.has_lapsed() => {
            Some("this host had no lease for a while, and has not heard from control since".into())
        }
        Ok(_) => None,
    }
}

/// Control has said all that it has to say, and it is stored: what this host is to carry, it may, if it has a lease.
pub(crate) fn heard(shared: &Shared) {
    let local = local(&shared.config);
    if local.has_lapsed() && local.life().left().is_ok() {
        local.mend();
        shared.net_dirty.notify_one();
    }
}

/// Ends guests and routers with the lease when nobody else does: the supervisor may be dead, and the agent alive.
pub(crate) async fn end_with_it(shared: Arc<Shared>, guests: Guests) {
    if shared.config.agent.shared_disks.is_none() {
        return;
    }
    let local = local(&shared.config);
    let (mut ended, mut elsewhere) = (false, false);
    loop {
        tokio::time::sleep(WATCH).await;
        let before = std::mem::replace(&mut elsewhere, lapsed(&local).is_some());
        if elsewhere && !before {
            shared.net_dirty.notify_one();
        }
        if shared.link.has_heard() {
            heard(&shared);
        }
        let left = local.life().left();
        if let (false, Err(why)) = (ended, &left) {
            ended = true;
            for id in local.bound().unwrap_or_default() {
                tracing::warn!(guest = %id, why, "a server ends with the host's lease");
                if let Err(f) = shared.drivers.hypervisor.stop(id, false).await {
                    tracing::error!(guest = %id, message = f.message, detail = f.detail, "a server could not be ended");
                    ended = false;
                }
                guests.poke(id);
            }
        }
        ended &= left.is_err();
    }
}

/// The grant that is stored: behind everything that was removed here meanwhile.
pub(crate) fn granted(shared: &Shared) -> Result<()> {
    for id in shared.store.ids(Kind::Lease) {
        if let Some(Object::Lease(lease)) = shared.store.get(Kind::Lease, id).desired.map(|d| d.object) {
            local(&shared.config).set_grant(lease.token).map_err(Error::internal)?;
        }
    }
    Ok(())
}

/// The watches over other hosts.
#[derive(Clone)]
pub(crate) struct Fences {
    shared: Arc<Shared>,
    tasks: Arc<Mutex<HashMap<Uuid, watch::Sender<u64>>>>,
}

impl Fences {
    pub fn start(shared: Arc<Shared>) -> Fences {
        let fences = Fences {
            shared,
            tasks: Arc::default(),
        };
        fences.poke_all();
        fences
    }

    /// After a greeting everything is said anew.
    pub fn poke_all(&self) {
        for id in self.shared.store.ids(Kind::Fence) {
            self.poke(id);
        }
    }

    /// What shall become of a host has changed, or shall be said again.
    pub fn poke(&self, host: Uuid) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(task) = tasks.get(&host)
            && !task.is_closed()
        {
            task.send_modify(|n| *n += 1);
            return;
        }
        let (send, receive) = watch::channel(0);
        tasks.insert(host, send);
        tokio::spawn(watch_over(self.shared.clone(), host, receive));
    }
}

async fn watch_over(shared: Arc<Shared>, host: Uuid, mut changed: watch::Receiver<u64>) {
    let mut watching: Option<(Fence, Watch)> = None;
    let mut said = None;
    loop {
        let entry = shared.store.get(Kind::Fence, host);
        if let Some(t) = entry.tombstone {
            match shared.store.buried(&t) {
                Ok(()) => shared.reports.gone(t),
                Err(e) => tracing::error!(error = %e, "a tombstone could not be laid down"),
            }
            watching = None;
        } else if let Some(desired) = entry.desired
            && let Object::Fence(fence) = desired.object
        {
            let fresh = || {
                let term = Duration::from_secs(shared.config.agent.lease_term_s);
                (fence.clone(), Watch::new(host, fence.token, term, boottime()))
            };
            let (_, mut watch) = watching
                .take()
                .filter(|(f, _)| f.token == fence.token)
                .unwrap_or_else(fresh);
            let (at_once, me) = (fence.at_once, shared.host_id);
            let place = shared.config.agent.shared_disks.as_deref().map(Place::of);
            let looked = tokio::task::spawn_blocking(move || {
                let seen = match &place {
                    Some(place) => watch.round(place, me, at_once),
                    None => Seen::Blind("agent.shared_disks is not set on this host".into()),
                };
                (watch, seen)
            });
            let Ok((watch, seen)) = looked.await else { return };
            let state = match seen {
                Seen::Silent => FenceState::Silent,
                Seen::Alive { agent, cut } => FenceState::Alive { agent, cut: cut >= CUT },
                Seen::Ended => FenceState::Ended,
                Seen::Blind(why) => FenceState::Blind(why),
            };
            fault_point!("agent.fence.seen");
            let news = ObservedFence {
                id: host,
                epoch: desired.epoch,
                generation: desired.generation,
                token: fence.token,
                state,
            };
            if said.as_ref() != Some(&news) {
                tracing::info!(%host, token = news.token, state = ?news.state, "watching a host that control has lost");
                shared.reports.fence(news.clone());
                said = Some(news);
            }
            watching = Some((fence, watch));
        }
        let pause = match watching {
            Some(_) => WATCH,
            None => Duration::from_secs(3600),
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            r = changed.changed() => {
                if r.is_err() {
                    return;
                }
                said = None;
            }
        }
    }
}
