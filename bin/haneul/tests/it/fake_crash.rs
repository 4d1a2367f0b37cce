//! kill -9 at every fault point that an operation passes, in whichever process passes it. The points are not
//! listed here: each operation runs once under `run/fault-trace`, and then once more per point and pass, killed
//! there. After the restart no transitional state is without a job, the operation is done or was never begun,
//! `haneul audit` is empty, and what is deleted leaves neither rows nor files.

use crate::crash_ops::{NONE, OPS, Op};
use crate::setup::{Ready, id, options};
use haneul_store::{Actor, Db, OpenOptions};
use haneul_testkit::{Answer, Client, Options, eventually};
use http::Method;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long after the restart everything must be settled.
const SETTLED: Duration = Duration::from_secs(30);
/// A point that is passed more often in one operation is killed at its first passes only.
const PASSES: usize = 5;
/// A server of the test: its name is known before it exists.
struct Subject {
    name: String,
    id: Option<String>,
}

struct Lab {
    r: Ready,
    made: usize,
}

impl Lab {
    async fn new(options: Options) -> Lab {
        let lab = Lab {
            r: Ready::new(options).await,
            made: 0,
        };
        // What the first server of a cloud brings for good (quota rows, counters, directories) is no leftover.
        let first = lab.r.create("first").await;
        lab.r.wait(&first, "ACTIVE").await;
        lab.r.delete(&first).await;
        lab.r.cloud.audit().await;
        std::fs::write(lab.trace_file(), "").unwrap();
        lab.quiet().await;
        lab
    }

    fn trace_file(&self) -> PathBuf {
        self.r.cloud.dir.join("run/fault-trace")
    }

    /// Nothing passes a point any more. That nothing happens is no event: it has to be waited for.
    async fn quiet(&self) {
        let length = || std::fs::metadata(self.trace_file()).map_or(0, |m| m.len());
        let mut last = length();
        loop {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let now = length();
            if now == last {
                return;
            }
            last = now;
        }
    }

    /// Waits until control has noticed that the agent is dead: only then `ready` speaks of the next one.
    async fn noticed(&self) {
        eventually("the host is down", SETTLED, || async {
            let s = self.r.cloud.admin(Method::GET, "/admin/v1/status").await?;
            (s["ready"] == false).then_some(())
        })
        .await;
    }

