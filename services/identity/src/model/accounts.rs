//! Accounts: whom the provider has to do with, a person or an organisation.

use super::{resource, secured};
use haneul_auth::Target;
use serde::{Deserialize, Serialize};

/// What an account is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AccountKind {
    /// One user with one project, both of the default domain and of the account's name.
    Person,
    /// A domain of its own, whose first user manages its users, projects and assignments.
    Organization,
}

impl AccountKind {
    /// As requests write it.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "person" => Some(Self::Person),
            "organization" => Some(Self::Organization),
            _ => None,
        }
    }
}

/// Who made an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// `haneul account create`
    Operator,
    /// The public sign-up.
    SignUp,
}

/// An account. Its users, project and domain are Keystone's own; this row says that they belong together, and whose
/// they are. It goes with its project (a person's) or its domain (an organisation's).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Account {
    pub id: String,
    pub kind: AccountKind,
    pub name: String,
    pub domain_id: String,
    /// The first project.
    pub project_id: String,
    /// The user who may manage it.
    pub owner_id: String,
    pub origin: Origin,
    /// Where a sign-up came from.
    #[serde(default)]
    pub address: Option<String>,
}

impl Account {
    fn label(&self) -> &str {
        &self.name
    }
}

resource!(Account, "account", "identity_account", |a| Some(a.project_id.as_str()), {
    "domain_id" => |a| a.domain_id.as_str().into(),
    "address" => |a| a.address.as_deref().into(),
});
secured!(Account, "account", |a| Target {
    domain_id: Some(a.domain_id.clone()),
    ..Target::default()
});
