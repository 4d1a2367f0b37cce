//! The metadata service at 169.254.169.254 and fe80::a9fe:a9fe: who asks is known by the source
//! address, which anti-spoofing vouches for.
//!
//! Limits: 16 KiB of head, 64 connections for a network, 10 s for a head and 30 s between requests,
//! 100 requests a second for a port with a burst of 400 (a boot asks some eighty times). Guests read; all that they can
//! post is their password, once, 1,020 bytes at the most and within 10 s.

use crate::real::known::Known;
use crate::real::view::View;
use crate::{MetadataSource, PasswordRefused};
use haneul_agent_api::documents::{Source, is_password, lookup};
use haneul_agent_api::{MAX_PASSWORD, Network, Port};
use haneul_core::clock;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::collections::HashMap;
use std::convert::Infallible;
use std::io::Read;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use uuid::Uuid;

const PER_SECOND: i64 = 100;
const BURST: i64 = 400;

/// What the responders of all networks share.
#[derive(Default)]
pub struct Shared {
    /// Set once by the agent.
    pub source: Mutex<Option<Arc<dyn MetadataSource>>>,
    /// All that this host holds: a guest's documents speak of its ports on other networks too.
    pub known: RwLock<Arc<Known>>,
    limiter: Limiter,
}

/// Tokens left and when they were counted, by port.
#[derive(Default)]
pub struct Limiter(Mutex<HashMap<Uuid, (i64, clock::Micros)>>);

impl Limiter {
    fn take(&self, port: Uuid) -> bool {
        let now = clock::now();
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (left, then) = all.entry(port).or_insert((BURST, now));
        let gained = (now - *then).max(0) * PER_SECOND / clock::SECOND;
        if gained > 0 {
            *left = (*left + gained).min(BURST);
            *then = now;
        }
        if *left <= 0 {
            return false;
        }
        *left -= 1;
        true
    }
}

