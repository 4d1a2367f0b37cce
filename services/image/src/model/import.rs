//! The request to import (Glance API reference, "Import an image"): pure checks.

use haneul_core::{Error, Result, id};
use serde_json::{Value, json};

/// Bytes that were staged.
pub(crate) const GLANCE_DIRECT: &str = "glance-direct";
/// Bytes from an address that the administrator allows.
pub(crate) const WEB_DOWNLOAD: &str = "web-download";
/// An image of this or another region's image service.
pub(crate) const GLANCE_DOWNLOAD: &str = "glance-download";
/// Bytes of the image itself, into more stores.
pub(crate) const COPY_IMAGE: &str = "copy-image";

/// All of them; which are enabled depends on the site.
pub(crate) const METHODS: &[&str] = &[GLANCE_DIRECT, WEB_DOWNLOAD, GLANCE_DOWNLOAD, COPY_IMAGE];

/// Stores that a request may name.
const MAX_STORES: usize = 64;
const MAX_REGION: usize = 255;

/// How the bytes come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    Direct,
    Web {
        uri: String,
    },
    Remote {
        region: String,
        image: String,
        interface: String,
    },
    Copy,
}

impl Method {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Direct => GLANCE_DIRECT,
            Self::Web { .. } => WEB_DOWNLOAD,
            Self::Remote { .. } => GLANCE_DOWNLOAD,
            Self::Copy => COPY_IMAGE,
        }
    }
}

/// A checked request.
#[derive(Clone, Debug)]
pub(crate) struct ImportRequest {
    pub method: Method,
    /// As asked for; empty: the site's choice.
    pub stores: Vec<String>,
    pub all_stores: bool,
    pub must_succeed: bool,
    /// The body, for the task's `input`.
    pub body: Value,
}

/// Checks the body. `enabled` are the methods of this site.
///
/// # Errors
/// 400 in Glance's words, with the field.
pub(crate) fn parse_import(body: &Value, header_store: Option<&str>, enabled: &[&str]) -> Result<ImportRequest> {
    if super::metadef_fields::holds_nul(body) {
        return Err(Error::field("method", "Text must not contain the character U+0000."));
    }
    let Some(method) = body.get("method") else {
        return Err(Error::field("method", "Import request requires a 'method' field."));
    };
    let Some(name) = method.get("name").and_then(Value::as_str) else {
        return Err(Error::field("method.name", "Import request requires a 'name' field."));
    };
    if !enabled.contains(&name) {
        let known = if enabled.is_empty() {
            "none".to_owned()
        } else {
            enabled.join(", ")
        };
        return Err(Error::field(
            "method.name",
            format!(
                "Unknown import method name '{}'. Methods of this site: {known}.",
                short(name)
            ),
        ));
    }
    let flag = |field: &str, default: bool| match body.get(field) {
        None => Ok(default),
        Some(Value::Bool(b)) => Ok(*b),
        Some(_) => Err(Error::field(field, format!("'{field}' must be boolean value only"))),
    };
    let must_succeed = flag("all_stores_must_succeed", true)?;
    let all_stores = flag("all_stores", false)?;
    let mut stores = stores(body.get("stores"))?;
    if all_stores && (body.get("stores").is_some() || header_store.is_some()) {
        return Err(Error::field(
            "all_stores",
            "All_stores parameter can't be used with x-image-meta-store header or stores parameter",
        ));
    }
    if stores.is_empty() {
        stores.extend(header_store.map(str::to_owned));
    }
    let text = |field: &str| method.get(field).and_then(Value::as_str).map(str::to_owned);
    let method = match name {
        GLANCE_DIRECT => Method::Direct,
        COPY_IMAGE => Method::Copy,
        WEB_DOWNLOAD => Method::Web {
            uri: text("uri").ok_or_else(|| {
                Error::field(
                    "method.uri",
                    "URI for web-download does not pass filtering: 'uri' must be a URL.",
                )
            })?,
        },
        _ => {
            let needed = |field: &str| {
                text(field).filter(|t| t.len() <= MAX_REGION).ok_or_else(|| {
                    Error::field(
                        format!("method.{field}"),
                        format!("'{field}' needs to be set for glance-download import method"),
                    )
                })
            };
            let (region, image) = (needed("glance_region")?, needed("glance_image_id")?);
            if !id::is_uuid(&image) {
                return Err(Error::field(
                    "method.glance_image_id",
                    format!("Remote image id does not look like a UUID: {}", short(&image)),
                ));
            }
            Method::Remote {
                region,
                image: image.to_ascii_lowercase(),
                interface: text("glance_service_interface").unwrap_or_else(|| "public".into()),
            }
        }
    };
    Ok(ImportRequest {
        method,
        stores,
        all_stores,
        must_succeed,
        body: body.clone(),
    })
}

