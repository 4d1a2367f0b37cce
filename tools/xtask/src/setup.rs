//! What the tests need beyond what Haneul itself needs: PostgreSQL, the openstack client, small tools.

use crate::shell::{Cmd, find, is_root, root, say, target_dir};
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};

/// The client that tests drive the cloud with, as anybody gets it from PyPI. One version, so that a run today
/// and one next month say the same.
const CLIENT: &str = include_str!("../requirements.txt");
const TEMPEST: &str = include_str!("../tempest-requirements.txt");
const SCHEMATHESIS: &str = include_str!("../schemathesis-requirements.txt");

/// Package, and a file that tells that it is there.
const PACKAGES: &[(&str, &str)] = &[
    ("postgresql-15", "/usr/lib/postgresql/15/bin/postgres"),
    ("python3-venv", "/usr/lib/python3.11/ensurepip/__init__.py"),
    ("openssh-client", "/usr/bin/ssh"),
    ("iperf3", "/usr/bin/iperf3"),
    ("jq", "/usr/bin/jq"),
    // What the data plane's tests speak with.
    ("bind9-dnsutils", "/usr/bin/dig"),
    ("busybox", "/usr/bin/busybox"),
    ("curl", "/usr/bin/curl"),
    ("iputils-arping", "/usr/bin/arping"),
    ("iputils-ping", "/usr/bin/ping"),
    ("isc-dhcp-client", "/usr/sbin/dhclient"),
    ("ndisc6", "/usr/bin/rdisc6"),
    ("netcat-openbsd", "/usr/bin/nc.openbsd"),
];

/// What only the step "bare" of `test --full` needs.
const BARE: &[(&str, &str)] = &[
    ("debootstrap", "/usr/sbin/debootstrap"),
    ("systemd-container", "/usr/bin/systemd-nspawn"),
];

/// The directory with the programs of the Python environment.
pub fn client_bin() -> PathBuf {
    target_dir().join("venv/bin")
}

/// Installs what is missing; quick when nothing is.
pub fn setup(haneul: &Path) -> Result<()> {
    if is_root() {
        packages(PACKAGES)?;
        // The binary's own step: QEMU, nftables, the account and so on.
        Cmd::new(haneul).args(["up", "--packages-only", "--yes"]).run()?;
    } else {
        say("not root: no packages are installed, and tests that need root will be skipped");
    }
    client()
}

/// Installs what a bare machine is made with.
pub fn bare() -> Result<()> {
    packages(BARE)
}

fn packages(wanted: &[(&'static str, &str)]) -> Result<()> {
    let missing: Vec<&str> = wanted
        .iter()
        .filter(|(_, file)| !Path::new(file).exists())
        .map(|(p, _)| *p)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    if find("apt-get").is_none() {
        bail!("install these by hand: {}", missing.join(", "));
    }
    // Debian's package would make and start a cluster of its own, which no test needs.
    let conf = Path::new("/etc/postgresql-common/createcluster.conf");
    if missing.contains(&"postgresql-15") && !conf.exists() {
        std::fs::create_dir_all("/etc/postgresql-common")?;
        std::fs::write(conf, "create_main_cluster = false\n")?;
    }
    let apt = |args: &[&str]| {
        Cmd::new("apt-get")
            .args([
                "-qq",
                "-o",
                "DPkg::Lock::Timeout=300",
                "-o",
                "Acquire::Retries=3",
                "-o",
                "Dpkg::Options::=--force-confold",
            ])
            .args(args)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .run()
    };
    apt(&["update"])?;
    apt(&[&["install", "-y", "--no-install-recommends"][..], &missing].concat())
}

/// Tempest, in an environment of its own.
pub fn tempest() -> Result<PathBuf> {
    environment("tempest", TEMPEST, "tempest-requirements.txt")
}

/// Schemathesis, likewise.
pub fn schemathesis() -> Result<PathBuf> {
    environment("schemathesis", SCHEMATHESIS, "schemathesis-requirements.txt")
}

fn client() -> Result<()> {
    environment("venv", CLIENT, "requirements.txt").map(|_| ())
}

/// A Python environment below target/ with what a file of requirements says.
fn environment(name: &str, requirements: &str, file: &str) -> Result<PathBuf> {
    let venv = target_dir().join(name);
    let stamp = venv.join("requirements.txt");
    if std::fs::read_to_string(&stamp).ok().as_deref() == Some(requirements) {
        return Ok(venv);
    }
    say(format!("{file}: installing from PyPI into target/{name}"));
    let _ = std::fs::remove_dir_all(&venv);
    // The system's own Python where there is one: it is the quicker one.
    let system = Path::new("/usr/bin/python3");
    let python = if system.exists() {
        system.to_owned()
    } else {
        find("python3").context("python3 is missing")?
    };
    Cmd::new(python).args(["-m", "venv"]).arg(&venv).run()?;
    Cmd::new(venv.join("bin/pip"))
        .args(["install", "--quiet", "--disable-pip-version-check", "--requirement"])
        .arg(root().join("tools/xtask").join(file))
        .run()?;
    std::fs::write(&stamp, requirements)?;
    Ok(venv)
}
