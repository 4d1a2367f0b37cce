//! `cargo xtask up --hosts N`: a cloud of several hosts on one machine. Each but the first is a network namespace with a
//! state directory of its own, and joins as another machine would; nothing in the product knows. They share a directory
//! for disks, as machines would by NFS.

use crate::shell::{self, Cmd, say};
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};

/// Namespaces and state directories are called this with a number behind.
const NAME: &str = "haneul-host-";
const BRIDGE: &str = "haneul-hosts";
/// What all of them have for the disks of guests.
const DISKS: &str = "/var/lib/haneul-hosts-disks";
/// The network between the hosts; the first one is `.1`.
const NETWORK: &str = "10.213.0";
const PORT: u16 = 8776;
const MOST: u32 = 16;

/// Takes `--hosts N` (or `--hosts=N`) out of the options for the binary.
pub fn wanted(args: &mut Vec<String>) -> Result<u32> {
    let Some(at) = args.iter().position(|a| a == "--hosts" || a.starts_with("--hosts=")) else {
        return Ok(1);
    };
    let option = args.remove(at);
    let number = match option.split_once('=') {
        Some((_, n)) => n.to_owned(),
        None if at < args.len() => args.remove(at),
        None => bail!("--hosts: write a number behind it"),
    };
    match number.parse() {
        Ok(n @ 1..=MOST) => Ok(n),
        _ => bail!("--hosts {number}: write a number from 1 to {MOST}"),
    }
}

/// The cloud with its first host, and then the others.
pub fn up(binary: &Path, hosts: u32, args: &[String]) -> Result<()> {
    network()?;
    shell::as_root(Path::new("mkdir")).args(["-p", DISKS]).run()?;
    let listen = format!("fleet.listen={NETWORK}.1:{PORT}");
    let (underlay, disks) = (format!("agent.underlay={NETWORK}.1"), shared_disks());
    let first = ["--set", &listen, "--set", &underlay, "--set", &disks, "up"];
    shell::as_root(binary).args(first).args(args).run()?;
    for number in 2..=hosts {
        machine(number)?;
        let dir = state_dir(number);
        let host = inside(number, binary);
        if dir.join("agent/membership.json").exists() {
            host.arg("up").run()?;
            continue;
        }
        let token = shell::as_root(binary)
            .args(["--set", &listen, "host", "token", "--json"])
            .read()?;
        let token: serde_json::Value = serde_json::from_str(&token)?;
        let word = |key: &str| token[key].as_str().context("no token").map(str::to_owned);
        host.args(["join", "--yes", &word("url")?, &word("token")?]).run()?;
    }
    shell::as_root(binary).args(["host", "list"]).run()?;
    shell::as_root(binary).args(["ha", "check"]).run()
}

/// Removes what `up --hosts` made, when there is anything.
pub fn purge(binary: &Path) -> Result<()> {
    for number in 2..=MOST {
        let name = format!("{NAME}{number}");
        if !Path::new("/run/netns").join(&name).exists() {
            continue;
        }
        inside(number, binary).args(["down", "--purge", "--yes"]).run()?;
        ip(&["netns", "delete", &name])?;
    }
    if Path::new("/sys/class/net").join(BRIDGE).exists() {
        ip(&["link", "delete", BRIDGE])?;
    }
    shell::as_root(Path::new("rm")).args(["-rf", DISKS]).run()
}

fn shared_disks() -> String {
    format!("agent.shared_disks={DISKS}")
}

fn state_dir(number: u32) -> PathBuf {
    format!("/var/lib/{NAME}{number}").into()
}

/// The binary as a host's own. Not `ip netns exec`, which mounts another /sys, without cgroups.
fn inside(number: u32, binary: &Path) -> Cmd {
    shell::as_root(Path::new("nsenter"))
        .arg(format!("--net=/run/netns/{NAME}{number}"))
        .arg(binary)
        .arg("--state-dir")
        .arg(state_dir(number))
        .args(["--set", &format!("agent.name={NAME}{number}")])
        .args(["--set", &shared_disks()])
        // One kernel sees the guests of all of them.
        .args([
            "--set",
            &format!("agent.first_uid={}", 700_000_000 + 10_000_000 * number),
        ])
}

fn ip(args: &[&str]) -> Result<()> {
    shell::as_root(Path::new("ip")).args(args).run()
}

/// The wire between the hosts.
fn network() -> Result<()> {
    if Path::new("/sys/class/net").join(BRIDGE).exists() {
        return Ok(());
    }
    say(format!("a bridge for the hosts: {BRIDGE}, {NETWORK}.1/24"));
    ip(&["link", "add", BRIDGE, "type", "bridge"])?;
    ip(&["address", "add", &format!("{NETWORK}.1/24"), "dev", BRIDGE])?;
    ip(&["link", "set", BRIDGE, "up"])
}

/// A machine on it.
fn machine(number: u32) -> Result<()> {
    let name = format!("{NAME}{number}");
    if Path::new("/run/netns").join(&name).exists() {
        return Ok(());
    }
    say(format!("a machine of its own: namespace {name}, {NETWORK}.{number}"));
    let port = format!("haneul-h{number}");
    ip(&["netns", "add", &name])?;
    ip(&[
        "link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", &name,
    ])?;
    ip(&["link", "set", &port, "master", BRIDGE, "up"])?;
    let address = format!("{NETWORK}.{number}/24");
    let gateway = format!("{NETWORK}.1");
    for args in [
        &["link", "set", "lo", "up"][..],
        &["address", "add", &address, "dev", "eth0"],
        &["link", "set", "eth0", "up"],
        &["route", "add", "default", "via", &gateway],
    ] {
        ip(&[&["-netns", &name], args].concat())?;
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_option_is_taken_out() {
        let mut args: Vec<String> = ["--yes", "--hosts", "3", "--no-server"].map(str::to_owned).into();
        assert_eq!(wanted(&mut args).unwrap(), 3);
        assert_eq!(args, ["--yes", "--no-server"]);
        assert_eq!(wanted(&mut args).unwrap(), 1);
        for wrong in [
            vec!["--hosts"],
            vec!["--hosts", "many"],
            vec!["--hosts=0"],
            vec!["--hosts=17"],
        ] {
            assert!(wanted(&mut wrong.into_iter().map(str::to_owned).collect()).is_err());
        }
    }
}
