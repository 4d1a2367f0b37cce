use crate::cloud::{Cloud, token_of, until_the_end};
use haneul_core::clock;
use haneul_http::client::Answer;
use serde_json::{Value, json};

/// Trustor with manager (and what it implies) on a project, and two others.
struct People {
    trustor: String,
    project: String,
    token: String,
    trustee: String,
    third: String,
}

async fn people(c: &Cloud, mark: &str) -> People {
    let (trustor, project, token) = c.tenant(&format!("from{mark}"), "manager").await;
    let (trustee, _, _) = c.tenant(&format!("to{mark}"), "member").await;
    let (third, _, _) = c.tenant(&format!("third{mark}"), "member").await;
    People {
        trustor,
        project,
        token,
        trustee,
        third,
    }
}

impl People {
    async fn make(&self, c: &Cloud, token: &str, more: Value) -> Answer {
        let mut trust = json!({"trustor_user_id": self.trustor, "trustee_user_id": self.trustee,
            "project_id": self.project, "impersonation": false, "roles": [{"name": "member"}]});
        trust.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        c.call(token, "POST", "/OS-TRUST/trusts", json!({ "trust": trust }))
            .await
    }
    async fn made(&self, c: &Cloud, more: Value) -> Value {
        let a = self.make(c, &self.token, more).await;
        assert_eq!(a.status, 201, "{}", a.json());
        a.json()["trust"].clone()
    }
    fn grant(&self, role: &str) -> String {
        format!("/projects/{}/users/{}/roles/{role}", self.project, self.trustor)
    }
}

async fn take(c: &Cloud, user: &str, trust: &Value) -> Answer {
    c.login(user, "secret", json!({"OS-TRUST:trust": {"id": trust["id"]}}))
        .await
}

fn path(trust: &Value) -> String {
    format!("/OS-TRUST/trusts/{}", trust["id"].as_str().unwrap())
}

fn names(token: &Value) -> Vec<String> {
    let mut out: Vec<String> = token["roles"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| r["name"].as_str().unwrap().to_owned())
        .collect();
    out.sort();
    out
}

