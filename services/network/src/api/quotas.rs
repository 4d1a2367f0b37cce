//! `/v2.0/quotas`.

use crate::Network;
use crate::err::{bad, not_found};
use crate::logic::quotas::TABLE;
use haneul_auth::quota::{self, Quota};
use haneul_auth::{Ctx, Target};
use haneul_core::{Error, Result};
use haneul_http::{Reply, Req, fields};
use haneul_store::Tx;
use serde_json::{Map, Value, json};
use std::sync::Arc;

fn may(ctx: &Ctx, rule: &str, project: &str) -> Result<()> {
    if ctx.may(rule, &Target::project(project)) {
        return Ok(());
    }
    Err(Error::forbidden(
        "User does not have admin privileges: Only admin is authorized to access quotas for another tenant.",
    )
    .with_code("AdminRequired"))
}

async fn read(tx: &mut Tx, project: &str) -> Result<Vec<(&'static str, Quota)>> {
    let mut out = Vec::new();
    for (name, stored, default) in TABLE {
        out.push((*name, quota::show(tx, project, stored, *default).await?));
    }
    Ok(out)
}

fn limits(quotas: &[(&'static str, Quota)]) -> Map<String, Value> {
    quotas.iter().map(|(n, q)| ((*n).to_owned(), q.limit.into())).collect()
}

/// `GET /v2.0/quotas`: projects with limits of their own.
pub async fn index(app: Arc<Network>, req: Req) -> Result<Reply> {
    let ctx = req.ctx()?.clone();
    if !ctx.may("update_quota", &Target::default()) {
        return Err(
            Error::forbidden("User does not have admin privileges: Only admin can view all quotas.")
                .with_code("AdminRequired"),
        );
    }
    let mut tx = app.db.read().await?;
    let rows = tx
        .rows(
            "SELECT DISTINCT project_id FROM quota WHERE lim IS NOT NULL AND resource >= 'network.' AND resource < 'network/' ORDER BY project_id",
            &[],
        )
        .await?;
    let mut out = Vec::new();
    for r in rows {
        let project = r.str(0)?;
        let mut q = limits(&read(&mut tx, &project).await?);
        q.insert("project_id".into(), project.as_str().into());
        q.insert("tenant_id".into(), project.into());
        out.push(q);
    }
    Ok(Reply::ok(&json!({"quotas": out})))
}

/// `GET /v2.0/quotas/{project}`; `tenant` and `project` ask who one is.
pub async fn show(app: Arc<Network>, req: Req) -> Result<Reply> {
    let ctx = req.ctx()?.clone();
    let project = super::id(&req);
    if project == "tenant" || project == "project" {
        let who = format!("{project}_id");
        return Ok(Reply::ok(&json!({ project: { who: ctx.project_id() } })));
    }
    may(&ctx, "get_quota", project)?;
    let mut tx = app.db.read().await?;
    Ok(Reply::ok(&json!({"quota": limits(&read(&mut tx, project).await?)})))
}

/// `GET /v2.0/quotas/{project}/default`
pub async fn default(_app: Arc<Network>, req: Req) -> Result<Reply> {
    let ctx = req.ctx()?.clone();
    may(&ctx, "get_quota", super::id(&req))?;
    let quota: Map<String, Value> = TABLE.iter().map(|(n, _, d)| ((*n).to_owned(), (*d).into())).collect();
    Ok(Reply::ok(&json!({"quota": quota})))
}

/// `GET /v2.0/quotas/{project}/details`
pub async fn details(app: Arc<Network>, req: Req) -> Result<Reply> {
    let ctx = req.ctx()?.clone();
    let project = super::id(&req);
    may(&ctx, "get_quota", project)?;
    let mut tx = app.db.read().await?;
    let quota: Map<String, Value> = read(&mut tx, project)
        .await?
        .iter()
        .map(|(n, q)| {
            (
                (*n).to_owned(),
                json!({"limit": q.limit, "used": q.used, "reserved": 0}),
            )
        })
        .collect();
    Ok(Reply::ok(&json!({"quota": quota})))
}

/// `PUT /v2.0/quotas/{project}`
pub async fn update(app: Arc<Network>, mut req: Req) -> Result<Reply> {
    let ctx = req.ctx()?.clone();
    let project = super::id(&req).to_owned();
    may(&ctx, "update_quota", &project)?;
    let body = req.json().await?;
    let Some(object) = body.get("quota").and_then(Value::as_object) else {
        return Err(bad(
            "HTTPBadRequest",
            "quota",
            "Unable to find 'quota' in request body: write {\"quota\": {\"network\": 10}}.",
        ));
    };
    let mut wanted = Vec::new();
    let mut force = false;
    for (name, value) in object {
        match name.as_str() {
            "tenant_id" | "project_id" => continue,
            "force" | "check_limit" => {
                force |= name == "force" && fields::boolean(value) == Some(true);
                continue;
            }
            _ => {}
        }
        let Some((_, stored, default)) = TABLE.iter().find(|(n, ..)| n == name) else {
            let known: Vec<&str> = TABLE.iter().map(|(n, ..)| *n).collect();
            return Err(bad(
                "HTTPBadRequest",
                name,
                format!(
                    "Unrecognized attribute(s) '{name}'. There are quotas for {}.",
                    known.join(", ")
                ),
            ));
        };
        match fields::int(value).filter(|n| *n >= -1 && *n <= i64::from(i32::MAX)) {
            Some(n) => wanted.push((*stored, *default, n)),
            None => {
                return Err(bad(
                    "HTTPBadRequest",
                    name,
                    format!(
                        "Invalid input for {name}. Reason: '{value}' is not an integer from -1 (unlimited) to {}.",
                        i32::MAX
                    ),
                ));
            }
        }
    }
    let check = !force && object.get("check_limit").and_then(fields::boolean) == Some(true);
    let actor = ctx.actor();
    let quota = app
        .db
        .write(&actor, async move |tx| {
            for (stored, default, n) in &wanted {
                if check && *n >= 0 {
                    let q = quota::show(tx, &project, stored, *default).await?;
                    if q.used > *n {
                        let name = stored.rsplit('.').next().unwrap_or(stored);
                        return Err(bad(
                            "HTTPBadRequest",
                            name,
                            format!("Change would make usage of {name} ({}) exceed the limit {n}. Free {} or choose at least {}.", q.used, q.used - n, q.used),
                        ));
                    }
                }
                quota::set(tx, &project, stored, Some(*n)).await?;
            }
            Ok(limits(&read(tx, &project).await?))
        })
        .await?;
    Ok(Reply::ok(&json!({"quota": quota})))
}

/// `DELETE /v2.0/quotas/{project}`: back to the defaults.
pub async fn delete(app: Arc<Network>, req: Req) -> Result<Reply> {
    let ctx = req.ctx()?.clone();
    let project = super::id(&req).to_owned();
    may(&ctx, "delete_quota", &project)?;
    let actor = ctx.actor();
    app.db
        .write(&actor, async move |tx| {
            let mut own = false;
            for (_, stored, default) in TABLE {
                own |= quota::show(tx, &project, stored, *default).await?.own;
                quota::set(tx, &project, stored, None).await?;
            }
            if !own {
                return Err(not_found(
                    "TenantQuotaNotFound",
                    format!("Quota for tenant {project} could not be found."),
                ));
            }
            Ok(())
        })
        .await?;
    Ok(Reply::no_content())
}
