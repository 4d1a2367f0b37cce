//! OpenStack's OpenAPI files, which describe all microversions at once, made flat: what one microversion is, and of it
//! what we serve.

use crate::routes::{Operation, normal};
use anyhow::{Context, Result};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::path::Path;

const METHODS: [&str; 6] = ["get", "put", "post", "patch", "delete", "head"];

/// A microversion; services without have 0.0, which every window holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32, pub u32);

impl Version {
    /// `2.96`
    pub fn parse(text: &str) -> Option<Self> {
        let (major, minor) = text.split_once('.')?;
        Some(Self(major.parse().ok()?, minor.parse().ok()?))
    }
}

/// The service's file that has all its releases.
pub fn load(dir: &Path) -> Result<Value> {
    let mut names: Vec<_> = std::fs::read_dir(dir)
        .with_context(|| dir.display().to_string())?
        .filter_map(|e| Some(e.ok()?.path()))
        // `v2.yaml`, beside `v2.104.yaml` of one release.
        .filter(|p| {
            p.file_stem()
                .is_some_and(|s| s.to_string_lossy().matches('.').count() == 0)
        })
        .filter(|p| p.file_stem().is_some_and(|s| s.to_string_lossy().starts_with('v')))
        .collect();
    names.sort();
    let path = names.pop().with_context(|| format!("no file in {}", dir.display()))?;
    let text = std::fs::read_to_string(&path)?;
    serde_saphyr::from_str(&text).with_context(|| path.display().to_string())
}

/// The window of `x-openstack`: first and last microversion.
fn window(v: &Value) -> (Version, Version) {
    let bound = |name: &str| {
        let found = v.get("x-openstack").and_then(|x| x.get(name));
        found.and_then(Value::as_str).and_then(Version::parse)
    };
    (
        bound("min-ver").unwrap_or(Version(0, 0)),
        bound("max-ver").unwrap_or(Version(u32::MAX, 0)),
    )
}

fn holds(v: &Value, at: Version) -> bool {
    let (min, max) = window(v);
    at == Version(0, 0) || (min <= at && at <= max)
}

fn resolved<'a>(doc: &'a Value, v: &'a Value) -> &'a Value {
    let target = v.get("$ref").and_then(Value::as_str).and_then(|r| r.strip_prefix('#'));
    target.and_then(|t| doc.pointer(t)).unwrap_or(v)
}

/// Takes what is not of this microversion out of every choice below `v`.
fn narrow(doc: &Value, v: &mut Value, at: Version) {
    match v {
        Value::Object(map) => {
            for choice in ["oneOf", "anyOf"] {
                let Some(Value::Array(all)) = map.get_mut(choice) else {
                    continue;
                };
                all.retain(|alternative| holds(resolved(doc, alternative), at));
                // Of several windows that hold, which have no end of their own, the newest is meant.
                let actions = |v: &Value| resolved(doc, v).pointer("/x-openstack/action-name").cloned();
                let newest = |v: &Value, all: &[Value]| {
                    let mine = window(resolved(doc, v)).0;
                    mine == Version(0, 0)
                        || !all
                            .iter()
                            .any(|o| actions(o) == actions(v) && window(resolved(doc, o)).0 > mine)
                };
                let kept: Vec<Value> = all.iter().filter(|v| newest(v, all)).cloned().collect();
                *all = kept;
                // Nothing of it is of this microversion.
                if all.is_empty() {
                    map.remove(choice);
                } else if let [Value::Object(only)] = all.as_slice() {
                    let only = only.clone();
                    map.remove(choice);
                    map.extend(only);
                }
            }
            map.values_mut().for_each(|v| narrow(doc, v, at));
        }
        Value::Array(all) => all.iter_mut().for_each(|v| narrow(doc, v, at)),
        _ => {}
    }
}

/// The document at one microversion, with the operations that are served; how many they are.
pub fn flat(mut doc: Value, at: Version, served: &BTreeSet<Operation>) -> (Value, usize) {
    let whole = doc.clone();
    let mut count = 0;
    if let Some(paths) = doc.get_mut("paths").and_then(Value::as_object_mut) {
        for (path, item) in paths.iter_mut() {
            let Some(item) = item.as_object_mut() else { continue };
            let key = normal(path);
            item.retain(|method, operation| {
                !METHODS.contains(&method.as_str())
                    || (served.contains(&(method.to_uppercase(), key.clone())) && holds(operation, at))
            });
            for (_, operation) in item.iter_mut().filter(|(m, _)| METHODS.contains(&m.as_str())) {
                count += 1;
                let Some(parameters) = operation.get_mut("parameters").and_then(Value::as_array_mut) else {
                    continue;
                };
                parameters.retain(|p| holds(resolved(&whole, p), at));
            }
        }
        paths.retain(|_, item| {
            item.as_object()
                .is_some_and(|i| i.keys().any(|k| METHODS.contains(&k.as_str())))
        });
    }
    narrow(&whole, &mut doc, at);
    if let Some(map) = doc.as_object_mut() {
        map.remove("servers");
        map.remove("security");
    }
    (doc, count)
}

