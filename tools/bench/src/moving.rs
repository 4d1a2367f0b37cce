//! What needs several real hosts: tests of the product's own lab, whose figures go into the table.

use crate::Options;
use crate::figures::{Samples, Table, ms};
use anyhow::{Context, Result, ensure};
use std::process::Command;
use std::time::Duration;

const GROUP: &str = "moving";

pub async fn run(_: &Options, table: &mut Table) -> Result<()> {
    let said = test(
        "haneul-netdev",
        "throughput_between_hosts_beside_the_path_built_by_hand",
    )?;
    if let Some(figures) = said
        .lines()
        .find_map(|l| l.trim_start().strip_prefix("between hosts: "))
    {
        let ratio: f64 = figures.rsplit(' ').next().unwrap_or_default().parse()?;
        table.target(
            GROUP,
            "VXLAN between two hosts with security groups, one TCP stream, beside the same path built by hand",
            format!("{figures} (medians of 9)"),
            ("ratio >= 0.9", ratio >= 0.9),
            "",
        );
    }
    let said = test("haneul", "real_live_migration_in_figures")?;
    if said.contains("SKIPPED") {
        table.add(
            GROUP,
            "live migration",
            "not measured: guests and networks need root",
            "",
        );
        return Ok(());
    }
    let (took, silence, still) = (
        samples(&said, "took")?,
        samples(&said, "silence")?,
        samples(&said, "still")?,
    );
    table.target(
        GROUP,
        "live migration on shared disks of a guest in use (a login, an echoed stream of 800 KB/s), request to done",
        took.text(),
        ("<= 1 s", took.p50() <= Duration::from_secs(1)),
        "",
    );
    table.target(
        GROUP,
        "the guest's pause in it, as QEMU says",
        still.text(),
        ("<= 100 ms", still.p50() <= Duration::from_millis(100)),
        "",
    );
    table.add(
        GROUP,
        "the stream's longest silence in it, through the floating IP at another host",
        format!("{}, the longest of all {}", silence.text(), ms(silence.quantile(1.0))),
        "",
    );
    Ok(())
}

/// Runs an ignored test of this workspace; answers what it says.
fn test(package: &str, name: &str) -> Result<String> {
    let filter = format!("test({name})");
    let out = Command::new("cargo")
        .args([
            "nextest",
            "run",
            "-p",
            package,
            "--run-ignored",
            "all",
            "--no-capture",
            "-E",
            &filter,
        ])
        .output()
        .context("cargo nextest")?;
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    ensure!(
        out.status.success(),
        "{name}: {said}{}",
        String::from_utf8_lossy(&out.stderr)
    );
    Ok(said)
}

/// From a line like `samples took 812 744 901`, in milliseconds.
fn samples(said: &str, what: &str) -> Result<Samples> {
    let begin = format!("samples {what} ");
    let line = said.lines().find_map(|l| l.trim_start().strip_prefix(&begin));
    let mut all = Samples::default();
    for figure in line.with_context(|| format!("no line {begin:?}"))?.split_whitespace() {
        all.add(Duration::from_millis(figure.parse()?));
    }
    Ok(all)
}
