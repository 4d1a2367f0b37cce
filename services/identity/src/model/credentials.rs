//! Credentials of other systems that users keep here.

use super::{resource, secured};
use haneul_auth::Target;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The type whose credentials are looked up by their access key.
pub(crate) const EC2: &str = "ec2";

/// The type whose credentials give one-time passwords.
pub(crate) const TOTP: &str = "totp";

/// A credential (API reference: Identity API v3, "Credentials"). What it says (`blob`) is sealed in a table of its
/// own and never part of the document.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Credential {
    /// Of type `ec2`: the SHA-256 of the access key.
    pub id: String,
    pub user_id: String,
    #[serde(default)]
    pub project_id: Option<String>,
    #[serde(rename = "type")]
    pub kind: String,
    /// Microseconds at which the blob was last set; what makes a new blob a change.
    pub blob_set_at: i64,
    /// The trust, application credential or OAuth access token whose token made it. Whatever is done with the credential stays within.
    #[serde(default)]
    pub trust_id: Option<String>,
    #[serde(default)]
    pub app_cred_id: Option<String>,
    #[serde(default)]
    pub access_token_id: Option<String>,
    /// Attributes that users added.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl Credential {
    fn label(&self) -> &str {
        ""
    }
}

resource!(Credential, "credential", "identity_credential", |c| c.project_id.as_deref(), {
    "user_id" => |c| c.user_id.as_str().into(),
    "kind" => |c| c.kind.as_str().into(),
});
secured!(Credential, "credential", |c| of_user(&c.user_id));

/// What rules about a credential of this user are checked against.
pub(crate) fn of_user(user: &str) -> Target {
    Target::user(user).with("target.credential.user_id", user)
}
