//! Networks: making, changing, deleting with everything that goes along.

use crate::Network;
use crate::err::{bad, conflict, invalid};
use crate::logic::publish::Touched;
use crate::logic::{floating_ips, ipam, ports, quotas};
use crate::model::{FloatingIp, Net, Port, Subnet, owner};
use haneul_auth::Ctx;
use haneul_core::{Error, Result};
use haneul_store::{CreateGrant, Grant, Query, Stored, System, Tx};

/// Largest MTU offered. What is larger than fits between hosts is sent in pieces there.
const MTU_MAX: i64 = 65535;
/// IPv4 asks for no less.
const MTU_MIN: u32 = 68;
/// What a guest's frame grows by on its way to another host: Ethernet, VXLAN, UDP, and IPv4 or IPv6.
const OUTER4: u32 = 50;
const OUTER6: u32 = 70;

/// Checks an MTU.
pub(crate) fn check_mtu(mtu: i64) -> Result<u32> {
    if mtu != 0 && !(MTU_MIN.into()..=MTU_MAX).contains(&mtu) {
        return Err(invalid(
            "mtu",
            format!("mtu {mtu} is not possible: write 68 (IPv6: 1280) to {MTU_MAX}, or 0 for the default."),
        ));
    }
    u32::try_from(mtu).map_err(Error::internal)
}

impl crate::Network {
    /// MTU of a new tenant network: the setting's; with several hosts no more than fits between them.
    pub(crate) async fn default_mtu(&self, tx: &mut Tx) -> Result<u32> {
        let hosts = self.fleet.hosts(tx).await?;
        if hosts.len() < 2 {
            return Ok(self.settings.mtu);
        }
        let fits = hosts.iter().filter_map(|h| h.underlay).map(|u| {
            let outer = if u.address.is_ipv4() { OUTER4 } else { OUTER6 };
            u.mtu.saturating_sub(outer)
        });
        Ok(fits
            .min()
            .unwrap_or(self.settings.mtu)
            .min(self.settings.mtu)
            .max(MTU_MIN))
    }
}

/// Narrows a list to the networks that the caller sees.
pub(crate) fn scope(ctx: &Ctx, query: Query) -> Query {
    if ctx.is_admin() {
        return query;
    }
    query.any_eq(vec![
        ("project_id", ctx.project_id().into()),
        ("shared", true.into()),
        ("external", true.into()),
    ])
}

/// Stores a network.
pub(crate) async fn insert(tx: &mut Tx, grant: &impl CreateGrant<Net>, mut net: Net) -> Result<Stored<Net>> {
    net.index = u32::try_from(tx.next_number("network.index").await?).map_err(Error::internal)?;
    if net.is_default {
        undefault(tx).await?;
    }
    tx.insert(grant, &net)
        .await?
        .ok_or_else(|| Error::internal("the id of a network was taken"))
}

/// There is one default external network; the newest to be called so wins.
async fn undefault(tx: &mut Tx) -> Result<()> {
    for n in tx.list::<Net>(&Query::new().eq("external", true)).await? {
        if n.is_default {
            let mut value = n.value.clone();
            value.is_default = false;
            tx.update(&System::of(n), &value).await?;
        }
    }
    Ok(())
}

/// Stores a changed network and what follows from it.
pub(crate) async fn update(
    tx: &mut Tx,
    grant: &impl Grant<Net>,
    net: &Net,
    touched: &mut Touched,
) -> Result<Stored<Net>> {
    let old = grant.stored().value.clone();
    if net.is_default && !old.is_default {
        undefault(tx).await?;
    }
    if old.shared && !net.shared {
        refuse_unshare(tx, net).await?;
    }
    if old.external && !net.external {
        let users = tx
            .row(
                "SELECT COUNT(*) FROM port WHERE network_id = $1 AND (device_owner = $2 OR device_owner = $3)",
                &[
                    (&net.id).into(),
                    owner::ROUTER_GATEWAY.into(),
                    owner::FLOATING_IP.into(),
                ],
            )
            .await?
            .map_or(Ok(0), |r| r.i64(0))?;
        if users > 0 {
            return Err(conflict(
                "ExternalNetworkInUse",
                format!("External network {} cannot be updated to be made non-external, since it has {users} existing gateway ports or floating IPs.", net.id),
            )
            .with_field("router:external"));
        }
    }
    let stored = tx.update(grant, net).await?;
    if (old.shared, old.external) != (net.shared, net.external) {
        for s in ports::subnets_of(tx, &net.id).await? {
            let mut value = s.value.clone();
            value.follow(net);
            tx.update(&System::of(s), &value).await?;
        }
    }
    if old.external != net.external {
        let ports = tx.list::<Port>(&Query::new().eq("network_id", &*net.id)).await?;
        touched.ports.extend(ports.into_iter().map(|p| p.value.id));
    }
    touched.networks.insert(net.id.clone());
    Ok(stored)
}

