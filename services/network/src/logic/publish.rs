//! What a transaction touched becomes desired state of hosts, in the same transaction.
//!
//! A host that carries a guest's port holds the port, its network, and the security groups that the port
//! uses or whose members a rule of them names. A host that carries a router holds the router and its
//! networks. What is of these networks on other hosts, it holds as neighbours (logic/neighbours.rs). What no longer has a reason to be on a host gets a tombstone. An object whose content did not
//! change gets no new generation (base/fleet compares).
//!
//! Members of groups are the one thing that is not published at once: a group of 20,000 ports would be
//! written again with each of them. The transaction leaves a row in `members_changed`, and
//! [`Network::publish_members`] follows a moment later, once for all that came in between.

use crate::Network;
use crate::model::{Group, Net, Port, Router, Rule, Subnet, owner};
use haneul_agent_api as api;
use haneul_core::{Error, Result, clock};
use haneul_store::{Actor, Dir, Query, Stored, Tx};
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// Between looks for members that another process of ours left to be published.
const LOOK: Duration = Duration::from_secs(5);
/// Longest time that the answer of a floating IP waits for its host. It takes some milliseconds.
const CARRIED: Duration = Duration::from_millis(500);

/// What a transaction touched.
#[derive(Debug, Default)]
pub(crate) struct Touched {
    pub networks: BTreeSet<String>,
    pub ports: BTreeSet<String>,
    pub routers: BTreeSet<String>,
    /// Groups whose rules changed.
    pub groups: BTreeSet<String>,
    /// Groups whose members changed.
    pub members: BTreeSet<String>,
    /// Ports that are nowhere any more.
    gone: BTreeSet<String>,
    left: Vec<Left>,
    routers_left: Vec<(String, String)>,
    networks_left: BTreeSet<(String, String)>,
    groups_left: BTreeSet<(String, String)>,
}

/// A port that a host need not carry any more.
#[derive(Debug)]
struct Left {
    host: String,
    port: String,
    network: String,
    groups: Vec<String>,
}

impl Touched {
    /// The port changed; `before` is what it was.
    pub fn port_changed(&mut self, before: &Port, after: &Port) {
        self.ports.insert(after.id.clone());
        let stays: Vec<&String> = after.carriers().collect();
        for host in before.carriers().filter(|h| !stays.contains(h)) {
            self.leaves(before, host);
        }
        if before.host_id != after.host_id {
            self.members.extend(before.security_groups.iter().cloned());
            if before.is_service() && !before.host_id.is_empty() {
                self.networks_left
                    .insert((before.host_id.clone(), before.network_id.clone()));
            }
        }
        let same_addresses = before.fixed_ips == after.fixed_ips;
        let old: BTreeSet<&String> = before.security_groups.iter().collect();
        let new: BTreeSet<&String> = after.security_groups.iter().collect();
        if same_addresses {
            self.members
                .extend(old.symmetric_difference(&new).map(|g| (*g).clone()));
        } else {
            self.members.extend(old.union(&new).map(|g| (*g).clone()));
        }
        for host in stays.into_iter().filter(|_| before.is_carried() && old != new) {
            self.left.push(Left {
                host: host.clone(),
                port: String::new(),
                network: String::new(),
                groups: old.difference(&new).map(|g| (*g).clone()).collect(),
            });
        }
    }
    fn leaves(&mut self, port: &Port, host: &str) {
        self.left.push(Left {
            host: host.to_owned(),
            port: port.id.clone(),
            network: port.network_id.clone(),
            groups: port.security_groups.clone(),
        });
    }
    /// The port is deleted.
    pub fn port_gone(&mut self, port: &Port) {
        self.members.extend(port.security_groups.iter().cloned());
        if port.is_reached() {
            self.gone.insert(port.id.clone());
        }
        for host in port.carriers() {
            self.leaves(port, host);
        }
        if !port.is_carried() && !port.host_id.is_empty() {
            self.networks_left
                .insert((port.host_id.clone(), port.network_id.clone()));
        }
    }
    /// A rule that names the group is about to go: hosts that have the group for its sake only need not keep it.
    /// Call it while the rule is still there.
    pub async fn group_unnamed(&mut self, tx: &mut Tx, id: &str) -> Result<()> {
        for host in hosts_of_group(tx, id).await? {
            self.groups_left.insert((host, id.to_owned()));
        }
        Ok(())
    }
    /// The router was deleted or moved.
    pub fn router_gone(&mut self, router: &Router) {
        if !router.host_id.is_empty() {
            self.routers_left.push((router.host_id.clone(), router.id.clone()));
        }
    }
}

