//! Keystone v3: who there is, what they may do, and the tokens that say so.
//!
//! Owns domains, projects, users, groups, roles, assignments, application credentials, the catalog, and
//! the Fernet keys, and credentials of other systems that users keep here, sealed by keys of their own.
//!
//! Invariants:
//! - A token is worth what its user has now: each validation that is not answered from the cache resolves
//!   user, scope and roles anew, and each write that may change a token's worth raises the revocation
//!   sequence in its transaction ([`Identity::invalidate`]), which ends every cached answer.
//! - A token made from a token never lives longer than that one.
//! - A token of a trust, an application credential or an OAuth access token is worth no more than that and than what
//!   its giver still has, and whatever is made with it notes it and stays within.
//! - Hashes live in one table that is no resource: they are in no document, change row, log or error.
//! - Who is refused at the door learns nothing: one text, the same work, whatever was wrong. Only who has shown the right
//!   password is told that it has expired.

mod api;
mod logic;
mod model;
pub mod policy;
mod store;
mod token;

pub use model::{
    AccessRule, Account, AccountKind, AppCred, Credential, DEFAULT_DOMAIN, Domain, Group, Origin, Project, Role, Trust,
    User,
};
pub use policy::RULES;
pub use store::MIGRATIONS;

use bytes::Bytes;
use haneul_auth::context::CtxInner;
use haneul_auth::{Asked, Authenticator, BoxFuture, Policy};
use haneul_core::config::Config;
use haneul_core::{Error, Kind, Result, clock};
use haneul_http::Routes;
use haneul_store::{Db, Stored, Tx};
use logic::hashing::Hasher;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
pub(crate) use token::Delegation;
use token::{Cache, Entry, Keys, Payload};

/// The service. Made once, shared in an `Arc`.
pub struct Identity {
    pub(crate) db: Db,
    pub(crate) config: haneul_core::config::Identity,
    pub(crate) compliance: Arc<logic::compliance::Compliance>,
    pub(crate) accounts: haneul_core::config::Accounts,
    pub(crate) attempts: logic::accounts::Attempts,
    pub(crate) region: String,
    pub(crate) public_url: String,
    pub(crate) hasher: Hasher,
    pub(crate) keys: Keys,
    /// Seal what is in credentials. Never rotated by itself: what they sealed lives until it is deleted.
    credential_keys: Keys,
    pub(crate) cache: Cache,
    /// What users are in their scopes.
    pub(crate) known: logic::known::Known,
    /// The rendered catalog with the sequence that it holds for, while it is the same for everybody.
    catalog: RwLock<Option<(u64, Bytes)>>,
    policy: RwLock<Arc<Policy>>,
}

impl Identity {
    /// Opens the key repository (and makes it at the first start). Nothing is written to the database;
    /// see [`Identity::bootstrap`].
    pub fn new(db: Db, config: &Config, keys_dir: PathBuf) -> Result<Self> {
        Ok(Self {
            db,
            config: config.identity.clone(),
            compliance: Arc::new(logic::compliance::Compliance::new(config.security_compliance.clone())?),
            accounts: config.accounts.clone(),
            attempts: logic::accounts::Attempts::default(),
            region: config.api.region.clone(),
            public_url: config.public_url(),
            hasher: Hasher::new(config.identity.bcrypt_rounds),
            credential_keys: Keys::open(keys_dir.with_file_name("credential-keys"))?,
            keys: Keys::open(keys_dir)?,
            cache: Cache::new(),
            known: logic::known::Known::default(),
            catalog: RwLock::new(None),
            policy: RwLock::new(Arc::new(Policy::new(RULES, &[])?)),
        })
    }

    /// The rules of all services, which every context carries. Until it is called: identity's own.
    pub fn set_policy(&self, policy: Arc<Policy>) {
        *self.policy.write().unwrap_or_else(PoisonError::into_inner) = policy;
    }

    /// The route table (API reference: Identity API v3).
    pub fn routes(self: &Arc<Self>) -> Routes<Identity> {
        api::routes(self)
    }

