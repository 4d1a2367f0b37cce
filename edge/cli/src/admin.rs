//! Operator commands that ask `serve` over its admin socket.

use crate::args::{ChangesOptions, JobsCommand, JobsOptions, Process};
use crate::client::{Client, escape};
use crate::proc::PidFile;
use crate::{Result, failed, systemd, ui};
use haneul_core::Kind;
use haneul_core::config::Config;
use serde_json::{Value, json};
use std::process::ExitCode;

pub(crate) fn ask(config: &Config) -> Result<Client> {
    let socket = config.admin_socket();
    if !socket.exists() {
        return Err(not_running(config));
    }
    Client::admin(config)
}

fn not_running(config: &Config) -> haneul_core::Error {
    failed(format!(
        "no cloud runs here ({}). `haneul up` starts it; `haneul logs` says why it ended",
        config.state_dir.0.display()
    ))
}

pub(crate) fn get(config: &Config, path: &str) -> Result<Value> {
    ask(config)?.get(path).map_err(|e| match e.kind() {
        Kind::Unavailable => not_running(config).with_private(e),
        _ => e,
    })
}

/// What `serve` says of itself and of the hosts; an error when it does not answer.
pub fn ready(config: &Config) -> Result<Value> {
    let mut client = ask(config)?;
    client.limit = std::time::Duration::from_secs(5);
    client.get("/admin/v1/status")
}

pub(crate) fn text<'a>(v: &'a Value, key: &str) -> &'a str {
    v.get(key).and_then(Value::as_str).unwrap_or("-")
}

pub(crate) fn list<'a>(v: &'a Value, key: &str) -> &'a [Value] {
    v.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn cell(v: Option<&Value>) -> String {
    match v {
        None | Some(Value::Null) => "-".into(),
        Some(Value::String(s)) => s.clone(),
        Some(other) => other.to_string(),
    }
}

pub(crate) fn rows(items: &[Value], keys: &[&str]) -> Vec<Vec<String>> {
    items
        .iter()
        .map(|i| keys.iter().map(|k| cell(i.get(*k))).collect())
        .collect()
}

