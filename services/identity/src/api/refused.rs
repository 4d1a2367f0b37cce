//! Paths that Keystone has only to say why they do nothing.

use crate::Identity;
use haneul_core::{Error, Kind, Result};
use haneul_http::{Reply, Req};
use http::StatusCode;
use serde_json::json;
use std::sync::Arc;

/// GET of what is only posted to: /v3/ec2tokens, /v3/s3tokens, /v3/OS-OAUTH1/request_token and access_token.
pub(crate) async fn post_only(_: Arc<Identity>, req: Req) -> Result<Reply> {
    Err(Error::new(
        Kind::MethodNotAllowed,
        format!(
            "The method {} is not allowed for the requested URL: use POST.",
            req.method
        ),
    ))
}

/// Anything but POST on /v3/OS-OAUTH2/token, in OAuth 2.0's words.
pub(crate) async fn oauth2_post_only(_: Arc<Identity>, _: Req) -> Result<Reply> {
    let why = "The method is not allowed for the requested URL: use POST.";
    Ok(Reply::json(
        StatusCode::METHOD_NOT_ALLOWED,
        &json!({"error": "other_error", "error_description": why}),
    ))
}

/// GET /v3/OS-SIMPLE-CERT/ca and certificates (keystone/api/os_simple_cert.py).
pub(crate) async fn no_pki(_: Arc<Identity>, _: Req) -> Result<Reply> {
    Err(Error::new(
        Kind::Gone,
        "This API is no longer available due to the removal of support for PKI tokens.",
    ))
}

/// GET /v3/auth/tokens/OS-PKI/revoked (keystone/api/auth.py): tokens are not kept, and so there is no such list.
pub(crate) async fn no_revocation_list(_: Arc<Identity>, _: Req) -> Result<Reply> {
    Err(Error::forbidden(
        "You are not authorized to perform the requested action: there is no list of revoked tokens. Revocation events are at /v3/OS-REVOKE/events.",
    ))
}
