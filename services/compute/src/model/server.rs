//! Servers.

use crate::model::FlavorShot;
use crate::model::state::{self, Task, VmState, power};
use haneul_agent_api::{ImageRef, Power, PublicKey};
use haneul_auth::{Ctx, ScopeKind, Secured, Target};
use haneul_core::{Error, Result};
use haneul_store::{Resource, V};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::IpAddr;
use uuid::Uuid;

pub(crate) fn is_false(b: &bool) -> bool {
    !*b
}

/// Why a server is in ERROR, or what went wrong last.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fault {
    pub code: u16,
    /// For the tenant: never a host's name.
    pub message: String,
    /// For administrators.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub details: String,
    pub created: i64,
}

/// What a server was made from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServerImage {
    pub id: String,
    pub name: String,
    pub format: String,
    pub size: u64,
    pub virtual_size: u64,
    pub sha512: String,
    /// GiB.
    #[serde(default)]
    pub min_disk_gib: i64,
    /// MiB.
    #[serde(default)]
    pub min_ram_mib: i64,
    #[serde(default)]
    pub properties: BTreeMap<String, String>,
}

/// Who created a server, by the names of then: images of it tell.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BootedBy {
    pub user_name: String,
    pub project_name: String,
    pub roles: Vec<String>,
}

impl From<&Ctx> for BootedBy {
    fn from(ctx: &Ctx) -> Self {
        let project_name = match &ctx.scope {
            ScopeKind::Project { name, .. } => name.clone(),
            _ => String::new(),
        };
        Self {
            user_name: ctx.user_name.clone(),
            project_name,
            roles: ctx.roles.iter().map(|r| r.name.clone()).collect(),
        }
    }
}

impl ServerImage {
    /// Whole GiB that hold the disk inside.
    pub fn gib(&self) -> i64 {
        self.virtual_size.div_ceil(1 << 30) as i64
    }
    /// As the agent needs it.
    pub fn reference(&self) -> Result<ImageRef> {
        Ok(ImageRef {
            id: Uuid::try_parse(&self.id).map_err(|e| Error::internal(format!("image {}: {e}", self.id)))?,
            format: self.format.clone(),
            size: self.size,
            virtual_size: self.virtual_size,
            sha512: self.sha512.clone(),
        })
    }
}

/// A server. `vm_state` is what it is, `task_state` what is being done to it, `power_state` what the host
/// saw last, `wanted` what the host shall bring about.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Server {
    pub id: String,
    pub project_id: String,
    pub user_id: String,
    #[serde(default)]
    pub booted_by: BootedBy,
    pub name: String,
    #[serde(default)]
    pub description: Option<String>,
    /// Name inside the guest.
    pub hostname: String,
    /// The host that holds it; none while no host fits.
    #[serde(default)]
    pub host_id: Option<String>,
    /// The host that it came from while a resize waits to be confirmed: there it still holds its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old_host_id: Option<String>,
    /// Marker of the directory that hosts share in which its disks are; none: they are its host's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared_disks: Option<String>,
    pub flavor: FlavorShot,
    /// The other flavor while a resize waits to be confirmed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old_flavor: Option<FlavorShot>,
    /// GiB that a flavor of before has given its root disk: a disk that grew stays so, here and wherever it is copied to.
    #[serde(default)]
    pub grown_gib: i64,
    pub image: ServerImage,
    #[serde(default)]
    pub key_name: Option<String>,
    #[serde(default)]
    pub keys: Vec<PublicKey>,
    #[serde(default)]
    pub user_data: Option<String>,
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
    #[serde(default)]
    pub tags: Vec<String>,
    #[serde(default)]
    pub config_drive: bool,
    pub availability_zone: String,
    /// What the user asked for, if anything.
    #[serde(default)]
    pub pinned_availability_zone: Option<String>,
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub scheduler_hints: Value,
    #[serde(default)]
    pub server_group: Option<String>,
    #[serde(default)]
    pub access_ip_v4: Option<IpAddr>,
    #[serde(default)]
    pub access_ip_v6: Option<IpAddr>,
    /// `AUTO` (true) or `MANUAL`.
    #[serde(default)]
    pub auto_disk_config: bool,
    pub vm_state: VmState,
    #[serde(default)]
    pub task_state: Option<Task>,
    pub power_state: i64,
    pub wanted: Power,
    #[serde(default)]
    pub progress: i64,
    /// The image that is made of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<String>,
    #[serde(default)]
    pub fault: Option<Fault>,
    #[serde(default)]
    pub launched_at: Option<i64>,
    #[serde(default, skip_serializing_if = "is_false")]
    pub locked: bool,
    #[serde(default)]
    pub locked_by: Option<String>,
    #[serde(default)]
    pub locked_reason: Option<String>,
    pub ec2_number: i64,
    pub reservation_id: String,
    #[serde(default)]
    pub launch_index: u64,
    #[serde(default)]
    pub security_groups: Vec<String>,
    #[serde(default)]
    pub soft_reboots: u64,
    #[serde(default)]
    pub hard_reboots: u64,
    #[serde(default)]
    pub rebuilds: u64,
    /// What the guest has posted to the metadata service; it encrypts that for its owner's key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    /// How often it was cleared.
    #[serde(default)]
    pub password_clears: u64,
    /// Generation of the desired guest that observations must reach to count.
    #[serde(default)]
    pub desired_generation: i64,
    /// What a user did last, by Nova's name, and in which request: instance actions read it off the change log.
    #[serde(default)]
    pub action: String,
    #[serde(default)]
    pub action_request: String,
    #[serde(default)]
    pub trusted_image_certificates: Option<Vec<String>>,
}

