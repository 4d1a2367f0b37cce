//! From POST /servers to ACTIVE, through the actions, and away again.

use crate::lab::{ADMIN, DEMO, FakeHost, Lab, OTHER};
use haneul_agent_api::{Failure, FailureCode, GuestState, Power};
use http::Method;
use serde_json::json;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn create_and_delete() {
    let lab = Lab::start().await;
    let host = FakeHost::join(&lab, 8, 8192, 100).await;
    let body = json!({"server": {"name": "web 1", "flavorRef": "1", "imageRef": lab.image, "networks": [{"uuid": lab.network}],
        "metadata": {"role": "db"}, "user_data": "aGVsbG8="}});
    let made = lab.post(DEMO, "2.96", "/v2.1/servers", body, 202).await;
    assert!(
        made["server"]["adminPass"].is_string()
            && made["server"]["links"][0]["href"]
                .as_str()
                .unwrap()
                .contains("/v2.1/servers/")
    );
    let id = made["server"]["id"].as_str().unwrap().to_owned();
    let s = lab.wait(&id, "ACTIVE").await;
    assert_eq!(s["OS-EXT-STS:power_state"], 1);
    assert!(
        s["OS-SRV-USG:launched_at"].is_string()
            && s["OS-EXT-SRV-ATTR:host"].as_str().unwrap().starts_with("secret-host")
    );
    assert_eq!(s["addresses"]["private"][0]["OS-EXT-IPS:type"], "fixed");
    assert_eq!(s["security_groups"][0]["name"], "default");
    let g = host.guest(&id).unwrap();
    assert_eq!(
        (g.metadata.hostname.as_str(), g.nics.len(), g.vcpus, g.memory_mib),
        ("web-1", 1, 1, 512)
    );
    assert_eq!(g.metadata.meta["role"], "db");
    assert_eq!(g.root.size_gib, 1);
    // Tenants see no host.
    let seen = lab.get(DEMO, "2.96", &format!("/v2.1/servers/{id}")).await.to_string();
    assert!(!seen.contains("secret-host"), "{seen}");
    lab.audit().await;

    let hidden = lab
        .call(OTHER, "2.96", Method::DELETE, &format!("/v2.1/servers/{id}"), None)
        .await;
    assert_eq!(hidden.status, 404);
    let gone = lab
        .call(DEMO, "2.96", Method::DELETE, &format!("/v2.1/servers/{id}"), None)
        .await;
    assert_eq!(gone.status, 204);
    lab.wait_gone(&id).await;
    lab.audit().await;
    // What was done stays in the log.
    let acts = lab
        .get(DEMO, "2.96", &format!("/v2.1/servers/{id}/os-instance-actions"))
        .await;
    let names: Vec<&str> = acts["instanceActions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|a| a["action"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["delete", "create"]);
    let request = acts["instanceActions"][1]["request_id"].as_str().unwrap();
    let one = lab
        .get(
            DEMO,
            "2.96",
            &format!("/v2.1/servers/{id}/os-instance-actions/{request}"),
        )
        .await;
    assert_eq!(one["instanceAction"]["events"][0]["result"], "Success");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn actions() {
    let lab = Lab::start().await;
    let host = FakeHost::join(&lab, 8, 8192, 100).await;
    let id = lab.create("a", "1").await;
    lab.wait(&id, "ACTIVE").await;

    lab.act(&id, json!({"os-stop": null}), 202).await;
    let s = lab.wait(&id, "SHUTOFF").await;
    assert_eq!(s["OS-EXT-STS:power_state"], 4);
    let wrong = lab.act(&id, json!({"pause": null}), 409).await;
    assert_eq!(
        wrong["conflictingRequest"]["message"],
        format!("Cannot 'pause' instance {id} while it is in vm_state stopped")
    );
    lab.act(&id, json!({"os-start": null}), 202).await;
    lab.wait(&id, "ACTIVE").await;
    lab.act(&id, json!({"pause": null}), 202).await;
    lab.wait(&id, "PAUSED").await;
    assert_eq!(host.guest(&id).unwrap().power, Power::Paused);
    lab.act(&id, json!({"unpause": null}), 202).await;
    lab.wait(&id, "ACTIVE").await;
    lab.act(&id, json!({"suspend": null}), 202).await;
    let s = lab.wait(&id, "SUSPENDED").await;
    assert_eq!(
        (&s["OS-EXT-STS:power_state"], &s["OS-EXT-STS:vm_state"]),
        (&json!(7), &json!("suspended"))
    );
    assert_eq!(host.guest(&id).unwrap().power, Power::Suspended);
    for (body, what) in [
        (json!({"os-stop": null}), "stop"),
        (json!({"suspend": null}), "suspend"),
    ] {
        let wrong = lab.act(&id, body, 409).await;
        assert_eq!(
            wrong["conflictingRequest"]["message"],
            format!("Cannot '{what}' instance {id} while it is in vm_state suspended")
        );
    }
    let listed = lab.get(DEMO, "2.96", "/v2.1/servers?status=SUSPENDED").await;
    assert_eq!(listed["servers"][0]["id"], id.as_str());
    lab.act(&id, json!({"resume": null}), 202).await;
    lab.wait(&id, "ACTIVE").await;
    assert_eq!(host.guest(&id).unwrap().power, Power::Running);
    lab.act(&id, json!({"resume": null}), 409).await;
    lab.act(&id, json!({"reboot": {"type": "SOFT"}}), 202).await;
    lab.wait(&id, "ACTIVE").await;
    lab.act(&id, json!({"reboot": {"type": "HARD"}}), 202).await;
    lab.wait(&id, "ACTIVE").await;
    let g = host.guest(&id).unwrap();
    assert_eq!((g.soft_reboots, g.hard_reboots), (1, 1));

    let rebuilt = lab
        .act(
            &id,
            json!({"rebuild": {"imageRef": lab.image, "name": "b", "metadata": {"x": "y"}}}),
            202,
        )
        .await;
    assert_eq!(rebuilt["server"]["name"], "b");
    assert!(rebuilt["server"]["adminPass"].is_string());
    lab.wait(&id, "ACTIVE").await;
    assert_eq!(host.guest(&id).unwrap().rebuilds, 1);

    let out = lab.act(&id, json!({"os-getConsoleOutput": {"length": 5}}), 200).await;
    assert_eq!(out["output"], "boot\nline two\nlast 5\n");

    lab.act(&id, json!({"lock": {"locked_reason": "mine"}}), 202).await;
    assert_eq!(lab.server(&id).await["locked_reason"], "mine");
    lab.act(&id, json!({"unlock": null}), 202).await;
    lab.post(
        ADMIN,
        "2.96",
        &format!("/v2.1/servers/{id}/action"),
        json!({"lock": null}),
        202,
    )
    .await;
    let locked = lab.act(&id, json!({"os-stop": null}), 409).await;
    assert_eq!(
        locked["conflictingRequest"]["message"],
        format!("Instance {id} is locked")
    );
    lab.act(&id, json!({"unlock": null}), 403).await;
    lab.post(
        ADMIN,
        "2.96",
        &format!("/v2.1/servers/{id}/action"),
        json!({"unlock": null}),
        202,
    )
    .await;
    lab.audit().await;

    let names: Vec<String> = lab
        .get(DEMO, "2.96", &format!("/v2.1/servers/{id}/os-instance-actions"))
        .await["instanceActions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|a| a["action"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(
        names,
        [
            "unlock", "lock", "unlock", "lock", "rebuild", "reboot", "reboot", "resume", "suspend", "unpause", "pause",
            "start", "stop", "create"
        ]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resize_confirm_and_revert() {
    let lab = Lab::start().await;
    let host = FakeHost::join(&lab, 8, 8192, 100).await;
    let id = lab.create("a", "1").await;
    lab.wait(&id, "ACTIVE").await;
    lab.act(&id, json!({"resize": {"flavorRef": "2"}}), 202).await;
    lab.wait(&id, "VERIFY_RESIZE").await;
    assert_eq!(host.guest(&id).unwrap().vcpus, 2);
    lab.audit().await;
    lab.act(&id, json!({"revertResize": null}), 202).await;
    let s = lab.wait(&id, "ACTIVE").await;
    assert_eq!(s["flavor"]["vcpus"], 1);
    lab.audit().await;
    lab.act(&id, json!({"resize": {"flavorRef": "2"}}), 202).await;
    lab.wait(&id, "VERIFY_RESIZE").await;
    lab.act(&id, json!({"confirmResize": null}), 204).await;
    let s = lab.wait(&id, "ACTIVE").await;
    assert_eq!(s["flavor"]["vcpus"], 2);
    lab.audit().await;
    // A disk only grows; a flavor too large for the host is refused with numbers.
    let small = lab.act(&id, json!({"resize": {"flavorRef": "1"}}), 400).await;
    assert!(small["badRequest"]["message"].as_str().unwrap().contains("only grows"));
    lab.call(
        ADMIN,
        "2.96",
        Method::PUT,
        "/v2.1/os-quota-sets/demo",
        Some(json!({"quota_set": {"cores": -1, "ram": -1}})),
    )
    .await;
    let large = lab.act(&id, json!({"resize": {"flavorRef": "9"}}), 400).await;
    assert!(
        large["badRequest"]["message"]
            .as_str()
            .unwrap()
            .contains("VCPU (needed 62 more, free 6)"),
        "{large}"
    );
    // A resize that fails on the host gives everything back.
    host.behave(|g| {
        Some(if g.disk() > 2 {
            (GuestState::Failed, Some(broken()))
        } else {
            (GuestState::Running, None)
        })
    })
    .await;
    lab.post(
        ADMIN,
        "2.96",
        "/v2.1/flavors",
        json!({"flavor": {"name": "f3", "id": "3", "vcpus": 3, "ram": 1024, "disk": 3}}),
        200,
    )
    .await;
    lab.act(&id, json!({"resize": {"flavorRef": "3"}}), 202).await;
    let s = lab.wait(&id, "ERROR").await;
    assert_eq!(s["flavor"]["vcpus"], 2);
    lab.audit().await;
}

trait Disk {
    fn disk(&self) -> u64;
}
impl Disk for haneul_agent_api::Guest {
    fn disk(&self) -> u64 {
        self.root.size_gib
    }
}

fn broken() -> Failure {
    Failure {
        code: FailureCode::DiskError,
        message: "The disk could not be made.".into(),
        detail: "/dev/secret".into(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failures_and_recovery() {
    let lab = Lab::start().await;
    let host = FakeHost::join(&lab, 8, 8192, 100).await;
    host.behave(|_| Some((GuestState::Failed, Some(broken())))).await;
    let id = lab.create("a", "1").await;
    let s = lab.wait(&id, "ERROR").await;
    assert_eq!(s["fault"]["message"], "The disk could not be made.");
    assert_eq!(s["fault"]["details"], "/dev/secret");
    let tenant = lab.get(DEMO, "2.96", &format!("/v2.1/servers/{id}")).await;
    assert!(tenant["server"]["fault"]["details"].is_null());
    lab.audit().await;
    let never = lab.act(&id, json!({"reboot": {"type": "HARD"}}), 409).await;
    assert!(
        never["conflictingRequest"]["message"]
            .as_str()
            .unwrap()
            .contains("launched_at"),
        "{never}"
    );
    lab.call(DEMO, "2.96", Method::DELETE, &format!("/v2.1/servers/{id}"), None)
        .await;
    lab.wait_gone(&id).await;
    lab.audit().await;

    host.obey().await;
    let id = lab.create("b", "1").await;
    lab.wait(&id, "ACTIVE").await;
    // The guest switches itself off: SHUTOFF, and the host shall leave it so.
    host.event(&id, GuestState::Stopped).await;
    lab.wait(&id, "SHUTOFF").await;
    assert_eq!(lab.server(&id).await["OS-EXT-STS:power_state"], 4);
    lab.act(&id, json!({"os-start": null}), 202).await;
    lab.wait(&id, "ACTIVE").await;
    // The process dies and comes back.
    host.event(&id, GuestState::Failed).await;
    lab.wait(&id, "ERROR").await;
    host.event(&id, GuestState::Running).await;
    lab.wait(&id, "ACTIVE").await;
    // A stop that fails leaves it running.
    host.behave(|g| {
        Some(if g.power == Power::Stopped {
            (GuestState::Failed, Some(broken()))
        } else {
            (GuestState::Running, None)
        })
    })
    .await;
    lab.act(&id, json!({"os-stop": null}), 202).await;
    lab.wait(&id, "ACTIVE").await;
    lab.audit().await;
    // So does a suspend that the host refuses; the owner is told why, at once.
    host.behave(|g| {
        let full = Failure {
            code: FailureCode::DiskFull,
            message: "the host's disk has 3 MiB free".into(),
            detail: String::new(),
        };
        Some((GuestState::Running, (g.power == Power::Suspended).then_some(full)))
    })
    .await;
    lab.act(&id, json!({"suspend": null}), 202).await;
    let s = lab.wait(&id, "ACTIVE").await;
    host.comes_to(&id, |g| g.power == Power::Running).await;
    let acts = lab
        .get(DEMO, "2.96", &format!("/v2.1/servers/{id}/os-instance-actions"))
        .await;
    assert_eq!(acts["instanceActions"][0]["action"], "suspend");
    assert_eq!(acts["instanceActions"][0]["message"], "Error", "{acts} {s}");
    lab.audit().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn delete_takes_the_place_of_what_runs() {
    let lab = Lab::start().await;
    let host = FakeHost::join(&lab, 8, 8192, 100).await;
    host.behave(|_| None).await;
    host.keep_tombstones();
    let id = lab.create("a", "1").await;
    assert_eq!(lab.server(&id).await["status"], "BUILD");
    let busy = lab.act(&id, json!({"os-stop": null}), 409).await;
    assert!(
        busy["conflictingRequest"]["message"]
            .as_str()
            .unwrap()
            .contains("building")
    );
    for _ in 0..2 {
        let gone = lab
            .call(DEMO, "2.96", Method::DELETE, &format!("/v2.1/servers/{id}"), None)
            .await;
        assert_eq!(gone.status, 204);
    }
    // What is said of it now does not bring it back: the host's last word stays the tombstone.
    let path = format!("/v2.1/servers/{id}/metadata");
    lab.post(DEMO, "2.96", &path, json!({"metadata": {"late": "1"}}), 200)
        .await;
    let sql = "SELECT removed FROM fleet_desired WHERE id = $1";
    let desired = lab.db.read().await.unwrap().row(sql, &[(&id).into()]).await.unwrap();
    assert_ne!(desired.unwrap().i64(0).unwrap(), 0, "the guest is wanted again");
    let s = lab.server(&id).await;
    assert_eq!(s["OS-EXT-STS:task_state"], "deleting");
    // The job says what it waits for.
    let acts = lab
        .get(ADMIN, "2.96", &format!("/v2.1/servers/{id}/os-instance-actions"))
        .await;
    let request = acts["instanceActions"][0]["request_id"].as_str().unwrap();
    let one = lab
        .get(
            ADMIN,
            "2.96",
            &format!("/v2.1/servers/{id}/os-instance-actions/{request}"),
        )
        .await;
    assert!(
        one["instanceAction"]["events"][0]["details"]
            .as_str()
            .unwrap()
            .contains("given up at"),
        "{one}"
    );
    lab.audit().await;
    // Another host's word about it counts for nothing; the tombstone is carried out late.
    FakeHost::join(&lab, 1, 512, 1).await;
    assert_eq!(lab.server(&id).await["OS-EXT-STS:task_state"], "deleting");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_host_fits() {
    let lab = Lab::start().await;
    let id = lab.create("early", "1").await;
    let s = lab.wait(&id, "ERROR").await;
    assert!(
        s["fault"]["message"].as_str().unwrap().contains("No host has joined"),
        "{s}"
    );
    FakeHost::join(&lab, 2, 700, 10).await;
    let id2 = lab.create("large", "2").await;
    let s = lab.wait(&id2, "ERROR").await;
    assert_eq!(
        s["fault"]["message"],
        "No valid host was found. Of 1 hosts: MEMORY_MB refused 1 (needed 1024 MiB of memory, the most that is free on one host is 700). The smallest change that would fit: a flavor of at most 2 VCPUs, 700 MiB of memory and 2 GiB of disk."
    );
    assert!(s["fault"]["details"].as_str().unwrap().contains("secret-host"));
    let tenant = lab.get(DEMO, "2.96", &format!("/v2.1/servers/{id2}")).await.to_string();
    assert!(!tenant.contains("secret-host"), "{tenant}");
    for id in [id, id2] {
        assert_eq!(
            lab.call(DEMO, "2.96", Method::DELETE, &format!("/v2.1/servers/{id}"), None)
                .await
                .status,
            204
        );
        lab.wait_gone(&id).await;
    }
    lab.audit().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_at_once_and_groups() {
    let lab = Lab::start().await;
    let a = FakeHost::join(&lab, 8, 8192, 100).await;
    let b = FakeHost::join(&lab, 8, 8192, 100).await;
    let group = lab
        .post(
            DEMO,
            "2.96",
            "/v2.1/os-server-groups",
            json!({"server_group": {"name": "g", "policy": "anti-affinity"}}),
            200,
        )
        .await;
    let gid = group["server_group"]["id"].as_str().unwrap().to_owned();
    let body = json!({"server": {"name": "n", "flavorRef": "1", "imageRef": lab.image, "networks": "none", "min_count": 2, "max_count": 2,
        "return_reservation_id": true}, "os:scheduler_hints": {"group": gid}});
    let made = lab.post(DEMO, "2.96", "/v2.1/servers", body, 202).await;
    assert!(made["reservation_id"].as_str().unwrap().starts_with("r-"));
    let list = lab
        .get(DEMO, "2.96", "/v2.1/servers?sort_key=display_name&sort_dir=asc")
        .await;
    let names: Vec<&str> = list["servers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| s["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["n-1", "n-2"]);
    let mut hosts = Vec::new();
    for s in list["servers"].as_array().unwrap() {
        let id = s["id"].as_str().unwrap();
        lab.wait(id, "ACTIVE").await;
        hosts.push(if a.guest(id).is_some() { a.id() } else { b.id() });
        assert_eq!(lab.server(id).await["server_groups"][0], gid);
    }
    assert_ne!(hosts[0], hosts[1]);
    let third = json!({"server": {"name": "x", "flavorRef": "1", "imageRef": lab.image, "networks": "none"}, "os:scheduler_hints": {"group": gid}});
    let id = lab.post(DEMO, "2.96", "/v2.1/servers", third, 202).await["server"]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let s = lab.wait(&id, "ERROR").await;
    assert!(
        s["fault"]["message"]
            .as_str()
            .unwrap()
            .contains("ServerGroupAntiAffinityFilter refused 2"),
        "{s}"
    );
    assert!(
        s["fault"]["message"].as_str().unwrap().contains("leave out group"),
        "{s}"
    );
    let g = lab.get(DEMO, "2.96", &format!("/v2.1/os-server-groups/{gid}")).await;
    assert_eq!(g["server_group"]["members"].as_array().unwrap().len(), 3);
    lab.audit().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quotas() {
    let lab = Lab::with(|c| c.compute.quota_instances = 2).await;
    FakeHost::join(&lab, 8, 8192, 100).await;
    let body = json!({"server": {"name": "n", "flavorRef": "1", "imageRef": lab.image, "networks": "none", "min_count": 1, "max_count": 5}});
    lab.post(DEMO, "2.96", "/v2.1/servers", body, 202).await;
    let list = lab.get(DEMO, "2.96", "/v2.1/servers").await;
    assert_eq!(
        list["servers"].as_array().unwrap().len(),
        2,
        "as many as the quota lets through"
    );
    let before = lab.rows().await;
    let body = json!({"server": {"name": "n", "flavorRef": "1", "imageRef": lab.image, "networks": "none"}});
    let over = lab.post(DEMO, "2.96", "/v2.1/servers", body, 403).await;
    let text = over["forbidden"]["message"].as_str().unwrap();
    assert!(
        text.contains("Requested 1, but already used 2 of 2 instances"),
        "{text}"
    );
    let limits = lab.get(DEMO, "2.96", "/v2.1/limits").await;
    assert_eq!(
        (
            &limits["limits"]["absolute"]["maxTotalInstances"],
            &limits["limits"]["absolute"]["totalInstancesUsed"]
        ),
        (&json!(2), &json!(2))
    );
    let list = lab.get(DEMO, "2.96", "/v2.1/servers").await;
    for s in list["servers"].as_array().unwrap() {
        lab.wait(s["id"].as_str().unwrap(), "ACTIVE").await;
    }
    assert_eq!(
        lab.rows().await[..7],
        {
            let mut b = before;
            b[4] = lab.rows().await[4];
            b[..7].to_vec()
        }[..]
    );
    lab.audit().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_host_is_given_up_at_the_deadline() {
    let lab = Lab::with(|c| c.compute.build_timeout_s = 1).await;
    let host = FakeHost::join(&lab, 8, 8192, 100).await;
    host.behave(|_| None).await;
    let id = lab.create("a", "1").await;
    let s = lab.wait(&id, "ERROR").await;
    assert!(s["fault"]["message"].as_str().unwrap().contains("deadline"), "{s}");
    lab.audit().await;
    lab.call(DEMO, "2.96", Method::DELETE, &format!("/v2.1/servers/{id}"), None)
        .await;
    lab.wait_gone(&id).await;
    lab.audit().await;
}
