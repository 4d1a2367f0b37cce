//! Networks that span hosts: two and three data planes with a wire between them.

use crate::dhcp::{ask, unanswered};
use crate::lab::*;
use dhcproto::v4::MessageType;
use haneul_agent_api::*;
use haneul_netdev::NetDriver;
use std::collections::BTreeSet;
use std::net::UdpSocket;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// Gives a host a network that another one has.
pub fn share(from: &Lab, network: Uuid, to: &mut Lab) {
    let n = from.want.networks.iter().find(|n| n.id == network).unwrap();
    to.want.networks.push(n.clone());
}

/// The same of a group.
pub fn share_group(from: &Lab, group: Uuid, to: &mut Lab) {
    let g = from.want.security_groups.iter().find(|g| g.id == group).unwrap();
    to.want.security_groups.push(g.clone());
}

/// What is on this host, as its neighbours see it.
fn seen_from_elsewhere(lab: &Lab) -> Vec<Neighbour> {
    let host = lab.config.underlay.get().unwrap().address;
    let ports = lab.want.ports.iter().map(|p| Neighbour {
        id: p.id,
        network_id: p.network_id,
        mac: p.mac.clone(),
        addresses: p.fixed_ips.iter().map(|f| f.ip).collect(),
        dns_name: p.dns_name.clone(),
        host,
    });
    let interfaces = lab.want.routers.iter().flat_map(|r| &r.interfaces).map(|i| Neighbour {
        id: i.port_id,
        network_id: i.network_id,
        mac: i.mac.clone(),
        addresses: i.addresses.iter().map(|a| a.addr()).collect(),
        dns_name: String::new(),
        host,
    });
    ports.chain(interfaces).collect()
}

/// Tells each host of the ports on the others, as control does. Answers how long the slowest took to do as it was told.
pub async fn spread(hosts: &mut [&mut Lab]) -> Duration {
    let mut slowest = Duration::ZERO;
    let all: Vec<Vec<Neighbour>> = hosts.iter().map(|l| seen_from_elsewhere(l)).collect();
    for (i, lab) in hosts.iter_mut().enumerate() {
        let had: BTreeSet<Uuid> = lab.want.neighbours.iter().map(|n| n.id).collect();
        let others = all.iter().enumerate().filter(|(j, _)| *j != i).flat_map(|(_, n)| n);
        lab.want.neighbours = others
            .filter(|n| lab.want.networks.iter().any(|x| x.id == n.network_id))
            .cloned()
            .collect();
        let start = Instant::now();
        lab.apply().await;
        let has: BTreeSet<Uuid> = lab.want.neighbours.iter().map(|n| n.id).collect();
        for gone in had.difference(&has) {
            lab.real.remove(Kind::Neighbour, *gone).await.unwrap();
        }
        slowest = slowest.max(start.elapsed());
    }
    slowest
}

fn icmp6_in() -> Rule {
    Rule {
        protocol: Some(58),
        ..rule(Direction::Ingress, EtherType::Ipv6)
    }
}

fn udp_in(port: u16) -> Rule {
    Rule {
        protocol: Some(17),
        ..tcp_in(port)
    }
}

/// A port with the same identity, for another host.
fn move_port(from: &mut Lab, id: Uuid, to: &mut Lab) {
    let at = from.want.ports.iter().position(|p| p.id == id).unwrap();
    to.want.ports.push(from.want.ports.remove(at));
}

struct Three {
    wire: Wire,
    a: Lab,
    b: Lab,
    c: Lab,
    net: Uuid,
    group: Uuid,
}

