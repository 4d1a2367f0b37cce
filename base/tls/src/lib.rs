//! TLS between machines: the cloud's private authority, the certificates that it gives to control and to hosts, and the
//! listener and connector that use them.
//!
//! Invariants: private keys leave neither the process nor the file that they were made for; the name of a host is read
//! from its certificate, never from what it says; nothing here looks at the wall clock but for the life of
//! certificates.

mod authority;
mod client;
mod listener;

pub use authority::{Authority, HostName, Identity, KeyPair, fingerprint};
pub use client::{Trust, connect};
pub use listener::{Certificate, Listener, Peer, Stream, optional_hosts, server};

use haneul_core::Error;
use std::sync::Arc;
use tokio_rustls::rustls::crypto::CryptoProvider;

/// The name under which control's own certificate is checked by hosts and commands, whatever its address is.
pub const CONTROL: &str = "control.haneul.internal";

/// The one cryptography of the house.
fn ring() -> Arc<CryptoProvider> {
    Arc::new(tokio_rustls::rustls::crypto::ring::default_provider())
}

fn unusable(what: &str, e: impl std::fmt::Display) -> Error {
    Error::internal(format!("{what}: {e}"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
