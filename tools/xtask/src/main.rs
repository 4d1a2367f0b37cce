//! `cargo xtask`: what a developer and the CI do with this repository. It is the same for both: CI runs
//! `cargo xtask test` and nothing else.

mod dist;
mod example;
mod hosts;
mod lists;
mod report;
mod setup;
mod shell;
mod testing;
mod tidy;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};
use shell::{Cmd, root};
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "cargo xtask", disable_help_subcommand = true, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Args)]
struct Pass {
    /// Options for the command of the binary
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

#[derive(Subcommand)]
enum Command {
    /// Build Haneul and run `haneul up`: from a bare machine to a shell on a guest. --hosts N: N hosts, in namespaces
    Up(Pass),
    /// `haneul down`; with --purge it removes every trace
    Down(Pass),
    /// Everything that CI runs
    Test(testing::Options),
    /// Install what the tests need: packages, PostgreSQL, the openstack client
    TestSetup,
    /// Checks of the house: allowed dependencies, file lengths, lists in docs/
    Tidy,
    /// Are the sources formatted?
    FmtCheck,
    /// Write docs/routes.txt from the route tables
    Routes,
    /// Write docs/fault-points.txt from the code
    Faults,
    /// Write docs/sweep.txt: what every route answers to who has no right
    Sweep,
    /// Build the small guest image
    GuestImage(Pass),
    /// Measure; writes docs/performance.md
    Bench(Pass),
    /// Run OpenStack's Tempest against a fresh cloud; writes docs/conformance.md, with --real docs/conformance-real.md
    Conformance(Pass),
    /// Run OpenStack's gabbi files for placement, DIR; writes docs/gabbi.md
    Gabbi(Pass),
    /// Hold our routes against OpenStack's published contract; writes docs/contract.md
    Contract(Pass),
    /// Try a fresh cloud with requests made from that contract; writes docs/schemathesis.md
    Schemathesis(Pass),
    /// Build dist/haneul-VERSION-x86_64.tar.gz
    Dist(dist::Options),
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            // Not Debug: nobody wants a backtrace of a failed test run.
            shell::say(format!("xtask: {e:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Up(mut pass) => match hosts::wanted(&mut pass.args)? {
            1 => binary("up", &pass.args),
            n => hosts::up(&build()?, n, &pass.args),
        },
        Command::Down(pass) => {
            if pass.args.iter().any(|a| a == "--purge") {
                hosts::purge(&build()?)?;
            }
            binary("down", &pass.args)
        }
        Command::Test(options) => testing::test(&options),
        Command::TestSetup => setup::setup(&build()?),
        Command::Tidy => tidy::tidy(),
        Command::FmtCheck => Cmd::new("cargo").args(["fmt", "--all", "--check"]).run(),
        Command::Routes => lists::write_routes(),
        Command::Faults => lists::write_faults(),
        Command::Sweep => Cmd::new("cargo")
            .args(["test", "-p", "haneul", "--test", "it", "fake_sweep"])
            .env("HANEUL_TEST_WRITE_SWEEP", "1")
            .run(),
        Command::GuestImage(pass) => {
            let out = root().join("target/guest-image/haneul-guest.qcow2");
            let mut args = pass.args;
            if !args.iter().any(|a| a.starts_with("--out")) {
                std::fs::create_dir_all(root().join("target/guest-image"))?;
                args.extend(["--out".into(), out.display().to_string()]);
            }
            binary("guest-image", &args)
        }
        Command::Bench(pass) => {
            // The profile that everything else uses (docs/adr/0002), so that it costs no further build.
            compile(&["haneul", "bench"])?;
            let built = shell::target_dir().join("debug");
            let bench = shell::as_root(&built.join("bench"));
            bench.arg("--binary").arg(built.join("haneul")).args(&pass.args).exec()
        }
        Command::Conformance(pass) => conformance("conformance", &pass.args),
        Command::Gabbi(pass) => conformance("gabbi", &pass.args),
        Command::Contract(pass) => contract(&pass.args),
        Command::Schemathesis(pass) => schemathesis(&pass.args),
        Command::Dist(options) => dist::dist(&options),
    }
}

/// Builds what OpenStack's own tests need, and runs them.
fn conformance(tool: &str, args: &[String]) -> Result<()> {
    let python = setup::tempest()?;
    compile(&["haneul", tool])?;
    let built = shell::target_dir().join("debug");
    Cmd::new(built.join(tool))
        .arg("--binary")
        .arg(built.join("haneul"))
        .arg("--python")
        .arg(python)
        .args(args)
        .run()
}

/// Where cargo has put OpenStack's OpenAPI files.
fn openapi() -> Result<PathBuf> {
    let metadata = Cmd::new("cargo").args(["metadata", "--format-version", "1"]).read()?;
    let metadata: serde_json::Value = serde_json::from_str(&metadata)?;
    let packages = metadata
        .get("packages")
        .and_then(|p| p.as_array())
        .cloned()
        .unwrap_or_default();
    let manifest = packages
        .iter()
        .find(|p| p.get("name").is_some_and(|n| n == "openstack_types"))
        .and_then(|p| p.get("manifest_path")?.as_str())
        .map(PathBuf::from)
        .context("openstack_types is not among the packages")?;
    Ok(manifest.with_file_name("data"))
}

/// Our routes, and recorded exchanges, against the contract.
fn contract(args: &[String]) -> Result<()> {
    let data = openapi()?;
    compile(&["contract"])?;
    Cmd::new(shell::target_dir().join("debug/contract"))
        .arg("--data")
        .arg(data)
        .args(args)
        .run()
}

/// Requests made from the contract, against a fresh cloud.
fn schemathesis(args: &[String]) -> Result<()> {
    let python = setup::schemathesis()?;
    compile(&["haneul", "schemathesis"])?;
    let built = shell::target_dir().join("debug");
    Cmd::new(built.join("schemathesis"))
        .arg("--data")
        .arg(openapi()?)
        .arg("--binary")
        .arg(built.join("haneul"))
        .arg("--python")
        .arg(python)
        .args(args)
        .run()
}

/// Builds these, with the features that all of the workspace asks for together: by a package alone cargo would compile what
/// is below it, and the whole house, a second time for other features (tools/testkit/Cargo.toml).
pub fn compile(binaries: &[&str]) -> Result<()> {
    let bins = binaries.iter().flat_map(|b| ["--bin", b]);
    Cmd::new("cargo").args(["build", "--workspace"]).args(bins).run()
}

/// Builds the binary and says where it is.
fn build() -> Result<PathBuf> {
    compile(&["haneul"])?;
    Ok(shell::target_dir().join("debug/haneul"))
}

/// Builds the binary and becomes it: `up`, `down` and the like are its own commands, for users have no cargo.
fn binary(command: &str, args: &[String]) -> Result<()> {
    let haneul = build()?;
    shell::as_root(&haneul).arg(command).args(args).exec()
}
