//! A member that says what no agent says: it is refused, control's memory stays bounded, and the other hosts notice
//! nothing.

use crate::fake_hosts::{Speaker, server_on, with_hosts};
use crate::setup::Ready;
use haneul_agent_api::{MAX_ITEMS, PROTOCOL};
use haneul_testkit::{Cloud, Dice, Member, eventually};
use haneul_tls::Trust;
use http::Method;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use uuid::Uuid;

/// Bytes of memory that control may take more.
const ROOM: u64 = 192 << 20;

/// Resident memory of control.
fn memory(cloud: &Cloud) -> u64 {
    let pid = cloud.pids().0.expect("control runs");
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("its status");
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).expect("its memory");
    let kib: u64 = line.split_whitespace().nth(1).expect("a number").parse().expect("KiB");
    kib << 10
}

#[tokio::test(flavor = "multi_thread")]
async fn fake_hostile_hosts_are_refused_and_hold_up_nobody() {
    let r = Ready::new(with_hosts()).await;
    let good = Member::join(&r.cloud, "good", None, &[]).await;
    let mut bad = Member::join(&r.cloud, "bad", None, &[]).await;
    let theirs = server_on(&r, "bad").await;
    bad.stop_agent();
    bad.is(&r.cloud, "down").await;
    let speaker = Speaker::of(&bad);
    let before = memory(&r.cloud);

    let hello = json!({"protocol": PROTOCOL, "release": "1", "host_id": bad.id(), "host_name": "bad", "boot_id": "",
        "inventory": {"vcpus": 1, "memory_mib": 1, "disk_gib": 1},
        "hypervisor": {"kind": "fake", "version": 1, "accelerator": "fake", "arch": "x86_64", "cpu_model": "", "cpu_vendor": ""}});
    let (status, welcome) = speaker.ask(Method::POST, "/agent/v1/greet", &hello.to_string()).await;
    assert_eq!(status, 200, "{welcome}");
    let session = serde_json::from_str::<Value>(&welcome).unwrap()["session"].clone();
    let seen = |id: &str, generation: u64| json!({"id": id, "epoch": 1, "generation": generation, "settled": true, "state": "stopped"});
    let report = |number: u64, guests: Vec<Value>| json!({"host_id": bad.id(), "session": session, "number": number, "guests": guests});
    let many: Vec<Value> = (0..=MAX_ITEMS as u128)
        .map(|n| seen(&Uuid::from_u128(n).to_string(), 1))
        .collect();
    let mut long = seen(&theirs, 1 << 40);
    long["progress"] = json!({"what": "x".repeat(200_000)});
    let mut named = hello.clone();
    named["host_name"] = "x".repeat(5000).into();
    let mut rich = hello.clone();
    rich["inventory"]["disk_gib"] = u64::MAX.into();
    for (path, text, why) in [
        ("greet", "x".repeat((1 << 20) + 1), "longer than 1048576 bytes"),
        ("greet", "[".repeat(1 << 19), "not of this protocol"),
        (
            "greet",
            named.to_string(),
            "The host's name has 5000 bytes, and 255 are the most",
        ),
        ("greet", rich.to_string(), "GiB of disk"),
        ("report", "{\"a\":".repeat(1 << 20), "not of this protocol"),
        ("report", "x".repeat((8 << 20) + 1), "longer than 8388608 bytes"),
        (
            "report",
            report(1, many).to_string(),
            "2001 observations in a report: 2000 are the most",
        ),
        ("report", report(1, vec![long]).to_string(), "131072 are the most"),
    ] {
        let (status, said) = speaker.ask(Method::POST, &format!("/agent/v1/{path}"), &text).await;
        assert!(status == 400 && said.contains(why), "{why}: {status} {said}");
    }
    // A report once, and again.
    let text = report(1, vec![]).to_string();
    let path = "/agent/v1/report";
    assert_eq!(speaker.ask(Method::POST, path, &text).await.0, 200);
    let (status, said) = speaker.ask(Method::POST, path, &text).await;
    assert!(status == 409 && said.contains("It changes nothing"), "{status} {said}");

    let mut dice = Dice::new(11);
    let valid = report(2, vec![seen(&theirs, 1)]);
    for n in 0..150 {
        let (path, mut text) = match n % 3 {
            0 => ("/agent/v1/greet", hello.to_string().into_bytes()),
            _ => (path, valid.to_string().into_bytes()),
        };
        dice.spoil(&mut text);
        let text = String::from_utf8_lossy(&text).into_owned();
        let (status, said) = speaker.ask(Method::POST, path, &text).await;
        assert!(status < 500, "{status} {said}: {text}");
    }
    // Bytes that are no TLS, and many messages that never come to their end.
    let address = speaker.control.as_str();
    let mut noise = tokio::net::TcpStream::connect(address).await.unwrap();
    let bytes: Vec<u8> = (0..100_000).map(|_| dice.range(0, 256) as u8).collect();
    let _ = noise.write_all(&bytes).await;
    let ended = tokio::time::timeout(Duration::from_secs(10), noise.read_to_end(&mut Vec::new())).await;
    assert!(ended.is_ok(), "what speaks no TLS is cut off");
    let mut slow = Vec::new();
    for _ in 0..20 {
        let mut stream = speaker.connect().await;
        let head = format!("POST {path} HTTP/1.1\r\nhost: control\r\ncontent-length: 8000000\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let _ = stream.write_all(&vec![b' '; 7 << 20]).await;
        slow.push(stream);
    }
    // The heads of those may be on their way still.
    eventually("one more is refused", Duration::from_secs(60), || async {
        let (status, said) = speaker.ask(Method::POST, path, &text).await;
        (status == 503 && said.contains("being read already")).then_some(())
    })
    .await;
    let after = memory(&r.cloud);
    assert!(after < before + ROOM, "control had {before} bytes, and has {after}");

    // The others go on meanwhile; and so does this one, when it is itself again.
    let server = server_on(&r, "good").await;
    r.delete(&server).await;
    drop(slow);
    bad.start_agent();
    bad.is(&r.cloud, "up").await;
    good.is(&r.cloud, "up").await;
    r.wait(&theirs, "ACTIVE").await;
    r.cloud.audit().await;
}

/// Who shows no certificate holds no place for long, however slowly it speaks, and keeps nobody out.
#[tokio::test(flavor = "multi_thread")]
async fn fake_hostile_strangers_keep_nobody_out() {
    const MOST: usize = 256;
    const MANY: usize = 150;
    let r = Ready::new(with_hosts()).await;
    let good = Member::join(&r.cloud, "good", None, &[]).await;
    let (url, token) = r.cloud.host_token(json!({})).await;
    let (address, print) = (url.trim_start_matches("https://"), token.rsplit('.').next().unwrap());
    let mut silent = Vec::new();
    for _ in 0..MANY {
        silent.push(tokio::net::TcpStream::connect(address).await.unwrap());
    }
    let mut slow = Vec::new();
    for _ in 0..MANY {
        let mut stream = haneul_tls::connect(address, &Trust::Fingerprint(print)).await.unwrap();
        stream
            .write_all(b"POST /agent/v1/join HTTP/1.1\r\nhost: control\r\n")
            .await
            .unwrap();
        slow.push(stream);
    }
    // All places are taken, and a machine joins all the same, and a host is one still.
    let late = Member::join(&r.cloud, "late", None, &[]).await;
    for member in [&good, &late] {
        member.is(&r.cloud, "up").await;
        let server = server_on(&r, &member.name).await;
        r.delete(&server).await;
    }
    let limit = Duration::from_secs(60);
    let (mut none, mut byte) = (Vec::new(), [0; 1]);
    for (n, stream) in silent.iter_mut().enumerate() {
        let ended = tokio::time::timeout(limit, stream.read(&mut byte)).await;
        assert_eq!(ended.expect("one that says nothing ends").unwrap_or(0), 0, "{n}");
    }
    for stream in &mut slow {
        let ended = tokio::time::timeout(limit, stream.read_to_end(&mut none)).await;
        let _ = ended.expect("one that never comes to the end of its headers ends");
    }
    // Said with its numbers, and not for each.
    let log = std::fs::read_to_string(r.cloud.dir.join("log/serve.log")).unwrap();
    let said: Vec<&str> = log
        .lines()
        .filter(|l| l.contains("did not show who they are"))
        .collect();
    assert!(!said.is_empty() && said.len() < 10, "{said:#?}");
    assert!(
        said[0].contains(&format!("{MOST}")) && said[0].contains("20"),
        "{}",
        said[0]
    );
    for member in [&good, &late] {
        member.is(&r.cloud, "up").await;
    }
    r.cloud.audit().await;
}
