//! The real lane: guests that boot, ports that carry packets.

use crate::real_lab::{Real, cannot, guest_image, reaches, speaks_ssh, upload};
use crate::setup::{id, options};
use haneul_testkit::{Cloud, Options, eventually};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

macro_rules! needs_a_real_host {
    () => {
        if let Some(why) = cannot() {
            println!("SKIPPED: {why}");
            return;
        }
    };
}

/// The README's own commands, by the unmodified client.
#[tokio::test(flavor = "multi_thread")]
async fn real_life_of_a_server_by_the_openstack_client() {
    needs_a_real_host!();
    let client = std::env::var("HANEUL_TEST_OPENSTACK")
        .map(PathBuf::from)
        .unwrap_or_else(|_| PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("../venv/bin/openstack"));
    if !client.exists() {
        println!(
            "SKIPPED: no openstack client at {}; `cargo xtask test` installs it",
            client.display()
        );
        return;
    }
    let file = guest_image();
    let cloud = Cloud::start(Options {
        real: true,
        sets: vec!["network.external_cidr=172.31.201.0/24".into()],
        ..options()
    })
    .await;
    let clouds = cloud.dir.join("clouds.yaml");
    std::fs::write(
        &clouds,
        format!(
            "clouds:\n  test:\n    region_name: RegionOne\n    auth:\n      auth_url: http://{}/identity/v3\n      username: admin\n      password: {}\n      project_name: admin\n      user_domain_id: default\n      project_domain_id: default\n",
            cloud.address,
            cloud.password()
        ),
    )
    .unwrap();
    let path = std::env::var("PATH").unwrap_or_default();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts/openstack-life.sh");
    let out = tokio::task::spawn_blocking({
        let dir = cloud.dir.clone();
        move || {
            Command::new(script)
                .arg(file)
                .arg(dir)
                .env("OS_CLIENT_CONFIG_FILE", clouds)
                .env("OS_CLOUD", "test")
                .env("PATH", format!("{}:{path}", client.parent().unwrap().display()))
                .stdin(Stdio::null())
                .output()
                .expect("the script runs")
        }
    })
    .await
    .unwrap();
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr)
    );
    println!("{text}");
    assert!(
        out.status.success() && text.contains("all done"),
        "{text}\n{}",
        cloud.tail()
    );
    cloud.audit().await;
}

