//! Sharing.

use super::Cloud;
use serde_json::{Value, json};

#[tokio::test]
pub(super) async fn an_offer_taken_and_withdrawn() {
    let cloud = Cloud::open().await;
    let id = cloud.image("alice", json!({})).await;
    let members = format!("/v2/images/{id}/members");
    let mine = format!("{members}/bbb");
    cloud.get("bob", &format!("/v2/images/{id}")).await.is(404);
    let made = cloud
        .post("alice", &members, &json!({"member": "bbb"}))
        .await
        .is(200)
        .json();
    assert_eq!(made["status"], "pending");
    assert_eq!(made["image_id"], id);
    assert_eq!(made["member_id"], "bbb");
    assert_eq!(made["schema"], "/v2/schemas/member");
    cloud.post("alice", &members, &json!({"member": "bbb"})).await.is(409);
    // Offered: it can be seen by id and asked for, but is not in the list.
    cloud.get("bob", &format!("/v2/images/{id}")).await.is(200);
    assert!(cloud.list("bob", "").await.is_empty());
    assert_eq!(
        cloud.list("bob", "?member_status=pending&visibility=shared").await,
        [id.as_str()]
    );
    // Only the other side decides.
    let accept = json!({"status": "accepted"});
    cloud.put("alice", &mine, &accept).await.is(403);
    assert_eq!(
        cloud.put("bob", &mine, &accept).await.is(200).json()["status"],
        "accepted"
    );
    assert_eq!(cloud.list("bob", "").await, [id.as_str()]);
    cloud.upload("alice", &id, "bytes").await.is(204);
    assert_eq!(
        cloud.get("bob", &format!("/v2/images/{id}/file")).await.is(200).text(),
        "bytes"
    );
    // Seeing is not owning.
    cloud
        .patch("bob", &id, &json!([{"op": "replace", "path": "/name", "value": "x"}]))
        .await
        .is(403);
    cloud.delete("bob", &mine).await.is(403);
    cloud.put("bob", &mine, &json!({"status": "rejected"})).await.is(200);
    assert!(cloud.list("bob", "").await.is_empty());
    assert_eq!(cloud.list("bob", "?member_status=all").await, [id.as_str()]);
    cloud.delete("alice", &mine).await.is(204);
    cloud.delete("alice", &mine).await.is(404);
    cloud.get("bob", &format!("/v2/images/{id}")).await.is(404);
}

#[tokio::test]
pub(super) async fn members_do_not_learn_of_each_other() {
    let cloud = Cloud::open().await;
    let id = cloud.image("alice", json!({})).await;
    let members = format!("/v2/images/{id}/members");
    for project in ["bbb", "ccc"] {
        cloud.post("alice", &members, &json!({"member": project})).await.is(200);
    }
    let list = |answer: Value| answer["members"].as_array().unwrap().len();
    assert_eq!(list(cloud.get("alice", &members).await.is(200).json()), 2);
    assert_eq!(list(cloud.get("bob", &members).await.is(200).json()), 1);
    cloud.get("bob", &format!("{members}/ccc")).await.is(404);
    cloud
        .put("bob", &format!("{members}/ccc"), &json!({"status": "rejected"}))
        .await
        .is(404);
    cloud.get("amy", &format!("{members}/ccc")).await.is(200);
    cloud.post("bob", &members, &json!({"member": "ddd"})).await.is(403);
}

#[tokio::test]
async fn only_shared_images_have_members() {
    let cloud = Cloud::open().await;
    let id = cloud.image("alice", json!({"visibility": "private"})).await;
    let members = format!("/v2/images/{id}/members");
    let refused = cloud.post("alice", &members, &json!({"member": "bbb"})).await.is(403);
    assert!(refused.text().contains("Only shared images have members"));
    cloud.get("alice", &members).await.is(403);
    cloud.get("alice", &format!("{members}/bbb")).await.is(404);
    cloud.get("bob", &members).await.is(404);
    // A membership from before does not open a private image.
    cloud
        .patch(
            "alice",
            &id,
            &json!([{"op": "replace", "path": "/visibility", "value": "shared"}]),
        )
        .await
        .is(200);
    cloud.post("alice", &members, &json!({"member": "bbb"})).await.is(200);
    cloud
        .put("bob", &format!("{members}/bbb"), &json!({"status": "accepted"}))
        .await
        .is(200);
    cloud
        .patch(
            "alice",
            &id,
            &json!([{"op": "replace", "path": "/visibility", "value": "private"}]),
        )
        .await
        .is(200);
    cloud.get("bob", &format!("/v2/images/{id}")).await.is(404);
    assert!(cloud.list("bob", "").await.is_empty());
}

#[tokio::test]
async fn there_is_an_end_to_members() {
    let cloud = Cloud::open().await;
    let id = cloud.image("alice", json!({})).await;
    let members = format!("/v2/images/{id}/members");
    for i in 0..128 {
        cloud
            .post("alice", &members, &json!({"member": format!("p{i}")}))
            .await
            .is(200);
    }
    let refused = cloud.post("alice", &members, &json!({"member": "last"})).await.is(413);
    assert!(refused.text().contains("Attempted: 129, Maximum: 128"));
    cloud.delete("alice", &format!("/v2/images/{id}")).await.is(204);
    assert_eq!(cloud.counts().await[1], ("image_member".into(), 0));
}
