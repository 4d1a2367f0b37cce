//! rebuild: the root disk is made anew; id, addresses and flavor stay (Nova API reference, "Rebuild Server").

use super::{HostAction, check_lock, check_state, memory};
use crate::Compute;
use crate::logic::create_server::{boot_image, check_image_fits, keys_of};
use crate::model::{Fault, Server, Task, VmState};
use crate::policy::acts;
use haneul_agent_api::{GuestState, ObservedGuest, Power};
use haneul_auth::{Ctx, fetch};
use haneul_core::{Result, clock, fault_point};
use haneul_jobs::{BoxFuture, Job};
use haneul_store::{Stored, Tx};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

/// See the module.
pub(crate) struct Rebuild;

/// What a rebuild may change besides the disk; `None` leaves it as it is.
#[derive(Clone, Debug, Default)]
pub(crate) struct RebuildRequest {
    pub image: String,
    pub name: Option<String>,
    pub hostname: Option<String>,
    pub description: Option<Option<String>>,
    pub metadata: Option<BTreeMap<String, String>>,
    pub key_name: Option<Option<String>>,
    pub user_data: Option<Option<String>>,
    pub access_ip_v4: Option<IpAddr>,
    pub access_ip_v6: Option<IpAddr>,
    pub auto_disk_config: Option<bool>,
    pub trusted_image_certificates: Option<Option<Vec<String>>>,
}

impl Compute {
    /// Begins it (202); answers the server as it is then.
    pub(crate) async fn rebuild_server(
        self: &Arc<Self>,
        ctx: &Ctx,
        id: &str,
        r: RebuildRequest,
    ) -> Result<Stored<Server>> {
        let (app, c, id) = (self.clone(), ctx.clone(), id.to_owned());
        let out = self
            .db
            .write(&ctx.actor(), async move |tx| {
                let old = fetch(tx, &c, acts::Rebuild, &id).await?;
                check_lock(&c, &old, acts::Rebuild)?;
                check_state(
                    &old,
                    "rebuild",
                    &[VmState::Active, VmState::Stopped, VmState::Paused, VmState::Error],
                )?;
                let image = boot_image(&app, tx, &c, &r.image).await?;
                check_image_fits(&c, &old.flavor, &image)?;
                let mut s = old.edit();
                let before = memory(&s);
                s.image = image.into();
                if let Some(name) = &r.name {
                    s.name.clone_from(name);
                }
                if let Some(h) = &r.hostname {
                    s.hostname.clone_from(h);
                }
                if let Some(d) = &r.description {
                    s.description.clone_from(d);
                }
                if let Some(m) = &r.metadata {
                    app.check_metadata(tx, &s.project_id, m).await?;
                    s.metadata.clone_from(m);
                }
                if let Some(k) = &r.key_name {
                    s.key_name.clone_from(k);
                    s.keys = keys_of(tx, &c, k.as_deref()).await?;
                }
                if let Some(u) = &r.user_data {
                    s.user_data.clone_from(u);
                }
                if let Some(certs) = &r.trusted_image_certificates {
                    s.trusted_image_certificates.clone_from(certs);
                }
                s.access_ip_v4 = r.access_ip_v4.or(s.access_ip_v4);
                s.access_ip_v6 = r.access_ip_v6.or(s.access_ip_v6);
                s.auto_disk_config = r.auto_disk_config.unwrap_or(s.auto_disk_config);
                s.rebuilds += 1;
                // Its disk is made anew.
                s.grown_gib = 0;
                if s.wanted == Power::Paused || s.vm_state == VmState::Error {
                    s.wanted = Power::Running;
                }
                app.begin::<Rebuild>(tx, &mut s, Task::Rebuilding, before).await?;
                tx.update(&old, &s).await
            })
            .await?;
        fault_point!("compute.rebuild.committed");
        Ok(out)
    }
}

impl HostAction for Rebuild {
    const KIND: &'static str = "server.rebuild";
    fn deadline_s(config: &haneul_core::config::Compute) -> u64 {
        config.build_timeout_s
    }
    fn met(s: &Server, seen: &ObservedGuest) -> bool {
        seen.rebuilds >= s.rebuilds && matches!(seen.state, GuestState::Running | GuestState::Stopped)
    }
    fn done<'t>(
        app: &'t Compute,
        tx: &'t mut Tx,
        s: &'t mut Server,
        _job: &'t Job,
        seen: &'t ObservedGuest,
    ) -> BoxFuture<'t, Result<()>> {
        Box::pin(async move {
            s.launched_at = Some(clock::now());
            if seen.state == GuestState::Stopped && s.wanted == Power::Running {
                s.wanted = Power::Stopped;
                app.push_guest(tx, s).await?;
            }
            s.settle_as_wanted();
            Ok(())
        })
    }
    /// The old disk is gone: the server is in ERROR with the cause, and another rebuild may mend it.
    fn undo<'t>(
        _app: &'t Compute,
        _tx: &'t mut Tx,
        s: &'t mut Server,
        _job: &'t Job,
        fault: &'t Fault,
    ) -> BoxFuture<'t, Result<()>> {
        s.fail(fault.clone());
        Box::pin(async { Ok(()) })
    }
}