pub(crate) fn uuid(text: &str) -> Result<Uuid> {
    Uuid::try_parse(text).map_err(|e| Error::internal(format!("id {text}: {e}")))
}

impl Network {
    /// Writes desired objects and tombstones for all that was touched. The last step of every change.
    pub(crate) async fn publish(&self, tx: &mut Tx, touched: Touched) -> Result<()> {
        let mut networks: BTreeSet<(String, String)> = BTreeSet::new();
        let mut groups: BTreeSet<(String, String)> = BTreeSet::new();
        // Networks first, then groups, routers and ports: what is named exists before it is named.
        for id in &touched.networks {
            for host in hosts_of_network(tx, id).await? {
                networks.insert((host, id.clone()));
            }
        }
        let mut ports: Vec<Stored<Port>> = Vec::new();
        let mut looked_at = BTreeSet::new();
        for id in &touched.ports {
            let Some(port) = tx.find::<Port>(id).await? else {
                continue;
            };
            for host in port.carriers() {
                let key = (host.clone(), port.network_id.clone());
                if looked_at.insert(key.clone()) && !has_neighbour(tx, &key, &touched.ports).await? {
                    networks.insert(key);
                }
                for g in &port.security_groups {
                    let key = (host.clone(), g.clone());
                    if looked_at.insert(key.clone()) && !group_has_neighbour(tx, &key, &touched.ports).await? {
                        groups.insert(key);
                        for remote in remotes(tx, g).await? {
                            groups.insert((host.clone(), remote));
                        }
                    }
                }
            }
            ports.push(port);
        }
        let mut routers = Vec::new();
        for id in &touched.routers {
            let Some(router) = tx.find::<Router>(id).await? else {
                continue;
            };
            if !router.host_id.is_empty() {
                for port in router_ports(tx, id).await? {
                    networks.insert((router.host_id.clone(), port.network_id.clone()));
                }
                routers.push(router);
            }
        }
        for id in &touched.groups {
            for host in hosts_of_group(tx, id).await? {
                groups.insert((host.clone(), id.clone()));
                for remote in remotes(tx, id).await? {
                    groups.insert((host.clone(), remote));
                }
            }
        }
        for (host, id) in &networks {
            self.put_network(tx, host, id).await?;
        }
        for (host, id) in &groups {
            self.put_group(tx, host, id).await?;
        }
        for router in &routers {
            self.put_router(tx, router).await?;
        }
        for port in &ports {
            for host in port.carriers() {
                let object = api::Object::Port(port_object(port)?);
                self.fleet.put(tx, host, &object).await?;
            }
        }
        self.neighbours(tx, &ports, &touched.ports, &touched.gone).await?;
        self.tombstones(tx, &touched).await?;
        if !touched.members.is_empty() {
            for id in &touched.members {
                tx.exec(
                    "INSERT INTO members_changed(security_group_id) VALUES($1) ON CONFLICT DO NOTHING",
                    &[id.into()],
                )
                .await?;
            }
            let wake = self.members_wake.clone();
            tx.after_commit(move || wake.notify_one());
        }
        Ok(())
    }

    /// Waits until the hosts of these routers carry what was published, so that whoever is told of a floating IP finds
    /// it working, and nobody is led to where it led before. A host that is away or slow is not waited for.
    pub(crate) async fn carried(&self, routers: &BTreeSet<String>) {
        for id in routers {
            self.fleet.settled(api::Kind::Router, id, CARRIED).await;
        }
    }

