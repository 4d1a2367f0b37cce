//! The admin socket: what operator commands ask. Only root and our own user reach it (mode 0600).

use crate::serve::App;
use crate::{audit, hosts};
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use haneul_core::{Error, Result, clock, release};
use http::StatusCode;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;
use tokio_stream::StreamExt;

/// All of `/admin/v1`.
pub fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/admin/v1/status", get(status))
        .route("/admin/v1/audit", get(run_audit))
        .route("/admin/v1/jobs", get(jobs))
        .route("/admin/v1/jobs/{id}", get(job))
        .route("/admin/v1/jobs/{id}/retry", post(retry))
        .route("/admin/v1/jobs/{id}/cancel", post(cancel))
        .route("/admin/v1/changes", get(changes))
        .route("/admin/v1/accounts", get(accounts).post(create_account))
        .route("/admin/v1/hosts", get(hosts))
        .route("/admin/v1/hosts/{id}", get(host).delete(remove_host))
        .route("/admin/v1/hosts/{id}/enable", post(enable_host))
        .route("/admin/v1/hosts/{id}/drain", post(drain_host))
        .route("/admin/v1/hosts/{id}/fence", post(fence_host))
        .route("/admin/v1/ha", get(ha))
        .route("/admin/v1/host-tokens", post(host_token))
        .route("/admin/v1/balance", post(balance))
        .route("/admin/v1/backup", get(backup))
        .route("/admin/v1/routes", get(routes))
        .route("/admin/v1/fault-points", get(fault_points))
        .route("/admin/v1/rows", get(rows))
        .with_state(app)
}

