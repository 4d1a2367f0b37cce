//! Bodies: one object or a list of them (bulk create), read-only and unknown attributes, typed access.

use crate::err::{attribute, bad};
use haneul_auth::Ctx;
use haneul_core::{Error, Kind, Result};
use haneul_http::{Body, Req, Ver, fields};
use serde_json::{Map, Value};
use std::net::IpAddr;

/// How a resource is named and which attributes requests may carry.
pub(crate) struct Shape {
    pub one: &'static str,
    pub many: &'static str,
    pub create: &'static Body,
    pub update: &'static Body,
    /// Shown but never set.
    pub read_only: &'static [&'static str],
}

/// The objects of a create, and whether they came as a list.
pub(crate) async fn create(req: &mut Req, shape: &Shape) -> Result<(Vec<Value>, bool)> {
    let mut body = req.json().await?;
    let Some(object) = body.as_object_mut() else {
        return Err(malformed(shape));
    };
    let (items, bulk) = if let Some(list) = object.get_mut(shape.many) {
        match list.take() {
            Value::Array(items) if !items.is_empty() => (items, true),
            _ => {
                return Err(attribute(
                    shape.many,
                    format!("'{}' must be a list with at least one item", shape.many),
                ));
            }
        }
    } else if let Some(one) = object.get_mut(shape.one) {
        (vec![one.take()], false)
    } else {
        return Err(malformed(shape));
    };
    if items.len() > 1000 {
        return Err(attribute(
            shape.many,
            format!("{} items, and at most 1000 are allowed in one request", items.len()),
        ));
    }
    for item in &items {
        known(item, shape, shape.create, "POST")?;
        fields::check(shape.create, item, Ver(0, 0), shape.one)?;
    }
    Ok((items, bulk))
}

/// The object of an update.
pub(crate) async fn update(req: &mut Req, shape: &Shape) -> Result<Value> {
    let mut body = req.json().await?;
    let Some(item) = body.get_mut(shape.one).map(Value::take) else {
        return Err(malformed(shape));
    };
    known(&item, shape, shape.update, "PUT")?;
    fields::check(shape.update, &item, Ver(0, 0), shape.one)?;
    Ok(item)
}

fn malformed(shape: &Shape) -> Error {
    bad(
        "HTTPBadRequest",
        shape.one,
        format!(
            "Unable to find '{}' in request body: write {{\"{}\": {{...}}}}.",
            shape.one, shape.one
        ),
    )
}

fn known(item: &Value, shape: &Shape, table: &Body, method: &str) -> Result<()> {
    let Some(object) = item.as_object() else {
        return Err(attribute(shape.one, format!("'{}' must be an object", shape.one)));
    };
    let has = |b: &Body, name: &str| b.fields.iter().any(|f| f.name == name);
    let mut strange = Vec::new();
    for name in object.keys().filter(|n| !has(table, n)) {
        if shape.read_only.contains(&name.as_str()) || has(shape.create, name) || has(shape.update, name) {
            let text = if method == "PUT" {
                format!("Cannot update read-only attribute {name}")
            } else {
                format!("Attribute '{name}' not allowed in POST")
            };
            return Err(bad("HTTPBadRequest", name, text));
        }
        strange.push(name.as_str());
    }
    match strange.first() {
        None => Ok(()),
        Some(first) => Err(bad(
            "HTTPBadRequest",
            first,
            format!("Unrecognized attribute(s) '{}'", strange.join("', '")),
        )),
    }
}

/// `If-Match: revision_number=N` (revision-if-match).
pub(crate) fn if_match(req: &Req) -> Result<Option<i64>> {
    let Some(text) = req.header("if-match") else {
        return Ok(None);
    };
    text.trim()
        .strip_prefix("revision_number=")
        .and_then(|n| n.parse().ok())
        .map(Some)
        .ok_or_else(|| {
            bad(
                "BadRequest",
                "If-Match",
                format!("Bad if-match request: the header is '{text}': write revision_number=N."),
            )
        })
}

/// What a DELETE may carry: no body, and perhaps `If-Match`.
pub(crate) fn deletion(req: &Req) -> Result<Option<i64>> {
    no_body(req)?;
    if_match(req)
}

/// Refuses a DELETE with a body: it would be something else than what its sender means.
pub(crate) fn no_body(req: &Req) -> Result<()> {
    let announced = req.header("content-length").is_some_and(|n| n != "0");
    if announced || req.header("transfer-encoding").is_some() {
        return Err(Error::bad_request("Request body is not supported in DELETE."));
    }
    Ok(())
}

/// Refuses when the resource has another revision.
pub(crate) fn check_revision(wanted: Option<i64>, generation: i64, what: &str) -> Result<()> {
    match wanted {
        Some(n) if n != generation => Err(Error::new(
            Kind::PreconditionFailed,
            format!(
                "Constrained to {n}, but current revision of {what} is {generation}. Read it again and decide anew."
            ),
        )
        .with_code("RevisionNumberConstraintFailed")),
        _ => Ok(()),
    }
}

/// Typed access to a checked object.
#[derive(Clone, Copy)]
pub(crate) struct In<'a>(pub &'a Value);

