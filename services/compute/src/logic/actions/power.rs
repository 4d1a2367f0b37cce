//! The actions that change only whether and how the guest runs: start, stop, pause, unpause, suspend, resume.

use super::{HostAction, check_lock, check_state, memory};
use crate::Compute;
use crate::model::{Server, Task, VmState};
use crate::policy::acts;
use haneul_agent_api::{GuestState, ObservedGuest, Power};
use haneul_auth::{Action, Ctx, fetch};
use haneul_core::{Result, fault_point};
use haneul_jobs::{BoxFuture, Job};
use haneul_store::Tx;
use std::sync::Arc;

/// What one of them needs, wants and leaves.
pub(crate) trait PowerAction: Send + Sync + 'static {
    /// Who may.
    type Rule: Action<On = Server>;
    const RULE: Self::Rule;
    /// Its name in refusals.
    const NAME: &'static str;
    /// Kind of its job.
    const JOB: &'static str;
    /// The states that it starts from.
    const FROM: &'static [VmState];
    const TASK: Task;
    /// What the host is asked for, and what it then sees.
    const WANTED: Power;
    const SEEN: GuestState;
}

impl<A: PowerAction> HostAction for A {
    const KIND: &'static str = A::JOB;
    fn met(_s: &Server, seen: &ObservedGuest) -> bool {
        seen.state == A::SEEN
    }
    fn done<'t>(
        _app: &'t Compute,
        _tx: &'t mut Tx,
        s: &'t mut Server,
        _job: &'t Job,
        _seen: &'t ObservedGuest,
    ) -> BoxFuture<'t, Result<()>> {
        s.settle_as_wanted();
        Box::pin(async { Ok(()) })
    }
}

impl Compute {
    /// Begins it.
    async fn change_power<A: PowerAction>(self: &Arc<Self>, ctx: &Ctx, id: &str) -> Result<()> {
        let (app, c, id) = (self.clone(), ctx.clone(), id.to_owned());
        self.db
            .write(&ctx.actor(), async move |tx| {
                let old = fetch(tx, &c, A::RULE, &id).await?;
                check_lock(&c, &old, A::RULE)?;
                check_state(&old, A::NAME, A::FROM)?;
                let mut s = old.edit();
                let before = memory(&s);
                s.wanted = A::WANTED;
                app.begin::<A>(tx, &mut s, A::TASK, before).await?;
                tx.update(&old, &s).await?;
                Ok(())
            })
            .await
    }

    /// Begins start (202).
    pub(crate) async fn start_server(self: &Arc<Self>, ctx: &Ctx, id: &str) -> Result<()> {
        self.change_power::<Start>(ctx, id).await?;
        fault_point!("compute.start.committed");
        Ok(())
    }
    /// Begins stop (202).
    pub(crate) async fn stop_server(self: &Arc<Self>, ctx: &Ctx, id: &str) -> Result<()> {
        self.change_power::<Stop>(ctx, id).await?;
        fault_point!("compute.stop.committed");
        Ok(())
    }
    /// Begins pause (202).
    pub(crate) async fn pause_server(self: &Arc<Self>, ctx: &Ctx, id: &str) -> Result<()> {
        self.change_power::<Pause>(ctx, id).await?;
        fault_point!("compute.pause.committed");
        Ok(())
    }
    /// Begins unpause (202).
    pub(crate) async fn unpause_server(self: &Arc<Self>, ctx: &Ctx, id: &str) -> Result<()> {
        self.change_power::<Unpause>(ctx, id).await?;
        fault_point!("compute.unpause.committed");
        Ok(())
    }
    /// Begins suspend (202).
    pub(crate) async fn suspend_server(self: &Arc<Self>, ctx: &Ctx, id: &str) -> Result<()> {
        self.change_power::<Suspend>(ctx, id).await?;
        fault_point!("compute.suspend.committed");
        Ok(())
    }
    /// Begins resume (202).
    pub(crate) async fn resume_server(self: &Arc<Self>, ctx: &Ctx, id: &str) -> Result<()> {
        self.change_power::<Resume>(ctx, id).await?;
        fault_point!("compute.resume.committed");
        Ok(())
    }
}

/// Os-start: a stopped server runs again (Nova API reference, "Start Server").
pub(crate) struct Start;

impl PowerAction for Start {
    type Rule = acts::Start;
    const RULE: acts::Start = acts::Start;
    const NAME: &'static str = "start";
    const JOB: &'static str = "server.start";
    const FROM: &'static [VmState] = &[VmState::Stopped];
    const TASK: Task = Task::PoweringOn;
    const WANTED: Power = Power::Running;
    const SEEN: GuestState = GuestState::Running;
}

/// Os-stop: ACPI first, hard after a while (Nova API reference, "Stop Server").
pub(crate) struct Stop;

impl PowerAction for Stop {
    type Rule = acts::Stop;
    const RULE: acts::Stop = acts::Stop;
    const NAME: &'static str = "stop";
    const JOB: &'static str = "server.stop";
    const FROM: &'static [VmState] = &[VmState::Active, VmState::Error];
    const TASK: Task = Task::PoweringOff;
    const WANTED: Power = Power::Stopped;
    const SEEN: GuestState = GuestState::Stopped;
}

/// Pause: the guest keeps its memory and gets no time (Nova API reference, "Pause Server").
pub(crate) struct Pause;

impl PowerAction for Pause {
    type Rule = acts::Pause;
    const RULE: acts::Pause = acts::Pause;
    const NAME: &'static str = "pause";
    const JOB: &'static str = "server.pause";
    const FROM: &'static [VmState] = &[VmState::Active];
    const TASK: Task = Task::Pausing;
    const WANTED: Power = Power::Paused;
    const SEEN: GuestState = GuestState::Paused;
}

/// Unpause (Nova API reference, "Unpause Server").
pub(crate) struct Unpause;

impl PowerAction for Unpause {
    type Rule = acts::Unpause;
    const RULE: acts::Unpause = acts::Unpause;
    const NAME: &'static str = "unpause";
    const JOB: &'static str = "server.unpause";
    const FROM: &'static [VmState] = &[VmState::Paused];
    const TASK: Task = Task::Unpausing;
    const WANTED: Power = Power::Running;
    const SEEN: GuestState = GuestState::Running;
}

/// Suspend: the guest's memory goes to its host's disk, and nothing of it runs (Nova API reference, "Suspend Server").
pub(crate) struct Suspend;

impl PowerAction for Suspend {
    type Rule = acts::Suspend;
    const RULE: acts::Suspend = acts::Suspend;
    const NAME: &'static str = "suspend";
    const JOB: &'static str = "server.suspend";
    const FROM: &'static [VmState] = &[VmState::Active];
    const TASK: Task = Task::Suspending;
    const WANTED: Power = Power::Suspended;
    const SEEN: GuestState = GuestState::Suspended;
}

/// Resume: a suspended server goes on where it was (Nova API reference, "Resume Suspended Server").
pub(crate) struct Resume;

impl PowerAction for Resume {
    type Rule = acts::Resume;
    const RULE: acts::Resume = acts::Resume;
    const NAME: &'static str = "resume";
    const JOB: &'static str = "server.resume";
    const FROM: &'static [VmState] = &[VmState::Suspended];
    const TASK: Task = Task::Resuming;
    const WANTED: Power = Power::Running;
    const SEEN: GuestState = GuestState::Running;
}