/// Accepts connections.
pub async fn run(listener: TcpListener, view: watch::Receiver<Arc<View>>, shared: Arc<Shared>) {
    let room = Arc::new(Semaphore::new(64));
    loop {
        let Ok(permit) = room.clone().acquire_owned().await else {
            return;
        };
        let (stream, peer) = match listener.accept().await {
            Ok(x) => x,
            Err(e) => {
                tracing::debug!(error = %e, "metadata listener");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let (view, shared) = (view.clone(), shared.clone());
        tokio::spawn(async move {
            connection(stream, peer.ip(), view, shared).await;
            drop(permit);
        });
    }
}

async fn connection(stream: TcpStream, peer: IpAddr, view: watch::Receiver<Arc<View>>, shared: Arc<Shared>) {
    let _ = stream.set_nodelay(true);
    let service = hyper::service::service_fn(move |req: Request<Incoming>| {
        let view = view.borrow().clone();
        let shared = shared.clone();
        async move {
            let path = req.uri().path();
            if *req.method() == Method::GET || *req.method() == Method::HEAD || !is_password(path) {
                return Ok::<_, Infallible>(respond(req.method(), path, peer, &view, &shared));
            }
            Ok(post_password(req, peer, &view, &shared).await)
        }
    });
    // hyper counts the time to the next head from the end of the last answer.
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(10))
        .max_buf_size(16 << 10)
        .serve_connection(TokioIo::new(stream), service);
    // A connection is no place to live: clients come again.
    let _ = tokio::time::timeout(Duration::from_secs(300), served).await;
}

fn plain(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    reply(status, "text/plain; charset=UTF-8", Bytes::from_static(text.as_bytes()))
}

fn reply(status: StatusCode, kind: &'static str, body: Bytes) -> Response<Full<Bytes>> {
    let mut r = Response::new(Full::new(body));
    *r.status_mut() = status;
    r.headers_mut()
        .insert("content-type", hyper::header::HeaderValue::from_static(kind));
    r
}

/// As Nova answers: 200 without a body, 409 when there is one, 400 for any other method and what is too long.
async fn post_password(req: Request<Incoming>, peer: IpAddr, view: &View, shared: &Shared) -> Response<Full<Bytes>> {
    let Some(port) = view.by_ip.get(&peer) else {
        return plain(StatusCode::NOT_FOUND, "404 Not Found\n");
    };
    if !shared.limiter.take(port.id) {
        return plain(StatusCode::TOO_MANY_REQUESTS, "429 Too Many Requests\n");
    }
    if req.method() != Method::POST {
        return plain(
            StatusCode::BAD_REQUEST,
            "400 Bad Request: GET and POST only are supported.\n",
        );
    }
    let source = shared.source.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let Some((source, (guest, _, _))) = source.and_then(|s| Some((s.clone(), s.by_port(port.id)?))) else {
        return plain(StatusCode::NOT_FOUND, "404 Not Found\n");
    };
    let body = Limited::new(req.into_body(), MAX_PASSWORD).collect();
    let bytes = match tokio::time::timeout(Duration::from_secs(10), body).await {
        Ok(Ok(b)) => b.to_bytes(),
        Ok(Err(e)) if e.is::<http_body_util::LengthLimitError>() => {
            return plain(
                StatusCode::BAD_REQUEST,
                "400 Bad Request: Request is too large. A password has 1020 bytes at the most.\n",
            );
        }
        _ => return plain(StatusCode::BAD_REQUEST, "400 Bad Request: the body was cut off.\n"),
    };
    let Ok(password) = String::from_utf8(bytes.to_vec()) else {
        return plain(
            StatusCode::BAD_REQUEST,
            "400 Bad Request: a password must be text in UTF-8; encode what is encrypted in Base64.\n",
        );
    };
    match tokio::task::spawn_blocking(move || source.set_password(guest, &password)).await {
        Ok(Ok(())) => {
            haneul_core::fault_point!("netdev.real.password-taken");
            plain(StatusCode::OK, "")
        }
        Ok(Err(PasswordRefused::Taken)) => plain(
            StatusCode::CONFLICT,
            "409 Conflict: the password is set already. The server's owner can clear it.\n",
        ),
        Ok(Err(PasswordRefused::Gone)) => plain(StatusCode::NOT_FOUND, "404 Not Found\n"),
        Ok(Err(PasswordRefused::Failed)) | Err(_) => plain(
            StatusCode::SERVICE_UNAVAILABLE,
            "503 Service Unavailable: the password could not be stored. Post it again.\n",
        ),
    }
}

fn respond(method: &Method, path: &str, peer: IpAddr, view: &View, shared: &Shared) -> Response<Full<Bytes>> {
    let Some(port) = view.by_ip.get(&peer) else {
        return plain(StatusCode::NOT_FOUND, "404 Not Found\n");
    };
    if !shared.limiter.take(port.id) {
        return plain(StatusCode::TOO_MANY_REQUESTS, "429 Too Many Requests\n");
    }
    if method != Method::GET && method != Method::HEAD {
        return plain(StatusCode::METHOD_NOT_ALLOWED, "405 Method Not Allowed\n");
    }
    let source = shared.source.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let Some((source, (guest_id, project_id, metadata))) = source.and_then(|s| Some((s.clone(), s.by_port(port.id)?)))
    else {
        return plain(StatusCode::NOT_FOUND, "404 Not Found\n");
    };
    let password = source.password(guest_id).unwrap_or_default();
    let known = shared.known.read().unwrap_or_else(PoisonError::into_inner).clone();
    let mut ports: Vec<&Port> = known
        .ports
        .values()
        .filter(|p| p.id == port.id || (p.guest_id.is_some() && p.guest_id == port.guest_id))
        .collect();
    ports.sort_by_key(|p| p.index);
    let ports: Vec<(&Port, &Network)> = ports
        .into_iter()
        .filter_map(|p| Some((p, known.networks.get(&p.network_id)?)))
        .collect();
    let mut seed = [0u8; 512];
    let random = std::fs::File::open("/dev/urandom").and_then(|mut f| f.read_exact(&mut seed));
    let found = lookup(
        path,
        &Source {
            guest_id,
            project_id: &project_id,
            metadata: &metadata,
            ports: &ports,
            public_ipv4: ports.first().and_then(|(p, _)| floating(&known, p)),
            password: &password,
            random_seed: if random.is_ok() { &seed } else { &[] },
        },
    );
    match found {
        Some(d) => reply(StatusCode::OK, d.content_type, Bytes::from(d.body)),
        None => plain(StatusCode::NOT_FOUND, "404 Not Found\n"),
    }
}

/// The floating address of a port: of the router that stands in the port's own network, for another
/// tenant's network may have the same addresses.
fn floating(known: &Known, p: &Port) -> Option<IpAddr> {
    known
        .routers
        .values()
        .filter(|r| r.interfaces.iter().any(|i| i.network_id == p.network_id))
        .flat_map(|r| &r.floating_ips)
        .find(|f| p.fixed_ips.iter().any(|x| x.ip == f.fixed))
        .map(|f| f.floating)
}
