//! What was done to a server, by whom (Nova API reference, "Servers actions log"). Read off the change log
//! and the jobs; nothing is written for it, and it outlives the server.

use super::input::check_query;
use crate::Compute;
use crate::model::Server;
use crate::policy::{self, acts};
use haneul_auth::{Ctx, Secured, authorize};
use haneul_core::{Error, Result, clock};
use haneul_http::{Page, Reply, Req, Ver};
use haneul_jobs::Job;
use haneul_store::{Stored, Tx};
use serde_json::{Value, json};
use std::sync::Arc;

struct Act {
    name: String,
    request_id: String,
    user: String,
    project: String,
    start: i64,
    updated: i64,
    job: Option<Job>,
}

/// The server, also after its end (since 2.21): the log keeps its last state.
async fn server(tx: &mut Tx, ctx: &Ctx, v: Ver, id: &str) -> Result<Stored<Server>> {
    if let Some(s) = tx.find::<Server>(id).await? {
        let seen = authorize(ctx, acts::Actions, s, id)?;
        return Ok(Stored::clone(&seen));
    }
    let missing = || Server::not_found(id);
    if v < Ver(2, 21) {
        return Err(missing());
    }
    let row = tx
        .row(
            "SELECT state, generation, time FROM change_log WHERE id = $1 AND kind = 'server' ORDER BY sequence DESC LIMIT 1",
            &[id.into()],
        )
        .await?
        .ok_or_else(missing)?;
    let value: Server = serde_json::from_str(&row.str(0)?).map_err(|_| missing())?;
    let stored = Stored {
        value,
        generation: row.i64(1)?,
        created_at: row.i64(2)?,
        updated_at: row.i64(2)?,
    };
    let seen = authorize(ctx, acts::Actions, stored, id)?;
    Ok(Stored::clone(&seen))
}

/// Newest first.
async fn actions(app: &Compute, tx: &mut Tx, s: &Server) -> Result<Vec<Act>> {
    let rows = tx
        .rows(
            "SELECT time, request_id, actor, operation, state FROM change_log WHERE id = $1 AND kind = 'server' ORDER BY sequence",
            &[s.id.as_str().into()],
        )
        .await?;
    let jobs = app.jobs.history(tx, ("server", &s.id)).await?;
    let mut out: Vec<Act> = Vec::new();
    for r in rows {
        let (time, request_id, actor, operation) = (r.i64(0)?, r.str(1)?, r.str(2)?, r.str(3)?);
        if actor.starts_with("system:") || actor.starts_with("agent:") || request_id.is_empty() {
            continue;
        }
        let state: Value = serde_json::from_str(&r.str(4)?)?;
        let of = |k: &str| state.get(k).and_then(Value::as_str).unwrap_or_default().to_owned();
        // A delete that had nothing to wait for is only its row's end.
        let name = if operation == "delete" {
            "delete".into()
        } else {
            of("action")
        };
        if operation != "delete" && of("action_request") != request_id {
            continue;
        }
        if out.iter().any(|a| a.request_id == request_id) {
            continue;
        }
        let job = jobs.iter().find(|j| j.actor.request_id == request_id).cloned();
        out.push(Act {
            name,
            user: actor,
            project: s.project_id.clone(),
            start: time,
            updated: job.as_ref().map_or(time, |j| j.updated_at),
            request_id,
            job,
        });
    }
    out.reverse();
    Ok(out)
}

fn view(a: &Act, id: &str, v: Ver) -> Value {
    let failed = a.job.as_ref().is_some_and(|j| j.status == "error");
    let mut out = json!({
        "action": a.name, "instance_uuid": id, "request_id": a.request_id, "user_id": a.user, "project_id": a.project,
        "start_time": clock::naive_micros(a.start), "message": if failed { json!("Error") } else { Value::Null },
    });
    if let (true, Some(m)) = (v >= Ver(2, 58), out.as_object_mut()) {
        m.insert("updated_at".into(), clock::naive_micros(a.updated).into());
    }
    out
}

fn time(req: &Req, name: &str) -> Result<Option<i64>> {
    req.q(name)
        .map(|t| {
            clock::parse(t).ok_or_else(|| {
                Error::field(
                    name,
                    format!("Invalid input for query parameters {name}. Value: {t}. '{t}' is not a 'date-time'"),
                )
            })
        })
        .transpose()
}

