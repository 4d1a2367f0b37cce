//! The control plane on PostgreSQL whose commits reach the disk: by one process, and by two at once.

use crate::Options;
use crate::figures::{Samples, Table};
use crate::ready::Ready;
use crate::servers::{at_once, first_server, rate_text, show};
use anyhow::Result;
use haneul_testkit::postgres::{self, Postgres};
use haneul_testkit::{Cloud, Second};
use std::time::Duration;

const GROUP: &str = "processes";

pub async fn run(options: &Options, table: &mut Table) -> Result<()> {
    if !postgres::installed() {
        anyhow::bail!("PostgreSQL is not installed: cargo xtask test-setup");
    }
    let pg = Postgres::start_durable()?;
    let database = pg.create_database("cloud")?;
    let ready = Ready::on(options, &[&Cloud::fleet_listen()], Some(database)).await?;
    let mut api = ready.api().await?;
    ready.create(&mut api, "first", Duration::from_millis(5)).await?;
    let mut one = Samples::default();
    for i in 0..options.n(100) {
        let name = format!("one-{i}");
        one.add(ready.create(&mut api, &name, Duration::from_millis(1)).await?.1);
    }
    table.add(
        GROUP,
        "PostgreSQL: POST /servers to ACTIVE, one at a time",
        one.text(),
        "",
    );
    let path = format!("/compute/v2.1/servers/{}", first_server(&mut api).await?);
    let shown = show(&mut api, &path, options.n(500)).await?;
    table.add(GROUP, "PostgreSQL: GET one server", shown.text(), "");

    let mut second = Second::prepare(&ready.cloud);
    second.start(&ready.cloud).await;
    let n = options.n(500);
    let (first, other) = (ready.cloud.address.as_str(), second.address.as_str());
    for (what, addresses) in [
        ("one of two processes", vec![first]),
        ("two processes", vec![first, other]),
    ] {
        let (rate, each) = at_once(&ready, &addresses, what, n).await?;
        table.add(
            GROUP,
            format!("PostgreSQL, {what}: {n} servers to ACTIVE, ten at a time"),
            rate_text(rate, &each),
            "",
        );
    }
    ready.cloud.audit().await;
    second.stop();
    Ok(())
}
