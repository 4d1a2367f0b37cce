use crate::cloud::Cloud;
use serde_json::{Value, json};

async fn id(c: &Cloud, path: &str, key: &str, body: Value) -> String {
    let doc = c.ok(201, "POST", path, json!({ key: body })).await;
    doc[key]["id"].as_str().unwrap().to_owned()
}

pub async fn of_endpoints(c: &Cloud) {
    let mut policy = Vec::new();
    for n in 0..3 {
        policy.push(
            id(
                c,
                "/policies",
                "policy",
                json!({"blob": format!("{n}"), "type": "text/plain"}),
            )
            .await,
        );
    }
    let service = id(c, "/services", "service", json!({"name": "pol", "type": "pol"})).await;
    id(c, "/regions", "region", json!({"id": "top"})).await;
    id(c, "/regions", "region", json!({"id": "low", "parent_region_id": "top"})).await;
    let mut endpoint = Vec::new();
    for region in ["low", "RegionOne"] {
        let body = json!({"service_id": service, "region_id": region, "interface": "public", "url": "http://x"});
        endpoint.push(id(c, "/endpoints", "endpoint", body).await);
    }
    let of = |n: usize, rest: &str| format!("/policies/{}/OS-ENDPOINT-POLICY/{rest}", policy[n]);
    let holds = async |n: usize| {
        let path = format!("/endpoints/{}/OS-ENDPOINT-POLICY/policy", endpoint[n]);
        let (status, doc) = c.admin("GET", &path, Value::Null).await;
        (status == 200).then(|| doc["policy"]["blob"].as_str().unwrap().to_owned())
    };
    let listed = async |n: usize| {
        let doc = c.ok(200, "GET", &of(n, "endpoints"), Value::Null).await;
        let mut out: Vec<String> = doc["endpoints"]
            .as_array()
            .unwrap()
            .iter()
            .map(|e| e["id"].as_str().unwrap().to_owned())
            .collect();
        out.sort();
        out
    };
    assert_eq!(holds(0).await, None);
    let spots = [
        of(0, &format!("services/{service}")),
        of(1, &format!("services/{service}/regions/top")),
        of(2, &format!("endpoints/{}", endpoint[0])),
    ];
    // The narrower one holds.
    for (n, (spot, expected)) in spots.iter().zip([("0", "0"), ("1", "0"), ("2", "0")]).enumerate() {
        c.ok(404, "GET", spot, Value::Null).await;
        c.ok(404, "DELETE", spot, Value::Null).await;
        c.ok(204, "PUT", spot, Value::Null).await;
        c.ok(204, "PUT", spot, Value::Null).await;
        c.ok(204, "GET", spot, Value::Null).await;
        let seen = (holds(0).await.unwrap(), holds(1).await.unwrap());
        assert_eq!((seen.0.as_str(), seen.1.as_str()), expected, "{n}");
    }
    let mut both = endpoint.clone();
    both.sort();
    assert_eq!(listed(0).await, both);
    assert_eq!(
        (listed(1).await, listed(2).await),
        (vec![endpoint[0].clone()], vec![endpoint[0].clone()])
    );
    // Another policy takes the place.
    c.ok(204, "PUT", &of(1, &format!("endpoints/{}", endpoint[0])), Value::Null)
        .await;
    assert_eq!(holds(0).await.unwrap(), "1");
    c.ok(404, "GET", &spots[2], Value::Null).await;
    c.ok(404, "DELETE", &spots[2], Value::Null).await;
    // What is not there.
    for missing in [
        "/policies/nothing/OS-ENDPOINT-POLICY/endpoints".to_owned(),
        of(0, "endpoints/nothing"),
        of(0, "services/nothing"),
        of(0, &format!("services/{service}/regions/nothing")),
        "/endpoints/nothing/OS-ENDPOINT-POLICY/policy".into(),
    ] {
        c.ok(404, "GET", &missing, Value::Null).await;
    }
    // They go with policy and endpoint.
    c.ok(204, "DELETE", &format!("/policies/{}", policy[1]), Value::Null)
        .await;
    assert_eq!(holds(0).await.unwrap(), "0");
    c.ok(204, "DELETE", &spots[0], Value::Null).await;
    assert_eq!(holds(0).await, None);
    c.ok(204, "PUT", &of(0, &format!("services/{service}")), Value::Null)
        .await;
    c.ok(204, "DELETE", &format!("/services/{service}"), Value::Null).await;
    assert!(listed(0).await.is_empty());
}

/// Revocations are told to services; paths that do nothing say why; a slash at the end of a path is none.
pub async fn events_and_old_paths(c: &Cloud) {
    let (user, _, token) = c.tenant("xenia", "member").await;
    assert_eq!(
        c.call(&token, "GET", "/OS-REVOKE/events", Value::Null).await.status,
        403
    );
    let since = haneul_core::clock::iso_micros(haneul_core::clock::now());
    c.ok(
        200,
        "PATCH",
        &format!("/users/{user}"),
        json!({"user": {"enabled": false}}),
    )
    .await;
    let doc = c
        .ok(200, "GET", &format!("/OS-REVOKE/events?since={since}"), Value::Null)
        .await;
    assert_eq!(doc["events"][0]["user_id"], json!(user));
    assert!(doc["events"][0]["issued_before"].as_str().unwrap() >= since.as_str());
    assert_eq!(doc["events"].as_array().unwrap().len(), 1);
    c.ok(400, "GET", "/OS-REVOKE/events?since=yesterday", Value::Null).await;
    for (path, status) in [
        ("/auth/tokens/OS-PKI/revoked", 403),
        ("/OS-SIMPLE-CERT/ca", 410),
        ("/OS-SIMPLE-CERT/certificates", 410),
    ] {
        c.ok(status, "GET", path, Value::Null).await;
    }
    for path in ["/users", "/domains/default", "/OS-TRUST/trusts", "/auth/projects"] {
        let plain = c.ok(200, "GET", path, Value::Null).await;
        assert_eq!(
            c.ok(200, "GET", &format!("{path}/"), Value::Null).await,
            plain,
            "{path}"
        );
    }
    assert_eq!(c.call("nonsense", "GET", "/users/", Value::Null).await.status, 401);
    c.ok(404, "GET", "/users//", Value::Null).await;
}
