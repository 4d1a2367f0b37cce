//! Changes to an image: the part of JSON patch that Glance takes, in its two spellings
//! (`application/openstack-images-v2.1-json-patch` writes op, path and value; `v2.0` writes the path
//! under the operation's name). Only whole attributes change; there is no way to one tag or one letter.

use super::{Image, MAX_EXTRAS, Status, Visibility, check_properties, limit_exceeded};
use haneul_core::{Error, Result};
use serde_json::{Map, Value};

/// Content type of the patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Draft {
    /// v2.0: `{"replace": "/name", "value": "x"}`; adding what exists is a conflict.
    V4,
    /// v2.1: `{"op": "replace", "path": "/name", "value": "x"}`; adding what exists replaces it.
    V10,
}

impl Draft {
    pub const CONTENT_TYPES: [(&'static str, Self); 2] = [
        ("application/openstack-images-v2.0-json-patch", Self::V4),
        ("application/openstack-images-v2.1-json-patch", Self::V10),
    ];
}

/// What to do.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Change {
    Add { path: Path, value: Value, only_new: bool },
    Replace { path: Path, value: Value },
    Remove { path: Path },
}

impl Change {
    fn path(&self) -> &Path {
        match self {
            Self::Add { path, .. } | Self::Replace { path, .. } | Self::Remove { path } => path,
        }
    }
}

/// The attribute that a change means: the first part of its pointer.
pub(crate) type Path = String;

/// What the caller may do beyond changing the image at all.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Editor {
    pub admin: bool,
    pub may_publicize: bool,
    pub may_communitize: bool,
}

const DISALLOWED: &[&str] = &["direct_url", "self", "file", "schema", "stores"];
const READ_ONLY: &[&str] = &[
    "created_at",
    "updated_at",
    "status",
    "checksum",
    "size",
    "virtual_size",
    "os_hash_algo",
    "os_hash_value",
];
const RESERVED: &[&str] = &["location", "deleted", "deleted_at"];
const RESERVED_PREFIX: &str = "os_glance";

/// Refuses names that no client sets. `creating` lets `id` pass, which a create may choose.
pub(crate) fn check_name(name: &str, creating: bool) -> Result<()> {
    let read_only = DISALLOWED.contains(&name) || READ_ONLY.contains(&name) || (name == "id" && !creating);
    if read_only {
        return Err(Error::forbidden(format!("Attribute '{name}' is read-only.")).with_field(name));
    }
    if RESERVED.contains(&name) || name.starts_with(RESERVED_PREFIX) || (creating && name == "locations") {
        return Err(Error::forbidden(format!("Attribute '{name}' is reserved.")).with_field(name));
    }
    Ok(())
}

/// Reads the body of a PATCH.
pub(crate) fn parse(body: &Value, draft: Draft) -> Result<Vec<Change>> {
    let Some(list) = body.as_array() else {
        return Err(Error::bad_request(
            "Request body must be a JSON array of operation objects.",
        ));
    };
    list.iter()
        .map(|raw| {
            let Some(raw) = raw.as_object() else {
                return Err(Error::bad_request("Operations must be JSON objects."));
            };
            let change = one(raw, draft)?;
            check_name(change.path(), false)?;
            if let Change::Add { path, value, .. } | Change::Replace { path, value } = &change
                && path != "locations"
            {
                let mut partial = Map::new();
                partial.insert(path.clone(), value.clone());
                check_properties(&Value::Object(partial))?;
            }
            Ok(change)
        })
        .collect()
}

fn one(raw: &Map<String, Value>, draft: Draft) -> Result<Change> {
    const OPS: [&str; 3] = ["add", "remove", "replace"];
    let (op, pointer) = match draft {
        Draft::V10 => {
            let op = raw.get("op").and_then(Value::as_str).ok_or_else(|| {
                Error::field(
                    "op",
                    "Unable to find `op` in JSON Schema change. It must be one of the following: add, \
                     remove, replace.",
                )
            })?;
            if !OPS.contains(&op) {
                return Err(Error::field(
                    "op",
                    format!("Invalid operation: `{op}`. It must be one of the following: add, remove, replace."),
                ));
            }
            let path = raw
                .get("path")
                .ok_or_else(|| Error::field("path", "Unable to find 'path' in JSON Schema change"))?;
            (op, path)
        }
        Draft::V4 => {
            let mut found = OPS.iter().filter_map(|op| Some((*op, raw.get(*op)?)));
            match (found.next(), found.next()) {
                (Some(one), None) => one,
                _ => {
                    return Err(Error::bad_request(
                        "Operation objects must contain exactly one member named \"add\", \"remove\", or \
                         \"replace\".",
                    ));
                }
            }
        }
    };
    let path = root(op, pointer)?;
    let value = || {
        raw.get("value").cloned().ok_or_else(|| {
            Error::field(
                "value",
                format!("Operation \"{op}\" requires a member named \"value\"."),
            )
        })
    };
    Ok(match op {
        "add" => Change::Add {
            path,
            value: value()?,
            only_new: draft == Draft::V4,
        },
        "replace" => Change::Replace { path, value: value()? },
        _ => Change::Remove { path },
    })
}

