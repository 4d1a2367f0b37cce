//! The cloud that Tempest runs against, and what Tempest must know of it (Tempest's configuration reference).

use crate::{Options, proxy};
use anyhow::{Context, Result, bail};
use haneul_testkit::{Client, Cloud, Member, record};
use http::Method;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

pub struct Target {
    pub cloud: Cloud,
    /// The hosts beside the first.
    members: Vec<Member>,
    /// Where Tempest finds it: behind a proxy when exchanges are put on record.
    address: String,
    images: [String; 2],
    public: String,
    extensions: String,
    /// Where a qcow2 image can be fetched from.
    web: SocketAddr,
    /// The list of files for Tempest's tests of formats.
    formats: PathBuf,
}

const SHARED: &str = "tempest-shared";

impl Target {
    /// Starts a cloud with two images, two flavors, a shared network and the roles that Tempest gives away.
    pub async fn start(options: &Options) -> Result<Self> {
        let mut o = haneul_testkit::Options::fake(&options.binary);
        o.real = options.real;
        let (web, web_address) = Web::bind()?;
        let allowed = format!("image.web_download_from=[\"http://{web_address}\"]");
        o.sets = [
            "compute.quota_instances=100",
            "compute.quota_cores=200",
            // Two stores, and a copy in each: Tempest waits for an import in all of them.
            "image.stores=[{id = \"second\", description = \"Another directory\"}]",
            "image.import_stores=[\"file\", \"second\"]",
            "image.cache_bytes=1073741824",
            "security_compliance.lockout_duration=5",
            "security_compliance.unique_last_password_count=2",
            &allowed,
        ]
        .map(String::from)
        .to_vec();
        if options.hosts > 1 {
            o.sets.push(Cloud::fleet_listen());
            o.sets.push("agent.underlay=192.0.2.1".into());
        }
        let recorded = std::env::var_os(record::VARIABLE).is_some();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        if recorded {
            o.sets.push(format!("api.public_url=http://{}", listener.local_addr()?));
        }
        let cloud = Cloud::start(o).await;
        let mut members = Vec::new();
        for n in 1..options.hosts {
            members.push(Member::join(&cloud, &format!("host-{}", n + 1), None, &[]).await);
        }
        let address = if recorded {
            proxy::start(listener, cloud.address.clone()).await?.to_string()
        } else {
            cloud.address.clone()
        };
        let admin = cloud.admin_client().await;
        let formats = formats(&cloud)?;
        web.serve(std::fs::read(cloud.dir.join("image.qcow2"))?);
        let bytes = if options.real {
            let file = cloud.dir.join("guest.qcow2");
            let made = cloud.command().arg("guest-image").arg("--out").arg(&file).output()?;
            if !made.status.success() {
                bail!("guest-image: {}", String::from_utf8_lossy(&made.stderr));
            }
            std::fs::read(&file)?
        } else {
            vec![0x42; 1 << 16]
        };
        let format = if options.real { "qcow2" } else { "raw" };
        let images = [
            image(&admin, "tempest-1", format, &bytes).await?,
            image(&admin, "tempest-2", format, &bytes).await?,
        ];
        for (name, ram) in [("tempest-1", 128), ("tempest-2", 192)] {
            let flavor = json!({"flavor": {"name": name, "id": name, "vcpus": 1, "ram": ram, "disk": 1}});
            admin.post("/compute/v2.1/flavors", &flavor).await.expect(200);
        }
        let shared = json!({"network": {"name": SHARED, "shared": true}});
        let shared = admin.post("/network/v2.0/networks", &shared).await.expect(201);
        let subnet =
            json!({"subnet": {"network_id": shared["network"]["id"], "cidr": "10.77.0.0/16", "ip_version": 4}});
        admin.post("/network/v2.0/subnets", &subnet).await.expect(201);
        let role = json!({"role": {"name": "ResellerAdmin"}});
        admin.post("/identity/v3/roles", &role).await.expect(201);
        let public = admin
            .get("/network/v2.0/networks?router:external=true")
            .await
            .expect(200);
        let public = text(&public, "/networks/0/id")?;
        let extensions = admin.get("/network/v2.0/extensions").await.expect(200);
        let extensions = extensions["extensions"].as_array().context("extensions")?;
        let extensions: Vec<&str> = extensions.iter().filter_map(|e| e["alias"].as_str()).collect();
        Ok(Self {
            extensions: extensions.join(","),
            cloud,
            members,
            address,
            images,
            public,
            web: web_address,
            formats,
        })
    }

