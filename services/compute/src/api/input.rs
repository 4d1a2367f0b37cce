//! Fields of requests as const data (Nova's JSON schemas), and helpers that read checked values.

use base64::Engine as _;
use haneul_auth::{Ctx, Target};
use haneul_core::{Error, Result};
use haneul_http::fields::{self, Kind as K};
use haneul_http::{Body, Page, Req, Ver, f};
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub(crate) const BOOL: K = K::Check(|v| match v {
    Value::Bool(_) => Ok(()),
    Value::String(s)
        if [
            "True", "TRUE", "true", "1", "ON", "On", "on", "YES", "Yes", "yes", "False", "FALSE", "false", "0", "OFF",
            "Off", "off", "NO", "No", "no",
        ]
        .contains(&s.as_str()) =>
    {
        Ok(())
    }
    _ => Err("It must be true or false.".into()),
});
pub(crate) const TEXT: K = K::Str { min: 1, max: 255 };
pub(crate) const COUNT: K = K::Int {
    min: 1,
    max: i32::MAX as i64,
};
pub(crate) const AMOUNT: K = K::Int {
    min: 0,
    max: i32::MAX as i64,
};
pub(crate) const META: K = K::Check(|v| metadata_ok(v, false));
pub(crate) const DESCRIPTION: K = K::Check(|v| match v {
    Value::Null => Ok(()),
    Value::String(s) if s.chars().count() > 255 => Err(format!(
        "It is too long: {} characters, and at most 255 are allowed.",
        s.chars().count()
    )),
    Value::String(s) if s.chars().any(|c| c.is_control() && !"\n\r\t".contains(c)) => {
        Err("It must not contain control characters.".into())
    }
    Value::String(_) => Ok(()),
    _ => Err("It must be a string or null.".into()),
});
const FLAVOR_REF: K = K::Check(|v| match v {
    Value::String(s) if !s.is_empty() => Ok(()),
    Value::Number(n) if n.is_i64() => Ok(()),
    _ => Err("It must be the id of a flavor.".into()),
});
const IMAGE_REF: K = K::Check(|v| match v {
    Value::String(s) if s.is_empty() || haneul_core::id::is_uuid(s) => Ok(()),
    _ => Err("It must be the UUID of an image.".into()),
});
pub(crate) const BASE64: K = K::Check(|v| match v {
    Value::String(s) if s.len() > 65535 => Err(format!(
        "It is too long: {} characters, and at most 65535 are allowed.",
        s.len()
    )),
    Value::String(s) if base64_ok(s) => Ok(()),
    _ => Err("It must be Base64.".into()),
});
pub(crate) const IP: K = K::Check(|v| match v.as_str().map(str::parse::<IpAddr>) {
    Some(Ok(_)) => Ok(()),
    _ => Err("It must be an IPv4 or IPv6 address.".into()),
});
pub(crate) const IP4: K = K::Check(|v| match v.as_str().map(str::parse::<Ipv4Addr>) {
    Some(Ok(_)) => Ok(()),
    _ => Err("It must be an IPv4 address.".into()),
});
pub(crate) const IP6: K = K::Check(|v| match v.as_str().map(str::parse::<Ipv6Addr>) {
    Some(Ok(_)) => Ok(()),
    _ => Err("It must be an IPv6 address.".into()),
});
pub(crate) const DISK_CONFIG: K = K::OneOf(&["AUTO", "MANUAL"]);
pub(crate) const TAG: K = K::Check(|v| match v.as_str() {
    None => Err("It must be a string.".into()),
    Some(s) => tag_ok(s),
});
pub(crate) const HOSTNAME: K = K::Check(|v| match v.as_str() {
    Some(s)
        if (2..=63).contains(&s.len())
            && s.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !s.starts_with('-')
            && !s.ends_with('-') =>
    {
        Ok(())
    }
    _ => Err("A host name has 2 to 63 letters, digits and dashes, and no dash at either end.".into()),
});
pub(crate) const FQDN: K = K::Check(|v| match v.as_str() {
    Some(s) if (1..=255).contains(&s.len()) && s.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)) => {
        Ok(())
    }
    _ => Err("It must have 1 to 255 letters, digits, dashes, dots and underscores.".into()),
});
pub(crate) const CERTS: K = K::List {
    of: &K::Str { min: 1, max: 255 },
    max: 50,
};

