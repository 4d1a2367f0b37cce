//! The first things in a new cloud, made through the API as any user would make them: flavors, a network with
//! a router to the outside, a key, rules for ssh and ping, and a server with a floating IP.

use super::{Person, image};
use crate::client::{Client, escape};
use crate::proc::monotonic;
use crate::state::Deeds;
use crate::ui::Step;
use crate::{Result, Trouble, admin, failed};
use haneul_core::config::Config;
use serde_json::{Value, json};
use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Name, virtual CPUs, MiB of memory, GiB of disk.
const FLAVORS: [(&str, u32, u32, u32); 6] = [
    ("m1.nano", 1, 128, 1),
    ("m1.tiny", 1, 512, 1),
    ("m1.small", 1, 2048, 20),
    ("m1.medium", 2, 4096, 40),
    ("m1.large", 4, 8192, 80),
    ("m1.xlarge", 8, 16384, 160),
];
/// Of the network, the router, the key and the server.
const NETWORK: &str = "private";
const ROUTER: &str = "router";
const KEYPAIR: &str = "haneul";
const SERVER: &str = "first";
const CIDR: &str = "10.10.0.0/24";

/// The first server.
pub struct First {
    pub name: String,
    /// Floating IP; empty under a fake hypervisor.
    pub address: String,
    pub key: PathBuf,
}

fn id(v: &Value) -> String {
    admin::text(v, "id").to_owned()
}

/// The first object of a listing, when there is one.
fn first(client: &Client, path: &str, key: &str) -> Result<Option<Value>> {
    Ok(admin::list(&client.get(path)?, key).first().cloned())
}

/// Posts a new object and gives it back without its wrapper.
fn create(client: &Client, path: &str, key: &str, body: Value) -> Result<Value> {
    let answer = client.post(path, &json!({ key: body }))?;
    answer
        .get(key)
        .cloned()
        .ok_or_else(|| failed(format!("POST {path}: the answer has no {key}")))
}

/// Flavors that are missing.
pub fn flavors(client: &Client) -> Result<()> {
    let step = Step::begin("flavors");
    let there = client.get("/compute/v2.1/flavors/detail?is_public=None")?;
    let names: Vec<&str> = admin::list(&there, "flavors")
        .iter()
        .map(|f| admin::text(f, "name"))
        .collect();
    let missing: Vec<_> = FLAVORS.iter().filter(|f| !names.contains(&f.0)).collect();
    for (name, vcpus, ram, disk) in &missing {
        create(
            client,
            "/compute/v2.1/flavors",
            "flavor",
            json!({"name": name, "vcpus": vcpus, "ram": ram, "disk": disk}),
        )?;
    }
    let made: Vec<&str> = missing.iter().map(|f| f.0).collect();
    step.done(if made.is_empty() {
        "all there".into()
    } else {
        format!("made {}", made.join(", "))
    });
    Ok(())
}

