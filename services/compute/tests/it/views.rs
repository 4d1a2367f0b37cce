//! What a server shows at the microversions where that changes.

use crate::lab::{ADMIN, DEMO, FakeHost, Lab};
use http::Method;
use serde_json::{Value, json};
use std::collections::BTreeSet;

fn keys(v: &Value) -> BTreeSet<String> {
    v.as_object().unwrap().keys().cloned().collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fields_by_microversion() {
    let lab = Lab::start().await;
    FakeHost::join(&lab, 8, 8192, 100).await;
    let id = lab.create("a", "1").await;
    lab.wait(&id, "ACTIVE").await;
    let path = format!("/v2.1/servers/{id}");
    let mut before = keys(&lab.get(ADMIN, "2.1", &path).await["server"]);
    for (version, added) in [
        (
            "2.3",
            &[
                "OS-EXT-SRV-ATTR:hostname",
                "OS-EXT-SRV-ATTR:kernel_id",
                "OS-EXT-SRV-ATTR:launch_index",
                "OS-EXT-SRV-ATTR:ramdisk_id",
                "OS-EXT-SRV-ATTR:reservation_id",
                "OS-EXT-SRV-ATTR:root_device_name",
                "OS-EXT-SRV-ATTR:user_data",
            ][..],
        ),
        ("2.8", &[]),
        ("2.9", &["locked"]),
        ("2.15", &[]),
        ("2.16", &["host_status"]),
        ("2.19", &["description"]),
        ("2.26", &["tags"]),
        ("2.63", &["trusted_image_certificates"]),
        ("2.71", &["server_groups"]),
        ("2.73", &["locked_reason"]),
        ("2.90", &[]),
        ("2.96", &["pinned_availability_zone"]),
        ("2.99", &[]),
        ("2.104", &["scheduler_hints"]),
    ] {
        let now = keys(&lab.get(ADMIN, version, &path).await["server"]);
        let new: Vec<&String> = now.difference(&before).collect();
        assert_eq!(new, added.iter().collect::<Vec<_>>(), "{version}");
        assert!(before.is_subset(&now), "{version}");
        before = now;
    }
    // Tenants get no attributes of the host, and the name inside the guest from 2.90 on.
    let tenant = keys(&lab.get(DEMO, "2.89", &path).await["server"]);
    assert!(
        !tenant
            .iter()
            .any(|k| k.starts_with("OS-EXT-SRV-ATTR") || k == "host_status"),
        "{tenant:?}"
    );
    assert!(keys(&lab.get(DEMO, "2.90", &path).await["server"]).contains("OS-EXT-SRV-ATTR:hostname"));
    assert_eq!(lab.get(DEMO, "2.46", &path).await["server"]["flavor"]["id"], "1");
    assert_eq!(
        lab.get(DEMO, "2.47", &path).await["server"]["flavor"]["original_name"],
        "f1"
    );
    let image = lab.get(DEMO, "2.97", &path).await["server"]["image"].take();
    assert!(image["properties"].is_null());
    let image = lab.get(DEMO, "2.98", &path).await["server"]["image"].take();
    assert!(image["properties"].is_object());
    let list = lab.get(ADMIN, "2.96", "/v2.1/servers/detail?all_tenants=1").await;
    assert!(list["servers"][0]["server_groups"].is_null() && list["servers"][0]["pinned_availability_zone"].is_null());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn versions_and_headers() {
    let lab = Lab::start().await;
    for path in ["/", "/v2.1", "/v2.1/"] {
        let a = lab.call("", "2.1", Method::GET, path, None).await;
        assert_eq!(a.status, 200, "{path}");
        let v = if path == "/" {
            &a.body["versions"][1]
        } else {
            &a.body["version"]
        };
        assert_eq!(
            (&v["version"], &v["min_version"], &v["status"]),
            (&json!("2.104"), &json!("2.1"), &json!("CURRENT"))
        );
    }
    let a = lab.call(DEMO, "latest", Method::GET, "/v2.1/servers", None).await;
    assert_eq!(a.headers["openstack-api-version"], "compute 2.104");
    assert_eq!(a.headers["x-openstack-nova-api-version"], "2.104");
    assert!(
        a.headers["x-openstack-request-id"]
            .to_str()
            .unwrap()
            .starts_with("req-")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_and_filters() {
    let lab = Lab::with(|c| c.compute.quota_instances = -1).await;
    FakeHost::join(&lab, 64, 65536, 1000).await;
    for i in 0..7 {
        let id = lab.create(&format!("s{i}"), if i % 2 == 0 { "1" } else { "2" }).await;
        lab.wait(&id, "ACTIVE").await;
    }
    let mut path = "/v2.1/servers?limit=3&sort_key=display_name&sort_dir=asc".to_owned();
    let mut names = Vec::new();
    loop {
        let page = lab.get(DEMO, "2.96", &path).await;
        names.extend(
            page["servers"]
                .as_array()
                .unwrap()
                .iter()
                .map(|s| s["name"].as_str().unwrap().to_owned()),
        );
        match page["servers_links"][0]["href"].as_str() {
            Some(next) => path = next.split("/compute").nth(1).unwrap().to_owned(),
            None => break,
        }
    }
    assert_eq!(names, ["s0", "s1", "s2", "s3", "s4", "s5", "s6"]);
    for (query, n) in [
        ("flavor=2", 3),
        ("status=ACTIVE", 7),
        ("status=active&status=error", 7),
        ("status=SHUTOFF", 0),
        ("name=s%5B0-2%5D", 3),
        ("name=S1", 1),
        ("image=IMAGE", 7),
        ("not-tags=x", 7),
        ("changes-since=2020-01-01T00:00:00Z", 7),
        ("changes-before=2020-01-01T00:00:00Z", 0),
        ("vm_state=active", 7),
        ("power_state=1", 7),
        ("locked=true", 0),
        ("user_id=alice", 7),
        ("name=s&limit=2", 2),
        ("deleted=true", 7),
    ] {
        let path = format!("/v2.1/servers/detail?{}", query.replace("IMAGE", &lab.image));
        let list = lab.get(DEMO, "2.96", &path).await;
        assert_eq!(list["servers"].as_array().unwrap().len(), n, "{query}");
    }
    assert_eq!(
        lab.get(ADMIN, "2.96", "/v2.1/servers?deleted=true&all_tenants=1").await["servers"],
        json!([])
    );
    assert_eq!(lab.get(ADMIN, "2.96", "/v2.1/servers").await["servers"], json!([]));
    let name = lab.get(ADMIN, "2.96", "/v2.1/os-services").await["services"][0]["host"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(
        lab.get(ADMIN, "2.96", &format!("/v2.1/servers?all_tenants=1&host={name}"))
            .await["servers"]
            .as_array()
            .unwrap()
            .len(),
        7
    );
}

/// Every route: 401 without a token; and with another project's token nothing of a server is seen.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sweep() {
    let lab = Lab::start().await;
    FakeHost::join(&lab, 8, 8192, 100).await;
    let id = lab.create("a", "1").await;
    lab.wait(&id, "ACTIVE").await;
    let before = lab.rows().await;
    for r in lab.compute.routes().infos() {
        let path = r.path.strip_prefix("/compute").unwrap().to_owned();
        if r.rule == "public" {
            continue;
        }
        let concrete = path.replace("{id}", &id).replace(['{', '}'], "x");
        let version = r.until.map_or("2.104".to_owned(), |u| u.to_string());
        let a = lab
            .call("none", &version, r.method.clone(), &concrete, Some(json!({})))
            .await;
        assert_eq!(a.status, 401, "{} {path}", r.method);
        if path.contains("/servers/{id}") {
            let body = if path.ends_with("/action") {
                json!({"os-stop": null})
            } else {
                json!({"remote_console": {"protocol": "vnc", "type": "novnc"}})
            };
            let body = match () {
                () if path.ends_with("remote-consoles") || path.ends_with("/action") => body,
                () if path.ends_with("/tags") => json!({"tags": []}),
                () if path.ends_with("/os-interface") => json!({"interfaceAttachment": {}}),
                () if path.contains("metadata/") => json!({"meta": {"xkeyx": "v"}}),
                () if path.ends_with("/metadata") => json!({"metadata": {}}),
                () => json!({"server": {}}),
            };
            let a = lab
                .call(crate::lab::OTHER, &version, r.method.clone(), &concrete, Some(body))
                .await;
            // What was removed from Nova is gone for everybody.
            let hidden = if r.handler.ends_with("::gone") { 410 } else { 404 };
            assert_eq!(a.status, hidden, "{} {path}: {}", r.method, a.body);
            let missing = lab
                .call(
                    crate::lab::OTHER,
                    &version,
                    r.method.clone(),
                    &concrete.replace(&id, "11111111-1111-4111-8111-111111111111"),
                    Some(json!({"server": {}})),
                )
                .await;
            if missing.status == 404 {
                assert_eq!(
                    a.body.to_string().replace(&id, "X"),
                    missing
                        .body
                        .to_string()
                        .replace("11111111-1111-4111-8111-111111111111", "X"),
                    "{path}"
                );
            }
        }
    }
    assert_eq!(lab.rows().await, before);
}
