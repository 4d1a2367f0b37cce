//! Floating IPs.

use super::{Described, resource};
use crate::err::not_found;
use haneul_auth::{Ctx, Secured};
use haneul_core::Error;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// A floating IP. `name` is its address: the API shows no name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FloatingIp {
    pub id: String,
    pub project_id: String,
    pub name: String,
    #[serde(default)]
    pub description: String,
    #[serde(default)]
    pub tags: Vec<String>,
    pub floating_network_id: String,
    pub floating_ip: IpAddr,
    /// The port on the external network that holds the address.
    pub own_port_id: String,
    /// The port that it leads to, with its address and the router between.
    pub port_id: Option<String>,
    pub fixed_ip: Option<IpAddr>,
    pub router_id: Option<String>,
    pub status: String,
    #[serde(default)]
    pub dns_name: String,
    #[serde(default)]
    pub dns_domain: String,
}

resource!(FloatingIp, "floatingip", "floating_ip", {
    "floating_network_id" => |f| (&f.floating_network_id).into(),
    "floating_ip_address" => |f| f.floating_ip.to_string().into(),
    "fixed_ip_address" => |f| f.fixed_ip.map_or_else(String::new, |ip| ip.to_string()).into(),
    "port_id" => |f| f.port_id.clone().unwrap_or_default().into(),
    "router_id" => |f| f.router_id.clone().unwrap_or_default().into(),
    "status" => |f| (&f.status).into(),
});

impl Secured for FloatingIp {
    fn visible(&self, ctx: &Ctx) -> bool {
        ctx.is_admin() || (!ctx.project_id().is_empty() && self.project_id == ctx.project_id())
    }
    fn not_found(id: &str) -> Error {
        not_found("FloatingIPNotFound", format!("Floating IP {id} could not be found"))
    }
}