    /// The points passed since the trace was emptied, in order.
    fn traced(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.trace_file()).unwrap();
        text.lines()
            .map(|l| l.split_once(' ').expect("pid and name").1.to_owned())
            .collect()
    }

    /// A server where the operation begins, and nothing going on.
    async fn subject(&mut self, op: &Op) -> Subject {
        self.made += 1;
        let mut s = Subject {
            name: format!("{}-{}", op.name, self.made),
            id: None,
        };
        if op.what != "create" {
            let new = self.r.create(&s.name).await;
            self.r.wait(&new, "ACTIVE").await;
            for (body, status) in op.before {
                let a = self.r.action(&new, serde_json::from_str(body).unwrap()).await;
                assert_eq!(a.status, 202, "{body}: {}", a.text);
                self.r.wait(&new, status).await;
            }
            s.id = Some(new);
        }
        self.quiet().await;
        s
    }

    /// Asks for the operation; `None` when the control plane died over it.
    async fn ask(&self, op: &Op, s: &Subject) -> Option<Answer> {
        send(self.r.admin.clone(), self.request(op, s).await, op.name).await
    }

    /// Method, path and body.
    async fn request(&self, op: &Op, s: &Subject) -> (Method, String, String) {
        let path = |more: &str| format!("/compute/v2.1/servers{more}");
        let of = s.id.as_deref().unwrap_or_default();
        match op.what {
            "create" => (Method::POST, path(""), self.r.server(&s.name, "tiny").to_string()),
            "delete" => (Method::DELETE, path(&format!("/{of}")), String::new()),
            "attach" => (
                Method::POST,
                path(&format!("/{of}/os-interface")),
                json!({"interfaceAttachment": {"net_id": self.r.network}}).to_string(),
            ),
            "detach" => {
                let list = path(&format!("/{of}/os-interface"));
                let all = self.r.admin.get(&list).await.expect(200);
                let port = all["interfaceAttachments"][0]["port_id"]
                    .as_str()
                    .expect("an interface")
                    .to_owned();
                (Method::DELETE, format!("{list}/{port}"), String::new())
            }
            body => (
                Method::POST,
                path(&format!("/{of}/action")),
                body.replace("IMAGE", &self.r.image),
            ),
        }
    }

    /// The server's status as soon as nothing is being done to it any more, with the host's record of the guest.
    async fn settled(&self, s: &mut Subject, what: &str) -> (String, Value) {
        let start = Instant::now();
        loop {
            if let Some(found) = self.look(s).await {
                return found;
            }
            if start.elapsed() > SETTLED {
                let server = self.r.show(s.id.as_deref().unwrap_or_default()).await;
                let jobs = self.r.cloud.admin(Method::GET, "/admin/v1/jobs").await;
                panic!(
                    "{what}: not settled after {SETTLED:?}: {server:?}\n{jobs:?}\n{}",
                    self.r.cloud.tail()
                );
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn look(&self, s: &mut Subject) -> Option<(String, Value)> {
        let admin = &self.r.admin;
        if s.id.is_none() {
            let list = format!("/compute/v2.1/servers?name={}", s.name);
            let found = admin
                .try_send(Method::GET, &list, &[], vec![])
                .await
                .filter(|a| a.status == 200)?;
            s.id = found.body["servers"][0]["id"].as_str().map(str::to_owned);
        }
        let status = match &s.id {
            None => NONE.to_owned(),
            Some(id) => {
                let a = admin
                    .try_send(Method::GET, &format!("/compute/v2.1/servers/{id}"), &[], vec![])
                    .await?;
                match a.status {
                    404 => NONE.to_owned(),
                    200 if a.body["server"]["OS-EXT-STS:task_state"].is_null() => {
                        a.body["server"]["status"].as_str()?.to_owned()
                    }
                    _ => return None,
                }
            }
        };
        let jobs = self.r.cloud.admin(Method::GET, "/admin/v1/jobs").await?;
        let running = jobs["jobs"].as_array()?.iter().any(|j| j["status"] == "running");
        if running {
            return None;
        }
        let mut record = self.record(s);
        if let Some(map) = record.as_object_mut() {
            let images = self.images(s).await?;
            map.insert("images".into(), images.iter().map(|i| i["status"].clone()).collect());
        }
        Some((status, record))
    }

    /// The images that were made of the server.
    async fn images(&self, s: &Subject) -> Option<Vec<Value>> {
        let list = format!("/image/v2/images?instance_uuid={}", s.id.as_ref()?);
        let a = self.r.admin.try_send(Method::GET, &list, &[], vec![]).await?;
        a.body["images"].as_array().cloned()
    }

    /// The fake hypervisor's record of the guest; null when there is none.
    fn record(&self, s: &Subject) -> Value {
        let Some(id) = &s.id else { return Value::Null };
        let file = self.r.cloud.dir.join("agent/guests").join(format!("{id}.json"));
        std::fs::read(file).map_or(Value::Null, |b| serde_json::from_slice(&b).unwrap_or(Value::Null))
    }

    /// Runs the operation undisturbed and answers what it passed.
    async fn passes(&mut self, op: &Op) -> Vec<String> {
        let mut s = self.subject(op).await;
        std::fs::write(self.trace_file(), "").unwrap();
        let a = self.ask(op, &s).await.expect("an answer");
        assert!(a.status < 300, "{}: {} {}", op.name, a.status, a.text);
        let (status, record) = self.settled(&mut s, op.name).await;
        assert!(
            status == op.to && (op.met)(&record),
            "{}: {status} {record}\n{}",
            op.name,
            self.r.cloud.tail()
        );
        self.quiet().await;
        let passed = self.traced();
        self.clean(&s).await;
        passed
    }

    /// Runs the operation with the process that passes the point killed there, and the other one with it when
    /// `both`. False when the point was not reached.
    async fn kill(&mut self, op: &Op, point: &str, pass: usize, both: bool) -> bool {
        let all = if both { " (both processes)" } else { "" };
        let what = format!("{} killed at pass {} of {point}{all}", op.name, pass + 1);
        let mut s = self.subject(op).await;
        let request = self.request(op, &s).await;
        self.r.cloud.arm(&format!("{point}=kill:{pass}"));
        // Both at once: an answer may wait for a host that is dead and comes back.
        let asking = tokio::spawn(send(self.r.admin.clone(), request, op.name));
        let (start, mut answered) = (Instant::now(), None);
        let died = loop {
            if self.r.cloud.revive() {
                break true;
            }
            if asking.is_finished() && answered.is_none() {
                answered = Some(Instant::now());
            }
            let waited = answered.is_some_and(|t| t.elapsed() > Duration::from_secs(1));
            if waited && !self.r.cloud.armed().is_empty() {
                break false;
            }
            assert!(start.elapsed() < SETTLED * 2, "{what}: nobody died");
            tokio::time::sleep(Duration::from_millis(2)).await;
        };
        let answer = asking.await.unwrap();
        if let Some(a) = &answer {
            assert!(a.status < 300, "{what}: {} {}", a.status, a.text);
        }
        if !died {
            self.r.cloud.disarm();
            self.settled(&mut s, &what).await;
            self.clean(&s).await;
            return false;
        }
        assert_eq!(self.r.cloud.armed(), "", "{what}");
        if both {
            self.r.cloud.kill_agent();
            self.r.cloud.kill_serve();
            self.r.cloud.revive();
        }
        self.r.cloud.ready().await;
        let (status, record) = self.settled(&mut s, &what).await;
        let done = |status: &str, record: &Value| status == op.to && (op.met)(record);
        if !done(&status, &record) {
            let untouched = status == op.from && (op.from != op.to || !(op.met)(&record));
            assert!(
                untouched && answer.is_none(),
                "{what}: {status} {record}\n{}",
                self.r.cloud.tail()
            );
            // It was lost before it was taken on: it can be asked for again.
            let a = self.ask(op, &s).await.expect("an answer");
            assert!(a.status < 300, "{what}, and again: {} {}", a.status, a.text);
            let (status, record) = self.settled(&mut s, &what).await;
            assert!(
                done(&status, &record),
                "{what}, and again: {status} {record}\n{}",
                self.r.cloud.tail()
            );
        }
        self.r.cloud.audit().await;
        self.clean(&s).await;
        true
    }

    async fn clean(&self, s: &Subject) {
        for image in self.images(s).await.unwrap_or_default() {
            let path = format!("/image/v2/images/{}", image["id"].as_str().unwrap_or_default());
            assert_eq!(self.r.admin.delete(&path).await.status, 204);
        }
        if let Some(id) = &s.id
            && self.r.show(id).await.is_some()
        {
            self.r.delete(id).await;
        }
        self.r.cloud.audit().await;
    }

    /// Rows by table, without the histories, and files of the agent: what must be the same afterwards.
    async fn leftovers(&self) -> BTreeMap<String, i64> {
        let rows = self.r.cloud.admin(Method::GET, "/admin/v1/rows").await.expect("rows");
        let mut all: BTreeMap<String, i64> = rows["rows"]
            .as_object()
            .unwrap()
            .iter()
            .filter(|(table, _)| !["change_log", "job"].contains(&table.as_str()))
            .map(|(table, n)| (format!("rows of {table}"), n.as_i64().unwrap()))
            .collect();
        files(&self.r.cloud.dir.join("agent"), &mut all);
        all
    }

    /// The same as before, at the latest when the last reports have come in.
    async fn nothing_left(&self, before: &BTreeMap<String, i64>) {
        let start = Instant::now();
        let mut before = before.clone();
        // A list of work to do: it may have been taken down in the middle of some.
        before.insert("rows of members_changed".into(), 0);
        loop {
            let now = self.leftovers().await;
            if now == before {
                return;
            }
            let names: BTreeSet<&String> = now.keys().chain(before.keys()).collect();
            let wrong: Vec<String> = names
                .into_iter()
                .filter(|n| now.get(*n) != before.get(*n))
                .map(|n| format!("{n}: {:?}, now {:?}", before.get(n), now.get(n)))
                .collect();
            assert!(
                start.elapsed() < SETTLED,
                "left over: {wrong:#?}\n{}",
                self.r.cloud.tail()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

async fn send(admin: Client, (method, path, body): (Method, String, String), name: &str) -> Option<Answer> {
    let json = [("content-type", "application/json")];
    let headers: &[(&str, &str)] = if body.is_empty() { &[] } else { &json };
    let sent = admin.try_send(method, &path, headers, body.into_bytes());
    tokio::time::timeout(SETTLED, sent)
        .await
        .unwrap_or_else(|_| panic!("{name}: no answer in {SETTLED:?}"))
}

fn files(dir: &Path, out: &mut BTreeMap<String, i64>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            files(&entry.path(), out);
        } else {
            *out.entry(entry.path().display().to_string()).or_default() += 1;
        }
    }
}

/// The whole matrix of one operation.
async fn matrix(name: &str) {
    let op = OPS.iter().find(|o| o.name == name).expect("an operation");
    let mut lab = Lab::new(options()).await;
    let before = lab.leftovers().await;
    let mut passed: BTreeMap<String, usize> = BTreeMap::new();
    for point in lab.passes(op).await {
        *passed.entry(point).or_default() += 1;
    }
    assert!(passed.len() >= 3, "{name} passes only {passed:?}: is the lab on?");
    let start = Instant::now();
    let mut kills = 0;
    for (point, n) in &passed {
        for pass in 0..(*n).min(PASSES) {
            for both in if pass == 0 { &[false, true][..] } else { &[false] } {
                let reached = lab.kill(op, point, pass, *both).await;
                // How often a point is passed depends on what is batched; that it is passed does not.
                assert!(reached || pass > 0, "{name} did not pass {point} this time");
                kills += usize::from(reached);
            }
        }
    }
    println!(
        "{name}: {kills} kills at {} points in {:.1} s: {passed:?}",
        passed.len(),
        start.elapsed().as_secs_f32()
    );
    lab.nothing_left(&before).await;
}

/// Every point of the control plane's and the agent's own code that lies on the way of an operation is passed by
/// one of them: a new point, or an operation that the matrix has not, is noticed here.
#[tokio::test(flavor = "multi_thread")]
async fn fake_crash_operations_pass_every_point() {
    let mut lab = Lab::new(options()).await;
    let mut passed = BTreeSet::new();
    for op in OPS {
        passed.extend(lab.passes(op).await);
    }
    let list = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/fault-points.txt");
    let mut known: BTreeSet<String> = std::fs::read_to_string(list)
        .unwrap()
        .lines()
        .filter_map(|l| Some(l.split_once(' ')?.0.to_owned()))
        .collect();
    let sagas = lab
        .r
        .cloud
        .admin(Method::GET, "/admin/v1/fault-points")
        .await
        .expect("points");
    known.extend(
        sagas["points"]
            .as_array()
            .unwrap()
            .iter()
            .map(|p| p.as_str().unwrap().to_owned()),
    );
    let ours = [
        "compute.",
        "job.server.",
        "fleet.",
        "store.",
        "agent.",
        "blockdev.fake.",
    ];
    let never: Vec<&String> = known
        .difference(&passed)
        .filter(|p| ours.iter().any(|o| p.starts_with(o)))
        // What takes two hosts: fake_moving and fake_lost_hosts pass these.
        .filter(|p| !["migrat", "server.evacuate"].iter().any(|o| p.contains(o)))
        .filter(|p| !crate::fake_lost_hosts::POINTS.iter().any(|(o, _)| o == p))
        .collect();
    assert!(never.is_empty(), "no operation of the matrix passes {never:?}");
    let unknown: Vec<&String> = passed.difference(&known).collect();
    assert!(
        unknown.is_empty(),
        "docs/fault-points.txt lacks {unknown:?}: cargo xtask faults"
    );
}

macro_rules! matrices {
    ($($test:ident $name:literal;)*) => {$(
        #[tokio::test(flavor = "multi_thread")]
        async fn $test() {
            matrix($name).await;
        }
    )*};
}

matrices! {
    fake_crash_create "create";
    fake_crash_delete "delete";
    fake_crash_stop "stop";
    fake_crash_start "start";
    fake_crash_pause "pause";
    fake_crash_unpause "unpause";
    fake_crash_suspend "suspend";
    fake_crash_resume "resume";
    fake_crash_soft_reboot "soft-reboot";
    fake_crash_hard_reboot "hard-reboot";
    fake_crash_rebuild "rebuild";
    fake_crash_resize "resize";
    fake_crash_confirm "confirm";
    fake_crash_revert "revert";
    fake_crash_create_image "create-image";
    fake_crash_attach_interface "attach-interface";
    fake_crash_detach_interface "detach-interface";
}

/// An agent that hangs at the point: the API answers all the same, the job ends at its deadline with the cause,
/// and the next agent puts everything in order.
async fn hang(point: &str) {
    let sets = ["compute.build_timeout_s=1", "compute.action_timeout_s=1"].map(str::to_owned);
    let mut lab = Lab::new(Options {
        sets: sets.to_vec(),
        ..options()
    })
    .await;
    let before = lab.leftovers().await;
    lab.r.cloud.arm(&format!("{point}=hang"));
    let server = lab.r.create("hangs").await;
    let failed = eventually("the deadline ends the job", SETTLED, || async {
        let shown = tokio::time::timeout(Duration::from_secs(20), lab.r.show(&server));
        let s = shown.await.expect("the API answers").expect("the server");
        (s["status"] == "ERROR").then_some(s)
    })
    .await;
    assert_eq!(lab.r.cloud.armed(), "", "{point} was passed");
    let message = failed["fault"]["message"].as_str().unwrap_or_default();
    assert!(
        message.contains("await-host") && message.contains("deadline"),
        "{failed}"
    );
    assert!(failed["OS-EXT-STS:task_state"].is_null(), "{failed}");
    lab.r.cloud.kill_agent();
    lab.noticed().await;
    lab.r.cloud.start_agent();
    lab.r.cloud.ready().await;
    lab.r.delete(&server).await;
    lab.r.cloud.audit().await;
    lab.nothing_left(&before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fake_crash_hung_agent_before_it_applies() {
    hang("agent.guest.desired").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fake_crash_hung_agent_before_it_reports() {
    hang("agent.report.taken").await;
}

/// A deadline that passed while the control plane was dead fails nothing before the host had a moment to speak.
#[tokio::test(flavor = "multi_thread")]
async fn fake_crash_deadline_has_grace_after_a_restart() {
    let mut lab = Lab::new(Options {
        sets: vec!["compute.build_timeout_s=1".into()],
        ..options()
    })
    .await;
    lab.r.cloud.arm("agent.desired.stored=kill");
    let server = lab.r.create("late").await;
    eventually("the agent dies", SETTLED, || async {
        lab.r.cloud.armed().is_empty().then_some(())
    })
    .await;
    lab.r.cloud.kill_agent();
    lab.r.cloud.kill_serve();
    // The deadline passes: it is time itself that is waited for.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    lab.r.cloud.start_serve();
    eventually("the control plane answers", SETTLED, || lab.r.show(&server)).await;
    lab.r.cloud.start_agent();
    lab.r.wait(&server, "ACTIVE").await;
    lab.r.cloud.audit().await;
}

/// A step that fails ends in ERROR with its cause, and a commit that fails in a refusal without a trace.
#[tokio::test(flavor = "multi_thread")]
async fn fake_crash_failing_points() {
    let lab = Lab::new(options()).await;
    let before = lab.leftovers().await;
    for (point, cause) in [
        ("job.server.create.await-host", "The lab made this step fail"),
        ("blockdev.fake.root", "disk"),
    ] {
        lab.quiet().await;
        lab.r.cloud.arm(&format!("{point}=fail"));
        let server = lab.r.create(point).await;
        let s = eventually(&format!("{point} fails"), SETTLED, || async {
            lab.r.show(&server).await.filter(|s| s["status"] == "ERROR")
        })
        .await;
        let message = s["fault"]["message"].as_str().unwrap_or_default();
        assert!(message.contains(cause), "{point}: {s}");
        assert_eq!(lab.r.cloud.armed(), "");
        lab.r.cloud.audit().await;
        lab.r.delete(&server).await;
        lab.nothing_left(&before).await;
    }
    // The write that fails may be one in the background, which tries again: then this one has to.
    let mut status = 0;
    for _ in 0..5 {
        lab.quiet().await;
        lab.r.cloud.arm("store.before-commit=fail");
        let body = lab.r.server("uncommitted", "tiny");
        let a = lab.r.admin.post("/compute/v2.1/servers", &body).await;
        status = a.status;
        if status != 202 {
            break;
        }
        lab.r.delete(&id(&a.expect(202), "/server/id")).await;
        lab.nothing_left(&before).await;
    }
    assert_eq!(status, 503);
    let servers = lab.r.admin.get("/compute/v2.1/servers").await.expect(200);
    assert_eq!(servers["servers"].as_array().map(Vec::len), Some(0), "{servers}");
    lab.r.cloud.audit().await;
    lab.nothing_left(&before).await;
}

impl Lab {
    fn record_of(&self, server: &str) -> Value {
        self.record(&Subject {
            name: String::new(),
            id: Some(server.to_owned()),
        })
    }

    /// Waits until the agent has taken the guest up again: the fake notes when it did so.
    async fn taken_up(&self, server: &str, since: &Value) {
        eventually(&format!("the agent takes up {server}"), SETTLED, || async {
            let now = self.record_of(server);
            assert!(!now.is_null(), "the guest {server} is gone");
            (now["applied_at"] != since["applied_at"]).then_some(())
        })
        .await;
    }
}

/// Both die, and come back in either order, each for a while alone. What the agent has not heard of it does not
/// do; what it has heard it keeps.
#[tokio::test(flavor = "multi_thread")]
async fn fake_crash_each_without_the_other() {
    let mut lab = Lab::new(options()).await;
    let before = lab.leftovers().await;
    let (keep, goes) = (lab.r.create("keep").await, lab.r.create("goes").await);
    lab.r.wait(&keep, "ACTIVE").await;
    lab.r.wait(&goes, "ACTIVE").await;

    // A delete that the agent has not heard of, and then a control plane that cannot tell it.
    lab.r.cloud.kill_agent();
    assert_eq!(
        lab.r
            .admin
            .delete(&format!("/compute/v2.1/servers/{goes}"))
            .await
            .status,
        204
    );
    lab.r.cloud.kill_serve();
    let then = lab.record_of(&goes);
    lab.r.cloud.start_agent();
    lab.taken_up(&goes, &then).await;
    lab.r.cloud.start_serve();
    lab.r.cloud.ready().await;
    lab.r.wait_gone(&goes).await;
    lab.r.wait(&keep, "ACTIVE").await;
    lab.r.cloud.audit().await;

    // The other way round: control comes first, and takes a create that no agent hears of yet.
    lab.r.cloud.kill_serve();
    lab.r.cloud.kill_agent();
    lab.r.cloud.start_serve();
    let new = eventually("a create without an agent", SETTLED, || async {
        let body = lab.r.server("early", "tiny").to_string().into_bytes();
        let json = [("content-type", "application/json")];
        let a = lab
            .r
            .admin
            .try_send(Method::POST, "/compute/v2.1/servers", &json, body)
            .await?;
        assert_eq!(a.status, 202, "{}", a.text);
        a.body["server"]["id"].as_str().map(str::to_owned)
    })
    .await;
    let s = lab.r.show(&new).await.expect("the server");
    lab.r.cloud.start_agent();
    if s["status"] == "ERROR" {
        // No host was up: an honest refusal.
        assert!(
            s["fault"]["message"]
                .as_str()
                .is_some_and(|m| m.contains("No valid host")),
            "{s}"
        );
    } else {
        lab.r.wait(&new, "ACTIVE").await;
    }
    lab.r.cloud.ready().await;
    lab.r.wait(&keep, "ACTIVE").await;
    for server in [&new, &keep] {
        lab.r.delete(server).await;
    }
    lab.r.cloud.audit().await;
    lab.nothing_left(&before).await;
}

/// Absence is never delete: an empty database, and then an agent that has forgotten what was desired, leave every
/// guest running and say so in the audit; the cloud goes on with new servers.
#[tokio::test(flavor = "multi_thread")]
async fn fake_crash_empty_database_kills_no_guest() {
    let mut lab = Lab::new(options()).await;
    let guests = [lab.r.create("one").await, lab.r.create("two").await];
    for g in &guests {
        lab.r.wait(g, "ACTIVE").await;
    }
    lab.r.cloud.kill_serve();
    lab.r.cloud.kill_agent();
    let dir = lab.r.cloud.dir.clone();
    std::fs::remove_dir_all(dir.join("control")).unwrap();
    lab.r.cloud.start_serve();
    lab.r.cloud.start_agent();
    lab.r.cloud.ready().await;
    let mut lab = Lab {
        r: Ready::on(lab.r.cloud).await,
        made: 0,
    };
    for forgotten in [false, true] {
        if forgotten {
            lab.r.cloud.kill_agent();
            lab.noticed().await;
            std::fs::remove_file(dir.join("agent/desired.journal")).unwrap();
            lab.r.cloud.start_agent();
            lab.r.cloud.ready().await;
        }
        let new = lab.r.create("new").await;
        lab.r.wait(&new, "ACTIVE").await;
        lab.r.delete(&new).await;
        let found = lab
            .r
            .cloud
            .admin(Method::GET, "/admin/v1/audit")
            .await
            .expect("an audit")
            .to_string();
        for g in &guests {
            assert_eq!(lab.record_of(g)["state"], "running", "{g}");
            assert!(
                found.contains(&format!("holds guest {g}, which nobody desires")),
                "{found}"
            );
        }
        assert!(!found.contains(&new), "{found}");
    }
}

/// A tombstone of an older generation than the agent's desired object (a control plane restored from an old copy)
/// removes nothing; a younger one does.
#[tokio::test(flavor = "multi_thread")]
async fn fake_crash_old_tombstone_is_ignored() {
    let mut lab = Lab::new(options()).await;
    let server = lab.r.create("stays").await;
    lab.r.wait(&server, "ACTIVE").await;
    for (generation, removed) in [
        ("1", false),
        ("(SELECT value - 50 FROM counter WHERE name = 'fleet.generation')", true),
    ] {
        lab.r.cloud.stop_serve();
        let url = format!("sqlite:{}", lab.r.cloud.dir.join("control/haneul.db").display());
        let db = Db::open(&OpenOptions { url, readers: 1 }, &[]).await.unwrap();
        let id = server.clone();
        let changed = db
            .write(&Actor::system("test"), async move |tx| {
                tx.exec(
                    "UPDATE counter SET value = value + 100 WHERE name = 'fleet.generation'",
                    &[],
                )
                .await?;
                let bury =
                    "UPDATE fleet_desired SET removed = 1, generation = GENERATION WHERE kind = 'guest' AND id = $1";
                tx.exec(&bury.replace("GENERATION", generation), &[id.as_str().into()])
                    .await
            })
            .await
            .unwrap();
        assert_eq!(changed, 1);
        drop(db);
        lab.r.cloud.start_serve();
        lab.r.cloud.ready().await;
        // The stream is in order of generations: who has built the next guest has read the older tombstone.
        let next = lab.r.create("next").await;
        lab.r.wait(&next, "ACTIVE").await;
        lab.r.delete(&next).await;
        if removed {
            eventually("the younger tombstone is carried out", SETTLED, || async {
                lab.record_of(&server).is_null().then_some(())
            })
            .await;
        } else {
            lab.quiet().await;
            assert_eq!(lab.record_of(&server)["state"], "running");
        }
    }
}
