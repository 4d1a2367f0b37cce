//! Usages (Placement API reference, "Resource provider usages", "Usages").

use super::known_query;
use crate::{Placement, policy};
use haneul_auth::{Target, fetch};
use haneul_core::{Error, Result};
use haneul_http::{Reply, Req, Ver};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;

pub async fn of_provider(app: Arc<Placement>, req: Req) -> Result<Reply> {
    let mut tx = app.db.read().await?;
    let p = fetch(&mut tx, req.ctx()?, policy::Usages, req.param("uuid")).await?;
    let all = app.inventories(&mut tx, &p.uuid).await?;
    let usages: BTreeMap<&str, i64> = all.iter().map(|(c, (_, used))| (c.as_str(), *used)).collect();
    Ok(Reply::ok(
        &json!({"resource_provider_generation": p.provider_generation, "usages": usages}),
    ))
}

pub async fn of_project(app: Arc<Placement>, req: Req) -> Result<Reply> {
    let project = req.q("project_id").unwrap_or_default();
    req.ctx()?.enforce("placement:usages", &Target::project(project))?;
    known_query(&req, &[("project_id", Ver(1, 9)), ("user_id", Ver(1, 9))])?;
    if project.is_empty() {
        return Err(Error::field(
            "project_id",
            "Invalid query string parameters: 'project_id' is a required property",
        ));
    }
    let mut tx = app.db.read().await?;
    let user = req.q("user_id");
    let mut sql = "SELECT a.class, CAST(SUM(a.amount) AS BIGINT) FROM placement_allocation a
                   JOIN placement_consumer c ON c.id = a.consumer_id WHERE c.project_id = $1"
        .to_owned();
    let mut args = vec![project.into()];
    if let Some(u) = user {
        sql.push_str(" AND c.user_id = $2");
        args.push(u.into());
    }
    sql.push_str(" GROUP BY a.class ORDER BY a.class");
    let usages: BTreeMap<String, i64> = tx
        .rows(&sql, &args)
        .await?
        .iter()
        .map(|r| Ok((r.str(0)?, r.i64(1)?)))
        .collect::<Result<_>>()?;
    Ok(Reply::ok(&json!({"usages": usages})))
}
