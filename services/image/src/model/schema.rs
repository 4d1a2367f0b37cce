//! The fields of an image as const data: one table checks bodies and patches, and gives the documents under
//! `/v2/schemas`, from which python-glanceclient builds its models.

use super::Visibility;
use haneul_core::{Error, Result};
use haneul_http::{Body, FieldKind as K, f};
use serde_json::{Map, Value, json};

/// Glance's `container_formats`.
pub(crate) const CONTAINER_FORMATS: &[&str] = &["ami", "ari", "aki", "bare", "ovf", "ova", "docker", "compressed"];
/// Glance's `disk_formats`; LUKS and the like are recognised in contents but cannot be declared.
pub(crate) const DISK_FORMATS: &[&str] = &[
    "ami", "ari", "aki", "vhd", "vhdx", "vmdk", "raw", "qcow2", "vdi", "iso", "ploop",
];

const TAG: K = K::Str { min: 0, max: 255 };
const UUID_PATTERN: &str = "^([0-9a-fA-F]){8}-([0-9a-fA-F]){4}-([0-9a-fA-F]){4}-([0-9a-fA-F]){4}-([0-9a-fA-F]){12}$";

/// Every field of an image. Unknown names are kept as properties.
pub(crate) static IMAGE: Body = Body {
    open: true,
    fields: &[
        f("id", K::Check(uuid)),
        f("name", K::Str { min: 0, max: 255 }).null(),
        f("visibility", K::OneOf(Visibility::NAMES)),
        f("protected", K::Check(boolean)),
        f("os_hidden", K::Check(boolean)),
        f("owner", K::Str { min: 0, max: 255 }).null(),
        f("container_format", K::OneOf(CONTAINER_FORMATS)).null(),
        f("disk_format", K::OneOf(DISK_FORMATS)).null(),
        f("min_ram", K::Check(count)),
        f("min_disk", K::Check(count)),
        f("tags", K::List { of: &TAG, max: 100_000 }),
        // Never taken from a client; refused as read-only where they stand.
        f("status", K::Free),
        f("checksum", K::Free),
        f("os_hash_algo", K::Free),
        f("os_hash_value", K::Free),
        f("size", K::Free),
        f("virtual_size", K::Free),
        f("created_at", K::Free),
        f("updated_at", K::Free),
        f("direct_url", K::Free),
        f("self", K::Free),
        f("file", K::Free),
        f("schema", K::Free),
        f("stores", K::Free),
        f("locations", K::Free),
    ],
};

/// Glance wants UUIDs with dashes.
fn uuid(v: &Value) -> Result<(), String> {
    match v.as_str() {
        Some(s) if s.len() == 36 && haneul_core::id::is_uuid(s) => Ok(()),
        _ => Err("It must be a UUID with dashes.".into()),
    }
}

/// JSON's own booleans only: Glance's schema is strict here, unlike Nova's.
fn boolean(v: &Value) -> Result<(), String> {
    v.as_bool()
        .map(|_| ())
        .ok_or_else(|| "It must be true or false.".into())
}

/// A whole number that fits Glance's column.
fn count(v: &Value) -> Result<(), String> {
    match v.as_i64() {
        Some(n) if (0..=i64::from(i32::MAX)).contains(&n) => Ok(()),
        Some(n) if n < 0 => Err("Cannot be a negative value: it must be from 0 to 2147483647.".into()),
        _ => Err("It must be an integer from 0 to 2147483647.".into()),
    }
}

