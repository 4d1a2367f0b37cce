//! Networks.

use super::{Described, resource};
use crate::err::not_found;
use haneul_auth::{Ctx, Secured, Target};
use haneul_core::Error;
use serde::{Deserialize, Serialize};

/// A network.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Net {
    pub id: String,
    pub project_id: String,
    pub name: String,
    pub description: String,
    pub tags: Vec<String>,
    pub admin_state_up: bool,
    pub shared: bool,
    pub external: bool,
    pub is_default: bool,
    pub mtu: u32,
    /// Default of the network's ports.
    pub port_security: bool,
    pub dns_domain: String,
    /// The cloud's short number; device names and the segmentation id come from it.
    pub index: u32,
    pub availability_zone_hints: Vec<String>,
}

resource!(Net, "network", "network", {
    "shared" => |n| n.shared.into(),
    "external" => |n| n.external.into(),
});

impl Net {
    /// What rules on things in this network are checked against.
    pub fn policy(&self, project_id: &str) -> Target {
        flag(
            flag(Target::project(project_id), "shared", self.shared),
            "router:external",
            self.external,
        )
        .with("network:project_id", &self.project_id)
        .with("network:tenant_id", &self.project_id)
    }
}

/// A boolean as oslo.policy sees it.
pub(crate) fn flag(target: Target, name: &str, value: bool) -> Target {
    target.with(name, if value { "True" } else { "False" })
}

impl Secured for Net {
    fn target(&self) -> Target {
        self.policy(&self.project_id)
    }
    fn visible(&self, ctx: &Ctx) -> bool {
        ctx.is_admin() || self.shared || self.external || self.project_id == ctx.project_id()
    }
    fn not_found(id: &str) -> Error {
        not_found("NetworkNotFound", format!("Network {id} could not be found."))
    }
}
