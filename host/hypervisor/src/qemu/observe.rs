//! What a guest is, as far as the record and the watcher of its process know.

use super::live::Run;
use super::record::{MoveEnd, Phase, Record};
use super::{Entry, View, hung, hypervisor_error};
use haneul_agent_api::{Failure, FailureCode, GuestState, Layout, MoveState, ObservedGuest, ObservedMove, Power};
use uuid::Uuid;

/// What a guest is, from what we know without asking.
pub(super) fn observed(entry: &Entry) -> Option<ObservedGuest> {
    let busy = entry.op.try_lock().is_err();
    let view = entry.view();
    let saved = view.record.as_ref().is_some_and(|r| r.saved.is_some());
    let (state, failure) = match view.live.as_ref().filter(|l| !l.is_gone()) {
        // Whatever the process does: the guest's CPUs have not run since.
        _ if saved => (GuestState::Suspended, None),
        Some(live) => match live.run() {
            Run::Unknown => (GuestState::Running, Some(hung("no answer from the monitor yet"))),
            Run::Running => (GuestState::Running, None),
            Run::Paused => (GuestState::Paused, None),
            Run::Shutdown => (GuestState::Stopped, None),
            Run::NoSpace => (
                GuestState::Paused,
                Some(Failure {
                    code: FailureCode::DiskFull,
                    message: "the server was paused because the host's disk is full".into(),
                    detail: String::new(),
                }),
            ),
            Run::Broken => (
                GuestState::Failed,
                Some(hypervisor_error("the server's kernel panicked or its CPU failed", "")),
            ),
        },
        None if busy && view.record.as_ref().is_some_and(|r| r.phase == Phase::Starting) => {
            (GuestState::Building, None)
        }
        None => (GuestState::Stopped, None),
    };
    if let Some(why) = &view.unreadable {
        let mut failure = hypervisor_error("the server's record on the host cannot be used", why);
        failure.code = FailureCode::Internal;
        return Some(blank(entry.id, GuestState::Failed, failure));
    }
    let r = view.record.as_ref()?;
    let moving = moving(r, &view);
    let state = match &moving {
        Some(m) if r.arriving.is_some() && m.state != MoveState::Arrived => GuestState::Building,
        _ => state,
    };
    let as_wanted = match r.power {
        Power::Running => state == GuestState::Running || r.phase == Phase::PoweredOff,
        Power::Paused => state == GuestState::Paused,
        Power::Suspended => state == GuestState::Suspended,
        Power::Stopped => state == GuestState::Stopped,
    };
    Some(ObservedGuest {
        id: r.id,
        epoch: r.epoch,
        generation: r.generation,
        settled: as_wanted && failure.is_none(),
        state,
        failure,
        soft_reboots: r.soft_reboots,
        hard_reboots: r.hard_reboots,
        rebuilds: r.rebuilds,
        progress: None,
        unknown: false,
        started_at: r.process.as_ref().map(|p| p.started_at),
        vcpus: r.vcpus,
        memory_mib: r.memory_mib,
        disk_gib: r.disk_gib,
        snapshot: None,
        layout: layout(r),
        moving: moving.map(Box::new),
    })
}

/// How far the guest's move is, when it moves.
fn moving(r: &Record, view: &View) -> Option<ObservedMove> {
    let ended = |end: &MoveEnd, done: MoveState| match end {
        MoveEnd::Done => done,
        MoveEnd::Failed(why) => MoveState::Failed(why.clone()),
        MoveEnd::Lost => MoveState::Lost,
    };
    if let Some(d) = &r.leaving {
        let state = match &d.end {
            Some(end) => ended(end, MoveState::HandedOver),
            None => MoveState::Moving(view.progress.unwrap_or_default()),
        };
        return Some(ObservedMove { id: d.id, state });
    }
    let a = r.arriving.as_ref()?;
    let state = match (&a.end, a.listens) {
        (Some(end), _) => ended(end, MoveState::Arrived),
        (None, Some(at)) => MoveState::Listening(at),
        (None, None) => return None,
    };
    Some(ObservedMove { id: a.id, state })
}

fn layout(r: &Record) -> Option<Box<Layout>> {
    (!r.devices.is_empty()).then(|| {
        Box::new(Layout {
            machine: r.machine.clone(),
            cpu: r.cpu.clone(),
            accelerator: r.accelerator.clone(),
            devices: r.devices.clone(),
        })
    })
}

pub(super) fn blank(id: Uuid, state: GuestState, failure: Failure) -> ObservedGuest {
    ObservedGuest {
        id,
        epoch: 0,
        generation: 0,
        settled: false,
        state,
        failure: Some(failure),
        soft_reboots: 0,
        hard_reboots: 0,
        rebuilds: 0,
        progress: None,
        unknown: false,
        started_at: None,
        vcpus: 0,
        memory_mib: 0,
        disk_gib: 0,
        snapshot: None,
        layout: None,
        moving: None,
    }
}
