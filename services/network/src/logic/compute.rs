//! What compute calls, inside its own transactions: choosing networks, making and binding a server's ports,
//! showing them, and letting them go.
//!
//! Refusals carry Nova's texts, since it is Nova's clients that read them.

use crate::Network;
use crate::logic::attach::Holder;
use crate::logic::ports::{self, Ask, Wish};
use crate::logic::publish::Touched;
use crate::logic::{groups, quotas};
use crate::model::{FloatingIp, Group, Net, Port};
use haneul_auth::Ctx;
use haneul_core::{Error, Kind, Result};
use haneul_store::{Dir, Query, Stored, System, Tx};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

/// A device that a server asks for: a network, or a port that exists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NicRequest {
    pub network_id: Option<String>,
    pub port_id: Option<String>,
    pub fixed_ip: Option<IpAddr>,
    /// Name of the device in the guest's metadata.
    pub tag: Option<String>,
}

/// A server's port as compute shows it and tells the guest.
#[derive(Clone, Debug, PartialEq)]
pub struct ServerPort {
    pub port_id: String,
    pub network_id: String,
    pub network_name: String,
    pub mac: String,
    pub mtu: u32,
    /// Subnet and address.
    pub fixed_ips: Vec<(String, IpAddr)>,
    /// Fixed and floating address.
    pub floating: Vec<(IpAddr, IpAddr)>,
    pub created_by_compute: bool,
    /// Names.
    pub security_groups: Vec<String>,
    /// Their ids, in the same order.
    pub security_group_ids: Vec<String>,
    pub index: u32,
    pub tag: Option<String>,
    pub status: String,
}

fn bad(message: impl Into<String>) -> Error {
    Error::field("networks", message)
}

impl Network {
    /// Completes what a server asks for. `None` is "not said"; `auto` is Nova's `networks: auto`.
    /// With nothing said the project's only network is taken; several are ambiguous; none is no device.
    pub async fn resolve_nics(
        &self,
        tx: &mut Tx,
        ctx: &Ctx,
        requested: Option<&[NicRequest]>,
        auto: bool,
    ) -> Result<Vec<NicRequest>> {
        let Some(requested) = requested.filter(|_| !auto) else {
            return self.only_network(tx, ctx, auto).await;
        };
        let mut seen = BTreeSet::new();
        for nic in requested {
            if let Some(id) = &nic.port_id {
                let port = tx
                    .find::<Port>(id)
                    .await?
                    .filter(|p| ctx.is_admin() || p.project_id == ctx.project_id())
                    .ok_or_else(|| bad(format!("Port id {id} could not be found.")))?;
                if !port.device_id.is_empty() || !seen.insert(id.clone()) {
                    return Err(Error::conflict(format!("Port {id} is still in use.")).with_field("networks"));
                }
                if port.fixed_ips.is_empty() && !ports::subnets_of(tx, &port.network_id).await?.is_empty() {
                    return Err(bad(format!("Port {id} requires a FixedIP in order to be used.")));
                }
            } else if let Some(id) = &nic.network_id {
                let net = usable_network(tx, ctx, id).await?;
                let subnets = ports::subnets_of(tx, &net.id).await?;
                if subnets.is_empty() {
                    return Err(bad(format!(
                        "Network {id} requires a subnet in order to boot instances on."
                    )));
                }
                if let Some(ip) = nic.fixed_ip {
                    let Some(s) = subnets.iter().find(|s| s.cidr.contains(&ip)) else {
                        return Err(bad(format!(
                            "Fixed IP {ip} is not a valid ip address for network {id}."
                        )));
                    };
                    let taken = tx
                        .row(
                            "SELECT 1 FROM ip_allocation WHERE subnet_id = $1 AND num = $2",
                            &[(&s.id).into(), crate::logic::ipam::key(ip).into()],
                        )
                        .await?
                        .is_some();
                    if taken {
                        return Err(bad(format!(
                            "Fixed IP address {ip} is already in use on instance's network {id}."
                        )));
                    }
                }
            } else {
                return Err(bad("Each of networks needs a uuid or a port."));
            }
        }
        Ok(requested.to_vec())
    }