/// A network of the admin's project, with IPv4 and IPv6, behind a router; its id.
fn network(config: &Config, client: &Client) -> Result<String> {
    let step = Step::begin("network");
    let mut made = Vec::new();
    // Admins see every project's: the name alone is not enough.
    let project = format!("project_id={}", project_id(client)?);
    let find = |kind: &str, name: &str| {
        first(
            client,
            &format!("/network/v2.0/{kind}?name={}&{project}", escape(name)),
            kind,
        )
    };
    let net = match find("networks", NETWORK)? {
        Some(n) => id(&n),
        None => {
            made.push("network");
            id(&create(
                client,
                "/network/v2.0/networks",
                "network",
                json!({"name": NETWORK}),
            )?)
        }
    };
    let subnets = client.get(&format!("/network/v2.0/subnets?network_id={net}"))?;
    let subnets = admin::list(&subnets, "subnets");
    let mut legs = Vec::new();
    for version in [4, 6] {
        if let Some(s) = subnets
            .iter()
            .find(|s| s.get("ip_version").and_then(Value::as_u64) == Some(version))
        {
            legs.push(id(s));
            continue;
        }
        let body = if version == 4 {
            json!({"name": "private-v4", "network_id": net, "ip_version": 4, "cidr": CIDR})
        } else {
            json!({"name": "private-v6", "network_id": net, "ip_version": 6, "cidr": unique_local(),
                "ipv6_ra_mode": "slaac", "ipv6_address_mode": "slaac"})
        };
        made.push(if version == 4 { "IPv4 subnet" } else { "IPv6 subnet" });
        legs.push(id(&create(client, "/network/v2.0/subnets", "subnet", body)?));
    }
    let outside = if config.network.external_name.is_empty() {
        None
    } else {
        first(
            client,
            &format!(
                "/network/v2.0/networks?name={}&router:external=true",
                escape(&config.network.external_name)
            ),
            "networks",
        )?
    };
    let router = match find("routers", ROUTER)? {
        Some(r) => id(&r),
        None => {
            made.push("router");
            let mut body = json!({"name": ROUTER});
            if let (Some(outside), Some(map)) = (&outside, body.as_object_mut()) {
                map.insert("external_gateway_info".into(), json!({"network_id": id(outside)}));
            }
            id(&create(client, "/network/v2.0/routers", "router", body)?)
        }
    };
    let ports = client.get(&format!("/network/v2.0/ports?device_id={router}&network_id={net}"))?;
    let attached: Vec<&str> = admin::list(&ports, "ports")
        .iter()
        .flat_map(|p| admin::list(p, "fixed_ips"))
        .map(|f| admin::text(f, "subnet_id"))
        .collect();
    for leg in legs.iter().filter(|l| !attached.contains(&l.as_str())) {
        client.put(
            &format!("/network/v2.0/routers/{router}/add_router_interface"),
            &json!({"subnet_id": leg}),
        )?;
    }
    step.done(if made.is_empty() {
        format!("{NETWORK} is there")
    } else {
        format!("made {} of {NETWORK} ({CIDR})", made.join(", "))
    });
    Ok(net)
}

/// A /64 that nobody else has chosen (RFC 4193).
fn unique_local() -> String {
    let b = haneul_core::id::random_bytes(5);
    let at = |i: usize| b.get(i).copied().unwrap_or(0);
    format!(
        "fd{:02x}:{:x}:{:x}::/64",
        at(0),
        u16::from_be_bytes([at(1), at(2)]),
        u16::from_be_bytes([at(3), at(4)])
    )
}

fn project_id(client: &Client) -> Result<String> {
    let projects = client.get("/identity/v3/projects?name=admin&domain_id=default")?;
    admin::list(&projects, "projects")
        .first()
        .map(id)
        .ok_or_else(|| failed("there is no project admin"))
}

/// ssh and ping from everywhere, in the project's default group.
fn rules(client: &Client) -> Result<()> {
    let step = Step::begin("security group");
    let project = project_id(client)?;
    let group = first(
        client,
        &format!("/network/v2.0/security-groups?name=default&project_id={project}"),
        "security_groups",
    )?
    .ok_or_else(|| failed("the project admin has no default security group"))?;
    let there = admin::list(&group, "security_group_rules");
    let mut made = 0;
    for (ethertype, protocol, port) in [
        ("IPv4", "tcp", Some(22)),
        ("IPv6", "tcp", Some(22)),
        ("IPv4", "icmp", None),
        ("IPv6", "ipv6-icmp", None),
    ] {
        let same = |r: &Value| {
            admin::text(r, "direction") == "ingress"
                && admin::text(r, "ethertype") == ethertype
                && admin::text(r, "protocol") == protocol
                && r.get("port_range_min").and_then(Value::as_i64) == port
                && r.get("remote_group_id").is_none_or(Value::is_null)
        };
        if there.iter().any(same) {
            continue;
        }
        made += 1;
        let body = json!({"security_group_id": id(&group), "direction": "ingress", "ethertype": ethertype,
            "protocol": protocol, "port_range_min": port, "port_range_max": port});
        create(
            client,
            "/network/v2.0/security-group-rules",
            "security_group_rule",
            body,
        )?;
    }
    step.done(if made == 0 {
        "ssh and ping are open".into()
    } else {
        format!("opened ssh and ping ({made} rules)")
    });
    Ok(())
}

