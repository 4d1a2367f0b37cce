//! What a handler answers.

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode};
use serde::Serialize;

/// An answer. Made by the constructors, refined by [`Reply::header`].
#[derive(Debug)]
pub struct Reply(pub Response<Body>);

impl Reply {
    fn new(status: StatusCode, body: Body) -> Self {
        let mut r = Response::new(body);
        *r.status_mut() = status;
        Reply(r)
    }
    /// JSON with a status.
    pub fn json(status: StatusCode, value: &impl Serialize) -> Self {
        match serde_json::to_vec(value) {
            Ok(v) => Self::new(status, Body::from(v)).header("content-type", "application/json"),
            Err(_) => Self::new(StatusCode::INTERNAL_SERVER_ERROR, Body::empty()),
        }
    }
    /// 200 with JSON.
    pub fn ok(value: &impl Serialize) -> Self {
        Self::json(StatusCode::OK, value)
    }
    /// 201 with JSON.
    pub fn created(value: &impl Serialize) -> Self {
        Self::json(StatusCode::CREATED, value)
    }
    /// 202 with JSON.
    pub fn accepted(value: &impl Serialize) -> Self {
        Self::json(StatusCode::ACCEPTED, value)
    }
    /// A status without a body.
    pub fn empty(status: StatusCode) -> Self {
        Self::new(status, Body::empty())
    }
    /// 204.
    pub fn no_content() -> Self {
        Self::empty(StatusCode::NO_CONTENT)
    }
    /// Bytes of a content type.
    pub fn bytes(status: StatusCode, content_type: &'static str, bytes: impl Into<Bytes>) -> Self {
        Self::new(status, Body::from(bytes.into())).header("content-type", content_type)
    }
    /// A streamed body.
    pub fn stream(status: StatusCode, content_type: &'static str, body: Body) -> Self {
        Self::new(status, body).header("content-type", content_type)
    }
    /// Sets a header; a value that is no header value is left out.
    pub fn header(mut self, name: &'static str, value: impl AsRef<str>) -> Self {
        if let Ok(v) = HeaderValue::from_str(value.as_ref()) {
            self.0.headers_mut().insert(HeaderName::from_static(name), v);
        }
        self
    }
}
