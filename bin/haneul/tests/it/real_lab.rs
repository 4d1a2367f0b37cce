//! What the real lane works with: a cloud whose guests boot and are logged in to. Needs root, QEMU, nftables.

use crate::setup::{id, options};
use haneul_testkit::{Client, Cloud, Options, eventually};
use http::Method;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

/// Why the real lane cannot run here, if it cannot.
pub fn cannot() -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("guests and networks need root".into());
    }
    ["qemu-system-x86_64", "qemu-img", "nft", "conntrack", "ip"]
        .into_iter()
        .find(|p| {
            !["/usr/bin", "/usr/sbin", "/sbin", "/bin"]
                .iter()
                .any(|d| Path::new(d).join(p).exists())
        })
        .map(|p| format!("{p} is not installed; `haneul up --packages-only` installs it"))
}

/// The guest image, built once for all tests.
pub fn guest_image() -> PathBuf {
    let out = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("haneul-guest.qcow2");
    let built = Command::new(env!("CARGO_BIN_EXE_haneul"))
        .args(["guest-image", "--out"])
        .arg(&out)
        .output()
        .expect("the binary runs");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    out
}

/// A public image with these bytes; answers its id.
pub async fn upload(admin: &Client, name: &str, format: &str, bytes: Vec<u8>) -> String {
    let body = json!({"name": name, "disk_format": format, "container_format": "bare", "visibility": "public"});
    let image = id(&admin.post("/image/v2/images", &body).await.expect(201), "/id");
    let octets = [("content-type", "application/octet-stream")];
    let path = format!("/image/v2/images/{image}/file");
    admin.send(Method::PUT, &path, &octets, bytes).await.expect(204);
    image
}

/// A cloud with real guests, a public image, the flavor `nano`, and the key of its users.
pub struct Real {
    pub cloud: Cloud,
    pub admin: Client,
    pub image: String,
    pub external: String,
    key: PathBuf,
}

impl Real {
    /// A cloud whose external range is of its own, so that two tests never meet.
    pub async fn new(range: &str) -> Real {
        Real::with(range, vec![]).await
    }

    /// The same with more settings.
    pub async fn with(range: &str, mut sets: Vec<String>) -> Real {
        let file = guest_image();
        sets.push(format!("network.external_cidr={range}"));
        let cloud = Cloud::start(Options {
            real: true,
            sets,
            ..options()
        })
        .await;
        let admin = cloud.admin_client().await;
        let image = upload(&admin, "guest", "qcow2", std::fs::read(file).unwrap()).await;
        admin
            .post(
                "/compute/v2.1/flavors",
                &json!({"flavor": {"name": "nano", "id": "nano", "vcpus": 1, "ram": 128, "disk": 1}}),
            )
            .await
            .expect(200);
        let external = admin
            .get("/network/v2.0/networks?router:external=true")
            .await
            .expect(200);
        let key = cloud.dir.join("key");
        let made = Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-f"])
            .arg(&key)
            .status()
            .unwrap();
        assert!(made.success());
        Real {
            external: id(&external, "/networks/0/id"),
            cloud,
            admin,
            image,
            key,
        }
    }

    /// A project with a user of its own, and that user's client.
    pub async fn project(&self, name: &str) -> Client {
        let p = self
            .admin
            .post(
                "/identity/v3/projects",
                &json!({"project": {"name": name, "domain_id": "default"}}),
            )
            .await
            .expect(201);
        let u = self
            .admin
            .post(
                "/identity/v3/users",
                &json!({"user": {"name": name, "domain_id": "default", "password": "a-long-password"}}),
            )
            .await
            .expect(201);
        let roles = self.admin.get("/identity/v3/roles?name=member").await.expect(200);
        let path = format!(
            "/identity/v3/projects/{}/users/{}/roles/{}",
            id(&p, "/project/id"),
            id(&u, "/user/id"),
            id(&roles, "/roles/0/id")
        );
        assert_eq!(self.admin.put(&path, &json!({})).await.status, 204);
        let client = self.cloud.anonymous().login(name, "a-long-password", name).await;
        let public = std::fs::read_to_string(self.key.with_extension("pub")).unwrap();
        client
            .post(
                "/compute/v2.1/os-keypairs",
                &json!({"keypair": {"name": "key", "public_key": public}}),
            )
            .await
            .expect(200);
        client
    }

    /// A network with both families behind a router; answers network and router.
    pub async fn network(&self, c: &Client) -> (String, String) {
        let n = c
            .post("/network/v2.0/networks", &json!({"network": {"name": "net"}}))
            .await
            .expect(201);
        let n = id(&n, "/network/id");
        let v4 = json!({"subnet": {"network_id": n, "ip_version": 4, "cidr": "10.9.0.0/24"}});
        let v4 = c.post("/network/v2.0/subnets", &v4).await.expect(201);
        let v6 = json!({"subnet": {"network_id": n, "ip_version": 6, "cidr": "fd00:9::/64", "ipv6_ra_mode": "slaac", "ipv6_address_mode": "slaac"}});
        let v6 = c.post("/network/v2.0/subnets", &v6).await.expect(201);
        let r = json!({"router": {"name": "router", "external_gateway_info": {"network_id": self.external}}});
        let r = c.post("/network/v2.0/routers", &r).await.expect(201);
        let r = id(&r, "/router/id");
        for s in [&v4, &v6] {
            c.put(
                &format!("/network/v2.0/routers/{r}/add_router_interface"),
                &json!({"subnet_id": id(s, "/subnet/id")}),
            )
            .await
            .expect(200);
        }
        (n, r)
    }

