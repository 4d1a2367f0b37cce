//! Quotas of servers: counted in the transaction of the rows that they count.
//!
//! The limit of a project is its own, else that of the class `default`, else the configuration's. A user may have less
//! of a project than all of it; that is seldom, so the user's servers are counted when there is such a limit.

use crate::Compute;
use crate::logic::delete_server::counted;
use crate::logic::guest::start_order;
use crate::model::{Server, ServerGroup};
use haneul_auth::quota::{self, Quota};
use haneul_core::{Error, Kind, Result};
use haneul_store::{Query, Tx};
use std::collections::{BTreeMap, HashMap};

/// What servers take, in the order in which it is counted.
pub const COUNTED: [&str; 3] = ["instances", "cores", "ram"];

/// The name of a quota of compute beside those of other services.
pub(crate) fn key(name: &str) -> String {
    format!("compute.{name}")
}

/// Whose limits are those of a class of projects. No project has such an id.
fn class_holder(class: &str) -> String {
    format!("class:{class}")
}

/// Whose limits are those of one user in a project.
fn user_holder(project: &str, user: &str) -> String {
    format!("{project}:{user}")
}

/// 403 when there would be more metadata than the quota allows.
pub(crate) fn metadata_within(items: usize, most: i64) -> Result<()> {
    if most < 0 || items as i64 <= most {
        return Ok(());
    }
    Err(Error::new(
        Kind::OverQuota,
        format!("Maximum number of metadata items exceeds {most}: there would be {items}."),
    ))
}

impl Compute {
    fn configured(&self, name: &str) -> i64 {
        match name {
            "instances" => self.config.quota_instances,
            "cores" => self.config.quota_cores,
            "ram" => self.config.quota_ram_mib,
            "metadata_items" => 128,
            "key_pairs" => 100,
            "server_groups" | "server_group_members" => 10,
            // Files are not injected.
            n if n.starts_with("injected_") => 0,
            // Of the network's things the network service has its own quotas; as in Nova, these only have a number.
            _ => -1,
        }
    }

    /// A limit of a class; that of `default` is every project's that has none of its own.
    pub(crate) async fn class_limit(&self, tx: &mut Tx, class: &str, name: &str) -> Result<i64> {
        let found = quota::show(tx, &class_holder(class), &key(name), self.configured(name)).await?;
        Ok(found.limit)
    }

    /// Sets a limit of a class.
    pub(crate) async fn class_limit_set(&self, tx: &mut Tx, class: &str, name: &str, limit: i64) -> Result<()> {
        quota::set(tx, &class_holder(class), &key(name), Some(limit)).await
    }

    /// A quota of a project.
    pub(crate) async fn quota(&self, tx: &mut Tx, project: &str, name: &str) -> Result<Quota> {
        let default = self.class_limit(tx, "default", name).await?;
        let mut found = quota::show(tx, project, &key(name), default).await?;
        if name == "server_groups" {
            found.used = tx.count::<ServerGroup>(&Query::new().eq("project_id", project)).await?;
        }
        Ok(found)
    }

    /// A limit of a project.
    pub(crate) async fn limit(&self, tx: &mut Tx, project: &str, name: &str) -> Result<i64> {
        Ok(self.quota(tx, project, name).await?.limit)
    }

    /// A quota of one user in a project.
    pub(crate) async fn user_quota(&self, tx: &mut Tx, project: &str, user: &str, name: &str) -> Result<Quota> {
        let of_project = self.quota(tx, project, name).await?;
        if !COUNTED.contains(&name) {
            return Ok(of_project);
        }
        let own = self.user_limit(tx, (project, user), name).await?;
        Ok(Quota {
            limit: own.unwrap_or(of_project.limit),
            used: used_by(tx, (project, user), name).await?,
            own: own.is_some(),
        })
    }

