//! The unmodified client, where it is installed (target/venv, python-openstackclient from PyPI).

use crate::cloud::Cloud;
use std::path::PathBuf;

fn client() -> Option<PathBuf> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../target/venv/bin/openstack");
    path.is_file().then_some(path)
}

async fn run(c: &Cloud, env: &[(&str, &str)], args: &str) -> (bool, String) {
    let mut command = tokio::process::Command::new(client().unwrap());
    command
        .env_clear()
        .env("PATH", std::env::var("PATH").unwrap())
        .env("HOME", &c.dir);
    command
        .env("OS_AUTH_URL", format!("{}/identity", c.url))
        .env("OS_IDENTITY_API_VERSION", "3");
    for (k, v) in env {
        command.env(k, v);
    }
    let out = command.args(args.split_whitespace()).output().await.unwrap();
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr)
    );
    (out.status.success(), text.trim().to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fake_openstack_client() {
    if client().is_none() {
        println!("skipped: no target/venv/bin/openstack (pip install python-openstackclient)");
        return;
    }
    let c = Cloud::sqlite().await;
    let admin = [
        ("OS_USERNAME", "admin"),
        ("OS_PASSWORD", c.password.as_str()),
        ("OS_PROJECT_NAME", "admin"),
        ("OS_USER_DOMAIN_ID", "default"),
        ("OS_PROJECT_DOMAIN_ID", "default"),
    ];
    let ok = async |args: &str| {
        let (good, text) = run(&c, &admin, args).await;
        assert!(good, "openstack {args}: {text}");
        text
    };
    assert!(ok("token issue -f value -c id").await.starts_with("gAAAA"));
    ok("catalog list").await;
    let project = ok("project create demo --description x --property k=v -f value -c id").await;
    let user = ok("user create bob --password hello --email b@example.org --project demo -f value -c id").await;
    ok("role add --project demo --user bob member").await;
    assert!(
        ok("role assignment list --user bob --project demo --names -f value")
            .await
            .contains("member")
    );
    assert!(
        ok("role assignment list --user bob --project demo --effective --names -f value")
            .await
            .contains("reader")
    );
    assert!(ok("user list -f value").await.contains("bob"));
    assert!(ok("project show demo -f json").await.contains("\"k\": \"v\""));
    ok("project set demo --name demo2 --tag t").await;
    ok("user set bob --description y").await;
    ok("group create staff").await;
    ok("group add user staff bob").await;
    assert!(ok("group contains user staff bob").await.contains("in group"));
    ok("role create auditor").await;
    ok("implied role create auditor --implied-role reader").await;
    ok("domain create lab").await;
    ok("domain set lab --disable").await;
    ok("domain delete lab").await;
    ok("endpoint list").await;
    ok("service list").await;
    ok("region list").await;
    let bob = [
        ("OS_USERNAME", "bob"),
        ("OS_PASSWORD", "hello"),
        ("OS_PROJECT_NAME", "demo2"),
        ("OS_USER_DOMAIN_ID", "default"),
        ("OS_PROJECT_DOMAIN_ID", "default"),
    ];
    let (good, text) = run(&c, &bob, "application credential create ci --role reader -f json").await;
    assert!(good, "{text}");
    let cred: serde_json::Value = serde_json::from_str(&text).unwrap();
    let pick = |names: &[&str]| names.iter().find_map(|n| cred[*n].as_str()).unwrap().to_owned();
    let (id, secret) = (pick(&["ID", "id"]), pick(&["Secret", "secret"]));
    let by_cred = [
        ("OS_AUTH_TYPE", "v3applicationcredential"),
        ("OS_APPLICATION_CREDENTIAL_ID", id.as_str()),
        ("OS_APPLICATION_CREDENTIAL_SECRET", secret.as_str()),
    ];
    let (good, text) = run(&c, &by_cred, "token issue -f value -c project_id").await;
    assert!(good && text == project, "{text}");
    let (good, text) = run(&c, &by_cred, "user list").await;
    assert!(!good && text.contains("403"), "{text}");
    let (good, text) = run(&c, &bob, "application credential list -f value").await;
    assert!(good && text.contains("ci"), "{text}");
    let (good, text) = run(&c, &bob, "application credential delete ci").await;
    assert!(good, "{text}");
    let (good, text) = run(&c, &bob, "user password set --original-password hello --password bye").await;
    assert!(good, "{text}");
    let (good, text) = run(&c, &bob, "token issue").await;
    assert!(!good && text.contains("401"), "{text}");
    ok("role remove --project demo2 --user bob member").await;
    ok("group delete staff").await;
    ok("role delete auditor").await;
    ok(&format!("user delete {user}")).await;
    ok("project delete demo2").await;
}
