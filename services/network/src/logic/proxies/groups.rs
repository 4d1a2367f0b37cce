//! Security groups and their rules.

use super::only;
use crate::Network;
use crate::logic::publish::Touched;
use crate::logic::{groups, rules};
use crate::model::{Group, Rule};
use crate::policy::action::{DeleteSecurityGroup, DeleteSecurityGroupRule, GetSecurityGroup, UpdateSecurityGroup};
use haneul_auth::{Action, Ctx, Secured, fetch};
use haneul_core::{Error, Result, id};
use haneul_store::{Dir, Query, Stored, Tx};
use ipnet::IpNet;
use serde_json::json;
use std::collections::{BTreeSet, HashMap};

/// A security group with what it lets in.
#[derive(Clone, Debug, PartialEq)]
pub struct SecurityGroup {
    pub id: String,
    pub project_id: String,
    pub name: String,
    pub description: String,
    /// The rules for what comes in, but for those whose source the caller may not see.
    pub rules: Vec<SecurityGroupRule>,
}

/// A rule for what comes in.
#[derive(Clone, Debug, PartialEq)]
pub struct SecurityGroupRule {
    pub id: String,
    pub group_id: String,
    pub protocol: Option<String>,
    pub port_min: Option<u16>,
    pub port_max: Option<u16>,
    pub prefix: Option<IpNet>,
    /// Name and project of the group whose members it lets in.
    pub from: Option<(String, String)>,
}

/// A rule to be made. Compute has said already what is wrong with its fields.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NewRule {
    pub group_id: String,
    pub protocol: Option<String>,
    pub port_min: Option<i64>,
    pub port_max: Option<i64>,
    pub prefix: Option<IpNet>,
    pub from_group: Option<String>,
}

impl Network {
    /// The security groups of a project, or of all that the caller may see.
    pub async fn security_groups(&self, tx: &mut Tx, ctx: &Ctx, project: Option<&str>) -> Result<Vec<SecurityGroup>> {
        let mut query = Query::new().order("project_id", Dir::Asc).order("name", Dir::Asc);
        if let Some(p) = project {
            query = query.eq("project_id", p);
        }
        let found = tx.list::<Group>(&query.order("id", Dir::Asc)).await?;
        with_rules(tx, ctx, found).await
    }

    /// Those of these security groups that the caller may see.
    pub async fn security_groups_of(
        &self,
        tx: &mut Tx,
        ctx: &Ctx,
        ids: &BTreeSet<String>,
    ) -> Result<Vec<SecurityGroup>> {
        let query = Query::new()
            .is_in("id", ids.iter().map(String::as_str))
            .order("project_id", Dir::Asc)
            .order("name", Dir::Asc)
            .order("id", Dir::Asc);
        let found = tx.list::<Group>(&query).await?;
        with_rules(tx, ctx, found).await
    }

    /// One security group.
    pub async fn security_group(&self, tx: &mut Tx, ctx: &Ctx, id: &str) -> Result<SecurityGroup> {
        let group = fetch(tx, ctx, GetSecurityGroup, id).await?;
        only(with_rules(tx, ctx, vec![Stored::clone(&group)]).await?)
    }

    /// Makes a security group of the caller's project.
    pub async fn security_group_create(
        &self,
        tx: &mut Tx,
        ctx: &Ctx,
        name: &str,
        description: &str,
    ) -> Result<SecurityGroup> {
        let group = Group {
            id: id::uuid(),
            project_id: ctx.project_id().to_owned(),
            name: name.to_owned(),
            description: description.to_owned(),
            tags: vec![],
            stateful: true,
        };
        let stored = groups::create(tx, ctx, &group).await?;
        only(with_rules(tx, ctx, vec![stored]).await?)
    }

    /// Renames and describes a security group.
    pub async fn security_group_update(
        &self,
        tx: &mut Tx,
        ctx: &Ctx,
        id: &str,
        name: &str,
        description: &str,
    ) -> Result<SecurityGroup> {
        let old = fetch(tx, ctx, UpdateSecurityGroup, id).await?;
        let group = Group {
            name: name.to_owned(),
            description: description.to_owned(),
            ..old.edit()
        };
        let stored = self.group_update(tx, &old, &group).await?;
        only(with_rules(tx, ctx, vec![stored]).await?)
    }

