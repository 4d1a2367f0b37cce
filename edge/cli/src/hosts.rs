//! `haneul host ...` on the control plane, and `haneul join` on the machine that becomes a host.

use crate::admin::{ask, get, list, rows, text};
use crate::args::{Globals, HaCommand, HaOptions, HostCommand, HostOptions, JoinOptions, UpOptions};
use crate::client::escape;
use crate::proc::{PidFile, monotonic};
use crate::ui::{self, Step};
use crate::up::{self, launch, packages};
use crate::{Host, Result, failed, logs, supervisor, systemd};
use haneul_core::config::Config;
use nix::unistd::Uid;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// `haneul host token|list|show|drain|fence|enable|remove`
pub fn host(config: &Config, options: &HostOptions) -> Result<()> {
    match &options.command {
        HostCommand::Token { minutes, host } => token(config, *minutes, host.as_deref(), options.json),
        HostCommand::List => {
            let answer = get(config, "/admin/v1/hosts")?;
            if options.json {
                ui::json(&answer);
                return Ok(());
            }
            let rows: Vec<Vec<String>> = list(&answer, "hosts").iter().map(row).collect();
            let head = [
                "NAME",
                "STATE",
                "STATUS",
                "SERVERS",
                "VCPU",
                "MEMORY MIB",
                "DISK GIB",
                "RELEASE",
                "ID",
            ];
            ui::table(&head, &rows);
            Ok(())
        }
        HostCommand::Show { host } => one(options, get(config, &path(host))?),
        HostCommand::Drain { host } => drain(config, host, options.json),
        HostCommand::Fence { host } => one(
            options,
            ask(config)?.post(&format!("{}/fence", path(host)), &Value::Null)?,
        ),
        HostCommand::Enable { host } => {
            let answer = ask(config)?.post(&format!("{}/enable", path(host)), &Value::Null)?;
            let accepted = list(&answer, "accepted").to_vec();
            one(options, answer)?;
            for more in accepted.iter().filter(|_| !options.json) {
                ui::line(format_args!("{:12} {}", "accepted", more.as_str().unwrap_or_default()));
            }
            Ok(())
        }
        HostCommand::Remove { host } => {
            ask(config)?.delete(&path(host))?;
            ui::line(format_args!(
                "Host {host} is no longer in this cloud. `haneul down --purge` on that machine removes what is left there."
            ));
            Ok(())
        }
    }
}

/// `haneul ha check`
pub fn ha(config: &Config, options: &HaOptions) -> Result<()> {
    let HaCommand::Check { json } = options.command;
    let answer = get(config, "/admin/v1/ha")?;
    let hosts = list(&answer, "hosts");
    let stay = |h: &Value| list(h, "stranded").len();
    let control = |h: &Value| h.get("control") == Some(&Value::Bool(true));
    let routers = |h: &Value| match h.get("routers_move") {
        Some(Value::Bool(false)) => number(h, "routers"),
        _ => 0,
    };
    if json {
        ui::json(&answer);
    } else {
        let rows: Vec<Vec<String>> = hosts
            .iter()
            .map(|h| {
                let (back, stay) = (list(h, "back").len(), stay(h));
                let lost = stay > 0 || control(h) || routers(h) > 0;
                let can = if lost { "no" } else { "yes" };
                vec![
                    text(h, "host").to_owned(),
                    can.into(),
                    back.to_string(),
                    stay.to_string(),
                ]
            })
            .collect();
        ui::table(&["HOST", "CAN BE LOST", "START ELSEWHERE", "DO NOT"], &rows);
        for h in hosts {
            for s in list(h, "stranded") {
                ui::line(format_args!(
                    "{} ({}) would not come back after the loss of {}: {}",
                    text(s, "name"),
                    text(s, "id"),
                    text(h, "host"),
                    text(s, "why")
                ));
            }
        }
        for h in hosts.iter().filter(|h| routers(h) > 0) {
            ui::line(format_args!(
                "{} routers are on {}, and would be nowhere after its loss: {}.",
                routers(h),
                text(h, "host"),
                if control(h) {
                    "nothing moves without the control plane"
                } else {
                    "no other host is up"
                }
            ));
        }
        for h in hosts.iter().filter(|h| control(h)) {
            ui::line(format_args!(
                "The only control plane is on {0}: without it servers run on, nothing answers, and nothing starts elsewhere. A second `haneul serve` on another machine, with one PostgreSQL, makes up for it.",
                text(h, "host")
            ));
        }
        if answer.get("evacuate") == Some(&Value::Bool(false)) {
            ui::line("Nothing starts elsewhere by itself: ha.evacuate = false.");
        }
    }
    match hosts.iter().map(stay).sum::<usize>() {
        0 => Ok(()),
        n => Err(crate::failed(format!(
            "{n} servers would not come back after the loss of their host"
        ))),
    }
}

