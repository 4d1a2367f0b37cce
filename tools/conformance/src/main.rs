//! `cargo xtask conformance`: OpenStack's own integration suite, Tempest, unmodified from PyPI, against a fresh cloud
//! of the built binary. Writes docs/conformance.md and the list of the tests that pass, which only grows; with --real the
//! same for what needs real guests, docs/conformance-real.md.

// A tool that tests panics and prints where a product would not.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod facts;
mod proxy;
mod report;
mod results;
mod stestr;
mod target;

use anyhow::{Context, Result, bail};
use clap::Parser;
use results::{Outcome, Results};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Run Tempest against a fresh cloud; the whole of it writes docs/conformance.md
#[derive(Parser)]
#[command(name = "cargo xtask conformance")]
pub struct Options {
    /// Only tests whose name this regular expression finds; nothing is written then
    regex: Option<String>,
    /// Boot real guests and log in to them, instead of the fake hypervisor; writes docs/conformance-real.md
    #[arg(long)]
    real: bool,
    /// Play so many hosts, and run what needs several; writes docs/conformance-hosts.md
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=8), conflicts_with_all = ["real", "slice", "smoke"])]
    hosts: u32,
    /// The smoke set of the services that exist; nothing is written
    #[arg(long, conflicts_with = "regex")]
    smoke: bool,
    /// What CI runs: the slice, and an error when a test of the list of passing ones fails twice
    #[arg(long)]
    slice: bool,
    /// Take tests that no longer pass off the list
    #[arg(long)]
    shrink: bool,
    /// Keep the cloud's directory and Tempest's logs
    #[arg(long)]
    keep: bool,
    #[arg(long, hide = true, default_value = "target/debug/haneul")]
    binary: PathBuf,
    /// The Python environment that Tempest is in
    #[arg(long, hide = true, default_value = "target/tempest")]
    python: PathBuf,
}

/// What belongs to us: volumes and objects come with their services.
const SERVED: &str = r"^tempest\.(api\.(identity|image|network|compute)|serial_tests)\.";
/// What needs real guests, because it logs in to them, and the smoke set; the rest is the same on the fake hypervisor.
const SERVED_REAL: &str = concat!(
    r"^tempest\.(scenario|api\.compute\.admin\.test_create_server|api\.compute\.servers\.(test_attach_interfaces|",
    r"test_create_server|test_device_tagging|test_server_actions|test_server_personality|test_server_rescue))",
    r"|^tempest\.(scenario|api\.(identity|image|network|compute))\..*[\[,]smoke",
);
/// What needs several hosts, and what speaks of hosts.
const SERVED_HOSTS: &str = concat!(
    r"^tempest\.(api\.compute\.(admin\.test_(aggregates|availability_zone|hypervisor|live_migration|migrations|",
    r"servers_on_multinodes)|servers\.test_server_group)|serial_tests)",
);
const SMOKE: &str = r"^tempest\.(scenario|api\.(identity|image|network|compute))\..*[\[,]smoke";

/// Where a lane's results stand, and how it is run.
pub struct Lane {
    /// How one runs it.
    pub command: &'static str,
    pub hypervisor: &'static str,
    pub report: &'static str,
    /// Tests that pass, one a line.
    pub passing: &'static str,
    /// Who guards the list.
    pub guard: &'static str,
    pub workers: u32,
}

const FAKE: Lane = Lane {
    command: "cargo xtask conformance",
    hypervisor: "the fake hypervisor",
    report: "docs/conformance.md",
    passing: "docs/conformance-passing.txt",
    guard: "CI runs a slice of them (`.ci/tempest-slice`), and `cargo xtask test --full` all",
    workers: 4,
};
/// A guest that boots takes a core for some seconds.
const REAL: Lane = Lane {
    command: "cargo xtask conformance --real",
    hypervisor: "real guests: QEMU, emulated where KVM does not work, and logins by SSH (`run_validation`)",
    report: "docs/conformance-real.md",
    passing: "docs/conformance-real-passing.txt",
    guard: "`cargo xtask test --full` runs them all",
    workers: 2,
};
/// Each host is an agent with a state directory of its own that joined with a token.
const HOSTS: Lane = Lane {
    command: "cargo xtask conformance --hosts 3",
    hypervisor: "three hosts with the fake hypervisor",
    report: "docs/conformance-hosts.md",
    passing: "docs/conformance-hosts-passing.txt",
    guard: "`cargo xtask test --full` runs them all",
    workers: 2,
};
/// Regular expressions of what CI runs.
const SLICE: &str = ".ci/tempest-slice";

