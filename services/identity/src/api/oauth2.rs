//! POST /v3/OS-OAUTH2/token (API reference: Identity API v3 extensions, "OS-OAUTH2"): an application credential as an
//! OAuth 2.0 client (RFC 6749, 4.4). Answers and errors are OAuth's own.

use crate::Identity;
use crate::logic::login::{Beside, Outcome};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use haneul_core::{Kind, Result, clock};
use haneul_http::request::percent_decode;
use haneul_http::{Reply, Req};
use http::StatusCode;
use serde_json::json;
use std::sync::Arc;

fn refused(status: StatusCode, error: &str, description: &str) -> Reply {
    let reply = Reply::json(status, &json!({"error": error, "error_description": description}));
    match status {
        StatusCode::UNAUTHORIZED => reply.header("www-authenticate", "Keystone uri=\"/identity\""),
        _ => reply,
    }
}

/// Client id and secret of the header `Authorization` of type Basic.
fn basic(req: &Req) -> Option<(String, String)> {
    let (scheme, rest) = req.header("authorization")?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let text = String::from_utf8(STANDARD.decode(rest.trim()).ok()?).ok()?;
    let (id, secret) = text.split_once(':')?;
    Some((id.to_owned(), secret.to_owned()))
}

/// POST /v3/OS-OAUTH2/token
pub(crate) async fn token(app: Arc<Identity>, mut req: Req) -> Result<Reply> {
    let header = basic(&req);
    let bytes = req.bytes().await?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let form = |name: &str| {
        text.split('&').find_map(|pair| {
            let (k, v) = pair.split_once('=')?;
            (percent_decode(k, true) == name).then(|| percent_decode(v, true))
        })
    };
    let bad = |error: &str, why: &str| Ok(refused(StatusCode::BAD_REQUEST, error, why));
    match form("grant_type").as_deref() {
        Some("client_credentials") => {}
        None => return bad("invalid_request", "The parameter grant_type is required."),
        Some(_) => {
            return bad(
                "unsupported_grant_type",
                "The parameter grant_type is not supported: write client_credentials.",
            );
        }
    }
    let client = header.or_else(|| Some((form("client_id")?, form("client_secret")?)));
    let none = || {
        refused(
            StatusCode::UNAUTHORIZED,
            "invalid_client",
            "Client authentication failed.",
        )
    };
    let Some((id, secret)) = client else {
        return Ok(none());
    };
    let auth = json!({"identity": {"methods": ["application_credential"],
        "application_credential": {"id": id, "secret": secret}}});
    match app.login(&auth, &Beside::default()).await {
        Ok(Outcome::Issued(issued)) => {
            let left = (issued.entry.ctx.expires_at - clock::now()) / clock::SECOND;
            Ok(
                Reply::ok(&json!({"access_token": issued.token, "token_type": "Bearer", "expires_in": left}))
                    .header("cache-control", "no-store"),
            )
        }
        Ok(Outcome::MoreNeeded { .. }) => Ok(none()),
        Err(e) if e.kind() == Kind::Unauthorized => Ok(none()),
        Err(e) => Err(e),
    }
}
