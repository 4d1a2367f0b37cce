//! What was validated lately, by the SHA-256 of the token. An entry holds for one revocation sequence: a
//! write that may change what any token is good for raises the sequence (`Identity::invalidate`), and every
//! entry is read from the database again at its next use.
//!
//! The sequence is read before the database, so an entry made while a revocation commits counts as old.
//! The sequence is in memory. Where several processes may serve one database, each looks at the row `identity.revocation`
//! of the table `counter` before it believes an entry; the same transactions raise it.

use crate::model::AccessRule;
use bytes::Bytes;
use haneul_auth::context::CtxInner;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

/// Entries per shard at the most.
const PER_SHARD: usize = 2048;
const SHARDS: usize = 16;

/// What a token was made with, when that is less than its user's own password.
#[derive(Clone, Debug, Default)]
pub(crate) struct Delegation {
    pub trust_id: Option<String>,
    pub app_cred_id: Option<String>,
    pub access_token_id: Option<String>,
    /// It is of an application credential that may not manage credentials.
    pub restricted: bool,
}

impl Delegation {
    pub(crate) fn any(&self) -> bool {
        self.trust_id.is_some() || self.app_cred_id.is_some() || self.access_token_id.is_some()
    }
}

/// A validated token.
pub(crate) struct Entry {
    /// The revocation sequence that it holds for.
    pub sequence: u64,
    pub ctx: Arc<CtxInner>,
    pub delegation: Delegation,
    /// The requests that it is good for; `None`: all.
    pub rules: Option<Vec<AccessRule>>,
    /// The answer of GET /v3/auth/tokens?nocatalog.
    pub body: Bytes,
    /// The same with the catalog, made when it is first asked for.
    pub with_catalog: OnceLock<Bytes>,
}

type Key = [u8; 32];

/// See the module.
pub(crate) struct Cache {
    shards: Vec<RwLock<HashMap<Key, Arc<Entry>>>>,
    pub(crate) sequence: Arc<AtomicU64>,
    /// What the row was at when somebody looked last.
    row: AtomicI64,
}

impl Cache {
    pub(crate) fn new() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| RwLock::new(HashMap::new())).collect(),
            sequence: Arc::new(AtomicU64::new(1)),
            row: AtomicI64::new(-1),
        }
    }

    /// The row is at this number: entries of another one hold no more.
    pub(crate) fn follow(&self, row: i64) {
        if self.row.swap(row, Ordering::AcqRel) != row {
            self.sequence.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// The sequence to note before reading the database.
    pub(crate) fn now(&self) -> u64 {
        self.sequence.load(Ordering::Acquire)
    }

    pub(crate) fn key(token: &str) -> Key {
        Sha256::digest(token.as_bytes()).into()
    }

    fn shard(&self, key: &Key) -> Option<&RwLock<HashMap<Key, Arc<Entry>>>> {
        self.shards.get(usize::from(*key.first()?) % SHARDS)
    }

    /// The entry, if it still holds at `time`.
    pub(crate) fn get(&self, key: &Key, time: i64) -> Option<Arc<Entry>> {
        let shard = self.shard(key)?.read().unwrap_or_else(PoisonError::into_inner);
        let entry = shard.get(key)?;
        (entry.sequence == self.now() && entry.ctx.expires_at > time).then(|| entry.clone())
    }

    pub(crate) fn put(&self, key: Key, entry: Arc<Entry>, time: i64) {
        let Some(shard) = self.shard(&key) else { return };
        let mut shard = shard.write().unwrap_or_else(PoisonError::into_inner);
        if shard.len() >= PER_SHARD {
            let now = self.now();
            shard.retain(|_, e| e.sequence == now && e.ctx.expires_at > time);
            // All of them good: forget every other one.
            let mut keep = false;
            if shard.len() >= PER_SHARD {
                shard.retain(|_, _| {
                    keep = !keep;
                    keep
                });
            }
        }
        shard.insert(key, entry);
    }
}
