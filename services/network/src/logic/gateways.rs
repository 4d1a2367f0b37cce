//! Which host carries a router, and what becomes of it when that host is silent.
//!
//! A router is on one host, its gateway host. When that host's stream has been gone for
//! `network.router_failover_s`, its routers go to other hosts: those announce the addresses, and the silent one
//! finds tombstones when it is back. When there is nowhere to go, a router stays, and `haneul audit` says why.

use crate::Network;
use crate::logic::audit::Finding;
use crate::logic::publish::{Touched, router_ports};
use crate::model::Router;
use haneul_core::Result;
use haneul_fleet::Host;
use haneul_store::{Actor, Dir, Query, Stored, System, Tx};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// After a start no host has a stream yet: so long they have to come back.
const GRACE: Duration = Duration::from_secs(15);

/// Between looks at what hosts say to other processes of ours.
const LOOK: Duration = Duration::from_secs(1);

/// Since when hosts are silent, as this process saw it.
#[derive(Default)]
pub(crate) struct Silent {
    since: Mutex<HashMap<String, Instant>>,
    wake: Notify,
}

impl Silent {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Instant>> {
        self.since.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// The host's stream ended.
    pub fn lost(&self, host: &str) {
        self.lock().entry(host.to_owned()).or_insert_with(Instant::now);
        self.wake.notify_one();
    }
    /// The host is back. Others may have waited for somewhere to go.
    pub fn back(&self, host: &str) {
        self.lock().remove(host);
        self.wake.notify_one();
    }
}

/// A host as the choice sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub id: String,
    pub name: String,
    pub up: bool,
    /// Routers that it carries.
    pub routers: usize,
}

/// The host that is up and carries the fewest routers; of equals the one that is longest here. Else why there is none.
pub(crate) fn decide(hosts: &[Candidate]) -> std::result::Result<&Candidate, String> {
    let up = hosts.iter().filter(|h| h.up);
    up.min_by_key(|h| h.routers).ok_or_else(|| {
        if hosts.is_empty() {
            return "no host has joined this cloud".to_owned();
        }
        let names: Vec<&str> = hosts.iter().map(|h| h.name.as_str()).collect();
        format!("of {} hosts none is up ({})", hosts.len(), names.join(", "))
    })
}

async fn candidates(tx: &mut Tx, hosts: Vec<Host>) -> Result<Vec<Candidate>> {
    let mut routers: BTreeMap<String, usize> = BTreeMap::new();
    for row in tx
        .rows("SELECT host_id, COUNT(*) FROM router GROUP BY host_id", &[])
        .await?
    {
        routers.insert(row.str(0)?, usize::try_from(row.i64(1)?).unwrap_or(usize::MAX));
    }
    let one = |h: Host| Candidate {
        routers: routers.get(&h.id).copied().unwrap_or(0),
        id: h.id,
        name: h.name,
        up: h.up,
    };
    Ok(hosts.into_iter().map(one).collect())
}

impl Network {
    /// The host that a new router goes to. While none is up it goes to the first, which may be about to come back; empty:
    /// there is none yet.
    pub(crate) async fn router_host(&self, tx: &mut Tx) -> Result<String> {
        let hosts = self.fleet.hosts(tx).await?;
        let hosts = candidates(tx, hosts).await?;
        let chosen = decide(&hosts).ok().or(hosts.first());
        Ok(chosen.map_or_else(String::new, |h| h.id.clone()))
    }

    /// Gives a router to a host; the one that had it gets tombstones.
    async fn move_router(&self, tx: &mut Tx, old: Stored<Router>, host: &str, touched: &mut Touched) -> Result<()> {
        touched.router_gone(&old);
        for p in router_ports(tx, &old.id).await? {
            let mut port = p.value.clone();
            port.host_id = host.to_owned();
            touched.port_changed(&p.value, &port);
            tx.update(&System::of(p), &port).await?;
        }
        touched.routers.insert(old.id.clone());
        let mut router = old.value.clone();
        router.host_id = host.to_owned();
        tx.update(&System::of(old), &router).await?;
        Ok(())
    }

    /// Routers that were made before there was a host go to this one.
    pub(crate) async fn adopt_routers(&self, tx: &mut Tx, host: &str) -> Result<()> {
        let mut touched = Touched::default();
        for router in tx.list::<Router>(&Query::new().eq("host_id", "")).await? {
            self.move_router(tx, router, host, &mut touched).await?;
        }
        self.publish(tx, touched).await
    }

    /// Gives the routers of a host to these, each to the one that carries the fewest then.
    async fn move_routers(&self, tx: &mut Tx, host: &str, hosts: &mut [Candidate]) -> Result<()> {
        let mut touched = Touched::default();
        let query = Query::new().eq("host_id", host).order("id", Dir::Asc);
        for router in tx.list::<Router>(&query).await? {
            // While none is up it goes to the first, which may be about to come back.
            let to = decide(hosts).ok().or(hosts.first()).map(|h| h.id.clone());
            let to = to.unwrap_or_default();
            tracing::warn!(router = %router.id, from = host, to, "the router's host is silent or leaves: it moves");
            self.move_router(tx, router, &to, &mut touched).await?;
            for h in hosts.iter_mut().filter(|h| h.id == to) {
                h.routers += 1;
            }
        }
        self.publish(tx, touched).await
    }

