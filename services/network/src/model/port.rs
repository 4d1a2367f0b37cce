//! Ports.

use super::{Described, resource};
use crate::err::not_found;
use haneul_auth::{Ctx, Secured, Target};
use haneul_core::Error;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// Device owners that Neutron knows.
pub mod owner {
    pub const DHCP: &str = "network:dhcp";
    pub const ROUTER_INTERFACE: &str = "network:router_interface";
    pub const ROUTER_GATEWAY: &str = "network:router_gateway";
    pub const FLOATING_IP: &str = "network:floatingip";
}

/// An address of a port.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FixedIp {
    pub subnet_id: String,
    #[serde(rename = "ip_address")]
    pub ip: IpAddr,
}

/// An address that the port may use beside its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressPair {
    pub ip: IpNet,
    /// As the user wrote it: an address or a range.
    pub shown: String,
    pub mac: String,
}

/// `extra_dhcp_opts`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DhcpOption {
    pub opt_name: String,
    pub opt_value: String,
    pub ip_version: u8,
}

/// A port.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Port {
    pub id: String,
    pub project_id: String,
    pub name: String,
    pub description: String,
    pub tags: Vec<String>,
    pub network_id: String,
    pub network_project_id: String,
    pub admin_state_up: bool,
    pub mac: String,
    pub fixed_ips: Vec<FixedIp>,
    pub allowed_address_pairs: Vec<AddressPair>,
    pub port_security: bool,
    pub security_groups: Vec<String>,
    pub device_id: String,
    pub device_owner: String,
    /// The host that carries it; empty: unbound.
    pub host_id: String,
    /// The host that it is made ready on, while its server moves there.
    pub arriving_host_id: String,
    pub vnic_type: String,
    pub profile: serde_json::Map<String, serde_json::Value>,
    /// `ACTIVE`, `DOWN`, or `N/A` for addresses without a device.
    pub status: String,
    pub dns_name: String,
    pub extra_dhcp_opts: Vec<DhcpOption>,
    /// The cloud's short number: the tap's name comes from it.
    pub index: u32,
    /// Made by compute for a server, and deleted with it.
    pub created_by_compute: bool,
    /// Name that the owner gave the device; the metadata service shows it.
    pub device_tag: Option<String>,
    /// Place among its server's ports.
    pub order: u32,
}

resource!(Port, "port", "port", {
    "network_id" => |p| (&p.network_id).into(),
    "network_project_id" => |p| (&p.network_project_id).into(),
    "device_id" => |p| (&p.device_id).into(),
    "device_owner" => |p| (&p.device_owner).into(),
    "host_id" => |p| (&p.host_id).into(),
    "mac" => |p| (&p.mac).into(),
    "status" => |p| (&p.status).into(),
    "arriving_host_id" => |p| (&p.arriving_host_id).into(),
});

impl Port {
    /// The network's own ports: no security groups, no device of a guest.
    pub fn is_service(&self) -> bool {
        self.device_owner.starts_with("network:")
    }
    /// A server's port: bound by compute. What a user writes into `device_id` does not make it one.
    pub fn is_servers(&self) -> bool {
        !self.is_service() && !self.device_id.is_empty() && (self.created_by_compute || !self.host_id.is_empty())
    }
    /// A guest's port that a host shall carry.
    pub fn is_carried(&self) -> bool {
        !self.host_id.is_empty() && !self.is_service()
    }
    /// A port that frames are for: a guest's or a router's inner interface.
    pub fn is_reached(&self) -> bool {
        self.is_carried() || (self.device_owner == owner::ROUTER_INTERFACE && !self.host_id.is_empty())
    }
    /// The hosts that hold a guest's port: one, two while it moves.
    pub fn carriers(&self) -> impl Iterator<Item = &String> {
        let carried = self.is_carried();
        let all = [&self.host_id, &self.arriving_host_id].into_iter();
        all.filter(move |h| carried && !h.is_empty())
    }
}

impl Secured for Port {
    fn target(&self) -> Target {
        Target::project(&self.project_id)
            .with("network:project_id", &self.network_project_id)
            .with("network:tenant_id", &self.network_project_id)
    }
    fn visible(&self, ctx: &Ctx) -> bool {
        let p = ctx.project_id();
        ctx.is_admin() || (!p.is_empty() && (self.project_id == p || self.network_project_id == p))
    }
    fn not_found(id: &str) -> Error {
        not_found("PortNotFound", format!("Port {id} could not be found."))
    }
}
