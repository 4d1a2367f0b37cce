//! Security groups, anti-spoofing, isolation.

use crate::lab::*;
use haneul_agent_api::*;
use haneul_netdev::NetDriver;
use std::io::{Read, Write};

#[tokio::test(flavor = "multi_thread")]
async fn groups_open_what_they_say_and_nothing_else() {
    if !able() {
        return;
    }
    let mut lab = Lab::new();
    let n = lab.network(&["10.0.1.0/24", "fd00:1::/64"]);
    let v6 = Rule {
        protocol: Some(58),
        ..rule(Direction::Ingress, EtherType::Ipv6)
    };
    let v6tcp = Rule {
        protocol: Some(6),
        port_min: Some(20),
        port_max: Some(30),
        ..rule(Direction::Ingress, EtherType::Ipv6)
    };
    let open = lab.group(vec![tcp_in(22), icmp_in(), v6, v6tcp]);
    let closed = lab.group(vec![]);
    let a = lab.port(n, &["10.0.1.11", "fd00:1::11"], &[open]);
    let b = lab.port(n, &["10.0.1.12", "fd00:1::12"], &[closed]);
    lab.apply().await;
    let (ga, gb) = (lab.configure(a), lab.configure(b));
    for g in [&ga, &gb] {
        for at in ["0.0.0.0:22", "0.0.0.0:80", "[::]:2222"] {
            serve(g, at);
        }
    }
    in_ns(&ga, || ());
    serve(&ga, "[fd00:1::11]:22");
    assert!(ping(&gb, "10.0.1.11"), "icmp is open");
    assert!(reaches_soon(&gb, "10.0.1.11:22"), "22 is open");
    assert!(!reaches(&gb, "10.0.1.11:80"), "80 is not");
    assert!(ping(&gb, "fd00:1::11"), "icmpv6 is open");
    assert!(reaches_soon(&gb, "[fd00:1::11]:22"), "22 is open on v6");
    assert!(!reaches(&gb, "[fd00:1::11]:2222"), "2222 is not");
    assert!(!reaches(&ga, "10.0.1.12:22"), "the closed group lets nothing in");
    assert!(!ping(&ga, "10.0.1.12"));
    assert!(!ping(&ga, "fd00:1::12"));
}

