//! `haneul doctor`: checks the host, and says for each failed check what to do. It changes nothing that
//! outlives it: features of the kernel are tried out in a network namespace of its own.

pub mod kernel;
pub mod uplink;

use crate::proc::{PidFile, find_program};
use crate::up::packages::{PROGRAMS, QEMU_MIN, qemu_version};
use crate::{ACCOUNT, Host, Result, systemd, ui};
use haneul_core::config::Config;
use nix::unistd::{Uid, User};
use serde::Serialize;
use serde_json::json;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Command, ExitCode};

/// How a check went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    Ok,
    /// Works, with less.
    Warn,
    /// The cloud cannot run so.
    Fail,
}

/// One check.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    pub name: String,
    pub outcome: Outcome,
    /// What was found.
    pub found: String,
    /// What to do; empty when it is well.
    #[serde(rename = "do")]
    pub remedy: String,
}

impl Check {
    pub fn ok(name: &str, found: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            outcome: Outcome::Ok,
            found: found.into(),
            remedy: String::new(),
        }
    }
    pub fn warn(name: &str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            outcome: Outcome::Warn,
            found: found.into(),
            remedy: remedy.into(),
        }
    }
    pub fn fail(name: &str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            outcome: Outcome::Fail,
            ..Self::warn(name, found, remedy)
        }
    }
    /// Essential or not, by `essential`.
    pub(crate) fn bad(essential: bool, name: &str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        if essential {
            Self::fail(name, found, remedy)
        } else {
            Self::warn(name, found, remedy)
        }
    }
}

