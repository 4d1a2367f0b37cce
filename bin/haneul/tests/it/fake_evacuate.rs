//! Evacuation by hand (Nova API reference, "Evacuate Server"): of servers whose disks are on their lost host alone, once
//! somebody has said that it is off.

use crate::fake_lost_hosts::{end_guest, state};
use crate::setup::{Ready, id, options, record};
use haneul_testkit::{Cloud, Member, eventually};
use serde_json::{Value, json};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);

/// Waits until the server has come to rest somewhere else than on this host; answers it.
async fn has_left(r: &Ready, server: &str, host: &str, status: &str) -> Value {
    eventually(&format!("{server} is {status} and not on {host}"), LIMIT, || async {
        let s = r.show(server).await?;
        let rests = s["status"] == status && s["OS-EXT-STS:task_state"].is_null();
        (rests && s["OS-EXT-SRV-ATTR:host"] != host).then_some(s)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn fake_servers_are_evacuated_by_hand() {
    let mut options = options();
    options.sets.push(Cloud::fleet_listen());
    options.sets.push("agent.underlay=192.0.2.1".into());
    options.sets.push("ha.lost_after_s=1".into());
    let r = Ready::new(options).await;
    let mut one = Member::join(&r.cloud, "one", None, &[]).await;
    let mut two = Member::join(&r.cloud, "two", None, &[]).await;
    let mut servers = Vec::new();
    for name in ["runs", "stays-off"] {
        let mut body = r.server(name, "tiny");
        body["server"]["availability_zone"] = "nova:one".into();
        let made = r.admin.post("/compute/v2.1/servers", &body).await.expect(202);
        servers.push(id(&made, "/server/id"));
        r.wait(&servers[servers.len() - 1], "ACTIVE").await;
    }
    let evacuate = async |version: &str, server: &str, what: Value| {
        let path = format!("/compute/v2.1/servers/{server}/action");
        let body = json!({"evacuate": what});
        r.admin.at(&format!("compute {version}")).post(&path, &body).await
    };
    let refused = evacuate("2.60", &servers[0], json!({})).await;
    assert_eq!(refused.status, 400, "{}", refused.text);
    assert!(refused.text.contains("still in use"), "{}", refused.text);

    // Without power nobody knows that it is off.
    one.kill();
    for server in &servers {
        end_guest(&one.dir, server);
    }
    one.is(&r.cloud, "down").await;
    let refused = evacuate("2.60", &servers[0], json!({})).await;
    assert_eq!(refused.status, 400, "{}", refused.text);
    assert!(refused.text.contains("haneul host fence one"), "{}", refused.text);
    let shown = r.cloud.command().args(["host", "show", "one"]).output().unwrap();
    let said = String::from_utf8_lossy(&shown.stdout);
    assert!(said.contains("it shares no disks"), "{said}");
    let fenced = r.cloud.command().args(["host", "fence", "one"]).output().unwrap();
    assert!(fenced.status.success(), "{}", String::from_utf8_lossy(&fenced.stderr));
    eventually("the server says why it stays", LIMIT, || async {
        let s = r.show(&servers[0]).await?;
        let why = s["fault"]["message"].as_str()?;
        (s["status"] == "ERROR" && why.contains("its disks are on that host alone")).then_some(())
    })
    .await;

    // Made anew from its image, on the host that was named; since 2.95 it stays off.
    let to_itself = evacuate("2.60", &servers[0], json!({"host": "one"})).await;
    assert_eq!(to_itself.status, 400, "{}", to_itself.text);
    evacuate("2.60", &servers[0], json!({"host": "two"})).await.expect(200);
    let s = has_left(&r, &servers[0], "one", "ACTIVE").await;
    assert_eq!(s["OS-EXT-SRV-ATTR:host"], "two");
    assert_eq!(record(&two.dir, &servers[0]).unwrap()["guest"]["rebuilds"], 1);
    evacuate("2.95", &servers[1], json!({"host": "two"})).await.expect(200);
    has_left(&r, &servers[1], "one", "SHUTOFF").await;
    r.action(&servers[1], json!({"os-start": null})).await.expect(202);
    r.wait(&servers[1], "ACTIVE").await;

    one.start_agent();
    one.is(&r.cloud, "up").await;
    eventually("nothing of them is left on the first host", LIMIT, || async {
        servers.iter().all(|s| state(&one.dir, s).is_none()).then_some(())
    })
    .await;

    // The same by Nova's API, and the scheduler chooses.
    two.kill();
    for server in &servers {
        end_guest(&two.dir, server);
    }
    two.is(&r.cloud, "down").await;
    let admin = r.admin.at("compute 2.60");
    let found = admin.get("/compute/v2.1/os-services?host=two").await.expect(200);
    let path = format!("/compute/v2.1/os-services/{}", id(&found, "/services/0/id"));
    admin.put(&path, &json!({"forced_down": true})).await.expect(200);
    evacuate("2.60", &servers[0], json!({})).await.expect(200);
    has_left(&r, &servers[0], "two", "ACTIVE").await;
    two.start_agent();
    admin.put(&path, &json!({"forced_down": false})).await.expect(200);
    two.is(&r.cloud, "up").await;
    eventually("only what stayed is on the second host", LIMIT, || async {
        let stays = state(&two.dir, &servers[1]).as_deref() == Some("running");
        (stays && state(&two.dir, &servers[0]).is_none()).then_some(())
    })
    .await;
    // Until its host has told of it, its fault says why it was not started elsewhere.
    eventually("what stayed is ACTIVE again", LIMIT, || async {
        (r.show(&servers[1]).await?["status"] == "ACTIVE").then_some(())
    })
    .await;
    r.cloud.audit().await;
}
