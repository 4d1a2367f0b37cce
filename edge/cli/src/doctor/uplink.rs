//! How guests get out: the host's default route, and other programs' rules that would drop their packets.

use super::Check;
use crate::proc::find_program;
use haneul_core::config::Config;
use serde_json::Value;
use std::process::Command;

fn run(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(find_program(program)?).args(args).output().ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The checks of the uplink.
pub fn checks(config: &Config) -> Vec<Check> {
    let mut out = Vec::new();
    match config.network.uplink.as_str() {
        "isolated" => out.push(Check::ok(
            "uplink",
            "isolated: guests reach this host, and nothing beyond",
        )),
        "nat" => {
            out.push(default_route());
            out.extend(foreign_drop());
        }
        other => {
            let interface = other.strip_prefix("bridge:").unwrap_or(other);
            out.push(if std::path::Path::new("/sys/class/net").join(interface).is_dir() {
                Check::ok("uplink", format!("bridge to {interface}"))
            } else {
                Check::fail(
                    "uplink",
                    format!("there is no interface {interface}"),
                    "correct network.uplink in the configuration; `ip -br link` lists the interfaces",
                )
            });
        }
    }
    out
}

fn default_route() -> Check {
    let routes = run("ip", &["-j", "route", "show", "default"]).and_then(|t| serde_json::from_str::<Value>(&t).ok());
    let route = routes.as_ref().and_then(|r| r.as_array()?.first());
    match route.and_then(|r| r.get("dev")?.as_str()) {
        Some(dev) => Check::ok("uplink", format!("nat through {dev}")),
        None => Check::warn(
            "uplink",
            "this host has no default route: guests will reach this host only",
            "set a default route, or network.uplink = \"isolated\" to say that it is meant so",
        ),
    }
}

/// Chains of others on the forward hook that drop what they do not know (Docker's, most often).
fn foreign_drop() -> Option<Check> {
    let Some(text) = run("nft", &["-j", "list", "chains"]) else {
        return Some(Check::warn(
            "forwarding",
            "other programs' rules cannot be read",
            "run as root, with nftables installed",
        ));
    };
    let Ok(rules) = serde_json::from_str::<Value>(&text) else {
        return None;
    };
    let drops = dropping_chains(&rules);
    if drops.is_empty() {
        return Some(Check::ok("forwarding", "no other program drops forwarded packets"));
    }
    let docker = run("iptables", &["-S", "DOCKER-USER"]).is_some();
    let named: Vec<String> = drops
        .iter()
        .map(|(family, table, chain)| format!("{family} {table} {chain}"))
        .collect();
    let found = format!(
        "policy drop for forwarded packets in: {}{}",
        named.join(", "),
        if docker { " (Docker's)" } else { "" }
    );
    let let_through: Vec<String> = our_interfaces()
        .iter()
        .flat_map(|interface| {
            ["i", "o"].map(|way| match (docker, drops.first()) {
                (false, Some((family, table, chain))) => {
                    format!("nft insert rule {family} {table} {chain} {way}ifname {interface} accept")
                }
                _ => format!("iptables -I DOCKER-USER -{way} {interface} -j ACCEPT"),
            })
        })
        .collect();
    let let_through = let_through.join(" && ");
    Some(Check::warn(
        "forwarding",
        found,
        format!("guests will not get out until you let them: {let_through}"),
    ))
}

/// The host's ends of the cloud's external networks: `h`, six hex digits of the host's id, `u` and a number.
fn our_interfaces() -> Vec<String> {
    let ours = |name: &String| {
        let tag = name.strip_prefix('h').and_then(|n| n.split_once('u'));
        tag.is_some_and(|(tag, n)| {
            tag.len() == 6 && tag.bytes().all(|b| b.is_ascii_hexdigit()) && n.parse::<u32>().is_ok()
        })
    };
    let names = std::fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
    let found: Vec<String> = names
        .filter_map(|e| e.file_name().into_string().ok())
        .filter(ours)
        .collect();
    // Before the first start nobody knows the name yet.
    if found.is_empty() {
        vec!["INTERFACE (see `haneul doctor` once the cloud runs)".into()]
    } else {
        found
    }
}

/// Family, table and chain of all base chains that drop on the forward hook and are not ours.
fn dropping_chains(rules: &Value) -> Vec<(String, String, String)> {
    let chains = rules
        .get("nftables")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|o| o.get("chain"));
    let text = |c: &Value, k: &str| c.get(k).and_then(Value::as_str).unwrap_or_default().to_owned();
    chains
        .filter(|c| text(c, "hook") == "forward" && text(c, "policy") == "drop")
        .filter(|c| {
            ["ip", "ip6", "inet"].contains(&text(c, "family").as_str()) && !text(c, "table").starts_with("haneul")
        })
        .map(|c| (text(c, "family"), text(c, "table"), text(c, "name")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn dockers_drop_is_seen_and_ours_is_not() {
        let chain = |table: &str, policy: &str| json!({"chain": {"family": "ip", "table": table, "name": "FORWARD", "hook": "forward", "policy": policy}});
        let rules = json!({"nftables": [{"metainfo": {}}, chain("filter", "drop"), chain("haneul-1", "drop"), chain("x", "accept")]});
        assert_eq!(
            dropping_chains(&rules),
            [("ip".to_owned(), "filter".to_owned(), "FORWARD".to_owned())]
        );
    }
}
