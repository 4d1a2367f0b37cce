//! Bodies of the metadata definitions as const data, and what they parse to (Glance's schemas of
//! `/v2/schemas/metadefs`; bounds that Glance leaves to its database stand here).

use super::metadef::{AssociationBody, MAX_DEFINITIONS, MAX_DOCUMENT, ObjectBody, Openness, PropertyBody, TagBody};
use haneul_core::{Error, Kind, Result};
use haneul_http::{Body, FieldKind as K, Ver, f, fields};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, HashSet};

/// Glance's columns for names hold this many characters.
const NAME: K = K::Str { min: 1, max: 80 };
const SHORT: K = K::Str { min: 0, max: 80 };
const TITLE: K = K::Str { min: 0, max: 500 };
const TEXT: K = K::Str { min: 0, max: 10_000 };
const TYPES: K = K::OneOf(&["array", "boolean", "integer", "number", "object", "string"]);
const COUNT: K = K::Check(count);
const FLAG: K = K::Check(flag);

/// A namespace, with what may come along at its creation.
pub(crate) static NAMESPACE: Body = Body {
    open: false,
    fields: &[
        f("namespace", NAME).req(),
        f("display_name", SHORT),
        f("description", K::Str { min: 0, max: 500 }),
        f("visibility", K::OneOf(Openness::NAMES)),
        f("protected", FLAG),
        f("owner", K::Str { min: 1, max: 255 }),
        f(
            "resource_type_associations",
            K::List {
                of: &K::Obj(&ASSOCIATION_WITHIN),
                max: MAX_DEFINITIONS,
            },
        ),
        f("properties", K::Check(object)),
        f(
            "objects",
            K::List {
                of: &K::Obj(&OBJECT_WITHIN),
                max: MAX_DEFINITIONS,
            },
        ),
        f(
            "tags",
            K::List {
                of: &K::Obj(&TAG_WITHIN),
                max: MAX_DEFINITIONS,
            },
        ),
    ],
};

/// An object.
pub(crate) static OBJECT: Body = Body {
    open: false,
    fields: &[
        f("name", NAME).req(),
        f("description", TEXT),
        f("required", K::Check(names)),
        f("properties", K::Check(object)),
    ],
};

/// A property; its name stands beside the rest only where it is sent alone.
pub(crate) static PROPERTY: Body = Body {
    open: false,
    fields: &[
        f("name", NAME),
        f("title", TITLE).req(),
        f("description", TEXT),
        f("operators", K::Check(texts)),
        f("type", TYPES).req(),
        f("required", K::Check(names)),
        f("minimum", K::Check(number)),
        f("maximum", K::Check(number)),
        f("maxLength", COUNT),
        f("minLength", COUNT),
        f("pattern", TEXT),
        f("enum", K::Check(list)),
        f("readonly", FLAG),
        f("default", K::Free),
        f("items", K::Obj(&ITEMS)),
        f("maxItems", COUNT),
        f("minItems", COUNT),
        f("uniqueItems", FLAG),
        f("additionalItems", FLAG),
    ],
};

static ITEMS: Body = Body {
    open: false,
    fields: &[f("type", TYPES).req(), f("enum", K::Check(list))],
};

/// A tag.
pub(crate) static TAG: Body = Body {
    open: false,
    fields: &[f("name", NAME).req()],
};

const TAG_LIST: K = K::List {
    of: &K::Obj(&TAG),
    max: MAX_DEFINITIONS,
};

static TAGS: Body = Body {
    open: false,
    fields: &[f("tags", TAG_LIST).req()],
};

/// An association with a resource type.
pub(crate) static ASSOCIATION: Body = Body {
    open: false,
    fields: &[f("name", NAME).req(), f("prefix", SHORT), f("properties_target", SHORT)],
};

// Within a namespace a definition may bring along what the cloud has set: clients send back what they got.
static OBJECT_WITHIN: Body = Body {
    open: false,
    fields: &[
        f("name", NAME).req(),
        f("description", TEXT),
        f("required", K::Check(names)),
        f("properties", K::Check(object)),
        f("self", K::Free),
        f("schema", K::Free),
        f("created_at", K::Free),
        f("updated_at", K::Free),
    ],
};

static TAG_WITHIN: Body = Body {
    open: false,
    fields: &[
        f("name", NAME).req(),
        f("created_at", K::Free),
        f("updated_at", K::Free),
    ],
};

static ASSOCIATION_WITHIN: Body = Body {
    open: false,
    fields: &[
        f("name", NAME).req(),
        f("prefix", SHORT),
        f("properties_target", SHORT),
        f("created_at", K::Free),
        f("updated_at", K::Free),
    ],
};

