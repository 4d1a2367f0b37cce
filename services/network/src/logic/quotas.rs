//! Quotas by Neutron's names and defaults. Ports, groups and rules that the cloud itself makes count, but are
//! never refused.

use haneul_core::Result;
use haneul_store::Tx;

/// Resource as the API names it, the store's name, the default limit.
pub(crate) const TABLE: &[(&str, &str, i64)] = &[
    ("network", "network.network", 100),
    ("subnet", "network.subnet", 100),
    ("port", "network.port", 500),
    ("router", "network.router", 10),
    ("floatingip", "network.floatingip", 50),
    ("security_group", "network.security_group", 10),
    ("security_group_rule", "network.security_group_rule", 100),
];

fn entry(resource: &str) -> (&'static str, i64) {
    TABLE
        .iter()
        .find(|(name, ..)| *name == resource)
        .map_or(("network.unknown", -1), |(_, stored, default)| (*stored, *default))
}

/// Takes one, or refuses with limit, used and asked.
pub(crate) async fn take(tx: &mut Tx, project: &str, resource: &str, n: i64) -> Result<()> {
    let (stored, default) = entry(resource);
    if project.is_empty() {
        return Ok(());
    }
    haneul_auth::quota::take(tx, project, stored, n, default).await
}

/// Counts without a limit: what the cloud itself makes.
pub(crate) async fn count(tx: &mut Tx, project: &str, resource: &str, n: i64) -> Result<()> {
    let (stored, _) = entry(resource);
    if project.is_empty() {
        return Ok(());
    }
    haneul_auth::quota::count(tx, project, stored, n).await
}

/// Gives back.
pub(crate) async fn give_back(tx: &mut Tx, project: &str, resource: &str, n: i64) -> Result<()> {
    let (stored, _) = entry(resource);
    if project.is_empty() {
        return Ok(());
    }
    haneul_auth::quota::give_back(tx, project, stored, n).await
}
