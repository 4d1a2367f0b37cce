//! What Keystone's extensions keep: policies, OAuth consumers, domains' configurations, filters of the catalog.

use super::{resource, secured};
use haneul_auth::Target;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A policy (API reference: Identity API v3, "Policies"): a text that is kept for other programs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PolicyDoc {
    pub id: String,
    #[serde(rename = "type")]
    pub kind: String,
    pub blob: String,
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl PolicyDoc {
    fn label(&self) -> &str {
        ""
    }
}

resource!(PolicyDoc, "policy", "identity_policy", |_| None, {});
secured!(PolicyDoc, "policy", |_| Target::default());

/// A consumer (API reference: Identity API v3 extensions, "OS-OAUTH1"). Its secret is sealed in a table of its own.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Consumer {
    pub id: String,
    #[serde(default)]
    pub description: Option<String>,
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl Consumer {
    fn label(&self) -> &str {
        ""
    }
}

resource!(Consumer, "consumer", "identity_consumer", |_| None, {});
secured!(Consumer, "Consumer", |_| Target::default());

/// A domain's configuration (API reference: Identity API v3, "Domain configuration"), without what is sensitive in it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DomainConfig {
    /// The domain's.
    pub id: String,
    /// Options by group.
    pub config: Map<String, Value>,
    /// Microseconds at which a sensitive option was last set; what makes that a change.
    #[serde(default)]
    pub sealed_at: Option<i64>,
}

impl DomainConfig {
    /// Under which key what is sensitive is sealed.
    pub(crate) fn blob_key(domain: &str) -> String {
        format!("domain_config/{domain}")
    }
    fn label(&self) -> &str {
        ""
    }
}

resource!(DomainConfig, "domain_config", "identity_domain_config", |_| None, {});
secured!(DomainConfig, "domain config", |_| Target::default());

/// An endpoint group (API reference: Identity API v3 extensions, "OS-EP-FILTER").
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EndpointGroup {
    pub id: String,
    pub name: String,
    #[serde(default)]
    pub description: Option<String>,
    /// What its endpoints have in common: `service_id`, `region_id`, `interface`.
    pub filters: Map<String, Value>,
}

impl EndpointGroup {
    fn label(&self) -> &str {
        &self.name
    }
}

resource!(EndpointGroup, "endpoint_group", "identity_endpoint_group", |_| None, {});
secured!(EndpointGroup, "Endpoint Group", |_| Target::default());

/// What a project's catalog is narrowed to: an endpoint, or the endpoints of a group.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EndpointFilter {
    /// `PROJECT/endpoint/ID` or `PROJECT/group/ID`
    pub id: String,
    pub project_id: String,
    /// `endpoint` or `group`.
    pub kind: String,
    pub target_id: String,
}

impl EndpointFilter {
    pub fn new(project: &str, kind: &str, target: &str) -> Self {
        Self {
            id: format!("{project}/{kind}/{target}"),
            project_id: project.to_owned(),
            kind: kind.to_owned(),
            target_id: target.to_owned(),
        }
    }
    fn label(&self) -> &str {
        ""
    }
}

resource!(EndpointFilter, "endpoint_filter", "identity_endpoint_filter", |f| Some(f.project_id.as_str()), {
    "target_id" => |f| f.target_id.as_str().into(),
});
secured!(EndpointFilter, "endpoint filter", |_| Target::default());

/// Which policy holds for an endpoint, or for all of a service, everywhere or in a region (API reference: Identity API v3
/// extensions, "OS-ENDPOINT-POLICY").
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PolicyAssociation {
    /// What it is for: `endpoint/ID`, `service/ID` or `service/ID/region/ID`. There is one policy for each.
    pub id: String,
    pub policy_id: String,
    #[serde(default)]
    pub endpoint_id: Option<String>,
    #[serde(default)]
    pub service_id: Option<String>,
    #[serde(default)]
    pub region_id: Option<String>,
}

impl PolicyAssociation {
    fn label(&self) -> &str {
        ""
    }
}

resource!(PolicyAssociation, "policy_association", "identity_policy_association", |_| None, {
    "policy_id" => |a| a.policy_id.as_str().into(),
    "endpoint_id" => |a| a.endpoint_id.as_deref().into(),
    "service_id" => |a| a.service_id.as_deref().into(),
    "region_id" => |a| a.region_id.as_deref().into(),
});
secured!(PolicyAssociation, "policy association", |_| Target::default());
