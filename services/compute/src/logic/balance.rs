//! Balancing: which moves would make the hosts' loads more alike, and by how much. The plan is a pure function of a
//! snapshot, and asks the scheduler's own filters for each move; what is shown is what is done.
//!
//! A host's load is what servers have claimed of its VCPUs and of its memory, as shares of what may be given out there.
//! The imbalance is the standard deviation of these shares over the hosts that may have servers, in percentage points.

use crate::Compute;
use crate::logic::decide::{HostState, Request, Snapshot, decide};
use crate::model::{Server, Task, VmState};
use haneul_core::config::Balance as Settings;
use haneul_core::{Result, clock};
use haneul_store::{Query, Tx};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

/// What is planned at the most.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    pub moves: usize,
    /// Percentage points by which each move must bring the imbalance down.
    pub gain: f64,
}

/// A server on one of the hosts that have most to give.
#[derive(Clone, Debug, PartialEq)]
pub struct Movable {
    pub id: String,
    pub name: String,
    /// Where it is.
    pub host: String,
    pub group: Option<String>,
    /// The request, or why the server cannot move wherever it is asked to.
    pub request: std::result::Result<Request, String>,
}

/// A move, with hosts' ids.
#[derive(Clone, Debug, PartialEq)]
pub struct Move {
    pub id: String,
    pub name: String,
    pub from: String,
    pub to: String,
    /// Percentage points that the imbalance loses by it, after those before it.
    pub gain: f64,
}

/// A host's load, in percent of what may be given out.
#[derive(Clone, Debug, PartialEq)]
pub struct Load {
    pub id: String,
    pub name: String,
    pub vcpus: f64,
    pub memory: f64,
    /// The same after the moves.
    pub then: (f64, f64),
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Balance {
    pub before: f64,
    pub after: f64,
    pub hosts: Vec<Load>,
    pub moves: Vec<Move>,
    /// Servers that were looked at and stay: id, name, and why.
    pub stays: Vec<(String, String, String)>,
}

/// Hosts whose servers are looked at, and hosts where they may go: of so many, the others add nothing to a plan.
const SOURCES: usize = 8;
const TARGETS: usize = 32;

/// Hosts that may have servers, by their numbers.
fn in_play(hosts: &[HostState]) -> Vec<usize> {
    let capable = |h: &HostState| h.up && h.enabled && h.stock.iter().take(2).all(|s| s.capacity() > 0);
    (0..hosts.len())
        .filter(|i| hosts.get(*i).is_some_and(capable))
        .collect()
}

/// Shares of VCPUs and memory that are given out, in percent.
fn load(h: &HostState) -> [f64; 2] {
    [0, 1].map(|i| h.stock[i].used as f64 * 100.0 / h.stock[i].capacity().max(1) as f64)
}

fn imbalance(loads: &[[f64; 2]]) -> f64 {
    let n = loads.len().max(1) as f64;
    let variance = |class: usize| {
        let mean = loads.iter().map(|l| l[class]).sum::<f64>() / n;
        loads.iter().map(|l| (l[class] - mean).powi(2)).sum::<f64>() / n
    };
    ((variance(0) + variance(1)) / 2.0).sqrt()
}

/// Hosts from the most loaded to the least; the id decides among equals.
fn by_load(hosts: &[HostState], mut which: Vec<usize>) -> Vec<usize> {
    let sum = |i: &usize| hosts.get(*i).map_or(0.0, |h| load(h).iter().sum::<f64>());
    which.sort_by(|a, b| sum(b).total_cmp(&sum(a)).then_with(|| a.cmp(b)));
    which
}

/// The board on which a plan is tried.
struct Trial {
    hosts: Vec<HostState>,
    weights: crate::logic::decide::Weights,
    play: Vec<usize>,
    servers: Vec<Movable>,
}

impl Trial {
    fn imbalance(&self) -> f64 {
        let loads: Vec<[f64; 2]> = self.play.iter().filter_map(|i| self.hosts.get(*i)).map(load).collect();
        imbalance(&loads)
    }

    /// The server is on another host.
    fn shift(&mut self, server: usize, from: usize, to: usize) -> Option<()> {
        let amounts = self.servers.get(server)?.request.as_ref().ok()?.amounts;
        self.hosts.get_mut(from)?.takes(&amounts, -1);
        self.hosts.get_mut(to)?.takes(&amounts, 1);
        Some(())
    }

