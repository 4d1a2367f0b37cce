//! Fields of a request as const data (architecture 13): one walker validates, another emits the schema.
//!
//! The texts follow Nova's and Neutron's "Invalid input for field/attribute".

use crate::Ver;
use haneul_core::{Error, Result, id};
use serde_json::{Map, Value, json};

/// The kind of a value.
#[derive(Clone, Copy)]
pub enum Kind {
    /// Length in characters.
    Str {
        min: usize,
        max: usize,
    },
    /// A name: 1 to 255 characters, no control characters, no white space at either end.
    Name,
    Uuid,
    Bool,
    /// A number, or a string that reads as one (Nova and Neutron accept both).
    Int {
        min: i64,
        max: i64,
    },
    OneOf(&'static [&'static str]),
    List {
        of: &'static Kind,
        max: usize,
    },
    Obj(&'static Body),
    /// String pairs, e.g. metadata. Lengths of key and value.
    Map {
        key: usize,
        value: usize,
    },
    Any(&'static [Kind]),
    Null,
    /// Not looked at here; the handler checks it.
    Free,
    /// An own check: the reason why a value is wrong.
    Check(fn(&Value) -> Result<(), String>),
}

/// One field.
#[derive(Clone, Copy)]
pub struct Field {
    pub name: &'static str,
    pub kind: Kind,
    pub required: bool,
    pub nullable: bool,
    pub since: Ver,
    pub until: Option<Ver>,
}

/// All fields of an object. `open`: unknown ones are kept (Keystone's extra, Glance's properties).
pub struct Body {
    pub fields: &'static [Field],
    pub open: bool,
}

/// A field that may be left out.
pub const fn f(name: &'static str, kind: Kind) -> Field {
    Field {
        name,
        kind,
        required: false,
        nullable: false,
        since: Ver(0, 0),
        until: None,
    }
}

impl Field {
    pub const fn req(mut self) -> Self {
        self.required = true;
        self
    }
    pub const fn null(mut self) -> Self {
        self.nullable = true;
        self
    }
    pub const fn since(mut self, major: u16, minor: u16) -> Self {
        self.since = Ver(major, minor);
        self
    }
    pub const fn until(mut self, major: u16, minor: u16) -> Self {
        self.until = Some(Ver(major, minor));
        self
    }
    fn at(&self, v: Ver) -> bool {
        v >= self.since && self.until.is_none_or(|u| v <= u)
    }
}

/// Fields whose values no message repeats, in whichever service's body they stand.
const SECRET: &[&str] = &[
    "adminPass",
    "user_data",
    "password",
    "original_password",
    "secret",
    "private_key",
];

/// A value as a message repeats it: short, and without what is secret in it.
fn shown(path: &str, value: &Value) -> String {
    let text = masked(path.rsplit('.').next().unwrap_or_default(), value).to_string();
    match text.char_indices().nth(120) {
        Some((i, _)) => format!("{}...", text.get(..i).unwrap_or_default()),
        None => text,
    }
}

fn masked(name: &str, value: &Value) -> Value {
    match value {
        _ if SECRET.contains(&name) => "***".into(),
        Value::Object(map) => map.iter().map(|(k, v)| (k.clone(), masked(k, v))).collect(),
        Value::Array(list) => list.iter().map(|v| masked("", v)).collect(),
        plain => plain.clone(),
    }
}

fn wrong(path: &str, value: &Value, why: &str) -> Error {
    Error::field(
        path,
        format!(
            "Invalid input for field/attribute {path}. Value: {}. {why}",
            shown(path, value)
        ),
    )
}

/// Checks an object against its table at a microversion. The error names the field by its path.
pub fn check(body: &Body, value: &Value, v: Ver, path: &str) -> Result<()> {
    let Some(object) = value.as_object() else {
        return Err(wrong(path, value, "It must be an object."));
    };
    for field in body.fields.iter().filter(|f| f.required && f.at(v)) {
        if !object.contains_key(field.name) {
            return Err(Error::field(
                format!("{path}.{}", field.name),
                format!(
                    "Invalid input for field/attribute {path}. Value: {}. '{}' is a required property",
                    shown(path, value),
                    field.name
                ),
            ));
        }
    }
    for (name, value) in object {
        let here = format!("{path}.{name}");
        match body.fields.iter().find(|f| f.name == name && f.at(v)) {
            Some(f) if f.nullable && value.is_null() => {}
            Some(f) => check_kind(&f.kind, value, v, &here)?,
            None if body.open => {}
            None => {
                return Err(Error::field(
                    here,
                    format!(
                        "Invalid input for field/attribute {path}. Additional properties are not allowed ('{name}' was unexpected)"
                    ),
                ));
            }
        }
    }
    Ok(())
}

/// Takes away what the table does not know at a microversion, however deep, as Nova's /v2 does.
pub(crate) fn drop_unknown(body: &Body, value: &mut Value, v: Ver) {
    fn below(kind: &Kind, value: &mut Value, v: Ver) {
        match (kind, value) {
            (Kind::Obj(body), value) => drop_unknown(body, value, v),
            (Kind::List { of, .. }, Value::Array(items)) => items.iter_mut().for_each(|i| below(of, i, v)),
            _ => {}
        }
    }
    let Some(object) = value.as_object_mut() else { return };
    let known = |name: &str| body.fields.iter().find(|f| f.name == name && f.at(v));
    object.retain(|name, _| body.open || known(name).is_some());
    for (name, inner) in object {
        if let Some(field) = known(name) {
            below(&field.kind, inner, v);
        }
    }
}

fn check_kind(kind: &Kind, value: &Value, v: Ver, path: &str) -> Result<()> {
    let bad = |why: &str| Err(wrong(path, value, why));
    match kind {
        Kind::Free => Ok(()),
        Kind::Null => match value.is_null() {
            true => Ok(()),
            false => bad("It must be null."),
        },
        Kind::Str { min, max } => match value.as_str() {
            None => bad("It must be a string."),
            Some(s) if s.chars().count() > *max => bad(&format!(
                "It is too long: {} characters, and at most {max} are allowed.",
                s.chars().count()
            )),
            Some(s) if s.chars().count() < *min => bad(&format!(
                "It is too short: {} characters, and at least {min} are needed.",
                s.chars().count()
            )),
            Some(_) => Ok(()),
        },
        Kind::Name => match value.as_str() {
            None => bad("It must be a string."),
            Some("") => bad("It must not be empty."),
            Some(s) if s.chars().count() > 255 => bad(&format!(
                "It is too long: {} characters, and at most 255 are allowed.",
                s.chars().count()
            )),
            Some(s) if s.chars().any(char::is_control) => bad("It must not contain control characters."),
            Some(s) if s.trim() != s => bad("It must not begin or end with white space."),
            Some(_) => Ok(()),
        },
        Kind::Uuid => match value.as_str() {
            Some(s) if id::is_uuid(s) => Ok(()),
            _ => bad("It must be a UUID."),
        },
        Kind::Bool => match value {
            Value::Bool(_) => Ok(()),
            Value::String(s) if crate::request::parse_bool(s).is_some() => Ok(()),
            Value::Number(n) if n.as_i64() == Some(0) || n.as_i64() == Some(1) => Ok(()),
            _ => bad("It must be true or false."),
        },
        Kind::Int { min, max } => match int(value) {
            None => bad("It must be an integer."),
            Some(n) if n < *min || n > *max => bad(&format!("It must be from {min} to {max}.")),
            Some(_) => Ok(()),
        },
        Kind::OneOf(names) => match value.as_str() {
            Some(s) if names.contains(&s) => Ok(()),
            _ => bad(&format!("It must be one of {}.", names.join(", "))),
        },
        Kind::List { of, max } => match value.as_array() {
            None => bad("It must be a list."),
            Some(items) if items.len() > *max => {
                bad(&format!("It has {} items, and at most {max} are allowed.", items.len()))
            }
            Some(items) => items
                .iter()
                .enumerate()
                .try_for_each(|(i, item)| check_kind(of, item, v, &format!("{path}.{i}"))),
        },
        Kind::Obj(body) => check(body, value, v, path),
        Kind::Map { key, value: longest } => match value.as_object() {
            None => bad("It must be an object of strings."),
            Some(map) => map.iter().try_for_each(|(k, x)| {
                let here = format!("{path}.{k}");
                if k.is_empty() || k.chars().count() > *key {
                    return Err(wrong(&here, x, &format!("Keys have 1 to {key} characters.")));
                }
                match x.as_str() {
                    Some(s) if s.chars().count() <= *longest => Ok(()),
                    Some(_) => Err(wrong(
                        &here,
                        x,
                        &format!("It is too long: at most {longest} characters are allowed."),
                    )),
                    None => Err(wrong(&here, x, "It must be a string.")),
                }
            }),
        },
        Kind::Any(kinds) => {
            let mut last = None;
            for k in *kinds {
                match check_kind(k, value, v, path) {
                    Ok(()) => return Ok(()),
                    Err(e) => last = Some(e),
                }
            }
            Err(last.unwrap_or_else(|| wrong(path, value, "Nothing is allowed here.")))
        }
        Kind::Check(check) => check(value).or_else(|why| bad(&why)),
    }
}

/// An integer, or a string that reads as one.
pub fn int(value: &Value) -> Option<i64> {
    match value {
        Value::Number(n) => n.as_i64(),
        Value::String(s) => s.trim().parse().ok(),
        _ => None,
    }
}

/// A boolean in any spelling that [`Kind::Bool`] lets pass.
pub fn boolean(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(b) => Some(*b),
        Value::String(s) => crate::request::parse_bool(s),
        Value::Number(n) => n.as_i64().map(|n| n != 0),
        _ => None,
    }
}

