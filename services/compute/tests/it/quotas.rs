//! Limits of classes, projects and users.

use crate::lab::{ADMIN, Answer, DEMO, FakeHost, Lab};
use http::Method;
use serde_json::{Value, json};

async fn set(lab: &Lab, path: &str, kind: &str, limits: Value) -> Answer {
    let body = json!({ kind: limits });
    lab.call(ADMIN, "2.49", Method::PUT, &format!("/v2.1/{path}"), Some(body))
        .await
}

async fn servers(lab: &Lab, who: &str, count: u32, metadata: Value) -> Answer {
    let body = json!({"server": {"name": "s", "flavorRef": "1", "imageRef": lab.image, "networks": "none",
        "min_count": count, "metadata": metadata}});
    lab.call(who, "2.49", Method::POST, "/v2.1/servers", Some(body)).await
}

/// What the class `default` says holds for every project without a limit of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn classes() {
    let lab = Lab::start().await;
    let _host = FakeHost::join(&lab, 8, 8192, 100).await;
    let at = "os-quota-class-sets/default";
    let before = lab.get(ADMIN, "2.49", &format!("/v2.1/{at}")).await["quota_class_set"].take();
    let put = set(
        &lab,
        at,
        "quota_class_set",
        json!({"instances": 1, "metadata_items": 2}),
    )
    .await;
    assert_eq!(put.status, 200, "{}", put.body);
    assert_eq!(put.body["quota_class_set"]["instances"], 1);
    assert_eq!(put.body["quota_class_set"]["cores"], before["cores"]);
    assert_eq!(
        lab.get(DEMO, "2.49", "/v2.1/os-quota-sets/demo").await["quota_set"]["instances"],
        1
    );
    let refused = servers(&lab, DEMO, 2, json!({})).await;
    assert_eq!(refused.status, 403, "{}", refused.body);
    let refused = servers(&lab, DEMO, 1, json!({"a": "1", "b": "2", "c": "3"})).await;
    assert_eq!(refused.status, 403, "{}", refused.body);
    let made = servers(&lab, DEMO, 1, json!({"a": "1", "b": "2"})).await;
    assert_eq!(made.status, 202, "{}", made.body);
    let id = made.body["server"]["id"].as_str().unwrap();
    let path = format!("/v2.1/servers/{id}/metadata");
    let more = json!({"metadata": {"c": "3"}});
    assert_eq!(
        lab.call(DEMO, "2.49", Method::POST, &path, Some(more.clone()))
            .await
            .status,
        403
    );
    let own = set(
        &lab,
        "os-quota-sets/demo",
        "quota_set",
        json!({"instances": 2, "metadata_items": 3}),
    )
    .await;
    assert_eq!(own.status, 200, "{}", own.body);
    assert_eq!(
        lab.call(DEMO, "2.49", Method::POST, &path, Some(more)).await.status,
        200
    );
    assert_eq!(
        servers(&lab, DEMO, 1, json!({})).await.status,
        202,
        "the project's own limit comes first"
    );
    let other = set(&lab, "os-quota-class-sets/gold", "quota_class_set", json!({"cores": 7})).await;
    assert_eq!(other.status, 200);
    assert_eq!(
        lab.get(ADMIN, "2.49", &format!("/v2.1/{at}")).await["quota_class_set"]["cores"],
        before["cores"]
    );
    for (limits, status) in [(json!({"cores": -2}), 400), (json!({"shoes": 1}), 400)] {
        assert_eq!(set(&lab, at, "quota_class_set", limits).await.status, status);
    }
    let mine = json!({"quota_class_set": {"cores": 1}});
    let path = format!("/v2.1/{at}");
    assert_eq!(lab.call(DEMO, "2.49", Method::PUT, &path, Some(mine)).await.status, 403);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users() {
    let lab = Lab::start().await;
    let _host = FakeHost::join(&lab, 8, 8192, 100).await;
    let at = "os-quota-sets/demo?user_id=alice";
    let put = set(&lab, at, "quota_set", json!({"instances": 1})).await;
    assert_eq!(
        (put.status.as_u16(), &put.body["quota_set"]["instances"]),
        (200, &json!(1))
    );
    assert_eq!(servers(&lab, DEMO, 1, json!({})).await.status, 202);
    let refused = servers(&lab, DEMO, 1, json!({})).await;
    assert_eq!(refused.status, 403);
    assert!(
        refused.body["forbidden"]["message"]
            .as_str()
            .unwrap()
            .contains("used 1 of 1 instances")
    );
    assert_eq!(
        servers(&lab, "member:demo:dave", 1, json!({})).await.status,
        202,
        "another user"
    );
    let detail = lab
        .get(ADMIN, "2.49", "/v2.1/os-quota-sets/demo/detail?user_id=alice")
        .await;
    assert_eq!(
        detail["quota_set"]["instances"],
        json!({"limit": 1, "in_use": 1, "reserved": 0})
    );
    let whole = lab.get(ADMIN, "2.49", "/v2.1/os-quota-sets/demo/detail").await;
    assert_eq!(whole["quota_set"]["instances"]["in_use"], 2);
    let limit = whole["quota_set"]["cores"]["limit"].as_i64().unwrap();
    for (limits, why) in [
        (json!({"instances": 0}), "already used"),
        (json!({"cores": limit + 1}), "less than or equal to"),
        (json!({"cores": -1}), "less than or equal to"),
        (json!({"key_pairs": 1}), "not kept for single users"),
    ] {
        let a = set(&lab, at, "quota_set", limits).await;
        assert_eq!(a.status, 400, "{}", a.body);
        assert!(
            a.body["badRequest"]["message"].as_str().unwrap().contains(why),
            "{}",
            a.body
        );
    }
    let gone = lab
        .call(ADMIN, "2.49", Method::DELETE, &format!("/v2.1/{at}"), None)
        .await;
    assert_eq!(gone.status, 202);
    assert_eq!(servers(&lab, DEMO, 1, json!({})).await.status, 202);
}

