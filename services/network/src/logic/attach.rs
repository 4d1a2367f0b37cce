//! What compute calls when cards come to a server that exists, and go: ports, and addresses of ports.
//!
//! Refusals are those of Nova's attachments (404 for what is not there), not those of a create.

use crate::Network;
use crate::logic::compute::{NicRequest, ServerPort, released, usable_network};
use crate::logic::ports::{self, Ask};
use crate::logic::publish::Touched;
use crate::model::{FloatingIp, Net, Port};
use haneul_auth::Ctx;
use haneul_core::{Error, Kind, Result};
use haneul_store::{Query, Stored, System, Tx};
use std::net::IpAddr;

/// The server that ports are attached to.
#[derive(Clone, Copy, Debug)]
pub struct Holder<'a> {
    pub id: &'a str,
    pub hostname: &'a str,
    pub project_id: &'a str,
    pub host_id: &'a str,
    pub zone: &'a str,
}

fn bad(field: &str, message: impl Into<String>) -> Error {
    Error::field(field, message)
}

async fn ports_of(tx: &mut Tx, server_id: &str) -> Result<Vec<Stored<Port>>> {
    let all = tx.list::<Port>(&Query::new().eq("device_id", server_id)).await?;
    Ok(all.into_iter().filter(|p| p.is_servers()).collect())
}

impl Network {
    /// Makes or takes one more port for a server, behind those that it has.
    pub async fn attach_port(&self, tx: &mut Tx, ctx: &Ctx, to: Holder<'_>, nic: &NicRequest) -> Result<ServerPort> {
        let nic = self.attachable(tx, ctx, to, nic).await?;
        let have = ports_of(tx, to.id).await?;
        let first = have.iter().map(|p| p.order + 1).max().unwrap_or(0);
        let made = self
            .bind_ports(tx, ctx, to, std::slice::from_ref(&nic), &[], first)
            .await
            // Where a port is made for somebody, that there is no address left is Nova's 400.
            .map_err(|e| match e.code() {
                "IpAddressGenerationFailure" => bad("net_id", e.public()),
                _ => e,
            })?;
        made.into_iter()
            .next()
            .ok_or_else(|| Error::internal("a port that was attached is not there"))
    }

    /// Refuses what cannot be attached; completes what was not said.
    async fn attachable(&self, tx: &mut Tx, ctx: &Ctx, to: Holder<'_>, nic: &NicRequest) -> Result<NicRequest> {
        if let Some(id) = &nic.port_id {
            let found = tx.find::<Port>(id).await?;
            let port = found
                .filter(|p| ctx.is_admin() || p.project_id == ctx.project_id())
                .ok_or_else(|| Error::not_found(format!("Port id {id} could not be found.")))?;
            if port.project_id != to.project_id || port.is_service() {
                return Err(bad(
                    "port_id",
                    format!(
                        "Port {id} not usable for instance {}: it must be an ordinary port of the same project.",
                        to.id
                    ),
                ));
            }
            if !port.device_id.is_empty() {
                return Err(Error::conflict(format!("Port {id} is still in use.")).with_field("port_id"));
            }
            if port.fixed_ips.is_empty() && !ports::subnets_of(tx, &port.network_id).await?.is_empty() {
                return Err(bad(
                    "port_id",
                    format!("Port {id} requires a FixedIP in order to be used."),
                ));
            }
            return Ok(nic.clone());
        }
        let Some(id) = &nic.network_id else {
            let chosen = self
                .resolve_nics(tx, ctx, None, false)
                .await
                .map_err(|e| match e.kind() {
                    // A create says 409 here, an attachment 400.
                    Kind::Conflict => bad("net_id", e.public()),
                    _ => e,
                })?;
            let mut one = chosen.into_iter().next().ok_or_else(|| {
                bad(
                    "net_id",
                    format!(
                        "No specific network was requested and none are available for project '{}'.",
                        to.project_id
                    ),
                )
            })?;
            one.tag.clone_from(&nic.tag);
            return Ok(one);
        };
        let net = usable_network(tx, ctx, id).await.map_err(|e| match e.kind() {
            Kind::BadRequest => Error::not_found(e.public()),
            _ => e,
        })?;
        let subnets = ports::subnets_of(tx, &net.id).await?;
        if subnets.is_empty() {
            return Err(bad(
                "net_id",
                format!("Network {id} requires a subnet in order to boot instances on."),
            ));
        }
        if let Some(ip) = nic.fixed_ip {
            let Some(s) = subnets.iter().find(|s| s.cidr.contains(&ip)) else {
                return Err(bad(
                    "fixed_ips",
                    format!("Fixed IP {ip} is not a valid ip address for network {id}."),
                ));
            };
            let taken = tx
                .row(
                    "SELECT 1 FROM ip_allocation WHERE subnet_id = $1 AND num = $2",
                    &[(&s.id).into(), crate::logic::ipam::key(ip).into()],
                )
                .await?;
            if taken.is_some() {
                return Err(Error::conflict(format!(
                    "Fixed IP address {ip} is already in use on instance's network {id}."
                ))
                .with_field("fixed_ips"));
            }
        }
        Ok(nic.clone())
    }