    /// All moves that gain anything, the best first: gain, server, from, to.
    fn moves(&mut self, moved: &BTreeSet<usize>) -> Vec<(f64, usize, usize, usize)> {
        let number: HashMap<String, usize> = self.play.iter().map(|i| (self.hosts[*i].id.clone(), *i)).collect();
        let mut targets = by_load(&self.hosts, self.play.clone());
        targets.reverse();
        targets.truncate(TARGETS);
        let before = self.imbalance();
        let mut out = Vec::new();
        for server in (0..self.servers.len()).filter(|s| !moved.contains(s)) {
            let Some(&from) = number.get(&self.servers[server].host) else {
                continue;
            };
            for to in targets.iter().copied().filter(|to| *to != from) {
                if self.shift(server, from, to).is_none() {
                    break;
                }
                let gain = before - self.imbalance();
                let _ = self.shift(server, to, from);
                if gain > 0.0 {
                    out.push((gain, server, from, to));
                }
            }
        }
        out.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| (a.1, a.3).cmp(&(b.1, b.3))));
        out
    }

    /// What the scheduler says of a server on a host: nothing, or why not.
    fn refused(&self, server: usize, to: usize) -> Option<String> {
        let (Ok(request), host) = (&self.servers.get(server)?.request, self.hosts.get(to)?) else {
            return Some(String::new());
        };
        let alone = Snapshot {
            hosts: vec![host.clone()],
            weights: self.weights.clone(),
        };
        decide(&alone, request).err().map(|refusal| refusal.details())
    }

    /// Members of its group see where it is.
    fn tell_group(&mut self, server: usize, from: &str, to: &str) {
        let Some(group) = self.servers.get(server).and_then(|s| s.group.clone()) else {
            return;
        };
        for (i, other) in self.servers.iter_mut().enumerate() {
            if i == server || other.group.as_ref() != Some(&group) {
                continue;
            }
            if let Ok(Request { group: Some(wish), .. }) = &mut other.request {
                if let Some(n) = wish.members.get_mut(from) {
                    *n -= 1;
                }
                *wish.members.entry(to.to_owned()).or_default() += 1;
            }
        }
    }
}

/// Plans: the move that gains most first, each server once, none that gains less than the limit.
pub fn plan(snapshot: &Snapshot, servers: &[Movable], limits: &Limits) -> Balance {
    let mut trial = Trial {
        hosts: snapshot.hosts.clone(),
        weights: snapshot.weights.clone(),
        play: in_play(&snapshot.hosts),
        servers: servers.to_vec(),
    };
    let mut out = Balance {
        before: trial.imbalance(),
        ..Balance::default()
    };
    let mut moved = BTreeSet::new();
    while out.moves.len() < limits.moves {
        let gains = trial.moves(&moved);
        let best = gains
            .into_iter()
            .take_while(|(gain, ..)| *gain >= limits.gain)
            .find(|(_, server, _, to)| trial.refused(*server, *to).is_none());
        let Some((gain, server, from, to)) = best else { break };
        let _ = trial.shift(server, from, to);
        let (from, to) = (trial.hosts[from].id.clone(), trial.hosts[to].id.clone());
        trial.tell_group(server, &from, &to);
        moved.insert(server);
        let s = &servers[server];
        out.moves.push(Move {
            id: s.id.clone(),
            name: s.name.clone(),
            from,
            to,
            gain,
        });
    }
    out.after = trial.imbalance();
    out.stays = stays(&mut trial, &moved, limits, out.moves.len() >= limits.moves);
    out.hosts = by_load(&snapshot.hosts, trial.play.clone())
        .into_iter()
        .map(|i| {
            let ([vcpus, memory], then) = (load(&snapshot.hosts[i]), load(&trial.hosts[i]));
            Load {
                id: snapshot.hosts[i].id.clone(),
                name: snapshot.hosts[i].name.clone(),
                vcpus,
                memory,
                then: then.into(),
            }
        })
        .collect();
    out
}

/// Why each of the others is not moved.
fn stays(trial: &mut Trial, moved: &BTreeSet<usize>, limits: &Limits, full: bool) -> Vec<(String, String, String)> {
    let gains = trial.moves(moved);
    let mut best: BTreeMap<usize, (f64, usize)> = BTreeMap::new();
    for (gain, server, _, to) in gains {
        best.entry(server).or_insert((gain, to));
    }
    let mut out = Vec::new();
    for (i, s) in trial.servers.iter().enumerate().filter(|(i, _)| !moved.contains(i)) {
        let why = match (&s.request, best.get(&i)) {
            (Err(why), _) => why.clone(),
            (Ok(_), None) => "wherever it went, the hosts' loads would be no more alike".into(),
            (Ok(_), Some((gain, to))) if *gain < limits.gain => format!(
                "its best move, to {}, would gain {gain:.2} points, and {:.2} is the least that is moved for",
                trial.hosts[*to].name, limits.gain
            ),
            (Ok(_), Some((gain, to))) => match trial.refused(i, *to) {
                Some(why) => format!("the move that would gain most, {gain:.2} points, is refused: {why}"),
                None if full => format!("{} moves are the most at a time", limits.moves),
                None => "no move of it is allowed that gains enough".into(),
            },
        };
        out.push((s.id.clone(), s.name.clone(), why));
    }
    out
}

