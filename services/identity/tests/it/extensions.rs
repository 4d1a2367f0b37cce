use crate::cloud::Cloud;
use serde_json::{Value, json};

fn id(doc: &Value) -> &str {
    doc["id"].as_str().unwrap_or_else(|| panic!("{doc}"))
}

/// A reader of another project may none of these.
async fn refused(c: &Cloud, token: &str, cases: &[(&str, String, Value)]) {
    let before = c.rows().await;
    for (method, path, body) in cases {
        assert_eq!(
            c.call(token, method, path, body.clone()).await.status,
            403,
            "{method} {path}"
        );
    }
    assert_eq!(c.rows().await, before);
}

pub async fn policies_and_consumers(c: &Cloud) {
    let (_, _, token) = c.tenant("oda", "manager").await;
    let body = json!({"policy": {"blob": "{\"x\": 1}", "type": "application/json", "owner": "me"}});
    let p = c.ok(201, "POST", "/policies", body.clone()).await["policy"].clone();
    assert_eq!(
        (&p["blob"], &p["type"], &p["owner"]),
        (&json!("{\"x\": 1}"), &json!("application/json"), &json!("me"))
    );
    let path = format!("/policies/{}", id(&p));
    assert_eq!(c.ok(200, "GET", &path, Value::Null).await["policy"], p);
    let now = c
        .ok(200, "PATCH", &path, json!({"policy": {"type": "text/plain"}}))
        .await["policy"]
        .clone();
    assert_eq!((&now["type"], &now["blob"]), (&json!("text/plain"), &p["blob"]));
    let list = c.ok(200, "GET", "/policies?type=text/plain", Value::Null).await;
    assert_eq!(list["policies"], json!([now]));
    refused(
        c,
        &token,
        &[
            ("GET", "/policies".into(), Value::Null),
            ("POST", "/policies".into(), body),
            ("PATCH", path.clone(), json!({"policy": {"blob": "x"}})),
            ("DELETE", path.clone(), Value::Null),
        ],
    )
    .await;
    c.ok(400, "POST", "/policies", json!({"policy": {"type": "x"}})).await;
    c.ok(204, "DELETE", &path, Value::Null).await;
    c.ok(404, "GET", &path, Value::Null).await;

    let made = c
        .ok(
            201,
            "POST",
            "/OS-OAUTH1/consumers",
            json!({"consumer": {"description": "d", "secret": "mine"}}),
        )
        .await["consumer"]
        .clone();
    let secret = made["secret"].as_str().unwrap();
    assert_ne!(secret, "mine");
    let path = format!("/OS-OAUTH1/consumers/{}", id(&made));
    let shown = c.ok(200, "GET", &path, Value::Null).await["consumer"].clone();
    assert_eq!((&shown["description"], shown.get("secret")), (&json!("d"), None));
    assert_eq!(shown["links"], made["links"]);
    let now = c
        .ok(200, "PATCH", &path, json!({"consumer": {"description": "e"}}))
        .await;
    assert_eq!(now["consumer"]["description"], "e");
    c.ok(400, "PATCH", &path, json!({"consumer": {"secret": "x"}})).await;
    let list = c.ok(200, "GET", "/OS-OAUTH1/consumers", Value::Null).await;
    assert_eq!(list["consumers"].as_array().unwrap().len(), 1);
    refused(
        c,
        &token,
        &[
            ("GET", "/OS-OAUTH1/consumers".into(), Value::Null),
            ("POST", "/OS-OAUTH1/consumers".into(), json!({"consumer": {}})),
            ("PATCH", path.clone(), json!({"consumer": {"description": "x"}})),
            ("DELETE", path.clone(), Value::Null),
        ],
    )
    .await;
    let mut tx = c.db.read().await.unwrap();
    for row in tx.rows("SELECT state FROM change_log", &[]).await.unwrap() {
        assert!(!row.str(0).unwrap().contains(secret));
    }
    drop(tx);
    c.ok(204, "DELETE", &path, Value::Null).await;
    c.ok(404, "GET", &path, Value::Null).await;
}