/// Three hosts with one network and one group that lets pings and TCP 22 in.
fn three() -> Three {
    let wire = Wire::new();
    let (mut a, mut b, mut c) = (Lab::on(&wire, 1), Lab::on(&wire, 2), Lab::on(&wire, 3));
    let net = a.network(&["10.0.1.0/24", "fd00:1::/64"]);
    let group = a.group(vec![tcp_in(22), icmp_in(), icmp6_in(), udp_in(7000)]);
    for other in [&mut b, &mut c] {
        share(&a, net, other);
        share_group(&a, group, other);
    }
    Three {
        wire,
        a,
        b,
        c,
        net,
        group,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn guests_on_three_hosts_are_on_one_network() {
    if !able() {
        return;
    }
    let Three {
        wire,
        mut a,
        mut b,
        mut c,
        net,
        group,
    } = three();
    let pa = a.port(net, &["10.0.1.11", "fd00:1::11"], &[group]);
    let pb = b.port(net, &["10.0.1.12", "fd00:1::12"], &[group]);
    let pc = c.port(net, &["10.0.1.13", "fd00:1::13"], &[group]);
    // The same numbers in another tenant's hands.
    let other = a.network(&["10.0.1.0/24"]);
    share(&a, other, &mut b);
    let stranger = b.port(other, &["10.0.1.11"], &[group]);
    spread(&mut [&mut a, &mut b, &mut c]).await;
    let (ga, gb, gc) = (a.configure(pa), b.configure(pb), c.configure(pc));
    let gs = b.configure(stranger);
    for (from, to) in [(&ga, 12), (&ga, 13), (&gb, 11), (&gb, 13), (&gc, 11), (&gc, 12)] {
        assert!(ping(from, &format!("10.0.1.{to}")), "{from} to {to}");
        assert!(ping(from, &format!("fd00:1::{to}")), "{from} to {to} over IPv6");
    }
    assert_eq!(wire.count("arp"), 0, "who is where is answered on the spot");
    assert_eq!(wire.count("nd"), 0, "over IPv6 too");
    assert!(!ping(&gs, "10.0.1.12"), "another tenant's network is another");
    // The group refuses over the tunnel as it does at home.
    serve(&gb, "0.0.0.0:22");
    serve(&gb, "0.0.0.0:80");
    assert!(reaches(&ga, "10.0.1.12:22"));
    assert!(!reaches(&ga, "10.0.1.12:80"), "80 is not open");
    // Whom nobody told of is not looked for on other hosts.
    ok(&format!(
        "ip -n {ga} neigh replace 10.0.1.77 lladdr fa:16:3e:77:77:77 dev eth0"
    ));
    assert!(!ping(&ga, "10.0.1.77"));
    assert_eq!(wire.count("nobody"), 0, "a frame for nobody stays at home");
    // Broadcast and multicast reach all hosts.
    let hear = |ns: &str| {
        let s = in_ns(ns, || UdpSocket::bind("0.0.0.0:7000").unwrap());
        s.set_read_timeout(Some(PATIENCE)).unwrap();
        s
    };
    let (hb, hc) = (hear(&gb), hear(&gc));
    in_ns(&ga, || {
        let s = UdpSocket::bind("10.0.1.11:0").unwrap();
        s.set_broadcast(true).unwrap();
        s.send_to(b"all", "10.0.1.255:7000").unwrap();
    });
    let mut byte = [0; 8];
    for s in [hb, hc] {
        assert_eq!(s.recv(&mut byte).unwrap(), 3, "a broadcast");
    }
    // A spoofed source does not leave its host, nor does a MAC of this host come in from another one.
    ok(&format!("ip -n {gb} addr add 10.0.1.99/24 dev eth0"));
    assert!(!ping(&gb, "-I 10.0.1.99 10.0.1.11"));
    assert_eq!(wire.count("spoofed"), 0, "a spoofed source");
    let mac = a.want.ports[0].mac.clone();
    b.port_mut(pb).port_security = false;
    b.apply().await;
    ok(&format!("ip -n {gb} addr del 10.0.1.99/24 dev eth0"));
    assert!(ping(&gb, "10.0.1.11"));
    let heard = in_ns(&ga, || UdpSocket::bind("0.0.0.0:7000").unwrap());
    heard.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    ok(&format!("ip -n {gb} link set eth0 address {mac}"));
    in_ns(&gb, || {
        let s = UdpSocket::bind("0.0.0.0:0").unwrap();
        s.set_broadcast(true).unwrap();
        s.send_to(b"x", "10.0.1.255:7000").unwrap();
    });
    assert!(
        heard.recv(&mut byte).is_err(),
        "a frame with a MAC of this host came from another one"
    );
    // All of it again: nothing changes. A device that somebody deleted comes back.
    let tunnels = |l: &Lab| {
        sh(&format!(
            "ip -n {} -o link show type vxlan 2>/dev/null",
            l.real.namespaces(0).0
        ))
    };
    let before = tunnels(&a);
    assert!(!before.is_empty());
    a.apply().await;
    assert_eq!(tunnels(&a), before);
    let index = a.net_mut(net).index;
    ok(&format!("ip -n {} link del hv{index}", a.real.namespaces(0).0));
    a.apply().await;
    assert!(ping(&ga, "10.0.1.13"), "repaired");
    ok(&format!("ip netns del {}", a.real.namespaces(0).0));
    a.apply().await;
    let ga = a.configure(pa);
    assert!(ping(&ga, "10.0.1.13"), "repaired with its namespace");
    a.restart();
    a.apply().await;
    assert!(ping(&ga, "10.0.1.13"), "the same after a restart");
    assert_eq!(a.real.observe().await.unwrap().strays, Vec::<String>::new());
    for lab in [&a, &b, &c] {
        lab.real.purge().await.unwrap();
        let prefix = lab.real.namespaces(0).0.replace("-sw", "");
        let left = sh(&format!(
            "ip netns 2>/dev/null | grep {prefix}; ip -n {} -o link show type vxlan 2>/dev/null",
            lab.host
        ));
        assert_eq!(left.trim(), "");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_host_answers_its_own_guests_and_a_name_is_known_on_all() {
    if !able() {
        return;
    }
    let Three {
        wire,
        mut a,
        mut b,
        net,
        group,
        ..
    } = three();
    let pa = a.port(net, &["10.0.1.11"], &[group]);
    let pb = b.port(net, &["10.0.1.12"], &[group]);
    spread(&mut [&mut a, &mut b]).await;
    let (ga, gb) = (a.guest(pa), b.guest(pb));
    for (ns, lab, want) in [(&ga, &a, "10.0.1.11"), (&gb, &b, "10.0.1.12")] {
        ok(&format!("ip -n {ns} link set eth0 up"));
        let (offer, _) = ask(ns, &lab.want.ports[0].mac, MessageType::Discover, None);
        assert_eq!(offer.yiaddr().to_string(), want);
    }
    // Whose lease is elsewhere gets none here: nobody answers twice, nobody answers for others.
    assert!(unanswered(&ga, &b.want.ports[0].mac, MessageType::Discover));
    assert_eq!(wire.count("dhcp"), 0, "questions for an address stay on their host");
    let (ga, _) = (a.configure(pa), b.configure(pb));
    // The service's address is on every host; questions for it do not leave.
    assert!(ping(&ga, "10.0.1.2"));
    assert_eq!(
        (wire.count("arp"), wire.count("icmp")),
        (0, 0),
        "the service of this host"
    );
    let name = b.want.ports[0].dns_name.clone();
    let found = sh(&format!("ip netns exec {ga} busybox nslookup {name}.lab.test 10.0.1.2"));
    assert!(found.contains("10.0.1.12"), "{found}");
    let found = sh(&format!("ip netns exec {ga} busybox nslookup 10.0.1.12 10.0.1.2"));
    assert!(found.contains(&format!("{name}.lab.test")), "{found}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_moves_is_reached_where_it_is() {
    if !able() {
        return;
    }
    let Three {
        wire,
        mut a,
        mut b,
        mut c,
        net,
        group,
    } = three();
    let pa = a.port(net, &["10.0.1.11", "fd00:1::11"], &[group]);
    let pb = b.port(net, &["10.0.1.12", "fd00:1::12"], &[group]);
    let pc = c.port(net, &["10.0.1.13"], &[group]);
    spread(&mut [&mut a, &mut b, &mut c]).await;
    let (ga, _, gc) = (a.configure(pa), b.configure(pb), c.configure(pc));
    assert!(ping(&ga, "10.0.1.12") && ping(&gc, "10.0.1.12"));
    // It is made ready on the third host while it is on the second one: there it is still reached.
    let port = b.want.ports[0].clone();
    c.want.ports.push(port);
    c.apply().await;
    assert!(ping(&gc, "10.0.1.12"), "a port that is arriving is still elsewhere");
    assert!(ping(&ga, "10.0.1.12"));
    let midstream = |l: &Lab| {
        let sw = l.real.namespaces(0).0;
        sh(&format!(
            "ip netns exec {sw} sysctl -n net.netfilter.nf_conntrack_tcp_loose"
        ))
    };
    assert_eq!(
        (midstream(&c).trim(), midstream(&a).trim()),
        ("1", "0"),
        "its open connections come along"
    );
    // It is there.
    c.want.ports.retain(|p| p.id != pb);
    move_port(&mut b, pb, &mut c);
    let start = Instant::now();
    let told = spread(&mut [&mut a, &mut c, &mut b]).await;
    b.real.remove(Kind::Port, pb).await.unwrap();
    let moved = c.configure(pb);
    let before = wire.count("icmp");
    while !ping(&ga, "10.0.1.12") {
        assert!(start.elapsed() < PATIENCE, "it is not reached");
    }
    let took = start.elapsed();
    println!("entries moved in {told:?}; from the first apply to an answer: {took:?}");
    assert!(told < Duration::from_secs(1), "{told:?}");
    // An entry for where it was would last for half a minute.
    assert!(took < Duration::from_secs(15), "{took:?}");
    assert!(
        wire.count("icmp") - before <= 4,
        "sent to the host that has it, and to no other"
    );
    assert!(ping(&gc, "10.0.1.12"), "beside it");
    assert!(ping(&moved, "fd00:1::11"), "and back");
    assert_eq!((wire.count("arp"), wire.count("nd")), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_serves_the_guests_of_other_hosts() {
    if !able() {
        return;
    }
    let wire = Wire::new();
    let (mut a, mut b) = (Lab::on(&wire, 1), Lab::on(&wire, 2));
    let ext = a.external("172.24.4.0/24");
    let n = a.network(&["10.0.1.0/24", "fd00:1::/64"]);
    let m = a.network(&["10.0.2.0/24", "fd00:2::/64"]);
    for id in [n, m] {
        for s in &mut a.net_mut(id).subnets {
            if s.cidr.addr().is_ipv6() {
                s.ipv6_ra_mode = Some("slaac".into());
                s.ipv6_address_mode = Some("slaac".into());
            }
        }
    }
    let g = a.group(vec![tcp_in(22), icmp_in(), icmp6_in()]);
    share(&a, n, &mut b);
    share(&a, m, &mut b);
    share_group(&a, g, &mut b);
    let x = b.port(n, &["10.0.1.21", "fd00:1::21"], &[g]);
    let y = b.port(m, &["10.0.2.21", "fd00:2::21"], &[g]);
    let z = a.port(m, &["10.0.2.11"], &[g]);
    let r = a.router(&[n, m], Some((ext, "172.24.4.10/24")));
    a.want.routers[0].floating_ips.push(FloatingIp {
        id: Uuid::new_v4(),
        floating: ip("172.24.4.20"),
        fixed: ip("10.0.1.21"),
    });
    spread(&mut [&mut a, &mut b]).await;
    let (gx, gy, gz) = (b.configure(x), b.configure(y), a.configure(z));
    assert!(
        ping(&gx, "10.0.2.21"),
        "from one network of this host to another, by way of the router's host"
    );
    assert!(ping(&gx, "fd00:2::21"));
    assert!(ping(&gx, "10.0.2.11") && ping(&gz, "10.0.1.21"));
    serve(&gx, "0.0.0.0:22");
    assert!(
        reaches_soon(&a.host, "172.24.4.20:22"),
        "the floating address of a guest elsewhere"
    );
    assert!(ping(&gx, "172.24.4.1"), "the way out");
    let told = sh(&format!("ip netns exec {gy} rdisc6 -1 -w 5000 eth0"));
    assert!(told.contains("fd00:2::/64"), "advertisements cross: {told}");
    // The router moves to the other host: the same addresses, the same MACs.
    let moved = a.want.routers.remove(0);
    b.want.routers.push(moved);
    let outside = a.want.networks.iter().find(|x| x.id == ext).unwrap().clone();
    b.want.networks.push(outside);
    let start = Instant::now();
    spread(&mut [&mut b, &mut a]).await;
    a.real.remove(Kind::Router, r).await.unwrap();
    assert!(reaches_soon(&b.host, "172.24.4.20:22"));
    assert!(ping(&gz, "10.0.1.21"), "from where it was");
    assert!(ping(&gx, "10.0.2.11"));
    println!("the router moved in {:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_for_the_wire_is_not_lost() {
    if !able() {
        return;
    }
    let Three {
        wire: _wire,
        mut a,
        mut b,
        net,
        group,
        ..
    } = three();
    let pa = a.port(net, &["10.0.1.11", "fd00:1::11"], &[group]);
    let pb = b.port(net, &["10.0.1.12", "fd00:1::12"], &[group]);
    spread(&mut [&mut a, &mut b]).await;
    let (ga, _) = (a.configure(pa), b.configure(pb));
    assert!(
        ping(&ga, "-M do -s 1422 10.0.1.12"),
        "as large as the network's MTU, whole"
    );
    assert!(ping(&ga, "-M do -s 1402 fd00:1::12"));
    // A network from before there were several hosts: as large as the wire itself.
    for lab in [&mut a, &mut b] {
        lab.net_mut(net).mtu = 1500;
        lab.apply().await;
    }
    for (lab, port) in [(&a, pa), (&b, pb)] {
        ok(&format!("ip -n {} link set eth0 mtu 1500", lab.guest(port)));
    }
    assert!(ping(&ga, "-M dont -s 1472 10.0.1.12"), "in pieces outside");
    // Who asks that it be left whole is told what fits.
    assert!((0..3).any(|_| ping(&ga, "-M want -s 1472 10.0.1.12")), "IPv4");
    assert!((0..3).any(|_| ping(&ga, "-s 1452 fd00:1::12")), "IPv6");
}
