//! Requests that are wrong: the real service's status, a message that names the field, and nothing changed.
//! Where the status is documented: Glance's API reference, and `glance/api/v2/*.py`.

use super::Cloud;
use serde_json::json;

/// Method, path, content type, body, status, word in the message.
type Row = (&'static str, String, &'static str, String, u16, &'static str);

const JSON: &str = "application/json";
const PATCH: &str = "application/openstack-images-v2.1-json-patch";
const BYTES: &str = "application/octet-stream";

fn rows(id: &str, other: &str) -> Vec<Row> {
    let image = format!("/v2/images/{id}");
    let create = |body: serde_json::Value, status, word| -> Row {
        ("POST", "/v2/images".into(), JSON, body.to_string(), status, word)
    };
    let patch = |body: serde_json::Value, status, word| -> Row {
        ("PATCH", image.clone(), PATCH, body.to_string(), status, word)
    };
    let get = |path: &str, status, word| -> Row { ("GET", path.to_owned(), JSON, String::new(), status, word) };
    vec![
        ("POST", "/v2/images".into(), JSON, String::new(), 400, "Body expected"),
        ("POST", "/v2/images".into(), JSON, "{".into(), 400, "Malformed JSON"),
        (
            "POST",
            "/v2/images".into(),
            JSON,
            "5".into(),
            400,
            "Unexpected body type",
        ),
        ("POST", "/v2/images".into(), JSON, "[]".into(), 400, "object"),
        (
            "POST",
            "/v2/images".into(),
            JSON,
            "x".repeat(1 << 20 | 1),
            413,
            "too large",
        ),
        create(json!({"name": "x".repeat(256)}), 400, "image.name"),
        create(json!({"name": 5}), 400, "image.name"),
        create(json!({"visibility": "secret"}), 400, "image.visibility"),
        create(json!({"disk_format": "wrong"}), 400, "image.disk_format"),
        create(json!({"container_format": "wrong"}), 400, "image.container_format"),
        create(json!({"min_disk": -1}), 400, "image.min_disk"),
        create(json!({"min_ram": 1_u64 << 40}), 400, "image.min_ram"),
        create(json!({"min_ram": 1.5}), 400, "image.min_ram"),
        create(json!({"protected": "yes"}), 400, "image.protected"),
        create(json!({"id": "not-a-uuid"}), 400, "image.id"),
        create(json!({"tags": "x"}), 400, "image.tags"),
        create(json!({"tags": ["x".repeat(256)]}), 400, "image.tags.0"),
        create(json!({"property": {"deep": 1}}), 400, "image.property"),
        create(json!({"x".repeat(256): "y"}), 400, "255"),
        create(json!({"name": "a\u{0}b"}), 400, "U+0000"),
        create(json!({"status": "active"}), 403, "read-only"),
        create(json!({"size": 5}), 403, "read-only"),
        create(json!({"direct_url": "file:///etc/passwd"}), 403, "read-only"),
        create(
            json!({"locations": [{"url": "file:///etc/passwd", "metadata": {}}]}),
            403,
            "reserved",
        ),
        create(json!({"location": "x"}), 403, "reserved"),
        create(json!({"os_glance_foo": "bar"}), 403, "reserved"),
        create(json!({"owner": "bbb"}), 403, "bbb"),
        create(json!({"visibility": "public"}), 403, "publicize_image"),
        create(json!({"id": id}), 409, "already exists"),
        create(
            json!({"tags": (0..129).map(|i| i.to_string()).collect::<Vec<_>>()}),
            413,
            "Maximum: 128",
        ),
        ("PATCH", image.clone(), JSON, "[]".into(), 415, "Content-Type"),
        ("PATCH", image.clone(), PATCH, "{}".into(), 400, "array"),
        patch(json!([{"op": "copy", "path": "/a"}]), 400, "`copy`"),
        patch(
            json!([{"op": "replace", "path": "/min_disk", "value": "5"}]),
            400,
            "image.min_disk",
        ),
        patch(
            json!([{"op": "replace", "path": "/id", "value": other}]),
            403,
            "read-only",
        ),
        patch(
            json!([{"op": "replace", "path": "/file", "value": "x"}]),
            403,
            "read-only",
        ),
        patch(
            json!([{"op": "replace", "path": "/nothing", "value": "x"}]),
            409,
            "does not exist",
        ),
        patch(
            json!([{"op": "add", "path": "/locations/-", "value": {"url": "file:///etc/shadow", "metadata": {}}}]),
            403,
            "locations",
        ),
        // The first operation is fine, the second is not: none happens.
        patch(
            json!([{"op": "replace", "path": "/name", "value": "new"}, {"op": "remove", "path": "/nothing"}]),
            409,
            "nothing",
        ),
        get("/v2/images?limit=x", 400, "limit"),
        get("/v2/images?sort_key=x", 400, "sort key"),
        get("/v2/images?marker=x", 400, "marker"),
        get("/v2/images?name=%00", 400, "U+0000"),
        get("/v2/images/x", 404, "x"),
        get("/v2/images/", 404, ""),
        get("/v2/images/%2e%2e%2f%2e%2e%2fetc%2fpasswd/file", 404, ""),
        get(&format!("/v2/images/{other}"), 404, other_word()),
        get("/v2/nothing", 404, ""),
        ("DELETE", "/v2/images".into(), JSON, String::new(), 405, "DELETE"),
        ("PUT", format!("{image}/file"), JSON, "x".into(), 415, "octet-stream"),
        ("PUT", format!("/v2/images/{other}/file"), BYTES, "x".into(), 404, ""),
        ("PUT", format!("{image}/stage"), JSON, "x".into(), 415, "octet-stream"),
        ("PUT", format!("/v2/images/{other}/stage"), BYTES, "x".into(), 404, ""),
        ("POST", format!("{image}/import"), JSON, "{}".into(), 400, "method"),
        (
            "POST",
            format!("{image}/import"),
            JSON,
            r#"{"method": {"name": "web-download", "uri": "http://127.0.0.1"}}"#.into(),
            400,
            "web-download",
        ),
        (
            "POST",
            format!("{image}/members"),
            JSON,
            "{}".into(),
            400,
            "not specified",
        ),
        (
            "POST",
            format!("{image}/members"),
            JSON,
            r#"{"member": ""}"#.into(),
            400,
            "empty",
        ),
        (
            "POST",
            format!("{image}/members"),
            JSON,
            r#"{"member": 5}"#.into(),
            400,
            "project",
        ),
        (
            "PUT",
            format!("{image}/members/x"),
            JSON,
            "{}".into(),
            400,
            "Status not specified",
        ),
        (
            "PUT",
            format!("{image}/members/x"),
            JSON,
            r#"{"status": "maybe"}"#.into(),
            400,
            "pending",
        ),
        (
            "PUT",
            format!("{image}/members/x"),
            JSON,
            r#"{"status": "accepted"}"#.into(),
            404,
            "x not found",
        ),
        ("DELETE", format!("{image}/tags/none"), JSON, String::new(), 404, "none"),
        (
            "POST",
            format!("{image}/actions/deactivate"),
            JSON,
            String::new(),
            403,
            "queued",
        ),
        (
            "POST",
            format!("{image}/actions/reactivate"),
            JSON,
            String::new(),
            403,
            "queued",
        ),
    ]
}

fn other_word() -> &'static str {
    "No image found"
}

