//! The documents that a guest reads about itself, from the metadata service and from its config drive.
//!
//! Pure functions, no IO: [`lookup`] is the whole tree that the HTTP responder serves below
//! `http://169.254.169.254/`, [`config_drive`] is the list of files on the drive. Formats are Nova's:
//! OpenStack's `meta_data.json`, `network_data.json`, `vendor_data.json` (Nova admin guide "Metadata
//! service", "Config drives") and EC2's `meta-data` tree of 2009-04-04.
//!
//! Every dated OpenStack version carries the newest content: later dates only added fields, and readers
//! ignore those that they do not know.

use crate::{Metadata, Network, Port, Subnet};
use base64::Engine as _;
use serde_json::{Map, Value, json};
use std::net::IpAddr;
use uuid::Uuid;

/// EC2 versions as Nova lists them at `/`, without `latest`.
pub const EC2_VERSIONS: [&str; 9] = [
    "1.0",
    "2007-01-19",
    "2007-03-01",
    "2007-08-29",
    "2007-10-10",
    "2007-12-15",
    "2008-02-01",
    "2008-09-01",
    "2009-04-04",
];

/// OpenStack versions as Nova lists them at `/openstack`, without `latest`.
pub const OPENSTACK_VERSIONS: [&str; 9] = [
    "2012-08-10",
    "2013-04-04",
    "2013-10-17",
    "2015-10-15",
    "2016-06-30",
    "2016-10-06",
    "2017-02-22",
    "2018-08-27",
    "2020-10-14",
];

const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=UTF-8";
const BYTES: &str = "application/octet-stream";

/// All that the documents of one guest are made from.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    pub guest_id: Uuid,
    pub project_id: &'a str,
    pub metadata: &'a Metadata,
    /// The guest's ports in the order of its NICs, each with its network.
    pub ports: &'a [(&'a Port, &'a Network)],
    /// A floating IPv4 address of the first port, when the host knows one.
    pub public_ipv4: Option<IpAddr>,
    /// What the guest has posted as its password, or nothing.
    pub password: &'a str,
    /// Fresh random bytes for `random_seed`; empty leaves it out.
    pub random_seed: &'a [u8],
}

/// One document with its media type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    pub content_type: &'static str,
    pub body: Vec<u8>,
}

impl Document {
    fn text(body: impl Into<String>) -> Self {
        Self {
            content_type: TEXT,
            body: body.into().into_bytes(),
        }
    }
    fn json(value: &Value) -> Self {
        Self {
            content_type: JSON,
            body: value.to_string().into_bytes(),
        }
    }
}

/// `meta_data.json`, without the admin password and without `random_seed`.
pub fn openstack_meta_data(guest_id: Uuid, project_id: &str, m: &Metadata) -> Value {
    let mut doc = json!({
        "uuid": guest_id,
        "hostname": m.hostname,
        "name": m.hostname,
        "launch_index": m.launch_index,
        "availability_zone": m.availability_zone,
        "project_id": project_id,
        "devices": [],
        "dedicated_cpus": [],
    });
    if let Some(map) = doc.as_object_mut() {
        if !m.meta.is_empty() {
            map.insert("meta".into(), json!(m.meta));
        }
        if !m.public_keys.is_empty() {
            let by_name: Map<String, Value> = m
                .public_keys
                .iter()
                .map(|k| (k.name.clone(), Value::from(k.key.as_str())))
                .collect();
            let keys: Vec<Value> = m
                .public_keys
                .iter()
                .map(|k| json!({"name": k.name, "type": k.kind, "data": k.key}))
                .collect();
            map.insert("public_keys".into(), Value::Object(by_name));
            map.insert("keys".into(), Value::Array(keys));
        }
    }
    doc
}

/// `network_data.json`: one link per port, one network per subnet that the port has an address of.
pub fn network_data(ports: &[(&Port, &Network)]) -> Value {
    let mut links = Vec::new();
    let mut networks = Vec::new();
    let mut services: Vec<Value> = Vec::new();
    for (port, network) in ports {
        let mut link_id = format!("tap{}", port.id);
        // Nova's name of the device, whatever it is called on this host.
        link_id.truncate(14);
        links.push(json!({
            "id": link_id,
            "vif_id": port.id,
            "type": "bridge",
            "mtu": network.mtu,
            "ethernet_mac_address": port.mac,
        }));
        for fixed in &port.fixed_ips {
            let Some(subnet) = network.subnets.iter().find(|s| s.id == fixed.subnet_id) else {
                continue;
            };
            let id = format!("network{}", networks.len());
            networks.push(subnet_entry(&id, &link_id, fixed.ip, subnet, network.id));
            for address in &subnet.dns_servers {
                let entry = json!({"type": "dns", "address": address});
                if !services.contains(&entry) {
                    services.push(entry);
                }
            }
        }
    }
    json!({"links": links, "networks": networks, "services": services})
}

