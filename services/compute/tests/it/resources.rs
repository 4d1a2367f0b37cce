//! Everything beside the servers themselves.

use crate::lab::{ADMIN, DEMO, FakeHost, Lab, OTHER};
use http::Method;
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flavors() {
    let lab = Lab::start().await;
    let made = lab
        .post(ADMIN, "2.96", "/v2.1/flavors", json!({"flavor": {"name": "secret", "id": "auto", "ram": "256", "vcpus": 1, "disk": 0, "os-flavor-access:is_public": false}}), 200)
        .await;
    let id = made["flavor"]["id"].as_str().unwrap().to_owned();
    assert_eq!(
        (&made["flavor"]["ram"], &made["flavor"]["swap"]),
        (&json!(256), &json!(0))
    );
    assert_eq!(
        lab.call(DEMO, "2.1", Method::GET, &format!("/v2.1/flavors/{id}"), None)
            .await
            .status,
        404
    );
    lab.post(
        ADMIN,
        "2.96",
        &format!("/v2.1/flavors/{id}/action"),
        json!({"addTenantAccess": {"tenant": "demo"}}),
        200,
    )
    .await;
    assert_eq!(
        lab.get(DEMO, "2.1", &format!("/v2.1/flavors/{id}")).await["flavor"]["swap"],
        ""
    );
    let list = lab.get(ADMIN, "2.96", "/v2.1/flavors?is_public=none").await;
    assert_eq!(list["flavors"].as_array().unwrap().len(), 4);
    for (who, sees) in [(DEMO, 4), (OTHER, 3)] {
        let list = lab.get(who, "2.96", "/v2.1/flavors").await;
        assert_eq!(list["flavors"].as_array().unwrap().len(), sees, "{who}: {list}");
    }
    let page = lab
        .get(
            DEMO,
            "2.96",
            "/v2.1/flavors/detail?limit=2&sort_key=vcpus&sort_dir=desc",
        )
        .await;
    assert_eq!(page["flavors"][0]["id"], "9");
    let next = page["flavors_links"][0]["href"]
        .as_str()
        .unwrap()
        .split("/compute")
        .nth(1)
        .unwrap()
        .to_owned();
    let rest = lab.get(DEMO, "2.96", &next).await;
    assert_eq!(rest["flavors"].as_array().unwrap().len(), 2);
    assert!(rest["flavors_links"].is_null());
    lab.post(
        ADMIN,
        "2.96",
        "/v2.1/flavors/1/os-extra_specs",
        json!({"extra_specs": {"hw:cpu_policy": "shared", "a": "b"}}),
        200,
    )
    .await;
    assert_eq!(
        lab.get(DEMO, "2.61", "/v2.1/flavors/1").await["flavor"]["extra_specs"]["a"],
        "b"
    );
    assert!(lab.get(DEMO, "2.60", "/v2.1/flavors/1").await["flavor"]["extra_specs"].is_null());
    assert_eq!(
        lab.call(ADMIN, "2.96", Method::DELETE, "/v2.1/flavors/1/os-extra_specs/a", None)
            .await
            .status,
        200
    );
    let put = lab
        .call(
            ADMIN,
            "2.96",
            Method::PUT,
            "/v2.1/flavors/1",
            Some(json!({"flavor": {"description": "small"}})),
        )
        .await;
    assert_eq!(put.body["flavor"]["description"], "small");
    assert_eq!(
        lab.call(ADMIN, "2.96", Method::DELETE, &format!("/v2.1/flavors/{id}"), None)
            .await
            .status,
        202
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keypairs() {
    let lab = Lab::start().await;
    let host = FakeHost::join(&lab, 8, 8192, 100).await;
    let made = lab
        .post(
            DEMO,
            "2.1",
            "/v2.1/os-keypairs",
            json!({"keypair": {"name": "gen"}}),
            200,
        )
        .await;
    assert!(made["keypair"]["private_key"].as_str().unwrap().contains("PRIVATE KEY"));
    let public = made["keypair"]["public_key"].clone();
    let imported = lab
        .post(
            DEMO,
            "2.92",
            "/v2.1/os-keypairs",
            json!({"keypair": {"name": "me@x.y", "public_key": public}}),
            201,
        )
        .await;
    assert_eq!(imported["keypair"]["fingerprint"], made["keypair"]["fingerprint"]);
    assert_eq!(imported["keypair"]["type"], "ssh");
    lab.post(
        DEMO,
        "2.92",
        "/v2.1/os-keypairs",
        json!({"keypair": {"name": "me@x.y", "public_key": public}}),
        409,
    )
    .await;
    assert_eq!(lab.get(OTHER, "2.96", "/v2.1/os-keypairs").await["keypairs"], json!([]));
    assert_eq!(
        lab.get(ADMIN, "2.96", "/v2.1/os-keypairs?user_id=alice").await["keypairs"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
    let page = lab.get(DEMO, "2.35", "/v2.1/os-keypairs?limit=1").await;
    assert_eq!(page["keypairs"][0]["keypair"]["name"], "gen");
    assert!(
        page["keypairs_links"][0]["href"]
            .as_str()
            .unwrap()
            .contains("marker=gen")
    );
    let body = json!({"server": {"name": "k", "flavorRef": "1", "imageRef": lab.image, "networks": "none", "key_name": "gen"}});
    let id = lab.post(DEMO, "2.96", "/v2.1/servers", body, 202).await["server"]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    lab.wait(&id, "ACTIVE").await;
    assert_eq!(
        host.guest(&id).unwrap().metadata.public_keys[0].key,
        public.as_str().unwrap()
    );
    assert_eq!(
        lab.call(DEMO, "2.96", Method::DELETE, "/v2.1/os-keypairs/gen", None)
            .await
            .status,
        204
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_hangs_below_a_server() {
    let lab = Lab::start().await;
    let host = FakeHost::join(&lab, 8, 8192, 100).await;
    let body = json!({"server": {"name": "s", "flavorRef": "1", "imageRef": lab.image, "networks": [{"uuid": lab.network, "tag": "nic1"}]}});
    let id = lab.post(DEMO, "2.96", "/v2.1/servers", body, 202).await["server"]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    lab.wait(&id, "ACTIVE").await;
    let at = |p: &str| format!("/v2.1/servers/{id}{p}");
    lab.post(DEMO, "2.96", &at("/metadata"), json!({"metadata": {"a": "1"}}), 200)
        .await;
    assert_eq!(
        lab.call(
            DEMO,
            "2.96",
            Method::PUT,
            &at("/metadata/b"),
            Some(json!({"meta": {"b": "2"}}))
        )
        .await
        .status,
        200
    );
    assert_eq!(
        lab.get(DEMO, "2.96", &at("/metadata")).await["metadata"],
        json!({"a": "1", "b": "2"})
    );
    assert_eq!(
        lab.call(DEMO, "2.96", Method::DELETE, &at("/metadata/a"), None)
            .await
            .status,
        204
    );
    lab.wait(&id, "ACTIVE").await;
    let only_b = [("b".to_owned(), "2".to_owned())].into();
    host.comes_to(&id, |g| g.metadata.meta == only_b).await;
    assert_eq!(
        lab.call(DEMO, "2.96", Method::PUT, &at("/tags/x"), None).await.status,
        201
    );
    assert_eq!(
        lab.call(DEMO, "2.96", Method::PUT, &at("/tags/x"), None).await.status,
        204
    );
    assert_eq!(
        lab.get(DEMO, "2.96", "/v2.1/servers?tags=x").await["servers"][0]["id"],
        id
    );
    assert_eq!(
        lab.get(DEMO, "2.96", "/v2.1/servers?not-tags-any=x").await["servers"],
        json!([])
    );
    let ips = lab.get(DEMO, "2.96", &at("/ips")).await;
    let ip = ips["addresses"]["private"][0]["addr"].as_str().unwrap().to_owned();
    assert_eq!(
        lab.get(DEMO, "2.96", &format!("/v2.1/servers?ip={}", ip.replace('.', "%5C.")))
            .await["servers"][0]["id"],
        id
    );
    assert_eq!(lab.get(DEMO, "2.96", "/v2.1/servers?ip=99").await["servers"], json!([]));
    let nics = lab.get(DEMO, "2.70", &at("/os-interface")).await;
    assert_eq!(
        (
            &nics["interfaceAttachments"][0]["tag"],
            &nics["interfaceAttachments"][0]["fixed_ips"][0]["ip_address"]
        ),
        (&json!("nic1"), &json!(ip))
    );
    assert_eq!(
        lab.get(DEMO, "2.96", &at("/os-volume_attachments")).await["volumeAttachments"],
        json!([])
    );
    assert_eq!(
        lab.get(DEMO, "2.96", &at("/os-security-groups")).await["security_groups"][0]["name"],
        "default"
    );
    assert_eq!(lab.get(ADMIN, "2.48", &at("/diagnostics")).await["state"], "running");
    let put = lab
        .call(
            DEMO,
            "2.96",
            Method::PUT,
            &at(""),
            Some(json!({"server": {"name": "renamed", "description": null}})),
        )
        .await;
    assert_eq!(
        (put.status.as_u16(), &put.body["server"]["name"]),
        (200, &json!("renamed"))
    );
    assert_eq!(
        lab.get(DEMO, "2.96", "/v2.1/servers?name=%5Eren").await["servers"][0]["id"],
        id
    );
    lab.audit().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn administrators() {
    let lab = Lab::start().await;
    let host = FakeHost::join(&lab, 8, 8192, 100).await;
    let id = lab.create("a", "1").await;
    lab.wait(&id, "ACTIVE").await;
    let new = lab
        .get(ADMIN, "2.96", "/v2.1/os-hypervisors/detail?with_servers=true")
        .await;
    assert_eq!(new["hypervisors"][0]["id"], host.id());
    assert_eq!(new["hypervisors"][0]["servers"][0]["uuid"], id);
    assert!(new["hypervisors"][0]["vcpus"].is_null());
    let old = lab.get(ADMIN, "2.28", "/v2.1/os-hypervisors/1").await;
    assert_eq!(
        (&old["hypervisor"]["vcpus_used"], &old["hypervisor"]["running_vms"]),
        (&json!(1), &json!(1))
    );
    assert_eq!(old["hypervisor"]["cpu_info"]["arch"], "x86_64");
    assert!(lab.get(ADMIN, "2.27", "/v2.1/os-hypervisors/1").await["hypervisor"]["cpu_info"].is_string());
    assert_eq!(
        lab.get(ADMIN, "2.87", "/v2.1/os-hypervisors/statistics").await["hypervisor_statistics"]["memory_mb_used"],
        512
    );
    let services = lab.get(ADMIN, "2.96", "/v2.1/os-services").await;
    let sid = services["services"][0]["id"].as_str().unwrap().to_owned();
    assert_eq!(services["services"][0]["state"], "up");
    let off = lab
        .call(
            ADMIN,
            "2.96",
            Method::PUT,
            &format!("/v2.1/os-services/{sid}"),
            Some(json!({"status": "disabled", "disabled_reason": "rest"})),
        )
        .await;
    assert_eq!(off.body["service"]["disabled_reason"], "rest");
    assert_eq!(lab.server(&id).await["host_status"], "MAINTENANCE");
    let none = lab.create("b", "1").await;
    let s = lab.wait(&none, "ERROR").await;
    assert!(
        s["fault"]["message"]
            .as_str()
            .unwrap()
            .contains("ComputeFilter refused 1")
    );
    let name = services["services"][0]["host"].as_str().unwrap();
    let on = lab
        .call(
            ADMIN,
            "2.1",
            Method::PUT,
            "/v2.1/os-services/enable",
            Some(json!({"host": name, "binary": "nova-compute"})),
        )
        .await;
    assert_eq!(on.body["service"]["status"], "enabled");
    assert_eq!(
        lab.call(ADMIN, "2.96", Method::DELETE, &format!("/v2.1/os-services/{sid}"), None)
            .await
            .status,
        409
    );
    assert_eq!(
        lab.get(DEMO, "2.1", "/v2.1/os-availability-zone").await["availabilityZoneInfo"][0]["zoneState"]["available"],
        true
    );
    assert!(
        !lab.get(DEMO, "2.1", "/v2.1/extensions").await["extensions"]
            .as_array()
            .unwrap()
            .is_empty()
    );
    let q = lab
        .call(
            ADMIN,
            "2.96",
            Method::PUT,
            "/v2.1/os-quota-sets/demo",
            Some(json!({"quota_set": {"instances": 3}})),
        )
        .await;
    assert_eq!(q.body["quota_set"]["instances"], 3);
    assert_eq!(
        lab.get(DEMO, "2.96", "/v2.1/os-quota-sets/demo/detail").await["quota_set"]["instances"],
        json!({"limit": 3, "in_use": 2, "reserved": 0})
    );
    assert_eq!(
        lab.call(ADMIN, "2.96", Method::DELETE, "/v2.1/os-quota-sets/demo", None)
            .await
            .status,
        202
    );
    assert_eq!(
        lab.get(DEMO, "2.96", "/v2.1/os-quota-sets/demo").await["quota_set"]["instances"],
        20
    );
    let usage = lab.get(DEMO, "2.40", "/v2.1/os-simple-tenant-usage/demo").await;
    assert_eq!(usage["tenant_usage"]["server_usages"].as_array().unwrap().len(), 1);
    lab.post(
        ADMIN,
        "2.96",
        &format!("/v2.1/servers/{id}/action"),
        json!({"os-resetState": {"state": "error"}}),
        202,
    )
    .await;
    assert_eq!(lab.server(&id).await["status"], "ERROR");
    lab.audit().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn aggregates_make_zones() {
    let lab = Lab::start().await;
    let (one, two) = (
        FakeHost::join(&lab, 8, 8192, 100).await,
        FakeHost::join(&lab, 8, 8192, 100).await,
    );
    let name = |h: &FakeHost| format!("secret-host-{}", &h.id()[..4]);
    let path = "/v2.1/os-aggregates";
    let make = async |n: &str, zone: Option<&str>, status| {
        let body = json!({"aggregate": {"name": n, "availability_zone": zone}});
        lab.post(ADMIN, "2.41", path, body, status).await
    };
    let made = make("  fast ", Some("east"), 200).await;
    let a = &made["aggregate"];
    assert_eq!((&a["name"], &a["availability_zone"]), (&json!("fast"), &json!("east")));
    assert!(
        a["uuid"].is_string() && a["hosts"].is_null() && a["updated_at"].is_null(),
        "{a}"
    );
    let id = a["id"].as_i64().unwrap();
    make("fast", None, 409).await;
    make("a:b", Some("a:b"), 400).await;
    let other = make("slow", Some("west"), 200).await["aggregate"]["id"]
        .as_i64()
        .unwrap();
    lab.call(DEMO, "2.41", Method::GET, path, None).await;
    assert_eq!(lab.call(DEMO, "2.41", Method::GET, path, None).await.status, 403);
    for bad in ["-1", "99"] {
        let gone = lab
            .call(ADMIN, "2.41", Method::DELETE, &format!("{path}/{bad}"), None)
            .await;
        assert_eq!(gone.status, 404);
    }
    let act = async |id: i64, body: Value, status| {
        lab.post(ADMIN, "2.41", &format!("{path}/{id}/action"), body, status)
            .await
    };
    // A zone without hosts is none.
    let create = |zone: &str| json!({"server": {"name": "z", "flavorRef": "1", "imageRef": lab.image, "networks": "none", "availability_zone": zone}});
    lab.post(DEMO, "2.96", "/v2.1/servers", create("east"), 400).await;
    let with = act(id, json!({"add_host": {"host": name(&one)}}), 200).await;
    assert_eq!(with["aggregate"]["hosts"], json!([name(&one)]));
    assert_eq!(with["aggregate"]["metadata"], json!({"availability_zone": "east"}));
    act(id, json!({"add_host": {"host": name(&one)}}), 409).await;
    act(id, json!({"add_host": {"host": "nowhere"}}), 404).await;
    act(id, json!({"remove_host": {"host": name(&two)}}), 404).await;
    // A host is in one zone at the most.
    let clash = act(other, json!({"add_host": {"host": name(&one)}}), 409).await;
    assert!(clash.to_string().contains("zone(s) east"), "{clash}");
    let zones = lab.get(DEMO, "2.96", "/v2.1/os-availability-zone").await;
    let names: Vec<&str> = zones["availabilityZoneInfo"]
        .as_array()
        .unwrap()
        .iter()
        .map(|z| z["zoneName"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["nova", "east"]);
    // Servers go where their zone is, and say so.
    for (zone, host) in [("east", &one), ("nova", &two)] {
        let made = lab.post(DEMO, "2.96", "/v2.1/servers", create(zone), 202).await;
        let s = lab.wait(made["server"]["id"].as_str().unwrap(), "ACTIVE").await;
        assert_eq!(s["OS-EXT-AZ:availability_zone"], zone);
        assert_eq!(s["OS-EXT-SRV-ATTR:host"], name(host));
    }
    let hosts = lab.get(ADMIN, "2.42", "/v2.1/os-hosts?zone=east").await;
    assert_eq!(
        hosts["hosts"],
        json!([{"host_name": name(&one), "service": "compute", "zone": "east"}])
    );
    let shown = lab.get(ADMIN, "2.42", &format!("/v2.1/os-hosts/{}", name(&one))).await;
    let of = |n: usize| shown["host"][n]["resource"].clone();
    assert_eq!((&of(0)["project"], &of(0)["cpu"]), (&json!("(total)"), &json!(8)));
    assert_eq!(
        (&of(1)["cpu"], &of(2)["memory_mb"], &of(3)["project"]),
        (&json!(1), &json!(512), &json!("demo"))
    );
    // Metadata come and go; the zone with them, and its servers with the zone.
    let set = act(
        id,
        json!({"set_metadata": {"metadata": {"disk": "ssd", "availability_zone": "north"}}}),
        200,
    )
    .await;
    assert_eq!(
        set["aggregate"]["metadata"],
        json!({"availability_zone": "north", "disk": "ssd"})
    );
    let moved = lab
        .get(
            ADMIN,
            "2.96",
            "/v2.1/servers/detail?all_tenants=1&availability_zone=north",
        )
        .await;
    assert_eq!(moved["servers"].as_array().unwrap().len(), 1);
    let set = act(id, json!({"set_metadata": {"metadata": {"disk": null}}}), 200).await;
    assert_eq!(set["aggregate"]["metadata"], json!({"availability_zone": "north"}));
    let full = lab
        .call(ADMIN, "2.41", Method::DELETE, &format!("{path}/{id}"), None)
        .await;
    assert!(
        full.status == 400 && full.body.to_string().contains("not empty"),
        "{}",
        full.body
    );
    act(id, json!({"remove_host": {"host": name(&one)}}), 200).await;
    for id in [id, other] {
        let gone = lab
            .call(ADMIN, "2.41", Method::DELETE, &format!("{path}/{id}"), None)
            .await;
        assert_eq!(gone.status, 200);
    }
    assert_eq!(lab.get(ADMIN, "2.41", path).await["aggregates"], json!([]));
    lab.audit().await;
}

/// 2.102 and 2.104: flavors by name, no query where there is nothing to ask, a server's zone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn newest() {
    let lab = Lab::start().await;
    let _host = FakeHost::join(&lab, 8, 8192, 100).await;
    let names = |v: Value| -> Vec<String> {
        let list = v["flavors"].as_array().unwrap().clone();
        list.iter().map(|f| f["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(
        names(lab.get(DEMO, "2.102", "/v2.1/flavors?name=%5Ef%5B12%5D").await),
        ["f1", "f2"]
    );
    assert_eq!(
        names(lab.get(DEMO, "2.102", "/v2.1/flavors?name=f&limit=1").await),
        ["f1"]
    );
    let one = lab.get(DEMO, "2.102", "/v2.1/flavors/1").await;
    assert!(one["flavor"].get("rxtx_factor").is_none() && one["flavor"].get("OS-FLV-DISABLED:disabled").is_none());
    assert!(
        lab.get(DEMO, "2.101", "/v2.1/flavors/1?x=1").await["flavor"]
            .get("rxtx_factor")
            .is_some()
    );
    let factor = json!({"flavor": {"name": "x", "vcpus": 1, "ram": 1, "disk": 0, "rxtx_factor": 1.0}});
    lab.post(ADMIN, "2.102", "/v2.1/flavors", factor, 400).await;
    for path in [
        "/v2.1/flavors?name=%5B",
        "/v2.1/flavors?sort_key=rxtx_factor",
        "/v2.1/flavors/1?x=1",
        "/v2.1/os-availability-zone?x=1",
    ] {
        assert_eq!(
            lab.call(DEMO, "2.102", Method::GET, path, None).await.status,
            400,
            "{path}"
        );
    }

    let id = lab.create("s", "1").await;
    let s = lab.wait(&id, "ACTIVE").await;
    let zone = s["OS-EXT-AZ:availability_zone"].clone();
    let path = format!("/v2.1/servers/{id}");
    for (wanted, status) in [
        (json!("elsewhere"), 409),
        (zone.clone(), 200),
        (zone.clone(), 200),
        (json!("elsewhere"), 409),
        (Value::Null, 200),
        (Value::Null, 200),
    ] {
        let body = json!({"server": {"pinned_availability_zone": wanted}});
        let put = lab.call(DEMO, "2.104", Method::PUT, &path, Some(body.clone())).await;
        assert_eq!(put.status, status, "{wanted}: {}", put.body);
        if status == 200 {
            assert_eq!(put.body["server"]["pinned_availability_zone"], wanted);
        }
        assert_eq!(
            lab.call(DEMO, "2.103", Method::PUT, &path, Some(body)).await.status,
            400
        );
    }
}
