//! The other processes of the control plane (docs/adr/0010). A host has a stream to one of them; who wants something of
//! the host asks that one, by the door that agents dial. Who speaks there shows the secret that a process keeps in the
//! database: whoever can read that is control.

use crate::hub::Tunnel;
use crate::{Fleet, listener};
use axum::body::Body;
use axum::extract::{ConnectInfo, Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::StreamExt;
use haneul_agent_api::Ask;
use haneul_core::{Error, Kind, Result};
use haneul_store::{Actor, Db, Query, Signal, System, Tx};
use haneul_tls::{Peer, Trust};
use http_body_util::BodyExt;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use subtle::ConstantTimeEq;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;
use tokio::sync::mpsc;

/// Asks for the answer to an [`Ask`].
pub(crate) const ASK: &str = "/peer/v1/ask";
/// Asks for a tunnel.
pub(crate) const DIAL: &str = "/peer/v1/dial";
const SECRET: &str = "haneul-process";
const HOST: &str = "haneul-host";
const WHAT: &str = "haneul-ask";
const SECONDS: &str = "haneul-seconds";
/// Longest refusal, and longest answer to an ask, bytes.
const MOST: usize = 16 << 20;
/// Until what failed is tried again.
const AGAIN: Duration = Duration::from_millis(200);

/// Topics of news between processes: something new for a host, and a host whose stream shall end.
pub(crate) const NEWS: &str = "host";
pub(crate) const CUT: &str = "host.cut";

/// What a process says of itself to the others ([`haneul_store::Db::enlist`]).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Door {
    pub release: String,
    /// Where hosts of other machines dial it, if they can.
    pub url: Option<String>,
    /// Where this machine's does.
    pub socket: PathBuf,
    /// Shown by other processes that ask it for something.
    pub secret: String,
    /// What clients are told, which must be the same of all.
    pub public_url: String,
    /// Whose keys and images it has: the id that is written in its control directory.
    pub control: String,
}

impl Door {
    /// `HOST:PORT` for [`haneul_tls::connect`].
    fn address(&self) -> Option<&str> {
        let url = self.url.as_deref()?;
        Some(url.strip_prefix("https://").unwrap_or(url).trim_end_matches('/'))
    }

    /// Refuses to serve beside processes whose answers would differ.
    ///
    /// # Errors
    /// Conflict, with what is different.
    pub async fn check_others(&self, db: &Db) -> Result<()> {
        if !db.is_shared() {
            return Ok(());
        }
        let mut tx = db.read().await?;
        for other in tx.other_processes().await? {
            let theirs: Door = serde_json::from_value(other.about)?;
            if theirs.control != self.control {
                return Err(Error::conflict(
                    "another process serves this database with a control directory of its own: its tokens, keys and images would not be ours. Share one directory, and name it as control_dir to all",
                ));
            }
            if theirs.public_url != self.public_url {
                return Err(Error::conflict(format!(
                    "another process of this cloud tells clients {}, and this one {}: set api.public_url to the same on all of them, to an address that leads to any",
                    theirs.public_url, self.public_url
                )));
            }
        }
        Ok(())
    }

    async fn open(&self, fleet: &Fleet) -> Result<http2::SendRequest<Body>> {
        match self.address() {
            Some(address) => {
                let print = fleet.authority().await?.fingerprint();
                handshake(haneul_tls::connect(address, &Trust::Fingerprint(&print)).await?).await
            }
            None => handshake(UnixStream::connect(&self.socket).await.map_err(|e| silent(&e))?).await,
        }
    }
}

fn silent(e: &dyn std::fmt::Display) -> Error {
    Error::unavailable(
        "The process of the control plane that this host is connected to does not answer. Try again in a moment.",
    )
    .with_private(e)
}