fn subnet_entry(id: &str, link: &str, ip: IpAddr, subnet: &Subnet, network_id: Uuid) -> Value {
    let version = if ip.is_ipv4() { 4 } else { 6 };
    let mode = subnet.ipv6_address_mode.as_deref().filter(|_| version == 6);
    if mode.is_none() && subnet.enable_dhcp {
        return json!({
            "id": id,
            "type": format!("ipv{version}_dhcp"),
            "link": link,
            "network_id": network_id,
        });
    }
    let any = if version == 4 { "0.0.0.0" } else { "::" };
    let mut routes = Vec::new();
    if let Some(gateway) = subnet.gateway {
        routes.push(json!({"network": any, "netmask": any, "gateway": gateway}));
    }
    for (net, hop) in &subnet.host_routes {
        routes.push(json!({"network": net.network(), "netmask": net.netmask(), "gateway": hop}));
    }
    let dns: Vec<Value> = subnet
        .dns_servers
        .iter()
        .map(|a| json!({"type": "dns", "address": a}))
        .collect();
    json!({
        "id": id,
        "type": mode.map_or_else(|| format!("ipv{version}"), |m| format!("ipv{version}_{m}")),
        "link": link,
        "ip_address": ip,
        "netmask": subnet.cidr.netmask(),
        "routes": routes,
        "network_id": network_id,
        "services": dns,
    })
}

/// EC2's `i-...` id of a guest.
pub fn ec2_instance_id(m: &Metadata) -> String {
    format!("i-{:08x}", m.ec2_number)
}

/// EC2's `meta-data` as a tree: objects are directories, arrays are lists of lines. A directory with
/// the member `_name` is listed under that name (`public-keys/` lists `0=name`).
pub fn ec2_tree(guest_id: Uuid, m: &Metadata, local_ipv4: Option<IpAddr>, public_ipv4: Option<IpAddr>) -> Value {
    let address = |ip: Option<IpAddr>| ip.map_or_else(String::new, |ip| ip.to_string());
    let mut reservation = guest_id.simple().to_string();
    reservation.truncate(8);
    let mut devices = json!({"ami": "vda", "root": "/dev/vda"});
    if let Some(map) = devices.as_object_mut() {
        map.extend(m.block_devices.iter().map(|(k, v)| (k.clone(), v.clone().into())));
    }
    let mut tree = json!({
        // Images have no EC2 number here; the id only has to look like one.
        "ami-id": "ami-00000001",
        "ami-launch-index": m.launch_index.to_string(),
        "ami-manifest-path": "FIXME",
        "block-device-mapping": devices,
        "hostname": m.hostname,
        "instance-action": "none",
        "instance-id": ec2_instance_id(m),
        "instance-type": m.instance_type,
        "local-hostname": m.hostname,
        "local-ipv4": address(local_ipv4),
        "placement": {"availability-zone": m.availability_zone},
        "public-hostname": m.hostname,
        "public-ipv4": address(public_ipv4),
        "reservation-id": format!("r-{reservation}"),
        "security-groups": m.security_groups,
    });
    if let (Some(map), false) = (tree.as_object_mut(), m.public_keys.is_empty()) {
        let keys: Map<String, Value> = m
            .public_keys
            .iter()
            .enumerate()
            .map(|(i, k)| {
                let entry = json!({"_name": format!("{i}={}", k.name), "openssh-key": k.key});
                (i.to_string(), entry)
            })
            .collect();
        map.insert("public-keys".into(), Value::Object(keys));
    }
    tree
}

/// A node of [`ec2_tree`] as the service prints it.
fn ec2_print(node: &Value) -> String {
    match node {
        Value::Object(map) => {
            let mut lines: Vec<String> = map
                .iter()
                .filter(|(k, _)| *k != "_name")
                .map(|(k, v)| match v.get("_name").and_then(Value::as_str) {
                    Some(name) => name.to_owned(),
                    None if v.is_object() => format!("{k}/"),
                    None => k.clone(),
                })
                .collect();
            lines.sort();
            lines.join("\n")
        }
        Value::Array(items) => {
            let lines: Vec<String> = items.iter().map(ec2_print).collect();
            lines.join("\n")
        }
        Value::String(s) => s.clone(),
        other => other.to_string(),
    }
}

