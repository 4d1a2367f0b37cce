use crate::cloud::{Cloud, past, token_of};
use haneul_core::clock;
use serde_json::{Value, json};

pub async fn scopes(c: &Cloud) {
    let admin_project = json!({"project": {"name": "admin", "domain": {"name": "Default"}}});
    let a = c.login("admin", &c.password, admin_project).await;
    assert_eq!(a.status, 201);
    let token = token_of(&a);
    assert!(token.len() < 255, "{}", token.len());
    let doc = a.json();
    let t = &doc["token"];
    assert_eq!(t["methods"], json!(["password"]));
    assert_eq!(t["project"]["name"], "admin");
    assert_eq!(t["project"]["domain"], json!({"id": "default", "name": "Default"}));
    assert_eq!(t["is_domain"], false);
    assert_eq!(t["user"]["name"], "admin");
    let mut roles: Vec<&str> = t["roles"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| r["name"].as_str().unwrap())
        .collect();
    roles.sort_unstable();
    assert_eq!(
        roles,
        ["admin", "manager", "member", "reader"],
        "implied roles are in the token"
    );
    assert_eq!(t["audit_ids"].as_array().unwrap().len(), 1);
    assert_eq!(t["catalog"].as_array().unwrap().len(), 5);
    let project = t["project"]["id"].clone();
    let user = t["user"]["id"].clone();
    // By ids.
    let by_id = c
        .auth(json!({
            "identity": {"methods": ["password"], "password": {"user": {"id": user, "password": c.password}}},
            "scope": {"project": {"id": project}},
        }))
        .await;
    assert_eq!(by_id.status, 201);
    // Unscoped: no roles, no catalog.
    for scope in [Value::Null, json!("unscoped"), json!({"unscoped": {}})] {
        let a = c.login("admin", &c.password, scope).await;
        assert_eq!(a.status, 201);
        let t = a.json()["token"].clone();
        assert!(t.get("roles").is_none() && t.get("catalog").is_none() && t.get("project").is_none());
    }
    // System.
    let a = c.login("admin", &c.password, json!({"system": {"all": true}})).await;
    assert_eq!(a.json()["token"]["system"], json!({"all": true}));
    // A system token does not become one of a project.
    let system = token_of(&a);
    assert_eq!(
        c.rescope(&system, json!({"project": {"id": project}})).await.status,
        403
    );
    // Domain: not without a role there.
    let domain = json!({"domain": {"id": "default"}});
    assert_eq!(c.login("admin", &c.password, domain.clone()).await.status, 401);
    let role = c.role("admin").await;
    c.ok(
        204,
        "PUT",
        &format!("/domains/default/users/{}/roles/{role}", user.as_str().unwrap()),
        Value::Null,
    )
    .await;
    let a = c.login("admin", &c.password, domain).await;
    assert_eq!(a.json()["token"]["domain"], json!({"id": "default", "name": "Default"}));
    assert!(a.json()["token"].get("project").is_none());
    // The default project is the scope of who names none, as long as it can be used.
    let (user, own, _) = c.tenant("defaulted", "member").await;
    c.ok(
        200,
        "PATCH",
        &format!("/users/{user}"),
        json!({"user": {"default_project_id": own}}),
    )
    .await;
    let a = c.login("defaulted", "secret", Value::Null).await;
    assert_eq!(a.json()["token"]["project"]["id"], json!(own));
    c.ok(
        200,
        "PATCH",
        &format!("/projects/{own}"),
        json!({"project": {"enabled": false}}),
    )
    .await;
    let a = c.login("defaulted", "secret", Value::Null).await;
    assert_eq!(a.status, 201);
    assert!(
        a.json()["token"].get("project").is_none(),
        "a disabled default project leaves the token unscoped"
    );
    // Without the catalog when asked so.
    let auth = json!({"auth": {"identity": {"methods": ["token"], "token": {"id": token}}, "scope": {"project": {"id": project}}}});
    let a = c.raw("POST", "/auth/tokens?nocatalog", &[], auth.to_string()).await;
    assert_eq!(a.status, 201);
    assert!(a.json()["token"].get("catalog").is_none());
}

