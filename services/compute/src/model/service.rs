//! The compute service of a host: what operators switch on and off.

use haneul_auth::{Secured, Target};
use haneul_core::Error;
use haneul_store::{Resource, V};
use serde::{Deserialize, Serialize};

/// One per host, made when the host greets for the first time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ComputeService {
    /// The service's own id (since 2.53).
    pub id: String,
    /// The integer id (before 2.53), also of the hypervisor.
    pub number: i64,
    /// The host's id; also the hypervisor's (since 2.53) and the resource provider's.
    pub host_id: String,
    pub host_name: String,
    #[serde(default)]
    pub disabled: bool,
    #[serde(default)]
    pub disabled_reason: Option<String>,
    #[serde(default)]
    pub forced_down: bool,
}

impl Resource for ComputeService {
    const KIND: &'static str = "compute_service";
    const TABLE: &'static str = "compute_service";
    const COLUMNS: &'static [&'static str] = &["host_id"];
    fn id(&self) -> &str {
        &self.id
    }
    fn project_id(&self) -> Option<&str> {
        None
    }
    fn name(&self) -> &str {
        &self.host_name
    }
    fn columns(&self) -> Vec<V> {
        vec![self.host_id.as_str().into()]
    }
}

impl Secured for ComputeService {
    fn target(&self) -> Target {
        Target::default()
    }
    fn not_found(id: &str) -> Error {
        Error::not_found(format!("Service {id} not found."))
    }
}
