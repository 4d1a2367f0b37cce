//! Trusts: what one user lets another one do.

use super::{resource, secured};
use haneul_auth::Target;
use serde::{Deserialize, Serialize};

/// A trust (API reference: Identity API v3 extensions, "OS-TRUST").
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Trust {
    pub id: String,
    pub trustor_user_id: String,
    pub trustee_user_id: String,
    pub project_id: String,
    /// Tokens of it are the trustor's, not the trustee's.
    pub impersonation: bool,
    /// Ids of the roles that it lends. They hold while the user at the chain's root has them.
    pub roles: Vec<String>,
    /// Microseconds since 1970.
    #[serde(default)]
    pub expires_at: Option<i64>,
    /// How many tokens it still gives. The last one lives its life.
    #[serde(default)]
    pub remaining_uses: Option<i64>,
    /// How long a chain may still follow.
    pub redelegation_count: i64,
    /// The trust whose token made this one.
    #[serde(default)]
    pub redelegated_trust_id: Option<String>,
}

impl Trust {
    fn label(&self) -> &str {
        ""
    }
}

resource!(Trust, "trust", "identity_trust", |t| Some(t.project_id.as_str()), {
    "trustor_user_id" => |t| t.trustor_user_id.as_str().into(),
    "trustee_user_id" => |t| t.trustee_user_id.as_str().into(),
    "redelegated_trust_id" => |t| t.redelegated_trust_id.as_deref().into(),
});
secured!(Trust, "trust", |t| between(&t.trustor_user_id, &t.trustee_user_id));

/// What rules about a trust between these two are checked against.
pub(crate) fn between(trustor: &str, trustee: &str) -> Target {
    Target::default()
        .with("target.trust.trustor_user_id", trustor)
        .with("target.trust.trustee_user_id", trustee)
}