/// Reads a JSON pointer (RFC 6901, as far as Glance takes it) and gives its first part.
fn root(op: &str, pointer: &Value) -> Result<Path> {
    let bad = |p: &str, why: &str| Err(Error::field("path", format!("Pointer `{p}` {why}.")));
    let Some(p) = pointer.as_str() else {
        return bad(&pointer.to_string(), "is not a string");
    };
    let Some(rest) = p.strip_prefix('/') else {
        return bad(p, "does not start with \"/\"");
    };
    if rest.ends_with('/') {
        return bad(p, "end with \"/\"");
    }
    let mut parts = Vec::new();
    for part in rest.split('/') {
        if part.trim().is_empty() {
            return bad(p, "contains an empty part");
        }
        let mut chars = part.chars();
        let mut out = String::new();
        while let Some(c) = chars.next() {
            out.push(match c {
                '~' => match chars.next() {
                    Some('0') => '~',
                    Some('1') => '/',
                    _ => return bad(p, "contains \"~\" not part of a recognized escape sequence"),
                },
                c => c,
            });
        }
        parts.push(out.trim().to_owned());
    }
    // Locations may be addressed one by one; nothing else has a depth.
    let depth = match parts.first().map(String::as_str) {
        Some("locations") if op != "replace" => 2,
        _ => 1,
    };
    if parts.len() != depth {
        return Err(Error::field(
            "path",
            format!("Invalid JSON pointer for this resource: '/{}'", parts.join("/")),
        ));
    }
    Ok(parts.swap_remove(0))
}

/// Applies changes in order; the first that is wrong refuses all.
pub(crate) fn apply(image: &mut Image, changes: &[Change], who: Editor) -> Result<()> {
    for change in changes {
        match change {
            Change::Add { path, value, only_new } => {
                if *only_new && (is_attribute(path) || image.properties.contains_key(path)) {
                    return Err(Error::conflict(format!("Property {path} already present.")).with_field(path.as_str()));
                }
                set(image, path, value, who)?;
            }
            Change::Replace { path, value } => {
                if !is_attribute(path) && !image.properties.contains_key(path) {
                    return Err(absent(path));
                }
                set(image, path, value, who)?;
            }
            Change::Remove { path } => remove(image, path)?,
        }
    }
    if image.properties.len() > MAX_EXTRAS {
        return Err(limit_exceeded("properties", image.properties.len()));
    }
    if image.tags.len() > MAX_EXTRAS {
        return Err(limit_exceeded("tags", image.tags.len()));
    }
    Ok(())
}

fn absent(path: &str) -> Error {
    Error::conflict(format!("Property {path} does not exist.")).with_field(path)
}

fn is_attribute(path: &str) -> bool {
    super::IMAGE.fields.iter().any(|f| f.name == path)
}

fn remove(image: &mut Image, path: &str) -> Result<()> {
    if path == "locations" {
        return Err(
            Error::forbidden("It's not allowed to remove locations if locations are invisible.").with_field(path),
        );
    }
    if is_attribute(path) {
        return Err(Error::forbidden(format!("Property {path} may not be removed.")).with_field(path));
    }
    image.properties.remove(path).map(|_| ()).ok_or_else(|| absent(path))
}

