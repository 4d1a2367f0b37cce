//! Rules by Neutron's names, with the defaults of its personas (neutron/conf/policies).
//!
//! Actions carry the rules of whole resources; [`ATTRIBUTES`] those of single attributes: a rule
//! `create_network:shared` is demanded when a request sets `shared`, and an attribute whose `get_` rule does
//! not hold is left out of answers.

use crate::model::{FloatingIp, Group, Net, Port, Router, Rule, Subnet};
use haneul_auth::{Ctx, RuleDefault, Target};
use haneul_core::{Error, Result};
use serde_json::{Map, Value};

const ADMIN: &str = "role:admin";
const READER: &str = "role:admin or (role:reader and project_id:%(project_id)s)";
const MEMBER: &str = "role:admin or (role:member and project_id:%(project_id)s)";
const MANAGER: &str = "role:admin or (role:manager and project_id:%(project_id)s)";
const NET_READER: &str = "role:admin or (role:reader and project_id:%(network:project_id)s)";
const NET_MEMBER: &str = "role:admin or (role:member and project_id:%(network:project_id)s)";
const NET_MANAGER: &str = "role:admin or (role:manager and project_id:%(network:project_id)s)";

pub mod action {
    use super::*;
    haneul_auth::actions! {
        Net {
            CreateNetwork = "create_network" => MEMBER;
            GetNetwork = "get_network" => "rule:shared or rule:external or role:admin or (role:reader and project_id:%(project_id)s)";
            UpdateNetwork = "update_network" => MEMBER;
            DeleteNetwork = "delete_network" => MEMBER;
        }
        Subnet {
            CreateSubnet = "create_subnet" => NET_MEMBER;
            GetSubnet = "get_subnet" => "rule:shared or role:admin or (role:reader and (project_id:%(project_id)s or project_id:%(network:project_id)s))";
            UpdateSubnet = "update_subnet" => "role:admin or (role:member and (project_id:%(project_id)s or project_id:%(network:project_id)s))";
            DeleteSubnet = "delete_subnet" => "role:admin or (role:member and (project_id:%(project_id)s or project_id:%(network:project_id)s))";
        }
        Port {
            CreatePort = "create_port" => MEMBER;
            GetPort = "get_port" => "role:admin or (role:reader and (project_id:%(project_id)s or project_id:%(network:project_id)s))";
            UpdatePort = "update_port" => MEMBER;
            DeletePort = "delete_port" => "role:admin or (role:member and (project_id:%(project_id)s or project_id:%(network:project_id)s))";
        }
        Router {
            CreateRouter = "create_router" => MEMBER;
            GetRouter = "get_router" => READER;
            UpdateRouter = "update_router" => MEMBER;
            DeleteRouter = "delete_router" => MEMBER;
            AddRouterInterface = "add_router_interface" => MEMBER;
            RemoveRouterInterface = "remove_router_interface" => MEMBER;
            AddExtraroutes = "add_extraroutes" => MEMBER;
            RemoveExtraroutes = "remove_extraroutes" => MEMBER;
        }
        FloatingIp {
            CreateFloatingIp = "create_floatingip" => MEMBER;
            GetFloatingIp = "get_floatingip" => READER;
            UpdateFloatingIp = "update_floatingip" => MEMBER;
            DeleteFloatingIp = "delete_floatingip" => MEMBER;
        }
        Group {
            CreateSecurityGroup = "create_security_group" => MEMBER;
            GetSecurityGroup = "get_security_group" => READER;
            UpdateSecurityGroup = "update_security_group" => MEMBER;
            DeleteSecurityGroup = "delete_security_group" => MEMBER;
        }
        Rule {
            CreateSecurityGroupRule = "create_security_group_rule" => "role:admin or (role:member and project_id:%(security_group:project_id)s)";
            GetSecurityGroupRule = "get_security_group_rule" => "role:admin or (role:reader and (project_id:%(project_id)s or project_id:%(security_group:project_id)s))";
            DeleteSecurityGroupRule = "delete_security_group_rule" => "role:admin or (role:member and project_id:%(security_group:project_id)s)";
        }
    }
}

macro_rules! attributes {
    ($($name:literal => $check:expr;)*) => {
        /// Rules of single attributes.
        pub(crate) const ATTRIBUTES: &[RuleDefault] = &[$(RuleDefault { name: $name, check: $check }),*];
    };
}

