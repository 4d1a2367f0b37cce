//! The start, and what the processes cost while nobody asks anything.

use crate::Options;
use crate::figures::{Samples, Table, ms};
use crate::http::{Api, Conn, request};
use anyhow::{Result, bail};
use haneul_testkit::Cloud;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// `haneul run` with its children, ended when dropped.
struct Run {
    cloud: Cloud,
    child: Option<Child>,
}

impl Run {
    fn prepare(options: &Options) -> Run {
        let mut o = haneul_testkit::Options::fake(&options.binary);
        // As users have it.
        o.sets.push("identity.bcrypt_rounds=12".into());
        Run {
            cloud: Cloud::prepare(o),
            child: None,
        }
    }

    /// Starts all processes; answers how long it took until an API answered.
    async fn start(&mut self) -> Result<Duration> {
        let log = std::fs::File::create(self.cloud.dir.join("log/run.log"))?;
        let start = Instant::now();
        let mut command = self.cloud.command();
        command
            .arg("run")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        self.child = Some(command.spawn()?);
        let get = request("GET", "/identity/v3", &[], b"");
        loop {
            if let Ok(mut conn) = Conn::open(&self.cloud.address).await
                && let Ok(answer) = conn.send(&get).await
                && answer.status == 200
            {
                return Ok(start.elapsed());
            }
            if start.elapsed() > Duration::from_secs(20) {
                bail!(
                    "no answer: {}",
                    std::fs::read_to_string(self.cloud.dir.join("log/run.log"))?
                );
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = nix::sys::signal::kill(
                nix::unistd::Pid::from_raw(child.id() as i32),
                nix::sys::signal::Signal::SIGTERM,
            );
            let _ = child.wait();
        }
    }

    /// Process ids: run, and all below it.
    fn pids(&self) -> Vec<u32> {
        let mut all: Vec<u32> = self.child.iter().map(Child::id).collect();
        let parents: Vec<(u32, u32)> = processes();
        let mut at = 0;
        while let Some(parent) = all.get(at).copied() {
            all.extend(parents.iter().filter(|(_, p)| *p == parent).map(|(c, _)| *c));
            at += 1;
        }
        all
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Every process with its parent.
fn processes() -> Vec<(u32, u32)> {
    let Ok(dir) = std::fs::read_dir("/proc") else {
        return vec![];
    };
    dir.flatten()
        .filter_map(|e| {
            let pid: u32 = e.file_name().to_str()?.parse().ok()?;
            let stat = std::fs::read_to_string(e.path().join("stat")).ok()?;
            let parent = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?;
            Some((pid, parent))
        })
        .collect()
}

pub async fn start(options: &Options, table: &mut Table) -> Result<()> {
    let (mut first, mut again) = (Samples::default(), Samples::default());
    for _ in 0..options.n(10).max(2) {
        let mut run = Run::prepare(options);
        first.add(run.start().await?);
        run.stop();
        again.add(run.start().await?);
    }
    let met = first.p50() <= Duration::from_secs(1);
    table.target(
        "start",
        "first start of `haneul run` (keys and database made) to the first answer",
        first.text(),
        ("<= 1 s", met),
        "",
    );
    let met = again.p50() <= Duration::from_secs(1);
    table.target(
        "start",
        "second start to the first answer",
        again.text(),
        ("<= 1 s", met),
        "",
    );
    Ok(())
}

pub async fn run(options: &Options, table: &mut Table) -> Result<()> {
    let mut run = Run::prepare(options);
    run.start().await?;
    run.cloud.ready().await;
    let admin = run.cloud.admin_client().await;
    // Some use first: memory that was never touched is no figure.
    let mut api = Api::new(&run.cloud.address, admin.token.as_deref().unwrap_or_default()).await?;
    for path in [
        "/compute/v2.1/servers/detail",
        "/network/v2.0/ports",
        "/image/v2/images",
        "/identity/v3/users",
    ] {
        for _ in 0..200 {
            api.get(path).await?.expect(200)?;
        }
    }
    drop(api);
    tokio::time::sleep(Duration::from_secs(3)).await;
    let pids = run.pids();
    let seconds = if options.quick { 5 } else { 20 };
    let before = cpu(&pids);
    let start = Instant::now();
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let used = cpu(&pids).saturating_sub(before);
    let share = used.as_secs_f64() / start.elapsed().as_secs_f64() * 100.0;
    let (mut rss, mut pss, mut parts) = (0, 0, Vec::new());
    for pid in &pids {
        let (r, p) = memory(*pid);
        rss += r;
        pss += p;
        parts.push(format!("{:.1}", r as f64 / 1024.0));
    }
    table.target(
        "idle",
        format!("resident memory of all {} processes, idle", pids.len()),
        format!(
            "{:.1} MiB ({}); PSS {:.1} MiB",
            rss as f64 / 1024.0,
            parts.join(" + "),
            pss as f64 / 1024.0
        ),
        ("<= 100 MiB", rss <= 100 * 1024),
        "3.3 to 3.8 GiB (PSS), 49 processes",
    );
    table.target(
        "idle",
        format!("CPU of all processes, idle, over {seconds} s"),
        format!("{share:.2} % of a core ({} in all)", ms(used)),
        ("<= 0.5 %", share <= 0.5),
        "9.6 %",
    );
    Ok(())
}

/// CPU time of processes, of threads that have ended meanwhile too.
pub fn cpu(pids: &[u32]) -> Duration {
    use nix::time::{ClockId, clock_getcpuclockid, clock_gettime};
    let of = |pid: &u32| -> Option<Duration> {
        let clock: ClockId = clock_getcpuclockid(nix::unistd::Pid::from_raw(*pid as i32)).ok()?;
        Some(clock_gettime(clock).ok()?.into())
    };
    pids.iter().filter_map(of).sum()
}

/// Resident and proportional size, KiB.
fn memory(pid: u32) -> (u64, u64) {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let of = |key: &str| {
        let line = text.lines().find_map(|l| l.strip_prefix(key));
        line.and_then(|l| l.trim().trim_end_matches("kB").trim().parse().ok())
            .unwrap_or(0)
    };
    (of("Rss:"), of("Pss:"))
}