/// Two servers of one project reach each other; another project's with the same range cannot; the outside
/// reaches only the floating IP, only what the group opens, and no longer than it does.
#[tokio::test(flavor = "multi_thread")]
async fn real_isolation_and_what_the_outside_reaches() {
    needs_a_real_host!();
    let r = Real::new("172.31.202.0/24").await;
    let (a, b) = (r.project("alpha").await, r.project("beta").await);
    let (net_a, _) = r.network(&a).await;
    let (net_b, _) = r.network(&b).await;
    let (_, ssh_rule) = r.group(&a).await;
    r.group(&b).await;
    let one = r.server(&a, "one", &net_a, "10.9.0.10").await;
    let two = r.server(&a, "two", &net_a, "10.9.0.11").await;
    let other = r.server(&b, "other", &net_b, "10.9.0.20").await;
    for (c, s) in [(&a, &one), (&a, &two), (&b, &other)] {
        r.wait(c, s, "ACTIVE").await;
    }
    // Nothing reaches a fixed address from outside (a proxy on the host's own way out may take the connection, so
    // the guest's banner is what counts).
    assert!(!speaks_ssh("10.9.0.10"));
    let (fip, address) = r.floating(&a, &one).await;
    let (_, address_b) = r.floating(&b, &other).await;
    assert_eq!(r.login(&address, "hostname").await, "one");
    assert_eq!(r.login(&address_b, "hostname").await, "other");
    let ports = a.get(&format!("/network/v2.0/ports?device_id={two}")).await.expect(200);
    let v6 = ports["ports"][0]["fixed_ips"]
        .as_array()
        .unwrap()
        .iter()
        .map(|f| f["ip_address"].as_str().unwrap())
        .find(|ip| ip.contains(':'))
        .expect("an IPv6 address")
        .to_owned();
    r.login(
        &address,
        "for i in $(seq 60); do ping -c1 -W1 10.9.0.11 >/dev/null && exit 0; done; exit 1",
    )
    .await;
    r.login(
        &address,
        &format!("for i in $(seq 60); do ping -c1 -W1 {v6} >/dev/null && exit 0; done; exit 1"),
    )
    .await;
    // The other project's server has an address of the same range, and is not there for us.
    assert!(!r.run(&address, "ping -c2 -W1 10.9.0.20").status.success());
    // Only what is open: SSH, and nothing else.
    assert!(reaches(&address, 22));
    assert!(!reaches(&address, 80));
    let ping = |ip: &str| {
        Command::new("ping")
            .args(["-c1", "-W1", ip])
            .output()
            .unwrap()
            .status
            .success()
    };
    assert!(!ping(&address), "no rule opens ICMP");
    // An open connection ends with the rule that let it in.
    let mut open = r
        .ssh(&address, "while :; do echo tick; sleep 0.2; done")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (seen, mut ticks) = (
        std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0)),
        open.stdout.take().unwrap(),
    );
    let counter = seen.clone();
    std::thread::spawn(move || {
        let mut one = [0u8; 5];
        while std::io::Read::read_exact(&mut ticks, &mut one).is_ok() {
            counter.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        }
    });
    let count = || seen.load(std::sync::atomic::Ordering::SeqCst);
    eventually("the open connection ticks", Duration::from_secs(30), || async {
        (count() > 3).then_some(())
    })
    .await;
    assert_eq!(
        a.delete(&format!("/network/v2.0/security-group-rules/{ssh_rule}"))
            .await
            .status,
        204
    );
    eventually("a new connection is refused", Duration::from_secs(10), || async {
        (!reaches(&address, 22)).then_some(())
    })
    .await;
    let before = count();
    std::thread::sleep(Duration::from_secs(2));
    assert!(
        count() <= before + 1,
        "the open connection still ticks after its rule is gone"
    );
    let _ = open.kill();
    let _ = open.wait();
    // And with the floating IP itself.
    assert!(reaches(&address_b, 22));
    let fips = b.get("/network/v2.0/floatingips").await.expect(200);
    let fip_b = id(&fips, "/floatingips/0/id");
    assert_eq!(
        b.delete(&format!("/network/v2.0/floatingips/{fip_b}")).await.status,
        204
    );
    eventually("the floating IP is gone", Duration::from_secs(10), || async {
        (!reaches(&address_b, 22)).then_some(())
    })
    .await;
    assert_eq!(a.delete(&format!("/network/v2.0/floatingips/{fip}")).await.status, 204);
    r.cloud.audit().await;
}

