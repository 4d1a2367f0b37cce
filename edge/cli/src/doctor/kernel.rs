//! What the kernel can do, found out by trying. A child of ours makes a network namespace, makes one device of
//! each kind in it and loads one rule of each kind; all of it is gone when the child ends.

use super::Check;
use crate::proc::find_program;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// Name, the command tried in the namespace, what it is needed for, whether there is no cloud without it.
const DEVICES: [(&str, &[&str], &str, bool); 5] = [
    (
        "veth",
        &["link", "add", "hp0", "type", "veth", "peer", "name", "hp1"],
        "routers",
        true,
    ),
    (
        "bridge",
        &[
            "link",
            "add",
            "hb0",
            "type",
            "bridge",
            "forward_delay",
            "0",
            "mcast_snooping",
            "0",
        ],
        "networks",
        true,
    ),
    (
        "tap",
        &["tuntap", "add", "ht0", "mode", "tap"],
        "guests' network cards",
        true,
    ),
    (
        "vxlan",
        &[
            "link",
            "add",
            "hv0",
            "type",
            "vxlan",
            "id",
            "100",
            "dstport",
            "4789",
            "nolearning",
        ],
        "networks over many hosts",
        false,
    ),
    (
        "ifb",
        &["link", "add", "hi0", "type", "ifb"],
        "limits on guests' incoming traffic",
        false,
    ),
];

/// Rules of the forms that the kernel-native network driver uses.
const RULES: &str = "table inet haneul-probe {
  chain zone { type filter hook prerouting priority -310; ct zone set 1; }
  chain forward { type filter hook forward priority 0; policy drop; ct state established,related accept; meta mark 1 tcp dport 22 accept; }
  chain nat { type nat hook postrouting priority 100; masquerade; }
}
table bridge haneul-probe {
  chain forward { type filter hook forward priority 0; meta mark set 1; ether type arp accept; }
}
";

/// Release and age of the kernel.
pub fn version() -> Check {
    let text = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let release = text.trim();
    let mut numbers = release.split(['.', '-']).map_while(|n| n.parse::<u32>().ok());
    let (major, minor) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if (major, minor) >= (5, 10) {
        Check::ok("kernel", format!("Linux {release}"))
    } else {
        Check::warn(
            "kernel",
            format!("Linux {release}"),
            "tried with 5.10 and newer only: Debian 12 has 6.1",
        )
    }
}