/// Sets one attribute whose value [`check_properties`] has passed; shared by create and update.
pub(crate) fn set(image: &mut Image, name: &str, value: &Value, who: Editor) -> Result<()> {
    let text = || value.as_str().map(str::to_owned);
    match name {
        "locations" => {
            return Err(Error::forbidden(if value.as_array().is_some_and(Vec::is_empty) {
                "Cannot set locations to empty list."
            } else {
                "It's not allowed to add locations if locations are invisible."
            })
            .with_field(name));
        }
        "id" => image.id = text().unwrap_or_default().to_ascii_lowercase(),
        "name" => image.name = text(),
        "owner" => {
            if !who.admin && text() != image.owner {
                return Err(Error::forbidden("Owner can't be updated by non admin.").with_field(name));
            }
            image.owner = text();
        }
        "visibility" => set_visibility(image, value, who)?,
        "protected" => image.protected = value.as_bool().unwrap_or_default(),
        "os_hidden" => image.os_hidden = value.as_bool().unwrap_or_default(),
        "min_ram" => image.min_ram = value.as_i64().unwrap_or_default(),
        "min_disk" => image.min_disk = value.as_i64().unwrap_or_default(),
        "disk_format" | "container_format" => {
            if image.status != Status::Queued {
                return Err(
                    Error::forbidden(format!("Attribute {name} can be only replaced for a queued image."))
                        .with_field(name),
                );
            }
            let slot = if name == "disk_format" {
                &mut image.disk_format
            } else {
                &mut image.container_format
            };
            *slot = text();
        }
        "tags" => {
            image.tags = value
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect();
        }
        other => {
            image.properties.insert(other.to_owned(), text().unwrap_or_default());
        }
    }
    Ok(())
}

