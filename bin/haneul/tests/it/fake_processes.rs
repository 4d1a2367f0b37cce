//! Several processes of the control plane on one PostgreSQL: any of them answers, and any of them may go.

use crate::consoles;
use crate::rfb::{Screen, Socket, websocket};
use crate::setup::{Ready, id, options};
use haneul_testkit::postgres::{self, Postgres};
use haneul_testkit::{Client, Cloud, Member, Options, Second, eventually};
use http::Method;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A cloud of two processes, and the machine that each host is. Dropped in this order.
pub struct Two {
    pub hosts: Vec<Member>,
    pub second: Second,
    pub r: Ready,
    pg: Postgres,
}

/// None where there is no PostgreSQL.
pub async fn two(hosts: &[&str]) -> Option<Two> {
    if !postgres::installed() {
        println!("SKIPPED: PostgreSQL is not installed");
        return None;
    }
    let pg = Postgres::start().unwrap();
    let mut options = Options {
        database: Some(pg.create_database("cloud").unwrap()),
        ..options()
    };
    options.sets.push(Cloud::fleet_listen());
    for quota in ["instances", "cores", "ram_mib"] {
        options.sets.push(format!("compute.quota_{quota}=-1"));
    }
    let mut cloud = Cloud::prepare(options);
    cloud.start_serve();
    answers(&cloud).await;
    let mut second = Second::prepare(&cloud);
    second.start(&cloud).await;
    let mut joined = Vec::new();
    for name in hosts {
        joined.push(Member::join(&cloud, name, None, &[]).await);
    }
    let r = Ready::on(cloud).await;
    Some(Two {
        hosts: joined,
        second,
        r,
        pg,
    })
}

pub async fn answers(cloud: &Cloud) {
    let what = format!("the first process answers\n{}", cloud.tail());
    eventually(&what, Duration::from_secs(30), || async {
        cloud.admin(Method::GET, "/admin/v1/status").await.map(|_| ())
    })
    .await;
}

/// Waits until a process finds nothing to say of the cloud.
pub async fn audited(second: &Second) {
    let what = format!("an empty audit by the second process\n{}", second.tail());
    eventually(&what, Duration::from_secs(60), || async {
        let found = second.admin(Method::GET, "/admin/v1/audit").await?;
        found["findings"].as_array()?.is_empty().then_some(())
    })
    .await;
}

