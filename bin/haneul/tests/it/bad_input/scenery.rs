//! What the bad input runs against: two projects with people of every kind, a network with everything on it,
//! servers in three states, images in six, pools without an address left, and what placement has of its own.

use super::hostile;
use super::{BYTES, Who};
use crate::setup::{Ready, id, options};
use haneul_testkit::{Client, Cloud, Options, eventually};
use http::Method;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

const PASSWORD: &str = "a-long-password";
/// So short that an administrator's token ends while the scenery is built.
const SHORT_LIFE: &str = "identity.token_seconds=1";

pub struct Scenery {
    pub r: Ready,
    pub ids: BTreeMap<&'static str, String>,
    tokens: BTreeMap<Who, String>,
}

impl Scenery {
    pub async fn build() -> Scenery {
        let (cloud, expired) = cloud_with_an_old_token().await;
        let r = Ready::on(cloud).await;
        let mut s = Scenery {
            ids: BTreeMap::from([
                ("no", "11111111-2222-4333-8444-555555555555".to_owned()),
                ("nohex", "11111111222243338444555555555555".to_owned()),
                ("image", r.image.clone()),
            ]),
            tokens: BTreeMap::from([
                (Who::Forged, format!("gAAAAAB{}", "nonsense".repeat(20))),
                (Who::Expired, expired),
            ]),
            r,
        };
        let admin = s.r.admin.clone();
        s.token(Who::Admin, &admin);
        s.people(&admin).await;
        s.networks(&admin).await;
        s.images(&admin).await;
        s.servers(&admin).await;
        s.providers(&admin).await;
        s.quotas(&admin).await;
        for (name, who) in [("expired", Who::Expired), ("revoked", Who::Revoked)] {
            s.ids.insert(name, s.tokens[&who].clone());
        }
        eventually("the old token has ended", Duration::from_secs(10), || async {
            let a = s.client(Who::Expired).get("/network/v2.0/networks").await;
            (a.status == 401).then_some(())
        })
        .await;
        s
    }

    pub fn client(&self, who: Who) -> Client {
        Client {
            token: self.tokens.get(&who).cloned(),
            ..self.r.cloud.anonymous()
        }
    }

    fn token(&mut self, who: Who, client: &Client) {
        self.tokens.insert(who, client.token.clone().expect("a token"));
    }

    /// POSTs, and keeps the id of what was made under `name`.
    async fn make(&mut self, name: &'static str, c: &Client, path: &str, body: Value, pointer: &str) -> String {
        let a = c.post(path, &body).await;
        assert!((200..300).contains(&a.status), "{name}: {} {}", a.status, a.text);
        let made = id(&a.body, pointer);
        self.ids.insert(name, made.clone());
        made
    }

