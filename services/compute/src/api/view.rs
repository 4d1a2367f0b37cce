//! Servers and flavors as JSON, for a microversion. Written straight to the output, because a list of a
//! thousand servers is written often.

use crate::logic::deps::ServerPort;
use crate::model::{Flavor, FlavorShot, Server, VmState};
use crate::policy;
use haneul_auth::{Ctx, Target};
use haneul_core::clock;
use haneul_http::Ver;
use haneul_store::Stored;
use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};
use serde_json::Value;
use sha2::{Digest, Sha224};
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

/// What the caller may see, and how links begin; once per request.
pub(crate) struct Look<'a> {
    pub v: Ver,
    pub base: &'a str,
    pub admin: bool,
    pub extended: bool,
    pub specs: bool,
    pub host_status: bool,
    /// Host id to (name, status).
    pub hosts: HashMap<String, (String, &'static str)>,
    pub ports: HashMap<String, Vec<ServerPort>>,
    /// Show, not list: `server_groups` are shown from 2.71 on.
    pub single: bool,
    /// `(project, host)` to hostId: a hash for each would be slow.
    pub host_ids: std::cell::RefCell<HashMap<(String, String), String>>,
}

impl<'a> Look<'a> {
    pub fn of(ctx: &Ctx, v: Ver, base: &'a str) -> Self {
        let own = Target::own(ctx);
        Self {
            v,
            base,
            admin: ctx.is_admin(),
            extended: ctx.may(policy::EXTENDED, &own),
            specs: ctx.may(policy::SHOW_SPECS, &own),
            host_status: ctx.may(policy::HOST_STATUS, &own),
            hosts: HashMap::new(),
            ports: HashMap::new(),
            single: false,
            host_ids: Default::default(),
        }
    }

    fn since(&self, minor: u16) -> bool {
        self.v >= Ver(2, minor)
    }

    fn host_name(&self, s: &Server) -> Option<&str> {
        let id = s.host_id.as_ref()?;
        self.hosts.get(id).map(|(n, _)| n.as_str())
    }
}

/// The hostId that a project sees: the same host has another one for each project.
pub(crate) fn host_id(project: &str, host: &str) -> String {
    Sha224::digest(format!("{project}{host}"))
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect()
}

/// `self` and `bookmark`.
pub(crate) struct Links<'a> {
    pub base: &'a str,
    pub kind: &'a str,
    pub id: &'a str,
}

impl Serialize for Links<'_> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let Links { base, kind, id } = self;
        let mut seq = s.serialize_seq(Some(2))?;
        seq.serialize_element(&Link {
            rel: "self",
            href: format!("{base}/v2.1/{kind}/{id}"),
        })?;
        seq.serialize_element(&Link {
            rel: "bookmark",
            href: format!("{base}/{kind}/{id}"),
        })?;
        seq.end()
    }
}

#[derive(serde::Serialize)]
pub(crate) struct Link {
    pub rel: &'static str,
    pub href: String,
}

/// `{"addresses": ...}` of a server, as it shows them in full, or plainly as `/ips` and others do.
pub(crate) struct Addresses<'a> {
    pub ports: &'a [ServerPort],
    pub plain: bool,
}

#[derive(serde::Serialize)]
struct Address<'a> {
    version: u8,
    addr: IpAddr,
    #[serde(rename = "OS-EXT-IPS:type", skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    #[serde(rename = "OS-EXT-IPS-MAC:mac_addr", skip_serializing_if = "Option::is_none")]
    mac: Option<&'a str>,
}

impl Serialize for Addresses<'_> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let mut nets: Vec<(&str, Vec<Address<'_>>)> = Vec::new();
        for p in self.ports {
            let at = match nets.iter().position(|(n, _)| *n == p.network_name) {
                Some(i) => i,
                None => {
                    nets.push((&p.network_name, Vec::new()));
                    nets.len() - 1
                }
            };
            let Some((_, list)) = nets.get_mut(at) else { continue };
            let address = |addr: IpAddr, kind| Address {
                version: if addr.is_ipv4() { 4 } else { 6 },
                addr,
                kind: (!self.plain).then_some(kind),
                mac: (!self.plain).then_some(&p.mac),
            };
            for (_, ip) in &p.fixed_ips {
                list.push(address(*ip, "fixed"));
                let floating = p.floating.iter().filter(|(fixed, _)| fixed == ip);
                list.extend(floating.map(|(_, a)| address(*a, "floating")));
            }
        }
        let mut map = s.serialize_map(Some(nets.len()))?;
        for (name, list) in nets {
            map.serialize_entry(name, &list)?;
        }
        map.end()
    }
}

