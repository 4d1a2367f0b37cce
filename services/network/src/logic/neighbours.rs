//! Who is where: each host that has a network hears of its ports on other hosts.
//!
//! A network on one host has none of this, and costs one look.

use crate::Network;
use crate::logic::audit::Finding;
use crate::logic::publish::{has_neighbour, hosts_of_network, uuid};
use crate::model::{Net, Port, owner};
use haneul_agent_api as api;
use haneul_core::Result;
use haneul_fleet::Host;
use haneul_store::{Query, Stored, Tx};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// What becomes of a network's ports elsewhere, for one transaction.
struct Span {
    /// Hosts that have the network.
    hosts: Vec<String>,
    /// Those of them that can be reached, and at which address.
    underlay: BTreeMap<String, IpAddr>,
}

impl Span {
    /// What other hosts are told of a port, if its host can be reached.
    fn neighbour(&self, port: &Port) -> Result<Option<api::Neighbour>> {
        let Some(address) = self.underlay.get(&port.host_id) else {
            return Ok(None);
        };
        Ok(Some(api::Neighbour {
            id: uuid(&port.id)?,
            network_id: uuid(&port.network_id)?,
            mac: port.mac.clone(),
            addresses: port.fixed_ips.iter().map(|f| f.ip).collect(),
            dns_name: port.dns_name.clone(),
            host: *address,
        }))
    }
}

impl Network {
    /// Tells hosts of the ports that changed, and hosts that have a network only now of all ports in it. `ids` are those
    /// of `ports` and more; `gone` were deleted.
    pub(crate) async fn neighbours(
        &self,
        tx: &mut Tx,
        ports: &[Stored<Port>],
        ids: &BTreeSet<String>,
        gone: &BTreeSet<String>,
    ) -> Result<()> {
        for id in gone {
            for host in self.fleet.hosts_of(tx, api::Kind::Neighbour, id).await? {
                self.fleet.remove(tx, &host, api::Kind::Neighbour, id).await?;
            }
        }
        let mut spans: BTreeMap<String, Span> = BTreeMap::new();
        let mut looked_at = BTreeSet::new();
        for port in ports {
            if !spans.contains_key(&port.network_id) {
                spans.insert(port.network_id.clone(), self.span(tx, &port.network_id).await?);
            }
            let Some(span) = spans.get(&port.network_id) else {
                continue;
            };
            self.tell_of(tx, span, port).await?;
            if span.hosts.len() < 2 || !port.is_reached() {
                continue;
            }
            for host in [&port.host_id, &port.arriving_host_id] {
                let key = (host.clone(), port.network_id.clone());
                if host.is_empty() || !looked_at.insert(key.clone()) || has_neighbour(tx, &key, ids).await? {
                    continue;
                }
                for other in reached_elsewhere(tx, host, &port.network_id).await? {
                    self.put_neighbour(tx, span, host, &other).await?;
                }
            }
        }
        Ok(())
    }

    async fn span(&self, tx: &mut Tx, network: &str) -> Result<Span> {
        let mut span = Span {
            hosts: hosts_of_network(tx, network).await?,
            underlay: BTreeMap::new(),
        };
        // An external network is what is outside, on each host.
        if span.hosts.len() > 1 && tx.find::<Net>(network).await?.is_none_or(|n| n.external) {
            span.hosts.clear();
        }
        if span.hosts.len() > 1 {
            for host in &span.hosts {
                if let Some(u) = self.fleet.host(tx, host).await?.and_then(|h| h.underlay) {
                    span.underlay.insert(host.clone(), u.address);
                }
            }
        }
        Ok(span)
    }

    /// Brings what other hosts know of one port to what it is.
    async fn tell_of(&self, tx: &mut Tx, span: &Span, port: &Port) -> Result<()> {
        let reached = port.is_reached() && span.underlay.contains_key(&port.host_id);
        let knows = |host: &String| reached && *host != port.host_id && span.hosts.contains(host);
        // While a port moves, the host that it comes to still hears where it is.
        for host in self.fleet.hosts_of(tx, api::Kind::Neighbour, &port.id).await? {
            if !knows(&host) {
                self.fleet.remove(tx, &host, api::Kind::Neighbour, &port.id).await?;
            }
        }
        for host in span.hosts.iter().filter(|h| knows(h)) {
            self.put_neighbour(tx, span, host, port).await?;
        }
        Ok(())
    }

