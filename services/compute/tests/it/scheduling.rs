//! Which host gets a server, and what holds when many are created at once.

use crate::lab::{ADMIN, DEMO, FakeHost, Lab};
use axum::body::Body;
use haneul_compute::decide::{Facts, GroupWish, HostState, Request, Snapshot, Stock, decide};
use haneul_core::config::{Config, Scheduler};
use haneul_testkit::postgres::{self, Postgres};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tower::ServiceExt;

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

fn host(id: &str, free: [i64; 3]) -> HostState {
    HostState {
        id: id.into(),
        name: format!("name-{id}"),
        up: true,
        enabled: true,
        zone: "nova".into(),
        stock: free.map(|total| Stock {
            total,
            ratio: 1.0,
            max_unit: total,
            ..Stock::default()
        }),
        facts: Arc::new(Facts {
            arch: "x86_64".into(),
            hypervisor: "QEMU".into(),
            accelerator: "kvm".into(),
            version: 10_000_002,
            ..Facts::default()
        }),
        ..HostState::default()
    }
}

fn one() -> Request {
    Request {
        amounts: [1, 512, 1],
        count: 1,
        project: "demo".into(),
        ..Request::default()
    }
}

/// One host and one request that fit, until one of them is changed: then the filter refuses and names what was wrong.
#[test]
fn each_filter_refuses_what_is_its_own() {
    type Row = (
        &'static str,
        fn(&mut HostState, &mut Facts),
        fn(&mut Request),
        &'static str,
    );
    let aggregate = |f: &mut Facts, pairs: &[(&str, &str)]| f.aggregates.push(map(pairs));
    let rows: [Row; 26] = [
        ("ComputeFilter", |h, _| h.up = false, |_| (), "not up"),
        (
            "ComputeFilter",
            |h, f| {
                h.enabled = false;
                f.disabled_reason = "new disk".into()
            },
            |_| (),
            "new disk",
        ),
        (
            "ComputeFilter",
            |_, f| {
                f.traits.insert("COMPUTE_STATUS_DISABLED".into());
            },
            |_| (),
            "disabled",
        ),
        (
            "AvailabilityZoneFilter",
            |_, _| (),
            |r| r.zone = Some("mars".into()),
            "mars",
        ),
        ("HostNameFilter", |_, _| (), |r| r.host = Some("other".into()), "other"),
        ("SameHostFilter", |_, _| (), |r| r.only = Some(vec![]), "with"),
        ("DifferentHostFilter", |_, _| (), |r| r.avoid = vec!["a".into()], "away"),
        (
            "SimpleCIDRAffinityFilter",
            |_, f| f.address = Some([10, 0, 1, 5].into()),
            |r| r.near = Some(([10, 0, 2, 5].into(), 24)),
            "10.0.1.5",
        ),
        (
            "AggregateMultiTenancyIsolation",
            |_, f| f.aggregates.push(map(&[("filter_tenant_id2", "x, y")])),
            |_| (),
            "filter_tenant_id",
        ),
        (
            "AggregateImagePropertiesIsolation",
            |_, f| f.aggregates.push(map(&[("os_distro", "windows")])),
            |r| r.image = map(&[("os_distro", "debian")]),
            "debian",
        ),
        (
            "AggregateInstanceExtraSpecsFilter",
            |_, _| (),
            |r| r.extra_specs = map(&[("aggregate_instance_extra_specs:ssd", "true")]),
            "ssd",
        ),
        (
            "AggregateInstanceExtraSpecsFilter",
            |_, f| f.aggregates.push(map(&[("ssd", "false")])),
            |r| r.extra_specs = map(&[("ssd", "true")]),
            "false",
        ),
        (
            "ComputeCapabilitiesFilter",
            |_, _| (),
            |r| r.extra_specs = map(&[("capabilities:hypervisor_type", "s== VMware")]),
            "QEMU",
        ),
        (
            "ComputeCapabilitiesFilter",
            |_, _| (),
            |r| r.extra_specs = map(&[("vcpus_total", ">= 100")]),
            "8",
        ),
        (
            "ComputeCapabilitiesFilter",
            |_, _| (),
            |r| r.extra_specs = map(&[("capabilities:colour", "red")]),
            "colour",
        ),
        (
            "ImagePropertiesFilter",
            |_, _| (),
            |r| r.image = map(&[("hw_architecture", "aarch64")]),
            "x86_64",
        ),
        (
            "ImagePropertiesFilter",
            |_, _| (),
            |r| r.image = map(&[("img_hv_type", "hyperv")]),
            "QEMU",
        ),
        (
            "ImagePropertiesFilter",
            |_, _| (),
            |r| r.image = map(&[("hw_vm_mode", "xen")]),
            "hvm",
        ),
        (
            "ImagePropertiesFilter",
            |_, _| (),
            |r| r.image = map(&[("img_hv_requested_version", ">=11,<12")]),
            "10000002",
        ),
        (
            "TraitsFilter",
            |_, _| (),
            |r| r.extra_specs = map(&[("trait:CUSTOM_GPU", "required")]),
            "CUSTOM_GPU",
        ),
        (
            "TraitsFilter",
            |_, f| {
                f.traits.insert("CUSTOM_OLD".into());
            },
            |r| r.image = map(&[("trait:CUSTOM_OLD", "forbidden")]),
            "CUSTOM_OLD",
        ),
        (
            "AggregateTraitsIsolation",
            |_, f| f.aggregates.push(map(&[("trait:CUSTOM_LICENSE", "required")])),
            |_| (),
            "CUSTOM_LICENSE",
        ),
        (
            "CompatibilityFilter",
            |_, _| (),
            |r| r.unfit = map(&[("a", "too old")]),
            "too old",
        ),
        (
            "ServerGroupAntiAffinityFilter",
            |_, _| (),
            |r| {
                r.group = Some(GroupWish {
                    policy: "anti-affinity".into(),
                    max_per_host: 2,
                    members: BTreeMap::from([("a".into(), 2)]),
                })
            },
            "may have 2",
        ),
        (
            "ServerGroupAffinityFilter",
            |_, _| (),
            |r| {
                r.group = Some(GroupWish {
                    policy: "affinity".into(),
                    max_per_host: 1,
                    members: BTreeMap::from([("z".into(), 1)]),
                })
            },
            "another host",
        ),
        ("VCPU", |h, _| h.stock[0].used = 8, |_| (), "free 0"),
    ];
    let mut seen = BTreeSet::new();
    for (filter, spoil, ask, why) in rows {
        let mut h = host("a", [8, 8192, 100]);
        let mut r = one();
        let at = |h: &HostState| Snapshot {
            hosts: vec![h.clone()],
            ..Snapshot::default()
        };
        assert!(decide(&at(&h), &r).is_ok());
        let mut facts = Facts::clone(&h.facts);
        spoil(&mut h, &mut facts);
        h.facts = Arc::new(facts);
        ask(&mut r);
        let refusal = decide(&at(&h), &r).unwrap_err();
        assert_eq!(refusal.filters[0].filter, filter, "{refusal:?}");
        let details = refusal.details();
        assert!(
            details.starts_with(&format!("name-a: {filter}: ")) && details.contains(why),
            "{details}"
        );
        assert!(!refusal.message(&r).contains("name-a"), "a host's name");
        seen.insert(filter);
    }
    assert_eq!(seen.len(), 17);
    // And what is as it was asked for passes.
    let mut h = host("a", [8, 8192, 100]);
    let mut facts = Facts {
        address: Some([10, 0, 2, 9].into()),
        ..Facts::clone(&h.facts)
    };
    facts.traits.insert("CUSTOM_LICENSE".into());
    aggregate(
        &mut facts,
        &[
            ("ssd", "true,fast"),
            ("filter_tenant_id", "demo"),
            ("trait:CUSTOM_LICENSE", "required"),
            ("os_distro", "debian"),
        ],
    );
    h.facts = Arc::new(facts);
    let r = Request {
        near: Some(([10, 0, 2, 5].into(), 24)),
        extra_specs: map(&[
            ("ssd", "fast"),
            ("hw:cpu_policy", "shared"),
            ("trait:CUSTOM_LICENSE", "required"),
            ("free_ram_mb", ">= 512"),
            ("hide_hypervisor_id", "true"),
        ]),
        image: map(&[
            ("os_distro", "debian"),
            ("hw_architecture", "amd64"),
            ("img_hv_type", "kvm"),
            ("img_hv_requested_version", ">=10.0.2"),
        ]),
        ..one()
    };
    assert!(
        decide(
            &Snapshot {
                hosts: vec![h],
                ..Snapshot::default()
            },
            &r
        )
        .is_ok()
    );
}

