//! The network's reconciler: one task, the whole desired set each time, then the tombstones.

use crate::{Shared, lease};
use haneul_agent_api::{Failure, Kind, ObservedNet};
use haneul_core::fault_point;
use haneul_netdev::Troubles;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use uuid::Uuid;

/// Epoch, generation and failure, by object.
type Said = HashMap<(Kind, Uuid), (u64, u64, Option<Failure>)>;

/// What guests wait for.
#[derive(Default)]
pub(crate) struct Ready {
    /// What is there, with the order of each.
    pub up: HashMap<(Kind, Uuid), (u64, u64)>,
    /// Why the last round failed as a whole.
    pub failure: Option<Failure>,
    /// Why single objects failed in it.
    pub troubles: Troubles,
}

/// What control has been told.
#[derive(Default)]
pub(crate) struct Told(Mutex<Said>);

impl Told {
    fn lock(&self) -> MutexGuard<'_, Said> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new link: everything is said anew.
    pub fn forget(&self) {
        self.lock().clear();
    }
}

/// Pause after a failed round; the next change wakes it at once.
const RETRY: Duration = Duration::from_secs(2);
/// The data plane is looked at so often though nobody has news: it compares with the kernel, then. Control hears of that
/// only when something is otherwise than it was.
pub(crate) const LOOK: Duration = Duration::from_secs(60);

pub(crate) async fn run(shared: Arc<Shared>, look: Duration) {
    loop {
        let _ = tokio::time::timeout(look, shared.net_dirty.notified()).await;
        let failed = round(&shared).await;
        if failed {
            // notify_one keeps a permit, so that a change during the pause is not lost.
            tokio::select! {
                () = tokio::time::sleep(RETRY) => shared.net_dirty.notify_one(),
                () = shared.net_dirty.notified() => shared.net_dirty.notify_one(),
            }
        }
    }
}

async fn round(shared: &Arc<Shared>) -> bool {
    let (mut desired, order) = shared.store.net_desired();
    let elsewhere = lease::routers_may_be_elsewhere(shared);
    if elsewhere.is_some() {
        desired.routers.iter_mut().for_each(|r| r.admin_state_up = false);
    }
    let applied = shared.drivers.net.apply(&desired).await;
    fault_point!("agent.net.applied");
    let (failure, mut troubles) = match applied {
        Ok(troubles) => (None, troubles),
        Err(f) => (Some(f), Troubles::new()),
    };
    if let Some(why) = elsewhere {
        let held_back = desired.routers.iter().map(|r| ((Kind::Router, r.id), why.clone()));
        troubles.extend(held_back);
    }
    let mut again = failure.is_some() || !troubles.is_empty();
    shared.net_ready.send_modify(|net| {
        // Once, not with every attempt.
        if let Some(f) = failure.as_ref().filter(|f| net.failure.as_ref() != Some(*f)) {
            tracing::error!(code = ?f.code, message = f.message, detail = f.detail, "the data plane could not be brought to what is desired");
        }
        for (key @ (kind, id), f) in &troubles {
            if net.troubles.get(key) != Some(f) {
                tracing::error!(?kind, %id, code = ?f.code, message = f.message, detail = f.detail, "could not be brought to what is desired");
            }
        }
        if failure.is_none() {
            let fine = order.iter().filter(|(kind, id, ..)| !troubles.contains_key(&(*kind, *id)));
            net.up = fine.map(|(kind, id, epoch, generation)| ((*kind, *id), (*epoch, *generation))).collect();
            net.troubles = troubles;
        }
        // What was there stays there when a round fails.
        net.failure = failure;
    });
    tell(shared, order);
    for t in shared.store.net_tombstones() {
        // Who is told from here on that it is wanted again waits until it is made anew; who was told before has taken the
        // tombstone back.
        shared.net_ready.send_modify(|net| {
            net.up.remove(&(t.kind, t.id));
        });
        if shared.store.get(t.kind, t.id).tombstone.as_ref() != Some(&t) {
            continue;
        }
        match shared.drivers.net.remove(t.kind, t.id).await {
            Ok(()) => {
                fault_point!("agent.net.removed");
                if let Err(e) = shared.store.buried(&t) {
                    tracing::error!(error = %e, "a tombstone could not be laid down");
                    again = true;
                    continue;
                }
                shared.net_told.lock().remove(&(t.kind, t.id));
                if shared.store.get(t.kind, t.id).desired.is_some() {
                    // It is wanted again since: this round has left it out.
                    shared.net_dirty.notify_one();
                }
                shared.reports.gone(t);
            }
            Err(f) => {
                tracing::error!(kind = ?t.kind, id = %t.id, message = f.message, detail = f.detail, "could not be removed");
                again = true;
            }
        }
    }
    again
}