/// The user data as bytes; `None` when there is none. What is not Base64 is given as it is.
pub fn user_data(m: &Metadata) -> Option<Vec<u8>> {
    let text = m.user_data.as_deref()?;
    let compact: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    Some(
        base64::engine::general_purpose::STANDARD
            .decode(compact)
            .unwrap_or_else(|_| text.as_bytes().to_vec()),
    )
}

fn vendor_data2() -> Value {
    json!({"static": {}})
}

/// Answers `GET path` of the metadata service; `None` is 404. `path` is the URL's path without query;
/// empty and doubled slashes are ignored, as Nova does.
///
/// The admin password is never served here (any process in the guest can ask), only on the config drive.
pub fn lookup(path: &str, source: &Source<'_>) -> Option<Document> {
    let parts: Vec<&str> = path.split('/').filter(|p| !p.is_empty()).collect();
    match parts.as_slice() {
        [] => Some(Document::text(listing(&EC2_VERSIONS))),
        ["openstack"] => Some(Document::text(listing(&OPENSTACK_VERSIONS))),
        ["openstack", version, rest @ ..] => {
            if *version != "latest" && !OPENSTACK_VERSIONS.contains(version) {
                return None;
            }
            openstack(version, rest, source)
        }
        [version, rest @ ..] => {
            if *version != "latest" && !EC2_VERSIONS.contains(version) {
                return None;
            }
            ec2(rest, source)
        }
    }
}

fn listing(versions: &[&str]) -> String {
    let mut lines = versions.to_vec();
    lines.push("latest");
    lines.join("\n")
}

/// Whether this is the path of the password, the only one that a guest can post to.
pub fn is_password(path: &str) -> bool {
    let mut parts = path.split('/').filter(|p| !p.is_empty());
    let known = |v: &str| v == "latest" || OPENSTACK_VERSIONS.contains(&v) && has_password(v);
    parts.next() == Some("openstack")
        && parts.next().is_some_and(known)
        && parts.next() == Some("password")
        && parts.next().is_none()
}

/// The password came with the second version.
fn has_password(version: &str) -> bool {
    Some(&version) != OPENSTACK_VERSIONS.first()
}

fn openstack(version: &str, rest: &[&str], source: &Source<'_>) -> Option<Document> {
    let m = source.metadata;
    match rest {
        [] => {
            let mut names = vec!["meta_data.json"];
            if m.user_data.is_some() {
                names.push("user_data");
            }
            if has_password(version) {
                names.push("password");
            }
            names.extend(["vendor_data.json", "network_data.json", "vendor_data2.json"]);
            Some(Document::text(names.join("\n")))
        }
        ["meta_data.json"] => Some(Document::json(&full_meta_data(source))),
        ["user_data"] => user_data(m).map(|body| Document {
            content_type: BYTES,
            body,
        }),
        ["password"] if has_password(version) => Some(Document::text(source.password)),
        ["vendor_data.json"] => Some(Document::json(&json!({}))),
        ["vendor_data2.json"] => Some(Document::json(&vendor_data2())),
        ["network_data.json"] => Some(Document::json(&network_data(source.ports))),
        _ => None,
    }
}

fn full_meta_data(source: &Source<'_>) -> Value {
    let mut doc = openstack_meta_data(source.guest_id, source.project_id, source.metadata);
    if let (Some(map), false) = (doc.as_object_mut(), source.random_seed.is_empty()) {
        let seed = base64::engine::general_purpose::STANDARD.encode(source.random_seed);
        map.insert("random_seed".into(), Value::from(seed));
    }
    doc
}

fn first_ipv4(ports: &[(&Port, &Network)]) -> Option<IpAddr> {
    ports
        .iter()
        .flat_map(|(p, _)| p.fixed_ips.iter())
        .map(|f| f.ip)
        .find(IpAddr::is_ipv4)
}

