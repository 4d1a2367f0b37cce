//! `cargo xtask gabbi DIR`: OpenStack's gabbi files for placement, from a copy of its repository and without a change,
//! each against a fresh cloud. Writes docs/gabbi.md. run.py beside this file builds what a file's fixture names.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

#[path = "../facts.rs"]
mod facts;

use anyhow::{Context, Result, bail};
use clap::Parser;
use haneul_testkit::{Cloud, Options as CloudOptions, eventually};
use http::Method;
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Run OpenStack's gabbi files for placement, each against a fresh cloud; writes docs/gabbi.md
#[derive(Parser)]
#[command(name = "cargo xtask gabbi")]
struct Options {
    /// The directory with the files: placement/tests/functional/gabbits of a copy of openstack/placement
    directory: PathBuf,
    /// Only files whose name contains this; nothing is written then
    name: Option<String>,
    #[arg(long, hide = true, default_value = "target/debug/haneul")]
    binary: PathBuf,
    #[arg(long, hide = true, default_value = "target/tempest")]
    python: PathBuf,
}

const RUN: &str = "tools/conformance/src/gabbi/run.py";
const REPORT: &str = "docs/gabbi.md";

#[derive(Deserialize)]
struct Ran {
    tests: Vec<Row>,
}

#[derive(Deserialize)]
struct Row {
    name: String,
    outcome: String,
    why: String,
}

struct File {
    name: String,
    rows: Vec<Row>,
}

impl File {
    fn count(&self, outcome: &str) -> usize {
        self.rows.iter().filter(|r| r.outcome == outcome).count()
    }
    /// What does not pass. A file's own `xfail` counts as what it expects.
    fn failed(&self) -> impl Iterator<Item = &Row> {
        self.rows
            .iter()
            .filter(|r| r.outcome == "failed" || r.outcome == "unexpected")
    }
}

fn main() -> Result<()> {
    let options = Options::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let mut names = Vec::new();
    for entry in std::fs::read_dir(&options.directory).context("the directory with the files")? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.ends_with(".yaml") && options.name.as_ref().is_none_or(|n| name.contains(n)) {
            names.push(path);
        }
    }
    names.sort();
    if names.is_empty() {
        bail!("no such .yaml file in {}", options.directory.display());
    }
    let mut files = Vec::new();
    for path in &names {
        let file = runtime.block_on(run(&options, path))?;
        println!(
            "{:<55} {:>4} passed {:>4} failed",
            file.name,
            file.count("passed") + file.count("expected"),
            file.failed().count()
        );
        for row in file.failed() {
            println!("    {}: {}", row.name, row.why);
        }
        files.push(file);
    }
    if options.name.is_none() {
        std::fs::write(REPORT, markdown(&files))?;
        println!("wrote {REPORT}");
    }
    Ok(())
}

async fn run(options: &Options, path: &Path) -> Result<File> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let text = std::fs::read_to_string(path)?;
    let fixtures = fixtures(&text);
    let mut cloud_options = CloudOptions::fake(&options.binary);
    let policy = std::env::temp_dir().join(format!("haneul-gabbi-{}.yaml", std::process::id()));
    std::fs::write(&policy, rules(&fixtures)?)?;
    cloud_options.sets.push(format!("api.policy_file={}", policy.display()));
    // No agent: its host would be a provider that the files know nothing of.
    let mut cloud = Cloud::prepare(cloud_options);
    cloud.start_serve();
    let client = cloud.anonymous();
    eventually("the cloud answers", Duration::from_secs(30), || async {
        let answer = client.try_send(Method::GET, "/placement", &[], vec![]).await?;
        (answer.status == 200).then_some(())
    })
    .await;
    let out = std::process::Command::new(options.python.join("bin/python"))
        .args([RUN, &cloud.address, &cloud.password()])
        .arg(path)
        .output()
        .context("python")?;
    drop(cloud);
    let _ = std::fs::remove_file(&policy);
    let said = String::from_utf8_lossy(&out.stdout);
    let ran: Ran = match said.lines().last().map(serde_json::from_str) {
        Some(Ok(ran)) => ran,
        _ => bail!("{name}: {said}\n{}", String::from_utf8_lossy(&out.stderr)),
    };
    Ok(File { name, rows: ran.tests })
}

