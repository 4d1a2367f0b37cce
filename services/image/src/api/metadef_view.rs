//! Metadata definitions as JSON (Glance API reference, "Metadata Definitions Service API"). What is not set is left
//! out; links are paths without the service's prefix.

use crate::logic::namespaces::Whole;
use crate::model::{Association, Namespace, Object, Property, ResourceType, Tag};
use haneul_core::clock;
use haneul_store::Stored;
use serde_json::{Map, Value, json};

/// A JSON object without its nulls.
fn trimmed(value: Value) -> Value {
    match value {
        Value::Object(map) => map.into_iter().filter(|(_, v)| !v.is_null()).collect(),
        other => other,
    }
}

pub(super) fn namespace(n: &Stored<Namespace>) -> Value {
    trimmed(json!({
        "namespace": n.name,
        "display_name": n.display_name,
        "description": n.description,
        "visibility": n.visibility,
        "protected": n.protected,
        "owner": n.owner,
        "created_at": clock::iso(n.created_at),
        "updated_at": clock::iso(n.updated_at),
        "self": namespace_path(&n.name),
        "schema": "/v2/schemas/metadefs/namespace",
    }))
}

pub(super) fn namespace_path(name: &str) -> String {
    format!("/v2/metadefs/namespaces/{name}")
}

/// A namespace with what is in it; kinds of which there is nothing are left out. With a prefix, names of properties
/// are those that a resource has.
pub(super) fn whole(all: &Whole, resource_type: Option<&str>) -> Value {
    let prefix = resource_type
        .and_then(|t| all.associations.iter().find(|a| a.name == t))
        .and_then(|a| a.body.prefix.as_deref())
        .unwrap_or_default();
    let prefixed = |name: &str| format!("{prefix}{name}");
    let objects: Vec<Value> = all
        .objects
        .iter()
        .map(|o| {
            let mut changed = o.clone();
            changed.value.body.required = o.body.required.iter().map(|r| prefixed(r)).collect();
            let properties = o.body.properties.iter().map(|(k, v)| (prefixed(k), v.clone()));
            changed.value.body.properties = properties.collect();
            object(&all.namespace.name, &changed)
        })
        .collect();
    let properties: Map<String, Value> = all
        .properties
        .iter()
        .map(|p| (prefixed(&p.name), Value::Object(p.body.schema.clone())))
        .collect();
    let mut out = namespace(&all.namespace);
    let mut put = |name: &str, value: Value, empty: bool| {
        if let (false, Some(map)) = (empty, out.as_object_mut()) {
            map.insert(name.into(), value);
        }
    };
    put("objects", json!(objects), objects.is_empty());
    put("properties", json!(properties), properties.is_empty());
    put("tags", json!(tag_names(&all.tags)), all.tags.is_empty());
    let associations: Vec<Value> = all.associations.iter().map(association).collect();
    put(
        "resource_type_associations",
        json!(associations),
        associations.is_empty(),
    );
    out
}

/// A page of namespaces, each with its associations.
pub(super) fn namespaces(
    list: &[Stored<Namespace>],
    associations: &[Stored<Association>],
    query: &[(String, String)],
    next: Option<&str>,
) -> Value {
    let items: Vec<Value> = list
        .iter()
        .map(|n| {
            let mut item = namespace(n);
            let own: Vec<Value> = associations
                .iter()
                .filter(|a| a.namespace_id == n.id)
                .map(association)
                .collect();
            if let (false, Some(map)) = (own.is_empty(), item.as_object_mut()) {
                map.insert("resource_type_associations".into(), json!(own));
            }
            item
        })
        .collect();
    page(
        "namespaces",
        "/v2/metadefs/namespaces",
        "/v2/schemas/metadefs/namespaces",
        items,
        query,
        next,
    )
}

/// A page with Glance's links. `query` is the request's; its marker gives way to the next one.
pub(super) fn page(
    name: &str,
    path: &str,
    schema: &str,
    items: Vec<Value>,
    query: &[(String, String)],
    next: Option<&str>,
) -> Value {
    let encode = haneul_http::request::percent_encode;
    let mut pairs: Vec<String> = query
        .iter()
        .filter(|(k, _)| k != "marker")
        .map(|(k, v)| format!("{}={}", encode(k), encode(v)))
        .collect();
    let link = |pairs: &[String]| match pairs.is_empty() {
        true => path.to_owned(),
        false => format!("{path}?{}", pairs.join("&")),
    };
    let mut body = json!({name: items, "first": link(&pairs), "schema": schema});
    if let (Some(marker), Some(map)) = (next, body.as_object_mut()) {
        pairs.push(format!("marker={}", encode(marker)));
        map.insert("next".into(), link(&pairs).into());
    }
    body
}

pub(super) fn object(namespace: &str, o: &Stored<Object>) -> Value {
    trimmed(json!({
        "name": o.name,
        "description": o.body.description,
        "required": o.body.required,
        "properties": o.body.properties,
        "created_at": clock::iso(o.created_at),
        "updated_at": clock::iso(o.updated_at),
        "self": format!("{}/objects/{}", namespace_path(namespace), o.name),
        "schema": "/v2/schemas/metadefs/object",
    }))
}

pub(super) fn objects(namespace: &str, list: &[Stored<Object>]) -> Value {
    let items: Vec<Value> = list.iter().map(|o| object(namespace, o)).collect();
    json!({"objects": items, "schema": "/v2/schemas/metadefs/objects"})
}

/// A property alone has its name beside the rest.
pub(super) fn property(p: &Stored<Property>) -> Value {
    let mut map = p.body.schema.clone();
    map.insert("name".into(), p.name.as_str().into());
    Value::Object(map)
}

pub(super) fn properties(list: &[Stored<Property>]) -> Value {
    let items: Map<String, Value> = list
        .iter()
        .map(|p| (p.name.clone(), Value::Object(p.body.schema.clone())))
        .collect();
    json!({"properties": items})
}

pub(super) fn tag(t: &Stored<Tag>) -> Value {
    json!({"name": t.name, "created_at": clock::iso(t.created_at), "updated_at": clock::iso(t.updated_at)})
}

fn tag_names(list: &[Stored<Tag>]) -> Vec<Value> {
    list.iter().map(|t| json!({"name": t.name})).collect()
}

pub(super) fn tags(list: &[Stored<Tag>]) -> Value {
    json!({"tags": tag_names(list)})
}

pub(super) fn association(a: &Stored<Association>) -> Value {
    trimmed(json!({
        "name": a.name,
        "prefix": a.body.prefix,
        "properties_target": a.body.properties_target,
        "created_at": clock::iso(a.created_at),
        "updated_at": clock::iso(a.updated_at),
    }))
}

pub(super) fn associations(list: &[Stored<Association>]) -> Value {
    json!({"resource_type_associations": list.iter().map(association).collect::<Vec<_>>()})
}

pub(super) fn resource_types(list: &[Stored<ResourceType>]) -> Value {
    let items: Vec<Value> = list
        .iter()
        .map(
            |t| json!({"name": t.name, "created_at": clock::iso(t.created_at), "updated_at": clock::iso(t.updated_at)}),
        )
        .collect();
    json!({"resource_types": items})
}
