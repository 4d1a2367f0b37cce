//! A data plane that only remembers what it was told; allowed with `lab = true`.

use crate::{BoxFuture, MetadataSource, NetDriver, NetObserved, Troubles};
use haneul_agent_api::{Failure, Kind, NetDesired};
use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use uuid::Uuid;

/// See the module.
#[derive(Default)]
pub struct Fake {
    have: Mutex<BTreeSet<(Kind, Uuid)>>,
}

impl NetDriver for Fake {
    fn capabilities(&self) -> Vec<(String, String)> {
        vec![("driver".into(), "fake".into())]
    }

    fn apply<'a>(&'a self, desired: &'a NetDesired) -> BoxFuture<'a, Result<Troubles, Failure>> {
        let mut have = self.have.lock().unwrap_or_else(PoisonError::into_inner);
        have.extend(desired.networks.iter().map(|n| (Kind::Network, n.id)));
        have.extend(desired.ports.iter().map(|p| (Kind::Port, p.id)));
        have.extend(desired.routers.iter().map(|r| (Kind::Router, r.id)));
        Box::pin(async { Ok(Troubles::new()) })
    }

    fn remove(&self, kind: Kind, id: Uuid) -> BoxFuture<'_, Result<(), Failure>> {
        self.have
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&(kind, id));
        Box::pin(async { Ok(()) })
    }

    fn open_tap(&self, _port: Uuid) -> Result<OwnedFd, Failure> {
        // The fake hypervisor takes no packets; any descriptor will do.
        std::fs::File::open("/dev/null")
            .map(OwnedFd::from)
            .map_err(|e| Failure {
                code: haneul_agent_api::FailureCode::NetworkError,
                message: "the host has no /dev/null".into(),
                detail: e.to_string(),
            })
    }

    fn observe(&self) -> BoxFuture<'_, Result<NetObserved, Failure>> {
        let have = self.have.lock().unwrap_or_else(PoisonError::into_inner);
        let of = |k: Kind| have.iter().filter(|(x, _)| *x == k).map(|(_, i)| *i).collect();
        let seen = NetObserved {
            networks: of(Kind::Network),
            ports: of(Kind::Port),
            routers: of(Kind::Router),
            strays: vec![],
        };
        Box::pin(async move { Ok(seen) })
    }

    fn set_metadata(&self, _source: Arc<dyn MetadataSource>) {}

    fn purge(&self) -> BoxFuture<'_, Result<(), Failure>> {
        self.have.lock().unwrap_or_else(PoisonError::into_inner).clear();
        Box::pin(async { Ok(()) })
    }
}
