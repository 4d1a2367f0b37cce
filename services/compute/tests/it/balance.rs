//! The plan of moves, without any database: it makes nothing worse, breaks no filter, and ends.

use haneul_compute::balance::{Limits, Movable, plan};
use haneul_compute::decide::{GroupWish, HostState, Request, Snapshot, Stock, decide};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

fn host(i: usize, vcpus: i64, memory: i64, up: bool) -> HostState {
    HostState {
        id: format!("h{i}"),
        name: format!("name-{i}"),
        up,
        enabled: true,
        zone: if i < 4 { "nova" } else { "far" }.into(),
        stock: [vcpus, memory, 1000].map(|total| Stock {
            total,
            ratio: 1.0,
            max_unit: total,
            ..Stock::default()
        }),
        ..HostState::default()
    }
}

/// Hosts, and servers on them; those of a group are never on one host.
fn cloud() -> impl Strategy<Value = (Snapshot, Vec<Movable>)> {
    let hosts = prop::collection::vec((8i64..32, 8i64..64, prop::bool::weighted(0.85)), 2..6);
    let servers = prop::collection::vec(
        (0usize..6, 1i64..5, 1i64..9, any::<bool>(), any::<bool>(), 0u8..10),
        0..14,
    );
    (hosts, servers).prop_map(|(hosts, servers)| {
        let mut snapshot = Snapshot::default();
        for (i, (vcpus, memory, up)) in hosts.into_iter().enumerate() {
            snapshot.hosts.push(host(i, vcpus, memory, up));
        }
        let mut out: Vec<Movable> = Vec::new();
        let mut members: BTreeMap<String, i64> = BTreeMap::new();
        for (n, (at, vcpus, memory, grouped, zoned, stuck)) in servers.into_iter().enumerate() {
            let at = at % snapshot.hosts.len();
            let h = &mut snapshot.hosts[at];
            let amounts = [vcpus, memory, 1];
            let taken = grouped && members.contains_key(&h.id);
            if taken || h.stock.iter().zip(amounts).any(|(s, a)| a > s.free()) {
                continue;
            }
            h.takes(&amounts, 1);
            if grouped {
                members.insert(h.id.clone(), 1);
            }
            let zone = zoned.then(|| h.zone.clone());
            let request = Request {
                amounts,
                count: 1,
                zone,
                avoid: vec![h.id.clone()],
                ..Request::default()
            };
            out.push(Movable {
                id: format!("s{n}"),
                name: format!("server-{n}"),
                host: h.id.clone(),
                group: grouped.then(|| "g".to_owned()),
                request: if stuck == 0 {
                    Err("it is stopped".into())
                } else {
                    Ok(request)
                },
            });
        }
        for s in &mut out {
            if let (Some(_), Ok(r)) = (&s.group, &mut s.request) {
                let mut members = members.clone();
                members.remove(&s.host);
                let policy = "anti-affinity".to_owned();
                r.group = Some(GroupWish {
                    policy,
                    max_per_host: 1,
                    members,
                });
            }
        }
        (snapshot, out)
    })
}

/// The measure, written down once more.
fn imbalance(s: &Snapshot) -> f64 {
    let up: Vec<&HostState> = s.hosts.iter().filter(|h| h.up).collect();
    let n = up.len().max(1) as f64;
    let variance = |class: usize| {
        let shares: Vec<f64> = up
            .iter()
            .map(|h| h.stock[class].used as f64 * 100.0 / h.stock[class].capacity() as f64)
            .collect();
        let mean = shares.iter().sum::<f64>() / n;
        shares.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / n
    };
    ((variance(0) + variance(1)) / 2.0).sqrt()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn each_move_is_allowed_and_gains((snapshot, servers) in cloud(), most in 0usize..6, gain in 0.01f64..5.0) {
        let limits = Limits { moves: most, gain };
        let balance = plan(&snapshot, &servers, &limits);
        prop_assert!(balance.moves.len() <= most);
        prop_assert!((balance.before - imbalance(&snapshot)).abs() < 1e-6);
        let mut now = snapshot.clone();
        let mut members: BTreeMap<String, i64> = BTreeMap::new();
        for s in servers.iter().filter(|s| s.group.is_some()) {
            *members.entry(s.host.clone()).or_default() += 1;
        }
        let mut moved = BTreeSet::new();
        for m in &balance.moves {
            prop_assert!(moved.insert(&m.id), "{} moves twice", m.id);
            let s = servers.iter().find(|s| s.id == m.id).unwrap();
            prop_assert_eq!(&s.host, &m.from);
            let mut request = s.request.clone().expect("what cannot move stays");
            request.host = Some(m.to.clone());
            if let Some(g) = &mut request.group {
                *members.get_mut(&m.from).unwrap() -= 1;
                g.members = members.clone();
                *members.entry(m.to.clone()).or_default() += 1;
            }
            let allowed = decide(&now, &request);
            prop_assert!(allowed.is_ok(), "{:?}: {:?}", m, allowed);
            let before = imbalance(&now);
            for h in &mut now.hosts {
                h.takes(&request.amounts, i64::from(h.id == m.to) - i64::from(h.id == m.from));
            }
            let gained = before - imbalance(&now);
            prop_assert!(gained >= gain - 1e-9 && (gained - m.gain).abs() < 1e-6, "{m:?} gained {gained}");
        }
        prop_assert!((balance.after - imbalance(&now)).abs() < 1e-6);
        // Whoever stays has a reason.
        prop_assert_eq!(balance.stays.len() + moved.len(), servers.len());
        prop_assert!(balance.stays.iter().all(|(_, _, why)| !why.is_empty()));
    }
}

#[test]
fn a_loaded_host_gives_to_an_empty_one() {
    let mut snapshot = Snapshot {
        hosts: vec![host(0, 10, 100, true), host(1, 10, 100, true)],
        ..Snapshot::default()
    };
    let servers: Vec<Movable> = (0..4)
        .map(|n| Movable {
            id: format!("s{n}"),
            name: format!("server-{n}"),
            host: "h0".into(),
            group: None,
            request: Ok(Request {
                amounts: [2, 10, 1],
                count: 1,
                ..Request::default()
            }),
        })
        .collect();
    snapshot.hosts[0].takes(&[8, 40, 4], 1);
    let limits = Limits { moves: 10, gain: 0.5 };
    let balance = plan(&snapshot, &servers, &limits);
    assert_eq!(balance.moves.len(), 2);
    assert!(balance.before > 30.0 && balance.after < 1e-9, "{balance:?}");
    let (_, _, why) = &balance.stays[0];
    assert!(why.contains("no more alike"), "{why}");
    // A filter is in the way, and is named.
    let mut bound = servers.clone();
    for s in &mut bound {
        s.request.as_mut().unwrap().zone = Some("mars".into());
    }
    let balance = plan(&snapshot, &bound, &limits);
    assert!(balance.moves.is_empty());
    let (_, _, why) = &balance.stays[0];
    assert!(why.contains("AvailabilityZoneFilter") && why.contains("mars"), "{why}");
}