/// Makes the person's key when there is none, and the cloud's keypair when it is not this key.
fn keypair(config: &Config, client: &Client, person: &Person) -> Result<PathBuf> {
    let step = Step::begin("key");
    let dir = person.home.join(".config/haneul");
    person.make_dir(&dir)?;
    let key = dir.join("id_ed25519");
    let public = dir.join("id_ed25519.pub");
    let mut made = false;
    if !key.exists() {
        let output = Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-C", "haneul", "-f"])
            .arg(&key)
            .stdin(Stdio::null())
            .output()
            .when("ssh-keygen (package openssh-client)")?;
        if !output.status.success() {
            return Err(failed(format!(
                "ssh-keygen: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            )));
        }
        person.give(&key)?;
        person.give(&public)?;
        made = true;
        Deeds::note(config, |d| d.files.extend([key.clone(), public.clone()]))?;
    }
    let text = std::fs::read_to_string(&public).at(&public)?;
    let text = text.trim();
    let there = client.get("/compute/v2.1/os-keypairs")?;
    let there = admin::list(&there, "keypairs")
        .iter()
        .filter_map(|k| k.get("keypair"))
        .find(|k| admin::text(k, "name") == KEYPAIR);
    let body = |s: &str| s.split_whitespace().nth(1).map(str::to_owned);
    if there.is_none_or(|k| body(admin::text(k, "public_key")) != body(text)) {
        if there.is_some() {
            client.delete(&format!("/compute/v2.1/os-keypairs/{KEYPAIR}"))?;
        }
        create(
            client,
            "/compute/v2.1/os-keypairs",
            "keypair",
            json!({"name": KEYPAIR, "public_key": text}),
        )?;
        made = true;
    }
    step.done(format!("{} {}", if made { "made" } else { "is there:" }, key.display()));
    Ok(key)
}

/// The first server with everything that it needs; waits until somebody can log in to it.
pub fn first_server(config: &Config, client: &Client, person: &Person, fake: bool) -> Result<First> {
    let net = network(config, client)?;
    rules(client)?;
    let key = keypair(config, client, person)?;
    let step = Step::begin("server");
    let found = client.get(&format!("/compute/v2.1/servers/detail?name={}", escape(SERVER)))?;
    let there = admin::list(&found, "servers")
        .iter()
        .find(|s| admin::text(s, "name") == SERVER);
    let server = match there {
        Some(s) => id(s),
        None => {
            step.doing("creating");
            id(&create(
                client,
                "/compute/v2.1/servers",
                "server",
                server_body(client, &net)?,
            )?)
        }
    };
    let active = wait_active(client, &server, &step)?;
    if !active {
        // Somebody stopped it on purpose.
        step.warn(format!(
            "{SERVER} is there, but does not run: `openstack server start {SERVER}`"
        ));
        return Ok(First {
            name: SERVER.into(),
            address: String::new(),
            key,
        });
    }
    step.done(format!(
        "{SERVER} ({server}) is ACTIVE{}",
        if there.is_some() { ", as before" } else { "" }
    ));
    if fake {
        return Ok(First {
            name: SERVER.into(),
            address: String::new(),
            key,
        });
    }
    let address = floating_ip(config, client, &server)?;
    wait_ssh(client, &server, &address)?;
    Ok(First {
        name: SERVER.into(),
        address,
        key,
    })
}

fn server_body(client: &Client, net: &str) -> Result<Value> {
    let image = first(
        client,
        &format!("/image/v2/images?name={}&status=active", image::NAME),
        "images",
    )?
    .ok_or_else(|| failed(format!("there is no image {}", image::NAME)))?;
    let flavors = client.get("/compute/v2.1/flavors")?;
    let flavor = admin::list(&flavors, "flavors")
        .iter()
        .find(|f| admin::text(f, "name") == "m1.nano");
    let flavor = flavor.ok_or_else(|| failed("there is no flavor m1.nano"))?;
    Ok(
        json!({"name": SERVER, "imageRef": id(&image), "flavorRef": id(flavor), "key_name": KEYPAIR, "networks": [{"uuid": net}]}),
    )
}

/// Waits until the server is ACTIVE. False when it is at rest in another state.
fn wait_active(client: &Client, server: &str, step: &Step) -> Result<bool> {
    let end = monotonic() + Duration::from_secs(300);
    loop {
        let answer = client.get(&format!("/compute/v2.1/servers/{server}"))?;
        let s = answer.get("server").cloned().unwrap_or_default();
        let task = s.get("OS-EXT-STS:task_state").and_then(Value::as_str);
        match (admin::text(&s, "status"), task) {
            ("ACTIVE", None) => return Ok(true),
            ("ERROR", None) => {
                let why = s.get("fault").map_or("no cause given", |f| admin::text(f, "message"));
                return Err(failed(format!(
                    "server {SERVER} is in ERROR: {why}. `haneul jobs` and `haneul logs` say more; delete it with `openstack server delete {SERVER}` and run `haneul up` again"
                )));
            }
            ("SHUTOFF" | "PAUSED" | "SUSPENDED" | "SHELVED" | "SHELVED_OFFLOADED", None) => {
                return Ok(false);
            }
            (status, task) => step.doing(format!("{status} {}", task.unwrap_or_default())),
        }
        if monotonic() > end {
            return Err(failed(format!(
                "server {SERVER} is not ACTIVE after 300 s: `haneul jobs` says what it waits for"
            )));
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn floating_ip(config: &Config, client: &Client, server: &str) -> Result<String> {
    let step = Step::begin("floating IP");
    let ports = client.get(&format!("/network/v2.0/ports?device_id={server}"))?;
    let port = admin::list(&ports, "ports")
        .first()
        .map(id)
        .ok_or_else(|| failed(format!("server {SERVER} has no port")))?;
    if let Some(there) = first(
        client,
        &format!("/network/v2.0/floatingips?port_id={port}"),
        "floatingips",
    )? {
        let address = admin::text(&there, "floating_ip_address").to_owned();
        step.done(format!("{address}, as before"));
        return Ok(address);
    }
    let name = &config.network.external_name;
    let outside = first(client, &format!("/network/v2.0/networks?name={}&router:external=true", escape(name)), "networks")?
        .ok_or_else(|| failed(format!("there is no external network {name:?}: see network.external_name in the configuration, or `haneul up --no-server`")))?;
    let made = create(
        client,
        "/network/v2.0/floatingips",
        "floatingip",
        json!({"floating_network_id": id(&outside), "port_id": port}),
    )?;
    let address = admin::text(&made, "floating_ip_address").to_owned();
    step.done(&address);
    Ok(address)
}

/// Waits for the greeting of the guest's sshd, which comes only when network, addresses, rules and guest work.
fn wait_ssh(client: &Client, server: &str, address: &str) -> Result<()> {
    let step = Step::begin("ssh");
    let target: SocketAddr = format!("{address}:22").parse().when("floating IP")?;
    let end = monotonic() + Duration::from_secs(180);
    let mut why = String::new();
    while monotonic() < end {
        match banner(&target) {
            Ok(text) if text.starts_with("SSH-") => {
                step.done(format!(
                    "the guest answers: {}",
                    text.lines().next().unwrap_or_default().trim_end()
                ));
                return Ok(());
            }
            Ok(_) => why = "something answers, but not as sshd does".into(),
            Err(e) => why = e.to_string(),
        }
        step.doing(format!("the guest boots ({why})"));
        std::thread::sleep(Duration::from_millis(250));
    }
    step.fail("no answer");
    let console = client.post(
        &format!("/compute/v2.1/servers/{server}/action"),
        &json!({"os-getConsoleOutput": {"length": 15}}),
    );
    let console = console
        .ok()
        .and_then(|c| c.get("output")?.as_str().map(str::to_owned))
        .unwrap_or_default();
    Err(failed(format!(
        "{target} did not answer as sshd within 180 s ({why}). `haneul doctor` checks the way there. The end of its console:\n{console}"
    )))
}

fn banner(target: &SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(target, Duration::from_secs(2))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut bytes = [0; 128];
    let n = stream.read(&mut bytes)?;
    Ok(String::from_utf8_lossy(bytes.get(..n).unwrap_or_default()).into_owned())
}
