//! `/`, `/healthz`, and the metrics listener.

use crate::serve::App;
use axum::Router;
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use haneul_cli::page;
use haneul_core::release;
use http::StatusCode;
use std::sync::Arc;

/// Routes that belong to no service.
pub fn router(app: Arc<App>) -> Router {
    let health = app.clone();
    let door = app.clone();
    Router::new()
        .route("/", get(move || index(app.clone())))
        .route("/sign-up", get(move || sign_up(door.clone())))
        .route("/healthz", get(move || healthz(health.clone())))
}

async fn index(app: Arc<App>) -> Html<String> {
    let services: Vec<page::Service> = [
        ("Identity", "Keystone v3", "/identity/v3"),
        ("Compute", "Nova 2.1", "/compute/v2.1"),
        ("Image", "Glance v2", "/image/v2"),
        ("Network", "Neutron v2.0", "/network/v2.0"),
        ("Placement", "Placement 1", "/placement"),
    ]
    .into_iter()
    .map(|(name, speaks, path)| page::Service { name, speaks, path })
    .collect();
    let open = app.config.accounts.sign_up;
    Html(page::index(release::name(), &services, &app.config.public_url(), open))
}

/// The form of the public sign-up, where it is switched on.
async fn sign_up(app: Arc<App>) -> Response {
    if !app.config.accounts.sign_up {
        let text = "Sign-up is switched off in this cloud. Ask its administrator for an account.\n";
        return (StatusCode::FORBIDDEN, text).into_response();
    }
    let own = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; frame-ancestors 'none'";
    let page = Html(page::sign_up(&app.config.public_url(), &app.config.api.region));
    ([("content-security-policy", own)], page).into_response()
}

/// 200 when the database answers.
async fn healthz(app: Arc<App>) -> impl IntoResponse {
    let alive = async { app.db.read().await?.row("SELECT 1", &[]).await };
    match alive.await {
        Ok(_) => (StatusCode::OK, "ok\n".to_owned()),
        Err(e) => {
            tracing::error!(error = %e, "the database does not answer");
            (
                StatusCode::SERVICE_UNAVAILABLE,
                "the database does not answer\n".to_owned(),
            )
        }
    }
}

/// Prometheus' text format.
pub fn metrics(app: Arc<App>) -> Router {
    Router::new().route(
        "/metrics",
        get(move || {
            let app = app.clone();
            async move {
                (
                    [("content-type", "text/plain; version=0.0.4")],
                    app.server.metrics.render(),
                )
            }
        }),
    )
}
