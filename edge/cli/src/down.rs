//! `haneul down`: stops processes and guests; `--purge` removes every trace of the cloud from this host.
//!
//! Guests are stopped like those of a host that is shut down: they stay desired, and the next `up` starts them
//! again with their disks and addresses. Packages stay after a purge (others may use them by now); it names
//! those that `up` had brought.

use crate::args::DownOptions;
use crate::state::Deeds;
use crate::ui::{self, Step};
use crate::up::{clouds, launch};
use crate::{ACCOUNT, Host, Result, Trouble, failed, systemd};
use haneul_core::config::Config;
use nix::unistd::Uid;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// The command.
pub fn down(config: &Config, options: &DownOptions, host: &dyn Host) -> Result<()> {
    let fake = config.agent.hypervisor == "fake" && config.agent.network == "fake";
    if !fake && !Uid::effective().is_root() {
        return Err(failed(
            "the agent and the guests belong to root: run `sudo haneul down`",
        ));
    }
    if options.purge {
        check_is_ours(config)?;
        if !options.yes {
            let question = format!(
                "Remove the whole cloud in {}: servers, images, users, everything?",
                config.state_dir.0.display()
            );
            // Without a person there is nobody to be surprised: the word --purge was the answer.
            if ui::ask(&question) == Some(false) {
                return Err(failed("nothing was removed"));
            }
        }
    }
    stop_processes(config)?;
    if config.state_dir.0.exists() && !options.keep_guests {
        let step = Step::begin("guests");
        let gently = !options.now && !options.purge;
        if gently {
            step.doing("asking them to shut down");
        }
        let n = host.stop_guests(config, gently)?;
        step.done(if n == 0 {
            "none ran".into()
        } else {
            format!("stopped {n}")
        });
    }
    if options.purge {
        purge(config, host)?;
    }
    Ok(())
}

fn stop_processes(config: &Config) -> Result<()> {
    let step = Step::begin("stop");
    let mut said = Vec::new();
    if systemd::manages(config) {
        systemd::stop(config)?;
        said.push("systemd's units".to_owned());
    }
    let running = launch::running(config);
    // First run, which ends the others; then what an earlier, killed run left behind.
    for (name, ident) in running {
        let patience = Duration::from_secs(if name == "run" { 15 } else { 10 });
        step.doing(name);
        let gently = ident.terminate(patience);
        said.push(format!("{name}{}", if gently { "" } else { " (killed)" }));
    }
    step.done(if said.is_empty() {
        "nothing ran".into()
    } else {
        said.join(", ")
    });
    Ok(())
}

/// A purge removes a whole directory: it must be one that we made.
fn check_is_ours(config: &Config) -> Result<()> {
    let dir = &config.state_dir.0;
    let looks_right = !dir.exists()
        || ["control", "agent", "run"].iter().any(|d| dir.join(d).is_dir())
        || dir.join("up.json").is_file();
    if dir.components().count() < 3 || !looks_right {
        return Err(failed(format!(
            "{} does not look like the state directory of a cloud: not removing it",
            dir.display()
        )));
    }
    Ok(())
}

fn purge(config: &Config, host: &dyn Host) -> Result<()> {
    let deeds = Deeds::load(config)?;
    if config.state_dir.0.exists() {
        let step = Step::begin("networks");
        host.purge(config)?;
        step.done("namespaces, devices, rules and cgroups are gone");
    }
    let step = Step::begin("files");
    let mut gone = Vec::new();
    for file in &deeds.files {
        let removed = if file.extension().is_some_and(|e| e == "yaml") {
            clouds::remove(file, config)?
        } else {
            std::fs::remove_file(file).is_ok()
        };
        if removed {
            gone.push(file.display().to_string());
            // The directory goes too when nothing else is in it.
            if let Some(dir) = file
                .parent()
                .filter(|d| d.ends_with(".config/haneul") || d.ends_with(".config/openstack"))
            {
                let _ = std::fs::remove_dir(dir);
            }
        }
    }
    systemd::remove(&deeds.units)?;
    for source in &deeds.sources {
        if std::fs::remove_file(source).is_ok() {
            gone.push(source.display().to_string());
        }
    }
    remove_tree(&config.state_dir.0)?;
    gone.push(config.state_dir.0.display().to_string());
    step.done(format!("removed {}", gone.join(", ")));
    if deeds.account {
        let step = Step::begin("account");
        let output = Command::new("/usr/sbin/userdel")
            .arg(ACCOUNT)
            .output()
            .when("userdel")?;
        if output.status.success() {
            step.done(format!("removed user {ACCOUNT}"));
        } else {
            step.warn(format!(
                "user {ACCOUNT} stays: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            ));
        }
    }
    if !deeds.packages.is_empty() {
        let names: Vec<&str> = deeds.packages.iter().map(String::as_str).collect();
        ui::line("Packages that `haneul up` had installed stay. To remove them too:");
        ui::line(format_args!("  apt-get purge {}", names.join(" ")));
    }
    Ok(())
}

fn remove_tree(dir: &Path) -> Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e).at(dir),
        _ => Ok(()),
    }
}
