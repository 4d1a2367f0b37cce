use crate::cloud::{Cloud, token_of};
use crate::signing::{passcode, totp};
use haneul_core::clock::{self, SECOND};
use serde_json::{Value, json};

const SECRET: &str = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ";

async fn with_totp(c: &Cloud, name: &str) -> (String, String, String) {
    let (user, project, token) = c.tenant(name, "member").await;
    let body = json!({"credential": {"type": "totp", "user_id": user, "blob": SECRET}});
    let a = c.call(&token, "POST", "/credentials", body).await;
    assert_eq!(a.status, 201, "{}", a.json());
    (user, project, token)
}

pub async fn one_time_passwords(c: &Cloud) {
    let (user, project, _) = with_totp(c, "sara").await;
    let auth = |code: &str| json!({"identity": totp(&user, code), "scope": {"project": {"id": project}}});
    // One of the step before is refused when another step has begun on its way: then there is a newer one.
    let step = || clock::now() / SECOND / 30;
    let (at, before, a) = loop {
        let (at, now) = (clock::now(), step());
        let before = passcode(SECRET, at - 30 * SECOND);
        let a = c.auth(auth(&before)).await;
        if a.status == 201 || step() == now {
            break (at, before, a);
        }
    };
    let now = passcode(SECRET, at);
    assert_eq!(a.status, 201, "{}", a.json());
    assert_eq!(a.json()["token"]["methods"], json!(["totp"]));
    assert!(c.is_good(&token_of(&a)).await);
    // Once, and neither for long nor for another user.
    assert_eq!(c.auth(auth(&before)).await.status, 401);
    assert_eq!(c.auth(auth(&now)).await.status, 201);
    assert_eq!(c.auth(auth(&passcode(SECRET, at - 90 * SECOND))).await.status, 401);
    let (other, _, _) = c.tenant("tom", "member").await;
    let a = c.auth(json!({"identity": totp(&other, &now)})).await;
    assert_eq!(a.status, 401);
    assert_eq!(c.auth(json!({"identity": totp("nothing", &now)})).await.body, a.body);
    for bad in [
        json!({}),
        json!({"user": {"id": user}}),
        json!({"user": {"passcode": "1"}}),
    ] {
        let a = c.auth(json!({"identity": {"methods": ["totp"], "totp": bad}})).await;
        assert_eq!(a.status, 400, "{}", a.json());
    }
}

/// Wrong ones lock, and a lock is a lock for the right one too.
#[tokio::test]
async fn guessed_passcodes_lock() {
    let c = Cloud::with(|config| config.security_compliance.lockout_failure_attempts = 3).await;
    let (user, _, _) = with_totp(&c, "uli").await;
    let right = passcode(SECRET, clock::now());
    for _ in 0..3 {
        assert_eq!(c.auth(json!({"identity": totp(&user, "nonono")})).await.status, 401);
    }
    assert_eq!(c.auth(json!({"identity": totp(&user, &right)})).await.status, 401);
    // The password is another thing.
    assert_eq!(c.login("uli", "secret", Value::Null).await.status, 201);
    // Who is never locked out is not.
    let path = format!("/users/{user}");
    let option = json!({"user": {"options": {"ignore_lockout_failure_attempts": true}}});
    c.ok(200, "PATCH", &path, option).await;
    let right = passcode(SECRET, clock::now());
    assert_eq!(c.auth(json!({"identity": totp(&user, &right)})).await.status, 201);
    for _ in 0..4 {
        assert_eq!(c.login("uli", "wrong", Value::Null).await.status, 401);
    }
    assert_eq!(c.login("uli", "secret", Value::Null).await.status, 201);
}

