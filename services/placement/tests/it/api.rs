//! The API over its router, as a client sees it.

use axum::body::Body;
use haneul_auth::context::CtxInner;
use haneul_auth::{Authenticator, BoxFuture, Policy, RoleRef, ScopeKind};
use haneul_core::{Result, clock};
use haneul_http::Server;
use haneul_placement::Placement;
use haneul_store::Db;
use http::Request;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use std::sync::Arc;
use tower::ServiceExt;

/// A token is the name of its only role.
struct Stub(Arc<Policy>);

impl Authenticator for Stub {
    fn authenticate<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Arc<CtxInner>>> {
        Box::pin(async move {
            Ok(Arc::new(CtxInner {
                user_id: token.into(),
                user_name: token.into(),
                user_domain_id: "default".into(),
                user_domain_name: "Default".into(),
                scope: ScopeKind::Project {
                    id: "p".into(),
                    name: "p".into(),
                    domain_id: "default".into(),
                    domain_name: "Default".into(),
                },
                roles: vec![RoleRef {
                    id: token.into(),
                    name: token.into(),
                }],
                expires_at: clock::now() + 3600 * clock::SECOND,
                issued_at: clock::now(),
                audit_ids: vec![],
                methods: vec!["password".into()],
                application_credential_id: None,
                password_expires_at: None,
            }))
        })
    }
    fn policy(&self) -> Arc<Policy> {
        self.0.clone()
    }
}

pub struct Api {
    router: axum::Router,
}

impl Api {
    pub fn new(db: Db) -> Self {
        let server = Server {
            auth: Arc::new(Stub(Arc::new(Policy::new(haneul_placement::RULES, &[]).unwrap()))),
            metrics: Arc::default(),
            public_url: "http://cloud".into(),
            max_body: 1 << 20,
            max_limit: 1000,
        };
        Self {
            router: Arc::new(Placement::new(db)).routes().into_router(&server),
        }
    }

    async fn send(&self, version: &str, call: &str, body: Value) -> (u16, Value) {
        let (method, path) = call.split_once(' ').unwrap();
        let token = if path == "/reshaper" { "service" } else { "admin" };
        let request = Request::builder()
            .method(method)
            .uri(format!("/placement{path}"))
            .header("x-auth-token", token)
            .header("content-type", "application/json")
            .header("openstack-api-version", format!("placement {version}"))
            .body(Body::from(body.to_string()))
            .unwrap();
        let answer = self.router.clone().oneshot(request).await.unwrap();
        let status = answer.status().as_u16();
        let bytes = answer.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }

    #[track_caller]
    fn must(call: &str, (status, body): (u16, Value), want: u16) -> Value {
        assert_eq!(status, want, "{call}: {body}");
        body
    }

    pub async fn at(&self, version: &str, call: &str, body: Value, want: u16) -> Value {
        Self::must(call, self.send(version, call, body).await, want)
    }
    pub async fn get(&self, path: &str) -> Value {
        self.at("1.39", &format!("GET {path}"), Value::Null, 200).await
    }

    /// A provider whose id ends in `n`, with inventories, traits and aggregates.
    async fn provider(&self, n: u8, parent: Option<u8>, have: Value, traits: &[&str], aggregates: &[u8]) -> String {
        let uuid = id(n);
        let mut body = json!({"name": format!("n{n}"), "uuid": uuid});
        if let Some(up) = parent {
            body["parent_provider_uuid"] = id(up).into();
        }
        self.at("1.39", "POST /resource_providers", body, 200).await;
        let here = format!("/resource_providers/{uuid}");
        let body = json!({"resource_provider_generation": 0, "inventories": have});
        self.at("1.39", &format!("PUT {here}/inventories"), body, 200).await;
        let body = json!({"resource_provider_generation": 1, "traits": traits});
        self.at("1.39", &format!("PUT {here}/traits"), body, 200).await;
        let list: Vec<String> = aggregates.iter().map(|a| id(*a)).collect();
        let body = json!({"resource_provider_generation": 2, "aggregates": list});
        self.at("1.39", &format!("PUT {here}/aggregates"), body, 200).await;
        uuid
    }
}