#[test]
fn multipliers_spread_and_pack() {
    let hosts = || {
        vec![
            host("a", [8, 4096, 100]),
            host("b", [8, 8192, 100]),
            host("c", [8, 2048, 100]),
        ]
    };
    let chosen = |snapshot: &Snapshot, r: &Request| decide(snapshot, r).unwrap();
    let with = |change: fn(&mut Scheduler)| {
        let mut c = Scheduler::default();
        change(&mut c);
        Snapshot {
            hosts: hosts(),
            weights: (&c).into(),
        }
    };
    let spread = chosen(&with(|_| ()), &one());
    assert_eq!(spread.hosts, ["b"]);
    let why = spread.why[0].message();
    assert_eq!(
        why,
        "name-b: of 3 hosts that passed all filters it has the largest weight, 1.000 (RAMWeigher 1 x 1.000); the next has 0.333."
    );
    assert_eq!(chosen(&with(|c| c.ram_weight_multiplier = -1.0), &one()).hosts, ["c"]);
    // Several of one request see each other.
    let three = Request {
        count: 3,
        amounts: [1, 2048, 1],
        ..one()
    };
    assert_eq!(chosen(&with(|_| ()), &three).hosts, ["b", "a", "c"]);
    // Equal hosts: the id decides.
    let alike = Snapshot {
        hosts: vec![host("y", [8, 512, 9]), host("x", [8, 512, 9])],
        ..Snapshot::default()
    };
    assert_eq!(chosen(&alike, &one()).hosts, ["x"]);
    // What failed before, what is busy, and what an aggregate says of its hosts.
    let mut s = with(|_| ());
    s.hosts[1].failed_builds = 1;
    assert_eq!(chosen(&s, &one()).hosts, ["a"]);
    let mut s = alike.clone();
    s.hosts[1].busy = 3;
    assert_eq!(chosen(&s, &one()).hosts, ["y"]);
    let mut s = with(|_| ());
    let own = s.weights.of_aggregates(&[
        map(&[("ram_weight_multiplier", "0")]),
        map(&[("ram_weight_multiplier", "5")]),
    ]);
    s.hosts[1].facts = Arc::new(Facts {
        weights: own,
        ..Facts::clone(&s.hosts[1].facts)
    });
    assert_eq!(chosen(&s, &one()).hosts, ["a"]);
    // A soft policy wins over free memory, and gives way to room.
    let soft = |policy: &str| Request {
        group: Some(GroupWish {
            policy: policy.into(),
            max_per_host: 1,
            members: BTreeMap::from([("c".into(), 1), ("b".into(), 2)]),
        }),
        ..one()
    };
    assert_eq!(chosen(&with(|_| ()), &soft("soft-affinity")).hosts, ["b"]);
    assert_eq!(chosen(&with(|_| ()), &soft("soft-anti-affinity")).hosts, ["a"]);
}

