//! Power cuts. The whole state of a cloud lies on a disk that forgets what was not made durable; in the midst of work
//! the power goes, and what the cloud had said until then has to be true afterwards: servers, images, tokens and the
//! password are there, what was deleted stays deleted, and the host runs its guests before control is back.

use crate::real_crash::qemus;
use crate::real_lab::cannot as cannot_run_guests;
use crate::setup::{IMAGE, Ready, id, options};
use haneul_core::id::{below, random_bytes};
use haneul_store::{Db, OpenOptions};
use haneul_testkit::{Answer, Client, Cloud, Disk, Options, eventually};
use http::Method;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// How long after the restart everything must be settled.
const SETTLED: Duration = Duration::from_secs(30);
const CLIENTS: usize = 4;
/// Servers and images that stay over several cuts.
const KEPT: usize = 4;

/// How many times the power is cut: a few in CI, and `HANEUL_TEST_POWER_CUTS` by hand.
fn rounds(few: usize) -> usize {
    let wanted = std::env::var("HANEUL_TEST_POWER_CUTS").ok();
    wanted.map_or(few, |n| n.parse().expect("HANEUL_TEST_POWER_CUTS is a number"))
}

fn random(limit: usize) -> usize {
    below(limit as u64) as usize
}

/// What its client does with a server when it is ACTIVE.
#[derive(Clone, Copy, Debug)]
enum Plan {
    Keep,
    Stop,
    Delete,
}

/// How far a server has come, as its client knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Asked,
    /// The create was answered by 202.
    Accepted,
    /// GET said ACTIVE.
    Active,
    EndAsked,
    /// The stop was answered by 202, or the delete by 204.
    EndAccepted,
    /// GET said SHUTOFF, or 404.
    Ended,
}

#[derive(Clone, Debug)]
struct Life {
    name: String,
    plan: Plan,
    id: String,
    step: Step,
}

impl Life {
    /// The end of the plan; `None` is a server that is not there.
    fn end(&self) -> Option<&'static str> {
        match self.plan {
            Plan::Keep => Some("ACTIVE"),
            Plan::Stop => Some("SHUTOFF"),
            Plan::Delete => None,
        }
    }

    /// What may be found when this much was acknowledged before the cut, and `asked` was the last that was asked for.
    fn allows(&self, asked: Step, found: Option<&str>) -> bool {
        let active = found == Some("ACTIVE");
        match self.step {
            Step::Asked => active || found.is_none() || found == self.end(),
            Step::EndAccepted | Step::Ended => found == self.end(),
            _ => active || (asked >= Step::EndAsked && found == self.end()),
        }
    }
}

/// What the clients know. A step is noted when its answer is there, and a question before it is sent.
struct Ledger {
    lives: Mutex<Vec<Life>>,
    steps: watch::Sender<usize>,
}

impl Ledger {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            lives: Mutex::default(),
            steps: watch::Sender::new(0),
        })
    }

    fn lives(&self) -> Vec<Life> {
        self.lives.lock().unwrap().clone()
    }

    fn begin(&self, name: String, plan: Plan) -> usize {
        let mut lives = self.lives.lock().unwrap();
        let (id, step) = (String::new(), Step::Asked);
        lives.push(Life { name, plan, id, step });
        lives.len() - 1
    }

    fn note(&self, life: usize, step: Step) {
        self.lives.lock().unwrap()[life].step = step;
        self.steps.send_modify(|n| *n += 1);
    }

    /// Waits until so many steps are noted.
    async fn reach(&self, steps: usize) {
        let mut seen = self.steps.subscribe();
        let reached = tokio::time::timeout(Duration::from_secs(30), seen.wait_for(|n| *n >= steps)).await;
        assert!(reached.is_ok(), "only {} steps", *self.steps.borrow());
    }
}

const SERVERS: &str = "/compute/v2.1/servers";

/// The answer, while there is a cloud: without one, and when it says that its disk fails, the client ends.
async fn ask(admin: &Client, method: Method, path: &str, body: Value) -> Option<Answer> {
    let bytes = if body.is_null() {
        vec![]
    } else {
        body.to_string().into_bytes()
    };
    let a = admin.try_send(method, path, &[("content-type", "application/json")], bytes);
    a.await.filter(|a| a.status < 500)
}