fn id(n: u8) -> String {
    format!("00000000-0000-4000-8000-0000000000{n:02}")
}

/// Which providers each candidate takes from, by the last digits of their ids.
fn takes(answer: &Value) -> Vec<Vec<String>> {
    let mut out: Vec<Vec<String>> = answer["allocation_requests"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| {
            let of = r["allocations"].as_object().unwrap().keys();
            let mut names: Vec<String> = of.map(|k| k[34..].to_owned()).collect();
            names.sort();
            names
        })
        .collect();
    out.sort();
    out
}

/// Two hosts with a NUMA node and a card each, a host with its own disk, and a disk that the first two share.
pub async fn candidates(api: &Api) {
    let host = json!({"VCPU": {"total": 8}, "MEMORY_MB": {"total": 4096}});
    let shares = &["MISC_SHARES_VIA_AGGREGATE"];
    api.provider(1, None, json!({}), &["HW_CPU_X86_VMX"], &[90]).await;
    api.provider(2, Some(1), host.clone(), &["HW_NUMA_ROOT"], &[]).await;
    let vf = json!({"SRIOV_NET_VF": {"total": 4}});
    api.provider(3, Some(2), vf.clone(), &[], &[]).await;
    api.provider(4, Some(1), vf, &[], &[]).await;
    let whole = json!({"VCPU": {"total": 8}, "MEMORY_MB": {"total": 4096}, "DISK_GB": {"total": 100}});
    api.provider(5, None, whole, &["HW_CPU_X86_SVM"], &[91]).await;
    api.provider(6, None, json!({"DISK_GB": {"total": 1000}}), shares, &[90, 92])
        .await;
    let all = "resources=VCPU:1,DISK_GB:10";
    for (query, want) in [
        (all.to_owned(), vec![vec!["02", "06"], vec!["05"]]),
        (format!("{all}&in_tree={}", id(5)), vec![vec!["05"]]),
        (
            format!("{all}&member_of=in:{},{}", id(90), id(99)),
            vec![vec!["02", "06"]],
        ),
        (format!("{all}&member_of=!{}", id(91)), vec![vec!["02", "06"]]),
        (format!("{all}&required=!HW_CPU_X86_SVM"), vec![vec!["02", "06"]]),
        (
            format!("{all}&required=in:HW_CPU_X86_SVM,HW_CPU_X86_AVX"),
            vec![vec!["05"]],
        ),
        (format!("{all}&root_required=HW_CPU_X86_VMX"), vec![vec!["02", "06"]]),
        (format!("{all}&root_required=!HW_CPU_X86_VMX"), vec![vec!["05"]]),
        (format!("{all}&limit=1"), vec![vec!["02", "06"]]),
        ("resources=VCPU:9".into(), vec![]),
        // Two of the card's functions come from one provider, or from two.
        (
            "resources_A=SRIOV_NET_VF:2&resources_B=SRIOV_NET_VF:2&group_policy=none".into(),
            vec![vec!["03"], vec!["03", "04"], vec!["03", "04"], vec!["04"]],
        ),
        (
            "resources_A=SRIOV_NET_VF:2&resources_B=SRIOV_NET_VF:2&group_policy=isolate".into(),
            vec![vec!["03", "04"], vec!["03", "04"]],
        ),
        (
            "resources_A=SRIOV_NET_VF:3&resources_B=SRIOV_NET_VF:2&group_policy=none".into(),
            vec![vec!["03", "04"], vec!["03", "04"]],
        ),
        // Below the NUMA node there is one card only.
        (
            "resources_C=VCPU:1&resources_N=SRIOV_NET_VF:1&group_policy=none&same_subtree=_C,_N".into(),
            vec![vec!["02", "03"]],
        ),
        (
            "resources_N=SRIOV_NET_VF:1&required_R=HW_NUMA_ROOT&group_policy=none&same_subtree=_N,_R".into(),
            vec![vec!["03"]],
        ),
    ] {
        let answer = api.get(&format!("/allocation_candidates?{query}")).await;
        assert_eq!(takes(&answer), want, "{query}");
    }
    let answer = api.get(&format!("/allocation_candidates?{all}&limit=1")).await;
    let first = &answer["allocation_requests"][0];
    assert_eq!(first["mappings"], json!({"": [id(2), id(6)]}));
    // The summaries show the whole tree, all that it has, and where each stands in it.
    let summaries = answer["provider_summaries"].as_object().unwrap();
    assert_eq!(summaries.len(), 5, "{answer}");
    let card = &summaries[&id(3)];
    assert_eq!(
        *card,
        json!({"resources": {"SRIOV_NET_VF": {"capacity": 4, "used": 0}}, "traits": [],
               "parent_provider_uuid": id(2), "root_provider_uuid": id(1)})
    );
    // Before 1.29 no candidate takes from two providers of one tree.
    let both = "GET /allocation_candidates?resources=VCPU:1,SRIOV_NET_VF:1";
    assert!(takes(&api.at("1.28", both, Value::Null, 200).await).is_empty());
    assert_eq!(takes(&api.at("1.29", both, Value::Null, 200).await).len(), 2);
    for query in [
        "resources=VCPU:1&resources1=VCPU:1&resources2=VCPU:1",
        "resources=VCPU:1&required=NO_SUCH",
        "resources=NO_SUCH:1",
        "resources=VCPU:1&required_X=HW_NUMA_ROOT",
        "resources=VCPU:1&same_subtree=_X",
        "resources=VCPU:1&required=HW_CPU_X86_VMX&required=!HW_CPU_X86_VMX",
        "required=HW_NUMA_ROOT",
        "resources=VCPU:1&group_policy=maybe",
        "resources=VCPU:1&resources@=VCPU:1",
    ] {
        api.at("1.39", &format!("GET /allocation_candidates?{query}"), Value::Null, 400)
            .await;
    }
}

