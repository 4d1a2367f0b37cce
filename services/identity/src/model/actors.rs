//! Users, groups, roles, and what connects them.

use super::{resource, secured};
use haneul_auth::Target;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A user (API reference: Identity API v3, "Users"). The password's hash is in a table of its own and
/// never part of the document.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct User {
    pub id: String,
    pub name: String,
    pub domain_id: String,
    pub enabled: bool,
    #[serde(default)]
    pub default_project_id: Option<String>,
    #[serde(default)]
    pub description: Option<String>,
    #[serde(default)]
    pub options: Map<String, Value>,
    /// Microseconds at which the password was last set; what makes a password change a change.
    #[serde(default)]
    pub password_set_at: Option<i64>,
    /// When the password expires.
    #[serde(default)]
    pub password_expires_at: Option<i64>,
    /// Whether the user has chosen the password itself.
    #[serde(default)]
    pub password_self_service: bool,
    /// Attributes that users added (`email` is the usual one).
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl User {
    fn label(&self) -> &str {
        &self.name
    }
    /// Whether this option is set.
    pub(crate) fn option(&self, name: &str) -> bool {
        self.options.get(name) == Some(&Value::Bool(true))
    }
}

resource!(User, "user", "identity_user", |_| None, {
    "domain_id" => |u| u.domain_id.as_str().into(),
    "enabled" => |u| u.enabled.into(),
    "default_project_id" => |u| u.default_project_id.as_deref().into(),
});
secured!(User, "user", |u| about_user(u));

/// What rules about a user are checked against.
pub(crate) fn about_user(u: &User) -> Target {
    Target {
        user_id: Some(u.id.clone()),
        domain_id: Some(u.domain_id.clone()),
        ..Target::default()
    }
    .with("target.user.id", &u.id)
    .with("target.user.domain_id", &u.domain_id)
}

/// A group (API reference: Identity API v3, "Groups").
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Group {
    pub id: String,
    pub name: String,
    pub domain_id: String,
    #[serde(default)]
    pub description: Option<String>,
    /// Attributes that users added.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl Group {
    fn label(&self) -> &str {
        &self.name
    }
}

resource!(Group, "group", "identity_group", |_| None, {
    "domain_id" => |g| g.domain_id.as_str().into(),
});
secured!(Group, "group", |g| {
    Target {
        domain_id: Some(g.domain_id.clone()),
        ..Target::default()
    }
    .with("target.group.id", &g.id)
    .with("target.group.domain_id", &g.domain_id)
});

/// Who is in which group.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Membership {
    /// `GROUP/USER`
    pub id: String,
    pub group_id: String,
    pub user_id: String,
    /// Group and user, for the rules; set by the handler.
    #[serde(skip)]
    pub about: Target,
}

impl Membership {
    pub fn new(group: &str, user: &str) -> Self {
        Self {
            id: Self::key(group, user),
            group_id: group.to_owned(),
            user_id: user.to_owned(),
            about: Target::default(),
        }
    }
    pub fn key(group: &str, user: &str) -> String {
        format!("{group}/{user}")
    }
    fn label(&self) -> &str {
        ""
    }
}

resource!(Membership, "group_membership", "identity_membership", |_| None, {
    "group_id" => |m| m.group_id.as_str().into(),
    "user_id" => |m| m.user_id.as_str().into(),
});
secured!(Membership, "user in group", |m| m.about.clone());

/// A role (API reference: Identity API v3, "Roles").
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Role {
    pub id: String,
    pub name: String,
    /// Set for roles of one domain, which only ever stand for the roles that they imply.
    #[serde(default)]
    pub domain_id: Option<String>,
    #[serde(default)]
    pub description: Option<String>,
    #[serde(default)]
    pub options: Map<String, Value>,
    /// Attributes that users added.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl Role {
    fn label(&self) -> &str {
        &self.name
    }
}

resource!(Role, "role", "identity_role", |_| None, {
    "domain_id" => |r| r.domain_id.clone().unwrap_or_default().into(),
});
secured!(Role, "role", |r| about_role(r));

/// What rules about a role are checked against.
pub(crate) fn about_role(r: &Role) -> Target {
    Target::default()
        .with("target.role.id", &r.id)
        .with("target.role.name", &r.name)
        .with("target.role.domain_id", r.domain_id.as_deref().unwrap_or("None"))
}

