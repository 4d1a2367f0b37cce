//! From what was shown to a token. Everything is looked at again in the snapshot that the token is made from.

use super::resolve::{enabled_user, resolve};
use super::trusts;
use crate::Identity;
use crate::model::{AccessToken, AppCred, Trust};
use crate::store::{is_revoked, secret};
use crate::token::{Cache, EC2_METHOD, Entry, Payload, Scope};
use haneul_core::clock::SECOND;
use haneul_core::{Error, Kind, Result, clock};
use haneul_store::{Actor, Tx};
use std::sync::Arc;

/// A new token with its answer.
pub(crate) struct Issued {
    pub token: String,
    pub entry: Arc<Entry>,
}

/// What the methods together say.
#[derive(Default)]
pub(crate) struct Proof {
    pub user_id: Option<String>,
    pub methods: Vec<String>,
    /// The token that was shown.
    pub origin: Option<Payload>,
    /// Owners of the secrets that were shown, with the hashes that these matched.
    pub secrets: Vec<(String, String)>,
    pub app_cred: Option<AppCred>,
    pub from_app_cred_token: bool,
    pub access_token: Option<AccessToken>,
    /// What its tokens have as the first audit id of their chain, where that is no token's: a credential's.
    pub chain: Option<String>,
}

impl Proof {
    /// All methods must speak of the same user.
    pub(crate) fn is(&mut self, user: String) -> Result<()> {
        match &self.user_id {
            Some(u) if *u != user => Err(Error::unauthorized().with_private("methods of two users")),
            _ => {
                self.user_id = Some(user);
                Ok(())
            }
        }
    }

    /// A token that was given for an EC2 signature makes one like itself only.
    pub(crate) fn ec2_token(&self) -> Option<&Payload> {
        self.origin
            .as_ref()
            .filter(|o| o.methods.iter().any(|m| m == EC2_METHOD))
    }

    /// Whether something was shown that is worth less than its user.
    pub(crate) fn is_bound(&self) -> bool {
        let system = self.origin.as_ref().is_some_and(|o| o.scope == Scope::System);
        self.app_cred.is_some() || self.access_token.is_some() || self.ec2_token().is_some() || system
    }

    /// Whether everything that was shown is good in this snapshot, too: the one that the new token is made from, and
    /// that says which revocations it outlives.
    async fn still_holds(&self, tx: &mut Tx, seen: i64) -> Result<()> {
        for (owner, hash) in &self.secrets {
            still_the_secret(tx, owner, hash).await?;
        }
        // Nothing was revoked since it was issued: nothing that it does not know of.
        let Some(origin) = self.origin.as_ref().filter(|o| o.seen != seen) else {
            return Ok(());
        };
        let (_, domain) = enabled_user(tx, &origin.user_id).await?;
        let mut marks = vec![("user", origin.user_id.as_str()), ("domain", domain.id.as_str())];
        marks.extend(origin.audit_ids.first().map(|own| ("audit", own.as_str())));
        marks.extend(origin.audit_ids.last().map(|first| ("chain", first.as_str())));
        match &origin.scope {
            Scope::Project(id) => marks.push(("project", id)),
            Scope::Domain(id) => marks.push(("domain", id)),
            Scope::Unscoped | Scope::System => {}
        }
        if is_revoked(tx, origin, &marks).await? {
            return Err(Error::unauthorized().with_private("the token that was shown was revoked meanwhile"));
        }
        Ok(())
    }
}

/// Refuses when the secret of `owner` is another one by now than the one that was checked.
pub(crate) async fn still_the_secret(tx: &mut Tx, owner: &str, hash: &str) -> Result<()> {
    match secret(tx, owner).await? {
        Some(now) if now.hash == hash => Ok(()),
        _ => Err(Error::unauthorized().with_private(format!("the secret of {owner} was changed meanwhile"))),
    }
}

/// One answer whether a trust is not there, has ended, is another's, or is worth nothing now.
pub(crate) fn no_trust(why: &Error) -> Error {
    Error::forbidden(
        "You are not authorized to perform the requested action: The trust cannot be used: it does not exist, has ended, is not for you, or its trustor has lost what it lends.",
    )
    .with_private(why.private())
}

impl Identity {
    /// The token for what was shown, in this scope. The transaction is the one in which the scope was looked up; of the
    /// numbers the cache's sequence was read before it began, and the number of revocations that it knows of in it. Never longer than the token that was shown, nor than what it stands on.
    pub(crate) async fn issue(
        &self,
        mut tx: Tx,
        (sequence, seen): (u64, i64),
        proof: &Proof,
        scope: Scope,
        trust: Option<&Trust>,
    ) -> Result<Issued> {
        let Some(user_id) = proof.user_id.clone() else {
            return Err(Error::unauthorized().with_private("no method"));
        };
        let now = clock::now();
        let longest = now + self.config.token_seconds * SECOND;
        let ends = [
            proof.origin.as_ref().map(|o| o.expires_at),
            proof.app_cred.as_ref().and_then(|c| c.expires_at),
            proof.access_token.as_ref().and_then(|t| t.expires_at),
            trust.and_then(|t| t.expires_at),
        ];
        let expires_at = ends.into_iter().flatten().fold(longest, i64::min);
        let first = match &proof.origin {
            Some(origin) => origin.audit_ids.last().cloned(),
            None => proof.chain.clone(),
        };
        let payload = Payload {
            user_id,
            methods: proof.methods.clone(),
            scope,
            expires_at,
            issued_at: now,
            audit_ids: std::iter::once(crate::token::payload::audit_id())
                .chain(first)
                .collect(),
            app_cred_id: proof.app_cred.as_ref().map(|c| c.id.clone()),
            trust_id: trust.map(|t| t.id.clone()),
            access_token_id: proof.access_token.as_ref().map(|t| t.id.clone()),
            seen,
        };
        let resolved = match self.known.get(&payload) {
            Some(known) if payload.expires_at > now => known,
            _ => match resolve(&mut tx, &payload).await {
                // Who the caller is was seen; it is the trust that does not hold.
                Err(e) if trust.is_some() && e.kind() == Kind::Unauthorized => return Err(no_trust(&e)),
                other => self.known.put(&payload, other?),
            },
        };
        proof.still_holds(&mut tx, seen).await?;
        drop(tx);
        // A token goes on from a login.
        if proof.origin.is_none() {
            self.note_login(&payload.user_id).await?;
        }
        if let Some(t) = trust.filter(|t| t.remaining_uses.is_some()) {
            let id = t.id.clone();
            let taken = self
                .db
                .write(&Actor::system("login"), async move |tx| trusts::consume(tx, &id).await)
                .await;
            taken.map_err(|e| match e.kind() {
                Kind::Unauthorized => no_trust(&e),
                _ => e,
            })?;
        }
        let bytes = payload
            .encode()
            .ok_or_else(|| Error::internal("a token's payload does not encode"))?;
        let token = self.keys.seal(&bytes)?;
        let entry = self.entry(sequence, resolved)?;
        self.cache.put(Cache::key(&token), entry.clone(), now);
        Ok(Issued { token, entry })
    }
}