pub async fn refusals_are_all_the_same(c: &Cloud) {
    let (_, _, _) = c.tenant("alice", "member").await;
    let (bob, _, _) = c.tenant("bob", "member").await;
    c.ok(
        200,
        "PATCH",
        &format!("/users/{bob}"),
        json!({"user": {"enabled": false}}),
    )
    .await;
    c.make("user", json!({"name": "no-password", "domain_id": "default"}))
        .await;
    let mut seen = Vec::new();
    let project = |name: &str| json!({"project": {"name": name, "domain": {"id": "default"}}});
    for (user, password, scope) in [
        ("nobody", "secret", Value::Null),
        ("alice", "wrong", Value::Null),
        ("alice", "", Value::Null),
        ("bob", "secret", Value::Null),
        ("bob", "wrong", Value::Null),
        ("no-password", "secret", Value::Null),
        ("alice", "secret", project("bob")),
        ("alice", "secret", project("nothing")),
        ("alice", "secret", json!({"project": {"id": "nothing"}})),
        ("alice", "secret", json!({"domain": {"id": "default"}})),
        ("alice", "secret", json!({"system": {"all": true}})),
    ] {
        seen.push((format!("{user}/{password}"), c.login(user, password, scope).await));
    }
    for methods in [json!([]), json!(["saml2"]), json!(["external"])] {
        seen.push((
            methods.to_string(),
            c.auth(json!({"identity": {"methods": methods}})).await,
        ));
    }
    let unknown_domain = json!({"identity": {"methods": ["password"], "password": {
        "user": {"name": "alice", "password": "secret", "domain": {"name": "nowhere"}}}}});
    seen.push(("unknown domain".into(), c.auth(unknown_domain).await));
    // A token that is shown for another one, and is none or was revoked, as Keystone refuses it.
    let gone = token_of(&c.login("alice", "secret", Value::Null).await);
    let both = [("x-auth-token", c.admin.as_str()), ("x-subject-token", gone.as_str())];
    assert_eq!(c.raw("DELETE", "/auth/tokens", &both, "").await.status, 204);
    for token in ["gAAAAABnonsense", &gone] {
        let a = c.rescope(token, Value::Null).await;
        let told = json!({"error": {"code": 404, "title": "Not Found", "message": "Could not find token."}});
        assert_eq!((a.status.as_u16(), a.json()), (404, told));
    }
    seen.push((
        "app cred".into(),
        c.auth(json!({"identity": {"methods": ["application_credential"],
            "application_credential": {"id": "nothing", "secret": "x"}}}))
            .await,
    ));
    seen.push(("no token".into(), c.raw("GET", "/users", &[], "").await));
    seen.push((
        "bad token".into(),
        c.call("nonsense", "GET", "/users", Value::Null).await,
    ));
    seen.push((
        "no route".into(),
        c.call("nonsense", "GET", "/nothing", Value::Null).await,
    ));
    for (what, a) in &seen {
        assert_eq!(a.status, 401, "{what}");
        assert_eq!(a.body, seen[0].1.body, "{what}: the text tells nothing");
        assert_eq!(a.headers.get("www-authenticate").unwrap(), "Keystone uri=\"/identity\"");
    }
    assert_eq!(
        seen[0].1.json(),
        json!({"error": {"code": 401, "title": "Unauthorized", "message": "The request you have made requires authentication."}})
    );
}

pub async fn rescoping_never_prolongs(c: &Cloud) {
    let (_, project, first) = c.tenant("carol", "member").await;
    let show = async |t: &str| {
        c.raw(
            "GET",
            "/auth/tokens?nocatalog",
            &[("x-auth-token", t), ("x-subject-token", t)],
            "",
        )
        .await
        .json()["token"]
            .clone()
    };
    let one = show(&first).await;
    let mut token = first.clone();
    for _ in 0..3 {
        let a = c.rescope(&token, json!({"project": {"id": project}})).await;
        assert_eq!(a.status, 201);
        token = token_of(&a);
        assert!(token.len() < 255);
        let t = a.json()["token"].clone();
        assert_eq!(t["expires_at"], one["expires_at"], "CVE-2026-44394");
        assert_ne!(t["issued_at"], one["issued_at"]);
        assert_eq!(t["methods"], json!(["token", "password"]));
        let ids = t["audit_ids"].as_array().unwrap();
        assert_eq!(ids.len(), 2);
        assert_eq!(ids[1], one["audit_ids"][0], "the chain names its first token");
        assert_eq!(show(&token).await, {
            let mut t = t.clone();
            t.as_object_mut().unwrap().remove("catalog");
            t
        });
    }
    // Together with a password the shown token still limits it.
    let a = c
        .auth(json!({"identity": {"methods": ["password", "token"],
            "password": {"user": {"name": "carol", "password": "secret", "domain": {"id": "default"}}},
            "token": {"id": token}}}))
        .await;
    assert_eq!(a.json()["token"]["expires_at"], one["expires_at"]);
    // Two methods, two users.
    let a = c
        .auth(json!({"identity": {"methods": ["password", "token"],
            "password": {"user": {"name": "carol", "password": "secret", "domain": {"id": "default"}}},
            "token": {"id": c.admin}}}))
        .await;
    assert_eq!(a.status, 401);
}