/// A consumer's generation guards its allocations, and its type is told apart in the usages.
pub async fn consumers(api: &Api) {
    api.provider(1, None, json!({"VCPU": {"total": 4}}), &[], &[]).await;
    let (me, other) = (id(50), id(51));
    let claim = |n: i64, generation: Value, kind: &str| {
        json!({"allocations": {id(1): {"resources": {"VCPU": n}}}, "project_id": "p", "user_id": "u",
               "consumer_generation": generation, "consumer_type": kind})
    };
    let put = format!("PUT /allocations/{me}");
    api.at("1.39", &put, claim(1, json!(3), "INSTANCE"), 409).await;
    api.at("1.39", &put, claim(1, Value::Null, "INSTANCE"), 204).await;
    let said = api.at("1.39", &put, claim(2, Value::Null, "INSTANCE"), 409).await;
    assert_eq!(said["errors"][0]["code"], "placement.concurrent_update");
    api.at("1.39", &put, claim(2, json!(1), "MIGRATION"), 204).await;
    let have = api.get(&format!("/allocations/{me}")).await;
    assert_eq!(
        (&have["consumer_generation"], &have["consumer_type"]),
        (&json!(2), &json!("MIGRATION"))
    );
    // All of two consumers or nothing of them, and what one gives back the other may take.
    let empty = json!({"allocations": {}, "project_id": "p", "user_id": "u", "consumer_generation": 2,
                       "consumer_type": "MIGRATION"});
    let both = |n: i64| json!({me.as_str(): empty, other.as_str(): claim(n, Value::Null, "INSTANCE")});
    api.at("1.39", "POST /allocations", both(5), 409).await;
    assert_eq!(
        api.get(&format!("/allocations/{me}")).await["consumer_generation"],
        2,
        "nothing of it is kept"
    );
    api.at("1.39", "POST /allocations", both(4), 204).await;
    assert_eq!(api.get(&format!("/allocations/{me}")).await, json!({"allocations": {}}));
    assert_eq!(
        api.get("/usages?project_id=p").await,
        json!({"usages": {"INSTANCE": {"VCPU": 4, "consumer_count": 1}}})
    );
    let all = api.get("/usages?project_id=p&consumer_type=all").await;
    assert_eq!(all, json!({"usages": {"all": {"VCPU": 4, "consumer_count": 1}}}));
    let none = api.get("/usages?project_id=p&consumer_type=MIGRATION").await;
    assert_eq!(none, json!({"usages": {}}));
    // Before 1.38 nobody says a type, and an empty claim with its generation gives all back.
    let mut old = claim(1, Value::Null, "x");
    old.as_object_mut().unwrap().remove("consumer_type");
    api.at(
        "1.28",
        "PUT /allocations/00000000-0000-4000-8000-000000000052",
        old,
        409,
    )
    .await;
    let mut gone = empty.clone();
    gone["consumer_generation"] = 1.into();
    api.at("1.39", &format!("PUT /allocations/{other}"), gone, 204).await;
}