pub async fn lent_and_taken_back(c: &Cloud) {
    let p = people(c, "a").await;
    let end = clock::iso_micros(clock::now() + 600 * clock::SECOND);
    let trust = p.made(c, json!({"expires_at": end, "impersonation": true})).await;
    assert_eq!(
        (&trust["expires_at"], &trust["deleted_at"]),
        (&json!(end), &Value::Null)
    );
    assert_eq!(
        (&trust["redelegation_count"], &trust["remaining_uses"]),
        (&json!(0), &Value::Null)
    );
    let member = c.role("member").await;
    assert_eq!(trust["roles"][0]["id"], json!(member));
    assert_eq!(
        c.call(&p.token, "GET", &path(&trust), Value::Null).await.json()["trust"],
        trust
    );
    // Roles, one by one.
    let roles = c
        .call(&p.token, "GET", &format!("{}/roles", path(&trust)), Value::Null)
        .await
        .json();
    assert_eq!(roles["roles"], trust["roles"]);
    let reader = c.role("reader").await;
    for (role, status) in [(&member, 200), (&reader, 404)] {
        for method in ["GET", "HEAD"] {
            let a = c
                .call(&p.token, method, &format!("{}/roles/{role}", path(&trust)), Value::Null)
                .await;
            assert_eq!(a.status, status);
        }
    }
    // The token: the trustor's, with what was lent, for as long.
    let a = take(c, "toa", &trust).await;
    assert_eq!(a.status, 201, "{}", a.json());
    let t = a.json()["token"].clone();
    assert_eq!(
        (&t["user"]["id"], &t["project"]["id"]),
        (&json!(p.trustor), &json!(p.project))
    );
    assert_eq!(t["expires_at"], json!(end));
    assert_eq!(
        t["OS-TRUST:trust"],
        json!({"id": trust["id"], "impersonation": true, "trustor_user": {"id": p.trustor}, "trustee_user": {"id": p.trustee}})
    );
    assert_eq!(names(&t), ["member", "reader"]);
    let lent = token_of(&a);
    assert!(lent.len() < 255);
    assert!(c.is_good(&lent).await);
    // Without impersonation it is the trustee's.
    let plain = p.made(c, json!({"roles": [{"id": reader}]})).await;
    let t = take(c, "toa", &plain).await.json()["token"].clone();
    assert_eq!(
        (&t["user"]["id"], names(&t)),
        (&json!(p.trustee), vec!["reader".to_owned()])
    );
    // Nobody else takes it; nothing says why.
    let stranger = take(c, "thirda", &trust).await;
    let nothing = take(c, "thirda", &json!({"id": "nothing"})).await;
    let own = take(c, "froma", &trust).await;
    assert_eq!((stranger.status.as_u16(), own.status.as_u16()), (403, 403));
    assert_eq!((stranger.json(), own.json()), (nothing.json(), nothing.json()));
    // A token of it makes no other token, no application credential, no trust.
    for scope in [
        Value::Null,
        json!("unscoped"),
        json!({"project": {"id": p.project}}),
        json!({"OS-TRUST:trust": {"id": plain["id"]}}),
    ] {
        assert_eq!(c.rescope(&lent, scope).await.status, 403);
    }
    let creds = format!("/users/{}/application_credentials", p.trustor);
    let body = json!({"application_credential": {"name": "x"}});
    assert_eq!(c.call(&lent, "POST", &creds, body).await.status, 403);
    assert_eq!(c.call(&lent, "GET", &creds, Value::Null).await.status, 403);
    assert_eq!(
        p.make(c, &lent, json!({"trustee_user_id": p.third})).await.status,
        403,
        "not redelegatable"
    );
    assert_eq!(
        c.call(&lent, "DELETE", &path(&plain), Value::Null).await.status,
        403,
        "another trust"
    );
    // EC2 credentials of it note it, and stay in the project.
    let ec2 = format!("/users/{}/credentials/OS-EC2", p.trustor);
    let made = c.call(&lent, "POST", &ec2, json!({"tenant_id": p.project})).await;
    assert_eq!(made.json()["credential"]["trust_id"], trust["id"]);
    let other = c.make("project", json!({"name": "elsewhere"})).await;
    assert_eq!(
        c.call(&lent, "POST", &ec2, json!({"tenant_id": other})).await.status,
        403
    );
    // Who sees it.
    let third = token_of(&c.login("thirda", "secret", Value::Null).await);
    assert_eq!(c.call(&third, "GET", &path(&trust), Value::Null).await.status, 403);
    assert_eq!(c.call(&third, "DELETE", &path(&trust), Value::Null).await.status, 403);
    let taker = token_of(&c.login("toa", "secret", Value::Null).await);
    assert_eq!(c.call(&taker, "GET", &path(&trust), Value::Null).await.status, 200);
    assert_eq!(c.call(&taker, "DELETE", &path(&trust), Value::Null).await.status, 403);
    for (token, query, found) in [
        (&p.token, format!("?trustor_user_id={}", p.trustor), Some(2)),
        (&taker, format!("?trustee_user_id={}", p.trustee), Some(2)),
        (&taker, format!("?trustor_user_id={}", p.trustor), None),
        (&third, format!("?trustee_user_id={}", p.trustee), None),
        (&p.token, String::new(), None),
        (&c.admin, format!("?trustor_user_id={}", p.trustor), Some(2)),
    ] {
        let a = c
            .call(token, "GET", &format!("/OS-TRUST/trusts{query}"), Value::Null)
            .await;
        match found {
            Some(n) => assert_eq!(a.json()["trusts"].as_array().unwrap().len(), n, "{query}"),
            None => assert_eq!(a.status, 403, "{query}"),
        }
    }
    let all = c.ok(200, "GET", "/OS-TRUST/trusts/", Value::Null).await;
    assert!(
        all["trusts"]
            .as_array()
            .unwrap()
            .iter()
            .all(|t| t.get("roles").is_none())
    );
    // Taken back: its tokens end.
    assert_eq!(c.call(&p.token, "DELETE", &path(&trust), Value::Null).await.status, 204);
    assert!(!c.is_good(&lent).await);
    assert_eq!(take(c, "toa", &trust).await.status, 403);
    assert_eq!(c.call(&p.token, "GET", &path(&trust), Value::Null).await.status, 404);
}