pub async fn revocation_is_seen_at_once(c: &Cloud) {
    let (user, project, token) = c.tenant("dave", "member").await;
    let role = c.role("member").await;
    let scope = json!({"project": {"id": project}});
    let fresh = async || token_of(&c.login("dave", "secret", scope.clone()).await);
    // The token itself, by its owner; its neighbours stay.
    let other = fresh().await;
    assert!(c.is_good(&token).await && c.is_good(&other).await);
    let a = c
        .raw(
            "DELETE",
            "/auth/tokens",
            &[("x-auth-token", &token), ("x-subject-token", &token)],
            "",
        )
        .await;
    assert_eq!(a.status, 204);
    assert!(!c.is_good(&token).await);
    assert!(c.is_good(&other).await);
    assert_eq!(c.rescope(&token, Value::Null).await.status, 404);
    // The user is disabled, and tokens from before stay dead when it is enabled again.
    c.ok(
        200,
        "PATCH",
        &format!("/users/{user}"),
        json!({"user": {"enabled": false}}),
    )
    .await;
    assert!(!c.is_good(&other).await);
    c.ok(
        200,
        "PATCH",
        &format!("/users/{user}"),
        json!({"user": {"enabled": true}}),
    )
    .await;
    assert!(!c.is_good(&other).await);
    // The password is set by the administrator, then by the user.
    let t = fresh().await;
    c.ok(
        200,
        "PATCH",
        &format!("/users/{user}"),
        json!({"user": {"password": "secret"}}),
    )
    .await;
    assert!(!c.is_good(&t).await);
    let t = fresh().await;
    let body = json!({"user": {"password": "secret", "original_password": "secret"}});
    assert_eq!(
        c.raw("POST", &format!("/users/{user}/password"), &[], body.to_string())
            .await
            .status,
        204
    );
    assert!(!c.is_good(&t).await);
    // The role is taken away and given back: the token follows.
    let t = fresh().await;
    let grant = format!("/projects/{project}/users/{user}/roles/{role}");
    c.ok(204, "DELETE", &grant, Value::Null).await;
    assert!(!c.is_good(&t).await);
    // Nor is it good for what needs no role.
    assert_eq!(c.rescope(&t, json!("unscoped")).await.status, 404);
    c.ok(204, "PUT", &grant, Value::Null).await;
    assert!(c.is_good(&t).await);
    // The project is disabled.
    c.ok(
        200,
        "PATCH",
        &format!("/projects/{project}"),
        json!({"project": {"enabled": false}}),
    )
    .await;
    assert!(!c.is_good(&t).await);
    c.ok(
        200,
        "PATCH",
        &format!("/projects/{project}"),
        json!({"project": {"enabled": true}}),
    )
    .await;
    assert!(!c.is_good(&t).await);
    // A token shows a new name and a new role.
    let t = fresh().await;
    let shown = async |t: &str| {
        c.raw(
            "GET",
            "/auth/tokens?nocatalog",
            &[("x-auth-token", t), ("x-subject-token", t)],
            "",
        )
        .await
        .json()["token"]
            .clone()
    };
    assert!(!shown(&t).await["roles"].to_string().contains("manager"));
    let manager = c.role("manager").await;
    c.ok(
        204,
        "PUT",
        &format!("/projects/{project}/users/{user}/roles/{manager}"),
        Value::Null,
    )
    .await;
    c.ok(
        200,
        "PATCH",
        &format!("/users/{user}"),
        json!({"user": {"name": "david"}}),
    )
    .await;
    let now = shown(&t).await;
    assert!(now["roles"].to_string().contains("manager"));
    assert_eq!(now["user"]["name"], "david");
    c.ok(
        200,
        "PATCH",
        &format!("/users/{user}"),
        json!({"user": {"name": "dave"}}),
    )
    .await;
    // The project goes, then the user.
    let unscoped = token_of(&c.login("dave", "secret", json!("unscoped")).await);
    c.ok(204, "DELETE", &format!("/projects/{project}"), Value::Null).await;
    assert!(!c.is_good(&t).await);
    assert!(c.is_good(&unscoped).await);
    c.ok(204, "DELETE", &format!("/users/{user}"), Value::Null).await;
    assert!(!c.is_good(&unscoped).await);
    // A domain is disabled: its users are out, and so is who is scoped to what is in it.
    let domain = c.make("domain", json!({"name": "d1"})).await;
    let inside = c.make("project", json!({"name": "p", "domain_id": domain})).await;
    let (erin, _, _) = c.tenant("erin", "member").await;
    c.ok(
        204,
        "PUT",
        &format!("/projects/{inside}/users/{erin}/roles/{role}"),
        Value::Null,
    )
    .await;
    let t = token_of(&c.login("erin", "secret", json!({"project": {"id": inside}})).await);
    c.ok(
        200,
        "PATCH",
        &format!("/domains/{domain}"),
        json!({"domain": {"enabled": false}}),
    )
    .await;
    assert!(!c.is_good(&t).await);
}