/// A resize is a migration, as long as its server lives.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn migrations() {
    let lab = Lab::start().await;
    let _host = FakeHost::join(&lab, 8, 8192, 100).await;
    let list = |query: &'static str| {
        let lab = &lab;
        async move {
            let all = lab.get(ADMIN, "2.80", &format!("/v2.1/os-migrations{query}")).await;
            all["migrations"].as_array().unwrap().clone()
        }
    };
    let id = lab.create("grows", "1").await;
    lab.wait(&id, "ACTIVE").await;
    for (end, status) in [("revertResize", "reverted"), ("confirmResize", "confirmed")] {
        lab.act(&id, json!({"resize": {"flavorRef": "2"}}), 202).await;
        lab.wait(&id, "VERIFY_RESIZE").await;
        let now = list("").await;
        assert_eq!(
            (&now[0]["status"], &now[0]["instance_uuid"], &now[0]["migration_type"]),
            (&json!("finished"), &json!(id), &json!("resize"))
        );
        assert_eq!(
            (&now[0]["old_instance_type_id"], &now[0]["new_instance_type_id"]),
            (&json!(1), &json!(2))
        );
        assert!(now[0]["source_compute"].as_str().unwrap().starts_with("secret-host"));
        let path = format!("/v2.1/servers/{id}/action");
        lab.call(DEMO, "2.96", Method::POST, &path, Some(json!({ end: null })))
            .await;
        lab.wait(&id, "ACTIVE").await;
        assert_eq!(list("").await[0]["status"], status);
    }
    assert_eq!(list("?status=reverted").await.len(), 1);
    assert_eq!(list("?migration_type=live-migration").await.len(), 0);
    assert_eq!(list("?host=nowhere").await.len(), 0);
    let page = lab.get(ADMIN, "2.59", "/v2.1/os-migrations?limit=1").await;
    let next = page["migrations_links"][0]["href"].as_str().unwrap();
    let rest = lab.get(ADMIN, "2.59", next.split("/compute").nth(1).unwrap()).await;
    assert_eq!(rest["migrations"][0]["status"], "reverted");
    let manager = "manager:demo:mary";
    let own = lab.get(manager, "2.80", "/v2.1/os-migrations?project_id=demo").await;
    assert_eq!(own["migrations"].as_array().unwrap().len(), 2);
    assert_eq!(
        own["migrations"][0]["source_compute"],
        Value::Null,
        "no host's name for tenants"
    );
    for (who, query, status) in [
        (DEMO, "?project_id=demo", 403),
        (manager, "", 403),
        (manager, "?project_id=other", 403),
        (ADMIN, "?changes-since=yesterday", 400),
        (ADMIN, "?marker=none", 400),
        (ADMIN, "?shoes=1", 400),
    ] {
        let a = lab
            .call(who, "2.80", Method::GET, &format!("/v2.1/os-migrations{query}"), None)
            .await;
        assert_eq!(a.status, status, "{query}: {}", a.body);
    }
    lab.act(&id, json!({"injectNetworkInfo": null}), 403).await;
    let path = format!("/v2.1/servers/{id}/action");
    let told = lab
        .call(
            ADMIN,
            "2.96",
            Method::POST,
            &path,
            Some(json!({"injectNetworkInfo": null})),
        )
        .await;
    assert_eq!(told.status, 202, "{}", told.body);
    lab.call(DEMO, "2.96", Method::DELETE, &format!("/v2.1/servers/{id}"), None)
        .await;
    lab.wait_gone(&id).await;
    assert_eq!(list("").await.len(), 0);
}
