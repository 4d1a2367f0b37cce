//! Servers that move to another host stopped: `migrate`, and a resize that their host has no room for.

use crate::lab::{ADMIN, FakeHost, Lab};
use crate::moving::{name, until};
use haneul_agent_api::{Failure, FailureCode, MoveState};
use http::Method;
use serde_json::{Value, json};

/// Both hosts do their part of the move.
async fn carried(id: &str, from: &FakeHost, to: &FakeHost) {
    from.moves(id, None).await;
    to.moves(id, None).await;
    until("the source is told", async || {
        from.guest(id).is_some_and(|g| g.leaving.is_some())
    })
    .await;
    from.moves(id, Some(MoveState::HandedOver)).await;
    to.moves(id, Some(MoveState::Arrived)).await;
}

async fn agrees(lab: &Lab) {
    until("the books agree", async || {
        let mut tx = lab.db.read().await.unwrap();
        lab.compute.audit(&mut tx).await.unwrap().is_empty()
    })
    .await;
}

async fn last(lab: &Lab) -> Value {
    lab.get(ADMIN, "2.96", "/v2.1/os-migrations").await["migrations"][0].clone()
}

async fn act(lab: &Lab, id: &str, body: Value) -> (u16, Value) {
    let at = format!("/v2.1/servers/{id}/action");
    let a = lab.call(ADMIN, "2.96", Method::POST, &at, Some(body)).await;
    (a.status.as_u16(), a.body)
}

async fn big(lab: &Lab) -> Value {
    let flavor = json!({"flavor": {"name": "big", "id": "big", "vcpus": 2, "ram": 4096, "disk": 20}});
    lab.post(ADMIN, "2.96", "/v2.1/flavors", flavor, 200).await;
    json!({"resize": {"flavorRef": "big"}})
}

#[tokio::test]
async fn a_stopped_or_running_server_is_migrated() {
    let lab = Lab::start().await;
    let a = FakeHost::join(&lab, 8, 8192, 100).await;
    let id = lab.create("mover", "1").await;
    lab.wait(&id, "ACTIVE").await;
    // In a cloud of one host there is nowhere to go, and it says so.
    let (status, why) = act(&lab, &id, json!({"migrate": null})).await;
    assert_eq!(status, 400, "{why}");
    assert!(
        why.to_string().contains("Of 1 hosts: DifferentHostFilter refused 1"),
        "{why}"
    );
    let b = FakeHost::join(&lab, 8, 8192, 100).await;
    let (mut from, mut to) = (&a, &b);
    for stopped in [false, true] {
        if stopped {
            lab.act(&id, json!({"os-stop": null}), 202).await;
            lab.wait(&id, "SHUTOFF").await;
        }
        let (status, body) = act(&lab, &id, json!({"migrate": {"host": name(to)}})).await;
        assert_eq!(status, 202, "{body}");
        assert_eq!(lab.server(&id).await["status"], "RESIZE");
        assert_eq!(act(&lab, &id, json!({"migrate": null})).await.0, 409);
        carried(&id, from, to).await;
        let s = lab.wait(&id, "VERIFY_RESIZE").await;
        assert_eq!(s["OS-EXT-SRV-ATTR:host"], name(to), "{s}");
        agrees(&lab).await;
        let m = last(&lab).await;
        assert_eq!(
            (
                &m["migration_type"],
                &m["status"],
                &m["source_compute"],
                &m["dest_compute"]
            ),
            (
                &json!("migration"),
                &json!("finished"),
                &json!(name(from)),
                &json!(name(to))
            )
        );
        lab.act(&id, json!({"confirmResize": null}), 204).await;
        lab.wait(&id, if stopped { "SHUTOFF" } else { "ACTIVE" }).await;
        assert_eq!(last(&lab).await["status"], "confirmed");
        until("nothing is left", async || from.guest(&id).is_none()).await;
        agrees(&lab).await;
        (from, to) = (to, from);
    }
    let actions = format!("/v2.1/servers/{id}/os-instance-actions");
    let actions = lab.get(ADMIN, "2.96", &actions).await.to_string();
    assert!(actions.contains("\"migrate\""), "{actions}");
    lab.audit().await;
}

#[tokio::test]
async fn a_resize_goes_where_there_is_room_and_back() {
    let lab = Lab::start().await;
    let a = FakeHost::join(&lab, 8, 2048, 100).await;
    let id = lab.create("grower", "1").await;
    lab.wait(&id, "ACTIVE").await;
    let resize = big(&lab).await;
    let (status, why) = act(&lab, &id, resize.clone()).await;
    assert_eq!(status, 400);
    let why = why.to_string();
    assert!(
        why.contains("MEMORY_MB (needed") && why.contains("Elsewhere: "),
        "{why}"
    );
    let b = FakeHost::join(&lab, 8, 8192, 100).await;
    for confirm in [false, true] {
        assert_eq!(act(&lab, &id, resize.clone()).await.0, 202);
        carried(&id, &a, &b).await;
        let s = lab.wait(&id, "VERIFY_RESIZE").await;
        assert_eq!(
            (&s["OS-EXT-SRV-ATTR:host"], &s["flavor"]["ram"]),
            (&json!(name(&b)), &json!(4096))
        );
        assert_eq!(b.guest(&id).unwrap().memory_mib, 4096);
        assert_eq!(last(&lab).await["migration_type"], "resize");
        agrees(&lab).await;
        if confirm {
            lab.act(&id, json!({"confirmResize": null}), 204).await;
            break;
        }
        lab.act(&id, json!({"revertResize": null}), 202).await;
        assert_eq!(lab.server(&id).await["status"], "REVERT_RESIZE");
        carried(&id, &b, &a).await;
        let s = lab.wait(&id, "ACTIVE").await;
        assert_eq!(
            (&s["OS-EXT-SRV-ATTR:host"], &s["flavor"]["ram"]),
            (&json!(name(&a)), &json!(512))
        );
        assert_eq!(last(&lab).await["status"], "reverted");
        until("nothing is left", async || b.guest(&id).is_none()).await;
        // It is as large as it became; a host that is to copy it must know.
        assert_eq!(a.guest(&id).unwrap().root.size_gib, 20);
        agrees(&lab).await;
    }
    lab.wait(&id, "ACTIVE").await;
    until("nothing is left", async || a.guest(&id).is_none()).await;
    lab.audit().await;
}