#[tokio::test]
pub(super) async fn refused_and_nothing_changed() {
    let cloud = Cloud::open().await;
    let id = cloud.image("alice", json!({"name": "kept", "a": "b"})).await;
    let other = cloud.image("bob", json!({"visibility": "private"})).await;
    let before = (cloud.counts().await, cloud.show("alice", &id).await);
    for (method, path, content_type, body, status, word) in rows(&id, &other) {
        for accept in ["*/*", "application/json"] {
            let headers = [("content-type", content_type), ("accept", accept)];
            let answer = cloud.call("alice", method, &path, &headers, body.clone()).await;
            let shown: String = body.chars().take(80).collect();
            assert_eq!(
                answer.status.as_u16(),
                status,
                "{method} {path} {shown}: {}",
                answer.text()
            );
            let text = answer.text();
            assert!(text.contains(word), "{method} {path} {shown}: {text}");
            if accept == "*/*" {
                assert!(answer.header("content-type").starts_with("text/html"), "{text}");
                assert!(text.contains(&format!("<title>{status} ")), "{text}");
            } else {
                let json = answer.json();
                assert!(
                    json["code"].as_str().unwrap().starts_with(&status.to_string()),
                    "{text}"
                );
                assert!(json["title"].is_string() && json["message"].is_string(), "{text}");
            }
            assert!(answer.header("x-openstack-request-id").starts_with("req-"));
        }
    }
    assert_eq!((cloud.counts().await, cloud.show("alice", &id).await), before);
    assert!(cloud.app.file_names().unwrap().is_empty());
}

const NAMESPACES: &str = "/v2/metadefs/namespaces";

