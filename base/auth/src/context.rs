//! The request context: who, in which scope, with which roles, until when.

use crate::policy::Policy;
use haneul_core::Result;
use haneul_store::Actor;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

/// A boxed, sendable future.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A role with its id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleRef {
    pub id: String,
    pub name: String,
}

/// What the token is good for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ScopeKind {
    Project {
        id: String,
        name: String,
        domain_id: String,
        domain_name: String,
    },
    Domain {
        id: String,
        name: String,
    },
    System,
    Unscoped,
}

/// See the module. Made by an [`Authenticator`]; cheap to clone.
#[derive(Clone, Debug)]
pub struct Ctx {
    pub inner: Arc<CtxInner>,
    /// `req-...`, as the client got it.
    pub request_id: Arc<str>,
    pub policy: Arc<Policy>,
}

/// The part of a context that a validated token gives; cached by token.
#[derive(Clone, Debug)]
pub struct CtxInner {
    pub user_id: String,
    pub user_name: String,
    pub user_domain_id: String,
    pub user_domain_name: String,
    pub scope: ScopeKind,
    /// With implied roles.
    pub roles: Vec<RoleRef>,
    /// Microseconds since 1970.
    pub expires_at: i64,
    pub issued_at: i64,
    pub audit_ids: Vec<String>,
    pub methods: Vec<String>,
    pub application_credential_id: Option<String>,
    /// Microseconds at which the user's password expires.
    pub password_expires_at: Option<i64>,
}

impl std::ops::Deref for Ctx {
    type Target = CtxInner;
    fn deref(&self) -> &CtxInner {
        &self.inner
    }
}

impl Ctx {
    /// The project of the scope, or "" for other scopes.
    pub fn project_id(&self) -> &str {
        match &self.inner.scope {
            ScopeKind::Project { id, .. } => id,
            _ => "",
        }
    }
    /// The domain of a domain scope.
    pub fn domain_scope(&self) -> Option<&str> {
        match &self.inner.scope {
            ScopeKind::Domain { id, .. } => Some(id),
            _ => None,
        }
    }
    pub fn is_system(&self) -> bool {
        self.inner.scope == ScopeKind::System
    }
    pub fn has_role(&self, name: &str) -> bool {
        self.inner.roles.iter().any(|r| r.name.eq_ignore_ascii_case(name))
    }
    /// Whether the caller is an administrator of the cloud (`role:admin`).
    pub fn is_admin(&self) -> bool {
        self.has_role("admin")
    }
    /// Who acts, for `db.write`.
    pub fn actor(&self) -> Actor {
        Actor {
            user: self.inner.user_id.clone(),
            project: self.project_id().to_owned(),
            request_id: self.request_id.to_string(),
        }
    }
    /// Whether `rule` holds for `target`, without an error.
    pub fn may(&self, rule: &str, target: &crate::Target) -> bool {
        self.policy.check(rule, self, target)
    }
    /// Demands `rule` on `target`.
    pub fn enforce(&self, rule: &str, target: &crate::Target) -> Result<()> {
        if self.may(rule, target) {
            Ok(())
        } else {
            Err(crate::access::refused(rule))
        }
    }
}

/// The request that a token came with, for tokens that are good for some requests only.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The type of the service, as in the catalog.
    pub service: &'a str,
    pub method: &'a str,
    /// As it was sent, with the first part that names the service.
    pub path: &'a str,
    /// The first part of the path, under which the service answers.
    pub prefix: &'a str,
}

/// Turns a token into a context. Implemented by identity; caches hold for one revocation sequence.
pub trait Authenticator: Send + Sync {
    /// `Err` with kind Unauthorized for anything that is not a valid token, always the same text.
    fn authenticate<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Arc<CtxInner>>>;
    /// As [`Authenticator::authenticate`], for the request at hand: Unauthorized, with the same text, for a token that
    /// is not good for this one.
    fn authenticate_for<'a>(&'a self, token: &'a str, _asked: Asked<'a>) -> BoxFuture<'a, Result<Arc<CtxInner>>> {
        self.authenticate(token)
    }
    fn policy(&self) -> Arc<Policy>;
}
