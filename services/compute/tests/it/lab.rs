//! A control plane in this process, and a host that speaks the agents' protocol over its socket.

mod heard;

use axum::body::Body;
use bytes::Bytes;
use haneul_agent_api::{
    Ask, Desired, Failure, Greeting, Guest, GuestState, HypervisorInfo, Inventory, Kind, Layout, MoveAddress,
    MoveProgress, MoveState, Object, ObservedGuest, ObservedMove, ObservedSnapshot, Power, Report, SnapshotState,
    ToAgent, Tombstone, path,
};
use haneul_auth::context::CtxInner;
use haneul_auth::{Authenticator, BoxFuture, Policy, RoleRef, ScopeKind};
use haneul_compute::Compute;
use haneul_core::config::Config;
use haneul_core::{Error, Result, clock};
use haneul_fleet::Fleet;
use haneul_http::Server;
use haneul_http::metrics::Metrics;
use haneul_image::Images;
use haneul_jobs::Jobs;
use haneul_network::Network;
use haneul_placement::Placement;
use haneul_store::{Db, OpenOptions};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::net::{UnixListener, UnixStream};
use tower::ServiceExt;
use uuid::Uuid;

pub struct Stub {
    policy: Arc<Policy>,
}

/// Tokens are `ROLE:PROJECT:USER`.
impl Authenticator for Stub {
    fn authenticate<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Arc<CtxInner>>> {
        Box::pin(async move {
            let parts: Vec<&str> = token.split(':').collect();
            let [role, project, user] = parts.as_slice() else {
                return Err(Error::unauthorized());
            };
            let names: &[&str] = match *role {
                "admin" => &["admin", "manager", "member", "reader"],
                "manager" => &["manager", "member", "reader"],
                "member" => &["member", "reader"],
                "reader" => &["reader"],
                _ => return Err(Error::unauthorized()),
            };
            Ok(Arc::new(CtxInner {
                user_id: (*user).to_owned(),
                user_name: (*user).to_owned(),
                user_domain_id: "default".into(),
                user_domain_name: "Default".into(),
                scope: ScopeKind::Project {
                    id: (*project).to_owned(),
                    name: (*project).to_owned(),
                    domain_id: "default".into(),
                    domain_name: "Default".into(),
                },
                roles: names
                    .iter()
                    .map(|n| RoleRef {
                        id: (*n).into(),
                        name: (*n).into(),
                    })
                    .collect(),
                expires_at: clock::now() + 3600 * clock::SECOND,
                issued_at: clock::now(),
                audit_ids: vec![],
                methods: vec!["password".into()],
                application_credential_id: None,
                password_expires_at: None,
            }))
        })
    }
    fn policy(&self) -> Arc<Policy> {
        self.policy.clone()
    }
}

pub const ADMIN: &str = "admin:cloud:root";
pub const DEMO: &str = "member:demo:alice";
pub const OTHER: &str = "member:other:bob";
pub const READER: &str = "reader:demo:carol";

/// A control plane with its sockets.
pub struct Lab {
    pub db: Db,
    pub compute: Arc<Compute>,
    pub router: axum::Router,
    pub socket: PathBuf,
    pub image: String,
    pub network: String,
    pub placement: Arc<Placement>,
    /// Another control plane on the same database, with a view of the hosts of its own.
    pub twin: axum::Router,
    hosts: Mutex<Vec<FakeHost>>,
    dir: PathBuf,
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Value,
}

/// A request: who, microversion, method, path, body.
#[derive(Clone)]
pub struct Call<'a> {
    pub token: &'a str,
    pub version: &'a str,
}

impl Lab {
    pub async fn start() -> Lab {
        Self::with(|_| {}).await
    }

    pub async fn with(change: impl FnOnce(&mut Config)) -> Lab {
        Self::on(None, change).await
    }

