//! The side that is dialled: a listener for axum that speaks TLS, or in clear text on loopback.

use crate::strangers::{BOUNDS, Bounds, Guarded, Place, Strangers};
use crate::{HostName, Identity, ring};
use axum::extract::connect_info::Connected;
use axum::serve::IncomingStream;
use haneul_core::{Error, Result};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::version::TLS13;
use tokio_rustls::server::TlsStream;

/// What a listener shows; it can be changed while it listens.
#[derive(Debug)]
pub struct Certificate(RwLock<Arc<CertifiedKey>>);

impl Certificate {
    pub fn new(identity: &Identity) -> Result<Arc<Self>> {
        Ok(Arc::new(Self(RwLock::new(certified(identity)?))))
    }

    /// New connections see this one.
    pub fn set(&self, identity: &Identity) -> Result<()> {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = certified(identity)?;
        Ok(())
    }
}

/// Checks that the key belongs to the certificate.
fn certified(identity: &Identity) -> Result<Arc<CertifiedKey>> {
    let (chain, key) = identity.rustls()?;
    let key = CertifiedKey::from_der(chain, key, &ring())
        .map_err(|e| Error::bad_request(format!("certificate and key cannot be used: {e}")))?;
    Ok(Arc::new(key))
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

/// TLS 1.2 and 1.3, for any client.
pub fn server(certificate: Arc<Certificate>) -> Result<Arc<ServerConfig>> {
    let mut config = ServerConfig::builder_with_provider(ring())
        .with_safe_default_protocol_versions()
        .map_err(Error::internal)?
        .with_no_client_auth()
        .with_cert_resolver(certificate);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// TLS 1.3, for hosts with a certificate of this authority, and for machines that have none yet.
pub fn optional_hosts(certificate: Arc<Certificate>, authority: &str) -> Result<Arc<ServerConfig>> {
    let roots = Arc::new(crate::client::roots(authority)?);
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, ring())
        .allow_unauthenticated()
        .build()
        .map_err(Error::internal)?;
    let config = ServerConfig::builder_with_provider(ring())
        .with_protocol_versions(&[&TLS13])
        .map_err(Error::internal)?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(certificate);
    Ok(Arc::new(config))
}

/// A connection.
pub enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<Guarded>>),
}

/// Who is at the other end.
#[derive(Clone, Debug)]
pub struct Peer {
    pub address: SocketAddr,
    /// What its certificate says.
    pub host: Option<HostName>,
    place: Option<Arc<Place>>,
}

impl Peer {
    fn at(address: SocketAddr) -> Peer {
        Peer {
            address,
            host: None,
            place: None,
        }
    }

    /// Without a certificate it has shown otherwise who it is: its connection lasts as long as it likes.
    pub fn known(&self) {
        if let Some(place) = &self.place {
            place.known();
        }
    }
}

impl Connected<IncomingStream<'_, Listener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Listener>) -> Self {
        stream.remote_addr().clone()
    }
}

/// A listener. Handshakes run beside each other, so that a slow peer holds up nobody.
pub struct Listener {
    local: SocketAddr,
    door: Door,
}

enum Door {
    Plain(TcpListener),
    Tls {
        ready: mpsc::Receiver<(Stream, Peer)>,
        task: tokio::task::JoinHandle<()>,
    },
}

impl Listener {
    /// Listens in clear text when there is no configuration.
    pub fn new(tcp: TcpListener, tls: Option<Arc<ServerConfig>>) -> Result<Self> {
        match tls {
            None => Ok(Self {
                local: tcp.local_addr()?,
                door: Door::Plain(tcp),
            }),
            Some(tls) => Self::tls(tcp, tls, false, BOUNDS),
        }
    }

    /// Listens for hosts: one that vanished without a word is noticed in two seconds, and who shows no certificate is a
    /// stranger.
    pub fn hosts(tcp: TcpListener, tls: Arc<ServerConfig>) -> Result<Self> {
        Self::tls(tcp, tls, true, BOUNDS)
    }

    pub(crate) fn tls(tcp: TcpListener, tls: Arc<ServerConfig>, hosts: bool, bounds: Bounds) -> Result<Self> {
        let (send, ready) = mpsc::channel(64);
        Ok(Self {
            local: tcp.local_addr()?,
            door: Door::Tls {
                ready,
                task: tokio::spawn(handshakes(
                    tcp,
                    TlsAcceptor::from(tls),
                    send,
                    hosts,
                    Strangers::new(bounds),
                )),
            },
        })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Door::Tls { task, .. } = &self.door {
            task.abort();
        }
    }
}

/// The next connection. An error that is not the connection's own (no file descriptors are left) will hold for a while.
async fn next(tcp: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match tcp.accept().await {
            Ok((stream, address)) => {
                // Small answers must not wait for an acknowledgement.
                let _ = stream.set_nodelay(true);
                return (stream, address);
            }
            Err(e) => {
                use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
                if !matches!(e.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset) {
                    tracing::error!(error = %e, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }
}

async fn handshakes(
    tcp: TcpListener,
    acceptor: TlsAcceptor,
    send: mpsc::Sender<(Stream, Peer)>,
    hosts: bool,
    strangers: Arc<Strangers>,
) {
    loop {
        let (stream, address) = next(&tcp).await;
        if hosts {
            crate::watch_peer(&stream);
        }
        let stream = strangers.welcome(stream, address);
        let (acceptor, send) = (acceptor.clone(), send.clone());
        tokio::spawn(async move {
            match acceptor.accept(stream).await {
                Ok(mut tls) => {
                    let shown = tls.get_ref().1.peer_certificates();
                    let host = shown.and_then(<[_]>::first).and_then(HostName::of);
                    let guarded = tls.get_mut().0;
                    let place = match host {
                        Some(name) if hosts => match guarded.is_of(name.host) {
                            true => None,
                            false => return,
                        },
                        _ if hosts => guarded.stays(),
                        _ => {
                            guarded.is_known();
                            None
                        }
                    };
                    let peer = Peer { address, host, place };
                    let _ = send.send((Stream::Tls(Box::new(tls)), peer)).await;
                }
                Err(e) => tracing::debug!(peer = %address, error = %e, "no TLS with this peer"),
            }
        });
    }
}

impl axum::serve::Listener for Listener {
    type Io = Stream;
    type Addr = Peer;

    async fn accept(&mut self) -> (Stream, Peer) {
        match &mut self.door {
            Door::Plain(tcp) => {
                let (stream, address) = next(tcp).await;
                (Stream::Plain(stream), Peer::at(address))
            }
            Door::Tls { ready, .. } => match ready.recv().await {
                Some(connection) => connection,
                // The task has no end of its own.
                None => std::future::pending().await,
            },
        }
    }

    fn local_addr(&self) -> io::Result<Peer> {
        Ok(Peer::at(self.local))
    }
}

macro_rules! either {
    ($self:ident, $s:ident => $go:expr) => {
        match $self.get_mut() {
            Stream::Plain($s) => $go,
            Stream::Tls($s) => $go,
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        either!(self, s => Pin::new(s).poll_read(cx, buf))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        either!(self, s => Pin::new(s).poll_write(cx, buf))
    }
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        either!(self, s => Pin::new(s).poll_write_vectored(cx, bufs))
    }
    fn is_write_vectored(&self) -> bool {
        match self {
            Stream::Plain(s) => s.is_write_vectored(),
            Stream::Tls(s) => s.is_write_vectored(),
        }
    }
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, s => Pin::new(s).poll_flush(cx))
    }
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, s => Pin::new(s).poll_shutdown(cx))
    }
}