    /// A server has let go of a port: it is deleted when compute made it, and else free again. False: it had no such
    /// port.
    pub async fn detach_port(&self, tx: &mut Tx, server_id: &str, port_id: &str) -> Result<bool> {
        let Some(port) = tx.find::<Port>(port_id).await? else {
            return Ok(false);
        };
        if port.device_id != server_id || !port.is_servers() {
            return Ok(false);
        }
        let mut touched = Touched::default();
        released(tx, port, &mut touched).await?;
        self.publish(tx, touched).await?;
        Ok(true)
    }

    /// One more address of this network for the server's port there (Nova's `addFixedIp`, until 2.43).
    pub async fn add_fixed_ip(&self, tx: &mut Tx, server_id: &str, network_id: &str) -> Result<()> {
        let none = || {
            bad(
                "networkId",
                format!("Network could not be found for instance {server_id}: it has no port on network {network_id}."),
            )
        };
        let Some(net) = tx.find::<Net>(network_id).await? else {
            return Err(none());
        };
        let mine = ports_of(tx, server_id).await?;
        let port = mine.into_iter().find(|p| p.network_id == net.id).ok_or_else(none)?;
        let subnets = ports::subnets_of(tx, &net.id).await?;
        let mut last = none();
        for s in subnets {
            let mut asks = asks_of(&port);
            asks.push(Ask {
                subnet_id: Some(s.id.clone()),
                ip: None,
            });
            ports::check_asks(&asks)?;
            match ports::readdress(tx, &net, &port, &asks).await {
                Ok(fixed_ips) => return self.readdressed(tx, port, fixed_ips).await,
                // Another subnet may have one.
                Err(e) if e.code() == "IpAddressGenerationFailure" => {
                    last = bad(
                        "networkId",
                        format!("No fixed IP addresses available for network: {network_id}"),
                    );
                }
                Err(e) => return Err(e),
            }
        }
        Err(last)
    }

    /// Takes an address off the server's port (`removeFixedIp`, until 2.43).
    pub async fn remove_fixed_ip(&self, tx: &mut Tx, server_id: &str, address: IpAddr) -> Result<()> {
        let mine = ports_of(tx, server_id).await?;
        let has = |p: &Stored<Port>| p.fixed_ips.iter().any(|f| f.ip == address);
        let Some(port) = mine.into_iter().find(has) else {
            return Err(bad(
                "address",
                format!("Instance {server_id} does not have fixed IP '{address}'."),
            ));
        };
        let led = Query::new().eq("port_id", port.id.as_str());
        if let Some(f) = tx
            .list::<FloatingIp>(&led)
            .await?
            .iter()
            .find(|f| f.fixed_ip == Some(address))
        {
            return Err(bad(
                "address",
                format!(
                    "Fixed IP {address} is the target of floating IP {}. Disassociate that first.",
                    f.floating_ip
                ),
            ));
        }
        let net = tx
            .find::<Net>(&port.network_id)
            .await?
            .ok_or_else(|| Error::internal(format!("port {} has no network", port.id)))?;
        let mut asks = asks_of(&port);
        asks.retain(|a| a.ip != Some(address));
        let fixed_ips = ports::readdress(tx, &net, &port, &asks).await?;
        self.readdressed(tx, port, fixed_ips).await
    }

    async fn readdressed(&self, tx: &mut Tx, old: Stored<Port>, fixed_ips: Vec<crate::model::FixedIp>) -> Result<()> {
        let mut touched = Touched::default();
        let mut port = old.value.clone();
        port.fixed_ips = fixed_ips;
        touched.port_changed(&old.value, &port);
        tx.update(&System::of(old), &port).await?;
        self.publish(tx, touched).await
    }
}

/// The addresses that the port has, as wishes.
fn asks_of(port: &Port) -> Vec<Ask> {
    let one = |f: &crate::model::FixedIp| Ask {
        subnet_id: Some(f.subnet_id.clone()),
        ip: Some(f.ip),
    };
    port.fixed_ips.iter().map(one).collect()
}
