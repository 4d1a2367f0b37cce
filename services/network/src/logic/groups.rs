//! Security groups: the default group of a project, who is in a group, changing and deleting.

use crate::Network;
use crate::err::{conflict, invalid};
use crate::logic::publish::Touched;
use crate::logic::quotas;
use crate::model::{Group, Rule};
use crate::policy::action::CreateSecurityGroup;
use haneul_auth::{Ctx, Secured, Target, allow_create};
use haneul_core::{Error, Result, id};
use haneul_store::{CreateGrant, Dir, Grant, Query, Stored, System, Tx};
use std::collections::BTreeMap;

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
