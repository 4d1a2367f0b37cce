//! kill -9 at every fault point that an import passes: after the restart the image is active with its bytes in both
//! stores, or was never taken on and can be asked for again; nothing stays in the staging area.

use crate::setup::{id, options};
use haneul_testkit::{Client, Cloud, Options, eventually};
use http::Method;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

const SETTLED: Duration = Duration::from_secs(20);
/// A point that is passed more often is killed at its first passes only.
const PASSES: usize = 3;
const OCTETS: &[(&str, &str)] = &[("content-type", "application/octet-stream")];

struct Lab {
    cloud: Cloud,
    admin: Client,
    disk: Vec<u8>,
}

/// What became of the image.
async fn settled(lab: &Lab, image: &str) -> String {
    eventually("the import has ended", SETTLED, || async {
        let path = format!("/image/v2/images/{image}");
        let seen = lab.admin.try_send(Method::GET, &path, &[], vec![]).await?;
        let jobs = lab.cloud.admin(Method::GET, "/admin/v1/jobs").await?;
        let running = jobs["jobs"].as_array()?.iter().any(|j| j["status"] == "running");
        let status = seen.body["status"].as_str()?.to_owned();
        (!running && !["saving", "importing"].contains(&status.as_str())).then_some(status)
    })
    .await
}

fn files(dir: &Path) -> usize {
    std::fs::read_dir(dir).into_iter().flatten().count()
}

impl Lab {
    fn left(&self) -> usize {
        let control = self.cloud.dir.join("control");
        ["images", "image-stores/second", "image-staging"]
            .iter()
            .map(|d| files(&control.join(d)))
            .sum()
    }

    /// Stages and imports; `None` when the control plane died over it.
    async fn import(&self, image: &str) -> Option<()> {
        let base = format!("/image/v2/images/{image}");
        let seen = self.admin.try_send(Method::GET, &base, &[], vec![]).await?;
        if seen.body["status"] == "queued" {
            let stage = format!("{base}/stage");
            let staged = self
                .admin
                .try_send(Method::PUT, &stage, OCTETS, self.disk.clone())
                .await?;
            assert_eq!(staged.status, 204, "{}", staged.text);
        }
        let body = json!({"method": {"name": "glance-direct"}, "all_stores": true});
        let json_type = [("content-type", "application/json")];
        let path = format!("{base}/import");
        let asked = self
            .admin
            .try_send(Method::POST, &path, &json_type, body.to_string().into_bytes());
        let asked = asked.await?;
        assert_eq!(asked.status, 202, "{}", asked.text);
        Some(())
    }

    async fn image(&self) -> String {
        let body = json!({"name": "imported", "disk_format": "raw", "container_format": "bare"});
        id(&self.admin.post("/image/v2/images", &body).await.expect(201), "/id")
    }

    /// The image is as it should be, and its end leaves nothing.
    async fn good(&self, image: &str, what: &str) {
        let seen: Value = self.admin.get(&format!("/image/v2/images/{image}")).await.expect(200);
        assert_eq!(seen["stores"], "file,second", "{what}: {seen}");
        assert_eq!(
            (&seen["disk_format"], &seen["virtual_size"]),
            (&json!("qcow2"), &json!(self.disk.len())),
            "{what}"
        );
        let tasks = self
            .admin
            .get(&format!("/image/v2/images/{image}/tasks"))
            .await
            .expect(200);
        assert_eq!(tasks["tasks"][0]["status"], "success", "{what}: {tasks}");
        eventually("two files", SETTLED, || async { (self.left() == 2).then_some(()) }).await;
        self.cloud.audit().await;
        self.admin
            .delete(&format!("/image/v2/images/{image}"))
            .await
            .expect(204);
        eventually("no file", SETTLED, || async { (self.left() == 0).then_some(()) }).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fake_import_survives_a_kill_at_every_point() {
    let sets = ["image.stores=[{id = \"second\"}]", "image.convert_to=qcow2"];
    let cloud = Cloud::start(Options {
        sets: sets.map(str::to_owned).to_vec(),
        ..options()
    })
    .await;
    let admin = cloud.admin_client().await;
    let mut disk = vec![0; 2 << 20];
    disk[1 << 20..][..5].copy_from_slice(b"bytes");
    let mut lab = Lab { cloud, admin, disk };
    // Once undisturbed, to see what is passed.
    let trace = lab.cloud.dir.join("run/fault-trace");
    std::fs::write(&trace, "").unwrap();
    let image = lab.image().await;
    std::fs::write(&trace, "").unwrap();
    lab.import(&image).await.expect("an answer");
    assert_eq!(settled(&lab, &image).await, "active");
    let mut passed: BTreeMap<String, usize> = BTreeMap::new();
    for line in std::fs::read_to_string(&trace).unwrap().lines() {
        let point = line.split_once(' ').unwrap().1;
        if point.starts_with("image.") || point.starts_with("job.image.") {
            *passed.entry(point.to_owned()).or_default() += 1;
        }
    }
    std::fs::remove_file(&trace).unwrap();
    lab.good(&image, "undisturbed").await;
    assert!(passed.len() >= 10, "an import passes only {passed:?}");
    let mut kills = 0;
    for (point, n) in &passed {
        for pass in 0..(*n).min(PASSES) {
            let what = format!("killed at pass {} of {point}", pass + 1);
            let image = lab.image().await;
            lab.cloud.arm(&format!("{point}=kill:{pass}"));
            let _ = lab.import(&image).await;
            let start = std::time::Instant::now();
            while !lab.cloud.revive() {
                assert!(start.elapsed() < SETTLED, "{what}: nobody died");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            kills += 1;
            lab.cloud.ready().await;
            let mut status = settled(&lab, &image).await;
            if status != "active" {
                // It was lost before it was taken on: it can be asked for again.
                assert!(["queued", "uploading"].contains(&status.as_str()), "{what}: {status}");
                lab.import(&image).await.expect("an answer");
                status = settled(&lab, &image).await;
            }
            assert_eq!(status, "active", "{what}\n{}", lab.cloud.tail());
            lab.good(&image, &what).await;
        }
    }
    println!("{kills} kills at {} points: {passed:?}", passed.len());
}
