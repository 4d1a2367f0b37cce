//! Compute (Nova API 2.1): flavors, servers and what is done to them.
//!
//! Owns servers, flavors, keypairs, server groups and the compute service of each host. A server is one row
//! whose document says what it is (`vm_state`), what is being done (`task_state`) and what the host shall
//! bring about (`wanted`); the host hears of it as a desired guest only.
//!
//! Invariants: a server with a task state has a running job; a server with a host has an allocation there;
//! POST /servers is one transaction; who fits where is decided by a pure function ([`decide`]) and verified
//! by guarded updates; tenants never see a host's name.

mod api;
mod jobs;
mod logic;
mod model;
mod policy;
mod store;

pub use logic::audit::Finding;
pub use logic::balance;
pub use logic::console::{Console, Seat};
pub use logic::decide;
pub use logic::drain;
pub use logic::evacuate::{Loss, Stranded};
pub use model::{ComputeService, Flavor, FlavorShot, Keypair, Server, ServerGroup};
pub use policy::RULES;
pub use store::MIGRATIONS;

use haneul_core::config::Config;
use haneul_fleet::Fleet;
use haneul_http::Routes;
use haneul_jobs::{Jobs, Saga};
use haneul_placement::Placement;
use haneul_store::Db;

use logic::deps::{Image, Network};
use std::sync::Arc;

/// The facade: one per process.
pub struct Compute {
    pub(crate) db: Db,
    pub(crate) config: haneul_core::config::Compute,
    pub(crate) jobs: Jobs,
    pub(crate) fleet: Arc<Fleet>,
    pub(crate) placement: Arc<Placement>,
    pub(crate) image: Arc<Image>,
    pub(crate) network: Arc<Network>,
    pub(crate) snapshot: logic::snapshot::Cache,
    pub(crate) weights: logic::decide::Weights,
    /// Who places members of server groups does so one after the other: each sees where those before are.
    pub(crate) groups: tokio::sync::Mutex<()>,
    pub(crate) public_url: String,
    pub(crate) seats: logic::console::Seats,
    pub(crate) interfaces: logic::interfaces::Ended,
    pub(crate) uploads: logic::actions::create_image::Uploads,
    /// Rung when the lease of a lost host has ended.
    pub(crate) lost: Arc<tokio::sync::Notify>,
}

impl Compute {
    /// The service on its database and the other services' facades.
    pub fn new(
        db: Db,
        config: &Config,
        jobs: Jobs,
        fleet: Arc<Fleet>,
        placement: Arc<Placement>,
        image: Arc<Image>,
        network: Arc<Network>,
    ) -> Arc<Compute> {
        Arc::new(Compute {
            db,
            config: config.compute.clone(),
            jobs,
            fleet,
            placement,
            image,
            network,
            snapshot: logic::snapshot::Cache::default(),
            weights: (&config.scheduler).into(),
            groups: tokio::sync::Mutex::default(),
            public_url: config.public_url(),
            seats: logic::console::Seats::default(),
            interfaces: logic::interfaces::Ended::default(),
            uploads: logic::actions::create_image::Uploads::default(),
            lost: Arc::default(),
        })
    }

    /// The route table.
    pub fn routes(self: &Arc<Self>) -> Routes<Compute> {
        api::routes(self)
    }

    /// The jobs of this service, for the engine.
    pub fn sagas(self: &Arc<Self>) -> Vec<Arc<dyn Saga>> {
        jobs::all(self)
    }
}
