//! Bytes in and out.

use super::Cloud;
use crate::format::testing as build;
use crate::model::Image;
use axum::body::Body;
use bytes::Bytes;
use serde_json::{Value, json};
use std::time::Duration;

fn qcow2() -> Vec<u8> {
    build::qcow2().0
}

#[tokio::test]
pub(super) async fn what_goes_in_comes_out() {
    let cloud = Cloud::open().await;
    let id = cloud.image("alice", json!({})).await;
    let file = format!("/v2/images/{id}/file");
    cloud.get("alice", &file).await.is(204);
    // Larger than a batch, in odd pieces.
    let data: Vec<u8> = (0..3_500_001_u32).map(|i| (i % 251) as u8).collect();
    let pieces: Vec<Result<Bytes, std::io::Error>> =
        data.chunks(70_001).map(|c| Ok(Bytes::copy_from_slice(c))).collect();
    cloud
        .upload("alice", &id, Body::from_stream(futures_util::stream::iter(pieces)))
        .await
        .is(204);
    let image = cloud.show("alice", &id).await;
    assert_eq!(image["status"], "active");
    assert_eq!(image["size"], data.len());
    assert_eq!(image["virtual_size"], data.len());
    assert_eq!(image["os_hash_algo"], "sha512");
    let digest = |out: &[u8]| out.iter().map(|b| format!("{b:02x}")).collect::<String>();
    use sha2::Digest;
    assert_eq!(image["os_hash_value"], digest(&sha2::Sha512::digest(&data)));
    assert_eq!(image["checksum"], digest(&md5::Md5::digest(&data)));
    let all = cloud.get("alice", &file).await.is(200);
    assert_eq!(all.bytes, data);
    assert_eq!(all.header("content-type"), "application/octet-stream");
    assert_eq!(all.header("content-length"), data.len().to_string());
    assert_eq!(all.header("content-md5"), image["checksum"].as_str().unwrap());
    let part = cloud
        .call("alice", "GET", &file, &[("range", "bytes=1000000-2500000")], "")
        .await
        .is(206);
    assert_eq!(part.bytes, data[1_000_000..=2_500_000]);
    assert_eq!(part.header("content-range"), "bytes 1000000-2500000/3500001");
    let tail = cloud
        .call("alice", "GET", &file, &[("range", "bytes=-5")], "")
        .await
        .is(206);
    assert_eq!(tail.bytes, data[data.len() - 5..]);
    cloud
        .call("alice", "GET", &file, &[("range", "bytes=3500001-")], "")
        .await
        .is(416);
    cloud
        .call("alice", "GET", &file, &[("range", "bytes=0-1,5-6")], "")
        .await
        .is(400);
    // A second upload is refused and changes nothing.
    cloud.upload("alice", &id, "other").await.is(409);
    assert_eq!(cloud.show("alice", &id).await, image);
    // A reader may look but not fetch.
    cloud.get("amy", &file).await.is(403);
    cloud.get("bob", &file).await.is(404);
    let (size, body) = cloud.app.bytes(&id).await.unwrap();
    let streamed = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    assert_eq!((size, &streamed[..]), (3_500_001, &data[..]));
    cloud.delete("alice", &format!("/v2/images/{id}")).await.is(204);
    assert!(cloud.app.file_names().unwrap().is_empty());
    assert!(cloud.app.bytes(&id).await.is_err());
}

#[tokio::test]
async fn deactivated_bytes_are_the_administrators() {
    let cloud = Cloud::open().await;
    let id = cloud.image("alice", json!({})).await;
    cloud.upload("alice", &id, "bytes").await.is(204);
    let action = |a: &str| format!("/v2/images/{id}/actions/{a}");
    let file = format!("/v2/images/{id}/file");
    for _ in 0..2 {
        cloud.post("alice", &action("deactivate"), &json!({})).await.is(204);
    }
    assert_eq!(cloud.show("alice", &id).await["status"], "deactivated");
    cloud.get("alice", &file).await.is(403);
    cloud.get("admin", &file).await.is(200);
    for _ in 0..2 {
        cloud.post("alice", &action("reactivate"), &json!({})).await.is(204);
    }
    cloud.get("alice", &file).await.is(200);
}

