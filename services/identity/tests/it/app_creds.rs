use crate::cloud::{Cloud, token_of, until_the_end};
use serde_json::{Value, json};

async fn make(c: &Cloud, token: &str, user: &str, body: Value) -> (u16, Value) {
    let a = c
        .call(
            token,
            "POST",
            &format!("/users/{user}/application_credentials"),
            json!({ "application_credential": body }),
        )
        .await;
    (a.status.as_u16(), a.json()["application_credential"].clone())
}

async fn login(c: &Cloud, id: &Value, secret: &Value) -> haneul_http::client::Answer {
    c.auth(json!({"identity": {"methods": ["application_credential"],
        "application_credential": {"id": id, "secret": secret}}}))
        .await
}

pub async fn life(c: &Cloud) {
    let (user, project, token) = c.tenant("hana", "member").await;
    let (status, cred) = make(c, &token, &user, json!({"name": "ci", "description": "builds"})).await;
    assert_eq!(status, 201);
    assert_eq!(cred["project_id"], json!(project));
    assert_eq!(cred["user_id"], json!(user));
    assert_eq!(cred["unrestricted"], false);
    let mut names: Vec<&str> = cred["roles"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| r["name"].as_str().unwrap())
        .collect();
    names.sort_unstable();
    assert_eq!(names, ["member", "reader"], "the token's roles");
    let secret = cred["secret"].clone();
    assert!(secret.as_str().unwrap().len() >= 64);
    let path = format!("/users/{user}/application_credentials/{}", cred["id"].as_str().unwrap());
    let shown = c.call(&token, "GET", &path, Value::Null).await.json()["application_credential"].clone();
    assert!(shown.get("secret").is_none(), "shown once");
    assert_eq!(shown["name"], "ci");
    // By id, and by name with its user.
    let a = login(c, &cred["id"], &secret).await;
    assert_eq!(a.status, 201);
    let t = a.json()["token"].clone();
    assert_eq!(t["methods"], json!(["application_credential"]));
    assert_eq!(t["project"]["id"], json!(project));
    assert_eq!(
        t["application_credential"],
        json!({"id": cred["id"], "name": "ci", "restricted": true})
    );
    assert!(token_of(&a).len() < 255);
    for who in [
        json!({"id": user}),
        json!({"name": "hana", "domain": {"name": "Default"}}),
    ] {
        let a = c
            .auth(json!({"identity": {"methods": ["application_credential"],
                "application_credential": {"name": "ci", "secret": secret, "user": who}}}))
            .await;
        assert_eq!(a.status, 201);
    }
    assert_eq!(login(c, &cred["id"], &json!("wrong")).await.status, 401);
    // A scope cannot be asked for, nor a scoped token made from its token.
    let a = c
        .auth(json!({"identity": {"methods": ["application_credential"],
            "application_credential": {"id": cred["id"], "secret": secret}}, "scope": {"project": {"id": project}}}))
        .await;
    assert_eq!(a.status, 401);
    let own = token_of(&login(c, &cred["id"], &secret).await);
    assert_eq!(c.rescope(&own, json!({"project": {"id": project}})).await.status, 403);
    let again = c.rescope(&own, Value::Null).await;
    assert_eq!(
        again.json()["token"]["application_credential"]["id"],
        cred["id"],
        "it stays within its bounds"
    );
    // Twice the same name; others' are not seen; paths of others lead nowhere.
    assert_eq!(make(c, &token, &user, json!({"name": "ci"})).await.0, 409);
    let (other, _, other_token) = c.tenant("ivan", "member").await;
    assert_eq!(c.call(&other_token, "GET", &path, Value::Null).await.status, 403);
    let crossed = path.replace(&user, &other);
    assert_eq!(c.call(&other_token, "GET", &crossed, Value::Null).await.status, 403);
    assert_eq!(c.call(&other_token, "DELETE", &crossed, Value::Null).await.status, 403);
    assert_eq!(make(c, &other_token, &user, json!({"name": "x"})).await.0, 403);
    assert_eq!(
        make(c, &c.admin, &user, json!({"name": "x"})).await.0,
        403,
        "not even the administrator"
    );
    let list = c
        .call(
            &token,
            "GET",
            &format!("/users/{user}/application_credentials"),
            Value::Null,
        )
        .await
        .json();
    assert_eq!(list["application_credentials"].as_array().unwrap().len(), 1);
    assert_eq!(
        c.call(
            &other_token,
            "GET",
            &format!("/users/{user}/application_credentials"),
            Value::Null
        )
        .await
        .status,
        403
    );
    // A secret of one's own.
    let (_, mine) = make(c, &token, &user, json!({"name": "mine", "secret": "s3cret"})).await;
    assert_eq!(login(c, &mine["id"], &json!("s3cret")).await.status, 201);
    // Deleted: the tokens end.
    assert!(c.is_good(&own).await);
    assert_eq!(c.call(&token, "DELETE", &path, Value::Null).await.status, 204);
    assert!(!c.is_good(&own).await);
    assert_eq!(login(c, &cred["id"], &secret).await.status, 401);
    assert_eq!(c.call(&token, "GET", &path, Value::Null).await.status, 404);
    // One with an end.
    let (soon, (short, a)) = until_the_end(async |soon| {
        let end = haneul_core::clock::naive_micros(soon);
        let body = json!({"name": format!("ends at {end}"), "expires_at": end});
        let (status, short) = make(c, &token, &user, body).await;
        assert_eq!(status, 201);
        let a = login(c, &short["id"], &short["secret"]).await;
        (short, a)
    })
    .await;
    assert_eq!(
        a.json()["token"]["expires_at"],
        json!(haneul_core::clock::iso_micros(soon))
    );
    assert!(!c.is_good(&token_of(&a)).await);
    assert_eq!(login(c, &short["id"], &short["secret"]).await.status, 401);
}