pub async fn worth_what_the_trustor_has_now(c: &Cloud) {
    let mut p = people(c, "b").await;
    let (member, manager) = (c.role("member").await, c.role("manager").await);
    let trust = p.made(c, json!({"roles": [{"id": manager}]})).await;
    let lent = token_of(&take(c, "tob", &trust).await);
    assert!(c.is_good(&lent).await);
    // The role goes, its tokens end; with less than was lent it is worth nothing.
    c.ok(204, "PUT", &p.grant(&member), Value::Null).await;
    c.ok(204, "DELETE", &p.grant(&manager), Value::Null).await;
    assert!(!c.is_good(&lent).await);
    assert_eq!(take(c, "tob", &trust).await.status, 403);
    // It comes back.
    c.ok(204, "PUT", &p.grant(&manager), Value::Null).await;
    let lent = token_of(&take(c, "tob", &trust).await);
    // Nobody lends what he has not.
    let admin = c.role("admin").await;
    for role in [json!({"id": admin}), json!({"name": "admin"}), json!({"id": "nothing"})] {
        assert_eq!(p.make(c, &p.token, json!({"roles": [role]})).await.status, 404);
    }
    let other = c.make("project", json!({"name": "not-b"})).await;
    assert_eq!(p.make(c, &p.token, json!({"project_id": other})).await.status, 404);
    // Nor in another's name.
    assert_eq!(p.make(c, &c.admin, json!({})).await.status, 403);
    assert_eq!(
        p.make(c, &p.token, json!({"trustor_user_id": p.third})).await.status,
        403
    );
    // Nor by an application credential.
    let creds = format!("/users/{}/application_credentials", p.trustor);
    let body = json!({"application_credential": {"name": "x", "unrestricted": true}});
    let cred = c.call(&p.token, "POST", &creds, body).await.json()["application_credential"].clone();
    let by_cred = token_of(
        &c.auth(json!({"identity": {"methods": ["application_credential"],
            "application_credential": {"id": cred["id"], "secret": cred["secret"]}}}))
            .await,
    );
    assert_eq!(p.make(c, &by_cred, json!({})).await.status, 403);
    assert_eq!(c.call(&by_cred, "GET", &path(&trust), Value::Null).await.status, 403);
    // The trustor's, the trustee's or the project's end is the token's.
    let off = |what: &str| json!({ what: {"enabled": false} });
    let on = |what: &str| json!({ what: {"enabled": true} });
    for (what, path) in [
        ("user", format!("/users/{}", p.trustor)),
        ("user", format!("/users/{}", p.trustee)),
        ("project", format!("/projects/{}", p.project)),
    ] {
        let lent = token_of(&take(c, "tob", &trust).await);
        assert!(c.is_good(&lent).await);
        c.ok(200, "PATCH", &path, off(what)).await;
        assert!(!c.is_good(&lent).await, "{path}");
        assert_ne!(take(c, "tob", &trust).await.status, 201);
        c.ok(200, "PATCH", &path, on(what)).await;
    }
    assert!(!c.is_good(&lent).await, "what was ended stays so");
    p.token = token_of(&c.login("fromb", "secret", json!({"project": {"id": p.project}})).await);
    // Its time.
    let (_, (short, a)) = until_the_end(async |soon| {
        let short = p.made(c, json!({"expires_at": clock::iso_micros(soon)})).await;
        let a = take(c, "tob", &short).await;
        (short, a)
    })
    .await;
    assert!(!c.is_good(&token_of(&a)).await);
    assert_eq!(take(c, "tob", &short).await.status, 403);
    assert_eq!(c.call(&p.token, "GET", &path(&short), Value::Null).await.status, 404);
    // A token that lives shorter makes none that lives longer.
    let first = c.login("tob", "secret", Value::Null).await;
    let a = c
        .rescope(&token_of(&first), json!({"OS-TRUST:trust": {"id": trust["id"]}}))
        .await;
    assert_eq!(a.json()["token"]["expires_at"], first.json()["token"]["expires_at"]);
    // It goes with its people.
    c.ok(204, "DELETE", &format!("/users/{}", p.trustee), Value::Null).await;
    c.ok(404, "GET", &path(&trust), Value::Null).await;
}

pub async fn counted_uses(c: &Cloud) {
    let p = people(c, "c").await;
    let trust = p.made(c, json!({"remaining_uses": 2})).await;
    let mut tokens = Vec::new();
    for _ in 0..2 {
        tokens.push(token_of(&take(c, "toc", &trust).await));
    }
    assert_eq!(take(c, "toc", &trust).await.status, 403);
    assert_eq!(c.call(&p.token, "GET", &path(&trust), Value::Null).await.status, 404);
    for t in &tokens {
        assert!(c.is_good(t).await, "what was given lives its life");
    }
    // Many at once get no more.
    let trust = p.made(c, json!({"remaining_uses": 3})).await;
    let mut all = Vec::new();
    for a in [
        take(c, "toc", &trust),
        take(c, "toc", &trust),
        take(c, "toc", &trust),
        take(c, "toc", &trust),
        take(c, "toc", &trust),
        take(c, "toc", &trust),
    ] {
        all.push(a);
    }
    let mut given = 0;
    for a in all {
        given += usize::from(a.await.status == 201);
    }
    assert_eq!(given, 3);
    // A refused one takes none.
    let trust = p.made(c, json!({"remaining_uses": 1})).await;
    assert_eq!(take(c, "thirdc", &trust).await.status, 403);
    assert_eq!(take(c, "toc", &trust).await.status, 201);
}