/// kill -9 of our processes leaves guests serving; a reboot of the host brings them back as they were.
#[tokio::test(flavor = "multi_thread")]
async fn real_guests_survive_us_and_the_host_reboot() {
    needs_a_real_host!();
    let mut r = Real::new("172.31.203.0/24").await;
    let c = r.project("gamma").await;
    let (net, _) = r.network(&c).await;
    r.group(&c).await;
    let server = r.server(&c, "stays", &net, "10.9.0.10").await;
    r.wait(&c, &server, "ACTIVE").await;
    let (_, address) = r.floating(&c, &server).await;
    r.login(&address, "echo kept > /root/kept; sync").await;
    let key = r.host_key();
    let boot = r.login(&address, "cat /proc/sys/kernel/random/boot_id").await;

    r.cloud.kill_serve();
    r.cloud.kill_agent();
    assert_eq!(r.login(&address, "cat /root/kept").await, "kept");
    r.cloud.start_agent();
    // DHCP and metadata answer without a control plane.
    r.login(
        &address,
        "wget -q -O - http://169.254.169.254/openstack/latest/meta_data.json | grep -q stays",
    )
    .await;
    // A password that the guest posts, to an agent that dies before it has said that it took it.
    r.cloud.arm("netdev.real.password-taken=kill");
    let url = "http://169.254.169.254/openstack/2013-10-17/password";
    assert!(
        !r.run(&address, &format!("curl -X POST -d c2VhbGVk {url}"))
            .status
            .success()
    );
    r.cloud.kill_agent();
    r.cloud.start_agent();
    assert_eq!(r.login(&address, &format!("curl -m 5 {url}")).await, "c2VhbGVk");
    r.cloud.start_serve();
    r.cloud.ready().await;
    let posted = format!("/compute/v2.1/servers/{server}/os-server-password");
    eventually("the password is shown", Duration::from_secs(20), || async {
        (c.get(&posted).await.expect(200)["password"] == "c2VhbGVk").then_some(())
    })
    .await;
    assert_eq!(r.wait(&c, &server, "ACTIVE").await["OS-EXT-STS:power_state"], 1);
    assert_eq!(
        r.login(&address, "cat /proc/sys/kernel/random/boot_id").await,
        boot,
        "the guest was not touched"
    );
    // A second card comes while it runs, and the guest gets its address.
    let nics = format!("/compute/v2.1/servers/{server}/os-interface");
    let wish = json!({"interfaceAttachment": {"net_id": net, "fixed_ips": [{"ip_address": "10.9.0.77"}]}});
    let second = c.post(&nics, &wish).await.expect(200);
    let seen = "ip -4 -o addr show dev eth1 | grep -q 10.9.0.77/";
    r.login(&address, seen).await;
    let log = c
        .post(
            &format!("/compute/v2.1/servers/{server}/action"),
            &json!({"os-getConsoleOutput": {"length": 50}}),
        )
        .await
        .expect(200);
    assert!(log["output"].as_str().unwrap().contains("sshd"), "{log}");
    // An image of its disk while it runs: what was flushed is in it.
    let act = format!("/compute/v2.1/servers/{server}/action");
    let made = c.post(&act, &json!({"createImage": {"name": "copy"}})).await;
    assert_eq!(made.status, 202, "{}", made.text);
    let copy = made.headers["location"]
        .to_str()
        .unwrap()
        .rsplit_once('/')
        .expect("an address")
        .1
        .to_owned();
    eventually("the image is there", Duration::from_secs(30), || async {
        (c.get(&format!("/image/v2/images/{copy}")).await.expect(200)["status"] == "active").then_some(())
    })
    .await;
    assert_eq!(
        r.login(&address, "cat /proc/sys/kernel/random/boot_id").await,
        boot,
        "the guest goes on"
    );
    r.cloud.audit().await;

    // The host's reboot: every process and every namespace is gone.
    r.cloud.kill_serve();
    r.cloud.kill_agent();
    let host = std::fs::read_to_string(r.cloud.dir.join("agent/host-id")).unwrap();
    let prefix = format!("h{}", &host[..6]);
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let cmdline = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let text = String::from_utf8_lossy(&cmdline);
        if text.contains("qemu-system") && text.contains(&server) {
            let pid: i32 = entry.file_name().to_str().unwrap().parse().unwrap();
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
        }
    }
    let list = Command::new("ip").args(["netns", "list"]).output().unwrap();
    for ns in String::from_utf8_lossy(&list.stdout)
        .lines()
        .filter_map(|l| l.split_whitespace().next())
    {
        if ns.starts_with(&prefix) {
            assert!(
                Command::new("ip")
                    .args(["netns", "del", ns])
                    .status()
                    .unwrap()
                    .success()
            );
        }
    }
    assert!(!reaches(&address, 22));
    r.cloud.start_serve();
    r.cloud.start_agent();
    r.cloud.ready().await;
    assert_eq!(r.login(&address, "cat /root/kept").await, "kept");
    assert_ne!(
        r.login(&address, "cat /proc/sys/kernel/random/boot_id").await,
        boot,
        "it has booted again"
    );
    assert_eq!(r.host_key(), key);
    r.wait(&c, &server, "ACTIVE").await;
    r.login(&address, seen).await;
    let gone = c
        .delete(&format!("{nics}/{}", id(&second, "/interfaceAttachment/port_id")))
        .await;
    assert_eq!(gone.status, 202, "{}", gone.text);
    r.login(&address, "[ ! -e /sys/class/net/eth1 ]").await;
    eventually("the second interface is gone", Duration::from_secs(20), || async {
        let left = c.get(&nics).await.expect(200);
        (left["interfaceAttachments"].as_array()?.len() == 1).then_some(())
    })
    .await;
    // A guest that switches itself off is SHUTOFF, and stays so until somebody starts it.
    let _ = r.run(&address, "poweroff");
    r.wait(&c, &server, "SHUTOFF").await;
    // A server from the image finds what was on the disk.
    let second = r.server_of(&c, (&copy, "nano"), "second", &net, "10.9.0.20").await;
    r.wait(&c, &second, "ACTIVE").await;
    let (_, other) = r.floating(&c, &second).await;
    assert_eq!(r.login(&other, "hostname; cat /root/kept").await, "second\nkept");
    let gone = c.delete(&format!("/compute/v2.1/servers/{second}")).await;
    assert_eq!(gone.status, 204, "{}", gone.text);
    let start = c
        .post(
            &format!("/compute/v2.1/servers/{server}/action"),
            &json!({"os-start": null}),
        )
        .await;
    assert_eq!(start.status, 202, "{}", start.text);
    r.wait(&c, &server, "ACTIVE").await;
    r.cloud.audit().await;
}

