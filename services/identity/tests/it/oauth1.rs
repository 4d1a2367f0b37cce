use crate::cloud::{Cloud, token_of};
use crate::signing::{Signer, access, consumer, ec2_token, pair};
use serde_json::{Value, json};

/// Authorizing is the administrator's by default: a user with that role on a project.
async fn authorizer(c: &Cloud, name: &str) -> (String, String, String) {
    c.tenant(name, "admin").await
}

fn roles(t: &Value) -> Vec<String> {
    let mut out: Vec<String> = t["roles"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| r["name"].as_str().unwrap().to_owned())
        .collect();
    out.sort();
    out
}

pub async fn dance(c: &Cloud) {
    let (user, project, token) = authorizer(c, "lena").await;
    let who = consumer(c).await;
    let signer = access(c, &who, &token, &project, "member").await;
    let id = signer.token.clone().unwrap().0;
    let a = signer.login(c).await;
    assert_eq!(a.status, 201, "{}", a.json());
    let t = a.json()["token"].clone();
    assert_eq!(
        (&t["user"]["id"], &t["project"]["id"], &t["methods"]),
        (&json!(user), &json!(project), &json!(["oauth1"]))
    );
    assert_eq!(roles(&t), ["member", "reader"]);
    assert_eq!(
        t["OS-OAUTH1"],
        json!({"access_token_id": id, "consumer_id": who.consumer.0})
    );
    let made = token_of(&a);
    assert!(made.len() < 255 && c.is_good(&made).await);
    // HMAC-SHA256 as well.
    let other = Signer {
        sha256: true,
        ..signer.clone()
    };
    assert_eq!(other.login(c).await.status, 201);
    let body = json!({"auth": {"identity": {"methods": ["oauth1"], "oauth1": {}}}});
    // A slash at the end changes nothing, signed or not.
    for (signed, sent) in [("", "/"), ("/", "/"), ("/", "")] {
        let header = signer.header(&format!("/auth/tokens{signed}"));
        let headers = [("authorization", header.as_str())];
        let a = c
            .raw("POST", &format!("/auth/tokens{sent}"), &headers, body.to_string())
            .await;
        assert_eq!(a.status, 201, "signed {signed:?}, sent {sent:?}: {}", a.json());
    }
    // Neither a repetition, word for word, nor another time, nor another secret.
    let once = signer.header("/auth/tokens");
    for status in [201, 401] {
        let headers = [("authorization", once.as_str())];
        let a = c.raw("POST", "/auth/tokens", &headers, body.to_string()).await;
        assert_eq!(a.status, status, "{}", a.json());
    }
    for off in [-700, 700] {
        let stale = Signer { off, ..signer.clone() };
        assert_eq!(stale.login(c).await.status, 401);
    }
    for wrong in [
        Signer {
            consumer: (who.consumer.0.clone(), "x".into()),
            ..signer.clone()
        },
        Signer {
            token: Some((id.clone(), "x".into())),
            ..signer.clone()
        },
        Signer {
            token: Some(("nothing".into(), "x".into())),
            ..signer.clone()
        },
        Signer {
            consumer: consumer(c).await.consumer,
            ..signer.clone()
        },
    ] {
        assert_eq!(wrong.login(c).await.status, 401);
    }
    assert_eq!(
        c.raw("POST", "/auth/tokens", &[], body.to_string()).await.status,
        400,
        "not signed"
    );
    // It makes nothing that outlives it.
    for scope in [Value::Null, json!("unscoped"), json!({"project": {"id": project}})] {
        assert_eq!(c.rescope(&made, scope).await.status, 403);
    }
    let trust = json!({"trust": {"trustor_user_id": user, "trustee_user_id": user, "project_id": project,
        "impersonation": true, "roles": [{"name": "member"}]}});
    assert_eq!(c.call(&made, "POST", "/OS-TRUST/trusts", trust).await.status, 403);
    let cred = json!({"application_credential": {"name": "x"}});
    let path = format!("/users/{user}/application_credentials");
    assert_eq!(c.call(&made, "POST", &path, cred).await.status, 403);
    // An EC2 credential of it is worth what it is.
    let ec2 = format!("/users/{user}/credentials/OS-EC2");
    let a = c.call(&made, "POST", &ec2, json!({"tenant_id": project})).await;
    assert_eq!(a.status, 201, "{}", a.json());
    let ec2 = a.json()["credential"].clone();
    let a = ec2_token(c, &ec2).await;
    assert_eq!(roles(&a.json()["token"]), ["member", "reader"]);
    // It is listed, with its roles, and removed with all its tokens.
    let list = format!("/users/{user}/OS-OAUTH1/access_tokens");
    let doc = c.ok(200, "GET", &list, Value::Null).await;
    assert_eq!(doc["access_tokens"][0]["id"], json!(id));
    assert_eq!(doc["access_tokens"][0]["authorizing_user_id"], json!(user));
    assert!(!doc.to_string().contains(&signer.token.clone().unwrap().1));
    let one = format!("{list}/{id}");
    assert_eq!(
        c.ok(200, "GET", &one, Value::Null).await["access_token"],
        doc["access_tokens"][0]
    );
    let member = c.role("member").await;
    let held = c.ok(200, "GET", &format!("{one}/roles"), Value::Null).await;
    assert_eq!(held["roles"][0]["id"], json!(member));
    c.ok(200, "GET", &format!("{one}/roles/{member}"), Value::Null).await;
    let reader = c.role("reader").await;
    c.ok(404, "GET", &format!("{one}/roles/{reader}"), Value::Null).await;
    assert_eq!(c.call(&made, "GET", &list, Value::Null).await.status, 403, "delegated");
    assert_eq!(
        c.call(&made, "DELETE", &one, Value::Null).await.status,
        403,
        "delegated"
    );
    c.ok(404, "DELETE", &format!("{list}/nothing"), Value::Null).await;
    c.ok(204, "DELETE", &one, Value::Null).await;
    assert!(!c.is_good(&made).await);
    assert_eq!(signer.login(c).await.status, 401);
    assert_eq!(ec2_token(c, &ec2).await.status, 401);
    // And with its consumer.
    let signer = access(c, &who, &token, &project, "member").await;
    let made = token_of(&signer.login(c).await);
    c.ok(
        204,
        "DELETE",
        &format!("/OS-OAUTH1/consumers/{}", who.consumer.0),
        Value::Null,
    )
    .await;
    assert!(!c.is_good(&made).await);
    assert_eq!(signer.login(c).await.status, 401);
}