/// Moves under way at a time.
const AT_ONCE: usize = 4;
/// A server that was moved stays for so long.
const REST: i64 = 3600 * clock::SECOND;

impl Compute {
    /// The plan of this moment. Moves that are under way count as done. Servers of `but` stay.
    pub async fn balance_plan(&self, limits: &Limits, but: &[String]) -> Result<(Balance, usize)> {
        let mut snapshot = self.read_snapshot().await?;
        let mut tx = self.db.read().await?;
        let under_way = tx
            .list::<Server>(&Query::new().eq("task_state", Task::Migrating.as_str()))
            .await?;
        for s in &under_way {
            let source = snapshot.hosts.iter_mut().find(|h| s.host_id.as_ref() == Some(&h.id));
            if let Some(h) = source {
                h.takes(&s.amounts().map(|(_, n)| n), -1);
            }
        }
        let rested = moved_since(&mut tx, clock::now() - REST).await?;
        let mut servers = Vec::new();
        for i in by_load(&snapshot.hosts, in_play(&snapshot.hosts))
            .into_iter()
            .take(SOURCES)
        {
            let host = &snapshot.hosts[i].id;
            for s in tx.list::<Server>(&Query::new().eq("host_id", host.as_str())).await? {
                let request = match (s.vm_state, s.task_state) {
                    _ if but.contains(&s.id) => Err("its move was begun already, and it is where it was".into()),
                    _ if rested.contains(&s.id) => Err("it was moved less than an hour ago".into()),
                    (_, Some(task)) => Err(format!("{} is being done to it", task.as_str())),
                    (VmState::Active | VmState::Paused, None) => {
                        let request = self.move_request(&mut tx, &s, None).await;
                        request.map_err(|e| e.public().to_owned())
                    }
                    (state, None) => Err(format!("it is {}: it takes no processor", state.as_str())),
                };
                servers.push(Movable {
                    id: s.id.clone(),
                    name: s.name.clone(),
                    host: host.clone(),
                    group: s.server_group.clone(),
                    request,
                });
            }
        }
        Ok((plan(&snapshot, &servers, limits), under_way.len()))
    }

    /// Begins as many moves of the plan as may be under way; each is asked of the scheduler once more, as things are by
    /// now. Also says how many moves are under way, of whoever's will.
    pub async fn balance_on(self: &Arc<Self>, limits: &Limits, but: &[String]) -> Result<(Balance, Vec<Move>, usize)> {
        let (balance, under_way) = self.balance_plan(limits, but).await?;
        let mut begun = Vec::new();
        for m in &balance.moves {
            if under_way + begun.len() >= AT_ONCE {
                break;
            }
            let mut tx = self.db.read().await?;
            let Some(s) = tx.find::<Server>(&m.id).await? else {
                continue;
            };
            let Ok(request) = self.move_request(&mut tx, &s, Some(&m.to)).await else {
                continue;
            };
            drop(tx);
            if self.decide(&request).await?.is_ok() && self.drain_one(&m.id, &m.from, m.to.clone()).await? {
                tracing::info!(
                    server = m.id,
                    from = m.from,
                    to = m.to,
                    gain = m.gain,
                    "a server moves for balance"
                );
                begun.push(m.clone());
            }
        }
        let under_way = under_way + begun.len();
        Ok((balance, begun, under_way))
    }

    /// Balances for as long as the process lives.
    pub async fn balance_by_itself(self: Arc<Self>, settings: Settings) {
        let limits = Limits {
            moves: settings.max_moves as usize,
            gain: settings.min_gain,
        };
        loop {
            tokio::time::sleep(Duration::from_secs(settings.interval_s)).await;
            // Of several processes one does it.
            if !self.db.leads().await.unwrap_or(false) {
                continue;
            }
            if let Err(e) = self.balance_on(&limits, &[]).await {
                tracing::error!(error = %e, "the hosts could not be balanced");
            }
        }
    }
}

/// Servers of which a live migration was begun since then.
async fn moved_since(tx: &mut Tx, since: i64) -> Result<BTreeSet<String>> {
    let rows = tx
        .rows(
            "SELECT server_id FROM migration WHERE kind = 'live-migration' AND created_at >= $1",
            &[since.into()],
        )
        .await?;
    rows.iter().map(|r| r.str(0)).collect()
}
