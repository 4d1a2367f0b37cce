//! Migrations, as OpenStack calls them: a resize of a server, on its host or with a move to another one, or such a move
//! alone, while the server runs (live) or is stopped for it.

use crate::model::{Fault, MigrationStatus};
use haneul_agent_api::MoveProgress;
use haneul_auth::{Secured, Target};
use haneul_core::Error;
use haneul_store::{Resource, V};
use serde::{Deserialize, Serialize};

/// What kind of a migration it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum MigrationKind {
    #[default]
    #[serde(rename = "resize")]
    Resize,
    #[serde(rename = "live-migration")]
    Live,
    /// With its flavor to another host, stopped.
    #[serde(rename = "migration")]
    Cold,
    /// A server of a lost host is started on another.
    #[serde(rename = "evacuation")]
    Evacuation,
}

impl MigrationKind {
    /// Nova's name.
    pub fn as_str(self) -> &'static str {
        match self {
            MigrationKind::Resize => "resize",
            MigrationKind::Live => "live-migration",
            MigrationKind::Cold => "migration",
            MigrationKind::Evacuation => "evacuation",
        }
    }
}

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
    #[serde(default)]
    pub kind: MigrationKind,
    /// Where it goes, when it leaves its host.
    #[serde(default)]
    pub to_host_id: Option<String>,
    /// How much of the server is over.
    #[serde(default)]
    pub progress: MoveProgress,
    /// Why it failed.
    #[serde(default)]
    pub fault: Option<Fault>,
}

impl Migration {
    /// Whether the server is being moved by it.
    pub fn is_under_way(&self) -> bool {
        self.kind == MigrationKind::Live && matches!(self.status, MigrationStatus::Preparing | MigrationStatus::Running)
    }
}

impl Resource for Migration {
    const KIND: &'static str = "migration";
    const TABLE: &'static str = "migration";
    const COLUMNS: &'static [&'static str] = &["number", "user_id", "server_id", "host_id", "status", "kind"];
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
            self.kind.as_str().into(),
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