pub async fn request_tokens(c: &Cloud) {
    let (_, project, token) = authorizer(c, "mara").await;
    let (_, _, plain) = c.tenant("nina", "member").await;
    let who = consumer(c).await;
    let ask = async |s: &Signer, project: &str| {
        s.post(
            c,
            "/OS-OAUTH1/request_token",
            &[("requested-project-id", project)],
            Value::Null,
        )
        .await
    };
    let before = c.rows().await;
    let wrong = Signer {
        consumer: (who.consumer.0.clone(), "x".into()),
        ..Signer::default()
    };
    let nobody = Signer {
        consumer: ("nobody".into(), "x".into()),
        ..Signer::default()
    };
    let (one, other) = (ask(&wrong, &project).await, ask(&nobody, &project).await);
    assert_eq!((one.status.as_u16(), other.status.as_u16()), (401, 401));
    assert_eq!(one.body, other.body, "nothing tells that there is such a consumer");
    assert_eq!(ask(&who, "nothing").await.status, 404);
    assert_eq!(
        who.post(c, "/OS-OAUTH1/request_token", &[], Value::Null).await.status,
        400
    );
    assert_eq!(
        c.raw(
            "POST",
            "/OS-OAUTH1/request_token",
            &[("requested-project-id", &project)],
            ""
        )
        .await
        .status,
        400
    );
    assert_eq!(c.rows().await, before);
    let request = pair(&ask(&who, &project).await);
    // Who authorizes has the role himself, on that project, by his own login.
    let path = format!("/OS-OAUTH1/authorize/{}", request.0);
    let member = json!({"roles": [{"name": "member"}]});
    let put = async |token: &str, body: &Value| c.call(token, "PUT", &path, body.clone()).await.status.as_u16();
    assert_eq!(put(&plain, &member).await, 403);
    assert_eq!(put(&c.admin, &member).await, 401, "no role there");
    let system = token_of(&c.login("admin", &c.password, json!({"system": {"all": true}})).await);
    assert_eq!(put(&system, &member).await, 403);
    for bad in [
        json!({}),
        json!({"roles": []}),
        json!({"roles": "member"}),
        json!({"roles": [{}]}),
        json!({"roles": [{"id": "a", "name": "b"}]}),
        json!({"roles": [5]}),
    ] {
        assert_eq!(put(&token, &bad).await, 400, "{bad}");
    }
    assert_eq!(put(&token, &json!({"roles": [{"name": "nothing"}]})).await, 404);
    assert_eq!(
        c.call(&token, "PUT", "/OS-OAUTH1/authorize/nothing", member.clone())
            .await
            .status,
        404
    );
    let with = |verifier: &str| Signer {
        token: Some(request.clone()),
        verifier: Some(verifier.into()),
        ..who.clone()
    };
    let change = async |verifier: &str| {
        with(verifier)
            .post(c, "/OS-OAUTH1/access_token", &[], Value::Null)
            .await
    };
    assert_eq!(change("x").await.status, 401, "not authorized yet");
    let a = c.call(&token, "PUT", &path, member.clone()).await;
    let verifier = a.json()["token"]["oauth_verifier"].as_str().unwrap().to_owned();
    assert_eq!(verifier.len(), 8);
    assert_eq!(change("x").await.status, 401);
    // Many at once: one gets it.
    let all = tokio::join!(change(&verifier), change(&verifier), change(&verifier));
    let mut seen = [all.0.status.as_u16(), all.1.status.as_u16(), all.2.status.as_u16()];
    seen.sort_unstable();
    assert_eq!(seen, [201, 401, 401]);
    assert_eq!(put(&token, &member).await, 404, "it was used");
}

