//! The inside of a token: a MessagePack array, first its version, then the fields. Ids of 32 hex digits
//! travel as 16 bytes, so that a token stays below 255 characters, as Keystone's do.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use haneul_core::id;
use rmp::decode::Bytes;
use rmp::{Marker, decode, encode};

/// What a token is good for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Scope {
    Unscoped,
    Project(String),
    Domain(String),
    System,
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Payload {
    pub user_id: String,
    /// Names of methods, newest first.
    pub methods: Vec<String>,
    pub scope: Scope,
    /// Microseconds since 1970.
    pub expires_at: i64,
    pub issued_at: i64,
    /// Its own, then that of the first token of the chain.
    pub audit_ids: Vec<String>,
    pub app_cred_id: Option<String>,
    /// The trust that it stands on; `user_id` is its trustee.
    pub trust_id: Option<String>,
    /// The OAuth access token that it stands on.
    pub access_token_id: Option<String>,
    /// Up to which revocation was known of all when it was issued (`store::is_revoked`).
    pub seen: i64,
}

const VERSION: u64 = 1;
/// The method of tokens that were given for an EC2 signature.
pub(crate) const EC2_METHOD: &str = "ec2credential";
/// Bit per method; bits are never given to another one.
const METHODS: [&str; 6] = [
    "password",
    "token",
    "application_credential",
    EC2_METHOD,
    "oauth1",
    "totp",
];

/// A new audit id: 16 random bytes, base64 without padding.
pub(crate) fn audit_id() -> String {
    URL_SAFE_NO_PAD.encode(id::random_bytes(16))
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if text.len() != 32 || !text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
        return None;
    }
    (0..16)
        .map(|i| u8::from_str_radix(text.get(2 * i..2 * i + 2)?, 16).ok())
        .collect()
}

fn put_id(out: &mut Vec<u8>, id: &str) -> Option<()> {
    match unhex(id) {
        Some(bytes) => encode::write_bin(out, &bytes).ok(),
        None => encode::write_str(out, id).ok(),
    }
}

fn get_id(input: &mut Bytes<'_>) -> Option<String> {
    let marker = Marker::from_u8(*input.remaining_slice().first()?);
    match marker {
        Marker::Bin8 => Some(get_bin(input)?.iter().map(|b| format!("{b:02x}")).collect()),
        _ => {
            let n = decode::read_str_len(input).ok()? as usize;
            String::from_utf8(take(input, n)?).ok()
        }
    }
}

fn get_bin(input: &mut Bytes<'_>) -> Option<Vec<u8>> {
    let n = decode::read_bin_len(input).ok()? as usize;
    take(input, n)
}

fn take(input: &mut Bytes<'_>, n: usize) -> Option<Vec<u8>> {
    let all = input.remaining_slice();
    let head = all.get(..n)?.to_vec();
    *input = Bytes::new(all.get(n..)?);
    Some(head)
}

impl Payload {
    pub(crate) fn encode(&self) -> Option<Vec<u8>> {
        let mut out = Vec::with_capacity(128);
        // What stands on neither stays as the releases before wrote it, which read it still.
        let fields = match (&self.trust_id, &self.access_token_id) {
            (_, Some(_)) => 12,
            (Some(_), None) => 11,
            (None, None) => 10,
        };
        encode::write_array_len(&mut out, fields).ok()?;
        encode::write_uint(&mut out, VERSION).ok()?;
        put_id(&mut out, &self.user_id)?;
        let mut bits = 0u64;
        for m in &self.methods {
            bits |= 1 << METHODS.iter().position(|x| x == m)?;
        }
        encode::write_uint(&mut out, bits).ok()?;
        let (kind, id) = match &self.scope {
            Scope::Unscoped => (0, ""),
            Scope::Project(id) => (1, id.as_str()),
            Scope::Domain(id) => (2, id.as_str()),
            Scope::System => (3, ""),
        };
        encode::write_uint(&mut out, kind).ok()?;
        put_id(&mut out, id)?;
        encode::write_sint(&mut out, self.expires_at).ok()?;
        encode::write_sint(&mut out, self.issued_at).ok()?;
        encode::write_array_len(&mut out, u32::try_from(self.audit_ids.len()).ok()?).ok()?;
        for a in &self.audit_ids {
            encode::write_bin(&mut out, &URL_SAFE_NO_PAD.decode(a).ok()?).ok()?;
        }
        put_id(&mut out, self.app_cred_id.as_deref().unwrap_or_default())?;
        encode::write_sint(&mut out, self.seen).ok()?;
        if fields > 10 {
            put_id(&mut out, self.trust_id.as_deref().unwrap_or_default())?;
        }
        if let Some(id) = &self.access_token_id {
            put_id(&mut out, id)?;
        }
        Some(out)
    }