#[tokio::test(flavor = "multi_thread")]
async fn same_addresses_of_another_tenant_are_another_world() {
    if !able() {
        return;
    }
    let mut lab = Lab::new();
    let all = lab.group(vec![rule(Direction::Ingress, EtherType::Ipv4)]);
    let (n1, n2) = (lab.network(&["10.0.1.0/24"]), lab.network(&["10.0.1.0/24"]));
    let a1 = lab.port(n1, &["10.0.1.11"], &[all]);
    let b1 = lab.port(n1, &["10.0.1.12"], &[all]);
    let a2 = lab.port(n2, &["10.0.1.11"], &[all]);
    let c2 = lab.port(n2, &["10.0.1.13"], &[all]);
    lab.apply().await;
    let (ga1, gb1, ga2, gc2) = (
        lab.configure(a1),
        lab.configure(b1),
        lab.configure(a2),
        lab.configure(c2),
    );
    serve(&ga1, "0.0.0.0:22");
    serve(&gc2, "0.0.0.0:22");
    assert!(reaches_soon(&gb1, "10.0.1.11:22"));
    assert!(reaches_soon(&ga2, "10.0.1.13:22"));
    assert!(!reaches(&gc2, "10.0.1.12:22"), "no way into the other tenant's network");
    assert!(!ping(&gc2, "10.0.1.12"));
    assert!(!reaches(&gb1, "10.0.1.13:22"));
    // A connection of one tenant is none of the other's: the same five numbers, another group.
    let closed = lab.group(vec![]);
    let b2 = lab.port(n2, &["10.0.1.12"], &[closed]);
    lab.port_mut(a2).security_groups = vec![closed];
    lab.apply().await;
    let gb2 = lab.configure(b2);
    let udp = |ns: &str, at: &str| {
        let s = in_ns(ns, || std::net::UdpSocket::bind(at).unwrap());
        s.set_read_timeout(Some(PATIENCE)).unwrap();
        s
    };
    let mut b = [0u8; 8];
    let (sa, sb) = (udp(&ga1, "10.0.1.11:6000"), udp(&gb1, "10.0.1.12:5000"));
    sb.send_to(b"hello", "10.0.1.11:6000").unwrap();
    sa.recv(&mut b).unwrap();
    sa.send_to(b"well", "10.0.1.12:5000").unwrap();
    sb.recv(&mut b).unwrap();
    let (sa, sb) = (udp(&ga2, "10.0.1.11:6000"), udp(&gb2, "10.0.1.12:5000"));
    sb.send_to(b"hello", "10.0.1.11:6000").unwrap();
    sa.set_read_timeout(Some(SILENCE)).unwrap();
    assert!(sa.recv(&mut b).is_err(), "established over there only");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_remote_group_is_its_members_and_no_rule_outlives_itself() {
    if !able() {
        return;
    }
    let mut lab = Lab::new();
    let n = lab.network(&["10.0.1.0/24"]);
    let friends = lab.group(vec![]);
    let server = lab.group(vec![
        Rule {
            remote_group: Some(friends),
            ..tcp_in(22)
        },
        tcp_in(80),
    ]);
    let a = lab.port(n, &["10.0.1.11"], &[server]);
    let b = lab.port(n, &["10.0.1.12"], &[friends]);
    let c = lab.port(n, &["10.0.1.13"], &[]);
    let egress = lab.group(vec![]);
    lab.port_mut(c).security_groups = vec![egress];
    lab.apply().await;
    let (ga, gb, gc) = (lab.configure(a), lab.configure(b), lab.configure(c));
    serve(&ga, "0.0.0.0:22");
    serve(&ga, "0.0.0.0:80");
    let (mut ssh, _) = connect_soon(&gb, "10.0.1.11:22").expect("a member is let in");
    let (mut web, _) = connect_soon(&gb, "10.0.1.11:80").expect("80 is open");
    assert!(!reaches(&gc, "10.0.1.11:22"), "who is no member is not");
    assert!(alive(&mut ssh) && alive(&mut web));
    // Membership goes: the connection goes with it, the other one stays.
    lab.group_mut(friends).members.clear();
    lab.apply().await;
    assert!(!alive(&mut ssh), "cut with the membership");
    assert!(alive(&mut web), "untouched");
    assert!(!reaches(&gb, "10.0.1.11:22"));
    // Nor does the guest's side open it again by going on talking.
    let l = in_ns(&ga, || std::net::TcpListener::bind("10.0.1.11:81").unwrap());
    lab.group_mut(server).rules.push(tcp_in(81));
    lab.apply().await;
    let mut client = in_ns(&gb, || std::net::TcpStream::connect("10.0.1.11:81").unwrap());
    client
        .set_read_timeout(Some(std::time::Duration::from_millis(900)))
        .unwrap();
    let (mut guest, _) = l.accept().unwrap();
    lab.group_mut(server).rules.retain(|r| r.port_min != Some(81));
    lab.apply().await;
    guest.write_all(b"still there").unwrap();
    assert!(client.read(&mut [0; 32]).is_err(), "cut in both directions");
    // Membership comes.
    lab.group_mut(friends).members.push(ip("10.0.1.13"));
    lab.apply().await;
    assert!(reaches_soon(&gc, "10.0.1.11:22"));
    // A rule goes.
    lab.group_mut(server).rules.retain(|r| r.port_min != Some(80));
    lab.apply().await;
    assert!(!alive(&mut web), "cut with the rule");
    assert!(!reaches(&gb, "10.0.1.11:80"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_without_egress_rules_lets_nothing_out() {
    if !able() {
        return;
    }
    let mut lab = Lab::new();
    let n = lab.network(&["10.0.1.0/24"]);
    let all = lab.group(vec![rule(Direction::Ingress, EtherType::Ipv4)]);
    let mute = lab.group(vec![tcp_in(22)]);
    lab.group_mut(mute).rules.retain(|r| r.direction == Direction::Ingress);
    let a = lab.port(n, &["10.0.1.11"], &[all]);
    let b = lab.port(n, &["10.0.1.12"], &[mute]);
    let c = lab.port(n, &["10.0.1.13"], &[]);
    lab.apply().await;
    let (ga, gb) = (lab.configure(a), lab.configure(b));
    let gc = lab.configure(c);
    serve(&ga, "0.0.0.0:22");
    serve(&gb, "0.0.0.0:22");
    assert!(!reaches(&gb, "10.0.1.11:22"), "nothing goes out");
    assert!(!ping(&gb, "10.0.1.11"));
    assert!(reaches_soon(&ga, "10.0.1.12:22"), "answers to what was let in do");
    assert!(!ping(&gc, "10.0.1.11"), "a port without groups is shut");
    // Port security off: open both ways. Administratively down: shut.
    lab.port_mut(c).port_security = false;
    lab.apply().await;
    assert!(ping(&gc, "10.0.1.11"));
    assert!(ping(&ga, "10.0.1.13"));
    lab.port_mut(c).admin_state_up = false;
    lab.apply().await;
    assert!(!ping(&ga, "10.0.1.13"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_speaks_for_itself_only() {
    if !able() {
        return;
    }
    let mut lab = Lab::new();
    let n = lab.network(&["10.0.1.0/24", "fd00:1::/64"]);
    let all = lab.group(vec![
        rule(Direction::Ingress, EtherType::Ipv4),
        rule(Direction::Ingress, EtherType::Ipv6),
    ]);
    let a = lab.port(n, &["10.0.1.11", "fd00:1::11"], &[all]);
    let b = lab.port(n, &["10.0.1.12", "fd00:1::12"], &[all]);
    lab.apply().await;
    let (ga, gb) = (lab.configure(a), lab.configure(b));
    assert!(ping(&gb, "10.0.1.11") && ping(&gb, "fd00:1::11"));
    // Another address.
    ok(&format!(
        "ip -n {gb} addr add 10.0.1.99/24 dev eth0; ip -n {gb} addr add fd00:1::99/64 dev eth0 nodad"
    ));
    assert!(!ping(&gb, "-I 10.0.1.99 10.0.1.11"), "spoofed IPv4 source");
    assert!(!ping(&gb, "-I fd00:1::99 fd00:1::11"), "spoofed IPv6 source");
    assert!(
        !ping(&ga, "fd00:1::99"),
        "a neighbour advertisement for a foreign address"
    );
    // Each layer alone, one way: an answer could fail for other reasons.
    let mac_a = lab.want.ports[0].mac.clone();
    ok(&format!(
        "ip -n {gb} neigh replace 10.0.1.11 lladdr {mac_a} dev eth0; ip -n {gb} neigh replace fd00:1::11 lladdr {mac_a} dev eth0"
    ));
    let hear = |at: &str| in_ns(&ga, || std::net::UdpSocket::bind(at).unwrap());
    let say = |from: &str, to: &str| {
        in_ns(&gb, || {
            let s = std::net::UdpSocket::bind(from).unwrap();
            s.send_to(b"x", to).unwrap();
        });
    };
    let (h4, h6) = (hear("10.0.1.11:7000"), hear("[fd00:1::11]:7000"));
    let mut byte = [0u8; 4];
    for (from, to, heard) in [
        ("10.0.1.12:0", "10.0.1.11:7000", true),
        ("10.0.1.99:0", "10.0.1.11:7000", false),
        ("[fd00:1::12]:0", "[fd00:1::11]:7000", true),
        ("[fd00:1::99]:0", "[fd00:1::11]:7000", false),
    ] {
        say(from, to);
        let h = if to.starts_with('[') { &h6 } else { &h4 };
        h.set_read_timeout(Some(if heard { PATIENCE } else { SILENCE }))
            .unwrap();
        assert_eq!(h.recv(&mut byte).is_ok(), heard, "UDP from {from}");
    }
    // A TCP segment likewise: it has a shorter way through the rules.
    let l = in_ns(&ga, || std::net::TcpListener::bind("10.0.1.11:7000").unwrap());
    l.set_nonblocking(true).unwrap();
    sh(&format!(
        "ip -n {ga} neigh replace 10.0.1.99 lladdr {} dev eth0",
        lab.want.ports[1].mac
    ));
    assert!(
        !succeeds(&format!("ip netns exec {gb} nc -w1 -z -s 10.0.1.99 10.0.1.11 7000")),
        "TCP"
    );
    assert!(
        succeeds(&format!("ip netns exec {gb} nc -w1 -z -s 10.0.1.12 10.0.1.11 7000")),
        "TCP from its own"
    );
    // ARP and neighbour advertisements that name a foreign address, from honest sources.
    let knows = |ip: &str, mac: &str| sh(&format!("ip -n {ga} neigh show {ip} dev eth0")).contains(mac);
    let before = "02:00:00:00:00:77";
    let preset = || {
        ok(&format!(
            "ip -n {ga} neigh replace 10.0.1.99 lladdr {before} dev eth0 nud stale; ip -n {ga} neigh replace fd00:1::99 lladdr {before} dev eth0 nud stale"
        ));
        // The kernel does not believe a change within a second.
        std::thread::sleep(std::time::Duration::from_millis(1200));
    };
    let mac_b = lab.want.ports[1].mac.clone();
    let announce = || {
        sh(&format!(
            "ip netns exec {gb} arping -c1 -w1 -U -I eth0 -s 10.0.1.99 10.0.1.99; ip netns exec {gb} arping -c1 -w1 -A -I eth0 -s 10.0.1.99 10.0.1.99"
        ));
        advertise(&gb, "fd00:1::12", "fd00:1::99", &mac_b);
    };
    preset();
    announce();
    std::thread::sleep(SILENCE);
    assert!(knows("10.0.1.99", before), "ARP for a foreign address");
    assert!(
        knows("fd00:1::99", before),
        "a neighbour advertisement for a foreign address"
    );
    assert!(!ping(&ga, "10.0.1.99"));
    // An address pair makes it its own.
    lab.port_mut(b).allowed_address_pairs = vec![
        AddressPair {
            ip: net("10.0.1.99/32"),
            mac: lab.want.ports[1].mac.clone(),
        },
        AddressPair {
            ip: net("fd00:1::99/128"),
            mac: lab.want.ports[1].mac.clone(),
        },
        AddressPair {
            ip: net("10.9.0.0/16"),
            mac: lab.want.ports[1].mac.clone(),
        },
    ];
    lab.apply().await;
    preset();
    announce();
    assert!(
        soon(|| knows("10.0.1.99", &mac_b) && knows("fd00:1::99", &mac_b)),
        "its own now: the announcement itself works"
    );
    assert!(ping(&gb, "-I 10.0.1.99 10.0.1.11"), "an allowed pair");
    assert!(ping(&gb, "-I fd00:1::99 fd00:1::11"), "an allowed IPv6 pair");
    ok(&format!(
        "ip -n {gb} addr add 10.9.3.4/16 dev eth0; ip -n {ga} addr add 10.9.3.5/16 dev eth0"
    ));
    assert!(!ping(&ga, "-I 10.9.3.5 10.9.3.4"), "the other side has no such pair");
    // Another MAC.
    ok(&format!("ip -n {gb} link set eth0 address fa:16:3e:66:66:66"));
    assert!(!ping(&gb, "10.0.1.11"), "spoofed MAC");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rogue_dhcp_server_or_router_is_not_heard() {
    if !able() {
        return;
    }
    let mut lab = Lab::new();
    let n = lab.network(&["10.0.1.0/24"]);
    let all = lab.group(vec![
        rule(Direction::Ingress, EtherType::Ipv4),
        rule(Direction::Ingress, EtherType::Ipv6),
    ]);
    let a = lab.port(n, &["10.0.1.11"], &[all]);
    let b = lab.port(n, &["10.0.1.12"], &[all]);
    lab.apply().await;
    let (ga, gb) = (lab.configure(a), lab.configure(b));
    let hear = in_ns(&ga, || std::net::UdpSocket::bind("0.0.0.0:68").unwrap());
    hear.set_read_timeout(Some(SILENCE)).unwrap();
    let say = |from: &str| {
        let from = from.to_string();
        in_ns(&gb, move || {
            let s = std::net::UdpSocket::bind(from).unwrap();
            s.send_to(b"offer", "10.0.1.11:68").unwrap();
        });
    };
    let mut buf = [0u8; 16];
    say("10.0.1.12:67");
    assert!(hear.recv(&mut buf).is_err(), "a DHCP answer from a guest");
    say("10.0.1.12:1067");
    hear.set_read_timeout(Some(PATIENCE)).unwrap();
    assert!(hear.recv(&mut buf).is_ok(), "the way itself is open");
    // A router advertisement, beside a message of the same family that passes.
    let raw = in_ns(&ga, || {
        use socket2::{Domain, Protocol, Socket, Type};
        Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6)).unwrap()
    });
    raw.set_read_timeout(Some(PATIENCE)).unwrap();
    let mac = lab.want.ports[1].mac.clone();
    settled(&gb);
    let own = sh(&format!("ip -n {gb} -6 -br addr show dev eth0"))
        .split_whitespace()
        .nth(2)
        .unwrap()
        .split('/')
        .next()
        .unwrap()
        .to_string();
    let mut types = vec![];
    for kind in [134, 137, 136] {
        icmp6(&gb, &own, &own, &mac, kind);
    }
    let mut raw = raw;
    let mut b = [0u8; 256];
    // The one that passes was sent last.
    while !types.contains(&136) {
        let n = std::io::Read::read(&mut raw, &mut b).unwrap_or_else(|e| panic!("{e}: {types:?}"));
        if n > 0 {
            types.push(b[0]);
        }
    }
    assert!(!types.contains(&134) && !types.contains(&137), "{types:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_driver_answers_for_unknown_and_removed_groups() {
    if !able() {
        return;
    }
    let mut lab = Lab::new();
    let n = lab.network(&["10.0.1.0/24"]);
    let all = lab.group(vec![rule(Direction::Ingress, EtherType::Ipv4)]);
    let a = lab.port(n, &["10.0.1.11"], &[all]);
    let b = lab.port(n, &["10.0.1.12"], &[all]);
    lab.apply().await;
    let (ga, gb) = (lab.configure(a), lab.configure(b));
    serve(&ga, "0.0.0.0:22");
    let (mut s, _) = connect_soon(&gb, "10.0.1.11:22").unwrap();
    // Absence is never delete.
    let none = NetDesired::default();
    lab.real.apply(&none).await.unwrap();
    assert!(alive(&mut s), "a port that the desired set forgot keeps working");
    assert!(reaches_soon(&gb, "10.0.1.11:22"));
    lab.restart();
    lab.real.apply(&none).await.unwrap();
    assert!(alive(&mut s), "also after a restart");
    lab.real.remove(Kind::SecurityGroup, all).await.unwrap();
    assert!(!alive(&mut s), "a tombstone takes away");
    lab.real.remove(Kind::SecurityGroup, all).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stateless_group_needs_a_rule_for_each_way() {
    if !able() {
        return;
    }
    let mut lab = Lab::new();
    let n = lab.network(&["10.0.1.0/24"]);
    let plain = lab.group(vec![tcp_in(22)]);
    let bare = lab.group(vec![tcp_in(22)]);
    lab.group_mut(bare).stateful = false;
    let a = lab.port(n, &["10.0.1.11"], &[plain]);
    let b = lab.port(n, &["10.0.1.12"], &[bare]);
    lab.apply().await;
    let (ga, gb) = (lab.configure(a), lab.configure(b));
    serve(&ga, "0.0.0.0:22");
    serve(&gb, "0.0.0.0:22");
    assert!(reaches_soon(&ga, "10.0.1.12:22"), "in by its rule, out by the other");
    assert!(!reaches(&gb, "10.0.1.11:22"), "the answer has no rule");
    lab.group_mut(bare).rules.push(Rule {
        protocol: Some(6),
        ..rule(Direction::Ingress, EtherType::Ipv4)
    });
    lab.apply().await;
    assert!(reaches_soon(&gb, "10.0.1.11:22"));
    lab.group_mut(bare).stateful = true;
    lab.apply().await;
    assert!(reaches_soon(&gb, "10.0.1.11:22"));
}

/// An unsolicited neighbour advertisement with the override flag.
fn advertise(ns: &str, from: &str, target: &str, mac: &str) {
    icmp6(ns, from, target, mac, 136);
}

fn icmp6(ns: &str, from: &str, target: &str, mac: &str, kind: u8) {
    use socket2::{Domain, Protocol, Socket, Type};
    let from: std::net::Ipv6Addr = from.parse().unwrap();
    let target: std::net::Ipv6Addr = target.parse().unwrap();
    let mut m = vec![kind, 0, 0, 0, 0x20, 0, 0, 0];
    m.extend(target.octets());
    m.extend([2, 1]);
    m.extend(mac.split(':').map(|b| u8::from_str_radix(b, 16).unwrap()));
    in_ns(ns, || {
        let s = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6)).unwrap();
        s.set_multicast_hops_v6(255).unwrap();
        s.bind_device(Some(b"eth0")).unwrap();
        let scope = if from.is_unicast_link_local() { index(ns) } else { 0 };
        s.bind(&std::net::SocketAddrV6::new(from, 0, 0, scope).into()).unwrap();
        let all: std::net::Ipv6Addr = "ff02::1".parse().unwrap();
        s.send_to(&m, &std::net::SocketAddrV6::new(all, 0, 0, 0).into())
            .unwrap();
    });
}

fn index(ns: &str) -> u32 {
    let line = sh(&format!("ip -n {ns} -o link show dev eth0"));
    line.split(':').next().unwrap().trim().parse().unwrap()
}