    async fn only_network(&self, tx: &mut Tx, ctx: &Ctx, auto: bool) -> Result<Vec<NicRequest>> {
        let query = Query::new()
            .any_eq(vec![("project_id", ctx.project_id().into()), ("shared", true.into())])
            .order("created_at", Dir::Asc)
            .limit(50);
        let nets = tx.list::<Net>(&query).await?;
        // As Nova does: another project's shared network counts, an external one only when shared.
        let mut usable = Vec::new();
        for n in nets {
            let own = n.project_id == ctx.project_id();
            if (n.shared || (own && !n.external)) && !ports::subnets_of(tx, &n.id).await?.is_empty() {
                usable.push(n.id.clone());
            }
        }
        match usable.len() {
            0 if auto => Err(bad(
                "Unable to automatically allocate a network for this project: it has no network with a subnet. Make one, or ask for networks 'none'.",
            )),
            0 => Ok(vec![]),
            1 => Ok(usable
                .into_iter()
                .map(|id| NicRequest {
                    network_id: Some(id),
                    ..NicRequest::default()
                })
                .collect()),
            _ => Err(
                Error::conflict("Multiple possible networks found, use a Network ID to be more specific.")
                    .with_field("networks")
                    .with_details(serde_json::json!({"networks": usable})),
            ),
        }
    }

    /// Makes and binds the ports of a server, in the order of `nics`. `security_groups` are names or ids;
    /// none means the project's default group.
    #[allow(clippy::too_many_arguments)]
    pub async fn create_server_ports(
        &self,
        tx: &mut Tx,
        ctx: &Ctx,
        server_id: &str,
        server_name: &str,
        project_id: &str,
        host_id: &str,
        zone: &str,
        nics: &[NicRequest],
        security_groups: &[String],
    ) -> Result<Vec<ServerPort>> {
        let to = Holder {
            id: server_id,
            hostname: server_name,
            project_id,
            host_id,
            zone,
        };
        self.bind_ports(tx, ctx, to, nics, security_groups, 0).await
    }

    /// The ports of a server, the first of them in this place.
    pub(crate) async fn bind_ports(
        &self,
        tx: &mut Tx,
        ctx: &Ctx,
        to: Holder<'_>,
        nics: &[NicRequest],
        security_groups: &[String],
        first: u32,
    ) -> Result<Vec<ServerPort>> {
        let Holder {
            id: server_id,
            hostname: server_name,
            project_id,
            host_id,
            zone,
        } = to;
        let mut touched = Touched::default();
        let fresh = nics.iter().filter(|n| n.port_id.is_none()).count();
        let mut group_ids = Vec::new();
        if fresh > 0 || !security_groups.is_empty() {
            group_ids = resolve_groups(tx, project_id, security_groups).await?;
        }
        quotas::take(tx, project_id, "port", i64::try_from(fresh).unwrap_or(i64::MAX)).await?;
        let device_owner = format!("compute:{zone}");
        let dns_name = host_name(server_name);
        let mut nets: BTreeMap<String, Stored<Net>> = BTreeMap::new();
        let mut made = Vec::new();
        for (order, nic) in (first..).zip(nics) {
            if let Some(id) = &nic.port_id {
                let old = tx
                    .find::<Port>(id)
                    .await?
                    .filter(|p| ctx.is_admin() || p.project_id == ctx.project_id())
                    .ok_or_else(|| bad(format!("Port id {id} could not be found.")))?;
                if !old.device_id.is_empty() {
                    return Err(Error::conflict(format!("Port {id} is still in use.")).with_field("networks"));
                }
                let mut port = old.value.clone();
                port.device_id = server_id.to_owned();
                port.device_owner.clone_from(&device_owner);
                port.host_id = host_id.to_owned();
                port.order = order;
                port.device_tag.clone_from(&nic.tag);
                if port.dns_name.is_empty() {
                    port.dns_name.clone_from(&dns_name);
                }
                touched.port_changed(&old.value, &port);
                made.push(tx.update(&System::of(old), &port).await?);
                continue;
            }
            let id = nic.network_id.as_deref().unwrap_or_default();
            if !nets.contains_key(id) {
                nets.insert(id.to_owned(), usable_network(tx, ctx, id).await?);
            }
            let net = nets.get(id).ok_or_else(|| Error::internal("a network got lost"))?;
            let mut port = ports::blank(net, project_id);
            port.device_id = server_id.to_owned();
            port.device_owner.clone_from(&device_owner);
            port.host_id = host_id.to_owned();
            port.dns_name.clone_from(&dns_name);
            port.created_by_compute = true;
            port.order = order;
            port.device_tag.clone_from(&nic.tag);
            if port.port_security {
                port.security_groups.clone_from(&group_ids);
            }
            let wish = match nic.fixed_ip {
                None => Wish::Auto,
                Some(ip) => Wish::Asked(vec![Ask {
                    subnet_id: None,
                    ip: Some(ip),
                }]),
            };
            made.push(ports::add(tx, &System::create(), net, port, wish, &mut touched).await?);
        }
        self.publish(tx, touched).await?;
        let mut shown = self.show_ports(tx, made).await?;
        Ok(shown.remove(server_id).unwrap_or_default())
    }

