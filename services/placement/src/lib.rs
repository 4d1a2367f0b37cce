//! Placement: what providers have (inventories), who holds how much of it (allocations).
//!
//! Owns resource providers, inventories, allocations and usages. An inventory row counts what is used, and a
//! claim is a guarded update of that row in the caller's transaction: two claims can never both fit into
//! what is left for one.
//!
//! Candidates are decided on a snapshot of all trees, by pure functions (`logic`).
//!
//! Knows nothing of servers: a consumer is an id.

mod api;
mod facade;
mod logic;
mod model;
mod names;
mod policy;

pub use facade::{Placement, ProviderState};
pub use model::{Inventory, ResourceProvider};
pub use policy::RULES;

use haneul_store::Migration;

/// Tables.
pub const MIGRATIONS: &[Migration] = &[Migration {
    owner: "placement",
    number: 1,
    sql: "CREATE TABLE placement_provider(id TEXT PRIMARY KEY, project_id TEXT, name TEXT NOT NULL UNIQUE, generation BIGINT NOT NULL,
              created_at BIGINT NOT NULL, updated_at BIGINT NOT NULL, doc TEXT NOT NULL);
          CREATE TABLE placement_inventory(provider_id TEXT NOT NULL, class TEXT NOT NULL, total BIGINT NOT NULL,
              reserved BIGINT NOT NULL, min_unit BIGINT NOT NULL, max_unit BIGINT NOT NULL, step_size BIGINT NOT NULL,
              allocation_ratio DOUBLE PRECISION NOT NULL, capacity BIGINT NOT NULL, used BIGINT NOT NULL,
              PRIMARY KEY(provider_id, class));
          CREATE TABLE placement_consumer(id TEXT PRIMARY KEY, project_id TEXT NOT NULL, user_id TEXT NOT NULL,
              generation BIGINT NOT NULL, type TEXT NOT NULL);
          CREATE TABLE placement_allocation(consumer_id TEXT NOT NULL, provider_id TEXT NOT NULL, class TEXT NOT NULL,
              amount BIGINT NOT NULL, PRIMARY KEY(consumer_id, provider_id, class));
          CREATE INDEX placement_allocation_by_provider ON placement_allocation(provider_id);
          CREATE TABLE placement_name(kind TEXT NOT NULL, name TEXT NOT NULL, PRIMARY KEY(kind, name))",
}];