/// The JSON schema of a table at a microversion.
pub fn schema(body: &Body, v: Ver) -> Value {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for field in body.fields.iter().filter(|f| f.at(v)) {
        let mut s = schema_kind(&field.kind, v);
        if field.nullable {
            s = json!({"anyOf": [s, {"type": "null"}]});
        }
        properties.insert(field.name.into(), s);
        if field.required {
            required.push(Value::from(field.name));
        }
    }
    json!({"type": "object", "properties": properties, "required": required, "additionalProperties": body.open})
}

fn schema_kind(kind: &Kind, v: Ver) -> Value {
    match kind {
        Kind::Str { min, max } => json!({"type": "string", "minLength": min, "maxLength": max}),
        Kind::Name => json!({"type": "string", "minLength": 1, "maxLength": 255}),
        Kind::Uuid => json!({"type": "string", "format": "uuid"}),
        Kind::Bool => json!({"type": ["boolean", "string", "integer"]}),
        Kind::Int { min, max } => json!({"type": ["integer", "string"], "minimum": min, "maximum": max}),
        Kind::OneOf(names) => json!({"type": "string", "enum": names}),
        Kind::List { of, max } => json!({"type": "array", "maxItems": max, "items": schema_kind(of, v)}),
        Kind::Obj(body) => schema(body, v),
        Kind::Map { value, .. } => {
            json!({"type": "object", "additionalProperties": {"type": "string", "maxLength": value}})
        }
        Kind::Any(kinds) => json!({"anyOf": kinds.iter().map(|k| schema_kind(k, v)).collect::<Vec<_>>()}),
        Kind::Null => json!({"type": "null"}),
        Kind::Free | Kind::Check(_) => json!({}),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// A refusal names the field; it repeats a value, but never a secret, however deep that stands.
    #[test]
    fn refusals_repeat_no_secret() {
        static SERVER: Body = Body {
            open: false,
            fields: &[
                f("name", Kind::Name).req(),
                f("adminPass", Kind::Str { min: 0, max: 8 }),
                f("personality", Kind::Uuid),
            ],
        };
        for (body, field) in [
            (json!({"adminPass": "hunter22"}), "name"),
            (json!({"name": "n", "adminPass": "hunter22hunter22"}), "adminPass"),
            (json!({"name": "n", "adminPass": ["hunter22"]}), "adminPass"),
            (
                json!({"name": "n", "personality": {"a": [{"password": "hunter22"}]}}),
                "personality",
            ),
        ] {
            let said = check(&SERVER, &body, Ver(2, 1), "server").unwrap_err().to_string();
            assert!(said.contains(field) && !said.contains("hunter"), "{said}");
        }
        let said = check(&SERVER, &json!({"name": 7}), Ver(2, 1), "server")
            .unwrap_err()
            .to_string();
        assert!(said.contains("Value: 7"), "{said}");
    }
}