    /// `None` for anything that this release does not know.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Payload> {
        let mut input = Bytes::new(bytes);
        let fields = decode::read_array_len(&mut input).ok()?;
        if !(9..=12).contains(&fields) {
            return None;
        }
        if decode::read_int::<u64, _>(&mut input).ok()? != VERSION {
            return None;
        }
        let user_id = get_id(&mut input)?;
        let bits: u64 = decode::read_int(&mut input).ok()?;
        let kind: u64 = decode::read_int(&mut input).ok()?;
        let scope_id = get_id(&mut input)?;
        let scope = match kind {
            0 => Scope::Unscoped,
            1 => Scope::Project(scope_id),
            2 => Scope::Domain(scope_id),
            3 => Scope::System,
            _ => return None,
        };
        let expires_at = decode::read_int(&mut input).ok()?;
        let issued_at = decode::read_int(&mut input).ok()?;
        let n = decode::read_array_len(&mut input).ok()?;
        if n > 2 {
            return None;
        }
        let mut audit_ids = Vec::new();
        for _ in 0..n {
            audit_ids.push(URL_SAFE_NO_PAD.encode(get_bin(&mut input)?));
        }
        let app_cred_id = Some(get_id(&mut input)?).filter(|s| !s.is_empty());
        // The release before had nine fields; its tokens are judged by their time alone.
        let seen = match fields {
            9 => i64::MAX,
            _ => decode::read_int(&mut input).ok()?,
        };
        let trust_id = match fields {
            11.. => Some(get_id(&mut input)?).filter(|s| !s.is_empty()),
            _ => None,
        };
        let access_token_id = match fields {
            12 => Some(get_id(&mut input)?),
            _ => None,
        };
        // The one that was added last is shown first.
        let order = [1, 3, 2, 4, 5, 0];
        let methods = order
            .iter()
            .filter(|i| bits & (1 << **i) != 0)
            .filter_map(|i| METHODS.get(*i))
            .map(|m| (*m).to_owned())
            .collect();
        Some(Payload {
            user_id,
            methods,
            scope,
            expires_at,
            issued_at,
            audit_ids,
            app_cred_id,
            trust_id,
            access_token_id,
            seen,
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn round_trip() {
        for scope in [
            Scope::Unscoped,
            Scope::Project(id::hex()),
            Scope::Project("chosen-by-people".into()),
            Scope::Domain("default".into()),
            Scope::System,
        ] {
            for app_cred_id in [None, Some(id::hex())] {
                let p = Payload {
                    user_id: id::hex(),
                    methods: vec!["token".into(), "password".into()],
                    scope: scope.clone(),
                    expires_at: 1_763_720_000_000_001,
                    issued_at: 1_763_716_400_123_456,
                    audit_ids: vec![audit_id(), audit_id()],
                    app_cred_id,
                    trust_id: None,
                    access_token_id: None,
                    seen: 1_000_000,
                };
                let trusted = Payload {
                    app_cred_id: None,
                    trust_id: Some(id::hex()),
                    ..p.clone()
                };
                let bytes = trusted.encode().unwrap();
                assert!(bytes.len() <= 127, "{} bytes", bytes.len());
                assert_eq!(Payload::decode(&bytes), Some(trusted));
                let lent = Payload {
                    app_cred_id: None,
                    methods: vec!["oauth1".into()],
                    audit_ids: vec![audit_id()],
                    access_token_id: Some(id::hex()),
                    ..p.clone()
                };
                let bytes = lent.encode().unwrap();
                assert!(bytes.len() <= 127, "{} bytes", bytes.len());
                assert_eq!(Payload::decode(&bytes), Some(lent));
                let bytes = p.encode().unwrap();
                assert!(
                    bytes.len() <= 127,
                    "{} bytes make a token of 255 characters or more",
                    bytes.len()
                );
                let mut before = bytes.clone();
                before[0] = 0x99;
                before.truncate(bytes.len() - 5);
                let seen = i64::MAX;
                let nine = Payload { seen, ..p.clone() };
                assert_eq!(Payload::decode(&before), Some(nine), "of the release before");
                assert_eq!(Payload::decode(&bytes), Some(p));
            }
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for bytes in [
            &b""[..],
            b"\x99",
            b"\x99\x02",
            b"\x91\x01",
            &[0xff; 64],
            &[0x99, 1, 0xc4, 200, 1],
        ] {
            assert_eq!(Payload::decode(bytes), None);
        }
    }
}
