//! Machines that join a cloud, and leave it: with fake drivers, over TLS, each with a state directory of its own.

use crate::setup::{Ready, id, options};
use data_encoding::BASE64;
use haneul_agent_api::{Join, Joined, PROTOCOL};
use haneul_testkit::{Cloud, Member, Options, eventually};
use haneul_tls::{Identity, KeyPair, Trust};
use http::Method;
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use std::process::Output;
use std::time::{Duration, Instant};

pub fn with_hosts() -> Options {
    let mut options = options();
    options.sets.push(Cloud::fleet_listen());
    options.sets.push("agent.underlay=192.0.2.1".into());
    options
}

fn said(out: &Output) -> String {
    let text = [out.stdout.as_slice(), out.stderr.as_slice()].concat();
    String::from_utf8_lossy(&text).into_owned()
}

/// Runs a command of the control plane.
fn haneul(cloud: &Cloud, args: &[&str]) -> Output {
    cloud.command().args(args).output().unwrap()
}

/// Creates a server on a host, and waits until it is there.
pub async fn server_on(r: &Ready, host: &str) -> String {
    let mut body = r.server(&format!("on-{host}"), "tiny");
    body["server"]["availability_zone"] = format!("nova:{host}").into();
    let made = r.admin.post("/compute/v2.1/servers", &body).await.expect(202);
    let server = id(&made, "/server/id");
    let shown = r.wait(&server, "ACTIVE").await;
    assert_eq!(shown["OS-EXT-SRV-ATTR:host"], host, "{shown}");
    server
}

/// A host that says that it has more than before gets what it says, and not unseen: until an operator accepts it, or it
/// says so no more.
#[tokio::test(flavor = "multi_thread")]
async fn fake_hosts_that_have_more_than_before_are_seen() {
    let r = Ready::new(with_hosts()).await;
    let mut two = Member::join(&r.cloud, "two", None, &["agent.fake_vcpus=8"]).await;
    let mut comes_back_with = async |vcpus: u32| {
        two.stop_agent();
        two.is(&r.cloud, "down").await;
        two.set(&format!("agent.fake_vcpus={vcpus}"));
        two.start_agent();
        two.is(&r.cloud, "up").await;
    };
    let shown = || said(&haneul(&r.cloud, &["host", "show", "two"]));
    // However often it says so.
    for _ in 0..2 {
        comes_back_with(64).await;
        let shown = shown();
        assert!(shown.contains("used of 64"), "{shown}");
        assert!(
            shown.contains("64 VCPU, 8 before: `haneul host enable two` accepts it"),
            "{shown}"
        );
        let found = r.cloud.admin(Method::GET, "/admin/v1/audit").await.unwrap();
        assert!(found.to_string().contains("64 VCPU, 8 before"), "{found}");
    }
    // What is lost and found again is not more.
    for vcpus in [4, 8] {
        comes_back_with(vcpus).await;
        assert!(!shown().contains("before"), "{}", shown());
        r.cloud.audit().await;
    }
    comes_back_with(32).await;
    assert!(shown().contains("32 VCPU, 8 before"), "{}", shown());
    let enabled = said(&haneul(&r.cloud, &["host", "enable", "two"]));
    assert!(enabled.contains("accepted     32 VCPU, 8 before"), "{enabled}");
    comes_back_with(32).await;
    assert!(!shown().contains("before"), "{}", shown());
    r.cloud.audit().await;
}

