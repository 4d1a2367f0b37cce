//! Neutron v2.0: networks, subnets, ports, routers, floating IPs, security groups.
//!
//! Owns the tables of [`MIGRATIONS`]. Addresses are handed out inside the transaction that stores the port,
//! guarded by the primary key of `ip_allocation`: never twice. Every change ends with `publish`
//! (logic/publish.rs), which writes what hosts shall hold in the same transaction. Compute calls the methods
//! of [`Network`] in logic/compute.rs and, for its old proxies, in logic/proxies inside its own transactions.
//!
//! Knows nothing of servers but the id in `device_id`; never calls a host.
//!
//! API reference: <https://docs.openstack.org/api-ref/network/v2/>.

mod api;
mod err;
mod logic;
mod model;
mod policy;
mod store;

pub use logic::attach::Holder;
pub use logic::audit::Finding;
pub use logic::compute::{NicRequest, ServerPort};
pub use logic::proxies::{NamedNetwork, NewRule, PooledIp, SecurityGroup, SecurityGroupRule};
pub use policy::RULES;
pub use store::MIGRATIONS;

use haneul_core::Result;
use haneul_core::config::Config;
use haneul_fleet::Fleet;
use haneul_http::Routes;
use haneul_store::{Actor, Db};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// What the service needs of the configuration.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub mtu: u32,
    pub external_name: String,
    pub external_cidr: Option<String>,
    pub dns_domain: String,
    pub availability_zone: String,
    /// For how long a router's host may be silent.
    pub router_failover: Duration,
}

/// The service's state and facade.
pub struct Network {
    pub(crate) db: Db,
    pub(crate) fleet: Arc<Fleet>,
    pub(crate) settings: Settings,
    /// Somebody left a row in `members_changed`.
    pub(crate) members_wake: Arc<Notify>,
    /// Hosts whose stream is gone.
    pub(crate) silent: Arc<logic::gateways::Silent>,
}

impl Network {
    /// Makes the service: at first start the external network, and the tasks that tell hosts the members of
    /// security groups and that move routers off silent hosts.
    pub async fn new(db: Db, config: &Config, fleet: Arc<Fleet>) -> Result<Arc<Self>> {
        let app = Arc::new(Self {
            db,
            fleet,
            settings: Settings {
                mtu: config.network.mtu,
                external_name: config.network.external_name.clone(),
                external_cidr: config.network.external_cidr.clone(),
                dns_domain: config.network.dns_domain.clone(),
                availability_zone: config.compute.availability_zone.clone(),
                router_failover: Duration::from_secs(config.network.router_failover_s),
            },
            members_wake: Arc::new(Notify::new()),
            silent: Arc::default(),
        });
        let me = app.clone();
        app.db
            .write(&Actor::system("start"), async move |tx| me.bootstrap(tx, "").await)
            .await?;
        tokio::spawn(app.clone().follow_members());
        tokio::spawn(app.clone().follow_silence());
        Ok(app)
    }

    /// Tells hosts the members of security groups that changed; tests call it instead of waiting.
    pub async fn settle(self: &Arc<Self>) -> Result<()> {
        self.publish_members().await
    }

    /// The route table.
    pub fn routes(self: &Arc<Self>) -> Routes<Network> {
        api::routes(self)
    }
}