/// Waits for a status (`None`: not there); nothing when the cloud is gone.
async fn see(admin: &Client, path: &str, status: Option<&str>) -> Option<()> {
    eventually(&format!("{path} is {status:?}"), Duration::from_secs(30), || async {
        let Some(a) = ask(admin, Method::GET, path, Value::Null).await else {
            return Some(None);
        };
        let now = a.body.pointer("/server/status").and_then(Value::as_str);
        assert!(now != Some("ERROR"), "{}", a.text);
        (now == status).then_some(Some(()))
    })
    .await
}

/// The life of one server, as far as it comes.
async fn live(admin: &Client, ledger: &Ledger, life: usize, body: Value, plan: Plan) -> Option<()> {
    let a = ask(admin, Method::POST, SERVERS, body).await?;
    assert_eq!(a.status, 202, "{}", a.text);
    let path = format!("{SERVERS}/{}", id(&a.body, "/server/id"));
    ledger.lives.lock().unwrap()[life].id = id(&a.body, "/server/id");
    ledger.note(life, Step::Accepted);
    see(admin, &path, Some("ACTIVE")).await?;
    ledger.note(life, Step::Active);
    let (method, to, body, status) = match plan {
        Plan::Keep => return Some(()),
        Plan::Stop => (Method::POST, format!("{path}/action"), json!({"os-stop": null}), 202),
        Plan::Delete => (Method::DELETE, path.clone(), Value::Null, 204),
    };
    ledger.note(life, Step::EndAsked);
    let a = ask(admin, method, &to, body).await?;
    assert_eq!(a.status, status, "{}", a.text);
    ledger.note(life, Step::EndAccepted);
    let end = ledger.lives.lock().unwrap()[life].end();
    see(admin, &path, end).await?;
    ledger.note(life, Step::Ended);
    Some(())
}

/// One client: a server after the other, until the cloud is gone.
async fn client(admin: Client, ledger: Arc<Ledger>, mut body: Value, who: String) {
    for (n, plan) in [Plan::Keep, Plan::Stop, Plan::Delete].into_iter().cycle().enumerate() {
        let name = format!("{who}-{n}");
        body["server"]["name"] = json!(name);
        let life = ledger.begin(name, plan);
        if live(&admin, &ledger, life, body.clone(), plan).await.is_none() {
            return;
        }
    }
}

struct Lab {
    r: Ready,
    /// Behind the cloud, which has to end before it.
    disk: Disk,
    /// Servers and images of earlier rounds.
    kept: Vec<Life>,
    images: Vec<(String, Vec<u8>)>,
    acknowledged: usize,
}

impl Lab {
    async fn new(mib: u64, real: bool, mut sets: Vec<String>) -> Lab {
        let disk = Disk::new(mib);
        sets.extend(
            [
                "image.reserve_bytes=1048576",
                "compute.quota_instances=-1",
                "compute.quota_cores=-1",
            ]
            .map(String::from),
        );
        let cloud = Cloud::start(Options {
            state_dir: Some(disk.path()),
            real,
            sets,
            ..options()
        })
        .await;
        Lab {
            r: Ready::on(cloud).await,
            disk,
            kept: vec![],
            images: vec![],
            acknowledged: 0,
        }
    }

    /// Writes until the database's log is full and begins at its start again. From then on a commit overwrites, and
    /// no longer makes durable by the way what else has changed in the file system.
    async fn fill_the_log(&self) {
        let log = self.r.cloud.dir.join("control/haneul.db-wal");
        let admin = self.r.admin.at("compute 2.55");
        let (mut length, mut same) = (0, 0);
        for n in 0..1000 {
            let text = "x".repeat(60_000);
            let name = format!("filler-{n}");
            let body = json!({"flavor": {"name": name, "vcpus": 1, "ram": 1, "disk": 1, "description": text}});
            admin.post("/compute/v2.1/flavors", &body).await.expect(200);
            let now = std::fs::metadata(&log).unwrap().len();
            same = if now == length { same + 1 } else { 0 };
            length = now;
            if same == 5 {
                return;
            }
        }
        panic!("the database's log grows without an end: {length} bytes");
    }

