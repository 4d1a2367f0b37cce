//! A small cloud: database, fleet, the service behind a loopback port, one host.

use haneul_agent_api::{Greeting, HypervisorInfo, Inventory, Kind, Object, ObservedNet, Report, Underlay, path};
use haneul_auth::context::CtxInner;
use haneul_auth::{Authenticator, BoxFuture, Ctx, Policy, RoleRef, ScopeKind};
use haneul_core::config::Config;
use haneul_core::{Error, Result, id};
use haneul_fleet::Fleet;
use haneul_http::Server;
use haneul_http::client::{Peer, send};
use haneul_network::Network;
use haneul_store::{Db, OpenOptions};
use haneul_testkit::postgres::Postgres;
use http::Method;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::Arc;
use uuid::Uuid;

/// Tokens are `user:project:role`.
pub struct Stub(Arc<Policy>);

impl Authenticator for Stub {
    fn authenticate<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Arc<CtxInner>>> {
        Box::pin(async move { inner(token).ok_or_else(Error::unauthorized) })
    }
    fn policy(&self) -> Arc<Policy> {
        self.0.clone()
    }
}

fn inner(token: &str) -> Option<Arc<CtxInner>> {
    let parts: Vec<&str> = token.split(':').collect();
    let [user, project, role] = parts.as_slice() else {
        return None;
    };
    let roles: &[&str] = match *role {
        "admin" => &["admin", "manager", "member", "reader"],
        "member" => &["member", "reader"],
        "reader" => &["reader"],
        _ => &[],
    };
    Some(Arc::new(CtxInner {
        user_id: (*user).into(),
        user_name: (*user).into(),
        user_domain_id: "default".into(),
        user_domain_name: "Default".into(),
        scope: ScopeKind::Project {
            id: (*project).into(),
            name: (*project).into(),
            domain_id: "default".into(),
            domain_name: "Default".into(),
        },
        roles: roles
            .iter()
            .map(|r| RoleRef {
                id: (*r).into(),
                name: (*r).into(),
            })
            .collect(),
        expires_at: i64::MAX,
        issued_at: 0,
        audit_ids: vec![],
        methods: vec![],
        application_credential_id: None,
        password_expires_at: None,
    }))
}

pub const ADMIN: &str = "root:ops:admin";
pub const ALICE: &str = "alice:red:member";
pub const BOB: &str = "bob:blue:member";
pub const EVE: &str = "eve:red:reader";

pub struct Cloud {
    pub app: Arc<Network>,
    pub db: Db,
    pub fleet: Arc<Fleet>,
    pub host: Uuid,
    policy: Arc<Policy>,
    peer: Peer,
    agents: Peer,
    dir: PathBuf,
    _postgres: Option<Postgres>,
}

impl Drop for Cloud {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

pub async fn sqlite() -> Cloud {
    let dir = std::env::temp_dir().join(format!("haneul-net-{}", id::hex()));
    std::fs::create_dir_all(&dir).unwrap();
    let url = format!("sqlite:{}", dir.join("t.db").display());
    open(&url, dir, None).await
}

pub async fn postgres() -> Option<Cloud> {
    if !haneul_testkit::postgres::installed() {
        println!("skipped: PostgreSQL is not installed (apt-get install postgresql)");
        return None;
    }
    let pg = Postgres::start().expect("PostgreSQL starts");
    let url = pg.create_database("network").expect("a database");
    let dir = std::env::temp_dir().join(format!("haneul-net-{}", id::hex()));
    std::fs::create_dir_all(&dir).unwrap();
    Some(open(&url, dir, Some(pg)).await)
}

async fn open(url: &str, dir: PathBuf, postgres: Option<Postgres>) -> Cloud {
    let migrations = [
        haneul_auth::quota::MIGRATIONS,
        haneul_fleet::MIGRATIONS,
        haneul_network::MIGRATIONS,
    ]
    .concat();
    let db = Db::open(
        &OpenOptions {
            url: url.into(),
            readers: 4,
        },
        &migrations,
    )
    .await
    .unwrap();
    let fleet = Fleet::open(db.clone()).await.unwrap();
    let mut config = Config::default();
    // Long enough for a host to come back in time on a slow machine.
    config.network.router_failover_s = 2;
    let app = Network::new(db.clone(), &config, fleet.clone()).await.unwrap();
    fleet.set_observers(vec![app.clone()]);
    let policy = Arc::new(Policy::new(haneul_network::RULES, &[]).unwrap());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let server = Server {
        auth: Arc::new(Stub(policy.clone())),
        metrics: Arc::default(),
        public_url: format!("http://{addr}").into(),
        max_body: 1 << 20,
        max_limit: 1000,
    };
    let router = app.routes().into_router(&server);
    tokio::spawn(async move { axum::serve(listener, router).await });
    let socket = dir.join("agent.sock");
    let agents = tokio::net::UnixListener::bind(&socket).unwrap();
    // Our own user id is the socket's owner.
    let uid = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(&socket).unwrap());
    tokio::spawn(haneul_fleet::serve(fleet.clone(), agents, uid, std::future::pending()));
    let cloud = Cloud {
        app,
        db,
        fleet,
        host: Uuid::new_v4(),
        policy,
        peer: Peer::Tcp(addr.to_string()),
        agents: Peer::Unix(socket),
        dir,
        _postgres: postgres,
    };
    cloud.join(cloud.host, "one", None).await;
    cloud
}

