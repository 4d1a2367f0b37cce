//! `cargo xtask bench`: whole clouds of the built binary, measured from outside by a client on the same cores, written
//! to docs/performance.md with the command, the commit and the machine.
//!
//! Each group starts a cloud of its own (fake host driver, SQLite with synchronous=FULL but for `processes`); `real` starts guests.

// A measuring tool panics and prints where a product would not.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod facts;
mod figures;
mod hosts;
mod http;
mod idle;
mod lists;
mod moving;
mod network;
mod processes;
mod ready;
mod real;
mod servers;
mod sniff;
mod tokens;

use anyhow::{Result, bail};
use clap::Parser;
use figures::Table;
use std::path::PathBuf;

/// Measure; writes docs/performance.md when nothing is left out.
#[derive(Parser, Clone)]
#[command(name = "cargo xtask bench")]
pub struct Options {
    /// Only these groups: start, servers, lists, tokens, network, hosts, moving, processes, idle, real. Prints the table and
    /// leaves docs/performance.md as it is
    #[arg(value_name = "GROUP")]
    only: Vec<String>,
    /// The same, divided by commas
    #[arg(long = "only", value_name = "GROUPS", value_delimiter = ',')]
    also: Vec<String>,
    /// Fewer repetitions; leaves docs/performance.md as it is
    #[arg(long)]
    quick: bool,
    /// The binary that is measured
    #[arg(long, hide = true, default_value = "target/debug/haneul")]
    binary: PathBuf,
}

impl Options {
    /// Repetitions: all of them, or a tenth.
    pub fn n(&self, n: usize) -> usize {
        if self.quick { n.div_ceil(10) } else { n }
    }
}

const GROUPS: [&str; 10] = [
    "start",
    "servers",
    "lists",
    "tokens",
    "network",
    "hosts",
    "moving",
    "processes",
    "idle",
    "real",
];

pub fn say(text: impl std::fmt::Display) {
    println!("{text}");
}

fn main() -> Result<()> {
    let mut options = Options::parse();
    options.only.append(&mut options.also);
    options.binary = std::fs::canonicalize(&options.binary)?;
    if let Some(bad) = options.only.iter().find(|o| !GROUPS.contains(&o.as_str())) {
        bail!("there is no group {bad}; there are {}", GROUPS.join(", "));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut table = Table::default();
    let commit = facts::commit();
    let mut load = vec![format!("{} when it began", facts::load())];
    for group in GROUPS {
        if !options.only.is_empty() && !options.only.iter().any(|o| o == group) {
            continue;
        }
        let before = table.0.len();
        let done = runtime.block_on(async {
            match group {
                "start" => idle::start(&options, &mut table).await,
                "servers" => servers::run(&options, &mut table).await,
                "lists" => lists::run(&options, &mut table).await,
                "tokens" => tokens::run(&options, &mut table).await,
                "network" => network::run(&options, &mut table).await,
                "hosts" => hosts::run(&options, &mut table).await,
                "moving" => moving::run(&options, &mut table).await,
                "processes" => processes::run(&options, &mut table).await,
                "idle" => idle::run(&options, &mut table).await,
                _ => real::run(&options, &mut table).await,
            }
        });
        load.push(format!("{} after {group}", facts::load()));
        if let Err(e) = done {
            // A group that failed is a row of the table, not a reason to forget the others.
            table.0.truncate(before);
            table.target(
                group_name(group),
                group,
                format!("failed: {e:#}"),
                ("all of it", false),
                "",
            );
        }
    }
    let text = facts::document(&table, &load.join(", "), &commit);
    if options.only.is_empty() && !options.quick {
        std::fs::write("docs/performance.md", &text)?;
        say("docs/performance.md is written");
    } else {
        say(table.markdown());
    }
    Ok(())
}

fn group_name(group: &str) -> &'static str {
    GROUPS.into_iter().find(|g| *g == group).unwrap_or("bench")
}
