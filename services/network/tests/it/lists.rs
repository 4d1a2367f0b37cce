//! Lists, tags, discovery.

use crate::cloud::{ADMIN, ALICE, BOB, Cloud, text};
use serde_json::{Value, json};

fn names(v: &Value, many: &str) -> Vec<String> {
    v[many].as_array().unwrap().iter().map(|n| text(&n["name"])).collect()
}

pub async fn filters_sorts_pages(c: &Cloud) {
    let mut ids = Vec::new();
    for name in ["c", "a", "b", "e", "d"] {
        ids.push(c.network(ALICE, name).await);
    }
    c.network(BOB, "a").await;
    c.ok(
        "PUT",
        &format!("/v2.0/networks/{}", ids[0]),
        ALICE,
        json!({"network": {"description": "x", "admin_state_up": false}}),
    )
    .await;
    let mine = "router:external=false";
    let get = |q: &str| format!("/v2.0/networks?{mine}&{q}");
    let v = c.get(&get("sort_key=name&sort_dir=desc"), ALICE).await;
    assert_eq!(names(&v, "networks"), ["e", "d", "c", "b", "a"]);
    assert_eq!(
        names(
            &c.get(&get("name=a&name=b&sort_key=name&sort_dir=asc"), ALICE).await,
            "networks"
        ),
        ["a", "b"]
    );
    assert_eq!(names(&c.get(&get("description=x"), ALICE).await, "networks"), ["c"]);
    assert_eq!(
        names(&c.get(&get("admin_state_up=False"), ALICE).await, "networks"),
        ["c"]
    );
    assert_eq!(
        c.get(&get("name=a"), ADMIN).await["networks"].as_array().unwrap().len(),
        2
    );
    assert_eq!(
        c.get(&get("name=a&project_id=blue"), ADMIN).await["networks"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    assert_eq!(
        c.get(&get("name=a&tenant_id=blue"), ALICE).await["networks"],
        json!([]),
        "not what is another's"
    );
    let v = c.get(&get("fields=name&fields=id&name=a"), ALICE).await;
    assert_eq!(v["networks"][0].as_object().unwrap().len(), 2);
    // Pages, forwards by the links and back.
    for sort in ["name", "description"] {
        let mut path = get(&format!(
            "limit=2&sort_key={sort}&sort_dir=asc&sort_key=name&sort_dir=asc"
        ));
        let mut seen = Vec::new();
        let last = loop {
            let v = c.get(&path, ALICE).await;
            seen.extend(names(&v, "networks"));
            let next = v["networks_links"]
                .as_array()
                .into_iter()
                .flatten()
                .find(|l| l["rel"] == "next")
                .cloned();
            match next {
                Some(l) => path = text(&l["href"]).split_once("/network").unwrap().1.to_owned(),
                None => break v,
            }
        };
        let mut want = vec!["a", "b", "d", "e", "c"];
        if sort == "name" {
            want.sort_unstable();
        }
        assert_eq!(seen, want);
        let back = last["networks_links"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|l| l["rel"] == "previous")
            .cloned()
            .unwrap();
        let path = text(&back["href"]).split_once("/network").unwrap().1.to_owned();
        assert_eq!(names(&c.get(&path, ALICE).await, "networks"), want[2..4]);
    }
    for (query, word) in [
        ("colour=red", "colour"),
        ("sort_key=colour&sort_dir=asc", "colour"),
        ("sort_key=name&sort_dir=up", "up"),
        ("limit=x", "limit"),
        ("limit=-1", "limit"),
    ] {
        let (status, v) = c
            .call("GET", &format!("/v2.0/networks?{query}"), ALICE, Value::Null)
            .await;
        assert_eq!(status, 400, "{query}");
        assert!(text(&v["NeutronError"]["message"]).contains(word), "{v}");
    }
    let (status, _) = c
        .call(
            "GET",
            &format!("/v2.0/networks?limit=1&marker={}", haneul_core::id::uuid()),
            ALICE,
            Value::Null,
        )
        .await;
    assert_eq!(status, 404);
    // Old clients write .json.
    assert_eq!(
        c.get("/v2.0/networks.json?name=a", ALICE).await["networks"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    assert_eq!(
        c.get(&format!("/v2.0/networks/{}.json", ids[0]), ALICE).await["network"]["name"],
        "c"
    );
}

pub async fn tags(c: &Cloud) {
    let a = c.network(ALICE, "a").await;
    let b = c.network(ALICE, "b").await;
    let tags = format!("/v2.0/networks/{a}/tags");
    assert_eq!(
        c.ok("PUT", &tags, ALICE, json!({"tags": ["red", "blue", "red"]})).await["tags"],
        json!(["red", "blue"])
    );
    assert_eq!(c.call("PUT", &format!("{tags}/green"), ALICE, Value::Null).await.0, 201);
    assert_eq!(c.call("GET", &format!("{tags}/green"), ALICE, Value::Null).await.0, 204);
    assert_eq!(
        c.call("DELETE", &format!("{tags}/green"), ALICE, Value::Null).await.0,
        204
    );
    assert_eq!(c.call("GET", &format!("{tags}/green"), ALICE, Value::Null).await.0, 404);
    c.refused(
        "DELETE",
        &format!("{tags}/green"),
        ALICE,
        Value::Null,
        404,
        "TagNotFound",
    )
    .await;
    c.refused("GET", &tags, BOB, Value::Null, 404, "NetworkNotFound").await;
    c.ok(
        "PUT",
        &format!("/v2.0/networks/{b}/tags"),
        ALICE,
        json!({"tags": ["blue"]}),
    )
    .await;
    for (query, want) in [
        ("tags=red,blue", vec!["a"]),
        ("tags=blue", vec!["a", "b"]),
        ("tags-any=red,x", vec!["a"]),
        ("not-tags=red,blue", vec!["b"]),
        ("not-tags-any=red", vec!["b"]),
    ] {
        let v = c
            .get(
                &format!("/v2.0/networks?router:external=false&sort_key=name&sort_dir=asc&{query}"),
                ALICE,
            )
            .await;
        assert_eq!(names(&v, "networks"), want, "{query}");
    }
    c.ok("DELETE", &tags, ALICE, Value::Null).await;
    assert_eq!(c.get(&tags, ALICE).await["tags"], json!([]));
    let (status, _) = c.call("PUT", &tags, ALICE, json!({"tags": ["a,b"]})).await;
    assert_eq!(status, 400);
}

pub async fn discovery(c: &Cloud) {
    let (status, v) = c.call("GET", "/", "", Value::Null).await;
    assert_eq!((status, v["versions"][0]["id"].clone()), (200, json!("v2.0")));
    assert!(text(&v["versions"][0]["links"][0]["href"]).ends_with("/network/v2.0/"));
    let all = c.get("/v2.0/extensions", ALICE).await["extensions"].clone();
    for alias in [
        "router",
        "security-group",
        "quotas",
        "external-net",
        "standard-attr-tag",
    ] {
        assert!(all.as_array().unwrap().iter().any(|e| e["alias"] == alias), "{alias}");
        assert_eq!(
            c.get(&format!("/v2.0/extensions/{alias}"), ALICE).await["extension"]["alias"],
            alias
        );
    }
    for e in all.as_array().unwrap() {
        assert!(
            !text(&e["name"]).is_empty() && !text(&e["description"]).is_empty(),
            "{e}"
        );
    }
    c.refused(
        "GET",
        "/v2.0/extensions/trunk",
        ALICE,
        Value::Null,
        404,
        "ExtensionsNotFound",
    )
    .await;
    assert_eq!(
        c.get("/v2.0/availability_zones", ALICE).await["availability_zones"][0]["name"],
        "nova"
    );
    assert_eq!(c.get("/v2.0/agents", ADMIN).await["agents"][0]["alive"], true);
    assert_eq!(c.get("/v2.0/agents", ALICE).await["agents"], json!([]));
    let (status, v) = c.call("GET", "/v2.0/trunks", ALICE, Value::Null).await;
    assert_eq!(
        (status, v["NeutronError"]["type"].clone()),
        (404, json!("HTTPNotFound"))
    );
    // The external network of the first start.
    let public = c.get("/v2.0/networks?router:external=true", ALICE).await["networks"][0].clone();
    assert_eq!(
        (
            public["name"].clone(),
            public["is_default"].clone(),
            public["shared"].clone()
        ),
        (json!("public"), json!(true), json!(false))
    );
    // Its subnets are not for everybody.
    let subnets = format!("/v2.0/subnets?network_id={}", text(&public["id"]));
    assert_eq!(c.get(&subnets, ALICE).await["subnets"], json!([]));
    let s = c.get(&subnets, ADMIN).await["subnets"][0].clone();
    assert_eq!(
        (s["cidr"].clone(), s["gateway_ip"].clone(), s["enable_dhcp"].clone()),
        (json!("172.24.4.0/24"), json!("172.24.4.1"), json!(false))
    );
}