/// Inventory and what is held of it move from a host to its new NUMA node in one step, or not at all.
pub async fn reshaper(api: &Api) {
    api.provider(
        1,
        None,
        json!({"VCPU": {"total": 4}, "DISK_GB": {"total": 10}}),
        &[],
        &[],
    )
    .await;
    api.provider(2, Some(1), json!({}), &[], &[]).await;
    let me = id(50);
    let claim = |from: u8, generation: Value| {
        json!({"allocations": {id(from): {"resources": {"VCPU": 3}}}, "project_id": "p", "user_id": "u",
               "consumer_generation": generation, "consumer_type": "INSTANCE"})
    };
    api.at("1.39", &format!("PUT /allocations/{me}"), claim(1, Value::Null), 204)
        .await;
    let generation =
        |n: u8| async move { api.get(&format!("/resource_providers/{}", id(n))).await["generation"].clone() };
    let (host, numa) = (generation(1).await, generation(2).await);
    let shape = |cpus: i64, claims: Value| {
        json!({"inventories": {
                id(1): {"resource_provider_generation": host, "inventories": {"DISK_GB": {"total": 10}}},
                id(2): {"resource_provider_generation": numa, "inventories": {"VCPU": {"total": cpus}}}},
               "allocations": claims})
    };
    let post = "POST /reshaper";
    // It would take what is held, or hold more than there is, or was not seen like this.
    let said = api.at("1.39", post, shape(4, json!({})), 409).await;
    assert_eq!(said["errors"][0]["code"], "placement.inventory.inuse");
    api.at("1.39", post, shape(2, json!({me.as_str(): claim(2, json!(1))})), 409)
        .await;
    api.at("1.39", post, shape(4, json!({me.as_str(): claim(2, json!(7))})), 409)
        .await;
    let held = api.get(&format!("/allocations/{me}")).await;
    assert_eq!(
        held["allocations"][id(1)]["resources"]["VCPU"],
        3,
        "nothing of it is kept"
    );
    assert_eq!(generation(1).await, host);
    api.at("1.39", post, shape(4, json!({me.as_str(): claim(2, json!(1))})), 204)
        .await;
    let usages =
        |n: u8| async move { api.get(&format!("/resource_providers/{}/usages", id(n))).await["usages"].clone() };
    assert_eq!(usages(1).await, json!({"DISK_GB": 0}));
    assert_eq!(usages(2).await, json!({"VCPU": 3}));
    api.at("1.39", post, shape(4, json!({})), 409).await;
    api.at("1.29", post, json!({}), 404).await;
}

