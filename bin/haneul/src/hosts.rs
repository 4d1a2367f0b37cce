//! `/admin/v1/hosts`: what `haneul host ...` asks.

use crate::serve::App;
use haneul_agent_api::FenceState;
use haneul_compute::balance::{Limits, Move};
use haneul_core::{Error, Result, clock};
use haneul_fleet::{Host, HostFence};
use haneul_store::{Actor, Tx};
use serde_json::{Value, json};
use std::sync::Arc;

/// Who speaks on the admin socket.
fn operator() -> Actor {
    Actor {
        user: "operator".into(),
        project: String::new(),
        request_id: haneul_core::id::request(),
    }
}

/// A host by its id, or by its name when only one has it.
async fn find(app: &App, tx: &mut Tx, asked: &str) -> Result<Host> {
    let hosts = app.fleet.hosts(tx).await?;
    let mut named = hosts.iter().filter(|h| h.id == asked || h.name == asked);
    match (named.next(), named.next()) {
        (Some(one), None) => Ok(one.clone()),
        (Some(_), Some(_)) => Err(Error::conflict(format!(
            "More than one host is called {asked}: name it by its id (`haneul host list`)."
        ))),
        (None, _) => Err(Error::not_found(format!(
            "There is no host {asked}. There are: {}.",
            hosts.iter().map(|h| h.name.as_str()).collect::<Vec<_>>().join(", ")
        ))),
    }
}

async fn view(app: &App, tx: &mut Tx, host: &Host) -> Result<Value> {
    let used = app.compute.host_use(tx, &host.id).await?;
    let fence = app.fleet.fence(tx, &host.id).await?;
    let mut watched = Value::Null;
    if let Some(f) = fence {
        let watcher = match &f.watcher {
            Some(id) => app.fleet.host(tx, id).await?.map(|h| h.name),
            None => None,
        };
        watched = json!({
            "by": watcher,
            "said": f.said,
            "ended": f.ended,
            "at_once": f.at_once,
            "token": f.token,
            "since": clock::iso(f.since),
            "means": means(&f, watcher.as_deref()),
        });
    } else if !host.up && host.lease == 0 {
        watched = json!({"ended": false, "means": format!(
            "it shares no disks with other hosts, so that nobody can tell whether its servers run; they and their disks are back when it is. If it is off: `haneul host fence {}` says so, and then `openstack server evacuate` makes one anew elsewhere, from its image",
            host.name
        )});
    }
    Ok(json!({
        "id": host.id,
        "name": host.name,
        "state": if host.up { "up" } else { "down" },
        "status": if used.disabled.is_some() { "disabled" } else { "enabled" },
        "disabled_reason": used.disabled,
        "release": host.release,
        "servers": used.servers,
        "hypervisor": host.hypervisor.kind,
        "hypervisor_version": version(host.hypervisor.version),
        "accelerator": host.hypervisor.accelerator,
        "underlay": host.underlay,
        "cpu_model": host.hypervisor.cpu_model,
        "boot_id": host.boot_id,
        "shared_disks": host.hypervisor.shared_disks,
        "lease": host.lease,
        "process": host.process,
        "watched": watched,
        "more": more(host),
        "resources": used.stock.iter().map(|(class, (used, total))| {
            (class.clone(), json!({"used": used, "total": total}))
        }).collect::<serde_json::Map<String, Value>>(),
    }))
}

/// What of it an operator has not accepted yet, for a person.
pub fn more(host: &Host) -> Vec<String> {
    let all = host.more().into_iter();
    all.map(|(what, accepted, now)| format!("{now} {what}, {accepted} before"))
        .collect()
}

/// Of Nova's number form: 10.0.2 is 10000002.
fn version(number: u64) -> String {
    format!("{}.{}.{}", number / 1_000_000, number / 1000 % 1000, number % 1000)
}

