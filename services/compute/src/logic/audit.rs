//! What of this service disagrees with itself, with placement, quotas and the hosts.

use crate::Compute;
use crate::logic::delete_server::counted;
use crate::logic::quota::{self, COUNTED};
use crate::model::{Server, Task};
use haneul_agent_api::Kind;
use haneul_core::Result;
use haneul_store::{Query, Tx};
use std::collections::{BTreeMap, HashMap, HashSet};

/// Something that disagrees, and what mends it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub what: String,
    pub repair: String,
}

impl Compute {
    /// Servers with disks in directories that hosts share, and the markers of these.
    pub async fn shared_disks_of_servers(&self, tx: &mut Tx) -> Result<BTreeMap<String, String>> {
        let all = tx.list::<Server>(&Query::new()).await?;
        let of = |s: Server| s.shared_disks.map(|marker| (s.id, marker));
        Ok(all.into_iter().filter_map(|s| of(s.value)).collect())
    }

    /// Compares; empty when all is well.
    pub async fn audit(&self, tx: &mut Tx) -> Result<Vec<Finding>> {
        let mut out = Vec::new();
        let mut find = |what: String, repair: String| out.push(Finding { what, repair });
        let servers: Vec<Server> = tx
            .list::<Server>(&Query::new())
            .await?
            .into_iter()
            .map(|s| s.value)
            .collect();
        let by_id: HashMap<&str, &Server> = servers.iter().map(|s| (s.id.as_str(), s)).collect();

        let mut live = HashSet::new();
        for row in tx
            .rows(
                "SELECT subject_id, kind FROM job WHERE status = 'running' AND subject_kind = 'server'",
                &[],
            )
            .await?
        {
            let (id, kind) = (row.str(0)?, row.str(1)?);
            match by_id.get(id.as_str()) {
                Some(s) if s.task_state.is_none() => find(
                    format!("the job {kind} of server {id} runs, but nothing is being done to the server"),
                    format!("haneul jobs cancel (server {id})"),
                ),
                None => find(
                    format!("the job {kind} runs for server {id}, which does not exist"),
                    "haneul jobs cancel".into(),
                ),
                Some(_) => {}
            }
            live.insert(id);
        }
        for s in servers
            .iter()
            .filter(|s| s.task_state.is_some() && !live.contains(&s.id))
        {
            find(
                format!(
                    "server {} is {} ({:?}) and no job works on it",
                    s.id,
                    s.status(),
                    s.task_state.map(|t| t.as_str())
                ),
                format!("openstack server set --state error {}, then repeat the action", s.id),
            );
        }

        let consumers: HashSet<String> = self.placement.consumers(tx).await?.into_iter().collect();
        for id in consumers.iter().filter(|id| !by_id.contains_key(id.as_str())) {
            find(
                format!("consumer {id} holds an allocation and is no server"),
                format!("openstack resource provider allocation delete {id}"),
            );
        }
        for s in &servers {
            // On its way it holds both hosts.
            let Some(host) = s.host_id.as_ref().filter(|_| !s.task_state.is_some_and(Task::moves)) else {
                continue;
            };
            let mut want: BTreeMap<(&str, &str), i64> = BTreeMap::new();
            let before = s.old_flavor.as_ref().unwrap_or(&s.flavor);
            for (at, flavor) in [(host, &s.flavor), (s.old_host_id.as_ref().unwrap_or(host), before)] {
                for (class, n) in flavor.amounts(s.image.gib()) {
                    let most = want.entry((at, class)).or_default();
                    *most = (*most).max(n);
                }
            }
            want.retain(|_, n| *n > 0);
            let held = self.placement.allocations(tx, &s.id).await?;
            let have: BTreeMap<(&str, &str), i64> = held
                .iter()
                .map(|(p, class, n)| ((p.as_str(), class.as_str()), *n))
                .collect();
            if have != want {
                find(
                    format!("server {} should hold {want:?} of hosts and holds {have:?}", s.id),
                    format!("delete server {} or restore its allocation through placement", s.id),
                );
            }
        }
        for (provider, class, used, sum) in self.placement.wrong_sums(tx).await? {
            find(
                format!("provider {provider} counts {used} of {class} as used, and its allocations sum up to {sum}"),
                "set the inventory again through placement".into(),
            );
        }

        for (host, id, removed) in self.fleet.all_desired(tx, Kind::Guest).await? {
            match by_id.get(id.as_str()) {
                None if !removed => find(
                    format!("host {host} shall run guest {id}, and there is no such server"),
                    "the guest is left running; adopt it or remove it by hand".into(),
                ),
                Some(s) if s.task_state.is_some_and(Task::moves) => {}
                Some(s) if !removed && s.host_id.as_deref() != Some(&host) => find(
                    format!(
                        "host {host} shall run guest {id}, and server {id} is on {:?}",
                        s.host_id
                    ),
                    "remove the older of both".into(),
                ),
                _ => {}
            }
        }

        let mut used: BTreeMap<(String, &str), i64> = BTreeMap::new();
        for s in &servers {
            let (cores, ram) = counted(s);
            for (name, n) in COUNTED.into_iter().zip([1, cores, ram]) {
                *used.entry((s.project_id.clone(), name)).or_default() += n;
            }
        }
        for name in COUNTED {
            for row in tx
                .rows(
                    "SELECT project_id, used FROM quota WHERE resource = $1",
                    &[quota::key(name).into()],
                )
                .await?
            {
                let (project, counted) = (row.str(0)?, row.i64(1)?);
                let real = used.remove(&(project.clone(), name)).unwrap_or(0);
                if counted != real {
                    find(
                        format!("project {project}: the quota counts {counted} of {name}, and its servers have {real}"),
                        "haneul audit --repair quota".into(),
                    );
                }
            }
        }
        for ((project, name), n) in used.into_iter().filter(|(_, n)| *n > 0) {
            find(
                format!("project {project}: the quota counts nothing of {name}, and its servers have {n}"),
                "haneul audit --repair quota".into(),
            );
        }
        Ok(out)
    }
}
