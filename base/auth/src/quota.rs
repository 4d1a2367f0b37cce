//! Quotas: what a project has used is counted in the transaction of the rows that it counts.

use haneul_core::{Error, Kind, Result};
use haneul_store::{Migration, Tx};

/// Tables.
pub const MIGRATIONS: &[Migration] = &[Migration {
    owner: "quota",
    number: 1,
    sql: "CREATE TABLE quota(project_id TEXT NOT NULL, resource TEXT NOT NULL, used BIGINT NOT NULL,
              lim BIGINT, PRIMARY KEY(project_id, resource))",
}];

/// A quota as shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// -1: unlimited.
    pub limit: i64,
    pub used: i64,
    /// Whether the limit was set for this project.
    pub own: bool,
}

/// Takes `n` of `resource` (e.g. `compute.instances`) for the project, or refuses with limit, used and
/// asked. `default` is the limit of projects that have none of their own.
pub async fn take(tx: &mut Tx, project: &str, resource: &str, n: i64, default: i64) -> Result<()> {
    if n == 0 {
        return Ok(());
    }
    let taken = tx
        .exec(
            "UPDATE quota SET used = used + $3 WHERE project_id = $1 AND resource = $2
               AND (COALESCE(lim, $4) < 0 OR used + $3 <= COALESCE(lim, $4))",
            &[project.into(), resource.into(), n.into(), default.into()],
        )
        .await?;
    if taken == 1 {
        return Ok(());
    }
    if default < 0 || n <= default {
        let first = tx
            .exec(
                "INSERT INTO quota(project_id, resource, used) VALUES($1, $2, $3) ON CONFLICT DO NOTHING",
                &[project.into(), resource.into(), n.into()],
            )
            .await?;
        if first == 1 {
            return Ok(());
        }
    }
    let q = show(tx, project, resource, default).await?;
    let name = resource.rsplit('.').next().unwrap_or(resource);
    Err(Error::new(
        Kind::OverQuota,
        format!(
            "Quota exceeded for {name}: Requested {n}, but already used {} of {} {name}. {} more would have to be freed, or the limit raised to at least {}.",
            q.used,
            q.limit,
            (q.used + n - q.limit).max(0),
            q.used + n
        ),
    )
    .with_code("OverQuota")
    .with_details(serde_json::json!({"resource": name, "limit": q.limit, "used": q.used, "asked": n})))
}

/// Counts `n` without a limit: what the cloud itself makes for a project (a default security group, a service
/// port). [`give_back`] takes it off again.
pub async fn count(tx: &mut Tx, project: &str, resource: &str, n: i64) -> Result<()> {
    tx.exec(
        "INSERT INTO quota(project_id, resource, used) VALUES($1, $2, $3)
         ON CONFLICT(project_id, resource) DO UPDATE SET used = quota.used + excluded.used",
        &[project.into(), resource.into(), n.into()],
    )
    .await?;
    Ok(())
}

/// Gives `n` back.
pub async fn give_back(tx: &mut Tx, project: &str, resource: &str, n: i64) -> Result<()> {
    if n == 0 {
        return Ok(());
    }
    tx.exec(
        "UPDATE quota SET used = CASE WHEN used > $3 THEN used - $3 ELSE 0 END WHERE project_id = $1 AND resource = $2",
        &[project.into(), resource.into(), n.into()],
    )
    .await?;
    Ok(())
}

/// One quota.
pub async fn show(tx: &mut Tx, project: &str, resource: &str, default: i64) -> Result<Quota> {
    let row = tx
        .row(
            "SELECT used, lim FROM quota WHERE project_id = $1 AND resource = $2",
            &[project.into(), resource.into()],
        )
        .await?;
    Ok(match row {
        Some(r) => {
            let own = r.opt_i64(1)?;
            Quota {
                limit: own.unwrap_or(default),
                used: r.i64(0)?,
                own: own.is_some(),
            }
        }
        None => Quota {
            limit: default,
            used: 0,
            own: false,
        },
    })
}

/// Sets the project's own limit; `None` returns to the default.
pub async fn set(tx: &mut Tx, project: &str, resource: &str, limit: Option<i64>) -> Result<()> {
    tx.exec(
        "INSERT INTO quota(project_id, resource, used, lim) VALUES($1, $2, 0, $3)
         ON CONFLICT(project_id, resource) DO UPDATE SET lim = excluded.lim",
        &[project.into(), resource.into(), limit.into()],
    )
    .await?;
    Ok(())
}
