//! POST /v3/auth/tokens: who are you, and what do you want to do (API reference: Identity API v3,
//! "Authentication and token management").

use super::resolve::{enabled_user, resolve};
use super::trusts;
use crate::Identity;
use crate::model::{AppCred, Domain, Project, TargetKind, Trust};
use crate::store::{
    Secret, assigned, count_failure, domain_by_name, forget_failures, is_revoked, project_by_name, revocations_seen,
    secret, user_by_name,
};
use crate::token::{Cache, Entry, Payload, Scope};
use haneul_core::clock::SECOND;
use haneul_core::{Error, Result, clock};
use haneul_store::{Actor, Query, Tx};
use serde_json::Value;
use std::sync::Arc;

/// A new token with its answer.
pub(crate) struct Issued {
    pub token: String,
    pub entry: Arc<Entry>,
}

/// What the methods together say.
#[derive(Default)]
struct Proof {
    user_id: Option<String>,
    methods: Vec<String>,
    /// The token that was shown.
    origin: Option<Payload>,
    /// Owners of the secrets that were shown, with the hashes that these matched.
    secrets: Vec<(String, String)>,
    app_cred: Option<AppCred>,
    from_app_cred_token: bool,
}

impl Proof {
    /// All methods must speak of the same user.
    fn is(&mut self, user: String) -> Result<()> {
        match &self.user_id {
            Some(u) if *u != user => Err(Error::unauthorized().with_private("methods of two users")),
            _ => {
                self.user_id = Some(user);
                Ok(())
            }
        }
    }

    /// Whether everything that was shown is good in this snapshot, too: the one that the new token is made from, and
    /// that says which revocations it outlives.
    async fn still_holds(&self, tx: &mut Tx, user_domain: &str) -> Result<()> {
        for (owner, hash) in &self.secrets {
            still_the_secret(tx, owner, hash).await?;
        }
        let Some(origin) = &self.origin else { return Ok(()) };
        let mut marks = vec![("user", origin.user_id.as_str()), ("domain", user_domain)];
        marks.extend(origin.audit_ids.first().map(|own| ("audit", own.as_str())));
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

fn text<'a>(value: &'a Value, key: &str) -> Option<&'a str> {
    value.get(key).and_then(Value::as_str)
}

/// Keystone's words for a part that is missing (keystone/exception.py, `ValidationError`).
fn expecting(attribute: &str, target: &str) -> Error {
    Error::field(
        format!("auth.{target}.{attribute}"),
        format!(
            "Expecting to find {attribute} in {target}. The server could not comply with the request since it is either malformed or otherwise incorrect. The client is assumed to be in error."
        ),
    )
}

/// A domain by id or name, as bodies write it. `None`: there is no such domain.
async fn domain_id(tx: &mut Tx, domain: &Value, target: &str) -> Result<Option<String>> {
    if let Some(id) = text(domain, "id") {
        return Ok(tx.find::<Domain>(id).await?.map(|d| d.value.id));
    }
    let name = text(domain, "name").ok_or_else(|| expecting("id or name", target))?;
    Ok(domain_by_name(tx, name).await?.map(|d| d.value.id))
}

/// A user by id, or by name and domain. `None`: there is no such user.
async fn user_id(tx: &mut Tx, user: &Value) -> Result<Option<String>> {
    if let Some(id) = text(user, "id") {
        return Ok(tx.find::<crate::User>(id).await?.map(|u| u.value.id));
    }
    let name = text(user, "name").ok_or_else(|| expecting("id or name", "user"))?;
    let domain = user.get("domain").ok_or_else(|| expecting("domain", "user"))?;
    let Some(domain) = domain_id(tx, domain, "domain").await? else {
        return Ok(None);
    };
    Ok(user_by_name(tx, &domain, name).await?.map(|u| u.value.id))
}