/// Runs `ip` or `nft` in a namespace that goes away with it. `unshare` is of util-linux, which every Debian has.
fn in_namespace(script: &str, input: &str) -> Result<(), String> {
    let unshare = find_program("unshare").ok_or("the program unshare (package util-linux) is missing")?;
    let mut child = Command::new(unshare)
        .args(["--net", "sh", "-c", script])
        .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| e.to_string())?;
    if let Some(mut stdin) = child.stdin.take() {
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().map_err(|e| e.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    Err(text
        .lines()
        .next()
        .unwrap_or("it failed without a word")
        .trim()
        .to_owned())
}

/// Devices and rules, each tried by itself.
pub fn network(root: bool) -> Vec<Check> {
    let mut out = vec![tun()];
    if !root {
        out.push(Check::warn(
            "network",
            "features of the kernel are tried out only as root",
            "sudo haneul doctor",
        ));
        return out;
    }
    if let Err(e) = in_namespace("true", "") {
        out.push(Check::fail(
            "namespaces",
            e,
            "the kernel needs network namespaces (CONFIG_NET_NS), and this process the right to make them",
        ));
        return out;
    }
    out.push(Check::ok("namespaces", "network namespaces can be made"));
    for (name, args, purpose, essential) in DEVICES {
        let result = in_namespace(&format!("exec ip {}", args.join(" ")), "");
        out.push(match result {
            Ok(()) => Check::ok(name, "works"),
            Err(e) => Check::bad(
                essential,
                name,
                format!("{e} (needed for {purpose})"),
                format!(
                    "modprobe {}; a kernel without it cannot do this",
                    if name == "tap" { "tun" } else { name }
                ),
            ),
        });
    }
    out.push(match in_namespace("exec nft -f -", RULES) {
        Ok(()) => Check::ok("nftables", "filter, NAT, conntrack zones and the bridge family work"),
        Err(e) => Check::fail("nftables", e, "modprobe -a nf_tables nft_ct nft_masq nft_chain_nat nf_conntrack_bridge; a kernel without nftables cannot run the network"),
    });
    let sysctl = "ip link add hb0 type bridge && test -e /proc/sys/net/bridge/bridge-nf-call-iptables && echo 1 >/proc/sys/net/bridge/bridge-nf-call-iptables";
    out.push(match in_namespace(sysctl, "") {
        Ok(()) => Check::ok("br_netfilter", "security groups see bridged packets"),
        Err(_) => Check::fail(
            "br_netfilter",
            "bridge-nf-call-iptables is not there: security groups would not see packets inside a network",
            "modprobe br_netfilter; and to keep it: echo br_netfilter > /etc/modules-load.d/haneul.conf",
        ),
    });
    out
}

fn tun() -> Check {
    let tun = Path::new("/dev/net/tun");
    match std::fs::OpenOptions::new().read(true).write(true).open(tun) {
        Ok(_) => Check::ok("/dev/net/tun", "can be opened"),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Check::fail(
            "/dev/net/tun",
            "is not there",
            "modprobe tun; in a container: mkdir -p /dev/net && mknod /dev/net/tun c 10 200",
        ),
        Err(e) => Check::fail(
            "/dev/net/tun",
            e.to_string(),
            "it must be readable and writable for root",
        ),
    }
}

/// Which version of control groups limits the guests.
pub fn cgroups() -> Check {
    let controllers = std::fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default();
    if controllers.split_whitespace().any(|c| c == "memory") {
        return Check::ok("cgroups", format!("version 2: {}", controllers.trim()));
    }
    let v1: Vec<&str> = ["cpu", "memory", "pids"]
        .into_iter()
        .filter(|c| Path::new("/sys/fs/cgroup").join(c).is_dir())
        .collect();
    if v1.len() == 3 {
        Check::ok("cgroups", "version 1: cpu, memory, pids")
    } else {
        Check::warn(
            "cgroups",
            format!("only {}", if v1.is_empty() { "none".into() } else { v1.join(", ") }),
            "mount cgroup2 at /sys/fs/cgroup: without it guests run without limits on memory, processor and processes",
        )
    }
}

/// The file system, and whether it copies by reference. Tried with two small files that are gone at once.
pub fn file_system(dir: &Path) -> String {
    let kind = nix::sys::statfs::statfs(dir).map_or_else(
        |_| "?".into(),
        |s| {
            let names = [
                (0xef53, "ext4"),
                (0x5846_5342, "xfs"),
                (0x9123_683e, "btrfs"),
                (0x0102_1994, "tmpfs"),
                (0x794c_7630, "overlay"),
                (0x2fc1_2fc1, "zfs"),
            ];
            names
                .iter()
                .find(|(magic, _)| *magic == s.filesystem_type().0)
                .map_or("an unusual file system", |(_, n)| n)
                .to_owned()
        },
    );
    let reflink = || -> std::io::Result<bool> {
        let name = |n: &str| dir.join(format!(".haneul-doctor-{}-{n}", std::process::id()));
        let (a, b) = (name("a"), name("b"));
        std::fs::write(&a, [0; 4096])?;
        let done = Command::new("cp")
            .arg("--reflink=always")
            .arg(&a)
            .arg(&b)
            .stderr(Stdio::null())
            .status();
        let _ = std::fs::remove_file(&a);
        let _ = std::fs::remove_file(&b);
        Ok(done?.success())
    };
    match reflink() {
        Ok(true) => format!("{kind} with reflink"),
        Ok(false) => format!("{kind} without reflink (qcow2 layers instead)"),
        Err(_) => kind,
    }
}
