//! Security groups: the default group of a project, rules and what is wrong with them.

use crate::Network;
use crate::err::{bad, conflict, invalid};
use crate::logic::publish::Touched;
use crate::logic::quotas;
use crate::model::{Group, Rule};
use crate::policy::action::{CreateSecurityGroup, CreateSecurityGroupRule};
use haneul_auth::{Ctx, Secured, Target, allow_create};
use haneul_core::{Error, Result, id};
use haneul_store::{CreateGrant, Dir, Grant, Query, Stored, System, Tx};
use ipnet::IpNet;
use serde_json::{Value, json};
use std::collections::BTreeMap;
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

/// The project's default group, if it was made already.
pub(crate) async fn default_id(tx: &mut Tx, project: &str) -> Result<Option<String>> {
    tx.row(
        "SELECT security_group_id FROM default_security_group WHERE project_id = $1",
        &[project.into()],
    )
    .await?
    .map(|r| r.str(0))
    .transpose()
}

/// The project's default group, made on demand with Neutron's default rules: all egress, and ingress from
/// members of the group.
pub(crate) async fn ensure_default(tx: &mut Tx, project: &str) -> Result<String> {
    if let Some(id) = default_id(tx, project).await? {
        return Ok(id);
    }
    let new = id::uuid();
    let taken = tx
        .row(
            "INSERT INTO default_security_group(project_id, security_group_id) VALUES($1, $2)
             ON CONFLICT DO NOTHING RETURNING security_group_id",
            &[project.into(), (&new).into()],
        )
        .await?;
    if taken.is_none() {
        return Err(
            Error::unavailable("The default security group was made at the same time. Repeat the request.").retryable(),
        );
    }
    let group = Group {
        id: new.clone(),
        project_id: project.to_owned(),
        name: "default".into(),
        description: "Default security group".into(),
        tags: vec![],
        stateful: true,
    };
    quotas::count(tx, project, "security_group", 1).await?;
    insert(tx, &System::create(), &group, true).await?;
    Ok(new)
}

/// A new group of a project, in the caller's right and within the project's quota.
pub(crate) async fn create(tx: &mut Tx, ctx: &Ctx, group: &Group) -> Result<Stored<Group>> {
    let grant = allow_create(ctx, CreateSecurityGroup, &Target::project(&group.project_id))?;
    check_name(&group.name)?;
    ensure_default(tx, &group.project_id).await?;
    quotas::take(tx, &group.project_id, "security_group", 1).await?;
    insert(tx, &grant, group, false).await
}

/// Stores a group with its first rules.
async fn insert(
    tx: &mut Tx,
    grant: &impl CreateGrant<Group>,
    group: &Group,
    from_members: bool,
) -> Result<Stored<Group>> {
    let stored = tx
        .insert(grant, group)
        .await?
        .ok_or_else(|| Error::internal("the id of a security group was taken"))?;
    let mut n = 0;
    for ingress in [false, true] {
        if ingress && !from_members {
            continue;
        }
        for v6 in [false, true] {
            let rule = Rule {
                id: id::uuid(),
                project_id: group.project_id.clone(),
                name: String::new(),
                description: String::new(),
                tags: vec![],
                security_group_id: group.id.clone(),
                group_project_id: group.project_id.clone(),
                ingress,
                v6,
                protocol: None,
                number: None,
                port_min: None,
                port_max: None,
                remote_prefix: None,
                remote_group: ingress.then(|| group.id.clone()),
            };
            tx.insert(&System::create(), &rule).await?;
            n += 1;
        }
    }
    quotas::count(tx, &group.project_id, "security_group_rule", n).await?;
    Ok(stored)
}

/// The rules of these groups, the oldest first.
pub(crate) async fn rules_of(tx: &mut Tx, ids: &[&str]) -> Result<BTreeMap<String, Vec<Stored<Rule>>>> {
    let mut out: BTreeMap<String, Vec<Stored<Rule>>> = BTreeMap::new();
    for chunk in ids.chunks(500) {
        let query = Query::new()
            .is_in("security_group_id", chunk.iter().copied())
            .order("created_at", Dir::Asc)
            .order("id", Dir::Asc);
        for r in tx.list::<Rule>(&query).await? {
            out.entry(r.security_group_id.clone()).or_default().push(r);
        }
    }
    Ok(out)
}

/// Refuses groups that do not exist or belong to somebody else.
pub(crate) async fn check_ids(tx: &mut Tx, project: &str, is_admin: bool, ids: &[String]) -> Result<()> {
    if ids.is_empty() {
        return Ok(());
    }
    let found = tx
        .list::<Group>(&Query::new().is_in("id", ids.iter().map(String::as_str)))
        .await?;
    for wanted in ids {
        let ok = found
            .iter()
            .any(|g| &g.id == wanted && (is_admin || g.project_id == project));
        if !ok {
            return Err(Group::not_found(wanted).with_field("security_groups"));
        }
    }
    Ok(())
}

/// Joins a port to its groups.
pub(crate) async fn join(tx: &mut Tx, port_id: &str, ids: &[String]) -> Result<()> {
    for g in ids {
        tx.exec(
            "INSERT INTO port_security_group(security_group_id, port_id) VALUES($1, $2) ON CONFLICT DO NOTHING",
            &[g.into(), port_id.into()],
        )
        .await?;
    }
    Ok(())
}

