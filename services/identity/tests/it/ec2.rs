use crate::cloud::{Cloud, token_of};
use crate::signing::{self, ec2, ec2_token};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use haneul_core::clock::{self, SECOND};
use serde_json::{Value, json};

async fn credential(c: &Cloud, token: &str, user: &str, project: &str) -> Value {
    let path = format!("/users/{user}/credentials/OS-EC2");
    let a = c.call(token, "POST", &path, json!({"tenant_id": project})).await;
    assert_eq!(a.status, 201, "{}", a.json());
    a.json()["credential"].clone()
}

async fn good(c: &Cloud, token: &str) -> bool {
    c.raw(
        "HEAD",
        "/auth/tokens",
        &[("x-auth-token", &c.admin), ("x-subject-token", token)],
        "",
    )
    .await
    .status
        == 200
}

/// A service, which may ask whose a signature is.
async fn service(c: &Cloud) -> String {
    let (_, _, token) = c.tenant("swift", "service").await;
    token
}

pub async fn signed_requests(c: &Cloud) {
    let (user, project, token) = c.tenant("ines", "member").await;
    let service = service(c).await;
    let cred = credential(c, &token, &user, &project).await;
    let (access, secret) = (cred["access"].as_str().unwrap(), cred["secret"].as_str().unwrap());
    let now = clock::now();
    let ask = async |asker: &str, body: Value| c.call(asker, "POST", "/ec2tokens", body).await;
    let request = ec2(access, secret, now);
    // Under each of the names that there are.
    for name in ["credentials", "credential", "ec2Credentials"] {
        let a = ask(&service, json!({ name: request })).await;
        assert_eq!(a.status, 200, "{}", a.json());
        let t = &a.json()["token"];
        assert_eq!(
            (&t["user"]["id"], &t["project"]["id"], &t["methods"]),
            (&json!(user), &json!(project), &json!(["ec2credential"]))
        );
        assert!(t["catalog"].is_array());
        assert!(good(c, &token_of(&a)).await);
    }
    // A link that somebody has seen is worth nothing to him (CVE-2025-65073).
    assert_eq!(ask(&token, json!({"credentials": request})).await.status, 403);
    assert_eq!(
        c.call("", "POST", "/ec2tokens", json!({"credentials": request}))
            .await
            .status,
        401
    );
    assert_eq!(
        c.call(&token, "POST", "/s3tokens", json!({"credentials": {}}))
            .await
            .status,
        403
    );
    assert_eq!(c.raw("GET", "/ec2tokens", &[], "").await.status, 405);
    // Each part counts.
    for (what, change) in [
        ("signature", json!("AAAA")),
        ("signature", Value::Null),
        ("path", json!("/services/Other")),
        ("verb", json!("POST")),
        ("host", json!("other.example")),
    ] {
        let mut other = request.clone();
        other[what] = change;
        assert_eq!(ask(&service, json!({"credentials": other})).await.status, 401, "{what}");
    }
    let mut other = request.clone();
    other["params"]["Action"] = "TerminateInstances".into();
    assert_eq!(ask(&service, json!({"credentials": other})).await.status, 401);
    for at in [now - 1000 * SECOND, now + 1000 * SECOND] {
        let stale = ec2(access, secret, at);
        assert_eq!(ask(&service, json!({"credentials": stale})).await.status, 401);
    }
    let unknown = ec2("nobody", secret, now);
    assert_eq!(ask(&service, json!({"credentials": unknown})).await.status, 404);
    for (body, status) in [(json!({}), 400), (json!([]), 400), (json!({"credentials": {}}), 401)] {
        assert_eq!(ask(&service, body.clone()).await.status, status, "{body}");
    }
    // S3: what is signed is the service's text.
    let text = "GET\n\n\nThu, 17 Nov 2026 18:49:58 GMT\n/bucket/object";
    let s3 = |signature: String| json!({"credentials": {"access": access, "token": URL_SAFE.encode(text), "signature": signature}});
    let right = STANDARD.encode(signing::sha1(secret, text));
    let a = c.call(&service, "POST", "/s3tokens", s3(right)).await;
    assert_eq!(a.status, 200, "{}", a.json());
    assert_eq!(a.json()["token"]["project"]["id"], json!(project));
    assert!(a.headers.get("x-subject-token").is_none(), "it is not told");
    assert_eq!(c.call(&service, "POST", "/s3tokens", s3("x".into())).await.status, 401);
    let scope = "20261121/RegionOne/s3/aws4_request";
    let text = format!("AWS4-HMAC-SHA256\n20261121T101010Z\n{scope}\n{}", "0".repeat(64));
    let key = scope
        .split('/')
        .fold(format!("AWS4{secret}").into_bytes(), |k, p| signing::sha256(&k, p));
    let signature: String = signing::sha256(&key, &text)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    let v4 = json!({"credentials": {"access": access, "token": STANDARD.encode(&text), "signature": signature}});
    assert_eq!(c.call(&service, "POST", "/s3tokens", v4).await.status, 200);
    // The token is for other services: identity serves nothing but its validation, and its repetition in its scope.
    let made = token_of(&ec2_token(c, &cred).await);
    for (method, path) in [
        ("GET", "/auth/projects".to_owned()),
        ("GET", format!("/users/{user}")),
        ("POST", format!("/users/{user}/credentials/OS-EC2")),
    ] {
        assert_eq!(c.call(&made, method, &path, json!({})).await.status, 403, "{path}");
    }
    let again = c.rescope(&made, Value::Null).await;
    assert_eq!(again.json()["token"]["project"]["id"], json!(project));
    for scope in [
        json!("unscoped"),
        json!({"project": {"id": project}}),
        json!({"system": {"all": true}}),
    ] {
        assert_eq!(c.rescope(&made, scope).await.status, 403);
    }
    // They end with the credential, and with what its user has.
    let again = token_of(&again);
    let own = format!("/users/{user}/credentials/OS-EC2/{access}");
    assert_eq!(c.call(&token, "DELETE", &own, Value::Null).await.status, 204);
    assert!(!good(c, &made).await && !good(c, &again).await);
    assert_eq!(ec2_token(c, &cred).await.status, 404);
}

