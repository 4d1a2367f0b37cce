//! Migrations, as OpenStack calls them: here a resize of a server, which stays on its host.

use crate::model::MigrationStatus;
use haneul_auth::{Secured, Target};
use haneul_core::Error;
use haneul_store::{Resource, V};
use serde::{Deserialize, Serialize};

/// See the module. It goes with its server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Migration {
    /// UUID.
    pub id: String,
    /// The id that is shown.
    pub number: i64,
    /// Who asked for it.
    pub project_id: String,
    pub user_id: String,
    pub server_id: String,
    pub host_id: String,
    /// Flavors' ids.
    pub from_flavor: String,
    pub to_flavor: String,
    pub status: MigrationStatus,
}

impl Resource for Migration {
    const KIND: &'static str = "migration";
    const TABLE: &'static str = "migration";
    const COLUMNS: &'static [&'static str] = &["number", "user_id", "server_id", "host_id", "status"];
    fn id(&self) -> &str {
        &self.id
    }
    fn project_id(&self) -> Option<&str> {
        Some(&self.project_id)
    }
    fn name(&self) -> &str {
        ""
    }
    fn columns(&self) -> Vec<V> {
        vec![
            self.number.into(),
            self.user_id.as_str().into(),
            self.server_id.as_str().into(),
            self.host_id.as_str().into(),
            self.status.as_str().into(),
        ]
    }
}

impl Secured for Migration {
    fn target(&self) -> Target {
        Target::project(&self.project_id)
    }
    fn not_found(id: &str) -> Error {
        Error::not_found(format!("Migration {id} could not be found."))
    }
}
