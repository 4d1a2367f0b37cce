//! What most tests need: a cloud with an image, a flavor and a network.

use haneul_testkit::{Client, Cloud, Options, eventually};
use http::Method;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The image of these clouds.
pub static IMAGE: [u8; 1 << 20] = [0x42; 1 << 20];

/// A cloud that is ready for servers.
pub struct Ready {
    pub cloud: Cloud,
    pub admin: Client,
    pub image: String,
    pub network: String,
}

/// A directory that hosts share, and that is removed at the end.
pub struct Shared(pub PathBuf);

impl Shared {
    pub fn new() -> Shared {
        let dir = std::env::temp_dir().join(format!("haneul-disks-{}", haneul_core::id::hex()));
        std::fs::create_dir(&dir).expect("a directory");
        Shared(dir)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub fn options() -> Options {
    Options::fake(env!("CARGO_BIN_EXE_haneul"))
}

pub fn id(v: &Value, pointer: &str) -> String {
    v.pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_else(|| panic!("no {pointer} in {v}"))
        .to_owned()
}

/// What the fake hypervisor of a host has on record of a guest.
pub fn record(dir: &Path, server: &str) -> Option<Value> {
    let bytes = std::fs::read(dir.join("agent/guests").join(format!("{server}.json"))).ok()?;
    serde_json::from_slice(&bytes).ok()
}

/// Which of these hosts run the guest at one instant. No look sees all of them at once, but who is seen in two that follow
/// each other, with the same start, ran all the while.
pub fn runs_on(dirs: &[&Path], server: &str) -> Vec<usize> {
    let look = || -> Vec<(usize, Value)> {
        let records = dirs
            .iter()
            .enumerate()
            .filter_map(|(n, d)| Some((n, record(d, server)?)));
        let running = records.filter(|(_, r)| r["state"] == "running");
        running.map(|(n, r)| (n, r["started_at"].clone())).collect()
    };
    let mut before = look();
    loop {
        let now = look();
        if now == before {
            return now.into_iter().map(|(n, _)| n).collect();
        }
        before = now;
    }
}

impl Ready {
    pub async fn new(options: Options) -> Ready {
        let cloud = Cloud::start(options).await;
        Ready::on(cloud).await
    }

    pub async fn on(cloud: Cloud) -> Ready {
        let admin = cloud.admin_client().await;
        let image = admin
            .post(
                "/image/v2/images",
                &json!({"name": "tiny", "disk_format": "raw", "container_format": "bare", "visibility": "public"}),
            )
            .await
            .expect(201);
        let image = id(&image, "/id");
        let octets = [("content-type", "application/octet-stream")];
        let up = admin
            .send(
                Method::PUT,
                &format!("/image/v2/images/{image}/file"),
                &octets,
                IMAGE.to_vec(),
            )
            .await;
        assert_eq!(up.status, 204, "{}", up.text);
        for (name, vcpus, ram, disk) in [("tiny", 1, 128, 1), ("small", 2, 512, 2), ("large", 4, 1024, 4)] {
            admin
                .post(
                    "/compute/v2.1/flavors",
                    &json!({"flavor": {"name": name, "id": name, "vcpus": vcpus, "ram": ram, "disk": disk}}),
                )
                .await
                .expect(200);
        }
        let network = admin
            .post("/network/v2.0/networks", &json!({"network": {"name": "net"}}))
            .await
            .expect(201);
        let network = id(&network, "/network/id");
        admin
            .post(
                "/network/v2.0/subnets",
                &json!({"subnet": {"network_id": network, "ip_version": 4, "cidr": "10.1.0.0/16", "name": "sub"}}),
            )
            .await
            .expect(201);
        Ready {
            cloud,
            admin,
            image,
            network,
        }
    }

    /// A router between the network and the external one; answers that one's id.
    pub async fn outside(&self) -> String {
        let found = self
            .admin
            .get("/network/v2.0/networks?router:external=true")
            .await
            .expect(200);
        let outside = id(&found, "/networks/0/id");
        let router = json!({"router": {"name": "router", "external_gateway_info": {"network_id": outside}}});
        let made = self.admin.post("/network/v2.0/routers", &router).await.expect(201);
        let subnets = self.admin.get("/network/v2.0/subnets?name=sub").await.expect(200);
        let path = format!("/network/v2.0/routers/{}/add_router_interface", id(&made, "/router/id"));
        let body = json!({"subnet_id": id(&subnets, "/subnets/0/id")});
        self.admin.put(&path, &body).await.expect(200);
        outside
    }

    /// A flavor `slow`, whose servers are being moved until that is forced or given up.
    pub async fn slow_flavor(&self) {
        let flavor = json!({"flavor": {"name": "slow", "id": "slow", "vcpus": 1, "ram": 128, "disk": 1}});
        self.admin.post("/compute/v2.1/flavors", &flavor).await.expect(200);
        let specs = json!({"extra_specs": {"hw:lab_move": "slow"}});
        let path = "/compute/v2.1/flavors/slow/os-extra_specs";
        self.admin.post(path, &specs).await.expect(200);
    }

    /// Body of POST /servers.
    pub fn server(&self, name: &str, flavor: &str) -> Value {
        json!({"server": {"name": name, "imageRef": self.image, "flavorRef": flavor, "networks": [{"uuid": self.network}]}})
    }

    pub async fn create(&self, name: &str) -> String {
        let v = self
            .admin
            .post("/compute/v2.1/servers", &self.server(name, "tiny"))
            .await
            .expect(202);
        id(&v, "/server/id")
    }

    pub async fn show(&self, server: &str) -> Option<Value> {
        let a = self
            .admin
            .try_send(Method::GET, &format!("/compute/v2.1/servers/{server}"), &[], vec![])
            .await?;
        (a.status == 200).then_some(a.body["server"].clone())
    }

    /// Waits for a status; an ERROR that was not waited for ends the test.
    pub async fn wait(&self, server: &str, status: &str) -> Value {
        eventually(
            &format!("server {server} is {status}"),
            Duration::from_secs(60),
            || async {
                let s = self.show(server).await?;
                let now = s["status"].as_str().unwrap_or_default();
                assert!(now == status || now != "ERROR", "{s}\n{}", self.cloud.tail());
                (now == status).then_some(s)
            },
        )
        .await
    }

    /// Waits until the server is not there any more.
    pub async fn wait_gone(&self, server: &str) {
        eventually(&format!("server {server} is gone"), Duration::from_secs(60), || async {
            let a = self
                .admin
                .try_send(Method::GET, &format!("/compute/v2.1/servers/{server}"), &[], vec![])
                .await?;
            (a.status == 404).then_some(())
        })
        .await;
    }

    pub async fn delete(&self, server: &str) {
        let a = self.admin.delete(&format!("/compute/v2.1/servers/{server}")).await;
        assert_eq!(a.status, 204, "{}", a.text);
        self.wait_gone(server).await;
    }

    pub async fn action(&self, server: &str, body: Value) -> haneul_testkit::Answer {
        self.admin
            .post(&format!("/compute/v2.1/servers/{server}/action"), &body)
            .await
    }
}
