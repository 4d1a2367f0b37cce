//! What the enforcement model of limits says of them (keystone/limit/models). Services enforce limits, not identity:
//! `flat` looks at no hierarchy; in `strict_two_level` a project's limit is within that of its domain.

use crate::model::{Limit, Project, RegisteredLimit};
use crate::store::subtree;
use haneul_core::{Error, Result};
use haneul_store::{Query, Tx};

/// Name and description of each model.
pub(crate) const MODELS: [(&str, &str); 2] = [
    (
        "flat",
        "Limit enforcement and validation does not take project hierarchy into consideration.",
    ),
    (
        STRICT,
        "This model requires project hierarchy never exceeds a depth of two",
    ),
];
pub(crate) const STRICT: &str = "strict_two_level";

fn level(l: &Limit) -> (&'static str, &str) {
    match (&l.project_id, &l.domain_id) {
        (Some(p), _) => ("project_id", p),
        (None, d) => ("domain_id", d.as_deref().unwrap_or_default()),
    }
}

fn refused(l: &Limit, why: impl std::fmt::Display) -> Error {
    let (what, id) = level(l);
    Error::forbidden(format!(
        "Invalid resource limit: The resource limit ({what}: {id}, resource_name: {}, resource_limit: {}, service_id: {}, region_id: {}) doesn't satisfy current hierarchy model: {why}.",
        l.resource_name,
        l.resource_limit,
        l.service_id,
        l.region_id.as_deref().unwrap_or("None"),
    ))
}

/// Whether `a` lets more than `b`. -1 is no limit.
fn more(a: i64, b: i64) -> bool {
    b >= 0 && (a < 0 || a > b)
}

async fn own(tx: &mut Tx, l: &Limit, target: &str) -> Result<Option<i64>> {
    let query = Query::new()
        .eq("registered_limit_id", l.registered_limit_id.as_str())
        .eq("target_id", target);
    Ok(tx.list::<Limit>(&query).await?.first().map(|l| l.resource_limit))
}

/// Refuses a limit that does not satisfy the model `strict_two_level`, in a transaction in which all that were asked for
/// stand already.
pub(crate) async fn check_strict(tx: &mut Tx, l: &Limit) -> Result<()> {
    if let Some(id) = &l.project_id {
        let Some(project) = tx.find::<Project>(id).await? else {
            return Ok(());
        };
        let default = tx.find::<RegisteredLimit>(&l.registered_limit_id).await?;
        let above = match own(tx, l, &project.parent_id).await? {
            Some(n) => Some(n),
            None => default.map(|r| r.default_limit),
        };
        return match above {
            Some(n) if more(l.resource_limit, n) => Err(refused(l, format_args!("its parent has {n}"))),
            _ => Ok(()),
        };
    }
    let domain = l.domain_id.as_deref().unwrap_or_default();
    for p in subtree(tx, domain).await? {
        if let Some(n) = own(tx, l, &p.id).await?
            && more(n, l.resource_limit)
        {
            return Err(refused(l, format_args!("project {} in it has {n}", p.id)));
        }
    }
    Ok(())
}
