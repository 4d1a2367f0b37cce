//! Signatures of EC2 and S3 requests, as the services that got them hand them over (python-keystoneclient,
//! contrib/ec2/utils.py; keystone/api/s3tokens.py). Pure: the secret and the request in, the signature out.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use haneul_core::clock;
use haneul_http::request::percent_encode;
use hmac::{Hmac, Mac};
use serde_json::{Map, Value};
use sha1::Sha1;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// Why a signature is not good; for the log.
type Why = &'static str;

/// How old what is signed may be (keystone.conf `[credential] auth_ttl`).
const TTL: i64 = 15 * 60 * clock::SECOND;
const V4: &str = "AWS4-HMAC-SHA256";

pub(super) fn hmac_sha1(key: &[u8], text: &[u8]) -> Vec<u8> {
    // HMAC takes keys of any length.
    Hmac::<Sha1>::new_from_slice(key).map_or_else(
        |_| Vec::new(),
        |m| m.chain_update(text).finalize().into_bytes().to_vec(),
    )
}

pub(super) fn hmac_sha256(key: &[u8], text: &[u8]) -> Vec<u8> {
    Hmac::<Sha256>::new_from_slice(key).map_or_else(
        |_| Vec::new(),
        |m| m.chain_update(text).finalize().into_bytes().to_vec(),
    )
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Whether two texts are the same, in a time that does not depend on where they differ.
pub(crate) fn same(a: &str, b: &str) -> bool {
    a.as_bytes().ct_eq(b.as_bytes()).into()
}

fn text<'a>(map: &'a Map<String, Value>, key: &str) -> Option<&'a str> {
    map.get(key).and_then(Value::as_str)
}

fn object<'a>(map: &'a Map<String, Value>, key: &str) -> Option<&'a Map<String, Value>> {
    map.get(key).and_then(Value::as_object)
}

/// A parameter as text: clients send numbers too.
fn shown(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// What a service asks about: an EC2 request with its signature.
pub(crate) struct Ec2<'a> {
    credentials: &'a Map<String, Value>,
    params: Map<String, Value>,
    headers: Map<String, Value>,
}

impl<'a> Ec2<'a> {
    pub(crate) fn new(credentials: &'a Map<String, Value>) -> Self {
        Self {
            credentials,
            params: object(credentials, "params").cloned().unwrap_or_default(),
            headers: object(credentials, "headers").cloned().unwrap_or_default(),
        }
    }

    fn part(&self, name: &str) -> Result<&str, Why> {
        text(self.credentials, name).ok_or("a part of the request is missing: verb, host, path or body_hash")
    }

    /// Whether it was signed with `secret`. With the port of the host and, as some clients do, without.
    pub(crate) fn check(&self, secret: &str) -> Result<(), Why> {
        let given = text(self.credentials, "signature")
            .filter(|s| !s.is_empty())
            .ok_or("EC2 signature not supplied")?;
        let host = text(self.credentials, "host").unwrap_or_default();
        if same(given, &self.signature(secret, host)?) {
            return Ok(());
        }
        let bare = host.rsplit_once(':').map(|(bare, _)| bare);
        match bare {
            Some(bare) if same(given, &self.signature(secret, bare)?) => Ok(()),
            _ => Err("invalid EC2 signature"),
        }
    }

    fn signature(&self, secret: &str, host: &str) -> Result<String, Why> {
        let v4 = match text(&self.headers, "Authorization") {
            Some(header) => header.starts_with(V4),
            None => text(&self.params, "X-Amz-Algorithm") == Some(V4),
        };
        match self.params.get("SignatureVersion").map(shown).as_deref() {
            Some("0") => {
                let signed = ["Action", "Timestamp"].map(|k| text(&self.params, k).unwrap_or_default());
                Ok(STANDARD.encode(hmac_sha1(secret.as_bytes(), signed.concat().as_bytes())))
            }
            Some("1") => {
                let mut pairs: Vec<_> = self.params.iter().collect();
                pairs.sort_by_key(|(k, _)| k.to_lowercase());
                let signed: String = pairs.into_iter().map(|(k, v)| format!("{k}{}", shown(v))).collect();
                Ok(STANDARD.encode(hmac_sha1(secret.as_bytes(), signed.as_bytes())))
            }
            Some("2") => {
                let mut params = self.params.clone();
                params.insert("SignatureMethod".into(), "HmacSHA256".into());
                let signed = format!(
                    "{}\n{host}\n{}\n{}",
                    self.part("verb")?,
                    self.part("path")?,
                    canonical_query(&params)
                );
                Ok(STANDARD.encode(hmac_sha256(secret.as_bytes(), signed.as_bytes())))
            }
            _ if v4 => self.signature_v4(secret, host),
            Some(_) => Err("unknown signature version"),
            None => Err("unexpected signature format"),
        }
    }

