//! Domains and projects. Keystone keeps both in one table; here a domain is a kind of its own, and shows
//! itself as a project (`is_domain`) where the API says so.

use super::{resource, secured};
use haneul_auth::Target;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Id of the domain that the first start makes.
pub const DEFAULT_DOMAIN: &str = "default";

/// A domain (API reference: Identity API v3, "Domains").
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Domain {
    pub id: String,
    pub name: String,
    #[serde(default)]
    pub description: Option<String>,
    pub enabled: bool,
    #[serde(default)]
    pub tags: Vec<String>,
    #[serde(default)]
    pub options: Map<String, Value>,
    /// Attributes that users added.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl Domain {
    fn label(&self) -> &str {
        &self.name
    }
}

resource!(Domain, "domain", "identity_domain", |_| None, {
    "enabled" => |d| d.enabled.into(),
});
secured!(Domain, "domain", |d| {
    Target {
        domain_id: Some(d.id.clone()),
        ..Target::default()
    }
    .with("target.domain.id", &d.id)
});

/// A project (API reference: Identity API v3, "Projects").
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Project {
    pub id: String,
    pub name: String,
    pub domain_id: String,
    /// The domain's id for a project at the root.
    pub parent_id: String,
    #[serde(default)]
    pub description: Option<String>,
    pub enabled: bool,
    #[serde(default)]
    pub tags: Vec<String>,
    #[serde(default)]
    pub options: Map<String, Value>,
    /// Attributes that users added.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl Project {
    fn label(&self) -> &str {
        &self.name
    }
}

resource!(Project, "project", "identity_project", |p| Some(p.id.as_str()), {
    "domain_id" => |p| p.domain_id.as_str().into(),
    "parent_id" => |p| p.parent_id.as_str().into(),
    "enabled" => |p| p.enabled.into(),
});
secured!(Project, "project", |p| {
    Target {
        project_id: Some(p.id.clone()),
        domain_id: Some(p.domain_id.clone()),
        ..Target::default()
    }
    .with("target.project.id", &p.id)
    .with("target.project.domain_id", &p.domain_id)
    .with("target.domain_id", &p.domain_id)
});