pub async fn never_more_than_the_user_has(c: &Cloud) {
    let (user, project, _) = c.tenant("jane", "member").await;
    let (manager, reader) = (c.role("manager").await, c.role("reader").await);
    let grant = |role: &str| format!("/projects/{project}/users/{user}/roles/{role}");
    c.ok(204, "PUT", &grant(&manager), Value::Null).await;
    let token = token_of(&c.login("jane", "secret", json!({"project": {"id": project}})).await);
    // A role that the user has not.
    let admin = c.role("admin").await;
    assert_eq!(
        make(c, &token, &user, json!({"name": "a", "roles": [{"id": admin}]}))
            .await
            .0,
        400
    );
    assert_eq!(
        make(c, &token, &user, json!({"name": "a", "roles": [{"name": "admin"}]}))
            .await
            .0,
        400
    );
    // One of them.
    let (_, cred) = make(
        c,
        &token,
        &user,
        json!({"name": "r", "roles": [{"name": "reader"}], "unrestricted": true}),
    )
    .await;
    let t = login(c, &cred["id"], &cred["secret"]).await.json()["token"]["roles"].clone();
    assert_eq!(t, json!([{"id": reader, "name": "reader"}]));
    // A credential made with it has no more than it.
    let own = token_of(&login(c, &cred["id"], &cred["secret"]).await);
    assert_eq!(
        make(c, &own, &user, json!({"name": "more", "roles": [{"name": "member"}]}))
            .await
            .0,
        400
    );
    let (status, less) = make(c, &own, &user, json!({"name": "less"})).await;
    assert_eq!((status, less["roles"].as_array().unwrap().len()), (201, 1));
    // By a group: the role goes with the membership, and the credential is worth nothing without.
    let group = c.make("group", json!({"name": "g", "domain_id": "default"})).await;
    let (kim, _, _) = c.tenant("kim", "member").await;
    c.ok(204, "PUT", &format!("/groups/{group}/users/{kim}"), Value::Null)
        .await;
    c.ok(
        204,
        "PUT",
        &format!("/projects/{project}/groups/{group}/roles/{manager}"),
        Value::Null,
    )
    .await;
    let kims = token_of(&c.login("kim", "secret", json!({"project": {"id": project}})).await);
    let (_, cred) = make(c, &kims, &kim, json!({"name": "k"})).await;
    let t = token_of(&login(c, &cred["id"], &cred["secret"]).await);
    assert!(c.is_good(&t).await);
    c.ok(204, "DELETE", &format!("/groups/{group}/users/{kim}"), Value::Null)
        .await;
    assert!(!c.is_good(&t).await);
    assert_eq!(login(c, &cred["id"], &cred["secret"]).await.status, 401);
    // Taking a role from the user takes the credentials of that project.
    c.ok(204, "DELETE", &grant(&manager), Value::Null).await;
    let list = c
        .ok(
            200,
            "GET",
            &format!("/users/{user}/application_credentials"),
            Value::Null,
        )
        .await;
    assert_eq!(list["application_credentials"], json!([]));
}

