//! Flavors.

use crate::model::server::is_false;
use haneul_auth::{Ctx, Secured, Target};
use haneul_core::Error;
use haneul_store::{Resource, V};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A size that servers can have. Its id is a string chosen by people.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Flavor {
    pub id: String,
    pub name: String,
    pub vcpus: i64,
    /// MiB.
    pub ram: i64,
    /// GiB of the root disk; 0: as large as the image.
    pub disk: i64,
    #[serde(default)]
    pub ephemeral: i64,
    /// MiB.
    #[serde(default)]
    pub swap: i64,
    #[serde(default = "one")]
    pub rxtx_factor: f64,
    pub is_public: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    pub disabled: bool,
    #[serde(default)]
    pub description: Option<String>,
    #[serde(default)]
    pub extra_specs: BTreeMap<String, String>,
    /// Projects that may use it when it is not public.
    #[serde(default)]
    pub access: Vec<String>,
}

fn one() -> f64 {
    1.0
}

impl Resource for Flavor {
    const KIND: &'static str = "flavor";
    const TABLE: &'static str = "flavor";
    const COLUMNS: &'static [&'static str] = &["is_public", "ram", "disk", "vcpus"];
    fn id(&self) -> &str {
        &self.id
    }
    fn project_id(&self) -> Option<&str> {
        None
    }
    fn name(&self) -> &str {
        &self.name
    }
    fn columns(&self) -> Vec<V> {
        vec![
            self.is_public.into(),
            self.ram.into(),
            self.disk.into(),
            self.vcpus.into(),
        ]
    }
}

impl Secured for Flavor {
    fn target(&self) -> Target {
        Target::default()
    }
    fn visible(&self, ctx: &Ctx) -> bool {
        ctx.is_admin() || self.is_public || self.access.iter().any(|p| p == ctx.project_id())
    }
    fn not_found(id: &str) -> Error {
        Error::not_found(format!("Flavor {id} could not be found."))
    }
}

/// A flavor as it was when a server took it: later changes of the flavor do not reach the server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FlavorShot {
    pub id: String,
    pub name: String,
    pub vcpus: i64,
    pub ram: i64,
    pub disk: i64,
    #[serde(default)]
    pub ephemeral: i64,
    #[serde(default)]
    pub swap: i64,
    #[serde(default)]
    pub extra_specs: BTreeMap<String, String>,
}

impl From<&Flavor> for FlavorShot {
    fn from(f: &Flavor) -> Self {
        Self {
            id: f.id.clone(),
            name: f.name.clone(),
            vcpus: f.vcpus,
            ram: f.ram,
            disk: f.disk,
            ephemeral: f.ephemeral,
            swap: f.swap,
            extra_specs: f.extra_specs.clone(),
        }
    }
}

impl FlavorShot {
    /// What it takes of a host, by placement's resource classes. `image_gib` counts when the flavor leaves
    /// the size to the image.
    pub fn amounts(&self, image_gib: i64) -> [(&'static str, i64); 3] {
        [
            ("VCPU", self.vcpus),
            ("MEMORY_MB", self.ram),
            (
                "DISK_GB",
                self.root_gib(image_gib) + self.ephemeral + (self.swap + 1023) / 1024,
            ),
        ]
    }
    /// GiB of the root disk.
    pub fn root_gib(&self, image_gib: i64) -> i64 {
        if self.disk == 0 { image_gib } else { self.disk }
    }
}
