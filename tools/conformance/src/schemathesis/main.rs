//! `cargo xtask schemathesis`: requests made from OpenStack's own OpenAPI files, at one microversion, right ones and
//! wrong ones, against a fresh cloud on the fake drivers. Nothing may make it fail (5xx), and what the contract forbids
//! must be refused. Writes docs/schemathesis.md.

// A tool that tests panics and prints where a product would not.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

#[path = "../routes.rs"]
mod routes;
mod spec;

use anyhow::{Context, Result, bail};
use clap::Parser;
use haneul_testkit::Cloud;
use serde_json::Value;
use spec::Version;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Try a fresh cloud with requests made from OpenStack's contract
#[derive(Parser)]
#[command(name = "cargo xtask schemathesis")]
struct Options {
    /// Only these: identity, image, placement, network, compute; the report is written when all are
    services: Vec<String>,
    /// Cases of each operation and phase
    #[arg(long, default_value_t = 3)]
    examples: u32,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Keep the directory with specifications and reports
    #[arg(long)]
    keep: bool,
    /// Where openstack_types keeps its OpenAPI files
    #[arg(long, hide = true)]
    data: PathBuf,
    #[arg(long, hide = true, default_value = "target/debug/haneul")]
    binary: PathBuf,
    /// The Python environment that schemathesis is in
    #[arg(long, hide = true, default_value = "target/schemathesis")]
    python: PathBuf,
}

const SERVICES: [&str; 5] = ["identity", "image", "placement", "network", "compute"];
const REPORT: &str = "docs/schemathesis.md";
const KEPT: &str = "target/schemathesis-runs";

fn main() -> Result<()> {
    let mut options = Options::parse();
    options.binary = std::fs::canonicalize(&options.binary).context("the binary")?;
    options.python = std::fs::canonicalize(&options.python).context("the Python environment")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(run(&options))
}

async fn run(options: &Options) -> Result<()> {
    for service in &options.services {
        if !SERVICES.contains(&service.as_str()) {
            bail!("{service}: one of {}", SERVICES.join(", "));
        }
    }
    let routes = std::fs::read_to_string("docs/routes.txt").context("docs/routes.txt")?;
    let mut reports = Vec::new();
    for service in SERVICES {
        if options.services.is_empty() || options.services.iter().any(|s| s == service) {
            reports.push(one(options, service, &routes).await?);
        }
    }
    if options.services.is_empty() {
        std::fs::write(REPORT, markdown(&reports, options)?)?;
        println!("wrote {REPORT}");
    }
    let failures: usize = reports.iter().map(|r| r.failures.len()).sum();
    if failures > 0 {
        bail!("{failures} kinds of failures; --keep leaves the whole story in {KEPT}");
    }
    Ok(())
}

/// What came of one service.
struct Report {
    service: &'static str,
    version: Version,
    operations: usize,
    cases: u64,
    seconds: f64,
    /// What is wrong, and where.
    failures: Vec<String>,
}

