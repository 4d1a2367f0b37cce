//! Ids, in one table: which form the id of each kind has (architecture 11), and the source of new ids and
//! of randomness.

use rand::RngCore;

/// Forms of ids in the OpenStack world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// 36 characters with dashes.
    Uuid,
    /// 32 hex digits without dashes (Keystone's).
    Hex,
    /// A string chosen by people (`default`, flavor `1`, `RegionOne`).
    Chosen,
    /// A name is the id (traits, resource classes, keypairs).
    Name,
    /// An integer (aggregates, migrations).
    Integer,
}

/// The table: kind and form.
pub const FORMS: &[(&str, Form)] = &[
    ("domain", Form::Chosen),
    ("project", Form::Hex),
    ("user", Form::Hex),
    ("role", Form::Hex),
    ("application_credential", Form::Hex),
    ("service", Form::Hex),
    ("endpoint", Form::Hex),
    ("region", Form::Chosen),
    ("image", Form::Uuid),
    ("resource_provider", Form::Uuid),
    ("network", Form::Uuid),
    ("subnet", Form::Uuid),
    ("port", Form::Uuid),
    ("router", Form::Uuid),
    ("floatingip", Form::Uuid),
    ("security_group", Form::Uuid),
    ("security_group_rule", Form::Uuid),
    ("flavor", Form::Chosen),
    ("keypair", Form::Name),
    ("server", Form::Uuid),
    ("host", Form::Uuid),
    ("aggregate", Form::Integer),
    ("migration", Form::Integer),
    ("job", Form::Uuid),
];

/// A new UUID in its usual text form.
pub fn uuid() -> String {
    uuid::Uuid::new_v4().to_string()
}

/// A new id of 32 hex digits.
pub fn hex() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

/// A new request id, `req-` and a UUID.
pub fn request() -> String {
    format!("req-{}", uuid())
}

/// Whether `text` is a UUID, with or without dashes, as Nova and Neutron accept it.
pub fn is_uuid(text: &str) -> bool {
    uuid::Uuid::try_parse(text).is_ok()
}

/// `n` random bytes.
pub fn random_bytes(n: usize) -> Vec<u8> {
    let mut bytes = vec![0; n];
    rand::rng().fill_bytes(&mut bytes);
    bytes
}

/// A random secret of `n` characters, from an alphabet that survives shells, URLs and TOML.
pub fn secret(n: usize) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    random_bytes(n)
        .iter()
        .map(|b| ALPHABET[(b & 63) as usize] as char)
        .collect()
}

/// A random number below `n` (which is not 0).
pub fn below(n: u64) -> u64 {
    rand::rng().next_u64() % n.max(1)
}
