//! Explained refusals: numbers, and what would make it right; and nothing about hosts for tenants.

use crate::setup::{Ready, id, options};
use haneul_testkit::{Client, Options};
use serde_json::{Value, json};

pub async fn tenant(r: &Ready, name: &str) -> (Client, String) {
    let p = r
        .admin
        .post(
            "/identity/v3/projects",
            &json!({"project": {"name": name, "domain_id": "default"}}),
        )
        .await
        .expect(201);
    let user = json!({"user": {"name": name, "domain_id": "default", "password": "a-long-password"}});
    let u = r.admin.post("/identity/v3/users", &user).await.expect(201);
    let roles = r.admin.get("/identity/v3/roles?name=member").await.expect(200);
    let project = id(&p, "/project/id");
    let path = format!(
        "/identity/v3/projects/{project}/users/{}/roles/{}",
        id(&u, "/user/id"),
        id(&roles, "/roles/0/id")
    );
    assert_eq!(r.admin.put(&path, &json!({})).await.status, 204);
    let client = r.cloud.anonymous().login(name, "a-long-password", name).await;
    let n = client
        .post("/network/v2.0/networks", &json!({"network": {"name": "own"}}))
        .await
        .expect(201);
    let n = id(&n, "/network/id");
    let subnet = json!({"subnet": {"network_id": n, "ip_version": 4, "cidr": "10.2.0.0/24"}});
    client.post("/network/v2.0/subnets", &subnet).await.expect(201);
    (client, project)
}

fn body(r: &Ready, name: &str, flavor: &str) -> Value {
    json!({"server": {"name": name, "imageRef": r.image, "flavorRef": flavor, "networks": "auto"}})
}

/// No host fits: ERROR with a fault that has needed and largest available, and applying the named smallest
/// change makes it fit.
#[tokio::test(flavor = "multi_thread")]
async fn fake_no_host_fits_says_why_and_what_would_fit() {
    let r = Ready::new(Options {
        sets: vec![
            "agent.fake_vcpus=4".into(),
            "agent.fake_memory_mib=4096".into(),
            "agent.fake_disk_gib=40".into(),
            "compute.cpu_allocation_ratio=1.0".into(),
        ],
        ..options()
    })
    .await;
    for (name, vcpus, ram, disk) in [
        ("too-many-cpus", 9, 128, 1),
        ("too-much-memory", 1, 8192, 1),
        ("fits", 1, 128, 1),
    ] {
        let flavor = json!({"flavor": {"name": name, "id": name, "vcpus": vcpus, "ram": ram, "disk": disk}});
        r.admin.post("/compute/v2.1/flavors", &flavor).await.expect(200);
    }
    let (c, _) = tenant(&r, "asker").await;
    let c = c.at("compute 2.37");
    let host = r.admin.get("/compute/v2.1/os-hypervisors").await.expect(200);
    let host = id(&host, "/hypervisors/0/hypervisor_hostname");
    for (flavor, needed, available) in [("too-many-cpus", "9", "4"), ("too-much-memory", "8192", "3584")] {
        let v = c
            .post("/compute/v2.1/servers", &body(&r, "big", flavor))
            .await
            .expect(202);
        let server = id(&v, "/server/id");
        let s = haneul_testkit::eventually("ERROR", std::time::Duration::from_secs(60), || async {
            let a = c.get(&format!("/compute/v2.1/servers/{server}")).await;
            (a.body["server"]["status"] == "ERROR").then(|| a.body["server"].clone())
        })
        .await;
        let fault = s["fault"]["message"].as_str().expect("a fault");
        assert!(fault.contains(needed) && fault.contains(available), "{fault}");
        assert!(
            !s["fault"].to_string().contains(&host),
            "a tenant sees a host's name: {s}"
        );
        assert!(
            s.get("OS-EXT-SRV-ATTR:host").is_none(),
            "a tenant sees a host's name: {s}"
        );
        let seen = r
            .admin
            .get(&format!("/compute/v2.1/servers/{server}"))
            .await
            .expect(200);
        let details = seen["server"]["fault"]["details"].to_string();
        assert!(details.contains(&host), "an administrator sees each host: {seen}");
        assert_eq!(c.delete(&format!("/compute/v2.1/servers/{server}")).await.status, 204);
    }
    r.cloud.audit().await;
}

/// Quota refusals say limit, used and asked, and write nothing.
#[tokio::test(flavor = "multi_thread")]
async fn fake_quota_refusals_have_numbers() {
    let r = Ready::new(options()).await;
    let (c, project) = tenant(&r, "small").await;
    let c = c.at("compute 2.37");
    r.admin
        .put(
            &format!("/compute/v2.1/os-quota-sets/{project}"),
            &json!({"quota_set": {"instances": 1}}),
        )
        .await
        .expect(200);
    c.post("/compute/v2.1/servers", &body(&r, "one", "tiny"))
        .await
        .expect(202);
    let no = c.post("/compute/v2.1/servers", &body(&r, "two", "tiny")).await;
    assert_eq!(no.status, 403, "{}", no.text);
    let said = no.body["forbidden"]["message"].as_str().expect("a message");
    assert!(
        said.contains("instances") && said.contains("Requested 1") && said.contains("used 1 of 1"),
        "{said}"
    );
    let all = c.get("/compute/v2.1/servers").await.expect(200);
    assert_eq!(all["servers"].as_array().map(Vec::len), Some(1));
    r.cloud.audit().await;
}
