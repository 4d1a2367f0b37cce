//! The supervisor with stub children, the command line's refusals, clouds.yaml, doctor.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use clap::Parser;
use haneul_cli::proc::{Ident, Lock, PidFile};
use haneul_cli::supervisor::{Plan, Spec, listen_to_signals, supervise};
use haneul_cli::up::{Person, clouds};
use haneul_cli::{Accelerator, Cli, Host, doctor};
use haneul_core::config::Config;
use rustix::process::Signal;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A directory that goes away with the test.
struct Dir(PathBuf);

impl Dir {
    fn new() -> Self {
        let dir = std::env::temp_dir().join(format!("haneul-cli-{}", haneul_core::id::hex()));
        fs::create_dir(&dir).unwrap();
        Self(dir)
    }
    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.0.join(name)).unwrap_or_default()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        // Whatever the test left: only what its pid files name.
        for name in ["run", "serve", "agent"] {
            if let Some(i) = PidFile::new(&self.0, name).live() {
                i.signal(Signal::KILL);
            }
        }
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Not a test: the process that the tests below start as `haneul run`. Children are shell scripts.
#[test]
#[ignore = "started by the other tests as a process of its own"]
fn helper_supervisor() {
    let Some(dir) = std::env::var_os("HANEUL_TEST_DIR").map(PathBuf::from) else {
        return;
    };
    let _lock = match Lock::take(&dir, "run") {
        Ok(l) => l,
        Err(e) => {
            fs::write(dir.join("refused"), e.public()).unwrap();
            return;
        }
    };
    let child = |name: &'static str| Spec {
        name,
        program: "/bin/sh".into(),
        args: vec!["-c".into(), fs::read_to_string(dir.join(format!("{name}.sh"))).unwrap()],
        account: None,
    };
    let plan = Plan {
        name: "run",
        run_dir: dir.clone(),
        log_dir: dir.clone(),
        children: ["serve", "agent"]
            .into_iter()
            .filter(|n| dir.join(format!("{n}.sh")).exists())
            .map(child)
            .collect(),
        log_limit: 20_000,
        backoff: Duration::from_millis(50),
        backoff_max: Duration::from_millis(400),
        settled: Duration::from_secs(5),
        patience: Duration::from_millis(2000),
    };
    supervise(&plan, listen_to_signals().unwrap(), None).unwrap();
}

fn supervisor(dir: &Dir) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["helper_supervisor", "--exact", "--ignored", "--nocapture"])
        .env("HANEUL_TEST_DIR", &dir.0)
        .stdout(Stdio::null())
        .stderr(fs::File::create(dir.0.join("run.err")).unwrap())
        .spawn()
        .unwrap()
}

fn script(dir: &Dir, name: &str, text: &str) {
    let text = format!("cd {}\n{text}", dir.0.display());
    fs::write(dir.0.join(format!("{name}.sh")), text).unwrap();
}

