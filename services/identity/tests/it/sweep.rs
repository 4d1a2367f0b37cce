//! Every route of the table, and what must never be seen anywhere.

use crate::cloud::Cloud;
use serde_json::{Value, json};

fn filled(path: &str) -> String {
    let mut out = String::new();
    let mut rest = path.strip_prefix("/identity").unwrap();
    while let Some(i) = rest.find('{') {
        out.push_str(&rest[..i]);
        out.push_str("0123456789abcdef0123456789abcdef");
        rest = &rest[rest.find('}').unwrap() + 1..];
    }
    out.push_str(rest);
    out.strip_prefix("/v3").unwrap_or(&out).to_owned()
}

pub async fn every_route_asks_who_you_are(c: &Cloud) {
    let public: Vec<String> = c
        .routes
        .iter()
        .filter(|r| r.rule == "public")
        .map(|r| format!("{} {}", r.method, r.path))
        .collect();
    assert_eq!(
        public,
        [
            "GET /identity",
            "GET /identity/",
            "GET /identity/v3",
            "GET /identity/v3/",
            "POST /identity/v3/auth/tokens",
            "GET /identity/v3/auth/tokens/OS-PKI/revoked",
            "POST /identity/v3/accounts",
            "POST /identity/v3/users/{user_id}/password",
            "GET /identity/v3/OS-OAUTH1/request_token",
            "POST /identity/v3/OS-OAUTH1/request_token",
            "GET /identity/v3/OS-OAUTH1/access_token",
            "POST /identity/v3/OS-OAUTH1/access_token",
            "POST /identity/v3/OS-OAUTH2/token",
            "GET /identity/v3/OS-OAUTH2/token",
            "PUT /identity/v3/OS-OAUTH2/token",
            "PATCH /identity/v3/OS-OAUTH2/token",
            "DELETE /identity/v3/OS-OAUTH2/token",
            "GET /identity/v3/OS-SIMPLE-CERT/ca",
            "GET /identity/v3/OS-SIMPLE-CERT/certificates",
            "GET /identity/v3/ec2tokens",
            "GET /identity/v3/s3tokens",
        ]
    );
    let before = c.rows().await;
    let mut bodies = Vec::new();
    for r in c.routes.iter().filter(|r| r.rule != "public") {
        for token in ["", "nonsense"] {
            let a = c
                .raw(r.method.as_str(), &filled(&r.path), &[("x-auth-token", token)], "{}")
                .await;
            assert_eq!(a.status, 401, "{} {}", r.method, r.path);
            bodies.push(a.body);
        }
        // Each names a rule that exists.
        assert!(haneul_identity::RULES.iter().any(|d| d.name == r.rule), "{}", r.rule);
    }
    assert!(bodies.windows(2).all(|w| w[0] == w[1]));
    assert_eq!(c.rows().await, before);
}

pub async fn a_reader_elsewhere_changes_nothing(c: &Cloud) {
    let (user, _, token) = c.tenant("tina", "reader").await;
    let (other, project, _) = c.tenant("uma", "member").await;
    let role = c.role("member").await;
    let before = c.rows().await;
    for r in c.routes.iter().filter(|r| r.rule != "public") {
        // Once with ids that are not there, once with somebody else's.
        let real = r
            .path
            .replace("{user_id}", &other)
            .replace("{project_id}", &project)
            .replace("{domain_id}", "default")
            .replace("{role_id}", &role)
            .replace("{region_id}", "RegionOne");
        for path in [filled(&r.path), filled(&real)] {
            for body in ["", "{}"] {
                let a = c
                    .raw(r.method.as_str(), &path, &[("x-auth-token", &token)], body.to_owned())
                    .await;
                let status = a.status.as_u16();
                let open = path.starts_with("/auth/") || path.starts_with("/regions")
                    // Everybody sees registered limits and his own limits.
                    || (path.starts_with("/registered_limits") || path.starts_with("/limits")) && r.method == http::Method::GET || path == "/domains/default"
                    // What is not there is not there, as in Keystone.
                    || path.starts_with("/OS-TRUST/trusts/")
                    // Each sees its own.
                    || path.starts_with("/credentials") && r.method == http::Method::GET;
                assert!(
                    status == 403 || (status == 400 && r.method != http::Method::GET) || (open && status < 500),
                    "{} {path}: {status} {}",
                    r.method,
                    a.json()
                );
            }
        }
    }
    assert_eq!(c.rows().await, before);
    assert_eq!(
        c.call(&token, "GET", &format!("/users/{user}"), Value::Null)
            .await
            .status,
        200
    );
    // Bodies that would be good from somebody who may.
    for (method, path, body) in [
        ("POST", "/domains".to_owned(), json!({"domain": {"name": "x"}})),
        (
            "PATCH",
            "/domains/default".to_owned(),
            json!({"domain": {"enabled": false}}),
        ),
        ("POST", "/projects".to_owned(), json!({"project": {"name": "x"}})),
        (
            "PATCH",
            format!("/projects/{project}"),
            json!({"project": {"enabled": false}}),
        ),
        ("POST", "/users".to_owned(), json!({"user": {"name": "x"}})),
        ("PATCH", format!("/users/{other}"), json!({"user": {"password": "x"}})),
        ("POST", "/groups".to_owned(), json!({"group": {"name": "x"}})),
        ("POST", "/roles".to_owned(), json!({"role": {"name": "x"}})),
        ("PATCH", format!("/roles/{role}"), json!({"role": {"name": "x"}})),
        ("PUT", format!("/projects/{project}/tags"), json!({"tags": ["x"]})),
        (
            "POST",
            format!("/users/{other}/application_credentials"),
            json!({"application_credential": {"name": "x"}}),
        ),
    ] {
        assert_eq!(c.call(&token, method, &path, body).await.status, 403, "{method} {path}");
    }
    assert_eq!(c.rows().await, before);
}

