//! Backup and restore of the control plane, and its way from one database to another.

use crate::setup::{Ready, options};
use haneul_testkit::{Cloud, eventually};
use http::Method;
use serde_json::Value;
use std::process::Output;
use std::time::Duration;

fn run(cloud: &Cloud, args: &[&str]) -> (bool, String) {
    let out: Output = cloud.command().args(args).output().unwrap();
    let text = [out.stdout.as_slice(), out.stderr.as_slice()].concat();
    (out.status.success(), String::from_utf8_lossy(&text).into_owned())
}

async fn findings(cloud: &Cloud) -> Vec<String> {
    let found = cloud.admin(Method::GET, "/admin/v1/audit").await.expect("an audit");
    let list = found["findings"].as_array().unwrap();
    list.iter().map(|f| f["what"].as_str().unwrap().to_owned()).collect()
}

/// What was there at the backup is there again and can be worked with; what came later is left running, and named.
#[tokio::test(flavor = "multi_thread")]
async fn fake_backup_and_restore() {
    let mut r = Ready::new(options()).await;
    let before = r.create("before").await;
    r.wait(&before, "ACTIVE").await;
    let dir = r.cloud.dir.join("backup");
    let dir = dir.to_str().unwrap();
    let (good, text) = run(&r.cloud, &["backup", dir]);
    assert!(good, "{text}");
    let (good, text) = run(&r.cloud, &["backup", dir]);
    assert!(!good && text.contains("exists"), "{text}");
    let after = r.create("after").await;
    r.wait(&after, "ACTIVE").await;

    let (good, text) = run(&r.cloud, &["restore", dir]);
    assert!(!good, "serve runs: {text}");
    r.cloud.stop_serve();
    let (good, text) = run(&r.cloud, &["restore", dir]);
    assert!(!good && text.contains("is not empty"), "{text}");
    std::fs::remove_dir_all(r.cloud.dir.join("control")).unwrap();
    let manifest = r.cloud.dir.join("backup/backup.json");
    let kept = std::fs::read(&manifest).unwrap();
    std::fs::remove_file(&manifest).unwrap();
    let (good, text) = run(&r.cloud, &["restore", dir]);
    assert!(!good && text.contains("came to its end"), "{text}");
    std::fs::write(&manifest, kept).unwrap();
    // An attempt that was cut off leaves nothing in the way of the next.
    std::fs::create_dir_all(r.cloud.dir.join("control.restoring/fernet-keys")).unwrap();
    let (good, text) = run(&r.cloud, &["restore", dir]);
    assert!(good && text.contains("epoch 2"), "{text}");
    r.cloud.start_serve();
    r.cloud.ready().await;

    // The token of before is good still (the keys are the same), and so is the password.
    let shown = r.wait(&before, "ACTIVE").await;
    assert_eq!(shown["name"], "before");
    r.admin = r.cloud.admin_client().await;
    assert!(r.show(&after).await.is_none());
    let unknown = eventually("the audit names the later server", Duration::from_secs(60), || async {
        let all = findings(&r.cloud).await;
        all.iter().any(|f| f.contains(&after)).then_some(all)
    })
    .await;
    assert!(
        unknown
            .iter()
            .all(|f| f.contains("nobody desires") || f.contains("is left")),
        "{unknown:?}"
    );
    assert!(!unknown.iter().any(|f| f.contains(&before)), "{unknown:?}");
    // The image's bytes came along, and hosts take what control says now.
    let third = r.create("third").await;
    r.wait(&third, "ACTIVE").await;
    r.delete(&before).await;
}

/// A cloud moves to PostgreSQL and back: the same ids, the same servers, and the one that was left refuses to serve.
#[tokio::test(flavor = "multi_thread")]
async fn fake_backup_store_move() {
    if !haneul_testkit::postgres::installed() {
        println!("skipped: PostgreSQL is not installed (apt-get install postgresql)");
        return;
    }
    let postgres = haneul_testkit::postgres::Postgres::start().unwrap();
    let url = postgres.create_database("moved").unwrap();
    let mut r = Ready::new(options()).await;
    let server = r.create("moves").await;
    r.wait(&server, "ACTIVE").await;
    let id_of = async |cloud: &Cloud| {
        let status = cloud.admin(Method::GET, "/admin/v1/status").await.unwrap();
        status["cloud_id"].as_str().unwrap().to_owned()
    };
    let cloud_id = id_of(&r.cloud).await;
    let (good, text) = run(&r.cloud, &["store", "move", "sqlite:", &url]);
    assert!(!good, "serve runs: {text}");
    r.cloud.stop_serve();
    let (good, text) = run(&r.cloud, &["store", "move", "sqlite:/elsewhere", &url]);
    assert!(!good && text.contains("is not the database of this cloud"), "{text}");
    let (good, text) = run(&r.cloud, &["store", "move", "sqlite:", &url]);
    assert!(good && text.contains("Moved"), "{text}");
    let (good, text) = run(&r.cloud, &["serve"]);
    assert!(!good && text.contains("was moved to"), "{text}");
    r.cloud.options.database = Some(url.clone());
    let (good, text) = run(&r.cloud, &["store", "move", &url, &url]);
    assert!(!good && text.contains("not empty"), "{text}");
    r.cloud.start_serve();
    r.cloud.ready().await;
    assert_eq!(id_of(&r.cloud).await, cloud_id);
    r.wait(&server, "ACTIVE").await;
    let second = r.create("second").await;
    r.wait(&second, "ACTIVE").await;
    r.cloud.audit().await;
    let log = r
        .admin
        .get(&format!("/compute/v2.1/servers/{server}/os-instance-actions"))
        .await
        .expect(200);
    assert!(
        log["instanceActions"]
            .as_array()
            .is_some_and(|a: &Vec<Value>| !a.is_empty()),
        "{log}"
    );
    // And back.
    r.cloud.stop_serve();
    let back = format!("sqlite:{}", r.cloud.dir.join("control/again.db").display());
    let (good, text) = run(&r.cloud, &["store", "move", &url, &back]);
    assert!(good, "{text}");
    r.cloud.options.database = Some(back);
    r.cloud.start_serve();
    r.cloud.ready().await;
    r.delete(&server).await;
    r.delete(&second).await;
    r.cloud.audit().await;
}
