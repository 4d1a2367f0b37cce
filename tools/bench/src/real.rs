//! Real guests: QEMU, the kernel's data plane, our DHCP and metadata. Needs root.

use crate::Options;
use crate::figures::{Samples, Table, ms};
use crate::http::{Api, Conn, request};
use crate::ready::{contains, text};
use crate::sniff::Sniffer;
use anyhow::{Context, Result, bail, ensure};
use haneul_testkit::Cloud;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tokio::io::AsyncReadExt;

const GROUP: &str = "real";

fn run_program(program: &str, args: &[&str]) -> Result<()> {
    let out = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .output()
        .context(program.to_owned())?;
    ensure!(
        out.status.success(),
        "{program}: {}",
        String::from_utf8_lossy(&out.stderr)
    );
    Ok(())
}

/// The guest image, made once.
fn guest_image(options: &Options) -> Result<PathBuf> {
    let out = std::env::current_dir()?.join("target/guest-image/haneul-guest.qcow2");
    std::fs::create_dir_all(out.parent().unwrap_or(&out))?;
    run_program(
        &options.binary.display().to_string(),
        &["guest-image", "--out", &out.display().to_string()],
    )?;
    Ok(out)
}

/// Waits until an SSH server says its first line.
async fn banner(address: &str, limit: Duration) -> Result<()> {
    let start = Instant::now();
    while start.elapsed() < limit {
        let ask = async {
            let mut s = tokio::net::TcpStream::connect(address).await.ok()?;
            let mut line = [0; 4];
            s.read_exact(&mut line).await.ok()?;
            (&line == b"SSH-").then_some(())
        };
        if let Ok(Some(())) = tokio::time::timeout(Duration::from_millis(1000), ask).await {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    bail!("no SSH on {address} after {limit:?}")
}

/// The command line of the QEMU of a server.
fn qemu_of(server: &str) -> Option<Vec<String>> {
    std::fs::read_dir("/proc").ok()?.flatten().find_map(|e| {
        let bytes = std::fs::read(e.path().join("cmdline")).ok()?;
        let args: Vec<String> = bytes
            .split(|b| *b == 0)
            .map(|a| String::from_utf8_lossy(a).into_owned())
            .collect();
        (args.first()?.contains("qemu") && args.iter().any(|a| a == server)).then_some(args)
    })
}

fn value_of(args: &[String], name: &str) -> Option<String> {
    let at = args.iter().position(|a| a == name)?;
    args.get(at + 1).cloned()
}

/// QEMU by hand: the same image, machine, CPU and accelerator, and QEMU's own user network.
struct Bare(Child);

impl Bare {
    fn start(like: &[String], image: &Path, dir: &Path, port: u16) -> Result<Bare> {
        let disk = dir.join(format!("bare-{port}.qcow2"));
        let (image, disk) = (image.display().to_string(), disk.display().to_string());
        run_program(
            "qemu-img",
            &["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", &image, &disk, "1G"],
        )?;
        let machine = value_of(like, "-machine").context("-machine")?;
        let accelerator = value_of(like, "-accel").context("-accel")?;
        let accelerator = if accelerator.starts_with("kvm") {
            "kvm".to_owned()
        } else {
            accelerator
        };
        let cpu = value_of(like, "-cpu").context("-cpu")?;
        let net = format!("user,id=n,hostfwd=tcp:127.0.0.1:{port}-:22");
        let drive = format!("file={disk},if=none,id=d,format=qcow2");
        let child = Command::new("qemu-system-x86_64")
            .args([
                "-machine",
                &machine,
                "-accel",
                &accelerator,
                "-cpu",
                &cpu,
                "-m",
                "128",
                "-smp",
                "1",
            ])
            .args(["-nodefaults", "-no-user-config", "-display", "none", "-serial", "null"])
            .args(["-object", "rng-builtin,id=r", "-device", "virtio-rng-pci,rng=r"])
            .args(["-drive", &drive, "-device", "virtio-blk-pci,drive=d"])
            .args(["-netdev", &net, "-device", "virtio-net-pci,netdev=n,romfile="])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Bare(child))
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub async fn run(options: &Options, table: &mut Table) -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        table.add(GROUP, "real guests", "not measured: guests and networks need root", "");
        return Ok(());
    }
    let file = guest_image(options)?;
    let cloud = Cloud::start(haneul_testkit::Options {
        real: true,
        sets: vec!["network.external_cidr=172.31.219.0/24".into()],
        ..haneul_testkit::Options::fake(&options.binary)
    })
    .await;
    let admin = cloud.admin_client().await;
    let mut api = Api::new(&cloud.address, admin.token.as_deref().unwrap_or_default()).await?;
    let image = json!({"name": "guest", "disk_format": "qcow2", "container_format": "bare", "visibility": "public"});
    let image = text(&api.post("/image/v2/images", &image).await?.expect(201)?.json(), "/id")?;
    let head = [("x-auth-token", api.token.as_str())];
    let mut put = request(
        "PUT",
        &format!("/image/v2/images/{image}/file"),
        &head,
        &std::fs::read(&file)?,
    );
    let at = put
        .windows(16)
        .position(|w| w == b"application/json")
        .context("the type")?;
    put.splice(at..at + 16, *b"application/octet-stream");
    Conn::open(&cloud.address).await?.send(&put).await?.expect(204)?;
    let flavor = json!({"flavor": {"name": "nano", "id": "nano", "vcpus": 1, "ram": 128, "disk": 1}});
    api.post("/compute/v2.1/flavors", &flavor).await?.expect(200)?;
    let external = api
        .get("/network/v2.0/networks?router:external=true")
        .await?
        .expect(200)?
        .json();
    let external = text(&external, "/networks/0/id")?;
    let net = api
        .post("/network/v2.0/networks", &json!({"network": {"name": "net"}}))
        .await?
        .expect(201)?
        .json();
    let (net, project) = (text(&net, "/network/id")?, text(&net, "/network/project_id")?);
    let subnet = json!({"subnet": {"network_id": net, "ip_version": 4, "cidr": "10.9.0.0/24"}});
    let subnet = text(
        &api.post("/network/v2.0/subnets", &subnet).await?.expect(201)?.json(),
        "/subnet/id",
    )?;
    let router = json!({"router": {"name": "r", "external_gateway_info": {"network_id": external}}});
    let router = text(
        &api.post("/network/v2.0/routers", &router).await?.expect(201)?.json(),
        "/router/id",
    )?;
    let path = format!("/network/v2.0/routers/{router}/add_router_interface");
    api.call("PUT", &path, Some(&json!({"subnet_id": subnet})))
        .await?
        .expect(200)?;
    let groups = api
        .get(&format!(
            "/network/v2.0/security-groups?project_id={project}&name=default"
        ))
        .await?
        .expect(200)?;
    let group = text(&groups.json(), "/security_groups/0/id")?;
    let ssh = json!({"security_group_rule": {"security_group_id": group, "direction": "ingress", "ethertype": "IPv4",
        "protocol": "tcp", "port_range_min": 22, "port_range_max": 22}});
    api.post("/network/v2.0/security-group-rules", &ssh)
        .await?
        .expect(201)?;

    let host = std::fs::read_to_string(cloud.dir.join("agent/host-id"))?;
    let tag = host.replace('-', "").get(..6).context("a host id")?.to_owned();
    let mut sniffer: Option<Sniffer> = None;
    let (mut running, mut shell, mut bare) = (Samples::default(), Samples::default(), Samples::default());
    let n = if options.quick { 2 } else { 7 };
    // The first one pulls and converts the image and is not counted; its network is there before the next.
    for i in 0..=n {
        let body = json!({"server": {"name": format!("g{i}"), "imageRef": image, "flavorRef": "nano", "networks": [{"uuid": net}]}});
        let start = Instant::now();
        let made = api.post("/compute/v2.1/servers", &body).await?.expect(202)?.json();
        let server = text(&made, "/server/id")?;
        let path = format!("/compute/v2.1/servers/{server}");
        loop {
            let seen = api.get(&path).await?.expect(200)?.body;
            if contains(&seen, b"\"status\":\"ACTIVE\"") {
                break;
            }
            ensure!(
                !contains(&seen, b"\"status\":\"ERROR\""),
                "{}",
                String::from_utf8_lossy(&seen)
            );
            ensure!(start.elapsed() < Duration::from_secs(60), "not ACTIVE after a minute");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let active = start.elapsed();
        let like = qemu_of(&server).context("ACTIVE, and no QEMU of this server")?;
        let ports = api
            .get(&format!("/network/v2.0/ports?device_id={server}"))
            .await?
            .expect(200)?
            .json();
        let floating =
            json!({"floatingip": {"floating_network_id": external, "port_id": text(&ports, "/ports/0/id")?}});
        let floating = api
            .post("/network/v2.0/floatingips", &floating)
            .await?
            .expect(201)?
            .json();
        let address = text(&floating, "/floatingip/floating_ip_address")?;
        banner(&format!("{address}:22"), Duration::from_secs(120)).await?;
        if i > 0 {
            running.add(active);
            shell.add(start.elapsed());
        }
        // What the guest asks of metadata after its SSH server is up counts, too.
        tokio::time::sleep(Duration::from_secs(2)).await;
        api.call(
            "DELETE",
            &format!("/network/v2.0/floatingips/{}", text(&floating, "/floatingip/id")?),
            None,
        )
        .await?
        .expect(204)?;
        api.call("DELETE", &path, None).await?.expect(204)?;
        let gone = Instant::now();
        while api.get(&path).await?.status == 200 {
            ensure!(gone.elapsed() < Duration::from_secs(60), "not gone after a minute");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        if i == 0 {
            sniffer = Some(Sniffer::start(&format!("h{tag}-sw"))?);
        } else {
            // By turns, so that both see the same machine.
            let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
            let start = Instant::now();
            let _qemu = Bare::start(&like, &file, &cloud.dir, port)?;
            banner(&format!("127.0.0.1:{port}"), Duration::from_secs(120)).await?;
            bare.add(start.elapsed());
        }
    }
    let (dhcp, metadata) = sniffer.context("a capture")?.stop()?;
    let met = running.p50() <= Duration::from_millis(150);
    table.target(
        GROUP,
        "POST /servers to QEMU running (image on the host)",
        running.text(),
        ("p50 <= 150 ms", met),
        "",
    );
    let met = !dhcp.is_empty() && dhcp.p50() <= Duration::from_millis(10);
    table.target(
        GROUP,
        "DHCP: the guest's question to our answer, on its wire",
        dhcp.text(),
        ("<= 10 ms", met),
        "",
    );
    let met = !metadata.is_empty() && metadata.p50() <= Duration::from_millis(20);
    table.target(
        GROUP,
        "metadata: the guest's question to our answer, on its wire",
        metadata.text(),
        ("<= 20 ms", met),
        "",
    );
    let ratio = shell.p50().as_secs_f64() / bare.p50().as_secs_f64();
    table.add(
        GROUP,
        "POST /servers to the first line of SSH on the floating IP, beside bare QEMU (same image, machine and CPU, its user network)",
        format!("{}; bare {}; ratio {ratio:.2}", shell.text(), ms(bare.p50())),
        "",
    );
    cloud.audit().await;
    Ok(())
}