/// Rows of the definitions and of tasks, all by an administrator: what is wrong is the request.
fn definition_rows() -> Vec<Row> {
    let post = |path: &str, body: serde_json::Value, status, word| -> Row {
        ("POST", path.to_owned(), JSON, body.to_string(), status, word)
    };
    let put = |path: &str, body: serde_json::Value, status, word| -> Row {
        ("PUT", path.to_owned(), JSON, body.to_string(), status, word)
    };
    let get = |path: &str, status, word| -> Row { ("GET", path.to_owned(), JSON, String::new(), status, word) };
    let new = |body: serde_json::Value, status, word| post(NAMESPACES, body, status, word);
    let task = |body: serde_json::Value, status, word| post("/v2/tasks", body, status, word);
    let at = |rest: &str| format!("{NAMESPACES}/n/{rest}");
    let long = "x".repeat(81);
    let property = |more: serde_json::Value| {
        let mut body = json!({"name": "q", "title": "Q", "type": "string"});
        for (k, v) in more.as_object().unwrap() {
            body[k] = v.clone();
        }
        body
    };
    let mut rows = vec![
        ("POST", NAMESPACES.into(), JSON, String::new(), 400, "Body expected"),
        ("POST", NAMESPACES.into(), JSON, "{".into(), 400, "Malformed JSON"),
        new(json!([]), 400, "object"),
        new(json!({}), 400, "'namespace' is a required"),
        new(json!({"namespace": 5}), 400, "namespace.namespace"),
        new(json!({"namespace": ""}), 400, "namespace.namespace"),
        new(json!({"namespace": long}), 400, "81"),
        new(json!({"namespace": "a\u{0}"}), 400, "U+0000"),
        new(json!({"namespace": "a", "display_name": null}), 400, "display_name"),
        new(json!({"namespace": "a", "display_name": long}), 400, "display_name"),
        new(json!({"namespace": "a", "description": "x".repeat(501)}), 400, "501"),
        new(json!({"namespace": "a", "visibility": "shared"}), 400, "visibility"),
        new(json!({"namespace": "a", "protected": "true"}), 400, "protected"),
        new(json!({"namespace": "a", "owner": "x".repeat(256)}), 400, "owner"),
        new(json!({"namespace": "a", "colour": "red"}), 400, "colour"),
        new(json!({"namespace": "a", "self": "x"}), 403, "read-only"),
        new(json!({"namespace": "a", "created_at": "x"}), 403, "read-only"),
        new(json!({"namespace": "n"}), 409, "already exists"),
        new(
            json!({"namespace": "a", "tags": [{"name": "t"}, {"name": "t"}]}),
            409,
            "tag t",
        ),
        new(json!({"namespace": "a", "objects": [{}]}), 400, "'name' is a required"),
        new(
            json!({"namespace": "a", "properties": {"p": {"title": "P"}}}),
            400,
            "namespace.properties.p",
        ),
        new(
            json!({"namespace": "a", "properties": {"": {"title": "P", "type": "string"}}}),
            400,
            "80 characters",
        ),
        new(json!({"namespace": "a", "properties": []}), 400, "namespace.properties"),
        put(NAMESPACES, json!({}), 405, "PUT"),
        put(&format!("{NAMESPACES}/n"), json!({}), 400, "'namespace' is a required"),
        put(
            &format!("{NAMESPACES}/n"),
            json!({"namespace": "m"}),
            409,
            "already exists",
        ),
        put(
            &format!("{NAMESPACES}/x"),
            json!({"namespace": "x"}),
            404,
            "namespace x",
        ),
        get(&format!("{NAMESPACES}/%00"), 404, "namespace"),
        get(&format!("{NAMESPACES}/n/objects/%00"), 404, "object"),
        get(&format!("{NAMESPACES}/n/colours"), 404, ""),
        get(&format!("{NAMESPACES}?limit=x"), 400, "limit"),
        get(&format!("{NAMESPACES}?limit=-1"), 400, "limit"),
        get(&format!("{NAMESPACES}?sort_key=doc"), 400, "sort key"),
        get(&format!("{NAMESPACES}?sort_dir=up"), 400, "sort direction"),
        get(&format!("{NAMESPACES}?visibility=shared"), 400, "visibility"),
        get(&format!("{NAMESPACES}?marker=x"), 404, "namespace x"),
        get(&format!("{NAMESPACES}?resource_types=%00"), 400, "U+0000"),
        get(&format!("{NAMESPACES}?resource_types={}", ",".repeat(100)), 400, "101"),
        get(&at("objects?limit=0"), 400, "limit"),
        get(&at("tags?limit=-1"), 400, "limit"),
        post(&at("objects"), json!({"name": long}), 400, "object.name"),
        post(
            &at("objects"),
            json!({"name": "o", "required": ["a", "a"]}),
            400,
            "object.required",
        ),
        post(
            &at("objects"),
            json!({"name": "o", "required": "a"}),
            400,
            "object.required",
        ),
        post(
            &at("objects"),
            json!({"name": "o", "updated_at": "x"}),
            403,
            "read-only",
        ),
        post(
            &at("objects"),
            json!({"name": "o", "properties": {"p": 5}}),
            400,
            "object.properties.p",
        ),
        post(
            &at("objects"),
            json!({"name": "o", "properties": {"p": {"title": "P", "type": "date"}}}),
            400,
            "type",
        ),
        put(&at("objects/x"), json!({"name": "o"}), 404, "object x"),
        post(
            &at("properties"),
            json!({"title": "Q", "type": "string"}),
            400,
            "'name' is a required",
        ),
        post(
            &at("properties"),
            json!({"name": "q", "type": "string"}),
            400,
            "'title' is a required",
        ),
        post(&at("properties"), property(json!({"type": null})), 400, "property.type"),
        post(
            &at("properties"),
            property(json!({"minimum": "1"})),
            400,
            "property.minimum",
        ),
        post(
            &at("properties"),
            property(json!({"maxLength": -1})),
            400,
            "property.maxLength",
        ),
        post(&at("properties"), property(json!({"enum": "x"})), 400, "property.enum"),
        post(
            &at("properties"),
            property(json!({"items": {"enum": []}})),
            400,
            "'type' is a required",
        ),
        post(
            &at("properties"),
            property(json!({"readonly": 1})),
            400,
            "property.readonly",
        ),
        post(
            &at("properties"),
            property(json!({"confidential": true})),
            400,
            "confidential",
        ),
        post(&at("properties"), property(json!({"default": "\u{0}"})), 400, "U+0000"),
        post(
            &at("properties"),
            property(json!({"default": "x".repeat(70_000)})),
            413,
            "65535",
        ),
        post(
            &at("properties"),
            property(json!({"created_at": "x"})),
            403,
            "read-only",
        ),
        put(&at("properties/x"), property(json!({})), 404, "property x"),
        post(&at("tags"), json!({}), 400, "'tags' is a required"),
        post(
            &at("tags"),
            json!({"tags": [{"name": "t", "colour": "red"}]}),
            400,
            "colour",
        ),
        post(&at("tags"), json!({"tags": ["t"]}), 400, "tags.tags.0"),
        post(
            &at("tags"),
            json!({"tags": [{"name": "t"}, {"name": "t"}]}),
            409,
            "tag t",
        ),
        post(&at(&format!("tags/{long}")), json!({}), 400, "81"),
        post(&at("tags/a%00"), json!({}), 400, "U+0000"),
        put(&at("tags/x"), json!({"name": "t"}), 404, "tag x"),
        put(&at("tags/x"), json!({"name": "t", "created_at": "x"}), 403, "read-only"),
        post(&at("resource_types"), json!({}), 400, "'name' is a required"),
        post(
            &at("resource_types"),
            json!({"name": "r", "prefix": long}),
            400,
            "prefix",
        ),
        post(
            &at("resource_types"),
            json!({"name": "r", "updated_at": "x"}),
            403,
            "read-only",
        ),
        (
            "DELETE",
            at("resource_types/x"),
            JSON,
            String::new(),
            404,
            "association x",
        ),
        ("DELETE", at("properties/x"), JSON, String::new(), 404, "property x"),
        (
            "DELETE",
            "/v2/metadefs/resource_types".into(),
            JSON,
            String::new(),
            405,
            "DELETE",
        ),
    ];
    rows.extend([
        task(json!([]), 400, "object"),
        task(json!({"input": {}}), 400, "'type' is required"),
        task(json!({"type": "import"}), 400, "'input' is required"),
        task(json!({"type": "export", "input": {}}), 400, "task.type"),
        task(json!({"type": "clone", "input": {}}), 400, "task.type"),
        task(json!({"type": "import", "input": "x"}), 400, "task.input"),
        task(json!({"type": "import", "input": null}), 400, "import_from"),
        task(json!({"type": "api_image_import", "input": null}), 400, "empty"),
        task(json!({"type": "import", "input": {}, "colour": 1}), 400, "colour"),
        task(
            json!({"type": "import", "input": {"import_from": "file:///etc/passwd"}}),
            400,
            "File based",
        ),
        task(
            json!({"type": "import", "input": {"import_from": "swift://a"}}),
            400,
            "http://",
        ),
        task(
            json!({"type": "import", "input": {"import_from": "http://127.0.0.1:8775/"}}),
            400,
            "filtering",
        ),
        task(
            json!({"type": "import", "input": {"import_from": "http://a\u{0}"}}),
            400,
            "U+0000",
        ),
        task(
            json!({"type": "import", "input": {"x": "x".repeat(70_000)}}),
            413,
            "65535",
        ),
        get("/v2/tasks?status=done", 400, "status"),
        get("/v2/tasks?type=export", 400, "type"),
        get("/v2/tasks?limit=-1", 400, "limit"),
        get("/v2/tasks?sort_key=input", 400, "sort key"),
        get("/v2/tasks?marker=x", 400, "marker"),
        get(
            "/v2/tasks?marker=00000000-0000-4000-8000-000000000000",
            400,
            "No task found",
        ),
        get("/v2/tasks/%00", 404, "No task found"),
        put("/v2/tasks", json!({}), 405, "PUT"),
    ]);
    rows
}

