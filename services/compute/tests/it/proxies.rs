//! What compute answered before the network and the image service did, and paths of before microversions.

use crate::lab::{ADMIN, Answer, DEMO, FakeHost, Lab, OTHER, READER};
use http::Method;
use serde_json::{Value, json};

async fn call(lab: &Lab, who: &str, method: Method, path: &str, body: Value) -> Answer {
    let body = (!body.is_null()).then_some(body);
    lab.call(who, "2.35", method, path, body).await
}

fn group(name: &str) -> Value {
    json!({"security_group": {"name": name, "description": "d"}})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn security_groups() {
    let lab = Lab::start().await;
    let all = "/v2.1/os-security-groups";
    let list = lab.get(DEMO, "2.1", all).await;
    assert_eq!(
        list["security_groups"][0]["name"], "default",
        "there from the first look"
    );
    let default = list["security_groups"][0]["id"].as_str().unwrap().to_owned();
    assert_eq!(
        list["security_groups"][0]["rules"][0]["group"],
        json!({"name": "default", "tenant_id": "demo"})
    );

    let web = lab.post(DEMO, "2.1", all, group(" web "), 200).await["security_group"].take();
    assert_eq!(
        (&web["name"], &web["tenant_id"], &web["rules"]),
        (&json!(" web "), &json!("demo"), &json!([]))
    );
    let at = format!("{all}/{}", web["id"].as_str().unwrap());
    assert_eq!(lab.get(READER, "2.35", &at).await["security_group"], web);
    // It is the network service's own.
    let there = format!("/network/v2.0/security-groups/{}", web["id"].as_str().unwrap());
    let seen = lab.at(DEMO, "2.1").raw(&lab, Method::GET, &there, "".into(), "").await;
    assert_eq!(seen.body["security_group"]["name"], " web ");
    let put = call(&lab, DEMO, Method::PUT, &at, group("www")).await;
    assert_eq!(
        (put.status.as_u16(), &put.body["security_group"]["name"]),
        (200, &json!("www"))
    );

    let page = lab.get(DEMO, "2.1", &format!("{all}?offset=1&limit=5")).await;
    assert_eq!(page["security_groups"].as_array().unwrap().len(), 1);
    let _ = lab.get(OTHER, "2.1", all).await;
    let count = |v: Value| v["security_groups"].as_array().unwrap().len();
    let everyones = format!("{all}?all_tenants=1");
    assert_eq!(
        count(lab.get(ADMIN, "2.1", &everyones).await),
        4,
        "with the administrator's own"
    );
    assert_eq!(count(lab.get(OTHER, "2.1", &everyones).await), 1);

    let of_default = format!("{all}/{default}");
    for (who, method, path, body, status) in [
        (DEMO, Method::GET, format!("{all}/7"), Value::Null, 400),
        (DEMO, Method::GET, format!("{all}?limit=x"), Value::Null, 400),
        (
            DEMO,
            Method::POST,
            all.to_owned(),
            json!({"security_group": {"name": "x"}}),
            400,
        ),
        (DEMO, Method::POST, all.to_owned(), group("default"), 403),
        (READER, Method::POST, all.to_owned(), group("x"), 403),
        (OTHER, Method::GET, at.clone(), Value::Null, 404),
        (OTHER, Method::PUT, at.clone(), group("x"), 404),
        (OTHER, Method::DELETE, at.clone(), Value::Null, 404),
        (DEMO, Method::DELETE, of_default.clone(), Value::Null, 400),
        (DEMO, Method::PUT, of_default, group("x"), 400),
    ] {
        let a = call(&lab, who, method.clone(), &path, body).await;
        assert_eq!(a.status, status, "{method} {path}: {}", a.body);
    }
    assert_eq!(lab.call(DEMO, "2.36", Method::GET, all, None).await.status, 404, "gone");
    assert_eq!(call(&lab, DEMO, Method::DELETE, &at, Value::Null).await.status, 202);
    assert_eq!(call(&lab, DEMO, Method::GET, &at, Value::Null).await.status, 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn security_group_rules() {
    let lab = Lab::start().await;
    let (groups, rules) = ("/v2.1/os-security-groups", "/v2.1/os-security-group-rules");
    let mut ids = Vec::new();
    for (who, name) in [(DEMO, "web"), (DEMO, "lb"), (OTHER, "theirs")] {
        let made = lab.post(who, "2.1", groups, group(name), 200).await;
        ids.push(made["security_group"]["id"].as_str().unwrap().to_owned());
    }
    let [web, lb, theirs] = ids.as_slice() else { panic!() };
    let rule = |more: Value| {
        let mut rule = json!({"parent_group_id": web, "ip_protocol": "tcp", "from_port": 22, "to_port": 22});
        rule.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"security_group_rule": rule})
    };
    let ssh = lab
        .post(DEMO, "2.1", rules, rule(json!({"cidr": "10.2.3.124/24"})), 200)
        .await["security_group_rule"]
        .take();
    assert_eq!(
        (
            &ssh["ip_range"],
            &ssh["group"],
            &ssh["to_port"],
            &ssh["parent_group_id"]
        ),
        (&json!({"cidr": "10.2.3.124/24"}), &json!({}), &json!(22), &json!(web))
    );
    let from = lab.post(DEMO, "2.1", rules, rule(json!({"group_id": lb})), 200).await;
    assert_eq!(
        from["security_group_rule"]["group"],
        json!({"name": "lb", "tenant_id": "demo"})
    );
    let ping = json!({"ip_protocol": "icmp", "from_port": -1, "to_port": -1});
    let ping = lab.post(DEMO, "2.1", rules, rule(ping), 200).await;
    assert_eq!(ping["security_group_rule"]["from_port"], -1);
    let shown = lab.get(DEMO, "2.1", &format!("{groups}/{web}")).await;
    assert_eq!(shown["security_group"]["rules"].as_array().unwrap().len(), 3);

    let before = lab.rows().await;
    let none = "0bad0bad-0bad-4bad-8bad-0bad0bad0bad";
    for (who, body, status) in [
        (DEMO, rule(json!({"cidr": "10.2.3.0/24"})), 400),
        (DEMO, rule(json!({"parent_group_id": "web"})), 400),
        (DEMO, rule(json!({"parent_group_id": none})), 404),
        (DEMO, rule(json!({"parent_group_id": theirs})), 404),
        (DEMO, rule(json!({"group_id": theirs})), 404),
        (DEMO, rule(json!({"ip_protocol": "carrier pigeon"})), 400),
        (DEMO, rule(json!({"from_port": 65536})), 400),
        (DEMO, rule(json!({"to_port": 21})), 400),
        (DEMO, rule(json!({"cidr": "10.2.3"})), 400),
        (READER, rule(json!({"to_port": 23})), 403),
    ] {
        let a = call(&lab, who, Method::POST, rules, body.clone()).await;
        assert_eq!(a.status, status, "{body}: {}", a.body);
    }
    assert_eq!(lab.rows().await, before, "what is refused changes nothing");

    let at = format!("{rules}/{}", ssh["id"].as_str().unwrap());
    for (who, path, status) in [
        (OTHER, at.clone(), 404),
        (READER, at.clone(), 403),
        (DEMO, format!("{rules}/22"), 400),
        (DEMO, at.clone(), 202),
        (DEMO, at, 404),
    ] {
        let a = call(&lab, who, Method::DELETE, &path, Value::Null).await;
        assert_eq!(a.status, status, "{path}: {}", a.body);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn security_groups_of_a_server() {
    let lab = Lab::start().await;
    let _host = FakeHost::join(&lab, 8, 8192, 100).await;
    let body =
        json!({"server": {"name": "s", "flavorRef": "1", "imageRef": lab.image, "networks": [{"uuid": lab.network}]}});
    let made = lab.post(DEMO, "2.96", "/v2.1/servers", body, 202).await;
    let id = made["server"]["id"].as_str().unwrap().to_owned();
    lab.wait(&id, "ACTIVE").await;
    let made = lab
        .post(DEMO, "2.1", "/v2.1/os-security-groups", group("web"), 200)
        .await;
    let web = made["security_group"]["id"].as_str().unwrap();
    lab.act(&id, json!({"addSecurityGroup": {"name": "web"}}), 202).await;
    let shown = lab
        .get(READER, "2.96", &format!("/v2.1/servers/{id}/os-security-groups"))
        .await;
    let names: Vec<&Value> = shown["security_groups"]
        .as_array()
        .unwrap()
        .iter()
        .map(|g| &g["name"])
        .collect();
    assert_eq!(names, ["default", "web"]);
    assert_eq!(shown["security_groups"][0]["description"], "Default security group");
    assert_eq!(shown["security_groups"][0]["rules"].as_array().unwrap().len(), 2);
    let at = format!("/v2.1/os-security-groups/{web}");
    let used = call(&lab, DEMO, Method::DELETE, &at, Value::Null).await;
    assert_eq!(used.status, 400, "{}", used.body);
    assert!(
        used.body["badRequest"]["message"]
            .as_str()
            .unwrap()
            .contains("in use by port")
    );
    lab.act(&id, json!({"removeSecurityGroup": {"name": "web"}}), 202).await;
    lab.act(&id, json!({"removeSecurityGroup": {"name": "web"}}), 404).await;
    lab.act(&id, json!({"addSecurityGroup": {"name": "nobody's"}}), 404)
        .await;
    let bare = lab.create("bare", "1").await;
    lab.wait(&bare, "ACTIVE").await;
    lab.act(&bare, json!({"addSecurityGroup": {"name": "web"}}), 404).await;
    assert_eq!(call(&lab, DEMO, Method::DELETE, &at, Value::Null).await.status, 202);
}

/// Clients of before microversions: the same servers and flavors, under their own path.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn legacy_v2() {
    let lab = Lab::start().await;
    for root in ["", "/"] {
        let all = lab.get(DEMO, "2.1", root).await;
        let ids: Vec<&Value> = all["versions"].as_array().unwrap().iter().map(|v| &v["id"]).collect();
        assert_eq!(ids, ["v2.0", "v2.1"]);
        for v in all["versions"].as_array().unwrap() {
            let href = v["links"][0]["href"].as_str().unwrap();
            let one = lab.get("nobody", "2.1", href.split("/compute").nth(1).unwrap()).await;
            assert_eq!(
                (&one["version"]["id"], &one["version"]["links"][0]["href"]),
                (&v["id"], &json!(href))
            );
        }
    }
    let flavor =
        json!({"flavor": {"name": "old", "id": "old", "vcpus": 1, "ram": 64, "disk": 0, "description": "no", "x": 1}});
    lab.post(ADMIN, "2.1", "/v2.1/flavors", flavor.clone(), 400).await;
    let made = lab.post(ADMIN, "2.90", "/v2/flavors", flavor, 200).await;
    assert_eq!(made["flavor"]["description"], Value::Null, "a field of 2.55 is dropped");
    let shown = lab.get(ADMIN, "2.90", "/v2.1/flavors/old").await;
    assert_eq!(shown["flavor"]["description"], Value::Null);
    let wrong = json!({"flavor": {"name": "old", "id": "x", "vcpus": "many", "ram": 64, "disk": 0}});
    lab.post(ADMIN, "2.1", "/v2/flavors", wrong, 400).await;
    let groups = lab
        .call(DEMO, "2.90", Method::GET, "/v2/os-security-groups", None)
        .await;
    assert_eq!(groups.status, 200, "the header does not count");
    assert!(groups.headers.get("openstack-api-version").is_none());
    for (who, path, status) in [
        ("nobody", "/v2/flavors/1", 401),
        (DEMO, "/v2/flavors/1", 200),
        (DEMO, "/v2/servers/0bad0bad-0bad-4bad-8bad-0bad0bad0bad/tags", 404),
        (DEMO, "/v2/no-such", 404),
    ] {
        assert_eq!(
            lab.call(who, "2.90", Method::GET, path, None).await.status,
            status,
            "{path}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn networks_by_their_old_names() {
    let lab = Lab::start().await;
    let labels = |v: Value| -> Vec<String> {
        let list = v["networks"].as_array().unwrap().clone();
        list.iter().map(|n| n["label"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(
        labels(lab.get(DEMO, "2.35", "/v2.1/os-networks").await),
        ["public", "private"]
    );
    assert_eq!(
        labels(lab.get(OTHER, "2.35", "/v2.1/os-tenant-networks").await),
        ["public"]
    );
    let one = lab
        .get(DEMO, "2.35", &format!("/v2.1/os-networks/{}", lab.network))
        .await;
    assert_eq!(one["network"]["label"], "private");
    assert!(
        one["network"].as_object().unwrap().len() == 11,
        "no fields of administrators: {one}"
    );
    let one = lab
        .get(ADMIN, "2.35", &format!("/v2.1/os-networks/{}", lab.network))
        .await;
    assert!(one["network"].get("vlan").is_some());
    let pools = lab.get(READER, "2.35", "/v2.1/os-floating-ip-pools").await;
    assert_eq!(pools["floating_ip_pools"], json!([{"name": "public"}]));
    for path in ["os-networks", "os-tenant-networks"] {
        let at = format!("/v2.1/{path}/{}", lab.network);
        assert_eq!(
            call(&lab, OTHER, Method::GET, &at, Value::Null).await.status,
            404,
            "{path}"
        );
        assert_eq!(
            lab.call(DEMO, "2.36", Method::GET, &at, None).await.status,
            404,
            "{path} is gone"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floating_ips() {
    let lab = Lab::start().await;
    let _host = FakeHost::join(&lab, 8, 8192, 100).await;
    let neutron = |method: Method, path: String, body: Value| {
        let lab = &lab;
        async move {
            let a = lab
                .at(DEMO, "2.1")
                .raw(
                    lab,
                    method,
                    &format!("/network/v2.0/{path}"),
                    body.to_string().into(),
                    "",
                )
                .await;
            assert!(a.status.is_success(), "{path}: {}", a.body);
            a.body
        }
    };
    let nets = neutron(Method::GET, "networks?router:external=true".into(), Value::Null).await;
    let public = nets["networks"][0]["id"].as_str().unwrap().to_owned();
    let body = json!({"router": {"external_gateway_info": {"network_id": public}}});
    let router = neutron(Method::POST, "routers".into(), body).await;
    let router = router["router"]["id"].as_str().unwrap();
    let subnets = neutron(Method::GET, format!("subnets?network_id={}", lab.network), Value::Null).await;
    let body = json!({"subnet_id": subnets["subnets"][0]["id"]});
    neutron(Method::PUT, format!("routers/{router}/add_router_interface"), body).await;
    let mut servers = Vec::new();
    for name in ["one", "two"] {
        let body = json!({"server": {"name": name, "flavorRef": "1", "imageRef": lab.image, "networks": [{"uuid": lab.network}]}});
        let made = lab.post(DEMO, "2.96", "/v2.1/servers", body, 202).await;
        servers.push(made["server"]["id"].as_str().unwrap().to_owned());
        lab.wait(servers.last().unwrap(), "ACTIVE").await;
    }
    let all = "/v2.1/os-floating-ips";
    let ip = lab.post(DEMO, "2.35", all, json!({"pool": "public"}), 200).await["floating_ip"].take();
    assert_eq!(
        (&ip["pool"], &ip["fixed_ip"], &ip["instance_id"]),
        (&json!("public"), &Value::Null, &Value::Null)
    );
    let bare = call(&lab, DEMO, Method::POST, all, Value::Null).await;
    assert_eq!(bare.status, 200, "without a body, of the cloud's own: {}", bare.body);
    let list = lab.get(READER, "2.35", all).await;
    assert_eq!(list["floating_ips"].as_array().unwrap().len(), 2);
    let at = format!("{all}/{}", ip["id"].as_str().unwrap());
    let act = |id: &str, body: Value| {
        let (lab, path) = (&lab, format!("/v2.1/servers/{id}/action"));
        async move { lab.call(DEMO, "2.43", Method::POST, &path, Some(body)).await }
    };
    let add = json!({"addFloatingIp": {"address": ip["ip"]}});
    let remove = json!({"removeFloatingIp": {"address": ip["ip"]}});
    assert_eq!(act(&servers[0], remove.clone()).await.status, 409, "it leads nowhere");
    assert_eq!(act(&servers[0], add.clone()).await.status, 202);
    let shown = lab.get(DEMO, "2.35", &at).await;
    assert_eq!(shown["floating_ip"]["instance_id"], servers[0].as_str());
    let second = json!({"addFloatingIp": {"address": bare.body["floating_ip"]["ip"]}});
    assert_eq!(
        act(&servers[0], second).await.status,
        400,
        "one of a network for each address"
    );
    assert_eq!(act(&servers[1], add.clone()).await.status, 202, "it moves");
    assert_eq!(act(&servers[0], remove.clone()).await.status, 409);
    let addresses = lab.server(&servers[1]).await["addresses"]["private"].clone();
    assert_eq!(addresses[1]["addr"], ip["ip"]);
    for (who, method, path, body, status) in [
        (DEMO, Method::POST, all.to_owned(), json!({"pool": "nowhere"}), 404),
        (DEMO, Method::POST, all.to_owned(), json!({"pool": 7}), 400),
        (READER, Method::POST, all.to_owned(), json!({}), 403),
        (OTHER, Method::GET, at.clone(), Value::Null, 404),
        (OTHER, Method::DELETE, at.clone(), Value::Null, 404),
    ] {
        let a = call(&lab, who, method.clone(), &path, body).await;
        assert_eq!(a.status, status, "{method} {path}: {}", a.body);
    }
    for (body, status) in [
        (json!({"addFloatingIp": {"address": ""}}), 400),
        (json!({"addFloatingIp": {"address": "0.0.0.0"}}), 404),
        (json!({"removeFloatingIp": {"address": "0.0.0.0"}}), 404),
        (
            json!({"addFloatingIp": {"address": ip["ip"], "fixed_address": "10.9.9.9"}}),
            400,
        ),
    ] {
        let a = act(&servers[1], body.clone()).await;
        assert_eq!(a.status, status, "{body}: {}", a.body);
    }
    assert_eq!(act(&servers[1], remove).await.status, 202);
    assert_eq!(call(&lab, DEMO, Method::DELETE, &at, Value::Null).await.status, 202);
    assert_eq!(call(&lab, DEMO, Method::GET, &at, Value::Null).await.status, 404);
    assert_eq!(lab.call(DEMO, "2.36", Method::GET, all, None).await.status, 404, "gone");
    lab.audit().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn images() {
    let lab = Lab::start().await;
    let body = json!({"name": "mine", "disk_format": "raw", "container_format": "bare", "os_distro": "none"});
    let made = lab
        .at(DEMO, "2.1")
        .raw(
            &lab,
            Method::POST,
            "/image/v2/images",
            body.to_string().into(),
            "application/json",
        )
        .await;
    let id = made.body["id"].as_str().unwrap().to_owned();
    let at = format!("/v2.1/images/{id}");
    let shown = lab.get(DEMO, "2.35", &at).await["image"].take();
    assert_eq!(
        (&shown["status"], &shown["progress"], &shown["metadata"]),
        (&json!("SAVING"), &json!(25), &json!({"os_distro": "none"}))
    );
    assert_eq!(shown["links"][2]["href"], format!("http://cloud/image/images/{id}"));
    let names = |v: Value| -> Vec<String> {
        let list = v["images"].as_array().unwrap().clone();
        list.iter().map(|n| n["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(lab.get(DEMO, "2.35", "/v2.1/images").await), ["mine", "tiny"]);
    assert_eq!(names(lab.get(OTHER, "2.35", "/v2.1/images").await), ["tiny"]);
    for (query, want) in [
        ("status=ACTIVE", "tiny"),
        ("name=mine", "mine"),
        ("property-os_distro=none", "mine"),
        ("limit=1&marker=MARKER", "tiny"),
    ] {
        let path = format!("/v2.1/images/detail?{}", query.replace("MARKER", &id));
        assert_eq!(names(lab.get(DEMO, "2.35", &path).await), [want], "{query}");
    }
    let page = lab.get(DEMO, "2.35", "/v2.1/images?limit=1").await;
    assert!(
        page["images_links"][0]["href"]
            .as_str()
            .unwrap()
            .ends_with(&format!("limit=1&marker={id}"))
    );

    let metadata = format!("{at}/metadata");
    let put = call(
        &lab,
        DEMO,
        Method::PUT,
        &metadata,
        json!({"metadata": {"a": "1", "b": "2"}}),
    )
    .await;
    assert_eq!(put.body, json!({"metadata": {"a": "1", "b": "2"}}));
    let added = lab
        .post(DEMO, "2.38", &metadata, json!({"metadata": {"b": "3", "c": "4"}}), 200)
        .await;
    assert_eq!(added["metadata"], json!({"a": "1", "b": "3", "c": "4"}));
    let item = format!("{metadata}/a");
    assert_eq!(lab.get(READER, "2.38", &item).await, json!({"meta": {"a": "1"}}));
    let set = call(&lab, DEMO, Method::PUT, &item, json!({"meta": {"a": "9"}})).await;
    assert_eq!(set.body, json!({"meta": {"a": "9"}}));
    assert_eq!(call(&lab, DEMO, Method::DELETE, &item, Value::Null).await.status, 204);
    assert_eq!(
        lab.get(DEMO, "2.38", &metadata).await["metadata"],
        json!({"b": "3", "c": "4"})
    );
    let many: serde_json::Map<String, Value> = (0..129).map(|i| (format!("k{i}"), json!("v"))).collect();
    let public = format!("/v2.1/images/{}", lab.image);
    for (who, method, path, body, status) in [
        (DEMO, Method::GET, item.clone(), Value::Null, 404),
        (DEMO, Method::DELETE, item.clone(), Value::Null, 404),
        (DEMO, Method::PUT, item, json!({"meta": {"b": "9"}}), 400),
        (
            DEMO,
            Method::POST,
            metadata.clone(),
            json!({"metadata": {"name": "other"}}),
            400,
        ),
        (DEMO, Method::POST, metadata.clone(), json!({"metadata": {"x": 7}}), 400),
        (DEMO, Method::PUT, metadata.clone(), json!({"metadata": many}), 403),
        (OTHER, Method::GET, metadata.clone(), Value::Null, 404),
        (OTHER, Method::DELETE, at.clone(), Value::Null, 404),
        (DEMO, Method::DELETE, public, Value::Null, 403),
        (DEMO, Method::GET, "/v2.1/images?limit=x".into(), Value::Null, 400),
    ] {
        let a = call(&lab, who, method.clone(), &path, body).await;
        assert_eq!(a.status, status, "{method} {path}: {}", a.body);
    }
    assert_eq!(lab.call(DEMO, "2.36", Method::GET, &at, None).await.status, 404, "gone");
    assert_eq!(
        lab.call(DEMO, "2.39", Method::GET, &metadata, None).await.status,
        404,
        "gone"
    );
    assert_eq!(call(&lab, DEMO, Method::DELETE, &at, Value::Null).await.status, 204);
    assert_eq!(call(&lab, DEMO, Method::GET, &at, Value::Null).await.status, 404);
}

/// What Nova has no more is gone, not unknown.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn removed() {
    let lab = Lab::start().await;
    for (method, path) in [
        (Method::GET, "/v2.1/os-cells"),
        (Method::POST, "/v2.1/os-networks"),
        (Method::GET, "/v2.1/servers/any/consoles"),
    ] {
        assert_eq!(
            call(&lab, DEMO, method.clone(), path, Value::Null).await.status,
            410,
            "{path}"
        );
        assert_eq!(
            call(&lab, "nobody", method, path, Value::Null).await.status,
            401,
            "{path}"
        );
    }
}
