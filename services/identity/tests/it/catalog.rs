use crate::cloud::{Cloud, token_of};
use serde_json::{Value, json};

async fn service(c: &Cloud, kind: &str) -> String {
    let doc = c
        .ok(
            201,
            "POST",
            "/services",
            json!({"service": {"type": kind, "name": kind}}),
        )
        .await;
    doc["service"]["id"].as_str().unwrap().to_owned()
}

async fn endpoint(c: &Cloud, service: &str, body: Value) -> Value {
    let mut doc = json!({"service_id": service, "interface": "public", "url": "http://10.0.0.1:80/"});
    doc.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
    c.ok(201, "POST", "/endpoints", json!({ "endpoint": doc })).await["endpoint"].clone()
}

fn path(collection: &str, doc: &Value) -> String {
    format!("/{collection}/{}", doc["id"].as_str().unwrap())
}

/// URLs of a service in the catalog of a token.
async fn urls(c: &Cloud, token: &str, kind: &str) -> Vec<String> {
    let doc = c.call(token, "GET", "/auth/catalog", Value::Null).await.json();
    let catalog = doc["catalog"].as_array().unwrap_or_else(|| panic!("{doc}")).clone();
    let told = c
        .raw(
            "GET",
            "/auth/tokens",
            &[("x-auth-token", token), ("x-subject-token", token)],
            "",
        )
        .await
        .json();
    assert_eq!(told["token"]["catalog"], json!(catalog), "both tell the same");
    catalog
        .iter()
        .filter(|s| s["type"] == kind)
        .flat_map(|s| s["endpoints"].as_array().unwrap().clone())
        .map(|e| e["url"].as_str().unwrap().to_owned())
        .collect()
}

