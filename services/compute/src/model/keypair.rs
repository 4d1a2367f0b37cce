//! Key pairs: of a user, found by name.

use haneul_auth::{Ctx, Secured, Target};
use haneul_core::Error;
use haneul_store::{Resource, V};
use serde::{Deserialize, Serialize};

/// A public key of a user. The private half of a generated pair is shown once and never stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Keypair {
    /// `USER/NAME`: names are unique per user.
    pub key: String,
    pub number: i64,
    pub user_id: String,
    pub name: String,
    /// `ssh` or `x509`.
    #[serde(rename = "type")]
    pub kind: String,
    pub public_key: String,
    pub fingerprint: String,
}

impl Keypair {
    /// The composed key.
    pub fn key(user: &str, name: &str) -> String {
        format!("{user}/{name}")
    }
}

impl Resource for Keypair {
    const KIND: &'static str = "keypair";
    const TABLE: &'static str = "keypair";
    const COLUMNS: &'static [&'static str] = &["user_id"];
    fn id(&self) -> &str {
        &self.key
    }
    fn project_id(&self) -> Option<&str> {
        None
    }
    fn name(&self) -> &str {
        &self.name
    }
    fn columns(&self) -> Vec<V> {
        vec![self.user_id.as_str().into()]
    }
}

impl Secured for Keypair {
    fn target(&self) -> Target {
        Target::user(&self.user_id)
    }
    fn visible(&self, ctx: &Ctx) -> bool {
        ctx.is_admin() || self.user_id == ctx.user_id
    }
    fn not_found(key: &str) -> Error {
        let (user, name) = key.split_once('/').unwrap_or(("", key));
        Error::not_found(format!("Keypair {name} not found for user {user}"))
    }
}