/// What is known of a host that is down, for a person.
fn means(f: &HostFence, watcher: Option<&str>) -> String {
    let who = watcher.unwrap_or("nobody");
    match &f.said {
        _ if f.ended => "its lease has ended: its servers on shared disks start on other hosts".into(),
        None if f.watcher.is_none() => {
            "no other host that is up shares its disks: nobody can tell whether it runs".into()
        }
        None | Some(FenceState::Silent) => format!("{who} has not seen anything of it yet; its lease may run still"),
        Some(FenceState::Alive { .. }) if f.at_once => {
            format!("{who} sees its supervisor, which was told to end its servers on shared disks")
        }
        Some(FenceState::Alive { agent: false, .. }) => {
            format!(
                "{who} sees its supervisor: it is not lost, but its agent does not run; `haneul logs agent` there says why"
            )
        }
        Some(FenceState::Alive { cut: true, .. }) => format!("{who} sees its supervisor, which cannot reach control"),
        Some(FenceState::Alive { .. }) => {
            format!("{who} sees its supervisor: it is not lost, and its servers run there")
        }
        Some(FenceState::Ended) => format!("{who} says that its lease has ended"),
        Some(FenceState::Blind(why)) => format!("{who} cannot look: {why}"),
    }
}

/// An operator says that a host that is down is off.
pub async fn fence(app: &Arc<App>, asked: String) -> Result<Value> {
    let this = app.clone();
    app.db
        .write(&operator(), async move |tx| {
            let host = find(&this, tx, &asked).await?;
            if host.up {
                return Err(Error::conflict(format!(
                    "Host {} is connected, so it is not off: `haneul host drain {}` empties it.",
                    host.name, host.name
                )));
            }
            this.fleet.declare_ended(tx, &host.id).await?;
            Ok(json!({"host": view(&this, tx, &host).await?}))
        })
        .await
}

/// What the loss of each host would mean now.
pub async fn ha(app: &App) -> Result<Value> {
    let mut tx = app.db.read().await?;
    let mut up = app.fleet.hosts(&mut tx).await?;
    up.retain(|h| h.up);
    let (alone, several) = (tx.other_processes().await?.is_empty(), up.len() > 1);
    let mut hosts = Vec::new();
    for host in up {
        let control = alone && app.fleet.is_beside_control(&mut tx, &host.id).await?;
        let routers = app.network.routers_on(&mut tx, &host.id).await?;
        hosts.push((host, control, routers));
    }
    drop(tx);
    let mut out = Vec::new();
    for (host, control, routers) in hosts {
        let loss = app.compute.if_lost(&host.id).await?;
        out.push(json!({
            "host": host.name,
            "id": host.id,
            "control": control,
            "routers": routers,
            "routers_move": several && !control,
            "back": loss.back.iter().map(|(id, name, to)| json!({"id": id, "name": name, "to": to})).collect::<Vec<_>>(),
            "stranded": loss.stranded.iter().map(|s| json!({"id": s.id, "name": s.name, "why": s.why})).collect::<Vec<_>>(),
        }));
    }
    Ok(json!({"evacuate": app.config.ha.evacuate, "hosts": out}))
}

pub async fn list(app: &App) -> Result<Value> {
    let mut tx = app.db.read().await?;
    let mut hosts = Vec::new();
    for host in app.fleet.hosts(&mut tx).await? {
        hosts.push(view(app, &mut tx, &host).await?);
    }
    Ok(json!({"hosts": hosts}))
}

pub async fn show(app: &App, asked: &str) -> Result<Value> {
    let mut tx = app.db.read().await?;
    let host = find(app, &mut tx, asked).await?;
    Ok(json!({"host": view(app, &mut tx, &host).await?}))
}

/// Lets servers come to the host again, and as many as it says that it has room for.
pub async fn enable(app: &Arc<App>, asked: String) -> Result<Value> {
    let this = app.clone();
    app.db
        .write(&operator(), async move |tx| {
            let host = find(&this, tx, &asked).await?;
            this.compute.set_host_disabled(tx, &host.id, None).await?;
            let accepted = more(&this.fleet.accept_inventory(tx, &host.id).await?);
            let host = find(&this, tx, &host.id).await?;
            Ok(json!({"host": view(&this, tx, &host).await?, "accepted": accepted}))
        })
        .await
}

