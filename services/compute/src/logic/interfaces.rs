//! Interfaces of a server that exists: attached, detached, and addresses added and removed (Nova API reference, "Port
//! interfaces" and the actions `addFixedIp` and `removeFixedIp`).
//!
//! The port and the desired guest with one card more are one transaction, in which the job begins that waits for the
//! host; the answer waits for that job, as Nova's does, and the job does not need it. A detached port is let go when the
//! host has seen the card gone. One job of a server runs at a time: who comes meanwhile waits for its turn.

use crate::Compute;
use crate::logic::actions::{check_lock, check_state};
use crate::logic::deps::{Holder, NicRequest};
use crate::logic::guest;
use crate::model::{Server, Task, VmState};
use crate::policy::acts;
use haneul_agent_api::{Kind as Desired, MAX_NICS, Nic, Object};
use haneul_auth::{Action, Authorized, Ctx, fetch};
use haneul_core::{Error, Kind, Result, clock, fault_point};
use haneul_store::Tx;
use serde_json::json;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use uuid::Uuid;

pub(crate) const ATTACH: &str = "server.attach_interface";
pub(crate) const DETACH: &str = "server.detach_interface";

const STATES: &[VmState] = &[VmState::Active, VmState::Paused, VmState::Stopped];
/// Code of the error that means: another interface of the server is on its way, wait.
const BUSY: &str = "interface-busy";
/// Jobs that end in another process of ours wake nobody here: looked at this often.
const LOOK: Duration = Duration::from_secs(1);

/// Rung when a job about an interface has ended.
#[derive(Clone, Default)]
pub(crate) struct Ended(Arc<Notify>);

impl Ended {
    /// After the caller's transaction.
    pub(crate) fn after(&self, tx: &mut Tx) {
        let bell = self.0.clone();
        tx.after_commit(move || bell.notify_waiters());
    }

    /// Repeats `look` until it answers.
    async fn until<T, F: Future<Output = Result<Option<T>>>>(&self, look: impl Fn() -> F) -> Result<T> {
        loop {
            let bell = self.0.notified();
            tokio::pin!(bell);
            // From here on nothing is missed.
            bell.as_mut().enable();
            if let Some(found) = look().await? {
                return Ok(found);
            }
            let _ = tokio::time::timeout(LOOK, bell).await;
        }
    }
}

fn ready<A: Action<On = Server> + Copy>(ctx: &Ctx, s: &Authorized<Server, A>, action: A, what: &str) -> Result<()> {
    check_lock(ctx, s, action)?;
    let checked = check_state(s, what, STATES);
    if s.task_state == Some(Task::Networking) && STATES.contains(&s.vm_state) {
        return checked.map_err(|e| e.with_code(BUSY));
    }
    checked
}

impl Compute {
    /// Attaches a port or a network's new port; answers the port's id when the guest has the card.
    pub(crate) async fn attach_interface(self: &Arc<Self>, ctx: &Ctx, id: &str, nic: &NicRequest) -> Result<String> {
        let (port, job) = self.in_turn(|| self.begin_attach(ctx, id, nic)).await?;
        let ended = self
            .interfaces
            .until(|| async {
                let mut tx = self.db.read().await?;
                let job = self.jobs.get(&mut tx, &job).await?;
                Ok(job.filter(|j| j.status != "running"))
            })
            .await?;
        match (ended.status.as_str(), ended.error) {
            ("done", _) => Ok(port),
            ("cancelled", _) => Err(Error::conflict(format!(
                "Instance {id} was deleted while an interface was attached to it."
            ))),
            (_, why) => Err(Error::new(
                Kind::Internal,
                format!(
                    "Failed to attach network adapter device to {id}: {}",
                    why.unwrap_or_default()
                ),
            )),
        }
    }

    /// Begins to detach a port (202).
    pub(crate) async fn detach_interface(self: &Arc<Self>, ctx: &Ctx, id: &str, port: &str) -> Result<()> {
        self.in_turn(|| self.begin_detach(ctx, id, port)).await
    }

    /// Repeats `begin` while another interface of the server is on its way, for as long as that may take.
    async fn in_turn<T, F: Future<Output = Result<T>>>(&self, begin: impl Fn() -> F) -> Result<T> {
        let end = clock::now() + self.config.action_timeout_s as i64 * clock::SECOND;
        self.interfaces
            .until(|| {
                let begun = begin();
                async move {
                    match begun.await {
                        Err(e) if e.code() == BUSY && clock::now() < end => Ok(None),
                        other => other.map(Some),
                    }
                }
            })
            .await
    }