pub async fn who_may_validate(c: &Cloud) {
    let (_, _, one) = c.tenant("one", "member").await;
    let (_, _, two) = c.tenant("two", "manager").await;
    let (_, _, service) = c.tenant("nova", "service").await;
    let ask = async |method: &str, by: &str, of: &str| {
        c.raw(
            method,
            "/auth/tokens",
            &[("x-auth-token", by), ("x-subject-token", of)],
            "",
        )
        .await
    };
    for (by, of, status) in [
        (&one, &one, 200),
        (&one, &two, 403),
        (&service, &one, 200),
        (&c.admin, &one, 200),
    ] {
        let a = ask("GET", by, of).await;
        assert_eq!(a.status, status);
        if status == 200 {
            assert_eq!(a.headers.get("x-subject-token").unwrap(), of.as_str());
            assert!(a.json()["token"]["catalog"].is_array());
        }
    }
    // HEAD has a rule of its own (check_token), which the service role is not in.
    assert_eq!(ask("HEAD", &service, &one).await.status, 403);
    let head = ask("HEAD", &c.admin, &one).await;
    assert_eq!((head.status.as_u16(), head.body.len()), (200, 0));
    assert_eq!(ask("DELETE", &two, &one).await.status, 403);
    assert_eq!(ask("DELETE", &service, &one).await.status, 403);
    assert_eq!(ask("GET", &c.admin, "nonsense").await.status, 404);
    assert_eq!(c.call(&c.admin, "GET", "/auth/tokens", Value::Null).await.status, 404);
    assert_eq!(ask("DELETE", &c.admin, &one).await.status, 204);
    assert_eq!(ask("DELETE", &c.admin, &one).await.status, 404);
}

pub async fn forged_ones_are_refused(c: &Cloud) {
    let (_, _, token) = c.tenant("frank", "member").await;
    assert!(c.is_good(&token).await);
    // One bit anywhere.
    for at in [0, 1, 10, 20, 60, 100, token.len() - 20, token.len() - 3] {
        let mut bytes = token.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        let forged = String::from_utf8(bytes).unwrap();
        assert!(!c.is_good(&forged).await, "{at}");
    }
    for bad in [
        "",
        "x",
        "gAAAAA",
        &token[..token.len() - 4],
        &format!("{token}AAAA"),
        &"A".repeat(4000),
    ] {
        assert!(!c.is_good(bad).await, "{bad}");
    }
    // With padding it is the same token.
    assert!(
        c.is_good(&format!("{token}{}", "=".repeat((4 - token.len() % 4) % 4)))
            .await
    );
    // Another cloud's keys.
    let other = Cloud::sqlite().await;
    assert!(!c.is_good(&other.admin).await);
    // Two rotations keep it, by way of the kept keys; the third forgets its key.
    c.identity.rotate().unwrap();
    assert!(c.is_good(&token).await);
    let newer = token_of(&c.login("frank", "secret", Value::Null).await);
    assert!(c.is_good(&newer).await);
}