/// Three hosts are one cloud: what they have is in placement within 5 s, servers run on each, and one leaves.
#[tokio::test(flavor = "multi_thread")]
async fn fake_hosts_join_hold_servers_and_leave() {
    let r = Ready::new(with_hosts()).await;
    // One for each host, and `two` is going to leave.
    let router = async |n: usize| {
        let router = json!({"router": {"name": format!("router-{n}")}});
        r.admin.post("/network/v2.0/routers", &router).await.expect(201);
    };
    router(0).await;
    let check = said(&haneul(&r.cloud, &["ha", "check"]));
    assert!(check.contains("1 routers are on "), "{check}");
    let began = Instant::now();
    let two = Member::join(&r.cloud, "two", None, &["agent.fake_vcpus=8"]).await;
    let mut three = Member::join(&r.cloud, "three", None, &[]).await;
    for n in 1..3 {
        router(n).await;
    }
    // The others' would go to each other.
    let check = said(&haneul(&r.cloud, &["ha", "check"]));
    let stay: Vec<&str> = check.lines().filter(|l| l.contains("routers are on ")).collect();
    assert!(
        stay.len() == 1 && stay[0].ends_with("nothing moves without the control plane."),
        "{check}"
    );
    let providers = r.admin.get("/placement/resource_providers?name=two").await.expect(200);
    let provider = providers["resource_providers"][0]["uuid"].as_str().unwrap().to_owned();
    assert_eq!(provider, two.id());
    let path = format!("/placement/resource_providers/{provider}/inventories");
    let stock = r.admin.get(&path).await.expect(200);
    assert_eq!(stock["inventories"]["VCPU"]["total"], 8);
    assert!(began.elapsed() < Duration::from_secs(10), "both within 5 s each");
    let first = server_on(&r, "two").await;
    server_on(&r, "three").await;
    r.cloud.audit().await;

    let list = haneul(&r.cloud, &["host", "list"]);
    let list = said(&list);
    for name in ["two", "three"] {
        let line = list
            .lines()
            .find(|l| l.starts_with(name))
            .unwrap_or_else(|| panic!("{list}"));
        assert!(line.contains(" up ") && line.contains(" 1 "), "{line}");
    }
    // A host that holds servers stays; the refusal names them.
    let refused = haneul(&r.cloud, &["host", "remove", "two"]);
    assert!(!refused.status.success());
    let why = said(&refused);
    assert!(
        why.contains("holds 1 servers: on-two") && why.contains("drain"),
        "{why}"
    );
    // Emptied, it keeps nothing but what cannot move, which is named with its reason, and gets nothing new.
    let stopped = server_on(&r, "two").await;
    r.action(&stopped, json!({"os-stop": null})).await.expect(202);
    r.wait(&stopped, "SHUTOFF").await;
    let asleep = server_on(&r, "two").await;
    r.action(&asleep, json!({"suspend": null})).await.expect(202);
    r.wait(&asleep, "SUSPENDED").await;
    let drained = haneul(&r.cloud, &["host", "drain", "two"]);
    let text = said(&drained);
    assert!(
        !drained.status.success() && text.contains("1 servers stay on host two; 2 have moved"),
        "{text}"
    );
    assert!(
        text.contains(&asleep) && text.contains("only servers that run, are paused or stopped can be moved"),
        "{text}"
    );
    let shown = r.wait(&first, "ACTIVE").await;
    assert_ne!(shown["OS-EXT-SRV-ATTR:host"], "two", "{shown}");
    let shown = r.wait(&stopped, "SHUTOFF").await;
    assert_ne!(shown["OS-EXT-SRV-ATTR:host"], "two", "{shown}");
    r.delete(&stopped).await;
    r.delete(&asleep).await;
    let drained = haneul(&r.cloud, &["host", "drain", "two"]);
    assert!(said(&drained).contains("Host two is empty"), "{}", said(&drained));
    let mut body = r.server("late", "tiny");
    body["server"]["availability_zone"] = "nova:two".into();
    let late = r.admin.post("/compute/v2.1/servers", &body).await;
    let refused = match late.status {
        202 => r.wait(&id(&late.body, "/server/id"), "ERROR").await.to_string(),
        _ => late.text.clone(),
    };
    assert!(refused.contains("two"), "{refused}");
    if late.status == 202 {
        r.delete(&id(&late.body, "/server/id")).await;
    }
    r.cloud.audit().await;
    // An agent that ends is missed, and comes back.
    three.kill_agent();
    three.is(&r.cloud, "down").await;
    three.start_agent();
    three.is(&r.cloud, "up").await;
    let removed = haneul(&r.cloud, &["host", "remove", "two"]);
    assert!(removed.status.success(), "{}", said(&removed));
    // What was a host learns why it is none, and its certificate opens nothing any more.
    eventually("the host knows", Duration::from_secs(30), || async {
        let status = two.command().arg("status").output().unwrap();
        said(&status).contains("is not a member of this cloud").then_some(())
    })
    .await;
    let hosts = r.admin.get("/compute/v2.1/os-hypervisors").await.expect(200);
    assert_eq!(hosts["hypervisors"].as_array().unwrap().len(), 2, "{hosts}");
    let providers = r.admin.get("/placement/resource_providers").await.expect(200);
    assert_eq!(providers["resource_providers"].as_array().unwrap().len(), 2);
    let again = two.run_join("https://127.0.0.1:1", "haneul1.a.b.c");
    assert!(said(&again).contains("no token of a Haneul cloud"), "{}", said(&again));
    // What it has of then may be elsewhere by now.
    let (url, token) = r.cloud.host_token(json!({})).await;
    let again = two.run_join(&url, &token);
    assert!(
        !again.status.success() && said(&again).contains("was removed from this cloud"),
        "{}",
        said(&again)
    );
    r.cloud.audit().await;
}

