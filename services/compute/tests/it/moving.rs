//! Live migrations, between hosts that say what a test lets them say.

use crate::lab::{ADMIN, Answer, DEMO, FakeHost, LISTENS, Lab};
use haneul_agent_api::{Failure, FailureCode, MoveProgress, MoveState};
use http::Method;
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use uuid::Uuid;

const WAIT: Duration = Duration::from_secs(60);

async fn migrate(lab: &Lab, id: &str, host: Option<&str>) -> Answer {
    let body = json!({"os-migrateLive": {"host": host, "block_migration": "auto"}});
    lab.call(
        ADMIN,
        "2.96",
        Method::POST,
        &format!("/v2.1/servers/{id}/action"),
        Some(body),
    )
    .await
}

/// Two hosts, of which the server is on the first that is answered.
async fn two(lab: &Lab) -> (String, FakeHost, FakeHost) {
    let a = FakeHost::join(lab, 8, 8192, 100).await;
    let id = lab.create("mover", "1").await;
    lab.wait(&id, "ACTIVE").await;
    let b = FakeHost::join(lab, 8, 8192, 100).await;
    (id, a, b)
}

async fn own(lab: &Lab, id: &str) -> Vec<Value> {
    let all = lab.get(ADMIN, "2.96", &format!("/v2.1/servers/{id}/migrations")).await;
    all["migrations"].as_array().unwrap().clone()
}

async fn last(lab: &Lab) -> Value {
    lab.get(ADMIN, "2.96", "/v2.1/os-migrations").await["migrations"][0].clone()
}