    /// What is switched off here is what Haneul does not offer yet; nothing is switched off for a test's sake.
    pub fn tempest_conf(&self, dir: &Path, real: bool) -> String {
        let Self {
            cloud,
            members,
            address,
            images: [image, image_alt],
            public,
            extensions,
            web,
            formats,
        } = self;
        let (dir, formats) = (dir.display(), formats.display());
        let (hosts, several) = (members.len() + 1, !members.is_empty());
        // Emulated guests boot slowly.
        let (timeout, validation, hypervisor) = match real {
            true => (600, "true", "QEMU"),
            false => (60, "false", "fake"),
        };
        format!(
            "[DEFAULT]
log_dir = {dir}
log_file = tempest.log
[oslo_concurrency]
lock_path = {dir}/lock
[auth]
use_dynamic_credentials = true
admin_username = admin
admin_password = {password}
admin_project_name = admin
admin_domain_name = Default
tempest_roles = member
[identity]
auth_version = v3
uri_v3 = http://{address}/identity/v3
region = RegionOne
admin_domain_scope = false
user_lockout_failure_attempts = 5
user_lockout_duration = 5
user_unique_last_password_count = 2
[identity-feature-enabled]
application_credentials = true
access_rules = true
project_tags = true
immutable_user_source = false
security_compliance = true
[service_available]
cinder = false
horizon = false
swift = false
glance = true
nova = true
neutron = true
[compute]
image_ref = {image}
image_ref_alt = {image_alt}
flavor_ref = tempest-1
flavor_ref_alt = tempest-2
fixed_network_name = {SHARED}
max_microversion = latest
build_interval = 1
build_timeout = {timeout}
ready_wait = 0
hypervisor_type = {hypervisor}
min_compute_nodes = {hosts}
[compute-feature-enabled]
resize = true
pause = true
suspend = true
shelve = false
rescue = false
snapshot = true
console_output = true
vnc_console = true
live_migration = {several}
block_migration_for_live_migration = {several}
live_migrate_back_and_forth = {several}
cold_migration = {several}
config_drive = true
scheduler_enabled_filters = all
[image]
build_timeout = {timeout}
image_caching_enabled = true
http_qcow2_image = http://{web}/image.qcow2
images_manifest_file = {formats}
[image-feature-enabled]
import_image = true
os_glance_reserved = true
image_format_enforcement = true
[network]
project_network_cidr = 10.100.0.0/16
public_network_id = {public}
floating_network_name = public
build_interval = 1
[network-feature-enabled]
api_extensions = {extensions}
ipv6 = true
[validation]
run_validation = {validation}
connect_method = floating
auth_method = keypair
image_ssh_user = haneul
ssh_timeout = {timeout}
ping_timeout = {timeout}
connect_timeout = 20
[scenario]
dhcp_client = udhcpc
[object-storage]
operator_role = member
reseller_admin_role = ResellerAdmin
",
            password = cloud.password(),
        )
    }
}

/// A web server on loopback with one page, for imports by web-download.
struct Web(TcpListener);

impl Web {
    fn bind() -> Result<(Self, SocketAddr)> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        Ok((Self(listener), address))
    }

    /// Answers until the process ends.
    fn serve(self, page: Vec<u8>) {
        std::thread::spawn(move || {
            for mut stream in self.0.incoming().flatten() {
                let mut request = [0; 4096];
                let _ = stream.read(&mut request);
                let head = format!(
                    "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                    page.len()
                );
                let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&page));
            }
        });
    }
}

/// A small image in each format, written by the binary under test, and the list of them as the project os-test-images
/// writes it.
fn formats(cloud: &Cloud) -> Result<PathBuf> {
    let raw = cloud.dir.join("image.raw");
    std::fs::write(&raw, vec![0x42; 1 << 20])?;
    let mut images = Vec::new();
    for format in ["raw", "qcow2", "vmdk", "vdi", "vhd", "vhdx"] {
        let file = raw.with_extension(format);
        if file != raw {
            let mut convert = cloud.command();
            convert
                .args(["convert", "--from", "raw", "--to", format])
                .arg(&raw)
                .arg(&file);
            let made = convert.output()?;
            if !made.status.success() {
                bail!("convert: {}", String::from_utf8_lossy(&made.stderr));
            }
        }
        images.push(json!({"name": format, "format": format, "filename": file, "usable": true}));
    }
    let list = cloud.dir.join("images.yaml");
    // YAML takes JSON.
    std::fs::write(&list, json!({"images": images}).to_string())?;
    Ok(list)
}

async fn image(admin: &Client, name: &str, format: &str, bytes: &[u8]) -> Result<String> {
    let body = json!({"name": name, "disk_format": format, "container_format": "bare", "visibility": "public"});
    let made = admin.post("/image/v2/images", &body).await.expect(201);
    let id = text(&made, "/id")?;
    let octets = [("content-type", "application/octet-stream")];
    let path = format!("/image/v2/images/{id}/file");
    let sent = admin.send(Method::PUT, &path, &octets, bytes.to_vec()).await;
    sent.expect(204);
    Ok(id)
}

fn text(v: &Value, pointer: &str) -> Result<String> {
    let found = v.pointer(pointer).and_then(Value::as_str);
    Ok(found.with_context(|| format!("no {pointer} in {v}"))?.to_owned())
}
