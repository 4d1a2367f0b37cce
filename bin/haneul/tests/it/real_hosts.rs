//! The real lane on two hosts: the second one is a network namespace of this machine, which has joined over a wire.

use crate::real_lab::{Real, cannot, speaks_ssh};
use crate::setup::id;
use haneul_testkit::{Client, Cloud, Member, eventually};
use serde_json::json;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

fn ok(command: &str) {
    let out = Command::new("sh").arg("-c").arg(command).output().unwrap();
    assert!(
        out.status.success(),
        "{command}: {}",
        String::from_utf8_lossy(&out.stderr)
    );
}

/// A host beside the machine itself, with a wire between the two.
pub struct Second {
    ns: String,
    wire: String,
    pub member: Option<Member>,
}

impl Second {
    /// The namespace and the wire: 10.98.7.1 here, 10.98.7.2 there.
    pub fn wire() -> Second {
        let tag = &haneul_core::id::hex()[..6];
        let (ns, wire) = (format!("t{tag}-two"), format!("t{tag}w"));
        ok(&format!(
            "ip netns add {ns} && ip -n {ns} link set lo up && ip link add {wire} type veth peer name u0 netns {ns} &&
             ip addr add 10.98.7.1/24 dev {wire} && ip link set {wire} up &&
             ip -n {ns} addr add 10.98.7.2/24 dev u0 && ip -n {ns} link set u0 up"
        ));
        Second { ns, wire, member: None }
    }

    /// Joins the cloud over the wire.
    pub async fn start(&mut self, cloud: &Cloud, sets: &[&str]) {
        let own = ["agent.underlay=10.98.7.2", "agent.first_uid=710000000"];
        let sets = [&own[..], sets].concat();
        self.member = Some(Member::join(cloud, "two", Some(&self.ns), &sets).await);
    }

    /// The host is gone without a word: nothing of it ends, and nothing from it arrives.
    pub fn cut(&self) {
        ok(&format!("ip link set {} down", self.wire));
    }

    pub fn mend(&self) {
        ok(&format!("ip link set {} up", self.wire));
    }

    /// A command in the host's network.
    pub fn enter(&self, command: Command) -> Command {
        let mut c = Command::new("nsenter");
        c.arg(format!("--net=/run/netns/{}", self.ns));
        c.arg(command.get_program())
            .args(command.get_args())
            .stdin(Stdio::null());
        c
    }
}

impl Drop for Second {
    fn drop(&mut self) {
        drop(self.member.take());
        let _ = Command::new("ip").args(["netns", "del", &self.ns]).output();
        let _ = Command::new("ip").args(["link", "del", &self.wire]).output();
    }
}

/// Says a number every 50 ms, and waits for nobody.
const COUNT: &str = "i=0; while true; do i=$((i+1)); echo $i; sleep 0.05; done";

/// A login that counts, and what is heard of it.
struct Counting {
    ssh: Child,
    heard: Receiver<(u64, Instant)>,
    last: (u64, Instant),
    longest: Duration,
}

impl Counting {
    fn start(mut ssh: Command) -> Counting {
        let mut ssh = ssh.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let lines = BufReader::new(ssh.stdout.take().unwrap()).lines();
        let (say, heard) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if say.send((line.trim().parse().unwrap(), Instant::now())).is_err() {
                    break;
                }
            }
        });
        let first = heard.recv_timeout(Duration::from_secs(30)).expect("the login counts");
        Counting {
            ssh,
            heard,
            last: first,
            longest: Duration::ZERO,
        }
    }

    /// Hears all that was said so far and ten numbers more, of the same session: none is missing.
    fn goes_on(&mut self) {
        let mut more = 10;
        while more > 0 {
            let next = match self.heard.try_recv() {
                Ok(n) => n,
                Err(_) => {
                    more -= 1;
                    self.heard
                        .recv_timeout(Duration::from_secs(20))
                        .expect("the session lives")
                }
            };
            assert_eq!(next.0, self.last.0 + 1);
            self.longest = self.longest.max(next.1 - self.last.1);
            self.last = next;
        }
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        let _ = self.ssh.kill();
        let _ = self.ssh.wait();
    }
}

/// Compute takes new servers only to this host.
pub async fn only(admin: &Client, host: &str) {
    let all = admin
        .get("/compute/v2.1/os-services?binary=nova-compute")
        .await
        .expect(200);
    for s in all["services"].as_array().unwrap() {
        let status = if s["host"] == host { "enabled" } else { "disabled" };
        let path = format!("/compute/v2.1/os-services/{}", s["id"].as_str().unwrap());
        admin.put(&path, &json!({"status": status})).await.expect(200);
    }
}