fn set_visibility(image: &mut Image, value: &Value, who: Editor) -> Result<()> {
    let Some(new) = value.as_str().and_then(Visibility::parse) else {
        return Ok(());
    };
    let refused = match new {
        Visibility::Public if !who.may_publicize => "publicize_image",
        Visibility::Community if !who.may_communitize => "communitize_image",
        _ => {
            image.visibility = new;
            return Ok(());
        }
    };
    Err(Error::forbidden(format!(
        "You are not authorized to complete {refused} action: visibility {} is not open to you.",
        new.as_str()
    ))
    .with_field("visibility"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use haneul_core::Kind;
    use serde_json::json;

    const ADMIN: Editor = Editor {
        admin: true,
        may_publicize: true,
        may_communitize: true,
    };

    fn run(image: &mut Image, body: Value, draft: Draft, who: Editor) -> Result<()> {
        apply(image, &parse(&body, draft)?, who)
    }

    fn image() -> Image {
        let mut image = Image::new("i".into(), Some("p".into()));
        image.properties.insert("os".into(), "linux".into());
        image
    }

    #[test]
    fn both_spellings_change_an_image() {
        let mut a = image();
        let body = json!([
            {"op": "replace", "path": "/name", "value": "n"},
            {"op": "add", "path": "/a~1b", "value": "x"},
            {"op": "add", "path": "/os", "value": "bsd"},
            {"op": "replace", "path": "/tags", "value": ["t", "u", "t"]},
            {"op": "remove", "path": "/os"},
        ]);
        run(&mut a, body, Draft::V10, Editor::default()).unwrap();
        assert_eq!(a.name.as_deref(), Some("n"));
        assert_eq!(a.properties.get("a/b").map(String::as_str), Some("x"));
        assert!(!a.properties.contains_key("os"));
        assert_eq!(a.tags.len(), 2);
        let mut b = image();
        let body = json!([{"replace": "/name", "value": "n"}, {"add": "/x", "value": "y"}]);
        run(&mut b, body, Draft::V4, Editor::default()).unwrap();
        assert_eq!(b.properties.len(), 2);
    }

    #[test]
    fn refusals_have_glances_status() {
        let rows = [
            (json!({}), Draft::V10, Kind::BadRequest, "array"),
            (json!([1]), Draft::V10, Kind::BadRequest, "objects"),
            (json!([{"path": "/a"}]), Draft::V10, Kind::BadRequest, "`op`"),
            (
                json!([{"op": "test", "path": "/a"}]),
                Draft::V10,
                Kind::BadRequest,
                "`test`",
            ),
            (
                json!([{"op": "add", "value": 1}]),
                Draft::V10,
                Kind::BadRequest,
                "'path'",
            ),
            (
                json!([{"op": "add", "path": "/a"}]),
                Draft::V10,
                Kind::BadRequest,
                "value",
            ),
            (
                json!([{"op": "add", "path": "a", "value": "x"}]),
                Draft::V10,
                Kind::BadRequest,
                "start",
            ),
            (
                json!([{"op": "add", "path": 1, "value": "x"}]),
                Draft::V10,
                Kind::BadRequest,
                "string",
            ),
            (
                json!([{"op": "add", "path": "/", "value": "x"}]),
                Draft::V10,
                Kind::BadRequest,
                "empty",
            ),
            (
                json!([{"op": "add", "path": "/a/", "value": "x"}]),
                Draft::V10,
                Kind::BadRequest,
                "end",
            ),
            (
                json!([{"op": "add", "path": "/a//b", "value": "x"}]),
                Draft::V10,
                Kind::BadRequest,
                "empty",
            ),
            (
                json!([{"op": "add", "path": "/a~2", "value": "x"}]),
                Draft::V10,
                Kind::BadRequest,
                "escape",
            ),
            (
                json!([{"op": "add", "path": "/tags/-", "value": "x"}]),
                Draft::V10,
                Kind::BadRequest,
                "'/tags/-'",
            ),
            (
                json!([{"op": "add", "path": "/a", "value": 5}]),
                Draft::V10,
                Kind::BadRequest,
                "strings",
            ),
            (
                json!([{"op": "replace", "path": "/min_ram", "value": -1}]),
                Draft::V10,
                Kind::BadRequest,
                "negative",
            ),
            (
                json!([{"op": "replace", "path": "/id", "value": "x"}]),
                Draft::V10,
                Kind::Forbidden,
                "read-only",
            ),
            (
                json!([{"op": "replace", "path": "/status", "value": "x"}]),
                Draft::V10,
                Kind::Forbidden,
                "read-only",
            ),
            (
                json!([{"op": "add", "path": "/deleted", "value": "x"}]),
                Draft::V10,
                Kind::Forbidden,
                "reserved",
            ),
            (
                json!([{"op": "add", "path": "/os_glance_x", "value": "x"}]),
                Draft::V10,
                Kind::Forbidden,
                "reserved",
            ),
            (
                json!([{"op": "remove", "path": "/name"}]),
                Draft::V10,
                Kind::Forbidden,
                "may not be removed",
            ),
            (
                json!([{"op": "remove", "path": "/nope"}]),
                Draft::V10,
                Kind::Conflict,
                "does not exist",
            ),
            (
                json!([{"op": "replace", "path": "/nope", "value": "x"}]),
                Draft::V10,
                Kind::Conflict,
                "does not exist",
            ),
            (
                json!([{"op": "replace", "path": "/owner", "value": "q"}]),
                Draft::V10,
                Kind::Forbidden,
                "Owner",
            ),
            (
                json!([{"op": "replace", "path": "/visibility", "value": "public"}]),
                Draft::V10,
                Kind::Forbidden,
                "publicize",
            ),
            (
                json!([{"op": "replace", "path": "/locations", "value": []}]),
                Draft::V10,
                Kind::Forbidden,
                "empty list",
            ),
            (
                json!([{"op": "add", "path": "/locations/-", "value": {}}]),
                Draft::V10,
                Kind::Forbidden,
                "invisible",
            ),
            (
                json!([{"add": "/os", "value": "x"}]),
                Draft::V4,
                Kind::Conflict,
                "already present",
            ),
            (
                json!([{"add": "/a", "remove": "/b"}]),
                Draft::V4,
                Kind::BadRequest,
                "exactly one",
            ),
            (json!([{"value": "x"}]), Draft::V4, Kind::BadRequest, "exactly one"),
        ];
        for (body, draft, kind, word) in rows {
            let e = run(&mut image(), body.clone(), draft, Editor::default()).expect_err(&body.to_string());
            assert_eq!(e.kind(), kind, "{body}: {e}");
            assert!(e.public().contains(word), "{body}: {e}");
        }
    }

    #[test]
    fn an_administrator_may_more() {
        let mut a = image();
        let body = json!([
            {"op": "replace", "path": "/owner", "value": "q"},
            {"op": "replace", "path": "/visibility", "value": "public"},
        ]);
        run(&mut a, body, Draft::V10, ADMIN).unwrap();
        assert_eq!((a.owner.as_deref(), a.visibility), (Some("q"), Visibility::Public));
    }

    #[test]
    fn formats_are_fixed_once_there_are_bytes() {
        let mut a = image();
        a.status = Status::Active;
        let body = json!([{"op": "replace", "path": "/disk_format", "value": "raw"}]);
        let e = run(&mut a, body, Draft::V10, ADMIN).unwrap_err();
        assert_eq!(e.kind(), Kind::Forbidden);
    }

    #[test]
    fn there_is_an_end_to_properties_and_tags() {
        let mut a = image();
        let many: Vec<Value> = (0..128)
            .map(|i| json!({"op": "add", "path": format!("/p{i}"), "value": "x"}))
            .collect();
        let e = run(&mut a, Value::from(many), Draft::V10, ADMIN).unwrap_err();
        assert_eq!(e.kind(), Kind::TooLarge);
        assert!(e.public().contains("Attempted: 129, Maximum: 128"), "{e}");
        let tags: Vec<String> = (0..129).map(|i| i.to_string()).collect();
        let body = json!([{"op": "replace", "path": "/tags", "value": tags}]);
        let e = run(&mut image(), body, Draft::V10, ADMIN).unwrap_err();
        assert_eq!(e.kind(), Kind::TooLarge);
    }
}