/// An application credential as an OAuth 2.0 client.
pub async fn client_credentials(c: &Cloud) {
    let (user, project, token) = c.tenant("olga", "member").await;
    let path = format!("/users/{user}/application_credentials");
    let a = c
        .call(&token, "POST", &path, json!({"application_credential": {"name": "x"}}))
        .await;
    let doc = a.json()["application_credential"].clone();
    let (id, secret) = (doc["id"].as_str().unwrap(), doc["secret"].as_str().unwrap());
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let post = async |body: String| c.raw("POST", "/OS-OAUTH2/token", &form, body).await;
    let a = post(format!(
        "grant_type=client_credentials&client_id={id}&client_secret={secret}"
    ))
    .await;
    assert_eq!(a.status, 200, "{}", a.json());
    assert_eq!(a.json()["token_type"], json!("Bearer"));
    let made = a.json()["access_token"].as_str().unwrap().to_owned();
    let own = c
        .raw(
            "GET",
            "/auth/tokens",
            &[("x-auth-token", &made), ("x-subject-token", &made)],
            "",
        )
        .await;
    assert_eq!(own.json()["token"]["project"]["id"], json!(project));
    use base64::Engine as _;
    let basic = base64::engine::general_purpose::STANDARD.encode(format!("{id}:{secret}"));
    let basic = format!("Basic {basic}");
    let headers = [form[0], ("authorization", basic.as_str())];
    let a = c
        .raw("POST", "/OS-OAUTH2/token", &headers, "grant_type=client_credentials")
        .await;
    assert_eq!(a.status, 200);
    for (body, status, error) in [
        (String::new(), 400, "invalid_request"),
        ("grant_type=password".into(), 400, "unsupported_grant_type"),
        ("grant_type=client_credentials".into(), 401, "invalid_client"),
        (
            format!("grant_type=client_credentials&client_id={id}&client_secret=x"),
            401,
            "invalid_client",
        ),
        (
            "grant_type=client_credentials&client_id=nothing&client_secret=x".into(),
            401,
            "invalid_client",
        ),
    ] {
        let a = post(body.clone()).await;
        assert_eq!(
            (a.status.as_u16(), &a.json()["error"]),
            (status, &json!(error)),
            "{body}"
        );
    }
    for method in ["GET", "PUT", "PATCH", "DELETE"] {
        assert_eq!(c.raw(method, "/OS-OAUTH2/token", &[], "").await.status, 405);
    }
}
