//! Many hosts on one control plane: agents of the real protocol, a thousand of them in a thread of this process, which
//! do at once what they are asked for. They share the two cores with what is measured.

use crate::Options;
use crate::figures::{Samples, Table, ms};
use crate::http::{Conn, request};
use crate::idle::cpu;
use crate::ready::{Ready, text};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

const GROUP: &str = "hosts";
/// How often each host has something to say while they report.
const TURN: Duration = Duration::from_secs(10);

/// What the agents and the measurement tell each other.
#[derive(Default)]
struct Shared {
    up: AtomicUsize,
    /// Guests that a host was told of, each time another.
    guests: AtomicUsize,
    /// While it holds, each agent reports one of its guests once in a [`TURN`].
    reporting: AtomicBool,
    reports: AtomicUsize,
    /// Agents whose stream ended, or who were refused.
    ended: AtomicUsize,
    /// The host that is lost, and how many guests it had.
    lose: tokio::sync::watch::Sender<Option<usize>>,
    lost: Mutex<Option<usize>>,
    /// When the host that watches it began to say that its lease has ended.
    fenced: Mutex<Option<Instant>>,
}

/// The directory for disks that all of them say to have.
const DISKS: &str = "00000000-0000-4000-8000-00000000d15c";

fn host_id(n: usize) -> String {
    format!("00000000-0000-4000-8000-{n:012x}")
}

async fn post(conn: &mut Conn<UnixStream>, path: &str, body: &Value) -> Result<Value> {
    let bytes = request("POST", path, &[], body.to_string().as_bytes());
    Ok(conn.send(&bytes).await?.expect(200)?.json())
}

fn seen(guest: &Value) -> Value {
    json!({"id": guest["object"]["doc"]["id"], "epoch": guest["epoch"], "generation": guest["generation"], "settled": true,
        "state": "running", "started_at": 1, "vcpus": 1, "memory_mib": 128, "disk_gib": 1,
        "layout": {"machine": "fake", "cpu": "fake", "accelerator": "fake", "devices": []}})
}

/// One host, until its stream ends.
async fn agent(socket: PathBuf, n: usize, first: Duration, shared: Arc<Shared>) -> Result<()> {
    let id = host_id(n);
    let mut conn = Conn::over(UnixStream::connect(&socket).await?);
    let greeting = json!({"protocol": 2, "release": "0", "host_id": id, "host_name": format!("host-{n:04}"), "boot_id": "b",
        "inventory": {"vcpus": 64, "memory_mib": 262_144, "disk_gib": 4096},
        "hypervisor": {"kind": "fake", "version": 1, "accelerator": "fake", "arch": "x86_64", "cpu_model": "fake",
            "cpu_vendor": "fake", "moves": true, "shared_disks": DISKS}});
    post(&mut conn, "/agent/v1/greet", &greeting).await?;
    let mut stream = UnixStream::connect(&socket).await?;
    let path = format!("/agent/v1/watch?host={id}");
    stream.write_all(&request("GET", &path, &[], &[])).await?;
    // Each piece of the answer is whole lines; sizes between them are no JSON.
    let mut lines = BufReader::new(stream).lines();
    let mut held: BTreeMap<String, Value> = BTreeMap::new();
    let mut lose = shared.lose.subscribe();
    let mut turn = tokio::time::interval_at(tokio::time::Instant::now() + first, TURN);
    loop {
        let line = tokio::select! {
            line = lines.next_line() => line?.context("the stream ended")?,
            _ = turn.tick() => {
                if shared.reporting.load(Ordering::Relaxed) && let Some(g) = held.values().next() {
                    post(&mut conn, "/agent/v1/report", &json!({"host_id": id, "guests": [seen(g)]})).await?;
                    shared.reports.fetch_add(1, Ordering::Relaxed);
                }
                continue;
            }
            Ok(()) = lose.changed() => {
                if *lose.borrow_and_update() == Some(n) {
                    *shared.lost.lock().unwrap() = Some(held.len());
                    return Ok(());
                }
                continue;
            }
        };
        if !line.starts_with('{') {
            continue;
        }
        let mut told: Value = serde_json::from_str(&line)?;
        match told["type"].as_str() {
            Some("bookmark") if held.is_empty() => {
                shared.up.fetch_add(1, Ordering::Relaxed);
            }
            Some("put") if told["object"]["kind"] == "guest" => {
                post(
                    &mut conn,
                    "/agent/v1/report",
                    &json!({"host_id": id, "guests": [seen(&told)]}),
                )
                .await?;
                let guest = text(&told, "/object/doc/id")?;
                if held.insert(guest, told.take()).is_none() {
                    shared.guests.fetch_add(1, Ordering::Relaxed);
                }
            }
            Some("put") if told["object"]["kind"] == "fence" => {
                let watched = &told["object"]["doc"];
                let ended = json!({"id": watched["id"], "token": watched["token"], "epoch": told["epoch"],
                    "generation": told["generation"], "state": "ended"});
                shared.fenced.lock().unwrap().get_or_insert_with(Instant::now);
                post(
                    &mut conn,
                    "/agent/v1/report",
                    &json!({"host_id": id, "fences": [ended]}),
                )
                .await?;
            }
            _ => {}
        }
    }
}