/// `haneul status`: exit code 0 when the cloud is ready, 1 otherwise.
pub fn status(config: &Config, as_json: bool) -> Result<ExitCode> {
    let member = config.is_member();
    let processes: Vec<Value> = Process::ALL
        .iter()
        .filter(|p| !(member && **p == Process::Serve))
        .map(|p| {
            let ident = PidFile::new(&config.run_dir(), p.name())
                .live()
                .or_else(|| systemd::main_process(config, p.name()));
            json!({
                "name": p.name(),
                "pid": ident.as_ref().map(|i| i.pid),
                "resident_bytes": ident.as_ref().and_then(crate::proc::Ident::resident),
            })
        })
        .collect();
    if member {
        return host_status(config, &processes, as_json);
    }
    let cloud = ready(config);
    let is_ready = cloud.as_ref().is_ok_and(|c| c.get("ready") == Some(&Value::Bool(true)));
    let code = if is_ready { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    if as_json {
        ui::json(&json!({
            "ready": is_ready,
            "state_dir": config.state_dir.0,
            "api": config.public_url(),
            "processes": processes,
            "cloud": cloud.as_ref().ok(),
            "error": cloud.as_ref().err().map(|e| e.public()),
        }));
        return Ok(code);
    }
    show_processes(config, &processes);
    match cloud {
        Ok(cloud) => {
            ui::line(format_args!("api      {}", config.public_url()));
            ui::line(format_args!(
                "release  {}   cloud {}",
                text(&cloud, "release"),
                text(&cloud, "cloud_id")
            ));
            // One alone is the one above.
            for p in list(&cloud, "processes") {
                ui::line(format_args!(
                    "control  process {} of release {} since {}{}, {}",
                    cell(p.get("number")),
                    text(p, "release"),
                    text(p, "started_at"),
                    if p.get("answers") == Some(&Value::Bool(true)) {
                        " (this one)"
                    } else {
                        ""
                    },
                    text(p, "url")
                ));
            }
            for h in list(&cloud, "hosts") {
                let up = if h.get("up") == Some(&Value::Bool(true)) {
                    "up"
                } else {
                    "down"
                };
                ui::line(format_args!(
                    "host     {} {up}, {} ({})",
                    text(h, "name"),
                    cell(h.get("hypervisor")),
                    text(h, "id")
                ));
            }
            ui::line(if is_ready {
                "ready"
            } else {
                "not ready yet: no host is up. `haneul host list` shows them, `haneul logs agent` what this machine's agent says"
            });
        }
        Err(e) => ui::line(format_args!("{}", e.public())),
    }
    Ok(code)
}

/// The same on a machine that is a host of another one's cloud: exit code 0 when it is connected.
fn host_status(config: &Config, processes: &[Value], as_json: bool) -> Result<ExitCode> {
    let link = crate::hosts::link(config);
    let connected = link.starts_with("connected");
    if as_json {
        ui::json(&json!({
            "ready": connected,
            "state_dir": config.state_dir.0,
            "processes": processes,
            "link": link,
        }));
    } else {
        show_processes(config, processes);
        ui::line(format_args!("link     {link}"));
    }
    Ok(if connected {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn show_processes(config: &Config, processes: &[Value]) {
    ui::line(format_args!("state    {}", config.state_dir.0.display()));
    for p in processes {
        let what = match (
            p.get("pid").and_then(Value::as_i64),
            p.get("resident_bytes").and_then(Value::as_u64),
        ) {
            (Some(pid), memory) => format!("pid {pid}, {}", ui::size(memory.unwrap_or(0))),
            (None, _) => "does not run".into(),
        };
        ui::line(format_args!("{:8} {what}", text(p, "name")));
    }
}

/// `haneul audit`: exit code 1 when something disagrees.
pub fn audit(config: &Config, as_json: bool) -> Result<ExitCode> {
    let answer = get(config, "/admin/v1/audit")?;
    let findings = list(&answer, "findings");
    if as_json {
        ui::json(&answer);
    } else if findings.is_empty() {
        ui::line("Nothing disagrees.");
    } else {
        for f in findings {
            ui::line(format_args!("- {}\n  repair: {}", text(f, "what"), text(f, "repair")));
        }
    }
    Ok(if findings.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// `haneul jobs ...`
pub fn jobs(config: &Config, options: &JobsOptions) -> Result<()> {
    match options.command.as_ref().unwrap_or(&JobsCommand::List { all: false }) {
        JobsCommand::List { all } => {
            let answer = get(config, "/admin/v1/jobs")?;
            // What is done or was cancelled needs nobody's attention.
            let open = |j: &&Value| *all || !["done", "cancelled"].contains(&text(j, "status"));
            let items: Vec<Value> = list(&answer, "jobs").iter().filter(open).cloned().collect();
            if options.json {
                ui::json(&json!({ "jobs": items }));
            } else if items.is_empty() {
                ui::line(if *all {
                    "No jobs."
                } else {
                    "Nothing is under way, and nothing has failed."
                });
            } else {
                let subject = |j: &Value| {
                    let s = j.get("subject").cloned().unwrap_or_default();
                    format!("{} {}", text(&s, "kind"), text(&s, "id"))
                };
                let keys = ["id", "kind", "status", "step", "progress", "deadline", "error"];
                let mut table = rows(&items, &keys);
                for (row, job) in table.iter_mut().zip(&items) {
                    row.insert(2, subject(job));
                }
                ui::table(
                    &[
                        "ID", "KIND", "SUBJECT", "STATUS", "STEP", "PROGRESS", "DEADLINE", "ERROR",
                    ],
                    &table,
                );
            }
        }
        JobsCommand::Explain { id } => {
            let job = get(config, &format!("/admin/v1/jobs/{}", escape(id)))?;
            if options.json {
                ui::json(&job);
                return Ok(());
            }
            let body = job.get("job").unwrap_or(&job);
            for (key, value) in body.as_object().into_iter().flatten() {
                match value {
                    Value::Array(items) => {
                        ui::line(format_args!("{key}:"));
                        items
                            .iter()
                            .for_each(|i| ui::line(format_args!("  - {}", cell(Some(i)))));
                    }
                    other => ui::line(format_args!("{key}: {}", cell(Some(other)))),
                }
            }
        }
        JobsCommand::Retry { id } => {
            ask(config)?.post(&format!("/admin/v1/jobs/{}/retry", escape(id)), &Value::Null)?;
            ui::line(format_args!(
                "Job {id} runs again. `haneul jobs explain {id}` shows how it goes."
            ));
        }
        JobsCommand::Cancel { id } => {
            ask(config)?.post(&format!("/admin/v1/jobs/{}/cancel", escape(id)), &Value::Null)?;
            ui::line(format_args!(
                "Job {id} undoes what it did. `haneul jobs explain {id}` shows how it goes."
            ));
        }
    }
    Ok(())
}

/// `haneul changes`
pub fn changes(config: &Config, options: &ChangesOptions) -> Result<()> {
    let since = options.since.map(|s| s.to_string());
    let format = options.cadf.then(|| "cadf".to_owned());
    let mut path = format!("/admin/v1/changes?limit={}", options.limit);
    for (name, value) in [
        ("since", &since),
        ("actor", &options.actor),
        ("project_id", &options.project),
        ("kind", &options.kind),
        ("id", &options.id),
        ("request_id", &options.request),
        ("format", &format),
    ] {
        if let Some(value) = value {
            path.push_str(&format!("&{name}={}", escape(value)));
        }
    }
    let answer = get(config, &path)?;
    if options.json || options.cadf {
        ui::json(&answer);
        return Ok(());
    }
    let mut items = list(&answer, "changes").to_vec();
    for item in &mut items {
        // A name says more than an id, where there still is one.
        if let Some(map) = item.as_object_mut()
            && let Some(name) = map.get("actor_name").filter(|n| n.is_string()).cloned()
        {
            map.insert("actor".into(), name);
        }
    }
    let keys = ["sequence", "time", "kind", "id", "operation", "actor", "request_id"];
    ui::table(
        &["SEQ", "TIME", "KIND", "ID", "OPERATION", "ACTOR", "REQUEST"],
        &rows(&items, &keys),
    );
    Ok(())
}

/// `haneul routes`: one line per route, sorted, for `docs/routes.txt`.
pub fn routes(config: &Config) -> Result<()> {
    let answer = get(config, "/admin/v1/routes")?;
    let mut lines: Vec<String> = list(&answer, "routes")
        .iter()
        .map(|r| {
            let versions = match (
                r.get("since").and_then(Value::as_str),
                r.get("until").and_then(Value::as_str),
            ) {
                (None, None) => "-".to_owned(),
                (since, until) => format!("{}..{}", since.unwrap_or_default(), until.unwrap_or_default()),
            };
            format!(
                "{} {} {} {} {versions} {}:{}",
                text(r, "path"),
                text(r, "method"),
                text(r, "handler"),
                text(r, "rule"),
                text(r, "file"),
                cell(r.get("line")),
            )
        })
        .collect();
    lines.sort();
    lines.iter().for_each(ui::line);
    Ok(())
}
