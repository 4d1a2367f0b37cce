//! What agents dial: a Unix socket on this machine, where only root and our own user may connect (SO_PEERCRED), and TLS
//! for other machines, where a host is what its certificate says. HTTP/2, newline-delimited JSON on both.

use crate::{Fleet, hub, members, peers};
use axum::body::Body;
use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, Path, Query, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use bytes::Bytes;
use haneul_agent_api::{
    Ack, Greeting, Join, Kind, MAX_LINE, ObservedNet, PING_SECONDS, PROTOCOL, Report, ToAgent, Welcome, limits,
};
use haneul_core::{Error, Result, fault_point, release};
use haneul_store::Actor;
use haneul_tls::{HostName, Peer};
use http_body_util::{BodyExt, Limited};
use serde::Deserialize;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UnixListener;
use tokio::sync::mpsc;
use uuid::Uuid;

/// Longest answer to an ask, bytes.
const MAX_STREAM: usize = 16 << 20;
/// Between greeting and watch an agent needs no more, however busy its host is.
const WATCHED: Duration = Duration::from_secs(60);
/// Until what the database could not do is tried again.
const AGAIN: Duration = Duration::from_millis(200);
/// Longest report, bytes.
const MAX_REPORT: usize = 8 << 20;
/// A message that has begun takes no longer to come.
const COMES: Duration = Duration::from_secs(30);
/// Longest greeting, and longest message about a membership, bytes.
const MAX_GREETING: usize = 1 << 20;
const MAX_JOIN: usize = 16 << 10;

#[derive(Clone, Debug)]
struct PeerUser(Option<u32>);

impl Connected<axum::serve::IncomingStream<'_, UnixListener>> for PeerUser {
    fn connect_info(stream: axum::serve::IncomingStream<'_, UnixListener>) -> Self {
        PeerUser(stream.io().peer_cred().ok().map(|c| c.uid()))
    }
}

/// Who speaks.
#[derive(Clone, Copy, Debug)]
enum Caller {
    /// This machine's agent, or a lab's.
    Local,
    Host(HostName),
}

impl Caller {
    /// Refuses what a host says for another one.
    fn speaks_for(self, host: Uuid) -> Result<()> {
        match self {
            Caller::Local => Ok(()),
            Caller::Host(name) => members::same_host(name, host),
        }
    }

    /// The host whose things it may have; `None`: any.
    fn only(self) -> Option<Uuid> {
        match self {
            Caller::Local => None,
            Caller::Host(name) => Some(name.host),
        }
    }
}

fn routes(fleet: &Arc<Fleet>) -> Router<Arc<Fleet>> {
    use haneul_agent_api::path;
    Router::new()
        .route(path::GREET, post(greet))
        .route(path::WATCH, get(watch))
        .route(path::REPORT, post(report))
        .route(&format!("{}{{id}}", path::IMAGE), get(image))
        .route(&format!("{}{{id}}", path::STREAM), post(stream))
        .route(&format!("{}{{id}}", path::TUNNEL), post(tunnel))
        .with_state(fleet.clone())
}

/// What other processes of the control plane ask for.
fn peer_routes() -> Router<Arc<Fleet>> {
    Router::new()
        .route(peers::ASK, post(peers::ask))
        .route(peers::DIAL, post(peers::dial))
}

