//! A small HTTP client for our own commands and tests: one request, one answer, over TCP or a Unix socket.

use bytes::Bytes;
use haneul_core::{Error, Result};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::path::PathBuf;

/// Where to.
#[derive(Clone, Debug)]
pub enum Peer {
    /// `127.0.0.1:8774`
    Tcp(String),
    Unix(PathBuf),
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    /// The body as JSON, or null.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }
}

/// Sends one request. `path` begins with a slash.
pub async fn send(
    peer: &Peer,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> Result<Answer> {
    let mut request = Request::builder().method(method).uri(path).header("host", "haneul");
    for (k, v) in headers {
        request = request.header(*k, *v);
    }
    let request = request
        .body(Full::new(body.into()))
        .map_err(|e| Error::internal(format!("request: {e}")))?;
    let refused = |e: &dyn std::fmt::Display| Error::unavailable(format!("{peer:?} does not answer: {e}"));
    macro_rules! go {
        ($stream:expr) => {{
            let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new($stream))
                .await
                .map_err(|e| refused(&e))?;
            tokio::spawn(connection);
            sender.send_request(request).await.map_err(|e| refused(&e))?
        }};
    }
    let response = match peer {
        Peer::Tcp(addr) => {
            let s = tokio::net::TcpStream::connect(addr).await.map_err(|e| refused(&e))?;
            let _ = s.set_nodelay(true);
            go!(s)
        }
        Peer::Unix(path) => go!(tokio::net::UnixStream::connect(path).await.map_err(|e| refused(&e))?),
    };
    let (parts, body) = response.into_parts();
    let body = body.collect().await.map_err(|e| refused(&e))?.to_bytes();
    Ok(Answer {
        status: parts.status,
        headers: parts.headers,
        body,
    })
}