pub async fn until(what: &str, done: impl AsyncFn() -> bool) {
    let start = Instant::now();
    while !done().await {
        assert!(start.elapsed() < WAIT, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Until the source sends.
async fn sends(lab: &Lab, id: &str, source: &FakeHost) {
    until("the source is told", async || {
        source.guest(id).is_some_and(|g| g.leaving.is_some())
    })
    .await;
    until("it is shown", async || {
        own(lab, id).await.first().is_some_and(|m| m["status"] == "running")
    })
    .await;
}

fn broken(message: &str) -> MoveState {
    MoveState::Failed(Failure {
        code: FailureCode::HypervisorError,
        message: message.into(),
        detail: String::new(),
    })
}

/// The server is on this host and only there, and nobody holds anything for it elsewhere.
async fn only_on(lab: &Lab, id: &str, there: &FakeHost, not: &FakeHost) {
    let s = lab.wait(id, "ACTIVE").await;
    assert_eq!(s["OS-EXT-SRV-ATTR:host"], name(there), "{s}");
    until("the guest is there", async || {
        there.guest(id).is_some_and(|g| g.leaving.is_none())
    })
    .await;
    until("nothing is left", async || not.guest(id).is_none()).await;
    until("the books agree", async || {
        let mut tx = lab.db.read().await.unwrap();
        lab.compute.audit(&mut tx).await.unwrap().is_empty()
    })
    .await;
}

pub fn name(host: &FakeHost) -> String {
    format!("secret-host-{}", &host.id()[..4])
}

#[tokio::test]
async fn a_server_moves() {
    let lab = Lab::start().await;
    let (id, a, b) = two(&lab).await;
    assert_eq!(migrate(&lab, &id, None).await.status, 202);
    sends(&lab, &id, &a).await;
    let leaving = a.guest(&id).unwrap().leaving.unwrap();
    let arriving = b.guest(&id).unwrap().arriving.unwrap();
    assert_eq!(
        (leaving.id, &leaving.key, leaving.to),
        (arriving.id, &arriving.key, LISTENS)
    );
    assert!(arriving.key.is_well_formed());
    let s = lab.server(&id).await;
    assert_eq!(
        (&s["status"], &s["OS-EXT-STS:task_state"]),
        (&json!("MIGRATING"), &json!("migrating"))
    );
    assert_eq!(s["OS-EXT-SRV-ATTR:host"], name(&a));
    let half = MoveProgress {
        memory_total: 100,
        memory_done: 50,
        memory_left: 50,
        ..MoveProgress::default()
    };
    a.moves(&id, Some(MoveState::Moving(half))).await;
    let m = own(&lab, &id).await.remove(0);
    assert_eq!(
        (&m["memory_remaining_bytes"], &m["dest_compute"]),
        (&json!(50), &json!(name(&b)))
    );
    let number = m["id"].as_i64().unwrap();
    let one = lab
        .get(ADMIN, "2.96", &format!("/v2.1/servers/{id}/migrations/{number}"))
        .await;
    assert_eq!(one["migration"], m);
    // What else is asked meanwhile waits for its end, and does not stop it.
    lab.act(&id, json!({"os-stop": null}), 409).await;
    let meta = json!({"metadata": {"a": "b"}});
    lab.post(DEMO, "2.96", &format!("/v2.1/servers/{id}/metadata"), meta, 200)
        .await;
    assert!(a.guest(&id).unwrap().leaving.is_some());

    // Handed over: it is the target's, and the source's process waits for the end.
    a.moves(&id, Some(MoveState::HandedOver)).await;
    assert_eq!(lab.server(&id).await["OS-EXT-SRV-ATTR:host"], name(&b));
    assert!(a.guest(&id).is_some());
    b.moves(&id, Some(MoveState::Arrived)).await;
    only_on(&lab, &id, &b, &a).await;
    assert!(b.guest(&id).unwrap().arriving.is_none(), "the key's life is over");
    let m = last(&lab).await;
    assert_eq!(
        (&m["status"], &m["migration_type"]),
        (&json!("completed"), &json!("live-migration"))
    );
    assert_eq!(
        (&m["source_compute"], &m["dest_compute"]),
        (&json!(name(&a)), &json!(name(&b)))
    );
    assert!(own(&lab, &id).await.is_empty());
    let actions = lab
        .get(DEMO, "2.96", &format!("/v2.1/servers/{id}/os-instance-actions"))
        .await;
    assert_eq!(actions["instanceActions"][0]["action"], "live-migration");
    // And it can be used there.
    lab.act(&id, json!({"os-stop": null}), 202).await;
    lab.wait(&id, "SHUTOFF").await;
}

#[tokio::test]
async fn whatever_fails_leaves_the_server_where_it_was() {
    let lab = Lab::start().await;
    let (id, a, b) = two(&lab).await;

    // The target cannot make ready.
    b.moves(&id, Some(broken("no room for it"))).await;
    assert_eq!(migrate(&lab, &id, None).await.status, 202);
    only_on(&lab, &id, &a, &b).await;
    assert_eq!(last(&lab).await["status"], "error");

    // The source gives up.
    b.moves(&id, None).await;
    assert_eq!(migrate(&lab, &id, None).await.status, 202);
    sends(&lab, &id, &a).await;
    a.moves(&id, Some(broken("the wire was cut"))).await;
    only_on(&lab, &id, &a, &b).await;

    // It was handed over, and the target lost it: the source goes on, but only when nothing is left there.
    a.moves(&id, None).await;
    assert_eq!(migrate(&lab, &id, None).await.status, 202);
    sends(&lab, &id, &a).await;
    b.keep_tombstones();
    a.moves(&id, Some(MoveState::HandedOver)).await;
    b.moves(&id, Some(broken("its process ended"))).await;
    until("it is taken back", async || {
        lab.server(&id).await["OS-EXT-SRV-ATTR:host"] == name(&a)
    })
    .await;
    assert!(
        a.guest(&id).unwrap().leaving.is_some(),
        "nobody knows yet that the target does not run it"
    );
    assert_eq!(lab.server(&id).await["status"], "MIGRATING");
    b.buries(&id).await;
    b.obey().await;
    only_on(&lab, &id, &a, &b).await;

    // A source that lost its process leaves the question to the target, which has nothing.
    a.moves(&id, None).await;
    b.moves(&id, None).await;
    assert_eq!(migrate(&lab, &id, None).await.status, 202);
    sends(&lab, &id, &a).await;
    a.moves(&id, Some(MoveState::Lost)).await;
    only_on(&lab, &id, &a, &b).await;
}

#[tokio::test]
async fn a_move_is_aborted_or_forced() {
    let lab = Lab::start().await;
    let (id, a, b) = two(&lab).await;
    assert_eq!(migrate(&lab, &id, None).await.status, 202);
    sends(&lab, &id, &a).await;
    let at = format!("/v2.1/servers/{id}/migrations/{}", own(&lab, &id).await[0]["id"]);
    let force = json!({"force_complete": null});
    lab.post(ADMIN, "2.96", &format!("{at}/action"), force.clone(), 202)
        .await;
    until("it is forced", async || {
        a.guest(&id).is_some_and(|g| g.leaving.is_some_and(|l| l.force))
    })
    .await;
    let abort = async || lab.call(ADMIN, "2.96", Method::DELETE, &at, None).await;
    assert_eq!(abort().await.status, 202);
    until("it is aborted", async || {
        a.guest(&id).is_some_and(|g| g.leaving.is_some_and(|l| l.abort))
    })
    .await;
    a.moves(&id, Some(broken("the server's move was aborted"))).await;
    only_on(&lab, &id, &a, &b).await;
    assert_eq!(last(&lab).await["status"], "cancelled");
    assert_eq!(abort().await.status, 409);
    lab.post(ADMIN, "2.96", &format!("{at}/action"), force, 409).await;

    // Before anything was sent.
    a.moves(&id, None).await;
    b.behave(|_| None).await;
    assert_eq!(migrate(&lab, &id, None).await.status, 202);
    let at = format!("/v2.1/servers/{id}/migrations/{}", own(&lab, &id).await[0]["id"]);
    assert_eq!(lab.call(ADMIN, "2.96", Method::DELETE, &at, None).await.status, 202);
    only_on(&lab, &id, &a, &b).await;
    assert_eq!(last(&lab).await["status"], "cancelled");
}

#[tokio::test]
async fn refusals_say_why_for_each_host() {
    let lab = Lab::start().await;
    let a = FakeHost::join(&lab, 8, 8192, 100).await;
    let id = lab.create("mover", "1").await;
    lab.wait(&id, "ACTIVE").await;
    let none = migrate(&lab, &id, None).await;
    assert_eq!(none.status, 400);
    let small = FakeHost::join(&lab, 8, 64, 100).await;
    let tight = migrate(&lab, &id, None).await;
    let text = tight.body["badRequest"]["message"].as_str().unwrap();
    assert!(text.contains(&format!("{}: MEMORY_MB: needed", name(&small))), "{text}");
    let here = migrate(&lab, &id, Some(&name(&a))).await;
    assert_eq!(here.status, 400);
    assert!(here.body.to_string().contains("to current host"), "{}", here.body);
    let body = json!({"os-migrateLive": {"host": null, "block_migration": false}});
    let action = format!("/v2.1/servers/{id}/action");
    let shared = lab.post(ADMIN, "2.96", &action, body, 400).await;
    assert!(shared.to_string().contains("have to be copied"), "{shared}");
    let other = FakeHost::join_as(&lab, 8, 8192, 100, |h| h.accelerator = "kvm".into()).await;
    let rows = lab.rows().await;
    let text = migrate(&lab, &id, None).await.body.to_string();
    assert!(
        text.contains(&format!(
            "{}: CompatibilityFilter: it runs servers by kvm",
            name(&other)
        )),
        "{text}"
    );
    assert_eq!(lab.rows().await, rows, "nothing was written");
    let plan = lab.compute.drain_plan(&a.id()).await.unwrap();
    let why = plan[0].to.clone().unwrap_err();
    assert!(why.contains("it runs servers by kvm"), "{why}");
    let old = FakeHost::join_as(&lab, 8, 8192, 100, |h| h.moves = false).await;
    let text = migrate(&lab, &id, Some(&name(&old))).await.body.to_string();
    assert!(text.contains("its agent, of release 0, takes no servers"), "{text}");
    let fits = FakeHost::join(&lab, 8, 8192, 100).await;
    let plan = lab.compute.drain_plan(&a.id()).await.unwrap();
    assert_eq!(plan[0].to, Ok(fits.id()));
    lab.act(&id, json!({"suspend": null}), 202).await;
    lab.wait(&id, "SUSPENDED").await;
    let off = migrate(&lab, &id, None).await;
    assert_eq!(off.status, 409);
    let plan = lab.compute.drain_plan(&a.id()).await.unwrap();
    assert!(plan[0].to.clone().unwrap_err().contains("it is suspended"), "{plan:?}");
    lab.audit().await;
}

#[tokio::test]
async fn a_server_that_is_on_its_way_can_be_deleted() {
    let lab = Lab::start().await;
    let (id, a, b) = two(&lab).await;
    assert_eq!(migrate(&lab, &id, None).await.status, 202);
    sends(&lab, &id, &a).await;
    let gone = lab
        .call(DEMO, "2.96", Method::DELETE, &format!("/v2.1/servers/{id}"), None)
        .await;
    assert_eq!(gone.status, 204);
    lab.wait_gone(&id).await;
    assert!(a.guest(&id).is_none() && b.guest(&id).is_none());
    lab.audit().await;
}

/// Disks in a directory that hosts share stay there: such a server goes to hosts that have it, and nothing is copied.
#[tokio::test]
async fn shared_disks_stay_where_they_are() {
    let lab = Lab::start().await;
    let (marker, other) = (Uuid::new_v4(), Uuid::new_v4());
    let with = async |m| FakeHost::join_as(&lab, 8, 8192, 100, |h| h.shared_disks = Some(m)).await;
    let a = with(marker).await;
    let id = lab.create("mover", "1").await;
    lab.wait(&id, "ACTIVE").await;
    assert_eq!(a.guest(&id).unwrap().shared_disks, Some(marker));
    let none = FakeHost::join(&lab, 8, 8192, 100).await;
    let wrong = with(other).await;
    let text = migrate(&lab, &id, None).await.body.to_string();
    for (host, has) in [(&none, "none".to_owned()), (&wrong, format!("the directory {other}"))] {
        let why = format!(
            "{}: CompatibilityFilter: the server's disks are in the shared directory {marker}, and it has {has}",
            name(host)
        );
        assert!(text.contains(&why), "{why}: {text}");
    }
    let action = format!("/v2.1/servers/{id}/action");
    let copied = json!({"os-migrateLive": {"host": null, "block_migration": true}});
    let refused = lab.post(ADMIN, "2.96", &action, copied, 400).await;
    assert!(
        refused
            .to_string()
            .contains("Block migration can not be used with shared storage"),
        "{refused}"
    );

    let b = with(marker).await;
    let shared = json!({"os-migrateLive": {"host": null, "block_migration": false}});
    lab.post(ADMIN, "2.96", &action, shared, 202).await;
    sends(&lab, &id, &a).await;
    assert!(a.guest(&id).unwrap().leaving.unwrap().shared_disks);
    assert!(b.guest(&id).unwrap().arriving.unwrap().shared_disks);
    a.keep_tombstones();
    a.moves(&id, Some(MoveState::HandedOver)).await;
    b.moves(&id, Some(MoveState::Arrived)).await;
    assert!(!a.buries(&id).await, "they are the other host's by now");
    only_on(&lab, &id, &b, &a).await;
    b.keep_tombstones();
    lab.call(DEMO, "2.96", Method::DELETE, &format!("/v2.1/servers/{id}"), None)
        .await;
    assert!(b.buries(&id).await);
    lab.wait_gone(&id).await;
    lab.audit().await;
}
