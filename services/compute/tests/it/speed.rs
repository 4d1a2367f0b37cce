//! Orders of magnitude; `cargo xtask bench` has the numbers. Generous, because tests share two cores.

use crate::lab::{DEMO, FakeHost, Lab};
use serde_json::json;
use std::time::{Duration, Instant};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn creates_and_lists() {
    let lab = std::sync::Arc::new(
        Lab::with(|c| {
            c.compute.quota_instances = -1;
            c.compute.quota_cores = -1;
            c.compute.quota_ram_mib = -1;
        })
        .await,
    );
    FakeHost::join(&lab, 4096, 4 << 20, 4096).await;
    let body =
        json!({"server": {"name": "n", "flavorRef": "1", "imageRef": lab.image, "networks": [{"uuid": lab.network}]}});
    // One at a time, to ACTIVE.
    let mut times = Vec::new();
    for _ in 0..20 {
        let start = Instant::now();
        let id = lab.post(DEMO, "2.96", "/v2.1/servers", body.clone(), 202).await["server"]["id"]
            .as_str()
            .unwrap()
            .to_owned();
        lab.wait(&id, "ACTIVE").await;
        times.push(start.elapsed());
    }
    times.sort();
    let p50 = times[times.len() / 2];
    // Ten at a time.
    let start = Instant::now();
    let mut tasks = Vec::new();
    for _ in 0..10 {
        let (lab, body) = (lab.clone(), body.clone());
        tasks.push(tokio::spawn(async move {
            for _ in 0..30 {
                lab.post(DEMO, "2.96", "/v2.1/servers", body.clone(), 202).await;
            }
        }));
    }
    for t in tasks {
        t.await.unwrap();
    }
    let rate = 300.0 / start.elapsed().as_secs_f64();
    let n = lab.get(DEMO, "2.96", "/v2.1/servers/detail").await["servers"]
        .as_array()
        .unwrap()
        .len();
    let (list, used) = (Instant::now(), cpu());
    for _ in 0..10 {
        lab.bytes(DEMO, "/v2.1/servers/detail").await;
    }
    let (listed, used) = (list.elapsed() / 10, (cpu() - used) / 10);
    eprintln!(
        "POST to ACTIVE p50 {p50:?}; {rate:.0} creates/s at 10 at a time; detail of {n}: {listed:?}, of processor {used:?}"
    );
    assert!(p50 < Duration::from_millis(250) && rate > 10.0 && listed < Duration::from_secs(1));
}

/// Processor time of this process.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}
