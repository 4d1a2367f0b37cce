//! Certificates of hosts: renewed before they end, and taken up again by the same host when they have ended.

use crate::fake_hosts::{Speaker, server_on, with_hosts};
use crate::setup::{Ready, record};
use haneul_core::clock::SECOND;
use haneul_testkit::{Cloud, Member, eventually};
use http::Method;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);
const HOUR: i64 = 3600 * SECOND;
const DAY: i64 = 24 * HOUR;

fn said(out: &Output) -> String {
    let text = [out.stdout.as_slice(), out.stderr.as_slice()].concat();
    String::from_utf8_lossy(&text).into_owned()
}

/// Sets the clock of a machine that is not at work, or will see it in a moment.
fn clock(dir: &Path, off: i64) {
    std::fs::create_dir_all(dir.join("run")).unwrap();
    std::fs::write(dir.join("run/clock"), off.to_string()).unwrap();
}

fn file(host: &Member) -> PathBuf {
    host.dir.join("agent/membership.json")
}

fn kept(host: &Member) -> Value {
    serde_json::from_slice(&std::fs::read(file(host)).unwrap()).unwrap()
}

fn certificate(host: &Member) -> String {
    kept(host)["certificate"].as_str().unwrap().to_owned()
}

/// Runs what `haneul host token` printed.
fn join_again(cloud: &Cloud, host: &Member, args: &[&str]) -> Output {
    let token = cloud.command().args(["host", "token"]).args(args).output().unwrap();
    assert!(token.status.success(), "{}", said(&token));
    let text = said(&token);
    let words: Vec<&str> = text.split_whitespace().collect();
    let at = words.iter().position(|w| *w == "join").unwrap();
    host.run_join(words[at + 1], words[at + 2])
}

/// With a third of its certificate's life left a host has the next one, and is what it was by that.
#[tokio::test(flavor = "multi_thread")]
async fn fake_memberships_are_renewed_before_they_end() {
    let r = Ready::new(with_hosts()).await;
    let mut one = Member::join(&r.cloud, "one", None, &[]).await;
    let server = server_on(&r, "one").await;
    let before = certificate(&one);
    one.kill_agent();
    clock(&one.dir, 21 * DAY);
    one.start_agent();
    eventually("it has another certificate", LIMIT, || async {
        (certificate(&one) != before).then_some(())
    })
    .await;
    let now = certificate(&one);
    // By this one it is known, and the link goes on.
    let (status, text) = Speaker::of(&one).ask(Method::POST, "/agent/v1/greet", "{}").await;
    assert!(
        status == 400 && text.contains("not of this protocol"),
        "{status} {text}"
    );
    one.kill_agent();
    clock(&one.dir, 0);
    one.is(&r.cloud, "down").await;
    one.start_agent();
    one.is(&r.cloud, "up").await;
    assert_eq!(certificate(&one), now, "renewed again and again");
    r.wait(&server, "ACTIVE").await;
    let shown = said(&r.cloud.command().args(["host", "show", "one"]).output().unwrap());
    for (name, is) in [
        ("version", "1.0.0"),
        ("accelerator", "fake"),
        ("underlay", ", MTU 1500"),
    ] {
        let line = shown.lines().find(|l| l.starts_with(name));
        assert!(line.is_some_and(|l| l.ends_with(is)), "{name}: {shown}");
    }
    r.cloud.audit().await;
}