pub async fn restricted_and_unrestricted(c: &Cloud) {
    let (user, _, token) = c.tenant("lena", "member").await;
    let path = format!("/users/{user}/application_credentials");
    let (_, tight) = make(c, &token, &user, json!({"name": "tight"})).await;
    let (_, loose) = make(c, &token, &user, json!({"name": "loose", "unrestricted": true})).await;
    let tight_token = token_of(&login(c, &tight["id"], &tight["secret"]).await);
    let loose_token = token_of(&login(c, &loose["id"], &loose["secret"]).await);
    assert_eq!(make(c, &tight_token, &user, json!({"name": "n"})).await.0, 403);
    let victim = format!("{path}/{}", loose["id"].as_str().unwrap());
    assert_eq!(c.call(&tight_token, "DELETE", &victim, Value::Null).await.status, 403);
    // Rescoping does not shake it off.
    let again = token_of(&c.rescope(&tight_token, Value::Null).await);
    assert_eq!(make(c, &again, &user, json!({"name": "n"})).await.0, 403);
    assert_eq!(
        c.call(&tight_token, "GET", &path, Value::Null).await.status,
        200,
        "it may look"
    );
    let (status, made) = make(c, &loose_token, &user, json!({"name": "n"})).await;
    assert_eq!(status, 201);
    let made = format!("{path}/{}", made["id"].as_str().unwrap());
    assert_eq!(c.call(&loose_token, "DELETE", &made, Value::Null).await.status, 204);
    // Not without a project.
    let unscoped = token_of(&c.login("lena", "secret", json!("unscoped")).await);
    assert_eq!(make(c, &unscoped, &user, json!({"name": "n"})).await.0, 400);
}