#[tokio::test]
pub(super) async fn definitions_and_tasks_are_refused_and_nothing_changed() {
    let cloud = Cloud::open().await;
    for name in ["m", "n"] {
        cloud
            .post("admin", NAMESPACES, &json!({"namespace": name}))
            .await
            .is(201);
    }
    let before = cloud.counts().await;
    for (method, path, content_type, body, status, word) in definition_rows() {
        for accept in ["*/*", "application/json"] {
            let headers = [("content-type", content_type), ("accept", accept)];
            let answer = cloud.call("admin", method, &path, &headers, body.clone()).await;
            let shown: String = body.chars().take(80).collect();
            let text = answer.text().replace("&#x27;", "'");
            assert_eq!(answer.status.as_u16(), status, "{method} {path} {shown}: {text}");
            assert!(text.contains(word), "{method} {path} {shown}: {word} is not in {text}");
        }
    }
    assert_eq!(cloud.counts().await, before);
}

/// Without a token every route but the documents answers the same, whatever the path names.
#[tokio::test]
async fn without_a_token_nothing_is_told() {
    let cloud = Cloud::open().await;
    let id = cloud.image("alice", json!({})).await;
    let mut seen = None;
    for route in cloud.app.routes().infos() {
        if route.rule == "public" {
            continue;
        }
        for image in [id.as_str(), "nothing"] {
            let path = route
                .path
                .trim_start_matches("/image")
                .replace("{image_id}", image)
                .replace("{tag}", "t")
                .replace("{member_id}", "m")
                .replace(['{', '}'], "");
            let answer = cloud
                .call("expired", route.method.as_str(), &path, &[], "")
                .await
                .is(401);
            assert_eq!(answer.json()["error"]["code"], 401);
            let same = seen.get_or_insert_with(|| answer.text());
            assert_eq!(*same, answer.text(), "{path}");
        }
    }
    assert!(seen.is_some());
}