pub async fn domain_configuration(c: &Cloud) {
    let (_, _, token) = c.tenant("ole", "manager").await;
    let d = c.make("domain", json!({"name": "configured"})).await;
    let path = format!("/domains/{d}/config");
    c.ok(404, "GET", &path, Value::Null).await;
    c.ok(404, "PATCH", &path, json!({"config": {"identity": {"driver": "x"}}}))
        .await;
    let config = json!({"identity": {"driver": "ldap"}, "ldap": {"url": "ldap://x", "password": "hush-ldap"}});
    let made = c.ok(201, "PUT", &path, json!({ "config": config })).await;
    let seen = json!({"identity": {"driver": "ldap"}, "ldap": {"url": "ldap://x"}});
    assert_eq!(made["config"], seen, "what is sensitive is never shown");
    assert_eq!(c.ok(200, "GET", &path, Value::Null).await["config"], seen);
    let group = c.ok(200, "GET", &format!("{path}/ldap"), Value::Null).await;
    assert_eq!(group["config"], json!({"ldap": {"url": "ldap://x"}}));
    let option = c.ok(200, "GET", &format!("{path}/ldap/url"), Value::Null).await;
    assert_eq!(option["config"], json!({"url": "ldap://x"}));
    c.ok(404, "GET", &format!("{path}/ldap/user"), Value::Null).await;
    c.ok(404, "GET", &format!("{path}/ldap/password"), Value::Null).await;
    // By group and by option.
    let news = json!({"config": {"identity": {"driver": "y", "list_limit": 5}}});
    let now = c.ok(200, "PATCH", &format!("{path}/identity"), news.clone()).await;
    assert_eq!(now["config"]["identity"], json!({"driver": "y", "list_limit": 5}));
    let now = c
        .ok(
            200,
            "PATCH",
            &format!("{path}/identity/driver"),
            json!({"config": {"driver": "z"}}),
        )
        .await;
    assert_eq!(now["config"]["identity"]["driver"], "z");
    c.ok(
        200,
        "PATCH",
        &format!("{path}/ldap/password"),
        json!({"config": {"password": "hush-newer"}}),
    )
    .await;
    for (path, body) in [
        (format!("{path}/ldap"), news),
        (format!("{path}/identity/driver"), json!({"config": {"list_limit": 1}})),
        (path.clone(), json!({"config": {}})),
        (path.clone(), json!({"config": {"identity": {"colour": "red"}}})),
        (path.clone(), json!({"config": {"colours": {"red": 1}}})),
        (path.clone(), json!({"config": {"identity": 5}})),
    ] {
        c.ok(403, "PATCH", &path, body).await;
    }
    c.ok(400, "PATCH", &path, json!({"config": 5})).await;
    c.ok(
        404,
        "PUT",
        "/domains/nowhere/config",
        json!({"config": {"identity": {"driver": "x"}}}),
    )
    .await;
    let mut tx = c.db.read().await.unwrap();
    for sql in [
        "SELECT state FROM change_log",
        "SELECT doc FROM identity_domain_config",
        "SELECT sealed FROM identity_credential_blob",
    ] {
        for row in tx.rows(sql, &[]).await.unwrap() {
            assert!(!row.str(0).unwrap().contains("hush-"), "{sql}");
        }
    }
    drop(tx);
    refused(
        c,
        &token,
        &[
            ("GET", path.clone(), Value::Null),
            ("PUT", path.clone(), json!({"config": {"identity": {"driver": "x"}}})),
            ("PATCH", path.clone(), json!({"config": {"identity": {"driver": "x"}}})),
            ("DELETE", path.clone(), Value::Null),
            ("GET", "/domains/config/default".into(), Value::Null),
        ],
    )
    .await;
    // Gone piece by piece, and anew.
    c.ok(204, "DELETE", &format!("{path}/identity/driver"), Value::Null)
        .await;
    c.ok(404, "GET", &format!("{path}/identity/driver"), Value::Null).await;
    c.ok(204, "DELETE", &format!("{path}/identity"), Value::Null).await;
    c.ok(404, "GET", &format!("{path}/identity"), Value::Null).await;
    c.ok(404, "DELETE", &format!("{path}/identity"), Value::Null).await;
    c.ok(200, "PUT", &path, json!({"config": {"identity": {"driver": "x"}}}))
        .await;
    assert_eq!(
        c.ok(200, "GET", &path, Value::Null).await["config"],
        json!({"identity": {"driver": "x"}})
    );
    c.ok(204, "DELETE", &path, Value::Null).await;
    c.ok(404, "DELETE", &path, Value::Null).await;
    // Defaults.
    let all = c.ok(200, "GET", "/domains/config/default", Value::Null).await;
    assert_eq!(all["config"]["identity"]["driver"], "sql");
    assert!(all["config"]["ldap"].get("password").is_none());
    let one = c.ok(200, "GET", "/domains/config/ldap/url/default", Value::Null).await;
    assert_eq!(one["config"], json!({"url": "ldap://localhost"}));
    c.ok(200, "GET", "/domains/config/ldap/default", Value::Null).await;
    c.ok(403, "GET", "/domains/config/colours/default", Value::Null).await;
}

/// Services of the catalog of a token, with how many endpoints each shows.
async fn catalog(c: &Cloud, token: &str) -> Vec<(String, usize)> {
    let doc = c.call(token, "GET", "/auth/catalog", Value::Null).await.json();
    let services = doc["catalog"].as_array().unwrap().clone();
    services
        .iter()
        .map(|s| {
            (
                s["type"].as_str().unwrap().to_owned(),
                s["endpoints"].as_array().unwrap().len(),
            )
        })
        .filter(|(_, n)| *n > 0)
        .collect()
}

