//! Accounts that need no operator (rows A6 and A7 of the mission): sign-up, what an ordinary user does from the first
//! request to the last, and what the change log says of it.

use crate::setup::{Ready, id, options};
use haneul_testkit::{Options, eventually};
use http::Method;
use serde_json::{Value, json};
use std::io::Write;
use std::process::Stdio;
use std::time::Duration;

const ACCOUNTS: &str = "/identity/v3/accounts";
const PASSWORD: &str = "a-long-password";

fn open() -> Options {
    Options {
        sets: vec!["accounts.sign_up=true".into()],
        ..options()
    }
}

fn person(name: &str) -> Value {
    json!({"account": {"kind": "person", "name": name, "users": [{"name": name, "password": PASSWORD}]}})
}

fn organization(name: &str, users: &[&str]) -> Value {
    let users: Vec<Value> = users.iter().map(|u| json!({"name": u, "password": PASSWORD})).collect();
    json!({"account": {"kind": "organization", "name": name, "users": users}})
}

/// Runs the binary beside the cloud; what it prints.
fn haneul(r: &Ready, args: &[&str], input: &str) -> (bool, String) {
    let mut child = r.cloud.command();
    child
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = child.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let out = child.wait_with_output().unwrap();
    let text = [out.stdout, out.stderr].concat();
    (out.status.success(), String::from_utf8(text).unwrap())
}