    /// Ports of servers, by server, in the order in which they were asked for.
    pub async fn server_ports(&self, tx: &mut Tx, server_ids: &[String]) -> Result<HashMap<String, Vec<ServerPort>>> {
        let mut all = Vec::new();
        for chunk in server_ids.chunks(500) {
            let query = Query::new().is_in("device_id", chunk.iter().map(String::as_str));
            all.extend(tx.list::<Port>(&query).await?.into_iter().filter(|p| p.is_servers()));
        }
        self.show_ports(tx, all).await
    }

    async fn show_ports(&self, tx: &mut Tx, mut ports: Vec<Stored<Port>>) -> Result<HashMap<String, Vec<ServerPort>>> {
        let mut out: HashMap<String, Vec<ServerPort>> = HashMap::new();
        if ports.is_empty() {
            return Ok(out);
        }
        ports.sort_by(|a, b| (a.order, a.created_at, &a.id).cmp(&(b.order, b.created_at, &b.id)));
        let net_ids: BTreeSet<String> = ports.iter().map(|p| p.network_id.clone()).collect();
        let nets: HashMap<String, Stored<Net>> = tx
            .list::<Net>(&Query::new().is_in("id", net_ids))
            .await?
            .into_iter()
            .map(|n| (n.id.clone(), n))
            .collect();
        let group_ids: BTreeSet<String> = ports.iter().flat_map(|p| p.security_groups.clone()).collect();
        let mut names: HashMap<String, String> = HashMap::new();
        if !group_ids.is_empty() {
            for g in tx.list::<Group>(&Query::new().is_in("id", group_ids)).await? {
                names.insert(g.id.clone(), g.name.clone());
            }
        }
        let mut floating: HashMap<String, Vec<(IpAddr, IpAddr)>> = HashMap::new();
        for chunk in ports.chunks(500) {
            let query = Query::new()
                .is_in("port_id", chunk.iter().map(|p| p.id.as_str()))
                .order("id", Dir::Asc);
            for f in tx.list::<FloatingIp>(&query).await? {
                if let (Some(port), Some(fixed)) = (&f.port_id, f.fixed_ip) {
                    floating.entry(port.clone()).or_default().push((fixed, f.floating_ip));
                }
            }
        }
        for p in ports {
            let groups = p
                .security_groups
                .iter()
                .filter_map(|g| Some((names.get(g)?.clone(), g.clone())));
            let (security_groups, security_group_ids) = groups.unzip();
            let net = nets.get(&p.network_id);
            out.entry(p.device_id.clone()).or_default().push(ServerPort {
                network_name: net.map_or_else(String::new, |n| n.name.clone()),
                mtu: net.map_or(self.settings.mtu, |n| n.mtu),
                floating: floating.remove(&p.id).unwrap_or_default(),
                security_groups,
                security_group_ids,
                port_id: p.id.clone(),
                network_id: p.network_id.clone(),
                mac: p.mac.clone(),
                fixed_ips: p.fixed_ips.iter().map(|f| (f.subnet_id.clone(), f.ip)).collect(),
                created_by_compute: p.created_by_compute,
                index: p.index,
                tag: p.device_tag.clone(),
                status: p.status.clone(),
            });
        }
        Ok(out)
    }