async fn one(options: &Options, service: &'static str, routes: &str) -> Result<Report> {
    let mut o = haneul_testkit::Options::fake(&options.binary);
    // A whole run with one token.
    o.sets = vec!["identity.token_seconds=36000".into()];
    let cloud = Cloud::start(o).await;
    let version = newest(&cloud, service).await;
    let served = routes::served(routes, &format!("/{service}"));
    let (mut doc, operations) = spec::flat(spec::load(&options.data.join(service))?, version, &served);
    spec::correct(&mut doc, service);
    let dir = cloud.dir.join("schemathesis");
    std::fs::create_dir_all(&dir)?;
    std::fs::write(dir.join("spec.json"), serde_json::to_vec_pretty(&doc)?)?;
    schemathesis(options, &cloud, service, version, &dir).await?;
    if options.keep {
        let kept = Path::new(KEPT).join(service);
        std::fs::create_dir_all(&kept)?;
        for name in ["spec.json", "report.json", "schemathesis.log"] {
            std::fs::copy(dir.join(name), kept.join(name))?;
        }
        std::fs::write(kept.join("cloud.log"), cloud.tail())?;
    }
    cloud.audit().await;
    let told: Value = serde_json::from_slice(&std::fs::read(dir.join("report.json")).with_context(|| {
        let log = std::fs::read_to_string(dir.join("schemathesis.log")).unwrap_or_default();
        format!("schemathesis wrote no report:\n{log}")
    })?)?;
    let list = |key: &str| told.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
    let title = |v: &Value| v.get("title").and_then(Value::as_str).unwrap_or("?").to_owned();
    let mut failures: Vec<String> = list("failures")
        .iter()
        .map(|f| {
            let where_: Vec<&str> = f["operations"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .collect();
            format!("{} ({}): {}", title(f), f["count"], where_.join(", "))
        })
        .collect();
    // Bytes are no JSON, of which it could make wrong ones.
    let errors = list("errors")
        .iter()
        .map(title)
        .filter(|t| t != "Serialization not possible")
        .collect::<Vec<_>>();
    failures.extend(errors);
    let report = Report {
        service,
        version,
        operations,
        cases: told
            .pointer("/test_cases/generated")
            .and_then(Value::as_u64)
            .unwrap_or(0),
        seconds: told.get("running_time").and_then(Value::as_f64).unwrap_or(0.0),
        failures,
    };
    println!("{}", report.line());
    report.failures.iter().for_each(|f| println!("  {f}"));
    Ok(report)
}

impl Report {
    fn line(&self) -> String {
        let version = match self.version {
            Version(0, 0) => "-".to_owned(),
            Version(major, minor) => format!("{major}.{minor}"),
        };
        let failures = self.failures.len();
        format!(
            "| {} | {version} | {} | {} | {failures} | {:.0} |",
            self.service, self.operations, self.cases, self.seconds
        )
    }
}

fn markdown(reports: &[Report], options: &Options) -> Result<String> {
    let git = Command::new("git")
        .args(["describe", "--always", "--dirty= with changes"])
        .output()?;
    let commit = String::from_utf8(git.stdout)?.trim().to_owned();
    let mut text = format!(
        "# Schemathesis\n\n\
         Requests made from OpenStack's own OpenAPI files (as the crate openstack_types 0.22.8 carries them), right ones and\n\
         wrong ones, at the newest microversion, against a fresh cloud on the fake drivers, as its administrator:\n\
         `cargo xtask schemathesis`, seed {}, at most {} cases of an operation and phase, commit {commit}. A failure is an\n\
         answer of 500 and more, an accepted request that the file forbids, or an answer that its schema does not allow.\n\n\
         | Service | Microversion | Operations | Requests | Failures | Seconds |\n|---|---|---|---|---|---|\n",
        options.seed, options.examples
    );
    for report in reports {
        text.push_str(&report.line());
        text.push('\n');
    }
    for report in reports.iter().filter(|r| !r.failures.is_empty()) {
        text.push_str(&format!("\n## Failures: {}\n\n", report.service));
        report.failures.iter().for_each(|f| text.push_str(&format!("- {f}\n")));
    }
    text.push_str("\n## Put right in the files before they are believed\n\n| Service | Why |\n|---|---|\n");
    for (service, _, why) in spec::CORRECTIONS {
        text.push_str(&format!(
            "| {} | {why} |\n",
            if *service == "*" { "all" } else { service }
        ));
    }
    Ok(text)
}

/// The newest microversion that the service says it has.
async fn newest(cloud: &Cloud, service: &str) -> Version {
    let path = match service {
        "compute" => "/compute/v2.1",
        "placement" => "/placement",
        _ => return Version(0, 0),
    };
    let answer = cloud.admin_client().await.get(path).await.body;
    let version = answer
        .get("version")
        .or_else(|| answer.pointer("/versions/0"))
        .cloned()
        .unwrap_or_default();
    let text = ["version", "max_version"]
        .iter()
        .find_map(|k| version.get(*k).and_then(Value::as_str));
    text.and_then(Version::parse).unwrap_or(Version(0, 0))
}

async fn schemathesis(options: &Options, cloud: &Cloud, service: &str, version: Version, dir: &Path) -> Result<()> {
    let token = cloud.admin_client().await.token.context("a token")?;
    let log = std::fs::File::create(dir.join("schemathesis.log"))?;
    // 410 refuses, too: Nova's answer for what it has removed.
    std::fs::write(
        dir.join("schemathesis.toml"),
        "[checks.negative_data_rejection]\nexpected-statuses = [\"400\", \"401\", \"403\", \"404\", \"405\", \"406\", \"409\", \"410\", \"413\", \"415\", \"422\", \"428\", \"429\", \"5xx\"]\n",
    )?;
    let mut command = Command::new(options.python.join("bin/schemathesis"));
    command
        .args(["run", "spec.json", "--no-color", "--continue-on-failure", "--no-shrink"])
        .args([
            "--checks",
            "not_a_server_error,negative_data_rejection,response_schema_conformance",
        ])
        .args([
            "--phases",
            "examples,coverage,fuzzing",
            "--mode",
            "all",
            "--workers",
            "2",
        ])
        .args(["--suppress-health-check", "all", "--warnings", "off"])
        .args([
            "--max-examples",
            &options.examples.to_string(),
            "--seed",
            &options.seed.to_string(),
        ])
        .args(["--report", "json", "--report-json-path", "report.json"])
        .args(["--url", &format!("http://{}/{service}", cloud.address)])
        // The token is the throw-away cloud's own.
        .args(["--header", &format!("X-Auth-Token: {token}")]);
    if version != Version(0, 0) {
        let header = format!("OpenStack-API-Version: {service} {}.{}", version.0, version.1);
        command.args(["--header", &header]);
    }
    command
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .status()
        .context("schemathesis")?;
    Ok(())
}
