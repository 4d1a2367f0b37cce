//! Tunnels: bytes both ways between control and something on this host. Each has a connection of its own, so that a
//! slow one holds up nothing else.

use crate::Shared;
use bytes::Bytes;
use futures_util::StreamExt;
use haneul_agent_api::{Failure, FailureCode, path};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyStream, StreamBody};
use hyper::body::Frame;
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::sync::Arc;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio_util::io::ReaderStream;
use uuid::Uuid;

/// Connects a guest's screen with the tunnel that control waits for; answers once it is open.
pub(crate) async fn vnc(shared: &Arc<Shared>, stream: Uuid, guest: Uuid) -> Result<(), Failure> {
    let screen = shared.drivers.hypervisor.vnc(guest).await?;
    let failed = |detail: String| Failure {
        code: FailureCode::Internal,
        message: "the host could not open the console".into(),
        detail,
    };
    let control = UnixStream::connect(shared.config.agent_socket())
        .await
        .map_err(|e| failed(e.to_string()))?;
    let (read, mut write) = screen.into_split();
    let body = StreamBody::new(ReaderStream::with_capacity(read, 32 << 10).map(|chunk| chunk.map(Frame::data)));
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(control))
        .await
        .map_err(|e| failed(e.to_string()))?;
    let connection = tokio::spawn(connection);
    let request = Request::builder()
        .method(Method::POST)
        .uri(format!("http://control{}{stream}", path::TUNNEL))
        .body(body)
        .map_err(|e| failed(e.to_string()))?;
    let response = sender.send_request(request).await.map_err(|e| failed(e.to_string()))?;
    if response.status() != StatusCode::OK {
        return Err(failed(format!("control answered {}", response.status())));
    }
    tokio::spawn(async move {
        let mut frames = BodyStream::new(response.into_body());
        while let Some(Ok(frame)) = frames.next().await {
            let data: Bytes = frame.into_data().unwrap_or_default();
            if write.write_all(&data).await.is_err() {
                break;
            }
        }
        // Whoever ends it, both directions end.
        connection.abort();
    });
    Ok(())
}