async fn changes(r: &Ready, query: &str) -> Vec<Value> {
    let path = format!("/admin/v1/changes?limit=10000&{query}");
    let answer = r.cloud.admin(Method::GET, &path).await.expect("changes");
    answer["changes"].as_array().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn fake_accounts_sign_up_is_off_until_it_is_switched_on() {
    let r = Ready::new(options()).await;
    let stranger = r.cloud.anonymous();
    let refused = stranger.post(ACCOUNTS, &person("alice")).await;
    assert_eq!(refused.status, 403, "{}", refused.text);
    assert!(refused.text.contains("accounts.sign_up"), "{}", refused.text);
    assert_eq!(stranger.get("/sign-up").await.status, 403);
    assert!(!stranger.get("/").await.text.contains("/sign-up"));
    r.cloud.audit().await;
}

/// A person signs up, works and tidies up; every row of the change log since is the person's own, or that of the host
/// and of jobs which do what was asked, and none is an administrator's.
#[tokio::test(flavor = "multi_thread")]
async fn fake_accounts_a_person_needs_no_administrator() {
    let r = Ready::new(open()).await;
    let stranger = r.cloud.anonymous();
    assert!(stranger.get("/").await.text.contains("href=\"/sign-up\""));
    assert!(stranger.get("/sign-up").await.text.contains("/identity/v3/accounts"));
    let before = changes(&r, "").await.last().unwrap()["sequence"].as_i64().unwrap();

    let made = stranger.post(ACCOUNTS, &person("alice")).await.expect(201);
    let own = id(&made, "/account/owner_id");
    assert!(!made.to_string().contains(PASSWORD));
    let alice = stranger.login("alice", PASSWORD, "alice").await;

    let key = alice
        .post("/compute/v2.1/os-keypairs", &json!({"keypair": {"name": "mine"}}))
        .await;
    assert_eq!(key.status, 200, "{}", key.text);
    let images = alice.get("/image/v2/images").await.expect(200);
    let image = id(&images, "/images/0/id");
    let net = alice
        .post("/network/v2.0/networks", &json!({"network": {"name": "mine"}}))
        .await
        .expect(201);
    let net = id(&net, "/network/id");
    let subnet = json!({"subnet": {"network_id": net, "ip_version": 4, "cidr": "10.9.0.0/24"}});
    let subnet = id(
        &alice.post("/network/v2.0/subnets", &subnet).await.expect(201),
        "/subnet/id",
    );
    let public = alice
        .get("/network/v2.0/networks?router:external=true")
        .await
        .expect(200);
    let public = id(&public, "/networks/0/id");
    let router = json!({"router": {"name": "mine", "external_gateway_info": {"network_id": public}}});
    let router = id(
        &alice.post("/network/v2.0/routers", &router).await.expect(201),
        "/router/id",
    );
    let interface = json!({"subnet_id": subnet});
    let add = format!("/network/v2.0/routers/{router}/add_router_interface");
    alice.put(&add, &interface).await.expect(200);
    let server = json!({"server": {
        "name": "mine", "imageRef": image, "flavorRef": "tiny", "networks": [{"uuid": net}], "key_name": "mine"}});
    let server = id(
        &alice.post("/compute/v2.1/servers", &server).await.expect(202),
        "/server/id",
    );
    let path = format!("/compute/v2.1/servers/{server}");
    eventually("alice's server is active", Duration::from_secs(60), || async {
        (alice.get(&path).await.expect(200)["server"]["status"] == "ACTIVE").then_some(())
    })
    .await;
    let ports = alice
        .get(&format!("/network/v2.0/ports?device_id={server}"))
        .await
        .expect(200);
    let floating = json!({"floatingip": {"floating_network_id": public, "port_id": ports["ports"][0]["id"]}});
    let floating = alice.post("/network/v2.0/floatingips", &floating).await.expect(201);

    let floating = format!("/network/v2.0/floatingips/{}", id(&floating, "/floatingip/id"));
    assert_eq!(alice.delete(&floating).await.status, 204);
    assert_eq!(alice.delete(&path).await.status, 204);
    eventually("alice's server is gone", Duration::from_secs(60), || async {
        (alice.get(&path).await.status == 404).then_some(())
    })
    .await;
    let remove = format!("/network/v2.0/routers/{router}/remove_router_interface");
    alice.put(&remove, &interface).await.expect(200);
    for path in [format!("routers/{router}"), format!("networks/{net}")] {
        assert_eq!(
            alice.delete(&format!("/network/v2.0/{path}")).await.status,
            204,
            "{path}"
        );
    }
    assert_eq!(alice.delete("/compute/v2.1/os-keypairs/mine").await.status, 202);
    let path = format!("/identity/v3/users/{own}/password");
    let new = json!({"user": {"original_password": PASSWORD, "password": "another-long-one"}});
    assert_eq!(alice.post(&path, &new).await.status, 204);

    let log = changes(&r, &format!("since={before}")).await;
    let others: Vec<&Value> = log
        .iter()
        .filter(|c| c["actor"] != own.as_str())
        .filter(|c| !c["actor"].as_str().unwrap().starts_with("agent:"))
        .collect();
    assert!(others.is_empty(), "{others:#?}");
    for kind in [
        "account",
        "user",
        "project",
        "keypair",
        "network",
        "router",
        "server",
        "floatingip",
    ] {
        assert!(
            log.iter().any(|c| c["kind"] == kind && c["actor"] == own.as_str()),
            "no {kind} in the log"
        );
    }
    assert!(log.iter().all(|c| !c.to_string().contains(PASSWORD)));

    // The same for an auditor: one event for each row, by name.
    let (good, text) = haneul(&r, &["changes", "--cadf", "--actor", &own, "--limit", "1000"], "");
    assert!(good, "{text}");
    let cadf: Value = serde_json::from_str(&text).unwrap();
    let events = cadf["events"].as_array().unwrap();
    assert_eq!(events.len(), log.iter().filter(|c| c["actor"] == own.as_str()).count());
    let boot = events.iter().find(|e| e["target"]["id"] == server.as_str()).unwrap();
    assert_eq!(boot["action"], "create");
    assert_eq!(boot["outcome"], "success");
    assert_eq!(boot["initiator"]["name"], "alice");
    assert_eq!(boot["target"]["typeURI"], "compute/server");
    let (good, text) = haneul(&r, &["changes", "--kind", "server", "--id", &server], "");
    assert!(good && text.contains("alice") && text.contains("delete"), "{text}");
    r.cloud.audit().await;
}

/// An organisation signs up; its first user makes the next one and a project by herself, and reaches nobody else's.
#[tokio::test(flavor = "multi_thread")]
async fn fake_accounts_an_organization_manages_itself() {
    let r = Ready::new(open()).await;
    let stranger = r.cloud.anonymous();
    let acme = stranger
        .post(ACCOUNTS, &organization("Acme", &["ann", "bob"]))
        .await
        .expect(201);
    let zeta = stranger
        .post(ACCOUNTS, &organization("Zeta", &["ann"]))
        .await
        .expect(201);
    let domain = id(&acme, "/account/domain_id");
    let ann = stranger
        .login_to("Acme", "ann", PASSWORD, json!({"domain": {"name": "Acme"}}))
        .await;
    let body = json!({"user": {"name": "cho", "domain_id": domain, "password": PASSWORD}});
    let cho = id(&ann.post("/identity/v3/users", &body).await.expect(201), "/user/id");
    let body = json!({"project": {"name": "research", "domain_id": domain}});
    let project = id(
        &ann.post("/identity/v3/projects", &body).await.expect(201),
        "/project/id",
    );
    let roles = ann.get("/identity/v3/roles?name=member").await.expect(200);
    let path = format!(
        "/identity/v3/projects/{project}/users/{cho}/roles/{}",
        id(&roles, "/roles/0/id")
    );
    assert_eq!(ann.put(&path, &json!({})).await.status, 204);
    let scope = |name: &str| json!({"project": {"name": name, "domain": {"name": "Acme"}}});
    for (user, project) in [
        ("cho", "research"),
        ("ann", "research"),
        ("ann", "Acme"),
        ("bob", "Acme"),
    ] {
        let client = stranger.login_to("Acme", user, PASSWORD, scope(project)).await;
        let name = format!("net-of-{user}");
        let body = json!({"network": {"name": name}});
        client.post("/network/v2.0/networks", &body).await.expect(201);
    }
    // Neither the provider's users nor the neighbour's.
    let foreign = id(&zeta, "/account/owner_id");
    assert_eq!(ann.get(&format!("/identity/v3/users/{foreign}")).await.status, 403);
    assert_eq!(ann.delete(&format!("/identity/v3/users/{foreign}")).await.status, 403);
    let body = json!({"user": {"name": "mole", "domain_id": "default", "password": PASSWORD}});
    assert_eq!(ann.post("/identity/v3/users", &body).await.status, 403);
    let admin = r.admin.get("/identity/v3/roles?name=admin").await.expect(200);
    let up = format!(
        "/identity/v3/projects/{project}/users/{cho}/roles/{}",
        id(&admin, "/roles/0/id")
    );
    assert_eq!(ann.put(&up, &json!({})).await.status, 403);

    // Who leaves takes the account along.
    let path = format!("/identity/v3/domains/{}", id(&zeta, "/account/domain_id"));
    r.admin
        .patch(&path, &json!({"domain": {"enabled": false}}))
        .await
        .expect(200);
    assert_eq!(r.admin.delete(&path).await.status, 204);
    let (good, text) = haneul(&r, &["account", "list"], "");
    assert!(good && text.contains("Acme") && !text.contains("Zeta"), "{text}");
    r.cloud.audit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fake_accounts_by_the_operator() {
    let r = Ready::new(options()).await;
    let (good, text) = haneul(
        &r,
        &["account", "create", "bora", "--password-stdin"],
        &format!("{PASSWORD}\n"),
    );
    assert!(good && !text.contains(PASSWORD), "{text}");
    r.cloud.anonymous().login("bora", PASSWORD, "bora").await;
    let args = [
        "account",
        "create",
        "Acme",
        "--organization",
        "--user",
        "ann",
        "--user",
        "bob",
        "--json",
    ];
    let (good, text) = haneul(&r, &args, "");
    assert!(good, "{text}");
    let made: Value = serde_json::from_str(&text).unwrap();
    for told in made["passwords"].as_array().unwrap() {
        let scope = json!({"project": {"name": "Acme", "domain": {"name": "Acme"}}});
        let (name, password) = (told["name"].as_str().unwrap(), told["password"].as_str().unwrap());
        r.cloud.anonymous().login_to("Acme", name, password, scope).await;
        assert!(changes(&r, "").await.iter().all(|c| !c.to_string().contains(password)));
    }
    assert!(
        changes(&r, "actor=operator")
            .await
            .iter()
            .any(|c| c["kind"] == "account")
    );
    let (good, text) = haneul(&r, &["account", "create", "bora"], "");
    assert!(!good && text.contains("bora already"), "{text}");
    let (good, text) = haneul(&r, &["account", "create", "Beta", "--organization"], "");
    assert!(!good && text.contains("--user"), "{text}");
    r.cloud.audit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fake_accounts_limits_and_bad_input() {
    let r = Ready::new(Options {
        sets: [
            "accounts.sign_up=true",
            "accounts.per_address_per_hour=2",
            "accounts.attempts_per_address_per_hour=20",
        ]
        .map(String::from)
        .to_vec(),
        ..options()
    })
    .await;
    let stranger = r.cloud.anonymous();
    let rows = r.cloud.admin(Method::GET, "/admin/v1/rows").await.unwrap();
    let user = |name: &str, password: &str| json!({"name": name, "password": password});
    let account =
        |kind: &str, name: &str, users: Value| json!({"account": {"kind": kind, "name": name, "users": users}});
    let wrong = [
        (json!({}), "account"),
        (json!({"account": []}), "account"),
        (account("firm", "x", json!([user("x", PASSWORD)])), "account.kind"),
        (account("person", "", json!([user("", PASSWORD)])), "account.name"),
        (
            account("person", &"x".repeat(65), json!([user("x", PASSWORD)])),
            "account.name",
        ),
        (account("person", "x", json!([])), "account.users"),
        (account("person", "x", json!([user("y", PASSWORD)])), "account.users"),
        (
            account("person", "x", json!([user("x", PASSWORD), user("y", PASSWORD)])),
            "account.users",
        ),
        (account("person", "x", json!([user("x", "short-one")])), "password"),
        (account("person", "x", json!([{"name": "x"}])), "password"),
        (
            account(
                "person",
                "x",
                json!([{"name": "x", "password": PASSWORD, "email": "nowhere"}]),
            ),
            "email",
        ),
        (
            account("organization", "x", json!([user("a", PASSWORD), user("a", PASSWORD)])),
            "account.users",
        ),
        (
            account(
                "organization",
                "x",
                json!([{"name": "a", "password": PASSWORD, "role": "admin"}]),
            ),
            "role",
        ),
    ];
    for (body, field) in &wrong {
        let refused = stranger.post(ACCOUNTS, body).await;
        assert_eq!(refused.status, 400, "{body}: {}", refused.text);
        assert!(refused.text.contains(field), "{field}: {}", refused.text);
        assert!(
            !refused.text.contains("short-one") && !refused.text.contains(PASSWORD),
            "{}",
            refused.text
        );
    }
    // A name that is taken, whoever has it.
    let taken = stranger.post(ACCOUNTS, &person("admin")).await;
    assert_eq!(taken.status, 409, "{}", taken.text);
    assert_eq!(r.cloud.admin(Method::GET, "/admin/v1/rows").await.unwrap(), rows);

    // Six at once, of which the limit lets two through.
    let racing: Vec<_> = (0..6)
        .map(|n| {
            let stranger = stranger.clone();
            tokio::spawn(async move { stranger.post(ACCOUNTS, &person(&format!("racer-{n}"))).await.status })
        })
        .collect();
    let mut made = 0;
    for racer in racing {
        match racer.await.unwrap() {
            201 => made += 1,
            status => assert_eq!(status, 429),
        }
    }
    assert_eq!(made, 2);
    // Twenty attempts were made.
    let refused = stranger.post(ACCOUNTS, &person("three")).await;
    assert_eq!(refused.status, 429, "{}", refused.text);
    assert!(refused.text.contains("20 are allowed"), "{}", refused.text);
    // The count of attempts is gone with the process, that of accounts is not.
    let mut r = r;
    r.cloud.stop_serve();
    r.cloud.start_serve();
    r.cloud.ready().await;
    let refused = stranger.post(ACCOUNTS, &person("three")).await;
    assert_eq!(refused.status, 429, "{}", refused.text);
    assert!(refused.text.contains("2 are allowed"), "{}", refused.text);
    r.cloud.audit().await;
}