/// Going back fits always, and so does staying: nobody gets the place of what waits to be confirmed on either host.
#[tokio::test]
async fn what_waits_to_be_confirmed_holds_its_place_on_both_hosts() {
    let lab = Lab::start().await;
    let a = FakeHost::join(&lab, 8, 2048, 100).await;
    let id = lab.create("grower", "1").await;
    lab.wait(&id, "ACTIVE").await;
    let b = FakeHost::join(&lab, 8, 4608, 100).await;
    let resize = big(&lab).await;
    assert_eq!(act(&lab, &id, resize).await.0, 202);
    carried(&id, &a, &b).await;
    lab.wait(&id, "VERIFY_RESIZE").await;
    // Its own 512 MiB on the one and 4096 on the other are all that the others leave.
    let on = async |host: &FakeHost| {
        let server = json!({"server": {"name": "filler", "imageRef": lab.image, "flavorRef": "1", "networks": "none", "host": name(host)}});
        let made = lab.post(ADMIN, "2.96", "/v2.1/servers", server, 202).await;
        let id = made["server"]["id"].as_str().unwrap().to_owned();
        until("it is decided", async || lab.server(&id).await["status"] != "BUILD").await;
        lab.server(&id).await
    };
    for (host, fit) in [(&a, 3), (&b, 1)] {
        for _ in 0..fit {
            assert_eq!(on(host).await["status"], "ACTIVE");
        }
        let s = on(host).await;
        assert_eq!(s["status"], "ERROR", "{s}");
        assert!(s["fault"].to_string().contains("MEMORY_MB"), "{s}");
    }
    lab.act(&id, json!({"revertResize": null}), 202).await;
    carried(&id, &b, &a).await;
    lab.wait(&id, "ACTIVE").await;
    until("nothing is left", async || b.guest(&id).is_none()).await;
    agrees(&lab).await;
    // What it does not hold any more is others'.
    assert_eq!(on(&b).await["status"], "ACTIVE");
    assert_eq!(on(&a).await["status"], "ERROR");
}

/// Whatever fails before it is started there, it goes on where it was, as it was.
#[tokio::test]
async fn a_migration_that_fails_leaves_the_server_as_it_was() {
    let lab = Lab::start().await;
    let a = FakeHost::join(&lab, 8, 2048, 100).await;
    let id = lab.create("mover", "1").await;
    lab.wait(&id, "ACTIVE").await;
    let b = FakeHost::join(&lab, 8, 8192, 100).await;
    let resize = big(&lab).await;
    let broken = MoveState::Failed(Failure {
        code: FailureCode::HypervisorError,
        message: "no room for it".into(),
        detail: String::new(),
    });
    for body in [json!({"migrate": null}), resize] {
        b.moves(&id, Some(broken.clone())).await;
        assert_eq!(act(&lab, &id, body).await.0, 202);
        let s = lab.wait(&id, "ACTIVE").await;
        assert_eq!(
            (&s["OS-EXT-SRV-ATTR:host"], &s["flavor"]["ram"]),
            (&json!(name(&a)), &json!(512))
        );
        assert_eq!(last(&lab).await["status"], "error");
        until("it runs", async || {
            a.guest(&id)
                .is_some_and(|g| g.power == haneul_agent_api::Power::Running)
        })
        .await;
        until("nothing is left", async || b.guest(&id).is_none()).await;
        agrees(&lab).await;
    }
    // On the way back: it waits as before, and can be confirmed.
    b.moves(&id, None).await;
    assert_eq!(act(&lab, &id, json!({"migrate": null})).await.0, 202);
    carried(&id, &a, &b).await;
    lab.wait(&id, "VERIFY_RESIZE").await;
    until("the source let go", async || a.guest(&id).is_none()).await;
    b.moves(&id, None).await;
    a.moves(&id, Some(broken)).await;
    lab.act(&id, json!({"revertResize": null}), 202).await;
    let s = lab.wait(&id, "VERIFY_RESIZE").await;
    assert_eq!(s["OS-EXT-SRV-ATTR:host"], name(&b), "{s}");
    agrees(&lab).await;
    lab.act(&id, json!({"confirmResize": null}), 204).await;
    lab.wait(&id, "ACTIVE").await;
    lab.audit().await;
}
