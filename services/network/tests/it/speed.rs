//! Figures are printed; what is asserted is only that they do not grow with the number of ports.

use crate::cloud::{ADMIN, ALICE, sqlite};
use serde_json::json;
use std::time::Instant;

#[tokio::test(flavor = "multi_thread")]
async fn ports_do_not_get_slower() {
    let c = sqlite().await;
    c.ok("PUT", "/v2.0/quotas/red", ADMIN, json!({"quota": {"port": -1}}))
        .await;
    let n = c.network(ALICE, "n").await;
    c.subnet(ALICE, &n, "10.30.0.0/16").await;
    let item = json!({"network_id": n});
    let mut times = Vec::new();
    for _ in 0..8 {
        let start = Instant::now();
        let body = json!({"ports": vec![item.clone(); 250]});
        c.ok("POST", "/v2.0/ports", ALICE, body).await;
        times.push(start.elapsed());
    }
    println!("250 ports each: {times:?}");
    let (first, last) = (times[0], times[7]);
    assert!(last < first * 3, "the last 250 took {last:?}, the first {first:?}");
    // Servers' ports, bound to the host, in one security group with all the others.
    let mut times = Vec::new();
    for _ in 0..4 {
        let start = Instant::now();
        for _ in 0..250 {
            let (app, ctx, host, network) = (c.app.clone(), c.ctx(ALICE), c.host.to_string(), n.clone());
            c.db.write(&ctx.actor(), async move |tx| {
                let nics = [haneul_network::NicRequest {
                    network_id: Some(network.clone()),
                    ..Default::default()
                }];
                app.create_server_ports(
                    tx,
                    &ctx,
                    &haneul_core::id::uuid(),
                    "s",
                    "red",
                    &host,
                    "nova",
                    &nics,
                    &[],
                )
                .await
            })
            .await
            .unwrap();
        }
        times.push(start.elapsed());
    }
    println!("250 servers each: {times:?}");
    assert!(times[3] < times[0] * 3, "{times:?}");
    let mut tx = c.db.read().await.unwrap();
    let ids: Vec<String> = tx
        .rows(
            "SELECT device_id FROM port WHERE host_id > '' ORDER BY id LIMIT 1000",
            &[],
        )
        .await
        .unwrap()
        .iter()
        .map(|r| r.str(0).unwrap())
        .collect();
    for _ in 0..3 {
        let start = Instant::now();
        let found = c.app.server_ports(&mut tx, &ids).await.unwrap().len();
        println!("ports of {found} servers: {:?}", start.elapsed());
    }
    drop(tx);
    let start = Instant::now();
    let (_, _, body) = c.raw("GET", "/v2.0/ports?limit=1000", ALICE, "", &[]).await;
    println!(
        "a page of 1000 ports, {} bytes, as text and JSON: {:?}",
        body.len(),
        start.elapsed()
    );
    let start = Instant::now();
    let all = c.get("/v2.0/ports?limit=1000", ALICE).await["ports"]
        .as_array()
        .unwrap()
        .len();
    println!("a page of {all} ports: {:?}", start.elapsed());
    c.audit().await;
}