fn answer(result: Result<Value>) -> Response {
    match result {
        Ok(v) => Json(v).into_response(),
        Err(e) => {
            let status = StatusCode::from_u16(e.kind().status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            if status.is_server_error() {
                tracing::error!(error = %e, "an operator's command failed");
            }
            (
                status,
                Json(json!({"error": {"code": status.as_u16(), "message": e.public()}})),
            )
                .into_response()
        }
    }
}

async fn status(State(app): State<Arc<App>>) -> Response {
    let go = async {
        let mut tx = app.db.read().await?;
        let hosts = app.fleet.hosts(&mut tx).await?;
        let me = app.db.me();
        let mut processes = tx.processes().await?;
        if !app.db.is_shared() {
            processes.clear();
        }
        Ok(json!({
            "ready": hosts.iter().any(|h| h.up),
            "release": release::name(),
            "cloud_id": app.fleet.cloud_id().to_string(),
            "lab": app.config.lab,
            "processes": processes.iter().map(|p| json!({
                "id": p.id, "number": p.number, "answers": me.as_deref() == Some(&*p.id),
                "release": p.about["release"], "url": p.about["url"],
                "started_at": clock::iso(p.started_at),
            })).collect::<Vec<_>>(),
            "hosts": hosts.iter().map(|h| json!({
                "id": h.id, "name": h.name, "up": h.up, "hypervisor": h.hypervisor.kind,
                "accelerator": h.hypervisor.accelerator,
            })).collect::<Vec<_>>(),
        }))
    };
    answer(go.await)
}

async fn run_audit(State(app): State<Arc<App>>) -> Response {
    answer(audit::run(&app).await.map(|findings| {
        json!({"findings": findings.iter().map(|f| json!({"what": f.what, "repair": f.repair})).collect::<Vec<_>>()})
    }))
}

async fn jobs(State(app): State<Arc<App>>) -> Response {
    let go = async {
        let mut tx = app.db.read().await?;
        let jobs = app.jobs.list(&mut tx, 500).await?;
        Ok(json!({"jobs": jobs.iter().map(haneul_jobs::Job::view).collect::<Vec<_>>()}))
    };
    answer(go.await)
}

async fn job(State(app): State<Arc<App>>, Path(id): Path<String>) -> Response {
    let go = async {
        let mut tx = app.db.read().await?;
        let job = app.jobs.get(&mut tx, &id).await?;
        let job = job.ok_or_else(|| Error::not_found(format!("There is no job {id}.")))?;
        let mut view = job.view();
        if let Some(map) = view.as_object_mut() {
            map.insert("state".into(), job.state);
        }
        Ok(view)
    };
    answer(go.await)
}

async fn retry(State(app): State<Arc<App>>, Path(id): Path<String>) -> Response {
    answer(app.jobs.retry(&id).await.map(|()| json!({})))
}

async fn cancel(State(app): State<Arc<App>>, Path(id): Path<String>) -> Response {
    answer(app.jobs.cancel(&id).await.map(|()| json!({})))
}

async fn changes(State(app): State<Arc<App>>, Query(q): Query<HashMap<String, String>>) -> Response {
    answer(crate::changes::read(&app, &q).await)
}

async fn accounts(State(app): State<Arc<App>>) -> Response {
    let go = async { Ok(json!({"accounts": app.identity.list_accounts(1000).await?})) };
    answer(go.await)
}

async fn create_account(State(app): State<Arc<App>>, Json(body): Json<Value>) -> Response {
    answer(app.identity.create_account(body, haneul_core::id::request()).await)
}

async fn hosts(State(app): State<Arc<App>>) -> Response {
    answer(hosts::list(&app).await)
}

async fn host(State(app): State<Arc<App>>, Path(id): Path<String>) -> Response {
    answer(hosts::show(&app, &id).await)
}

async fn enable_host(State(app): State<Arc<App>>, Path(id): Path<String>) -> Response {
    answer(hosts::enable(&app, id).await)
}

async fn remove_host(State(app): State<Arc<App>>, Path(id): Path<String>) -> Response {
    answer(hosts::remove(&app, id).await)
}

async fn drain_host(State(app): State<Arc<App>>, Path(id): Path<String>, Json(body): Json<Value>) -> Response {
    answer(hosts::drain(&app, id, &body).await)
}

async fn balance(State(app): State<Arc<App>>, Json(body): Json<Value>) -> Response {
    answer(hosts::balance(&app, &body).await)
}

async fn fence_host(State(app): State<Arc<App>>, Path(id): Path<String>) -> Response {
    answer(hosts::fence(&app, id).await)
}

async fn ha(State(app): State<Arc<App>>) -> Response {
    answer(hosts::ha(&app).await)
}

async fn host_token(State(app): State<Arc<App>>, Json(body): Json<Value>) -> Response {
    answer(hosts::token(&app, &body).await)
}

/// Every row of the database, as of now; the last line says that it is whole.
async fn backup(State(app): State<Arc<App>>) -> Response {
    let (send, receive) = tokio::sync::mpsc::channel(4);
    tokio::spawn(async move {
        if let Err(e) = app.db.dump(release::name(), send).await {
            tracing::error!(error = %e, "a backup was cut off");
        }
    });
    let pieces = tokio_stream::wrappers::ReceiverStream::new(receive);
    axum::body::Body::from_stream(pieces.map(Ok::<_, std::io::Error>)).into_response()
}

/// The route tables, for documents and the sweep test.
async fn routes(State(app): State<Arc<App>>) -> Response {
    answer(Ok(json!({"routes": app.routes.iter().map(|r| json!({
        "method": r.method.as_str(), "path": r.path, "handler": r.handler, "rule": r.rule,
        "since": r.since.map(|v| v.to_string()), "until": r.until.map(|v| v.to_string()),
        "file": r.file, "line": r.line,
    })).collect::<Vec<_>>()})))
}

/// Fault points that exist only at run time: those of the sagas' steps. The rest is docs/fault-points.txt.
async fn fault_points(State(app): State<Arc<App>>) -> Response {
    answer(Ok(json!({"points": app.jobs.points()})))
}

/// How many rows each table has, for tests that compare before and after.
async fn rows(State(app): State<Arc<App>>) -> Response {
    let go = async {
        let mut tx = app.db.read().await?;
        let mut out = serde_json::Map::new();
        for table in tables(&crate::serve::migrations()) {
            let row = tx.row(&format!("SELECT COUNT(*) FROM {table}"), &[]).await?;
            out.insert(table, json!(row.map_or(Ok(0), |r| r.i64(0))?));
        }
        Ok(json!({"rows": out}))
    };
    answer(go.await)
}

/// Names of the tables that the migrations make.
fn tables(migrations: &[haneul_store::Migration]) -> Vec<String> {
    migrations
        .iter()
        .flat_map(|m| m.sql.split("CREATE TABLE ").skip(1))
        .filter_map(|rest| rest.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next())
        .map(str::to_owned)
        .collect()
}