pub async fn catalog_and_versions(c: &Cloud) {
    use haneul_http::client::send;
    for path in ["/identity", "/identity/"] {
        let a = send(&c.peer, http::Method::GET, path, &[], "").await.unwrap();
        assert_eq!(a.status, 300);
        let v = a.json()["versions"]["values"][0].clone();
        assert_eq!(v["id"], "v3.14");
        assert_eq!(v["status"], "stable");
        assert_eq!(v["links"][0]["href"], json!(format!("{}/identity/v3/", c.url)));
    }
    for path in ["", "/"] {
        let a = c.raw("GET", path, &[], "").await;
        assert_eq!(a.status, 200);
        assert_eq!(a.json()["version"]["id"], "v3.14");
    }
    let doc = c.ok(200, "GET", "/auth/catalog", Value::Null).await;
    let services = doc["catalog"].as_array().unwrap();
    let mut kinds: Vec<&str> = services.iter().map(|s| s["type"].as_str().unwrap()).collect();
    kinds.sort_unstable();
    assert_eq!(kinds, ["compute", "identity", "image", "network", "placement"]);
    for s in services {
        let interfaces: Vec<&str> = s["endpoints"]
            .as_array()
            .unwrap()
            .iter()
            .map(|e| e["interface"].as_str().unwrap())
            .collect();
        assert_eq!(interfaces, ["admin", "internal", "public"]);
    }
    let (_, _, member) = c.tenant("gina", "member").await;
    let unscoped = token_of(&c.login("gina", "secret", json!("unscoped")).await);
    assert_eq!(c.call(&member, "GET", "/auth/catalog", Value::Null).await.status, 200);
    assert_eq!(c.call(&unscoped, "GET", "/auth/catalog", Value::Null).await.status, 403);
    // What is in it can be read one by one.
    for (path, list, one) in [
        ("/services", "services", "service"),
        ("/endpoints", "endpoints", "endpoint"),
        ("/regions", "regions", "region"),
    ] {
        let doc = c.ok(200, "GET", path, Value::Null).await;
        let id = doc[list][0]["id"].as_str().unwrap().to_owned();
        let doc = c.ok(200, "GET", &format!("{path}/{id}"), Value::Null).await;
        assert_eq!(doc[one]["id"], json!(id));
        c.ok(404, "GET", &format!("{path}/nothing"), Value::Null).await;
    }
    assert_eq!(
        c.ok(200, "GET", "/endpoints?interface=public", Value::Null).await["endpoints"]
            .as_array()
            .unwrap()
            .len(),
        5
    );
    assert_eq!(
        c.ok(200, "GET", "/services?type=compute", Value::Null).await["services"][0]["name"],
        "nova"
    );
    // Where one may go.
    let doc = c.call(&unscoped, "GET", "/auth/projects", Value::Null).await.json();
    assert_eq!(doc["projects"].as_array().unwrap().len(), 1);
    assert_eq!(
        c.call(&unscoped, "GET", "/auth/domains", Value::Null).await.json()["domains"],
        json!([])
    );
    assert_eq!(
        c.call(&unscoped, "GET", "/auth/system", Value::Null).await.json()["system"],
        json!([])
    );
    assert_eq!(
        c.ok(200, "GET", "/auth/system", Value::Null).await["system"],
        json!([{"all": true}])
    );
}

