//! What flavors, images, groups and aggregates ask of a host reaches the scheduler, for a create and for a move.

use crate::setup::{Ready, id, options};
use haneul_testkit::{Client, Cloud, Member};
use serde_json::{Value, json};

/// Gives a host one trait more.
async fn has_trait(admin: &Client, host: &str, name: &str) {
    let admin = admin.at("placement 1.30");
    admin.put(&format!("/placement/traits/{name}"), &json!({})).await;
    let path = format!("/placement/resource_providers?name={host}");
    let found = admin.get(&path).await.expect(200);
    let path = format!(
        "/placement/resource_providers/{}/traits",
        id(&found, "/resource_providers/0/uuid")
    );
    let mut traits = admin.get(&path).await.expect(200);
    traits["traits"].as_array_mut().unwrap().push(name.into());
    admin.put(&path, &traits).await.expect(200);
}

async fn flavor(admin: &Client, name: &str, specs: Value) {
    let body = json!({"flavor": {"name": name, "id": name, "vcpus": 1, "ram": 128, "disk": 1}});
    admin.post("/compute/v2.1/flavors", &body).await.expect(200);
    let path = format!("/compute/v2.1/flavors/{name}/os-extra_specs");
    admin.post(&path, &json!({"extra_specs": specs})).await.expect(200);
}

/// Creates a server; answers it, and its host.
async fn create(r: &Ready, body: &Value) -> (String, String) {
    let made = r
        .admin
        .at("compute 2.64")
        .post("/compute/v2.1/servers", body)
        .await
        .expect(202);
    let server = id(&made, "/server/id");
    let shown = r.wait(&server, "ACTIVE").await;
    (server, id(&shown, "/OS-EXT-SRV-ATTR:host"))
}

#[tokio::test(flavor = "multi_thread")]
async fn fake_servers_go_where_flavors_images_and_groups_want_them() {
    let mut options = options();
    options.sets.push(Cloud::fleet_listen());
    options.sets.push("agent.underlay=192.0.2.1".into());
    let r = Ready::new(options).await;
    let _two = Member::join(&r.cloud, "two", None, &[]).await;
    let _three = Member::join(&r.cloud, "three", None, &[]).await;
    has_trait(&r.admin, "two", "CUSTOM_FAST").await;

    flavor(&r.admin, "fast", json!({"trait:CUSTOM_FAST": "required"})).await;
    let (fast, host) = create(&r, &r.server("fast", "fast")).await;
    assert_eq!(host, "two");
    flavor(&r.admin, "slow", json!({"trait:CUSTOM_FAST": "forbidden"})).await;
    for n in 0..3 {
        let (_, host) = create(&r, &r.server(&format!("slow{n}"), "slow")).await;
        assert_ne!(host, "two");
    }
    // It is kept when the server moves, and the refusal says why.
    let path = format!("/compute/v2.1/servers/{fast}/action");
    let body = json!({"os-migrateLive": {"host": "three", "block_migration": "auto"}});
    let refused = r.admin.at("compute 2.64").post(&path, &body).await;
    assert_eq!(refused.status, 400, "{}", refused.text);
    assert!(refused.text.contains("CUSTOM_FAST"), "{}", refused.text);

    let path = format!("/image/v2/images/{}", r.image);
    let wants = json!([{"op": "add", "path": "/trait:CUSTOM_FAST", "value": "required"}]);
    let patch = [("content-type", "application/openstack-images-v2.1-json-patch")];
    let patched = r
        .admin
        .send(http::Method::PATCH, &path, &patch, wants.to_string().into_bytes())
        .await;
    assert_eq!(patched.status, 200, "{}", patched.text);
    let (_, host) = create(&r, &r.server("image", "tiny")).await;
    assert_eq!(host, "two");
    let unwanted = json!([{"op": "remove", "path": "/trait:CUSTOM_FAST"}]);
    let patched = r
        .admin
        .send(http::Method::PATCH, &path, &patch, unwanted.to_string().into_bytes())
        .await;
    assert_eq!(patched.status, 200, "{}", patched.text);

    // Groups that only wish: together, although others are emptier; apart, until there are more than hosts.
    let group = async |policy: &str| {
        let body = json!({"server_group": {"name": policy, "policy": policy}});
        let admin = r.admin.at("compute 2.64");
        let made = admin.post("/compute/v2.1/os-server-groups", &body).await.expect(200);
        id(&made, "/server_group/id")
    };
    for (policy, expected) in [("soft-affinity", 1), ("soft-anti-affinity", 3)] {
        let group = group(policy).await;
        let mut hosts = std::collections::BTreeSet::new();
        for n in 0..4 {
            let mut body = r.server(&format!("{policy}{n}"), "tiny");
            body["os:scheduler_hints"] = json!({"group": group});
            hosts.insert(create(&r, &body).await.1);
        }
        assert_eq!(hosts.len(), expected, "{policy}: {hosts:?}");
    }

    // An aggregate's metadata.
    let body = json!({"aggregate": {"name": "ssd", "availability_zone": null}});
    let made = r.admin.post("/compute/v2.1/os-aggregates", &body).await.expect(200);
    let path = format!("/compute/v2.1/os-aggregates/{}/action", made["aggregate"]["id"]);
    r.admin
        .post(&path, &json!({"add_host": {"host": "three"}}))
        .await
        .expect(200);
    let metadata = json!({"set_metadata": {"metadata": {"disk": "ssd"}}});
    r.admin.post(&path, &metadata).await.expect(200);
    flavor(&r.admin, "ssd", json!({"aggregate_instance_extra_specs:disk": "ssd"})).await;
    let (_, host) = create(&r, &r.server("ssd", "ssd")).await;
    assert_eq!(host, "three");
    r.cloud.audit().await;
}