#[tokio::test]
pub(super) async fn formats_are_checked_and_pinned() {
    let cloud = Cloud::open().await;
    let good = cloud.image("alice", json!({"disk_format": "qcow2"})).await;
    cloud.upload("alice", &good, qcow2()).await.is(204);
    let image = cloud.show("alice", &good).await;
    assert_eq!(
        (&image["virtual_size"], &image["size"]),
        (&json!(4 << 20), &json!(6 * 65536))
    );
    let qcow = |bend: fn(build::Bytes) -> build::Bytes| bend(build::qcow2()).0;
    let rows: Vec<(&str, Vec<u8>, &str)> = vec![
        ("raw", qcow2(), "contents are qcow2"),
        ("ami", qcow2(), "contents are qcow2"),
        ("qcow2", vec![0; 100_000], "no qcow2 signature"),
        ("qcow2", b"short".to_vec(), "no qcow2 signature"),
        (
            "qcow2",
            qcow(|b| b.be64(8, 512).be32(16, 11).put(512, b"/etc/passwd")),
            "/etc/passwd",
        ),
        ("qcow2", qcow(|b| b.be64(72, 4)), "external data file"),
        ("qcow2", qcow2()[..5 * 65536].to_vec(), "cut off"),
        (
            "raw",
            b"LUKS\xba\xbe\0\x01 and so on and so forth and more".to_vec(),
            "luks",
        ),
        ("raw", b"# Disk DescriptorFile\nversion=1\n".to_vec(), "vmdk"),
        ("vmdk", vec![0; 10], "no vmdk signature"),
        ("vhdx", vec![0; 10], "no vhdx signature"),
        ("vdi", vec![0; 10], "no vdi signature"),
        ("vhd", vec![0; 10], "no vhd signature"),
        ("iso", vec![0; 10], "no iso signature"),
        ("ploop", vec![0; 10], "not accepted"),
        (
            "vmdk",
            build::vmdk(&build::VMDK_TEXT.replace("SPARSE", "FLAT")).0,
            "type 'flat'",
        ),
        (
            "vmdk",
            build::vmdk(&build::VMDK_TEXT.replace("disk.vmdk", "/etc/shadow")).0,
            "points at a path",
        ),
        (
            "vmdk",
            build::vmdk(&build::VMDK_TEXT.replace("monolithicSparse", "monolithicFlat")).0,
            "monolithicflat",
        ),
    ];
    for (format, data, word) in rows {
        let id = cloud.image("alice", json!({"disk_format": format})).await;
        let refused = cloud.upload("alice", &id, data).await.is(415);
        assert!(refused.text().contains(word), "{format}: {}", refused.text());
        let image = cloud.show("alice", &id).await;
        assert_eq!(image["status"], "queued", "{format}");
        assert_eq!(image["size"], Value::Null);
    }
    assert_eq!(cloud.app.file_names().unwrap().len(), 1, "only the good one");
    // What the tools of other hypervisors write is taken, and servers may start from it.
    let ctx = cloud.ctx("alice").await;
    for (format, data) in [
        ("vmdk", build::vmdk(build::VMDK_TEXT).0),
        ("vmdk", build::vmdk_stream().0),
        ("vdi", build::vdi().0),
        ("vhd", build::vhd_dynamic(|_, _| {}).0),
        ("vhd", build::vhd_fixed().0),
        ("vhdx", build::vhdx(|_| {}).0),
    ] {
        let id = cloud.image("alice", json!({"disk_format": format})).await;
        cloud.upload("alice", &id, data.clone()).await.is(204);
        let image = cloud.show("alice", &id).await;
        assert_eq!(
            (&image["status"], &image["size"]),
            (&json!("active"), &json!(data.len())),
            "{format}"
        );
        let mut tx = cloud.db.read().await.unwrap();
        let usable = cloud.app.find_for_server(&mut tx, &ctx, &id).await.unwrap();
        assert_eq!(usable.format.name(), format);
    }
    let iso = cloud.image("alice", json!({"disk_format": "iso"})).await;
    cloud.upload("alice", &iso, build::iso().0).await.is(204);
    let mut tx = cloud.db.read().await.unwrap();
    let e = cloud.app.find_for_server(&mut tx, &ctx, &iso).await.unwrap_err();
    assert!(e.public().contains("servers do not start"), "{e}");
    drop(tx);
    // Once there are bytes, what they are does not change.
    let change = json!([{"op": "replace", "path": "/disk_format", "value": "raw"}]);
    cloud.patch("alice", &good, &change).await.is(403);
    let ova = cloud.image("alice", json!({"container_format": "ova"})).await;
    cloud.upload("alice", &ova, "x").await.is(415);
    let bare = cloud.post("alice", "/v2/images", &json!({})).await.json();
    cloud.upload("alice", bare["id"].as_str().unwrap(), "x").await.is(400);
}

