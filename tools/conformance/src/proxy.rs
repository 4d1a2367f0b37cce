//! A reverse proxy between Tempest and the cloud that puts every exchange on record.

use anyhow::Result;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::any;
use haneul_http::client::{Peer, send};
use haneul_testkit::record::record;
use http::StatusCode;
use http_body_util::BodyExt;
use std::net::SocketAddr;
use std::sync::Arc;

/// Headers of one connection, not of what goes over it.
const HOP: [&str; 5] = ["connection", "host", "content-length", "transfer-encoding", "expect"];

/// Serves on an address of its own until the process ends, and passes on to `cloud`, which learns its own address
/// only afterwards.
pub async fn start(listener: tokio::net::TcpListener, cloud: String) -> Result<SocketAddr> {
    let address = listener.local_addr()?;
    let router = axum::Router::new()
        .fallback(any(pass))
        .with_state(Arc::new(Peer::Tcp(cloud)));
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(address)
}

async fn pass(State(cloud): State<Arc<Peer>>, request: Request) -> Response {
    let failed = |status| {
        let mut r = Response::new(Body::empty());
        *r.status_mut() = status;
        r
    };
    let (parts, body) = request.into_parts();
    let Ok(body) = body.collect().await.map(|b| b.to_bytes()) else {
        return failed(StatusCode::BAD_REQUEST);
    };
    let path = parts.uri.path_and_query().map_or("/", |p| p.as_str()).to_owned();
    let headers: Vec<(&str, &str)> = parts
        .headers
        .iter()
        .filter(|(k, _)| !HOP.contains(&k.as_str()))
        .filter_map(|(k, v)| Some((k.as_str(), v.to_str().ok()?)))
        .collect();
    let Ok(answer) = send(&cloud, parts.method.clone(), &path, &headers, body.clone()).await else {
        return failed(StatusCode::BAD_GATEWAY);
    };
    let status = answer.status;
    record(
        &parts.method,
        &path,
        &body,
        status.as_u16(),
        &answer.headers,
        &answer.body,
    );
    let mut response = Response::new(Body::from(answer.body));
    *response.status_mut() = status;
    for (k, v) in &answer.headers {
        // The length of an answer to HEAD is that of the body which does not come.
        if !HOP.contains(&k.as_str()) || (k == "content-length" && parts.method == http::Method::HEAD) {
            response.headers_mut().append(k.clone(), v.clone());
        }
    }
    response
}
