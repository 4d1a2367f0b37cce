//! The change log for people and for auditors: who did what, as rows and as CADF events (DMTF DSP0262).

use crate::serve::App;
use haneul_core::{Error, Result, clock};
use haneul_store::{Change, Dir, Query};
use serde_json::{Value, json};
use std::collections::HashMap;

/// Rows of one answer at the most.
const MAX: i64 = 10_000;
/// Parameters that are columns of the log as well.
const COLUMNS: [&str; 6] = ["actor", "project_id", "kind", "id", "request_id", "operation"];

/// Answers a query: the newest rows in the log's order or, with `since`, those after that sequence number.
pub async fn read(app: &App, q: &HashMap<String, String>) -> Result<Value> {
    let number = |name: &str| -> Result<Option<i64>> {
        let wrong = |_| Error::field(name, format!("{name} must be a whole number."));
        q.get(name).map(|v| v.parse().map_err(wrong)).transpose()
    };
    let mut query = Query::new();
    for column in COLUMNS {
        if let Some(v) = q.get(column) {
            query = query.eq(column, v.as_str());
        }
    }
    let since = number("since")?;
    if let Some(since) = since {
        query = query.gt("sequence", since);
    }
    let order = if since.is_some() { Dir::Asc } else { Dir::Desc };
    let limit = number("limit")?.unwrap_or(100).clamp(1, MAX);
    let mut tx = app.db.read().await?;
    let mut rows = haneul_store::changes(&mut tx, &query.order("sequence", order).limit(limit)).await?;
    if order == Dir::Desc {
        rows.reverse();
    }
    let mut names = HashMap::new();
    for row in &rows {
        if !names.contains_key(&row.actor) {
            let name = app.identity.user(&mut tx, &row.actor).await?.map(|u| u.value.name);
            names.insert(row.actor.clone(), name);
        }
    }
    drop(tx);
    let name = |c: &Change| names.get(&c.actor).cloned().flatten();
    if q.get("format").map(String::as_str) == Some("cadf") {
        let cloud = app.fleet.cloud_id().to_string();
        let events: Vec<Value> = rows.iter().map(|c| event(&cloud, c, name(c).as_deref())).collect();
        return Ok(json!({"typeURI": "http://schemas.dmtf.org/cloud/audit/1.0/log", "events": events}));
    }
    let rows: Vec<Value> = rows
        .iter()
        .map(|c| {
            json!({
                "sequence": c.sequence, "time": clock::iso_micros(c.time), "project_id": c.project_id, "kind": c.kind,
                "id": c.id, "generation": c.generation, "actor": c.actor, "actor_name": name(c),
                "request_id": c.request_id, "operation": c.operation, "state": c.state,
            })
        })
        .collect();
    Ok(json!({"changes": rows}))
}

/// One change as a CADF event. The log has what was done: every outcome is a success.
fn event(cloud: &str, c: &Change, name: Option<&str>) -> Value {
    // A host, a job or the operator at the socket acts with the cloud's own authority.
    let who = match name {
        Some(_) => "service/security/account/user",
        None if c.actor.starts_with("agent:") => "service/compute/agent",
        None => "service/security/account",
    };
    let mut initiator = json!({"id": c.actor, "typeURI": who, "name": name.unwrap_or(&c.actor)});
    if let (Some(map), Some(project)) = (initiator.as_object_mut(), &c.project_id) {
        map.insert("project_id".into(), project.as_str().into());
    }
    json!({
        "typeURI": "http://schemas.dmtf.org/cloud/audit/1.0/event",
        "id": format!("{cloud}/{}", c.sequence),
        "eventType": "activity",
        "eventTime": format!("{}+00:00", clock::iso_micros(c.time)),
        "action": c.operation,
        "outcome": "success",
        "initiator": initiator,
        "target": {"id": c.id, "typeURI": target(&c.kind), "name": c.state.get("name").and_then(Value::as_str).unwrap_or(&c.kind)},
        "observer": {"id": cloud, "typeURI": "service/security", "name": "haneul"},
        "tags": [format!("request_id?value={}", c.request_id), format!("generation?value={}", c.generation)],
    })
}

/// CADF's resource taxonomy has four roots; what is below is ours, with the kind's own name.
fn target(kind: &str) -> String {
    let class = match kind {
        "server" | "server_group" | "flavor" | "keypair" | "compute_service" | "host" | "resource_provider" => {
            "compute"
        }
        "image" | "image_member" | "image_task" => "storage",
        "port" | "network" | "subnet" | "router" | "floatingip" | "security_group" | "security_group_rule" => "network",
        _ if kind.starts_with("metadef") => "storage",
        _ => "data/security",
    };
    format!("{class}/{kind}")
}
