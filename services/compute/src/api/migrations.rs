//! Migrations (Nova API reference, "Migrations"): the resizes of servers. None is live, so a server's own list, which is
//! of live ones, is empty.

use super::actions::find;
use super::input::only_query;
use crate::Compute;
use crate::model::{ComputeService, Migration};
use crate::policy::{self, acts};
use haneul_auth::Target;
use haneul_core::{Error, Result, clock};
use haneul_http::{Page, Reply, Req, Ver};
use haneul_store::{Dir, Query, Stored};
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::sync::Arc;

const KIND: &str = "resize";
const QUERY: &[&str] = &[
    "hidden",
    "host",
    "instance_uuid",
    "source_compute",
    "status",
    "migration_type",
    "limit",
    "marker",
    "changes-since",
    "changes-before",
    "user_id",
    "project_id",
];

/// `hosts`: names by id, for who may know them.
fn view(m: &Stored<Migration>, v: Ver, hosts: Option<&HashMap<String, String>>) -> Value {
    let host = hosts.and_then(|h| h.get(&m.host_id));
    // Nova shows its own numbers of flavors; ours have the ids that people gave them, which often are numbers.
    let number = |flavor: &str| flavor.parse::<i64>().ok();
    let mut out = json!({
        "id": m.number, "instance_uuid": m.server_id, "status": m.status.as_str(),
        "source_compute": host, "source_node": host, "dest_compute": host, "dest_node": host, "dest_host": null,
        "old_instance_type_id": number(&m.from_flavor), "new_instance_type_id": number(&m.to_flavor),
        "created_at": clock::naive_micros(m.created_at), "updated_at": clock::naive_micros(m.updated_at),
    });
    let mut more = Map::new();
    if v >= Ver(2, 23) {
        more.insert("migration_type".into(), KIND.into());
    }
    if v >= Ver(2, 59) {
        more.insert("uuid".into(), m.id.as_str().into());
    }
    if v >= Ver(2, 80) {
        more.insert("user_id".into(), m.user_id.as_str().into());
        more.insert("project_id".into(), m.project_id.as_str().into());
    }
    if let Some(all) = out.as_object_mut() {
        all.extend(more);
    }
    out
}

/// The list's filters. `None`: nothing fits.
fn filters(req: &Req, hosts: &HashMap<String, String>) -> Result<Option<Query>> {
    let v = req.version;
    let mut query = Query::new();
    for (name, column) in [
        ("instance_uuid", "server_id"),
        ("status", "status"),
        ("user_id", "user_id"),
        ("project_id", "project_id"),
    ] {
        if let Some(value) = req.q(name) {
            query = query.eq(column, value);
        }
    }
    for name in ["host", "source_compute"] {
        if let Some(value) = req.q(name) {
            let Some((id, _)) = hosts.iter().find(|(_, host)| *host == value) else {
                return Ok(None);
            };
            query = query.eq("host_id", id.as_str());
        }
    }
    if req.q("migration_type").is_some_and(|t| t != KIND) || req.q_bool("hidden")?.unwrap_or(false) {
        return Ok(None);
    }
    let time = |name: &str, since: Ver| {
        req.q(name)
            .filter(|_| v >= since)
            .map(|t| clock::parse(t).ok_or_else(|| Error::field(name, format!("Invalid input for query parameters {name}. Value: {t}. It must be a date and time in ISO 8601."))))
            .transpose()
    };
    let (since, before) = (time("changes-since", Ver(2, 59))?, time("changes-before", Ver(2, 66))?);
    if let (Some(s), Some(b)) = (since, before)
        && b < s
    {
        return Err(Error::field(
            "changes-since",
            "The value of changes-since must be less than or equal to changes-before.",
        ));
    }
    if let Some(s) = since {
        query = query.ge("updated_at", s);
    }
    if let Some(b) = before {
        query = query.le("updated_at", b);
    }
    Ok(Some(query))
}

/// `GET /os-migrations`
pub(crate) async fn index(app: Arc<Compute>, req: Req) -> Result<Reply> {
    let (v, ctx) = (req.version, req.ctx()?);
    let own = Target::own(ctx);
    ctx.enforce(policy::MIGRATIONS_LIST, &own)?;
    if req.q("project_id").is_none_or(|p| p != ctx.project_id()) {
        ctx.enforce(policy::MIGRATIONS_ALL, &own)?;
    }
    only_query(&req, Ver(2, 59), QUERY)?;
    let mut tx = app.db.read().await?;
    let services = tx.list::<ComputeService>(&Query::new()).await?;
    let hosts: HashMap<String, String> = services
        .iter()
        .map(|s| (s.host_id.clone(), s.host_name.clone()))
        .collect();
    let Some(query) = filters(&req, &hosts)? else {
        return Ok(Reply::ok(&json!({"migrations": []})));
    };
    let mut query = query.order("created_at", Dir::Desc).order("number", Dir::Desc);
    let page = if v >= Ver(2, 59) { Some(Page::of(&req)?) } else { None };
    if let Some(p) = &page {
        if let Some(marker) = &p.marker {
            let at = tx
                .find::<Migration>(marker)
                .await?
                .ok_or_else(|| Error::field("marker", format!("Marker {marker} could not be found.")))?;
            query = query.after(vec![at.created_at.into(), at.number.into()]);
        }
        query = query.limit(p.fetch());
    }
    let mut rows = tx.list::<Migration>(&query).await?;
    let more = page.as_ref().is_some_and(|p| p.cut(&mut rows));
    let hosts = ctx.may(policy::MIGRATIONS_HOST, &own).then_some(&hosts);
    let mut body = json!({"migrations": rows.iter().map(|m| view(m, v, hosts)).collect::<Vec<_>>()});
    if let (true, Some(last)) = (more, rows.last()) {
        body["migrations_links"] = Page::next_link(&req, "/v2.1/os-migrations", &last.id);
    }
    Ok(Reply::ok(&body))
}

/// `GET /servers/{id}/migrations`
pub(crate) async fn of_server(app: Arc<Compute>, req: Req) -> Result<Reply> {
    find(&app, req.ctx()?, acts::ServerMigrations, req.param("id")).await?;
    Ok(Reply::ok(&json!({"migrations": []})))
}

/// `GET /servers/{id}/migrations/{migration}`
pub(crate) async fn of_server_one(app: Arc<Compute>, req: Req) -> Result<Reply> {
    let s = find(&app, req.ctx()?, acts::ServerMigrationShow, req.param("id")).await?;
    Err(Error::not_found(format!(
        "In-progress live migration {} is not found for server {}.",
        req.param("migration"),
        s.id
    )))
}
