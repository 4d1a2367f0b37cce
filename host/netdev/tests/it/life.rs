//! Start, crash, reboot, purge; two data planes on one machine; taps.

use crate::lab::*;
use haneul_agent_api::*;
use haneul_netdev::NetDriver;
use std::io::Read;
use std::time::Instant;

/// All that a data plane could leave on the real host.
fn traces(ours: &str) -> String {
    let keep = |s: String| -> String {
        // Other tests run beside this one; what is theirs is not ours.
        s.lines()
            .filter(|l| {
                l.contains(ours)
                    || !(l.contains(": h") || l.starts_with('h') || l.starts_with('t') && l.contains("-host"))
            })
            .map(|l| format!("{l}\n"))
            .collect()
    };
    keep(sh(
        "ip netns 2>/dev/null | cut -d' ' -f1 | grep -v -e '^h' -e '-host' ; true",
    )) + &keep(sh(&format!("ip netns 2>/dev/null | grep {ours}; true")))
        + &keep(sh("ip -o link | cut -d' ' -f2 | sed 's/@.*//'"))
        + &sh("ip -o addr | awk '{print $2,$3,$4}'")
        + &sh("ip route; ip -6 route | sed 's/expires.*//'")
        + &sh(&format!("nft list tables | grep {ours}; true"))
        + &sh("nft list ruleset")
        + &sh("sysctl net.ipv4.ip_forward net.ipv6.conf.all.forwarding net.ipv4.conf.all.rp_filter net.bridge")
}

