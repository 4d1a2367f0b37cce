//! POST /v3/ec2tokens and /v3/s3tokens: services that got a request signed with an EC2 credential ask whose it is
//! (keystone/api/_shared/EC2_S3_Resource.py). Only services and administrators may: who has seen a signature, such as
//! that of a link, must not get a token for it (CVE-2025-65073).
//!
//! The token is worth no more than what the credential was made with: its trust, application credential or access
//! token stands in the token, which ends with it and with the credential.

use super::credentials::ec2_id;
use crate::Identity;
use crate::logic::ec2::{Ec2, check_s3};
use crate::logic::issue::{Issued, Proof};
use crate::logic::resolve::enabled_user;
use crate::model::{AccessToken, AppCred, Credential, EC2, Trust};
use crate::store::{blob_of, revocations_seen};
use crate::token::{EC2_METHOD, Scope};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use haneul_auth::Target;
use haneul_core::{Error, Result, clock};
use haneul_http::{Reply, Req};
use haneul_store::Tx;
use http::StatusCode;
use serde_json::{Map, Value};
use std::sync::Arc;

/// By what tokens of a credential are known: the audit id that their chains begin with.
pub(crate) fn chain_of(credential: &str) -> String {
    let bytes = (0..16).map(|i| {
        credential
            .get(2 * i..2 * i + 2)
            .and_then(|h| u8::from_str_radix(h, 16).ok())
    });
    URL_SAFE_NO_PAD.encode(bytes.map(Option::unwrap_or_default).collect::<Vec<u8>>())
}

fn wrong(why: impl std::fmt::Display) -> Error {
    Error::unauthorized().with_private(why)
}

/// The credentials of a body, under any of the names that Keystone takes.
async fn asked(req: &mut Req) -> Result<Map<String, Value>> {
    let mut body = req.json().await?;
    let Some(map) = body.as_object_mut().filter(|m| !m.is_empty()) else {
        return Err(Error::field("credentials", "request must include a request body"));
    };
    for name in ["credentials", "credential", "ec2Credentials"] {
        if let Some(Value::Object(inside)) = map.get_mut(name).map(Value::take) {
            return Ok(inside);
        }
    }
    Err(wrong("EC2 signature not supplied"))
}

/// POST /v3/ec2tokens
pub(crate) async fn ec2_tokens(app: Arc<Identity>, mut req: Req) -> Result<Reply> {
    req.ctx()?.enforce("identity:ec2tokens_validate", &Target::default())?;
    let asked = asked(&mut req).await?;
    let issued = app
        .by_signature(&asked, |secret| {
            let request = Ec2::new(&asked);
            request.check(secret)?;
            request.check_time(clock::now())
        })
        .await?;
    let body = app.body(&issued.entry, true).await?;
    Ok(Reply::bytes(StatusCode::OK, "application/json", body).header("x-subject-token", &issued.token))
}

/// POST /v3/s3tokens. The token itself is not told, only what it says.
pub(crate) async fn s3_tokens(app: Arc<Identity>, mut req: Req) -> Result<Reply> {
    req.ctx()?.enforce("identity:s3tokens_validate", &Target::default())?;
    let asked = asked(&mut req).await?;
    let issued = app
        .by_signature(&asked, |secret| {
            check_s3(&asked, secret)?;
            Ec2::new(&asked).check_time(clock::now())
        })
        .await?;
    let body = app.body(&issued.entry, true).await?;
    Ok(Reply::bytes(StatusCode::OK, "application/json", body))
}

/// What a credential was made with, when it was less than its user's own password.
async fn origin_of(tx: &mut Tx, c: &Credential, proof: &mut Proof) -> Result<Option<Trust>> {
    let project = c.project_id.as_deref().unwrap_or_default();
    if let Some(id) = &c.app_cred_id {
        let given = tx
            .find::<AppCred>(id)
            .await?
            .ok_or_else(|| wrong("its application credential is gone"))?;
        if given.project_id != project || given.user_id != c.user_id {
            return Err(wrong(
                "EC2 credential project does not match the application credential project",
            ));
        }
        proof.app_cred = Some(given.value);
    }
    if let Some(id) = &c.access_token_id {
        let given = tx
            .find::<AccessToken>(id)
            .await?
            .ok_or_else(|| wrong("its access token is gone"))?;
        if given.project_id != project || given.user_id != c.user_id {
            return Err(wrong(
                "EC2 credential project does not match the OAuth1 access token project",
            ));
        }
        proof.access_token = Some(given.value);
    }
    let Some(id) = &c.trust_id else {
        return Ok(None);
    };
    let trust = tx
        .find::<Trust>(id)
        .await?
        .ok_or_else(|| wrong("its trust is gone"))?
        .value;
    let whose = match trust.impersonation {
        true => &trust.trustor_user_id,
        false => &trust.trustee_user_id,
    };
    if trust.project_id != project || *whose != c.user_id {
        return Err(wrong("EC2 credential project does not match the trust's"));
    }
    // A token of a trust is its trustee's, whomever it stands for.
    proof.user_id = Some(trust.trustee_user_id.clone());
    Ok(Some(trust))
}

impl Identity {
    /// The token of the credential whose access key is named, when `check` finds that its secret signed the request.
    async fn by_signature(
        &self,
        asked: &Map<String, Value>,
        check: impl Fn(&str) -> Result<(), &'static str>,
    ) -> Result<Issued> {
        let access = asked.get("access").and_then(Value::as_str).unwrap_or_default();
        if access.is_empty() {
            return Err(wrong("EC2 signature not supplied"));
        }
        let sequence = self.cache.now();
        let mut tx = self.db.read().await?;
        let seen = revocations_seen(&mut tx).await?;
        let found = match tx.find::<Credential>(&ec2_id(access)).await? {
            Some(c) if c.kind == EC2 => c,
            // The asker is a service: whether there is the key is no secret from it.
            _ => return Err(Error::not_found("EC2 access key not found.")),
        };
        let blob = self.unseal(&blob_of(&mut tx, &found.id).await?)?;
        let blob: Value = serde_json::from_str(&blob).unwrap_or(Value::Null);
        let secret = blob.get("secret").and_then(Value::as_str).filter(|s| !s.is_empty());
        let secret = secret.ok_or_else(|| wrong("the credential has no secret"))?;
        check(secret).map_err(wrong)?;
        // Of the one that it was made by, also where a trust's trustee takes the token.
        enabled_user(&mut tx, &found.user_id).await?;
        let mut proof = Proof {
            user_id: Some(found.user_id.clone()),
            methods: vec![EC2_METHOD.to_owned()],
            chain: Some(chain_of(&found.id)),
            ..Proof::default()
        };
        let trust = origin_of(&mut tx, &found, &mut proof).await?;
        let project = found
            .project_id
            .clone()
            .ok_or_else(|| wrong("the credential has no project"))?;
        self.issue(tx, (sequence, seen), &proof, Scope::Project(project), trust.as_ref())
            .await
            .map_err(|e| match e.kind() {
                haneul_core::Kind::Forbidden => wrong(e.private()),
                _ => e,
            })
    }
}
