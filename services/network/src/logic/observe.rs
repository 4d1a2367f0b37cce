//! What hosts report: ports come up, routers with their floating IPs come up. Only changes are written.

use crate::Network;
use crate::logic::publish::router_ports;
use crate::model::{FloatingIp, Port, Router};
use haneul_agent_api::{Greeting, Kind, ObservedNet};
use haneul_core::Result;
use haneul_fleet::{BoxFuture, Host, Observer};
use haneul_store::{Query, System, Tx};

impl Observer for Network {
    fn host_up<'t>(&'t self, tx: &'t mut Tx, greeting: &'t Greeting) -> BoxFuture<'t, Result<()>> {
        Box::pin(async move {
            let host = greeting.host_id.to_string();
            let silent = self.silent.clone();
            let back = host.clone();
            tx.after_commit(move || silent.back(&back));
            self.adopt_routers(tx, &host).await
        })
    }

    fn host_down<'t>(&'t self, tx: &'t mut Tx, host: &'t str) -> BoxFuture<'t, Result<()>> {
        let (silent, host) = (self.silent.clone(), host.to_owned());
        tx.after_commit(move || silent.lost(&host));
        Box::pin(async { Ok(()) })
    }

    fn host_leaving<'t>(&'t self, tx: &'t mut Tx, host: &'t Host) -> BoxFuture<'t, Result<()>> {
        Box::pin(self.routers_leave(tx, &host.id))
    }

    fn underlay_changed<'t>(&'t self, tx: &'t mut Tx, host: &'t str) -> BoxFuture<'t, Result<()>> {
        Box::pin(Network::underlay_changed(self, tx, host))
    }

    fn net<'t>(
        &'t self,
        tx: &'t mut Tx,
        host: &'t str,
        kind: Kind,
        seen: &'t ObservedNet,
    ) -> BoxFuture<'t, Result<()>> {
        Box::pin(async move {
            let id = seen.id.to_string();
            match kind {
                Kind::Port => port_seen(tx, host, &id, seen.up).await,
                Kind::Router => router_seen(tx, host, &id, seen.up).await,
                _ => Ok(()),
            }
        })
    }
}

fn word(up: bool) -> &'static str {
    if up { "ACTIVE" } else { "DOWN" }
}

async fn port_seen(tx: &mut Tx, host: &str, id: &str, up: bool) -> Result<()> {
    let Some(port) = tx.find::<Port>(id).await? else {
        return Ok(());
    };
    let status = word(up);
    if port.host_id != host || port.status == status {
        return Ok(());
    }
    let mut value = port.value.clone();
    value.status = status.into();
    tx.update(&System::of(port), &value).await?;
    Ok(())
}

async fn router_seen(tx: &mut Tx, host: &str, id: &str, up: bool) -> Result<()> {
    let Some(router) = tx.find::<Router>(id).await? else {
        return Ok(());
    };
    if router.host_id != host {
        return Ok(());
    }
    let status = word(up);
    for port in router_ports(tx, id).await? {
        if port.status != status {
            let mut value = port.value.clone();
            value.status = status.into();
            tx.update(&System::of(port), &value).await?;
        }
    }
    for fip in tx
        .list::<FloatingIp>(&Query::new().eq("router_id", id).ne("status", status))
        .await?
    {
        let mut value = fip.value.clone();
        value.status = status.into();
        tx.update(&System::of(fip), &value).await?;
    }
    Ok(())
}
