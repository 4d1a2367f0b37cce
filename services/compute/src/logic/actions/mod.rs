//! What can be done to a server: one file per action, and one for those that change only the power. Each writes the
//! server's task state and the desired guest and starts a job in one transaction; [`HostAction`] is what follows when
//! the host has done it, and how it is taken back.

pub mod confirm_resize;
pub mod create;
pub mod create_image;
pub mod lock;
pub mod power;
pub mod reboot;
pub mod rebuild;
pub mod reset_state;
pub mod resize;
pub mod revert_resize;

use crate::Compute;
use crate::model::{Fault, Server, Task, VmState};
use crate::policy::acts;
use haneul_agent_api::ObservedGuest;
use haneul_auth::{Action, Ctx, Target};
use haneul_core::config;
use haneul_core::{Error, Result};
use haneul_jobs::{BoxFuture, Job};
use haneul_store::Tx;
use serde_json::{Value, json};

/// The part of an action that waits for the host.
pub(crate) trait HostAction: Send + Sync + 'static {
    /// Kind of its job: `server.` and the name of the instance action.
    const KIND: &'static str;
    /// Seconds that the host has.
    fn deadline_s(config: &config::Compute) -> u64 {
        config.action_timeout_s
    }
    /// Whether what was seen (settled, and of the generation that was asked for) is what was wanted.
    fn met(s: &Server, seen: &ObservedGuest) -> bool;
    /// The server afterwards.
    fn done<'t>(
        app: &'t Compute,
        tx: &'t mut Tx,
        s: &'t mut Server,
        job: &'t Job,
        seen: &'t ObservedGuest,
    ) -> BoxFuture<'t, Result<()>>;
    /// Takes it back. Where nothing else is said, the host is asked for what was before, and the server is in that state
    /// again; the cause stays as its fault.
    fn undo<'t>(
        app: &'t Compute,
        tx: &'t mut Tx,
        s: &'t mut Server,
        job: &'t Job,
        fault: &'t Fault,
    ) -> BoxFuture<'t, Result<()>> {
        Box::pin(async move {
            restore(s, job);
            s.fault = Some(fault.clone());
            app.push_guest(tx, s).await
        })
    }
}

/// What a job of an action remembers.
pub(crate) fn memory(s: &Server) -> Value {
    json!({"v": 1, "vm_state": s.vm_state, "wanted": s.wanted, "power_state": s.power_state})
}

/// The state that the server had when the job began.
pub(crate) fn restore(s: &mut Server, job: &Job) {
    let of = |name: &str| job.state.get(name).cloned().unwrap_or(Value::Null);
    if let Ok(vm) = serde_json::from_value(of("vm_state")) {
        s.vm_state = vm;
    }
    if let Ok(wanted) = serde_json::from_value(of("wanted")) {
        s.wanted = wanted;
    }
    if let Some(p) = of("power_state").as_i64() {
        s.power_state = p;
    }
    s.task_state = None;
}

/// 409 when the server is not in one of these states, or something is being done to it.
pub(crate) fn check_state(s: &Server, what: &str, vm: &[VmState]) -> Result<()> {
    let busy = |attribute: &str, state: &str| {
        Err(Error::conflict(format!(
            "Cannot '{what}' instance {} while it is in {attribute} {state}",
            s.id
        )))
    };
    if !vm.contains(&s.vm_state) {
        return busy("vm_state", s.vm_state.as_str());
    }
    match s.task_state {
        Some(t) => busy("task_state", t.as_str()),
        // What was never built can only be deleted.
        None if s.launched_at.is_none() => busy("launched_at", "None"),
        None => Ok(()),
    }
}

/// 409 when somebody locked it; administrators pass.
pub(crate) fn check_lock<A: Action<On = Server>>(ctx: &Ctx, s: &Server, _action: A) -> Result<()> {
    if !s.locked || ctx.may(acts::UnlockOverride::RULE, &Target::project(&s.project_id)) {
        return Ok(());
    }
    Err(Error::conflict(format!("Instance {} is locked", s.id)))
}

impl Compute {
    /// Writes what an action decided: desired guest, job. The caller updates the row afterwards.
    pub(crate) async fn begin<A: HostAction>(
        &self,
        tx: &mut Tx,
        s: &mut Server,
        task: Task,
        memory: Value,
    ) -> Result<()> {
        s.task_state = Some(task);
        s.fault = None;
        let request_id = tx.actor().request_id.clone();
        s.note(A::KIND.strip_prefix("server.").unwrap_or(A::KIND), &request_id);
        self.push_guest(tx, s).await?;
        self.jobs.start(tx, A::KIND, ("server", &s.id), memory).await?;
        Ok(())
    }
}
