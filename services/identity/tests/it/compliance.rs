//! What passwords must be, and users who are locked out or disabled by the settings `security_compliance`.

use crate::cloud::{Cloud, token_of};
use haneul_core::clock::{self, SECOND};
use haneul_core::config::Config;
use haneul_identity::User;
use haneul_store::{Actor, System};
use serde_json::{Value, json};

const DAY: i64 = 86_400 * SECOND;

pub fn strict(config: &mut Config) {
    let rules = &mut config.security_compliance;
    rules.password_expires_days = 90;
    rules.unique_last_password_count = 3;
    rules.minimum_password_age = 2;
    rules.password_regex = Some(r"^(?=.*\d)(?=.*[a-zA-Z]).{7,}$".into());
    rules.password_regex_description = Some("at least 7 characters, one letter and one digit".into());
    config.accounts.sign_up = true;
}

pub fn first_use(config: &mut Config) {
    config.security_compliance.change_password_upon_first_use = true;
    config.accounts.sign_up = true;
}

pub fn inactive(config: &mut Config) {
    config.security_compliance.disable_user_account_days_inactive = 30;
}

/// Lets the days of a user's password pass.
async fn age(c: &Cloud, user: &str, days: i64) {
    let user = user.to_owned();
    c.db.write(&Actor::system("test"), async move |tx| {
        let found = tx.find::<User>(&user).await?.unwrap();
        let mut value = found.value.clone();
        for time in [&mut value.password_set_at, &mut value.password_expires_at] {
            *time = time.map(|t| t - days * DAY);
        }
        tx.update(&System::of(found), &value).await.map(|_| ())
    })
    .await
    .unwrap();
}

/// A change of a password by its user: the status and the text.
async fn change(c: &Cloud, user: &str, old: &str, new: &str) -> (u16, String) {
    let body = json!({"user": {"original_password": old, "password": new}});
    let a = c
        .raw("POST", &format!("/users/{user}/password"), &[], body.to_string())
        .await;
    let text = match a.body.is_empty() {
        true => String::new(),
        false => a.json()["error"]["message"].as_str().unwrap().to_owned(),
    };
    (a.status.as_u16(), text)
}

async fn refused(c: &Cloud, user: &str, old: &str, new: &str, says: &str) {
    let (status, text) = change(c, user, old, new).await;
    assert!(status == 400 && text.contains(says), "{status} {text}");
}

async fn changed(c: &Cloud, user: &str, old: &str, new: &str) {
    assert_eq!(change(c, user, old, new).await, (204, String::new()), "{old} to {new}");
}

async fn make(c: &Cloud, name: &str, password: &str, options: Value) -> (String, Value) {
    let body = json!({"user": {"name": name, "password": password, "options": options}});
    let user = c.ok(201, "POST", "/users", body).await["user"].clone();
    (user["id"].as_str().unwrap().to_owned(), user)
}

fn account(name: &str, password: &str) -> String {
    let users = json!([{"name": name, "password": password}]);
    json!({"account": {"kind": "person", "name": name, "users": users}}).to_string()
}

pub async fn what_a_password_must_be(c: &Cloud) {
    let before = c.rows().await;
    let weak = json!({"user": {"name": "ada", "password": "letters only"}});
    let (status, doc) = c.admin("POST", "/users", weak).await;
    assert_eq!(status, 400);
    let says = "The password does not match the requirements: at least 7 characters, one letter and one digit.";
    assert_eq!(doc["error"]["message"], says);
    let a = c.raw("POST", "/accounts", &[], account("sly", "letters only")).await;
    assert_eq!((a.status.as_u16(), &a.json()["error"]["message"]), (400, &json!(says)));
    assert_eq!(c.rows().await, before);

    let (ada, _) = make(c, "ada", "secret1", json!({})).await;
    let path = format!("/users/{ada}");
    let (status, doc) = c.admin("PATCH", &path, json!({"user": {"password": "short1"}})).await;
    assert_eq!((status, &doc["error"]["message"]), (400, &json!(says)));
    refused(c, &ada, "secret1", "secret", says).await;
    // Everybody may know what is asked for, and nothing else.
    let token = token_of(&c.login("ada", "secret1", Value::Null).await);
    let get = async |domain: &str, more: &str| {
        let path = format!("/domains/{domain}/config/security_compliance{more}");
        let a = c.call(&token, "GET", &path, Value::Null).await;
        (a.status.as_u16(), a.json())
    };
    let regex = json!(r"^(?=.*\d)(?=.*[a-zA-Z]).{7,}$");
    let text = json!("at least 7 characters, one letter and one digit");
    let both = json!({"password_regex": regex, "password_regex_description": text});
    assert_eq!(
        get("default", "").await,
        (200, json!({"config": {"security_compliance": both}}))
    );
    assert_eq!(
        get("default", "/password_regex").await,
        (200, json!({"config": {"password_regex": regex}}))
    );
    assert_eq!(get("default", "/lockout_duration").await.0, 403);
    assert_eq!(get("other", "").await.0, 403);
    let config = json!({"config": {"security_compliance": {"password_regex": "."}}});
    let path = "/domains/default/config/security_compliance";
    assert_eq!(c.admin("PATCH", path, config).await.0, 403);
}

