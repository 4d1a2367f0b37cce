//! A host of a cloud that is, for all that it knows, on another machine: it joined with a token, and speaks TLS.

use crate::cloud::end;
use crate::{Cloud, eventually};
use http::Method;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

/// See the module. Ends what it started when it is dropped.
pub struct Member {
    pub name: String,
    pub dir: PathBuf,
    pub binary: PathBuf,
    sets: Vec<String>,
    /// The network namespace that is its machine; none: this one.
    netns: Option<String>,
    real: bool,
    agent: Option<Child>,
    /// Who keeps its lease, when it shares disks.
    lease: Option<Child>,
}

impl Member {
    /// A machine that has not joined yet. With a namespace, everything of it runs there.
    pub fn prepare(cloud: &Cloud, name: &str, netns: Option<&str>) -> Member {
        let dir = std::env::temp_dir().join(format!("haneul-test-{}", haneul_core::id::hex()));
        std::fs::create_dir_all(dir.join("log")).expect("a directory");
        std::fs::write(dir.join("haneul.toml"), "").expect("a file");
        let mut sets = vec![
            format!("state_dir={}", dir.display()),
            "lab=true".into(),
            format!("agent.name={name}"),
        ];
        if !cloud.options.real {
            sets.extend(["agent.hypervisor=fake".into(), "agent.network=fake".into()]);
            // Nothing is sent there by the fake network.
            let last = 2 + name.bytes().fold(0u8, u8::wrapping_add) % 250;
            sets.push(format!("agent.underlay=192.0.2.{last}"));
        }
        Member {
            name: name.to_owned(),
            dir,
            binary: cloud.options.binary.clone(),
            sets,
            netns: netns.map(str::to_owned),
            real: cloud.options.real,
            agent: None,
            lease: None,
        }
    }

    /// A host that has joined and is up.
    pub async fn join(cloud: &Cloud, name: &str, netns: Option<&str>, sets: &[&str]) -> Member {
        let (url, token) = cloud.host_token(json!({})).await;
        Member::join_by(cloud, name, netns, sets, (&url, &token)).await
    }

    /// The same by this URL and token.
    pub async fn join_by(
        cloud: &Cloud,
        name: &str,
        netns: Option<&str>,
        sets: &[&str],
        (url, token): (&str, &str),
    ) -> Member {
        let mut member = Member::prepare(cloud, name, netns);
        member.sets.extend(sets.iter().map(|s| (*s).to_owned()));
        let out = member.run_join(url, token);
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        if sets.iter().any(|s| s.starts_with("agent.shared_disks=")) {
            member.start_lease();
        }
        member.start_agent();
        member.is(cloud, "up").await;
        member
    }

    /// The command line of this machine.
    pub fn command(&self) -> Command {
        // Not `ip netns exec`, which mounts another /sys, without cgroups.
        let mut c = match &self.netns {
            None => Command::new(&self.binary),
            Some(ns) => {
                let mut c = Command::new("nsenter");
                c.arg(format!("--net=/run/netns/{ns}")).arg(&self.binary);
                c
            }
        };
        c.arg("--config").arg(self.dir.join("haneul.toml"));
        for set in &self.sets {
            c.arg("--set").arg(set);
        }
        c
    }

    /// `haneul join URL TOKEN`, which starts nothing.
    pub fn run_join(&self, url: &str, token: &str) -> Output {
        self.command()
            .args(["join", "--no-start", "--yes", url, token])
            .stdin(Stdio::null())
            .output()
            .expect("the binary runs")
    }

    /// Another setting from its next start on.
    pub fn set(&mut self, set: &str) {
        self.sets.push(set.to_owned());
    }

    pub fn start_agent(&mut self) {
        self.agent = Some(self.start("agent"));
    }

    /// What the supervisor does for the lease.
    pub fn start_lease(&mut self) {
        self.lease = Some(self.start("lease"));
    }

    fn start(&self, process: &str) -> Child {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.dir.join(format!("log/{process}.log")))
            .expect("a log");
        let child = self
            .command()
            .arg(process)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .spawn();
        child.expect("the binary starts")
    }

    /// Arms fault points on this machine.
    pub fn arm(&self, text: &str) {
        std::fs::write(self.dir.join("run/fault"), text).expect("a file");
    }

    /// What is armed still.
    pub fn armed(&self) -> String {
        std::fs::read_to_string(self.dir.join("run/fault")).unwrap_or_default()
    }
    pub fn disarm(&self) {
        let _ = std::fs::remove_file(self.dir.join("run/fault"));
    }

    /// Starts its agent again if that has ended, with nothing armed; says whether it had.
    pub fn revive(&mut self) -> bool {
        let ended = |c: &mut Child| c.try_wait().expect("wait").is_some();
        let dead = self.agent.as_mut().is_none_or(ended);
        if dead {
            self.disarm();
            self.start_agent();
        }
        dead
    }

    /// SIGKILL and reap.
    pub fn kill_lease(&mut self) {
        end(&mut self.lease, Signal::SIGKILL);
    }

    /// SIGTERM and wait: it leaves somebody who ends the guests with the lease.
    pub fn stop_lease(&mut self) {
        end(&mut self.lease, Signal::SIGTERM);
    }

    /// The machine loses its power, but for what is on its disks. A fake guest goes with its host's files only.
    pub fn kill(&mut self) {
        self.kill_lease();
        self.kill_agent();
    }

    /// SIGKILL and reap. With a namespace this is nsenter, which has become the agent.
    pub fn kill_agent(&mut self) {
        end(&mut self.agent, Signal::SIGKILL);
    }

    /// SIGTERM and wait.
    pub fn stop_agent(&mut self) {
        end(&mut self.agent, Signal::SIGTERM);
    }

    /// Its id.
    pub fn id(&self) -> String {
        let text = std::fs::read_to_string(self.dir.join("agent/host-id")).expect("the host's id");
        text.trim().to_owned()
    }

    /// Waits until control says that it is `up` or `down`.
    pub async fn is(&self, cloud: &Cloud, state: &str) {
        let what = format!("host {} is {state}\n{}", self.name, self.tail());
        // One that ended between greeting and watch counts as up for a minute.
        eventually(&what, Duration::from_secs(90), || async {
            let path = format!("/admin/v1/hosts/{}", self.name);
            let v = cloud.admin(Method::GET, &path).await?;
            (v.pointer("/host/state") == Some(&Value::from(state))).then_some(())
        })
        .await;
    }

    /// The ends of its processes' logs.
    pub fn tail(&self) -> String {
        let mut out = format!("--- {}", self.name);
        for process in ["lease", "agent"] {
            let text = std::fs::read_to_string(self.dir.join(format!("log/{process}.log"))).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            let last = lines.get(lines.len().saturating_sub(25)..).unwrap_or_default();
            out = format!("{out}\n{}", last.join("\n"));
        }
        out
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.stop_agent();
        self.kill_lease();
        if std::thread::panicking() {
            let note = format!("{}\n", self.tail());
            let _ = std::io::Write::write_all(&mut std::io::stderr(), note.as_bytes());
        }
        if self.real {
            let _ = self
                .command()
                .args(["down", "--purge", "--yes"])
                .stdin(Stdio::null())
                .output();
        }
        crate::cloud::remove(&self.dir);
    }
}