/// Keeps new servers away from the host and moves those that are there, a few at a time: asked again and again until
/// nothing moves.
pub async fn drain(app: &Arc<App>, asked: String, body: &Value) -> Result<Value> {
    let this = app.clone();
    let host = app
        .db
        .write(&operator(), async move |tx| {
            let host = find(&this, tx, &asked).await?;
            let reason = this.compute.host_use(tx, &host.id).await?.disabled;
            if reason.is_none() {
                this.compute.set_host_disabled(tx, &host.id, Some("drained")).await?;
            }
            Ok(host)
        })
        .await?;
    let failed = ids(body, "failed");
    let drained = app.compute.drain_on(&host.id, &failed).await?;
    Ok(json!({
        "host": host.name,
        "moving": drained.moving.iter().map(|(id, name, begun)| json!({"id": id, "name": name, "begun": begun})).collect::<Vec<_>>(),
        "stuck": drained.stuck.iter().map(|(id, name, why)| json!({"id": id, "name": name, "why": why})).collect::<Vec<_>>(),
    }))
}

fn ids(body: &Value, key: &str) -> Vec<String> {
    let list = body.get(key).and_then(Value::as_array).into_iter().flatten();
    list.filter_map(|v| v.as_str().map(str::to_owned)).collect()
}

/// Moves that make the hosts' loads more alike: the plan, and with `apply` as many begun as may be under way. Asked again
/// and again until nothing moves.
pub async fn balance(app: &Arc<App>, body: &Value) -> Result<Value> {
    let limits = Limits {
        moves: body.get("max_moves").and_then(Value::as_u64).unwrap_or(0).min(1000) as usize,
        gain: body.get("min_gain").and_then(Value::as_f64).unwrap_or(0.0),
    };
    if !(limits.gain > 0.0 && limits.gain <= 100.0) {
        return Err(Error::field(
            "min_gain",
            "--min-gain: write a number above 0, and 100 at the most",
        ));
    }
    let but = ids(body, "but");
    let (plan, begun, under_way) = if body.get("apply") == Some(&Value::Bool(true)) {
        app.compute.balance_on(&limits, &but).await?
    } else {
        let (plan, under_way) = app.compute.balance_plan(&limits, &but).await?;
        (plan, vec![], under_way)
    };
    let name = |id: &str| {
        plan.hosts
            .iter()
            .find(|h| h.id == id)
            .map_or(id, |h| &h.name)
            .to_owned()
    };
    let moves = |all: &[Move]| -> Vec<Value> {
        all.iter()
            .map(|m| json!({"id": m.id, "name": m.name, "from": name(&m.from), "to": name(&m.to), "gain": m.gain}))
            .collect()
    };
    let hosts = plan.hosts.iter().map(|h| {
        json!({"id": h.id, "name": h.name, "vcpus": h.vcpus, "memory": h.memory, "vcpus_then": h.then.0, "memory_then": h.then.1})
    });
    let stays = plan
        .stays
        .iter()
        .map(|(id, name, why)| json!({"id": id, "name": name, "why": why}));
    Ok(json!({
        "before": plan.before,
        "after": plan.after,
        "hosts": hosts.collect::<Vec<_>>(),
        "moves": moves(&plan.moves),
        "stays": stays.collect::<Vec<_>>(),
        "begun": moves(&begun),
        "under_way": under_way,
    }))
}

/// Ends the host's membership.
pub async fn remove(app: &Arc<App>, asked: String) -> Result<Value> {
    let this = app.clone();
    app.db
        .write(&operator(), async move |tx| {
            let host = find(&this, tx, &asked).await?;
            this.fleet.remove_host(tx, &host.id).await?;
            Ok(json!({"removed": {"id": host.id, "name": host.name}}))
        })
        .await
}

/// A token for one machine, with the command to run there.
pub async fn token(app: &App, body: &Value) -> Result<Value> {
    let url = app.config.fleet_url().ok_or_else(|| {
        Error::conflict(
            "No host can join: nothing listens for hosts. Set fleet.listen to an address of this machine that they reach, for instance `--set fleet.listen=192.0.2.1:8776`, and start again.",
        )
    })?;
    let minutes = body.get("minutes").and_then(Value::as_u64).unwrap_or(60);
    let minutes = u32::try_from(minutes).unwrap_or(u32::MAX);
    let host = match body.get("host").and_then(Value::as_str) {
        Some(asked) => {
            let mut tx = app.db.read().await?;
            Some(find(app, &mut tx, asked).await?.id)
        }
        None => None,
    };
    let (token, expires_at) = app.fleet.new_token(minutes, host.as_deref()).await?;
    Ok(json!({
        "token": token.to_string(),
        "url": url,
        "expires_at": clock::iso(expires_at),
        "minutes": minutes,
    }))
}