pub async fn no_secret_is_kept_or_told(c: &Cloud) {
    const SECRETS: [&str; 4] = ["hush-password", "hush-newer", "hush-appcred", "$2b$"];
    let user = c
        .make("user", json!({"name": "vera", "password": SECRETS[0], "password_x": 1}))
        .await;
    let project = c.make("project", json!({"name": "vera"})).await;
    let role = c.role("member").await;
    c.ok(
        204,
        "PUT",
        &format!("/projects/{project}/users/{user}/roles/{role}"),
        Value::Null,
    )
    .await;
    let a = c.login("vera", SECRETS[0], json!({"project": {"id": project}})).await;
    let token = crate::cloud::token_of(&a);
    let body = json!({"application_credential": {"name": "a", "secret": SECRETS[2]}});
    let a = c
        .call(&token, "POST", &format!("/users/{user}/application_credentials"), body)
        .await;
    assert_eq!(a.status, 201);
    let body = json!({"user": {"original_password": SECRETS[0], "password": SECRETS[1]}});
    assert_eq!(
        c.raw("POST", &format!("/users/{user}/password"), &[], body.to_string())
            .await
            .status,
        204
    );
    c.ok(
        200,
        "PATCH",
        &format!("/users/{user}"),
        json!({"user": {"password": SECRETS[1], "email": "v"}}),
    )
    .await;
    // Not in any document or change row.
    let mut tx = c.db.read().await.unwrap();
    for sql in [
        "SELECT state FROM change_log",
        "SELECT doc FROM identity_user",
        "SELECT doc FROM identity_app_cred",
    ] {
        for row in tx.rows(sql, &[]).await.unwrap() {
            let text = row.str(0).unwrap();
            assert!(
                SECRETS.iter().all(|s| !text.contains(s)) && !text.contains(&token),
                "{sql}: {text}"
            );
        }
    }
    drop(tx);
    // Not in any error, however wrong the request is.
    let secret = "hush-wrong";
    let number = 424_242;
    for (path, body) in [
        (
            "/auth/tokens",
            json!({"auth": {"identity": {"methods": 5, "password": {"user": {"name": "x", "password": secret}}}}}),
        ),
        (
            "/auth/tokens",
            json!({"auth": {"identity": {"password": {"user": {"name": "x", "password": secret}}}}}),
        ),
        (
            "/auth/tokens",
            json!({"auth": {"identity": {"methods": ["password"], "password": {"user": {"name": 7, "password": secret}}}}}),
        ),
        (
            "/auth/tokens",
            json!({"auth": {"identity": {"methods": ["password"], "password": {"user": {"name": "x", "password": number}}}}}),
        ),
        (
            "/auth/tokens",
            json!({"auth": {"identity": {"methods": ["password"], "password": {"user": {"name": "x", "password": [secret]}}}}}),
        ),
        (
            "/auth/tokens",
            json!({"auth": {"identity": {"methods": ["token"], "token": {"id": [secret]}}}}),
        ),
        (
            "/auth/tokens",
            json!({"auth": {"identity": {"methods": ["token"], "token": {"id": secret}}, "scope": 5}}),
        ),
        (
            "/auth/tokens",
            json!({"auth": {"identity": {"methods": ["application_credential"], "application_credential": {"id": 5, "secret": secret}}}}),
        ),
        ("/auth/tokens", json!({"auth": {"password": secret}})),
        ("/users", json!({"user": {"password": secret}})),
        ("/users", json!({"user": {"name": 5, "password": secret}})),
        ("/users", json!({"user": {"name": "x", "password": {"a": secret}}})),
        ("/users", json!({"user": {"name": "x", "password": number}})),
        (
            &format!("/users/{user}/password"),
            json!({"user": {"original_password": secret}}),
        ),
        (
            &format!("/users/{user}/password"),
            json!({"user": {"original_password": secret, "password": number}}),
        ),
    ] {
        let a = c.call(&c.admin, "POST", path, body).await;
        assert_eq!(a.status, 400, "{path} {}", a.json());
        let text = String::from_utf8_lossy(&a.body).into_owned();
        assert!(!text.contains(secret) && !text.contains("424242"), "{text}");
    }
}