/// Who has `prior` has `implied` too (API reference: Identity API v3, "Roles", inference rules).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ImpliedRole {
    /// `PRIOR/IMPLIED`
    pub id: String,
    pub prior: String,
    pub implied: String,
}

impl ImpliedRole {
    pub fn new(prior: &str, implied: &str) -> Self {
        Self {
            id: Self::key(prior, implied),
            prior: prior.to_owned(),
            implied: implied.to_owned(),
        }
    }
    pub fn key(prior: &str, implied: &str) -> String {
        format!("{prior}/{implied}")
    }
    fn label(&self) -> &str {
        ""
    }
}

resource!(ImpliedRole, "role_inference", "identity_implied_role", |_| None, {
    "prior" => |i| i.prior.as_str().into(),
    "implied" => |i| i.implied.as_str().into(),
});
secured!(ImpliedRole, "role inference", |_| Target::default());

/// Who has a role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ActorKind {
    User,
    Group,
}

impl ActorKind {
    pub fn as_str(self) -> &'static str {
        match self {
            ActorKind::User => "user",
            ActorKind::Group => "group",
        }
    }
}

/// Where a role is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TargetKind {
    Project,
    Domain,
    System,
}

impl TargetKind {
    pub fn as_str(self) -> &'static str {
        match self {
            TargetKind::Project => "project",
            TargetKind::Domain => "domain",
            TargetKind::System => "system",
        }
    }
}

/// A role assignment (API reference: Identity API v3, "Role assignments").
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Assignment {
    /// All the other members, so that one assignment exists once.
    pub id: String,
    pub actor: ActorKind,
    pub actor_id: String,
    pub target: TargetKind,
    /// `all` for the system.
    pub target_id: String,
    pub role_id: String,
    /// Holds for the projects below the target, not for the target itself (OS-INHERIT).
    #[serde(default)]
    pub inherited: bool,
    /// Actor, target and role, for the rules; set by the handler.
    #[serde(skip)]
    pub about: Target,
}

impl Assignment {
    pub fn new(actor: (ActorKind, &str), target: (TargetKind, &str), role: &str, inherited: bool) -> Self {
        Self {
            id: format!(
                "{}:{}/{}:{}/{role}{}",
                actor.0.as_str(),
                actor.1,
                target.0.as_str(),
                target.1,
                if inherited { "/inherited" } else { "" }
            ),
            actor: actor.0,
            actor_id: actor.1.to_owned(),
            target: target.0,
            target_id: target.1.to_owned(),
            role_id: role.to_owned(),
            inherited,
            about: Target::default(),
        }
    }
    fn label(&self) -> &str {
        ""
    }
}

resource!(Assignment, "role_assignment", "identity_assignment",
    |a| (a.target == TargetKind::Project).then_some(a.target_id.as_str()), {
    "actor_kind" => |a| a.actor.as_str().into(),
    "actor_id" => |a| a.actor_id.as_str().into(),
    "target_kind" => |a| a.target.as_str().into(),
    "target_id" => |a| a.target_id.as_str().into(),
    "role_id" => |a| a.role_id.as_str().into(),
    "inherited" => |a| a.inherited.into(),
});
secured!(Assignment, "role assignment", |a| a.about.clone());

/// An application credential (API reference: Identity API v3, "Application credentials"). The secret's
/// hash is in a table of its own.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AppCred {
    pub id: String,
    pub name: String,
    pub user_id: String,
    pub project_id: String,
    #[serde(default)]
    pub description: Option<String>,
    /// Ids of its roles.
    pub roles: Vec<String>,
    /// Ids of its access rules. `None`: any request. A list, even an empty one: what its rules allow.
    #[serde(default)]
    pub access_rules: Option<Vec<String>>,
    /// Whether a token made with it may manage application credentials.
    pub unrestricted: bool,
    /// Microseconds since 1970.
    #[serde(default)]
    pub expires_at: Option<i64>,
}

impl AppCred {
    fn label(&self) -> &str {
        &self.name
    }
}

resource!(AppCred, "application_credential", "identity_app_cred", |c| Some(c.project_id.as_str()), {
    "user_id" => |c| c.user_id.as_str().into(),
});
secured!(AppCred, "Application Credential", |c| Target::user(&c.user_id));
