use crate::cloud::{Cloud, token_of};
use serde_json::{Value, json};

async fn service(c: &Cloud, name: &str) -> String {
    let doc = c
        .ok(
            201,
            "POST",
            "/services",
            json!({"service": {"name": name, "type": name}}),
        )
        .await;
    doc["service"]["id"].as_str().unwrap().to_owned()
}

async fn register(c: &Cloud, list: Value) -> (u16, Value) {
    c.admin("POST", "/registered_limits", json!({ "registered_limits": list }))
        .await
}

async fn limit(c: &Cloud, list: Value) -> (u16, Value) {
    c.admin("POST", "/limits", json!({ "limits": list })).await
}

fn ids(doc: &Value, key: &str) -> Vec<String> {
    let mut out: Vec<String> = doc[key]
        .as_array()
        .unwrap_or_else(|| panic!("{doc}"))
        .iter()
        .map(|l| l["id"].as_str().unwrap().to_owned())
        .collect();
    out.sort();
    out
}

pub async fn registered_and_own(c: &Cloud) {
    let model = c.ok(200, "GET", "/limits/model", Value::Null).await;
    assert_eq!(model["model"]["name"], json!("flat"));
    let s = service(c, "lim").await;
    let before = c.rows().await;
    let one = json!({"service_id": s, "region_id": "RegionOne", "resource_name": "cores", "default_limit": 10});
    for (bad, status) in [
        (json!([]), 400),
        (json!({}), 400),
        (json!([{}]), 400),
        (
            json!([{"service_id": s, "resource_name": "x", "default_limit": "10"}]),
            400,
        ),
        (
            json!([{"service_id": s, "resource_name": "x", "default_limit": -2}]),
            400,
        ),
        (
            json!([{"service_id": s, "resource_name": "x", "default_limit": 2_147_483_648_i64}]),
            400,
        ),
        (json!([{"service_id": s, "resource_name": "", "default_limit": 1}]), 400),
        (
            json!([{"service_id": "nothing", "resource_name": "x", "default_limit": 1}]),
            400,
        ),
        (
            json!([{"service_id": s, "region_id": "nothing", "resource_name": "x", "default_limit": 1}]),
            400,
        ),
        (
            json!([{"service_id": s, "resource_name": "x", "default_limit": 1, "extra": 1}]),
            400,
        ),
        // All or none.
        (json!([one, one]), 409),
        (
            json!([one, {"service_id": "nothing", "resource_name": "x", "default_limit": 1}]),
            400,
        ),
    ] {
        assert_eq!(register(c, bad.clone()).await.0, status, "{bad}");
    }
    assert_eq!(c.rows().await, before);
    let everywhere = json!({"service_id": s, "resource_name": "cores", "default_limit": -1, "description": "all"});
    let (status, doc) = register(c, json!([one, everywhere])).await;
    assert_eq!(status, 201, "{doc}");
    assert!(doc.get("links").is_none());
    let made = doc["registered_limits"].clone();
    assert_eq!(
        (&made[0]["default_limit"], &made[1]["region_id"]),
        (&json!(10), &Value::Null)
    );
    assert_eq!(made[0]["description"], Value::Null);
    assert_eq!(register(c, json!([everywhere])).await.0, 409);
    let path = format!("/registered_limits/{}", made[0]["id"].as_str().unwrap());
    assert_eq!(c.ok(200, "GET", &path, Value::Null).await["registered_limit"], made[0]);
    let list = c
        .ok(
            200,
            "GET",
            &format!("/registered_limits?service_id={s}&region_id=RegionOne"),
            Value::Null,
        )
        .await;
    assert_eq!(list["registered_limits"], json!([made[0]]));
    let doc = c
        .ok(
            200,
            "PATCH",
            &path,
            json!({"registered_limit": {"default_limit": 20, "description": "d"}}),
        )
        .await;
    assert_eq!(doc["registered_limit"]["default_limit"], json!(20));
    let clash = json!({"registered_limit": {"region_id": null}});
    c.ok(409, "PATCH", &path, clash).await;
    c.ok(
        400,
        "PATCH",
        &path,
        json!({"registered_limit": {"service_id": "nothing"}}),
    )
    .await;
    c.ok(404, "GET", "/registered_limits/nothing", Value::Null).await;
    // Limits of projects and domains.
    let (_, project, token) = c.tenant("paul", "member").await;
    let (_, other, others) = c.tenant("rosa", "member").await;
    let own = |project: &str, n: i64| json!({"service_id": s, "region_id": "RegionOne", "resource_name": "cores", "project_id": project, "resource_limit": n});
    let before = c.rows().await;
    for (bad, status) in [
        (
            json!([{"service_id": s, "region_id": "RegionOne", "resource_name": "cores", "resource_limit": 1}]),
            400,
        ),
        (
            json!([{"service_id": s, "resource_name": "cores", "resource_limit": 1, "project_id": project, "domain_id": "default"}]),
            400,
        ),
        (
            json!([{"service_id": s, "resource_name": "cores", "resource_limit": 1, "project_id": "nothing"}]),
            400,
        ),
        (
            json!([{"service_id": s, "resource_name": "cores", "resource_limit": 1, "domain_id": "nothing"}]),
            400,
        ),
        (
            json!([{"service_id": s, "resource_name": "ram", "resource_limit": 1, "project_id": project}]),
            403,
        ),
        (
            json!([{"service_id": s, "resource_name": "cores", "project_id": project}]),
            400,
        ),
        (json!([own(&project, 1), own(&project, 2)]), 409),
    ] {
        assert_eq!(limit(c, bad.clone()).await.0, status, "{bad}");
    }
    assert_eq!(c.rows().await, before);
    let domain = json!({"service_id": s, "resource_name": "cores", "domain_id": "default", "resource_limit": 3});
    let (status, doc) = limit(c, json!([own(&project, 5), own(&other, 7), domain])).await;
    assert_eq!(status, 201, "{doc}");
    let made = doc["limits"].clone();
    assert_eq!(
        made[0],
        json!({"id": made[0]["id"], "links": made[0]["links"], "project_id": project, "domain_id": null,
            "service_id": s, "region_id": "RegionOne", "resource_name": "cores", "resource_limit": 5,
            "description": null})
    );
    assert_eq!(limit(c, json!([own(&project, 1)])).await.0, 409);
    let path = format!("/limits/{}", made[0]["id"].as_str().unwrap());
    // Each sees its own.
    assert_eq!(c.call(&token, "GET", &path, Value::Null).await.json()["limit"], made[0]);
    assert_eq!(c.call(&others, "GET", &path, Value::Null).await.status, 403);
    let list = c.call(&token, "GET", "/limits", Value::Null).await.json();
    assert_eq!(ids(&list, "limits"), [made[0]["id"].as_str().unwrap()]);
    let mut all = ids(&doc, "limits");
    all.sort();
    assert_eq!(
        ids(
            &c.ok(200, "GET", &format!("/limits?service_id={s}"), Value::Null).await,
            "limits"
        ),
        all
    );
    let list = c
        .ok(
            200,
            "GET",
            &format!("/limits?service_id={s}&project_id={other}"),
            Value::Null,
        )
        .await;
    assert_eq!(list["limits"], json!([made[1]]));
    // Everybody reads registered limits; nobody else changes any.
    assert_eq!(
        c.call(&token, "GET", "/registered_limits", Value::Null).await.status,
        200
    );
    let change = json!({"limit": {"resource_limit": 6}});
    assert_eq!(c.call(&token, "PATCH", &path, change.clone()).await.status, 403);
    assert_eq!(c.call(&token, "DELETE", &path, Value::Null).await.status, 403);
    assert_eq!(
        c.ok(200, "PATCH", &path, change).await["limit"]["resource_limit"],
        json!(6)
    );
    for bad in [
        json!({"limit": {"resource_limit": "6"}}),
        json!({"limit": {"project_id": other}}),
        json!({}),
    ] {
        c.ok(400, "PATCH", &path, bad).await;
    }
    // What a limit stands on stays.
    let registered = format!("/registered_limits?service_id={s}&region_id=RegionOne");
    let registered = c.ok(200, "GET", &registered, Value::Null).await["registered_limits"][0]["id"].clone();
    let registered = format!("/registered_limits/{}", registered.as_str().unwrap());
    c.ok(
        403,
        "PATCH",
        &registered,
        json!({"registered_limit": {"default_limit": 1}}),
    )
    .await;
    c.ok(403, "DELETE", &registered, Value::Null).await;
    c.ok(204, "DELETE", &path, Value::Null).await;
    c.ok(404, "GET", &path, Value::Null).await;
    // With the project goes its limit; then nothing stands on the registered one.
    c.ok(204, "DELETE", &format!("/projects/{other}"), Value::Null).await;
    c.ok(
        404,
        "GET",
        &format!("/limits/{}", made[1]["id"].as_str().unwrap()),
        Value::Null,
    )
    .await;
    c.ok(204, "DELETE", &registered, Value::Null).await;
    c.ok(204, "DELETE", &format!("/services/{s}"), Value::Null).await;
    c.ok(
        404,
        "GET",
        &format!("/limits/{}", made[2]["id"].as_str().unwrap()),
        Value::Null,
    )
    .await;
}