    async fn tombstones(&self, tx: &mut Tx, touched: &Touched) -> Result<()> {
        for (host, id) in &touched.routers_left {
            self.fleet.remove(tx, host, api::Kind::Router, id).await?;
        }
        let mut networks = touched.networks_left.clone();
        let mut groups = touched.groups_left.clone();
        for left in &touched.left {
            if !left.port.is_empty() {
                self.fleet.remove(tx, &left.host, api::Kind::Port, &left.port).await?;
                networks.insert((left.host.clone(), left.network.clone()));
            }
            for g in &left.groups {
                groups.insert((left.host.clone(), g.clone()));
                for remote in remotes(tx, g).await? {
                    groups.insert((left.host.clone(), remote));
                }
            }
        }
        for (host, id) in networks {
            let needed = tx
                .row(
                    "SELECT 1 FROM port_host WHERE network_id = $1 AND host_id = $2 LIMIT 1",
                    &[(&id).into(), (&host).into()],
                )
                .await?
                .is_some();
            if !needed {
                self.forget_neighbours(tx, &host, &id).await?;
                self.fleet.remove(tx, &host, api::Kind::Network, &id).await?;
            }
        }
        for (host, id) in groups {
            if tx.find::<Group>(&id).await?.is_none() || !group_needed(tx, &host, &id).await? {
                self.fleet.remove(tx, &host, api::Kind::SecurityGroup, &id).await?;
            }
        }
        Ok(())
    }

    async fn put_network(&self, tx: &mut Tx, host: &str, id: &str) -> Result<()> {
        let Some(net) = tx.find::<Net>(id).await? else {
            return Ok(());
        };
        let subnets = tx
            .list::<Subnet>(&Query::new().eq("network_id", id).order("id", Dir::Asc))
            .await?;
        let service = service_port(tx, id).await?;
        let object = api::Object::Network(network_object(&net, &subnets, service.as_ref().map(|s| &s.value))?);
        self.fleet.put(tx, host, &object).await?;
        Ok(())
    }

    async fn put_group(&self, tx: &mut Tx, host: &str, id: &str) -> Result<()> {
        if tx.find::<Group>(id).await?.is_none() {
            self.fleet.remove(tx, host, api::Kind::SecurityGroup, id).await?;
            return Ok(());
        }
        let object = api::Object::SecurityGroup(group_object(tx, id).await?);
        self.fleet.put(tx, host, &object).await?;
        Ok(())
    }

    async fn put_router(&self, tx: &mut Tx, router: &Stored<Router>) -> Result<()> {
        let object = api::Object::Router(router_object(tx, router).await?);
        self.fleet.put(tx, &router.host_id, &object).await?;
        Ok(())
    }

    /// Tells hosts the members of groups that changed since the last time.
    pub(crate) async fn publish_members(self: &Arc<Self>) -> Result<()> {
        let me = self.clone();
        self.db
            .write(&Actor::system("members"), async move |tx| {
                let rows = tx.rows("SELECT security_group_id FROM members_changed", &[]).await?;
                for row in rows {
                    let id = row.str(0)?;
                    tx.exec(
                        "DELETE FROM members_changed WHERE security_group_id = $1",
                        &[(&id).into()],
                    )
                    .await?;
                    if !named_remotely(tx, &id).await? {
                        continue;
                    }
                    for host in hosts_of_group(tx, &id).await? {
                        me.put_group(tx, &host, &id).await?;
                    }
                }
                Ok(())
            })
            .await
    }

    /// Follows members of groups until the process ends. Start it once.
    pub(crate) async fn follow_members(self: Arc<Self>) {
        loop {
            let start = clock::now();
            if let Err(e) = self.publish_members().await {
                tracing::error!(error = %e, "members of security groups could not be published");
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            }
            // Large groups take their time: at most a tenth of the writer's goes to this.
            let took = u64::try_from(clock::now() - start).unwrap_or(0);
            let pause = Duration::from_micros(took * 9).clamp(Duration::from_millis(20), Duration::from_secs(1));
            // What another process of ours left is looked for now and then.
            let told = self.members_wake.notified();
            match self.db.is_shared() {
                true => drop(tokio::time::timeout(LOOK, told).await),
                false => told.await,
            }
            // What comes within this time goes along.
            tokio::time::sleep(pause).await;
        }
    }
}

