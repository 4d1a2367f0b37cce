//! A release is replaced by the next one, process by process in any order, and back again, while clients go on and
//! guests run.

use crate::consoles;
use crate::fake_processes::{Two, answers, audited, ended, own, reach, two, wait};
use crate::rfb::{Screen, Socket, websocket};
use crate::setup::id;
use haneul_testkit::{Client, eventually, next_release};
use http::Method;
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;

impl Two {
    async fn serve_with(&mut self, first: bool, binary: &Path) {
        self.r.cloud.options.binary = binary.to_owned();
        if first {
            self.r.cloud.stop_serve();
            self.r.cloud.start_serve();
            answers(&self.r.cloud).await;
        } else {
            self.second.stop();
            self.second.start(&self.r.cloud).await;
        }
    }

    async fn agent_with(&mut self, host: usize, binary: &Path) {
        self.hosts[host].stop_agent();
        self.hosts[host].binary = binary.to_owned();
        self.hosts[host].start_agent();
        self.hosts[host].is(&self.r.cloud, "up").await;
    }

    /// Releases of the hosts, and of the processes.
    async fn releases(&self) -> (Vec<String>, Vec<String>) {
        let text = |v: &Value| v["release"].as_str().unwrap_or_default().to_owned();
        let mut hosts = Vec::new();
        for host in &self.hosts {
            let path = format!("/admin/v1/hosts/{}", host.name);
            hosts.push(text(&self.r.cloud.admin(Method::GET, &path).await.unwrap()["host"]));
        }
        // A process that ended a moment ago is in the list until the others have given it up.
        let processes = eventually("two processes serve", Duration::from_secs(20), || async {
            let status = self.r.cloud.admin(Method::GET, "/admin/v1/status").await?;
            let all: Vec<String> = status["processes"].as_array()?.iter().map(text).collect();
            (all.len() == 2).then_some(all)
        })
        .await;
        (hosts, processes)
    }
}

/// Moves a server that runs to whichever host it is not on.
async fn moved(t: &Two, c: &Client, server: &str) {
    // A host whose process was replaced greets another one first, and until it does it may seem up.
    let living = [
        own(&t.r.cloud.admin(Method::GET, "/admin/v1/status").await.unwrap()),
        own(&t.second.admin(Method::GET, "/admin/v1/status").await.unwrap()),
    ];
    for host in &t.hosts {
        t.is_connected(host, &living).await;
    }
    let before = wait(c, server, "ACTIVE").await["OS-EXT-SRV-ATTR:host"].clone();
    let body = json!({"os-migrateLive": {"host": null, "block_migration": "auto"}});
    let act = format!("/compute/v2.1/servers/{server}/action");
    let c = Client {
        version: Some("compute 2.30".into()),
        ..c.clone()
    };
    let asked = eventually("the move is begun", Duration::from_secs(30), || async {
        let json_type = [("content-type", "application/json")];
        let a = c
            .try_send(Method::POST, &act, &json_type, body.to_string().into_bytes())
            .await?;
        // A host whose agent was replaced is up by the one of before until that one's end is noticed.
        (a.status != 503 && !a.text.contains("not up")).then_some(a)
    })
    .await;
    assert_eq!(asked.status, 202, "{}", asked.text);
    eventually("it is on the other host", Duration::from_secs(60), || async {
        let a = c
            .try_send(Method::GET, &format!("/compute/v2.1/servers/{server}"), &[], vec![])
            .await?;
        let s = &a.body["server"];
        (s["status"] == "ACTIVE" && s["OS-EXT-SRV-ATTR:host"] != before).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fake_upgrade_goes_on_and_back_while_clients_and_guests_go_on() {
    let Some(mut t) = two(&["one", "two"]).await else {
        return;
    };
    let old = t.r.cloud.options.binary.clone();
    let new = next_release(&old, &t.r.cloud.dir);
    let (first, second) = (t.r.admin.clone(), t.second.client(&t.r.admin));
    // One stays where it is; its screen is good for this run of it only. The other one moves between the releases.
    let stays = id(
        &first
            .post("/compute/v2.1/servers", &t.r.server("stays", "tiny"))
            .await
            .expect(202),
        "/server/id",
    );
    let moves = id(
        &first
            .post("/compute/v2.1/servers", &t.r.server("moves", "tiny"))
            .await
            .expect(202),
        "/server/id",
    );
    wait(&first, &moves, "ACTIVE").await;
    wait(&first, &stays, "ACTIVE").await;
    let url = consoles::url(&first, &stays).await;
    let (told, stop, tasks) = t.begin(&[&first, &second]);
    reach(&told, 20).await;

    // Control first, then hosts.
    t.serve_with(true, &new).await;
    reach(&told, 20).await;
    t.serve_with(false, &new).await;
    reach(&told, 20).await;
    t.agent_with(0, &new).await;
    moved(&t, &first, &moves).await;
    moved(&t, &second, &moves).await;
    t.agent_with(1, &new).await;
    reach(&told, 20).await;
    let next = "0.2.0".to_owned();
    assert_eq!(t.releases().await, (vec![next.clone(); 2], vec![next; 2]));
    // And back, the other way round and crosswise.
    t.agent_with(1, &old).await;
    moved(&t, &second, &moves).await;
    t.serve_with(false, &old).await;
    reach(&told, 20).await;
    moved(&t, &first, &moves).await;
    t.agent_with(0, &old).await;
    reach(&told, 20).await;
    t.serve_with(true, &old).await;
    reach(&told, 20).await;
    let release = haneul_core::release::name().to_owned();
    assert_eq!(t.releases().await, (vec![release.clone(); 2], vec![release; 2]));
    // An agent of the next release with control of this one.
    t.agent_with(0, &new).await;
    moved(&t, &first, &moves).await;
    t.agent_with(0, &old).await;

    ended(&stop, tasks).await;
    t.settled(&first, &told).await;
    let screen = Screen::open(Socket::open(&t.r.cloud.address, &websocket(&url), None).expect("the same run of it"));
    drop(screen);
    t.r.cloud.audit().await;
    audited(&t.second).await;
}