/// Serves the agent of this machine until `stop` resolves. `own_uid` is the user that this process runs as.
pub async fn serve(
    fleet: Arc<Fleet>,
    listener: UnixListener,
    own_uid: u32,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<()> {
    let app = routes(&fleet)
        .merge(peer_routes())
        .layer(middleware::from_fn(
            move |ConnectInfo(peer): ConnectInfo<PeerUser>, mut request: Request, next: Next| async move {
                if peer.0.is_some_and(|u| u == 0 || u == own_uid) {
                    request.extensions_mut().insert(Caller::Local);
                    next.run(request).await
                } else {
                    refuse(&Error::forbidden("Only the host's agent may speak here."))
                }
            },
        ))
        .with_state(fleet);
    axum::serve(listener, app.into_make_service_with_connect_info::<PeerUser>())
        .with_graceful_shutdown(stop)
        .await?;
    Ok(())
}

/// Serves the agents of other machines until `stop` resolves; the listener's configuration is
/// [`haneul_tls::optional_hosts`].
pub async fn serve_hosts(
    fleet: Arc<Fleet>,
    listener: haneul_tls::Listener,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<()> {
    use haneul_agent_api::path;
    let door = fleet.clone();
    let members = routes(&fleet)
        .route(path::RENEW, post(renew))
        .layer(middleware::from_fn(
            move |ConnectInfo(peer): ConnectInfo<Peer>, mut request: Request, next: Next| {
                let fleet = door.clone();
                async move {
                    let Some(name) = peer.host else {
                        return refuse(&members::no_certificate());
                    };
                    if let Err(e) = fleet.check_member(name).await {
                        return refuse(&e);
                    }
                    // What is read for one host at a time is bounded, and with it what it can make us hold.
                    let Some(_turn) = fleet.hub.turn(name.host) else {
                        return refuse(&Error::unavailable(format!(
                            "{} messages of this host are being read already. Wait for their answers.",
                            hub::AT_ONCE
                        )));
                    };
                    request.extensions_mut().insert(Caller::Host(name));
                    next.run(request).await
                }
            },
        ));
    let app = Router::new()
        .route(path::JOIN, post(join))
        .merge(members)
        .merge(peer_routes())
        .with_state(fleet);
    axum::serve(listener, app.into_make_service_with_connect_info::<Peer>())
        .with_graceful_shutdown(stop)
        .await?;
    Ok(())
}

async fn join(State(fleet): State<Arc<Fleet>>, request: Request) -> Response {
    let go = async {
        let join: Join = body(request, MAX_JOIN).await?;
        let (host, name) = (join.host_id, join.host_name.clone());
        let joined = fleet.join(join).await?;
        tracing::info!(%host, name, "a machine joined");
        Ok(joined)
    };
    answer(go.await)
}

async fn renew(State(fleet): State<Arc<Fleet>>, Extension(caller): Extension<Caller>, request: Request) -> Response {
    let go = async {
        let renew = body(request, MAX_JOIN).await?;
        match caller {
            Caller::Host(name) => fleet.renew(name, &renew).await,
            Caller::Local => Err(members::no_certificate()),
        }
    };
    answer(go.await)
}

pub(crate) fn refuse(e: &Error) -> Response {
    if e.kind().status() >= 500 {
        tracing::error!(error = %e, "an agent's request failed");
    }
    let status = http::StatusCode::from_u16(e.kind().status()).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
    (status, e.public().to_owned()).into_response()
}

use axum::http;

fn answer<T: serde::Serialize>(result: Result<T>) -> Response {
    match result {
        Ok(v) => Json(v).into_response(),
        Err(e) => refuse(&e),
    }
}

/// All of a request's body.
async fn bytes(request: Request, most: usize) -> Result<Bytes> {
    let collected = tokio::time::timeout(COMES, Limited::new(request.into_body(), most).collect()).await;
    let collected = collected
        .map_err(|_| Error::bad_request(format!("The message did not come within {} s.", COMES.as_secs())))?
        .map_err(|e| {
            Error::bad_request(format!("The message was cut off, or is longer than {most} bytes.")).with_private(e)
        })?;
    Ok(collected.to_bytes())
}

async fn body<T: serde::de::DeserializeOwned>(request: Request, most: usize) -> Result<T> {
    let bytes = bytes(request, most).await?;
    serde_json::from_slice(&bytes)
        .map_err(|e| Error::bad_request("The message is not of this protocol.").with_private(e))
}

/// N and N-1: an agent one release older, or newer, is understood.
pub(crate) fn check_protocol(theirs: u32) -> Result<()> {
    let ours = PROTOCOL + release::ahead();
    if theirs + 1 < ours || theirs > ours + 1 {
        return Err(Error::bad_request(format!(
            "The agent speaks protocol {theirs}, and this control plane {ours} and {}. Bring both to neighbouring releases.",
            ours.saturating_sub(1)
        )));
    }
    Ok(())
}

async fn greet(State(fleet): State<Arc<Fleet>>, Extension(caller): Extension<Caller>, request: Request) -> Response {
    let go = async {
        let g: Greeting = body(request, MAX_GREETING).await?;
        caller.speaks_for(g.host_id)?;
        check_protocol(g.protocol)?;
        limits::greeting(&g)?;
        let mut welcome = Welcome {
            protocol: (PROTOCOL + release::ahead()).min(g.protocol),
            release: release::name().into(),
            cloud_id: fleet.cloud_id,
            epoch: fleet.epoch,
            session: 0,
            controls: fleet.doors().await?,
        };
        fleet.hub.greeted(&g.host_id.to_string(), g.protocol);
        let (f, host) = (fleet.clone(), g.host_id);
        welcome.session = fleet
            .db
            .write(&agent(host), async move |tx| f.greet(tx, &g).await)
            .await?;
        tokio::spawn(watched(fleet.clone(), host));
        Ok(welcome)
    };
    answer(go.await)
}

/// Who greets and opens no watch is not up.
async fn watched(fleet: Arc<Fleet>, host: Uuid) {
    tokio::time::sleep(WATCHED).await;
    if !fleet.hub.is_open(&host.to_string()) {
        fleet.lost(host).await;
    }
}

fn agent(host: Uuid) -> Actor {
    Actor {
        user: format!("agent:{host}"),
        project: String::new(),
        request_id: String::new(),
    }
}

#[derive(Deserialize)]
struct WatchQuery {
    host: Uuid,
}

async fn watch(
    State(fleet): State<Arc<Fleet>>,
    Extension(caller): Extension<Caller>,
    Query(q): Query<WatchQuery>,
) -> Response {
    if let Err(e) = caller.speaks_for(q.host) {
        return refuse(&e);
    }
    let (send, receive) = mpsc::channel::<std::result::Result<Bytes, std::io::Error>>(16);
    tokio::spawn(pump(fleet, q.host, send));
    Body::from_stream(tokio_stream::wrappers::ReceiverStream::new(receive)).into_response()
}

/// Feeds one watch: the whole list, a bookmark, then what is new. The agent compares generations, so the list
/// is always whole; a resume from a sequence is not needed on one machine.
async fn pump(fleet: Arc<Fleet>, host: Uuid, send: mpsc::Sender<std::result::Result<Bytes, std::io::Error>>) {
    let id = host.to_string();
    let (number, wake, mut asks) = fleet.hub.open(&id);
    let mut last = 0;
    let mut listed = false;
    let ended = loop {
        match fleet.lines(&id, last).await {
            Ok((lines, newest, full)) => {
                // The end of the stream before may have been written behind this agent's greeting: who counts as down
                // greets anew, or the host would be down with its stream open. A host that another process has removed
                // has nothing to hear any more, and the word of it may be lost.
                if (!listed || lines.is_empty()) && matches!(fleet.is_up(&id).await, Ok(false)) {
                    break "not greeted, or removed";
                }
                last = newest;
                let mut out = Vec::new();
                for line in &lines {
                    push(&mut out, line);
                }
                if !full && (!listed || !lines.is_empty()) {
                    listed = true;
                    push(&mut out, &ToAgent::Bookmark { sequence: last });
                }
                if !out.is_empty() && send.send(Ok(out.into())).await.is_err() {
                    break "closed";
                }
                if full {
                    continue;
                }
            }
            // The host need not know: it goes on when the database is back.
            Err(e) => {
                tracing::error!(error = %e, host = id, "the desired state could not be read; trying again");
                tokio::time::sleep(AGAIN).await;
                if send.is_closed() {
                    break "closed";
                }
                continue;
            }
        }
        tokio::select! {
            () = wake.notified() => {}
            ask = asks.recv() => {
                let Some(ask) = ask else { break "replaced or cut" };
                let mut out = Vec::new();
                push(&mut out, &ask);
                if send.send(Ok(out.into())).await.is_err() { break "closed" }
            }
            () = send.closed() => break "closed",
            () = tokio::time::sleep(Duration::from_secs(PING_SECONDS)) => {
                let mut out = Vec::new();
                push(&mut out, &ToAgent::Ping);
                if send.send(Ok(out.into())).await.is_err() { break "closed" }
            }
        }
    };
    if fleet.hub.close(&id, number) {
        tracing::info!(host = id, ended, "an agent's stream ended");
        fleet.lost(host).await;
    }
}

impl Fleet {
    /// Marks a host down that has no stream.
    async fn lost(self: &Arc<Self>, host: Uuid) {
        loop {
            let f = self.clone();
            let done = self
                .db
                .write(&agent(host), async move |tx| {
                    f.stream_ended(tx, &host.to_string()).await
                })
                .await;
            match done {
                Ok(()) => return,
                Err(e) => tracing::error!(error = %e, "the host could not be marked down; trying again"),
            }
            tokio::time::sleep(AGAIN).await;
        }
    }
}

fn push(out: &mut Vec<u8>, line: &ToAgent) {
    let start = out.len();
    if serde_json::to_writer(&mut *out, line).is_err() || out.len() - start > MAX_LINE {
        tracing::error!(
            bytes = out.len() - start,
            "a line for an agent is too long and was left out"
        );
        out.truncate(start);
        return;
    }
    out.push(b'\n');
}

async fn report(State(fleet): State<Arc<Fleet>>, Extension(caller): Extension<Caller>, request: Request) -> Response {
    let go = async {
        let r: Report = body(request, MAX_REPORT).await?;
        caller.speaks_for(r.host_id)?;
        limits::report(&r)?;
        fault_point!("fleet.report.received");
        let f = fleet.clone();
        fleet
            .db
            .write(&agent(r.host_id), async move |tx| take(&f, tx, &r).await)
            .await?;
        fleet.hub.report();
        fault_point!("fleet.report.committed");
        Ok(Ack { ok: true })
    };
    answer(go.await)
}

async fn take(fleet: &Arc<Fleet>, tx: &mut haneul_store::Tx, r: &Report) -> Result<()> {
    fleet.in_order(tx, r).await?;
    let host = r.host_id.to_string();
    let nets: [(Kind, &Vec<ObservedNet>); 3] = [
        (Kind::Network, &r.networks),
        (Kind::Router, &r.routers),
        (Kind::Port, &r.ports),
    ];
    for (kind, seen) in nets {
        for o in seen {
            let (id, doc) = (o.id.to_string(), serde_json::to_string(o)?);
            if !fleet.record(tx, &host, kind, &id, o.epoch, o.generation, doc).await? {
                continue;
            }
            for observer in fleet.observers() {
                observer.net(tx, &host, kind, o).await?;
            }
        }
    }
    for g in &r.guests {
        let (id, doc) = (g.id.to_string(), serde_json::to_string(g)?);
        let (epoch, generation) = (g.epoch, g.generation);
        if !fleet
            .record(tx, &host, Kind::Guest, &id, epoch, generation, doc)
            .await?
        {
            continue;
        }
        for observer in fleet.observers() {
            observer.guest(tx, &host, g).await?;
        }
    }
    for posted in &r.passwords {
        for observer in fleet.observers() {
            observer.password(tx, &host, posted).await?;
        }
    }
    for f in &r.fences {
        fleet.fence_seen(tx, &host, f).await?;
    }
    for t in &r.gone {
        if fleet.forget(tx, &host, t).await? {
            for observer in fleet.observers() {
                observer.gone(tx, &host, t.kind, &t.id.to_string()).await?;
            }
        }
    }
    Ok(())
}

async fn image(
    State(fleet): State<Arc<Fleet>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<Uuid>,
) -> Response {
    if let Some(host) = caller.only()
        && let Err(e) = fleet.needs_image(host, id).await
    {
        return refuse(&e);
    }
    let Some(images) = fleet.images.get() else {
        return refuse(&Error::unavailable("This control plane has no image service."));
    };
    match images.open(&id.to_string()).await {
        Ok(s) => (
            [
                ("content-type", "application/octet-stream".to_owned()),
                ("content-length", s.size.to_string()),
            ],
            s.body,
        )
            .into_response(),
        Err(e) => refuse(&e),
    }
}

async fn stream(
    State(fleet): State<Arc<Fleet>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<Uuid>,
    request: Request,
) -> Response {
    if !fleet.hub.expects(id, caller.only()) {
        return refuse(&Error::not_found("Nobody waits for this stream."));
    }
    let bytes = match bytes(request, MAX_STREAM).await {
        Ok(b) => b,
        Err(e) => return refuse(&e),
    };
    fleet.hub.answer(id, bytes);
    answer(Ok(Ack { ok: true }))
}

/// The answer's body goes to the agent for as long as the request's comes from it.
async fn tunnel(
    State(fleet): State<Arc<Fleet>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<Uuid>,
    request: Request,
) -> Response {
    if !fleet.hub.expects(id, caller.only()) {
        return refuse(&Error::not_found("Nobody waits for this tunnel."));
    }
    let (to, receive) = mpsc::channel(16);
    let from = request.into_body();
    if !fleet.hub.connect(id, crate::Tunnel { from, to }) {
        return refuse(&Error::not_found("Nobody waits for this tunnel."));
    }
    Body::from_stream(tokio_stream::wrappers::ReceiverStream::new(receive)).into_response()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
