//! Emptying a host: where each of its servers would go, and why one cannot. A pure function of a snapshot, so that what is
//! shown is what is done.

use crate::Compute;
use crate::logic::cold::ColdMove;
use crate::logic::decide::{Request, Snapshot, decide};
use crate::model::{Server, Task, VmState};
use haneul_core::Result;
use haneul_store::{Actor, Query, System};
use std::sync::Arc;

/// A server on the host, with what the scheduler would be asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Leaver {
    pub id: String,
    pub name: String,
    /// The request, or why the server cannot move wherever it is asked to.
    pub request: std::result::Result<Request, String>,
    /// It is on its way already.
    pub moves: bool,
}

/// What would become of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    pub id: String,
    pub name: String,
    /// The host that it goes to, or why it cannot move, with what would make it possible.
    pub to: std::result::Result<String, String>,
    /// It is on its way already.
    pub moves: bool,
}

/// Plans the moves, the largest memory first: what is small finds room beside it. Each takes the room of those before.
pub fn plan(snapshot: &Snapshot, leavers: &[Leaver]) -> Vec<Planned> {
    let mut snapshot = snapshot.clone();
    let memory = |l: &Leaver| l.request.as_ref().map_or(0, |r| r.amounts[1]);
    let mut order: Vec<&Leaver> = leavers.iter().collect();
    order.sort_by(|a, b| memory(b).cmp(&memory(a)).then_with(|| a.id.cmp(&b.id)));
    let mut out = Vec::new();
    for l in order {
        let to = l.request.clone().and_then(|request| match decide(&snapshot, &request) {
            Ok(plan) => plan.hosts.first().cloned().ok_or_else(String::new).inspect(|host| {
                if let Some(h) = snapshot.hosts.iter_mut().find(|h| h.id == *host) {
                    h.takes(&request.amounts, 1);
                }
            }),
            Err(refusal) => Err(format!("{} {}", refusal.message(&request), refusal.details())),
        });
        out.push(Planned {
            id: l.id.clone(),
            name: l.name.clone(),
            to,
            moves: l.moves,
        });
    }
    out
}

/// How far the emptying of a host is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Drained {
    /// Servers on their way: id, name, and whether the move was begun just now.
    pub moving: Vec<(String, String, bool)>,
    /// Servers that stay: id, name, and why.
    pub stuck: Vec<(String, String, String)>,
}

/// Moves of one host that are under way at a time: more of them only make each slower.
const AT_ONCE: usize = 4;

impl Compute {
    /// Begins as many moves away from a host as may be under way, and says what is left. Called until nothing moves any
    /// more, it empties the host as far as that is possible. `failed` have been tried and came back: they stay.
    pub async fn drain_on(self: &Arc<Self>, host: &str, failed: &[String]) -> Result<Drained> {
        let mut out = Drained::default();
        let mut ready = Vec::new();
        for p in self.drain_plan(host).await? {
            match p.to {
                _ if failed.contains(&p.id) => {
                    let why = "its move failed, and it is where it was; `haneul jobs list --all` names the cause";
                    out.stuck.push((p.id, p.name, why.into()));
                }
                Ok(to) => ready.push((p.id, p.name, to)),
                Err(_) if p.moves => out.moving.push((p.id, p.name, false)),
                Err(why) => out.stuck.push((p.id, p.name, why)),
            }
        }
        for (id, name, to) in ready {
            if out.moving.len() >= AT_ONCE {
                break;
            }
            if self.drain_one(&id, host, to).await? {
                out.moving.push((id, name, true));
            }
        }
        Ok(out)
    }

    /// Begins one move, unless something has come between the plan and now.
    pub(crate) async fn drain_one(self: &Arc<Self>, id: &str, host: &str, to: String) -> Result<bool> {
        let (app, id, host) = (self.clone(), id.to_owned(), host.to_owned());
        let begun = self
            .db
            .write(&Actor::system("drain"), async move |tx| {
                let Some(s) = tx.find::<Server>(&id).await? else {
                    return Ok(false);
                };
                let here = s.host_id.as_deref() == Some(host.as_str());
                match s.vm_state {
                    _ if !here || s.task_state.is_some() => Ok(false),
                    VmState::Active | VmState::Paused => app.move_server(tx, &System::of(s), &to).await,
                    VmState::Stopped => {
                        let how = ColdMove {
                            to: &to,
                            flavor: None,
                            auto_disk_config: None,
                            confirmed: true,
                        };
                        app.cold_begin(tx, &System::of(s), how).await
                    }
                    _ => Ok(false),
                }
            })
            .await?;
        self.snapshot.drop_it();
        Ok(begun)
    }

    /// Where the servers of a host would go: what runs by live migration, what is stopped as it is. Nothing is written.
    pub async fn drain_plan(&self, host: &str) -> Result<Vec<Planned>> {
        let snapshot = self.read_snapshot().await?;
        let mut tx = self.db.read().await?;
        let mut leavers = Vec::new();
        for s in tx.list::<Server>(&Query::new().eq("host_id", host)).await? {
            let request = match (s.vm_state, s.task_state) {
                (_, Some(task)) => Err(format!(
                    "{} is being done to it; try again when that is over",
                    task.as_str()
                )),
                (VmState::Active | VmState::Paused | VmState::Stopped, None) => {
                    match self.move_request(&mut tx, &s, None).await {
                        Ok(request) => Ok(request),
                        Err(e) => Err(e.public().to_owned()),
                    }
                }
                (state, None) => Err(format!(
                    "it is {}, and only servers that run, are paused or stopped can be moved; confirm or revert a resize, resume what is suspended, delete what has failed",
                    state.as_str()
                )),
            };
            leavers.push(Leaver {
                id: s.id.clone(),
                name: s.name.clone(),
                request,
                moves: s.task_state.is_some_and(Task::moves),
            });
        }
        Ok(plan(&snapshot, &leavers))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::logic::decide::{HostState, Stock};

    fn host(id: &str, memory: i64) -> HostState {
        let stock = |total| Stock {
            total,
            ratio: 1.0,
            max_unit: total,
            ..Stock::default()
        };
        HostState {
            id: id.into(),
            name: id.into(),
            up: true,
            enabled: true,
            zone: "nova".into(),
            stock: [stock(64), stock(memory), stock(1000)],
            ..HostState::default()
        }
    }

    fn leaver(id: &str, memory: i64) -> Leaver {
        Leaver {
            id: id.into(),
            name: id.into(),
            request: Ok(Request {
                amounts: [1, memory, 1],
                count: 1,
                avoid: vec!["a".into()],
                ..Request::default()
            }),
            moves: false,
        }
    }

    /// Each server has its own answer, and none is promised room that another has taken.
    #[test]
    fn each_gets_room_or_a_reason() {
        let snapshot = Snapshot {
            hosts: vec![host("a", 9000), host("b", 1000), host("c", 600)],
            ..Snapshot::default()
        };
        let stuck = Leaver {
            request: Err("it is stopped".into()),
            ..leaver("stuck", 0)
        };
        let all = [leaver("small", 500), leaver("big", 900), leaver("more", 550), stuck];
        let plan = plan(&snapshot, &all);
        let of = |id: &str| plan.iter().find(|p| p.id == id).unwrap().to.clone();
        assert_eq!((of("big"), of("more")), (Ok("b".into()), Ok("c".into())));
        let why = of("small").unwrap_err();
        assert!(why.contains("b: MEMORY_MB: needed 500, free 100"), "{why}");
        assert_eq!(of("stuck"), Err("it is stopped".into()));
        assert_eq!(plan.len(), all.len());
    }
}