pub async fn filtered_catalogs(c: &Cloud) {
    let (_, project, token) = c.tenant("paul", "member").await;
    let service = c.ok(200, "GET", "/services?type=image", Value::Null).await["services"][0].clone();
    let body =
        json!({"endpoint_group": {"name": "g", "filters": {"service_id": service["id"], "interface": "public"}}});
    let g = c.ok(201, "POST", "/OS-EP-FILTER/endpoint_groups", body.clone()).await["endpoint_group"].clone();
    let path = format!("/OS-EP-FILTER/endpoint_groups/{}", id(&g));
    assert_eq!(c.ok(200, "GET", &path, Value::Null).await["endpoint_group"], g);
    let list = c
        .ok(200, "GET", "/OS-EP-FILTER/endpoint_groups?name=g", Value::Null)
        .await;
    assert_eq!(list["endpoint_groups"], json!([g]));
    let found = c.ok(200, "GET", &format!("{path}/endpoints"), Value::Null).await;
    assert_eq!(found["endpoints"].as_array().unwrap().len(), 1);
    for wrong in [json!({"colour": "red"}), json!({"interface": "x"}), json!(5)] {
        c.ok(400, "PATCH", &path, json!({"endpoint_group": {"filters": wrong}}))
            .await;
    }
    // A project without filters sees all; one with a group sees its endpoints, at once.
    let all = catalog(c, &token).await;
    assert_eq!(all.len(), 5);
    let link = format!("{path}/projects/{project}");
    c.ok(404, "GET", &link, Value::Null).await;
    c.ok(204, "PUT", &link, Value::Null).await;
    c.ok(204, "PUT", &link, Value::Null).await;
    c.ok(200, "GET", &link, Value::Null).await;
    assert_eq!(catalog(c, &token).await, [("image".to_owned(), 1)]);
    assert_eq!(catalog(c, &c.admin).await, all, "other projects' stays");
    let found = c.ok(200, "GET", &format!("{path}/projects"), Value::Null).await;
    assert_eq!(id(&found["projects"][0]), project);
    // And one endpoint more.
    let network = c.ok(200, "GET", "/services?type=network", Value::Null).await["services"][0].clone();
    let e = c
        .ok(
            200,
            "GET",
            &format!("/endpoints?service_id={}", id(&network)),
            Value::Null,
        )
        .await["endpoints"][0]
        .clone();
    let one = format!("/OS-EP-FILTER/projects/{project}/endpoints/{}", id(&e));
    c.ok(404, "GET", &one, Value::Null).await;
    c.ok(204, "PUT", &one, Value::Null).await;
    c.ok(204, "GET", &one, Value::Null).await;
    assert_eq!(
        catalog(c, &token).await,
        [("image".to_owned(), 1), ("network".to_owned(), 1)]
    );
    let found = c
        .ok(
            200,
            "GET",
            &format!("/OS-EP-FILTER/projects/{project}/endpoints"),
            Value::Null,
        )
        .await;
    assert_eq!(found["endpoints"].as_array().unwrap().len(), 2);
    let found = c
        .ok(
            200,
            "GET",
            &format!("/OS-EP-FILTER/projects/{project}/endpoint_groups"),
            Value::Null,
        )
        .await;
    assert_eq!(found["endpoint_groups"], json!([g]));
    let found = c
        .ok(
            200,
            "GET",
            &format!("/OS-EP-FILTER/endpoints/{}/projects", id(&e)),
            Value::Null,
        )
        .await;
    assert_eq!(id(&found["projects"][0]), project);
    refused(
        c,
        &token,
        &[
            ("GET", path.clone(), Value::Null),
            ("POST", "/OS-EP-FILTER/endpoint_groups".into(), body),
            ("PATCH", path.clone(), json!({"endpoint_group": {"name": "x"}})),
            ("DELETE", path.clone(), Value::Null),
            ("PUT", link.clone(), Value::Null),
            ("DELETE", link.clone(), Value::Null),
            ("PUT", one.clone(), Value::Null),
            ("DELETE", one.clone(), Value::Null),
            (
                "GET",
                format!("/OS-EP-FILTER/projects/{project}/endpoints"),
                Value::Null,
            ),
        ],
    )
    .await;
    let nowhere = format!("{path}/projects/nowhere");
    c.ok(404, "PUT", &nowhere, Value::Null).await;
    c.ok(
        404,
        "PUT",
        &format!("/OS-EP-FILTER/projects/{project}/endpoints/nothing"),
        Value::Null,
    )
    .await;
    // Taken away again; what goes takes its associations along.
    c.ok(204, "DELETE", &link, Value::Null).await;
    c.ok(404, "DELETE", &link, Value::Null).await;
    assert_eq!(catalog(c, &token).await, [("network".to_owned(), 1)]);
    c.ok(204, "DELETE", &one, Value::Null).await;
    assert_eq!(catalog(c, &token).await, all);
    c.ok(204, "PUT", &link, Value::Null).await;
    let now = c
        .ok(
            200,
            "PATCH",
            &path,
            json!({"endpoint_group": {"filters": {"service_id": network["id"]}}}),
        )
        .await;
    assert_eq!(now["endpoint_group"]["name"], "g");
    assert_eq!(catalog(c, &token).await, [("network".to_owned(), 3)]);
    c.ok(204, "DELETE", &path, Value::Null).await;
    assert_eq!(catalog(c, &token).await, all);
    c.ok(404, "GET", &path, Value::Null).await;
}
