//! A reverse proxy between Tempest and the cloud that puts every exchange on record; what asks for another protocol (a
//! console's websocket) goes through unseen.

use anyhow::Result;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::any;
use haneul_http::client::{Peer, send};
use haneul_testkit::record::record;
use http::StatusCode;
use http::header::UPGRADE;
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use std::net::SocketAddr;
use std::sync::Arc;

/// Headers of one connection, not of what goes over it.
const HOP: [&str; 5] = ["connection", "host", "content-length", "transfer-encoding", "expect"];

/// Serves on an address of its own until the process ends, and passes on to `cloud`, which learns its own address
/// only afterwards.
pub async fn start(listener: tokio::net::TcpListener, cloud: String) -> Result<SocketAddr> {
    let address = listener.local_addr()?;
    let router = axum::Router::new().fallback(any(pass)).with_state(Arc::new(cloud));
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(address)
}

async fn pass(State(cloud): State<Arc<String>>, request: Request) -> Response {
    let failed = |status| {
        let mut r = Response::new(Body::empty());
        *r.status_mut() = status;
        r
    };
    if request.headers().contains_key(UPGRADE) {
        let through = through(&cloud, request).await;
        return through.unwrap_or_else(|_| failed(StatusCode::BAD_GATEWAY));
    }
    let cloud = Peer::Tcp(cloud.to_string());
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

/// A request to change the protocol, and all that follows it on either side.
async fn through(cloud: &str, mut request: Request) -> Result<Response> {
    let mine = hyper::upgrade::on(&mut request);
    let stream = tokio::net::TcpStream::connect(cloud).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection.with_upgrades());
    let mut answer = sender.send_request(request).await?;
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        let theirs = hyper::upgrade::on(&mut answer);
        tokio::spawn(async move {
            if let (Ok(mine), Ok(theirs)) = (mine.await, theirs.await) {
                let _ = tokio::io::copy_bidirectional(&mut TokioIo::new(mine), &mut TokioIo::new(theirs)).await;
            }
        });
    }
    Ok(answer.map(Body::new))
}