pub async fn passwords(c: &Cloud) {
    // Every byte counts, also beyond the 72 that bcrypt sees.
    let long = "x".repeat(100);
    let user = c
        .make(
            "user",
            json!({"name": "long", "domain_id": "default", "password": long}),
        )
        .await;
    assert_eq!(c.login("long", &long, Value::Null).await.status, 201);
    assert_eq!(c.login("long", &long[..99], Value::Null).await.status, 401);
    assert_eq!(c.login("long", &format!("{long}y"), Value::Null).await.status, 401);
    // Changed by its owner, with the old one as the proof.
    let change = async |old: &str, new: &str| {
        let body = json!({"user": {"original_password": old, "password": new}});
        c.raw("POST", &format!("/users/{user}/password"), &[], body.to_string())
            .await
            .status
            .as_u16()
    };
    assert_eq!(change("wrong", "new").await, 401);
    assert_eq!(change(&long, "new").await, 204);
    assert_eq!(c.login("long", &long, Value::Null).await.status, 401);
    assert_eq!(c.login("long", "new", Value::Null).await.status, 201);
    // Null takes it away.
    c.ok(
        200,
        "PATCH",
        &format!("/users/{user}"),
        json!({"user": {"password": null}}),
    )
    .await;
    assert_eq!(c.login("long", "new", Value::Null).await.status, 401);
    // Five wrong ones lock it, for the right one too; setting a password opens it.
    c.ok(
        200,
        "PATCH",
        &format!("/users/{user}"),
        json!({"user": {"password": "a"}}),
    )
    .await;
    let before = c.rows().await;
    for _ in 0..4 {
        assert_eq!(c.login("long", "wrong", Value::Null).await.status, 401);
    }
    assert_eq!(c.login("long", "a", Value::Null).await.status, 201, "four are forgiven");
    for _ in 0..5 {
        assert_eq!(c.login("long", "wrong", Value::Null).await.status, 401);
    }
    assert_eq!(c.login("long", "a", Value::Null).await.status, 401, "five are not");
    assert_eq!(change("a", "b").await, 401, "nor here");
    assert_eq!(c.rows().await, before, "counting failures is no change");
    c.ok(
        200,
        "PATCH",
        &format!("/users/{user}"),
        json!({"user": {"password": "a"}}),
    )
    .await;
    assert_eq!(c.login("long", "a", Value::Null).await.status, 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn expired_tokens_and_locks_end() {
    // Longer where the machine was too slow to see them before their end.
    for seconds in [2, 8, 32] {
        let c = Cloud::with(|config| {
            config.identity.token_seconds = seconds;
            config.security_compliance.lockout_failure_attempts = 1;
            config.security_compliance.lockout_duration = seconds;
        })
        .await;
        if expire_and_end(&c, seconds * clock::SECOND).await {
            return;
        }
    }
    panic!("32 s are not enough for a few calls");
}

/// Whether tokens and locks were seen before their end as well.
async fn expire_and_end(c: &Cloud, lasts: i64) -> bool {
    // Its token was issued at the start and will be needed again: each call below logs in anew.
    let scope = json!({"project": {"name": "admin", "domain": {"id": "default"}}});
    let end = clock::now() + lasts;
    let token = token_of(&c.login("admin", &c.password, scope.clone()).await);
    let get = async |t: &str| c.call(t, "GET", "/users", Value::Null).await.status.as_u16();
    let before = get(&token).await;
    assert_eq!(c.login("admin", "wrong", Value::Null).await.status, 401);
    let locked = c.login("admin", &c.password, Value::Null).await.status;
    let rescoped = c.rescope(&token, scope.clone()).await;
    if clock::now() >= end {
        return false;
    }
    assert_eq!((before, locked.as_u16()), (200, 401), "good, and locked");
    let rescoped = token_of(&rescoped);
    // Both began after `end` was told, and before now.
    past(clock::now() + lasts).await;
    assert_eq!(get(&token).await, 401, "expired, though it was in the cache");
    assert_eq!(get(&rescoped).await, 401, "with the one that it was made from");
    assert_eq!(
        c.login("admin", &c.password, scope).await.status,
        201,
        "the lock has passed"
    );
    true
}

#[tokio::test(flavor = "multi_thread")]
async fn many_guesses_at_once_get_no_more_tries() {
    let c = std::sync::Arc::new(Cloud::with(|config| config.security_compliance.lockout_failure_attempts = 3).await);
    let guesses: Vec<_> = (0..20)
        .map(|i| {
            let c = c.clone();
            tokio::spawn(async move {
                c.login("admin", &format!("guess{i}"), Value::Null)
                    .await
                    .status
                    .as_u16()
            })
        })
        .collect();
    for g in guesses {
        assert_eq!(g.await.unwrap(), 401);
    }
    assert_eq!(c.login("admin", &c.password, Value::Null).await.status, 401, "locked");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_keeps_tokens_and_follows_the_configuration() {
    use haneul_identity::Identity;
    let c = Cloud::sqlite().await;
    let mut config = haneul_core::config::Config::default();
    config.api.public_url = Some("http://127.0.0.1:9/".into());
    config.api.region = "Seoul".into();
    let again = Identity::new(c.db.clone(), &config, c.dir.join("keys")).unwrap();
    use haneul_auth::Authenticator;
    assert!(again.authenticate(&c.admin).await.is_ok(), "the same keys");
    assert_eq!(again.bootstrap(None).await.unwrap(), None);
    let mut tx = c.db.read().await.unwrap();
    let rows = tx.rows("SELECT doc FROM identity_endpoint", &[]).await.unwrap();
    assert_eq!(rows.len(), 15, "changed, not doubled");
    for r in rows {
        let doc = r.str(0).unwrap();
        assert!(doc.contains("http://127.0.0.1:9/") && doc.contains("Seoul"), "{doc}");
    }
    drop(tx);
    // What an operator removed does not come back.
    let service = c.ok(200, "GET", "/projects?name=service", Value::Null).await["projects"][0]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    c.ok(204, "DELETE", &format!("/projects/{service}"), Value::Null).await;
    c.identity.bootstrap(None).await.unwrap();
    assert_eq!(
        c.ok(200, "GET", "/projects?name=service", Value::Null).await["projects"],
        json!([])
    );
    // A lost password.
    let password = c.identity.reset_admin_password().await.unwrap();
    assert_eq!(c.login("admin", &c.password, Value::Null).await.status, 401);
    assert_eq!(c.login("admin", &password, Value::Null).await.status, 201);
    assert_eq!(c.call(&c.admin, "GET", "/users", Value::Null).await.status, 401);
}

/// Whoever holds a stolen token, or knows the password, tries to carry it over the moment when it is revoked.
#[tokio::test(flavor = "multi_thread")]
async fn no_token_slips_through_a_revocation() {
    let c = std::sync::Arc::new(Cloud::with(|_| {}).await);
    let (user, project, _) = c.tenant("mona", "member").await;
    let scope = json!({"project": {"id": project}});
    let mut known = "secret".to_owned();
    let mut slipped = [0, 0];
    for n in 0..40 {
        let stolen = token_of(&c.login("mona", &known, scope.clone()).await);
        let thieves: Vec<_> = (0..4)
            .map(|thief| {
                let (c, stolen, known, scope) = (c.clone(), stolen.clone(), known.clone(), scope.clone());
                tokio::spawn(async move {
                    let mut last = None;
                    loop {
                        let a = match thief % 2 {
                            0 => c.rescope(&stolen, scope.clone()).await,
                            _ => c.login("mona", &known, scope.clone()).await,
                        };
                        if a.status != 201 {
                            return (thief % 2, last);
                        }
                        last = Some(token_of(&a));
                    }
                })
            })
            .collect();
        known = format!("secret-{n}");
        let path = format!("/users/{user}");
        c.ok(200, "PATCH", &path, json!({"user": {"password": known}})).await;
        for t in thieves {
            if let (by, Some(last)) = t.await.unwrap()
                && c.is_good(&last).await
            {
                slipped[by] += 1;
            }
        }
    }
    assert_eq!(
        slipped,
        [0, 0],
        "tokens by token and by password that outlived what they were made from"
    );
}

/// Hashing a new password takes its time, in which the old one may have ceased to be a permission.
#[tokio::test(flavor = "multi_thread")]
async fn a_reset_password_is_not_undone_by_who_knows_the_old_one() {
    let c = std::sync::Arc::new(Cloud::with(|config| config.identity.bcrypt_rounds = 6).await);
    let (user, _, _) = c.tenant("nora", "member").await;
    let mut known = "secret".to_owned();
    for n in 0..20 {
        let thieves: Vec<_> = (0..4)
            .map(|_| {
                let (c, path) = (c.clone(), format!("/users/{user}/password"));
                let body = json!({"user": {"password": "stolen", "original_password": known}}).to_string();
                tokio::spawn(async move { c.raw("POST", &path, &[], body).await.status })
            })
            .collect();
        known = format!("reset-{n}");
        let body = json!({"user": {"password": known}});
        c.ok(200, "PATCH", &format!("/users/{user}"), body).await;
        for t in thieves {
            t.await.unwrap();
        }
        assert_eq!(c.login("nora", &known, Value::Null).await.status, 201, "round {n}");
    }
}
