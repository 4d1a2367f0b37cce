//! Network cards that come and go while a guest runs, against real QEMU.

use crate::support::{EJECTS, Host, cannot};
use haneul_agent_api::{GuestState, Nic, Power};
use haneul_hypervisor::Hypervisor;
use haneul_hypervisor::qemu::qmp::Qmp;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};
use uuid::Uuid;

fn nic(n: u8) -> Nic {
    Nic {
        port_id: Uuid::from_u128(u128::from(n)),
        mac: format!("fa:16:3e:00:00:{n:02x}"),
        mtu: 1450,
    }
}

/// Cards by port and slot, as the record has them.
fn recorded(host: &Host) -> Vec<(Uuid, u64)> {
    let record = host.record();
    let all = record["devices"].as_array().unwrap().clone();
    let card = |d: &Value| {
        Some((
            Uuid::try_parse(d["port"].as_str()?).unwrap(),
            d["slot"].as_u64().unwrap(),
        ))
    };
    all.iter().filter_map(card).collect()
}

/// MAC addresses of the cards that QEMU has. No agent may be there: the monitor takes one client.
async fn plugged(host: &Host) -> BTreeSet<String> {
    let deadline = Duration::from_secs(5);
    let (qmp, _events) = Qmp::connect(&host.guest_dir().join("qmp"), deadline).await.unwrap();
    let list = qmp
        .execute("qom-list", json!({"path": "/machine/peripheral"}), deadline)
        .await
        .unwrap();
    let mut macs = BTreeSet::new();
    for name in list.as_array().unwrap().iter().filter_map(|d| d["name"].as_str()) {
        let of = json!({"path": format!("/machine/peripheral/{name}"), "property": "mac"});
        if let Ok(mac) = qmp.execute("qom-get", of, deadline).await {
            macs.insert(mac.as_str().unwrap().to_owned());
        }
    }
    macs
}

fn macs(nics: &[Nic]) -> BTreeSet<String> {
    nics.iter().map(|n| n.mac.clone()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn cards_come_and_go_while_the_guest_runs() {
    if let Some(why) = cannot() {
        println!("SKIPPED: {why}");
        return;
    }
    let host = Host::new(EJECTS);
    let mut g = host.guest.clone();
    g.nics = vec![nic(1)];
    let q = host.open();
    q.apply(1, 1, &g, host.resources()).await.unwrap();
    let pid = host.pid();

    g.nics = vec![nic(1), nic(2), nic(3)];
    assert!(q.needs_taps(&g).await && !q.needs_start(&g).await);
    let start = Instant::now();
    let seen = q.apply(1, 2, &g, host.resources()).await.unwrap();
    println!("two cards plugged: {:?}", start.elapsed());
    assert_eq!((seen.state, seen.settled), (GuestState::Running, true));
    assert!(!q.needs_taps(&g).await);

    g.nics = vec![nic(1), nic(3)];
    let start = Instant::now();
    let seen = q.apply(1, 3, &g, host.resources()).await.unwrap();
    println!("one card unplugged: {:?}", start.elapsed());
    assert!(seen.settled && seen.failure.is_none());
    assert_eq!(host.pid(), pid, "the guest was started anew");
    drop(q);
    assert_eq!(plugged(&host).await, macs(&g.nics));

    // An agent that died at the worst moments: a card is on record and was not plugged, another is on record and gone.
    let mut record = host.record();
    for (port, slot) in [(4, 8), (5, 10)] {
        record["devices"].as_array_mut().unwrap().push(json!({
            "id": format!("nic{}", slot - 7), "kind": "nic", "slot": slot, "port": nic(port).port_id, "mac": nic(port).mac
        }));
    }
    fs::write(host.guest_dir().join("record.json"), record.to_string()).unwrap();
    let q = host.open();
    g.nics = vec![nic(1), nic(3), nic(4)];
    q.apply(1, 4, &g, host.resources()).await.unwrap();
    assert_eq!(host.pid(), pid);
    assert_eq!(
        recorded(&host),
        [(nic(1).port_id, 7), (nic(3).port_id, 9), (nic(4).port_id, 8)]
    );

    // Paused it cannot let go of anything, and says so.
    g.power = Power::Paused;
    q.apply(1, 5, &g, host.resources()).await.unwrap();
    g.nics = vec![nic(3), nic(4)];
    let refused = q.apply(1, 6, &g, host.resources()).await.unwrap_err();
    assert!(refused.message.contains("paused"), "{refused:?}");
    g.power = Power::Running;
    q.apply(1, 7, &g, host.resources()).await.unwrap();
    assert_eq!(host.pid(), pid);

    // Each card is where it was after a new start.
    g.hard_reboots = 1;
    q.apply(1, 8, &g, host.resources()).await.unwrap();
    assert_ne!(host.pid(), pid);
    assert_eq!(recorded(&host), [(nic(3).port_id, 9), (nic(4).port_id, 8)]);
    drop(q);
    assert_eq!(plugged(&host).await, macs(&g.nics));
}
