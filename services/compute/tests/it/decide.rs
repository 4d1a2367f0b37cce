//! The decision, without any database: what it plans fits, and what a refusal says is true.

use haneul_compute::decide::{Change, GroupWish, HostState, Request, Snapshot, Stock, decide};
use proptest::prelude::*;
use std::collections::BTreeMap;

fn stock() -> impl Strategy<Value = Stock> {
    (
        0i64..64,
        0i64..8,
        prop_oneof![Just(1.0), Just(4.0), Just(1.5)],
        0i64..80,
    )
        .prop_map(|(total, reserved, ratio, used)| Stock {
            total,
            reserved: reserved.min(total),
            ratio,
            used,
            max_unit: total.max(1),
        })
}

fn host(i: usize) -> impl Strategy<Value = HostState> {
    (
        stock(),
        stock(),
        stock(),
        prop::bool::weighted(0.8),
        prop::bool::weighted(0.9),
        prop::bool::weighted(0.8),
    )
        .prop_map(move |(a, b, c, up, enabled, here)| HostState {
            id: format!("id-{i}"),
            name: format!("name-{i}"),
            up,
            enabled,
            zone: if here { "nova" } else { "other" }.into(),
            stock: [a, b, c],
            ..HostState::default()
        })
}

fn snapshot() -> impl Strategy<Value = Snapshot> {
    prop::collection::vec(0..1u8, 0..5)
        .prop_flat_map(|n| (0..n.len()).map(host).collect::<Vec<_>>())
        .prop_map(|hosts| Snapshot {
            hosts,
            ..Snapshot::default()
        })
}

fn request() -> impl Strategy<Value = Request> {
    let group = prop::option::of((
        prop_oneof![
            Just("affinity"),
            Just("anti-affinity"),
            Just("soft-affinity"),
            Just("soft-anti-affinity")
        ],
        1i64..3,
        prop::collection::btree_map((0usize..5).prop_map(|i| format!("id-{i}")), 1i64..3, 0..2),
    ))
    .prop_map(|g| {
        g.map(|(policy, max_per_host, members)| GroupWish {
            policy: policy.into(),
            max_per_host,
            members,
        })
    });
    (
        [1i64..48, 1i64..48, 0i64..48],
        1usize..4,
        prop::option::weighted(0.3, Just("nova".to_owned())),
        prop::option::weighted(0.1, (0usize..5).prop_map(|i| format!("name-{i}"))),
        group,
        prop::collection::vec((0usize..5).prop_map(|i| format!("id-{i}")), 0..2),
    )
        .prop_map(|(amounts, count, zone, host, group, avoid)| Request {
            amounts,
            count,
            zone,
            host,
            group,
            avoid,
            ..Request::default()
        })
}

/// Takes a plan out of the snapshot; false when it does not fit.
fn apply(snapshot: &Snapshot, r: &Request, hosts: &[String]) -> bool {
    let mut s = snapshot.clone();
    for id in hosts {
        let Some(h) = s.hosts.iter_mut().find(|h| h.id == *id) else {
            return false;
        };
        if !h.up || !h.enabled || r.zone.as_ref().is_some_and(|z| *z != h.zone) {
            return false;
        }
        for (st, a) in h.stock.iter_mut().zip(r.amounts) {
            if a > st.free() {
                return false;
            }
            st.used += a;
        }
    }
    true
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn plans_fit_and_refusals_are_true(snapshot in snapshot(), r in request()) {
        match decide(&snapshot, &r) {
            Ok(plan) => {
                prop_assert_eq!(plan.hosts.len(), r.count);
                prop_assert!(apply(&snapshot, &r, &plan.hosts));
            }
            Err(refusal) => {
                prop_assert_eq!(refusal.hosts, snapshot.hosts.len());
                prop_assert_eq!(refusal.per_host.len(), snapshot.hosts.len());
                if let Some(changed) = r.changed(&refusal.change) {
                    prop_assert!(changed != r);
                    prop_assert!(decide(&snapshot, &changed).is_ok(), "{:?} does not make {:?} fit", refusal.change, r);
                } else {
                    prop_assert_eq!(&refusal.change, &Change::MoreHosts);
                }
                for f in &refusal.filters {
                    prop_assert!(f.refused > 0 && f.refused <= snapshot.hosts.len());
                    if let (Some(n), Some(l)) = (f.needed, f.largest)
                        && f.refused == snapshot.hosts.len()
                    {
                        prop_assert!(l < n, "{f:?}");
                    }
                }
                let text = refusal.message(&r);
                prop_assert!(!text.contains("name-"), "a host's name: {}", text);
            }
        }
    }
}

#[test]
fn the_numbers_of_a_refusal() {
    let small = |id: &str, free: i64| HostState {
        id: id.into(),
        name: format!("secret-{id}"),
        up: true,
        enabled: true,
        zone: "nova".into(),
        stock: [free, free * 1000, 50].map(|total| Stock {
            total,
            reserved: 0,
            ratio: 1.0,
            used: 0,
            max_unit: total,
        }),
        ..HostState::default()
    };
    let mut s = Snapshot {
        hosts: vec![small("a", 2), small("b", 4), small("c", 8)],
        ..Snapshot::default()
    };
    s.hosts[2].up = false;
    let r = Request {
        amounts: [6, 2000, 10],
        count: 1,
        ..Request::default()
    };
    let refusal = decide(&s, &r).unwrap_err();
    assert_eq!(
        refusal.message(&r),
        "No valid host was found. Of 3 hosts: ComputeFilter refused 1 (not up, or disabled); VCPU refused 2 (needed 6 VCPUs, the most that is free on one host is 4). The smallest change that would fit: a flavor of at most 4 VCPUs, 2000 MiB of memory and 10 GiB of disk."
    );
    assert!(refusal.details().contains("secret-a: VCPU: needed 6, free 2"));
    let two = Request {
        amounts: [4, 1000, 10],
        count: 2,
        ..Request::default()
    };
    assert_eq!(decide(&s, &two).unwrap_err().change, Change::Fewer(1));
    let wrong_zone = Request {
        amounts: [1, 1, 1],
        count: 1,
        zone: Some("mars".into()),
        ..Request::default()
    };
    assert_eq!(
        decide(&s, &wrong_zone).unwrap_err().change,
        Change::Without("availability_zone")
    );
    let apart = GroupWish {
        policy: "anti-affinity".into(),
        max_per_host: 1,
        members: BTreeMap::from([("a".into(), 1), ("b".into(), 1)]),
    };
    let grouped = Request {
        amounts: [1, 1, 1],
        count: 1,
        group: Some(apart),
        ..Request::default()
    };
    assert_eq!(decide(&s, &grouped).unwrap_err().change, Change::Without("group"));
}