async fn refuse_unshare(tx: &mut Tx, net: &Net) -> Result<()> {
    let foreign = tx
        .row(
            "SELECT COUNT(*) FROM port WHERE network_id = $1 AND project_id <> $2 AND project_id <> '' AND device_owner <> $3",
            &[(&net.id).into(), (&net.project_id).into(), owner::DHCP.into()],
        )
        .await?
        .map_or(Ok(0), |r| r.i64(0))?;
    if foreign > 0 {
        return Err(conflict(
            "InvalidSharedSetting",
            format!("Unable to reconfigure sharing settings for network {}. Multiple projects are using it: {foreign} ports of others.", net.id),
        )
        .with_field("shared"));
    }
    Ok(())
}

impl Network {
    /// Deletes a network with its subnets and service ports; refused while anybody else's port is there.
    pub(crate) async fn network_delete(
        &self,
        tx: &mut Tx,
        grant: &impl Grant<Net>,
        touched: &mut Touched,
    ) -> Result<()> {
        let net = grant.stored().value.clone();
        // Floating IPs that lead nowhere go with their network.
        let here = Query::new().eq("floating_network_id", net.id.as_str());
        for fip in tx.list::<FloatingIp>(&here).await? {
            if fip.port_id.is_none() {
                floating_ips::remove(tx, &System::of(fip), touched).await?;
            }
        }
        let query = Query::new()
            .eq("network_id", net.id.as_str())
            .ne("device_owner", owner::DHCP)
            .limit(5);
        let users = tx.list::<Port>(&query).await?;
        if !users.is_empty() {
            let ids: Vec<&str> = users.iter().map(|p| p.id.as_str()).collect();
            return Err(conflict(
                "NetworkInUse",
                format!(
                    "Unable to complete operation on network {}. There are one or more ports still in use on the network, id for these ports is {}. Delete them first.",
                    net.id,
                    ids.join(",")
                ),
            ));
        }
        for p in tx.list::<Port>(&Query::new().eq("network_id", net.id.as_str())).await? {
            ports::remove(tx, &System::of(p), touched).await?;
        }
        for s in tx
            .list::<Subnet>(&Query::new().eq("network_id", net.id.as_str()))
            .await?
        {
            ipam_forget(tx, &s.id).await?;
            quotas::give_back(tx, &s.project_id.clone(), "subnet", 1).await?;
            tx.delete(&System::of(s)).await?;
        }
        quotas::give_back(tx, &net.project_id, "network", 1).await?;
        tx.delete(grant).await
    }
}

/// Forgets the cursor and addresses of a subnet.
pub(crate) async fn ipam_forget(tx: &mut Tx, subnet_id: &str) -> Result<()> {
    tx.exec("DELETE FROM ip_cursor WHERE subnet_id = $1", &[subnet_id.into()])
        .await?;
    tx.exec("DELETE FROM ip_allocation WHERE subnet_id = $1", &[subnet_id.into()])
        .await?;
    Ok(())
}

/// Usage of a network's pools: subnets with total and used addresses.
pub(crate) async fn usage(tx: &mut Tx, network_id: &str) -> Result<Vec<(Stored<Subnet>, u128, i64)>> {
    let mut out = Vec::new();
    for s in ports::subnets_of(tx, network_id).await? {
        let used = tx
            .row(
                "SELECT COUNT(*) FROM ip_allocation WHERE subnet_id = $1",
                &[(&s.id).into()],
            )
            .await?
            .map_or(Ok(0), |r| r.i64(0))?;
        let total = ipam::size(&s.allocation_pools);
        out.push((s, total, used));
    }
    Ok(out)
}

/// Provider attributes that cannot be had here are refused with what can.
pub(crate) fn check_provider(kind: Option<&str>) -> Result<()> {
    match kind {
        None | Some("" | "haneul") => Ok(()),
        Some(other) => Err(bad(
            "InvalidInput",
            "provider:network_type",
            format!(
                "Invalid input for operation: provider:network_type '{other}' is not supported. Leave it out: the cloud makes networks of its own type, haneul."
            ),
        )),
    }
}