    /// Replaces the primary Fernet key by the staged one (`keystone-manage fernet_rotate`). Tokens that
    /// the two keys before it sealed stay good.
    pub fn rotate(&self) -> Result<()> {
        self.keys.rotate()
    }

    /// Rotates when the primary key is older than `identity.fernet_rotation_days`; says whether it did.
    pub fn rotate_if_due(&self) -> Result<bool> {
        let days = self.config.fernet_rotation_days;
        let due = days > 0 && clock::now() - self.keys.primary_since()? > days * 86_400 * clock::SECOND;
        if due {
            self.keys.rotate()?;
        }
        Ok(due)
    }

    /// Ends every cached validation when this transaction commits.
    pub(crate) async fn invalidate(&self, tx: &mut Tx) -> Result<()> {
        tx.next_number(store::REVOCATIONS).await?;
        let sequence = self.cache.sequence.clone();
        tx.after_commit(move || {
            sequence.fetch_add(1, Ordering::AcqRel);
        });
        Ok(())
    }

    /// The validated token. Unauthorized, always with the same text, for anything else.
    pub(crate) async fn validated(&self, token: &str) -> Result<Arc<Entry>> {
        let key = Cache::key(token);
        if self.db.is_shared() {
            self.cache.follow(self.db.counter(store::REVOCATIONS).await?);
        }
        if let Some(entry) = self.cache.get(&key, clock::now()) {
            return Ok(entry);
        }
        let payload = self.open(token)?;
        let sequence = self.cache.now();
        let mut tx = self.db.read().await?;
        let resolved = logic::resolve::resolve(&mut tx, &payload).await?;
        drop(tx);
        let entry = self.entry(sequence, resolved)?;
        self.cache.put(key, entry.clone(), clock::now());
        Ok(entry)
    }

    /// The validated token that a request is about, or that it shows for another one: Keystone answers 404 for one that
    /// is not good.
    pub(crate) async fn shown(&self, token: &str) -> Result<Arc<Entry>> {
        self.validated(token).await.map_err(|e| match e.kind() {
            Kind::Unauthorized => Error::not_found("Could not find token.").with_private(e.private()),
            _ => e,
        })
    }

    /// What the token of a request was made with. The token is good: the request came in by it.
    pub(crate) async fn delegation(&self, req: &haneul_http::Req) -> Result<Delegation> {
        let token = req.header("x-auth-token").ok_or_else(Error::unauthorized)?.to_owned();
        Ok(self.validated(&token).await?.delegation.clone())
    }

    /// Seals what a credential says.
    pub(crate) fn seal(&self, text: &str) -> Result<String> {
        self.credential_keys.seal(text.as_bytes())
    }

    /// What [`Identity::seal`] sealed.
    pub(crate) fn unseal(&self, sealed: &str) -> Result<String> {
        self.credential_keys
            .unseal(sealed)
            .and_then(|bytes| String::from_utf8(bytes).ok())
            .ok_or_else(|| {
                Error::internal("a credential was sealed by a key that is not in the directory credential-keys")
            })
    }

    /// What is inside a token that one of our keys sealed.
    pub(crate) fn open(&self, token: &str) -> Result<Payload> {
        let opened = match self.keys.open_token(token) {
            // Another process of ours may have made new keys.
            None if self.db.is_shared() && self.keys.read_again() => self.keys.open_token(token),
            opened => opened,
        };
        opened
            .and_then(|bytes| Payload::decode(&bytes))
            .ok_or_else(|| Error::unauthorized().with_private("not a token of ours"))
    }

    pub(crate) fn entry(&self, sequence: u64, resolved: logic::resolve::Resolved) -> Result<Arc<Entry>> {
        Ok(Arc::new(Entry {
            sequence,
            body: serde_json::to_vec(&serde_json::json!({"token": resolved.token}))?.into(),
            ctx: Arc::new(resolved.ctx),
            delegation: resolved.delegation,
            rules: resolved.rules,
            with_catalog: OnceLock::new(),
        }))
    }

