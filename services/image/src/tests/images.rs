//! Create, show, change, delete.

use super::Cloud;
use serde_json::{Value, json};

#[tokio::test]
pub(super) async fn an_image_from_birth_to_death() {
    let cloud = Cloud::open().await;
    let body = json!({
        "name": "cirros", "disk_format": "qcow2", "container_format": "bare", "min_disk": 1, "min_ram": 64,
        "tags": ["b", "a", "b"], "architecture": "x86_64",
    });
    let made = cloud.post("alice", "/v2/images", &body).await.is(201);
    let image = made.json();
    let id = image["id"].as_str().unwrap().to_owned();
    assert_eq!(
        made.header("location"),
        format!("http://127.0.0.1:8774/image/v2/images/{id}")
    );
    assert!(made.header("x-openstack-request-id").starts_with("req-"));
    for (key, value) in [
        ("status", json!("queued")),
        ("visibility", json!("shared")),
        ("owner", json!("aaa")),
        ("tags", json!(["a", "b"])),
        ("architecture", json!("x86_64")),
        ("protected", json!(false)),
        ("os_hidden", json!(false)),
        ("size", Value::Null),
        ("virtual_size", Value::Null),
        ("checksum", Value::Null),
        ("os_hash_algo", Value::Null),
        ("os_hash_value", Value::Null),
        ("min_disk", json!(1)),
        ("min_ram", json!(64)),
        ("self", json!(format!("/v2/images/{id}"))),
        ("file", json!(format!("/v2/images/{id}/file"))),
        ("schema", json!("/v2/schemas/image")),
    ] {
        assert_eq!(image[key], value, "{key}");
    }
    assert_eq!(cloud.show("amy", &id).await, image);
    let changed = cloud
        .patch(
            "alice",
            &id,
            &json!([
                {"op": "replace", "path": "/name", "value": "other"},
                {"op": "add", "path": "/os_distro", "value": "debian"},
                {"op": "remove", "path": "/architecture"},
            ]),
        )
        .await
        .is(200)
        .json();
    assert_eq!(changed["name"], "other");
    assert_eq!(changed["os_distro"], "debian");
    assert!(changed.get("architecture").is_none());
    cloud.delete("alice", &format!("/v2/images/{id}")).await.is(204);
    cloud.get("alice", &format!("/v2/images/{id}")).await.is(404);
    cloud.delete("alice", &format!("/v2/images/{id}")).await.is(404);
    for (table, n) in cloud.counts().await {
        assert_eq!(n, if table == "change_log" { 3 } else { 0 }, "{table}");
    }
}

#[tokio::test]
async fn an_id_may_be_chosen_once() {
    let cloud = Cloud::open().await;
    let id = "6B0E2B2A-1E0B-4C5E-9C0D-0123456789AB";
    let made = cloud
        .post("alice", "/v2/images", &json!({"id": id}))
        .await
        .is(201)
        .json();
    assert_eq!(made["id"], id.to_lowercase());
    cloud.get("alice", &format!("/v2/images/{id}")).await.is(200);
    cloud.post("alice", "/v2/images", &json!({"id": id})).await.is(409);
    // Not even for somebody who cannot see it; that much Glance tells, too.
    cloud.post("bob", "/v2/images", &json!({"id": id})).await.is(409);
}

