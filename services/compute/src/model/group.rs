//! Server groups.

use haneul_auth::{Secured, Target};
use haneul_core::Error;
use haneul_store::Resource;
use serde::{Deserialize, Serialize};

/// Servers that shall share hosts, or shall not. Members are the servers that name it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServerGroup {
    pub id: String,
    pub project_id: String,
    pub user_id: String,
    pub name: String,
    /// `affinity`, `anti-affinity`, `soft-affinity`, `soft-anti-affinity`.
    pub policy: String,
    /// With anti-affinity: members that one host may hold.
    #[serde(default)]
    pub max_server_per_host: Option<i64>,
}

impl Resource for ServerGroup {
    const KIND: &'static str = "server_group";
    const TABLE: &'static str = "server_group";
    fn id(&self) -> &str {
        &self.id
    }
    fn project_id(&self) -> Option<&str> {
        Some(&self.project_id)
    }
    fn name(&self) -> &str {
        &self.name
    }
}

impl Secured for ServerGroup {
    fn target(&self) -> Target {
        Target {
            user_id: Some(self.user_id.clone()),
            ..Target::project(&self.project_id)
        }
    }
    fn not_found(id: &str) -> Error {
        Error::not_found(format!("Instance group {id} could not be found."))
    }
}
