//! Tasks.

use super::Cloud;
use serde_json::{Value, json};
use std::time::Duration;

fn import(from: &str) -> Value {
    json!({"type": "import", "input": {"import_from": from, "import_from_format": "qcow2",
        "image_properties": {"disk_format": "qcow2", "container_format": "bare"}}})
}

async fn ended(cloud: &Cloud, id: &str) -> Value {
    for _ in 0..2400 {
        let task = cloud.get("admin", &format!("/v2/tasks/{id}")).await.is(200).json();
        if task["status"] == "failure" {
            return task;
        }
        assert!(["pending", "processing"].contains(&task["status"].as_str().unwrap()));
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("the task does not end");
}

#[tokio::test]
pub(super) async fn a_task_ends_and_says_what_would_work() {
    let cloud = Cloud::open().await;
    let image = cloud.image("alice", json!({})).await;
    for (body, word) in [
        (import("http://example.org/a.qcow2"), "PUT /v2/images/{image_id}/file"),
        (
            json!({"type": "import", "input": {"import_from": "http://example.org"}}),
            "'import_from_format'",
        ),
        (
            json!({"type": "api_image_import", "input": {"image_id": image}}),
            image.as_str(),
        ),
        (json!({"type": "api_image_import", "input": {}}), "'image_id'"),
        (
            json!({"type": "location_import", "input": {"image_id": image, "loc_url": "u", "validation_data": {}}}),
            "locations",
        ),
    ] {
        let made = cloud.post("admin", "/v2/tasks", &body).await.is(201);
        let task = made.json();
        assert_eq!((&task["status"], &task["message"]), (&json!("pending"), &json!("")));
        let id = task["id"].as_str().unwrap();
        assert_eq!(made.header("location"), format!("/v2/tasks/{id}"));
        let end = ended(&cloud, id).await;
        assert!(end["message"].as_str().unwrap().contains(word), "{end}");
        assert!(end["result"].is_null() && end["expires_at"].is_string());
        assert_eq!((&end["input"], &end["owner"]), (&body["input"], &json!("adm")));
        assert!(end["request_id"].as_str().unwrap().starts_with("req-"));
    }
    // Of the image, for who may see the tasks.
    let path = format!("/v2/images/{image}/tasks");
    let of_image = async |token: &str| {
        let list = cloud.get(token, &path).await.is(200).json();
        list["tasks"].as_array().unwrap().len()
    };
    assert_eq!((of_image("admin").await, of_image("alice").await), (2, 0));
    // Lists leave out what went in.
    let list = cloud
        .get("admin", "/v2/tasks?status=failure&type=import")
        .await
        .is(200)
        .json();
    assert_eq!(list["tasks"].as_array().unwrap().len(), 2);
    assert!(list["tasks"][0].get("input").is_none() && list["tasks"][0].get("message").is_none());
    assert_eq!(list["first"], "/v2/tasks?status=failure&type=import");
    let (mut seen, mut next) = (0, Some("/v2/tasks?limit=2".to_owned()));
    while let Some(path) = next {
        let page = cloud.get("admin", &path).await.is(200).json();
        seen += page["tasks"].as_array().unwrap().len();
        next = page.get("next").and_then(Value::as_str).map(str::to_owned);
    }
    assert_eq!(seen, 5);
    // They go by themselves only, and the log does not say where they would have fetched from.
    for id in [list["tasks"][0]["id"].as_str().unwrap(), "nothing"] {
        let refused = cloud.delete("admin", &format!("/v2/tasks/{id}")).await.is(405);
        assert_eq!(refused.header("allow"), "GET");
    }
    let mut tx = cloud.db.read().await.unwrap();
    let log = haneul_store::changes_since(&mut tx, 0, 100).await.unwrap();
    let states: Vec<&str> = log.iter().filter_map(|c| c.state["status"].as_str()).collect();
    assert!(states.contains(&"processing"));
    assert!(log.iter().all(|c| !c.state.to_string().contains("example.org")));
}

/// One rule opens or shuts all of it, before anything is looked at.
#[tokio::test]
pub(super) async fn tasks_are_administrators() {
    let cloud = Cloud::open().await;
    let made = cloud
        .post("admin", "/v2/tasks", &import("http://example.org/"))
        .await
        .is(201)
        .json();
    let id = made["id"].as_str().unwrap();
    ended(&cloud, id).await;
    let before = cloud.counts().await;
    for token in ["alice", "amy", "bob"] {
        cloud.get(token, "/v2/tasks").await.is(403);
        cloud
            .post(token, "/v2/tasks", &import("http://example.org/"))
            .await
            .is(403);
        for one in [id, "nothing"] {
            cloud.get(token, &format!("/v2/tasks/{one}")).await.is(403);
            cloud.delete(token, &format!("/v2/tasks/{one}")).await.is(403);
        }
        cloud.get(token, "/v2/schemas/task").await.is(200);
        cloud.get(token, "/v2/schemas/tasks").await.is(200);
    }
    cloud.get("admin", "/v2/tasks/nothing").await.is(404);
    assert_eq!(cloud.counts().await, before);
}

/// A task as it is in the table.
async fn stored(cloud: &Cloud, status: crate::model::TaskStatus, expires_at: Option<i64>) -> String {
    let ctx = cloud.ctx("admin").await;
    let task = crate::model::Task {
        v: 1,
        id: haneul_core::id::uuid(),
        kind: "import".into(),
        status,
        owner: Some("adm".into()),
        user_id: "admin".into(),
        request_id: "req".into(),
        image_id: None,
        input: json!({}),
        result: None,
        message: String::new(),
        expires_at,
    };
    let id = task.id.clone();
    cloud
        .db
        .write(&ctx.actor(), async move |tx| {
            tx.insert(&haneul_store::System::create(), &task).await.map(|_| ())
        })
        .await
        .unwrap();
    id
}

/// A process that dies between the two transactions leaves a task that the next start ends.
#[tokio::test]
pub(super) async fn a_start_after_a_crash_ends_tasks() {
    let mut cloud = Cloud::open().await;
    let id = stored(&cloud, crate::model::TaskStatus::Processing, None).await;
    cloud.restart();
    assert_eq!(cloud.app.reconcile().await.unwrap(), 1);
    assert_eq!(ended(&cloud, &id).await["status"], "failure");
    assert_eq!(cloud.app.reconcile().await.unwrap(), 0);
}

/// What has expired is not shown, and the next task takes it along.
#[tokio::test]
pub(super) async fn an_expired_task_is_gone() {
    let cloud = Cloud::open().await;
    let id = stored(&cloud, crate::model::TaskStatus::Failure, Some(1)).await;
    cloud.get("admin", &format!("/v2/tasks/{id}")).await.is(404);
    let list = cloud.get("admin", "/v2/tasks").await.is(200).json();
    assert_eq!(list["tasks"], json!([]));
    let new = import("http://example.org/");
    cloud.post("admin", "/v2/tasks", &new).await.is(201);
    let counts = cloud.counts().await;
    assert!(counts.contains(&("image_task".into(), 1)), "{counts:?}");
}
