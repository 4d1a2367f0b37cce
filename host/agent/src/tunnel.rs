//! Tunnels: bytes both ways between control and something on this host. Each has a connection of its own, so that a
//! slow one holds up nothing else.

use crate::Shared;
use bytes::Bytes;
use futures_util::StreamExt;
use haneul_agent_api::{Failure, FailureCode, path};
use haneul_core::Error;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyStream, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWriteExt};
use tokio::task::JoinHandle;
use tokio_util::io::ReaderStream;
use uuid::Uuid;

/// Connects a guest's screen with the tunnel that control waits for; answers once it is open.
pub(crate) async fn vnc(shared: &Arc<Shared>, stream: Uuid, guest: Uuid) -> Result<(), Failure> {
    let screen = shared.drivers.hypervisor.vnc(guest).await?;
    let (read, mut write) = screen.into_split();
    let open = dial(shared, stream, read).await;
    let (mut frames, connection) = open.map_err(|e| failed("the host could not open the console", e))?;
    tokio::spawn(async move {
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

/// Sends the image that was made of a guest's disk; answers once it is on its way.
pub(crate) async fn snapshot(shared: &Arc<Shared>, stream: Uuid, guest: Uuid, image: Uuid) -> Result<(), Failure> {
    let what = "the host could not send the image of the server";
    let block = match shared.store.guest(guest) {
        Some((_, _, g)) => shared.drivers.block_of(&g)?,
        None => &shared.drivers.block,
    };
    let found = block.snapshot(guest, image).await?;
    let (file, _) = found.ok_or_else(|| failed(what, Error::not_found("there is no such file")))?;
    let open = dial(shared, stream, tokio::fs::File::from_std(file)).await;
    let (mut frames, connection) = open.map_err(|e| failed(what, e))?;
    tokio::spawn(async move {
        // Control lets go of it when it has all, or wants no more.
        while let Some(Ok(_)) = frames.next().await {}
        connection.abort();
    });
    Ok(())
}

fn failed(message: &str, e: Error) -> Failure {
    Failure {
        code: FailureCode::Internal,
        message: message.into(),
        detail: e.to_string(),
    }
}

/// Opens a tunnel that `read` goes through; answers what comes back, and the connection.
async fn dial<R>(
    shared: &Arc<Shared>,
    stream: Uuid,
    read: R,
) -> haneul_core::Result<(BodyStream<Incoming>, JoinHandle<()>)>
where
    R: AsyncRead + Send + Unpin + 'static,
{
    let control = shared.control.dial_again().await?;
    let body = StreamBody::new(ReaderStream::with_capacity(read, 32 << 10).map(|chunk| chunk.map(Frame::data)));
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(control))
        .await
        .map_err(Error::internal)?;
    let connection = tokio::spawn(async move {
        let _ = connection.await;
    });
    let request = Request::builder()
        .method(Method::POST)
        .uri(format!("http://control{}{stream}", path::TUNNEL))
        .body(body)
        .map_err(Error::internal)?;
    let response = sender.send_request(request).await.map_err(Error::internal)?;
    if response.status() != StatusCode::OK {
        return Err(Error::unavailable(format!("control answered {}", response.status())));
    }
    Ok((BodyStream::new(response.into_body()), connection))
}