/// A guest boots from each format that other hypervisors write, and finds on its disk what the image had. The files are
/// qemu-img's, so no code of ours has made what ours reads. One of them has ephemeral and swap disks beside it.
#[tokio::test(flavor = "multi_thread")]
async fn real_guests_boot_from_every_image_format() {
    needs_a_real_host!();
    let r = Real::new("172.31.213.0/24").await;
    let c = r.project("epsilon").await;
    let (net, _) = r.network(&c).await;
    r.group(&c).await;
    let origin = guest_image();
    let flavor = json!({"flavor": {
        "name": "local", "id": "local", "vcpus": 1, "ram": 128, "disk": 1, "OS-FLV-EXT-DATA:ephemeral": 1, "swap": 64
    }});
    r.admin.post("/compute/v2.1/flavors", &flavor).await.expect(200);
    let mut servers = Vec::new();
    for (n, (format, theirs)) in [
        ("raw", &["raw"][..]),
        ("vmdk", &["vmdk", "-o", "subformat=streamOptimized"]),
        ("vdi", &["vdi"]),
        ("vhd", &["vpc", "-o", "subformat=dynamic"]),
        ("vhdx", &["vhdx"]),
    ]
    .into_iter()
    .enumerate()
    {
        let file = r.cloud.dir.join(format);
        let mut made = Command::new("qemu-img");
        made.args(["convert", "-O"]).args(theirs).arg(&origin).arg(&file);
        assert!(made.status().unwrap().success(), "{format}");
        let image = upload(&r.admin, format, format, std::fs::read(&file).unwrap()).await;
        std::fs::remove_file(&file).unwrap();
        let from = (image.as_str(), if format == "raw" { "local" } else { "nano" });
        let address = format!("10.9.0.{}", 20 + n);
        let server = r.server_of(&c, from, format, &net, &address).await;
        servers.push((format, server));
    }
    for (format, server) in servers {
        r.wait(&c, &server, "ACTIVE").await;
        let (_, address) = r.floating(&c, &server).await;
        assert_eq!(r.login(&address, "hostname").await, format);
        if format == "raw" {
            // The flavor's own disks, as large as it says, and with what belongs on them.
            let told = "http://169.254.169.254/latest/meta-data/block-device-mapping";
            let look = format!(
                "cat /sys/block/vdb/size /sys/block/vdc/size; mount /dev/vdb /mnt && df /mnt | tail -1 | cut -d' ' -f1;
                 swapon /dev/vdc && tail -1 /proc/swaps | cut -d' ' -f1; wget -qO- {told}/ephemeral0 {told}/swap"
            );
            let seen = r.login(&address, &look).await;
            assert_eq!(seen, "2097152\n131072\n/dev/vdb\n/dev/vdc\n/dev/vdb/dev/vdc");
        }
        c.delete(&format!("/compute/v2.1/servers/{server}")).await;
    }
    r.cloud.audit().await;
}

/// A Debian 12 with cloud-init as Debian ships it, built from its packages once.
fn debian_image() -> PathBuf {
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let out = dir.join("debian-12-cloud.qcow2");
    if !out.exists() {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts/debian-cloud-image.sh");
        let built = Command::new(script)
            .arg(&out)
            .arg(dir.join("debian"))
            .output()
            .expect("the script runs");
        assert!(
            built.status.success(),
            "{}{}",
            String::from_utf8_lossy(&built.stdout),
            String::from_utf8_lossy(&built.stderr)
        );
    }
    out
}

