//! One cloud of separate processes.

use crate::ports::free_port;
use crate::{Client, eventually};
use haneul_http::client::{Peer, send};
use http::Method;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// How a cloud is made.
#[derive(Clone, Debug)]
pub struct Options {
    /// The built binary.
    pub binary: PathBuf,
    /// PostgreSQL instead of SQLite.
    pub database: Option<String>,
    /// Real guests and networks instead of the fakes.
    pub real: bool,
    /// Further `section.key=value`.
    pub sets: Vec<String>,
    /// Where its state lies (the caller's, and left to it); otherwise in a directory of its own.
    pub state_dir: Option<PathBuf>,
}

impl Options {
    /// A cloud on the fake drivers.
    pub fn fake(binary: impl Into<PathBuf>) -> Self {
        Self {
            binary: binary.into(),
            database: None,
            real: false,
            sets: vec![],
            state_dir: None,
        }
    }
}

/// See the crate. Ends what it started when it is dropped.
pub struct Cloud {
    pub dir: PathBuf,
    /// Of a cloud in somebody else's directory: its logs, which outlive a cut of that disk.
    outside: Option<PathBuf>,
    pub options: Options,
    pub address: String,
    pub metrics_address: String,
    serve: Option<Child>,
    agent: Option<Child>,
    /// The agent of a second host.
    other: Option<Child>,
    /// Who keeps the leases of both hosts, when they share disks.
    leases: [Option<Child>; 2],
}

impl Cloud {
    /// Starts both processes and waits until the host is up.
    pub async fn start(options: Options) -> Cloud {
        let mut cloud = Cloud::prepare(options);
        cloud.start_serve();
        cloud.start_agent();
        cloud.ready().await;
        cloud
    }

    /// Makes the directory and chooses ports, and starts nothing.
    pub fn prepare(options: Options) -> Cloud {
        let own = std::env::temp_dir().join(format!("haneul-test-{}", haneul_core::id::hex()));
        let (dir, outside) = match &options.state_dir {
            Some(given) => (given.clone(), Some(own)),
            None => (own, None),
        };
        let cloud = Cloud {
            address: format!("127.0.0.1:{}", free_port()),
            metrics_address: format!("127.0.0.1:{}", free_port()),
            dir,
            outside,
            options,
            serve: None,
            agent: None,
            other: None,
            leases: [None, None],
        };
        std::fs::create_dir_all(cloud.logs()).expect("a directory");
        cloud
    }

    fn logs(&self) -> PathBuf {
        self.outside.as_ref().unwrap_or(&self.dir).join("log")
    }

    /// The command line that all processes of this cloud share.
    pub fn command(&self) -> Command {
        let mut c = Command::new(&self.options.binary);
        c.arg("--config").arg(self.dir.join("haneul.toml"));
        if !self.dir.join("haneul.toml").exists() {
            std::fs::write(self.dir.join("haneul.toml"), "").expect("a file");
        }
        let mut sets = vec![
            format!("state_dir={}", self.dir.display()),
            "lab=true".into(),
            format!("api.listen={}", self.address),
            format!("api.metrics_listen={}", self.metrics_address),
            "identity.bcrypt_rounds=4".into(),
        ];
        if !self.options.real {
            sets.push("agent.hypervisor=fake".into());
            sets.push("agent.network=fake".into());
        }
        if let Some(url) = &self.options.database {
            sets.push(format!("database.url={url}"));
        }
        sets.extend(self.options.sets.iter().cloned());
        for set in sets {
            c.arg("--set").arg(set);
        }
        c
    }

    fn spawn(&self, what: &str) -> Child {
        self.spawn_as(what, what, &[])
    }

