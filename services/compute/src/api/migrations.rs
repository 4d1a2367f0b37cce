//! Migrations (Nova API reference, "Migrations"): the resizes and moves of servers. A server's own list is of the move
//! that is under way.

use super::actions::{find, one_key, unknown};
use super::input::only_query;
use crate::Compute;
use crate::logic::moving::{MoveWish, server_migration};
use crate::model::{ComputeService, Migration};
use crate::policy::{self, acts};
use haneul_auth::Target;
use haneul_core::{Error, Result, clock};
use haneul_http::{Page, Reply, Req, Ver};
use haneul_store::{Dir, Query, Stored, Tx};
use http::StatusCode;
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::sync::Arc;

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
    let to = hosts.and_then(|h| h.get(m.to_host_id.as_ref().unwrap_or(&m.host_id)));
    // Nova shows its own numbers of flavors; ours have the ids that people gave them, which often are numbers.
    let number = |flavor: &str| flavor.parse::<i64>().ok();
    let mut out = json!({
        "id": m.number, "instance_uuid": m.server_id, "status": m.status.as_str(),
        "source_compute": host, "source_node": host, "dest_compute": to, "dest_node": to, "dest_host": null,
        "old_instance_type_id": number(&m.from_flavor), "new_instance_type_id": number(&m.to_flavor),
        "created_at": clock::naive_micros(m.created_at), "updated_at": clock::naive_micros(m.updated_at),
    });
    let mut more = Map::new();
    if v >= Ver(2, 23) {
        more.insert("migration_type".into(), m.kind.as_str().into());
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
    if req.q_bool("hidden")?.unwrap_or(false) {
        return Ok(None);
    }
    if let Some(kind) = req.q("migration_type") {
        query = query.eq("kind", kind);
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
    let hosts = host_names(&mut tx).await?;
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

/// One that is under way, as a server's own list shows it.
fn view_own(m: &Stored<Migration>, v: Ver, hosts: &HashMap<String, String>) -> Value {
    let (host, to) = (hosts.get(&m.host_id), m.to_host_id.as_ref().and_then(|h| hosts.get(h)));
    let p = &m.progress;
    let mut out = json!({
        "id": m.number, "server_uuid": m.server_id, "status": m.status.as_str(),
        "source_compute": host, "source_node": host, "dest_compute": to, "dest_node": to, "dest_host": null,
        "memory_total_bytes": p.memory_total, "memory_processed_bytes": p.memory_done,
        "memory_remaining_bytes": p.memory_left, "disk_total_bytes": p.disk_total,
        "disk_processed_bytes": p.disk_done, "disk_remaining_bytes": p.disk_left,
        "created_at": clock::naive_micros(m.created_at), "updated_at": clock::naive_micros(m.updated_at),
    });
    let Some(all) = out.as_object_mut() else { return out };
    if v >= Ver(2, 59) {
        all.insert("uuid".into(), m.id.as_str().into());
    }
    if v >= Ver(2, 80) {
        all.insert("user_id".into(), m.user_id.as_str().into());
        all.insert("project_id".into(), m.project_id.as_str().into());
    }
    out
}

async fn host_names(tx: &mut Tx) -> Result<HashMap<String, String>> {
    let services = tx.list::<ComputeService>(&Query::new()).await?;
    Ok(services
        .iter()
        .map(|s| (s.host_id.clone(), s.host_name.clone()))
        .collect())
}

/// `GET /servers/{id}/migrations`
pub(crate) async fn of_server(app: Arc<Compute>, req: Req) -> Result<Reply> {
    let s = find(&app, req.ctx()?, acts::ServerMigrations, req.param("id")).await?;
    let mut tx = app.db.read().await?;
    let mut all = tx
        .list::<Migration>(&Query::new().eq("server_id", s.id.as_str()).order("number", Dir::Asc))
        .await?;
    all.retain(|m| m.is_under_way());
    let hosts = host_names(&mut tx).await?;
    let all: Vec<Value> = all.iter().map(|m| view_own(m, req.version, &hosts)).collect();
    Ok(Reply::ok(&json!({"migrations": all})))
}

/// `GET /servers/{id}/migrations/{migration}`
pub(crate) async fn of_server_one(app: Arc<Compute>, req: Req) -> Result<Reply> {
    let s = find(&app, req.ctx()?, acts::ServerMigrationShow, req.param("id")).await?;
    let mut tx = app.db.read().await?;
    let found = server_migration(&mut tx, &s.id, req.param("migration")).await?;
    let m = found.filter(|m| m.is_under_way()).ok_or_else(|| {
        Error::not_found(format!(
            "In-progress live migration {} is not found for server {}.",
            req.param("migration"),
            s.id
        ))
    })?;
    let hosts = host_names(&mut tx).await?;
    Ok(Reply::ok(&json!({"migration": view_own(&m, req.version, &hosts)})))
}

/// `POST /servers/{id}/migrations/{migration}/action`
pub(crate) async fn force_complete(app: Arc<Compute>, mut req: Req) -> Result<Reply> {
    find(&app, req.ctx()?, acts::ServerMigrationForce, req.param("id")).await?;
    let body = req.json().await?;
    match one_key(&body)? {
        ("force_complete", Value::Null) => {}
        ("force_complete", _) => {
            return Err(Error::field(
                "force_complete",
                "force_complete takes nothing: write null.",
            ));
        }
        (other, _) => return Err(unknown(other)),
    }
    tell(&app, &req, MoveWish::Force).await
}

/// `DELETE /servers/{id}/migrations/{migration}`
pub(crate) async fn abort(app: Arc<Compute>, req: Req) -> Result<Reply> {
    tell(&app, &req, MoveWish::Abort).await
}

async fn tell(app: &Arc<Compute>, req: &Req, what: MoveWish) -> Result<Reply> {
    app.move_told(req.ctx()?, req.param("id"), req.param("migration"), what)
        .await?;
    Ok(Reply::empty(StatusCode::ACCEPTED))
}