#[track_caller]
fn until(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < end, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn pid_of(dir: &Dir, name: &str) -> Option<Ident> {
    PidFile::new(&dir.0, name).live()
}

fn term(child: &Child) {
    Ident::of(i32::try_from(child.id()).unwrap())
        .unwrap()
        .signal(Signal::TERM);
}

const GOOD: &str = "trap 'echo bye >>said; exit 0' TERM\necho up >>said\nwhile :; do sleep 0.02; done";

#[test]
fn stops_gracefully() {
    let dir = Dir::new();
    script(&dir, "serve", GOOD);
    script(&dir, "agent", GOOD);
    let mut run = supervisor(&dir);
    until("both are up", || dir.read("said").matches("up").count() == 2);
    assert!(pid_of(&dir, "run").is_some());
    term(&run);
    assert!(run.wait().unwrap().success());
    assert_eq!(dir.read("said").matches("bye").count(), 2);
    for name in ["run", "serve", "agent"] {
        assert!(!dir.0.join(format!("{name}.pid")).exists(), "{name}.pid is left");
    }
}

#[test]
fn kills_what_does_not_stop() {
    let dir = Dir::new();
    script(
        &dir,
        "serve",
        "trap '' TERM\necho up >>said\nwhile :; do sleep 0.02; done",
    );
    let mut run = supervisor(&dir);
    until("it is up", || dir.read("said").contains("up"));
    let serve = pid_of(&dir, "serve").unwrap();
    let begun = Instant::now();
    term(&run);
    assert!(run.wait().unwrap().success());
    assert!(!serve.alive());
    assert!(begun.elapsed() >= Duration::from_millis(2000), "it had its time");
    assert!(begun.elapsed() < Duration::from_secs(30));
}

#[test]
fn restarts_with_growing_waits_and_hangup_is_nothing() {
    let dir = Dir::new();
    script(&dir, "serve", "date +%s%N >>times; exit 3");
    let mut run = supervisor(&dir);
    until("the first start", || !dir.read("times").is_empty());
    Ident::of(i32::try_from(run.id()).unwrap()).unwrap().signal(Signal::HUP);
    until("eight starts", || dir.read("times").lines().count() >= 8);
    assert!(run.try_wait().unwrap().is_none(), "hangup ended it");
    let times: Vec<u64> = dir.read("times").lines().map(|l| l.parse().unwrap()).collect();
    let gap = |i: usize| Duration::from_nanos(times[i + 1] - times[i]);
    assert!(gap(0) >= Duration::from_millis(45), "{:?}", gap(0));
    assert!(gap(3) >= Duration::from_millis(380), "{:?}: 50, 100, 200, 400", gap(3));
    // 800, 1600 and 3200 would come next.
    assert!(
        gap(6) < Duration::from_millis(2500),
        "{:?}: no longer than the longest wait",
        gap(6)
    );
    assert!(dir.read("run.err").contains("exit code 3"), "{}", dir.read("run.err"));
    term(&run);
    assert!(run.wait().unwrap().success());
}

#[test]
fn killed_run_leaves_children_and_the_next_one_replaces_them() {
    let dir = Dir::new();
    script(&dir, "serve", GOOD);
    let mut run = supervisor(&dir);
    until("it is up", || {
        dir.read("said").contains("up") && pid_of(&dir, "serve").is_some()
    });
    let old = pid_of(&dir, "serve").unwrap();
    run.kill().unwrap();
    run.wait().unwrap();
    std::thread::sleep(Duration::from_millis(200));
    assert!(old.alive(), "serve must outlive a killed run");
    let mut run = supervisor(&dir);
    until("a new serve", || pid_of(&dir, "serve").is_some_and(|i| i != old));
    assert!(!old.alive());
    until("the new one is up", || dir.read("said") == "up\nbye\nup\n");
    term(&run);
    assert!(run.wait().unwrap().success());
}

#[test]
fn only_one_run_per_directory() {
    let dir = Dir::new();
    script(&dir, "serve", GOOD);
    let mut run = supervisor(&dir);
    until("it is up", || dir.read("said").contains("up"));
    let mut second = supervisor(&dir);
    second.wait().unwrap();
    let said = dir.read("refused");
    assert!(
        said.contains("already runs here") && said.contains(&run.id().to_string()),
        "{said}"
    );
    assert_eq!(dir.read("said"), "up\n", "serve was not touched");
    term(&run);
    run.wait().unwrap();
}

/// The child of a killed process holds a copy of its lock from fork to exec; the next process waits for that.
#[test]
fn a_lock_is_waited_for_a_moment() {
    let dir = Dir::new();
    let held = Lock::take(&dir.0, "agent").unwrap();
    assert!(Lock::take(&dir.0, "agent").is_err());
    let next = std::thread::spawn({
        let dir = dir.0.clone();
        move || Lock::take(&dir, "agent").is_ok()
    });
    std::thread::sleep(Duration::from_millis(100));
    drop(held);
    assert!(next.join().unwrap());
}

#[test]
fn pid_files_of_the_dead_are_not_believed() {
    let dir = Dir::new();
    script(&dir, "serve", GOOD);
    // Our own pid with another start time: a number that was given to another process meanwhile.
    let me = Ident::of(i32::try_from(std::process::id()).unwrap()).unwrap();
    PidFile::new(&dir.0, "serve")
        .write(&Ident {
            start: me.start - 1,
            ..me
        })
        .unwrap();
    let mut run = supervisor(&dir);
    until("it is up", || dir.read("said").contains("up"));
    term(&run);
    run.wait().unwrap();
}

#[test]
fn logs_are_bounded() {
    let dir = Dir::new();
    // Each life writes 9 kB; the limit is 20 kB.
    script(
        &dir,
        "serve",
        "i=0; while [ $i -lt 100 ]; do echo \"$$ 1234567890123456789012345678901234567890123456789012345678901234567890123456789 $i\"; i=$((i+1)); done; exit 1",
    );
    let mut run = supervisor(&dir);
    until("the log was cut", || dir.0.join("serve.log.1").exists());
    until("some more lives", || dir.read("run.err").matches("started").count() > 8);
    for name in ["serve.log", "serve.log.1"] {
        let size = fs::metadata(dir.0.join(name)).unwrap().len();
        assert!(size < 40_000, "{name} has {size}");
    }
    term(&run);
    run.wait().unwrap();
}

fn config(dir: &Path, more: &[&str]) -> haneul_core::Result<Config> {
    let dir = dir.display().to_string();
    let mut args = vec!["haneul", "--state-dir", &dir];
    for m in more {
        args.extend(["--set", m]);
    }
    args.push("status");
    Cli::try_parse_from(args).unwrap().globals.load()
}

#[test]
fn configuration_errors_name_the_key() {
    let dir = Dir::new();
    for (set, words) in [
        ("api.listn=127.0.0.1:1", "did you mean api.listen"),
        ("api.listen=0.0.0.0:1", "write in api.public_url"),
        ("tls.key=/x", "tls.certificate"),
        ("fleet.url=https://x", "fleet.listen"),
        ("agent.hypervisor=fake", "lab = true"),
        ("nonsense", "section.key=value"),
    ] {
        let e = config(&dir.0, &[set]).unwrap_err();
        assert!(e.public().contains(words), "{set}: {e}");
        assert_eq!(e.kind(), haneul_core::Kind::BadRequest, "exit code 2");
    }
    let missing = Cli::try_parse_from(["haneul", "--config", "/nonexistent/h.toml", "status"]).unwrap();
    assert!(
        missing
            .globals
            .load()
            .unwrap_err()
            .public()
            .contains("/nonexistent/h.toml"),
        "a file that was asked for must be there"
    );
}

#[test]
fn clouds_yaml_is_written_once_and_never_over_anothers() {
    use std::os::unix::fs::PermissionsExt;
    let dir = Dir::new();
    let config = config(&dir.0, &[]).unwrap();
    let person = Person {
        home: dir.0.clone(),
        uid: nix::unistd::Uid::current(),
        gid: nix::unistd::Gid::current(),
    };
    let usual = dir.0.join(".config/openstack/clouds.yaml");

    let first = clouds::write(&config, &person, "pass").unwrap();
    assert_eq!(
        (first.path.clone(), first.beside, first.changed),
        (usual.clone(), false, true)
    );
    assert_eq!(fs::metadata(&usual).unwrap().permissions().mode() & 0o777, 0o600);
    let text = fs::read_to_string(&usual).unwrap();
    assert!(
        text.contains("  haneul:\n") && text.contains("password: \"pass\""),
        "{text}"
    );
    assert!(
        !clouds::write(&config, &person, "pass").unwrap().changed,
        "the second time changes nothing"
    );
    assert!(clouds::write(&config, &person, "new").unwrap().changed);

    // The person's own file.
    fs::write(&usual, "clouds:\n  mine: {}\n").unwrap();
    let beside = clouds::write(&config, &person, "pass").unwrap();
    assert!(beside.beside && beside.path.ends_with("haneul.yaml"));
    assert_eq!(
        beside.variable().unwrap(),
        format!("OS_CLIENT_CONFIG_FILE={}", beside.path.display())
    );
    assert_eq!(fs::read_to_string(&usual).unwrap(), "clouds:\n  mine: {}\n");

    // Another cloud on this host.
    let mut other = config.clone();
    other.state_dir.0 = dir.0.join("other");
    fs::create_dir(&other.state_dir.0).unwrap();
    assert!(
        clouds::write(&other, &person, "x")
            .unwrap()
            .path
            .ends_with("haneul-2.yaml")
    );

    assert!(!clouds::remove(&usual, &config).unwrap(), "not ours");
    assert!(clouds::remove(&beside.path, &config).unwrap());
    assert!(usual.exists() && !beside.path.exists());
}

struct NoHost;

impl Host for NoHost {
    fn join(&self, _: &Config, _: &str, _: &str) -> haneul_core::Result<String> {
        unreachable!("nobody joins here")
    }
    fn accelerator(&self, _: &Config) -> Accelerator {
        Accelerator {
            chosen: "tcg".into(),
            kvm: false,
            why: "there is no /dev/kvm".into(),
        }
    }
    fn stop_guests(&self, _: &Config, _: bool) -> haneul_core::Result<usize> {
        Ok(0)
    }
    fn lease(&self, _: &Config, _: Box<dyn Fn() + Send>) -> haneul_core::Result<Option<haneul_lease::Keeper>> {
        Ok(None)
    }
    fn lease_left(&self, _: &Config) -> Duration {
        Duration::ZERO
    }
    fn end_bound(&self, _: &Config) -> haneul_core::Result<usize> {
        Ok(0)
    }
    fn purge(&self, _: &Config) -> haneul_core::Result<()> {
        Ok(())
    }
}

#[test]
fn doctor_says_what_to_do() {
    let dir = Dir::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = format!("api.listen={}", taken.local_addr().unwrap());
    let config = config(
        &dir.0,
        &["lab=true", "agent.hypervisor=fake", "agent.network=fake", &listen],
    )
    .unwrap();
    let checks = doctor::checks(&config, &NoHost);
    for c in &checks {
        assert_eq!(
            c.outcome == doctor::Outcome::Ok,
            c.remedy.is_empty(),
            "{c:?}: what is not well has a remedy"
        );
    }
    let find = |name: &str| {
        checks
            .iter()
            .find(|c| c.name == name)
            .unwrap_or_else(|| panic!("no check {name}"))
    };
    assert_eq!(
        find("api").outcome,
        doctor::Outcome::Fail,
        "another program listens there"
    );
    assert!(find("mode").found.contains("fake hypervisor"), "a lab shows");
    for name in [
        "root", "account", "qemu", "kernel", "cgroups", "disk", "memory", "metrics",
    ] {
        find(name);
    }
    let json = serde_json::to_value(&checks).unwrap();
    let keys: Vec<&String> = json[0].as_object().unwrap().keys().collect();
    assert_eq!(keys, ["do", "found", "name", "outcome"]);
}