/// A thousand hosts, and a decision is far below what a request may take.
#[test]
fn a_thousand_hosts_are_decided_on_at_once() {
    let hosts = (0..1000)
        .map(|i| host(&format!("h{i:04}"), [64, 100_000 + i, 4000]))
        .collect();
    let s = Snapshot {
        hosts,
        ..Snapshot::default()
    };
    let many = Request { count: 1000, ..one() };
    let plan = decide(&s, &many).unwrap();
    // The first takes the most memory, and each next the most that is left.
    assert_eq!(plan.hosts[0], "h0999");
    let mut on: BTreeMap<&str, i64> = BTreeMap::new();
    for h in &plan.hosts {
        *on.entry(h).or_default() += 1;
    }
    assert!(on.values().all(|n| *n <= 2), "{on:?}");
}

fn roomy(c: &mut Config) {
    (
        c.compute.quota_instances,
        c.compute.quota_cores,
        c.compute.quota_ram_mib,
    ) = (-1, -1, -1);
}

/// Both databases; PostgreSQL where it is installed.
async fn on_both(test: impl AsyncFn(Lab)) {
    test(Lab::with(roomy).await).await;
    if !postgres::installed() {
        println!("SKIPPED: PostgreSQL is not installed");
        return;
    }
    let pg = Postgres::start().unwrap();
    let url = pg.create_database("race").unwrap();
    test(Lab::on(Some(url), roomy).await).await;
}

