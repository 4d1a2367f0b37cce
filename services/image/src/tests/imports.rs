//! Staging, imports and several stores.

use super::Cloud;
use crate::format::testing as build;
use axum::body::Body;
use haneul_core::config::{Config, ImageRegion, ImageStore};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const BYTES: &[(&str, &str)] = &[("content-type", "application/octet-stream")];

/// `file`, which is the default, and `second`.
fn two_stores(config: &mut Config) {
    config.image.stores = vec![ImageStore {
        id: "second".into(),
        description: "Another disk".into(),
        ..ImageStore::default()
    }];
}

async fn stage(cloud: &Cloud, fields: Value, bytes: &[u8]) -> String {
    let id = cloud.image("alice", fields).await;
    let path = format!("/v2/images/{id}/stage");
    cloud.call("alice", "PUT", &path, BYTES, bytes.to_vec()).await.is(204);
    assert_eq!(cloud.show("alice", &id).await["status"], "uploading");
    id
}

async fn import(cloud: &Cloud, token: &str, id: &str, body: &Value) -> super::harness::Answer {
    cloud.post(token, &format!("/v2/images/{id}/import"), body).await
}

fn direct() -> Value {
    json!({"method": {"name": "glance-direct"}})
}

/// The image's newest task, when it has ended.
async fn ended(cloud: &Cloud, id: &str) -> Value {
    for _ in 0..3000 {
        let list = cloud
            .get("alice", &format!("/v2/images/{id}/tasks"))
            .await
            .is(200)
            .json();
        let task = list["tasks"][0].clone();
        if ["success", "failure"].contains(&task["status"].as_str().unwrap_or_default()) {
            return task;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the import does not end: {:?}", cloud.show("alice", id).await);
}

/// Files, once those that are to be removed are.
async fn files(cloud: &Cloud, wanted: usize) -> Vec<String> {
    for _ in 0..3000 {
        if cloud.app.file_names().unwrap().len() == wanted {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    cloud.app.file_names().unwrap()
}

#[tokio::test]
pub(super) async fn what_is_staged_is_imported_into_stores() {
    let cloud = Cloud::with(two_stores).await;
    let made = cloud.post("alice", "/v2/images", &json!({})).await.is(201);
    assert_eq!(
        made.header("openstack-image-import-methods"),
        "glance-direct,copy-image,glance-download"
    );
    assert_eq!(made.header("openstack-image-store-ids"), "file,second");
    let info = cloud.get("amy", "/v2/info/stores").await.is(200).json();
    let described = json!([{"id": "file", "default": "true"}, {"id": "second", "description": "Another disk"}]);
    assert_eq!(info["stores"], described);
    cloud.get("alice", "/v2/info/stores/detail").await.is(403);
    let detail = cloud.get("admin", "/v2/info/stores/detail").await.is(200).json();
    assert_eq!(detail["stores"][1]["type"], "file");
    let data: Vec<u8> = (0..3_000_000_u32).map(|i| (i % 253) as u8).collect();
    let id = stage(&cloud, json!({}), &data).await;
    // Staged bytes are nobody's to fetch, and come once.
    let path = format!("/v2/images/{id}/stage");
    cloud.call("alice", "PUT", &path, BYTES, "again").await.is(409);
    cloud.get("alice", &format!("/v2/images/{id}/file")).await.is(204);
    let usage = cloud.get("alice", "/v2/info/usage").await.is(200).json();
    assert_eq!(
        usage["usage"]["image_count_uploading"],
        json!({"usage": 1, "limit": -1})
    );
    assert_eq!(usage["usage"]["image_stage_total"], json!({"usage": 2, "limit": -1}));
    let mut all = direct();
    all["all_stores"] = true.into();
    let asked = import(&cloud, "alice", &id, &all).await.is(202);
    let task = ended(&cloud, &id).await;
    assert_eq!(task["status"], "success", "{task}");
    assert_eq!(task["request_id"], asked.header("x-openstack-request-id"));
    assert_eq!(task["input"]["import_req"]["method"]["name"], "glance-direct");
    assert_eq!(task["result"], json!({"image_id": id}));
    let image = cloud.show("alice", &id).await;
    assert_eq!(
        (&image["status"], &image["stores"]),
        (&json!("active"), &json!("file,second"))
    );
    assert_eq!(
        (
            &image["os_glance_importing_to_stores"],
            &image["os_glance_failed_import"]
        ),
        (&json!(""), &json!(""))
    );
    assert!(image.get("os_glance_import_task").is_none());
    let digest = |out: &[u8]| out.iter().map(|b| format!("{b:02x}")).collect::<String>();
    use sha2::Digest;
    assert_eq!(image["os_hash_value"], digest(&sha2::Sha512::digest(&data)));
    assert_eq!(
        (&image["size"], &image["virtual_size"]),
        (&json!(data.len()), &json!(data.len()))
    );
    assert_eq!(
        files(&cloud, 2).await.len(),
        2,
        "a copy in each store, and nothing in the staging area"
    );
    // One store is lost: the other one serves, downloads and hosts alike.
    let lost = cloud.config.control_dir().join("images");
    for file in std::fs::read_dir(&lost).unwrap() {
        std::fs::remove_file(file.unwrap().path()).unwrap();
    }
    let file = format!("/v2/images/{id}/file");
    assert!(cloud.get("alice", &file).await.is(200).bytes == data);
    drop(cloud.app.bytes(&id).await.unwrap());
    // It is taken out of the image, which then has one left.
    cloud.delete("alice", &format!("/v2/stores/file/{id}")).await.is(403);
    cloud.delete("admin", &format!("/v2/stores/third/{id}")).await.is(409);
    cloud.delete("admin", &format!("/v2/stores/file/{id}")).await.is(204);
    assert_eq!(cloud.show("alice", &id).await["stores"], "second");
    cloud.delete("admin", &format!("/v2/stores/file/{id}")).await.is(404);
    cloud.delete("admin", &format!("/v2/stores/second/{id}")).await.is(403);
    // And is copied back.
    let copy = json!({"method": {"name": "copy-image"}, "stores": ["file"]});
    import(&cloud, "alice", &id, &copy).await.is(403);
    import(&cloud, "admin", &id, &copy).await.is(202);
    let mut image = cloud.show("alice", &id).await;
    for _ in 0..3000 {
        image = cloud.show("alice", &id).await;
        if image["os_glance_importing_to_stores"] == "" && image.get("os_glance_import_task").is_none() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(
        (&image["stores"], &image["status"]),
        (&json!("second,file"), &json!("active"))
    );
    assert!(cloud.get("alice", &file).await.is(200).bytes == data);
    let e = import(&cloud, "admin", &id, &copy).await.is(400);
    assert!(e.text().contains("already present"), "{}", e.text());
    // Everywhere already: nothing to do, and no task.
    let all = json!({"method": {"name": "copy-image"}, "all_stores": true});
    import(&cloud, "admin", &id, &all).await.is(202);
    cloud.delete("alice", &format!("/v2/images/{id}")).await.is(204);
    assert!(files(&cloud, 0).await.is_empty());
}

/// An upload goes where it is told to; a service is told where the copies are.
#[tokio::test]
pub(super) async fn an_upload_chooses_its_store() {
    let cloud = Cloud::with(two_stores).await;
    let id = cloud.image("alice", json!({})).await;
    let file = format!("/v2/images/{id}/file");
    let to = |store| [BYTES[0], ("x-image-meta-store", store)];
    cloud.call("alice", "PUT", &file, &to("third"), "x").await.is(400);
    assert_eq!(cloud.show("alice", &id).await["status"], "queued");
    cloud.call("alice", "PUT", &file, &to("second"), "x").await.is(204);
    assert_eq!(cloud.show("alice", &id).await["stores"], "second");
    let locations = format!("/v2/images/{id}/locations");
    cloud.get("alice", &locations).await.is(403);
    cloud.get("bob", &locations).await.is(404);
    let seen = cloud.get("service", &locations).await.is(200).json();
    assert_eq!(seen[0]["metadata"], json!({"store": "second"}));
    assert!(seen[0]["url"].as_str().unwrap().starts_with("file:///"), "{seen}");
    let new = cloud.image("alice", json!({})).await;
    let path = format!("/v2/images/{new}/locations");
    let url = json!({"url": "http://example.org/a"});
    for (token, body, status, word) in [
        ("alice", json!({}), 400, "url"),
        ("alice", json!({"url": 1}), 400, "url"),
        ("alice", json!({"url": "x", "validation_data": {}}), 400, "os_hash"),
        (
            "alice",
            json!({"url": "x", "validation_data": {"os_hash_algo": "sha512", "os_hash_value": "ab"}}),
            400,
            "64",
        ),
        (
            "alice",
            json!({"url": "x", "validation_data": {"os_hash_algo": "sha123", "os_hash_value": "ab"}}),
            400,
            "sha256",
        ),
        ("alice", url.clone(), 403, "web-download"),
        ("service", url.clone(), 400, "web-download"),
        ("bob", url.clone(), 404, "No image"),
    ] {
        let before = cloud.counts().await;
        let e = cloud.post(token, &path, &body).await.is(status);
        assert!(e.text().contains(word), "{body}: {}", e.text());
        assert_eq!(cloud.counts().await, before, "{body}");
    }
    cloud.post("alice", &locations, &url).await.is(409);
}

#[tokio::test]
pub(super) async fn imports_are_refused_and_nothing_changed() {
    let cloud = Cloud::with(|c| {
        two_stores(c);
        c.image.stores.push(ImageStore {
            id: "old".into(),
            read_only: true,
            ..ImageStore::default()
        });
        c.image.web_download_from = vec!["http://images.example.org".into()];
    })
    .await;
    let queued = cloud.image("alice", json!({})).await;
    let bare = cloud.post("alice", "/v2/images", &json!({})).await.json();
    let bare = bare["id"].as_str().unwrap().to_owned();
    cloud
        .call("alice", "PUT", &format!("/v2/images/{bare}/stage"), BYTES, "x")
        .await
        .is(204);
    let staged = stage(&cloud, json!({}), b"x").await;
    let active = cloud.image("alice", json!({})).await;
    cloud.upload("alice", &active, "x").await.is(204);
    let web = |uri: &str| json!({"method": {"name": "web-download", "uri": uri}});
    let with = |mut body: Value, key: &str, value: Value| {
        body[key] = value;
        body
    };
    let copy = || json!({"method": {"name": "copy-image"}});
    let rows: Vec<(&str, &str, Value, u16, &str)> = vec![
        ("alice", &queued, direct(), 409, "staged"),
        ("alice", &active, direct(), 409, "active"),
        ("alice", &bare, direct(), 409, "container_format"),
        ("bob", &staged, direct(), 404, "No image"),
        ("amy", &staged, direct(), 403, "modify_image"),
        ("alice", &staged, web("http://images.example.org/a"), 409, "queued"),
        ("alice", &queued, web("http://other.example.org/a"), 400, "filtering"),
        (
            "alice",
            &queued,
            web("http://images.example.org:22/a"),
            400,
            "filtering",
        ),
        ("alice", &queued, web("file:///etc/passwd"), 400, "filtering"),
        ("alice", &queued, web("http://127.0.0.1/"), 400, "filtering"),
        ("alice", &queued, web("http://[::1]/"), 400, "filtering"),
        (
            "alice",
            &queued,
            json!({"method": {"name": "fax"}}),
            400,
            "Unknown import method",
        ),
        ("alice", &queued, json!([]), 400, "method"),
        (
            "alice",
            &staged,
            with(direct(), "stores", json!(["third"])),
            409,
            "third",
        ),
        (
            "alice",
            &staged,
            with(direct(), "stores", json!(["old"])),
            409,
            "read-only",
        ),
        ("alice", &staged, with(direct(), "stores", json!([])), 400, "stores"),
        (
            "alice",
            &staged,
            with(direct(), "all_stores", json!("yes")),
            400,
            "boolean",
        ),
        ("alice", &active, copy(), 403, "copy_image"),
        ("admin", &queued, copy(), 409, "active"),
        ("admin", &active, copy(), 400, "already present"),
    ];
    for (token, id, body, status, word) in rows {
        let before = cloud.counts().await;
        let refused = import(&cloud, token, id, &body).await.is(status);
        assert!(refused.text().contains(word), "{body}: {}", refused.text());
        assert_eq!(cloud.counts().await, before, "{body}");
    }
    // What is in a read-only store is never removed from it.
    cloud.delete("admin", &format!("/v2/stores/old/{active}")).await.is(403);
    cloud
        .call("alice", "PUT", &format!("/v2/images/{queued}/stage"), &[], "x")
        .await
        .is(415);
    assert_eq!(cloud.show("alice", &queued).await["status"], "queued");
}

/// What is imported is inspected; what does not pass leaves a queued image, a failed task and no file.
#[tokio::test]
pub(super) async fn what_does_not_pass_leaves_nothing() {
    let cloud = Cloud::with(two_stores).await;
    for (format, data, word) in [
        ("qcow2", vec![0; 4096], "no qcow2 signature"),
        ("raw", build::qcow2().0, "contents are qcow2"),
        (
            "vmdk",
            build::vmdk(&build::VMDK_TEXT.replace("disk.vmdk", "/etc/shadow")).0,
            "points at a path",
        ),
    ] {
        let id = stage(&cloud, json!({"disk_format": format}), &data).await;
        let mut all = direct();
        all["all_stores"] = true.into();
        import(&cloud, "alice", &id, &all).await.is(202);
        let task = ended(&cloud, &id).await;
        assert_eq!(task["status"], "failure");
        assert!(task["message"].as_str().unwrap().contains(word), "{task}");
        let image = cloud.show("alice", &id).await;
        assert_eq!(image["status"], "queued", "{image}");
        assert_eq!(image["os_glance_failed_import"], "file,second");
        assert!(image["size"].is_null() && image.get("stores").is_none());
        assert!(files(&cloud, 0).await.is_empty());
        // It can be tried again, with better bytes.
        cloud
            .call("alice", "PUT", &format!("/v2/images/{id}/stage"), BYTES, "x")
            .await
            .is(204);
        cloud.delete("alice", &format!("/v2/images/{id}")).await.is(204);
        assert!(files(&cloud, 0).await.is_empty());
    }
}

/// A store that is not there fails the import, or only itself when that was asked for.
#[tokio::test]
pub(super) async fn a_store_that_fails() {
    let cloud = Cloud::with(two_stores).await;
    let gone = cloud.config.control_dir().join("image-stores/second");
    std::fs::remove_dir_all(&gone).unwrap();
    std::fs::write(&gone, "a file in its place").unwrap();
    let id = stage(&cloud, json!({}), b"bytes").await;
    let mut all = direct();
    all["all_stores"] = true.into();
    import(&cloud, "alice", &id, &all).await.is(202);
    assert_eq!(ended(&cloud, &id).await["status"], "failure");
    let image = cloud.show("alice", &id).await;
    assert_eq!(
        (&image["status"], &image["os_glance_failed_import"]),
        (&json!("queued"), &json!("second"))
    );
    let id = stage(&cloud, json!({}), b"bytes").await;
    all["all_stores_must_succeed"] = false.into();
    import(&cloud, "alice", &id, &all).await.is(202);
    assert_eq!(ended(&cloud, &id).await["status"], "success");
    let image = cloud.show("alice", &id).await;
    assert_eq!((&image["status"], &image["stores"]), (&json!("active"), &json!("file")));
    assert_eq!(image["os_glance_failed_import"], "second");
}

/// Whatever the process was at when it died, the next one goes on: half a file in the staging area, half a copy in
/// a store, a converted file that was not renamed.
#[tokio::test]
pub(super) async fn an_import_goes_on_after_a_restart() {
    let mut cloud = Cloud::with(two_stores).await;
    let id = stage(&cloud, json!({}), b"the bytes").await;
    // Its workers never begin: the rows are those of a process that has died.
    let held = cloud.app.clone();
    let slots = held.import_slots.acquire_many(4).await.unwrap();
    let mut all = direct();
    all["all_stores"] = true.into();
    import(&cloud, "alice", &id, &all).await.is(202);
    // Busy: not twice, and not something else.
    import(&cloud, "alice", &id, &all).await.is(409);
    cloud
        .call("alice", "PUT", &format!("/v2/images/{id}/stage"), BYTES, "x")
        .await
        .is(409);
    cloud.upload("alice", &id, "x").await.is(409);
    let mut tx = cloud.db.read().await.unwrap();
    let key = tx
        .find::<crate::model::Image>(&id)
        .await
        .unwrap()
        .unwrap()
        .file
        .clone()
        .unwrap();
    drop(tx);
    let control = cloud.config.control_dir();
    std::fs::write(control.join("images").join(format!("{key}.part")), "half").unwrap();
    std::fs::write(
        control.join("image-stores/second").join(&key),
        "whole, but not written down",
    )
    .unwrap();
    cloud.restart();
    cloud.app.reconcile().await.unwrap();
    assert_eq!(ended(&cloud, &id).await["status"], "success");
    let image = cloud.show("alice", &id).await;
    assert_eq!(
        (&image["status"], &image["stores"]),
        (&json!("active"), &json!("file,second"))
    );
    for dir in ["images", "image-stores/second"] {
        assert_eq!(
            std::fs::read(control.join(dir).join(&key)).unwrap(),
            b"the bytes",
            "{dir}"
        );
    }
    assert_eq!(files(&cloud, 2).await.len(), 2);
    drop(slots);
}

/// Deleted while it waits or runs: the task fails, and no file stays.
#[tokio::test]
pub(super) async fn an_image_deleted_while_it_is_imported_is_gone() {
    let cloud = Cloud::open().await;
    let id = stage(&cloud, json!({}), b"the bytes").await;
    let app = cloud.app.clone();
    let slots = app.import_slots.acquire_many(4).await.unwrap();
    import(&cloud, "alice", &id, &direct()).await.is(202);
    let list = cloud
        .get("alice", &format!("/v2/images/{id}/tasks"))
        .await
        .is(200)
        .json();
    let task = list["tasks"][0]["id"].as_str().unwrap().to_owned();
    cloud.delete("alice", &format!("/v2/images/{id}")).await.is(204);
    drop(slots);
    assert!(files(&cloud, 0).await.is_empty());
    let task = cloud.get("admin", &format!("/v2/tasks/{task}")).await.is(200).json();
    assert_eq!(task["status"], "failure");
    assert!(task["message"].as_str().unwrap().contains("deleted"), "{task}");
    // Staged and never imported: the same.
    let id = stage(&cloud, json!({}), b"the bytes").await;
    cloud.delete("alice", &format!("/v2/images/{id}")).await.is(204);
    assert!(files(&cloud, 0).await.is_empty());
}

/// A stream into the staging area that was cut off, by its client or by a crash.
#[tokio::test]
pub(super) async fn half_a_stage_leaves_nothing() {
    let mut cloud = Cloud::open().await;
    let id = cloud.image("alice", json!({})).await;
    let broken = vec![
        Ok(bytes::Bytes::from_static(b"half")),
        Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset)),
    ];
    let body = Body::from_stream(futures_util::stream::iter(broken));
    let path = format!("/v2/images/{id}/stage");
    cloud.call("alice", "PUT", &path, BYTES, body).await.is(400);
    assert_eq!(cloud.show("alice", &id).await["status"], "queued");
    assert!(cloud.app.file_names().unwrap().is_empty());
    let (ctx, of) = (cloud.ctx("alice").await, id.clone());
    cloud
        .db
        .write(&ctx.actor(), async move |tx| {
            let stored = tx.find::<crate::model::Image>(&of).await?.unwrap();
            let mut image = stored.value.clone();
            image.begin_staging("abcd")?;
            tx.update(&haneul_store::System::of(stored), &image).await.map(|_| ())
        })
        .await
        .unwrap();
    std::fs::write(cloud.config.control_dir().join("image-staging/abcd.part"), "half").unwrap();
    cloud.restart();
    assert_eq!(cloud.app.reconcile().await.unwrap(), 1);
    assert_eq!(cloud.show("alice", &id).await["status"], "queued");
    assert!(cloud.app.file_names().unwrap().is_empty());
}

/// A web server on loopback that knows some pages; answers its address.
async fn web(pages: Vec<(&'static str, String)>) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = vec![0; 4096];
            let n = stream.read(&mut request).await.unwrap_or(0);
            let request = String::from_utf8_lossy(&request[..n]).into_owned();
            let path = request.split(' ').nth(1).unwrap_or_default();
            let answer = pages.iter().find(|(p, _)| *p == path).map_or_else(
                || "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_owned(),
                |(_, a)| a.clone(),
            );
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    address
}

fn page(body: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
}

fn moved(to: &str) -> String {
    format!("HTTP/1.1 302 Found\r\nlocation: {to}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
}

/// What is not allowed is not fetched, wherever the way there begins.
#[tokio::test]
pub(super) async fn web_download_goes_where_it_is_allowed_to() {
    let secret = web(vec![("/", page("a secret"))]).await;
    let address = web(vec![
        ("/image", page("the image")),
        ("/away", moved("/image")),
        ("/secret", moved(&format!("http://{secret}/"))),
        ("/round", moved("/round")),
        ("/file", moved("file:///etc/passwd")),
        (
            "/cut",
            "HTTP/1.1 200 OK\r\ncontent-length: 100\r\nconnection: close\r\n\r\nhalf".into(),
        ),
    ])
    .await;
    let cloud = Cloud::with(|c| {
        // A name that leads to loopback is not public, whatever allows the name.
        c.image.web_download_from = vec![format!("http://{address}"), "http://localhost:*".into()];
    })
    .await;
    let port = address.split(':').next_back().unwrap();
    for (url, word) in [
        (format!("http://{address}/image"), ""),
        (format!("http://{address}/away"), ""),
        (format!("http://{address}/secret"), "filtering"),
        (format!("http://{address}/file"), "filtering"),
        (format!("http://{address}/round"), "redirects more than"),
        (format!("http://{address}/nothing"), "404"),
        (format!("http://{address}/cut"), "broke off"),
        (
            format!("http://localhost:{}/", secret.split(':').next_back().unwrap()),
            "not a public one",
        ),
        ("http://localhost:1/".to_owned(), "not a public one"),
    ] {
        let id = cloud.image("alice", json!({})).await;
        let body = json!({"method": {"name": "web-download", "uri": url}});
        import(&cloud, "alice", &id, &body).await.is(202);
        let task = ended(&cloud, &id).await;
        let image = cloud.show("alice", &id).await;
        if word.is_empty() {
            assert_eq!(
                (&task["status"], &image["status"]),
                (&json!("success"), &json!("active")),
                "{url}: {task}"
            );
            let got = cloud.get("alice", &format!("/v2/images/{id}/file")).await.is(200);
            assert_eq!(got.text(), "the image");
        } else {
            assert_eq!(
                (&task["status"], &image["status"]),
                (&json!("failure"), &json!("queued")),
                "{url}: {task}"
            );
            let said = task["message"].as_str().unwrap();
            assert!(said.contains(word) && !said.contains("a secret"), "{url}: {said}");
        }
        cloud.delete("alice", &format!("/v2/images/{id}")).await.is(204);
    }
    // localhost with the port of what is allowed by its address is that address.
    let id = cloud.image("alice", json!({})).await;
    let body = json!({"method": {"name": "web-download", "uri": format!("http://localhost:{port}/image")}});
    import(&cloud, "alice", &id, &body).await.is(202);
    ended(&cloud, &id).await;
    cloud.delete("alice", &format!("/v2/images/{id}")).await.is(204);
    assert!(files(&cloud, 0).await.is_empty());
    // Where nothing is allowed, there is no such method.
    let closed = Cloud::open().await;
    let id = closed.image("alice", json!({})).await;
    let body = json!({"method": {"name": "web-download", "uri": format!("http://{address}/image")}});
    import(&closed, "alice", &id, &body).await.is(400);
    let info = closed.get("amy", "/v2/info/import").await.is(200).json();
    assert_eq!(
        info["import-methods"]["value"],
        json!(["glance-direct", "copy-image", "glance-download"])
    );
}

/// From this region by the rows, from another one with the user's token.
#[tokio::test]
pub(super) async fn glance_download_takes_bytes_and_what_describes_them() {
    let id_there = "36d4b546-64a2-4bb9-bdd0-ba676aa48f2c";
    let about = json!({"id": id_there, "disk_format": "raw", "container_format": "bare", "size": 9,
        "hw_disk_bus": "virtio", "speed": "88mph"});
    let there = web(vec![
        (
            "/image/v2/images/36d4b546-64a2-4bb9-bdd0-ba676aa48f2c",
            page(&about.to_string()),
        ),
        (
            "/image/v2/images/36d4b546-64a2-4bb9-bdd0-ba676aa48f2c/file",
            page("the image"),
        ),
    ])
    .await;
    let cloud = Cloud::with(|c| {
        c.image.regions = vec![ImageRegion {
            name: "RegionTwo".into(),
            url: format!("http://{there}/image"),
        }];
    })
    .await;
    let source = cloud
        .image(
            "alice",
            json!({"os_distro": "debian", "trait:X": "required", "speed": "88mph"}),
        )
        .await;
    cloud.upload("alice", &source, "the image").await.is(204);
    let private = cloud.image("bob", json!({"visibility": "private"})).await;
    cloud.upload("bob", &private, "a secret").await.is(204);
    let body = |region: &str, interface: &str, image: &str| {
        json!({"method": {"name": "glance-download", "glance_region": region, "glance_image_id": image,
            "glance_service_interface": interface}})
    };
    for (request, word) in [
        (body("RegionOne", "public", &source), ""),
        (body("RegionTwo", "internal", id_there), ""),
        (body("RegionOne", "public", id_there), "No active image"),
        (body("RegionOne", "public", &private), "No active image"),
        (body("RegionTwo", "public", &source), "404"),
        (body("RegionOne", "sideways", &source), "no sideways image service"),
        (
            body("RegionThree", "public", &source),
            "no public image service in region RegionThree",
        ),
    ] {
        let id = cloud
            .image(
                "alice",
                json!({"disk_format": "iso", "container_format": "ovf", "os_distro": "other"}),
            )
            .await;
        import(&cloud, "alice", &id, &request).await.is(202);
        let task = ended(&cloud, &id).await;
        let image = cloud.show("alice", &id).await;
        if word.is_empty() {
            assert_eq!(image["status"], "active", "{request}: {task}");
            assert_eq!(
                (&image["disk_format"], &image["container_format"]),
                (&json!("raw"), &json!("bare"))
            );
            assert!(image.get("speed").is_none(), "{image}");
            assert!(
                image["hw_disk_bus"] == "virtio" || image["os_distro"] == "debian",
                "{image}"
            );
            let got = cloud.get("alice", &format!("/v2/images/{id}/file")).await.is(200);
            assert_eq!(got.text(), "the image");
        } else {
            assert!(task["message"].as_str().unwrap().contains(word), "{request}: {task}");
            assert_eq!(
                (&image["status"], &image["os_distro"]),
                (&json!("queued"), &json!("other"))
            );
        }
    }
    let bad = cloud.image("alice", json!({})).await;
    let refused = import(&cloud, "alice", &bad, &body("RegionOne", "public", "foo"))
        .await
        .is(400);
    assert!(
        refused.text().contains("image id does not look like a UUID"),
        "{}",
        refused.text()
    );
}

/// Where the site wants one format, imports become that; uploads stay what they are.
#[tokio::test]
pub(super) async fn imports_are_converted() {
    let mut cloud = Cloud::with(|c| c.image.convert_to = Some("qcow2".into())).await;
    let mut disk = vec![0_u8; 4 << 20];
    disk[1 << 20..][..5].copy_from_slice(b"hello");
    let file = cloud.config.state_dir.0.join("disk.vdi");
    let out = std::fs::File::create(&file).unwrap();
    let (raw, vdi) = (crate::format::DiskFormat::Raw, crate::format::DiskFormat::Vdi);
    crate::format::convert(&mut std::io::Cursor::new(&disk), raw, out, vdi, &mut |_| true).unwrap();
    let id = stage(&cloud, json!({"disk_format": "vdi"}), &std::fs::read(&file).unwrap()).await;
    import(&cloud, "alice", &id, &direct()).await.is(202);
    let task = ended(&cloud, &id).await;
    assert_eq!(task["status"], "success", "{task}");
    let image = cloud.show("alice", &id).await;
    assert_eq!(
        (&image["disk_format"], &image["virtual_size"]),
        (&json!("qcow2"), &json!(disk.len()))
    );
    let got = cloud.get("alice", &format!("/v2/images/{id}/file")).await.is(200);
    assert_eq!(image["size"], got.bytes.len());
    let back = cloud.config.state_dir.0.join("disk.raw");
    let out = std::fs::File::create(&back).unwrap();
    let qcow2 = crate::format::DiskFormat::Qcow2;
    crate::format::convert(&mut std::io::Cursor::new(&got.bytes), qcow2, out, raw, &mut |_| true).unwrap();
    assert!(std::fs::read(&back).unwrap() == disk);
    assert_eq!(files(&cloud, 1).await.len(), 1, "nothing stays in the staging area");
    // A site that wants nonsense does not start.
    cloud.config.image.convert_to = Some("zip".into());
    let jobs = haneul_jobs::Jobs::new(cloud.db.clone());
    let e = crate::Images::new(cloud.db.clone(), &cloud.config, jobs).err().unwrap();
    assert_eq!(e.field_name(), Some("image.convert_to"));
}

#[tokio::test]
pub(super) async fn the_cache_is_administrators_and_serves() {
    let cloud = Cloud::with(|c| c.image.cache_bytes = 20).await;
    let id = cloud.image("alice", json!({})).await;
    let path = format!("/v2/cache/{id}");
    for token in ["alice", "amy"] {
        cloud.get(token, "/v2/cache").await.is(403);
        cloud.call(token, "PUT", &path, &[], "").await.is(403);
        cloud.delete(token, &path).await.is(403);
        cloud.delete(token, "/v2/cache").await.is(403);
    }
    cloud.call("admin", "PUT", &path, &[], "").await.is(400);
    cloud.call("admin", "PUT", "/v2/cache/nothing", &[], "").await.is(404);
    cloud.upload("alice", &id, "the bytes").await.is(204);
    let large = cloud.image("alice", json!({})).await;
    cloud.upload("alice", &large, "twelve bytes").await.is(204);
    cloud.call("admin", "PUT", &path, &[], "").await.is(202);
    cloud
        .call("admin", "PUT", &format!("/v2/cache/{large}"), &[], "")
        .await
        .is(413);
    let mut state = Value::Null;
    for _ in 0..3000 {
        state = cloud.get("admin", "/v2/cache").await.is(200).json();
        if state["cached_images"][0]["image_id"] == id {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(state["cached_images"][0]["size"], 9, "{state}");
    // The store is lost, and the copy serves.
    for file in std::fs::read_dir(cloud.config.control_dir().join("images")).unwrap() {
        std::fs::remove_file(file.unwrap().path()).unwrap();
    }
    let file = format!("/v2/images/{id}/file");
    assert_eq!(cloud.get("alice", &file).await.is(200).text(), "the bytes");
    cloud.get("alice", &format!("/v2/images/{large}/file")).await.is(503);
    let clear = |target| [("x-image-cache-clear-target", target)];
    cloud
        .call("admin", "DELETE", "/v2/cache", &clear("all"), "")
        .await
        .is(400);
    cloud
        .call("admin", "DELETE", "/v2/cache", &clear("queue"), "")
        .await
        .is(204);
    assert_eq!(cloud.get("alice", &file).await.is(200).text(), "the bytes");
    cloud.post("alice", "/v2/cache/clean", &json!({})).await.is(403);
    cloud.post("alice", "/v2/cache/prune", &json!({})).await.is(403);
    cloud.get("alice", &format!("/v2/cache/nodes/{id}")).await.is(403);
    cloud.post("admin", "/v2/cache/clean", &json!({})).await.is(200);
    let pruned = cloud.post("admin", "/v2/cache/prune", &json!({})).await.is(200).json();
    assert_eq!(pruned, json!({"total_files_pruned": 0, "total_bytes_pruned": 0}));
    cloud.get("admin", &format!("/v2/cache/nodes/{id}")).await.is(409);
    cloud.delete("admin", &path).await.is(204);
    cloud.get("alice", &file).await.is(503);
    let state = cloud.get("admin", "/v2/cache").await.is(200).json();
    assert_eq!(state, json!({"cached_images": [], "queued_images": []}));
    // Off, it answers as Glance does without one.
    let none = Cloud::open().await;
    none.get("admin", "/v2/cache").await.is(404);
}