/// Reports what control does not know yet: a round is about everything, a report only about news.
fn tell(shared: &Shared, order: Vec<(Kind, Uuid, u64, u64)>) {
    let net = shared.net_ready.borrow();
    let mut told = shared.net_told.lock();
    for (kind, id, epoch, generation) in order {
        let key = (kind, id);
        let failure = match net.up.get(&key) == Some(&(epoch, generation)) {
            true => None,
            false => net.failure.as_ref().or(net.troubles.get(&key)).cloned(),
        };
        let now = (epoch, generation, failure.clone());
        if told.get(&key) == Some(&now) {
            continue;
        }
        told.insert(key, now);
        shared.reports.net(
            kind,
            ObservedNet {
                id,
                epoch,
                generation,
                up: failure.is_none(),
                failure,
            },
        );
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(crate) mod tests {
    use super::*;
    use crate::Drivers;
    use crate::store::News;
    use haneul_agent_api::{Desired, FailureCode, NetDesired, Network, Object, Port, Report, Router, Tombstone};
    use haneul_core::config::Config;
    use haneul_netdev::{BoxFuture, MetadataSource, NetDriver, NetObserved, fake};
    use std::os::fd::OwnedFd;

    type Hook = Box<dyn FnOnce() + Send>;

    /// A data plane that fails as it is told, and in which something happens meanwhile.
    #[derive(Default)]
    struct Plane {
        fake: fake::Fake,
        /// What it was brought to last.
        applied: Mutex<NetDesired>,
        /// Is told of each round.
        on_apply: Mutex<Option<tokio::sync::mpsc::UnboundedSender<()>>>,
        says: Mutex<Option<Result<Troubles, Failure>>>,
        at_apply: Mutex<Option<Hook>>,
        at_remove: Mutex<Option<Hook>>,
    }

    fn act(hook: &Mutex<Option<Hook>>) {
        if let Some(hook) = hook.lock().unwrap().take() {
            hook();
        }
    }

    impl NetDriver for Plane {
        fn capabilities(&self) -> Vec<(String, String)> {
            self.fake.capabilities()
        }
        fn apply<'a>(&'a self, desired: &'a NetDesired) -> BoxFuture<'a, Result<Troubles, Failure>> {
            act(&self.at_apply);
            *self.applied.lock().unwrap() = desired.clone();
            if let Some(told) = self.on_apply.lock().unwrap().as_ref() {
                let _ = told.send(());
            }
            let says = self.says.lock().unwrap().clone();
            Box::pin(async move {
                let done = self.fake.apply(desired).await;
                says.unwrap_or(done)
            })
        }
        fn remove(&self, kind: Kind, id: Uuid) -> BoxFuture<'_, Result<(), Failure>> {
            act(&self.at_remove);
            self.fake.remove(kind, id)
        }
        fn open_tap(&self, port: Uuid) -> Result<OwnedFd, Failure> {
            self.fake.open_tap(port)
        }
        fn observe(&self) -> BoxFuture<'_, Result<NetObserved, Failure>> {
            self.fake.observe()
        }
        fn set_metadata(&self, _source: Arc<dyn MetadataSource>) {}
        fn purge(&self) -> BoxFuture<'_, Result<(), Failure>> {
            self.fake.purge()
        }
    }

    /// An agent of which only the network runs.
    pub(crate) struct Lab {
        pub(crate) shared: Arc<Shared>,
        plane: Arc<Plane>,
        dir: std::path::PathBuf,
    }

    impl Drop for Lab {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.dir).unwrap();
        }
    }

    impl Lab {
        pub(crate) fn new() -> Self {
            Lab::with(Config::default())
        }

        fn with(config: Config) -> Self {
            let dir = std::env::temp_dir().join(format!("haneul-nets-{}", haneul_core::id::hex()));
            let config = Config {
                state_dir: haneul_core::config::StateDir(dir.clone()),
                ..config
            };
            std::fs::create_dir_all(config.agent_dir()).unwrap();
            let plane = Arc::new(Plane::default());
            let drivers = Drivers {
                hypervisor: Arc::new(haneul_hypervisor::fake::Fake::open(&dir.join("guests")).unwrap()),
                net: plane.clone(),
                block: Arc::new(haneul_blockdev::fake::Fake::open(&dir.join("block")).unwrap()),
                shared: Default::default(),
                underlay: Default::default(),
                fake: true,
            };
            Lab {
                shared: Arc::new(Shared::open(config, Uuid::new_v4(), drivers).unwrap()),
                plane,
                dir,
            }
        }

        fn says(&self, what: Result<Troubles, Failure>) {
            *self.plane.says.lock().unwrap() = Some(what);
        }

        async fn ports(&self) -> Vec<Uuid> {
            self.plane.observe().await.unwrap().ports
        }

        /// What control hears of a round.
        async fn round(&self) -> (bool, Report) {
            let again = round(&self.shared).await;
            let report = tokio::time::timeout(Duration::from_millis(50), self.shared.reports.take(Uuid::nil()));
            (again, report.await.unwrap_or_default())
        }
    }

    fn failure(message: &str) -> Failure {
        Failure {
            code: FailureCode::NetworkError,
            message: message.into(),
            detail: String::new(),
        }
    }

    fn put(generation: u64, object: Object) -> News {
        News::Put(Box::new(Desired {
            epoch: 1,
            generation,
            object,
        }))
    }

    fn id(n: u128) -> Uuid {
        Uuid::from_u128(n)
    }

    fn port(n: u128) -> Object {
        Object::Port(Port {
            id: id(n),
            index: n as u32,
            network_id: id(1),
            guest_id: None,
            mac: "fa:16:3e:00:00:01".into(),
            fixed_ips: vec![],
            allowed_address_pairs: vec![],
            port_security: true,
            security_groups: vec![],
            admin_state_up: true,
            dns_name: String::new(),
            extra_dhcp_opts: vec![],
        })
    }

    fn bury(n: u128, generation: u64) -> News {
        News::Bury(Tombstone {
            kind: Kind::Port,
            id: id(n),
            epoch: 1,
            generation,
            disks: false,
        })
    }

    fn network() -> Object {
        Object::Network(Network {
            id: id(1),
            index: 1,
            mtu: 1500,
            subnets: vec![],
            external: false,
            admin_state_up: true,
            dns_domain: String::new(),
        })
    }

    fn router() -> Object {
        Object::Router(Router {
            id: id(2),
            index: 2,
            admin_state_up: true,
            interfaces: vec![],
            gateway: None,
            routes: vec![],
            floating_ips: vec![],
        })
    }

    #[tokio::test]
    async fn what_fails_is_said_of_what_failed() {
        let lab = Lab::new();
        let news = vec![put(1, network()), put(2, router()), put(3, port(3))];
        lab.shared.store.take(news).unwrap();
        let why = failure("no such way");
        lab.says(Ok(Troubles::from([((Kind::Router, id(2)), why.clone())])));
        let (again, said) = lab.round().await;
        assert!(again);
        assert_eq!(
            (said.routers[0].up, said.routers[0].failure.as_ref()),
            (false, Some(&why))
        );
        assert!(said.ports[0].up && said.networks[0].up, "{said:?}");
        let ready = |n| lab.shared.net_ready.borrow().up.contains_key(&(Kind::Port, id(n)));
        assert!(ready(3), "a guest with this port starts");
        // Nothing new, nothing said.
        assert_eq!(lab.round().await.1.items(), 0);
        // A round that fails as a whole takes nothing back, also when control has to be told everything anew.
        lab.shared.store.take(vec![put(4, port(4))]).unwrap();
        lab.says(Err(failure("no rules")));
        lab.shared.net_told.forget();
        let (_, said) = lab.round().await;
        let up = |n| said.ports.iter().find(|p| p.id == id(n)).unwrap().up;
        assert_eq!((up(3), up(4), said.networks[0].up), (true, false, true));
        assert!(ready(3) && !ready(4));
        lab.says(Ok(Troubles::new()));
        let (again, said) = lab.round().await;
        assert!(!again && ready(4));
        assert!(said.ports[0].up && said.routers[0].up);
        assert_eq!((said.ports.len(), said.routers.len(), said.networks.len()), (1, 1, 0));
    }

    /// What goes wrong in the kernel rings no bell.
    #[tokio::test]
    async fn the_data_plane_is_looked_at_though_nothing_rings() {
        let lab = Lab::new();
        let (rounds, mut seen) = tokio::sync::mpsc::unbounded_channel();
        *lab.plane.on_apply.lock().unwrap() = Some(rounds);
        let running = tokio::spawn(run(lab.shared.clone(), Duration::from_millis(1)));
        for _ in 0..3 {
            let round = tokio::time::timeout(Duration::from_secs(20), seen.recv()).await;
            assert_eq!(round.unwrap(), Some(()));
        }
        running.abort();
    }

    /// A host that shares disks, told of a router.
    fn sharing(dir: std::path::PathBuf) -> Lab {
        let mut config = Config::default();
        config.agent.shared_disks = Some(dir);
        let lab = Lab::with(config);
        let news = vec![put(1, network()), put(2, router())];
        lab.shared.store.take(news).unwrap();
        lab
    }

    impl Lab {
        /// What its supervisor says of the lease.
        fn lease(&self, left_ms: u64, fenced: Option<u64>) {
            let now = u64::try_from(haneul_lease::boottime().as_millis()).unwrap();
            let life = haneul_lease::Life {
                boot_id: haneul_lease::boot_id(),
                until_ms: now + left_ms,
                fenced,
                trouble: String::new(),
            };
            lease::local(&self.shared.config).set_life(&life).unwrap();
        }

        fn router_is_up(&self) -> bool {
            self.plane.applied.lock().unwrap().routers[0].admin_state_up
        }
    }

    /// A host that had no lease carries no router, for another host may: until it has one, and has heard from control.
    #[tokio::test]
    async fn routers_end_with_the_lease() {
        let lab = sharing(std::env::temp_dir());
        lab.lease(60_000, None);
        let (again, said) = lab.round().await;
        assert!(!again && lab.router_is_up() && said.routers[0].up);
        for (left, fenced) in [(0, None), (60_000, Some(7))] {
            lab.lease(left, fenced);
            lab.shared.link.set_heard(true);
            lease::heard(&lab.shared);
            let (again, said) = lab.round().await;
            assert!(again && !lab.router_is_up(), "left {left}, fenced {fenced:?}");
            let why = &said.routers[0].failure.as_ref().unwrap().message;
            assert!(why.contains("on another host by now"), "{why}");
            // Its supervisor has renewed it by itself, and control has not said anything yet.
            lab.lease(60_000, None);
            lab.shared.link.set_heard(false);
            assert!(lab.round().await.0 && !lab.router_is_up());
            lease::heard(&lab.shared);
            assert!(lab.round().await.1.routers[0].up && lab.router_is_up());
        }
    }

    /// The directory may be gone with the lease, or hang.
    #[tokio::test]
    async fn routers_are_down_before_the_shared_directory_is_looked_at() {
        let dir = std::env::temp_dir().join(format!("haneul-nets-{}", haneul_core::id::hex()));
        std::fs::create_dir(&dir).unwrap();
        let lab = sharing(dir.clone());
        lab.lease(0, None);
        let mut opening = std::pin::pin!(crate::open_shared_disks(&lab.shared));
        let early = tokio::time::timeout(Duration::from_millis(300), &mut opening).await;
        assert!(early.is_err(), "the data plane had no round yet");
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 0, "somebody looked");
        let running = tokio::spawn(run(lab.shared.clone(), Duration::from_secs(3600)));
        opening.await.unwrap();
        assert!(!lab.router_is_up());
        assert!(std::fs::read_dir(&dir).unwrap().count() > 0 && lab.shared.drivers.shared.get().is_some());
        running.abort();
        std::fs::remove_dir_all(dir).unwrap();
    }

    /// Nothing else has to happen for that, neither for the one nor for the other.
    #[tokio::test]
    async fn the_data_plane_hears_of_the_lease() {
        let lab = sharing(std::env::temp_dir());
        lab.lease(60_000, None);
        let (rounds, mut seen) = tokio::sync::mpsc::unbounded_channel();
        *lab.plane.on_apply.lock().unwrap() = Some(rounds);
        let running = tokio::spawn(run(lab.shared.clone(), Duration::from_secs(3600)));
        let _guests = crate::guests::Guests::start(lab.shared.clone()).await;
        lab.shared.net_dirty.notify_one();
        let mut is = async |up: bool| {
            let wait = async { while seen.recv().await.is_some() && lab.router_is_up() != up {} };
            let waited = tokio::time::timeout(Duration::from_secs(20), wait).await;
            assert!(waited.is_ok(), "the router is up: {}", !up);
        };
        is(true).await;
        lab.lease(0, None);
        is(false).await;
        lab.shared.link.set_heard(true);
        lab.lease(60_000, None);
        is(true).await;
        running.abort();
    }

    #[tokio::test]
    async fn a_port_that_is_wanted_again_is_not_removed() {
        let lab = Lab::new();
        lab.shared
            .store
            .take(vec![put(1, network()), put(2, port(3)), put(3, port(4))])
            .unwrap();
        lab.round().await;
        // They go while a round is under way, and one is wanted again while the other one is removed.
        let ready = |s: &Shared, n| s.net_ready.borrow().up.contains_key(&(Kind::Port, id(n)));
        let shared = lab.shared.clone();
        *lab.plane.at_apply.lock().unwrap() = Some(Box::new(move || {
            shared.store.take(vec![bury(3, 4), bury(4, 5)]).unwrap();
        }));
        let shared = lab.shared.clone();
        *lab.plane.at_remove.lock().unwrap() = Some(Box::new(move || {
            assert!(
                !ready(&shared, 3),
                "a guest that comes now waits until the port is made anew"
            );
            shared.store.take(vec![put(6, port(4))]).unwrap();
        }));
        lab.round().await;
        assert_eq!(lab.ports().await, [id(4)]);
        assert!(!ready(&lab.shared, 3));
        lab.round().await;
        assert!(ready(&lab.shared, 4));
    }
}