/// Guests of one network on two hosts reach each other, move between them while they are used, get their addresses and documents from their own host, and are
/// reached by floating addresses through the router's host; when that host is gone, through the other one within 5 s.
#[tokio::test(flavor = "multi_thread")]
async fn real_two_hosts_and_the_end_of_the_routers() {
    if let Some(why) = cannot() {
        println!("SKIPPED: {why}");
        return;
    }
    let wire = Second::wire();
    let listen = Cloud::fleet_listen().replace("127.0.0.1", "10.98.7.1");
    let r = Real::with("172.31.221.0/24", vec!["agent.underlay=10.98.7.1".into(), listen]).await;
    // After the cloud, so that it goes before it.
    let mut two = wire;
    two.start(&r.cloud, &[]).await;
    let admin = r.admin.at("compute 2.53");
    let hosts = eventually("two hosts are up", Duration::from_secs(20), || async {
        let all = admin
            .get("/compute/v2.1/os-services?binary=nova-compute")
            .await
            .expect(200);
        let up: Vec<String> = all["services"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|s| s["state"] == "up")
            .map(|s| id(s, "/host"))
            .collect();
        (up.len() == 2).then_some(up)
    })
    .await;
    let here = hosts.iter().find(|h| *h != "two").unwrap();
    let c = r.project("alpha").await;
    // Of two hosts the one with fewer routers gets the next.
    c.post("/network/v2.0/routers", &json!({"router": {"name": "first"}}))
        .await
        .expect(201);
    let (net, router) = r.network(&c).await;
    let agents = r
        .admin
        .get(&format!("/network/v2.0/routers/{router}/l3-agents"))
        .await
        .expect(200);
    assert_eq!(agents["agents"][0]["host"], "two");
    r.group(&c).await;
    only(&admin, here).await;
    let a = r.server(&c, "one", &net, "10.9.0.10").await;
    r.wait(&c, &a, "ACTIVE").await;
    only(&admin, "two").await;
    let b = r.server(&c, "two", &net, "10.9.0.11").await;
    r.wait(&c, &b, "ACTIVE").await;
    let ports = r
        .admin
        .get(&format!("/network/v2.0/ports?network_id={net}"))
        .await
        .expect(200);
    let on: std::collections::BTreeSet<&str> = ports["ports"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|p| p["device_owner"].as_str().unwrap().starts_with("compute:"))
        .map(|p| p["binding:host_id"].as_str().unwrap())
        .collect();
    assert_eq!(on.len(), 2, "a guest on each host");
    let (_, address) = r.floating(&c, &a).await;
    let (_, address_b) = r.floating(&c, &b).await;
    // Through the router's host to the guest of the other one: it has its address from DHCP, its name from its host.
    let login = async |address: &str, command: &str| {
        eventually(&format!("login on {address}"), Duration::from_secs(90), || async {
            let o = two.enter(r.ssh(address, command)).output().unwrap();
            o.status
                .success()
                .then(|| String::from_utf8_lossy(&o.stdout).trim().to_owned())
        })
        .await
    };
    assert_eq!(login(&address, "hostname").await, "one");
    assert_eq!(login(&address_b, "hostname").await, "two");
    let seen = "wget -q -O - http://169.254.169.254/openstack/latest/meta_data.json";
    for (ip, server) in [(&address, &a), (&address_b, &b)] {
        let seen = login(ip, &format!("timeout 20 {seen}")).await;
        assert!(seen.contains(server.as_str()), "{seen}");
    }
    for (ip, other) in [(&address, "10.9.0.11"), (&address_b, "10.9.0.10")] {
        login(ip, &format!("ping -c1 -W1 {other}")).await;
    }
    r.cloud.audit().await;
    // A guest moves to the other host and back while somebody is logged in to it.
    let mut counting = Counting::start(two.enter(r.ssh(&address, COUNT)));
    for host in ["two", here.as_str()] {
        counting.goes_on();
        only(&admin, host).await;
        let body = json!({"os-migrateLive": {"host": host, "block_migration": "auto"}});
        let path = format!("/compute/v2.1/servers/{a}/action");
        r.admin.at("compute 2.25").post(&path, &body).await.expect(202);
        eventually(&format!("it is on {host}"), Duration::from_secs(60), || async {
            let s = r.admin.get(&format!("/compute/v2.1/servers/{a}")).await.expect(200);
            let server = &s["server"];
            assert!(
                server["status"] == "ACTIVE" || server["status"] == "MIGRATING",
                "{server}"
            );
            (server["OS-EXT-SRV-ATTR:host"] == host && server["OS-EXT-STS:task_state"].is_null()).then_some(())
        })
        .await;
        counting.goes_on();
        r.cloud.audit().await;
    }
    // Figures are for reading: a busy machine is no broken promise, the session that lives is the one.
    println!("the longest silence of the session: {:?}", counting.longest);
    drop(counting);
    // The router's host is gone.
    assert!(!speaks_ssh(&address), "the router is on the other host");
    two.cut();
    let gone = Instant::now();
    // One attempt beside the other: each may hang for as long as nobody answers.
    let (said, answers) = std::sync::mpsc::channel();
    loop {
        let (said, address) = (said.clone(), address.clone());
        std::thread::spawn(move || speaks_ssh(&address).then(|| said.send(())));
        match answers.recv_timeout(Duration::from_millis(100)) {
            Ok(()) => break,
            Err(_) => assert!(
                gone.elapsed() < Duration::from_secs(30),
                "not reached\n{}",
                r.cloud.tail()
            ),
        }
    }
    let took = gone.elapsed();
    println!("the guest was reached again after {took:?}");
    let agents = r
        .admin
        .get(&format!("/network/v2.0/routers/{router}/l3-agents"))
        .await
        .expect(200);
    assert_eq!(agents["agents"][0]["host"], here.as_str());
}
