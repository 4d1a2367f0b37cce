//! What the scheduler is asked for a server, and what is looked at again where a decision is written.

use crate::Compute;
use crate::logic::decide::{GroupWish, Request};
use crate::model::{ComputeService, Server, ServerGroup};
use haneul_agent_api::HypervisorInfo;
use haneul_core::{Error, Kind, Result};
use haneul_store::Tx;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

impl Request {
    /// What a server asks for by what it is, wherever it goes. Its group and the servers that its hints name are for
    /// [`Compute::scheduled`].
    pub(crate) fn of(s: &Server) -> Request {
        Request {
            amounts: s.amounts().map(|(_, n)| n),
            count: 1,
            zone: s.pinned_availability_zone.clone(),
            project: s.project_id.clone(),
            extra_specs: s.flavor.extra_specs.clone(),
            image: s.image.properties.clone(),
            near: near(&s.scheduler_hints),
            ..Request::default()
        }
    }
}

/// `build_near_host_ip`, and `cidr` (by default the 256 addresses around it).
fn near(hints: &Value) -> Option<(IpAddr, u8)> {
    let text = |name: &str| hints.get(name).and_then(Value::as_str);
    let address = text("build_near_host_ip")?.parse().ok()?;
    let length = text("cidr").and_then(|c| c.trim_start_matches('/').parse().ok());
    Some((address, length.unwrap_or(24)))
}

/// The servers or groups that a hint names.
pub(crate) fn hinted(hints: &Value, name: &str) -> Vec<String> {
    match hints.get(name) {
        Some(Value::String(s)) => vec![s.clone()],
        Some(Value::Array(a)) => a.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        _ => vec![],
    }
}

impl Compute {
    /// What is asked for a server that exists, with what its group and its hints mean by now.
    pub(crate) async fn scheduled(&self, tx: &mut Tx, s: &Server) -> Result<Request> {
        let mut r = Request::of(s);
        (r.avoid, r.only) = self.hinted_hosts(tx, &s.scheduler_hints).await?;
        if let Some(id) = &s.server_group
            && let Some(g) = tx.find::<ServerGroup>(id).await?
        {
            r.group = Some(self.group_wish(tx, &g, Some(&s.id)).await?);
        }
        Ok(r)
    }

    /// Hosts of the servers that `different_host` and `same_host` name.
    pub(crate) async fn hinted_hosts(&self, tx: &mut Tx, hints: &Value) -> Result<(Vec<String>, Option<Vec<String>>)> {
        let mut hosts_of = [None, None];
        for (hosts, hint) in hosts_of.iter_mut().zip(["different_host", "same_host"]) {
            let names = hinted(hints, hint);
            if names.is_empty() {
                continue;
            }
            let mut found = Vec::new();
            for id in names {
                found.extend(tx.find::<Server>(&id).await?.and_then(|s| s.host_id.clone()));
            }
            *hosts = Some(found);
        }
        let [avoid, only] = hosts_of;
        Ok((avoid.unwrap_or_default(), only))
    }

    /// A group's wish, with how many of its servers, but for one, each host has or is about to have.
    pub(crate) async fn group_wish(&self, tx: &mut Tx, g: &ServerGroup, but: Option<&str>) -> Result<GroupWish> {
        let rows = tx
            .rows(
                "SELECT id, host_id, task_state FROM server WHERE server_group = $1 AND host_id <> '' AND id <> $2",
                &[g.id.as_str().into(), but.unwrap_or_default().into()],
            )
            .await?;
        let mut members = BTreeMap::new();
        for row in rows {
            let mut hosts = BTreeSet::from([row.str(1)?]);
            // On its way it holds a place on two hosts.
            if !row.str(2)?.is_empty() {
                let held = self.placement.allocations(tx, &row.str(0)?).await?;
                hosts.extend(held.into_iter().map(|(provider, _, _)| provider));
            }
            for host in hosts {
                *members.entry(host).or_insert(0) += 1;
            }
        }
        Ok(GroupWish {
            policy: g.policy.clone(),
            max_per_host: g.max_server_per_host.unwrap_or(1),
            members,
        })
    }

    /// Refuses more members than the project's quota allows a group.
    pub(crate) async fn check_group_room(
        &self,
        tx: &mut Tx,
        g: &ServerGroup,
        has: &GroupWish,
        count: usize,
    ) -> Result<()> {
        let limit = self.limit(tx, &g.project_id, "server_group_members").await?;
        let held: i64 = has.members.values().sum();
        if limit >= 0 && held + count as i64 > limit {
            return Err(Error::new(
                Kind::OverQuota,
                format!(
                    "Quota exceeded, too many servers in group: it has {held} of {limit}, and {count} more are asked for."
                ),
            ));
        }
        Ok(())
    }

    /// Whether a server's group still allows it on a host, in the transaction that puts it there: another member may have
    /// come since it was decided.
    pub(crate) async fn group_allows(&self, tx: &mut Tx, s: &Server, host: &str) -> Result<bool> {
        let Some(id) = &s.server_group else { return Ok(true) };
        let Some(g) = tx.find::<ServerGroup>(id).await? else {
            return Ok(true);
        };
        let wish = self.group_wish(tx, &g, Some(&s.id)).await?;
        let here = wish.members.get(host).copied().unwrap_or(0);
        Ok(wish.allows(here, wish.members.values().sum()))
    }

    /// Tells placement what a host is, by the traits that are the host's own to say.
    pub(crate) async fn host_traits(&self, tx: &mut Tx, host: &str, h: &HypervisorInfo) -> Result<()> {
        let ours = |t: &str| t.starts_with("HW_CPU_") || t.starts_with("HW_ARCH_") || t == "COMPUTE_NODE";
        self.placement.set_traits(tx, host, ours, &traits_of(h)).await
    }

    /// A service was changed, or made: placement says who is switched off, and the next decision sees it.
    pub(crate) async fn service_changed(&self, tx: &mut Tx, s: &ComputeService) -> Result<()> {
        const OFF: &str = "COMPUTE_STATUS_DISABLED";
        let has: &[String] = if s.disabled { &[OFF.to_owned()] } else { &[] };
        self.placement.set_traits(tx, &s.host_id, |t| t == OFF, has).await?;
        let cache = self.snapshot.clone();
        tx.after_commit(move || cache.drop_it());
        Ok(())
    }
}

/// The standard traits of a host; names that are none of the standard's are left out by placement.
fn traits_of(h: &HypervisorInfo) -> Vec<String> {
    let arch = h.arch.to_ascii_uppercase();
    let mut out = vec!["COMPUTE_NODE".to_owned(), format!("HW_ARCH_{arch}")];
    if arch == "X86_64" {
        for feature in &h.cpu_features {
            let name: String = feature.chars().filter(char::is_ascii_alphanumeric).collect();
            let name = match name.to_ascii_uppercase().as_str() {
                "AES" => "AESNI".to_owned(),
                "PCLMULQDQ" => "CLMUL".into(),
                "FMA" => "FMA3".into(),
                "BMI1" => "BMI".into(),
                "SHANI" => "SHA".into(),
                "PNI" => "SSE3".into(),
                other => other.into(),
            };
            out.push(format!("HW_CPU_X86_{name}"));
        }
    }
    out
}