    async fn people(&mut self, admin: &Client) {
        for (name, enabled) in [("mine", true), ("theirs", true), ("closed", false)] {
            let project = json!({"project": {"name": name, "domain_id": "default", "enabled": enabled}});
            self.make(name, admin, "/identity/v3/projects", project, "/project/id")
                .await;
        }
        let child = json!({"project": {"name": "child", "domain_id": "default", "parent_id": self.ids["mine"]}});
        self.make("child", admin, "/identity/v3/projects", child, "/project/id")
            .await;
        let domain = json!({"domain": {"name": "outer"}});
        self.make("domain", admin, "/identity/v3/domains", domain, "/domain/id")
            .await;
        for role in ["member", "reader", "admin"] {
            let a = admin.get(&format!("/identity/v3/roles?name={role}")).await.expect(200);
            self.ids.insert(role, id(&a, "/roles/0/id"));
        }
        for (user, project, role, enabled) in [
            ("mia", "mine", "member", true),
            ("rea", "mine", "reader", true),
            ("otto", "theirs", "member", true),
            ("dora", "mine", "member", false),
        ] {
            let body =
                json!({"user": {"name": user, "domain_id": "default", "password": PASSWORD, "enabled": enabled}});
            let made = self.make(user, admin, "/identity/v3/users", body, "/user/id").await;
            for project in [project, "closed"] {
                let path = format!(
                    "/identity/v3/projects/{}/users/{made}/roles/{}",
                    self.ids[project], self.ids[role]
                );
                assert_eq!(admin.put(&path, &json!({})).await.status, 204);
            }
        }
        let nobody = self.r.cloud.anonymous();
        for (who, user, project) in [
            (Who::Member, "mia", "mine"),
            (Who::Reader, "rea", "mine"),
            (Who::Other, "otto", "theirs"),
            (Who::Revoked, "mia", "mine"),
        ] {
            let c = nobody.login(user, PASSWORD, project).await;
            self.token(who, &c);
        }
        let revoked = self.tokens[&Who::Revoked].clone();
        let headers = [("x-subject-token", revoked.as_str())];
        let a = admin
            .send(Method::DELETE, "/identity/v3/auth/tokens", &headers, vec![])
            .await;
        assert_eq!(a.status, 204, "{}", a.text);
        // The last character but a few: the signature, and no padding.
        let mut tampered: Vec<char> = self.tokens[&Who::Member].chars().collect();
        let at = tampered.len() - 10;
        tampered[at] = if tampered[at] == 'A' { 'B' } else { 'A' };
        self.tokens.insert(Who::Tampered, tampered.into_iter().collect());

        let own = self.client(Who::Other);
        let path = format!("/identity/v3/users/{}/application_credentials", self.ids["otto"]);
        let cred = json!({"application_credential": {"name": "robot"}});
        self.make("otto_cred", &own, &path, cred, "/application_credential/id")
            .await;
    }

    async fn networks(&mut self, admin: &Client) {
        let c = self.client(Who::Member);
        let (nets, subs, ports) = ("/network/v2.0/networks", "/network/v2.0/subnets", "/network/v2.0/ports");
        let public = admin
            .get("/network/v2.0/networks?router:external=true")
            .await
            .expect(200);
        self.ids.insert("public", id(&public, "/networks/0/id"));
        for (net, subnet, cidr, pool) in [
            (
                "net",
                "subnet",
                "10.1.0.0/24",
                json!([{"start": "10.1.0.10", "end": "10.1.0.200"}]),
            ),
            (
                "full",
                "full_subnet",
                "10.9.0.0/24",
                json!([{"start": "10.9.0.5", "end": "10.9.0.5"}]),
            ),
            (
                "twin",
                "twin_subnet",
                "10.1.0.128/25",
                json!([{"start": "10.1.0.150", "end": "10.1.0.160"}]),
            ),
        ] {
            let n = self
                .make(net, &c, nets, json!({"network": {"name": net}}), "/network/id")
                .await;
            let body = json!({"subnet": {"network_id": n, "ip_version": 4, "cidr": cidr, "allocation_pools": pool,
                                          "enable_dhcp": false}});
            self.make(subnet, &c, subs, body, "/subnet/id").await;
        }
        let n = self
            .make("bare", &c, nets, json!({"network": {"name": "bare"}}), "/network/id")
            .await;
        let body = json!({"subnet": {"network_id": n, "ip_version": 4, "cidr": "10.8.0.0/24", "gateway_ip": null}});
        self.make("bare_subnet", &c, subs, body, "/subnet/id").await;
        let full = json!({"port": {"network_id": self.ids["full"]}});
        self.make("full_port", &c, ports, full, "/port/id").await;

        let group = json!({"security_group": {"name": "web"}});
        let web = self
            .make("web", &c, "/network/v2.0/security-groups", group, "/security_group/id")
            .await;
        let all = c.get("/network/v2.0/security-groups?name=default").await.expect(200);
        self.ids.insert("default_group", id(&all, "/security_groups/0/id"));
        let rule = json!({"security_group_rule": {"security_group_id": web, "direction": "ingress", "protocol": "tcp",
                                                   "port_range_min": 80, "port_range_max": 80}});
        let rules = "/network/v2.0/security-group-rules";
        self.make("rule", &c, rules, rule, "/security_group_rule/id").await;

        let router = json!({"router": {"name": "r", "external_gateway_info": {"network_id": self.ids["public"]}}});
        let router = self
            .make("router", &c, "/network/v2.0/routers", router, "/router/id")
            .await;
        let add = format!("/network/v2.0/routers/{router}/add_router_interface");
        let made = c.put(&add, &json!({"subnet_id": self.ids["subnet"]})).await.expect(200);
        self.ids.insert("router_port", id(&made, "/port_id"));

        let port = json!({"port": {"network_id": self.ids["net"], "security_groups": [web],
                                    "mac_address": "fa:16:3e:00:00:77",
                                    "fixed_ips": [{"subnet_id": self.ids["subnet"], "ip_address": "10.1.0.77"}]}});
        let port = self.make("port", &c, ports, port, "/port/id").await;
        let free = json!({"port": {"network_id": self.ids["net"]}});
        self.make("free_port", &c, ports, free, "/port/id").await;
        let fips = "/network/v2.0/floatingips";
        let fip = |port: Value| json!({"floatingip": {"floating_network_id": self.ids["public"], "port_id": port}});
        let (bound, free) = (fip(json!(port)), fip(Value::Null));
        self.make("fip", &c, fips, bound, "/floatingip/id").await;
        // The rest of the external range, of which nothing is left then.
        self.make("free_fip", &c, fips, free.clone(), "/floatingip/id").await;
        for _ in 0..8 {
            let a = c.post(fips, &free).await;
            assert!(a.status == 201 || a.status == 409, "{}", a.text);
        }
        let other = self.client(Who::Other);
        let theirs = json!({"network": {"name": "theirs"}});
        self.make("their_net", &other, nets, theirs, "/network/id").await;
        let body = json!({"subnet": {"network_id": self.ids["their_net"], "ip_version": 4, "cidr": "10.2.0.0/24"}});
        self.make("their_subnet", &other, subs, body, "/subnet/id").await;
        let port = json!({"port": {"network_id": self.ids["their_net"]}});
        self.make("their_port", &other, ports, port, "/port/id").await;
    }