    /// Uploads an image of random bytes; it is acknowledged when this returns.
    async fn upload(&mut self) {
        let bytes = random_bytes(300_000 + random(200_000));
        let body = json!({"name": "cut", "disk_format": "raw", "container_format": "bare"});
        let image = id(&self.r.admin.post("/image/v2/images", &body).await.expect(201), "/id");
        let octets = [("content-type", "application/octet-stream")];
        let path = format!("/image/v2/images/{image}/file");
        self.images.push((image, bytes.clone()));
        let a = self.r.admin.send(Method::PUT, &path, &octets, bytes).await;
        assert_eq!(a.status, 204, "{}", a.text);
    }

    /// Cuts the power of disk and processes. Nothing is said yes to in between.
    async fn cut(&mut self) {
        self.disk.cut();
        let late = ask(&self.r.admin, Method::POST, SERVERS, self.r.server("late", "tiny")).await;
        assert!(late.is_none(), "said without a disk: {late:?}");
        self.r.cloud.kill_serve();
        self.r.cloud.kill_agent();
    }

    fn record(&self, server: &str) -> Value {
        let file = self.r.cloud.dir.join("agent/guests").join(format!("{server}.json"));
        std::fs::read(file).map_or(Value::Null, |b| serde_json::from_slice(&b).unwrap_or(Value::Null))
    }

    /// The agent alone, without control: it runs what it was seen to run, and not what was seen to have ended.
    async fn agent_alone(&mut self, lives: &[(Life, Step)]) {
        // What the fakes hold stands for processes, and these are dead; the fakes never flush it either.
        for dir in ["agent/guests", "agent/block"] {
            std::fs::remove_dir_all(self.r.cloud.dir.join(dir)).unwrap();
        }
        self.r.cloud.start_agent();
        for (life, asked) in lives {
            if life.step >= Step::Active && *asked < Step::EndAsked {
                let what = format!("the agent runs {} again, which was ACTIVE: {life:?}", life.id);
                eventually(&what, SETTLED, || async {
                    (self.record(&life.id)["state"] == "running").then_some(())
                })
                .await;
            }
        }
        for (life, _) in lives.iter().filter(|(l, _)| l.step == Step::Ended) {
            assert!(self.record(&life.id)["state"] != "running", "runs again: {life:?}");
        }
    }

