//! A second process that serves the same cloud, as on another machine: with a state directory of its own, and the
//! control directory of the first.

use crate::cloud::end;
use crate::ports::free_port;
use crate::{Client, Cloud, eventually};
use haneul_http::client::{Peer, send};
use http::Method;
use nix::sys::signal::Signal;
use serde_json::Value;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// See the module. Ends what it started when it is dropped.
pub struct Second {
    pub address: String,
    pub dir: PathBuf,
    sets: Vec<String>,
    child: Option<Child>,
}

impl Second {
    /// Nothing is started. The cloud is on PostgreSQL.
    pub fn prepare(cloud: &Cloud) -> Second {
        let dir = cloud.dir.join("second");
        std::fs::create_dir_all(dir.join("log")).expect("a directory");
        let address = format!("127.0.0.1:{}", free_port());
        let sets = vec![
            format!("state_dir={}", dir.display()),
            format!("control_dir={}", cloud.dir.join("control").display()),
            format!("api.listen={address}"),
            format!("api.metrics_listen=127.0.0.1:{}", free_port()),
            format!("api.public_url=http://{}", cloud.address),
            Cloud::fleet_listen(),
        ];
        Second {
            address,
            dir,
            sets,
            child: None,
        }
    }

    /// Another setting.
    pub fn set(&mut self, set: &str) {
        self.sets.push(set.to_owned());
    }

    /// Its command line.
    pub fn command(&self, cloud: &Cloud) -> Command {
        let mut c = cloud.command();
        for set in &self.sets {
            c.arg("--set").arg(set);
        }
        c
    }

    /// Starts it, and waits until it answers.
    pub async fn start(&mut self, cloud: &Cloud) {
        self.spawn(cloud);
        self.answers().await;
    }

    /// Starts it again if it has ended; says whether it had.
    pub fn revive(&mut self, cloud: &Cloud) -> bool {
        let dead = self
            .child
            .as_mut()
            .is_none_or(|c| c.try_wait().expect("wait").is_some());
        if dead {
            self.spawn(cloud);
        }
        dead
    }

    fn spawn(&mut self, cloud: &Cloud) {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.dir.join("log/serve.log"))
            .expect("a log");
        let mut command = self.command(cloud);
        command.arg("serve").stdin(Stdio::null());
        command.stdout(log.try_clone().expect("a log")).stderr(log);
        self.child = Some(command.spawn().expect("the binary starts"));
    }

    /// Waits until it answers.
    pub async fn answers(&self) {
        let what = format!("the second process answers\n{}", self.tail());
        eventually(&what, Duration::from_secs(60), || async {
            self.admin(Method::GET, "/admin/v1/status").await.map(|_| ())
        })
        .await;
    }

    /// SIGTERM and wait.
    pub fn stop(&mut self) {
        end(&mut self.child, Signal::SIGTERM);
    }

    /// SIGKILL and reap.
    pub fn kill(&mut self) {
        end(&mut self.child, Signal::SIGKILL);
    }

    /// The same client, by this process.
    pub fn client(&self, client: &Client) -> Client {
        Client {
            peer: Client::new(&self.address).peer,
            ..client.clone()
        }
    }

    /// Asks its admin socket.
    pub async fn admin(&self, method: Method, path: &str) -> Option<Value> {
        let peer = Peer::Unix(self.dir.join("run/admin.sock"));
        let answer = send(&peer, method, path, &[], Vec::new()).await.ok()?;
        answer.status.is_success().then(|| answer.json())
    }

    /// The end of its log.
    pub fn tail(&self) -> String {
        let text = std::fs::read_to_string(self.dir.join("log/serve.log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let last = lines.get(lines.len().saturating_sub(25)..).unwrap_or_default();
        format!("--- second\n{}", last.join("\n"))
    }
}

impl Drop for Second {
    fn drop(&mut self) {
        end(&mut self.child, Signal::SIGTERM);
        if std::thread::panicking() {
            let note = format!("{}\n", self.tail());
            let _ = std::io::Write::write_all(&mut std::io::stderr(), note.as_bytes());
        }
    }
}
