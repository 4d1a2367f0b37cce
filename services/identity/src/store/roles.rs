//! Which roles somebody effectively has: directly, by groups, inherited, implied.

use crate::model::{Assignment, ImpliedRole, Membership, Project, Role, TargetKind};
use haneul_core::Result;
use haneul_store::{Query, System, Tx};
use std::collections::{BTreeMap, BTreeSet};

/// All roles by id, and what implies what. Small tables, read whole.
pub(crate) struct RoleBook {
    pub roles: BTreeMap<String, Role>,
    implies: BTreeMap<String, Vec<String>>,
}

impl RoleBook {
    pub(crate) async fn load(tx: &mut Tx) -> Result<Self> {
        let roles = tx
            .list::<Role>(&Query::new())
            .await?
            .into_iter()
            .map(|r| (r.id.clone(), r.value))
            .collect();
        let mut implies: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for rule in tx.list::<ImpliedRole>(&Query::new()).await? {
            implies
                .entry(rule.prior.clone())
                .or_default()
                .push(rule.implied.clone());
        }
        Ok(Self { roles, implies })
    }

    /// What `prior` implies directly.
    pub(crate) fn implied_by(&self, prior: &str) -> &[String] {
        self.implies.get(prior).map_or(&[], Vec::as_slice)
    }

    /// The roles with all that they imply.
    pub(crate) fn expand<'a>(&self, ids: impl IntoIterator<Item = &'a str>) -> BTreeSet<String> {
        let mut out = BTreeSet::new();
        let mut todo: Vec<String> = ids.into_iter().map(str::to_owned).collect();
        while let Some(id) = todo.pop() {
            if out.insert(id.clone()) {
                todo.extend(self.implied_by(&id).iter().cloned());
            }
        }
        out
    }

    /// What a token may carry of them: roles of a domain only stand for what they imply.
    pub(crate) fn for_token(&self, ids: &BTreeSet<String>) -> Vec<&Role> {
        ids.iter()
            .filter_map(|id| self.roles.get(id))
            .filter(|r| r.domain_id.is_none())
            .collect()
    }
}

/// Ids of the groups of a user.
pub(crate) async fn groups_of(tx: &mut Tx, user: &str) -> Result<Vec<String>> {
    tx.rows(
        "SELECT group_id FROM identity_membership WHERE user_id = $1",
        &[user.into()],
    )
    .await?
    .iter()
    .map(|r| r.str(0))
    .collect()
}

/// Ids of the roles that a user was given on a target, directly and by groups, inherited ones included,
/// before implied roles.
pub(crate) async fn assigned(tx: &mut Tx, user: &str, target: TargetKind, id: &str) -> Result<BTreeSet<String>> {
    let mut actors = groups_of(tx, user).await?;
    actors.push(user.to_owned());
    let mut found = BTreeSet::new();
    let on = |q: Query| q.is_in("actor_id", actors.iter().map(String::as_str));
    let own = on(Query::new()
        .eq("target_kind", target.as_str())
        .eq("target_id", id)
        .eq("inherited", false));
    for a in tx.list::<Assignment>(&own).await? {
        found.insert(a.value.role_id);
    }
    if target == TargetKind::Project
        && let Some(project) = tx.find::<Project>(id).await?
    {
        let mut above = vec![project.domain_id.clone()];
        above.extend(super::parents(tx, &project).await?.into_iter().map(|p| p.value.id));
        let inherited = on(Query::new()
            .is_in("target_id", above.iter().map(String::as_str))
            .eq("inherited", true));
        for a in tx.list::<Assignment>(&inherited).await? {
            found.insert(a.value.role_id);
        }
    }
    Ok(found)
}

/// Ids of the projects or domains on which a user has any role.
pub(crate) async fn targets_of(tx: &mut Tx, user: &str, kind: TargetKind) -> Result<BTreeSet<String>> {
    let mut actors = groups_of(tx, user).await?;
    actors.push(user.to_owned());
    let mut out = BTreeSet::new();
    for a in tx
        .list::<Assignment>(&Query::new().is_in("actor_id", actors.iter().map(String::as_str)))
        .await?
    {
        if !a.inherited {
            if a.target == kind {
                out.insert(a.value.target_id);
            }
        } else if kind == TargetKind::Project {
            match a.target {
                TargetKind::Domain => out.extend(
                    tx.list::<Project>(&Query::new().eq("domain_id", a.target_id.as_str()))
                        .await?
                        .into_iter()
                        .map(|p| p.value.id),
                ),
                _ => out.extend(super::subtree(tx, &a.target_id).await?.into_iter().map(|p| p.value.id)),
            }
        }
    }
    Ok(out)
}

/// Removes the assignments in which `column` (`actor_id`, `target_id`, `role_id`) is `id`.
pub(crate) async fn drop_assignments(tx: &mut Tx, column: &str, id: &str) -> Result<()> {
    for a in tx.list::<Assignment>(&Query::new().eq(column, id)).await? {
        tx.delete(&System::of(a)).await?;
    }
    Ok(())
}

/// Removes the memberships in which `column` (`group_id`, `user_id`) is `id`.
pub(crate) async fn drop_memberships(tx: &mut Tx, column: &str, id: &str) -> Result<()> {
    for m in tx.list::<Membership>(&Query::new().eq(column, id)).await? {
        tx.delete(&System::of(m)).await?;
    }
    Ok(())
}

/// Ids of all members of all groups, for effective assignments.
pub(crate) async fn memberships(tx: &mut Tx) -> Result<BTreeMap<String, Vec<String>>> {
    let mut out: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for row in tx
        .rows("SELECT group_id, user_id FROM identity_membership ORDER BY id", &[])
        .await?
    {
        out.entry(row.str(0)?).or_default().push(row.str(1)?);
    }
    Ok(out)
}
