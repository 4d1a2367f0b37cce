//! Nonsense over every route of the route tables: nothing makes the cloud fail, and a reader changes nothing anywhere.
//! (Who may do what with real ids is fake_sweep's; docs/routes.txt is compared by `cargo xtask tidy`.)

use crate::fake_refusals::tenant;
use crate::setup::{Ready, id, options};
use haneul_testkit::{Client, Cloud};
use http::Method;
use serde_json::{Value, json};

/// Method, path with ids of nothing in the place of its parameters, and rule of every route.
async fn routes(cloud: &Cloud) -> Vec<(Method, String, String)> {
    let all = cloud.admin(Method::GET, "/admin/v1/routes").await.expect("routes");
    let all = all["routes"].as_array().expect("a list").clone();
    assert!(all.len() > 150, "{} routes", all.len());
    let text = |r: &Value, key: &str| r[key].as_str().unwrap().to_owned();
    let filled = |part: &str| match part.starts_with('{') {
        true => "11111111-2222-4333-8444-555555555555".to_owned(),
        false => part.to_owned(),
    };
    all.iter()
        .map(|r| {
            let path: Vec<String> = text(r, "path").split('/').map(filled).collect();
            (text(r, "method").parse().unwrap(), path.join("/"), text(r, "rule"))
        })
        .collect()
}

/// A user of a project of its own who has only the role `reader` there.
async fn reader(r: &Ready) -> Client {
    let (_, project) = tenant(r, "swept").await;
    let user = json!({"user": {"name": "reads", "domain_id": "default", "password": "a-long-password"}});
    let user = r.admin.post("/identity/v3/users", &user).await.expect(201);
    let roles = r.admin.get("/identity/v3/roles?name=reader").await.expect(200);
    let (user, role) = (id(&user, "/user/id"), id(&roles, "/roles/0/id"));
    let path = format!("/identity/v3/projects/{project}/users/{user}/roles/{role}");
    assert_eq!(r.admin.put(&path, &json!({})).await.status, 204);
    r.cloud.anonymous().login("reads", "a-long-password", "swept").await
}

/// Bodies that mean nothing to most routes: none may make the cloud fail, and a reader may do nothing by them.
#[tokio::test(flavor = "multi_thread")]
async fn fake_routes_take_no_harm_from_a_reader_or_from_nonsense() {
    let r = Ready::new(options()).await;
    let reader = reader(&r).await;
    let json_type = [("content-type", "application/json")];
    let mut wrong = Vec::new();
    for (method, path, rule) in routes(&r.cloud).await {
        for (who, client) in [("reader", &reader), ("admin", &r.admin)] {
            for body in ["{}", "[]", "{\"server\": null, \"x\": {\"y\": [1e400]}}", ""] {
                let a = client.send(method.clone(), &path, &json_type, body.into()).await;
                let changes = method != Method::GET && method != Method::HEAD && rule != "public";
                if a.status >= 500 || (who == "reader" && changes && a.status < 400) {
                    wrong.push(format!("{who}: {method} {path} {body}: {} {}", a.status, a.text));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}\n{}", wrong.join("\n"), r.cloud.tail());
    r.cloud.audit().await;
}
