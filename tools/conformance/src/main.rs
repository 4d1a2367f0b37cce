//! `cargo xtask conformance`: OpenStack's own integration suite, Tempest, unmodified from PyPI, against a fresh cloud
//! of the built binary. Writes docs/conformance.md and the list of the tests that pass, which only grows.

// A tool that tests panics and prints where a product would not.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

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
    /// Boot real guests and log in to them, instead of the fake hypervisor
    #[arg(long)]
    real: bool,
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
/// Scenarios log in to guests.
const SERVED_REAL: &str = r"^tempest\.(api\.(identity|image|network|compute)|scenario|serial_tests)\.";
/// Tests that pass on the fake hypervisor, one a line.
const PASSING: &str = "docs/conformance-passing.txt";
const REPORT: &str = "docs/conformance.md";
/// Regular expressions of what CI runs.
const SLICE: &str = ".ci/tempest-slice";

fn main() -> Result<()> {
    let mut options = Options::parse();
    options.binary = std::fs::canonicalize(&options.binary).context("the binary")?;
    options.python = std::fs::canonicalize(&options.python).context("the Python environment")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(run(&options))
}

async fn run(options: &Options) -> Result<()> {
    let target = target::Target::start(options).await?;
    let suite = stestr::Suite::new(options, &target)?;
    let wanted = match (&options.regex, options.slice) {
        (Some(regex), _) => regex.clone(),
        (None, true) => slice()?,
        (None, false) if options.real => SERVED_REAL.to_owned(),
        (None, false) => SERVED.to_owned(),
    };
    let mut results = suite.run(&wanted, 4)?;
    if results.tests.is_empty() {
        bail!("Tempest ran nothing for {wanted}\n{}", suite.tail());
    }
    let listed = listed(Path::new(PASSING))?;
    // Some tests wait for each other's quotas or for a loaded machine: alone, once more.
    if options.slice {
        repeat(&suite, &mut results, &listed)?;
    }
    report::print(&results);
    if options.keep {
        println!("kept: {}", suite.dir.display());
    } else {
        suite.clean();
    }
    let lost: Vec<&String> = listed
        .iter()
        .filter(|name| results.tests.get(*name).is_some_and(|o| !o.passed()))
        .collect();
    if options.regex.is_none() && !options.slice && !options.real {
        let before = if options.shrink {
            BTreeSet::new()
        } else {
            listed.iter().cloned().collect()
        };
        write_list(&results, before)?;
        std::fs::write(REPORT, report::markdown(&results, &facts()))?;
        println!("wrote {REPORT} and {PASSING}");
    }
    if !lost.is_empty() && !options.shrink && !options.real {
        for name in &lost {
            println!("NO LONGER PASSES {name}");
        }
        bail!("{} tests of {PASSING} do not pass", lost.len());
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

fn write_list(results: &Results, mut names: BTreeSet<String>) -> Result<()> {
    names.extend(results.tests.iter().filter(|(_, o)| o.passed()).map(|(n, _)| n.clone()));
    let mut text =
        String::from("# Tests of Tempest that pass on the fake hypervisor. Written by `cargo xtask conformance`.\n");
    for name in names {
        text.push_str(&name);
        text.push('\n');
    }
    std::fs::write(PASSING, text).context(PASSING)
}

/// Date and commit of the run.
fn facts() -> String {
    let read = |args: &[&str]| {
        let out = std::process::Command::new(args[0]).args(&args[1..]).output();
        out.map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned())
            .unwrap_or_default()
    };
    let changed = !read(&["git", "status", "--porcelain", "--untracked-files=no"]).is_empty();
    format!(
        "{}, commit {}{}",
        read(&["date", "-u", "+%Y-%m-%d"]),
        read(&["git", "rev-parse", "--short", "HEAD"]),
        if changed { " with changes" } else { "" }
    )
}