struct Names<'a>(Vec<&'a str>);
impl Serialize for Names<'_> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let mut seq = s.serialize_seq(Some(self.0.len()))?;
        for n in &self.0 {
            seq.serialize_element(&BTreeMap::from([("name", n)]))?;
        }
        seq.end()
    }
}

struct FlavorInServer<'a>(&'a FlavorShot, &'a Look<'a>);
impl Serialize for FlavorInServer<'_> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let FlavorInServer(f, look) = self;
        let mut m = s.serialize_map(None)?;
        if look.since(47) {
            m.serialize_entry("vcpus", &f.vcpus)?;
            m.serialize_entry("ram", &f.ram)?;
            m.serialize_entry("disk", &f.disk)?;
            m.serialize_entry("ephemeral", &f.ephemeral)?;
            m.serialize_entry("swap", &f.swap)?;
            m.serialize_entry("original_name", &f.name)?;
            if look.specs {
                m.serialize_entry("extra_specs", &f.extra_specs)?;
            }
        } else {
            m.serialize_entry("id", &f.id)?;
            m.serialize_entry(
                "links",
                &[Link {
                    rel: "bookmark",
                    href: format!("{}/flavors/{}", look.base, f.id),
                }],
            )?;
        }
        m.end()
    }
}

/// Id, base of links, and since 2.98 the properties.
struct ImageInServer<'a>(&'a str, &'a str, Option<&'a BTreeMap<String, String>>);
impl Serialize for ImageInServer<'_> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let mut m = s.serialize_map(None)?;
        m.serialize_entry("id", self.0)?;
        m.serialize_entry(
            "links",
            &[Link {
                rel: "bookmark",
                href: format!("{}/images/{}", self.1, self.0),
            }],
        )?;
        if let Some(properties) = self.2 {
            m.serialize_entry("properties", properties)?;
        }
        m.end()
    }
}

struct FaultView<'a>(&'a crate::model::Fault, bool);
impl Serialize for FaultView<'_> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let mut m = s.serialize_map(None)?;
        m.serialize_entry("code", &self.0.code)?;
        m.serialize_entry("created", &clock::iso(self.0.created))?;
        m.serialize_entry("message", &self.0.message)?;
        if self.1 && !self.0.details.is_empty() {
            m.serialize_entry("details", &self.0.details)?;
        }
        m.end()
    }
}

/// A server in full (Nova API reference, "Show Server Details").
pub(crate) struct ServerView<'a> {
    pub s: &'a Stored<Server>,
    pub look: &'a Look<'a>,
    /// Only in the answer to a rebuild.
    pub admin_pass: Option<&'a str>,
    /// Before 2.75 update and rebuild show fewer fields.
    pub short: bool,
}

