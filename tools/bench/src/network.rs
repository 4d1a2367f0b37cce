//! Creating what a network is made of.

use crate::Options;
use crate::figures::{Samples, Table};
use crate::ready::{Ready, text};
use anyhow::Result;
use serde_json::json;
use std::time::Instant;

const GROUP: &str = "network";

pub async fn run(options: &Options, table: &mut Table) -> Result<()> {
    let ready = Ready::new(options, &[]).await?;
    let mut api = ready.api().await?;
    let mut times = [
        Samples::default(),
        Samples::default(),
        Samples::default(),
        Samples::default(),
    ];
    for i in 0..options.n(100) {
        let net = json!({"network": {"name": format!("n{i}")}});
        let start = Instant::now();
        let made = api.post("/network/v2.0/networks", &net).await?.expect(201)?;
        times[0].add(start.elapsed());
        let net = text(&made.json(), "/network/id")?;
        let bodies = [
            (
                "subnets",
                json!({"subnet": {"network_id": net, "ip_version": 4, "cidr": "10.0.0.0/24"}}),
            ),
            ("ports", json!({"port": {"network_id": net, "name": format!("p{i}")}})),
            ("security-groups", json!({"security_group": {"name": format!("g{i}")}})),
        ];
        for (k, (path, body)) in bodies.iter().enumerate() {
            let start = Instant::now();
            api.post(&format!("/network/v2.0/{path}"), body).await?.expect(201)?;
            times[k + 1].add(start.elapsed());
        }
    }
    let names = [
        ("network", "285 ms"),
        ("subnet", "211 ms"),
        ("port", "628 ms"),
        ("security group", "350 ms"),
    ];
    for ((name, openstack), samples) in names.into_iter().zip(&times) {
        table.add(GROUP, format!("create a {name}"), samples.text(), openstack);
    }
    Ok(())
}
