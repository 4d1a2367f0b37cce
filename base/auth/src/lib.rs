//! Who asks, and whether they may: request context, oslo.policy rules, look-up with permission, quotas.
//!
//! Look-up and permission are one call: [`fetch`] yields an [`Authorized`], and the store demands it for
//! every change. Lists get a [`Scope`], creates a [`Created`]. The first thing that is wrong decides: what
//! the caller may not see is not found (where the service hides), what they may see but not do is forbidden.
//!
//! Knows nothing of HTTP. identity implements [`Authenticator`].

pub mod access;
pub mod context;
pub mod policy;
pub mod quota;

pub use access::{Action, Authorized, Created, Scope, Secured, Target, allow_create, authorize, fetch, scope};
pub use context::{Asked, Authenticator, BoxFuture, Ctx, RoleRef, ScopeKind};
pub use policy::{Check, Policy, RuleDefault};

/// Default rules, in the words of the OpenStack personas (admin > manager > member > reader, by implied
/// roles; scope by project).
pub mod persona {
    pub const ADMIN: &str = "role:admin";
    pub const ANY: &str = "@";
    pub const NOBODY: &str = "!";
    pub const PROJECT_READER: &str = "role:reader and project_id:%(project_id)s";
    pub const PROJECT_MEMBER: &str = "role:member and project_id:%(project_id)s";
    pub const PROJECT_READER_OR_ADMIN: &str = "role:admin or (role:reader and project_id:%(project_id)s)";
    pub const PROJECT_MEMBER_OR_ADMIN: &str = "role:admin or (role:member and project_id:%(project_id)s)";
    pub const PROJECT_MANAGER_OR_ADMIN: &str = "role:admin or (role:manager and project_id:%(project_id)s)";
}