/// CVE-2026-43001 and what was found with it: a credential that is made with something delegated reaches no other
/// project, no more roles, and ends with that.
pub async fn cve_2026_43001_a_credential_stays_within_what_made_it(c: &Cloud) {
    let (user, project, token) = c.tenant("jana", "manager").await;
    let other = c.make("project", json!({"name": "janas-other"})).await;
    let manager = c.role("manager").await;
    let grant = format!("/projects/{other}/users/{user}/roles/{manager}");
    c.ok(204, "PUT", &grant, Value::Null).await;
    let end = clock::iso_micros(clock::now() + 120 * SECOND);
    let body = json!({"application_credential": {"name": "x", "unrestricted": true, "roles": [{"name": "member"}],
        "expires_at": end}});
    let path = format!("/users/{user}/application_credentials");
    let given = c.call(&token, "POST", &path, body).await.json()["application_credential"].clone();
    let auth = json!({"identity": {"methods": ["application_credential"],
        "application_credential": {"id": given["id"], "secret": given["secret"]}}});
    let lent = token_of(&c.auth(auth).await);
    // By neither of the two ways for another project.
    let ec2 = format!("/users/{user}/credentials/OS-EC2");
    assert_eq!(
        c.call(&lent, "POST", &ec2, json!({"tenant_id": other})).await.status,
        403
    );
    let blob = json!({"access": "A", "secret": "B", "app_cred_id": null}).to_string();
    for (kind, project, status) in [
        ("ec2", &other, 403),
        ("EC2", &other, 403),
        ("cert", &other, 403),
        // One-time passwords would log the user in, with all that he has.
        ("totp", &project, 403),
        ("TOTP", &project, 403),
        ("ec2", &project, 201),
    ] {
        let body = json!({"credential": {"type": kind, "user_id": user, "project_id": project, "blob": blob}});
        let a = c.call(&lent, "POST", "/credentials", body).await;
        assert_eq!(a.status, status, "{kind} {}", a.json());
    }
    // Nor does it read or change the user's own ones.
    let body =
        json!({"credential": {"type": "totp", "user_id": user, "project_id": project, "blob": "GEZDGNBVGY3TQOJQ"}});
    let own = c.call(&token, "POST", "/credentials", body).await.json()["credential"].clone();
    let own = format!("/credentials/{}", own["id"].as_str().unwrap());
    for (method, body) in [
        ("GET", Value::Null),
        ("PATCH", json!({"credential": {"blob": "AAAA"}})),
        ("DELETE", Value::Null),
    ] {
        assert_eq!(c.call(&lent, method, &own, body).await.status, 403, "{method}");
    }
    let listed = c.call(&lent, "GET", "/credentials", Value::Null).await.json();
    assert_eq!(listed["credentials"].as_array().unwrap().len(), 1);
    // Roles and end are the application credential's.
    let cred = credential(c, &lent, &user, &project).await;
    for cred in [cred, json!({"access": "A", "secret": "B"})] {
        let a = ec2_token(c, &cred).await;
        assert_eq!(a.status, 200, "{}", a.json());
        let t = &a.json()["token"];
        assert_eq!(
            (&t["expires_at"], &t["application_credential"]["id"]),
            (&json!(end), &given["id"])
        );
        let mut roles: Vec<_> = t["roles"]
            .as_array()
            .unwrap()
            .iter()
            .map(|r| r["name"].clone())
            .collect();
        roles.sort_by_key(ToString::to_string);
        assert_eq!(json!(roles), json!(["member", "reader"]));
    }
    let made = token_of(&ec2_token(c, &json!({"access": "A", "secret": "B"})).await);
    assert!(good(c, &made).await);
    let gone = format!("{path}/{}", given["id"].as_str().unwrap());
    assert_eq!(c.call(&token, "DELETE", &gone, Value::Null).await.status, 204);
    assert!(!good(c, &made).await);
    assert_eq!(ec2_token(c, &json!({"access": "A", "secret": "B"})).await.status, 401);
    // A system-scoped token gives no project, and so no credential of its own user's for one.
    let system = token_of(&c.login("admin", &c.password, json!({"system": {"all": true}})).await);
    let admin = c.ok(200, "GET", "/users?name=admin", Value::Null).await["users"][0]["id"].clone();
    let mine = format!("/users/{}/credentials/OS-EC2", admin.as_str().unwrap());
    assert_eq!(
        c.call(&system, "POST", &mine, json!({"tenant_id": project}))
            .await
            .status,
        403
    );
}

/// CVE-2026-44394: however often a token is made from a token, it ends when the first one does.
pub async fn cve_2026_44394_rescoping_never_prolongs(c: &Cloud) {
    let (user, project, token) = c.tenant("karl", "member").await;
    let cred = credential(c, &token, &user, &project).await;
    let first = ec2_token(c, &cred).await;
    let end = first.json()["token"]["expires_at"].clone();
    let mut at = token_of(&first);
    for _ in 0..3 {
        let a = c.rescope(&at, Value::Null).await;
        assert_eq!(a.json()["token"]["expires_at"], end);
        at = token_of(&a);
    }
}
