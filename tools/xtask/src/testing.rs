//! `cargo xtask test`: everything that CI runs, step by step, with a table of time and outcome at the end. A
//! step that fails does not keep the later ones from telling what they have to tell.

use crate::report::Tally;
use crate::shell::{Cmd, find, is_root, root, say, target_dir};
use crate::{build, conformance, schemathesis, setup, tidy};
use anyhow::{Context, Result, bail};
use std::path::Path;
use std::time::{Duration, Instant};

/// CI's budget on two cores.
const BUDGET: Duration = Duration::from_secs(45 * 60);
/// The real lane must run at least so many tests: the committed number.
const MINIMUM: &str = ".ci/real-lane-minimum";

#[derive(clap::Args)]
pub struct Options {
    /// Also what does not fit in CI's time
    #[arg(long)]
    full: bool,
    /// Only these lanes or steps: fmt, clippy, tidy, unit, fake, tempest, real, schemathesis, bare
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Install nothing
    #[arg(long)]
    no_setup: bool,
}

/// A lane of tests: its name, and which tests are in it, by the last part of their name.
const LANES: [(&str, &str, &str); 3] = [
    (
        "unit",
        "everything that starts no cloud; the store suites on both databases",
        "",
    ),
    ("fake", "whole clouds of real processes, with fake drivers", "fake_"),
    ("real", "whole clouds with real guests and networks", "real_"),
];

struct Line {
    name: String,
    took: Duration,
    result: Result<()>,
    tally: Option<Tally>,
}

/// The command.
pub fn test(options: &Options) -> Result<()> {
    let begun = Instant::now();
    let wanted = |name: &str| options.only.is_empty() || options.only.iter().any(|o| o == name);
    let mut lines = Vec::new();
    let mut step = |name: &str, act: &mut dyn FnMut() -> Result<Option<Tally>>| {
        say(format!("\n=== {name}"));
        let start = Instant::now();
        let (result, tally) = match act() {
            Ok(tally) => (Ok(()), tally),
            Err(e) => (Err(e), None),
        };
        if let Err(e) = &result {
            say(format!("{name}: {e:#}"));
        }
        let good = result.is_ok();
        lines.push(Line {
            name: name.to_owned(),
            took: start.elapsed(),
            result,
            tally,
        });
        good
    };
    let cargo = |args: &[&str]| Cmd::new("cargo").args(args).run().map(|()| None);

    if wanted("fmt") {
        step("fmt", &mut || cargo(&["fmt", "--all", "--check"]));
    }
    let mut binary = target_dir().join("debug/haneul");
    let built = step("build", &mut || {
        binary = build()?;
        Ok(None)
    });
    if built && !options.no_setup {
        step("set-up", &mut || {
            setup::setup(&binary)?;
            // The real lane builds a whole Debian for one of its tests.
            if options.full && is_root() {
                setup::bare()?;
            }
            Ok(None)
        });
    }
    if wanted("tidy") {
        step("tidy", &mut || tidy::tidy().map(|()| None));
    }
    if wanted("clippy") {
        // Lints are warnings while one works, and errors here. Tests may unwrap and print: not --all-targets.
        step("clippy", &mut || {
            cargo(&["clippy", "--workspace", "--quiet", "--", "-D", "warnings"])
        });
    }
    if built {
        for (lane, _, prefix) in LANES.iter().filter(|l| wanted(l.0)) {
            step(lane, &mut || run_lane(prefix, &binary, options.full).map(Some));
        }
        if wanted("tempest") {
            // The whole of it guards its list, too.
            let args = if options.full {
                vec![]
            } else {
                vec!["--slice".to_owned()]
            };
            step("tempest", &mut || conformance("conformance", &args).map(|()| None));
            if options.full {
                let several = ["--hosts".to_owned(), "3".to_owned()];
                step("tempest-hosts", &mut || {
                    conformance("conformance", &several).map(|()| None)
                });
                step("guests", &mut || {
                    conformance("conformance", &["--real".to_owned()]).map(|()| None)
                });
            }
        }
    }
    if built && (options.full && wanted("schemathesis") || options.only.iter().any(|o| o == "schemathesis")) {
        step("schemathesis", &mut || schemathesis(&[]).map(|()| None));
    }
    if built && (options.full && wanted("bare") || options.only.iter().any(|o| o == "bare")) {
        step("bare", &mut || bare_machine().map(|()| None));
    }
    summary(&mut lines, begun.elapsed(), wanted("real") && built, options.full)
}

/// `cargo xtask up` and the tarball on a minimal Debian.
fn bare_machine() -> Result<()> {
    if !is_root() {
        bail!("it needs root, for debootstrap and systemd-nspawn");
    }
    setup::bare()?;
    Cmd::new(root().join("bin/haneul/tests/scripts/bare-machine.sh"))
        .arg(root())
        .arg(target_dir().join("bare"))
        .run()
}

