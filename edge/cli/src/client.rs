//! HTTP for commands: the house's one client, with a time limit and without async for the caller.

use crate::{Error, Result, failed};
use bytes::Bytes;
use haneul_core::config::Config;
use haneul_http::client::{Answer, Peer, send};
use http::Method;
use serde_json::{Value, json};
use std::time::Duration;

/// A client of one listener.
pub struct Client {
    runtime: tokio::runtime::Runtime,
    peer: Peer,
    token: Option<String>,
    /// Longest time a request may take.
    pub limit: Duration,
}

impl Client {
    fn new(peer: Peer) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| failed(format!("cannot start the HTTP client: {e}")))?;
        Ok(Self {
            runtime,
            peer,
            token: None,
            limit: Duration::from_secs(60),
        })
    }

    /// The admin socket of `serve` on this host.
    pub fn admin(config: &Config) -> Result<Self> {
        Self::new(Peer::Unix(config.admin_socket()))
    }

    /// The API, without a token: over its socket on this machine, whatever its address is and speaks.
    pub fn api(config: &Config) -> Result<Self> {
        Self::new(Peer::Unix(config.api_socket()))
    }

    /// Logs in with a password, in the domain `default`.
    pub fn log_in(&mut self, user: &str, project: &str, password: &str) -> Result<()> {
        let domain = json!({"id": "default"});
        let body = json!({"auth": {
            "identity": {"methods": ["password"], "password": {"user": {"name": user, "domain": domain, "password": password}}},
            "scope": {"project": {"name": project, "domain": domain}},
        }});
        let answer = self.send(
            Method::POST,
            "/identity/v3/auth/tokens",
            "application/json",
            body.to_string(),
        )?;
        if answer.status.as_u16() == 401 {
            return Err(failed(format!("the cloud does not accept the password of user {user}")));
        }
        self.expect(&answer, "POST /identity/v3/auth/tokens")?;
        let token = answer.headers.get("x-subject-token").and_then(|v| v.to_str().ok());
        self.token = Some(token.ok_or_else(|| failed("the cloud gave no token"))?.to_owned());
        Ok(())
    }

    /// One request; the answer whatever its status.
    pub fn send(&self, method: Method, path: &str, content_type: &str, body: impl Into<Bytes>) -> Result<Answer> {
        let mut headers = vec![("content-type", content_type), ("accept", "application/json")];
        if let Some(token) = &self.token {
            headers.push(("x-auth-token", token));
        }
        let body = body.into();
        self.runtime.block_on(async {
            tokio::time::timeout(self.limit, send(&self.peer, method, path, &headers, body))
                .await
                .map_err(|_| Error::unavailable(format!("{path}: no answer within {} s", self.limit.as_secs())))?
        })
    }

    fn expect(&self, answer: &Answer, what: &str) -> Result<()> {
        if answer.status.is_success() {
            return Ok(());
        }
        Err(failed(format!(
            "{what}: {} {}",
            answer.status.as_u16(),
            message(&answer.body)
        )))
    }

    fn json(&self, method: Method, path: &str, body: String) -> Result<Value> {
        let what = format!("{method} {path}");
        let answer = self.send(method, path, "application/json", body)?;
        self.expect(&answer, &what)?;
        Ok(answer.json())
    }

    /// GET; an answer that is not 2xx is an error with the service's own words.
    pub fn get(&self, path: &str) -> Result<Value> {
        self.json(Method::GET, path, String::new())
    }

    pub fn post(&self, path: &str, body: &Value) -> Result<Value> {
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        self.json(Method::POST, path, body)
    }

    pub fn put(&self, path: &str, body: &Value) -> Result<Value> {
        self.json(Method::PUT, path, body.to_string())
    }

    pub fn delete(&self, path: &str) -> Result<()> {
        self.json(Method::DELETE, path, String::new()).map(|_| ())
    }

    /// Uploads bytes.
    pub fn upload(&self, path: &str, bytes: Bytes) -> Result<()> {
        let answer = self.send(Method::PUT, path, "application/octet-stream", bytes)?;
        self.expect(&answer, &format!("PUT {path}"))
    }
}

/// The sentence in an error body, whichever service wrote it.
fn message(body: &[u8]) -> String {
    fn find(v: &Value) -> Option<&str> {
        let map = v.as_object()?;
        ["message", "detail", "title"]
            .iter()
            .find_map(|k| map.get(*k).and_then(Value::as_str))
            .or_else(|| {
                map.values()
                    .find_map(|v| find(v).or_else(|| v.as_array()?.iter().find_map(find)))
            })
    }
    let text = String::from_utf8_lossy(body);
    serde_json::from_slice::<Value>(body)
        .ok()
        .and_then(|v| find(&v).map(str::to_owned))
        .unwrap_or_else(|| text.chars().take(300).collect())
}

/// A value for a query string.
pub fn escape(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    text.bytes()
        .map(|b| {
            if plain(b) {
                (b as char).to_string()
            } else {
                format!("%{b:02X}")
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sentence_is_found_in_every_shape() {
        for body in [
            r#"{"error": {"code": 401, "message": "no", "title": "Unauthorized"}}"#,
            r#"{"badRequest": {"code": 400, "message": "no"}}"#,
            r#"{"NeutronError": {"type": "X", "message": "no", "detail": ""}}"#,
            r#"{"errors": [{"status": 400, "detail": "no"}]}"#,
            "no",
        ] {
            assert_eq!(message(body.as_bytes()), "no", "{body}");
        }
    }

    #[test]
    fn escapes() {
        assert_eq!(escape("^first$"), "%5Efirst%24");
    }
}