/// A body that sends some bytes and then fails, or never goes on.
fn broken(bytes: usize) -> Body {
    let parts = vec![
        Ok(Bytes::from(vec![1_u8; bytes])),
        Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset)),
    ];
    Body::from_stream(futures_util::stream::iter(parts))
}

#[tokio::test]
async fn a_cut_off_upload_leaves_nothing_behind() {
    let cloud = Cloud::open().await;
    let id = cloud.image("alice", json!({})).await;
    for bytes in [0, 10, 3 << 20] {
        let refused = cloud.upload("alice", &id, broken(bytes)).await.is(400);
        assert!(refused.text().contains("cut off"), "{}", refused.text());
        assert_eq!(cloud.show("alice", &id).await["status"], "queued");
        assert!(cloud.app.file_names().unwrap().is_empty());
    }
    // Fewer bytes than announced are cut off, too.
    let headers = [
        ("content-type", "application/octet-stream"),
        ("x-openstack-image-size", "100"),
    ];
    let file = format!("/v2/images/{id}/file");
    cloud.call("alice", "PUT", &file, &headers, "short").await.is(400);
    assert!(cloud.app.file_names().unwrap().is_empty());
    let headers = [
        ("content-type", "application/octet-stream"),
        ("x-openstack-image-size", "many"),
    ];
    cloud.call("alice", "PUT", &file, &headers, "short").await.is(400);
    cloud.upload("alice", &id, "whole").await.is(204);
}