async fn strings(tx: &mut Tx, sql: &str, args: &[haneul_store::V]) -> Result<Vec<String>> {
    tx.rows(sql, args).await?.iter().map(|r| r.str(0)).collect()
}

pub(crate) async fn hosts_of_network(tx: &mut Tx, id: &str) -> Result<Vec<String>> {
    strings(
        tx,
        "SELECT DISTINCT host_id FROM port_host WHERE network_id = $1 ORDER BY host_id",
        &[id.into()],
    )
    .await
}

/// Hosts with a guest's port that uses the group, or a group with a rule that names it.
async fn hosts_of_group(tx: &mut Tx, id: &str) -> Result<Vec<String>> {
    strings(
        tx,
        "SELECT DISTINCT p.host_id FROM port_security_group m JOIN port_host p ON p.id = m.port_id
         WHERE (m.security_group_id = $1
            OR m.security_group_id IN (SELECT security_group_id FROM security_group_rule WHERE remote_group_id = $1))",
        &[id.into()],
    )
    .await
}

async fn group_needed(tx: &mut Tx, host: &str, id: &str) -> Result<bool> {
    Ok(tx
        .row(
            "SELECT 1 FROM port_host p JOIN port_security_group m ON m.port_id = p.id
             WHERE p.host_id = $1 AND (m.security_group_id = $2
                OR m.security_group_id IN (SELECT security_group_id FROM security_group_rule WHERE remote_group_id = $2)) LIMIT 1",
            &[host.into(), id.into()],
        )
        .await?
        .is_some())
}

/// Groups that rules of this group name.
async fn remotes(tx: &mut Tx, id: &str) -> Result<Vec<String>> {
    strings(
        tx,
        "SELECT DISTINCT remote_group_id FROM security_group_rule WHERE security_group_id = $1 AND remote_group_id > '' AND remote_group_id <> $1",
        &[id.into()],
    )
    .await
}

pub(crate) async fn named_remotely(tx: &mut Tx, id: &str) -> Result<bool> {
    Ok(tx
        .row(
            "SELECT 1 FROM security_group_rule WHERE remote_group_id = $1 LIMIT 1",
            &[id.into()],
        )
        .await?
        .is_some())
}

/// Whether the host carries a port of this network that is none of these new ones, and so has the network already.
pub(crate) async fn has_neighbour(
    tx: &mut Tx,
    (host, network): &(String, String),
    new: &BTreeSet<String>,
) -> Result<bool> {
    let sql = "SELECT id FROM port_host WHERE network_id = $1 AND host_id = $2 LIMIT $3";
    any_but(tx, sql, (network, host), new).await
}

/// The same of a security group.
async fn group_has_neighbour(tx: &mut Tx, (host, group): &(String, String), new: &BTreeSet<String>) -> Result<bool> {
    let sql = "SELECT p.id FROM port_security_group m JOIN port_host p ON p.id = m.port_id
               WHERE m.security_group_id = $1 AND p.host_id = $2 LIMIT $3";
    any_but(tx, sql, (group, host), new).await
}