fn main() -> Result<()> {
    let mut options = Options::parse();
    options.binary = std::fs::canonicalize(&options.binary).context("the binary")?;
    options.python = std::fs::canonicalize(&options.python).context("the Python environment")?;
    if options.keep {
        // SAFETY: no other thread is there yet.
        #[allow(unsafe_code)]
        unsafe {
            std::env::set_var("HANEUL_KEEP", "1");
        }
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(run(&options))
}

async fn run(options: &Options) -> Result<()> {
    let target = target::Target::start(options).await?;
    let suite = stestr::Suite::new(options, &target)?;
    let lane = match (options.real, options.hosts) {
        (true, _) => REAL,
        (false, 1) => FAKE,
        (false, _) => HOSTS,
    };
    let wanted = match &options.regex {
        Some(regex) => regex.clone(),
        None if options.slice => slice()?,
        None if options.smoke => SMOKE.to_owned(),
        None if options.real => SERVED_REAL.to_owned(),
        None if options.hosts > 1 => SERVED_HOSTS.to_owned(),
        None => SERVED.to_owned(),
    };
    let begun = std::time::Instant::now();
    let mut results = suite.run(&wanted, lane.workers)?;
    if results.tests.is_empty() {
        bail!("Tempest ran nothing for {wanted}\n{}", suite.tail());
    }
    let listed = listed(Path::new(lane.passing))?;
    // Some tests wait for each other's quotas or for a loaded machine: alone, once more.
    if options.slice || options.real {
        repeat(&suite, &mut results, &listed)?;
    }
    report::print(&results);
    println!("{} s in all", begun.elapsed().as_secs());
    if options.keep {
        println!("kept: {}", suite.dir.display());
    } else {
        suite.clean();
    }
    let lost: Vec<&String> = listed
        .iter()
        .filter(|name| results.tests.get(*name).is_some_and(|o| !o.passed()))
        .collect();
    if options.regex.is_none() && !options.slice && !options.smoke {
        let before = if options.shrink {
            BTreeSet::new()
        } else {
            listed.iter().cloned().collect()
        };
        write_list(&lane, &results, before)?;
        let facts = format!("{}; {} s in all", facts::facts(), begun.elapsed().as_secs());
        std::fs::write(lane.report, report::markdown(&lane, &results, &facts))?;
        println!("wrote {} and {}", lane.report, lane.passing);
    }
    if !lost.is_empty() && !options.shrink {
        for name in &lost {
            println!("NO LONGER PASSES {name}");
        }
        bail!("{} tests of {} do not pass", lost.len(), lane.passing);
    }
    Ok(())
}

fn repeat(suite: &stestr::Suite, results: &mut Results, listed: &BTreeSet<String>) -> Result<()> {
    let failed: Vec<String> = results
        .tests
        .iter()
        .filter(|(name, o)| matches!(o, Outcome::Failed { .. }) && listed.contains(*name))
        .map(|(name, _)| name.clone())
        .collect();
    for name in failed {
        println!("again, alone: {name}");
        let again = suite.run(&format!("^{}", regex_of(&name)), 1)?;
        if let Some(outcome) = again.tests.get(&name) {
            results.tests.insert(name, outcome.clone());
        }
    }
    Ok(())
}

/// A name as a regular expression that finds it and nothing longer.
fn regex_of(name: &str) -> String {
    format!("{}(\\[|$)", name.replace('.', "\\."))
}

fn listed(file: &Path) -> Result<BTreeSet<String>> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    Ok(text
        .lines()
        .filter(|l| !l.starts_with('#'))
        .map(str::to_owned)
        .collect())
}

fn slice() -> Result<String> {
    let text = std::fs::read_to_string(SLICE).context(SLICE)?;
    let lines: Vec<&str> = text.lines().filter(|l| !l.is_empty() && !l.starts_with('#')).collect();
    Ok(lines.join("|"))
}

fn write_list(lane: &Lane, results: &Results, mut names: BTreeSet<String>) -> Result<()> {
    names.extend(results.tests.iter().filter(|(_, o)| o.passed()).map(|(n, _)| n.clone()));
    let mut text = format!(
        "# Tests of Tempest that pass on {}. Written by `{}`.\n",
        lane.hypervisor, lane.command
    );
    for name in names {
        text.push_str(&name);
        text.push('\n');
    }
    std::fs::write(lane.passing, text).context(lane.passing)
}
