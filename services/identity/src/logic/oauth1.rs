//! Signatures of OAuth 1.0a (RFC 5849). HMAC-SHA1 and HMAC-SHA256: a plaintext signature is the secret itself, and
//! there are no RSA keys of consumers here.

use super::ec2::{hmac_sha1, hmac_sha256, same};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use haneul_core::clock::SECOND;
use haneul_core::{Error, Result};
use haneul_http::Req;
use haneul_http::request::{percent_decode, percent_encode};

/// How far the time of a request may be from ours, seconds (oauthlib, `timestamp_lifetime`).
pub(crate) const WINDOW: i64 = 600;
/// No client's nonce is longer.
const LONGEST_NONCE: usize = 128;

/// A request that was signed.
pub(crate) struct Signed {
    method: String,
    /// Without the query.
    url: String,
    /// Of the query.
    query: Vec<(String, String)>,
    /// Of the header `Authorization`.
    header: Vec<(String, String)>,
}

fn unauthorized(why: &str) -> Error {
    Error::unauthorized().with_private(why)
}

impl Signed {
    /// What the header `Authorization` says. The URL is the one that the client used: its host and our path.
    pub(crate) fn of(req: &Req) -> Option<Self> {
        let header = req.header("authorization")?;
        let (scheme, rest) = header.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("oauth") {
            return None;
        }
        let params = rest.split(',').filter_map(|pair| {
            let (k, v) = pair.trim().split_once('=')?;
            let v = v.trim().strip_prefix('"')?.strip_suffix('"')?;
            Some((percent_decode(k.trim(), false), percent_decode(v, false)))
        });
        let (scheme, rest) = req.base.split_once("://")?;
        let (own, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let host = req.header("host").unwrap_or(own).to_lowercase();
        let slash = if prefix.is_empty() { "" } else { "/" };
        Some(Self {
            method: req.method.as_str().to_owned(),
            url: format!("{scheme}://{host}{slash}{prefix}{}", req.uri_path),
            query: req.query.clone(),
            header: params.collect(),
        })
    }

    /// A parameter of the header, without the prefix `oauth_`.
    pub(crate) fn param(&self, name: &str) -> Option<&str> {
        let named = |k: &str| k.strip_prefix("oauth_") == Some(name);
        self.header
            .iter()
            .find(|(k, v)| named(k) && !v.is_empty())
            .map(|(_, v)| v.as_str())
    }

    /// As [`Signed::param`], or the request is refused.
    pub(crate) fn need(&self, name: &str) -> Result<&str> {
        self.param(name).ok_or_else(|| {
            Error::field(
                format!("Authorization.oauth_{name}"),
                format!(
                    "Expecting to find oauth_{name} in request: the header Authorization of type OAuth has to carry it."
                ),
            )
        })
    }

    /// Whether the signature is of these secrets, and of now.
    pub(crate) fn check(&self, consumer_secret: &str, token_secret: &str, now: i64) -> Result<()> {
        let key = format!("{}&{}", percent_encode(consumer_secret), percent_encode(token_secret));
        let sign = |text: &str| match self.param("signature_method") {
            Some("HMAC-SHA1") => Ok(hmac_sha1(key.as_bytes(), text.as_bytes())),
            Some("HMAC-SHA256") => Ok(hmac_sha256(key.as_bytes(), text.as_bytes())),
            _ => Err(unauthorized(
                "an OAuth signature method other than HMAC-SHA1 and HMAC-SHA256",
            )),
        };
        // A slash at the end names the same thing here. Keystone's clients sign without it, whatever they send; the RFC
        // asks for the URL that is sent.
        let mut good = false;
        for slash in ["", "/"] {
            let wanted = STANDARD.encode(sign(&self.base_string(slash))?);
            good = good || same(self.param("signature").unwrap_or_default(), &wanted);
        }
        if !good {
            return Err(unauthorized("invalid OAuth signature"));
        }
        if self.param("version").is_some_and(|v| v != "1.0") {
            return Err(unauthorized("an OAuth version other than 1.0"));
        }
        let at: i64 = self.param("timestamp").and_then(|t| t.parse().ok()).unwrap_or(0);
        if (now / SECOND).abs_diff(at) > WINDOW.unsigned_abs() {
            return Err(unauthorized("an OAuth timestamp that is too far from now"));
        }
        match self.param("nonce") {
            Some(n) if n.len() <= LONGEST_NONCE => Ok(()),
            _ => Err(unauthorized("no OAuth nonce, or one that is too long")),
        }
    }

    /// By what a repetition is known, and until when, in microseconds, it would still be fresh.
    pub(crate) fn once(&self) -> (String, i64) {
        let part = |name| self.param(name).unwrap_or_default();
        let at: i64 = part("timestamp").parse().unwrap_or(0);
        let what = ["consumer_key", "token", "timestamp", "nonce"].map(part).join("/");
        (format!("oauth1/{what}"), (at + WINDOW + 1) * SECOND)
    }

    /// RFC 5849, 3.4.1, with this at the end of the path.
    fn base_string(&self, end: &str) -> String {
        let mut pairs: Vec<(String, String)> = self
            .query
            .iter()
            .chain(
                self.header
                    .iter()
                    .filter(|(k, _)| k != "realm" && k != "oauth_signature"),
            )
            .map(|(k, v)| (percent_encode(k), percent_encode(v)))
            .collect();
        pairs.sort();
        let pairs: Vec<String> = pairs.into_iter().map(|(k, v)| format!("{k}={v}")).collect();
        format!(
            "{}&{}&{}",
            self.method,
            percent_encode(&format!("{}{end}", normal(&self.url))),
            percent_encode(&pairs.join("&"))
        )
    }
}

/// Without a port that the scheme means anyway.
fn normal(url: &str) -> String {
    for (scheme, port) in [("http://", ":80"), ("https://", ":443")] {
        if let Some(rest) = url.strip_prefix(scheme) {
            let (host, path) = rest
                .split_once('/')
                .map_or((rest, String::new()), |(h, p)| (h, format!("/{p}")));
            return format!("{scheme}{}{path}", host.strip_suffix(port).unwrap_or(host));
        }
    }
    url.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    /// The example of RFC 5849, 1.2.
    #[test]
    fn the_example_of_the_rfc() {
        let signed = Signed {
            method: "GET".into(),
            url: "http://photos.example.net/photos".into(),
            query: pairs(&[("file", "vacation.jpg"), ("size", "original")]),
            header: pairs(&[
                ("realm", "Photos"),
                ("oauth_consumer_key", "dpf43f3p2l4k3l03"),
                ("oauth_token", "nnch734d00sl2jdk"),
                ("oauth_signature_method", "HMAC-SHA1"),
                ("oauth_timestamp", "137131202"),
                ("oauth_nonce", "chapoH"),
                ("oauth_signature", "MdpQcU8iPSUjWoN/UDMsK2sui9I="),
            ]),
        };
        let at = 137_131_202;
        let check = |token: &str, now: i64| signed.check("kd94hf93k423kf44", token, now * SECOND).is_ok();
        assert!(check("pfkkdhi9sl3r4s00", at));
        assert!(check("pfkkdhi9sl3r4s00", at - WINDOW) && check("pfkkdhi9sl3r4s00", at + WINDOW));
        assert!(!check("pfkkdhi9sl3r4s00", at + WINDOW + 1) && !check("pfkkdhi9sl3r4s00", at - WINDOW - 1));
        assert!(!check("pfkkdhi9sl3r4s01", at));
        assert_eq!(normal("http://h:80/x"), "http://h/x");
        assert_eq!(normal("https://h:80/x"), "https://h:80/x");
    }
}
