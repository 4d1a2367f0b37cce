//! Moves between two fakes: a TCP connection over which the source says the key of the move, and the target that it has
//! the guest. So the order of things, and what is unknown after a cut, are those of the real one.
//!
//! The flavor may ask for trouble: `hw:lab_move` is `slow` (the source sends until it is forced or aborted), `fail`
//! (it gives up) or `deaf` (the target does not make ready).

use crate::fake::{Record, Shared, failure, state_of};
use haneul_agent_api::{
    Arriving, Failure, FailureCode, Guest, GuestState, Leaving, MoveAddress, MoveProgress, MoveState, ObservedMove,
};
use haneul_core::fault_point;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use uuid::Uuid;

const RETRY: Duration = Duration::from_millis(100);

fn broken(message: &str) -> Failure {
    Failure {
        code: FailureCode::HypervisorError,
        message: message.into(),
        detail: String::new(),
    }
}

fn asked(guest: &Guest, what: &str) -> bool {
    guest.hints.get("hw:lab_move").is_some_and(|w| w == what)
}

/// Whether a guest that was to arrive is here.
pub(crate) fn is_here(record: Option<&Record>, arriving: &Arriving) -> bool {
    record
        .and_then(|r| r.moving.as_ref())
        .is_some_and(|m| m.id == arriving.id && m.state == MoveState::Arrived)
}

/// Listens for a guest. The record is `to_be`, once somebody has handed the guest over.
pub(crate) async fn arrive(shared: &Arc<Shared>, mut record: Record, arriving: &Arriving) -> Result<(), Failure> {
    let id = record.guest.id;
    if asked(&record.guest, "deaf") {
        return Err(broken("the fake hypervisor was told not to listen"));
    }
    if shared.listens(id, arriving.id) {
        return Ok(());
    }
    let listener = TcpListener::bind(("127.0.0.1", 0)).await;
    let listener = listener.map_err(|e| failure(e.to_string()))?;
    let at = listener.local_addr().map_err(|e| failure(e.to_string()))?;
    record.state = GuestState::Building;
    record.moving = Some(ObservedMove {
        id: arriving.id,
        state: MoveState::Listening(MoveAddress {
            address: at.ip(),
            memory_port: at.port(),
            disks_port: None,
        }),
    });
    shared.put(&record)?;
    fault_point!("hypervisor.fake.listens", failure("fault point".into()));
    let (s, key) = (shared.clone(), arriving.key.clone());
    let task = tokio::spawn(async move {
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                return;
            };
            let mut stream = BufReader::new(stream);
            let mut line = String::new();
            if stream.read_line(&mut line).await.is_err() || line.trim_end() != key.0 {
                continue;
            }
            if s.arrived(id, record.moving.as_ref().map(|m| m.id)).is_err() {
                continue;
            }
            let _ = stream.write_all(b"ok\n").await;
        }
    });
    shared.listen(id, arriving.id, task.abort_handle());
    Ok(())
}

/// Sends a guest. Ends with a record that says how it went.
pub(crate) async fn leave(shared: &Arc<Shared>, mut record: Record, leaving: &Leaving) -> Result<(), Failure> {
    let known = record.moving.as_ref().filter(|m| m.id == leaving.id);
    if known.is_some_and(|m| !matches!(m.state, MoveState::Moving(_))) {
        return shared.put(&record);
    }
    if known.is_none() {
        record.switching = false;
    }
    let now = |record: &mut Record, state| {
        record.moving = Some(ObservedMove { id: leaving.id, state });
        shared.put(record)
    };
    let total = record.guest.memory_mib << 20;
    let progress = MoveProgress {
        memory_total: total,
        memory_done: total / 2,
        memory_left: total / 2,
        ..MoveProgress::default()
    };
    now(&mut record, MoveState::Moving(progress))?;
    shared.tell(record.guest.id);
    fault_point!("hypervisor.fake.leaves", failure("fault point".into()));
    if !record.switching {
        if leaving.abort {
            return now(&mut record, MoveState::Failed(broken("the server's move was aborted")));
        }
        if asked(&record.guest, "fail") {
            let why = broken("the fake hypervisor was told to fail");
            return now(&mut record, MoveState::Failed(why));
        }
        if asked(&record.guest, "slow") && !leaving.force {
            return std::future::pending().await;
        }
    }
    loop {
        let connected = TcpStream::connect(leaving.to.memory()).await;
        if let Ok(mut stream) = connected {
            record.switching = true;
            record.state = GuestState::Paused;
            shared.put(&record)?;
            fault_point!("hypervisor.fake.switching", failure("fault point".into()));
            let mut answer = [0; 3];
            let line = format!("{}\n", leaving.key.0);
            if stream.write_all(line.as_bytes()).await.is_ok() && stream.read_exact(&mut answer).await.is_ok() {
                fault_point!("hypervisor.fake.handed-over", failure("fault point".into()));
                return now(&mut record, MoveState::HandedOver);
            }
        } else if !record.switching {
            let why = broken("the other host could not be reached");
            return now(&mut record, MoveState::Failed(why));
        }
        // It has the guest, or it has not: only it knows.
        tokio::time::sleep(RETRY).await;
    }
}

impl Shared {
    /// The guest was handed over; may be said twice.
    fn arrived(&self, id: Uuid, of: Option<Uuid>) -> Result<(), Failure> {
        let Some(mut record) = self.get(id) else {
            return Err(broken("the guest is expected no more"));
        };
        let Some(m) = record.moving.as_mut().filter(|m| Some(m.id) == of) else {
            return Err(broken("the guest is expected no more"));
        };
        if m.state != MoveState::Arrived {
            m.state = MoveState::Arrived;
            record.state = state_of(record.guest.power);
            self.put(&record)?;
            fault_point!("hypervisor.fake.arrived", failure("fault point".into()));
            self.tell(id);
        }
        Ok(())
    }
}