/// Who may not join is told why, and nothing is left of the attempt.
#[tokio::test(flavor = "multi_thread")]
async fn fake_hosts_that_may_not_join_are_told_why() {
    let r = Ready::new(with_hosts()).await;
    let (url, token) = r.cloud.host_token(json!({})).await;
    let stranger = Member::prepare(&r.cloud, "stranger", None);
    let refused = |url: &str, token: &str, why: &str| {
        let out = stranger.run_join(url, token);
        let text = said(&out);
        assert!(!out.status.success() && text.contains(why), "{why}: {text}");
        assert!(!stranger.dir.join("agent/membership.json").exists());
    };
    let parts: Vec<&str> = token.split('.').collect();
    let forged = |id: &str, secret: &str, print: &str| format!("haneul1.{id}.{secret}.{print}");
    let other = "0".repeat(64);
    refused(&url, &forged(parts[1], "guess", parts[3]), "not made by this cloud");
    refused(&url, &forged("guess", parts[2], parts[3]), "not made by this cloud");
    // Whoever answers at the address without being the cloud never hears the secret.
    refused(
        &url,
        &forged(parts[1], parts[2], &other),
        "speaks no TLS that this machine trusts",
    );
    refused(&url, "haneul1.x", "no token of a Haneul cloud");
    refused("https://127.0.0.1:1", &token, "127.0.0.1:1 does not answer");
    refused("https://a/b", &token, "write the URL");
    let (_, short) = r.cloud.host_token(json!({"minutes": 1})).await;

    // A machine whose clock or release is too far away: the same message, by hand.
    let host = uuid::Uuid::new_v4();
    let key = KeyPair::generate().unwrap();
    let join = |token: &str, ahead: i64, protocol: u32| Join {
        token: token.to_owned(),
        protocol,
        release: "9.9.9".into(),
        host_id: host,
        host_name: "by hand".into(),
        public_key: BASE64.encode(&key.public()),
        clock: haneul_core::clock::now() + ahead,
        again: false,
    };
    let print = parts[3];
    let (status, text) = say(&url, print, &join(&short, 3_600_000_000, PROTOCOL)).await;
    assert!(status == 400 && text.contains(" min ahead"), "{status} {text}");
    let (status, text) = say(&url, print, &join(&short, -90_000_000, PROTOCOL)).await;
    assert!(status == 400 && text.contains("90 s behind"), "{status} {text}");
    let (status, text) = say(&url, print, &join(&short, 0, PROTOCOL + 2)).await;
    assert!(
        status == 400 && text.contains("neighbouring releases"),
        "{status} {text}"
    );
    let mut wrong = join(&short, 0, PROTOCOL);
    wrong.public_key = "AAAA".into();
    let (status, text) = say(&url, print, &wrong).await;
    assert!(status == 400 && text.contains("P-256"), "{status} {text}");
    let mut huge = join(&short, 0, PROTOCOL);
    huge.host_name = "x".repeat(32 << 10);
    let (status, text) = say(&url, print, &huge).await;
    assert!(status == 400 && text.contains("longer than"), "{status} {text}");

    // The first answer may have been lost: the same machine asks again with its key and gets the same membership.
    let (status, first) = say(&url, print, &join(&short, 0, PROTOCOL)).await;
    assert_eq!(status, 200, "{first}");
    let (status, second) = say(&url, print, &join(&short, 0, PROTOCOL)).await;
    assert_eq!(status, 200, "{second}");
    let cloud = |text: &str| serde_json::from_str::<Joined>(text).unwrap().cloud_id;
    assert_eq!(cloud(&first), cloud(&second));
    refused(&url, &short, "was used");
    // The real one joins, once.
    let out = stranger.run_join(&url, &token);
    assert!(out.status.success(), "{}", said(&out));
    let again = said(&stranger.run_join(&url, &token));
    assert!(
        again.contains("is a host of cloud") && again.contains("already"),
        "{again}"
    );
    let twice = Member::prepare(&r.cloud, "twice", None);
    let out = said(&twice.run_join(&url, &token));
    assert!(out.contains("was used"), "{out}");
    // A second machine with the first one's id is refused, but for a token that is for it.
    let (_, fresh) = r.cloud.host_token(json!({})).await;
    std::fs::copy(stranger.dir.join("agent/host-id"), twice.dir.join("agent/host-id")).unwrap();
    let out = said(&twice.run_join(&url, &fresh));
    assert!(out.contains("is in this cloud already"), "{out}");
    let control = r
        .cloud
        .command()
        .args(["join", "--no-start", &url, &fresh])
        .output()
        .unwrap();
    assert!(
        said(&control).contains("control plane of its own"),
        "{}",
        said(&control)
    );
    r.cloud.audit().await;
}

