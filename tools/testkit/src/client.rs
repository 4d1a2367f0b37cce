//! A client of one cloud, with a token.

use crate::record::record;
use bytes::Bytes;
use haneul_http::client::{Peer, send};
use http::{HeaderMap, Method};
use serde_json::{Value, json};

/// What the cloud answered.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Value,
    pub text: String,
    pub bytes: Bytes,
}

impl Answer {
    /// The body, when the status is the expected one; panics with the whole answer otherwise.
    #[track_caller]
    pub fn expect(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text);
        self.body
    }
}

/// See the module. Cloning is cheap.
#[derive(Clone)]
pub struct Client {
    pub peer: Peer,
    pub token: Option<String>,
    /// Sent as `OpenStack-API-Version`.
    pub version: Option<String>,
}

impl Client {
    pub fn new(address: &str) -> Self {
        Self {
            peer: Peer::Tcp(address.to_owned()),
            token: None,
            version: None,
        }
    }

    /// Logs in with a password in the domain `default`, scoped to a project.
    pub async fn login(&self, user: &str, password: &str, project: &str) -> Client {
        let scope = json!({"project": {"name": project, "domain": {"id": "default"}}});
        self.login_to("Default", user, password, scope).await
    }

    /// Logs in with a password, in a domain by its name, for any scope.
    pub async fn login_to(&self, domain: &str, user: &str, password: &str, scope: Value) -> Client {
        let user = json!({"name": user, "domain": {"name": domain}, "password": password});
        let identity = json!({"methods": ["password"], "password": {"user": user}});
        let body = json!({"auth": {"identity": identity, "scope": scope}});
        let answer = self.post("/identity/v3/auth/tokens", &body).await;
        assert_eq!(answer.status, 201, "{}", answer.text);
        let token = answer
            .headers
            .get("x-subject-token")
            .expect("a token")
            .to_str()
            .expect("text");
        Client {
            token: Some(token.to_owned()),
            ..self.clone()
        }
    }

    /// This client with a microversion, e.g. `compute 2.47`.
    pub fn at(&self, version: &str) -> Client {
        Client {
            version: Some(version.to_owned()),
            ..self.clone()
        }
    }

    /// Sends a request with any headers and bytes.
    pub async fn send(&self, method: Method, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Answer {
        self.try_send(method, path, headers, body).await.expect("an answer")
    }

    /// As [`Client::send`]; `None` when nobody answers.
    pub async fn try_send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> Option<Answer> {
        let mut all = headers.to_vec();
        if let Some(token) = &self.token {
            all.push(("x-auth-token", token));
        }
        if let Some(version) = &self.version {
            all.push(("openstack-api-version", version));
        }
        let asked = body.clone();
        let answer = send(&self.peer, method.clone(), path, &all, body).await.ok()?;
        record(
            &method,
            path,
            &asked,
            answer.status.as_u16(),
            &answer.headers,
            &answer.body,
        );
        Some(Answer {
            status: answer.status.as_u16(),
            body: answer.json(),
            text: String::from_utf8_lossy(&answer.body).into_owned(),
            headers: answer.headers,
            bytes: answer.body,
        })
    }

    async fn json(&self, method: Method, path: &str, body: &Value) -> Answer {
        self.send(
            method,
            path,
            &[("content-type", "application/json")],
            body.to_string().into_bytes(),
        )
        .await
    }
    pub async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, &[], vec![]).await
    }
    pub async fn delete(&self, path: &str) -> Answer {
        self.send(Method::DELETE, path, &[], vec![]).await
    }
    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.json(Method::POST, path, body).await
    }
    pub async fn put(&self, path: &str, body: &Value) -> Answer {
        self.json(Method::PUT, path, body).await
    }
    pub async fn patch(&self, path: &str, body: &Value) -> Answer {
        self.json(Method::PATCH, path, body).await
    }
}
