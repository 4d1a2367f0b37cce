//! Rules of security groups, and what is wrong with them.

use crate::err::{bad, conflict};
use crate::logic::publish::Touched;
use crate::logic::quotas;
use crate::model::{Group, Rule};
use crate::policy::action::CreateSecurityGroupRule;
use haneul_auth::{Ctx, Secured, Target, allow_create};
use haneul_core::{Result, id};
use haneul_store::{CreateGrant, Query, Stored, Tx};
use ipnet::IpNet;
use serde_json::{Value, json};
use std::net::IpAddr;

/// Protocols by name (IANA numbers; neutron-lib's IP_PROTOCOL_MAP).
pub(crate) const PROTOCOLS: &[(&str, u8)] = &[
    ("ah", 51),
    ("dccp", 33),
    ("egp", 8),
    ("esp", 50),
    ("gre", 47),
    ("icmp", 1),
    ("icmpv6", 58),
    ("igmp", 2),
    ("ipip", 4),
    ("ipv6-encap", 41),
    ("ipv6-frag", 44),
    ("ipv6-icmp", 58),
    ("ipv6-nonxt", 59),
    ("ipv6-opts", 60),
    ("ipv6-route", 43),
    ("ospf", 89),
    ("pgm", 113),
    ("rsvp", 46),
    ("sctp", 132),
    ("tcp", 6),
    ("udp", 17),
    ("udplite", 136),
    ("vrrp", 112),
];
/// Those with ports.
const WITH_PORTS: [u8; 5] = [6, 17, 33, 132, 136];

fn small(body: &Value, field: &str) -> Option<i64> {
    body.get(field)
        .filter(|v| !v.is_null())
        .and_then(haneul_http::fields::int)
}

/// A rule from a checked body. Everything that is wrong with it is said here.
fn rule_from(body: &Value, group: &Group, project_id: String) -> Result<Rule> {
    let text = |name: &str| body.get(name).and_then(Value::as_str).map(str::to_owned);
    let v6 = match text("ethertype")
        .unwrap_or_else(|| "IPv4".into())
        .to_ascii_lowercase()
        .as_str()
    {
        "ipv4" => false,
        "ipv6" => true,
        other => {
            return Err(bad(
                "SecurityGroupRuleInvalidEtherType",
                "ethertype",
                format!(
                    "Security group rule for ethertype '{other}' not supported. Allowed values are ['IPv4', 'IPv6']."
                ),
            ));
        }
    };
    let (protocol, number) = protocol(body.get("protocol").unwrap_or(&Value::Null), v6)?;
    let (min, max) = (small(body, "port_range_min"), small(body, "port_range_max"));
    let (port_min, port_max) = ports(protocol.as_deref(), number, min, max)?;
    let remote_prefix = text("remote_ip_prefix").map(|p| prefix(&p, v6)).transpose()?;
    let remote_group = text("remote_group_id");
    if remote_prefix.is_some() && remote_group.is_some() {
        return Err(bad(
            "SecurityGroupMultipleRemoteEntites",
            "remote_group_id",
            "Only one of remote_ip_prefix or remote_group_id may be provided.",
        ));
    }
    Ok(Rule {
        id: id::uuid(),
        project_id,
        name: String::new(),
        description: text("description").unwrap_or_default(),
        tags: vec![],
        security_group_id: group.id.clone(),
        group_project_id: group.project_id.clone(),
        ingress: text("direction").as_deref() == Some("ingress"),
        v6,
        protocol,
        number,
        port_min,
        port_max,
        remote_prefix,
        remote_group,
    })
}

fn protocol(value: &Value, v6: bool) -> Result<(Option<String>, Option<u8>)> {
    let text = match value {
        Value::Null => return Ok((None, None)),
        Value::String(s) if s.is_empty() => return Ok((None, None)),
        Value::String(s) => s.to_ascii_lowercase(),
        other => other.to_string(),
    };
    if text == "any" || text == "0" {
        return Ok((Some(text), None));
    }
    let named = PROTOCOLS.iter().find(|(n, _)| *n == text).map(|(_, n)| *n);
    let Some(mut number) = named.or_else(|| text.parse::<u8>().ok()) else {
        let names: Vec<&str> = PROTOCOLS.iter().map(|(n, _)| *n).collect();
        return Err(bad(
            "SecurityGroupRuleInvalidProtocol",
            "protocol",
            format!(
                "Security group rule protocol {text} not supported. Only protocol values {} and integer representations [0 to 255] are supported.",
                names.join(", ")
            ),
        ));
    };
    if !v6 && (number == 58 || named.is_some() && text.starts_with("ipv6-") && text != "ipv6-encap") {
        return Err(bad(
            "SecurityGroupEthertypeConflictWithProtocol",
            "protocol",
            format!("Invalid ethertype IPv4 for protocol {text}. Write ethertype IPv6, or another protocol."),
        ));
    }
    // ICMP of an IPv6 rule is ICMPv6.
    if v6 && number == 1 {
        number = 58;
    }
    Ok((Some(text), Some(number)))
}