/// The command; exit code 1 when something essential failed.
pub fn doctor(config: &Config, host: &dyn Host, as_json: bool) -> Result<ExitCode> {
    let checks = checks(config, host);
    let healthy = checks.iter().all(|c| c.outcome != Outcome::Fail);
    if as_json {
        ui::json(&json!({"healthy": healthy, "lab": config.lab, "checks": checks}));
    } else {
        for c in &checks {
            let mark = match c.outcome {
                Outcome::Ok => " ok ",
                Outcome::Warn => "warn",
                Outcome::Fail => "FAIL",
            };
            ui::line(format_args!("[{mark}] {:14} {}", c.name, c.found));
            if !c.remedy.is_empty() {
                ui::line(format_args!("{:22}-> {}", "", c.remedy));
            }
        }
        ui::line(if healthy {
            "This host can run the cloud."
        } else {
            "This host cannot run the cloud yet."
        });
    }
    Ok(if healthy { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// All checks.
pub fn checks(config: &Config, host: &dyn Host) -> Vec<Check> {
    let fake_guests = config.agent.hypervisor == "fake";
    let fake_network = config.agent.network == "fake";
    let root = Uid::effective().is_root();
    let mut out = Vec::new();
    out.push(lab(config));
    out.push(if root {
        Check::ok("root", "runs as root")
    } else if fake_guests && fake_network {
        Check::ok("root", "not root; fake drivers need none")
    } else {
        Check::fail(
            "root",
            "not root: some checks below cannot be made",
            "sudo haneul doctor",
        )
    });
    out.push(account(config));
    out.extend(programs(fake_guests && fake_network));
    if !fake_guests {
        let a = host.accelerator(config);
        out.push(if a.kvm {
            Check::ok("accelerator", format!("{}: {}", a.chosen, a.why))
        } else {
            Check::bad(
                config.agent.accelerator == "kvm",
                "accelerator",
                format!("{}: {}", a.chosen, a.why),
                "guests run emulated, about ten times slower. For KVM: switch on virtualization (VT-x, AMD-V) in the firmware, or nested virtualization in the hypervisor below",
            )
        });
    }
    out.push(kernel::version());
    if !fake_network {
        out.extend(kernel::network(root));
    }
    out.push(kernel::cgroups());
    out.extend(room(config));
    out.push(port(config, "api", "api.listen", config.api.listen));
    out.push(port(config, "metrics", "api.metrics_listen", config.api.metrics_listen));
    if let Some(listen) = config.fleet.listen {
        out.push(port(config, "hosts", "fleet.listen", listen));
    }
    if !fake_network {
        out.extend(uplink::checks(config));
    }
    out
}

fn lab(config: &Config) -> Check {
    let fakes: Vec<String> = [
        ("hypervisor", &config.agent.hypervisor),
        ("network", &config.agent.network),
    ]
    .iter()
    .filter(|(_, v)| v.as_str() == "fake")
    .map(|(k, _)| format!("fake {k}"))
    .collect();
    match (config.lab, fakes.is_empty()) {
        (false, _) => Check::ok("mode", "a real cloud: real drivers, fault points cannot be armed"),
        (true, true) => Check::warn(
            "mode",
            "lab = true: fault points can be armed",
            "take lab = true out of the configuration, unless this is a test",
        ),
        (true, false) => Check::warn(
            "mode",
            format!("lab = true with {}: guests are not real", fakes.join(" and ")),
            "for real guests take lab, agent.hypervisor and agent.network out of the configuration",
        ),
    }
}

fn account(config: &Config) -> Check {
    match User::from_name(ACCOUNT).ok().flatten() {
        Some(u) => Check::ok(
            "account",
            format!("the control plane runs as user {ACCOUNT} (uid {})", u.uid),
        ),
        None if config.lab => Check::ok(
            "account",
            format!("no user {ACCOUNT}: in a lab the control plane runs as you"),
        ),
        None => Check::fail(
            "account",
            format!("no user {ACCOUNT}"),
            "`haneul up` makes it; or useradd --system --user-group --no-create-home --shell /usr/sbin/nologin haneul",
        ),
    }
}

fn version_of(program: &str) -> String {
    let flag = if program == "ip" { "-V" } else { "--version" };
    let output = find_program(program).and_then(|p| Command::new(p).arg(flag).output().ok());
    let output = output.map(|o| [o.stdout, o.stderr].concat()).unwrap_or_default();
    String::from_utf8_lossy(&output)
        .lines()
        .next()
        .unwrap_or_default()
        .trim()
        .to_owned()
}

fn programs(fake: bool) -> Vec<Check> {
    let mut out = Vec::new();
    let get = "`haneul up` installs it";
    out.push(match qemu_version() {
        Some((major, v)) if major >= QEMU_MIN => Check::ok("qemu", format!("qemu-system-x86_64 {v}")),
        Some((_, v)) => Check::bad(
            !fake,
            "qemu",
            format!("qemu-system-x86_64 {v} is older than {QEMU_MIN}"),
            format!("{get} from bookworm-backports"),
        ),
        None => Check::bad(
            !fake,
            "qemu",
            "qemu-system-x86_64 is missing",
            format!("{get}; or apt-get install -t bookworm-backports qemu-system-x86 qemu-utils"),
        ),
    });
    let qemu_img = ("qemu-img", "qemu-utils");
    for (program, package) in std::iter::once(qemu_img).chain(PROGRAMS) {
        out.push(match find_program(program) {
            Some(_) if ["ssh-keygen", "mkfs.ext4"].contains(&program) => Check::ok(program, "there"),
            Some(_) => Check::ok(program, version_of(program)),
            None => Check::bad(
                !fake && program != "ssh-keygen",
                program,
                "missing",
                format!("{get}; or apt-get install {package}"),
            ),
        });
    }
    out
}

/// Disk and memory.
fn room(config: &Config) -> Vec<Check> {
    let mut out = Vec::new();
    let there = config
        .state_dir
        .0
        .ancestors()
        .find(|d| d.exists())
        .unwrap_or(Path::new("/"));
    match nix::sys::statvfs::statvfs(there) {
        Ok(s) => {
            let free = s.blocks_available() * s.fragment_size();
            let found = format!(
                "{} free below {}, {}",
                ui::size(free),
                config.state_dir.0.display(),
                kernel::file_system(there)
            );
            let free_gib = free >> 30;
            let needed = config.compute.reserved_disk_gib + 1;
            out.push(match free_gib {
                n if n < needed => Check::fail("disk", found, format!("{needed} GiB are the least (compute.reserved_disk_gib and one small guest): make room, or put state_dir elsewhere")),
                n if n < 10 => Check::warn("disk", found, "room for small guests only: make room, or put state_dir elsewhere"),
                _ => Check::ok("disk", found),
            });
        }
        Err(e) => out.push(Check::fail(
            "disk",
            format!("{}: {e}", there.display()),
            "look at state_dir in the configuration",
        )),
    }
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = |key: &str| {
        text.lines()
            .find_map(|l| l.strip_prefix(key)?.split_whitespace().next()?.parse::<u64>().ok())
            .unwrap_or(0)
    };
    let (total, free) = (kib("MemTotal:"), kib("MemAvailable:"));
    let found = format!("{} of {} available", ui::size(free << 10), ui::size(total << 10));
    let least_mib = config.compute.reserved_memory_mib + 128;
    out.push(if free >> 10 < least_mib {
        Check::warn(
            "memory",
            found,
            format!("{least_mib} MiB are the least for the host (compute.reserved_memory_mib) and one small guest"),
        )
    } else {
        Check::ok("memory", found)
    });
    out
}

/// Whether we can listen there, or do already.
fn port(config: &Config, name: &str, key: &str, address: SocketAddr) -> Check {
    if TcpListener::bind(address).is_ok() {
        return Check::ok(name, format!("{address} is free"));
    }
    let ours = PidFile::new(&config.run_dir(), "serve")
        .live()
        .or_else(|| systemd::main_process(config, "serve"));
    match ours {
        Some(i) => Check::ok(name, format!("{address} is held by our serve (pid {})", i.pid)),
        None => Check::fail(
            name,
            format!("another program listens on {address}"),
            format!(
                "find it with `ss -ltnp 'sport = :{}'`, or choose another {key} in the configuration",
                address.port()
            ),
        ),
    }
}
