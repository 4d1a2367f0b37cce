use crate::cloud::{Cloud, token_of};
use serde_json::{Value, json};

fn path(doc: &Value) -> String {
    format!("/credentials/{}", doc["id"].as_str().unwrap())
}

async fn ids(c: &Cloud, token: &str, path: &str) -> Vec<String> {
    let doc = c.call(token, "GET", path, Value::Null).await.json();
    let mut out: Vec<String> = doc["credentials"]
        .as_array()
        .unwrap_or_else(|| panic!("{doc}"))
        .iter()
        .map(|x| x["id"].as_str().unwrap().to_owned())
        .collect();
    out.sort();
    out
}

pub async fn sealed_and_owned(c: &Cloud) {
    let (user, project, token) = c.tenant("nora", "member").await;
    let (other, _, others) = c.tenant("olaf", "member").await;
    let blob = json!({"access": "KEY-1", "secret": "hush-ec2-secret"}).to_string();
    let body = json!({"credential": {"type": "ec2", "user_id": user, "project_id": project, "blob": blob, "x": 1}});
    let a = c.call(&token, "POST", "/credentials", body.clone()).await;
    assert_eq!(a.status, 201);
    let made = a.json()["credential"].clone();
    assert_eq!(
        (&made["blob"], &made["type"], &made["x"]),
        (&json!(blob), &json!("ec2"), &json!(1))
    );
    assert_eq!(made["id"].as_str().unwrap().len(), 64, "of the access key");
    assert!(made.get("trust_id").is_none() && made.get("blob_set_at").is_none());
    assert_eq!(
        c.call(&token, "GET", &path(&made), Value::Null).await.json()["credential"],
        made
    );
    assert_eq!(c.call(&token, "POST", "/credentials", body).await.status, 409);
    let cert = json!({"credential": {"type": "cert", "user_id": user, "blob": "hush-cert"}});
    let cert = c.call(&token, "POST", "/credentials", cert).await.json()["credential"].clone();
    assert_eq!(
        (&cert["project_id"], &cert["blob"]),
        (&Value::Null, &json!("hush-cert"))
    );
    // Each sees its own.
    let mut both = vec![
        made["id"].as_str().unwrap().to_owned(),
        cert["id"].as_str().unwrap().to_owned(),
    ];
    both.sort();
    assert_eq!(ids(c, &token, "/credentials").await, both);
    assert!(ids(c, &others, "/credentials").await.is_empty());
    assert_eq!(
        ids(c, &c.admin, &format!("/credentials?user_id={user}&type=cert")).await,
        [cert["id"].as_str().unwrap()]
    );
    assert!(
        ids(c, &others, &format!("/credentials?user_id={user}"))
            .await
            .is_empty()
    );
    for (method, path, body) in [
        ("GET", path(&made), Value::Null),
        ("PATCH", path(&made), json!({"credential": {"blob": "{}"}})),
        ("DELETE", path(&made), Value::Null),
        ("GET", "/credentials/nothing".into(), Value::Null),
        (
            "POST",
            "/credentials".into(),
            json!({"credential": {"type": "x", "user_id": user, "blob": "x"}}),
        ),
    ] {
        assert_eq!(
            c.call(&others, method, &path, body).await.status,
            403,
            "{method} {path}"
        );
    }
    // The blob changes, and nothing that says whose it is.
    let blob = json!({"access": "KEY-2", "secret": "hush-newer"}).to_string();
    let body = json!({"credential": {"blob": blob, "y": 2}});
    let now = c.call(&token, "PATCH", &path(&made), body).await.json()["credential"].clone();
    assert_eq!(
        (&now["blob"], &now["y"], &now["id"]),
        (&json!(blob), &json!(2), &made["id"])
    );
    for body in [
        json!({"user_id": other}),
        json!({"project_id": null}),
        json!({"type": "cert"}),
        json!({"blob": "no JSON"}),
    ] {
        let a = c
            .call(&token, "PATCH", &path(&made), json!({ "credential": body }))
            .await;
        assert_eq!(a.status, 400, "{body}");
    }
    assert_eq!(
        c.call(&token, "PATCH", &path(&made), json!({"credential": {"user_id": user}}))
            .await
            .status,
        200
    );
    // Sealed where it lies, and in no change row.
    let mut tx = c.db.read().await.unwrap();
    for sql in [
        "SELECT state FROM change_log",
        "SELECT doc FROM identity_credential",
        "SELECT sealed FROM identity_credential_blob",
    ] {
        for row in tx.rows(sql, &[]).await.unwrap() {
            let text = row.str(0).unwrap();
            assert!(!text.contains("hush") && !text.contains("KEY-"), "{sql}: {text}");
        }
    }
    drop(tx);
    // Another start reads it.
    let again = haneul_identity::Identity::new(
        c.db.clone(),
        &haneul_core::config::Config::default(),
        c.dir.join("keys"),
    );
    assert!(again.is_ok());
    assert_eq!(c.call(&token, "DELETE", &path(&cert), Value::Null).await.status, 204);
    c.ok(404, "GET", &path(&cert), Value::Null).await;
    // They go with the project, and with the user.
    c.ok(204, "DELETE", &format!("/projects/{project}"), Value::Null).await;
    c.ok(404, "GET", &path(&made), Value::Null).await;
    let body = json!({"credential": {"type": "cert", "user_id": other, "blob": "x"}});
    let made = c.call(&others, "POST", "/credentials", body).await.json()["credential"].clone();
    c.ok(204, "DELETE", &format!("/users/{other}"), Value::Null).await;
    c.ok(404, "GET", &path(&made), Value::Null).await;
}

