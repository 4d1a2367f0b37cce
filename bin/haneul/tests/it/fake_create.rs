//! The thread: token -> POST /servers -> ACTIVE through the real processes, on both databases, and kill -9 in
//! the middle of it.

use crate::setup::{Ready, options};
use haneul_testkit::{Options, postgres};

async fn life(options: Options) {
    let r = Ready::new(options).await;
    let server = r.create("one").await;
    let s = r.wait(&server, "ACTIVE").await;
    assert_eq!(s["OS-EXT-STS:vm_state"], "active");
    let addresses = s["addresses"]["net"].as_array().expect("addresses");
    assert!(
        addresses[0]["addr"].as_str().unwrap().starts_with("10.1."),
        "{addresses:?}"
    );
    r.cloud.audit().await;
    r.delete(&server).await;
    r.cloud.audit().await;
    let ports = r
        .admin
        .get("/network/v2.0/ports?device_owner=compute:nova")
        .await
        .expect(200);
    assert_eq!(ports["ports"].as_array().map(Vec::len), Some(0), "{ports}");
    // Who did what stands in the change log, under the client's request id.
    let changes = r
        .cloud
        .admin(http::Method::GET, "/admin/v1/changes?limit=1000")
        .await
        .expect("changes");
    let of_server: Vec<String> = changes["changes"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|c| c["kind"] == "server" && c["id"] == server.as_str())
        .map(|c| c["operation"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(of_server.first().map(String::as_str), Some("create"));
    assert_eq!(of_server.last().map(String::as_str), Some("delete"));
}

#[tokio::test(flavor = "multi_thread")]
async fn fake_create_and_delete_on_sqlite() {
    life(options()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fake_create_and_delete_on_postgres() {
    if !postgres::installed() {
        println!("skipped: PostgreSQL is not installed (apt-get install postgresql)");
        return;
    }
    let pg = postgres::Postgres::start().expect("PostgreSQL starts");
    let url = pg.create_database("cloud").expect("a database");
    life(Options {
        database: Some(url),
        ..options()
    })
    .await;
}

/// Kills serve or agent in the middle of a create; after the restart the server is ACTIVE and the audit empty.
#[tokio::test(flavor = "multi_thread")]
async fn fake_kill_in_the_middle_of_a_create() {
    let mut r = Ready::new(options()).await;
    for point in [
        "store.after-commit",
        "fleet.report.received",
        "fleet.report.committed",
        "agent.desired.stored",
        "agent.guest.applied",
        "agent.report.taken",
    ] {
        r.cloud.arm(&format!("{point}=kill"));
        let body = r.server(&format!("kill-{point}"), "tiny");
        let answer = r
            .admin
            .try_send(
                http::Method::POST,
                "/compute/v2.1/servers",
                &[("content-type", "application/json")],
                body.to_string().into_bytes(),
            )
            .await;
        haneul_testkit::eventually(
            &format!("{point} was reached"),
            std::time::Duration::from_secs(60),
            || async { r.cloud.armed().is_empty().then_some(()) },
        )
        .await;
        haneul_testkit::eventually(
            &format!("the process died at {point}"),
            std::time::Duration::from_secs(60),
            || {
                let revived = r.cloud.revive();
                async move { revived.then_some(()) }
            },
        )
        .await;
        r.cloud.ready().await;
        if let Some(a) = answer {
            assert_eq!(a.status, 202, "{point}: {}", a.text);
        }
        let all = r.admin.get("/compute/v2.1/servers").await.expect(200);
        for s in all["servers"].as_array().unwrap() {
            let id = s["id"].as_str().unwrap();
            r.wait(id, "ACTIVE").await;
            r.delete(id).await;
        }
        r.cloud.audit().await;
    }
}
