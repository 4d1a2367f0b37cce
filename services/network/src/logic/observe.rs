//! What hosts report: ports come up, routers with their floating IPs come up. Only changes are written.

use crate::Network;
use crate::logic::publish::{Touched, router_ports};
use crate::model::{FloatingIp, Port, Router};
use haneul_agent_api::{Greeting, Kind, ObservedNet};
use haneul_core::Result;
use haneul_fleet::{BoxFuture, Observer};
use haneul_store::{Query, System, Tx};

impl Observer for Network {
    fn host_up<'t>(&'t self, tx: &'t mut Tx, greeting: &'t Greeting) -> BoxFuture<'t, Result<()>> {
        Box::pin(async move { self.adopt_routers(tx, &greeting.host_id.to_string()).await })
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

impl Network {
    /// Routers that were made before there was a host go to this one.
    async fn adopt_routers(&self, tx: &mut Tx, host: &str) -> Result<()> {
        let homeless = tx.list::<Router>(&Query::new().eq("host_id", "")).await?;
        let mut touched = Touched::default();
        for r in homeless {
            let mut router = r.value.clone();
            router.host_id = host.to_owned();
            for p in router_ports(tx, &router.id).await? {
                let mut port = p.value.clone();
                port.host_id = host.to_owned();
                tx.update(&System::of(p), &port).await?;
            }
            touched.routers.insert(router.id.clone());
            tx.update(&System::of(r), &router).await?;
        }
        self.publish(tx, touched).await
    }
}