    /// Deletes a security group that no port is in.
    pub async fn security_group_delete(&self, tx: &mut Tx, ctx: &Ctx, id: &str) -> Result<()> {
        let group = fetch(tx, ctx, DeleteSecurityGroup, id).await?;
        self.group_delete(tx, &group, ctx.is_admin()).await
    }

    /// Makes a rule for what comes in. One with a source group is for IPv4, as compute's rules do not say.
    pub async fn security_group_rule_create(&self, tx: &mut Tx, ctx: &Ctx, new: &NewRule) -> Result<SecurityGroupRule> {
        let v6 = new.prefix.is_some_and(|p| matches!(p, IpNet::V6(_)));
        let item = json!({
            "security_group_id": new.group_id,
            "direction": "ingress",
            "ethertype": if v6 { "IPv6" } else { "IPv4" },
            "protocol": new.protocol,
            "port_range_min": new.port_min,
            "port_range_max": new.port_max,
            "remote_ip_prefix": new.prefix,
            "remote_group_id": new.from_group,
        });
        let mut touched = Touched::default();
        let rule = rules::make_rule(tx, ctx, &item, None, &mut touched).await?;
        self.publish(tx, touched).await?;
        let sources = sources(tx, ctx, std::slice::from_ref(&rule)).await?;
        shown(&rule, &sources).ok_or_else(|| Error::internal("the source of a new rule is not to be seen"))
    }

    /// Deletes a rule.
    pub async fn security_group_rule_delete(&self, tx: &mut Tx, ctx: &Ctx, id: &str) -> Result<()> {
        let rule = fetch(tx, ctx, DeleteSecurityGroupRule, id).await?;
        self.rule_delete(tx, &rule).await
    }
}

fn readable(ctx: &Ctx, group: &Group) -> bool {
    group.visible(ctx) && ctx.may(GetSecurityGroup::RULE, &group.target())
}

async fn with_rules(tx: &mut Tx, ctx: &Ctx, mut found: Vec<Stored<Group>>) -> Result<Vec<SecurityGroup>> {
    found.retain(|g| readable(ctx, g));
    let ids: Vec<&str> = found.iter().map(|g| g.id.as_str()).collect();
    let mut rules = groups::rules_of(tx, &ids).await?;
    rules.values_mut().for_each(|of| of.retain(|r| r.ingress));
    let all: Vec<Stored<Rule>> = rules.values().flatten().cloned().collect();
    let sources = sources(tx, ctx, &all).await?;
    Ok(found
        .iter()
        .map(|g| SecurityGroup {
            id: g.id.clone(),
            project_id: g.project_id.clone(),
            name: g.name.clone(),
            description: g.description.clone(),
            rules: rules
                .get(&g.id)
                .into_iter()
                .flatten()
                .filter_map(|r| shown(r, &sources))
                .collect(),
        })
        .collect())
}

/// Name and project of the groups that rules name, by their ids.
async fn sources(tx: &mut Tx, ctx: &Ctx, rules: &[Stored<Rule>]) -> Result<HashMap<String, (String, String)>> {
    let ids: BTreeSet<&str> = rules.iter().filter_map(|r| r.remote_group.as_deref()).collect();
    let ids: Vec<&str> = ids.into_iter().collect();
    let mut out = HashMap::new();
    for chunk in ids.chunks(500) {
        for g in tx
            .list::<Group>(&Query::new().is_in("id", chunk.iter().copied()))
            .await?
        {
            if readable(ctx, &g) {
                out.insert(g.id.clone(), (g.name.clone(), g.project_id.clone()));
            }
        }
    }
    Ok(out)
}

/// `None`: its source is hidden from the caller.
fn shown(rule: &Rule, sources: &HashMap<String, (String, String)>) -> Option<SecurityGroupRule> {
    let from = match &rule.remote_group {
        Some(id) => Some(sources.get(id)?.clone()),
        None => None,
    };
    Some(SecurityGroupRule {
        id: rule.id.clone(),
        group_id: rule.security_group_id.clone(),
        protocol: rule.protocol.clone(),
        port_min: rule.port_min,
        port_max: rule.port_max,
        prefix: rule.remote_prefix,
        from,
    })
}