    /// The body of a validation, with the catalog where the scope has one.
    pub(crate) async fn body(&self, entry: &Entry, catalog: bool) -> Result<Bytes> {
        if !catalog || entry.ctx.scope == haneul_auth::ScopeKind::Unscoped {
            return Ok(entry.body.clone());
        }
        if let Some(body) = entry.with_catalog.get() {
            return Ok(body.clone());
        }
        let catalog = self.rendered_catalog(&entry.ctx).await?;
        let head = entry
            .body
            .strip_suffix(b"}}")
            .ok_or_else(|| Error::internal("a token's body has an unexpected end"))?;
        let body: Bytes = [head, b",\"catalog\":", &catalog, b"}}"].concat().into();
        Ok(entry.with_catalog.get_or_init(|| body).clone())
    }

    /// The catalog as JSON text, for whoever asks: most clouds' is the same for all of them.
    pub(crate) async fn rendered_catalog(&self, ctx: &CtxInner) -> Result<Bytes> {
        let now = self.cache.now();
        if let Some((sequence, text)) = &*self.catalog.read().unwrap_or_else(PoisonError::into_inner)
            && *sequence == now
        {
            return Ok(text.clone());
        }
        let reader = logic::catalog::Reader {
            user: &ctx.user_id,
            project: match &ctx.scope {
                haneul_auth::ScopeKind::Project { id, .. } => Some(id),
                _ => None,
            },
        };
        let mut tx = self.db.read().await?;
        let (catalog, shared) = logic::catalog::catalog(&mut tx, reader).await?;
        drop(tx);
        let text: Bytes = serde_json::to_vec(&catalog)?.into();
        if shared {
            *self.catalog.write().unwrap_or_else(PoisonError::into_inner) = Some((now, text.clone()));
        }
        Ok(text)
    }
}

/// For other services, in their transactions.
impl Identity {
    /// Whether the project exists.
    pub async fn project_exists(&self, tx: &mut Tx, id: &str) -> Result<bool> {
        Ok(tx.find::<Project>(id).await?.is_some())
    }
    /// The project.
    pub async fn project(&self, tx: &mut Tx, id: &str) -> Result<Option<Stored<Project>>> {
        tx.find(id).await
    }
    /// The user.
    pub async fn user(&self, tx: &mut Tx, id: &str) -> Result<Option<Stored<User>>> {
        tx.find(id).await
    }
}

impl Authenticator for Identity {
    fn authenticate<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Arc<CtxInner>>> {
        Box::pin(async move {
            let entry = self.validated(token).await?;
            match entry.rules {
                None => Ok(entry.ctx.clone()),
                Some(_) => Err(Error::unauthorized().with_private("a token with access rules, and no request")),
            }
        })
    }
    /// Access rules name paths as the service knows them: what stands before, here the service's name, may be there or
    /// not.
    fn authenticate_for<'a>(&'a self, token: &'a str, asked: Asked<'a>) -> BoxFuture<'a, Result<Arc<CtxInner>>> {
        Box::pin(async move {
            let entry = self.validated(token).await?;
            // Other services take it. Here it would reach what is no business of who signs requests to these
            // (keystone's auth_context middleware).
            if asked.service == "identity" && entry.ctx.methods.iter().any(|m| m == token::EC2_METHOD) {
                return Err(Error::forbidden(
                    "EC2 credential tokens cannot be used for authorization.",
                ));
            }
            if let Some(rules) = &entry.rules {
                let own = asked.path.strip_prefix(asked.prefix).unwrap_or(asked.path);
                let allows = |path| rules.iter().any(|r| r.allows(asked.service, asked.method, path));
                if !allows(asked.path) && !allows(own) {
                    return Err(Error::unauthorized().with_private(format!(
                        "no access rule of the application credential allows {} {}",
                        asked.method, asked.path
                    )));
                }
            }
            Ok(entry.ctx.clone())
        })
    }
    fn policy(&self) -> Arc<Policy> {
        self.policy.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
