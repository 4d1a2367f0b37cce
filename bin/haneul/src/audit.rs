//! `haneul audit`: compares all services with each other and with the hosts, and says what disagrees and what
//! would repair it. Every test cloud ends with it and finds nothing.

use crate::hosts::more;
use crate::serve::App;
use haneul_agent_api::{Ask, HostAudit, Kind};
use haneul_core::Result;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// Something that disagrees.
pub struct Finding {
    pub what: String,
    pub repair: String,
}

fn finding(what: String, repair: &str) -> Finding {
    Finding {
        what,
        repair: repair.to_owned(),
    }
}

/// Runs the whole audit.
pub async fn run(app: &Arc<App>) -> Result<Vec<Finding>> {
    let mut out = Vec::new();
    {
        let mut tx = app.db.read().await?;
        for (provider, class, used, sum) in app.placement.wrong_sums(&mut tx).await? {
            out.push(finding(
                format!("provider {provider}: {class} says {used} used, and its allocations are {sum} together"),
                "set the counter to the sum of the allocations",
            ));
        }
        out.extend(
            app.compute
                .audit(&mut tx)
                .await?
                .into_iter()
                .map(|f| finding(f.what, &f.repair)),
        );
        out.extend(
            app.network
                .audit(&mut tx)
                .await?
                .into_iter()
                .map(|f| finding(f.what, &f.repair)),
        );
    }
    hosts(app, &mut out).await?;
    Ok(out)
}

async fn hosts(app: &Arc<App>, out: &mut Vec<Finding>) -> Result<()> {
    let mut tx = app.db.read().await?;
    let hosts = app.fleet.hosts(&mut tx).await?;
    let mut desired = Vec::new();
    for kind in Kind::ALL {
        for (host, id, removed) in app.fleet.all_desired(&mut tx, kind).await? {
            desired.push((host, kind, id, removed));
        }
    }
    let servers = app.compute.shared_disks_of_servers(&mut tx).await?;
    drop(tx);
    let mut compared = BTreeSet::new();
    for host in hosts {
        for more in more(&host) {
            out.push(finding(
                format!(
                    "host {} ({}) says that it has more than before: {more}",
                    host.name, host.id
                ),
                "look at the machine; `haneul host enable` accepts it",
            ));
        }
        if !host.up {
            out.push(finding(
                format!(
                    "host {} ({}) is not connected: what is on it cannot be compared",
                    host.name, host.id
                ),
                "start `haneul agent` on it",
            ));
            continue;
        }
        let bytes = match app.fleet.ask(&host.id, Ask::Audit, Duration::from_secs(20)).await {
            Ok(bytes) => bytes,
            Err(e) => {
                let what = format!(
                    "host {} ({}) is up and does not answer: {}",
                    host.name,
                    host.id,
                    e.public()
                );
                out.push(finding(what, "`haneul logs agent` on it says why"));
                continue;
            }
        };
        let seen: HostAudit = serde_json::from_slice(&bytes)?;
        let want = |kind: Kind| -> BTreeSet<String> {
            desired
                .iter()
                .filter(|(h, k, _, removed)| *h == host.id && *k == kind && !removed)
                .map(|(_, _, id, _)| id.clone())
                .collect()
        };
        // A tombstone under way is nobody's mistake yet: its objects may still be there.
        let going: BTreeSet<&str> = desired
            .iter()
            .filter(|(h, _, _, removed)| *h == host.id && *removed)
            .map(|(_, _, id, _)| id.as_str())
            .collect();
        let have = |ids: &[_]| -> BTreeSet<String> { ids.iter().map(ToString::to_string).collect() };
        for (kind, have) in [
            (Kind::Guest, have(&seen.records)),
            (Kind::Port, have(&seen.ports)),
            (Kind::Network, have(&seen.networks)),
            (Kind::Router, have(&seen.routers)),
        ] {
            let want = want(kind);
            for id in have.difference(&want).filter(|id| !going.contains(id.as_str())) {
                out.push(finding(
                    format!("host {} holds {} {id}, which nobody desires", host.name, kind.as_str()),
                    "adopt it, or remove it by a tombstone",
                ));
            }
            if kind != Kind::Guest {
                for id in want.difference(&have) {
                    out.push(finding(
                        format!("host {} lacks {} {id}, which it should hold", host.name, kind.as_str()),
                        "the agent makes it in its next round; `haneul logs agent` says why it does not",
                    ));
                }
            }
        }
        let guests = want(Kind::Guest);
        for id in have(&seen.running).union(&have(&seen.disks)) {
            if !guests.contains(id) && !going.contains(id.as_str()) && !have(&seen.records).contains(id) {
                out.push(finding(
                    format!("host {}: a process or disk of guest {id} is left", host.name),
                    "remove it by hand after a look at it",
                ));
            }
        }
        if let Some(marker) = host.hypervisor.shared_disks
            && compared.insert(marker)
        {
            let marker = marker.to_string();
            let shown: BTreeSet<String> = have(&seen.shared_disks);
            let theirs = |id: &String| servers.get(id).is_some_and(|m| *m == marker);
            let buried = |id: &String| {
                desired
                    .iter()
                    .any(|(_, k, d, removed)| *k == Kind::Guest && d == id && *removed)
            };
            for id in shown.iter().filter(|id| !theirs(id) && !buried(id)) {
                out.push(finding(
                    format!("a disk of guest {id} is left in the shared directory {marker}, and no server has it"),
                    "remove servers/ID in it by hand after a look at it",
                ));
            }
        }
        out.extend(
            seen.findings
                .into_iter()
                .map(|f| finding(format!("host {}: {f}", host.name), "see the agent's log")),
        );
    }
    Ok(())
}
