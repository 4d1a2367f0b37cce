//! The documents under `/v2/schemas/metadefs` (Glance API reference, "Metadata definition schemas"), from which
//! clients build their models.

use super::metadef::Openness;
use serde_json::{Map, Value, json};

/// A schema of one thing, in the four parts that a list's schema is made of.
struct Schema {
    name: &'static str,
    properties: Value,
    required: &'static [&'static str],
    definitions: Option<Value>,
}

impl Schema {
    fn item(&self) -> Map<String, Value> {
        let mut map = Map::new();
        map.insert("name".into(), self.name.into());
        map.insert("properties".into(), self.properties.clone());
        map.insert("additionalProperties".into(), false.into());
        if !self.required.is_empty() {
            map.insert("required".into(), self.required.into());
        }
        map
    }

    fn with_definitions(&self, mut map: Map<String, Value>) -> Value {
        if let Some(d) = &self.definitions {
            map.insert("definitions".into(), d.clone());
        }
        Value::Object(map)
    }

    fn one(&self) -> Value {
        self.with_definitions(self.item())
    }

    /// A list; `dict` when the names are keys.
    fn many(&self, name: &str, dict: bool) -> Value {
        let list = match dict {
            true => json!({"type": "object", "additionalProperties": self.item()}),
            false => json!({"type": "array", "items": self.item()}),
        };
        let raw = json!({
            "name": name,
            "properties": {name: list, "first": {"type": "string"}, "next": {"type": "string"},
                "schema": {"type": "string"}},
            "links": [
                {"rel": "first", "href": "{first}"},
                {"rel": "next", "href": "{next}"},
                {"rel": "describedby", "href": "{schema}"},
            ],
        });
        self.with_definitions(raw.as_object().cloned().unwrap_or_default())
    }
}

fn read_only(what: &str) -> Value {
    json!({"type": "string", "readOnly": true, "description": what})
}

fn time(what: &str) -> Value {
    json!({"type": "string", "readOnly": true, "format": "date-time", "description": what})
}

fn text(max: u32, what: &str) -> Value {
    json!({"type": "string", "maxLength": max, "description": what})
}

fn types() -> Value {
    json!({"type": "string", "enum": ["array", "boolean", "integer", "number", "object", "string", null]})
}

fn numbers() -> Map<String, Value> {
    let map = json!({
        "positiveInteger": {"type": "integer", "minimum": 0},
        "positiveIntegerDefault0": {"allOf": [{"$ref": "#/definitions/positiveInteger"}, {"default": 0}]},
        "stringArray": {"type": "array", "items": {"type": "string"}, "uniqueItems": true},
    });
    map.as_object().cloned().unwrap_or_default()
}

fn definitions() -> Value {
    let mut all = numbers();
    let one = json!({"type": "object", "required": ["title", "type"], "properties": property_fields()});
    all.insert(
        "property".into(),
        json!({"type": "object", "additionalProperties": one}),
    );
    Value::Object(all)
}

fn property_fields() -> Value {
    let count = json!({"$ref": "#/definitions/positiveInteger"});
    let count0 = json!({"$ref": "#/definitions/positiveIntegerDefault0"});
    json!({
        "name": {"type": "string", "maxLength": 80},
        "title": {"type": "string"},
        "description": {"type": "string"},
        "operators": {"type": "array", "items": {"type": "string"}},
        "type": types(),
        "required": {"$ref": "#/definitions/stringArray"},
        "minimum": {"type": "number"},
        "maximum": {"type": "number"},
        "maxLength": count,
        "minLength": count0,
        "pattern": {"type": "string", "format": "regex"},
        "enum": {"type": "array"},
        "readonly": {"type": "boolean"},
        "default": {},
        "items": {"type": "object", "properties": {"type": types(), "enum": {"type": "array"}}},
        "maxItems": count,
        "minItems": count0,
        "uniqueItems": {"type": "boolean", "default": false},
        "additionalItems": {"type": "boolean"},
    })
}