/// What the files say and OpenStack's own services do not do. Each is put right before the files are believed; the
/// reasons stand in the report.
pub enum Correction {
    /// `format` in answers is not held to.
    FormatsOfAnswers,
    /// These members of answers may be null.
    Nullable(&'static [&'static str]),
    /// These members of answers may be anything.
    AnyValue(&'static [&'static str]),
    /// Objects of answers below this part of a component's name may have further members.
    Open(&'static str),
    /// The query is not looked at beyond what is known.
    LooseQuery,
    /// Booleans of requests may be written as text or number.
    LooseBooleans,
    /// Operations whose path has this part answer something else than the file says.
    AnyAnswer(&'static str),
    /// The body of these operations is not read.
    NoBody(&'static str, &'static str),
}

/// A correction, the service, and the reason.
pub const CORRECTIONS: &[(&str, Correction, &str)] = &[
    (
        "*",
        Correction::FormatsOfAnswers,
        "Keystone's ids are 32 digits and no `uuid`, Placement's links are paths and no `uri`, Nova's times have no zone and are no `date-time`, `dns_domain` may be empty and is no `hostname` then",
    ),
    (
        "network",
        Correction::Nullable(&[
            "resources_synced",
            "provider:physical_network",
            "provider:segmentation_id",
            "protocol",
            "port_range_min",
            "port_range_max",
            "remote_ip_prefix",
            "remote_group_id",
            "remote_address_group_id",
            "qos_policy_id",
            "gateway_ip",
            "external_gateway_info",
            "fixed_ip_address",
            "port_id",
            "router_id",
            "ipv6_address_mode",
            "ipv6_ra_mode",
            "segment_id",
            "subnetpool_id",
        ]),
        "what is not set is null in Neutron's answers, which the file says of no member",
    ),
    (
        "network",
        Correction::AnyValue(&["used_ips", "total_ips", "subnet_ip_availability"]),
        "numbers and a list, which the file calls strings",
    ),
    (
        "network",
        Correction::LooseQuery,
        "Neutron looks at the query of a list only as far as it filters by it",
    ),
    (
        "network",
        Correction::LooseBooleans,
        "neutron_lib's `convert_to_boolean` takes `\"true\"` and 1",
    ),
    (
        "placement",
        Correction::Nullable(&["parent_provider_uuid"]),
        "null for the root of a tree",
    ),
    (
        "placement",
        Correction::Open("TraitsList_Traits_For"),
        "`resource_provider_generation` is in the answer (placement/handlers/trait.py)",
    ),
    (
        "placement",
        Correction::LooseQuery,
        "a parameter that comes twice counts once",
    ),
    (
        "image",
        Correction::AnyAnswer("/v2/schemas/"),
        "answers are schemas, which the file calls strings",
    ),
    (
        "image",
        Correction::AnyValue(&["default", "usage"]),
        "`\"true\"` of a store and an object, which the file calls boolean and array (glance/api/v2/discovery.py)",
    ),
    (
        "identity",
        Correction::NoBody("put", "/v3/OS-EP-FILTER/projects/{project_id}/endpoints/{endpoint_id}"),
        "the body is not read (keystone/api/os_ep_filter.py)",
    ),
    (
        "image",
        Correction::NoBody("put", "/v2/images/{image_id}/tags/{tag_value}"),
        "the body is not read (glance/api/v2/image_tags.py)",
    ),
    (
        "compute",
        Correction::LooseQuery,
        "Nova ignores what it does not know in the query of servers, and expressions are not compiled before they are used",
    ),
    (
        "identity",
        Correction::Nullable(&["region", "region_id", "description", "parent_region_id"]),
        "what is not set is null in Keystone's answers",
    ),
    (
        "identity",
        Correction::AnyValue(&["links"]),
        "an object with `next`, `previous` and `self`, which the file calls an array",
    ),
    (
        "identity",
        Correction::LooseQuery,
        "Keystone's own list filters take any text",
    ),
    (
        "identity",
        Correction::Open("Response"),
        "members that a request added (`extra`) are in the answer",
    ),
];

fn strip(v: &mut Value, change: &dyn Fn(&mut Map<String, Value>)) {
    match v {
        Value::Object(map) => {
            change(map);
            map.values_mut().for_each(|v| strip(v, change));
        }
        Value::Array(all) => all.iter_mut().for_each(|v| strip(v, change)),
        _ => {}
    }
}

/// Changes the schema of each of these members, where an object declares it.
fn members(map: &mut Map<String, Value>, names: &[&str], change: &dyn Fn(&mut Value)) {
    let Some(properties) = map.get_mut("properties").and_then(Value::as_object_mut) else {
        return;
    };
    for (name, schema) in properties.iter_mut() {
        if names.contains(&name.as_str()) {
            change(schema);
        }
    }
}

/// Every part of the document that says what answers are.
fn answers(doc: &mut Value, part: &str, change: &dyn Fn(&mut Map<String, Value>)) {
    // Some answers' schemas have no name that tells; nothing that is asked for shares them.
    let mut named_by_answers = BTreeSet::new();
    for operation in operations(doc) {
        if let Some(responses) = operation.2.get_mut("responses") {
            let text = responses.to_string();
            let refs = text.split("#/components/schemas/").skip(1);
            named_by_answers.extend(refs.filter_map(|r| r.split('"').next().map(str::to_owned)));
        }
    }
    if let Some(schemas) = doc.pointer_mut("/components/schemas").and_then(Value::as_object_mut) {
        let named = |name: &str| {
            let answer = name.contains("Response") || (named_by_answers.contains(name) && !name.contains("Request"));
            answer && name.contains(part)
        };
        schemas
            .iter_mut()
            .filter(|(n, _)| named(n))
            .for_each(|(_, v)| strip(v, change));
    }
    for operation in operations(doc) {
        if let Some(responses) = operation.2.get_mut("responses") {
            strip(responses, change);
        }
    }
}

fn operations(doc: &mut Value) -> impl Iterator<Item = (&String, &String, &mut Value)> {
    let paths = doc.get_mut("paths").and_then(Value::as_object_mut);
    paths.into_iter().flatten().flat_map(|(path, item)| {
        let item = item.as_object_mut().into_iter().flatten();
        item.filter(|(m, _)| METHODS.contains(&m.as_str()))
            .map(move |(method, operation)| (path, method, operation))
    })
}

/// Puts right what is known to be wrong in a service's file.
pub fn correct(doc: &mut Value, service: &str) {
    for (_, correction, _) in CORRECTIONS.iter().filter(|(of, _, _)| *of == "*" || *of == service) {
        match correction {
            Correction::FormatsOfAnswers => answers(doc, "", &|map| {
                if map.get("format").is_some_and(Value::is_string) {
                    map.remove("format");
                }
            }),
            Correction::Nullable(names) => answers(doc, "", &|map| {
                members(map, names, &|schema| {
                    *schema = json!({"anyOf": [schema.clone(), {"type": "null"}]})
                });
            }),
            Correction::AnyValue(names) => answers(doc, "", &|map| members(map, names, &|schema| *schema = json!({}))),
            Correction::Open(part) => answers(doc, part, &|map| {
                map.remove("additionalProperties");
            }),
            Correction::LooseQuery => {
                let Some(all) = doc.pointer_mut("/components/parameters").and_then(Value::as_object_mut) else {
                    continue;
                };
                for p in all
                    .values_mut()
                    .filter(|p| p.get("in").and_then(Value::as_str) == Some("query"))
                {
                    if let Some(p) = p.as_object_mut() {
                        p.insert("schema".into(), json!({}));
                    }
                }
            }
            Correction::LooseBooleans => {
                let Some(all) = doc.pointer_mut("/components/schemas").and_then(Value::as_object_mut) else {
                    continue;
                };
                for (_, schema) in all.iter_mut().filter(|(n, _)| n.contains("Request")) {
                    strip(schema, &|map| {
                        let boolean =
                            |t: &Value| t == "boolean" || t.as_array().is_some_and(|a| a.contains(&json!("boolean")));
                        if map.get("type").is_some_and(boolean) {
                            map.insert("type".into(), json!(["boolean", "string", "number", "null"]));
                        }
                    });
                }
            }
            Correction::AnyAnswer(part) => {
                for (_, _, operation) in operations(doc).filter(|(path, _, _)| path.contains(part)) {
                    if let Some(operation) = operation.as_object_mut() {
                        operation.insert("responses".into(), json!({"200": {"description": "Ok"}}));
                    }
                }
            }
            Correction::NoBody(method, path) => {
                for (_, _, operation) in operations(doc).filter(|(p, m, _)| p == path && m == method) {
                    if let Some(operation) = operation.as_object_mut() {
                        operation.remove("requestBody");
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_microversion_is_left() {
        let doc = json!({
            "paths": {
                "/things/{id}": {"get": {"x": {"oneOf": [{"$ref": "#/c/A"}, {"$ref": "#/c/B"}, {"$ref": "#/c/C"}]}}},
                "/gone": {"get": {"x-openstack": {"max-ver": "2.3"}}},
                "/other": {"get": {}},
            },
            "c": {
                "A": {"x-openstack": {"min-ver": "2.1"}}, "B": {"x-openstack": {"min-ver": "2.5"}},
                "C": {"x-openstack": {"min-ver": "2.9"}},
            },
        });
        let served = crate::routes::served("/p/things/{thing} GET h r -\n/p/gone GET h r -\n", "/p");
        let (flat, count) = flat(doc, Version(2, 7), &served);
        assert_eq!(count, 1);
        assert_eq!(
            flat["paths"].as_object().unwrap().keys().collect::<Vec<_>>(),
            ["/things/{id}"]
        );
        assert_eq!(
            flat.pointer("/paths/~1things~1{id}/get/x"),
            Some(&json!({"$ref": "#/c/B"}))
        );
    }
}