/// Real cloud-init takes name, key, user data and metadata, from the metadata service and from a config drive; and its
/// world goes on after a suspend. Minutes under emulation: `test --full`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "boots a whole Debian twice, minutes under emulation: cargo xtask test --full"]
async fn real_debian_with_cloud_init() {
    needs_a_real_host!();
    if !Path::new("/usr/sbin/debootstrap").exists() {
        println!("SKIPPED: debootstrap is not installed");
        return;
    }
    let file = tokio::task::spawn_blocking(debian_image).await.unwrap();
    let r = Real::new("172.31.212.0/24").await;
    let image = upload(&r.admin, "debian", "qcow2", std::fs::read(file).unwrap()).await;
    let flavor = json!({"flavor": {"name": "debian", "id": "debian", "vcpus": 2, "ram": 768, "disk": 3}});
    r.admin.post("/compute/v2.1/flavors", &flavor).await.expect(200);
    let c = r.project("delta").await;
    let (net, _) = r.network(&c).await;
    r.group(&c).await;
    let user_data = "#cloud-config\nruncmd:\n  - [sh, -c, 'echo \"$(hostname) ran it\" > /var/tmp/ran']\n";
    for (name, drive) in [("by-service", false), ("by-drive", true)] {
        let body = json!({"server": {
            "name": name, "imageRef": image, "flavorRef": "debian", "key_name": "key", "config_drive": drive,
            "networks": [{"uuid": net}], "security_groups": [{"name": "ssh"}], "metadata": {"role": name},
            "user_data": base64::Engine::encode(&base64::engine::general_purpose::STANDARD, user_data),
        }});
        let begun = std::time::Instant::now();
        let server = id(&c.post("/compute/v2.1/servers", &body).await.expect(202), "/server/id");
        r.wait(&c, &server, "ACTIVE").await;
        let (_, address) = r.floating(&c, &server).await;
        let login = format!("debian@{address}");
        let run = |command: String| r.as_user(&login, &command).output().expect("ssh runs");
        let text = |o: &Output| String::from_utf8_lossy(&o.stdout).trim().to_owned();
        eventually(&format!("login on {name}"), Duration::from_secs(900), || async {
            run("true".into()).status.success().then_some(())
        })
        .await;
        println!("{name}: login after {:.0} s", begun.elapsed().as_secs_f32());
        let done = run("cloud-init status --wait".into());
        println!("{name}: cloud-init done after {:.0} s", begun.elapsed().as_secs_f32());
        assert_eq!(text(&done).lines().last(), Some("status: done"), "{done:?}");
        assert_eq!(text(&run("hostname".into())), name);
        assert_eq!(text(&run("cat /var/tmp/ran".into())), format!("{name} ran it"));
        let cloud = if drive { "configdrive" } else { "openstack" };
        assert_eq!(text(&run("cloud-init query cloud_name".into())), cloud);
        let from = text(&run("cloud-init query subplatform".into()));
        let want = if drive {
            "config-disk"
        } else {
            "metadata (http://169.254.169.254)"
        };
        assert!(from.contains(want), "{from}");
        assert_eq!(text(&run("sudo cloud-init query ds.meta_data.meta.role".into())), name);
        // The root file system has grown to the flavor's disk.
        let size: u64 = text(&run("df -B1M --output=size / | tail -1".into())).parse().unwrap();
        assert!(size > 2500, "{size} MiB");
        if !drive {
            // What runs goes on, with its memory.
            let boot = text(&run("cat /proc/sys/kernel/random/boot_id".into()));
            run("mkdir /dev/shm/x && echo kept > /dev/shm/x/y; (sleep 100000 > /dev/null 2>&1 & echo $! > /dev/shm/x/pid)".into());
            for (action, status) in [("suspend", "SUSPENDED"), ("resume", "ACTIVE")] {
                let path = format!("/compute/v2.1/servers/{server}/action");
                c.post(&path, &json!({action: null})).await.expect(202);
                r.wait(&c, &server, status).await;
            }
            eventually("login after the resume", Duration::from_secs(60), || async {
                run("true".into()).status.success().then_some(())
            })
            .await;
            assert_eq!(text(&run("cat /proc/sys/kernel/random/boot_id".into())), boot);
            assert_eq!(
                text(&run("cat /dev/shm/x/y; ps -o comm= -p $(cat /dev/shm/x/pid)".into())),
                "kept\nsleep"
            );
        }
        c.delete(&format!("/compute/v2.1/servers/{server}")).await;
    }
    r.cloud.audit().await;
}