async fn handshake(io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Result<http2::SendRequest<Body>> {
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .handshake(TokioIo::new(io))
        .await
        .map_err(|e| silent(&e))?;
    tokio::spawn(connection);
    Ok(sender)
}

impl Fleet {
    /// This process' own door: other processes that show its secret are answered. Once.
    pub fn set_door(&self, door: &Door) {
        let _ = self.secret.set(door.secret.clone());
    }

    /// Asks a host for bytes; waits for its stream.
    pub async fn ask(&self, host: &str, what: Ask, timeout: Duration) -> Result<Bytes> {
        let Some(door) = self.elsewhere(host).await? else {
            return self.hub.ask(host, what, timeout).await;
        };
        let answer = self.send(&door, ASK, host, &what, timeout, Body::empty()).await?;
        read(answer.into_body()).await
    }

    /// Asks a host for a tunnel; waits until it is open.
    pub async fn dial(&self, host: &str, what: Ask, timeout: Duration) -> Result<Tunnel> {
        let Some(door) = self.elsewhere(host).await? else {
            return self.hub.dial(host, what, timeout).await;
        };
        let (to, receive) = mpsc::channel(16);
        let body = Body::from_stream(tokio_stream::wrappers::ReceiverStream::new(receive));
        let answer = self.send(&door, DIAL, host, &what, timeout, body).await?;
        let from = Body::new(answer.into_body());
        Ok(Tunnel { from, to })
    }

    /// The process that holds the stream of a host, when it is another one.
    async fn elsewhere(&self, host: &str) -> Result<Option<Door>> {
        if self.hub.is_open(host) || !self.db.is_shared() {
            return Ok(None);
        }
        let mut tx = self.db.read().await?;
        let Some(id) = self.host(&mut tx, host).await?.filter(|h| h.up).and_then(|h| h.process) else {
            return Ok(None);
        };
        if self.db.me().is_some_and(|me| *me == *id) {
            return Ok(None);
        }
        match tx.process(&id).await? {
            Some(process) => Ok(Some(serde_json::from_value(process.about)?)),
            None => Ok(None),
        }
    }

    async fn send(
        &self,
        door: &Door,
        path: &str,
        host: &str,
        what: &Ask,
        timeout: Duration,
        body: Body,
    ) -> Result<http::Response<hyper::body::Incoming>> {
        let mut sender = door.open(self).await?;
        let request = http::Request::post(format!("http://control{path}"))
            .header(SECRET, &door.secret)
            .header(HOST, host)
            .header(WHAT, serde_json::to_string(what)?)
            .header(SECONDS, timeout.as_secs())
            .body(body)
            .map_err(Error::internal)?;
        // The other one keeps the time; this is for one that hangs.
        let answer = tokio::time::timeout(timeout + Duration::from_secs(5), sender.send_request(request));
        let answer = answer.await.map_err(|e| silent(&e))?.map_err(|e| silent(&e))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let said = read(answer.into_body()).await?;
        let kind = match status {
            http::StatusCode::CONFLICT => Kind::Conflict,
            http::StatusCode::FORBIDDEN => Kind::Internal,
            _ => Kind::Unavailable,
        };
        Err(Error::new(kind, String::from_utf8_lossy(&said)))
    }

    /// Where hosts of other machines find control, in the order of the processes; empty while one alone has such a door,
    /// which is where its hosts have joined.
    pub(crate) async fn doors(&self) -> Result<Vec<String>> {
        let mut tx = self.db.read().await?;
        let mut doors = Vec::new();
        for process in tx.processes().await? {
            if let Ok(door) = serde_json::from_value::<Door>(process.about) {
                doors.extend(door.address().map(str::to_owned));
            }
        }
        if doors.len() < 2 {
            doors.clear();
        }
        Ok(doors)
    }

    /// Does here what other processes' news ask for, for ever.
    pub async fn follow_others(self: Arc<Self>) {
        let mut signals = self.db.signals();
        loop {
            match signals.next().await {
                Signal::News { topic, about } if topic == NEWS => self.hub.wake(&about),
                Signal::News { topic, about } if topic == CUT => self.hub.cut(&about),
                Signal::News { .. } => {}
                Signal::Missed => self.hub.wake_all(),
                Signal::Gone(_) => {
                    while let Err(e) = self.leave_nobody_behind().await {
                        tracing::error!(error = %e, "the hosts of a process that is gone could not be looked at");
                        tokio::time::sleep(AGAIN).await;
                    }
                }
            }
        }
    }

    /// Hosts whose stream was to a process that is gone have none.
    pub(crate) async fn leave_nobody_behind(self: &Arc<Self>) -> Result<()> {
        let fleet = self.clone();
        self.db
            .write(&Actor::system("process"), async move |tx| {
                let living: Vec<String> = tx.processes().await?.into_iter().map(|p| p.id).collect();
                for old in tx.list::<crate::Host>(&Query::new().eq("up", true)).await? {
                    if old.process.as_ref().is_some_and(|p| living.contains(p)) {
                        continue;
                    }
                    fleet.goes_down(tx, old).await?;
                }
                Ok(())
            })
            .await
    }

    /// The row of a host that has no stream any more.
    pub(crate) async fn goes_down(&self, tx: &mut Tx, old: haneul_store::Stored<crate::Host>) -> Result<()> {
        let host = crate::Host {
            up: false,
            ..old.value.clone()
        };
        tx.update(&System::of(old), &host).await?;
        for o in self.observers() {
            o.host_down(tx, &host.id).await?;
        }
        Ok(())
    }
}

async fn read(body: hyper::body::Incoming) -> Result<Bytes> {
    let body = http_body_util::Limited::new(body, MOST).collect().await;
    Ok(body.map_err(|e| silent(&e))?.to_bytes())
}

/// What another process asks of a host that has its stream here.
struct Wanted {
    host: String,
    what: Ask,
    timeout: Duration,
}

impl Wanted {
    fn of(fleet: &Fleet, request: &Request) -> Result<Wanted> {
        let header = |name: &str| request.headers().get(name).and_then(|v| v.to_str().ok());
        let refused = || Error::forbidden("Only processes of this control plane speak here.");
        let secret = fleet.secret.get().ok_or_else(refused)?;
        let shown = header(SECRET).ok_or_else(refused)?;
        if !bool::from(shown.as_bytes().ct_eq(secret.as_bytes())) {
            return Err(refused());
        }
        if let Some(ConnectInfo(peer)) = request.extensions().get::<ConnectInfo<Peer>>() {
            peer.known();
        }
        let bad = || Error::bad_request("The message is not of this protocol.");
        Ok(Wanted {
            host: header(HOST).ok_or_else(bad)?.to_owned(),
            what: serde_json::from_str(header(WHAT).ok_or_else(bad)?)?,
            timeout: Duration::from_secs(header(SECONDS).and_then(|s| s.parse().ok()).ok_or_else(bad)?),
        })
    }
}

pub(crate) async fn ask(State(fleet): State<Arc<Fleet>>, request: Request) -> Response {
    let wanted = Wanted::of(&fleet, &request);
    let go = async {
        let w = wanted?;
        fleet.hub.ask(&w.host, w.what, w.timeout).await
    };
    match go.await {
        Ok(bytes) => bytes.into_response(),
        Err(e) => listener::refuse(&e),
    }
}

pub(crate) async fn dial(State(fleet): State<Arc<Fleet>>, request: Request) -> Response {
    let wanted = Wanted::of(&fleet, &request);
    let go = async {
        let w = wanted?;
        let Tunnel { from, to } = fleet.hub.dial(&w.host, w.what, w.timeout).await?;
        let mut bytes = request.into_body().into_data_stream();
        tokio::spawn(async move {
            while let Some(Ok(part)) = bytes.next().await {
                if to.send(Ok(part)).await.is_err() {
                    break;
                }
            }
        });
        Ok(from)
    };
    match go.await {
        Ok(from) => from.into_response(),
        Err(e) => listener::refuse(&e),
    }
}