/// Creates at once, half of them through either control plane; how many were answered with what.
async fn race(lab: &Lab, count: usize, hints: Option<Value>) -> BTreeMap<StatusCode, usize> {
    let mut body = json!({"server": {"name": "n", "flavorRef": "1", "imageRef": lab.image, "networks": "none"}});
    if let Some(h) = hints {
        body["os:scheduler_hints"] = h;
    }
    let mut all = tokio::task::JoinSet::new();
    for i in 0..count {
        let router = if i % 2 == 0 { &lab.router } else { &lab.twin }.clone();
        let request = http::Request::builder()
            .method(Method::POST)
            .uri("/compute/v2.1/servers")
            .header("x-auth-token", DEMO)
            .header("openstack-api-version", "compute 2.96")
            .header("content-type", "application/json")
            .body(Body::from(body.to_string()))
            .unwrap();
        all.spawn(async move { router.oneshot(request).await.unwrap().status() });
    }
    let mut out = BTreeMap::new();
    while let Some(status) = all.join_next().await {
        *out.entry(status.unwrap()).or_default() += 1;
    }
    out
}

/// Servers by host.
async fn placed(lab: &Lab) -> BTreeMap<String, i64> {
    let mut tx = lab.db.read().await.unwrap();
    let rows = tx
        .rows(
            "SELECT host_id, COUNT(*) FROM server WHERE host_id <> '' GROUP BY host_id",
            &[],
        )
        .await
        .unwrap();
    rows.iter().map(|r| (r.str(0).unwrap(), r.i64(1).unwrap())).collect()
}

/// A thousand creates race for 200 places through two control planes whose views of the hosts contradict each other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn racing_creates_never_overcommit_a_host() {
    on_both(async |lab| {
        let mut hosts = Vec::new();
        for _ in 0..10 {
            hosts.push(FakeHost::join(&lab, 5, 1 << 20, 1 << 20).await);
        }
        let answers = race(&lab, 1000, None).await;
        let made = answers.get(&StatusCode::ACCEPTED).copied().unwrap_or(0);
        let again = answers.get(&StatusCode::SERVICE_UNAVAILABLE).copied().unwrap_or(0);
        assert_eq!(made + again, 1000, "{answers:?}");
        let on = placed(&lab).await;
        assert_eq!(on.len(), 10);
        assert!(on.values().all(|n| *n == 20), "{on:?}");
        let mut tx = lab.db.read().await.unwrap();
        for p in lab.placement.snapshot(&mut tx).await.unwrap() {
            let (have, used) = p.inventories["VCPU"];
            assert_eq!((have.capacity(), used), (20, 20));
        }
        drop(tx);
        lab.audit().await;
    })
    .await;
}

/// The group's policy holds when its members are created at once, by two control planes that do not know of each other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn racing_members_keep_to_their_group() {
    on_both(async |lab| {
        let mut hosts = Vec::new();
        for _ in 0..6 {
            hosts.push(FakeHost::join(&lab, 64, 1 << 20, 1 << 20).await);
        }
        for (policy, rules, most, on_hosts) in [("anti-affinity", json!({}), 1, 6), ("affinity", json!({}), 10, 1)] {
            let body = json!({"server_group": {"name": policy, "policy": policy, "rules": rules}});
            let made = lab.post(DEMO, "2.96", "/v2.1/os-server-groups", body, 200).await;
            let group = made["server_group"]["id"].as_str().unwrap().to_owned();
            race(&lab, 40, Some(json!({"group": group}))).await;
            let mut tx = lab.db.read().await.unwrap();
            let rows = tx
                .rows(
                    "SELECT host_id, COUNT(*) FROM server WHERE host_id <> '' AND server_group = $1 GROUP BY host_id",
                    &[group.as_str().into()],
                )
                .await
                .unwrap();
            assert_eq!(rows.len(), on_hosts, "{policy}");
            assert!(rows.iter().all(|r| r.i64(1).unwrap() <= most), "{policy}");
        }
        lab.audit().await;
    })
    .await;
}