fn namespace() -> Schema {
    let string = json!({"type": "string"});
    let strings = json!({"$ref": "#/definitions/stringArray"});
    let properties = json!({"$ref": "#/definitions/property"});
    Schema {
        name: "namespace",
        properties: json!({
            "namespace": text(80, "Name of the namespace, unique in the cloud"),
            "display_name": text(80, "A name for people"),
            "description": text(500, "What the namespace is about"),
            "visibility": {"type": "string", "enum": Openness::NAMES, "description": "Who sees the namespace"},
            "protected": {"type": "boolean", "description": "Whether it is safe from deletion"},
            "owner": text(255, "The owning project"),
            "created_at": time("When the namespace was made"),
            "updated_at": time("When the namespace was last changed"),
            "self": read_only("This namespace"),
            "schema": read_only("The schema of a namespace"),
            "resource_type_associations": {"type": "array", "items": {"type": "object",
                "properties": {"name": string, "prefix": string, "properties_target": string}}},
            "properties": properties,
            "objects": {"type": "array", "items": {"type": "object", "properties": {
                "name": string, "description": string, "required": strings, "properties": properties}}},
            "tags": {"type": "array", "items": {"type": "object", "properties": {"name": string}}},
        }),
        required: &["namespace"],
        definitions: Some(definitions()),
    }
}

fn object() -> Schema {
    Schema {
        name: "object",
        properties: json!({
            "name": {"type": "string", "maxLength": 80},
            "description": {"type": "string"},
            "required": {"$ref": "#/definitions/stringArray"},
            "properties": {"$ref": "#/definitions/property"},
            "self": read_only("This object"),
            "schema": read_only("The schema of an object"),
            "created_at": time("When the object was made"),
            "updated_at": time("When the object was last changed"),
        }),
        required: &["name"],
        definitions: Some(definitions()),
    }
}

/// Alone a property has its name beside the rest; in a list the name is the key.
fn property(required: &'static [&'static str]) -> Schema {
    Schema {
        name: "property",
        properties: property_fields(),
        required,
        definitions: Some(Value::Object(numbers())),
    }
}

fn tag() -> Schema {
    Schema {
        name: "tag",
        properties: json!({
            "name": {"type": "string", "maxLength": 80},
            "created_at": time("When the tag was made"),
            "updated_at": time("When the tag was last changed"),
        }),
        required: &["name"],
        definitions: None,
    }
}

fn association() -> Schema {
    Schema {
        name: "resource_type_association",
        properties: json!({
            "name": text(80, "The type of resource, named as in Heat where Heat knows it"),
            "prefix": text(80, "Stands before the name of each property on such a resource, with its separator"),
            "properties_target": text(80, "Which pairs are meant where a resource has several sets of them"),
            "created_at": time("When the association was made"),
            "updated_at": time("When the association was last changed"),
        }),
        required: &["name"],
        definitions: None,
    }
}

/// Names of the documents.
pub(crate) const METADEF_SCHEMAS: &[&str] = &[
    "namespace",
    "namespaces",
    "resource_type",
    "resource_types",
    "object",
    "objects",
    "property",
    "properties",
    "tag",
    "tags",
];

/// `/v2/schemas/metadefs/{name}`; `None` for a name that is none of the ten.
pub(crate) fn metadef_schema(name: &str) -> Option<Value> {
    Some(match name {
        "namespace" => namespace().one(),
        "namespaces" => namespace().many("namespaces", false),
        "resource_type" => association().one(),
        "resource_types" => association().many("resource_type_associations", false),
        "object" => object().one(),
        "objects" => object().many("objects", false),
        "property" => property(&["type", "title", "name"]).one(),
        "properties" => property(&["type", "title"]).many("properties", true),
        "tag" => tag().one(),
        "tags" => tag().many("tags", false),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::super::metadef_fields as fields;
    use super::*;

    #[test]
    fn every_document_is_there() {
        assert!(METADEF_SCHEMAS.iter().all(|name| metadef_schema(name).is_some()));
    }

    #[test]
    fn schemas_have_every_field_of_the_tables() {
        for (name, table) in [
            ("namespace", &fields::NAMESPACE),
            ("object", &fields::OBJECT),
            ("property", &fields::PROPERTY),
            ("tag", &fields::TAG),
            ("resource_type", &fields::ASSOCIATION),
        ] {
            let schema = metadef_schema(name).unwrap();
            for field in table.fields {
                assert!(schema["properties"].get(field.name).is_some(), "{name}.{}", field.name);
            }
        }
    }
}
