//! First start: the external network.

use crate::Network;
use crate::logic::publish::Touched;
use crate::logic::{networks, subnets};
use crate::model::{Net, Subnet};
use haneul_core::{Error, Result, id};
use haneul_store::{Query, System, Tx};
use ipnet::IpNet;

/// The range when the configuration names none (as DevStack's).
const RANGE: &str = "172.24.4.0/24";

impl Network {
    /// Makes the external network of the configuration, unless it is there or not wanted. `project_id` owns it
    /// (the administrators' project); it is not shared, and every project may use it for gateways and floating
    /// IPs. The first address is the host's.
    pub async fn bootstrap(&self, tx: &mut Tx, project_id: &str) -> Result<()> {
        let name = &self.settings.external_name;
        if name.is_empty() || tx.count::<Net>(&Query::new().eq("external", true)).await? > 0 {
            return Ok(());
        }
        let text = self
            .settings
            .external_cidr
            .as_deref()
            .filter(|c| !c.is_empty())
            .unwrap_or(RANGE);
        let cidr: IpNet = text
            .parse::<IpNet>()
            .map_err(|_| {
                Error::field(
                    "network.external_cidr",
                    format!("network.external_cidr = \"{text}\": write a range such as {RANGE}"),
                )
            })?
            .trunc();
        let net = Net {
            id: id::uuid(),
            project_id: project_id.to_owned(),
            name: name.clone(),
            description: "External network of this cloud".into(),
            admin_state_up: true,
            external: true,
            is_default: true,
            mtu: self.settings.mtu,
            port_security: true,
            ..Net::default()
        };
        let net = networks::insert(tx, &System::create(), net).await?;
        let gateway_ip = subnets::default_gateway(&cidr);
        let subnet = Subnet {
            id: id::uuid(),
            project_id: project_id.to_owned(),
            name: format!("{name}-subnet"),
            description: String::new(),
            tags: vec![],
            network_id: net.id.clone(),
            network_project_id: project_id.to_owned(),
            shared: false,
            external: true,
            cidr,
            gateway_ip,
            enable_dhcp: false,
            allocation_pools: subnets::default_pools(&cidr, gateway_ip),
            dns_nameservers: vec![],
            host_routes: vec![],
            ipv6_ra_mode: None,
            ipv6_address_mode: None,
        };
        let mut touched = Touched::default();
        subnets::insert(tx, &System::create(), &net, &subnet, &mut touched).await?;
        crate::logic::quotas::count(tx, project_id, "network", 1).await?;
        crate::logic::quotas::count(tx, project_id, "subnet", 1).await?;
        self.publish(tx, touched).await
    }
}
