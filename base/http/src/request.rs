//! What a handler gets.

use crate::{Body as FieldTable, Service, Ver, fields};
use axum::body::Body;
use bytes::Bytes;
use haneul_auth::Ctx;
use haneul_core::{Error, Kind, Result};
use http::{HeaderMap, Method};
use http_body_util::BodyExt;
use serde_json::Value;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// A request after authentication.
pub struct Req {
    pub(crate) ctx: Option<Ctx>,
    pub(crate) service: Service,
    pub method: Method,
    /// Path below the service's prefix, as asked.
    pub uri_path: String,
    pub(crate) params: Vec<(String, String)>,
    pub query: Vec<(String, String)>,
    pub headers: HeaderMap,
    /// The microversion, or 0.0 for a service without.
    pub version: Ver,
    /// On a path of before microversions: unknown fields of the body are dropped.
    pub(crate) legacy: bool,
    /// In a lock only so that a borrowed request may cross an await.
    pub(crate) body: Mutex<Body>,
    pub(crate) max_body: usize,
    /// Longest page.
    pub max_limit: i64,
    /// `http://127.0.0.1:8774/compute`: base of the links of this service.
    pub base: Arc<str>,
    /// `req-...`
    pub request_id: Arc<str>,
    /// The other end of the connection: a proxy, where one stands before us.
    pub peer: Option<IpAddr>,
}

