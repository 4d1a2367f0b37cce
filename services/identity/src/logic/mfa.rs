//! More than one method (API reference: Identity API v3, "Multi-Factor Authentication", auth receipts). Who has shown a
//! part of what the user's rules ask for gets a receipt for it, and shows the rest with that.

use super::issue::Proof;
use super::login::{Outcome, SUPPORTED};
use super::resolve::enabled_user;
use crate::Identity;
use crate::model::User;
use crate::store::{is_revoked, revocations_seen};
use crate::token::{Payload, Scope};
use haneul_core::clock::{SECOND, iso_micros};
use haneul_core::{Error, Result, clock};
use haneul_store::Tx;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// keystone.conf `[receipt] expiration`.
const RECEIPT_SECONDS: i64 = 300;

/// What is sealed in a receipt. It is JSON, and so never taken for the inside of a token.
#[derive(Serialize, Deserialize)]
struct Receipt {
    user_id: String,
    methods: Vec<String>,
    expires_at: i64,
    issued_at: i64,
    /// As in a token.
    seen: i64,
}

/// The rules of a user, each reduced to methods that there are, when none of them is met (keystone/auth/core.py,
/// `UserMFARulesValidator`). Rules that name no method that there is are none: they would lock the user out.
pub(crate) async fn unmet(tx: &mut Tx, user: &str, methods: &[String]) -> Result<Option<Vec<Vec<String>>>> {
    let Some(user) = tx.find::<User>(user).await? else {
        return Err(Error::unauthorized());
    };
    if user.options.get("multi_factor_auth_enabled") == Some(&Value::Bool(false)) {
        return Ok(None);
    }
    let Some(rules) = user.options.get("multi_factor_auth_rules").and_then(Value::as_array) else {
        return Ok(None);
    };
    let rules: Vec<Vec<String>> = rules
        .iter()
        .filter_map(Value::as_array)
        .map(|rule| {
            let known = rule.iter().filter_map(Value::as_str).filter(|m| SUPPORTED.contains(m));
            known.map(str::to_owned).collect::<Vec<_>>()
        })
        .filter(|rule| !rule.is_empty())
        .collect();
    let met = |rule: &Vec<String>| rule.iter().all(|m| methods.contains(m));
    Ok((!rules.is_empty() && !rules.iter().any(met)).then_some(rules))
}

impl Identity {
    /// The receipt for what was shown. It says who somebody is, and nothing of what a credential or token is bound to:
    /// who has shown one of these shows the rest together with it.
    pub(crate) async fn more_needed(&self, user: &str, proof: &Proof, rules: &[Vec<String>]) -> Result<Outcome> {
        if proof.is_bound() {
            return Err(Error::unauthorized().with_private("no receipt for what is worth less than its user"));
        }
        let mut tx = self.db.read().await?;
        let seen = revocations_seen(&mut tx).await?;
        let (user, domain) = enabled_user(&mut tx, user).await?;
        drop(tx);
        let now = clock::now();
        let receipt = Receipt {
            user_id: user.id.clone(),
            methods: proof.methods.clone(),
            expires_at: now + RECEIPT_SECONDS * SECOND,
            issued_at: now,
            seen,
        };
        let answer = json!({
            "receipt": {
                "methods": receipt.methods,
                "user": {
                    "id": user.id,
                    "name": user.name,
                    "domain": {"id": domain.id, "name": domain.name},
                },
                "expires_at": iso_micros(receipt.expires_at),
                "issued_at": iso_micros(receipt.issued_at),
            },
            "required_auth_methods": rules,
        });
        let receipt = self.keys.seal(&serde_json::to_vec(&receipt)?)?;
        Ok(Outcome::MoreNeeded { receipt, answer })
    }

    /// Adds the methods of a receipt to what was shown now, which is of the same user.
    pub(crate) async fn by_receipt(&self, receipt: &str, proof: &mut Proof) -> Result<()> {
        let wrong = |why: &str| Error::unauthorized().with_private(why);
        let opened = self
            .keys
            .open_token(receipt)
            .ok_or_else(|| wrong("not a receipt of ours"))?;
        let receipt: Receipt = serde_json::from_slice(&opened).map_err(|_| wrong("not a receipt"))?;
        if receipt.expires_at <= clock::now() {
            return Err(wrong("the receipt has expired"));
        }
        proof.is(receipt.user_id.clone())?;
        let like = Payload {
            user_id: receipt.user_id,
            methods: vec![],
            scope: Scope::Unscoped,
            expires_at: receipt.expires_at,
            issued_at: receipt.issued_at,
            audit_ids: vec![],
            app_cred_id: None,
            trust_id: None,
            access_token_id: None,
            seen: receipt.seen,
        };
        let mut tx = self.db.read().await?;
        if is_revoked(&mut tx, &like, &[("user", &like.user_id)]).await? {
            return Err(wrong("the receipt was revoked"));
        }
        for m in receipt.methods {
            if !proof.methods.contains(&m) {
                proof.methods.push(m);
            }
        }
        Ok(())
    }
}
