//! Networks by name, and floating IPs: compute calls an external network a pool of them.

use super::only;
use crate::Network;
use crate::logic::publish::Touched;
use crate::logic::{floating_ips, networks};
use crate::model::{FloatingIp, Net, Port};
use crate::policy::action::{CreateFloatingIp, DeleteFloatingIp, GetFloatingIp, GetNetwork, UpdateFloatingIp};
use haneul_auth::{Action, Ctx, Secured, Target, allow_create, fetch};
use haneul_core::{Error, Kind, Result, id};
use haneul_store::{Dir, Query, Stored, Tx};
use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

/// A network that the caller may see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedNetwork {
    pub id: String,
    pub name: String,
    /// Floating IPs come from it.
    pub external: bool,
}

/// A floating IP as compute shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PooledIp {
    pub id: String,
    pub address: IpAddr,
    /// Where it leads: the address, and the server that has it.
    pub fixed: Option<IpAddr>,
    pub server_id: Option<String>,
    /// Name of its network, or its id where it has none.
    pub pool: String,
}

impl Network {
    /// The networks that the caller may see.
    pub async fn networks(&self, tx: &mut Tx, ctx: &Ctx) -> Result<Vec<NamedNetwork>> {
        let query = networks::scope(ctx, Query::new())
            .order("created_at", Dir::Asc)
            .order("id", Dir::Asc);
        let found = tx.list::<Net>(&query).await?;
        Ok(found
            .iter()
            .filter(|n| ctx.may(GetNetwork::RULE, &n.target()))
            .map(|n| named(n))
            .collect())
    }

    /// One network.
    pub async fn network(&self, tx: &mut Tx, ctx: &Ctx, id: &str) -> Result<NamedNetwork> {
        Ok(named(&*fetch(tx, ctx, GetNetwork, id).await?))
    }

    /// The floating IPs of the caller's project.
    pub async fn pooled_ips(&self, tx: &mut Tx, ctx: &Ctx) -> Result<Vec<PooledIp>> {
        let query = Query::new()
            .eq("project_id", ctx.project_id())
            .order("created_at", Dir::Asc)
            .order("id", Dir::Asc);
        let mut found = tx.list::<FloatingIp>(&query).await?;
        found.retain(|f| ctx.may(GetFloatingIp::RULE, &f.target()));
        shown(tx, &found).await
    }

    /// One floating IP.
    pub async fn pooled_ip(&self, tx: &mut Tx, ctx: &Ctx, id: &str) -> Result<PooledIp> {
        let fip = fetch(tx, ctx, GetFloatingIp, id).await?;
        only(shown(tx, &[Stored::clone(&fip)]).await?)
    }

    /// The floating IP of this address; 409 when networks overlap and several have it.
    pub async fn pooled_ip_at(&self, tx: &mut Tx, ctx: &Ctx, address: IpAddr) -> Result<PooledIp> {
        let query = Query::new().eq("floating_ip_address", address.to_string());
        let mut found = tx.list::<FloatingIp>(&query).await?;
        found.retain(|f| f.visible(ctx) && ctx.may(GetFloatingIp::RULE, &f.target()));
        if found.len() > 1 {
            return Err(Error::conflict(format!(
                "Multiple floating ips are found for address {address}."
            )));
        }
        shown(tx, &found)
            .await?
            .pop()
            .ok_or_else(|| Error::not_found(format!("Floating IP not found for address {address}.")))
    }

    /// A new floating IP of a pool, named or by id; the cloud's own external network where none is named.
    pub async fn pooled_ip_create(&self, tx: &mut Tx, ctx: &Ctx, pool: Option<&str>) -> Result<PooledIp> {
        let pool = pool.unwrap_or(&self.settings.external_name);
        let mut nets = self.networks(tx, ctx).await?;
        nets.retain(|n| n.external && (n.id == pool || n.name == pool));
        let net = match nets.as_slice() {
            [one] => one,
            [] => return Err(Error::not_found(format!("Floating IP pool {pool} not found.")).with_field("pool")),
            several => {
                return Err(Error::conflict(format!(
                    "{} floating IP pools have the name '{pool}'. Use an id to be more specific.",
                    several.len()
                ))
                .with_field("pool"));
            }
        };
        let grant = allow_create(ctx, CreateFloatingIp, &Target::project(ctx.project_id()))?;
        let fip = floating_ips::blank(ctx.project_id(), &net.id);
        let mut touched = Touched::default();
        let made = floating_ips::create(tx, ctx, &grant, fip, floating_ips::Wanted::default(), &mut touched)
            .await
            .map_err(|e| match e.code() {
                "IpAddressGenerationFailure" => e.with_kind(Kind::NotFound),
                _ => e,
            })?;
        self.publish(tx, touched).await?;
        only(shown(tx, &[made]).await?)
    }

    /// Gives a floating IP back to its pool, wherever it leads.
    pub async fn pooled_ip_delete(&self, tx: &mut Tx, ctx: &Ctx, id: &str) -> Result<()> {
        let fip = fetch(tx, ctx, DeleteFloatingIp, id).await?;
        let mut touched = Touched::default();
        floating_ips::remove(tx, &fip, &mut touched).await?;
        self.publish(tx, touched).await
    }

    /// Lets a floating IP lead to a port of a server, or nowhere.
    pub async fn pooled_ip_lead(&self, tx: &mut Tx, ctx: &Ctx, id: &str, to: Option<(&str, IpAddr)>) -> Result<()> {
        let old = fetch(tx, ctx, UpdateFloatingIp, id).await?;
        let mut fip = old.edit();
        let mut touched = Touched::default();
        match to {
            Some((port, fixed)) => {
                let port = floating_ips::port(tx, ctx, &fip.project_id, port).await?;
                floating_ips::lead(tx, &mut fip, Some((&port.value, Some(fixed))), &mut touched).await?;
            }
            None => floating_ips::lead(tx, &mut fip, None, &mut touched).await?,
        }
        tx.update(&old, &fip).await?;
        self.publish(tx, touched).await
    }
}

fn named(n: &Net) -> NamedNetwork {
    NamedNetwork {
        id: n.id.clone(),
        name: n.name.clone(),
        external: n.external,
    }
}

async fn shown(tx: &mut Tx, found: &[Stored<FloatingIp>]) -> Result<Vec<PooledIp>> {
    let nets: BTreeSet<&str> = found.iter().map(|f| f.floating_network_id.as_str()).collect();
    let mut pools: HashMap<String, String> = HashMap::new();
    for n in tx.list::<Net>(&Query::new().is_in("id", nets)).await? {
        let name = if n.name.is_empty() { &n.id } else { &n.name };
        pools.insert(n.id.clone(), name.clone());
    }
    let ports: BTreeSet<&str> = found.iter().filter_map(|f| f.port_id.as_deref()).collect();
    let ports: Vec<&str> = ports.into_iter().collect();
    let mut servers: HashMap<String, String> = HashMap::new();
    for chunk in ports.chunks(500) {
        for p in tx
            .list::<Port>(&Query::new().is_in("id", chunk.iter().copied()))
            .await?
        {
            if id::is_uuid(&p.device_id) {
                servers.insert(p.id.clone(), p.device_id.clone());
            }
        }
    }
    Ok(found
        .iter()
        .map(|f| PooledIp {
            id: f.id.clone(),
            address: f.floating_ip,
            fixed: f.fixed_ip,
            server_id: f.port_id.as_ref().and_then(|p| servers.get(p)).cloned(),
            pool: pools.get(&f.floating_network_id).cloned().unwrap_or_default(),
        })
        .collect())
}