    /// A host is removed from the cloud: its routers go to others, or wait for the next that joins.
    pub(crate) async fn routers_leave(&self, tx: &mut Tx, host: &str) -> Result<()> {
        let mut hosts = self.fleet.hosts(tx).await?;
        hosts.retain(|h| h.id != host);
        let mut hosts = candidates(tx, hosts).await?;
        self.move_routers(tx, host, &mut hosts).await
    }

    /// Moves what a silent host carries to others. Nothing when it is back, or when there is nowhere to go.
    async fn fail_over(self: &Arc<Self>, host: &str) -> Result<()> {
        let (me, host) = (self.clone(), host.to_owned());
        self.db
            .write(&Actor::system("router fail-over"), async move |tx| {
                let hosts = me.fleet.hosts(tx).await?;
                if hosts.iter().any(|h| h.id == host && h.up) {
                    return Ok(());
                }
                let mut hosts = candidates(tx, hosts).await?;
                match decide(&hosts) {
                    Ok(_) => me.move_routers(tx, &host, &mut hosts).await,
                    Err(why) => {
                        tracing::warn!(host, why, "a silent host's routers stay where they are");
                        Ok(())
                    }
                }
            })
            .await
    }

    /// Notes who is down, from `since` on when that is new, and forgets who is up again.
    async fn look_for_silent(&self, since: Instant) {
        let read = async {
            let mut tx = self.db.read().await?;
            tx.list::<Host>(&Query::new().eq("up", false)).await
        };
        match read.await {
            Ok(down) => {
                let mut silent = self.silent.lock();
                silent.retain(|id, _| down.iter().any(|h| h.id == *id));
                for h in down {
                    silent.entry(h.id.clone()).or_insert(since);
                }
            }
            Err(e) => tracing::error!(error = %e, "hosts that do not come back will not be noticed"),
        }
    }

    /// Follows hosts that fall silent until the process ends. Start it once.
    pub(crate) async fn follow_silence(self: Arc<Self>) {
        let patience = self.settings.router_failover;
        self.look_for_silent(Instant::now() + GRACE.saturating_sub(patience))
            .await;
        // What a host tells another process of ours, or does not tell it, rings no bell here.
        let longest = if self.db.is_shared() {
            LOOK
        } else {
            Duration::from_secs(60)
        };
        loop {
            let now = Instant::now();
            if self.db.is_shared() {
                self.look_for_silent(now).await;
            }
            let (late, next) = {
                let since = self.silent.lock();
                let due = |t: &Instant| *t + patience;
                let late: Vec<String> = since
                    .iter()
                    .filter(|(_, t)| due(t) <= now)
                    .map(|(h, _)| h.clone())
                    .collect();
                (late, since.values().map(due).filter(|t| *t > now).min())
            };
            for host in late {
                if let Err(e) = self.fail_over(&host).await {
                    tracing::error!(host, error = %e, "the routers of a silent host could not be moved");
                }
            }
            // What found no place waits for a host that comes up.
            let sleep = next.map_or(longest, |t| t.saturating_duration_since(Instant::now()).min(longest));
            tokio::select! {
                () = self.silent.wake.notified() => {}
                () = tokio::time::sleep(sleep) => {}
            }
        }
    }

    /// How many routers a host carries.
    pub async fn routers_on(&self, tx: &mut Tx, host: &str) -> Result<i64> {
        tx.count::<Router>(&Query::new().eq("host_id", host)).await
    }

    /// Routers without a host that is up, and why they are where they are.
    pub(crate) async fn audit_routers(&self, tx: &mut Tx, out: &mut Vec<Finding>) -> Result<()> {
        let hosts = self.fleet.hosts(tx).await?;
        let hosts = candidates(tx, hosts).await?;
        let up: BTreeMap<&str, &Candidate> = hosts.iter().map(|h| (h.id.as_str(), h)).collect();
        for r in tx.list::<Router>(&Query::new()).await? {
            let on = up.get(r.host_id.as_str());
            if on.is_some_and(|h| h.up) {
                continue;
            }
            let name = on.map_or(r.host_id.as_str(), |h| h.name.as_str());
            let why = match decide(&hosts) {
                Ok(h) => format!(
                    "it goes to {} after {:?} of silence",
                    h.name, self.settings.router_failover
                ),
                Err(why) => format!("it cannot go elsewhere: {why}"),
            };
            out.push(Finding {
                what: format!("router {} is on host '{name}', which is not up; {why}", r.id),
                repair: "start the agent of that host, or of another one".into(),
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(name: &str, up: bool, routers: usize) -> Candidate {
        Candidate {
            id: name.into(),
            name: name.into(),
            up,
            routers,
        }
    }

    #[test]
    fn a_router_goes_where_there_are_fewest() {
        let hosts = [
            host("a", false, 0),
            host("b", true, 2),
            host("c", true, 1),
            host("d", true, 1),
        ];
        assert_eq!(decide(&hosts).map(|h| h.id.as_str()), Ok("c"), "of equals the first");
        let why = decide(&hosts[..1]).map(|h| h.id.clone());
        assert_eq!(why, Err("of 1 hosts none is up (a)".to_owned()));
        assert!(decide(&[]).is_err());
    }
}
