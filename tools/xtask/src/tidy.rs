//! Checks of the house that no compiler makes (docs: engineering rules). Each says which rule is broken, where,
//! and why there is one.

use crate::lists;
use crate::shell::{Cmd, files, root, say};
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::collections::BTreeSet;

/// Base crates, which every service may use.
const BASE: [&str; 5] = ["core", "store", "auth", "http", "jobs"];

/// Who may depend on whom (without the prefix `haneul-`). A crate that is not here fails the check: whoever
/// adds one decides its place in the house.
fn allowed(krate: &str) -> Option<Vec<&'static str>> {
    let service = |more: &[&'static str]| [&BASE[..], &["agent-api"], more].concat();
    Some(match krate {
        "core" | "disk" => vec![],
        "store" => vec!["core"],
        "auth" => vec!["core", "store"],
        "http" => vec!["core", "auth"],
        "jobs" => vec!["core", "store"],
        "tls" => vec!["core"],
        "fleet" => vec!["core", "store", "jobs", "http", "tls", "agent-api"],
        "identity" | "placement" | "object" => service(&[]),
        "image" => service(&["disk", "object"]),
        "network" => service(&["fleet"]),
        "volume" => service(&["image", "object", "fleet"]),
        "compute" => service(&["placement", "image", "network", "volume", "fleet"]),
        "agent-api" => vec!["core"],
        "hypervisor" | "netdev" => vec!["core", "agent-api"],
        "blockdev" => vec!["core", "disk", "agent-api"],
        "lease" => vec![],
        "agent" => vec!["core", "tls", "agent-api", "hypervisor", "netdev", "blockdev", "lease"],
        "guest-image" => vec!["core"],
        "cli" => vec!["core", "disk", "http", "guest-image", "lease"],
        "console" => vec!["core", "http"],
        "testkit" => vec!["core", "disk", "http", "store", "agent-api"],
        "conformance" => vec!["core", "http", "testkit"],
        "bench" => vec!["core", "http", "testkit", "agent-api"],
        "xtask" => vec!["core"],
        _ => return None,
    })
}

/// The longest file, in lines.
const MAX_LINES: usize = 800;

/// The command.
pub fn tidy() -> Result<()> {
    let mut wrong = Vec::new();
    edges(&mut wrong)?;
    sources(&mut wrong)?;
    lists::compare(&mut wrong)?;
    if wrong.is_empty() {
        say("tidy: the house is in order");
        return Ok(());
    }
    for w in &wrong {
        say(format!("tidy: {w}"));
    }
    bail!("{} things are not in order", wrong.len());
}

/// Dependencies between our crates, from `cargo metadata`. Tests may use what they like.
fn edges(wrong: &mut Vec<String>) -> Result<()> {
    let text = Cmd::new("cargo")
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .read()?;
    let meta: Value = serde_json::from_str(&text)?;
    let list = |v: &Value, key: &str| v.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
    let text = |v: &Value, key: &str| v.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    for package in list(&meta, "packages") {
        let name = text(&package, "name");
        let short = name.strip_prefix("haneul-").unwrap_or(&name);
        let uses: BTreeSet<String> = list(&package, "dependencies")
            .iter()
            .filter(|d| text(d, "kind") != "dev" && d.get("path").is_some())
            .map(|d| text(d, "name").trim_start_matches("haneul-").to_owned())
            .collect();
        if name == "haneul" {
            for tool in uses.iter().filter(|u| ["testkit", "xtask"].contains(&u.as_str())) {
                wrong.push(format!(
                    "bin/haneul depends on {tool}: tools are not part of the product"
                ));
            }
            continue;
        }
        let Some(allowed) = allowed(short) else {
            wrong.push(format!(
                "{name} has no place in the house yet: add it to the table in tools/xtask/src/tidy.rs"
            ));
            continue;
        };
        for used in uses.iter().filter(|u| !allowed.contains(&u.as_str())) {
            wrong.push(format!(
                "{name} depends on haneul-{used}; it may use only: {}. The house stays drawable (engineering rules 1)",
                allowed.join(", ")
            ));
        }
    }
    Ok(())
}

fn sources(wrong: &mut Vec<String>) -> Result<()> {
    for file in files(".rs")? {
        let text = std::fs::read_to_string(root().join(&file)).with_context(|| file.display().to_string())?;
        let lines = text.lines().count();
        if lines > MAX_LINES {
            wrong.push(format!(
                "{}: {lines} lines; look for the seam (at most {MAX_LINES})",
                file.display()
            ));
        }
        let owner = file.starts_with("base/auth") || file.starts_with("base/store");
        for (n, line) in text.lines().enumerate().filter(|_| !owner) {
            let line = line.trim_start();
            if line.starts_with("impl") && line.contains(" Grant<") {
                wrong.push(format!(
                    "{}:{}: implements Grant; only base/auth and base/store make permissions, or an unchecked path would compile",
                    file.display(),
                    n + 1
                ));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrows_do_not_turn() {
        for (krate, not) in [
            ("image", "compute"),
            ("netdev", "store"),
            ("store", "http"),
            ("placement", "fleet"),
            ("cli", "compute"),
        ] {
            assert!(!allowed(krate).unwrap().contains(&not), "{krate} -> {not}");
        }
        assert!(allowed("newcomer").is_none());
    }
}
