//! What must be true: all the time, at rest, and when everything was deleted.

use super::{Lab, World};
use haneul_testkit::{Client, Cloud};
use http::Method;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// After the last fault nothing of fakes takes so long.
const REST: Duration = Duration::from_secs(60);

/// Guests that run, each with where it does.
pub type Running = BTreeMap<String, Vec<String>>;

/// A host as its disks show it.
#[derive(Clone, Debug)]
pub struct Place {
    pub name: String,
    pub dir: PathBuf,
    /// Its guests with their states: `running`, `paused`, `suspended`, `stopped`.
    pub guests: fn(&Path) -> BTreeMap<String, String>,
}

/// Looks all the time whether a guest runs on two hosts. Two rounds must see the same two processes: between them no round
/// sees all hosts at one instant, but who ran before and after has run all the while.
pub fn watch_for_twins(world: Arc<World>, places: Vec<Place>, who_runs: fn(&[Place]) -> Running) -> Watcher {
    let stop = Arc::new(AtomicBool::new(false));
    let told = stop.clone();
    let thread = std::thread::spawn(move || {
        let mut before = BTreeSet::new();
        while !told.load(Ordering::Relaxed) {
            let running = who_runs(&places);
            let twins: BTreeSet<(String, Vec<String>)> = running.into_iter().filter(|(_, on)| on.len() > 1).collect();
            if let Some((id, on)) = twins.intersection(&before).next() {
                world.wrong(format!("guest {id} runs on {on:?}"));
                return;
            }
            before = twins;
        }
    });
    Watcher {
        stop,
        thread: Some(thread),
    }
}

/// Ends the thread when it is dropped.
pub struct Watcher {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(std::thread::JoinHandle::join);
    }
}

async fn list(admin: &Client, path: &str, key: &str) -> Option<Vec<Value>> {
    let answer = admin.try_send(Method::GET, path, &[], vec![]).await?;
    answer.body[key].as_array().filter(|_| answer.status == 200).cloned()
}

/// Looks whether two ports have the same address or MAC, or two floating IPs the same address or fixed one.
pub async fn addresses_are_held_once(world: &World, admin: &Client) -> Option<()> {
    let ports = list(admin, "/network/v2.0/ports", "ports").await?;
    let mut held = BTreeMap::new();
    for p in &ports {
        let network = &p["network_id"];
        let fixed = p["fixed_ips"].as_array().into_iter().flatten();
        let addresses = fixed.map(|ip| ip["ip_address"].to_string());
        for what in addresses.chain([p["mac_address"].to_string()]) {
            if let Some(other) = held.insert(format!("{network} {what}"), &p["id"]) {
                world.wrong(format!("ports {other} and {} both have {what}", p["id"]));
            }
        }
    }
    let floating = list(admin, "/network/v2.0/floatingips", "floatingips").await?;
    let mut held = BTreeMap::new();
    for f in &floating {
        let mut all = vec![f["floating_ip_address"].to_string()];
        if !f["port_id"].is_null() {
            all.push(format!("{} {}", f["port_id"], f["fixed_ip_address"]));
        }
        for what in all {
            if let Some(other) = held.insert(what.clone(), &f["id"]) {
                world.wrong(format!("floating IPs {other} and {} both have {what}", f["id"]));
            }
        }
    }
    Some(())
}