/// The fixtures that a file names at its top. The rest of it is gabbi's to read.
fn fixtures(text: &str) -> Vec<String> {
    text.lines()
        .skip_while(|l| !l.starts_with("fixtures:"))
        .skip(1)
        .map(str::trim)
        .filter(|l| !l.is_empty() && !l.starts_with('#'))
        .map_while(|l| l.strip_prefix("- "))
        .map(str::to_owned)
        .collect()
}

/// The policy that a file expects: before oslo.policy's new defaults an administrator might reshape too; one fixture
/// allows everybody everything.
fn rules(fixtures: &[String]) -> Result<String> {
    let reshape = "placement:reshaper:reshape";
    if fixtures.iter().any(|f| f == "SecureRBACPolicyFixture") {
        return Ok(String::new());
    }
    if !fixtures.iter().any(|f| f == "OpenPolicyFixture") {
        return Ok(format!(
            "\"{reshape}\": \"(role:admin or role:service) and not system_scope:all\"\n"
        ));
    }
    let routes = std::fs::read_to_string("docs/routes.txt").context("docs/routes.txt")?;
    let mut names: Vec<&str> = routes
        .lines()
        .flat_map(|l| l.split(' '))
        .filter(|w| w.starts_with("placement:"))
        .collect();
    names.sort_unstable();
    names.dedup();
    Ok(names.iter().map(|n| format!("\"{n}\": \"@\"\n")).collect())
}

/// Why a file's failures are not ours to mend, by words of the failure.
const REASONS: &[(&str, &str)] = &[
    ("access-control-allow-origin", "cross-origin requests are not offered"),
    ("options request", "cross-origin requests are not offered"),
    ("text/html", "errors are told in JSON only"),
    (
        "bad content length",
        "the HTTP library refuses it with 400 before anything of ours sees it; the proxy of run.py does not send it either",
    ),
];

fn reason(row: &Row) -> &'static str {
    let text = format!("{}: {}", row.name, row.why);
    REASONS
        .iter()
        .find(|(words, _)| text.contains(words))
        .map_or("", |(_, why)| why)
}

fn markdown(files: &[File]) -> String {
    let sum = |f: &dyn Fn(&File) -> usize| files.iter().map(f).sum::<usize>();
    let passed = |f: &File| f.count("passed") + f.count("expected");
    let mut out = format!(
        "# Placement's gabbi files\n\n\
         OpenStack's own functional tests of the Placement API (openstack/placement, placement/tests/functional/gabbits), unmodified\n\
         from a copy of its repository that is not kept here, run by gabbi 4.1 against a fresh cloud each: `cargo xtask gabbi DIR`.\n\
         {}. {} requests in {} files: {} pass, {} fail, {} are skipped by the files themselves.\n\n\
         The files expect Placement alone, at the root of its address and with noauth tokens. tools/conformance/src/gabbi/run.py mounts\n\
         it there, turns each `x-auth-token` with its `x-roles` into a real user's token, and builds what the fixtures name through\n\
         the API. A request that a file marks `xfail` passes when it fails. After a failed request those that build on it fail too.\n\n\
         | File | Passed | Failed | Skipped |\n|---|---|---|---|\n",
        facts::facts(),
        sum(&|f| f.rows.len()),
        files.len(),
        sum(&passed),
        sum(&|f| f.failed().count()),
        sum(&|f| f.count("skipped")),
    );
    for f in files {
        out.push_str(&format!(
            "| {} | {} | {} | {} |\n",
            f.name,
            passed(f),
            f.failed().count(),
            f.count("skipped")
        ));
    }
    if files.iter().any(|f| f.failed().next().is_some()) {
        out.push_str("\n## Failed\n\n| File | Request | What gabbi says | Why |\n|---|---|---|---|\n");
    }
    for f in files {
        for row in f.failed() {
            let said: String = row.why.lines().next().unwrap_or_default().chars().take(200).collect();
            out.push_str(&format!(
                "| {} | {} | {} | {} |\n",
                f.name,
                row.name.replace('|', "\\|"),
                said.replace('|', "\\|"),
                reason(row)
            ));
        }
    }
    out
}