/// The client's connection is dropped while the request runs: the handler's future goes with it.
#[tokio::test]
async fn a_client_that_goes_away_leaves_nothing_behind() {
    let cloud = Cloud::open().await;
    let id = cloud.image("alice", json!({})).await;
    let (send, body) = tokio::sync::mpsc::channel::<Result<Bytes, std::io::Error>>(1);
    let stream = futures_util::stream::unfold(body, |mut b| async { b.recv().await.map(|x| (x, b)) });
    let request = cloud.upload("alice", &id, Body::from_stream(stream));
    let feeding = async {
        send.send(Ok(Bytes::from(vec![1; 2 << 20]))).await.unwrap();
        send.send(Ok(Bytes::from_static(b"more"))).await.unwrap();
    };
    tokio::select! {
        _ = request => panic!("it cannot end"),
        () = feeding => {}
    }
    assert_eq!(cloud.show("alice", &id).await["status"], "saving");
    send.send(Err(std::io::ErrorKind::ConnectionReset.into()))
        .await
        .unwrap();
    for _ in 0..6000 {
        if cloud.show("alice", &id).await["status"] == "queued" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(cloud.show("alice", &id).await["status"], "queued");
    assert!(cloud.app.file_names().unwrap().is_empty());
}

#[tokio::test]
pub(super) async fn an_image_deleted_while_it_comes_in_is_gone() {
    let cloud = Cloud::open().await;
    let id = cloud.image("alice", json!({})).await;
    let (send, body) = tokio::sync::mpsc::channel::<Result<Bytes, std::io::Error>>(1);
    let stream = futures_util::stream::unfold(body, |mut b| async { b.recv().await.map(|x| (x, b)) });
    let upload = cloud.upload("alice", &id, Body::from_stream(stream));
    let meanwhile = async {
        send.send(Ok(Bytes::from_static(b"first"))).await.unwrap();
        send.send(Ok(Bytes::from_static(b"second"))).await.unwrap();
        // While it comes in, a second upload is refused and a reconciler keeps away.
        cloud.upload("alice", &id, "other").await.is(409);
        assert_eq!(cloud.app.reconcile().await.unwrap(), 0);
        cloud.delete("alice", &format!("/v2/images/{id}")).await.is(204);
        drop(send);
    };
    let (answer, ()) = tokio::join!(upload, meanwhile);
    answer.is(410);
    assert!(cloud.app.file_names().unwrap().is_empty());
    assert_eq!(cloud.app.reconcile().await.unwrap(), 0);
}

#[tokio::test]
async fn a_full_disk_is_an_answer_with_numbers() {
    // More is reserved than there is.
    let cloud = Cloud::with(|c| c.image.reserve_bytes = 1 << 60).await;
    let id = cloud.image("alice", json!({})).await;
    let refused = cloud.upload("alice", &id, "bytes").await.is(413);
    for word in [
        "Image storage media is full",
        "5 more bytes",
        "1152921504606846976",
        "Free at least",
    ] {
        assert!(refused.text().contains(word), "{word}: {}", refused.text());
    }
    let headers = [
        ("content-type", "application/octet-stream"),
        ("x-openstack-image-size", "77"),
    ];
    let refused = cloud
        .call("alice", "PUT", &format!("/v2/images/{id}/file"), &headers, broken(1))
        .await
        .is(413);
    assert!(
        refused.text().contains("77 more bytes"),
        "before the first byte: {}",
        refused.text()
    );
    assert_eq!(cloud.show("alice", &id).await["status"], "queued");
    assert!(cloud.app.file_names().unwrap().is_empty());
}

/// A disk that fills up in the middle. Fault points are the process's, so this needs one process a test.
#[tokio::test]
async fn a_write_that_fails_is_undone() {
    if std::env::var_os("NEXTEST").is_none() {
        eprintln!("skipped: needs cargo nextest (a fault point is armed for the whole process)");
        return;
    }
    let cloud = Cloud::open().await;
    let file = cloud.config.state_dir.0.join("fault");
    std::fs::write(&file, "image.upload.write=fail:1").unwrap();
    haneul_core::fault::enable(file);
    let id = cloud.image("alice", json!({})).await;
    let pieces: Vec<Result<Bytes, std::io::Error>> = (0..4).map(|_| Ok(Bytes::from(vec![1; 1 << 20]))).collect();
    let body = Body::from_stream(futures_util::stream::iter(pieces));
    let refused = cloud.upload("alice", &id, body).await.is(413);
    assert!(
        refused.text().contains("1048576 more bytes are needed after 1048576"),
        "{}",
        refused.text()
    );
    assert_eq!(cloud.show("alice", &id).await["status"], "queued");
    assert!(cloud.app.file_names().unwrap().is_empty());
    cloud.upload("alice", &id, "again").await.is(204);
}

/// A clean-up that fails itself is tried again: no image stays in `saving`.
#[tokio::test]
async fn a_clean_up_that_fails_is_repeated() {
    if std::env::var_os("NEXTEST").is_none() {
        eprintln!("skipped: needs cargo nextest (a fault point is armed for the whole process)");
        return;
    }
    let cloud = Cloud::open().await;
    let file = cloud.config.state_dir.0.join("fault");
    std::fs::write(&file, "image.upload.undone=fail").unwrap();
    haneul_core::fault::enable(file);
    let id = cloud.image("alice", json!({})).await;
    cloud.upload("alice", &id, broken(10)).await.is(400);
    assert_eq!(cloud.show("alice", &id).await["status"], "saving");
    for _ in 0..600 {
        if cloud.show("alice", &id).await["status"] == "queued" {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("stuck in saving");
}

/// A late loser: its image was put back to `queued` meanwhile, or another upload has begun.
#[tokio::test]
async fn bytes_belong_only_to_the_upload_that_the_row_names() {
    let cloud = Cloud::open().await;
    let id = cloud.image("alice", json!({})).await;
    let late = |size| crate::store::Bytes {
        size,
        md5: "m".into(),
        sha512: "s".into(),
    };
    let seen = crate::format::inspect(&mut std::io::Cursor::new(b"x"), None).unwrap();
    let ctx = cloud.ctx("alice").await;
    let kept = crate::logic::upload::commit(&cloud.app, &ctx.actor(), &id, "ffff", late(1), seen.clone())
        .await
        .unwrap();
    assert!(!kept);
    assert_eq!(cloud.show("alice", &id).await["status"], "queued");
    cloud.upload("alice", &id, "winner").await.is(204);
    let kept = crate::logic::upload::commit(&cloud.app, &ctx.actor(), &id, "ffff", late(1), seen)
        .await
        .unwrap();
    assert!(!kept);
    assert_eq!(cloud.show("alice", &id).await["size"], 6);
}

#[tokio::test]
async fn there_is_a_largest_image() {
    let cloud = Cloud::with(|c| c.image.max_bytes = 1000).await;
    let id = cloud.image("alice", json!({})).await;
    let refused = cloud.upload("alice", &id, vec![1_u8; 1001]).await.is(413);
    assert!(
        refused.text().contains("1001") && refused.text().contains("1000"),
        "{}",
        refused.text()
    );
    cloud.upload("alice", &id, vec![1_u8; 1000]).await.is(204);
}

/// The process dies in the middle of an upload, at each point where something is on the disk.
#[tokio::test]
pub(super) async fn a_start_after_a_crash_undoes_what_was_half_done() {
    let mut cloud = Cloud::open().await;
    let kept = cloud.image("alice", json!({})).await;
    cloud.upload("alice", &kept, "kept").await.is(204);
    let dir = cloud.config.control_dir().join("images");
    for leftover in ["KEY.part", "KEY"] {
        let id = cloud.image("alice", json!({})).await;
        let key = haneul_core::id::hex();
        let (id_, key_) = (id.clone(), key.clone());
        cloud
            .db
            .write(&haneul_store::Actor::system("test"), async move |tx| {
                let stored = tx.find::<Image>(&id_).await?.unwrap();
                let mut image = stored.value.clone();
                image.begin_upload(&key_, "file")?;
                crate::store::image_update(tx, &haneul_store::System::of(stored), &image).await?;
                Ok(())
            })
            .await
            .unwrap();
        std::fs::write(dir.join(leftover.replace("KEY", &key)), "half").unwrap();
        cloud.restart();
        assert_eq!(cloud.app.reconcile().await.unwrap(), 1);
        assert_eq!(cloud.show("alice", &id).await["status"], "queued");
        assert_eq!(cloud.app.file_names().unwrap().len(), 1);
        cloud.upload("alice", &id, "again").await.is(204);
        cloud.delete("alice", &format!("/v2/images/{id}")).await.is(204);
    }
    // A delete whose file was still there.
    let key = haneul_core::id::hex();
    let trash = key.clone();
    cloud
        .db
        .write(&haneul_store::Actor::system("test"), async move |tx| {
            crate::store::trash_put(tx, &trash).await
        })
        .await
        .unwrap();
    std::fs::write(dir.join(&key), "dead").unwrap();
    // A file that no row knows is none of ours to remove.
    std::fs::write(dir.join("ffff"), "unknown").unwrap();
    cloud.restart();
    assert_eq!(cloud.app.reconcile().await.unwrap(), 1);
    let names = cloud.app.file_names().unwrap();
    assert!(!names.contains(&key) && names.contains(&"ffff".to_owned()), "{names:?}");
    assert_eq!(cloud.app.reconcile().await.unwrap(), 0);
    assert_eq!(
        cloud
            .get("alice", &format!("/v2/images/{kept}/file"))
            .await
            .is(200)
            .text(),
        "kept"
    );
}

#[tokio::test]
async fn servers_start_from_what_their_owner_may_use() {
    let cloud = Cloud::open().await;
    let id = cloud
        .image(
            "alice",
            json!({"disk_format": "qcow2", "min_disk": 2, "min_ram": 64, "hw_disk_bus": "scsi"}),
        )
        .await;
    let find = async |token: &str, id: &str| {
        let ctx = cloud.ctx(token).await;
        let mut tx = cloud.db.read().await.unwrap();
        cloud.app.find_for_server(&mut tx, &ctx, id).await
    };
    let e = find("alice", &id).await.unwrap_err();
    assert!(e.public().contains("status is queued"), "{e}");
    cloud.upload("alice", &id, qcow2()).await.is(204);
    let image = find("amy", &id).await.unwrap();
    assert_eq!(image.format, crate::format::DiskFormat::Qcow2);
    assert_eq!(
        (image.min_disk_gib, image.min_ram_mib, image.virtual_size),
        (2, 64, 4 << 20)
    );
    assert_eq!(image.properties["hw_disk_bus"], "scsi");
    assert_eq!(image.sha512.len(), 128);
    assert_eq!(find("bob", &id).await.unwrap_err().kind(), haneul_core::Kind::NotFound);
    let kernel = cloud
        .image("alice", json!({"disk_format": "aki", "container_format": "aki"}))
        .await;
    cloud.upload("alice", &kernel, "vmlinuz").await.is(204);
    assert!(find("alice", &kernel).await.unwrap_err().public().contains("aki"));
    let empty = cloud.image("alice", json!({})).await;
    cloud.upload("alice", &empty, "").await.is(204);
    assert!(find("alice", &empty).await.unwrap_err().public().contains("0 bytes"));
}
