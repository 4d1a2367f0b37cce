//! Interfaces of a server that exists, and the password that its guest posts.

use crate::lab::{ADMIN, Answer, DEMO, FakeHost, Lab, OTHER, READER};
use haneul_agent_api::{Failure, FailureCode, Guest, GuestState, Power, Report};
use http::Method;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

async fn call(lab: &Lab, token: &str, method: Method, path: &str, body: Option<Value>) -> Answer {
    lab.call(token, "2.96", method, &format!("/v2.1/servers/{path}"), body)
        .await
}

async fn attach(lab: &Lab, id: &str, body: Value) -> Answer {
    let body = json!({"interfaceAttachment": body});
    call(lab, DEMO, Method::POST, &format!("{id}/os-interface"), Some(body)).await
}

async fn attached(lab: &Lab, id: &str, body: Value) -> Value {
    let a = attach(lab, id, body).await;
    assert_eq!(a.status, 200, "{}", a.body);
    a.body["interfaceAttachment"].clone()
}

async fn detach(lab: &Lab, id: &str, port: &str) -> Answer {
    call(lab, DEMO, Method::DELETE, &format!("{id}/os-interface/{port}"), None).await
}

async fn list(lab: &Lab, id: &str) -> Vec<Value> {
    let all = lab.get(DEMO, "2.96", &format!("/v2.1/servers/{id}/os-interface")).await;
    all["interfaceAttachments"].as_array().unwrap().clone()
}

async fn network(lab: &Lab, method: Method, path: &str, body: Value) -> Value {
    let body = if body.is_null() {
        String::new()
    } else {
        body.to_string()
    };
    let path = format!("/network/v2.0/{path}");
    let a = lab
        .at(DEMO, "2.1")
        .raw(lab, method, &path, body.into(), "application/json")
        .await;
    assert!(a.status.is_success() || a.status == 404, "{path}: {}", a.body);
    a.body
}

async fn port(lab: &Lab) -> String {
    let made = network(lab, Method::POST, "ports", json!({"port": {"network_id": lab.network}})).await;
    made["port"]["id"].as_str().unwrap().to_owned()
}