/// Replaces the groups of a port.
pub(crate) async fn rejoin(tx: &mut Tx, port_id: &str, ids: &[String]) -> Result<()> {
    leave(tx, port_id).await?;
    join(tx, port_id, ids).await
}

/// Takes a port out of all its groups.
pub(crate) async fn leave(tx: &mut Tx, port_id: &str) -> Result<()> {
    tx.exec("DELETE FROM port_security_group WHERE port_id = $1", &[port_id.into()])
        .await?;
    Ok(())
}

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

impl Network {
    /// The caller's default group exists from the first look on.
    pub async fn ensure_default_group(&self, ctx: &Ctx) -> Result<()> {
        let project = ctx.project_id().to_owned();
        if project.is_empty() {
            return Ok(());
        }
        let there = {
            let mut tx = self.db.read().await?;
            default_id(&mut tx, &project).await?.is_some()
        };
        if !there {
            self.db
                .write(&ctx.actor(), async move |tx| ensure_default(tx, &project).await)
                .await?;
        }
        Ok(())
    }

    /// Changes a group: the default one keeps its name, and one in use what it tracks.
    pub(crate) async fn group_update(
        &self,
        tx: &mut Tx,
        grant: &impl Grant<Group>,
        group: &Group,
    ) -> Result<Stored<Group>> {
        let old = grant.stored();
        let id = &old.id;
        if group.name != old.name {
            if default_id(tx, &old.project_id).await?.as_ref() == Some(id) {
                return Err(conflict(
                    "SecurityGroupCannotUpdateDefault",
                    "Updating default security group not allowed.",
                )
                .with_field("name"));
            }
            check_name(&group.name)?;
        }
        if group.stateful != old.stateful {
            let used = tx
                .row(
                    "SELECT port_id FROM port_security_group WHERE security_group_id = $1 LIMIT 1",
                    &[id.into()],
                )
                .await?;
            if let Some(r) = used {
                return Err(conflict(
                    "SecurityGroupInUse",
                    format!(
                        "Security Group {id} in use by port {}: stateful cannot be changed.",
                        r.str(0)?
                    ),
                )
                .with_field("stateful"));
            }
        }
        let mut touched = Touched::default();
        touched.groups.insert(id.clone());
        let stored = tx.update(grant, group).await?;
        self.publish(tx, touched).await?;
        Ok(stored)
    }

    /// Deletes a rule.
    pub(crate) async fn rule_delete(&self, tx: &mut Tx, grant: &impl Grant<Rule>) -> Result<()> {
        let rule = &grant.stored().value;
        let mut touched = Touched::default();
        if let Some(remote) = rule.remote_group.as_ref().filter(|r| **r != rule.security_group_id) {
            touched.group_unnamed(tx, remote).await?;
        }
        touched.groups.insert(rule.security_group_id.clone());
        quotas::give_back(tx, &rule.project_id, "security_group_rule", 1).await?;
        tx.delete(grant).await?;
        self.publish(tx, touched).await
    }

    /// Deletes a group with its rules, and the rules of others that name it.
    pub(crate) async fn group_delete(&self, tx: &mut Tx, grant: &impl Grant<Group>, is_admin: bool) -> Result<()> {
        let mut touched = Touched::default();
        let group = grant.stored().value.clone();
        if group.name == "default" && default_id(tx, &group.project_id).await?.as_deref() == Some(&group.id) {
            if !is_admin {
                return Err(conflict(
                    "SecurityGroupCannotRemoveDefault",
                    "Insufficient rights for removing default security group.",
                ));
            }
            tx.exec(
                "DELETE FROM default_security_group WHERE project_id = $1",
                &[(&group.project_id).into()],
            )
            .await?;
        }
        let ports = tx
            .rows(
                "SELECT port_id FROM port_security_group WHERE security_group_id = $1 ORDER BY port_id LIMIT 5",
                &[(&group.id).into()],
            )
            .await?;
        if !ports.is_empty() {
            let ids: Vec<String> = ports.iter().map(|r| r.str(0)).collect::<Result<_>>()?;
            return Err(conflict(
                "SecurityGroupInUse",
                format!(
                    "Security Group {} in use by port(s) {}. Take it off them first.",
                    group.id,
                    ids.join(", ")
                ),
            ));
        }
        touched.group_unnamed(tx, &group.id).await?;
        let query = Query::new().raw(
            "security_group_id = {} OR remote_group_id = {}",
            vec![(&group.id).into(), (&group.id).into()],
        );
        for rule in tx.list::<Rule>(&query).await? {
            if rule.security_group_id != group.id {
                touched.groups.insert(rule.security_group_id.clone());
            } else if let Some(remote) = rule.remote_group.clone().filter(|r| *r != group.id) {
                touched.group_unnamed(tx, &remote).await?;
            }
            quotas::give_back(tx, &rule.project_id.clone(), "security_group_rule", 1).await?;
            tx.delete(&System::of(rule)).await?;
        }
        quotas::give_back(tx, &group.project_id, "security_group", 1).await?;
        tx.delete(grant).await?;
        self.publish(tx, touched).await
    }
}

/// The name `default` is the cloud's.
fn check_name(name: &str) -> Result<()> {
    if name.eq_ignore_ascii_case("default") {
        return Err(conflict(
            "SecurityGroupDefaultAlreadyExists",
            "Default security group already exists. Choose another name.",
        ));
    }
    if name.len() > 255 {
        return Err(invalid("name", "at most 255 characters are allowed."));
    }
    Ok(())
}
