//! Usages (Placement API reference, "Resource provider usages", "Usages").

use super::allocations::is_name;
use super::{cached, json_only, known_query};
use crate::{Placement, policy};
use haneul_auth::{Target, fetch};
use haneul_core::{Error, Result, clock};
use haneul_http::{Reply, Req, Ver};
use haneul_store::{Tx, V};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

pub async fn of_provider(app: Arc<Placement>, req: Req) -> Result<Reply> {
    json_only(&req)?;
    let mut tx = app.db.read().await?;
    let p = fetch(&mut tx, req.ctx()?, policy::Usages, req.param("uuid")).await?;
    let all = app.inventories(&mut tx, &p.uuid).await?;
    let usages: BTreeMap<&str, i64> = all.iter().map(|(c, (_, used))| (c.as_str(), *used)).collect();
    let v = json!({"resource_provider_generation": p.provider_generation, "usages": usages});
    Ok(cached(&req, Reply::ok(&v), clock::now()))
}

/// All types of consumers together, and those whose type nobody said.
const ALL: &str = "all";
const UNKNOWN: &str = "unknown";

pub async fn of_project(app: Arc<Placement>, req: Req) -> Result<Reply> {
    let project = req.q("project_id").unwrap_or_default();
    req.ctx()?.enforce("placement:usages", &Target::project(project))?;
    json_only(&req)?;
    known_query(
        &req,
        &[
            ("project_id", Ver(1, 9)),
            ("user_id", Ver(1, 9)),
            ("consumer_type", Ver(1, 38)),
        ],
    )?;
    let bad = |name: &str, why: String| Error::field(name, format!("Invalid query string parameters: {why}"));
    if req.q("project_id").is_none() {
        return Err(bad("project_id", "'project_id' is a required property".into()));
    }
    for name in ["project_id", "user_id", "consumer_type"] {
        match req.q(name).map(|v| v.chars().count()) {
            Some(0) => {
                let why = format!("{name}: '' is too short, should be non-empty. Failed validating 'minLength'");
                return Err(bad(name, why));
            }
            Some(256..) => {
                let why = format!("{name} is too long: at most 255 characters. Failed validating 'maxLength'");
                return Err(bad(name, why));
            }
            _ => {}
        }
    }
    let kind = req.q("consumer_type");
    if let Some(k) = kind.filter(|k| !is_name(k) && *k != ALL && *k != UNKNOWN) {
        let why = format!("'{k}' does not match '^[A-Z0-9_]+$|^all|^unknown$'. Failed validating 'pattern'");
        return Err(bad("consumer_type", why));
    }
    let mut filter = "c.project_id = $1".to_owned();
    let mut args: Vec<V> = vec![project.into()];
    if let Some(u) = req.q("user_id") {
        args.push(u.into());
        filter.push_str(&format!(" AND c.user_id = ${}", args.len()));
    }
    let mut tx = app.db.read().await?;
    let usages = if req.version < Ver(1, 38) {
        Value::Object(
            sums(&mut tx, "'all'", &filter, &args)
                .await?
                .remove(ALL)
                .unwrap_or_default(),
        )
    } else {
        if let Some(k) = kind.filter(|k| *k != ALL) {
            args.push(k.into());
            filter.push_str(&format!(" AND c.type = ${}", args.len()));
        }
        let by = if kind == Some(ALL) { "'all'" } else { "c.type" };
        let mut sums = sums(&mut tx, by, &filter, &args).await?;
        let sql = format!("SELECT {by}, COUNT(DISTINCT c.id) FROM {HOLDERS} WHERE {filter} GROUP BY {by}");
        let sql = if by == "c.type" {
            sql
        } else {
            sql.replace(" GROUP BY 'all'", "")
        };
        for r in tx.rows(&sql, &args).await? {
            if let Some(one) = sums.get_mut(&r.str(0)?) {
                one.insert("consumer_count".into(), r.i64(1)?.into());
            }
        }
        json!(sums)
    };
    Ok(cached(&req, Reply::ok(&json!({ "usages": usages })), clock::now()))
}

const HOLDERS: &str = "placement_allocation a JOIN placement_consumer c ON c.id = a.consumer_id";

/// Sums by `by` (an expression) and class.
async fn sums(tx: &mut Tx, by: &str, filter: &str, args: &[V]) -> Result<BTreeMap<String, Map<String, Value>>> {
    let group = if by == "c.type" { "c.type, a.class" } else { "a.class" };
    let sql = format!(
        "SELECT {by}, a.class, CAST(SUM(a.amount) AS BIGINT) FROM {HOLDERS} WHERE {filter} GROUP BY {group} ORDER BY a.class"
    );
    let mut out: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
    for r in tx.rows(&sql, args).await? {
        out.entry(r.str(0)?).or_default().insert(r.str(1)?, r.i64(2)?.into());
    }
    Ok(out)
}