    async fn put_neighbour(&self, tx: &mut Tx, span: &Span, host: &str, port: &Port) -> Result<()> {
        // A host that cannot be reached says so in `haneul audit`.
        if let Some(neighbour) = span.neighbour(port)? {
            self.fleet.put(tx, host, &api::Object::Neighbour(neighbour)).await?;
        }
        Ok(())
    }

    /// A host has no need of the network any more, nor of who is in it.
    pub(crate) async fn forget_neighbours(&self, tx: &mut Tx, host: &str, network: &str) -> Result<()> {
        for port in reached_elsewhere(tx, host, network).await? {
            self.fleet.remove(tx, host, api::Kind::Neighbour, &port.id).await?;
        }
        Ok(())
    }

    /// Hosts that others cannot reach though they would have to, and hosts that are told something else of who is where
    /// than is so.
    pub(crate) async fn audit_spans(&self, tx: &mut Tx, out: &mut Vec<Finding>) -> Result<()> {
        let mut hosts = self.fleet.hosts(tx).await?;
        self.audit_neighbours(tx, &hosts, out).await?;
        hosts.retain(|h| h.underlay.is_none());
        let sql = "SELECT DISTINCT a.network_id FROM port_host a JOIN port_host b ON a.network_id = b.network_id
                   JOIN network n ON n.id = a.network_id WHERE a.host_id = $1 AND b.host_id <> $1 AND n.external = 0";
        for host in hosts {
            for row in tx.rows(sql, &[(&host.id).into()]).await? {
                out.push(Finding {
                    what: format!(
                        "host '{}' has no underlay address, so that its ports of network {} are not reached from other hosts",
                        host.name,
                        row.str(0)?
                    ),
                    repair: "give that host a way to a default gateway, or set agent.underlay there and start its agent anew"
                        .into(),
                });
            }
        }
        Ok(())
    }

    async fn audit_neighbours(&self, tx: &mut Tx, hosts: &[Host], out: &mut Vec<Finding>) -> Result<()> {
        let mut right = BTreeMap::new();
        let sql = "SELECT network_id FROM port_host GROUP BY network_id HAVING COUNT(DISTINCT host_id) > 1";
        for row in tx.rows(sql, &[]).await? {
            let network = row.str(0)?;
            let span = self.span(tx, &network).await?;
            for host in &span.hosts {
                for port in reached_elsewhere(tx, host, &network).await? {
                    if let Some(neighbour) = span.neighbour(&port)? {
                        right.insert((host.clone(), neighbour.id), neighbour);
                    }
                }
            }
        }
        let mut wrong = Vec::new();
        for (host, object) in self.fleet.all_objects(tx, api::Kind::Neighbour).await? {
            let api::Object::Neighbour(told) = object else { continue };
            let key = (host, told.id);
            match right.remove(&key) {
                Some(right) if right == told => {}
                Some(_) => wrong.push((key, "is told of another way than there is to")),
                None => wrong.push((key, "is told of a way that it has no use for, to")),
            }
        }
        wrong.extend(right.into_keys().map(|key| (key, "is not told of the way to")));
        for ((host, port), is) in wrong {
            let name = hosts.iter().find(|h| h.id == host).map_or(&host, |h| &h.name);
            out.push(Finding {
                what: format!("host '{name}' {is} port {port} of another host"),
                repair: "change something of the port, its name for example: all hosts are told anew, then".into(),
            });
        }
        Ok(())
    }

    /// The host is reached at another address now.
    pub(crate) async fn underlay_changed(&self, tx: &mut Tx, host: &str) -> Result<()> {
        let ports = tx.list::<Port>(&Query::new().eq("host_id", host)).await?;
        let ids = ports.iter().map(|p| p.id.clone()).collect();
        self.neighbours(tx, &ports, &ids, &BTreeSet::new()).await
    }
}

async fn reached_elsewhere(tx: &mut Tx, host: &str, network: &str) -> Result<Vec<Stored<Port>>> {
    let query = Query::new()
        .eq("network_id", network)
        .ne("host_id", host)
        .ne("host_id", "")
        .ne("device_owner", owner::DHCP);
    let all = tx.list::<Port>(&query).await?;
    Ok(all.into_iter().filter(|p| p.is_reached()).collect())
}