/// Whether a query for ids finds another one than these. It need not find more than one more than they are.
async fn any_but(tx: &mut Tx, sql: &str, (of, host): (&str, &str), new: &BTreeSet<String>) -> Result<bool> {
    let most = i64::try_from(new.len() + 1).unwrap_or(i64::MAX);
    for row in tx.rows(sql, &[of.into(), host.into(), most.into()]).await? {
        if !new.contains(&row.str(0)?) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The DHCP port of a network.
pub(crate) async fn service_port(tx: &mut Tx, network_id: &str) -> Result<Option<Stored<Port>>> {
    let query = Query::new()
        .eq("device_id", service_device(network_id))
        .eq("device_owner", owner::DHCP);
    Ok(tx.list::<Port>(&query).await?.into_iter().next())
}

/// `device_id` of the DHCP port of a network.
pub(crate) fn service_device(network_id: &str) -> String {
    format!("dhcp-{network_id}")
}

/// Interface and gateway ports of a router.
pub(crate) async fn router_ports(tx: &mut Tx, router_id: &str) -> Result<Vec<Stored<Port>>> {
    let query = Query::new()
        .eq("device_id", router_id)
        .is_in("device_owner", [owner::ROUTER_INTERFACE, owner::ROUTER_GATEWAY])
        .order("created_at", Dir::Asc)
        .order("id", Dir::Asc);
    tx.list::<Port>(&query).await
}

/// Subnets by id.
pub(crate) async fn subnets_by_id(tx: &mut Tx, ids: BTreeSet<String>) -> Result<BTreeMap<String, Stored<Subnet>>> {
    Ok(tx
        .list::<Subnet>(&Query::new().is_in("id", ids))
        .await?
        .into_iter()
        .map(|s| (s.id.clone(), s))
        .collect())
}

fn network_object(net: &Net, subnets: &[Stored<Subnet>], service: Option<&Port>) -> Result<api::Network> {
    let mut out = Vec::new();
    for s in subnets {
        let mut port = None;
        if s.enable_dhcp
            && let Some(p) = service
            && let Some(ip) = p.fixed_ips.iter().find(|f| f.subnet_id == s.id)
        {
            port = Some(api::ServicePort {
                port_id: uuid(&p.id)?,
                mac: p.mac.clone(),
                ip: ip.ip,
            });
        }
        out.push(api::Subnet {
            id: uuid(&s.id)?,
            cidr: s.cidr,
            gateway: s.gateway_ip,
            enable_dhcp: s.enable_dhcp,
            service: port,
            dns_servers: s.dns_nameservers.clone(),
            host_routes: s.host_routes.clone(),
            ipv6_ra_mode: s.ipv6_ra_mode.clone(),
            ipv6_address_mode: s.ipv6_address_mode.clone(),
        });
    }
    Ok(api::Network {
        id: uuid(&net.id)?,
        index: net.index,
        mtu: net.mtu,
        subnets: out,
        external: net.external,
        admin_state_up: net.admin_state_up,
        dns_domain: net.dns_domain.clone(),
    })
}

fn port_object(p: &Port) -> Result<api::Port> {
    let fixed_ips: Result<Vec<api::FixedIp>> = p
        .fixed_ips
        .iter()
        .map(|f| {
            Ok(api::FixedIp {
                subnet_id: uuid(&f.subnet_id)?,
                ip: f.ip,
            })
        })
        .collect();
    Ok(api::Port {
        id: uuid(&p.id)?,
        index: p.index,
        network_id: uuid(&p.network_id)?,
        guest_id: Uuid::try_parse(&p.device_id).ok(),
        mac: p.mac.clone(),
        fixed_ips: fixed_ips?,
        allowed_address_pairs: p
            .allowed_address_pairs
            .iter()
            .map(|a| api::AddressPair {
                ip: a.ip,
                mac: a.mac.clone(),
            })
            .collect(),
        port_security: p.port_security,
        security_groups: p.security_groups.iter().map(|g| uuid(g)).collect::<Result<_>>()?,
        admin_state_up: p.admin_state_up,
        dns_name: p.dns_name.clone(),
        extra_dhcp_opts: p
            .extra_dhcp_opts
            .iter()
            .map(|o| (o.opt_name.clone(), o.opt_value.clone(), o.ip_version))
            .collect(),
    })
}

async fn group_object(tx: &mut Tx, id: &str) -> Result<api::SecurityGroup> {
    let rules = tx
        .list::<Rule>(&Query::new().eq("security_group_id", id).order("id", Dir::Asc))
        .await?;
    let stateful = tx.find::<Group>(id).await?.is_none_or(|g| g.stateful);
    let mut members: Vec<IpAddr> = Vec::new();
    if named_remotely(tx, id).await? {
        for text in strings(
            tx,
            "SELECT DISTINCT a.ip FROM port_security_group m JOIN ip_allocation a ON a.port_id = m.port_id
             WHERE m.security_group_id = $1 ORDER BY a.ip",
            &[id.into()],
        )
        .await?
        {
            members.extend(text.parse::<IpAddr>());
        }
    }
    Ok(api::SecurityGroup {
        id: uuid(id)?,
        rules: rules.iter().map(|r| rule_object(r)).collect::<Result<_>>()?,
        members,
        stateful,
    })
}

fn rule_object(r: &Rule) -> Result<api::Rule> {
    Ok(api::Rule {
        id: uuid(&r.id)?,
        direction: if r.ingress {
            api::Direction::Ingress
        } else {
            api::Direction::Egress
        },
        ethertype: if r.v6 {
            api::EtherType::Ipv6
        } else {
            api::EtherType::Ipv4
        },
        protocol: r.number,
        port_min: r.port_min,
        port_max: r.port_max,
        remote_prefix: r.remote_prefix,
        remote_group: r.remote_group.as_deref().map(uuid).transpose()?,
    })
}

fn prefixed(port: &Port, subnets: &BTreeMap<String, Stored<Subnet>>) -> Vec<IpNet> {
    port.fixed_ips
        .iter()
        .filter_map(|f| {
            let len = subnets.get(&f.subnet_id)?.cidr.prefix_len();
            IpNet::new(f.ip, len).ok()
        })
        .collect()
}

async fn router_object(tx: &mut Tx, r: &Router) -> Result<api::Router> {
    let ports = router_ports(tx, &r.id).await?;
    let ids = ports
        .iter()
        .flat_map(|p| p.fixed_ips.iter().map(|f| f.subnet_id.clone()))
        .collect();
    let subnets = subnets_by_id(tx, ids).await?;
    let mut interfaces = Vec::new();
    let mut gateway = None;
    for p in &ports {
        if p.device_owner == owner::ROUTER_GATEWAY {
            let Some(info) = r.gateway.as_ref().filter(|g| g.port_id == p.id) else {
                continue;
            };
            let mut next_hops: Vec<IpAddr> = Vec::new();
            for f in &p.fixed_ips {
                let hop = subnets.get(&f.subnet_id).and_then(|s| s.gateway_ip);
                if let Some(hop) = hop
                    && !next_hops.iter().any(|h| h.is_ipv4() == hop.is_ipv4())
                {
                    next_hops.push(hop);
                }
            }
            gateway = Some(api::RouterGateway {
                port_id: uuid(&p.id)?,
                index: p.index,
                network_id: uuid(&p.network_id)?,
                mac: p.mac.clone(),
                addresses: prefixed(p, &subnets),
                next_hops,
                enable_snat: info.enable_snat,
            });
        } else {
            interfaces.push(api::RouterInterface {
                port_id: uuid(&p.id)?,
                index: p.index,
                network_id: uuid(&p.network_id)?,
                mac: p.mac.clone(),
                addresses: prefixed(p, &subnets),
            });
        }
    }
    let mut floating_ips = Vec::new();
    let query = Query::new().eq("router_id", r.id.as_str()).order("id", Dir::Asc);
    for f in tx.list::<crate::model::FloatingIp>(&query).await? {
        if let Some(fixed) = f.fixed_ip {
            floating_ips.push(api::FloatingIp {
                id: uuid(&f.id)?,
                floating: f.floating_ip,
                fixed,
            });
        }
    }
    Ok(api::Router {
        id: uuid(&r.id)?,
        index: r.index,
        admin_state_up: r.admin_state_up,
        interfaces,
        gateway,
        routes: r.routes.iter().map(|x| (x.destination, x.nexthop)).collect(),
        floating_ips,
    })
}