pub async fn lent_on(c: &Cloud) {
    let p = people(c, "d").await;
    let end = clock::iso_micros(clock::now() + 600 * clock::SECOND);
    let later = clock::iso_micros(clock::now() + 900 * clock::SECOND);
    let first = p
        .made(
            c,
            json!({"allow_redelegation": true, "redelegation_count": 2, "impersonation": true, "expires_at": end}),
        )
        .await;
    assert_eq!(first["redelegation_count"], 2);
    let by = token_of(&take(c, "tod", &first).await);
    let to = |more: Value| {
        let mut body = json!({"trustee_user_id": p.third, "allow_redelegation": true});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    for wrong in [
        json!({"roles": [{"name": "manager"}]}),
        json!({"expires_at": later}),
        json!({"redelegation_count": 2}),
        json!({"remaining_uses": 1, "allow_redelegation": false}),
        json!({"trustor_user_id": p.trustee}),
    ] {
        assert_eq!(p.make(c, &by, to(wrong.clone())).await.status, 403, "{wrong}");
    }
    let other = c.make("project", json!({"name": "not-d"})).await;
    let member = c.role("member").await;
    c.ok(
        204,
        "PUT",
        &format!("/projects/{other}/users/{}/roles/{member}", p.trustor),
        Value::Null,
    )
    .await;
    assert_eq!(
        p.make(c, &by, to(json!({"project_id": other}))).await.status,
        403,
        "another project"
    );
    let a = p.make(c, &by, to(json!({"impersonation": true}))).await;
    assert_eq!(a.status, 201, "{}", a.json());
    let second = a.json()["trust"].clone();
    assert_eq!(
        (&second["redelegated_trust_id"], &second["redelegation_count"]),
        (&first["id"], &json!(1))
    );
    assert_eq!(second["expires_at"], json!(end), "as long as the one above");
    let lent = take(c, "thirdd", &second).await;
    assert_eq!(lent.json()["token"]["user"]["id"], json!(p.trustor));
    let lent = token_of(&lent);
    // The root's roles count, the middle's end too.
    c.ok(
        200,
        "PATCH",
        &format!("/users/{}", p.trustee),
        json!({"user": {"enabled": false}}),
    )
    .await;
    assert!(!c.is_good(&lent).await);
    c.ok(
        200,
        "PATCH",
        &format!("/users/{}", p.trustee),
        json!({"user": {"enabled": true}}),
    )
    .await;
    let lent = token_of(&take(c, "thirdd", &second).await);
    let manager = c.role("manager").await;
    c.ok(204, "DELETE", &p.grant(&manager), Value::Null).await;
    assert!(!c.is_good(&lent).await);
    c.ok(204, "PUT", &p.grant(&manager), Value::Null).await;
    // What goes above goes below.
    let lent = token_of(&take(c, "thirdd", &second).await);
    assert!(c.is_good(&lent).await);
    assert_eq!(c.call(&p.token, "DELETE", &path(&first), Value::Null).await.status, 204);
    assert!(!c.is_good(&lent).await);
    c.ok(404, "GET", &path(&second), Value::Null).await;
    // Without impersonation none is gained.
    let plain = p.made(c, json!({"allow_redelegation": true})).await;
    assert_eq!(plain["redelegation_count"], 3);
    let by = token_of(&take(c, "tod", &plain).await);
    let body = to(json!({"trustor_user_id": p.trustee, "impersonation": true}));
    assert_eq!(p.make(c, &by, body).await.status, 403);
    let a = p.make(c, &by, to(json!({"trustor_user_id": p.trustee}))).await;
    assert_eq!(a.status, 201, "{}", a.json());
    let t = take(c, "thirdd", &a.json()["trust"]).await.json()["token"].clone();
    assert_eq!(
        (&t["user"]["id"], names(&t)),
        (&json!(p.third), vec!["member".to_owned(), "reader".to_owned()])
    );
}
