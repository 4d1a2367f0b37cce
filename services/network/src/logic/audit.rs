//! What disagrees inside the service, for `haneul audit`.

use crate::Network;
use haneul_core::Result;
use haneul_store::Tx;
use std::collections::BTreeSet;

/// A disagreement and what repairs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub what: String,
    pub repair: String,
}

impl Network {
    /// Compares allocations, ports, floating IPs and groups.
    pub async fn audit(&self, tx: &mut Tx) -> Result<Vec<Finding>> {
        self.compare(tx, None).await
    }

    /// As [`Network::audit`], and finds ports that are bound to servers other than these.
    pub async fn audit_with_servers(&self, tx: &mut Tx, servers: &BTreeSet<String>) -> Result<Vec<Finding>> {
        self.compare(tx, Some(servers)).await
    }

    async fn compare(&self, tx: &mut Tx, servers: Option<&BTreeSet<String>>) -> Result<Vec<Finding>> {
        let mut out = Vec::new();
        let checks: [(&str, &str, &str); 7] = [
            (
                "SELECT a.ip, a.port_id FROM ip_allocation a LEFT JOIN port p ON p.id = a.port_id WHERE p.id IS NULL",
                "address {0} is taken by port {1}, which does not exist",
                "delete the row of ip_allocation",
            ),
            (
                "SELECT m.security_group_id, m.port_id FROM port_security_group m LEFT JOIN port p ON p.id = m.port_id WHERE p.id IS NULL",
                "security group {0} has port {1} as a member, which does not exist",
                "delete the row of port_security_group",
            ),
            (
                "SELECT s.id, s.network_id FROM subnet s LEFT JOIN network n ON n.id = s.network_id WHERE n.id IS NULL",
                "subnet {0} is of network {1}, which does not exist",
                "delete the subnet",
            ),
            (
                "SELECT p.id, p.network_id FROM port p LEFT JOIN network n ON n.id = p.network_id WHERE n.id IS NULL",
                "port {0} is of network {1}, which does not exist",
                "delete the port",
            ),
            (
                "SELECT f.id, f.port_id FROM floating_ip f LEFT JOIN port p ON p.id = f.port_id WHERE f.port_id > '' AND p.id IS NULL",
                "floating IP {0} leads to port {1}, which does not exist",
                "openstack floating ip unset --port",
            ),
            (
                "SELECT f.id, f.router_id FROM floating_ip f LEFT JOIN router r ON r.id = f.router_id WHERE f.router_id > '' AND r.id IS NULL",
                "floating IP {0} passes router {1}, which does not exist",
                "openstack floating ip unset --port",
            ),
            (
                "SELECT p.id, p.device_id FROM port p LEFT JOIN floating_ip f ON f.id = p.device_id WHERE p.device_owner = 'network:floatingip' AND f.id IS NULL",
                "port {0} holds the address of floating IP {1}, which does not exist",
                "delete the port",
            ),
        ];
        for (sql, what, repair) in checks {
            for row in tx.rows(sql, &[]).await? {
                out.push(Finding {
                    what: what.replace("{0}", &row.str(0)?).replace("{1}", &row.str(1)?),
                    repair: repair.to_owned(),
                });
            }
        }
        self.audit_ports(tx, servers, &mut out).await?;
        self.audit_routers(tx, &mut out).await?;
        self.audit_spans(tx, &mut out).await?;
        Ok(out)
    }

    async fn audit_ports(&self, tx: &mut Tx, servers: Option<&BTreeSet<String>>, out: &mut Vec<Finding>) -> Result<()> {
        let mut taken: BTreeSet<(String, String, String)> = BTreeSet::new();
        for r in tx.rows("SELECT port_id, subnet_id, ip FROM ip_allocation", &[]).await? {
            taken.insert((r.str(0)?, r.str(1)?, r.str(2)?));
        }
        for p in tx.list::<crate::model::Port>(&haneul_store::Query::new()).await? {
            for f in &p.fixed_ips {
                if !taken.remove(&(p.id.clone(), f.subnet_id.clone(), f.ip.to_string())) {
                    out.push(Finding {
                        what: format!("port {} shows address {} that is not allocated to it", p.id, f.ip),
                        repair: "set the port's fixed IPs again".into(),
                    });
                }
            }
            if let Some(servers) = servers
                && p.device_owner.starts_with("compute:")
                && !servers.contains(&p.device_id)
            {
                out.push(Finding {
                    what: format!("port {} is bound to server {}, which does not exist", p.id, p.device_id),
                    repair: format!("openstack port delete {}", p.id),
                });
            }
        }
        for (port, _, ip) in taken {
            out.push(Finding {
                what: format!("address {ip} is allocated to port {port}, which does not show it"),
                repair: "delete the row of ip_allocation".into(),
            });
        }
        Ok(())
    }
}
