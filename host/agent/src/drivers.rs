//! Which drivers this host uses.

use crate::shared_disks::SharedDisks;
use haneul_agent_api::{Failure, FailureCode, Guest, Underlay, Uplink, Whereabouts};
use haneul_blockdev::BlockDriver;
use haneul_core::config::Config;
use haneul_core::{Error, Result};
use haneul_hypervisor::Hypervisor;
use haneul_netdev::NetDriver;
use haneul_netdev::real::{Real, RealConfig};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, OnceLock};
use uuid::Uuid;

/// The three drivers of a host.
#[derive(Clone)]
pub struct Drivers {
    pub hypervisor: Arc<dyn Hypervisor>,
    pub net: Arc<dyn NetDriver>,
    /// The host's own disks.
    pub block: Arc<dyn BlockDriver>,
    /// Those in a directory that it shares with other hosts; the running agent alone opens it.
    pub shared: OnceLock<SharedDisks>,
    /// Where other hosts reach this one. All drivers have the same.
    pub underlay: Whereabouts,
    /// Whether the hypervisor is the fake of a lab.
    pub fake: bool,
}

/// Opens the drivers that the configuration names. Fakes come only with `lab = true`, which the
/// configuration has checked.
pub async fn open_drivers(config: &Config, host_id: Uuid) -> Result<Drivers> {
    let dir = config.agent_dir();
    let fake = config.agent.hypervisor == "fake";
    let underlay = Whereabouts::default();
    match find_underlay(config) {
        Ok(Some(found)) => {
            underlay.get_or_init(|| found);
        }
        Ok(None) => {}
        Err(f) => tracing::error!(message = f.message, detail = f.detail, "no underlay address yet"),
    }
    let (hypervisor, block): (Arc<dyn Hypervisor>, Arc<dyn BlockDriver>) = if fake {
        (
            Arc::new(haneul_hypervisor::fake::Fake::open(&dir.join("guests"))?),
            Arc::new(haneul_blockdev::fake::Fake::open(&dir.join("block"))?),
        )
    } else {
        let settings = haneul_hypervisor::qemu::Config {
            accelerator: match config.agent.accelerator.as_str() {
                "auto" => None,
                chosen => Some(chosen.to_owned()),
            },
            dir: dir.join("qemu"),
            no_vnc: !config.compute.vnc,
            underlay: underlay.clone(),
            move_ports: config.agent.ports_of_moves()?,
            ..Default::default()
        };
        // Asking QEMU what it is blocks for about 0.1 s.
        let qemu = tokio::task::spawn_blocking(move || haneul_hypervisor::qemu::Qemu::open(settings))
            .await
            .map_err(Error::internal)?
            .map_err(|e| {
                Error::unavailable(format!(
                    "QEMU cannot be used: {e}. `haneul doctor` says what is missing."
                ))
            })?;
        (
            Arc::new(qemu),
            Arc::new(haneul_blockdev::file::File::open(&dir.join("block"))?),
        )
    };
    let net: Arc<dyn NetDriver> = if config.agent.network == "fake" {
        Arc::new(haneul_netdev::fake::Fake::default())
    } else {
        let uplink = match config.network.uplink.as_str() {
            "isolated" => Uplink::Isolated,
            "nat" => Uplink::Nat,
            other => Uplink::Bridge(other.trim_start_matches("bridge:").to_owned()),
        };
        let upstream = &config.network.dns_upstream;
        let settings = RealConfig {
            dns_upstream: (!upstream.is_empty()).then(|| upstream.iter().map(|ip| (*ip, 53).into()).collect()),
            dns_domain: config.network.dns_domain.clone(),
            underlay: underlay.clone(),
            vxlan_port: config.network.vxlan_port,
            ..RealConfig::new(host_id, uplink, dir.join("net"))
        };
        Arc::new(Real::open(settings).map_err(crate::failed)?)
    };
    Ok(Drivers {
        hypervisor,
        net,
        block,
        shared: OnceLock::new(),
        underlay,
        fake,
    })
}

impl Drivers {
    /// Where other hosts reach this one; looked for anew while that is not known.
    pub(crate) fn underlay(&self, config: &Config) -> Option<Underlay> {
        let known = self.underlay.get().copied();
        known.or_else(|| {
            let found = find_underlay(config).ok().flatten()?;
            Some(*self.underlay.get_or_init(|| found))
        })
    }

    /// Where new guests get their disks.
    pub(crate) fn newest_block(&self) -> &Arc<dyn BlockDriver> {
        self.shared.get().map_or(&self.block, |s| &s.block)
    }

    /// Where a guest's disks are.
    ///
    /// # Errors
    /// In a directory that this host does not have.
    pub(crate) fn block_of(&self, guest: &Guest) -> Result<&Arc<dyn BlockDriver>, Failure> {
        let Some(wanted) = guest.shared_disks else {
            return Ok(&self.block);
        };
        match self.shared.get() {
            Some(s) if s.marker == wanted => Ok(&s.block),
            other => Err(Failure {
                code: FailureCode::Unsupported,
                message: format!(
                    "the server's disks are in the shared directory {wanted}, and this host has {}: its administrator has to mount the directory and name it in agent.shared_disks",
                    other
                        .as_ref()
                        .map_or_else(|| "none".into(), |s| format!("the directory {}", s.marker))
                ),
                detail: String::new(),
            }),
        }
    }
}

/// Some address of the world: only the way there is asked for.
const AFAR: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

/// A host without one serves its own guests; only networks that span hosts fail there, and say so.
fn find_underlay(config: &Config) -> Result<Option<Underlay>, Failure> {
    if config.agent.network == "fake" {
        return Ok(config.agent.underlay.map(|address| Underlay { address, mtu: 1500 }));
    }
    haneul_netdev::real::underlay(config.agent.underlay, AFAR)
}

/// How guests would run here: `kvm`, `tcg` or `fake`, whether KVM works, and why.
pub fn accelerator(config: &Config) -> Result<(String, bool, String)> {
    if config.agent.hypervisor == "fake" {
        return Ok(("fake".into(), false, "agent.hypervisor = \"fake\": nothing runs".into()));
    }
    let probe = haneul_hypervisor::kvm::probe_accelerator();
    let kvm = probe.kind == "kvm";
    Ok(match config.agent.accelerator.as_str() {
        "auto" => (probe.kind, kvm, probe.reason),
        chosen => (
            chosen.to_owned(),
            kvm,
            format!("agent.accelerator = \"{chosen}\"; the probe says: {}", probe.reason),
        ),
    })
}
