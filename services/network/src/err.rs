//! Refusals with Neutron's types. The message names the field and says what would be right.

use haneul_core::{Error, Kind};

/// 400 with Neutron's type for a field.
pub(crate) fn bad(code: &'static str, field: &str, message: impl Into<String>) -> Error {
    Error::field(field, message).with_code(code)
}

/// 400 `InvalidInput`.
pub(crate) fn invalid(field: &str, message: impl std::fmt::Display) -> Error {
    bad("InvalidInput", field, format!("Invalid input for operation: {message}"))
}

/// 400 `HTTPBadRequest`: the value of an attribute is wrong in itself.
pub(crate) fn attribute(field: &str, reason: impl std::fmt::Display) -> Error {
    bad(
        "HTTPBadRequest",
        field,
        format!("Invalid input for {field}. Reason: {reason}"),
    )
}

/// 409 with Neutron's type.
pub(crate) fn conflict(code: &'static str, message: impl Into<String>) -> Error {
    Error::new(Kind::Conflict, message).with_code(code)
}

/// 404 with Neutron's type.
pub(crate) fn not_found(code: &'static str, message: impl Into<String>) -> Error {
    Error::new(Kind::NotFound, message).with_code(code)
}

pub(crate) fn address_in_use(field: &str, network: &str, ip: impl std::fmt::Display) -> Error {
    conflict(
        "IpAddressInUse",
        format!("Unable to complete operation for network {network}. The IP address {ip} is in use. Choose another one in {field}, or leave it out to be given a free one."),
    )
    .with_field(field)
}