/// `GET /servers/{id}/os-instance-actions`
pub(crate) async fn index(app: Arc<Compute>, req: Req) -> Result<Reply> {
    let v = req.version;
    check_query(&req, &["limit", "marker", "changes-since", "changes-before"])?;
    let mut tx = app.db.read().await?;
    let s = server(&mut tx, req.ctx()?, v, req.param("id")).await?;
    let mut list = actions(&app, &mut tx, &s).await?;
    let mut links = None;
    if v >= Ver(2, 58) {
        let since = time(&req, "changes-since")?;
        let before = if v >= Ver(2, 66) {
            time(&req, "changes-before")?
        } else {
            None
        };
        if let (Some(a), Some(b)) = (since, before)
            && a > b
        {
            return Err(Error::field(
                "changes-since",
                "The value of changes-since must be less than or equal to changes-before.",
            ));
        }
        list.retain(|a| since.is_none_or(|t| a.updated >= t) && before.is_none_or(|t| a.updated <= t));
        let page = Page::of(&req)?;
        if let Some(m) = &page.marker {
            let at = list
                .iter()
                .position(|a| a.request_id == *m)
                .ok_or_else(|| Error::field("marker", format!("Marker {m} could not be found.")))?;
            list.drain(..=at);
        }
        let more = page.cut(&mut list);
        let path = format!("/v2.1/servers/{}/os-instance-actions", s.id);
        links = list
            .last()
            .filter(|_| more)
            .map(|a| Page::next_link(&req, &path, &a.request_id));
    }
    let mut body = json!({"instanceActions": list.iter().map(|a| view(a, &s.id, v)).collect::<Vec<_>>()});
    if let (Some(l), Some(m)) = (links, body.as_object_mut()) {
        m.insert("links".into(), l);
    }
    Ok(Reply::ok(&body))
}

/// `GET /servers/{id}/os-instance-actions/{request}`
pub(crate) async fn show(app: Arc<Compute>, req: Req) -> Result<Reply> {
    let (v, ctx) = (req.version, req.ctx()?);
    let mut tx = app.db.read().await?;
    let s = server(&mut tx, ctx, v, req.param("id")).await?;
    ctx.enforce(<acts::ActionShow as haneul_auth::Action>::RULE, &s.value.target())?;
    let wanted = req.param("request");
    let list = actions(&app, &mut tx, &s).await?;
    let a = list
        .iter()
        .find(|a| a.request_id == wanted)
        .ok_or_else(|| Error::not_found(format!("Action for request_id {wanted} on instance {} not found", s.id)))?;
    let mut out = view(a, &s.id, v);
    let all = ctx.may(policy::ACTION_EVENTS, &s.value.target());
    // Before 2.51 only administrators see events.
    if let (true, Some(m)) = (all || v >= Ver(2, 51), out.as_object_mut()) {
        let events: Vec<Value> = a.job.iter().map(|j| event(j, &s, v, all, ctx)).collect();
        m.insert("events".into(), events.into());
        if v >= Ver(2, 51) {
            m.insert("updated_at".into(), clock::naive_micros(a.updated).into());
        }
    }
    Ok(Reply::ok(&json!({"instanceAction": out})))
}

/// A job as Nova's one event of an action: while it runs, `details` says how far it is and until when.
fn event(j: &Job, s: &Server, v: Ver, all: bool, ctx: &Ctx) -> Value {
    let running = j.status == "running";
    let mut out = json!({
        "event": format!("compute_{}", j.kind.replace("server.", "").replace('.', "_")),
        "start_time": clock::naive_micros(j.created_at),
        "finish_time": if running { Value::Null } else { clock::naive_micros(j.updated_at).into() },
        "result": match j.status.as_str() { "running" => Value::Null, "done" => "Success".into(), _ => "Error".into() },
    });
    let Some(m) = out.as_object_mut() else { return out };
    if all {
        m.insert("traceback".into(), json!(j.error));
    }
    let host = s.host_id.as_deref().unwrap_or_default();
    if v >= Ver(2, 62) {
        if all {
            m.insert("host".into(), host.into());
        }
        m.insert("hostId".into(), super::view::host_id(&s.project_id, host).into());
    }
    if v >= Ver(2, 84) && ctx.may(policy::ACTION_EVENT_DETAILS, &s.target()) {
        let details = match (&j.error, running) {
            (Some(e), _) => json!(e),
            (None, true) => json!(format!("{}; given up at {}", j.progress, clock::iso(j.deadline))),
            // Why this host, where the scheduler chose it.
            (None, false) => j.state.get("scheduled").cloned().unwrap_or_default(),
        };
        m.insert("details".into(), details);
    }
    out
}