pub async fn more_than_one_method(c: &Cloud) {
    let (user, project, _) = with_totp(c, "vera").await;
    let path = format!("/users/{user}");
    let set = async |options: Value| c.admin("PATCH", &path, json!({"user": {"options": options}})).await;
    for bad in [
        json!({"multi_factor_auth_rules": "password"}),
        json!({"multi_factor_auth_rules": ["password"]}),
        json!({"multi_factor_auth_rules": [[]]}),
        json!({"multi_factor_auth_rules": [["password", "password"]]}),
        json!({"multi_factor_auth_rules": [["password"], ["password"]]}),
        json!({"multi_factor_auth_rules": [[5]]}),
        json!({"multi_factor_auth_enabled": "perhaps"}),
        json!({"ignore_password_expiry": 5}),
    ] {
        assert_eq!(set(bad.clone()).await.0, 400, "{bad}");
    }
    let rules = json!([["password", "totp"], ["password", "saml2", "totp"], ["saml2"]]);
    assert_eq!(set(json!({"multi_factor_auth_rules": rules})).await.0, 200);
    let scope = json!({"project": {"id": project}});
    let a = c.login("vera", "secret", scope.clone()).await;
    assert_eq!(a.status, 401);
    assert!(a.headers.get("x-subject-token").is_none());
    let doc = a.json();
    assert_eq!(doc["receipt"]["methods"], json!(["password"]));
    assert_eq!(doc["receipt"]["user"]["id"], json!(user));
    // What there is not, is not asked for.
    assert_eq!(
        doc["required_auth_methods"],
        json!([["password", "totp"], ["password", "totp"]])
    );
    let receipt = a
        .headers
        .get("openstack-auth-receipt")
        .unwrap()
        .to_str()
        .unwrap()
        .to_owned();
    // A receipt is no token.
    assert_eq!(c.call(&receipt, "GET", "/auth/projects", Value::Null).await.status, 401);
    assert_eq!(c.rescope(&receipt, Value::Null).await.status, 404);
    let body = |code: &str| json!({"auth": {"identity": totp(&user, code), "scope": scope}}).to_string();
    // This one is good for half a minute at least, the one before it perhaps for a moment only.
    let code = passcode(SECRET, clock::now());
    let early = passcode(SECRET, clock::now() - 30 * SECOND);
    let with = |r: &str| ("openstack-auth-receipt", r.to_owned());
    let post = async |receipt: &str, body: String| {
        let (name, value) = with(receipt);
        c.raw("POST", "/auth/tokens", &[(name, &value)], body).await
    };
    assert_eq!(post("nonsense", body(&early)).await.status, 401);
    let a = post(&receipt, body(&early)).await;
    assert_eq!(a.status, 401, "a wrong receipt used it up: {}", a.json());
    let a = post(&receipt, body(&code)).await;
    assert_eq!(a.status, 201, "{}", a.json());
    let token = token_of(&a);
    let mut methods: Vec<String> = serde_json::from_value(a.json()["token"]["methods"].clone()).unwrap();
    methods.sort();
    assert_eq!(methods, ["password", "totp"]);
    // What was shown once goes on with the token.
    assert_eq!(c.rescope(&token, Value::Null).await.status, 201);
    // Somebody else's receipt adds nothing.
    let (other, _, _) = c.tenant("wilma", "member").await;
    let auth = json!({"auth": {"identity": {"methods": ["password"],
        "password": {"user": {"id": other, "password": "secret"}}}}});
    assert_eq!(post(&receipt, auth.to_string()).await.status, 401);
    // A new password ends the receipt, whatever is shown with it. Each passcode is good once: they are another secret's.
    const OTHER: &str = "MFRGGZDFMZTWQ2LKMFRGGZDFMZTWQ2LK";
    let body_of = json!({"credential": {"type": "totp", "user_id": user, "blob": OTHER}});
    c.ok(201, "POST", "/credentials", body_of).await;
    c.ok(200, "PATCH", &path, json!({"user": {"password": "newer"}})).await;
    let fresh = c.login("vera", "newer", scope.clone()).await;
    let fresh = fresh.headers["openstack-auth-receipt"].to_str().unwrap().to_owned();
    for (receipt, before, status) in [(&receipt, 30, 401), (&fresh, 0, 201)] {
        let code = passcode(OTHER, clock::now() - before * SECOND);
        let a = post(receipt, body(&code)).await;
        assert_eq!(a.status, status, "{}", a.json());
    }
    // Rules that are switched off, or that nobody could meet.
    assert_eq!(set(json!({"multi_factor_auth_enabled": false})).await.0, 200);
    assert_eq!(c.login("vera", "newer", Value::Null).await.status, 201);
    let none = json!({"multi_factor_auth_enabled": null, "multi_factor_auth_rules": [["saml2"]]});
    assert_eq!(set(none).await.0, 200);
    assert_eq!(c.login("vera", "newer", Value::Null).await.status, 201);
}

/// What is lent shows nothing that would be good without it.
pub async fn no_receipt_for_what_is_lent(c: &Cloud) {
    let (user, project, token) = with_totp(c, "xenia").await;
    let path = format!("/users/{user}/application_credentials");
    let body = json!({"application_credential": {"name": "x", "roles": [{"name": "reader"}]}});
    let a = c.call(&token, "POST", &path, body).await;
    let cred = a.json()["application_credential"].clone();
    let rules = json!([["application_credential", "totp"]]);
    let options = json!({"user": {"options": {"multi_factor_auth_rules": rules}}});
    c.ok(200, "PATCH", &format!("/users/{user}"), options).await;
    let data = json!({"id": cred["id"], "secret": cred["secret"]});
    let alone = json!({"methods": ["application_credential"], "application_credential": data});
    let a = c.auth(json!({ "identity": alone })).await;
    assert_eq!(
        (a.status.as_u16(), a.headers.get("openstack-auth-receipt")),
        (401, None)
    );
    // Both at once are what the rule asks for, and worth what the credential is.
    let mut both = totp(&user, &passcode(SECRET, clock::now()));
    both["methods"] = json!(["application_credential", "totp"]);
    both["application_credential"] = data;
    let a = c.auth(json!({ "identity": both })).await;
    assert_eq!(a.status, 201, "{}", a.json());
    let t = &a.json()["token"];
    assert_eq!(
        (&t["project"]["id"], t["roles"].as_array().unwrap().len()),
        (&json!(project), 1)
    );
    assert_eq!(t["roles"][0]["name"], "reader");
}
