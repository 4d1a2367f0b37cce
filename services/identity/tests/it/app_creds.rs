use crate::cloud::{Cloud, token_of};
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
    let soon = haneul_core::clock::now() + 1_500_000;
    let (status, short) = make(
        c,
        &token,
        &user,
        json!({"name": "short", "expires_at": haneul_core::clock::naive_micros(soon)}),
    )
    .await;
    assert_eq!(status, 201);
    let a = login(c, &short["id"], &short["secret"]).await;
    assert_eq!(
        a.json()["token"]["expires_at"],
        json!(haneul_core::clock::iso_micros(soon))
    );
    let t = token_of(&a);
    tokio::time::sleep(std::time::Duration::from_millis(1600)).await;
    assert!(!c.is_good(&t).await);
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
