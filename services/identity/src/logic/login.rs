//! POST /v3/auth/tokens: who are you, and what do you want to do (API reference: Identity API v3,
//! "Authentication and token management").

use super::compliance::not_expired;
use super::issue::{Issued, Proof, no_trust};
use super::oauth1::Signed;
use super::resolve::enabled_user;
use super::{mfa, totp};
use crate::Identity;
use crate::model::{AccessToken, AppCred, Consumer, Credential, Domain, Project, TOTP, TargetKind, Trust, User};
use crate::store::{
    Secret, assigned, begin_count, blob_of, count_failure, domain_by_name, forget_failures, project_by_name,
    revocations_seen, secret, use_once, user_by_name,
};
use crate::token::Scope;
use haneul_core::clock::SECOND;
use haneul_core::{Error, Result, clock};
use haneul_store::{Actor, Query, Tx};
use serde_json::Value;

/// Methods that there are.
pub(crate) const SUPPORTED: [&str; 5] = ["password", "token", "application_credential", "oauth1", "totp"];

/// What comes of a login.
pub(crate) enum Outcome {
    Issued(Issued),
    /// All that was shown is good, and it is not enough: the receipt with its answer.
    MoreNeeded {
        receipt: String,
        answer: Value,
    },
}

/// What a request carries beside its body.
#[derive(Default)]
pub(crate) struct Beside {
    /// The signature of OAuth.
    pub signed: Option<Signed>,
    /// The header `Openstack-Auth-Receipt`.
    pub receipt: Option<String>,
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
        return Ok(tx.find::<User>(id).await?.map(|u| u.value.id));
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
    pub(crate) async fn login(&self, auth: &Value, beside: &Beside) -> Result<Outcome> {
        let identity = auth.get("identity").unwrap_or(&Value::Null);
        let methods = identity
            .get("methods")
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default();
        let mut proof = Proof::default();
        for method in methods.iter().filter_map(Value::as_str) {
            if !SUPPORTED.contains(&method) {
                return Err(Error::unauthorized().with_private(format!("method {method} is not supported")));
            }
            let data = identity.get(method).ok_or_else(|| expecting(method, "identity"))?;
            match method {
                "password" => self.by_password(data, &mut proof).await?,
                "token" => self.by_token(data, &mut proof).await?,
                "oauth1" => self.by_oauth1(beside.signed.as_ref(), &mut proof).await?,
                "totp" => self.by_totp(data, &mut proof).await?,
                _ => self.by_app_cred(data, &mut proof).await?,
            }
            if !proof.methods.iter().any(|m| m == method) {
                proof.methods.insert(0, method.to_owned());
            }
        }
        let Some(user) = proof.user_id.clone() else {
            return Err(Error::unauthorized().with_private("no method"));
        };
        if let Some(receipt) = &beside.receipt {
            self.by_receipt(receipt, &mut proof).await?;
        }
        let scope = auth.get("scope").filter(|s| !s.is_null());
        let sequence = self.cache.now();
        let mut tx = self.db.read().await?;
        let seen = revocations_seen(&mut tx).await?;
        // A token was made when the rules were met, and these are what they were then.
        if proof.origin.as_ref().is_none_or(|o| o.seen != seen)
            && let Some(rules) = mfa::unmet(&mut tx, &user, &proof.methods).await?
        {
            drop(tx);
            return self.more_needed(&user, &proof, &rules).await;
        }
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
        let issued = self.issue(tx, (sequence, seen), &proof, scope, trust.as_ref()).await?;
        Ok(Outcome::Issued(issued))
    }