/// Waits until nothing goes on any more and everything fits together.
pub async fn rest<L: Lab>(world: &World, lab: &mut L, admin: &Client) {
    let (begun, limit) = (Instant::now(), REST * L::PACE);
    let (places, shared) = (lab.places(), lab.shared_disks().to_owned());
    let cloud = lab.cloud();
    loop {
        let found = disagreements(world, cloud, admin, &places, &shared).await;
        let found = found.unwrap_or_else(|| vec!["control does not answer".into()]);
        if found.is_empty() {
            world.say(format!("at rest after {:?}", begun.elapsed()));
            return;
        }
        if begun.elapsed() > limit {
            let jobs = cloud.admin(Method::GET, "/admin/v1/jobs").await;
            let running = jobs.iter().flat_map(|j| j["jobs"].as_array().into_iter().flatten());
            let running: Vec<&Value> = running.filter(|j| j["status"] == "running").collect();
            return world.wrong(format!("{limit:?} after the last fault: {found:#?}\n{running:#?}"));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn disagreements(
    world: &World,
    cloud: &Cloud,
    admin: &Client,
    places: &[Place],
    shared: &Path,
) -> Option<Vec<String>> {
    let mut out = Vec::new();
    let hosts = cloud.admin(Method::GET, "/admin/v1/hosts").await?;
    for h in hosts["hosts"].as_array()?.iter().filter(|h| h["state"] != "up") {
        out.push(format!("host {} is {}", h["name"], h["state"]));
    }
    let jobs = cloud.admin(Method::GET, "/admin/v1/jobs").await?;
    for j in jobs["jobs"].as_array()?.iter().filter(|j| j["status"] == "running") {
        out.push(format!("a job runs: {j}"));
    }
    let servers = list(admin, "/compute/v2.1/servers/detail?all_tenants=1", "servers").await?;
    let mut on: BTreeMap<&str, &str> = BTreeMap::new();
    let all: Vec<_> = places.iter().map(|p| (p, (p.guests)(&p.dir))).collect();
    for s in &servers {
        let (id, host) = (
            s["id"].as_str()?,
            s["OS-EXT-SRV-ATTR:host"].as_str().unwrap_or_default(),
        );
        on.insert(id, host);
        if !s["OS-EXT-STS:task_state"].is_null() {
            out.push(format!("server {id} is being {}", s["OS-EXT-STS:task_state"]));
            if s["status"] == "MIGRATING" {
                // Some last until somebody ends them.
                super::client::force(admin, id).await?;
            }
        }
        for (place, guests) in &all {
            let is = guests.get(id).map(String::as_str);
            let here = place.name == host;
            let shall: &[Option<&str>] = match (here, s["status"].as_str()?) {
                (false, _) => &[None],
                (_, "ACTIVE") => &[Some("running")],
                (_, "PAUSED") => &[Some("paused")],
                (_, "SUSPENDED") => &[Some("suspended")],
                // One that was never started has no record.
                (_, "SHUTOFF") => &[Some("stopped"), None],
                (_, "VERIFY_RESIZE") => &[Some("running"), Some("stopped")],
                (_, "ERROR") => continue,
                (_, other) => {
                    out.push(format!("server {id} is {other}"));
                    continue;
                }
            };
            if !shall.contains(&is) {
                out.push(format!(
                    "server {id} is {} on {host}, and {is:?} on {}",
                    s["status"], place.name
                ));
            }
        }
        if s["status"] == "ERROR" && s["fault"]["message"].as_str().is_none_or(str::is_empty) {
            out.push(format!("server {id} is in ERROR and does not say why"));
        }
    }
    for (place, guests) in &all {
        for id in guests.keys().filter(|id| !on.contains_key(id.as_str())) {
            out.push(format!("{} has a guest {id} that is no server", place.name));
        }
        for id in names(&place.dir.join("agent/block/disks")) {
            if on.get(id.as_str()) != Some(&place.name.as_str()) {
                out.push(format!(
                    "{} has a disk of {id}, which is on {:?}",
                    place.name,
                    on.get(id.as_str())
                ));
            }
        }
    }
    for id in names(&shared.join("servers"))
        .into_iter()
        .filter(|id| !on.contains_key(id.as_str()))
    {
        out.push(format!("a shared disk of {id} is left"));
    }
    addresses_are_held_once(world, admin).await?;
    if out.is_empty() {
        let audit = cloud.admin(Method::GET, "/admin/v1/audit").await?;
        out.extend(audit["findings"].as_array()?.iter().map(|f| format!("audit: {f}")));
    }
    if out.is_empty() {
        for s in servers.iter().filter(|s| s["status"] == "ERROR") {
            world.say(format!("{} is in ERROR: {}", s["id"], s["fault"]["message"]));
        }
    }
    Some(out)
}

fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|e| e.file_name().into_string().ok()).collect()
}

/// Nothing is held any more, when all servers were deleted.
pub async fn nothing_is_held(world: &World, admin: &Client) {
    let floating = list(admin, "/network/v2.0/floatingips", "floatingips").await;
    for f in floating.unwrap_or_default() {
        let path = format!("/network/v2.0/floatingips/{}", f["id"].as_str().unwrap_or_default());
        let status = admin.delete(&path).await.status;
        if !f["port_id"].is_null() || status != 204 {
            world.wrong(format!(
                "a floating IP of a server is left, and its delete says {status}: {f}"
            ));
        }
    }
    let ports = list(admin, "/network/v2.0/ports", "ports").await.unwrap_or_default();
    for p in ports
        .iter()
        .filter(|p| p["device_owner"].as_str().is_some_and(|o| o.starts_with("compute:")))
    {
        world.wrong(format!("a port of a server is left: {p}"));
    }
    let limits = admin.get("/compute/v2.1/limits").await.expect(200);
    for what in ["totalInstancesUsed", "totalCoresUsed", "totalRAMUsed"] {
        if limits["limits"]["absolute"][what] != 0 {
            world.wrong(format!("{what} is {}", limits["limits"]["absolute"][what]));
        }
    }
    let all = list(admin, "/placement/resource_providers", "resource_providers").await;
    for p in all.unwrap_or_default() {
        let path = format!(
            "/placement/resource_providers/{}/usages",
            p["uuid"].as_str().unwrap_or_default()
        );
        let usages = admin.get(&path).await.expect(200);
        for (class, n) in usages["usages"]
            .as_object()
            .into_iter()
            .flatten()
            .filter(|(_, n)| **n != 0)
        {
            world.wrong(format!("{n} of {class} are held on {}", p["name"]));
        }
    }
}
