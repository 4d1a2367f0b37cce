//! Subnets.

use super::net::flag;
use super::{Described, Net, resource};
use crate::err::not_found;
use haneul_auth::{Ctx, Secured, Target};
use haneul_core::Error;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// First and last address of an allocation pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    pub start: IpAddr,
    pub end: IpAddr,
}

/// A subnet. `shared`, `external` and `network_project_id` are its network's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Subnet {
    pub id: String,
    pub project_id: String,
    pub name: String,
    #[serde(default)]
    pub description: String,
    #[serde(default)]
    pub tags: Vec<String>,
    pub network_id: String,
    pub network_project_id: String,
    #[serde(default)]
    pub shared: bool,
    #[serde(default)]
    pub external: bool,
    pub cidr: IpNet,
    pub gateway_ip: Option<IpAddr>,
    pub enable_dhcp: bool,
    pub allocation_pools: Vec<Pool>,
    #[serde(default)]
    pub dns_nameservers: Vec<IpAddr>,
    /// Destination and next hop.
    #[serde(default)]
    pub host_routes: Vec<(IpNet, IpAddr)>,
    #[serde(default)]
    pub ipv6_ra_mode: Option<String>,
    #[serde(default)]
    pub ipv6_address_mode: Option<String>,
}

resource!(Subnet, "subnet", "subnet", {
    "network_id" => |s| (&s.network_id).into(),
    "network_project_id" => |s| (&s.network_project_id).into(),
    "shared" => |s| s.shared.into(),
    "external" => |s| s.external.into(),
});

impl Subnet {
    pub fn is_v6(&self) -> bool {
        matches!(self.cidr, IpNet::V6(_))
    }
    /// Guests make their own address from the prefix and their MAC.
    pub fn is_auto(&self) -> bool {
        [&self.ipv6_address_mode, &self.ipv6_ra_mode]
            .iter()
            .any(|m| matches!(m.as_deref(), Some("slaac" | "dhcpv6-stateless")))
    }
    /// Takes over what the network decides.
    pub fn follow(&mut self, net: &Net) {
        self.network_project_id.clone_from(&net.project_id);
        self.shared = net.shared;
        self.external = net.external;
    }
}

impl Secured for Subnet {
    fn target(&self) -> Target {
        let t = flag(Target::project(&self.project_id), "shared", self.shared);
        flag(t, "router:external", self.external)
            .with("network:project_id", &self.network_project_id)
            .with("network:tenant_id", &self.network_project_id)
    }
    fn visible(&self, ctx: &Ctx) -> bool {
        ctx.is_admin()
            || self.shared
            || self.project_id == ctx.project_id()
            || self.network_project_id == ctx.project_id()
    }
    fn not_found(id: &str) -> Error {
        not_found("SubnetNotFound", format!("Subnet {id} could not be found."))
    }
}