#[tokio::test]
pub(super) async fn who_sees_and_who_changes() {
    let cloud = Cloud::open().await;
    let mut ids = Vec::new();
    for visibility in ["private", "shared", "community"] {
        ids.push(cloud.image("alice", json!({"visibility": visibility})).await);
    }
    ids.push(cloud.image("admin", json!({"visibility": "public"})).await);
    let [private, shared, community, public] = ids.try_into().unwrap();
    let path = |id: &str| format!("/v2/images/{id}");
    for hidden in [&private, &shared] {
        let never = cloud
            .get("bob", &path("11111111-2222-3333-4444-555555555555"))
            .await
            .is(404);
        let hidden_answer = cloud.get("bob", &path(hidden)).await.is(404);
        // Byte-identical but for the id.
        assert_eq!(
            never.text().replace("11111111-2222-3333-4444-555555555555", "ID"),
            hidden_answer.text().replace(hidden.as_str(), "ID"),
        );
        cloud.patch("bob", hidden, &json!([])).await.is(404);
        cloud.delete("bob", &path(hidden)).await.is(404);
        cloud.upload("bob", hidden, "x").await.is(404);
        cloud.get("admin", &path(hidden)).await.is(200);
    }
    for seen in [&community, &public] {
        cloud.get("bob", &path(seen)).await.is(200);
        let rename = json!([{"op": "replace", "path": "/name", "value": "mine"}]);
        cloud.patch("bob", seen, &rename).await.is(403);
        cloud.delete("bob", &path(seen)).await.is(403);
        cloud.upload("bob", seen, "x").await.is(403);
    }
    // A reader reads.
    cloud.get("amy", &path(&private)).await.is(200);
    cloud
        .patch(
            "amy",
            &private,
            &json!([{"op": "replace", "path": "/name", "value": "x"}]),
        )
        .await
        .is(403);
    cloud.post("amy", "/v2/images", &json!({})).await.is(403);
    // Public is the administrator's to give; owners are, too.
    cloud
        .post("alice", "/v2/images", &json!({"visibility": "public"}))
        .await
        .is(403);
    cloud
        .patch(
            "alice",
            &private,
            &json!([{"op": "replace", "path": "/visibility", "value": "public"}]),
        )
        .await
        .is(403);
    cloud
        .post("alice", "/v2/images", &json!({"owner": "bbb"}))
        .await
        .is(403);
    let for_bob = cloud
        .post("admin", "/v2/images", &json!({"owner": "bbb"}))
        .await
        .is(201)
        .json();
    cloud.get("bob", &path(for_bob["id"].as_str().unwrap())).await.is(200);
    cloud.call("nobody", "GET", &path(&public), &[], "").await.is(401);
}

#[tokio::test]
async fn a_protected_image_stays() {
    let cloud = Cloud::open().await;
    let id = cloud.image("alice", json!({"protected": true})).await;
    let refused = cloud.delete("alice", &format!("/v2/images/{id}")).await.is(403);
    assert!(refused.text().contains("is protected"), "{}", refused.text());
    cloud
        .patch(
            "alice",
            &id,
            &json!([{"op": "replace", "path": "/protected", "value": false}]),
        )
        .await
        .is(200);
    cloud.delete("alice", &format!("/v2/images/{id}")).await.is(204);
}

#[tokio::test]
pub(super) async fn tags_one_by_one() {
    let cloud = Cloud::open().await;
    let id = cloud.image("alice", json!({})).await;
    let tag = |t: &str| format!("/v2/images/{id}/tags/{t}");
    cloud.put("alice", &tag("one"), &json!({})).await.is(204);
    cloud.put("alice", &tag("one"), &json!({})).await.is(204);
    cloud.put("alice", &tag("t%C3%BCr%2Fund"), &json!({})).await.is(204);
    assert_eq!(cloud.show("alice", &id).await["tags"], json!(["one", "tür/und"]));
    assert_eq!(cloud.list("alice", "?tag=one&tag=t%C3%BCr/und").await, [id.as_str()]);
    cloud.delete("alice", &tag("one")).await.is(204);
    cloud.delete("alice", &tag("one")).await.is(404);
    cloud.put("alice", &tag(&"x".repeat(256)), &json!({})).await.is(400);
    cloud.put("bob", &tag("x"), &json!({})).await.is(404);
    assert!(cloud.list("alice", "?tag=one").await.is_empty());
}

#[tokio::test]
async fn a_patch_in_the_old_spelling() {
    let cloud = Cloud::open().await;
    let id = cloud.image("alice", json!({})).await;
    let headers = [("content-type", "application/openstack-images-v2.0-json-patch")];
    let body = json!([{"replace": "/name", "value": "n"}, {"add": "/k", "value": "v"}]).to_string();
    let changed = cloud
        .call("alice", "PATCH", &format!("/v2/images/{id}"), &headers, body)
        .await
        .is(200)
        .json();
    assert_eq!((&changed["name"], &changed["k"]), (&json!("n"), &json!("v")));
    let plain = [("content-type", "application/json")];
    let refused = cloud
        .call("alice", "PATCH", &format!("/v2/images/{id}"), &plain, "[]")
        .await
        .is(415);
    assert!(refused.header("accept-patch").contains("v2.1-json-patch"));
}