pub async fn old_passwords_and_young_ones(c: &Cloud) {
    let (ben, _) = make(c, "ben", "secret1", json!({})).await;
    let path = format!("/users/{ben}");
    // Somebody else chose it: it may be changed at once, to another one.
    refused(
        c,
        &ben,
        "secret1",
        "secret1",
        "cannot be identical to a previous password",
    )
    .await;
    changed(c, &ben, "secret1", "secret2").await;
    refused(c, &ben, "secret2", "secret3", "it must be used for 2 day(s)").await;
    age(c, &ben, 1).await;
    refused(c, &ben, "secret2", "secret3", "try again in 1 day(s)").await;
    age(c, &ben, 1).await;
    // The last three: the present one, and two before.
    refused(c, &ben, "secret2", "secret1", "must be unique is 3").await;
    changed(c, &ben, "secret2", "secret3").await;
    age(c, &ben, 2).await;
    refused(c, &ben, "secret3", "secret1", "must be unique is 3").await;
    changed(c, &ben, "secret3", "secret4").await;
    age(c, &ben, 2).await;
    changed(c, &ben, "secret4", "secret1").await;
    // An administrator is held to neither, and what it sets is remembered too.
    for password in ["secret1", "secret5"] {
        c.ok(200, "PATCH", &path, json!({"user": {"password": password}})).await;
    }
    refused(c, &ben, "secret5", "secret1", "must be unique is 3").await;
    let lock = |on: Value| json!({"user": {"options": {"lock_password": on}}});
    c.ok(200, "PATCH", &path, lock(json!(true))).await;
    refused(c, &ben, "secret5", "secret6", "contact your administrator").await;
    // Who does not know the password learns nothing of this.
    assert_eq!(change(c, &ben, "secret4", "secret6").await.0, 401);
    c.ok(200, "PATCH", &path, lock(Value::Null)).await;
    changed(c, &ben, "secret5", "secret6").await;
    // Nothing is left of a user that is gone.
    c.ok(204, "DELETE", &path, Value::Null).await;
    let mut tx = c.db.read().await.unwrap();
    let rows = tx.rows("SELECT 1 FROM identity_old_password", &[]).await.unwrap();
    assert!(rows.is_empty());
}