fn ports(
    name: Option<&str>,
    number: Option<u8>,
    min: Option<i64>,
    max: Option<i64>,
) -> Result<(Option<u16>, Option<u16>)> {
    if min.is_none() && max.is_none() {
        return Ok((None, None));
    }
    let Some(number) = number else {
        return Err(bad(
            "SecurityGroupProtocolRequiredWithPorts",
            "protocol",
            "Must also specify protocol if port range is given.",
        ));
    };
    let name = name.unwrap_or_default();
    if number == 1 || number == 58 {
        for (value, field, attr) in [(min, "port_range_min", "type"), (max, "port_range_max", "code")] {
            if let Some(v) = value.filter(|v| !(0..=255).contains(v)) {
                return Err(bad(
                    "SecurityGroupInvalidIcmpValue",
                    field,
                    format!("Invalid value for ICMP {attr} ({field}) {v}. It must be 0 to 255."),
                ));
            }
        }
        if min.is_none() {
            return Err(bad(
                "SecurityGroupMissingIcmpType",
                "port_range_min",
                format!(
                    "ICMP code (port-range-max) {} is provided but ICMP type (port-range-min) is missing.",
                    max.unwrap_or_default()
                ),
            ));
        }
    } else if WITH_PORTS.contains(&number) {
        for (value, field) in [(min, "port_range_min"), (max, "port_range_max")] {
            match value {
                None => {
                    return Err(bad(
                        "SecurityGroupInvalidPortRange",
                        field,
                        format!("For TCP/UDP protocols, port_range_min must be <= port_range_max: {field} is missing."),
                    ));
                }
                Some(v) if !(1..=65535).contains(&v) => {
                    return Err(bad(
                        "SecurityGroupInvalidPortValue",
                        field,
                        format!("Invalid value for port {v}: {field} must be from 1 to 65535."),
                    ));
                }
                Some(_) => {}
            }
        }
        if min > max {
            return Err(bad(
                "SecurityGroupInvalidPortRange",
                "port_range_min",
                format!(
                    "For TCP/UDP protocols, port_range_min must be <= port_range_max: {} is more than {}.",
                    min.unwrap_or_default(),
                    max.unwrap_or_default()
                ),
            ));
        }
    } else {
        return Err(bad(
            "SecurityGroupInvalidProtocolForPort",
            "port_range_min",
            format!(
                "Ports cannot be specified for protocol {name}. Ports are only supported for tcp, udp, udplite, sctp, dccp (and types for icmp)."
            ),
        ));
    }
    let narrow = |v: Option<i64>| v.and_then(|v| u16::try_from(v).ok());
    Ok((narrow(min), narrow(max)))
}

fn prefix(text: &str, v6: bool) -> Result<IpNet> {
    let parsed = text
        .parse::<IpNet>()
        .ok()
        .or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
    let Some(net) = parsed else {
        return Err(bad(
            "InvalidCIDR",
            "remote_ip_prefix",
            format!(
                "Invalid CIDR {text} given as IP prefix. Write an address and a prefix length, for example 192.0.2.0/24."
            ),
        ));
    };
    if matches!(net, IpNet::V6(_)) != v6 {
        let family = if v6 { "IPv6" } else { "IPv4" };
        return Err(bad(
            "SecurityGroupRuleParameterConflict",
            "remote_ip_prefix",
            format!("Conflicting value ethertype {family} for CIDR {text}"),
        ));
    }
    // As it was written: its network is `normalized_cidr`.
    Ok(net)
}

/// A new rule of a checked body, in the caller's right and within the quota. It goes with its group, also when an
/// administrator makes it, unless the body names a project.
pub(crate) async fn make_rule(
    tx: &mut Tx,
    ctx: &Ctx,
    item: &Value,
    project_id: Option<String>,
    touched: &mut Touched,
) -> Result<Stored<Rule>> {
    let group_id = item
        .get("security_group_id")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let group = tx
        .find::<Group>(group_id)
        .await?
        .filter(|g| g.visible(ctx))
        .ok_or_else(|| Group::not_found(group_id).with_field("security_group_id"))?;
    let project_id = project_id.unwrap_or_else(|| group.project_id.clone());
    let target = Target::project(&project_id).with("security_group:project_id", &group.project_id);
    let grant = allow_create(ctx, CreateSecurityGroupRule, &target)?;
    let rule = rule_from(item, &group, project_id)?;
    if let Some(remote) = &rule.remote_group {
        let visible = tx.find::<Group>(remote).await?.is_some_and(|g| g.visible(ctx));
        if !visible {
            return Err(Group::not_found(remote).with_field("remote_group_id"));
        }
    }
    quotas::take(tx, &rule.project_id, "security_group_rule", 1).await?;
    add_rule(tx, &grant, &rule, touched).await
}

/// Stores a rule; the same rule twice is refused.
async fn add_rule(
    tx: &mut Tx,
    grant: &impl CreateGrant<Rule>,
    rule: &Rule,
    touched: &mut Touched,
) -> Result<Stored<Rule>> {
    touched.groups.extend(rule.remote_group.clone());
    touched.groups.insert(rule.security_group_id.clone());
    if let Some(stored) = tx.insert(grant, rule).await? {
        return Ok(stored);
    }
    let query = Query::new()
        .eq("security_group_id", rule.security_group_id.as_str())
        .eq("rule_key", rule.key());
    let there = tx
        .list::<Rule>(&query)
        .await?
        .into_iter()
        .next()
        .map(|r| r.id.clone())
        .unwrap_or_default();
    Err(conflict(
        "SecurityGroupRuleExists",
        format!("Security group rule already exists. Rule id is {there}. Use that one, or change direction, ethertype, protocol, ports or remote."),
    )
    .with_details(json!({"rule_id": there})))
}
