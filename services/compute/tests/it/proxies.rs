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