/// An agent's open watch. The host is down when it is dropped.
pub struct Stream(#[allow(dead_code)] tokio::net::UnixStream);

impl Cloud {
    /// A host greets; with an underlay address it is one among several.
    pub async fn join(&self, host: Uuid, name: &str, underlay: Option<&str>) {
        let greeting = Greeting {
            protocol: 2,
            release: "0".into(),
            host_id: host,
            host_name: name.into(),
            boot_id: "b".into(),
            inventory: Inventory {
                vcpus: 1,
                memory_mib: 1,
                disk_gib: 1,
            },
            hypervisor: HypervisorInfo {
                kind: "fake".into(),
                version: 1,
                accelerator: "fake".into(),
                arch: "x86_64".into(),
                cpu_model: String::new(),
                cpu_vendor: String::new(),
                cpu_features: vec![],
                sockets: 1,
                cores: 1,
                threads: 1,
                moves: true,
                shared_disks: None,
            },
            underlay: underlay.map(|ip| Underlay {
                address: ip.parse().unwrap(),
                mtu: 1500,
            }),
        };
        self.agent(path::GREET, &serde_json::to_value(greeting).unwrap()).await;
    }

    async fn agent(&self, path: &str, body: &Value) {
        let answer = send(
            &self.agents,
            Method::POST,
            path,
            &[("content-type", "application/json")],
            body.to_string(),
        )
        .await
        .unwrap();
        assert_eq!(answer.status, 200, "{path}: {:?}", answer.body);
    }

    /// The host reports one thing of the network.
    pub async fn report(&self, kind: Kind, id: &str, up: bool) {
        let seen = ObservedNet {
            id: id.parse().unwrap(),
            epoch: 1,
            generation: 1,
            up,
            failure: None,
        };
        let mut report = Report {
            host_id: self.host,
            ..Report::default()
        };
        match kind {
            Kind::Router => report.routers.push(seen),
            Kind::Network => report.networks.push(seen),
            _ => report.ports.push(seen),
        }
        self.agent(path::REPORT, &serde_json::to_value(report).unwrap()).await;
    }

    /// Where the service answers.
    pub fn url(&self) -> String {
        match &self.peer {
            Peer::Tcp(addr) => format!("http://{addr}/network"),
            Peer::Unix(_) => String::new(),
        }
    }

    /// Opens a host's watch and waits for its first line.
    pub async fn watch(&self, host: Uuid) -> Stream {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let Peer::Unix(socket) = &self.agents else {
            unreachable!()
        };
        let mut s = tokio::net::UnixStream::connect(socket).await.unwrap();
        let ask = format!("GET {}?host={host} HTTP/1.1\r\nhost: control\r\n\r\n", path::WATCH);
        s.write_all(ask.as_bytes()).await.unwrap();
        let mut seen = Vec::new();
        while !String::from_utf8_lossy(&seen).contains("bookmark") {
            assert!(s.read_buf(&mut seen).await.unwrap() > 0, "the watch ended");
        }
        Stream(s)
    }

    /// What the host shall hold, with its generation.
    pub async fn desired(&self, kind: Kind, id: &str) -> Option<(i64, Object)> {
        self.desired_on(self.host, kind, id).await
    }

    /// The same of any host.
    pub async fn desired_on(&self, host: Uuid, kind: Kind, id: &str) -> Option<(i64, Object)> {
        let mut tx = self.db.read().await.unwrap();
        self.fleet.desired(&mut tx, &host.to_string(), kind, id).await.unwrap()
    }

    pub async fn raw(
        &self,
        method: &str,
        path: &str,
        token: &str,
        body: &str,
        headers: &[(&str, &str)],
    ) -> (u16, Value, String) {
        let mut all = vec![("x-auth-token", token), ("content-type", "application/json")];
        all.extend_from_slice(headers);
        let a = send(
            &self.peer,
            method.parse().unwrap(),
            &format!("/network{path}"),
            &all,
            body.to_owned(),
        )
        .await
        .unwrap();
        (
            a.status.as_u16(),
            a.json(),
            String::from_utf8_lossy(&a.body).into_owned(),
        )
    }

    pub async fn call(&self, method: &str, path: &str, token: &str, body: Value) -> (u16, Value) {
        let text = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let (status, value, _) = self.raw(method, path, token, &text, &[]).await;
        (status, value)
    }

    /// A call that must succeed.
    pub async fn ok(&self, method: &str, path: &str, token: &str, body: Value) -> Value {
        let (status, value) = self.call(method, path, token, body.clone()).await;
        assert!(status < 300, "{method} {path} {body} -> {status} {value}");
        value
    }

    /// A call that must be refused.
    pub async fn refused(&self, method: &str, path: &str, token: &str, body: Value, status: u16, kind: &str) -> String {
        let (got, value) = self.call(method, path, token, body.clone()).await;
        assert_eq!(
            (got, &value["NeutronError"]["type"]),
            (status, &json!(kind)),
            "{method} {path} {body} -> {value}"
        );
        value["NeutronError"]["message"].as_str().unwrap().to_owned()
    }

    pub async fn get(&self, path: &str, token: &str) -> Value {
        self.ok("GET", path, token, Value::Null).await
    }

    pub async fn network(&self, token: &str, name: &str) -> String {
        let v = self
            .ok("POST", "/v2.0/networks", token, json!({"network": {"name": name}}))
            .await;
        text(&v["network"]["id"])
    }

    pub async fn subnet(&self, token: &str, network: &str, cidr: &str) -> String {
        let version = if cidr.contains(':') { 6 } else { 4 };
        let body = json!({"subnet": {"network_id": network, "cidr": cidr, "ip_version": version}});
        text(&self.ok("POST", "/v2.0/subnets", token, body).await["subnet"]["id"])
    }

    pub async fn port(&self, token: &str, network: &str) -> Value {
        self.ok("POST", "/v2.0/ports", token, json!({"port": {"network_id": network}}))
            .await["port"]
            .clone()
    }

    /// The external network of the first start.
    pub async fn public(&self) -> String {
        text(&self.get("/v2.0/networks?router:external=true", ALICE).await["networks"][0]["id"])
    }

    pub fn ctx(&self, token: &str) -> Ctx {
        Ctx {
            inner: inner(token).unwrap(),
            request_id: "req-test".into(),
            policy: self.policy.clone(),
        }
    }

    /// Nothing disagrees.
    pub async fn audit(&self) {
        let mut tx = self.db.read().await.unwrap();
        assert_eq!(self.app.audit(&mut tx).await.unwrap(), vec![]);
    }

    /// Rows of all tables of the service, to see that a refusal wrote nothing.
    pub async fn rows(&self) -> Vec<i64> {
        // Members of groups reach the hosts a moment after the request that changed them.
        loop {
            let mut tx = self.db.read().await.unwrap();
            let waiting = tx.row("SELECT COUNT(*) FROM members_changed", &[]).await.unwrap();
            if waiting.unwrap().i64(0).unwrap() == 0 {
                break;
            }
            drop(tx);
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        let mut tx = self.db.read().await.unwrap();
        let mut out = Vec::new();
        for t in [
            "network",
            "subnet",
            "port",
            "router",
            "floating_ip",
            "security_group",
            "security_group_rule",
            "ip_allocation",
            "port_security_group",
            "fleet_desired",
            "change_log",
        ] {
            out.push(
                tx.row(&format!("SELECT COUNT(*) FROM {t}"), &[])
                    .await
                    .unwrap()
                    .unwrap()
                    .i64(0)
                    .unwrap(),
            );
        }
        out
    }
}

pub fn text(v: &Value) -> String {
    v.as_str().unwrap_or_else(|| panic!("not a string: {v}")).to_owned()
}
