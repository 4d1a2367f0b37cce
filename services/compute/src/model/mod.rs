//! Pure types: what is stored and shown. No IO, no wire format.

pub mod aggregate;
pub mod flavor;
pub mod group;
pub mod keypair;
pub mod migration;
pub mod server;
pub mod service;
pub mod state;

pub use aggregate::Aggregate;
pub use flavor::{Flavor, FlavorShot};
pub use group::ServerGroup;
pub use keypair::Keypair;
pub use migration::{Migration, MigrationKind};
pub use server::{Fault, Server};
pub use service::ComputeService;
pub use state::{MigrationStatus, Task, VmState, power};
