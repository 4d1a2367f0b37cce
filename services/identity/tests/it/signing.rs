//! What clients do: signatures of EC2, S3 and OAuth, and one-time passwords. Written from the standards, not from what
//! the service does.

use crate::cloud::Cloud;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use haneul_core::clock;
use haneul_http::client::Answer;
use haneul_http::request::{percent_decode, percent_encode};
use hmac::{Hmac, Mac};
use serde_json::{Value, json};
use sha1::Sha1;
use sha2::Sha256;

pub fn sha1(key: &str, text: &str) -> Vec<u8> {
    let mac = Hmac::<Sha1>::new_from_slice(key.as_bytes()).unwrap();
    mac.chain_update(text).finalize().into_bytes().to_vec()
}

pub fn sha256(key: &[u8], text: &str) -> Vec<u8> {
    let mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.chain_update(text).finalize().into_bytes().to_vec()
}

/// An EC2 request of version 2, signed at `at`.
pub fn ec2(access: &str, secret: &str, at: i64) -> Value {
    let stamp = clock::iso(at);
    let query = [
        ("AWSAccessKeyId", access),
        ("Action", "DescribeInstances"),
        ("SignatureMethod", "HmacSHA256"),
        ("SignatureVersion", "2"),
        ("Timestamp", &stamp),
    ];
    let pairs: Vec<String> = query
        .iter()
        .map(|(k, v)| format!("{k}={}", percent_encode(v)))
        .collect();
    let text = format!("GET\nec2.example:8773\n/services/Cloud\n{}", pairs.join("&"));
    let params: serde_json::Map<String, Value> = query.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
    json!({"access": access, "host": "ec2.example:8773", "verb": "GET", "path": "/services/Cloud", "params": params,
        "signature": STANDARD.encode(sha256(secret.as_bytes(), &text))})
}

pub async fn ec2_token(c: &Cloud, credential: &Value) -> Answer {
    let part = |name: &str| credential[name].as_str().unwrap_or_default().to_owned();
    let request = ec2(&part("access"), &part("secret"), clock::now());
    c.call(&c.admin, "POST", "/ec2tokens", json!({"credentials": request}))
        .await
}

/// Who signs with OAuth: the consumer, and a token where there is one.
#[derive(Clone, Default)]
pub struct Signer {
    pub consumer: (String, String),
    pub token: Option<(String, String)>,
    pub verifier: Option<String>,
    /// Seconds that its clock is off.
    pub off: i64,
    pub sha256: bool,
}

impl Signer {
    pub fn header(&self, path: &str) -> String {
        let mut params = vec![
            ("oauth_consumer_key", self.consumer.0.clone()),
            ("oauth_nonce", haneul_core::id::hex()),
            (
                "oauth_signature_method",
                if self.sha256 { "HMAC-SHA256" } else { "HMAC-SHA1" }.into(),
            ),
            ("oauth_timestamp", (clock::now() / clock::SECOND + self.off).to_string()),
            ("oauth_version", "1.0".into()),
        ];
        params.extend(self.token.as_ref().map(|t| ("oauth_token", t.0.clone())));
        params.extend(self.verifier.as_ref().map(|v| ("oauth_verifier", v.clone())));
        params.sort();
        let list: Vec<String> = params
            .iter()
            .map(|(k, v)| format!("{k}={}", percent_encode(v)))
            .collect();
        // The host that `raw` names.
        let url = format!("http://haneul/identity/v3{path}");
        let text = format!("POST&{}&{}", percent_encode(&url), percent_encode(&list.join("&")));
        let key = format!("{}&{}", self.consumer.1, self.token.as_ref().map_or("", |t| &t.1));
        let signature = match self.sha256 {
            true => sha256(key.as_bytes(), &text),
            false => sha1(&key, &text),
        };
        params.push(("oauth_signature", STANDARD.encode(signature)));
        let list: Vec<String> = params
            .iter()
            .map(|(k, v)| format!("{k}=\"{}\"", percent_encode(v)))
            .collect();
        format!("OAuth realm=\"\", {}", list.join(", "))
    }

    pub async fn post(&self, c: &Cloud, path: &str, more: &[(&str, &str)], body: Value) -> Answer {
        let header = self.header(path);
        let mut headers = vec![("authorization", header.as_str())];
        headers.extend(more);
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        c.raw("POST", path, &headers, body).await
    }

    /// A token of the access token.
    pub async fn login(&self, c: &Cloud) -> Answer {
        let body = json!({"auth": {"identity": {"methods": ["oauth1"], "oauth1": {}}}});
        self.post(c, "/auth/tokens", &[], body).await
    }
}

/// Id and secret that an answer to OAuth carries.
pub fn pair(a: &Answer) -> (String, String) {
    let text = String::from_utf8(a.body.to_vec()).unwrap();
    assert_eq!(a.status, 201, "{text}");
    let part = |name: &str| {
        let mut found = text.split('&').filter_map(|p| p.split_once('='));
        percent_decode(found.find(|(k, _)| *k == name).unwrap().1, false)
    };
    assert!(clock::parse(&part("oauth_expires_at")).unwrap() > clock::now());
    (part("oauth_token"), part("oauth_token_secret"))
}

pub async fn consumer(c: &Cloud) -> Signer {
    let doc = c.ok(201, "POST", "/OS-OAUTH1/consumers", json!({"consumer": {}})).await;
    let part = |name: &str| doc["consumer"][name].as_str().unwrap().to_owned();
    Signer {
        consumer: (part("id"), part("secret")),
        ..Signer::default()
    }
}

/// The consumer with an access token that `token` authorizes.
pub async fn access(c: &Cloud, consumer: &Signer, token: &str, project: &str, role: &str) -> Signer {
    let a = consumer
        .post(
            c,
            "/OS-OAUTH1/request_token",
            &[("requested-project-id", project)],
            Value::Null,
        )
        .await;
    let request = pair(&a);
    let path = format!("/OS-OAUTH1/authorize/{}", request.0);
    let a = c.call(token, "PUT", &path, json!({"roles": [{"name": role}]})).await;
    assert_eq!(a.status, 200, "{}", a.json());
    let with = Signer {
        token: Some(request),
        verifier: Some(a.json()["token"]["oauth_verifier"].as_str().unwrap().to_owned()),
        ..consumer.clone()
    };
    let a = with.post(c, "/OS-OAUTH1/access_token", &[], Value::Null).await;
    Signer {
        token: Some(pair(&a)),
        ..consumer.clone()
    }
}

/// The passcode of this secret, in base32, at this moment (RFC 6238).
pub fn passcode(base32: &str, at: i64) -> String {
    let key = data_encoding::BASE32_NOPAD.decode(base32.as_bytes()).unwrap();
    let step = (at / clock::SECOND / 30).to_be_bytes();
    let mac = Hmac::<Sha1>::new_from_slice(&key).unwrap().chain_update(step);
    let mac = mac.finalize().into_bytes();
    let at = usize::from(mac[19] & 15);
    let n = u32::from_be_bytes(mac[at..at + 4].try_into().unwrap()) & 0x7fff_ffff;
    format!("{:06}", n % 1_000_000)
}

pub fn totp(user: &str, passcode: &str) -> Value {
    json!({"methods": ["totp"], "totp": {"user": {"id": user, "passcode": passcode}}})
}