    async fn images(&mut self, admin: &Client) {
        let c = self.client(Who::Member);
        let images = "/image/v2/images";
        for (name, format) in [
            ("queued_raw", "raw"),
            ("queued_qcow2", "qcow2"),
            ("queued_vmdk", "vmdk"),
            ("queued_vhd", "vhd"),
            ("queued_iso", "iso"),
        ] {
            let body = json!({"name": name, "disk_format": format, "container_format": "bare"});
            self.make(name, &c, images, body, "/id").await;
        }
        self.make("queued_blank", &c, images, json!({"name": "blank"}), "/id")
            .await;
        let tags: Vec<String> = (0..128).map(|n| format!("t{n}")).collect();
        for (name, more) in [
            ("protected", json!({"protected": true})),
            ("private", json!({"visibility": "private", "tags": tags})),
            ("needy", json!({"min_ram": 65536})),
            ("large", json!({"min_disk": 500})),
            ("off", json!({})),
        ] {
            let mut body = json!({"name": name, "disk_format": "qcow2", "container_format": "bare"});
            body.as_object_mut()
                .expect("an object")
                .extend(more.as_object().expect("an object").clone());
            let image = self.make(name, &c, images, body, "/id").await;
            let headers = [("content-type", BYTES)];
            let path = format!("{images}/{image}/file");
            let a = c.send(Method::PUT, &path, &headers, hostile::qcow2()).await;
            assert_eq!(a.status, 204, "{}", a.text);
        }
        let off = format!("{images}/{}/actions/deactivate", self.ids["off"]);
        assert_eq!(admin.post(&off, &json!({})).await.status, 204);
    }