const NIC: Body = Body {
    open: false,
    fields: &[
        f("fixed_ip", IP),
        f("port", K::Uuid).null(),
        f("uuid", K::Str { min: 1, max: 255 }).until(2, 36),
        f("uuid", K::Uuid).since(2, 37),
        f("tag", TAG).since(2, 32).until(2, 36),
        f("tag", TAG).since(2, 42),
    ],
};
const NICS: K = K::List {
    of: &K::Obj(&NIC),
    max: 64,
};
const BDM: Body = Body {
    open: false,
    fields: &[
        f("virtual_name", K::Str { min: 0, max: 255 }),
        f("volume_id", K::Uuid),
        f("snapshot_id", K::Uuid),
        f("volume_size", COUNT),
        f("device_name", TEXT),
        f("delete_on_termination", BOOL),
        f("no_device", K::Free),
        f(
            "connection_info",
            K::Str {
                min: 0,
                max: 16_777_215,
            },
        ),
        f("source_type", K::OneOf(&["volume", "image", "snapshot", "blank"])),
        f("uuid", TEXT),
        f("image_id", K::Uuid),
        f("destination_type", K::OneOf(&["local", "volume"])),
        f("guest_format", K::Str { min: 0, max: 255 }),
        f("device_type", K::Str { min: 0, max: 255 }),
        f("disk_bus", K::Str { min: 0, max: 255 }),
        f("boot_index", K::Int { min: -1000, max: 1000 }).null(),
        f("tag", TAG).since(2, 32).until(2, 32),
        f("tag", TAG).since(2, 42),
        f("volume_type", K::Str { min: 0, max: 255 }).null().since(2, 67),
    ],
};
const FILE: Body = Body {
    open: false,
    fields: &[f("path", K::Str { min: 0, max: 4096 }), f("contents", BASE64)],
};
const GROUP: Body = Body {
    open: false,
    fields: &[f("name", K::Name)],
};

/// POST /servers (Nova API reference, "Create Server").
pub(crate) static SERVER_CREATE: Body = Body {
    open: false,
    fields: &[
        f("name", K::Name).req(),
        f("imageRef", IMAGE_REF),
        f("flavorRef", FLAVOR_REF).req(),
        f("adminPass", K::Str { min: 0, max: 65535 }),
        f("metadata", META),
        f("networks", NICS).until(2, 36),
        f("networks", K::Any(&[K::OneOf(&["none", "auto"]), NICS]))
            .req()
            .since(2, 37),
        f("OS-DCF:diskConfig", DISK_CONFIG),
        f("accessIPv4", IP4),
        f("accessIPv6", IP6),
        f(
            "personality",
            K::List {
                of: &K::Obj(&FILE),
                max: 1000,
            },
        )
        .until(2, 56),
        f("availability_zone", K::Name),
        f(
            "block_device_mapping",
            K::List {
                of: &K::Obj(&BDM),
                max: 64,
            },
        ),
        f(
            "block_device_mapping_v2",
            K::List {
                of: &K::Obj(&BDM),
                max: 64,
            },
        ),
        f("config_drive", BOOL),
        f("key_name", K::Name),
        f("min_count", COUNT),
        f("max_count", COUNT),
        f("return_reservation_id", BOOL),
        f(
            "security_groups",
            K::List {
                of: &K::Obj(&GROUP),
                max: 256,
            },
        ),
        f("user_data", BASE64),
        f("description", DESCRIPTION).since(2, 19),
        f("tags", K::List { of: &TAG, max: 50 }).since(2, 52),
        f("trusted_image_certificates", CERTS).null().since(2, 63),
        f("host", FQDN).since(2, 74),
        f("hypervisor_hostname", FQDN).since(2, 74),
        f("hostname", HOSTNAME).since(2, 90).until(2, 93),
        f("hostname", FQDN).since(2, 94),
    ],
};