pub async fn passwords_expire(c: &Cloud) {
    let (eva, made) = make(c, "eva", "secret1", json!({})).await;
    let path = format!("/users/{eva}");
    let end = made["password_expires_at"].as_str().unwrap().to_owned();
    let left = clock::parse(&end).unwrap() - clock::now();
    assert!(left > 89 * DAY && left <= 90 * DAY && end.ends_with(".000000"), "{end}");
    let shown = c.ok(200, "GET", &path, Value::Null).await;
    assert_eq!(shown["user"]["password_expires_at"], json!(end));
    let a = c.login("eva", "secret1", Value::Null).await;
    assert_eq!(a.json()["token"]["user"]["password_expires_at"], json!(end));
    let token = token_of(&a);

    // Lists by when it expires.
    let group = c.make("group", json!({"name": "g"})).await;
    c.ok(204, "PUT", &format!("/groups/{group}/users/{eva}"), Value::Null)
        .await;
    make(c, "free", "secret1", json!({"ignore_password_expiry": true})).await;
    let soon = clock::iso(clock::now() + DAY);
    for (how, there) in [
        (format!("lt:{soon}"), false),
        (format!("gt:{soon}"), true),
        (format!("gte:{end}"), true),
        (format!("lte:{end}"), true),
        (format!("eq:{end}"), true),
        (end.clone(), true),
        (format!("neq:{end}"), false),
    ] {
        for list in ["/users".to_owned(), format!("/groups/{group}/users")] {
            let path = format!("{list}?password_expires_at={how}&name=eva");
            let found = c.ok(200, "GET", &path, Value::Null).await["users"].clone();
            assert_eq!(found.as_array().unwrap().len(), usize::from(there), "{path}");
        }
    }
    for (wrong, says) in [("ge:2026-01-01", "'gte'"), ("lt:soon", "lt:2026-11-21T10:00:00Z")] {
        let (status, doc) = c
            .admin("GET", &format!("/users?password_expires_at={wrong}"), Value::Null)
            .await;
        assert_eq!(status, 400);
        assert!(doc["error"]["message"].as_str().unwrap().contains(says), "{doc}");
    }
    let path_free = format!(
        "/users?password_expires_at=lt:{}&name=free",
        clock::iso(clock::now() + 9999 * DAY)
    );
    assert_eq!(c.ok(200, "GET", &path_free, Value::Null).await["users"], json!([]));

    age(c, &eva, 91).await;
    let a = c.login("eva", "secret1", Value::Null).await;
    assert_eq!(a.status, 401);
    let text = a.json()["error"]["message"].as_str().unwrap().to_owned();
    let says = format!("The password is expired and needs to be changed for user: {eva}.");
    assert!(text.starts_with(&says), "{text}");
    let wrong = c.login("eva", "wrong", Value::Null).await;
    assert_eq!(wrong.body, c.login("nobody", "wrong", Value::Null).await.body);
    // What it had is good still, as in Keystone; and it can do the one thing that helps.
    assert!(c.is_good(&token).await);
    changed(c, &eva, "secret1", "secret2").await;
    assert_eq!(c.login("eva", "secret2", Value::Null).await.status, 201);
    assert!(!c.is_good(&token).await);
    age(c, &eva, 91).await;
    assert_eq!(c.login("eva", "secret2", Value::Null).await.status, 401);
    let exempt = json!({"user": {"options": {"ignore_password_expiry": true}}});
    c.ok(200, "PATCH", &path, exempt).await;
    assert_eq!(c.login("eva", "secret2", Value::Null).await.status, 201);
    let now = c
        .ok(200, "PATCH", &path, json!({"user": {"password": "secret3"}}))
        .await;
    assert_eq!(now["user"]["password_expires_at"], Value::Null);
}

pub async fn what_somebody_else_set_is_changed_first(c: &Cloud) {
    let (fay, made) = make(c, "fay", "secret", json!({})).await;
    let path = format!("/users/{fay}");
    assert!(clock::parse(made["password_expires_at"].as_str().unwrap()).unwrap() <= clock::now());
    assert_eq!(c.login("fay", "secret", Value::Null).await.status, 401);
    changed(c, &fay, "secret", "own").await;
    assert_eq!(c.login("fay", "own", Value::Null).await.status, 201);
    c.ok(200, "PATCH", &path, json!({"user": {"password": "reset"}})).await;
    let a = c.login("fay", "reset", Value::Null).await;
    let text = a.json()["error"]["message"].as_str().unwrap().to_owned();
    assert!(a.status == 401 && text.contains("needs to be changed"), "{text}");
    let option = json!({"ignore_change_password_upon_first_use": true});
    let both = json!({"user": {"password": "reset", "options": option}});
    c.ok(200, "PATCH", &path, both).await;
    assert_eq!(c.login("fay", "reset", Value::Null).await.status, 201);
    make(c, "robot", "secret", option).await;
    assert_eq!(c.login("robot", "secret", Value::Null).await.status, 201);
    // Who signs up has chosen it.
    let a = c.raw("POST", "/accounts", &[], account("gus", "my own password")).await;
    assert_eq!(a.status, 201, "{}", a.json());
    assert_eq!(c.login("gus", "my own password", Value::Null).await.status, 201);
    // Who was given one by the operator has not.
    let users = json!([{"name": "hal"}]);
    let body = json!({"account": {"kind": "person", "name": "hal", "users": users}});
    let made = c.identity.create_account(body, "req-1".into()).await.unwrap();
    let told = made["passwords"][0]["password"].as_str().unwrap().to_owned();
    assert_eq!(c.login("hal", &told, Value::Null).await.status, 401);
}