/// What belongs to another project is as if it were not there, by every route.
#[tokio::test]
async fn another_projects_image_is_not_there() {
    let cloud = Cloud::open().await;
    let id = cloud.image("alice", json!({"visibility": "private"})).await;
    let before = cloud.counts().await;
    for route in cloud.app.routes().infos() {
        if !route.path.contains("{image_id}") || route.path.ends_with("/import") || route.path.contains("/cache/") {
            continue;
        }
        let path = route
            .path
            .trim_start_matches("/image")
            .replace("{image_id}", &id)
            .replace("{tag}", "t")
            .replace("{member_id}", "m");
        let (kind, body) = match route.method.as_str() {
            "PATCH" => (PATCH, "[]"),
            _ if path.ends_with("/file") || path.ends_with("/stage") => (BYTES, "x"),
            _ if path.ends_with("/locations") => (JSON, r#"{"url": "http://example.org/"}"#),
            "POST" => (JSON, r#"{"member": "bbb"}"#),
            _ => (JSON, r#"{"status": "accepted"}"#),
        };
        let headers = [("content-type", kind)];
        let answer = cloud.call("bob", route.method.as_str(), &path, &headers, body).await;
        assert_eq!(
            answer.status.as_u16(),
            404,
            "{} {path}: {}",
            route.method,
            answer.text()
        );
    }
    assert_eq!(cloud.counts().await, before);
}
