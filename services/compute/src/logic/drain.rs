//! Emptying a host: where each of its servers would go, and why one cannot. A pure function of a snapshot, so that what is
//! shown is what is done.

use crate::Compute;
use crate::logic::decide::{Request, Snapshot, decide};
use crate::model::{Server, VmState};
use haneul_core::Result;
use haneul_store::Query;

/// A server on the host, with what the scheduler would be asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Leaver {
    pub id: String,
    pub name: String,
    /// The request, or why the server cannot move wherever it is asked to.
    pub request: std::result::Result<Request, String>,
}

/// What would become of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    pub id: String,
    pub name: String,
    /// The host that it goes to, or why it cannot move, with what would make it possible.
    pub to: std::result::Result<String, String>,
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
                    for (s, a) in h.stock.iter_mut().zip(request.amounts) {
                        s.used += a;
                    }
                }
            }),
            Err(refusal) => Err(format!("{} {}", refusal.message(&request), refusal.details())),
        });
        out.push(Planned {
            id: l.id.clone(),
            name: l.name.clone(),
            to,
        });
    }
    out
}

impl Compute {
    /// Where the servers of a host would go by live migration. Nothing is written.
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
                (VmState::Active | VmState::Paused, None) => match self.move_request(&mut tx, &s, None).await {
                    Ok(request) => Ok(request),
                    Err(e) => Err(e.public().to_owned()),
                },
                (state, None) => Err(format!(
                    "it is {}, and only servers that run or are paused can be moved; start it or delete it",
                    state.as_str()
                )),
            };
            leavers.push(Leaver {
                id: s.id.clone(),
                name: s.name.clone(),
                request,
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
        }
    }

    /// Each server has its own answer, and none is promised room that another has taken.
    #[test]
    fn each_gets_room_or_a_reason() {
        let snapshot = Snapshot {
            hosts: vec![host("a", 9000), host("b", 1000), host("c", 600)],
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
