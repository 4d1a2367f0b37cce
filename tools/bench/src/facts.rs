//! What the figures were measured on, and the document around them.

use crate::figures::Table;
use std::process::Command;

fn read(program: &str, args: &[&str]) -> String {
    let out = Command::new(program).args(args).output();
    out.map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned())
        .unwrap_or_default()
}

/// The load of the last minute: who reads the figures should know what else ran.
pub fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().unwrap_or("?").to_owned()
}

fn line_of(file: &str, key: &str) -> String {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let found = text.lines().find_map(|l| {
        l.strip_prefix(key)
            .map(|v| v.trim_start_matches([' ', '\t', ':']).to_owned())
    });
    found.unwrap_or_default()
}

/// How long the disk takes to make a small append durable: the unit in which every committed write is paid.
fn flush() -> String {
    use std::io::Write;
    let path = std::env::temp_dir().join(format!("haneul-bench-{}", std::process::id()));
    let mut samples = crate::figures::Samples::default();
    if let Ok(mut f) = std::fs::File::create(&path) {
        for _ in 0..100 {
            let start = std::time::Instant::now();
            if f.write_all(&[0; 4096]).and_then(|()| f.sync_data()).is_err() {
                break;
            }
            samples.add(start.elapsed());
        }
    }
    let _ = std::fs::remove_file(&path);
    samples.text()
}

/// The commit of the tree that the bench was started in, asked before anything else can change it.
pub fn commit() -> String {
    let dirty = !read("git", &["status", "--porcelain", "--untracked-files=no"]).is_empty();
    let commit = read("git", &["rev-parse", "--short", "HEAD"]);
    format!(
        "{commit}{}",
        if dirty {
            " with changes that are not committed"
        } else {
            ""
        }
    )
}

pub fn document(table: &Table, load: &str, commit: &str) -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let memory: u64 = line_of("/proc/meminfo", "MemTotal")
        .trim_end_matches(" kB")
        .parse()
        .unwrap_or(0);
    let missed: Vec<&str> = table
        .0
        .iter()
        .filter(|r| r.target.as_ref().is_some_and(|t| !t.1))
        .map(|r| r.item.as_str())
        .collect();
    let verdict = if missed.is_empty() {
        "Every target is met.".to_owned()
    } else {
        format!("Missed: {}.", missed.join("; "))
    };
    format!(
        "# Performance

Written by `cargo xtask bench`; do not edit. All figures are of one run: whole clouds of the built binary (profile `dev`,
docs/adr/0002) with separate processes, SQLite with `synchronous=FULL` on the machine's disk (PostgreSQL with
`fsync` where it is named), the fake host driver except where real guests are, and the client on the same cores. p50 is the
median.

- Date: {date}; commit {commit}.
- Machine: {cores} cores ({model}), {gib:.0} GiB, Linux {kernel}; load of the last minute: {load}. It counts the bench
  itself and whatever else ran on the machine.
- A 4 KiB append made durable (fdatasync) on this disk takes {flush}.

{verdict}

{table}
OpenStack's figures: 2026.2 with all services on one 2-core machine of the same kind (Keystone 30, Glance 33, Placement 16,
Nova 34 with its fake hypervisor, Neutron 29, MariaDB, RabbitMQ, memcached), which was loaded at the time; idle is CPU time
in each second. An empty cell was not measured there.

Throughput between guests and through routers, beside the same path built by hand, is measured by the data plane's own
tests, as root: `cargo nextest run -p haneul-netdev --run-ignored only -E 'test(throughput)' --no-capture`.
",
        date = read("date", &["-u", "+%Y-%m-%d"]),
        model = line_of("/proc/cpuinfo", "model name"),
        gib = memory as f64 / 1048576.0,
        kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().split('-').next().unwrap_or(""),
        flush = flush(),
        table = table.markdown(),
    )
}
