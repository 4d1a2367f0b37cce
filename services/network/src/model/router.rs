//! Routers.

use super::{Described, FixedIp, resource};
use crate::err::not_found;
use haneul_auth::{Ctx, Secured};
use haneul_core::Error;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// A static route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    pub destination: IpNet,
    pub nexthop: IpAddr,
}

/// `external_gateway_info`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Gateway {
    pub network_id: String,
    pub port_id: String,
    pub enable_snat: bool,
    pub fixed_ips: Vec<FixedIp>,
}

/// A router. Its interfaces are ports that name it as their device.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Router {
    pub id: String,
    pub project_id: String,
    pub name: String,
    pub description: String,
    pub tags: Vec<String>,
    pub admin_state_up: bool,
    pub gateway: Option<Gateway>,
    pub routes: Vec<Route>,
    /// The cloud's short number.
    pub index: u32,
    /// The host that carries it; empty until there is one.
    pub host_id: String,
    pub availability_zone_hints: Vec<String>,
}

resource!(Router, "router", "router", {
    "host_id" => |r| (&r.host_id).into(),
    "gateway_network_id" => |r| r.gateway.as_ref().map_or("", |g| g.network_id.as_str()).into(),
});

impl Secured for Router {
    fn visible(&self, ctx: &Ctx) -> bool {
        ctx.is_admin() || (!ctx.project_id().is_empty() && self.project_id == ctx.project_id())
    }
    fn not_found(id: &str) -> Error {
        not_found("RouterNotFound", format!("Router {id} could not be found"))
    }
}
