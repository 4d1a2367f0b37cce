//! Starting the processes and waiting for them.

use crate::args::Globals;
use crate::proc::{Ident, PidFile, monotonic};
use crate::supervisor::{log_dir, open_log};
use crate::ui::Step;
use crate::{Result, Trouble, admin, failed, logs, systemd};
use haneul_core::config::Config;
use serde_json::Value;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Starts what does not run. A newer build of this program replaces serve and agent; guests do not notice.
pub fn start(config: &Config, globals: &Globals) -> Result<()> {
    let step = Step::begin("start");
    if systemd::usable(config) {
        let changed = systemd::start(config, globals)?;
        step.done(if changed {
            "started by systemd"
        } else {
            "runs already, under systemd"
        });
        return Ok(());
    }
    let exe = std::env::current_exe().when("cannot find our own program")?;
    let file = PidFile::new(&config.run_dir(), "run");
    let mut what = "in the background";
    if let Some(old) = file.live() {
        if systemd::runs_file(old.pid, &exe) {
            step.done(format!("runs already (pid {})", old.pid));
            return Ok(());
        }
        step.doing("another build runs: replacing it");
        old.terminate(Duration::from_secs(15));
        what = "replaced by this build; guests went on";
    }
    let log = log_dir(config).join("run.log");
    let out = open_log(&log)?;
    let mut child = Command::new(&exe)
        .args(globals.to_args())
        .args(["run", "--detach"])
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(out.try_clone().at(&log)?)
        .stderr(out)
        .spawn()
        .at(&exe)?;
    // It has the lock and a pid file, or it has ended with an explanation.
    let end = monotonic() + Duration::from_secs(30);
    loop {
        let pid = i32::try_from(child.id()).ok();
        if file.live().is_some_and(|i| Some(i.pid) == pid) {
            step.done(format!("{what} (pid {})", child.id()));
            return Ok(());
        }
        if let Ok(Some(status)) = child.try_wait() {
            step.fail("failed");
            return Err(failed(format!(
                "`haneul run` ended at once ({status}):\n{}",
                logs::tail(&log, 10)
            )));
        }
        if monotonic() > end {
            step.fail("failed");
            return Err(failed(format!(
                "`haneul run` did not start within 30 s:\n{}",
                logs::tail(&log, 10)
            )));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Waits until the control plane answers and its host is up.
pub fn wait_ready(config: &Config) -> Result<()> {
    let step = Step::begin("ready");
    let end = monotonic() + Duration::from_secs(60);
    let mut why;
    loop {
        match admin::ready(config) {
            Ok(status) if status.get("ready") == Some(&Value::Bool(true)) => {
                let hosts = admin::list(&status, "hosts");
                if let Some(host) = hosts.iter().find(|h| h.get("up") == Some(&Value::Bool(true))) {
                    step.done(format!(
                        "{}, host {} is up",
                        config.public_url(),
                        admin::text(host, "name")
                    ));
                    return Ok(());
                }
                why = "no host has reported yet: the agent has not come up".to_owned();
            }
            Ok(_) => why = "the control plane is not ready yet".to_owned(),
            Err(e) => why = e.public().to_owned(),
        }
        step.doing(&why);
        let gone = !systemd::manages(config) && PidFile::new(&config.run_dir(), "run").live().is_none();
        if gone {
            why = "`haneul run` has ended".to_owned();
        }
        if gone || monotonic() > end {
            step.fail(&why);
            return Err(failed(format!(
                "the cloud did not get ready: {why}\n{}",
                last_words(config)
            )));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn last_words(config: &Config) -> String {
    if systemd::manages(config) {
        return "`haneul logs` shows what it wrote.".into();
    }
    ["run", "serve", "agent"]
        .iter()
        .map(|name| {
            let file = log_dir(config).join(format!("{name}.log"));
            format!("--- {}\n{}", file.display(), logs::tail(&file, 8))
        })
        .collect()
}

/// The admin's password, which serve made and wrote down at its first start.
pub fn admin_password(config: &Config) -> Result<String> {
    let path = config.control_dir().join("admin-password");
    let text = std::fs::read_to_string(&path)
        .map_err(|e| failed(format!("cannot read the admin's password: {}: {e}", path.display())))?;
    Ok(text.trim().to_owned())
}

/// The processes that run now, whoever started them.
pub fn running(config: &Config) -> Vec<(&'static str, Ident)> {
    ["run", "serve", "agent"]
        .into_iter()
        .filter_map(|n| Some((n, PidFile::new(&config.run_dir(), n).live()?)))
        .collect()
}
