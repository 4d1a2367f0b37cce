//! What fails does not take others along, and is made up for when it fails no longer.

use crate::lab::*;
use crate::life::die_at;
use haneul_agent_api::*;
use haneul_netdev::NetDriver;
use haneul_netdev::real::Real;
use uuid::Uuid;

/// Whether the driver's record can be written; nothing of a round comes before that.
fn writable(lab: &Lab, yes: bool) {
    let beside = lab.dir.join("netdev.new");
    match yes {
        true => std::fs::remove_dir(beside).unwrap(),
        false => std::fs::create_dir(beside).unwrap(),
    }
}

/// What the switch's tables say of ports on other hosts.
fn tables(lab: &Lab) -> String {
    let sw = lab.real.namespaces(0).0;
    sh(&format!(
        "(ip netns exec {sw} bridge fdb show; ip -n {sw} neigh show nud permanent) | grep -e 'dst 10.99' -e fa:16:3e:cc | sort"
    ))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_failed_round_took_in_is_brought_about_by_the_next() {
    if !able() {
        return;
    }
    let mut lab = Lab::new();
    let n = lab.network(&["10.0.1.0/24"]);
    lab.port(n, &["10.0.1.11"], &[]);
    let there = lab.neighbour(n, "10.0.1.12", "10.99.0.2");
    lab.apply().await;
    assert!(tables(&lab).contains("dst 10.99.0.2"), "{}", tables(&lab));
    // It moves while the disk is full.
    lab.want.neighbours[0].host = ip("10.99.0.3");
    writable(&lab, false);
    lab.real.apply(&lab.want).await.unwrap_err();
    writable(&lab, true);
    lab.apply().await;
    let now = tables(&lab);
    assert!(now.contains("dst 10.99.0.3") && !now.contains("dst 10.99.0.2"), "{now}");
    // It goes, and is there again before that is done.
    writable(&lab, false);
    lab.real.remove(Kind::Neighbour, there).await.unwrap_err();
    writable(&lab, true);
    lab.apply().await;
    assert!(tables(&lab).contains("dst 10.99.0.3"), "{}", tables(&lab));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_removed_while_the_disk_was_full_does_not_come_back() {
    if !able() {
        return;
    }
    let mut lab = Lab::new();
    let n = lab.network(&["10.0.1.0/24"]);
    let a = lab.port(n, &["10.0.1.11"], &[]);
    lab.apply().await;
    writable(&lab, false);
    lab.real.remove(Kind::Port, a).await.unwrap_err();
    writable(&lab, true);
    lab.real.remove(Kind::Port, a).await.unwrap();
    lab.want.ports.clear();
    lab.restart();
    lab.apply().await;
    assert_eq!(lab.real.observe().await.unwrap().ports, Vec::<Uuid>::new());
}

/// Two guests, and to one of them a connection that its group lets in and one to an address that it is to lose.
async fn talking(lab: &mut Lab) -> (Uuid, [std::net::TcpStream; 2]) {
    let n = lab.network(&["10.0.1.0/24"]);
    let g = lab.group(vec![tcp_in(22), tcp_in(23)]);
    let a = lab.port(n, &["10.0.1.11", "10.0.1.21"], &[g]);
    let b = lab.port(n, &["10.0.1.12"], &[g]);
    lab.apply().await;
    let (ga, gb) = (lab.configure(a), lab.configure(b));
    serve(&ga, "0.0.0.0:22");
    serve(&ga, "0.0.0.0:23");
    let open = ["10.0.1.11:22", "10.0.1.21:23"].map(|to| connect_soon(&gb, to).unwrap().0);
    (a, open)
}

/// Neither is allowed any more.
fn close(lab: &mut Lab, a: Uuid) {
    lab.want.security_groups[0].rules.retain(|r| r.port_min != Some(22));
    lab.port_mut(a).fixed_ips.truncate(1);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_cut_also_when_that_fails_at_first() {
    if !able() {
        return;
    }
    let mut lab = Lab::new();
    let (a, mut open) = talking(&mut lab).await;
    std::fs::write(lab.dir.join("before"), serde_json::to_vec(&lab.want).unwrap()).unwrap();
    close(&mut lab, a);
    std::fs::write(lab.dir.join("want"), serde_json::to_vec(&lab.want).unwrap()).unwrap();
    assert!(open.iter_mut().all(alive));
    // Where points may fail that other tests pass: a process of its own.
    let out = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "failures::cut_child"])
        .env("NETDEV_CUT", format!("{}|{}|{}", lab.id, lab.host, lab.dir.display()))
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stdout));
    assert_eq!(open.each_mut().map(alive), [false, false], "cut");
}