const CIDR: K = K::Check(|v| {
    let length = v.as_str().and_then(|c| c.strip_prefix('/')?.parse::<u8>().ok());
    match length.filter(|n| *n <= 128) {
        Some(_) => Ok(()),
        None => Err("It must be the length of a prefix, as in \"/24\".".into()),
    }
});
// A wish that nobody looks at would be a promise.
const NO_QUERY: K = K::Check(|_| {
    Err("Queries (JsonFilter) are not offered. Extra specs of a flavor (capabilities:, aggregate_instance_extra_specs:, trait:) say what a host must have.".into())
});
const HINT_UUIDS: K = K::Any(&[K::Uuid, K::List { of: &K::Uuid, max: 100 }]);
/// `os:scheduler_hints`.
pub(crate) static HINTS: Body = Body {
    open: true,
    fields: &[
        f("group", HINT_UUIDS),
        f("different_host", HINT_UUIDS),
        f("same_host", HINT_UUIDS),
        f("build_near_host_ip", IP),
        f("cidr", CIDR),
        f("query", NO_QUERY),
    ],
};

/// POST /flavors (Nova API reference, "Create Flavor").
pub(crate) static FLAVOR_CREATE: Body = Body {
    open: false,
    fields: &[
        f("name", K::Name).req(),
        f("id", FLAVOR_ID),
        f("ram", COUNT).req(),
        f("vcpus", COUNT).req(),
        f("disk", AMOUNT).req(),
        f("OS-FLV-EXT-DATA:ephemeral", AMOUNT),
        f("swap", AMOUNT),
        f("rxtx_factor", FACTOR).until(2, 101),
        f("os-flavor-access:is_public", BOOL),
        f("description", LONG_DESCRIPTION).since(2, 55),
    ],
};
const FLAVOR_ID: K = K::Check(|v| match v {
    Value::Null | Value::Number(_) => Ok(()),
    Value::String(s)
        if (1..=255).contains(&s.chars().count())
            && s.trim() == s
            && s.chars().all(|c| c.is_ascii_alphanumeric() || ". _-".contains(c)) =>
    {
        Ok(())
    }
    _ => Err(
        "An id has 1 to 255 letters, digits, blanks, dots, dashes and underscores, and no blank at either end.".into(),
    ),
});
const FACTOR: K = K::Check(|v| match number(v) {
    Some(x) if x > 0.0 && x < 3.4e38 => Ok(()),
    _ => Err("It must be a number above 0.".into()),
});
pub(crate) const LONG_DESCRIPTION: K = K::Check(|v| match v {
    Value::Null => Ok(()),
    Value::String(s) if s.chars().count() <= 65535 => Ok(()),
    _ => Err("It must be a string of at most 65535 characters, or null.".into()),
});

/// A float, or a string that reads as one.
pub(crate) fn number(v: &Value) -> Option<f64> {
    match v {
        Value::Number(n) => n.as_f64(),
        Value::String(s) if s.bytes().all(|b| b.is_ascii_digit() || b == b'.') => s.parse().ok(),
        _ => None,
    }
}

pub(crate) fn base64_ok(s: &str) -> bool {
    let compact: String = s.chars().filter(|c| !c.is_whitespace()).collect();
    base64::engine::general_purpose::STANDARD.decode(compact).is_ok()
}

pub(crate) fn tag_ok(s: &str) -> Result<(), String> {
    match s.chars().count() {
        0 => Err("A tag must not be empty.".into()),
        n if n > 60 => Err(format!("It is too long: {n} characters, and at most 60 are allowed.")),
        _ if s.contains([',', '/']) => Err("A tag must not contain commas or slashes.".into()),
        _ => Ok(()),
    }
}