/// Checks an object of fields and properties; `name` prefixes the field in the message.
pub(crate) fn check_properties(object: &Value) -> Result<()> {
    haneul_http::fields::check(&IMAGE, object, haneul_http::Ver(2, 0), "image")?;
    let Some(map) = object.as_object() else {
        return Ok(());
    };
    for (key, value) in map {
        if holds_nul(key) || value_holds_nul(value) {
            return Err(Error::field(
                format!("image.{}", key.replace('\0', "?")),
                "Text must not contain the character U+0000.",
            ));
        }
        if IMAGE.fields.iter().any(|f| f.name == key) {
            continue;
        }
        if key.is_empty() || key.chars().count() > 255 {
            return Err(Error::field(
                "image",
                "Custom property should not be greater than 255 characters, and not empty.",
            ));
        }
        if !value.is_string() {
            return Err(Error::field(
                format!("image.{key}"),
                format!(
                    "Invalid input for field/attribute image.{key}. Value: {value}. Properties are \
                     strings: write {} instead.",
                    Value::from(value.to_string())
                ),
            ));
        }
    }
    Ok(())
}

/// PostgreSQL's text cannot hold it; refused everywhere so that both databases accept the same.
fn holds_nul(text: &str) -> bool {
    text.contains('\0')
}

fn value_holds_nul(value: &Value) -> bool {
    match value {
        Value::String(s) => holds_nul(s),
        Value::Array(items) => items.iter().any(value_holds_nul),
        _ => false,
    }
}