/// Waits until the server has so many interfaces and nothing is being done to it.
async fn wait(lab: &Lab, id: &str, n: usize) -> Vec<Value> {
    let start = Instant::now();
    loop {
        let all = list(lab, id).await;
        if all.len() == n && lab.server(id).await["OS-EXT-STS:task_state"].is_null() {
            return all;
        }
        assert!(
            start.elapsed() < Duration::from_secs(60),
            "{n} interfaces expected: {all:?}"
        );
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn cards(g: &Guest) -> Vec<String> {
    g.nics.iter().map(|n| n.port_id.to_string()).collect()
}

/// Waits until the host has been asked for so many cards.
async fn told(host: &FakeHost, id: &str, n: usize) {
    host.comes_to(id, |g| g.nics.len() == n).await;
}

fn running(_: &Guest) -> Option<(GuestState, Option<Failure>)> {
    Some((GuestState::Running, None))
}

async fn server(lab: &Lab) -> String {
    let body =
        json!({"server": {"name": "s", "flavorRef": "1", "imageRef": lab.image, "networks": [{"uuid": lab.network}]}});
    let made = lab.post(DEMO, "2.96", "/v2.1/servers", body, 202).await;
    let id = made["server"]["id"].as_str().unwrap().to_owned();
    lab.wait(&id, "ACTIVE").await;
    id
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn interfaces_come_and_go() {
    let lab = Lab::start().await;
    let host = FakeHost::join(&lab, 8, 8192, 100).await;
    let id = server(&lab).await;
    let first = list(&lab, &id).await[0]["port_id"].as_str().unwrap().to_owned();

    // Nothing said: the only network. A network with an address. A port of the user's.
    let a = attached(&lab, &id, json!({})).await;
    let b = attached(
        &lab,
        &id,
        json!({"net_id": lab.network, "fixed_ips": [{"ip_address": "10.1.7.7"}], "tag": "db"}),
    )
    .await;
    assert_eq!(
        (&b["fixed_ips"][0]["ip_address"], &b["tag"]),
        (&json!("10.1.7.7"), &json!("db"))
    );
    let own = port(&lab).await;
    let c = attached(&lab, &id, json!({"port_id": own})).await;
    assert_eq!(c["port_id"], json!(own));
    let ids: Vec<String> = [&a, &b, &c]
        .iter()
        .map(|i| i["port_id"].as_str().unwrap().to_owned())
        .collect();
    let all = [std::slice::from_ref(&first), &ids].concat();
    host.comes_to(&id, |g| cards(g) == all).await;
    let listed: Vec<Value> = list(&lab, &id).await.iter().map(|i| i["port_id"].clone()).collect();
    assert_eq!(json!(listed), json!(all), "in the order of their coming");
    lab.audit().await;

    // The user's port stays and is free, what was made for the server goes.
    assert_eq!(detach(&lab, &id, &own).await.status, 202);
    assert_eq!(
        detach(&lab, &id, &ids[0]).await.status,
        202,
        "the second waits for its turn"
    );
    wait(&lab, &id, 2).await;
    let freed = network(&lab, Method::GET, &format!("ports/{own}"), Value::Null).await;
    assert_eq!(
        (&freed["port"]["device_id"], &freed["port"]["status"]),
        (&json!(""), &json!("DOWN"))
    );
    let gone = network(&lab, Method::GET, &format!("ports/{}", ids[0]), Value::Null).await;
    assert!(gone.get("port").is_none(), "{gone}");
    host.comes_to(&id, |g| cards(g) == [first.as_str(), &ids[1]]).await;

    // Stopped ones too; the guest gets it when it starts.
    lab.act(&id, json!({"os-stop": null}), 202).await;
    lab.wait(&id, "SHUTOFF").await;
    attached(&lab, &id, json!({"port_id": own})).await;
    told(&host, &id, 3).await;
    assert_eq!(detach(&lab, &id, &own).await.status, 202);
    wait(&lab, &id, 2).await;

    let acts = lab
        .get(DEMO, "2.96", &format!("/v2.1/servers/{id}/os-instance-actions"))
        .await;
    let names: Vec<&str> = acts["instanceActions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|a| a["action"].as_str().unwrap())
        .collect();
    assert_eq!(
        names[..4],
        ["detach_interface", "attach_interface", "stop", "detach_interface"]
    );
    lab.audit().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_host_cannot_do_is_taken_back() {
    let lab = Lab::with(|c| c.compute.action_timeout_s = 3).await;
    let host = FakeHost::join(&lab, 8, 8192, 100).await;
    let id = server(&lab).await;
    let own = port(&lab).await;
    let fails = |n: usize| {
        move |g: &Guest| {
            let failure = Failure {
                code: FailureCode::HypervisorError,
                message: "the card does not fit".into(),
                detail: "slot 31".into(),
            };
            Some((GuestState::Running, (g.nics.len() == n).then_some(failure)))
        }
    };
    host.behave(fails(2)).await;
    for body in [json!({}), json!({"port_id": own})] {
        let a = attach(&lab, &id, body).await;
        assert_eq!(a.status, 500);
        let said = a.body.to_string();
        assert!(
            said.contains("the card does not fit") && !said.contains("slot 31"),
            "{said}"
        );
        let s = lab.wait(&id, "ACTIVE").await;
        assert_eq!(s["OS-EXT-STS:vm_state"], "active");
        assert_eq!(list(&lab, &id).await.len(), 1);
        told(&host, &id, 1).await;
    }
    // The user's port is free again, and nothing else is left of it.
    let freed = network(&lab, Method::GET, &format!("ports/{own}"), Value::Null).await;
    assert_eq!(freed["port"]["device_id"], "");
    let mine = network(&lab, Method::GET, "ports?device_owner=compute:nova", Value::Null).await;
    assert_eq!(mine["ports"].as_array().unwrap().len(), 1);

    host.behave(running).await;
    attached(&lab, &id, json!({"port_id": own})).await;
    host.behave(fails(1)).await;
    assert_eq!(detach(&lab, &id, &own).await.status, 202);
    wait(&lab, &id, 2).await;
    told(&host, &id, 2).await;
    assert_eq!(list(&lab, &id).await.len(), 2);
    lab.audit().await;

    // A host that does not answer: the deadline takes it back, and the server may be deleted meanwhile.
    host.behave(|_| None).await;
    let late = attach(&lab, &id, json!({})).await;
    assert_eq!(late.status, 500, "{}", late.body);
    assert_eq!(wait(&lab, &id, 2).await.len(), 2);
    let asked = attach(&lab, &id, json!({}));
    let deleted = async {
        while list(&lab, &id).await.len() != 3 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        call(&lab, DEMO, Method::DELETE, &id, None).await
    };
    let (asked, deleted) = tokio::join!(asked, deleted);
    assert_eq!(
        (asked.status.as_u16(), deleted.status.as_u16()),
        (409, 204),
        "{}",
        asked.body
    );
    lab.wait_gone(&id).await;
    lab.audit().await;
    let freed = network(&lab, Method::GET, &format!("ports/{own}"), Value::Null).await;
    assert_eq!(freed["port"]["device_id"], "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_attachments_change_nothing() {
    let lab = Lab::start().await;
    let _host = FakeHost::join(&lab, 8, 8192, 100).await;
    let id = server(&lab).await;
    let own = port(&lab).await;
    let held = list(&lab, &id).await[0]["port_id"].clone();
    let taken = list(&lab, &id).await[0]["fixed_ips"][0]["ip_address"].clone();
    let nowhere = "00000000-0000-4000-8000-000000000000";
    let net = lab.network.clone();
    let at = |ip: &str| json!({"net_id": net, "fixed_ips": [{"ip_address": ip}]});
    let before = lab.rows().await;
    for (body, status, says) in [
        (
            json!({"net_id": net, "port_id": own}),
            400,
            "both network_id and port_id",
        ),
        (
            json!({"fixed_ips": [{"ip_address": "10.1.0.9"}]}),
            400,
            "Must input network_id",
        ),
        (json!({"net_id": net, "fixed_ips": []}), 400, "no entries"),
        (at("nonsense"), 400, "IPv4 or IPv6"),
        (at("192.0.2.1"), 400, "not a valid ip address for network"),
        (at(taken.as_str().unwrap()), 409, "already in use"),
        (json!({"net_id": "x"}), 400, "net_id"),
        (json!({"net_id": nowhere}), 404, "could not be found"),
        (json!({"port_id": nowhere}), 404, "could not be found"),
        (json!({"port_id": held}), 409, "still in use"),
        (json!({"size": 1}), 400, "size"),
    ] {
        let a = attach(&lab, &id, body.clone()).await;
        assert_eq!(a.status, status, "{body}: {}", a.body);
        assert!(a.body.to_string().contains(says), "{body}: {}", a.body);
    }
    let path = format!("{id}/os-interface");
    let early = lab
        .call(
            DEMO,
            "2.48",
            Method::POST,
            &format!("/v2.1/servers/{path}"),
            Some(json!({"interfaceAttachment": {"tag": "x"}})),
        )
        .await;
    assert_eq!(early.status, 400, "tags came with 2.49: {}", early.body);
    for (token, status) in [(OTHER, 404), (READER, 403)] {
        let a = call(&lab, token, Method::POST, &path, Some(json!({}))).await;
        assert_eq!(a.status, status, "{token}: {}", a.body);
        let a = call(&lab, token, Method::DELETE, &format!("{path}/{own}"), None).await;
        assert_eq!(a.status, status, "{token}: {}", a.body);
    }
    for other in [own.as_str(), nowhere, "x"] {
        assert_eq!(detach(&lab, &id, other).await.status, 404, "{other}");
    }
    assert_eq!(lab.rows().await, before);
    lab.act(&id, json!({"lock": null}), 202).await;
    assert_eq!(attach(&lab, &id, json!({})).await.status, 409);
    assert_eq!(detach(&lab, &id, held.as_str().unwrap()).await.status, 409);
    lab.act(&id, json!({"unlock": null}), 202).await;
    lab.act(&id, json!({"resize": {"flavorRef": "2"}}), 202).await;
    lab.wait(&id, "VERIFY_RESIZE").await;
    let wrong = attach(&lab, &id, json!({})).await;
    assert_eq!(wrong.status, 409);
    assert!(wrong.body.to_string().contains("vm_state resized"), "{}", wrong.body);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn addresses_come_and_go_until_2_43() {
    let lab = Lab::start().await;
    let _host = FakeHost::join(&lab, 8, 8192, 100).await;
    let id = server(&lab).await;
    let path = format!("/v2.1/servers/{id}/action");
    let add = json!({"addFixedIp": {"networkId": lab.network}});
    lab.post(DEMO, "2.43", &path, add.clone(), 202).await;
    let both = list(&lab, &id).await[0]["fixed_ips"].as_array().unwrap().clone();
    assert_eq!(both.len(), 2);
    let new = both[1]["ip_address"].clone();
    lab.post(DEMO, "2.43", &path, json!({"removeFixedIp": {"address": new}}), 202)
        .await;
    assert_eq!(list(&lab, &id).await[0]["fixed_ips"], json!([both[0]]));
    for (version, body) in [
        ("2.43", json!({"removeFixedIp": {"address": new}})),
        ("2.43", json!({"removeFixedIp": {"address": "x"}})),
        ("2.43", json!({"addFixedIp": {"networkId": id}})),
        ("2.43", json!({"addFixedIp": {}})),
        ("2.44", add),
    ] {
        lab.post(DEMO, version, &path, body, 400).await;
    }
    lab.audit().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_posted_password_is_shown_until_it_is_cleared() {
    let lab = Lab::start().await;
    let host = FakeHost::join(&lab, 8, 8192, 100).await;
    let id = server(&lab).await;
    let path = format!("/v2.1/servers/{id}/os-server-password");
    let shown = async || lab.get(DEMO, "2.96", &path).await["password"].clone();
    let post = async |clears: u64, password: &str| {
        host.report(Report {
            passwords: vec![haneul_agent_api::PostedPassword {
                guest: id.parse().unwrap(),
                clears,
                password: password.into(),
            }],
            ..host.blank()
        })
        .await;
    };
    let clear = async |token: &str| {
        lab.call(token, "2.96", Method::DELETE, &path, None)
            .await
            .status
            .as_u16()
    };
    assert_eq!(shown().await, "");
    assert_eq!(clear(DEMO).await, 204);
    assert_eq!(
        host.guest(&id).unwrap().password_clears,
        0,
        "there was nothing to clear"
    );
    post(0, "c2VhbGVk").await;
    post(0, "c2VhbGVk").await;
    assert_eq!(shown().await, "c2VhbGVk");
    let log = {
        let mut tx = lab.db.read().await.unwrap();
        let rows = tx
            .rows("SELECT state FROM change_log WHERE id = $1", &[id.as_str().into()])
            .await
            .unwrap();
        rows.iter().map(|r| r.str(0).unwrap()).collect::<String>()
    };
    assert!(
        log.contains("present") && !log.contains("c2VhbGVk"),
        "a secret in the change log"
    );
    for (token, status) in [(READER, 403), (OTHER, 404)] {
        assert_eq!(clear(token).await, status);
    }
    assert_eq!(clear(DEMO).await, 204);
    assert_eq!(shown().await, "");
    host.comes_to(&id, |g| g.password_clears == 1).await;
    // What was under way when it was cleared stays cleared; what is posted then counts.
    post(0, "c2VhbGVk").await;
    assert_eq!(shown().await, "");
    post(1, &"x".repeat(1021)).await;
    assert_eq!(shown().await, "", "longer than any guest may post");
    post(1, "bmV3").await;
    assert_eq!(shown().await, "bmV3");
    assert_eq!(lab.get(ADMIN, "2.96", &path).await["password"], "bmV3");
    assert_eq!(host.guest(&id).unwrap().power, Power::Running);
    lab.audit().await;
}
