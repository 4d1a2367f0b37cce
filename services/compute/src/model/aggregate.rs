//! Host aggregates: hosts that an administrator speaks of together; an availability zone is one that says so.

use haneul_auth::{Secured, Target};
use haneul_core::Error;
use haneul_store::Resource;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// The key of the metadata that makes a zone of an aggregate.
pub const ZONE: &str = "availability_zone";

/// See the module.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Aggregate {
    /// The number, as text.
    pub id: String,
    /// Since 2.41.
    pub uuid: String,
    pub name: String,
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
    /// Ids of hosts.
    #[serde(default)]
    pub hosts: BTreeSet<String>,
}

impl Aggregate {
    /// The zone that it is, if it is one.
    pub fn zone(&self) -> Option<&str> {
        self.metadata.get(ZONE).map(String::as_str)
    }
}

impl Resource for Aggregate {
    const KIND: &'static str = "aggregate";
    const TABLE: &'static str = "host_aggregate";
    fn id(&self) -> &str {
        &self.id
    }
    fn project_id(&self) -> Option<&str> {
        None
    }
    fn name(&self) -> &str {
        &self.name
    }
}

impl Secured for Aggregate {
    fn target(&self) -> Target {
        Target::default()
    }
    fn not_found(id: &str) -> Error {
        Error::not_found(format!("Aggregate {id} could not be found."))
    }
}
