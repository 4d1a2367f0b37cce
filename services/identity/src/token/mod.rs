//! Tokens: what is inside ([`payload`]), how it is sealed ([`keys`]), and what was validated lately
//! ([`cache`]).

pub(crate) mod cache;
pub(crate) mod keys;
pub(crate) mod payload;

pub(crate) use cache::{Cache, Delegation, Entry};
pub(crate) use keys::Keys;
pub(crate) use payload::{EC2_METHOD, Payload, Scope};