/// A host that was off for longer than its certificate lives, or whose file is damaged, says what to do; that lets it back
/// with its guests, and nobody else in its place.
#[tokio::test(flavor = "multi_thread")]
async fn fake_memberships_that_have_ended_are_taken_up_again() {
    // A month ago, but for a moment: the certificate that is made then is good for this moment still.
    let past = 20 * SECOND - 30 * DAY;
    let mut cloud = Cloud::prepare(with_hosts());
    clock(&cloud.dir, past);
    cloud.start_serve();
    cloud.start_agent();
    cloud.ready().await;
    let mut r = Ready::on(cloud).await;
    let mut one = Member::prepare(&r.cloud, "one", None);
    clock(&one.dir, past);
    let out = join_again(&r.cloud, &one, &[]);
    assert!(out.status.success(), "{}", said(&out));
    one.start_agent();
    one.is(&r.cloud, "up").await;
    let server = server_on(&r, "one").await;
    let guest = |one: &Member| record(&one.dir, &server).map(|g| (g["state"].clone(), g["started_at"].clone()));
    let before = guest(&one);
    assert_eq!(before.as_ref().unwrap().0, "running");
    one.kill_agent();

    // Today.
    clock(&r.cloud.dir, 0);
    clock(&one.dir, 0);
    one.is(&r.cloud, "down").await;
    eventually("its certificate has expired", LIMIT, || async {
        // A certificate's times are whole seconds.
        let end = kept(&one)["expires_at"].as_i64().unwrap() + 2 * SECOND;
        (haneul_core::clock::now() > end).then_some(())
    })
    .await;
    one.start_agent();
    eventually("the host says what to do", LIMIT, || async {
        let status = one.command().arg("status").output().unwrap();
        said(&status)
            .contains("`haneul host token --for` this host")
            .then_some(())
    })
    .await;
    // Not by a token for anybody, nor by another cloud's; nor does another host by a token for this one.
    let refused = said(&join_again(&r.cloud, &one, &[]));
    assert!(refused.contains("`haneul host token --for"), "{refused}");
    let (url, token) = r.cloud.host_token(json!({"host": "one"})).await;
    let print = token.rsplit('.').next().unwrap();
    let refused = said(&one.run_join(&url, &token.replace(print, &"0".repeat(64))));
    assert!(refused.contains("this token is another cloud's"), "{refused}");
    let two = Member::prepare(&r.cloud, "two", None);
    let refused = said(&two.run_join(&url, &token));
    assert!(refused.contains("This token is for host"), "{refused}");
    // Its agent, which asks all the while, goes on by itself.
    let out = join_again(&r.cloud, &one, &["--for", "one"]);
    assert!(out.status.success(), "{}", said(&out));
    one.is(&r.cloud, "up").await;
    assert_eq!(guest(&one), before);

    one.kill_agent();
    one.is(&r.cloud, "down").await;
    std::fs::write(file(&one), "{\"control\": ").unwrap();
    let out = one.command().arg("agent").output().unwrap();
    assert!(said(&out).contains("is damaged"), "{}", said(&out));
    let out = join_again(&r.cloud, &one, &["--for", "one"]);
    assert!(out.status.success(), "{}", said(&out));
    one.start_agent();
    one.is(&r.cloud, "up").await;
    assert_eq!(guest(&one), before);
    r.admin = r.cloud.admin_client().await;
    r.wait(&server, "ACTIVE").await;
    r.cloud.audit().await;
}

/// A machine whose clock is wrong is told so, by how much and against what, however wrong it is; nothing is left of the
/// attempt, and its token is good still.
#[tokio::test(flavor = "multi_thread")]
async fn fake_memberships_need_a_clock_that_is_right() {
    let r = Ready::new(with_hosts()).await;
    let (url, token) = r.cloud.host_token(json!({})).await;
    let one = Member::prepare(&r.cloud, "one", None);
    for (off, why) in [
        (-30 * DAY, "29 days behind, at the least: set it"),
        (-3 * HOUR, "behind, at the least: set it"),
        (HOUR / 5, " min ahead of"),
        (30 * DAY, "days ahead of"),
        (100 * DAY, "days ahead, at the least: set it"),
    ] {
        clock(&one.dir, off);
        let out = one.run_join(&url, &token);
        let text = said(&out);
        assert!(!out.status.success() && text.contains(why), "{why}: {text}");
        assert!(!file(&one).exists());
    }
    clock(&one.dir, 0);
    let out = one.run_join(&url, &token);
    assert!(out.status.success(), "{}", said(&out));
}
