//! Balancing on the built binary: three hosts, one of which has all the servers.

use crate::setup::{Ready, id, options};
use haneul_testkit::{Cloud, Member, eventually};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::process::Output;
use std::time::Duration;

const SIZE: [&str; 3] = [
    "agent.fake_vcpus=4",
    "agent.fake_memory_mib=4096",
    "agent.fake_disk_gib=100",
];

fn said(out: &Output) -> String {
    let text = [out.stdout.as_slice(), out.stderr.as_slice()].concat();
    String::from_utf8_lossy(&text).into_owned()
}

async fn servers_by_host(r: &Ready) -> BTreeMap<String, Vec<String>> {
    let all = r
        .admin
        .get("/compute/v2.1/servers/detail?all_tenants=1")
        .await
        .expect(200);
    let mut out: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for s in all["servers"].as_array().unwrap() {
        let text = |key: &str| s[key].as_str().unwrap_or_default().to_owned();
        out.entry(text("OS-EXT-SRV-ATTR:host")).or_default().push(text("id"));
    }
    out
}

#[tokio::test(flavor = "multi_thread")]
async fn fake_hosts_are_balanced_and_then_left_alone() {
    let mut options = options();
    options.sets.push(Cloud::fleet_listen());
    options.sets.push("agent.underlay=192.0.2.1".into());
    options.sets.extend(SIZE.map(str::to_owned));
    let r = Ready::new(options).await;
    let _two = Member::join(&r.cloud, "two", None, &SIZE).await;
    let _three = Member::join(&r.cloud, "three", None, &SIZE).await;
    // Two of six may share no host with each other.
    let group =
        json!({"server_group": {"name": "apart", "policy": "anti-affinity", "rules": {"max_server_per_host": 2}}});
    let group = r
        .admin
        .at("compute 2.64")
        .post("/compute/v2.1/os-server-groups", &group)
        .await
        .expect(200);
    let group = id(&group, "/server_group/id");
    let mut all = Vec::new();
    for n in 0..6 {
        let mut body = r.server(&format!("n{n}"), "tiny");
        body["server"]["availability_zone"] = "nova:two".into();
        if n < 2 {
            body["os:scheduler_hints"] = json!({"group": group});
        }
        let made = r.admin.post("/compute/v2.1/servers", &body).await.expect(202);
        all.push(id(&made, "/server/id"));
    }
    for server in &all {
        r.wait(server, "ACTIVE").await;
    }
    let haneul = |args: &[&str]| r.cloud.command().args(args).output().unwrap();
    let plan = haneul(&["balance", "--json"]);
    let plan: Value = serde_json::from_slice(&plan.stdout).unwrap_or_else(|_| panic!("{}", said(&plan)));
    let moves = plan["moves"].as_array().unwrap();
    assert_eq!(moves.len(), 4, "{plan:#}");
    assert!(
        moves
            .iter()
            .all(|m| m["from"] == "two" && m["gain"].as_f64().unwrap() >= 0.5),
        "{plan:#}"
    );
    assert_eq!(servers_by_host(&r).await["two"].len(), 6, "a plan changes nothing");
    let done = haneul(&["balance", "--apply"]);
    assert!(done.status.success(), "{}", said(&done));
    let text = said(&done);
    assert!(text.contains("4 moves were made; the imbalance was"), "{text}");
    println!("{text}");
    let on = servers_by_host(&r).await;
    assert!(on.len() == 3 && on.values().all(|s| s.len() == 2), "{on:?}");
    for server in &all {
        r.wait(server, "ACTIVE").await;
    }
    r.cloud.audit().await;
    // What has moved rests, even when it would gain.
    let stays = &on["two"];
    for server in stays {
        r.delete(server).await;
    }
    eventually("they are gone", Duration::from_secs(30), || async {
        (!servers_by_host(&r).await.contains_key("two")).then_some(())
    })
    .await;
    let again = said(&haneul(&["balance"]));
    assert!(
        again.contains("it was moved less than an hour ago") && again.contains("after 0 moves"),
        "{again}"
    );
    println!("{again}");
    for wrong in ["0", "NaN", "101"] {
        let refused = haneul(&["balance", "--min-gain", wrong]);
        assert!(
            !refused.status.success() && said(&refused).contains("--min-gain"),
            "{}",
            said(&refused)
        );
    }
    r.cloud.audit().await;
}

/// By itself: while each move takes as long as somebody lets it, four are under way and never more, and when the hosts are
/// alike nothing moves any more.
#[tokio::test(flavor = "multi_thread")]
async fn fake_hosts_balance_by_themselves_a_few_moves_at_a_time() {
    const LIMIT: Duration = Duration::from_secs(60);
    let mut options = options();
    options.sets.push(Cloud::fleet_listen());
    options.sets.push("agent.underlay=192.0.2.1".into());
    options.sets.extend(SIZE.map(str::to_owned));
    let balance = ["automatic=true", "interval_s=1", "max_moves=16"];
    options.sets.extend(balance.map(|b| format!("balance.{b}")));
    let r = Ready::new(options).await;
    let admin = r.admin.at("compute 2.96");
    r.slow_flavor().await;
    for n in 0..10 {
        let body = r.server(&format!("n{n}"), "slow");
        let made = admin.post("/compute/v2.1/servers", &body).await.expect(202);
        r.wait(&id(&made, "/server/id"), "ACTIVE").await;
    }
    let _two = Member::join(&r.cloud, "two", None, &SIZE).await;
    let moving = async || {
        let path = "/compute/v2.1/os-migrations?status=running&migration_type=live-migration";
        let all = admin.get(path).await.expect(200)["migrations"].clone();
        let all = all.as_array().unwrap().clone();
        assert!(all.len() <= 4, "{} moves at once", all.len());
        all
    };
    eventually("four servers move", LIMIT, || async {
        (moving().await.len() == 4).then_some(())
    })
    .await;
    eventually("each host has five, and nothing moves", LIMIT, || async {
        let all = moving().await;
        for m in &all {
            let (server, number) = (m["instance_uuid"].as_str().unwrap(), &m["id"]);
            let path = format!("/compute/v2.1/servers/{server}/migrations/{number}/action");
            // It may be over by now.
            admin.post(&path, &json!({"force_complete": null})).await;
        }
        let on = servers_by_host(&r).await;
        (all.is_empty() && on.len() == 2 && on.values().all(|s| s.len() == 5)).then_some(())
    })
    .await;
    r.cloud.audit().await;
}