pub async fn who_does_not_log_in_is_disabled(c: &Cloud) {
    let days_ago = async |user: &str, days: i64| {
        let (user, day) = (user.to_owned(), clock::now() / DAY - days);
        c.db.write(&Actor::system("test"), async move |tx| {
            tx.exec(
                "UPDATE identity_last_login SET day = $1 WHERE user_id = $2",
                &[day.into(), user.as_str().into()],
            )
            .await
        })
        .await
        .unwrap()
    };
    let login = async |name: &str| c.login(name, "secret", Value::Null).await.status.as_u16();
    let (ida, project, token) = c.tenant("ida", "member").await;
    let (never, _) = make(c, "never", "secret", json!({})).await;
    let (robot, _) = make(c, "robot", "secret", json!({"ignore_user_inactivity": true})).await;
    assert_eq!(c.identity.disable_inactive().await.unwrap(), 0);
    for user in [&ida, &never, &robot] {
        assert_eq!(days_ago(user, 29).await, 1, "counted from the first look at the latest");
    }
    assert_eq!(c.identity.disable_inactive().await.unwrap(), 0);
    assert_eq!(login("ida").await, 201);
    for user in [&never, &robot] {
        days_ago(user, 30).await;
    }
    assert_eq!(login("never").await, 401, "before the next look");
    assert_eq!(c.identity.disable_inactive().await.unwrap(), 1);
    let enabled =
        async |user: &str| c.ok(200, "GET", &format!("/users/{user}"), Value::Null).await["user"]["enabled"].clone();
    assert_eq!(
        [enabled(&ida).await, enabled(&never).await, enabled(&robot).await],
        [true, false, true]
    );
    assert_eq!(login("robot").await, 201);
    // Its tokens end with it, and an administrator lets it begin anew.
    assert!(c.is_good(&token).await);
    days_ago(&ida, 31).await;
    assert_eq!(c.identity.disable_inactive().await.unwrap(), 1);
    assert!(!c.is_good(&token).await);
    for user in [&ida, &never] {
        c.ok(
            200,
            "PATCH",
            &format!("/users/{user}"),
            json!({"user": {"enabled": true}}),
        )
        .await;
    }
    assert!(!c.is_good(&token).await, "nor does it come back");
    assert_eq!((login("ida").await, login("never").await), (201, 201));
    assert_eq!(c.identity.disable_inactive().await.unwrap(), 0);
    // A login by any secret of the user counts.
    let scope = json!({"project": {"id": project}});
    let token = token_of(&c.login("ida", "secret", scope).await);
    let path = format!("/users/{ida}/application_credentials");
    let a = c
        .call(&token, "POST", &path, json!({"application_credential": {"name": "x"}}))
        .await;
    let cred = a.json()["application_credential"].clone();
    days_ago(&ida, 29).await;
    let data = json!({"id": cred["id"], "secret": cred["secret"]});
    let auth = json!({"identity": {"methods": ["application_credential"], "application_credential": data}});
    assert_eq!(c.auth(auth).await.status, 201);
    assert_eq!(days_ago(&ida, 30).await, 1);
    // A token made from a token is none.
    assert_eq!(c.rescope(&token, Value::Null).await.status, 201);
    assert_eq!(c.identity.disable_inactive().await.unwrap(), 1);
}

/// An administrator who enables a user, which is enabled, unlocks it (API reference: Update user).
#[tokio::test]
async fn enabling_unlocks() {
    let c = Cloud::with(|config| config.security_compliance.lockout_failure_attempts = 2).await;
    let (jo, _) = make(&c, "jo", "secret", json!({})).await;
    for _ in 0..2 {
        assert_eq!(c.login("jo", "wrong", Value::Null).await.status, 401);
    }
    assert_eq!(c.login("jo", "secret", Value::Null).await.status, 401);
    let path = format!("/users/{jo}");
    c.ok(200, "PATCH", &path, json!({"user": {"description": "x"}})).await;
    assert_eq!(c.login("jo", "secret", Value::Null).await.status, 401);
    c.ok(200, "PATCH", &path, json!({"user": {"enabled": true}})).await;
    assert_eq!(c.login("jo", "secret", Value::Null).await.status, 201);
}

#[tokio::test]
async fn an_expression_that_is_none_is_refused_at_the_start() {
    let c = Cloud::sqlite().await;
    let mut config = Config::default();
    config.security_compliance.password_regex = Some("(?=.*\\d".into());
    let error = haneul_identity::Identity::new(c.db.clone(), &config, c.dir.join("keys"))
        .err()
        .unwrap();
    assert!(error.public().contains("security_compliance.password_regex"), "{error}");
}