fn stores(value: Option<&Value>) -> Result<Vec<String>> {
    let wrong = || {
        Error::field(
            "stores",
            format!("'stores' must be a list of 1 to {MAX_STORES} store ids."),
        )
    };
    let Some(value) = value else {
        return Ok(Vec::new());
    };
    let list = value
        .as_array()
        .filter(|l| (1..=MAX_STORES).contains(&l.len()))
        .ok_or_else(wrong)?;
    let mut out: Vec<String> = Vec::new();
    for item in list {
        let id = item.as_str().ok_or_else(wrong)?;
        if !out.iter().any(|s| s == id) {
            out.push(id.to_owned());
        }
    }
    Ok(out)
}

fn short(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(100).collect()
}

/// The task's `input`.
pub(crate) fn task_input(image: &str, request: &ImportRequest, stores: &[String]) -> Value {
    json!({"image_id": image, "import_req": request.body, "backend": stores})
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: &[&str] = METHODS;

    #[test]
    fn what_is_wrong_is_named() {
        for (body, field) in [
            (json!({}), "method"),
            (json!({"method": "x"}), "method.name"),
            (json!({"method": {"name": 1}}), "method.name"),
            (json!({"method": {"name": "fax"}}), "method.name"),
            (json!({"method": {"name": "web-download"}}), "method.uri"),
            (json!({"method": {"name": "web-download", "uri": 1}}), "method.uri"),
            (json!({"method": {"name": "glance-download"}}), "method.glance_region"),
            (
                json!({"method": {"name": "glance-download", "glance_region": "r"}}),
                "method.glance_image_id",
            ),
            (
                json!({"method": {"name": "glance-download", "glance_region": "r", "glance_image_id": "x"}}),
                "method.glance_image_id",
            ),
            (json!({"method": {"name": "copy-image"}, "stores": "a"}), "stores"),
            (json!({"method": {"name": "copy-image"}, "stores": []}), "stores"),
            (json!({"method": {"name": "copy-image"}, "stores": [1]}), "stores"),
            (
                json!({"method": {"name": "copy-image"}, "all_stores": "true"}),
                "all_stores",
            ),
            (
                json!({"method": {"name": "copy-image"}, "all_stores": true, "stores": ["a"]}),
                "all_stores",
            ),
            (
                json!({"method": {"name": "copy-image"}, "all_stores_must_succeed": 0}),
                "all_stores_must_succeed",
            ),
            (json!({"method": {"name": "copy-image", "x": "\u{0}"}}), "method"),
        ] {
            let e = parse_import(&body, None, ALL).unwrap_err();
            assert_eq!(e.field_name(), Some(field), "{body}");
        }
        let good = json!({"method": {"name": "copy-image"}, "stores": ["a", "b", "a"]});
        assert_eq!(parse_import(&good, None, ALL).unwrap().stores, ["a", "b"]);
        let by_header = parse_import(&json!({"method": {"name": "copy-image"}}), Some("c"), ALL).unwrap();
        assert_eq!(by_header.stores, ["c"]);
        assert!(parse_import(&json!({"method": {"name": "copy-image"}}), None, &[]).is_err());
    }
}