pub async fn ec2(c: &Cloud) {
    let (user, project, token) = c.tenant("pia", "member").await;
    let (_, _, others) = c.tenant("quin", "member").await;
    let base = format!("/users/{user}/credentials/OS-EC2");
    let a = c.call(&token, "POST", &base, json!({"tenant_id": project})).await;
    assert_eq!(a.status, 201);
    let made = a.json()["credential"].clone();
    assert_eq!(
        (&made["user_id"], &made["tenant_id"], &made["trust_id"]),
        (&json!(user), &json!(project), &Value::Null)
    );
    let own = format!("{base}/{}", made["access"].as_str().unwrap());
    assert_eq!(
        c.call(&token, "GET", &own, Value::Null).await.json()["credential"],
        made
    );
    let list = c.call(&token, "GET", &base, Value::Null).await.json();
    assert_eq!(list["credentials"], json!([made]));
    let as_v3 = c.call(&token, "GET", "/credentials?type=ec2", Value::Null).await.json();
    let blob: Value = serde_json::from_str(as_v3["credentials"][0]["blob"].as_str().unwrap()).unwrap();
    assert_eq!(blob["secret"], made["secret"]);
    for (method, path, body) in [
        ("GET", own.clone(), Value::Null),
        ("DELETE", own.clone(), Value::Null),
        ("GET", base.clone(), Value::Null),
        ("POST", base.clone(), json!({"tenant_id": project})),
        ("GET", format!("{base}/nothing"), Value::Null),
    ] {
        assert_eq!(
            c.call(&others, method, &path, body).await.status,
            403,
            "{method} {path}"
        );
    }
    // A reader makes none; nobody makes one for what is not there.
    let (reader, place, readers) = c.tenant("rita", "reader").await;
    let a = c
        .call(
            &readers,
            "POST",
            &format!("/users/{reader}/credentials/OS-EC2"),
            json!({"tenant_id": place}),
        )
        .await;
    assert_eq!(a.status, 403);
    assert_eq!(
        c.call(&token, "POST", &base, json!({"tenant_id": "nothing"}))
            .await
            .status,
        404
    );
    assert_eq!(c.call(&token, "POST", &base, json!({})).await.status, 400);
    // A token of an application credential stays within its project, and makes none when it is restricted.
    let creds = format!("/users/{user}/application_credentials");
    for (unrestricted, status) in [(false, 403), (true, 201)] {
        let body = json!({"application_credential": {"name": format!("a{status}"), "unrestricted": unrestricted}});
        let cred = c.call(&token, "POST", &creds, body).await.json()["application_credential"].clone();
        let within = token_of(
            &c.auth(json!({"identity": {"methods": ["application_credential"],
                "application_credential": {"id": cred["id"], "secret": cred["secret"]}}}))
                .await,
        );
        assert_eq!(
            c.call(&within, "POST", &base, json!({"tenant_id": project}))
                .await
                .status,
            status
        );
        assert_eq!(
            c.call(&within, "POST", &base, json!({"tenant_id": place})).await.status,
            403
        );
        let cert = json!({"credential": {"type": "totp", "user_id": user, "blob": "x"}});
        assert_eq!(
            c.call(&within, "POST", "/credentials", cert).await.status,
            403,
            "without a project"
        );
    }
    assert_eq!(c.call(&token, "DELETE", &own, Value::Null).await.status, 204);
    assert_eq!(c.call(&token, "GET", &own, Value::Null).await.status, 404);
    assert_eq!(c.call(&token, "DELETE", &own, Value::Null).await.status, 404);
}
