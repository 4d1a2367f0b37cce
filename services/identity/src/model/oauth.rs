//! What OAuth 1.0a gives to consumers: request tokens, and the access tokens that they become.

use super::{resource, secured};
use haneul_auth::Target;
use serde::{Deserialize, Serialize};

/// A request token (API reference: Identity API v3 extensions, "OS-OAUTH1"). Its secret and its verifier are sealed in a
/// table of their own.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RequestToken {
    pub id: String,
    pub consumer_id: String,
    /// What the consumer asks access to.
    pub project_id: String,
    /// Who authorized it.
    #[serde(default)]
    pub user_id: Option<String>,
    /// Ids of the roles that were authorized.
    #[serde(default)]
    pub roles: Vec<String>,
    /// Microseconds since 1970.
    #[serde(default)]
    pub expires_at: Option<i64>,
}

impl RequestToken {
    fn label(&self) -> &str {
        ""
    }
}

resource!(RequestToken, "oauth_request_token", "identity_request_token", |t| Some(t.project_id.as_str()), {
    "consumer_id" => |t| t.consumer_id.as_str().into(),
});
secured!(RequestToken, "Request token", |_| Target::default());

/// An access token: what its user lets the consumer do in one project. Its secret is sealed in a table of its own.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AccessToken {
    pub id: String,
    pub consumer_id: String,
    pub project_id: String,
    /// Who authorized it, and whom its tokens are of.
    pub user_id: String,
    /// Ids of its roles. They hold while the user has them.
    pub roles: Vec<String>,
    /// Microseconds since 1970.
    #[serde(default)]
    pub expires_at: Option<i64>,
}

impl AccessToken {
    fn label(&self) -> &str {
        ""
    }
}

resource!(AccessToken, "oauth_access_token", "identity_access_token", |t| Some(t.project_id.as_str()), {
    "consumer_id" => |t| t.consumer_id.as_str().into(),
    "user_id" => |t| t.user_id.as_str().into(),
});
secured!(AccessToken, "Access token", |t| super::of_user(&t.user_id));