impl Server {
    /// The status that users see.
    pub fn status(&self) -> &'static str {
        state::status(self.vm_state, self.task_state)
    }
    /// Whose quotas count it: project and user.
    pub fn owner(&self) -> (&str, &str) {
        (&self.project_id, &self.user_id)
    }
    /// `instance-0000001a`.
    pub fn instance_name(&self) -> String {
        format!("instance-{:08x}", self.ec2_number)
    }
    /// What it takes of a host now.
    pub fn amounts(&self) -> [(&'static str, i64); 3] {
        self.flavor.amounts(self.image.gib())
    }
    /// Gives it another flavor; answers the one of before.
    pub fn change_flavor(&mut self, flavor: FlavorShot) -> FlavorShot {
        self.grown_gib = self.grown_gib.max(self.flavor.disk);
        std::mem::replace(&mut self.flavor, flavor)
    }
    /// The two flavors of a resize change places, when there is one.
    pub fn swap_flavors(&mut self) {
        if let Some(other) = self.old_flavor.take() {
            self.old_flavor = Some(self.change_flavor(other));
        }
    }
    /// The id as the agent knows it.
    pub fn uuid(&self) -> Result<Uuid> {
        Uuid::try_parse(&self.id).map_err(|e| Error::internal(format!("server {}: {e}", self.id)))
    }
    /// Into ERROR with a cause.
    pub fn fail(&mut self, fault: Fault) {
        self.vm_state = VmState::Error;
        self.task_state = None;
        self.fault = Some(fault);
    }
    /// Into a stable state, with nothing going on.
    pub fn settle(&mut self, vm: VmState, power_state: i64) {
        self.vm_state = vm;
        self.task_state = None;
        self.power_state = power_state;
    }
    /// Notes what a user does, for instance actions.
    pub fn note(&mut self, action: &str, request_id: &str) {
        action.clone_into(&mut self.action);
        request_id.clone_into(&mut self.action_request);
    }
    /// The stable state that belongs to what is wanted.
    pub fn settle_as_wanted(&mut self) {
        match self.wanted {
            Power::Running => self.settle(VmState::Active, power::RUNNING),
            Power::Paused => self.settle(VmState::Paused, power::PAUSED),
            Power::Suspended => self.settle(VmState::Suspended, power::SUSPENDED),
            Power::Stopped => self.settle(VmState::Stopped, power::SHUTDOWN),
        }
    }
}

impl Fault {
    /// From an error: its public half for the tenant, the private one for administrators.
    pub fn of(e: &Error) -> Self {
        Self {
            code: e.kind().status(),
            message: e.public().to_owned(),
            details: e.private().to_owned(),
            created: haneul_core::clock::now(),
        }
    }
}

impl Resource for Server {
    const KIND: &'static str = "server";
    const TABLE: &'static str = "server";
    const COLUMNS: &'static [&'static str] = &[
        "user_id",
        "host_id",
        "vm_state",
        "task_state",
        "image_id",
        "flavor_id",
        "key_name",
        "description",
        "hostname",
        "power_state",
        "launched_at",
        "launch_index",
        "zone",
        "locked",
        "config_drive",
        "access_ip_v4",
        "access_ip_v6",
        "server_group",
        "ec2",
    ];
    fn id(&self) -> &str {
        &self.id
    }
    fn project_id(&self) -> Option<&str> {
        Some(&self.project_id)
    }
    fn name(&self) -> &str {
        &self.name
    }
    fn columns(&self) -> Vec<V> {
        // No NULLs: they are sorted by, and markers compare them.
        let text = |v: &Option<String>| V::from(v.as_deref().unwrap_or_default());
        let ip = |v: &Option<IpAddr>| V::from(v.map_or_else(String::new, |a| a.to_string()));
        vec![
            self.user_id.as_str().into(),
            text(&self.host_id),
            self.vm_state.as_str().into(),
            self.task_state.map_or("", Task::as_str).into(),
            self.image.id.as_str().into(),
            self.flavor.id.as_str().into(),
            text(&self.key_name),
            text(&self.description),
            self.hostname.as_str().into(),
            self.power_state.into(),
            self.launched_at.unwrap_or_default().into(),
            self.launch_index.into(),
            self.availability_zone.as_str().into(),
            self.locked.into(),
            self.config_drive.into(),
            ip(&self.access_ip_v4),
            ip(&self.access_ip_v6),
            text(&self.server_group),
            self.ec2_number.into(),
        ]
    }
    fn logged(&self) -> Value {
        // User data and the password may be secrets: the log keeps only that there is some.
        let mut doc = serde_json::to_value(self).unwrap_or(Value::Null);
        if let Some(map) = doc.as_object_mut() {
            map.insert("v".into(), 1.into());
            if self.user_data.is_some() {
                map.insert("user_data".into(), "present".into());
            }
            if self.password.is_some() {
                map.insert("password".into(), "present".into());
            }
        }
        doc
    }
}

impl Secured for Server {
    fn target(&self) -> Target {
        Target {
            user_id: Some(self.user_id.clone()),
            ..Target::project(&self.project_id)
        }
    }
    fn not_found(id: &str) -> Error {
        Error::not_found(format!("Instance {id} could not be found."))
    }
}