/// In the model `strict_two_level` a project has no more than its domain, and stands right below it.
#[tokio::test]
async fn strict_two_level() {
    let c = Cloud::with(|config| config.identity.limit_model = "strict_two_level".into()).await;
    let model = c.ok(200, "GET", "/limits/model", Value::Null).await;
    assert_eq!(model["model"]["name"], json!("strict_two_level"));
    let s = service(&c, "lim").await;
    let (status, _) = register(
        &c,
        json!([{"service_id": s, "resource_name": "cores", "default_limit": 10}]),
    )
    .await;
    assert_eq!(status, 201);
    let domain = c.make("domain", json!({"name": "d"})).await;
    let project = c.make("project", json!({"name": "p", "domain_id": domain})).await;
    let (status, _) = c
        .admin(
            "POST",
            "/projects",
            json!({"project": {"name": "q", "parent_id": project}}),
        )
        .await;
    assert_eq!(status, 403, "two levels");
    let of =
        |key: &str, id: &str, n: i64| json!({"service_id": s, "resource_name": "cores", key: id, "resource_limit": n});
    let before = c.rows().await;
    assert_eq!(
        limit(&c, json!([of("project_id", &project, 11)])).await.0,
        403,
        "the default is 10"
    );
    assert_eq!(limit(&c, json!([of("project_id", &project, -1)])).await.0, 403);
    assert_eq!(
        limit(&c, json!([of("project_id", &project, 8), of("domain_id", &domain, 7)]))
            .await
            .0,
        403
    );
    assert_eq!(c.rows().await, before);
    let (status, doc) = limit(
        &c,
        json!([of("project_id", &project, 12), of("domain_id", &domain, 20)]),
    )
    .await;
    assert_eq!(status, 201, "{doc}");
    let path = |n: usize| format!("/limits/{}", doc["limits"][n]["id"].as_str().unwrap());
    let set = |n: i64| json!({"limit": {"resource_limit": n}});
    c.ok(403, "PATCH", &path(0), set(21)).await;
    c.ok(200, "PATCH", &path(0), set(20)).await;
    c.ok(403, "PATCH", &path(1), set(19)).await;
    c.ok(200, "PATCH", &path(1), set(-1)).await;
    c.ok(200, "PATCH", &path(0), set(1000)).await;
    // Managers of the domain see both.
    let user = c
        .make("user", json!({"name": "m", "domain_id": domain, "password": "secret"}))
        .await;
    let role = c.role("reader").await;
    c.ok(
        204,
        "PUT",
        &format!("/domains/{domain}/users/{user}/roles/{role}"),
        Value::Null,
    )
    .await;
    let auth = json!({"identity": {"methods": ["password"], "password": {"user": {"id": user, "password": "secret"}}},
        "scope": {"domain": {"id": domain}}});
    let token = token_of(&c.auth(auth).await);
    let list = c.call(&token, "GET", "/limits", Value::Null).await.json();
    assert_eq!(ids(&list, "limits"), ids(&doc, "limits"));
    assert_eq!(c.call(&token, "GET", &path(0), Value::Null).await.status, 200);
}