/// A host's certificate speaks for that host alone, whatever it says.
#[tokio::test(flavor = "multi_thread")]
async fn fake_hosts_speak_for_themselves_only() {
    let r = Ready::new(with_hosts()).await;
    let victim = Member::join(&r.cloud, "victim", None, &[]).await;
    let mut thief = Member::join(&r.cloud, "thief", None, &[]).await;
    thief.stop_agent();
    thief.is(&r.cloud, "down").await;
    let server = server_on(&r, "victim").await;
    let (thief_id, victim_id) = (thief.id(), victim.id());
    let speaker = Speaker::of(&thief);
    let ask = async |method, path: &str, body: Value| speaker.ask(method, path, &body.to_string()).await;
    let greeting = |host: &str| {
        json!({"protocol": PROTOCOL, "release": "1", "host_id": host, "host_name": "thief", "boot_id": "",
            "inventory": {"vcpus": 1, "memory_mib": 1, "disk_gib": 1},
            "hypervisor": {"kind": "fake", "version": 1, "accelerator": "fake", "arch": "x86_64", "cpu_model": "", "cpu_vendor": ""}})
    };
    let gone =
        json!({"host_id": victim_id, "gone": [{"kind": "guest", "id": server, "epoch": 1, "generation": 1u64 << 40}]});
    let image = format!("/agent/v1/images/{}", r.image);
    for (method, path, body, status, why) in [
        (
            Method::POST,
            "/agent/v1/greet".to_owned(),
            greeting(&victim_id),
            403,
            "speaks for host",
        ),
        (
            Method::GET,
            format!("/agent/v1/watch?host={victim_id}"),
            Value::Null,
            403,
            "speaks for host",
        ),
        (
            Method::POST,
            "/agent/v1/report".to_owned(),
            gone,
            403,
            "speaks for host",
        ),
        (Method::GET, image, Value::Null, 403, "No guest of this host"),
        (
            Method::POST,
            format!("/agent/v1/streams/{server}"),
            json!("x"),
            404,
            "Nobody waits",
        ),
        (
            Method::POST,
            format!("/agent/v1/tunnels/{server}"),
            json!("x"),
            404,
            "Nobody waits",
        ),
        (
            Method::POST,
            "/agent/v1/greet".to_owned(),
            json!({"x": 1}),
            400,
            "not of this protocol",
        ),
    ] {
        let (got, text) = ask(method, &path, body).await;
        assert!(got == status && text.contains(why), "{path}: {got} {text}");
    }
    // What it says of somebody else's guest in its own name changes nothing.
    let lie = json!({"host_id": thief_id, "guests": [{"id": server, "epoch": 1, "generation": 1u64 << 40, "settled": true, "state": "stopped"}]});
    let (status, text) = ask(Method::POST, "/agent/v1/report", lie).await;
    assert_eq!(status, 200, "{text}");
    let path = format!("/compute/v2.1/servers/{server}");
    let shown = r.admin.get(&path).await.expect(200);
    assert_eq!(shown["server"]["status"], "ACTIVE");
    // More than it has: an operator sees the change and who made it.
    let mut more = greeting(&thief_id);
    more["inventory"]["vcpus"] = 60_000.into();
    let (status, text) = ask(Method::POST, "/agent/v1/greet", more).await;
    assert_eq!(status, 200, "{text}");
    let changes = said(&haneul(
        &r.cloud,
        &["changes", "--kind", "host", "--id", &thief_id, "--json"],
    ));
    assert!(
        changes.contains("60000") && changes.contains(&format!("agent:{thief_id}")),
        "{changes}"
    );
    // Without a certificate nothing is answered but a machine that joins.
    let (url, token) = r.cloud.host_token(json!({})).await;
    let print = token.rsplit('.').next().unwrap();
    let address = url.trim_start_matches("https://");
    let stream = haneul_tls::connect(address, &Trust::Fingerprint(print)).await.unwrap();
    let (status, text) = exchange(
        stream,
        Method::POST,
        "/agent/v1/greet",
        greeting(&victim_id).to_string(),
    )
    .await;
    assert!(
        status == 403 && text.contains("certificate of its membership"),
        "{status} {text}"
    );
    thief.start_agent();
    thief.is(&r.cloud, "up").await;
    r.cloud.audit().await;
}