fn ec2(rest: &[&str], source: &Source<'_>) -> Option<Document> {
    let m = source.metadata;
    match rest {
        [] if m.user_data.is_some() => Some(Document::text("meta-data/\nuser-data")),
        [] => Some(Document::text("meta-data/")),
        ["user-data"] => user_data(m).map(|body| Document {
            content_type: BYTES,
            body,
        }),
        ["meta-data", keys @ ..] => {
            let tree = ec2_tree(source.guest_id, m, first_ipv4(source.ports), source.public_ipv4);
            let mut node = &tree;
            for key in keys {
                // `0=name` is how a key is listed; clients strip it, and `_name` is ours.
                node = node.get(*key).filter(|_| *key != "_name")?;
            }
            Some(Document::text(ec2_print(node)))
        }
        _ => None,
    }
}

/// The files of the config drive (label `config-2`): path without leading slash, and bytes.
pub fn config_drive(source: &Source<'_>) -> Vec<(String, Vec<u8>)> {
    let m = source.metadata;
    let mut meta = full_meta_data(source);
    if let (Some(map), Some(password)) = (meta.as_object_mut(), m.admin_pass.as_deref()) {
        map.insert("admin_pass".into(), Value::from(password));
    }
    let ec2 = ec2_tree(source.guest_id, m, first_ipv4(source.ports), source.public_ipv4);
    let mut files = vec![
        ("ec2/latest/meta-data.json".to_owned(), ec2.to_string().into_bytes()),
        (
            "openstack/latest/meta_data.json".to_owned(),
            meta.to_string().into_bytes(),
        ),
        (
            "openstack/latest/network_data.json".to_owned(),
            network_data(source.ports).to_string().into_bytes(),
        ),
        ("openstack/latest/vendor_data.json".to_owned(), b"{}".to_vec()),
        (
            "openstack/latest/vendor_data2.json".to_owned(),
            vendor_data2().to_string().into_bytes(),
        ),
    ];
    if let Some(bytes) = user_data(m) {
        files.push(("ec2/latest/user-data".to_owned(), bytes.clone()));
        files.push(("openstack/latest/user_data".to_owned(), bytes));
    }
    files
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use crate::{FixedIp, PublicKey};

    fn metadata() -> Metadata {
        Metadata {
            hostname: "vm-one".into(),
            instance_type: "m1.tiny".into(),
            ec2_number: 26,
            availability_zone: "nova".into(),
            public_keys: vec![PublicKey {
                name: "mykey".into(),
                kind: "ssh".into(),
                key: "ssh-ed25519 AAAA me".into(),
            }],
            meta: [("role".to_owned(), "db".to_owned())].into(),
            user_data: Some("IyEvYmluL3NoCg==".into()),
            security_groups: vec!["default".into(), "web".into()],
            admin_pass: Some("sekret".into()),
            ..Metadata::default()
        }
    }

    fn network(dhcp: bool) -> (Network, Port) {
        let subnet = Subnet {
            id: Uuid::from_u128(5),
            cidr: "10.0.0.0/24".parse().unwrap(),
            gateway: Some("10.0.0.1".parse().unwrap()),
            enable_dhcp: dhcp,
            service: None,
            dns_servers: vec!["9.9.9.9".parse().unwrap()],
            host_routes: vec![("10.9.0.0/16".parse().unwrap(), "10.0.0.7".parse().unwrap())],
            ipv6_ra_mode: None,
            ipv6_address_mode: None,
        };
        let network = Network {
            id: Uuid::from_u128(4),
            index: 1,
            mtu: 1450,
            subnets: vec![subnet],
            external: false,
            admin_state_up: true,
            dns_domain: String::new(),
        };
        let port = Port {
            id: Uuid::from_u128(0x1234_5678_9abc_def0_1234_5678_9abc_def0),
            index: 3,
            network_id: network.id,
            guest_id: None,
            mac: "fa:16:3e:00:00:01".into(),
            fixed_ips: vec![FixedIp {
                subnet_id: Uuid::from_u128(5),
                ip: "10.0.0.9".parse().unwrap(),
            }],
            allowed_address_pairs: vec![],
            port_security: true,
            security_groups: vec![],
            admin_state_up: true,
            dns_name: String::new(),
            extra_dhcp_opts: vec![],
        };
        (network, port)
    }

    fn get(path: &str) -> Option<String> {
        let (m, (n, p)) = (metadata(), network(true));
        let source = Source {
            guest_id: Uuid::from_u128(7),
            project_id: "abc",
            metadata: &m,
            ports: &[(&p, &n)],
            public_ipv4: None,
            password: "sealed",
            random_seed: b"x",
        };
        lookup(path, &source).map(|d| String::from_utf8(d.body).unwrap())
    }

    #[test]
    fn ec2_paths() {
        assert!(get("/").unwrap().ends_with("2009-04-04\nlatest"));
        assert_eq!(get("/latest/").unwrap(), "meta-data/\nuser-data");
        let list = get("/2009-04-04/meta-data/").unwrap();
        assert!(
            list.contains("\nplacement/\n") && list.contains("\npublic-keys/\n"),
            "{list}"
        );
        assert_eq!(get("/latest/meta-data/public-keys/").unwrap(), "0=mykey");
        assert_eq!(get("/latest/meta-data/public-keys/0/").unwrap(), "openssh-key");
        assert_eq!(
            get("/latest/meta-data/public-keys/0/openssh-key").unwrap(),
            "ssh-ed25519 AAAA me"
        );
        assert_eq!(get("/latest/meta-data/instance-id").unwrap(), "i-0000001a");
        assert_eq!(get("//latest//meta-data/security-groups").unwrap(), "default\nweb");
        assert_eq!(get("/latest/meta-data/local-ipv4").unwrap(), "10.0.0.9");
        assert_eq!(get("/latest/user-data").unwrap(), "#!/bin/sh\n");
        for gone in [
            "/latest/meta-data/nothing",
            "/1999-01-01/meta-data/",
            "/latest/meta-data/public-keys/0/_name",
            "/latest/meta-data/hostname/x",
        ] {
            assert_eq!(get(gone), None, "{gone}");
        }
    }

    #[test]
    fn openstack_paths() {
        assert!(get("/openstack").unwrap().starts_with("2012-08-10\n"));
        let meta: Value = serde_json::from_str(&get("/openstack/latest/meta_data.json").unwrap()).unwrap();
        assert_eq!(meta["public_keys"]["mykey"], "ssh-ed25519 AAAA me");
        assert_eq!(meta["meta"]["role"], "db");
        assert_eq!(meta["project_id"], "abc");
        assert!(meta["random_seed"].is_string());
        assert!(meta.get("admin_pass").is_none(), "never served over HTTP");
        assert_eq!(get("/openstack/2018-08-27/user_data").unwrap(), "#!/bin/sh\n");
        assert_eq!(get("/openstack/1999-01-01/meta_data.json"), None);
        assert_eq!(get("/openstack/latest/content/0000"), None);
        assert_eq!(get("/openstack/2013-04-04/password").unwrap(), "sealed");
        assert!(get("/openstack/2013-04-04/").unwrap().contains("password"));
        // It came with the second version.
        assert_eq!(get("/openstack/2012-08-10/password"), None);
        assert!(!get("/openstack/2012-08-10").unwrap().contains("password"));
        assert!(is_password("//openstack/latest/password/") && is_password("/openstack/2020-10-14/password"));
        for other in [
            "/openstack/2012-08-10/password",
            "/latest/password",
            "/openstack/latest/password/x",
            "/openstack/1/password",
        ] {
            assert!(!is_password(other), "{other}");
        }
    }

    #[test]
    fn network_documents() {
        let (n, p) = network(true);
        let doc = network_data(&[(&p, &n)]);
        assert_eq!(doc["links"][0]["id"], "tap12345678-9a");
        assert_eq!(doc["networks"][0]["type"], "ipv4_dhcp");
        assert!(doc["networks"][0].get("ip_address").is_none());
        let (n, p) = network(false);
        let doc = network_data(&[(&p, &n)]);
        assert_eq!(doc["networks"][0]["type"], "ipv4");
        assert_eq!(doc["networks"][0]["netmask"], "255.255.255.0");
        assert_eq!(doc["networks"][0]["routes"][0]["gateway"], "10.0.0.1");
        assert_eq!(doc["networks"][0]["routes"][1]["network"], "10.9.0.0");
        assert_eq!(doc["services"][0]["address"], "9.9.9.9");
    }

    #[test]
    fn drive_has_the_password() {
        let m = metadata();
        let source = Source {
            guest_id: Uuid::from_u128(7),
            project_id: "abc",
            metadata: &m,
            ports: &[],
            public_ipv4: None,
            password: "",
            random_seed: &[],
        };
        let files = config_drive(&source);
        let meta = files
            .iter()
            .find(|(n, _)| n == "openstack/latest/meta_data.json")
            .unwrap();
        let meta: Value = serde_json::from_slice(&meta.1).unwrap();
        assert_eq!(meta["admin_pass"], "sekret");
        assert!(files.iter().any(|(n, _)| n == "openstack/latest/user_data"));
    }
}