#[tokio::test(flavor = "multi_thread")]
async fn purge_leaves_no_trace_on_the_real_host() {
    if !able() {
        return;
    }
    // The real host, no namespace in its place: a range and names of its own.
    let mut lab = Lab::with(|c| {
        c.lab_host_ns = None;
        c.lab_ports = false;
    });
    let ours = lab.id.simple().to_string()[..6].to_string();
    let before = traces(&ours);
    let ext = lab.external("100.127.93.0/24");
    let n = lab.network(&["10.0.1.0/24"]);
    let g = lab.group(vec![]);
    lab.port(n, &["10.0.1.11"], &[g]);
    lab.router(&[n], Some((ext, "100.127.93.10/24")));
    lab.apply().await;
    assert!(succeeds("ping -c1 -W1 100.127.93.10"), "the host reaches the router");
    assert!(sh("sysctl net.ipv4.ip_forward").contains("= 1"));
    assert!(sh("nft list tables").contains(&format!("haneul-{ours}")));
    assert_ne!(before, traces(&ours));
    // As a later process would: by the record alone.
    lab.restart();
    lab.real.purge().await.unwrap();
    let after = traces(&ours);
    assert_eq!(before, after);
    assert_eq!(std::fs::read_dir(&lab.dir).unwrap().count(), 0, "no record is left");
    lab.real.purge().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_data_planes_live_side_by_side() {
    if !able() {
        return;
    }
    let mut labs = vec![];
    for _ in 0..2 {
        let mut lab = Lab::new();
        let n = lab.network(&["10.0.1.0/24"]);
        let g = lab.group(vec![tcp_in(22)]);
        let a = lab.port(n, &["10.0.1.11"], &[g]);
        let b = lab.port(n, &["10.0.1.12"], &[g]);
        lab.apply().await;
        let (ga, gb) = (lab.configure(a), lab.configure(b));
        serve(&ga, "0.0.0.0:22");
        assert!(reaches_soon(&gb, "10.0.1.11:22"));
        labs.push((lab, gb));
    }
    let (first, _) = labs.remove(0);
    first.real.purge().await.unwrap();
    assert!(
        reaches_soon(&labs[0].1, "10.0.1.11:22"),
        "the other one is not disturbed"
    );
    assert_eq!(labs[0].0.real.observe().await.unwrap().strays, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_reboot_everything_is_built_anew() {
    if !able() {
        return;
    }
    let mut lab = Lab::new();
    let ext = lab.external("172.24.4.0/24");
    let n = lab.network(&["10.0.1.0/24"]);
    let g = lab.group(vec![tcp_in(22)]);
    let a = lab.port(n, &["10.0.1.11"], &[g]);
    let r = lab.router(&[n], Some((ext, "172.24.4.10/24")));
    let router = lab.want.routers.iter_mut().find(|x| x.id == r).unwrap();
    router.floating_ips.push(FloatingIp {
        id: uuid::Uuid::new_v4(),
        floating: ip("172.24.4.20"),
        fixed: ip("10.0.1.11"),
    });
    let check = |lab: &Lab| {
        let ga = lab.configure(a);
        serve(&ga, "0.0.0.0:22");
        assert!(reaches_soon(&lab.host, "172.24.4.20:22"));
        ok(&format!("ip -n {ga} route add 169.254.169.254 via 10.0.1.2"));
        let said = sh(&format!("ip netns exec {ga} curl -sS -m 2 http://169.254.169.254/"));
        assert!(said.contains("404"), "the responder is there: {said}");
    };
    lab.apply().await;
    check(&lab);
    let prefix = lab.real.namespaces(0).0.replace("-sw", "-");
    let wipe = || {
        ok(&format!(
            "for n in $(ip netns | cut -d' ' -f1 | grep ^{prefix}); do ip netns del $n; done"
        ))
    };
    // With the driver running, and as a new process.
    wipe();
    lab.apply().await;
    check(&lab);
    wipe();
    lab.restart();
    lab.apply().await;
    check(&lab);
    // One namespace only, any of them.
    for suffix in [
        "sw".to_string(),
        format!("n{}", lab.want.networks[1].index),
        format!("r{}", lab.want.routers[0].index),
        format!("g{}", lab.want.ports[0].index),
    ] {
        ok(&format!("ip netns del {prefix}{suffix}"));
        if suffix == "sw" {
            // Its guests' far ends went with it.
            wipe();
        }
        lab.apply().await;
        let seen = lab.real.observe().await.unwrap();
        assert_eq!(
            (seen.ports.len(), seen.networks.len(), seen.routers.len()),
            (1, 2, 1),
            "{suffix}"
        );
        assert!(seen.strays.is_empty(), "{suffix}: {:?}", seen.strays);
        let ga = lab.guest(a);
        if suffix.starts_with('g') || suffix == "sw" {
            lab.configure(a);
            serve(&ga, "0.0.0.0:22");
        }
        assert!(reaches_soon(&lab.host, "172.24.4.20:22"), "{suffix}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_removed_is_gone_and_strays_are_told() {
    if !able() {
        return;
    }
    let mut lab = Lab::new();
    let n = lab.network(&["10.0.1.0/24"]);
    let g = lab.group(vec![]);
    let a = lab.port(n, &["10.0.1.11"], &[g]);
    lab.apply().await;
    let (sw, _) = lab.real.namespaces(0);
    // An unknown device on the bridge, with somebody behind it.
    let stranger = sw.replace("-sw", "-r999");
    let bridge = format!("hb{}", lab.want.networks[0].index);
    ok(&format!(
        "ip netns add {stranger}; ip -n {sw} link add ht999 type veth peer name x0 netns {stranger};
         ip -n {sw} link set ht999 master {bridge} up; ip -n {stranger} addr add 10.0.1.77/24 dev x0; ip -n {stranger} link set x0 up"
    ));
    assert!(!ping(&stranger, "10.0.1.2"), "what no rule knows passes nothing");
    let service = sw.replace("-sw", &format!("-n{}", lab.want.networks[0].index));
    let heard = sh(&format!("ip -n {service} neigh show 10.0.1.77"));
    assert_eq!(heard, "", "not even a question is heard");
    let seen = lab.real.observe().await.unwrap();
    assert_eq!(seen.ports, [a]);
    assert_eq!(seen.networks, [n]);
    assert_eq!(seen.strays, [stranger.clone(), "ht999".into()]);
    assert!(lab.real.remove(Kind::Network, n).await.is_err(), "it has a port");
    lab.real.remove(Kind::Port, a).await.unwrap();
    lab.real.remove(Kind::Port, a).await.unwrap();
    lab.real.remove(Kind::Network, n).await.unwrap();
    lab.real.remove(Kind::SecurityGroup, g).await.unwrap();
    let seen = lab.real.observe().await.unwrap();
    assert_eq!(seen.ports.len() + seen.networks.len(), 0);
    let left = sh(&format!("ip -n {sw} -o link; ip netns exec {sw} nft list ruleset"));
    let index = lab.want.networks[0].index;
    for word in [
        &bridge,
        &format!("hs{index}"),
        &format!("g{}", lab.want.ports[0].index),
        &g.simple().to_string(),
    ] {
        assert!(!left.contains(&format!(" {word}")), "{word}: {left}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tap_is_opened_and_outlives_its_maker() {
    if !able() {
        return;
    }
    let mut lab = Lab::with(|c| c.lab_ports = false);
    let n = lab.network(&["10.0.1.0/24"]);
    let g = lab.group(vec![]);
    let a = lab.port(n, &["10.0.1.11"], &[g]);
    assert!(lab.real.open_tap(a).is_err(), "not applied yet");
    lab.apply().await;
    let fd = lab.real.open_tap(a).unwrap();
    assert!(lab.real.open_tap(a).is_err(), "one holder at a time");
    // A frame goes in by the bridge and comes out of the descriptor, virtio header first.
    let mut file = std::fs::File::from(fd);
    lab.restart();
    lab.apply().await;
    let (sw, _) = lab.real.namespaces(0);
    let dev = format!("ht{}", lab.want.ports[0].index);
    assert!(sh(&format!("ip -n {sw} link show {dev}")).contains("LOWER_UP"));
    // The service namespace asks who has the guest's address.
    let svc = sw.replace("-sw", &format!("-n{}", lab.want.networks[0].index));
    sh(&format!("ip netns exec {svc} ping -c1 -W1 10.0.1.11 &"));
    let reader = std::thread::spawn(move || {
        let mut b = [0u8; 2048];
        loop {
            let n = file.read(&mut b).unwrap();
            if n > 24 && b[22..24] == [8, 6] {
                return true;
            }
        }
    });
    assert!(reader.join().unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn plugging_is_quick() {
    if !able() {
        return;
    }
    let mut lab = Lab::with(|c| c.lab_ports = false);
    let ext = lab.external("172.24.4.0/24");
    let n = lab.network(&["10.0.0.0/16"]);
    let g = lab.group(vec![tcp_in(22)]);
    lab.port(n, &["10.0.1.1"], &[g]);
    let t = Instant::now();
    lab.apply().await;
    println!(
        "first apply (switch, two networks, uplink, one port): {:?}",
        t.elapsed()
    );
    let mut times = vec![];
    for i in 2..30 {
        lab.port(n, &[&format!("10.0.1.{i}")], &[g]);
        let t = Instant::now();
        lab.apply().await;
        times.push(t.elapsed());
    }
    times.sort();
    println!(
        "port: median {:?}, worst {:?}",
        times[times.len() / 2],
        times[times.len() - 1]
    );
    let port = times[times.len() / 2];
    let mut times = vec![];
    for i in 0..9 {
        lab.network(&[&format!("10.{}.0.0/16", 10 + i)]);
        let t = Instant::now();
        lab.apply().await;
        times.push(t.elapsed());
    }
    times.sort();
    println!("network: median {:?}, worst {:?}", times[4], times[8]);
    let t = Instant::now();
    lab.router(&[n], Some((ext, "172.24.4.10/24")));
    lab.apply().await;
    println!("router with gateway: {:?}", t.elapsed());
    let t = Instant::now();
    lab.apply().await;
    println!("nothing to do: {:?}", t.elapsed());
    // Generous: the machine is shared; the figures above are what is reported.
    assert!(port.as_millis() < 100 && times[4].as_millis() < 200);
}

/// Not a test: the process that dies in the one below.
#[tokio::test(flavor = "multi_thread")]
async fn crash_child() {
    let Ok(job) = std::env::var("NETDEV_CRASH") else {
        return;
    };
    let mut parts = job.split('|');
    let mut next = || parts.next().unwrap().to_string();
    let (id, host, dir, point, purge) = (next(), next(), next(), next(), next());
    let mut config = haneul_netdev::real::RealConfig::new(id.parse().unwrap(), Uplink::Nat, &dir);
    config.lab_ports = true;
    config.lab_host_ns = Some(host);
    config.underlay = at(ip(NOWHERE));
    let real = haneul_netdev::real::Real::open(config).unwrap();
    let want = serde_json::from_slice(&std::fs::read(format!("{dir}/want")).unwrap()).unwrap();
    let file = std::path::PathBuf::from(format!("{dir}/fault"));
    std::fs::write(&file, format!("{point}=kill")).unwrap();
    haneul_core::fault::enable(file);
    if purge == "purge" {
        real.purge().await.unwrap();
    } else if let Ok(id) = purge.parse() {
        for kind in Kind::ALL {
            real.remove(kind, id).await.unwrap();
        }
    } else {
        assert!(real.apply(&want).await.unwrap().is_empty());
    }
}

/// Fault points in this crate's sources: the list cannot be forgotten.
fn points() -> Vec<String> {
    let mut out = vec![];
    for dir in ["src/real", "src/real/serve"] {
        for f in std::fs::read_dir(dir).unwrap().flatten() {
            let Ok(text) = std::fs::read_to_string(f.path()) else {
                continue;
            };
            for part in text.split("fault_point!(\"").skip(1) {
                out.push(part.split('"').next().unwrap().to_string());
            }
        }
    }
    out.sort();
    out.dedup();
    out
}

pub fn die_at(lab: &Lab, point: &str, job: &str) -> bool {
    use std::os::unix::process::ExitStatusExt;
    std::fs::write(lab.dir.join("want"), serde_json::to_vec(&lab.want).unwrap()).unwrap();
    let out = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "life::crash_child"])
        .env(
            "NETDEV_CRASH",
            format!("{}|{}|{}|{point}|{job}", lab.id, lab.host, lab.dir.display()),
        )
        .output()
        .unwrap();
    let killed = out.status.signal() == Some(9);
    assert!(
        killed || out.status.success(),
        "{point}: {}",
        String::from_utf8_lossy(&out.stdout)
    );
    killed
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_point_the_next_apply_repairs() {
    if !able() {
        return;
    }
    let all = points();
    assert!(all.len() > 12, "{all:?}");
    let mut reached = vec![];
    for point in &all {
        let mut lab = Lab::new();
        let ext = lab.external("172.24.4.0/24");
        let n = lab.network(&["10.0.1.0/24"]);
        let g = lab.group(vec![tcp_in(22)]);
        let a = lab.port(n, &["10.0.1.11"], &[g]);
        let r = lab.router(&[n], Some((ext, "172.24.4.10/24")));
        let router = lab.want.routers.iter_mut().find(|x| x.id == r).unwrap();
        router.floating_ips.push(FloatingIp {
            id: uuid::Uuid::new_v4(),
            floating: ip("172.24.4.20"),
            fixed: ip("10.0.1.11"),
        });
        let elsewhere = lab.neighbour(n, "10.0.1.30", "10.99.0.2");
        let mut hit = die_at(&lab, point, "apply");
        lab.restart();
        lab.apply().await;
        let ga = lab.configure(a);
        serve(&ga, "0.0.0.0:22");
        assert!(reaches_soon(&lab.host, "172.24.4.20:22"), "{point}");
        assert!(lab.real.observe().await.unwrap().strays.is_empty(), "{point}");
        // Removal and purge, killed and repeated.
        hit |= die_at(&lab, point, &r.to_string());
        lab.restart();
        lab.apply().await;
        lab.real.remove(Kind::Router, r).await.unwrap();
        lab.real.remove(Kind::Port, a).await.unwrap();
        lab.real.remove(Kind::Neighbour, elsewhere).await.unwrap();
        lab.real.remove(Kind::Network, n).await.unwrap();
        let seen = lab.real.observe().await.unwrap();
        assert!(seen.strays.is_empty() && seen.routers.is_empty(), "{point}: {seen:?}");
        hit |= die_at(&lab, point, "purge");
        lab.restart();
        lab.real.purge().await.unwrap();
        let left = sh(&format!(
            "ip netns 2>/dev/null | grep {0}-; ip -n {1} -o link | grep {0}; ip netns exec {1} nft list tables; ip netns exec {1} sysctl net.ipv4.ip_forward | grep 1$",
            lab.real.namespaces(0).0.replace("-sw", ""),
            lab.host
        ));
        assert_eq!(left.trim(), "", "{point}");
        if hit {
            reached.push(point.clone());
        }
    }
    println!("killed at {} of {} points", reached.len(), all.len());
    let missed: Vec<_> = all.iter().filter(|p| !reached.contains(p)).collect();
    // Not on this way: a guest that posts its password (the crash test on real guests has it), and the move of a spare
    // interface.
    assert_eq!(missed, ["netdev.real.password-taken", "netdev.real.uplink.move"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spare_interface_becomes_the_uplink_and_comes_back() {
    if !able() {
        return;
    }
    let mut lab = Lab::with(|c| c.uplink = Uplink::Bridge("spare0".into()));
    let host = lab.host.clone();
    let lan = format!("{host}-l");
    ok(&format!(
        "ip netns add {lan}; ip link add spare0 netns {host} type veth peer name lan0 netns {lan};
         ip -n {lan} addr add 172.24.4.1/24 dev lan0; ip -n {lan} link set lan0 up; ip -n {host} link set spare0 up"
    ));
    let ext = lab.external("172.24.4.0/24");
    let n = lab.network(&["10.0.1.0/24"]);
    let r = lab.router(&[n], Some((ext, "172.24.4.10/24")));
    ok(&format!("ip -n {host} addr add 10.99.0.1/24 dev spare0"));
    let troubles = lab.real.apply(&lab.want).await.unwrap();
    let refused = [(Kind::Network, ext), (Kind::Router, r)];
    assert!(
        troubles.keys().eq(&refused),
        "an interface in use is refused: {troubles:?}"
    );
    ok(&format!("ip -n {host} addr del 10.99.0.1/24 dev spare0"));
    lab.apply().await;
    lab.apply().await;
    // A moved interface loses its carrier; the kernel tells the far end with up to a second's delay.
    let there = (0..5).any(|_| ping(&lan, "172.24.4.10"));
    assert!(there, "the router is on the LAN");
    assert!(lab.real.observe().await.unwrap().strays.is_empty());
    lab.real.purge().await.unwrap();
    assert!(sh(&format!("ip -n {host} -o link")).contains("spare0"), "given back");
    sh(&format!("ip netns del {lan}"));
}