    /// On a database of PostgreSQL, or SQLite.
    pub async fn on(url: Option<String>, change: impl FnOnce(&mut Config)) -> Lab {
        let dir = std::env::temp_dir().join(format!("haneul-compute-{}", Uuid::new_v4().simple()));
        std::fs::create_dir_all(&dir).unwrap();
        let mut config = Config {
            lab: true,
            ..Config::default()
        };
        config.state_dir.0 = dir.clone();
        config.image.reserve_bytes = 0;
        config.compute.reserved_disk_gib = 0;
        config.compute.reserved_memory_mib = 0;
        change(&mut config);
        let migrations = [
            haneul_auth::quota::MIGRATIONS,
            haneul_jobs::MIGRATIONS,
            haneul_fleet::MIGRATIONS,
            haneul_placement::MIGRATIONS,
            haneul_image::MIGRATIONS,
            haneul_network::MIGRATIONS,
            haneul_compute::MIGRATIONS,
        ]
        .concat();
        let url = url.unwrap_or_else(|| format!("sqlite:{}", dir.join("db").display()));
        let db = Db::open(&OpenOptions { url, readers: 4 }, &migrations).await.unwrap();
        let jobs = Jobs::new(db.clone());
        let fleet = Fleet::open(db.clone()).await.unwrap();
        let placement = Arc::new(Placement::new(db.clone()));
        let image = Images::new(db.clone(), &config, jobs.clone()).unwrap();
        let network = Network::new(db.clone(), &config, fleet.clone()).await.unwrap();
        let [compute, twin] = [(), ()].map(|()| {
            Compute::new(
                db.clone(),
                &config,
                jobs.clone(),
                fleet.clone(),
                placement.clone(),
                image.clone(),
                network.clone(),
            )
        });
        fleet.set_observers(vec![network.clone(), compute.clone()]);
        jobs.register(compute.sagas());
        let rules = [haneul_image::RULES, haneul_network::RULES, haneul_compute::RULES].concat();
        let server = Server {
            auth: Arc::new(Stub {
                policy: Arc::new(Policy::new(&rules, &[]).unwrap()),
            }),
            metrics: Arc::new(Metrics::default()),
            public_url: "http://cloud".into(),
            max_body: 1 << 20,
            max_limit: 1000,
        };
        let router = compute
            .routes()
            .into_router(&server)
            .merge(network.routes().into_router(&server))
            .merge(image.router(&server));
        let socket = dir.join("agent.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let uid = nix_uid(&socket);
        tokio::spawn(haneul_fleet::serve(fleet, listener, uid, std::future::pending()));
        let running = jobs.clone();
        tokio::spawn(async move { running.run().await });
        let mut lab = Lab {
            db,
            compute,
            router,
            socket,
            image: String::new(),
            network: String::new(),
            placement,
            twin: twin.routes().into_router(&server),
            hosts: Mutex::default(),
            dir,
        };
        lab.furnish().await;
        lab
    }

    /// An image, flavors and a network of the demo project.
    async fn furnish(&mut self) {
        let made = self
            .at(ADMIN, "2.1")
            .raw(
                self,
                Method::POST,
                "/image/v2/images",
                json!({"name": "tiny", "disk_format": "raw", "container_format": "bare", "visibility": "public"})
                    .to_string()
                    .into(),
                "application/json",
            )
            .await;
        assert_eq!(made.status, 201, "{}", made.body);
        self.image = made.body["id"].as_str().unwrap().to_owned();
        let put = self
            .at(ADMIN, "2.1")
            .raw(
                self,
                Method::PUT,
                &format!("/image/v2/images/{}/file", self.image),
                vec![7u8; 4096].into(),
                "application/octet-stream",
            )
            .await;
        assert_eq!(put.status, 204, "{}", put.body);
        for (id, vcpus, ram, disk) in [("1", 1, 512, 1), ("2", 2, 1024, 2), ("9", 64, 1 << 20, 4000)] {
            self.post(
                ADMIN,
                "2.1",
                "/v2.1/flavors",
                json!({"flavor": {"name": format!("f{id}"), "id": id, "vcpus": vcpus, "ram": ram, "disk": disk}}),
                200,
            )
            .await;
        }
        let net = self
            .at(DEMO, "2.1")
            .raw(
                self,
                Method::POST,
                "/network/v2.0/networks",
                json!({"network": {"name": "private"}}).to_string().into(),
                "application/json",
            )
            .await;
        if net.status == 201 {
            self.network = net.body["network"]["id"].as_str().unwrap().to_owned();
            let sub = self
                .at(DEMO, "2.1")
                .raw(
                    self,
                    Method::POST,
                    "/network/v2.0/subnets",
                    json!({"subnet": {"network_id": self.network, "cidr": "10.1.0.0/16", "ip_version": 4}})
                        .to_string()
                        .into(),
                    "application/json",
                )
                .await;
            assert_eq!(sub.status, 201, "{}", sub.body);
        }
    }

    pub fn at<'a>(&self, token: &'a str, version: &'a str) -> Call<'a> {
        Call { token, version }
    }

    pub async fn call(&self, token: &str, version: &str, method: Method, path: &str, body: Option<Value>) -> Answer {
        let bytes = body.map_or_else(Bytes::new, |b| b.to_string().into());
        self.at(token, version)
            .raw(self, method, &format!("/compute{path}"), bytes, "application/json")
            .await
    }

    pub async fn get(&self, token: &str, version: &str, path: &str) -> Value {
        let a = self.call(token, version, Method::GET, path, None).await;
        assert_eq!(a.status, 200, "GET {path}: {}", a.body);
        a.body
    }

    pub async fn post(&self, token: &str, version: &str, path: &str, body: Value, status: u16) -> Value {
        let a = self.call(token, version, Method::POST, path, Some(body)).await;
        assert_eq!(a.status, status, "POST {path}: {}", a.body);
        a.body
    }

    /// A plain create; answers the id.
    pub async fn create(&self, name: &str, flavor: &str) -> String {
        let body = json!({"server": {"name": name, "flavorRef": flavor, "imageRef": self.image, "networks": "none"}});
        let made = self.post(DEMO, "2.96", "/v2.1/servers", body, 202).await;
        made["server"]["id"].as_str().unwrap().to_owned()
    }

    pub async fn act(&self, id: &str, body: Value, status: u16) -> Value {
        self.post(DEMO, "2.96", &format!("/v2.1/servers/{id}/action"), body, status)
            .await
    }

    pub async fn server(&self, id: &str) -> Value {
        self.get(ADMIN, "2.96", &format!("/v2.1/servers/{id}")).await["server"].take()
    }

    /// Waits for a status.
    pub async fn wait(&self, id: &str, status: &str) -> Value {
        let start = Instant::now();
        loop {
            let s = self.server(id).await;
            if s["status"] == status && s["OS-EXT-STS:task_state"].is_null() {
                return s;
            }
            assert!(start.elapsed() < Duration::from_secs(60), "{status} expected: {s}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    pub async fn wait_gone(&self, id: &str) {
        let start = Instant::now();
        loop {
            let a = self
                .call(ADMIN, "2.96", Method::GET, &format!("/v2.1/servers/{id}"), None)
                .await;
            if a.status == 404 {
                return;
            }
            assert!(start.elapsed() < Duration::from_secs(60), "gone expected: {}", a.body);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// The audit finds nothing.
    pub async fn audit(&self) {
        let mut tx = self.db.read().await.unwrap();
        let found = self.compute.audit(&mut tx).await.unwrap();
        assert!(found.is_empty(), "{found:#?}");
    }

    /// Rows of tables that a refused request must not change.
    pub async fn rows(&self) -> Vec<i64> {
        let mut tx = self.db.read().await.unwrap();
        let mut out = Vec::new();
        for t in [
            "server",
            "flavor",
            "keypair",
            "server_group",
            "job",
            "fleet_desired",
            "placement_allocation",
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

impl Call<'_> {
    pub async fn raw(&self, lab: &Lab, method: Method, path: &str, body: Bytes, kind: &str) -> Answer {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("x-auth-token", self.token)
            .header("openstack-api-version", format!("compute {}", self.version))
            .header("content-type", kind)
            .body(Body::from(body))
            .unwrap();
        let reply = lab.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = reply.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        lab.heard().await;
        Answer {
            status: parts.status,
            headers: parts.headers,
            body: serde_json::from_slice(&bytes).unwrap_or(Value::Null),
        }
    }
}

/// An empty disk of this size.
pub fn qcow2(dir: &std::path::Path, size: u64) -> Vec<u8> {
    use haneul_image::format::{DiskFormat, convert};
    let (raw, file) = (dir.join("empty.raw"), dir.join("empty.qcow2"));
    std::fs::File::create(&raw).unwrap().set_len(size).unwrap();
    let mut source = std::fs::File::open(raw).unwrap();
    let out = std::fs::File::create(&file).unwrap();
    convert(&mut source, DiskFormat::Raw, out, DiskFormat::Qcow2, &mut |_| true).unwrap();
    std::fs::read(file).unwrap()
}

fn nix_uid(path: &std::path::Path) -> u32 {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(path).unwrap().uid()
}

/// Where hosts say that they listen for guests.
pub const LISTENS: MoveAddress = MoveAddress {
    address: std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST),
    memory_port: 1,
    disks_port: Some(2),
};

/// What the host does with a desired guest; `None`: nothing yet.
type Behave = Box<dyn Fn(&Guest) -> Option<(GuestState, Option<Failure>)> + Send + Sync>;

/// A host that does at once what is desired.
#[derive(Clone)]
pub struct FakeHost {
    inner: Arc<Inner>,
}

struct Inner {
    id: Uuid,
    greeting: Greeting,
    socket: PathBuf,
    behave: Mutex<Behave>,
    held: Mutex<HashMap<Uuid, Desired>>,
    /// Tombstones are left alone while this holds.
    stubborn: Mutex<bool>,
    /// It did not hear in time, and is not waited for any more.
    deaf: AtomicBool,
    /// The guest's tombstone that was left alone last.
    buried: Mutex<Option<Tombstone>>,
    /// How far the move of each guest is, where a test has said it.
    moves: Mutex<HashMap<Uuid, MoveState>>,
    /// How far the image of each guest is, and what is sent of it.
    image: Mutex<(Option<SnapshotState>, Vec<u8>)>,
}

fn obedient() -> Behave {
    Box::new(|g| {
        Some((
            match g.power {
                Power::Running => GuestState::Running,
                Power::Paused => GuestState::Paused,
                Power::Suspended => GuestState::Suspended,
                Power::Stopped => GuestState::Stopped,
            },
            None,
        ))
    })
}

impl FakeHost {
    pub async fn join(lab: &Lab, vcpus: u32, memory_mib: u64, disk_gib: u64) -> FakeHost {
        Self::join_as(lab, vcpus, memory_mib, disk_gib, |_| {}).await
    }

    /// A host with another hypervisor.
    pub async fn join_as(
        lab: &Lab,
        vcpus: u32,
        memory_mib: u64,
        disk_gib: u64,
        change: impl FnOnce(&mut HypervisorInfo),
    ) -> FakeHost {
        let bytes = qcow2(&lab.dir, 1 << 20);
        let id = Uuid::new_v4();
        let mut greeting = Greeting {
            protocol: haneul_agent_api::PROTOCOL,
            release: "0".into(),
            host_id: id,
            host_name: format!("secret-host-{}", &id.to_string()[..4]),
            boot_id: "b".into(),
            inventory: Inventory {
                vcpus,
                memory_mib,
                disk_gib,
            },
            hypervisor: HypervisorInfo {
                kind: "fake".into(),
                version: 1,
                accelerator: "fake".into(),
                arch: "x86_64".into(),
                cpu_model: "fake".into(),
                cpu_vendor: "fake".into(),
                cpu_features: vec![],
                sockets: 1,
                cores: 1,
                threads: 1,
                moves: true,
                shared_disks: None,
            },
            underlay: None,
        };
        change(&mut greeting.hypervisor);
        let inner = Arc::new(Inner {
            id,
            greeting,
            socket: lab.socket.clone(),
            behave: Mutex::new(obedient()),
            held: Mutex::default(),
            stubborn: Mutex::new(false),
            deaf: AtomicBool::new(false),
            moves: Mutex::default(),
            buried: Mutex::default(),
            image: Mutex::new((Some(SnapshotState::Ready(bytes.len() as u64)), bytes)),
        });
        let host = FakeHost { inner };
        host.greets(|_| {}).await;
        let me = host.clone();
        let (ready, listed) = tokio::sync::oneshot::channel();
        tokio::spawn(async move { me.watch(ready).await });
        listed.await.unwrap();
        lab.hosts.lock().unwrap().push(host.clone());
        host
    }

    pub fn id(&self) -> String {
        self.inner.id.to_string()
    }

    pub fn name(&self) -> &str {
        &self.inner.greeting.host_name
    }

    /// As its agent does when it starts, with what the host has by now.
    pub async fn greets(&self, change: impl FnOnce(&mut Inventory)) {
        let mut greeting = self.inner.greeting.clone();
        change(&mut greeting.inventory);
        self.send(Method::POST, path::GREET, serde_json::to_vec(&greeting).unwrap().into())
            .await;
    }

    /// From now on the host does this; what it holds already is done again.
    pub async fn behave(&self, f: impl Fn(&Guest) -> Option<(GuestState, Option<Failure>)> + Send + Sync + 'static) {
        *self.inner.behave.lock().unwrap() = Box::new(f);
        self.again().await;
    }

    pub async fn obey(&self) {
        *self.inner.behave.lock().unwrap() = obedient();
        *self.inner.stubborn.lock().unwrap() = false;
        self.again().await;
    }

    /// From now on the image of a guest is so far, and these bytes are sent of it.
    pub async fn image(&self, state: Option<SnapshotState>, bytes: Option<Vec<u8>>) {
        {
            let mut image = self.inner.image.lock().unwrap();
            image.0 = state;
            image.1 = bytes.unwrap_or_else(|| std::mem::take(&mut image.1));
        }
        self.again().await;
    }

    /// Bytes of the image that is sent.
    pub fn image_bytes(&self) -> Vec<u8> {
        self.inner.image.lock().unwrap().1.clone()
    }

    pub fn keep_tombstones(&self) {
        *self.inner.stubborn.lock().unwrap() = true;
    }

    /// A tombstone that it left alone is carried out now; answers whether disks go wherever they are.
    pub async fn buries(&self, id: &str) -> bool {
        let start = Instant::now();
        let tombstone = loop {
            if let Some(t) = self.inner.buried.lock().unwrap().take() {
                break t;
            }
            assert!(start.elapsed() < Duration::from_secs(60), "no tombstone came");
            tokio::time::sleep(Duration::from_millis(2)).await;
        };
        assert_eq!(tombstone.id.to_string(), id);
        self.inner.held.lock().unwrap().remove(&tombstone.id);
        let disks = tombstone.disks;
        let gone = vec![tombstone];
        self.report(Report { gone, ..self.blank() }).await;
        disks
    }

    async fn again(&self) {
        let held: Vec<Desired> = self.inner.held.lock().unwrap().values().cloned().collect();
        for d in held {
            self.observe(&d).await;
        }
    }

    async fn connect(&self) -> hyper::client::conn::http1::SendRequest<Full<Bytes>> {
        let io = TokioIo::new(UnixStream::connect(&self.inner.socket).await.unwrap());
        let (send, conn) = hyper::client::conn::http1::handshake(io).await.unwrap();
        tokio::spawn(conn);
        send
    }

    async fn send(&self, method: Method, path: &str, body: Bytes) -> Bytes {
        let mut c = self.connect().await;
        let r = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "control")
            .body(Full::new(body))
            .unwrap();
        let reply = c.send_request(r).await.unwrap();
        let status = reply.status();
        let bytes = reply.into_body().collect().await.unwrap().to_bytes();
        assert!(status.is_success(), "{path}: {}", String::from_utf8_lossy(&bytes));
        bytes
    }

    async fn watch(&self, ready: tokio::sync::oneshot::Sender<()>) {
        let mut ready = Some(ready);
        let mut c = self.connect().await;
        let r = Request::builder()
            .uri(format!("{}?host={}", path::WATCH, self.inner.id))
            .header("host", "control")
            .body(Full::new(Bytes::new()))
            .unwrap();
        let mut body = c.send_request(r).await.unwrap().into_body();
        let mut rest = Vec::new();
        while let Some(Ok(frame)) = body.frame().await {
            let Ok(data) = frame.into_data() else { continue };
            rest.extend_from_slice(&data);
            while let Some(end) = rest.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = rest.drain(..=end).collect();
                match serde_json::from_slice::<ToAgent>(&line).unwrap() {
                    ToAgent::Put(d) => {
                        if matches!(d.object, Object::Guest(_)) {
                            self.inner.held.lock().unwrap().insert(d.object.id(), (*d).clone());
                            self.observe(&d).await;
                        }
                    }
                    ToAgent::Remove(t) => {
                        if *self.inner.stubborn.lock().unwrap() {
                            if t.kind == Kind::Guest {
                                *self.inner.buried.lock().unwrap() = Some(t);
                            }
                        } else {
                            self.inner.held.lock().unwrap().remove(&t.id);
                            self.report(Report {
                                gone: vec![t],
                                ..self.blank()
                            })
                            .await;
                        }
                    }
                    ToAgent::Bookmark { .. } => {
                        if let Some(r) = ready.take() {
                            let _ = r.send(());
                        }
                    }
                    ToAgent::Ask { stream, what } => {
                        if let Ask::Snapshot { .. } = what {
                            let (me, bytes) = (self.clone(), self.image_bytes());
                            let path = format!("{}{stream}", path::TUNNEL);
                            tokio::spawn(async move { me.send(Method::POST, &path, bytes.into()).await });
                            continue;
                        }
                        let text = match what {
                            Ask::ConsoleLog { lines, .. } => format!(
                                "boot\nline two\n{}",
                                lines.map_or(String::new(), |n| format!("last {n}\n"))
                            ),
                            Ask::Audit => "{}".into(),
                            Ask::Vnc { .. } | Ask::Snapshot { .. } => "no screen here".into(),
                        };
                        self.send(Method::POST, &format!("{}{stream}", path::STREAM), text.into())
                            .await;
                    }
                    ToAgent::Ping => {}
                }
            }
        }
    }

    pub fn blank(&self) -> Report {
        Report {
            host_id: self.inner.id,
            ..Report::default()
        }
    }

    pub async fn report(&self, r: Report) {
        self.send(Method::POST, path::REPORT, serde_json::to_vec(&r).unwrap().into())
            .await;
    }

    async fn observe(&self, d: &Desired) {
        let Object::Guest(g) = &d.object else { return };
        let Some((state, failure)) = (self.inner.behave.lock().unwrap())(g) else {
            return;
        };
        self.say(d, state, failure).await;
    }

    async fn say(&self, d: &Desired, state: GuestState, failure: Option<Failure>) {
        let Object::Guest(g) = &d.object else { return };
        let seen = ObservedGuest {
            id: g.id,
            epoch: d.epoch,
            generation: d.generation,
            settled: true,
            state,
            failure,
            soft_reboots: g.soft_reboots,
            hard_reboots: g.hard_reboots,
            rebuilds: g.rebuilds,
            progress: None,
            unknown: false,
            started_at: Some(1),
            vcpus: g.vcpus,
            memory_mib: g.memory_mib,
            disk_gib: g.root.size_gib,
            snapshot: g.snapshot.and_then(|id| {
                let state = self.inner.image.lock().unwrap().0.clone()?;
                Some(ObservedSnapshot { id, state })
            }),
            layout: Some(Box::new(Layout {
                machine: "fake".into(),
                cpu: "fake".into(),
                accelerator: "fake".into(),
                devices: vec![],
            })),
            moving: self.moving(g).map(Box::new),
        };
        self.report(Report {
            guests: vec![seen],
            ..self.blank()
        })
        .await;
    }

    /// What it says of a guest's move: on the target that it listens, and on the source that it sends, until a test says
    /// something else.
    fn moving(&self, g: &Guest) -> Option<ObservedMove> {
        let (id, state) = match (&g.arriving, &g.leaving) {
            (Some(a), _) => (a.id, MoveState::Listening(LISTENS)),
            (_, Some(l)) => (l.id, MoveState::Moving(MoveProgress::default())),
            _ => return None,
        };
        let said = self.inner.moves.lock().unwrap().get(&g.id).cloned();
        Some(ObservedMove {
            id,
            state: said.unwrap_or(state),
        })
    }

    /// From now on a guest's move is so far here; `None`: as if nobody had said anything.
    pub async fn moves(&self, id: &str, state: Option<MoveState>) {
        let id = Uuid::try_parse(id).unwrap();
        {
            let mut all = self.inner.moves.lock().unwrap();
            match state {
                Some(state) => all.insert(id, state),
                None => all.remove(&id),
            };
        }
        self.again().await;
    }

    /// The guest did something by itself.
    pub async fn event(&self, id: &str, state: GuestState) {
        let d = self.held(id).unwrap();
        self.say(&d, state, None).await;
    }
}