pub async fn wait(c: &Client, server: &str, status: &str) -> Value {
    let what = format!("server {server} is {status}");
    eventually(&what, Duration::from_secs(60), || async {
        let a = c
            .try_send(Method::GET, &format!("/compute/v2.1/servers/{server}"), &[], vec![])
            .await?;
        let now = a.body["server"]["status"].as_str().unwrap_or_default().to_owned();
        assert!(now == status || now != "ERROR", "{}", a.body);
        (now == status).then(|| a.body["server"].clone())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn fake_processes_any_of_two_answers() {
    let Some(mut t) = two(&["one"]).await else { return };
    let (first, second) = (&t.r.admin.clone(), &t.second.client(&t.r.admin));
    // The host's stream is to the first; what the second writes reaches it, and what it says the second.
    let made = second
        .post("/compute/v2.1/servers", &t.r.server("by-second", "tiny"))
        .await
        .expect(202);
    let server = id(&made, "/server/id");
    wait(second, &server, "ACTIVE").await;
    wait(first, &server, "ACTIVE").await;
    // Bytes of a host come through the process that it is connected to.
    let log = json!({"os-getConsoleOutput": {"length": 3}});
    let act = format!("/compute/v2.1/servers/{server}/action");
    let texts = [
        first.post(&act, &log).await.expect(200),
        second.post(&act, &log).await.expect(200),
    ];
    assert_eq!(texts[0], texts[1]);
    assert!(
        texts[0]["output"].as_str().is_some_and(|o| !o.is_empty()),
        "{}",
        texts[0]
    );
    // A screen too, both ways.
    let url = consoles::url(second, &server).await;
    assert!(url.starts_with(&format!("http://{}/", t.r.cloud.address)), "{url}");
    let socket = Socket::open(&t.second.address, &websocket(&url), None).expect("a screen");
    let mut screen = Screen::open(socket);
    let before = screen.picture();
    screen.key(0x61);
    assert_ne!(screen.picture(), before, "the key was seen");
    drop(screen);
    // And an image of it, which the second asks for.
    let made = second.post(&act, &json!({"createImage": {"name": "made"}})).await;
    assert_eq!(made.status, 202, "{}", made.text);
    eventually("the image is active", Duration::from_secs(30), || async {
        let images = first.get("/image/v2/images?name=made").await;
        (images.body["images"][0]["status"] == "active").then_some(())
    })
    .await;
    // An image that came in by one is there for the other.
    let bytes = first.get(&format!("/image/v2/images/{}/file", t.r.image)).await.bytes;
    assert_eq!(
        bytes,
        second.get(&format!("/image/v2/images/{}/file", t.r.image)).await.bytes
    );

    // Bytes that come in by one are no left-over to another that starts meanwhile.
    let new = json!({"name": "slow", "disk_format": "raw", "container_format": "bare"});
    let slow = id(&first.post("/image/v2/images", &new).await.expect(201), "/id");
    let mut upload = Upload::begin(&t.r.cloud.address, first, &slow, 1 << 20);
    eventually("the upload has begun", Duration::from_secs(30), || async {
        let image = first.get(&format!("/image/v2/images/{slow}")).await;
        (image.body["status"] == "saving").then_some(())
    })
    .await;
    t.second.kill();
    t.second.start(&t.r.cloud).await;
    assert_eq!(upload.end(), 204);
    let image = second.get(&format!("/image/v2/images/{slow}")).await.expect(200);
    assert_eq!((&image["status"], &image["size"]), (&json!("active"), &json!(1 << 20)));

    // A token is good everywhere, and where it is revoked it is good nowhere, from that answer on.
    for (a, b) in [(first, second), (second, first)] {
        for _ in 0..20 {
            let own =
                t.r.cloud
                    .anonymous()
                    .login("admin", &t.r.cloud.password(), "admin")
                    .await;
            let token = own.token.clone().unwrap();
            let at = |c: &Client| Client {
                token: Some(token.clone()),
                ..c.clone()
            };
            assert_eq!(at(b).get("/identity/v3/projects").await.status, 200);
            let gone = a
                .send(
                    Method::DELETE,
                    "/identity/v3/auth/tokens",
                    &[("x-subject-token", &token)],
                    vec![],
                )
                .await;
            assert_eq!(gone.status, 204, "{}", gone.text);
            assert_eq!(at(b).get("/identity/v3/projects").await.status, 401);
        }
    }
    t.r.cloud.audit().await;
    audited(&t.second).await;

    // Who would answer otherwise is refused: SQLite aside, keys and images must be the same.
    let mut other = t.second.command(&t.r.cloud);
    let own = t.second.dir.join("own");
    other.args(["--set", &format!("control_dir={}", own.display())]);
    other.args(["--set", &format!("state_dir={}", t.second.dir.join("third").display())]);
    other.args([
        "--set",
        "api.listen=127.0.0.1:0",
        "--set",
        "api.metrics_listen=127.0.0.1:0",
    ]);
    other.args(["--set", "fleet.listen=127.0.0.1:0"]);
    let refused = other.arg("serve").output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned() + &String::from_utf8_lossy(&refused.stdout);
    assert!(!refused.status.success() && said.contains("control_dir"), "{said}");
}

/// Bytes of an image on a connection that is in no hurry.
struct Upload {
    connection: TcpStream,
    left: usize,
}

impl Upload {
    fn begin(address: &str, client: &Client, image: &str, size: usize) -> Upload {
        let mut connection = TcpStream::connect(address).unwrap();
        let token = client.token.as_deref().unwrap();
        let head = format!(
            "PUT /image/v2/images/{image}/file HTTP/1.1\r\nhost: h\r\nx-auth-token: {token}\r\n\
             content-type: application/octet-stream\r\ncontent-length: {size}\r\nconnection: close\r\n\r\n"
        );
        connection.write_all(head.as_bytes()).unwrap();
        connection.write_all(&vec![0x42; size / 2]).unwrap();
        Upload {
            connection,
            left: size - size / 2,
        }
    }

    /// Sends the rest; answers the status.
    fn end(&mut self) -> u16 {
        self.connection.write_all(&vec![0x42; self.left]).unwrap();
        let mut answer = String::new();
        self.connection.read_to_string(&mut answer).unwrap();
        answer
            .split(' ')
            .nth(1)
            .and_then(|s| s.parse().ok())
            .unwrap_or_else(|| panic!("{answer}"))
    }
}

/// What clients of the load were told.
#[derive(Default)]
pub struct Told {
    /// Servers whose create was acknowledged, and whether their delete was.
    servers: BTreeMap<String, bool>,
    /// Answers that were neither success nor a clear "not now".
    wrong: Vec<String>,
    /// Requests that were answered well.
    done: usize,
}

/// Creates and deletes servers by one process, as long as it is told to. Nobody answers: tries again.
async fn load(c: Client, body: Value, told: Arc<Mutex<Told>>, stop: Arc<AtomicBool>) {
    let mut mine: Vec<String> = Vec::new();
    let json_type = [("content-type", "application/json")];
    for n in 0.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let (method, path, sent) = match n % 3 {
            2 if !mine.is_empty() => (Method::DELETE, format!("/compute/v2.1/servers/{}", mine[0]), vec![]),
            1 => (Method::GET, "/compute/v2.1/servers/detail?limit=5".into(), vec![]),
            _ => (
                Method::POST,
                "/compute/v2.1/servers".into(),
                body.to_string().into_bytes(),
            ),
        };
        let Some(a) = c.try_send(method.clone(), &path, &json_type, sent).await else {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        let mut told = told.lock().unwrap();
        match (&method, a.status) {
            (&Method::POST, 202) => {
                let server = id(&a.body, "/server/id");
                told.servers.insert(server.clone(), false);
                mine.push(server);
            }
            (&Method::DELETE, 204) => {
                told.servers.insert(mine.remove(0), true);
            }
            // Its first answer was lost.
            (&Method::DELETE, 404) => {
                told.servers.insert(mine.remove(0), true);
            }
            (&Method::GET, 200) => {}
            (_, 503) => continue,
            (m, s) => told.wrong.push(format!("{m} {path}: {s} {}", a.text)),
        }
        told.done += 1;
    }
}

/// The process that says its status.
pub fn own(status: &Value) -> Value {
    let all = status["processes"].as_array().unwrap();
    all.iter().find(|p| p["answers"] == true).unwrap()["id"].clone()
}

impl Two {
    /// Waits until a host has its stream to one of these processes.
    pub async fn is_connected(&self, host: &Member, to: &[Value]) {
        let what = format!("host {} is connected to {to:?}", host.name);
        eventually(&what, Duration::from_secs(60), || async {
            let path = format!("/admin/v1/hosts/{}", host.name);
            let v = self.r.cloud.admin(Method::GET, &path).await?;
            let h = &v["host"];
            (h["state"] == "up" && to.contains(&h["process"])).then_some(())
        })
        .await;
    }

    /// Clients that create, look and delete until they are told to stop.
    pub fn begin(&self, clients: &[&Client]) -> (Arc<Mutex<Told>>, Arc<AtomicBool>, Vec<tokio::task::JoinHandle<()>>) {
        let (told, stop) = (Arc::<Mutex<Told>>::default(), Arc::<AtomicBool>::default());
        let tasks = clients
            .iter()
            .map(|c| {
                let body = self.r.server("load", "tiny");
                tokio::spawn(load((*c).clone(), body, told.clone(), stop.clone()))
            })
            .collect();
        (told, stop, tasks)
    }

    /// What was acknowledged is so, by any process, and nothing else is there.
    pub async fn settled(&self, c: &Client, told: &Mutex<Told>) {
        let (servers, wrong) = {
            let told = told.lock().unwrap();
            (told.servers.clone(), told.wrong.clone())
        };
        assert!(wrong.is_empty(), "{wrong:#?}");
        for (server, deleted) in &servers {
            if *deleted {
                let what = format!("{server} is gone");
                eventually(&what, Duration::from_secs(60), || async {
                    let a = c
                        .try_send(Method::GET, &format!("/compute/v2.1/servers/{server}"), &[], vec![])
                        .await?;
                    (a.status == 404).then_some(())
                })
                .await;
            } else {
                wait(c, server, "ACTIVE").await;
            }
        }
    }
}

/// Tells the clients of [`Two::begin`] to stop, and waits until they have.
pub async fn ended(stop: &AtomicBool, tasks: Vec<tokio::task::JoinHandle<()>>) {
    stop.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await.unwrap();
    }
}

pub async fn reach(told: &Mutex<Told>, n: usize) {
    let goal = told.lock().unwrap().done + n;
    let what = format!("{n} more requests are answered");
    eventually(&what, Duration::from_secs(60), || async {
        (told.lock().unwrap().done >= goal).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fake_processes_one_of_two_is_killed_under_load() {
    let Some(mut t) = two(&["one", "two"]).await else {
        return;
    };
    let (first, second) = (t.r.admin.clone(), t.second.client(&t.r.admin));
    let (told, stop, tasks) = t.begin(&[&first, &first, &second, &second]);
    for round in 0..4 {
        reach(&told, 60).await;
        // Half of the time the one that the hosts are connected to.
        if round % 2 == 0 {
            t.r.cloud.kill_serve();
            reach(&told, 60).await;
            t.r.cloud.start_serve();
            answers(&t.r.cloud).await;
        } else {
            t.second.kill();
            reach(&told, 60).await;
            t.second.start(&t.r.cloud).await;
        }
    }
    reach(&told, 60).await;
    ended(&stop, tasks).await;
    // And for good: what one leaves under way the other ends.
    t.r.cloud.kill_serve();
    t.settled(&second, &told).await;
    audited(&t.second).await;
    let hosts = second.get("/compute/v2.1/os-hypervisors/detail").await.expect(200);
    for host in hosts["hypervisors"].as_array().unwrap() {
        assert_eq!(host["state"], "up", "{host}");
    }
    // A host that is lost together with the process that it is connected to is missed by the other one.
    t.r.cloud.start_serve();
    answers(&t.r.cloud).await;
    t.second.kill();
    let status = t.r.cloud.admin(Method::GET, "/admin/v1/status").await.unwrap();
    for host in &t.hosts {
        t.is_connected(host, &[own(&status)]).await;
    }
    t.second.start(&t.r.cloud).await;
    // The process first: it shall not be there to see the host's stream end. The agent is dead before it dials again.
    t.r.cloud.kill_serve();
    t.hosts.pop().unwrap().kill_agent();
    eventually("host two is down", Duration::from_secs(30), || async {
        let hosts = second.get("/compute/v2.1/os-hypervisors/detail").await;
        let all = hosts.body["hypervisors"].as_array()?.clone();
        all.iter().any(|h| h["state"] == "down").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fake_processes_outlast_a_restart_of_postgresql_under_load() {
    let Some(mut t) = two(&["one", "two"]).await else {
        return;
    };
    let (first, second) = (t.r.admin.clone(), t.second.client(&t.r.admin));
    let (told, stop, tasks) = t.begin(&[&first, &first, &second, &second]);
    for _ in 0..3 {
        reach(&told, 60).await;
        t.pg.kill();
        t.pg.restart().unwrap();
    }
    reach(&told, 60).await;
    ended(&stop, tasks).await;
    t.settled(&first, &told).await;
    t.r.cloud.audit().await;
    audited(&t.second).await;
}
