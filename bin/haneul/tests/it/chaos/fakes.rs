//! The run on fake hosts, whose guests are records.

use super::truth::{Place, Running};
use super::{Lab, World};
use crate::chaos::client::Chaotic;
use haneul_testkit::{Cloud, Member, Second, Wire};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A host that joined.
pub struct Joined {
    pub member: Member,
    pub wire: Wire,
    pub shares: bool,
}

/// See the module.
pub struct Fakes {
    /// Before the cloud, so that it goes before it.
    pub second: Option<Second>,
    pub cloud: Cloud,
    pub joined: Vec<Joined>,
    pub shared: PathBuf,
}

impl Lab for Fakes {
    const PACE: u32 = 1;
    const POINTS: &'static [&'static str] = &["agent.", "hypervisor.fake.", "blockdev.image"];

    fn cloud(&mut self) -> &mut Cloud {
        &mut self.cloud
    }

    fn second(&mut self) -> Option<(&mut Second, &Cloud)> {
        Some((self.second.as_mut()?, &self.cloud))
    }

    fn members(&self) -> usize {
        self.joined.len()
    }

    fn member(&mut self, n: usize) -> &mut Member {
        &mut self.joined[n].member
    }

    fn shares(&self, n: usize) -> bool {
        self.joined[n].shares
    }

    fn link(&mut self, n: usize, up: bool) {
        let wire = &self.joined[n].wire;
        if up { wire.mend() } else { wire.cut() }
    }

    fn lose_guests(dir: &Path) {
        for (id, mut record) in records(dir) {
            if record["state"] != "suspended" {
                record["state"] = "stopped".into();
                let path = dir.join("agent/guests").join(format!("{id}.json"));
                std::fs::write(path, record.to_string()).expect("a record");
            }
        }
    }

    fn places(&mut self) -> Vec<Place> {
        let joined = self
            .joined
            .iter()
            .map(|h| (h.member.name.clone(), h.member.dir.clone()));
        std::iter::once(("zero".to_owned(), self.cloud.dir.clone()))
            .chain(joined)
            .map(|(name, dir)| Place { name, dir, guests })
            .collect()
    }

    fn shared_disks(&self) -> &Path {
        &self.shared
    }

    fn who_runs(places: &[Place]) -> Running {
        let mut running = Running::new();
        for place in places {
            for (id, r) in records(&place.dir).into_iter().filter(|(_, r)| r["state"] == "running") {
                let on = format!("{} since {}", place.name, r["started_at"]);
                running.entry(id).or_default().push(on);
            }
        }
        std::thread::sleep(Duration::from_millis(3));
        running
    }

    async fn at_rest(&mut self, _: &World, _: &[Chaotic]) {}
}

/// What the fake hypervisor of a host has on record: guests with their records.
fn records(dir: &Path) -> BTreeMap<String, Value> {
    let entries = std::fs::read_dir(dir.join("agent/guests"))
        .into_iter()
        .flatten()
        .flatten();
    let records = entries.filter_map(|e| {
        let name = e.file_name().into_string().ok()?;
        let id = name.strip_suffix(".json")?.to_owned();
        // It may be gone by now.
        let record = serde_json::from_slice(&std::fs::read(e.path()).ok()?).ok()?;
        Some((id, record))
    });
    records.collect()
}

fn guests(dir: &Path) -> BTreeMap<String, String> {
    let state = |r: &Value| r["state"].as_str().unwrap_or_default().to_owned();
    records(dir).iter().map(|(id, r)| (id.clone(), state(r))).collect()
}