impl<'a> In<'a> {
    pub fn map(self) -> &'a Map<String, Value> {
        static EMPTY: std::sync::OnceLock<Map<String, Value>> = std::sync::OnceLock::new();
        self.0.as_object().unwrap_or_else(|| EMPTY.get_or_init(Map::new))
    }
    /// The value, unless it is missing or null.
    pub fn get(self, name: &str) -> Option<&'a Value> {
        self.0.get(name).filter(|v| !v.is_null())
    }
    pub fn has(self, name: &str) -> bool {
        self.0.get(name).is_some()
    }
    pub fn str(self, name: &str) -> Option<String> {
        self.get(name).and_then(Value::as_str).map(str::to_owned)
    }
    pub fn bool(self, name: &str) -> Option<bool> {
        self.get(name).and_then(fields::boolean)
    }
    pub fn int(self, name: &str) -> Option<i64> {
        self.get(name).and_then(fields::int)
    }
    pub fn ip(self, name: &str) -> Option<IpAddr> {
        self.get(name)
            .and_then(Value::as_str)
            .and_then(|s| s.trim().parse().ok())
    }
    pub fn list(self, name: &str) -> Option<&'a Vec<Value>> {
        self.get(name).and_then(Value::as_array)
    }
    pub fn strings(self, name: &str) -> Option<Vec<String>> {
        self.list(name)
            .map(|l| l.iter().filter_map(Value::as_str).map(str::to_owned).collect())
    }
    /// Overwrites when the body has it.
    pub fn set_str(self, name: &str, to: &mut String) {
        if self.has(name) {
            *to = self.str(name).unwrap_or_default();
        }
    }
    pub fn set_bool(self, name: &str, to: &mut bool) {
        if let Some(b) = self.bool(name) {
            *to = b;
        }
    }
}

/// The project that a new thing belongs to. Only administrators name another than their own.
pub(crate) fn project(ctx: &Ctx, body: In<'_>) -> Result<String> {
    let (a, b) = (body.str("project_id"), body.str("tenant_id"));
    if let (Some(a), Some(b)) = (&a, &b)
        && a != b
    {
        return Err(bad(
            "HTTPBadRequest",
            "project_id",
            "'project_id' and 'tenant_id' do not match",
        ));
    }
    match a.or(b) {
        Some(p) if p != ctx.project_id() && !ctx.is_admin() => Err(bad(
            "HTTPBadRequest",
            "project_id",
            "Specifying 'project_id' or 'tenant_id' other than the authenticated project in request requires admin privileges",
        )),
        Some(p) => Ok(p),
        None => Ok(ctx.project_id().to_owned()),
    }
}

pub(crate) mod kind {
    //! Kinds of values beyond those of base/http.

    use crate::api::tags::MAX_LEN;
    use haneul_http::FieldKind as K;
    use serde_json::Value;
    use std::net::IpAddr;

    pub const TEXT: K = K::Str { min: 0, max: 255 };
    pub const PROJECT: K = K::Str { min: 0, max: 255 };
    pub const IP: K = K::Check(ip);
    pub const MAC: K = K::Check(mac);
    pub const CIDR: K = K::Str { min: 1, max: 64 };
    pub const HOST: K = K::Check(host);
    pub const TAG: K = K::Check(tag);
    pub const TAGS: K = K::List { of: &TAG, max: 50 };

    fn ip(v: &Value) -> Result<(), String> {
        match v.as_str().map(str::trim).and_then(|s| s.parse::<IpAddr>().ok()) {
            Some(_) => Ok(()),
            None => Err(format!("'{}' is not a valid IP address", v.as_str().unwrap_or("it"))),
        }
    }

    fn mac(v: &Value) -> Result<(), String> {
        let text = v.as_str().unwrap_or_default();
        let parts: Vec<&str> = text.split(':').collect();
        let good = parts.len() == 6 && parts.iter().all(|p| p.len() == 2 && u8::from_str_radix(p, 16).is_ok());
        if !good || text == "00:00:00:00:00:00" {
            return Err(format!("'{text}' is not a valid MAC address"));
        }
        let first = parts.first().and_then(|p| u8::from_str_radix(p, 16).ok()).unwrap_or(1);
        if first & 1 == 1 {
            return Err(format!(
                "'{text}' is a multicast MAC address, and a port needs one of its own"
            ));
        }
        Ok(())
    }

    fn host(v: &Value) -> Result<(), String> {
        let text = v.as_str().ok_or("it must be a string")?;
        if text.is_empty() {
            return Ok(());
        }
        let name = text.strip_suffix('.').unwrap_or(text);
        let good = name.len() <= 253
            && name.split('.').all(|l| {
                !l.is_empty()
                    && l.len() <= 63
                    && !l.starts_with('-')
                    && !l.ends_with('-')
                    && l.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
            });
        if good {
            Ok(())
        } else {
            Err(format!(
                "'{text}' is not a valid DNS name: letters, digits and '-', labels of 1 to 63 characters"
            ))
        }
    }

    fn tag(v: &Value) -> Result<(), String> {
        match v.as_str() {
            None => Err("a tag must be a string".into()),
            Some(t) if t.is_empty() || t.chars().count() > MAX_LEN => {
                Err(format!("a tag has 1 to {MAX_LEN} characters"))
            }
            Some(t) if t.contains(['/', ',']) => Err(format!("'{t}': a tag must not contain '/' or ','")),
            Some(_) => Ok(()),
        }
    }
}
