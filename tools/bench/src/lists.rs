//! Long lists.

use crate::Options;
use crate::figures::{Samples, Table, ms};
use crate::http::Api;
use crate::idle::cpu;
use crate::ready::Ready;
use anyhow::{Result, ensure};
use serde_json::json;
use std::time::{Duration, Instant};

const GROUP: &str = "lists";

pub async fn run(options: &Options, table: &mut Table) -> Result<()> {
    let ready = Ready::new(options, &[]).await?;
    let mut api = ready.api().await?;
    ready.fill(1000).await?;
    let mut detail = Samples::default();
    let mut bytes = 0;
    let serve: Vec<u32> = ready.cloud.pids().0.into_iter().collect();
    let before = cpu(&serve);
    for _ in 0..options.n(40).max(5) {
        let start = Instant::now();
        bytes = api.get("/compute/v2.1/servers/detail").await?.expect(200)?.body.len();
        detail.add(start.elapsed());
    }
    // Other work on the machine lengthens the wall clock; this much it cannot explain.
    let each = cpu(&serve).saturating_sub(before) / options.n(40).max(5) as u32;
    let met = detail.p50() <= Duration::from_millis(50);
    let size = format!("{}, {} KiB; CPU of serve {}", detail.text(), bytes >> 10, ms(each));
    table.target(
        GROUP,
        "GET /servers/detail, 1,000 servers",
        size,
        ("p50 <= 50 ms", met),
        "p50 11.8 s; CPU 10.6 s",
    );
    let mut ports = Samples::default();
    for _ in 0..options.n(40).max(5) {
        let start = Instant::now();
        api.get("/network/v2.0/ports?limit=1000").await?.expect(200)?;
        ports.add(start.elapsed());
    }
    table.add(
        GROUP,
        "GET /ports, 1,000 ports",
        ports.text(),
        "p50 4.3 s (1,002 ports)",
    );

    candidates(options, table, &ready).await?;

    let n = options.n(20_000);
    ready.fill(n - 1000).await?;
    for (what, path) in [
        ("detail", "/compute/v2.1/servers/detail"),
        ("ids and names", "/compute/v2.1/servers"),
    ] {
        let mut all = Samples::default();
        for _ in 0..3 {
            let start = Instant::now();
            let (mut seen, mut pages) = (0, 0);
            let mut next = Some(format!("{path}?limit=1000"));
            while let Some(page) = next {
                let list = page_of(&mut api, &page).await?;
                seen += list.0;
                pages += 1;
                next = list.1;
            }
            all.add(start.elapsed());
            ensure!(seen == n, "{seen} of {n} servers in {pages} pages");
        }
        let met = all.p50() <= Duration::from_secs(1);
        table.target(
            GROUP,
            format!("{n} servers listed by pages of 1,000, {what}"),
            format!("p50 {} in all (n = 3)", ms(all.p50())),
            ("<= 1 s", met),
            "",
        );
    }
    Ok(())
}

/// A scheduler's question to placement, with a thousand hosts beside the one that there is.
async fn candidates(options: &Options, table: &mut Table, ready: &Ready) -> Result<()> {
    let mut api = ready.api().await?;
    api.version = "placement 1.39";
    for i in 0..1000 {
        let provider = json!({"name": format!("host-{i}"), "uuid": format!("00000000-0000-4000-8000-{i:012}")});
        let path = "/placement/resource_providers";
        api.post(path, &provider).await?.expect(200)?;
        let path = format!("{path}/{}/inventories", provider["uuid"].as_str().unwrap_or_default());
        let all = json!({"resource_provider_generation": 0, "inventories": {
            "VCPU": {"total": 64, "allocation_ratio": 16.0}, "MEMORY_MB": {"total": 262_144}, "DISK_GB": {"total": 2000}}});
        api.call("PUT", &path, Some(&all)).await?.expect(200)?;
    }
    let mut times = Samples::default();
    let serve: Vec<u32> = ready.cloud.pids().0.into_iter().collect();
    let before = cpu(&serve);
    let n = options.n(40).max(5);
    for _ in 0..n {
        let start = Instant::now();
        let path = "/placement/allocation_candidates?resources=VCPU:1,MEMORY_MB:512,DISK_GB:10";
        api.get(path).await?.expect(200)?;
        times.add(start.elapsed());
    }
    let each = cpu(&serve).saturating_sub(before) / n as u32;
    table.target(
        GROUP,
        "GET /allocation_candidates, 1,000 providers",
        format!("{}; CPU of serve {}", times.text(), ms(each)),
        ("p50 <= 20 ms", times.p50() <= Duration::from_millis(20)),
        "",
    );
    for i in 0..1000 {
        let path = format!("/placement/resource_providers/00000000-0000-4000-8000-{i:012}");
        api.call("DELETE", &path, None).await?.expect(204)?;
    }
    Ok(())
}

/// How many servers a page has, and where the next one is. Only the end of the text is parsed: the client's own
/// parsing of some megabytes is not what is measured.
async fn page_of(api: &mut Api, path: &str) -> Result<(usize, Option<String>)> {
    let body = api.get(path).await?.expect(200)?.body;
    let text = std::str::from_utf8(&body)?;
    let servers = text.matches("\"rel\":\"self\"").count();
    let next = text.rfind("\"servers_links\"").and_then(|at| {
        let rest = text.get(at..)?;
        let href = rest.split_once("\"href\":\"")?.1.split('"').next()?;
        Some(
            href.find("/compute")
                .map_or(href, |i| href.get(i..).unwrap_or(href))
                .to_owned(),
        )
    });
    Ok((servers, next))
}