/// What an operator writes into placement stays when the agent starts again; the configuration, where it speaks for all
/// hosts, does not give way.
#[tokio::test]
async fn ratios_of_operators_stay() {
    let ratio = async |lab: &Lab, host: &FakeHost| {
        let mut tx = lab.db.read().await.unwrap();
        let all = lab.placement.inventories(&mut tx, &host.id()).await.unwrap();
        (all["VCPU"].0.total, all["VCPU"].0.allocation_ratio)
    };
    for (always, after) in [(None, 16.0), (Some(2.0), 2.0)] {
        let lab = Lab::with(|c| c.compute.cpu_allocation_ratio = always).await;
        let host = FakeHost::join(&lab, 8, 8192, 100).await;
        assert_eq!(ratio(&lab, &host).await, (8, always.unwrap_or(4.0)));
        let (placement, id) = (lab.placement.clone(), host.id());
        lab.db
            .write(&haneul_store::Actor::system("operator"), async move |tx| {
                let mut have = placement.inventories(tx, &id).await?["VCPU"].0;
                have.allocation_ratio = 16.0;
                placement.set_inventory(tx, &id, "VCPU", &have).await
            })
            .await
            .unwrap();
        host.greets(|i| i.vcpus = 12).await;
        assert_eq!(ratio(&lab, &host).await, (12, after));
    }
}

#[tokio::test]
async fn a_choice_is_explained_to_administrators_alone() {
    let lab = Lab::start().await;
    let small = FakeHost::join(&lab, 8, 4096, 100).await;
    let large = FakeHost::join_as(&lab, 8, 8192, 100, |h| {
        h.cpu_features = vec!["avx2".into(), "odd".into()]
    })
    .await;
    let id = lab.create("n", "1").await;
    lab.wait(&id, "ACTIVE").await;
    let actions = lab
        .get(ADMIN, "2.96", &format!("/v2.1/servers/{id}/os-instance-actions"))
        .await;
    let request = actions["instanceActions"][0]["request_id"].as_str().unwrap().to_owned();
    let path = format!("/v2.1/servers/{id}/os-instance-actions/{request}");
    let seen = lab.get(ADMIN, "2.96", &path).await;
    let details = seen["instanceAction"]["events"][0]["details"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(
        details.starts_with(&format!("{}: of 2 hosts that passed all filters", large.name())),
        "{details}"
    );
    assert!(details.contains("RAMWeigher 1 x 1.000"), "{details}");
    let seen = lab.get(DEMO, "2.96", &path).await;
    assert!(seen["instanceAction"]["events"][0].get("details").is_none(), "{seen}");
    // What placement knows of the hosts: their processors, and who is switched off.
    let traits = async || {
        let mut tx = lab.db.read().await.unwrap();
        let all = lab.placement.snapshot(&mut tx).await.unwrap();
        all.into_iter().map(|p| (p.uuid, p.traits)).collect::<BTreeMap<_, _>>()
    };
    assert_eq!(
        traits().await[&large.id()],
        ["COMPUTE_NODE", "HW_ARCH_X86_64", "HW_CPU_X86_AVX2"]
    );
    assert_eq!(traits().await[&small.id()], ["COMPUTE_NODE", "HW_ARCH_X86_64"]);
    for (what, off) in [("disable", true), ("enable", false)] {
        let body = json!({"host": small.name(), "binary": "nova-compute"});
        let a = lab
            .call(
                ADMIN,
                "2.1",
                Method::PUT,
                &format!("/v2.1/os-services/{what}"),
                Some(body),
            )
            .await;
        assert_eq!(a.status, 200, "{}", a.body);
        let has = traits().await[&small.id()].contains(&"COMPUTE_STATUS_DISABLED".to_owned());
        assert_eq!(has, off);
    }
    // A wish that nobody would look at is refused.
    let body = json!({"server": {"name": "n", "flavorRef": "1", "imageRef": lab.image, "networks": "none"},
        "os:scheduler_hints": {"query": "[\">=\", \"$free_ram_mb\", 1024]"}});
    let refused = lab.post(DEMO, "2.96", "/v2.1/servers", body, 400).await;
    assert!(
        refused["badRequest"]["message"]
            .as_str()
            .unwrap()
            .contains("JsonFilter"),
        "{refused}"
    );
}