/// Says to control whatever it wants, with a member's certificate.
pub struct Speaker {
    pub control: String,
    authority: String,
    identity: Identity,
}

impl Speaker {
    pub fn of(member: &Member) -> Speaker {
        let kept = std::fs::read(member.dir.join("agent/membership.json")).unwrap();
        let kept: Value = serde_json::from_slice(&kept).unwrap();
        let text = |key: &str| kept[key].as_str().unwrap().to_owned();
        Speaker {
            control: text("control"),
            authority: text("authority"),
            identity: Identity {
                certificate: text("certificate"),
                key: text("key"),
            },
        }
    }

    pub async fn connect(&self) -> impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + use<> {
        let trust = Trust::Member {
            authority: &self.authority,
            identity: &self.identity,
        };
        haneul_tls::connect(&self.control, &trust).await.unwrap()
    }

    pub async fn ask(&self, method: Method, path: &str, body: &str) -> (u16, String) {
        exchange(self.connect().await, method, path, body.to_owned()).await
    }
}

/// Says to control, as a machine that has no certificate, that it wants to join.
async fn say(url: &str, print: &str, join: &Join) -> (u16, String) {
    let address = url.trim_start_matches("https://");
    let stream = haneul_tls::connect(address, &Trust::Fingerprint(print)).await.unwrap();
    exchange(
        stream,
        Method::POST,
        "/agent/v1/join",
        serde_json::to_string(join).unwrap(),
    )
    .await
}

async fn exchange<S>(stream: S, method: Method, path: &str, body: String) -> (u16, String)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let io = hyper_util::rt::TokioIo::new(stream);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = http::Request::builder()
        .method(method)
        .uri(path)
        .header("host", "control")
        .body(Full::new(bytes::Bytes::from(body)))
        .unwrap();
    let answer = sender.send_request(request).await.unwrap();
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    connection.abort();
    (status, String::from_utf8_lossy(&body).into_owned())
}