pub async fn access_rules(c: &Cloud) {
    let (user, project, token) = c.tenant("mats", "member").await;
    let (other, _, others) = c.tenant("nils", "member").await;
    let rule = |service: &str, method: &str, path: &str| json!({"service": service, "method": method, "path": path});
    let rules = json!([
        rule("identity", "GET", "/v3/regions/*"),
        rule("identity", "GET", "/v3/users/{user}/access_rules"),
        rule("compute", "GET", "/v3/domains/**"),
        rule("identity", "GET", "/identity/v3/roles/**"),
        rule("identity", "POST", "/v3/users/*/application_credentials"),
        rule("identity", "POST", "/v3/users/*/credentials/OS-EC2"),
        rule("identity", "GET", "/v3/auth/tokens"),
    ]);
    let body = json!({"name": "narrow", "access_rules": rules, "unrestricted": true});
    let (status, cred) = make(c, &token, &user, body).await;
    assert_eq!(status, 201);
    let own = cred["access_rules"].as_array().unwrap().clone();
    assert_eq!(own.len(), 7);
    let mut first = own[0].clone();
    let id = first.as_object_mut().unwrap().remove("id").unwrap();
    assert_eq!(first, rule("identity", "GET", "/v3/regions/*"), "and nothing else");
    // Listed, shown, filtered; not made twice; others see nothing.
    let base = format!("/users/{user}/access_rules");
    let list = c.call(&token, "GET", &base, Value::Null).await.json();
    assert_eq!(list["access_rules"].as_array().unwrap().len(), 7);
    let some = c
        .call(&token, "GET", &format!("{base}?service=compute"), Value::Null)
        .await
        .json();
    assert_eq!(some["access_rules"].as_array().unwrap().len(), 1);
    let path = format!("{base}/{}", id.as_str().unwrap());
    let shown = c.call(&token, "GET", &path, Value::Null).await.json()["access_rule"].clone();
    assert_eq!((&shown["id"], &shown["path"]), (&id, &json!("/v3/regions/*")));
    assert!(shown.get("user_id").is_none());
    let again = json!({"name": "again", "access_rules": [{"id": id}, rule("identity", "GET", "/v3/regions/*")]});
    let (_, again) = make(c, &token, &user, again).await;
    assert_eq!(again["access_rules"], json!([own[0]]));
    for (method, path) in [("GET", &base), ("GET", &path), ("DELETE", &path)] {
        assert_eq!(
            c.call(&others, method, path, Value::Null).await.status,
            403,
            "{method} {path}"
        );
    }
    let crossed = format!("/users/{other}/access_rules/{}", id.as_str().unwrap());
    assert_eq!(c.call(&others, "GET", &crossed, Value::Null).await.status, 404);
    assert_eq!(
        make(c, &others, &other, json!({"name": "x", "access_rules": [{"id": id}]}))
            .await
            .0,
        404
    );
    // Enforced: method, path and service.
    let a = login(c, &cred["id"], &cred["secret"]).await;
    assert_eq!(
        a.json()["token"]["application_credential"]["access_rules"],
        cred["access_rules"]
    );
    let narrow = token_of(&a);
    for (method, path, allowed) in [
        ("GET", "/regions/RegionOne".to_owned(), true),
        ("GET", base.clone(), true),
        ("GET", "/roles/nothing".to_owned(), true),
        ("GET", "/regions".to_owned(), false),
        ("GET", "/regions/".to_owned(), false),
        ("HEAD", "/regions/RegionOne".to_owned(), false),
        ("DELETE", "/regions/RegionOne".to_owned(), false),
        ("GET", path.clone(), false),
        ("GET", "/domains/default".to_owned(), false),
        ("GET", "/auth/projects".to_owned(), false),
        ("GET", format!("/projects/{project}"), false),
        ("GET", "/nothing".to_owned(), false),
    ] {
        let status = c.call(&narrow, method, &path, Value::Null).await.status;
        assert_eq!(status != 401, allowed, "{method} {path}: {status}");
    }
    // Nor does it make itself a wider one, or another token.
    assert_eq!(make(c, &narrow, &user, json!({"name": "wide"})).await.0, 403);
    let ec2 = format!("/users/{user}/credentials/OS-EC2");
    assert_eq!(
        c.call(&narrow, "POST", &ec2, json!({"tenant_id": project}))
            .await
            .status,
        403
    );
    let rescoped = token_of(&c.rescope(&narrow, Value::Null).await);
    assert_eq!(c.call(&rescoped, "GET", "/regions", Value::Null).await.status, 401);
    // Nor is it good for what is no request.
    use haneul_auth::Authenticator as _;
    assert!(c.identity.authenticate(&token).await.is_ok());
    assert!(c.identity.authenticate(&narrow).await.is_err());
    // Who validates it says that he keeps to them.
    let subject = [("x-auth-token", c.admin.as_str()), ("x-subject-token", narrow.as_str())];
    assert_eq!(c.raw("GET", "/auth/tokens", &subject, "").await.status, 404);
    let keeps = [subject[0], subject[1], ("openstack-identity-access-rules", "1.0")];
    assert_eq!(c.raw("GET", "/auth/tokens", &keeps, "").await.status, 200);
    // A rule goes when no credential needs it.
    assert_eq!(c.call(&token, "DELETE", &path, Value::Null).await.status, 403);
    for cred in [&cred, &again] {
        let path = format!("/users/{user}/application_credentials/{}", cred["id"].as_str().unwrap());
        assert_eq!(c.call(&token, "DELETE", &path, Value::Null).await.status, 204);
    }
    assert_eq!(c.call(&token, "DELETE", &path, Value::Null).await.status, 204);
    assert_eq!(c.call(&token, "GET", &path, Value::Null).await.status, 404);
    // No list is no limit, an empty one neither.
    let (_, wide) = make(c, &token, &user, json!({"name": "wide", "access_rules": []})).await;
    assert!(wide.get("access_rules").is_none());
    // A credential that is made with another one ends with it at the latest.
    let end = haneul_core::clock::naive_micros(haneul_core::clock::now() + 600_000_000);
    let body = json!({"name": "ends", "unrestricted": true, "expires_at": end});
    let (_, ends) = make(c, &token, &user, body).await;
    let by = token_of(&login(c, &ends["id"], &ends["secret"]).await);
    assert_eq!(
        make(c, &by, &user, json!({"name": "n1"})).await.1["expires_at"],
        json!(end)
    );
    let late = haneul_core::clock::naive_micros(haneul_core::clock::now() + 900_000_000);
    assert_eq!(
        make(c, &by, &user, json!({"name": "n2", "expires_at": late})).await.0,
        400
    );
}
