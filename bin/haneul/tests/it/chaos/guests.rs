//! The run on real hosts, whose guests are processes that run a system.

use super::truth::{Place, Running};
use super::{Lab, World};
use crate::chaos::client::Chaotic;
use crate::real_crash::{end_guests, marked};
use crate::real_three::{HOSTS, Three};
use haneul_testkit::{Cloud, Member};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// Two looks at what a guest's CPUs have done are so far apart.
const LOOK: Duration = Duration::from_millis(200);
/// CPUs of a guest that is not let run do less than this between two looks: they only put down what came with a move.
const RAN_NS: u64 = 1_000_000;

impl Lab for Three {
    const PACE: u32 = 8;
    const POINTS: &'static [&'static str] = &[
        "agent.",
        "hypervisor.qemu.",
        "hypervisor.record.",
        "blockdev.",
        "netdev.real.",
    ];

    fn cloud(&mut self) -> &mut Cloud {
        &mut self.r.cloud
    }

    fn members(&self) -> usize {
        self.machines.others.len()
    }

    fn member(&mut self, n: usize) -> &mut Member {
        self.machines.others[n].member()
    }

    fn shares(&self, n: usize) -> bool {
        self.sharing.contains(&self.machines.others[n].name.as_str())
    }

    fn link(&mut self, n: usize, up: bool) {
        let machine = &self.machines.others[n];
        if up { machine.mend() } else { machine.cut() }
    }

    fn lose_guests(dir: &Path) {
        end_guests(dir);
    }

    fn places(&mut self) -> Vec<Place> {
        let place = |name: &&str| Place {
            name: (*name).to_owned(),
            dir: self.dir(name),
            guests,
        };
        HOSTS.iter().map(place).collect()
    }

    fn shared_disks(&self) -> &Path {
        &self.disks.0
    }

    fn who_runs(places: &[Place]) -> Running {
        let all: Vec<(&Place, i32, String)> = places
            .iter()
            .flat_map(|p| marked(&p.dir).into_iter().map(move |(pid, id)| (p, pid, id)))
            .collect();
        let before: Vec<u64> = all.iter().map(|(_, pid, _)| cpu_time(*pid)).collect();
        std::thread::sleep(LOOK);
        let mut running = Running::new();
        for ((place, pid, id), before) in all.into_iter().zip(before) {
            if cpu_time(pid) > before + RAN_NS {
                running
                    .entry(id)
                    .or_default()
                    .push(format!("{} in process {pid}", place.name));
            }
        }
        running
    }

    /// Every guest that runs is reached by another one.
    async fn at_rest(&mut self, world: &World, clients: &[Chaotic]) {
        self.all_is_well("faults").await;
        let mut addresses = Vec::new();
        for server in clients.iter().flat_map(Chaotic::acknowledged) {
            let s = self.show(server).await;
            let address = s["addresses"].as_object().and_then(|networks| {
                let all = networks.values().flat_map(|n| n.as_array().into_iter().flatten());
                let mut v4 = all.filter(|a| a["version"] == 4).filter_map(|a| a["addr"].as_str());
                v4.next().map(str::to_owned)
            });
            match address {
                Some(address) if s["status"] == "ACTIVE" => addresses.push(address),
                Some(_) => {}
                None => world.wrong(format!("{server} has no address: {s}")),
            }
        }
        let all: Vec<&str> = addresses.iter().map(String::as_str).collect();
        self.reaches("a", &all).await;
        world.say(format!("reached {addresses:?}"));
    }
}

/// What the CPUs of a guest have run so far, in nanoseconds.
fn cpu_time(pid: i32) -> u64 {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten()
        .flatten();
    let times = threads.filter_map(|t| {
        let name = std::fs::read_to_string(t.path().join("comm")).ok()?;
        let time = std::fs::read_to_string(t.path().join("schedstat")).ok()?;
        name.starts_with("CPU ")
            .then(|| time.split(' ').next()?.parse::<u64>().ok())?
    });
    times.sum()
}

/// What is on a host's disk of its guests, and of their processes.
fn guests(dir: &Path) -> BTreeMap<String, String> {
    let running = marked(dir);
    let entries = std::fs::read_dir(dir.join("agent/qemu/guests"))
        .into_iter()
        .flatten()
        .flatten();
    let records = entries.filter_map(|e| {
        let id = e.file_name().into_string().ok()?;
        let record = std::fs::read(e.path().join("record.json")).unwrap_or_default();
        let record: Value = serde_json::from_slice(&record).unwrap_or_default();
        let state = match running.iter().any(|(_, of)| *of == id) {
            true if record["power"] == "paused" => "paused",
            true => "running",
            false if record["saved"].is_object() => "suspended",
            false => "stopped",
        };
        Some((id, state.to_owned()))
    });
    let mut all: BTreeMap<String, String> = records.collect();
    for (pid, id) in &running {
        all.entry(id.clone())
            .or_insert_with(|| format!("process {pid}, which has no record"));
    }
    all
}