fn flag(v: &Value) -> Result<(), String> {
    v.as_bool()
        .map(|_| ())
        .ok_or_else(|| "It must be true or false.".into())
}

fn count(v: &Value) -> Result<(), String> {
    match v.as_u64() {
        Some(n) if n <= i32::MAX as u64 => Ok(()),
        _ => Err("It must be an integer from 0 to 2147483647.".into()),
    }
}

fn number(v: &Value) -> Result<(), String> {
    match v.is_number() {
        true => Ok(()),
        false => Err("It must be a number.".into()),
    }
}

fn object(v: &Value) -> Result<(), String> {
    match v.as_object() {
        Some(map) if map.len() <= MAX_DEFINITIONS => Ok(()),
        Some(map) => Err(format!(
            "It has {} entries, and at most {MAX_DEFINITIONS} are allowed.",
            map.len()
        )),
        None => Err("It must be an object.".into()),
    }
}

fn list(v: &Value) -> Result<(), String> {
    match v.as_array() {
        Some(_) => Ok(()),
        None => Err("It must be a list.".into()),
    }
}

fn texts(v: &Value) -> Result<(), String> {
    match v.as_array() {
        Some(items) if items.iter().all(Value::is_string) => Ok(()),
        _ => Err("It must be a list of strings.".into()),
    }
}

fn names(v: &Value) -> Result<(), String> {
    texts(v)?;
    let mut seen = HashSet::new();
    match v.as_array().into_iter().flatten().all(|x| seen.insert(x)) {
        true => Ok(()),
        false => Err("Its strings must differ from each other.".into()),
    }
}

/// What a client asks of a namespace: its fields, and its first definitions.
#[derive(Clone, Debug, Default)]
pub(crate) struct NamespaceRequest {
    pub name: String,
    pub display_name: Option<String>,
    pub description: Option<String>,
    pub visibility: Openness,
    pub protected: bool,
    pub owner: Option<String>,
    pub associations: Vec<(String, AssociationBody)>,
    pub properties: Vec<(String, PropertyBody)>,
    pub objects: Vec<(String, ObjectBody)>,
    pub tags: Vec<(String, TagBody)>,
}

/// Checks a body: first what only the cloud sets, then the table, then that both databases can store it.
fn check(table: &Body, body: &Value, read_only: &[&str], path: &str) -> Result<()> {
    if let Some(name) = read_only.iter().find(|n| body.get(**n).is_some()) {
        return Err(Error::forbidden(format!("Attribute '{name}' is read-only.")).with_field(*name));
    }
    fields::check(table, body, Ver(2, 0), path)?;
    if holds_nul(body) {
        return Err(Error::field(path, "Text must not contain the character U+0000."));
    }
    Ok(())
}

pub(crate) fn holds_nul(value: &Value) -> bool {
    match value {
        Value::String(s) => s.contains('\0'),
        Value::Array(items) => items.iter().any(holds_nul),
        Value::Object(map) => map.iter().any(|(k, v)| k.contains('\0') || holds_nul(v)),
        _ => false,
    }
}

const TIMES: &[&str] = &["created_at", "updated_at"];
const GENERATED: &[&str] = &["self", "schema", "created_at", "updated_at"];

fn text(body: &Value, name: &str) -> Option<String> {
    body.get(name).and_then(Value::as_str).map(str::to_owned)
}

fn strings(body: &Value, name: &str) -> Vec<String> {
    let items = body.get(name).and_then(Value::as_array).into_iter().flatten();
    items.filter_map(Value::as_str).map(str::to_owned).collect()
}

fn items<'a>(body: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> {
    body.get(name).and_then(Value::as_array).into_iter().flatten()
}

fn fits(path: &str, value: &Value) -> Result<()> {
    let bytes = value.to_string().len();
    if bytes <= MAX_DOCUMENT {
        return Ok(());
    }
    Err(Error::new(
        Kind::TooLarge,
        format!("The definition has {bytes} bytes as JSON, and at most {MAX_DOCUMENT} are allowed."),
    )
    .with_field(path))
}

/// Properties by name, each checked.
fn property_map(body: &Value, path: &str) -> Result<BTreeMap<String, Map<String, Value>>> {
    let mut out = BTreeMap::new();
    for (name, value) in body.get("properties").and_then(Value::as_object).into_iter().flatten() {
        if name.is_empty() || name.chars().count() > 80 {
            return Err(Error::field(
                format!("{path}.properties"),
                format!(
                    "The name of a property has 1 to 80 characters, and '{name}' has {}.",
                    name.chars().count()
                ),
            ));
        }
        let here = format!("{path}.properties.{name}");
        fields::check(&PROPERTY, value, Ver(2, 0), &here)?;
        fits(&here, value)?;
        let mut schema = value.as_object().cloned().unwrap_or_default();
        // Here the key is the name.
        schema.remove("name");
        out.insert(name.clone(), schema);
    }
    Ok(out)
}