/// Agents in a thread of their own, for as long as this process lives.
fn start(socket: &Path, count: usize) -> Arc<Shared> {
    let shared = Arc::new(Shared::default());
    let (socket, all) = (socket.to_owned(), shared.clone());
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut hosts = tokio::task::JoinSet::new();
            for n in 0..count {
                let first = TURN.mul_f64(n as f64 / count as f64);
                hosts.spawn(agent(socket.clone(), n, first, all.clone()));
                // A cloud does not boot in one instant, and the socket's queue is short.
                if n % 50 == 49 {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
            while hosts.join_next().await.is_some() {
                all.ended.fetch_add(1, Ordering::Relaxed);
            }
        });
    });
    shared
}

async fn until(what: &str, limit: Duration, holds: impl Fn() -> bool) -> Result<Duration> {
    let start = Instant::now();
    while !holds() {
        ensure!(start.elapsed() < limit, "{what}: not after {limit:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(start.elapsed())
}

/// One host is gone, and another one that shares its disks says that its lease has ended: how long until other hosts have
/// heard of all of its guests.
async fn lose(shared: &Shared, host: usize, guests: usize, table: &mut Table) -> Result<()> {
    let before = shared.guests.load(Ordering::Relaxed);
    shared.lose.send_replace(Some(host));
    until(
        "a watcher says that the lease has ended",
        Duration::from_secs(60),
        || shared.fenced.lock().unwrap().is_some(),
    )
    .await?;
    let fenced = shared.fenced.lock().unwrap().context("the instant")?;
    let lost = shared.lost.lock().unwrap().context("the lost host's guests")?;
    until("its guests are elsewhere", Duration::from_secs(60), || {
        shared.guests.load(Ordering::Relaxed) >= before + lost
    })
    .await?;
    let took = fenced.elapsed();
    table.target(
        GROUP,
        format!("the end of a host's lease to the last of its {lost} guests told to another host, of {guests}"),
        ms(took),
        ("<= 1 s", took <= Duration::from_secs(1)),
        "",
    );
    shared.ended.store(0, Ordering::Relaxed);
    Ok(())
}

/// Bytes that a process has sent towards the disk.
fn written(pid: u32) -> Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/io"))?;
    let line = text.lines().find_map(|l| l.strip_prefix("write_bytes:"));
    Ok(line.context("write_bytes")?.trim().parse()?)
}

pub async fn run(options: &Options, table: &mut Table) -> Result<()> {
    let (hosts, guests) = (options.n(1000), options.n(20_000));
    let small = [
        "agent.fake_vcpus=64",
        "agent.fake_memory_mib=262144",
        "agent.fake_disk_gib=4096",
        "ha.lost_after_s=1",
    ];
    let ready = Ready::new(options, &small).await?;
    let shared = start(&ready.cloud.dir.join("run/agent.sock"), hosts);
    let came = until("agents", Duration::from_secs(120), || {
        shared.up.load(Ordering::Relaxed) == hosts
    })
    .await?;
    table.add(GROUP, format!("{hosts} hosts greet and watch"), ms(came), "");
    let (serve, _) = ready.cloud.pids();
    let serve = serve.context("serve runs")?;
    let idle = async |what: &str, table: &mut Table| -> Result<()> {
        let seconds = if options.quick { 5 } else { 20 };
        let (used, bytes, start) = (cpu(&[serve]), written(serve)?, Instant::now());
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        let share = (cpu(&[serve]).saturating_sub(used)).as_secs_f64() / start.elapsed().as_secs_f64() * 100.0;
        let bytes = written(serve)? - bytes;
        table.target(
            GROUP,
            format!("serve with {hosts} hosts{what}, idle, over {seconds} s"),
            format!("{share:.2} % of a core, {bytes} bytes written"),
            ("no write", bytes == 0),
            "",
        );
        Ok(())
    };
    tokio::time::sleep(Duration::from_secs(5)).await;
    idle("", table).await?;

    let mut api = ready.api().await?;
    let body = |count: usize| {
        let mut body = ready.server("many");
        body["server"]["networks"] = "none".into();
        body["server"]["min_count"] = count.into();
        body["server"]["max_count"] = count.into();
        body
    };
    api.version = "compute 2.96";
    let began = Instant::now();
    let mut left = guests;
    while left > 0 {
        let now = left.min(200);
        api.post("/compute/v2.1/servers", &body(now)).await?.expect(202)?;
        left -= now;
    }
    let placed = began.elapsed();
    until("guests", Duration::from_secs(600), || {
        shared.guests.load(Ordering::Relaxed) + guests / hosts * 2 >= guests
    })
    .await?;
    table.add(
        GROUP,
        format!("{guests} servers decided and committed, 200 at a time; all of them running"),
        format!("{}; {}", ms(placed), ms(began.elapsed())),
        "",
    );

    shared.reporting.store(true, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_secs(10)).await;
    let (mut answered, before, start) = (
        Samples::default(),
        shared.reports.load(Ordering::Relaxed),
        Instant::now(),
    );
    for _ in 0..options.n(300) {
        let start = Instant::now();
        let made = api.post("/compute/v2.1/servers", &body(1)).await?.expect(202)?;
        answered.add(start.elapsed());
        text(&made.json(), "/server/id")?;
        // Not a benchmark of the client: a create every now and then, so that snapshots grow old in between too.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let rate = (shared.reports.load(Ordering::Relaxed) - before) as f64 / start.elapsed().as_secs_f64();
    let met = answered.quantile(0.95) <= Duration::from_millis(50);
    table.target(
        GROUP,
        format!("POST /servers to its answer, with {hosts} hosts and {guests} servers, {rate:.0} reports/s meanwhile"),
        answered.text(),
        ("p95 <= 50 ms", met),
        "",
    );
    shared.reporting.store(false, Ordering::Relaxed);
    ensure!(shared.ended.load(Ordering::Relaxed) == 0, "agents ended on the way");

    lose(&shared, hosts / 2, guests, table).await?;

    let mut admin = Conn::over(UnixStream::connect(ready.cloud.dir.join("run/admin.sock")).await?);
    let mut planned = Samples::default();
    for _ in 0..options.n(10) {
        let start = Instant::now();
        post(
            &mut admin,
            "/admin/v1/balance",
            &json!({"max_moves": 16, "min_gain": 0.01}),
        )
        .await?;
        planned.add(start.elapsed());
    }
    table.add(
        GROUP,
        format!("moves for balance planned over {hosts} hosts"),
        planned.text(),
        "",
    );
    tokio::time::sleep(Duration::from_secs(5)).await;
    idle(&format!(" and {guests} servers"), table).await
}
