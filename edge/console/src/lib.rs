//! Consoles in a browser: a page that shows a server's screen by noVNC, and the websocket behind it.
//!
//! Invariants: knows nothing of servers or hosts (whoever wires it up opens screens by token); nothing is served from
//! the disk but noVNC's own files; a browser's page of another origin is refused.

mod files;
mod frame;
mod socket;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use haneul_core::{Error, Result};
use http::{HeaderMap, StatusCode, header};
use std::any::Any;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use tokio::sync::mpsc;

/// An open screen: bytes of RFB both ways.
pub struct Screen {
    pub from: Body,
    pub to: mpsc::Sender<std::result::Result<Bytes, std::io::Error>>,
    /// Dropped when the console is closed.
    pub seat: Box<dyn Any + Send>,
}

/// A boxed future.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Who opens screens.
pub trait Screens: Send + Sync + 'static {
    /// The screen that a token is for; the token is used up by it.
    fn open<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Screen>>;
}

/// See the module.
pub struct Console {
    screens: Arc<dyn Screens>,
    /// `https://cloud.example:8774`: the only origin that a browser's page may have.
    origin: String,
    /// Directories in which noVNC may be, the first one wins.
    novnc: Vec<PathBuf>,
}

impl Console {
    /// `public_url` is the address that console URLs begin with.
    pub fn new(screens: Arc<dyn Screens>, public_url: &str, novnc: Vec<PathBuf>) -> Arc<Self> {
        let uri: http::Uri = public_url.parse().unwrap_or_default();
        let origin = match (uri.scheme_str(), uri.authority()) {
            (Some(scheme), Some(authority)) => format!("{scheme}://{authority}"),
            _ => String::new(),
        };
        Arc::new(Self { screens, origin, novnc })
    }

    /// The routes, below `/console`.
    pub fn router(self: Arc<Self>) -> Router {
        Router::new()
            .route(
                "/console/vnc.html",
                get(async || text("text/html; charset=utf-8", include_str!("vnc.html"))),
            )
            .route(
                "/console/vnc.js",
                get(async || text("text/javascript", include_str!("vnc.js"))),
            )
            .route(
                "/console/vnc.css",
                get(async || text("text/css", include_str!("vnc.css"))),
            )
            .route("/console/novnc/{*file}", get(novnc))
            .route("/console/websockify", get(socket::open))
            .with_state(self)
    }
}

/// Part of the page. The token is in its address, which goes nowhere else.
fn text(kind: &'static str, body: &'static str) -> Response {
    let rules = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; connect-src 'self' ws: wss:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CONTENT_SECURITY_POLICY, rules),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, body).into_response()
}

async fn novnc(State(console): State<Arc<Console>>, Path(file): Path<String>) -> Response {
    let found = tokio::task::spawn_blocking(move || files::read(&console.novnc, &file)).await;
    match found {
        Ok(Some((kind, bytes))) => (
            [
                (header::CONTENT_TYPE, kind),
                (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
                (header::CACHE_CONTROL, "max-age=3600"),
            ],
            bytes,
        )
            .into_response(),
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}

/// What a websocket is refused with: no browser shows a body, and a client that is no browser would take it for data.
fn refuse(status: StatusCode) -> Response {
    let mut r = Response::new(Body::empty());
    *r.status_mut() = status;
    r.headers_mut()
        .insert(header::CONNECTION, http::HeaderValue::from_static("close"));
    r
}

fn says(headers: &HeaderMap, name: header::HeaderName, word: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .any(|v| v.trim().eq_ignore_ascii_case(word))
}

/// The status of an error.
fn status(e: &Error) -> StatusCode {
    StatusCode::from_u16(e.kind().status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// The value of `token` in the query.
fn token(request: &Request) -> String {
    let query = request.uri().query().unwrap_or_default();
    query
        .split('&')
        .find_map(|p| p.strip_prefix("token="))
        .unwrap_or_default()
        .to_owned()
}
