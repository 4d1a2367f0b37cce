//! createImage and createBackup: what becomes of the image, the server and the host's file, whatever happens.

use crate::lab::{ADMIN, DEMO, FakeHost, Lab, OTHER, READER};
use haneul_agent_api::{Failure, FailureCode, SnapshotState};
use http::Method;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// An image as its owner sees it; null when there is none.
async fn image(lab: &Lab, id: &str) -> Value {
    let path = format!("/image/v2/images/{id}");
    let a = lab
        .at(DEMO, "2.1")
        .raw(lab, Method::GET, &path, Default::default(), "")
        .await;
    if a.status == 404 {
        return Value::Null;
    }
    assert_eq!(a.status, 200, "{}", a.body);
    a.body
}

/// Waits until the server's task is this, or nothing.
async fn task(lab: &Lab, id: &str, task: Value) -> Value {
    let start = Instant::now();
    loop {
        let s = lab.server(id).await;
        if s["OS-EXT-STS:task_state"] == task {
            return s;
        }
        assert!(start.elapsed() < Duration::from_secs(60), "{task} expected: {s}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn make(lab: &Lab, id: &str, name: &str) -> String {
    let made = lab.act(id, json!({"createImage": {"name": name}}), 202).await;
    made["image_id"].as_str().unwrap().to_owned()
}

/// Nothing of an image is left: neither row nor wish.
async fn nothing_left(lab: &Lab, host: &FakeHost, server: &str, made: &str) {
    task(lab, server, Value::Null).await;
    assert_eq!(image(lab, made).await, Value::Null);
    host.comes_to(server, |g| g.snapshot.is_none()).await;
    lab.audit().await;
}

/// The newest action of a server, and what went wrong in it.
async fn newest(lab: &Lab, id: &str) -> (String, Value) {
    let path = format!("/v2.1/servers/{id}/os-instance-actions");
    let all = lab.get(DEMO, "2.96", &path).await;
    let act = &all["instanceActions"][0];
    (act["action"].as_str().unwrap().to_owned(), act["message"].clone())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_of_a_server() {
    let lab = Lab::start().await;
    let host = FakeHost::join(&lab, 8, 8192, 100).await;
    let id = lab.create("a", "1").await;
    let act = format!("/v2.1/servers/{id}/action");
    // A server that is not there yet, another project's, and one that may only be read.
    let body = json!({"createImage": {"name": "pic", "metadata": {"colour": "blue", "image_type": "own"}}});
    lab.wait(&id, "ACTIVE").await;
    for (token, status) in [(OTHER, 404), (READER, 403)] {
        lab.post(token, "2.45", &act, body.clone(), status).await;
    }
    // A lock keeps nobody from copying, as in Nova.
    lab.act(&id, json!({"lock": null}), 202).await;

    host.image(None, None).await;
    let made = lab.post(DEMO, "2.45", &act, body.clone(), 202).await;
    let made = made["image_id"].as_str().unwrap().to_owned();
    task(&lab, &id, json!("image_snapshot_pending")).await;
    let i = image(&lab, &made).await;
    for (name, value) in [
        ("name", "pic"),
        ("status", "queued"),
        ("visibility", "private"),
        ("owner", "demo"),
        ("disk_format", "qcow2"),
        ("container_format", "bare"),
        ("instance_uuid", &id),
        ("base_image_ref", &lab.image),
        ("user_id", "alice"),
        ("owner_user_name", "alice"),
        ("owner_project_name", "demo"),
        ("owner_id", "demo"),
        ("boot_roles", "member,reader"),
        ("image_location", "snapshot"),
        ("image_state", "available"),
        ("image_type", "own"),
        ("colour", "blue"),
    ] {
        assert_eq!(i[name], value, "{name} of {i}");
    }
    assert_eq!((&i["min_disk"], &i["min_ram"]), (&json!(1), &json!(0)));
    host.comes_to(&id, |g| g.snapshot.is_some_and(|s| s.to_string() == made))
        .await;
    // One at a time, and nothing else meanwhile.
    host.image(Some(SnapshotState::Making(40)), None).await;
    let s = task(&lab, &id, json!("image_snapshot")).await;
    assert_eq!(s["status"], "ACTIVE");
    let busy = lab.post(DEMO, "2.45", &act, body.clone(), 409).await.to_string();
    assert!(
        busy.contains(&format!(
            "Cannot 'createImage' instance {id} while it is in task_state image_snapshot"
        )),
        "{busy}"
    );
    lab.post(ADMIN, "2.45", &act, json!({"os-stop": null}), 409).await;
    let size = host.image_bytes().len() as u64;
    host.image(Some(SnapshotState::Ready(size)), None).await;
    task(&lab, &id, Value::Null).await;
    let i = image(&lab, &made).await;
    assert_eq!(
        (&i["status"], &i["size"], &i["virtual_size"]),
        (&json!("active"), &json!(size), &json!(1 << 20))
    );
    host.comes_to(&id, |g| g.snapshot.is_none()).await;
    assert_eq!(newest(&lab, &id).await, ("createImage".into(), Value::Null));
    lab.audit().await;

    // A server from it.
    let server = json!({"server": {"name": "b", "flavorRef": "1", "imageRef": made, "networks": "none"}});
    let second = lab.post(DEMO, "2.96", "/v2.1/servers", server, 202).await;
    let second = second["server"]["id"].as_str().unwrap();
    lab.wait(second, "ACTIVE").await;
    let root = host.guest(second).unwrap().root;
    assert_eq!((root.image.id.to_string(), root.image.format.as_str()), (made, "qcow2"));

    // Before 2.45 the address of the image; in every state that Nova allows.
    for (before, after, status) in [
        ("os-stop", "os-start", "SHUTOFF"),
        ("pause", "unpause", "PAUSED"),
        ("suspend", "resume", "SUSPENDED"),
    ] {
        lab.post(ADMIN, "2.1", &act, json!({before: null}), 202).await;
        lab.wait(&id, status).await;
        let a = lab.call(DEMO, "2.44", Method::POST, &act, Some(body.clone())).await;
        assert_eq!((a.status.as_u16(), a.body), (202, Value::Null));
        let location = a.headers["location"].to_str().unwrap().to_owned();
        let (at, made) = location.rsplit_once('/').unwrap();
        assert!(at.ends_with("/image/v2/images"), "{location}");
        lab.wait(&id, status).await;
        assert_eq!(image(&lab, made).await["status"], "active");
        lab.post(ADMIN, "2.1", &act, json!({after: null}), 202).await;
        lab.wait(&id, "ACTIVE").await;
    }
    lab.post(ADMIN, "2.1", &act, json!({"os-resetState": {"state": "error"}}), 202)
        .await;
    let wrong = lab.post(DEMO, "2.45", &act, body, 409).await.to_string();
    assert!(wrong.contains("while it is in vm_state error"), "{wrong}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_with_a_request_changes_nothing() {
    let lab = Lab::start().await;
    FakeHost::join(&lab, 8, 8192, 100).await;
    let id = lab.create("a", "1").await;
    lab.wait(&id, "ACTIVE").await;
    let act = format!("/v2.1/servers/{id}/action");
    let many: serde_json::Map<String, Value> = (0..129).map(|n| (format!("k{n}"), json!("v"))).collect();
    let backup = |more: Value| {
        let mut b = json!({"name": "b", "backup_type": "daily", "rotation": 1});
        b.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"createBackup": b})
    };
    for (body, version, status, says) in [
        (json!({"createImage": {}}), "2.45", 400, "name"),
        (json!({"createImage": {"name": ""}}), "2.45", 400, "name"),
        (json!({"createImage": {"name": "x".repeat(256)}}), "2.45", 400, "name"),
        (
            json!({"createImage": {"name": "x", "metadata": {"": "v"}}}),
            "2.45",
            400,
            "metadata",
        ),
        (
            json!({"createImage": {"name": "x", "metadata": {"k": "v".repeat(256)}}}),
            "2.45",
            400,
            "metadata",
        ),
        (json!({"createImage": {"name": "x", "other": 1}}), "2.45", 400, "other"),
        (
            json!({"createImage": {"name": "x", "metadata": many}}),
            "2.38",
            403,
            "exceeds 128: there would be 129",
        ),
        // What Glance refuses.
        (
            json!({"createImage": {"name": "x", "metadata": {"visibility": "public"}}}),
            "2.45",
            403,
            "public",
        ),
        (
            json!({"createImage": {"name": "x", "metadata": {"os_glance_x": "1"}}}),
            "2.45",
            403,
            "reserved",
        ),
        (
            json!({"createImage": {"name": "x", "metadata": many}}),
            "2.45",
            413,
            "139",
        ),
        (backup(json!({"rotation": -1})), "2.1", 400, "rotation"),
        (backup(json!({"rotation": "many"})), "2.1", 400, "rotation"),
        (backup(json!({"backup_type": 7})), "2.1", 400, "backup_type"),
        (backup(json!({"name": null})), "2.1", 400, "name"),
    ] {
        let before = lab.rows().await;
        let said = lab.post(DEMO, version, &act, body.clone(), status).await.to_string();
        assert!(said.contains(says), "{body}: {said}");
        assert_eq!(lab.rows().await, before, "{body}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_that_cannot_be_made_leaves_nothing() {
    let lab = Lab::with(|c| c.compute.image_timeout_s = 3).await;
    let host = FakeHost::join(&lab, 8, 8192, 100).await;
    let id = lab.create("a", "1").await;
    lab.wait(&id, "ACTIVE").await;
    let good = host.image_bytes();
    let ready = |n: usize| Some(SnapshotState::Ready(n as u64));

    // The host says why it cannot.
    let full = Failure {
        code: FailureCode::DiskFull,
        message: "the host's disk is too full: 7 MiB needed, 3 MiB free".into(),
        detail: "secret".into(),
    };
    host.image(Some(SnapshotState::Failed(full)), None).await;
    let made = make(&lab, &id, "full").await;
    nothing_left(&lab, &host, &id, &made).await;
    assert_eq!(newest(&lab, &id).await, ("createImage".into(), json!("Error")));
    assert_eq!(lab.server(&id).await["status"], "ACTIVE");

    // It says nothing, and then sends what is no such disk, or less than it said: the deadline ends it at the latest.
    for (state, bytes) in [
        (None, vec![]),
        (ready(4096), vec![7; 4096]),
        (ready(good.len()), good[..good.len() / 2].to_vec()),
    ] {
        host.image(state, Some(bytes)).await;
        let made = make(&lab, &id, "wrong").await;
        nothing_left(&lab, &host, &id, &made).await;
        assert_eq!(newest(&lab, &id).await, ("createImage".into(), json!("Error")));
    }

    // Another asks for the same, and gets it.
    host.image(ready(good.len()), Some(good)).await;
    let made = make(&lab, &id, "good").await;
    task(&lab, &id, Value::Null).await;
    assert_eq!(image(&lab, &made).await["status"], "active");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_deletes_ends_it() {
    let lab = Lab::start().await;
    let host = FakeHost::join(&lab, 8, 8192, 100).await;
    let id = lab.create("a", "1").await;
    lab.wait(&id, "ACTIVE").await;

    // The image: the host's next word on it ends the job.
    host.image(Some(SnapshotState::Making(10)), None).await;
    let made = make(&lab, &id, "gone").await;
    task(&lab, &id, json!("image_snapshot")).await;
    let path = format!("/image/v2/images/{made}");
    let gone = lab
        .at(DEMO, "2.1")
        .raw(&lab, Method::DELETE, &path, Default::default(), "")
        .await;
    assert_eq!(gone.status, 204);
    host.image(Some(SnapshotState::Making(11)), None).await;
    nothing_left(&lab, &host, &id, &made).await;

    // An administrator who says what the server is.
    let made = make(&lab, &id, "reset").await;
    task(&lab, &id, json!("image_snapshot")).await;
    let act = format!("/v2.1/servers/{id}/action");
    lab.post(ADMIN, "2.1", &act, json!({"os-resetState": {"state": "active"}}), 202)
        .await;
    nothing_left(&lab, &host, &id, &made).await;

    // The server.
    let made = make(&lab, &id, "server").await;
    task(&lab, &id, json!("image_snapshot")).await;
    let path = format!("/v2.1/servers/{id}");
    assert_eq!(lab.call(DEMO, "2.1", Method::DELETE, &path, None).await.status, 204);
    assert_eq!(image(&lab, &made).await, Value::Null);
    lab.wait_gone(&id).await;
    lab.audit().await;
}

/// What a guest does by itself while its disk is copied is not undone afterwards.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_that_switches_itself_off_meanwhile_stays_off() {
    let lab = Lab::start().await;
    let host = FakeHost::join(&lab, 8, 8192, 100).await;
    let id = lab.create("a", "1").await;
    lab.wait(&id, "ACTIVE").await;
    host.image(Some(SnapshotState::Making(10)), None).await;
    let made = make(&lab, &id, "off").await;
    task(&lab, &id, json!("image_snapshot")).await;
    host.event(&id, haneul_agent_api::GuestState::Stopped).await;
    let size = host.image_bytes().len() as u64;
    host.behave(|_| Some((haneul_agent_api::GuestState::Stopped, None)))
        .await;
    host.image(Some(SnapshotState::Ready(size)), None).await;
    lab.wait(&id, "SHUTOFF").await;
    assert_eq!(image(&lab, &made).await["status"], "active");
    host.comes_to(&id, |g| g.power == haneul_agent_api::Power::Stopped)
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn backups_rotate() {
    let lab = Lab::start().await;
    FakeHost::join(&lab, 8, 8192, 100).await;
    let id = lab.create("a", "1").await;
    lab.wait(&id, "ACTIVE").await;
    let act = format!("/v2.1/servers/{id}/action");
    let backup = async |kind: &str, rotation: Value, version: &str| {
        let body = json!({"createBackup": {"name": kind, "backup_type": kind, "rotation": rotation}});
        let a = lab.call(DEMO, version, Method::POST, &act, Some(body)).await;
        assert_eq!(a.status, 202, "{}", a.body);
        task(&lab, &id, Value::Null).await;
        let at = a.headers.get("location").map(|l| l.to_str().unwrap().to_owned());
        let body = a.body["image_id"].as_str().map(str::to_owned);
        body.or(at.and_then(|l| Some(l.rsplit_once('/')?.1.to_owned())))
    };
    let snapshot = make(&lab, &id, "snapshot").await;
    task(&lab, &id, Value::Null).await;
    let mut daily = Vec::new();
    for _ in 0..3 {
        daily.push(backup("daily", json!(2), "2.1").await.unwrap());
    }
    let weekly = backup("weekly", json!("1"), "2.45").await.unwrap();
    for (made, there) in [
        (&daily[0], false),
        (&daily[1], true),
        (&daily[2], true),
        (&weekly, true),
        (&snapshot, true),
    ] {
        assert_eq!(!image(&lab, made).await.is_null(), there, "{made}");
    }
    let i = image(&lab, &daily[2]).await;
    assert_eq!(
        (&i["image_type"], &i["backup_type"], &i["status"]),
        (&json!("backup"), &json!("daily"), &json!("active"))
    );
    assert_eq!(newest(&lab, &id).await.0, "createBackup");
    // None of this type stays, and there is no address of one.
    assert_eq!(backup("daily", json!(0), "2.1").await, None);
    for made in &daily {
        assert_eq!(image(&lab, made).await, Value::Null);
    }
    assert_eq!(image(&lab, &weekly).await["status"], "active");
    lab.audit().await;
}