pub async fn services_and_endpoints(c: &Cloud) {
    let doc = c
        .ok(
            201,
            "POST",
            "/services",
            json!({"service": {"type": "t", "name": "n", "description": "d", "colour": "blue"}}),
        )
        .await;
    let s = doc["service"].clone();
    assert_eq!(
        (&s["enabled"], &s["description"], &s["colour"]),
        (&json!(true), &json!("d"), &json!("blue"))
    );
    assert_eq!(c.ok(200, "GET", &path("services", &s), Value::Null).await, doc);
    let found = c.ok(200, "GET", "/services?type=t", Value::Null).await;
    assert_eq!(found["services"], json!([s]));
    let plain = c.ok(201, "POST", "/services", json!({"service": {"type": "u"}})).await["service"].clone();
    assert_eq!((&plain["name"], plain.get("description")), (&json!(""), None));
    let changed = c
        .ok(
            200,
            "PATCH",
            &path("services", &s),
            json!({"service": {"description": "e", "type": "t2"}}),
        )
        .await;
    assert_eq!(
        (&changed["service"]["description"], &changed["service"]["type"]),
        (&json!("e"), &json!("t2"))
    );

    // Its endpoints, and the catalog of a token that was there before.
    let (_, project, token) = c.tenant("ines", "member").await;
    let id = s["id"].as_str().unwrap();
    let e = endpoint(c, id, json!({"region": "North", "name": "first"})).await;
    assert_eq!(
        (&e["region"], &e["region_id"], &e["enabled"]),
        (&json!("North"), &json!("North"), &json!(true))
    );
    assert_eq!(e["name"], "first");
    c.ok(200, "GET", "/regions/North", Value::Null).await;
    assert_eq!(urls(c, &token, "t2").await, ["http://10.0.0.1:80/"], "at once");
    let e = c
        .ok(
            200,
            "PATCH",
            &path("endpoints", &e),
            json!({"endpoint": {"url": "http://10.0.0.2/v1/$(project_id)s", "interface": "internal", "region": "South"}}),
        )
        .await["endpoint"]
        .clone();
    assert_eq!(
        (&e["region_id"], &e["interface"]),
        (&json!("South"), &json!("internal"))
    );
    assert_eq!(
        urls(c, &token, "t2").await,
        [format!("http://10.0.0.2/v1/{project}")],
        "each its own"
    );
    assert_ne!(urls(c, &c.admin, "t2").await, urls(c, &token, "t2").await);
    for (query, n) in [
        (format!("service_id={id}"), 1),
        (format!("service_id={id}&interface=public"), 0),
        ("region_id=South".into(), 1),
        ("region_id=North".into(), 0),
    ] {
        let found = c.ok(200, "GET", &format!("/endpoints?{query}"), Value::Null).await;
        assert_eq!(found["endpoints"].as_array().unwrap().len(), n, "{query}");
    }
    c.ok(
        200,
        "PATCH",
        &path("endpoints", &e),
        json!({"endpoint": {"enabled": false}}),
    )
    .await;
    assert!(urls(c, &token, "t2").await.is_empty());
    c.ok(
        200,
        "PATCH",
        &path("endpoints", &e),
        json!({"endpoint": {"enabled": true, "region_id": null}}),
    )
    .await;
    assert_eq!(urls(c, &token, "t2").await.len(), 1);
    c.ok(
        200,
        "PATCH",
        &path("services", &s),
        json!({"service": {"enabled": false}}),
    )
    .await;
    assert!(urls(c, &token, "t2").await.is_empty());
    // Endpoints go with their service.
    c.ok(204, "DELETE", &path("services", &s), Value::Null).await;
    c.ok(404, "GET", &path("services", &s), Value::Null).await;
    c.ok(404, "GET", &path("endpoints", &e), Value::Null).await;
    let e = endpoint(c, plain["id"].as_str().unwrap(), json!({})).await;
    c.ok(204, "DELETE", &path("endpoints", &e), Value::Null).await;
    c.ok(404, "DELETE", &path("endpoints", &e), Value::Null).await;

    // Who may not.
    let manager = c.role("manager").await;
    let user = c
        .make(
            "user",
            json!({"name": "mona", "password": "secret", "domain_id": "default"}),
        )
        .await;
    c.ok(
        204,
        "PUT",
        &format!("/domains/default/users/{user}/roles/{manager}"),
        Value::Null,
    )
    .await;
    let domain = token_of(&c.login("mona", "secret", json!({"domain": {"id": "default"}})).await);
    let before = c.rows().await;
    for token in [&token, &domain] {
        for (method, path, body) in [
            ("POST", "/services".to_owned(), json!({"service": {"type": "x"}})),
            ("PATCH", path("services", &plain), json!({"service": {"type": "x"}})),
            ("DELETE", path("services", &plain), Value::Null),
            ("GET", path("services", &plain), Value::Null),
            ("POST", "/regions".to_owned(), json!({"region": {}})),
            ("PUT", "/regions/x".to_owned(), json!({"region": {}})),
            (
                "PATCH",
                "/regions/North".to_owned(),
                json!({"region": {"description": "x"}}),
            ),
            ("DELETE", "/regions/North".to_owned(), Value::Null),
            ("GET", "/endpoints".to_owned(), Value::Null),
            (
                "POST",
                "/endpoints".to_owned(),
                json!({"endpoint": {"service_id": plain["id"], "interface": "public", "url": "http://x", "region": "New"}}),
            ),
        ] {
            assert_eq!(c.call(token, method, &path, body).await.status, 403, "{method} {path}");
        }
    }
    assert_eq!(c.rows().await, before);
}