/// Asks until nothing moves any more; a move that fails is tried once more. Whoever ends this on the way leaves moves
/// that come to their end by themselves.
fn drain(config: &Config, host: &str, as_json: bool) -> Result<()> {
    let client = ask(config)?;
    let mut begun: BTreeMap<String, u32> = BTreeMap::new();
    let mut failed: BTreeSet<String> = BTreeSet::new();
    loop {
        let answer = client.post(&format!("{}/drain", path(host)), &json!({"failed": failed}))?;
        let moving = list(&answer, "moving");
        for s in moving.iter().filter(|s| s.get("begun") == Some(&Value::Bool(true))) {
            let times = begun.entry(text(s, "id").to_owned()).or_default();
            *times += 1;
            if *times > 1 {
                failed.insert(text(s, "id").to_owned());
            }
            ui::note(format_args!("{} ({}) moves", text(s, "name"), text(s, "id")));
        }
        if moving.is_empty() {
            let stays = |id: &String| list(&answer, "stuck").iter().any(|s| text(s, "id") == id);
            let moved: Vec<String> = begun.into_keys().filter(|id| !stays(id)).collect();
            return drained(host, &moved, &answer, as_json);
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn drained(host: &str, moved: &[String], answer: &Value, as_json: bool) -> Result<()> {
    let stuck = list(answer, "stuck");
    if as_json {
        ui::json(&json!({"host": host, "moved": moved, "stuck": stuck}));
    } else {
        for s in stuck {
            ui::line(format_args!(
                "{} ({}) stays: {}",
                text(s, "name"),
                text(s, "id"),
                text(s, "why")
            ));
        }
    }
    match stuck.len() {
        0 => {
            if !as_json {
                ui::line(format_args!(
                    "Host {host} is empty: {} servers have moved. `haneul host enable {host}` lets servers come again.",
                    moved.len()
                ));
            }
            Ok(())
        }
        n => Err(crate::failed(format!(
            "{n} servers stay on host {host}; {} have moved. Nothing new comes there until `haneul host enable {host}`",
            moved.len()
        ))),
    }
}

fn path(host: &str) -> String {
    format!("/admin/v1/hosts/{}", escape(host))
}

fn one(options: &HostOptions, answer: Value) -> Result<()> {
    if options.json {
        ui::json(&answer);
        return Ok(());
    }
    let host = answer.get("host").cloned().unwrap_or_default();
    for (name, key) in [
        ("name", "name"),
        ("id", "id"),
        ("state", "state"),
        ("status", "status"),
        ("reason", "disabled_reason"),
        ("release", "release"),
        ("hypervisor", "hypervisor"),
        ("version", "hypervisor_version"),
        ("accelerator", "accelerator"),
        ("cpu", "cpu_model"),
        ("shared disks", "shared_disks"),
    ] {
        ui::line(format_args!("{name:12} {}", text(&host, key)));
    }
    if let Some(address) = host.pointer("/underlay/address").and_then(Value::as_str) {
        let mtu = host.pointer("/underlay/mtu").unwrap_or(&Value::Null);
        ui::line(format_args!("{:12} {address}, MTU {mtu}", "underlay"));
    }
    if let Some(means) = host.pointer("/watched/means").and_then(Value::as_str) {
        ui::line(format_args!("{:12} {means}", "lost"));
    }
    for more in list(&host, "more") {
        ui::line(format_args!(
            "{:12} {}: `haneul host enable {}` accepts it",
            "says now",
            more.as_str().unwrap_or_default(),
            text(&host, "name")
        ));
    }
    ui::line(format_args!(
        "{:12} {}",
        "servers",
        host.get("servers").unwrap_or(&Value::Null)
    ));
    for (class, n) in host.get("resources").and_then(Value::as_object).into_iter().flatten() {
        ui::line(format_args!(
            "{class:12} {} used of {}",
            number(n, "used"),
            number(n, "total")
        ));
    }
    Ok(())
}

fn number(v: &Value, key: &str) -> i64 {
    v.get(key).and_then(Value::as_i64).unwrap_or(0)
}

fn row(host: &Value) -> Vec<String> {
    let keys = ["name", "state", "status", "servers"];
    let mut cells = rows(std::slice::from_ref(host), &keys).pop().unwrap_or_default();
    for class in ["VCPU", "MEMORY_MB", "DISK_GB"] {
        let n = host.pointer(&format!("/resources/{class}")).unwrap_or(&Value::Null);
        cells.push(format!("{}/{}", number(n, "used"), number(n, "total")));
    }
    cells.extend([text(host, "release").to_owned(), text(host, "id").to_owned()]);
    cells
}

fn token(config: &Config, minutes: u32, host: Option<&str>, as_json: bool) -> Result<()> {
    let answer = ask(config)?.post("/admin/v1/host-tokens", &json!({"minutes": minutes, "host": host}))?;
    if as_json {
        ui::json(&answer);
        return Ok(());
    }
    ui::line(format_args!("On the new machine, within {minutes} minutes:"));
    ui::line(format_args!(
        "  haneul join {} {}",
        text(&answer, "url"),
        text(&answer, "token")
    ));
    Ok(())
}

/// `haneul join URL TOKEN`
pub fn join(config: &Config, globals: &Globals, options: &JoinOptions, host: &dyn Host) -> Result<()> {
    let fake = config.agent.hypervisor == "fake" && config.agent.network == "fake";
    if !fake && !Uid::effective().is_root() {
        return Err(failed(
            "`haneul join` installs packages and starts guests and networks: run it as root",
        ));
    }
    let token = match options.token.as_str() {
        "-" => std::io::read_to_string(std::io::stdin()).map_err(|e| failed(format!("the standard input: {e}")))?,
        word => word.to_owned(),
    };
    let step = Step::begin("join");
    match host.join(config, &options.url, token.trim()) {
        Ok(cloud) => step.done(format!("this machine is a host of cloud {cloud}")),
        Err(e) => {
            step.fail("refused");
            return Err(e);
        }
    }
    if !fake {
        let packages = UpOptions {
            yes: options.yes,
            ..UpOptions::default()
        };
        packages::install(config, &packages)?;
        up::accelerator(config, host);
    }
    if options.no_start {
        return Ok(());
    }
    start(config, globals)
}

/// Starts the agent of a machine that has joined, and waits until it is connected.
pub(crate) fn start(config: &Config, globals: &Globals) -> Result<()> {
    supervisor::prepare(config)?;
    launch::start(config, globals)?;
    connected(config)?;
    ui::line("`haneul host list` on the control plane shows it; `haneul status` and `haneul logs` say how it is.");
    Ok(())
}

/// Waits until the agent and control speak.
fn connected(config: &Config) -> Result<()> {
    let step = Step::begin("link");
    let end = monotonic() + Duration::from_secs(60);
    loop {
        let said = link(config);
        if said.starts_with("connected") {
            step.done(said);
            return Ok(());
        }
        step.doing(&said);
        let gone = !systemd::manages(config) && PidFile::new(&config.run_dir(), "run").live().is_none();
        if gone || monotonic() > end {
            step.fail(&said);
            let log = supervisor::log_dir(config).join("agent.log");
            return Err(failed(format!(
                "this host is not connected to its control plane: {said}\n{}",
                logs::tail(&log, 8)
            )));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// What the agent last wrote about its link.
pub(crate) fn link(config: &Config) -> String {
    std::fs::read_to_string(config.link_file()).map_or_else(
        |_| "the agent has not spoken to control yet".into(),
        |said| said.trim().to_owned(),
    )
}
