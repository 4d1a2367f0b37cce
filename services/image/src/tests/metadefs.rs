//! Metadata definitions.

use super::Cloud;
use serde_json::{Value, json};

const ALL: &str = "/v2/metadefs/namespaces";

async fn namespace(cloud: &Cloud, name: &str, more: Value) -> Value {
    let mut body = json!({"namespace": name});
    for (k, v) in more.as_object().unwrap() {
        body[k] = v.clone();
    }
    cloud.post("admin", ALL, &body).await.is(201).json()
}

fn names(list: &Value, key: &str) -> Vec<String> {
    let items = list.as_array().unwrap();
    items.iter().map(|i| i[key].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
pub(super) async fn a_namespace_from_birth_to_death() {
    let cloud = Cloud::open().await;
    let body = json!({
        "namespace": "A::B", "display_name": "Ab", "description": "d", "visibility": "public", "protected": true,
        "resource_type_associations": [{"name": "My::Type", "prefix": "p_", "properties_target": "image"}],
        "properties": {"size": {"title": "Size", "type": "integer", "minimum": 1}},
        "objects": [{"name": "o", "required": ["a"], "properties": {"a": {"title": "A", "type": "string"}}}],
        "tags": [{"name": "t"}],
    });
    let made = cloud.post("admin", ALL, &body).await.is(201);
    assert_eq!(
        made.header("location"),
        "http://127.0.0.1:8774/image/v2/metadefs/namespaces/A::B"
    );
    let path = format!("{ALL}/A::B");
    let shown = cloud.get("amy", &path).await.is(200).json();
    assert_eq!(shown, made.json());
    assert_eq!(shown["self"], path);
    assert_eq!(shown["schema"], "/v2/schemas/metadefs/namespace");
    assert_eq!(shown["owner"], "adm");
    assert_eq!(shown["objects"][0]["self"], format!("{path}/objects/o"));
    assert_eq!(shown["properties"]["size"], body["properties"]["size"]);
    assert_eq!(shown["tags"], json!([{"name": "t"}]));
    assert_eq!(shown["resource_type_associations"][0]["prefix"], "p_");
    // As the resource has them.
    let there = cloud
        .get("amy", &format!("{path}?resource_type=My::Type"))
        .await
        .is(200)
        .json();
    assert!(there["properties"]["p_size"].is_object());
    assert_eq!(there["objects"][0]["required"], json!(["p_a"]));
    assert!(there["objects"][0]["properties"]["p_a"].is_object());
    // The type was made along the way.
    let types = cloud.get("amy", "/v2/metadefs/resource_types").await.is(200).json();
    assert_eq!(names(&types["resource_types"], "name"), ["My::Type"]);
    // Twice is once too often, and leaves nothing.
    let before = cloud.counts().await;
    cloud.post("admin", ALL, &body).await.is(409);
    let twins = json!({"namespace": "twins", "tags": [{"name": "t"}, {"name": "t"}]});
    let refused = cloud.post("admin", ALL, &twins).await.is(409);
    assert!(refused.text().contains("twins"), "{}", refused.text());
    // Protected: neither it nor what is in it.
    for what in [
        "",
        "/objects",
        "/properties",
        "/tags",
        "/objects/o",
        "/properties/size",
        "/tags/t",
        "/resource_types/My::Type",
    ] {
        let refused = cloud.delete("admin", &format!("{path}{what}")).await.is(403);
        assert!(refused.text().contains("protected"), "{}", refused.text());
    }
    assert_eq!(cloud.counts().await, before);
    // Clients send back what they got, without what stands at the top and is not theirs.
    let mut back = shown.clone();
    for name in ["self", "schema", "created_at", "updated_at"] {
        back.as_object_mut().unwrap().remove(name);
    }
    cloud.put("admin", &path, &back).await.is(200);
    assert_eq!(cloud.counts().await, before);
    // A change replaces: what is left out falls back to its default. What is in it stays.
    let change = json!({"namespace": "C", "description": "e"});
    let changed = cloud.put("admin", &path, &change).await.is(200).json();
    assert_eq!(
        (&changed["visibility"], &changed["protected"]),
        (&json!("private"), &json!(false))
    );
    assert!(changed.get("display_name").is_none());
    cloud.get("admin", &path).await.is(404);
    let path = format!("{ALL}/C");
    assert_eq!(
        cloud.get("admin", &format!("{path}/tags/t")).await.is(200).json()["name"],
        "t"
    );
    cloud.delete("admin", &path).await.is(204);
    cloud.delete("admin", &path).await.is(404);
    let left = cloud.counts().await;
    assert!(
        left.iter()
            .all(|(t, n)| !t.starts_with("metadef_") || t == "metadef_resource_type" || *n == 0),
        "{left:?}"
    );
}

#[tokio::test]
pub(super) async fn who_sees_and_who_changes_definitions() {
    let cloud = Cloud::open().await;
    namespace(&cloud, "open", json!({"visibility": "public"})).await;
    namespace(&cloud, "theirs", json!({"owner": "bbb"})).await;
    namespace(&cloud, "admins", json!({})).await;
    let seen = async |token: &str, query: &str| {
        let list = cloud.get(token, &format!("{ALL}{query}")).await.is(200).json();
        names(&list["namespaces"], "namespace")
    };
    assert_eq!(seen("admin", "").await, ["admins", "theirs", "open"]);
    assert_eq!(seen("bob", "").await, ["theirs", "open"]);
    assert_eq!(seen("amy", "").await, ["open"]);
    assert_eq!(seen("bob", "?visibility=private").await, ["theirs"]);
    // What may not be seen is as what is not there.
    for path in [
        "",
        "/objects",
        "/properties",
        "/tags",
        "/resource_types",
        "/objects/x",
        "/tags/x",
        "/properties/x",
    ] {
        let hidden = cloud.get("alice", &format!("{ALL}/theirs{path}")).await.is(404).text();
        let absent = cloud.get("alice", &format!("{ALL}/nothing{path}")).await.is(404).text();
        assert_eq!(hidden.replace("theirs", "nothing"), absent);
    }
    // Seeing is not changing, not even for whom it belongs to.
    let before = cloud.counts().await;
    let property = json!({"name": "p", "title": "t", "type": "string"});
    for token in ["alice", "amy", "bob"] {
        cloud.post(token, ALL, &json!({"namespace": "mine"})).await.is(403);
        for (ns, status) in [("open", 403), ("theirs", if token == "bob" { 403 } else { 404 })] {
            let path = format!("{ALL}/{ns}");
            cloud.put(token, &path, &json!({"namespace": "x"})).await.is(status);
            cloud.delete(token, &path).await.is(status);
            for (what, one, body) in [
                ("objects", "objects/x", json!({"name": "o"})),
                ("properties", "properties/x", property.clone()),
                ("tags", "tags/x", json!({"name": "t"})),
                ("resource_types", "", json!({"name": "r"})),
            ] {
                let list = if what == "tags" {
                    json!({"tags": [body]})
                } else {
                    body.clone()
                };
                cloud.post(token, &format!("{path}/{what}"), &list).await.is(status);
                if what == "resource_types" {
                    cloud.delete(token, &format!("{path}/{what}/r")).await.is(status);
                    continue;
                }
                cloud.delete(token, &format!("{path}/{what}")).await.is(status);
                cloud.put(token, &format!("{path}/{one}"), &body).await.is(status);
                cloud.delete(token, &format!("{path}/{one}")).await.is(status);
            }
            cloud
                .post(token, &format!("{path}/tags/x"), &json!({}))
                .await
                .is(status);
        }
    }
    assert_eq!(cloud.counts().await, before);
}

#[tokio::test]
pub(super) async fn definitions_live_in_their_namespace() {
    let cloud = Cloud::open().await;
    namespace(&cloud, "n", json!({"visibility": "public"})).await;
    namespace(&cloud, "m", json!({"visibility": "public"})).await;
    let at = |rest: &str| format!("{ALL}/n/{rest}");
    // Objects.
    for name in ["a", "b", "c"] {
        let made = cloud
            .post("admin", &at("objects"), &json!({"name": name}))
            .await
            .is(201)
            .json();
        assert_eq!((&made["required"], &made["properties"]), (&json!([]), &json!({})));
    }
    cloud.post("admin", &at("objects"), &json!({"name": "a"})).await.is(409);
    cloud
        .post("admin", &format!("{ALL}/m/objects"), &json!({"name": "a"}))
        .await
        .is(201);
    let list = cloud.get("amy", &at("objects")).await.is(200).json();
    assert_eq!(names(&list["objects"], "name"), ["c", "b", "a"]);
    assert_eq!(list["schema"], "/v2/schemas/metadefs/objects");
    let page = cloud.get("amy", &at("objects?limit=1&marker=c")).await.is(200).json();
    assert_eq!(names(&page["objects"], "name"), ["b"]);
    cloud.get("amy", &at("objects?marker=z")).await.is(404);
    cloud
        .put("admin", &at("objects/a"), &json!({"name": "b"}))
        .await
        .is(409);
    let body = json!({"name": "z", "description": "d", "properties": {"p": {"title": "P", "type": "boolean"}}});
    let changed = cloud.put("admin", &at("objects/a"), &body).await.is(200).json();
    assert_eq!(changed["self"], at("objects/z"));
    cloud.get("amy", &at("objects/a")).await.is(404);
    assert_eq!(cloud.get("amy", &at("objects/z")).await.is(200).json(), changed);
    cloud.delete("admin", &at("objects/b")).await.is(204);
    cloud.delete("admin", &at("objects/b")).await.is(404);
    cloud.delete("admin", &at("objects")).await.is(204);
    assert_eq!(cloud.get("amy", &at("objects")).await.json()["objects"], json!([]));
    cloud.get("amy", &format!("{ALL}/m/objects/a")).await.is(200);
    // Properties.
    let p = json!({"name": "p", "title": "P", "type": "array", "items": {"type": "string", "enum": ["x"]}, "default": ["x"]});
    assert_eq!(cloud.post("admin", &at("properties"), &p).await.is(201).json(), p);
    cloud.post("admin", &at("properties"), &p).await.is(409);
    let list = cloud.get("amy", &at("properties")).await.is(200).json();
    assert!(list["properties"]["p"].get("name").is_none());
    let q = json!({"name": "q", "title": "Q", "type": "integer"});
    assert_eq!(cloud.put("admin", &at("properties/p"), &q).await.is(200).json(), q);
    // By the name that a resource has for it.
    let flavor = json!({"name": "OS::Nova::Flavor", "prefix": "hw:"});
    let made = cloud.post("admin", &at("resource_types"), &flavor).await.is(201).json();
    assert!(made["created_at"].is_string() && made.get("properties_target").is_none());
    cloud.post("admin", &at("resource_types"), &flavor).await.is(409);
    let prefixed = cloud
        .get("amy", &at("properties/hw:q?resource_type=OS::Nova::Flavor"))
        .await
        .is(200);
    assert_eq!(prefixed.json(), q);
    cloud
        .get("amy", &at("properties/q?resource_type=OS::Nova::Flavor"))
        .await
        .is(404);
    cloud
        .get("amy", &at("properties/hw:q?resource_type=other"))
        .await
        .is(404);
    let filtered = cloud
        .get("amy", &format!("{ALL}?resource_types=x,OS::Nova::Flavor"))
        .await
        .is(200)
        .json();
    assert_eq!(names(&filtered["namespaces"], "namespace"), ["n"]);
    assert_eq!(
        filtered["namespaces"][0]["resource_type_associations"][0]["name"],
        "OS::Nova::Flavor"
    );
    let none = cloud
        .get("amy", &format!("{ALL}?resource_types=x"))
        .await
        .is(200)
        .json();
    assert_eq!(none["namespaces"], json!([]));
    cloud
        .delete("admin", &at("resource_types/OS::Nova::Flavor"))
        .await
        .is(204);
    cloud
        .delete("admin", &at("resource_types/OS::Nova::Flavor"))
        .await
        .is(404);
    let list = cloud.get("amy", &at("resource_types")).await.is(200).json();
    assert_eq!(list, json!({"resource_type_associations": []}));
    cloud.delete("admin", &at("properties/q")).await.is(204);
    cloud.delete("admin", &at("properties")).await.is(204);
}

#[tokio::test]
pub(super) async fn tags_replace_each_other_unless_they_are_to_append() {
    let cloud = Cloud::open().await;
    namespace(&cloud, "n", json!({})).await;
    let all = format!("{ALL}/n/tags");
    let put = async |append: &str, tags: &[&str]| {
        let headers = [("content-type", "application/json"), ("x-openstack-append", append)];
        let list: Vec<Value> = tags.iter().map(|t| json!({"name": t})).collect();
        cloud
            .call("admin", "POST", &all, &headers, json!({"tags": list}).to_string())
            .await
    };
    let seen = async || {
        let list = cloud
            .get("admin", &format!("{all}?sort_key=name&sort_dir=asc"))
            .await
            .is(200)
            .json();
        names(&list["tags"], "name")
    };
    let made = put("", &["b", "a"]).await.is(201).json();
    assert_eq!(made, json!({"tags": [{"name": "b"}, {"name": "a"}]}));
    put("False", &["c"]).await.is(201);
    assert_eq!(seen().await, ["c"]);
    put("True", &["d"]).await.is(201);
    assert_eq!(seen().await, ["c", "d"]);
    // All or none.
    put("True", &["e", "d"]).await.is(409);
    put("", &["f", "f"]).await.is(409);
    put("", &[]).await.is(201);
    assert_eq!(seen().await, ["c", "d"]);
    let one = cloud
        .call("admin", "POST", &format!("{all}/g"), &[], "")
        .await
        .is(201)
        .json();
    assert!(one["name"] == "g" && one["updated_at"].is_string());
    cloud.call("admin", "POST", &format!("{all}/g"), &[], "").await.is(409);
    cloud
        .put("admin", &format!("{all}/g"), &json!({"name": "c"}))
        .await
        .is(409);
    cloud
        .put("admin", &format!("{all}/g"), &json!({"name": "h"}))
        .await
        .is(200);
    cloud.delete("admin", &format!("{all}/h")).await.is(204);
    let page = cloud
        .get("admin", &format!("{all}?sort_key=name&sort_dir=asc&limit=1&marker=c"))
        .await
        .json();
    assert_eq!(page, json!({"tags": [{"name": "d"}]}));
    cloud.delete("admin", &all).await.is(204);
    assert!(seen().await.is_empty());
}

#[tokio::test]
pub(super) async fn namespaces_page_without_gap_or_overlap() {
    let cloud = Cloud::open().await;
    for i in 0..7 {
        let visibility = if i % 2 == 0 { "public" } else { "private" };
        namespace(&cloud, &format!("n{i}"), json!({"visibility": visibility})).await;
    }
    for sort in [
        "",
        "sort_key=namespace",
        "sort_key=visibility&sort_dir=asc",
        "sort_key=id",
        "visibility=public",
    ] {
        for limit in [1, 3, 7, 8] {
            let (mut seen, mut next) = (Vec::new(), Some(format!("{ALL}?limit={limit}&{sort}")));
            while let Some(path) = next {
                let page = cloud.get("admin", &path).await.is(200).json();
                assert_eq!(page["schema"], "/v2/schemas/metadefs/namespaces");
                assert!(
                    page["first"]
                        .as_str()
                        .unwrap()
                        .starts_with("/v2/metadefs/namespaces?limit=")
                );
                seen.extend(names(&page["namespaces"], "namespace"));
                next = page.get("next").and_then(Value::as_str).map(str::to_owned);
                assert!(seen.len() <= 7, "{sort}: {seen:?}");
            }
            seen.sort();
            seen.dedup();
            assert_eq!(
                seen.len(),
                if sort.starts_with("vis") { 4 } else { 7 },
                "{sort}, {limit} a page"
            );
        }
    }
    assert_eq!(
        cloud.get("admin", &format!("{ALL}?limit=0")).await.is(200).json()["namespaces"],
        json!([])
    );
}

#[tokio::test]
pub(super) async fn what_is_in_a_namespace_goes_along_to_its_new_owner() {
    let cloud = Cloud::open().await;
    let tag = json!({"tags": [{"name": "t"}], "resource_type_associations": [{"name": "r"}]});
    namespace(&cloud, "n", tag).await;
    cloud.get("bob", &format!("{ALL}/n/tags/t")).await.is(404);
    cloud
        .put("admin", &format!("{ALL}/n"), &json!({"namespace": "n", "owner": "bbb"}))
        .await
        .is(200);
    cloud.get("bob", &format!("{ALL}/n/tags/t")).await.is(200);
    let mut tx = cloud.db.read().await.unwrap();
    let log = haneul_store::changes_since(&mut tx, 0, 100).await.unwrap();
    let moved: Vec<(&str, Option<&str>)> = log
        .iter()
        .filter(|c| c.operation == "update")
        .map(|c| (c.kind.as_str(), c.project_id.as_deref()))
        .collect();
    assert_eq!(
        moved,
        ["metadef_tag", "metadef_association", "metadef_namespace"].map(|k| (k, Some("bbb")))
    );
}

/// The catalogue is made once. What was removed stays away, what was there stays.
#[tokio::test]
pub(super) async fn the_catalogue_is_made_once() {
    let cloud = Cloud::open().await;
    let own = json!({"namespace": "OS::Compute::Watchdog", "description": "mine", "visibility": "public"});
    cloud.post("admin", ALL, &own).await.is(201);
    cloud.app.bootstrap().await.unwrap();
    let before = cloud.counts().await;
    cloud.app.bootstrap().await.unwrap();
    assert_eq!(cloud.counts().await, before);
    let mine = cloud
        .get("amy", &format!("{ALL}/OS::Compute::Watchdog"))
        .await
        .is(200)
        .json();
    assert!(mine["description"] == "mine" && mine.get("properties").is_none());
    let path = format!("{ALL}/OS::Compute::CPUPinning");
    let pinning = cloud
        .get("amy", &format!("{path}?resource_type=OS::Nova::Flavor"))
        .await
        .is(200)
        .json();
    assert_eq!(
        pinning["properties"]["hw:cpu_policy"]["enum"],
        json!(["shared", "dedicated"])
    );
    assert!(pinning.get("owner").is_none());
    let types = cloud.get("amy", "/v2/metadefs/resource_types").await.is(200).json();
    assert!(names(&types["resource_types"], "name").contains(&"OS::Nova::Server".to_owned()));
    cloud.delete("admin", &path).await.is(403);
    cloud
        .put("admin", &path, &json!({"namespace": "OS::Compute::CPUPinning"}))
        .await
        .is(200);
    cloud.delete("admin", &path).await.is(204);
    cloud.app.bootstrap().await.unwrap();
    cloud.get("admin", &path).await.is(404);
}

#[tokio::test]
async fn there_is_an_end_to_definitions() {
    let cloud = Cloud::open().await;
    namespace(&cloud, "n", json!({})).await;
    let tags: Vec<Value> = (0..1000).map(|i| json!({"name": i.to_string()})).collect();
    cloud
        .post("admin", &format!("{ALL}/n/tags"), &json!({"tags": tags}))
        .await
        .is(201);
    let refused = cloud
        .post("admin", &format!("{ALL}/n/tags/more"), &json!({}))
        .await
        .is(413);
    assert!(
        refused.text().contains("1000") && refused.text().contains("1001"),
        "{}",
        refused.text()
    );
    cloud.delete("admin", &format!("{ALL}/n")).await.is(204);
}

#[tokio::test]
async fn metadef_schemas() {
    let cloud = Cloud::open().await;
    for (path, name) in [
        ("namespace", "namespace"),
        ("namespaces", "namespaces"),
        ("object", "object"),
        ("objects", "objects"),
        ("property", "property"),
        ("properties", "properties"),
        ("tag", "tag"),
        ("tags", "tags"),
        ("resource_type", "resource_type_association"),
        ("resource_types", "resource_type_associations"),
    ] {
        let schema = cloud
            .get("amy", &format!("/v2/schemas/metadefs/{path}"))
            .await
            .is(200)
            .json();
        assert_eq!(schema["name"], name);
        let body = if name.ends_with('s') {
            &schema["properties"][name]
        } else {
            &schema["required"]
        };
        assert!(!body.is_null(), "{schema}");
    }
    cloud.get("amy", "/v2/schemas/metadefs/nothing").await.is(404);
}
