//! kill -9 at every fault point that an operation passes, in whichever process passes it. The points are not
//! listed here: each operation runs once under `run/fault-trace`, and then once more per point and pass, killed
//! there. After the restart no transitional state is without a job, the operation is done or was never begun,
//! `haneul audit` is empty, and what is deleted leaves neither rows nor files.

use crate::setup::{Ready, id, options};
use haneul_testkit::{Answer, Options, eventually};
use http::Method;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long after the restart everything must be settled.
const SETTLED: Duration = Duration::from_secs(10);
/// A point that is passed more often in one operation is killed at its first passes only.
const PASSES: usize = 3;
/// Status of a server that is not there.
const NONE: &str = "none";

/// One operation on one server.
#[derive(Clone, Copy)]
struct Op {
    name: &'static str,
    /// Actions that bring a new server to where the operation begins, and the status after each.
    before: &'static [(&'static str, &'static str)],
    /// `create`, `delete`, or an action's body (`IMAGE` stands for the image).
    what: &'static str,
    /// Status before and afterwards.
    from: &'static str,
    to: &'static str,
    /// Whether the host's record of the guest says that the operation was carried out there.
    met: fn(&Value) -> bool,
}

const RESIZE: (&str, &str) = (r#"{"resize":{"flavorRef":"small"}}"#, "VERIFY_RESIZE");

const OPS: &[Op] = &[
    Op {
        name: "create",
        before: &[],
        what: "create",
        from: NONE,
        to: "ACTIVE",
        met: |r| r["state"] == "running",
    },
    Op {
        name: "delete",
        before: &[],
        what: "delete",
        from: "ACTIVE",
        to: NONE,
        met: Value::is_null,
    },
    Op {
        name: "stop",
        before: &[],
        what: r#"{"os-stop":null}"#,
        from: "ACTIVE",
        to: "SHUTOFF",
        met: |r| r["state"] == "stopped",
    },
    Op {
        name: "start",
        before: &[(r#"{"os-stop":null}"#, "SHUTOFF")],
        what: r#"{"os-start":null}"#,
        from: "SHUTOFF",
        to: "ACTIVE",
        met: |r| r["state"] == "running",
    },
    Op {
        name: "pause",
        before: &[],
        what: r#"{"pause":null}"#,
        from: "ACTIVE",
        to: "PAUSED",
        met: |r| r["state"] == "paused",
    },
    Op {
        name: "unpause",
        before: &[(r#"{"pause":null}"#, "PAUSED")],
        what: r#"{"unpause":null}"#,
        from: "PAUSED",
        to: "ACTIVE",
        met: |r| r["state"] == "running",
    },
    Op {
        name: "soft-reboot",
        before: &[],
        what: r#"{"reboot":{"type":"SOFT"}}"#,
        from: "ACTIVE",
        to: "ACTIVE",
        met: |r| r["guest"]["soft_reboots"] == 1,
    },
    Op {
        name: "hard-reboot",
        before: &[],
        what: r#"{"reboot":{"type":"HARD"}}"#,
        from: "ACTIVE",
        to: "ACTIVE",
        met: |r| r["guest"]["hard_reboots"] == 1,
    },
    Op {
        name: "rebuild",
        before: &[],
        what: r#"{"rebuild":{"imageRef":"IMAGE"}}"#,
        from: "ACTIVE",
        to: "ACTIVE",
        met: |r| r["guest"]["rebuilds"] == 1,
    },
    Op {
        name: "resize",
        before: &[],
        what: RESIZE.0,
        from: "ACTIVE",
        to: "VERIFY_RESIZE",
        met: |r| r["guest"]["memory_mib"] == 512,
    },
    Op {
        name: "confirm",
        before: &[RESIZE],
        what: r#"{"confirmResize":null}"#,
        from: "VERIFY_RESIZE",
        to: "ACTIVE",
        met: |r| r["guest"]["memory_mib"] == 512,
    },
    Op {
        name: "revert",
        before: &[RESIZE],
        what: r#"{"revertResize":null}"#,
        from: "VERIFY_RESIZE",
        to: "ACTIVE",
        met: |r| r["guest"]["memory_mib"] == 128,
    },
];

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
        let path = |more: &str| format!("/compute/v2.1/servers{more}");
        let of = s.id.as_deref().unwrap_or_default();
        let (method, path, body) = match op.what {
            "create" => (Method::POST, path(""), self.r.server(&s.name, "tiny").to_string()),
            "delete" => (Method::DELETE, path(&format!("/{of}")), String::new()),
            body => (
                Method::POST,
                path(&format!("/{of}/action")),
                body.replace("IMAGE", &self.r.image),
            ),
        };
        let json = [("content-type", "application/json")];
        let headers: &[(&str, &str)] = if body.is_empty() { &[] } else { &json };
        let sent = self.r.admin.try_send(method, &path, headers, body.into_bytes());
        tokio::time::timeout(SETTLED, sent)
            .await
            .unwrap_or_else(|_| panic!("{}: no answer in {SETTLED:?}", op.name))
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
        (!running).then(|| (status, self.record(s)))
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

    /// Runs the operation with one process killed at that pass of the point. False when it was not reached.
    async fn kill(&mut self, op: &Op, point: &str, pass: usize) -> bool {
        let what = format!("{} killed at pass {} of {point}", op.name, pass + 1);
        let mut s = self.subject(op).await;
        self.r.cloud.arm(&format!("{point}=kill:{pass}"));
        let answer = self.ask(op, &s).await;
        if let Some(a) = &answer {
            assert!(a.status < 300, "{what}: {} {}", a.status, a.text);
        }
        let start = Instant::now();
        while !self.r.cloud.revive() {
            if start.elapsed() > Duration::from_secs(1) && !self.r.cloud.armed().is_empty() {
                self.r.cloud.disarm();
                self.settled(&mut s, &what).await;
                self.clean(&s).await;
                return false;
            }
            assert!(start.elapsed() < SETTLED, "{what}: nobody died");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        assert_eq!(self.r.cloud.armed(), "", "{what}");
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
        loop {
            let now = self.leftovers().await;
            if now == *before {
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
    assert!(passed.len() >= 4, "{name} passes only {passed:?}: is the lab on?");
    let start = Instant::now();
    let mut kills = 0;
    for (point, n) in &passed {
        for pass in 0..(*n).min(PASSES) {
            let reached = lab.kill(op, point, pass).await;
            // How often a point is passed depends on what is batched; that it is passed does not.
            assert!(reached || pass > 0, "{name} did not pass {point} this time");
            kills += usize::from(reached);
        }
    }
    println!(
        "{name}: {kills} kills at {} points in {:.1} s: {passed:?}",
        passed.len(),
        start.elapsed().as_secs_f32()
    );
    lab.nothing_left(&before).await;
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
}