    /// The server is deleted: ports that compute made go, the others are unbound and free again.
    pub async fn server_gone(&self, tx: &mut Tx, server_id: &str) -> Result<()> {
        let mut touched = Touched::default();
        for p in tx.list::<Port>(&Query::new().eq("device_id", server_id)).await? {
            if !p.is_servers() {
                continue;
            }
            released(tx, p, &mut touched).await?;
        }
        self.publish(tx, touched).await
    }

    /// The server is about to move to another host: its ports are made ready there, while they stay where they are.
    /// Everybody still reaches them there, the new host too. [`Network::server_moved`] or [`Network::server_stays`]
    /// follows.
    pub async fn server_arrives(&self, tx: &mut Tx, server_id: &str, host_id: &str) -> Result<()> {
        let ready = |p: &mut Port| {
            if p.host_id != host_id {
                p.arriving_host_id = host_id.to_owned();
            }
        };
        self.rebind(tx, server_id, ready).await
    }

    /// The server stays where it is: nothing of its ports is left on the host that they were made ready on.
    pub async fn server_stays(&self, tx: &mut Tx, server_id: &str) -> Result<()> {
        self.rebind(tx, server_id, |p| p.arriving_host_id.clear()).await
    }

    /// The server is on another host: its ports are too, from the same transaction on. All other hosts are told. The
    /// agent that had them lets go of them when their guest is gone there.
    pub async fn server_moved(&self, tx: &mut Tx, server_id: &str, host_id: &str) -> Result<()> {
        let moved = |p: &mut Port| {
            if p.host_id == host_id {
                return;
            }
            // What was made ready there is reported already.
            if p.arriving_host_id != host_id {
                p.status = "DOWN".into();
            }
            p.host_id = host_id.to_owned();
            p.arriving_host_id.clear();
        };
        self.rebind(tx, server_id, moved).await
    }

    async fn rebind(&self, tx: &mut Tx, server_id: &str, change: impl Fn(&mut Port)) -> Result<()> {
        let mut touched = Touched::default();
        for p in tx.list::<Port>(&Query::new().eq("device_id", server_id)).await? {
            let mut port = p.value.clone();
            change(&mut port);
            if !p.is_servers() || port == p.value {
                continue;
            }
            touched.port_changed(&p.value, &port);
            tx.update(&System::of(p), &port).await?;
        }
        self.publish(tx, touched).await
    }

    /// Adds a group (name or id) to all ports of a server, or takes it off.
    pub async fn server_group(
        &self,
        tx: &mut Tx,
        project_id: &str,
        server_id: &str,
        group: &str,
        add: bool,
    ) -> Result<()> {
        let ids = resolve_groups(tx, project_id, std::slice::from_ref(&group.to_owned()))
            .await
            .map_err(|e| match e.kind() {
                Kind::BadRequest => e.with_kind(Kind::NotFound),
                _ => e,
            })?;
        let Some(id) = ids.first() else { return Ok(()) };
        let mut ports = tx.list::<Port>(&Query::new().eq("device_id", server_id)).await?;
        ports.retain(|p| p.is_servers());
        if ports.is_empty() {
            return Err(Error::not_found(format!(
                "instance_id {server_id} could not be found as device id on any ports"
            )));
        }
        let mut touched = Touched::default();
        let mut had = false;
        for p in ports {
            if add && (!p.port_security || p.fixed_ips.is_empty()) {
                return Err(Error::field(
                    "name",
                    format!(
                        "Network requires port_security_enabled and subnet associated in order to apply security groups, which port {} has not.",
                        p.id
                    ),
                ));
            }
            let mut port = p.value.clone();
            had |= port.security_groups.contains(id);
            if add && !port.security_groups.contains(id) {
                port.security_groups.push(id.clone());
            } else if !add {
                port.security_groups.retain(|g| g != id);
            }
            if port.security_groups != p.security_groups {
                groups::rejoin(tx, &port.id, &port.security_groups).await?;
                touched.port_changed(&p.value, &port);
                tx.update(&System::of(p), &port).await?;
            }
        }
        if !add && !had {
            return Err(Error::not_found(format!(
                "Security group {group} not associated with the instance {server_id}"
            ))
            .with_field("name"));
        }
        self.publish(tx, touched).await
    }
}

