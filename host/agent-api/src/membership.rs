//! How a machine becomes a host of a cloud, and stays one.

use serde::{Deserialize, Serialize};
use std::fmt;
use uuid::Uuid;

/// What a machine needs to join, as one word: `haneul1.ID.SECRET.FINGERPRINT`.
#[derive(Clone)]
pub struct JoinToken {
    pub id: String,
    pub secret: String,
    /// Hex SHA-256 of the certificate of the cloud's authority, so that the machine knows whom it tells the secret.
    pub fingerprint: String,
}

impl JoinToken {
    const PREFIX: &str = "haneul1";

    /// Reads a token; `None` when it is none, or a part of it is missing.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.trim().split('.');
        let mut next = || {
            parts
                .next()
                .filter(|p| !p.is_empty() && p.len() <= 64)
                .map(str::to_owned)
        };
        let (prefix, id, secret, fingerprint) = (next()?, next()?, next()?, next()?);
        let hex = fingerprint.len() == 64 && fingerprint.bytes().all(|b| b.is_ascii_hexdigit());
        let whole = prefix == Self::PREFIX && hex && parts.next().is_none();
        whole.then_some(Self {
            id,
            secret,
            fingerprint,
        })
    }
}

/// The whole token, with its secret: for the one who asked for it.
impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}.{}", Self::PREFIX, self.id, self.secret, self.fingerprint)
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinToken")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// First words of a machine that joins, over TLS without a certificate of its own.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Join {
    /// What `haneul host token` printed.
    pub token: String,
    pub protocol: u32,
    pub release: String,
    pub host_id: Uuid,
    pub host_name: String,
    /// Base64 of an uncompressed point of P-256; its private key never leaves the machine.
    pub public_key: String,
    /// What the machine's clock shows, microseconds since 1970.
    pub clock: i64,
    /// It has been a host before, and has what it was told to hold then.
    #[serde(default)]
    pub again: bool,
}

/// Answer to a [`Join`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Joined {
    pub cloud_id: Uuid,
    pub release: String,
    /// PEM of the cloud's authority.
    pub authority: String,
    #[serde(flatten)]
    pub renewed: Renewed,
}

/// A host asks for its next certificate, for a new key.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Renew {
    pub public_key: String,
}

/// A certificate (PEM), and when it and its successor are due, microseconds since 1970.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Renewed {
    pub certificate: String,
    pub renew_at: i64,
    pub expires_at: i64,
}
