//! The websocket of a console (RFC 6455, subprotocol `binary`): frames in the browser, bytes at the screen.

use crate::frame::{self, Broken, Frame};
use crate::{Console, Screen, refuse, says, status, token};
use axum::extract::{Request, State};
use axum::response::Response;
use base64::Engine as _;
use futures_util::StreamExt;
use http::{HeaderValue, StatusCode, header};
use http_body_util::BodyStream;
use hyper_util::rt::TokioIo;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::sync::mpsc;

/// RFC 6455, section 1.3.
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// Both sides are asked for a sign of life this often; without one for three of these the console is closed.
const PING: Duration = Duration::from_secs(20);
/// A peer that takes nothing for this long is gone.
const STUCK: Duration = Duration::from_secs(30);

/// `GET /console/websockify?token=...`
pub(crate) async fn open(State(console): State<Arc<Console>>, mut request: Request) -> Response {
    let headers = request.headers();
    if !says(headers, header::UPGRADE, "websocket") || !says(headers, header::CONNECTION, "upgrade") {
        return refuse(StatusCode::UPGRADE_REQUIRED);
    }
    let text = |name| headers.get(name).and_then(|v: &HeaderValue| v.to_str().ok());
    if text(header::SEC_WEBSOCKET_VERSION) != Some("13") {
        let mut r = refuse(StatusCode::UPGRADE_REQUIRED);
        r.headers_mut()
            .insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        return r;
    }
    // A browser says whose page it is that asks; other programs have none.
    if headers.contains_key(header::ORIGIN) && text(header::ORIGIN) != Some(&console.origin) {
        return refuse(StatusCode::FORBIDDEN);
    }
    let base64 = &base64::engine::general_purpose::STANDARD;
    let key = text(header::SEC_WEBSOCKET_KEY).unwrap_or_default();
    let asked = headers.contains_key(header::SEC_WEBSOCKET_PROTOCOL);
    let binary = says(headers, header::SEC_WEBSOCKET_PROTOCOL, "binary");
    if base64.decode(key).map_or(0, |k| k.len()) != 16 || (asked && !binary) {
        return refuse(StatusCode::BAD_REQUEST);
    }
    let accept = base64.encode(sha1_smol::Sha1::from(format!("{key}{GUID}")).digest().bytes());
    let screen = match console.screens.open(&token(&request)).await {
        Ok(s) => s,
        Err(e) => {
            tracing::info!(error = %e, "a console was refused");
            return refuse(status(&e));
        }
    };
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        match upgrade.await {
            Ok(io) => carry(TokioIo::new(io), screen).await,
            Err(e) => tracing::debug!(error = %e, "a console was given up by its client"),
        }
    });
    let mut r = Response::new(axum::body::Body::empty());
    *r.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let out = r.headers_mut();
    out.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    out.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    if let Ok(v) = HeaderValue::from_str(&accept) {
        out.insert(header::SEC_WEBSOCKET_ACCEPT, v);
    }
    if binary {
        out.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("binary"));
    }
    r
}

/// Until one side ends; then both do.
async fn carry<T: AsyncRead + AsyncWrite + Send>(io: T, screen: Screen) {
    let (read, write) = tokio::io::split(io);
    let Screen { from, to, seat } = screen;
    // Answers to pings, and the farewell, between what the screen sends.
    let (say, said) = mpsc::channel(4);
    tokio::select! {
        () = upstream(BufReader::new(read), to, say) => {}
        () = downstream(write, BodyStream::new(from), said) => {}
    }
    drop(seat);
}

/// From the browser.
async fn upstream<R: AsyncRead + Unpin>(
    mut read: R,
    to: mpsc::Sender<Result<bytes::Bytes, std::io::Error>>,
    say: mpsc::Sender<Vec<u8>>,
) {
    let status = loop {
        let Ok(came) = tokio::time::timeout(PING * 3, frame::read(&mut read)).await else {
            break 1001;
        };
        match came {
            Ok(Frame::Data(data)) => match tokio::time::timeout(STUCK, to.send(Ok(data.into()))).await {
                Ok(Ok(())) => {}
                _ => break 1011,
            },
            Ok(Frame::Ping(data)) => {
                let _ = say.send(frame::pong(&data)).await;
            }
            Ok(Frame::Pong) => {}
            Ok(Frame::Close) => break 1000,
            Err(Broken::Close(status)) => break status,
            Err(Broken::Gone) => return,
        }
    };
    let _ = say.send(frame::close(status)).await;
    // The writer ends once that is out.
    drop(say);
    std::future::pending().await
}

/// To the browser.
async fn downstream<W: AsyncWrite + Unpin>(
    mut write: W,
    mut from: BodyStream<axum::body::Body>,
    mut said: mpsc::Receiver<Vec<u8>>,
) {
    let mut ping = tokio::time::interval(PING);
    loop {
        let (frame, last) = tokio::select! {
            s = said.recv() => match s {
                Some(frame) => {
                    let last = frame.first().is_some_and(|b| b & 0x0f == 8);
                    (frame, last)
                }
                None => break,
            },
            chunk = from.next() => match chunk {
                Some(Ok(f)) => (frame::binary(&f.into_data().unwrap_or_default()), false),
                // The guest has ended, or its host went away.
                _ => (frame::close(1001), true),
            },
            _ = ping.tick() => (frame::ping(), false),
        };
        if !matches!(tokio::time::timeout(STUCK, write.write_all(&frame)).await, Ok(Ok(()))) || last {
            break;
        }
        let _ = write.flush().await;
    }
    let _ = write.shutdown().await;
}
