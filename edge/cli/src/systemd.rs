//! systemd, where it runs: units take the supervisor's place, one for each of its parts. Only for the default state
//! directory, for the names of the units are the same for all; other clouds on the host run under `haneul run`.

use crate::args::{Globals, LogsOptions, Process};
use crate::proc::Ident;
use crate::state::{Deeds, replace};
use crate::{Result, Trouble, failed};
use haneul_core::config::{Config, StateDir};
use std::path::{Path, PathBuf};
use std::process::Command;

const UNITS: [(&str, &str); 3] = [
    (
        "haneul-lease.service",
        include_str!("../../../packaging/systemd/haneul-lease.service"),
    ),
    (
        "haneul-serve.service",
        include_str!("../../../packaging/systemd/haneul-serve.service"),
    ),
    (
        "haneul-agent.service",
        include_str!("../../../packaging/systemd/haneul-agent.service"),
    ),
];
/// Those of this machine: a host that has joined a cloud has no control plane, and one that shares no disks no lease.
fn units(config: &Config) -> impl DoubleEndedIterator<Item = (&'static str, &'static str)> {
    let (serve, lease) = (!config.is_member(), config.agent.shared_disks.is_some());
    UNITS.into_iter().filter(move |(name, _)| match *name {
        "haneul-serve.service" => serve,
        "haneul-lease.service" => lease,
        _ => true,
    })
}

const UNIT_DIR: &str = "/etc/systemd/system";
const INSTALLED_BINARY: &str = "/usr/local/bin/haneul";

/// Whether systemd is the init of this host and this cloud would be under it.
pub fn usable(config: &Config) -> bool {
    Path::new("/run/systemd/system").is_dir() && config.state_dir.0 == StateDir::default().0
}

/// Whether the units of this cloud are there.
pub fn manages(config: &Config) -> bool {
    usable(config) && unit_path("haneul-agent.service").exists()
}

fn unit_path(name: &str) -> PathBuf {
    Path::new(UNIT_DIR).join(name)
}

fn systemctl(args: &[&str]) -> Result<()> {
    let output = Command::new("systemctl").args(args).output().when("systemctl")?;
    if !output.status.success() {
        return Err(failed(format!(
            "systemctl {}: {}",
            args.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        )));
    }
    Ok(())
}

/// A unit with the real program and the options of this `up`.
fn fill_in(unit: &str, program: &Path, globals: &Globals) -> String {
    let options: String = globals.to_args().iter().map(|a| format!(" {}", quote(a))).collect();
    unit.lines()
        .map(|line| match line.split_once(INSTALLED_BINARY) {
            Some((key, verb)) if key.starts_with("ExecStart") => {
                format!("{key}{}{verb}{options}\n", program.display())
            }
            _ => format!("{line}\n"),
        })
        .collect()
}

/// A word of a command line, as systemd reads it.
fn quote(word: &str) -> String {
    format!(
        "\"{}\"",
        word.replace('\\', "\\\\")
            .replace('"', "\\\"")
            .replace('%', "%%")
            .replace('$', "$$")
    )
}

/// Installs and starts the units. A binary that sits in somebody's home or build directory is copied, for the
/// units must find it after a reboot and user haneul must be able to read it. True when something changed.
pub fn start(config: &Config, globals: &Globals) -> Result<bool> {
    let exe = std::env::current_exe().when("cannot find our own program")?;
    let program = if exe.starts_with("/usr") || exe.starts_with("/opt") {
        exe
    } else {
        let copy = config.state_dir.0.join("bin/haneul");
        let new = std::fs::read(&exe).at(&exe)?;
        if std::fs::read(&copy).ok().as_ref() != Some(&new) {
            if let Some(dir) = copy.parent() {
                std::fs::create_dir_all(dir).at(dir)?;
            }
            replace(&copy, &new, 0o755)?;
        }
        copy
    };
    let mut changed = false;
    for (name, unit) in units(config) {
        let path = unit_path(name);
        let text = fill_in(unit, &program, globals);
        if std::fs::read_to_string(&path).ok().as_deref() != Some(&text) {
            replace(&path, text.as_bytes(), 0o644)?;
            changed = true;
        }
        Deeds::note(config, |d| {
            d.units.insert(path);
        })?;
    }
    if changed {
        systemctl(&["daemon-reload"])?;
    }
    let stale = units(config).any(|(name, _)| main_pid(name).is_some_and(|pid| !runs_file(pid, &program)));
    for (name, _) in units(config) {
        systemctl(&["enable", "--quiet", name])?;
        systemctl(&[if changed || stale { "restart" } else { "start" }, name])?;
    }
    Ok(changed || stale)
}

/// Stops and disables them, so that a reboot does not undo a `down`.
pub fn stop(config: &Config) -> Result<()> {
    for (name, _) in units(config).rev() {
        systemctl(&["disable", "--quiet", "--now", name])?;
    }
    Ok(())
}

/// Removes the units that `up` installed.
pub fn remove(units: &std::collections::BTreeSet<PathBuf>) -> Result<()> {
    for unit in units {
        let _ = std::fs::remove_file(unit);
    }
    if units.is_empty() {
        Ok(())
    } else {
        systemctl(&["daemon-reload"])
    }
}

fn main_pid(unit: &str) -> Option<i32> {
    let output = Command::new("systemctl")
        .args(["show", "--value", "--property=MainPID", unit])
        .output()
        .ok()?;
    String::from_utf8_lossy(&output.stdout)
        .trim()
        .parse()
        .ok()
        .filter(|pid| *pid > 0)
}

/// The main process of a unit of ours.
pub fn main_process(config: &Config, name: &str) -> Option<Ident> {
    manages(config)
        .then(|| main_pid(&format!("haneul-{name}.service")))?
        .and_then(Ident::of)
}

/// Whether a process runs exactly this file, not an older one that had its name.
pub(crate) fn runs_file(pid: i32, file: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (std::fs::metadata(format!("/proc/{pid}/exe")), std::fs::metadata(file)) {
        (Ok(a), Ok(b)) => (a.dev(), a.ino()) == (b.dev(), b.ino()),
        _ => false,
    }
}

/// Logs, from the journal.
pub fn journal(wanted: &[Process], options: &LogsOptions) -> Result<()> {
    let mut command = Command::new("journalctl");
    command.args(["--no-pager", "--lines", &options.lines.to_string()]);
    if options.follow {
        command.arg("--follow");
    }
    for p in wanted {
        command.args(["--unit", &format!("haneul-{}.service", p.name())]);
    }
    let status = command.status().when("journalctl")?;
    if status.success() {
        Ok(())
    } else {
        Err(failed("journalctl failed"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_get_program_and_options() {
        let globals = Globals {
            set: vec!["api.region=50% \"off\"".into()],
            ..Globals::default()
        };
        let text = fill_in(UNITS[1].1, Path::new("/opt/h/haneul"), &globals);
        assert!(
            text.contains("ExecStart=/opt/h/haneul serve \"--set\" \"api.region=50%% \\\"off\\\"\"\n"),
            "{text}"
        );
        assert!(text.contains("ExecStartPre=+/opt/h/haneul prepare"), "{text}");
        assert!(!text.contains(INSTALLED_BINARY));
        assert!(text.ends_with("WantedBy=multi-user.target\n"));
    }
}
