//! TLS between machines: the cloud's private authority, the certificates that it gives to control and to hosts, and the
//! listener and connector that use them.
//!
//! Invariants: private keys leave neither the process nor the file that they were made for; the name of a host is read
//! from its certificate, never from what it says; nothing here looks at the wall clock but for the life of
//! certificates.

mod authority;
mod client;
mod listener;
mod strangers;

pub use authority::{Authority, HostName, Identity, KeyPair, fingerprint, fingerprint_of};
pub use client::{Trust, connect};
pub use listener::{Certificate, Listener, Peer, Stream, optional_hosts, server};

use haneul_core::Error;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::rustls::crypto::CryptoProvider;

/// The name under which control's own certificate is checked by hosts and commands, whatever its address is.
pub const CONTROL: &str = "control.haneul.internal";

/// The one cryptography of the house.
fn ring() -> Arc<CryptoProvider> {
    Arc::new(tokio_rustls::rustls::crypto::ring::default_provider())
}

/// Lets the kernel end a connection whose other end does not answer: asked after a second of silence, and given up
/// when a second later nothing has come. The links between hosts and control rest on it, in both directions.
fn watch_peer(stream: &TcpStream) {
    let second = Duration::from_secs(1);
    let socket = socket2::SockRef::from(stream);
    let alive = socket2::TcpKeepalive::new()
        .with_time(second)
        .with_interval(second)
        .with_retries(2);
    let set = socket
        .set_tcp_keepalive(&alive)
        .and_then(|()| socket.set_tcp_user_timeout(Some(second)));
    if let Err(e) = set {
        tracing::warn!(error = %e, "a lost connection will be noticed late");
    }
}

fn unusable(what: &str, e: impl std::fmt::Display) -> Error {
    Error::internal(format!("{what}: {e}"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
