//! Routers, floating addresses, the way to the host.

use crate::lab::*;
use haneul_agent_api::*;
use haneul_netdev::NetDriver;
use std::io::{Read, Write};
use uuid::Uuid;

fn float(lab: &mut Lab, router: Uuid, floating: &str, fixed: &str) -> Uuid {
    let id = Uuid::new_v4();
    let r = lab.want.routers.iter_mut().find(|r| r.id == router).unwrap();
    r.floating_ips.push(FloatingIp {
        id,
        floating: ip(floating),
        fixed: ip(fixed),
    });
    id
}

fn unfloat(lab: &mut Lab, router: Uuid) {
    let r = lab.want.routers.iter_mut().find(|r| r.id == router).unwrap();
    r.floating_ips.clear();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_floating_address_opens_what_its_group_opens_and_ends_at_once() {
    if !able() {
        return;
    }
    let mut lab = Lab::new();
    let ext = lab.external("172.24.4.0/24");
    let n = lab.network(&["10.0.1.0/24"]);
    let g = lab.group(vec![tcp_in(22), icmp_in()]);
    let a = lab.port(n, &["10.0.1.11"], &[g]);
    let b = lab.port(n, &["10.0.1.12"], &[g]);
    let r = lab.router(&[n], Some((ext, "172.24.4.10/24")));
    float(&mut lab, r, "172.24.4.20", "10.0.1.11");
    lab.apply().await;
    let (ga, gb) = (lab.configure(a), lab.configure(b));
    serve(&ga, "0.0.0.0:22");
    serve(&ga, "0.0.0.0:80");
    let host = lab.host.clone();
    assert!(ping(&host, "172.24.4.20"));
    let (mut ssh, seen) = connect_soon(&host, "172.24.4.20:22").expect("22 is open");
    assert_eq!(seen, ip("172.24.4.1"), "the guest sees who called");
    assert!(!reaches(&host, "172.24.4.20:80"), "80 is not open");
    assert!(!reaches(&host, "10.0.1.11:22"), "no way to the inner address");
    // Even for somebody who routes there by hand.
    ok(&format!("ip -n {host} route add 10.0.1.0/24 via 172.24.4.10"));
    assert!(!reaches(&host, "10.0.1.11:22"));
    // Hairpin: a neighbour calls by the floating address.
    let (_, seen) = connect_soon(&gb, "172.24.4.20:22").expect("hairpin");
    assert_eq!(seen, ip("172.24.4.10"));
    // A rule goes: the open connection with it.
    lab.group_mut(g).rules.retain(|r| r.port_min != Some(22));
    lab.apply().await;
    assert!(!alive(&mut ssh), "cut with the rule");
    // Nor does the guest open it again from its side by going on talking (it may call out at will).
    let l = in_ns(&ga, || std::net::TcpListener::bind("10.0.1.11:81").unwrap());
    lab.group_mut(g).rules.push(tcp_in(81));
    lab.apply().await;
    let to = "172.24.4.20:81".parse().unwrap();
    let mut client = in_ns(&host, || std::net::TcpStream::connect_timeout(&to, PATIENCE).unwrap());
    client
        .set_read_timeout(Some(std::time::Duration::from_millis(900)))
        .unwrap();
    let (mut guest, _) = l.accept().unwrap();
    lab.group_mut(g).rules.retain(|r| r.port_min != Some(81));
    lab.apply().await;
    guest.write_all(b"still there").unwrap();
    assert!(client.read(&mut [0; 32]).is_err(), "cut in both directions");
    lab.group_mut(g).rules.push(tcp_in(22));
    lab.apply().await;
    let (mut ssh, _) = connect_soon(&host, "172.24.4.20:22").unwrap();
    assert!(alive(&mut ssh));
    // The floating address goes.
    unfloat(&mut lab, r);
    lab.apply().await;
    assert!(!alive(&mut ssh), "cut with the floating address");
    assert!(!reaches(&host, "172.24.4.20:22"));
    // It moves to the other guest.
    serve(&gb, "0.0.0.0:22");
    float(&mut lab, r, "172.24.4.20", "10.0.1.12");
    lab.apply().await;
    assert!(reaches_soon(&host, "172.24.4.20:22"));
}

#[tokio::test(flavor = "multi_thread")]
async fn guests_reach_out_behind_their_router_and_not_into_the_host() {
    if !able() {
        return;
    }
    let mut lab = Lab::new();
    let ext = lab.external("172.24.4.0/24");
    let n = lab.network(&["10.0.1.0/24"]);
    let m = lab.network(&["10.0.2.0/24"]);
    let g = lab.group(vec![icmp_in()]);
    let a = lab.port(n, &["10.0.1.11"], &[g]);
    let b = lab.port(m, &["10.0.2.11"], &[g]);
    let c = lab.port(ext, &["172.24.4.50"], &[g]);
    let open = lab.group(vec![tcp_in(22)]);
    lab.port_mut(c).security_groups.push(open);
    let r = lab.router(&[n, m], Some((ext, "172.24.4.10/24")));
    // The world behind the host.
    let host = lab.host.clone();
    let world = format!("{host}-w");
    ok(&format!(
        "ip netns add {world}; ip link add w0 netns {host} type veth peer name w1 netns {world};
         ip -n {host} addr add 192.0.2.1/24 dev w0; ip -n {host} link set w0 up;
         ip -n {world} addr add 192.0.2.2/24 dev w1; ip -n {world} link set w1 up; ip -n {world} link set lo up"
    ));
    lab.apply().await;
    let (ga, gb, gc) = (lab.configure(a), lab.configure(b), lab.configure(c));
    serve(&world, "0.0.0.0:80");
    serve(&gc, "0.0.0.0:22");
    serve(&host, "0.0.0.0:22");
    let (mut s, seen) = connect_soon(&ga, "192.0.2.2:80").expect("the world");
    assert_eq!(seen, ip("192.0.2.1"), "behind the host's address");
    let (_, seen) = connect_soon(&ga, "172.24.4.50:22").expect("a neighbour on the external network");
    assert_eq!(seen, ip("172.24.4.10"), "behind the router's address");
    assert!(ping(&ga, "10.0.2.11"), "routed between the router's networks");
    assert!(ping(&gb, "10.0.1.11"));
    assert!(ping(&ga, "172.24.4.1"), "the gateway answers pings");
    assert!(
        !reaches(&ga, "172.24.4.1:22"),
        "and nothing else of the host is reached"
    );
    assert!(!reaches(&ga, "192.0.2.1:22"), "by no address");
    // An interface goes: what ran through it is cut.
    assert!(alive(&mut s));
    let router = lab.want.routers.iter_mut().find(|x| x.id == r).unwrap();
    router.interfaces.retain(|i| i.network_id != n);
    lab.apply().await;
    assert!(!alive(&mut s), "cut with the interface");
    assert!(!ping(&ga, "10.0.2.11"));
    // The router goes.
    lab.real.remove(Kind::Router, r).await.unwrap();
    assert!(!sh("ip netns").contains(&lab.real.namespaces(lab.want.routers[0].index).1));
    sh(&format!("ip netns del {world}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn isolated_means_the_host_only() {
    if !able() {
        return;
    }
    let mut lab = Lab::with(|c| c.uplink = Uplink::Isolated);
    let ext = lab.external("172.24.4.0/24");
    let n = lab.network(&["10.0.1.0/24"]);
    let g = lab.group(vec![tcp_in(22)]);
    let a = lab.port(n, &["10.0.1.11"], &[g]);
    let r = lab.router(&[n], Some((ext, "172.24.4.10/24")));
    float(&mut lab, r, "172.24.4.20", "10.0.1.11");
    let host = lab.host.clone();
    let world = format!("{host}-w");
    ok(&format!(
        "ip netns add {world}; ip link add w0 netns {host} type veth peer name w1 netns {world};
         ip -n {host} addr add 192.0.2.1/24 dev w0; ip -n {host} link set w0 up;
         ip -n {world} addr add 192.0.2.2/24 dev w1; ip -n {world} link set w1 up;
         ip -n {world} route add default via 192.0.2.1;
         ip netns exec {host} sysctl -qw net.ipv4.ip_forward=1"
    ));
    lab.apply().await;
    let ga = lab.configure(a);
    serve(&ga, "0.0.0.0:22");
    serve(&world, "0.0.0.0:80");
    assert!(reaches_soon(&host, "172.24.4.20:22"));
    assert!(!reaches(&ga, "192.0.2.2:80"), "nothing leaves the host");
    assert!(!reaches(&world, "172.24.4.20:22"), "nothing enters");
    sh(&format!("ip netns del {world}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn ipv6_is_routed_without_translation() {
    if !able() {
        return;
    }
    let mut lab = Lab::new();
    let n = lab.network(&["10.0.1.0/24", "fd00:1::/64"]);
    let m = lab.network(&["fd00:2::/64"]);
    for id in [n, m] {
        for s in &mut lab.net_mut(id).subnets {
            if s.cidr.addr().is_ipv6() {
                s.ipv6_ra_mode = Some("slaac".into());
                s.ipv6_address_mode = Some("slaac".into());
            }
        }
    }
    let g = lab.group(vec![Rule {
        protocol: Some(58),
        ..rule(Direction::Ingress, EtherType::Ipv6)
    }]);
    let closed = lab.group(vec![]);
    let a = lab.port(n, &["10.0.1.11"], &[g]);
    // SLAAC: the address follows from the MAC.
    let mac = lab.want.ports[0].mac.clone();
    let last = u8::from_str_radix(&mac[15..], 16).unwrap();
    let slaac = format!("fd00:1::f816:3eff:fe00:{last:x}");
    let subnet = lab.net_mut(n).subnets[1].id;
    lab.port_mut(a).fixed_ips.push(FixedIp {
        subnet_id: subnet,
        ip: ip(&slaac),
    });
    let b = lab.port(m, &["fd00:2::11"], &[closed]);
    lab.router(&[n, m], None);
    lab.apply().await;
    let ga = lab.guest(a);
    let gb = lab.configure(b);
    // The guest asks nobody: it hears the router and makes its address.
    ok(&format!(
        "ip netns exec {ga} sysctl -qw net.ipv6.conf.eth0.accept_ra=1; ip -n {ga} link set eth0 down; ip -n {ga} link set eth0 up"
    ));
    let mut said = String::new();
    for _ in 0..300 {
        said = sh(&format!(
            "ip -n {ga} -6 addr show dev eth0 scope global -tentative; ip -n {ga} -6 route show default"
        ));
        if said.contains(&slaac) && said.contains("default via fe80::") {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    assert!(said.contains(&slaac), "SLAAC: {said}");
    assert!(said.contains("default via fe80::"), "default route: {said}");
    let mtu = sh(&format!("ip netns exec {ga} cat /proc/sys/net/ipv6/conf/eth0/mtu"));
    assert_eq!(mtu.trim(), "1450", "MTU by advertisement");
    assert!(ping(&gb, &slaac), "routed, allowed");
    assert!(!ping(&ga, "fd00:2::11"), "routed, not allowed");
    let told = sh(&format!("ip netns exec {ga} rdisc6 -1 -w 5000 eth0"));
    assert!(told.contains("fd00:1::/64") && told.contains("1450"), "{told}");
    assert!(told.contains("fd00:1::2"), "recursive DNS: {told}");
    // With an IPv6 external network, the host knows the way in, and guests reach the host's side.
    let ext = lab.external("fd00:ee::/64");
    let r = lab.want.routers[0].id;
    let spare = lab.router(&[], Some((ext, "fd00:ee::10/64")));
    let gateway = lab.want.routers.iter().find(|x| x.id == spare).unwrap().gateway.clone();
    lab.want.routers.retain(|x| x.id == r);
    lab.want.routers[0].gateway = gateway;
    // The host remembers that somebody else had the address, until it is told.
    let holder = lab.want.routers[0].gateway.take();
    lab.apply().await;
    let host = lab.host.clone();
    let veth = sh(&format!(
        "ip -n {host} -6 -o addr show to fd00:ee::1 | awk '{{print $2}}'"
    ));
    let veth = veth.trim();
    ok(&format!(
        "ip -n {host} neigh replace fd00:ee::10 lladdr 02:00:00:00:00:01 dev {veth} nud stale"
    ));
    let mac = holder.as_ref().unwrap().mac.clone();
    lab.want.routers[0].gateway = holder;
    lab.apply().await;
    let told = sh(&format!("ip -n {host} neigh show fd00:ee::10 dev {veth}"));
    assert!(told.contains(&mac), "the router says who has its outer address: {told}");
    ok(&format!("ip -n {host} -6 route get fd00:1::11 | grep fd00:ee::10"));
    assert!(ping(&host, &slaac), "the host reaches an open guest");
    assert!(!ping(&host, "fd00:2::11"), "and not a closed one");
    assert!(ping(&ga, "fd00:ee::1"), "the guest reaches the host's side");
}