    /// A group that lets SSH in, and (by the group itself) everything among its members.
    pub async fn group(&self, c: &Client) -> (String, String) {
        let g = c
            .post(
                "/network/v2.0/security-groups",
                &json!({"security_group": {"name": "ssh"}}),
            )
            .await
            .expect(201);
        let g = id(&g, "/security_group/id");
        let rule = |more: Value| {
            let mut r = json!({"security_group_id": g, "direction": "ingress"});
            r.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            json!({"security_group_rule": r})
        };
        let ssh = rule(json!({"protocol": "tcp", "port_range_min": 22, "port_range_max": 22, "ethertype": "IPv4"}));
        let ssh = c.post("/network/v2.0/security-group-rules", &ssh).await.expect(201);
        for family in ["IPv4", "IPv6"] {
            let among = rule(json!({"remote_group_id": g, "ethertype": family}));
            c.post("/network/v2.0/security-group-rules", &among).await.expect(201);
        }
        (g, id(&ssh, "/security_group_rule/id"))
    }

    /// A server with a fixed address, not waited for.
    pub async fn server(&self, c: &Client, name: &str, network: &str, address: &str) -> String {
        let from = (self.image.as_str(), "nano");
        self.server_of(c, from, name, network, address).await
    }

    /// The same from another image and flavor.
    pub async fn server_of(
        &self,
        c: &Client,
        (image, flavor): (&str, &str),
        name: &str,
        network: &str,
        address: &str,
    ) -> String {
        let body = json!({"server": {
            "name": name, "imageRef": image, "flavorRef": flavor, "key_name": "key",
            "networks": [{"uuid": network, "fixed_ip": address}], "security_groups": [{"name": "ssh"}]
        }});
        id(&c.post("/compute/v2.1/servers", &body).await.expect(202), "/server/id")
    }

    pub async fn wait(&self, c: &Client, server: &str, status: &str) -> Value {
        eventually(&format!("{server} is {status}"), Duration::from_secs(60), || async {
            let a = c
                .try_send(Method::GET, &format!("/compute/v2.1/servers/{server}"), &[], vec![])
                .await?;
            let s = a.body["server"].clone();
            let now = s["status"].as_str().unwrap_or_default().to_owned();
            assert!(now == status || now != "ERROR", "{s}\n{}", self.cloud.tail());
            (now == status).then_some(s)
        })
        .await
    }

    /// A floating IP on the server's first port; answers its id and address.
    pub async fn floating(&self, c: &Client, server: &str) -> (String, String) {
        let ports = c
            .get(&format!("/network/v2.0/ports?device_id={server}"))
            .await
            .expect(200);
        let body = json!({"floatingip": {"floating_network_id": self.external, "port_id": id(&ports, "/ports/0/id")}});
        let f = c.post("/network/v2.0/floatingips", &body).await.expect(201);
        (id(&f, "/floatingip/id"), id(&f, "/floatingip/floating_ip_address"))
    }

    pub fn ssh(&self, address: &str, command: &str) -> Command {
        self.as_user(&format!("root@{address}"), command)
    }

    pub fn as_user(&self, login: &str, command: &str) -> Command {
        let mut c = Command::new("ssh");
        c.args([
            "-o",
            "StrictHostKeyChecking=no",
            "-o",
            "LogLevel=ERROR",
            "-o",
            "BatchMode=yes",
            "-o",
            "ConnectTimeout=5",
        ])
        .arg("-o")
        .arg(format!("UserKnownHostsFile={}", self.cloud.dir.join("known").display()))
        .arg("-i")
        .arg(&self.key)
        .arg(login)
        .arg(command)
        .stdin(Stdio::null());
        c
    }

    pub fn run(&self, address: &str, command: &str) -> Output {
        self.ssh(address, command).output().expect("ssh runs")
    }

    /// Waits until a login works, and answers what the command printed.
    pub async fn login(&self, address: &str, command: &str) -> String {
        eventually(
            &format!("login on {address}\n{}", self.cloud.tail()),
            Duration::from_secs(90),
            || async {
                let o = self.run(address, command);
                o.status
                    .success()
                    .then(|| String::from_utf8_lossy(&o.stdout).trim().to_owned())
            },
        )
        .await
    }

    pub fn host_key(&self) -> String {
        let o = Command::new("ssh-keygen")
            .args(["-l", "-f"])
            .arg(self.cloud.dir.join("known"))
            .output()
            .unwrap();
        String::from_utf8_lossy(&o.stdout)
            .split_whitespace()
            .nth(1)
            .unwrap_or_default()
            .to_owned()
    }
}

pub fn reaches(address: &str, port: u16) -> bool {
    let to = format!("{address}:{port}").parse().unwrap();
    std::net::TcpStream::connect_timeout(&to, Duration::from_millis(1500)).is_ok()
}

/// Whether an SSH server answers there.
pub fn speaks_ssh(address: &str) -> bool {
    let to = format!("{address}:22").parse().unwrap();
    let Ok(mut s) = std::net::TcpStream::connect_timeout(&to, Duration::from_millis(1500)) else {
        return false;
    };
    s.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
    let mut banner = [0u8; 4];
    std::io::Read::read_exact(&mut s, &mut banner).is_ok() && &banner == b"SSH-"
}