/// A server has let go of its port: it goes when compute made it, and is unbound and free again otherwise.
pub(crate) async fn released(tx: &mut Tx, p: Stored<Port>, touched: &mut Touched) -> Result<()> {
    if p.created_by_compute {
        return ports::remove(tx, &System::of(p), touched).await;
    }
    let mut port = p.value.clone();
    port.device_id.clear();
    port.device_owner.clear();
    port.host_id.clear();
    port.arriving_host_id.clear();
    port.device_tag = None;
    port.order = 0;
    port.status = "DOWN".into();
    touched.port_changed(&p.value, &port);
    tx.update(&System::of(p), &port).await?;
    Ok(())
}

/// A network that the caller may put servers on.
pub(crate) async fn usable_network(tx: &mut Tx, ctx: &Ctx, id: &str) -> Result<Stored<Net>> {
    let missing = || bad(format!("Network {id} could not be found."));
    let net = tx.find::<Net>(id).await?.ok_or_else(missing)?;
    if ctx.is_admin() || net.shared || net.project_id == ctx.project_id() {
        return Ok(net);
    }
    if net.external {
        return Err(Error::new(
            Kind::Forbidden,
            format!("It is not allowed to create an interface on external network {id}"),
        )
        .with_field("networks"));
    }
    Err(missing())
}

/// Groups by name or id.
async fn resolve_groups(tx: &mut Tx, project_id: &str, wanted: &[String]) -> Result<Vec<String>> {
    let default = groups::ensure_default(tx, project_id).await?;
    if wanted.is_empty() {
        return Ok(vec![default]);
    }
    let mut out: Vec<String> = Vec::new();
    for w in wanted {
        let query = Query::new()
            .eq("project_id", project_id)
            .raw("id = {} OR name = {}", vec![w.into(), w.into()]);
        let found = tx.list::<Group>(&query).await?;
        let by_id = found.iter().find(|g| &g.id == w);
        let id = match (by_id, found.as_slice()) {
            (Some(g), _) => g.id.clone(),
            (None, [g]) => g.id.clone(),
            (None, []) => {
                return Err(Error::field(
                    "security_groups",
                    format!("Security group {w} not found for project {project_id}."),
                ));
            }
            (None, _) => {
                return Err(Error::conflict(format!(
                    "Multiple security groups found matching '{w}'. Use an ID to be more specific."
                ))
                .with_field("security_groups"));
            }
        };
        if !out.contains(&id) {
            out.push(id);
        }
    }
    Ok(out)
}

/// A name for DNS made of a server's name, as Nova makes hostnames.
fn host_name(name: &str) -> String {
    let mut out = String::new();
    for c in name.to_lowercase().chars() {
        match c {
            'a'..='z' | '0'..='9' => out.push(c),
            ' ' | '_' | '-' | '.' if !out.ends_with('-') => out.push('-'),
            _ => {}
        }
    }
    let cut: String = out.trim_matches('-').chars().take(63).collect();
    cut.trim_end_matches('-').to_owned()
}

#[cfg(test)]
mod tests {
    #[test]
    fn host_names() {
        for (name, want) in [
            ("Web 1", "web-1"),
            ("a.b_c", "a-b-c"),
            ("--x--", "x"),
            ("서버", ""),
            ("A!B", "ab"),
        ] {
            assert_eq!(super::host_name(name), want);
        }
    }
}
