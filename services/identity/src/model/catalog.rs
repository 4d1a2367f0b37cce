//! Regions, services and endpoints: the catalog.

use super::{resource, secured};
use haneul_auth::Target;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A region (API reference: Identity API v3, "Regions").
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Region {
    pub id: String,
    #[serde(default)]
    pub description: String,
    #[serde(default)]
    pub parent_region_id: Option<String>,
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl Region {
    fn label(&self) -> &str {
        ""
    }
}

resource!(Region, "region", "identity_region", |_| None, {});
secured!(Region, "region", |_| Target::default());

/// A service of the catalog (API reference: Identity API v3, "Service catalog and endpoints").
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CatalogService {
    pub id: String,
    pub name: String,
    #[serde(rename = "type")]
    pub kind: String,
    pub enabled: bool,
    #[serde(default)]
    pub description: Option<String>,
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl CatalogService {
    fn label(&self) -> &str {
        &self.name
    }
}

resource!(CatalogService, "service", "identity_service", |_| None, {
    "kind" => |s| s.kind.as_str().into(),
});
secured!(CatalogService, "service", |_| Target::default());

/// An endpoint of a service.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Endpoint {
    pub id: String,
    pub service_id: String,
    pub region_id: Option<String>,
    /// `public`, `internal` or `admin`.
    pub interface: String,
    pub url: String,
    pub enabled: bool,
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl Endpoint {
    fn label(&self) -> &str {
        ""
    }
}

resource!(Endpoint, "endpoint", "identity_endpoint", |_| None, {
    "service_id" => |e| e.service_id.as_str().into(),
    "region_id" => |e| e.region_id.as_deref().into(),
    "interface" => |e| e.interface.as_str().into(),
});
secured!(Endpoint, "endpoint", |_| Target::default());