impl Serialize for ServerView<'_> {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        let (s, look): (&Server, _) = (&self.s.value, self.look);
        let none: &[ServerPort] = &[];
        let ports = look.ports.get(&s.id).map_or(none, Vec::as_slice);
        let status = s.status();
        let text = |ip: Option<IpAddr>| ip.map_or_else(String::new, |a| a.to_string());
        let mut m = out.serialize_map(None)?;
        m.serialize_entry("id", &s.id)?;
        m.serialize_entry("name", &s.name)?;
        m.serialize_entry("status", status)?;
        m.serialize_entry("tenant_id", &s.project_id)?;
        m.serialize_entry("user_id", &s.user_id)?;
        m.serialize_entry("metadata", &s.metadata)?;
        match &s.host_id {
            None => m.serialize_entry("hostId", "")?,
            Some(h) => {
                let mut known = look.host_ids.borrow_mut();
                let id = known
                    .entry((s.project_id.clone(), h.clone()))
                    .or_insert_with(|| host_id(&s.project_id, h));
                m.serialize_entry("hostId", id)?;
            }
        }
        m.serialize_entry(
            "image",
            &ImageInServer(&s.image.id, look.base, look.since(98).then_some(&s.image.properties)),
        )?;
        m.serialize_entry("flavor", &FlavorInServer(&s.flavor, look))?;
        m.serialize_entry("created", &clock::iso(self.s.created_at))?;
        m.serialize_entry("updated", &clock::iso(self.s.updated_at))?;
        // While it is building the addresses are hidden, as Nova does.
        let shown = if s.vm_state == VmState::Building { none } else { ports };
        let addresses = Addresses {
            ports: shown,
            plain: self.short,
        };
        m.serialize_entry("addresses", &addresses)?;
        m.serialize_entry("accessIPv4", &text(s.access_ip_v4))?;
        m.serialize_entry("accessIPv6", &text(s.access_ip_v6))?;
        m.serialize_entry(
            "links",
            &Links {
                base: look.base,
                kind: "servers",
                id: &s.id,
            },
        )?;
        m.serialize_entry("OS-DCF:diskConfig", if s.auto_disk_config { "AUTO" } else { "MANUAL" })?;
        if let Some(fault) = s.fault.as_ref().filter(|_| status == "ERROR") {
            m.serialize_entry("fault", &FaultView(fault, look.admin))?;
        }
        if ["ACTIVE", "BUILD", "REBUILD", "RESIZE", "VERIFY_RESIZE", "MIGRATING"].contains(&status) {
            m.serialize_entry("progress", &s.progress)?;
        }
        if look.since(9) {
            m.serialize_entry("locked", &s.locked)?;
        }
        if look.since(19) {
            m.serialize_entry("description", &s.description)?;
        }
        if look.since(26) {
            m.serialize_entry("tags", &s.tags)?;
        }
        if look.since(63) {
            m.serialize_entry("trusted_image_certificates", &s.trusted_image_certificates)?;
        }
        if look.since(73) {
            m.serialize_entry("locked_reason", &s.locked_reason)?;
        }
        if let Some(p) = self.admin_pass {
            m.serialize_entry("adminPass", p)?;
        }
        let rebuilt = self.admin_pass.is_some();
        if rebuilt && look.since(57) {
            m.serialize_entry("user_data", &s.user_data)?;
        }
        if self.short {
            if rebuilt && look.since(54) {
                m.serialize_entry("key_name", &s.key_name)?;
            }
            return m.end();
        }
        if look.since(71) && look.single {
            let groups: Vec<&String> = s.server_group.iter().collect();
            m.serialize_entry("server_groups", &groups)?;
        }
        if look.since(96) {
            m.serialize_entry("pinned_availability_zone", &s.pinned_availability_zone)?;
        }
        if look.since(100) {
            let hints = &s.scheduler_hints;
            let none = Value::Object(serde_json::Map::new());
            m.serialize_entry("scheduler_hints", if hints.is_object() { hints } else { &none })?;
        }
        // A server that has no place has no zone yet.
        let zone = if s.host_id.is_some() {
            s.availability_zone.as_str()
        } else {
            s.pinned_availability_zone.as_deref().unwrap_or("")
        };
        m.serialize_entry("OS-EXT-AZ:availability_zone", zone)?;
        m.serialize_entry("config_drive", if s.config_drive { "True" } else { "" })?;
        m.serialize_entry("key_name", &s.key_name)?;
        m.serialize_entry("OS-SRV-USG:launched_at", &s.launched_at.map(clock::naive_micros))?;
        m.serialize_entry("OS-SRV-USG:terminated_at", &Value::Null)?;
        let mut groups: Vec<&str> = Vec::new();
        for name in ports.iter().flat_map(|p| &p.security_groups) {
            if !groups.contains(&name.as_str()) {
                groups.push(name);
            }
        }
        if !groups.is_empty() {
            m.serialize_entry("security_groups", &Names(groups))?;
        }
        m.serialize_entry("OS-EXT-STS:task_state", &s.task_state)?;
        m.serialize_entry("OS-EXT-STS:vm_state", &s.vm_state)?;
        m.serialize_entry("OS-EXT-STS:power_state", &s.power_state)?;
        m.serialize_entry("os-extended-volumes:volumes_attached", &[(); 0])?;
        if look.extended {
            let host = look.host_name(s);
            m.serialize_entry("OS-EXT-SRV-ATTR:host", &host)?;
            m.serialize_entry("OS-EXT-SRV-ATTR:instance_name", &s.instance_name())?;
            m.serialize_entry("OS-EXT-SRV-ATTR:hypervisor_hostname", &host)?;
            if look.since(3) {
                m.serialize_entry("OS-EXT-SRV-ATTR:hostname", &s.hostname)?;
                m.serialize_entry("OS-EXT-SRV-ATTR:kernel_id", "")?;
                m.serialize_entry("OS-EXT-SRV-ATTR:ramdisk_id", "")?;
                m.serialize_entry("OS-EXT-SRV-ATTR:launch_index", &s.launch_index)?;
                m.serialize_entry("OS-EXT-SRV-ATTR:reservation_id", &s.reservation_id)?;
                m.serialize_entry("OS-EXT-SRV-ATTR:root_device_name", "/dev/vda")?;
                if !rebuilt {
                    m.serialize_entry("OS-EXT-SRV-ATTR:user_data", &s.user_data)?;
                }
            }
        } else if look.since(90) {
            m.serialize_entry("OS-EXT-SRV-ATTR:hostname", &s.hostname)?;
        }
        if look.since(16) && look.host_status {
            let status = s
                .host_id
                .as_ref()
                .and_then(|h| look.hosts.get(h))
                .map_or("", |(_, st)| st);
            m.serialize_entry("host_status", status)?;
        }
        m.end()
    }
}