    async fn begin_attach(self: &Arc<Self>, ctx: &Ctx, id: &str, nic: &NicRequest) -> Result<(String, String)> {
        let (app, c, id, nic) = (self.clone(), ctx.clone(), id.to_owned(), nic.clone());
        let begun = self
            .db
            .write(&ctx.actor(), async move |tx| {
                let old = fetch(tx, &c, acts::InterfaceCreate, &id).await?;
                ready(&c, &old, acts::InterfaceCreate, "attach_interface")?;
                let have = app.network.server_ports(tx, std::slice::from_ref(&id)).await?;
                if have.get(&id).is_some_and(|p| p.len() >= MAX_NICS) {
                    return Err(Error::bad_request(format!(
                        "Attaching interfaces is not supported for instance {id}: it has {MAX_NICS}, the most that a server can have. Detach one first."
                    )));
                }
                let to = Holder {
                    id: &id,
                    hostname: &old.hostname,
                    project_id: &old.project_id,
                    host_id: old.host_id.as_deref().unwrap_or_default(),
                    zone: &old.availability_zone,
                };
                let port = app.network.attach_port(tx, &c, to, &nic).await?;
                let card = guest::nic(&port)?;
                let mut s = old.edit();
                s.note("attach_interface", &c.request_id);
                s.task_state = Some(Task::Networking);
                app.push_nics(tx, &mut s, |nics| {
                    nics.retain(|n| n.port_id != card.port_id);
                    nics.push(card);
                })
                .await?;
                tx.update(&old, &s).await?;
                let state = json!({"v": 1, "port": port.port_id});
                let job = app.jobs.start(tx, ATTACH, ("server", &id), state).await?;
                Ok((port.port_id, job))
            })
            .await?;
        fault_point!("compute.attach-interface.committed");
        Ok(begun)
    }

    async fn begin_detach(self: &Arc<Self>, ctx: &Ctx, id: &str, port: &str) -> Result<()> {
        let (app, c, id, port) = (self.clone(), ctx.clone(), id.to_owned(), port.to_owned());
        self.db
            .write(&ctx.actor(), async move |tx| {
                let old = fetch(tx, &c, acts::InterfaceDelete, &id).await?;
                ready(&c, &old, acts::InterfaceDelete, "detach_interface")?;
                let have = app.network.server_ports(tx, std::slice::from_ref(&id)).await?;
                if !have.get(&id).is_some_and(|p| p.iter().any(|p| p.port_id == port)) {
                    return Err(Error::not_found(format!(
                        "Port id {port} could not be found among those of instance {id}."
                    )));
                }
                let mut s = old.edit();
                s.note("detach_interface", &c.request_id);
                s.task_state = Some(Task::Networking);
                let card = Uuid::try_parse(&port).map_err(Error::internal)?;
                app.push_nics(tx, &mut s, |nics| nics.retain(|n| n.port_id != card))
                    .await?;
                tx.update(&old, &s).await?;
                let state = json!({"v": 1, "port": port});
                app.jobs.start(tx, DETACH, ("server", &id), state).await?;
                Ok(())
            })
            .await?;
        fault_point!("compute.detach-interface.committed");
        Ok(())
    }

    /// Changes the cards of the desired guest.
    pub(crate) async fn push_nics(
        &self,
        tx: &mut Tx,
        s: &mut Server,
        change: impl FnOnce(&mut Vec<Nic>),
    ) -> Result<()> {
        self.push_guest(tx, s).await?;
        let host = s.host_id.clone().unwrap_or_default();
        if let Some((_, Object::Guest(mut guest))) = self.fleet.desired(tx, &host, Desired::Guest, &s.id).await? {
            change(&mut guest.nics);
            s.desired_generation = self.fleet.put(tx, &host, &Object::Guest(guest)).await?;
        }
        Ok(())
    }

    /// The cards of the desired guest are those of the server's ports again.
    pub(crate) async fn restore_nics(&self, tx: &mut Tx, s: &mut Server) -> Result<()> {
        let ports = self.network.server_ports(tx, std::slice::from_ref(&s.id)).await?;
        let ports = ports.get(&s.id).map(Vec::as_slice).unwrap_or_default();
        let cards = ports.iter().map(guest::nic).collect::<Result<Vec<_>>>()?;
        self.push_nics(tx, s, |nics| *nics = cards).await
    }

    /// `addFixedIp`, until 2.43.
    pub(crate) async fn add_fixed_ip(self: &Arc<Self>, ctx: &Ctx, id: &str, network: &str) -> Result<()> {
        let (app, c, id, network) = (self.clone(), ctx.clone(), id.to_owned(), network.to_owned());
        self.db
            .write(&ctx.actor(), async move |tx| {
                let s = fetch(tx, &c, acts::AddFixedIp, &id).await?;
                check_lock(&c, &s, acts::AddFixedIp)?;
                check_state(&s, "add_fixed_ip", STATES)?;
                app.network.add_fixed_ip(tx, &id, &network).await
            })
            .await
    }

    /// `removeFixedIp`, until 2.43.
    pub(crate) async fn remove_fixed_ip(self: &Arc<Self>, ctx: &Ctx, id: &str, address: IpAddr) -> Result<()> {
        let (app, c, id) = (self.clone(), ctx.clone(), id.to_owned());
        self.db
            .write(&ctx.actor(), async move |tx| {
                let s = fetch(tx, &c, acts::RemoveFixedIp, &id).await?;
                check_lock(&c, &s, acts::RemoveFixedIp)?;
                check_state(&s, "remove_fixed_ip", STATES)?;
                app.network.remove_fixed_ip(tx, &id, address).await
            })
            .await
    }
}