pub async fn regions(c: &Cloud) {
    let top = c
        .ok(201, "POST", "/regions", json!({"region": {"description": "d", "x": 1}}))
        .await["region"]
        .clone();
    assert_eq!(
        (&top["description"], &top["parent_region_id"], &top["x"]),
        (&json!("d"), &Value::Null, &json!(1))
    );
    let mid = c
        .ok(
            201,
            "PUT",
            "/regions/mid",
            json!({"region": {"parent_region_id": top["id"]}}),
        )
        .await["region"]
        .clone();
    assert_eq!((&mid["id"], &mid["description"]), (&json!("mid"), &json!("")));
    let low = c
        .ok(
            201,
            "POST",
            "/regions",
            json!({"region": {"id": "low/er", "parent_region_id": "mid", "description": null}}),
        )
        .await["region"]
        .clone();
    assert_eq!(
        low["links"]["self"],
        json!(format!("{}/identity/v3/regions/low%2Fer", c.url))
    );
    c.ok(200, "GET", "/regions/low%2Fer", Value::Null).await;
    let found = c.ok(200, "GET", "/regions?parent_region_id=mid", Value::Null).await;
    assert_eq!(found["regions"], json!([low]));
    c.ok(409, "POST", "/regions", json!({"region": {"id": "mid"}})).await;
    c.ok(409, "PUT", "/regions/mid", json!({"region": {}})).await;
    // No circles, no parents that are not there.
    let to = |p: &str| json!({"region": {"parent_region_id": p}});
    c.ok(400, "PATCH", "/regions/mid", to("low/er")).await;
    c.ok(400, "PATCH", "/regions/mid", to("mid")).await;
    c.ok(404, "PATCH", "/regions/mid", to("nowhere")).await;
    c.ok(404, "POST", "/regions", to("nowhere")).await;
    let now = c
        .ok(
            200,
            "PATCH",
            "/regions/mid",
            json!({"region": {"parent_region_id": null, "description": null}}),
        )
        .await;
    assert_eq!(
        (&now["region"]["parent_region_id"], &now["region"]["description"]),
        (&Value::Null, &json!(""))
    );
    // Not with an endpoint in it or below; else with all below.
    let s = service(c, "r").await;
    let e = endpoint(c, &s, json!({"region_id": "low/er"})).await;
    let (status, doc) = c.admin("DELETE", "/regions/mid", Value::Null).await;
    assert_eq!(status, 403, "{doc}");
    assert!(doc["error"]["message"].as_str().unwrap().contains("endpoints"));
    c.ok(204, "DELETE", &path("endpoints", &e), Value::Null).await;
    c.ok(204, "DELETE", "/regions/mid", Value::Null).await;
    c.ok(404, "GET", "/regions/low%2Fer", Value::Null).await;
    c.ok(404, "DELETE", "/regions/mid", Value::Null).await;
}

/// The catalog follows the configuration, but not over an administrator's head.
pub async fn own_entries_follow_the_configuration(c: &Cloud) {
    let of = |kind: &'static str, interface: &'static str| async move {
        let s = c.ok(200, "GET", &format!("/services?type={kind}"), Value::Null).await["services"][0]["id"].clone();
        let path = format!("/endpoints?service_id={}&interface={interface}", s.as_str().unwrap());
        c.ok(200, "GET", &path, Value::Null).await["endpoints"][0].clone()
    };
    let (changed, deleted) = (of("image", "public").await, of("network", "admin").await);
    let url = json!({"endpoint": {"url": "https://images.example.org"}});
    c.ok(200, "PATCH", &path("endpoints", &changed), url).await;
    c.ok(204, "DELETE", &path("endpoints", &deleted), Value::Null).await;
    let placement = c.ok(200, "GET", "/services?type=placement", Value::Null).await["services"][0].clone();
    c.ok(204, "DELETE", &path("services", &placement), Value::Null).await;
    // The next start, with another URL and region.
    let mut config = haneul_core::config::Config::default();
    config.api.region = "Elsewhere".into();
    config.api.public_url = Some("https://cloud.example.org".into());
    let again = haneul_identity::Identity::new(c.db.clone(), &config, c.dir.join("keys")).unwrap();
    again.bootstrap(None).await.unwrap();
    let moved = of("image", "internal").await;
    assert_eq!(
        (&moved["url"], &moved["region"]),
        (&json!("https://cloud.example.org/image"), &json!("Elsewhere"))
    );
    let kept = of("image", "public").await;
    assert_eq!(
        (&kept["url"], &kept["region"]),
        (&json!("https://images.example.org"), &changed["region"])
    );
    assert_eq!(of("network", "admin").await, Value::Null, "what was deleted stays away");
    let found = c.ok(200, "GET", "/services?type=placement", Value::Null).await;
    assert_eq!(found["services"], json!([]));
    // Set back to what is configured it follows again.
    let back = json!({"endpoint": {"url": "https://cloud.example.org/image", "region": "Elsewhere"}});
    c.ok(200, "PATCH", &path("endpoints", &kept), back).await;
    again.bootstrap(None).await.unwrap();
    c.identity.bootstrap(None).await.unwrap();
    assert_eq!(of("image", "public").await["url"], changed["url"]);
    let before = c.rows().await;
    c.identity.bootstrap(None).await.unwrap();
    assert_eq!(
        c.rows().await,
        before,
        "a start that finds all as it should be changes nothing"
    );
}