impl Req {
    /// The caller. Only a public route has none, and asking there is our mistake.
    pub fn ctx(&self) -> Result<&Ctx> {
        self.ctx.as_ref().ok_or_else(Error::unauthorized)
    }
    /// A part of the path, by its name in the route table.
    pub fn param(&self, name: &str) -> &str {
        self.params
            .iter()
            .find(|(n, _)| n == name)
            .map_or("", |(_, v)| v.as_str())
    }
    /// The first value of a query parameter.
    pub fn q(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }
    /// All values of a query parameter.
    pub fn qs<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.query
            .iter()
            .filter(move |(n, _)| n == name)
            .map(|(_, v)| v.as_str())
    }
    /// A boolean query parameter in OpenStack's spellings.
    pub fn q_bool(&self, name: &str) -> Result<Option<bool>> {
        self.q(name)
            .map(|text| {
                parse_bool(text).ok_or_else(|| {
                    Error::field(name, format!("Invalid value '{text}' for {name}: write true or false."))
                })
            })
            .transpose()
    }
    /// A header as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|v| v.to_str().ok())
    }
    /// The whole body, at most `api.max_body_bytes`.
    pub async fn bytes(&mut self) -> Result<Bytes> {
        let too_large = |max: usize| {
            Error::new(
                Kind::TooLarge,
                format!("Request is too large. Larger than max size ({max})."),
            )
        };
        let announced = self.header("content-length").and_then(|l| l.parse::<usize>().ok());
        if announced.is_some_and(|n| n > self.max_body) {
            // Whoever only announces a long body and sends none of it is not waited for.
            let _ = tokio::time::timeout(DRAIN_TIME, drain(self.take_body())).await;
            return Err(too_large(self.max_body));
        }
        let body = self.take_body();
        let max = self.max_body;
        http_body_util::Limited::new(body, max)
            .collect()
            .await
            .map(|b| b.to_bytes())
            .map_err(|e| {
                if e.is::<http_body_util::LengthLimitError>() {
                    too_large(max)
                } else {
                    Error::bad_request("The request body was cut off.").with_private(e)
                }
            })
    }
    /// The body as JSON. Malformed JSON names the place.
    pub async fn json(&mut self) -> Result<Value> {
        self.must_be_sent_as_json()?;
        let bytes = self.bytes().await?;
        serde_json::from_slice(&bytes).map_err(|e| {
            let named = if self.service == Service::Placement {
                "Malformed JSON: the request body is"
            } else {
                "Malformed request body:"
            };
            Error::bad_request(format!(
                "{named} not valid JSON at line {}, column {}.",
                e.line(),
                e.column()
            ))
        })
    }
    /// Refuses a body whose Content-Type says that it is something else, as each service does; Neutron does not look.
    pub fn must_be_sent_as_json(&self) -> Result<()> {
        const JSON: &str = "application/json";
        let header = self.header("content-type").unwrap_or_default();
        let kind = header.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let unsupported = |text: String| Err(Error::new(Kind::UnsupportedMediaType, text).with_field("content-type"));
        match (self.service, kind.as_str()) {
            (_, JSON) => Ok(()),
            // placement/util.py, require_content
            (Service::Placement, "") if self.header("content-length").is_some_and(|l| l != "0") => Err(Error::field(
                "content-type",
                "content-type header required when content-length > 0",
            )),
            (Service::Placement, _) => {
                let shown = if kind.is_empty() { "None" } else { &kind };
                unsupported(format!("The media type {shown} is not supported, use {JSON}"))
            }
            // nova/api/openstack/wsgi.py, get_content_type
            (Service::Compute, "" | "text/plain" | "application/vnd.openstack.compute+json") => Ok(()),
            (Service::Compute, _) => unsupported(format!("Unsupported Content-Type {kind}: use {JSON}.")),
            // keystone/server/flask/request_processing/json_body.py
            (Service::Identity, "") => Ok(()),
            (Service::Identity, k) if k.starts_with("application/") && k.ends_with("+json") => Ok(()),
            (Service::Identity, _) => Err(Error::field(
                "content-type",
                format!(
                    "Expecting to find {JSON} in Content-Type header. The server could not comply with the request since it is either malformed or otherwise incorrect. The client is assumed to be in error."
                ),
            )),
            _ => Ok(()),
        }
    }
    /// The body as JSON, checked against the field table under `wrapper` (`{"server": {...}}`), and the
    /// object inside.
    pub async fn fields(&mut self, wrapper: &str, table: &FieldTable) -> Result<Value> {
        let mut value = self.json().await?;
        let Some(mut inner) = value.get_mut(wrapper).map(Value::take) else {
            return Err(Error::field(
                wrapper,
                format!(
                    "Invalid input for field/attribute {wrapper}: the request body must be an object with the key '{wrapper}'."
                ),
            ));
        };
        if let Some(extra) = value
            .as_object()
            .and_then(|o| o.keys().find(|k| *k != wrapper))
            .filter(|_| !table.open && !self.legacy)
        {
            return Err(Error::field(
                extra.clone(),
                format!("Additional properties are not allowed ('{extra}' was unexpected)"),
            ));
        }
        if self.legacy {
            fields::drop_unknown(table, &mut inner, self.version);
        }
        fields::check(table, &inner, self.version, wrapper)?;
        Ok(inner)
    }
    /// The body as a stream, for uploads.
    pub fn take_body(&mut self) -> Body {
        std::mem::take(self.body.get_mut().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What is read and dropped of a body that is too long, bytes.
const DRAIN: usize = 16 << 20;
/// And for how long.
const DRAIN_TIME: std::time::Duration = std::time::Duration::from_secs(5);

/// Reads on for a while: a client that writes into a closed connection never sees why it was refused.
async fn drain(mut body: Body) {
    let mut left = DRAIN;
    while let Some(Ok(frame)) = body.frame().await {
        left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
        if left == 0 {
            return;
        }
    }
}

/// OpenStack's spellings of a boolean (oslo.utils `bool_from_string`, strict).
pub fn parse_bool(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "t" | "true" | "on" | "y" | "yes" => Some(true),
        "0" | "f" | "false" | "off" | "n" | "no" => Some(false),
        _ => None,
    }
}

/// Splits a query string.
pub(crate) fn split_query(query: &str) -> Vec<(String, String)> {
    query
        .split('&')
        .filter(|p| !p.is_empty())
        .map(|p| {
            let (k, v) = p.split_once('=').unwrap_or((p, ""));
            (percent_decode(k, true), percent_decode(v, true))
        })
        .collect()
}

/// Decodes `%xx`, and `+` as a space in a query.
pub fn percent_decode(text: &str, plus: bool) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while let Some(&b) = bytes.get(i) {
        if b == b'%'
            && let Some(hex) = text.get(i + 1..i + 3)
            && let Ok(x) = u8::from_str_radix(hex, 16)
        {
            out.push(x);
            i += 3;
            continue;
        }
        out.push(if b == b'+' && plus { b' ' } else { b });
        i += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Encodes for a path segment or a query value.
pub fn percent_encode(text: &str) -> String {
    let mut out = String::new();
    for b in text.bytes() {
        if b.is_ascii_alphanumeric() || b"-._~".contains(&b) {
            out.push(b as char);
        } else {
            out.push_str(&format!("%{b:02X}"));
        }
    }
    out
}