    /// A parameter of the signature: of the header `Authorization`, or of the query.
    fn auth_param(&self, name: &str) -> &str {
        match text(&self.headers, "Authorization") {
            Some(header) => header
                .split_once(&format!("{name}="))
                .and_then(|(_, rest)| rest.split(',').next())
                .unwrap_or_default(),
            None => text(&self.params, &format!("X-Amz-{name}")).unwrap_or_default(),
        }
    }

    /// <https://docs.aws.amazon.com/IAM/latest/UserGuide/create-signed-request.html>
    fn signature_v4(&self, secret: &str, host: &str) -> Result<String, Why> {
        let verb = self.part("verb")?.to_uppercase();
        let query = match verb.as_str() {
            // Their parameters came in the body.
            "POST" => String::new(),
            _ => canonical_query(&self.params),
        };
        let lower: Vec<(String, String)> = self
            .headers
            .iter()
            .map(|(k, v)| (k.trim().to_lowercase(), shown(v).trim().to_owned()))
            .collect();
        let signed_headers = self.auth_param("SignedHeaders");
        let whole = text(self.credentials, "host").unwrap_or_default();
        let mut head = Vec::new();
        for name in signed_headers.split(';') {
            if let Some((_, value)) = lower.iter().find(|(k, _)| k == name) {
                // Without the port where that is tried.
                let value = if name == "host" && host != whole { host } else { value };
                head.push(format!("{name}:{value}"));
            }
        }
        let request = format!(
            "{verb}\n{}\n{query}\n{}\n\n{signed_headers}\n{}",
            self.part("path")?,
            head.join("\n"),
            self.part("body_hash")?
        );
        let scope: Vec<&str> = self.auth_param("Credential").split('/').skip(1).collect();
        let [day, region, service, end] = scope.as_slice() else {
            return Err("a credential scope has four parts");
        };
        let date = text(&self.headers, "X-Amz-Date")
            .or_else(|| text(&self.params, "X-Amz-Date"))
            .ok_or("X-Amz-Date is missing")?;
        if day.is_empty() || !date.starts_with(day) {
            return Err("the date is not that of the credential scope");
        }
        let request = hex(&Sha256::digest(request.as_bytes()));
        let to_sign = format!("{V4}\n{date}\n{day}/{region}/{service}/{end}\n{request}");
        Ok(hex(&hmac_sha256(
            &v4_key(secret, day, region, service),
            to_sign.as_bytes(),
        )))
    }

    /// Refuses what was signed too long ago, or is for a time to come. What carries no time is not refused here: its
    /// signer left it out.
    pub(crate) fn check_time(&self, now: i64) -> Result<(), Why> {
        let stamp = text(&self.params, "Timestamp")
            .or_else(|| text(&self.headers, "X-Amz-Date"))
            .or_else(|| text(&self.params, "X-Amz-Date"));
        let Some(stamp) = stamp.filter(|s| !s.is_empty()) else {
            return Ok(());
        };
        let at = parse_time(stamp).ok_or("the timestamp is not one")?;
        if at + TTL < now {
            return Err("the signature is too old");
        }
        if at > now + TTL {
            return Err("the signature is of a time to come");
        }
        Ok(())
    }
}

/// ISO 8601, in the long form or in AWS's short one.
fn parse_time(stamp: &str) -> Option<i64> {
    let b = stamp.as_bytes();
    if b.len() == 16 && b.get(8) == Some(&b'T') && b.get(15) == Some(&b'Z') && stamp.is_ascii() {
        let at = |from: usize, to: usize| stamp.get(from..to);
        let long = format!(
            "{}-{}-{}T{}:{}:{}Z",
            at(0, 4)?,
            at(4, 6)?,
            at(6, 8)?,
            at(9, 11)?,
            at(11, 13)?,
            at(13, 15)?
        );
        return clock::parse(&long);
    }
    clock::parse(stamp)
}

fn canonical_query(params: &Map<String, Value>) -> String {
    let mut pairs: Vec<(&String, String)> = params.iter().map(|(k, v)| (k, shown(v))).collect();
    pairs.sort_by_key(|(k, _)| k.as_str());
    let pairs: Vec<String> = pairs
        .into_iter()
        .map(|(k, v)| format!("{}={}", percent_encode(k), percent_encode(&v)))
        .collect();
    pairs.join("&")
}

fn v4_key(secret: &str, day: &str, region: &str, service: &str) -> Vec<u8> {
    let key = format!("AWS4{secret}").into_bytes();
    [day, region, service, "aws4_request"]
        .iter()
        .fold(key, |key, part| hmac_sha256(&key, part.as_bytes()))
}

