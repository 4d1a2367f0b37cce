//! Unified limits: what a resource's limit is in general, and for one project or domain.

use super::{resource, secured};
use haneul_auth::Target;
use serde::{Deserialize, Serialize};

/// A registered limit (API reference: Identity API v3, "Unified Limits"): the default of a resource of a service.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RegisteredLimit {
    pub id: String,
    pub service_id: String,
    #[serde(default)]
    pub region_id: Option<String>,
    pub resource_name: String,
    pub default_limit: i64,
    #[serde(default)]
    pub description: Option<String>,
}

impl RegisteredLimit {
    fn label(&self) -> &str {
        ""
    }
}

resource!(RegisteredLimit, "registered_limit", "identity_registered_limit", |_| None, {
    "service_id" => |l| l.service_id.as_str().into(),
    // '' for none: NULLs would not clash.
    "region_id" => |l| l.region_id.clone().unwrap_or_default().into(),
    "resource_name" => |l| l.resource_name.as_str().into(),
});
secured!(RegisteredLimit, "registered limit for", |_| Target::default());

/// A limit (API reference: Identity API v3, "Unified Limits"): one that a project or a domain has of its own. Service,
/// region and resource are those of its registered limit, which does not change while there is such a limit.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Limit {
    pub id: String,
    pub registered_limit_id: String,
    #[serde(default)]
    pub project_id: Option<String>,
    #[serde(default)]
    pub domain_id: Option<String>,
    /// The domain of the project, for the rules.
    #[serde(default)]
    pub project_domain_id: Option<String>,
    pub service_id: String,
    #[serde(default)]
    pub region_id: Option<String>,
    pub resource_name: String,
    pub resource_limit: i64,
    #[serde(default)]
    pub description: Option<String>,
}

impl Limit {
    fn label(&self) -> &str {
        ""
    }
}

resource!(Limit, "limit", "identity_limit", |l| l.project_id.as_deref(), {
    "registered_limit_id" => |l| l.registered_limit_id.as_str().into(),
    "domain_id" => |l| l.domain_id.as_deref().into(),
    // What it is for: a project or a domain.
    "target_id" => |l| l.project_id.as_deref().or(l.domain_id.as_deref()).unwrap_or_default().into(),
});
secured!(Limit, "limit for", |l| {
    let mut target = Target::default();
    if let Some(id) = &l.project_id {
        target = target.with("target.limit.project_id", id);
    }
    if let Some(id) = &l.project_domain_id {
        target = target.with("target.limit.project.domain_id", id);
    }
    if let Some(id) = &l.domain_id {
        target = target.with("target.limit.domain.id", id);
    }
    target
});