    /// All servers by name, when nothing is being done to any of them.
    async fn settled(&self) -> BTreeMap<String, (String, String)> {
        let start = Instant::now();
        loop {
            let list = self.r.admin.get("/compute/v2.1/servers/detail").await.expect(200);
            let jobs = self.r.cloud.admin(Method::GET, "/admin/v1/jobs").await.expect("jobs");
            let servers = list["servers"].as_array().unwrap();
            let busy = servers.iter().any(|s| !s["OS-EXT-STS:task_state"].is_null());
            let running = jobs["jobs"]
                .as_array()
                .unwrap()
                .iter()
                .any(|j| j["status"] == "running");
            if !busy && !running {
                let by_name = |s| (id(s, "/name"), (id(s, "/id"), id(s, "/status")));
                return servers.iter().map(by_name).collect();
            }
            let late = start.elapsed() > SETTLED;
            assert!(
                !late,
                "not settled after {SETTLED:?}: {list}\n{jobs}\n{}",
                self.r.cloud.tail()
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Everything that was acknowledged is so.
    async fn check(&self, lives: &[(Life, Step)]) {
        let mut found = self.settled().await;
        for (life, asked) in lives {
            let now = found.remove(&life.name);
            let (found_id, status) = now.clone().unzip();
            assert!(
                life.allows(*asked, status.as_deref()),
                "acknowledged: {life:?} (asked for: {asked:?}); found: {now:?}\n{}",
                self.r.cloud.tail()
            );
            assert!(
                life.id.is_empty() || found_id.is_none_or(|f| f == life.id),
                "{life:?} {now:?}"
            );
        }
        assert!(found.is_empty(), "nobody asked for these: {found:?}");
        for (image, bytes) in &self.images {
            let shown = self.r.admin.get(&format!("/image/v2/images/{image}")).await.expect(200);
            assert_eq!(shown["status"], "active", "{shown}");
            let path = format!("/image/v2/images/{image}/file");
            let got = ask(&self.r.admin, Method::GET, &path, Value::Null).await;
            assert!(
                got.is_some_and(|a| a.status == 200 && a.bytes == *bytes),
                "image {image} is active, and has not the bytes that were uploaded\n{}",
                self.r.cloud.tail()
            );
        }
        self.r.cloud.audit().await;
        let url = format!("sqlite:{}", self.r.cloud.dir.join("control/haneul.db").display());
        let db = Db::open(&OpenOptions { url, readers: 1 }, &[]).await.unwrap();
        let row = db
            .read()
            .await
            .unwrap()
            .row("PRAGMA integrity_check", &[])
            .await
            .unwrap();
        assert_eq!(row.expect("a row").str(0).unwrap(), "ok");
    }

    /// A new agent under the control plane that runs.
    async fn new_agent(&mut self) {
        self.r.cloud.kill_agent();
        eventually("the host is down", SETTLED, || async {
            let s = self.r.cloud.admin(Method::GET, "/admin/v1/status").await?;
            (s["ready"] == false).then_some(())
        })
        .await;
        self.r.cloud.start_agent();
        self.r.cloud.ready().await;
    }

    async fn round(&mut self, n: usize) {
        // The cut comes the moment an image is acknowledged, or the moment some server is. Every third time there is no
        // upload at all, whose flushes make durable what others have forgotten to, and the agent has just begun a new
        // journal.
        let (upload, more) = (n % 3 != 2, !n.is_multiple_of(3));
        if !upload {
            self.new_agent().await;
        }
        let ledger = Ledger::new();
        let clients: Vec<_> = (0..CLIENTS)
            .map(|c| {
                let (admin, body) = (self.r.admin.clone(), self.r.server("", "tiny"));
                tokio::spawn(client(admin, ledger.clone(), body, format!("cut{n}-client{c}")))
            })
            .collect();
        ledger.reach(random(8 * CLIENTS)).await;
        if upload {
            self.upload().await;
        }
        if more {
            let now = *ledger.steps.borrow();
            ledger.reach(now + 1 + random(4 * CLIENTS)).await;
        }
        let sure = ledger.lives();
        self.cut().await;
        for c in clients {
            c.await.expect("a client that saw nothing wrong");
        }
        // A life that begins after the cut is one that nothing was acknowledged of.
        let asked = ledger.lives();
        let mut lives: Vec<(Life, Step)> = asked
            .into_iter()
            .enumerate()
            .map(|(i, last)| {
                let unsure = Life {
                    step: Step::Asked,
                    id: String::new(),
                    ..last.clone()
                };
                (sure.get(i).cloned().unwrap_or(unsure), last.step)
            })
            .collect();
        self.acknowledged += lives.iter().filter(|(l, _)| l.step > Step::Asked).count();
        lives.extend(self.kept.iter().map(|l| (l.clone(), l.step)));

        self.disk.restart().await;
        self.agent_alone(&lives).await;
        self.r.cloud.start_serve();
        self.r.cloud.ready().await;
        self.check(&lives).await;

        let stays = |l: &&(Life, Step)| l.0.step == Step::Active && l.1 == Step::Active;
        self.kept = lives
            .iter()
            .rev()
            .filter(stays)
            .take(KEPT)
            .map(|(l, _)| l.clone())
            .collect();
        for (name, (server, _)) in self.settled().await {
            if !self.kept.iter().any(|k| k.name == name) {
                self.r.delete(&server).await;
            }
        }
        while self.images.len() > KEPT {
            let (image, _) = self.images.remove(0);
            assert_eq!(
                self.r.admin.delete(&format!("/image/v2/images/{image}")).await.status,
                204
            );
        }
    }
}

macro_rules! needs_a_disk {
    () => {
        if let Some(why) = Disk::cannot() {
            println!("SKIPPED: {why}");
            return;
        }
    };
}

#[tokio::test(flavor = "multi_thread")]
async fn fake_power_cut_under_load() {
    needs_a_disk!();
    let mut lab = Lab::new(384, false, vec![]).await;
    lab.fill_the_log().await;
    let (start, rounds) = (Instant::now(), rounds(9));
    for n in 0..rounds {
        lab.round(n).await;
    }
    let took = start.elapsed().as_secs_f32() / rounds as f32;
    println!(
        "{rounds} cuts, {} servers acknowledged, {took:.2} s each",
        lab.acknowledged
    );
}

/// The very first start. Who was given a token has it, and the password that was written is the password; and a cut
/// at any other moment leaves something that starts.
#[tokio::test(flavor = "multi_thread")]
async fn fake_power_cut_at_the_first_start() {
    needs_a_disk!();
    for n in 0..rounds(6) {
        let disk = Disk::new(256);
        let mut cloud = Cloud::prepare(Options {
            state_dir: Some(disk.path()),
            ..options()
        });
        cloud.start_serve();
        cloud.start_agent();
        let known = if n % 2 == 0 {
            cloud.ready().await;
            let host = cloud.admin(Method::GET, "/admin/v1/status").await.expect("a status")["hosts"][0]["id"].clone();
            Some((cloud.password(), cloud.admin_client().await, host))
        } else {
            // Any moment at all: there is no event to wait for.
            tokio::time::sleep(Duration::from_millis(random(600) as u64)).await;
            None
        };
        disk.cut();
        cloud.kill_serve();
        cloud.kill_agent();
        disk.restart().await;
        cloud.start_serve();
        cloud.start_agent();
        cloud.ready().await;
        let password = cloud.password();
        let admin = cloud.admin_client().await;
        if let Some((old, before, host)) = known {
            assert_eq!(password, old);
            before.get("/identity/v3/auth/projects").await.expect(200);
            let status = cloud.admin(Method::GET, "/admin/v1/status").await.expect("a status");
            assert_eq!(status["hosts"].as_array().map(Vec::len), Some(1), "{status}");
            assert_eq!(status["hosts"][0]["id"], host);
        }
        admin.get("/identity/v3/users").await.expect(200);
        cloud.audit().await;
        // It has files open on the disk.
        drop(cloud);
    }
}

/// The same with guests that run: their disks, records and networks are there after the cut, and they run again.
#[tokio::test(flavor = "multi_thread")]
async fn real_power_cut_brings_guests_back() {
    needs_a_disk!();
    if let Some(why) = cannot_run_guests() {
        println!("SKIPPED: {why}");
        return;
    }
    let mut lab = Lab::new(8192, true, vec!["network.external_cidr=172.31.211.0/24".into()]).await;
    let copy = lab.r.cloud.dir.join("agent/block/images").join(&lab.r.image);
    let mut servers = Vec::new();
    for n in 0..rounds(3) {
        let new = lab.r.create(&format!("cut{n}")).await;
        let gone = lab.r.create(&format!("gone{n}")).await;
        servers.push(new.clone());
        lab.r.wait(&gone, "ACTIVE").await;
        lab.r.wait(&new, "ACTIVE").await;
        lab.r.delete(&gone).await;
        lab.cut().await;
        for pid in servers.iter().flat_map(|s| qemus(s)) {
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
        }
        lab.disk.restart().await;
        assert!(std::fs::read(&copy).unwrap() == IMAGE, "the host's copy of the image");
        lab.r.cloud.start_agent();
        for server in &servers {
            let what = format!("the agent runs {server} again\n{}", lab.r.cloud.tail());
            eventually(&what, Duration::from_secs(20), || async {
                (qemus(server).len() == 1).then_some(())
            })
            .await;
        }
        assert!(qemus(&gone).is_empty(), "what was deleted runs again");
        lab.r.cloud.start_serve();
        lab.r.cloud.ready().await;
        for server in &servers {
            let s = lab.r.wait(server, "ACTIVE").await;
            assert_eq!(s["OS-EXT-STS:power_state"], 1, "{s}");
        }
        assert!(!lab.settled().await.contains_key(&format!("gone{n}")));
        lab.r.cloud.audit().await;
        if servers.len() > 2 {
            lab.r.delete(&servers.remove(0)).await;
        }
    }
}