pub(crate) fn metadata_ok(v: &Value, nullable: bool) -> Result<(), String> {
    let Some(map) = v.as_object() else {
        return Err("It must be an object of strings.".into());
    };
    for (k, x) in map {
        if k.is_empty()
            || k.chars().count() > 255
            || !k.chars().all(|c| c.is_ascii_alphanumeric() || "-_:. ".contains(c))
        {
            return Err(format!(
                "The key '{k}' is not one of 1 to 255 letters, digits, blanks, and - _ : ."
            ));
        }
        match x {
            Value::String(s) if s.chars().count() <= 255 => {}
            Value::Null if nullable => {}
            Value::String(_) => {
                return Err(format!(
                    "The value of '{k}' is too long: at most 255 characters are allowed."
                ));
            }
            _ => return Err(format!("The value of '{k}' must be a string.")),
        }
    }
    Ok(())
}

/// A string field.
pub(crate) fn text(v: &Value, name: &str) -> Option<String> {
    v.get(name)?.as_str().map(str::to_owned)
}
/// An integer field, also as a string.
pub(crate) fn int(v: &Value, name: &str) -> Option<i64> {
    fields::int(v.get(name)?)
}
/// A boolean field in any accepted spelling.
pub(crate) fn boolean(v: &Value, name: &str) -> Option<bool> {
    fields::boolean(v.get(name)?)
}
/// String pairs.
pub(crate) fn pairs(v: &Value, name: &str) -> Option<BTreeMap<String, String>> {
    Some(
        v.get(name)?
            .as_object()?
            .iter()
            .filter_map(|(k, x)| Some((k.clone(), x.as_str()?.to_owned())))
            .collect(),
    )
}
/// A list of strings.
pub(crate) fn strings(v: &Value, name: &str) -> Option<Vec<String>> {
    Some(
        v.get(name)?
            .as_array()?
            .iter()
            .filter_map(|x| x.as_str().map(str::to_owned))
            .collect(),
    )
}
/// An address.
pub(crate) fn ip(v: &Value, name: &str) -> Option<IpAddr> {
    v.get(name)?.as_str()?.parse().ok()
}
/// Present and null, or present: for fields that can be reset.
pub(crate) fn resettable(v: &Value, name: &str) -> Option<Option<String>> {
    let x = v.get(name)?;
    Some(x.as_str().map(str::to_owned))
}
/// An id that people may write as a string or a number.
pub(crate) fn loose_id(v: &Value, name: &str) -> Option<String> {
    match v.get(name)? {
        Value::String(s) => Some(s.clone()),
        Value::Number(n) => Some(n.to_string()),
        _ => None,
    }
}

/// The caller, when the rule lets it do this in its own project.
pub(crate) fn allowed(req: &Req, rule: &str) -> Result<Ctx> {
    let ctx = req.ctx()?;
    ctx.enforce(rule, &Target::own(ctx))?;
    Ok(ctx.clone())
}

/// The part of a list that `offset` and `limit` ask for.
pub(crate) fn limited<T>(req: &Req, all: Vec<T>) -> Result<Vec<T>> {
    let limit = Page::of(req)?.limit;
    let offset: usize = match req.q("offset") {
        None => 0,
        Some(t) => t.parse().map_err(|_| {
            Error::field(
                "offset",
                format!("offset param must be an integer of at least 0, and is '{t}'"),
            )
        })?,
    };
    Ok(all.into_iter().skip(offset).take(limit as usize).collect())
}

/// From 2.75 on unknown query parameters are refused.
pub(crate) fn check_query(req: &Req, known: &[&str]) -> Result<()> {
    only_query(req, Ver(2, 75), known)
}

/// From this version on unknown query parameters are refused.
pub(crate) fn only_query(req: &Req, since: Ver, known: &[&str]) -> Result<()> {
    if req.version < since {
        return Ok(());
    }
    match req.query.iter().find(|(k, _)| !known.contains(&k.as_str())) {
        Some((k, _)) => Err(Error::field(
            k.clone(),
            format!(
                "Additional properties are not allowed ('{k}' was unexpected). Known here: {}.",
                known.join(", ")
            ),
        )),
        None => Ok(()),
    }
}
