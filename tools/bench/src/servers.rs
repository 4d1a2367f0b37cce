//! POST /servers until ACTIVE: one at a time, and ten at a time.

use crate::figures::{Samples, Table};
use crate::http::Api;
use crate::ready::Ready;
use crate::{Options, figures::ms};
use anyhow::{Context, Result};
use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

const GROUP: &str = "servers";

pub async fn run(options: &Options, table: &mut Table) -> Result<()> {
    let ready = Ready::new(options, &[]).await?;
    let mut api = ready.api().await?;
    // The first server pulls the image to the host.
    ready.create(&mut api, "first", Duration::from_millis(5)).await?;
    let (mut answered, mut active) = (Samples::default(), Samples::default());
    for i in 0..options.n(200) {
        let (a, b) = ready
            .create(&mut api, &format!("one-{i}"), Duration::from_millis(1))
            .await?;
        answered.add(a);
        active.add(b);
    }
    let met = active.p50() <= Duration::from_millis(25);
    table.target(
        GROUP,
        "POST /servers to ACTIVE, one at a time",
        active.text(),
        ("p50 <= 25 ms", met),
        "p50 5.6 s, p95 8.7 s",
    );
    table.add(
        GROUP,
        "POST /servers to its answer (committed to disk)",
        answered.text(),
        "",
    );

    let n = options.n(2000);
    let (rate, each) = at_once(&ready, &[&ready.cloud.address], "ten", n).await?;
    table.target(
        GROUP,
        format!("{n} servers to ACTIVE, ten at a time"),
        rate_text(rate, &each),
        (">= 100/s", rate >= 100.0),
        "0.18/s (100 servers)",
    );
    let path = format!("/compute/v2.1/servers/{}", first_server(&mut api).await?);
    let show = show(&mut api, &path, options.n(500)).await?;
    table.add(GROUP, "GET one server", show.text(), "p50 481 ms");
    ready.cloud.audit().await;
    Ok(())
}

/// Reads the same `n` times.
pub async fn show(api: &mut Api, path: &str, n: usize) -> Result<Samples> {
    let mut all = Samples::default();
    for _ in 0..n {
        let start = Instant::now();
        api.get(path).await?.expect(200)?;
        all.add(start.elapsed());
    }
    Ok(all)
}

/// Makes `n` servers until each is ACTIVE, ten at a time by these addresses in turn: how many a second, and how long each.
pub async fn at_once(ready: &Ready, addresses: &[&str], name: &str, n: usize) -> Result<(f64, Samples)> {
    let next = Cell::new(0);
    let each = RefCell::new(Samples::default());
    let start = Instant::now();
    let workers = (0..10).map(|w| {
        let (next, each) = (&next, &each);
        let token = ready.admin.token.as_deref().unwrap_or_default();
        async move {
            let address = addresses.get(w % addresses.len()).context("an address")?;
            let mut api = Api::new(address, token).await?;
            while next.get() < n {
                next.set(next.get() + 1);
                let name = format!("{name}-{}", next.get());
                let (_, b) = ready.create(&mut api, &name, Duration::from_millis(20)).await?;
                each.borrow_mut().add(b);
            }
            anyhow::Ok(())
        }
    });
    for done in join(workers.collect()).await {
        done?;
    }
    Ok((n as f64 / start.elapsed().as_secs_f64(), each.into_inner()))
}

/// `45/s; each p50 1.2 ms, p95 3.4 ms`
pub fn rate_text(rate: f64, each: &Samples) -> String {
    format!(
        "{rate:.0}/s; each p50 {}, p95 {}",
        ms(each.p50()),
        ms(each.quantile(0.95))
    )
}

/// Any of its servers.
pub async fn first_server(api: &mut Api) -> Result<String> {
    let list = api.get("/compute/v2.1/servers?limit=1").await?.expect(200)?.json();
    crate::ready::text(&list, "/servers/0/id")
}

/// Runs futures of this task side by side.
pub async fn join<F: Future>(futures: Vec<F>) -> Vec<F::Output> {
    let mut all: Vec<_> = futures.into_iter().map(|f| (Box::pin(f), None)).collect();
    std::future::poll_fn(|cx| {
        let mut waiting = false;
        for (f, out) in &mut all {
            if out.is_none() {
                match f.as_mut().poll(cx) {
                    std::task::Poll::Ready(v) => *out = Some(v),
                    std::task::Poll::Pending => waiting = true,
                }
            }
        }
        if waiting {
            std::task::Poll::Pending
        } else {
            std::task::Poll::Ready(())
        }
    })
    .await;
    all.into_iter().filter_map(|(_, out)| out).collect()
}
