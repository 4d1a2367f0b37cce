//! Security groups and their rules.

use super::{Described, resource};
use crate::err::not_found;
use haneul_auth::{Ctx, Secured, Target};
use haneul_core::Error;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// A security group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Group {
    pub id: String,
    pub project_id: String,
    pub name: String,
    #[serde(default)]
    pub description: String,
    #[serde(default)]
    pub tags: Vec<String>,
    pub stateful: bool,
}

resource!(Group, "security_group", "security_group", {});

impl Secured for Group {
    fn visible(&self, ctx: &Ctx) -> bool {
        ctx.is_admin() || (!ctx.project_id().is_empty() && self.project_id == ctx.project_id())
    }
    fn not_found(id: &str) -> Error {
        not_found("SecurityGroupNotFound", format!("Security group {id} does not exist"))
    }
}

/// A rule of a group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rule {
    pub id: String,
    pub project_id: String,
    /// Always empty: rules have no name.
    #[serde(default)]
    pub name: String,
    #[serde(default)]
    pub description: String,
    #[serde(default)]
    pub tags: Vec<String>,
    pub security_group_id: String,
    /// Owner of the group.
    pub group_project_id: String,
    pub ingress: bool,
    pub v6: bool,
    /// As the user wrote it: a name, a number, or nothing for any.
    pub protocol: Option<String>,
    /// Its number.
    pub number: Option<u8>,
    pub port_min: Option<u16>,
    pub port_max: Option<u16>,
    pub remote_prefix: Option<IpNet>,
    pub remote_group: Option<String>,
}

resource!(Rule, "security_group_rule", "security_group_rule", {
    "security_group_id" => |r| (&r.security_group_id).into(),
    "remote_group_id" => |r| r.remote_group.clone().unwrap_or_default().into(),
    "rule_key" => |r| r.key().into(),
});

impl Rule {
    /// Two rules of a group with the same key say the same.
    pub fn key(&self) -> String {
        let n = |v: Option<u16>| v.map_or_else(String::new, |v| v.to_string());
        format!(
            "{}|{}|{}|{}|{}|{}|{}",
            u8::from(self.ingress),
            u8::from(self.v6),
            self.number.map_or_else(String::new, |v| v.to_string()),
            n(self.port_min),
            n(self.port_max),
            self.remote_prefix.map_or_else(String::new, |p| p.trunc().to_string()),
            self.remote_group.as_deref().unwrap_or_default()
        )
    }
}

impl Secured for Rule {
    fn target(&self) -> Target {
        Target::project(&self.project_id).with("security_group:project_id", &self.group_project_id)
    }
    fn visible(&self, ctx: &Ctx) -> bool {
        let p = ctx.project_id();
        ctx.is_admin() || (!p.is_empty() && (self.project_id == p || self.group_project_id == p))
    }
    fn not_found(id: &str) -> Error {
        not_found(
            "SecurityGroupRuleNotFound",
            format!("Security group rule {id} does not exist"),
        )
    }
}