/// Checks the signature of an S3 request. The service made the text that is signed; it comes as base64.
pub(crate) fn check_s3(credentials: &Map<String, Value>, secret: &str) -> Result<(), Why> {
    let token = text(credentials, "token").ok_or("no string to sign")?;
    let to_sign = URL_SAFE
        .decode(token)
        .or_else(|_| STANDARD.decode(token))
        .map_err(|_| "the string to sign is not base64")?;
    let given = text(credentials, "signature").ok_or("no signature")?;
    let wanted = if to_sign.starts_with(b"AWS4") {
        s3_v4(&to_sign, secret)?
    } else {
        STANDARD.encode(hmac_sha1(secret.as_bytes(), &to_sign))
    };
    if same(given, &wanted) {
        Ok(())
    } else {
        Err("credential signature mismatch")
    }
}

fn s3_v4(to_sign: &[u8], secret: &str) -> Result<String, Why> {
    const WRONG: Why = "not a string to sign of S3";
    let text = std::str::from_utf8(to_sign).map_err(|_| WRONG)?;
    let lines: Vec<&str> = text.split('\n').collect();
    let [V4, _, scope, _] = lines.as_slice() else {
        return Err(WRONG);
    };
    let scope: Vec<&str> = scope.split('/').collect();
    let [day, region, service, "aws4_request"] = scope.as_slice() else {
        return Err(WRONG);
    };
    if !["s3", "iam", "sts"].contains(service) {
        return Err(WRONG);
    }
    Ok(hex(&hmac_sha256(&v4_key(secret, day, region, service), to_sign)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(request: Value, secret: &str) -> Result<(), Why> {
        Ec2::new(request.as_object().unwrap()).check(secret)
    }

    /// keystoneclient/tests/unit/test_ec2utils.py and AWS's documentation have these signatures.
    #[test]
    fn known_signatures() {
        let secret = "89cdf9e94e2643cab35b8b8ac5a51f83";
        let access = "966afbde20b84200ae4e62e09acf46b2";
        for (version, signature) in [
            ("0", "SmXQEZAUdQw5glv5mX8mmixBtas="),
            ("1", "VRnoQH/EhVTTLhwRLfuL7jmFW9c="),
            ("2", "odsGmT811GffUO0Eu13Pq+xTzKNIjJ6NhgZU74tYX/w="),
        ] {
            let mut request = json!({"host": "127.0.0.1", "verb": "GET", "path": "/v1/", "signature": signature,
                "params": {"SignatureVersion": version, "AWSAccessKeyId": access}});
            if version == "0" {
                request["params"]["Action"] = "Foo".into();
                request["params"]["Timestamp"] = "2012-11-27T11:47:02Z".into();
            }
            assert_eq!(check(request.clone(), secret), Ok(()), "{version}");
            // A port that the client did not sign.
            request["host"] = "127.0.0.1:8773".into();
            assert_eq!(check(request.clone(), secret), Ok(()), "{version}");
            assert!(check(request, "another").is_err(), "{version}");
        }
        let four = json!({"verb": "POST", "path": "/", "host": "iam.amazonaws.com",
            "body_hash": "b6359072c78d70ebee1e81adcbab4f01bf2c23245fa365ef83fe8f1f955085e2",
            "headers": {
                "Content-type": "application/x-www-form-urlencoded; charset=utf-8",
                "X-Amz-Date": "20110909T233600Z",
                "Host": "iam.amazonaws.com",
                "Authorization": "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20110909/us-east-1/iam/aws4_request,SignedHeaders=content-type;host;x-amz-date,Signature=x",
            },
            "params": {"Action": "CreateUser", "UserName": "NewUser"},
            "signature": "ced6826de92d2bdeed8f846f0bf508e8559e98e4b0199114b84c54174deb456c"});
        assert_eq!(check(four.clone(), "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"), Ok(()));
        assert!(check(four, "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEX").is_err());
    }

    #[test]
    fn times() {
        let now = clock::parse("2026-01-02T03:04:05Z").unwrap();
        for (stamp, good) in [
            (json!("2026-01-02T03:00:00Z"), true),
            (json!("2026-01-02T02:40:00Z"), false),
            (json!("2026-01-02T04:00:00Z"), false),
            (json!("20260102T030000Z"), true),
            (json!("20260102T020000Z"), false),
            (json!("yesterday"), false),
            (Value::Null, true),
        ] {
            for place in ["params", "headers"] {
                let mut request = json!({"params": {}, "headers": {}});
                let name = if place == "params" { "Timestamp" } else { "X-Amz-Date" };
                request[place][name] = stamp.clone();
                let seen = Ec2::new(request.as_object().unwrap()).check_time(now);
                assert_eq!(seen.is_ok(), good, "{stamp} {place} {seen:?}");
            }
        }
    }
}