    fn spawn_as(&self, what: &str, name: &str, more: &[String]) -> Child {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.logs().join(format!("{name}.log")))
            .expect("a log");
        self.command()
            .args(more)
            .arg(what)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .spawn()
            .expect("the binary starts")
    }

    pub fn start_serve(&mut self) {
        self.serve = Some(self.spawn("serve"));
    }
    pub fn start_agent(&mut self) {
        self.keep_lease(0, &[]);
        self.agent = Some(self.spawn("agent"));
    }

    /// What the supervisor does for a host that shares disks, whatever becomes of its agent.
    fn keep_lease(&mut self, host: usize, more: &[String]) {
        let shares = self.options.sets.iter().any(|s| s.starts_with("agent.shared_disks="));
        if shares && self.leases[host].is_none() {
            self.leases[host] = Some(self.spawn_as("lease", "lease", more));
        }
    }

    /// State of the second host.
    pub fn other_dir(&self) -> PathBuf {
        self.dir.join("other")
    }
    /// A second host: an agent with a state directory of its own, which dials the same control plane.
    pub fn start_other_agent(&mut self) {
        let dir = self.other_dir();
        std::fs::create_dir_all(dir.join("run")).expect("a directory");
        let _ = std::os::unix::fs::symlink(self.dir.join("run/agent.sock"), dir.join("run/agent.sock"));
        let more = ["--set".to_owned(), format!("state_dir={}", dir.display())];
        self.keep_lease(1, &more);
        self.other = Some(self.spawn_as("agent", "other", &more));
    }

    /// SIGKILL and reap.
    pub fn kill_serve(&mut self) {
        end(&mut self.serve, Signal::SIGKILL);
    }
    pub fn kill_agent(&mut self) {
        end(&mut self.agent, Signal::SIGKILL);
    }
    /// SIGTERM and wait.
    pub fn stop_serve(&mut self) {
        end(&mut self.serve, Signal::SIGTERM);
    }
    pub fn stop_agent(&mut self) {
        end(&mut self.agent, Signal::SIGTERM);
    }

    /// Starts again whichever process has ended; says whether there was one.
    pub fn revive(&mut self) -> bool {
        let mut revived = self.revive_serve();
        revived |= self.revive_agent();
        if has_ended(&mut self.other) {
            self.start_other_agent();
            revived = true;
        }
        revived
    }

    /// The same for the control plane alone.
    pub fn revive_serve(&mut self) -> bool {
        let dead = self.serve.is_none() || has_ended(&mut self.serve);
        if dead {
            self.start_serve();
        }
        dead
    }

    /// And for its host's agent.
    pub fn revive_agent(&mut self) -> bool {
        let dead = self.agent.is_none() || has_ended(&mut self.agent);
        if dead {
            self.start_agent();
        }
        dead
    }

    /// Waits until the control plane answers and a host is up; brings dead processes back on the way only when
    /// the caller does so.
    pub async fn ready(&self) {
        let limit = Duration::from_secs(60);
        eventually(
            &format!("the cloud in {} is ready\n{}", self.dir.display(), self.tail()),
            limit,
            || async {
                let v = self.admin(Method::GET, "/admin/v1/status").await?;
                (v.get("ready") == Some(&Value::Bool(true))).then_some(())
            },
        )
        .await;
    }

    /// An address where hosts may join, for [`Options::sets`].
    pub fn fleet_listen() -> String {
        format!("fleet.listen=127.0.0.1:{}", free_port())
    }

    /// URL and token for a machine that joins; `body` as `POST /admin/v1/host-tokens` takes it.
    pub async fn host_token(&self, body: Value) -> (String, String) {
        let peer = Peer::Unix(self.dir.join("run/admin.sock"));
        let json = [("content-type", "application/json")];
        let path = "/admin/v1/host-tokens";
        let answer = send(&peer, Method::POST, path, &json, body.to_string())
            .await
            .expect("an answer");
        assert!(answer.status.is_success(), "{}", String::from_utf8_lossy(&answer.body));
        let answer = answer.json();
        let text = |key: &str| answer[key].as_str().expect("a text").to_owned();
        (text("url"), text("token"))
    }

    /// Asks the admin socket.
    pub async fn admin(&self, method: Method, path: &str) -> Option<Value> {
        let peer = Peer::Unix(self.dir.join("run/admin.sock"));
        let answer = send(&peer, method, path, &[], Vec::new()).await.ok()?;
        answer.status.is_success().then(|| answer.json())
    }

    /// The password of the first administrator.
    pub fn password(&self) -> String {
        std::fs::read_to_string(self.dir.join("control/admin-password"))
            .expect("the admin password")
            .trim()
            .to_owned()
    }

    /// A client without a token.
    pub fn anonymous(&self) -> Client {
        let clear = Client::new(&self.address);
        // With hosts on a wire the address speaks TLS only; the socket beside it speaks to us as before.
        let wired = |s: &String| s.strip_prefix("fleet.listen=").is_some_and(|a| !a.starts_with("127."));
        match self.options.sets.iter().any(wired) {
            true => Client {
                peer: Peer::Unix(self.dir.join("run/api.sock")),
                ..clear
            },
            false => clear,
        }
    }

    /// A client of the administrator.
    pub async fn admin_client(&self) -> Client {
        self.anonymous().login("admin", &self.password(), "admin").await
    }

    /// Arms fault points (`name=kill`); see `haneul_core::fault`.
    pub fn arm(&self, text: &str) {
        for file in self.fault_files() {
            std::fs::write(file, text).expect("a file");
        }
    }
    /// What is armed still: nothing, once either host has come there.
    pub fn armed(&self) -> String {
        let files = self.fault_files();
        let armed = files.iter().map(|f| std::fs::read_to_string(f).unwrap_or_default());
        armed.min_by_key(String::len).unwrap_or_default()
    }
    pub fn disarm(&self) {
        for file in self.fault_files() {
            let _ = std::fs::remove_file(file);
        }
    }
    /// One for each state directory.
    fn fault_files(&self) -> Vec<PathBuf> {
        let other = self.other.as_ref().map(|_| self.other_dir());
        let dirs = std::iter::once(self.dir.clone()).chain(other);
        dirs.map(|d| d.join("run/fault")).collect()
    }

    /// Waits until `haneul audit` finds nothing; panics with what it finds.
    pub async fn audit(&self) {
        let start = std::time::Instant::now();
        loop {
            let found = self.admin(Method::GET, "/admin/v1/audit").await;
            let list = found
                .as_ref()
                .and_then(|v| v.get("findings"))
                .and_then(Value::as_array)
                .cloned();
            if list.as_ref().is_some_and(Vec::is_empty) {
                return;
            }
            assert!(
                start.elapsed() < Duration::from_secs(30),
                "the audit finds: {}\n{}",
                json!(list),
                self.tail()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The ends of the logs, for a failed test.
    pub fn tail(&self) -> String {
        ["serve", "lease", "agent", "other"]
            .iter()
            .map(|p| {
                let text = std::fs::read_to_string(self.logs().join(format!("{p}.log"))).unwrap_or_default();
                let lines: Vec<&str> = text.lines().rev().take(25).collect();
                format!("--- {p}\n{}", lines.into_iter().rev().collect::<Vec<_>>().join("\n"))
            })
            .collect::<Vec<_>>()
            .join("\n")
    }

    /// Process ids of serve and agent.
    pub fn pids(&self) -> (Option<u32>, Option<u32>) {
        (self.serve.as_ref().map(Child::id), self.agent.as_ref().map(Child::id))
    }
}

fn has_ended(child: &mut Option<Child>) -> bool {
    child.as_mut().is_some_and(|c| c.try_wait().expect("wait").is_some())
}

pub(crate) fn end(child: &mut Option<Child>, signal: Signal) {
    if let Some(mut c) = child.take() {
        let _ = kill(Pid::from_raw(c.id() as i32), signal);
        let _ = c.wait();
    }
}

impl Drop for Cloud {
    fn drop(&mut self) {
        end(&mut self.other, Signal::SIGTERM);
        end(&mut self.agent, Signal::SIGTERM);
        end(&mut self.serve, Signal::SIGTERM);
        for lease in &mut self.leases {
            end(lease, Signal::SIGKILL);
        }
        if std::thread::panicking() {
            let note = format!("{}\n", self.tail());
            let _ = std::io::Write::write_all(&mut std::io::stderr(), note.as_bytes());
        }
        if self.options.real {
            // Guests and namespaces outlive our processes by design; a test takes them away.
            let _ = self
                .command()
                .args(["down", "--purge", "--yes"])
                .stdin(Stdio::null())
                .output();
        }
        remove(self.outside.as_ref().unwrap_or(&self.dir));
    }
}

pub(crate) fn remove(dir: &Path) {
    if std::env::var_os("HANEUL_KEEP").is_none() {
        let _ = std::fs::remove_dir_all(dir);
    }
}