    fn locked(&self, s: &Secret) -> bool {
        let rules = &self.compliance.config;
        locked(s, rules.lockout_failure_attempts, rules.lockout_duration)
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
        let free = self.locked(&stored) && ignores_locks(&mut self.db.read().await?, owner).await?;
        if self.locked(&stored) && !free {
            return Err(Error::unauthorized().with_private(format!("{owner} is locked out")));
        }
        let actor = Actor::system("login");
        let name = owner.to_owned();
        let rules = &self.compliance.config;
        let (attempts, seconds) = (rules.lockout_failure_attempts, rules.lockout_duration);
        if !good {
            if attempts > 0 {
                self.db
                    .write(&actor, async move |tx| {
                        count_failure(tx, &name, attempts, seconds).await
                    })
                    .await?;
            }
            return Err(Error::unauthorized().with_private(format!("wrong secret for {owner}")));
        }
        if attempts > 0 {
            // Guesses that ran beside this one count: many at once get no more tries than one by one. The
            // secret itself may have been changed while the hash was computed.
            let again = secret(&mut self.db.read().await?, owner).await?;
            match again {
                Some(s) if (free || !self.locked(&s)) && s.hash == stored.hash => {
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
        let (user, _) = enabled_user(&mut self.db.read().await?, &id).await?;
        not_expired(&user)?;
        proof.is(id)
    }

    async fn by_token(&self, data: &Value, proof: &mut Proof) -> Result<()> {
        let token = text(data, "id").ok_or_else(|| expecting("id", "token"))?;
        self.shown(token).await?;
        let old = self.open(token)?;
        for (delegated, kind) in [(&old.access_token_id, "OAuth"), (&old.trust_id, "trust")] {
            if delegated.is_some() {
                return Err(Error::forbidden(format!(
                    "You are not authorized to perform the requested action: Using {kind}-scoped token to create another token. Create a new {kind}-scoped token instead."
                )));
            }
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
        proof.is(cred.user_id.clone())?;
        proof.app_cred = Some(cred);
        Ok(())
    }

    /// The access token of a signed request (API reference: "OS-OAUTH1", Request an Identity API token).
    async fn by_oauth1(&self, signed: Option<&Signed>, proof: &mut Proof) -> Result<()> {
        let signed = signed.ok_or_else(|| {
            Error::field(
                "Authorization",
                "Cannot retrieve Authorization headers: the method oauth1 needs the header Authorization of type OAuth.",
            )
        })?;
        let (key, id) = (signed.need("consumer_key")?, signed.need("token")?);
        let wrong = |why: &str| Error::unauthorized().with_private(why);
        let mut tx = self.db.read().await?;
        let token = tx
            .find::<AccessToken>(id)
            .await?
            .ok_or_else(|| wrong("no such access token"))?;
        if token.consumer_id != key || tx.find::<Consumer>(key).await?.is_none() {
            return Err(wrong("the access token is another consumer's"));
        }
        let secrets = (blob_of(&mut tx, key).await?, blob_of(&mut tx, id).await?);
        drop(tx);
        self.check_signed(signed, &self.unseal(&secrets.0)?, &self.unseal(&secrets.1)?)
            .await?;
        if token.expires_at.is_some_and(|t| t <= clock::now()) {
            return Err(wrong("the access token has expired"));
        }
        enabled_user(&mut self.db.read().await?, &token.user_id).await?;
        proof.is(token.user_id.clone())?;
        proof.access_token = Some(token.value);
        Ok(())
    }

    /// Checks a signature of OAuth, and that nobody sent the same before.
    pub(crate) async fn check_signed(&self, signed: &Signed, consumer: &str, token: &str) -> Result<()> {
        signed.check(consumer, token, clock::now())?;
        let (what, forget_at) = signed.once();
        let first = self
            .db
            .write(&Actor::system("login"), async move |tx| {
                use_once(tx, &what, forget_at).await
            })
            .await?;
        if first {
            Ok(())
        } else {
            Err(Error::unauthorized().with_private("an OAuth nonce was used before"))
        }
    }

    /// A one-time password of one of the user's credentials of type `totp`. Each is good once; wrong ones count as
    /// wrong passwords do, in a count of their own.
    async fn by_totp(&self, data: &Value, proof: &mut Proof) -> Result<()> {
        let user = data.get("user").ok_or_else(|| expecting("user", "totp"))?;
        let passcode = text(user, "passcode").ok_or_else(|| expecting("passcode", "user"))?;
        let wrong = |why: String| Error::unauthorized().with_private(why);
        let mut tx = self.db.read().await?;
        let Some(id) = user_id(&mut tx, user).await? else {
            return Err(wrong("no such user".into()));
        };
        let owner = format!("totp/{id}");
        let attempts = match ignores_locks(&mut tx, &id).await? {
            true => 0,
            false => self.compliance.config.lockout_failure_attempts,
        };
        let query = Query::new().eq("user_id", id.as_str()).eq("kind", TOTP);
        let mut found = None;
        for credential in tx.list::<Credential>(&query).await? {
            let blob = self.unseal(&blob_of(&mut tx, &credential.id).await?)?;
            if let Some(step) = totp::step_of(&blob, passcode, clock::now() / SECOND) {
                found = Some((format!("totp/{}/{step}", credential.id), totp::end_of(step) * SECOND));
            }
        }
        drop(tx);
        let actor = Actor::system("login");
        let seconds = self.compliance.config.lockout_duration;
        let first = self
            .db
            .write(&actor, async move |tx| {
                // Here, so that many guesses at once get no more tries than one by one.
                let count = secret(tx, &owner).await?;
                if count.is_some_and(|s| locked(&s, attempts, seconds)) {
                    return Ok(false);
                }
                match &found {
                    Some((what, forget_at)) if use_once(tx, what, *forget_at).await? => {
                        forget_failures(tx, &owner).await?;
                        return Ok(true);
                    }
                    _ if attempts > 0 => {
                        begin_count(tx, &owner).await?;
                        count_failure(tx, &owner, attempts, seconds).await?;
                    }
                    _ => {}
                }
                Ok(false)
            })
            .await?;
        if !first {
            return Err(wrong(format!(
                "wrong one-time password for {id}, one that was used, or too many wrong ones"
            )));
        }
        enabled_user(&mut self.db.read().await?, &id).await?;
        proof.is(id)
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
        // Each is for one scope. From a system-scoped token Keystone makes an unscoped one, and from that one for any
        // project: nothing would be left of what it refuses to make at once.
        let system = proof.origin.as_ref().filter(|o| o.scope == Scope::System);
        let bound = match (&proof.access_token, proof.ec2_token().or(system)) {
            (Some(t), _) => Some(Scope::Project(t.project_id.clone())),
            (None, Some(origin)) => Some(origin.scope.clone()),
            (None, None) => None,
        };
        if let Some(own) = bound {
            return match scope {
                None => Ok(own),
                Some(s) if own == Scope::System && s.get("system").is_some() => Ok(own),
                Some(_) => Err(Error::forbidden(
                    "You are not authorized to perform the requested action: Using an OAuth access token, a token of an EC2 credential or a system-scoped token to create a token of another scope is not allowed.",
                )),
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

/// The trust that a scope names. Who came by an application credential or a system scope has no way to it: neither may
/// ask for a project.
async fn wanted_trust(tx: &mut Tx, wanted: &Value, user: &str, proof: &Proof) -> Result<Trust> {
    let from_system = proof.origin.as_ref().is_some_and(|o| o.scope == Scope::System);
    if proof.from_app_cred_token || from_system || proof.access_token.is_some() || proof.ec2_token().is_some() {
        return Err(Error::forbidden(
            "You are not authorized to perform the requested action: Using an application credential, OAuth, EC2 or system-scoped token to create a scoped token is not allowed.",
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

/// Whether too many wrong secrets came lately.
fn locked(s: &Secret, attempts: i64, seconds: i64) -> bool {
    attempts > 0 && s.failures >= attempts && s.failed_at + seconds * SECOND > clock::now()
}

/// Whether wrong secrets never lock this user out (API reference: "Users", options).
async fn ignores_locks(tx: &mut Tx, user: &str) -> Result<bool> {
    let user = tx.find::<User>(user).await?;
    Ok(user.is_some_and(|u| u.option("ignore_lockout_failure_attempts")))
}

/// The user's default project where it can be used, else unscoped.
async fn default_scope(tx: &mut Tx, user: &str) -> Result<Scope> {
    let Some(user) = tx.find::<User>(user).await? else {
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