/// nextest where it is installed (a process for each test, retries nothing), else cargo's own runner.
fn run_lane(prefix: &str, binary: &Path, full: bool) -> Result<Tally> {
    let nextest = find("cargo-nextest").is_some() || cargo_home_has_nextest();
    let path = std::env::var("PATH").unwrap_or_default();
    let with_env = |c: Cmd| {
        c.env("HANEUL_BIN", binary)
            .env("HANEUL_TEST_OPENSTACK", setup::client_bin().join("openstack"))
            .env("PATH", format!("{path}:/usr/sbin:/sbin"))
    };
    if nextest {
        let clouds = "test(/(^|::)(fake|real)_/)";
        let filter = if prefix.is_empty() {
            format!("not {clouds}")
        } else {
            format!("test(/(^|::){prefix}/)")
        };
        let junit = target_dir().join("nextest/ci/junit.xml");
        let _ = std::fs::remove_file(&junit);
        // Tests wait for disks, clocks and other processes more than they compute: one for each core leaves half of
        // the cores idle.
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let threads = (cores * 3).div_ceil(2).to_string();
        let mut cmd = Cmd::new("cargo")
            .args(["nextest", "run", "--workspace", "--profile", "ci", "--no-tests", "pass"])
            .args(["--test-threads", &threads, "-E", &filter]);
        if full {
            cmd = cmd.args(["--run-ignored", "all"]);
        }
        let ran = with_env(cmd).run();
        let tally = std::fs::read_to_string(&junit)
            .map(|xml| Tally::from_junit(&xml))
            .unwrap_or_default();
        if let (Err(e), true) = (ran, tally.failed.is_empty()) {
            return Err(e);
        }
        return Ok(tally);
    }
    let mut cmd = Cmd::new("cargo").args(["test", "--workspace", "--no-fail-fast", "--"]);
    cmd = match prefix {
        "" => cmd.args(["--skip", "fake_", "--skip", "real_"]),
        // Clouds with real guests one after the other: two cores have room for one.
        "real_" => cmd.args(["real_", "--test-threads", "1"]),
        prefix => cmd.args([prefix, "--test-threads", "2"]),
    };
    if full {
        cmd = cmd.arg("--include-ignored");
    }
    let (good, text) = with_env(cmd.arg("--show-output")).tee()?;
    let tally = Tally::from_libtest(&text);
    if !good && tally.failed.is_empty() {
        bail!("the tests did not run to their end");
    }
    Ok(tally)
}

fn cargo_home_has_nextest() -> bool {
    let home = std::env::var_os("CARGO_HOME").map(std::path::PathBuf::from);
    let home = home.or_else(|| Some(Path::new(&std::env::var_os("HOME")?).join(".cargo")));
    home.is_some_and(|h| h.join("bin/cargo-nextest").is_file())
}

fn minimum() -> Result<usize> {
    let text = std::fs::read_to_string(root().join(MINIMUM)).with_context(|| MINIMUM.to_owned())?;
    let number = text.lines().find(|l| !l.starts_with('#')).unwrap_or_default().trim();
    number
        .parse()
        .with_context(|| format!("{MINIMUM}: {number:?} is not a number"))
}

/// The table; an error when anything failed.
fn summary(lines: &mut [Line], took: Duration, real: bool, full: bool) -> Result<()> {
    let mut problems = Vec::new();
    say("\n=== Summary");
    say(format!(
        "{:<8} {:>7}  {:>6} {:>6} {:>7}",
        "step", "time", "passed", "failed", "skipped"
    ));
    for line in lines.iter() {
        let time = format!("{}:{:02}", line.took.as_secs() / 60, line.took.as_secs() % 60);
        let numbers = match (&line.result, &line.tally) {
            (Ok(()), Some(t)) => format!("{:>6} {:>6} {:>7}", t.passed, t.failed.len(), t.skips()),
            (Ok(()), None) => "    ok".to_owned(),
            (Err(_), _) => "FAILED".to_owned(),
        };
        say(format!("{:<8} {time:>7}  {numbers}", line.name));
        if let Err(e) = &line.result {
            problems.push(format!("{}: {e:#}", line.name));
        }
        let Some(tally) = &line.tally else { continue };
        for (reason, n) in &tally.skipped {
            say(format!("{:<18}skipped {n}: {reason}", ""));
        }
        problems.extend(tally.failed.iter().map(|f| format!("{}: {f}", line.name)));
    }
    let ran = |lane: &str| lines.iter().any(|l| l.name == lane);
    for (lane, what, _) in LANES.iter().filter(|l| ran(l.0)) {
        say(format!("{lane}: {what}"));
    }
    if real {
        let ran = lines
            .iter()
            .find(|l| l.name == "real")
            .and_then(|l| l.tally.as_ref())
            .map_or(0, |t| t.passed + t.failed.len());
        let least = minimum()?;
        if ran < least {
            let why = if is_root() { "" } else { " (it needs root)" };
            problems.push(format!(
                "real: ran {ran} tests, and {MINIMUM} says {least}{why}: a lane that does not run proves nothing"
            ));
        }
    }
    if took > BUDGET && !full {
        problems.push(format!(
            "took {} minutes; the budget is {}",
            took.as_secs() / 60,
            BUDGET.as_secs() / 60
        ));
    }
    say(format!("total {}:{:02}", took.as_secs() / 60, took.as_secs() % 60));
    if problems.is_empty() {
        say("All is well.");
        return Ok(());
    }
    for p in &problems {
        say(format!("FAILED {p}"));
    }
    bail!("{} problems", problems.len());
}