fn base_properties() -> Map<String, Value> {
    let nullable = |kind: &str| json!(["null", kind]);
    let formats = |names: &[&str]| {
        std::iter::once(Value::Null)
            .chain(names.iter().map(|n| Value::from(*n)))
            .collect::<Vec<_>>()
    };
    let read_only_text = |max: Option<u32>, what: &str| {
        let mut p = json!({"type": ["null", "string"], "readOnly": true, "description": what});
        if let (Some(max), Some(map)) = (max, p.as_object_mut()) {
            map.insert("maxLength".into(), max.into());
        }
        p
    };
    let link = |what: &str| json!({"type": "string", "readOnly": true, "description": what});
    let properties = json!({
        "id": {"type": "string", "pattern": UUID_PATTERN, "description": "The image's id"},
        "name": {"type": nullable("string"), "maxLength": 255, "description": "A name for people"},
        "status": {"type": "string", "readOnly": true, "description": "Where the image is in its life",
            "enum": ["queued", "saving", "active", "killed", "deleted", "uploading", "importing",
                "pending_delete", "deactivated"]},
        "visibility": {"type": "string", "enum": Visibility::NAMES, "description": "Who sees the image"},
        "protected": {"type": "boolean", "description": "Whether the image is safe from deletion"},
        "os_hidden": {"type": "boolean", "description": "Whether lists leave the image out unless asked"},
        "checksum": read_only_text(Some(32), "MD5 of the bytes"),
        "os_hash_algo": read_only_text(Some(64), "Algorithm of os_hash_value"),
        "os_hash_value": read_only_text(Some(128), "Hash of the bytes, in hex"),
        "owner": {"type": nullable("string"), "maxLength": 255, "description": "The owning project"},
        "size": {"type": nullable("integer"), "readOnly": true, "description": "Bytes of the file"},
        "virtual_size": {"type": nullable("integer"), "readOnly": true,
            "description": "Bytes of the disk inside"},
        "container_format": {"type": nullable("string"), "enum": formats(CONTAINER_FORMATS),
            "description": "What wraps the disk"},
        "disk_format": {"type": nullable("string"), "enum": formats(DISK_FORMATS),
            "description": "The disk's format"},
        "created_at": link("When the image was registered"),
        "updated_at": link("When the image was last changed"),
        "tags": {"type": "array", "items": {"type": "string", "maxLength": 255},
            "description": "Words to find the image by"},
        "direct_url": link("Where the store keeps the bytes"),
        "min_ram": {"type": "integer", "description": "MiB of memory that a server needs"},
        "min_disk": {"type": "integer", "description": "GiB of disk that a server needs"},
        "self": link("This image"),
        "file": link("The image's bytes"),
        "stores": link("Stores that keep the bytes"),
        "schema": link("The schema of an image"),
        "locations": {"type": "array", "description": "Where stores keep the bytes",
            "items": {"type": "object", "required": ["url", "metadata"], "properties": {
                "url": {"type": "string", "maxLength": 255}, "metadata": {"type": "object"}}}},
        // Properties with a meaning to compute; everything else is a free string.
        "architecture": custom("CPU architecture of the guest"),
        "kernel_id": {"type": ["null", "string"], "pattern": UUID_PATTERN, "is_base": false,
            "description": "Image of the kernel to start with"},
        "ramdisk_id": {"type": ["null", "string"], "pattern": UUID_PATTERN, "is_base": false,
            "description": "Image of the ramdisk to start with"},
        "instance_uuid": custom("Server that this image was made from"),
        "os_distro": custom("Name of the distribution"),
        "os_version": custom("Version of the distribution"),
    });
    match properties {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

fn custom(what: &str) -> Value {
    json!({"type": "string", "is_base": false, "description": what})
}

/// `/v2/schemas/image`.
pub(crate) fn image_schema() -> Value {
    json!({
        "name": "image",
        "properties": base_properties(),
        "additionalProperties": {"type": "string"},
        "links": [
            {"rel": "self", "href": "{self}"},
            {"rel": "enclosure", "href": "{file}"},
            {"rel": "describedby", "href": "{schema}"},
        ],
    })
}

/// `/v2/schemas/images`.
pub(crate) fn images_schema() -> Value {
    json!({
        "name": "images",
        "properties": {
            "images": {"type": "array", "items": image_schema()},
            "first": {"type": "string"},
            "next": {"type": "string"},
            "schema": {"type": "string"},
        },
        "links": [
            {"rel": "first", "href": "{first}"},
            {"rel": "next", "href": "{next}"},
            {"rel": "describedby", "href": "{schema}"},
        ],
    })
}

/// `/v2/schemas/member`.
pub(crate) fn member_schema() -> Value {
    json!({
        "name": "member",
        "properties": {
            "member_id": {"type": "string", "description": "The project"},
            "image_id": {"type": "string", "pattern": UUID_PATTERN, "description": "The image"},
            "created_at": {"type": "string", "description": "When it was shared"},
            "updated_at": {"type": "string", "description": "When the membership last changed"},
            "status": {"type": "string", "enum": ["pending", "accepted", "rejected"],
                "description": "Whether the project took the offer"},
            "schema": {"type": "string", "readOnly": true},
        },
    })
}

/// `/v2/schemas/members`.
pub(crate) fn members_schema() -> Value {
    json!({
        "name": "members",
        "properties": {
            "members": {"type": "array", "items": member_schema()},
            "schema": {"type": "string"},
        },
        "links": [{"rel": "describedby", "href": "{schema}"}],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::DiskFormat;

    #[test]
    fn every_declarable_format_is_one_that_the_parsers_know() {
        for name in DISK_FORMATS {
            assert!(DiskFormat::from_glance_name(name).is_some(), "{name}");
        }
    }

    #[test]
    fn the_schema_has_every_field_of_the_table() {
        let properties = base_properties();
        for field in IMAGE.fields {
            assert!(properties.contains_key(field.name), "{}", field.name);
        }
    }

    #[test]
    fn properties_are_strings_without_nul() {
        for (body, field) in [
            (json!({"a": 1}), "image.a"),
            (json!({"a": "x\u{0}"}), "image.a"),
            (json!({"tags": ["\u{0}"]}), "image.tags"),
            (json!({"min_ram": "1"}), "image.min_ram"),
            (json!({"protected": "true"}), "image.protected"),
            (json!({"disk_format": "zip"}), "image.disk_format"),
            (json!({"id": "0123"}), "image.id"),
        ] {
            let e = check_properties(&body).unwrap_err();
            assert_eq!(e.field_name(), Some(field), "{e}");
        }
        check_properties(&json!({"name": null, "a": "b", "tags": [], "min_ram": 0})).unwrap();
    }
}
