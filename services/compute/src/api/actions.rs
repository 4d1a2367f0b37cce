//! POST /servers/ID/action: one key names the action (Nova API reference, "Servers - run an action").

use haneul_core::{Error, Result};
use serde_json::Value;

/// The only key of an action's body, and what is under it.
pub(crate) fn one_key(body: &Value) -> Result<(&str, &Value)> {
    let mut keys = body.as_object().into_iter().flatten();
    match (keys.next(), keys.next()) {
        (Some((k, v)), None) => Ok((k, v)),
        _ => Err(Error::bad_request("Malformed request body: it must be an object with one key, the name of the action.")),
    }
}

/// No such action.
pub(crate) fn unknown(name: &str) -> Error {
    Error::field(name, format!("There is no such action: {name}"))
}