/// Not a test: the process in which it fails.
#[tokio::test(flavor = "multi_thread")]
async fn cut_child() {
    let Ok(job) = std::env::var("NETDEV_CUT") else { return };
    let mut parts = job.split('|');
    let mut next = || parts.next().unwrap().to_string();
    let (id, host, dir) = (next(), next(), next());
    let mut config = haneul_netdev::real::RealConfig::new(id.parse().unwrap(), Uplink::Nat, &dir);
    config.lab_ports = true;
    config.lab_host_ns = Some(host);
    let real = Real::open(config).unwrap();
    let read =
        |name: &str| serde_json::from_slice::<NetDesired>(&std::fs::read(format!("{dir}/{name}")).unwrap()).unwrap();
    real.apply(&read("before")).await.unwrap();
    let file = std::path::PathBuf::from(format!("{dir}/fault"));
    std::fs::write(&file, "netdev.real.cut=fail").unwrap();
    haneul_core::fault::enable(file);
    real.apply(&read("want")).await.unwrap_err();
    real.apply(&read("want")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_cut_also_when_the_agent_is_killed_before() {
    if !able() {
        return;
    }
    let mut lab = Lab::new();
    let (a, mut open) = talking(&mut lab).await;
    close(&mut lab, a);
    assert!(die_at(&lab, "netdev.real.cut", "apply"));
    // Whoever has the address next must not inherit the connection.
    let sw = lab.real.namespaces(0).0;
    let tracked = || sh(&format!("ip netns exec {sw} cat /proc/net/nf_conntrack")).contains("10.0.1.21");
    assert!(tracked(), "killed before");
    lab.restart();
    lab.apply().await;
    assert!(!tracked(), "cut");
    assert!(!alive(&mut open[0]));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_is_its_own_failure() {
    if !able() {
        return;
    }
    let mut lab = Lab::new();
    let (a, mut open) = talking(&mut lab).await;
    let ext = lab.external("172.24.4.0/24");
    let r = lab.router(&[lab.want.networks[0].id], Some((ext, "172.24.4.10/24")));
    // The kernel takes no broadcast address as a next hop, and has no device of this MTU.
    lab.want.routers[0].routes = vec![(net("10.7.0.0/16"), ip("10.0.1.255"))];
    let wide = lab.network(&["10.0.3.0/24"]);
    lab.net_mut(wide).mtu = 70_000;
    let lost = lab.port(wide, &["10.0.3.11"], &[]);
    let (first, group) = (lab.want.networks[0].id, lab.want.security_groups[0].id);
    let fine = lab.port(first, &["10.0.1.31"], &[group]);
    close(&mut lab, a);
    for _ in 0..2 {
        let troubles = lab.real.apply(&lab.want).await.unwrap();
        let of: Vec<_> = troubles.keys().copied().collect();
        let mut failed = [(Kind::Network, wide), (Kind::Port, lost), (Kind::Router, r)];
        failed.sort();
        assert_eq!(of, failed);
        let why = &troubles[&(Kind::Router, r)].detail;
        assert!(why.contains("10.7.0.0/16"), "{why}");
        assert!(lab.real.observe().await.unwrap().ports.contains(&fine));
        assert_eq!(open.each_mut().map(alive), [false, false], "cut at once");
    }
    let gf = lab.configure(fine);
    assert!(ping(&gf, "172.24.4.1"), "the router does what it can");
    lab.want.routers[0].routes.clear();
    lab.net_mut(wide).mtu = 1400;
    lab.apply().await;
    assert!(lab.real.observe().await.unwrap().ports.contains(&lost));
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_that_somebody_deleted_come_back() {
    if !able() {
        return;
    }
    let mut lab = Lab::with(|c| c.sweep = 0);
    let n = lab.network(&["10.0.1.0/24"]);
    lab.port(n, &["10.0.1.11"], &[]);
    lab.neighbour(n, "10.0.1.12", "10.99.0.2");
    lab.apply().await;
    let before = tables(&lab);
    let (sw, index, mac) = (
        lab.real.namespaces(0).0,
        lab.net_mut(n).index,
        lab.want.neighbours[0].mac.clone(),
    );
    ok(&format!(
        "ip netns exec {sw} bridge fdb del {mac} dev hv{index} self && ip -n {sw} neigh del 10.0.1.12 dev hb{index} &&
         ip netns exec {sw} bridge fdb append 00:00:00:00:00:00 dev hv{index} dst 10.99.0.9 self permanent"
    ));
    assert_ne!(tables(&lab), before);
    lab.apply().await;
    assert_eq!(tables(&lab), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_that_was_down_knows_its_neighbours_again() {
    if !able() {
        return;
    }
    let mut lab = Lab::new();
    let n = lab.network(&["10.0.1.0/24"]);
    // A process that another test begins has our sockets for a moment: no responders that open theirs anew.
    lab.net_mut(n).subnets[0].enable_dhcp = false;
    lab.port(n, &["10.0.1.11"], &[]);
    lab.neighbour(n, "10.0.1.12", "10.99.0.2");
    lab.apply().await;
    for up in [false, true] {
        lab.net_mut(n).admin_state_up = up;
        lab.apply().await;
    }
    let now = tables(&lab);
    assert!(now.contains("10.0.1.12 ") && now.contains("dst 10.99.0.2"), "{now}");
}
