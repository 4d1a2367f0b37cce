//! What identity keeps: pure types, no IO and no wire format beyond serde.

mod access_rules;
mod accounts;
mod actors;
mod catalog;
mod credentials;
mod extensions;
mod limits;
mod oauth;
mod resources;
mod trusts;

pub use access_rules::AccessRule;
pub(crate) use access_rules::of_owner;
pub use accounts::{Account, AccountKind, Origin};
pub use actors::{ActorKind, AppCred, Assignment, Group, ImpliedRole, Membership, Role, TargetKind, User};
pub use catalog::{CatalogService, Endpoint, Region};
pub use credentials::Credential;
pub(crate) use credentials::{EC2, TOTP, of_user};
pub use extensions::{Consumer, DomainConfig, EndpointFilter, EndpointGroup, PolicyAssociation, PolicyDoc};
pub use limits::{Limit, RegisteredLimit};
pub use oauth::{AccessToken, RequestToken};
pub use resources::{DEFAULT_DOMAIN, Domain, Project};
pub use trusts::Trust;
pub(crate) use trusts::between;

use haneul_core::Error;

/// Keystone's "not found" (keystone/exception.py, `NotFound` and below).
pub(crate) fn missing(what: &str, id: &str) -> Error {
    Error::not_found(format!("Could not find {what}: {id}."))
}

/// Implements `Resource` for a struct with `id` and `name` members.
macro_rules! resource {
    ($t:ty, $kind:literal, $table:literal, $project:expr, { $($column:literal => $value:expr),* $(,)? }) => {
        impl haneul_store::Resource for $t {
            const KIND: &'static str = $kind;
            const TABLE: &'static str = $table;
            const COLUMNS: &'static [&'static str] = &[$($column),*];
            fn id(&self) -> &str {
                &self.id
            }
            fn project_id(&self) -> Option<&str> {
                let project: fn(&Self) -> Option<&str> = $project;
                project(self)
            }
            fn name(&self) -> &str {
                self.label()
            }
            fn columns(&self) -> Vec<haneul_store::V> {
                vec![$({ let value: fn(&Self) -> haneul_store::V = $value; value(self) }),*]
            }
        }
    };
}
pub(crate) use resource;

/// Implements `Secured` as identity does: nothing is hidden, refusals are 403.
macro_rules! secured {
    ($t:ty, $what:literal, $target:expr) => {
        impl haneul_auth::Secured for $t {
            const HIDDEN: bool = false;
            fn target(&self) -> haneul_auth::Target {
                let target: fn(&Self) -> haneul_auth::Target = $target;
                target(self)
            }
            fn visible(&self, _ctx: &haneul_auth::Ctx) -> bool {
                true
            }
            fn not_found(id: &str) -> haneul_core::Error {
                $crate::model::missing($what, id)
            }
        }
    };
}
pub(crate) use secured;