    async fn servers(&mut self, admin: &Client) {
        let c = self.client(Who::Member).at("compute 2.90");
        let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIO3wzmbDhTTMCBUcPVTPBVZ8vAoB4TUxIWRnZ6YeGDqM me";
        let body = json!({"keypair": {"name": "key", "public_key": key}});
        self.make("key", &c, "/compute/v2.1/os-keypairs", body, "/keypair/name")
            .await;
        let body = json!({"server_group": {"name": "pack", "policy": "anti-affinity"}});
        self.make("group", &c, "/compute/v2.1/os-server-groups", body, "/server_group/id")
            .await;
        for (name, vcpus, ram, disk, public) in [("secret", 1, 128, 1, false), ("zero", 1, 128, 0, true)] {
            let flavor = json!({"flavor": {"name": name, "id": name, "vcpus": vcpus, "ram": ram, "disk": disk,
                                            "os-flavor-access:is_public": public}});
            admin.post("/compute/v2.1/flavors", &flavor).await.expect(200);
        }
        for name in ["active", "stopped", "locked", "paused"] {
            let body = json!({"server": {"name": name, "imageRef": self.r.image, "flavorRef": "tiny", "key_name": "key",
                                          "metadata": {"a": "b"}, "networks": [{"uuid": self.ids["net"]}]}});
            self.make(name, &c, "/compute/v2.1/servers", body, "/server/id").await;
        }
        for name in ["active", "stopped", "locked", "paused"] {
            self.r.wait(&self.ids[name], "ACTIVE").await;
        }
        for (name, action) in [("stopped", "os-stop"), ("locked", "lock"), ("paused", "pause")] {
            let path = format!("/compute/v2.1/servers/{}/action", self.ids[name]);
            assert_eq!(c.post(&path, &json!({ action: null })).await.status, 202);
        }
        self.r.wait(&self.ids["stopped"], "SHUTOFF").await;
        self.r.wait(&self.ids["paused"], "PAUSED").await;
        let path = format!("/network/v2.0/ports?device_id={}", self.ids["active"]);
        let ports = c.get(&path).await.expect(200);
        self.ids.insert("server_port", id(&ports, "/ports/0/id"));
        let services = admin
            .at("compute 2.90")
            .get("/compute/v2.1/os-services?binary=nova-compute")
            .await;
        self.ids.insert("service", id(&services.expect(200), "/services/0/id"));
    }

    async fn providers(&mut self, admin: &Client) {
        let c = admin.at("placement 1.20");
        let host = c.get("/placement/resource_providers").await.expect(200);
        self.ids.insert("host", id(&host, "/resource_providers/0/uuid"));
        let path = "/placement/resource_providers";
        let rack = self.make("rack", &c, path, json!({"name": "rack"}), "/uuid").await;
        let body = json!({"name": "shelf", "parent_provider_uuid": rack});
        self.make("shelf", &c, path, body, "/uuid").await;
        for path in [
            "resource_classes/CUSTOM_GOLD",
            "resource_classes/CUSTOM_TIN",
            "traits/CUSTOM_SHINY",
        ] {
            assert_eq!(c.put(&format!("/placement/{path}"), &json!({})).await.status, 201);
        }
        let gold = json!({"resource_class": "CUSTOM_GOLD", "total": 4, "max_unit": 2});
        c.post(&format!("{path}/{rack}/inventories"), &gold).await.expect(201);
        let traits = json!({"traits": ["CUSTOM_SHINY"], "resource_provider_generation": 1});
        c.put(&format!("{path}/{rack}/traits"), &traits).await.expect(200);
    }

    /// Everything that the other project may have, it has.
    async fn quotas(&mut self, admin: &Client) {
        let theirs = &self.ids["theirs"];
        let compute = json!({"quota_set": {"instances": 0, "key_pairs": 0, "server_groups": 0}});
        admin
            .put(&format!("/compute/v2.1/os-quota-sets/{theirs}"), &compute)
            .await
            .expect(200);
        let network = json!({"quota": {"network": 1, "subnet": 1, "router": 0, "floatingip": 0, "security_group": 1}});
        admin
            .put(&format!("/network/v2.0/quotas/{theirs}"), &network)
            .await
            .expect(200);
    }
}

/// A cloud, and a token of its administrator whose life is a second. Those that are made later live long.
async fn cloud_with_an_old_token() -> (Cloud, String) {
    let mut cloud = Cloud::start(Options {
        sets: vec![SHORT_LIFE.into(), "network.external_cidr=203.0.113.0/29".into()],
        ..options()
    })
    .await;
    let expired = cloud.admin_client().await.token.expect("a token");
    cloud.stop_serve();
    cloud.options.sets.retain(|s| s != SHORT_LIFE);
    cloud.start_serve();
    cloud.ready().await;
    (cloud, expired)
}
