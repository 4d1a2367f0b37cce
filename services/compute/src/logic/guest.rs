//! The desired guest of a server: all that a host needs, and nothing that it has to ask for.

use crate::Compute;
use crate::logic::deps::ServerPort;
use crate::model::{Server, Task};
use haneul_agent_api::{Guest, Kind, LocalDisk, LocalKind, Metadata, Nic, Object, RootDisk, START_ORDER};
use haneul_core::{Error, Result};
use haneul_store::Tx;
use std::collections::BTreeMap;
use uuid::Uuid;

/// The card of a port.
pub(crate) fn nic(p: &ServerPort) -> Result<Nic> {
    Ok(Nic {
        port_id: Uuid::try_parse(&p.port_id).map_err(|e| Error::internal(format!("port {}: {e}", p.port_id)))?,
        mac: p.mac.clone(),
        mtu: p.mtu,
    })
}

fn uuid(text: &Option<String>) -> Result<Option<Uuid>> {
    let parsed = text.as_deref().map(Uuid::try_parse).transpose();
    parsed.map_err(Error::internal)
}

/// Builds it from the server and its ports, in the order of the NICs.
pub(crate) fn desired(s: &Server, ports: &[ServerPort], request_id: &str) -> Result<Guest> {
    let mut hints = s.flavor.extra_specs.clone();
    hints.retain(|k, _| k.starts_with("hw:"));
    hints.extend(
        s.image
            .properties
            .iter()
            .filter(|(k, _)| k.starts_with("hw_"))
            .map(|(k, v)| (k.clone(), v.clone())),
    );
    let nics = ports.iter().map(nic).collect::<Result<Vec<_>>>()?;
    Ok(Guest {
        id: s.uuid()?,
        name: s.name.clone(),
        project_id: s.project_id.clone(),
        request_id: request_id.to_owned(),
        vcpus: s.flavor.vcpus as u32,
        memory_mib: s.flavor.ram as u64,
        root: RootDisk {
            image: s.image.reference()?,
            size_gib: s.flavor.disk.max(s.grown_gib) as u64,
        },
        shared_disks: uuid(&s.shared_disks)?,
        // What was there before it meant something is no reason to fail.
        start_order: start_order(&s.metadata).ok().flatten().unwrap_or(START_ORDER),
        local_disks: local_disks(s),
        nics,
        power: s.wanted,
        stop_timeout_s: 60,
        soft_reboots: s.soft_reboots,
        hard_reboots: s.hard_reboots,
        rebuilds: s.rebuilds,
        password_clears: s.password_clears,
        config_drive: s.config_drive,
        metadata: metadata(s),
        cpu_model: None,
        hints,
        snapshot: uuid(&s.snapshot)?,
        arriving: None,
        leaving: None,
    })
}

/// What the flavor gives beside the root disk, in Nova's order.
fn local_disks(s: &Server) -> Vec<LocalDisk> {
    let ephemeral = (LocalKind::Ephemeral, s.flavor.ephemeral * 1024);
    [ephemeral, (LocalKind::Swap, s.flavor.swap)]
        .into_iter()
        .filter_map(|(kind, mib)| {
            u64::try_from(mib)
                .ok()
                .filter(|m| *m > 0)
                .map(|mib| LocalDisk { kind, mib })
        })
        .collect()
}

/// Metadata key that says when a server starts after a boot of its host, or after the loss of one.
pub(crate) const START_ORDER_KEY: &str = "haneul:start_order";

/// What a server's metadata say of its order.
///
/// # Errors
/// It is no number from 0 to 999.
pub(crate) fn start_order(metadata: &BTreeMap<String, String>) -> Result<Option<u32>> {
    let Some(text) = metadata.get(START_ORDER_KEY) else {
        return Ok(None);
    };
    match text.parse() {
        Ok(n @ 0..=999) => Ok(Some(n)),
        _ => Err(Error::field(
            START_ORDER_KEY,
            format!(
                "{START_ORDER_KEY} is {text:?}: write a number from 0 to 999. Servers with smaller ones start first; without it, it is {START_ORDER}."
            ),
        )),
    }
}

fn metadata(s: &Server) -> Metadata {
    let names = local_disks(s).into_iter().zip(["/dev/vdb", "/dev/vdc"]);
    let name = |kind| match kind {
        LocalKind::Ephemeral => "ephemeral0".to_owned(),
        LocalKind::Swap => "swap".to_owned(),
    };
    Metadata {
        block_devices: names.map(|(d, at)| (name(d.kind), at.to_owned())).collect(),
        hostname: s.hostname.clone(),
        instance_type: s.flavor.name.clone(),
        ec2_number: s.ec2_number as u64,
        availability_zone: s.availability_zone.clone(),
        public_keys: s.keys.clone(),
        meta: s.metadata.clone(),
        user_data: s.user_data.clone(),
        launch_index: s.launch_index,
        security_groups: s.security_groups.clone(),
        admin_pass: None,
    }
}

impl Compute {
    /// Brings the host's desired guest to what the server says now; NICs and the admin password stay as they
    /// are. The generation that observations must reach goes into the server.
    pub(crate) async fn push_guest(&self, tx: &mut Tx, s: &mut Server) -> Result<()> {
        // Of a server that is being deleted its tombstone is the last word to the host.
        if s.task_state == Some(Task::Deleting) {
            return Ok(());
        }
        let Some(host) = s.host_id.clone() else {
            return Err(Error::conflict(format!(
                "Instance {} has no host, and can only be deleted.",
                s.id
            )));
        };
        let old = match self.fleet.desired(tx, &host, Kind::Guest, &s.id).await? {
            Some((_, Object::Guest(g))) => Some(*g),
            _ => None,
        };
        let request_id = tx.actor().request_id.clone();
        let guest = match old {
            Some(old) => {
                let mut new = desired(s, &[], &request_id)?;
                new.nics = old.nics;
                new.metadata.admin_pass = old.metadata.admin_pass;
                if s.task_state.is_some_and(Task::moves) {
                    (new.arriving, new.leaving) = (old.arriving, old.leaving);
                }
                new
            }
            None => {
                // A failed build took it away: made anew with the ports that the server still has.
                let ids = [s.id.clone()];
                let ports = self
                    .network
                    .server_ports(tx, &ids)
                    .await?
                    .remove(&s.id)
                    .unwrap_or_default();
                desired(s, &ports, &request_id)?
            }
        };
        s.desired_generation = self.fleet.put(tx, &host, &Object::Guest(Box::new(guest))).await?;
        Ok(())
    }
}