/// `{"servers": [...], "servers_links": ...}`.
pub(crate) struct ServerList<'a> {
    pub servers: &'a [Stored<Server>],
    pub look: &'a Look<'a>,
    pub next: Option<Value>,
}

impl Serialize for ServerList<'_> {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        struct All<'a>(&'a ServerList<'a>);
        impl Serialize for All<'_> {
            fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
                out.collect_seq(self.0.servers.iter().map(|s| ServerView {
                    s,
                    look: self.0.look,
                    admin_pass: None,
                    short: false,
                }))
            }
        }
        let mut m = out.serialize_map(None)?;
        m.serialize_entry("servers", &All(self))?;
        if let Some(next) = &self.next {
            m.serialize_entry("servers_links", next)?;
        }
        m.end()
    }
}

/// A flavor (Nova API reference, "Show Flavor Details").
pub(crate) fn flavor(f: &Flavor, v: Ver, base: &str, detail: bool, specs: bool) -> Value {
    let mut out = serde_json::json!({
        "id": f.id,
        "name": f.name,
        "links": Links { base, kind: "flavors", id: &f.id },
    });
    let Some(m) = out.as_object_mut() else { return out };
    if v >= Ver(2, 55) {
        m.insert("description".into(), f.description.clone().into());
    }
    if detail {
        m.insert("ram".into(), f.ram.into());
        m.insert("disk".into(), f.disk.into());
        m.insert("vcpus".into(), f.vcpus.into());
        m.insert(
            "swap".into(),
            if f.swap == 0 && v < Ver(2, 75) {
                "".into()
            } else {
                f.swap.into()
            },
        );
        m.insert("OS-FLV-EXT-DATA:ephemeral".into(), f.ephemeral.into());
        m.insert("os-flavor-access:is_public".into(), f.is_public.into());
        if v < Ver(2, 102) {
            m.insert("OS-FLV-DISABLED:disabled".into(), f.disabled.into());
            m.insert("rxtx_factor".into(), f.rxtx_factor.into());
        }
        if v >= Ver(2, 61) && specs {
            m.insert("extra_specs".into(), serde_json::json!(f.extra_specs));
        }
    }
    out
}