impl Identity {
    /// Checks the methods, finds the scope, and issues. `auth` has passed the field table.
    pub(crate) async fn login(&self, auth: &Value) -> Result<Issued> {
        let identity = auth.get("identity").unwrap_or(&Value::Null);
        let methods = identity
            .get("methods")
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default();
        let mut proof = Proof::default();
        for method in methods.iter().filter_map(Value::as_str) {
            if !["password", "token", "application_credential"].contains(&method) {
                return Err(Error::unauthorized().with_private(format!("method {method} is not supported")));
            }
            let data = identity.get(method).ok_or_else(|| expecting(method, "identity"))?;
            match method {
                "password" => self.by_password(data, &mut proof).await?,
                "token" => self.by_token(data, &mut proof).await?,
                _ => self.by_app_cred(data, &mut proof).await?,
            }
            if !proof.methods.iter().any(|m| m == method) {
                proof.methods.insert(0, method.to_owned());
            }
        }
        let Some(user) = proof.user_id.clone() else {
            return Err(Error::unauthorized().with_private("no method"));
        };
        let scope = auth.get("scope").filter(|s| !s.is_null());
        let sequence = self.cache.now();
        let mut tx = self.db.read().await?;
        let seen = revocations_seen(&mut tx).await?;
        if let Some(all) = scope.and_then(Value::as_object)
            && all.contains_key("OS-TRUST:trust")
            && all.len() > 1
        {
            return Err(expecting("one of project, domain, OS-TRUST:trust or system", "scope"));
        }
        let trust = match scope.and_then(|s| s.get("OS-TRUST:trust")) {
            Some(t) => Some(wanted_trust(&mut tx, t, &user, &proof).await?),
            None => None,
        };
        let scope = match &trust {
            Some(t) => Scope::Project(t.project_id.clone()),
            None => self.wanted_scope(&mut tx, scope, &user, &proof).await?,
        };
        let now = clock::now();
        let longest = now + self.config.token_seconds * SECOND;
        let mut expires_at = proof.origin.as_ref().map_or(longest, |o| o.expires_at);
        if let Some(end) = proof.app_cred.as_ref().and_then(|c| c.expires_at) {
            expires_at = expires_at.min(end);
        }
        if let Some(end) = trust.as_ref().and_then(|t| t.expires_at) {
            expires_at = expires_at.min(end);
        }
        let payload = Payload {
            user_id: user,
            methods: proof.methods.clone(),
            scope,
            expires_at,
            issued_at: now,
            audit_ids: std::iter::once(crate::token::payload::audit_id())
                .chain(proof.origin.as_ref().and_then(|o| o.audit_ids.last().cloned()))
                .collect(),
            app_cred_id: proof.app_cred.as_ref().map(|c| c.id.clone()),
            trust_id: trust.as_ref().map(|t| t.id.clone()),
            seen,
        };
        let resolved = match resolve(&mut tx, &payload).await {
            // Who the caller is was seen; it is the trust that does not hold.
            Err(e) if trust.is_some() && e.kind() == haneul_core::Kind::Unauthorized => return Err(no_trust(&e)),
            other => other?,
        };
        let (_, domain) = enabled_user(&mut tx, &payload.user_id).await?;
        proof.still_holds(&mut tx, &domain.id).await?;
        drop(tx);
        if let Some(t) = trust.as_ref().filter(|t| t.remaining_uses.is_some()) {
            let id = t.id.clone();
            let taken = self
                .db
                .write(&Actor::system("login"), async move |tx| trusts::consume(tx, &id).await)
                .await;
            taken.map_err(|e| match e.kind() {
                haneul_core::Kind::Unauthorized => no_trust(&e),
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

    /// Whether too many wrong secrets came lately.
    fn locked(&self, s: &Secret) -> bool {
        self.config.lockout_attempts > 0
            && s.failures >= self.config.lockout_attempts
            && s.failed_at + self.config.lockout_seconds * SECOND > clock::now()
    }

    /// Checks the secret of `owner` and keeps count. The same work whether the owner exists or not. Answers the hash
    /// that it matched: what is done because of it asks in its own transaction whether that is the secret still.
    pub(crate) async fn check_secret(&self, owner: Option<&str>, given: &str) -> Result<String> {
        let stored = match owner {
            Some(owner) => secret(&mut self.db.read().await?, owner).await?,
            None => None,
        };
        let good = self
            .hasher
            .verify(given, stored.as_ref().map(|s| s.hash.as_str()))
            .await?;
        let (Some(owner), Some(stored)) = (owner, stored) else {
            return Err(Error::unauthorized().with_private("no such user, or one without a password"));
        };
        if self.locked(&stored) {
            return Err(Error::unauthorized().with_private(format!("{owner} is locked out")));
        }
        let actor = Actor::system("login");
        let name = owner.to_owned();
        if !good {
            let (attempts, seconds) = (self.config.lockout_attempts, self.config.lockout_seconds);
            if attempts > 0 {
                self.db
                    .write(&actor, async move |tx| {
                        count_failure(tx, &name, attempts, seconds).await
                    })
                    .await?;
            }
            return Err(Error::unauthorized().with_private(format!("wrong secret for {owner}")));
        }
        if self.config.lockout_attempts > 0 {
            // Guesses that ran beside this one count: many at once get no more tries than one by one. The
            // secret itself may have been changed while the hash was computed.
            let again = secret(&mut self.db.read().await?, owner).await?;
            match again {
                Some(s) if !self.locked(&s) && s.hash == stored.hash => {
                    if s.failures > 0 {
                        self.db
                            .write(&actor, async move |tx| forget_failures(tx, &name).await)
                            .await?;
                    }
                }
                _ => {
                    return Err(
                        Error::unauthorized().with_private(format!("{owner} was locked out or changed meanwhile"))
                    );
                }
            }
        }
        Ok(stored.hash)
    }

    async fn by_password(&self, data: &Value, proof: &mut Proof) -> Result<()> {
        let user = data.get("user").ok_or_else(|| expecting("user", "password"))?;
        let password = text(user, "password").ok_or_else(|| expecting("password", "user"))?;
        let id = user_id(&mut self.db.read().await?, user).await?;
        let hash = self.check_secret(id.as_deref(), password).await?;
        let id = id.ok_or_else(Error::unauthorized)?;
        proof.secrets.push((id.clone(), hash));
        // Only now: a disabled user's answer takes as long as a wrong password's.
        enabled_user(&mut self.db.read().await?, &id).await?;
        proof.is(id)
    }

    async fn by_token(&self, data: &Value, proof: &mut Proof) -> Result<()> {
        let token = text(data, "id").ok_or_else(|| expecting("id", "token"))?;
        self.validated(token).await?;
        let old = self.open(token)?;
        if old.trust_id.is_some() {
            return Err(Error::forbidden(
                "You are not authorized to perform the requested action: Using trust-scoped token to create another token. Create a new trust-scoped token instead.",
            ));
        }
        proof.is(old.user_id.clone())?;
        for m in &old.methods {
            if !proof.methods.contains(m) {
                proof.methods.push(m.clone());
            }
        }
        if let Some(id) = &old.app_cred_id {
            let cred = self.db.read().await?.find::<AppCred>(id).await?;
            proof.app_cred = Some(cred.ok_or_else(Error::unauthorized)?.value);
            proof.from_app_cred_token = true;
        }
        proof.origin = Some(old);
        Ok(())
    }

    async fn by_app_cred(&self, data: &Value, proof: &mut Proof) -> Result<()> {
        let given = text(data, "secret").ok_or_else(|| expecting("secret", "application_credential"))?;
        let mut tx = self.db.read().await?;
        let cred = if let Some(id) = text(data, "id") {
            tx.find::<AppCred>(id).await?
        } else {
            let name = text(data, "name").ok_or_else(|| expecting("id or name", "application_credential"))?;
            let user = data
                .get("user")
                .ok_or_else(|| expecting("user", "application_credential"))?;
            match user_id(&mut tx, user).await? {
                Some(u) => tx
                    .list::<AppCred>(&Query::new().eq("user_id", u).eq("name", name))
                    .await?
                    .into_iter()
                    .next(),
                None => None,
            }
        };
        drop(tx);
        let hash = self.check_secret(cred.as_ref().map(|c| c.id.as_str()), given).await?;
        let cred = cred.ok_or_else(Error::unauthorized)?.value;
        proof.secrets.push((cred.id.clone(), hash));
        if cred.expires_at.is_some_and(|t| t <= clock::now()) {
            return Err(Error::unauthorized().with_private("the application credential has expired"));
        }
        proof.is(cred.user_id.clone())?;
        proof.app_cred = Some(cred);
        Ok(())
    }

    async fn wanted_scope(&self, tx: &mut Tx, scope: Option<&Value>, user: &str, proof: &Proof) -> Result<Scope> {
        if let Some(c) = &proof.app_cred {
            return match scope {
                None => Ok(Scope::Project(c.project_id.clone())),
                Some(_) if proof.from_app_cred_token => Err(Error::forbidden(
                    "You are not authorized to perform the requested action: Using an application credential token to create a scoped token is not allowed.",
                )),
                Some(_) => Err(Error::unauthorized().with_private("application credentials cannot request a scope")),
            };
        }
        let Some(scope) = scope else {
            return default_scope(tx, user).await;
        };
        if let Some(word) = scope.as_str() {
            return if word == "unscoped" {
                Ok(Scope::Unscoped)
            } else {
                Err(Error::field(
                    "auth.scope",
                    format!(
                        "Invalid value '{word}' for scope: write \"unscoped\", or an object with project, domain or system."
                    ),
                ))
            };
        }
        let named: Vec<&str> = ["project", "domain", "system", "unscoped"]
            .into_iter()
            .filter(|k| scope.get(k).is_some())
            .collect();
        let [kind] = named.as_slice() else {
            return Err(expecting("project, domain, OS-TRUST:trust or system", "scope"));
        };
        let wanted = scope.get(kind).unwrap_or(&Value::Null);
        let from_system = proof.origin.as_ref().is_some_and(|o| o.scope == Scope::System);
        if from_system && ["project", "domain"].contains(kind) {
            return Err(Error::forbidden(
                "You are not authorized to perform the requested action: Using a system-scoped token to create a project-scoped or domain-scoped token is not allowed.",
            ));
        }
        let nothing = || Error::unauthorized().with_private("no such scope");
        match *kind {
            "unscoped" => Ok(Scope::Unscoped),
            "system" => match wanted.get("all").and_then(haneul_http::fields::boolean) {
                Some(true) => Ok(Scope::System),
                _ => Err(expecting("all", "system")),
            },
            "domain" => Ok(Scope::Domain(
                domain_id(tx, wanted, "domain").await?.ok_or_else(nothing)?,
            )),
            _ => {
                if let Some(id) = text(wanted, "id") {
                    return Ok(Scope::Project(id.to_owned()));
                }
                let name = text(wanted, "name").ok_or_else(|| expecting("id or name", "project"))?;
                let domain = wanted.get("domain").ok_or_else(|| expecting("domain", "project"))?;
                let domain = domain_id(tx, domain, "domain").await?.ok_or_else(nothing)?;
                let project = project_by_name(tx, &domain, name).await?.ok_or_else(nothing)?;
                Ok(Scope::Project(project.value.id))
            }
        }
    }
}

/// One answer whether a trust is not there, has ended, is another's, or is worth nothing now.
fn no_trust(why: &Error) -> Error {
    Error::forbidden(
        "You are not authorized to perform the requested action: The trust cannot be used: it does not exist, has ended, is not for you, or its trustor has lost what it lends.",
    )
    .with_private(why.private())
}

/// The trust that a scope names. Who came by an application credential or a system scope has no way to it: neither may
/// ask for a project.
async fn wanted_trust(tx: &mut Tx, wanted: &Value, user: &str, proof: &Proof) -> Result<Trust> {
    let from_system = proof.origin.as_ref().is_some_and(|o| o.scope == Scope::System);
    if proof.from_app_cred_token || from_system {
        return Err(Error::forbidden(
            "You are not authorized to perform the requested action: Using an application credential or system-scoped token to create a scoped token is not allowed.",
        ));
    }
    if proof.app_cred.is_some() {
        return Err(Error::unauthorized().with_private("application credentials cannot request a scope"));
    }
    let id = text(wanted, "id").ok_or_else(|| expecting("id", "OS-TRUST:trust"))?;
    match tx.find::<Trust>(id).await? {
        Some(t) if t.trustee_user_id == user => Ok(t.value),
        _ => Err(no_trust(
            &Error::unauthorized().with_private("no such trust for this user"),
        )),
    }
}

/// The user's default project where it can be used, else unscoped.
async fn default_scope(tx: &mut Tx, user: &str) -> Result<Scope> {
    let Some(user) = tx.find::<crate::User>(user).await? else {
        return Ok(Scope::Unscoped);
    };
    let Some(id) = user.default_project_id.as_deref() else {
        return Ok(Scope::Unscoped);
    };
    let usable = match tx.find::<Project>(id).await? {
        Some(p) => p.enabled && tx.find::<Domain>(&p.domain_id).await?.is_some_and(|d| d.enabled),
        None => false,
    };
    if usable && !assigned(tx, &user.id, TargetKind::Project, id).await?.is_empty() {
        Ok(Scope::Project(id.to_owned()))
    } else {
        Ok(Scope::Unscoped)
    }
}