#[tokio::test]
pub(super) async fn an_owner_change_moves_the_memberships() {
    let cloud = Cloud::open().await;
    let id = cloud.image("alice", json!({})).await;
    cloud
        .post("alice", &format!("/v2/images/{id}/members"), &json!({"member": "ccc"}))
        .await
        .is(200);
    cloud
        .patch(
            "admin",
            &id,
            &json!([{"op": "replace", "path": "/owner", "value": "bbb"}]),
        )
        .await
        .is(200);
    cloud.get("alice", &format!("/v2/images/{id}")).await.is(404);
    let members = cloud
        .get("bob", &format!("/v2/images/{id}/members"))
        .await
        .is(200)
        .json();
    assert_eq!(members["members"].as_array().unwrap().len(), 1);
}

#[tokio::test]
pub(super) async fn every_change_is_in_the_log_and_nothing_else() {
    let cloud = Cloud::open().await;
    let id = cloud.image("alice", json!({"name": "n"})).await;
    cloud
        .patch("alice", &id, &json!([{"op": "replace", "path": "/name", "value": "n"}]))
        .await
        .is(200);
    cloud.patch("alice", &id, &json!([])).await.is(200);
    cloud.upload("alice", &id, "data").await.is(204);
    cloud.delete("alice", &format!("/v2/images/{id}")).await.is(204);
    let mut tx = cloud.db.read().await.unwrap();
    let log = haneul_store::changes_since(&mut tx, 0, 100).await.unwrap();
    let seen: Vec<(String, String)> = log
        .iter()
        .map(|c| (c.operation.clone(), c.state["status"].as_str().unwrap_or("").to_owned()))
        .collect();
    let wanted = [
        ("create", "queued"),
        ("update", "saving"),
        ("update", "active"),
        ("delete", "active"),
    ];
    assert_eq!(seen, wanted.map(|(a, b)| (a.to_owned(), b.to_owned())));
    assert!(
        log.iter()
            .all(|c| c.actor == "alice" && c.request_id.starts_with("req-"))
    );
}

#[tokio::test]
async fn documents() {
    let cloud = Cloud::open().await;
    for path in ["", "/"] {
        let versions = cloud.call("", "GET", path, &[], "").await.is(300).json();
        assert_eq!(versions["versions"][0]["status"], "CURRENT");
        assert_eq!(
            versions["versions"][0]["links"][0]["href"],
            "http://127.0.0.1:8774/image/v2/"
        );
    }
    cloud.call("", "GET", "/versions", &[], "").await.is(200);
    for name in ["image", "images", "member", "members"] {
        let schema = cloud.get("amy", &format!("/v2/schemas/{name}")).await.is(200).json();
        assert_eq!(schema["name"], name);
    }
    let info = cloud.get("amy", "/v2/info/import").await.is(200).json();
    assert_eq!(
        info["import-methods"]["value"],
        json!(["glance-direct", "copy-image", "glance-download"])
    );
    let stores = cloud.get("amy", "/v2/info/stores").await.is(200).json();
    assert_eq!(stores, json!({"stores": [{"id": "file", "default": "true"}]}));
    let id = cloud.image("alice", json!({})).await;
    let tasks = cloud.get("amy", &format!("/v2/images/{id}/tasks")).await.is(200).json();
    assert_eq!(tasks, json!({"tasks": []}));
}

/// The model takes every field of the table that a client may set.
#[tokio::test]
async fn the_fullest_body_is_consumed() {
    let cloud = Cloud::open().await;
    let full = json!({
        "id": "00000000-1111-2222-3333-444455556666", "name": "n", "visibility": "community", "protected": true,
        "os_hidden": true, "owner": "adm", "container_format": "ami", "disk_format": "aki", "min_ram": 1,
        "min_disk": 2, "tags": ["t"], "anything": "else",
    });
    let made = cloud.post("admin", "/v2/images", &full).await.is(201).json();
    for (key, value) in full.as_object().unwrap() {
        assert_eq!(&made[key], value, "{key}");
    }
}
