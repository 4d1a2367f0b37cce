//! What users are in their scopes, as it was last worked out. It holds for one number of revocations, which every write
//! raises that may change what a token is worth: who makes a token from a token reads that number, and nothing else.

use super::resolve::Resolved;
use crate::token::{Payload, Scope};
use haneul_core::clock::iso_micros;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

/// Users in scopes at the most.
const MOST: usize = 4096;

type Key = (String, Scope);

/// See the module.
#[derive(Default)]
pub(crate) struct Known(RwLock<HashMap<Key, (i64, Arc<Resolved>)>>);

/// What is delegated is worked out anew each time: it ends by itself.
fn key(p: &Payload) -> Option<Key> {
    let plain = p.trust_id.is_none() && p.app_cred_id.is_none() && p.access_token_id.is_none();
    plain.then(|| (p.user_id.clone(), p.scope.clone()))
}

impl Known {
    /// What a new token is worth, when that is known for the snapshot that it is made from.
    pub(crate) fn get(&self, p: &Payload) -> Option<Resolved> {
        let key = key(p)?;
        let known = {
            let map = self.0.read().unwrap_or_else(PoisonError::into_inner);
            let (seen, known) = map.get(&key)?;
            (*seen == p.seen).then(|| known.clone())?
        };
        let mut new = Resolved::clone(&known);
        new.ctx.expires_at = p.expires_at;
        new.ctx.issued_at = p.issued_at;
        new.ctx.audit_ids.clone_from(&p.audit_ids);
        new.ctx.methods.clone_from(&p.methods);
        let own: [(&str, Value); 4] = [
            ("methods", json!(p.methods)),
            ("audit_ids", json!(p.audit_ids)),
            ("expires_at", iso_micros(p.expires_at).into()),
            ("issued_at", iso_micros(p.issued_at).into()),
        ];
        if let Some(map) = new.token.as_object_mut() {
            for (name, value) in own {
                map.insert(name.to_owned(), value);
            }
        }
        Some(new)
    }

    /// Keeps what was worked out for this one.
    pub(crate) fn put(&self, p: &Payload, resolved: Resolved) -> Resolved {
        if let Some(key) = key(p) {
            let mut map = self.0.write().unwrap_or_else(PoisonError::into_inner);
            if map.len() >= MOST {
                map.retain(|_, (seen, _)| *seen == p.seen);
            }
            if map.len() >= MOST {
                map.clear();
            }
            map.insert(key, (p.seen, Arc::new(resolved.clone())));
        }
        resolved
    }
}