/// Who is above whom may change from 1.37 on, and never becomes a ring.
pub async fn trees(api: &Api) {
    for (n, parent) in [(1, None), (2, Some(1)), (3, Some(2)), (4, None)] {
        api.provider(n, parent, json!({}), &[], &[]).await;
    }
    let put = |n: u8| format!("PUT /resource_providers/{}", id(n));
    let below = |n: u8, up: Value| json!({"name": format!("n{n}"), "parent_provider_uuid": up});
    api.at("1.36", &put(2), below(2, json!(id(4))), 400).await;
    api.at("1.36", &put(2), below(2, Value::Null), 400).await;
    api.at("1.39", &put(1), below(1, json!(id(3))), 400).await;
    api.at("1.39", &put(1), below(1, json!(id(1))), 400).await;
    let moved = api.at("1.39", &put(2), below(2, json!(id(4))), 200).await;
    assert_eq!(moved["root_provider_uuid"], id(4));
    let tree = api.get(&format!("/resource_providers?in_tree={}", id(3))).await;
    assert_eq!(tree["resource_providers"].as_array().unwrap().len(), 3);
    assert_eq!(
        tree["resource_providers"][1]["root_provider_uuid"],
        id(4),
        "its child moved with it"
    );
    let alone = api.at("1.39", &put(2), below(2, Value::Null), 200).await;
    assert_eq!(alone["root_provider_uuid"], id(2));
}

/// What came with which microversion is not there before.
pub async fn versions(api: &Api) {
    let rp = api.provider(1, None, json!({}), &[], &[]).await;
    let all = json!({"resource_class": "VCPU", "total": 4, "reserved": 4});
    let post = format!("POST /resource_providers/{rp}/inventories");
    let said = api.at("1.25", &post, all.clone(), 400).await;
    assert_eq!(said["errors"][0]["code"], "placement.undefined_code");
    let said = api.at("1.22", &post, all.clone(), 400).await;
    assert_eq!(said["errors"][0].get("code"), None, "codes came with 1.23");
    api.at("1.26", &post, all, 201).await;
    let list = "GET /resource_providers?";
    let agg = id(90);
    for (version, query, status) in [
        ("1.21", "required=!HW_CPU_X86_VMX".to_owned(), 400),
        ("1.22", "required=!HW_CPU_X86_VMX".to_owned(), 200),
        ("1.23", format!("member_of={agg}&member_of={agg}"), 400),
        ("1.24", format!("member_of={agg}&member_of={agg}"), 200),
        ("1.31", format!("member_of=!{agg}"), 400),
        ("1.32", format!("member_of=!in:{agg},{agg}"), 200),
        ("1.38", "required=in:HW_CPU_X86_VMX".to_owned(), 400),
        ("1.39", "required=in:HW_CPU_X86_VMX".to_owned(), 200),
    ] {
        api.at(version, &format!("{list}{query}"), Value::Null, status).await;
    }
    for (version, query, status) in [
        ("1.20", format!("resources=VCPU:1&member_of={agg}"), 400),
        ("1.21", format!("resources=VCPU:1&member_of={agg}"), 200),
        ("1.24", "resources1=VCPU:1".to_owned(), 400),
        ("1.25", "resources1=VCPU:1".to_owned(), 200),
        ("1.30", format!("resources=VCPU:1&in_tree={rp}"), 400),
        ("1.31", format!("resources=VCPU:1&in_tree={rp}"), 200),
        ("1.32", "resources_X=VCPU:1".to_owned(), 400),
        ("1.33", "resources_X=VCPU:1".to_owned(), 200),
        ("1.34", "resources=VCPU:1&root_required=HW_CPU_X86_VMX".to_owned(), 400),
        ("1.35", "resources=VCPU:1&root_required=HW_CPU_X86_VMX".to_owned(), 200),
        ("1.35", "resources1=VCPU:1&same_subtree=1".to_owned(), 400),
        ("1.36", "resources1=VCPU:1&same_subtree=1".to_owned(), 200),
    ] {
        let call = format!("GET /allocation_candidates?{query}");
        api.at(version, &call, Value::Null, status).await;
    }
    api.at("1.40", "GET /resource_providers", Value::Null, 406).await;
}
