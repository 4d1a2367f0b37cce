//! A cloud with an image, flavors and a network, and quotas out of the way.

use crate::Options;
use crate::http::{Api, Conn, request};
use anyhow::{Context, Result, bail};
use haneul_testkit::{Client, Cloud};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

pub struct Ready {
    pub cloud: Cloud,
    pub admin: Client,
    pub image: String,
    pub network: String,
    pub project: String,
}

/// Room for everything that a run creates.
pub fn wide() -> Vec<String> {
    [
        "compute.quota_instances=-1",
        "compute.quota_cores=-1",
        "compute.quota_ram_mib=-1",
        "agent.fake_vcpus=60000",
        "agent.fake_memory_mib=100000000",
        "agent.fake_disk_gib=10000000",
    ]
    .map(String::from)
    .to_vec()
}

/// A member of an answer, as text.
pub fn text(v: &Value, pointer: &str) -> Result<String> {
    let found = v.pointer(pointer).and_then(Value::as_str);
    Ok(found.with_context(|| format!("no {pointer} in {v}"))?.to_owned())
}

impl Ready {
    /// On the fake drivers.
    pub async fn new(options: &Options, sets: &[&str]) -> Result<Ready> {
        Self::on(options, sets, None).await
    }

    /// The same, on this database of PostgreSQL where one is given.
    pub async fn on(options: &Options, sets: &[&str], database: Option<String>) -> Result<Ready> {
        let mut o = haneul_testkit::Options::fake(&options.binary);
        o.database = database;
        o.sets = wide();
        o.sets.extend(sets.iter().map(|s| (*s).to_owned()));
        let cloud = Cloud::start(o).await;
        let admin = cloud.admin_client().await;
        let mut api = Api::new(&cloud.address, admin.token.as_deref().unwrap_or_default()).await?;
        let image = json!({"name": "tiny", "disk_format": "raw", "container_format": "bare", "visibility": "public"});
        let image = text(&api.post("/image/v2/images", &image).await?.expect(201)?.json(), "/id")?;
        let head = [("x-auth-token", api.token.as_str()), ("x-bench", "1")];
        let mut put = request(
            "PUT",
            &format!("/image/v2/images/{image}/file"),
            &head,
            &[0x42; 1 << 20],
        );
        // The helper says JSON; an image is octets.
        let at = put
            .windows(16)
            .position(|w| w == b"application/json")
            .context("the type")?;
        put.splice(at..at + 16, *b"application/octet-stream");
        Conn::open(&cloud.address).await?.send(&put).await?.expect(204)?;
        let flavor = json!({"flavor": {"name": "tiny", "id": "tiny", "vcpus": 1, "ram": 128, "disk": 1}});
        api.post("/compute/v2.1/flavors", &flavor).await?.expect(200)?;
        let net = api
            .post("/network/v2.0/networks", &json!({"network": {"name": "net"}}))
            .await?
            .expect(201)?
            .json();
        let (network, project) = (text(&net, "/network/id")?, text(&net, "/network/project_id")?);
        let quota = json!({"quota": {"port": -1, "network": -1, "subnet": -1, "security_group": -1, "security_group_rule": -1}});
        api.call("PUT", &format!("/network/v2.0/quotas/{project}"), Some(&quota))
            .await?
            .expect(200)?;
        let subnet = json!({"subnet": {"network_id": network, "ip_version": 4, "cidr": "10.64.0.0/14"}});
        api.post("/network/v2.0/subnets", &subnet).await?.expect(201)?;
        Ok(Ready {
            cloud,
            admin,
            image,
            network,
            project,
        })
    }

    /// A connection of the administrator's.
    pub async fn api(&self) -> Result<Api> {
        Api::new(&self.cloud.address, self.admin.token.as_deref().unwrap_or_default()).await
    }

    /// Body of POST /servers.
    pub fn server(&self, name: &str) -> Value {
        json!({"server": {"name": name, "imageRef": self.image, "flavorRef": "tiny", "networks": [{"uuid": self.network}]}})
    }

    /// Makes one server and waits until it is ACTIVE, looking every `pause`: the time to the answer, and to ACTIVE.
    pub async fn create(&self, api: &mut Api, name: &str, pause: Duration) -> Result<(Duration, Duration)> {
        let body = self.server(name);
        let start = Instant::now();
        let made = api.post("/compute/v2.1/servers", &body).await?.expect(202)?;
        let answered = start.elapsed();
        let path = format!("/compute/v2.1/servers/{}", text(&made.json(), "/server/id")?);
        loop {
            let seen = api.get(&path).await?.expect(200)?;
            // Cheaper than parsing, as the client runs on the same cores.
            if contains(&seen.body, b"\"status\":\"ACTIVE\"") {
                return Ok((answered, start.elapsed()));
            }
            if contains(&seen.body, b"\"status\":\"ERROR\"") || start.elapsed() > Duration::from_secs(60) {
                bail!("{}", String::from_utf8_lossy(&seen.body));
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// Makes `n` servers by a few large requests, and waits until none is being built.
    pub async fn fill(&self, n: usize) -> Result<()> {
        let mut api = self.api().await?;
        let mut left = n;
        while left > 0 {
            let now = left.min(500);
            let mut body = self.server("many");
            body["server"]["min_count"] = now.into();
            body["server"]["max_count"] = now.into();
            api.post("/compute/v2.1/servers", &body).await?.expect(202)?;
            left -= now;
        }
        let start = Instant::now();
        loop {
            let building = api
                .get("/compute/v2.1/servers?status=BUILD&limit=1")
                .await?
                .expect(200)?;
            if building.json()["servers"].as_array().is_some_and(Vec::is_empty) {
                return Ok(());
            }
            if start.elapsed() > Duration::from_secs(300) {
                bail!("servers are being built after {:?}", start.elapsed());
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

pub fn contains(hay: &[u8], needle: &[u8]) -> bool {
    hay.windows(needle.len()).any(|w| w == needle)
}