    /// The limit that a user has of its own.
    async fn user_limit(&self, tx: &mut Tx, (project, user): (&str, &str), name: &str) -> Result<Option<i64>> {
        let found = quota::show(tx, &user_holder(project, user), &key(name), -1).await?;
        Ok(Some(found.limit).filter(|n| *n >= 0))
    }

    /// How much more a user may take in a project; `None`: without end.
    pub(crate) async fn room(&self, tx: &mut Tx, owner: (&str, &str), name: &str) -> Result<Option<i64>> {
        let of_project = self.quota(tx, owner.0, name).await?;
        let all = (of_project.limit >= 0).then(|| of_project.limit - of_project.used);
        let own = match self.user_limit(tx, owner, name).await? {
            Some(limit) => Some(limit - used_by(tx, owner, name).await?),
            None => None,
        };
        Ok(all.into_iter().chain(own).min())
    }

    /// Sets the limit of a project, or of one user in it; `None` returns to the default.
    pub(crate) async fn limit_set(
        &self,
        tx: &mut Tx,
        project: &str,
        user: Option<&str>,
        name: &str,
        limit: Option<i64>,
    ) -> Result<()> {
        let holder = user.map_or_else(|| project.to_owned(), |u| user_holder(project, u));
        quota::set(tx, &holder, &key(name), limit).await
    }

    /// Takes servers, cores and MiB; all may be negative to give back.
    pub(crate) async fn quota_change(
        &self,
        tx: &mut Tx,
        owner: (&str, &str),
        servers: i64,
        cores: i64,
        ram: i64,
    ) -> Result<()> {
        let set = set_limits(tx, [class_holder("default"), user_holder(owner.0, owner.1)]).await?;
        for (name, n) in COUNTED.into_iter().zip([servers, cores, ram]) {
            let key = key(name);
            if n <= 0 {
                quota::give_back(tx, owner.0, &key, -n).await?;
                continue;
            }
            let default = set[0].get(&key).copied().unwrap_or_else(|| self.configured(name));
            quota::take(tx, owner.0, &key, n, default).await?;
            let Some(limit) = set[1].get(&key).copied().filter(|l| *l >= 0) else {
                continue;
            };
            let used = used_by(tx, owner, name).await?;
            if used + n > limit {
                return Err(Error::new(
                    Kind::OverQuota,
                    format!(
                        "Quota exceeded for {name}: Requested {n}, but the user has already used {used} of {limit} {name} in this project."
                    ),
                ));
            }
        }
        Ok(())
    }

    /// 403 when a project's server may not have so much metadata.
    pub(crate) async fn check_metadata(
        &self,
        tx: &mut Tx,
        project: &str,
        items: &BTreeMap<String, String>,
    ) -> Result<()> {
        if items.is_empty() {
            return Ok(());
        }
        start_order(items)?;
        metadata_within(items.len(), self.limit(tx, project, "metadata_items").await?)
    }
}

/// The limits that were set for these two, by key, in one question.
async fn set_limits(tx: &mut Tx, holders: [String; 2]) -> Result<[HashMap<String, i64>; 2]> {
    let [first, second] = &holders;
    let rows = tx
        .rows(
            "SELECT project_id, resource, lim FROM quota WHERE project_id IN ($1, $2) AND lim IS NOT NULL",
            &[first.into(), second.into()],
        )
        .await?;
    let mut out: [HashMap<String, i64>; 2] = Default::default();
    for r in rows {
        let of = usize::from(r.str(0)? == *second);
        out[of].insert(r.str(1)?, r.i64(2)?);
    }
    Ok(out)
}

/// What counts as a user's in a project.
async fn used_by(tx: &mut Tx, (project, user): (&str, &str), name: &str) -> Result<i64> {
    let query = Query::new().eq("project_id", project).eq("user_id", user);
    let servers = tx.list::<Server>(&query).await?;
    Ok(servers
        .iter()
        .map(|s| match (name, counted(s)) {
            ("cores", (cores, _)) => cores,
            ("ram", (_, ram)) => ram,
            _ => 1,
        })
        .sum())
}