attributes! {
    "create_network:shared" => ADMIN;
    "create_network:router:external" => ADMIN;
    "create_network:is_default" => ADMIN;
    "create_network:port_security_enabled" => MEMBER;
    "create_network:provider:network_type" => ADMIN;
    "create_network:provider:physical_network" => ADMIN;
    "create_network:provider:segmentation_id" => ADMIN;
    "get_network:provider:network_type" => ADMIN;
    "get_network:provider:physical_network" => ADMIN;
    "get_network:provider:segmentation_id" => ADMIN;
    "update_network:shared" => ADMIN;
    "update_network:router:external" => ADMIN;
    "update_network:is_default" => ADMIN;
    "update_network:port_security_enabled" => MEMBER;
    "update_network:provider:network_type" => ADMIN;
    "update_network:provider:physical_network" => ADMIN;
    "update_network:provider:segmentation_id" => ADMIN;
    "create_port:device_owner" => NET_MEMBER;
    "create_port:mac_address" => NET_MEMBER;
    "create_port:fixed_ips" => "rule:shared or role:admin or (role:member and project_id:%(network:project_id)s)";
    "create_port:fixed_ips:ip_address" => NET_MEMBER;
    "create_port:fixed_ips:subnet_id" => "rule:shared or role:admin or (role:member and project_id:%(network:project_id)s)";
    "create_port:port_security_enabled" => NET_MEMBER;
    "create_port:binding:host_id" => ADMIN;
    "create_port:binding:profile" => ADMIN;
    "create_port:allowed_address_pairs" => NET_MEMBER;
    "get_port:binding:vif_type" => ADMIN;
    "get_port:binding:vif_details" => ADMIN;
    "get_port:binding:host_id" => ADMIN;
    "get_port:binding:profile" => ADMIN;
    "update_port:device_owner" => NET_MEMBER;
    "update_port:mac_address" => NET_MANAGER;
    "update_port:fixed_ips" => NET_MEMBER;
    "update_port:fixed_ips:ip_address" => NET_MEMBER;
    "update_port:fixed_ips:subnet_id" => "rule:shared or role:admin or (role:member and project_id:%(network:project_id)s)";
    "update_port:port_security_enabled" => NET_MEMBER;
    "update_port:binding:host_id" => ADMIN;
    "update_port:binding:profile" => ADMIN;
    "update_port:allowed_address_pairs" => NET_MEMBER;
    "create_router:external_gateway_info:enable_snat" => ADMIN;
    "create_router:external_gateway_info:external_fixed_ips" => ADMIN;
    "create_router:distributed" => ADMIN;
    "create_router:ha" => ADMIN;
    "get_router:distributed" => ADMIN;
    "get_router:ha" => ADMIN;
    "update_router:external_gateway_info:enable_snat" => ADMIN;
    "update_router:external_gateway_info:external_fixed_ips" => ADMIN;
    "update_router:distributed" => ADMIN;
    "update_router:ha" => ADMIN;
    "create_floatingip:floating_ip_address" => MANAGER;
}

/// Rules that others name, and rules of what is no resource.
const BASE: &[RuleDefault] = &[
    RuleDefault {
        name: "shared",
        check: "'True':%(shared)s",
    },
    RuleDefault {
        name: "external",
        check: "'True':%(router:external)s",
    },
    RuleDefault {
        name: "network_owner",
        check: "project_id:%(network:project_id)s",
    },
    RuleDefault {
        name: "get_network_ip_availability",
        check: ADMIN,
    },
    RuleDefault {
        name: "get_availability_zone",
        check: "role:admin or role:reader",
    },
    RuleDefault {
        name: "get_agent",
        check: ADMIN,
    },
    RuleDefault {
        name: "get_l3-agents",
        check: ADMIN,
    },
    RuleDefault {
        name: "get_l3-routers",
        check: ADMIN,
    },
    RuleDefault {
        name: "get_dhcp-agents",
        check: ADMIN,
    },
    RuleDefault {
        name: "get_dhcp-networks",
        check: ADMIN,
    },
    RuleDefault {
        name: "get_quota",
        check: READER,
    },
    RuleDefault {
        name: "update_quota",
        check: ADMIN,
    },
    RuleDefault {
        name: "delete_quota",
        check: ADMIN,
    },
    RuleDefault {
        name: "get_networks_of_network_owner",
        check: NET_READER,
    },
];

const COUNT: usize = action::RULES.len() + ATTRIBUTES.len() + BASE.len();

const fn all() -> [RuleDefault; COUNT] {
    let mut out = [RuleDefault { name: "", check: "" }; COUNT];
    let lists: [&[RuleDefault]; 3] = [action::RULES, ATTRIBUTES, BASE];
    let (mut n, mut l) = (0, 0);
    while l < 3 {
        let mut i = 0;
        while i < lists[l].len() {
            out[n] = lists[l][i];
            n += 1;
            i += 1;
        }
        l += 1;
    }
    out
}

static ALL: [RuleDefault; COUNT] = all();

/// All rules of the service with their defaults.
pub const RULES: &[RuleDefault] = &all();

/// Demands the attribute rules of what a request sets. `action` is `create_network` and the like.
pub(crate) fn check(ctx: &Ctx, action: &str, body: &Map<String, Value>, target: &Target) -> Result<()> {
    for (name, value) in body {
        // Setting what is the default anyway asks for nothing.
        let default = action.starts_with("create_") && (value == &Value::Bool(false) || value == "" || value.is_null());
        if default && name != "port_security_enabled" {
            continue;
        }
        if name == "device_owner" && !value.as_str().is_some_and(|o| o.starts_with("network:")) {
            continue;
        }
        demand(ctx, action, name, target)?;
        let inner: Vec<&Map<String, Value>> = match value {
            Value::Object(o) => vec![o],
            Value::Array(items) => items.iter().filter_map(Value::as_object).collect(),
            _ => vec![],
        };
        for object in inner {
            for key in object.keys() {
                demand(ctx, action, &format!("{name}:{key}"), target)?;
            }
        }
    }
    Ok(())
}

fn demand(ctx: &Ctx, action: &str, attribute: &str, target: &Target) -> Result<()> {
    let rule = format!("{action}:{attribute}");
    if ATTRIBUTES.iter().all(|r| r.name != rule) || ctx.may(&rule, target) {
        return Ok(());
    }
    Err(Error::forbidden(format!(
        "(rule:{action} and rule:{rule}) is disallowed by policy: '{attribute}' may not be set by you here. Leave it out."
    ))
    .with_code("PolicyNotAuthorized")
    .with_field(attribute))
}

/// Attributes that this caller is not shown. `get` is `get_network` and the like.
pub(crate) fn hidden<'a>(ctx: &Ctx, get: &str) -> Vec<&'a str> {
    ALL.iter()
        .filter_map(|r| {
            let attribute = r.name.strip_prefix(get)?.strip_prefix(':')?;
            (!ctx.may(r.name, &Target::default())).then_some(attribute)
        })
        .collect()
}