fn object_of(value: &Value, path: &str) -> Result<(String, ObjectBody)> {
    fits(path, value)?;
    let body = ObjectBody {
        description: text(value, "description"),
        required: strings(value, "required"),
        properties: property_map(value, path)?,
    };
    Ok((text(value, "name").unwrap_or_default(), body))
}

fn association_of(value: &Value) -> (String, AssociationBody) {
    let body = AssociationBody {
        prefix: text(value, "prefix"),
        properties_target: text(value, "properties_target"),
    };
    (text(value, "name").unwrap_or_default(), body)
}

pub(crate) fn parse_namespace(body: &Value) -> Result<NamespaceRequest> {
    check(&NAMESPACE, body, GENERATED, "namespace")?;
    let properties = property_map(body, "namespace")?
        .into_iter()
        .map(|(name, schema)| (name, PropertyBody { schema }))
        .collect();
    let objects = items(body, "objects")
        .enumerate()
        .map(|(i, o)| object_of(o, &format!("namespace.objects.{i}")))
        .collect::<Result<_>>()?;
    Ok(NamespaceRequest {
        name: text(body, "namespace").unwrap_or_default(),
        display_name: text(body, "display_name"),
        description: text(body, "description"),
        visibility: text(body, "visibility")
            .and_then(|v| Openness::parse(&v))
            .unwrap_or_default(),
        protected: body.get("protected").and_then(Value::as_bool).unwrap_or(false),
        owner: text(body, "owner"),
        associations: items(body, "resource_type_associations").map(association_of).collect(),
        properties,
        objects,
        tags: tag_list(body),
    })
}

pub(crate) fn parse_object(body: &Value) -> Result<(String, ObjectBody)> {
    check(&OBJECT, body, GENERATED, "object")?;
    object_of(body, "object")
}

pub(crate) fn parse_property(body: &Value) -> Result<(String, PropertyBody)> {
    check(&PROPERTY, body, TIMES, "property")?;
    let Some(name) = text(body, "name") else {
        return Err(Error::field(
            "property.name",
            "Invalid input for field/attribute property. 'name' is a required property",
        ));
    };
    fits("property", body)?;
    let mut schema = body.as_object().cloned().unwrap_or_default();
    schema.remove("name");
    Ok((name, PropertyBody { schema }))
}

pub(crate) fn parse_tag(body: &Value) -> Result<String> {
    check(&TAG, body, TIMES, "tag")?;
    Ok(text(body, "name").unwrap_or_default())
}

pub(crate) fn parse_tags(body: &Value) -> Result<Vec<(String, TagBody)>> {
    check(&TAGS, body, TIMES, "tags")?;
    Ok(tag_list(body))
}

fn tag_list(body: &Value) -> Vec<(String, TagBody)> {
    let names = items(body, "tags").filter_map(|t| text(t, "name"));
    names.map(|n| (n, TagBody {})).collect()
}

pub(crate) fn parse_association(body: &Value) -> Result<(String, AssociationBody)> {
    check(&ASSOCIATION, body, TIMES, "resource_type_association")?;
    Ok(association_of(body))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_whole_namespace_parses() {
        let r = parse_namespace(&json!({
            "namespace": "n", "visibility": "public", "protected": true,
            "properties": {"p": {"title": "P", "type": "string", "name": "other"}},
            "objects": [{"name": "o", "required": ["a"], "properties": {"a": {"title": "A", "type": "integer"}}}],
            "tags": [{"name": "t"}],
            "resource_type_associations": [{"name": "OS::Nova::Flavor", "prefix": "hw:"}],
        }))
        .unwrap();
        assert_eq!(r.visibility, Openness::Public);
        assert!(
            r.properties
                .iter()
                .all(|(n, p)| n == "p" && !p.schema.contains_key("name"))
        );
        assert_eq!(
            r.objects.first().map(|(_, o)| o.required.clone()),
            Some(vec!["a".to_owned()])
        );
        assert_eq!(r.tags, [("t".to_owned(), TagBody {})]);
        assert_eq!(
            r.associations.first().and_then(|(_, a)| a.prefix.clone()).as_deref(),
            Some("hw:")
        );
    }

    #[test]
    fn what_is_too_much_says_how_much() {
        let long = json!({"name": "p", "title": "t", "type": "string", "enum": ["x".repeat(MAX_DOCUMENT)]});
        let e = parse_property(&long).unwrap_err();
        assert_eq!(e.kind(), Kind::TooLarge);
        assert!(e.public().contains("65535"), "{e}");
    }
}
